"""`anglekit finetune`: train a model, a teacher-to-be. `anglekit push`: upload the model of a run that is finished."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anglekit.distillation.settings import HubSettings, check_pushable
from anglekit.settings_fields import OUTPUT, SettingError
from anglekit_cli import options

if TYPE_CHECKING:
    from anglekit.distillation.runs.run import RunResult

EPILOG = "Example: anglekit finetune bert-base-uncased --task sst2 --train train.tsv --validation dev.tsv --out teacher"

PUSH_EPILOG = "Example: anglekit push runs/forward me/sst2-forward"


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
    resume: options.Resume = False,
    overwrite: options.Overwrite = False,
    hub: options.Publishing,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
    load: options.Loading,
) -> None:
    """Train a model on a task and score it."""
    mode = options.if_exists(resume, overwrite, out)
    options.check_sources([model], [train], validation, columns=columns, task=task, revision=load.revision)
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
        typer.echo(options.columns_read(result.columns), err=True)


def publish(run: str | Path, hub: HubSettings, *, quiet: bool) -> None:
    """Upload the model of a finished run, if that was asked for; of processes that were launched together one does."""
    if hub.push_to_hub is None or os.environ.get("RANK", "0") != "0":
        return
    from anglekit.distillation.runs.publish import push_to_hub

    address = push_to_hub(run, hub.push_to_hub, private=hub.hub_private, progress=not quiet)
    if not quiet:
        typer.echo(f"pushed to {address}", err=True)


def push(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Directory of a finished run of finetune or distill.")],
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Where to: made if it is not there.")],
    private: Annotated[
        bool, typer.Option("--private", help="Make a new repository private.", rich_help_panel=OUTPUT)
    ] = False,
    quiet: options.Quiet = False,
) -> None:
    """Upload a finished run's model to the Hugging Face Hub.

    Its model card goes with it, and names the repository.
    """
    try:
        check_pushable(run, repository)
    except SettingError as error:
        raise error.named("OWNER/NAME") from error
    publish(run, HubSettings(repository, private), quiet=quiet)
