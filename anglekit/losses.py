"""The losses of distillation, for training loops of one's own: functional and masked, on tensors alone.

    from anglekit import losses

    kept = labels != -100
    kl = losses.kl_divergence(student.logits, teacher.logits, kept, temperature=2.0)
    hidden = losses.hidden_loss([(student_states, teacher_states)], batch["attention_mask"], kind="cosine")
    (kl.mean() + 3 * hidden.mean()).backward()

| function | inputs | of each item |
|---|---|---|
| `cross_entropy` | logits (..., classes), labels (...), -100 ignored | the negative log-likelihood, nats |
| `kl_divergence` | logits of both (..., classes), mask (...) | T^2 x a divergence of `DIVERGENCES`, nats |
| `cross_entropy_and_kl` | logits of both, labels (...) | both of these, with the memory of one |
| `binary_cross_entropy`, `binary_kl_divergence` | logits (examples, labels) | the mean over labels, nats |
| `squared_error` | numbers (examples,) | (p - t)^2 |
| `hidden_loss` | pairs of states (batch, time, width), mask (batch, time) | a distance, summed over the pairs |
| `attention_loss` | pairs of `AttentionStates`, mask (batch, time) | MiniLM's or MiniLMv2's relations |
| `mse`, `normalized_mse`, `cosine_distance`, `layer_norm_mse` | states of both (tokens, width) | it alone, (tokens,) |
| `relation` | the name in `RELATIONS`, states of both (batch, time, width), mask | one number for the batch |
| `gram`, `relational`, `linear_cka`, `procrustes`, `infonce` | rows of both (rows, width) | one number for all rows |

The terms (all but the last three rows) are `LossTerm`, a sum and the number of items that were summed: `term.mean()` is
a scalar to call `backward` on, and terms of several batches add up, so that a mean over an accumulated batch is the
mean over its items. `token_rows` and `example_means` make rows of masked states. Where a mask is zero, nothing is read:
NaN there reaches neither value nor gradient. A causal language model predicts
the next token: give `cross_entropy` and the KL's mask `next_token_labels(labels)` instead of the labels, or let
`anglekit.DistillationLoss` see to it. Shapes that do not agree raise an `InputError` that names them.
"""

from __future__ import annotations

from anglekit.distillation.losses.attention_relations import AttentionStates
from anglekit.distillation.losses.divergences import DIVERGENCES
from anglekit.distillation.losses.functional import (
    HIDDEN_LOSSES,
    LossTerm,
    attention_loss,
    cosine_distance,
    cross_entropy,
    cross_entropy_and_kl,
    hidden_loss,
    kl_divergence,
    layer_norm_mse,
    mse,
    next_token_labels,
    next_token_targets,
    normalized_mse,
    weighted_total,
)
from anglekit.distillation.losses.label_losses import binary_cross_entropy, binary_kl_divergence, squared_error
from anglekit.distillation.losses.relations import (
    RELATIONS,
    example_means,
    gram,
    infonce,
    linear_cka,
    procrustes,
    relation,
    relational,
    token_rows,
)

__all__ = [
    "DIVERGENCES",
    "HIDDEN_LOSSES",
    "RELATIONS",
    "AttentionStates",
    "LossTerm",
    "attention_loss",
    "binary_cross_entropy",
    "binary_kl_divergence",
    "cosine_distance",
    "cross_entropy",
    "cross_entropy_and_kl",
    "example_means",
    "gram",
    "hidden_loss",
    "infonce",
    "kl_divergence",
    "layer_norm_mse",
    "linear_cka",
    "mse",
    "next_token_labels",
    "next_token_targets",
    "normalized_mse",
    "procrustes",
    "relation",
    "relational",
    "squared_error",
    "token_rows",
    "weighted_total",
]
