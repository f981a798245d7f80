"""Columns of texts: which one a task reads, and its cells as texts or lists of texts; errors name the row."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from anglekit.errors import InputError
from anglekit.tables.columns import find_column
from anglekit.tables.table import Table, check_text, is_missing


def find_text_column(
    table: Table, role: str, given: str | None, preferred: Sequence[str | None] = (), usual: Sequence[str] | None = None
) -> str:
    """Return the name of the column for a role: `given`, the first of `preferred` that exists, or a usual one.

    Raises:
        InputError: there is no such column.
    """
    if given is None:
        given = next((wanted for wanted in preferred if wanted is not None and table.has(wanted)), None)
    return find_column(table, role, given, usual)


def texts_of(
    table: Table, column: str, role: str, *, may_be_missing: bool = False, throughout: bool = False
) -> tuple[str, ...]:
    """Return a column's texts; with `may_be_missing` a missing cell is the empty text instead of an error.

    With `throughout` all of them may be.

    Raises:
        InputError: a cell holds something else, or no cell of a whole table holds a text.
    """
    texts = []
    for row, cell in enumerate(table.column(column)):
        if not may_be_missing and (is_missing(cell) or (isinstance(cell, str) and not cell.strip())):
            file, number = table.file_row(row)
            raise InputError(
                f"{file} has no {role} in row {number} (counted from 0), column {column!r}", "give every row one"
            )
        texts.append("" if is_missing(cell) else check_text(cell, table, column, row))
    if table.whole and not throughout and not any(text.strip() for text in texts):
        raise no_text(column, table.source, role)
    return tuple(texts)


def no_text(column: str, source: str, role: str) -> InputError:
    """Return the error of a column that is blank throughout."""
    options = "--text or --text-pair" if role == "text" else f"--{role}"
    return InputError(f"column {column!r} of {source} holds no text", f"name another with {options}")


def text_lists(table: Table, column: str, role: str, *, least: int = 1) -> tuple[tuple[str, ...], ...]:
    """Return a column's texts where a cell may hold one text or a list of texts (also a list written as json).

    Raises:
        InputError: a cell holds fewer than `least` texts, or something that is no text.
    """
    rows = []
    for row, cell in enumerate(table.column(column)):
        texts = tuple(check_text(text, table, column, row) for text in _listed(cell))
        if len(texts) < least or any(not text.strip() for text in texts):
            wanted = f"at least {least} {role}" if least > 1 else f"a {role}"
            file, number = table.file_row(row)
            raise InputError(
                f"{file} has {len([text for text in texts if text.strip()])} {role} in row {number} (counted "
                f"from 0), column {column!r}",
                f"give every row {wanted}",
            )
        rows.append(texts)
    return tuple(rows)


def _listed(cell: object) -> list[Any]:
    if is_missing(cell):
        return []
    if isinstance(cell, str) and cell.lstrip().startswith("["):
        try:
            read = json.loads(cell)
        except (ValueError, RecursionError):  # a text that begins with a bracket
            return [cell]
        return read if isinstance(read, list) else [cell]
    return list(cell) if isinstance(cell, list | tuple) else [cell]
