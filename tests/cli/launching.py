"""Starts commands in processes of their own, several as a launcher would, and collects what they print.

They are forks of this process as it is before the first test: everything is imported, and no test has left anything.
"""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import functools
import gc
import json
import logging
import os
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

import pytest

from tests.benchmarks.kill_resume import Job, import_everything, start

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


class _Server(NamedTuple):
    """The process that forks others on request: its number, and the pipes to and from it."""

    process: int
    requests: IO[str]
    answers: IO[str]


@functools.cache
def server() -> _Server:
    """Return the process that starts the others; conftest.py has it forked before the first test runs."""
    theirs, requests = os.pipe()
    answers, ours = os.pipe()
    with warnings.catch_warnings():
        # Python 3.12 warns of the thread that hears what xdist has to say, which no fork needs.
        warnings.simplefilter("ignore", DeprecationWarning)
        process = os.fork()
    if process == 0:
        try:
            _serve(theirs, ours)
        finally:
            os._exit(0)
    os.close(theirs)
    os.close(ours)
    started = _Server(process, os.fdopen(requests, "w"), os.fdopen(answers))
    atexit.register(_end, started)
    return started


def _end(started: _Server) -> None:
    # Nobody waits for an answer any more, and a process that hangs must not keep the tests from ending.
    started.requests.close()
    started.answers.close()
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        os.kill(started.process, signal.SIGKILL)
        os.waitpid(started.process, 0)


# ---- in the tests ----


@dataclass(frozen=True)
class Started:
    """Processes that were started together: their numbers, by rank, and where what they print is kept."""

    processes: list[int]
    streams: tempfile.TemporaryDirectory[str]

    def wait(self) -> list[Ended]:
        """Wait for all of them and return how they ended."""
        codes = _answer()
        with self.streams as folder:
            printed = [
                [(Path(folder) / f"{rank}.{name}").read_text(encoding="utf-8") for name in ("out", "err")]
                for rank in range(len(codes))
            ]
        return [Ended(code, *texts) for code, texts in zip(codes, printed, strict=True)]


def begin(
    count: int,
    *arguments: object,
    folder: Path,
    second: Path | None = None,
    program: str = "anglekit_cli.main:main",
    environment: Mapping[str, str] | None = None,
) -> Started:
    """Start the command in so many processes, as a launcher would; the next is started when they have ended.

    Args:
        count: the processes.
        arguments: of the command.
        folder: where they run.
        second: where the second one runs instead.
        program: the function that they run, as `module:name`.
        environment: what their environment has beside that of the tests.
    """
    streams = tempfile.TemporaryDirectory()
    places = {"folder": str(folder), "second": str(second or folder), "streams": streams.name}
    what = {"program": program, "environment": dict(environment or {}), "arguments": list(map(str, arguments))}
    asked = server().requests
    asked.write(json.dumps({"count": count, **places, **what}) + "\n")
    asked.flush()
    return Started(_answer(), streams)


def together(count: int, *arguments: object, folder: Path, second: Path | None = None) -> list[Ended]:
    """Run the command in so many processes, as a launcher would, and wait for all of them; see `begin`."""
    return begin(count, *arguments, folder=folder, second=second).wait()


def _answer() -> list[int]:
    started = server()
    patience = threading.Timer(_PATIENCE, os.kill, (started.process, signal.SIGKILL))
    patience.start()
    answer = started.answers.readline()
    patience.cancel()
    if not answer:
        server.cache_clear()
        pytest.fail(f"the processes did not end within {_PATIENCE} seconds")
    codes: list[int] = json.loads(answer)
    return codes


# ---- in the process that starts the others ----


def _serve(requests: int, answers: int) -> None:
    """Answer each request with a line of the processes' numbers, and then with one of their exit codes, by rank."""
    _forget_pytest({requests, answers})
    with os.fdopen(requests) as asked, os.fdopen(answers, "w") as told:
        for line in asked:
            request = json.loads(line)
            folder, second, streams = (Path(request[name]) for name in ("folder", "second", "streams"))
            _prepare()
            job = Job(tuple(request["arguments"]), request["count"])
            more = {"program": request["program"], "environment": request["environment"]}
            children = start(job, folder, again=False, streams=streams, second=second, **more)
            print(json.dumps(children), file=told, flush=True)
            print(
                json.dumps([os.waitstatus_to_exitcode(os.waitpid(each, 0)[1]) for each in children]),
                file=told,
                flush=True,
            )


@functools.cache
def _prepare() -> None:
    """Import what the commands would and no test has, and look out of a terminal of a known width at no hub."""
    import torch
    from huggingface_hub import constants

    import_everything()
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
    constants.HF_HUB_OFFLINE = True
    torch.set_num_threads(1)
    # What was imported is looked at by no process's garbage collector, and stays one copy in memory.
    gc.collect()
    gc.freeze()


def _forget_pytest(kept: set[int]) -> None:
    """Let go of pytest's files, handlers and hooks: what is printed and warned of is that of a fresh interpreter."""
    faulthandler.disable()
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
    for number in range(3, 1 + max(int(each.name) for each in Path("/dev/fd").iterdir())):
        if number not in kept:
            with contextlib.suppress(OSError):
                os.close(number)
    sys.stdin, sys.stdout, sys.stderr = (
        os.fdopen(number, mode, encoding="utf-8", closefd=False) for number, mode in ((0, "r"), (1, "w"), (2, "w"))
    )
    logging.root.handlers.clear()
    sys.unraisablehook, threading.excepthook = sys.__unraisablehook__, threading.__excepthook__
    warnings.resetwarnings()
    warnings.simplefilter("default")
    warnings.simplefilter("error", UserWarning)
