"""Passes that end before a model's head, whose logits the losses then make chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from anglekit.distillation.losses.divergences import one_chunk
from anglekit.distillation.losses.head_logits import HeadLogits, Logits

# Models that take more than these are not tried on a few tokens, and run whole.
_PLAIN_INPUTS: Final = frozenset(
    {"input_ids", "attention_mask", "decoder_input_ids", "decoder_attention_mask", "token_type_ids", "use_cache"}
)
_TRIED_TOKENS: Final = 8
# How far logits that are made again may be from the model's own, as a share of the largest: rounding.
_ROUNDING: Final = 1e-5


class HeadApart:
    """Runs a model without its head where the logits are many and follow from the head's input alone.

    That is, where the head is a plain linear layer whose output the model returns as it is. A model that scales or caps
    its logits behind the head, or a head that is sharded, quantised, hooked or under autocast, runs whole. Whether the
    output is returned as it is, is tried once on a few tokens.

    Args:
        model: whose head it is.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._returned_as_made: bool | None = None

    @contextmanager
    def left_out(self, inputs: Mapping[str, Any]) -> Iterator[list[HeadLogits]]:
        """Leave the head out of the passes within, if it may be; the list then gets what stands for their logits."""
        head = self._head(inputs)
        kept: list[HeadLogits] = []
        if head is None:
            yield kept
            return

        def instead(states: Tensor) -> Tensor:
            kept.append(HeadLogits(states, head.weight, head.bias))
            return states.new_empty((*states.shape[:-1], 0))

        head.forward = instead  # type: ignore[method-assign, assignment]
        try:
            yield kept
        finally:
            del head.forward  # the class's own is left

    def of_states(self, states: Tensor) -> HeadLogits | None:
        """Return what stands for the logits of states that entered the head, if it may.

        Args:
            states: (batch, time, width); that the model returns what its head makes of them is known.
        """
        head = _plain_head(self._model)
        if head is None or getattr(self._model, "final_logits_bias", None) is not None:
            return None
        here = head.weight.device == states.device and head.weight.dtype == states.dtype
        many = states[..., 0].numel() * head.out_features > one_chunk(states.device)
        return HeadLogits(states, head.weight, head.bias) if here and many else None

    def _head(self, inputs: Mapping[str, Any]) -> nn.Linear | None:
        """Return the head, if it may be left out of a pass of these inputs."""
        if self._returned_as_made is False:
            return None
        ids = inputs.get("decoder_input_ids", inputs.get("input_ids"))
        head = _plain_head(self._model)
        if head is None or not isinstance(ids, Tensor) or ids.dim() != 2 or head.weight.device != ids.device:
            return None
        if ids.numel() * head.out_features <= one_chunk(ids.device) or torch.is_autocast_enabled(ids.device.type):
            return None
        if self._returned_as_made is None:
            self._returned_as_made = set(inputs) <= _PLAIN_INPUTS and self._tried(head, inputs)
        return head if self._returned_as_made else None

    def _tried(self, head: nn.Linear, inputs: Mapping[str, Any]) -> bool:
        """Return whether the model returns what its head makes; random states are left as they are."""
        few = {name: value[:1, :_TRIED_TOKENS] for name, value in inputs.items() if isinstance(value, Tensor)}
        few = {name: torch.ones_like(value) if name.endswith("mask") else value for name, value in few.items()}
        made: list[Tensor] = []
        hook = head.register_forward_hook(lambda _module, _given, found: made.append(found))
        device = head.weight.device
        try:
            with torch.no_grad(), torch.random.fork_rng([device] if device.type == "cuda" else []):
                said = self._model(**few).logits
        finally:
            hook.remove()
        if len(made) != 1 or made[0].shape != said.shape:
            return False
        return bool((made[0] - said).abs().max() <= _ROUNDING * said.abs().max())


def logits_of(outputs: Any, kept: Sequence[HeadLogits]) -> Logits:  # noqa: ANN401 - transformers' outputs
    """Return the logits of a pass: the model's, or what stands for them."""
    logits: Logits = kept[-1] if kept else outputs.logits
    return logits


def _plain_head(model: PreTrainedModel) -> nn.Linear | None:
    """Return the head, if it is a linear layer like any other, whose weights can be read outside the model's pass."""
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    if type(head) is not nn.Linear or type(head.weight) is not nn.Parameter:
        return None
    hooked = head._forward_hooks or head._forward_pre_hooks or "forward" in head.__dict__
    return None if hooked else head
