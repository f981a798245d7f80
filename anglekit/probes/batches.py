"""Tokenised probe data and its batches: flat arrays of token ids, padded only in a batch, with each token's example."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anglekit.errors import InputError
from anglekit.probes.batch_plan import equal_length_batches, plan_batches
from anglekit.vocabulary import Batching, Stream


@dataclass(frozen=True, eq=False)
class ProbeBatch:
    """A batch of probe examples, padded on the right, ready for a forward pass.

    Attributes:
        input_ids: int64 (batch, length).
        attention_mask: int64 (batch, length), 1 at real tokens; None where nothing is padded, unless asked for.
        token_type_ids: int64 (batch, length), or None if the tokenizer makes none.
        decoder_input_ids: int64 (batch, target length) of an encoder-decoder's teacher-forced target, or None.
        decoder_attention_mask: as `attention_mask`, for the decoder.
        examples: the examples' row numbers in the probe data, counted from 0, int64 (batch,).
        clusters: for each example the first one of the probe that reads the same, by its row number, int64 (batch,).
        token_indices: see `token_index`.
        token_examples: see `token_example`.
    """

    input_ids: Tensor
    attention_mask: Tensor | None
    token_type_ids: Tensor | None
    decoder_input_ids: Tensor | None
    decoder_attention_mask: Tensor | None
    examples: Tensor
    clusters: Tensor
    token_indices: dict[Stream, Tensor]
    token_examples: dict[Stream, Tensor]

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The streams that this batch feeds."""
        return tuple(self.token_indices)

    def token_index(self, stream: Stream) -> Tensor:
        """Return the positions of the tokens that count in the flattened (batch * length) states, int64, ascending."""
        return self.token_indices[stream]

    def token_example(self, stream: Stream) -> Tensor:
        """Return for each token that counts the position of its example in `examples`, int64, ascending."""
        return self.token_examples[stream]

    def to(self, device: torch.device | str) -> ProbeBatch:
        """Return the batch on a device."""

        def moved(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(device)

        return ProbeBatch(
            input_ids=self.input_ids.to(device),
            attention_mask=moved(self.attention_mask),
            token_type_ids=moved(self.token_type_ids),
            decoder_input_ids=moved(self.decoder_input_ids),
            decoder_attention_mask=moved(self.decoder_attention_mask),
            examples=self.examples.to(device),
            clusters=self.clusters.to(device),
            token_indices={stream: index.to(device) for stream, index in self.token_indices.items()},
            token_examples={stream: example.to(device) for stream, example in self.token_examples.items()},
        )


@dataclass(frozen=True, eq=False)
class TokenRuns:
    """Token sequences of many lengths in flat arrays: about 4 bytes a token.

    Attributes:
        ids: the tokens of all sequences, int32 (tokens,).
        starts: where each sequence begins in `ids`, int64 (sequences,).
        lengths: tokens of each sequence, int64 (sequences,).
        counted: whether a token counts, bool (tokens,), or None if all do.
        type_ids: token types, int8 (tokens,), or None.
    """

    ids: NDArray[np.int32]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    counted: NDArray[np.bool_] | None
    type_ids: NDArray[np.int8] | None

    def select(self, positions: NDArray[np.int64]) -> TokenRuns:
        """Return these sequences only; the tokens are shared, not copied."""
        return replace(self, starts=self.starts[positions], lengths=self.lengths[positions])

    def counted_lengths(self) -> NDArray[np.int64]:
        """Return how many tokens of each sequence count, int64 (sequences,)."""
        if self.counted is None:
            return self.lengths
        before = np.zeros(len(self.counted) + 1, dtype=np.int64)
        np.cumsum(self.counted, out=before[1:])
        counts: NDArray[np.int64] = before[self.starts + self.lengths] - before[self.starts]
        return counts


@dataclass(frozen=True, eq=False)
class _Padded:
    """One stream of a batch."""

    ids: Tensor
    mask: Tensor | None
    type_ids: Tensor | None
    index: Tensor
    example: Tensor


@dataclass(frozen=True, eq=False)
class TokenizedProbe:
    """Token ids of a probe, and the batches in which they are read.

    Attributes:
        text: the tokens of the text (or text pair) of each example.
        target: the decoder inputs of each example, already shifted right; None without an encoder-decoder.
        rows: the examples' row numbers in the probe data, counted from 0, int64 (examples,).
        clusters: for each example the first one of the probe of which a model reads the same, by its row number, int64
            (examples,). Examples of one cluster say the same, and count as one in standard errors.
        lost_tokens: for each example the tokens that truncation cut off, text and target together, int64 (examples,).
        text_stream: the stream that reads the text.
        token_budget: the most padded tokens of a batch, both streams together; a longer example is a batch alone.
        pad_to: pad every sequence to exactly this length and count every position, in file order; None: do not.
        pad_id: the id at padded positions.
        pad_type_id: the token type at padded positions.
        max_length: the length to which text was truncated, or None.
        target_max_length: the same for targets.
        skipped_examples: how many examples were left out because no token of theirs counts or they have no target.
        batching: which examples may share a batch; not read with `pad_to`.
    """

    text: TokenRuns
    target: TokenRuns | None
    rows: NDArray[np.int64]
    clusters: NDArray[np.int64]
    lost_tokens: NDArray[np.int64]
    text_stream: Stream
    token_budget: int
    pad_to: int | None
    pad_id: int
    pad_type_id: int
    max_length: int | None
    target_max_length: int | None
    skipped_examples: int
    batching: Batching = "padded"

    @property
    def n_examples(self) -> int:
        """The number of examples."""
        return len(self.rows)

    @property
    def n_batches(self) -> int:
        """The number of batches."""
        return len(self.plan)

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The streams that have tokens."""
        return (self.text_stream,) if self.target is None else (self.text_stream, "decoder")

    @property
    def truncated_examples(self) -> int:
        """The number of examples that were cut."""
        return int(np.count_nonzero(self.lost_tokens))

    @property
    def truncated_tokens(self) -> int:
        """The number of tokens that were cut off."""
        return int(self.lost_tokens.sum())

    def n_tokens(self, stream: Stream) -> int:
        """Return how many tokens of a stream count; with `pad_to` that is every position.

        Raises:
            KeyError: the probe has no such stream.
        """
        runs = self._runs(stream)
        return self.n_examples * self.pad_to if self.pad_to is not None else int(runs.counted_lengths().sum())

    @cached_property
    def padding_share(self) -> float:
        """Padding as a share of all positions of all batches and streams, in [0, 1)."""
        real = sum(int(self._runs(stream).lengths.sum()) for stream in self.streams)
        positions = int(self.padded_tokens.sum())
        return 1 - real / positions if positions else 0.0

    @cached_property
    def padded_tokens(self) -> NDArray[np.int64]:
        """Positions of each batch, padding included, all streams together, int64 (batches,)."""
        lengths = [self._runs(stream).lengths for stream in self.streams]
        sizes = [sum(len(batch) * (self.pad_to or int(each[batch].max())) for each in lengths) for batch in self.plan]
        return np.array(sizes, dtype=np.int64)

    def batches(self, always_mask: bool = False, numbers: Sequence[int] | None = None) -> Iterator[ProbeBatch]:
        """Yield the batches, the same at every call.

        Without `pad_to` examples of like length share a batch (or of one length, or none: `batching`), and the batch
        with the most padded tokens comes first, so that memory peaks at once.

        Args:
            always_mask: give an attention mask even where nothing is padded.
            numbers: which batches, by their places in `plan`; None: all.
        """
        for positions in self.plan if numbers is None else (self.plan[number] for number in numbers):
            text = self._padded(self.text, positions, always_mask)
            parts: dict[Stream, _Padded] = {self.text_stream: text}
            target = None
            if self.target is not None:
                target = parts["decoder"] = self._padded(self.target, positions, always_mask)
            yield ProbeBatch(
                input_ids=text.ids,
                attention_mask=text.mask,
                token_type_ids=text.type_ids,
                decoder_input_ids=None if target is None else target.ids,
                decoder_attention_mask=None if target is None else target.mask,
                examples=torch.from_numpy(self.rows[positions]),
                clusters=torch.from_numpy(self.clusters[positions]),
                token_indices={stream: part.index for stream, part in parts.items()},
                token_examples={stream: part.example for stream, part in parts.items()},
            )

    def subset(self, positions: Sequence[int] | NDArray[np.int64]) -> TokenizedProbe:
        """Return a probe of some of the examples; tokens are shared, not copied.

        Args:
            positions: which examples, each from 0 to `n_examples - 1` and at most once.

        Raises:
            ValueError: a position is out of range or given twice.
        """
        chosen = np.asarray(positions, dtype=np.int64).reshape(-1)
        if len(np.unique(chosen)) < len(chosen) or not np.isin(chosen, np.arange(self.n_examples)).all():
            raise ValueError(f"positions must be distinct and from 0 to {self.n_examples - 1}")
        return replace(
            self,
            text=self.text.select(chosen),
            target=None if self.target is None else self.target.select(chosen),
            rows=self.rows[chosen],
            clusters=self.clusters[chosen],
            lost_tokens=self.lost_tokens[chosen],
        )

    def halves(self, seed: int) -> tuple[TokenizedProbe, TokenizedProbe]:
        """Split the examples at random into two disjoint halves, each in file order.

        Examples that read the same stay together. Of distinct ones the first half never has more.

        Raises:
            InputError: there are fewer than two examples, or all read the same.
        """
        first, cluster = self._by_cluster
        if len(first) < 2:
            alike = " of one text" if self.n_examples > 1 else ""
            number = f"{self.n_examples} example{'' if self.n_examples == 1 else 's'}{alike}"
            raise InputError(f"a probe of {number} cannot be split in halves", "give 2 texts or more")
        # Clusters in the order of their first examples: those are the examples themselves where all are distinct.
        order = np.argsort(first)[np.random.default_rng(seed).permutation(len(first))]
        in_first = np.isin(cluster, order[: len(order) // 2])
        return self.subset(np.flatnonzero(in_first)), self.subset(np.flatnonzero(~in_first))

    @cached_property
    def _by_cluster(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The position of each cluster's first example here, and which cluster each example is of."""
        _, first, cluster = np.unique(self.clusters, return_index=True, return_inverse=True)
        return first, cluster

    @cached_property
    def repeats(self) -> NDArray[np.int64]:
        """The positions of the examples of which an earlier one here reads the same, int64 ascending."""
        return np.setdiff1d(np.arange(self.n_examples), self._by_cluster[0])

    @cached_property
    def split_clusters(self) -> NDArray[np.int64]:
        """The clusters of which two batches hold examples, int64 ascending."""
        batch = np.empty(self.n_examples, dtype=np.int64)
        for number, positions in enumerate(self.plan):
            batch[positions] = number
        held = np.unique(np.stack([self.clusters, batch]), axis=1)[0]
        clusters, batches = np.unique(held, return_counts=True)
        return clusters[batches > 1]

    @cached_property
    def plan(self) -> tuple[NDArray[np.int64], ...]:
        """For each batch the positions of its examples, in the order of `batches`.

        Without `pad_to` examples of one cluster follow each other, so that few clusters are in two batches.
        """
        if self.pad_to is None:
            first, cluster = self._by_cluster
            order = np.argsort(first[cluster], kind="stable")
            lengths = self.text.lengths[order]
            target_lengths = None if self.target is None else self.target.lengths[order]
            if self.batching == "padded":
                plan = plan_batches(lengths, target_lengths, self.token_budget)
            else:
                most = 1 if self.batching == "alone" else None
                plan = equal_length_batches(lengths, target_lengths, self.token_budget, most)
            return tuple(order[batch] for batch in plan)
        size = max(1, self.token_budget // (self.pad_to * len(self.streams)))
        positions = np.arange(self.n_examples)
        return tuple(positions[start : start + size] for start in range(0, self.n_examples, size))

    def _runs(self, stream: Stream) -> TokenRuns:
        if stream == self.text_stream:
            return self.text
        if self.target is None or stream != "decoder":
            raise KeyError(stream)
        return self.target

    def _padded(self, runs: TokenRuns, positions: NDArray[np.int64], always_mask: bool) -> _Padded:
        lengths = runs.lengths[positions]
        size = len(positions)
        length = self.pad_to or int(lengths.max())
        real = np.arange(length) < lengths[:, None]
        places = (runs.starts[positions, None] + np.arange(length))[real]
        ids = np.full((size, length), self.pad_id, dtype=np.int64)
        ids[real] = runs.ids[places]
        type_ids = None
        if runs.type_ids is not None:
            type_ids = np.full((size, length), self.pad_type_id, dtype=np.int64)
            type_ids[real] = runs.type_ids[places]
        if self.pad_to is not None:
            index = np.arange(size * length)
        else:
            index = np.flatnonzero(real)
            if runs.counted is not None:
                index = index[runs.counted[places]]
        mask = torch.from_numpy(real.astype(np.int64)) if always_mask or not real.all() else None
        return _Padded(
            torch.from_numpy(ids),
            mask,
            None if type_ids is None else torch.from_numpy(type_ids),
            torch.from_numpy(index),
            torch.from_numpy(index // length),
        )
