"""Mutual neighbours: as the source defines them, their chance level, error and limits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anglekit.geometry.neighbours import Neighbourhoods, mutual_neighbours
from anglekit.geometry.nulls import random_rotation
from anglekit.geometry.permutation_tests import row_orders


def related_layers(n, seed=0, mean=1.0):
    rng = np.random.default_rng(seed)
    shared = rng.standard_normal((n, 4))
    return [torch.from_numpy(shared @ rng.standard_normal((4, 6)) + rng.standard_normal((n, 6)) + mean) for _ in "ab"]


def near_rows(layer, k, *, clamp=True, centre=False):
    """The definition of Huh et al. row by row: clamped numbers, cosines, no centring."""
    x = np.asarray(layer)
    if centre:
        x = x - x.mean(0)
    if clamp:
        limit = np.sort(np.abs(x).ravel())[int(0.95 * x.size)]
        x = np.clip(x, -limit, limit)
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    return [set(np.argsort(-np.where(np.arange(len(x)) == row, -9, x @ x[row]))[:k]) for row in range(len(x))]


def share(near, k):
    return np.mean([len(a & b) / k for a, b in zip(*near, strict=True)])


@given(n=st.integers(7, 40), seed=st.integers(0, 1000), k=st.integers(1, 6))
@settings(max_examples=30, deadline=None)
def test_they_are_what_the_source_computes(n, seed, k):
    layers = related_layers(n, seed)
    expected = share([near_rows(layer, k) for layer in layers], k)
    assert mutual_neighbours(*layers, k).item() == pytest.approx(expected)


def test_clamp_and_centring_would_matter():
    layers = related_layers(60, seed=1, mean=2.0)
    layers[0][:, 3] *= 30
    as_defined = mutual_neighbours(*layers, 5).item()
    assert as_defined == pytest.approx(share([near_rows(layer, 5) for layer in layers], 5))
    for other in ({"clamp": False}, {"centre": True}):
        assert abs(as_defined - share([near_rows(layer, 5, **other) for layer in layers], 5)) > 0.02


def test_a_scaled_layer_is_the_layer_and_by_chance_k_of_the_others_are_shared():
    x = related_layers(60)[0]
    assert mutual_neighbours(x, 7.5 * x).item() == 1.0
    rng = np.random.default_rng(2)
    independent = [torch.from_numpy(rng.standard_normal((300, 30))) for _ in range(2)]
    assert mutual_neighbours(*independent).item() == pytest.approx(10 / 299, abs=0.01)
    permuted = Neighbourhoods.of(independent).permuted(row_orders(300, 60, rng))[1:, 0, 1]
    assert permuted.mean().item() == pytest.approx(10 / 299, abs=4 * permuted.std().item() / 60**0.5)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_the_scale_of_the_states_does_not_matter(scale):
    layers = [layer.float() for layer in related_layers(40)]
    assert mutual_neighbours(*(scale * layer for layer in layers)) == mutual_neighbours(*layers)


def test_layers_that_do_not_vary_and_too_few_rows_have_no_neighbourhoods():
    x = related_layers(12)[0]
    still = torch.ones(12, 6)
    assert mutual_neighbours(still, still).isnan()
    assert mutual_neighbours(x, still + 1e-7 * x).isnan()
    assert mutual_neighbours(x, torch.full_like(x, torch.nan)).isnan()
    assert mutual_neighbours(x[:10], x[:10]).isnan()
    assert mutual_neighbours(x[:11], x[:11]) == 1.0
    few = Neighbourhoods.of([x[:11], x[:11]])
    assert few.shared_error().isnan().all()
    assert Neighbourhoods.of([x, still]).permuted(row_orders(12, 2, np.random.default_rng(0)))[:, 0, 1].isnan().all()


@given(n=st.integers(8, 20), seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_permuted_shares_are_those_of_permuted_rows(n, seed):
    layers = related_layers(n, seed)
    orders = row_orders(n, 3, np.random.default_rng(seed))
    found = Neighbourhoods.of(layers, 4).permuted(orders)
    expected = [[mutual_neighbours(layers[0], layers[1][order], 4), mutual_neighbours(layers[1], layers[0][order], 4)]
                for order in orders]  # fmt: skip
    torch.testing.assert_close(torch.stack([found[:, 0, 1], found[:, 1, 0]], 1), torch.tensor(expected).double())


def test_the_error_is_the_jackknife_of_the_clamped_rows():
    k, n = 4, 25
    layers = related_layers(n, seed=3)
    clamped = []
    for layer in layers:
        limit = layer.abs().flatten().sort().values[int(0.95 * layer.numel())]
        clamped.append(layer.clamp(-limit, limit))
    without = []
    for row in range(n):
        kept = [i for i in range(n) if i != row]
        without.append(share([near_rows(layer[kept], k, clamp=False) for layer in clamped], k))
    expected = np.sqrt((n - 1) / n * np.sum((without - np.mean(without)) ** 2))
    error = Neighbourhoods.of(layers, k).shared_error()
    assert error[0, 1].item() == pytest.approx(expected)
    assert error[0, 0] == 0
    rotated = Neighbourhoods.of([layers[0], layers[1] @ random_rotation(6, np.random.default_rng(0))], k).shared_error()
    assert rotated[0, 1].item() != pytest.approx(expected, rel=1e-3)  # the clamp knows the axes
