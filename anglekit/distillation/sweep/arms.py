"""The arms of a sweep while they train: in groups side by side over a shared teacher, each finished as it ends."""

from __future__ import annotations

import gc
import itertools
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import pandas as pd

from anglekit.distillation.losses.objective import DistillationObjective
from anglekit.distillation.matching.plan import DistillationPlan
from anglekit.distillation.runs.directory import RunDirectory
from anglekit.distillation.runs.run import (
    Run,
    RunResult,
    begin_distillation,
    objective_of_plan,
    teacher_drops,
    teacher_keeping,
)
from anglekit.distillation.runs.scoring import ReferenceScores
from anglekit.distillation.settings import TrainSettings
from anglekit.distillation.students.given import CheckedStudent
from anglekit.distillation.sweep.directory import Arm, SweepDirectory, score_rows
from anglekit.distillation.sweep.lockstep import HandOver, Outcome, Turn, take_turns
from anglekit.distillation.sweep.looks import ArmWatch, Looks
from anglekit.distillation.sweep.shared_teacher import MarkedBatches, SharedTeacher
from anglekit.distillation.tasks.models import ModelProvenance, TaskModel
from anglekit.distillation.tasks.prepared_data import PreparedData
from anglekit.distillation.training.attention_recorder import show_maps
from anglekit.distillation.training.progress import SweepBar
from anglekit.distillation.training.teacher import TeacherProvider
from anglekit.distillation.training.untrained_teacher import HiddenOfAnother, untrained_teacher
from anglekit.errors import AnglekitError


@dataclass(frozen=True, eq=False)
class PlannedArm:
    """One arm before it is built."""

    arm: Arm
    directory: RunDirectory
    settings: TrainSettings
    plan: DistillationPlan
    given: CheckedStudent | None = None


def waves(entries: Sequence[PlannedArm], side_by_side: int) -> list[Sequence[PlannedArm]]:
    """Return the arms in as few groups as `side_by_side` allows, of about the same size."""
    if not entries:
        return []
    size = -(-len(entries) // -(-len(entries) // side_by_side))
    return [entries[first : first + size] for first in range(0, len(entries), size)]


def waves_of_inits(entries: Sequence[PlannedArm], side_by_side: int) -> list[Sequence[PlannedArm]]:
    """Return the arms in groups of whole initialisations, each of at most `side_by_side` arms if one is.

    Arms that are judged together train together.
    """
    found: list[list[PlannedArm]] = []
    for init in dict.fromkeys(one.arm.init for one in entries):
        own = [one for one in entries if one.arm.init == init]
        if found and len(found[-1]) + len(own) <= side_by_side:
            found[-1] += own
        else:
            found.append(own)
    return list(found)


def share_arms(arms: Sequence[Arm], count: int) -> list[Sequence[Arm]]:
    """Share arms among processes: about as many to each, from as few seeds as possible; some may get none.

    Each seed may have its own order of the data, and only arms of one order share the teacher's answers.
    """
    ordered = sorted(arms, key=lambda arm: arm.seed)
    edges = [len(ordered) * part // count for part in range(count + 1)]
    return [ordered[first:last] for first, last in itertools.pairwise(edges)]


@dataclass
class _Session:
    """What teachers did so far, as `SweepResult` and sweep.json say it."""

    teacher_passes: int = 0
    teacher_answers: int = 0
    untrained_passes: int = 0
    untrained_answers: int = 0
    teacher_seconds: float = 0.0

    def add(self, trained: SharedTeacher, untrained: Iterable[SharedTeacher]) -> None:
        """Add what the teachers of one group of arms did."""
        self.teacher_passes += trained.passes
        self.teacher_answers += trained.answers
        self.teacher_seconds += trained.seconds
        for teacher in untrained:
            self.untrained_passes += teacher.passes
            self.untrained_answers += teacher.answers
            self.teacher_seconds += teacher.seconds


class ArmsInTraining:
    """The results of a sweep's arms so far; every finished arm goes into scores.csv at once.

    Args:
        root: the sweep's directory.
        arms: the arms of the sweep.
        elsewhere: the directories of arms that other processes train; they are checked for finished arms.
        writes: whether this process writes the table.
        looks: stop hopeless arms; None: nothing is stopped.
    """

    def __init__(
        self,
        root: SweepDirectory,
        arms: Sequence[Arm],
        elsewhere: Mapping[Arm, RunDirectory] | None = None,
        *,
        writes: bool = True,
        looks: Looks | None = None,
    ) -> None:
        self.results: dict[Arm, RunResult] = {}
        self.errors: dict[Arm, Exception] = {}
        self._root = root
        self._arms = arms
        self._elsewhere = dict(elsewhere or {})
        self._writes = writes
        self._looks = looks
        self._session = _Session()
        self._references: ReferenceScores | None = None

    def keep(self, arm: Arm, result: RunResult) -> None:
        """Take in a finished arm."""
        self.results[arm] = result
        self.look_elsewhere()

    def look_elsewhere(self) -> None:
        """Take in what other processes have finished, and write the table."""
        for arm, directory in self._elsewhere.items():
            if arm not in self.results and directory.finished:
                self.results[arm] = RunResult.stored(directory)
        if self._writes:
            self._root.write_scores(self.scores())

    def train(
        self,
        wave: Sequence[PlannedArm],
        loaded: TaskModel,
        prepared: PreparedData,
        origin: ModelProvenance,
        bar: SweepBar,
    ) -> None:
        """Train arms side by side and finish each as it ends."""
        objectives = [objective_of_plan(one.plan, one.settings, prepared) for one in wave]
        show_maps(objectives[0], loaded.model)
        shared, untrained = _teachers(wave, objectives, loaded, origin)
        runs: dict[Run, Arm] = {}
        for one, objective in zip(wave, objectives, strict=True):
            teaching: TeacherProvider = shared
            if one.plan.reads_untrained_teacher:
                logits = shared if objective.reads_teacher_logits else None
                teaching = HiddenOfAnother(logits, untrained[one.plan.seed])
            run = begin_distillation(
                loaded,
                prepared,
                one.plan,
                one.directory,
                one.settings,
                teacher_forward=teaching,
                origin=origin,
                group=self._root.path.resolve().name,
                given=one.given,
            )
            run.trainer.add_callback(bar)
            run.follows = bar
            runs[run] = one.arm
        if self._references is None:
            self._references = ReferenceScores(prepared, wave[0].settings, bar, shared=True)
        shared.to(next(iter(runs)).trainer.args.device)
        for run in runs:
            # Before the turns, whose time is the training alone.
            run.score_references(self._references)

        def finish(run: Run) -> None:
            self.keep(runs[run], run.finish())
            bar.finished()

        scored = sum(map(prepared.task.scoring_passes, prepared.evaluations.values()))
        looks = self._looks
        watched = {} if looks is None else {run: arm for run, arm in runs.items() if looks.watched(arm)}
        watching = {run: looks.watch(run, arm) for run, arm in watched.items()} if looks is not None else {}
        outcomes = train_side_by_side(list(runs), (shared, *untrained.values()), finish, watching)
        shared.flush()
        # The numbers only: an untrained teacher is not needed again.
        self._session.add(shared, untrained.values())
        for (run, arm), outcome in zip(runs.items(), outcomes, strict=True):
            if outcome.error is not None:
                self.errors[arm] = outcome.error
            if arm not in self.results:
                bar.drop(run.trainer.state, scored)
        runs.clear()
        # Trainers are full of reference cycles; the next arms need the memory now.
        gc.collect()

    def scores(self) -> pd.DataFrame:
        """Return the table of finished arms, in the order of the grid."""
        return pd.DataFrame(
            [row for arm in self._arms if arm in self.results for row in score_rows(arm, self.results[arm])]
        )

    def failures(self) -> dict[str, str]:
        """Return in words what ended the arms that failed."""
        return {
            arm.name: str(error) if isinstance(error, AnglekitError) else f"{type(error).__name__}: {error}"
            for arm, error in self.errors.items()
        }

    def session(self) -> dict[str, Any]:
        """Return what this process did."""
        return asdict(self._session)


def _teachers(
    wave: Sequence[PlannedArm],
    objectives: Sequence[DistillationObjective],
    loaded: TaskModel,
    origin: ModelProvenance,
) -> tuple[SharedTeacher, dict[int, SharedTeacher]]:
    """Return the trained teacher that arms share, and by seed the untrained ones of control arms."""
    trained: list[DistillationObjective] = []
    by_seed: dict[int, list[DistillationObjective]] = defaultdict(list)
    for one, objective in zip(wave, objectives, strict=True):
        (by_seed[one.plan.seed] if one.plan.reads_untrained_teacher else trained).append(objective)
    device, drops = wave[0].settings.teacher_device, teacher_drops(wave[0].plan)
    untrained = {
        seed: SharedTeacher(untrained_teacher(loaded.model, seed), own, device, logits_for=(), dropout=drops)
        for seed, own in by_seed.items()
    }
    kept = teacher_keeping(wave[0].settings, origin)
    return SharedTeacher(loaded.model, trained, device, kept=kept, logits_for=objectives, dropout=drops), untrained


def train_side_by_side(
    runs: Sequence[Run],
    teachers: Sequence[SharedTeacher],
    finish: Callable[[Run], None],
    watching: Mapping[Run, ArmWatch] | None = None,
) -> list[Outcome]:
    """Train runs in lockstep over the teachers that they share, and return how each ended.

    The runs were begun with a `teacher_forward` that asks these teachers. This process holds each directory until its
    run ends. `finish` is called in the run's own turn after its last step; a run that its watch
    stopped before is left as it is.
    """
    if not runs:
        return []
    device = runs[0].trainer.args.device
    for teacher in teachers:
        teacher.to(device)
    for run in runs:
        collate = run.trainer.data_collator
        if not isinstance(collate, MarkedBatches):
            run.trainer.data_collator = MarkedBatches(collate)

    def forget() -> None:
        for teacher in teachers:
            teacher.forget()

    def students_clock() -> float:
        """Return a time in seconds that stands still while a teacher runs."""
        return time.perf_counter() - sum(teacher.seconds for teacher in teachers)

    return take_turns(
        [partial(_train_in_turns, run, finish, (watching or {}).get(run)) for run in runs],
        device=device,
        when_all_passed=forget,
        clock=students_clock,
    )


def _train_in_turns(run: Run, finish: Callable[[Run], None], watch: ArmWatch | None, turn: Turn) -> None:
    with run.directory:
        run.trainer.add_callback(HandOver(turn))
        if watch is not None:
            watch.begin(turn)
        run.train()
        run.train_seconds = turn.seconds
        if watch is not None and watch.stopped:
            run.leave()
        else:
            finish(run)
