"""How far a strategy's students are from their teacher, and from students of other weights, by the same examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anglekit.comparison.cells import Cell
from anglekit.comparison.crossed import Estimate, estimate_contrast
from anglekit.comparison.statistics import LEVEL


@dataclass(frozen=True)
class Gap:
    """A difference between two means of one score, with its 95% interval.

    Attributes:
        difference: the first minus the second, in the score's unit.
        low: of the interval; NaN where nothing tells it.
        high: of the interval.
    """

    difference: float
    low: float
    high: float


def teacher_gaps(cells: Sequence[Cell], teacher: NDArray[np.float64] | None) -> dict[tuple[str, str], Gap]:
    """Return the difference of each strategy and initialisation from the teacher, paired by example.

    Args:
        cells: of one score on one table, one for each initialisation.
        teacher: its part of the score by example, (examples,); None where that was not recorded.

    Returns:
        The gaps, by strategy and initialisation; none where scores are not known by example.
    """
    gaps: dict[tuple[str, str], Gap] = {}
    for cell in cells:
        for strategy in cell.strategies:
            values, _ = cell.stack([strategy], cell.seeds([strategy]))
            if teacher is not None and values.shape[-1] == len(teacher) > 1:
                both = np.concatenate([values, np.broadcast_to(teacher, values.shape)])
                gaps[strategy, cell.init] = _gap(estimate_contrast(both, None, (1, -1), resolution=cell.resolution))
    return gaps


def weights_gaps(cells: Sequence[Cell], best: Mapping[str, str]) -> dict[str, Gap]:
    """Return how far the best strategy of the best-scoring weights is above the best of others.

    Args:
        cells: of one score on one table, one for each initialisation.
        best: the best strategy from each initialisation, the best-scoring first.

    Returns:
        The gaps, by the other initialisation, paired by seed and example; none where they share no seed.
    """
    by_init = {cell.init: cell for cell in cells}
    (init, strategy), *others = best.items()
    gaps: dict[str, Gap] = {}
    for other, other_strategy in others:
        first, second = by_init[init], by_init[other]
        shared = set(first.seeds([strategy])) & set(second.seeds([other_strategy]))
        seeds = [seed for seed in first.seeds([strategy]) if seed in shared]
        if not seeds:
            continue
        sides = [first.stack([strategy], seeds)[0], second.stack([other_strategy], seeds)[0]]
        if sides[0].shape != sides[1].shape:  # one of them is known as a whole only
            sides = [side.mean(-1, keepdims=True) for side in sides]
        resolution = max(first.resolution, second.resolution)
        gaps[other] = _gap(estimate_contrast(np.concatenate(sides), None, (1, -1), resolution=resolution))
    return gaps


def _gap(found: Estimate) -> Gap:
    return Gap(found.value, *found.interval(LEVEL))
