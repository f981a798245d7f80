"""CKA and its companions against the formulas as published, invariances, and any split of the rows."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anglekit.geometry.cka import (
    CrossSums,
    MinibatchSums,
    debiased_cka,
    linear_cka,
    mutual_neighbours,
    procrustes_distance,
    unbiased_hsic,
)
from anglekit.geometry.nulls import random_rotation

WIDTHS = (6, 6, 4)


def related_layers(n, seed=0, widths=WIDTHS, mean=3.0):
    """Layers that share a part, with a mean and dimensions of unequal size."""
    rng = np.random.default_rng(seed)
    shared = rng.standard_normal((n, 5))
    layers = []
    for width in widths:
        own = shared @ rng.standard_normal((5, width)) + rng.standard_normal((n, width))
        layers.append(torch.from_numpy(own * np.linspace(0.2, 4, width) + mean))
    return layers


def song_hsic(x, y):
    """Song et al. 2012, eq. 5, as printed."""
    n = len(x)
    k, el = (np.asarray(each @ each.T) for each in (x, y))
    for gram in (k, el):
        np.fill_diagonal(gram, 0)
    one = np.ones(n)
    first = np.trace(k @ el)
    second = (one @ k @ one) * (one @ el @ one) / ((n - 1) * (n - 2))
    third = 2 / (n - 2) * (one @ k @ el @ one)
    return (first + second - third) / (n * (n - 3))


def kornblith_cka(x, y):
    """Kornblith et al. 2019, sec. 2.2: |Y'X|_F^2 / (|X'X|_F |Y'Y|_F), columns centred."""
    x, y = (np.asarray(each - each.mean(0)) for each in (x, y))
    return np.linalg.norm(y.T @ x) ** 2 / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))


def dense(function, layers):
    return torch.tensor([[function(a, b) for b in layers] for a in layers], dtype=torch.float64)


@given(n=st.integers(4, 40), seed=st.integers(0, 1000), mean=st.sampled_from([0.0, 3.0, 100.0]))
@settings(max_examples=40, deadline=None)
def test_all_ways_equal_the_published_estimator(n, seed, mean):
    layers = related_layers(n, seed, mean=mean)
    expected = dense(song_hsic, layers)
    scale = expected.abs().max().item() + mean**4 * 1e-9
    torch.testing.assert_close(unbiased_hsic(layers), expected, rtol=1e-8, atol=1e-8 * scale)
    sums = CrossSums.zeros(WIDTHS)
    sums.update(layers)
    torch.testing.assert_close(sums.hsic(), expected, rtol=1e-7, atol=1e-7 * scale)
    batch = MinibatchSums.zeros(3).with_batch(layers)
    torch.testing.assert_close(batch.hsic, expected, rtol=1e-8, atol=1e-8 * scale)


def test_float32_states_keep_their_digits_beside_a_large_mean_and_a_large_dimension():
    layers = related_layers(200, 3, widths=(64, 64, 48), mean=50.0)
    layers[0][:, 5] *= 300
    expected = debiased_cka([layer.float().double() for layer in layers])
    torch.testing.assert_close(debiased_cka([layer.float() for layer in layers]), expected, rtol=0, atol=2e-6)


@given(n=st.integers(3, 40), seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_linear_cka_equals_the_published_formula(n, seed):
    layers = related_layers(n, seed)
    torch.testing.assert_close(linear_cka(layers), dense(kornblith_cka, layers))


def test_the_minibatch_estimate_equals_the_published_formula():
    """Nguyen et al. 2021, eq. 3: the numerator and both factors of the denominator are sums over batches."""
    layers = related_layers(97, seed=3)
    batches = [[layer[start : start + 16] for layer in layers] for start in range(0, 97, 16)]  # the last of one row
    sums = MinibatchSums.zeros(3)
    for batch in batches:
        sums = sums.with_batch(batch)
    assert sums.n_batches == 6
    hsic = sum(dense(song_hsic, batch) for batch in batches[:6])
    own = hsic.diagonal()
    torch.testing.assert_close(sums.cka(), hsic / torch.sqrt(own[None] * own[:, None]))
    halves = [MinibatchSums.zeros(3), MinibatchSums.zeros(3)]
    for number, batch in enumerate(batches):
        halves[number % 2] = halves[number % 2].with_batch(batch)
    torch.testing.assert_close((halves[0] + halves[1]).cka(), sums.cka())
    assert (sums.cka() - debiased_cka(layers)).abs().max() > 1e-4  # an estimate of it, not the same number
    assert MinibatchSums.zeros(3).cka().isnan().all()


@given(cuts=st.lists(st.integers(0, 30), max_size=6), merge_first=st.booleans())
@settings(max_examples=30, deadline=None)
def test_any_split_gives_the_same_sums(cuts, merge_first):
    layers = related_layers(30, seed=1)
    edges = [0, *sorted(cuts), 30]
    parts = []
    for start, stop in itertools.pairwise(edges):
        parts.append(CrossSums.zeros(WIDTHS))
        parts[-1].update([layer[start:stop] for layer in layers])
    merged = sum(parts[1:], parts[0]) if merge_first else parts[0] + sum(parts[1:], CrossSums.zeros(WIDTHS))
    torch.testing.assert_close(merged.cka(), debiased_cka(layers), rtol=1e-8, atol=1e-9)


def test_half_of_the_rows_gives_another_number():
    layers = related_layers(30, seed=1)
    sums = CrossSums.zeros(WIDTHS)
    sums.update([layer[:15] for layer in layers])
    assert (sums.cka() - debiased_cka(layers)).abs().max() > 1e-2


@pytest.mark.parametrize("measure", [debiased_cka, linear_cka])
def test_cka_of_a_set_with_itself_is_one_and_invariant_to_rotation_scale_and_shift(measure):
    layers = related_layers(50, seed=2)
    value = measure(layers)
    torch.testing.assert_close(value.diagonal(), torch.ones(3, dtype=torch.float64))
    assert value[0, 1] < 0.99
    moved = [7.5 * layers[0] @ random_rotation(6, np.random.default_rng(0)) - 2.0, *layers[1:]]
    torch.testing.assert_close(measure(moved), value)
    stretched = [layers[0] * torch.linspace(0.1, 5, 6), *layers[1:]]
    assert (measure(stretched) - value).abs().max() > 1e-2


def test_independent_sets_give_zero_in_expectation_where_the_plain_form_does_not():
    rng = np.random.default_rng(0)
    debiased, plain = [], []
    for _ in range(400):
        layers = [torch.from_numpy(rng.standard_normal((24, 48))) for _ in range(2)]
        debiased.append(debiased_cka(layers)[0, 1].item())
        plain.append(linear_cka(layers)[0, 1].item())
    error = np.std(debiased) / 20
    assert abs(np.mean(debiased)) < 4 * error
    assert error < 0.01
    assert np.mean(plain) > 0.5


def test_only_pairs_that_were_asked_for_are_kept():
    layers = related_layers(30, seed=4)
    sums = CrossSums.zeros(WIDTHS, [(0, 2)])
    sums.update(layers)
    found, whole = sums.cka(), debiased_cka(layers)
    assert found[0, 2].item() == pytest.approx(whole[0, 2].item())
    assert found[0, 1].isnan()
    assert CrossSums.bytes_needed(WIDTHS, [(0, 2)]) == 8 * 24
    with pytest.raises(ValueError, match="same pairs"):
        sums + CrossSums.zeros(WIDTHS)


def test_rows_that_are_not_finite_are_left_out():
    layers = related_layers(30, seed=5)
    broken = [layer.clone() for layer in layers]
    broken[1][7, 2], broken[2][9, 0] = torch.nan, torch.inf
    sums = CrossSums.zeros(WIDTHS)
    sums.update(broken)
    kept = [n for n in range(30) if n not in (7, 9)]
    assert int(sums.n) == 28
    torch.testing.assert_close(sums.cka(), debiased_cka([layer[kept] for layer in layers]))


def test_too_few_rows_and_layers_that_do_not_vary_are_nan():
    assert debiased_cka(related_layers(3)).isnan().all()
    sums = CrossSums.zeros(WIDTHS)
    sums.update(related_layers(3))
    assert sums.cka().isnan().all()
    still = [torch.ones(10, 4), related_layers(10)[0]]
    assert debiased_cka(still)[0].isnan().all()
    assert procrustes_distance(*still).isnan()
    assert debiased_cka(still)[1, 1].item() == pytest.approx(1.0)
    assert mutual_neighbours(*related_layers(5)[:2]).isnan()


def test_procrustes_is_the_distance_after_the_best_rotation():
    x, y = related_layers(40, seed=6)[:2]
    rotation = random_rotation(6, np.random.default_rng(1))
    assert procrustes_distance(x, 3 * x @ rotation + 1).item() == pytest.approx(0.0, abs=1e-6)
    a, b = (each - each.mean(0) for each in (x, y))
    a, b = a / a.norm(), b / b.norm()
    found = procrustes_distance(x, y).item()
    u, _, vh = torch.linalg.svd(b.T @ a)
    assert found == pytest.approx((a - b @ (u @ vh)).norm().item())
    best = min((a - b @ random_rotation(6, np.random.default_rng(seed))).norm().item() for seed in range(200))
    assert 0.1 < found < best
    wide = procrustes_distance(x, related_layers(40, seed=6)[2])
    padded = torch.cat([related_layers(40, seed=6)[2], torch.zeros(40, 2)], dim=1)
    assert wide.item() == pytest.approx(procrustes_distance(x, padded).item())


def test_mutual_neighbours_count_what_they_say():
    x = related_layers(60, seed=7)[0]
    assert mutual_neighbours(x, 2 * x @ random_rotation(6, np.random.default_rng(0))).item() == 1.0
    y = related_layers(60, seed=7)[1]
    near = []
    for each in (x, y):
        c = np.asarray(each - each.mean(0))
        c = c / np.linalg.norm(c, axis=1, keepdims=True)
        near.append([set(np.argsort(-np.where(np.arange(60) == row, -9, c @ c[row]))[:5]) for row in range(60)])
    shared = np.mean([len(a & b) / 5 for a, b in zip(*near, strict=True)])
    assert mutual_neighbours(x, y, 5).item() == pytest.approx(shared)
    rng = np.random.default_rng(2)
    chance = mutual_neighbours(*(torch.from_numpy(rng.standard_normal((400, 30))) for _ in range(2)))
    assert chance.item() == pytest.approx(10 / 399, abs=0.01)


@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_small_states_have_the_cka_of_large_ones(scale):
    layers = related_layers(30)
    torch.testing.assert_close(debiased_cka([scale * layer for layer in layers]), debiased_cka(layers))
    torch.testing.assert_close(linear_cka([scale * layer for layer in layers]), linear_cka(layers))


def test_as_many_rows_as_neighbours_have_no_neighbourhood():
    x = related_layers(12)[0]
    assert mutual_neighbours(x[:10], x[:10]).isnan()
    assert mutual_neighbours(x[:11], x[:11]) == 1.0
