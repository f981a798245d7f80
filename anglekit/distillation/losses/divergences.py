"""Divergences between a student's and a teacher's predictions, over chunks of rows.

With a large vocabulary the logits are the largest tensors of a step, and plain autograd holds five more of their size.
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
    student: Tensor, teacher: Tensor, index: Tensor, *, kind: str, temperature: float, skew: float, top_k: int
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
    """
    options = {"skew": skew, "top_k": float(top_k)}
    found = _Chunked.apply(student, teacher, index, DIVERGENCES[kind], temperature, options)  # type: ignore[no-untyped-call]
    return cast("Tensor", found)


def one_chunk(device: torch.device) -> int:
    """Return how many entries a chunk has on a device."""
    return CHUNK_ENTRIES["cpu" if device.type == "cpu" else "accelerator"]


def _chunks(index: Tensor, classes: int) -> Iterator[Tensor]:
    yield from torch.split(index, max(1, one_chunk(index.device) // max(classes, 1)))


class _Chunked(torch.autograd.Function):
    """Compares in the forward pass, and in the backward pass again, where it writes the gradient."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        student: Tensor,
        teacher: Tensor,
        index: Tensor,
        kind: Divergence,
        temperature: float,
        options: Mapping[str, float],
    ) -> Tensor:
        ctx.save_for_backward(student, teacher, index)
        ctx.kind, ctx.temperature, ctx.options = kind, temperature, options
        sums = [
            kind.compare(_log_softmax(student, rows, temperature), _log_softmax(teacher, rows, temperature), **options)
            for rows in _chunks(index, student.shape[-1])
        ]
        total = torch.stack(sums).sum() if sums else _wide(student[:0]).sum()
        return total * temperature**2

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        student, teacher, index = ctx.saved_tensors
        kind: Divergence = ctx.kind
        temperature: float = ctx.temperature
        whole = len(index) == len(student)
        slopes = torch.empty_like(student) if whole else torch.zeros_like(student)
        scale = gradient * temperature
        for rows in _chunks(index, student.shape[-1]):
            log_teacher = _log_softmax(teacher, rows, temperature)
            if kind.slope is not None:
                slope = kind.slope(_log_softmax(student, rows, temperature), log_teacher)
            else:
                with torch.enable_grad():
                    heated = (_wide(student.index_select(0, rows)) / temperature).requires_grad_()
                    compared = kind.compare(F.log_softmax(heated, dim=-1), log_teacher, **ctx.options)
                    (slope,) = torch.autograd.grad(compared, heated)
            slopes.index_copy_(0, rows, slope.mul_(scale).to(slopes.dtype))
        return slopes, None, None, None, None, None


def _log_softmax(logits: Tensor, rows: Tensor, temperature: float) -> Tensor:
    chosen = _wide(logits.index_select(0, rows))
    return F.log_softmax(chosen if temperature == 1.0 else chosen / temperature, dim=-1)


def _wide(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()
