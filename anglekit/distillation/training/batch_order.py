"""Orders of training examples: of similar length together, or shuffled within a buffer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import Sampler

_BATCHES_SORTED_TOGETHER = 50


class LengthGroupedOrder(Sampler[int]):
    """A shuffled order in which each slice of `batch_size` examples is of similar length.

    Examples are shuffled, cut into groups of up to fifty batches, sorted by length inside each group and cut into
    batches, whose order is shuffled again. The order depends on the seed and the epoch alone, never on the global
    random state, so that a resumed or a shared run sees the same batches.

    Args:
        lengths: of every example, in tokens.
        batch_size: examples that are seen together.
        seed: of the order.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths = lengths
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.lengths)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        shuffled = torch.randperm(len(self.lengths), generator=generator).tolist()
        # Few examples still need several groups, or the order would be sorted rather than shuffled.
        batches_together = max(1, min(_BATCHES_SORTED_TOGETHER, len(shuffled) // (4 * self.batch_size)))
        group = batches_together * self.batch_size
        batches: list[list[int]] = []
        for start in range(0, len(shuffled), group):
            ordered = sorted(shuffled[start : start + group], key=self.lengths.__getitem__)
            batches += [ordered[i : i + self.batch_size] for i in range(0, len(ordered), self.batch_size)]
        # An incomplete batch must come last: anywhere else it would shift the batches behind it.
        whole = [batch for batch in batches if len(batch) == self.batch_size]
        rest = [index for batch in batches if len(batch) < self.batch_size for index in batch]
        for place in torch.randperm(len(whole), generator=generator).tolist():
            yield from whole[place]
        yield from rest


class BufferedOrder(Sampler[int]):
    """An order shuffled within a buffer: each example is drawn of the next `buffer` ones that are not drawn yet.

    An example comes at most `buffer` - 1 places before its own place. The order depends on the seed and the epoch
    alone, so that a resumed run goes on with the same batches.

    Args:
        n_examples: how many there are.
        buffer: how many are drawn from; at least as many as there are: all orders are equally likely.
        seed: of the order.
    """

    def __init__(self, n_examples: int, buffer: int, seed: int) -> None:
        self.n_examples = n_examples
        self.buffer = buffer
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return self.n_examples

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        draws = np.random.default_rng((self.seed, self.epoch))
        held = list(range(min(self.buffer, self.n_examples)))
        for coming in range(len(held), self.n_examples):
            place = int(draws.integers(len(held)))
            yield held[place]
            held[place] = coming
        draws.shuffle(held)
        yield from held
