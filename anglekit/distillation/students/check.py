"""Each student is checked: does a copied block compute in its new place what it computes in the teacher?

The teacher and the student run a few random tokens, which takes some milliseconds at 12 blocks. Nothing is copied.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from tempfile import TemporaryDirectory
from typing import Final

from torch import nn
from transformers import AutoModel, PretrainedConfig, PreTrainedModel

from anglekit.errors import InputError, foreign_failures
from anglekit.models import architectures
from anglekit.models.block_sequence import (
    block_differences,
    difference,
    random_inputs,
    rounding,
    states_in_sequence,
    with_weights_of,
)
from anglekit.models.cost import without_memory
from anglekit.models.text_stack import model_class
from anglekit.vocabulary import Stream

_AT_RANDOM: Final = "take --init random"
# What a block does for others and not to its own states. The last block of each kind of attention keeps its keys and
# values, which Gemma 4 says also of a model none of whose blocks reads them (transformers 5.24).
_FOR_OTHERS: Final = frozenset({"store_full_length_kv"})


def check_student(teacher: PreTrainedModel, student: PreTrainedModel, blocks: Mapping[Stream, Sequence[int]]) -> None:
    """Check that a copied student computes what the teacher's chosen blocks compute in sequence.

    Neither model is changed. A teacher whose weights are not in memory cannot run here (`block_sequence.can_run`).

    Args:
        teacher: with any head, or none.
        student: copied from it.
        blocks: by stream, the teacher block that each student block is a copy of, in any order.

    Raises:
        InputError: a layer comes out differently; it names the layer and, where it is found, the reason.
    """
    inputs = random_inputs(teacher)
    expected = states_in_sequence(teacher, blocks, inputs)
    with foreign_failures(
        lambda reason: InputError(f"the {student.config.model_type} student cannot run ({reason})", _AT_RANDOM)
    ):
        found = states_in_sequence(student, _all_blocks(student), inputs)
    for stream, chosen in blocks.items():
        for layer, (ours, theirs) in enumerate(zip(found[stream], expected[stream], strict=True)):
            apart = difference(ours, theirs)
            if apart > rounding(teacher, student):
                raise _refusal(teacher, student, stream, chosen, layer, apart)


def check_kinds(teacher: PreTrainedModel, student: PreTrainedModel, blocks: Mapping[Stream, Sequence[int]]) -> None:
    """Check that each block of a student is of the kind of the teacher's block that it stands for.

    A kind is the names of the weights and, where both models are as wide, their shapes; and the block's own words and
    marks (`attention_type`, `is_sparse`). Numbers that a type sets by a block's place are the student's own.

    Raises:
        InputError: a block is of another kind; it names the first.
    """
    as_wide = architectures.width(teacher.config) == architectures.width(student.config)
    for stream, chosen in blocks.items():
        theirs, ours = architectures.blocks(teacher, stream), architectures.blocks(student, stream)
        for new, old in enumerate(chosen):
            if _kind(ours[new], shapes=as_wide) != _kind(theirs[old], shapes=as_wide):
                reason = "; ".join(block_differences(theirs[old], ours[new])[:3])
                raise InputError(
                    f"block {new} of the {student.config.model_type} student is of another kind than block {old} of "
                    f"the teacher, which it stands for: {reason}",
                    "choose another number of layers",
                )


def check_saved(student: PreTrainedModel) -> None:
    """Check that what `save_pretrained` writes of a student makes the same model again, without writing its weights.

    Its configuration is written and read back, and the model that is made of it runs with the student's own weights.

    Raises:
        InputError: another model comes out, or none.
    """
    kind = student.config.model_type

    def refusal(reason: str) -> InputError:
        return InputError(
            f"a {kind} student like this does not come back when it is saved and read again: {reason}",
            "choose another depth or width, or other blocks",
        )

    with foreign_failures(refusal), TemporaryDirectory() as directory:
        student.config.save_pretrained(directory)
        config = type(student.config).from_pretrained(directory)
        again = with_weights_of(type(student), config, student.state_dict(), student.device)
    mine, other = ({name: tuple(each.shape) for name, each in one.state_dict().items()} for one in (student, again))
    if mine != other:
        names = sorted(name for name in mine.keys() | other.keys() if mine.get(name) != other.get(name))
        raise refusal(f"{names[0]} is {mine.get(names[0], 'absent')}, then {other.get(names[0], 'absent')}")
    inputs, everything = random_inputs(student), _all_blocks(student)
    with foreign_failures(
        lambda reason: InputError(f"no {kind} student of this shape can run: {reason}", "choose another depth or width")
    ):
        before = states_in_sequence(student, everything, inputs)
    with foreign_failures(refusal):
        after = states_in_sequence(again, everything, inputs)
    for stream in everything:
        apart = max(map(difference, after[stream], before[stream]))
        if apart > rounding(student):
            raise refusal(f"its {stream}'s states differ by {apart:.2g} of their size")


def moved_differently(
    teacher: PretrainedConfig, student: PretrainedConfig, blocks: Mapping[Stream, Sequence[int]], source: str
) -> tuple[str, ...]:
    """Return, a sentence each, which blocks would be made otherwise in the student, known before weights are read.

    Both models are built without memory, and the parts and constants of their blocks are compared. What shows only when
    they run (a convolution behind the first block) is not seen.

    Args:
        teacher: its configuration.
        student: that of `create.student_config`.
        blocks: by stream, the teacher block that each student block would be copied from.
        source: the teacher's directory or hub id, for messages.

    Raises:
        InputError: the configuration describes no model that can be built.
    """

    def refusal(reason: str) -> InputError:
        return InputError(f"{source} describes no model that can be built: {reason}", "correct config.json")

    kind = model_class(AutoModel, teacher)
    build = getattr(kind, "from_config", kind)
    with without_memory(source, None, refusal):
        # A configuration may be completed by the model that is built of it.
        whole, fewer = (build(copy.deepcopy(each)) for each in (teacher, student))
    found = []
    for stream, chosen in blocks.items():
        theirs, ours = architectures.blocks(whole, stream), architectures.blocks(fewer, stream)
        for new, old in enumerate(chosen):
            if reasons := block_differences(theirs[old], ours[new]):
                found.append(
                    f"the {stream}'s block {old} would be made otherwise as block {new} of the student, and its copy "
                    f"may be refused: {'; '.join(reasons[:3])}"
                )
    return tuple(found)


def _all_blocks(model: PreTrainedModel) -> dict[Stream, range]:
    return {
        stream: range(len(architectures.blocks(model, stream))) for stream in architectures.model_streams(model.config)
    }


def _kind(block: nn.Module, *, shapes: bool) -> set[tuple[str, object]]:
    """Return the names of a block's weights, numbers left out, with their shapes; and its own words and marks."""
    weights = {
        (re.sub(r"\d+", "#", name), tuple(weight.shape) if shapes else ())
        for name, weight in block.state_dict().items()
    }
    told = {
        (f"{name}.{key}", value)
        for name, module in block.named_modules()
        for key, value in vars(module).items()
        if not key.startswith("_") and key != "training" and key not in _FOR_OTHERS and isinstance(value, str | bool)
    }
    return weights | told


def _refusal(
    teacher: PreTrainedModel,
    student: PreTrainedModel,
    stream: Stream,
    chosen: Sequence[int],
    layer: int,
    apart: float,
) -> InputError:
    by = f"its states differ by {apart:.2g} of their size"
    kind = teacher.config.model_type
    if layer == 0:
        return InputError(f"the {kind} student's {stream} embeds tokens otherwise than its teacher ({by})", _AT_RANDOM)
    if layer > len(chosen):
        return InputError(
            f"what follows the last block of the {kind} student's {stream} is not the teacher's ({by})", _AT_RANDOM
        )
    block = layer - 1
    reasons = block_differences(
        architectures.blocks(teacher, stream)[chosen[block]], architectures.blocks(student, stream)[block]
    )
    reason = "; ".join(reasons[:3]) or "it depends on its number or on the blocks before it"
    where = "" if len(architectures.model_streams(teacher.config)) == 1 else f" of the {stream}"
    return InputError(
        f"block {chosen[block]}{where} of a {kind} teacher computes something else as block {block} of this student: "
        f"{reason} ({by})",
        # In its own place a block differs only by the depth.
        _AT_RANDOM if chosen[block] == block else f"{_AT_RANDOM}, or copy the first blocks, which keep their places",
    )
