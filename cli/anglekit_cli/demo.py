"""`anglekit demo`: the recipe `builtin-inference`, the whole story on built-in data."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from anglekit_cli.reproduce import run_and_print

EPILOG = "Example: anglekit demo --out demo --seed 1. What it runs: anglekit reproduce builtin-inference --show"


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
