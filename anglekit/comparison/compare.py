"""Does layer selection matter here? Geometries and scores of several strategies, paired, against a stated margin."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from anglekit.comparison.cells import Cell, angle_cells, in_order, score_cells, score_unit
from anglekit.comparison.crossed import LEAST_SEEDS
from anglekit.comparison.equivalence import ALPHA, NO_VERDICT, check_margin
from anglekit.comparison.evidence import Evidence, read_evidence
from anglekit.comparison.family import Family, Reference, overall_verdict
from anglekit.comparison.gaps import teacher_gaps, weights_gaps
from anglekit.comparison.pairable import check_pairable
from anglekit.comparison.pairs import averaging_views, largest_pair_differences, obtuse_pairs
from anglekit.comparison.result import Comparison
from anglekit.comparison.statistics import (
    BETWEEN,
    CONTROL_COLUMNS,
    DIFFERENCE_COLUMNS,
    LEVEL,
    LEVEL_COLUMNS,
    SPREAD_COLUMNS,
    CellEstimates,
    control_rows,
    difference_rows,
    estimate_cell,
    family_of,
    joint_of,
    level_rows,
    spread_row,
    surely_better,
)
from anglekit.comparison.wording import whose_words
from anglekit.errors import InputError
from anglekit.results.geometry import Geometry
from anglekit.vocabulary import LOWER_IS_BETTER, NONE

#: The cosine is the share of a pull that carries over to another layer; two degrees change it by at most 0.035.
ANGLE_MARGIN = 2.0


def default_score_margin(scores: Iterable[float]) -> float:
    """Return one point: 0.01 for scores between 0 and 1, 1 for scores that run to 100."""
    return 0.01 * score_unit(scores)


def compare(
    sources: str | Path | Geometry | Sequence[str | Path | Geometry] | Evidence,
    *,
    margin: float = ANGLE_MARGIN,
    score_margin: float | None = None,
) -> Comparison:
    """Compare matching strategies: differences paired by seed and example, and whether they are within a margin.

    Scores lead: the verdict is that on the task's own score, and on angles only where no scores came.

    Args:
        sources: Geometry, sweep and run directories in any mixture, or Geometries, one or several; or the Evidence
            read from them.
        margin: the largest difference between angles, in degrees, that does not matter.
        score_margin: the largest difference between scores that does not matter, in their unit; by default one point:
            0.01 for scores between 0 and 1, else 1.

    Raises:
        InputError: a margin is out of range, or the sources do not fit together or hold only one strategy.

    Example:
        >>> print(compare("runs/sweep").headline.line)
    """
    check_margin(margin, "--angle-margin")
    if score_margin is not None:
        check_margin(score_margin, "--score-margin")
    found = sources if isinstance(sources, Evidence) else read_evidence(sources)
    _check_strategies(found)
    cells, cell_notes = angle_cells(found.geometries)
    own_score_cells, score_notes = score_cells(found.scores, found.examples, found.n_examples)
    cells += own_score_cells
    check_pairable(cells)
    estimates = [estimate_cell(cell, _margin(cell, margin, score_margin)) for cell in cells]
    told = _told_apart([one for one in estimates if one.cell.part == "score" and _leads(one.cell, found)], found)
    rows = _difference_rows(estimates, found, told)
    families = _families(estimates, rows, found, told)
    leading = [one for one in families if one.part == "score"] or families
    verdict = overall_verdict(leading)
    differences = pd.DataFrame([row for own in rows for row in own], columns=list(DIFFERENCE_COLUMNS))
    pairs = largest_pair_differences(found.geometries)
    # The place columns mix texts, numbers and missing values, so they can only be matched as objects.
    on = dict.fromkeys(("init", "stream", "vertex", "strategy_a", "strategy_b"), "object")
    differences = differences.astype(on).merge(pairs.astype(on), on=list(on), how="left").infer_objects()
    spreads = [spread_row(one, own) for one, own in zip(estimates, rows, strict=True)]
    spread_table = pd.DataFrame([row for row in spreads if row is not None], columns=list(SPREAD_COLUMNS))
    notes = [*score_notes, *cell_notes, *_seed_notes(cells), *_missing_parts(found, cells), *found.notes]
    comparison = Comparison(
        verdict=verdict,
        families=families,
        differences=differences,
        spreads=spread_table,
        controls=pd.DataFrame(
            [row for one, own in zip(estimates, rows, strict=True) for row in control_rows(one, own)],
            columns=list(CONTROL_COLUMNS),
        ),
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
        },
        primary=found.primary,
        stopped=found.stopped,
        teacher={f"{score}, {data}" if data else score: value for (data, score), value in found.teacher.items()},
    )
    return _with_gaps(comparison, cells, found)


def _with_gaps(comparison: Comparison, cells: Sequence[Cell], found: Evidence) -> Comparison:
    """Return a comparison with how far its students are from the teacher, and those of one kind of weights from others.

    It is about the score and the table on which strategies are chosen.
    """
    place = comparison.chosen_on
    if place is None:
        return comparison
    score, data = place
    own = [
        cell for cell in cells if cell.part == "score" and (cell.place["score"], cell.place["data"]) == (score, data)
    ]
    return replace(
        comparison,
        teacher_gaps=teacher_gaps(own, found.teacher_examples.get((data, score))),
        weights_gaps=weights_gaps(own, {one.init: one.best for one in comparison.choices})
        if comparison.choices
        else {},
    )


def _check_strategies(found: Evidence) -> None:
    strategies = in_order(found.strategies)
    if not strategies:
        raise InputError("the directories hold no score", "give runs with a validation table, or Geometries")
    if len(strategies) < 2:
        arrived = f"all students are of one strategy, {strategies[0]}"
        if found.unfinished:
            raise InputError(f"{arrived}, and {found.unfinished[0]}")
        if found.stopped:
            named = ", ".join(one.words for one in found.stopped)
            raise InputError(
                f"{arrived}, as the sweep stopped others as hopeless ({named})",
                "nothing is left to compare; --resume without --stop-hopeless trains them to the end",
            )
        raise InputError(
            arrived,
            f"train another beside it, as `anglekit sweep TEACHER --strategies none,{strategies[0]} --seeds 0-2` does; "
            "`anglekit report` shows one by itself",
        )


def _margin(cell: Cell, margin: float, score_margin: float | None) -> float:
    if cell.part == "angle":
        return margin
    unit = score_unit(float(value.mean()) for value in cell.students.values())
    if score_margin is not None:
        if score_margin >= unit and cell.place["score"] not in LOWER_IS_BETTER:
            raise InputError(
                f"--score-margin is {score_margin:g} and the score {cell.place['score']} is at most {unit:g}",
                allowed=f"one point is {0.01 * unit:g}",
            )
        return score_margin
    return default_score_margin(float(value.mean()) for value in cell.students.values())


def _leads(cell: Cell, found: Evidence) -> bool:
    """Whether a cell is judged: of the angles, or of the task's own score."""
    return cell.part == "angle" or found.primary in (None, cell.place["score"])


#: By initialisation, whether any matching student's score is surely better than a `Reference`, and that.
_Told = Mapping[str, tuple[bool | None, Reference]]


def _difference_rows(estimates: Sequence[CellEstimates], found: Evidence, told: _Told) -> list[list[dict[str, Any]]]:
    """Return each cell's rows; pairs with the same kind of measure and initialisation are judged together.

    Scores and angles are two questions. Each has its own error rate, which its initialisations share: one of them that
    is different is enough for the answer. A task's further scores are shown beside its own and decide nothing. Pairs of
    students that have learned nothing get no verdict.
    """
    groups: dict[tuple[str, bool, str], list[CellEstimates]] = {}
    for one in estimates:
        groups.setdefault((one.cell.part, _leads(one.cell, found), one.cell.init), []).append(one)
    answered = {
        key: sum(any(one.between for one in own) for other, own in groups.items() if other[:2] == key[:2])
        for key in groups
    }
    joints = {key: joint_of(own, 1 - ALPHA / max(answered[key], 1)) for key, own in groups.items()}
    rows = [difference_rows(one, joints[one.cell.part, _leads(one.cell, found), one.cell.init]) for one in estimates]
    for row in (row for own in rows for row in own if row["kind"] == BETWEEN):
        if told.get(row["init"], (None, None))[0] is False:
            row |= {"verdict": NO_VERDICT, "needed_seeds": None, "needed_examples": None, "needed_factor": None}
    return rows


def _families(
    estimates: Sequence[CellEstimates], rows: Sequence[Sequence[Mapping[str, Any]]], found: Evidence, told: _Told
) -> tuple[Family, ...]:
    judged: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for one, own in zip(estimates, rows, strict=True):
        if _leads(one.cell, found):
            pairs = [row for row in own if row["kind"] == BETWEEN]
            judged.setdefault((one.cell.part, one.cell.init), []).extend(pairs)
    families = []
    for (part, init), members in judged.items():
        if not members:
            continue
        verdict, key = family_of(members)
        apart, reference = told.get(init, (None, None))
        families.append(
            Family(
                part,
                init,
                verdict,
                min(int(row["n_seeds"]) for row in members),
                key,
                tuple(members),
                about="these students" if any(row["about"] != "strategies" for row in members) else "strategies",
                told=apart,
                reference=reference,
            )
        )
    # Scores lead.
    return tuple(sorted(families, key=lambda family: family.part != "score"))


def _told_apart(estimates: Sequence[CellEstimates], found: Evidence) -> dict[str, tuple[bool | None, Reference]]:
    """Return by initialisation whether any matching student is surely better than chance and the untrained ones."""
    by_init: dict[str, list[tuple[bool | None, Reference]]] = {}
    for one in estimates:
        cell = one.cell
        data, score = str(cell.place["data"]), str(cell.place["score"])
        own = [
            value
            for (_, init, _, table, name), value in found.untrained.items()
            if (init, table, name) == (cell.init, data, score)
        ]
        chance, untrained = found.chance.get((data, score)), float(np.mean(own)) if own else None
        known = [bar for bar in (chance, untrained) if bar is not None]
        if known:
            teacher = found.teacher.get((data, score))
            value = (min if score in LOWER_IS_BETTER else max)(known)
            above = {bar: surely_better(cell, bar) for bar in known}
            before = None if untrained is None else above[untrained]
            reference = Reference(
                value,
                chance,
                untrained,
                above_chance=None if chance is None else above[chance],
                above_untrained=before,
                reached=_reached(one, value, untrained if before is False else None, teacher)
                if above[value] is False
                else None,
            )
            by_init.setdefault(cell.init, []).append((above[value], reference))
    # One table on which they are above it is enough.
    ranked = {True: 0, None: 1, False: 2}
    return {init: min(own, key=lambda one: ranked[one[0]]) for init, own in by_init.items()}


def _reached(
    one: CellEstimates, bar: float, untrained: float | None, teacher: float | None
) -> Literal["best", "teacher"] | None:
    """Return what leaves no room above a bar, or above untrained students whom none passed (`Reference.reached`)."""
    falls = one.cell.place["score"] in LOWER_IS_BETTER

    def room(start: float, end: float) -> bool:
        return (start - end if falls else end - start) > one.margin + 1e-9  # decimals are not exact

    values = [bar, *(float(value.mean()) for value in one.cell.students.values())]
    best = 1.0 if falls else score_unit(values)
    # A score beyond what counts as its scale has an end that nobody knows.
    if (falls or max(values) <= best) and not room(bar, best):
        return "best"
    if untrained is None or teacher is None or room(untrained, teacher):
        return None
    return "teacher"


def _seed_notes(cells: Sequence[Cell]) -> list[str]:
    """Name the seeds that not every matching strategy has; two strategies are paired on the seeds that they share."""
    notes = []
    for cell in cells:
        shared = set(cell.seeds(cell.matching))
        lost = sorted(
            {str(seed) for strategy, seed in cell.students if strategy in cell.matching and seed not in shared}
        )
        if lost and len(cell.matching) > 1:
            kind = "angles" if cell.part == "angle" else "scores"
            notes.append(
                f"{kind}, {whose_words(cell.init)}: not every matching strategy has seed {', '.join(lost)}; every two "
                "are paired on the seeds that both have"
            )
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
            whose = whose_words(init)
            if not any(NONE in cell.strategies for cell in own):
                notes.append(f"{name}, {whose}: no student without matching (none), so no change over none is given")
            elif any(cell.matching for cell in own) and not any(
                cell.seeds([NONE, strategy]) for cell in own for strategy in cell.matching
            ):
                notes.append(f"{name}, {whose}: the student without matching shares no seed with the others")
            if not any(len(cell.matching) > 1 for cell in own):
                notes.append(
                    f"{name}, {whose}: fewer than two matching strategies, so none can be compared with another"
                )
            elif all(len(cell.seeds(cell.matching)) < LEAST_SEEDS for cell in own):
                notes.append(
                    f"{name}, {whose}: fewer than {LEAST_SEEDS} seeds, so the answer is about these students; it takes "
                    f"{LEAST_SEEDS} to speak of strategies"
                )
    return notes
