"""Fine-tune a model or distil a student: a whole run, from a source to a finished run directory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PretrainedConfig, set_seed

from anglekit.distillation.losses.objective import DistillationObjective
from anglekit.distillation.losses.weights import LossWeights
from anglekit.distillation.matching.plan import DistillationPlan, plan_distillation
from anglekit.distillation.runs.directory import IfExists, RunDirectory
from anglekit.distillation.runs.run import RunResult, begin_distillation, begin_run
from anglekit.distillation.runs.teacher_check import teacher_doubts
from anglekit.distillation.settings import (
    DataSettings,
    TrainSettings,
    check_cacheable,
    check_watched,
    evaluation_sources,
)
from anglekit.distillation.students.create import CopyBlocks, official_family
from anglekit.distillation.students.given import CheckedStudent, GivenStudent, check_given, open_given, read_given
from anglekit.distillation.students.given_vocabulary import check_stored_vocabulary
from anglekit.distillation.tasks.data import TextTable, known_of
from anglekit.distillation.tasks.models import TaskModel, load_for_fine_tuning, load_trained
from anglekit.distillation.tasks.prepared_data import PreparedData, prepare_data
from anglekit.distillation.tasks.registry import task_by_name
from anglekit.distillation.tasks.task import Task
from anglekit.distillation.training.angle_callback import AngleCallback
from anglekit.errors import InputError
from anglekit.models.checkpoints import Checkpoint, checkpoint_name, checkpoint_of, load_config
from anglekit.models.load_options import LoadOptions, loaded_for_training
from anglekit.probes.data import read_probe
from anglekit.readings import check_reading, decisions
from anglekit.results.scores import ANGLES_FOLDER
from anglekit.vocabulary import RANDOM_TEACHER, RELATION_HEADS_OF, Reading, Stream


def finetune(
    model: str,
    *,
    task: str,
    train: str,
    out: str | Path,
    validation: str | Sequence[str] = (),
    data: DataSettings | None = None,
    settings: TrainSettings | None = None,
    load: LoadOptions | None = None,
    if_exists: IfExists = "refuse",
    progress: bool = False,
    reading: Reading = "corrected",
) -> RunResult:
    """Train a model (a directory or hub id, with or without a head) on a task: a teacher-to-be.

    All other arguments are as for `distill`; the reading decides what `readings.READING_ITEMS` says of a teacher.

    Raises:
        InputError: something that was given is wrong; nothing was written.
        RunError: the loss stopped being finite.

    Example:
        >>> run = anglekit.finetune(
        ...     "bert-base-uncased", task="sst2", train="train.tsv", validation="dev.tsv", out="runs/teacher"
        ... )
        >>> run.checkpoint
        'runs/teacher/checkpoint'
    """
    check_reading(reading, task)
    chosen = task_by_name(task).configured(data)
    settings, load = settings or TrainSettings(), loaded_for_training(load)
    settings = settings.completed(epochs=chosen.teacher_epochs, learning_rate=chosen.teacher_learning_rate)
    source = checkpoint_of(model)
    with RunDirectory(out, if_exists) as directory:
        config = load_config(source, load)
        chosen.check_config(config, source)
        family, scores = official_family(config), chosen.allowed_scores
        check_reading(reading, task, family)
        settings = settings.under(reading, family, validates=bool(validation), scores=scores, of_teacher=True)
        chosen = chosen.read_as(decisions(reading, family)).scoring(settings.select_by)
        tables, evaluations = _read_tables(chosen, train, validation, data, stream=settings.stream)
        settled = chosen.for_fine_tuning(known_of(tables), config)
        set_seed(settings.seed or 0)
        loaded = load_for_fine_tuning(source, settled, load)
        prepared = prepare_data(settled, loaded.tokenizer, loaded.model.config, tables, evaluations, settings.encoding)
        run = begin_run(
            loaded.model,
            prepared,
            directory,
            settings,
            objective=DistillationObjective(
                weights=LossWeights(1.0, 0.0, 0.0),
                label_smoothing=settings.label_smoothing,
                **settled.objective_options(loaded.tokenizer),
                **settled.label_losses(settings, prepared.train),
            ),
            origin=loaded.provenance(),
            title=f"fine-tune {chosen.name}" if progress else None,
        )
        return run.complete()


def distill(
    teacher: str,
    *,
    strategy: str | None,
    task: str,
    train: str,
    out: str | Path,
    layers: int | None = None,
    encoder_layers: int | None = None,
    decoder_layers: int | None = None,
    width: int | None = None,
    init: str | None = None,
    student: str | None = None,
    layer_map: Mapping[Stream, Sequence[tuple[int, int]]] | None = None,
    copy_blocks: CopyBlocks | None = None,
    control: str | None = None,
    validation: str | Sequence[str] = (),
    data: DataSettings | None = None,
    settings: TrainSettings | None = None,
    load: LoadOptions | None = None,
    if_exists: IfExists = "refuse",
    progress: bool = False,
    angles_every: int | None = None,
    probe: str | None = None,
    note: Callable[[str], None] = lambda _note: None,
    warn: Callable[[str], None] = lambda _warning: None,
    **plan_options: Any,  # noqa: ANN401 - `weights`, `hidden_loss`, `reading`, ... of the plan, checked there
) -> RunResult:
    """Make a student of a teacher and train it under one layer-matching strategy.

    Args:
        teacher: directory, run directory or hub id of a trained teacher.
        strategy: a name in `vocabulary.STRATEGIES`; None with a `layer_map`, and for the control `alone`.
        task: a name in `tasks.TASKS`.
        train: table of training examples, as `tables.read_table` takes it.
        out: the run's directory.
        layers: blocks of the student, in every stream.
        encoder_layers: those of its encoder alone; the decoder keeps its depth unless given too.
        decoder_layers: likewise.
        width: the student's width, if it has its own.
        init: "random" or "teacher"; None: random.
        student: a student that is there already: the directory, run directory or hub id of any checkpoint of the
            teacher's kind, or `NAME=SOURCE`. It keeps its shape and its weights, and its init is `given:NAME`. Layers
            are matched by relative depth; where the widths differ, adapters are trained. Its head is kept if it is the
            task's, and made anew if it has none.
        layer_map: the user's own matching, by stream.
        copy_blocks: the user's own copy map.
        control: a name in `vocabulary.CONTROLS`: the student is not the strategy's own but a control of it.
        validation: tables, one or several, each `SOURCE` or `NAME=SOURCE`; the first one validates during training.
        data: columns by name.
        settings: of the training; the task gives what they leave open.
        load: what is allowed in loading.
        if_exists: what to do with a run that is already there: "refuse", "resume" or "overwrite".
        progress: whether to show a bar.
        angles_every: measure the angles at the student before training, after every so many steps and at the end, on
            `probe`; each Geometry is kept in `angles` in the run's directory. Training is the same without it.
        probe: table of the texts for that.
        note: called with what the run says before it trains, such as where a given student's head comes from.
        warn: called with what speaks against the teacher's answers to a few training examples (`teacher_doubts`). The
            run's provenance has it too.
        plan_options: `weights`, `hidden_loss`, `reading`, `train_adapters`, `freeze_embeddings`, `adapter_bias`,
            `match_streams`, `geometry` of `plan.plan_distillation`.

    Raises:
        InputError: something that was given is wrong; nothing was written.
        RunError: a loss stopped being finite.

    Example:
        >>> run = anglekit.distill(
        ...     "runs/teacher", strategy="forward", layers=3, init="teacher", task="sst2", train="train.tsv",
        ...     validation="dev.tsv", out="runs/forward", settings=anglekit.TrainSettings(epochs=2, seed=1),
        ... )
        >>> run.scores  # a pandas frame: a row for each evaluation table
    """
    reading: Reading = plan_options.get("reading") or "corrected"
    check_reading(reading, task)
    chosen = task_by_name(task)
    settings, load = settings or TrainSettings(), loaded_for_training(load)
    settings = settings.completed(epochs=chosen.student_epochs, learning_rate=chosen.student_learning_rate)
    check_control(control, load)
    check_watched(angles_every, probe)
    source = checkpoint_of(teacher)
    with RunDirectory(out, if_exists) as directory:
        config = load_config(source, load)
        family, scores = official_family(config), chosen.allowed_scores
        check_reading(reading, task, family)
        settings = settings.under(reading, family, validates=bool(validation), scores=scores)
        chosen = chosen.read_as(decisions(reading, family)).scoring(settings.select_by)
        given = None if student is None else next(iter(read_given(teacher, [student], load).values()))
        plan = plan_run(
            config,
            settings,
            directory,
            teacher=teacher,
            strategy=strategy,
            layers=layers,
            encoder_layers=encoder_layers,
            decoder_layers=decoder_layers,
            width=width,
            init=init,
            layer_map=layer_map,
            copy_blocks=copy_blocks,
            control=control,
            given=given,
            **plan_options,
        )
        students = () if given is None else (given,)
        loaded, prepared, opened = load_teacher_and_data(
            source, config, chosen, settings, students, train=train, validation=validation, data=data, load=load
        )
        for one in opened.values() if directory.writes else ():
            note(one.in_words())
        doubts = teacher_doubts(loaded, prepared, settings)
        for doubt in doubts if directory.writes else ():
            warn(doubt)
        title = f"distill {plan.strategy} from {plan.init}" if progress else None
        run = begin_distillation(
            loaded, prepared, plan, directory, settings, given=opened.get(plan.init), title=title, doubts=doubts
        )
        if angles_every is not None and probe is not None:
            read = data or DataSettings()
            texts = read_probe(
                probe, text=read.text, text_pair=read.text_pair, target=read.target, column_names=read.names
            )
            seen = Checkpoint.of(loaded.model, loaded.tokenizer, name=checkpoint_name(teacher))
            AngleCallback(
                seen,
                texts,
                every=angles_every,
                out=directory.path / ANGLES_FOLDER,
                # As `analyze` calls a run's student, so that the runs of one figure are told apart.
                name=directory.path.resolve().name,
                training=run.note,
            ).attach(run.trainer)
        return run.complete()


def check_control(control: str | None, load: LoadOptions | None) -> None:
    """Refuse an untrained teacher beside one that no single device holds.

    Raises:
        InputError: the control is `random-teacher` and the teacher is spread over devices.
    """
    spread = None if load is None else load.placement.device_map
    if control == RANDOM_TEACHER and spread is not None:
        raise InputError(
            f"control {RANDOM_TEACHER} makes an untrained teacher on one device, and --teacher-device-map {spread!r} "
            "spreads the trained one",
            "leave one of the two out",
        )


def load_teacher_and_data(
    source: str,
    config: PretrainedConfig,
    task: Task,
    settings: TrainSettings,
    students: Sequence[GivenStudent] = (),
    *,
    train: str,
    validation: str | Sequence[str],
    data: DataSettings | None,
    load: LoadOptions | None,
) -> tuple[TaskModel, PreparedData, dict[str, CheckedStudent]]:
    """Return the trained teacher of a checkpoint, the tables in its tokens, and given students by initialisation.

    Quick refusals come first.
    """
    task = task.configured(data)
    task.check_config(config, source)
    tables, evaluations = _read_tables(task, train, validation, data, stream=settings.stream)
    settled = task.for_teacher(known_of(tables), config)
    for student in students:
        check_given(config, student, settled)
        check_stored_vocabulary(source, student.source, load)
    loaded = load_trained(source, settled, load)
    prepared = prepare_data(settled, loaded.tokenizer, loaded.model.config, tables, evaluations, settings.encoding)
    opened = {student.init: open_given(student, prepared, loaded.model.config) for student in students}
    return loaded, prepared, opened


def plan_run(
    config: PretrainedConfig,
    settings: TrainSettings,
    directory: RunDirectory,
    **options: Any,  # noqa: ANN401
) -> DistillationPlan:
    """Return the plan of a run, with the settings that decide its result recorded in it.

    A resumed run without a given seed keeps the seed with which it began, which may have been drawn. The options are
    those of `plan.plan_distillation`.
    """
    seed = settings.seed
    if seed is None and directory.resumes and directory.started:
        seed = directory.plan().seed
    plan = plan_distillation(config, seed=seed, training=settings.decisive(), **options)
    if settings.lora_rank is not None and plan.init == "random":
        raise InputError(
            "--lora-rank came with a random initialisation, whose frozen weights would stay random",
            "take --init teacher (of a sweep: --inits teacher)",
        )
    check_cacheable(
        settings.teacher_cache, reading=plan.reading, hidden_loss=plan.hidden_loss, weight=plan.weights.hidden
    )
    if settings.relation_heads is not None and plan.hidden_loss != RELATION_HEADS_OF:
        raise InputError(
            f"--relation-heads came without --hidden-loss {RELATION_HEADS_OF}, the only one that has any",
            "leave it out",
        )
    return plan


def _read_tables(
    task: Task, train: str, validation: str | Sequence[str], data: DataSettings | None, *, stream: bool = False
) -> tuple[TextTable, list[TextTable]]:
    """Return the training table and the evaluation tables, whose names come from `evaluation_sources`."""
    named = evaluation_sources(validation)
    if "train" in named:
        raise InputError("a validation table is called 'train'", f"name it otherwise: validation={named['train']}")
    tables = task.stream(train, data) if stream else task.read(train, data)
    return tables, [task.read(source, data, name=name) for name, source in named.items()]
