"""Fine-tune a model, distil a student, evaluate checkpoints: whole runs, from a source to a run directory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from transformers import PretrainedConfig, set_seed

from anglekit.distillation.losses.objective import DistillationObjective
from anglekit.distillation.losses.weights import LossWeights
from anglekit.distillation.matching.plan import DistillationPlan, plan_distillation
from anglekit.distillation.runs.arm import Arm, RunResult, build_arm, finish_arm, start_run, stored_result
from anglekit.distillation.runs.directory import IfExists, RunDirectory
from anglekit.distillation.runs.scoring import run_scoring
from anglekit.distillation.settings import (
    DataSettings,
    EncodingSettings,
    ScoringSettings,
    TrainSettings,
    evaluation_sources,
)
from anglekit.distillation.students.create import CopyBlocks
from anglekit.distillation.tasks.data import TextTable
from anglekit.distillation.tasks.models import TaskModel, load_for_fine_tuning, load_trained
from anglekit.distillation.tasks.prepared_data import PreparedData, prepare_data
from anglekit.distillation.tasks.registry import task_by_name
from anglekit.distillation.tasks.task import Task
from anglekit.errors import InputError
from anglekit.models.checkpoints import checkpoint_of, load_config, quiet_transformers
from anglekit.models.load_options import LoadOptions
from anglekit.vocabulary import Stream

__all__ = ["LoadedTables", "distill", "evaluate", "finetune", "load_teacher_and_data", "plan_run", "read_tables"]


def finetune(
    model: str,
    *,
    task: str,
    train: str,
    out: str | Path,
    validation: Sequence[str] = (),
    data: DataSettings | None = None,
    settings: TrainSettings | None = None,
    load: LoadOptions | None = None,
    if_exists: IfExists = "refuse",
    progress: bool = False,
) -> RunResult:
    """Train a model on a task: a teacher-to-be.

    Args:
        model: directory or hub id, with or without a head.
        task: a name in `tasks.TASKS`.
        train: table of training examples, as `tables.read_table` takes it.
        out: the run's directory.
        validation: tables, each `SOURCE` or `NAME=SOURCE`; the first one validates during training.
        data: columns by name.
        settings: of the training; what they leave open is the task's.
        load: what is allowed in loading.
        if_exists: what to do with a run that is already there: "refuse", "resume" or "overwrite".
        progress: whether to show a bar.

    Raises:
        InputError: something that was given is wrong; nothing was written.
        RunError: the loss stopped being finite.
    """
    chosen = task_by_name(task)
    settings = settings or TrainSettings()
    settings = settings.completed(epochs=chosen.teacher_epochs, learning_rate=chosen.teacher_learning_rate)
    seed = settings.seed or 0
    source = checkpoint_of(model)
    with RunDirectory(out, if_exists) as directory:
        config = load_config(source, load)
        chosen.check_config(config, source)
        tables, evaluations = read_tables(chosen, train, validation, data)
        settled = chosen.for_fine_tuning(tables, config)
        set_seed(seed)
        loaded = load_for_fine_tuning(source, settled, load)
        prepared = prepare_data(settled, loaded.tokenizer, loaded.model.config, tables, evaluations, settings.encoding)
        arm = start_run(
            loaded.model,
            prepared,
            directory,
            settings,
            objective=DistillationObjective(
                weights=LossWeights(1.0, 0.0, 0.0),
                label_smoothing=settings.label_smoothing,
                **settled.objective_options(loaded.tokenizer),
            ),
            seed=seed,
            kind="finetune",
            origin=loaded.provenance(),
            title=f"fine-tune {chosen.name}" if progress else None,
        )
        return _run(arm)


def distill(
    teacher: str,
    *,
    strategy: str | None,
    task: str,
    train: str,
    out: str | Path,
    layers: int | None = None,
    width: int | None = None,
    init: str = "random",
    layer_map: Mapping[Stream, Sequence[tuple[int, int]]] | None = None,
    copy_blocks: CopyBlocks | None = None,
    validation: Sequence[str] = (),
    data: DataSettings | None = None,
    settings: TrainSettings | None = None,
    load: LoadOptions | None = None,
    if_exists: IfExists = "refuse",
    progress: bool = False,
    **plan_options: Any,  # noqa: ANN401 - `weights`, `hidden_loss`, `reading`, ... of the plan, checked there
) -> RunResult:
    """Make a student of a teacher and train it under one layer-matching strategy.

    Args:
        teacher: directory, run directory or hub id of a trained teacher.
        strategy: a name in `matching.STRATEGIES`; None with a `layer_map`.
        task: a name in `tasks.TASKS`.
        train: table of training examples, as `tables.read_table` takes it.
        out: the run's directory.
        layers: blocks of the student.
        width: the student's width, if it has its own.
        init: "random" or "teacher".
        layer_map: the user's own matching, by stream.
        copy_blocks: the user's own copy map.
        validation: tables, each `SOURCE` or `NAME=SOURCE`; the first one validates during training.
        data: columns by name.
        settings: of the training; what they leave open is the task's.
        load: what is allowed in loading.
        if_exists: what to do with a run that is already there: "refuse", "resume" or "overwrite".
        progress: whether to show a bar.
        plan_options: `weights`, `hidden_loss`, `reading`, `train_adapters`, `freeze_embeddings`, `match_streams` of
            `plan.plan_distillation`.

    Raises:
        InputError: something that was given is wrong; nothing was written.
        RunError: a loss stopped being finite.
    """
    chosen = task_by_name(task)
    settings = settings or TrainSettings()
    settings = settings.completed(epochs=chosen.student_epochs, learning_rate=chosen.student_learning_rate)
    source = checkpoint_of(teacher)
    with RunDirectory(out, if_exists) as directory:
        config = load_config(source, load)
        plan = plan_run(
            config,
            settings,
            directory,
            teacher=teacher,
            strategy=strategy,
            layers=layers,
            width=width,
            init=init,
            layer_map=layer_map,
            copy_blocks=copy_blocks,
            **plan_options,
        )
        loaded, prepared = load_teacher_and_data(
            source,
            config,
            chosen,
            train=train,
            validation=validation,
            data=data,
            encoding=settings.encoding,
            load=load,
        )
        title = f"distill {plan.strategy} from {plan.init}" if progress else None
        return _run(build_arm(loaded, prepared, plan, directory, settings, title=title))


def load_teacher_and_data(
    source: str,
    config: PretrainedConfig,
    task: Task,
    *,
    train: str,
    validation: Sequence[str],
    data: DataSettings | None,
    encoding: EncodingSettings,
    load: LoadOptions | None,
) -> tuple[TaskModel, PreparedData]:
    """Return a trained teacher and the tables in its tokens; what is quick to refuse comes first.

    Args:
        source: a checkpoint.
        config: its configuration.
        task: what is learnt.
        train: the training table.
        validation: the evaluation tables.
        data: columns by name.
        encoding: how many tokens examples may have.
        load: what is allowed in loading.
    """
    task.check_config(config, source)
    tables, evaluations = read_tables(task, train, validation, data)
    settled = task.for_teacher(tables, config)
    loaded = load_trained(source, settled, load)
    prepared = prepare_data(settled, loaded.tokenizer, loaded.model.config, tables, evaluations, encoding)
    return loaded, prepared


def plan_run(
    config: PretrainedConfig,
    settings: TrainSettings,
    directory: RunDirectory,
    **options: Any,  # noqa: ANN401
) -> DistillationPlan:
    """Return the plan of a run, with the settings that decide its result recorded in it.

    Args:
        config: the teacher's.
        settings: completed; their seed is the plan's.
        directory: of the run. Resumed without a seed, a random order is the one drawn when the run began.
        options: as `plan.plan_distillation` takes them.
    """
    seed = settings.seed
    if seed is None and directory.resumes and directory.started:
        seed = DistillationPlan.from_json(directory.plan(), f"the plan of {directory.path}").seed
    training = settings.decisive()
    plan = plan_distillation(config, seed=seed, training=training, **options)
    if settings.lora is not None and plan.init == "random":
        raise InputError(
            "--lora-rank came with a random initialisation, whose frozen weights would stay random",
            "take --init teacher (of a sweep: --inits teacher)",
        )
    return plan


LoadedTables = tuple[TextTable, list[TextTable]]


def read_tables(task: Task, train: str, validation: Sequence[str], data: DataSettings | None) -> LoadedTables:
    """Return the training table and the evaluation tables, whose names come from `evaluation_sources`."""
    named = evaluation_sources(validation)
    if "train" in named:
        raise InputError("a validation table is called 'train'", f"name it otherwise: validation={named['train']}")
    tables = task.read(train, data)
    return tables, [task.read(source, data, name=name) for name, source in named.items()]


def evaluate(
    checkpoints: Sequence[str],
    *,
    task: str,
    data: Sequence[str],
    columns: DataSettings | None = None,
    scoring: ScoringSettings | None = None,
    batch_size: int = 64,
    load: LoadOptions | None = None,
) -> pd.DataFrame:
    """Score trained models; a run directory of this task as the run scored it, where nothing else is asked for.

    Args:
        checkpoints: directories, run directories or hub ids.
        task: a name in `tasks.TASKS`.
        data: tables, each `SOURCE` or `NAME=SOURCE`.
        columns: columns by name.
        scoring: lengths and generation; what they leave open is the run's, or the task's.
        batch_size: examples of one forward pass.
        load: device, precision and what is allowed in loading.

    Returns:
        A row for each checkpoint and table: `checkpoint`, `data`, `examples` and the task's scores. The frame's
        `attrs["scoring"]` says, by table, how they were computed (sacreBLEU's signatures, beams), `attrs["settings"]`,
        by checkpoint, what was taken from its run.

    Raises:
        InputError: a checkpoint that cannot be loaded or has no head, or a label that it does not know.
    """
    chosen = task_by_name(task)
    if not checkpoints or not data:
        raise InputError("nothing to evaluate: give at least one checkpoint and one table")
    if batch_size < 1:
        raise InputError(f"the batch size is {batch_size}", allowed="allowed: at least 1")
    asked = scoring or ScoringSettings()
    taken = {source: run_scoring(source, chosen.name) for source in checkpoints}
    tables = [chosen.read(source, columns, name=name) for name, source in evaluation_sources(data).items()]
    rows: list[dict[str, Any]] = []
    notes: dict[str, Any] = {}
    for source in checkpoints:
        settings = asked.or_else(taken[source])
        loaded = load_trained(source, chosen, load)
        config, tokenizer = loaded.model.config, loaded.tokenizer
        settled = chosen.for_trained(config)
        encoding = settled.encoding(settings.encoding, tokenizer, config)
        for table in tables:
            examples = settled.tokenize(table, tokenizer, encoding, config, training=False)
            with quiet_transformers():
                report = settled.score(
                    loaded.model, examples, tokenizer, batch_size=batch_size, generation=settings.generation
                )
            rows.append({"checkpoint": source, "data": table.name, **report.scores})
            notes[table.name] = dict(report.notes)
    frame = pd.DataFrame(rows)
    frame.attrs["scoring"] = notes
    frame.attrs["settings"] = {
        source: {name: value for name, value in found.given().items() if getattr(asked, name) is None}
        for source, found in taken.items()
        if found.given()
    }
    return frame


def _run(arm: Arm) -> RunResult:
    """Train and finish, unless the run was finished before."""
    if arm.directory.resumes and arm.directory.finished:
        return stored_result(arm.directory)
    arm.train()
    return finish_arm(arm)
