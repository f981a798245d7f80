"""A small model of a type with weights large enough that its layers differ, and inputs for it."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers import AutoModel, PretrainedConfig, PreTrainedModel

from tests.census.small_configs import small_config

# A type of which no small configuration is known may be gigabytes large.
_MOST_WEIGHTS: Final = 130_000_000
# What a model draws itself is too near to zero for layers to differ.
_SPREAD: Final = 0.25
LOWEST_WORD, HIGHEST_WORD = 5, 60


class TooLargeError(Exception):
    """The smallest configuration that is known makes a model too large to run here."""


def small_model(name: str, seed: int = 0) -> PreTrainedModel:
    """Return a model of a type in evaluation mode, its weights drawn by the seed.

    Raises:
        TooLargeError: no small configuration is known.
        Exception: whatever the type's own classes raise.
    """
    return model_of(small_config(name), seed)


def model_of(config: PretrainedConfig, seed: int = 0) -> PreTrainedModel:
    """Return the model of a configuration in evaluation mode, its weights drawn by the seed."""
    with torch.device("meta"):
        weights = sum(each.numel() for each in AutoModel.from_config(config).parameters())
    if weights > _MOST_WEIGHTS:
        raise TooLargeError(f"{weights:,} weights")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = AutoModel.from_config(config).float()
        spread(model)
    return model.eval()


@torch.no_grad()
def spread(model: nn.Module) -> None:
    """Make weights large, and norms unlike each other, in place."""
    for name, weight in model.named_parameters():
        if not weight.is_floating_point():
            continue
        if weight.ndim >= 2:
            size = float(weight.std())
            if 0 < size < 0.05:
                weight.mul_(_SPREAD / size)
            elif size == 0 and not name.endswith("A_log"):
                weight.normal_(std=0.1)
        elif weight.ndim == 1 and len(weight) > 1 and bool((weight == weight[0]).all()):
            weight.add_(torch.randn_like(weight), alpha=0.2)


def some_ids(rows: int, length: int, seed: int = 1) -> Tensor:
    """Return token ids of words, shape (rows, length)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(LOWEST_WORD, HIGHEST_WORD, (rows, length), generator=generator)


def inputs_for(
    model: PreTrainedModel, ids: Tensor, mask: Tensor | None = None, decoder_ids: Tensor | None = None
) -> dict[str, Any]:
    """Return the keyword arguments of a forward pass over texts alone.

    Args:
        model: an encoder-decoder reads `decoder_ids` too.
        ids: (batch, length).
        mask: (batch, length), 1 where there is a token; None: everywhere.
        decoder_ids: (batch, other length).
    """
    inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids) if mask is None else mask}
    if hasattr(model.config.get_text_config(), "use_cache"):
        inputs["use_cache"] = False
    if getattr(model.config, "is_encoder_decoder", False):
        inputs["decoder_input_ids"] = ids[:, : max(ids.shape[1] - 2, 1)] if decoder_ids is None else decoder_ids
    return inputs
