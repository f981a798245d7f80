"""Each model is asked itself, by a few tiny passes: what its blocks hand over, what they read, how texts share a batch.

Nothing here goes by the name of a type. What cannot be read layer by layer is refused in one line.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.linalg import vector_norm
from transformers import PretrainedConfig, PreTrainedModel

from anglekit.errors import InputError, foreign_failures, suggest
from anglekit.models.architectures import blocks, model_streams, named_final_norm, settle_streams, stack, width
from anglekit.models.lengths import position_limit
from anglekit.models.library_messages import quiet_transformers
from anglekit.models.stored.offloaded import can_stand_in, stand_ins
from anglekit.models.supported import supported_types
from anglekit.runtime.placement import compute_device
from anglekit.vocabulary import Batching, Stream

# Tokens of the texts that are run. None equals the number of texts in a batch, so that the axes can be told apart, and
# primes are padded by every model that works on windows.
_LENGTHS: Final[Mapping[Stream, tuple[int, ...]]] = {"encoder": (5, 11), "decoder": (5, 13)}
# More positions than the texts and their offset need.
_FEW_POSITIONS = 32
# So many tokens of a vocabulary are enough to choose from.
_MOST_IDS = 4096
# Copies of a text that overflow an expert whose capacity is no plain number.
_MANY = 64
# Half precision, where a rounding is as large as what a far token changes.
_COARSE = 1e-4
# Positions that a block works on for each short text where it fills whole windows (Longformer, LED, Pegasus-X: 512).
_WINDOW = 128
# How much more than one rounding two computations of one state may be apart after all blocks.
_ROUNDING = 1024
# Where the texts of `_variants` stand; of a second stream the last two are two rows on.
_SHORT, _LONG, _AGAIN, _LAST_CHANGED, _FIRST_CHANGED = range(5)


@dataclass(frozen=True)
class StreamFacts:
    """What running one stream of a model shows.

    Attributes:
        turned: its blocks hand over (length, batch, width) instead of (batch, length, width).
        padded: its blocks may hand over more positions than the text has; those of the text come first.
        entering: the layers, of 1 to the last but one, whose state is what enters the next block and not what leaves
            their own: something outside the blocks works in between, and the model's own hidden states stand behind it.
        causal: whether no state depends on a later token; None where the passes do not tell.
        final_norm: the name in the stack of the norm that makes the stack's own output of what the last block hands
            over; "" where there is none.
        last_state: what the stack's own output is: the last block's state (`block`), its norm (`norm`), or something
            else that is made of it (`other`).
        last_width: the width of the stack's own output.
        own_states: which of the model's own hidden states equal the recorded layers, in words; "" where it has none.
        overwritten: a later part of the pass overwrites states that were handed over, so that they must be copied.
    """

    turned: bool = False
    padded: bool = False
    entering: frozenset[int] = frozenset()
    causal: bool | None = None
    final_norm: str = ""
    last_state: Literal["block", "norm", "other"] = "block"
    last_width: int = 0
    own_states: str = ""
    overwritten: bool = False


@dataclass(frozen=True)
class ModelFacts:
    """What running a model shows.

    Attributes:
        streams: the streams that it has, with what is known of each.
        batching: which texts may share a batch.
        restless: what a pass changes in the model: `modes` (its way of attention, a capacity), which are set back
            behind each pass, `weights`, or "" for nothing. Passes of such a model must not run at once.
        unchecked: why nothing was run, in words; "" where the model was run. All facts are then the usual ones.
        n_blocks: the number of blocks of each stream when it was run.
    """

    streams: Mapping[Stream, StreamFacts]
    batching: Batching = "padded"
    restless: Literal["", "modes", "weights"] = ""
    unchecked: str = ""
    n_blocks: Mapping[Stream, int] = field(default_factory=dict)

    @property
    def batchable(self) -> bool:
        """Whether texts of unequal length may share a padded batch."""
        return self.batching == "padded"


_FACTS: Final[weakref.WeakKeyDictionary[nn.Module, ModelFacts]] = weakref.WeakKeyDictionary()


def facts_of(model: PreTrainedModel) -> ModelFacts:
    """Return what `check_model` says, run once for each model object; the model with and without its head are one.

    A model whose number of blocks has changed since is checked again.

    Raises:
        InputError: as `check_model`.
    """
    base = model.base_model
    found = _FACTS.get(base)
    if found is None or any(len(blocks(model, stream)) != number for stream, number in found.n_blocks.items()):
        found = _FACTS[base] = check_model(model)
    return found


def adopt_facts(model: PreTrainedModel, other: PreTrainedModel) -> None:
    """Let a model have the facts of another one of the same configuration, and so spare its check."""
    _FACTS[model.base_model] = facts_of(other)


def know_facts(model: PreTrainedModel, facts: ModelFacts) -> None:
    """Let a model that cannot be run, for it has no weights, have the facts of the one that it stands for."""
    _FACTS[model.base_model] = facts


def final_norm_module(model: PreTrainedModel, stream: Stream) -> nn.Module | None:
    """Return the norm between what a stack's last block hands over and the stack's own output, or None."""
    name = facts_of(model).streams[stream].final_norm
    return stack(model, stream).get_submodule(name) if name else None


def check_model(model: PreTrainedModel) -> ModelFacts:
    """Run a few short texts of random tokens and return what the model does with them; it is left as it was found.

    Recorded layers are compared with the model's own hidden states where it has them: all but the last must be among
    them, and the last up to a norm. Every block must come once a pass, in order, with (batch, length, width), or with
    what can be brought into that form. One text alone is compared with the same text in batches, and texts that differ
    in one token with each other. Where the configuration told another stream than the passes show, the passes win, for
    all models of that type from then on (`settle_streams`).

    Random weights stand for those that lie on the disk: what is asked follows from how the model is built. Weights that
    are elsewhere (sharded) are not run: see `ModelFacts.unchecked`. The usual facts then stand there, and of padding
    what the census of types knows.

    Args:
        model: a transformers model, with or without a head, on its device.

    Raises:
        InputError: it cannot run on texts alone, or what its blocks hand over is not one state for each token.
    """
    check_language(model.config, type(model).__name__)
    streams = model_streams(model.config)
    n_blocks = {stream: len(blocks(model, stream)) for stream in streams}
    reason = _not_here(model)
    if reason and can_stand_in(model):
        with stand_ins(model):
            return check_model(model)
    if reason:
        usual = {stream: StreamFacts(final_norm=named_final_norm(model, stream) or "") for stream in streams}
        known = supported_types().get(str(model.config.model_type))
        batching: Batching = "equal lengths" if known is not None and known.padding == "dependent" else "padded"
        return ModelFacts(usual, batching, unchecked=reason, n_blocks=n_blocks)
    with quiet_transformers(), _as_found(model) as watch, torch.no_grad():
        texts = _texts(model, streams)
        whole = _Pass(model, _variants(texts), own=True)
        found = {stream: _stream_facts(model, stream, whole) for stream in streams}
        found = {stream: replace(each, causal=_is_causal(whole, stream, each)) for stream, each in found.items()}
        batching = _batching(model, texts, found, whole)
        if batching == "equal lengths":
            _check_one_direction(model, texts, found)
        restless = watch.changed()
        if batching == "padded" and watch.modes.parts_changed():
            # Short texts had it take another way of attention: how a text is read depends on the batch's length.
            batching = "equal lengths"
        if restless == "weights":
            # RWKV divides weights before it evaluates and multiplies them again before it trains.
            model.train()
            _Pass(model, {stream: [each[0]] for stream, each in texts.items()})
            model.eval()  # type: ignore[no-untyped-call]
    if len(streams) == 1:
        (facts,) = found.values()
        told: Stream = streams[0] if facts.causal is None else "decoder" if facts.causal else "encoder"
        if told != streams[0]:
            settle_streams(model.config, (told,))
            found, n_blocks = {told: facts}, {told: n_blocks[streams[0]]}
    return ModelFacts(found, batching, restless, n_blocks=n_blocks)


def check_language(config: PretrainedConfig, whose: str) -> None:
    """Refuse a model with an adapter for each language (X-MOD) that does not say which of them reads.

    Args:
        config: of any model.
        whose: it is: the checkpoint's source, or the model's class.

    Raises:
        InputError: its default language is none of its languages.
    """
    languages = getattr(config, "languages", None)
    if not hasattr(config, "default_language") or not isinstance(languages, list | tuple):
        return
    if config.default_language not in languages:
        raise InputError(
            f"{whose} has an adapter for each language, and its default_language is {config.default_language!r}",
            "write one into its config.json, or in Python call set_default_language",
            allowed=suggest(str(config.default_language), map(str, languages)),
        )


def laid_out(state: Tensor, facts: StreamFacts, batch: int, length: int, *, cut: bool = False) -> Tensor:
    """Return what a block handed over as (batch, length, width): turned, or without the positions behind the text.

    Args:
        state: as it was handed over.
        facts: of its stream.
        batch: the texts of the pass.
        length: the tokens of the longest one.
        cut: leave out positions behind the text although the check saw none (a way of attention that starts with longer
            texts).

    Raises:
        InputError: it is not one state for each token.
    """
    if facts.turned and state.ndim == 3:
        state = state.transpose(0, 1)
    if state.ndim == 3 and state.shape[1] > length and (facts.padded or cut):
        state = state[:, :length]
    if state.ndim != 3 or tuple(state.shape[:2]) != (batch, length):
        raise InputError(
            f"a block handed over states of shape {tuple(state.shape)} for {batch} texts of {length} tokens",
            "states that are not one for each token cannot be analysed: choose another model",
        )
    return state


def entered(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor:
    """Return the state among the arguments of a block.

    Raises:
        InputError: there is none.
    """
    for value in (*args[:1], kwargs.get("hidden_states"), *args[1:], *kwargs.values()):
        if isinstance(value, Tensor) and value.is_floating_point() and value.ndim >= 3:
            return value
    raise InputError("a block was given no states", "choose another model")


def handed_over(value: Any) -> Tensor:  # noqa: ANN401 - blocks return tensors, tuples or model outputs
    """Return the state in what a block or a stack returned.

    Raises:
        InputError: there is none.
    """
    while not isinstance(value, Tensor):
        try:
            value = value[0]
        except (TypeError, KeyError, IndexError) as error:
            raise InputError(
                f"a block returned no states but a {type(value).__name__}", "choose another model"
            ) from error
    return value


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Switch dropout off inside the block and give every module its own mode back afterwards."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _not_here(model: PreTrainedModel) -> str:
    """Return in words why a model cannot be run as it is, or ""."""
    weights = list(model.parameters())
    if any(weight.is_meta for weight in weights):
        return "weights are offloaded"
    if any(hasattr(weight, "ds_id") for weight in weights):
        return "weights are sharded"
    return ""


# ---- running ----


class _Pass:
    """One forward pass over texts, and what came in it.

    Where short texts fill whole windows, only the first block of a stream computes, if all are of one class: the later
    ones hand on what they are given, in the form in which the first returned it. All 12 blocks of Longformer, with
    windows of 512, would take seconds.

    Attributes:
        texts: by stream the tokens of each text.
        enters: by stream, for each block what entered it.
        leaves: the same for what left it.
        calls: the numbers of the blocks in the order in which they ran.
        ends: by stream the stack's own output.
        after: by stream the modules that ran behind the last block: name, what entered and what left.
        own: by stream the model's own hidden states, empty where it has none or they were not asked for.
        doubled: the streams whose blocks handed over a second state of the same shape.
        overwritten: the streams in which something was written over what a block had handed over.
    """

    def __init__(self, model: PreTrainedModel, texts: Mapping[Stream, Sequence[Tensor]], *, own: bool = False) -> None:
        self.model, self.texts = model, texts
        self.enters: dict[Stream, dict[int, Tensor]] = {stream: {} for stream in texts}
        self.leaves: dict[Stream, dict[int, Tensor]] = {stream: {} for stream in texts}
        self.calls: dict[Stream, list[int]] = {stream: [] for stream in texts}
        self.ends: dict[Stream, Tensor] = {}
        self.after: dict[Stream, list[tuple[str, Tensor, Tensor]]] = {stream: [] for stream in texts}
        self.own: dict[Stream, tuple[Tensor, ...]] = dict.fromkeys(texts, ())
        self.doubled: dict[Stream, bool] = dict.fromkeys(texts, False)
        self._given: list[tuple[Stream, Tensor, Tensor]] = []
        self._passed_over: list[tuple[nn.Module, Any]] = []
        handles = [handle for stream in texts for handle in self._hooks(stream)]
        try:
            output = self._run(own)
        finally:
            for handle in handles:
                handle.remove()
            for block, forward in self._passed_over:
                del block.forward
                if forward is not None:
                    block.forward = forward
        for stream in texts if own else ():
            name = f"{stream}_hidden_states" if len(texts) == 2 else "hidden_states"
            told = getattr(output, name, None) or ()
            self.own[stream] = tuple(_copied(each) for each in told if isinstance(each, Tensor))
        self.overwritten: set[Stream] = {
            stream for stream, given, copy in self._given if not torch.equal(given.cpu(), copy)
        }

    def size(self, stream: Stream) -> tuple[int, int]:
        """Return the number of texts and the tokens of the longest."""
        return len(self.texts[stream]), max(map(len, self.texts[stream]))

    def layers(self, stream: Stream, facts: StreamFacts) -> list[Tensor]:
        """Return the states of all layers, each (batch, length, width), at every position."""
        last = len(self.leaves[stream])
        raw = [self.enters[stream][0], *(self.leaves[stream][block] for block in range(last))]
        for layer in facts.entering:
            raw[layer] = self.enters[stream][layer]
        return [laid_out(state, facts, *self.size(stream)) for state in raw]

    def of_text(self, stream: Stream, facts: StreamFacts, text: int) -> Tensor:
        """Return one text's states, padding gone: (layers, length, width)."""
        return torch.stack([layer[text, : len(self.texts[stream][text])] for layer in self.layers(stream, facts)])

    def _run(self, own: bool) -> Any:  # noqa: ANN401 - a model output
        base, device = self.model.base_model, compute_device(self.model)
        inputs: dict[str, Any] = {}
        for stream, texts in self.texts.items():
            prefix = "decoder_" if stream == "decoder" and len(self.texts) == 2 else ""
            longest = max(map(len, texts))
            ids = torch.full((len(texts), longest), _padding_id(self.model.config))
            for row, text in zip(ids, texts, strict=True):
                row[: len(text)] = text
            inputs[f"{prefix}input_ids"] = ids.to(device)
            lengths = torch.tensor([len(text) for text in texts])
            if int(lengths.min()) < longest:
                mask = torch.arange(longest) < lengths[:, None]
                inputs[f"{prefix}attention_mask"] = mask.long().to(device)
        if "decoder" in self.texts:
            inputs["use_cache"] = False
        if own:
            inputs["output_hidden_states"] = True
        with foreign_failures(partial(_cannot_run, self.model)):
            return base(**inputs)

    def _hooks(self, stream: Stream) -> Iterator[torch.utils.hooks.RemovableHandle]:
        modules, home = blocks(self.model, stream), stack(self.model, stream)
        for number, block in enumerate(modules):
            yield block.register_forward_pre_hook(partial(self._enter, stream, number), with_kwargs=True)
            yield block.register_forward_hook(partial(self._leave, stream, number))
        inside = {module for block in modules for module in block.modules()}
        for name, module in home.named_modules():
            if module is not home and module not in inside and not isinstance(module, nn.ModuleList):
                yield module.register_forward_hook(partial(self._follow, stream, name, len(modules)), with_kwargs=True)
        yield home.register_forward_hook(partial(self._end, stream))

    def _enter(
        self, stream: Stream, number: int, _block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self.calls[stream].append(number)
        self.enters[stream][number] = self._copy(stream, entered(args, kwargs))

    def _leave(self, stream: Stream, number: int, _block: nn.Module, _args: Any, output: Any) -> None:  # noqa: ANN401
        state = self.leaves[stream][number] = self._copy(stream, handed_over(output))
        others = (
            output[1:] if isinstance(output, tuple) else tuple(output.values())[1:] if isinstance(output, dict) else ()
        )
        self.doubled[stream] |= any(isinstance(each, Tensor) and each.shape == state.shape for each in others)
        if number == 0 and state.numel() >= _WINDOW * len(self.texts[stream]) * state.shape[-1]:
            self._pass_over_later_blocks(stream, output)

    def _pass_over_later_blocks(self, stream: Stream, output: Any) -> None:  # noqa: ANN401 - a block's
        every = blocks(self.model, stream)
        if len({type(block) for block in every}) > 1:
            return

        def hand_on(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - a block's
            return _with_state(output, entered(args, kwargs))

        for block in every[1:]:
            # What accelerate put there, or nothing.
            self._passed_over.append((block, vars(block).get("forward")))
            block.forward = hand_on

    def _copy(self, stream: Stream, state: Tensor) -> Tensor:
        copy = _copied(state)
        self._given.append((stream, state.detach(), copy))
        return copy

    def _follow(
        self,
        stream: Stream,
        name: str,
        n_blocks: int,
        _module: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        output: Any,  # noqa: ANN401
    ) -> None:
        given = next((each for each in (*args, *kwargs.values()) if isinstance(each, Tensor)), None)
        if len(self.leaves[stream]) == n_blocks and given is not None and isinstance(output, Tensor):
            self.after[stream].append((name, _copied(given), _copied(output)))

    def _end(self, stream: Stream, _stack: nn.Module, _args: Any, output: Any) -> None:  # noqa: ANN401
        self.ends[stream] = _copied(handed_over(output))


def _with_state(output: Any, state: Tensor) -> Any:  # noqa: ANN401 - what a block returns
    """Return what a block returned with another state in place of the one that `handed_over` takes of it."""
    if isinstance(output, Tensor):
        return state
    if isinstance(output, dict):
        first = next(iter(output))
        made = copy.copy(output)
        made[first] = _with_state(output[first], state)
        return made
    return type(output)((_with_state(output[0], state), *output[1:]))


def _copied(state: Tensor) -> Tensor:
    """Return a copy in main memory: blocks may lie on several devices, and not every device has float64."""
    return state.detach().cpu().clone()


class ModuleModes:
    """What the modules of a model hold beside weights, so that it can be set back: plain values and their parts."""

    def __init__(self, model: nn.Module) -> None:
        self._held = [(module, _plain(module), dict(module._modules)) for module in model.modules()]

    def changed(self) -> bool:
        """Return whether anything is another than it was."""
        return self.parts_changed() or any(
            _is_other(vars(module).get(name), value) for module, held, _ in self._held for name, value in held.items()
        )

    def parts_changed(self) -> bool:
        """Return whether a module was replaced by another."""
        return any(dict(module._modules) != parts for module, _, parts in self._held)

    def set_back(self) -> None:
        """Give every module what it held."""
        for module, held, parts in self._held:
            vars(module).update(held)
            module._modules.clear()
            module._modules.update(parts)


def _plain(module: nn.Module) -> dict[str, Any]:
    """Return the attributes of a module that are plain values or tensors, without its mode of training."""
    kinds = (bool, int, float, str, Tensor, type(None))
    return {name: value for name, value in vars(module).items() if isinstance(value, kinds) and name != "training"}


def _is_other(one: Any, other: Any) -> bool:  # noqa: ANN401 - attributes of any module
    return one is not other and (isinstance(one, Tensor) or isinstance(other, Tensor) or one != other)


def _is_hooks(name: str, value: Any) -> bool:  # noqa: ANN401 - attributes of any module
    return "_hooks" in name and isinstance(value, dict)


class _Watch:
    """What a model was before it ran."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.modes = ModuleModes(model)
        # transformers hooks a model for good when it is first asked for its hidden states, and marks it so.
        self._hooks = [
            (
                module,
                set(vars(module)),
                {name: dict(held) for name, held in vars(module).items() if _is_hooks(name, held)},
            )
            for module in model.modules()
        ]
        self._versions = [(weight, weight._version) for weight in model.parameters()]

    def unhook(self) -> None:
        """Take away the hooks and attributes that came since."""
        for module, names, hooks in self._hooks:
            for name in set(vars(module)) - names:
                del vars(module)[name]
            for name, held in hooks.items():
                now = vars(module)[name]
                for number in set(now) - set(held):
                    del now[number]

    def changed(self) -> Literal["", "modes", "weights"]:
        """Return what the passes since have changed."""
        if any(weight._version != version for weight, version in self._versions):
            return "weights"
        return "modes" if self.modes.changed() else ""


@contextmanager
def _as_found(model: PreTrainedModel) -> Iterator[_Watch]:
    """Run the block in evaluation mode and leave the model's modes and all random states as they were."""
    watch, device = _Watch(model), compute_device(model)
    # BigBird seeds numpy's global generator, and another way of attention draws weights before it gets its own.
    numpy_state = np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), evaluation_mode(model):
        try:
            yield watch
        finally:
            np.random.set_state(numpy_state)  # noqa: NPY002
            if watch.changed() == "modes":
                watch.modes.set_back()
            watch.unhook()


# ---- texts ----


def _padding_id(config: PretrainedConfig) -> int:
    told = getattr(config, "pad_token_id", None)
    return told if isinstance(told, int) and told >= 0 else 0


def _texts(model: PreTrainedModel, streams: Sequence[Stream]) -> dict[Stream, tuple[Tensor, ...]]:
    """Return by stream short texts of unequal length, of tokens that are no special ones, the same at every call."""
    special = _special_ids(model.config)
    stated = getattr(model.config, "max_position_embeddings", None)
    # Only a model of very few positions is worth the search for its limit.
    short = isinstance(stated, int) and 0 < stated < _FEW_POSITIONS
    most = (position_limit(model) if short else None) or _FEW_POSITIONS
    random = np.random.default_rng(0)
    found: dict[Stream, tuple[Tensor, ...]] = {}
    for stream in streams:
        ids = np.setdiff1d(np.arange(min(_vocabulary(model, stream), _MOST_IDS)), special)
        longest = max(_LENGTHS[stream])
        lengths = [max(1, length * min(longest, most) // longest) for length in _LENGTHS[stream]]
        if len(ids) < 3:
            raise InputError(
                f"{type(model).__name__} has {len(ids)} tokens that are no special ones",
                "give a model that reads texts",
            )
        found[stream] = tuple(
            torch.from_numpy(random.choice(ids, length, replace=len(ids) < length)) for length in lengths
        )
    return found


def _special_ids(config: PretrainedConfig) -> list[int]:
    """Return every token id that a configuration names: padding, ends, masks, places of images."""
    named = [
        value for name, value in vars(config).items() if name.endswith(("_token_id", "_token_ids", "_token_index"))
    ]
    flat = [each for value in named for each in (value if isinstance(value, list | tuple) else (value,))]
    return [each for each in flat if isinstance(each, int)]


def _vocabulary(model: PreTrainedModel, stream: Stream) -> int:
    """Return how many tokens a stream can read."""
    for owner in (stack(model, stream), model):
        try:
            table = getattr(cast("PreTrainedModel", owner).get_input_embeddings(), "weight", None)
        except (AttributeError, NotImplementedError):
            continue
        if isinstance(table, Tensor):
            return int(table.shape[0])
    # CANINE reads code points and has no table of them.
    return int(getattr(model.config, "vocab_size", None) or _MOST_IDS)


def _variants(texts: Mapping[Stream, Sequence[Tensor]]) -> dict[Stream, list[Tensor]]:
    """Return the short text, the long one twice, and for each stream the long one with another last and first token."""
    rows = {stream: [short, *[long] * (2 + 2 * len(texts))] for stream, (short, long) in texts.items()}
    for number, (stream, (short, long)) in enumerate(texts.items()):
        for place, row in ((-1, _LAST_CHANGED), (0, _FIRST_CHANGED)):
            changed = rows[stream][row + 2 * number] = long.clone()
            changed[place] = next(token for token in short if token != long[place])
    return rows


# ---- what the passes show ----


def _stream_facts(model: PreTrainedModel, stream: Stream, seen: _Pass) -> StreamFacts:
    """Return what one pass shows of a stream, without causality."""
    n_blocks = len(blocks(model, stream))
    refused = partial(_not_by_layer, model, stream)
    calls = seen.calls[stream]
    for number in range(n_blocks):
        times = calls.count(number)
        if times != 1:
            raise refused(f"block {number} came {times} times in a pass (it is {'shared' if times else 'bypassed'})")
    if calls != sorted(calls) or stream not in seen.ends:
        raise refused("its blocks do not run in their order")
    batch, length = seen.size(stream)
    turned, padded = False, False
    for layer, state in enumerate([seen.enters[stream][0], *(seen.leaves[stream][each] for each in range(n_blocks))]):
        shape = tuple(state.shape)
        if state.ndim != 3:
            raise refused(f"the states of layer {layer} have {state.ndim} dimensions, {shape}")
        if shape[0] != batch:
            turned |= shape[:2] == (length, batch)
            shape = (shape[1], shape[0], shape[2])
        padded |= shape[1] > length
        if shape[0] != batch or shape[1] < length:
            raise refused(f"the states of layer {layer} have another length than the text, {tuple(state.shape)}")
        if shape[2] != width(model.config):
            raise refused(f"the states of layer {layer} are {shape[2]} wide and not {width(model.config)}")
    if seen.doubled[stream]:
        raise refused("its blocks hand on two streams of states")
    facts = StreamFacts(turned=turned, padded=padded, overwritten=stream in seen.overwritten)
    entering, words = _own_states(seen, stream, facts, refused)
    facts = replace(facts, entering=entering, own_states=words)
    return replace(facts, **_end_of_stack(seen, stream, facts))


def _own_states(
    seen: _Pass, stream: Stream, facts: StreamFacts, refused: Callable[[str], InputError]
) -> tuple[frozenset[int], str]:
    """Return the layers that stand before the next block alone, and words on the model's own hidden states."""
    layers = seen.layers(stream, facts)
    last = len(layers) - 1
    inputs = [laid_out(seen.enters[stream][number], facts, *seen.size(stream)) for number in range(last)]
    # Where states are overwritten, so are the model's own.
    told = () if facts.overwritten else seen.own[stream]
    own = [_shaped(state, layers[0]) for state in told]
    real = _real(seen, stream)

    def same(one: Tensor | None, other: Tensor) -> bool:
        return one is not None and _equal(one[real], other[real])

    if not own:
        broken = [number for number in range(1, last) if not same(inputs[number], layers[number])]
        if len(broken) == last - 1 and broken:
            raise refused("no block is given what the one before handed over")
        return frozenset(), ""
    for shift in (0, 1):
        placed = {layer: own[layer - shift] for layer in range(shift, last + shift) if 0 <= layer - shift < len(own)}
        if len(placed) < last - shift:
            continue
        entering = [
            layer
            for layer, state in placed.items()
            if layer < last and not same(state, layers[layer]) and same(state, inputs[layer])
        ]
        differ = [
            layer
            for layer, state in placed.items()
            if layer < last and layer not in entering and not same(state, layers[layer])
        ]
        if not differ and not (len(entering) == last - 1 > 0 and not same(own[-1], layers[-1])):
            end = same(own[-1], layers[-1])
            first = f"entry k is layer {'k' if shift == 0 else 'k + 1'}"
            rest = "" if end else ", the last one aside"
            return frozenset(entering), f"{len(own)} entries, {first}{rest}"
    raise refused("what its blocks hand over are not its own hidden states")


def _end_of_stack(seen: _Pass, stream: Stream, facts: StreamFacts) -> dict[str, Any]:
    """Return the final norm and what the stack's own output is."""
    layers, end, real = seen.layers(stream, facts), seen.ends[stream], _real(seen, stream)
    last = layers[-1]
    told: dict[str, Any] = {"last_width": int(end.shape[-1]), "last_state": "other"}
    shaped = _shaped(end, last) if end.shape[-1] == last.shape[-1] else None

    def same(one: Tensor | None, other: Tensor | None) -> bool:
        return one is not None and other is not None and _equal(one[real], other[real])

    if same(shaped, last):
        return {**told, "last_state": "block"}
    modules = dict(stack(seen.model, stream).named_modules())
    for name, given, made in seen.after[stream]:
        plain = all(weight.ndim <= 1 for weight in modules[name].parameters())
        entered_last, made_last = _shaped(given, last), _shaped(made, last)
        if not plain or entered_last is None or made_last is None or same(made_last, entered_last):
            continue
        # RWKV halves the last state in between.
        if same(made_last, shaped):
            return {**told, "final_norm": name, "last_state": "norm"}
        if same(entered_last, last):
            return {**told, "final_norm": name}
    return told


def _shaped(state: Tensor, like: Tensor) -> Tensor | None:
    """Return a state in the form of another one, turned or cut as it needs; None where it cannot have it."""
    if state.ndim == 3 and state.shape[2] == like.shape[2]:
        if state.shape[:2] == (like.shape[1], like.shape[0]) and state.shape != like.shape:
            state = state.transpose(0, 1)
        if state.shape[0] == like.shape[0] and state.shape[1] >= like.shape[1]:
            return state[:, : like.shape[1]]
    return None


def _real(seen: _Pass, stream: Stream) -> Tensor:
    """Return which positions hold a token, bool (batch, length)."""
    lengths = torch.tensor([len(text) for text in seen.texts[stream]])
    return torch.arange(int(lengths.max())) < lengths[:, None]


def _is_causal(seen: _Pass, stream: Stream, facts: StreamFacts) -> bool | None:
    """Return whether a text's states follow from the tokens before alone; None where no token tells on another.

    Raises:
        InputError: a token does not change the states of its own position.
    """
    number = list(seen.texts).index(stream)
    rows = (_LONG, _AGAIN, _LAST_CHANGED + 2 * number, _FIRST_CHANGED + 2 * number)
    plain, again, last, first = (seen.of_text(stream, facts, row) for row in rows)
    rounding = max(8 * float(_apart(plain, again).max()), _exact(plain))
    if plain.shape[1] < 2:
        return None
    own = _apart(plain, last)
    earlier, later = own[:, :-1].max() > rounding, _apart(plain, first)[:, 1:].max() > rounding
    if (earlier or later) and not own[:, -1].max() > rounding:
        raise _not_by_layer(seen.model, stream, "a token does not change the state of its own position")
    return False if earlier else True if later else None


def _check_one_direction(
    model: PreTrainedModel, texts: Mapping[Stream, Sequence[Tensor]], found: Mapping[Stream, StreamFacts]
) -> None:
    """Refuse a model that attends otherwise without padding, as Gemma does that is to attend both ways (PaliGemma's).

    Args:
        model: one whose states depend on padding.
        texts: a short and a long one for each stream.
        found: what padded texts have shown.
    """
    plain = _Pass(model, {stream: [rows[_LONG], *rows[_LONG:]] for stream, rows in _variants(texts).items()})
    for stream, facts in found.items():
        if None not in (facts.causal, causal := _is_causal(plain, stream, facts)) and causal != facts.causal:
            forwards = "beside padding" if facts.causal else "without padding"
            raise _not_by_layer(
                model, stream, f"a token attends only to those before it {forwards}, and to all otherwise"
            )


def _batching(
    model: PreTrainedModel,
    texts: Mapping[Stream, Sequence[Tensor]],
    found: Mapping[Stream, StreamFacts],
    whole: _Pass,
) -> Batching:
    """Return which texts may share a batch."""

    def differ(one: _Pass, text: int, other: _Pass, place: int) -> bool:
        return any(
            _differ(one.of_text(stream, facts, text), other.of_text(stream, facts, place))
            for stream, facts in found.items()
        )

    def read(*rows: int) -> _Pass:
        return _Pass(model, {stream: [texts[stream][row] for row in rows] for stream in texts})

    if differ(read(0), 0, whole, _SHORT):
        # Of padding or of the other texts: what no padding changes, a batch of one length may.
        pair = _Pass(model, {stream: [each[1], each[1].flip(0)] for stream, each in texts.items()})
        return "alone" if differ(read(1), 0, pair, 0) else "equal lengths"
    capacities = [value for name, value in vars(model.config).items() if "capacity" in name and value]
    if capacities:
        # Experts that take so many tokens of a batch and no more: copies of one text all come to the same ones.
        copies = 1 + max((value for value in capacities if isinstance(value, int)), default=_MANY)
        short = {stream: [each[0][:2]] for stream, each in texts.items()}
        crowd = _Pass(model, {stream: each * copies for stream, each in short.items()})
        if differ(_Pass(model, short), 0, crowd, copies - 1):
            return "alone"
    return "padded"


def _apart(one: Tensor, other: Tensor) -> Tensor:
    """Return the distance of two states as a share of the longer one, shape without the last axis; NaN counts as 0."""
    one, other = (torch.nan_to_num(each.double()) for each in (one, other))
    longer = torch.maximum(vector_norm(one, dim=-1), vector_norm(other, dim=-1))
    distance: Tensor = vector_norm(one - other, dim=-1)
    return distance / longer.clamp(min=torch.finfo(torch.float64).tiny)


def _exact(*states: Tensor) -> float:
    """Return the distance within which states of one computation are the same, by the coarsest of them."""
    precision = max(float(torch.finfo(state.dtype).eps) for state in states)
    return 16 * precision if precision < _COARSE else precision / 16


def _equal(one: Tensor, other: Tensor) -> bool:
    return bool(_apart(one, other).max() <= _exact(one, other))


def _differ(one: Tensor, other: Tensor) -> bool:
    """Return whether one text's states in two batches are more apart than rounding, which grows from layer to layer.

    In half precision rounding may send a token to another expert, so there most tokens must differ.
    """
    apart = _apart(one, other)
    precision = float(torch.finfo(one.dtype).eps)
    if precision < _COARSE:
        return bool(apart.max() > _ROUNDING * precision)
    return bool(apart.median(dim=1).values.max() > 32 * precision)


# ---- refusals ----


def _not_by_layer(model: PreTrainedModel, stream: Stream, reason: str) -> InputError:
    return InputError(
        f"{type(model).__name__} (type {model.config.model_type}) cannot be read layer by layer in its {stream}: "
        f"{reason}",
        "choose a model each of whose blocks hands on one state for each token",
    )


def _cannot_run(model: PreTrainedModel, reason: str) -> InputError:
    name, kind = type(model).__name__, model.config.model_type
    if getattr(model, "is_quantized", False):
        # bitsandbytes' four bits run for some sizes only, and say it in the first pass.
        return InputError(
            f"{name} (type {kind}) cannot run with quantised weights of its sizes: {reason}",
            "take --quantization 8bit, or none and --dtype bfloat16",
        )
    return InputError(f"{name} (type {kind}) cannot run on texts alone: {reason}", "choose a model that reads texts")
