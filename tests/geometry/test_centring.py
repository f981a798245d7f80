"""Centred states of unit size: at any scale, and none where nothing varies."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anglekit.geometry.centring import CONSTANT, centred_states, jackknife_error


@given(n=st.integers(2, 20), seed=st.integers(0, 1000), scale=st.sampled_from([1e-30, 1e-3, 1.0, 1e30]))
@settings(max_examples=30, deadline=None)
def test_they_have_no_mean_unit_size_and_no_scale(n, seed, scale):
    x = torch.from_numpy(np.random.default_rng(seed).standard_normal((n, 5)) + 3).float()
    found = centred_states(x * scale)
    expected = np.asarray(x, dtype=np.longdouble)
    expected = expected - expected.mean(0)
    expected = torch.from_numpy((expected / np.sqrt((expected**2).sum())).astype(np.float64))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)  # the scaled float32 states differ in their last bit
    assert found.mean(0).abs().max() < 1e-12
    assert found.square().sum().item() == pytest.approx(1.0)


def test_what_varies_less_than_rounding_is_nan():
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal((50, 4)))
    for ratio, constant in ((CONSTANT / 3, True), (3 * CONSTANT, False)):
        assert centred_states(1 + ratio * noise).isnan().all().item() is constant
    assert centred_states(torch.ones(5, 3)).isnan().all()
    assert centred_states(torch.zeros(5, 3)).isnan().all()
    assert centred_states(torch.ones(1, 3)).isnan().all()
    assert centred_states(torch.zeros(0, 3)).shape == (0, 3)


@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
def test_one_broken_number_breaks_the_layer(broken):
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((5, 3)))
    x[2, 1] = broken
    assert centred_states(x).isnan().all()


@given(n=st.integers(2, 30), seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_the_jackknife_of_a_mean_is_the_usual_standard_error(n, seed):
    x = np.random.default_rng(seed).standard_normal(n)
    without = torch.from_numpy((x.sum() - x) / (n - 1))
    assert jackknife_error(without).item() == pytest.approx(x.std(ddof=1) / np.sqrt(n))
