"""What `compare` says about drawn students: its own cells, estimates, rows and verdict, without files and tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from anglekit.comparison import statistics
from anglekit.comparison.cells import Cell
from anglekit.comparison.compare import _difference_rows, _families
from anglekit.comparison.crossed import LEAST_SEEDS
from anglekit.comparison.equivalence import Needed
from anglekit.comparison.evidence import Evidence
from anglekit.comparison.family import Family
from anglekit.comparison.statistics import BETWEEN, MATCHING_MEAN, OVER_NONE, estimate_cell, level_rows, spread_row
from anglekit.results.scores import SCORE_COLUMNS

Array = NDArray[np.float64]
#: None and two matching strategies; four of them alone, whose answers take half of the time without none; or all five.
STRATEGIES = {
    3: ("none", "forward", "reverse"),
    4: ("forward", "reverse", "all-to-one", "random"),
    5: ("none", "forward", "reverse", "all-to-one", "random"),
}
#: Neither teacher nor chance: whether students can be told from chance is another question.
NOTHING = Evidence([], pd.DataFrame(columns=list(SCORE_COLUMNS)))


@dataclass(frozen=True, eq=False)
class Answer:
    """What the product says of one cell.

    Attributes:
        between: its rows of differences between matching strategies.
        over_none: its rows of differences over none.
        spread: its row of spreads.
        means: its rows of means, a strategy each; only where none is among them.
        family: the verdict over all pairs.
    """

    between: list[Mapping[str, Any]]
    over_none: list[Mapping[str, Any]]
    spread: Mapping[str, Any]
    means: list[dict[str, Any]]
    family: Family


def score_cell(
    values: Array, *, per_example: bool = True, unit: float = 1.0, trained: Sequence[int] | None = None
) -> Cell:
    """Return a cell of scores.

    Args:
        values: (strategies, seeds, examples), whose mean over examples is the score; strategies as in `STRATEGIES`.
        per_example: whether the run kept the scores of examples.
        unit: the largest score, 1 or 100.
        trained: how many seeds each strategy has, the first ones; all of them where absent.
    """
    kept = values if per_example else values.mean(-1, keepdims=True)
    students, n = by_student(kept), values.shape[-1]
    if trained is not None:
        own = dict(zip(STRATEGIES[len(values)], trained, strict=True))
        students = {(name, seed): one for (name, seed), one in students.items() if seed < own[name]}
    weights = {key: np.ones_like(own) for key, own in students.items()}
    place = {"data": "validation", "score": "accuracy"}
    return Cell("score", "random", place, students, weights, resolution=unit / n, n_examples=n)


def angle_cell(degrees: Array, tokens: Array) -> Cell:
    """Return a cell of angles.

    Args:
        degrees: (strategies, seeds, examples); strategies as in `STRATEGIES`.
        tokens: (examples,).
    """
    students = by_student(degrees)
    weights, place = dict.fromkeys(students, tokens), {"stream": "encoder", "vertex": 1}
    return Cell("angle", "random", place, students, weights, resolution=1e-6, n_examples=len(tokens))


def by_student(values: Array) -> dict[tuple[str, int], Array]:
    """Return the examples' values by strategy and seed."""
    names = STRATEGIES[len(values)]
    return {(name, s): values[k, s] for k, name in enumerate(names) for s in range(values.shape[1])}


def answer(cell: Cell, margin: float, *, needed: bool = False) -> Answer:
    """Return what `compare` says of a cell; `needed`: also how much data would decide, which takes half of the time."""
    with nullcontext() if needed else mock.patch.object(statistics, "needed_counts", return_value=Needed(None, None)):
        estimates = [estimate_cell(cell, margin)]
        rows = _difference_rows(estimates, NOTHING, {})
    (family,) = _families(estimates, rows, NOTHING, {})
    spread = spread_row(estimates[0], rows[0])
    assert spread is not None
    between, over = ([row for row in rows[0] if row["kind"] == kind] for kind in (BETWEEN, OVER_NONE))
    return Answer(between, over, spread, level_rows(cell) if over else [], family)


def about(n_seeds: int) -> str:
    """Return what an answer from so many seeds is about: "strategies" or "these students"."""
    return "strategies" if n_seeds >= LEAST_SEEDS else "these students"


def outcomes(
    found: Answer, truth: Mapping[str, float], margin: float, students: Mapping[str, Array] | None = None
) -> dict[str, float]:
    """Return what of an answer is right and wrong.

    Args:
        found: of one cell.
        truth: by strategy, in the cell's unit.
        margin: the largest difference that does not matter.
        students: by strategy the truth of each of its students, (seeds,), the first seeds of all; for rows that are
            about these students. Where it is absent, `truth` is the mean of all of them.
    """

    def known(row: Mapping[str, Any]) -> float:
        """Return the true value of a row: of a mean, or of a difference on the seeds that its sides share."""
        sides = [row["strategy"]] if "strategy" in row else [row["strategy_a"], row["strategy_b"]]
        names = [[name for name in truth if name != "none"] if side == MATCHING_MEAN else [side] for side in sides]
        own: Mapping[str, Any] = truth
        if students is not None and row["about"] == "these students":
            shared = min(len(students[name]) for side in names for name in side)
            own = {name: values[:shared].mean() for name, values in students.items()}
        means = [np.mean([own[name] for name in side]) for side in names]
        return float(means[0] - means[1] if len(means) > 1 else means[0])

    largest = max(abs(known(row)) for row in found.between)
    at_least, at_most = largest >= margin * (1 - 1e-9), largest <= margin * (1 + 1e-9)
    spread, verdict = found.spread, found.family.verdict
    return {
        "coverage": _share(_covered(found.between, known, "low", "high")),
        "coverage over none": _share(_covered(found.over_none, known, "low", "high")),
        "coverage, means": _share(_covered(found.means, known, "low", "high")),
        "all pairs at once": _all(_covered(found.between, known, "joint_low", "joint_high")),
        "spread covered": _inside(largest, spread["spread_low"], spread["spread_high"]),
        "false equivalent": float(verdict == "equivalent") if at_least else np.nan,
        "false different": float(verdict == "different") if at_most else np.nan,
        "decided": float(verdict != "undecided"),
    }


def _inside(value: float, low: float, high: float) -> float:
    # A truth on an interval's end, to rounding, is covered.
    slack = 1e-12 * max(1.0, abs(value))
    return np.nan if np.isnan(low) or np.isnan(high) else float(low - slack <= value <= high + slack)


def _covered(
    rows: Sequence[Mapping[str, Any]], truth: Callable[[Mapping[str, Any]], float], low: str, high: str
) -> list[float]:
    return [_inside(truth(row), row[low], row[high]) for row in rows]


def _all(inside: Sequence[float]) -> float:
    share = _share(inside)
    return np.nan if np.isnan(share) else float(share == 1.0)


def _share(inside: Sequence[float]) -> float:
    return float(np.mean(inside)) if inside else np.nan
