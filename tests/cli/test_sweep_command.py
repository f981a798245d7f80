"""`anglekit sweep` as a person runs it: one bar, one table, one line for a mistake, and a kill that loses nothing."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
import typer
from safetensors.torch import load_file
from typer.testing import CliRunner

from anglekit.distillation.runs.run import Run
from anglekit.distillation.sweep.sweep import SIDE_BY_SIDE, SweepResult
from anglekit.errors import InputError, RunError
from anglekit_cli.commands.distill import distill
from anglekit_cli.commands.sweep import parse_seeds, sweep
from anglekit_cli.main import app as whole_app
from anglekit_cli.options import names_of
from tests.cli.launching import begin
from tests.distillation.run_corpus import make_world

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
for command in (sweep, distill):
    app.command()(command)


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny_model, tiny_tokenizer, words):
    return make_world(tmp_path_factory.mktemp("world"), tiny_model, tiny_tokenizer(), words)


def arguments(world, out, *more):
    given = (
        *("sweep", world["teacher"], "--task", "classification", "--train", world["train"], "--out", out),
        *("--layers", 2, "--max-steps", 4, "--batch-size", 8, "--log-every", 2, "--device", "cpu", *more),
    )
    return [str(argument) for argument in given]


def run(*given):
    """Run the command; what it raises comes out as it would reach `main`."""
    result = CliRunner().invoke(app, [str(argument) for argument in given])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.stderr
    return result


def test_a_sweep_prints_one_bar_and_one_table(world, tmp_path):
    options = ("--strategies", "none,random", "--seeds", "0-1", "--validation", world["dev"])
    result = run(*arguments(world, tmp_path / "sweep", *options))
    lines = result.stdout.splitlines()
    header = ["strategy", "init", "seed", "data", "examples", "accuracy", "macro_f1", "steps", "seconds"]
    assert lines[0].split() == header
    assert [line.split()[:3] for line in lines[1:-1]] == [
        [strategy, init, seed] for seed in "01" for init in ("random", "teacher") for strategy in ("none", "random")
    ]
    assert lines[-1].startswith("8 students in ")
    assert lines[-1].endswith(f"the teacher 4 times where separate runs take 32: {tmp_path / 'sweep'}")
    errors = [line for line in result.stderr.replace("\r", "\n").splitlines() if line.strip()]
    assert "columns read: text, label (train, dev)" in errors
    bars = [line for line in errors if not line.startswith(("warning: ", "columns read: "))]
    assert all(line.startswith("sweep:") for line in bars)
    # Eight students of four steps; scoring the table counts as three: the teacher, four beginnings, eight ends.
    assert "71/71" in bars[-1]
    assert "8/8 students" in bars[-1]
    # Two blocks have two orders, and both have a name.
    assert any("equals strategy" in line for line in errors)


def test_quiet_prints_nothing_and_json_only_json(world, tmp_path):
    options = ("--strategies", "forward", "--inits", "random", "--seeds", "7")
    quiet = run(*arguments(world, tmp_path / "a", *options, "--quiet"))
    assert (quiet.stdout, quiet.stderr) == ("", "")
    printed = run(*arguments(world, tmp_path / "b", *options, "--json", "--validation", f"mine={world['dev']}"))
    assert printed.stderr == ""
    content = json.loads(printed.stdout)
    assert content["scores"][0]["data"] == "mine"
    assert content["scores"][0]["seed"] == 7
    assert list(content["checkpoints"]) == ["forward-random-seed7"]
    assert (content["failed"], content["teacher_passes"], content["teacher_answers"]) == ({}, 4, 4)
    without = json.loads(run(*arguments(world, tmp_path / "c", *options, "--json")).stdout)
    assert without["scores"][0] == {
        "strategy": "forward",
        "init": "random",
        "seed": 7,
        "data": "",
        "steps": 4,
        "selected_step": 4,
        "seconds": without["scores"][0]["seconds"],
    }


def test_what_was_stopped_as_hopeless_is_told_with_the_steps_saved(world, tmp_path, monkeypatch):
    asked = {}

    def ended(teacher, **options):
        asked.update(options)
        passes = dict.fromkeys(("teacher_passes", "teacher_answers", "untrained_passes", "untrained_answers"), 0)
        stopped = {"reverse-random-seed0": 10, "reverse-random-seed1": 10}
        return SweepResult(
            "here", pd.DataFrame(), {}, {}, stopped, 80, 300, (), **passes, teacher_seconds=0.0, seconds=1.0
        )

    monkeypatch.setattr("anglekit.distillation.sweep.sweep.sweep", ended)
    given = arguments(world, tmp_path / "sweep", "--validation", world["dev"], "--evaluate-every", 2, "--stop-hopeless")
    shown = run(*given).stdout
    assert asked["stop_hopeless"] is True
    assert "2 students stopped as hopeless, 80 of 300 steps saved (27%): reverse-random-seed0 at step 10, " in shown
    content = json.loads(run(*given, "--json").stdout)
    assert (content["steps"], content["steps_saved"]) == (300, 80)
    assert content["stopped"] == {"reverse-random-seed0": 10, "reverse-random-seed1": 10}
    run(*[one for one in given if one != "--stop-hopeless"])
    assert asked["stop_hopeless"] is False


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ((), "--stop-hopeless came without --validation"),
        (
            ("--validation", "DEV", "--evaluate-every", 4),
            "validation every 4 steps, and a run has 4; validate more often",
        ),
    ],
)
def test_nothing_can_be_stopped_without_a_look(world, tmp_path, more, message):
    given = [world["dev"] if one == "DEV" else one for one in more]
    with pytest.raises(InputError, match=message):
        run(*arguments(world, tmp_path / "sweep", "--stop-hopeless", *given))
    assert not (tmp_path / "sweep").exists()


def weights(directory):
    return load_file(Path(directory) / "checkpoint" / "model.safetensors")


def same(one, other):
    ours, theirs = weights(one), weights(other)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_an_arm_of_a_sweep_is_the_run_of_the_distill_command(world, tmp_path):
    own = ("--alpha-hidden", 2, "--hidden-loss", "cosine", "--accumulation", 2, "--data-seed", 9, "-q")
    more = ("--strategies", "reverse", "--inits", "teacher", "--seeds", 5, "--copy", "0,3", *own)
    run(*arguments(world, tmp_path / "sweep", *more))
    given = arguments(world, tmp_path / "run", "--strategy", "reverse", "--init", "teacher", "--seed", 5, *own)
    run("distill", *given[1:], "--copy", "0,3")
    assert same(tmp_path / "sweep" / "reverse-teacher-seed5", tmp_path / "run")


def test_controls_stand_in_the_table_and_are_the_runs_of_the_distill_command(world, tmp_path):
    more = ("--strategies", "none,reverse", "--inits", "teacher", "--seeds", 5, "--validation", world["dev"])
    result = run(*arguments(world, tmp_path / "sweep", *more, "--controls", "alone, random-teacher"))
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines[1:-1]] == ["none", "reverse", "alone", "random-teacher"]
    assert "the teacher 4 times where separate runs take 12, untrained ones 4 times where" in lines[-1]
    for given in (("--control", "alone"), ("--control", "random-teacher", "--strategy", "reverse")):
        own = arguments(world, tmp_path / given[1], *given, "--init", "teacher", "--seed", 5, "-q")
        run("distill", *own[1:])
        assert same(tmp_path / "sweep" / f"{given[1]}-teacher-seed5", tmp_path / given[1])


def test_failed_arms_are_one_line_after_the_table(world, tmp_path, monkeypatch):
    train = Run.train

    def failing(arm):
        if "none" in arm.directory.path.name:
            raise RunError("the ce loss was not finite at step 2")
        train(arm)

    monkeypatch.setattr(Run, "train", failing)
    options = ("--strategies", "none,forward", "--inits", "random", "--seeds", 0)
    result = CliRunner().invoke(app, arguments(world, tmp_path / "sweep", *options))
    assert isinstance(result.exception, RunError)
    assert result.exception.exit_code == 1
    assert str(result.exception).startswith(
        "1 of 2 arms failed: none-random-seed0 (the ce loss was not finite at step 2); the others are finished in "
    )
    assert "\n" not in str(result.exception)
    assert result.stdout.splitlines()[1].split()[:3] == ["forward", "random", "0"]


@pytest.mark.slow
def test_an_interrupted_sweep_resumes_to_the_same_students(world, tmp_path):
    """By Ctrl-C, which ends it in order; `tests/test_kills.py` kills it at random moments."""
    options = ("--strategies", "forward,reverse", "--inits", "random", "--seeds", 1, "--evaluate-every", 2, "-q")
    given = [*arguments(world, tmp_path / "sweep", *options, "--validation", world["dev"]), "--max-steps", "30"]
    started = begin(1, *given, folder=tmp_path)
    deadline = time.monotonic() + 120
    while len(list((tmp_path / "sweep").glob("*/training/checkpoint-*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(started.processes[0], signal.SIGINT)
    (ended,) = started.wait()
    assert ended.code == 130, ended.err
    assert "Traceback" not in ended.err
    assert not list(tmp_path.rglob("run.lock"))
    assert not list(tmp_path.rglob("scores.json"))
    run(*given, "--resume")
    whole = arguments(world, tmp_path / "whole", *options, "--validation", world["dev"])
    run(*whole, "--max-steps", 30)
    for name in ("forward-random-seed1", "reverse-random-seed1"):
        assert same(tmp_path / "sweep" / name, tmp_path / "whole" / name)
    columns = ["strategy", "accuracy", "macro_f1", "steps", "selected_step"]
    tables = [pd.read_csv(tmp_path / one / "scores.csv")[columns] for one in ("sweep", "whole")]
    assert tables[0].equals(tables[1])


@pytest.mark.parametrize(
    ("text", "seeds"),
    [("0", (0,)), ("0,1,2", (0, 1, 2)), ("0-4", (0, 1, 2, 3, 4)), ("7, 1-2", (7, 1, 2)), ("3-3", (3,)), (None, None)],
)
def test_seeds_are_numbers_and_ranges(text, seeds):
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "1,", "-1", "1-", "1-2-3", "1.5", "4-0", "0-1000", "²"])
def test_other_seeds_are_refused(text):
    with pytest.raises(InputError, match="--seeds "):
        parse_seeds(text)


def test_names_are_read_with_spaces_and_none_is_missing():
    assert names_of("--inits", "random, teacher") == ("random", "teacher")
    assert names_of("--inits", None) is None
    with pytest.raises(InputError, match="names nothing in one place"):
        names_of("--inits", "random,")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--strategies", "foward,none"), "did you mean 'forward'"),
        (("--strategies", "none,none"), "strategy 'none' came twice"),
        (("--inits", "teachr"), "did you mean 'teacher'"),
        (("--controls", "alnoe"), "--controls is 'alnoe'; did you mean 'alone'"),
        (("--controls", "alone,alone"), "control 'alone' came twice; give each one once"),
        (("--controls", "alone,"), "--controls is 'alone,' and names nothing in one place"),
        (("--controls", "random-teacher", "--strategies", "none"), "no strategy matches layers"),
        (
            ("--controls", "random-teacher", "--teacher-device-map", "auto"),
            "control random-teacher makes an untrained teacher on one device",
        ),
        (("--seeds", "1,1"), "seed 1 came twice"),
        (("--seeds", "x"), "--seeds is 'x'; allowed: numbers from 0 and ranges"),
        (("--side-by-side", 0), "side by side are 0"),
        (("--resume", "--overwrite"), "came together"),
        (("--label", "labl"), "no column 'labl' for --label; did you mean 'label'"),
        (("--width", 64), "width"),
        (("--alpha-ce", 0, "--alpha-kl", 0), "nothing would be trained"),
    ],
)
def test_every_mistake_is_one_line_with_exit_2_and_no_trace(world, tmp_path, more, message):
    with pytest.raises(InputError) as caught:
        run(*arguments(world, tmp_path / "sweep", *more))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    assert not (tmp_path / "sweep").exists()


def test_every_option_explains_itself():
    known = typer.main.get_command(whole_app).commands["sweep"].params
    assert [parameter.name for parameter in known if not getattr(parameter, "help", None)] == []
    assert {parameter.name: parameter.default for parameter in known}["side_by_side"] == SIDE_BY_SIDE
