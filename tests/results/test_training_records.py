"""The log of training and the costs, read back as tables."""

from __future__ import annotations

import json

import pytest

from anglekit.errors import InputError
from anglekit.results.training_records import TRAINING_LOG_FILE, read_training_records

COST = {"milliseconds": 2.0, "milliseconds_low": 1.5, "milliseconds_high": 4.0, "examples": 16, "tokens": 320}
COST |= {"device": "cpu", "dtype": "float32"}


def write_run(directory, *, strategy="forward", log=None, **scores):
    (directory / "checkpoint").mkdir(parents=True)
    note = {"strategy": strategy, "init": "random", "seed": 3}
    (directory / "checkpoint" / "anglekit_student.json").write_text(json.dumps(note))
    rows = {"scores": [{"data": "dev", "examples": 9, "accuracy": 0.5}], "format": "anglekit-scores-1", **scores}
    (directory / "scores.json").write_text(json.dumps(rows))
    if log is not None:
        (directory / TRAINING_LOG_FILE).write_text(log)
    return directory


def test_the_log_is_read_by_kind_each_step_once(tmp_path):
    lines = [
        {"step": 10, "loss": 3.0, "loss_ce": 1.0, "loss_hidden": 2.0, "learning_rate": 1e-3, "grad_norm": 1.0},
        {"step": 10, "eval_accuracy": 0.25, "eval_loss": 1.5, "eval_runtime": 2.0, "eval_samples_per_second": 9.0},
        {"step": 20, "loss": 2.5, "loss_ce": 0.75, "loss_hidden": 1.75},
        {"step": 20, "loss": 2.0, "loss_ce": 0.5, "loss_hidden": 1.5},
        {"step": 20, "train_runtime": 9.0, "train_loss": 2.0},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines) + '{"step": 30, "lo'
    log = read_training_records([write_run(tmp_path / "run", log=text)]).log
    assert set(log["strategy"]) == {"forward"}
    assert set(log["seed"]) == {3}
    found = {(row.step, row.kind, row.name): row.value for row in log.itertuples()}
    assert found == {
        (10, "loss", "weighted sum"): 3.0,
        (10, "loss", "ce"): 1.0,
        (10, "loss", "hidden"): 2.0,
        (10, "validation", "accuracy"): 0.25,
        (10, "validation", "loss"): 1.5,
        (20, "loss", "weighted sum"): 2.0,
        (20, "loss", "ce"): 0.5,
        (20, "loss", "hidden"): 1.5,
    }


def test_costs_teacher_and_chance_come_from_the_scores(tmp_path):
    run = write_run(
        tmp_path / "run",
        teacher=[{"data": "dev", "examples": 9, "accuracy": 0.75, "f1": None}],
        chance={"dev": {"accuracy": 0.4}},
        costs={"teacher": {"parameters": 100, **COST}, "student": {"parameters": 40, **COST, "milliseconds": 1.75}},
    )
    records = read_training_records([run, run])
    assert records.teacher == {("dev", "accuracy"): 0.75}
    assert records.chance == {("dev", "accuracy"): 0.4}
    assert records.costs[["model", "parameters", "milliseconds"]].to_numpy().tolist() == [
        ["teacher", 100, 2.0],
        ["student", 40, 1.75],
    ]
    assert records.log.empty


def test_runs_of_earlier_versions_have_no_costs_and_damage_is_said(tmp_path):
    assert read_training_records([write_run(tmp_path / "old"), tmp_path]).costs.empty
    with pytest.raises(InputError, match="parameters"):
        read_training_records([write_run(tmp_path / "bad", costs={"student": {"parameters": "many", **COST}})])
