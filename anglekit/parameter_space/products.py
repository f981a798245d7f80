"""Cosines between mean gradients, with intervals over groups of examples."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anglekit.parameter_space.settings import FEWEST_GROUPS
from anglekit.results.student_t import t_quantile

Floats = NDArray[np.float64]

# Numbers of all vectors that are read at a time: 8 MB in double precision, which stay in the cache.
_PIECE: Final = 2**20
# Coordinates of a block: many small products run faster than one of few long rows.
_BLOCK: Final = 1024


@dataclass(frozen=True, eq=False)
class GradientProducts:
    """Inner products between the gradients of several losses, summed over groups of examples.

    With g_b(v) the gradient of loss v on group b and s(v) = sum over b of g_b(v):

    Attributes:
        total: <s(v), s(w)>, (losses, losses).
        crossed: <s(v), g_b(w)>, (groups, losses, losses).
        own: <g_b(v), g_b(w)>, (groups, losses, losses).
    """

    total: Floats
    crossed: Floats
    own: Floats

    def __add__(self, other: GradientProducts) -> GradientProducts:
        """Return the products over both parts of the weights."""
        return GradientProducts(self.total + other.total, self.crossed + other.crossed, self.own + other.own)

    def combined(self, weights: Floats) -> GradientProducts:
        """Return the products between weighted sums of losses.

        Args:
            weights: (new losses, losses).
        """
        return GradientProducts(*(weights @ each @ weights.T for each in (self.total, self.crossed, self.own)))


@dataclass(frozen=True, eq=False)
class GradientCosines:
    """Cosines between mean gradients; every array is (losses, losses).

    Attributes:
        cosine: between the mean gradients over the examples at hand.
        expected: between the gradients expected over all examples of the kind. The mean of few examples holds noise,
            which two losses on the same examples share, so that `cosine` is drawn towards the noise's; products of
            different groups have none of it. NaN where the noise is larger than the gradient.
        standard_error: of `expected`, from the jackknife over groups.
        lower: end of its 95% interval.
        upper: its other end.
        norms: length of the gradient that the groups add up to, (losses,).
    """

    cosine: Floats
    expected: Floats
    standard_error: Floats
    lower: Floats
    upper: Floats
    norms: Floats


def gradient_products(groups: Sequence[Sequence[Tensor] | Tensor]) -> GradientProducts:
    """Return the products of gradients in one part of the weights.

    Args:
        groups: for each group of examples its share of each loss's gradient, (weights,), float32 or float64; those of
            all groups add up to the gradients of the probe.

    Returns:
        Products in double precision.
    """
    losses, width = len(groups[0]), groups[0][0].numel()
    crossed, own = (torch.zeros((len(groups), losses, losses), dtype=torch.float64) for _ in range(2))
    piece = min(max(_PIECE // (len(groups) * losses) // _BLOCK, 1), -(-width // _BLOCK))
    read = torch.zeros((len(groups), piece, losses, _BLOCK), dtype=torch.float64)
    for first in range(0, width, piece * _BLOCK):
        for place, group in enumerate(groups):
            for loss, vector in enumerate(group):
                _fill(read[place, :, loss], vector[first : first + piece * _BLOCK])
        summed = read.sum(0)
        for place, part in enumerate(read):
            crossed[place] += _inner(summed, part)
            own[place] += _inner(part, part)
    return GradientProducts(crossed.sum(0).numpy(), crossed.numpy(), own.numpy())


def _fill(blocks: Tensor, vector: Tensor) -> None:
    """Copy a vector into (blocks, coordinates), zeros behind it."""
    full = len(vector) // _BLOCK
    blocks[:full] = vector[: full * _BLOCK].view(full, _BLOCK)
    if full < len(blocks):
        blocks[full:] = 0.0
        blocks[full, : len(vector) % _BLOCK] = vector[full * _BLOCK :]


def summed_products(parts: Iterable[GradientProducts]) -> GradientProducts:
    """Return the products over all parts of the weights; there is at least one."""
    return reduce(operator.add, parts)


def _inner(one: Tensor, other: Tensor) -> Tensor:
    """Return inner products over all blocks, (losses, losses) of (blocks, losses, coordinates)."""
    return torch.bmm(one, other.mT).sum(0)


def gradient_cosines(products: GradientProducts) -> GradientCosines:
    """Return cosines of mean gradients, and of expected ones with their 95% intervals.

    The expected products are the U-statistic, the mean over pairs of different groups; the interval is the jackknife's
    (Efron and Stein 1981) with Student's t of one less than the groups. With fewer than three groups there is none.
    """
    total, crossed, own = products.total, products.crossed, products.own
    groups = len(own)
    cosine = _cosine(total)
    # The sum over pairs of different groups of <g_b(v), g_c(w)>.
    apart = total - own.sum(0)
    expected = _cosine(apart)
    missing = np.full_like(cosine, np.nan)
    norms = np.sqrt(np.maximum(np.diag(total), 0.0))
    if groups < FEWEST_GROUPS:
        return GradientCosines(cosine, missing, missing, missing, missing, norms)
    # Without group b: <s - g_b, s - g_b> less the own products of those that are left.
    without = total - crossed - crossed.transpose(0, 2, 1) + own - (own.sum(0) - own)
    left_out = np.stack([_cosine(each) for each in without])
    spread = left_out - left_out.mean(0)
    error = np.sqrt((groups - 1) / groups * (spread**2).sum(0))
    reach = t_quantile(0.975, groups - 1) * error
    unknown = np.isnan(expected) | np.isnan(error)
    lower = np.where(unknown, -1.0, np.clip(expected - reach, -1.0, 1.0))
    upper = np.where(unknown, 1.0, np.clip(expected + reach, -1.0, 1.0))
    # Noise can lift an estimate above 1, which no cosine is; the interval is made from the estimate as it was.
    return GradientCosines(cosine, np.clip(expected, -1.0, 1.0), np.where(unknown, np.nan, error), lower, upper, norms)


def grace_score(gradients: Floats, *, splits: int = 10, smoothing: float = 1e-3, seed: int = 0) -> float:
    """Return GRACE of gradients: how foreign what some examples ask for is to the others; lower is better.

    For random tenths: trace(inverse(A) B) with B the second moment of the tenth's gradients and A that of the others',
    each scaled to length 1, with eigenvalues drawn by `smoothing` towards their mean. The definition is that of
    Panigrahi et al. 2025, arXiv 2511.02833, and their program, of a language model's gradients on a teacher's texts.

    Args:
        gradients: (examples or groups, dimensions), at least ten rows.
        splits: random tenths that are averaged over.
        smoothing: share of the mean eigenvalue.
        seed: of the splits.
    """
    rows, width = gradients.shape
    tenth = max(1, rows // 10)
    scores = []
    for split in range(splits):
        order = np.random.default_rng(seed + split).permutation(rows)
        tested, others = gradients[order[:tenth]], gradients[order[tenth:]]
        lengths = np.linalg.norm(others, axis=1, keepdims=True)
        scaled = others / np.maximum(lengths, np.finfo(np.float64).tiny)
        moment = scaled.T @ scaled / len(scaled)
        values, vectors = np.linalg.eigh(moment)
        values = np.maximum(values, 0.0)
        smoothed = (1.0 - smoothing) * values + smoothing * values.sum() / width
        turned = tested @ vectors
        scores.append(float(((turned**2).sum(0) / len(tested) / smoothed).sum()))
    return float(np.mean(scores))


def combinations(names: Sequence[str], sums: Mapping[str, Mapping[str, float]]) -> tuple[list[str], Floats]:
    """Return the names of losses and of weighted sums of them, and the weights that make all of these.

    Args:
        names: of the losses.
        sums: by name of a sum, the weights of its losses.

    Returns:
        The names, sums first, and (sums + losses, losses).
    """
    rows = [[of.get(name, 0.0) for name in names] for of in sums.values()]
    identity = np.eye(len(names))
    return [*sums, *names], np.concatenate([np.asarray(rows, dtype=np.float64).reshape(-1, len(names)), identity])


def _cosine(products: Floats) -> Floats:
    """Return cosines of a matrix of inner products; NaN where a squared length is not above 0."""
    squares = np.diag(products)
    lengths = np.sqrt(np.where(squares > 0.0, squares, np.nan))
    found: Floats = products / np.outer(lengths, lengths)
    return found
