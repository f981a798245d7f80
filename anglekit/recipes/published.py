"""The scores that the paper published, with their source."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from anglekit.errors import InputError, suggest

if TYPE_CHECKING:
    from anglekit.recipes.recipe import Recipe

__all__ = ["SOURCE", "PublishedScore", "check_published", "published_of", "published_scores"]

SOURCE: Final = (
    "Z. Yu, Y. Wen, L. Mou: Revisiting Intermediate-Layer Matching in Knowledge Distillation: Layer-Selection Strategy "
    "Doesn't Matter (Much), Findings of IJCNLP-AACL 2025, pp. 1686-1694, arXiv 2502.04499"
)


@dataclass(frozen=True)
class PublishedScore:
    """One number of the paper.

    Attributes:
        table: "classification", "generation" or "llm".
        task: as the paper's tables name it, `mnli-matched` for example.
        metric: "accuracy", "f1", "bleu" or "exact-match"; in percent, or BLEU points.
        model: "teacher", "teacher-previous-work" (a number that the paper quotes) or "student".
        init: "random" or "teacher"; "" for teachers.
        strategy: how the student was matched; "" for teachers.
        value: from 0 to 100.
    """

    table: str
    task: str
    metric: str
    model: str
    init: str
    strategy: str
    value: float


@cache
def published_scores() -> tuple[PublishedScore, ...]:
    """Return all numbers, in the order of the paper's tables."""
    text = (files("anglekit.recipes") / "published.csv").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return tuple(
        PublishedScore(
            row["table"],
            row["task"],
            row["metric"],
            row["model"],
            row["init"],
            row["strategy"],
            float(row["value"]),
        )
        for row in csv.DictReader(lines)
    )


def published_of(recipe: Recipe) -> tuple[PublishedScore, ...]:
    """Return the numbers that belong beside a recipe's result: of its tasks and metrics."""
    if recipe.published is None:
        return ()
    tasks, metrics = set(recipe.published.tasks.values()), set(recipe.published.scores.values())
    return tuple(one for one in published_scores() if one.task in tasks and one.metric in metrics)


def check_published(tasks: Iterable[str], metrics: Iterable[str]) -> None:
    """Check that the paper has such tasks and metrics.

    Raises:
        InputError: it has not; the nearest is suggested.
    """
    for what, names, known in (
        ("task", tasks, {one.task for one in published_scores()}),
        ("metric", metrics, {one.metric for one in published_scores()}),
    ):
        for name in names:
            if name not in known:
                raise InputError(f"the paper's tables have no {what} {name!r}", allowed=suggest(name, sorted(known)))
