"""Hidden states of chosen layers, read with hooks: the one place that turns a forward pass into numbered layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from anglekit.architectures import Stream, blocks, depth, model_streams, stack
from anglekit.errors import InputError
from anglekit.probes import ProbeBatch

__all__ = ["FinalNorm", "LayerRecorder", "TokenStates", "evaluation_mode", "forward_inputs", "token_states"]

FinalNorm = Literal["excluded", "included"]


def _first_tensor(value: Any) -> Tensor:  # noqa: ANN401 - blocks return tensors, tuples or model outputs
    """Return the hidden state in what a block or a stack returned."""
    return value if isinstance(value, Tensor) else value[0]


class LayerRecorder:
    """Records the hidden states of chosen layers in every forward pass that runs inside the `with` block.

    Layer 0 is what enters block 0, layer `b + 1` what leaves block `b`; with `final_norm="included"` the last layer is
    the stack's own output (Hugging Face's last hidden state), with `"excluded"` the residual stream before the norm.
    Gradients flow through what is recorded. The hooks are removed on leaving, whatever happened inside.

    Args:
        model: a transformers model, with or without a head.
        layers: for each stream, the layers to keep.
        final_norm: which last state to take.

    Attributes:
        states: after a forward pass, `states[stream][layer]` of shape (batch, length, width).

    Raises:
        InputError: a stream that the model does not have, or a layer out of range.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        layers: Mapping[Stream, Sequence[int]],
        final_norm: FinalNorm = "excluded",
    ) -> None:
        if final_norm not in get_args(FinalNorm):
            raise InputError(f"final norm {final_norm!r} is not known; allowed: {', '.join(get_args(FinalNorm))}")
        available = model_streams(model.config)
        for stream, wanted in layers.items():
            if stream not in available:
                raise InputError(f"{type(model).__name__} has no {stream} stream; it has: {', '.join(available)}")
            last = depth(model.config, stream)
            wrong = [layer for layer in wanted if not 0 <= layer <= last]
            if wrong:
                raise InputError(
                    f"layer {wrong[0]} does not exist in the {stream} of {type(model).__name__}; "
                    f"layers run from 0 (embedding) to {last}"
                )
        self.model = model
        self.layers = {stream: tuple(sorted(set(wanted))) for stream, wanted in layers.items()}
        self.final_norm: FinalNorm = final_norm
        self.states: dict[Stream, dict[int, Tensor]] = {stream: {} for stream in layers}
        self._handles: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> LayerRecorder:
        """Install the hooks."""
        for stream, wanted in self.layers.items():
            modules = blocks(self.model, stream)
            for layer in wanted:
                if layer == 0:
                    self._watch_input(modules[0], stream)
                elif layer == len(modules) and self.final_norm == "included":
                    self._watch_output(stack(self.model, stream), stream, layer)
                else:
                    self._watch_output(modules[layer - 1], stream, layer)
        return self

    def __exit__(self, *_error: object) -> None:
        """Remove the hooks; what was recorded last stays readable."""
        while self._handles:
            self._handles.pop().remove()

    def clear(self) -> None:
        """Forget what was recorded, so that the memory can be used again."""
        for kept in self.states.values():
            kept.clear()

    def _watch_input(self, module: nn.Module, stream: Stream) -> None:
        def keep(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self.states[stream][0] = args[0] if args else kwargs["hidden_states"]

        self._handles.append(module.register_forward_pre_hook(keep, with_kwargs=True))

    def _watch_output(self, module: nn.Module, stream: Stream, layer: int) -> None:
        def keep(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:  # noqa: ANN401
            self.states[stream][layer] = _first_tensor(output)

        self._handles.append(module.register_forward_hook(keep))


@contextmanager
def evaluation_mode(model: PreTrainedModel) -> Iterator[None]:
    """Switch dropout off inside the block and give every module its own mode back afterwards."""
    training = [module for module in model.modules() if module.training]
    model.eval()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        for module in training:
            module.training = True


def forward_inputs(model: PreTrainedModel, batch: ProbeBatch) -> dict[str, Any]:
    """Return the keyword arguments with which the headless model reads a batch, on the model's device."""
    on_device = batch.to(model.device)
    inputs: dict[str, Any] = {"input_ids": on_device.input_ids}
    if on_device.attention_mask is not None:
        inputs["attention_mask"] = on_device.attention_mask
    if on_device.token_type_ids is not None and getattr(model.config, "type_vocab_size", 0) > 1:
        inputs["token_type_ids"] = on_device.token_type_ids
    streams = model_streams(model.config)
    if len(streams) == 2:
        inputs["decoder_input_ids"] = on_device.decoder_input_ids
        if on_device.decoder_attention_mask is not None:
            inputs["decoder_attention_mask"] = on_device.decoder_attention_mask
    if "decoder" in streams:
        inputs["use_cache"] = False
    return inputs


@dataclass(frozen=True)
class TokenStates:
    """The states of one batch and stream, padding gone.

    Attributes:
        layers: the layer numbers, ascending.
        states: one tensor of shape (tokens, width) for each layer, in the same order.
    """

    layers: tuple[int, ...]
    states: tuple[Tensor, ...]


def token_states(recorder: LayerRecorder, batch: ProbeBatch) -> dict[Stream, TokenStates]:
    """Run the recorder's model on a batch and return the states of the tokens that count, without gradients.

    The recorder must be entered and its model in evaluation mode. Tokens come in the order of
    `batch.token_index(stream)`, which is the order of `batch.token_example(stream)`.
    """
    base = recorder.model.base_model
    recorder.clear()
    with torch.inference_mode():
        base(**forward_inputs(recorder.model, batch))
        result: dict[Stream, TokenStates] = {}
        for stream, kept in recorder.states.items():
            index = batch.token_index(stream)
            states = []
            for layer in recorder.layers[stream]:
                flat = kept[layer].flatten(0, 1)
                # A batch without padding needs no copy.
                states.append(flat if len(index) == len(flat) else flat.index_select(0, index.to(flat.device)))
            result[stream] = TokenStates(recorder.layers[stream], tuple(states))
    recorder.clear()
    return result
