"""Logits of a large vocabulary that are not made as a whole: the states that enter a head, and the head."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, eq=False)
class HeadLogits:
    """What stands for logits until a loss reads rows of them.

    Attributes:
        states: what enters the head, (..., width).
        weight: of the head, (vocabulary, width).
        bias: of the head, (vocabulary,); None where it has none.
    """

    states: Tensor
    weight: Tensor
    bias: Tensor | None = None

    @property
    def shape(self) -> torch.Size:
        """That of the logits, (..., vocabulary)."""
        return torch.Size((*self.states.shape[:-1], len(self.weight)))

    @property
    def device(self) -> torch.device:
        """Where the logits would be."""
        return self.states.device

    def numel(self) -> int:
        """Return how many logits there would be."""
        return self.shape.numel()

    def dim(self) -> int:
        """Return how many dimensions they would have."""
        return self.states.dim()

    def first(self, classes: int) -> HeadLogits:
        """Return those of the first classes."""
        return HeadLogits(self.states, self.weight[:classes], None if self.bias is None else self.bias[:classes])

    def made(self) -> Tensor:
        """Return the logits."""
        return F.linear(self.states, self.weight, self.bias)


#: Logits, made or not.
Logits = Tensor | HeadLogits


def made(logits: Logits) -> Tensor:
    """Return the logits as a tensor, (..., classes)."""
    return logits.made() if isinstance(logits, HeadLogits) else logits
