"""The scores of runs and sweeps, read as they were written, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from anglekit.errors import InputError
from anglekit.results.scores import SCORE_COLUMNS, read_score_table, read_student_scores, scored_as
from tests.comparison.compare_corpus import score_rows, write_run, write_sweep


def test_a_run_is_its_arm_with_a_row_for_each_score(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "forward", 0.75, seed=3)
    content = json.loads((run / "scores.json").read_text())
    content["scores"][0] |= {"f1": 0.5, "loss": float("nan"), "steps": 9, "best": True}
    (run / "scores.json").write_text(json.dumps(content))
    found = read_student_scores(run)
    assert scored_as(run) == "run"
    arm = ("forward", "random", 3, "validation")
    assert found.table.to_dict("split")["data"] == [[*arm, "accuracy", 0.75, str(run)], [*arm, "f1", 0.5, str(run)]]
    assert (found.training.task, found.training.tables["train"].sha256) == ("sst2", "1" * 64)
    assert found.notes == (f"{run}: loss of forward, random, seed 3 is nan and is left out",)


def test_a_sweep_is_its_table_with_a_note_about_what_is_unfinished(tmp_path: Path) -> None:
    rows = score_rows({"none": 0.5, "forward": 0.75}, seeds=(0, 1))
    arms = [{"name": str(number)} for number in range(5)]
    found = read_student_scores(write_sweep(tmp_path / "sweep", rows, arms=arms, warnings=["beware"]))
    assert list(found.table.columns) == list(SCORE_COLUMNS)
    assert list(found.table["strategy"]) == ["none", "forward"] * 2  # "none" is a strategy, not a missing value
    assert list(found.table["value"]) == [row["accuracy"] for row in rows]
    assert found.notes == (f"{found.source}: 4 of 5 arms are finished", f"{found.source}: beware")


def test_a_table_leaves_out_the_teacher_and_what_is_no_number(tmp_path: Path) -> None:
    file = tmp_path / "scores.csv"
    file.write_text("strategy,init,seed,data,bleu,note\n,,,dev,1,x\nforward,random,0,dev,,x\nnone,random,0,dev,inf,x\n")
    table, notes = read_score_table(file, "give another")
    assert table.empty
    assert notes == [f"{file}: bleu of none, random, seed 0 is inf and is left out"]
    file.write_text("strategy,init,seed,data\nnone,random,0.5,dev\n")
    with pytest.raises(InputError, match="a seed that is no whole number; give another"):
        read_score_table(file, "give another")


def test_what_is_neither_a_run_nor_a_sweep_is_told_apart(tmp_path: Path) -> None:
    assert scored_as(tmp_path) is None
    (tmp_path / "run_config.json").write_text("{}")
    assert scored_as(tmp_path) == "run"
    with pytest.raises(InputError, match="holds an unfinished run"):
        read_student_scores(tmp_path)
    (tmp_path / "scores.json").write_text(json.dumps({"format": "anglekit-scores-9", "scores": []}))
    with pytest.raises(InputError, match=r"scores.json: format 'anglekit-scores-9'; this anglekit reads"):
        read_student_scores(tmp_path)
