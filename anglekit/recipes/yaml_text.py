"""YAML of a recipe -> plain values: a strict subset, so that nothing surprising is read and nothing is run.

Scalars follow YAML 1.2's core schema: `1e-5` is a number and `no` is text, other than in YAML 1.1. Tags, anchors,
aliases, keys given twice, several documents and deep nesting are refused.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import yaml  # type: ignore[import-untyped]

from anglekit.errors import InputError

__all__ = ["MOST_BYTES", "read_yaml"]

MOST_BYTES: Final = 256 * 1024
_DEEPEST: Final = 12

_SCALARS: Final = (
    (re.compile(r"(?:|~|null|Null|NULL)\Z"), lambda _text: None),
    (re.compile(r"(?:true|True|TRUE)\Z"), lambda _text: True),
    (re.compile(r"(?:false|False|FALSE)\Z"), lambda _text: False),
    # The lengths are bounded: Python refuses whole numbers of thousands of digits by an error of its own.
    (re.compile(r"[-+]?[0-9]{1,18}\Z"), int),
    (re.compile(r"[-+]?(?:\.[0-9]{1,40}|[0-9]{1,40}(?:\.[0-9]{0,40})?)(?:[eE][-+]?[0-9]{1,4})?\Z"), float),
)


def read_yaml(source: str | Path) -> dict[str, Any]:
    """Read a YAML file that holds one mapping of plain values.

    Args:
        source: the file.

    Returns:
        The mapping: text, numbers, booleans, None, lists and mappings with text as keys.

    Raises:
        InputError: it cannot be read, is too large, is not UTF-8 or not YAML, or uses what a recipe may not; the
            message names the file and the line.
    """
    path = Path(source)
    name = str(source)
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise InputError(
            f"{name} cannot be read: {error.strerror or error}", "give a recipe's name or a .yaml"
        ) from error
    if len(content) > MOST_BYTES:
        raise InputError(
            f"{name} is larger than {MOST_BYTES // 1024} KiB", "a recipe is a few kilobytes: give a recipe"
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{name} is not UTF-8 (byte {error.start})", "save it as UTF-8") from error
    try:
        return _Reader(name, text).document()
    except yaml.YAMLError as error:
        raise InputError(f"{name} is not YAML: {_in_one_line(error)}", "correct the file") from error


class _Reader:
    """Builds values from parse events; depth is bounded before anything recursive happens."""

    def __init__(self, name: str, text: str) -> None:
        self._name = name
        self._events = yaml.parse(text, Loader=yaml.SafeLoader)
        self._depth = 0

    def document(self) -> dict[str, Any]:
        found: Any = None
        documents = 0
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise self._refused(event, "a second document", "keep one recipe in a file")
                found = self._value(next(self._events))
        if not isinstance(found, dict):
            kind = "nothing" if found is None else "a list" if isinstance(found, list) else "one value"
            raise InputError(f"{self._name} holds {kind}", "a recipe is a mapping of keys to values")
        return found

    def _value(self, event: Any) -> Any:  # noqa: ANN401 - yaml has no types here
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise self._refused(event, "an anchor or alias (& or *)", "write the value out where it is used")
        if getattr(event, "tag", None) is not None:
            raise self._refused(event, f"the tag {str(event.tag)[:60]!r}", "write the value without a tag")
        if isinstance(event, yaml.ScalarEvent):
            return _scalar(str(event.value)) if event.implicit[0] else str(event.value)
        self._depth += 1
        if self._depth > _DEEPEST:
            raise self._refused(event, f"more than {_DEEPEST} levels", "nest less; a recipe has 5")
        made = self._sequence() if isinstance(event, yaml.SequenceStartEvent) else self._mapping()
        self._depth -= 1
        return made

    def _sequence(self) -> list[Any]:
        values = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            values.append(self._value(event))
        return values

    def _mapping(self) -> dict[str, Any]:
        values: dict[str, Any] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            # Keys are taken as they are written: {0: ...} of a label list has the key "0".
            if not isinstance(event, yaml.ScalarEvent):
                raise self._refused(event, "a key that is no text", "give plain keys")
            self._value(event)
            if event.value in values:
                raise self._refused(event, f"the key {str(event.value)[:60]!r} twice", "give each key once")
            values[str(event.value)] = self._value(next(self._events))
        return values

    def _refused(self, event: Any, what: str, remedy: str) -> InputError:  # noqa: ANN401
        line = event.start_mark.line + 1
        return InputError(f"{self._name}, line {line}: a recipe may not hold {what}", remedy)


def _scalar(text: str) -> Any:  # noqa: ANN401 - whatever the text says
    for pattern, convert in _SCALARS:
        if pattern.match(text):
            return convert(text)
    return text


def _in_one_line(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    place = f"line {mark.line + 1}, " if mark is not None else ""
    return " ".join(f"{place}{getattr(error, 'problem', None) or error}".split())[:200]
