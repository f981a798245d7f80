"""Weights that are stored quantised: turned into plain ones where transformers can, never read without their scales."""

from __future__ import annotations

import copy
import importlib
import inspect
import math
import re
from collections.abc import Callable, Collection, Iterable
from itertools import dropwhile
from typing import Any, Final, cast

import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel
from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

from anglekit.errors import InputError, foreign_failures
from anglekit.models.library_messages import quiet_transformers

# What stands beside quantised weights: scales and zero points, packed weights, and their tables. `input_scale` and the
# like are of activations, which plain weights do without.
_SCALES: Final = re.compile(
    r"\.(weight_scale(_inv|_2)?|weight_global_scale|weight_zero_point|weight_packed|weight_shape|scale_inv|scales|qzeros|"
    r"qweight|g_idx|SCB|weight_format|weight\.(absmax|quant_map|nested_absmax|nested_quant_map|quant_state\..*)|"
    r"\w+_(scales|blocks|scale_inv))$"
)
# What may stand before the name of a module in a model with a head, or with images beside its text.
_BEFORE: Final = ("model", "language_model", "text_model")
_FIRST_NUMBER: Final = re.compile(r"(?:^|\.)(\d+)\.")
# Blocks that predict further tokens, and are no part of the model that reads (DeepSeek-V3, Qwen3-Next).
_FURTHER_TOKENS: Final = re.compile(r"(^|\.)(mtp|nextn)\w*\.")


def stored_method(config: PretrainedConfig) -> str:
    """Return by what method a checkpoint's weights are quantised, by transformers' name; "" if they are plain."""
    told = getattr(config, "quantization_config", None)
    found = told.get("quant_method") if isinstance(told, dict) else getattr(told, "quant_method", None)
    return "" if found is None else str(getattr(found, "value", found))


def ask_for_plain_weights(config: PretrainedConfig) -> None:
    """Write into a configuration, in place, that its quantised weights are to be turned into plain ones when loaded.

    Methods that cannot do so while they load are left as they are; see `turned_plain`.
    """
    told = getattr(config, "quantization_config", None)
    method = stored_method(config)
    if told is None or method not in AUTO_QUANTIZATION_CONFIG_MAPPING:
        return
    taken = inspect.signature(AUTO_QUANTIZATION_CONFIG_MAPPING[method]).parameters
    # The second is the older name.
    for setting, value in (("dequantize", True), ("run_compressed", False)):
        if setting in taken:
            if isinstance(told, dict):
                config.quantization_config = {**told, setting: value}
            else:
                setattr(told, setting, value)
            return


def cannot_load_quantized(source: str, method: str) -> Callable[[str], InputError]:
    """Return what makes a refusal of a failure to read quantised weights; transformers names the package it lacks."""

    def refusal(reason: str) -> InputError:
        return InputError(
            f"cannot load {source!r}, whose weights are quantised by {method}: {reason}",
            "install what is named, or give the checkpoint in plain precision",
        )

    return refusal


def turned_plain(model: PreTrainedModel, source: str, method: str, dtype: torch.dtype) -> PreTrainedModel:
    """Return a model whose weights are plain ones of a type, though they were stored quantised.

    Raises:
        InputError: transformers cannot turn weights of this method back.
    """
    if getattr(model, "is_quantized", False):
        with quiet_transformers(), foreign_failures(cannot_load_quantized(source, method)):
            try:
                exact = _misread_four_bits(model)
                model = cast("Any", model).dequantize(dtype=dtype)
                for name, weight in exact.items():
                    model.get_parameter(name).data = weight.to(dtype)
            except NotImplementedError as error:
                raise InputError(
                    f"{source} holds weights quantised by {method}, which transformers does not turn into plain ones",
                    "give the checkpoint in plain precision",
                ) from error
    packed = sorted({str(weight.dtype) for weight in model.parameters() if weight.dtype.itemsize < dtype.itemsize})
    if packed:
        raise InputError(
            f"{source} holds weights quantised by {method}, of which some stay {packed[0].removeprefix('torch.')}",
            "give the checkpoint in plain precision",
        )
    # Values times scales have the scales' precision.
    kept: Collection[str] = getattr(model, "_keep_in_fp32_modules", None) or ()
    for name, weight in model.named_parameters():
        if weight.dtype != dtype and not any(part in name for part in kept):
            weight.data = weight.data.to(dtype)
    return model


def _misread_four_bits(model: PreTrainedModel) -> dict[str, Tensor]:
    """Return by name the weights of bitsandbytes' four bits that it reads wrongly, as they are meant.

    On the CPU, its version 0.50.2 takes scales of other blocks where the rows are 16, 32 or 48 values longer than
    blocks; of the same weight as one row it takes the right ones.
    """
    meant = {}
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        state = getattr(weight, "quant_state", None)
        if weight is None or state is None or weight.device.type != "cpu":
            continue
        dequantize_4bit = importlib.import_module("bitsandbytes.functional").dequantize_4bit
        one_row = copy.copy(state)
        one_row.shape = torch.Size([math.prod(state.shape)])
        exact = dequantize_4bit(weight.data, one_row).reshape(state.shape)
        if not torch.equal(exact, dequantize_4bit(weight.data, state)):
            meant[f"{name}.weight"] = exact
    return meant


def check_scales(source: str, model: PreTrainedModel, unread: Iterable[str]) -> None:
    """Refuse a model whose weights were read without the scales that are stored beside them.

    transformers reads such weights as if they were plain ones: all states would be wrong without a word.

    Args:
        source: the checkpoint.
        model: as it was loaded.
        unread: the names of the stored weights that it did not read.
    """
    before = {*_BEFORE, str(model.base_model_prefix)}

    def bare(name: str) -> str:
        pieces = name.split(".")
        return ".".join(dropwhile(before.__contains__, pieces))

    parts = {bare(name) for name, _ in model.named_modules()}
    left = sorted(name for name in unread if _SCALES.search(name) and bare(_SCALES.sub("", name)) in parts)
    if left:
        raise InputError(
            f"{source} holds {len(left)} scales of quantised weights that are read by nothing, among them {left[0]}",
            "save the checkpoint again, with quantization_config in config.json, or in plain precision",
        )


def left_out(names: Iterable[str], depth: int) -> str:
    """Return in words which stored weights are no part of a model of that many blocks; "" where all are.

    They are blocks behind the last one that config.json counts, such as those that predict further tokens.
    """

    def is_extra(name: str) -> bool:
        number = _FIRST_NUMBER.search(name)
        return bool(_FURTHER_TOKENS.search(name)) or (number is not None and int(number[1]) >= depth)

    extra = sorted(name for name in names if is_extra(name))
    return f"{len(extra)} weights beyond the {depth} blocks, the first {extra[0]}" if extra else ""
