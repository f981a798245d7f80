"""Permutation tests: against matrices that are permuted in full, exact levels, and the search for the best paid for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

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
