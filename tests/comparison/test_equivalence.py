"""Three verdicts, the rates at which they are wrong, and what it would take to reach one."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from anglekit.comparison.cells import Cell
from anglekit.comparison.crossed import Estimate, estimate_contrast
from anglekit.comparison.equivalence import (
    ALPHA,
    Joint,
    _smallest,
    check_margin,
    equivalence_verdict,
    family_verdict,
    needed_counts,
)
from anglekit.comparison.statistics import difference_rows, estimate_cell, family_of, joint_of
from anglekit.errors import InputError

REPLICATIONS = 1500
MARGIN = 0.5
RATE = 3 * math.sqrt(ALPHA * (1 - ALPHA) / REPLICATIONS)  # three standard errors of a simulated rate


WIDE = (-9.0, 9.0)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-0.4, 0.4, "equivalent"),
        (0.1, 0.4, "equivalent"),  # surely not 0, and yet within the margin
        (0.6, 0.9, "different"),
        (-2.0, -0.6, "different"),
        (0.4, 0.9, "undecided"),
        (-0.6, 0.1, "undecided"),
        (-9.0, 9.0, "undecided"),
        (-0.5, 0.4, "undecided"),  # the margin itself is not inside
        (math.nan, math.nan, "undecided"),
    ],
)
def test_the_verdict_is_read_off_the_interval(low: float, high: float, expected: str) -> None:
    assert equivalence_verdict((low, high), (low, high), MARGIN) == expected
    # "Different" takes the interval that holds for all at once, "equivalent" the difference's own.
    assert equivalence_verdict((low, high), WIDE, MARGIN) == ("undecided" if expected == "different" else expected)


@given(st.floats(-3, 3), st.floats(0, 3), st.floats(0.01, 3))
def test_the_verdict_does_not_depend_on_the_sign_or_the_unit(estimate: float, half: float, margin: float) -> None:
    ends = estimate - half, estimate + half
    verdict = equivalence_verdict(ends, ends, margin)
    turned, scaled = (-ends[1], -ends[0]), (4 * ends[0], 4 * ends[1])
    assert equivalence_verdict(turned, turned, margin) == verdict
    assert equivalence_verdict(scaled, scaled, 4 * margin) == verdict


def test_all_must_be_equivalent_and_one_different_is_enough() -> None:
    assert family_verdict(["equivalent", "equivalent"]) == "equivalent"
    assert family_verdict(["equivalent", "undecided"]) == "undecided"
    assert family_verdict(["equivalent", "different", "undecided"]) == "different"
    assert family_verdict([]) == "undecided"


@functools.cache
def rates(truth: float, spread: float, seeds: int = 1) -> dict[str, float]:
    """Return how often each verdict comes for single differences of known truth."""
    rng = np.random.default_rng(4)
    values = truth + spread * rng.normal(size=(REPLICATIONS, 1, seeds, 40 if seeds == 1 else 1))
    verdicts = []
    for one in values:
        found = estimate_contrast(one, None, [1.0])
        joint = Joint(1 - ALPHA, 1, None).interval(found)
        verdicts.append(equivalence_verdict(found.interval(1 - 2 * ALPHA), joint, MARGIN))
    return {name: verdicts.count(name) / REPLICATIONS for name in ("equivalent", "different", "undecided")}


@pytest.mark.parametrize("seeds", [1, 5])
def test_three_data_sets_reach_the_three_verdicts(seeds: int) -> None:
    """Spreads are of one unit: 40 examples, or 5 seeds."""
    small, large = (0.9, 6.0) if seeds == 1 else (0.25, 2.0)
    assert rates(0.0, small, seeds)["equivalent"] > 0.85
    assert rates(2 * MARGIN, small, seeds)["different"] > 0.7
    assert rates(0.0, large, seeds)["undecided"] > 0.85


@pytest.mark.parametrize("seeds", [1, 5])
@pytest.mark.parametrize("truth", [MARGIN, -MARGIN])
def test_at_the_margin_each_wrong_verdict_comes_at_most_at_its_nominal_rate(truth: float, seeds: int) -> None:
    found = rates(truth, 0.6, seeds)
    # One of the two tails of the interval that decides "different".
    assert found["different"] == pytest.approx(ALPHA / 2, abs=RATE)
    # Over few seeds the interval may be too wide ever to be called equivalent, never the other way round.
    assert found["equivalent"] <= ALPHA + RATE + 0.005
    assert seeds > 1 or found["equivalent"] >= ALPHA - RATE - 0.005


@pytest.mark.parametrize("spread", [1.5, 30.0])
@pytest.mark.parametrize("seeds", [1, 5])
def test_no_difference_is_called_different_at_most_at_the_nominal_rate(spread: float, seeds: int) -> None:
    """Noise far above the margin included: then both tails of the interval may lie beyond it."""
    assert rates(0.0, spread, seeds)["different"] <= ALPHA + RATE


def test_two_tails_at_five_percent_each_would_be_wrong_in_ten() -> None:
    """The negative control: the 90% interval on data with noise far above the margin."""
    values = 30 * np.random.default_rng(4).normal(size=(REPLICATIONS, 1, 5, 1))
    ends = [estimate_contrast(one, None, [1.0]).interval(1 - 2 * ALPHA) for one in values]
    assert sum(equivalence_verdict(one, one, MARGIN) == "different" for one in ends) / REPLICATIONS > 0.08


def family_rate(strategies: int, seeds: int, corrected: bool) -> float:
    """Return how often a family of equal strategies is called different."""
    rng = np.random.default_rng(2)
    wrong = 0
    for _ in range(300):
        values = 0.6 * rng.normal(size=(strategies, seeds, 40 if seeds == 1 else 1)) * 20
        keys = [(name, seed) for name in "abcd"[:strategies] for seed in range(seeds)]
        students = {(name, seed): values["abcd".index(name), seed] for name, seed in keys}
        weights = {key: np.ones(values.shape[-1]) for key in keys}
        cell = Cell("score", "random", {"data": "", "score": "accuracy"}, students, weights)
        found = estimate_cell(cell, MARGIN)
        joint = joint_of([found], 1 - ALPHA) if corrected else Joint(1 - ALPHA, 1, None)
        wrong += family_of(difference_rows(found, joint))[0] == "different"
    return wrong / 300


@pytest.mark.parametrize("seeds", [1, 4])
def test_a_family_of_equals_is_called_different_at_most_at_the_nominal_rate(seeds: int) -> None:
    assert family_rate(4, seeds, corrected=True) <= ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / 300)
    assert family_rate(4, seeds, corrected=False) > 2 * ALPHA


# ---- what would decide ----


def estimate(
    value: float, *, seeds: tuple[float, int] | None = None, examples: tuple[float, int] | None = None
) -> Estimate:
    """Return an estimate with these variances and counts."""
    of_seeds, n_seeds = seeds or (0.0, 1)
    of_examples, n_examples = examples or (0.0, 1)
    freedom = max(n_examples - 1.0, 1.0)
    over = seeds is not None
    return Estimate(value, of_seeds, of_examples, n_seeds, n_examples, freedom, over, np.zeros(n_examples))


SINGLE = Joint(1 - ALPHA, 1, None)


@settings(max_examples=40, deadline=None)
@given(st.floats(-1, 1), st.floats(1e-4, 0.1), st.integers(3, 10), st.integers(20, 500))
def test_the_smallest_number_that_decides_is_named(value: float, variance: float, seeds: int, examples: int) -> None:
    needed = needed_counts(estimate(value, examples=(variance, examples)), MARGIN, SINGLE)
    assert needed.seeds is None
    gap = abs(abs(value) - MARGIN)
    if needed.examples is None:
        assert gap < 2 * math.sqrt(variance * examples / 1_000_000_000)
    else:
        assert 1.6 * math.sqrt(variance * examples / needed.examples) < gap
    by_seed = needed_counts(estimate(value, seeds=(variance, seeds)), MARGIN, SINGLE)
    assert by_seed.examples is None
    assert needed.factor is None
    assert by_seed.factor is None
    both = needed_counts(estimate(value, seeds=(variance, seeds), examples=(variance, examples)), MARGIN, SINGLE)
    assert both.factor is None or both.seeds is both.examples is None
    assert by_seed.seeds is None or 1.6 * math.sqrt(variance * seeds / by_seed.seeds) < gap


@pytest.mark.parametrize(("differences", "value"), [(1, 0.0), (6, 3.0)])
def test_the_quantile_is_that_of_the_seeds_that_are_needed(differences: int, value: float) -> None:
    """With today's two degrees of freedom held, the same data would seem to need several times as many seeds."""
    variance, seeds, joint = 0.5, 3, Joint(1 - ALPHA, differences, None)
    found = needed_counts(estimate(value, seeds=(variance, seeds)), MARGIN, joint).seeds
    assert found is not None

    def tail(freedom: int) -> float:
        at = 1 - ALPHA if value < MARGIN else 1 - ALPHA / 2 / differences
        return float(stats.t.ppf(at, freedom))

    gap = abs(value - MARGIN)
    decides = [tail(count - 1) * math.sqrt(variance * seeds / count) < gap for count in range(4, found + 1)]
    assert decides == [False] * (len(decides) - 1) + [True]
    held = variance * seeds * (tail(seeds - 1) / gap) ** 2
    assert held > 1.5 * found


def test_scaling_is_that_of_the_interval() -> None:
    # z = 1.645; half = 1.645 sqrt(0.04 x 100 / n) < 0.5 from n = 43.3 on, and 0.05 of gap needs 100 times as many.
    wide = needed_counts(estimate(0.0, examples=(0.2, 1000)), 0.5, SINGLE)
    assert wide.examples == pytest.approx(0.2 * 1000 * (1.6449 / 0.5) ** 2, rel=0.01)
    close = needed_counts(estimate(0.45, examples=(0.2, 1000)), 0.5, SINGLE)
    assert close.examples == pytest.approx(100 * wide.examples, rel=0.01)


def test_where_neither_seeds_nor_examples_alone_suffice_both_are_named() -> None:
    needed = needed_counts(estimate(0.0, seeds=(0.3, 3), examples=(0.3, 50)), 0.5, SINGLE)
    assert needed.seeds is None
    assert needed.examples is None
    assert needed.factor is not None
    assert 3 < needed.factor < 15


def test_at_the_margin_itself_nothing_decides() -> None:
    needed = needed_counts(estimate(0.5, seeds=(0.1, 3), examples=(0.1, 50)), 0.5, SINGLE)
    assert (needed.seeds, needed.examples, needed.factor) == (None, None, None)


def test_to_be_told_among_many_takes_more_and_to_be_alike_does_not() -> None:
    apart, alike = estimate(2.0, seeds=(0.5, 3)), estimate(0.0, seeds=(0.5, 3))
    many = Joint(1 - ALPHA, 12, None)
    assert needed_counts(apart, 0.5, SINGLE).seeds < needed_counts(apart, 0.5, many).seeds
    assert needed_counts(alike, 0.5, SINGLE) == needed_counts(alike, 0.5, many)
    widened = Joint(1 - ALPHA, 12, 1.5)
    students = estimate(2.0, examples=(2.0, 100))
    assert needed_counts(students, 0.5, SINGLE).examples < needed_counts(students, 0.5, widened).examples


@pytest.mark.parametrize("margin", [0.0, -1.0, math.nan, math.inf])
def test_a_margin_that_is_none_is_refused(margin: float) -> None:
    with pytest.raises(InputError, match=r"--margin is .*; allowed: a number above 0"):
        check_margin(margin, "--margin")
    check_margin(0.5, "--margin")


@given(st.integers(2, 300), st.integers(0, 600))
def test_the_smallest_is_found_wherever_it_is(low: int, first: int) -> None:
    """Of a condition that becomes true at `first` and stays so; None where that is beyond the last that is tried."""
    asked = []

    def holds(count: int) -> bool:
        asked.append(count)
        return count >= first

    found = _smallest(holds, low, 500)
    assert found == (None if first > 500 and first > low else max(low, first))
    assert len(asked) < 30
