"""A teacher that was never trained, whose hidden states stand in for the trained one's in the control `random-teacher`.

Labels and predictions stay the trained teacher's, so what the control takes away is what the hidden states know.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from anglekit.distillation.losses.objective import DistillationObjective, TeacherOutputs
from anglekit.distillation.training.teacher import TeacherForward, TeacherProvider


def untrained_teacher(teacher: PreTrainedModel, seed: int) -> PreTrainedModel:
    """Return a model of a teacher's class and configuration as its type initialises itself, on the CPU.

    The weights follow from the seed of the arm, by a seed of their own: a student from random weights is drawn from the
    arm's itself, and where it is as deep as its teacher the two would be one model.

    Args:
        teacher: with any head; its weights are not read, and the global random state is left as it is.
        seed: of the run.
    """
    drawn = int.from_bytes(hashlib.sha256(f"untrained teacher:{seed}".encode()).digest()[:8])
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        # Not `torch.manual_seed`, which would reseed every accelerator as well.
        torch.default_generator.manual_seed(drawn)
        untrained = type(teacher)(copy.deepcopy(teacher.config))
    # `Module.to` by its own name, for mypy reads the decorated method of `PreTrainedModel` as unbound.
    nn.Module.to(untrained, dtype=teacher.dtype)
    return untrained


class HiddenOfAnother:
    """A `TeacherProvider`: the logits of one teacher, the hidden states of another.

    Args:
        logits: gives the logits; None where no loss reads any.
        hidden: gives the hidden states.
    """

    def __init__(self, logits: TeacherProvider | None, hidden: TeacherProvider) -> None:
        self._logits = logits
        self._hidden = hidden

    @classmethod
    def of_untrained(
        cls,
        teacher: PreTrainedModel,
        objective: DistillationObjective,
        seed: int,
        device: str | None = None,
        *,
        dropout: bool = False,
    ) -> HiddenOfAnother:
        """Return the provider of one run: the trained teacher's logits, an untrained one's hidden states.

        Args:
            teacher: the trained one.
            objective: what is read of either.
            seed: of the run.
            device: where both teachers run; None: on the student's device.
            dropout: as of `TeacherForward`, of both.
        """
        hidden = TeacherForward(
            untrained_teacher(teacher, seed),
            objective.teacher_layers,
            logits=False,
            final_norm=objective.final_norm,
            device=device,
            attention=objective.reads_attention,
            maps=objective.reads_maps,
            dropout=dropout,
        )
        if not objective.reads_teacher_logits:
            return cls(None, hidden)
        apart = objective.reads_chunks
        return cls(TeacherForward(teacher, {}, device=device, dropout=dropout, head_apart=apart), hidden)

    def to(self, device: torch.device) -> HiddenOfAnother:
        """Move both teachers to the student's device, unless they have one of their own, and return self."""
        for provider in (self._logits, self._hidden):
            if isinstance(provider, TeacherForward):
                provider.to(device)
        return self

    def __call__(self, inputs: Mapping[str, Any]) -> TeacherOutputs:
        """Return what the losses read for one batch."""
        logits = None if self._logits is None else self._logits(inputs).logits
        return replace(self._hidden(inputs), logits=logits, disposable=False)
