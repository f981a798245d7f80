"""Who draws a report's figures: this process, or several that draw at once."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from anglekit.errors import RunError
from anglekit.plots.files import page_files
from anglekit.plots.inputs import FigureInputs
from anglekit.plots.registry import draw_figure


@dataclass(frozen=True)
class DrawingTask:
    """A drawing to make.

    Attributes:
        name: of the figure.
        key: what the ids of its svg start with.
        place: of the Geometry that it shows; None where it shows everything.
        options: of the figure.
        label: of the Geometry that it shows; empty where it shows all.
        student: the student that it shows; None where it shows all.
    """

    name: str
    key: str
    place: int | None
    options: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""
    student: str | None = None

    def chosen(self, inputs: FigureInputs) -> FigureInputs:
        """Return the part of a report's inputs that the drawing shows: one Geometry without scores, or everything."""
        return inputs if self.place is None else FigureInputs([inputs.geometries[self.place]])


#: Starts a drawing at a width; returns a function that waits for its svg files, one for each page.
Begin = Callable[[DrawingTask, str], Callable[[], list[bytes]]]


def usable_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def drawers(inputs: FigureInputs, workers: int) -> Iterator[Begin]:
    """Yield a function that starts a drawing.

    With one worker, this process draws, and only when the files are asked for. They are the same whoever draws them.
    """
    if workers == 1:
        yield lambda task, width: partial(_svg_files, inputs, task, width)
        return
    # Not forked: the libraries loaded here may hold threads and locks.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _receive, (inputs,))

    def begin(task: DrawingTask, width: str) -> Callable[[], list[bytes]]:
        with _interrupts_waiting():  # the first drawing starts the processes
            future = pool.submit(_svg_files_here, task, width)

        def wait() -> list[bytes]:
            try:
                return future.result()
            except BrokenProcessPool as error:
                raise RunError(
                    "a process that draws ended before its figure; draw in this one: --processes 1"
                ) from error

        return wait

    try:
        yield begin
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _interrupts_waiting() -> Iterator[None]:
    """Delay Ctrl-C until the end of the block, and keep it from the processes that start in the block.

    While they start, Ctrl-C would leave some behind, and a process that is still importing would print a traceback.
    """
    came: list[bool] = []
    handler = None
    if threading.current_thread() is threading.main_thread():
        handler = signal.signal(signal.SIGINT, lambda *_: came.append(True))
    # A new process inherits the signals that its parent's thread blocks, but not its parent's handlers.
    blocks = hasattr(signal, "pthread_sigmask")
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if blocks else ()
    try:
        yield
    finally:
        if blocks:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if handler is not None:
            signal.signal(signal.SIGINT, handler)
    if came and callable(handler):
        handler(signal.SIGINT, None)


def _svg_files(inputs: FigureInputs, task: DrawingTask, width: str) -> list[bytes]:
    chosen = task.chosen(inputs)
    figure = draw_figure(
        task.name, chosen.geometries, scores=chosen.scores, records=chosen.records, width=width, **task.options
    )
    return page_files(figure, "svg")


# What a worker draws its figures from: sent once, not with each figure.
_received: list[FigureInputs] = []


def _receive(inputs: FigureInputs) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that waits handles Ctrl-C
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    _received[:] = [inputs]


def _end_with_the_parent() -> None:
    """End this process when the one that waits for it is gone for any reason; else it would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _svg_files_here(task: DrawingTask, width: str) -> list[bytes]:
    return _svg_files(_received[0], task, width)
