"""Is the cosine with the student's own state another than with its states of other examples? A permutation test.

The null hypothesis is that it does not matter of which example the student's state is: given the teacher's states, all
ways to hand out the student's states among the examples are equally likely. Then so are the statistics of all vertices
and pairs of teacher layers together, and the largest of them over the whole family gives p-values and intervals that
hold for all of it at once (max-T; Westfall and Young 1993, Resampling-Based Multiple Testing).

Changing the sign of each example's difference from the next example's state would be cheaper, but neighbouring
differences share a state, so their signs are not free and that test is not exact.

The statistic is a mean difference over its own standard error: then it holds, for many examples, also for the weaker
hypothesis that the two means are equal (Chung and Romano 2013, Annals of Statistics 41).

States change places only within blocks of about sixteen examples. The ways to do so are a group too, so the test stays
exact; it needs 16 / n of all n^2 cosines, and loses a sixteenth of the information.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anglekit.geometry.angles import Directions, VertexAngles, whole_of
from anglekit.geometry.compiled.choice import in_loops, in_threads
from anglekit.geometry.nulls import MeanEstimate, NullSummary, SampleProducts, mean_estimate, sample_pieces
from anglekit.vocabulary import COSINE_RESOLUTION

#: Ways to hand out the states that are drawn beside the observed one.
N_PERMUTATIONS = 999

_BLOCK = 16
# A sample up to this size is one block: few examples can be handed out in few ways within small blocks.
_ONE_BLOCK = 32
# Bytes of the cosines that each thread works on at once: with what is made of them they stay in the processor's caches.
_THREAD_PIECE_BYTES = 2 << 20
# Statistics that are equal may differ by the rounding of their sums, which are float32.
_TIE = 1e-5
# A variance below this share of the mean square is the rounding of those sums: of two examples it is 0. And of exact
# ones.
_NO_VARIANCE, _NO_EXACT_VARIANCE = 1e-6, 1e-14


@dataclass(frozen=True)
class Exchanges:
    """Which example's student state meets which example's teacher states, and the ways to hand the states out.

    Attributes:
        sizes: examples of each block; blocks are runs of neighbours, int64 (blocks,).
        teacher: the example of the teacher's states in each meeting, int64 (meetings,). Every two examples of a block
            meet, in both roles, and each example meets itself; a block's meetings are in the order of a square matrix.
        student: the example of the student's state in each meeting, int64 (meetings,).
        ways: which meetings each way is made of: int64 (1 + permutations, examples). The first is the observed one.
    """

    sizes: Tensor
    teacher: Tensor
    student: Tensor
    ways: Tensor

    @property
    def n_examples(self) -> int:
        """The number of examples."""
        return int(self.sizes.sum())

    @property
    def own(self) -> Tensor:
        """Which meetings are of an example with itself, bool (meetings,)."""
        return self.teacher == self.student

    def to(self, device: torch.device | str) -> Exchanges:
        """Return them on a device."""
        return Exchanges(*(getattr(self, each.name).to(device) for each in fields(self)))


def draw_exchanges(n_examples: int, rng: np.random.Generator, permutations: int = N_PERMUTATIONS) -> Exchanges:
    """Draw ways to hand out the student's states, at random and with replacement.

    Args:
        n_examples: at least 2.
        rng: where the draw comes from.
        permutations: how many ways beside the observed one.
    """
    n_blocks = 1 if n_examples <= _ONE_BLOCK else round(n_examples / _BLOCK)
    sizes = np.array([len(part) for part in np.array_split(np.arange(n_examples), n_blocks)])
    teacher, student = list[np.ndarray](), list[np.ndarray]()
    ways = np.empty((1 + permutations, n_examples), dtype=np.int64)
    example = meeting = 0
    for size in sizes.tolist():
        place = np.arange(size)
        teacher.append(example + np.repeat(place, size))
        student.append(example + np.tile(place, size))
        order = np.concatenate([place[None], np.argsort(rng.random((permutations, size)), axis=1)])
        ways[:, example : example + size] = meeting + place * size + order
        example, meeting = example + size, meeting + size * size
    numbers = (sizes, np.concatenate(teacher), np.concatenate(student), ways)
    return Exchanges(*(torch.from_numpy(each) for each in numbers))


def meeting_products(
    teacher: Tensor, vertices: Tensor, products: SampleProducts, exchanges: Exchanges
) -> SampleProducts:
    """Return the inner products of every meeting.

    Args:
        teacher: states, shape (teacher layers, examples, width).
        vertices: the student's states in the teacher's width, shape (vertices, examples, width).
        products: those of each example with itself, as `sample_products` gives them.
        exchanges: the meetings.

    Returns:
        As `sample_products`: the teacher's of the examples, and those with a vertex of the meetings, which are many.
    """
    layers, n_vertices = len(teacher), len(vertices)
    cross, start = list[Tensor](), 0
    for size in exchanges.sizes.tolist():
        here = slice(start, start + size)
        taught, own = (side[:, here].double().flatten(0, 1) for side in (teacher, vertices))
        block = (taught @ own.T).view(layers, size, n_vertices, size)
        cross.append(block.permute(0, 2, 1, 3).reshape(layers, n_vertices, size * size))
        start += size
    vertex = products.vertex.index_select(1, exchanges.student)
    return SampleProducts(products.teacher, torch.cat(cross, dim=2), vertex)


@dataclass(frozen=True)
class ExchangeTest:
    """What the permutation test finds for one student and stream.

    Attributes:
        summary: the cosine with the student's states of the other examples of the block, and observed minus that.
        tangential: the mean tangential cosine with those states, (vertices, pairs).
        statistic: |t| of the observed difference, (vertices, pairs); NaN with fewer than two examples.
        largest: the largest |t| over all vertices and pairs, for each way but the observed one, (permutations,).
    """

    summary: NullSummary
    tangential: Tensor
    statistic: Tensor
    largest: Tensor


def exchange_test(products: SampleProducts, exchanges: Exchanges, epsilon: float = 0.0) -> ExchangeTest:
    """Test whether the student's own states give another mean cosine than its states of other examples.

    Args:
        products: as `meeting_products` gives them.
        exchanges: the meetings and the ways to hand out the states.
        epsilon: what the official reading adds to the product of lengths.
    """
    layers, n_vertices, _ = products.cross.shape
    largest = torch.zeros(len(exchanges.ways) - 1, dtype=torch.float64, device=products.cross.device)
    found_in_loops = dict[int, _TestedPairs]()
    if in_loops(n_vertices, layers, products.cross.device, epsilon):
        found_in_loops, largest = _test_in_loops(products, exchanges)

    def pieces() -> Iterator[tuple[tuple[slice, slice], Sequence[Tensor]]]:
        met = None
        # One vertex after the other: the directions to all meetings of all vertices are many.
        for first in range(n_vertices):
            if first in found_in_loops:
                tested = found_in_loops[first]
                yield (slice(first, first + 1), slice(None)), [getattr(tested, each.name) for each in fields(tested)]
                continue
            vertex = slice(first, first + 1)
            if met is None:
                met = products.teacher.index_select(2, exchanges.teacher)
            own = SampleProducts(met, products.cross[:, vertex], products.vertex[vertex])
            for (_, pairs), angles in sample_pieces(own, epsilon, _THREAD_PIECE_BYTES * torch.get_num_threads()):
                tested, most = _test_of(angles, exchanges)
                torch.maximum(largest, most, out=largest)
                yield (vertex, pairs), [getattr(tested, each.name) for each in fields(tested)]

    found = _TestedPairs(*whole_of(pieces(), n_vertices, layers))
    n_tokens = found.n.to(torch.int64)
    freedom = torch.where(found.n >= 2, found.n - 1, torch.nan)
    null = MeanEstimate((found.observed - found.difference).clamp(-1.0, 1.0), found.null_error, n_tokens, freedom)
    return ExchangeTest(
        NullSummary(null, found.observed, MeanEstimate(found.difference, found.error, n_tokens, freedom)),
        found.tangential,
        found.statistic,
        largest,
    )


def adjusted_p(statistic: Tensor, largest: Tensor) -> Tensor:
    """Return p-values adjusted for the whole family: (b + 1) / (m + 1), b of m ways having a larger largest |t|.

    Phipson and Smyth 2010 (Statistical Applications in Genetics and Molecular Biology 9): the observed way is one of
    the ways, so no p is 0.

    Args:
        statistic: |t|, any shape; NaN stays NaN.
        largest: the largest |t| of the family for each permutation, (permutations,).
    """
    ascending = largest.sort().values
    at_least = len(largest) - torch.searchsorted(ascending, statistic.nan_to_num() * (1 - _TIE))
    return torch.where(statistic.isnan(), torch.nan, (1 + at_least).double() / (1 + len(largest)))


def joint_quantile(largest: Tensor, level: float = 0.05) -> float:
    """Return the |t| that must be passed for an adjusted p of at most `level`; infinite with too few permutations.

    A tie does not pass it: half of the ways to hand out two states are the observed one.
    """
    allowed = int(level * (1 + len(largest)) + _TIE)
    return float(largest.sort(descending=True).values[allowed - 1]) * (1 + _TIE) if allowed else float("inf")


def joint_error(error: Tensor) -> Tensor:
    """Return the standard error by which a difference is divided: no finer than the cosine's own resolution."""
    return (error * error).add_(COSINE_RESOLUTION**2).sqrt_()


@dataclass(frozen=True)
class _TestedPairs:
    """What is found for some vertices and pairs; all are float64 (vertices, pairs).

    Attributes:
        observed: the mean cosine with the student's own state.
        difference: the observed excess, and its standard error.
        error: that standard error.
        n: the examples that have a cosine of their own.
        null_error: the standard error of the mean with other examples' states.
        tangential: as in `ExchangeTest`.
        statistic: as there.
    """

    observed: Tensor
    difference: Tensor
    error: Tensor
    n: Tensor
    null_error: Tensor
    tangential: Tensor
    statistic: Tensor


def _test_of(angles: VertexAngles, exchanges: Exchanges) -> tuple[_TestedPairs, Tensor]:
    """Return the test of a few pairs from the angles of their meetings, and the largest |t| of each drawn way."""
    valid = None if angles.all_usable else angles.valid
    shape, own = angles.cosine.shape[:2], exchanges.ways[0]
    excess, others = _excess(angles.cosine.flatten(0, 1), None if valid is None else valid.flatten(0, 1), exchanges)
    total, square = _sums(torch.cat([excess, excess * excess]), exchanges).chunk(2, dim=1)
    count: Tensor | int = exchanges.n_examples
    n = total.new_full((len(excess),), exchanges.n_examples)
    if valid is not None:
        count = _sums(valid.flatten(0, 1), exchanges)
        n = count[0]
    block = exchanges.n_examples / len(exchanges.sizes)
    mean, error = _mean_and_error(total, square, count, block, _NO_VARIANCE)
    # The observed way is compared as it would be if it were drawn again, which among few examples it often is.
    statistic = mean.abs_().div_(joint_error(error))
    # What is reported is exact.
    observed_way = excess.index_select(1, own)
    squares = torch.linalg.vecdot(observed_way, observed_way)
    difference, reach = _mean_and_error(observed_way.sum(1), squares, n, block, _NO_EXACT_VARIANCE)
    tested = torch.where(n >= 2, statistic[0], torch.nan)
    if valid is not None:
        # What has no angle at two examples of its own (a copied embedding) is no part of the family.
        statistic = torch.where((n >= 2) & statistic.isfinite(), statistic, 0.0)
    found = _TestedPairs(
        _mean_over(angles.cosine, valid, own),
        difference.view(shape),
        reach.view(shape),
        n.view(shape),
        mean_estimate(others.nan_to_num(), others.isfinite()).se.view(shape),
        _mean_over_others(angles, exchanges),
        tested.view(shape),
    )
    return found, statistic[1:].amax(1)


def _test_in_loops(products: SampleProducts, exchanges: Exchanges) -> tuple[dict[int, _TestedPairs], Tensor]:
    """Return the test of every vertex at which no cosine is lost, and the largest |t| of each drawn way over them."""
    from anglekit.geometry.compiled import loops  # numba takes half a second to load

    layers, n_vertices, _ = products.cross.shape
    n, n_pairs = exchanges.n_examples, math.comb(layers, 2)
    teacher = products.teacher.contiguous().numpy()
    sizes, ways = exchanges.sizes.numpy(), exchanges.ways.numpy().astype(np.uint32)
    limits = (_NO_VARIANCE, _NO_EXACT_VARIANCE, COSINE_RESOLUTION)
    tested, largest = dict[int, _TestedPairs](), list[NDArray[np.float32]]()

    def test(vertices: NDArray[np.int64]) -> None:
        most = np.zeros(len(ways), dtype=np.float32)
        largest.append(most)
        for vertex in vertices.tolist():
            one = slice(vertex, vertex + 1)
            squared = products.teacher_squared.index_select(1, exchanges.teacher)
            directions = Directions.of(squared, products.cross[:, one], products.vertex[one], 0.0)
            if not len(directions.whole_vertices()):
                continue
            found = np.empty((6, 1, n_pairs))
            loops.exchange(teacher, directions.loop_arrays(), sizes, ways, limits, tuple(found), most)
            observed, difference, error, null_error, tangential, statistic = torch.from_numpy(found)
            count = torch.full_like(observed, n)
            tested[vertex] = _TestedPairs(observed, difference, error, count, null_error, tangential, statistic)

    in_threads(test, np.arange(n_vertices))
    return tested, torch.from_numpy(np.sqrt(np.max(largest, axis=0)[1:].astype(np.float64)))


def _sums(values: Tensor, exchanges: Exchanges) -> Tensor:
    """Return for every way the sums over its meetings of values (rows, meetings), added up in float32.

    Returns:
        float64 (1 + permutations, rows).
    """
    table = values.T.to(torch.float32, memory_format=torch.contiguous_format)
    return torch.nn.functional.embedding_bag(exchanges.ways, table, mode="sum").double()


def _excess(cosine: Tensor, valid: Tensor | None, exchanges: Exchanges) -> tuple[Tensor, Tensor]:
    """Return how far each meeting's cosine exceeds what its two examples give with others, and what they give.

    The excess is the cosine less the means of its row and column of the block plus the block's mean, times B / (B - 1)
    for a block of B, 0 where there is no cosine. Over the meetings of a way it adds up to B times the mean over the way
    less the mean over all other meetings.

    Args:
        cosine: (rows, meetings), 0 where it is not valid.
        valid: bool of that shape; None: all are.
        exchanges: the meetings.

    Returns:
        The excess, (rows, meetings), and for each example the sum of its two means with others, in the teacher's and in
        the student's role, (rows, examples), NaN where it has none.
    """
    excess, others = torch.empty_like(cosine), list[Tensor]()
    start = 0
    # Neighbouring blocks of one size are worked on together.
    for size, alike in itertools.groupby(exchanges.sizes.tolist()):
        here = slice(start, start + len(list(alike)) * size * size)
        block = cosine[:, here].view(len(cosine), -1, size, size)
        row, column = block.sum(-1), block.sum(-2)
        own = torch.diagonal(block, dim1=-2, dim2=-1)
        if valid is None:
            whole = row.sum(-1, keepdim=True) / (size * size)
            row_mean, column_mean = row / size, column / size
            others.append(((row - own) + (column - own)).flatten(1) / (size - 1))
        else:
            there = valid[:, here].view(len(cosine), -1, size, size).double()
            row_count, column_count = there.sum(-1), there.sum(-2)
            whole = row.sum(-1, keepdim=True) / row_count.sum(-1, keepdim=True)
            row_mean, column_mean = row / row_count, column / column_count
            own_there = torch.diagonal(there, dim1=-2, dim2=-1)
            with_others = (row - own) / (row_count - own_there) + (column - own) / (column_count - own_there)
            others.append(with_others.flatten(1))
        place = excess[:, here].view(len(cosine), -1, size, size)
        torch.sub(block, row_mean.unsqueeze(-1), out=place)
        place -= (column_mean - whole).unsqueeze(-2)
        place *= size / (size - 1)
        start = here.stop
    return excess if valid is None else torch.where(valid, excess, 0.0), torch.cat(others, dim=1)


def _mean_and_error(
    total: Tensor, square: Tensor, count: Tensor | int, block: float, rounding: float
) -> tuple[Tensor, Tensor]:
    """Return the mean excess of each way and its standard error, 0 where the variance is `rounding` of the square.

    An example's excess varies a little less than its part in the mean, because its own cosine is in the means that are
    taken off: by B / (B + 1), at most.
    """
    known: Tensor | float
    spare: Tensor | float
    if isinstance(count, int):
        known, spare = count if count > 0 else math.nan, count - 1 if count > 1 else math.nan
    else:
        known = torch.where(count > 0, count, torch.nan)
        spare = torch.where(count > 1, count - 1, torch.nan)
    mean = total / known
    scatter = torch.addcmul(square, total, mean, value=-1)
    scatter *= scatter > rounding * square
    return mean, scatter.div_(spare * known).sqrt_().mul_((block + 1) / block)


def _mean_over(values: Tensor, valid: Tensor | None, places: Tensor) -> Tensor:
    """Return the mean over some meetings, those that are valid."""
    some = values.index_select(-1, places)
    if valid is None:
        return some.mean(-1)
    return mean_estimate(some, valid.index_select(-1, places)).mean


def _mean_over_others(angles: VertexAngles, exchanges: Exchanges) -> Tensor:
    """Return the mean tangential cosine over the meetings of two examples."""
    own, values = exchanges.ways[0], angles.tangential
    if angles.all_tangent_usable:
        n = values.shape[-1] - len(own)
        return (values.sum(-1) - values.index_select(-1, own).sum(-1)) / (n if n else math.nan)
    return mean_estimate(values, angles.tangential_valid & ~exchanges.own).mean
