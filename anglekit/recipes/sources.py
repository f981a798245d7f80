"""A recipe with a user's own paths in place of its hub names, and what its parts say to the library."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anglekit.errors import AnglekitError, InputError, foreign_failures
from anglekit.recipes.recipe import Columns, Recipe
from anglekit.tables.read import NO_COLUMN

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from anglekit.analysis.settings import AnalysisSettings
    from anglekit.distillation.matching.plan import DistillationPlan
    from anglekit.distillation.settings import DataSettings

__all__ = [
    "analysis_settings",
    "architecture",
    "data_settings",
    "hub_remedy",
    "plan_options",
    "plans_of",
    "teacher_config",
    "with_own_sources",
]


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
) -> Recipe:
    """Return a recipe with a user's own tables, teacher and seeds in place of those that it names.

    Args:
        recipe: as it was read.
        teacher: directory or hub id of the model from which the teacher is trained.
        trained_teacher: of a teacher that is trained already.
        train: the training table. Where it lacks a column that the recipe names, the task's usual names are looked for
            in its place.
        validation: tables, each `SOURCE` or `NAME=SOURCE`; those without a name take the recipe's names in order.
        probe: the analysis's table; where validation tables came and no probe, the first of them.
        seeds: of the students.
        seed: of everything random: the teacher, the order of the data, the students (where `seeds` are not given), the
            choice of the probe's examples and the analysis.

    Raises:
        InputError: two teachers came, more tables than names, or values that do not go together.
    """
    if teacher is not None and trained_teacher is not None:
        raise InputError("--teacher and --trained-teacher came together", "give one of the two")
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
        recipe = replace(recipe, analysis=replace(recipe.analysis, probe=probe))
    if seed is not None:
        recipe = _with_seed(recipe, seed)
    if seeds is not None:
        recipe = replace(recipe, students=replace(recipe.students, seeds=tuple(seeds)))
    return recipe


def _with_seed(recipe: Recipe, seed: int) -> Recipe:
    if not 0 <= seed < 2**32:
        raise InputError(f"--seed is {seed}", allowed=f"allowed: 0 to {2**32 - 1}")
    teacher, students = recipe.teacher, recipe.students
    own = None if teacher.training is None else teacher.training.with_data_seed(seed)
    return replace(
        recipe,
        teacher=replace(teacher, seed=seed, training=own),
        students=replace(students, seeds=(seed,), training=students.training.with_data_seed(seed)),
        analysis=replace(recipe.analysis, seed=seed),
    )


def _columns_there(columns: Columns, train: str) -> Columns:
    """Return the columns without those that a user's own table does not have."""
    if train.startswith("hub:"):
        return columns
    from anglekit.tables.read import read_table

    there = {str(name) for name in read_table(train, limit=1).frame.columns} | {NO_COLUMN}
    names = [one.name for one in fields(columns) if one.name not in ("prefix", "limit")]
    absent = [name for name in names if not set((getattr(columns, name) or NO_COLUMN).split(",")) <= there]
    return replace(columns, **dict.fromkeys(absent))


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


def teacher_config(recipe: Recipe, *, offline: bool = False) -> tuple[PretrainedConfig, str]:
    """Return the configuration of a recipe's teacher, and where it is from, in words.

    Args:
        recipe: whose model may be a directory, a hub id, or missing (from scratch).
        offline: take what the recipe states where no directory and no cached copy is here, instead of asking the hub.

    Raises:
        InputError: the checkpoint has no readable configuration, or the recipe states none that exists.
    """
    from anglekit.models.checkpoints import checkpoint_of, load_config

    model = recipe.teacher.model
    if model is None:
        return architecture(recipe), "the recipe"
    local = Path(model).exists() or _cached(model)
    if offline and not local:
        return architecture(recipe), "the recipe; the checkpoint was not looked at"
    return load_config(checkpoint_of(model)), model


def _cached(model: str) -> bool:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        return isinstance(try_to_load_from_cache(model, "config.json"), str)
    except HFValidationError:
        return False


def architecture(recipe: Recipe) -> PretrainedConfig:
    """Return the configuration that a recipe states.

    Raises:
        InputError: transformers knows no such model type, or refuses a value.
    """
    from transformers import AutoConfig, PretrainedConfig

    from anglekit.models.checkpoint_files import check_counts
    from anglekit.models.checkpoints import quiet_transformers

    stated = dict(recipe.teacher.config)
    if recipe.teacher.tokenizer is not None:
        stated.setdefault("vocab_size", recipe.teacher.tokenizer.vocab_size)
    where = f"recipe {recipe.name}: teacher.config"
    check_counts(where, stated, "correct it")
    if "auto_map" in stated:
        raise InputError(f"{where} has an auto_map, which is code", "leave it out")
    with foreign_failures(lambda reason: f"{where} makes no model: {reason}; correct it"), quiet_transformers():
        config = AutoConfig.for_model(**stated)
    if not isinstance(config, PretrainedConfig):
        raise InputError(f"recipe {recipe.name}: teacher.config makes no model", "correct its model_type")
    return config


def data_settings(columns: Columns) -> DataSettings:
    """Return the columns as the training functions take them.

    Raises:
        InputError: a column that the tasks do not have.
    """
    from anglekit.distillation.settings import DataSettings

    given = {one.name: getattr(columns, one.name) for one in fields(columns)}
    known = {one.name for one in fields(DataSettings)}
    if lacking := sorted(name for name, value in given.items() if value is not None and name not in known):
        raise InputError(f"the tasks read no column {lacking[0]!r} here", "leave it out of the recipe, or upgrade")
    return DataSettings(**{name: value for name, value in given.items() if value is not None})


def analysis_settings(recipe: Recipe) -> AnalysisSettings:
    """Return the settings of the analysis.

    Raises:
        InputError: a value that is not allowed.
    """
    from anglekit.analysis.settings import AnalysisSettings

    own = {"probe", "text", "text_pair", "target", "limit", "dtype"}
    given = {one.name: getattr(recipe.analysis, one.name) for one in fields(recipe.analysis) if one.name not in own}
    return AnalysisSettings(**{name: value for name, value in given.items() if value is not None})


def plan_options(recipe: Recipe) -> dict[str, Any]:
    """Return the options of the students' plans, as `sweep` takes them.

    Raises:
        InputError: a weight that is not allowed.
    """
    from anglekit.distillation.losses.weights import LossWeights

    losses, students = recipe.losses, recipe.students
    options: dict[str, Any] = {
        "weights": LossWeights(losses.ce, losses.kl, losses.hidden),
        "hidden_loss": losses.hidden_loss,
        "reading": losses.reading,
        "train_adapters": students.train_adapters,
        "freeze_embeddings": students.freeze_embeddings,
    }
    return options if students.match_streams is None else options | {"match_streams": students.match_streams}


def plans_of(recipe: Recipe, config: PretrainedConfig) -> dict[str, DistillationPlan]:
    """Return the plan of every student of the first seed, by "variant strategy init"; reads no weights.

    Raises:
        InputError: a student that is not possible.
    """
    from anglekit.distillation.matching.plan import plan_distillation

    students = recipe.students
    options = plan_options(recipe)
    plans = {}
    for variant in recipe.variants:
        for init in students.inits:
            copied: dict[str, Any] = {}
            if students.copy_blocks is not None and init == "teacher":
                copied["copy_blocks"] = dict(students.copy_blocks)
            for strategy in students.strategies:
                plans[f"{variant.name} {strategy} {init}"] = plan_distillation(
                    config,
                    teacher=recipe.teacher.model or recipe.name,
                    strategy=strategy,
                    layers=variant.layers,
                    width=variant.width,
                    init=init,
                    seed=students.seeds[0],
                    **copied,
                    **options,
                )
    return plans


@contextmanager
def hub_remedy(recipe: Recipe, source: str) -> Iterator[None]:
    """Say how to go on without the hub when something that lies there cannot be had."""
    try:
        yield
    except AnglekitError as error:
        tables = " ".join(f"--validation {name}=FILE" for name in recipe.data.validation)
        reason = " ".join(str(error).split()).split(": ", 1)[-1].split("; ")[0].split(". ")[0][:160]
        raise type(error)(
            f"{source} cannot be had from the hub ({reason}); give local paths instead of the recipe's names: "
            f"--teacher DIR --train FILE {tables} --probe FILE"
        ) from error
