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

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from anglekit.geometry.angles import VertexAngles
from anglekit.geometry.nulls import MeanEstimate, NullSummary, SampleProducts, mean_estimate, sample_angles
from anglekit.vocabulary import COSINE_RESOLUTION

#: Ways to hand out the states that are drawn beside the observed one.
N_PERMUTATIONS = 999

_BLOCK = 16
# A sample up to this size is one block: few examples can be handed out in few ways within small blocks.
_ONE_BLOCK = 32
# Bytes of the cosines of the vertices that are worked on at once.
_GROUP_BYTES = 8 << 20
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
        As `sample_products`, with the meetings in the place of tokens.
    """
    layers, n_vertices = len(teacher), len(vertices)
    cross, start = list[Tensor](), 0
    for size in exchanges.sizes.tolist():
        here = slice(start, start + size)
        taught, own = (side[:, here].double().flatten(0, 1) for side in (teacher, vertices))
        block = (taught @ own.T).view(layers, size, n_vertices, size)
        cross.append(block.permute(0, 2, 1, 3).reshape(layers, n_vertices, size * size))
        start += size
    return SampleProducts(
        products.teacher.index_select(2, exchanges.teacher),
        torch.cat(cross, dim=2),
        products.vertex.index_select(1, exchanges.student),
    )


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
        products: of every meeting, as `meeting_products` gives them.
        exchanges: the meetings and the ways to hand out the states.
        epsilon: what the official reading adds to the product of lengths.
    """
    layers, n_vertices, n_meetings = products.cross.shape
    step = max(1, _GROUP_BYTES // (8 * max(1, layers * (layers - 1) // 2) * n_meetings))
    parts = list[ExchangeTest]()
    for first in range(0, n_vertices, step):
        chosen = slice(first, first + step)
        some = SampleProducts(products.teacher, products.cross[:, chosen], products.vertex[chosen])
        parts.append(_test_of(sample_angles(some, epsilon), exchanges))
    return ExchangeTest(
        NullSummary(
            _joined([part.summary.null for part in parts]),
            torch.cat([part.summary.observed for part in parts]),
            _joined([part.summary.difference for part in parts]),
        ),
        torch.cat([part.tangential for part in parts]),
        torch.cat([part.statistic for part in parts]),
        torch.stack([part.largest for part in parts]).amax(0),
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
    return torch.sqrt(error * error + COSINE_RESOLUTION**2)


def _joined(parts: list[MeanEstimate]) -> MeanEstimate:
    return MeanEstimate(*(torch.cat([getattr(part, each.name) for part in parts]) for each in fields(MeanEstimate)))


def _test_of(angles: VertexAngles, exchanges: Exchanges) -> ExchangeTest:
    """Return the test of a few vertices from the angles of their meetings."""
    valid, own = angles.valid, exchanges.own
    excess, others = _excess(angles.cosine, valid, exchanges)
    flat = excess.flatten(0, 1)
    total, square = _sums(flat, exchanges), _sums(flat * flat, exchanges)
    whole = bool(valid.all())
    count = torch.full_like(total, exchanges.n_examples) if whole else _sums(valid.flatten(0, 1).double(), exchanges)
    block = exchanges.n_examples / len(exchanges.sizes)
    mean, error = _mean_and_error(total, square, count, block, _NO_VARIANCE)
    # The observed way is compared as it would be if it were drawn again, which among few examples it often is.
    statistic = mean.abs() / joint_error(error)
    # What is reported is exact.
    observed_way = flat[:, exchanges.ways[0]]
    squares = (observed_way * observed_way).sum(1)
    exact = _mean_and_error(observed_way.sum(1), squares, count[0], block, _NO_EXACT_VARIANCE)
    shape = valid.shape[:2]
    difference, reach, n = (each.view(shape) for each in (*exact, count[0]))
    # What has no angle at two examples of its own (a copied embedding) is no part of the family.
    tested = n >= 2
    largest = torch.where(tested.flatten() & statistic.isfinite(), statistic, 0.0)[1:].amax(1)
    observed = _mean_over(angles.cosine, valid & own)
    freedom = torch.where(tested, n - 1, torch.nan)
    n_tokens = n.to(torch.int64)
    null = MeanEstimate(
        (observed - difference).clamp(-1.0, 1.0),
        mean_estimate(others.nan_to_num(), others.isfinite()).se,
        n_tokens,
        freedom,
    )
    return ExchangeTest(
        NullSummary(null, observed, MeanEstimate(difference, reach, n_tokens, freedom)),
        _mean_over(angles.tangential, angles.tangential_valid & ~own),
        torch.where(tested, statistic[0].view(shape), torch.nan),
        largest,
    )


def _sums(values: Tensor, exchanges: Exchanges) -> Tensor:
    """Return for every way the sums over its meetings of values (rows, meetings), added up in float32.

    Returns:
        float64 (1 + permutations, rows).
    """
    table = values.T.float().contiguous()
    return torch.nn.functional.embedding_bag(exchanges.ways, table, mode="sum").double()


def _excess(cosine: Tensor, valid: Tensor, exchanges: Exchanges) -> tuple[Tensor, Tensor]:
    """Return how far each meeting's cosine exceeds what its two examples give with others, and what they give.

    The excess is the cosine less the means of its row and column of the block plus the block's mean, times B / (B - 1)
    for a block of B, 0 where there is no cosine. Over the meetings of a way it adds up to B times the mean over the way
    less the mean over all other meetings.

    Returns:
        The excess, (vertices, pairs, meetings), and for each example the sum of its two means with others, in the
        teacher's and in the student's role, (vertices, pairs, examples), NaN where it has none.
    """
    excess, others = torch.empty_like(cosine), list[Tensor]()
    counts, start = valid.double(), 0
    for size in exchanges.sizes.tolist():
        here = slice(start, start + size * size)
        block, there = (each[..., here].view(*each.shape[:-1], size, size) for each in (cosine, counts))
        row, row_count = block.sum(-1), there.sum(-1)
        column, column_count = block.sum(-2), there.sum(-2)
        centred = block - (row / row_count).unsqueeze(-1) - (column / column_count).unsqueeze(-2)
        centred += (row.sum(-1) / row_count.sum(-1))[..., None, None]
        excess[..., here] = centred.flatten(-2) * (size / (size - 1))
        own, own_there = (torch.diagonal(each, dim1=-2, dim2=-1) for each in (block, there))
        others.append((row - own) / (row_count - own_there) + (column - own) / (column_count - own_there))
        start += size * size
    return torch.where(valid, excess, 0.0), torch.cat(others, dim=-1)


def _mean_and_error(
    total: Tensor, square: Tensor, count: Tensor, block: float, rounding: float
) -> tuple[Tensor, Tensor]:
    """Return the mean excess of each way and its standard error, 0 where the variance is `rounding` of the square.

    An example's excess varies a little less than its part in the mean, because its own cosine is in the means that are
    taken off: by B / (B + 1), at most.
    """
    known = torch.where(count > 0, count, torch.nan)
    mean = total / known
    spare = torch.where(count > 1, count - 1, torch.nan)
    scatter = square - total * mean
    variance = torch.where(scatter > rounding * square, scatter, 0.0) / spare
    return mean, torch.sqrt(variance / known) * ((block + 1) / block)


def _mean_over(values: Tensor, chosen: Tensor) -> Tensor:
    return mean_estimate(values, chosen).mean
