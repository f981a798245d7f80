"""Texts that a model generates: settings give beams and lengths; the model's own defaults give only special tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import torch
from torch import nn
from transformers import GenerationConfig, PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from anglekit.distillation.settings import GenerationSettings
from anglekit.distillation.tasks.data import PaddedBatches, TokenizedExamples, length_sorted_batches
from anglekit.errors import InputError
from anglekit.probes.languages import generated_language
from anglekit.runtime.passes import told_failures
from anglekit.runtime.placement import compute_device

# What a model needs to generate. Its other defaults (sampling, repetition, lengths) are left out, so that the settings
# alone define a score.
_KEPT: Final = (
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "decoder_start_token_id",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "bad_words_ids",
)


def generation_config(model: PreTrainedModel, settings: GenerationSettings, pad_id: int) -> GenerationConfig:
    """Return a complete configuration: the model's special tokens, the settings, and defaults for all else."""
    own = model.generation_config
    kept = {name: value for name in _KEPT if own is not None and (value := getattr(own, name, None)) is not None}
    for name in ("eos_token_id", "decoder_start_token_id"):
        value = getattr(model.config, name, None)
        if name not in kept and value is not None:
            kept[name] = value
    kept["pad_token_id"] = kept.get("pad_token_id", pad_id)
    if settings.beams is None or settings.max_new_tokens is None:
        raise InputError("generation needs a number of beams and of new tokens", "give both")
    beams = {"length_penalty": settings.length_penalty} if settings.beams > 1 else {}
    return GenerationConfig(  # type: ignore[no-untyped-call]
        num_beams=settings.beams, max_new_tokens=settings.max_new_tokens, do_sample=False, **beams, **kept
    )


@contextmanager
def scoring_mode(model: PreTrainedModel) -> Iterator[None]:
    """Switch dropout and gradients off inside the block, then restore the model's mode."""
    was_training = model.training
    nn.Module.eval(model)
    try:
        # Not inference mode: models keep tensors for later passes, which would be useless for training.
        with torch.no_grad():
            yield
    finally:
        nn.Module.train(model, was_training)


def generate_texts(
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    examples: TokenizedExamples,
    batch_size: int,
    settings: GenerationSettings,
    pad_id: int,
    *,
    longest: int | None = None,
    advance: Callable[[int], None] | None = None,
) -> list[str]:
    """Return the text that a model generates for each example, in their order, special tokens left out.

    The model, an encoder-decoder or a causal one, is left as it was. It reads the examples' `input_ids`; inputs longer
    than `longest` lose their beginning. Inputs and finished texts are padded with `pad_id`. `advance` is called after
    each batch with the number of its examples.
    """
    causal = not getattr(model.config, "is_encoder_decoder", False)
    collate = PaddedBatches(pad_id, left=causal)
    config, own = generation_config(model, settings, pad_id), model.generation_config
    for name, token in ({} if causal else generated_language(tokenizer)).items():
        setattr(config, name, token)
    generate: Any = model.generate
    texts = np.empty(len(examples), dtype=object)
    # Given as an argument alone, transformers would fill its defaults from the model's own configuration.
    model.generation_config = config
    device = compute_device(model)
    try:
        with scoring_mode(model):
            for batch in length_sorted_batches(examples, batch_size):
                ids = [examples[index]["input_ids"] for index in batch]
                inputs = collate([{"input_ids": one if longest is None else one[-longest:]} for one in ids])
                with told_failures("the model that writes", model, inputs):
                    found = generate(**{key: value.to(device) for key, value in inputs.items()})
                written = found[:, inputs["input_ids"].shape[1] :] if causal else found
                decoded = tokenizer.batch_decode(written, skip_special_tokens=True, clean_up_tokenization_spaces=False)
                texts[batch] = [text.strip() for text in decoded]
                if advance is not None:
                    advance(len(batch))
    finally:
        model.generation_config = own
    return list(texts)
