"""What transformers and accelerate write on the terminal, kept off it where it would mislead."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep reports of loading and passes off the terminal: missing weights are an error here, a short text is none."""
    from transformers.utils import logging as transformers_logging

    level = transformers_logging.get_verbosity()
    bar = transformers_logging.is_progress_bar_enabled()
    # That some weights are on the disk is what was asked for.
    accelerate = logging.getLogger("accelerate")
    before = accelerate.level
    if level == logging.CRITICAL and not bar and before >= logging.ERROR:
        # Setting a level empties the caches of all loggers there are.
        yield
        return
    transformers_logging.set_verbosity(logging.CRITICAL)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    accelerate.setLevel(logging.ERROR)
    try:
        yield
    finally:
        accelerate.setLevel(before)
        transformers_logging.set_verbosity(level)
        if bar:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
