"""Which column of a table plays which role: as the user named it, or by its usual name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, overload

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
        "inputs",
        "instruction",
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
"""For each role the column names by which it is found, whatever their case; of two that are there the user is asked."""

LESSER_COLUMNS: dict[str, tuple[str, ...]] = {
    "text": ("content", "body", "comment", "tweet", "utterance", "query", "abstract", "dialogue", "context", "title"),
    "target": ("targets", "translation", "paraphrase"),
    "label": ("score", "similarity_score", "relatedness_score", "stars", "rating", "sentiment"),
}
"""Names by which a role is found where none of `USUAL_COLUMNS` is there."""

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

_SAME_ROLE: Final = {"source": "text", "prompt": "text", "completion": "target"}
"""What known shapes call the roles of single tasks."""

# A text is found by its name alone, and `source` may hold the name of a corpus: few short values, many times.
_LEAST_ROWS, _ROWS_PER_VALUE, _SHORT = 20, 20, 40


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

    Otherwise it is that of the table's known shape, or the only one with one of the `usual` names, by default those of
    `USUAL_COLUMNS[role]`; None if there is none and none is required.

    Raises:
        InputError: there is no such column, two may be it, or what was found by name alone holds no texts.
    """
    names = table.names
    option = f"--{role.replace('_', '-')}"
    if given is not None:
        if not table.has(given):
            near = suggest(given, map(_one_line, names))
            raise InputError(f"{table.source} has no column {given!r} for {option}", allowed=near, setting=role)
        return given
    kind = _SAME_ROLE.get(role, role)
    if kind in table.roles:
        return table.roles[kind]
    looked_for = USUAL_COLUMNS.get(role, ()) if usual is None else usual
    found = _only(table, role, looked_for) or _only(table, role, LESSER_COLUMNS.get(kind, ()))
    if found is None and required:
        if table.shape:
            raise InputError(
                f"{table.source} is of a known shape ({table.shape}), which has nothing for {option}",
                f"choose another task, or name a column with {option}",
            )
        header = "; if the first line is no header, name all columns: --columns a,b,c" if table.has_header else ""
        raise InputError(
            f"{table.source} has no column with a usual name for {option} ({', '.join(looked_for)})",
            f"name one with {option}: {_listed(names)}{header}",
        )
    if found is not None and kind == "text":
        _check_texts(table, found, option)
    return found


def _only(table: Table, role: str, looked_for: Sequence[str]) -> str | None:
    """Return the only column with one of these names, or None.

    Raises:
        InputError: there are two.
    """
    there = list(dict.fromkeys(name for wanted in looked_for if (name := _present(table.names, wanted)) is not None))
    if role in there:  # what bears the option's own name is meant by it
        return role
    if len(there) > 1:
        option = f"--{role.replace('_', '-')}"
        raise InputError(
            f"{table.source} has {len(there)} columns that may be {option} by their names: "
            f"{', '.join(map(_one_line, there))}",
            f"name the one that is meant, such as {option} {there[0]}",
            setting=role,
        )
    return there[0] if there else None


def _check_texts(table: Table, column: str, option: str) -> None:
    """Refuse a column that was found by its name and holds a few short values again and again."""
    texts = [cell for cell in table.first(column) if isinstance(cell, str)]
    values = dict.fromkeys(texts)
    if len(texts) >= _LEAST_ROWS and len(values) * _ROWS_PER_VALUE <= len(texts) and max(map(len, values)) <= _SHORT:
        raise InputError(
            f"{table.source} has a column {column!r}, a usual name for {option}, and {len(texts)} rows of it hold "
            f"{len(values)} different texts, such as {next(iter(values))!r}",
            f"name the column of the text, also if it is this one, with {option}: {_listed(table.names)}",
            setting=option.removeprefix("--").replace("-", "_"),
        )


def find_text_columns(table: Table, text: str | None = None, text_pair: str | None = None) -> tuple[str, str | None]:
    """Return the columns of the text and, for text pairs, of the second text.

    The pair of a text column is its usual partner (`USUAL_PARTNERS`) or a column named `text_pair`, whether the text
    column was given or found; `text_pair="-"` asks for no pair. A table with both `question` and `sentence` (QNLI)
    holds pairs of the two, in this order.

    Raises:
        InputError: a named column is not there, none is found, or both are the same.
    """
    names = table.names
    if text is None and "text" in table.roles:
        known = table.roles.get("text_pair") if text_pair is None else text_pair
        return table.roles["text"], None if known in (None, NO_COLUMN) else find_column(table, "text_pair", known)
    pair = None if text_pair in (None, NO_COLUMN) else find_column(table, "text_pair", text_pair)
    if text is None:
        usual = [name for name in USUAL_COLUMNS["text"] if pair is None or name != pair.lower()]
        if text_pair is None and _present(names, "question") and _present(names, "sentence"):
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
