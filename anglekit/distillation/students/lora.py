"""LoRA: low-rank corrections of frozen weights, through the package `peft` (Hu et al. 2021, arXiv 2106.09685)."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from anglekit.distillation.settings import ALL_LINEAR, TrainSettings
from anglekit.errors import InputError
from anglekit.models.stored.corrections import merge_corrections


def add_lora(model: PreTrainedModel, settings: TrainSettings, seed: int) -> PreTrainedModel:
    """Freeze a model's weights, in place, and put corrections, 0 at first, on its linear layers.

    The corrections' random halves come from the seed; the global random state stays as it is.

    Returns:
        The model in peft's wrapper, whose `get_base_model()` is the model.

    Raises:
        InputError: the model has no layer of a target's name.
    """
    from peft import LoraConfig, get_peft_model

    if settings.checkpoint_activations:  # what is recomputed needs an input with a gradient
        model.enable_input_require_grads()  # type: ignore[no-untyped-call]
    names = [name.strip() for name in settings.lora_targets.split(",")]
    config = LoraConfig(
        r=settings.lora_rank,  # type: ignore[arg-type]  # there is one
        lora_alpha=settings.lora_alpha,  # type: ignore[arg-type]  # a float does as well
        lora_dropout=settings.lora_dropout,
        target_modules=ALL_LINEAR if names == [ALL_LINEAR] else names,
        # GPT-2 keeps its weights the other way round.
        fan_in_fan_out=str(model.config.model_type) == "gpt2",
    )
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # peft asks transformers for something by its old name.
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        torch.default_generator.manual_seed(seed)
        try:
            return cast("PreTrainedModel", get_peft_model(model, config))
        except ValueError as error:
            last = sorted({name.rpartition(".")[2] for name, one in model.named_modules() if hasattr(one, "weight")})
            raise InputError(
                f"--lora-targets {settings.lora_targets!r} fits no layer", f"there are {', '.join(last)}"
            ) from error


def save_beside_lora(wrapped: Any, directory: Path) -> None:  # noqa: ANN401 - peft is optional
    """Write the frozen weights as an ordinary checkpoint, and the corrections beside them.

    Both together are what transformers calls a model with an embedded adapter: `from_pretrained` reads it where peft
    is installed.
    """
    wrapped.save_pretrained(directory)
    base = wrapped.get_base_model()
    frozen: dict[str, Tensor] = {
        name.replace(".base_layer.", "."): weight for name, weight in base.state_dict().items() if ".lora_" not in name
    }
    base.save_pretrained(directory, state_dict=frozen)


def merged(wrapped: Any) -> PreTrainedModel:  # noqa: ANN401 - peft is optional
    """Return the model with its corrections added to its weights, an ordinary one from then on."""
    return merge_corrections(cast("PreTrainedModel", wrapped.get_base_model()))
