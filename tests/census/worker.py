"""Judges one model type after the other: a name a line on standard input, a JSON line each on standard output.

A type may take all memory, or end the process: the limits are its own, and `run.py` starts another one.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

# Address space, of which torch maps a part that it never touches.
_MOST_BYTES: Final = 12 << 30


def main() -> None:
    """Answer until the input ends."""
    # What libraries print must not come between the lines.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    with suppress(ImportError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MOST_BYTES, _MOST_BYTES))
    import torch
    from transformers.utils import logging as transformers_logging

    from tests.census.verdicts import judge

    torch.set_num_threads(1)
    logging.disable(logging.CRITICAL)
    transformers_logging.set_verbosity(logging.CRITICAL)
    transformers_logging.disable_progress_bar()
    for line in sys.stdin:
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            row = judge(line.strip(), Path(folder))
        row["seconds"] = round(time.perf_counter() - start, 2)
        answers.write(json.dumps(row) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
