"""`anglekit compare`: does layer selection matter here? Geometries, sweeps and runs against a stated margin."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from anglekit_cli import options

EPILOG = "Example: anglekit compare runs/sweep geometry --score-margin 0.005 --out comparison.md"

_SUFFIXES = {".txt": "full", ".csv": "csv", ".md": "markdown", ".tex": "latex", ".json": "json"}
_PRINTED = ("terminal", "csv", "markdown", "latex")


def compare(
    directories: options.Directories,
    angle_margin: options.AngleMargin = 2.0,
    score_margin: options.ScoreMargin = None,
    form: Annotated[
        str,
        typer.Option("--format", help="What to print: terminal, csv (every paired difference), markdown or latex."),
    ] = "terminal",
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write it to a file too: .txt, .csv, .md, .tex or .json by its suffix."),
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Print every table and note; without it, at most 25 lines.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file of --out if it is there.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the first line only.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as json.")] = False,
) -> None:
    """Answer whether layer selection matters here.

    The first line is the verdict on the task's own score: equivalent, different, or undecided and then what would
    decide it; the second has the score of the teacher and of every strategy. The angles stand beneath. Strategies are
    compared under the same initialisation, paired by seed and example.
    """
    options.check_form(form, _PRINTED, as_json=as_json)
    if out is None:
        options.check_effects({"--overwrite": overwrite}, "came without --out")
    options.check_effects({"--full": full and (quiet or as_json or form != _PRINTED[0])}, "is about the printed tables")
    if out is not None:
        options.check_target(out, "a comparison's file", tuple(_SUFFIXES))
        options.check_new(out, overwrite=overwrite)

    from anglekit.comparison.compare import compare as run
    from anglekit.runtime.files import write_whole

    comparison = run(directories, margin=angle_margin, score_margin=score_margin)
    if out is not None:
        write_whole(out, comparison.text(_SUFFIXES[out.suffix.lower()]))
    if as_json:
        typer.echo(comparison.text("json"), nl=False)
    elif quiet:
        typer.echo(comparison.headline.line)
    else:
        typer.echo(comparison.text("full" if full and form == "terminal" else form), nl=False)
