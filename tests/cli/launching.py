"""Starts a command in several processes, as a launcher would, and collects what they print."""

from __future__ import annotations

import atexit
import functools
import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import NamedTuple

import pytest

#: How many processes share one work. `make processes` tries more: from two to three nothing new happens.
COUNTS = (1, 2, 3, 4) if "ANGLEKIT_PROCESSES" in os.environ else (1, 3)

# Seconds until processes are given up for hanging; a machine that has much else to do takes long.
_PATIENCE = 600

#: What starts a launcher of its own, which imports everything once for itself and once for each process.
needs_launcher = pytest.mark.skipif(
    "ANGLEKIT_PROCESSES" not in os.environ, reason="more launches have a target of their own: make processes"
)


class Ended(NamedTuple):
    code: int
    out: str
    err: str


@functools.cache
def launcher() -> subprocess.Popen[str]:
    """Return the interpreter that launches processes, which have everything imported; it ends with its input."""
    command = [sys.executable, "-W", "error::UserWarning", Path(__file__).parent / "launched.py"]
    own = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
    started = subprocess.Popen(command, env=own, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(_end, started)
    return started


def _end(started: subprocess.Popen[str]) -> None:
    # Nobody waits for an answer any more, and a process that hangs must not keep the tests from ending.
    for stream in (started.stdin, started.stdout):
        if stream is not None:
            stream.close()
    started.kill()
    started.wait()


def together(count: int, *arguments: object, folder: Path, second: Path | None = None) -> list[Ended]:
    """Run the command in so many processes, as a launcher would, and wait for all of them.

    Args:
        count: the processes.
        arguments: of the command.
        folder: where they run.
        second: where the second one runs instead.
    """
    server = launcher()
    assert server.stdin is not None
    assert server.stdout is not None
    with tempfile.TemporaryDirectory() as streams:
        places = {"folder": str(folder), "second": str(second or folder), "streams": streams}
        asked = {"count": count, **places, "arguments": list(map(str, arguments))}
        server.stdin.write(json.dumps(asked) + "\n")
        server.stdin.flush()
        patience = threading.Timer(_PATIENCE, server.kill)
        patience.start()
        answer = server.stdout.readline()
        patience.cancel()
        if not answer:
            launcher.cache_clear()
            pytest.fail(f"the processes did not end within {_PATIENCE} seconds")
        codes = json.loads(answer)
        printed = [[(Path(streams) / f"{rank}.{name}").read_text() for name in ("out", "err")] for rank in range(count)]
    return [Ended(code, *texts) for code, texts in zip(codes, printed, strict=True)]
