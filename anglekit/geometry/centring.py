"""States less their mean and of unit size: where measures of similarity that no shift and no scale changes begin."""

from __future__ import annotations

import torch
from torch import Tensor

#: A layer whose states spread by less than this share of their size does not vary: what is left is rounding of float32
#: sums. (Means of 100,000 standard deviations still count as varying.)
CONSTANT = 2.0**-18


def varies(spread: Tensor, size: Tensor) -> Tensor:
    """Return whether layers vary, bool of the arguments' shape; False for what is NaN.

    Args:
        spread: sum over rows of |x - mean|^2.
        size: sum over rows of |x|^2.
    """
    return spread > CONSTANT**2 * size


def centred_states(layer: Tensor) -> Tensor:
    """Return states less their mean, scaled to a sum of squares of 1.

    They are scaled first: of norms beyond 1e19 float32 knows no squares, and beyond 1e77 float64 no fourth powers.

    Args:
        layer: states, shape (n, width).

    Returns:
        float64 (n, width); NaN throughout for a layer that does not vary (`CONSTANT`) or holds NaN or an infinity.
    """
    x = layer.double()
    if x.numel() == 0:
        return x
    x = x / x.abs().amax()
    centred = x - x.mean(0)
    spread = (centred * centred).sum()
    if not bool(varies(spread, (x * x).sum())):
        return torch.full_like(x, torch.nan)
    return centred / spread.sqrt()


def jackknife_error(estimates: Tensor) -> Tensor:
    """Return the delete-one jackknife's standard error of a statistic (Efron and Stein 1981).

    Args:
        estimates: the statistic without each of the n rows in turn, shape (n, ...).

    Returns:
        sqrt((n - 1) / n sum (estimate - mean)^2), of the shape of one estimate.
    """
    return ((len(estimates) - 1) * estimates.var(0, correction=0)).sqrt()
