"""Losses of heads whose labels are no single class: several labels an example, or a number.

As in `functional`, each is a `LossTerm`: a sum and the number of items summed, whose mean is the loss. With no
smoothing and no weights the means are those that transformers computes for such heads.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from anglekit.distillation.losses.functional import LossTerm, kl_divergence
from anglekit.distillation.losses.relations import precise
from anglekit.errors import InputError


def binary_cross_entropy(
    logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0, positive_weights: Tensor | None = None
) -> LossTerm:
    """Sum over examples the mean binary cross-entropy of their labels, in nats.

    Args:
        logits: (examples, labels).
        labels: the same shape, 1 where an example has the label and 0 where not.
        label_smoothing: e in [0, 1): labels are moved to 1 - e / 2 and e / 2.
        positive_weights: (labels,), what a label that is there counts against one that is not; None: 1.

    Returns:
        The term; its count is the number of examples.

    Raises:
        InputError: shapes that do not agree.
    """
    _check_same(logits, labels, "labels")
    rows = precise(logits)
    targets = labels.to(rows)
    if label_smoothing:
        targets = targets * (1.0 - label_smoothing) + label_smoothing / 2.0
    weights = None if positive_weights is None else positive_weights.to(rows)
    total = F.binary_cross_entropy_with_logits(rows, targets, pos_weight=weights, reduction="sum")
    return LossTerm(total / logits.shape[1], torch.tensor(len(logits), device=logits.device))


def binary_kl_divergence(
    student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 1.0, direction: str = "forward"
) -> LossTerm:
    """Sum over examples the mean T^2 KL between the teacher's and the student's probability of a label, in nats.

    Each label is a choice of its own between two answers, whose probability is the sigmoid of its logit over T: the KL
    is that of two Bernoulli distributions, or what `kl_divergence` has in its place.

    Args:
        student_logits: (examples, labels).
        teacher_logits: the same shape.
        temperature: T > 0.
        direction: as that of `kl_divergence`.

    Returns:
        The term; its count is the number of examples.

    Raises:
        InputError: an unknown direction, a temperature not above 0, or shapes that do not agree.
    """
    _check_same(student_logits, teacher_logits, "the teacher's logits")
    # The softmax over a logit and 0 is the logit's sigmoid and what is left of 1.
    sides = [torch.stack([side, torch.zeros_like(side)], dim=-1) for side in (student_logits, teacher_logits)]
    term = kl_divergence(*sides, temperature=temperature, direction=direction)
    count = torch.tensor(len(student_logits), device=student_logits.device)
    return LossTerm(term.total / student_logits.shape[1], count)


def squared_error(predicted: Tensor, target: Tensor) -> LossTerm:
    """Sum (p - t)^2 over examples.

    Args:
        predicted: (examples, 1) or (examples,).
        target: likewise: the labels, or what the teacher predicts.

    Raises:
        InputError: more than one number an example, or another number of examples.
    """
    first, second = (
        side.squeeze(-1) if side.dim() == 2 and side.shape[-1] == 1 else side for side in (predicted, target)
    )
    if first.dim() != 1 or first.shape != second.shape:
        raise InputError(
            f"predictions have shape {tuple(predicted.shape)} and what they should be {tuple(target.shape)}",
            "a regression needs one number of each for every example",
        )
    difference = precise(first) - second.to(precise(first))
    return LossTerm(difference.square().sum(), torch.tensor(first.numel(), device=first.device))


def _check_same(logits: Tensor, others: Tensor, what: str) -> None:
    if logits.dim() != 2 or logits.shape != others.shape:
        raise InputError(
            f"logits have shape {tuple(logits.shape)} and {what} {tuple(others.shape)}",
            "both need (examples, labels)",
        )
