"""Plain values -> frozen dataclasses by their annotations; every defect in one line that names file, key and remedy."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from anglekit.errors import InputError, suggest
from anglekit.settings_fields import SettingError

__all__ = ["build", "to_plain"]

T = TypeVar("T")

_WORDS: Mapping[Any, str] = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def build(kind: type[T], values: Any, file: str, key: str = "") -> T:  # noqa: ANN401 - anything may come
    """Return a dataclass made of plain values.

    Annotations may be str, int, float, bool, unions of these with None, `tuple[X, ...]` (from a list),
    `Mapping[str, X]`, `Mapping[str, Any]` (taken as it is) and other dataclasses.

    Args:
        kind: the dataclass.
        values: a mapping.
        file: named in messages.
        key: where the values lie in the file, "" for the whole.

    Raises:
        InputError: a key is unknown (the nearest is suggested) or missing, a value has the wrong type, or the dataclass
            itself refuses the values.
    """
    where = f"{file}: {key}" if key else file
    if not isinstance(values, Mapping):
        raise InputError(f"{where} is {_shown(values)}", allowed="expected a mapping of keys to values")
    hints = get_type_hints(kind)
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    for name in values:
        if name not in names:
            raise InputError(f"{file}: no key {_inside(key, name)!r}", allowed=suggest(str(name), names))
    given = {name: _value(hints[name], values[name], file, _inside(key, name)) for name in values}
    for field in fields(kind):  # type: ignore[arg-type]
        needed = field.default is MISSING and field.default_factory is MISSING
        if needed and field.name not in given:
            raise InputError(f"{file}: the key {_inside(key, field.name)!r} is missing", "add it")
    try:
        return kind(**given)
    except SettingError as error:
        raise error.named(f"{file}: {_inside(key, error.setting)}") from error
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def to_plain(value: Any) -> Any:  # noqa: ANN401 - dataclasses and what they hold
    """Return dataclasses, tuples and mappings as dicts and lists, as json takes them; None values are left out."""
    if is_dataclass(value):
        pairs = ((field.name, getattr(value, field.name)) for field in fields(value))
        return {name: to_plain(held) for name, held in pairs if held is not None}
    if isinstance(value, Mapping):
        return {str(name): to_plain(held) for name, held in value.items()}
    return [to_plain(one) for one in value] if isinstance(value, tuple | list) else value


def _value(hint: Any, value: Any, file: str, key: str) -> Any:  # noqa: ANN401
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in get_args(hint):
            return None
        (hint,) = (one for one in get_args(hint) if one is not type(None))
        origin = get_origin(hint)
    if hint is Any:
        return value
    if is_dataclass(hint) and isinstance(hint, type):
        return build(hint, value, file, key)
    if origin is tuple:
        if not isinstance(value, list):
            raise InputError(
                f"{file}: {key} is {_shown(value)}", allowed=f"expected a list, as [{_example(get_args(hint)[0])}]"
            )
        return tuple(_value(get_args(hint)[0], one, file, f"{key}[{number}]") for number, one in enumerate(value))
    if origin is not None:
        if not isinstance(value, Mapping):
            raise InputError(f"{file}: {key} is {_shown(value)}", allowed="expected a mapping of names to values")
        return {str(name): _value(get_args(hint)[1], one, file, f"{key}.{name}") for name, one in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    # True is a whole number to Python, and not to whoever writes a recipe.
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        quoted = "; put it in quotes if it is meant as text" if hint is str and value is not None else ""
        raise InputError(f"{file}: {key} is {_shown(value)}", allowed=f"expected {_WORDS[hint]}{quoted}")
    return value


def _inside(key: str, name: object) -> str:
    return f"{key}.{name}" if key else str(name)


def _shown(value: object) -> str:
    if value is None:
        return "empty"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, Mapping):
        return "a mapping"
    return repr(value[:40]) if isinstance(value, str) else str(value)[:40]


def _example(hint: Any) -> str:  # noqa: ANN401
    return "3, 6" if hint is int else "forward, reverse"
