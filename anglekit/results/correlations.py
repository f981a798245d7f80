"""Correlations of predicted with true numbers over weighted examples, and how they change with each weight.

They are no functions of a few sums, as BLEU and F1 are, so each comes with its derivative with respect to every
example's weight: the example's influence on the score (the infinitesimal jackknife; Efron 1982).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

#: A correlation, and its derivative with respect to the weight of each example, (examples,).
CorrelationAndEffects = tuple[float, Numbers]


def pearson(predicted: Numbers, target: Numbers, weights: Numbers) -> CorrelationAndEffects:
    """Return Pearson's correlation in [-1, 1]; 0 where one side is constant, NaN where a number is not finite.

    Args:
        predicted: (examples,).
        target: (examples,).
        weights: how often each example counts, (examples,), not all 0.
    """
    nothing = np.zeros_like(weights)
    counted = weights > 0.0
    if not (np.isfinite(predicted[counted]).all() and np.isfinite(target[counted]).all()):
        return np.nan, np.full_like(weights, np.nan)
    if np.ptp(predicted[counted]) == 0.0 or np.ptp(target[counted]) == 0.0:
        return 0.0, nothing
    first, second = _centred(predicted, weights), _centred(target, weights)
    spreads = weights @ first**2, weights @ second**2
    scale = np.sqrt(spreads[0] * spreads[1])
    if scale == 0.0:
        return 0.0, nothing
    value = float(weights @ (first * second) / scale)
    effects = first * second / scale - value / 2.0 * (first**2 / spreads[0] + second**2 / spreads[1])
    return min(max(value, -1.0), 1.0), effects


def spearman(predicted: Numbers, target: Numbers, weights: Numbers) -> CorrelationAndEffects:
    """Return Spearman's rank correlation in [-1, 1]: Pearson's of the ranks, equal numbers sharing their mean rank.

    An example that counts several times has as many equal ranks, so that a resample has the number that its rows have.
    0 where one side is constant, NaN where a number is not finite; the arguments are those of `pearson`.
    """
    counted = weights > 0.0
    if not (np.isfinite(predicted[counted]).all() and np.isfinite(target[counted]).all()):
        return np.nan, np.full_like(weights, np.nan)
    places = [np.unique(side, return_inverse=True)[1] for side in (predicted, target)]
    ranks = [_mean_ranks(place, weights) for place in places]
    value, effects = pearson(ranks[0], ranks[1], weights)
    if not effects.any():
        return value, effects
    # A weight also moves the ranks of all that is larger by its size, and of its equals by half of it.
    centred = [_around_mean(rank, weights) for rank in ranks]
    spreads = [weights @ side**2 for side in centred]
    for own, other in ((0, 1), (1, 0)):
        slope = weights * (centred[other] / np.sqrt(spreads[0] * spreads[1]) - value * centred[own] / spreads[own])
        of_value = np.bincount(places[own], slope)
        larger = of_value.sum() - np.cumsum(of_value)
        effects = effects + (larger + of_value / 2.0)[places[own]]
    return value, effects


def _around_mean(values: Numbers, weights: Numbers) -> Numbers:
    around: Numbers = values - weights @ values / weights.sum()
    return around


def _centred(values: Numbers, weights: Numbers) -> Numbers:
    """Return values around their mean, the largest difference being 1, so that no square overflows or vanishes."""
    largest = np.max(np.abs(values[weights > 0.0]))
    around = _around_mean(values / largest if largest > 0.0 else values, weights)
    unit = np.max(np.abs(around[weights > 0.0]))
    return around / unit if unit > 0.0 else around


def _mean_ranks(places: NDArray[np.intp], weights: Numbers) -> Numbers:
    own = np.bincount(places, weights)
    ranks: Numbers = (np.cumsum(own) - own / 2.0)[places]
    return ranks


#: The scores that follow from each example's predicted and true number.
CORRELATIONS: Final[Mapping[str, Callable[[Numbers, Numbers, Numbers], CorrelationAndEffects]]] = {
    "pearson": pearson,
    "spearman": spearman,
}
