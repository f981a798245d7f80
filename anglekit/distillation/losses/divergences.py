"""Cross-entropy and divergences of predictions, over chunks of rows.

With a large vocabulary the logits are the largest tensors of a step, and plain autograd holds many more of their size.
Here a chunk of rows is compared at a time, and compared again in the backward pass, so that beside the logits and their
gradient no tensor of their size exists. Each divergence is a function of rows of log-probabilities, in nats.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

#: Entries of a chunk: small enough for a processor's cache, large enough for an accelerator.
CHUNK_ENTRIES: Final = {"cpu": 1 << 22, "accelerator": 1 << 24}

#: Log-probabilities of student and teacher, (rows, classes), to the sum over the rows.
Compared = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Divergence:
    """One way to compare two predictions.

    Attributes:
        formula: of a row; p is the teacher's distribution, q the student's.
        source: the paper.
        compare: sums it over rows.
        slope: of the sum, by the student's logits before the temperature divides them, at temperature 1; None:
            autograd finds it.
    """

    formula: str
    source: str
    compare: Callable[..., Tensor]
    slope: Callable[[Tensor, Tensor], Tensor] | None = None


def forward_kl(log_student: Tensor, log_teacher: Tensor, **_: float) -> Tensor:
    """Sum KL(p || q) over rows; both (rows, classes)."""
    return F.kl_div(log_student, log_teacher, reduction="sum", log_target=True)


def reverse_kl(log_student: Tensor, log_teacher: Tensor, **_: float) -> Tensor:
    """Sum KL(q || p) over rows; both (rows, classes)."""
    return F.kl_div(log_teacher, log_student, reduction="sum", log_target=True)


def jensen_shannon(log_student: Tensor, log_teacher: Tensor, **_: float) -> Tensor:
    """Sum half of KL(p || m) + KL(q || m), m = (p + q) / 2, over rows; at most ln 2 each."""
    middle = _mixed(log_student, log_teacher, 0.5)
    return 0.5 * (forward_kl(middle, log_teacher) + forward_kl(middle, log_student))


def skew_kl(log_student: Tensor, log_teacher: Tensor, *, skew: float, **_: float) -> Tensor:
    """Sum KL(p || a p + (1 - a) q) over rows, a the skew; at most -ln a each."""
    return forward_kl(_mixed(log_teacher, log_student, skew), log_teacher)


def top_k_kl(log_student: Tensor, log_teacher: Tensor, *, top_k: float, **_: float) -> Tensor:
    """Sum KL(p || q) over rows, both renormalised over the k classes that p holds likeliest."""
    kept, places = log_teacher.topk(min(int(top_k), log_teacher.shape[-1]), dim=-1)
    return forward_kl(F.log_softmax(log_student.gather(-1, places), dim=-1), F.log_softmax(kept, dim=-1))


def _forward_slope(log_student: Tensor, log_teacher: Tensor) -> Tensor:
    return log_student.exp().sub_(log_teacher.exp())


def _reverse_slope(log_student: Tensor, log_teacher: Tensor) -> Tensor:
    probability, difference = log_student.exp(), log_student - log_teacher
    mean = (probability * difference).sum(-1, keepdim=True)
    return probability.mul_(difference.sub_(mean))


def _mixed(one: Tensor, other: Tensor, share: float) -> Tensor:
    """Return the log of share x exp(one) + (1 - share) x exp(other)."""
    return torch.logaddexp(one + math.log(share), other + math.log1p(-share))


_HINTON: Final = "Hinton et al. 2015, arXiv 1503.02531"
#: The names of `vocabulary.KL_DIRECTIONS`.
DIVERGENCES: Final[Mapping[str, Divergence]] = {
    "forward": Divergence("KL(p || q)", _HINTON, forward_kl, _forward_slope),
    "reverse": Divergence("KL(q || p)", "Gu et al. 2024 (MiniLLM), arXiv 2306.08543", reverse_kl, _reverse_slope),
    "jensen-shannon": Divergence(
        "KL(p || m) / 2 + KL(q || m) / 2, m = (p + q) / 2",
        "Agarwal et al. 2024 (GKD), arXiv 2306.13649",
        jensen_shannon,
    ),
    "skew": Divergence("KL(p || a p + (1 - a) q)", "Ko et al. 2024 (DistiLLM), arXiv 2402.03898", skew_kl),
    "top-k": Divergence(
        "KL(p || q), both renormalised over the k likeliest classes of p",
        "Peng et al. 2024 (pre-training distillation), arXiv 2410.16215",
        top_k_kl,
    ),
}


def divergence(
    student: Tensor,
    teacher: Tensor,
    index: Tensor,
    *,
    kind: str,
    temperature: float,
    skew: float,
    top_k: int,
    overwrite_teacher: bool = False,
) -> Tensor:
    """Sum T^2 x a divergence at temperature T over the indexed rows, a scalar with a gradient for the student alone.

    Args:
        student: logits, (rows, classes).
        teacher: logits, (rows, classes).
        index: the rows that count, int64, ascending.
        kind: a name in `DIVERGENCES`.
        temperature: T.
        skew: a of "skew", in (0, 1).
        top_k: k of "top-k".
        overwrite_teacher: write the gradient over the teacher's logits where they have the student's shape and type.
    """
    compared = _Compared(DIVERGENCES[kind], temperature, {"skew": skew, "top_k": float(top_k)}, overwrite_teacher)
    return _chunked(student, index, None, teacher, compared)[1]


def chunked_cross_entropy(student: Tensor, index: Tensor, labels: Tensor) -> Tensor:
    """Sum the cross-entropy over the indexed rows, in nats, a scalar.

    Args:
        student: logits, (rows, classes).
        index: the rows that count, int64, ascending.
        labels: of these rows, int64.
    """
    return _chunked(student, index, labels, None, None)[0]


def cross_entropy_and_divergence(
    student: Tensor,
    teacher: Tensor,
    index: Tensor,
    labels: Tensor,
    *,
    kind: str,
    temperature: float,
    skew: float,
    top_k: int,
    overwrite_teacher: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return `chunked_cross_entropy` and `divergence` of the same rows, which share one gradient of the logits.

    Args:
        student: logits, (rows, classes).
        teacher: logits, (rows, the first classes): the divergence is over these.
        index: the rows that count, int64, ascending.
        labels: of these rows, int64.
        kind: as for `divergence`.
        temperature: likewise.
        skew: likewise.
        top_k: likewise.
        overwrite_teacher: likewise.
    """
    compared = _Compared(DIVERGENCES[kind], temperature, {"skew": skew, "top_k": float(top_k)}, overwrite_teacher)
    return _chunked(student, index, labels, teacher, compared)


def one_chunk(device: torch.device) -> int:
    """Return how many entries a chunk has on a device."""
    return CHUNK_ENTRIES["cpu" if device.type == "cpu" else "accelerator"]


@dataclass(frozen=True)
class _Compared:
    """How two predictions are compared."""

    kind: Divergence
    temperature: float
    options: Mapping[str, float]
    overwrite_teacher: bool


def _chunked(
    student: Tensor, index: Tensor, labels: Tensor | None, teacher: Tensor | None, compared: _Compared | None
) -> tuple[Tensor, Tensor]:
    found = _Chunked.apply(student, index, labels, teacher, compared)  # type: ignore[no-untyped-call]
    return cast("tuple[Tensor, Tensor]", found)


class _Chunked(torch.autograd.Function):
    """Compares in the forward pass, and in the backward pass again, where it writes the gradient."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        student: Tensor,
        index: Tensor,
        labels: Tensor | None,
        teacher: Tensor | None,
        compared: _Compared | None,
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(student, index, labels, teacher)
        ctx.compared = compared
        zero = _wide(student[:0]).sum()
        entropies, divergences = [zero], [zero]
        for rows, targets in _chunks(index, labels, student.shape[-1]):
            chosen = _taken(student, rows)
            own = _log_softmax(chosen, 1.0) if targets is not None else None
            if own is not None and targets is not None:
                entropies.append(-own.gather(-1, targets[:, None]).sum())
            if teacher is not None and compared is not None:
                ours, theirs = _both(chosen, own, _taken(teacher, rows), compared.temperature)
                divergences.append(compared.kind.compare(ours, theirs, **compared.options))
        heat = 1.0 if compared is None else compared.temperature**2
        return torch.stack(entropies).sum(), torch.stack(divergences).sum() * heat

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_entropy: Tensor, of_divergence: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        student, index, labels, teacher = ctx.saved_tensors
        compared: _Compared | None = ctx.compared
        slopes = _room(student, index, teacher if compared is not None and compared.overwrite_teacher else None)
        for rows, targets in _chunks(index, labels, student.shape[-1]):
            chosen = _taken(student, rows)
            own = _log_softmax(chosen, 1.0) if targets is not None else None
            slope = None
            if teacher is not None and compared is not None:
                slope = _slope(chosen, own, _taken(teacher, rows), compared).mul_(of_divergence * compared.temperature)
            if own is not None and targets is not None:
                whole = own.exp_()
                whole[torch.arange(len(rows), device=rows.device), targets] -= 1.0
                whole *= of_entropy
                if slope is not None:
                    whole[:, : slope.shape[-1]] += slope
                slope = whole
            if slope is not None:
                slopes[_place(rows)] = slope.to(slopes.dtype)  # behind the last read of these rows
        return slopes, None, None, None, None


def _room(student: Tensor, index: Tensor, teacher: Tensor | None) -> Tensor:
    """Return a tensor for the gradient: the teacher's logits where they may be overwritten and fit.

    A second backward pass then fails, as autograd sees that a saved tensor was changed.
    """
    whole = len(index) == len(student)
    if teacher is None or (teacher.shape, teacher.dtype, teacher.device) != (
        student.shape,
        student.dtype,
        student.device,
    ):
        return torch.empty_like(student) if whole else torch.zeros_like(student)
    if not whole:
        unread = torch.ones(len(student), dtype=torch.bool, device=student.device)
        unread[index] = False
        teacher[unread] = 0.0
    return teacher


def _slope(chosen: Tensor, own: Tensor | None, theirs: Tensor, compared: _Compared) -> Tensor:
    """Return the slope of a divergence's sum by logits that the temperature has divided, a new tensor."""
    ours, log_teacher = _both(chosen, own, theirs, compared.temperature)
    if compared.kind.slope is not None:
        return compared.kind.slope(ours, log_teacher)
    with torch.enable_grad():
        heated = (_wide(chosen[:, : theirs.shape[-1]]) / compared.temperature).requires_grad_()
        total = compared.kind.compare(F.log_softmax(heated, dim=-1), log_teacher, **compared.options)
        (slope,) = torch.autograd.grad(total, heated)
    return slope


def _both(chosen: Tensor, own: Tensor | None, theirs: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Return log-probabilities of both sides at a temperature, over the classes that the teacher has."""
    classes = theirs.shape[-1]
    same = own is not None and temperature == 1.0 and classes == chosen.shape[-1]
    ours = own if same and own is not None else _log_softmax(chosen[:, :classes], temperature)
    return ours, _log_softmax(theirs, temperature)


def _chunks(index: Tensor, labels: Tensor | None, classes: int) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Yield the rows of each chunk and their labels."""
    size = max(1, one_chunk(index.device) // max(classes, 1))
    parts = torch.split(index, size)
    yield from zip(parts, [None] * len(parts) if labels is None else torch.split(labels, size), strict=True)


def _place(rows: Tensor) -> slice | Tensor:
    """Return where rows are: a slice where they follow each other, which is read without a copy.

    An accelerator is not asked, for it would have to be waited for.
    """
    if rows.device.type == "cpu" and len(rows) and int(rows[-1]) - int(rows[0]) + 1 == len(rows):
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return rows


def _taken(logits: Tensor, rows: Tensor) -> Tensor:
    return _wide(logits[_place(rows)])


def _log_softmax(logits: Tensor, temperature: float) -> Tensor:
    return F.log_softmax(logits if temperature == 1.0 else logits / temperature, dim=-1)


def _wide(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()
