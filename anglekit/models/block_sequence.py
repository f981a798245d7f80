"""Chosen blocks of a model run one after another, whatever else it has: what they compute, and where two blocks differ.

The others are passed over, not taken out, so that each chosen block keeps what the model's architecture gives it by its
number: constants, masks, positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import takewhile
from typing import Any, Final, cast

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from anglekit.errors import InputError
from anglekit.models import architectures
from anglekit.models.check import ModuleModes, entered, evaluation_mode, handed_over
from anglekit.runtime.placement import compute_device
from anglekit.vocabulary import Stream

#: Texts and tokens of a tiny pass.
_TEXTS: Final = 2
_TOKENS: Final = 12
_MOST_IDS: Final = 1000
# Largest difference of a state, in units of its root mean square, that rounding explains.
_ROUNDING: Final = {torch.float32: 1e-3, torch.float64: 1e-6}
_ROUNDING_OF_16_BITS: Final = 3e-2
# Attributes in which a block knows its number; a difference in them alone says nothing. BigBird's seed of random
# attention is one, and is read in training only.
_NUMBERS: Final = frozenset(
    (
        *("layer_idx", "layer_id", "layer_index", "layer_number", "idx", "block_idx", "block_id"),
        *("num_hidden_layers", "seed"),
    )
)
_LONGEST_VALUE: Final = 40


def can_run(model: PreTrainedModel) -> bool:
    """Return whether a model's weights are in memory or brought there block by block, so that it can be run here."""
    weights = list(model.parameters())
    here = hasattr(model, "_hf_hook") or not any(weight.is_meta for weight in weights)
    return here and not any(hasattr(weight, "ds_id") for weight in weights)


def random_inputs(model: PreTrainedModel) -> dict[str, Tensor]:
    """Return two texts of random tokens, of which none is special where the vocabulary has others."""
    config = model.config
    vocabulary = getattr(config, "vocab_size", None) or len(cast("Tensor", model.get_input_embeddings().weight))
    special: set[int] = set()
    for name, value in vars(config).items():
        if name.endswith("_token_id"):
            special.update(value if isinstance(value, list) else [value])
    ordinary = [token for token in range(min(vocabulary, _MOST_IDS)) if token not in special] or [0]
    generator = torch.Generator().manual_seed(0)
    names = ["input_ids", "decoder_input_ids"] if len(architectures.model_streams(config)) == 2 else ["input_ids"]
    drawn = {name: torch.randint(len(ordinary), (_TEXTS, _TOKENS), generator=generator) for name in names}
    inputs = {name: torch.tensor(ordinary)[rows] for name, rows in drawn.items()}
    return {**inputs, "attention_mask": torch.ones(_TEXTS, _TOKENS, dtype=torch.long)}


# ---- states ----


def states_in_sequence(
    model: PreTrainedModel, blocks: Mapping[Stream, Sequence[int]], inputs: Mapping[str, Tensor]
) -> dict[Stream, list[Tensor]]:
    """Return the states that the chosen blocks of a model compute, one after another.

    Blocks in ascending order take one pass, in which the others hand on what they are given. Each descent takes another
    pass, which begins with the state that the one before ended with. The model is in evaluation mode and left as found.

    Args:
        model: a model whose weights are in memory.
        blocks: for each of its streams, the blocks in the order in which they run.
        inputs: as `random_inputs` returns.

    Returns:
        By stream the embedding output, the output of each chosen block, and what leaves the stack behind them, as the
        model lays them out.
    """
    runs = {stream: _ascending_runs(chosen) for stream, chosen in blocks.items()}
    entering: dict[Stream, Tensor] = {}
    kept: dict[Stream, list[Tensor]] = {}
    # The decoder reads the encoder's output, so that the encoder's passes come first and its last one stays.
    current = {stream: ascending[0] for stream, ascending in runs.items()}
    for stream, ascending in runs.items():
        kept[stream] = []
        for number, run in enumerate(ascending):
            current[stream] = run
            with _passing_over(model, current, entering):
                embedding, *outputs, last = _states(model, current, inputs)[stream]
            kept[stream] += [*([] if number else [embedding]), *outputs]
            if number + 1 < len(ascending):
                entering[stream] = outputs[-1]
        kept[stream].append(last)
    return kept


def _ascending_runs(chosen: Sequence[int]) -> list[list[int]]:
    runs: list[list[int]] = []
    for block in chosen:
        if runs and block > runs[-1][-1]:
            runs[-1].append(block)
        else:
            runs.append([block])
    return runs


@contextmanager
def _passing_over(
    model: PreTrainedModel, runs: Mapping[Stream, Sequence[int]], entering: Mapping[Stream, Tensor]
) -> Iterator[None]:
    """Make every block outside `runs` hand on what it is given; `entering` is what the first of a run is given."""
    with ExitStack() as hooks:
        for stream, run in runs.items():
            modules = architectures.blocks(model, stream)
            for number, module in enumerate(modules):
                if number not in run:
                    for handle in _hand_on(module):
                        hooks.callback(handle.remove)
            if stream in entering:
                hooks.callback(_give(modules[run[0]], entering[stream]).remove)
        yield


def _hand_on(module: nn.Module) -> tuple[torch.utils.hooks.RemovableHandle, torch.utils.hooks.RemovableHandle]:
    given: list[Tensor] = []

    def before(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # LiLT's blocks hand on a second state. Copies, for a block may work in place.
        states = takewhile(_is_state, args) if args else (kwargs["hidden_states"],)
        given[:] = [state.clone() for state in states]

    def after(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> Any:  # noqa: ANN401 - as blocks return
        if isinstance(output, Tensor):
            return given[0]
        parts = list(output)
        for place, (state, part) in enumerate(zip(given, parts, strict=False)):
            if place and not (_is_state(part) and part.shape == state.shape):
                break
            parts[place] = state
        return tuple(parts)

    return module.register_forward_pre_hook(before, with_kwargs=True), module.register_forward_hook(after)


def _is_state(value: Any) -> bool:  # noqa: ANN401 - an argument of any kind
    return isinstance(value, Tensor) and value.is_floating_point() and value.ndim >= 3


def _give(module: nn.Module, state: Tensor) -> torch.utils.hooks.RemovableHandle:
    def before(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        return ((state, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": state})

    return module.register_forward_pre_hook(before, with_kwargs=True)


class _Stop(Exception):  # noqa: N818 - no error: all that is wanted has come
    pass


def first_states(model: PreTrainedModel, stream: Stream, number: int, inputs: Mapping[str, Tensor]) -> list[Tensor]:
    """Return what enters a stream and what leaves each of its first blocks; what follows them is not run."""

    def stop(_module: nn.Module, _args: tuple[Any, ...]) -> None:
        raise _Stop

    modules = architectures.blocks(model, stream)
    found: dict[Stream, list[Tensor]] = {}
    with ExitStack() as hooks:
        if number < len(modules):
            hooks.callback(modules[number].register_forward_pre_hook(stop).remove)
        with _recording(model, {stream: range(number)}) as found, suppress(_Stop):
            _run(model, inputs)
    return found[stream][: number + 1]


def _states(
    model: PreTrainedModel, blocks: Mapping[Stream, Sequence[int]], inputs: Mapping[str, Tensor]
) -> dict[Stream, list[Tensor]]:
    """Return by stream what enters block 0, what leaves each of the blocks, and what leaves the stack."""
    with _recording(model, blocks) as found:
        _run(model, inputs)
    for stream, chosen in blocks.items():
        if len(found[stream]) != len(chosen) + 2:
            raise InputError(
                f"{len(found[stream])} states came from {len(chosen)} blocks of the {stream} of a "
                f"{model.config.model_type}",
                "models whose blocks do not run once each cannot be cut",
            )
    return found


def _run(model: PreTrainedModel, inputs: Mapping[str, Tensor]) -> None:
    device = compute_device(model)
    without_cache = {"use_cache": False} if "decoder" in architectures.model_streams(model.config) else {}
    with evaluation_mode(model), without_rescaling(model), torch.no_grad():
        modes = ModuleModes(model)
        try:
            model.base_model(**{name: tensor.to(device) for name, tensor in inputs.items()}, **without_cache)
        finally:
            modes.set_back()


@contextmanager
def without_rescaling(model: PreTrainedModel) -> Iterator[None]:
    """Inside the block, let passes in evaluation mode leave RWKV's weights alone, and undo what earlier ones did.

    RWKV divides the weights of late blocks by powers of two before it evaluates, against overflow in 16 bits, and the
    states with them. What is copied or saved then is another model.
    """
    rescaled: list[Any] = [module for module in model.modules() if hasattr(module, "layers_are_rescaled")]
    every = [module.config.rescale_every for module in rescaled]
    for module in rescaled:
        if module.layers_are_rescaled:
            mode, module.training = module.training, True
            module._rescale_layers()
            module.training = mode
        module.config.rescale_every = 0
    try:
        yield
    finally:
        for module, before in zip(rescaled, every, strict=True):
            module.config.rescale_every, module.layers_are_rescaled = before, False


@contextmanager
def _recording(model: PreTrainedModel, blocks: Mapping[Stream, Sequence[int]]) -> Iterator[dict[Stream, list[Tensor]]]:
    """Record, as they come, what enters block 0, what leaves each chosen block, and what leaves the stack."""
    found: dict[Stream, list[Tensor]] = {stream: [] for stream in blocks}

    def entering(stream: Stream) -> Callable[..., None]:
        def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            found[stream].append(entered(args, kwargs).clone())

        return hook

    def leaving(stream: Stream) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:  # noqa: ANN401 - as blocks return
            found[stream].append(handed_over(output).clone())

        return hook

    with ExitStack() as hooks:
        for stream, chosen in blocks.items():
            modules = architectures.blocks(model, stream)
            first = modules[0].register_forward_pre_hook(entering(stream), with_kwargs=True)
            hooks.callback(first.remove)
            for module in (*(modules[number] for number in chosen), architectures.stack(model, stream)):
                hooks.callback(module.register_forward_hook(leaving(stream)).remove)
        yield found


# ---- without weights ----


def with_weights_of(
    kind: type[PreTrainedModel], config: PretrainedConfig, weights: Mapping[str, Tensor], device: torch.device
) -> PreTrainedModel:
    """Return a model of a class and configuration that shares another one's weights; those it lacks have no memory.

    Args:
        kind: the class.
        config: the configuration.
        weights: by name; those of another shape are left out.
        device: of the weights; what the model computes itself (positions) is made there.
    """
    from accelerate import init_empty_weights

    with torch.random.fork_rng(devices=[]), torch.device(device), init_empty_weights(include_buffers=False):
        model = kind(config)
    for name, empty in [*model.named_parameters(remove_duplicate=False), *model.named_buffers()]:
        tensor = weights.get(name)
        if tensor is None or tensor.shape != empty.shape:
            continue
        owner, _, leaf = name.rpartition(".")
        module = model.get_submodule(owner)
        if leaf in module._parameters:
            module._parameters[leaf] = nn.Parameter(tensor.detach(), requires_grad=False)
        else:
            module._buffers[leaf] = tensor
    model.eval()  # type: ignore[no-untyped-call]
    return model


# ---- what differs, and why ----


def rounding(*models: PreTrainedModel) -> float:
    """Return the largest `difference` of states that the models' precision explains."""
    return max(_ROUNDING.get(model.dtype, _ROUNDING_OF_16_BITS) for model in models)


def difference(ours: Tensor, theirs: Tensor) -> float:
    """Return the largest difference of two states in units of the second's root mean square; infinite by shape.

    Of states that are padded behind the text (Longformer's, to a multiple of its window) the shorter length counts.
    """
    if ours.ndim == theirs.ndim == 3:
        length = min(ours.shape[1], theirs.shape[1])
        ours, theirs = ours[:, :length], theirs[:, :length]
    if ours.shape != theirs.shape:
        return float("inf")
    left, right = ours.detach().double().cpu(), theirs.detach().double().cpu()
    apart = (left - right).abs().masked_fill(left.isnan() & right.isnan() | (left == right), 0.0)
    size = right[right.isfinite()].square().mean().sqrt() if right.isfinite().any() else torch.tensor(1.0)
    return float(apart.nan_to_num(float("inf")).max() / size.clamp_min(1e-12))


def block_differences(theirs: nn.Module, ours: nn.Module) -> list[str]:
    """Return in words where two blocks are made differently: other parts, other shapes, other constants."""
    left, right = dict(theirs.named_modules()), dict(ours.named_modules())
    found = [f"it has no {name} here" for name in left if name not in right and name.rpartition(".")[0] in right]
    found += [f"it has {name} here only" for name in right if name not in left and name.rpartition(".")[0] in left]
    for name in left:
        if name not in right:
            continue
        one, other = left[name], right[name]
        if type(one) is not type(other):
            found.append(f"{name or 'it'} is {type(one).__name__} in the teacher, {type(other).__name__} here")
            continue
        prefix = f"{name}." if name else ""
        there, here = _constants(one), _constants(other)
        found += [
            f"{prefix}{key} is {_shown(there.get(key))} in the teacher, {_shown(here.get(key))} here"
            for key in sorted(there.keys() | here.keys())
            if there.get(key) != here.get(key)
        ]
    return found


def _constants(module: nn.Module) -> dict[str, Any]:
    """Return what makes a module itself, but for its weights' values: plain attributes, and the shapes of tensors."""
    plain = {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_")
        and name not in _NUMBERS
        and name != "training"
        and isinstance(value, bool | int | float | str | tuple | type(None))
    }
    tensors = {**module._parameters, **module._buffers}
    return plain | {name: tuple(tensor.shape) for name, tensor in tensors.items() if tensor is not None}


def _shown(value: Any) -> str:  # noqa: ANN401 - an attribute of any kind
    return f"{value:.4g}" if isinstance(value, float) else str(value)[:_LONGEST_VALUE]
