"""Students: smaller models of the teacher's own class, freshly initialised or copied from the teacher's blocks.

What is returned is an ordinary transformers model; saved with `save_pretrained`, `from_pretrained` loads it without
anglekit. Nothing here disturbs the global random state.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from anglekit.distillation.matching.strategies import (
    MODEL_FAMILIES,
    check_copied_blocks,
    check_depths,
    copy_map,
    family_of,
)
from anglekit.distillation.students.check import check_kinds, check_saved, check_student
from anglekit.distillation.students.widths import HEAD_NAMES, HEAD_SIZE_NAMES, check_width, divisors, narrower_heads
from anglekit.errors import InputError, foreign_failures, suggest
from anglekit.models import architectures
from anglekit.models.block_sequence import can_run, without_rescaling
from anglekit.models.check import facts_of
from anglekit.models.chosen_blocks import check_shape, fitting_blocks, with_blocks
from anglekit.models.sources import WIDTH_NAMES
from anglekit.runtime.placement import whole_state
from anglekit.vocabulary import INITS, Init, Stream

CopyBlocks = Sequence[int] | Mapping[Stream, Sequence[int]]

# Widths inside the feed-forward networks shrink with the model's.
_INNER_NAMES: Final = ("intermediate_size", "d_ff", "encoder_ffn_dim", "decoder_ffn_dim", "hidden_dim", "n_inner")


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
            copy map that does not go with the initialisation, a copy map that does not fit, or a copied block that
            computes something else in its new place (`check.check_student`).

    Example:
        >>> student = create_student(teacher, layers=3, init="teacher")
        >>> student.save_pretrained("student")
    """
    facts_of(teacher)  # which refuses a model that cannot be cut, and knows its streams
    blocks, config = student_shape(
        teacher.config,
        layers=layers,
        encoder_layers=encoder_layers,
        decoder_layers=decoder_layers,
        width=width,
        init=init,
        copy_blocks=copy_blocks,
    )
    with (
        torch.random.fork_rng(devices=[]),
        torch.device("cpu"),
        foreign_failures(
            lambda reason: InputError(
                f"no {config.model_type} student of this shape exists: {reason}", "choose another depth or width"
            )
        ),
    ):
        # Not `torch.manual_seed`, which would reseed every accelerator as well.
        torch.default_generator.manual_seed(seed)
        student = type(teacher)(config)
    _set_precision(student, teacher.dtype)
    if teacher.can_generate():
        student.generation_config = copy.deepcopy(teacher.generation_config)
    if init == "teacher":
        with without_rescaling(teacher):
            _copy_weights(teacher, student, blocks)
        if can_run(teacher):
            check_student(teacher, student, blocks)
    else:
        check_kinds(teacher, student, blocks)
    check_saved(student)
    student.train()
    return student


def _set_precision(student: PreTrainedModel, dtype: torch.dtype) -> None:
    """Give a model's weights a precision, in place; what it computes itself (rotary frequencies) keeps its own."""
    computed = [
        (module, name, buffer)
        for module in student.modules()
        for name, buffer in module.named_buffers(recurse=False)
        if name in module._non_persistent_buffers_set
    ]
    # `Module.to` by its own name, for mypy reads the decorated method of `PreTrainedModel` as unbound.
    nn.Module.to(student, dtype=dtype)
    for module, name, buffer in computed:
        setattr(module, name, buffer)


def _copy_weights(teacher: PreTrainedModel, student: PreTrainedModel, chosen: Mapping[Stream, Sequence[int]]) -> None:
    """Copy all weights but a classification head's, each student block from its teacher block, in place."""
    base = _path_of(student, student.base_model)
    # A head that ends in the vocabulary belongs to the embeddings; any other is the task's and starts afresh.
    whole = student.get_output_embeddings() is not None  # type: ignore[no-untyped-call]
    homes = {stream: _path_of(student, architectures.blocks(student, stream)) for stream in chosen}
    source = teacher.state_dict()
    depths = {stream: architectures.depth(teacher.config, stream) for stream in chosen}
    copies = defaultdict[str, list[tuple[Tensor, Callable[[Tensor], Tensor]]]](list)
    with torch.no_grad():
        for name, target in student.state_dict().items():
            if not (whole or name.startswith(base)):
                continue
            origin = _origin(name, homes, chosen)
            part = _part_for(source[origin], target.shape, depths, chosen) if origin in source else None
            if part is None:
                raise _no_counterpart(name, origin, homes, chosen)
            copies[origin].append((target, part))
        # Once each, for those that lie on the disk.
        for origin, tensor in whole_state(teacher):
            for target, part in copies.get(origin, ()):
                target.copy_(part(tensor))


def _origin(name: str, homes: Mapping[Stream, str], chosen: Mapping[Stream, Sequence[int]]) -> str:
    """Return the teacher's name for a student's weight."""
    for stream, home in homes.items():
        if name.startswith(home):
            number, _, rest = name.removeprefix(home).partition(".")
            return f"{home}{chosen[stream][int(number)]}.{rest}"
    return name


def _no_counterpart(
    name: str, origin: str, homes: Mapping[Stream, str], chosen: Mapping[Stream, Sequence[int]]
) -> InputError:
    for stream, home in homes.items():
        if name.startswith(home):
            number, _, rest = name.removeprefix(home).partition(".")
            return InputError(
                f"block {chosen[stream][int(number)]} of the teacher's {stream} has no {rest} of the shape that block "
                f"{number} of this student needs",
                "choose other blocks to copy, or --init random",
            )
    return InputError(
        f"the student's {name} has no counterpart of its shape in the teacher ({origin})", "take --init random"
    )


def _part_for(
    source: Tensor, shape: torch.Size, depths: Mapping[Stream, int], chosen: Mapping[Stream, Sequence[int]]
) -> Callable[[Tensor], Tensor] | None:
    """Return what takes from a teacher's weight the part that a student's has; None where the shapes have no reason.

    A weight outside the blocks may have a part for each of them, one behind the other along one axis: Gemma 3n's
    embeddings by layer, ESM-2's regression of contacts on the attention of all layers.
    """
    if source.shape == shape:
        return lambda tensor: tensor
    differing = [axis for axis, (old, new) in enumerate(zip(source.shape, shape, strict=False)) if old != new]
    if source.ndim != len(shape) or len(differing) != 1:
        return None
    (axis,) = differing
    for stream, blocks in chosen.items():
        size, rest = divmod(source.shape[axis], depths[stream])
        if rest == 0 and shape[axis] == size * len(blocks):
            rows = torch.tensor([block * size + row for block in blocks for row in range(size)])
            return lambda tensor, rows=rows: tensor.index_select(axis, rows.to(tensor.device))  # type: ignore[misc]
    return None


def _path_of(model: nn.Module, wanted: nn.Module) -> str:
    """Return the prefix of a module's weights: "" for the model itself, "bert.encoder.layer." for its blocks."""
    path = next(name for name, module in model.named_modules() if module is wanted)
    return f"{path}." if path else ""


# ---- from a teacher's configuration to a student's; no weights are read ----


def student_shape(
    config: PretrainedConfig,
    *,
    layers: int | None = None,
    encoder_layers: int | None = None,
    decoder_layers: int | None = None,
    width: int | None = None,
    init: str = "random",
    copy_blocks: CopyBlocks | None = None,
) -> tuple[dict[Stream, tuple[int, ...]], PretrainedConfig]:
    """Return what `create_student` would make of a teacher's configuration, and refuse what it would refuse.

    Returns:
        By stream the teacher block that each student block is copied from or, where weights are random, stands for;
        and the student's configuration.
    """
    if init not in INITS:
        raise InputError(f"no initialisation {init!r}", allowed=suggest(init, INITS))
    if layers is encoder_layers is decoder_layers is width is None:
        raise InputError("a student needs a depth or a width of its own", "give --layers or --width")
    depths = student_depths(config, layers=layers, encoder_layers=encoder_layers, decoder_layers=decoder_layers)
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
    blocks: dict[Stream, tuple[int, ...]] = {}
    for stream, student_blocks in depths.items():
        teacher_blocks = architectures.depth(config, stream)
        wanted = given.get(stream)
        if wanted is None:
            usual = copy_map(teacher_blocks, student_blocks, family)
            # Where a rule places the kinds of blocks, the usual ones may not fit behind each other.
            wanted = fitting_blocks(config, stream, usual) or usual
        blocks[stream] = check_copied_blocks(
            wanted, teacher_blocks=teacher_blocks, student_blocks=student_blocks, family=family, stream=stream
        )
    return blocks, student_config(config, blocks=blocks, new_width=width)


def heads_in_words(config: PretrainedConfig) -> str:
    """Return the heads of a configuration in words: "12 heads of 32"; "" where it names none."""
    named = ((name, getattr(config, name, None)) for name in HEAD_NAMES)
    number = next((value for name, value in named if isinstance(value, int)), None)
    if number is None:
        return "no attention heads"
    stated = config.to_dict()
    size = next((stated[name] for name in HEAD_SIZE_NAMES if isinstance(stated.get(name), int)), None)
    groups = stated.get("num_key_value_heads")
    keys = f", {groups} of keys and values" if isinstance(groups, int) and groups != number else ""
    return f"{number} heads of {size or architectures.width(config) // number}{keys}"


def model_family(config: PretrainedConfig) -> str:
    """Return the name of the model's family in `strategies.MODEL_FAMILIES`."""
    if config.model_type == "deberta-v2" and getattr(config, "conv_kernel_size", None):
        # Its convolution follows the first block alone.
        return "modernbert"
    return family_of(str(config.model_type), architectures.model_streams(config))


def official_family(config: PretrainedConfig) -> str:
    """Return the name in `readings.OFFICIAL_FAMILIES` of the program of the paper's code that a model belongs to."""
    return MODEL_FAMILIES[model_family(config)].official_losses


def student_depths(
    config: PretrainedConfig,
    *,
    layers: int | None = None,
    encoder_layers: int | None = None,
    decoder_layers: int | None = None,
) -> dict[Stream, int]:
    """Return the student's number of blocks for each stream of the teacher: `layers` in all, or one's alone.

    Raises:
        InputError: `layers` beside one of the others, a stream that the teacher does not have, or a student deeper
            than its teacher.
    """
    asked: dict[Stream, int | None] = {"encoder": encoder_layers, "decoder": decoder_layers}
    streams = architectures.model_streams(config)
    if layers is not None and (encoder_layers is not None or decoder_layers is not None):
        raise InputError("--layers came together with --encoder-layers or --decoder-layers", "give one or the other")
    for stream, number in asked.items():
        if number is not None and stream not in streams:
            raise InputError(
                f"a {config.model_type} teacher has no {stream}", allowed=f"allowed: --layers or --{streams[0]}-layers"
            )
    depths: dict[Stream, int] = {}
    for stream in streams:
        wanted = asked[stream] if layers is None else layers
        depths[stream] = architectures.depth(config, stream) if wanted is None else wanted
        check_depths(architectures.depth(config, stream), depths[stream], stream)
    return depths


def student_config(
    config: PretrainedConfig, *, blocks: Mapping[Stream, Sequence[int]], new_width: int | None = None
) -> PretrainedConfig:
    """Return the configuration of a student of the same model type.

    Settings that are listed layer by layer (`layer_types` of Qwen3 or ModernBERT) keep the entries of the chosen
    blocks, whether or not their weights are copied, so that both initialisations make the same architecture. With a
    smaller width the number of attention heads stays where the architecture allows it, so that each is smaller, and the
    feed-forward width falls in proportion. The teacher's configuration is left as it is.

    Raises:
        InputError: the width is not possible for this model type.
    """
    student = with_blocks(config, blocks)
    student.name_or_path = ""
    if hasattr(student, "rescale_every"):
        # RWKV's, which changes the weights when it evaluates: what is saved then would be another model.
        student.rescale_every = 0
    if new_width is not None and new_width != architectures.width(config):
        with foreign_failures(
            lambda reason: InputError(
                f"no {config.model_type} student of this width exists: {reason}", "choose another"
            )
        ):
            _set_width(student, architectures.width(config), new_width)
    check_shape(student)
    return student


def _has_rotary_sections(stated: Mapping[str, Any]) -> bool:
    """Return whether rotary embeddings are in sections, whose sizes add up to half of a head."""
    rotary = [stated[name] for name in ("rope_parameters", "rope_scaling") if isinstance(stated.get(name), Mapping)]
    inner = [one for each in rotary for one in each.values() if isinstance(one, Mapping)]
    return any(one.get("mrope_section") for one in (*rotary, *inner))


def _heads_of_size(size: int, width: int, model_type: str) -> int:
    """Return how many heads of a size make a width.

    Raises:
        InputError: no number of them does.
    """
    if width % size:
        raise InputError(
            f"a student of width {width} has no whole number of heads of {size}, which the rotary sections of a "
            f"{model_type} fix",
            f"choose a multiple of {size}",
        )
    return width // size


def _set_width(student: PretrainedConfig, old: int, new: int) -> None:
    """Change the width and all that depends on it, in place."""
    if any(
        architectures.stream_config(student, stream) is not student for stream in architectures.model_streams(student)
    ):
        raise InputError(
            f"a {student.model_type} has a configuration for each stream, and no narrower student of it is made",
            "leave --width out",
        )
    check_width(old, new)
    heads = {name: getattr(student, name) for name in HEAD_NAMES if isinstance(getattr(student, name, None), int)}
    stated = student.to_dict()
    sizes = {name: stated[name] for name in HEAD_SIZE_NAMES if isinstance(stated.get(name), int)}
    shrinks = [size * new % old == 0 and size * new // old % 2 == size % 2 for size in sizes.values()]
    if "qk_rope_head_dim" in stated or (_has_rotary_sections(stated) and sizes):
        pass  # sizes of heads that are no part of the width, and that others depend on: number and size stay
    elif _has_rotary_sections(stated):
        for name, number in heads.items():
            setattr(student, name, _heads_of_size(old // number, new, student.model_type))
    elif sizes and all(shrinks):
        for name, size in sizes.items():
            setattr(student, name, size * new // old)
    else:
        smallest, multiple = stated.get("rotary_dim") or 1, stated.get("channel_shrink_ratio") or 1
        for name, number in heads.items():
            setattr(student, name, narrower_heads(number, old, new, smallest, multiple))
        if "d_head" in sizes and heads:  # XLNet's, which is the width by the number of heads
            student.d_head = new // student.n_head
    groups = getattr(student, "num_key_value_heads", None)
    if isinstance(groups, int):
        before, after = heads["num_attention_heads"], student.num_attention_heads
        student.num_key_value_heads = max(
            divisor for divisor in divisors(after) if divisor <= max(groups * after // before, 1)
        )
    for name in _INNER_NAMES:
        inner = getattr(student, name, None)
        if isinstance(inner, int):
            setattr(student, name, max(round(inner * new / old), 1))
    for name in WIDTH_NAMES:
        if isinstance(getattr(student, name, None), int):
            setattr(student, name, new)
