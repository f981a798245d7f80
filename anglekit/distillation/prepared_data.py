"""Tokenised data that many runs can share, and how a model is scored on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import EvalPrediction, PretrainedConfig, PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from anglekit.distillation.label_sets import LabelSet
from anglekit.distillation.scores import class_scores
from anglekit.distillation.task_data import (
    LabelledTexts,
    TokenizedExamples,
    length_sorted_batches,
    padding_collator,
    tokenize_examples,
    usable_length,
)
from anglekit.distillation.tasks import ClassificationTask

__all__ = ["PreparedData", "ValidationScores", "prepare_data", "score_model"]


@dataclass(frozen=True, eq=False)
class PreparedData:
    """Tokenised training and evaluation data that many arms can share.

    Attributes:
        task: what is learnt.
        labels: the classes in the order of the model's outputs.
        tokenizer: the teacher's.
        max_length: tokens of the longest example.
        train: the training examples.
        evaluations: by name; the first one validates during training.
        sources: what the run records about each table.
    """

    task: ClassificationTask
    labels: LabelSet
    tokenizer: Tokenizer
    max_length: int
    train: TokenizedExamples
    evaluations: Mapping[str, TokenizedExamples]
    sources: Mapping[str, Mapping[str, Any]]

    @property
    def validation(self) -> TokenizedExamples | None:
        """What is validated on during training, or None."""
        return next(iter(self.evaluations.values()), None)


def prepare_data(
    task: ClassificationTask,
    labels: LabelSet,
    tokenizer: Tokenizer,
    config: PretrainedConfig,
    train: LabelledTexts,
    evaluations: Sequence[LabelledTexts],
    max_length: int | None = None,
) -> PreparedData:
    """Tokenise training and evaluation texts.

    Raises:
        InputError: a label outside the set, a length that the model cannot read, or a tokenizer that cannot pad.
    """
    length = usable_length(max_length, task, tokenizer, config)
    return PreparedData(
        task,
        labels,
        tokenizer,
        length,
        tokenize_examples(train, labels, tokenizer, length),
        {one.name: tokenize_examples(one, labels, tokenizer, length) for one in evaluations},
        {one.name: one.provenance() for one in (train, *evaluations)},
    )


def score_model(
    model: PreTrainedModel,
    examples: TokenizedExamples,
    *,
    task: ClassificationTask,
    labels: LabelSet,
    tokenizer: Tokenizer,
    batch_size: int,
) -> dict[str, float]:
    """Return `examples` (their number) and the task's scores of a model on tokenised examples.

    Args:
        model: on any device; left in the mode in which it came.
        examples: with labels in the order of the model's outputs.
        task: whose scores are wanted.
        labels: the classes.
        tokenizer: the model's, for padding.
        batch_size: examples of one forward pass.
    """
    collate = padding_collator(tokenizer)
    predicted = np.empty(len(examples), dtype=np.int64)
    was_training = model.training
    nn.Module.eval(model)
    with torch.inference_mode():
        for batch in length_sorted_batches(examples, batch_size):
            inputs = collate([examples[index] for index in batch])
            inputs.pop("labels")
            logits = model(**{key: value.to(model.device) for key, value in inputs.items()}).logits
            predicted[batch] = logits.argmax(-1).cpu().numpy()
    nn.Module.train(model, was_training)
    positive = task.positive_class(labels)
    return {
        "examples": len(examples),
        **class_scores(task.scores, predicted, examples.labels, positive=positive),
    }


@dataclass(frozen=True, eq=False)
class ValidationScores:
    """What `Trainer` calls with its predictions: the task's scores, under their names."""

    data: PreparedData

    def __call__(self, prediction: EvalPrediction) -> dict[str, float]:
        """Return the scores of predicted logits."""
        logits: Any = prediction.predictions
        classes: NDArray[np.int64] = np.asarray(logits[0] if isinstance(logits, tuple) else logits).argmax(-1)
        positive = self.data.task.positive_class(self.data.labels)
        return class_scores(
            self.data.task.scores, classes, np.asarray(prediction.label_ids).astype(np.int64), positive=positive
        )
