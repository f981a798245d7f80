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


def together(count: int, *arguments: object, folder: Path) -> list[Ended]:
    """Run the command in so many processes, as a launcher would, and wait for all of them."""
    server = launcher()
    assert server.stdin is not None
    assert server.stdout is not None
    with tempfile.TemporaryDirectory() as streams:
        asked = {"count": count, "folder": str(folder), "streams": streams, "arguments": list(map(str, arguments))}
        server.stdin.write(json.dumps(asked) + "\n")
        server.stdin.flush()
        patience = threading.Timer(180, server.kill)
        patience.start()
        answer = server.stdout.readline()
        patience.cancel()
        assert answer, "the processes did not end within three minutes"
        codes = json.loads(answer)
        printed = [[(Path(streams) / f"{rank}.{name}").read_text() for name in ("out", "err")] for rank in range(count)]
    return [Ended(code, *texts) for code, texts in zip(codes, printed, strict=True)]
