"""Tables of labelled texts -> tokenised examples, as compact arrays, and batches padded to their longest text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset
from transformers import DataCollatorWithPadding, PretrainedConfig
from transformers import PreTrainedTokenizerBase as Tokenizer

from anglekit.distillation.label_sets import LabelSet, label_text
from anglekit.distillation.tasks import ClassificationTask
from anglekit.errors import InputError
from anglekit.tables import Table, find_column, find_text_columns, read_table

__all__ = [
    "DataSettings",
    "LabelledTexts",
    "TokenizedExamples",
    "evaluation_sources",
    "padding_collator",
    "read_labelled_texts",
    "tokenize_examples",
    "usable_length",
]

_ROWS_TOKENIZED_TOGETHER = 1000


@dataclass(frozen=True)
class DataSettings:
    """Which columns of a table are read; None finds them by the task or by usual names.

    Attributes:
        text: the first text.
        text_pair: the second text; "-" says that there is none.
        label: the class.
        limit: only the first rows of each table.
    """

    text: str | None = None
    text_pair: str | None = None
    label: str | None = None
    limit: int | None = None


@dataclass(frozen=True, eq=False)
class LabelledTexts:
    """A table's texts and labels, checked but not yet tokenised.

    Attributes:
        name: of the evaluation set, or "train".
        source: as given.
        sha256: the table's.
        texts: the first texts.
        pairs: the second texts, or None.
        labels: as `label_text` writes them, by name where the task has names; None where missing.
        columns: the names of the columns that were read.
    """

    name: str
    source: str
    sha256: str
    texts: tuple[str, ...]
    pairs: tuple[str, ...] | None
    labels: tuple[str | None, ...]
    columns: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.texts)

    def provenance(self) -> dict[str, Any]:
        """Return what a run records about the data."""
        return {"source": self.source, "sha256": self.sha256, "examples": len(self), "columns": list(self.columns)}


class TokenizedExamples(Dataset[dict[str, Any]]):
    """Token ids of many examples in one flat array, so that a large corpus takes a few bytes a token.

    Args:
        ids: of every example, in order.
        types: token types of the same shapes, where the tokenizer makes them.
        labels: class numbers, (examples,).

    Attributes:
        lengths: tokens of each example.
    """

    def __init__(
        self, ids: Sequence[Sequence[int]], types: Sequence[Sequence[int]] | None, labels: NDArray[np.int64]
    ) -> None:
        self.lengths: list[int] = [len(one) for one in ids]
        self._ends = np.cumsum([0, *self.lengths])
        self._ids = np.fromiter((token for one in ids for token in one), np.int32, int(self._ends[-1]))
        self._types = None
        if types is not None:
            self._types = np.fromiter((kind for one in types for kind in one), np.uint8, int(self._ends[-1]))
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        place = slice(int(self._ends[index]), int(self._ends[index + 1]))
        example: dict[str, Any] = {"input_ids": self._ids[place].tolist(), "labels": int(self.labels[index])}
        if self._types is not None:
            example["token_type_ids"] = self._types[place].tolist()
        return example


def evaluation_sources(given: Sequence[str]) -> dict[str, str]:
    """Return evaluation tables by name: `NAME=SOURCE` as it says, others by the split or the file's name.

    Raises:
        InputError: two of the same name.
    """
    named: dict[str, str] = {}
    for entry in given:
        name, equals, source = entry.partition("=")
        if not equals or not name.replace("-", "_").isidentifier():
            source = entry
            name = entry.rpartition(":")[2] if entry.startswith(("hub:", "builtin:")) else Path(entry).stem
            if entry.startswith("builtin:") and entry.count(":") == 1:
                name = "validation"
        name = "".join(letter if letter.isalnum() or letter in "_-" else "_" for letter in name)
        if name in named:
            raise InputError(
                f"two evaluation tables are called {name!r}; name them: first={named[name]} second={source}"
            )
        named[name] = source
    return named


def read_labelled_texts(
    source: str, task: ClassificationTask, settings: DataSettings | None = None, *, name: str = "train"
) -> LabelledTexts:
    """Read a table's texts and labels.

    Args:
        source: as `tables.read_table` takes it.
        task: whose columns are looked for first.
        settings: columns by name.
        name: what the table is called in scores.

    Raises:
        InputError: the table cannot be read, has no such column, or its text column holds no text.
    """
    settings = settings or DataSettings()
    table = read_table(source, limit=settings.limit)
    present = {str(column) for column in table.frame.columns}
    text = settings.text or (task.text if task.text in present else None)
    pair = settings.text_pair
    if pair is None and settings.text is None and task.text in present and task.text_pair in present:
        pair = task.text_pair
    text, pair = find_text_columns(table, text, pair)
    if task.text_pair is not None and pair is None:
        raise InputError(f"task {task.name} reads pairs and {source} has one text, {text!r}; name two: --text-pair")
    label = find_column(table, "label", settings.label)
    if label is None:
        raise InputError(f"{source} has no label column; name one with --label")
    labels = task.named([label_text(value) for value in table.frame[label].tolist()])
    return LabelledTexts(
        name,
        source,
        table.sha256,
        _texts(table, text),
        None if pair is None else _texts(table, pair),
        tuple(labels),
        (text, label) if pair is None else (text, pair, label),
    )


def usable_length(wanted: int | None, task: ClassificationTask, tokenizer: Tokenizer, config: PretrainedConfig) -> int:
    """Return the tokens that a text may have: as wanted, or the task's but no more than the model can read.

    Raises:
        InputError: more is wanted than the model can read.
    """
    positions = getattr(config, "max_position_embeddings", None)
    limits = [tokenizer.model_max_length]
    if isinstance(positions, int) and positions > 0:
        # RoBERTa's positions begin behind its padding index.
        limits.append(positions - (config.pad_token_id + 1 if "roberta" in str(config.model_type) else 0))
    limit = min(limits)
    if wanted is not None and not 4 <= wanted <= limit:
        raise InputError(f"--max-length is {wanted}; allowed for this model: 4 to {limit}")
    return min(task.max_length, limit) if wanted is None else wanted


def tokenize_examples(
    data: LabelledTexts, labels: LabelSet, tokenizer: Tokenizer, max_length: int
) -> TokenizedExamples:
    """Tokenise texts, cut off at `max_length` tokens, and number their labels.

    Raises:
        InputError: a label is missing or outside the set, or the tokenizer cannot pad.
    """
    if tokenizer.pad_token_id is None:
        raise InputError(
            "the tokenizer has no pad token; set one (for example the end-of-text token) and save it again"
        )
    classes = labels.classes(data.labels, data.source)
    ids: list[list[int]] = []
    types: list[list[int]] = []
    for start in range(0, len(data), _ROWS_TOKENIZED_TOGETHER):
        part = slice(start, start + _ROWS_TOKENIZED_TOGETHER)
        encoded = tokenizer(
            list(data.texts[part]),
            None if data.pairs is None else list(data.pairs[part]),
            truncation=True,
            max_length=max_length,
            return_attention_mask=False,
        )
        ids += encoded["input_ids"]
        types += encoded.get("token_type_ids", [])
    # Truncation stays switched on inside a fast tokenizer and would be saved with it.
    if (backend := getattr(tokenizer, "backend_tokenizer", None)) is not None:
        backend.no_truncation()
    return TokenizedExamples(ids, types or None, classes)


def padding_collator(tokenizer: Tokenizer) -> DataCollatorWithPadding:
    """Return what pads a batch to its longest example."""
    return DataCollatorWithPadding(tokenizer, return_tensors="pt")


def _texts(table: Table, column: str) -> tuple[str, ...]:
    """Return a column's texts, a missing one as the empty text.

    Raises:
        InputError: a cell holds something else, or no cell holds a text.
    """
    texts = []
    for row, cell in enumerate(table.frame[column].tolist()):
        if cell is None or cell != cell:  # NaN alone differs from itself
            texts.append("")
        elif isinstance(cell, str):
            texts.append(cell)
        else:
            raise InputError(
                f"{table.source}, column {column!r}, row {row} (counted from 0) holds {type(cell).__name__} "
                f"{str(cell)[:40]!r}, not text; name a column of text"
            )
    if not any(text.strip() for text in texts):
        raise InputError(f"column {column!r} of {table.source} holds no text; name another with --text or --text-pair")
    return tuple(texts)


def length_sorted_batches(examples: TokenizedExamples, batch_size: int) -> list[list[int]]:
    """Return indices in batches of similar length, for passes in which the order does not matter."""
    order = torch.tensor(examples.lengths).argsort(stable=True).tolist()
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
