"""What the library says to a recipe's values, said before anything runs and under the recipe's own keys."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace

from anglekit.errors import InputError, suggest
from anglekit.recipes.recipe import Recipe
from anglekit.recipes.sources import analysis_settings, plan_options
from anglekit.recipes.training import Training

__all__ = ["check_values", "key_named"]


def check_values(recipe: Recipe, file: str) -> None:
    """Check what would otherwise be refused in the middle of a run.

    What depends on the machine (a precision, the package of LoRA) is left to the run.

    Args:
        recipe: as it was read.
        file: named in messages.

    Raises:
        InputError: a value that is not allowed; the message names the file and the key.
    """
    from anglekit.distillation.losses.functional import HIDDEN_LOSSES, KL_DIRECTIONS
    from anglekit.distillation.tasks.registry import TASKS
    from anglekit.plots.registry import FIGURES

    for part, training in (("teacher", recipe.teacher.training), ("students", recipe.students.training)):
        if training is not None:
            with key_named(f"{file}: {part}.training"):
                replace(training, precision=None, lora_rank=None).settings()
    with key_named(f"{file}: analysis"):
        analysis_settings(recipe)
    with key_named(f"{file}: losses"):
        plan_options(recipe)
    if recipe.losses.temperature is not None and not 0.0 < recipe.losses.temperature < float("inf"):
        raise InputError(
            f"{file}: losses.temperature is {recipe.losses.temperature:g}", allowed="allowed: a finite number above 0"
        )
    named = [
        ("losses.hidden_loss", recipe.losses.hidden_loss, HIDDEN_LOSSES),
        ("losses.kl_direction", recipe.losses.kl_direction, KL_DIRECTIONS),
        ("figure.name", recipe.figure.name, FIGURES),
    ]
    if recipe.task in TASKS:
        named += [("scores", score, TASKS[recipe.task].allowed_scores) for score in recipe.scores]
    for key, value, allowed in named:
        if value is not None and value not in allowed:
            raise InputError(f"{file}: {key} is {value!r}", allowed=suggest(value, allowed))


@contextmanager
def key_named(where: str) -> Iterator[None]:
    """Put a place before a refusal, and a recipe's key in the place of an option's name."""
    try:
        yield
    except InputError as error:
        message = str(error)
        for one in fields(Training):
            for option in (f"--{one.name.replace('_', '-')}", one.name.replace("_", " ")):
                if message.startswith(f"{option} "):
                    raise InputError(f"{where}.{one.name}{message.removeprefix(option)}") from error
        raise InputError(f"{where}: {message}") from error
