"""A recipe with a user's own tables, teacher and seeds in place of those that it names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from anglekit.distillation.settings import COLUMNS, DataSettings, TrainSettings
from anglekit.errors import AnglekitError, InputError, RunError
from anglekit.recipes.recipe import Recipe
from anglekit.settings_fields import declarations
from anglekit.tables.columns import NO_COLUMN
from anglekit.tables.read import read_table
from anglekit.vocabulary import Reading


def with_own_sources(
    recipe: Recipe,
    *,
    teacher: str | None = None,
    trained_teacher: str | None = None,
    train: str | None = None,
    validation: Sequence[str] = (),
    probe: str | None = None,
    seeds: Sequence[int] | None = None,
    seed: int | None = None,
    reading: Reading | None = None,
    equal_rates: bool = False,
) -> Recipe:
    """Return a recipe with a user's own tables, teacher and seeds in place of those that it names.

    Args:
        recipe: as it was read.
        teacher: directory or hub id of the model from which the teacher is trained.
        trained_teacher: directory or hub id of a teacher that is already trained.
        train: the training table. If it lacks a column that the recipe names, the task's usual names are tried.
        validation: tables, each `SOURCE` or `NAME=SOURCE`; those without a name take the recipe's names in order.
        probe: the analysis's table; by default the first of the given validation tables, if there are any.
        seeds: of the students.
        seed: of everything random: the teacher, the order of the data, the students (where `seeds` are not given), the
            choice of the probe's examples and the analysis.
        reading: of the whole run, in place of the recipe's.
        equal_rates: train all strategies at one learning rate, also where the paper's scripts have several.

    Raises:
        InputError: two teachers or more tables than names were given, or values do not go together.
    """
    if teacher is not None and trained_teacher is not None:
        raise InputError("--base-model and --trained-teacher came together", "give one of the two")
    if reading is not None:
        recipe = replace(recipe, losses=replace(recipe.losses, reading=reading))
    if equal_rates:
        recipe = replace(recipe, students=replace(recipe.students, learning_rates=None))
    if (own := teacher if trained_teacher is None else trained_teacher) is not None:
        training = None if trained_teacher is not None else recipe.teacher.training
        given = replace(recipe.teacher, model=own, training=training, tokenizer=None, initialization="default")
        recipe = replace(recipe, teacher=given)
    if train is not None:
        columns = _columns_there(recipe.data.columns, train)
        data = replace(recipe.data, train=train, train_examples=None, columns=columns)
        recipe = replace(recipe, data=data)
    if validation:
        named = _named(validation, tuple(recipe.data.validation))
        published = recipe.published
        if published is not None:
            tasks = {name: task for name, task in published.tasks.items() if name in named}
            published = replace(published, tasks=tasks) if tasks else None
        data = replace(recipe.data, validation=named, validation_examples=None)
        recipe = replace(recipe, data=data, published=published)
        probe = probe or next(iter(named.values()))
    if probe is not None:
        recipe = replace(recipe, analysis=recipe.analysis.changed(probe=probe))
    if seed is not None:
        recipe = _with_seed(recipe, seed)
    if seeds is not None:
        recipe = replace(recipe, students=replace(recipe.students, seeds=tuple(seeds)))
    return recipe


def _with_seed(recipe: Recipe, seed: int) -> Recipe:
    declarations(TrainSettings)["seed"].check("--seed", seed)
    teacher, students = recipe.teacher, recipe.students
    own = None if teacher.training is None else teacher.training.changed(data_seed=seed)
    return replace(
        recipe,
        teacher=replace(teacher, seed=seed, training=own),
        students=replace(students, seeds=(seed,), training=students.training.changed(data_seed=seed)),
        analysis=recipe.analysis.changed(seed=seed),
    )


def _columns_there(columns: DataSettings, train: str) -> DataSettings:
    """Return the columns without those that a user's own table does not have."""
    if train.startswith("hub:"):
        return columns
    there = set(read_table(train, limit=1, column_names=columns.names).names) | {NO_COLUMN}
    absent = [name for name in COLUMNS if not set((getattr(columns, name) or NO_COLUMN).split(",")) <= there]
    usual: dict[str, Any] = dict.fromkeys(absent)
    return replace(columns, **usual)


def _named(given: Sequence[str], names: tuple[str, ...]) -> dict[str, str]:
    named: dict[str, str] = {}
    free = list(names)
    for entry in given:
        name, equals, source = entry.partition("=")
        if not equals or not name.replace("-", "_").isidentifier():
            if not free:
                raise InputError(
                    f"--validation {entry!r} is one table more than the recipe names ({', '.join(names)})",
                    "name it: NAME=TABLE",
                )
            name, source = free[0], entry
        if name in named:
            raise InputError(f"two validation tables are called {name!r}", "name them apart: NAME=TABLE")
        free = [one for one in free if one != name]
        named[name] = source
    return named


@contextmanager
def hub_remedy(recipe: Recipe, source: str) -> Iterator[None]:
    """Say how to go on without the hub when something on it cannot be read."""
    try:
        yield
    except AnglekitError as error:
        refused = isinstance(error, InputError)
        reason = error.arrived if isinstance(error, InputError) else str(error)
        tables = " ".join(f"--validation {name}=FILE" for name in recipe.data.validation)
        raise (InputError if refused else RunError)(
            f"{source} cannot be had from the hub ({reason}); give local paths instead of the recipe's names: "
            f"--base-model DIR --train FILE {tables} --probe FILE"
        ) from error
