"""`anglekit sweep`: train all strategies x initialisations x seeds over one teacher, run once a batch for all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anglekit.errors import InputError
from anglekit_cli import training_options as option

if TYPE_CHECKING:
    import pandas as pd

    from anglekit.distillation.sweep.sweep import SweepResult

__all__ = ["parse_seeds", "sweep"]

_MOST_SEEDS = 1000

EPILOG = (
    "Example: anglekit sweep teacher --strategies none,forward,reverse,all-to-one,random --inits random,teacher "
    "--seeds 0-4 --layers 3 --task sst2 --train train.tsv --validation dev.tsv --out runs/sweep"
)


def sweep(
    teacher: Annotated[str, typer.Argument(metavar="TEACHER", help="Directory or hub id of a trained teacher.")],
    task: option.Task,
    train: option.Train,
    out: Annotated[Path, typer.Option(help="Directory of the sweep: scores, and a run directory for each student.")],
    strategies: Annotated[
        str, typer.Option(metavar="NAMES", help="Some of none, forward, reverse, all-to-one, random, with commas.")
    ] = "none,forward,reverse,all-to-one,random",
    inits: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES", help="random, teacher or random,teacher.", show_default="both; random alone with --width"
        ),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Of initialisation, dropout and random draws: 0,1,2 or 0-4.",
            show_default="0; one is drawn for strategy random",
        ),
    ] = None,
    side_by_side: Annotated[
        int,
        typer.Option(
            "--side-by-side",
            metavar="N",
            help="Students that train at the same time, in each process. Each takes about three times its weights in "
            "memory with adamw (four with --accumulation); the teacher runs once a batch for all of them. Changes no "
            "result.",
        ),
    ] = 10,
    layers: Annotated[int | None, typer.Option(help="Blocks of the students.", show_default="the teacher's")] = None,
    width: Annotated[
        int | None,
        typer.Option(help="A width below the teacher's; needs --inits random.", show_default="the teacher's"),
    ] = None,
    copy: Annotated[
        str | None,
        typer.Option(
            metavar="BLOCKS",
            help="The teacher block that each student block is copied from, counted from 0: 3,7,11.",
            show_default="the paper's",
        ),
    ] = None,
    alpha_ce: Annotated[float, typer.Option(help="Weight of the cross-entropy.")] = 1.0,
    alpha_kl: Annotated[float, typer.Option(help="Weight of the KL to the teacher's predictions.")] = 1.0,
    alpha_hidden: Annotated[float, typer.Option(help="Weight of the hidden loss.")] = 3.0,
    hidden_loss: Annotated[str, typer.Option(help="mse, normalized-mse, cosine or layer-norm-mse.")] = "mse",
    temperature: Annotated[float | None, typer.Option(help="Of the KL.", show_default="1")] = None,
    kl_direction: Annotated[
        str | None, typer.Option(help="forward: KL(teacher || student); reverse.", show_default="forward")
    ] = None,
    reading: Annotated[
        str, typer.Option(help="corrected, or official: normalised as in the paper's code.")
    ] = "corrected",
    match_streams: option.Match = None,
    validation: option.Validation = None,
    text: option.Text = None,
    text_pair: option.TextPair = None,
    label: option.Label = None,
    source: option.Source = None,
    target: option.Target = None,
    prefix: option.Prefix = None,
    prompt: option.Prompt = None,
    completion: option.Completion = None,
    choices: option.Choices = None,
    limit: option.Limit = None,
    epochs: option.Epochs = None,
    max_steps: option.MaxSteps = None,
    batch_size: option.BatchSize = 32,
    accumulation: option.Accumulation = 1,
    learning_rate: option.LearningRate = None,
    schedule: option.Schedule = "linear",
    warmup: option.Warmup = 0.0,
    optimizer: option.Optimizer = "adamw",
    weight_decay: option.WeightDecay = 0.0,
    max_grad_norm: option.MaxGradNorm = 1.0,
    precision: option.Precision = "float32",
    max_length: option.MaxLength = None,
    target_max_length: option.TargetMaxLength = None,
    loss_on_prompt: option.LossOnPrompt = False,
    kl_on_prompt: option.KlOnPrompt = None,
    beams: option.Beams = None,
    max_new_tokens: option.MaxNewTokens = None,
    length_penalty: option.LengthPenalty = 1.0,
    lora_rank: option.LoraRank = None,
    lora_alpha: option.LoraAlpha = 32.0,
    lora_dropout: option.LoraDropout = 0.1,
    lora_targets: option.LoraTargets = "all-linear",
    lora_merge: option.LoraMerge = False,
    group_by_length: option.GroupByLength = False,
    checkpoint_activations: option.CheckpointActivations = False,
    label_smoothing: option.LabelSmoothing = 0.0,
    data_seed: option.DataSeed = 0,
    order_per_seed: Annotated[
        bool,
        typer.Option(
            "--order-per-seed",
            help="Give each seed its own order of the data, --data-seed + seed; seeds then share no teacher pass.",
        ),
    ] = False,
    evaluate_every: option.EvaluateEvery = None,
    log_every: option.LogEvery = 50,
    select: option.Select = "last",
    device: option.Device = "auto",
    teacher_device: option.TeacherDevice = None,
    teacher_device_map: option.TeacherDeviceMap = None,
    workers: option.Workers = 0,
    tensorboard: option.TensorBoard = False,
    resume: option.Resume = False,
    overwrite: option.Overwrite = False,
    quiet: option.Quiet = False,
    as_json: option.AsJson = False,
    revision: option.Revision = None,
    allow_pickle: option.AllowPickle = False,
    trust_remote_code: option.TrustRemoteCode = False,
) -> None:
    """Train all strategies x initialisations x seeds over one teacher, run once a batch for all of them.

    Each student is the one that its own `distill` run would give, in a run directory under its arm's name, as
    forward-random-seed0. Beside them: scores.csv and sweep.json. A killed sweep goes on with --resume, also with more
    seeds, strategies or initialisations than before.

    Several processes share the students, each with a teacher and a device of its own, and give the same ones:
    accelerate launch --multi_gpu --num_processes 2 -m anglekit_cli sweep ... (--multi_gpu also on processors; torchrun
    does as well). A sweep may go on with another number of processes.
    """
    values = dict(locals())
    mode = option.if_exists(resume, overwrite)
    chosen_strategies, chosen_inits = option.names("strategies", strategies), option.names("inits", inits)
    chosen_seeds = parse_seeds(seeds)

    from anglekit.distillation.losses.weights import LossWeights
    from anglekit.distillation.matching.map_text import parse_copy_map
    from anglekit.distillation.sweep.sweep import SweepError
    from anglekit.distillation.sweep.sweep import sweep as run
    from anglekit.models.architectures import model_streams
    from anglekit.models.checkpoints import checkpoint_of, load_config
    from anglekit.runtime.processes import processes_apart

    shown = not quiet and not as_json
    with processes_apart() as processes:
        load = option.teacher_loading(values)
        if teacher_device_map is not None and processes.count > 1:
            raise InputError(
                f"--teacher-device-map {teacher_device_map!r} spreads one process's teacher over all devices, and "
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
                seeds=chosen_seeds,
                copy_blocks=copied,
                task=task,
                train=train,
                out=out,
                layers=layers,
                width=width,
                validation=validation or (),
                data=option.data_settings(values),
                settings=option.train_settings(values),
                load=load,
                if_exists=mode,
                side_by_side=side_by_side,
                order_per_seed=order_per_seed,
                processes=processes,
                progress=shown,
                warn=lambda warning: typer.echo(f"warning: {warning}", err=True) if shown else None,
                weights=LossWeights(alpha_ce, alpha_kl, alpha_hidden),
                hidden_loss=hidden_loss,
                reading=reading,
                match_streams=option.names("match-streams", match_streams),
            )
        except SweepError as error:
            # What the other arms reached, before the one line about those that failed.
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
        import json

        rows = json.loads(result.scores.to_json(orient="records"))
        content = {
            "directory": result.directory,
            "checkpoints": {name: arm.checkpoint for name, arm in result.arms.items()},
            "scores": rows,
            "failed": dict(result.failed),
            "warnings": list(result.warnings),
            "teacher_passes": result.teacher_passes,
            "teacher_answers": result.teacher_answers,
            "seconds": round(result.seconds, 3),
        }
        typer.echo(json.dumps(content))
    elif not quiet:
        from anglekit.display.tables import aligned_text, frame_table

        if len(result.scores):
            typer.echo(aligned_text(frame_table(_shown(result))))
        # A sweep whose arms were all finished before ran no teacher.
        shared = (
            f", the teacher {result.teacher_passes} times where separate runs take {result.teacher_answers}"
            if result.teacher_passes
            else ""
        )
        typer.echo(f"{len(result.arms)} students in {result.seconds:.0f} s{shared}: {result.directory}")


def _shown(result: SweepResult) -> pd.DataFrame:
    """Return the score table without columns that say the same in every row."""
    frame = result.scores.copy()
    frame["seconds"] = frame["seconds"].round(1)
    if (frame["steps"] == frame["selected_step"]).all():
        frame = frame.drop(columns="selected_step")
    return frame
