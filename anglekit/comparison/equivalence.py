"""Is a difference smaller than a stated margin, larger, or not yet known? Pure functions on intervals.

Two one-sided tests at level alpha call a difference equivalent to none when its two-sided interval at level 1 - 2 alpha
lies inside (-margin, margin) (Schuirmann 1987). The difference is called different when that interval lies wholly
beyond the margin. Anything else is undecided, even with a tiny p-value against 0: a difference can be sure and yet not
matter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from anglekit.comparison.bootstrap import t_quantile
from anglekit.errors import InputError

Verdict = Literal["equivalent", "different", "undecided"]

#: The error rate of each one-sided test; so the interval that decides is at level 1 - 2 ALPHA.
ALPHA = 0.05

_MOST_SEEDS, _MOST_EXAMPLES = 10_000, 1_000_000_000


def check_margin(margin: float, name: str) -> None:
    """Raise an InputError that names the option if the margin is not a finite number above 0."""
    if not (math.isfinite(margin) and margin > 0):
        raise InputError(
            f"{name} is {margin:g}", allowed="allowed: a number above 0, the largest difference that does not matter"
        )


def equivalence_verdict(low: float, high: float, margin: float) -> Verdict:
    """Return the verdict on one difference from its interval at level 1 - 2 ALPHA; unknown ends (NaN) are undecided."""
    if -margin < low and high < margin:
        return "equivalent"
    if low > margin or high < -margin:
        return "different"
    return "undecided"


def family_verdict(
    intervals: Sequence[tuple[float, float]], simultaneous: Sequence[tuple[float, float]], margin: float
) -> Verdict:
    """Return the verdict on several differences together.

    Equivalent when each of them is: all tests must succeed, so none needs a correction (intersection-union).
    Different when one of them is, by intervals that hold for all at once: one success is enough, so all need the
    correction. The `intervals` are at level 1 - 2 ALPHA each, the `simultaneous` ones together.
    """
    if intervals and all(equivalence_verdict(low, high, margin) == "equivalent" for low, high in intervals):
        return "equivalent"
    if any(equivalence_verdict(low, high, margin) == "different" for low, high in simultaneous):
        return "different"
    return "undecided"


@dataclass(frozen=True)
class Needed:
    """How much data would decide, more than there is now, if the difference stays as it is.

    Attributes:
        seeds: how many seeds, with the same examples; None where no number of seeds is enough.
        examples: how many examples, with the same seeds; None where no number of examples is enough.
        factor: how many times more of both, where neither alone is enough; None where one alone is enough, or where
            nothing is because the difference lies at the margin.
    """

    seeds: int | None
    examples: int | None
    factor: float | None = None


def needed_counts(
    estimate: float,
    margin: float,
    *,
    seed_variance: float | None,
    n_seeds: int,
    example_variance: float | None,
    n_examples: int,
    inflation: float = 1.0,
) -> Needed:
    """Return how much data would decide an undecided difference, by scaling its interval.

    The part of the estimate's variance that comes from seeds falls as 1 / seeds, the other as 1 / examples. The
    interval must then end before the margin, or begin beyond it. `seed_variance` is None where it is unknown (one seed)
    and the statement is about these students only; `example_variance` is None where examples play no part. `inflation`
    is the factor by which an interval that holds for several differences at once is wider.
    """
    gap = abs(abs(estimate) - margin)

    def decided(seeds: float, examples: float) -> bool:
        by_seed = (seed_variance or 0.0) * n_seeds / seeds
        by_example = (example_variance or 0.0) * n_examples / examples
        quantile = float(t_quantile(1 - 2 * ALPHA, by_seed, seeds, by_example, examples))
        return inflation * quantile * math.sqrt(by_seed + by_example) < gap

    seeds = examples = None
    if seed_variance is not None:
        seeds = _smallest(lambda count: decided(count, n_examples), n_seeds + 1, _MOST_SEEDS)
    if example_variance is not None:
        examples = _smallest(lambda count: decided(n_seeds, count), n_examples + 1, _MOST_EXAMPLES)
    factor = None
    if seeds is None and examples is None and seed_variance is not None and example_variance is not None:
        times = _smallest(lambda tenths: decided(n_seeds * tenths / 10, n_examples * tenths / 10), 10, 100_000)
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
