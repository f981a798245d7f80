"""Rows of a data set -> rows of plain text columns, where the data set lacks the columns that a task reads.

A table that already has the text columns is used as it is. What a reading decides of texts is done here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from anglekit.errors import InputError
from anglekit.readings import Decisions
from anglekit.tables.shapes import story_of, triples_text, turns_of
from anglekit.tables.table import Table

Row = Mapping[str, Any]
_TASK_PREFIX: Final = "translate English to Romanian: "


@dataclass(frozen=True)
class Form:
    """In which form rows become texts.

    Attributes:
        decided: what the recipe's reading says of texts.
        training: whether the table is trained on; other tables are scored, and analysed.
    """

    decided: Decisions
    training: bool


@dataclass(frozen=True)
class Transform:
    """How rows become text: the columns that it reads and makes, and a function from one row to its new rows."""

    reads: tuple[str, ...]
    makes: tuple[str, ...]
    rows: Callable[[Row, Form], Iterator[dict[str, Any]]]


def _triples(row: Row, form: Form) -> Iterator[dict[str, Any]]:
    """`tripleset` [[subject, relation, object], ...] and `target` -> `source` "subject : relation : object | ...".

    Relations are in lower case, as in the paper's data. Where the row has several `references`, or `annotations.text`,
    these are the target.
    """
    source = triples_text(_listed(row["tripleset"], "tripleset"), lower_relations=True)
    references = next((row[name] for name in ("references", "annotations.text") if row.get(name)), None)
    target = row.get("target") if references is None else _listed(references, "references")
    yield {"source": source, "target": target}


def _translation(row: Row, form: Form) -> Iterator[dict[str, Any]]:
    """`translation.en` and `translation.ro` -> `source`, with the reading's prefix, and `target`."""
    source = str(row["translation.en"])
    if form.decided.source_prefix == "task":
        prefixed = f"{_TASK_PREFIX}{source}"
    else:
        prefixed = f"t{source}" if form.training else f"t{source[1:]}"
    yield {"source": prefixed, "target": str(row["translation.ro"])}


def _conversation(row: Row, form: Form) -> Iterator[dict[str, Any]]:
    r"""`story`, `questions` and answers -> `prompt` "story\n\nQ: ...\n\nA: ...\n\nQ: ...\n\nA:" and `completion`.

    For training every question gives a row: behind the earlier ones with their answers, or in the official reading
    behind its story alone. For scoring the last question gives one, and its completion is the list of several answers
    where the table has `additional_answers`.
    """
    for turn in turns_of(story_of(row)):
        if not form.training and turn.last:
            yield {"prompt": turn.prompt, "completion": list(turn.answers)}
        elif form.training and form.decided.conversation_text == "alone":
            yield dict(zip(("prompt", "completion"), turn.alone, strict=True))
        elif form.training:
            yield {"prompt": turn.prompt, "completion": turn.answers[0]}


TRANSFORMS: Final[Mapping[str, Transform]] = {
    "triples": Transform(("tripleset",), ("source", "target"), _triples),
    "translation": Transform(("translation.en", "translation.ro"), ("source", "target"), _translation),
    "conversation": Transform(("story", "questions"), ("prompt", "completion"), _conversation),
}


def transform_rows(table: Table, name: str, form: Form) -> list[dict[str, Any]]:
    """Return the rows of a table as text columns; it has the columns that the transform reads, or those that it makes.

    Raises:
        InputError: it has neither, or a row does not hold what it should.
    """
    transform = TRANSFORMS[name]
    present = set(table.names)
    rows: list[Any] = table.frame.to_dict(orient="records")
    if present.issuperset(transform.makes):
        return [{column: row[column] for column in transform.makes} for row in rows]
    outer = present | {name.split(".")[0] for name in present}  # what a column of objects is the name of
    if not outer.issuperset(transform.reads):
        raise InputError(
            f"{table.source} has the columns {', '.join(sorted(present))[:200]}",
            f"this recipe needs {', '.join(transform.makes)}, or what they are made of: {', '.join(transform.reads)}",
        )
    made = []
    for number, row in enumerate(rows):
        try:
            made += list(transform.rows(row, form))
        except InputError as error:
            raise InputError(f"{table.source}, row {number} (counted from 0): {error}") from error
    return made


def check_references(rows: list[dict[str, Any]], column: str, score: str, source: str) -> None:
    """Refuse a table of which no row has the several references that a score needs.

    Raises:
        InputError: each row has one.
    """
    if not any(isinstance(row[column], list) and len(row[column]) > 1 for row in rows):
        raise InputError(
            f"{source} has one reference in each row, and the score {score} is of several",
            "give a table that has them (references, annotations.text, additional_answers)",
        )


def _listed(cell: Any, column: str) -> list[Any]:  # noqa: ANN401 - a cell of a table
    """Return a list, also of a cell that holds it as json text (as csv does)."""
    if isinstance(cell, str):
        try:
            cell = json.loads(cell)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{column} is {cell[:40]!r}", allowed="expected a list, or one as json") from error
    if not isinstance(cell, list):
        raise InputError(f"{column} is {str(cell)[:40]!r}", allowed="expected a list")
    return cell
