"""Who draws a report's figures: this process, or several that draw at once."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pandas as pd

from anglekit.errors import RunError
from anglekit.plots.files import figure_bytes
from anglekit.plots.registry import draw_figure
from anglekit.results.geometry import Geometry

__all__ = ["Inputs", "Sheet", "drawers", "usable_cores"]


@dataclass(frozen=True)
class Inputs:
    """What figures are drawn from.

    Attributes:
        geometries: what was analysed.
        scores: a table for each task.
    """

    geometries: Sequence[Geometry]
    scores: Sequence[pd.DataFrame]

    def of(self, place: int | None) -> Inputs:
        """Return one Geometry by its place, without scores; None gives everything."""
        return self if place is None else Inputs([self.geometries[place]], ())


@dataclass(frozen=True)
class Sheet:
    """One svg file to draw.

    Attributes:
        name: of the figure family.
        place: of the Geometry that it shows; None shows everything.
        width: `column` or `page`.
        dark: on a dark ground.
        options: of the family's function.
    """

    name: str
    place: int | None
    width: str
    dark: bool
    options: Mapping[str, Any] = field(default_factory=dict)


def usable_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def drawers(inputs: Inputs, workers: int) -> Iterator[Callable[[Sheet], Callable[[], bytes]]]:
    """Give a function that takes a sheet in hand and returns what waits for its file.

    One worker is this process, which draws when it is waited for; a file is the same whoever draws it.

    Args:
        inputs: what the sheets are drawn from.
        workers: how many processes draw.
    """
    if workers == 1:
        yield lambda sheet: partial(_drawn, inputs, sheet)
        return
    # Not forked: the libraries that are loaded here may hold threads and locks.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _receive, (inputs,))

    def begin(sheet: Sheet) -> Callable[[], bytes]:
        with _interrupts_waiting():  # the first sheet starts the processes
            future = pool.submit(_drawn_here, sheet)

        def wait() -> bytes:
            try:
                return future.result()
            except BrokenProcessPool as error:
                raise RunError("a process that draws ended before its figure; draw in this one: --workers 1") from error

        return wait

    try:
        yield begin
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _interrupts_waiting() -> Iterator[None]:
    """Let Ctrl-C wait until the end of the block, and pass the processes by that are started in it.

    In the middle of starting them it would leave some behind, and one that still imports would print where it was.
    """
    came: list[bool] = []
    handler = None
    if threading.current_thread() is threading.main_thread():
        handler = signal.signal(signal.SIGINT, lambda *_: came.append(True))
    # A new process takes over what its parent's thread blocks, and forgets its parent's handlers.
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


def _drawn(inputs: Inputs, sheet: Sheet) -> bytes:
    chosen = inputs.of(sheet.place)
    figure = draw_figure(
        sheet.name, chosen.geometries, scores=chosen.scores, width=sheet.width, dark=sheet.dark, **sheet.options
    )
    return figure_bytes(figure, "svg")


# What a worker's sheets are drawn from: sent once, not with each of them.
_received: list[Inputs] = []


def _receive(inputs: Inputs) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the business of the process that waits
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    _received[:] = [inputs]


def _end_with_the_parent() -> None:
    """End this process when the one that waits for it is gone, by whatever; it would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _drawn_here(sheet: Sheet) -> bytes:
    return _drawn(_received[0], sheet)
