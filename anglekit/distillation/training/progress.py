"""Shows training: a bar over the steps of one model or of many, and a file with a line for every log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from anglekit.runtime.files import write_whole


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

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Close the bar."""
        self.close()

    def close(self) -> None:
        """Close the bar, also after a run that failed."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class SweepBar(TrainerCallback):
    """One bar over the optimiser steps of all arms, with the time left.

    Args:
        arms: that will train, all for the same number of steps.
        shown: whether there is a bar at all.
    """

    def __init__(self, arms: int, *, shown: bool) -> None:
        self._arms = arms
        self._shown = shown
        self._done = 0
        self._bar: tqdm[Any] | None = None

    def __enter__(self) -> SweepBar:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Open the bar with the first arm; earlier steps of a resumed arm do not count for the speed."""
        if self._bar is None and self._shown:
            total = self._arms * state.max_steps
            self._bar = tqdm(total=total, desc="sweep", unit="step", dynamic_ncols=True, smoothing=0.05)
            self._bar.set_postfix_str(f"0/{self._arms} students")
        if self._bar is not None:
            self._bar.initial += state.global_step
            self._bar.n += state.global_step

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Move on."""
        if self._bar is not None:
            self._bar.update()

    def finished(self) -> None:
        """Count an arm that is finished."""
        self._done += 1
        if self._bar is not None:
            self._bar.set_postfix_str(f"{self._done}/{self._arms} students")

    def drop(self, state: TrainerState) -> None:
        """Remove the steps that a failed arm will not take."""
        if self._bar is not None and self._bar.total is not None:
            self._bar.total -= state.max_steps - state.global_step
            self._bar.refresh()


class MetricsFile(TrainerCallback):
    """Appends every log as a line of json; a resumed run first drops the lines of steps that it repeats.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Keep the lines up to the step at which training begins."""
        if state.is_world_process_zero and self.path.exists():
            lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
            # A killed process may have left half a line, or the last line of its session, which will be written again.
            logs = ((line, _log_of(line)) for line in lines if line.endswith("\n"))
            kept = [line for line, log in logs if log is not None and log["step"] <= state.global_step]
            write_whole(self.path, "".join(kept))

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


def _log_of(line: str) -> dict[str, Any] | None:
    """Return a line of the file as the log of a step; None for the last line of a session and for invalid lines."""
    try:
        log = json.loads(line)
    except (ValueError, RecursionError):
        return None
    usable = isinstance(log, dict) and type(log.get("step")) is int and "train_runtime" not in log
    return log if usable else None
