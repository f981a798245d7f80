"""Pure, masked losses of distillation: cross-entropy, KL and hidden-state distances.

Every loss is returned as a `LossTerm`: a sum and the number of items summed. The trainer divides the sums by the counts
of everything that one optimiser step sees, so the value does not depend on padding, on how the batch was split or on
gradient accumulation. Only tensors enter and leave. Items that a mask excludes are never read, so that NaN or infinity
there reaches neither a value nor a gradient.

The paper's own normalisations (`reading="official"`) are in `official`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from anglekit.distillation.losses.attention_relations import (
    AttentionPairs,
    attention_and_value_relations,
    self_attention_relations,
)
from anglekit.distillation.losses.divergences import (
    DIVERGENCES,
    chunked_cross_entropy,
    cross_entropy_and_divergence,
    divergence,
    one_chunk,
)
from anglekit.distillation.losses.head_logits import HeadLogits, Logits, made
from anglekit.distillation.losses.relations import RELATIONS, precise, relation
from anglekit.distillation.losses.weights import LossWeights
from anglekit.errors import InputError, suggest
from anglekit.vocabulary import ATTENTION_LOSSES, ATTENTION_MAPS, HIDDEN_LOSS_NAMES, KL_DIRECTIONS, WIDTH_FREE_LOSSES

#: For each matched student layer its state after the adapter and the teacher's, both (batch, time, D).
StatePairs = Sequence[tuple[Tensor, Tensor]]

IGNORE_INDEX: Final = -100
_LAYER_NORM_EPS: Final = 1e-5


@dataclass(frozen=True, eq=False)
class LossTerm:
    """A sum of per-item losses and how many items were summed; adding two terms pools their items.

    Attributes:
        total: scalar tensor, differentiable.
        count: scalar tensor without gradient; 0 where nothing was valid, and then `total` is 0.
    """

    total: Tensor
    count: Tensor

    def __add__(self, other: LossTerm) -> LossTerm:
        """Pool the items of two batches."""
        return LossTerm(self.total + other.total, self.count + other.count)

    def mean(self, count: Tensor | float | None = None) -> Tensor:
        """Return the mean per item; 0 where nothing was valid.

        Args:
            count: divide by this instead of the term's own count: the items of the whole accumulated batch, so that
                the gradients of its parts add up to the gradient of the whole.
        """
        divisor = self.count if count is None else torch.as_tensor(count, device=self.total.device)
        return self.total / divisor.to(self.total.dtype).clamp_min(1.0)


def weighted_total(means: Mapping[str, Tensor], weights: LossWeights | None = None) -> Tensor:
    """Return the training loss: the weighted sum of the terms' means.

    Args:
        means: scalars by name: "ce", "kl", "hidden_encoder", "hidden_decoder".
        weights: the paper's 1, 1, 3 when absent.
    """
    if not means:
        raise InputError("no loss term to add up", "give at least one of ce, kl, hidden")
    weights = weights or LossWeights()
    return torch.stack([weights.of(name) * mean for name, mean in means.items()]).sum()


def valid_positions(mask: Tensor | None, shape: Sequence[int], device: torch.device) -> Tensor:
    """Return the flat indices, int64 and ascending, of the items that count.

    Args:
        mask: any dtype, nonzero where an item counts; None counts all.
        shape: the leading shape that the mask must have, such as (batch, time).
        device: where the indices are needed.
    """
    if mask is None:
        return torch.arange(math.prod(shape), device=device)
    _check_mask(mask, shape)
    return mask.reshape(-1).nonzero().squeeze(-1).to(device)


def mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Return (1/D) |s - t|^2 per token; both (tokens, D), the result (tokens,)."""
    return (student - teacher).square().mean(-1)


def normalized_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Return |s/|s| - t/|t||^2 per token, in [0, 4]; both (tokens, D), the result (tokens,).

    Summed over the width, as in Sun et al. 2019 (Patient Knowledge Distillation, eq. 7). It equals twice the
    cosine distance. A zero vector stays zero and gets no gradient.
    """
    return (_unit(student) - _unit(teacher)).square().sum(-1)


def cosine_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Return 1 - cos(s, t) per token, in [0, 2]; (tokens, D) to (tokens,). A zero vector has cosine 0."""
    return 1.0 - (_unit(student) * _unit(teacher)).sum(-1)


def layer_norm_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean squared error of s and t after layer normalisation over the width.

    Each token is centred and divided by sqrt(variance + 1e-5), without gain or bias; (tokens, D) to (tokens,).
    """
    width = (student.shape[-1],)
    return mse(F.layer_norm(student, width, eps=_LAYER_NORM_EPS), F.layer_norm(teacher, width, eps=_LAYER_NORM_EPS))


#: The hidden losses that are a distance of each token's own states.
HIDDEN_LOSSES: Final[Mapping[str, Callable[[Tensor, Tensor], Tensor]]] = {
    "mse": mse,
    "normalized-mse": normalized_mse,
    "cosine": cosine_distance,
    "layer-norm-mse": layer_norm_mse,
}


def hidden_loss(pairs: StatePairs, mask: Tensor | None, *, kind: str = "mse") -> LossTerm:
    """Sum a hidden loss over matched layers and valid tokens of one stream.

    L = sum over tokens x, layers j of d(W S_j(x), T_m(j)(x)); the mean divides by the number of valid tokens only, so
    that the layers add up as in the paper's equation 1. A loss of `relations.RELATIONS` is one number for a batch and
    layer; it counts as that number at every token, so that an accumulated batch averages it by tokens.

    "feature-dynamics" adds to the mean squared error that of the differences between one matched layer and the next,
    S_j - S_(j-1) against T_m(j) - T_m(j-1) (Gong et al. 2025, aclanthology.org/2025.acl-long.1125).

    Args:
        pairs: for each matched student layer its state after the adapter and the teacher's, both (batch, time, D); the
            widths may differ for `vocabulary.WIDTH_FREE_LOSSES`. Without any the loss is 0.
        mask: (batch, time), nonzero at real tokens; None counts every position.
        kind: a name in `vocabulary.HIDDEN_LOSS_NAMES` but those of attention, which `attention_loss` takes.

    Returns:
        The term; its count is the number of valid tokens, whatever the number of layers.

    Raises:
        InputError: an unknown kind, or shapes that do not agree.
    """
    if kind not in HIDDEN_LOSS_NAMES:
        raise InputError(f"no hidden loss {kind!r}", allowed=suggest(kind, HIDDEN_LOSS_NAMES))
    if kind in ATTENTION_LOSSES:
        raise InputError(
            f"hidden loss {kind!r} compares queries, keys and values, and states came",
            "give them to attention_loss, or train with DistillationLoss, which reads them",
        )
    if not pairs:
        count = torch.zeros(()) if mask is None else (mask != 0).sum()
        return LossTerm(torch.zeros((), device=count.device), count)
    check_pairs(pairs, one_width=kind not in WIDTH_FREE_LOSSES)
    first = pairs[0][0]
    if mask is not None:
        _check_mask(mask, first.shape[:2])
    if kind in ("mse", "feature-dynamics", *RELATIONS):
        keep = None if mask is None else (mask != 0).to(first.device)
        count = torch.tensor(math.prod(first.shape[:2]), device=first.device) if keep is None else keep.sum()
        if kind in RELATIONS:
            values = [relation(kind, student, teacher, keep) for student, teacher in pairs]
            return LossTerm(torch.stack(values).sum() * count, count)
        compared = [(precise(student), precise(teacher)) for student, teacher in pairs]
        if kind == "feature-dynamics":
            compared += [(s - below_s, t - below_t) for (below_s, below_t), (s, t) in pairwise(compared)]
        squares = [_masked_squares(student, teacher, keep) for student, teacher in compared]
        return LossTerm(torch.stack(squares).sum() / first.shape[-1], count)
    index = valid_positions(mask, first.shape[:2], first.device)
    distance = HIDDEN_LOSSES[kind]
    sums = [distance(_rows(student, index), _rows(teacher, index)).sum() for student, teacher in pairs]
    return LossTerm(torch.stack(sums).sum(), _count(index))


def attention_loss(
    pairs: AttentionPairs, mask: Tensor | None, *, kind: str = "minilm-v2", relation_heads: int | None = None
) -> LossTerm:
    """Sum a loss of self-attention relations over matched layers and valid tokens of one stream.

    Args:
        pairs: for each matched student layer what its attention makes, and the teacher's.
        mask: (batch, time), nonzero at real tokens; None counts every position.
        kind: "minilm-v2" (`self_attention_relations`), or "minilm" (`attention_and_value_relations`), which needs maps.
        relation_heads: of "minilm-v2"; must divide the widths of queries, keys and values of both sides. None: the most
            that does and divides the teacher's heads.

    Returns:
        The term; its count is the number of valid tokens, whatever the number of layers.

    Raises:
        InputError: an unknown kind, no pairs, relation heads that do not divide a width, or shapes that do not agree.
    """
    if kind not in ATTENTION_LOSSES:
        raise InputError(f"no loss of attention {kind!r}", allowed=suggest(kind, ATTENTION_LOSSES))
    if not pairs:
        raise InputError("no matched layers came", "give at least one pair")
    if kind == ATTENTION_MAPS:
        return LossTerm(*attention_and_value_relations(pairs, mask))
    return LossTerm(*self_attention_relations(pairs, mask, relation_heads=relation_heads))


def _masked_squares(student: Tensor, teacher: Tensor, keep: Tensor | None) -> Tensor:
    return cast("Tensor", _MaskedSquares.apply(student, teacher, keep))  # type: ignore[no-untyped-call]


class _MaskedSquares(torch.autograd.Function):
    """Sum of (s - t)^2 over the tokens where `keep`, (batch, time), is true, with one stored difference.

    The default hidden loss is bound by memory traffic: plain autograd copies the valid rows of both sides and scatters
    their gradients back, which takes about four times as long.
    """

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, keep: Tensor | None) -> Tensor:  # noqa: ANN401
        difference = student - teacher
        if keep is not None:
            difference = torch.where(keep[..., None], difference, 0.0)
        ctx.save_for_backward(difference)
        lengths: Tensor = torch.linalg.vector_norm(difference, dim=-1)
        return lengths.square().sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:  # noqa: ANN401
        (difference,) = ctx.saved_tensors
        slope = difference * (2.0 * gradient)
        student, teacher, _ = ctx.needs_input_grad
        return slope if student else None, -slope if teacher else None, None


def cross_entropy(
    logits: Logits, labels: Tensor, *, label_smoothing: float = 0.0, class_weights: Tensor | None = None
) -> LossTerm:
    """Sum the cross-entropy over labels other than -100.

    Logits of more than `divergences.CHUNK_ENTRIES` entries are read in chunks, so that beside them and their gradient
    no tensor of their size is held; not so with label smoothing or class weights.

    Args:
        logits: (..., classes): (batch, classes) for classification, (batch, time, vocabulary) for tokens; also those
            that a head has not made yet. Causal models predict the next token: pass both through `next_token_targets`
            first.
        labels: int64 (...); -100 is ignored.
        label_smoothing: the share of each target that is spread over all classes, in [0, 1).
        class_weights: (classes,), what an item of each class counts; None: 1. The count is then the sum of the items'
            weights, as in torch's own mean.

    Raises:
        InputError: shapes that do not agree.
    """
    if tuple(labels.shape) != tuple(logits.shape[:-1]):
        raise InputError(
            f"labels have shape {tuple(labels.shape)}", f"logits {tuple(logits.shape)} need one label a row"
        )
    # Ignored rows are left out rather than handed to `ignore_index`: NaN logits there would reach the gradient.
    index = valid_positions(labels != IGNORE_INDEX, labels.shape, logits.device)
    targets = labels.reshape(-1)[index]
    if class_weights is None and not label_smoothing and logits.numel() > one_chunk(logits.device):
        return LossTerm(chunked_cross_entropy(logits, index, targets), _count(index))
    rows = _rows(made(logits), index)
    if class_weights is None:
        return LossTerm(F.cross_entropy(rows, targets, reduction="sum", label_smoothing=label_smoothing), _count(index))
    weights = class_weights.to(rows)
    total = F.cross_entropy(rows, targets, weights, reduction="sum", label_smoothing=label_smoothing)
    return LossTerm(total, weights[targets].sum())


def kl_divergence(
    student_logits: Logits,
    teacher_logits: Logits,
    mask: Tensor | None = None,
    *,
    temperature: float = 1.0,
    direction: str = "forward",
    shared_entries: int | None = None,
    skew: float = 0.1,
    top_k: int = 100,
    overwrite_teacher: bool = False,
) -> LossTerm:
    """Sum T^2 KL between the two softmax distributions at temperature T over valid rows, in nats.

    Hinton et al. 2015: the factor T^2 keeps the size of the gradient as T changes. What is returned is no tensor but a
    `LossTerm`, the sum over the rows and their count: `.mean()` is the loss to call `backward` on. Rows are compared in
    chunks, so that beside the logits and their gradient no tensor of their size is held.

    Args:
        student_logits: (..., classes), finite at valid rows; on both sides also those that a head has not made yet.
        teacher_logits: the same shape; with `shared_entries` the last dimensions may differ. Gets no gradient where the
            student's logits have more than `divergences.CHUNK_ENTRIES` entries, or the direction is a mixture's.
        mask: (...), nonzero at rows that count; None counts all.
        temperature: T > 0.
        direction: "forward" is KL(teacher || student), "reverse" KL(student || teacher); "jensen-shannon", "skew" and
            "top-k" are as in `divergences.DIVERGENCES`.
        shared_entries: the KL is over the first so many classes, each side renormalised over them: the token ids that
            mean the same in two vocabularies (`anglekit.shared_vocabulary`). None: over all. The logits are not copied.
        skew: the teacher's share of the mixture of "skew", in (0, 1).
        top_k: how many of the teacher's likeliest classes "top-k" compares; at least 1.
        overwrite_teacher: the backward pass may write its gradient over the teacher's logits, which nobody reads then:
            a tensor of that size less.

    Raises:
        InputError: an unknown direction, a temperature not above 0, more shared entries than there are classes, or
            shapes that do not agree.

    Example:
        >>> mask = labels != -100
        >>> kl_divergence(student_logits, teacher_logits, mask, temperature=2.0).mean().backward()
    """
    _check_comparison(direction, temperature, skew, top_k)
    student_logits, teacher_logits = shared_logits(student_logits, teacher_logits, shared_entries)
    index = valid_positions(mask, student_logits.shape[:-1], student_logits.device)
    # In one chunk plain autograd is as small, and faster by the softmax that it need not repeat.
    if direction in ("forward", "reverse") and student_logits.numel() <= one_chunk(student_logits.device):
        student, teacher = _rows(made(student_logits), index), _rows(made(teacher_logits), index)
        if temperature != 1.0:  # dividing by 1 changes nothing and costs a vocabulary's width of memory, there and back
            student, teacher = student / temperature, teacher / temperature
        compare = DIVERGENCES[direction].compare
        total = compare(F.log_softmax(student, dim=-1), F.log_softmax(teacher, dim=-1)) * temperature**2
    else:
        total = divergence(
            student_logits,
            teacher_logits,
            index,
            kind=direction,
            temperature=temperature,
            skew=skew,
            top_k=top_k,
            overwrite_teacher=overwrite_teacher,
        )
    return LossTerm(total, _count(index))


def cross_entropy_and_kl(
    student_logits: Logits,
    teacher_logits: Logits,
    labels: Tensor,
    *,
    temperature: float = 1.0,
    direction: str = "forward",
    shared_entries: int | None = None,
    skew: float = 0.1,
    top_k: int = 100,
    overwrite_teacher: bool = False,
    shares: tuple[float, float] | None = None,
) -> tuple[LossTerm, LossTerm]:
    """Return `cross_entropy` and `kl_divergence` over the labelled rows, with the memory of one of them.

    Apart, each makes a gradient as large as the logits, and both are held at once; here they are one. It is the way to
    train on large vocabularies.

    Args:
        student_logits: (..., classes).
        teacher_logits: the same shape; with `shared_entries` the last dimensions may differ. Gets no gradient.
        labels: int64 (...); rows of label -100 are read by neither.
        temperature: as that of `kl_divergence`, as are the other options.
        direction: likewise.
        shared_entries: likewise.
        skew: likewise.
        top_k: likewise.
        overwrite_teacher: likewise.
        shares: the weights with which the two means will be added up, where they are known: that saves time where the
            logits are not made yet, and changes nothing else.

    Raises:
        InputError: as those two.
    """
    _check_comparison(direction, temperature, skew, top_k)
    if tuple(labels.shape) != tuple(student_logits.shape[:-1]):
        raise InputError(
            f"labels have shape {tuple(labels.shape)}",
            f"logits {tuple(student_logits.shape)} need one label a row",
        )
    _, theirs = shared_logits(student_logits, teacher_logits, shared_entries)
    index = valid_positions(labels != IGNORE_INDEX, labels.shape, student_logits.device)
    entropy, kl = cross_entropy_and_divergence(
        student_logits,
        theirs,
        index,
        labels.reshape(-1)[index],
        kind=direction,
        temperature=temperature,
        skew=skew,
        top_k=top_k,
        overwrite_teacher=overwrite_teacher,
        shares=shares,
    )
    return LossTerm(entropy, _count(index)), LossTerm(kl, _count(index))


def _check_comparison(direction: str, temperature: float, skew: float, top_k: int) -> None:
    if direction not in KL_DIRECTIONS:
        raise InputError(f"no KL direction {direction!r}", allowed=suggest(direction, KL_DIRECTIONS))
    if not 0.0 < temperature < float("inf"):
        raise InputError(f"the temperature is {temperature}", allowed="allowed: a finite number above 0")
    if not 0.0 < skew < 1.0:
        raise InputError(f"the skew is {skew}", allowed="allowed: above 0 and below 1")
    if top_k < 1:
        raise InputError(f"top_k is {top_k}", allowed="allowed: at least 1")


def shared_logits(student: Logits, teacher: Logits, shared_entries: int | None) -> tuple[Logits, Logits]:
    """Return views of both sides' logits, (..., classes), that end behind the shared classes.

    Raises:
        InputError: there are not so many classes, or shapes that do not agree.
    """
    shapes = f"student logits have shape {tuple(student.shape)}, the teacher's {tuple(teacher.shape)}"
    if student.shape[:-1] != teacher.shape[:-1]:
        raise InputError(shapes, "both need the same batch and length")
    if shared_entries is None:
        if student.shape != teacher.shape:
            raise InputError(
                shapes, "both need the same classes, or shared_entries: how many at the beginning mean the same"
            )
        return student, teacher
    least = min(student.shape[-1], teacher.shape[-1])
    if not 1 <= shared_entries <= least:
        raise InputError(f"shared_entries is {shared_entries} and {shapes}", allowed=f"allowed: 1 to {least}")
    return _first(student, shared_entries), _first(teacher, shared_entries)


def _first(logits: Logits, classes: int) -> Logits:
    return logits.first(classes) if isinstance(logits, HeadLogits) else logits[..., :classes]


def next_token_targets(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Align a causal model's logits with the token that each position predicts.

    Args:
        logits: (batch, time, vocabulary).
        labels: (batch, time), as given to the model, -100 where ignored.

    Returns:
        Logits without the last position and labels without the first.
    """
    return logits[:, :-1], labels[:, 1:]


def next_token_labels(labels: Tensor) -> Tensor:
    """Return for each position the label of the next one, -100 at the last; int64 (batch, time).

    Unlike `next_token_targets` it leaves the logits whole: cutting off their last position would copy them, the largest
    tensor of a step.
    """
    return F.pad(labels[:, 1:], (0, 1), value=IGNORE_INDEX)


def check_pairs(pairs: StatePairs, *, one_width: bool = True) -> None:
    """Check that all matched states share one (batch, time, width), or one (batch, time) where widths may differ.

    Raises:
        InputError: naming the two shapes that differ.
    """
    shape = pairs[0][1].shape
    for student, teacher in pairs:
        for role, state in (("student", student), ("teacher", teacher)):
            agrees = state.shape == shape if one_width else state.shape[:2] == shape[:2]
            if not agrees or state.dim() != 3:
                raise InputError(
                    f"a {role} state has shape {tuple(state.shape)} beside {tuple(shape)}",
                    "matched states need one (batch, time, width): use an adapter where the widths differ",
                )


def _rows(values: Tensor, index: Tensor) -> Tensor:
    """Return the indexed rows of all but the last dimension, in at least float32."""
    flat = values.reshape(-1, values.shape[-1])
    rows = flat if index.numel() == flat.shape[0] else flat.index_select(0, index)
    return precise(rows)


def _check_mask(mask: Tensor, shape: Sequence[int]) -> None:
    if tuple(mask.shape) != tuple(shape):
        raise InputError(f"the mask has shape {tuple(mask.shape)}", f"the states it masks need {tuple(shape)}")


def _unit(vectors: Tensor) -> Tensor:
    """Divide by the length; a zero vector stays zero, with a zero gradient instead of an infinite one."""
    length = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return vectors / torch.where(length > 0, length, torch.inf)


def _count(index: Tensor) -> Tensor:
    return torch.tensor(index.numel(), device=index.device)
