"""`anglekit reproduce` and `demo`: an experiment in one command, from the teacher to the figure."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anglekit.distillation.settings import TrainSettings
from anglekit.errors import InputError
from anglekit.runtime.placement import AUTO
from anglekit.vocabulary import READINGS
from anglekit_cli import options
from anglekit_cli.commands.sweep import parse_seeds
from anglekit_cli.process import only_new_garbage

if TYPE_CHECKING:
    from anglekit.recipes.reproduce import Reproduction

EPILOG = (
    "Examples: anglekit reproduce --list; anglekit reproduce mnli --dry-run; anglekit reproduce mnli --out mnli "
    "--scale 0.01; anglekit reproduce sst2 --base-model bert --train train.tsv --validation dev.tsv --out sst2"
)


DEMO_EPILOG = "Example: anglekit demo --out demo --seed 1. What it runs: anglekit reproduce builtin-inference --show"


def reproduce(
    recipe: Annotated[
        str | None, typer.Argument(metavar="RECIPE", help="A name of --list, or the path of a .yaml file.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Directory of everything that is made. What is there of the same recipe goes on where it stopped."
        ),
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="Print the recipes that come with anglekit.")] = False,
    show: Annotated[bool, typer.Option("--show", help="Print the recipe's file, to read or to edit.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan with tokens, FLOPs and memory; load no weights.")
    ] = False,
    scale: Annotated[float, typer.Option(help="The fraction of the training steps to make, as 0.01.")] = 1.0,
    teacher: Annotated[
        str | None,
        typer.Option(
            "--base-model",
            metavar="MODEL",
            help="Directory or hub id to train the teacher from, in place of the recipe's.",
        ),
    ] = None,
    trained_teacher: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Directory or hub id of a teacher that is trained already.")
    ] = None,
    train: Annotated[
        str | None, typer.Option(metavar="FILE", help="Training table in place of the recipe's, with its columns.")
    ] = None,
    validation: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="Table to score on in place of the recipe's, also NAME=FILE; repeat it."),
    ] = None,
    probe: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Table that the geometry is measured on.",
            show_default="the recipe's, or the first --validation",
        ),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="Of the students: 0,1,2 or 0-4.", show_default="the recipe's"),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            help="Of everything random: teacher, order of the data, students.",
            show_default="the recipe's",
        ),
    ] = None,
    reading: Annotated[
        str | None,
        typer.Option(
            help="corrected, or official: the whole run as a careful one, or as the paper's code has it.",
            show_default="the recipe's",
        ),
    ] = None,
    equal_rates: Annotated[
        bool,
        typer.Option(
            "--equal-rates", help="One learning rate for all strategies, also where the paper's scripts have several."
        ),
    ] = False,
    device: Annotated[str, options.option_of(TrainSettings, "device")] = AUTO,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Remove what is in the directory and start again.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no table.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result, or the plan, as json.")] = False,
) -> None:
    """Run an experiment of the paper from teacher to figure.

    It trains the teacher and the students, scores them, measures the geometry, draws the figure and puts the published
    numbers beside. Started again with the same recipe and options, it goes on where it stopped.
    """
    if listed:
        _print_list(as_json)
        return
    if recipe is None:
        raise InputError("no recipe came", "name one of `anglekit reproduce --list`, or give a .yaml file")
    if show:
        from anglekit.recipes.recipe_files import recipe_file

        typer.echo(recipe_file(recipe).read_text(encoding="utf-8"), nl=False)
        return
    if out is None and not dry_run:
        raise InputError("--out is missing", "name a directory, or plan with --dry-run")
    chosen_seeds = parse_seeds(seeds)
    options.check_names("--reading", [reading] if reading is not None else (), READINGS)
    options.check_sources(
        [one for one in (teacher, trained_teacher) if one is not None],
        [one for one in (train, probe) if one is not None],
        validation,
    )

    from anglekit.recipes.own_sources import with_own_sources
    from anglekit.recipes.recipe_files import load_recipe

    chosen = with_own_sources(
        load_recipe(recipe),
        teacher=teacher,
        trained_teacher=trained_teacher,
        train=train,
        validation=validation or (),
        probe=probe,
        seeds=chosen_seeds,
        seed=seed,
        reading=next((one for one in READINGS if one == reading), None),
        equal_rates=equal_rates,
    )
    if dry_run or out is None:
        from anglekit.recipes.dry_run import dry_run as plan

        planned = plan(chosen, scale=scale)
        typer.echo(json.dumps(planned.summary()) if as_json else planned.text())
        return

    from anglekit.recipes.reproduce import reproduce as run

    started = partial(run, chosen, out, scale=scale, device=device, overwrite=overwrite)
    run_and_print(started, quiet=quiet, as_json=as_json)


def demo(
    out: Annotated[
        Path, typer.Option(help="Directory of everything that the demo makes; an interrupted demo in it goes on.")
    ] = Path("anglekit-demo"),
    seed: Annotated[
        int, typer.Option(help="Of everything random: weights, order of the data, the random matching.")
    ] = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Remove the demo in the directory and start again.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no table.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as json.")] = False,
) -> None:
    """Show the whole story on built-in data, in minutes.

    It trains a teacher and ten students, measures their geometry, draws Figure 1 and answers the question: about three
    and a half minutes on one CPU core; nothing is downloaded.
    """
    from anglekit.recipes.reproduce import run_demo

    run_and_print(partial(run_demo, out, seed=seed, overwrite=overwrite), quiet=quiet, as_json=as_json)


def run_and_print(run: Callable[..., Reproduction], *, quiet: bool, as_json: bool) -> None:
    """Run what takes `progress`, `say` and `warn` as `anglekit.recipes.reproduce.reproduce` does; print its result."""
    shown = not quiet and not as_json
    with only_new_garbage():
        result = run(
            progress=shown,
            say=lambda line: typer.echo(line, err=True) if shown else None,
            warn=lambda warning: typer.echo(f"warning: {warning}", err=True) if shown else None,
        )
    if as_json:
        typer.echo(json.dumps(result.summary()))
    elif not quiet:
        several = len(result.verdicts) > 1
        lines = [
            *(f"{variant}: {said.text}" if several else said.text for variant, said in result.verdicts.items()),
            result.text,
            *(f"warning: {warning}" for warning in result.warnings),
            "",
            f"Figure: {Path(result.directory) / 'figure.png'}",
            f"{sum(result.seconds.values()) / 60:.1f} minutes: {result.directory}",
        ]
        typer.echo("\n".join(lines))


def _print_list(as_json: bool) -> None:
    from anglekit.display.tables import TextTable, aligned_text
    from anglekit.recipes.recipe_files import recipe_rows

    rows = recipe_rows()
    if as_json:
        typer.echo(json.dumps(rows))
        return
    columns = ("name", "teacher", "students", "published", "title")
    cells = tuple(tuple(row[column] for column in columns) for row in rows)
    typer.echo(aligned_text(TextTable("", columns, cells)))
