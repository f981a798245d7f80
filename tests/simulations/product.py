"""What `compare` says about drawn students: its own cells, estimates, rows and verdict, without files and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from anglekit.comparison.cells import Cell
from anglekit.comparison.compare import _difference_rows, _families
from anglekit.comparison.crossed import LEAST_SEEDS
from anglekit.comparison.evidence import Evidence
from anglekit.comparison.family import Family
from anglekit.comparison.statistics import BETWEEN, OVER_NONE, estimate_cell, spread_row
from anglekit.results.scores import SCORE_COLUMNS

Array = NDArray[np.float64]
STRATEGIES = ("none", "forward", "reverse", "all-to-one", "random")
EVIDENCE = Evidence([], pd.DataFrame(columns=list(SCORE_COLUMNS)), primary="accuracy")


@dataclass(frozen=True, eq=False)
class Answer:
    """What the product says of one cell.

    Attributes:
        between: its rows of differences between matching strategies.
        over_none: its rows of differences over none.
        spread: its row of spreads.
        family: the verdict over all pairs.
    """

    between: list[Mapping[str, Any]]
    over_none: list[Mapping[str, Any]]
    spread: Mapping[str, Any]
    family: Family


def score_cell(values: Array, *, per_example: bool) -> Cell:
    """Return a cell of accuracies.

    Args:
        values: (strategies, seeds, examples), 0 or 1; the first strategy is none.
        per_example: whether the run kept the scores of examples.
    """
    kept = values if per_example else values.mean(-1, keepdims=True)
    students = by_student(kept)
    weights = {key: np.ones_like(own) for key, own in students.items()}
    place, examples = {"data": "validation", "score": "accuracy"}, values.shape[-1]
    return Cell("score", "random", place, students, weights, resolution=1 / examples, n_examples=examples)


def angle_cell(degrees: Array, tokens: Array) -> Cell:
    """Return a cell of angles.

    Args:
        degrees: (strategies, seeds, examples).
        tokens: (examples,).
    """
    students = by_student(degrees)
    weights = dict.fromkeys(students, tokens)
    return Cell("angle", "random", {"stream": "encoder", "vertex": 1}, students, weights)


def by_student(values: Array) -> dict[tuple[str, int | None], Array]:
    """Return the examples' values by strategy and seed."""
    return {(STRATEGIES[k], s): values[k, s] for k in range(values.shape[0]) for s in range(values.shape[1])}


def answer(cells: Sequence[Cell], margin: float) -> Answer:
    """Return what `compare` says of cells of one kind; rows and spread are of the first."""
    estimates = [estimate_cell(cell, margin) for cell in cells]
    rows = _difference_rows(estimates, EVIDENCE)
    (family,) = _families(estimates, rows, EVIDENCE)
    spread = spread_row(estimates[0], rows[0])
    assert spread is not None
    between, over = ([row for row in rows[0] if row["kind"] == kind] for kind in (BETWEEN, OVER_NONE))
    return Answer(between, over, spread, family)


def about(n_seeds: int) -> str:
    """Return what an answer from so many seeds is about: "strategies" or "these students"."""
    return "strategies" if n_seeds >= LEAST_SEEDS else "these students"


def outcomes(found: Answer, truth: Mapping[str, float], margin: float) -> dict[str, float]:
    """Return what of an answer is right and wrong.

    Args:
        found: of one cell.
        truth: by strategy, in the cell's unit.
        margin: the largest difference that does not matter.
    """
    matching = [value for name, value in truth.items() if name != "none"]
    mean = float(np.mean(matching))
    known = {**truth, "matching (mean)": mean}
    largest = max(matching) - min(matching)
    at_least, at_most = largest >= margin * (1 - 1e-9), largest <= margin * (1 + 1e-9)
    spread, verdict = found.spread, found.family.verdict
    return {
        "coverage": _covered(found.between, known, "low", "high"),
        "coverage over none": _covered(found.over_none, known, "low", "high"),
        "all pairs at once": _all_covered(found.between, known, "joint_low", "joint_high"),
        "spread covered": _inside(largest, spread["spread_low"], spread["spread_high"]),
        "false equivalent": float(verdict == "equivalent") if at_least else np.nan,
        "false different": float(verdict == "different") if at_most else np.nan,
        "decided": float(verdict != "undecided"),
    }


def _inside(value: float, low: float, high: float) -> float:
    # A truth on an interval's end, to rounding, is covered.
    slack = 1e-12 * max(1.0, abs(value))
    return np.nan if np.isnan(low) or np.isnan(high) else float(low - slack <= value <= high + slack)


def _covered(rows: Sequence[Mapping[str, Any]], truth: Mapping[str, float], low: str, high: str) -> float:
    inside = [_inside(truth[row["strategy_a"]] - truth[row["strategy_b"]], row[low], row[high]) for row in rows]
    return float(np.mean(inside)) if inside else np.nan


def _all_covered(rows: Sequence[Mapping[str, Any]], truth: Mapping[str, float], low: str, high: str) -> float:
    share = _covered(rows, truth, low, high)
    return np.nan if np.isnan(share) else float(share == 1.0)
