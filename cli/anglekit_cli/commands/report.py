"""`anglekit report`: everything that was found as one page to read and to send."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from anglekit.settings_fields import FIGURE, HARDWARE, OUTPUT
from anglekit_cli import options

EPILOG = "Example: anglekit report geometry runs/sweep --out report.html"


def report(
    directories: options.Directories,
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="Where to write it: a file that ends in .html.", rich_help_panel=OUTPUT)
    ],
    title: Annotated[
        str, typer.Option(help="The page's heading.", rich_help_panel=FIGURE)
    ] = "Teacher layers seen from the student",
    task_name: options.TaskNames = None,
    angle_margin: options.AngleMargin = 2.0,
    score_margin: options.ScoreMargin = None,
    processes: Annotated[
        int | None,
        typer.Option(
            help="Processes that draw.",
            show_default="one for each core, where there is work for it",
            rich_help_panel=HARDWARE,
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the file if it is there.", rich_help_panel=OUTPUT)
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress; print nothing but errors.", rich_help_panel=OUTPUT)
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print what was written and the verdict as json.", rich_help_panel=OUTPUT)
    ] = False,
) -> None:
    """Write everything that was found as one HTML page.

    First the verdict, then scores, sizes and speeds, then the angles beside chance, which can be looked into cell by
    cell; figures, tables, settings and warnings are folded. The page needs no network and can be read without script,
    in light and dark, on a telephone and on paper.
    """
    options.check_target(out, "a report's file", (".html", ".htm"))
    options.check_new(out, overwrite=overwrite)

    from tqdm import tqdm

    from anglekit.display.counts import counted
    from anglekit.report.build import build_report
    from anglekit.runtime.files import write_whole

    with tqdm(desc="drawing", unit=" figures", leave=False, disable=quiet or as_json or None) as bar:

        def tick(phrase: str) -> None:
            bar.set_postfix_str(phrase)
            bar.update()

        built = build_report(
            directories,
            labels=task_name or None,
            title=title,
            margin=angle_margin,
            score_margin=score_margin,
            tick=tick,
            workers=processes,
        )
    write_whole(out, built.html)
    if as_json:
        comparison = built.findings.comparison
        document = {
            "out": str(out),
            "bytes": len(built.html.encode()),
            "verdict": None if comparison is None else comparison.verdict,
            "headline": built.headline.line,
            "beneath": list(built.headline.beneath),
            "figures": list(built.figures),
            "not_drawn": list(built.not_drawn),
            "warnings": list(built.warnings),
        }
        typer.echo(json.dumps(document, ensure_ascii=False))
    elif not quiet:
        typer.echo(built.headline.text)
        counts = f"{counted(len(built.figures), 'figure')}, {counted(len(built.warnings), 'warning')}"
        typer.echo(f"Written to {out}: {counts}.")
