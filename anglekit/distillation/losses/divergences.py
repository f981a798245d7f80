"""Cross-entropy and divergences of predictions, over chunks of rows.

With a large vocabulary the logits are the largest tensors of a step, and plain autograd holds many more of their size.
Here a chunk of rows is compared at a time, and compared again in the backward pass, so that beside the logits and their
gradient no tensor of their size exists. Logits that are not made yet (`HeadLogits`) are made chunk by chunk as well;
then not even these two exist. Each divergence is a function of rows of log-probabilities, in nats.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from anglekit.distillation.losses.head_logits import HeadLogits, Logits

#: Entries of a chunk: small enough for a processor's cache, large enough for an accelerator.
CHUNK_ENTRIES: Final = {"cpu": 1 << 22, "accelerator": 1 << 24}
#: Entries of a chunk that a head makes: products with a head are slow in few rows. Blocks of more than 32 MiB go back
#: to the system when they are freed, while glibc keeps hundreds of MiB of smaller ones.
HEAD_CHUNK_ENTRIES: Final = 1 << 24

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
    student: Logits,
    teacher: Logits,
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
        student: logits, (..., classes).
        teacher: logits, (..., classes).
        index: the rows that count, int64, ascending.
        kind: a name in `DIVERGENCES`.
        temperature: T.
        skew: a of "skew", in (0, 1).
        top_k: k of "top-k".
        overwrite_teacher: write the gradient over the teacher's logits where they have the student's shape and type.
    """
    compared = _Compared(DIVERGENCES[kind], temperature, {"skew": skew, "top_k": float(top_k)}, overwrite_teacher)
    return _chunked(student, index, None, teacher, compared, (0.0, 1.0))[1]


def chunked_cross_entropy(student: Logits, index: Tensor, labels: Tensor) -> Tensor:
    """Sum the cross-entropy over the indexed rows, in nats, a scalar.

    Args:
        student: logits, (..., classes).
        index: the rows that count, int64, ascending.
        labels: of these rows, int64.
    """
    return _chunked(student, index, labels, None, None, (1.0, 0.0))[0]


def cross_entropy_and_divergence(
    student: Logits,
    teacher: Logits,
    index: Tensor,
    labels: Tensor,
    *,
    kind: str,
    temperature: float,
    skew: float,
    top_k: int,
    overwrite_teacher: bool = False,
    shares: tuple[float, float] | None = None,
) -> tuple[Tensor, Tensor]:
    """Return `chunked_cross_entropy` and `divergence` of the same rows, which share one gradient of the logits.

    Args:
        student: logits, (..., classes).
        teacher: logits, (..., the first classes): the divergence is over these.
        index: the rows that count, int64, ascending.
        labels: of these rows, int64.
        kind: as for `divergence`.
        temperature: likewise.
        skew: likewise.
        top_k: likewise.
        overwrite_teacher: likewise.
        shares: the proportion in which the backward pass will want the two, where it is known: through a head that
            saves making the logits again.
    """
    compared = _Compared(DIVERGENCES[kind], temperature, {"skew": skew, "top_k": float(top_k)}, overwrite_teacher)
    return _chunked(student, index, labels, teacher, compared, shares)


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
    student: Logits,
    index: Tensor,
    labels: Tensor | None,
    teacher: Logits | None,
    compared: _Compared | None,
    shares: tuple[float, float] | None,
) -> tuple[Tensor, Tensor]:
    taught = (None, None, None) if teacher is None else _source(teacher)
    found = _Chunked.apply(index, labels, compared, shares, *_source(student), *taught)  # type: ignore[no-untyped-call]
    return cast("tuple[Tensor, Tensor]", found)


def _source(logits: Logits) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return what logits are made of: the rows themselves, or those that enter a head, its weight and its bias."""
    if isinstance(logits, HeadLogits):
        return logits.states.reshape(-1, logits.states.shape[-1]), logits.weight, logits.bias
    return logits.reshape(-1, logits.shape[-1]), None, None


class _Chunked(torch.autograd.Function):
    """Compares in the forward pass, and in the backward pass again, where it writes the gradient.

    Through a head that would make all logits twice. There the gradient is made in the forward pass, as far as it is
    known before: `shares` say in which proportion the two sums will be wanted. Where that turns out otherwise, it is
    made again.
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        index: Tensor,
        labels: Tensor | None,
        compared: _Compared | None,
        shares: tuple[float, float] | None,
        *sources: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        student, teacher = _Rows.pair(sources)
        ctx.save_for_backward(index, labels, *sources)
        ctx.compared, ctx.shares, ctx.ready = compared, shares, None
        needed = ctx.needs_input_grad[4:7]
        ready = None if shares is None or student.weight is None or not any(needed) else _HeadGradient(student, needed)
        zero = _wide(student.values[:0]).sum()
        entropies, divergences = [zero], [zero]
        for rows, targets in _chunks(index, labels, student):
            own, pair = _log_probabilities(rows, targets, student, teacher, compared)
            if own is not None and targets is not None:
                entropies.append(-own.gather(-1, targets[:, None]).sum())
            if pair is not None and compared is not None:
                divergences.append(compared.kind.compare(*pair, **compared.options))
            if ready is not None and shares is not None:
                ready.add(rows, _slope(targets, own, pair, compared, shares))
        ctx.ready = ready
        heat = 1.0 if compared is None else compared.temperature**2
        return torch.stack(entropies).sum(), torch.stack(divergences).sum() * heat

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_entropy: Tensor, of_divergence: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        index, labels, *sources = ctx.saved_tensors
        student, teacher = _Rows.pair(sources)
        compared: _Compared | None = ctx.compared
        ready: _HeadGradient | None = ctx.ready
        ctx.ready = None  # it is scaled in place, so a second backward pass makes it anew
        if ready is not None and (scale := _proportion(ctx.shares, of_entropy, of_divergence)) is not None:
            return None, None, None, None, *ready.found(scale), None, None, None
        gradient: _HeadGradient | _LogitsGradient
        if student.weight is None:
            overwritten = teacher if compared is not None and compared.overwrite_teacher else None
            spare = None if overwritten is None or overwritten.weight is not None else overwritten.values
            gradient = _LogitsGradient(_room(student.values, index, spare))
        else:
            gradient = _HeadGradient(student, ctx.needs_input_grad[4:7])
        for rows, targets in _chunks(index, labels, student):
            own, pair = _log_probabilities(rows, targets, student, teacher, compared)
            # Written behind the last read of these rows.
            gradient.add(rows, _slope(targets, own, pair, compared, (of_entropy, of_divergence)))
        return None, None, None, None, *gradient.found(), None, None, None


def _proportion(shares: tuple[float, float], of_entropy: Tensor, of_divergence: Tensor) -> float | None:
    """Return by what a gradient made for `shares` is multiplied; None where other shares are wanted."""
    wanted = float(of_entropy), float(of_divergence)
    scale = wanted[0] / shares[0] if shares[0] else wanted[1] / shares[1]
    agree = all(math.isclose(scale * share, want, rel_tol=1e-6) for share, want in zip(shares, wanted, strict=True))
    return scale if agree else None


def _log_probabilities(
    rows: Tensor, targets: Tensor | None, student: _Rows, teacher: _Rows | None, compared: _Compared | None
) -> tuple[Tensor | None, tuple[Tensor, Tensor] | None]:
    """Return the student's for the cross-entropy, and those of both for the divergence; None for what is not asked."""
    chosen = student.logits(rows)
    own = _log_softmax(chosen, 1.0) if targets is not None else None
    if teacher is None or compared is None:
        return own, None
    return own, _both(chosen, own, teacher.logits(rows), compared.temperature)


def _slope(
    targets: Tensor | None,
    own: Tensor | None,
    pair: tuple[Tensor, Tensor] | None,
    compared: _Compared | None,
    shares: tuple[Tensor | float, Tensor | float],
) -> Tensor:
    """Return the slope of the weighted sum by the student's logits; the log-probabilities are written over."""
    slope = None
    if pair is not None and compared is not None:
        slope = _divergence_slope(*pair, compared).mul_(shares[1] * compared.temperature)
    if own is None or targets is None:
        assert slope is not None
        return slope
    whole = own.exp_()
    whole[torch.arange(len(targets), device=targets.device), targets] -= 1.0
    whole *= shares[0]
    if slope is not None:
        whole[:, : slope.shape[-1]] += slope
    return whole


@dataclass(frozen=True, eq=False)
class _Rows:
    """Rows of logits, or what a head makes them of."""

    values: Tensor
    weight: Tensor | None
    bias: Tensor | None

    @classmethod
    def pair(cls, sources: Sequence[Tensor | None]) -> tuple[_Rows, _Rows | None]:
        """Return the student's and the teacher's, who may have none."""
        student, *own, teacher, weight, bias = sources
        assert student is not None
        return cls(student, *own), None if teacher is None else cls(teacher, weight, bias)

    @property
    def classes(self) -> int:
        return self.values.shape[-1] if self.weight is None else len(self.weight)

    def logits(self, rows: Tensor) -> Tensor:
        taken = self.values[_place(rows)]
        return _wide(taken if self.weight is None else F.linear(taken, self.weight, self.bias))


class _LogitsGradient:
    """The gradient of logits that were made."""

    def __init__(self, room: Tensor) -> None:
        self._room = room

    def add(self, rows: Tensor, slope: Tensor) -> None:
        self._room[_place(rows)] = slope.to(self._room.dtype)

    def found(self) -> tuple[Tensor, None, None]:
        return self._room, None, None


class _HeadGradient:
    """The gradients of what enters a head, of its weight and of its bias; sums over rows are held in float32."""

    def __init__(self, student: _Rows, needed: Sequence[bool]) -> None:
        assert student.weight is not None
        self._rows, self._weight = student, student.weight
        wide = torch.promote_types(student.weight.dtype, torch.float32)
        self._of_states = torch.zeros_like(student.values) if needed[0] else None
        self._of_weight = torch.zeros_like(student.weight, dtype=wide) if needed[1] else None
        bias = student.bias
        self._of_bias = torch.zeros_like(bias, dtype=wide) if bias is not None and needed[2] else None

    def add(self, rows: Tensor, slope: Tensor) -> None:
        place = _place(rows)
        if self._of_bias is not None:
            self._of_bias += slope.sum(0)
        if self._of_weight is not None:
            self._of_weight.addmm_(slope.T, self._rows.values[place].to(slope.dtype))
        if self._of_states is not None:
            self._of_states[place] = slope.to(self._weight.dtype) @ self._weight

    def found(self, scale: float = 1.0) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        for made in (self._of_states, self._of_weight, self._of_bias):
            if made is not None and scale != 1.0:
                made *= scale
        of_weight, of_bias = (
            None if made is None or like is None else made.to(like.dtype)
            for made, like in ((self._of_weight, self._weight), (self._of_bias, self._rows.bias))
        )
        return self._of_states, of_weight, of_bias


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


def _divergence_slope(ours: Tensor, theirs: Tensor, compared: _Compared) -> Tensor:
    """Return the slope of a divergence's sum by logits that the temperature has divided, a new tensor."""
    if compared.kind.slope is not None:
        return compared.kind.slope(ours, theirs)
    with torch.enable_grad():
        # Log-probabilities stand for the logits: the two differ by a constant of each row.
        heated = ours.detach().requires_grad_()
        total = compared.kind.compare(F.log_softmax(heated, dim=-1), theirs, **compared.options)
        (slope,) = torch.autograd.grad(total, heated)
    return slope


def _both(chosen: Tensor, own: Tensor | None, theirs: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Return log-probabilities of both sides at a temperature, over the classes that the teacher has."""
    classes = theirs.shape[-1]
    same = own is not None and temperature == 1.0 and classes == chosen.shape[-1]
    ours = own if same and own is not None else _log_softmax(chosen[:, :classes], temperature)
    return ours, _log_softmax(theirs, temperature)


def _chunks(index: Tensor, labels: Tensor | None, student: _Rows) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Yield the rows of each chunk and their labels."""
    entries = one_chunk(index.device) if student.weight is None else HEAD_CHUNK_ENTRIES
    size = max(1, entries // max(student.classes, 1))
    parts = torch.split(index, size)
    yield from zip(parts, [None] * len(parts) if labels is None else torch.split(labels, size), strict=True)


def _place(rows: Tensor) -> slice | Tensor:
    """Return where rows are: a slice where they follow each other, which is read without a copy.

    An accelerator is not asked, for it would have to be waited for.
    """
    if rows.device.type == "cpu" and len(rows) and int(rows[-1]) - int(rows[0]) + 1 == len(rows):
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return rows


def _log_softmax(logits: Tensor, temperature: float) -> Tensor:
    return F.log_softmax(logits if temperature == 1.0 else logits / temperature, dim=-1)


def _wide(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()
