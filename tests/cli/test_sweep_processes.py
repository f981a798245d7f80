"""`anglekit sweep` on several processes: each trains its share of the students, which come out the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from anglekit.distillation.sweep.arms import share_arms
from anglekit.distillation.sweep.directory import SweepGrid
from tests.benchmarks.kill_resume import contents
from tests.cli.launching import COUNTS, needs_launcher, together
from tests.distillation.run_corpus import make_world


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny_model, tiny_tokenizer, words):
    return make_world(tmp_path_factory.mktemp("world"), tiny_model, tiny_tokenizer(), words)


def swept(count, world, folder, *more):
    given = ("sweep", world["teacher"], "--task", "classification", "--train", world["train"], "--device", "cpu")
    sizes = ("--layers", 2, "--max-steps", 3, "--batch-size", 8, "--log-every", 1, "--validation", world["dev"])
    return together(count, *given, *sizes, "--out", "sweep", *more, folder=folder)


def left(folder: Path) -> dict:
    """Return what a sweep left, without the name of the folder that is in no file."""
    return contents(folder / "sweep")


@pytest.mark.slow
def test_one_process_and_several_give_the_same_students(world, tmp_path):
    found = []
    for count in COUNTS:
        folder = tmp_path / str(count)
        folder.mkdir()
        arms = ("--strategies", "none,forward", "--controls", "random-teacher", "--inits", "random,teacher")
        ended = swept(count, world, folder, *arms, "--seeds", "0")
        assert [each.code for each in ended] == [0] * count, ended[0].err
        assert "6 students in" in ended[0].out
        assert all((each.out, each.err) == ("", "") for each in ended[1:])
        found.append(left(folder))
    assert len([name for name in found[0] if name.endswith("model.safetensors")]) == 6
    for other in found[1:]:
        assert other == found[0]


@pytest.mark.slow
def test_more_processes_than_arms_and_another_number_when_it_goes_on(world, tmp_path):
    """Two processes for one arm; then three for two more, with the first one done."""
    arms = ("--inits", "random", "--seeds", "0", "--quiet")
    assert [each.code for each in swept(2, world, tmp_path, "--strategies", "forward", *arms)] == [0, 0]
    before = left(tmp_path)["forward-random-seed0/checkpoint/model.safetensors"]
    more = ("--strategies", "forward,none,reverse", *arms, "--resume")
    ended = swept(3, world, tmp_path, *more)
    assert [(each.code, each.out, each.err) for each in ended] == [(0, "", "")] * 3
    whole = tmp_path / "whole"
    whole.mkdir()
    swept(1, world, whole, *more)
    assert left(tmp_path) == left(whole)
    assert left(tmp_path)["forward-random-seed0/checkpoint/model.safetensors"] == before


@pytest.mark.slow
def test_a_mistake_is_said_once_and_leaves_nothing(world, tmp_path):
    ended = swept(2, world | {"train": "gone.tsv"}, tmp_path)
    assert [each.code for each in ended] == [2, 2]
    assert ended[0].err.count("\n") == 1
    assert "gone.tsv" in ended[0].err
    assert (ended[0].out, ended[1].out, ended[1].err) == ("", "", "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_arms_that_fail_are_named_whichever_process_trained_them(world, tmp_path):
    arms = ("--strategies", "none,forward", "--inits", "random", "--seeds", "0", "--quiet")
    ended = swept(2, world, tmp_path, *arms, "--learning-rate", "1e30")
    assert [each.code for each in ended] == [1, 1]
    assert ended[0].err.count("\n") == 1
    assert "2 of 2 arms failed: none-random-seed0" in ended[0].err
    assert "; forward-random-seed0 (" in ended[0].err
    assert (ended[0].out, ended[1].out, ended[1].err) == ("", "", "")


@needs_launcher
def test_accelerate_launch_shares_the_arms(world, tmp_path):
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    given = [*launch, "-m", "anglekit_cli", "sweep", world["teacher"], "--task", "classification"]
    given += ["--train", world["train"], "--strategies", "none,forward", "--inits", "random", "--seeds", "0"]
    given += ["--layers", "2", "--max-steps", "2", "--device", "cpu", "--out", "sweep"]
    done = subprocess.run(given, cwd=tmp_path, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("2 students in") == 1


def test_arms_are_shared_evenly_and_by_seed():
    arms = SweepGrid(("none", "forward"), ("random",), (0, 1, 2)).arms
    assert [[arm.name for arm in share] for share in share_arms(arms, 3)] == [
        [f"none-random-seed{seed}", f"forward-random-seed{seed}"] for seed in range(3)
    ]
    for count in range(1, 9):
        shares = share_arms(arms, count)
        assert len(shares) == count
        assert {len(share) for share in shares} <= {len(arms) // count, -(-len(arms) // count)}
        assert sorted(arm.name for share in shares for arm in share) == sorted(arm.name for arm in arms)
