"""A teacher answers a few training examples before any student learns from it."""

from __future__ import annotations

from typing import Final

from torch import nn

from anglekit.distillation.settings import TrainSettings
from anglekit.distillation.tasks.models import TaskModel
from anglekit.distillation.tasks.prepared_data import PreparedData
from anglekit.distillation.tasks.task import ScoredModel
from anglekit.models.checkpoints import quiet_transformers
from anglekit.runtime.placement import chosen_device, is_placed

#: Training examples that a teacher answers: enough to tell labels in another order from chance, and a few batches.
EXAMPLES_ASKED: Final = 128


def teacher_doubts(teacher: TaskModel, data: PreparedData, settings: TrainSettings) -> tuple[str, ...]:
    """Return, a sentence each, what speaks against a teacher's answers to some of the training examples.

    They are spread evenly over the table, which may be sorted by label. The teacher runs where it will teach, and is
    then back where it was; no random state changes.
    """
    model = teacher.model
    before, device = model.device, settings.teacher_device or chosen_device(settings.device)
    moves = not is_placed(model) and str(before) != device
    examples = data.train.spread(EXAMPLES_ASKED)
    scored = ScoredModel(model, data.tokenizer, settings.batch_size, settings.generation)
    try:
        if moves:
            nn.Module.to(model, device)
        with quiet_transformers():
            return data.task.doubts(examples, scored)
    finally:
        if moves:
            nn.Module.to(model, before)
