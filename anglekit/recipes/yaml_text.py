"""YAML of a recipe -> plain values: a strict subset, so that nothing surprising is read and nothing is run.

Scalars follow YAML 1.2's core schema: unlike in YAML 1.1, `1e-5` is a number and `no` is text. Tags, anchors,
aliases, keys given twice, several documents and deep nesting are refused.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import yaml  # type: ignore[import-untyped]

from anglekit.errors import InputError

MOST_BYTES: Final = 256 * 1024
_DEEPEST: Final = 12
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def read_yaml(source: str | Path) -> dict[str, Any]:
    """Read a YAML file that holds one mapping of text to text, numbers, booleans, None, lists and mappings.

    Raises:
        InputError: it cannot be read, is too large, is not UTF-8 or not YAML, or uses what a recipe may not; the
            message names the file and the line.
    """
    name = str(source)
    try:
        with Path(source).open("rb") as file:
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
        found = _RecipeLoader(content.decode("utf-8-sig")).get_single_data()
    except UnicodeDecodeError as error:
        raise InputError(f"{name} is not UTF-8 (byte {error.start})", "save it as UTF-8") from error
    except _RefusedError as error:
        raise InputError(f"{name}, line {error.line}: a recipe may not hold {error.what}", error.remedy) from error
    except yaml.YAMLError as error:
        raise InputError(f"{name} is not YAML: {_in_one_line(error)}", "correct the file") from error
    if not isinstance(found, dict):
        kind = "nothing" if found is None else "a list" if isinstance(found, list) else "one value"
        raise InputError(f"{name} holds {kind}", "a recipe is a mapping of keys to values")
    return found


class _RefusedError(Exception):
    """Something that YAML allows and a recipe may not hold."""

    def __init__(self, mark: Any, what: str, remedy: str) -> None:  # noqa: ANN401 - yaml has no types here
        super().__init__(what)
        self.line, self.what, self.remedy = mark.line + 1, what, remedy


class _RecipeLoader(yaml.SafeLoader):  # type: ignore[misc]
    """PyYAML's safe loader, made stricter; depth is bounded before anything recursive happens."""

    yaml_implicit_resolvers: dict[str | None, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - as PyYAML has it
    _depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:  # noqa: ANN401
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            what, remedy = "an anchor or alias (& or *)", "write the value out where it is used"
            raise _RefusedError(event.start_mark, what, remedy)
        if event.tag is not None:
            raise _RefusedError(event.start_mark, f"the tag {event.tag[:60]!r}", "write the value without a tag")
        if self._depth >= _DEEPEST and not isinstance(event, yaml.ScalarEvent):
            raise _RefusedError(event.start_mark, f"more than {_DEEPEST} levels", "nest less; a recipe has 5")
        if isinstance(event, yaml.ScalarEvent) and _SURROGATE.search(event.value):
            raise _RefusedError(event.start_mark, "half of a surrogate pair", "write the character itself")
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[str, Any]:  # noqa: ANN401
        values: dict[str, Any] = {}
        for key, value in node.value:
            # Keys are taken as they are written: {0: ...} of a label list has the key "0".
            if not isinstance(key, yaml.ScalarNode):
                raise _RefusedError(key.start_mark, "a key that is no text", "give plain keys")
            if key.value in values:
                raise _RefusedError(key.start_mark, f"the key {key.value[:60]!r} twice", "give each key once")
            values[key.value] = self.construct_object(value, deep=True)
        return values


# The lengths are bounded, because Python raises its own error for whole numbers of thousands of digits.
for _name, _pattern in (
    ("null", r"(?:|~|null|Null|NULL)\Z"),
    ("bool", r"(?:true|True|TRUE|false|False|FALSE)\Z"),
    ("int", r"[-+]?[0-9]{1,18}\Z"),
    ("float", r"[-+]?(?:\.[0-9]{1,40}|[0-9]{1,40}(?:\.[0-9]{0,40})?)(?:[eE][-+]?[0-9]{1,4})?\Z"),
):
    _RecipeLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(_pattern), None)
# YAML 1.1 takes 010 for eight.
_RecipeLoader.add_constructor("tag:yaml.org,2002:int", lambda _loader, node: int(node.value))


def _in_one_line(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    place = f"line {mark.line + 1}, " if mark is not None else ""
    return " ".join(f"{place}{getattr(error, 'problem', None) or error}".split())[:200]
