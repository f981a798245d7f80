"""Classification: texts or pairs of texts with one label, a head with one output for each class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray

from anglekit.distillation.settings import DataSettings
from anglekit.distillation.tasks.data import TokenizedExamples
from anglekit.distillation.tasks.labelled.class_task import ClassTask
from anglekit.distillation.tasks.labelled.doubts import doubts_about_classes
from anglekit.distillation.tasks.labelled.label_cells import KeptLabels, class_labels
from anglekit.distillation.tasks.labelled.label_sets import LabelSet, check_labels_in_data, labels_in_data
from anglekit.distillation.tasks.labelled.labelled_task import LabelledTexts
from anglekit.distillation.tasks.scores import SCORES, class_columns, class_scores
from anglekit.distillation.tasks.task import ScoredModel, ScoreReport
from anglekit.results.example_scores import ExampleColumns
from anglekit.tables.columns import find_column
from anglekit.tables.table import Table
from anglekit.vocabulary import SINGLE_LABEL, ProblemType


@dataclass(frozen=True, kw_only=True)
class ClassificationTask(ClassTask):
    """A classification task. Labels of its tables are as `label_text` writes them, by name where the task has names.

    Attributes:
        positive: the class that F1 is about.
    """

    scores: tuple[str, ...] = ("accuracy",)
    positive: str | None = None

    allowed_scores: ClassVar[Sequence[str]] = tuple(SCORES)
    problem_type: ClassVar[ProblemType | None] = SINGLE_LABEL

    def positive_class(self, labels: LabelSet) -> int:
        """Return the number of the class that F1 is about; 1 where the task names none."""
        found = labels.index(self.positive) if self.positive is not None else None
        return 1 if found is None else found

    def read_labels(
        self, table: Table, columns: DataSettings
    ) -> tuple[tuple[str, ...], KeptLabels[str], tuple[str, ...]]:
        """Return the label column, its labels as text, and the classes that the table itself names."""
        column = find_column(table, "label", columns.label)
        own = table.class_names.get(column, ())
        kept = class_labels(table, column, columns, partial(self.name_of, own=own))
        return (column,), KeptLabels(tuple(self.named(kept.labels, own)), kept.rows, kept.left_out), own

    # ---- classes ----

    def found(self, table: LabelledTexts) -> LabelSet:
        """Return the classes that are in the data; see `ClassTask.found`."""
        check_labels_in_data(*self.flat(table), table.source, table.columns[-1])
        return labels_in_data(table.labels)

    def flat(self, table: LabelledTexts) -> tuple[Sequence[str | None], Callable[[int], tuple[str, str]]]:
        """Return the labels and where each stands."""
        return table.labels, lambda number: table.place(table.rows[number])

    def label_numbers(self, table: LabelledTexts) -> NDArray[np.int64]:
        """Return the number of each row's class, (examples,)."""
        return self.read_in(self.settled, table).classes(*self.flat(table))

    def balanced(self, labels: NDArray[Any]) -> NDArray[np.float64]:
        """Return n / (k n_c) of each of the k classes that occur; see `ClassTask.balanced`."""
        counts = np.bincount(labels, minlength=len(self.settled.names)).astype(np.float64)
        occurs = counts > 0
        weights: NDArray[np.float64] = np.ones_like(counts)
        weights[occurs] = len(labels) / occurs.sum() / counts[occurs]
        return weights

    # ---- scores ----

    def doubts(self, examples: TokenizedExamples, scored: ScoredModel) -> tuple[str, ...]:
        """Return what speaks against the model's classes; see `Task.doubts`."""
        predicted = np.empty(len(examples), dtype=np.int64)
        for batch, logits, _ in self.passes(examples, scored):
            predicted[batch] = logits.argmax(-1).cpu().numpy()
        return tuple(doubts_about_classes(predicted, examples.numbers["labels"], self.settled.names))

    def scores_of_outputs(self, outputs: NDArray[Any], labels: NDArray[Any]) -> dict[str, float]:
        """Return the task's scores of the most probable classes; see `LabelledTask.scores_of_outputs`."""
        return self._scores(outputs.argmax(-1), labels.astype(np.int64))

    def columns_of_outputs(self, outputs: NDArray[Any], labels: NDArray[Any]) -> ExampleColumns:
        """Return which examples get their class; see `LabelledTask.columns_of_outputs`."""
        return {"accuracy": (outputs.argmax(-1) == labels).astype(np.int64)}

    def chance(self, examples: TokenizedExamples) -> dict[str, float]:
        """Return the best that one and the same class for every example reaches, by score; see `Task.chance`."""
        true = examples.numbers["labels"]
        if not len(true):
            return {}
        # No other class does better: F1 grows with the number of its class, and F1 of one class needs that class.
        usable = (int(np.bincount(true).argmax()), self.positive_class(self.settled))
        constant = [self._scores(np.full(len(true), each), true) for each in usable]
        return {name: max(found[name] for found in constant) for name in self.scores}

    def score_values(self, examples: TokenizedExamples, scored: ScoredModel) -> ScoreReport:
        """Return the task's scores of the model's most probable classes; an example has its cross-entropy too."""
        predicted, losses = np.empty(len(examples), dtype=np.int64), np.empty(len(examples))
        for batch, logits, labels in self.passes(examples, scored):
            predicted[batch] = logits.argmax(-1).cpu().numpy()
            losses[batch] = F.cross_entropy(logits.float(), labels, reduction="none").cpu().numpy()
        true = examples.numbers["labels"]
        columns = class_columns(self.scores, predicted, true, positive=self.positive_class(self.settled))
        return ScoreReport(self._scores(predicted, true), examples={**columns, "loss": losses})

    def _scores(self, predicted: NDArray[np.int64], true: NDArray[np.int64]) -> dict[str, float]:
        return class_scores(self.scores, predicted, true, positive=self.positive_class(self.settled))
