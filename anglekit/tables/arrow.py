"""Parquet files and Arrow tables -> columns of plain Python values, within bounds: a small file may claim anything."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from anglekit.errors import InputError, foreign_failures

__all__ = ["check_count", "check_names", "claimed_values", "columns_from_arrow", "read_parquet_columns"]


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


# A table of texts has a few columns; what has very many is something else.
_MOST_COLUMNS: Final = 10_000
# Values that repeat take no room in a parquet file, so that one of some kilobytes may hold a thousand million of them.
_VALUES_PER_BYTE, _MORE_VALUES = 50, 10_000_000
_CHARACTERS_PER_BYTE, _MORE_CHARACTERS = 200, 1 << 28


def check_names(names: Sequence[str], source: str) -> None:
    """Raise the InputError for columns that share a name, or are too many."""
    check_count(len(names), source)
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InputError(f"{source} has two columns named {name[:80]!r}", "rename or remove one")
        seen.add(name)


def check_count(columns: int, source: str) -> None:
    """Raise the InputError for more columns than are read."""
    if columns > _MOST_COLUMNS:
        raise InputError(
            f"{source} has {columns:,} columns", f"at most {_MOST_COLUMNS:,} are read: give a table of texts"
        )


def read_parquet_columns(path: Path, source: str, limit: int | None) -> dict[str, list[Any]]:
    """Return a parquet file's columns; a struct column becomes columns `outer.inner`.

    Args:
        path: the file.
        source: what to call it in an error.
        limit: read only that many rows.

    Raises:
        InputError: it is damaged, two columns have one name, or it holds far more than its size.
    """
    import pyarrow.parquet as pq

    def damaged(reason: str) -> str:
        return f"{source} is not a readable parquet file: {reason}; write it again"

    with foreign_failures(damaged):
        # Not pq.read_table, which adds columns that it reads off directory names like a=b.
        file = pq.ParquetFile(path)
    with file:
        schema, metadata = file.schema_arrow, file.metadata
        check_names(schema.names, source)
        check_count(metadata.num_columns, source)
        size = path.stat().st_size
        try:
            values = claimed_values(path)
        except ValueError as error:
            raise InputError(damaged(str(error))) from error
        claimed = max(metadata.num_rows, sum(values))
        if claimed > _VALUES_PER_BYTE * size + _MORE_VALUES or min([metadata.num_rows, *values]) < 0:
            raise InputError(damaged(f"it claims {claimed:,} values in {size:,} bytes"))
        with foreign_failures(damaged):
            # As dictionaries, texts that repeat are one object, however many rows have them.
            texts = [field.name for field in schema if _is_text(field.type)]
            file = pq.ParquetFile(path, read_dictionary=texts)
        with file, foreign_failures(damaged):
            batches = file.iter_batches(batch_size=8192)
            return columns_from_arrow(batches, source, file.schema_arrow, limit, size)


def _is_text(kind: Any) -> bool:  # noqa: ANN401 - pyarrow has no types
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def columns_from_arrow(
    tables: Iterable[Any],
    source: str,
    schema: Any,  # noqa: ANN401 - pyarrow has no types
    limit: int | None = None,
    size: int | None = None,
) -> dict[str, list[Any]]:
    """Return the columns of Arrow tables as plain Python values; a struct column becomes columns `outer.inner`.

    Args:
        tables: `pyarrow.Table` or `RecordBatch` pieces of one table.
        source: what to call the table in an error.
        schema: the pieces' `pyarrow.Schema`.
        limit: keep only that many rows.
        size: of the file, which bounds the texts; None does not.

    Raises:
        InputError: two columns have one name, or the texts are far longer than the file.
    """
    import pyarrow as pa

    names = schema.empty_table().flatten().column_names
    check_names(names, source)
    columns: dict[str, list[Any]] = {name: [] for name in names}
    left, characters = limit, 0
    for table in tables:
        if left is not None and left <= 0:
            break
        whole = pa.Table.from_batches([table]) if isinstance(table, pa.RecordBatch) else table
        piece = whole.flatten() if left is None else whole.slice(0, left).flatten()
        for name in names:
            for chunk in piece.column(name).chunks:
                cells = _cells(pa, chunk)
                columns[name].extend(cells)
                characters += sum(len(cell) for cell in cells if isinstance(cell, str | bytes | list))
        if size is not None and characters > _CHARACTERS_PER_BYTE * size + _MORE_CHARACTERS:
            raise InputError(f"{source} holds far more text than its {size:,} bytes", "write it without repetitions")
        left = None if left is None else left - piece.num_rows
    return columns


def _cells(pa: Any, chunk: Any) -> list[Any]:  # noqa: ANN401 - pyarrow has no types
    if not pa.types.is_dictionary(chunk.type):
        return list(chunk.to_pylist())
    values = chunk.dictionary.to_pylist()
    return [None if place is None else values[place] for place in chunk.indices.to_pylist()]
