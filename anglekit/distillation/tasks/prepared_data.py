"""Tokenised data that many runs can share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from transformers import PretrainedConfig
from transformers import PreTrainedTokenizerBase as Tokenizer

from anglekit.distillation.settings import EncodingSettings
from anglekit.distillation.tasks.data import TextTable, TokenizedExamples
from anglekit.distillation.tasks.task import Task


@dataclass(frozen=True, eq=False)
class PreparedData:
    """Tokenised training and evaluation data that many arms can share.

    Attributes:
        task: what is learnt, with all that data and teacher determine.
        tokenizer: the teacher's tokenizer.
        encoding: how many tokens examples may have.
        train: the training examples.
        evaluations: evaluation examples by name; the first set validates during training.
        sources: what the run records about each table.
    """

    task: Task
    tokenizer: Tokenizer
    encoding: EncodingSettings
    train: TokenizedExamples
    evaluations: Mapping[str, TokenizedExamples]
    sources: Mapping[str, Mapping[str, Any]]

    @property
    def max_length(self) -> int:
        """Tokens of the longest example, or of the longest source."""
        return self.encoding.max_length or max(self.train.lengths)

    @property
    def validation(self) -> TokenizedExamples | None:
        """What is validated on during training, or None."""
        return next(iter(self.evaluations.values()), None)


def prepare_data(
    task: Task,
    tokenizer: Tokenizer,
    config: PretrainedConfig,
    train: TextTable,
    evaluations: Sequence[TextTable],
    encoding: EncodingSettings | None = None,
) -> PreparedData:
    """Tokenise training and evaluation texts for a task settled by data and teacher; open lengths are the task's.

    Raises:
        InputError: a label outside the set, a length that the model cannot read, or a tokenizer that cannot pad.
    """
    wanted = encoding or EncodingSettings()
    usable = task.encoding(wanted, tokenizer, config)
    if told := task.tell_languages(wanted, tokenizer):
        train, *evaluations = (replace(one, notes=(*one.notes, *told)) for one in (train, *evaluations))
    return PreparedData(
        task,
        tokenizer,
        usable,
        task.tokenize(train, tokenizer, usable, config, training=True),
        {one.name: task.tokenize(one, tokenizer, usable, config, training=False) for one in evaluations},
        {one.name: one.provenance() for one in (train, *evaluations)},
    )
