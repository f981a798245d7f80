"""`anglekit sweep`: train all strategies x initialisations x seeds over one teacher, run once a batch for all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anglekit.distillation.losses.weights import LossWeights
from anglekit.distillation.matching.plain_plan import check_plain_attention, check_plain_plan
from anglekit.distillation.settings import check_cacheable
from anglekit.errors import InputError
from anglekit.readings import check_reading
from anglekit.settings_fields import OUTPUT, STUDENT
from anglekit.vocabulary import CONTROLS, INITS, NONE, PAPER_STRATEGIES, RANDOM_TEACHER, STRATEGIES
from anglekit_cli import options

if TYPE_CHECKING:
    from anglekit.distillation.sweep.sweep import SweepResult

_MOST_SEEDS = 1000

EPILOG = (
    "Example: anglekit sweep teacher --strategies none,forward,reverse,all-to-one,random --inits random,teacher "
    "--seeds 0-4 --layers 3 --task sst2 --train train.tsv --validation dev.tsv --out runs/sweep"
)


@options.takes_settings
def sweep(
    teacher: options.Teacher,
    *,
    task: options.Task,
    train: options.Train,
    out: Annotated[
        Path,
        typer.Option(
            help="Directory of the sweep: scores, and a run directory for each student.", rich_help_panel=OUTPUT
        ),
    ],
    strategies: Annotated[
        str,
        typer.Option(metavar="NAMES", help=f"Some of {', '.join(STRATEGIES)}, with commas.", rich_help_panel=STUDENT),
    ] = ",".join(PAPER_STRATEGIES),
    inits: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="random, teacher or random,teacher.",
            show_default="both; random alone with --width; neither with --student",
            rich_help_panel=STUDENT,
        ),
    ] = None,
    student: options.Students = None,
    seeds: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Of initialisation, dropout and random draws: 0,1,2 or 0-4.",
            show_default="0; one is drawn for strategies that draw",
            rich_help_panel=STUDENT,
        ),
    ] = None,
    controls: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Control arms, with commas, one for each init and seed: alone learns from labels only; random-teacher "
            "is as forward (or else the first strategy that matches layers) with the hidden states of an untrained "
            "teacher.",
            rich_help_panel=STUDENT,
        ),
    ] = None,
    side_by_side: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Students that train at the same time, in each process. Each takes about three times its weights in "
            "memory with adamw (four with --accumulation); the teacher runs once a batch for all of them. Changes no "
            "result.",
            rich_help_panel=STUDENT,
        ),
    ] = 10,
    stop_hopeless: Annotated[
        bool,
        typer.Option(
            "--stop-hopeless",
            help="Stop strategies that surely end more than a point below the best one, judged at every validation "
            "over all seeds of an init, which train side by side; wrong in at most 5% of sweeps (see the documentation "
            "for what that assumes). The others are the same without it.",
            rich_help_panel=STUDENT,
        ),
    ] = False,
    geometry: options.GeometryToRead = None,
    layers: options.Layers = None,
    encoder_layers: options.EncoderLayers = None,
    decoder_layers: options.DecoderLayers = None,
    width: options.Width = None,
    copy: options.Copy = None,
    weights: Annotated[LossWeights, options.Options(prefix="alpha_")],
    hidden_loss: options.HiddenLoss = "mse",
    reading: options.Reading = "corrected",
    match_streams: options.MatchStreams = None,
    validation: options.Validation = None,
    columns: options.Columns,
    settings: options.SweepTraining,
    order_per_seed: Annotated[
        bool,
        typer.Option(
            "--order-per-seed",
            help="Give each seed its own order of the data, --data-seed + seed; seeds then share no teacher pass.",
            rich_help_panel=STUDENT,
        ),
    ] = False,
    placement: options.TeacherPlacement,
    resume: options.Resume = False,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
    load: options.Loading,
) -> None:
    """Train strategies x initialisations x seeds over one teacher.

    The teacher runs once a batch for all of them.

    Each student is the one that its own `distill` run would give, in a run directory under its arm's name, as
    forward-random-seed0. Beside them: scores.csv and sweep.json. A killed sweep goes on with --resume, also with more
    seeds, strategies, initialisations or controls than before.

    Several processes share the students, each with a teacher and a device of its own, and give the same ones:
    accelerate launch --multi_gpu --num_processes 2 -m anglekit_cli sweep ... (--multi_gpu also on processors; torchrun
    does as well). A sweep may go on with another number of processes.
    """
    mode = options.if_exists(resume, overwrite, out, of_sweep=True)
    chosen_strategies, chosen_inits = options.names_of("--strategies", strategies), options.names_of("--inits", inits)
    options.check_names("--strategies", chosen_strategies, tuple(STRATEGIES))
    options.check_names("--inits", chosen_inits, INITS)
    options.check_strategies(chosen_strategies or (), geometry, copy)
    chosen_controls = options.names_of("--controls", controls)
    options.check_names("--controls", chosen_controls, CONTROLS)
    options.check_losses(hidden_loss, reading, chosen_strategies or ())
    check_cacheable(settings.teacher_cache, reading=reading, hidden_loss=hidden_loss, weight=weights.hidden)
    options.check_task(task, columns, settings, scored=bool(validation))
    check_reading(reading, task)
    options.check_teaching(
        settings,
        weights,
        hidden_loss=hidden_loss,
        matches=set(chosen_strategies or ()) != {NONE} or RANDOM_TEACHER in (chosen_controls or ()),
        match_streams=match_streams,
    )
    if stop_hopeless:
        options.check_effects({"--stop-hopeless": not validation}, "came without --validation, on which it works")
        if settings.max_steps is not None and (settings.evaluate_every or 0.0) >= 1.0:
            from anglekit.distillation.sweep.stopping import check_looks

            # Of steps, not of a part of an epoch, how many they are does not depend on the table.
            check_looks(settings.evaluation_steps(0) or 1, settings.max_steps, by_epoch=False)
    chosen_seeds = parse_seeds(seeds)
    streams_matched = options.names_of("--match-streams", match_streams)
    made: dict[str, object] = {} if inits else {"--layers": layers, "--width": width, "--copy": copy}
    made |= {} if inits else {"--encoder-layers": encoder_layers, "--decoder-layers": decoder_layers}
    given = options.check_students(teacher, student or (), made)
    options.check_sources(given)
    options.check_sources([teacher], task=task, load=load)
    if inits or not given:
        check_plain_plan(
            teacher,
            layers=layers,
            encoder_layers=encoder_layers,
            decoder_layers=decoder_layers,
            width=width,
            copy_map=copy,
        )
    for one in (*given, *([None] if inits or not given else [])):
        heads, made_width = settings.relation_heads, width if one is None else None
        check_plain_attention(teacher, hidden_loss=hidden_loss, relation_heads=heads, width=made_width, student=one)
    options.check_sources([], [train], validation, columns=columns, task=task, labelled_by=[teacher])
    settings.check_packages()

    from anglekit.distillation.matching.map_text import parse_copy_map
    from anglekit.distillation.sweep.sweep import SweepError
    from anglekit.distillation.sweep.sweep import sweep as run
    from anglekit.models.architectures import model_streams
    from anglekit.models.checkpoints import checkpoint_of, load_config
    from anglekit.runtime.processes import processes_apart

    shown = not quiet and not as_json
    with processes_apart() as processes:
        load = options.teacher_loading(load, settings, placement)
        if placement.device_map is not None and processes.count > 1:
            raise InputError(
                f"--teacher-device-map {placement.device_map!r} spreads one process's teacher over all devices, and "
                f"{processes.count} processes were launched",
                "start one, or leave the map out",
            )
        copied = (
            None if copy is None else parse_copy_map(copy, model_streams(load_config(checkpoint_of(teacher), load)))
        )
        try:
            result = run(
                teacher,
                strategies=chosen_strategies or (),
                inits=chosen_inits,
                students=student or (),
                seeds=chosen_seeds,
                copy_blocks=copied,
                task=task,
                train=train,
                out=out,
                layers=layers,
                encoder_layers=encoder_layers,
                decoder_layers=decoder_layers,
                width=width,
                validation=validation or (),
                data=columns,
                settings=settings,
                load=load,
                if_exists=mode,
                side_by_side=side_by_side,
                order_per_seed=order_per_seed,
                controls=chosen_controls or (),
                stop_hopeless=stop_hopeless,
                processes=processes,
                progress=shown,
                warn=lambda warning: typer.echo(f"warning: {warning}", err=True) if shown else None,
                note=lambda said: typer.echo(f"note: {said}", err=True) if shown else None,
                weights=weights,
                hidden_loss=hidden_loss,
                reading=reading,
                match_streams=streams_matched,
                geometry=geometry,
            )
        except SweepError as error:
            # Print the scores of the other arms before the one line about those that failed.
            if processes.first:
                _print_result(error.result, quiet=quiet, as_json=as_json)
            raise
    if processes.first:
        _print_result(result, quiet=quiet, as_json=as_json)


def parse_seeds(text: str | None) -> tuple[int, ...] | None:
    """Return the seeds in a list as `0,1,2` or `0-4` or both, in its order.

    Raises:
        InputError: something that is neither a number nor a range, or a range that is too long or runs backwards.
    """
    if text is None:
        return None
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = (piece.strip() for piece in part.partition("-"))
        if not (first.isdecimal() and (last.isdecimal() or not dash)):
            raise InputError(
                f"--seeds is {text!r}", allowed="allowed: numbers from 0 and ranges of them, as 0,1,2 or 0-4"
            )
        low, high = int(first), int(last or first)
        if not low <= high < low + _MOST_SEEDS:
            raise InputError(
                f"--seeds holds the range {part.strip()!r}", allowed=f"allowed: upwards, at most {_MOST_SEEDS} seeds"
            )
        seeds += range(low, high + 1)
    return tuple(seeds)


def _print_result(result: SweepResult, *, quiet: bool, as_json: bool) -> None:
    """Print the scores of all arms, how long it took and where it is."""
    if as_json:
        rows = json.loads(result.scores.to_json(orient="records"))
        content = {
            "directory": result.directory,
            "checkpoints": {name: arm.checkpoint for name, arm in result.arms.items()},
            "scores": rows,
            "failed": dict(result.failed),
            "stopped": dict(result.stopped),
            "steps": result.steps,
            "steps_saved": result.steps_saved,
            "warnings": list(result.warnings),
            "teacher_passes": result.teacher_passes,
            "teacher_answers": result.teacher_answers,
            "untrained_passes": result.untrained_passes,
            "untrained_answers": result.untrained_answers,
            "seconds": round(result.seconds, 3),
        }
        typer.echo(json.dumps(content))
    elif not quiet:
        from anglekit.display.counts import counted
        from anglekit.display.tables import aligned_text, frame_table

        if len(result.scores):
            frame = result.scores.assign(seconds=result.scores["seconds"].round(1))
            if (frame["steps"] == frame["selected_step"]).all():
                frame = frame.drop(columns="selected_step")
            typer.echo(aligned_text(frame_table(frame)))
        # A sweep whose arms were all finished before ran no teacher.
        shared = "".join(
            f", {who} {passes} times where separate runs take {answers}"
            for who, passes, answers in (
                ("the teacher", result.teacher_passes, result.teacher_answers),
                ("untrained ones", result.untrained_passes, result.untrained_answers),
            )
            if passes
        )
        if result.stopped:
            typer.echo(
                f"{counted(len(result.stopped), 'student')} stopped as hopeless, {result.steps_saved:,} of "
                f"{result.steps:,} steps saved ({result.steps_saved / result.steps:.0%}): "
                + ", ".join(f"{name} at step {step}" for name, step in result.stopped.items())
            )
        typer.echo(f"{counted(len(result.arms), 'student')} in {result.seconds:.0f} s{shared}: {result.directory}")
        if result.arms:
            first = next(iter(result.arms.values()))
            typer.echo(options.columns_read(first.columns, first.notes), err=True)
            if left_out := first.left_out:
                typer.echo(options.rows_left_out(left_out), err=True)
