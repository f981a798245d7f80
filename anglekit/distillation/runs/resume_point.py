"""What a training goes on from: the last whole checkpoint, looked at before `Trainer` believes it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from transformers import TrainerState
from transformers.trainer import TRAINER_STATE_NAME

from anglekit.errors import InputError, foreign_failures
from anglekit.runtime.files import read_json_object, write_json

__all__ = ["reading_checkpoint", "resume_point"]

# A line of the log is about 300 bytes.
_MOST_STATE_BYTES: Final = 256 << 20

_PREFIX: Final = "checkpoint-"


def resume_point(training: Path) -> str | None:
    """Return the last checkpoint that can be resumed, or None; one that was being written at a kill cannot.

    Its state names the best checkpoint by its whole path; a run that was moved since gets the new one written there.

    Args:
        training: the folder of a run that `Trainer` writes to.

    Raises:
        InputError: its state is not what `Trainer` wrote there, of another step, or names a best checkpoint that the
            run does not have.
    """
    steps = {int(path.name.removeprefix(_PREFIX)): path for path in training.glob(f"{_PREFIX}*") if _is_step(path)}
    found = next((path for _, path in sorted(steps.items(), reverse=True) if _is_whole(path)), None)
    if found is None:
        return None
    _settle_state(found)
    return str(found)


def _is_step(path: Path) -> bool:
    return path.is_dir() and re.fullmatch(r"[0-9]{1,18}", path.name.removeprefix(_PREFIX)) is not None


def _is_whole(checkpoint: Path) -> bool:
    # `Trainer` writes its state after everything else.
    try:
        json.loads((checkpoint / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return True


def _settle_state(checkpoint: Path) -> None:
    file = checkpoint / TRAINER_STATE_NAME
    state = read_json_object(file, _remedy(checkpoint), most_bytes=_MOST_STATE_BYTES)
    known = {field.name for field in fields(TrainerState)}
    unknown = next((name for name in state if name not in known), None)
    wrong = next((name for name, holds in _CHECKS.items() if name in state and not holds(state[name])), None)
    if unknown is not None or wrong is not None or "global_step" not in state:
        raise InputError(
            f"{file}: {unknown or wrong or 'global_step'} is not as a training writes it", _remedy(checkpoint)
        )
    if f"{_PREFIX}{state['global_step']}" != checkpoint.name:
        raise InputError(f"{file} is of step {state['global_step']}", _remedy(checkpoint))
    best = state.get("best_model_checkpoint")
    if best is None:
        return
    here = checkpoint.parent / Path(best).name
    if not (_is_step(here) and here.name.startswith(_PREFIX)):
        raise InputError(f"{file} names a best checkpoint that this run does not have, {best!r}", _remedy(checkpoint))
    if here.resolve() != Path(best).resolve():  # the run was moved since
        write_json(file, {**state, "best_model_checkpoint": str(here)})


@contextmanager
def reading_checkpoint(checkpoint: str | Path) -> Iterator[None]:
    """Turn what `Trainer` raises while it reads a checkpoint into an InputError that names it."""
    with foreign_failures(lambda reason: f"{checkpoint} cannot be read ({reason}); {_remedy(Path(checkpoint))}"):
        yield


def _remedy(checkpoint: Path) -> str:
    return f"remove {checkpoint.name} to go on from the step before, or start anew with --overwrite"


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**63


def _is_log(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(line, dict) and _is_count(line.get("step")) for line in value)


_CHECKS: Final[dict[str, Callable[[Any], bool]]] = {
    "global_step": _is_count,
    "epoch": lambda value: value is None or (_is_number(value) and value >= 0),
    "num_input_tokens_seen": _is_count,
    "train_batch_size": lambda value: value is None or (_is_count(value) and value > 0),
    "total_flos": _is_number,
    "log_history": _is_log,
    # A score that is not finite is no mistake: nothing is better than it.
    "best_metric": lambda value: value is None or type(value) in (int, float),
    "best_global_step": lambda value: value is None or _is_count(value),
    "best_model_checkpoint": lambda value: value is None or (isinstance(value, str) and "\0" not in value),
    "stateful_callbacks": lambda value: isinstance(value, dict),
}
