"""Students: a smaller model of the teacher's own class, freshly initialised or copied from the teacher's blocks.

What is returned is an ordinary transformers model; saved with `save_pretrained`, `from_pretrained` loads it without
anglekit. Nothing here disturbs the global random state.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final, Literal, get_args

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from anglekit.distillation.matching.strategies import check_copied_blocks, copy_map
from anglekit.distillation.students.student_config import model_family, student_config, student_depths
from anglekit.errors import InputError, suggest
from anglekit.models import architectures
from anglekit.runtime.placement import whole_state
from anglekit.vocabulary import Stream

__all__ = ["INITS", "Init", "copied_blocks", "create_student"]

Init = Literal["random", "teacher"]
INITS: Final[tuple[Init, ...]] = get_args(Init)

CopyBlocks = Sequence[int] | Mapping[Stream, Sequence[int]]


def create_student(
    teacher: PreTrainedModel,
    *,
    layers: int | None = None,
    encoder_layers: int | None = None,
    decoder_layers: int | None = None,
    width: int | None = None,
    init: Init = "random",
    copy_blocks: CopyBlocks | None = None,
    seed: int = 0,
) -> PreTrainedModel:
    """Make a student of the teacher's class, on the CPU, in the teacher's precision and in training mode.

    With `init="teacher"` the embeddings, the chosen blocks, the final norms, the pooler and a language model's head
    are copied; a classification head is not, as in the paper. Tied weights stay tied.

    Args:
        teacher: with any head, or none.
        layers: number of blocks, for encoder and decoder alike.
        encoder_layers: number of encoder blocks; the decoder keeps its depth unless given too.
        decoder_layers: likewise.
        width: a width below the teacher's; then the student is initialised at random, and matching needs adapters.
        init: "random", as the model type initialises itself, or "teacher".
        copy_blocks: the teacher block that each student block is copied from, by stream where there are two; the
            family's own map (`matching.copy_map`) where absent.
        seed: of every random weight; the same seed gives the same student.

    Raises:
        InputError: neither depth nor width is given, the student is deeper or wider than its teacher, a width or a
            copy map that does not go with the initialisation, or a copy map that does not fit.
    """
    if init not in INITS:
        raise InputError(f"no initialisation {init!r}", allowed=suggest(init, INITS))
    if layers is encoder_layers is decoder_layers is width is None:
        raise InputError("a student needs a depth or a width of its own", "give --layers or --width")
    config = teacher.config
    depths = student_depths(config, layers=layers, encoder_layers=encoder_layers, decoder_layers=decoder_layers)
    chosen = copied_blocks(teacher.config, depths, init=init, width=width, copy_blocks=copy_blocks)
    shape = student_config(config, blocks=chosen, new_width=width)
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        # Not `torch.manual_seed`, which would reseed every accelerator as well.
        torch.default_generator.manual_seed(seed)
        student = type(teacher)(shape)
    # `Module.to` by its own name, for mypy reads the decorated method of `PreTrainedModel` as unbound.
    nn.Module.to(student, dtype=teacher.dtype)
    if teacher.can_generate():
        student.generation_config = copy.deepcopy(teacher.generation_config)
    if init == "teacher":
        _copy_weights(teacher, student, chosen)
    student.train()
    return student


def copied_blocks(
    config: PretrainedConfig,
    depths: Mapping[Stream, int],
    *,
    init: str,
    width: int | None = None,
    copy_blocks: CopyBlocks | None = None,
) -> dict[Stream, tuple[int, ...]]:
    """Return, for each stream, the teacher block that each student block is copied from or, if random, stands for.

    Args:
        config: the teacher's.
        depths: the student's number of blocks by stream.
        init: "random" or "teacher".
        width: the student's width, if it has its own.
        copy_blocks: the user's map, for one stream or by stream; streams that it leaves out use the family's map.

    Raises:
        InputError: as `create_student`.
    """
    if init == "teacher" and width is not None and width != architectures.width(config):
        raise InputError(
            f"a student of width {width} cannot be copied from a teacher of width {architectures.width(config)}",
            "use --init random",
        )
    if init != "teacher" and copy_blocks is not None:
        raise InputError(f"a copy map came with --init {init}, which copies nothing", "use --init teacher")
    given = copy_blocks or {}
    if not isinstance(given, Mapping):
        if len(depths) > 1:
            raise InputError("a copy map for an encoder-decoder needs its stream: encoder=0,6,11;decoder=0,6,11")
        given = dict.fromkeys(depths, given)
    for stream in given:
        if stream not in depths:
            raise InputError(f"the copy map names stream {stream!r}", allowed=suggest(stream, depths))
    family = model_family(config)
    chosen: dict[Stream, tuple[int, ...]] = {}
    for stream, student_blocks in depths.items():
        teacher_blocks = architectures.depth(config, stream)
        wanted = given.get(stream) or copy_map(teacher_blocks, student_blocks, family)
        chosen[stream] = check_copied_blocks(
            wanted, teacher_blocks=teacher_blocks, student_blocks=student_blocks, family=family, stream=stream
        )
    return chosen


def _copy_weights(teacher: PreTrainedModel, student: PreTrainedModel, chosen: Mapping[Stream, Sequence[int]]) -> None:
    """Copy all weights but a classification head's, each student block from its teacher block, in place."""
    base = _path_of(student, student.base_model)
    # A head that ends in the vocabulary belongs to the embeddings; any other is the task's and starts afresh.
    whole = student.get_output_embeddings() is not None  # type: ignore[no-untyped-call]
    homes = {stream: _path_of(student, architectures.blocks(student, stream)) for stream in chosen}
    source = teacher.state_dict()
    copies = defaultdict[str, list[Tensor]](list)
    with torch.no_grad():
        for name, target in student.state_dict().items():
            if not (whole or name.startswith(base)):
                continue
            origin = _origin(name, homes, chosen)
            if origin not in source or source[origin].shape != target.shape:
                raise InputError(
                    f"the student's {name} has no counterpart of its shape in the teacher ({origin})",
                    "choose other blocks to copy, or --init random",
                )
            copies[origin].append(target)
        # Once each, for those that lie on the disk.
        for origin, tensor in whole_state(teacher):
            for target in copies.get(origin, ()):
                target.copy_(tensor)


def _origin(name: str, homes: Mapping[Stream, str], chosen: Mapping[Stream, Sequence[int]]) -> str:
    """Return the teacher's name for a student's weight."""
    for stream, home in homes.items():
        if name.startswith(home):
            number, _, rest = name.removeprefix(home).partition(".")
            return f"{home}{chosen[stream][int(number)]}.{rest}"
    return name


def _path_of(model: nn.Module, wanted: nn.Module) -> str:
    """Return the prefix of a module's weights: "" for the model itself, "bert.encoder.layer." for its blocks."""
    path = next(name for name, module in model.named_modules() if module is wanted)
    return f"{path}." if path else ""
