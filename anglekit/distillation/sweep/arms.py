"""The arms of a sweep while they train: in groups side by side over a shared teacher, each finished as it ends."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from anglekit.distillation.matching.plan import DistillationPlan
from anglekit.distillation.runs.arm import Arm, RunResult, build_arm, finish_arm, objective_of_plan, stored_result
from anglekit.distillation.runs.directory import RunDirectory
from anglekit.distillation.settings import TrainSettings
from anglekit.distillation.sweep.directory import ArmKey, SweepDirectory, score_rows
from anglekit.distillation.sweep.lockstep import HandOver, Outcome, Turn, take_turns
from anglekit.distillation.sweep.shared_teacher import MarkedBatches, SharedTeacher
from anglekit.distillation.tasks.models import TaskModel
from anglekit.distillation.tasks.prepared_data import PreparedData
from anglekit.distillation.training.progress import SweepBar
from anglekit.errors import AnglekitError

__all__ = ["ArmsInTraining", "PlannedArm", "share_arms", "train_side_by_side", "waves"]


@dataclass(frozen=True, eq=False)
class PlannedArm:
    """One arm before it is built."""

    key: ArmKey
    directory: RunDirectory
    settings: TrainSettings
    plan: DistillationPlan


def waves(entries: Sequence[PlannedArm], side_by_side: int) -> list[Sequence[PlannedArm]]:
    """Return the arms in groups of about the same size: as many as needed, so that no group is larger than allowed."""
    if not entries:
        return []
    size = -(-len(entries) // -(-len(entries) // side_by_side))
    return [entries[first : first + size] for first in range(0, len(entries), size)]


def share_arms(arms: Sequence[ArmKey], count: int) -> list[Sequence[ArmKey]]:
    """Share arms among processes: nearly as many to each, of as few seeds as can be; some processes may have none.

    Seeds may have orders of the data of their own, and arms of one order share the teacher's answers.
    """
    ordered = sorted(arms, key=lambda arm: arm.seed)
    edges = [len(ordered) * part // count for part in range(count + 1)]
    return [ordered[first:last] for first, last in itertools.pairwise(edges)]


class ArmsInTraining:
    """What is known of a sweep's arms so far; every finished arm goes into scores.csv at once.

    Args:
        root: the sweep's directory.
        arms: of the sweep.
        elsewhere: the directories of arms that other processes train, looked into when the table is written.
        writes: whether this process writes the table.
    """

    def __init__(
        self,
        root: SweepDirectory,
        arms: Sequence[ArmKey],
        elsewhere: Mapping[ArmKey, RunDirectory] | None = None,
        *,
        writes: bool = True,
    ) -> None:
        self.results: dict[ArmKey, RunResult] = {}
        self.errors: dict[ArmKey, Exception] = {}
        self._root = root
        self._arms = arms
        self._elsewhere = dict(elsewhere or {})
        self._writes = writes
        self._teachers: list[SharedTeacher] = []

    def keep(self, key: ArmKey, result: RunResult) -> None:
        """Take in a finished arm."""
        self.results[key] = result
        self.look_elsewhere()

    def look_elsewhere(self) -> None:
        """Take in what other processes have finished, and write the table."""
        for key, directory in self._elsewhere.items():
            if key not in self.results and directory.finished:
                self.results[key] = stored_result(directory)
        if self._writes:
            self._root.write_scores(self.scores())

    def train(
        self,
        wave: Sequence[PlannedArm],
        loaded: TaskModel,
        prepared: PreparedData,
        record: Mapping[str, Any],
        bar: SweepBar,
    ) -> None:
        """Train arms side by side and finish each as it ends."""
        objectives = [objective_of_plan(one.plan, one.settings, prepared) for one in wave]
        shared = SharedTeacher(loaded.model, objectives, wave[0].settings.teacher_device)
        self._teachers.append(shared)
        arms = []
        for one in wave:
            arm = build_arm(
                loaded,
                prepared,
                one.plan,
                one.directory,
                one.settings,
                teacher_forward=shared,
                teacher_record=record,
            )
            arm.trainer.add_callback(bar)
            arms.append(arm)
        keys = {id(arm): one.key for arm, one in zip(arms, wave, strict=True)}

        def finish(arm: Arm) -> None:
            self.keep(keys[id(arm)], finish_arm(arm))
            bar.finished()

        outcomes = train_side_by_side(arms, shared, finish)
        for one, arm, outcome in zip(wave, arms, outcomes, strict=True):
            if outcome.error is not None:
                self.errors[one.key] = outcome.error
                bar.drop(arm.trainer.state)
        arms.clear()
        # Trainers are full of reference cycles; the next arms need the memory now.
        gc.collect()

    def scores(self) -> pd.DataFrame:
        """Return the table of finished arms, in the order of the grid."""
        return pd.DataFrame(
            [row for key in self._arms if key in self.results for row in score_rows(key, self.results[key])]
        )

    def failures(self) -> dict[str, str]:
        """Return in words what ended the arms that failed."""
        return {
            key.name: str(error) if isinstance(error, AnglekitError) else f"{type(error).__name__}: {error}"
            for key, error in self.errors.items()
        }

    def session(self) -> dict[str, Any]:
        """Return what this process did."""
        return {
            "teacher_passes": sum(one.passes for one in self._teachers),
            "teacher_answers": sum(one.answers for one in self._teachers),
            "teacher_seconds": round(sum(one.seconds for one in self._teachers), 3),
        }


def train_side_by_side(arms: Sequence[Arm], teacher: SharedTeacher, finish: Callable[[Arm], None]) -> list[Outcome]:
    """Train arms in lockstep over the teacher that they share.

    Args:
        arms: built with `teacher_forward=teacher`, each directory held. A directory is let go when its arm ends.
        teacher: of all of them.
        finish: called in the arm's own turn after its last step.

    Returns:
        How each arm ended.
    """
    if not arms:
        return []
    device = arms[0].trainer.args.device
    teacher.to(device)

    def task(arm: Arm) -> Callable[[Turn], None]:
        def work(turn: Turn) -> None:
            with arm.directory:
                arm.trainer.add_callback(HandOver(turn))
                arm.train()
                arm.train_seconds = turn.seconds
                finish(arm)

        return work

    for arm in arms:
        collate = arm.trainer.data_collator
        if not isinstance(collate, MarkedBatches):
            arm.trainer.data_collator = MarkedBatches(collate)
    return take_turns(
        [task(arm) for arm in arms], device=device, when_all_passed=teacher.forget, clock=teacher.students_clock
    )
