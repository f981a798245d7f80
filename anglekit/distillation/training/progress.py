"""Shows training: a bar over the steps of one model or of many, and a file with a line for every log."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from anglekit.results.training_records import log_of_line
from anglekit.runtime.files import write_whole


class FollowsScoring(Protocol):
    """Shows how far the scoring of models is."""

    def scoring(self, what: str, examples: int) -> AbstractContextManager[Callable[[int], None]]:
        """Show the scoring of a model (`what`) during a block; what it yields is told how many examples are done."""

    def without_scoring(self, examples: int) -> None:
        """Leave out a model that need not be scored."""


class ScoringBars:
    """A bar of its own for each model that is scored.

    Args:
        shown: whether there is a bar at all.
    """

    def __init__(self, *, shown: bool) -> None:
        self._shown = shown

    @contextmanager
    def scoring(self, what: str, examples: int) -> Iterator[Callable[[int], None]]:
        """Show a bar over the examples; see `FollowsScoring`."""
        shown = self._shown and examples > 0
        with tqdm(total=examples, desc=f"scoring {what}", unit="example", dynamic_ncols=True, disable=not shown) as bar:

            def advance(more: int) -> None:
                bar.update(more)

            yield advance

    def without_scoring(self, examples: int) -> None:
        """Show nothing."""


class TrainingBar(TrainerCallback):
    """One bar over all optimiser steps, with the time left, the loss and the last validation score.

    Args:
        title: what is being trained.
        score: the name of the validation score to show.
    """

    def __init__(self, title: str, score: str) -> None:
        self.title = title
        self.score = score
        self._bar: tqdm[Any] | None = None
        self._shown: dict[str, str] = {}
        self._validates = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Open the bar, for a resumed run at its present step."""
        if state.is_world_process_zero:
            self._bar = tqdm(
                total=state.max_steps, initial=state.global_step, desc=self.title, unit="step", dynamic_ncols=True
            )

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Move on."""
        if self._bar is not None:
            self._bar.update(state.global_step - self._bar.n)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: object,
    ) -> None:
        """Show the loss, and the score after a validation."""
        shown = {"loss": "loss", f"eval_{self.score}": self.score}
        new = {name: f"{value:.4g}" for key, name in shown.items() if (value := (logs or {}).get(key)) is not None}
        self._shown |= new
        if self._bar is not None and new:
            self._bar.set_postfix(self._shown)

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Say that a validation runs, during which the bar stands still."""
        if self._bar is not None and not self._validates:
            self._validates = True
            self._bar.set_postfix(self._shown | {"now": "validating"})

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Say no longer that a validation runs."""
        if self._bar is not None and self._validates:
            self._validates = False
            self._bar.set_postfix(self._shown)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Close the bar."""
        self.close()

    def close(self) -> None:
        """Close the bar, also after a run that failed."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class SweepBar(TrainerCallback):
    """One bar over the work of all arms, with the time left: optimiser steps, and what is scored before and after.

    The scoring of as many examples as a step reads counts as a step.

    Args:
        arms: that will train, all for the same number of steps.
        steps: of each, as far as is known before training.
        scored: examples that go through a model that is scored: each arm before and after training, and its teacher;
            `without_scoring` takes away what was scored for an earlier arm.
        step_examples: examples of an optimiser step.
        shown: whether there is a bar at all.
    """

    def __init__(self, arms: int, *, steps: int, scored: int, step_examples: int, shown: bool) -> None:
        self._arms = arms
        self._steps = steps
        self._step_examples = step_examples
        self._total = arms * (steps + 3 * self._as_steps(scored))
        self._shown = shown and arms > 0
        self._done = 0
        self._doing = ""
        self._bar: tqdm[Any] | None = None

    def __enter__(self) -> SweepBar:
        if self._shown:
            self._bar = tqdm(total=self._total, desc="sweep", unit="step", dynamic_ncols=True, smoothing=0.05)
            self._say()
        return self

    def __exit__(self, *_error: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def _as_steps(self, examples: int) -> int:
        return -(-examples // self._step_examples)

    def _say(self) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(f"{self._done}/{self._arms} students{self._doing}")

    def _lengthen(self, steps: int) -> None:
        if self._bar is not None and self._bar.total is not None:
            self._bar.total += steps
            self._bar.refresh()

    @contextmanager
    def scoring(self, what: str, examples: int) -> Iterator[Callable[[int], None]]:
        """Count the scoring of a model as steps; see `FollowsScoring`."""
        scored = counted = 0

        def advance(more: int) -> None:
            nonlocal scored, counted
            scored += more
            new = self._as_steps(scored) - counted
            counted += new
            if self._bar is not None and new:
                self._bar.update(new)

        self._doing = f", scoring {what}"
        self._say()
        try:
            yield advance
        finally:
            self._doing = ""
            self._say()

    def without_scoring(self, examples: int) -> None:
        """Take the scoring of a model from what is to be done."""
        self._lengthen(-self._as_steps(examples))

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Correct the number of steps; earlier steps of a resumed arm do not count for the speed."""
        if state.max_steps != self._steps:
            self._lengthen(self._arms * (state.max_steps - self._steps))
            self._steps = state.max_steps
        if self._bar is not None:
            self._bar.initial += state.global_step
            self._bar.n += state.global_step

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Move on."""
        if self._bar is not None:
            self._bar.update()

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Say that a validation runs, during which the bar stands still."""
        if not self._doing:
            self._doing = ", validating"
            self._say()

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Say no longer that a validation runs."""
        self._doing = ""
        self._say()

    def finished(self) -> None:
        """Count an arm that is finished."""
        self._done += 1
        self._say()

    def drop(self, state: TrainerState, examples: int) -> None:
        """Remove the steps that a failed arm will not take, and its scoring."""
        self._lengthen(state.global_step - state.max_steps - self._as_steps(examples))


class MetricsFile(TrainerCallback):
    """Appends every log as a line of json; a resumed run first drops the lines of steps that it repeats.

    The last step is logged too, whatever the steps between logs.

    Args:
        path: the file.
        log_steps: from the number of steps of a run to those between its logs; None leaves them as they are.
    """

    def __init__(self, path: Path, log_steps: Callable[[int], int] | None = None) -> None:
        self.path = path
        self._log_steps = log_steps

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Keep the lines up to the step at which training begins."""
        if self._log_steps is not None:
            state.logging_steps = self._log_steps(state.max_steps)
        if state.is_world_process_zero and self.path.exists():
            lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
            # A killed process may have left half a line, or the last line of its session, which will be written again.
            logs = ((line, log_of_line(line)) for line in lines if line.endswith("\n"))
            kept = [line for line, log in logs if log is not None and log["step"] <= state.global_step]
            write_whole(self.path, "".join(kept))

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Ask for a log of the last step."""
        if state.global_step >= state.max_steps:
            control.should_log = True

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: object,
    ) -> None:
        """Write one line."""
        if state.is_world_process_zero:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": state.global_step, **(logs or {})}) + "\n")
