"""The statistics of a comparison: cells in, rows of its tables and verdicts out."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import linalg

from anglekit.comparison.cells import Cell, Seed
from anglekit.comparison.crossed import Estimate, correlation_of, estimate_contrast, simultaneous_quantile
from anglekit.comparison.equivalence import (
    ALPHA,
    Joint,
    Needed,
    Verdict,
    equivalence_verdict,
    family_verdict,
    needed_counts,
)
from anglekit.results.student_t import t_quantile
from anglekit.vocabulary import LOWER_IS_BETTER, NONE

#: The level of the intervals that are shown; "equivalent" takes level 1 - 2 ALPHA, "different" the joint one.
LEVEL = 0.95
#: Stands for the mean of all matching strategies in comparisons over `none` and over controls.
MATCHING_MEAN = "matching (mean)"
BETWEEN, OVER_NONE, CONTROL = "between", "over none", "control"

_PLACE = ("stream", "vertex", "data", "score")
CELL_COLUMNS = ("part", "measure", "init", *_PLACE)
DIFFERENCE_COLUMNS = (
    *CELL_COLUMNS, "kind", "strategy_a", "strategy_b", "difference", "low", "high", "test_low", "test_high",
    "joint_low", "joint_high", "standard_error", "verdict", "margin", "about", "n_seeds", "n_examples",
    "needed_seeds", "needed_examples", "needed_factor",
)  # fmt: skip
SPREAD_COLUMNS = (
    *CELL_COLUMNS, "n_strategies", "n_seeds", "spread", "spread_low", "spread_high", "change_over_none", "change_low",
    "change_high", "spread_by_change", "spread_by_change_low", "spread_by_change_high", "verdict", "margin",
)  # fmt: skip
CONTROL_COLUMNS = (
    *CELL_COLUMNS, "control", "gain", "gain_low", "gain_high", "from_control", "from_control_low", "from_control_high",
    "beyond_control", "beyond_control_low", "beyond_control_high", "share", "about", "n_seeds",
)  # fmt: skip
LEVEL_COLUMNS = (*CELL_COLUMNS, "strategy", "mean", "low", "high", "about", "n_seeds", "n_examples", "by_example")


@dataclass(frozen=True, eq=False)
class Contrast:
    """One difference in one cell, on the seeds that its strategies share.

    Attributes:
        kind: `BETWEEN` matching strategies, `OVER_NONE`, or against a `CONTROL`.
        a: the first strategy, or `MATCHING_MEAN`.
        b: the one that is taken away from it.
        estimate: in the cell's unit.
    """

    kind: str
    a: str
    b: str
    estimate: Estimate


@dataclass(frozen=True, eq=False)
class CellEstimates:
    """A cell with its estimates.

    Attributes:
        cell: what was compared.
        margin: the largest difference that does not matter, in the cell's unit.
        contrasts: every pair of matching strategies, each over `none`, and those with controls.
    """

    cell: Cell
    margin: float
    contrasts: tuple[Contrast, ...]

    @property
    def between(self) -> list[Estimate]:
        """Of every two matching strategies that share a seed."""
        return [one.estimate for one in self.contrasts if one.kind == BETWEEN]


def estimate_cell(cell: Cell, margin: float) -> CellEstimates:
    """Estimate a cell's differences: between matching strategies, over `none`, and what the controls explain."""
    matching, others = cell.matching, set(cell.strategies) - set(cell.matching)
    wanted = [(BETWEEN, a, b) for a, b in itertools.combinations(matching, 2)]
    mean = [MATCHING_MEAN] if len(matching) > 1 else list(matching)
    if NONE in others and matching:
        wanted += [(OVER_NONE, a, NONE) for a in dict.fromkeys([*matching, *mean])]
    for control in [name for name in cell.strategies if name in others and name != NONE]:
        wanted += [(CONTROL, control, NONE)] if NONE in others else []
        wanted += [(CONTROL, a, control) for a in mean]
    found = ((kind, a, b, _contrast(cell, a, b)) for kind, a, b in wanted)
    return CellEstimates(cell, margin, tuple(Contrast(*one[:3], one[3]) for one in found if one[3] is not None))


def _contrast(cell: Cell, a: str, b: str) -> Estimate | None:
    """Return the difference of two strategies on the seeds that both have; None where they share none."""
    sides = [cell.matching if name == MATCHING_MEAN else [name] for name in (a, b)]
    strategies = [*sides[0], *sides[1]]
    seeds = cell.seeds(strategies)
    if not seeds:
        return None
    c = [1 / len(sides[0])] * len(sides[0]) + [-1 / len(sides[1])] * len(sides[1])
    return _estimate(cell, strategies, seeds, c)


def _estimate(cell: Cell, strategies: Sequence[str], seeds: Sequence[Seed], c: Sequence[float]) -> Estimate:
    values, weights = cell.stack(strategies, seeds)
    return estimate_contrast(values, weights, c, resolution=cell.resolution, clusters=cell.clusters)


def joint_of(members: Iterable[CellEstimates], level: float) -> Joint:
    """Return how intervals must widen to hold at a level for all pairs of matching strategies in these cells at once.

    Where only examples vary, it comes from the correlations of the estimates on the same examples; those on other
    examples are taken as independent, which is never narrower than their truth (Sidak 1967).
    """
    groups = [(one.cell.examples_of, one.between) for one in members if one.between]
    found = [estimate for _, own in groups for estimate in own]
    if not found or any(one.over_seeds or not one.known for one in found):
        return Joint(level, len(found), None)
    by_examples: dict[Any, list[Estimate]] = {}
    for place, own in groups:
        for estimate in own:
            by_examples.setdefault((place, len(estimate.pull)), []).append(estimate)
    freedom = min(one.example_freedom for one in found)
    blocks = [correlation_of(own) for own in by_examples.values()]
    quantile = simultaneous_quantile(linalg.block_diag(*blocks), level, freedom)
    return Joint(level, len(found), quantile / float(t_quantile((1 + level) / 2, freedom)))


def _about(estimate: Estimate) -> str:
    return "strategies" if estimate.over_seeds else "these students"


def _cell_labels(cell: Cell) -> dict[str, Any]:
    return {"part": cell.part, "measure": cell.measure, "init": cell.init} | {
        key: cell.place.get(key) for key in _PLACE
    }


def _counts(cell: Cell, estimate: Estimate) -> dict[str, Any]:
    examples = estimate.n_examples if estimate.n_examples > 1 else cell.n_examples
    return {"about": _about(estimate), "n_seeds": estimate.n_seeds, "n_examples": examples}


def difference_rows(estimates: CellEstimates, joint: Joint) -> list[dict[str, Any]]:
    """Return a row of `Comparison.differences` for each paired difference of a cell; `joint` is that of its family."""
    rows: list[dict[str, Any]] = []
    for one in estimates.contrasts:
        found = one.estimate
        test, together = found.interval(1 - 2 * ALPHA), joint.interval(found)
        if one.kind != BETWEEN:
            together = found.interval(LEVEL)
        verdict = equivalence_verdict(test, together, estimates.margin)
        needed = Needed(None, None)
        if verdict == "undecided" and one.kind == BETWEEN and found.known:
            needed = needed_counts(found, estimates.margin, joint)
        low, high = found.interval(LEVEL)
        rows.append(
            {
                **dict.fromkeys(DIFFERENCE_COLUMNS, np.nan),
                **_cell_labels(estimates.cell),
                **_counts(estimates.cell, found),
                "kind": one.kind,
                "strategy_a": one.a,
                "strategy_b": one.b,
                "difference": found.value,
                "low": low,
                "high": high,
                "test_low": test[0],
                "test_high": test[1],
                "joint_low": together[0] if one.kind == BETWEEN else np.nan,
                "joint_high": together[1] if one.kind == BETWEEN else np.nan,
                "standard_error": found.standard_error,
                "verdict": verdict,
                "margin": estimates.margin,
                "needed_seeds": needed.seeds,
                "needed_examples": needed.examples,
                "needed_factor": needed.factor,
            }
        )
    return rows


def family_of(rows: Sequence[Mapping[str, Any]]) -> tuple[Verdict, Mapping[str, Any]]:
    """Return the verdict on the pairs in a family's rows `BETWEEN`, and the row that decides or prevents a decision."""
    verdict = family_verdict([row["verdict"] for row in rows])

    def scaled(row: Mapping[str, Any], key: str) -> float:
        # Scores of one family may have different margins; in units of its margin, each can be compared.
        return float(row[key]) / float(row["margin"])

    if verdict == "different":
        # How far the nearer end of the interval lies beyond the margin.
        clear = [max(scaled(row, "joint_low"), -scaled(row, "joint_high")) for row in rows]
    elif any(np.isnan(row["test_low"]) for row in rows):
        clear = [abs(scaled(row, "difference")) for row in rows]
    else:
        clear = [max(scaled(row, "test_high"), -scaled(row, "test_low")) for row in rows]
    return verdict, rows[int(np.nanargmax(clear))]


def spread_row(estimates: CellEstimates, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return a row of `Comparison.spreads`: the spread between matching strategies against the change over none.

    The spread's interval holds for all pairs at once: it ends at the most that the largest difference can be, and
    begins at the least that it must be. Its ratio to the change over none takes the unfavourable ends of both. `rows`
    are the cell's `difference_rows`.
    """
    between = estimates.between
    over = [one for one in rows if one["kind"] == OVER_NONE]
    if not between and not over:
        return None
    row: dict[str, Any] = dict.fromkeys(SPREAD_COLUMNS, np.nan) | _cell_labels(estimates.cell)
    row |= {"n_strategies": len(estimates.cell.matching), "margin": estimates.margin, "verdict": None}
    if between:
        joint = joint_of([estimates], LEVEL)
        low, high = np.array([joint.interval(one) for one in between]).T
        row |= {
            "n_seeds": min(one.n_seeds for one in between),
            "spread": float(np.abs([one.value for one in between]).max()),
            "spread_low": float(np.maximum(np.maximum(low, -high), 0.0).max()),
            "spread_high": float(np.maximum(np.abs(low), np.abs(high)).max()),
            "verdict": family_of([one for one in rows if one["kind"] == BETWEEN])[0],
        }
    if over:
        # The last row is the mean over matching strategies, or the only strategy.
        change, low_change, high_change = (float(over[-1][key]) for key in ("difference", "low", "high"))
        row |= {"change_over_none": change, "change_low": low_change, "change_high": high_change}
        if not between:
            row["n_seeds"] = over[-1]["n_seeds"]
        elif low_change * high_change > 0 and abs(change) > 1e-9 * estimates.margin:
            # A share of a change that may be none, or is the rounding of equal means, would be any number.
            nearest, farthest = sorted((abs(low_change), abs(high_change)))
            row["spread_by_change"] = row["spread"] / abs(change)
            row["spread_by_change_low"] = row["spread_low"] / farthest
            row["spread_by_change_high"] = row["spread_high"] / nearest
    return row


def control_rows(estimates: CellEstimates, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a row of `Comparison.controls` for each control of a cell.

    What matching gains over `none`, what the control gains over it, and what matching gains beyond the control, each on
    the seeds that its sides share, with its 95% interval. `share` is the control's part of the gain, where the gain is
    surely not 0 and both go the same way. Matching is the mean of the matching strategies. `rows` are the cell's
    `difference_rows`.
    """
    matching = estimates.cell.matching
    mean = MATCHING_MEAN if len(matching) > 1 else next(iter(matching), None)
    by_pair = {(row["strategy_a"], row["strategy_b"]): row for row in rows}
    gain = by_pair.get((mean, NONE))
    controls = [name for name in estimates.cell.strategies if name != NONE and name not in matching]
    found: list[dict[str, Any]] = []
    if gain is None:
        return found
    for control in controls:
        row: dict[str, Any] = dict.fromkeys(CONTROL_COLUMNS, np.nan) | _cell_labels(estimates.cell)
        row |= {"control": control, "about": gain["about"], "n_seeds": gain["n_seeds"]}
        parts = (("gain", (mean, NONE)), ("from_control", (control, NONE)), ("beyond_control", (mean, control)))
        for name, pair in parts:
            if (part := by_pair.get(pair)) is not None:
                row |= {name: part["difference"], f"{name}_low": part["low"], f"{name}_high": part["high"]}
        if gain["low"] * gain["high"] > 0 and row["from_control"] * row["gain"] > 0:
            row["share"] = row["from_control"] / row["gain"]
        found.append(row)
    return found


def level_rows(cell: Cell) -> list[dict[str, Any]]:
    """Return a row of `Comparison.levels` for each strategy of a cell: its mean over all seeds that it has."""
    rows = []
    for strategy in cell.strategies:
        found = _estimate(cell, [strategy], cell.seeds([strategy]), [1.0])
        low, high = found.interval(LEVEL)
        counts = _counts(cell, found)
        rows.append(
            {**_cell_labels(cell), "strategy": strategy, "mean": found.value, "low": low, "high": high, **counts}
            | {"by_example": found.n_examples > 1}
        )
    return rows


def surely_better(cell: Cell, reference: float) -> bool | None:
    """Whether any matching strategy's mean is better than a reference at level 1 - ALPHA, looking at all of them.

    Better is higher, but for scores in `LOWER_IS_BETTER`. None where nothing tells how far the means vary. `none` and
    controls do not count: if they alone have learned something, that strategies are alike says nothing.
    """
    found = [_estimate(cell, [name], cell.seeds([name]), [1.0]) for name in cell.matching]
    known = [one for one in found if one.known]
    if not known:
        return None
    level = 1 - 2 * ALPHA / len(known)  # one-sided, shared by the strategies
    if cell.place["score"] in LOWER_IS_BETTER:
        return any(one.interval(level)[1] < reference for one in known)
    return any(one.interval(level)[0] > reference for one in known)
