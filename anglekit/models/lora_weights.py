"""Checkpoints with LoRA's low-rank corrections beside their weights (Hu et al. 2021, arXiv 2106.09685)."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from transformers import PreTrainedModel

from anglekit.errors import InputError


def has_lora(source: str) -> bool:
    """Return whether LoRA's corrections lie beside a checkpoint's weights.

    Raises:
        InputError: they do, but cannot be read here; without them it would be a different model.
    """
    found = (Path(source) / "adapter_config.json").is_file()
    if found and importlib.util.find_spec("peft") is None:
        raise InputError(
            f"{source} holds LoRA corrections, which need the `peft` package",
            "install it: pip install 'anglekit[lora]'",
        )
    return found


def merge_lora(model: PreTrainedModel) -> PreTrainedModel:
    """Add LoRA's corrections to the weights, in place, and return the model, now an ordinary one."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge(safe_merge=True)
            model.set_submodule(name, module.get_base_layer())
    model._hf_peft_config_loaded = False
    return model.requires_grad_(True)
