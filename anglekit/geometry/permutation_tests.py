"""Permutation tests of similarity: would layers that know nothing of each other look as much alike?

The rows (examples) of one side are permuted against the other's: every layer stays as it is, and what is left of the
similarity is chance, the part that width and few rows make included. Where the most alike of several pairs of layers is
looked for, the largest of them is looked for in every permutation too, so that the search costs nothing (max-T:
Westfall and Young 1993; of layers: Groeger, Wen and Brbic 2026, arXiv 2602.14486).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# A permuted value that is less than the observed one by less than this share of the null's spread is a tie: rounding.
_TIE = 1e-5
# Bytes of permuted matrices that are worked on at once.
_BLOCK_BYTES = 2 << 20


def row_orders(n: int, permutations: int, rng: np.random.Generator) -> Tensor:
    """Return the rows as they are and permuted, int64 (1 + permutations, n)."""
    rows: NDArray[np.int64] = np.broadcast_to(np.arange(n), (permutations, n))
    return torch.from_numpy(np.concatenate([np.arange(n)[None], rng.permuted(rows, axis=1)]))


def permuted_products(matrices: Tensor, orders: Tensor) -> Tensor:
    """Return the inner products of symmetric matrices, the second one's rows and columns permuted.

    Args:
        matrices: with empty diagonals, shape (layers, n, n); products are taken in float32.
        orders: int64 (orders, n); row i of the first meets row orders[i] of the second.

    Returns:
        float64 (orders, layers, layers).
    """
    layers, n, _ = matrices.shape
    # Few bytes are moved: one permutation at a time into the same memory, and indices of four bytes.
    i, j = torch.triu_indices(n, n, 1, dtype=torch.int32, device=matrices.device)
    values = matrices.flatten(1).T.float().contiguous()
    fixed = values.index_select(0, i * n + j).T.contiguous()
    products = torch.empty(len(orders), layers, layers, dtype=torch.float64, device=matrices.device)
    permuted = torch.empty(len(i), layers, device=matrices.device)
    for product, order in zip(products, orders.to(matrices.device, torch.int32), strict=True):
        place = (order * n).index_select(0, i).add_(order.index_select(0, j))
        product.copy_(fixed @ torch.index_select(values, 0, place, out=permuted))
    return 2 * products


def orders_at_once(numbers: int) -> int:
    """Return how many permutations to work on together, for so many float32 numbers each: few calls, little memory."""
    return max(1, _BLOCK_BYTES // (4 * max(1, numbers)))


@dataclass(frozen=True)
class PermutationTest:
    """What permutations say of several values; larger ones are more alike. All are float64 (values,).

    Attributes:
        null: the mean over permutations.
        p: the share of permutations, the rows as they are among them, in which a value is at least as large.
        p_adjusted: the share in which the largest of all values, each in standard deviations of its own permutations,
            is at least as large: the chance of one such value or more among them all where nothing is alike.
    """

    null: Tensor
    p: Tensor
    p_adjusted: Tensor


def permutation_test(values: Tensor) -> PermutationTest:
    """Return null means and p-values, which no permutation makes 0 (Phipson and Smyth 2010).

    Mean and standard deviation are those of all rows, the first among them: then the rows are exchangeable in every
    step, and the test is exact.

    Args:
        values: of a family of pairs of layers, float64 (1 + permutations, values); the first row is the observed one.

    Returns:
        NaN for values that are NaN.
    """
    if not values.shape[1]:
        return PermutationTest(values[0], values[0], values[0])
    known = values.isfinite().all(0)
    spread = values.std(0, correction=0)
    # A value that no permutation changes says nothing.
    scores = torch.where(spread > 0, (values - values.mean(0)) / spread, 0.0)
    least = scores[0] - _TIE
    p = (scores >= least).double().mean(0)
    highest = torch.where(known, scores, -torch.inf).amax(1)
    p_adjusted = (highest.unsqueeze(1) >= least).double().mean(0)
    return PermutationTest(*(torch.where(known, each, torch.nan) for each in (values[1:].mean(0), p, p_adjusted)))
