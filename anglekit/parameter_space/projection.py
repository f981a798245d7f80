"""A random projection of long gradients that keeps their inner products: a count sketch in two stages."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, from_numpy

from anglekit.parameter_space.settings import PATTERNS, PIECES


class Projection:
    """Maps gradients, parameter by parameter, to a few dimensions.

    The coordinates are cut into pieces 16 d long, so long that a call costs little beside their numbers. Each piece
    gets one of four random patterns of signs, or its opposite, is turned by a random offset, and the pieces are added
    up. What they add up to is cut into 16 pieces d long, which are added up in the same way, each under its own signs.
    So in a stage two coordinates of different pieces meet with one over its width as their probability, under signs
    that agree as often as not; those of one piece never meet.

    The estimate of an inner product is unbiased. A stage of width w with k patterns adds at most (1 + 1/k) / w of
    |x|^2 |y|^2 + <x, y>^2 to its variance, so both add at most 1.08 / d, and a little more of a higher order; the
    standard error of a cosine c is at most 1.04 (1 - c^2) / sqrt(d). After Charikar, Chen and Farach-Colton 2002 and
    Weinberger et al. 2009 (arXiv 0902.2206), who draw each coordinate's sign and place by itself; pieces cost one pass
    over the gradient.

    The same seed gives the same projection, so gradients that were measured apart can be compared.

    Args:
        dimensions: d, at least 1.
        seed: of signs and offsets.
    """

    def __init__(self, dimensions: int, seed: int = 0) -> None:
        self.dimensions = dimensions
        self._seed = seed
        rng = np.random.default_rng([seed, 0])
        self._wide = _Fold(dimensions * PIECES, _signs(rng, PATTERNS, dimensions * PIECES))
        self._narrow = _Fold(dimensions, _signs(rng, PIECES, dimensions))
        self._last = np.arange(PIECES).tolist(), rng.integers(0, dimensions, PIECES).tolist()
        self._draws: dict[int, tuple[list[int], list[int]]] = {}

    def __call__(self, gradients: Iterable[tuple[int, Tensor]]) -> Tensor:
        """Return the projection of a gradient.

        Args:
            gradients: of each parameter its own number, which chooses its signs and offsets, and its gradient of any
                shape, float32 on the CPU. What is left out counts as zero.

        Returns:
            (d,), float32.
        """
        for place, gradient in gradients:
            flat: NDArray[np.float32] = gradient.detach().reshape(-1).numpy()
            self._wide.add(flat, *self._drawn(place, self._wide.pieces(len(flat))))
        self._narrow.add(self._wide.taken(), *self._last)
        return from_numpy(self._narrow.taken())

    def _drawn(self, place: int, pieces: int) -> tuple[list[int], list[int]]:
        """Return for each piece of a parameter its pattern and its offset."""
        if place not in self._draws:
            rng = np.random.default_rng([self._seed, 1, place])
            patterns, offsets = (rng.integers(0, bound, pieces).tolist() for bound in (2 * PATTERNS, self._wide.width))
            self._draws[place] = patterns, offsets
        return self._draws[place]


class _Fold:
    """Adds up the pieces of long vectors, each under signs and turned.

    Args:
        width: of a piece and of the sum.
        signs: (patterns, width), float32.
    """

    def __init__(self, width: int, signs: NDArray[np.float32]) -> None:
        self.width = width
        self._signs = signs
        self._piece = np.empty(width, dtype=np.float32)
        # A turned piece reaches past the width: what lies there belongs at the beginning.
        self._sum = np.zeros(2 * width, dtype=np.float32)

    def pieces(self, length: int) -> int:
        """Return how many pieces a vector has."""
        return -(-length // self.width)

    def add(self, vector: NDArray[np.float32], patterns: Iterable[int], offsets: Iterable[int]) -> None:
        """Add the pieces of a vector, each under the signs of its pattern, turned by its offset."""
        starts = range(0, len(vector), self.width)
        for start, pattern, offset in zip(starts, patterns, offsets, strict=True):
            taken = vector[start : start + self.width]
            length = len(taken)
            piece = np.multiply(taken, self._signs[pattern, :length], out=self._piece[:length])
            self._sum[offset : offset + length] += piece

    def taken(self) -> NDArray[np.float32]:
        """Return the sum, (width,), and begin another."""
        found = self._sum[: self.width] + self._sum[self.width :]
        self._sum[:] = 0.0
        return found


def _signs(rng: np.random.Generator, patterns: int, width: int) -> NDArray[np.float32]:
    """Return random signs and their opposites, (2 patterns, width)."""
    drawn = (rng.integers(0, 2, (patterns, width)) * 2 - 1).astype(np.float32)
    return np.concatenate([drawn, -drawn])
