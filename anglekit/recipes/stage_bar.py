"""One progress bar over all stages of a reproduction, with the stage's name and an estimate of the time left."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from tqdm import tqdm

_TAIL_BYTES = 4096


@dataclass(frozen=True)
class Followed:
    """The runs that a stage trains: the metrics file of each, there or not yet, and the steps that each makes."""

    metrics: tuple[Path, ...]
    steps: int


class StageBar:
    """A bar whose length is the expected cost of all stages; the time left comes from the speed so far.

    During a training stage it follows the metrics files that the runs write, so that training need not know of the bar.

    Args:
        costs: what each stage is expected to take, in any unit, in the order of the stages.
        shown: whether there is a bar at all.
    """

    def __init__(self, costs: Mapping[str, float], *, shown: bool) -> None:
        self._costs = dict(costs)
        self._ended: list[str] = []
        # Only what was measured in this session: stages done before say nothing about the speed.
        self._cost_measured = self._seconds_measured = 0.0
        self._stage = ""
        self._followed: Followed | None = None
        self._start = self._share_at_start = 0.0
        self._bar: tqdm[Any] = tqdm(
            total=sum(self._costs.values()),
            disable=not shown,
            dynamic_ncols=True,
            bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed} elapsed{postfix}",
        )

    def __enter__(self) -> StageBar:
        return self

    def __exit__(self, *_error: object) -> None:
        self._bar.close()

    @contextmanager
    def stage(self, name: str, followed: Followed | None = None) -> Iterator[None]:
        """Show a stage, one of the costs' names, while the block runs."""
        self._stage, self._followed = name, followed
        self._bar.set_description_str(f"[{1 + list(self._costs).index(name)}/{len(self._costs)}] {name}", refresh=False)
        self._start, self._share_at_start = perf_counter(), self._stage_share()
        ended = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(ended,), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()
        self._cost_measured += self._costs[name] * (1 - self._share_at_start)
        self._seconds_measured += perf_counter() - self._start
        self.skip(name)

    def skip(self, name: str) -> None:
        """Count a stage as done."""
        self._ended.append(name)
        self._move_to(sum(self._costs[one] for one in self._ended))

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Take the bar away while the block prints."""
        with tqdm.external_write_mode(file=sys.stderr):
            yield

    @property
    def share(self) -> float:
        """How much of the whole is done, in [0, 1]."""
        return float(self._bar.n / sum(self._costs.values()))

    def look(self) -> None:
        """Move with the runs' steps, and estimate the time left."""
        if (left := self._seconds_left()) is not None:
            self._bar.set_postfix_str(", ".join([f"{tqdm.format_interval(left)} left", *self._facts()]), refresh=False)
        done = sum(self._costs[one] for one in self._ended)
        self._move_to(done + self._stage_share() * self._costs[self._stage])

    def _stage_share(self) -> float:
        """Return how much of the stage is done, as far as its runs tell."""
        if self._followed is None:
            return 0.0
        steps: int = sum(min(last_log(path)["step"], self._followed.steps) for path in self._followed.metrics)
        return steps / (self._followed.steps * len(self._followed.metrics))

    def _seconds_left(self) -> float | None:
        """Return the estimate, from this stage's own speed where its runs show it, else from all stages before it."""
        share, elapsed, cost = self._stage_share(), perf_counter() - self._start, self._costs[self._stage]
        gained = share - self._share_at_start
        measured = self._cost_measured + gained * cost
        if measured <= 0.0:
            return None
        rate = (self._seconds_measured + (elapsed if gained > 0 else 0.0)) / measured
        here = (1 - share) / gained * elapsed if gained > 0 else max(0.0, rate * cost - elapsed)
        later = sum(cost for name, cost in self._costs.items() if name not in (*self._ended, self._stage))
        return here + rate * later

    def _facts(self) -> list[str]:
        """Return the loss of a single run; of several, how many have ended."""
        if self._followed is None:
            return []
        logs = [last_log(path) for path in self._followed.metrics]
        ended = sum(log["step"] >= self._followed.steps for log in logs)
        # A run that made its last step is scored.
        scoring = ["scoring"] if ended == len(logs) else []
        if len(logs) > 1:
            return [f"{ended}/{len(logs)} students", *scoring]
        return scoring or ([f"loss {loss:.4g}"] if isinstance(loss := logs[0].get("loss"), float) else [])

    def _watch(self, ended: threading.Event) -> None:
        # In a log file every look is a line.
        seconds = 0.5 if sys.stderr.isatty() else 20.0
        while not ended.wait(seconds):
            self.look()

    def _move_to(self, place: float) -> None:
        self._bar.n = max(self._bar.n, place)
        self._bar.refresh()


def last_log(path: Path) -> dict[str, Any]:
    """Return the latest values at the end of a metrics file, including their step; step 0 if there are none."""
    latest: dict[str, Any] = {"step": 0}
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            *whole, _unfinished = file.read().split(b"\n")
    except FileNotFoundError:
        return latest
    for line in whole:
        # The first line may be cut where reading began.
        with suppress(ValueError):
            log = json.loads(line)
            if isinstance(log, dict) and isinstance(log.get("step"), int):
                latest |= log
    return latest
