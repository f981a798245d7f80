"""The checkpoints that `Trainer` writes: which one a training resumes from, checked before `Trainer` reads it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from transformers import TrainerState
from transformers.trainer import TRAINER_STATE_NAME

from anglekit.errors import InputError, foreign_failures
from anglekit.runtime.files import convert_document, read_json_object, write_json

# A line of the log is about 300 bytes.
_MOST_STATE_BYTES: Final = 256 << 20

_PREFIX: Final = "checkpoint-"


_Count = Annotated[int, msgspec.Meta(ge=0, lt=2**62)]
_NotNegative = Annotated[float, msgspec.Meta(ge=0.0, lt=2.0**63)]


class _Log(msgspec.Struct):
    """A line of the log, as far as it is read."""

    step: _Count


class _State(msgspec.Struct):
    """What `Trainer` reads of the state that it wrote (`TrainerState`)."""

    global_step: _Count
    epoch: _NotNegative | None = None
    num_input_tokens_seen: _Count = 0
    train_batch_size: Annotated[int, msgspec.Meta(gt=0, lt=2**62)] | None = None
    total_flos: _NotNegative = 0.0
    log_history: list[_Log] = []
    # A score that is not finite is allowed: no score counts as better than it.
    best_metric: float | None = None
    best_global_step: _Count | None = None
    best_model_checkpoint: Annotated[str, msgspec.Meta(pattern=r"\A[^\0]*\Z")] | None = None
    stateful_callbacks: dict[str, Any] = {}


def resume_point(training: Path) -> str | None:
    """Return the last checkpoint that can be resumed, or None; one that was half written when killed cannot.

    Its state names the best checkpoint by its whole path. If the run was moved since, the state gets the new path.

    Args:
        training: the folder of a run that `Trainer` writes to.

    Raises:
        InputError: its state is not what `Trainer` writes, belongs to another step, or names a best checkpoint that
            the run does not have.
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
    file, remedy = checkpoint / TRAINER_STATE_NAME, _remedy(checkpoint)
    content = read_json_object(file, remedy, most_bytes=_MOST_STATE_BYTES)
    known = {field.name for field in fields(TrainerState)}
    if unknown := [name for name in content if name not in known]:
        raise InputError(f"{file} holds {unknown[0]!r}, which no training writes", remedy)
    state = convert_document(content, _State, str(file), remedy)
    if f"{_PREFIX}{state.global_step}" != checkpoint.name:
        raise InputError(f"{file} is of step {state.global_step}", remedy)
    best = state.best_model_checkpoint
    if best is None:
        return
    here = checkpoint.parent / Path(best).name
    if not (_is_step(here) and here.name.startswith(_PREFIX)):
        raise InputError(f"{file} names a best checkpoint that this run does not have, {best!r}", remedy)
    if here.resolve() != Path(best).resolve():  # the run was moved since
        write_json(file, {**content, "best_model_checkpoint": str(here)})


@contextmanager
def reading_checkpoint(checkpoint: str | Path) -> Iterator[None]:
    """Turn what `Trainer` raises while it reads a checkpoint into an InputError that names it."""
    remedy = _remedy(Path(checkpoint))
    with foreign_failures(lambda reason: InputError(f"{checkpoint} cannot be read ({reason})", remedy)):
        yield


def _remedy(checkpoint: Path) -> str:
    return f"remove {checkpoint.name} to go on from the step before, or start anew with --overwrite"
