"""`anglekit push`: upload the model of a run that is finished."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from anglekit.distillation.settings import HubSettings, check_pushable
from anglekit.settings_fields import SettingError
from anglekit_cli import options

EPILOG = "Example: anglekit push runs/forward me/sst2-forward"


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
    private: Annotated[bool, options.option_of(HubSettings, "hub_private")] = False,
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
