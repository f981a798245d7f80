"""Columns of texts: which one a task reads, and its cells as texts, lists of texts or an error that names the row."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from anglekit.errors import InputError
from anglekit.tables.read import Table, check_text, find_column


def find_text_column(
    table: Table, role: str, given: str | None, preferred: Sequence[str | None] = (), usual: Sequence[str] | None = None
) -> str:
    """Return the name of the column that plays a role.

    Args:
        table: the table.
        role: `source`, `target`, `prompt`, ...; the option that names it is `--role`.
        given: what the user named.
        preferred: the task's own names, the first that is there winning.
        usual: names to look for after these.

    Raises:
        InputError: there is no such column.
    """
    if given is None:
        names = {str(name) for name in table.frame.columns}
        given = next((wanted for wanted in preferred if wanted in names), None)
    return find_column(table, role, given, usual)


def texts_of(table: Table, column: str, role: str, *, may_be_missing: bool = False) -> tuple[str, ...]:
    """Return a column's texts.

    Args:
        table: the table.
        column: as `find_text_column` returned it.
        role: for messages.
        may_be_missing: whether a missing cell is the empty text instead of an error.

    Raises:
        InputError: a cell holds something else, or none holds a text.
    """
    texts = []
    for row, cell in enumerate(table.frame[column].tolist()):
        if _missing(cell) or (isinstance(cell, str) and not cell.strip() and not may_be_missing):
            if not may_be_missing:
                raise InputError(
                    f"{table.source} has no {role} in row {row} (counted from 0), column {column!r}",
                    "give every row one",
                )
            texts.append("")
        elif isinstance(cell, str):
            texts.append(check_text(cell, _where(table, column, row)))
        else:
            raise InputError(_not_text(table, column, row, cell))
    if not any(text.strip() for text in texts):
        raise InputError(f"column {column!r} of {table.source} holds no text", f"name another with {_options(role)}")
    return tuple(texts)


def text_lists(table: Table, column: str, role: str, *, least: int = 1) -> tuple[tuple[str, ...], ...]:
    """Return a column's texts where a cell may hold one text or a list of texts (also a list written as json).

    Raises:
        InputError: a cell holds fewer than `least` texts, or something that is no text.
    """
    rows = []
    for row, cell in enumerate(table.frame[column].tolist()):
        texts = _listed(cell)
        if any(not isinstance(text, str) for text in texts):
            raise InputError(_not_text(table, column, row, cell))
        for text in texts:
            check_text(text, _where(table, column, row))
        if len(texts) < least or any(not text.strip() for text in texts):
            wanted = f"at least {least} {role}" if least > 1 else f"a {role}"
            raise InputError(
                f"{table.source} has {len([text for text in texts if text.strip()])} {role} in row {row} (counted "
                f"from 0), column {column!r}",
                f"give every row {wanted}",
            )
        rows.append(tuple(texts))
    return tuple(rows)


def _options(role: str) -> str:
    return "--text or --text-pair" if role == "text" else f"--{role}"


def _listed(cell: object) -> list[Any]:
    if _missing(cell):
        return []
    if isinstance(cell, str) and cell.lstrip().startswith("["):
        try:
            read = json.loads(cell)
        except (ValueError, RecursionError):  # a text that begins with a bracket
            return [cell]
        return read if isinstance(read, list) else [cell]
    return list(cell) if isinstance(cell, list | tuple) else [cell]


def _missing(cell: object) -> bool:
    return cell is None or bool(cell != cell)  # NaN alone differs from itself


def _where(table: Table, column: str, row: int) -> str:
    return f"{table.source}, column {column!r}, row {row} (counted from 0)"


def _not_text(table: Table, column: str, row: int, cell: object) -> str:
    return (
        f"{_where(table, column, row)} holds {type(cell).__name__} {str(cell)[:40]!r}, not text; name a column of text"
    )
