"""`anglekit demo`: the whole story on built-in data, within four minutes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from anglekit.recipes.demo import DemoResult

__all__ = ["EPILOG", "demo"]

EPILOG = "Example: anglekit demo --out demo --seed 1"


def demo(
    out: Annotated[Path, typer.Option(help="Directory of everything that the demo makes.")] = Path("anglekit-demo"),
    seed: Annotated[int, typer.Option(help="Of weights, order of the data and the random matching.")] = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the demo in the directory, finished or not.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar and no table.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as json.")] = False,
) -> None:
    """Train a teacher and ten students on built-in data, measure their geometry, draw Figure 1, answer the question.

    At most four minutes on two CPU cores; nothing is downloaded.
    """
    from anglekit.recipes.demo import run_demo

    result = run_demo(out, seed=seed, overwrite=overwrite, progress=not quiet and not as_json)
    if as_json:
        import json

        typer.echo(json.dumps(result.summary()))
    elif not quiet:
        typer.echo(report(result))


def report(result: DemoResult) -> str:
    """Return the score table, the warnings, the answer and where to look next."""
    inits = [one.init for one in result.comparisons]
    strategies = ["none", *result.comparisons[0].matched]
    column = {one.init: {"none": one.baseline, **one.matched} for one in result.comparisons}
    width = max(len(name) for name in strategies)
    steps = int(result.scores["steps"].iloc[-1])
    return "\n".join(
        [
            "",
            f"accuracy on the validation split: teacher {result.teacher_accuracy:.1%}, students after {steps} steps",
            "",
            f"{'strategy':<{width}}" + "".join(f"  {'from ' + init:>12}" for init in inits),
            *(f"{name:<{width}}" + "".join(f"  {column[init][name]:>12.1%}" for init in inits) for name in strategies),
            "",
            *(f"warning: {warning}" for warning in result.warnings),
            result.sentence,
            "",
            f"{result.seconds['total']:.0f} s. Figure: {result.directory}/figure1.png; "
            f"numbers: {result.directory}/scores.csv, {result.directory}/geometry",
        ]
    )
