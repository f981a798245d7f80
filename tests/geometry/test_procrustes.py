"""Procrustes distance: the best of all rotations, its error, and its null."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anglekit.geometry.nulls import random_rotation
from anglekit.geometry.permutation_tests import row_orders
from anglekit.geometry.procrustes import (
    permuted_procrustes,
    procrustes_distance,
    procrustes_with_error,
    rotation_coordinates,
)


def related_layers(n, seed=0, widths=(6, 6, 4)):
    rng = np.random.default_rng(seed)
    shared = rng.standard_normal((n, 5))
    return [
        torch.from_numpy(shared @ rng.standard_normal((5, width)) + rng.standard_normal((n, width)) + 3)
        for width in widths
    ]


def test_it_is_the_distance_after_the_best_rotation():
    x, y, narrow = related_layers(40, seed=6)
    rotation = random_rotation(6, np.random.default_rng(1))
    assert procrustes_distance(x, 3 * x @ rotation + 1).item() == pytest.approx(0.0, abs=1e-6)
    a, b = (each - each.mean(0) for each in (x, y))
    a, b = a / a.norm(), b / b.norm()
    found = procrustes_distance(x, y).item()
    u, _, vh = torch.linalg.svd(b.T @ a)
    assert found == pytest.approx((a - b @ (u @ vh)).norm().item())
    best = min((a - b @ random_rotation(6, np.random.default_rng(seed))).norm().item() for seed in range(200))
    assert 0.1 < found < best
    padded = torch.cat([narrow, torch.zeros(40, 2)], dim=1)
    assert procrustes_distance(x, narrow).item() == pytest.approx(procrustes_distance(x, padded).item())


@given(n=st.integers(2, 12), seed=st.integers(0, 1000), width=st.integers(1, 30))
@settings(max_examples=30, deadline=None)
def test_coordinates_keep_the_inner_products(n, seed, width):
    x = torch.from_numpy(np.random.default_rng(seed).standard_normal((n, width)))
    found = rotation_coordinates(x)
    assert found.shape == (n, min(n, width))
    centred = x - x.mean(0)
    torch.testing.assert_close(found @ found.T, centred @ centred.T / centred.square().sum())


def test_the_error_is_near_the_jackknife_and_shrinks_with_the_rows():
    errors = {}
    for n in (50, 200):
        x, y = related_layers(n, seed=2)[:2]
        without = []
        for row in range(n):
            kept = [i for i in range(n) if i != row]
            without.append(procrustes_distance(x[kept], y[kept]).item())
        expected = np.sqrt((n - 1) / n * np.sum((without - np.mean(without)) ** 2))
        distance, error = procrustes_with_error(rotation_coordinates(x), rotation_coordinates(y))
        assert distance.item() == pytest.approx(procrustes_distance(x, y).item())
        assert error.item() == pytest.approx(expected, rel=0.1)
        errors[n] = error.item()
    assert errors[200] < 0.7 * errors[50]
    same = rotation_coordinates(related_layers(50)[0])
    assert procrustes_with_error(same, same)[1].item() == pytest.approx(0.0, abs=1e-6)


def test_permuted_distances_are_those_of_permuted_rows():
    x, y = related_layers(15, widths=(20, 4))
    orders = row_orders(15, 4, np.random.default_rng(0))
    found = permuted_procrustes(rotation_coordinates(x), rotation_coordinates(y), orders)
    expected = torch.stack([procrustes_distance(x, y[order]) for order in orders])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert found[0] < found[1:].min()  # related layers are nearer than by chance


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_the_scale_of_the_states_does_not_matter(scale):
    x, y = (layer.float() for layer in related_layers(30)[:2])
    assert procrustes_distance(scale * x, y).item() == pytest.approx(procrustes_distance(x, y).item(), abs=1e-6)


def test_a_layer_that_does_not_vary_has_no_distance():
    x, still = rotation_coordinates(related_layers(10)[0]), rotation_coordinates(torch.ones(10, 4))
    assert all(each.isnan() for each in procrustes_with_error(x, still))
    assert permuted_procrustes(x, still, row_orders(10, 2, np.random.default_rng(0))).isnan().all()
