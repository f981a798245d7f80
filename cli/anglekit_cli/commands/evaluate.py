"""`anglekit evaluate`: score trained models on tables."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anglekit.distillation.settings import DataSettings, ScoringSettings
from anglekit.models.load_options import LoadOptions
from anglekit.settings_fields import DATA, HARDWARE, OUTPUT
from anglekit_cli import options

if TYPE_CHECKING:
    import pandas as pd

EPILOG = "Example: anglekit evaluate teacher runs/forward runs/reverse --task sst2 --data dev.tsv"


@options.takes_settings
def evaluate(
    checkpoints: Annotated[
        list[str], typer.Argument(metavar="CHECKPOINT...", help="Directories, run directories or hub ids.")
    ],
    *,
    task: options.Task,
    data: Annotated[
        list[str], typer.Option(help="Table to score on, also NAME=TABLE; repeat it for more.", rich_help_panel=DATA)
    ],
    columns: options.Columns,
    scoring: Annotated[ScoringSettings, options.Options()],
    batch_size: Annotated[int, typer.Option(help="Examples of a forward pass.", rich_help_panel=HARDWARE)] = 64,
    load: Annotated[LoadOptions, options.Options()],
    examples: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write what each example adds to the scores: .parquet or .csv.", rich_help_panel=OUTPUT
        ),
    ] = None,
    glue_submission: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write the files that GLUE's test server takes into this directory, and score nothing: --data are the "
            "test tables, of mnli the matched one first.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Replace the files of --examples or --glue-submission if they are there.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Score trained models on one or more tables.

    A run directory is scored as the run scored it: with its lengths and its generation, where no option says otherwise.
    """
    options.check_task(task, columns, scoring)
    if examples is None and glue_submission is None:
        options.check_effects({"--overwrite": overwrite}, "came without --examples")
    if glue_submission is not None:
        options.check_effects({"--examples": examples is not None, "--json": as_json}, "came with --glue-submission")
        _submit(glue_submission, checkpoints, task, data, columns, scoring, batch_size, load, overwrite=overwrite)
        return
    options.check_sources(checkpoints, (), data, columns=columns, task=task, load=load, labelled_by=checkpoints)
    if examples is not None:
        options.check_target(examples, "a file of examples", (".parquet", ".csv"), "--examples")
        options.check_new(examples, overwrite=overwrite)

    from anglekit.distillation.runs.evaluate import evaluate as run

    found = run(checkpoints, task=task, data=data, columns=columns, scoring=scoring, batch_size=batch_size, load=load)
    if examples is not None:
        from anglekit.runtime.files import write_whole

        write_whole(examples, _content(found.examples, examples.suffix.lower()))
    scores = found.scores
    if as_json:
        # pandas' own json has ten decimals.
        rows = scores.astype(object).where(scores.notna(), None).to_dict(orient="records")
        typer.echo(json.dumps(rows))
        return
    from anglekit.display.tables import aligned_text, frame_table

    typer.echo(aligned_text(frame_table(scores)))
    if len(found.labels):
        typer.echo(aligned_text(frame_table(found.labels)))
    # sacreBLEU's signatures, each once: they say what the scores mean.
    signatures = dict.fromkeys(
        f"{name}: {text}" for notes in found.scoring.values() for name, text in notes.get("signatures", {}).items()
    )
    for line in signatures:
        typer.echo(line)
    typer.echo(options.columns_read(found.columns, found.notes), err=True)
    if found.left_out:
        typer.echo(options.rows_left_out(found.left_out), err=True)
    for source, settings in found.settings.items():
        if settings:
            named = ", ".join(
                f"{name.replace('_', ' ')} {value if isinstance(value, str) else format(value, 'g')}"
                for name, value in settings.items()
            )
            typer.echo(f"{source}: scored with its run's settings: {named}", err=True)


def _submit(
    directory: Path,
    checkpoints: list[str],
    task: str,
    data: list[str],
    columns: DataSettings,
    scoring: ScoringSettings,
    batch_size: int,
    load: LoadOptions,
    *,
    overwrite: bool,
) -> None:
    """Write the files of a submission."""
    # Not `check_sources`, which looks at labels: a test table has none.
    from anglekit.distillation.runs.glue_submission import GLUE_FILES, check_submission
    from anglekit.distillation.runs.glue_submission import glue_submission as run
    from anglekit.runtime.files import write_whole

    check_submission(task, checkpoints, data)
    for name in GLUE_FILES[task]:
        options.check_new(directory / name, overwrite=overwrite)
    found = run(
        checkpoints[0],
        task=task,
        data=data,
        columns=columns,
        max_length=scoring.max_length,
        batch_size=batch_size,
        load=load,
    )
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in found.items():
        write_whole(directory / name, content)
        typer.echo(str(directory / name))


def _content(examples: pd.DataFrame, suffix: str) -> str | bytes:
    if suffix == ".csv":
        return examples.to_csv(index=False)
    buffer = io.BytesIO()
    examples.to_parquet(buffer, index=False)
    return buffer.getvalue()
