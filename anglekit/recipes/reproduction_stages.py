"""The stages of a reproduction, each a call of what the command of the same name calls."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Final

import pandas as pd
import torch

import anglekit_data
from anglekit.analysis.jobs.job import save_analysis
from anglekit.analysis.jobs.unfinished import unfinished_directory
from anglekit.comparison.compare import compare
from anglekit.comparison.verdict import Headline
from anglekit.distillation.runs.directory import RunDirectory
from anglekit.distillation.runs.evaluate import evaluate
from anglekit.distillation.runs.run import RunResult
from anglekit.distillation.runs.train import finetune
from anglekit.distillation.settings import ScoringSettings
from anglekit.distillation.sweep.directory import SweepGrid, SweepRecord
from anglekit.distillation.sweep.sweep import sweep
from anglekit.distillation.tasks.registry import task_by_name
from anglekit.distillation.tasks.seq2seq import SourcesAndTargets
from anglekit.errors import InputError
from anglekit.models.checkpoints import checkpoint_of, load_checkpoint, quiet_transformers
from anglekit.models.load_options import LoadOptions
from anglekit.plots.files import figure_bytes
from anglekit.plots.registry import draw_figure
from anglekit.probes.data import ProbeData, read_probe
from anglekit.recipes.plans import plan_options, reading_of
from anglekit.recipes.recipe import Recipe, Variant
from anglekit.recipes.transforms import Form, check_references, transform_rows
from anglekit.results.geometry import Geometry
from anglekit.results.scores import SWEEP_FILE
from anglekit.runtime.files import read_document, write_whole
from anglekit.tables.read import read_table
from anglekit.vocabulary import CONTROLS

# Measurements are saved after this many batches: writing them takes a moment.
_SAVE_EVERY = 100
# Stands in the names of the Geometries of control arms.
_CONTROLS = "controls"
#: Published scores of several references.
SEVERAL_REFERENCES: Final = ("multi_bleu", "last_turn_exact_match")
# What stands before the scores in a row of their table.
_KEYS = ("model", "layers", "width", "strategy", "init", "seed", "data", "examples")


@contextmanager
def cpu_threads(number: int | None) -> Iterator[None]:
    """Compute on `number` threads while the block runs, then on as many as before; None changes nothing."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def write_data_card(recipe: Recipe, target: Path) -> None:
    """Write the data card of the corpus that a recipe trains on, where that is a built-in one."""
    kind, _, name = recipe.data.train.partition(":")
    if kind == "builtin":
        write_whole(target, anglekit_data.data_card(name.partition(":")[0]))


def transform_data(recipe: Recipe, directory: Path) -> Recipe:
    """Write the tables that need it as text columns, and return the recipe with these in their place.

    For a recipe with a transform all tables are written. For one with a prefix before its sources only the probe is,
    because the analysis knows no prefix. Existing files are left alone.

    Raises:
        InputError: a table has neither the columns that are needed nor what they are made of.
    """
    data, analysis, decided = recipe.data, recipe.analysis, reading_of(recipe)
    tables = {"probe": analysis.probe}
    if data.transform is not None:
        tables |= {"train": data.train, **data.validation}
    elif not data.columns.prefix:
        return recipe
    places = {name: directory / f"{name}.jsonl" for name in tables}
    for name, source in tables.items():
        if not places[name].exists():
            if data.transform is None:
                rows = _prefixed(recipe, source)
            else:
                rows = transform_rows(read_table(source), data.transform, Form(decided, name == "train"))
            if name in data.validation:
                _check_scored(recipe, rows, source)
            if name == "probe":
                # The analysis reads one target an example: the first of several references.
                rows = [{key: cell[0] if isinstance(cell, list) else cell for key, cell in row.items()} for row in rows]
            write_whole(places[name], "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows))
    analysis = analysis.changed(probe=str(places["probe"]))
    if data.transform is None:
        return replace(recipe, analysis=analysis.changed(text="source", target="target"))
    validation = {name: str(places[name]) for name in data.validation}
    data = replace(data, train=str(places["train"]), validation=validation, transform=None)
    return replace(recipe, data=data, analysis=analysis)


def _check_scored(recipe: Recipe, rows: list[dict[str, Any]], source: str) -> None:
    """Refuse a table that lacks the references of a score that the paper's numbers stand beside."""
    columns = recipe.data.columns
    for score in recipe.published.scores if recipe.published is not None else ():
        if score in SEVERAL_REFERENCES and rows:
            column = columns.target if columns.target in rows[0] else columns.completion
            check_references(rows, column or next(reversed(rows[0])), score, source)


def _prefixed(recipe: Recipe, source: str) -> list[dict[str, Any]]:
    """Return `source`, the prefix before it, and `target` of a table, as the task reads them."""
    texts = task_by_name(recipe.task).read(source, recipe.data.columns, name="probe")
    if not isinstance(texts, SourcesAndTargets):
        raise InputError(f"recipe {recipe.name} has a prefix and task {recipe.task} no sources", "leave it out")
    return [{"source": one, "target": own[0]} for one, own in zip(texts.sources, texts.targets, strict=True)]


def _validation_sources(recipe: Recipe) -> list[str]:
    """Return the validation tables as the training functions take them."""
    return [f"{name}={source}" for name, source in recipe.data.validation.items()]


def train_teacher(recipe: Recipe, model: str, directory: Path, *, scale: float, device: str) -> None:
    """Train the teacher, or go on with it, and score it."""
    training = recipe.teacher.training
    if training is None:
        return
    finetune(
        model,
        task=recipe.task,
        train=recipe.data.train,
        out=directory,
        validation=_validation_sources(recipe),
        data=recipe.data.columns,
        settings=training.settings(scale=scale, seed=recipe.teacher.seed, device=device),
        if_exists="resume",
        reading=recipe.losses.reading,
    )


def train_students(
    recipe: Recipe,
    variant: Variant,
    teacher: str,
    directory: Path,
    *,
    scale: float,
    device: str,
    warn: Callable[[str], None],
) -> None:
    """Train all students of one depth and width, controls among them, or go on with them, and score them."""
    students = recipe.students
    options = plan_options(recipe)
    grid = _grid(recipe)
    if students.copy_blocks is not None:
        options["copy_blocks"] = dict(students.copy_blocks)
    sweep(
        teacher,
        strategies=grid.strategies,
        inits=grid.inits,
        seeds=grid.seeds,
        controls=grid.controls,
        task=recipe.task,
        train=recipe.data.train,
        out=directory,
        layers=variant.layers,
        width=variant.width,
        validation=_validation_sources(recipe),
        data=recipe.data.columns,
        settings=students.training.settings(
            scale=scale,
            device=device,
            temperature=recipe.losses.temperature,
            kl_direction=recipe.losses.kl_direction,
            relation_heads=recipe.losses.relation_heads,
        ),
        if_exists="resume",
        side_by_side=students.side_by_side,
        order_per_seed=students.order_per_seed,
        learning_rates=recipe.learning_rates,
        warn=warn,
        **options,
    )


def _grid(recipe: Recipe) -> SweepGrid:
    students = recipe.students
    return SweepGrid(students.strategies, students.inits, students.seeds, students.controls)


def arm_names(recipe: Recipe) -> list[str]:
    """Return the names of the students of a sweep, which their run directories have."""
    return [arm.name for arm in _grid(recipe).arms]


def write_scores(recipe: Recipe, teacher: str, sweeps: Mapping[Variant, Path], target: Path, *, device: str) -> None:
    """Write the scores of the teacher and all students as csv; a control's name stands as its strategy.

    A row for each model and validation table: `model, layers, width, strategy, init, seed, data, examples` and the
    scores. The students and a teacher that was trained here were scored when their training ended; a teacher that came
    trained is scored now.
    """
    frames = [_teacher_scores(recipe, teacher, device)]
    for variant, directory in sweeps.items():
        scores = pd.read_csv(directory / "scores.csv", keep_default_na=False)
        frames.append(scores.assign(model="student", layers=variant.layers, width=variant.width))
    frame = pd.concat(frames, ignore_index=True)
    if missing := [name for name in recipe.scores if name not in frame.columns]:
        raise InputError(
            f"recipe {recipe.name} shows the score {missing[0]!r}, which task {recipe.task} does not compute",
            f"it has {', '.join(name for name in frame.columns if name not in _KEYS)}",
        )
    apart = (*_KEYS, "checkpoint", "selected_step", "seconds")
    others = [name for name in frame.columns if name not in apart]
    write_whole(target, frame[[*_KEYS, *others]].to_csv(index=False))


def _teacher_scores(recipe: Recipe, teacher: str, device: str) -> pd.DataFrame:
    stored = Path(teacher) / "scores.json"
    if stored.is_file():
        frame = RunResult.stored(RunDirectory(teacher, "resume", writes=False)).scores
    else:
        training = recipe.students.training
        scoring = ScoringSettings(**{one.name: getattr(training, one.name) for one in fields(ScoringSettings)})
        frame = evaluate(
            [teacher],
            task=recipe.task,
            data=_validation_sources(recipe),
            columns=recipe.data.columns,
            load=_load_options(recipe, device),
            scoring=scoring,
        ).scores
    return frame.assign(model="teacher", layers=None, width=None, strategy="", init="", seed=None)


def geometry_parts(recipe: Recipe, variant: Variant) -> dict[str, tuple[str, ...]]:
    """Return the Geometries of one variant, by name the students in each: at most as many as fit in memory together.

    Controls have Geometries of their own, so that they change nothing of the others.
    """
    arms = _grid(recipe).arms
    students = [arm.name for arm in arms if arm.strategy not in CONTROLS]
    controls = [arm.name for arm in arms if arm.strategy in CONTROLS]
    size = recipe.students.side_by_side
    return _in_parts(f"geometry-{variant.name}", students, size) | _in_parts(
        f"geometry-{variant.name}-{_CONTROLS}", controls, size
    )


def _in_parts(name: str, students: Sequence[str], size: int) -> dict[str, tuple[str, ...]]:
    parts = [tuple(students[start : start + size]) for start in range(0, len(students), size)]
    if len(parts) == 1:
        return {name: parts[0]}
    if size == 1:
        return {f"{name}-{part[0]}": part for part in parts}
    return {f"{name}-part{number}": part for number, part in enumerate(parts, 1)}


def is_of_controls(geometry: str, variant: Variant) -> bool:
    """Whether a Geometry of `geometry_parts` is one of controls."""
    return geometry.startswith(f"geometry-{variant.name}-{_CONTROLS}")


def probe_of(recipe: Recipe) -> ProbeData:
    """Return the examples of the analysis.

    Raises:
        InputError: the columns that the recipe names cannot be its texts, as lists of references cannot.
    """
    columns = recipe.data.columns
    try:
        return read_probe(
            recipe.analysis.probe,
            text=recipe.analysis.text or columns.text or columns.source or columns.prompt,
            text_pair=recipe.analysis.text_pair or columns.text_pair,
            target=recipe.analysis.target or columns.target or columns.completion,
            limit=recipe.analysis.limit,
            seed=recipe.analysis.seed or 0,
        )
    except InputError as error:
        raise InputError(f"recipe {recipe.name}: analysis: {error} (keys text, text_pair and target)") from error


def measure_geometries(
    recipe: Recipe,
    teacher: str,
    swept: Path,
    parts: Mapping[str, tuple[str, ...]],
    directory: Path,
    *,
    device: str,
    progress: bool,
) -> None:
    """Measure and save the Geometries of `geometry_parts`, or go on; existing ones are complete and left alone."""
    probe, options = probe_of(recipe), _load_options(recipe, device)
    for name, students in parts.items():
        out = directory / name
        left = unfinished_directory(out)
        if out.exists() and left.exists():
            # The process was killed after it saved this one and before it removed the intermediate results.
            shutil.rmtree(left)
        if out.exists():
            continue
        with quiet_transformers():
            loaded = load_checkpoint(teacher, options)
            others = [load_checkpoint(checkpoint_of(str(swept / student)), options) for student in students]
        save_analysis(out, loaded, others, probe, recipe.analysis.settings, save_every=_SAVE_EVERY, progress=progress)


def _load_options(recipe: Recipe, device: str) -> LoadOptions:
    return LoadOptions(device=device, dtype=recipe.analysis.dtype or "float32")


def draw(recipe: Recipe, geometries: Mapping[str, Path], target: Path) -> None:
    """Draw the recipe's figure, a panel for each stream of each Geometry."""
    label = recipe.figure.label or recipe.name
    # With a single variant its name distinguishes nothing.
    same = f"geometry-{recipe.variants[0].name}-" if len(recipe.variants) == 1 else "geometry-"
    labels = [label] if len(geometries) == 1 else [f"{label}, {name.removeprefix(same)}" for name in geometries]
    loaded = [Geometry.load(path) for path in geometries.values()]
    write_whole(target, figure_bytes(draw_figure(recipe.figure.name, loaded, labels=labels), "png"))


def sweep_warnings(swept: Path) -> list[str]:
    """Return what spoils a comparison of the students of a sweep."""
    return read_document(swept / SWEEP_FILE, SweepRecord, "remove it: its students are then trained again").warnings


def compare_strategies(places: Sequence[Path]) -> Headline:
    """Return what `compare` says first of one variant: of its sweep and its Geometries.

    If they cannot be compared, nothing is raised: the line says why.
    """
    try:
        return compare(places).headline
    except InputError as error:
        return Headline(f"Not compared: {error}.")
