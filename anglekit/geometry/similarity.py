"""Similarities between two sets of layers: pure functions on inner products."""

from __future__ import annotations

import torch
from torch import Tensor


def pair_cosines(
    products: Tensor, squared_a: Tensor, squared_b: Tensor, *, finite: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Return the cosine between the states of every layer of A and every layer of B, and where it is defined.

    Args:
        products: <a, b>, float64 of shape (layers of A, layers of B, tokens).
        squared_a: |a|^2, shape (layers of A, tokens).
        squared_b: |b|^2, shape (layers of B, tokens).
        finite: all of them are known to be finite, which need not be looked for again.

    Returns:
        Cosines of shape (layers of A, layers of B, tokens), 0 where not defined, and a bool tensor of that shape, or
        None where all are defined: both states finite and longer than zero.
    """
    usable_a, usable_b = squared_a > 0, squared_b > 0
    if not finite:
        usable_a &= torch.isfinite(squared_a)
        usable_b &= torch.isfinite(squared_b)
    cosine = (products * squared_a.rsqrt().unsqueeze(1)).mul_(squared_b.rsqrt().unsqueeze(0))
    cosine, defined = _zero_where_undefined(cosine, usable_a, usable_b)
    return cosine.clamp_(-1.0, 1.0), defined


def pair_distances(
    products: Tensor, squared_a: Tensor, squared_b: Tensor, *, finite: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Return |a - b| for every layer of A and of B, and where it is defined (both states finite).

    Shapes as in `pair_cosines`. In float64 the expansion |a|^2 + |b|^2 - 2 <a, b> resolves distances down to about 1e-7
    of the states' lengths, the resolution of float32 states.
    """
    squared = torch.add(squared_a.unsqueeze(1), products, alpha=-2).add_(squared_b.unsqueeze(0))
    defined = None
    if not finite:
        squared, defined = _zero_where_undefined(squared, torch.isfinite(squared_a), torch.isfinite(squared_b))
    return squared.clamp_(min=0.0).sqrt_(), defined


def _zero_where_undefined(values: Tensor, usable_a: Tensor, usable_b: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return values with 0 where they are not defined, and where they are; None for everywhere.

    Nearly always all are; a mask of every pair and a masked copy would cost as much as the values.
    """
    if bool(usable_a.all()) and bool(usable_b.all()):
        return values, None
    defined = usable_a.unsqueeze(1) & usable_b.unsqueeze(0)
    return torch.where(defined, values, 0.0), defined


def centred_cosines(
    products: Tensor, sum_a: Tensor, sum_b: Tensor, squared_a: Tensor, squared_b: Tensor, n_tokens: Tensor
) -> Tensor:
    """Return the cosine between two layers' states after each layer's mean state is subtracted, over all tokens.

    It is the summed inner product of the centred states over the square root of their summed squared lengths: the
    Pearson correlation of the two layers over tokens and dimensions. Unlike a mean of per-token centred cosines it
    streams exactly, because it needs only sums.

    Args:
        products: sum over tokens of <a, b>, float64 of shape (layers of A, layers of B).
        sum_a: sum of states, shape (layers of A, width).
        sum_b: sum of states, shape (layers of B, width).
        squared_a: sum of |a|^2, shape (layers of A,).
        squared_b: sum of |b|^2, shape (layers of B,).
        n_tokens: the number of tokens summed, a scalar tensor.

    Returns:
        Shape (layers of A, layers of B); NaN where a layer does not vary or there are no tokens.
    """
    covariance = products - sum_a @ sum_b.T / n_tokens
    variance_a = squared_a - (sum_a * sum_a).sum(1) / n_tokens
    variance_b = squared_b - (sum_b * sum_b).sum(1) / n_tokens
    # What is left of a layer that does not vary is rounding of its length.
    variance_a = torch.where(variance_a > 1e-12 * squared_a, variance_a, torch.nan)
    variance_b = torch.where(variance_b > 1e-12 * squared_b, variance_b, torch.nan)
    return (covariance / torch.sqrt(variance_a.unsqueeze(1) * variance_b.unsqueeze(0))).clamp(-1.0, 1.0)
