"""What a program holds in memory as a probe: texts, a column, a table, or the inputs of a model from a loader."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from anglekit.display.counts import counted
from anglekit.errors import InputError
from anglekit.probes.batches import TokenizedProbe, TokenRuns
from anglekit.probes.data import ProbeData, probe_of_table, read_probe
from anglekit.probes.tokenize import clusters_of, shifted_right
from anglekit.tables.columns import NO_COLUMN
from anglekit.tables.table import table_of_frame
from anglekit.vocabulary import Stream

# What of a batch is read, and what a model takes that has no part in its hidden states.
_READ: Final = ("input_ids", "attention_mask", "token_type_ids", "decoder_input_ids", "decoder_attention_mask")
_LABELS: Final = ("labels", "label", "label_ids")
# Labels of this number are no tokens: the convention of transformers.
_NO_LABEL: Final = -100
_REMEDY: Final = "give a list of texts, a ProbeData, a path, or a loader of dictionaries with input_ids"


@dataclass(frozen=True, eq=False)
class TokenInputs:
    """Token ids as a loader gave them, padding gone: a probe that needs no tokenizer.

    Attributes:
        source: what gave them, in words.
        sha256: the hash of all tokens.
        text: what the first stream reads.
        decoder_inputs: what the decoder of an encoder-decoder reads, shifted already; None where none were given.
        labels: the same before it is shifted; None where decoder inputs or no labels of tokens were given.
        labels_problem: why labels that were given are no target; "" where they are, or none were given.
        text_column: the name of the first stream's tokens.
        target_column: the name of the decoder's, or None.
        not_read: the other entries of the batches.
    """

    source: str
    sha256: str
    text: TokenRuns
    decoder_inputs: TokenRuns | None
    labels: TokenRuns | None
    text_column: str
    target_column: str | None
    not_read: tuple[str, ...]
    labels_problem: str = ""
    texts: tuple[str, ...] = ()
    text_pair_column: str | None = None
    skipped_rows: int = 0
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.text.lengths)

    def __repr__(self) -> str:
        """Return in a line how many examples and tokens there are, and where they came from."""
        return (
            f"<TokenInputs of {self.source}: {counted(len(self), 'example')}, "
            f"{counted(int(self.text.lengths.sum()), 'token')}>"
        )


Probe = ProbeData | TokenInputs


def probe_in_memory(given: Any, targets: Sequence[str] | None = None, pad_id: int | None = None) -> Probe:  # noqa: ANN401
    """Return whatever a program has as a probe.

    Texts are a list, a column of pandas or datasets, or pairs of two texts; a data frame or a `datasets.Dataset` is
    read as a file is, by its usual columns. A path or another source is read by `read_probe`. Inputs of a model are a
    DataLoader or Dataset of dictionaries (or one dictionary) with `input_ids`, of shape (batch, length) or (length,);
    they are gone through once, and padding is what `attention_mask` says. An encoder-decoder's decoder reads
    `decoder_input_ids`, or `labels` shifted as its class shifts them.

    Args:
        given: the probe.
        targets: for each text the target that an encoder-decoder's decoder reads.
        pad_id: the id that pads, where it is known; it tells whether a batch without a mask is padded.

    Raises:
        InputError: it is none of these, it is empty, or what it holds is not as above.
    """
    if isinstance(given, ProbeData | TokenInputs):
        _no_targets(targets, "the probe has its own")
        return given
    if isinstance(given, str | PathLike):
        _no_targets(targets, "name their column with read_probe(..., target=...)")
        if isinstance(given, str) and len(given.split()) > 1 and not Path(given).exists():
            raise InputError(f"the probe is one string, {given[:40]!r}, and no such file", "give texts as a list")
        return read_probe(str(fspath(given)))
    name = f"{type(given).__name__} in memory"
    columns = getattr(given, "column_names", None)
    if isinstance(given, pd.DataFrame) or (
        isinstance(columns, list) and hasattr(given, "to_pandas") and "input_ids" not in columns
    ):
        _no_targets(targets, "give them as a column of the table")
        return probe_of_table(table_of_frame(name, given if isinstance(given, pd.DataFrame) else given.to_pandas()))
    if isinstance(given, Mapping):
        if "input_ids" not in given:
            raise InputError(f"the probe is a {type(given).__name__} without input_ids", _REMEDY)
        _no_targets(targets, "give labels or decoder_input_ids in the batches")
        return _token_inputs(name, [given], pad_id)
    items = _items(given)
    first = next(items, None)
    if first is None:
        raise InputError(f"the probe, a {type(given).__name__}, is empty", _REMEDY)
    if isinstance(first, Mapping):
        _no_targets(targets, "give labels or decoder_input_ids in the batches")
        return _token_inputs(name, chain([first], items), pad_id)
    return _texts([first, *items], targets)


def _no_targets(targets: Sequence[str] | None, remedy: str) -> None:
    if targets is not None:
        raise InputError("targets belong to a list of texts", remedy)


def _items(given: Any) -> Iterator[Any]:  # noqa: ANN401 - whatever a program holds
    if isinstance(given, Tensor) or (isinstance(given, np.ndarray) and given.dtype.kind not in "OUT"):
        raise InputError(
            f"the probe is a {type(given).__name__} of {given.dtype}", 'give token ids as {"input_ids": ids}'
        )
    if hasattr(given, "__getitem__") and hasattr(given, "__len__") and not hasattr(given, "__iter__"):
        yield from (given[number] for number in range(len(given)))  # a Dataset that is only indexed
    elif isinstance(given, Iterable):
        yield from given
    else:
        raise InputError(f"a {type(given).__name__} is no probe", _REMEDY)


def _is_text(item: Any) -> bool:  # noqa: ANN401 - whatever a program holds
    """Return whether an item of a list is a text, or the lack of one as tables have it."""
    return isinstance(item, str) or item is None or item is pd.NA or (isinstance(item, float) and np.isnan(item))


def _texts(items: Sequence[Any], targets: Sequence[str] | None) -> ProbeData:
    """Return the probe of texts or pairs of texts."""
    paired = isinstance(items[0], tuple | list)
    for number, item in enumerate(items):
        parts = item if paired and isinstance(item, tuple | list) else (item,)
        if len(parts) != 1 + paired or not all(map(_is_text, parts)):
            told = ", ".join(type(part).__name__ for part in parts)
            raise InputError(
                f"item {number} of the probe holds {told}, not {'two texts' if paired else 'a text'}", _REMEDY
            )
    columns: dict[str, list[Any]] = (
        {"text": [one for one, _ in items], "text_pair": [other for _, other in items]}
        if paired
        else {"text": list(items)}
    )
    if targets is not None:
        if isinstance(targets, str) or len(targets) != len(items):
            given = "one text" if isinstance(targets, str) else counted(len(targets), "target")
            raise InputError(f"{counted(len(items), 'text')} came with {given}", "give a target for each text")
        columns["target"] = list(targets)
    table = table_of_frame("texts in memory", pd.DataFrame(columns, dtype=object))
    return probe_of_table(
        table,
        text="text",
        text_pair="text_pair" if paired else NO_COLUMN,
        target=NO_COLUMN if targets is None else "target",
    )


# ---- token ids ----


@dataclass
class _Collected:
    """Token rows of batches so far, padding gone; grows in place."""

    ids: list[NDArray[np.int32]] = field(default_factory=list)
    types: list[NDArray[np.int8]] = field(default_factory=list)

    def add(
        self, ids: Sequence[NDArray[Any]], real: Sequence[slice], types: Sequence[NDArray[Any]] | None = None
    ) -> None:
        self.ids += [row[part].astype(np.int32) for row, part in zip(ids, real, strict=True)]
        if types is not None:
            self.types += [row[part].astype(np.int8) for row, part in zip(types, real, strict=True)]

    def runs(self) -> TokenRuns | None:
        """Return all rows, or None if there are none."""
        if not self.ids:
            return None
        lengths = np.array([len(row) for row in self.ids], dtype=np.int64)
        types = np.concatenate(self.types) if self.types else None
        return TokenRuns(np.concatenate(self.ids), np.cumsum(lengths) - lengths, lengths, None, types)


def _token_inputs(source: str, batches: Iterable[Any], pad_id: int | None) -> TokenInputs:
    """Return the tokens of batches, which are gone through once."""
    text, decoder, labels = _Collected(), _Collected(), _Collected()
    problem, other = "", dict[str, None]()
    for number, batch in enumerate(batches):
        where = f"batch {number} of the {source}"
        if not isinstance(batch, Mapping) or batch.get("input_ids") is None:
            held = ", ".join(map(str, batch)) if isinstance(batch, Mapping) else f"a {type(batch).__name__}"
            raise InputError(f"{where} has no input_ids but {held}", _REMEDY)
        ids = _rows(batch["input_ids"], "input_ids", where)
        parts = _real(ids, batch.get("attention_mask"), pad_id, where, "attention_mask")
        types = batch.get("token_type_ids")
        text.add(ids, parts, None if types is None else _fitting(ids, types, "token_type_ids", where))
        shifted, told = batch.get("decoder_input_ids"), batch.get("labels")
        if shifted is not None:
            rows = _rows(shifted, "decoder_input_ids", where)
            mask = batch.get("decoder_attention_mask")
            if mask is None and _hold_tokens(told):
                mask = [(row != _NO_LABEL) for row in _rows(told, "labels", where)]
            decoder.add(rows, _real(rows, mask, pad_id, where, "decoder_attention_mask", starts=True))
        elif _hold_tokens(told) and not problem:
            rows = _rows(told, "labels", where)
            try:
                labels.add(rows, _real(rows, [row != _NO_LABEL for row in rows], None, where, "labels"))
            except InputError as error:  # of a masked language model, or of the completions alone
                problem = error.arrived
        other |= dict.fromkeys(str(name) for name in batch if name not in (*_READ, *_LABELS))
    found = text.runs()
    if found is None:
        raise InputError(f"the {source} is empty", _REMEDY)
    if text.types and len(text.types) != len(text.ids):
        raise InputError(f"some batches of the {source} have token_type_ids and some have none", "give all or none")
    for name, runs in (("decoder_input_ids", decoder), ("labels", labels)):
        if runs.ids and len(runs.ids) != len(text.ids) and not problem:
            raise InputError(f"some batches of the {source} have {name} and some have none", "give all or none")
    decoder_inputs, targets = decoder.runs(), None if problem else labels.runs()
    digest = hashlib.sha256()
    for each in (found, decoder_inputs, targets):
        if each is not None:
            digest.update(each.ids.tobytes() + each.lengths.tobytes() + b"|")
    return TokenInputs(
        source=source,
        sha256=digest.hexdigest(),
        text=found,
        decoder_inputs=decoder_inputs,
        labels=targets,
        text_column="input_ids",
        target_column="decoder_input_ids" if decoder_inputs else "labels" if targets else None,
        not_read=tuple(other),
        labels_problem=problem,
    )


def _hold_tokens(labels: Any) -> bool:  # noqa: ANN401 - whatever a batch holds
    """Return whether labels are sequences of tokens, and no classes or numbers."""
    if isinstance(labels, Tensor | np.ndarray):
        whole = not (torch.is_floating_point(labels) if isinstance(labels, Tensor) else labels.dtype.kind == "f")
        return labels.ndim >= 1 and whole
    return isinstance(labels, Sequence) and len(labels) > 0 and not isinstance(labels[0], float)


def _rows(value: Any, name: str, where: str) -> list[NDArray[Any]]:  # noqa: ANN401 - whatever a batch holds
    """Return an entry of a batch as rows of whole numbers; one row where it is of one example."""
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    try:
        nested = isinstance(value, Sequence) and len(value) > 0 and isinstance(value[0], Sequence | np.ndarray | Tensor)
        rows = [np.asarray(row) for row in (value if nested else np.atleast_2d(np.asarray(value)))]
    except (ValueError, TypeError) as error:
        raise InputError(
            f"{name} in {where} cannot be read: {error}", "give whole numbers, a row an example"
        ) from error
    for row in rows:
        if row.ndim != 1 or row.dtype.kind not in "iub":
            shape = getattr(value, "shape", np.shape(row))
            raise InputError(
                f"{name} in {where} are {row.dtype} of shape {tuple(shape)}", "give whole numbers, a row an example"
            )
    return rows


def _fitting(ids: Sequence[NDArray[Any]], value: Any, name: str, where: str) -> list[NDArray[Any]]:  # noqa: ANN401
    """Return an entry that has a number for each token.

    Raises:
        InputError: it has not.
    """
    rows = _rows(value, name, where)
    if [len(row) for row in rows] != [len(row) for row in ids]:
        shapes = [f"{len(each)} x {max(map(len, each), default=0)}" for each in (rows, ids)]
        raise InputError(f"{name} in {where} are {shapes[0]}, and the tokens {shapes[1]}", "give one for each token")
    return rows


def _real(
    ids: Sequence[NDArray[Any]],
    mask: Any,  # noqa: ANN401 - whatever a batch holds
    pad_id: int | None,
    where: str,
    name: str,
    *,
    starts: bool = False,
) -> list[slice]:
    """Return for each row where its tokens are; with `starts` the first is one, also where it is the padding's id.

    Raises:
        InputError: there is no mask and padding cannot be told from tokens, or a mask has a gap.
    """
    if mask is None:
        padded = len({len(row) for row in ids}) == 1 and len(ids) > 1
        for row in ids:
            ends = row[1:] if starts else row
            if pad_id is None:
                doubtful = padded and len(ends) > 1 and (ends[-1] == ends[-2] or (ends[0] == ends[1] and not starts))
            else:
                doubtful = len(ends) > 0 and bool(ends[-1] == pad_id or (ends[0] == pad_id and not starts))
            if doubtful:
                token = ends[-1] if pad_id is None else pad_id
                raise InputError(
                    f"{where} has no {name}, and token {token} at the end of a row may be padding",
                    f"give the {name}",
                )
        return [slice(0, len(row)) for row in ids]
    found = []
    for row in _fitting(ids, mask, name, where):
        places = np.flatnonzero(row)
        if len(places) and (places[-1] - places[0] + 1 != len(places) or not np.isin(row, (0, 1)).all()):
            raise InputError(
                f"{name} in {where} leave out tokens amid a row, or are no mask of 0 and 1",
                "give examples whose tokens follow each other",
            )
        found.append(slice(int(places[0]), int(places[-1]) + 1) if len(places) else slice(0, 0))
    return found


def tokenized_inputs(
    inputs: TokenInputs,
    *,
    needs_target: bool,
    text_stream: Stream,
    token_budget: int,
    special_ids: NDArray[np.int32] | None = None,
    pad_id: int = 0,
    pad_to: int | None = None,
    decoder_start_token_id: int | None = None,
    most: int | None = None,
    most_target: int | None = None,
) -> TokenizedProbe:
    """Return token ids as the models read them, in batches of our own.

    Args:
        inputs: the token ids.
        needs_target: whether the models are encoder-decoders.
        text_stream: the stream that reads the text.
        token_budget: the most padded tokens of a batch.
        special_ids: tokens that do not count; None: all count.
        pad_id: the id at padded positions.
        pad_to: as of `tokenize_probe`.
        decoder_start_token_id: the model's, needed to shift labels.
        most: the most tokens that the models take; None: no limit.
        most_target: the same of the decoder.

    Raises:
        InputError: the decoder is given nothing, a sequence is too long, or nothing counts.
    """
    target = inputs.decoder_inputs if needs_target else None
    if needs_target and target is None:
        if inputs.labels is None:
            problem = f": {inputs.labels_problem}" if inputs.labels_problem else ""
            raise InputError(
                f"the {inputs.source} gives an encoder-decoder nothing for its decoder{problem}",
                "give labels or decoder_input_ids",
            )
        if decoder_start_token_id is None:
            raise InputError("the model's config names no decoder_start_token_id", "give decoder_input_ids")
        target = shifted_right(inputs.labels, decoder_start_token_id)
    for runs, limit in ((inputs.text, most), (target, most_target)):
        longest = 0 if runs is None else int(runs.lengths.max(initial=0))
        least = min((each for each in (limit, pad_to) if each is not None), default=longest)
        if longest > least:
            raise InputError(
                f"the {inputs.source} holds an example of {longest} tokens, more than the {least} that are taken",
                "cut it where it is tokenised",
            )
    read = [runs if special_ids is None else _without(runs, special_ids) for runs in (inputs.text, target) if runs]
    kept = np.flatnonzero(np.all([runs.counted_lengths() > 0 for runs in read], axis=0))
    if not len(kept):
        raise InputError(f"the {inputs.source} has no example with a token that counts", "give other data")
    read = [runs.select(kept) for runs in read]
    return TokenizedProbe(
        text=read[0],
        target=read[1] if target is not None else None,
        rows=kept.astype(np.int64),
        clusters=clusters_of(kept.astype(np.int64), read),
        lost_tokens=np.zeros(len(kept), dtype=np.int64),
        text_stream=text_stream,
        token_budget=token_budget,
        pad_to=pad_to,
        pad_id=pad_id,
        pad_type_id=0,
        max_length=None,
        target_max_length=None,
        skipped_examples=len(inputs) - len(kept),
    )


def _without(runs: TokenRuns, special_ids: NDArray[np.int32]) -> TokenRuns:
    return replace(runs, counted=~np.isin(runs.ids, special_ids))
