"""Classification: texts or pairs of texts with a label, a head with one output for each class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self, cast

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from transformers import (
    AutoModelForSequenceClassification,
    DataCollatorWithPadding,
    EvalPrediction,
    PretrainedConfig,
)
from transformers import PreTrainedTokenizerBase as Tokenizer

from anglekit.distillation.settings import DataSettings
from anglekit.distillation.tasks.data import TextTable, TokenizedExamples, length_sorted_batches, origin
from anglekit.distillation.tasks.generation import scoring_mode
from anglekit.distillation.tasks.label_sets import LabelSet, label_text, labels_in_data, labels_of_config
from anglekit.distillation.tasks.scores import SCORES, class_columns, class_scores
from anglekit.distillation.tasks.task import BoundedTokenizer, Collator, ScoredModel, ScoreReport, Task
from anglekit.distillation.tasks.text_columns import texts_of
from anglekit.errors import InputError
from anglekit.probes.encode import encode_texts
from anglekit.runtime.placement import compute_device
from anglekit.tables.columns import find_column, find_text_columns
from anglekit.tables.table import Table


@dataclass(frozen=True, eq=False, kw_only=True)
class LabelledTexts(TextTable):
    """A table's texts and labels.

    Attributes:
        texts: the first texts.
        pairs: the second texts, or None.
        labels: as `label_text` writes them, by name where the task has names; None where missing.
    """

    texts: tuple[str, ...]
    pairs: tuple[str, ...] | None
    labels: tuple[str | None, ...]

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True, kw_only=True)
class ClassificationTask(Task):
    """A classification task.

    Attributes:
        text: the first text's column; None looks for a usual name.
        text_pair: the second text's column, if there is one.
        labels: the classes in the order of the data's own numbers; None takes them from the data or the teacher.
        positive: the class that F1 is about.
        classes: the classes in the order of a model's outputs; None until data or a model determine them.
    """

    text: str | None = None
    text_pair: str | None = None
    labels: tuple[str, ...] | None = None
    scores: tuple[str, ...] = ("accuracy",)
    positive: str | None = None
    classes: LabelSet | None = None

    allowed_scores: ClassVar[Sequence[str]] = tuple(SCORES)
    model_class: ClassVar[Any] = AutoModelForSequenceClassification
    model_kind: ClassVar[str] = "a classifier"
    head: ClassVar[str] = "classification"
    new_head: ClassVar[bool] = True

    def positive_class(self, labels: LabelSet) -> int:
        """Return the number of the class that F1 is about; 1 where the task names none."""
        found = labels.index(self.positive) if self.positive is not None else None
        return 1 if found is None else found

    def named(self, texts: Sequence[str | None]) -> list[str | None]:
        """Return labels by name where the data gives the task's own numbers, as the hub's copies of GLUE do."""
        if self.labels is None:
            return list(texts)
        numbered = {str(number): name for number, name in enumerate(self.labels)}
        if any(text is not None and text not in numbered for text in texts):
            return list(texts)
        return [None if text is None else numbered[text] for text in texts]

    def texts(self, table: Table, columns: DataSettings, name: str) -> LabelledTexts:
        """Return a table's texts and labels; see `Task.read`."""
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
        label = find_column(table, "label", columns.label)
        return LabelledTexts(
            **origin(table, name),
            columns=(text, label) if pair is None else (text, pair, label),
            texts=texts_of(table, text, "text", may_be_missing=True),
            pairs=None if pair is None else texts_of(table, pair, "text", may_be_missing=True),
            labels=tuple(self.named([label_text(value) for value in table.column(label)])),
        )

    # ---- classes ----

    def for_fine_tuning(self, train: TextTable, config: PretrainedConfig) -> Self:
        """Take the classes from the task or the data; if the checkpoint has the same ones, in its order."""
        table = cast("LabelledTexts", train)
        labels = LabelSet(self.labels) if self.labels is not None else labels_in_data(table.labels)
        labels.classes(table.labels, table.source)
        named = config.id2label or {}
        if len(named) >= 2 and set((own := labels_of_config(config)).names) == set(labels.names):
            # So that a head that already exists stays right.
            labels = own
        return replace(self, classes=labels)

    def for_teacher(self, train: TextTable, config: PretrainedConfig) -> Self:
        """Take the teacher's classes, and check that the training data has the same."""
        table = cast("LabelledTexts", train)
        present = sorted({text for text in table.labels if text is not None})
        labels = labels_of_config(config)
        if self.labels is not None and len(self.labels) != len(labels.names):
            raise InputError(
                f"the teacher has {len(labels.names)} labels ({', '.join(labels.names[:8])}) and task {self.name} has "
                f"{len(self.labels)} ({', '.join(self.labels)})",
                "fine-tune a teacher on this task first",
            )
        if self.labels is not None and labels.generic:
            labels = LabelSet(self.labels)
        outside = labels.outside(present)
        reached = {labels.index(text) for text in present}
        absent = [name for number, name in enumerate(labels.names) if number not in reached]
        if outside or absent:
            problem = f"has {outside[0]!r}, which the teacher lacks" if outside else f"has no {absent[0]!r}"
            raise InputError(
                f"the label sets differ: {table.source} {problem}",
                f"the teacher's are {', '.join(labels.names[:12])}; use data with the teacher's labels, or fine-tune "
                "a teacher on this data",
            )
        return replace(self, classes=labels)

    def for_trained(self, config: PretrainedConfig) -> Self:
        """Take the classes of the model that is scored."""
        labels = labels_of_config(config)
        if labels.generic and self.labels is not None and len(self.labels) == len(labels.names):
            labels = LabelSet(self.labels)
        return replace(self, classes=labels)

    @property
    def settled(self) -> LabelSet:
        """The classes, once they are determined.

        Raises:
            InputError: neither data nor a model has determined them yet.
        """
        if self.classes is None:
            raise InputError(f"the classes of task {self.name} are open", "settle them by training data or a model")
        return self.classes

    def check_student(self, config: PretrainedConfig, source: str) -> None:
        """Check that a student's own head has the classes, in their order; names that say nothing are any."""
        saved = str(next(iter(config.architectures or ()), ""))
        if not saved.endswith("ForSequenceClassification"):
            return
        wanted, own = self.settled, [str(name) for _, name in sorted((config.id2label or {}).items())]
        generic = wanted.generic or all(name.startswith("LABEL_") for name in own)
        same = [name.casefold() for name in own] == [name.casefold() for name in wanted.names]
        if len(own) != len(wanted.names) or not (generic or same):
            raise InputError(
                f"the student {source} has a head of other labels ({', '.join(own[:12])}) than its teacher "
                f"({', '.join(wanted.names[:12])})",
                "save it without its head (its base_model), and a new one is made",
            )

    def write_to(self, config: PretrainedConfig) -> None:
        """Write the classes into a model's configuration."""
        for name, value in self.settled.config_settings().items():
            setattr(config, name, value)

    def facts(self) -> dict[str, Any]:
        """Return the classes in order."""
        return {"labels": list(self.settled.names)}

    # ---- tokens ----

    def examples(self, table: LabelledTexts, bounded: BoundedTokenizer, *, training: bool) -> TokenizedExamples:
        """Return texts, cut off at the maximal length, and the numbers of their labels; see `Task.tokenize`."""
        classes = self.settled.classes(table.labels, table.source)
        encoded = encode_texts(bounded.tokenizer, table.texts, table.pairs, max_length=bounded.lengths.max_length)
        kept = {name: rows for name, rows in encoded.items() if name in ("input_ids", "token_type_ids")}
        return TokenizedExamples(kept, {"labels": classes}, table=table)

    def collator(self, tokenizer: Tokenizer) -> Collator:
        """Return what pads a batch to its longest example."""
        return cast("Collator", DataCollatorWithPadding(tokenizer, return_tensors="pt"))

    # ---- scores ----

    def compute_metrics(self) -> Callable[[EvalPrediction], dict[str, float]]:
        """Return what scores the logits of a validation."""

        def scored(prediction: EvalPrediction) -> dict[str, float]:
            logits: Any = prediction.predictions
            classes: NDArray[np.int64] = np.asarray(logits[0] if isinstance(logits, tuple) else logits).argmax(-1)
            return self._scores(classes, np.asarray(prediction.label_ids).astype(np.int64))

        return scored

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
        model, collate = scored.model, self.collator(scored.tokenizer)
        predicted, losses = np.empty(len(examples), dtype=np.int64), np.empty(len(examples))
        device = compute_device(model)
        with scoring_mode(model):
            for batch in length_sorted_batches(examples, scored.batch_size):
                inputs = {key: value.to(device) for key, value in collate([examples[i] for i in batch]).items()}
                labels = inputs.pop("labels")
                logits = model(**inputs).logits
                predicted[batch] = logits.argmax(-1).cpu().numpy()
                labels = labels.to(logits.device)
                losses[batch] = F.cross_entropy(logits.float(), labels, reduction="none").cpu().numpy()
                scored.advance(len(batch))
        true = examples.numbers["labels"]
        columns = class_columns(self.scores, predicted, true, positive=self.positive_class(self.settled))
        return ScoreReport(self._scores(predicted, true), examples={**columns, "loss": losses})

    def _scores(self, predicted: NDArray[np.int64], true: NDArray[np.int64]) -> dict[str, float]:
        return class_scores(self.scores, predicted, true, positive=self.positive_class(self.settled))
