"""Three verdicts, the rates at which they are wrong, and what it would take to reach one."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anglekit.comparison.bootstrap import estimate_contrasts, simultaneous_factor
from anglekit.comparison.equivalence import (
    ALPHA,
    _smallest,
    check_margin,
    equivalence_verdict,
    family_verdict,
    needed_counts,
)
from anglekit.errors import InputError

REPLICATIONS = 1500
MARGIN = 0.5
RATE = 3 * math.sqrt(ALPHA * (1 - ALPHA) / REPLICATIONS)  # three standard errors of a simulated rate


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
    assert equivalence_verdict(low, high, MARGIN) == expected


@given(st.floats(-3, 3), st.floats(0, 3), st.floats(0.01, 3))
def test_the_verdict_does_not_depend_on_the_sign_or_the_unit(estimate: float, half: float, margin: float) -> None:
    verdict = equivalence_verdict(estimate - half, estimate + half, margin)
    assert equivalence_verdict(-estimate - half, -estimate + half, margin) == verdict
    assert equivalence_verdict(4 * (estimate - half), 4 * (estimate + half), 4 * margin) == verdict


def test_all_must_be_equivalent_and_one_different_is_enough() -> None:
    near, far, wide = (-0.1, 0.1), (0.7, 0.9), (-0.6, 0.9)
    assert family_verdict([near, near], [wide, wide], MARGIN) == "equivalent"
    assert family_verdict([near, wide], [wide, wide], MARGIN) == "undecided"
    assert family_verdict([near, far], [wide, far], MARGIN) == "different"
    assert family_verdict([near, far], [wide, (0.3, 1.2)], MARGIN) == "undecided"
    assert family_verdict([], [], MARGIN) == "undecided"


@functools.cache
def rates(truth: float, spread: float, seeds: int = 1) -> dict[str, float]:
    """Return how often each verdict comes for differences of known truth."""
    rng = np.random.default_rng(4)
    values = truth + spread * rng.normal(size=(REPLICATIONS, seeds, 40 if seeds == 1 else 1))
    estimates = estimate_contrasts(values, None, np.eye(REPLICATIONS), n_draws=1000, seed=6)
    low, high = estimates.interval(1 - 2 * ALPHA)
    verdicts = [equivalence_verdict(a, b, MARGIN) for a, b in zip(low, high, strict=True)]
    return {name: verdicts.count(name) / REPLICATIONS for name in ("equivalent", "different", "undecided")}


@pytest.mark.parametrize("seeds", [1, 5])
def test_three_data_sets_reach_the_three_verdicts(seeds: int) -> None:
    """Spreads are of one unit: 40 examples, or 5 seeds."""
    small, large = (0.9, 6.0) if seeds == 1 else (0.25, 2.0)
    assert rates(0.0, small, seeds)["equivalent"] > 0.85
    assert rates(2 * MARGIN, small, seeds)["different"] > 0.85
    assert rates(0.0, large, seeds)["undecided"] > 0.85


@pytest.mark.parametrize("seeds", [1, 5])
@pytest.mark.parametrize("truth", [MARGIN, -MARGIN])
def test_at_the_margin_each_wrong_verdict_comes_at_its_nominal_rate(truth: float, seeds: int) -> None:
    found = rates(truth, 0.6, seeds)
    assert found["different"] == pytest.approx(ALPHA, abs=RATE + 0.005)
    # Over few seeds the interval may be too wide ever to be called equivalent, never the other way round.
    assert found["equivalent"] <= ALPHA + RATE + 0.005
    assert seeds > 1 or found["equivalent"] >= ALPHA - RATE - 0.005


def test_no_difference_is_hardly_ever_called_different() -> None:
    assert rates(0.0, 1.5)["different"] <= 0.01


def family_rates(strategies: int, margins: float, corrected: bool) -> float:
    """Return how often a family of equal strategies at the margin is called different: the negative control's knob."""
    rng = np.random.default_rng(2)
    true = np.where(np.arange(strategies) % 2, margins, 0.0)
    pairs = [(a, b) for a in range(strategies) for b in range(a + 1, strategies)]
    c = np.array([[(k == a) - (k == b) for k in range(strategies)] for a, b in pairs], dtype=float)
    wrong = 0
    for repeat in range(300):
        values = true[:, None, None] + 0.6 * rng.normal(size=(strategies, 1, 40))
        found = estimate_contrasts(values, None, c, n_draws=400, seed=repeat)
        plain = list(zip(*found.interval(1 - 2 * ALPHA), strict=True))
        half = simultaneous_factor(found.draws, 1 - 2 * ALPHA, 39, n_samples=2000) * found.standard_error
        joint = list(zip(found.estimate - half, found.estimate + half, strict=True))
        wrong += family_verdict(plain, joint if corrected else plain, MARGIN) == "different"
    return wrong / 300


def test_a_family_at_the_margin_is_called_different_at_most_at_the_nominal_rate() -> None:
    assert family_rates(4, MARGIN, corrected=True) <= 2 * ALPHA
    assert family_rates(4, MARGIN, corrected=False) > 2 * ALPHA


@settings(max_examples=40, deadline=None)
@given(st.floats(-1, 1), st.floats(1e-4, 0.1), st.integers(3, 10), st.integers(20, 500))
def test_the_smallest_number_that_decides_is_named(estimate: float, variance: float, seeds: int, examples: int) -> None:
    needed = needed_counts(
        estimate, MARGIN, seed_variance=None, n_seeds=1, example_variance=variance, n_examples=examples
    )
    assert needed.seeds is None
    gap = abs(abs(estimate) - MARGIN)
    if needed.examples is None:
        assert gap < 2 * math.sqrt(variance * examples / 1_000_000_000)
    else:
        assert 1.6 * math.sqrt(variance * examples / needed.examples) < gap
    by_seed = needed_counts(
        estimate, MARGIN, seed_variance=variance, n_seeds=seeds, example_variance=None, n_examples=1
    )
    assert by_seed.examples is None
    assert needed.factor is None
    assert by_seed.factor is None
    both = needed_counts(
        estimate, MARGIN, seed_variance=variance, n_seeds=seeds, example_variance=variance, n_examples=examples
    )
    assert both.factor is None or both.seeds is both.examples is None
    assert by_seed.seeds is None or 1.6 * math.sqrt(variance * seeds / by_seed.seeds) < gap


def test_scaling_is_that_of_the_interval() -> None:
    # z = 1.645; half = 1.645 sqrt(0.04 x 100 / n) < 0.5 from n = 43.3 on, and 0.05 of gap needs 100 times as many.
    wide = needed_counts(0.0, 0.5, seed_variance=None, n_seeds=1, example_variance=0.2, n_examples=1000)
    assert wide.examples == pytest.approx(0.2 * 1000 * (1.6449 / 0.5) ** 2, rel=0.01)
    close = needed_counts(0.45, 0.5, seed_variance=None, n_seeds=1, example_variance=0.2, n_examples=1000)
    assert close.examples == pytest.approx(100 * wide.examples, rel=0.01)


def test_where_neither_seeds_nor_examples_alone_suffice_both_are_named() -> None:
    needed = needed_counts(0.0, 0.5, seed_variance=0.3, n_seeds=3, example_variance=0.3, n_examples=50)
    assert needed.seeds is None
    assert needed.examples is None
    assert needed.factor is not None
    assert 5 < needed.factor < 15


def test_at_the_margin_itself_nothing_decides() -> None:
    needed = needed_counts(0.5, 0.5, seed_variance=0.1, n_seeds=3, example_variance=0.1, n_examples=50)
    assert (needed.seeds, needed.examples, needed.factor) == (None, None, None)


def test_intervals_that_hold_at_once_need_more() -> None:
    options = {"seed_variance": 0.2, "n_seeds": 3, "example_variance": None, "n_examples": 1}
    single = needed_counts(0.0, 0.5, **options).seeds
    joint = needed_counts(0.0, 0.5, **options, inflation=2.0).seeds
    assert single is not None
    assert joint is not None
    assert 3 < single < joint


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
