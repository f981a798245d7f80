"""Several labels for one text: a head with one output for each label, each answered by itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray

from anglekit.distillation.settings import DataSettings, names_listed
from anglekit.distillation.tasks.data import TokenizedExamples
from anglekit.distillation.tasks.labelled.class_task import ClassTask
from anglekit.distillation.tasks.labelled.doubts import doubts_about_labels
from anglekit.distillation.tasks.labelled.label_cells import (
    KeptLabels,
    kept_labels,
    label_list,
    label_text,
    plain_cells,
)
from anglekit.distillation.tasks.labelled.label_sets import (
    LabelSet,
    check_labels_in_data,
    labels_in_data,
    leaving_out,
    listed,
)
from anglekit.distillation.tasks.labelled.labelled_task import LabelledTexts
from anglekit.distillation.tasks.task import ScoredModel, ScoreReport
from anglekit.errors import InputError
from anglekit.results.corpus_scores import LABEL_SCORES, f1
from anglekit.results.example_scores import MOST_LABELS, PREDICTED_LABEL, TARGET_LABEL
from anglekit.tables.columns import find_column
from anglekit.tables.table import Table
from anglekit.vocabulary import MULTI_LABEL, ProblemType

#: Rows' labels as names; None where a row has no cell.
_Names = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class MultiLabelTask(ClassTask):
    """A task in which a text has any number of labels, none too.

    A label column holds lists of names or numbers, a text with separators, or lists of 0 and 1 with a place for each
    label; several columns (`--label toxic,insult`) hold 0 or 1 each. A label is given where its logit is above 0, its
    probability above one half. Of a label that is left out, rows that have no other one are left out.
    """

    scores: tuple[str, ...] = ("micro_f1", "macro_f1", "subset_accuracy")

    allowed_scores: ClassVar[Sequence[str]] = (*LABEL_SCORES, "subset_accuracy")
    model_kind: ClassVar[str] = "a classifier of several labels"
    problem_type: ClassVar[ProblemType | None] = MULTI_LABEL
    loss_names: ClassVar[tuple[str, str]] = ("binary cross-entropy of each label", "KL of each label")

    def read_labels(
        self, table: Table, columns: DataSettings
    ) -> tuple[tuple[str, ...], KeptLabels[_Names], tuple[str, ...]]:
        """Return the label columns, the names of each row's labels, and the labels that the table itself names."""
        names = () if columns.label is None else names_listed(columns.label)
        if len(names) > 1:
            return self._read_columns(table, names, columns)
        column = find_column(table, "label", columns.label)
        cells = [label_list(cell, columns.label_separator) for cell in plain_cells(table, column)]
        own = table.class_names.get(column, ())
        named = self.labels or own
        width = _width_of_indicators(cells, len(named) or None)
        numbered = named or tuple(map(str, range(width or 0)))
        if width is not None and len(numbered) != width:
            raise InputError(
                f"column {column!r} of {table.source} holds lists of {width} places for labels, and there are "
                f"{len(numbered)} ({listed(numbered)})",
                "name as many: --classes",
            )

        def read(row: int, cell: list[Any] | None) -> _Names | None:
            if cell is None:
                return None
            if width is not None:
                return tuple(name for name, there in zip(numbered, cell, strict=True) if float(there) == 1.0)
            texts = [None if isinstance(one, list | dict) else label_text(one) for one in cell]
            if None in texts:
                raise InputError(
                    f"{table.cell_place(column, row)} holds {str(cell)[:40]!r}, which is no list of labels",
                    "give lists of names or numbers, or name another column with --label",
                )
            return tuple(dict.fromkeys(self.name_of(text, own) for text in texts if text is not None))

        none, dropped = columns.labels_left_out
        # A row whose only label is one that is left out has none; of several, the others stay.
        single = [cell[0] if cell is not None and len(cell) == 1 and width is None else cell for cell in cells]
        kept = kept_labels(
            single,
            columns,
            lambda row, cell: read(row, cell if cell is None or isinstance(cell, list) else [cell]),
            table.source,
            partial(self.name_of, own=own),
        )
        taken = none | dropped
        labels = tuple(None if one is None else tuple(name for name in one if name not in taken) for one in kept.labels)
        known = () if width is None and not own else tuple(name for name in numbered if name not in taken)
        return (column,), KeptLabels(labels, kept.rows, kept.left_out), known

    def _read_columns(
        self, table: Table, names: Sequence[str], columns: DataSettings
    ) -> tuple[tuple[str, ...], KeptLabels[_Names], tuple[str, ...]]:
        """Return the labels of columns that hold 0 or 1 each; a column's name is its label's."""
        found = [find_column(table, "label", name) for name in names]
        labels = self.labels or tuple(found)
        if len(labels) != len(found):
            raise InputError(f"--label names {len(found)} columns and there are {len(labels)} classes", "name as many")
        none, dropped = columns.labels_left_out
        called = {name: label for name, label in zip(found, labels, strict=True) if not {name, label} & dropped}
        rows = zip(*(table.column(name) for name in called), strict=True)

        def read(row: int, cells: list[Any]) -> _Names | None:
            texts = [label_text(cell) for cell in cells]
            for name, text in zip(called, texts, strict=True):
                if text not in ("0", "1", None):
                    raise InputError(
                        f"{table.cell_place(name, row)} holds {text[:40]!r}",
                        leaving_out(text),
                        allowed="allowed in a label's column: 0 and 1",
                    )
            if None in texts:
                return None
            return tuple(label for label, text in zip(called.values(), texts, strict=True) if text == "1")

        def without(cells: list[Any]) -> Any:  # noqa: ANN401 - whatever the cell holds
            """Return the first cell that says that the row has no label, else all of them."""
            missing = (cell for cell in cells if (text := label_text(cell)) is None or text in none)
            return cells if columns.no_label is None else next(missing, cells)

        kept = kept_labels([without(list(cells)) for cells in rows], columns, read, table.source)
        return tuple(called), kept, tuple(called.values())

    # ---- classes ----

    def found(self, table: LabelledTexts) -> LabelSet:
        """Return the labels that are in the data; see `ClassTask.found`."""
        texts, place = self.flat(table)
        check_labels_in_data(texts, place, table.source, table.columns[-1])
        return labels_in_data(texts)

    def flat(self, table: LabelledTexts) -> tuple[Sequence[str | None], Callable[[int], tuple[str, str]]]:
        """Return all labels of all rows, and where each stands."""
        pairs = [
            (name, row)
            for row, names in zip(table.rows, table.labels, strict=True)
            for name in ((None,) if names is None else names)
        ]
        return [name for name, _ in pairs], lambda number: table.place(pairs[number][1])

    def label_numbers(self, table: LabelledTexts) -> NDArray[np.float64]:
        """Return 1 for each label that a row has and 0 for the others, (examples, labels)."""
        labels = self.read_in(self.settled, table)
        if len(labels.names) > MOST_LABELS:
            raise InputError(
                f"there are {len(labels.names):,} labels",
                f"at most {MOST_LABELS:,} are scored: see --drop-labels",
            )
        numbers = labels.classes(*self.flat(table))
        found = np.zeros((len(table), len(labels.names)))
        found[np.repeat(np.arange(len(table)), [len(names) for names in table.labels]), numbers] = 1.0
        return found

    def balanced(self, labels: NDArray[Any]) -> NDArray[np.float64]:
        """Return for each label how many examples lack it for one that has it; see `ClassTask.balanced`."""
        there = labels.sum(axis=0)
        weights: NDArray[np.float64] = np.ones(len(there))
        weights[there > 0] = len(labels) / there[there > 0] - 1.0
        return weights

    # ---- scores ----

    def doubts(self, examples: TokenizedExamples, scored: ScoredModel) -> tuple[str, ...]:
        """Return what speaks against the model's labels; see `Task.doubts`."""
        true = examples.numbers["labels"]
        outputs = np.empty(true.shape)
        for batch, logits, _ in self.passes(examples, scored):
            outputs[batch] = logits.double().cpu().numpy()
        return tuple(doubts_about_labels(outputs, true, self.settled.names))

    def scores_of_outputs(self, outputs: NDArray[Any], labels: NDArray[Any]) -> dict[str, float]:
        """Return the task's scores of the labels given; see `LabelledTask.scores_of_outputs`."""
        return self._scores(outputs > 0.0, labels == 1.0)

    def chance(self, examples: TokenizedExamples) -> dict[str, float]:
        """Return the best that one set of labels for every example reaches, by score; see `Task.chance`."""
        true = examples.numbers["labels"] == 1.0
        if not len(true):
            return {}
        # Micro F1 gains most from the commonest labels, macro F1 from all of them.
        order = np.argsort(-true.sum(axis=0), kind="stable")
        sets = [np.isin(np.arange(true.shape[1]), order[:number]) for number in range(1, true.shape[1] + 1)]
        sets.append(np.array(Counter(map(tuple, true.tolist())).most_common(1)[0][0]))
        constant = [self._scores(np.broadcast_to(each, true.shape), true) for each in sets]
        return {name: max(found[name] for found in constant) for name in self.scores}

    def score_values(self, examples: TokenizedExamples, scored: ScoredModel) -> ScoreReport:
        """Return the task's scores of the labels given, and those of each label; see `Task.score_values`."""
        true = examples.numbers["labels"] == 1.0
        given, losses = np.empty(true.shape, dtype=np.bool_), np.empty(len(true))
        for batch, logits, labels in self.passes(examples, scored):
            given[batch] = (logits > 0).cpu().numpy()
            each = F.binary_cross_entropy_with_logits(logits.float(), labels.float(), reduction="none")
            losses[batch] = each.mean(-1).cpu().numpy()
        columns: dict[str, NDArray[Any]] = {"subset_accuracy": (given == true).all(axis=1).astype(np.int64)}
        for number, name in enumerate(self.settled.names):
            columns[PREDICTED_LABEL + name] = given[:, number].astype(np.int64)
            columns[TARGET_LABEL + name] = true[:, number].astype(np.int64)
        return ScoreReport(
            self._scores(given, true),
            {"by_label": label_rows(self.settled.names, given, true)},
            {**columns, "loss": losses},
        )

    def _scores(self, given: NDArray[np.bool_], true: NDArray[np.bool_]) -> dict[str, float]:
        counts = _counts(given, true)
        found = {name: LABEL_SCORES[name](counts)[0] for name in self.scores if name in LABEL_SCORES}
        return {**found, "subset_accuracy": float(np.mean((given == true).all(axis=1)))}


def label_rows(names: Sequence[str], given: NDArray[np.bool_], true: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """Return for each label its `f1`, `precision` and `recall`, 0 where they are not defined, and how many have it."""
    return [
        {
            "label": name,
            "examples": int(of),
            "f1": f1(np.array([hits, predicted, of]))[0],
            "precision": float(hits / predicted) if predicted else 0.0,
            "recall": float(hits / of) if of else 0.0,
        }
        for name, (hits, predicted, of) in zip(names, _counts(given, true).T, strict=True)
    ]


def _counts(given: NDArray[np.bool_], true: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return for each label the examples found, given it, and having it, (3, labels)."""
    return np.stack([(given & true).sum(axis=0), given.sum(axis=0), true.sum(axis=0)]).astype(np.float64)


def _width_of_indicators(cells: Sequence[list[Any] | None], classes: int | None) -> int | None:
    """Return the length of lists that have a place for each label, 0 or 1; None where they name their labels.

    Lists of class numbers differ in length, or name a number but once.
    """
    lists = [cell for cell in cells if cell is not None]
    widths = {len(cell) for cell in lists}
    if len(widths) != 1 or (width := widths.pop()) < 2:
        return None
    texts = [[label_text(one) for one in cell] for cell in lists]
    if any(text not in ("0", "1") for own in texts for text in own):
        return None
    repeats = any(len(set(own)) < width for own in texts)
    as_floats = any(isinstance(one, float) for cell in lists for one in cell)
    return width if repeats or as_floats or width == classes else None
