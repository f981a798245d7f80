"""Does layer selection matter here? Geometries and scores of several strategies, paired, against a stated margin."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd

from anglekit.comparison.bootstrap import IntervalMethod
from anglekit.comparison.cells import NONE, Cell, angle_cells, in_order, score_cells
from anglekit.comparison.equivalence import ALPHA, check_margin
from anglekit.comparison.evidence import Evidence, read_evidence
from anglekit.comparison.pairs import averaging_views, largest_pair_differences, obtuse_pairs
from anglekit.comparison.result import Comparison
from anglekit.comparison.sentence import Family, overall_verdict, reasons, sentence
from anglekit.comparison.statistics import (
    BETWEEN,
    DIFFERENCE_COLUMNS,
    LEVEL,
    LEVEL_COLUMNS,
    SPREAD_COLUMNS,
    CellEstimates,
    Resampling,
    difference_rows,
    estimate_cell,
    family_of,
    inflation_of,
    level_rows,
    spread_row,
)
from anglekit.errors import InputError, suggest
from anglekit.results.geometry import Geometry

#: The cosine is the share of a pull that carries over to another layer; two degrees change it by at most 0.035.
ANGLE_MARGIN = 2.0


def default_score_margin(scores: Iterable[Any]) -> float:
    """Return one point: 0.01 for scores between 0 and 1, 1 for scores that run to 100."""
    return 0.01 if max((float(np.abs(one).max()) for one in scores), default=0.0) <= 1.0 else 1.0


def compare(
    sources: Sequence[str | Path | Geometry] | Evidence,
    *,
    margin: float = ANGLE_MARGIN,
    score_margin: float | None = None,
    draws: int = 2000,
    seed: int = 0,
    interval: IntervalMethod = "percentile",
) -> Comparison:
    """Compare matching strategies: differences paired by seed and example, and whether they are within a margin.

    Args:
        sources: Geometry, sweep and run directories in any mixture, or Geometries; or the Evidence read from them.
        margin: the largest difference between angles, in degrees, that does not matter.
        score_margin: the largest difference between scores that does not matter, in their unit; by default one point:
            0.01 for scores between 0 and 1, else 1.
        draws: the number of bootstrap draws, 100 to 100,000.
        seed: the same seed gives the same result.
        interval: the method for angles of students with one seed, "percentile" or "bca".

    Raises:
        InputError: a margin or number is out of range, or the sources do not fit together or hold only one strategy.
    """
    _check_options(margin, score_margin, draws, seed, interval)
    found = sources if isinstance(sources, Evidence) else read_evidence(sources)
    _check_strategies(found)
    resampling = Resampling(draws, seed, interval)
    cells, cell_notes = angle_cells(found.geometries)
    cells += score_cells(found.scores)
    estimates = [estimate_cell(cell, _margin(cell, margin, score_margin), resampling) for cell in cells]
    rows = _difference_rows(estimates, resampling)
    families = tuple(_families(rows))
    verdict = overall_verdict(families)
    differences = pd.DataFrame([row for own in rows for row in own], columns=list(DIFFERENCE_COLUMNS))
    pairs = largest_pair_differences(found.geometries)
    # The place columns mix texts, numbers and missing values, so they can only be matched as objects.
    on = dict.fromkeys(("init", "stream", "vertex", "strategy_a", "strategy_b"), "object")
    differences = differences.astype(on).merge(pairs.astype(on), on=list(on), how="left").infer_objects()
    spreads = [spread_row(one, own, resampling) for one, own in zip(estimates, rows, strict=True)]
    spread_table = pd.DataFrame([row for row in spreads if row is not None], columns=list(SPREAD_COLUMNS))
    notes = [*found.notes, *cell_notes, *_seed_notes(cells), *_missing_parts(found, cells)]
    return Comparison(
        verdict=verdict,
        sentence=sentence(verdict, families),
        reasons=reasons(families, spread_table),
        families=families,
        differences=differences,
        spreads=spread_table,
        levels=pd.DataFrame([row for cell in cells for row in level_rows(cell)], columns=list(LEVEL_COLUMNS)),
        obtuse=obtuse_pairs(found.geometries),
        averaging=averaging_views(found.geometries),
        notes=tuple(dict.fromkeys(notes)),
        settings={
            "margin_degrees": margin if any(cell.part == "angle" for cell in cells) else None,
            "score_margins": {one.cell.measure: one.margin for one in estimates if one.cell.part == "score"},
            "default_margins": {"angle": margin == ANGLE_MARGIN, "score": score_margin is None},
            "interval_level": LEVEL,
            "test_level": 1 - 2 * ALPHA,
            "interval": interval,
            "draws": draws,
            "seed": seed,
        },
    )


def _check_options(margin: float, score_margin: float | None, draws: int, seed: int, interval: str) -> None:
    check_margin(margin, "--margin")
    if score_margin is not None:
        check_margin(score_margin, "--score-margin")
    if not 100 <= draws <= 100_000:
        raise InputError(f"--draws is {draws}", allowed="allowed: 100 to 100000")
    if seed < 0:
        raise InputError(f"the seed {seed} is negative", "give 0 or more")
    if interval not in get_args(IntervalMethod):
        raise InputError(f"no interval {interval!r}", allowed=suggest(interval, get_args(IntervalMethod)))


def _check_strategies(found: Evidence) -> None:
    strategies = in_order(found.strategies)
    if not strategies:
        raise InputError("the directories hold no score", "give runs with a validation table, or Geometries")
    if len(strategies) < 2:
        arrived = f"all students are of one strategy, {strategies[0]}"
        if found.unfinished:
            raise InputError(f"{arrived}, and {found.unfinished[0]}")
        raise InputError(arrived, "give students of at least two to compare")


def _margin(cell: Cell, margin: float, score_margin: float | None) -> float:
    if cell.part == "angle":
        return margin
    return default_score_margin(cell.students.values()) if score_margin is None else score_margin


def _difference_rows(estimates: Sequence[CellEstimates], resampling: Resampling) -> list[list[dict[str, Any]]]:
    """Return each cell's rows; pairs with the same kind of measure and initialisation are judged together."""
    groups: dict[tuple[str, str], list[CellEstimates]] = {}
    for one in estimates:
        groups.setdefault((one.cell.part, one.cell.init), []).append(one)
    answered = sum(any(one.between is not None for one in members) for members in groups.values())
    # One different family is enough to say that selection matters, so the families share the error rate.
    level = 1 - 2 * ALPHA / max(answered, 1)
    inflation = {key: inflation_of(members, level, resampling.seed) for key, members in groups.items()}
    return [difference_rows(one, resampling, level, inflation[one.cell.part, one.cell.init]) for one in estimates]


def _families(rows: Sequence[Sequence[Mapping[str, Any]]]) -> Iterable[Family]:
    between = [row for own in rows for row in own if row["kind"] == BETWEEN]
    for part, init in dict.fromkeys((row["part"], row["init"]) for row in between):
        members = [row for row in between if (row["part"], row["init"]) == (part, init)]
        verdict, key = family_of(members)
        yield Family(part, init, verdict, min(int(row["n_seeds"]) for row in members), key, tuple(members))


def _seed_notes(cells: Sequence[Cell]) -> list[str]:
    """Name the seeds that are left out because not every matching strategy has them."""
    notes = []
    for cell in cells:
        shared = set(cell.seeds(cell.matching))
        lost = sorted({str(seed) for strategy, seed in cell.students if strategy != NONE and seed not in shared})
        if lost and len(cell.matching) > 1:
            kind = "angles" if cell.part == "angle" else "scores"
            left = f"{len(shared)} are paired" if shared else "none is left to pair"
            notes.append(f"{kind}, {cell.init}: not every matching strategy has seed {', '.join(lost)}; {left}")
    return notes


def _missing_parts(found: Evidence, cells: Sequence[Cell]) -> list[str]:
    """Say which part of the question the given sources cannot answer."""
    notes = []
    if not found.geometries:
        notes.append("no Geometry came: whether the angles agree is not answered (anglekit analyze)")
    if found.scores.empty:
        notes.append("no scores came: whether the students do equally well is not answered (give sweeps or runs)")
    for part, name in (("angle", "angles"), ("score", "scores")):
        for init in dict.fromkeys(cell.init for cell in cells if cell.part == part):
            own = [cell for cell in cells if cell.part == part and cell.init == init]
            if not any(NONE in cell.strategies for cell in own):
                notes.append(f"{name}, {init}: no student without matching (none), so no change over none is given")
            elif not any(cell.seeds(cell.strategies) for cell in own):
                notes.append(f"{name}, {init}: the student without matching shares no seed with the others")
            if not any(len(cell.matching) > 1 for cell in own):
                notes.append(
                    f"{name}, {init}: fewer than two matching strategies, so none can be compared with another"
                )
            elif part == "score" and all(len(cell.seeds(cell.matching)) == 1 for cell in own):
                notes.append(f"{name}, {init}: one seed, so how much they vary from seed to seed is unknown")
    return notes
