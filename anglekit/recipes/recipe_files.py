"""Recipes by name or path: those that come with anglekit, and a user's own files."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from anglekit.errors import InputError, suggest
from anglekit.recipes.recipe import Recipe
from anglekit.recipes.typed_values import build
from anglekit.recipes.yaml_text import read_yaml

__all__ = ["load_recipe", "read_recipe", "recipe_file", "recipe_names"]

_SUFFIXES: Final = (".yaml", ".yml")


def recipe_names() -> tuple[str, ...]:
    """Return the names of the recipes that come with anglekit."""
    return tuple(sorted(entry.name.removesuffix(".yaml") for entry in _folder().iterdir() if _is_recipe(entry.name)))


def recipe_file(recipe: str) -> Path:
    """Return the file of a recipe.

    Args:
        recipe: a name in `recipe_names()`, or the path of a .yaml file.

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
    return Path(str(_folder() / f"{recipe}.yaml"))


def load_recipe(recipe: str | Path) -> Recipe:
    """Read a recipe by its name, or from a file of one's own, and check every value that can be checked by itself.

    Args:
        recipe: a name in `recipe_names()`, or the path of a .yaml file.

    Raises:
        InputError: no such recipe, an unknown or missing key, a wrong type, or values that do not go together; the
            message names the file, the key and what is allowed.
    """
    from anglekit.recipes.checked_values import check_values

    found = read_recipe(recipe)
    check_values(found, _shown_file(recipe))
    return found


def read_recipe(recipe: str | Path) -> Recipe:
    """Read a recipe as `load_recipe` does, without asking the library about its values, which takes seconds to load."""
    path = recipe_file(str(recipe))
    return build(Recipe, read_yaml(path), _shown_file(recipe))


def _shown_file(recipe: str | Path) -> str:
    return f"{recipe}.yaml" if str(recipe) in recipe_names() else str(recipe)


def _folder() -> Any:  # noqa: ANN401 - importlib's Traversable
    return files("anglekit.recipes")


def _is_recipe(name: str) -> bool:
    return name.endswith(_SUFFIXES)
