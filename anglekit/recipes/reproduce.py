"""A recipe, run: teacher, students, scores, geometry, figure, and the result beside the published numbers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from anglekit.distillation.settings import TrainSettings
from anglekit.errors import InputError
from anglekit.recipes.own_sources import hub_remedy, with_own_sources
from anglekit.recipes.plans import plans_of, teacher_config
from anglekit.recipes.recipe import Recipe, Variant, to_plain
from anglekit.recipes.recipe_files import key_named, load_recipe
from anglekit.recipes.reproduction_directory import ReproductionDirectory
from anglekit.recipes.stage_bar import Followed, StageBar
from anglekit.recipes.training import check_scale
from anglekit.runtime.files import write_json, write_whole
from anglekit.runtime.launch import launched_together
from anglekit.settings_fields import declarations

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PretrainedConfig

    from anglekit.comparison.verdict import Headline

DEMO_RECIPE: Final = "builtin-inference"
# The expected time of a stage that costs almost no FLOPs, as a share of all others together.
_SMALL_STAGE: Final = 0.02


@dataclass(frozen=True, eq=False)
class Reproduction:
    """What a reproduction left behind.

    Attributes:
        directory: holds `teacher` (where it was trained), for each variant a `sweep-...`, a `geometry-...` and (where
            the recipe has controls) a `geometry-...-controls`, then `scores.csv`, `result.csv`, `result.json` and
            `figure.png`; with a built-in corpus its data card, `corpus.md`.
        recipe: what was run, with a user's own sources in place of the recipe's.
        scale: the fraction of the steps that was trained.
        result: ours beside the paper's; see `published.result_frame`.
        text: the result for a terminal.
        verdicts: by variant, what `compare` says first.
        warnings: what spoils a comparison of the students.
        seconds: what each stage took, in its last session.
    """

    directory: str
    recipe: Recipe
    scale: float
    result: pd.DataFrame
    text: str
    verdicts: Mapping[str, Headline]
    warnings: tuple[str, ...]
    seconds: Mapping[str, float]

    def summary(self) -> dict[str, Any]:
        """Return the result as json takes it."""
        from anglekit.recipes.published import confounds

        return {
            "directory": self.directory,
            "recipe": self.recipe.name,
            "scale": self.scale,
            "result": json.loads(self.result.to_json(orient="records")),
            "verdicts": {
                variant: {"headline": said.line, "beneath": list(said.beneath)}
                for variant, said in self.verdicts.items()
            },
            "warnings": list(self.warnings),
            "reading": self.recipe.losses.reading,
            "confounds": list(confounds(self.recipe)),
            "seconds": dict(self.seconds),
        }


def stage_names(recipe: Recipe) -> tuple[str, ...]:
    """Return the stages of a recipe in the order in which they run."""
    return (
        *(["data"] if recipe.data.transform or recipe.data.columns.prefix else []),
        *(["untrained"] if recipe.teacher.model is None else []),
        *(["teacher"] if recipe.teacher.training is not None else []),
        *(f"sweep-{variant.name}" for variant in recipe.variants),
        "evaluation",
        *(f"geometry-{variant.name}" for variant in recipe.variants),
        "figure",
    )


def _check_recipe(recipe: Recipe, config: PretrainedConfig, *, scale: float, device: str) -> None:
    """Check all that can be checked without data and weights.

    Raises:
        InputError: what would end the run later on.
    """
    check_scale(scale)
    declarations(TrainSettings)["device"].check("--device", device)
    for part, training in (("teacher", recipe.teacher.training), ("students", recipe.students.training)):
        if training is not None:
            with key_named(f"recipe {recipe.name}", f"{part}.training"):
                training.settings(scale=scale, device=device).check_here()
    plans_of(recipe, config)


def _table_hashes(recipe: Recipe) -> dict[str, str]:
    """Return the sha256 of every table after checking that each can be read.

    Raises:
        InputError: a table cannot be read.
        RunError: the hub cannot be reached; the message says how to go on without it.
    """
    from anglekit.tables.read import read_table

    hashes = {}
    tables = {"train": recipe.data.train, **recipe.data.validation, "probe": recipe.analysis.probe}
    for name, source in tables.items():
        with hub_remedy(recipe, source) if source.startswith("hub:") else nullcontext():
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
        recipe: from `load_recipe`, perhaps with a user's own sources from `with_own_sources`.
        out: the directory. A reproduction of the same recipe and scale in it is resumed.
        scale: the fraction of the training steps, in (0, 1]; the learning rate is left alone.
        device: "auto" takes an accelerator if there is one; "cpu" takes none.
        overwrite: remove what is in the directory first.
        progress: show one bar over all stages.
        say: called with a line at the beginning of each stage.
        warn: called with each warning about the students.

    Raises:
        InputError: something that was given is wrong, or the directory holds another reproduction.
        RunError: the hub cannot be reached, or a loss stopped being finite.
    """
    if launched_together():
        raise InputError("a reproduction runs in one process", "start it without `accelerate launch`")
    model = recipe.teacher.model
    with hub_remedy(recipe, model) if model is not None and _is_hub_id(model) else nullcontext():
        config, _ = teacher_config(recipe)
    _check_recipe(recipe, config, scale=scale, device=device)
    with ReproductionDirectory(out, overwrite=overwrite) as directory:
        return _Run(recipe, directory, scale, device, progress, say, warn).all_stages()


def run_demo(out: str | Path, *, seed: int = 0, **options: Any) -> Reproduction:  # noqa: ANN401 - those of `reproduce`
    """Run the recipe `builtin-inference` on the CPU: about three and a half minutes on one core, nothing is downloaded.

    The same seed gives the same numbers on the same machine.

    Args:
        out: the directory; a demo of the same seed in it is resumed.
        seed: of everything random.
        options: further ones of `reproduce`: `overwrite`, `progress`, `scale`, `say`, `warn`.

    Raises:
        InputError: the seed is not allowed, or the directory holds something else.
        RunError: a loss stopped being finite.
    """
    return reproduce(with_own_sources(load_recipe(DEMO_RECIPE), seed=seed), out, device="cpu", **options)


def _lacks_one(runs: Sequence[Path]) -> bool:
    """Whether a run that was finished is not there any more, or never was.

    Raises:
        InputError: one is there and its checkpoint is not whole.
    """
    from anglekit.distillation.runs.directory import RunDirectory

    directories = [RunDirectory(run, "resume", writes=False) for run in runs]
    for directory in directories:
        if directory.finished:
            directory.check_checkpoint()
    return not all(directory.finished for directory in directories)


def _is_hub_id(model: str) -> bool:
    return not Path(model).exists() and model.count("/") <= 1 and not model.startswith((".", "/", "~"))


def _expected(recipe: Recipe, scale: float) -> tuple[dict[str, float], dict[str, int]]:
    """Return by stage what it is expected to cost, and the steps of each of its runs."""
    from anglekit.recipes.dry_run import dry_run

    try:
        planned = dry_run(recipe, scale=scale).stages
    except InputError:  # how many rows a table of the hub has is not stated
        planned = ()
    flops = {one.name: one.flops for one in planned}
    least = _SMALL_STAGE * sum(flops.values()) or 1.0
    costs = {name: flops.get(name, 0.0) + least for name in stage_names(recipe)}
    return costs, {one.name: one.steps for one in planned if one.steps is not None}


class _Run:
    """The stages over one directory; those that are done are skipped."""

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
        self._say, self._warn = say, warn
        self.names = stage_names(recipe)
        self.bar = StageBar({}, shown=False)
        self.steps: Mapping[str, int] = {}

    def all_stages(self) -> Reproduction:
        # The number of threads changes a result only by rounding, and earlier versions did not record it.
        plain = {name: value for name, value in to_plain(self.recipe).items() if name != "threads"}
        content = {"recipe": plain, "scale": self.scale, "tables": _table_hashes(self.recipe)}
        defaults: dict[str, Any] = {
            f"recipe.{part}.training.{name}": value
            for part in ("teacher", "students")
            for name, value in TrainSettings().decisive().items()
        }
        # Earlier versions knew no controls.
        defaults["recipe.students.controls"] = []
        from anglekit.recipes import reproduction_stages as stages

        if "data" not in self.names:
            # Refuse it now rather than after the training. The data stage writes a probe that can be read.
            stages.probe_of(self.recipe)
        if self.directory.begin(content, {"device": self.device, "threads": self.recipe.threads}, defaults):
            self.say(f"going on with {self.path}")
        costs = dict.fromkeys(self.names, 1.0)
        if self.progress:
            costs, self.steps = _expected(self.recipe, self.scale)
        with stages.cpu_threads(self.recipe.threads), StageBar(costs, shown=self.progress) as self.bar:
            recipe = self._data()
            teacher = self._teacher(recipe)
            sweeps = self._students(recipe, teacher)
            geometries = self._geometries(recipe, teacher, sweeps)
        verdicts: dict[str, Headline] = {}
        warnings: list[str] = []
        for variant, swept in sweeps.items():
            places = [swept, *(self.path / name for name in geometries[variant])]
            if len(recipe.students.strategies) > 1:
                verdicts[variant.name] = stages.compare_strategies(places)
            warnings += stages.sweep_warnings(swept)
        return self._result(verdicts, tuple(dict.fromkeys(warnings)))

    def _data(self) -> Recipe:
        from anglekit.recipes import reproduction_stages as stages

        place = self.path / "data"
        stages.write_data_card(self.recipe, self.path / "corpus.md")
        self._stage(
            "data", "write the tables as text columns", place, lambda: stages.transform_data(self.recipe, place)
        )
        # The files exist by now: the call only returns their names.
        return stages.transform_data(self.recipe, place)

    def _teacher(self, recipe: Recipe) -> str:
        from anglekit.recipes import reproduction_stages as stages
        from anglekit.recipes.teacher_from_scratch import make_untrained

        model = recipe.teacher.model
        if model is None:
            untrained = self.path / "untrained"
            self._stage("untrained", "make an untrained teacher", untrained, lambda: make_untrained(recipe, untrained))
            model = str(untrained)
        if recipe.teacher.training is None:
            return model
        trained = self.path / "teacher"
        self._stage(
            "teacher",
            f"train the teacher from {model}",
            trained,
            lambda: stages.train_teacher(recipe, model, trained, scale=self.scale, device=self.device),
            runs=[trained],
        )
        return str(trained)

    def _students(self, recipe: Recipe, teacher: str) -> dict[Variant, Path]:
        """Train and score all students; return their sweeps by depth and width."""
        from anglekit.recipes import reproduction_stages as stages

        sweeps = {variant: self.path / f"sweep-{variant.name}" for variant in recipe.variants}
        for variant, swept in sweeps.items():

            def train(variant: Variant = variant, swept: Path = swept) -> None:
                stages.train_students(
                    recipe, variant, teacher, swept, scale=self.scale, device=self.device, warn=self.warn
                )

            runs = [swept / name for name in stages.arm_names(recipe)]
            self._stage(swept.name, f"train the students, {variant.name}", swept, train, runs=runs)
        scores = self.path / "scores.csv"
        self._stage(
            "evaluation",
            "score teacher and students",
            scores,
            lambda: stages.write_scores(recipe, teacher, sweeps, scores, device=self.device),
        )
        return sweeps

    def _geometries(
        self, recipe: Recipe, teacher: str, sweeps: Mapping[Variant, Path]
    ) -> dict[Variant, dict[str, tuple[str, ...]]]:
        """Measure and draw the Geometries of all students; return which students are in which."""
        from anglekit.recipes import reproduction_stages as stages

        geometries = {variant: stages.geometry_parts(recipe, variant) for variant in sweeps}
        for variant, parts in geometries.items():

            def look(variant: Variant = variant, parts: Mapping[str, tuple[str, ...]] = parts) -> None:
                stages.measure_geometries(
                    recipe, teacher, sweeps[variant], parts, self.path, device=self.device, progress=self.progress
                )

            first = self.path / next(iter(parts))
            self._stage(f"geometry-{variant.name}", f"measure the geometry, {variant.name}", first, look)
        every = {
            name: self.path / name
            for variant, parts in geometries.items()
            for name in parts
            if not stages.is_of_controls(name, variant)
        }
        figure = self.path / "figure.png"
        self._stage("figure", "draw the figure", figure, lambda: stages.draw(recipe, every, figure))
        return geometries

    def _stage(
        self, name: str, words: str, product: Path, run: Callable[[], object], *, runs: Sequence[Path] = ()
    ) -> None:
        """Run a stage of the recipe, unless its product exists already; `runs` are the directories that it trains.

        A product that was removed by hand is made again, and so is a run that a later stage still needs.
        """
        if name not in self.names:
            return
        line = f"[{self.names.index(name) + 1}/{len(self.names)}] {words}"
        if self.directory.done(name) and product.exists() and not (self._is_read_after(name) and _lacks_one(runs)):
            self.say(f"{line}: done before")
            self.bar.skip(name)
            return
        self.say(line)
        steps = self.steps.get(name)
        followed = Followed(tuple(one / "metrics.jsonl" for one in runs), steps) if runs and steps else None
        with self.bar.stage(name, followed), self.directory.stage(name):
            run()

    def _is_read_after(self, name: str) -> bool:
        """Whether a later stage that reads checkpoints is not done, or has to be done again."""
        later = [one for one in self.names[self.names.index(name) + 1 :] if one != "figure"]
        products = {"evaluation": "scores.csv"}
        return any(
            not self.directory.done(one) or not any(self.path.glob(products.get(one, f"{one}*"))) for one in later
        )

    def say(self, line: str) -> None:
        with self.bar.aside():
            self._say(line)

    def warn(self, warning: str) -> None:
        with self.bar.aside():
            self._warn(warning)

    def _result(self, verdicts: Mapping[str, Headline], warnings: tuple[str, ...]) -> Reproduction:
        import pandas as pd

        from anglekit.recipes.published import result_frame, result_text

        scores = pd.read_csv(self.path / "scores.csv", keep_default_na=False, na_values={"layers": [""], "width": [""]})
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
