"""What the command line sets for its whole process; the library itself changes nothing process-wide."""

from __future__ import annotations

import ctypes
import gc
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from anglekit.errors import ReaderWarning

# glibc's malloc.h: the size from which a block is mapped on its own, and the free end of the heap that is given back.
_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1
_LARGEST_KEPT_BLOCK = 1 << 30
_NEVER = (1 << 31) - 1


def keep_freed_memory() -> bool:
    """Let the C library keep freed large blocks for the next passes and steps; return whether it will.

    By default glibc maps every large block afresh and returns it when freed. At BERT's size a training step then spends
    about a tenth of its time, a forward pass a twentieth, on touching the same pages again and again. Other C
    libraries, and systems without one, are left as they are.
    """
    try:
        library = ctypes.CDLL(None)
    except (OSError, TypeError):
        return False
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    mallopt = library.mallopt
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT_BLOCK)) and bool(mallopt(_TRIM_THRESHOLD, _NEVER))


def print_warnings_plainly() -> None:
    """Print our own warnings as one line, without the place in the code that they come from."""
    usual = warnings.formatwarning

    def plain(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
    ) -> str:
        if issubclass(category, ReaderWarning):
            return f"warning: {' '.join(str(message).split())}\n"
        return usual(message, category, filename, lineno, line)

    warnings.formatwarning = plain


def log_each_message_once() -> None:
    """Let Python's logging of last resort print each message once, whoever repeats it.

    bitsandbytes logs for each layer of 8-bit weights in each pass that float32 is cast. A library with a handler of its
    own is not touched.
    """
    if logging.lastResort is not None:
        printed: set[str] = set()

        def is_new(record: logging.LogRecord) -> bool:
            before = len(printed)
            printed.add(record.getMessage())
            return len(printed) > before

        logging.lastResort.addFilter(is_new)


@contextmanager
def only_new_garbage() -> Iterator[None]:
    """Let the garbage collector look only at objects created inside the block; afterwards at everything again.

    A full collection walks every object of every imported module: a quarter of a second with torch, transformers and
    pandas loaded. The token lists of a thousand texts trigger one every few analyses.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
