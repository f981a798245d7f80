"""The shell that feeds the sums: batches of token states in, `GeometrySums` out, in pieces of bounded memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from anglekit.geometry.accumulators import AngleSums, BlockSums, ExampleMeans, GeometrySums, SideSums, cosine_bins
from anglekit.geometry.angles import VertexAngles, angles_from_products, chance_factors, layer_pairs
from anglekit.geometry.similarity import pair_cosines, pair_distances

__all__ = ["GeometryAccumulator", "accumulate_batch"]

# Bytes of the teacher's float64 states that are worked on at once. On a CPU smaller pieces pay more for starting each
# operation than the cache saves (measured from 1 to 64 MiB); on an accelerator a large piece keeps it busy.
_PIECE_BYTES = {"cpu": 32 << 20}
_ACCELERATOR_PIECE_BYTES = 256 << 20


@dataclass(frozen=True)
class _Side:
    """One side's states of one piece.

    Attributes:
        states: float64 (tokens, layers, width).
        products: <x_a, x_b>, float64 (layers, layers, tokens).
    """

    states: Tensor
    products: Tensor

    @classmethod
    def of(cls, layers: Sequence[Tensor], piece: slice, workspace: Tensor) -> _Side:
        states = workspace[: piece.stop - piece.start]
        for position, layer in enumerate(layers):
            states[:, position] = layer[piece]
        return cls(states, _token_last(torch.bmm(states, states.transpose(1, 2))))

    @property
    def squared(self) -> Tensor:
        """|x|^2, shape (layers, tokens)."""
        return torch.diagonal(self.products, dim1=0, dim2=1).T


def _token_last(products: Tensor) -> Tensor:
    return products.permute(1, 2, 0).contiguous()


class GeometryAccumulator:
    """Sums the geometry of one student and stream.

    Args:
        teacher_layers: number of teacher layers.
        vertices: number of student layers.
        teacher_width: width of the teacher's states.
        student_width: the student's own width; another than the teacher's needs `projections`.
        projections: for each vertex a matrix (teacher width, student width); None where the widths agree.
        epsilon: added to the product of lengths, as the paper's code does; 0 leaves undefined angles out.
        device: where the sums live and are computed.

    Attributes:
        sums: the state so far. Its tensors grow in place; add two states for a new one.
    """

    def __init__(
        self,
        teacher_layers: int,
        vertices: int,
        teacher_width: int,
        student_width: int | None = None,
        *,
        projections: Sequence[Tensor] | None = None,
        epsilon: float = 0.0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.sums = GeometrySums.zeros(teacher_layers, vertices, teacher_width, student_width, device)
        if projections is None:
            # The vertices are the student's own layers: one set of tensors, summed once.
            self.sums = replace(self.sums, vertex=self.sums.student)
        self.device = torch.device(device)
        self.epsilon = epsilon
        self.projections = None if projections is None else [p.to(self.device, torch.float64) for p in projections]
        self._pairs = tuple(index.to(self.device) for index in layer_pairs(teacher_layers))
        n_rows = vertices * len(self._pairs[0])
        self._bin_offset = (torch.arange(n_rows, device=self.device) * self.sums.angles.histogram.shape[-1]).unsqueeze(
            1
        )
        self._examples: list[ExampleMeans] = []
        self._rooms: dict[tuple[str, int, int], Tensor] = {}

    def update(
        self, teacher: Sequence[Tensor], student: Sequence[Tensor], token_example: Tensor, examples: Tensor
    ) -> None:
        """Add a batch of whole examples.

        Args:
            teacher: for each teacher layer the states, shape (tokens, teacher width).
            student: for each vertex the states, shape (tokens, student width).
            token_example: for each token the position of its example in `examples`, int64 (tokens,), ascending.
            examples: the row numbers of the examples, int64 (examples,).
        """
        accumulate_batch([self], teacher, [student], token_example, examples)

    def workspace(self, role: str, layers: Sequence[Tensor], tokens: int) -> Tensor:
        """Return room for one piece's states of a role, kept for all batches: fresh pages cost more than the sums."""
        key = (role, len(layers), int(layers[0].shape[-1]))
        room = self._rooms.get(key)
        if room is None or len(room) < tokens:
            room = torch.empty(tokens, *key[1:], dtype=torch.float64, device=self.device)
            self._rooms[key] = room
        return room

    def state(self) -> GeometrySums:
        """Return the sums so far with the examples put in order."""
        if self._examples:
            examples = self.sums.examples
            merged = ExampleMeans(
                torch.cat([examples.example, *(part.example for part in self._examples)]),
                torch.cat([examples.cosine, *(part.cosine for part in self._examples)], dim=1),
                torch.cat([examples.n_cosines, *(part.n_cosines for part in self._examples)], dim=1),
                torch.cat([examples.n_tokens, *(part.n_tokens for part in self._examples)], dim=1),
            )
            # Adding nothing puts the examples in order and refuses an example that came twice.
            ordered = merged + ExampleMeans.zeros(merged.cosine.shape[0])
            self._examples = []
            self.sums = replace(self.sums, examples=ordered)
        return self.sums


@dataclass(frozen=True)
class _BatchExamples:
    """Sums by example of one batch, (vertices * pairs, examples) unless said otherwise."""

    cosine: Tensor
    count: Tensor
    tokens: Tensor  # (vertices, examples)


def accumulate_batch(
    accumulators: Sequence[GeometryAccumulator],
    teacher: Sequence[Tensor],
    students: Sequence[Sequence[Tensor]],
    token_example: Tensor,
    examples: Tensor,
) -> None:
    """Add one batch of whole examples to several students' sums; the teacher's products are taken once.

    Args:
        accumulators: one for each student, all on one device.
        teacher: for each teacher layer the states, shape (tokens, teacher width).
        students: for each student, for each vertex the states, shape (tokens, student width).
        token_example: for each token the position of its example in `examples`, int64 (tokens,), ascending.
        examples: the row numbers of the examples, int64 (examples,).
    """
    n_tokens, n_examples = len(token_example), len(examples)
    if not accumulators or n_tokens == 0:
        return
    device = accumulators[0].device
    piece = _piece_length(len(teacher), teacher[0].shape[-1], device)
    # Known on the host, so that cutting the batch into pieces asks the accelerator nothing.
    host_example = token_example.cpu()
    buffers = [_empty_examples(accumulator, n_examples) for accumulator in accumulators]
    room = min(piece, n_tokens)
    # Students are worked on one after the other, so those of one shape share a room.
    teacher_room = accumulators[0].workspace("teacher", teacher, room)
    student_rooms = [accumulators[0].workspace("student", states, room) for states in students]
    for start in range(0, n_tokens, piece):
        stop = min(start + piece, n_tokens)
        first, last = int(host_example[start]), int(host_example[stop - 1]) + 1
        member = torch.nn.functional.one_hot(host_example[start:stop] - first, last - first)
        member = member.to(device, torch.float64)
        teacher_side = _Side.of(teacher, slice(start, stop), teacher_room)
        for accumulator, states, room_of, buffer in zip(accumulators, students, student_rooms, buffers, strict=True):
            student_side = _Side.of(states, slice(start, stop), room_of)
            _add_piece(accumulator, teacher_side, student_side, member, buffer, slice(first, last))
    for accumulator, buffer in zip(accumulators, buffers, strict=True):
        _add_examples(accumulator, buffer, examples)


def _piece_length(layers: int, width: int, device: torch.device) -> int:
    budget = _PIECE_BYTES.get(device.type, _ACCELERATOR_PIECE_BYTES)
    return max(16, budget // (layers * width * 8))


def _empty_examples(accumulator: GeometryAccumulator, n_examples: int) -> _BatchExamples:
    vertices, pairs = accumulator.sums.angles.count.shape
    return _BatchExamples(
        *(
            torch.zeros(rows, n_examples, dtype=torch.float64, device=accumulator.device)
            for rows in (vertices * pairs, vertices * pairs, vertices)
        )
    )


def _add_piece(
    accumulator: GeometryAccumulator,
    teacher: _Side,
    student: _Side,
    member: Tensor,
    buffer: _BatchExamples,
    where: slice,
) -> None:
    sums = accumulator.sums
    vertex = student
    if accumulator.projections is not None:
        projected = [
            student.states[:, position] @ projection.T for position, projection in enumerate(accumulator.projections)
        ]
        states = torch.stack(projected, dim=1)
        vertex = _Side(states, _token_last(torch.bmm(states, states.transpose(1, 2))))
    cross = _token_last(torch.bmm(teacher.states, vertex.states.transpose(1, 2)))

    finite = torch.isfinite(teacher.squared).all(0) & torch.isfinite(vertex.squared).all(0)
    if vertex is not student:
        finite &= torch.isfinite(student.squared).all(0)
    complete = None if bool(finite.all()) else finite
    sums.n_tokens.add_(len(member))
    sums.n_complete.add_(finite.sum())
    _add_side(sums.teacher, teacher, complete)
    _add_side(sums.student, student, complete)
    if vertex is not student:  # else `sums.vertex` is `sums.student`
        _add_side(sums.vertex, vertex, complete)
    _add_block(sums.teacher_teacher, teacher.products, teacher.squared, teacher.squared, complete)
    _add_block(sums.teacher_student, cross, teacher.squared, vertex.squared, complete)
    _add_block(sums.student_student, student.products, student.squared, student.squared, complete)

    angles = angles_from_products(teacher.products, cross, vertex.squared, epsilon=accumulator.epsilon)
    _add_angles(sums.angles, angles, accumulator._bin_offset)
    _add_chance(sums.angles, teacher.squared, vertex.squared, accumulator._pairs)
    flat_valid = angles.valid.flatten(0, 1).double()
    buffer.cosine[:, where] += angles.cosine.flatten(0, 1) @ member
    buffer.count[:, where] += flat_valid @ member
    buffer.tokens[:, where] += angles.valid.any(1).double() @ member


def _add_side(sums: SideSums, side: _Side, complete: Tensor | None) -> None:
    squared = side.squared
    finite = torch.isfinite(squared)
    n_finite = finite.sum(1)
    sums.n_finite.add_(n_finite)
    sums.n_nonfinite.add_(squared.shape[1] - n_finite)
    sums.n_zero.add_((squared == 0).sum(1))
    sums.norm.add_(torch.where(finite, squared, 0.0).sqrt_().sum(1))
    if complete is None:
        sums.state.add_(side.states.sum(0))
        sums.squared.add_(squared.sum(1))
    else:
        sums.state.add_(side.states[complete].sum(0))
        sums.squared.add_(squared[:, complete].sum(1))


def _add_block(
    sums: BlockSums, products: Tensor, squared_a: Tensor, squared_b: Tensor, complete: Tensor | None
) -> None:
    cosine, defined = pair_cosines(products, squared_a, squared_b)
    sums.cosine.add_(cosine.sum(-1))
    sums.n_cosine.add_(defined.sum(-1))
    distance, defined = pair_distances(products, squared_a, squared_b)
    sums.distance.add_(distance.sum(-1))
    sums.n_distance.add_(defined.sum(-1))
    sums.product.add_((products if complete is None else products[..., complete]).sum(-1))


def _add_angles(sums: AngleSums, angles: VertexAngles, bin_offset: Tensor) -> None:
    cosine, valid = angles.cosine, angles.valid
    sums.count.add_(valid.sum(-1))
    sums.cosine.add_(cosine.sum(-1))
    sums.cosine_squared.add_((cosine * cosine).sum(-1))
    sums.acute.add_((cosine > 0).sum(-1))
    # 2 atan2(|u - v|, |u + v|) of unit vectors, with |u -+ v|^2 = 2 -+ 2 cos; an undefined angle adds nothing.
    angle = torch.atan2((1 - cosine).sqrt_(), (1 + cosine).sqrt_())
    sums.angle.add_(torch.rad2deg(2 * torch.where(valid, angle, 0.0).sum(-1)))
    sums.tangential_count.add_(angles.tangential_valid.sum(-1))
    sums.tangential.add_(angles.tangential.sum(-1))
    sums.zero_direction.add_(angles.zero_direction.sum(-1))
    bins = cosine_bins(cosine).flatten(0, 1).add_(bin_offset).flatten()
    sums.histogram.view(-1).scatter_add_(0, bins, valid.flatten().to(torch.int64))


def _add_chance(sums: AngleSums, teacher_squared: Tensor, vertex_squared: Tensor, pairs: tuple[Tensor, ...]) -> None:
    factors = chance_factors(teacher_squared, vertex_squared)
    known = torch.isfinite(factors)
    factors = torch.where(known, factors, 0.0)
    # The mean of r_i r_k over tokens is a product of matrices: every pair at once.
    products = factors @ factors.transpose(1, 2)
    counts = known.double() @ known.double().transpose(1, 2)
    i, k = pairs
    sums.null.add_(products[:, i, k])
    sums.null_count.add_(counts[:, i, k].to(torch.int64))


def _add_examples(accumulator: GeometryAccumulator, buffer: _BatchExamples, examples: Tensor) -> None:
    angles = accumulator.sums.angles
    shape = angles.count.shape
    angles.example_count.add_((buffer.count > 0).sum(1).view(shape))
    angles.example_square.add_((buffer.cosine * buffer.cosine).sum(1).view(shape))
    angles.example_product.add_((buffer.cosine * buffer.count).sum(1).view(shape))
    angles.example_count_square.add_((buffer.count * buffer.count).sum(1).view(shape))
    by_vertex = (*shape, buffer.cosine.shape[1])
    accumulator._examples.append(
        ExampleMeans(
            examples.cpu(),
            buffer.cosine.view(by_vertex).sum(1).cpu(),
            buffer.count.view(by_vertex).sum(1).to("cpu", torch.int64),
            buffer.tokens.to("cpu", torch.int64),
        )
    )
