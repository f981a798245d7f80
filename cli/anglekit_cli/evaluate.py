"""`anglekit evaluate`: score trained models on tables."""

from __future__ import annotations

from typing import Annotated

import typer

from anglekit.distillation.settings import ScoringSettings
from anglekit.models.load_options import LoadOptions
from anglekit_cli import options

EPILOG = "Example: anglekit evaluate teacher runs/forward runs/reverse --task sst2 --data dev.tsv"


@options.takes_settings
def evaluate(
    checkpoints: Annotated[
        list[str], typer.Argument(metavar="CHECKPOINT...", help="Directories, run directories or hub ids.")
    ],
    *,
    task: options.Task,
    data: Annotated[list[str], typer.Option(help="Table to score on, also NAME=TABLE; repeat it for more.")],
    columns: options.Columns,
    scoring: Annotated[ScoringSettings, options.Options()],
    batch_size: Annotated[int, typer.Option(help="Examples of a forward pass.")] = 64,
    load: Annotated[LoadOptions, options.Options()],
    as_json: options.AsJson = False,
) -> None:
    """Score trained models on one or more tables.

    A run directory is scored as the run scored it: with its lengths and its generation, where no option says otherwise.
    """
    options.check_sources(checkpoints, (), data, columns=columns, task=task)

    from anglekit.distillation.runs.evaluate import evaluate as run

    scores = run(checkpoints, task=task, data=data, columns=columns, scoring=scoring, batch_size=batch_size, load=load)
    if as_json:
        typer.echo(scores.to_json(orient="records"))
        return
    from anglekit.display.tables import aligned_text, frame_table

    typer.echo(aligned_text(frame_table(scores)))
    # sacreBLEU's signatures, each once: they say what the scores mean.
    signatures = dict.fromkeys(
        f"{name}: {text}"
        for notes in scores.attrs["scoring"].values()
        for name, text in notes.get("signatures", {}).items()
    )
    for line in signatures:
        typer.echo(line)
    for source, settings in scores.attrs["settings"].items():
        if settings:
            named = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in settings.items())
            typer.echo(f"{source}: scored with its run's settings: {named}", err=True)
