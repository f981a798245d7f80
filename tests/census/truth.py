"""What a model does with its blocks, found by running it: by no name, no configuration, and without anglekit.

A list of blocks is found by what flows through it: of all lists of modules those that are run one after the other on
hidden states. `forward` itself is watched, since some models call it past the hooks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tests.census.small_models import inputs_for, some_ids

ROWS, LENGTH, DECODER_LENGTH = 3, 10, 7
_PADDED_LENGTHS: Final = (10, 6, 4)
# States of random models are of size 1; what differs by rounding alone differs by less.
_SAME: Final = 1e-4
_CHANGED: Final = 1e-3
_STREAM_FIELDS: Final = (("encoder", "encoder_hidden_states"), ("decoder", "decoder_hidden_states"))


@dataclass(frozen=True)
class Step:
    """One module's run: where it stands and what flowed through it."""

    path: str
    list_path: str
    before: Tensor
    after: Tensor


@dataclass
class StackTruth:
    """What is true of one stream.

    Attributes:
        blocks: the path of the list of blocks in the headless model.
        depth: how many of them ran.
        causal: no state depends on a later token.
        layout: "batch first", "length first", "length last", "padded behind", "padded before" or "other shape".
        final_norm: the path of the norm that makes the last hidden state of the last block's output; "" where none.
        last_is_block: the last hidden state is the last block's output.
        entries: the number of `hidden_states`; 0 where the model gives none.
        hidden_states: in words, what they are.
        between: something outside the blocks works on the states between them, and `hidden_states` stand behind it.
        padding_error: how far states in a padded batch are from those of one text alone.
    """

    blocks: str
    depth: int
    repeated: bool = False
    causal: bool = False
    layout: str = ""
    final_norm: str = ""
    last_is_block: bool = False
    entries: int = 0
    hidden_states: list[str] = field(default_factory=list)
    between: bool = False
    padding_error: float = 0.0


def first_states(value: Any) -> Tensor | None:
    """Return the first tensor of a block's output."""
    while isinstance(value, (tuple, list)) and value:
        value = value[0]
    if isinstance(value, Mapping):
        return next((each for each in value.values() if isinstance(each, Tensor)), None)
    return value if isinstance(value, Tensor) else None


def states_among(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    """Return the hidden states among a block's arguments."""
    if isinstance(given := first_states(kwargs.get("hidden_states")), Tensor):
        return given
    for value in (*args, *kwargs.values()):
        found = first_states(value)
        if found is not None and found.is_floating_point() and found.ndim >= 3:
            return found
    return None


@contextmanager
def watched(model: nn.Module) -> Iterator[list[Step]]:
    """Note each run of a member of a list of modules, and of a norm anywhere, in the order in which they end."""
    steps: list[Step] = []
    originals: list[tuple[nn.Module, Any]] = []

    def watch(path: str, list_path: str, module: nn.Module) -> None:
        original = module.forward
        originals.append((module, module.__dict__.get("forward")))

        def forward(*args: Any, **kwargs: Any) -> Any:
            before = states_among(args, kwargs)
            kept = None if before is None else before.detach().clone()
            output = original(*args, **kwargs)
            after = first_states(output)
            if kept is not None and after is not None and after.is_floating_point() and after.ndim >= 3:
                steps.append(Step(path, list_path, kept, after.detach().clone()))
            return output

        module.forward = forward

    seen: set[int] = set()
    for path, module in model.named_modules():
        home, _, key = path.rpartition(".")
        owner = model.get_submodule(home) if key else None
        listed = isinstance(owner, (nn.ModuleList, nn.ModuleDict, nn.Sequential))
        if (listed or "norm" in type(module).__name__.lower()) and id(module) not in seen:
            seen.add(id(module))
            watch(path, home if listed else "", module)
    try:
        yield steps
    finally:
        for module, own in originals:
            if own is None:
                del module.forward
            else:
                module.forward = own


def block_lists(steps: Sequence[Step]) -> list[tuple[str, list[Step]]]:
    """Return the outermost lists whose members ran one after the other, each with its members' runs in order.

    Of two members that ran in turn at least half must hand over what the next one takes: the blocks of a stack do, the
    branches of a mixture do not.
    """
    by_list: dict[str, list[Step]] = {}
    for step in steps:
        if step.list_path:
            by_list.setdefault(step.list_path, []).append(step)
    chains = {}
    for path, runs in by_list.items():
        handed = sum(same(one.after, other.before) for one, other in pairwise(runs))
        if len(runs) > 1 and 2 * handed >= len(runs) - 1:
            chains[path] = runs
    return [(path, runs) for path, runs in chains.items() if not any(path.startswith(f"{other}.") for other in chains)]


def same(one: Tensor, other: Tensor, tolerance: float = _SAME) -> bool:
    """Return whether two states are the same but for rounding."""
    return one.shape == other.shape and distance(one, other) <= tolerance


def distance(one: Tensor, other: Tensor) -> float:
    """Return the largest difference, in units of the states' root mean square; infinite where there is none to tell."""
    if one.shape != other.shape:
        return float("inf")
    gap = (one.double() - other.double()).abs()
    scale = float(one.double().square().mean().sqrt()) or 1.0
    found = float(gap.max()) / scale if gap.numel() else 0.0
    return found if found == found else float("inf")


def aligned(state: Tensor, rows: int, length: int, *, before: bool = False) -> tuple[Tensor | None, str]:
    """Return states as (rows, length, width) with a word on how they came; None where no reading is sure.

    Of more positions than the text has the first are taken, or the last if what is added stands `before` the text.
    """
    if state.ndim == 3 and state.shape[:2] == (rows, length):
        return state, "batch first"
    if state.ndim == 3 and state.shape[:2] == (length, rows):
        return state.transpose(0, 1), "length first"
    if state.ndim == 3 and state.shape[0] == rows and state.shape[2] == length:
        return state.transpose(1, 2), "length last"
    if state.ndim == 3 and state.shape[0] == rows and state.shape[1] > length:
        return (state[:, -length:], "padded before") if before else (state[:, :length], "padded behind")
    return None, "other shape"


def block_path(model: nn.Module, wanted: nn.Module) -> str:
    """Return the path of a module in its model."""
    return next(path for path, module in model.named_modules() if module is wanted)


@torch.no_grad()
def run(model: PreTrainedModel, inputs: Mapping[str, Any], **more: Any) -> tuple[Any, list[Step]]:
    """Return the output of one pass and what was watched.

    RWKV runs as in training: its division of weights and states against overflow in 16 bits, the same for every layer
    of a group of blocks, is no part of what it computes, and anglekit leaves it out.
    """
    if getattr(model.config, "rescale_every", 0):
        model.config.rescale_every = 0
    torch.manual_seed(0)
    with watched(model) as steps:
        output = model(**inputs, **more)
    return output, steps


def layers_of(steps: Sequence[Step], truth: StackTruth, rows: int, length: int) -> list[Tensor] | None:
    """Return the states of one list's blocks: its first input, then each output, as (rows, length, width).

    Where something outside the blocks works on the states in between, and the model's own hidden states are those
    behind it, a layer is what enters the next block.
    """
    runs = [step for step in steps if step.list_path == truth.blocks]
    states = [runs[0].before, *(step.after for step in runs)]
    if truth.between:
        states[1:-1] = [step.before for step in runs[1:]]
    found = [aligned(state, rows, length, before=truth.layout == "padded before")[0] for state in states]
    return None if any(state is None for state in found) else found


def texts(model: PreTrainedModel) -> dict[str, Any]:
    """Return the inputs of a pass over some texts, of equal lengths and without padding."""
    two = bool(getattr(model.config, "is_encoder_decoder", False))
    decoder_ids = some_ids(ROWS, DECODER_LENGTH, seed=2) if two else None
    return inputs_for(model, some_ids(ROWS, LENGTH), decoder_ids=decoder_ids)


def measure(model: PreTrainedModel) -> dict[str, StackTruth]:
    """Return what is true of each stream of a model that runs on texts; nothing where no blocks run in a row."""
    two = bool(getattr(model.config, "is_encoder_decoder", False))
    inputs = texts(model)
    output, steps = run(model, inputs)
    found: dict[str, StackTruth] = {}
    for path, runs in _main_lists(block_lists(steps), two=two):
        number = len({step.path for step in runs})
        truth = StackTruth(path, number, repeated=len(runs) != number)
        stream = "encoder"
        if two and _reads(model, inputs, path, "decoder_input_ids"):
            stream = "decoder"
        length = DECODER_LENGTH if stream == "decoder" and two else LENGTH
        ids_name = "decoder_input_ids" if stream == "decoder" else "input_ids"
        truth.layout = aligned(runs[-1].after, ROWS, length)[1]
        if truth.layout == "padded behind" and _stands_behind(model, inputs, runs[0].before, path, ids_name):
            truth.layout = "padded before"
        truth.causal = _is_causal(model, inputs, truth, length, ids_name)
        if not two and truth.causal:
            stream = "decoder"
        _last_state(truth, output, steps, runs, stream, two=two)
        found[stream] = truth
    _read_hidden_states(model, inputs, found, two=two)
    _padding(model, found, two=two)
    return found


def _main_lists(lists: list[tuple[str, list[Step]]], *, two: bool) -> list[tuple[str, list[Step]]]:
    """Return the deepest list, or the two deepest of an encoder-decoder, in the order in which they ran."""
    deepest = sorted(lists, key=lambda each: -len(each[1]))[: 2 if two else 1]
    return [each for each in lists if each in deepest]


def _changed_last(inputs: Mapping[str, Any], name: str) -> dict[str, Any]:
    changed = inputs[name].clone()
    changed[:, -1] = changed[:, -1] + 7
    return {**inputs, name: changed}


def _outputs(model: PreTrainedModel, inputs: Mapping[str, Any], blocks: str) -> list[Tensor]:
    return [step.after for step in run(model, inputs)[1] if step.list_path == blocks]


def _reads(model: PreTrainedModel, inputs: Mapping[str, Any], blocks: str, name: str) -> bool:
    before, after = (_outputs(model, each, blocks) for each in (inputs, _changed_last(inputs, name)))
    return any(not same(one, other, _CHANGED) for one, other in zip(before, after, strict=True))


def _stands_behind(model: PreTrainedModel, inputs: Mapping[str, Any], entering: Tensor, blocks: str, name: str) -> bool:
    """Whether the last of the positions that enter block 0 is the last token's."""
    changed = next(step.before for step in run(model, _changed_last(inputs, name))[1] if step.list_path == blocks)
    return not same(entering[:, -1], changed[:, -1], _CHANGED) and same(entering[:, 0], changed[:, 0])


def _is_causal(model: PreTrainedModel, inputs: Mapping[str, Any], truth: StackTruth, length: int, name: str) -> bool:
    before, after = (_outputs(model, each, truth.blocks) for each in (inputs, _changed_last(inputs, name)))
    behind = truth.layout == "padded before"
    if all(same(one, other, _CHANGED) for one, other in zip(before, after, strict=True)):
        return False  # CANINE's blocks do not read the last letters of a short text, and so tell of no direction
    for one, other in zip(before, after, strict=True):
        earlier = [_without_last(each, length, before=behind) for each in (one, other)]
        if not same(*earlier, _CHANGED):
            return False
    return True


def _without_last(state: Tensor, length: int, *, before: bool) -> Tensor:
    """Return the states of all tokens but the last, in any number of dimensions; all where none is as long."""
    plain, _ = aligned(state, ROWS, length, before=before)
    if plain is not None:
        return plain[:, :-1]
    among = [dimension for dimension in range(1, state.ndim - 1) if state.shape[dimension] == length]
    return state.narrow(among[0], 0, length - 1) if among else state


def _last_state(
    truth: StackTruth, output: Any, steps: Sequence[Step], runs: Sequence[Step], stream: str, *, two: bool
) -> None:
    name = "encoder_last_hidden_state" if two and stream == "encoder" else "last_hidden_state"
    last = getattr(output, name, None)
    if not isinstance(last, Tensor):
        return
    closing = aligned(runs[-1].after, last.shape[0], last.shape[1], before=truth.layout == "padded before")[0]
    truth.last_is_block = closing is not None and same(closing, last)
    if truth.last_is_block:
        return
    for step in steps:
        if step.list_path != truth.blocks and same(step.before, runs[-1].after) and same(step.after, last):
            truth.final_norm = step.path


def _read_hidden_states(
    model: PreTrainedModel, inputs: Mapping[str, Any], found: Mapping[str, StackTruth], *, two: bool
) -> None:
    try:
        output, steps = run(model, inputs, output_hidden_states=True)
    except Exception as error:  # the model's own failure is what is measured
        for truth in found.values():
            truth.hidden_states = [f"output_hidden_states=True fails ({type(error).__name__})"]
        return
    for stream, truth in found.items():
        given = getattr(output, f"{stream}_hidden_states" if two else "hidden_states", None)
        if not isinstance(given, (tuple, list)) or not all(isinstance(each, Tensor) for each in given):
            truth.hidden_states = ["output_hidden_states gives nothing"]
            continue
        name = "encoder_last_hidden_state" if two and stream == "encoder" else "last_hidden_state"
        truth.entries = len(given)
        runs = [step for step in steps if step.list_path == truth.blocks]
        before = truth.layout == "padded before"
        truth.between = _works_between(given, runs)
        truth.hidden_states = list(_in_words(given, runs, getattr(output, name, None), before=before))


def _works_between(given: Sequence[Tensor], runs: Sequence[Step]) -> bool:
    """Whether `hidden_states` are what enters blocks and not what left the blocks before."""
    entering = [step.before for step in runs[1:]]
    leaving = [step.after for step in runs[:-1]]
    if len(given) <= len(entering) or all(map(same, entering, leaving)):
        return False
    return any(all(map(same, given[shift : shift + len(entering)], entering)) for shift in (0, 1))


def _in_words(given: Sequence[Tensor], runs: Sequence[Step], last: Any, *, before: bool) -> Iterator[str]:
    """Yield how `hidden_states` differ from the input of block 0 and every block's output."""
    rows, length = given[-1].shape[:2] if given[-1].ndim >= 2 else (0, 0)
    states = (runs[0].before, *(step.after for step in runs))
    layers = [aligned(state, rows, length, before=before)[0] for state in states]
    if _works_between(given, runs):
        yield "something outside the blocks works on what they hand over, and entries stand behind it"
        states = (runs[0].before, *(step.before for step in runs[1:]), runs[-1].after)
        layers = [aligned(state, rows, length, before=before)[0] for state in states]
    if any(each is None for each in layers):
        yield f"entries of shape {tuple(given[-1].shape)}, blocks give {tuple(runs[-1].after.shape)}"
        return
    if len(given) != len(layers):
        yield f"{len(given)} entries for {len(runs)} blocks"
    shifted = [n for n in range(min(len(given), len(layers)) - 1) if same(given[n], layers[n + 1])]
    if len(shifted) >= len(runs) - 1:
        yield "entry k is the output of block k: what enters block 0 is not among them"
        return
    if not any(same(given[0], layer) for layer in layers[:1] if layer is not None):
        yield "the first entry is not what enters block 0"
    between = [n for n in range(1, min(len(given), len(layers)) - 1) if not same(given[n], layers[n])]
    if between:
        yield f"entries {', '.join(map(str, between))} are not the outputs of the blocks before"
    closing = layers[-1]
    if closing is not None and not same(given[-1], closing):
        if not isinstance(last, Tensor):
            yield "the last entry is not the last block's output; there is no last_hidden_state"
        elif not same(given[-1], last):
            yield "the last entry is neither the last block's output nor the last hidden state"
    elif isinstance(last, Tensor) and not same(given[-1], last):
        yield "the last entry is the last block's output, before what makes the last hidden state of it"


def _padding(model: PreTrainedModel, found: Mapping[str, StackTruth], *, two: bool) -> None:
    """Note how far one text's states in a padded batch are from those of the text alone."""
    ids = some_ids(ROWS, LENGTH)
    pad = getattr(model.config.get_text_config(), "pad_token_id", None) or 0
    mask = torch.zeros_like(ids)
    for row, length in enumerate(_PADDED_LENGTHS):
        mask[row, :length] = 1
    padded = ids.masked_fill(mask == 0, pad)
    decoder_ids = some_ids(ROWS, DECODER_LENGTH, seed=2) if two else None
    together = run(model, inputs_for(model, padded, mask, decoder_ids))[1]
    for row, length in enumerate(_PADDED_LENGTHS):
        own = None if decoder_ids is None else decoder_ids[row : row + 1]
        alone = run(model, inputs_for(model, ids[row : row + 1, :length], None, own))[1]
        for stream, truth in found.items():
            decoding = two and stream == "decoder"
            lengths = (DECODER_LENGTH, DECODER_LENGTH) if decoding else (LENGTH, length)
            ours = layers_of(together, truth, ROWS, lengths[0])
            theirs = layers_of(alone, truth, 1, lengths[1])
            if ours is None or theirs is None or len(ours) != len(theirs):
                truth.padding_error = float("inf")
                continue
            for one, other in zip(ours, theirs, strict=True):
                kept = one[row : row + 1] if decoding else one[row : row + 1, :length]
                truth.padding_error = max(truth.padding_error, distance(other, kept))
