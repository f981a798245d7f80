"""CKA and its companions against the formulas as published, invariances, and any split of the rows."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anglekit.geometry.cka import CrossSums, LayerGrams, debiased_cka, linear_cka, unbiased_hsic
from anglekit.geometry.nulls import random_rotation
from anglekit.geometry.permutation_tests import row_orders

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
    own = expected.diagonal()
    ratio = expected / torch.sqrt(own[None] * own[:, None])
    torch.testing.assert_close(debiased_cka(layers), ratio, rtol=1e-6, atol=1e-6)


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
    assert linear_cka(still)[0].isnan().all()
    assert debiased_cka(still)[1, 1].item() == 1.0
    sums = CrossSums.zeros((4, 6))
    sums.update(still)
    assert sums.cka()[0].isnan().all()
    assert sums.cka()[1, 1] == 1.0


@pytest.mark.parametrize("scale", [1e-30, 1e-4, 1e4, 1e30, 1e36])
def test_norms_of_any_size_have_the_same_cka(scale):
    layers = [layer.float() for layer in related_layers(30)]
    moved = [scale * layer for layer in layers]
    assert all(layer.isfinite().all() for layer in moved)
    for measure in (debiased_cka, linear_cka):
        torch.testing.assert_close(measure(moved), measure(layers), rtol=0, atol=1e-6)
        torch.testing.assert_close(measure([moved[0], *layers[1:]]), measure(layers), rtol=0, atol=1e-6)
    sums = CrossSums.zeros(WIDTHS)
    sums.update(moved)
    torch.testing.assert_close(sums.cka(), debiased_cka(layers), rtol=0, atol=1e-6)


def centred_oracle(layers):
    """Debiased CKA of centred states in the longest float there is."""
    grams = []
    for layer in layers:
        x = np.asarray(layer).astype(np.longdouble)
        x = x - x.mean(0)
        gram = x @ x.T
        np.fill_diagonal(gram, 0)
        n = len(gram)
        rows = gram.sum(1) / (n - 2)
        gram = gram - rows[:, None] - rows[None] + gram.sum() / ((n - 1) * (n - 2))
        np.fill_diagonal(gram, 0)
        grams.append(gram / np.sqrt((gram**2).sum()))
    return torch.tensor([[float((a * b).sum()) for b in grams] for a in grams], dtype=torch.float64)


@pytest.mark.parametrize("ratio", [1e3, 1e4, 3e4])
@pytest.mark.parametrize("parts", [1, 4])
def test_a_mean_of_many_standard_deviations_costs_no_digits(ratio, parts):
    layers = related_layers(200, seed=8, mean=0.0)
    layers = [(layer + ratio * layer.std()).float() for layer in layers]
    layers[1][:, 2] *= 1000  # and one massive dimension
    expected = centred_oracle(layers)
    assert 0.01 < expected[0, 1] < 0.95
    sums = [CrossSums.zeros(WIDTHS) for _ in range(parts)]
    for number, start in enumerate(range(0, 200, 25)):
        sums[number % parts].update([layer[start : start + 25] for layer in layers])
    merged = sum(sums[1:], sums[0])
    torch.testing.assert_close(merged.cka(), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(debiased_cka(layers), expected, rtol=0, atol=1e-6)


def test_sums_around_zero_would_lose_them():
    layers = [layer + 1e4 * layer.std() for layer in related_layers(200, seed=8, mean=0.0)]
    sums = CrossSums.zeros(WIDTHS)
    sums.update(layers)
    moved = sums.around([torch.zeros(width, dtype=torch.float64) for width in WIDTHS])
    assert (moved.cka() - sums.cka()).abs().nan_to_num(1.0).max() > 1e-3


@given(seed=st.integers(0, 1000), away=st.floats(-3, 3))
@settings(max_examples=20, deadline=None)
def test_sums_around_another_reference_are_those_of_shifted_states(seed, away):
    layers = related_layers(20, seed, mean=1.0)
    sums = CrossSums.zeros(WIDTHS)
    sums.update(layers)
    reference = [sums.reference[number] + away for number in range(3)]
    expected = CrossSums.zeros(WIDTHS)
    expected.update([layer - place for layer, place in zip(layers, reference, strict=True)])
    expected = expected.around([torch.zeros_like(place) for place in reference])
    found, wanted = sums.around(reference).tensors(), expected.tensors()
    for name, tensor in found.items():
        if not name.startswith("reference"):
            torch.testing.assert_close(tensor, wanted[name], rtol=1e-9, atol=1e-6)
    torch.testing.assert_close(sums.around(reference).cka(), debiased_cka(layers), rtol=1e-9, atol=1e-9)


def test_twenty_identical_texts_have_no_cka():
    rng = np.random.default_rng(0)
    state = torch.from_numpy(rng.standard_normal((1, 8))).float().expand(20, 8)
    # What the order of a float32 sum leaves.
    layers = [state * (1 + 2e-7 * torch.from_numpy(rng.standard_normal((20, 8))).float()) for _ in range(2)]
    sums = CrossSums.zeros((8, 8))
    for start in range(0, 20, 7):
        sums.update([layer[start : start + 7] for layer in layers])
    assert sums.cka().isnan().all()
    assert debiased_cka(layers).isnan().all()
    assert linear_cka(layers).isnan().all()


@pytest.mark.parametrize("name", ["debiased_cka", "linear_cka"])
@given(n=st.integers(6, 20), seed=st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_errors_are_those_of_the_delete_one_jackknife(name, n, seed):
    layers = related_layers(n, seed)
    without = []
    for row in range(n):
        kept = [number for number in range(n) if number != row]
        without.append(getattr(LayerGrams.of([layer[kept] for layer in layers]), name)())
    expected = ((n - 1) * torch.stack(without).var(0, correction=0)).sqrt()
    found = getattr(LayerGrams.of(layers), f"{name}_error")()
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


def test_errors_are_the_spread_of_repeated_samples():
    found, errors = [], []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        shared = rng.standard_normal((60, 5))
        mix = np.random.default_rng(7).standard_normal((2, 5, 6))
        layers = [torch.from_numpy(shared @ each + rng.standard_normal((60, 6))) for each in mix]
        grams = LayerGrams.of(layers)
        found.append(grams.debiased_cka()[0, 1].item())
        errors.append(grams.debiased_cka_error()[0, 1].item())
    assert np.mean(errors) == pytest.approx(np.std(found), rel=0.25)


@given(n=st.integers(4, 12), seed=st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_permuted_cka_is_that_of_permuted_rows(n, seed):
    layers, orders = related_layers(n, seed), row_orders(n, 3, np.random.default_rng(seed))
    for found, measure in zip(LayerGrams.of(layers).permuted(orders), (debiased_cka, linear_cka), strict=True):
        for matrix, order in zip(found, orders, strict=True):
            expected = [[measure([a, b[order]])[0, 1] for b in layers] for a in layers]
            torch.testing.assert_close(matrix, torch.tensor(expected).double(), rtol=0, atol=2e-5)


def test_over_all_permutations_debiased_cka_is_zero_and_linear_cka_is_not():
    layers = related_layers(5, seed=1)
    orders = torch.tensor(list(itertools.permutations(range(5))))
    debiased, plain = LayerGrams.of(layers).permuted(orders)
    torch.testing.assert_close(debiased.mean(0), torch.zeros(3, 3, dtype=torch.float64), rtol=0, atol=1e-6)
    assert plain.mean(0)[0, 1] > 0.2


def test_too_few_rows_have_no_error_and_no_null():
    four, three = LayerGrams.of(related_layers(4)), LayerGrams.of(related_layers(3))
    assert four.debiased_cka_error().isnan().all()
    assert three.permuted(row_orders(3, 2, np.random.default_rng(0)))[0].isnan().all()
    assert LayerGrams.of(related_layers(2)).linear_cka_error().isnan().all()
    assert three.linear_cka().isfinite().all()
