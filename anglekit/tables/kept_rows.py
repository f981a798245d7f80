"""Rows kept compactly, in memory while they are few and in a temporary file beyond that; read back by column."""

from __future__ import annotations

import json
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import SEEK_END
from typing import IO, Any, Final, cast

from anglekit.errors import InputError

#: Bytes that stay in memory.
_IN_MEMORY: Final = 4 << 20
# Rows of json may differ in their keys, and in the frame each row has a place for every key.
_PLACES_PER_CELL, _MORE_PLACES = 20, 10_000_000
_AS_JSON: Final = {b"cells": b"json"}


# A table of texts has a few columns; what has very many is something else.
_MOST_COLUMNS: Final = 10_000


def check_names(names: Sequence[str], source: str) -> None:
    """Raise an InputError if columns share a name or are too many."""
    check_count(len(names), source)
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InputError(f"{source} has two columns named {name[:80]!r}", "rename or remove one")
        seen.add(name)


def check_count(columns: int, source: str) -> None:
    """Raise an InputError if there are too many columns."""
    if columns > _MOST_COLUMNS:
        raise InputError(
            f"{source} has {columns:,} columns", f"at most {_MOST_COLUMNS:,} are read: give a table of texts"
        )


@dataclass(frozen=True, eq=False)
class Rows:
    """Some rows of a table.

    Attributes:
        columns: cells by column, (rows,) each: plain values, or a `pyarrow.Array`.
        n_rows: how many rows.
        n_cells: how many cells were really given, where rows have different columns.
    """

    columns: Mapping[str, Sequence[Any]]
    n_rows: int
    n_cells: int

    @classmethod
    def of(cls, columns: Mapping[str, Sequence[Any]]) -> Rows:
        """Return rows of which each has all columns."""
        n_rows = max(map(len, columns.values()), default=0)
        return cls(columns, n_rows, n_rows * len(columns))


@dataclass(frozen=True)
class _Piece:
    """Where a piece of the rows lies in the file."""

    start: int
    size: int
    n_rows: int
    names: frozenset[str]


class KeptRows:
    """Rows of plain Python values; grows in place, piece by piece.

    A cell comes back as it was: text, whole and other numbers, booleans, None, and what json can write. Pieces lie in
    one temporary file as Arrow's own streams (the system's temporary directory; `TMPDIR` moves it), so that reading one
    column of a large table takes the memory of that column alone.

    Args:
        source: what messages call the table.

    Attributes:
        n_rows: how many there are.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._file = cast("IO[bytes]", tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY))  # noqa: SIM115
        # Closed, and so removed, with the rows themselves.
        weakref.finalize(self, self._file.close)
        self._pieces: list[_Piece] = []
        self._names: dict[str, None] = {}
        self._n_cells = 0
        self.n_rows = 0

    @property
    def names(self) -> list[str]:
        """The columns, in the order in which they came."""
        return list(self._names)

    def add(self, rows: Rows) -> None:
        """Add rows behind those that are there; columns that they lack, or that came before, hold None.

        Raises:
            InputError: there are too many columns, or nearly every row has others.
        """
        import pyarrow as pa

        stored = {name: _stored(cells) for name, cells in rows.columns.items()}
        schema = pa.schema(
            [
                pa.field(name, array.type, metadata=_AS_JSON if as_json else None)
                for name, (array, as_json) in stored.items()
            ]
        )
        start = self._file.seek(0, SEEK_END)
        with pa.ipc.new_stream(self._file, schema) as stream:
            stream.write_batch(pa.record_batch([array for array, _ in stored.values()], schema=schema))
        self._pieces.append(_Piece(start, self._file.tell() - start, rows.n_rows, frozenset(stored)))
        self._names.update(dict.fromkeys(stored))
        self.n_rows += rows.n_rows
        self._n_cells += rows.n_cells
        check_count(len(self._names), self._source)
        if self.n_rows * len(self._names) > _PLACES_PER_CELL * self._n_cells + _MORE_PLACES:
            raise InputError(
                f"{self._source}: {self.n_rows:,} rows have {len(self._names):,} keys, and nearly every row others",
                "give rows of the same keys",
            )

    def pieces(self, names: Sequence[str]) -> Iterator[dict[str, list[Any]]]:
        """Yield these columns of some rows after others."""
        import pyarrow as pa

        for piece in self._pieces:
            there = [name for name in names if name in piece.names]
            found: dict[str, list[Any]] = dict.fromkeys(names, [None] * piece.n_rows)
            if there:
                self._file.seek(piece.start)
                with pa.ipc.open_stream(pa.py_buffer(self._file.read(piece.size))) as stream:
                    batch = stream.read_next_batch()
                for name in there:
                    place = batch.schema.get_field_index(name)
                    cells = batch.column(place).to_pylist()
                    if batch.schema.field(place).metadata:
                        cells = [None if cell is None else json.loads(cell) for cell in cells]
                    found[name] = cells
            yield found

    def column(self, name: str) -> list[Any]:
        """Return a column's cells, None where a row has none."""
        return [cell for piece in self.pieces([name]) for cell in piece[name]]


def _stored(cells: Sequence[Any]) -> tuple[Any, bool]:
    """Return cells as an Arrow array, and whether they stand in it as json: what Arrow would change does."""
    import pyarrow as pa

    if isinstance(cells, pa.Array):
        return cells, False
    kinds = set(map(type, cells)) - {type(None)}
    if len(kinds) <= 1:
        kind = {str: pa.large_string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}.get(
            next(iter(kinds), str)
        )
        try:
            if kind is not None:
                return pa.array(cells, kind), False
        except (UnicodeEncodeError, OverflowError):
            pass  # half of a surrogate pair, or a number beyond 64 bits: json has them
    texts = [None if cell is None else json.dumps(cell) for cell in cells]
    return pa.array(texts, pa.large_string()), True
