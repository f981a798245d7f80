"""Which examples go into one batch: few batches, almost no padding, under a budget of padded tokens. Pure numpy."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

# How much padding is accepted to get fewer batches: a share of the real tokens, for each stream.
_PADDING_TARGET = 0.015
# What one more batch is worth, in padded tokens, for each stream. The plan takes the dearest price (the fewest batches)
# whose padding is under the target; below 16 tokens a batch costs more in overhead than it saves in padding.
_BATCH_PRICES = (1024, 512, 256, 128, 96, 64, 48, 32, 24, 16)
# With two lengths, a group of like encoder lengths is cut again by decoder length: a group costs several batches.
_GROUP_PRICE_RATIO = 4


def plan_batches(
    lengths: NDArray[np.int64], second_lengths: NDArray[np.int64] | None, token_budget: int
) -> tuple[NDArray[np.int64], ...]:
    """Group examples of like length into batches.

    A batch of B examples counts B * (longest length + longest second length) padded tokens. The plan depends on the
    lengths alone; equal lengths stay in their order.

    Args:
        lengths: tokens of each example, positive, int64 (examples,).
        second_lengths: tokens of each example in the second stream, or None if there is one stream.
        token_budget: the most padded tokens of a batch; a longer example makes a batch of its own.

    Returns:
        For each batch the positions of its examples, the batch with the most padded tokens first, so that memory peaks
        at once. Every position appears exactly once.
    """
    if len(lengths) == 0:
        return ()
    real = int(lengths.sum()) + (0 if second_lengths is None else int(second_lengths.sum()))
    n_streams = 1 if second_lengths is None else 2
    best: list[NDArray[np.int64]] = []
    for price in _BATCH_PRICES:
        best = list(_batches(lengths, second_lengths, token_budget, n_streams * price))
        padded = sum(_padded_tokens(batch, lengths, second_lengths) for batch in best)
        if padded - real <= n_streams * _PADDING_TARGET * real:
            break
    best.sort(key=lambda batch: -_padded_tokens(batch, lengths, second_lengths))
    return tuple(best)


def equal_length_batches(
    lengths: NDArray[np.int64], second_lengths: NDArray[np.int64] | None, token_budget: int, most: int | None = None
) -> tuple[NDArray[np.int64], ...]:
    """Group examples of exactly the same length into batches, so that nothing is padded.

    Args:
        lengths: tokens of each example, positive, int64 (examples,).
        second_lengths: tokens of each example in the second stream, or None if there is one stream; they are equal too.
        token_budget: the most tokens of a batch; a longer example makes a batch of its own.
        most: the most examples of a batch; None: as many as the budget allows.

    Returns:
        As `plan_batches`.
    """
    kinds = lengths[:, None] if second_lengths is None else np.stack([lengths, second_lengths], axis=1)
    _, kind = np.unique(kinds, axis=0, return_inverse=True)
    order = np.argsort(kind.reshape(-1), kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(kind.reshape(-1)[order])) + 1) if len(lengths) else []
    found: list[NDArray[np.int64]] = []
    for group in groups:
        size = max(1, token_budget // int(kinds[group[0]].sum()))
        size = size if most is None else min(size, most)
        found += [group[start : start + size] for start in range(0, len(group), size)]
    found.sort(key=lambda batch: -_padded_tokens(batch, lengths, second_lengths))
    return tuple(found)


def share_batches(costs: NDArray[np.int64], parts: int) -> tuple[NDArray[np.int64], ...]:
    """Share batches among parts of nearly equal cost: each in turn goes to the part with the least so far.

    For batches in the order of `plan_batches`, dearest first, the dearest part is at most a third above the optimum
    (Graham 1969), and the first batch goes to the first part.

    Args:
        costs: the cost of each batch, such as its padded tokens, int64 (batches,).
        parts: how many parts, 1 or more.

    Returns:
        For each part the numbers of its batches, ascending; a part may have none. Every number appears exactly once.
    """
    heap = [(0, part) for part in range(parts)]
    shares: list[list[int]] = [[] for _ in range(parts)]
    for number, cost in enumerate(costs.tolist()):
        load, part = heap[0]
        shares[part].append(number)
        heapq.heapreplace(heap, (load + cost, part))
    return tuple(np.array(share, dtype=np.int64) for share in shares)


def _padded_tokens(batch: NDArray[np.int64], lengths: NDArray[np.int64], second: NDArray[np.int64] | None) -> int:
    longest = int(lengths[batch].max()) + (0 if second is None else int(second[batch].max()))
    return len(batch) * longest


def _batches(
    lengths: NDArray[np.int64], second: NDArray[np.int64] | None, budget: int, price: int
) -> Iterator[NDArray[np.int64]]:
    """Yield batches for one price; with two streams group by the first length, then cut by the second."""
    order = np.argsort(-lengths, kind="stable")
    if second is None:
        yield from _filled(order, lengths, budget, price)
        return
    # No budget here: the second cut makes the batches.
    for start, stop in _segments(lengths[order], 2**62, _GROUP_PRICE_RATIO * price):
        group = order[start:stop]
        total = second + lengths[group[0]]
        yield from _filled(group[np.argsort(-second[group], kind="stable")], total, budget, price)


def _filled(
    order: NDArray[np.int64], lengths: NDArray[np.int64], budget: int, price: int
) -> Iterator[NDArray[np.int64]]:
    """Cut examples in descending order of length into segments, and each segment into batches under the budget."""
    for start, stop in _segments(lengths[order], budget, price):
        while start < stop:
            end = min(stop, start + max(1, budget // int(lengths[order[start]])))
            yield order[start:end]
            start = end


def _segments(descending: NDArray[np.int64], budget: int, price: int) -> list[tuple[int, int]]:
    """Split descending lengths where it is cheapest: padding within segments plus `price` for each batch.

    Dynamic programming over the distinct lengths D: cost[k] = min over i < k of cost[i] + padding of the lengths i..k-1
    padded to the longest + price * batches. Quadratic in D, independent of the number of examples.
    """
    first = np.flatnonzero(np.r_[True, descending[1:] != descending[:-1]])
    edges = np.r_[first, len(descending)]
    longest = descending[first]
    tokens = np.r_[0, np.cumsum(descending)][edges]
    capacity = np.maximum(1, budget // longest)
    cost = np.zeros(len(edges))
    cut = np.zeros(len(edges), dtype=np.int64)
    for k in range(1, len(edges)):
        n_examples = edges[k] - edges[:k]
        padding = n_examples * longest[:k] - (tokens[k] - tokens[:k])
        total = cost[:k] + padding + price * -(-n_examples // capacity[:k])
        cut[k] = np.argmin(total)
        cost[k] = total[cut[k]]
    segments: list[tuple[int, int]] = []
    k = len(edges) - 1
    while k > 0:
        segments.append((int(edges[cut[k]]), int(edges[k])))
        k = int(cut[k])
    return segments[::-1]
