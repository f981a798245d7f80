"""The training settings of a recipe: those of `TrainSettings` that decide a result, and how they are scaled."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from anglekit.errors import InputError

if TYPE_CHECKING:
    from anglekit.distillation.training.settings import TrainSettings

__all__ = ["Training", "check_scale"]


@dataclass(frozen=True)
class Training:
    """Settings of a training run under the names of `TrainSettings`; None leaves the choice to it and the task.

    Either `epochs` or `max_steps` is given. Seeds are elsewhere: of the teacher, and the list of the students.
    """

    epochs: float | None = None
    max_steps: int | None = None
    batch_size: int | None = None
    accumulation: int | None = None
    learning_rate: float | None = None
    schedule: str | None = None
    warmup: float | None = None
    optimizer: str | None = None
    weight_decay: float | None = None
    max_grad_norm: float | None = None
    label_smoothing: float | None = None
    precision: str | None = None
    max_length: int | None = None
    target_max_length: int | None = None
    group_by_length: bool | None = None
    checkpoint_activations: bool | None = None
    data_seed: int | None = None
    evaluate_every: int | None = None
    log_every: int | None = None
    select: str | None = None
    eval_batch_size: int | None = None
    resumable: bool | None = None
    beams: int | None = None
    max_new_tokens: int | None = None
    length_penalty: float | None = None
    loss_on_prompt: bool | None = None
    kl_on_prompt: bool | None = None
    lora_rank: int | None = None
    lora_alpha: float | None = None
    lora_dropout: float | None = None
    lora_targets: str | None = None
    lora_merge: bool | None = None

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.max_steps is None):
            given = "neither" if self.epochs is None else "both"
            raise InputError(f"{given} of epochs and max_steps is given", "give one of the two")

    def settings(self, *, scale: float = 1.0, **others: Any) -> TrainSettings:  # noqa: ANN401 - fields of TrainSettings
        """Return the settings of a run that makes a fraction of the steps.

        Epochs, steps, warm-up steps and the steps between validations shrink alike; the learning rate is left alone.

        Args:
            scale: the fraction, in (0, 1].
            others: further fields, such as the seed and the device.

        Raises:
            InputError: a value that is not allowed, or a setting that the trainer does not have.
        """
        from anglekit.distillation.training.settings import TrainSettings

        given = {one.name: getattr(self, one.name) for one in fields(self)} | others
        given = {name: value for name, value in given.items() if value is not None}
        if self.epochs is not None:
            given["epochs"] = self.epochs * scale
        for name in ("max_steps", "evaluate_every"):
            if given.get(name) is not None:
                given[name] = _part(given[name], scale)
        if given.get("warmup", 0.0) >= 1.0:
            given["warmup"] = float(round(given["warmup"] * scale))
        if lacking := self.lacking():
            raise InputError(
                f"the trainer has no setting {lacking[0]!r} here", "leave it out of the recipe, or upgrade"
            )
        return TrainSettings(**given)

    def lacking(self) -> tuple[str, ...]:
        """Return the settings that are given here and that the trainer of this version does not have."""
        from anglekit.distillation.training.settings import TrainSettings

        known = {one.name for one in fields(TrainSettings)}
        return tuple(one.name for one in fields(self) if getattr(self, one.name) is not None and one.name not in known)

    def steps(self, examples: int, *, scale: float = 1.0) -> int:
        """Return the optimiser steps of a run over a table of that many examples."""
        if self.max_steps is not None:
            return _part(self.max_steps, scale)
        batches = -(-examples // (self.batch_size or 32))
        return _part((self.epochs or 0.0) * max(1, -(-batches // (self.accumulation or 1))), scale)


def _part(whole: float, scale: float) -> int:
    """Return a fraction of a number of steps, rounded up as the Trainer does, at least one."""
    return max(1, math.ceil(round(whole * scale, 6)))


def check_scale(scale: float) -> float:
    """Return the fraction of the steps.

    Raises:
        InputError: it is not in (0, 1].
    """
    if not 0.0 < scale <= 1.0:
        raise InputError(f"--scale is {scale:g}", allowed="allowed: above 0, up to 1 (all steps)")
    return scale
