"""Which column of a table plays which role: as the user named it, or by its usual name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

from anglekit.errors import InputError, suggest
from anglekit.tables.table import Table

USUAL_COLUMNS: dict[str, tuple[str, ...]] = {
    "text": (
        "text",
        "sentence",
        "sentence1",
        "premise",
        "question1",
        "question",
        "source",
        "src",
        "input",
        "document",
        "article",
        "prompt",
        "review",
    ),
    "text_pair": ("text_pair", "sentence2", "hypothesis", "question2"),
    "target": (
        "target",
        "tgt",
        "reference",
        "summary",
        "highlights",
        "output",
        "completion",
        "response",
        "answer",
    ),
    "label": ("label", "labels", "gold_label", "class", "category"),
}
"""For each role the column names by which it is found, the first that is there winning; case does not matter."""

USUAL_PARTNERS: dict[str, str] = {
    "text": "text_pair",
    "sentence1": "sentence2",
    "premise": "hypothesis",
    "question1": "question2",
    "question": "sentence",
}
"""For a text column the column that is the second text of the pair (GLUE's names), where there is one."""

_MOST_NAMES = 60
"""The most columns that a message shows."""

NO_COLUMN = "-"
"""Given as a column's name: use no column, even if there is one."""


@overload
def find_column(table: Table, role: str, given: str | None, usual: Sequence[str] | None = None) -> str: ...
@overload
def find_column(
    table: Table, role: str, given: str | None, usual: Sequence[str] | None = None, *, required: bool
) -> str | None: ...
def find_column(
    table: Table, role: str, given: str | None, usual: Sequence[str] | None = None, *, required: bool = True
) -> str | None:
    """Return the column that plays a role (option `--role`): the one that the user named, if any.

    Otherwise it is the first of the `usual` names that is there, by default those of `USUAL_COLUMNS[role]`; None if
    there is none and none is required.

    Raises:
        InputError: there is no such column.
    """
    names = table.names
    option = f"--{role.replace('_', '-')}"
    if given is not None:
        if not table.has(given):
            near = suggest(given, map(_one_line, names))
            raise InputError(f"{table.source} has no column {given!r} for {option}", allowed=near, setting=role)
        return given
    looked_for = USUAL_COLUMNS.get(role, ()) if usual is None else usual
    found = next((name for name in (_present(names, name) for name in looked_for) if name is not None), None)
    if found is None and required:
        raise InputError(
            f"{table.source} has no column with a usual name for {option} ({', '.join(looked_for)})",
            f"name one with {option}: {_listed(names)}",
        )
    return found


def find_text_columns(table: Table, text: str | None = None, text_pair: str | None = None) -> tuple[str, str | None]:
    """Return the columns of the text and, for text pairs, of the second text.

    The pair of a text column is its usual partner (`USUAL_PARTNERS`) or a column named `text_pair`, whether the text
    column was given or found; `text_pair="-"` asks for no pair. A table with both `question` and `sentence` (QNLI)
    holds pairs of the two, in this order.

    Raises:
        InputError: a named column is not there, none is found, or both are the same.
    """
    names = table.names
    pair = None if text_pair in (None, NO_COLUMN) else find_column(table, "text_pair", text_pair)
    if text is None:
        usual = [name for name in USUAL_COLUMNS["text"] if pair is None or name != pair.lower()]
        if text_pair != NO_COLUMN and _present(names, "question") and _present(names, "sentence"):
            usual = [name for name in usual if name != "sentence"]
    else:
        usual = None
    column = find_column(table, "text", text, usual)
    if text_pair is None:
        partner = USUAL_PARTNERS.get(column.lower())
        pair = (_present(names, partner) if partner else None) or _present(names, "text_pair")
        pair = None if pair == column else pair
    elif pair == column:
        raise InputError(f"--text and --text-pair both name the column {column!r}", "name two, or --text-pair -")
    return column, pair


def _present(names: Sequence[str], wanted: str) -> str | None:
    """Return the first column whose name is `wanted` in any case."""
    return next((name for name in names if name.lower() == wanted.lower()), None)


def _one_line(name: str) -> str:
    return name if name.isprintable() and 0 < len(name) <= 80 else repr(name[:80])


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(_one_line, names[:_MOST_NAMES])) + (", ..." if len(names) > _MOST_NAMES else "")
