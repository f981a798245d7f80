"""From a teacher's configuration to a student's: fewer blocks, a smaller width, and all that depends on them.

Attribute names differ between model types; nothing is built here, so a plan can be checked without weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from transformers import PretrainedConfig

from anglekit.distillation.matching.strategies import check_depths, family_of
from anglekit.errors import InputError
from anglekit.models.architectures import depth, model_streams, width, with_blocks
from anglekit.vocabulary import Stream

__all__ = ["model_family", "student_config", "student_depths"]

_WIDTH_NAMES: Final = ("hidden_size", "d_model", "n_embd", "dim")
_HEAD_NAMES: Final = (
    "num_attention_heads",
    "encoder_attention_heads",
    "decoder_attention_heads",
    "num_heads",
    "n_heads",
    "n_head",
)
# Widths inside the feed-forward networks shrink with the model's.
_INNER_NAMES: Final = ("intermediate_size", "d_ff", "encoder_ffn_dim", "decoder_ffn_dim", "hidden_dim", "n_inner")


def model_family(config: PretrainedConfig) -> str:
    """Return the name of the model's family in `matching.FAMILIES`."""
    return family_of(str(config.model_type), model_streams(config))


def student_depths(
    config: PretrainedConfig,
    *,
    layers: int | None = None,
    encoder_layers: int | None = None,
    decoder_layers: int | None = None,
) -> dict[Stream, int]:
    """Return the student's number of blocks for each stream of the teacher.

    Args:
        config: the teacher's.
        layers: for every stream (an encoder-decoder gets as many in both).
        encoder_layers: for the encoder alone; the other stream keeps the teacher's depth.
        decoder_layers: likewise for the decoder.

    Raises:
        InputError: `layers` beside one of the others, a stream that the teacher does not have, or a student deeper
            than its teacher.
    """
    asked: dict[Stream, int | None] = {"encoder": encoder_layers, "decoder": decoder_layers}
    streams = model_streams(config)
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
        depths[stream] = depth(config, stream) if wanted is None else wanted
        check_depths(depth(config, stream), depths[stream], stream)
    return depths


def student_config(
    config: PretrainedConfig, *, blocks: Mapping[Stream, Sequence[int]], new_width: int | None = None
) -> PretrainedConfig:
    """Return the configuration of a student of the same model type.

    Settings that are listed layer by layer (`layer_types` of Qwen3 or ModernBERT) keep the entries of the chosen
    blocks, whether or not their weights are copied, so that both initialisations make the same architecture. With a
    smaller width the number of attention heads falls in proportion, so that each keeps its size, and the feed-forward
    width falls in proportion too.

    Args:
        config: the teacher's; left as it is.
        blocks: for each stream the teacher block that each student block stands for.
        new_width: the student's width, at most the teacher's; None keeps the teacher's.

    Raises:
        InputError: the width is not possible for this model type.
    """
    student = with_blocks(config, blocks)
    student.name_or_path = ""
    if new_width is not None and new_width != width(config):
        _set_width(student, width(config), new_width)
    try:
        student.validate()  # type: ignore[attr-defined, unused-ignore]  # added by huggingface_hub's `strict`
    except (ValueError, TypeError) as error:
        raise InputError(f"no {config.model_type} student of this shape exists: {error}") from error
    return student


def _set_width(student: PretrainedConfig, old: int, new: int) -> None:
    """Change the width and all that depends on it, in place."""
    if not 1 <= new < old:
        raise InputError(f"the student's width is {new} and the teacher's {old}", allowed=f"allowed: 1 to {old}")
    heads = {name: getattr(student, name) for name in _HEAD_NAMES if isinstance(getattr(student, name, None), int)}
    for name, number in heads.items():
        setattr(student, name, _fewer_heads(number, old, new))
    groups = getattr(student, "num_key_value_heads", None)
    if isinstance(groups, int):
        before, after = heads["num_attention_heads"], student.num_attention_heads
        student.num_key_value_heads = max(
            divisor for divisor in _divisors(after) if divisor <= max(groups * after // before, 1)
        )
    for name in _INNER_NAMES:
        inner = getattr(student, name, None)
        if isinstance(inner, int):
            setattr(student, name, max(round(inner * new / old), 1))
    for name in _WIDTH_NAMES:
        if isinstance(getattr(student, name, None), int):
            setattr(student, name, new)


def _fewer_heads(heads: int, old: int, new: int) -> int:
    """Return the number of heads for the new width: in proportion, or the nearest number that divides the width.

    A head of even size stays even, for rotary embeddings turn pairs of its dimensions.
    """
    if heads * new % old == 0:
        return heads * new // old
    even = old // heads % 2 == 0
    possible = [number for number in _divisors(new) if not (even and new // number % 2)]
    if not possible:
        raise InputError(
            f"a student of width {new} cannot split it into heads of even size",
            f"choose an even width, best a multiple of {old // heads}",
        )
    return min(possible, key=lambda number: (abs(number - heads * new / old), number))


def _divisors(number: int) -> list[int]:
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]
