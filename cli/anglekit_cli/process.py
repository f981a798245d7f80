"""What the command line sets for the whole process, which is its own; the library leaves a process as it finds it."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager

# glibc's malloc.h: the size from which a block is mapped on its own, and the free end of the heap that is given back.
_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1
_LARGEST_KEPT_BLOCK = 1 << 30
_NEVER = (1 << 31) - 1


def keep_freed_memory() -> bool:
    """Let the C library keep the large blocks that passes and steps free for the next ones; return whether it will.

    glibc maps every large block afresh and gives it back when freed: a training step of BERT's size then spends about
    a tenth of its time, a forward pass a twentieth, on touching the same pages again and again. Other C libraries, and
    systems without one, are left as they are.
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
    """Let the garbage collector look only at what comes to be inside the block; afterwards at everything again.

    A full round of it walks every object of every imported module, a quarter of a second where torch, transformers and
    pandas are loaded, and the lists of tokens of a thousand texts set one off every few analyses.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
