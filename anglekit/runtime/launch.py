"""Whether other processes work beside this one; free of torch, so that a command can ask before it loads anything."""

from __future__ import annotations

import os


def launched_together() -> bool:
    """Return whether `accelerate launch` or `torchrun` started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1") or 1) > 1
