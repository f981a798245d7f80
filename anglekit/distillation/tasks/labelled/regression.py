"""Regression: texts or pairs of texts with a number, a head with one output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from transformers import PretrainedConfig

from anglekit.distillation.settings import DataSettings, TrainSettings
from anglekit.distillation.tasks.data import TextTable, TokenizedExamples
from anglekit.distillation.tasks.labelled.doubts import doubts_about_numbers
from anglekit.distillation.tasks.labelled.label_cells import KeptLabels, number_column, number_labels
from anglekit.distillation.tasks.labelled.labelled_task import LabelledTask, LabelledTexts
from anglekit.distillation.tasks.task import ScoredModel, ScoreReport
from anglekit.errors import InputError
from anglekit.results.correlations import CORRELATIONS
from anglekit.results.example_scores import PREDICTED_NUMBER, TARGET_NUMBER
from anglekit.tables.table import Table
from anglekit.vocabulary import REGRESSION, ProblemType


@dataclass(frozen=True, kw_only=True)
class RegressionTask(LabelledTask):
    """A regression task: labels are numbers as they stand in the data, on their own scale."""

    scores: tuple[str, ...] = ("pearson", "spearman")

    allowed_scores: ClassVar[Sequence[str]] = tuple(CORRELATIONS)
    model_kind: ClassVar[str] = "a regression"
    head: ClassVar[str] = "regression"
    problem_type: ClassVar[ProblemType | None] = REGRESSION
    loss_names: ClassVar[tuple[str, str]] = ("squared error", "squared error against the teacher's number")

    def configured(self, columns: DataSettings | None) -> Self:
        """Refuse classes and their names; see `Task.configured`."""
        if columns is not None:
            for option, value in columns.label_options().items():
                if option in ("--classes", "--label-map"):
                    problem = f"{option} {value} came with task {self.name}, which has no classes"
                    raise InputError(problem, "leave it out")
        return self

    def read_labels(
        self, table: Table, columns: DataSettings
    ) -> tuple[tuple[str, ...], KeptLabels[float], tuple[str, ...]]:
        """Return the label column and its numbers."""
        column = number_column(table, columns.label)
        return (column,), number_labels(table, column, columns), ()

    # ---- the head ----

    def for_teacher(self, train: TextTable, config: PretrainedConfig) -> Self:
        """Check that the teacher gives one number; see `Task.for_teacher`."""
        self._check_outputs(config, "the teacher")
        return self

    def for_trained(self, config: PretrainedConfig) -> Self:
        """Check that the model gives one number; see `Task.for_trained`."""
        self._check_outputs(config, "the model")
        return self

    def check_student(self, config: PretrainedConfig, source: str) -> None:
        """Check that a student's own head gives one number."""
        if str(next(iter(config.architectures or ()), "")).endswith("ForSequenceClassification"):
            self._check_outputs(config, f"the student {source}")

    def _check_outputs(self, config: PretrainedConfig, whose: str) -> None:
        self.check_problem(config, whose)
        if config.num_labels != 1:
            raise InputError(
                f"{whose} has {config.num_labels} outputs and task {self.name} reads one number",
                "fine-tune one on this task first, or take --task classification",
            )

    def write_to(self, config: PretrainedConfig) -> None:
        """Write one output and the problem type into a model's configuration."""
        super().write_to(config)
        if config.num_labels != 1:
            config.num_labels = 1

    def label_losses(self, settings: TrainSettings, train: TokenizedExamples) -> dict[str, Any]:
        """Return the problem type; see `Task.label_losses`."""
        for option, value in (("--temperature", settings.temperature), ("--kl-direction", settings.kl_direction)):
            if value is not None:
                raise InputError(
                    f"{option} {value} came with task {self.name}, whose teacher gives a number and no probabilities",
                    "leave it out",
                )
        if settings.label_smoothing:
            raise InputError(
                f"--label-smoothing {settings.label_smoothing} came with task {self.name}, which has no classes",
                "leave it out",
            )
        return super().label_losses(settings, train)

    def label_numbers(self, table: LabelledTexts) -> NDArray[np.float64]:
        """Return the numbers, (examples,)."""
        if None in table.labels:
            where, row = table.place(table.rows[table.labels.index(None)])
            raise InputError(
                f"{where} has no label in {row}",
                "give every row a number, or leave such rows out: --no-label -",
            )
        return np.array(table.labels, dtype=np.float64)

    # ---- scores ----

    def doubts(self, examples: TokenizedExamples, scored: ScoredModel) -> tuple[str, ...]:
        """Return what speaks against the model's numbers; see `Task.doubts`."""
        return tuple(doubts_about_numbers(self._predicted(examples, scored), examples.numbers["labels"]))

    def _predicted(self, examples: TokenizedExamples, scored: ScoredModel) -> NDArray[np.float64]:
        predicted = np.empty(len(examples))
        for batch, logits, _ in self.passes(examples, scored):
            predicted[batch] = logits.float().cpu().numpy()[:, 0]
        return predicted

    def scores_of_outputs(self, outputs: NDArray[Any], labels: NDArray[Any]) -> dict[str, float]:
        """Return the correlations; see `LabelledTask.scores_of_outputs`."""
        predicted = outputs.reshape(len(labels), -1)[:, 0].astype(np.float64)
        weights = np.ones(len(labels))
        return {name: CORRELATIONS[name](predicted, labels.astype(np.float64), weights)[0] for name in self.scores}

    def chance(self, examples: TokenizedExamples) -> dict[str, float]:
        """Return 0, the correlation of one and the same number for every example; see `Task.chance`."""
        return dict.fromkeys(self.scores, 0.0) if len(examples) else {}

    def score_values(self, examples: TokenizedExamples, scored: ScoredModel) -> ScoreReport:
        """Return the correlations of the model's numbers; an example has its squared error too."""
        true, predicted = examples.numbers["labels"], self._predicted(examples, scored)
        errors = predicted - true
        notes = {
            "mean_squared_error": float(np.mean(errors**2)),
            "mean_absolute_error": float(np.mean(np.abs(errors))),
        }
        columns = {PREDICTED_NUMBER: predicted, TARGET_NUMBER: true, "loss": errors**2}
        return ScoreReport(self.scores_of_outputs(predicted[:, None], true), notes, columns)
