"""Quantiles and tails of Student's t against scipy's distribution, and Holm's adjustment against its definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from anglekit.results.student_t import holm, t_quantile, two_sided_p


@given(probability=st.floats(1e-6, 1 - 1e-6), freedom=st.floats(0.5, 1e6))
def test_quantile_and_tail_are_those_of_the_distribution(probability, freedom):
    quantile = float(t_quantile(probability, freedom))
    assert quantile == pytest.approx(stats.t.ppf(probability, freedom), rel=1e-7, abs=1e-9)
    assert float(two_sided_p(quantile, freedom)) == pytest.approx(2 * min(probability, 1 - probability), rel=1e-6)


def test_infinite_degrees_are_normal_and_none_give_no_number():
    np.testing.assert_allclose(t_quantile(0.975, [np.inf, 1e12]), stats.norm.ppf(0.975), rtol=1e-6)
    assert float(two_sided_p(1.96, np.inf)) == pytest.approx(2 * stats.norm.sf(1.96))
    assert np.isnan(t_quantile(0.975, [0.0, -1.0, np.nan])).all()
    assert np.isnan(two_sided_p(2.0, [0.0, -1.0, np.nan])).all()
    assert t_quantile(0.975, [3.0, 3.0]).shape == (2,)


def test_few_degrees_reach_farther_than_the_normal_distribution():
    reach = t_quantile(0.975, [2, 5, 30, np.inf])
    assert (np.diff(reach) < 0).all()
    assert reach[0] == pytest.approx(4.3027, abs=1e-4)


@given(p_values=st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_rejects_as_his_steps_do(p_values):
    """Step by step: the smallest p against level / tests, the next against level / (tests - 1), until one fails."""
    adjusted = holm(p_values)
    for level in (0.01, 0.05, 0.3):
        rejected, going = set(), True
        for step, place in enumerate(np.argsort(p_values, kind="stable")):
            going = going and p_values[place] * (len(p_values) - step) <= level
            if going:
                rejected.add(int(place))
        assert set(np.flatnonzero(adjusted <= level)) == rejected


def test_unknown_p_values_are_no_part_of_the_family():
    np.testing.assert_allclose(holm([0.01, np.nan, 0.04]), [0.02, np.nan, 0.04])
    # The negative control: as many known ones adjust more.
    assert holm([0.01, 0.5, 0.04])[0] == pytest.approx(0.03)
