"""A sample of tokens spread over the whole probe, in bounded memory, for what cannot be had from sums alone.

Every example has a priority, a hash of the seed and its row number, and the sample is the examples of the lowest
priorities: a uniform draw that depends on nothing else, so that neither batches nor shards nor their order change it.
Of each example one content token, one special token and the mean of all its tokens are kept, again by hash.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anglekit.geometry.named_tensors import numbered, within

#: What is kept of an example: the places in `TokenSample.states`.
CONTENT, SPECIAL, MEAN = 0, 1, 2

#: Examples in a sample where memory allows, and the bytes that all samples of an analysis may take.
MOST_EXAMPLES = 256
FEWEST_EXAMPLES = 64
MOST_BYTES = 256 << 20

# Salts of the draws of one example.
_PRIORITY, _KIND, _CONTENT_TOKEN, _SPECIAL_TOKEN = range(4)


def sample_capacity(numbers_per_token: int) -> int:
    """Return how many examples a sample holds.

    Args:
        numbers_per_token: layers times width, summed over all sides and streams of the analysis.
    """
    fitting = MOST_BYTES // max(1, 3 * 4 * numbers_per_token)
    return max(FEWEST_EXAMPLES, min(MOST_EXAMPLES, fitting))


def example_draws(seed: int, examples: NDArray[np.int64], salt: int) -> NDArray[np.int64]:
    """Return a number for each example, uniform on [0, 2^62) and the same whenever it is asked for (splitmix64)."""
    with np.errstate(over="ignore"):
        start = _mixed(np.array([np.uint64(seed % 2**63) * np.uint64(4) + np.uint64(salt)], dtype=np.uint64))
        mixed = _mixed(start + examples.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    return (mixed >> np.uint64(2)).astype(np.int64)


def _mixed(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = z + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _below(draws: NDArray[np.int64], limits: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each draw a number from 0 to its limit less one."""
    return np.minimum((draws / 2.0**62 * limits).astype(np.int64), np.maximum(limits - 1, 0))


@dataclass(frozen=True)
class TokenSample:
    """A sample of examples; merges by `+`, associative, with a sample of no examples as the identity.

    Attributes:
        capacity: the most examples.
        priority: the examples' priorities, int64 (examples,), ascending: their order is random.
        example: row numbers in the probe data, int64 (examples,).
        n_content: content tokens of each example, int64 (examples,).
        n_special: special tokens of each example, int64 (examples,).
        special_drawn: whether the token that was drawn among all of the example's is the special one, bool (examples,).
        states: for each side (the teacher, then the students) float (3, layers, examples, width): a content token, a
            special token, and the mean over the example's tokens. What an example does not have is zero.
    """

    capacity: int
    priority: Tensor
    example: Tensor
    n_content: Tensor
    n_special: Tensor
    special_drawn: Tensor
    states: tuple[Tensor, ...]

    @classmethod
    def empty(cls, capacity: int) -> TokenSample:
        """Return the sample of no examples: the identity of `+`."""
        none = torch.zeros(0, dtype=torch.int64)
        return cls(capacity, none, none, none, none, none.bool(), ())

    def __len__(self) -> int:
        return len(self.example)

    def __add__(self, other: TokenSample) -> TokenSample:
        """Return the sample of both sets of examples, which must be disjoint.

        Raises:
            ValueError: an example is in both, or the samples are of different capacities.
        """
        if self.capacity != other.capacity:
            raise ValueError("samples merge only with samples of the same capacity")
        if not len(self) or not len(other):
            return self if len(self) else other
        priority = torch.cat([self.priority, other.priority])
        example = torch.cat([self.example, other.example])
        if len(np.unique(example.numpy())) < len(example):
            raise ValueError("an example is in both samples; its tokens must reach one sampler only")
        order = torch.argsort(priority, stable=True)[: self.capacity]
        return TokenSample(
            self.capacity,
            priority[order],
            example[order],
            torch.cat([self.n_content, other.n_content])[order],
            torch.cat([self.n_special, other.n_special])[order],
            torch.cat([self.special_drawn, other.special_drawn])[order],
            tuple(
                torch.cat([a, b], dim=2).index_select(2, order.to(a.device))
                for a, b in zip(self.states, other.states, strict=True)
            ),
        )

    def to(self, device: torch.device | str) -> TokenSample:
        """Return the sample with its states on a device; the numbers of its examples stay in main memory."""
        return replace(self, states=tuple(side.to(device) for side in self.states))

    def tensors(self) -> dict[str, Tensor]:
        """Return what is held, by name."""
        return {
            "priority": self.priority,
            "example": self.example,
            "n_content": self.n_content,
            "n_special": self.n_special,
            "special_drawn": self.special_drawn,
            **numbered("states", self.states),
        }

    def with_tensors(self, tensors: Mapping[str, Tensor]) -> TokenSample:
        """Return a sample of the same capacity, that of the names and order of `tensors`."""
        return TokenSample(
            self.capacity,
            priority=tensors["priority"],
            example=tensors["example"],
            n_content=tensors["n_content"],
            n_special=tensors["n_special"],
            special_drawn=tensors["special_drawn"],
            states=tuple(within("states", tensors).values()),
        )

    def tokens(self, kind: str) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return one token of each example that has one of a kind.

        Args:
            kind: `all` (drawn among all tokens of the example), `content`, `special`, or `mean` (over all of them).

        Returns:
            The places of the examples in the sample, int64 (tokens,), and for each side the states, shape (layers,
            tokens, width).

        Raises:
            KeyError: an unknown kind.
        """
        everyone = torch.arange(len(self))
        if kind == "all":
            row = torch.where(self.special_drawn, SPECIAL, CONTENT)
            return everyone, tuple(
                side[row.to(side.device), :, everyone.to(side.device)].transpose(0, 1) for side in self.states
            )
        place, there = {
            "content": (CONTENT, self.n_content > 0),
            "special": (SPECIAL, self.n_special > 0),
            "mean": (MEAN, torch.ones_like(self.special_drawn)),
        }[kind]
        chosen = everyone[there]
        if len(chosen) == len(self):
            return chosen, tuple(side[place] for side in self.states)
        return chosen, tuple(side[place].index_select(1, chosen.to(side.device)) for side in self.states)


class TokenSampler:
    """Keeps the examples of the lowest priorities while batches go by.

    Args:
        seed: of the draws.
        capacity: the most examples.
        rows: the row numbers of all examples that will come and may be kept, so that none is kept that another would
            replace; others pass by. None: they are not known, and each may be kept.
    """

    def __init__(self, seed: int, capacity: int, rows: NDArray[np.int64] | None = None) -> None:
        self.seed = seed
        self.capacity = capacity
        self._limit = 2**62
        self._rows = None if rows is None else np.sort(rows)
        if rows is not None and 0 < capacity < len(rows):
            priorities = example_draws(seed, rows, _PRIORITY)
            self._limit = int(np.partition(priorities, capacity - 1)[capacity - 1])
        self._worst: list[tuple[int, int]] = []  # (minus the priority, place): a heap, the highest priority on top
        self._numbers = np.zeros((5, capacity), dtype=np.int64)
        self._states: tuple[Tensor, ...] = ()

    def update(
        self,
        states: Sequence[Tensor],
        token_example: Tensor,
        examples: Tensor,
        special: NDArray[np.bool_] | None,
        means: Sequence[Tensor] | None = None,
    ) -> None:
        """Look at a batch of whole examples.

        Args:
            states: for each side shape (layers, tokens, width).
            token_example: for each token the position of its example in `examples`, int64 (tokens,), ascending.
            examples: the row numbers of the examples, int64 (examples,).
            special: whether a token is a special one, bool (tokens,); None: none is.
            means: for each side what `example_means` gives, where it is known already.
        """
        rows = examples.cpu().numpy()
        priorities = example_draws(self.seed, rows, _PRIORITY)
        if self._rows is not None:
            place = np.searchsorted(self._rows, rows)
            wanted = np.append(self._rows, -1)[place] == rows
            priorities[~wanted] = 2**62 + 1  # which no draw reaches
        placed = self._place(priorities)
        if not placed:
            return
        if not self._states:
            self._states = tuple(
                torch.zeros(
                    (3, len(side), self.capacity, side.shape[2]),
                    dtype=torch.promote_types(side.dtype, torch.float32),
                    device=side.device,
                )
                for side in states
            )
        position, places = np.array(sorted((where, place) for place, where in placed.items())).T
        lengths = np.bincount(token_example.cpu().numpy(), minlength=len(rows))
        start, length = (np.cumsum(lengths) - lengths)[position], lengths[position]
        if special is None:
            special = np.zeros(int(lengths.sum()), dtype=bool)
        drawn = _DrawnTokens.of(self.seed, rows[position], start, length, special)
        numbers = (priorities[position], rows[position], drawn.n_content, drawn.n_special, drawn.special_drawn)
        self._numbers[:, places] = numbers
        for number, (kept, side) in enumerate(zip(self._states, states, strict=True)):
            if means is None:
                mean = _means(side, start, length)
            else:
                mean = means[number].index_select(1, torch.from_numpy(position).to(side.device))
            _keep(kept, side, drawn, places, mean)

    def _place(self, priorities: NDArray[np.int64]) -> dict[int, int]:
        """Return for the places that change hands the position of the example that gets them."""
        placed: dict[int, int] = {}
        for position, priority in enumerate(priorities.tolist()):
            if priority > self._limit:
                continue
            if len(self._worst) < self.capacity:
                place = len(self._worst)
                heapq.heappush(self._worst, (-priority, place))
            elif priority < -self._worst[0][0]:
                place = self._worst[0][1]
                heapq.heapreplace(self._worst, (-priority, place))
            else:
                continue
            placed[place] = position
        return placed

    def state(self) -> TokenSample:
        """Return the sample so far, in the order of the priorities.

        Raises:
            ValueError: an example came twice.
        """
        n = len(self._worst)
        if len(np.unique(self._numbers[1, :n])) < n:
            raise ValueError("an example came twice; its tokens must reach one update")
        order = np.argsort(self._numbers[0, :n], kind="stable")
        priority, example, n_content, n_special, special_drawn = torch.from_numpy(self._numbers[:, order])
        states = tuple(side.index_select(2, torch.from_numpy(order).to(side.device)) for side in self._states)
        return TokenSample(self.capacity, priority, example, n_content, n_special, special_drawn.bool(), states)


@dataclass(frozen=True)
class _DrawnTokens:
    """Which tokens of a batch were drawn, for the chosen examples; a kind that an example lacks is -1."""

    content: NDArray[np.int64]
    special: NDArray[np.int64]
    n_content: NDArray[np.int64]
    n_special: NDArray[np.int64]
    special_drawn: NDArray[np.bool_]

    @classmethod
    def of(
        cls,
        seed: int,
        example: NDArray[np.int64],
        start: NDArray[np.int64],
        length: NDArray[np.int64],
        special: NDArray[np.bool_],
    ) -> _DrawnTokens:
        before = np.zeros(len(special) + 1, dtype=np.int64)
        np.cumsum(special, out=before[1:])
        n_special = before[start + length] - before[start]
        n_content = length - n_special
        content_token = _drawn(~special, start - before[start], n_content, example_draws(seed, example, _CONTENT_TOKEN))
        special_token = _drawn(special, before[start], n_special, example_draws(seed, example, _SPECIAL_TOKEN))
        drawn = _below(example_draws(seed, example, _KIND), length) < n_special
        return cls(content_token, special_token, n_content, n_special, drawn)


def _drawn(
    wanted: NDArray[np.bool_], first: NDArray[np.int64], count: NDArray[np.int64], draws: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return for each example one of its `count` wanted tokens, which follow the `first` ones, or -1 for none."""
    tokens = np.append(np.flatnonzero(wanted), -1)
    return np.where(count > 0, tokens[np.where(count > 0, first + _below(draws, count), -1)], -1)


def _keep(kept: Tensor, side: Tensor, drawn: _DrawnTokens, places: NDArray[np.int64], mean: Tensor) -> None:
    """Copy what is kept of the chosen examples of a batch to their places."""
    index = torch.from_numpy(places).to(kept.device)
    for kind, tokens in ((CONTENT, drawn.content), (SPECIAL, drawn.special)):
        there = tokens >= 0
        if not there.all():
            kept[kind].index_fill_(1, index[torch.from_numpy(~there).to(index.device)], 0.0)
            if not there.any():
                continue
        source = torch.from_numpy(tokens[there]).to(side.device)
        target = index if there.all() else index[torch.from_numpy(there).to(index.device)]
        kept[kind].index_copy_(1, target, side.index_select(1, source).to(kept.dtype))
    kept[MEAN].index_copy_(1, index, mean.to(kept.dtype))


def example_means(side: Tensor, token_example: Tensor, n_examples: int) -> Tensor:
    """Return the mean over each example's tokens, float32 or better (layers, examples, width); NaN without tokens.

    Args:
        side: states, shape (layers, tokens, width).
        token_example: for each token the position of its example, int64 (tokens,), ascending.
        n_examples: the number of examples.
    """
    lengths = np.bincount(token_example.cpu().numpy(), minlength=n_examples)
    return _means(side, np.cumsum(lengths) - lengths, lengths)


def _means(side: Tensor, starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> Tensor:
    """Return the means over runs of tokens, float32 or better (layers, runs, width); NaN for a run of none.

    Each run is added up by itself and in its own order, so that its mean does not depend on the batch around it.
    """
    layers, n_tokens, width = side.shape
    ends = np.cumsum(lengths)
    token = np.arange(int(lengths.sum())) + np.repeat(starts - (ends - lengths), lengths)
    layer = np.arange(layers)[:, None]
    states = side.to(torch.promote_types(side.dtype, torch.float32)).reshape(layers * n_tokens, width)
    sums = torch.nn.functional.embedding_bag(
        torch.from_numpy((layer * n_tokens + token).reshape(-1)).to(side.device),
        states,
        torch.from_numpy((layer * len(token) + ends - lengths).reshape(-1)).to(side.device),
        mode="sum",
    )
    return sums.view(layers, len(lengths), width) / torch.from_numpy(lengths).to(side.device).unsqueeze(1)
