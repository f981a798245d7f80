"""Where a transformer keeps its blocks: streams, depths, widths and final norms, found by structure, not by name.

Layers are numbered in one way everywhere: layer 0 is the embedding output (what enters block 0), layer `b + 1` is the
output of block `b`. A model has one stream, `encoder` or `decoder`, or both.
"""

from __future__ import annotations

from typing import cast

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from anglekit.errors import InputError
from anglekit.models.sources import OWN_DEPTH_KEYS, SHARED_DEPTH_KEYS, WIDTH_NAMES
from anglekit.models.supported import supported_types
from anglekit.vocabulary import Stream

# A norm that closes a stack is a direct child of it under one of these names.
_FINAL_NORM_NAMES = ("norm", "final_norm", "ln_f", "final_layer_norm", "final_layernorm", "layer_norm", "norm_f")

# By kind, the streams of models that were seen to have others than their configurations tell.
_SETTLED: dict[tuple[str, ...], tuple[Stream, ...]] = {}


def model_streams(config: PretrainedConfig) -> tuple[Stream, ...]:
    """Return the streams that a model of this configuration has.

    An encoder-decoder has both. A decoder is what no later token can change: a configuration may say so (`is_decoder`),
    or the contrary (`use_bidirectional_attention`); otherwise the census of types knows (`supported.csv`). A type that
    it does not know is a decoder if transformers has a causal but no masked language model of it, as for GPT-2. What a
    model of the kind was seen to do comes before all this (`settle_streams`).
    """
    if getattr(config, "is_encoder_decoder", False):
        return ("encoder", "decoder")
    if _kind(config) in _SETTLED:
        return _SETTLED[_kind(config)]
    if getattr(config, "is_decoder", False):
        return ("decoder",)
    if getattr(config, "use_bidirectional_attention", None) in (True, "all"):
        return ("encoder",)
    kind = str(config.model_type)
    found = supported_types().get(kind)
    if found is not None and len(found.streams) == 1:
        return found.streams
    causal = kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and kind not in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    return ("decoder",) if causal else ("encoder",)


def settle_streams(config: PretrainedConfig, streams: tuple[Stream, ...]) -> None:
    """Let `model_streams` answer so for configurations of this kind from now on: a model of it was seen running."""
    _SETTLED[_kind(config)] = streams


def _kind(config: PretrainedConfig) -> tuple[str, ...]:
    """Return the type of a configuration with what it says itself on the direction of attention.

    A foreign model (`models.memory.foreign`) is a kind of its own.
    """
    said = (
        getattr(config, "is_decoder", None),
        getattr(config, "use_bidirectional_attention", None),
        getattr(config, "instance", None),
    )
    return (str(config.model_type), *map(str, said))


def stream_config(config: PretrainedConfig, stream: Stream) -> PretrainedConfig:
    """Return the part of an encoder-decoder's configuration that describes a stream; all of it where it has no parts.

    T5Gemma and pairs of two models have a configuration for the encoder and one for the decoder.
    """
    part = getattr(config, stream, None) if getattr(config, "is_encoder_decoder", False) else None
    return part if isinstance(part, PretrainedConfig) else config


def depth(config: PretrainedConfig, stream: Stream) -> int:
    """Return the number of blocks of a stream.

    Raises:
        InputError: the configuration states no depth under a known name.
    """
    config = stream_config(config, stream)
    keys = (*OWN_DEPTH_KEYS[stream], *SHARED_DEPTH_KEYS)
    for key in keys:
        value = getattr(config, key, None)
        if isinstance(value, int):
            return value
    raise InputError(
        f"the configuration of model type {config.model_type!r} states no number of layers",
        f"one of {', '.join(keys)} is needed",
    )


def width(config: PretrainedConfig) -> int:
    """Return the width of the hidden states.

    Raises:
        InputError: the configuration states no width under a known name, or its two streams have different ones.
    """
    parts = [part for part in (stream_config(config, stream) for stream in model_streams(config)) if part is not config]
    if parts:
        widths = {width(part) for part in parts}
        if len(widths) > 1:
            raise InputError(
                f"the streams of model type {config.model_type!r} have widths {' and '.join(map(str, sorted(widths)))}",
                "choose a model whose streams are equally wide",
            )
        return widths.pop()
    for key in WIDTH_NAMES:
        value = getattr(config, key, None)
        if isinstance(value, int):
            return value
    raise InputError(f"the configuration of model type {config.model_type!r} states no hidden size")


def stack(model: PreTrainedModel, stream: Stream) -> nn.Module:
    """Return the module that runs a stream's blocks, without any head.

    Its output's first entry is Hugging Face's own last hidden state.
    """
    base = cast("PreTrainedModel", model.base_model)
    if not getattr(base.config, "is_encoder_decoder", False):
        return base
    return cast("nn.Module", base.get_encoder() if stream == "encoder" else base.get_decoder())  # type: ignore[no-untyped-call]


def blocks(model: PreTrainedModel, stream: Stream) -> nn.ModuleList:
    """Return a stream's blocks in order.

    They are the outermost `ModuleList` of the stack that is as long as the configuration says the stream is deep.

    Raises:
        InputError: there is no such list (shared or nested blocks, as in ALBERT, cannot be numbered).
    """
    expected = depth(model.config, stream)
    candidates = [
        (name.count("."), module)
        for name, module in stack(model, stream).named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == expected
    ]
    if not candidates:
        raise InputError(
            f"{type(model).__name__} has no list of {expected} blocks in its {stream}",
            "models whose blocks are shared or nested cannot be analysed layer by layer: choose a model with one "
            "module per layer",
        )
    return min(candidates, key=lambda candidate: candidate[0])[1]


def named_final_norm(model: PreTrainedModel, stream: Stream) -> str | None:
    """Return the name in a stack of the norm that by its name closes it, or None: a guess, where nothing can be run."""
    home = stack(model, stream)
    inner = getattr(home, "encoder", None) if stream == "encoder" else getattr(home, "decoder", None)
    for owner, prefix in ((home, ""), (inner, f"{stream}.")):
        if isinstance(owner, nn.Module):
            for name, child in owner.named_children():
                if name in _FINAL_NORM_NAMES and "norm" in type(child).__name__.lower():
                    return prefix + name
    return None
