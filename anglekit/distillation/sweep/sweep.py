"""Train all strategies x initialisations x seeds over one teacher, whose answer to a batch is computed once."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd
from transformers import PretrainedConfig

from anglekit.distillation.matching.plan import DistillationPlan
from anglekit.distillation.matching.plan_warnings import comparison_warnings, plan_warnings
from anglekit.distillation.matching.strategies import draw_seed
from anglekit.distillation.runs.directory import IfExists, RunConfig, RunDirectory, now
from anglekit.distillation.runs.run import RunResult, check_distillation
from anglekit.distillation.runs.teacher_check import teacher_doubts
from anglekit.distillation.runs.train import check_control, load_teacher_and_data, plan_run
from anglekit.distillation.settings import DataSettings, TrainSettings
from anglekit.distillation.students.create import CopyBlocks, official_family
from anglekit.distillation.students.given import CheckedStudent, read_given
from anglekit.distillation.sweep.arms import ArmsInTraining, PlannedArm, share_arms, waves, waves_of_inits
from anglekit.distillation.sweep.directory import Arm, ArmRecord, SweepDirectory, SweepGrid, SweepRecord, shared_facts
from anglekit.distillation.sweep.looks import LookPlan, Looks, check_side_by_side, check_stopping
from anglekit.distillation.sweep.stopping import check_looks
from anglekit.distillation.tasks.models import ModelProvenance
from anglekit.distillation.tasks.prepared_data import PreparedData
from anglekit.distillation.tasks.registry import task_by_name
from anglekit.distillation.training.progress import SweepBar
from anglekit.errors import InputError, RunError
from anglekit.models.checkpoints import checkpoint_of, load_config, quiet_transformers
from anglekit.models.load_options import LoadOptions, loaded_for_training
from anglekit.readings import check_reading, decisions
from anglekit.runtime.launch import launched_together
from anglekit.runtime.processes import ALONE, Processes
from anglekit.settings_fields import one_or_more
from anglekit.vocabulary import DRAWN, INITS, RANDOM_TEACHER, WITHOUT_TEACHER, Reading, matches_layers

#: How many students train at the same time by default. With ten, each bears a tenth of the teacher's cost, so more
#: would gain little. Each takes about three times its weights in memory, with AdamW's two moments.
SIDE_BY_SIDE = 10


# What else a run's configuration holds: its own, or recorded with the plan.
_OF_AN_ARM = ("format", "kind", "seed", "settings", "given_sha256", "incidental")


@dataclass(frozen=True, eq=False)
class SweepResult:
    """What a sweep left behind.

    Attributes:
        directory: the sweep's; each arm's run directory lies in it under the arm's name.
        scores: a row for each finished arm and evaluation table: `strategy`, `init`, `seed`, `data`, `examples`, the
            task's scores, `steps`, `selected_step`, `seconds` (of the arm's own training, the teacher left out).
        arms: the results of finished arms by name, those that were finished before included.
        failed: by name, what ended the others.
        stopped: by name, the step at which arms were stopped as hopeless; 0 for those that were not begun.
        steps_saved: the optimiser steps that they did not take.
        steps: those of all arms of the sweep, if none had been stopped.
        warnings: what spoils a comparison of the arms; see `plan_warnings.comparison_warnings`.
        teacher_passes: forward passes of the teacher in this session.
        teacher_answers: the forward passes that separate runs would have taken for the same steps.
        untrained_passes: forward passes of untrained teachers (control `random-teacher`) in this session.
        untrained_answers: those that separate runs would have taken.
        teacher_seconds: the time of the passes of all teachers.
        seconds: of the whole session.
    """

    directory: str
    scores: pd.DataFrame
    arms: Mapping[str, RunResult]
    failed: Mapping[str, str]
    stopped: Mapping[str, int]
    steps_saved: int
    steps: int
    warnings: tuple[str, ...]
    teacher_passes: int
    teacher_answers: int
    untrained_passes: int
    untrained_answers: int
    teacher_seconds: float
    seconds: float


class SweepError(RunError):
    """Some arms of a sweep failed after the others were finished.

    Attributes:
        result: what the sweep left behind.
    """

    def __init__(self, result: SweepResult, resumable: bool) -> None:
        self.result = result
        reasons = "; ".join(f"{name} ({reason})" for name, reason in result.failed.items())
        advice = "; --resume tries them again from their last checkpoints" if resumable else ""
        super().__init__(
            f"{len(result.failed)} of {len(result.failed) + len(result.arms)} arms failed: {reasons}; "
            f"the others are finished in {result.directory}{advice}"
        )


def sweep(
    teacher: str,
    *,
    strategies: str | Sequence[str],
    task: str,
    train: str,
    out: str | Path,
    inits: Sequence[str] | None = None,
    students: Sequence[str] | Mapping[str, str] = (),
    seeds: Sequence[int] | None = None,
    layers: int | None = None,
    encoder_layers: int | None = None,
    decoder_layers: int | None = None,
    width: int | None = None,
    copy_blocks: CopyBlocks | None = None,
    validation: str | Sequence[str] = (),
    data: DataSettings | None = None,
    settings: TrainSettings | None = None,
    load: LoadOptions | None = None,
    if_exists: IfExists = "refuse",
    side_by_side: int = SIDE_BY_SIDE,
    order_per_seed: bool = False,
    controls: Sequence[str] = (),
    stop_hopeless: bool = False,
    processes: Processes = ALONE,
    learning_rates: Mapping[str, float] | None = None,
    progress: bool = False,
    warn: Callable[[str], None] = lambda _warning: None,
    note: Callable[[str], None] = lambda _note: None,
    **plan_options: Any,  # noqa: ANN401 - as `runs.distill` takes them
) -> SweepResult:
    """Train all strategies x initialisations x seeds over one teacher.

    Every arm ends as its own `distill` run would, bit for bit on a CPU, in a run directory of its own. Arms that see
    the same batches share the teacher's forward pass. Several processes share the arms, each with a teacher of its own.

    Args:
        teacher: directory, run directory or hub id of a trained teacher.
        strategies: names in `matching.STRATEGIES`, each once.
        task: a name in `tasks.TASKS`.
        train: table of training examples, as `tables.read_table` takes it.
        out: the sweep's directory.
        inits: of "random" and "teacher"; None takes both, or random alone for a student of its own width, or neither
            where students are given.
        students: students that are there already, beside those of the inits: sources by name, or entries that are each
            `SOURCE` or `NAME=SOURCE`. Each stands in the place of an init, as `given:NAME`; see `distill`.
        seeds: of initialisation, dropout and random draws. None draws one if a strategy draws (`vocabulary.DRAWN`) and
            takes 0 otherwise; a resumed sweep keeps its own.
        layers: blocks of the students that are made, in every stream.
        encoder_layers: those of their encoder alone; the decoder keeps its depth unless given too.
        decoder_layers: likewise.
        width: their width, if it has its own.
        copy_blocks: the user's own copy map, for the arms that copy.
        validation: tables, each `SOURCE` or `NAME=SOURCE`; the first one validates during training.
        data: columns by name.
        settings: of the training, without a seed; the task gives what they leave open.
        load: what is allowed in loading.
        if_exists: what to do with a sweep that is already there: "refuse", "resume" or "overwrite". A resumed sweep
            may have more arms than it had.
        side_by_side: how many students train at the same time, which bounds the memory; the result does not depend
            on it. With several processes, each trains this many.
        order_per_seed: whether each seed has an order of the data of its own, `settings.data_seed + seed`; arms of
            different seeds then share nothing.
        controls: names in `vocabulary.CONTROLS`, each once: for every initialisation and seed one student more, under
            the control's name. `random-teacher` is as `forward`, or else the first strategy that matches layers, and a
            resumed sweep keeps its own. Its untrained teacher takes as much memory as the teacher, one for each seed
            that trains at the same time.
        stop_hopeless: whether strategies that surely end below the best are stopped while they train, by the rule of
            `sweep.stopping`. All students of an initialisation then train side by side, in one process, with a
            validation table and a task of right or wrong answers. Those that are not stopped are the same without it. A
            resumed sweep trains stopped students no further unless this is False; see `looks`.
        processes: those that share the arms, from `processes.processes_apart`; each makes the same call.
        learning_rates: by strategy its own learning rate, as in the paper's scripts, which then is no longer the only
            thing that differs between strategies; a control has that of its strategy (`alone` that of none). None: one
            for all.
        progress: whether to show a bar over the steps of all arms that this process trains.
        warn: called with each warning before anything is trained, also with what speaks against the teacher's answers
            to a few training examples (`teacher_doubts`).
        note: called with what the sweep says before it trains, such as where given students' heads come from.
        plan_options: `weights`, `hidden_loss`, `reading`, `train_adapters`, `freeze_embeddings`, `adapter_bias`,
            `match_streams`, `geometry` of `plan.plan_distillation`.

    Raises:
        InputError: an argument is wrong; nothing was written.
        SweepError: arms failed; the others are finished.

    Example:
        >>> result = anglekit.sweep(
        ...     "runs/teacher", strategies=["none", "forward", "reverse"], seeds=range(3), layers=3, task="sst2",
        ...     train="train.tsv", validation="dev.tsv", out="runs/sweep",
        ... )
        >>> print(anglekit.compare("runs/sweep").headline.line)
    """
    start = time.perf_counter()
    strategies, controls = one_or_more(strategies), one_or_more(controls)
    inits, seeds = (None if each is None else one_or_more(each) for each in (inits, seeds))
    if side_by_side < 1:
        raise InputError(f"students side by side are {side_by_side}", allowed="allowed: at least 1")
    if launched_together():
        raise InputError(
            "this is one of several processes and would train all arms",
            "use the command, or call it inside anglekit.runtime.processes.processes_apart",
        )
    settings, load = settings or TrainSettings(), loaded_for_training(load)
    check_rates(learning_rates, (*strategies, *(("none",) if WITHOUT_TEACHER in controls else ())))
    if settings.seed is not None:
        raise InputError(f"the settings hold seed {settings.seed}", "a sweep takes its seeds by `seeds`")
    reading: Reading = plan_options.get("reading") or "corrected"
    check_reading(reading, task)
    chosen = task_by_name(task)
    if stop_hopeless:
        check_stopping(chosen, strategies, validated=bool(validation), processes=processes.count)
    settings = settings.completed(epochs=chosen.student_epochs, learning_rate=chosen.student_learning_rate)
    for control in controls:
        check_control(control, load)
    given = {one.init: one for one in read_given(teacher, students, load).values()}
    made = {"layers": layers, "encoder_layers": encoder_layers, "decoder_layers": decoder_layers, "width": width}
    came = [name.replace("_", "-") for name, value in made.items() if value is not None]
    if given and not inits and came:
        raise InputError(
            f"--{came[-1]} came with students that are there already",
            "leave it out, or add --inits for students that are made",
        )
    inits = (*(inits if inits is not None else () if given else INITS if width is None else ("random",)), *given)
    with ExitStack() as held:
        with processes.together():
            root = SweepDirectory(out, if_exists)
            grid = _grid(strategies, inits, seeds, controls, root)
            root.check_foreign(grid)
            if copy_blocks is not None and "teacher" not in grid.inits:
                raise InputError("a copy map came and no arm is copied from the teacher", "add 'teacher' to the inits")
            done = [arm.name for arm in grid.arms if root.resumes and root.run(arm, writes=False).finished]
            if stop_hopeless:
                check_side_by_side(grid.arms, {*done, *_stopped_before(root, grid)}, side_by_side)
        # A seed may have been drawn, and all processes must share the same arms.
        seeds, done = processes.gather([grid.seeds, done])[0]
        grid = replace(grid, seeds=tuple(seeds or ()))
        held.callback(root.remove_if_empty)
        with processes.together():
            directories = _directories(root, grid, done, processes, held)
            source = checkpoint_of(teacher)
            config = load_config(source, load)
            family, scores = official_family(config), chosen.allowed_scores
            check_reading(reading, task, family)
            settings = settings.under(reading, family, validates=bool(validation), scores=scores)
            chosen = chosen.read_as(decisions(reading, family)).scoring(settings.select_by)
            entries = [
                _planned(
                    arm,
                    grid.control_of.get(arm.strategy),
                    directories[arm],
                    config,
                    settings,
                    order_per_seed,
                    copy_blocks,
                    learning_rates or {},
                    {"teacher": teacher, **plan_options} | ({"given": given[arm.init]} if arm.init in given else made),
                )
                for arm in grid.arms
            ]
            loaded, prepared, opened = load_teacher_and_data(
                source,
                config,
                chosen,
                settings,
                tuple(given.values()),
                train=train,
                validation=validation,
                data=data,
                load=load,
            )
            entries = [replace(one, given=opened.get(one.arm.init)) for one in entries]
            origin = loaded.provenance()
            configs = [
                check_distillation(one.plan, prepared, one.directory, one.settings, origin, one.given)
                for one in entries
            ]
            warnings = (
                *_warnings([one.plan for one in entries]),
                *teacher_doubts(loaded, prepared, settings),
            )
            record = _record(root, grid, entries, settings, order_per_seed, configs[0], origin, warnings, opened)
            root.check_same(record)
            looks = _looks(root, grid, entries, settings, prepared, record) if stop_hopeless else None
            if looks is not None:
                record = _with_looks(record, looks)
        for student in opened.values() if processes.first else ():
            note(student.in_words())
        for warning in warnings if processes.first else ():
            warn(warning)
        if looks is not None and looks.stopped:
            names = ", ".join(arm.name for arm in looks.stopped)
            note(f"not trained, as their strategy was stopped as hopeless: {names}")
        root.begin(record, [one for one in directories.values() if one.writes], processes)
        elsewhere = {one.arm: one.directory for one in entries if not one.directory.writes}
        running = ArmsInTraining(root, grid.arms, elsewhere, writes=processes.first, looks=looks)
        with processes.together():
            for one in entries:
                if root.resumes and one.directory.writes and one.directory.finished:
                    running.keep(one.arm, RunResult.stored(one.directory))
                    one.directory.close()
            pending = [one for one in entries if one.directory.writes and one.arm not in running.results]
            if looks is not None:
                pending = [one for one in pending if one.arm not in looks.stopped]
            # Around all of them: each arm's own silence ends while others still train.
            scored = sum(map(prepared.task.scoring_passes, prepared.evaluations.values()))
            bar = SweepBar(
                len(pending),
                steps=settings.steps(len(prepared.train)),
                scored=scored,
                step_examples=settings.batch_size * settings.accumulation,
                shown=progress and processes.first,
            )
            with bar, quiet_transformers():
                for wave in (waves if looks is None else waves_of_inits)(pending, side_by_side):
                    running.train(wave, loaded, prepared, origin, bar)
        failed = {name: reason for found in processes.gather(running.failures()) for name, reason in found.items()}
        sessions = processes.gather(running.session())
        session = {name: round(sum(each[name] for each in sessions), 3) for name in sessions[0]}
        with processes.together():
            running.look_elsewhere()
            result = SweepResult(
                str(root.path),
                running.scores(),
                {arm.name: running.results[arm] for arm in grid.arms if arm in running.results},
                {arm.name: failed[arm.name] for arm in grid.arms if arm.name in failed},
                {} if looks is None else {arm.name: looks.stopped[arm] for arm in grid.arms if arm in looks.stopped},
                0 if looks is None else looks.steps_saved,
                len(grid.arms) * settings.steps(len(prepared.train)),
                warnings,
                seconds=time.perf_counter() - start,
                **session,
            )
            if processes.first:
                finished = None if result.failed else now()
                record = record if looks is None else _with_looks(record, looks)
                root.write(
                    msgspec.structs.replace(record, failed=dict(result.failed), last_session=session, finished=finished)
                )
    if result.failed:
        raise SweepError(result, settings.resumable) from next(iter(running.errors.values()), None)
    return result


def _stopped_before(root: SweepDirectory, grid: SweepGrid) -> dict[str, int]:
    """Return the arms that are stopped when a sweep goes on, by name, and the step of each.

    A strategy is stopped with all its seeds: those that were added since are not begun.
    """
    stored = root.stored.stopped if root.resumes and root.stored is not None else {}
    stopped = {(arm.strategy, arm.init) for arm in root.stored_arms if arm.name in stored}
    return {arm.name: stored.get(arm.name, 0) for arm in grid.arms if (arm.strategy, arm.init) in stopped}


def _looks(
    root: SweepDirectory,
    grid: SweepGrid,
    entries: Sequence[PlannedArm],
    settings: TrainSettings,
    prepared: PreparedData,
    record: SweepRecord,
) -> Looks:
    """Return what stops hopeless arms.

    Raises:
        InputError: no validation comes before the last step, or the best checkpoint is that of another score.
    """
    examples = len(prepared.train)
    steps = settings.steps(examples)
    every = settings.evaluation_steps(examples) or replace(settings, max_steps=None, epochs=1.0).steps(examples)
    score, best = prepared.task.selection_score, settings.select == "best"
    if best and settings.select_by not in (None, score):
        raise InputError(
            f"--stop-hopeless came with checkpoints that are selected by {settings.select_by}, and judges by {score}",
            f"--select last, or --select-by {score}",
        )
    check_looks(every, steps, by_epoch=settings.evaluate_every is None)
    judged: dict[str, dict[str, list[Arm]]] = {}
    for arm in grid.arms:
        if matches_layers(arm.strategy):
            judged.setdefault(arm.init, {}).setdefault(arm.strategy, []).append(arm)
    plan = LookPlan(
        score=score,
        data=next(iter(prepared.evaluations)),
        every=every,
        steps=steps,
        best=best,
        arms=judged,
    )
    stopped = _stopped_before(root, grid)
    kept = root.stored.stopping if root.resumes and root.stored is not None else msgspec.UNSET
    training = {one.arm: one.directory.training for one in entries}
    return Looks(
        plan,
        stopped={arm: stopped[arm.name] for arm in grid.arms if arm.name in stopped},
        looks=() if isinstance(kept, msgspec.UnsetType) else kept.looks,
        answers=training.__getitem__,
        told=lambda looks: root.write(_with_looks(record, looks)),
    )


def _with_looks(record: SweepRecord, looks: Looks) -> SweepRecord:
    """Return what sweep.json holds after a look."""
    stopped = {arm.name: step for arm, step in looks.stopped.items()}
    return msgspec.structs.replace(record, stopped=stopped, stopping=looks.record)


def _directories(
    root: SweepDirectory, grid: SweepGrid, done: Sequence[str], processes: Processes, held: ExitStack
) -> dict[Arm, RunDirectory]:
    """Return the directories of all arms; this process holds those that it trains or is responsible for.

    The first process is responsible for arms that are done and for those removed because the sweep is overwritten.
    """
    own = set(share_arms([arm for arm in grid.arms if arm.name not in done], processes.count)[processes.rank])
    replaced: list[Arm] = []
    if processes.first:
        own |= {arm for arm in grid.arms if arm.name in done}
        replaced = [arm for arm in root.replaced_arms if arm not in grid.arms]
    writes = own.union(replaced)
    return {arm: held.enter_context(root.run(arm, writes=arm in writes)) for arm in (*grid.arms, *replaced)}


def _grid(
    strategies: Sequence[str],
    inits: Sequence[str],
    seeds: Sequence[int] | None,
    controls: Sequence[str],
    root: SweepDirectory,
) -> SweepGrid:
    if seeds is None and root.resumes:
        seeds = tuple(dict.fromkeys(arm.seed for arm in root.stored_arms)) or None
    if seeds is None:
        seeds = (draw_seed() if any(name in DRAWN for name in strategies) else 0,)
    # Another strategy may have been added since; what random-teacher was begun with does not change.
    begun = root.stored.control_of.get(RANDOM_TEACHER) if root.resumes and root.stored else None
    return SweepGrid(tuple(strategies), tuple(inits), tuple(seeds), tuple(controls), begun)


def _planned(
    arm: Arm,
    control_of: str | None,
    directory: RunDirectory,
    config: PretrainedConfig,
    settings: TrainSettings,
    order_per_seed: bool,
    copy_blocks: CopyBlocks | None,
    learning_rates: Mapping[str, float],
    options: Mapping[str, Any],
) -> PlannedArm:
    data_seed = settings.data_seed + arm.seed if order_per_seed else settings.data_seed
    rate = learning_rates.get(control_of or arm.strategy, settings.learning_rate)
    own = replace(settings, seed=arm.seed, data_seed=data_seed, learning_rate=rate)
    copied = {"copy_blocks": copy_blocks} if arm.init == "teacher" else {}
    named = {"strategy": arm.strategy} if control_of is None else {"strategy": control_of, "control": arm.strategy}
    start = {} if "given" in options else {"init": arm.init}
    plan = plan_run(config, own, directory, **start, **named, **copied, **options)
    return PlannedArm(arm, directory, own, plan)


def check_rates(learning_rates: Mapping[str, float] | None, strategies: Sequence[str]) -> None:
    """Refuse learning rates by strategy that leave one of the strategies out.

    Raises:
        InputError: naming it.
    """
    missing = [name for name in strategies if learning_rates and name not in learning_rates]
    if missing and learning_rates:
        raise InputError(
            f"no learning rate is recorded for strategy {missing[0]!r}; there are those of {', '.join(learning_rates)}",
            "take one rate for all (reproduce --equal-rates), or give its own (learning_rates)",
        )


def _warnings(plans: Sequence[DistillationPlan]) -> tuple[str, ...]:
    """Return each plan's warnings once, and those about the arms together."""
    single = [warning for plan in plans for warning in plan_warnings(plan)]
    # Where the order of the data depends on the seed, it is the same for every strategy.
    compared = [
        msgspec.structs.replace(plan, training={k: value for k, value in plan.training.items() if k != "data_seed"})
        for plan in plans
    ]
    return tuple(dict.fromkeys([*single, *comparison_warnings(compared)]))


def _record(
    root: SweepDirectory,
    grid: SweepGrid,
    entries: Sequence[PlannedArm],
    settings: TrainSettings,
    order_per_seed: bool,
    config: RunConfig,
    origin: ModelProvenance,
    warnings: Sequence[str],
    given: Mapping[str, CheckedStudent],
) -> SweepRecord:
    """Return what sweep.json holds when a sweep begins."""
    student = shared_facts([one.plan for one in entries])
    return SweepRecord(
        arms=[ArmRecord(one.arm.name, **asdict(one.arm), data_seed=one.settings.data_seed) for one in entries],
        student=student | {"data_seed": settings.data_seed, "order_per_seed": order_per_seed},
        control_of=grid.control_of,
        data={name: value for name, value in msgspec.to_builtins(config).items() if name not in _OF_AN_ARM},
        teacher=origin,
        students={one.given.name: one.provenance for one in given.values()},
        warnings=list(warnings),
        begun=root.stored.begun if root.resumes and root.stored else now(),
    )
