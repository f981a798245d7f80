"""The demo end to end with models that learn nothing, its answer on numbers made up for each case, and its refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from scipy.stats import studentized_range
from typer.testing import CliRunner

import anglekit.recipes.demo as demo_module
from anglekit.errors import InputError
from anglekit.recipes.demo import run_demo
from anglekit.recipes.demo_answer import (
    _RANGE_95,
    InitComparison,
    answer_sentence,
    compare_matchings,
    unfinished_learning,
)
from anglekit.recipes.demo_progress import StageBar, last_logged_step
from anglekit.results.geometry import Geometry
from anglekit_cli.main import app
from anglekit_data.demo_settings import DemoSettings

TINY = DemoSettings(
    train_rows=96,
    teacher_layers=4,
    width=8,
    heads=2,
    intermediate=8,
    teacher_batch_size=8,
    student_batch_size=8,
    teacher_steps=6,
    student_layers=3,
    student_steps=5,
    probe_rows=12,
)
STRATEGIES = ("none", "forward", "reverse", "all-to-one", "random")


def comparison(baseline, *matched, init="random", examples=1500):
    return InitComparison(init, baseline, dict(zip(STRATEGIES[1:], matched, strict=True)), examples)


def files_of(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    directory = tmp_path_factory.mktemp("demo") / "run"
    return run_demo(directory, seed=3, settings=TINY)


# ---- a whole run ----


def test_a_demo_leaves_everything_behind_and_says_so(demo):
    directory = Path(demo.directory)
    assert files_of(directory) == {
        "corpus.md",
        "tokenizer",
        "untrained",
        "teacher",
        "sweep",
        "geometry",
        "figure1.png",
        "scores.csv",
        "summary.json",
    }
    summary = json.loads((directory / "summary.json").read_text())
    assert summary["seed"] == 3
    assert summary["answer"] == demo.sentence
    assert summary["settings"]["teacher_layers"] == 4
    assert set(summary["corpus"]) == {"train", "validation", "probe"}
    assert (directory / "figure1.png").read_bytes().startswith(b"\x89PNG")


def test_a_demo_has_a_teacher_and_five_strategies_from_two_starts(demo):
    stored = pd.read_csv(Path(demo.directory) / "scores.csv", keep_default_na=False)
    assert stored["model"].tolist() == ["teacher", *["student"] * 10]
    students = stored[stored["model"] == "student"]
    assert set(zip(students["strategy"], students["init"], strict=True)) == {
        (strategy, init) for strategy in STRATEGIES for init in ("random", "teacher")
    }
    assert set(students["steps"]) == {5}
    assert set(students["data"]) == {"validation"}
    assert demo.teacher_accuracy == stored["accuracy"].iloc[0]


def test_a_demos_sentence_comes_from_its_own_scores(demo):
    table = {(row.strategy, row.init): row.accuracy for row in demo.scores.iloc[1:].itertuples()}
    again = compare_matchings(table, int(demo.scores["examples"].iloc[1]))
    assert answer_sentence(again, seed=3, steps=5) == demo.sentence
    other = compare_matchings({**table, ("none", "random"): 1.0}, 96)
    assert answer_sentence(other, seed=3, steps=5) != demo.sentence


def test_a_demos_geometry_is_of_all_students_and_of_other_texts(demo):
    geometry = Geometry.load(Path(demo.directory) / "geometry")
    assert len(geometry.students) == 10
    assert {geometry.student_init(name) for name in geometry.students} == {"random", "teacher"}
    assert geometry.provenance["probe"]["source"] == "builtin:inference:test"
    assert set(geometry.angles["vertex"]) == {0, 1, 2, 3}
    assert set(geometry.angles["teacher_k"]) == {1, 2, 3, 4}


def test_the_stages_fill_the_time(demo):
    stages = {name: value for name, value in demo.seconds.items() if name != "total"}
    assert set(stages) == {"start", "teacher", "ten students", "geometry", "figure"}
    assert 0 < sum(stages.values()) <= demo.seconds["total"]


@pytest.mark.slow
def test_a_seed_repeats_a_demo(demo, tmp_path):
    again = run_demo(tmp_path / "again", seed=3, settings=TINY)
    pd.testing.assert_frame_equal(again.scores, demo.scores)
    one, two = (Geometry.load(Path(run.directory) / "geometry").angles for run in (demo, again))
    pd.testing.assert_frame_equal(one, two)


@pytest.mark.slow
def test_an_interrupted_demo_is_marked_and_another_seed_replaces_it(demo, tmp_path, monkeypatch):
    import anglekit.recipes.demo_stages as stages

    directory = tmp_path / "run"

    def interrupt(*_arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(stages, "train_students", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run_demo(directory, settings=TINY)
    assert "UNFINISHED" in files_of(directory)
    assert "summary.json" not in files_of(directory)
    (directory / ".geometry-killed").mkdir()
    before = files_of(directory)
    with pytest.raises(InputError, match=r"holds an unfinished demo.*--overwrite"):
        run_demo(directory, settings=TINY)
    assert files_of(directory) == before
    run_demo(directory, seed=4, settings=TINY, overwrite=True)
    one, other = (Geometry.load(Path(place) / "geometry").angles for place in (demo.directory, directory))
    assert not one.equals(other)
    assert not files_of(directory) & {"UNFINISHED", ".geometry-killed"}


def test_one_thread_computes_and_as_many_as_before_after_it():
    from anglekit.recipes.demo_stages import one_thread

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


# ---- refusals ----


def test_a_directory_that_exists_is_refused_in_one_line(tmp_path):
    done = CliRunner().invoke(app, ["demo", "--out", str(tmp_path)])
    assert isinstance(done.exception, InputError)
    assert done.exception.exit_code == 2
    assert str(done.exception) == f"{tmp_path} exists; choose another directory, or replace it with --overwrite"
    assert files_of(tmp_path) == set()


@pytest.mark.parametrize("name", ["thesis.tex", "summary.json", "scores.csv"])
def test_what_no_demo_wrote_is_never_replaced(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=r"it is not replaced"):
        run_demo(tmp_path, settings=TINY, overwrite=True)
    assert (tmp_path / name).read_text() == "mine"
    assert files_of(tmp_path) == {name}


def test_a_file_a_path_through_a_file_and_a_seed_out_of_range_are_refused(tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(InputError, match="is a file"):
        run_demo(file, settings=TINY, overwrite=True)
    with pytest.raises(InputError, match="a part of its path is a file"):
        run_demo(file / "run", settings=TINY)
    with pytest.raises(InputError, match="the seed is -1"):
        run_demo(tmp_path / "run", seed=-1, settings=TINY)
    assert files_of(tmp_path) == {"file"}


def test_the_command_prints_the_table_the_answer_and_json(demo, monkeypatch):
    asked = []

    def stored(out, **options):
        asked.append((str(out), options))
        return demo

    monkeypatch.setattr(demo_module, "run_demo", stored)
    shown = CliRunner().invoke(app, ["demo", "--out", "somewhere", "--seed", "7"])
    assert shown.exit_code == 0
    assert asked == [("somewhere", {"seed": 7, "overwrite": False, "progress": True})]
    assert demo.sentence in shown.stdout
    assert all(f"\n{strategy} " in shown.stdout for strategy in STRATEGIES)
    printed = CliRunner().invoke(app, ["demo", "--json"])
    assert json.loads(printed.stdout)["answer"] == demo.sentence
    assert CliRunner().invoke(app, ["demo", "--quiet"]).stdout == ""


# ---- the answer ----


@pytest.mark.parametrize(
    ("one", "answer"),
    [
        (comparison(0.60, 0.85, 0.84, 0.86, 0.85), "hardly"),
        (comparison(0.60, 0.85, 0.70, 0.86, 0.65), "yes"),
        (comparison(0.85, 0.86, 0.85, 0.84, 0.85), "unclear"),
        (comparison(0.85, 0.86, 0.40, 0.84, 0.85), "yes"),
        (comparison(0.90, 0.61, 0.60, 0.62, 0.61), "hardly"),
        (comparison(0.60, 0.85, 0.84, 0.86, 0.85, examples=10), "unclear"),
    ],
)
def test_the_answer_weighs_the_spread_against_the_gain_and_against_chance(one, answer):
    assert one.answer == answer


def test_spread_and_gain_are_what_they_say():
    one = comparison(0.5, 0.7, 0.6, 0.9, 0.8)
    assert one.spread == pytest.approx(0.3)
    assert one.gain == pytest.approx(0.25)


@pytest.mark.parametrize("matchings", sorted(_RANGE_95))
def test_the_range_by_chance_is_tukeys(matchings):
    assert _RANGE_95[matchings] == pytest.approx(studentized_range.ppf(0.95, matchings, 1e6), abs=2e-3)


def test_the_sentence_has_one_answer_where_both_starts_agree():
    both = [comparison(0.60, 0.85, 0.84, 0.86, 0.85), comparison(0.70, 0.9, 0.9, 0.91, 0.9, init="teacher")]
    sentence = answer_sentence(both, seed=0, steps=600)
    assert sentence.startswith("Does it matter which layer? In this one run (seed 0, 600 steps a student, 1500 ")
    assert "validation examples) hardly: " in sentence
    assert "from random weights the 4 matchings end 2.0 points apart (reverse 84.0%, all-to-one 86.0%)" in sentence
    assert "matching gains 25.0 points over none (60.0%) on average" in sentence
    assert sentence.count(". ") == 0
    assert sentence.endswith(".")


def test_the_sentence_answers_each_start_where_they_differ_and_names_a_loss():
    mixed = [comparison(0.60, 0.85, 0.84, 0.86, 0.85), comparison(0.91, 0.9, 0.9, 0.4, 0.9, init="teacher")]
    sentence = answer_sentence(mixed, seed=5, steps=600)
    assert "it depends on where the student starts" in sentence
    assert "from random weights hardly," in sentence
    assert "from the teacher's weights yes," in sentence
    assert "matching costs 13.5 points over none" in sentence


def test_what_chance_could_give_is_said():
    told = answer_sentence([comparison(0.85, 0.86, 0.85, 0.84, 0.85)], seed=0, steps=600)
    assert "this run cannot tell" in told
    assert told.count("chance") == 2
    assert "chance" not in answer_sentence([comparison(0.2, 0.85, 0.5, 0.86, 0.85)], seed=0, steps=600)


def test_students_that_are_far_from_done_are_named():
    early, done = comparison(0.35, 0.6, 0.35, 0.36, 0.5), comparison(0.7, 0.88, 0.87, 0.8, 0.85, init="teacher")
    (warning,) = unfinished_learning([early, done], teacher=0.9, steps=600)
    assert warning.startswith(
        "from random weights the best student is 30.0 points below the teacher (90.0%): 600 steps"
    )
    assert unfinished_learning([done], teacher=0.9, steps=600) == ()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: comparison(1.2, 0.5, 0.5, 0.5, 0.5), "an accuracy is 1.2"),
        (lambda: comparison(0.2, 0.5, 0.5, 0.5, 0.5, examples=0), "over 0 examples"),
        (lambda: InitComparison("random", 0.5, {"forward": 0.6}, 9), "1 matchings are compared"),
        (lambda: compare_matchings({("forward", "random"): 0.5, ("reverse", "random"): 0.5}, 9), "without matching"),
        (lambda: answer_sentence([], seed=0, steps=600), "no students to compare"),
    ],
)
def test_what_cannot_be_compared_is_refused(call, said):
    with pytest.raises(InputError, match=said):
        call()


# ---- the bar ----


def test_the_last_whole_line_of_a_metrics_file_counts(tmp_path):
    file = tmp_path / "metrics.jsonl"
    assert last_logged_step(file) == 0
    file.write_text("")
    assert last_logged_step(file) == 0
    file.write_text('{"step": 10, "loss": 1.0}\n{"step": 20}\n{"step": 3')
    assert last_logged_step(file) == 20
    file.write_text('{"step": 10')
    assert last_logged_step(file) == 0


def test_the_bar_follows_the_runs_and_ends_full(tmp_path, capsys):
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    with StageBar({"first": 1.0, "second": 3.0}, shown=True) as bar:
        with bar.stage("first"):
            pass
        assert bar.share == pytest.approx(0.25)
        one.write_text('{"step": 5}\n')
        two.write_text('{"step": 10}\n')
        with bar.stage("second", [one, two], steps=10):
            bar.look()
            assert bar.share == pytest.approx(0.25 + 0.75 * 0.75)
        assert bar.share == pytest.approx(1.0)
    assert set(bar.seconds) == {"first", "second"}
    shown = capsys.readouterr().err
    assert "[1/2] first" in shown
    assert "[2/2] second" in shown
    assert "left" in shown


def test_a_bar_that_is_not_shown_prints_nothing(capsys):
    with StageBar({"only": 1.0}, shown=False) as bar, bar.stage("only"):
        pass
    assert capsys.readouterr() == ("", "")
