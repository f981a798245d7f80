"""Orthogonal Procrustes distance between layers: what no rotation and no scale can take away.

Ding, Denain, Steinhardt 2021 (arXiv 2108.01661): min over Q of |X - Y Q| with both centred and of Frobenius norm 1,
sqrt(2 - 2 |X'Y|_*) in [0, sqrt 2]; the narrower layer counts as filled up with zeros. With fewer rows than dimensions
it is too small: a rotation then fits the rows, of unrelated layers too, as the null shows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from anglekit.geometry.centring import centred_states, jackknife_error
from anglekit.geometry.permutation_tests import orders_at_once


def rotation_coordinates(layer: Tensor) -> Tensor:
    """Return centred states of unit size in no more coordinates than rows, with the same inner products.

    Args:
        layer: states, shape (n, width).

    Returns:
        float64 (n, min(n, width)); NaN for a layer that does not vary.
    """
    x = centred_states(layer)
    n, width = x.shape
    if width <= n or not bool(x.isfinite().all()):
        return x[:, :n]
    factor: Tensor = torch.linalg.qr(x.T, mode="r").R
    return factor.T.contiguous()


def procrustes_distance(x: Tensor, y: Tensor) -> Tensor:
    """Return the Procrustes distance of two layers.

    Args:
        x: states of shape (n, width of x).
        y: states of shape (n, width of y).

    Returns:
        A scalar; NaN where a layer does not vary.
    """
    return procrustes_with_error(rotation_coordinates(x), rotation_coordinates(y))[0]


def procrustes_with_error(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the Procrustes distance of two layers and its standard error over rows.

    The error is the delete-one jackknife's with the best rotation held: |X'Y|_* changes by <Q, change of X'Y> to first
    order, Q the rotation, so that one decomposition serves all rows.

    Args:
        x: `rotation_coordinates` of the one, shape (n, coordinates).
        y: those of the other.

    Returns:
        Two scalars; NaN where a layer does not vary.
    """
    product = x.T @ y
    if not bool(product.isfinite().all()):
        return product.new_tensor(torch.nan), product.new_tensor(torch.nan)
    u, singular, vh = torch.linalg.svd(product, full_matrices=False)
    n, nuclear = len(x), singular.sum()
    factor = n / (n - 1)
    along = ((x @ u) * (y @ vh.T)).sum(1)
    size = (1 - factor * (x * x).sum(1)) * (1 - factor * (y * y).sum(1))
    return _distance(nuclear), jackknife_error(_distance((nuclear - factor * along) / size.sqrt()))


def _distance(nuclear: Tensor) -> Tensor:
    return (2 - 2 * nuclear).clamp(min=0.0).sqrt()


def permuted_procrustes(x: Tensor, y: Tensor, orders: Tensor) -> Tensor:
    """Return the distances with the second layer's rows permuted, computed in float32.

    Args:
        x: `rotation_coordinates` of the one, shape (n, coordinates).
        y: those of the other.
        orders: permutations of the rows, int64 (orders, n).

    Returns:
        float64 (orders,); NaN where a layer does not vary.
    """
    distances = torch.full((len(orders),), torch.nan, dtype=torch.float64, device=x.device)
    x, y = x.float(), y.float()
    if bool(x.isfinite().all()) and bool(y.isfinite().all()):
        step = orders_at_once(y.numel())
        for distance, some in zip(torch.split(distances, step), torch.split(orders.to(x.device), step), strict=True):
            distance.copy_(_distance(torch.linalg.svdvals(x.T @ y[some]).sum(1, dtype=torch.float64)))
    return distances
