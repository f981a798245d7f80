"""The `anglekit` command: gathers the subcommands and turns errors into one line and an exit code."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from anglekit.errors import AnglekitError
from anglekit_cli.analyze import EPILOG as ANALYZE_EPILOG
from anglekit_cli.analyze import analyze
from anglekit_cli.compare import EPILOG as COMPARE_EPILOG
from anglekit_cli.compare import compare
from anglekit_cli.demo import EPILOG as DEMO_EPILOG
from anglekit_cli.demo import demo
from anglekit_cli.distill import EPILOG as DISTILL_EPILOG
from anglekit_cli.distill import distill
from anglekit_cli.evaluate import EPILOG as EVALUATE_EPILOG
from anglekit_cli.evaluate import evaluate
from anglekit_cli.finetune import EPILOG as FINETUNE_EPILOG
from anglekit_cli.finetune import finetune
from anglekit_cli.plan import plan
from anglekit_cli.plot import plot
from anglekit_cli.reproduce import EPILOG as REPRODUCE_EPILOG
from anglekit_cli.reproduce import reproduce
from anglekit_cli.sweep import EPILOG as SWEEP_EPILOG
from anglekit_cli.sweep import sweep

app = typer.Typer(
    name="anglekit",
    help="See a teacher's layers from inside its student: angles, layer matching and distillation.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from anglekit import __version__

        typer.echo(f"anglekit {__version__}")
        raise typer.Exit


@app.callback()
def root(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """See a teacher's layers from inside its student: angles, layer matching and distillation."""


app.command("demo", epilog=DEMO_EPILOG)(demo)
app.command("analyze", epilog=ANALYZE_EPILOG)(analyze)
app.command("finetune", epilog=FINETUNE_EPILOG)(finetune)
app.command("plan")(plan)
app.command("distill", epilog=DISTILL_EPILOG)(distill)
app.command("sweep", epilog=SWEEP_EPILOG)(sweep)
app.command("evaluate", epilog=EVALUATE_EPILOG)(evaluate)
app.command("plot")(plot)
app.command("compare", epilog=COMPARE_EPILOG)(compare)
app.command("reproduce", epilog=REPRODUCE_EPILOG)(reproduce)


def main() -> None:
    """Run the command line; exit 0 done, 1 the run failed, 2 the input is wrong."""
    try:
        app()
    except AnglekitError as error:
        message = " ".join(str(error).split())
        typer.echo(f"anglekit: {message}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        typer.echo("anglekit: interrupted", err=True)
        sys.exit(130)
