"""One progress bar over all stages of the demo, with the stage's name and an estimate of the time left."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Any

from tqdm import tqdm

__all__ = ["StageBar", "last_logged_step"]

_SECONDS_BETWEEN_LOOKS = 0.5
_TAIL_BYTES = 4096


class StageBar:
    """A bar whose length is the expected cost of all stages; the speed so far gives the time left.

    Within a training stage it follows the metrics files that the runs write, so that the training itself knows nothing
    of the bar.

    Args:
        costs: what each stage is expected to take, in seconds or any other unit, in the order of the stages.
        shown: whether there is a bar at all.

    Attributes:
        seconds: what each stage that has ended took.
    """

    def __init__(self, costs: Mapping[str, float], *, shown: bool) -> None:
        self.seconds: dict[str, float] = {}
        self._costs = dict(costs)
        self._done = 0.0
        self._stage = ""
        self._metrics: tuple[Path, ...] = ()
        self._steps = 0
        self._bar: tqdm[Any] = tqdm(
            total=sum(self._costs.values()),
            disable=not shown,
            smoothing=0.0,
            dynamic_ncols=True,
            bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed} gone, {remaining} left",
        )

    def __enter__(self) -> StageBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    @contextmanager
    def stage(self, name: str, metrics: Sequence[Path] = (), steps: int = 0) -> Iterator[None]:
        """Show a stage while the block runs.

        Args:
            name: one of the costs' names.
            metrics: the metrics files of the runs that the stage trains.
            steps: the steps of each.
        """
        self._bar.set_description_str(f"[{1 + list(self._costs).index(name)}/{len(self._costs)}] {name}")
        self._stage, self._metrics, self._steps = name, tuple(metrics), steps
        ended = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(ended,), daemon=True)
        start = perf_counter()
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()
        self.seconds[name] = perf_counter() - start
        self._done += self._costs[name]
        self._move_to(self._done)

    @property
    def share(self) -> float:
        """How much of the whole is done, in [0, 1]."""
        return float(self._bar.n / sum(self._costs.values()))

    def look(self) -> None:
        """Move with the runs' steps; without any, keep the clock going."""
        if self._metrics and self._steps:
            steps = sum(min(last_logged_step(path), self._steps) for path in self._metrics)
            self._move_to(self._done + steps / (self._steps * len(self._metrics)) * self._costs[self._stage])
        else:
            self._bar.refresh()

    def _watch(self, ended: threading.Event) -> None:
        while not ended.wait(_SECONDS_BETWEEN_LOOKS):
            self.look()

    def _move_to(self, place: float) -> None:
        self._bar.n = max(self._bar.n, place)
        self._bar.refresh()


def last_logged_step(path: Path) -> int:
    """Return the step of the last whole line of a metrics file, 0 without any."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            tail = file.read()
    except FileNotFoundError:
        return 0
    whole = tail.rpartition(b"\n")[0].rpartition(b"\n")[2]
    return int(json.loads(whole)["step"]) if whole else 0
