"""Recipes by name or path: those that come with anglekit, and a user's own files, read, typed and checked."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, fields, is_dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from anglekit.errors import InputError, suggest
from anglekit.recipes.recipe import Recipe
from anglekit.recipes.yaml_text import read_yaml
from anglekit.settings_fields import SettingError

_FOLDER: Final = files("anglekit.recipes")
_SUFFIXES: Final = (".yaml", ".yml")
T = TypeVar("T")


def recipe_names() -> tuple[str, ...]:
    """Return the names of the recipes that come with anglekit."""
    return tuple(sorted(entry.name.removesuffix(".yaml") for entry in _FOLDER.iterdir() if _is_recipe(entry.name)))


def recipe_file(recipe: str) -> Path:
    """Return the file of a recipe: a name in `recipe_names()`, or the path of a .yaml file.

    Raises:
        InputError: no such recipe; the message suggests the nearest.
    """
    if _is_recipe(recipe) or "/" in recipe:
        if not Path(recipe).is_file():
            raise InputError(f"no recipe file {recipe}", f"give a .yaml file, or {suggest(recipe, recipe_names())}")
        return Path(recipe)
    if recipe not in recipe_names():
        raise InputError(
            f"no recipe {recipe!r}", allowed=f"{suggest(recipe, recipe_names())}, or the path of a .yaml file"
        )
    return Path(str(_FOLDER / f"{recipe}.yaml"))


def load_recipe(recipe: str | Path) -> Recipe:
    """Read a recipe by its name, or from a user's own file, and check every value that can be checked by itself.

    Args:
        recipe: a name in `recipe_names()`, or the path of a .yaml file.

    Raises:
        InputError: no such recipe, an unknown or missing key, a wrong type, or values that do not go together; the
            message names the file, the key and what is allowed.
    """
    found = _read_recipe(recipe)
    _check_values(found, _shown_file(recipe))
    return found


def _read_recipe(recipe: str | Path) -> Recipe:
    """Read a recipe as `load_recipe` does, but without the checks for which the library must load (seconds)."""
    return build(Recipe, read_yaml(recipe_file(str(recipe))), _shown_file(recipe))


def recipe_rows() -> list[dict[str, str]]:
    """Return a row for each recipe: `name`, `teacher`, `students`, `published` (how many numbers), `task`, `title`."""
    from anglekit.recipes.published import published_of

    rows = []
    for name in recipe_names():
        recipe = _read_recipe(name)
        students = recipe.students
        layers = " ".join(map(str, students.layers))
        widths = f", {' '.join(map(str, students.widths))} wide" if students.widths else ""
        rows.append(
            {
                "name": name,
                "teacher": recipe.teacher.model or f"{recipe.teacher.config['model_type']}, from scratch",
                "students": f"{layers} layers{widths}, from {' and '.join(students.inits)}",
                "published": str(len(published_of(recipe)) or "-"),
                "task": recipe.task,
                "title": recipe.title,
            }
        )
    return rows


def _shown_file(recipe: str | Path) -> str:
    return f"{recipe}.yaml" if str(recipe) in recipe_names() else str(recipe)


def _is_recipe(name: str) -> bool:
    return name.endswith(_SUFFIXES)


# ---- plain values -> dataclasses ----


def build(kind: type[T], values: object, file: str, key: str = "") -> T:
    """Return a dataclass made of a mapping by its annotations: msgspec converts them, this names file and key.

    Fields may be dataclasses too; `key` is where the values lie in the file, "" for the whole.

    Raises:
        InputError: a key is unknown (the nearest is suggested) or missing, a value has the wrong type, or the dataclass
            itself refuses the values.
    """
    if not isinstance(values, Mapping):
        where = f"{file}: {key}" if key else file
        raise InputError(f"{where} is {_shown(values)}", allowed="expected a mapping of keys to values")
    hints = get_type_hints(kind)
    given: dict[str, Any] = {}
    for name, value in values.items():
        if name not in hints:
            raise InputError(f"{file}: no key {_inside(key, name)!r}", allowed=suggest(name, hints))
        parts = [one for one in (hints[name], *get_args(hints[name])) if is_dataclass(one)]
        if parts and value is not None:
            given[name] = build(parts[0], value, file, _inside(key, name))  # type: ignore[arg-type]
        else:
            given[name] = _converted(hints[name], value, f"{file}: {_inside(key, name)}")
    for field in fields(kind):  # type: ignore[arg-type]
        if field.default is MISSING and field.default_factory is MISSING and field.name not in given:
            raise InputError(f"{file}: the key {_inside(key, field.name)!r} is missing", "add it")
    with key_named(file, key):
        return kind(**given)


def _converted(hint: Any, value: object, where: str) -> Any:  # noqa: ANN401 - whatever the annotation says
    try:
        return msgspec.convert(value, hint)
    except msgspec.ValidationError as error:
        names = [name for part in (hint, *get_args(hint)) if get_origin(part) is Literal for name in get_args(part)]
        if names and isinstance(value, str):
            raise InputError(f"{where} is {value!r}", allowed=suggest(value, names)) from error
        remedy = "put it in quotes if it is meant as text" if hint is str and value is not None else "correct it"
        raise InputError(f"{where} is {_shown(value)} ({error})", remedy) from error


def _shown(value: object) -> str:
    return "empty" if value is None else repr(value)[:40]


# ---- what the library says to the values ----


def _check_values(recipe: Recipe, file: str) -> None:
    """Check values that would otherwise be refused in the middle of a run; the lists needed take seconds to load."""
    from anglekit.distillation.tasks.registry import TASKS
    from anglekit.plots.registry import FIGURES
    from anglekit.recipes.published import check_published

    if recipe.published is not None:
        with key_named(file, "published"):
            check_published(recipe.published)
    named: list[tuple[str, str, Collection[str]]] = [("figure.name", recipe.figure.name, FIGURES)]
    named += [("scores", score, TASKS[recipe.task].allowed_scores) for score in recipe.scores]
    for key, value, allowed in named:
        if value not in allowed:
            raise InputError(f"{file}: {key} is {value!r}", allowed=suggest(value, allowed))


@contextmanager
def key_named(file: str, key: str) -> Iterator[None]:
    """Put the file (or whose values they are) and the key, "" for the whole, before the message of an error.

    If the library refuses one of its settings, the setting's name is added as a key inside `key`.
    """
    try:
        yield
    except SettingError as error:
        raise error.named(f"{file}: {_inside(key, error.setting)}") from error
    except InputError as error:
        where = f"{file}: {key}" if key else file
        raise InputError(f"{where}: {error.arrived}", error.remedy, allowed=error.allowed) from error


def _inside(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name
