"""`anglekit finetune`: train a model, a teacher-to-be."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from anglekit.readings import check_reading
from anglekit.vocabulary import READINGS
from anglekit_cli import options
from anglekit_cli.commands.push import publish

if TYPE_CHECKING:
    from anglekit.distillation.runs.run import RunResult

EPILOG = "Example: anglekit finetune bert-base-uncased --task sst2 --train train.tsv --validation dev.tsv --out teacher"


@options.takes_settings
def finetune(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Directory or hub id of a model, with or without a head.")
    ],
    *,
    task: options.Task,
    train: options.Train,
    out: options.Out,
    validation: options.Validation = None,
    columns: options.Columns,
    settings: options.FineTuning,
    reading: options.Reading = "corrected",
    resume: options.Resume = False,
    overwrite: options.Overwrite = False,
    hub: options.Publishing,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
    load: options.Loading,
) -> None:
    """Train a model on a task and score it."""
    options.check_names("--reading", [reading], READINGS)
    check_reading(reading, task)
    mode = options.if_exists(resume, overwrite, out)
    options.check_task(task, columns, settings, scored=bool(validation))
    options.check_sources([model], [train], validation, columns=columns, task=task, load=load)
    settings.check_packages()
    hub.check_here()

    from anglekit.distillation.runs.train import finetune as run

    result = run(
        model,
        task=task,
        train=train,
        out=out,
        validation=validation or (),
        data=columns,
        settings=settings,
        load=load,
        reading="official" if reading == "official" else "corrected",
        if_exists=mode,
        progress=not quiet and not as_json,
    )
    print_result(result, quiet=quiet, as_json=as_json)
    publish(result.directory, hub, quiet=quiet or as_json)


def print_result(result: RunResult, *, quiet: bool, as_json: bool) -> None:
    """Print a run's scores and where its checkpoint is."""
    if as_json:
        rows = result.scores.to_dict(orient="records")
        typer.echo(json.dumps({"checkpoint": result.checkpoint, "steps": result.steps, "scores": rows}))
    elif not quiet:
        from anglekit.display.counts import counted
        from anglekit.display.tables import aligned_text, frame_table

        if len(result.scores):
            typer.echo(aligned_text(frame_table(result.scores)))
        kept = "" if result.selected_step == result.steps else f", the best at step {result.selected_step}"
        typer.echo(f"{counted(result.steps, 'step')} in {result.train_seconds:.0f} s{kept}: {result.checkpoint}")
        typer.echo(options.columns_read(result.columns, result.notes), err=True)
        if left_out := result.left_out:
            typer.echo(options.rows_left_out(left_out), err=True)
