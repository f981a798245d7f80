"""What chance alone would give: the ladder of null cosines, pure functions on a sample of tokens.

Every rung answers the same question, what the cosine at the student's vertex would be without one more part of the
structure, and is evaluated by the kernel that evaluates the observed cosine. A sample holds one token of each of its
examples, in random order, so its tokens are independent and "another example's token" is the token at the next place;
for the permuted student it is every other token of a block (`student_exchange.py`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from anglekit.geometry.angles import VertexAngles, angle_pieces, angles_from_products, layer_pairs

#: Where the sweep puts the vertex: C + t (S - C), from the teachers' centroid C (0) to the student S (1) and beyond.
SWEEP = (0.0, 0.125, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)

# Bytes of float64 states that are worked on at once.
_BLOCK_BYTES = 6 << 20


@dataclass(frozen=True)
class SampleProducts:
    """Inner products of a sample's states: all that a token's angles depend on.

    Attributes:
        teacher: <T_i, T_k>, float64 (teacher layers, teacher layers, tokens).
        cross: <T_i, V_j>, (teacher layers, vertices, tokens).
        vertex: |V_j|^2, (vertices, tokens).
    """

    teacher: Tensor
    cross: Tensor
    vertex: Tensor

    @property
    def teacher_squared(self) -> Tensor:
        """|T_i|^2, shape (teacher layers, tokens)."""
        return torch.diagonal(self.teacher, dim1=0, dim2=1).T


def sample_products(
    teacher: Tensor, vertices: Tensor, offsets: tuple[Sequence[int], Sequence[int]] | None = None
) -> SampleProducts:
    """Return the inner products of a sample's states, in float64.

    Args:
        teacher: states, shape (teacher layers, tokens, width).
        vertices: the student's states in the teacher's width, shape (vertices, tokens, width).
        offsets: for each teacher layer and each vertex how many places further on its token is taken, round the end;
            None: everything from the same token.
    """
    layers, n_tokens, width = teacher.shape
    rows = layers + len(vertices)
    # Neighbouring layers of one side that are shifted alike are copied together.
    together = list[tuple[Tensor, slice, int]]()
    for first, side, shifts in ((0, teacher, offsets and offsets[0]), (layers, vertices, offsets and offsets[1])):
        begin = 0
        for shift, alike in itertools.groupby(shifts or [0] * len(side)):
            end = begin + len(list(alike))
            together.append((side[begin:end], slice(first + begin, first + end), shift))
            begin = end
    grams = torch.empty(n_tokens, rows, rows, dtype=torch.float64, device=teacher.device)
    block = max(16, _BLOCK_BYTES // (rows * width * 8))
    states = torch.empty(min(block, n_tokens), rows, width, dtype=torch.float64, device=teacher.device)
    for start in range(0, n_tokens, block):
        stop = min(start + block, n_tokens)
        here = states[: stop - start]
        for alike_layers, place, shift in together:
            target = here[:, place].transpose(0, 1)
            if shift % n_tokens == 0:
                target.copy_(alike_layers[:, start:stop])
            else:
                places = torch.arange(start + shift, stop + shift, device=teacher.device).remainder_(n_tokens)
                target.copy_(alike_layers.index_select(1, places))
        torch.bmm(here, here.transpose(1, 2), out=grams[start:stop])
    grams = grams.permute(1, 2, 0)
    return SampleProducts(
        grams[:layers, :layers].contiguous(),
        grams[:layers, layers:].contiguous(),
        torch.diagonal(grams[layers:, layers:], dim1=0, dim2=1).T.contiguous(),
    )


def sample_angles(products: SampleProducts, epsilon: float = 0.0) -> VertexAngles:
    """Return the angles of a sample, by the kernel of the analysis."""
    return angles_from_products(products.teacher, products.cross, products.vertex, epsilon=epsilon)


def sample_pieces(
    products: SampleProducts, epsilon: float, piece_bytes: int
) -> Iterator[tuple[tuple[slice, slice], VertexAngles]]:
    """Return the angles of a sample in pieces, as `angle_pieces` yields them."""
    return angle_pieces(products.teacher, products.cross, products.vertex, epsilon=epsilon, piece_bytes=piece_bytes)


def gaussian_products(
    teacher_squared: Tensor, vertex_squared: Tensor, width: int, rng: np.random.Generator
) -> SampleProducts:
    """Return the products of independent isotropic Gaussian directions that are given every token's lengths.

    The Gram matrix of R Gaussian vectors is Wishart; its Cholesky factor is drawn directly (Bartlett 1933): normal
    below the diagonal, chi of `width` - r degrees of freedom on it. So the draw costs R^2 numbers a token, not R width.

    Args:
        teacher_squared: |T_i|^2, shape (teacher layers, tokens).
        vertex_squared: |V_j|^2, shape (vertices, tokens).
        width: the width of the states.
        rng: where the draw comes from.
    """
    squared = torch.cat([teacher_squared, vertex_squared])
    rows, n_tokens = squared.shape
    rank = min(rows, width)
    factor = np.tril(rng.standard_normal((n_tokens, rows, rank)), -1)
    place = np.arange(rank)
    factor[:, place, place] = np.sqrt(rng.chisquare(width - place, (n_tokens, rank)))
    factor /= np.linalg.norm(factor, axis=2, keepdims=True)
    unit = torch.from_numpy(factor).to(squared.device)
    length = squared.double().sqrt()
    grams = torch.bmm(unit, unit.transpose(1, 2)).permute(1, 2, 0) * length.unsqueeze(0) * length.unsqueeze(1)
    layers = len(teacher_squared)
    return SampleProducts(grams[:layers, :layers], grams[:layers, layers:], vertex_squared.double())


def gaussian_like(states: Tensor, rng: np.random.Generator) -> Tensor:
    """Return as many Gaussian states as given, with the mean and the covariance of the given ones.

    mean + G X / sqrt(tokens - 1), X the centred states and G standard normal, has exactly the sample's covariance,
    however few tokens there are beside the width.

    Args:
        states: shape (tokens, width), at least two tokens.
        rng: where the draw comes from.
    """
    x = states.double()
    mean = x.mean(0)
    mixing = torch.from_numpy(rng.standard_normal((len(x), len(x)))).to(x.device)
    drawn: Tensor = mean + mixing @ (x - mean) / float(len(x) - 1) ** 0.5
    return drawn


def random_rotation(width: int, rng: np.random.Generator) -> Tensor:
    """Return a random orthogonal matrix, uniform over all of them (QR with the signs of R; Mezzadri 2007)."""
    q, r = np.linalg.qr(rng.standard_normal((width, width)))
    rotation: Tensor = torch.from_numpy(q * np.sign(np.diag(r)))
    return rotation


def rescaled(states: Tensor, squared: Tensor) -> Tensor:
    """Return states brought to given squared lengths, float64.

    Args:
        states: shape (vertices, tokens, width); a zero state gives NaN.
        squared: the wanted squared lengths, shape (vertices, tokens).
    """
    x = states.double()
    factor: Tensor = squared.sqrt() / torch.linalg.vector_norm(x, dim=-1)
    return x * factor.unsqueeze(-1)


def origin_products(products: SampleProducts) -> SampleProducts:
    """Return the products with one vertex, at the origin."""
    n_layers, _, n_tokens = products.teacher.shape
    zero = products.teacher.new_zeros(n_layers, 1, n_tokens)
    return SampleProducts(products.teacher, zero, zero[0])


def centroid_products(products: SampleProducts) -> SampleProducts:
    """Return the products with one vertex, at the mean of each token's teacher states."""
    cross = products.teacher.mean(1, keepdim=True)
    return SampleProducts(products.teacher, cross, cross.mean(0))


def sweep_products(products: SampleProducts, ts: Sequence[float]) -> SampleProducts:
    """Return the products with every vertex V moved to C + t (V - C), C the mean of each token's teacher states.

    Args:
        products: of the sample.
        ts: how far; the vertices of the first t come before those of the second.
    """
    centre = centroid_products(products)
    between = products.cross.mean(0)  # <C, V>
    return SampleProducts(
        products.teacher,
        torch.cat([(1 - t) * centre.cross + t * products.cross for t in ts], dim=1),
        torch.cat(
            [(1 - t) ** 2 * centre.vertex + 2 * t * (1 - t) * between + t**2 * products.vertex for t in ts], dim=0
        ),
    )


def permuted_offsets(layers: int, vertices: int) -> tuple[list[int], list[int]]:
    """Return by how many places the teacher layers and the vertices are shifted so that each is of another example."""
    return list(range(1, layers + 1)), [0] * vertices


def difference_lags(offsets: tuple[Sequence[int], Sequence[int]]) -> list[Tensor]:
    """Return for every lag, from 1, whether rows that far apart share an example: bool (vertices, pairs) each.

    A row is made of the examples at its place (the observed cosine) and at the places of its two teacher layers and its
    vertex; two rows depend on each other where two of these coincide.
    """
    i, k = layer_pairs(len(offsets[0]))
    teacher, vertex = torch.tensor(offsets[0]), torch.tensor(offsets[1])
    n_rows = (len(vertex), len(i))
    slots = torch.stack(
        [
            torch.zeros(n_rows, dtype=torch.int64),
            teacher[i].expand(n_rows),
            teacher[k].expand(n_rows),
            vertex.unsqueeze(1).expand(n_rows),
        ]
    )
    apart = (slots.unsqueeze(0) - slots.unsqueeze(1)).abs().flatten(0, 1)
    return [(apart == lag).any(0) for lag in range(1, int(apart.max()) + 1)]


@dataclass(frozen=True)
class MeanEstimate:
    """A mean over tokens of different examples; NaN with too few tokens.

    Attributes:
        mean: the mean.
        se: its standard error.
        n_tokens: the tokens in it, int64.
        freedom: the degrees of freedom of the error, for intervals by Student's t.
    """

    mean: Tensor
    se: Tensor
    n_tokens: Tensor
    freedom: Tensor


def mean_estimate(values: Tensor, valid: Tensor | None, lags: Sequence[Tensor] = ()) -> MeanEstimate:
    """Return the mean over the valid tokens, the last dimension.

    With m ties a row, a row's own included, the sum of m autocovariances about the estimated mean is too small by
    (n - m) / n and about as uncertain as a variance with n / m degrees of freedom.

    Args:
        values: shape (..., tokens).
        valid: which of them count, bool of that shape; None: all.
        lags: as `difference_lags` gives them.
    """
    if valid is None:
        n = torch.full(values.shape[:-1], values.shape[-1], device=values.device)
    else:
        n, values = valid.sum(-1), torch.where(valid, values, 0.0)
    count = torch.where(n > 0, n, torch.nan).double()
    mean = values.sum(-1) / count
    residual = values - mean.unsqueeze(-1)
    if valid is not None:
        residual = torch.where(valid, residual, 0.0)
    own = torch.linalg.vecdot(residual, residual)
    total, ties = own.clone(), torch.ones_like(own)
    for lag, tied in _folded(lags, values.shape[-1]).items():
        here = (1 if 2 * lag == values.shape[-1] else 2) * tied.to(values.device, values.dtype)
        total += here * (residual * residual.roll(-lag, dims=-1)).sum(-1)
        ties += here
    # Estimated covariances can outweigh the variance; an error of nothing would claim too much.
    total = torch.maximum(total, own / count)
    spare = torch.where(count > ties, count - ties, torch.nan)
    return MeanEstimate(mean, torch.sqrt(total / (spare * count)), n, spare / ties)


@dataclass(frozen=True)
class NullSummary:
    """A null beside what was observed on the same tokens, each of shape (vertices, pairs).

    Attributes:
        null: the null's mean cosine.
        observed: mean of the observed cosine over the tokens that have both, float64.
        difference: the mean of observed minus null over them.
    """

    null: MeanEstimate
    observed: Tensor
    difference: MeanEstimate


def summarize(
    observed: Tensor,
    observed_valid: Tensor | None,
    null: Tensor,
    null_valid: Tensor | None,
    lags: Sequence[Tensor] = (),
) -> NullSummary:
    """Return means and standard errors of a null and of observed minus null.

    The difference is paired by token, each token being an example of its own (the cluster). A shifted null ties a row
    to the rows `lags` away, and only to those, so their covariances are added.

    Args:
        observed: cosines, float64 (vertices, pairs, tokens).
        observed_valid: where they are defined, bool; None: everywhere.
        null: cosines of the null; one vertex serves all.
        null_valid: where they are defined; None: everywhere.
        lags: as `difference_lags` gives them.
    """
    null = null.expand_as(observed)
    null_valid = None if null_valid is None else null_valid.expand_as(observed)
    known = [valid for valid in (observed_valid, null_valid) if valid is not None]
    both = known[0] & known[-1] if known else None
    difference = mean_estimate(observed - null, both, lags)
    n = difference.n_tokens
    counted = observed if both is None else torch.where(both, observed, 0.0)
    observed_mean = counted.sum(-1) / torch.where(n > 0, n, torch.nan)
    return NullSummary(mean_estimate(null, null_valid, lags), observed_mean, difference)


def _folded(lags: Sequence[Tensor], n_places: int) -> dict[int, Tensor]:
    """Return which rows are tied by distance round a ring of places, where a lag of n - 1 is a distance of 1."""
    folded: dict[int, Tensor] = {}
    for lag, tied in enumerate(lags, start=1):
        distance = min(lag % n_places, -lag % n_places)
        if distance > 0:
            folded[distance] = folded[distance] | tied if distance in folded else tied
    return folded
