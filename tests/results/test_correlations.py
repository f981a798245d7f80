"""Correlations over weighted examples, beside scipy's, and what each weight does to them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from anglekit.results.correlations import CORRELATIONS, pearson, spearman

ORACLES = {"pearson": stats.pearsonr, "spearman": stats.spearmanr}


def numbers(seed, number, levels):
    """Two sides of a few levels, so that many are equal."""
    draw = np.random.default_rng(seed)
    target = draw.integers(0, levels, number).astype(np.float64)
    return target + draw.integers(-1, 2, number), target, draw.integers(0, 4, number).astype(np.float64)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1), st.integers(3, 50), st.integers(2, 40), st.sampled_from(sorted(ORACLES)))
def test_weights_count_how_often_an_example_comes(seed, number, levels, name):
    predicted, target, weights = numbers(seed, number, levels)
    rows = np.repeat(np.arange(number), weights.astype(int))
    if len(rows) < 2 or np.ptp(predicted[rows]) == 0.0 or np.ptp(target[rows]) == 0.0:
        return
    value, _ = CORRELATIONS[name](predicted, target, weights)
    assert value == pytest.approx(ORACLES[name](predicted[rows], target[rows]).statistic, abs=1e-12)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1), st.integers(4, 30), st.sampled_from(sorted(ORACLES)))
def test_effects_are_the_derivatives_by_the_weights(seed, number, name):
    predicted, target, weights = numbers(seed, number, 6)
    weights += 1.0
    value, effects = CORRELATIONS[name](predicted, target, weights)
    assert effects @ weights == pytest.approx(0.0, abs=1e-9), "twice the weight of all changes nothing"
    step = 1e-6
    for example in range(0, number, 3):
        moved = weights.copy()
        moved[example] += step
        change = (CORRELATIONS[name](predicted, target, moved)[0] - value) / step
        assert change == pytest.approx(effects[example], abs=1e-4)


def test_values_of_any_size_and_cases_without_a_correlation():
    predicted, target, weights = np.array([1.0, 2.0, 4.0, 3.0]), np.array([1.0, 3.0, 2.0, 5.0]), np.ones(4)
    expected = stats.pearsonr(predicted, target).statistic
    for scale in (1e-200, 1e200):
        assert pearson(predicted * scale, target, weights)[0] == pytest.approx(expected, abs=1e-12)
    assert pearson(predicted + 1e9, target, weights)[0] == pytest.approx(expected, abs=1e-6)
    # The order alone matters to one of them.
    assert spearman(np.exp(predicted), target, weights)[0] == spearman(predicted, target, weights)[0]
    assert pearson(np.exp(predicted), target, weights)[0] != pytest.approx(expected, abs=1e-2)
    for of_weights in (pearson, spearman):
        constant, effects = of_weights(np.full(4, 0.1), target, weights)
        assert (constant, effects.any()) == (0.0, False)
        assert of_weights(predicted, target, np.array([1.0, 0.0, 0.0, 0.0]))[0] == 0.0
        assert np.isnan(of_weights(np.array([1.0, np.nan, 2.0, 3.0]), target, weights)[0])
