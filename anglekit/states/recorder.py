"""Hidden states of chosen layers, read with hooks: the one place that turns a forward pass into numbered layers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from anglekit.errors import InputError
from anglekit.models.architectures import blocks, depth, model_streams, stack
from anglekit.probes.batches import ProbeBatch
from anglekit.runtime.placement import compute_device
from anglekit.runtime.workspace import Workspace
from anglekit.vocabulary import FinalNorm, Stream


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
        final_norm: whether the last layer's state is taken after or before the final norm.

    Attributes:
        states: after a forward pass, `states[stream][layer]` of shape (batch, length, width).
        keep: called with stream, layer and state, as each state comes; puts it into `states` unless replaced. A
            replacement applies only to passes in the thread that set it.

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
            raise InputError(
                f"final norm {final_norm!r} is not known", allowed=f"allowed: {', '.join(get_args(FinalNorm))}"
            )
        available = model_streams(model.config)
        for stream, wanted in layers.items():
            if stream not in available:
                raise InputError(f"{type(model).__name__} has no {stream} stream", f"it has: {', '.join(available)}")
            last = depth(model.config, stream)
            wrong = [layer for layer in wanted if not 0 <= layer <= last]
            if wrong:
                raise InputError(
                    f"layer {wrong[0]} does not exist in the {stream} of {type(model).__name__}",
                    f"layers run from 0 (embedding) to {last}",
                )
        self.model = model
        self.layers = {stream: tuple(sorted(set(wanted))) for stream, wanted in layers.items()}
        self.final_norm: FinalNorm = final_norm
        self.states: dict[Stream, dict[int, Tensor]] = {stream: {} for stream in layers}
        self._of_thread = threading.local()
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

    @property
    def keep(self) -> Callable[[Stream, int, Tensor], None]:  # noqa: D102 - see the class
        return getattr(self._of_thread, "keep", self._keep_whole)

    @keep.setter
    def keep(self, take: Callable[[Stream, int, Tensor], None]) -> None:
        self._of_thread.keep = take

    def _keep_whole(self, stream: Stream, layer: int, state: Tensor) -> None:
        self.states[stream][layer] = state

    def _watch_input(self, module: nn.Module, stream: Stream) -> None:
        def keep(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self.keep(stream, 0, args[0] if args else kwargs["hidden_states"])

        self._handles.append(module.register_forward_pre_hook(keep, with_kwargs=True))

    def _watch_output(self, module: nn.Module, stream: Stream, layer: int) -> None:
        def keep(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:  # noqa: ANN401
            self.keep(stream, layer, _first_tensor(output))

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
    """Return a batch as keyword arguments of the headless model, on the model's device."""
    on_device = batch.to(compute_device(model))
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


@dataclass(frozen=True, eq=False)
class TokenStates:
    """The states of one batch and stream, padding gone.

    Attributes:
        layers: the layer numbers, ascending.
        states: shape (layers, tokens, width), layers in the same order.
    """

    layers: tuple[int, ...]
    states: Tensor


class _TokenCollector:
    """Copies the tokens that count from each state as it comes, while it is still in the processor's cache.

    With a copy, the model's own memory is freed at once, as in a forward pass that keeps nothing.
    """

    def __init__(self, layers: Mapping[Stream, Sequence[int]], batch: ProbeBatch, workspace: Workspace) -> None:
        self.workspace = workspace
        self.rows = {stream: {layer: row for row, layer in enumerate(kept)} for stream, kept in layers.items()}
        self.index = {stream: batch.token_index(stream) for stream in layers}
        self.states: dict[Stream, Tensor] = {}

    def keep(self, stream: Stream, layer: int, state: Tensor) -> None:
        """Copy one layer's tokens to its row."""
        flat = state.flatten(0, 1)
        index = self.index[stream] = self.index[stream].to(flat.device)
        rows = self.states.get(stream)
        if rows is None:
            shape = (len(self.rows[stream]), len(index), flat.shape[1])
            rows = self.states[stream] = self.workspace.take(stream, shape, flat.dtype, flat.device)
        elif flat.dtype != rows.dtype:
            rows = self.states[stream] = rows.to(torch.promote_types(flat.dtype, rows.dtype))
        row = rows[self.rows[stream][layer]]
        if len(index) == len(flat):
            row.copy_(flat)
        elif (flat.device, flat.dtype) == (row.device, row.dtype):
            torch.index_select(flat, 0, index, out=row)
        else:
            row.copy_(flat.index_select(0, index))


def token_states(
    recorder: LayerRecorder, batch: ProbeBatch, workspace: Workspace | None = None
) -> dict[Stream, TokenStates]:
    """Run the recorder's model on a batch and return the states of the tokens that count, without gradients.

    The recorder must be entered and its model in evaluation mode. Tokens come in the order of
    `batch.token_index(stream)`, which is the order of `batch.token_example(stream)`. A model that is spread over
    devices gives its states on the device of the lowest layer that is kept.

    Args:
        recorder: the recorder of the layers to keep.
        batch: the examples.
        workspace: used by this recorder alone; the next call with it overwrites the states. None: the caller owns them.
    """
    collector = _TokenCollector(recorder.layers, batch, workspace or Workspace())
    keep, recorder.keep = recorder.keep, collector.keep
    try:
        with torch.inference_mode():
            recorder.model.base_model(**forward_inputs(recorder.model, batch))
    finally:
        recorder.keep = keep
    return {stream: TokenStates(recorder.layers[stream], states) for stream, states in collector.states.items()}
