"""The statistics of a comparison: cells in, rows of its tables and verdicts out."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from anglekit.comparison.bootstrap import (
    Estimates,
    IntervalMethod,
    estimate_contrasts,
    simultaneous_factor,
    weighted_means,
)
from anglekit.comparison.cells import NONE, Cell, Seed
from anglekit.comparison.equivalence import ALPHA, Needed, Verdict, equivalence_verdict, family_verdict, needed_counts

#: The level of the intervals that are shown; the deciding intervals are at level 1 - 2 ALPHA.
LEVEL = 0.95
#: Stands for the mean of all matching strategies in comparisons over `none`.
MATCHING_MEAN = "matching (mean)"
BETWEEN, OVER_NONE = "between", "over none"

_PLACE = ("stream", "vertex", "data", "score")
CELL_COLUMNS = ("part", "measure", "init", *_PLACE)
DIFFERENCE_COLUMNS = (
    *CELL_COLUMNS, "kind", "strategy_a", "strategy_b", "difference", "low", "high", "test_low", "test_high",
    "joint_low", "joint_high", "standard_error", "verdict", "margin", "n_seeds", "n_examples",
    "needed_seeds", "needed_examples", "needed_factor", "cosine_difference", "cosine_low", "cosine_high",
)  # fmt: skip
SPREAD_COLUMNS = (
    *CELL_COLUMNS, "n_strategies", "n_seeds", "spread", "spread_low", "spread_high", "change_over_none", "change_low",
    "change_high", "spread_by_change", "spread_by_change_low", "spread_by_change_high", "verdict", "margin",
)  # fmt: skip
LEVEL_COLUMNS = (*CELL_COLUMNS, "strategy", "mean", "mean_cosine", "n_seeds", "n_examples")


@dataclass(frozen=True)
class Resampling:
    """How intervals are made.

    Attributes:
        draws: the number of bootstrap draws.
        seed: the same seed gives the same draws.
        interval: the method for students with one seed.
    """

    draws: int
    seed: int
    interval: IntervalMethod


@dataclass(frozen=True, eq=False)
class Contrasts:
    """Differences of one kind in one cell.

    Attributes:
        pairs: the two strategies of each difference, first minus second.
        estimates: in the cell's own unit.
        cosines: the same differences between cosines; None for scores.
    """

    pairs: list[tuple[str, str]]
    estimates: Estimates
    cosines: Estimates | None


@dataclass(frozen=True, eq=False)
class CellEstimates:
    """A cell with its estimates.

    Attributes:
        cell: what was compared.
        margin: the largest difference that does not matter, in the cell's unit.
        between: pairs of matching strategies; None without two that share a seed.
        over_none: matching strategies over `none`; None without a shared seed.
    """

    cell: Cell
    margin: float
    between: Contrasts | None
    over_none: Contrasts | None


def estimate_cell(cell: Cell, margin: float, resampling: Resampling) -> CellEstimates:
    """Estimate a cell's differences between matching strategies and over `none`."""
    matching, everyone = cell.matching, cell.strategies
    pairs = list(itertools.combinations(matching, 2))
    seeds, all_seeds = cell.seeds(matching), cell.seeds(everyone)
    between = over_none = None
    if pairs and seeds:
        between = _contrasts(cell, matching, seeds, pairs, resampling)
    if NONE in everyone and matching and all_seeds:
        over = [(name, NONE) for name in (*matching, *([MATCHING_MEAN] if len(matching) > 1 else []))]
        over_none = _contrasts(cell, everyone, all_seeds, over, resampling)
    return CellEstimates(cell, margin, between, over_none)


def _contrasts(
    cell: Cell, strategies: Sequence[str], seeds: Sequence[Seed], pairs: list[tuple[str, str]], resampling: Resampling
) -> Contrasts:
    c = _matrix(strategies, pairs)
    values, weights = cell.stack(strategies, seeds)
    options = {"n_draws": resampling.draws, "seed": resampling.seed}
    if cell.cosines is None:
        return Contrasts(pairs, estimate_contrasts(values, weights, c, **options), None)
    # Degrees and cosines are passed as students of one call, so that examples are drawn once.
    cosines, _ = cell.stack(strategies, seeds, cosine=True)
    nothing = np.zeros_like(c)
    both = estimate_contrasts(
        np.concatenate([values, cosines]),
        np.concatenate([weights, weights]),
        np.block([[c, nothing], [nothing, c]]),
        **options,
    )
    return Contrasts(pairs, both.rows(slice(0, len(c))), both.rows(slice(len(c), None)))


def _matrix(strategies: Sequence[str], pairs: Sequence[tuple[str, str]]) -> NDArray[np.float64]:
    n_matching = sum(strategy != NONE for strategy in strategies)

    def side(name: str) -> NDArray[np.float64]:
        if name == MATCHING_MEAN:
            return np.array([(strategy != NONE) / n_matching for strategy in strategies])
        return np.array([float(strategy == name) for strategy in strategies])

    return np.array([side(a) - side(b) for a, b in pairs])


def inflation_of(members: Sequence[CellEstimates], level: float, seed: int) -> float:
    """Return the factor by which intervals between strategies must widen to hold for all pairs of these cells at once.

    With one seed it comes from the correlations of the shared draws of examples. With several seeds, each pair's
    variance is estimated separately and poorly, so only Bonferroni's bound holds. With three seeds, the shared draws
    would call four strategies at the margin different twice as often as allowed.
    """
    found = [one.between.estimates for one in members if one.between is not None]
    if not found:
        return 1.0
    n_seeds = min(one.n_seeds for one in found)
    if n_seeds > 1:
        freedom, pairs = n_seeds - 1, sum(len(one.estimate) for one in found)
        factor = float(stats.t.ppf(1 - (1 - level) / (2 * pairs), freedom))
    else:
        freedom = max(min(int(one.n_examples.min()) for one in found) - 1, 1)
        factor = simultaneous_factor(np.concatenate([one.draws for one in found], axis=1), level, freedom, seed=seed)
    return factor / float(stats.t.ppf((1 + level) / 2, freedom))


def _joint(estimates: Estimates, level: float, inflation: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    half = inflation * estimates.quantile(level) * estimates.standard_error
    return estimates.estimate - half, estimates.estimate + half


def _cell_labels(cell: Cell) -> dict[str, Any]:
    return {"part": cell.part, "measure": cell.measure, "init": cell.init} | {
        key: cell.place.get(key) for key in _PLACE
    }


def difference_rows(
    estimates: CellEstimates, resampling: Resampling, joint_level: float, inflation: float
) -> list[dict[str, Any]]:
    """Return a row of `Comparison.differences` for each paired difference of a cell.

    Intervals that hold for all of the family's pairs at once are at `joint_level` and wider by the factor `inflation`.
    """
    rows: list[dict[str, Any]] = []
    for kind, contrasts in ((BETWEEN, estimates.between), (OVER_NONE, estimates.over_none)):
        if contrasts is None:
            continue
        found = contrasts.estimates
        numbers = {"difference": found.estimate, "standard_error": found.standard_error}
        numbers["low"], numbers["high"] = found.interval(LEVEL, resampling.interval)
        numbers["test_low"], numbers["test_high"] = found.interval(1 - 2 * ALPHA, resampling.interval)
        if kind == BETWEEN:
            numbers["joint_low"], numbers["joint_high"] = _joint(found, joint_level, inflation)
        if contrasts.cosines is not None:
            numbers["cosine_difference"] = contrasts.cosines.estimate
            numbers["cosine_low"], numbers["cosine_high"] = contrasts.cosines.interval(LEVEL, resampling.interval)
        for place, (a, b) in enumerate(contrasts.pairs):
            row = {name: float(values[place]) for name, values in numbers.items()}
            verdict = equivalence_verdict(row["test_low"], row["test_high"], estimates.margin)
            needed = _needed(found, place, estimates.margin, inflation) if verdict == "undecided" else None
            rows.append(
                {
                    **dict.fromkeys(DIFFERENCE_COLUMNS, np.nan),
                    **_cell_labels(estimates.cell),
                    **row,
                    "kind": kind,
                    "strategy_a": a,
                    "strategy_b": b,
                    "verdict": verdict,
                    "margin": estimates.margin,
                    "n_seeds": found.n_seeds,
                    "n_examples": int(found.n_examples[place]) if estimates.cell.part == "angle" else None,
                    "needed_seeds": needed and needed.seeds,
                    "needed_examples": needed and needed.examples,
                    "needed_factor": needed and needed.factor,
                }
            )
    return rows


def _needed(found: Estimates, row: int, margin: float, inflation: float) -> Needed | None:
    if not found.known[row]:
        return None
    seeds, examples = float(found.seed_variance[row]), float(found.example_variance[row])
    estimate = float(found.estimate[row])
    return needed_counts(
        estimate,
        margin,
        seed_variance=seeds if np.isfinite(seeds) else None,
        n_seeds=found.n_seeds,
        example_variance=examples if np.isfinite(examples) else None,
        n_examples=int(found.n_examples[row]),
        # "Different": one pair must stand out among all, by the wider interval. "Equivalent": every pair must be.
        inflation=inflation if abs(estimate) > margin else 1.0,
    )


def family_of(rows: Sequence[Mapping[str, Any]]) -> tuple[Verdict, Mapping[str, Any]]:
    """Return the verdict on the pairs in a family's rows `BETWEEN`, and the row that decides or prevents a decision."""
    # Scores of one family may have different margins; in units of its margin, each can be compared.
    scaled = [
        {
            key: float(row[key]) / float(row["margin"])
            for key in ("difference", "test_low", "test_high", "joint_low", "joint_high")
        }
        for row in rows
    ]
    verdict = family_verdict(
        [(one["test_low"], one["test_high"]) for one in scaled],
        [(one["joint_low"], one["joint_high"]) for one in scaled],
        1.0,
    )
    if verdict == "different":
        # How far the nearer end of the interval lies beyond the margin.
        clear = [max(one["joint_low"], -one["joint_high"]) for one in scaled]
    elif any(np.isnan(one["test_low"]) for one in scaled):
        clear = [abs(one["difference"]) for one in scaled]
    else:
        clear = [max(one["test_high"], -one["test_low"]) for one in scaled]
    return verdict, rows[int(np.nanargmax(clear))]


def spread_row(
    estimates: CellEstimates, rows: Sequence[Mapping[str, Any]], resampling: Resampling
) -> dict[str, Any] | None:
    """Return a row of `Comparison.spreads`: the spread between matching strategies against the change over none.

    The spread's interval holds for all pairs at once: it ends at the most that the largest difference can be, and
    begins at the least that it must be. Its ratio to the change over none takes the unfavourable ends of both. `rows`
    are the cell's `difference_rows`.
    """
    if estimates.between is None and estimates.over_none is None:
        return None
    row: dict[str, Any] = dict.fromkeys(SPREAD_COLUMNS, np.nan) | _cell_labels(estimates.cell)
    row |= {"n_strategies": len(estimates.cell.matching), "margin": estimates.margin, "verdict": None}
    if estimates.between is not None:
        found = estimates.between.estimates
        low, high = _joint(found, LEVEL, inflation_of([estimates], LEVEL, resampling.seed))
        row |= {
            "n_seeds": found.n_seeds,
            "spread": float(np.abs(found.estimate).max()),
            "spread_low": float(np.maximum(np.maximum(low, -high), 0.0).max()),
            "spread_high": float(np.maximum(np.abs(low), np.abs(high)).max()),
            "verdict": family_of([one for one in rows if one["kind"] == BETWEEN])[0],
        }
    over = [one for one in rows if one["kind"] == OVER_NONE]
    if over:
        # The last row is the mean over matching strategies, or the only strategy.
        change, low_change, high_change = (float(over[-1][key]) for key in ("difference", "low", "high"))
        row |= {"change_over_none": change, "change_low": low_change, "change_high": high_change}
        if estimates.between is None:
            row["n_seeds"] = over[-1]["n_seeds"]
        elif abs(change) > 1e-9 * estimates.margin:  # anything smaller is rounding of equal means
            row["spread_by_change"] = row["spread"] / abs(change)
            nearest, farthest = sorted((abs(low_change), abs(high_change)))
            if low_change * high_change > 0:
                row["spread_by_change_low"] = row["spread_low"] / farthest
                row["spread_by_change_high"] = row["spread_high"] / nearest
    return row


def level_rows(cell: Cell) -> list[dict[str, Any]]:
    """Return a row of `Comparison.levels` for each strategy of a cell: its mean over all seeds that it has."""
    rows = []
    for strategy in cell.strategies:
        seeds = cell.seeds([strategy])
        values, weights = cell.stack([strategy], seeds)
        cosines = None if cell.cosines is None else cell.stack([strategy], seeds, cosine=True)[0]
        rows.append(
            {
                **_cell_labels(cell),
                "strategy": strategy,
                "mean": float(weighted_means(values, weights).mean()),
                "mean_cosine": None if cosines is None else float(weighted_means(cosines, weights).mean()),
                "n_seeds": len(seeds),
                "n_examples": int((weights[0, 0] > 0).sum()) if cell.part == "angle" else None,
            }
        )
    return rows
