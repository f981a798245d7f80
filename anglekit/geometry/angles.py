"""Cosines and angles at the student's vertex: pure functions on tensors.

Seen from a student state S, two teacher states make the angle whose cosine is

    cos(i, k) = <T_i - S, T_k - S> / (|T_i - S| |T_k - S|)

(Yu, Wen, Mou 2025, arXiv 2502.04499). Everything that is asked of a token's angles, for every vertex and every pair of
teacher layers at once, follows from the inner products of its teacher and student states. They are taken in float64:
differences of float32 states then keep all their digits, where a float32 product would lose them to cancellation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

#: A difference shorter than this share of its two states is rounding of float32 states, not a direction.
DEGENERATE_TOLERANCE = 1e-6

# The mean of 1 / m² for a mantissa m in [1, 2) whose logarithm is uniform, as that of numbers of many sizes is.
_INVERSE_SQUARE = 3 / (8 * math.log(2))


def state_rounding(dtype: torch.dtype) -> float:
    """Return how far rounding to a type moves a state, as a share of its length.

    A value x = m 2^e, m in [1, 2), is rounded to a multiple of eps 2^e: the error is uniform, of variance
    (eps 2^e)² / 12 = x² eps² / (12 m²). The mean over m gives eps sqrt(3 / (96 ln 2)) = 0.21 eps: 1.7e-3 for bfloat16,
    2.1e-4 for float16.
    """
    return float(torch.finfo(dtype).eps) * math.sqrt(_INVERSE_SQUARE / 12)


def cosine_resolution(dtype: torch.dtype, width: int) -> float:
    """Return how far rounding to a type moves the cosine of two states of that width.

    With r = `state_rounding`, each state has an error of length r in a random direction. At a right angle, where the
    cosine moves most, its standard deviation is r sqrt(2 / width); near 0 and 180 degrees the cosine's size falls by
    the factor 1 + r², whatever the width and the number of tokens. The sum of both is returned: 9e-5 for bfloat16 and
    1e-5 for float16 at a width of 768. Seen from a vertex, directions are shorter than states, and their angles coarser
    in the same proportion.
    """
    rounding = state_rounding(dtype)
    return rounding * math.sqrt(2 / width) + rounding**2


def layer_pairs(n_layers: int) -> tuple[Tensor, Tensor]:
    """Return the positions (i, k), i < k, of all pairs of `n_layers` layers: two int64 tensors, by i, then by k."""
    i, k = torch.triu_indices(n_layers, n_layers, offset=1)
    return i, k


def pair_labels(
    vertices: Sequence[int], teacher_layers: Sequence[int]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the numbers of vertex, teacher_i and teacher_k of every angle, each of shape (vertices, pairs)."""
    i, k = layer_pairs(len(teacher_layers))
    layers = np.asarray(teacher_layers, dtype=np.int64)
    vertex = np.asarray(vertices, dtype=np.int64).reshape(-1, 1)
    shape = (len(vertices), len(i))
    return np.broadcast_to(vertex, shape), np.broadcast_to(layers[i], shape), np.broadcast_to(layers[k], shape)


def vertex_cosine(teacher_i: Tensor, teacher_k: Tensor, student: Tensor) -> Tensor:
    """Return the cosine of the angle at the student's state between two teacher states, computed in float64.

    Args:
        teacher_i: states of shape (..., width).
        teacher_k: states of the same shape.
        student: states of the same shape, the vertices.

    Returns:
        Cosines of shape (...), NaN where a direction has zero length or a state is not finite.
    """
    u = teacher_i.double() - student.double()
    v = teacher_k.double() - student.double()
    return _cosine(u, v)


def tangential_cosine(teacher_i: Tensor, teacher_k: Tensor, student: Tensor) -> Tensor:
    """Return cos(P T_i, P T_k) with P = I - s s^T / |s|^2: 0 in expectation for independent vectors.

    Shapes, precision and degenerate cases as in `vertex_cosine`; NaN also where the student's state is zero.
    """
    s = student.double()
    unit = s / s.norm(dim=-1, keepdim=True)
    a, b = teacher_i.double(), teacher_k.double()
    a = a - (a * unit).sum(-1, keepdim=True) * unit
    b = b - (b * unit).sum(-1, keepdim=True) * unit
    return _cosine(a, b)


def _cosine(u: Tensor, v: Tensor) -> Tensor:
    u = u / u.norm(dim=-1, keepdim=True)
    v = v / v.norm(dim=-1, keepdim=True)
    return (u * v).sum(-1).clamp(-1.0, 1.0)


def angle_degrees(u: Tensor, v: Tensor) -> Tensor:
    """Return the angle between vectors in degrees, in [0, 180], accurate near 0 and 180.

    2 atan2(|u - v|, |u + v|) of the normalised vectors (Kahan); the arc cosine loses every digit of a small angle.
    Computed in float64, whatever the vectors come in: float32 would lose the lengths beyond 1e19 and below 1e-19.

    Args:
        u: vectors of shape (..., width).
        v: vectors of the same shape.

    Returns:
        Angles of shape (...), float64; NaN where a vector is zero or not finite.
    """
    u, v = u.double(), v.double()
    u = u / u.norm(dim=-1, keepdim=True)
    v = v / v.norm(dim=-1, keepdim=True)
    return torch.rad2deg(2 * torch.atan2((u - v).norm(dim=-1), (u + v).norm(dim=-1)))


@dataclass(frozen=True)
class VertexAngles:
    """Angles of a run of tokens; tokens are the last dimension, so that each pair's tokens lie side by side.

    Attributes:
        cosine: float64 (vertices, pairs, tokens), 0 where not valid.
        usable: bool (vertices, teacher layers, tokens): T_i - S_j is finite and has a length; with epsilon: is finite.
        tangential: float64 (vertices, pairs, tokens): cos(P T_i, P T_k), 0 where not valid.
        tangent_usable: bool (vertices, teacher layers, tokens): P T_i is finite and has a length.
        zero_direction: bool (vertices, teacher layers, tokens): T_i - S_j is finite and has no length.
        pairs: the teacher layers i and k of each pair, int64 (pairs,) each.
        all_usable: no direction of the vertices is unusable, at whatever layer: then every cosine is valid.
        all_tangent_usable: the same of the tangential cosine.
    """

    cosine: Tensor
    usable: Tensor
    tangential: Tensor
    tangent_usable: Tensor
    zero_direction: Tensor
    pairs: tuple[Tensor, Tensor]
    all_usable: bool
    all_tangent_usable: bool

    @property
    def valid(self) -> Tensor:
        """Whether a pair's cosine is defined: both directions are usable. Bool (vertices, pairs, tokens)."""
        return _both(self.usable, self.pairs)

    @property
    def tangential_valid(self) -> Tensor:
        """The same for the tangential cosine."""
        return _both(self.tangent_usable, self.pairs)


def _both(usable: Tensor, pairs: tuple[Tensor, Tensor]) -> Tensor:
    """Return for each pair whether both of its layers are usable."""
    i, k = pairs
    return usable.index_select(1, i) & usable.index_select(1, k)


def angles_from_products(
    teacher: Tensor, cross: Tensor, student_squared: Tensor, *, epsilon: float = 0.0
) -> VertexAngles:
    """Return the angles at every vertex for every pair of teacher layers, from inner products alone.

    Args:
        teacher: <T_i, T_k>, float64 of shape (teacher layers, teacher layers, tokens).
        cross: <T_i, S_j>, shape (teacher layers, vertices, tokens).
        student_squared: |S_j|^2, shape (vertices, tokens).
        epsilon: added to the product of lengths, as the paper's code does (1e-6); then only what is not finite is left
            out, and a direction without length counts as cosine 0.

    Returns:
        The angles; pairs are ordered as `layer_pairs`.
    """
    i, k = (index.to(teacher.device) for index in layer_pairs(len(teacher)))
    return Directions.of(_squared(teacher), cross, student_squared, epsilon).angles(_between(teacher, i, k), (i, k))


def angle_pieces(
    teacher: Tensor, cross: Tensor, student_squared: Tensor, *, epsilon: float = 0.0, piece_bytes: int
) -> Iterator[tuple[tuple[slice, slice], VertexAngles]]:
    """Yield the angles of `angles_from_products` in pieces that fit a processor's cache.

    With 80 layers and 20 vertices a single token has 66,360 angles: what is made of them in memory that the cache does
    not hold takes several times as long.

    Args:
        teacher: as in `angles_from_products`.
        cross: as there.
        student_squared: as there.
        epsilon: as there.
        piece_bytes: of one float64 value for every vertex, pair and token of a piece.

    Yields:
        Which vertices, which pairs in the order of `layer_pairs`, and their angles. A piece holds all pairs of some
        vertices, or some pairs of one vertex; the pairs go by first, their vertices after one another.
    """
    n_vertices, n_tokens = student_squared.shape
    i, k = (index.to(teacher.device) for index in layer_pairs(len(teacher)))
    directions = dict[int, Directions]()
    for vertices, pairs in piece_places(n_vertices, len(teacher), n_tokens, piece_bytes):
        if vertices.start == 0:
            some = i[pairs], k[pairs]
            between = _between(teacher, *some)
        if vertices.start not in directions:
            seen = cross[:, vertices], student_squared[vertices]
            directions[vertices.start] = Directions.of(_squared(teacher), *seen, epsilon)
        yield (vertices, pairs), directions[vertices.start].angles(between, some)


def piece_places(n_vertices: int, n_layers: int, n_tokens: int, piece_bytes: int) -> list[tuple[slice, slice]]:
    """Return which vertices and pairs the pieces of `angle_pieces` hold, in their order."""
    n_pairs = math.comb(n_layers, 2)
    rows = max(1, piece_bytes // (8 * max(1, n_tokens)))
    high = max(1, rows // max(1, n_pairs))
    # Equal parts: a short rest would cost as many calls as a full one.
    wide = max(1, n_pairs if high > 1 else -(-n_pairs // max(1, round(n_pairs / rows))))
    return [
        (slice(vertex, min(vertex + high, n_vertices)), slice(pair, min(pair + wide, n_pairs)))
        for pair in range(0, max(1, n_pairs), wide)
        for vertex in range(0, n_vertices, high)
    ]


def whole_of(
    pieces: Iterable[tuple[tuple[slice, slice], Sequence[Tensor]]], n_vertices: int, n_layers: int
) -> list[Tensor]:
    """Return what was made of the angles piece by piece as whole tensors of shape (vertices, pairs).

    Args:
        pieces: one or more; the vertices and pairs of a piece, and the tensors of that shape which were made of it.
        n_vertices: the number of vertices.
        n_layers: the number of teacher layers.
    """
    whole = list[Tensor]()
    for place, values in pieces:
        whole = whole or [value.new_empty(n_vertices, math.comb(n_layers, 2)) for value in values]
        for target, value in zip(whole, values, strict=True):
            target[place] = value
    return whole


def _squared(teacher: Tensor) -> Tensor:
    """Return |T_i|^2, (teacher layers, tokens)."""
    return torch.diagonal(teacher, dim1=0, dim2=1).T


def _between(teacher: Tensor, i: Tensor, k: Tensor) -> Tensor:
    """Return <T_i, T_k> of pairs, (pairs, tokens)."""
    return teacher.flatten(0, 1).index_select(0, i * len(teacher) + k)


@dataclass(frozen=True)
class Directions:
    """What every pair's cosine is made of, for each direction from a vertex: (vertices, teacher layers, tokens).

    Attributes:
        half: |S|^2 / 2 - <T_i, S>.
        scaling: 1 / |T_i - S|; with epsilon |T_i - S|.
        along: <T_i, s> / |s|.
        inverse_across: 1 / |P T_i|.
        epsilon: as in `angles_from_products`.
        directed: T_i - S is finite and has a length.
        The rest as in `VertexAngles`.
    """

    half: Tensor
    scaling: Tensor
    along: Tensor
    inverse_across: Tensor
    epsilon: float
    directed: Tensor
    usable: Tensor
    tangent_usable: Tensor
    zero_direction: Tensor
    all_directed: bool
    all_tangent_usable: bool

    def whole_vertices(self) -> NDArray[np.int64]:
        """Return the vertices at which no cosine is lost, at whatever layers and token."""
        usable = (self.directed & self.tangent_usable).flatten(1).all(1)
        return np.flatnonzero(usable.cpu().numpy())

    def loop_arrays(self) -> tuple[NDArray[np.float64], ...]:
        """Return half, scaling, along and inverse_across as the compiled loops take them."""
        tensors = (self.half, self.scaling, self.along, self.inverse_across)
        return tuple(np.asarray(tensor.contiguous().numpy()) for tensor in tensors)

    @classmethod
    def of(cls, teacher_squared: Tensor, cross: Tensor, student_squared: Tensor, epsilon: float = 0.0) -> Directions:
        """Return them for the vertices of `cross`.

        Args:
            teacher_squared: |T_i|^2, shape (teacher layers, tokens).
            cross: as in `angles_from_products`, and the rest too.
            student_squared: as there.
            epsilon: as there.
        """
        cross = cross.transpose(0, 1)  # (vertices, layers, tokens)
        scale = teacher_squared.unsqueeze(0) + student_squared.unsqueeze(1)
        finite = torch.isfinite(scale)
        squared = scale - 2 * cross
        zero_direction = finite & (squared <= scale * DEGENERATE_TOLERANCE**2)
        directed = finite & ~zero_direction
        # P T_i = T_i - <T_i, s> s / |s|^2, so <P T_i, P T_k> = <T_i, T_k> - <T_i, s> <T_k, s> / |s|^2.
        along = cross * torch.where(student_squared > 0, student_squared, torch.nan).rsqrt().unsqueeze(1)
        across = teacher_squared.unsqueeze(0) - along * along
        tangent_usable = across > teacher_squared.unsqueeze(0) * DEGENERATE_TOLERANCE**2  # NaN compares false
        return cls(
            student_squared.unsqueeze(1) / 2 - cross,
            squared.sqrt() if epsilon else squared.rsqrt(),
            along,
            across.rsqrt_(),
            epsilon,
            directed,
            finite if epsilon else directed,
            tangent_usable,
            zero_direction,
            bool(directed.all()),
            bool(tangent_usable.all()),
        )

    def angles(self, between: Tensor, pairs: tuple[Tensor, Tensor]) -> VertexAngles:
        """Return the angles of some pairs, whose <T_i, T_k> are given, shape (pairs, tokens)."""
        i, k = (self._of_pairs(layers) for layers in pairs)
        # <T_i - S, T_k - S> = <T_i, T_k> + (|S|^2 / 2 - <T_i, S>) + (|S|^2 / 2 - <T_k, S>)
        cosine = i(self.half).add_(k(self.half)).add_(between)
        if self.epsilon:
            cosine /= i(self.scaling).mul_(k(self.scaling)).add_(self.epsilon)
        else:
            cosine.mul_(i(self.scaling)).mul_(k(self.scaling))
        if not self.all_directed:  # nearly always all are, and masks cost as much
            cosine = torch.where(_both(self.directed, pairs), cosine, 0.0)
        tangential = i(self.along).mul_(k(self.along)).neg_().add_(between)
        tangential.mul_(i(self.inverse_across)).mul_(k(self.inverse_across))
        if not self.all_tangent_usable:
            tangential = torch.where(_both(self.tangent_usable, pairs), tangential, 0.0)
        return VertexAngles(
            cosine.clamp_(-1.0, 1.0),
            self.usable,
            tangential.clamp_(-1.0, 1.0),
            self.tangent_usable,
            self.zero_direction,
            pairs,
            self.all_directed or bool(self.usable.all()),
            self.all_tangent_usable,
        )

    def _of_pairs(self, layers: Tensor) -> Callable[[Tensor], Tensor]:
        """Return what gives the values of some layers, (vertices, pairs, tokens)."""
        n_vertices, n_layers, n_tokens = self.half.shape
        # Whole rows are taken: along the second dimension, one thread needs five times as long (torch 2.13).
        rows = (torch.arange(n_vertices, device=layers.device).unsqueeze(1) * n_layers + layers).flatten()

        def select(values: Tensor) -> Tensor:
            return values.flatten(0, 1).index_select(0, rows).view(n_vertices, -1, n_tokens)

        return select


def chance_factors(teacher_squared: Tensor, student_squared: Tensor) -> Tensor:
    """Return the factors whose product over a pair is the cosine that chance alone would give.

    For independent zero-mean T_i, T_k, S of squared lengths t_i^2, t_k^2, s^2 the expected cosine is about
    s^2 / sqrt((s^2 + t_i^2) (s^2 + t_k^2)): the product of r_i = s / sqrt(s^2 + t_i^2) and r_k. Equal lengths give 1/2,
    60 degrees, without any shared structure.

    Args:
        teacher_squared: |T_i|^2, shape (teacher layers, tokens).
        student_squared: |S_j|^2, shape (vertices, tokens).

    Returns:
        r of shape (vertices, teacher layers, tokens); NaN where a state is not finite or both are zero.
    """
    s = student_squared.unsqueeze(1)
    return torch.sqrt(s / (s + teacher_squared.unsqueeze(0)))
