"""What tasks of labelled texts share: a head with outputs for labels, columns, tokens, passes over examples."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from transformers import (
    AutoModelForSequenceClassification,
    DataCollatorWithPadding,
    EvalPrediction,
    PretrainedConfig,
)
from transformers import PreTrainedTokenizerBase as Tokenizer

from anglekit.distillation.settings import DataSettings, TrainSettings
from anglekit.distillation.tasks.data import TextTable, TokenizedExamples, length_sorted_batches, origin
from anglekit.distillation.tasks.generation import scoring_mode
from anglekit.distillation.tasks.labelled.label_cells import KeptLabels
from anglekit.distillation.tasks.task import BoundedTokenizer, Collator, ScoredModel, Task
from anglekit.distillation.tasks.text_columns import no_text, texts_of
from anglekit.errors import InputError
from anglekit.probes.encode import encode_texts
from anglekit.results.example_scores import ExampleColumns
from anglekit.runtime.passes import told_failures
from anglekit.runtime.placement import compute_device
from anglekit.tables.columns import find_text_columns
from anglekit.tables.shapes import as_known_shape
from anglekit.tables.table import Table
from anglekit.vocabulary import MULTI_LABEL, REGRESSION, SINGLE_LABEL

#: The task of one's own data by problem type.
_OWN_TASKS: Mapping[str, str] = {
    SINGLE_LABEL: "classification",
    MULTI_LABEL: "multi-label",
    REGRESSION: "regression",
}


@dataclass(frozen=True, eq=False, kw_only=True)
class LabelledTexts(TextTable):
    """A table's texts and labels.

    Attributes:
        texts: the first texts.
        pairs: the second texts, or None.
        labels: what each row's label is, as the kind of task reads it; None where missing.
        rows: the rows' numbers in the table, counted from 0.
        file_row: of a row's number in the table, its file and its number there (`Table.file_row`).
        left_out: how many rows are not among them, by the label that they have; "" for rows without one.
        class_names: the classes in the order of their numbers, where the table says so.
    """

    texts: tuple[str, ...]
    pairs: tuple[str, ...] | None
    labels: tuple[Any, ...]
    rows: tuple[int, ...]
    file_row: Callable[[int], tuple[str, int]]
    left_out: Mapping[str, int] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.texts)

    def place(self, row: int) -> tuple[str, str]:
        """Return the file of a row of the table, and which row it is there, in words."""
        file, number = self.file_row(row)
        return file, f"row {number} (counted from 0)"

    def provenance(self) -> dict[str, Any]:
        """Return what a run records about the data."""
        return super().provenance() | ({"left_out": dict(self.left_out)} if self.left_out else {})

    @property
    def sides(self) -> dict[str, tuple[str, ...]]:
        """The texts of each of the one or two columns of texts, by its name."""
        sides = (self.texts,) if self.pairs is None else (self.texts, self.pairs)
        return dict(zip(self.columns, sides, strict=False))  # the labels' columns come behind

    def texts_read(self) -> tuple[str, ...]:
        """Return every text of the rows, without their labels."""
        return (*self.texts, *(self.pairs or ()))


@dataclass(frozen=True, kw_only=True)
class LabelledTask(Task):
    """A task of texts, or pairs of them, with labels.

    Attributes:
        text: the first text's column; None looks for a usual name.
        text_pair: the second text's column, if there is one.
    """

    text: str | None = None
    text_pair: str | None = None

    model_class: ClassVar[Any] = AutoModelForSequenceClassification
    model_kind: ClassVar[str] = "a classifier"
    head: ClassVar[str] = "classification"
    new_head: ClassVar[bool] = True

    # ---- columns ----

    def text_columns(self, table: Table, columns: DataSettings) -> tuple[str, str | None]:
        """Return the columns of a table's first and second texts, None where there are no second ones.

        Raises:
            InputError: a column is not there, or the task reads pairs and one was found.
        """
        present = set(table.names)
        text = columns.text or (self.text if self.text in present else None)
        pair = columns.text_pair
        if pair is None and columns.text is None and self.text in present and self.text_pair in present:
            pair = self.text_pair
        text, pair = find_text_columns(table, text, pair)
        if self.text_pair is not None and pair is None:
            raise InputError(
                f"task {self.name} reads pairs and {table.source} has one text, {text!r}", "name two: --text-pair"
            )
        return text, pair

    def texts(self, table: Table, columns: DataSettings, name: str) -> LabelledTexts:
        """Return a table's texts and labels; see `Task.read`."""
        table = as_known_shape(table, (columns.text, columns.text_pair, columns.label))
        text, pair = self.text_columns(table, columns)
        labels, kept, class_names = self.read_labels(table, columns)
        sides = [texts_of(table, column, "text", may_be_missing=True) for column in (text, pair) if column is not None]
        if kept.left_out:
            sides = [tuple(side[row] for row in kept.rows) for side in sides]
        return LabelledTexts(
            **origin(table, name),
            columns=(text, *labels) if pair is None else (text, pair, *labels),
            texts=sides[0],
            pairs=None if pair is None else sides[1],
            labels=kept.labels,
            rows=kept.rows,
            file_row=table.file_row,
            left_out=kept.left_out,
            class_names=class_names,
        )

    def without_texts(self, pieces: Iterator[TextTable], table: Table) -> tuple[TextTable, int]:
        """Return the labels of all rows; see `Task.without_texts`."""
        labels: list[Any] = []
        first = None
        held: set[str] = set()
        for piece in cast("Iterator[LabelledTexts]", pieces):
            first = first or piece
            labels += piece.labels
            for column, texts in piece.sides.items():
                if column not in held and any(text.strip() for text in texts):
                    held.add(column)
        if first is None:
            raise InputError(f"{table.source} has no rows", "a table needs at least one")
        for column in first.sides:
            if column not in held:
                raise no_text(column, table.source, "text")
        rows = tuple(range(len(labels)))
        known = replace(first, texts=(), pairs=None, labels=tuple(labels), rows=rows, file_row=table.file_row)
        return known, len(labels)

    @abstractmethod
    def read_labels(
        self, table: Table, columns: DataSettings
    ) -> tuple[tuple[str, ...], KeptLabels[Any], tuple[str, ...]]:
        """Return the label columns, the labels of the rows that stay, and the classes that the table itself names."""

    # ---- the head ----

    def check_problem(self, config: PretrainedConfig, whose: str) -> None:
        """Check that a trained head is of the task's problem type, where its configuration says of which it is.

        Raises:
            InputError: it is of another one.
        """
        outputs = int(getattr(config, "num_labels", 0) or 0)
        stated = getattr(config, "problem_type", None) or (REGRESSION if outputs == 1 else None)
        if stated == REGRESSION and outputs > 1 and self.problem_type == SINGLE_LABEL:
            # What is left of the model from which it was fine-tuned: transformers leaves the setting as it was.
            stated = None
        if stated in (None, self.problem_type) or stated not in _OWN_TASKS:
            return
        another = f"take --task {_OWN_TASKS[stated]}" if self.name in _OWN_TASKS.values() else "give another model"
        raise InputError(
            f"{whose} has a head for {stated} ({outputs} output{'' if outputs == 1 else 's'}), and task {self.name} is "
            f"{self.problem_type}",
            f"{another}, or correct problem_type in its config.json",
        )

    def write_to(self, config: PretrainedConfig) -> None:
        """Write the problem type into a model's configuration, by which pipelines of transformers read the outputs."""
        config.problem_type = self.problem_type

    def label_losses(self, settings: TrainSettings, train: TokenizedExamples) -> dict[str, Any]:
        """Return the problem type and the weights of the classes; see `Task.label_losses`."""
        return {"problem_type": self.problem_type, "class_weights": self.class_weights(settings, train)}

    def class_weights(self, settings: TrainSettings, train: TokenizedExamples) -> tuple[float, ...] | None:
        """Return what each class counts in the loss on labels; None: all the same."""
        super().label_losses(settings, train)  # which refuses weights
        return None

    # ---- tokens ----

    def examples(self, table: LabelledTexts, bounded: BoundedTokenizer, *, training: bool) -> TokenizedExamples:
        """Return texts, cut off at the maximal length, and the numbers of their labels; see `Task.tokenize`."""
        labels = self.label_numbers(table)
        encoded = encode_texts(bounded.tokenizer, table.texts, table.pairs, max_length=bounded.lengths.max_length)
        kept = {name: rows for name, rows in encoded.items() if name in ("input_ids", "token_type_ids")}
        return TokenizedExamples(kept, {"labels": labels}, table=table)

    @abstractmethod
    def label_numbers(self, table: LabelledTexts) -> NDArray[Any]:
        """Return the labels as the losses read them, (examples,) or (examples, labels).

        Raises:
            InputError: a label is missing or impossible; the message names its row.
        """

    def collator(self, tokenizer: Tokenizer) -> Collator:
        """Return what pads a batch to its longest example."""
        return cast("Collator", DataCollatorWithPadding(tokenizer, return_tensors="pt"))

    # ---- scores ----

    def passes(self, examples: TokenizedExamples, scored: ScoredModel) -> Iterator[tuple[list[int], Tensor, Tensor]]:
        """Yield for batches of similar length the examples' numbers, the logits and the labels, on one device.

        The model is as it was, once all batches are drawn.
        """
        model, collate = scored.model, self.collator(scored.tokenizer)
        device = compute_device(model)
        with scoring_mode(model):
            for batch in length_sorted_batches(examples, scored.batch_size):
                inputs = {key: value.to(device) for key, value in collate([examples[i] for i in batch]).items()}
                labels = inputs.pop("labels")
                with told_failures("the model that is scored", model, inputs):
                    logits = model(**inputs).logits
                yield batch, logits, labels.to(logits.device)
                scored.advance(len(batch))

    def compute_metrics(self) -> Callable[[EvalPrediction], dict[str, float]]:
        """Return what scores the logits of a validation."""

        def scored(prediction: EvalPrediction) -> dict[str, float]:
            return self.scores_of_outputs(_outputs(prediction), np.asarray(prediction.label_ids))

        return scored

    def columns_of(self, prediction: EvalPrediction) -> ExampleColumns:
        """Return what each example of a validation adds to those scores that are means over examples."""
        return self.columns_of_outputs(_outputs(prediction), np.asarray(prediction.label_ids))

    def columns_of_outputs(self, outputs: NDArray[Any], labels: NDArray[Any]) -> ExampleColumns:
        """Return what each example adds to scores that are means over examples; nothing where none is."""
        return {}

    @abstractmethod
    def scores_of_outputs(self, outputs: NDArray[Any], labels: NDArray[Any]) -> dict[str, float]:
        """Return the task's scores of logits, (examples, outputs), against labels as `label_numbers` gives them."""


def _outputs(prediction: EvalPrediction) -> NDArray[Any]:
    """Return the logits of a validation, (examples, outputs); some models return states behind them."""
    logits: Any = prediction.predictions
    return np.asarray(logits[0] if isinstance(logits, tuple) else logits)
