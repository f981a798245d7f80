"""Tables of texts -> tokenised examples, as compact arrays, and batches padded to their longest text."""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from anglekit.distillation.losses.functional import IGNORE_INDEX
from anglekit.tables.table import Table


@dataclass(frozen=True, eq=False, kw_only=True)
class TextTable(ABC):
    """A table's texts, checked but not yet tokenised.

    Attributes:
        name: the name of the evaluation set, or "train".
        source: the table, as given.
        sha256: the hash of the table.
        columns: the names of the columns that were read.
        notes: what a person should know of how they were read.
    """

    name: str
    source: str
    sha256: str
    columns: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @abstractmethod
    def __len__(self) -> int: ...

    def provenance(self) -> dict[str, Any]:
        """Return what a run records about the data."""
        known = {"source": self.source, "sha256": self.sha256, "examples": len(self), "columns": list(self.columns)}
        return known | ({"notes": list(self.notes)} if self.notes else {})

    def texts_in_pieces(self) -> Iterator[tuple[str, ...]]:
        """Yield every text of some rows after others; here of all rows."""
        yield self.texts_read()

    def texts_read(self) -> tuple[str, ...]:
        """Return every text of the rows, pairs, targets and choices too."""
        own = {each.name for each in fields(TextTable)}
        return tuple(
            text
            for each in fields(self)
            if each.name not in own
            for value in (getattr(self, each.name),)
            if isinstance(value, tuple)
            for row in value
            for text in (row if isinstance(row, tuple) else (row,))
            if isinstance(text, str)
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class StreamedTexts(TextTable):
    """A table's texts that are never all in memory: they are read piece by piece, each time they are needed.

    Attributes:
        pieces: yields some texts after others, each piece of the kind's own `TextTable`.
        n_rows: how many rows there are.
        known: the kind's table of all rows without their texts, where a task reads more of it; else None.
    """

    pieces: Callable[[], Iterator[TextTable]]
    n_rows: int
    known: TextTable | None

    def __len__(self) -> int:
        return self.n_rows

    def texts_in_pieces(self) -> Iterator[tuple[str, ...]]:
        """Yield every text of some rows after others."""
        return (piece.texts_read() for piece in self.pieces())


def known_of(table: TextTable) -> TextTable:
    """Return what is known of a table without reading its texts; of one in memory that is itself."""
    # Without its texts a table of labels is as long as none.
    return table.known if isinstance(table, StreamedTexts) and table.known is not None else table


def origin(table: Table, name: str) -> dict[str, Any]:
    """Return the `TextTable` fields that say where a table came from, and how it was read."""
    return {"name": name, "source": table.source, "sha256": table.sha256, "notes": table.notes}


class TokenizedExamples(Dataset[dict[str, Any]]):
    """Token ids of many examples in flat arrays, so that a large corpus takes only a few bytes per token.

    Args:
        tokens: sequences by the name that the collator reads; `input_ids` at least. Sequences named `labels` are a
            second stream's tokens.
        numbers: by name, one for each example, (examples,), or one for each of its labels, (examples, labels).
        table: where the examples came from, for scores that need more than tokens.
        scored: the same examples in the form that scores read, where losses read another.
        rows: of each example the row of the table that it is a part of, (examples,); None: its own.

    Attributes:
        lengths: tokens of each example, both streams together.
    """

    def __init__(
        self,
        tokens: Mapping[str, Sequence[Sequence[int]]],
        numbers: Mapping[str, NDArray[Any]] | None = None,
        *,
        table: TextTable | None = None,
        scored: TokenizedExamples | None = None,
        rows: NDArray[np.int64] | None = None,
    ) -> None:
        self.numbers = dict(numbers or {})
        self.table = table
        self.scored = scored
        self.rows = rows
        self._ends: dict[str, NDArray[np.int64]] = {}
        self._flat: dict[str, NDArray[np.int32]] = {}
        for name, sequences in tokens.items():
            ends = np.cumsum([0, *(len(one) for one in sequences)])
            self._ends[name] = ends
            self._flat[name] = np.fromiter((token for one in sequences for token in one), np.int32, int(ends[-1]))
        self.lengths = self._lengths()

    @classmethod
    def joined(cls, pieces: Iterable[TokenizedExamples], table: TextTable) -> TokenizedExamples:
        """Return the examples of many pieces; their tokens lie in temporary files, from where they are read.

        In memory are a few numbers of each example. The files are gone with the examples.
        """
        whole, n_rows = cls({}, table=table), 0
        files: dict[str, IO[bytes]] = {}
        sizes: dict[str, list[NDArray[np.int64]]] = {}
        numbers: dict[str, list[NDArray[np.int64]]] = {}
        rows: list[NDArray[np.int64]] = []
        with ExitStack() as opened:
            for piece in pieces:
                for name, flat in piece._flat.items():
                    if name not in files:
                        files[name] = opened.enter_context(tempfile.TemporaryFile())
                    files[name].write(flat.tobytes())
                    sizes.setdefault(name, []).append(np.diff(piece._ends[name]))
                for name, values in piece.numbers.items():
                    numbers.setdefault(name, []).append(values)
                if piece.rows is not None:
                    rows.append(piece.rows + n_rows)
                n_rows += piece.n_rows
            for name, file in files.items():
                file.flush()
                ends = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(np.concatenate(sizes[name]))])
                # An empty file cannot be mapped.
                held = np.memmap(file, np.int32, "r") if ends[-1] else np.zeros(0, dtype=np.int32)
                whole._ends[name], whole._flat[name] = ends, held
        whole.numbers = {name: np.concatenate(values) for name, values in numbers.items()}
        whole.rows = np.concatenate(rows) if rows else None
        whole.lengths = whole._lengths()
        return whole

    def _lengths(self) -> list[int]:
        counted = [self._ends[name] for name in ("input_ids", "labels") if name in self._ends]
        lengths: list[int] = np.sum([np.diff(ends) for ends in counted], axis=0).tolist() if counted else []
        return lengths

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        example: dict[str, Any] = {
            name: flat[int(self._ends[name][index]) : int(self._ends[name][index + 1])].tolist()
            for name, flat in self._flat.items()
        }
        return example | {name: values[index].tolist() for name, values in self.numbers.items()}

    def spread(self, number: int) -> TokenizedExamples:
        """Return so many examples, or all, evenly spread over these and without their table."""
        places = np.unique(np.linspace(0, len(self) - 1, min(number, len(self))).round().astype(np.int64))
        tokens = {name: [self[place][name] for place in places.tolist()] for name in self._flat}
        return TokenizedExamples(tokens, {name: values[places] for name, values in self.numbers.items()})

    @property
    def n_rows(self) -> int:
        """How many rows the table has; an example may be a part of one."""
        return len(self) if self.table is None else len(self.table)

    def longest(self, name: str) -> int:
        """Return the most tokens of a sequence of this name; 0 where the examples have none."""
        return int(np.diff(self._ends[name]).max(initial=0)) if name in self._ends else 0

    def highest(self, name: str) -> int:
        """Return the highest token number in sequences of this name; -1 where the examples have none."""
        return int(self._flat[name].max(initial=-1)) if name in self._flat else -1

    def at_limit(self, limit: int) -> int:
        """Return how many inputs have the maximal length, and so were probably cut off."""
        return int((np.diff(self._ends["input_ids"]) >= limit).sum())


@dataclass(frozen=True)
class PaddedBatches:
    """A collator that pads every sequence of a batch to the longest of its name.

    Attributes:
        pad_id: pads `input_ids`; `labels` are padded with -100 and everything else with 0.
        left: pad on the left, as generation by causal models needs it.
    """

    pad_id: int
    left: bool = False

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Return the batch with its attention mask."""
        batch: dict[str, Tensor] = {}
        for name, first in examples[0].items():
            if isinstance(first, int):
                batch[name] = torch.tensor([example[name] for example in examples])
                continue
            rows = [example[name] for example in examples]
            batch[name] = self._padded(rows, {"input_ids": self.pad_id, "labels": IGNORE_INDEX}.get(name, 0))
            if name == "input_ids":
                batch["attention_mask"] = self._padded([[1] * len(row) for row in rows], 0)
        return batch

    def _padded(self, rows: list[list[int]], value: int) -> Tensor:
        longest = max(map(len, rows))
        fill = [[value] * (longest - len(row)) for row in rows]
        return torch.tensor(
            [pad + row if self.left else row + pad for row, pad in zip(rows, fill, strict=True)], dtype=torch.int64
        )


def length_sorted_batches(examples: TokenizedExamples, batch_size: int) -> list[list[int]]:
    """Return indices in batches of similar length, for passes in which the order does not matter."""
    order = torch.tensor(examples.lengths).argsort(stable=True).tolist()
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
