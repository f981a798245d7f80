"""Memory that is kept from batch to batch instead of being given back to the system and fetched again."""

from __future__ import annotations

import ctypes
import gc
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

__all__ = ["Workspace", "keep_freed_memory", "only_new_garbage"]

# glibc's malloc.h: the size from which a block is mapped on its own, and the free end of the heap that is given back.
_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1
_LARGEST_KEPT_BLOCK = 1 << 30
_NEVER = (1 << 31) - 1

# Held while a block of `only_new_garbage` has everything else set aside.
_set_aside = threading.Lock()


class Workspace:
    """Tensors by name, taken again and again in changing shapes.

    A large block of memory that is freed goes back to the system, and the first touch of a fresh one costs more than
    the sums that are made in it.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[str, torch.dtype, torch.device], Tensor] = {}

    def take(self, name: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return a contiguous tensor that holds whatever the last use of its name, type and device left there."""
        size = math.prod(shape)
        key = (name, dtype, device)
        kept = self._kept.get(key)
        if kept is None or len(kept) < size:
            # Dropped first, so that the old and the larger one need not fit side by side.
            self._kept.pop(key, None)
            kept = self._kept[key] = torch.empty(size, dtype=dtype, device=device)
        return kept[:size].view(shape)


def keep_freed_memory() -> bool:
    """Let the C library keep the large blocks that passes and steps free for the next ones; whether it will.

    glibc maps every large block afresh and gives it back when freed: a training step of BERT's size then spends about
    a tenth of its time, a forward pass a twentieth, on touching the same pages again and again. It is a setting of the
    whole process. Other C libraries, and systems without one, are left as they are.
    """
    try:
        library = ctypes.CDLL(None)
    except (OSError, TypeError):
        return False
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    mallopt = library.mallopt
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT_BLOCK)) and bool(mallopt(_TRIM_THRESHOLD, _NEVER))


@contextmanager
def only_new_garbage() -> Iterator[None]:
    """Let the garbage collector look only at what comes to be inside the block.

    A full round of it walks every object of every imported module, a quarter of a second where torch, transformers and
    pandas are loaded, and the lists of tokens of a thousand texts set one off every few analyses. Afterwards everything
    is in its care as before. A process that has set objects aside by itself is left as it is.
    """
    # Within another block the question would be answered by counting all that the other one set aside.
    if _set_aside.locked() or gc.get_freeze_count() or not _set_aside.acquire(blocking=False):
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        _set_aside.release()
