"""A recipe, run: teacher, students, scores, geometry, figure, and the result beside the published numbers."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anglekit.errors import InputError
from anglekit.recipes.checked_values import key_named
from anglekit.recipes.progress_file import ReproductionDirectory
from anglekit.recipes.recipe import ALONE, Recipe
from anglekit.recipes.sources import analysis_settings, data_settings, hub_remedy, plan_options, teacher_config
from anglekit.recipes.training import check_scale
from anglekit.recipes.typed_values import to_plain
from anglekit.runtime.files import write_json, write_whole

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PretrainedConfig

    from anglekit.distillation.matching.plan import DistillationPlan

__all__ = ["Reproduction", "plans_of", "reproduce", "stage_names"]

_DEVICES = ("auto", "cpu")


@dataclass(frozen=True, eq=False)
class Reproduction:
    """What a reproduction left behind.

    Attributes:
        directory: holds `teacher` (where it was trained), for each variant a `sweep-...`, a `geometry-...` and (where
            the recipe has students without a teacher) an `alone-...`, then `scores.csv`, `result.csv`, `result.json`
            and `figure.png`.
        recipe: what was run, a user's own sources in place of the recipe's.
        scale: the fraction of the steps that was made.
        result: ours beside the paper's; see `beside_published.result_frame`.
        text: the result for a terminal.
        verdicts: by variant, whether layer selection matters, in a sentence.
        warnings: what spoils a comparison of the students.
        seconds: what each stage took, in its last session.
    """

    directory: str
    recipe: Recipe
    scale: float
    result: pd.DataFrame
    text: str
    verdicts: Mapping[str, str]
    warnings: tuple[str, ...]
    seconds: Mapping[str, float]

    def summary(self) -> dict[str, Any]:
        """Return the result as json takes it."""
        return {
            "directory": self.directory,
            "recipe": self.recipe.name,
            "scale": self.scale,
            "result": json.loads(self.result.to_json(orient="records")),
            "verdicts": dict(self.verdicts),
            "warnings": list(self.warnings),
            "seconds": dict(self.seconds),
        }


def stage_names(recipe: Recipe) -> tuple[str, ...]:
    """Return the stages of a recipe in the order in which they run."""
    return (
        *(["data"] if recipe.data.transform or recipe.data.columns.prefix else []),
        *(["untrained"] if recipe.teacher.model is None else []),
        *(["teacher"] if recipe.teacher.training is not None else []),
        *(f"{kind}-{variant.name}" for variant in recipe.variants for kind in _training_kinds(recipe)),
        "evaluation",
        *(f"geometry-{variant.name}" for variant in recipe.variants),
        "figure",
    )


def _training_kinds(recipe: Recipe) -> tuple[str, ...]:
    return ("sweep", ALONE) if recipe.students.alone else ("sweep",)


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


def check_recipe(recipe: Recipe, config: PretrainedConfig, *, scale: float, device: str) -> None:
    """Check all that can be checked without data and weights.

    Raises:
        InputError: what would end the run later on.
    """
    from anglekit.distillation.tasks.registry import task_by_name

    check_scale(scale)
    if device not in _DEVICES:
        raise InputError(f"--device is {device!r}", allowed="allowed: auto (an accelerator if there is one), cpu")
    task_by_name(recipe.task)
    for part, training in (("teacher", recipe.teacher.training), ("students", recipe.students.training)):
        if training is not None:
            with key_named(f"recipe {recipe.name}: {part}.training"):
                training.settings(scale=scale, device=device).check_here()
    data_settings(recipe.data.columns)
    analysis_settings(recipe)
    plans_of(recipe, config)


def table_hashes(recipe: Recipe) -> dict[str, str]:
    """Return the sha256 of every table after checking that each can be read.

    Raises:
        InputError: a table cannot be read.
        RunError: the hub cannot be reached; the message says how to go on without it.
    """
    from anglekit.tables.read import read_table

    hashes = {}
    tables = {"train": recipe.data.train, **recipe.data.validation, "probe": recipe.analysis.probe}
    for name, source in tables.items():
        if source.startswith("hub:"):
            with hub_remedy(recipe, source):
                hashes[name] = read_table(source).sha256
        else:
            hashes[name] = read_table(source).sha256
    return hashes


def reproduce(
    recipe: Recipe,
    out: str | Path,
    *,
    scale: float = 1.0,
    device: str = "auto",
    overwrite: bool = False,
    progress: bool = False,
    say: Callable[[str], None] = lambda _line: None,
    warn: Callable[[str], None] = lambda _line: None,
) -> Reproduction:
    """Run a recipe, or go on with one where it stopped.

    Args:
        recipe: of `load_recipe`, with one's own sources by `with_own_sources`.
        out: the directory. What is in it of the same recipe and scale goes on.
        scale: the fraction of the training steps, in (0, 1]; the learning rate is left alone.
        device: "auto" takes an accelerator if there is one; "cpu" takes none.
        overwrite: remove what is in the directory first.
        progress: show the bars of the stages.
        say: called with a line at the beginning of each stage.
        warn: called with each warning about the students.

    Raises:
        InputError: something that was given is wrong, or the directory holds another reproduction.
        RunError: the hub cannot be reached, or a loss stopped being finite.
    """
    if int(os.environ.get("WORLD_SIZE", "1") or 1) > 1:
        raise InputError("a reproduction runs in one process", "start it without `accelerate launch`")
    model = recipe.teacher.model
    if model is not None and _is_hub_id(model):
        with hub_remedy(recipe, model):
            config, _ = teacher_config(recipe)
    else:
        config, _ = teacher_config(recipe)
    check_recipe(recipe, config, scale=scale, device=device)
    with ReproductionDirectory(out, overwrite=overwrite) as directory:
        return _Run(recipe, directory, scale, device, progress, say, warn).all_stages()


def _is_hub_id(model: str) -> bool:
    return not Path(model).exists() and model.count("/") <= 1 and not model.startswith((".", "/", "~"))


class _Run:
    """The stages over one directory; those that are done are passed over."""

    def __init__(
        self,
        recipe: Recipe,
        directory: ReproductionDirectory,
        scale: float,
        device: str,
        progress: bool,
        say: Callable[[str], None],
        warn: Callable[[str], None],
    ) -> None:
        self.recipe, self.directory, self.path = recipe, directory, directory.path
        self.scale, self.device, self.progress = scale, device, progress
        self.say, self.warn = say, warn
        self.names = stage_names(recipe)

    def all_stages(self) -> Reproduction:
        content = {"recipe": to_plain(self.recipe), "scale": self.scale, "tables": table_hashes(self.recipe)}
        from anglekit.recipes import stages

        if "data" not in self.names:
            # Refused now rather than behind the training. The data stage writes a probe that can be read.
            stages.probe_of(self.recipe)
        if self.directory.begin(content, {"device": self.device}):
            self.say(f"going on with {self.path}")
        recipe = self._data(stages)
        teacher = self._teacher(stages, recipe)
        sweeps = {variant: self.path / f"sweep-{variant.name}" for variant in recipe.variants}
        for variant, swept in sweeps.items():
            train = partial(stages.train_students, recipe, variant, teacher, directory=swept, scale=self.scale)
            train = partial(train, device=self.device, progress=self.progress, warn=self.warn)
            self._stage(swept.name, f"train the students, {variant.name}", train, swept.name)
            alone = stages.alone_directory(swept)
            train = partial(train, directory=alone, alone=True)
            self._stage(alone.name, f"train a student without a teacher, {variant.name}", train, alone.name)
        scores_file = self.path / "scores.csv"
        score = partial(stages.write_scores, recipe, teacher, sweeps, scores_file, device=self.device)
        self._stage("evaluation", "score teacher and students", score, scores_file.name)
        geometries = {variant: stages.geometry_parts(recipe, variant) for variant in sweeps}
        for variant, parts in geometries.items():
            look = partial(stages.measure_geometries, recipe, teacher, sweeps[variant], parts, self.path)
            look = partial(look, device=self.device, progress=self.progress)
            self._stage(f"geometry-{variant.name}", f"measure the geometry, {variant.name}", look, next(iter(parts)))
        every = {name: self.path / name for parts in geometries.values() for name in parts}
        draw = partial(stages.draw, recipe, every, self.path / "figure.png")
        self._stage("figure", "draw the figure", draw, "figure.png")
        verdicts = {}
        warnings: list[str] = []
        for variant, swept in sweeps.items():
            places = [swept, *(self.path / name for name in geometries[variant])]
            if len(recipe.students.strategies) > 1:
                verdicts[variant.name] = stages.compare_strategies(places)
            warnings += json.loads((swept / "sweep.json").read_text(encoding="utf-8"))["warnings"]
        return self._result(scores_file, verdicts, tuple(dict.fromkeys(warnings)))

    def _data(self, stages: Any) -> Recipe:  # noqa: ANN401 - the module of the stages
        place = self.path / "data"
        make = partial(stages.transform_data, self.recipe, place)
        self._stage("data", "write the tables as text columns", make, place.name)
        # The files are there by now: the call names them and makes none.
        made: Recipe = make()
        return made

    def _teacher(self, stages: Any, recipe: Recipe) -> str:  # noqa: ANN401
        model = recipe.teacher.model
        if model is None:
            from anglekit.distillation.tasks.registry import task_by_name
            from anglekit.recipes.untrained import make_untrained

            untrained = self.path / "untrained"
            classifies = hasattr(task_by_name(recipe.task), "labels")
            make = partial(make_untrained, recipe, untrained, classifies=classifies)
            self._stage("untrained", "make an untrained teacher", make, untrained.name)
            model = str(untrained)
        if recipe.teacher.training is None:
            return model
        trained = self.path / "teacher"
        train = partial(stages.train_teacher, recipe, model, trained, scale=self.scale)
        train = partial(train, device=self.device, progress=self.progress)
        self._stage("teacher", f"train the teacher from {model}", train, trained.name)
        return str(trained)

    def _stage(self, name: str, words: str, run: Callable[[], object], product: str | None = None) -> None:
        if name not in self.names:
            return
        number = f"[{self.names.index(name) + 1}/{len(self.names)}]"
        # What somebody removed by hand is made again.
        if self.directory.done(name) and (product is None or (self.path / product).exists()):
            self.say(f"{number} {words}: done before")
            return
        self.say(f"{number} {words}")
        with self.directory.stage(name):
            run()

    def _result(self, scores_file: Path, verdicts: Mapping[str, str], warnings: tuple[str, ...]) -> Reproduction:
        import pandas as pd

        from anglekit.recipes.beside_published import result_frame, result_text

        scores = pd.read_csv(scores_file, keep_default_na=False, na_values={"layers": [""], "width": [""]})
        result = result_frame(self.recipe, scores)
        found = Reproduction(
            str(self.path),
            self.recipe,
            self.scale,
            result,
            result_text(self.recipe, result, self.scale),
            verdicts,
            warnings,
            self.directory.seconds,
        )
        write_whole(self.path / "result.csv", result.to_csv(index=False))
        write_json(self.path / "result.json", found.summary())
        return found
