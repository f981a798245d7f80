"""The scores of runs and sweeps, read as they were written, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from anglekit.comparison.compare import compare
from anglekit.errors import InputError
from anglekit.results.scores import SCORE_COLUMNS, read_score_table, read_student_scores, scored_as
from tests.comparison.compare_corpus import score_rows, write_run, write_sweep
from tests.results.example_corpus import keep_examples


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
    assert found.notes == (
        f"{found.source}: 4 of 5 arms are finished; go on with `anglekit sweep --resume`",
        f"{found.source}: beware",
    )


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


# ---- examples, teacher, untrained student and chance ----

ACCURACIES = {"student": 0.8, "untrained": 0.5, "teacher": 0.9}


def swept_with_examples(root: Path, strategies: tuple[str, ...] = ("none", "forward")) -> Path:
    """Return a sweep whose arms kept their examples."""
    rows = []
    for number, strategy in enumerate(strategies):
        keep_examples(root / f"{strategy}-random-seed0", ACCURACIES, seed=10 * number)
        row = json.loads((root / f"{strategy}-random-seed0" / "scores.json").read_text())["scores"][0]
        rows.append({"strategy": strategy, "init": "random", "seed": 0, **row})
    return write_sweep(root, rows)


def test_a_run_gives_its_examples_and_what_to_compare_it_with(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "forward", 0.75, seed=3)
    kept = keep_examples(run, ACCURACIES)
    found = read_student_scores(run)
    arm = ("forward", "random", 3, "validation")
    assert found.examples.keys() == {(*arm, "accuracy"), (*arm, "macro_f1")}
    for name in ("accuracy", "macro_f1"):
        value = found.table.loc[found.table["score"] == name, "value"].item()
        assert found.examples[(*arm, name)].mean() == pytest.approx(value, abs=1e-12)
        assert found.teacher["validation", name] == kept.score("teacher", "validation", name)
        assert found.untrained[(*arm, name)] == kept.score("untrained", "validation", name)
    assert (found.n_examples, found.primary, found.notes) == ({"validation": 50}, "accuracy", ())
    assert found.chance == {("validation", "accuracy"): 0.5}


def test_a_sweep_gives_the_examples_of_all_its_arms(tmp_path: Path) -> None:
    found = read_student_scores(swept_with_examples(tmp_path / "sweep"))
    keys = {(strategy, "random", 0, "validation", "accuracy") for strategy in ("none", "forward")}
    assert keys <= found.examples.keys()
    assert keys <= found.untrained.keys()
    first, second = (found.examples[key] for key in sorted(keys))
    assert not np.array_equal(first, second)
    assert found.teacher.keys() == {("validation", "accuracy"), ("validation", "macro_f1")}
    assert found.unfinished is None


def test_a_run_of_an_earlier_version_has_scores_alone(tmp_path: Path) -> None:
    for directory in (
        write_run(tmp_path / "run", "none", 0.7),
        write_sweep(tmp_path / "sweep", score_rows({"a": 0.5})),
    ):
        found = read_student_scores(directory)
        assert (found.examples, found.teacher, found.untrained, found.chance) == ({}, {}, {}, {})
        assert found.primary is None
        assert found.n_examples == {"validation": 1000}


def test_a_run_whose_examples_are_gone_says_so(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "forward", 0.75)
    keep_examples(run, ACCURACIES)
    (run / "examples.parquet").unlink()
    found = read_student_scores(run)
    assert found.notes == (f"{run / 'examples.parquet'} is missing, so that only seeds can be resampled",)
    assert (found.examples, found.primary) == ({}, "accuracy")
    assert found.teacher


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"scores": [{"data": "validation", "examples": 50, "accuracy": 0.25}]},
            "give accuracy 0.[0-9]+, and its score",
        ),
        (
            {"scores": [{"data": "validation", "examples": 49}]},
            "holds 50 examples of the student on 'validation', which",
        ),
        ({"teacher": [{"data": "test", "examples": 50}]}, "holds no examples of the teacher on 'test'"),
        (
            {"untrained": [{"data": "validation", "accuracy": 0.01}]},
            "the examples of the untrained on 'validation' give",
        ),
    ],
)
def test_examples_of_other_scores_are_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    run = write_run(tmp_path / "run", "forward", 0.75)
    keep_examples(run, ACCURACIES)
    content = json.loads((run / "scores.json").read_text())
    (run / "scores.json").write_text(json.dumps(content | change))
    with pytest.raises(InputError, match=f"examples.parquet.*{message}.*; run it again, or leave it out$"):
        read_student_scores(run)


def test_a_sweep_whose_table_and_runs_differ_is_refused(tmp_path: Path) -> None:
    sweep = swept_with_examples(tmp_path / "sweep")
    table = pd.read_csv(sweep / "scores.csv", keep_default_na=False)
    table.assign(accuracy=0.125).to_csv(sweep / "scores.csv", index=False)
    with pytest.raises(
        InputError, match=r"has accuracy 0.125 for none-random-seed0 .*scores.json .*; resume the sweep"
    ):
        read_student_scores(sweep)


@pytest.mark.parametrize(
    ("column", "cell", "message"),
    [
        ("accuracy", "", r"has no accuracy for none-random-seed0 on 'validation', and .*scores.json 0"),
        ("accuracy", "1e999", r"has no accuracy for none-random-seed0 on"),
        ("strategy", "sideways", r"has a row of sideways, random, seed 0, which is no arm of sweep.json"),
    ],
)
def test_a_sweep_table_that_lacks_an_arm_or_has_another_is_refused(tmp_path: Path, column, cell, message) -> None:
    sweep = swept_with_examples(tmp_path / "sweep")
    table = pd.read_csv(sweep / "scores.csv", keep_default_na=False, dtype=object)
    table.loc[0, column] = cell
    table.to_csv(sweep / "scores.csv", index=False)
    with pytest.raises(InputError, match=f"scores.csv {message}.*; resume the sweep to write it again$"):
        read_student_scores(sweep)


@pytest.mark.parametrize("cell", ["0.8x", "oops", "0,8"])
def test_a_score_that_is_no_number_is_refused_by_row_and_column(tmp_path: Path, cell: str) -> None:
    sweep = write_sweep(tmp_path / "sweep", score_rows({"none": 0.5, "forward": 0.75}, seeds=(0, 1)))
    table = pd.read_csv(sweep / "scores.csv", keep_default_na=False, dtype={"accuracy": object})
    table.loc[2, "accuracy"] = cell
    table.to_csv(sweep / "scores.csv", index=False)
    wanted = rf"scores.csv, row 2 \(counted from 0\), column 'accuracy', holds '{cell}', which is no number; "
    with pytest.raises(InputError, match=f"{wanted}resume the sweep to write it again"):
        read_student_scores(sweep)
    with pytest.raises(InputError, match=f"{wanted}give another"):
        read_score_table(sweep / "scores.csv", "give another")
    table.assign(accuracy=cell).to_csv(sweep / "scores.csv", index=False)
    with pytest.raises(InputError, match=r"row 0 \(counted from 0\), column 'accuracy'"):
        read_student_scores(sweep)


def test_a_killed_sweep_says_how_to_go_on(tmp_path: Path) -> None:
    rows = score_rows({"none": 0.5}, seeds=(0, 1))
    arms = [{"name": f"{name}-random-seed{seed}"} for name in ("none", "forward") for seed in (0, 1)]
    sweep = write_sweep(tmp_path / "sweep", rows, arms=arms)
    found = read_student_scores(sweep)
    assert found.unfinished == f"{sweep}: 2 of 4 arms are finished; go on with `anglekit sweep --resume`"
    assert found.unfinished in found.notes
    with pytest.raises(InputError, match=r"one strategy, none, and .*2 of 4 arms are finished; go on with .*--resume"):
        compare([sweep])


def test_what_a_sweep_stopped_is_neither_finished_nor_unfinished(tmp_path: Path) -> None:
    rows = score_rows({"forward": 0.5}, seeds=(0, 1))
    arms = [
        {"name": f"{name}-random-seed{seed}", "strategy": name, "init": "random", "seed": seed}
        for name in ("forward", "reverse")
        for seed in (0, 1)
    ]
    stopping = {"stopped": {"reverse-random-seed0": 40, "reverse-random-seed1": 0}, "stopping": {"steps": 1000}}
    sweep = write_sweep(tmp_path / "sweep", rows, arms=arms, **stopping)
    found = read_student_scores(sweep)
    assert found.unfinished is None
    assert [one.words for one in found.stopped] == ["reverse at step 40 of 1,000"]
    with pytest.raises(
        InputError, match=r"one strategy, forward, as the sweep stopped others as hopeless \(reverse at"
    ):
        compare([sweep])
    more = [*arms, {"name": "none-random-seed0", "strategy": "none", "init": "random", "seed": 0}]
    killed = read_student_scores(write_sweep(tmp_path / "killed", rows, arms=more, **stopping))
    assert killed.unfinished is not None
    assert "2 of 5 arms are finished and 2 were stopped as hopeless; go on with" in killed.unfinished


def test_an_arm_whose_name_is_a_path_is_refused(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path / "sweep", score_rows({"none": 0.5}), arms=[{"name": "../run"}])
    with pytest.raises(InputError, match=r"sweep.json.*no arm is called '\.\./run'"):
        read_student_scores(sweep)
