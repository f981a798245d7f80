"""Memory kept from batch to batch, instead of given back to the system and fetched again."""

from __future__ import annotations

import ctypes
import math
import sys

import torch
from torch import Tensor


class Workspace:
    """Tensors by name, taken again and again in changing shapes.

    A large block of freed memory goes back to the system, and the first touch of a fresh block costs more than the
    sums computed in it.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[str, torch.dtype, torch.device], Tensor] = {}

    def take(self, name: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return a contiguous tensor; it holds what the last use of this name, type and device left there."""
        size = math.prod(shape)
        key = (name, dtype, device)
        kept = self._kept.get(key)
        if kept is None or len(kept) < size:
            # Drop the old one first, so that it and the larger one need not fit side by side.
            self._kept.pop(key, None)
            kept = self._kept[key] = torch.empty(size, dtype=dtype, device=device)
        return kept[:size].view(shape)


def give_back_memory() -> None:
    """Give freed memory back to the system where the C library keeps it for later: glibc does, in a heap per thread."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
