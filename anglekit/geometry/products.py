"""Inner products of teacher and student states, token by token, taken in blocks that stay in the processor's cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from anglekit.runtime.workspace import Workspace

# Bytes of float64 states that each thread of a CPU works on at once, or an accelerator. A block that leaves a core's
# cache is read from memory three times, and a small one pays more for starting each operation than it saves; an
# accelerator wants work.
_THREAD_BLOCK_BYTES = 2 << 20
_ACCELERATOR_BLOCK_BYTES = 256 << 20
_FEWEST_TOKENS = 16

# MKL multiplies up to three rows as they lie, two or three times as fast as more rows, which it copies first: that pays
# only for many vertices. A tile should nearly fit a core's first cache.
_ROWS_AS_THEY_LIE = 3
_MOST_VERTICES_IN_TILES = 6
_TILE_BYTES = 64 << 10
_FEWEST_COLUMNS = 4


@dataclass(frozen=True)
class TokenProducts:
    """Inner products of a run of tokens for one student; float64, tokens last.

    Attributes:
        teacher: <T_i, T_k>, (teacher layers, teacher layers, tokens).
        cross: <T_i, V_j>, (teacher layers, vertices, tokens); V_j is S_j, projected where widths differ.
        vertex: <V_j, V_l>, (vertices, vertices, tokens).
        student: <S_j, S_l> in the student's own width; the same tensor as `vertex` without a projection.
        rows: `cross` on top of `vertex`, one tensor, of which the two are views.
        teacher_sum: sum of the teacher's states over the tokens, (teacher layers, width).
        student_sum: sum of the student's states in its own width, (vertices, student width).
    """

    teacher: Tensor
    cross: Tensor
    vertex: Tensor
    student: Tensor
    rows: Tensor
    teacher_sum: Tensor
    student_sum: Tensor

    def squared(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the squared lengths of the teacher, the vertices and the student, each (layers, tokens)."""
        teacher, vertex = _diagonal(self.teacher), _diagonal(self.vertex)
        return teacher, vertex, vertex if self.student is self.vertex else _diagonal(self.student)


def _diagonal(products: Tensor) -> Tensor:
    return torch.diagonal(products, dim1=0, dim2=1).T


def take_products(
    teacher: Tensor,
    students: Sequence[Tensor],
    projections: Sequence[Sequence[Tensor] | None],
    tokens: slice,
    workspace: Workspace,
) -> list[TokenProducts]:
    """Return the inner products of a run of tokens for several students; the teacher's are taken once.

    Args:
        teacher: the states, shape (teacher layers, all tokens, teacher width).
        students: for each student the states, shape (vertices, all tokens, student width).
        projections: for each student None, or for each vertex a float64 matrix (teacher width, student width).
        tokens: the run.
        workspace: memory to work in; what is returned is good until the next call with it.
    """
    n_tokens, layers, width = tokens.stop - tokens.start, len(teacher), teacher.shape[-1]
    place = (torch.float64, teacher.device)
    grams = workspace.take("teacher", (n_tokens, layers, layers), *place)
    teacher_sum = torch.zeros(layers, width, dtype=torch.float64, device=teacher.device)
    sides = [
        _StudentSide(number, states, matrices, teacher, n_tokens, workspace)
        for number, (states, matrices) in enumerate(zip(students, projections, strict=True))
    ]
    rows = layers + max(len(states) for states in students)
    block = _block_length(rows, width, teacher.device)
    for start in range(0, n_tokens, block):
        here = slice(start, min(start + block, n_tokens))
        source = slice(tokens.start + here.start, tokens.start + here.stop)
        states = workspace.take("states", (here.stop - here.start, rows, width), *place)
        taught = states[:, :layers]
        taught.copy_(teacher[:, source].transpose(0, 1))
        torch.bmm(taught, taught.transpose(1, 2), out=grams[here])
        teacher_sum += taught.sum(0)
        for side in sides:
            side.add(states, source, here)
    teacher_products = _tokens_last(grams)
    return [side.products(teacher_products, teacher_sum) for side in sides]


class _StudentSide:
    """One student's part of a run: fills the rows of the vertices behind the teacher's and takes their products."""

    def __init__(
        self,
        number: int,
        layers: Tensor,
        matrices: Sequence[Tensor] | None,
        teacher: Tensor,
        n_tokens: int,
        workspace: Workspace,
    ) -> None:
        self.layers = layers
        self.matrices = matrices
        self.workspace = workspace
        self.place = (torch.float64, layers.device)
        self.first = len(teacher)
        self.name = f"vertex {number}"
        self.n_tokens = n_tokens
        vertices, _, width = layers.shape
        # The products of the vertices with every teacher layer and every vertex, tile by tile.
        self.tiles = list[_Tile]()
        for high, wide in _tiles(vertices, self.first + vertices, teacher.shape[-1], layers.device):
            name, shape = f"{self.name} {high.start} {wide.start}", (n_tokens, len(high), len(wide))
            self.tiles.append(_Tile(high, wide, workspace.take(name, shape, *self.place)))
        self.own_grams = None
        if matrices is not None:
            self.own_grams = workspace.take(f"own {number}", (n_tokens, vertices, vertices), *self.place)
        self.sum = torch.zeros(vertices, width, dtype=torch.float64, device=layers.device)

    def add(self, states: Tensor, source: slice, here: slice) -> None:
        """Take the products of one block, whose teacher rows are filled."""
        rows = states[:, : self.first + len(self.layers)]
        vertices = rows[:, self.first :]
        own = vertices
        if self.matrices is not None:
            own = self.workspace.take("own states", (len(rows), *self.sum.shape), *self.place)
        own.copy_(self.layers[:, source].transpose(0, 1))
        if self.matrices is not None and self.own_grams is not None:
            for position, matrix in enumerate(self.matrices):
                vertices[:, position] = own[:, position] @ matrix.T
            torch.bmm(own, own.transpose(1, 2), out=self.own_grams[here])
        for tile in self.tiles:
            torch.bmm(
                vertices[:, tile.vertices.start : tile.vertices.stop],
                rows[:, tile.rows.start : tile.rows.stop].transpose(1, 2),
                out=tile.products[here],
            )
        self.sum += own.sum(0)

    def products(self, teacher: Tensor, teacher_sum: Tensor) -> TokenProducts:
        """Return the run's products."""
        n_vertices = len(self.layers)
        grams = self.workspace.take(self.name, (self.first + n_vertices, n_vertices, self.n_tokens), *self.place)
        for tile in self.tiles:
            place = grams[tile.rows.start : tile.rows.stop, tile.vertices.start : tile.vertices.stop]
            place.copy_(tile.products.permute(2, 1, 0))
        vertex = grams[self.first :]
        student = vertex if self.own_grams is None else _tokens_last(self.own_grams)
        return TokenProducts(teacher, grams[: self.first], vertex, student, grams, teacher_sum, self.sum)


@dataclass(frozen=True)
class _Tile:
    """The products of some vertices with some rows, which are the teacher's layers and behind them the vertices.

    Attributes:
        vertices: which vertices.
        rows: which rows.
        products: float64 (tokens, vertices, rows).
    """

    vertices: range
    rows: range
    products: Tensor


def _tiles(vertices: int, rows: int, width: int, device: torch.device) -> list[tuple[range, range]]:
    """Return the parts, vertices by rows, in which the products of all vertices with all rows are taken."""
    high, wide = vertices, rows
    if device.type == "cpu" and vertices <= _MOST_VERTICES_IN_TILES:
        high = _ROWS_AS_THEY_LIE
        fitting = _TILE_BYTES // (8 * width) - high
        wide = fitting if fitting >= _FEWEST_COLUMNS else rows
    return [(a, b) for a in _parts(vertices, high) for b in _parts(rows, wide)]


def _parts(number: int, most: int) -> list[range]:
    """Return the numbers below `number` in parts of at most `most`, the last one the rest."""
    return [range(start, min(start + most, number)) for start in range(0, number, max(1, most))]


def _block_length(rows: int, width: int, device: torch.device) -> int:
    budget = _THREAD_BLOCK_BYTES * torch.get_num_threads() if device.type == "cpu" else _ACCELERATOR_BLOCK_BYTES
    return max(_FEWEST_TOKENS, budget // (rows * width * 8))


def _tokens_last(products: Tensor) -> Tensor:
    return products.permute(1, 2, 0).contiguous()
