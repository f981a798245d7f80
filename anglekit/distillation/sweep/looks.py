"""The validations of a sweep's arms as looks at which hopeless strategies are stopped; see `stopping` for the rule.

The arms of one initialisation wait for each other after every validation. Then all of them are judged together, those
that go on do as they would have done, and those that are stopped leave their directory as it is: with its log, and with
the checkpoint from which it can go on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from anglekit.distillation.runs.run import Run
from anglekit.distillation.sweep.directory import Arm, LookRecord, StoppingRecord
from anglekit.distillation.sweep.lockstep import Turn
from anglekit.distillation.sweep.stopping import LEVEL, MARGIN, OPTION, Array, judge, kept_so_far, level_of_a_test
from anglekit.distillation.tasks.task import Task
from anglekit.errors import InputError
from anglekit.results.example_scores import UNTRAINED, ExampleColumns
from anglekit.runtime.files import read_document, write_json
from anglekit.vocabulary import RIGHT_OR_WRONG, matches_layers

# In the folder of what a run needs to go on.
_ANSWERS_FILE: Final = "answers.json"
_REMEDY: Final = "remove it: the arm is then not judged"


class _Answers(msgspec.Struct, kw_only=True):
    """answers.json: which examples of the validation table a student answered rightly, by step: a 0 or 1 for each."""

    score: str
    right: dict[str, str] = {}

    @classmethod
    def read(cls, file: Path, score: str) -> _Answers:
        """Return what a file holds of a score; nothing where there is none, or it is damaged."""
        if file.is_file():
            try:
                found = read_document(file, cls, _REMEDY)
            except InputError:
                return cls(score=score)
            lengths = {len(one) for one in found.right.values()}
            if found.score == score and len(lengths) <= 1 and all(map(str.isdecimal, found.right)):
                return found
        return cls(score=score)

    def scores(self) -> dict[int, Array]:
        """Return each example's score by step, (examples,)."""
        ones = {int(step): np.frombuffer(text.encode(), np.uint8) == ord("1") for step, text in self.right.items()}
        return {step: ones[step].astype(np.float64) for step in sorted(ones)}


@dataclass(frozen=True, eq=False)
class LookPlan:
    """When a sweep looks, and at what.

    Attributes:
        score: the task's own, whose examples are right or wrong.
        data: the validation table.
        every: steps between looks.
        steps: of a run.
        best: whether the checkpoint of the best validation is kept, not the last.
        arms: of the strategies that are judged, those of all seeds, by initialisation and strategy.
    """

    score: str
    data: str
    every: int
    steps: int
    best: bool
    arms: Mapping[str, Mapping[str, Sequence[Arm]]]

    @property
    def looks(self) -> int:
        """How many there are: no look at the last step, when nothing is left to save."""
        return (self.steps - 1) // self.every

    @property
    def level(self) -> float:
        """The level of a test. Where the best checkpoint is kept, any look of one may meet any look of another."""
        pairs = [len(own) * (len(own) - 1) for own in self.arms.values()]
        return level_of_a_test(self.looks**2 if self.best else self.looks, sum(pairs))


class Looks:
    """Stops the strategies of a sweep that surely end below the best.

    Args:
        plan: when to look.
        stopped: the arms that an earlier session stopped, and the step of each.
        looks: what earlier sessions saw.
        answers: the folder in which an arm's answers are kept.
        told: called with this object after every look that was new.

    Attributes:
        stopped: arms, and the step of each.
        looks: what was seen, in order.
    """

    def __init__(
        self,
        plan: LookPlan,
        *,
        stopped: Mapping[Arm, int],
        looks: Sequence[LookRecord],
        answers: Callable[[Arm], Path],
        told: Callable[[Looks], None],
    ) -> None:
        self.plan = plan
        self.stopped = dict(stopped)
        self.looks = list(looks)
        self._folder = answers
        self._told = told
        self._answers = {arm: _Answers.read(self._file(arm), plan.score) for arm in self.stopped}

    def _file(self, arm: Arm) -> Path:
        return self._folder(arm) / _ANSWERS_FILE

    @property
    def record(self) -> StoppingRecord:
        """How it was decided, as sweep.json holds it."""
        plan = self.plan
        return StoppingRecord(
            score=plan.score,
            data=plan.data,
            level=LEVEL,
            level_of_a_test=plan.level,
            margin=MARGIN,
            steps=plan.steps,
            steps_saved=self.steps_saved,
            looks=self.looks,
        )

    @property
    def steps_saved(self) -> int:
        """The optimiser steps that stopped arms did not take."""
        return sum(self.plan.steps - step for step in self.stopped.values())

    def watched(self, arm: Arm) -> bool:
        """Return whether an arm is judged; controls and `none`, which a verdict needs, never are."""
        return arm in self.plan.arms.get(arm.init, {}).get(arm.strategy, ())

    def watch(self, run: Run, arm: Arm) -> ArmWatch:
        """Return what looks at an arm that is about to train, from its start or from where it goes on."""
        begun = 0 if run.resume_from is None else int(Path(run.resume_from).name.rpartition("-")[2])
        kept = _Answers.read(self._file(arm), self.plan.score)
        kept.right = {step: one for step, one in kept.right.items() if int(step) <= begun}
        self._answers[arm] = kept
        if run.references is not None and (UNTRAINED, self.plan.data) in run.references:
            self._keep(arm, 0, run.references.tables[UNTRAINED, self.plan.data])
        return ArmWatch(self, run, arm)

    def _keep(self, arm: Arm, step: int, columns: ExampleColumns) -> None:
        right: NDArray[Any] = np.asarray(columns[self.plan.score]) != 0
        self._answers[arm].right[str(step)] = "".join("1" if one else "0" for one in right)

    def saw(self, arm: Arm, step: int, columns: ExampleColumns) -> None:
        """Take in the answers of an arm at a validation."""
        self._keep(arm, step, columns)
        write_json(self._file(arm), self._answers[arm])

    def judge(self, arm: Arm, step: int, training: Array) -> bool:
        """Return whether an arm is stopped; the first of an initialisation that asks at a step has all of it judged.

        Args:
            arm: whose turn it is; all others have been validated at this step too, or ended.
            step: of the validation.
            training: how much training lies behind each step, (steps + 1,).
        """
        if not any((one.init, one.step) == (arm.init, step) for one in self.looks):
            self._look(arm.init, step, training)
        return arm in self.stopped

    def _look(self, init: str, step: int, training: Array) -> None:
        every = self.plan.every
        arms = {name: own for name, own in self.plan.arms[init].items() if all(one in self._answers for one in own)}
        scores = {name: [self._answers[one].scores() for one in own] for name, own in arms.items()}
        started = all(0 in one for own in scores.values() for one in own)
        steps = [*([0] if started else []), *range(every, step + 1, every)]
        curves = {}
        for name, own in scores.items():
            ends = {self.stopped.get(arm, step) for arm in arms[name]}
            wanted = [one for one in steps if one <= min(ends)]
            # A strategy of which a student failed, or that was not seen from the start, is not judged.
            if wanted and all(one in answers for answers in own for one in wanted):
                curves[name] = self._mean(own, wanted)
        if sum(len(curve) == len(steps) for curve in curves.values()) < 2:
            return
        found = judge(curves, training[steps], float(training[-1]), level=self.plan.level)
        for name in found.hopeless:
            self.stopped |= dict.fromkeys(arms[name], step)
        best = found.means[found.best]
        self.looks.append(
            LookRecord(
                init=init,
                step=step,
                training=round(float(training[step] / training[-1]), 6),
                best=found.best,
                below={name: round(best - mean, 6) for name, mean in found.means.items()},
                gain=round(found.gain, 6),
                stopped=list(found.hopeless),
            )
        )
        self._told(self)

    def _mean(self, students: Sequence[Mapping[int, Array]], steps: Sequence[int]) -> Array:
        """Return the mean over seeds of the students that would be kept at each look, (looks, examples)."""
        own = [[answers[step] for step in steps] for answers in students]
        return np.asarray(np.mean([kept_so_far(one) if self.plan.best else one for one in own], axis=0), np.float64)


class ArmWatch(TrainerCallback):
    """Looks at one arm while it trains: lets the others be validated too, and ends its training if it is hopeless.

    Args:
        looks: what judges it.
        run: of the arm.
        arm: which one.

    Attributes:
        stopped: whether it ended the training.
    """

    def __init__(self, looks: Looks, run: Run, arm: Arm) -> None:
        self.stopped = False
        self._looks = looks
        self._run = run
        self._arm = arm
        self._turn: Turn | None = None
        self._training: Array | None = None
        self._seen: list[ExampleColumns] = []

    def begin(self, turn: Turn) -> None:
        """Take part in the training, in the arm's own turn."""
        self._turn = turn
        self._run.tell_examples(self._seen.append)
        self._run.trainer.add_callback(self)

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        lr_scheduler: Any = None,  # noqa: ANN401 - torch's, perhaps wrapped
        **_: object,
    ) -> None:
        """Learn how much training each step is."""
        self._training = training_behind(lr_scheduler, state.max_steps)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Judge the arm once all were validated."""
        columns, step = self._seen[-1], state.global_step
        self._seen.clear()
        if self._turn is None or self._training is None or step >= state.max_steps or step % self._looks.plan.every:
            return
        self._looks.saw(self._arm, step, columns)
        # Behind the step, and before the next one's micro-batches.
        self._turn.pass_on((step, 0, 1))
        if self._looks.judge(self._arm, step, self._training):
            self.stopped = control.should_training_stop = True


def training_behind(schedule: Any, steps: int) -> Array:  # noqa: ANN401 - torch's, perhaps wrapped by accelerate
    """Return how much training lies behind each step, (steps + 1,): the sum of the learning rates, by their base.

    Of a schedule that does not say beforehand what it will do, the number of steps.
    """
    factors = getattr(getattr(schedule, "scheduler", schedule), "lr_lambdas", None)
    rates = [1.0] * steps if not factors else [float(factors[0](step)) for step in range(steps)]
    return np.concatenate([[0.0], np.cumsum(rates)])


# ---- what cannot be ----


def check_stopping(task: Task, strategies: Sequence[str], *, validated: bool, processes: int) -> None:
    """Refuse to stop hopeless arms where they cannot be judged.

    Raises:
        InputError: a task whose score is not of single examples, no validation table, fewer than two strategies that
            match layers, or several processes.
    """
    if task.selection_score not in RIGHT_OR_WRONG:
        able = ", ".join(sorted(RIGHT_OR_WRONG))
        raise InputError(
            f"{OPTION} came with task {task.name}, and its score {task.selection_score} is not one of single examples",
            f"leave it out; it needs one of {able}",
        )
    if not validated:
        raise InputError(f"{OPTION} came without a validation table", "give --validation, or leave it out")
    matching = [name for name in strategies if matches_layers(name)]
    if len(matching) < 2:
        came = f"only {matching[0]}" if matching else "no strategy"
        raise InputError(
            f"{OPTION} came, and {came} matches layers", "give at least two such strategies, or leave it out"
        )
    if processes > 1:
        raise InputError(
            f"{OPTION} came with {processes} processes, which share the arms of one strategy",
            "start one process, or leave it out",
        )


def check_side_by_side(arms: Sequence[Arm], over: Collection[str], side_by_side: int) -> None:
    """Refuse an initialisation whose arms do not all train at the same time.

    Args:
        arms: of the sweep.
        over: the names of those that are finished or were stopped.
        side_by_side: how many train at the same time.

    Raises:
        InputError: that is so.
    """
    left = Counter(arm.init for arm in arms if arm.name not in over)
    for init, number in left.items():
        if number > side_by_side:
            raise InputError(
                f"{OPTION} judges the {number} students of init {init} together, and {side_by_side} train side by side",
                f"--side-by-side {number} (about three times their weights in memory), or fewer seeds",
            )
