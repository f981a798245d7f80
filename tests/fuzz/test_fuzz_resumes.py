"""Damaged `training` folders: what `--resume` goes on from is damaged, another run's, or a program."""

from __future__ import annotations

import json
import math
import pickle
import shutil
from pathlib import Path

import pytest

from anglekit.distillation.runs.directory import RunDirectory
from anglekit.distillation.runs.run import RunResult
from anglekit.errors import InputError
from tests.distillation.run_corpus import kill_at_five, make_world, quick, student
from tests.fuzz.harness import Campaign, Case, Program, cases, fresh
from tests.fuzz.mutations import damaged_file, damaged_json_file, damaged_safetensors

SETTINGS = quick(max_steps=6, evaluate_every=2, select="best", seed=3)
# What `Trainer` reads when it goes on.
STATES = ("optimizer.pt", "scheduler.pt", "rng_state.pth")


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny_model, tiny_tokenizer, words) -> dict[str, str]:
    return make_world(tmp_path_factory.mktemp("world"), tiny_model, tiny_tokenizer(), words)


@pytest.fixture(scope="module")
def unfinished(world, tmp_path_factory) -> Path:
    """A run with adapters that was killed behind its fifth step; its fourth was kept."""
    out = tmp_path_factory.mktemp("unfinished") / "run"
    with pytest.MonkeyPatch.context() as patch:
        kill_at_five(patch)
        with pytest.raises(KeyboardInterrupt):
            student(world, out, settings=SETTINGS, width=16)
    assert {file.name for file in (out / "training" / "checkpoint-4").iterdir()} > {*STATES, "trainer_state.json"}
    return out


def damage(case: Case, checkpoint: Path, place: Path) -> None:
    for _ in range(case.rng.choice((1, 1, 1, 2))):
        file = case.rng.choice(sorted(each for each in checkpoint.iterdir() if each.is_file()))
        if file.suffix in (".pt", ".pth", ".bin") and case.rng.random() < 0.3:
            case.did.append(f"a program as {file.name}")
            file.write_bytes(pickle.dumps(Program(place)))
        elif file.suffix == ".json":
            damaged_json_file(case, file, {"best_model_checkpoint": "/nowhere", "global_step": 2, "log_history": [{}]})
        elif file.suffix == ".safetensors":
            damaged_safetensors(case, file)
        else:
            damaged_file(case, file)
    if case.rng.random() < 0.2:
        case.did.append("a program beside")
        (checkpoint / case.rng.choice(("pytorch_model.bin", "scaler.pt", "training_args.bin"))).write_bytes(
            pickle.dumps(Program(place))
        )
    if case.rng.random() < 0.1:
        name = case.rng.choice(("checkpoint-x9", "checkpoint-", "checkpoint-99999999999999999999", "checkpoint-9"))
        case.did.append(name)
        (checkpoint.parent / name).mkdir()


def sane(result: RunResult) -> None:
    """What was finished is a whole run, whatever its weights are."""
    directory = RunDirectory(Path(result.checkpoint).parent, "resume", writes=False)
    assert directory.finished
    assert result.steps == SETTINGS.max_steps
    assert not directory.training.exists()
    assert all(math.isfinite(score) for score in result.scores["accuracy"])


def test_resumes(unfinished, world, tmp_path):
    campaign = Campaign(tmp_path / "place")
    for case in cases("resumes", few=20):
        out = fresh(unfinished, tmp_path / "run")
        damage(case, out / "training" / "checkpoint-4", campaign.place)
        campaign.judge(
            case, lambda out=out: student(world, out, settings=SETTINGS, width=16, if_exists="resume"), "", sane
        )
    campaign.finish()


@pytest.mark.parametrize("name", STATES)
def test_a_program_is_not_run_but_named(name, unfinished, world, tmp_path):
    campaign = Campaign(tmp_path / "place")
    out = fresh(unfinished, tmp_path / "run")
    (out / "training" / "checkpoint-4" / name).write_bytes(pickle.dumps(Program(campaign.place)))
    case = next(cases(f"a program as {name}", few=1))
    campaign.judge(
        case, lambda: student(world, out, settings=SETTINGS, width=16, if_exists="resume"), str(out / "training")
    )
    campaign.finish()
    assert campaign.refused == 1


@pytest.mark.parametrize(
    ("entry", "value", "message"),
    [
        ("global_step", 2, "is of step 2"),
        ("global_step", "4", r"global_step: expected int, got str"),
        ("best_model_checkpoint", "/nowhere", "names a best checkpoint that this run does not have, '/nowhere'"),
        ("log_history", [1], r"log_history\[0\]: expected object, got int"),
        ("surprise", 1, "holds 'surprise', which no training writes"),
    ],
)
def test_a_state_that_lies_is_refused(entry, value, message, unfinished, world, tmp_path):
    out = fresh(unfinished, tmp_path / "run")
    file = out / "training" / "checkpoint-4" / "trainer_state.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), entry: value}))
    with pytest.raises(InputError, match=message):
        student(world, out, settings=SETTINGS, width=16, if_exists="resume")
    assert (out / "training" / "checkpoint-4").is_dir()


def test_a_run_that_was_moved_goes_on_and_finds_its_best_step(unfinished, world, tmp_path):
    """The control too: it is the damage that is refused. The second step is made the best one, and stays it."""
    out = fresh(unfinished, tmp_path / "moved")
    file = out / "training" / "checkpoint-4" / "trainer_state.json"
    state = json.loads(file.read_text())
    assert not state["best_model_checkpoint"].startswith(str(out))
    shutil.copytree(out / "training" / "checkpoint-4", out / "training" / "checkpoint-2", dirs_exist_ok=True)
    state |= {"best_metric": 2.0, "best_model_checkpoint": "/gone/training/checkpoint-2", "best_global_step": 2}
    file.write_text(json.dumps(state))
    result = student(world, out, settings=SETTINGS, width=16, if_exists="resume")
    sane(result)
    assert result.selected_step == 2
