"""Mistakes in a plan that the teacher's config.json alone shows: by the rules of the plan, before torch is loaded."""

from __future__ import annotations

from anglekit.distillation.matching.map_text import parse_copy_map, parse_layer_map
from anglekit.distillation.matching.strategies import (
    check_copied_blocks,
    check_depths,
    family_of,
    layer_matching,
)
from anglekit.distillation.students.widths import HEAD_NAMES, check_width, narrower_heads
from anglekit.models.load_options import checkpoint_of
from anglekit.models.sources import plain_shape
from anglekit.vocabulary import Stream


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
