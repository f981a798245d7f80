"""Each student is checked: does a copied block compute in its new place what it computes in the teacher?

The teacher runs a few random tokens with all blocks but the chosen ones passed over, so that every chosen block keeps
what the teacher's architecture gives it by its number: constants, masks, positions. The student runs the same tokens,
and each of its layers must come out the same. Nothing is copied, and a teacher of 12 blocks takes some milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import takewhile
from typing import Any, Final, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from anglekit.errors import InputError, foreign_failures
from anglekit.models import architectures
from anglekit.models.check import evaluation_mode, facts_of
from anglekit.runtime.placement import compute_device
from anglekit.states.recorder import LayerRecorder
from anglekit.vocabulary import Stream

#: Texts and tokens of the check.
_TEXTS: Final = 2
_TOKENS: Final = 12
# Largest difference of a state, in units of its root mean square, that rounding explains.
_ROUNDING: Final = {torch.float32: 1e-3, torch.float64: 1e-6}
_ROUNDING_OF_16_BITS: Final = 3e-2
# Attributes in which a block knows its number; a difference in them alone says nothing.
_NUMBERS: Final = frozenset(
    ("layer_idx", "layer_id", "layer_index", "layer_number", "idx", "block_idx", "block_id", "num_hidden_layers")
)
_LONGEST_VALUE: Final = 40


def check_student(teacher: PreTrainedModel, student: PreTrainedModel, blocks: Mapping[Stream, Sequence[int]]) -> None:
    """Check that a copied student computes what the teacher's chosen blocks compute in sequence.

    Neither model is changed. A teacher whose weights are not in memory cannot run here (`can_run`).

    Args:
        teacher: with any head, or none.
        student: copied from it.
        blocks: by stream, the teacher block that each student block is a copy of, in any order.

    Raises:
        InputError: a layer comes out differently; it names the layer and, where it is found, the reason.
    """
    inputs = _random_inputs(teacher)
    expected = states_in_sequence(teacher, blocks, inputs)
    with foreign_failures(
        lambda reason: InputError(
            f"the {student.config.model_type} student cannot run ({reason})", "choose other blocks, or --init random"
        )
    ):
        found = _states(student, {stream: range(len(chosen)) for stream, chosen in blocks.items()}, inputs)
    for stream, chosen in blocks.items():
        for layer, (ours, theirs) in enumerate(zip(found[stream], expected[stream], strict=True)):
            difference = _difference(ours, theirs)
            if difference > _rounding(teacher, student):
                raise _refusal(teacher, student, stream, chosen, layer, difference)


def can_run(model: PreTrainedModel) -> bool:
    """Return whether all of a model's weights are in memory, so that its blocks can be run."""
    return not any(parameter.is_meta for parameter in model.parameters())


# ---- states ----


def states_in_sequence(
    teacher: PreTrainedModel, blocks: Mapping[Stream, Sequence[int]], inputs: Mapping[str, Tensor]
) -> dict[Stream, list[Tensor]]:
    """Return the states that the chosen blocks of a model compute, one after another.

    Blocks in ascending order take one pass, in which the others hand on what they are given. Each descent takes another
    pass, which begins with the state that the one before ended with.

    Returns:
        By stream the embedding output, the output of each chosen block, and what leaves the stack behind them.
    """
    facts_of(teacher)  # while its blocks are its own
    runs = {stream: _ascending_runs(chosen) for stream, chosen in blocks.items()}
    entered: dict[Stream, Tensor] = {}
    kept: dict[Stream, list[Tensor]] = {}
    # The decoder reads the encoder's output, so that the encoder's passes come first and its last one stays.
    current = {stream: ascending[0] for stream, ascending in runs.items()}
    for stream, ascending in runs.items():
        kept[stream] = []
        for number, run in enumerate(ascending):
            current[stream] = run
            with _passing_over(teacher, current, entered):
                states = _states(teacher, current, inputs)[stream]
            embedding, *outputs, last = states
            kept[stream] += [*([] if number else [embedding]), *outputs]
            if run is not ascending[-1]:
                entered[stream] = outputs[-1]
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
    teacher: PreTrainedModel, runs: Mapping[Stream, Sequence[int]], entered: Mapping[Stream, Tensor]
) -> Iterator[None]:
    """Make every block outside `runs` hand on what it is given; `entered` is what the first of a run is given."""
    with ExitStack() as hooks:
        for stream, run in runs.items():
            modules = architectures.blocks(teacher, stream)
            for number, module in enumerate(modules):
                if number not in run:
                    for handle in _hand_on(module):
                        hooks.callback(handle.remove)
            if stream in entered:
                hooks.callback(_give(modules[run[0]], entered[stream]).remove)
        yield


def _hand_on(module: nn.Module) -> tuple[torch.utils.hooks.RemovableHandle, torch.utils.hooks.RemovableHandle]:
    given: list[Tensor] = []

    def before(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # LiLT's blocks hand on a second state. Copies, for a block may work in place.
        states = args if args else (kwargs["hidden_states"],)
        given[:] = [state.clone() for state in takewhile(_is_state, states)]

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


def _states(
    model: PreTrainedModel, blocks: Mapping[Stream, Sequence[int]], inputs: Mapping[str, Tensor]
) -> dict[Stream, list[Tensor]]:
    """Return by stream what enters block 0, what leaves each of the blocks, and what leaves the stack."""
    ends: dict[Stream, Tensor] = {}

    def keep(stream: Stream) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:  # noqa: ANN401 - as stacks return
            ends[stream] = output if isinstance(output, Tensor) else output[0]

        return hook

    recorder = LayerRecorder(model, {stream: [0, *(b + 1 for b in chosen)] for stream, chosen in blocks.items()})
    device = compute_device(model)
    with ExitStack() as stack:
        stack.enter_context(evaluation_mode(model))
        stack.enter_context(recorder)
        for stream in blocks:
            handle = architectures.stack(model, stream).register_forward_hook(keep(stream))
            stack.callback(handle.remove)
        with torch.no_grad():
            model.base_model(**{name: tensor.to(device) for name, tensor in inputs.items()}, **_without_cache(model))
    return {
        stream: [
            recorder.states[stream][0],
            *(recorder.states[stream][block + 1] for block in chosen),
            ends[stream],
        ]
        for stream, chosen in blocks.items()
    }


def _without_cache(model: PreTrainedModel) -> dict[str, bool]:
    return {"use_cache": False} if "decoder" in architectures.model_streams(model.config) else {}


def _random_inputs(model: PreTrainedModel) -> dict[str, Tensor]:
    """Return random tokens, of which none is special where the vocabulary has others."""
    config = model.config
    vocabulary = getattr(config, "vocab_size", None) or len(cast("Tensor", model.get_input_embeddings().weight))
    special: set[int] = set()
    for name, value in vars(config).items():
        if name.endswith("_token_id"):
            special.update(value if isinstance(value, list) else [value])
    ordinary = [token for token in range(min(vocabulary, 1000)) if token not in special] or [0]
    generator = torch.Generator().manual_seed(0)
    names = ["input_ids", "decoder_input_ids"] if len(architectures.model_streams(config)) == 2 else ["input_ids"]
    drawn = {name: torch.randint(len(ordinary), (_TEXTS, _TOKENS), generator=generator) for name in names}
    inputs = {name: torch.tensor(ordinary)[rows] for name, rows in drawn.items()}
    return {**inputs, "attention_mask": torch.ones(_TEXTS, _TOKENS, dtype=torch.long)}


# ---- what differs, and why ----


def _difference(ours: Tensor, theirs: Tensor) -> float:
    """Return the largest difference in units of the root mean square; infinite where the shapes differ."""
    if ours.shape != theirs.shape:
        return float("inf")
    left, right = ours.detach().double().cpu(), theirs.detach().double().cpu()
    apart = (left - right).abs().masked_fill(left.isnan() & right.isnan() | (left == right), 0.0)
    size = right[right.isfinite()].square().mean().sqrt() if right.isfinite().any() else torch.tensor(1.0)
    return float(apart.nan_to_num(float("inf")).max() / size.clamp_min(1e-12))


def _rounding(teacher: PreTrainedModel, student: PreTrainedModel) -> float:
    return max(_ROUNDING.get(model.dtype, _ROUNDING_OF_16_BITS) for model in (teacher, student))


def _refusal(
    teacher: PreTrainedModel,
    student: PreTrainedModel,
    stream: Stream,
    chosen: Sequence[int],
    layer: int,
    difference: float,
) -> InputError:
    apart = f"its states differ by {difference:.2g} of their size"
    kind = teacher.config.model_type
    if layer == 0:
        return InputError(f"the {kind} student's {stream} embeds tokens otherwise than its teacher ({apart})", _REMEDY)
    if layer > len(chosen):
        return InputError(
            f"what follows the last block of the {kind} student's {stream} is not the teacher's ({apart})", _REMEDY
        )
    block = layer - 1
    reasons = block_differences(
        architectures.blocks(teacher, stream)[chosen[block]], architectures.blocks(student, stream)[block]
    )
    reason = "; ".join(reasons[:3]) or "it depends on its number or on the blocks before it"
    where = "" if len(architectures.model_streams(teacher.config)) == 1 else f" of the {stream}"
    return InputError(
        f"block {chosen[block]}{where} of a {kind} teacher computes something else as block {block} of this student: "
        f"{reason} ({apart})",
        _REMEDY,
    )


_REMEDY: Final = "copy other blocks, or take --init random"


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
