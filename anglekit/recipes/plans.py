"""The teacher of a recipe as a configuration, and the plans of its students; reads no weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from anglekit.errors import InputError, foreign_failures
from anglekit.readings import Decisions, check_reading, decisions
from anglekit.recipes.recipe import Recipe
from anglekit.vocabulary import NONE, WITHOUT_TEACHER

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from anglekit.distillation.matching.plan import DistillationPlan


def classifies(recipe: Recipe) -> bool:
    """Whether the task gives texts labels; the others have models that write."""
    from anglekit.distillation.tasks.registry import task_by_name

    return task_by_name(recipe.task).problem_type is not None


def teacher_config(recipe: Recipe, *, offline: bool = False) -> tuple[PretrainedConfig, str]:
    """Return the configuration of a recipe's teacher (a directory, a hub id, or from scratch), and where it is from.

    With `offline`, if there is no directory and no cached copy, the recipe's own statement is used instead of the hub.

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
    with (
        foreign_failures(lambda reason: InputError(f"{where} makes no model: {reason}", "correct it")),
        quiet_transformers(),
    ):
        config = AutoConfig.for_model(**stated)
    if not isinstance(config, PretrainedConfig):
        raise InputError(f"recipe {recipe.name}: teacher.config makes no model", "correct its model_type")
    return config


def reading_family(recipe: Recipe) -> str:
    """Return the name in `readings.OFFICIAL_FAMILIES` of a recipe's teacher."""
    from anglekit.distillation.students.create import official_family

    return official_family(architecture(recipe))


def reading_of(recipe: Recipe) -> Decisions:
    """Return what a recipe's reading decides for its teacher's family."""
    return decisions(recipe.losses.reading, reading_family(recipe))


def plan_options(recipe: Recipe) -> dict[str, Any]:
    """Return the options of the students' plans, as `sweep` takes them."""
    losses, students = recipe.losses, recipe.students
    options: dict[str, Any] = {
        "weights": losses.weights,
        "hidden_loss": losses.hidden_loss,
        "reading": losses.reading,
        "train_adapters": students.train_adapters,
        "freeze_embeddings": students.freeze_embeddings,
    }
    return options if students.match_streams is None else options | {"match_streams": students.match_streams}


def plans_of(recipe: Recipe, config: PretrainedConfig) -> dict[str, DistillationPlan]:
    """Return the plan of every student of the first seed, by "variant strategy init"; reads no weights.

    A control's name stands as its strategy.

    Raises:
        InputError: a student that is not possible, a reading that its family and task do not have, or a strategy
            without a learning rate where others have their own.
    """
    from anglekit.distillation.matching.plan import plan_distillation
    from anglekit.distillation.matching.strategies import controlled_strategies
    from anglekit.distillation.sweep.sweep import check_rates

    students = recipe.students
    check_reading(recipe.losses.reading, recipe.task, reading_family(recipe))
    check_rates(
        recipe.learning_rates, (*students.strategies, *([NONE] if WITHOUT_TEACHER in students.controls else []))
    )
    options = plan_options(recipe)
    control_of = controlled_strategies(students.controls, students.strategies)
    plans = {}
    for variant in recipe.variants:
        for init in students.inits:
            copied: dict[str, Any] = {}
            if students.copy_blocks is not None and init == "teacher":
                copied["copy_blocks"] = dict(students.copy_blocks)
            for name in (*students.strategies, *students.controls):
                plans[f"{variant.name} {name} {init}"] = plan_distillation(
                    config,
                    teacher=recipe.teacher.model or recipe.name,
                    strategy=control_of.get(name, name),
                    control=name if name in control_of else None,
                    layers=variant.layers,
                    width=variant.width,
                    init=init,
                    seed=students.seeds[0],
                    **copied,
                    **options,
                )
    return plans
