"""A random projection of long gradients that keeps their inner products: a count sketch."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

# Patterns of signs: few enough to stay in the cache, so many that pieces seldom share one.
_PATTERNS: Final = 64


class Projection:
    """Maps gradients, parameter by parameter, to a few dimensions.

    A parameter's coordinates are cut into pieces as long as the projection; each piece gets one of 64 random patterns
    of signs, or its opposite, is turned by a random offset, and the pieces are added up. So two coordinates of
    different pieces meet with probability 1 / d, under signs that agree as often as not; those of one piece never meet.
    The estimate of an inner product is unbiased, its variance at most (1 + 1/64) (|x|^2 |y|^2 + <x, y>^2) / d; that of
    a cosine c is (1 - c^2)^2 / d. After Charikar, Chen and Farach-Colton 2002 and Weinberger et al. 2009 (arXiv
    0902.2206), who draw each coordinate's sign and place by itself; pieces cost one pass over the gradient.

    The same seed gives the same projection, so gradients that were measured apart can be compared.

    Args:
        dimensions: d, at least 1.
        seed: of signs and offsets.
    """

    def __init__(self, dimensions: int, seed: int = 0) -> None:
        self.dimensions = dimensions
        self._seed = seed
        signs = np.random.default_rng([seed, 0]).integers(0, 2, (_PATTERNS, dimensions)) * 2.0 - 1.0
        self._patterns = np.concatenate([signs, -signs]).astype(np.float32)
        self._piece = np.empty(dimensions, dtype=np.float32)
        self._draws: dict[int, tuple[list[int], list[int]]] = {}

    def __call__(self, place: int, gradient: Tensor, into: Tensor) -> None:
        """Add the projection of a parameter's gradient to `into`.

        Args:
            place: the parameter's own number, which chooses its signs and offsets.
            gradient: of any shape, float32 on the CPU.
            into: (d,), float32 on the CPU, to which the projection is added.
        """
        flat: NDArray[np.float32] = gradient.detach().reshape(-1).numpy()
        target: NDArray[np.float32] = into.numpy()
        size = self.dimensions
        patterns, offsets = self._drawn(place, -(-len(flat) // size))
        for start, pattern, offset in zip(range(0, len(flat), size), patterns, offsets, strict=True):
            length = min(size, len(flat) - start)
            piece = self._piece[:length]
            np.multiply(flat[start : start + length], self._patterns[pattern, :length], out=piece)
            # A piece that is turned lies in two parts of the projection; the last one may be shorter than one.
            first = min(length, size - offset)
            target[offset : offset + first] += piece[:first]
            target[: length - first] += piece[first:]

    def _drawn(self, place: int, pieces: int) -> tuple[list[int], list[int]]:
        """Return for each piece of a parameter its pattern and its offset."""
        if place not in self._draws:
            rng = np.random.default_rng([self._seed, 1, place])
            patterns, offsets = (rng.integers(0, bound, pieces).tolist() for bound in (2 * _PATTERNS, self.dimensions))
            self._draws[place] = patterns, offsets
        return self._draws[place]
