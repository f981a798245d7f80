"""Hidden states of chosen layers, read with hooks: the one place that turns a forward pass into numbered layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, get_args
from weakref import WeakKeyDictionary

import greenlet
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from anglekit.errors import InputError
from anglekit.models.architectures import blocks, depth, model_streams, stack, width
from anglekit.models.check import ModelFacts, ModuleModes, StreamFacts, entered, facts_of, handed_over, laid_out
from anglekit.models.library_messages import quiet_transformers
from anglekit.probes.batches import ProbeBatch
from anglekit.runtime.passes import told_failures
from anglekit.runtime.placement import compute_device
from anglekit.runtime.workspace import Workspace
from anglekit.vocabulary import FinalNorm, Stream


class LayerRecorder:
    """Records the hidden states of chosen layers in every forward pass that runs inside the `with` block.

    Layer 0 is what enters block 0, layer `b + 1` what leaves block `b`; with `final_norm="included"` the last layer is
    the stack's own output (Hugging Face's last hidden state), with `"excluded"` the residual stream before the norm.
    Gradients flow through what is recorded. The hooks are removed on leaving, whatever happened inside.

    Every state is (batch, length, width), one for each token of the pass: what the blocks hand over in another form is
    turned or cut, as `check_model` found when the model was first seen.

    Args:
        model: a transformers model, with or without a head.
        layers: for each stream, the layers to keep.
        final_norm: whether the last layer's state is taken after or before the final norm.

    Attributes:
        states: after a forward pass, `states[stream][layer]` of shape (batch, length, width).
        keep: called with stream, layer and state, as each state comes; puts it into `states` unless replaced. A
            replacement applies only to passes in the thread or coroutine (greenlet) that set it.

    Raises:
        InputError: a stream that the model does not have, a layer out of range, a model that cannot be read layer by
            layer (`check_model`), or with `final_norm="included"` one whose own output has another width. From a pass:
            a layer did not come exactly once, or not with one state for each token.
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
        # Where no state is kept, nothing needs to be known: a model without layers to read can still give logits.
        facts = facts_of(model) if any(len(wanted) for wanted in layers.values()) else ModelFacts({})
        available = tuple(facts.streams) or model_streams(model.config)
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
            found = facts.streams.get(stream, StreamFacts())
            if final_norm == "included" and last in wanted and found.last_width not in (0, width(model.config)):
                raise InputError(
                    f"the {stream} of {type(model).__name__} ends in states {found.last_width} wide and its layers are "
                    f"{width(model.config)} wide",
                    "leave the final norm out: --final-norm excluded",
                )
        self.model, self.facts = model, facts
        self.layers = {stream: tuple(sorted(set(wanted))) for stream, wanted in layers.items()}
        self.final_norm: FinalNorm = final_norm
        self.states: dict[Stream, dict[int, Tensor]] = {stream: {} for stream in layers}
        self._running: WeakKeyDictionary[greenlet.greenlet, _Running] = WeakKeyDictionary()
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self._modes: dict[Stream, ModuleModes] = {}

    def __enter__(self) -> LayerRecorder:
        """Install the hooks."""
        for stream, wanted in self.layers.items():
            modules, home = blocks(self.model, stream), stack(self.model, stream)
            if self.facts.restless == "modes":
                self._modes[stream] = ModuleModes(home)
            self._handles.append(home.register_forward_pre_hook(partial(self._begin, stream), with_kwargs=True))
            for layer in wanted:
                if layer == len(modules) and self.final_norm == "included":
                    self._watch_output(home, stream, layer)
                elif layer == 0 or layer in self.facts.streams[stream].entering:
                    self._watch_input(modules[layer], stream, layer)
                else:
                    self._watch_output(modules[layer - 1], stream, layer)
            self._handles.append(home.register_forward_hook(partial(self._finish, stream)))
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
        return self._here.keep or self._keep_whole

    @keep.setter
    def keep(self, take: Callable[[Stream, int, Tensor], None]) -> None:
        self._here.keep = take

    @property
    def _here(self) -> _Running:
        """What belongs to this thread, or to this coroutine in it: passes on their way at once do not meet."""
        coroutine = greenlet.getcurrent()
        found = self._running.get(coroutine)
        if found is None:
            found = self._running[coroutine] = _Running()
        return found

    def _keep_whole(self, stream: Stream, layer: int, state: Tensor) -> None:
        self.states[stream][layer] = state

    def _begin(self, stream: Stream, _stack: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note how many texts of how many tokens come, and that no layer has."""
        given = (kwargs.get("input_ids"), kwargs.get("inputs_embeds"), *args)
        text = next((value for value in given if isinstance(value, Tensor) and value.ndim >= 2), None)
        self._passes[stream] = _StreamPass(None if text is None else (text.shape[0], text.shape[1]))

    def _finish(self, stream: Stream, _stack: nn.Module, _args: tuple[Any, ...], _output: Any) -> None:  # noqa: ANN401
        """Check that all layers came, and have the next pass find the modes that this one found."""
        if stream in self._modes and not torch.is_grad_enabled():  # a backward pass may need what this pass ran
            self._modes[stream].set_back()
        if (ended := self._passes.pop(stream, None)) is not None:
            _check_came(self.model, stream, self.layers[stream], ended.came)

    @property
    def _passes(self) -> dict[Stream, _StreamPass]:
        """The streams' passes that run now."""
        return self._here.passes

    def _take(self, stream: Stream, layer: int, state: Tensor, *, own_end: bool = False) -> None:
        """Bring a state into its form and keep it; here alone states become (batch, length, width)."""
        facts, running = self.facts.streams[stream], self._passes.get(stream)
        if running is not None:
            running.came.append(layer)
        if running is not None and running.size is not None:
            state = laid_out(
                state, StreamFacts() if own_end else facts, *running.size, cut=self.facts.restless == "modes"
            )
        elif facts.turned or facts.padded:
            raise InputError(
                f"the {stream} of {type(self.model).__name__} ran without input_ids, and its states need their length",
                "give it input_ids",
            )
        self.keep(stream, layer, state.clone() if facts.overwritten else state)

    def _watch_input(self, module: nn.Module, stream: Stream, layer: int) -> None:
        def keep(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._take(stream, layer, entered(args, kwargs))

        self._handles.append(module.register_forward_pre_hook(keep, with_kwargs=True))

    def _watch_output(self, module: nn.Module, stream: Stream, layer: int) -> None:
        own_end = module is stack(self.model, stream)

        def keep(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:  # noqa: ANN401
            self._take(stream, layer, handed_over(output), own_end=own_end)

        self._handles.append(module.register_forward_hook(keep))


@dataclass(frozen=True)
class _StreamPass:
    """A pass of one stream that runs now: its texts and their tokens, None where unknown, and the layers so far."""

    size: tuple[int, int] | None
    came: list[int] = field(default_factory=list)


@dataclass(eq=False)
class _Running:
    """What a thread or coroutine has on its way: what keeps its states, and the streams' passes."""

    keep: Callable[[Stream, int, Tensor], None] | None = None
    passes: dict[Stream, _StreamPass] = field(default_factory=dict)


def _check_came(model: PreTrainedModel, stream: Stream, layers: Sequence[int], came: Sequence[int]) -> None:
    """Check that every layer came exactly once in a pass.

    Raises:
        InputError: one did not; it is named.
    """
    for layer in layers:
        if (times := list(came).count(layer)) != 1:
            raise InputError(
                f"layer {layer} of the {stream} of {type(model).__name__} (type {model.config.model_type}) came "
                f"{times} times in a pass",
                "its blocks are bypassed or shared: choose a model with one module per layer",
            )


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


def run_recorded(recorder: LayerRecorder, batch: ProbeBatch, keep: Callable[[Stream, int, Tensor], None]) -> None:
    """Run the recorder's model on a batch without gradients, and have each state kept as it comes.

    Args:
        recorder: entered, its model in evaluation mode.
        batch: the examples.
        keep: called with stream, layer and state, (batch, length, width), padding included.

    Raises:
        InputError: a layer did not come exactly once.
    """
    came: dict[Stream, list[int]] = {stream: [] for stream in recorder.layers}

    def keep_once(stream: Stream, layer: int, state: Tensor) -> None:
        came[stream].append(layer)
        keep(stream, layer, state)

    before, recorder.keep = recorder.keep, keep_once
    try:
        # A model whose modes are set back tells of each change.
        quiet = quiet_transformers() if recorder.facts.restless == "modes" else nullcontext()
        inputs = forward_inputs(recorder.model, batch)
        with told_failures("the analysis", recorder.model, inputs), quiet, torch.inference_mode():
            recorder.model.base_model(**inputs)
    finally:
        recorder.keep = before
    for stream, layers in recorder.layers.items():
        # Where a stack is bypassed, no hook of it tells; a row that nothing was written to must not be read.
        _check_came(recorder.model, stream, layers, came[stream])


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
    run_recorded(recorder, batch, collector.keep)
    return {stream: TokenStates(recorder.layers[stream], states) for stream, states in collector.states.items()}
