"""A run's log goes to experiment trackers, through transformers' own integrations.

`TrainingArguments.report_to` does for one training loop. But it puts TensorBoard's files where they are removed when
the run is finished, ends a tracker's run before the trained model is scored, and gives all students that a sweep trains
side by side one run together, because most trackers hold one open run in a process.
"""

from __future__ import annotations

import copy
import importlib
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import PIL.Image
from matplotlib.figure import Figure
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations.integration_utils import (
    INTEGRATION_TO_CALLBACK,
    MLflowCallback,
    TensorBoardCallback,
    WandbCallback,
)

from anglekit.distillation.training.process_states import ProcessStates
from anglekit.errors import AnglekitError, RunError
from anglekit.plots.files import figure_bytes

_TENSORBOARD: Final = "tensorboard"
_DPI: Final = 150
_EVENTS: Final = "TENSORBOARD_LOGGING_DIR"
_TAKE_FIGURES: Final = (TensorBoardCallback, WandbCallback, MLflowCallback)
# Of the packages whose integrations leave the run open: what tells whether one is, and what ends it.
_LEFT_OPEN: Final = {
    "wandb": ("run", "finish"),
    "comet_ml": ("get_running_experiment", "end"),
    "swanlab": ("get_run", "finish"),
}


@dataclass(frozen=True)
class TrackedRun:
    """What trackers call a run.

    Attributes:
        name: of the run.
        events: where TensorBoard's files go, unless the environment names a place.
        group: of the runs of one sweep, which train side by side; None for a run that stands alone.
    """

    name: str
    events: Path
    group: str | None = None


class Trackers(TrainerCallback):
    """Tells trackers what a run logs, from before a model is scored until the trained one is.

    TensorBoard is told at once. So are the others of a run that stands alone; of runs that train side by side each gets
    its whole log when it ends. A resumed run is a new one to them, with the log from its first step. Random states stay
    as they are: a tracker may draw the name of a run.

    Args:
        names: in `settings.TRACKERS`.
        run: what trackers call the run.

    Raises:
        RunError: here and from any method, a tracker fails: it has no account, or cannot be reached.
    """

    def __init__(self, names: Sequence[str], run: TrackedRun) -> None:
        self._run = run
        self._open = False
        self._users: set[str] = set()
        self._begun: dict[str, Any] = {}
        self._live: dict[str, Any] = {}
        self._later: dict[str, Any] = {}
        for name in names:
            with _failures_of(name):
                one = INTEGRATION_TO_CALLBACK[name]()
            if name == _TENSORBOARD:
                elsewhere = os.environ.get(_EVENTS)
                within = run.name if run.group else ""
                one.logging_dir = str(run.events if elsewhere is None else Path(elsewhere).expanduser() / within)
            (self._live if run.group is None or name == _TENSORBOARD else self._later)[name] = one

    @property
    def begun(self) -> tuple[TrainerCallback, ...]:
        """The integrations whose runs are open."""
        return tuple(self._begun.values()) if self._open else ()

    def begin(self, trainer: Trainer) -> None:
        """Open the runs of those that are told at once."""
        self._open = True
        self._users = {name for name in self._live if _run_is_open(name)}
        for name, one in self._live.items():
            _tell({name: one}, "on_train_begin", trainer.args, trainer.state, model=trainer.model)
            self._begun[name] = one

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Tell what a run logged before it was resumed; TensorBoard's files have it."""
        _tell_history({name: one for name, one in self._live.items() if name != _TENSORBOARD}, args, state)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: object,
    ) -> None:
        """Pass on what was logged."""
        if self._open:
            _tell(self._live, "on_log", args, state, logs=dict(logs or {}))

    def end(
        self,
        trainer: Trainer,
        numbers: Mapping[str, float] | None = None,
        figure: Figure | None = None,
        *,
        interrupted: bool = False,
    ) -> None:
        """Close the trackers' runs, after the last numbers and a figure of them; nothing where they are not open.

        One that was interrupted will be resumed: those that are told at the end are told then.
        """
        if not self._open:
            return
        self._open = False
        for trackers, users in ((self._begun, self._users), ({} if interrupted else self._later, None)):
            known = {name for name in trackers if _run_is_open(name)} if users is None else users
            with _named_group(self._run.group):
                if users is None:
                    _tell(trackers, "on_train_begin", trainer.args, trainer.state, model=trainer.model)
                    _tell_history(trackers, trainer.args, trainer.state)
                if numbers:
                    _tell(trackers, "on_log", trainer.args, trainer.state, logs=dict(numbers))
                if figure is not None:
                    _show(trackers.values(), "scores", figure, trainer.state.global_step)
                _tell(trackers, "on_train_end", trainer.args, trainer.state, model=trainer.model)
            _end_runs(trackers.keys() - known)


def takes_figures(trainer: Trainer) -> bool:
    """Return whether a tracker of a trainer, by `TrainingArguments.report_to` or by `Trackers`, takes figures."""
    return any(isinstance(one, _TAKE_FIGURES) for one in _told_at_once(trainer))


def log_figure(trainer: Trainer, name: str, figure: Figure) -> None:
    """Give a figure to those trackers of a trainer that take one and whose run is open."""
    _show(_told_at_once(trainer), name, figure, trainer.state.global_step)


def _told_at_once(trainer: Trainer) -> Iterator[TrainerCallback]:
    for one in trainer.callback_handler.callbacks:
        if isinstance(one, Trackers):
            yield from one.begun
        else:
            yield one


def _show(trackers: Iterable[TrainerCallback], name: str, figure: Figure, step: int) -> None:
    for one in trackers:
        if isinstance(one, TensorBoardCallback) and one.tb_writer is not None:
            with _failures_of("tensorboard"):
                one.tb_writer.add_figure(name, figure, step)
        elif isinstance(one, WandbCallback) and _run_is_open("wandb"):
            with _failures_of("wandb"):
                wandb = importlib.import_module("wandb")
                # It knows figures by the name of their class, and not ours, which have a style of their own.
                image = PIL.Image.open(io.BytesIO(figure_bytes(figure, "png", dpi=_DPI)))
                wandb.log({name: wandb.Image(image), "train/global_step": step})
        elif isinstance(one, MLflowCallback):
            with _failures_of("mlflow"):
                importlib.import_module("mlflow").log_figure(figure, f"{name}, step {step}.png")


def _tell_history(trackers: Mapping[str, Any], args: TrainingArguments, state: TrainerState) -> None:
    """Tell all that was logged up to now, each log with its own step."""
    for log in state.log_history if trackers else ():
        then = copy.copy(state)
        then.global_step, then.epoch = int(log["step"]), log.get("epoch", state.epoch)
        _tell(trackers, "on_log", args, then, logs={name: value for name, value in log.items() if name != "step"})


def _tell(
    trackers: Mapping[str, Any], method: str, args: TrainingArguments, state: TrainerState, **given: object
) -> None:
    if not trackers:
        return
    before = ProcessStates.capture(args.device)
    try:
        for name, one in trackers.items():
            with _failures_of(name):
                getattr(one, method)(args, state, TrainerControl(), **given)
    finally:
        before.restore(args.device)


@contextmanager
def _failures_of(name: str) -> Iterator[None]:
    """Turn whatever a tracker raises into one line: no account, no connection, a file that is locked."""
    try:
        yield
    except AnglekitError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise RunError(f"the tracker {name} failed ({reason}); put it right or leave it out of --report-to") from error


@contextmanager
def _named_group(group: str | None) -> Iterator[None]:
    """Let W&B and MLflow, which read it when a run begins, know the group of a run, unless the user has named one."""
    said = {} if group is None else {"WANDB_RUN_GROUP": group, "MLFLOW_TAGS": json.dumps({"group": group})}
    new = {name: text for name, text in said.items() if name not in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            del os.environ[name]


def _run_is_open(name: str) -> bool:
    """Return whether a tracker already has a run: the user's own, to which what is logged is added."""
    if name not in _LEFT_OPEN:
        return False
    found = getattr(importlib.import_module(name), _LEFT_OPEN[name][0], None)
    return (found() if callable(found) else found) is not None


def _end_runs(names: Iterable[str]) -> None:
    for name in names:
        if name in _LEFT_OPEN:
            with _failures_of(name):
                getattr(importlib.import_module(name), _LEFT_OPEN[name][1])()
