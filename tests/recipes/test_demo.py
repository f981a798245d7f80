"""The demo end to end with models that learn nothing, the bar over its stages, and what is new about `--seed`."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

import anglekit
import anglekit_data
from anglekit.errors import InputError
from anglekit.recipes import reproduce as reproduce_module
from anglekit.recipes import reproduction_stages as stages
from anglekit.recipes.own_sources import with_own_sources
from anglekit.recipes.published import result_frame, result_text
from anglekit.recipes.recipe_files import load_recipe
from anglekit.recipes.reproduce import run_demo
from anglekit.recipes.stage_bar import Followed, StageBar, last_log
from anglekit.results.geometry import Geometry
from anglekit.results.scores import read_student_scores
from anglekit.vocabulary import INITS
from anglekit_cli.main import app
from tests.recipes.small_recipes import write_small_demo

STRATEGIES = ("none", "forward", "reverse", "all-to-one", "random")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The demo's recipe, small, in the place of the one that comes with anglekit."""
    file = write_small_demo(tmp_path_factory.mktemp("small") / "small.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reproduce_module, "DEMO_RECIPE", str(file))
        yield file


@pytest.fixture(scope="module")
def demo(small, tmp_path_factory):
    return run_demo(tmp_path_factory.mktemp("demo") / "run", seed=3)


# ---- a whole run ----


def test_a_demo_leaves_everything_behind(demo):
    directory = Path(demo.directory)
    assert {path.name for path in directory.iterdir()} == {
        *("corpus.md", "untrained", "teacher", "sweep-3-layers", "geometry-3-layers"),
        *("scores.csv", "result.csv", "result.json", "figure.png", "reproduce.json"),
    }
    assert (directory / "corpus.md").read_text(encoding="utf-8") == anglekit_data.data_card("inference")
    begun = json.loads((directory / "reproduce.json").read_text())["begun_with"]
    assert set(begun["tables"]) == {"train", "validation", "probe"}


def test_a_demo_has_a_teacher_and_five_strategies_from_two_starts(demo):
    stored = pd.read_csv(Path(demo.directory) / "scores.csv", keep_default_na=False)
    assert stored["model"].tolist() == ["teacher", *["student"] * 10]
    students = stored[stored["model"] == "student"]
    assert set(zip(students["strategy"], students["init"], strict=True)) == {
        (strategy, init) for strategy in STRATEGIES for init in ("random", "teacher")
    }
    assert set(students["steps"].astype(float)) == {5}
    assert set(students["seed"].astype(float)) == {3}


def test_its_students_know_what_to_be_compared_with(demo):
    """The sweep's teacher is scored as its own run was; students that begin alike have the same untrained scores."""
    found = read_student_scores(Path(demo.directory) / "sweep-3-layers")
    stored = pd.read_csv(Path(demo.directory) / "scores.csv", keep_default_na=False).iloc[0]
    assert found.primary == "accuracy"
    assert found.teacher["validation", "accuracy"] == pytest.approx(float(stored["accuracy"]), abs=1e-12)
    assert found.n_examples == {"validation": int(stored["examples"])}
    assert len(found.untrained) == len(found.examples) == 2 * 10
    untrained = {
        init: {found.untrained[one, init, 3, "validation", "accuracy"] for one in STRATEGIES} for init in INITS
    }
    assert [len(values) for values in untrained.values()] == [1, 1]
    assert 1 / 3 <= found.chance["validation", "accuracy"] < 0.6


def test_its_answer_is_that_of_compare(demo):
    places = [Path(demo.directory) / name for name in ("sweep-3-layers", "geometry-3-layers")]
    assert demo.verdicts == {"3-layers": anglekit.compare(places).headline}


def test_its_geometry_is_of_all_students_and_of_other_texts(demo):
    geometry = Geometry.load(Path(demo.directory) / "geometry-3-layers")
    assert len(geometry.students) == 10
    assert {geometry.student_init(name) for name in geometry.students} == {"random", "teacher"}
    assert geometry.provenance["probe"]["source"] == "builtin:inference:test"
    assert set(geometry.angles["vertex"]) == {0, 1, 2, 3}
    assert set(geometry.angles["teacher_k"]) == {1, 2, 3, 4}


def test_a_seed_decides_everything_random(small):
    recipe = with_own_sources(load_recipe(small), seed=3)
    assert (recipe.teacher.seed, recipe.teacher.training.data_seed) == (3, 3)
    assert (recipe.students.seeds, recipe.students.training.data_seed) == ((3,), 3)
    assert recipe.analysis.seed == 3
    assert with_own_sources(load_recipe(small), seed=3, seeds=(4, 5)).students.seeds == (4, 5)
    # The seed that a file without seeds has anyway, only said.
    written = load_recipe(small)
    assert with_own_sources(written, seed=0) == replace(
        written,
        teacher=replace(written.teacher, training=written.teacher.training.changed(data_seed=0)),
        students=replace(written.students, training=written.students.training.changed(data_seed=0)),
    )
    with pytest.raises(InputError, match=r"--seed is -1; allowed: 0 to 4294967295"):
        run_demo("nowhere", seed=-1)
    assert not Path("nowhere").exists()


def test_another_seed_is_not_mixed_in(demo):
    with pytest.raises(InputError, match=r"holds another reproduction \(recipe\..*seed: 4 here, 3 there\)"):
        run_demo(demo.directory, seed=4)


@pytest.mark.parametrize("name", ["thesis.tex", "summary.json"])
def test_what_no_demo_wrote_is_never_replaced(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=f"holds {re.escape(name)} and no reproduction"):
        run_demo(tmp_path, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_the_command_prints_the_table_the_answer_and_json(demo):
    again = ["demo", "--out", demo.directory, "--seed", "3"]
    shown = CliRunner().invoke(app, again)
    assert shown.exit_code == 0
    said = demo.verdicts["3-layers"]
    assert shown.stdout.startswith(f"{said.text}\n")
    assert all(f" {strategy} " in shown.stdout for strategy in STRATEGIES)
    assert "published  " not in shown.stdout
    printed = CliRunner().invoke(app, [*again, "--json"])
    assert json.loads(printed.stdout)["verdicts"] == {
        "3-layers": {"headline": said.line, "beneath": list(said.beneath)}
    }
    assert printed.stderr == ""
    assert CliRunner().invoke(app, [*again, "--quiet"]).stdout == ""


def test_the_number_of_threads_is_the_recipes_and_then_as_before(two_threads, demo, monkeypatch):
    assert load_recipe("builtin-inference").threads == 1
    with stages.cpu_threads(1):
        assert torch.get_num_threads() == 1
    with stages.cpu_threads(None):
        assert torch.get_num_threads() == 2
    Path(demo.directory, "figure.png").unlink()
    seen = []
    draw = stages.draw
    monkeypatch.setattr(stages, "draw", lambda *given: (seen.append(torch.get_num_threads()), draw(*given)))
    run_demo(demo.directory, seed=3)
    assert seen == [1]
    assert torch.get_num_threads() == 2


def test_students_that_are_far_from_done_are_named(demo):
    scores = pd.read_csv(
        Path(demo.directory) / "scores.csv", keep_default_na=False, na_values={"layers": "", "width": ""}
    )
    high = scores.assign(accuracy=scores["model"].map({"teacher": 0.9, "student": 0.85}))
    assert "below the teacher" not in result_text(demo.recipe, result_frame(demo.recipe, high), 1.0)
    high.loc[high["init"] == "random", "accuracy"] = 0.6
    said = "from random weights the best student of 3 layers is 30.0 below the teacher (validation: 90.0)"
    text = result_text(demo.recipe, result_frame(demo.recipe, high), 1.0)
    assert said in text
    assert text.count("below the teacher") == 1


# ---- the bar ----


def test_what_stands_last_in_a_metrics_file_counts(tmp_path):
    file = tmp_path / "metrics.jsonl"
    assert last_log(file) == {"step": 0}
    file.write_text("")
    assert last_log(file) == {"step": 0}
    file.write_text('": 1}\n{"step": 10, "loss": 1.0}\n{"step": 20, "eval_loss": 2.0}\n{"step": 3')
    assert last_log(file) == {"step": 20, "loss": 1.0, "eval_loss": 2.0}
    file.write_text('{"step": 10')
    assert last_log(file) == {"step": 0}


def test_the_bar_follows_the_runs_and_ends_full(tmp_path, capsys):
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    with StageBar({"first": 1.0, "second": 3.0}, shown=True) as bar:
        with bar.stage("first"):
            pass
        assert bar.share == pytest.approx(0.25)
        with bar.stage("second", Followed((one, two), 10)):
            one.write_text('{"step": 5}\n')
            two.write_text('{"step": 10}\n')
            bar.look()
            assert bar.share == pytest.approx(0.25 + 0.75 * 0.75)
            one.write_text('{"step": 10}\n')
            bar.look()
        assert bar.share == pytest.approx(1.0)
    shown = capsys.readouterr().err
    assert "[1/2] first" in shown
    assert "[2/2] second" in shown
    assert re.search(r"\d\d:\d\d left, 1/2 students", shown)
    assert re.search(r"\d\d:\d\d left, 2/2 students, scoring", shown)


def test_what_was_done_before_says_nothing_about_the_speed(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("anglekit.recipes.stage_bar.perf_counter", lambda: now[0])
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text('{"step": 50, "loss": 0.5}\n')
    with StageBar({"done": 5.0, "resumed": 1.0, "last": 2.0}, shown=False) as bar:
        bar.skip("done")
        with bar.stage("resumed", Followed((metrics,), 100)):
            assert bar._seconds_left() is None
            metrics.write_text('{"step": 75, "loss": 0.25}\n')
            now[0] += 10
            # A quarter of this stage took 10 s: the last quarter takes as long, and the last stage 2 x 40 s.
            assert bar._seconds_left() == pytest.approx(10 + 80)
        with bar.stage("last"):
            now[0] += 5
            assert bar._seconds_left() == pytest.approx(2 * 10 / 0.5 - 5)


def test_a_bar_that_is_not_shown_prints_nothing(capsys):
    with StageBar({"only": 1.0}, shown=False) as bar, bar.stage("only"):
        pass
    assert capsys.readouterr() == ("", "")
