"""Is a difference smaller than a stated margin, larger, or not yet known? Pure functions on intervals.

Two one-sided tests at level alpha call a difference equivalent to none when its two-sided interval at level 1 - 2 alpha
lies inside (-margin, margin) (Schuirmann 1987). It is called different when an interval lies wholly beyond the margin
that holds at level 1 - alpha for both tails and for all differences that are judged together: one success among many is
enough to say that something differs, so the many share the error rate. Anything else is undecided, even with a tiny
p-value against 0: a difference can be sure and yet not matter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from anglekit.comparison.crossed import LEAST_SEEDS, Estimate, mixed_quantile
from anglekit.errors import InputError

#: "no verdict" is on students that have learned nothing, which can only be alike.
Verdict = Literal["equivalent", "different", "undecided", "no verdict"]
NO_VERDICT: Final = "no verdict"

#: The error rate of "equivalent" for each difference, and of "different" for all differences together.
ALPHA = 0.05

_MOST_SEEDS, _MOST_EXAMPLES = 10_000, 1_000_000_000


def check_margin(margin: float, name: str) -> None:
    """Raise an InputError that names the option if the margin is not a finite number above 0."""
    if not (math.isfinite(margin) and margin > 0):
        raise InputError(
            f"{name} is {margin:g}", allowed="allowed: a number above 0, the largest difference that does not matter"
        )


def equivalence_verdict(interval: tuple[float, float], joint: tuple[float, float], margin: float) -> Verdict:
    """Return the verdict on one difference of several; unknown ends (NaN) are undecided.

    Args:
        interval: the difference's own, at level 1 - 2 ALPHA.
        joint: the one that holds for all differences at once, at level 1 - ALPHA.
        margin: the largest difference that does not matter.
    """
    if -margin < interval[0] and interval[1] < margin:
        return "equivalent"
    if joint[0] > margin or joint[1] < -margin:
        return "different"
    return "undecided"


def family_verdict(verdicts: Sequence[Verdict]) -> Verdict:
    """Return the verdict on several differences together, each judged by `equivalence_verdict`.

    Equivalent when each of them is: all tests must succeed, so none needs a correction (intersection-union). Different
    when one of them is: one success is enough, which is why it took the interval that holds for all at once. No verdict
    where there is none on any of them.
    """
    found = set(verdicts)
    if "different" in found:
        return "different"
    return verdicts[0] if len(found) == 1 else "undecided"


@dataclass(frozen=True)
class Joint:
    """How intervals widen so that they hold for several differences at once.

    Attributes:
        level: two-sided, for all of them together.
        differences: how many there are.
        widening: by how much an interval at this level widens to hold for all, where the correlation of the examples
            tells it; None where only Bonferroni's bound holds: over seeds each variance is estimated by itself, and
            poorly, so that what the estimates share does not help.
    """

    level: float
    differences: int
    widening: float | None

    def quantile(self, at: Callable[[float], float]) -> float:
        """Return how many standard errors it takes, from what a single interval takes at a level."""
        if self.widening is None:
            return at(1 - (1 - self.level) / max(self.differences, 1))
        return self.widening * at(self.level)

    def interval(self, estimate: Estimate) -> tuple[float, float]:
        """Return the ends of an estimate's interval; NaN where its variance is not known."""
        half = self.quantile(estimate.quantile) * estimate.standard_error
        return estimate.value - half, estimate.value + half


@dataclass(frozen=True)
class Needed:
    """How much data would decide, more than there is now, if the difference stays as it is.

    Attributes:
        seeds: how many seeds, with the same examples; None where no number of seeds is enough or seeds are held.
        examples: how many examples, with the same seeds; None where no number of examples is enough.
        factor: how many times more of both, where neither alone is enough; None where one alone is enough, or where
            nothing is because the difference lies at the margin.
    """

    seeds: int | None
    examples: int | None
    factor: float | None = None


def needed_counts(estimate: Estimate, margin: float, joint: Joint) -> Needed:
    """Return how much data would decide an undecided difference, by scaling its interval.

    The seeds' part of the variance falls as 1 / seeds and the examples' as 1 / examples; so do the degrees of freedom
    grow with them. The interval must then end before the margin, or begin beyond it; in the second case it is the one
    that holds for all differences at once.
    """
    gap = abs(abs(estimate.value) - margin)
    beyond = abs(estimate.value) > margin
    by_examples = estimate.n_examples > 1

    def decided(seeds: float, examples: float) -> bool:
        by_seed = estimate.seed_variance * estimate.n_seeds / seeds
        by_example = estimate.example_variance * estimate.n_examples / examples
        freedom = estimate.example_freedom * examples / estimate.n_examples

        def at(level: float) -> float:
            return mixed_quantile(level, (by_seed, seeds - 1), (by_example, freedom))

        quantile = joint.quantile(at) if beyond else at(1 - 2 * ALPHA)
        return quantile * math.sqrt(by_seed + by_example) < gap

    seeds = examples = None
    if estimate.over_seeds:
        first = max(estimate.n_seeds + 1, LEAST_SEEDS)
        seeds = _smallest(lambda count: decided(count, estimate.n_examples), first, _MOST_SEEDS)
    if by_examples:
        examples = _smallest(lambda count: decided(estimate.n_seeds, count), estimate.n_examples + 1, _MOST_EXAMPLES)
    factor = None
    if seeds is None and examples is None and estimate.over_seeds and by_examples:
        times = _smallest(
            lambda tenths: decided(estimate.n_seeds * tenths / 10, estimate.n_examples * tenths / 10), 11, 100_000
        )
        factor = None if times is None else times / 10
    return Needed(seeds, examples, factor)


def _smallest(holds: Callable[[int], bool], low: int, most: int) -> int | None:
    """Return the smallest count from `low` to `most` that meets a condition which, once true, stays true; or None."""
    if holds(low):
        return low
    high = low
    while not holds(high):
        if high >= most:
            return None
        low, high = high, min(2 * high, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
