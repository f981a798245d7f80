"""Streaming sums of angles and layer similarities: mergeable states in float64.

A state starts from `zeros`, grows by a `SumsAccumulator`, and merges by `+`: associative, with `zeros` as the
identity. Examples are whole: the standard error is clustered by example, so an example's tokens must reach one update
of one accumulator, not be split between two. Examples that read the same are one cluster, whose examples may come in
several updates: the sums of such clusters are kept one by one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anglekit.geometry.named_tensors import added, prefixed, within
from anglekit.vocabulary import N_BINS

#: What a histogram's counts may be, the narrowest first.
HISTOGRAM_TYPES = (torch.int16, torch.int32, torch.int64)


def _narrowest(device: torch.device | str) -> torch.dtype:
    return torch.int16 if torch.device(device).type in ("cpu", "meta") else torch.int32


def cosine_bins(cosine: Tensor) -> Tensor:
    """Return the bin of each cosine: int64 in [0, 999], bin b holding [-1 + b / 500, -1 + (b + 1) / 500)."""
    # Through int32, which a processor converts to several times as fast.
    return (cosine + 1.0).mul_(N_BINS / 2).to(torch.int32).clamp_(0, N_BINS - 1).to(torch.int64)


def _count(device: torch.device | str, *shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.int64, device=device)


def _sum(device: torch.device | str, *shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.float64, device=device)


@dataclass(eq=False)
class SideSums:
    """Sums over tokens of one side's layers; they grow in place.

    Attributes:
        n_finite: tokens whose state is finite, int64 (layers,).
        n_nonfinite: tokens whose state holds a NaN or an infinity, int64 (layers,).
        n_zero: tokens whose state is exactly zero, int64 (layers,).
        norm: sum of |x| over finite tokens, (layers,).
        state: sum of x over complete tokens (finite at every layer of every side), (layers, width).
        squared: sum of |x|^2 over complete tokens, (layers,).
    """

    n_finite: Tensor
    n_nonfinite: Tensor
    n_zero: Tensor
    norm: Tensor
    state: Tensor
    squared: Tensor

    @classmethod
    def zeros(cls, layers: int, width: int, device: torch.device | str) -> SideSums:
        """Return the sums over no tokens."""
        n_finite, n_nonfinite, n_zero = (_count(device, layers) for _ in range(3))
        return cls(
            n_finite, n_nonfinite, n_zero, _sum(device, layers), _sum(device, layers, width), _sum(device, layers)
        )

    def tensors(self) -> dict[str, Tensor]:
        """Return the sums by name."""
        return {
            "n_finite": self.n_finite,
            "n_nonfinite": self.n_nonfinite,
            "n_zero": self.n_zero,
            "norm": self.norm,
            "state": self.state,
            "squared": self.squared,
        }


@dataclass(eq=False)
class BlockSums:
    """Sums over tokens for every layer of a side A with every layer of a side B, which grow in place.

    All are of shape (layers A, layers B).

    Attributes:
        n_cosine: tokens with both states finite and not zero.
        cosine: sum of their cosines.
        n_distance: tokens with both states finite.
        distance: sum of |a - b| over them.
        product: sum of <a, b> over complete tokens.
    """

    n_cosine: Tensor
    cosine: Tensor
    n_distance: Tensor
    distance: Tensor
    product: Tensor

    @classmethod
    def zeros(cls, layers_a: int, layers_b: int, device: torch.device | str) -> BlockSums:
        """Return the sums over no tokens."""
        shape = (layers_a, layers_b)
        cosine, distance, product = (_sum(device, *shape) for _ in range(3))
        return cls(_count(device, *shape), cosine, _count(device, *shape), distance, product)

    def tensors(self) -> dict[str, Tensor]:
        """Return the sums by name."""
        return {
            "n_cosine": self.n_cosine,
            "cosine": self.cosine,
            "n_distance": self.n_distance,
            "distance": self.distance,
            "product": self.product,
        }


@dataclass(eq=False)
class RepeatSums:
    """What the standard error needs of examples that read the same, for a probe that holds some; grows in place.

    Attributes:
        examples: how many examples with a defined angle are of a split cluster, or not the first of their batch in
            another cluster, int64 (vertices, pairs).
        cosine: for each split cluster the sum of its cosines, (vertices, pairs, split clusters).
        count: how many there were, float64 of that shape.
    """

    examples: Tensor
    cosine: Tensor
    count: Tensor

    @classmethod
    def zeros(cls, vertices: int, pairs: int, split_clusters: int, device: torch.device | str) -> RepeatSums:
        """Return the sums over no tokens."""
        shape = (vertices, pairs, split_clusters)
        return cls(_count(device, vertices, pairs), _sum(device, *shape), _sum(device, *shape))

    def tensors(self) -> dict[str, Tensor]:
        """Return the sums by name."""
        return {"examples": self.examples, "cosine": self.cosine, "count": self.count}


@dataclass(eq=False)
class AngleSums:
    """Sums over tokens for every vertex and pair of teacher layers, which grow in place.

    They are of shape (vertices, pairs) unless said otherwise.

    Attributes:
        count: tokens with a defined angle.
        cosine: sum of the cosine over them.
        cosine_squared: sum of its square.
        acute: tokens with a positive cosine.
        angle: sum of the angle in degrees.
        tangential_count: tokens with a defined tangential cosine.
        tangential: sum of the tangential cosine over them.
        tangential_angle: sum of its angle in degrees.
        null_count: tokens whose three states are finite and not all zero.
        null: sum over them of the cosine that chance alone would give.
        histogram: counts of the cosine, (vertices, pairs, 1000), of the first of `HISTOGRAM_TYPES` in which a bin could
            hold every token: of 80 layers and 20 vertices they are 133 MB as int16, and twice as much as int32. On an
            accelerator at least int32, which it adds up faster.
        example_count: examples with at least one defined angle.
        example_square: sum over examples of y^2, y the sum of the example's cosines. Here and in the next two, examples
            of one cluster are one example, and those of split clusters are left to `repeats`.
        example_product: sum over examples of y n, n the number of the example's tokens with a defined angle.
        example_count_square: sum over examples of n^2.
        zero_direction: tokens whose T_i - S_j has no length, int64 (vertices, teacher layers).
        repeats: of examples that read the same; None for a probe in which all are distinct.
    """

    count: Tensor
    cosine: Tensor
    cosine_squared: Tensor
    acute: Tensor
    angle: Tensor
    tangential_count: Tensor
    tangential: Tensor
    tangential_angle: Tensor
    null_count: Tensor
    null: Tensor
    histogram: Tensor
    example_count: Tensor
    example_square: Tensor
    example_product: Tensor
    example_count_square: Tensor
    zero_direction: Tensor
    repeats: RepeatSums | None = None

    @classmethod
    def zeros(
        cls, vertices: int, teacher_layers: int, device: torch.device | str, split_clusters: int | None = None
    ) -> AngleSums:
        """Return the sums over no tokens, `split_clusters` as in `GeometrySums.zeros`."""
        shape = (vertices, teacher_layers * (teacher_layers - 1) // 2)
        return cls(
            count=_count(device, *shape),
            cosine=_sum(device, *shape),
            cosine_squared=_sum(device, *shape),
            acute=_count(device, *shape),
            angle=_sum(device, *shape),
            tangential_count=_count(device, *shape),
            tangential=_sum(device, *shape),
            tangential_angle=_sum(device, *shape),
            null_count=_count(device, *shape),
            null=_sum(device, *shape),
            histogram=torch.zeros(*shape, N_BINS, dtype=_narrowest(device), device=device),
            example_count=_count(device, *shape),
            example_square=_sum(device, *shape),
            example_product=_sum(device, *shape),
            example_count_square=_sum(device, *shape),
            zero_direction=_count(device, vertices, teacher_layers),
            repeats=None if split_clusters is None else RepeatSums.zeros(*shape, split_clusters, device),
        )

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> AngleSums:
        """Return the sums that have these tensors, by the names of `tensors`."""
        repeats = within("repeats", tensors)
        own = {name: tensor for name, tensor in tensors.items() if not name.startswith("repeats.")}
        return cls(**own, repeats=RepeatSums(**repeats) if repeats else None)

    def tensors(self) -> dict[str, Tensor]:
        """Return the sums by name."""
        return {
            "count": self.count,
            "cosine": self.cosine,
            "cosine_squared": self.cosine_squared,
            "acute": self.acute,
            "angle": self.angle,
            "tangential_count": self.tangential_count,
            "tangential": self.tangential,
            "tangential_angle": self.tangential_angle,
            "null_count": self.null_count,
            "null": self.null,
            "histogram": self.histogram,
            "example_count": self.example_count,
            "example_square": self.example_square,
            "example_product": self.example_product,
            "example_count_square": self.example_count_square,
            "zero_direction": self.zero_direction,
            **({} if self.repeats is None else prefixed("repeats", self.repeats.tensors())),
        }

    def make_room(self, n_tokens: int) -> None:
        """Widen the histogram if one of its bins could not hold `n_tokens` tokens."""
        if n_tokens > torch.iinfo(self.histogram.dtype).max:
            wide_enough = next(dtype for dtype in HISTOGRAM_TYPES if n_tokens <= torch.iinfo(dtype).max)
            self.histogram = self.histogram.to(wide_enough)

    def n_clusters(self) -> Tensor:
        """Return how many clusters of examples have a defined angle, int64 (vertices, pairs)."""
        if self.repeats is None:
            return self.example_count
        return self.example_count - self.repeats.examples + (self.repeats.count > 0).sum(-1)


@dataclass(frozen=True)
class ExampleMeans:
    """Each example's cosines and angles, summed over its tokens and pairs, vertex by vertex.

    Attributes:
        example: the examples' row numbers in the probe data, int64 (examples,), ascending.
        angle: sum over its tokens of the token's angle in degrees, float64 (vertices, examples); a token's angle is the
            mean over the pairs that are defined for it.
        cosine: sum of the defined cosines, float64 (vertices, examples).
        n_cosines: how many there were, int64 (vertices, examples).
        n_tokens: the example's tokens with at least one defined angle, int64 (vertices, examples).
    """

    example: Tensor
    angle: Tensor
    cosine: Tensor
    n_cosines: Tensor
    n_tokens: Tensor

    @classmethod
    def zeros(cls, vertices: int, examples: int = 0, device: torch.device | str = "cpu") -> ExampleMeans:
        """Return the means of no examples, or a place for those of some."""
        shape = (vertices, examples)
        angle, cosine = _sum(device, *shape), _sum(device, *shape)
        return cls(_count(device, examples), angle, cosine, _count(device, *shape), _count(device, *shape))

    def __add__(self, other: ExampleMeans) -> ExampleMeans:
        """Return the means of both sets of examples, which must be disjoint, in the order of their row numbers."""
        example = torch.cat([self.example, other.example])
        order = torch.argsort(example, stable=True)
        example = example[order]
        if bool((example[1:] == example[:-1]).any()):
            raise ValueError("an example is in both states; its tokens must reach one accumulator only")
        return ExampleMeans(
            example,
            torch.cat([self.angle, other.angle], dim=1)[:, order],
            torch.cat([self.cosine, other.cosine], dim=1)[:, order],
            torch.cat([self.n_cosines, other.n_cosines], dim=1)[:, order],
            torch.cat([self.n_tokens, other.n_tokens], dim=1)[:, order],
        )

    def tensors(self) -> dict[str, Tensor]:
        """Return the means by name."""
        return {
            "example": self.example,
            "angle": self.angle,
            "cosine": self.cosine,
            "n_cosines": self.n_cosines,
            "n_tokens": self.n_tokens,
        }


@dataclass(eq=False)
class GeometrySums:
    """Everything that is summed for one student and one stream; grows in place, `+` makes new sums.

    Attributes:
        n_tokens: tokens seen, int64 scalar.
        n_complete: tokens that are finite at every layer of every side, int64 scalar.
        teacher: the teacher's layers.
        vertex: the student's layers as the angles see them: projected to the teacher's width.
        student: the student's layers in their own width; the same as `vertex` without a projection.
        teacher_teacher: between the teacher's layers.
        teacher_student: between the teacher's layers and the vertices.
        student_student: between the student's layers, in their own width.
        angles: at every vertex for every pair of teacher layers.
        examples: the angles' means by example.
    """

    n_tokens: Tensor
    n_complete: Tensor
    teacher: SideSums
    vertex: SideSums
    student: SideSums
    teacher_teacher: BlockSums
    teacher_student: BlockSums
    student_student: BlockSums
    angles: AngleSums
    examples: ExampleMeans

    @classmethod
    def zeros(
        cls,
        teacher_layers: int,
        vertices: int,
        teacher_width: int,
        student_width: int | None = None,
        device: torch.device | str = "cpu",
        split_clusters: int | None = None,
    ) -> GeometrySums:
        """Return the sums over no tokens: the identity of `+`.

        Args:
            teacher_layers: number of teacher layers.
            vertices: number of student layers.
            teacher_width: width of the teacher's states.
            student_width: width of the student's states where a projection lies between; None: there is none.
            device: where the sums live.
            split_clusters: for a probe in which examples read the same, how many clusters of such examples come in more
                than one update; None: no two examples of the probe read the same.
        """
        vertex = SideSums.zeros(vertices, teacher_width, device)
        return cls(
            n_tokens=_count(device),
            n_complete=_count(device),
            teacher=SideSums.zeros(teacher_layers, teacher_width, device),
            vertex=vertex,
            student=vertex if student_width is None else SideSums.zeros(vertices, student_width, device),
            teacher_teacher=BlockSums.zeros(teacher_layers, teacher_layers, device),
            teacher_student=BlockSums.zeros(teacher_layers, vertices, device),
            student_student=BlockSums.zeros(vertices, vertices, device),
            angles=AngleSums.zeros(vertices, teacher_layers, device, split_clusters),
            examples=ExampleMeans.zeros(vertices),
        )

    def __add__(self, other: GeometrySums) -> GeometrySums:
        """Return the sums over both sets of tokens, whose examples must be disjoint.

        Raises:
            ValueError: an example is in both.
            TypeError: one is projected and the other is not.
        """
        examples = self.examples + other.examples
        for sums in (self, other):
            sums.angles.make_room(int(self.n_tokens) + int(other.n_tokens))
        return self.with_tensors(added(self._over_tokens(), other._over_tokens()) | _named(examples))

    def to(self, device: torch.device | str) -> GeometrySums:
        """Return the sums on a device; those by example stay in main memory."""
        moved = {name: tensor.to(device) for name, tensor in self._over_tokens().items()}
        sums = self.with_tensors(moved | _named(self.examples))
        if _narrowest(device) != HISTOGRAM_TYPES[0]:
            sums.angles.make_room(torch.iinfo(HISTOGRAM_TYPES[0]).max + 1)
        return sums

    def tensors(self) -> dict[str, Tensor]:
        """Return the sums by name; those of `vertex` only where they are not those of `student`."""
        return self._over_tokens() | _named(self.examples)

    def _over_tokens(self) -> dict[str, Tensor]:
        return {
            "n_tokens": self.n_tokens,
            "n_complete": self.n_complete,
            **prefixed("teacher", self.teacher.tensors()),
            **({} if self.vertex is self.student else prefixed("vertex", self.vertex.tensors())),
            **prefixed("student", self.student.tensors()),
            **prefixed("teacher_teacher", self.teacher_teacher.tensors()),
            **prefixed("teacher_student", self.teacher_student.tensors()),
            **prefixed("student_student", self.student_student.tensors()),
            **prefixed("angles", self.angles.tensors()),
        }

    def with_tensors(self, tensors: Mapping[str, Tensor]) -> GeometrySums:
        """Return the sums that have these tensors, by the names of `tensors`."""
        student, projected = SideSums(**within("student", tensors)), within("vertex", tensors)
        return GeometrySums(
            n_tokens=tensors["n_tokens"],
            n_complete=tensors["n_complete"],
            teacher=SideSums(**within("teacher", tensors)),
            vertex=SideSums(**projected) if projected else student,
            student=student,
            teacher_teacher=BlockSums(**within("teacher_teacher", tensors)),
            teacher_student=BlockSums(**within("teacher_student", tensors)),
            student_student=BlockSums(**within("student_student", tensors)),
            angles=AngleSums.of(within("angles", tensors)),
            examples=ExampleMeans(**within("examples", tensors)),
        )


def _named(examples: ExampleMeans) -> dict[str, Tensor]:
    return prefixed("examples", examples.tensors())


def cosine_standard_error(angles: AngleSums) -> NDArray[np.float64]:
    """Return the standard error of each mean cosine, clustered by example: float64 (vertices, pairs).

    Tokens of one example depend on each other, so examples are the units: for example sums y_e over n_e tokens and the
    mean m = sum y / sum n, the variance is E / (E - 1) sum (y_e - m n_e)^2 / (sum n)^2 (linearised ratio estimator).
    Examples that read the same are one unit. NaN with fewer than two.
    """
    square, product, count_square = angles.example_square, angles.example_product, angles.example_count_square
    if angles.repeats is not None:
        y, tokens = angles.repeats.cosine, angles.repeats.count
        square, product = square + (y * y).sum(-1), product + (y * tokens).sum(-1)
        count_square = count_square + (tokens * tokens).sum(-1)
    n, examples, cosine, squares, products, count_squares = (
        sums.cpu().double().numpy()
        for sums in (angles.count, angles.n_clusters(), angles.cosine, square, product, count_square)
    )
    examples = np.where(examples > 1, examples, np.nan)
    n = np.where(n > 0, n, np.nan)
    mean = cosine / n
    residual = squares - 2 * mean * products + mean**2 * count_squares
    # numpy's square root: that of torch may round otherwise from one build to the next.
    error: NDArray[np.float64] = np.sqrt(examples / (examples - 1) * np.clip(residual, 0, None)) / n
    return error


#: The places in `AngleExtremes.cosine`: the token with the smallest angle, and the one with the largest.
SMALLEST, LARGEST = 0, 1
_SIGN: Final = (1.0, -1.0)
# A token's number: its example's row, and its place in the example's sequence.
_PLACES: Final = 1 << 24
_NOWHERE: Final = 2**62


def token_numbers(rows: Tensor, places: Tensor) -> Tensor:
    """Return a number for each token, which tells its example and its place, int64 (tokens,).

    Args:
        rows: the row number of each token's example, int64 (tokens,), below 2^38.
        places: its place in the example's sequence, counted from 0, int64 (tokens,), below 2^24.
    """
    return rows * _PLACES + places


def token_place(number: int) -> tuple[int, int]:
    """Return a token's row and place from its number; (-1, -1) of the number that stands for no token."""
    return (-1, -1) if number == _NOWHERE else divmod(number, _PLACES)


@dataclass(eq=False)
class AngleExtremes:
    """The tokens with the smallest and the largest angle; grows in place, and merges by `+`.

    Of tokens with equal cosines it is the first, by example and place, so that neither batches nor parts nor their
    order change it. The merge is associative, and `zeros` is its identity.

    Attributes:
        cosine: the cosine at the smallest angle, and minus that at the largest, float64 (2, vertices, pairs); minus
            infinity where no token has an angle.
        token: their tokens by `token_numbers`, int64 of that shape; 2^62 where there is none.
    """

    cosine: Tensor
    token: Tensor

    @classmethod
    def zeros(cls, vertices: int, teacher_layers: int, device: torch.device | str = "cpu") -> AngleExtremes:
        """Return the extremes of no tokens: the identity of `+`."""
        shape = (2, vertices, teacher_layers * (teacher_layers - 1) // 2)
        return cls(
            torch.full(shape, -torch.inf, dtype=torch.float64, device=device),
            torch.full(shape, _NOWHERE, dtype=torch.int64, device=device),
        )

    def update(
        self, cosine: Tensor, valid: Tensor | None, token: Tensor, place: tuple[slice, slice] = (slice(None),) * 2
    ) -> None:
        """Take in some tokens.

        Args:
            cosine: at some vertices for some pairs, float64 (vertices, pairs, tokens).
            valid: which of them are defined, bool of that shape; None: all.
            token: the tokens' numbers, int64 (tokens,).
            place: which vertices and pairs; without it all.
        """
        for end, sign in enumerate(_SIGN):
            signed = sign * cosine if valid is None else torch.where(valid, sign * cosine, -torch.inf)
            most = signed.amax(-1)
            first = torch.where(signed == most.unsqueeze(-1), token, _NOWHERE).amin(-1)
            self._take((end, *place), most, torch.where(torch.isfinite(most), first, _NOWHERE))

    def _take(self, place: tuple[int, slice, slice], cosine: Tensor, token: Tensor) -> None:
        kept, kept_token = self.cosine[place], self.token[place]
        better = (cosine > kept) | ((cosine == kept) & (token < kept_token))
        self.cosine[place] = torch.where(better, cosine, kept)
        self.token[place] = torch.where(better, token, kept_token)

    def __add__(self, other: AngleExtremes) -> AngleExtremes:
        """Return the extremes of both sets of tokens."""
        merged = AngleExtremes(self.cosine.clone(), self.token.clone())
        for end in (SMALLEST, LARGEST):
            merged._take((end, slice(None), slice(None)), other.cosine[end], other.token[end])
        return merged

    def tensors(self) -> dict[str, Tensor]:
        """Return what is held, by name."""
        return {"cosine": self.cosine, "token": self.token}

    def with_tensors(self, tensors: Mapping[str, Tensor]) -> AngleExtremes:
        """Return the extremes of these tensors."""
        return AngleExtremes(**tensors)

    def to(self, device: torch.device | str) -> AngleExtremes:
        """Return the extremes on a device."""
        return AngleExtremes(self.cosine.to(device), self.token.to(device))

    def degrees(self) -> Tensor:
        """Return the angles in degrees, float64 (2, vertices, pairs); NaN where there is none."""
        sign = self.cosine.new_tensor(_SIGN)[:, None, None]
        known = torch.isfinite(self.cosine)
        cosine = torch.where(known, sign * self.cosine, torch.nan).clamp(-1.0, 1.0)
        return torch.rad2deg(torch.acos(cosine))
