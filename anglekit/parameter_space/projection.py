"""A random projection of long gradients that keeps their inner products: a count sketch."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

_LARGEST: Final = 2**62


class Projection:
    """Maps gradients, parameter by parameter, to a few dimensions.

    Each coordinate gets a random sign; a parameter's coordinates are cut into pieces as long as the projection, each
    piece is turned by a random offset, and the pieces are added up. So two coordinates of different pieces meet with
    probability 1 / d and those of one piece never do. The estimate of an inner product is unbiased and its variance at
    most (|x|^2 |y|^2 + <x, y>^2) / d; that of a cosine c is (1 - c^2)^2 / d (Charikar, Chen and Farach-Colton 2002;
    Weinberger et al. 2009, arXiv 0902.2206). It costs one pass over the gradient.

    The same seed gives the same projection, so gradients that were measured apart can be compared.

    Args:
        dimensions: d, at least 1.
        seed: of signs and offsets.
    """

    def __init__(self, dimensions: int, seed: int = 0) -> None:
        self.dimensions = dimensions
        self._seed = seed
        self._signs: dict[int, Tensor] = {}
        self._offsets: dict[int, list[int]] = {}

    def __call__(self, place: int, gradient: Tensor, into: Tensor) -> None:
        """Add the projection of a parameter's gradient to `into`.

        Args:
            place: the parameter's own number, which chooses its signs.
            gradient: of any shape, on the CPU.
            into: (d,), to which the projection is added.
        """
        flat = gradient.reshape(-1)
        if place not in self._signs:
            self._draw(place, len(flat))
        flat = flat * self._signs[place]
        size = self.dimensions
        for piece, offset in zip(torch.split(flat, size), self._offsets[place], strict=True):
            # A piece that is turned lies in two parts of the projection; the last one may be shorter than one.
            first = min(len(piece), size - offset)
            into[offset : offset + first] += piece[:first]
            into[: len(piece) - first] += piece[first:]

    def _draw(self, place: int, length: int) -> None:
        generator = torch.Generator().manual_seed((self._seed * 1_000_003 + place) % _LARGEST)
        bits = torch.randint(0, 2, (length,), generator=generator, dtype=torch.int8)
        self._signs[place] = bits.mul_(2).sub_(1)
        pieces = -(-length // self.dimensions)
        self._offsets[place] = torch.randint(0, self.dimensions, (pieces,), generator=generator).tolist()
