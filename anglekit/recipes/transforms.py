"""Rows of a data set -> rows of plain text columns, where the data set lacks the columns that a task reads.

A table that already has the text columns is used as it is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from anglekit.errors import InputError
from anglekit.tables.shapes import triples_text
from anglekit.tables.table import Table

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Transform:
    """How rows become text: the columns that it reads and makes, and a function from one row to its new rows."""

    reads: tuple[str, ...]
    makes: tuple[str, ...]
    rows: Callable[[Row], Iterator[dict[str, Any]]]


def _triples(row: Row) -> Iterator[dict[str, Any]]:
    """`tripleset` [[subject, relation, object], ...] and `target` -> `source` "subject : relation : object | ...".

    Where the row has several `references`, or `annotations.text`, these are the target.
    """
    source = triples_text(_listed(row["tripleset"], "tripleset"))
    references = next((row[name] for name in ("references", "annotations.text") if row.get(name)), None)
    target = row.get("target") if references is None else _listed(references, "references")
    yield {"source": source, "target": target}


def _conversation(row: Row) -> Iterator[dict[str, Any]]:
    r"""`story`, `questions` and answers -> `prompt` "story\n\nQ: ...\n\nA: ...\n\nQ: ...\n\nA:" and `completion`.

    Every question gives a row; the earlier ones stand in its prompt with their answers.
    """
    questions = _listed(row["questions"], "questions")
    answers = _listed(row.get("answers.input_text") or row.get("answers"), "answers")
    if not questions or len(questions) != len(answers):
        raise InputError(f"{len(questions)} questions came with {len(answers)} answers", "give one for each")
    so_far = str(row["story"])
    for question, answer in zip(questions, answers, strict=True):
        so_far += f"\n\nQ: {question}\n\nA:"
        yield {"prompt": so_far, "completion": str(answer)}
        so_far += f" {answer}"


TRANSFORMS: Final[Mapping[str, Transform]] = {
    "triples": Transform(("tripleset",), ("source", "target"), _triples),
    "conversation": Transform(("story", "questions"), ("prompt", "completion"), _conversation),
}


def transform_rows(table: Table, name: str) -> list[dict[str, Any]]:
    """Return the rows of a table as text columns; it has the columns that the transform reads, or those that it makes.

    Raises:
        InputError: it has neither, or a row does not hold what it should.
    """
    transform = TRANSFORMS[name]
    present = set(table.names)
    rows: list[Any] = table.frame.to_dict(orient="records")
    if present.issuperset(transform.makes):
        return [{column: row[column] for column in transform.makes} for row in rows]
    if not present.issuperset(transform.reads):
        raise InputError(
            f"{table.source} has the columns {', '.join(sorted(present))[:200]}",
            f"this recipe needs {', '.join(transform.makes)}, or what they are made of: {', '.join(transform.reads)}",
        )
    made = []
    for number, row in enumerate(rows):
        try:
            made += list(transform.rows(row))
        except InputError as error:
            raise InputError(f"{table.source}, row {number} (counted from 0): {error}") from error
    return made


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
