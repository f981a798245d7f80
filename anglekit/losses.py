"""The losses of distillation, for training loops of one's own: functional and masked, on tensors alone.

    from anglekit import losses

    kept = labels != -100
    kl = losses.kl_divergence(student.logits, teacher.logits, kept, temperature=2.0)
    hidden = losses.hidden_loss([(student_states, teacher_states)], batch["attention_mask"], kind="cosine")
    (kl.mean() + 3 * hidden.mean()).backward()

| function | inputs | of each item |
|---|---|---|
| `cross_entropy` | logits (..., classes), labels (...), -100 ignored | the negative log-likelihood, nats |
| `kl_divergence` | logits of both (..., classes), mask (...) | T^2 KL, forward or reverse, nats |
| `hidden_loss` | pairs of states (batch, time, width), mask (batch, time) | a distance, summed over the pairs |
| `attention_loss` | pairs of `AttentionStates`, mask (batch, time) | MiniLM's or MiniLMv2's relations |
| `mse`, `normalized_mse`, `cosine_distance`, `layer_norm_mse` | states of both (tokens, width) | it alone, (tokens,) |

The first four return a `LossTerm`, a sum and the number of items that were summed: `term.mean()` is a scalar to call
`backward` on, and terms of several batches add up, so that a mean over an accumulated batch is the mean over its items.
Where a mask is zero, nothing is read: NaN there reaches neither value nor gradient. A causal language model predicts
the next token: give `cross_entropy` and the KL's mask `next_token_labels(labels)` instead of the labels, or let
`anglekit.DistillationLoss` see to it. Shapes that do not agree raise an `InputError` that names them.
"""

from __future__ import annotations

from anglekit.distillation.losses.attention_relations import AttentionStates
from anglekit.distillation.losses.functional import (
    HIDDEN_LOSSES,
    LossTerm,
    attention_loss,
    cosine_distance,
    cross_entropy,
    hidden_loss,
    kl_divergence,
    layer_norm_mse,
    mse,
    next_token_labels,
    next_token_targets,
    normalized_mse,
    weighted_total,
)

__all__ = [
    "HIDDEN_LOSSES",
    "AttentionStates",
    "LossTerm",
    "attention_loss",
    "cosine_distance",
    "cross_entropy",
    "hidden_loss",
    "kl_divergence",
    "layer_norm_mse",
    "mse",
    "next_token_labels",
    "next_token_targets",
    "normalized_mse",
    "weighted_total",
]
