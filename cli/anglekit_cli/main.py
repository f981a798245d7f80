"""The `anglekit` command: gathers the subcommands and turns errors into one line and an exit code."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, Final, NoReturn

import typer
from typer.core import TyperCommand

from anglekit.errors import AnglekitError
from anglekit.settings_fields import GROUPS, SettingError
from anglekit_cli.commands import (
    advise,
    analyze,
    compare,
    distill,
    evaluate,
    extract,
    finetune,
    gradients,
    models,
    plan,
    plot,
    push,
    report,
    reproduce,
    sweep,
)
from anglekit_cli.process import keep_freed_memory, log_each_message_once, print_warnings_plainly

#: Earlier names of options, by command: they are still taken, and no help shows them.
EARLIER_NAMES: Final[Mapping[str, Mapping[str, str]]] = {
    "analyze": {"--limit": "--sample", "--prompts": "--prompt-reading"},
    "compare": {"--margin": "--angle-margin"},
    "extract": {"--layers": "--teacher-layers", "--limit": "--sample", "--prompts": "--prompt-reading"},
    "models": {"--students": "--distillable"},
    "plot": {
        "--task": "--task-name",
        "--label": "--rename",
        "--data": "--numbers",
        "--margin": "--score-margin",
        "--width": "--figure-width",
        "--student": "--only-student",
        "--stream": "--streams",
        "--vertex": "--vertices",
    },
    "push": {"--private": "--hub-private"},
    "report": {
        "--task": "--task-name",
        "--label": "--task-name",
        "--margin": "--angle-margin",
        "--workers": "--processes",
    },
    "reproduce": {"--teacher": "--base-model"},
}


class Command(TyperCommand):
    """A command whose help shows options in groups (`settings_fields.GROUPS`) and its summary uncut."""

    def get_short_help_str(self, limit: int = 0) -> str:
        """Return the first sentence of the help, whatever its length."""
        return " ".join((self.help or "").partition("\n\n")[0].split())

    def format_options(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 - click's, of which typer has its own
        """Write the arguments, then the groups of options."""
        found: dict[str, list[tuple[str, str]]] = {title: [] for title in ("Arguments", *GROUPS, "Options")}
        for parameter in self.get_params(ctx):
            if (record := parameter.get_help_record(ctx)) is not None:
                title = getattr(parameter, "rich_help_panel", None) or "Options"
                found["Arguments" if parameter.param_type_name == "argument" else title].append(record)
        for title, records in found.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - as `format_options`
        """Read the options, by their earlier names too."""
        names = EARLIER_NAMES.get(str(self.name), {})
        parts = [word.partition("=") for word in args]
        return super().parse_args(ctx, [f"{names.get(name, name)}{sign}{value}" for name, sign, value in parts])


app = typer.Typer(
    name="anglekit",
    help="See a teacher's layers from inside its student: angles, layer matching and distillation.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


# What `--verbose` sets.
_TRACED: list[bool] = []

# What a shell calls a program that Ctrl-C ended.
_INTERRUPTED = 130


def _print_version(wanted: bool) -> None:
    if wanted:
        from anglekit import __version__

        typer.echo(f"anglekit {__version__}")
        raise typer.Exit


@contextmanager
def _talkative_libraries() -> Iterator[None]:
    """The level that transformers reads when it is imported; what comes after the command has its own."""
    before = os.environ.get("TRANSFORMERS_VERBOSITY")
    os.environ["TRANSFORMERS_VERBOSITY"] = "info"
    try:
        yield
    finally:
        if before is None:
            del os.environ["TRANSFORMERS_VERBOSITY"]
        else:
            os.environ["TRANSFORMERS_VERBOSITY"] = before


@app.callback()
def root(
    context: typer.Context,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show what the libraries report, and the trace of an error.")
    ] = False,
) -> None:
    """See a teacher's layers from inside its student: angles, layer matching and distillation."""
    _TRACED.clear()
    if verbose:
        _TRACED.append(True)
        context.with_resource(_talkative_libraries())


app.command(cls=Command, epilog=reproduce.DEMO_EPILOG)(reproduce.demo)
app.command(cls=Command, epilog=extract.EPILOG)(extract.extract)
app.command(cls=Command, epilog=analyze.EPILOG)(analyze.analyze)
app.command(cls=Command, epilog=analyze.MERGE_EPILOG)(analyze.merge)
app.command(cls=Command, epilog=gradients.EPILOG)(gradients.gradients)
app.command(cls=Command, epilog=advise.EPILOG)(advise.advise)
app.command(cls=Command, epilog=finetune.EPILOG)(finetune.finetune)
app.command(cls=Command, epilog=plan.EPILOG)(plan.plan)
app.command(cls=Command, epilog=distill.EPILOG)(distill.distill)
app.command(cls=Command, epilog=sweep.EPILOG)(sweep.sweep)
app.command(cls=Command, epilog=evaluate.EPILOG)(evaluate.evaluate)
app.command(cls=Command, epilog=push.EPILOG)(push.push)
app.command(cls=Command, epilog=plot.EPILOG)(plot.plot)
app.command(cls=Command, epilog=compare.EPILOG)(compare.compare)
app.command(cls=Command, epilog=report.EPILOG)(report.report)
app.command(cls=Command, epilog=reproduce.EPILOG)(reproduce.reproduce)
app.command(cls=Command, epilog=models.EPILOG)(models.models)


def main() -> None:
    """Run the command line; exit 0 done, 1 the run failed, 2 the input is wrong."""
    keep_freed_memory()
    print_warnings_plainly()
    log_each_message_once()
    try:
        result = app(standalone_mode=False, prog_name="anglekit")
    except SettingError as error:  # the library uses a setting's Python name
        own = error.name == error.setting
        _end(str(error.named(f"--{error.setting.replace('_', '-')}") if own else error), error.exit_code)
    except AnglekitError as error:
        _end(str(error), error.exit_code)
    except KeyboardInterrupt:
        _end("interrupted", _INTERRUPTED)
    except Exception as error:
        # Typer brings its own copy of click in some versions, so its errors are known by what they can do.
        if type(error).__name__ == "Abort":
            _end("interrupted", _INTERRUPTED)
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()  # type: ignore[attr-defined]
            sys.exit(2)
        if not hasattr(error, "format_message"):
            raise
        context = getattr(error, "ctx", None)
        command = "anglekit" if context is None else context.command_path
        _end(f"{error.format_message().rstrip('.')}; see {command} --help", getattr(error, "exit_code", 2))
    if result == _INTERRUPTED:  # typer turns Ctrl-C into this code and says nothing
        _end("interrupted", _INTERRUPTED)
    sys.exit(result if isinstance(result, int) else 0)


def _end(message: str, code: int) -> NoReturn:
    """Print an error as one line (with --verbose, after its traceback) and exit.

    Of processes that were launched together only the first one prints: all of them end with the same error.
    """
    if os.environ.get("RANK", "0") == "0":
        if _TRACED:
            traceback.print_exc()
        typer.echo(f"anglekit: {' '.join(message.split())}", err=True)
    sys.exit(code)
