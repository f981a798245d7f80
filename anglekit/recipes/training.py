"""The training settings of a recipe: those of `TrainSettings` that decide a result, and how they are scaled."""

from __future__ import annotations

import math
from typing import Any, Final

from anglekit.distillation.settings import TrainSettings
from anglekit.errors import InputError
from anglekit.settings_fields import all_optional

# Seeds and losses have their own places in a recipe; the others are the machine's.
_ELSEWHERE: Final = (
    "seed",
    "temperature",
    "kl_direction",
    "relation_heads",
    "device",
    "teacher_device",
    "teacher_cache",
    "workers",
    "report_to",
)


@all_optional(TrainSettings, without=_ELSEWHERE)
class Training:
    """Settings of a training run under the names of `TrainSettings`; None leaves the choice to it and the task.

    Raises:
        InputError: not exactly one of `epochs` and `max_steps` is given, or a value is not allowed.
    """

    def __post_init__(self) -> None:
        own = TrainSettings(**self._given())
        if own.epochs is None and own.max_steps is None:
            raise InputError("neither of epochs and max_steps is given", "give one of the two")

    def _given(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if value is not None}

    def changed(self, **changes: Any) -> Training:  # noqa: ANN401 - its fields
        """Return the same with other values."""
        return Training(**vars(self) | changes)

    def settings(self, *, scale: float = 1.0, **others: Any) -> TrainSettings:  # noqa: ANN401 - fields of TrainSettings
        """Return the settings of a run that makes a fraction of the steps, `scale` in (0, 1], and has other fields.

        Epochs, steps, warm-up steps and the steps between validations shrink alike; the learning rate is left alone.

        Raises:
            InputError: a value that is not allowed.
        """
        given = self._given() | others
        if "epochs" in given:
            given["epochs"] *= scale
        if "max_steps" in given:
            given["max_steps"] = _part(given["max_steps"], scale)
        if given.get("evaluate_every", 0.0) >= 1.0:
            given["evaluate_every"] = float(_part(given["evaluate_every"], scale))
        if given.get("warmup", 0.0) >= 1.0:
            given["warmup"] = float(round(given["warmup"] * scale))
        return TrainSettings(**given)

    def steps(self, examples: int, *, scale: float = 1.0) -> int:
        """Return the optimiser steps of a run over a table of that many examples."""
        whole = self.settings()
        if whole.max_steps is not None:
            return _part(whole.max_steps, scale)
        batches = -(-examples // whole.batch_size)
        return _part((whole.epochs or 0.0) * max(1, -(-batches // whole.accumulation)), scale)


def _part(whole: float, scale: float) -> int:
    """Return a fraction of a number of steps, rounded up as the Trainer does, at least one."""
    return max(1, math.ceil(round(whole * scale, 6)))


def check_scale(scale: float) -> None:
    """Raise InputError for a fraction of the steps that is not in (0, 1]."""
    if not 0.0 < scale <= 1.0:
        raise InputError(f"--scale is {scale:g}", allowed="allowed: above 0, up to 1 (all steps)")
