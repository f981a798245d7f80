"""What the library says to a recipe's values, said before anything runs and under the recipe's own keys."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager

from anglekit.errors import InputError, suggest
from anglekit.recipes.recipe import Recipe
from anglekit.recipes.sources import analysis_settings, plan_options
from anglekit.settings_fields import SettingError

__all__ = ["check_values", "key_named"]


def check_values(recipe: Recipe, file: str) -> None:
    """Check what would otherwise be refused in the middle of a run.

    The settings of training were checked as they were read.

    Args:
        recipe: as it was read.
        file: named in messages.

    Raises:
        InputError: a value that is not allowed; the message names the file and the key.
    """
    from anglekit.distillation.losses.functional import HIDDEN_LOSSES
    from anglekit.distillation.settings import TrainSettings
    from anglekit.distillation.tasks.registry import TASKS
    from anglekit.plots.registry import FIGURES

    losses = recipe.losses
    with key_named(f"{file}: analysis"):
        analysis_settings(recipe)
    with key_named(f"{file}: losses"):
        plan_options(recipe)
        TrainSettings(temperature=losses.temperature, kl_direction=losses.kl_direction)
    named: list[tuple[str, str, Collection[str]]] = [
        ("losses.hidden_loss", losses.hidden_loss, HIDDEN_LOSSES),
        ("figure.name", recipe.figure.name, FIGURES),
    ]
    if recipe.task in TASKS:
        named += [("scores", score, TASKS[recipe.task].allowed_scores) for score in recipe.scores]
    for key, value, allowed in named:
        if value not in allowed:
            raise InputError(f"{file}: {key} is {value!r}", allowed=suggest(value, allowed))


@contextmanager
def key_named(where: str) -> Iterator[None]:
    """Put a place before a refusal, and a recipe's key in the place of an option's name."""
    try:
        yield
    except SettingError as error:
        raise error.named(f"{where}.{error.setting}") from error
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
