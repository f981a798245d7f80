"""Hidden losses that compare what lies between tokens or examples, rather than each token with its teacher's.

Each takes the states of one matched layer, (batch, time, width) of either side, and returns one number for the batch.
Those of `NEEDS_ONE_WIDTH` compare states themselves; the others compare relations inside each side, so that a narrower
student needs no adapter. All are computed in at least float32, over the items that the mask keeps: what it excludes
reaches neither value nor gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

_INFONCE_TEMPERATURE: Final = 0.07
_RKD_ANGLE_WEIGHT: Final = 2.0
# Singular values below this share of the largest are rounding of float32, and have no direction.
_RANK: Final = 1e-6


@dataclass(frozen=True)
class Relation:
    """One loss.

    Attributes:
        formula: S and T are the states of the student's and the teacher's layer, a row a token or example.
        source: the paper.
        items: what a row is: "tokens" or "examples" (the mean over an example's tokens).
        one_width: whether both sides need one width, so that a narrower student needs adapters.
        compare: rows of both sides, (rows, width), to a scalar, 0 where the rows are too few.
    """

    formula: str
    source: str
    items: str
    one_width: bool
    compare: Callable[[Tensor, Tensor], Tensor]


def gram(student: Tensor, teacher: Tensor) -> Tensor:
    """Return |S S^T - T T^T|_F^2 / |T T^T|_F^2: how far the inner products of all pairs of rows are from the teacher's.

    Computed from the widths' products, so that no (rows, rows) matrix is held; 0 without rows, and where the teacher's
    states are all zero.
    """
    student, teacher = precise(student), precise(teacher)
    # One scale for both, so that fourth powers stay in range.
    scale = teacher.square().sum().sqrt()
    student, teacher = student / _divisor(scale), teacher / _divisor(scale)
    if len(student) <= min(student.shape[1], teacher.shape[1]):
        own, cross = student @ student.T - teacher @ teacher.T, teacher @ teacher.T
        return own.square().sum() / _divisor(cross.square().sum())
    norm = (teacher.T @ teacher).square().sum()
    total = (student.T @ student).square().sum() - 2.0 * (student.T @ teacher).square().sum() + norm
    return total.clamp_min(0.0) / _divisor(norm)


def linear_cka(student: Tensor, teacher: Tensor) -> Tensor:
    """Return 1 - CKA: |S^T T|_F^2 / (|S^T S|_F |T^T T|_F) of centred rows, in [0, 1]; 0 below two rows.

    Blind to rotation, to scale, and to all directions that hold little of the variance.
    """
    student, teacher = _centred(student), _centred(teacher)
    if len(student) < 2:
        return student.sum() * 0.0
    student, teacher = (each / _divisor(each.square().sum().sqrt()) for each in (student, teacher))
    shared = (student.T @ teacher).square().sum()
    own = torch.linalg.matrix_norm(student.T @ student) * torch.linalg.matrix_norm(teacher.T @ teacher)
    return 1.0 - shared / _divisor(own)


def procrustes(student: Tensor, teacher: Tensor) -> Tensor:
    """Return min over rotations Q of |S Q - T|_F^2 / |T|_F^2, rows centred: 0 where S is T turned; 0 below two rows.

    Where the student is narrower, Q has orthonormal rows. Its value is |S|^2 + |T|^2 - 2 |S^T T|_*, the nuclear norm.
    """
    student, teacher = _centred(student), _centred(teacher)
    if len(student) < 2:
        return student.sum() * 0.0
    norm = teacher.square().sum()
    total = student.square().sum() + norm - 2.0 * _nuclear_norm_of_product(student, teacher)
    return total.clamp_min(0.0) / _divisor(norm)


def relational(student: Tensor, teacher: Tensor) -> Tensor:
    """Return RKD's distance-wise plus 2 x its angle-wise loss, each the mean over pairs or triples of a Huber loss.

    Distances of each side are divided by their mean; angles are the cosines at the middle row of three. 0 below two
    rows; of two rows there is no angle.
    """
    student, teacher = precise(student), precise(teacher)
    if len(student) < 2:
        return student.sum() * 0.0
    apart = ~torch.eye(len(student), dtype=torch.bool, device=student.device)
    loss = F.smooth_l1_loss(_distances(student, apart), _distances(teacher, apart))
    if len(student) > 2:
        loss = loss + _RKD_ANGLE_WEIGHT * F.smooth_l1_loss(_cosines(student), _cosines(teacher))
    return loss


def infonce(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean over rows of -log softmax(cos(s_i, t_j) / 0.07): each finds its own among the teacher's.

    The other rows of the batch are the negatives (CoDIR keeps a bank of them). 0 below two rows, which have none.
    """
    student, teacher = precise(student), precise(teacher)
    if len(student) < 2:
        return student.sum() * 0.0
    logits = _unit(student) @ _unit(teacher).T / _INFONCE_TEMPERATURE
    return F.cross_entropy(logits, torch.arange(len(student), device=logits.device))


RELATIONS: Final[Mapping[str, Relation]] = {
    "gram": Relation(
        "|S S^T - T T^T|_F^2 / |T T^T|_F^2", "Bhattarai et al. 2025, arXiv 2509.25253", "tokens", False, gram
    ),
    "relational": Relation(
        "Huber of distances / their mean + 2 x Huber of the cosines at each of three",
        "Park et al. 2019 (RKD), arXiv 1904.05068",
        "examples",
        False,
        relational,
    ),
    "cka": Relation(
        "1 - |S^T T|_F^2 / (|S^T S|_F |T^T T|_F), rows centred",
        "Kornblith et al. 2019, arXiv 1905.00414",
        "tokens",
        False,
        linear_cka,
    ),
    "procrustes": Relation(
        "min over rotations Q of |S Q - T|_F^2 / |T|_F^2, rows centred",
        "Bhattarai et al. 2025, arXiv 2509.25253",
        "tokens",
        False,
        procrustes,
    ),
    "infonce": Relation(
        "-log softmax over the batch of cos(s_i, t_j) / 0.07",
        "Sun et al. 2020 (CoDIR), arXiv 2009.14167",
        "examples",
        True,
        infonce,
    ),
}


def relation(kind: str, student: Tensor, teacher: Tensor, mask: Tensor | None) -> Tensor:
    """Return a loss of one matched layer.

    Args:
        kind: a name in `RELATIONS`.
        student: (batch, time, width).
        teacher: (batch, time, its width).
        mask: (batch, time), nonzero at tokens that count; None counts all.
    """
    found = RELATIONS[kind]
    rows = example_means if found.items == "examples" else token_rows
    return found.compare(rows(student, mask), rows(teacher, mask))


def token_rows(states: Tensor, mask: Tensor | None) -> Tensor:
    """Return the tokens that count, (tokens, width)."""
    flat = states.reshape(-1, states.shape[-1])
    if mask is None:
        return flat
    index = mask.reshape(-1).nonzero().squeeze(-1).to(flat.device)
    return flat if len(index) == len(flat) else flat.index_select(0, index)


def example_means(states: Tensor, mask: Tensor | None) -> Tensor:
    """Return each example's mean over its tokens that count, (examples that have one, width), in at least float32."""
    if mask is None:
        return precise(states).mean(1)
    keep = (mask != 0).to(states.device)
    counts = keep.sum(1, keepdim=True)
    sums = torch.where(keep[..., None], precise(states), 0.0).sum(1)
    return (sums / counts.clamp_min(1))[counts.squeeze(1) > 0]


def precise(values: Tensor) -> Tensor:
    """Raise half precision to float32: it loses the small differences that these losses are made of."""
    return values if values.dtype == torch.float64 else values.float()


def _centred(rows: Tensor) -> Tensor:
    rows = precise(rows)
    return rows - rows.mean(0) if len(rows) else rows


def _divisor(value: Tensor) -> Tensor:
    """Return a number to divide by: infinity in the place of 0, so that nothing over nothing is 0."""
    return torch.where(value > 0, value, torch.inf)


def _unit(rows: Tensor) -> Tensor:
    return rows / _divisor(torch.linalg.vector_norm(rows, dim=-1, keepdim=True))


def _distances(rows: Tensor, apart: Tensor) -> Tensor:
    """Return the distances between different rows over their mean; equal rows have distance 0 and no gradient."""
    squares = (rows[:, None] - rows[None]).square().sum(-1)[apart]
    there = squares > 0
    distances = torch.where(there, torch.where(there, squares, 1.0).sqrt(), 0.0)
    return distances / _divisor(distances.mean())


def _cosines(rows: Tensor) -> Tensor:
    """Return for each row the cosines between the directions to any two others, (rows, rows, rows)."""
    directions = _unit(rows[None] - rows[:, None])
    return directions @ directions.transpose(1, 2)


def _nuclear_norm_of_product(a: Tensor, b: Tensor) -> Tensor:
    return cast("Tensor", _NuclearNormOfProduct.apply(a, b))  # type: ignore[no-untyped-call]


class _NuclearNormOfProduct(torch.autograd.Function):
    """The sum of the singular values of A^T B, for rows of any two widths.

    Its gradient by the product is U V^T, which plain autograd loses where two values are equal or one is 0. Of fewer
    rows than columns, A^T = Q_A R_A and B^T = Q_B R_B, and R_A R_B^T has the same values in a matrix of rows by rows.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:  # noqa: ANN401
        if len(a) < min(a.shape[1], b.shape[1]):
            (q_a, r_a), (q_b, r_b) = torch.linalg.qr(a.T), torch.linalg.qr(b.T)
            total, slope = _nuclear_norm(r_a @ r_b.T)
            slope = q_a @ slope @ q_b.T
        else:
            total, slope = _nuclear_norm(a.T @ b)
        ctx.save_for_backward(a, b, slope)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:  # noqa: ANN401
        a, b, slope = ctx.saved_tensors
        by_a, by_b = ctx.needs_input_grad
        return gradient * (b @ slope.T) if by_a else None, gradient * (a @ slope) if by_b else None


def _nuclear_norm(product: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sum of the singular values of a matrix, and its slope U V^T.

    By the eigenvectors of its square in double precision, which keeps values from 1e-7 of the largest. On a model's
    states this takes as long as a singular value decomposition; where many values are close to 0, a fraction of that.
    """
    # Apple's devices have no double precision.
    wide = (product.cpu() if product.device.type == "mps" else product).double()
    if wide.shape[0] < wide.shape[1]:
        total, slope = _nuclear_norm(product.T)
        return total, slope.T
    squares, vectors = torch.linalg.eigh(wide.T @ wide)
    values = squares.clamp_min(0.0).sqrt()
    kept = values > _RANK * values[-1:]
    values, vectors = values[kept], vectors[:, kept]
    slope = wide @ (vectors / values) @ vectors.T
    return values.sum().to(product), slope.to(product)
