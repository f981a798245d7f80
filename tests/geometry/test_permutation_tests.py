"""Permutation tests: against matrices that are permuted in full, exact levels, and the search for the best paid for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anglekit.geometry.cka import LayerGrams
from anglekit.geometry.permutation_tests import permutation_test, permuted_products, row_orders


def symmetric(layers, n, seed):
    matrices = torch.from_numpy(np.random.default_rng(seed).standard_normal((layers, n, n)))
    matrices = matrices + matrices.transpose(1, 2)
    matrices.diagonal(dim1=1, dim2=2).zero_()
    return matrices


@given(n=st.integers(2, 12), layers=st.integers(1, 4), seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_products_are_those_of_permuted_matrices(n, layers, seed):
    matrices, orders = symmetric(layers, n, seed), row_orders(n, 3, np.random.default_rng(seed))
    found = permuted_products(matrices, orders)
    for product, order in zip(found, orders, strict=True):
        moved = matrices[:, order][:, :, order]
        torch.testing.assert_close(product, torch.einsum("aij,bij->ab", matrices, moved), rtol=1e-5, atol=1e-4)


def test_the_first_order_is_the_rows_as_they_are_and_all_are_permutations():
    orders = row_orders(9, 20, np.random.default_rng(0))
    assert orders[0].tolist() == list(range(9))
    assert (orders.sort(1).values == torch.arange(9)).all()
    assert len({tuple(order) for order in orders.tolist()}) > 15


def test_p_values_count_the_rows_as_they_are():
    values = torch.tensor([[3.0, 1.0], [1.0, 1.0], [5.0, 1.0], [2.0, 1.0]], dtype=torch.float64)
    found = permutation_test(values)
    torch.testing.assert_close(found.null, torch.tensor([8 / 3, 1.0], dtype=torch.float64))
    assert found.p.tolist() == [0.5, 1.0]  # a value that no permutation changes says nothing
    assert found.p_adjusted.tolist() == [0.5, 1.0]
    far = torch.cat([torch.tensor([[9.0]]), torch.arange(19.0).unsqueeze(1) / 19]).double()
    assert permutation_test(far).p.item() == pytest.approx(1 / 20)


def test_a_value_that_is_nan_is_left_out_of_the_search():
    values = torch.from_numpy(np.random.default_rng(0).standard_normal((40, 3)))
    alone = permutation_test(values[:, :2])
    values[:, 2] = torch.nan
    found = permutation_test(values)
    for name in ("null", "p", "p_adjusted"):
        torch.testing.assert_close(getattr(found, name)[:2], getattr(alone, name))
        assert getattr(found, name)[2].isnan()
    assert permutation_test(values[:, :0]).p.shape == (0,)


def rejections(columns, runs, permutations=19):
    """How often the smallest p and the smallest adjusted p of exchangeable rows are at most 5%."""
    rng = np.random.default_rng(1)
    shared = rng.standard_normal((runs, 1 + permutations, 1))
    # Columns that go together, of unequal spread.
    values = (shared + rng.standard_normal((runs, 1 + permutations, columns))) * np.linspace(1, 9, columns)
    found = [permutation_test(torch.from_numpy(each)) for each in values]
    return [np.mean([getattr(one, name).min().item() <= 0.05 for one in found]) for name in ("p", "p_adjusted")]


def test_the_adjusted_level_holds_where_the_best_is_looked_for():
    plain, adjusted = rejections(12, 1000)
    assert plain > 0.2  # looking twelve times for a p of 5%
    assert adjusted < 0.05 + 4 * np.sqrt(0.05 * 0.95 / 1000)
    assert adjusted > 0.05 - 4 * np.sqrt(0.05 * 0.95 / 1000)  # exact, not merely careful
    one = rejections(1, 1000)
    assert one[0] == one[1] == pytest.approx(0.05, abs=4 * np.sqrt(0.05 * 0.95 / 1000))


# : What calibrated-similarity 0.1.1 (Groeger, Wen and Brbic 2026) gave on these layers with these permutations and its
# own : example's linear CKA: for each pair of layers p and the threshold at 5%; then those of the largest of all pairs.
THEIRS = {
    (0, 0): (0.620, 0.2164694220),
    (0, 1): (0.215, 0.2188962698),
    (1, 0): (0.080, 0.2221650332),
    (1, 1): (0.630, 0.2147647888),
    (2, 0): (0.005, 0.1766964793),
    (2, 1): (0.930, 0.1793351620),
}
THEIR_LARGEST = 0.005


def test_p_values_and_thresholds_are_those_of_calibrated_similarity():
    rng, n = np.random.default_rng(0), 80
    shared = rng.standard_normal((n, 4))
    layers = [
        torch.from_numpy(shared @ rng.standard_normal((4, width)) * part + rng.standard_normal((n, width)))
        for width, part in ((24, 0.0), (24, 0.15), (24, 0.4), (16, 0.15), (16, 0.0))
    ]
    orders = row_orders(n, 199, np.random.default_rng(1))
    values = LayerGrams.of(layers).permuted(orders)[1][:, :3, 3:]
    for (a, b), (p, threshold) in THEIRS.items():
        assert permutation_test(values[:, a, b : b + 1]).p.item() == pytest.approx(p, abs=1e-12)
        assert values[:, a, b].sort().values[189].item() == pytest.approx(threshold, abs=1e-7)  # theirs is float32
    largest = values.flatten(1).amax(1)
    assert (largest >= largest[0]).double().mean().item() == THEIR_LARGEST
    assert permutation_test(values.flatten(1)).p_adjusted.min().item() == THEIR_LARGEST


def test_the_search_finds_the_layer_that_a_plain_maximum_hides():
    """Wide layers look more alike by chance: the largest CKA is theirs; in its own spread a narrow one shows."""
    rng, n = np.random.default_rng(5), 60
    shared = rng.standard_normal((n, 3))
    narrow = [torch.from_numpy(shared + rng.standard_normal((n, 3))) for _ in range(2)]
    wide = [torch.from_numpy(rng.standard_normal((n, 400))) for _ in range(2)]
    values = LayerGrams.of([narrow[0], wide[0], narrow[1], wide[1]]).permuted(row_orders(n, 199, rng))[1][:, :2, 2:]
    largest = values.flatten(1).amax(1)
    assert (largest >= largest[0]).double().mean() > 0.2
    found = permutation_test(values.flatten(1)).p_adjusted
    assert found[0].item() == pytest.approx(1 / 200)
    assert found[1:].min() > 0.2
