"""The directory of a sweep: its arms by name, what it was begun with, and the table of scores.

sweep.json      what the sweep is begun with; written before the first arm begins
scores.csv      a row for each finished arm and evaluation table
<arm>/          the run directory of each arm, as `distill` writes it
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pandas as pd

from anglekit.distillation.matching.plan import DistillationPlan, named_differences
from anglekit.distillation.matching.strategies import controlled_strategies
from anglekit.distillation.runs.directory import RunDirectory, check_if_exists
from anglekit.distillation.runs.run import RunResult
from anglekit.distillation.students.given import GivenProvenance
from anglekit.distillation.tasks.models import ModelProvenance
from anglekit.errors import InputError, suggest
from anglekit.results.scores import SWEEP_FILE, SWEEP_FORMAT, SWEEP_SCORES_FILE, check_no_sweep
from anglekit.runtime.files import convert_document, half_written, read_json_object, write_json, write_whole
from anglekit.runtime.processes import ALONE, Processes
from anglekit.vocabulary import CONTROLS, INITS, STRATEGIES, given_name, is_init

# What tells the arms of one sweep apart; everything else is the same for all of them.
_OWN_TO_AN_ARM = ("strategy", "init", "seed", "data_seed", "encoder map", "decoder map")


@dataclass(frozen=True)
class Arm:
    """One student of a sweep: a combination of its grid; a control's name stands in the place of a strategy."""

    strategy: str
    init: str
    seed: int

    @property
    def name(self) -> str:
        """The name of its directory."""
        return f"{self.strategy}-{given_name(self.init) or self.init}-seed{self.seed}"


@dataclass(frozen=True)
class SweepGrid:
    """The strategies, initialisations, seeds and controls of a sweep; its arms are all their combinations.

    `random_teacher_of` is the strategy of which `random-teacher` is a control: None takes forward, or else the first
    that matches layers.

    Raises:
        InputError: a list is empty (of controls there may be none) or names something twice, a name is not known, or
            a control has no strategy to be a control of.
    """

    strategies: tuple[str, ...]
    inits: tuple[str, ...]
    seeds: tuple[int, ...]
    controls: tuple[str, ...] = ()
    random_teacher_of: str | None = None

    def __post_init__(self) -> None:
        for what, values, allowed in (
            ("strategy", self.strategies, tuple(STRATEGIES)),
            ("initialisation", self.inits, (*INITS, *filter(is_init, self.inits))),
            ("seed", self.seeds, None),
            ("control", self.controls, CONTROLS),
        ):
            if not values and what != "control":
                raise InputError(f"no {what} came", "give at least one")
            for value in values:
                if allowed is not None and value not in allowed:
                    raise InputError(f"no {what} {value!r}", allowed=suggest(str(value), allowed))
                if values.count(value) > 1:
                    raise InputError(f"{what} {value!r} came twice", "give each one once")
        for seed in self.seeds:
            if not 0 <= seed < 2**32:
                raise InputError(f"a seed is {seed}", allowed=f"allowed: 0 to {2**32 - 1}")
        names = [arm.name for arm in self.arms]
        if twice := [name for name in names if names.count(name) > 1]:
            raise InputError(f"two students would be called {twice[0]!r}", "give the given one another name: NAME=DIR")
        _ = self.control_of  # refuses a control without a strategy

    @property
    def control_of(self) -> dict[str, str]:
        """The strategy of which each control takes something away."""
        return controlled_strategies(self.controls, self.strategies, self.random_teacher_of)

    @property
    def arms(self) -> tuple[Arm, ...]:
        """All combinations, by seed, then initialisation, then strategy, controls last."""
        names = (*self.strategies, *self.controls)
        return tuple(Arm(name, init, seed) for seed in self.seeds for init in self.inits for name in names)


class ArmRecord(msgspec.Struct, frozen=True):
    """An arm as sweep.json lists it; `name` is that of its directory.

    Raises:
        InputError: the name is not the arm's, or not one of a directory.
    """

    name: str
    strategy: str
    init: str
    seed: Annotated[int, msgspec.Meta(ge=0, lt=2**32)]
    data_seed: int = 0

    def __post_init__(self) -> None:
        if self.name != self.arm.name or Path(self.name).name != self.name:
            raise InputError(f"no arm is called {self.name!r}")

    @property
    def arm(self) -> Arm:
        """Which arm it is."""
        return Arm(self.strategy, self.init, self.seed)


class LookRecord(msgspec.Struct, kw_only=True, frozen=True):
    """What was seen at one validation of the students of one initialisation; scores are means over seeds.

    Attributes:
        init: the initialisation.
        step: of the validation.
        training: the share of the training that lay behind, by the sum of the learning rates.
        best: the strategy with the highest score.
        below: by strategy, how far its score was below that.
        gain: the most that a strategy had gained on another in as much training as still lay ahead.
        stopped: the strategies that were stopped.
    """

    init: str
    step: int
    training: float
    best: str
    below: dict[str, float]
    gain: float
    stopped: list[str] = []


class StoppingRecord(msgspec.Struct, kw_only=True, frozen=True):
    """How hopeless strategies were stopped; see `stopping`.

    Attributes:
        score: the task's own.
        data: the validation table.
        level: the probability of stopping any strategy wrongly.
        level_of_a_test: its share of each test.
        margin: how far below the best a strategy must end.
        steps: of a run that is not stopped.
        steps_saved: the optimiser steps that were not taken.
        looks: in order.
    """

    score: str
    data: str
    level: float
    level_of_a_test: float
    margin: float
    steps: int
    steps_saved: int
    looks: list[LookRecord] = []


class SweepRecord(msgspec.Struct, kw_only=True, frozen=True):
    """sweep.json: what a sweep was begun with, and what came of it.

    Attributes:
        format: of the file.
        arms: in the order of the grid.
        student: what all students have in common, controls aside.
        control_of: by control arm's name in `vocabulary.CONTROLS`, the strategy of which it takes something away.
        data: what all runs' configurations have in common.
        teacher: its provenance.
        students: by name, those that were there before.
        warnings: what spoils a comparison of the arms.
        begun: in UTC.
        stopped: by name, the step at which arms were stopped as hopeless; 0 for those that were not begun.
        stopping: how that was decided; absent where nothing was to be stopped.
        failed: by name, what ended the arms that failed; this and the next two are set once all arms ended.
        last_session: passes, answers and seconds of the teacher.
        finished: in UTC; None where an arm failed.
    """

    format: str = SWEEP_FORMAT
    arms: list[ArmRecord]
    student: dict[str, Any]
    control_of: dict[str, str] = {}
    data: dict[str, Any]
    teacher: ModelProvenance | None = None
    students: dict[str, GivenProvenance] = {}
    warnings: list[str] = []
    begun: str | None = None
    stopped: dict[str, int] = {}
    stopping: StoppingRecord | msgspec.UnsetType = msgspec.UNSET
    failed: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    last_session: dict[str, float] | msgspec.UnsetType = msgspec.UNSET
    finished: str | msgspec.UnsetType | None = msgspec.UNSET


class SweepDirectory:
    """The directory of a sweep; who may write it is decided by the locks of its arms.

    Args:
        path: made by the first arm.
        if_exists: what to do with a sweep that is already there: "refuse" it, "resume" it, or "overwrite" it.

    Attributes:
        exists: whether a sweep is already there.
        stored: what it was begun with; None also where that is damaged and overwritten.
        resumes: whether it goes on.

    Raises:
        InputError: it holds a sweep and `if_exists` is "refuse", or it is not a directory.
    """

    def __init__(self, path: str | Path, if_exists: str) -> None:
        check_if_exists(if_exists)
        self.path = Path(path)
        self.resumes = if_exists == "resume"
        self._if_exists = if_exists
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path} is a file", "name a directory for the sweep")
        self.exists = (self.path / SWEEP_FILE).exists()
        self.stored: SweepRecord | None = None
        if self.exists:
            try:
                self.stored = self._read()
            except InputError:
                if if_exists != "overwrite":
                    raise
        if self.stored is not None and if_exists == "refuse":
            check_no_sweep(self.path, bool(self.stored.finished))

    def _read(self) -> SweepRecord:
        file, remedy = self.path / SWEEP_FILE, "use --overwrite to start the sweep again"
        content = read_json_object(file, remedy)
        if content.get("format") != SWEEP_FORMAT:
            raise InputError(
                f"{file} has format {content.get('format')!r}",
                "name another directory",
                allowed=f"expected {SWEEP_FORMAT!r}",
            )
        return convert_document(content, SweepRecord, str(file), remedy)

    @property
    def stored_arms(self) -> tuple[Arm, ...]:
        """The arms of a sweep that is already there."""
        return () if self.stored is None else tuple(record.arm for record in self.stored.arms)

    @property
    def replaced_arms(self) -> tuple[Arm, ...]:
        """The arms that are removed because the sweep is overwritten."""
        return self.stored_arms if self._if_exists == "overwrite" else ()

    def run(self, arm: Arm, *, writes: bool) -> RunDirectory:
        """Return the directory of an arm, held if this process is to write in it."""
        return RunDirectory(self.path / arm.name, self._if_exists, writes=writes)

    def check_foreign(self, grid: SweepGrid) -> None:
        """Check that nothing but arms lies in a directory that holds no sweep yet."""
        if self.exists or not self.path.is_dir():
            return
        # If the process was killed early, the first file may be half written.
        own = {*(self.path / arm.name for arm in grid.arms), *half_written(self.path, SWEEP_FILE)}
        foreign = sorted(entry.name for entry in self.path.iterdir() if entry not in own)
        if foreign:
            raise InputError(f"{self.path} holds {foreign[0]!r} and no sweep", "name a new or empty directory")

    def check_same(self, asked: SweepRecord) -> None:
        """Check that a sweep may be resumed with what is asked for; arms may be added to it.

        Raises:
            InputError: it names the first difference.
        """
        if not self.resumes or self.stored is None:
            return
        left_out = [record.name for record in self.stored.arms if record not in asked.arms]
        found = [f"arm {left_out[0]} is there and not asked for here"] if left_out else []
        for name, student in asked.students.items():
            there = self.stored.students.get(name, student)
            if there.sha256_with_head != student.sha256_with_head:
                found.append(f"student {name} has other weights than the one of this name there")
        shared = self.stored.student
        if all(given_name(arm.init) is not None for arm in self.stored_arms):
            # Students that are made may be added to given ones, and have a shape to share.
            shared = asked.student | shared
        for here, begun in ((asked.student, shared), (asked.data, self.stored.data)):
            # As json gives them back: lists for tuples.
            found += named_differences(msgspec.json.decode(msgspec.json.encode(here)), begun)
        if found:
            raise InputError(
                f"{self.path} holds another sweep ({found[0]})",
                "resume it with its own settings, name another directory, or use --overwrite",
            )

    def begin(self, record: SweepRecord, replaced: Sequence[RunDirectory], processes: Processes = ALONE) -> None:
        """Write what the sweep is begun with, after removing the runs that it replaces.

        The old sweep.json is removed first: a directory with arms but without it can be resumed or overwritten. Each
        process that shares the sweep removes the runs that it holds.
        """
        if not self.resumes:
            with processes.together():
                if processes.first:
                    (self.path / SWEEP_FILE).unlink(missing_ok=True)
                    (self.path / SWEEP_SCORES_FILE).unlink(missing_ok=True)
            with processes.together():
                for run in replaced:
                    run.clear()
        with processes.together():
            if processes.first:
                self.write(record)

    def write(self, record: SweepRecord) -> None:
        """Write sweep.json, whole or not at all."""
        write_json(self.path / SWEEP_FILE, record)

    def write_scores(self, frame: pd.DataFrame) -> None:
        """Write scores.csv, whole or not at all."""
        write_whole(self.path / SWEEP_SCORES_FILE, frame.to_csv(index=False))

    def remove_if_empty(self) -> None:
        """Leave no trace of a sweep that was refused."""
        with suppress(OSError):
            self.path.rmdir()


def shared_facts(plans: Sequence[DistillationPlan]) -> dict[str, Any]:
    """Return what is the same for all arms of a sweep but controls, under the names that messages use."""
    facts: dict[str, Any] = {}
    for plan in plans:
        if plan.control is not None:
            continue
        own = plan.facts()
        # A given student has a shape of its own.
        left_out = [name for name in own if plan.student is not None and name.startswith("student ")]
        facts |= {name: value for name, value in own.items() if name not in (*_OWN_TO_AN_ARM, *left_out)}
    return facts


def score_rows(arm: Arm, result: RunResult) -> list[dict[str, Any]]:
    """Return the rows of a finished arm in scores.csv: one for each evaluation table, or one without scores."""
    scores: list[Any] = result.scores.to_dict(orient="records") or [{"data": ""}]
    run = {"steps": result.steps, "selected_step": result.selected_step, "seconds": result.train_seconds}
    return [{"strategy": arm.strategy, "init": arm.init, "seed": arm.seed, **row, **run} for row in scores]
