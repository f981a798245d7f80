"""The directory of a sweep: its arms by name, what it was begun with, and the table of scores.

sweep.json      format, grid, settings, arms, teacher; written before the first arm begins
scores.csv      a row for each finished arm and evaluation table
<arm>/          the run directory of each arm, as `distill` writes it
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pandas as pd

from anglekit.distillation.matching.plan import DistillationPlan
from anglekit.distillation.runs.arm import RunResult
from anglekit.distillation.runs.directory import IfExists, RunDirectory, read_json
from anglekit.errors import InputError, suggest
from anglekit.runtime.files import half_written, write_json, write_whole
from anglekit.runtime.processes import ALONE, Processes
from anglekit.vocabulary import INITS, STRATEGIES

__all__ = ["ArmKey", "SweepDirectory", "SweepGrid", "score_rows", "shared_facts"]

_FORMAT = "anglekit-sweep-1"
_SWEEP, _SCORES = "sweep.json", "scores.csv"
# What tells the arms of one sweep apart; everything else is the same for all of them.
_OWN_TO_AN_ARM = ("strategy", "init", "seed", "data_seed", "encoder map", "decoder map")


@dataclass(frozen=True)
class ArmKey:
    """Which arm of a grid."""

    strategy: str
    init: str
    seed: int

    @property
    def name(self) -> str:
        """The name of its directory."""
        return f"{self.strategy}-{self.init}-seed{self.seed}"


@dataclass(frozen=True)
class SweepGrid:
    """The strategies, initialisations and seeds of a sweep; its arms are all their combinations.

    Raises:
        InputError: a list is empty or names something twice, or a name is not known.
    """

    strategies: tuple[str, ...]
    inits: tuple[str, ...]
    seeds: tuple[int, ...]

    def __post_init__(self) -> None:
        for what, values, allowed in (
            ("strategy", self.strategies, tuple(STRATEGIES)),
            ("initialisation", self.inits, INITS),
            ("seed", self.seeds, None),
        ):
            if not values:
                raise InputError(f"no {what} came", "give at least one")
            for value in values:
                if allowed is not None and value not in allowed:
                    raise InputError(f"no {what} {value!r}", allowed=suggest(str(value), allowed))
                if values.count(value) > 1:
                    raise InputError(f"{what} {value!r} came twice", "give each one once")
        for seed in self.seeds:
            if not 0 <= seed < 2**32:
                raise InputError(f"a seed is {seed}", allowed=f"allowed: 0 to {2**32 - 1}")

    @property
    def arms(self) -> tuple[ArmKey, ...]:
        """All combinations, by seed, then initialisation, then strategy."""
        return tuple(
            ArmKey(strategy, init, seed) for seed in self.seeds for init in self.inits for strategy in self.strategies
        )


class SweepDirectory:
    """The directory of a sweep; who may write it is decided by the locks of its arms.

    Args:
        path: made by the first arm.
        if_exists: what to do with a sweep that is already there: "refuse" it, "resume" it, or "overwrite" it.

    Attributes:
        stored: what a sweep that is already there was begun with.

    Raises:
        InputError: it holds a sweep and may not, or it holds something else.
    """

    def __init__(self, path: str | Path, if_exists: str) -> None:
        if if_exists not in get_args(IfExists):
            raise InputError(f"no way {if_exists!r} to treat a sweep", allowed=suggest(if_exists, get_args(IfExists)))
        self.path = Path(path)
        self.resumes = if_exists == "resume"
        self._if_exists = if_exists
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path} is a file", "name a directory for the sweep")
        self.stored: dict[str, Any] | None = None
        if (self.path / _SWEEP).exists():
            try:
                self.stored = self._read()
            except InputError:
                if if_exists != "overwrite":
                    raise
                self.stored = {}
            if if_exists == "refuse":
                state = "a finished" if self.stored.get("finished") else "an unfinished"
                raise InputError(
                    f"{self.path} holds {state} sweep", "use --resume to go on, --overwrite, or another directory"
                )

    def _read(self) -> dict[str, Any]:
        stored = read_json(self.path / _SWEEP)
        if stored.get("format") != _FORMAT:
            raise InputError(
                f"{self.path / _SWEEP} has format {stored.get('format')!r}",
                "name another directory",
                allowed=f"expected {_FORMAT!r}",
            )
        arms = stored.get("arms")
        keys = [(arm.get("strategy"), arm.get("init"), arm.get("name")) for arm in arms or () if isinstance(arm, dict)]
        seeds = [arm.get("seed") for arm in arms or () if isinstance(arm, dict)]
        if (
            not isinstance(arms, list)
            or not len(keys) == len(arms)
            or not all(isinstance(each, str) and each == Path(each).name for key in keys for each in key)
            or not all(type(seed) is int and 0 <= seed < 2**32 for seed in seeds)
            or not all(isinstance(stored.get(part), dict) for part in ("student", "data"))
        ):
            raise InputError(f"{self.path / _SWEEP} does not say what the sweep was begun with", "use --overwrite")
        return stored

    @property
    def stored_arms(self) -> tuple[ArmKey, ...]:
        """The arms of a sweep that is already there."""
        arms = (self.stored or {}).get("arms", [])
        return tuple(ArmKey(arm["strategy"], arm["init"], int(arm["seed"])) for arm in arms)

    @property
    def replaced_arms(self) -> tuple[ArmKey, ...]:
        """The arms that go because the sweep is overwritten."""
        return self.stored_arms if self._if_exists == "overwrite" else ()

    def run(self, arm: ArmKey, *, writes: bool) -> RunDirectory:
        """Return the directory of an arm, held if this process is to write in it."""
        return RunDirectory(self.path / arm.name, self._if_exists, writes=writes)

    def check_foreign(self, grid: SweepGrid) -> None:
        """Check that nothing but arms lies in a directory that holds no sweep yet."""
        if self.stored is not None or not self.path.is_dir():
            return
        # A kill may have left the file that was being written first.
        own = {*(self.path / arm.name for arm in grid.arms), *half_written(self.path, _SWEEP)}
        foreign = sorted(entry.name for entry in self.path.iterdir() if entry not in own)
        if foreign:
            raise InputError(f"{self.path} holds {foreign[0]!r} and no sweep", "name a new or empty directory")

    def check_same(self, content: Mapping[str, Any]) -> None:
        """Check that a sweep may go on under what is asked for; arms may be added to it.

        Raises:
            InputError: it names the first difference.
        """
        if not self.resumes or self.stored is None:
            return
        asked = json.loads(json.dumps(content))
        left_out = [arm["name"] for arm in self.stored["arms"] if arm not in asked["arms"]]
        found = [f"arm {left_out[0]} is there and not asked for here"] if left_out else []
        for part in ("student", "data"):
            here, there = asked[part], self.stored[part]
            found += [
                f"{name}: {here.get(name, 'absent')} here, {there.get(name, 'absent')} there"
                for name in dict.fromkeys((*here, *there))
                if here.get(name) != there.get(name)
            ]
        if found:
            raise InputError(
                f"{self.path} holds another sweep ({found[0]})",
                "resume it with its own settings, name another directory, or use --overwrite",
            )

    def begin(self, content: Mapping[str, Any], replaced: Sequence[RunDirectory], processes: Processes = ALONE) -> None:
        """Write what the sweep is begun with, after removing the runs that it replaces.

        The old sweep.json goes first: a directory without it, but with arms, can be resumed or overwritten alike.

        Args:
            content: of sweep.json.
            replaced: the runs that this process holds.
            processes: that share the sweep.
        """
        if not self.resumes:
            with processes.together():
                if processes.first:
                    (self.path / _SWEEP).unlink(missing_ok=True)
                    (self.path / _SCORES).unlink(missing_ok=True)
            with processes.together():
                for run in replaced:
                    run.clear()
        with processes.together():
            if processes.first:
                self.write(content)

    def write(self, content: Mapping[str, Any]) -> None:
        """Write sweep.json, whole or not at all."""
        write_json(self.path / _SWEEP, {"format": _FORMAT, **content})

    def write_scores(self, frame: pd.DataFrame) -> None:
        """Write scores.csv, whole or not at all."""
        write_whole(self.path / _SCORES, frame.to_csv(index=False))

    def remove_if_empty(self) -> None:
        """Leave no trace of a sweep that was refused."""
        with suppress(OSError):
            self.path.rmdir()


def shared_facts(plans: Sequence[DistillationPlan]) -> dict[str, Any]:
    """Return what is the same for all arms of a sweep, under the names that messages use."""
    facts: dict[str, Any] = {}
    for plan in plans:
        facts |= {name: value for name, value in plan.facts().items() if name not in _OWN_TO_AN_ARM}
    return facts


def score_rows(arm: ArmKey, result: RunResult) -> list[dict[str, Any]]:
    """Return the rows of a finished arm in scores.csv: one for each evaluation table, or one without scores."""
    scores: list[Any] = result.scores.to_dict(orient="records") or [{"data": ""}]
    run = {"steps": result.steps, "selected_step": result.selected_step, "seconds": result.train_seconds}
    return [{"strategy": arm.strategy, "init": arm.init, "seed": arm.seed, **row, **run} for row in scores]
