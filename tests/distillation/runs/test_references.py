"""What a run keeps to compare its student with: examples and scores of the teacher and of the untrained student."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from anglekit.distillation.runs import scoring
from anglekit.distillation.runs.evaluate import evaluate
from anglekit.distillation.runs.run import Run
from anglekit.distillation.runs.train import finetune
from anglekit.results.example_scores import read_example_scores
from anglekit.results.scores import read_student_scores
from tests.distillation.run_corpus import kill_at_five, make_world, quick, student

SCORES = ("accuracy", "macro_f1")


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny_model, tiny_tokenizer, words):
    return make_world(tmp_path_factory.mktemp("world"), tiny_model, tiny_tokenizer(), words)


def kept(result):
    return read_example_scores(Path(result.directory) / "examples.parquet", "run it again")


def test_a_run_keeps_the_examples_of_student_teacher_and_untrained_student(world, tmp_path):
    tables = [world["dev"], f"again={world['train']}"]
    result = student(world, tmp_path / "run", validation=tables)
    found, scores = kept(result), json.loads((tmp_path / "run" / "scores.json").read_text())
    assert list(found.tables) == [(m, d) for m in ("student", "untrained", "teacher") for d in ("dev", "again")]
    assert scores["primary"] == "accuracy"
    assert (
        [row["data"] for row in scores["teacher"]] == [row["data"] for row in scores["untrained"]] == ["dev", "again"]
    )
    assert scores["chance"]["dev"] == {"accuracy": 11 / 21, "macro_f1": pytest.approx(11 / 16 / 2)}
    assert scores["chance"]["again"]["accuracy"] == 0.5
    read = read_student_scores(tmp_path / "run")
    assert read.n_examples == {"dev": 21, "again": 48}
    for checkpoint, model in ((result.directory, "student"), (world["teacher"], "teacher")):
        own = evaluate([checkpoint], task="classification", data=tables)
        for row in own.scores.to_dict("records"):
            for name in SCORES:
                assert found.score(model, row["data"], name) == pytest.approx(row[name], abs=1e-12)
        for name in ("prediction", "loss"):
            ours = np.concatenate([found.tables[model, data][name] for data in ("dev", "again")])
            assert np.array_equal(ours, own.examples[name].to_numpy())
    teacher = {(row["data"], name): row[name] for row in scores["teacher"] for name in SCORES}
    assert read.teacher == teacher


def test_the_untrained_student_is_the_one_before_the_first_step(world, tmp_path):
    """One that hardly learns has nearly its losses, one that learns has not, and strategies have it in common."""
    idle = student(world, tmp_path / "idle", settings=quick(seed=3, learning_rate=1e-12))
    taught = student(world, tmp_path / "taught", strategy="none")
    other = student(world, tmp_path / "other", settings=quick(seed=4))
    before = kept(idle).tables["untrained", "dev"]["loss"]
    assert kept(idle).tables["student", "dev"]["loss"] == pytest.approx(before, abs=1e-5)
    assert np.array_equal(kept(taught).tables["untrained", "dev"]["loss"], before)
    assert kept(taught).tables["student", "dev"]["loss"] != pytest.approx(before, abs=1e-3)
    assert kept(other).tables["untrained", "dev"]["loss"] != pytest.approx(before, abs=1e-3)


@pytest.mark.parametrize("options", [{}, {"init": "teacher", "width": None}, {"width": 16}], ids=str)
def test_scoring_before_the_first_step_changes_nothing_that_is_learnt(world, tmp_path, monkeypatch, options):
    scored = student(world, tmp_path / "scored", **options)
    monkeypatch.setattr(Run, "score_references", lambda *_: None)
    plain = student(world, tmp_path / "plain", **options)
    ours, theirs = (load_file(Path(one.checkpoint) / "model.safetensors") for one in (scored, plain))
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert scored.scores.equals(plain.scores)
    content = json.loads((tmp_path / "plain" / "scores.json").read_text())
    assert (content["teacher"], content["untrained"], content["primary"]) == ([], [], "accuracy")
    assert list(kept(plain).tables) == [("student", "dev")]


@pytest.mark.parametrize("damage", [None, "half", "other table", "gone"])
def test_a_resumed_run_keeps_what_it_had(world, tmp_path, monkeypatch, damage):
    settings = quick(seed=3, max_steps=8, evaluate_every=2)
    whole = student(world, tmp_path / "whole", settings=settings)
    with monkeypatch.context() as patch:
        kill_at_five(patch)
        with pytest.raises(KeyboardInterrupt):
            student(world, tmp_path / "run", settings=settings)
    file = tmp_path / "run" / "examples.parquet"
    assert list(read_example_scores(file, "").tables) == [("untrained", "dev"), ("teacher", "dev")]
    assert not (tmp_path / "run" / "scores.json").exists()
    if damage == "half":
        file.write_bytes(file.read_bytes()[:100])
    elif damage == "other table":
        pd.read_parquet(file).query("example < 20").to_parquet(file, index=False)
    elif damage == "gone":
        file.unlink()
    asked = []
    real = scoring.score_model
    monkeypatch.setattr(scoring, "score_model", lambda *given: (asked.append(given[-1]), real(*given))[1])
    student(world, tmp_path / "run", settings=settings, if_exists="resume")
    assert asked == ([] if damage is None else ["untrained students", "the teacher"])
    assert file.read_bytes() == (Path(whole.directory) / "examples.parquet").read_bytes()
    ours, theirs = (json.loads((tmp_path / name / "scores.json").read_text()) for name in ("run", "whole"))
    assert ours | {"train_seconds": 0, "costs": {}} == theirs | {"train_seconds": 0, "costs": {}}


def test_what_is_overwritten_leaves_no_examples_behind(world, tmp_path):
    student(world, tmp_path / "run")
    before = (tmp_path / "run" / "examples.parquet").read_bytes()
    student(world, tmp_path / "run", settings=quick(seed=5), if_exists="overwrite")
    assert (tmp_path / "run" / "examples.parquet").read_bytes() != before
    student(world, tmp_path / "run", validation=[], if_exists="overwrite")
    assert not (tmp_path / "run" / "examples.parquet").exists()
    assert json.loads((tmp_path / "run" / "scores.json").read_text())["teacher"] == []
    assert read_student_scores(tmp_path / "run").notes == ()


def test_a_fine_tuned_model_is_compared_with_nothing(world, tmp_path):
    result = finetune(
        world["teacher"],
        task="classification",
        train=world["train"],
        validation=[world["dev"]],
        out=tmp_path / "run",
        settings=quick(max_steps=2),
    )
    assert list(kept(result).tables) == [("student", "dev")]
    content = json.loads((tmp_path / "run" / "scores.json").read_text())
    assert (content["teacher"], content["untrained"]) == ([], [])
    assert content["chance"]["dev"]["accuracy"] == 11 / 21


def test_the_bar_says_what_is_scored(world, tmp_path, capsys):
    student(world, tmp_path / "run", progress=True)
    shown = capsys.readouterr().err
    for what in ("untrained students", "the teacher", "trained models"):
        assert f"scoring {what}: 100%" in shown
    assert "21/21" in shown
    student(world, tmp_path / "quiet")
    assert "scoring" not in capsys.readouterr().err
