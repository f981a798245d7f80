"""The shell that feeds the sums: batches of token states in, `GeometrySums` out, in runs of bounded memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anglekit.geometry.angles import Directions, VertexAngles, angle_pieces, chance_factors, layer_pairs
from anglekit.geometry.compiled.choice import in_loops, in_threads
from anglekit.geometry.products import TokenProducts, take_products
from anglekit.geometry.similarity import pair_cosines, pair_distances
from anglekit.geometry.sums import (
    AngleExtremes,
    BlockSums,
    ExampleMeans,
    GeometrySums,
    RepeatSums,
    SideSums,
    cosine_bins,
    token_numbers,
)
from anglekit.runtime.workspace import Workspace
from anglekit.vocabulary import N_BINS

# Bytes of one value for every vertex, pair and token that the angles are computed in at once, which is a run of tokens
# where that run is not too short: then its angles are taken piece by piece, so that each pair's sums and its histogram
# are fetched once for many tokens.
_PIECE_BYTES = {"cpu": 2 << 20}
_ACCELERATOR_PIECE_BYTES = 64 << 20
_FEWEST_TOKENS = 128


class SumsAccumulator:
    """Sums the geometry of one student and stream.

    Args:
        teacher_layers: number of teacher layers.
        vertices: number of student layers.
        teacher_width: width of the teacher's states.
        student_width: the student's own width; another than the teacher's needs `projections`.
        projections: for each vertex a matrix (teacher width, student width); None where the widths agree.
        epsilon: added to the product of lengths, as the paper's code does; 0 leaves undefined angles out.
        device: where the sums live and are computed.
        split_clusters: the clusters of examples that read the same and come in more than one update, ascending; None:
            no two examples read the same.
        sums: what was summed before and grows on in place, on `device`; None: nothing.
        extremes: grow along with the sums, in place; None: they are not wanted.

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
        split_clusters: Sequence[int] | None = None,
        sums: GeometrySums | None = None,
        extremes: AngleExtremes | None = None,
    ) -> None:
        own_width = None if projections is None else student_width or teacher_width
        n_split = None if split_clusters is None else len(split_clusters)
        self._split_clusters = torch.tensor(split_clusters or (), dtype=torch.int64)
        self.sums = sums or GeometrySums.zeros(teacher_layers, vertices, teacher_width, own_width, device, n_split)
        self.device = torch.device(device)
        self.epsilon = epsilon
        self.extremes = extremes
        self.projections = None if projections is None else [p.to(self.device, torch.float64) for p in projections]
        i, k = layer_pairs(teacher_layers)
        self._pairs = i.to(self.device), k.to(self.device)
        self._examples: list[ExampleMeans] = []
        self._n_tokens = int(self.sums.n_tokens)
        self._workspace = Workspace()
        self._in_loops = extremes is None and in_loops(vertices, teacher_layers, self.device, epsilon)

    def update(
        self,
        teacher: Tensor | Sequence[Tensor],
        student: Tensor | Sequence[Tensor],
        token_example: Tensor,
        examples: Tensor,
        clusters: Tensor | None = None,
    ) -> None:
        """Add a batch of whole examples.

        Args:
            teacher: the states, shape (teacher layers, tokens, teacher width), or a tensor for each layer.
            student: the states, shape (vertices, tokens, student width), or a tensor for each vertex.
            token_example: for each token the position of its example in `examples`, int64 (tokens,), ascending.
            examples: the row numbers of the examples, int64 (examples,).
            clusters: see `accumulate_batch`.
        """
        accumulate_batch([self], teacher, [student], token_example, examples, clusters)

    def state(self) -> GeometrySums:
        """Return the sums so far with the examples put in order."""
        if self._examples:
            parts = [self.sums.examples, *self._examples]
            merged = ExampleMeans(
                torch.cat([part.example for part in parts]),
                torch.cat([part.angle for part in parts], dim=1),
                torch.cat([part.cosine for part in parts], dim=1),
                torch.cat([part.n_cosines for part in parts], dim=1),
                torch.cat([part.n_tokens for part in parts], dim=1),
            )
            # Adding nothing puts the examples in order and refuses an example that came twice.
            self.sums.examples = merged + ExampleMeans.zeros(len(merged.cosine))
            self._examples = []
        return self.sums

    def _add_layers(self, products: TokenProducts, complete: Tensor | None) -> None:
        sums = self.sums
        teacher, vertex, student = products.squared()
        sums.n_tokens.add_(teacher.shape[1])
        self._n_tokens += teacher.shape[1]
        sums.angles.make_room(self._n_tokens)
        sums.n_complete.add_(teacher.shape[1] if complete is None else complete.sum())
        _add_side(sums.teacher, teacher, products.teacher_sum, complete)
        _add_side(sums.student, student, products.student_sum, complete)
        _add_blocks((sums.teacher_teacher,), products.teacher, teacher, teacher, complete)
        if self.projections is None:  # `sums.vertex` is `sums.student`
            # Both blocks in one: what they cost is the number of calls.
            both = (sums.teacher_student, sums.student_student)
            _add_blocks(both, products.rows, torch.cat([teacher, student]), student, complete)
            return
        projected = [matrix @ state for matrix, state in zip(self.projections, products.student_sum, strict=True)]
        _add_side(sums.vertex, vertex, torch.stack(projected), complete)
        _add_blocks((sums.teacher_student,), products.cross, teacher, vertex, complete)
        _add_blocks((sums.student_student,), products.student, student, student, complete)

    def _add_angles(
        self,
        products: TokenProducts,
        member: Tensor,
        batch: _BatchExamples,
        where: slice,
        tokens: Tensor | None,
    ) -> None:
        teacher_squared, vertex_squared, _ = products.squared()
        self._add_chance(teacher_squared, vertex_squared)
        if not self._in_loops:
            self._add_piecewise(products, slice(None), member, batch, where, tokens)
            return
        for vertex in self._add_in_loops(products, member, batch, where):
            self._add_piecewise(products, slice(vertex, vertex + 1), member, batch, where, tokens)

    def _add_in_loops(self, products: TokenProducts, member: Tensor, batch: _BatchExamples, where: slice) -> list[int]:
        """Add the angles of the vertices at which none is lost; return the other vertices."""
        from anglekit.geometry.compiled import loops  # numba takes half a second to load

        teacher_squared, vertex_squared, _ = products.squared()
        directions = Directions.of(teacher_squared, products.cross, vertex_squared)
        vertices, arrays = directions.whole_vertices(), directions.loop_arrays()
        sums, n_tokens = self.sums.angles, len(member)
        ends = member.sum(0).cumsum(0).to(torch.int64).numpy()
        angle = np.zeros(vertex_squared.shape)
        summed = (sums.cosine, sums.cosine_squared, sums.acute, sums.angle, sums.tangential, sums.tangential_angle)
        grown = (tuple(each.numpy() for each in summed), sums.histogram.numpy(), batch.cosine.numpy(), angle)
        teacher = products.teacher.numpy()

        def add(some: NDArray[np.int64]) -> None:
            loops.add_angles(teacher, arrays, some, ends, where.start, *grown)

        in_threads(add, vertices)
        chosen, n_pairs = torch.from_numpy(vertices), sums.count.shape[1]
        sums.count[chosen] += n_tokens
        sums.tangential_count[chosen] += n_tokens
        batch.count[chosen, :, where] += member.sum(0)
        batch.tokens[chosen, where] += member.sum(0)
        batch.angle[chosen, where] += (torch.from_numpy(angle)[chosen] / n_pairs) @ member
        return sorted(set(range(len(angle))) - set(vertices.tolist()))

    def _add_piecewise(
        self,
        products: TokenProducts,
        some: slice,
        member: Tensor,
        batch: _BatchExamples,
        where: slice,
        tokens: Tensor | None,
    ) -> None:
        """Add the angles of some vertices by tensor operations."""
        _, every_squared, _ = products.squared()
        vertex_squared, first = every_squared[some], some.start or 0
        # Each vertex's sum over pairs of a token's angles, and how many there are.
        angle = torch.zeros_like(vertex_squared)
        n_pairs = torch.zeros_like(vertex_squared, dtype=torch.int64)
        for place, angles in angle_pieces(
            products.teacher,
            products.cross[:, some],
            vertex_squared,
            epsilon=self.epsilon,
            piece_bytes=_piece_bytes(self.device),
        ):
            here, pairs = place
            vertices = slice(first + here.start, first + here.stop)
            place = vertices, pairs
            if pairs.start == 0:
                self.sums.angles.zero_direction[vertices] += angles.zero_direction.sum(-1)
                batch.tokens[vertices, where] += (angles.usable.sum(1) >= 2).double() @ member
            # An undefined angle has cosine 0 and must count nowhere; nearly always there is none.
            valid = None if angles.all_usable else angles.valid
            radians = self._add_piece(place, angles, valid)
            angle[here] += radians.sum(1)
            cosine = angles.cosine
            n_pairs[here] += cosine.shape[1] if valid is None else valid.sum(1)
            batch.cosine[(*place, where)] += cosine @ member
            batch.count[(*place, where)] += member.sum(0) if valid is None else valid.double() @ member
            if self.extremes is not None and tokens is not None:
                self.extremes.update(cosine, valid, tokens, place)
        batch.angle[some, where] += torch.rad2deg(angle / n_pairs.clamp_(min=1)) @ member

    def _add_piece(self, place: tuple[slice, slice], angles: VertexAngles, valid: Tensor | None) -> Tensor:
        """Add some vertices' angles of some pairs, and return them in radians, 0 where not valid."""
        sums, cosine, n_tokens = self.sums.angles, angles.cosine, angles.cosine.shape[-1]
        sums.count[place] += n_tokens if valid is None else valid.sum(-1)
        sums.cosine[place] += cosine.sum(-1)
        sums.cosine_squared[place] += torch.linalg.vecdot(cosine, cosine)
        sums.acute[place] += (cosine > 0).sum(-1)
        radians = _radians(cosine, valid)
        sums.angle[place] += torch.rad2deg(radians.sum(-1))
        tangential_valid = None if angles.all_tangent_usable else angles.tangential_valid
        sums.tangential_count[place] += n_tokens if tangential_valid is None else tangential_valid.sum(-1)
        sums.tangential[place] += angles.tangential.sum(-1)
        sums.tangential_angle[place] += torch.rad2deg(_radians(angles.tangential, tangential_valid).sum(-1))
        self._add_histogram(place, cosine, valid)
        return radians

    def _add_histogram(self, place: tuple[slice, slice], cosine: Tensor, valid: Tensor | None) -> None:
        """Count the bins of a piece's cosines; it has all pairs of some vertices or some of one: neighbouring rows."""
        vertices, pairs = place
        angles, n_rows = self.sums.angles, cosine.shape[0] * cosine.shape[1]
        first = vertices.start * angles.count.shape[1] + pairs.start
        rows = angles.histogram.view(-1, N_BINS)[first : first + n_rows].view(-1)
        bins = cosine_bins(cosine).flatten(0, 1)
        bins += torch.arange(0, n_rows * N_BINS, N_BINS, device=self.device).unsqueeze(1)
        ones = torch.ones(bins.numel(), dtype=rows.dtype, device=self.device) if valid is None else valid.view(-1)
        rows.scatter_add_(0, bins.view(-1), ones.to(rows.dtype))

    def _count_pairs(self, usable: Tensor) -> Tensor:
        """Return for each pair the tokens at which both layers are usable, int64 (vertices, pairs)."""
        flags = usable.double()
        i, k = self._pairs
        return (flags @ flags.transpose(1, 2))[:, i, k].to(torch.int64)

    def _add_chance(self, teacher_squared: Tensor, vertex_squared: Tensor) -> None:
        sums, factors = self.sums.angles, chance_factors(teacher_squared, vertex_squared)
        known = torch.isfinite(factors)
        if bool(known.all()):
            sums.null_count.add_(factors.shape[-1])
        else:
            factors = torch.where(known, factors, 0.0)
            sums.null_count.add_(self._count_pairs(known))
        i, k = self._pairs
        # The mean of r_i r_k over tokens is a product of matrices: every pair at once.
        sums.null.add_((factors @ factors.transpose(1, 2))[:, i, k])

    def _add_examples(self, batch: _BatchExamples, examples: Tensor, clusters: Tensor | None) -> None:
        angles = self.sums.angles
        angles.example_count.add_((batch.count > 0).sum(-1))
        cosine, count = batch.cosine, batch.count
        if angles.repeats is not None and clusters is not None:
            cosine, count = self._by_cluster(batch, clusters, angles.repeats)
        angles.example_square.add_(torch.linalg.vecdot(cosine, cosine))
        angles.example_product.add_(torch.linalg.vecdot(cosine, count))
        angles.example_count_square.add_(torch.linalg.vecdot(count, count))
        self._examples.append(
            ExampleMeans(
                examples.cpu(),
                batch.angle.cpu(),
                batch.cosine.sum(1).cpu(),
                batch.count.sum(1).to("cpu", torch.int64),
                batch.tokens.to("cpu", torch.int64),
            )
        )

    def _by_cluster(self, batch: _BatchExamples, clusters: Tensor, repeats: RepeatSums) -> tuple[Tensor, Tensor]:
        """Return the sums and counts of the clusters that are whole in this batch; add up those that are not."""
        found, place = torch.unique(clusters.cpu(), return_inverse=True)
        split = torch.isin(found, self._split_clusters)
        place = place.to(self.device)
        sums = [
            torch.zeros(*values.shape[:2], len(found), dtype=torch.float64, device=self.device).index_add_(
                2, place, values
            )
            for values in (batch.cosine, batch.count)
        ]
        target = torch.searchsorted(self._split_clusters, found[split]).to(self.device)
        split, whole = split.to(self.device), (~split).to(self.device)
        cosine, count = sums
        repeats.cosine.index_add_(2, target, cosine[..., split])
        repeats.count.index_add_(2, target, count[..., split])
        repeats.examples.add_((batch.count > 0).sum(-1) - (count[..., whole] > 0).sum(-1))
        return cosine[..., whole], count[..., whole]


@dataclass
class _BatchExamples:
    """Sums by example of one batch, which grow in place: (vertices, pairs, examples) unless said otherwise."""

    cosine: Tensor
    count: Tensor
    tokens: Tensor  # (vertices, examples)
    angle: Tensor  # (vertices, examples), in degrees

    @classmethod
    def zeros(cls, accumulator: SumsAccumulator, n_examples: int) -> _BatchExamples:
        vertices, pairs = accumulator.sums.angles.count.shape
        return cls(
            *(
                torch.zeros(*shape, n_examples, dtype=torch.float64, device=accumulator.device)
                for shape in ((vertices, pairs), (vertices, pairs), (vertices,), (vertices,))
            )
        )


def accumulate_batch(
    accumulators: Sequence[SumsAccumulator],
    teacher: Tensor | Sequence[Tensor],
    students: Sequence[Tensor | Sequence[Tensor]],
    token_example: Tensor,
    examples: Tensor,
    clusters: Tensor | None = None,
    places: Tensor | None = None,
) -> None:
    """Add one batch of whole examples to several students' sums; the teacher's products are taken once.

    Args:
        accumulators: one for each student, all on one device.
        teacher: the states, shape (teacher layers, tokens, teacher width), or a tensor for each layer.
        students: for each student the states, shape (vertices, tokens, student width), or a tensor for each vertex.
        token_example: for each token the position of its example in `examples`, int64 (tokens,), ascending.
        examples: the row numbers of the examples, int64 (examples,).
        clusters: for each example a number that those share which read the same, int64 (examples,); None: all differ.
        places: for each token its place in its example's sequence, int64 (tokens,); None: no extremes are kept.
    """
    n_tokens, n_examples = len(token_example), len(examples)
    if not accumulators or n_tokens == 0:
        return
    device = accumulators[0].device
    teacher_states = _stacked(teacher).to(device)
    student_states = [_stacked(states).to(device) for states in students]
    run = _even_run(n_tokens, min(_run_length(accumulator) for accumulator in accumulators))
    projections = [accumulator.projections for accumulator in accumulators]
    # Known on the host, so that cutting the batch into runs asks the accelerator nothing.
    host_example = token_example.cpu()
    batches = [_BatchExamples.zeros(accumulator, n_examples) for accumulator in accumulators]
    named = None
    if places is not None:
        named = token_numbers(examples.to(device)[token_example.to(device)], places.to(device))
    for start in range(0, n_tokens, run):
        tokens = slice(start, min(start + run, n_tokens))
        first, last = int(host_example[tokens.start]), int(host_example[tokens.stop - 1]) + 1
        member = torch.nn.functional.one_hot(host_example[tokens] - first, last - first)
        member = member.to(device, torch.float64)
        products = take_products(teacher_states, student_states, projections, tokens, accumulators[0]._workspace)
        for accumulator, states, run_products, batch in zip(
            accumulators, student_states, products, batches, strict=True
        ):
            complete = _complete_tokens(run_products)
            if complete is not None:
                run_products = replace(
                    run_products,
                    teacher_sum=_sum_over(teacher_states, tokens, complete),
                    student_sum=_sum_over(states, tokens, complete),
                )
            accumulator._add_layers(run_products, complete)
            numbers = None if named is None else named[tokens]
            accumulator._add_angles(run_products, member, batch, slice(first, last), numbers)
    for accumulator, batch in zip(accumulators, batches, strict=True):
        accumulator._add_examples(batch, examples, clusters)


def _run_length(accumulator: SumsAccumulator) -> int:
    rows = max(1, accumulator.sums.angles.count.numel())
    return max(_FEWEST_TOKENS, _piece_bytes(accumulator.device) // (8 * rows))


def _piece_bytes(device: torch.device) -> int:
    return _PIECE_BYTES.get(device.type, _ACCELERATOR_PIECE_BYTES)


def _even_run(n_tokens: int, run: int) -> int:
    """Return the length of equal runs of about `run` tokens: a short rest would cost as many calls as a full one."""
    return -(-n_tokens // max(1, round(n_tokens / run)))


def _complete_tokens(products: TokenProducts) -> Tensor | None:
    """Return which tokens are finite at every layer of every side, or None if all are."""
    finite = torch.cat([*products.squared()]).isfinite()
    return None if bool(finite.all()) else finite.all(0)


def _stacked(states: Tensor | Sequence[Tensor]) -> Tensor:
    return states if isinstance(states, Tensor) else torch.stack(tuple(states))


def _sum_over(states: Tensor, tokens: slice, chosen: Tensor) -> Tensor:
    """Return the sum of each layer's states over chosen tokens of a run, float64 (layers, width)."""
    return states[:, tokens][:, chosen].sum(1, dtype=torch.float64)


def _add_side(sums: SideSums, squared: Tensor, state: Tensor, complete: Tensor | None) -> None:
    if complete is None:
        sums.n_finite.add_(squared.shape[1])
        sums.norm.add_(squared.sqrt().sum(1))
    else:
        finite = torch.isfinite(squared)
        n_finite = finite.sum(1)
        sums.n_finite.add_(n_finite)
        sums.n_nonfinite.add_(squared.shape[1] - n_finite)
        sums.norm.add_(torch.where(finite, squared, 0.0).sqrt_().sum(1))
    sums.n_zero.add_((squared == 0).sum(1))
    sums.state.add_(state)
    sums.squared.add_((squared if complete is None else squared[:, complete]).sum(1))


def _add_blocks(
    blocks: Sequence[BlockSums], products: Tensor, squared_a: Tensor, squared_b: Tensor, complete: Tensor | None
) -> None:
    """Add one tensor of products to blocks whose layers of A lie one below the other in it."""
    finite = complete is None
    cosine, with_cosine = pair_cosines(products, squared_a, squared_b, finite=finite)
    distance, with_distance = pair_distances(products, squared_a, squared_b, finite=finite)
    every = torch.full(products.shape[:2], products.shape[-1], device=products.device)
    added = BlockSums(
        n_cosine=every if with_cosine is None else with_cosine.sum(-1),
        cosine=cosine.sum(-1),
        n_distance=every if with_distance is None else with_distance.sum(-1),
        distance=distance.sum(-1),
        product=(products if complete is None else products[..., complete]).sum(-1),
    )
    first = 0
    for block in blocks:
        last = first + len(block.product)
        for sums, values in zip(block.tensors().values(), added.tensors().values(), strict=True):
            sums.add_(values[first:last])
        first = last


def _radians(cosine: Tensor, valid: Tensor | None) -> Tensor:
    """Return the angles of cosines, 0 where they are not valid."""
    angle = torch.acos(cosine)
    return angle if valid is None else torch.where(valid, angle, 0.0)
