"""Layer maps as a person types them: `1:4,2:8,3:12`, `encoder=1:4,2:8;decoder=1:6,2:12`, `0,6,11`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from anglekit.errors import InputError, suggest

if TYPE_CHECKING:
    from anglekit.vocabulary import Stream

_Item = TypeVar("_Item")
_PAIRS = "pairs STUDENT:TEACHER of layer numbers, such as 1:4,2:8,3:12 (0 is the embedding)"
_BLOCKS = "teacher blocks counted from 0, such as 3,7,11"


def parse_layer_map(text: str, streams: Sequence[Stream]) -> dict[Stream, tuple[tuple[int, int], ...]]:
    """Read which teacher layer teaches which student layer.

    Args:
        text: pairs `student:teacher` with commas; with two streams `encoder=...;decoder=...`, either of which may be
            left out.
        streams: the streams of the teacher.

    Returns:
        For each stream that the text names its pairs, in the order of the text.

    Raises:
        InputError: the text is not of this form, or names a stream twice or one that the teacher does not have.
    """
    return _parse(text, streams, _pair, _PAIRS)


def parse_copy_map(text: str, streams: Sequence[Stream]) -> dict[Stream, tuple[int, ...]]:
    """Read which teacher block each student block is copied from: `3,7,11`, by stream as `parse_layer_map`.

    Raises:
        InputError: as `parse_layer_map`.
    """
    return _parse(text, streams, int, _BLOCKS)


def check_form(layer_map: str | None, copy_map: str | None) -> None:
    """Refuse maps that no teacher could make readable; its streams need not be known.

    Raises:
        InputError: a text is not of the form that `parse_layer_map` and `parse_copy_map` read.
    """
    for text, read, form in ((layer_map, _pair, _PAIRS), (copy_map, int, _BLOCKS)):
        for part in () if text is None else text.split(";"):
            _items(part.rpartition("=")[2], read, str(text), form)


def _items(body: str, read: Callable[[str], _Item], text: str, form: str) -> tuple[_Item, ...]:
    try:
        return tuple(read(item) for item in body.split(","))
    except ValueError as error:
        raise InputError(f"cannot read the map {text!r}", f"write {form}") from error


def _parse(
    text: str, streams: Sequence[Stream], read: Callable[[str], _Item], form: str
) -> dict[Stream, tuple[_Item, ...]]:
    maps: dict[Stream, tuple[_Item, ...]] = {}
    for part in text.split(";"):
        name, equals, body = part.rpartition("=")
        if not equals and len(streams) > 1:
            raise InputError(f"the map {text!r} names no stream", f"write encoder=...;decoder=..., each with {form}")
        named = [stream for stream in streams if stream == name.strip() or not equals]
        if not named:
            raise InputError(f"the map {text!r} names stream {name.strip()!r}", allowed=suggest(name.strip(), streams))
        stream = named[0]
        if stream in maps:
            raise InputError(f"the map {text!r} names the {stream} twice", "name it once")
        maps[stream] = _items(body, read, text, form)
    return maps


def _pair(text: str) -> tuple[int, int]:
    student, teacher = text.split(":")
    return int(student), int(teacher)
