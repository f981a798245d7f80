"""What teacher and student cost side by side: parameters, and the time of a forward pass over the same batch."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import nn
from transformers import PreTrainedModel

from anglekit.distillation.training.distillation_loss import with_decoder_inputs
from anglekit.distillation.training.teacher import accepted_inputs
from anglekit.results.scores import ModelCosts

#: Examples of the batch that is timed.
COST_EXAMPLES: Final = 16
_PASSES: Final = 5
# A model that is too large for this many seconds is timed fewer times, at least once.
_SECONDS: Final = 10.0


def measure_costs(models: Mapping[str, PreTrainedModel], batch: Mapping[str, Any]) -> dict[str, ModelCosts]:
    """Time the forward passes of models over one batch, in turns, so that what else the machine does hits all alike.

    Dropout and gradients are off. Generation is not timed: a pass is what an
    encoder or a scoring of given texts costs, and for each new token a decoder's share of it.

    Args:
        models: by name, each on its device.
        batch: as a data collator makes it.

    Returns:
        By name; nothing for an empty batch.
    """
    tensors = [value for value in batch.values() if isinstance(value, torch.Tensor)]
    if not tensors:
        return {}
    modes = {name: model.training for name, model in models.items()}
    inputs = {name: _on_its_device(model, batch) for name, model in models.items()}
    times: dict[str, list[float]] = {name: [] for name in models}
    try:
        for model in models.values():
            model.train(mode=False)
        with torch.no_grad():
            for name, model in models.items():
                _seconds(model, inputs[name])  # the first pass also allocates and compiles
            start = time.perf_counter()
            for number in range(_PASSES):
                if number and time.perf_counter() - start > _SECONDS:
                    break
                for name, model in models.items():
                    times[name].append(_seconds(model, inputs[name]))
    finally:
        for name, model in models.items():
            model.train(modes[name])
    return {
        name: ModelCosts(
            parameters=int(model.num_parameters()),
            milliseconds=1e3 * statistics.median(times[name]),
            milliseconds_low=1e3 * min(times[name]),
            milliseconds_high=1e3 * max(times[name]),
            examples=len(tensors[0]),
            tokens=_tokens(batch),
            device=str(_device(model).type),
            dtype=str(model.dtype).removeprefix("torch."),
        )
        for name, model in models.items()
    }


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _on_its_device(model: PreTrainedModel, batch: Mapping[str, Any]) -> dict[str, Any]:
    """Return a batch as a model reads it."""
    moved = {key: value.to(_device(model)) for key, value in batch.items() if isinstance(value, torch.Tensor)}
    return accepted_inputs(model, with_decoder_inputs(model, moved))


def _tokens(batch: Mapping[str, Any]) -> int:
    """Return how many tokens a batch has, padding included, of the text or source."""
    ids = batch.get("input_ids")
    return int(ids.numel()) if isinstance(ids, torch.Tensor) else 0


def _seconds(model: nn.Module, inputs: Mapping[str, Any]) -> float:
    device = _device(model)
    wait = torch.accelerator.synchronize if device.type != "cpu" else None
    if wait is not None:
        wait()
    start = time.perf_counter()
    model(**inputs)
    if wait is not None:
        wait()
    return time.perf_counter() - start
