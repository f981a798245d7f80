"""Rows of a data set as they were found, and their cells."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from anglekit.errors import InputError
from anglekit.tables.kept_rows import KeptRows

if TYPE_CHECKING:
    import pandas as pd

_LONGEST_TEXT = 1_000_000
"""The most characters of one text: a tokenizer holds a few hundred bytes for each of its tokens at once."""


@dataclass(frozen=True, eq=False)
class Table:
    """Rows of a data set as they were found.

    Attributes:
        source: what was asked for: a path, `hub:...` or `builtin:...`.
        rows: the rows; every column holds plain Python values, missing ones as None.
        sha256: of the file's bytes, or for `hub:` and `builtin:` of all rows written as JSON; of several files, of
            the hashes of all.
        notes: what a person should know of how it was read, each a sentence.
        class_names: by column of class numbers, the names of the classes in the order of their numbers, where the data
            say so (`ClassLabel` of `datasets`).
        parts: the files that the rows come from, in order, with the number of rows of each; () where it is one.
        roles: by role (`text`, `text_pair`, `label`, `target`, `choices`) the column that plays it, where the table
            is of a known shape (`tables.shapes`).
        shape: the known shape's name; "" where it is of none.
        first_row: the number of the first row in the source, for a piece of a table.
        origins: of each row the number of the row of the source that it was made of; None: its own.
        has_header: whether the columns' names are a file's first line.
        whole: whether these are all rows; of some, what is true of all rows is not asked.
    """

    source: str
    rows: pd.DataFrame | KeptRows
    sha256: str
    notes: tuple[str, ...] = ()
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    parts: tuple[tuple[str, int], ...] = ()
    roles: Mapping[str, str] = field(default_factory=dict)
    shape: str = ""
    first_row: int = 0
    origins: Sequence[int] | None = None
    has_header: bool = False
    whole: bool = True

    def __len__(self) -> int:
        return self.rows.n_rows if isinstance(self.rows, KeptRows) else len(self.rows)

    @property
    def names(self) -> list[str]:
        """The columns that the rows have at the top."""
        return self.rows.names if isinstance(self.rows, KeptRows) else [str(name) for name in self.rows.columns]

    @cached_property
    def frame(self) -> pd.DataFrame:
        """All rows as a data frame whose columns have dtype object; `column` takes less memory."""
        if not isinstance(self.rows, KeptRows):
            return self.rows
        return object_frame({name: self.rows.column(name) for name in self.rows.names})

    def column(self, name: str) -> list[Any]:
        """Return a column's cells, or what lies inside them: `answers.text` of a column `answers`.

        Of a cell that holds a list of objects it is the list of their values.

        Raises:
            KeyError: there is no such column.
        """
        outer, inside = self._outer(name)
        cells = self.rows.column(outer) if isinstance(self.rows, KeptRows) else self.rows[outer].tolist()
        return [_inside(cell, inside) for cell in cells] if inside else cells

    def first(self, name: str, n_rows: int = 1000) -> list[Any]:
        """Return a column's cells in the first rows."""
        if not isinstance(self.rows, KeptRows):
            return self.rows[name].head(n_rows).tolist()
        cells: list[Any] = []
        for piece in self.rows.pieces([name]):
            if len(cells) >= n_rows:
                break
            cells += piece[name]
        return cells[:n_rows]

    def each_row(self) -> Iterator[dict[str, Any]]:
        """Yield the rows, each by column."""
        names = self.names
        pieces = self.rows.pieces(names) if isinstance(self.rows, KeptRows) else [self.rows.to_dict("list")]
        for piece in pieces:
            for cells in zip(*(piece[name] for name in names), strict=True):
                yield dict(zip(names, cells, strict=True))

    def in_pieces(self) -> Iterator[Table]:
        """Yield the table's rows in pieces that memory holds, each a table with the number of its first row."""
        if not isinstance(self.rows, KeptRows):
            yield self
            return
        first = self.first_row
        for piece in self.rows.pieces(self.names):
            frame = object_frame(piece)
            yield replace(self, rows=frame, first_row=first, whole=False)
            first += len(frame)

    def has(self, name: str) -> bool:
        """Return whether there is a column of this name, also inside the cells of another one."""
        try:
            _, inside = self._outer(name)
        except KeyError:
            return False
        return not inside or any(not is_missing(cell) for cell in self.column(name))

    def _outer(self, name: str) -> tuple[str, list[str]]:
        """Return the column in which a named one lies, and the keys on the way to it."""
        names = set(self.names)
        parts = name.split(".")
        for end in range(len(parts), 0, -1):
            if (outer := ".".join(parts[:end])) in names:
                return outer, parts[end:]
        raise KeyError(name)

    def file_row(self, row: int) -> tuple[str, int]:
        """Return in which file a row lies, and its number there, counted from 0."""
        place = (row if self.origins is None else self.origins[row]) + self.first_row
        number = place
        for name, n_rows in self.parts:
            if number < n_rows:
                return name, number
            number -= n_rows
        return self.source, place

    def cell_place(self, column: str, row: int) -> str:
        """Return in words where a cell lies: the file, the column and the number of the row."""
        file, number = self.file_row(row)
        return f"{file}, column {column!r}, row {number} (counted from 0)"


def _inside(cell: Any, keys: Sequence[str]) -> Any:  # noqa: ANN401 - whatever a cell holds
    for place, key in enumerate(keys):
        if isinstance(cell, list):
            found = [_inside(one, keys[place:]) for one in cell]
            return found if any(one is not None for one in found) else None
        cell = cell.get(key) if isinstance(cell, dict) else None
    return cell


def object_frame(columns: Mapping[str, Sequence[Any]]) -> pd.DataFrame:
    """Return columns of plain Python values as a frame that leaves them as they are."""
    import pandas as pd

    # dtype object: pandas would otherwise turn integers beside a missing value into floats.
    return pd.DataFrame(columns, dtype=object)


def table_of_frame(source: str, frame: pd.DataFrame) -> Table:
    """Return a data frame in memory as a table; `source` says what it is.

    Raises:
        InputError: it has no rows.
    """
    plain = frame.astype(object).where(frame.notna(), None).reset_index(drop=True)
    if plain.empty:
        raise InputError(f"{source} has no rows", "a table needs at least one")
    return with_sha256(Table(source, plain, ""))


def is_missing(cell: object) -> bool:
    """Return whether a cell holds nothing."""
    return cell is None or bool(cell != cell)  # NaN alone differs from itself


def check_text(text: object, table: Table, column: str, row: int) -> str:
    """Return a cell's text (or one of its texts), checked so that a tokenizer can take it.

    Raises:
        InputError: it is not text, holds half of a surrogate pair, or is longer than a million characters.
    """
    where = table.cell_place(column, row)
    if not isinstance(text, str):
        raise InputError(f"{where} holds {type(text).__name__} {str(text)[:40]!r}, not text", "name a column of text")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{where} holds half of a surrogate pair, which is no text", "correct the escape") from error
    if len(text) > _LONGEST_TEXT:
        raise InputError(
            f"{where} holds a text of {len(text):,} characters",
            f"at most {_LONGEST_TEXT:,} are read: make several rows of it",
        )
    return text


def with_sha256(table: Table) -> Table:
    """Return a table with the hash of its rows.

    Column names and rows are hashed, each a line of JSON, so that equal content has one hash wherever it came from.
    """
    # One encoder for all rows: `json.dumps` with a default makes one for each.
    encoder = json.JSONEncoder(default=repr)
    digest = hashlib.sha256(encoder.encode(table.names).encode())
    for row in table.each_row():
        digest.update(b"\n" + encoder.encode(list(row.values())).encode())
    return replace(table, sha256=digest.hexdigest())
