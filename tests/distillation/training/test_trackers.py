"""What trackers are told of a run and of a sweep's runs, and that the training does not notice."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import TrainerCallback

from anglekit.distillation import settings as settings_module
from anglekit.distillation.settings import TrainSettings
from anglekit.distillation.sweep.sweep import sweep
from anglekit.distillation.training import trackers
from anglekit.errors import InputError, RunError
from anglekit.results.geometry import Geometry
from anglekit.vocabulary import STUDENT_FILE
from tests.distillation.run_corpus import kill_at_five, make_world, quick, student


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny_model, tiny_tokenizer, words):
    return make_world(tmp_path_factory.mktemp("world"), tiny_model, tiny_tokenizer(), words)


class OneRunTracker(TrainerCallback):
    """A tracker as most are: one run is open in a process, and it draws from Python's and torch's generators."""

    open: ClassVar[list[str]] = []
    runs: ClassVar[dict] = {}

    def on_train_begin(self, args, state, control, model=None, **_):
        draw()
        if model is None or self.open:
            raise ConnectionError("another run\nis open")
        self.open.append(args.run_name)
        self.runs[args.run_name, args.project] = []

    def on_log(self, args, state, control, logs=None, **_):
        draw()
        (name,) = self.open
        self.runs[name, args.project].append((state.global_step, dict(logs)))

    def on_train_end(self, args, state, control, **_):
        assert self.open.pop() == args.run_name


def draw():
    random.random()
    torch.rand(1)


@pytest.fixture
def tracker(monkeypatch):
    """Stands in the place of MLflow, which need not be installed."""
    monkeypatch.setitem(trackers.INTEGRATION_TO_CALLBACK, "mlflow", OneRunTracker)
    monkeypatch.setitem(settings_module.TRACKERS, "mlflow", (("json",), "mlflow"))
    monkeypatch.setattr(OneRunTracker, "open", [])
    monkeypatch.setattr(OneRunTracker, "runs", {})
    return OneRunTracker


def weights(directory):
    return load_file(Path(directory) / "checkpoint" / "model.safetensors")


def same(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items())


def steps_of(logs, key):
    return [step for step, log in logs if key in log]


def test_a_run_is_told_whole_and_trains_as_without(world, tmp_path, tracker):
    settings = quick(seed=3, max_steps=23, log_every=None, report_to="tensorboard, mlflow")
    told = student(world, tmp_path / "told", settings=settings, angles_every=20, probe=world["dev"])
    alone = student(world, tmp_path / "alone", settings=quick(seed=3, max_steps=23, log_every=None))
    assert same(weights(told.directory), weights(alone.directory))
    (name, _), logs = next(iter(tracker.runs.items()))
    assert name == "told"
    # About ten times, and the last step whatever it is.
    assert steps_of(logs, "loss") == [*range(2, 23, 2), 23]
    assert {"loss_ce", "loss_kl", "loss_hidden"} <= next(log for _, log in logs if "loss" in log).keys()
    (final,) = told.scores["accuracy"]
    assert logs[-1][1]["eval_final_dev_accuracy"] == final
    assert "eval_teacher_dev_accuracy" in logs[-1][1]
    assert tracker.open == []
    # The angles of a step are told whose they are, and which layers teach it.
    kept = Geometry.load(tmp_path / "told" / "angles" / "geometry-step-20").document.provenance.students[0]
    note = json.loads((tmp_path / "told" / "checkpoint" / STUDENT_FILE).read_text())
    assert (kept.name, kept.strategy, kept.init, kept.seed) == ("told", note["strategy"], note["init"], 3)
    assert kept.taught_by == note["taught_by"] != {}
    # Not among the files that go when a run is finished.
    events = EventAccumulator(str(tmp_path / "told" / "tensorboard")).Reload()
    assert [one.step for one in events.Scalars("train/loss_hidden")] == [*range(2, 23, 2), 23]
    assert [one.value for one in events.Scalars("eval/final_dev_accuracy")] == pytest.approx([final])
    assert [one.step for one in events.Scalars("train/encoder_angle_degrees")] == [0, 20, 23]
    assert {name: events.Images(name)[-1].step for name in events.Tags()["images"]} == {
        "angles of told": 23,
        "scores": 23,
    }


def test_runs_of_a_sweep_are_told_apart(world, tmp_path, tracker):
    """They train side by side, and the tracker holds one at a time; TensorBoard's files lie in each run."""
    settings = quick(report_to="mlflow,tensorboard")
    result = sweep(
        world["teacher"],
        strategies=("forward", "none"),
        inits=("random",),
        seeds=(3,),
        task="classification",
        train=world["train"],
        validation=[world["dev"]],
        out=tmp_path / "swept",
        layers=2,
        settings=settings,
    )
    assert list(tracker.runs) == [(name, "swept") for name in result.arms]
    for (name, _), logs in tracker.runs.items():
        assert steps_of(logs, "loss") == [2, 4, 6]
        assert logs[-1][1]["eval_final_dev_accuracy"] == result.arms[name].scores["accuracy"][0]
        assert ("loss_hidden" in logs[0][1]) == name.startswith("forward")
        assert len(list((tmp_path / "swept" / name / "tensorboard").iterdir())) == 1


def test_a_resumed_run_is_told_from_its_first_step(world, tmp_path, tracker, monkeypatch):
    settings = quick(seed=3, max_steps=8, evaluate_every=2, report_to="mlflow")
    with monkeypatch.context() as patch:
        kill_at_five(patch)
        with pytest.raises(KeyboardInterrupt):
            student(world, tmp_path / "run", settings=settings)
    assert tracker.open == []
    student(world, tmp_path / "run", settings=settings, if_exists="resume")
    (logs,) = tracker.runs.values()
    assert steps_of(logs, "loss") == [2, 4, 6, 8]


def test_a_tracker_that_fails_is_one_line(world, tmp_path, tracker):
    tracker.open.append("the user's own")
    with pytest.raises(RunError, match=r"the tracker mlflow failed \(another run is open\); put it right or leave"):
        student(world, tmp_path / "run", settings=quick(report_to="mlflow"))
    assert not (tmp_path / "run" / "examples.parquet").exists()


def test_what_cannot_be_told_is_refused(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="report_to is 'wandbb'; did you mean 'wandb'"):
        TrainSettings(report_to="wandbb")
    with pytest.raises(InputError, match="report_to is 'none,wandb'; did you mean 'none'"):
        TrainSettings(report_to="none,wandb")
    # A folder is no package: W&B leaves one of its name where it ran.
    (tmp_path / "a_mere_folder").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(settings_module.TRACKERS, "comet_ml", (("no_such_module", "a_mere_folder"), "comet-ml"))
    assert TrainSettings(report_to="tensorboard, comet_ml,tensorboard").trackers == ("tensorboard", "comet_ml")
    with pytest.raises(InputError, match="names comet_ml, which is not installed; install it: pip install comet-ml"):
        TrainSettings(report_to="tensorboard,comet_ml").check_packages()
