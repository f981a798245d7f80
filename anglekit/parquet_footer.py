"""What a parquet file's footer claims, read by itself: pyarrow ends the process over some damaged footers.

`RowGroupMetaData.column` lets a C++ exception out that nothing can catch (pyarrow 26, on a wrong size of a column's
level histograms); opening and reading a file raises as it should. The footer is a struct in Thrift's compact protocol
(https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md), its fields are those of
https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

__all__ = ["claimed_values"]

_MARK: Final = b"PAR1"
_MOST_BYTES: Final = 32 << 20
_DEEPEST: Final = 16
_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 12
_INTEGERS: Final = (4, 5, 6)
# FileMetaData.row_groups, RowGroup.columns, ColumnChunk.meta_data, ColumnMetaData.num_values
_ROW_GROUPS, _COLUMNS, _META_DATA, _NUM_VALUES = 4, 1, 3, 5


def claimed_values(file: Path) -> list[int]:
    """Return for every column of every row group how many values it claims to hold.

    Raises:
        ValueError: it is no parquet file, its footer is damaged or encrypted, or larger than 32 MiB.
    """
    with file.open("rb") as stream:
        size = stream.seek(0, 2)
        stream.seek(max(size - 8, 0))
        tail = stream.read(8)
        length = int.from_bytes(tail[:4], "little")
        if tail[4:] != _MARK or not 0 < length <= size - 12:
            raise ValueError("it has no footer")
        if length > _MOST_BYTES:
            raise ValueError(f"its footer is larger than {_MOST_BYTES >> 20} MiB")
        stream.seek(size - 8 - length)
        content = stream.read(length)
    try:
        groups = _Reader(content).struct()[_ROW_GROUPS]
        return [int(column[_META_DATA][_NUM_VALUES]) for group in groups for column in group[_COLUMNS]]
    except (IndexError, KeyError, TypeError) as error:
        raise ValueError("its footer is damaged") from error


class _Reader:
    """Thrift's compact protocol as plain values: a struct is a dict by field number; texts stay bytes."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 0
        self._depth = 0

    def struct(self) -> dict[int, Any]:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise ValueError("its footer is nested too deeply")
        fields: dict[int, Any] = {}
        number = 0
        while header := self._byte():
            step, kind = header >> 4, header & 15
            number = number + step if step else self._zigzag()
            fields[number] = kind == _TRUE if kind in (_TRUE, _FALSE) else self._value(kind)
        self._depth -= 1
        return fields

    def _value(self, kind: int) -> Any:  # noqa: ANN401 - of the kind that the file names
        if kind in (_TRUE, _FALSE, _BYTE):  # in a list a boolean is a byte
            return self._byte()
        if kind in _INTEGERS:
            return self._zigzag()
        if kind == _DOUBLE:
            return self._taken(8)
        if kind == _BINARY:
            return self._taken(self._varint())
        if kind in (_LIST, _SET):
            header = self._byte()
            count = header >> 4 if header >> 4 < 15 else self._varint()
            # Every element takes a byte or more.
            if count > len(self._content) - self._at:
                raise ValueError("its footer is damaged")
            return [self._value(header & 15) for _ in range(count)]
        if kind == _STRUCT:
            return self.struct()
        raise ValueError("its footer is damaged")  # parquet has no maps

    def _byte(self) -> int:
        found = self._content[self._at]
        self._at += 1
        return found

    def _taken(self, length: int) -> bytes:
        if length > len(self._content) - self._at:
            raise ValueError("its footer is damaged")
        self._at += length
        return self._content[self._at - length : self._at]

    def _varint(self) -> int:
        found = shift = 0
        while True:
            byte = self._byte()
            found |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return found
            if shift > 63:
                raise ValueError("its footer is damaged")

    def _zigzag(self) -> int:
        found = self._varint()
        return (found >> 1) ^ -(found & 1)
