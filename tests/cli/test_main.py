"""The command itself: usage errors are one line too, every command's help says how it is used."""

from __future__ import annotations

import os
import sys

import pytest
import typer

from anglekit.settings_fields import GROUPS
from anglekit_cli.main import EARLIER_NAMES, app, main

COMMANDS = sorted(command.callback.__name__ for command in app.registered_commands)


@pytest.fixture
def call(monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["anglekit", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        captured = capsys.readouterr()
        return stop.value.code, captured.out, captured.err

    return run


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("analyze",), "Missing argument 'teacher'; see anglekit analyze --help"),
        (("analyze", "a", "--bogus"), "No such option: --bogus"),
        (("analyz",), "No such command 'analyz'. Did you mean 'analyze'"),
        (("plot", "--width"), "Option '--figure-width' requires an argument"),
        (("analyze", "a", "b", "--probe", "p", "--out", "o", "--seed", "1.5"), "Invalid value for '--seed'"),
    ],
)
def test_a_usage_error_is_one_line(call, arguments, words):
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    # typer names an argument as the help does, in capitals, or as the program does: that depends on its version.
    assert err.lower().startswith(f"anglekit: {words.lower()}")
    assert err.count("\n") == 1


def test_without_a_command_the_help_is_shown(call):
    code, out, err = call()
    assert code == 2
    assert "Commands:" in out + err


def test_verbose_shows_how_an_error_came_about_and_its_absence_does_not(call):
    mistake = ("analyze", "no/teacher", "no/student", "--probe", "probe.txt", "--out", "geometry")
    code, _, err = call("--verbose", *mistake)
    assert code == 2
    assert "Traceback" in err
    line = err.splitlines()[-1]
    assert line.startswith("anglekit: probe.txt is not a kind of table")
    assert call(*mistake) == (2, "", f"{line}\n")


@pytest.mark.parametrize("level", [None, "error"])
def test_verbose_ends_with_its_command(call, monkeypatch, level):
    """What a program runs after it, in this process or below it, is as quiet as before."""
    monkeypatch.delenv("TRANSFORMERS_VERBOSITY", raising=False)
    if level:
        monkeypatch.setenv("TRANSFORMERS_VERBOSITY", level)
    seen = []
    monkeypatch.setattr(
        "anglekit_cli.commands.analyze.check_place", lambda *_: seen.append(os.environ["TRANSFORMERS_VERBOSITY"])
    )
    assert call("--verbose", "analyze", "no/teacher", "no/student", "--probe", "probe.txt", "--out", "geometry")[0] == 2
    assert seen == ["info"]
    assert os.environ.get("TRANSFORMERS_VERBOSITY") == level


def test_an_interruption_is_one_line(call, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("anglekit_cli.commands.analyze.check_place", interrupted)
    arguments = ("analyze", "no/teacher", "no/student", "--probe", "probe.txt", "--out", "geometry")
    assert call(*arguments) == (130, "", "anglekit: interrupted\n")


def test_a_mistake_of_ours_is_not_hidden(call, monkeypatch):
    monkeypatch.setattr("anglekit_cli.main.app", lambda **_: 1 / 0)
    monkeypatch.setattr(sys, "argv", ["anglekit"])
    with pytest.raises(ZeroDivisionError):
        main()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_has_a_sentence_and_an_example(call, command):
    code, out, _ = call(command, "--help")
    assert code == 0
    assert f"anglekit {command} " in " ".join(out.partition("\n")[2].split())
    assert ". " in " ".join(out.split())


def test_long_lists_of_options_stand_in_groups_and_no_summary_is_cut(call, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERMINAL_WIDTH", "80")
    _, out, _ = call("distill", "--help")
    titles = [line.removesuffix(":") for line in out.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert titles == ["Arguments", *(title for title in GROUPS if title in titles), "Options"]
    assert len(titles) > 8
    # Of no group is what says how to get help alone.
    assert out.partition("\nOptions:\n")[2].count("  -") == 1
    for shown in (call("--help")[1], *(call(command, "--help")[1] for command in COMMANDS)):
        assert "..." not in shown.partition("Commands:")[2]


def test_options_keep_their_earlier_names_which_no_help_shows(call):
    commands = typer.main.get_command(app).commands
    for command, names in EARLIER_NAMES.items():
        flags = {flag for one in commands[command].params for flag in one.opts}
        assert set(names.values()) <= flags
        assert not set(names) & flags
    for name in ("--margin", "--angle-margin"):
        for arguments in ((name, "0"), (f"{name}=0",)):
            assert call("compare", ".", *arguments)[2].startswith("anglekit: --angle-margin is 0")
    given = ["a", "--figure", "figure1", "--task", "x", "--student=b", "--vertex", "1", "--vertex=2"]
    read = commands["plot"].make_context("plot", given).params
    assert (read["task_name"], read["only_student"], read["vertices"]) == (["x"], ["b"], ["1", "2"])
