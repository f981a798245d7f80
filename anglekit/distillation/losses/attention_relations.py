"""Hidden losses of what self-attention does with a layer's states: MiniLM's and MiniLMv2's relations.

A relation of a sequence of vectors is, for each token, a distribution over the tokens: the softmax of its scaled
products with all of them. The student's relations are compared with the teacher's by KL(teacher || student), so that
widths may differ, and in MiniLMv2 the heads too. Only tokens that the mask keeps are read: the others are neither
rows nor places that a row can look at, and NaN there reaches neither value nor gradient.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from anglekit.distillation.losses.relations import precise
from anglekit.errors import InputError

#: What each relation is made of.
_PARTS: Final = ("queries", "keys", "values")


@dataclass(frozen=True, eq=False)
class AttentionStates:
    """What a self-attention layer makes of the states that enter it.

    Attributes:
        queries: (batch, time, width of the queries), all heads side by side.
        keys: (batch, time, width of the keys), which grouped heads make narrower.
        values: (batch, time, width of the values).
        heads: of the queries, and of the map.
        value_heads: of the keys and values; fewer than `heads` where these are grouped.
        attention: the distribution of each token over all, (batch, heads, time, time); None where it was not kept.
    """

    queries: Tensor
    keys: Tensor
    values: Tensor
    heads: int
    value_heads: int
    attention: Tensor | None = None

    def to(self, device: torch.device) -> AttentionStates:
        """Return the same on a device."""
        kept = None if self.attention is None else self.attention.to(device)
        moved = {part: getattr(self, part).to(device) for part in _PARTS}
        return replace(self, **moved, attention=kept)

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.queries.device

    def widths(self) -> tuple[int, int, int]:
        """Return the widths of queries, keys and values."""
        return self.queries.shape[-1], self.keys.shape[-1], self.values.shape[-1]


#: For each matched student layer what its attention makes, and the teacher's.
AttentionPairs = Sequence[tuple[AttentionStates, AttentionStates]]


def shared_relation_heads(pairs: AttentionPairs) -> int:
    """Return the largest number of relation heads that divides the teacher's heads and every width of both sides."""
    found = 0
    for student, teacher in pairs:
        found = math.gcd(found, teacher.heads, *student.widths(), *teacher.widths())
    return found


def self_attention_relations(
    pairs: AttentionPairs, mask: Tensor | None, *, relation_heads: int | None = None
) -> tuple[Tensor, Tensor]:
    """Sum MiniLMv2's loss: KL of the query-query, key-key and value-value relations, each of weight 1.

    Wang et al. 2021 (MiniLMv2), arXiv 2012.15828: the vectors of all heads are put side by side and
    split anew into relation heads, each relation is softmax(A A^T / sqrt(d)) of such a head, d its width on either
    side, and the KL is averaged over heads and tokens.

    Args:
        pairs: the student's and the teacher's; the paper has one, of each side's last layer or an upper one.
        mask: (batch, time), nonzero at tokens that count; None counts all.
        relation_heads: must divide every width; None: `shared_relation_heads`.

    Returns:
        The sum over tokens and pairs of the mean over heads, and the number of tokens, both scalars.

    Raises:
        InputError: relation heads that do not divide a width, or shapes that do not agree.
    """
    heads = shared_relation_heads(pairs) if relation_heads is None else relation_heads
    keep = _kept(pairs, mask)
    sums = []
    for student, teacher in pairs:
        for part in _PARTS:
            ours, theirs = getattr(student, part), getattr(teacher, part)
            for side, tensor in (("student", ours), ("teacher", theirs)):
                if heads < 1 or tensor.shape[-1] % heads:
                    raise InputError(
                        f"{heads} relation heads came, and the {side}'s {part} are {tensor.shape[-1]} wide",
                        f"give a number that divides all widths, such as {shared_relation_heads(pairs)}",
                    )
            sums.append(_relation_kl(ours, theirs, keep, heads, heads))
    return torch.stack(sums).sum(), keep.sum()


def attention_and_value_relations(pairs: AttentionPairs, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Sum MiniLM's loss: KL of the attention distributions, and of the values' relations softmax(V V^T / sqrt(d)).

    Wang et al. 2020 (MiniLM), arXiv 2002.10957, averaged over heads and tokens. Both sides need the
    same number of heads; where keys and values are grouped, the values' relations are of the groups.

    Args:
        pairs: the student's and the teacher's, with their maps; the paper has one, of each side's last layer.
        mask: (batch, time), nonzero at tokens that count; None counts all. Distributions are renormalised over them.

    Returns:
        The sum over tokens and pairs of the mean over heads, and the number of tokens, both scalars.

    Raises:
        InputError: no maps, other numbers of heads, or shapes that do not agree.
    """
    keep = _kept(pairs, mask)
    sums = []
    for student, teacher in pairs:
        ours, theirs = student.attention, teacher.attention
        if ours is None or theirs is None:
            raise InputError("hidden loss 'minilm' compares attention maps and none came", "take minilm-v2")
        if ours.shape != theirs.shape or student.value_heads != teacher.value_heads:
            found = [f"{side.heads} heads ({side.value_heads} of values)" for side in (student, teacher)]
            raise InputError(
                f"hidden loss 'minilm' compares head by head, and the student has {found[0]} and the teacher "
                f"{found[1]}",
                "take minilm-v2, whose relation heads are its own",
            )
        sums.append(_map_kl(ours, theirs, keep))
        sums.append(_relation_kl(student.values, teacher.values, keep, student.value_heads, teacher.value_heads))
    return torch.stack(sums).sum(), keep.sum()


def _kept(pairs: AttentionPairs, mask: Tensor | None) -> Tensor:
    """Return which tokens count, bool (batch, time), after a check of all shapes against each other."""
    shape = pairs[0][0].queries.shape[:2]
    for student, teacher in pairs:
        for side, states in (("student", student), ("teacher", teacher)):
            for part in _PARTS:
                found = getattr(states, part).shape
                if len(found) != 3 or found[:2] != shape:
                    raise InputError(
                        f"the {side}'s {part} have shape {tuple(found)}", f"need {tuple(shape)} tokens of a width"
                    )
    device = pairs[0][0].queries.device
    if mask is None:
        return torch.ones(shape, dtype=torch.bool, device=device)
    if mask.shape != shape:
        raise InputError(f"the mask has shape {tuple(mask.shape)}", f"the states it masks need {tuple(shape)}")
    return (mask != 0).to(device)


def _relation_kl(student: Tensor, teacher: Tensor, keep: Tensor, heads: int, teacher_heads: int) -> Tensor:
    """Sum over kept tokens the mean over heads of KL(teacher's relation || student's)."""
    ours, theirs = _log_relation(student, keep, heads), _log_relation(teacher, keep, teacher_heads)
    # Columns left out hold the lowest number on both sides; their probability is 0, and 0 x anything finite is 0.
    each = (theirs.exp() * (theirs - ours)).sum(-1).mean(1)
    return torch.where(keep, each, 0.0).sum()


def _log_relation(vectors: Tensor, keep: Tensor, heads: int) -> Tensor:
    """Return log softmax(A A^T / sqrt(d)) of each head over the kept tokens, (batch, heads, time, time)."""
    clean = torch.where(keep[..., None], precise(vectors), 0.0)
    split = clean.reshape(*clean.shape[:2], heads, -1).transpose(1, 2)
    scores = (split * split.shape[-1] ** -0.5) @ split.transpose(-1, -2)
    places = torch.log_softmax(scores.masked_fill(~keep[:, None, None], -torch.inf), dim=-1)
    # An example without a token has no distribution; its rows are left out above.
    return torch.where(keep[:, None, None], places, torch.finfo(places.dtype).min / 4)


def _map_kl(student: Tensor, teacher: Tensor, keep: Tensor) -> Tensor:
    """Sum over kept tokens the mean over heads of KL(teacher's attention || student's), over kept tokens."""
    both = keep[:, None, :, None] & keep[:, None, None, :]
    ours, theirs = (torch.where(both, precise(side), 0.0) for side in (student, teacher))
    ours, theirs = (side / side.sum(-1, keepdim=True).clamp_min(_LEAST) for side in (ours, theirs))
    logs = theirs.clamp_min(_LEAST).log() - ours.clamp_min(_LEAST).log()
    return (theirs * logs).sum(-1).mean(1).sum()


# Below it a probability is rounding of float32, and so is what a student could be taught by it.
_LEAST: Final = 1e-20
