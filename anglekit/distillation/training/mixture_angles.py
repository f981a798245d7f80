"""The geometry of a soft map: where a mixture of teacher layers lies among them, seen from the student layer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
import torch

from anglekit.distillation.training.distillation_loss import DistillationLoss
from anglekit.errors import InputError
from anglekit.geometry.angles import angle_degrees


def mixture_angles(loss: DistillationLoss, batches: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Return the angle between the direction to a mixture and that to each single teacher layer, at the student.

    A step of the student towards the mixture M is one towards layer T_i as far as the angle between M - S and T_i - S
    is small; under a map it would be towards one layer alone. The student runs in evaluation mode, without gradients.

    Args:
        loss: of a strategy that makes mixtures (layer-attention, group-combination, gated, contiguous-mean), trained or
            not.
        batches: as the loss takes them.

    Returns:
        A row for each `stream, vertex, teacher_layer` (the layers of the student layer's group): `mean_angle_degrees`,
        the mean over tokens, in [0, 180], and `n_tokens`, those where the angle is defined.

    Raises:
        InputError: the strategy makes no mixture, or no batch came.

    Example:
        >>> loss = anglekit.DistillationLoss(teacher, student, "layer-attention")
        >>> mixture_angles(loss, loader).pivot(index="vertex", columns="teacher_layer", values="mean_angle_degrees")
    """
    mixtures = loss.mixtures
    if mixtures is None:
        raise InputError(
            "every student layer has one teacher layer, so there is no mixture",
            "take a strategy that combines layers, such as layer-attention",
        )
    sums: dict[tuple[str, int, int], float] = defaultdict(float)
    counts: dict[tuple[str, int, int], int] = defaultdict(int)
    for batch in batches:
        for stream, (mask, states, kept) in loss.hidden_states(batch).items():
            groups = mixtures.groups.get(stream)
            if groups is None:
                continue
            with torch.no_grad():
                targets = mixtures.targets(stream, states, kept, mask)
            real = slice(None) if mask is None else mask != 0
            for vertex, layers in groups.of:
                origin = states[vertex][real].double()
                to_mixture = targets[vertex][real].double() - origin
                for layer in layers:
                    angles = angle_degrees(to_mixture, kept[layer][real].double() - origin)
                    there = torch.isfinite(angles)
                    sums[stream, vertex, layer] += float(angles[there].sum())
                    counts[stream, vertex, layer] += int(there.sum())
    if not counts:
        raise InputError("no batch came", "give at least one")
    return pd.DataFrame(
        [
            {
                "stream": stream,
                "vertex": vertex,
                "teacher_layer": layer,
                "mean_angle_degrees": sums[stream, vertex, layer] / number if number else float("nan"),
                "n_tokens": number,
            }
            for (stream, vertex, layer), number in counts.items()
        ]
    )
