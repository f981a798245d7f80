"""Anisotropy: how much of a cosine is a layer's common direction or a few dimensions; pure functions on a sample.

A layer is anisotropic where the states of unrelated tokens point the same way (Ethayarajh 2019, arXiv 1909.00512),
often because of one or two dimensions (Timkey and van Schijndel 2021, arXiv 2109.04404). Then every cosine is high, for
a reason that has nothing to do with what is compared. The same cosines are therefore looked at after each layer's mean
is taken out, after each dimension is standardised as well, and without the dominant dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from anglekit.vocabulary import VIEWS, View

#: How many dimensions `dropped` leaves out.
DOMINANT_DIMENSIONS = 3

# Bytes of float64 states that are worked on at once.
_GROUP_BYTES = 4 << 20


@dataclass(frozen=True)
class Anisotropy:
    """The cosine between the states of two tokens of different examples, and what it is made of.

    Attributes:
        mean_cosine: over all pairs of tokens, float64 (layers,); NaN below two tokens.
        se: its standard error, tokens being independent, (layers,).
        share: each dimension's share of the mean cosine, summing to 1, (layers, width). Where the mean cosine is near 0
            shares are large and of both signs.
    """

    mean_cosine: Tensor
    se: Tensor
    share: Tensor

    def of(self, layers: slice) -> Anisotropy:
        """Return what was found of some of the layers."""
        return Anisotropy(self.mean_cosine[layers], self.se[layers], self.share[layers])


def anisotropy(states: Tensor) -> Anisotropy:
    """Return the anisotropy of layers from one token of each example.

    Args:
        states: shape (layers, tokens, width), each token of another example; zero states have no direction and count
            as a cosine of 0.
    """
    layers, n, width = states.shape
    mean, se = (states.new_full((layers,), torch.nan, dtype=torch.float64) for _ in range(2))
    share = states.new_full((layers, width), torch.nan, dtype=torch.float64)
    if n < 2:
        return Anisotropy(mean, se, share)
    # As many layers at a time as stay near the processor; fewer would cost more in calls than they save.
    step = max(1, _GROUP_BYTES // (n * width * 8))
    for first in range(0, layers, step):
        here = slice(first, first + step)
        x = states[here].double()
        square = x * x
        squared = square.sum(2)
        inverse = torch.where(squared == 0, 0.0, squared.rsqrt())
        total = (inverse.unsqueeze(1) @ x).squeeze(1)
        contribution = total * total - ((inverse * inverse).unsqueeze(1) @ square).squeeze(1)
        pair_sum = contribution.sum(1)
        mean[here] = pair_sum / (n * (n - 1))
        share[here] = contribution / pair_sum.unsqueeze(1)
        # Each token's mean cosine with the others; the mean over pairs varies with twice their mean (U-statistic).
        own = (inverse * (x @ total.unsqueeze(2)).squeeze(2) - inverse * inverse * squared) / (n - 1)
        se[here] = 2 * own.std(1) / n**0.5
    return Anisotropy(mean, se, share)


def dominant_dimensions(found: Anisotropy, count: int = DOMINANT_DIMENSIONS) -> Tensor:
    """Return the dimensions that add most to the cosines between examples, over all layers.

    One set for all layers, because a difference of two layers needs one space.

    Args:
        found: the anisotropy of the raw states of all layers of a space.
        count: how many; at most all but one.

    Returns:
        int64 (count,), the largest first.
    """
    # What a dimension adds, not its share: shares of a cosine of nearly 0 are large and say nothing.
    size = (found.share * found.mean_cosine.unsqueeze(1)).nan_to_num(0.0).abs().sum(0)
    return size.topk(min(count, len(size) - 1)).indices


def transformed(states: Tensor, view: View, dropped: Tensor | None = None) -> Tensor:
    """Return states in another view, float64.

    Args:
        states: shape (layers, tokens, width).
        view: `raw`; `centred`: each layer's mean over the tokens taken out; `standardised`: each dimension of a layer
            divided by its standard deviation as well (one that does not vary becomes 0); `dropped`: without the
            dimensions `dropped`.
        dropped: which to leave out, int64 (dimensions,).

    Returns:
        Shape (layers, tokens, width), `dropped` with as many dimensions less.

    Raises:
        KeyError: an unknown view.
    """
    if view not in VIEWS:
        raise KeyError(view)
    if view == "dropped":
        kept = torch.ones(states.shape[-1], dtype=torch.bool, device=states.device)
        kept[dropped] = False
        return states[..., kept].double()
    x = states.double()
    if view == "raw":
        return x
    x = x - x.mean(1, keepdim=True)
    if view == "standardised":
        deviation = torch.linalg.vector_norm(x, dim=1, keepdim=True) / max(x.shape[1], 1) ** 0.5
        still = deviation <= 1e-12 * deviation.amax(-1, keepdim=True)
        x *= torch.where(still, 0.0, 1 / deviation)
    return x
