"""Mistakes in a plan that the teacher's config.json alone shows: by the rules of the plan, before torch is loaded."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Final

from anglekit.distillation.matching.map_text import parse_copy_map, parse_layer_map
from anglekit.distillation.matching.strategies import (
    check_copied_blocks,
    check_depths,
    family_of,
    layer_matching,
)
from anglekit.distillation.students.widths import HEAD_NAMES, check_width, narrower_heads
from anglekit.errors import InputError
from anglekit.models.load_options import checkpoint_of
from anglekit.models.sources import PlainShape, plain_shape
from anglekit.vocabulary import ATTENTION_MAPS, RELATION_HEADS_OF, Stream

# Types whose queries, keys and values are as wide as the model, unless config.json says how wide a head is.
_AS_WIDE_AS_THE_MODEL: Final = frozenset(
    {
        *("albert", "bart", "bert", "blenderbot", "camembert", "deberta-v2", "distilbert", "electra", "ernie", "gpt2"),
        *("llama", "m2m_100", "marian", "mbart", "mistral", "mpnet", "opt", "pegasus", "qwen2", "roberta"),
        "xlm-roberta",
    }
)


def check_plain_plan(
    teacher: str,
    *,
    layers: int | None = None,
    encoder_layers: int | None = None,
    decoder_layers: int | None = None,
    width: int | None = None,
    student: str | None = None,
    layer_map: str | None = None,
    copy_map: str | None = None,
) -> None:
    """Refuse a shape or a map that the teacher surely cannot have a student of; `plan_distillation` knows the rest.

    Args:
        teacher: its directory, run directory or hub id, of which nothing is known here.
        layers: the student's depth, in every stream.
        encoder_layers: the depth of its encoder alone.
        decoder_layers: that of its decoder alone.
        width: its width.
        student: a student that is there already.
        layer_map: the user's map, as typed.
        copy_map: the user's copy map, as typed.

    Raises:
        InputError: as `plan_distillation`.
    """
    theirs = plain_shape(checkpoint_of(teacher))
    own = None if student is None else plain_shape(checkpoint_of(student))
    if theirs is None or (student is not None and own is None):
        return
    pairs = {} if layer_map is None else parse_layer_map(layer_map, theirs.streams)
    copied = {} if copy_map is None else parse_copy_map(copy_map, theirs.streams)
    asked: dict[Stream, int | None] = {"encoder": encoder_layers, "decoder": decoder_layers}
    for stream, deep in theirs.depths.items():
        wanted = asked[stream] if layers is None else layers
        shallow = own.depths.get(stream) if own is not None else deep if wanted is None else wanted
        if shallow is None:
            continue
        if own is None:
            check_depths(deep, shallow, stream)
        if stream in pairs:
            layer_matching(None, teacher_blocks=deep, student_blocks=shallow, stream=stream, explicit=pairs[stream])
        if stream in copied:
            family = family_of(theirs.type, theirs.streams)
            check_copied_blocks(
                copied[stream], teacher_blocks=deep, student_blocks=shallow, family=family, stream=stream
            )
    # Types with two streams may have a width for each.
    if width is not None and theirs.width not in (None, width) and len(theirs.streams) == 1:
        check_width(theirs.width, width)
        for name in HEAD_NAMES:
            if name in theirs.numbers:
                narrower_heads(theirs.numbers[name], theirs.width, width)


def check_plain_attention(
    teacher: str,
    *,
    hidden_loss: str,
    relation_heads: int | None = None,
    width: int | None = None,
    student: str | None = None,
) -> None:
    """Refuse a loss of attention that surely does not fit the heads of teacher and student.

    What config.json does not tell is known once the models are there (`attention_recorder.check_attention`).

    Args:
        teacher: its directory, run directory or hub id, of which nothing is known here.
        hidden_loss: its name.
        relation_heads: of the loss that has any.
        width: of the student that is made.
        student: one that is there already.

    Raises:
        InputError: relation heads that do not divide a width, or other numbers of heads where they must agree.
    """
    theirs = plain_shape(checkpoint_of(teacher))
    own = theirs if student is None else plain_shape(checkpoint_of(student))
    if theirs is None or own is None or hidden_loss not in (ATTENTION_MAPS, RELATION_HEADS_OF):
        return
    heads, key_heads = _heads_of(theirs), theirs.numbers.get("num_key_value_heads")
    if hidden_loss == ATTENTION_MAPS and student is not None and (found := _heads_of(own)) and heads:
        check_same_heads(
            (found, own.numbers.get("num_key_value_heads", found)), (heads, heads if key_heads is None else key_heads)
        )
    if relation_heads is not None and heads:
        made = {width} if width is not None and _is_as_wide(theirs) else set()
        check_relation_heads(relation_heads, _attention_widths(theirs) | _attention_widths(own) | made, heads)


def check_same_heads(own: tuple[int, int], theirs: tuple[int, int]) -> None:
    """Refuse a student of other heads than its teacher; each is the heads, and those of the values.

    Raises:
        InputError: they differ.
    """
    if own != theirs:
        found = [f"{heads} heads ({values} of values)" for heads, values in (own, theirs)]
        raise InputError(
            f"hidden loss {ATTENTION_MAPS!r} compares head by head, and the student has {found[0]} and the teacher "
            f"{found[1]}",
            f"take {RELATION_HEADS_OF}, whose relation heads are its own",
        )


def check_relation_heads(relation_heads: int, widths: Collection[int], heads: int) -> None:
    """Refuse relation heads that do not divide each of the widths of queries, keys and values; `heads`: the teacher's.

    Raises:
        InputError: they do not.
    """
    if any(width % relation_heads for width in widths):
        raise InputError(
            f"{relation_heads} relation heads came, and queries, keys and values are "
            f"{', '.join(map(str, sorted(widths)))} wide",
            f"give a number that divides all, such as {math.gcd(heads, *widths)}",
        )


def _heads_of(shape: PlainShape) -> int | None:
    """Return the heads of a model's first stream, where its config.json says how many."""
    return next((shape.numbers[name] for name in HEAD_NAMES if shape.numbers.get(name, 0) > 0), None)


def _is_as_wide(shape: PlainShape) -> bool:
    return shape.type in _AS_WIDE_AS_THE_MODEL and not {"head_dim", "d_kv"} & set(shape.numbers)


def _attention_widths(shape: PlainShape) -> set[int]:
    """Return the widths of queries, keys and values that config.json surely tells."""
    heads = _heads_of(shape)
    each = shape.numbers.get("head_dim", shape.numbers.get("d_kv"))
    if heads is not None and each is None and _is_as_wide(shape) and shape.width is not None:
        each = shape.width // heads
    if heads is None or each is None:
        return set()
    return {heads * each, shape.numbers.get("num_key_value_heads", heads) * each}
