"""A recipe run on local files from the teacher to the figure: what it leaves behind, and going on after any kill."""

from __future__ import annotations

import json
import random
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from anglekit.errors import AnglekitError, InputError, RunError
from anglekit.recipes import reproduction_stages as stages
from anglekit.recipes.own_sources import with_own_sources
from anglekit.recipes.recipe_files import load_recipe
from anglekit.recipes.reproduce import reproduce, stage_names
from anglekit.results.geometry import Geometry
from anglekit_cli.main import app
from tests.cli.launching import together

STAGES = ("teacher", "sweep-2-layers", "evaluation", "geometry-2-layers", "figure")
LEFT = {
    *("reproduce.json", "teacher", "sweep-2-layers", "geometry-2-layers"),
    *("scores.csv", "result.csv", "result.json", "figure.png"),
}


def write_table(path: Path, words, rows: int, seed: int) -> str:
    """Write pairs whose label is told by one word."""
    draw = random.Random(seed)
    lines = ["premise,hypothesis,label"]
    for row in range(rows):
        label = ("entailment", "neutral", "contradiction")[row % 3]
        telling = ("good", "dull", "bad")[row % 3]
        lines.append(f"{' '.join(draw.choices(words[:3], k=4))},{telling} {draw.choice(words[:3])},{label}")
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@pytest.fixture(scope="module")
def world(tmp_path_factory, save_tiny, words):
    """Local stand-ins for all that the MNLI recipe has on the hub, and the recipe shortened to 2 steps, in a file."""
    root = tmp_path_factory.mktemp("world")
    recipe = yaml.safe_load(Path(__file__).parents[2].joinpath("anglekit/recipes/mnli.yaml").read_text())
    for part in ("teacher", "students"):
        training = recipe[part]["training"]
        del training["epochs"]
        training |= {"max_steps": 2, "batch_size": 8, "learning_rate": 1e-3, "evaluate_every": 1, "log_every": 1}
        training["max_length"] = 32
    recipe["students"] |= {
        "layers": [2],
        "strategies": ["none", "forward", "reverse"],
        "inits": ["random"],
        "seeds": [0, 1],
    }
    recipe["published"]["layers"] = 2
    recipe["analysis"]["limit"] = 12
    recipe["teacher"]["model"] = str(save_tiny(root / "bert", "bert", depth=4))
    recipe["data"]["train"] = write_table(root / "train.csv", words, 48, 0)
    recipe["data"]["validation"] = {
        "matched": write_table(root / "matched.csv", words, 18, 1),
        "mismatched": write_table(root / "mismatched.csv", words, 15, 2),
    }
    recipe["analysis"]["probe"] = recipe["data"]["validation"]["matched"]
    (root / "mine.yaml").write_text(yaml.safe_dump(recipe))
    return root


def mine(world):
    return load_recipe(world / "mine.yaml")


@pytest.fixture(scope="module")
def done(world, tmp_path_factory):
    lines: list[str] = []
    out = tmp_path_factory.mktemp("done") / "run"
    result = reproduce(mine(world), out, device="cpu", say=lines.append)
    return result, lines


def result_of(directory: Path) -> str:
    return (directory / "result.csv").read_text()


# ---- a whole run ----


def test_a_run_leaves_everything_behind(done):
    result, lines = done
    directory = Path(result.directory)
    assert {path.name for path in directory.iterdir()} == LEFT
    assert (directory / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert len(Geometry.load(directory / "geometry-2-layers").students) == 6
    assert [line.split("]")[0] for line in lines] == [f"[{number}/5" for number in range(1, 6)]
    assert set(result.seconds) == set(STAGES) == set(stage_names(result.recipe))
    assert json.loads((directory / "result.json").read_text()) == result.summary()


def test_the_result_stands_beside_the_published_numbers(done):
    frame = done[0].result
    scores = pd.read_csv(Path(done[0].directory) / "scores.csv", keep_default_na=False)
    row = frame[(frame["strategy"] == "forward") & (frame["data"] == "mismatched")].iloc[0]
    own = scores[(scores["strategy"] == "forward") & (scores["data"] == "mismatched")]["accuracy"].astype(float)
    assert (row["published"], row["seeds"]) == (72.0, 2)
    assert row["ours"] == pytest.approx(100 * own.mean())
    # GLUE's published numbers are the test server's: they stand beside ours, and no difference is taken.
    assert np.isnan(row["difference"])
    teacher = frame[(frame["model"] == "teacher") & (frame["data"] == "matched")].iloc[0]
    assert teacher["published"] == 84.5
    assert len(frame) == 8
    text = done[0].text
    assert "mean over seeds 0, 1" in text
    assert "its seeds and number of runs are not known here" in text
    assert re.search(r"random +forward +[\d.]+ +[\d.]+ +[\d.]+ +72\.50", text)
    assert "no differences:" in text
    assert set(done[0].verdicts) == {"2-layers"}


def test_a_run_that_is_done_runs_nothing_again(world, done, monkeypatch):
    def never(*_arguments, **_options):
        raise AssertionError("a stage ran again")

    for name in ("train_teacher", "train_students", "write_scores", "measure_geometries", "draw"):
        monkeypatch.setattr(stages, name, never)
    lines: list[str] = []
    again = reproduce(mine(world), done[0].directory, device="cpu", say=lines.append)
    pd.testing.assert_frame_equal(again.result, done[0].result)
    assert sum(line.endswith("done before") for line in lines) == 5


def test_controls_are_arms_of_the_sweep_with_a_geometry_of_their_own(world, done, tmp_path):
    recipe = mine(world)
    students = replace(recipe.students, seeds=(0,), controls=("alone", "random-teacher"))
    found = reproduce(replace(recipe, students=students), tmp_path / "run", device="cpu")
    swept, plain = tmp_path / "run" / "sweep-2-layers", Path(done[0].directory)
    alone, taught = swept / "alone-random-seed0", swept / "none-random-seed0"
    first = [json.loads((place / "metrics.jsonl").read_text().splitlines()[0]) for place in (alone, taught)]
    # The same student, data and order: only the teacher's share of the loss is missing.
    assert first[0]["loss_ce"] == first[1]["loss_ce"]
    assert first[0]["loss"] == pytest.approx(first[0]["loss_ce"])
    assert ["loss_kl" in entry for entry in first] == [False, True]
    scores = pd.read_csv(tmp_path / "run" / "scores.csv", keep_default_na=False)
    own = json.loads((alone / "scores.json").read_text())["scores"][0]["accuracy"]
    row = scores[(scores["strategy"] == "alone") & (scores["data"] == "matched")].iloc[0]
    assert (row["init"], float(row["accuracy"])) == ("random", own)
    assert list(scores["strategy"].unique()) == ["", "none", "forward", "reverse", "alone", "random-teacher"]
    assert re.search(r"random +alone +[\d.]+ +- +-", found.text)
    assert "alone: none without its KL: labels only, no teacher" in found.text
    geometry, controls = (Geometry.load(tmp_path / "run" / f"geometry-2-layers{end}") for end in ("", "-controls"))
    assert [arm.strategy for arm in geometry.arms.values()] == ["none", "forward", "reverse"]
    assert [arm.strategy for arm in controls.arms.values()] == ["alone", "random-teacher"]
    # The others are what they are without controls.
    before = Geometry.load(plain / "geometry-2-layers").angles
    seed = before[before["student"].isin(geometry.students)].reset_index(drop=True)
    pd.testing.assert_frame_equal(geometry.angles, seed)
    assert set(found.verdicts) == {"2-layers"}


# ---- going on ----


AROUND_STAGES = (
    ("train_teacher", "after"),
    ("train_students", "before"),
    ("train_students", "after"),
    ("write_scores", "after"),
    ("measure_geometries", "after"),
    ("draw", "after"),
)


def test_a_run_that_ends_around_every_stage_goes_on_to_the_same_result(world, done, tmp_path, monkeypatch):
    """Ended by Ctrl-C where a stage begins or before it is noted as done; `test_kills` kills at random moments."""
    for stage, moment in AROUND_STAGES:
        whole = getattr(stages, stage)

        def ends(*arguments, whole=whole, moment=moment, **options):
            if moment == "after":
                whole(*arguments, **options)
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(stages, stage, ends)
            with pytest.raises(KeyboardInterrupt):
                reproduce(mine(world), tmp_path / "run", device="cpu")
        assert not (tmp_path / "run" / "result.csv").exists()
    reproduce(mine(world), tmp_path / "run", device="cpu")
    assert result_of(tmp_path / "run") == result_of(Path(done[0].directory))
    assert {path.name for path in (tmp_path / "run").iterdir()} == LEFT


def copy_of(done, place):
    """Return a finished run of one's own, made in the time of a copy."""
    return Path(shutil.copytree(done[0].directory, place))


def test_what_was_removed_is_made_again(world, done, tmp_path):
    run = copy_of(done, tmp_path / "run")
    before = result_of(run)
    (run / "figure.png").unlink()
    (run / "scores.csv").unlink()
    reproduce(mine(world), run, device="cpu")
    assert (run / "figure.png").exists()
    assert (run / "scores.csv").read_bytes() == (Path(done[0].directory) / "scores.csv").read_bytes()
    assert result_of(run) == before


@pytest.fixture
def in_place(done, tmp_path):
    """A finished run where it was made, for its students name their teacher by its path; put back at the end."""
    run = Path(done[0].directory)
    shutil.copytree(run, tmp_path / "kept")
    yield run
    shutil.rmtree(run)
    shutil.copytree(tmp_path / "kept", run)


def run_again(world, run):
    lines: list[str] = []
    reproduce(mine(world), run, device="cpu", say=lines.append)
    return [line for line in lines if not line.endswith("done before")]


def test_a_student_that_was_removed_is_trained_again_where_its_geometry_is_missing(world, in_place):
    run, result = in_place, result_of(in_place)
    student = run / "sweep-2-layers" / "forward-random-seed1"
    before = student.joinpath("checkpoint", "model.safetensors").read_bytes()
    shutil.rmtree(student)
    # All that is read of it is there.
    assert run_again(world, run) == [f"going on with {run}"]
    shutil.rmtree(run / "geometry-2-layers")
    assert run_again(world, run) == [
        f"going on with {run}",
        "[2/5] train the students, 2-layers",
        "[4/5] measure the geometry, 2-layers",
    ]
    assert student.joinpath("checkpoint", "model.safetensors").read_bytes() == before
    assert result_of(run) == result


def test_a_teacher_that_was_removed_is_trained_again(world, in_place):
    run, result = in_place, result_of(in_place)
    shutil.rmtree(run / "teacher")
    shutil.rmtree(run / "geometry-2-layers")
    assert [line[:5] for line in run_again(world, run)[1:]] == ["[1/5]", "[4/5]"]
    assert result_of(run) == result


@pytest.mark.parametrize("where", ["teacher", "sweep-2-layers/none-random-seed0"])
def test_a_checkpoint_that_is_cut_is_one_line_that_says_what_to_do(world, in_place, where):
    run, result = in_place, result_of(in_place)
    shutil.rmtree(run / "geometry-2-layers")
    file = run / where / "checkpoint" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(InputError, match="or remove that directory and start again as before") as caught:
        run_again(world, run)
    assert "\n" not in str(caught.value)
    assert str(run / where) in str(caught.value)
    shutil.rmtree(run / where)
    run_again(world, run)
    assert result_of(run) == result


def test_another_recipe_scale_or_table_is_not_mixed_in(world, done, tmp_path, words):
    recipe, directory = mine(world), done[0].directory
    for changed, options, message in (
        (with_own_sources(recipe, seeds=(5,)), {}, "recipe.students.seeds: [5] here, [0, 1] there"),
        (recipe, {"scale": 0.5}, "scale: 0.5 here, 1.0 there"),
        (with_own_sources(recipe, train=write_table(tmp_path / "t.csv", words, 30, 9)), {}, "recipe.data.train: "),
    ):
        with pytest.raises(InputError, match=re.escape(message)):
            reproduce(changed, directory, device="cpu", **options)


def test_a_key_that_says_the_default_is_no_other_recipe(world, done):
    recipe, directory = mine(world), done[0].directory
    training = recipe.students.training
    said = replace(recipe, threads=1, students=replace(recipe.students, training=training.changed(data_seed=0)))
    assert reproduce(said, directory, device="cpu").result.equals(done[0].result)
    other = replace(recipe, students=replace(recipe.students, training=training.changed(data_seed=1)))
    with pytest.raises(InputError, match=r"recipe.students.training.data_seed: 1 here, 0 there"):
        reproduce(other, directory, device="cpu")


def test_a_table_that_was_edited_since_is_noticed(world, tmp_path, words, monkeypatch):
    train = write_table(tmp_path / "train.csv", words, 48, 0)
    recipe = with_own_sources(mine(world), train=train)
    monkeypatch.setattr(stages, "train_students", lambda *_a, **_k: (_ for _ in ()).throw(RunError("stop")))
    with pytest.raises(RunError, match="stop"):
        reproduce(recipe, tmp_path / "run", device="cpu")
    write_table(tmp_path / "train.csv", words, 48, 1)
    with pytest.raises(InputError, match=r"holds another reproduction \(tables.train"):
        reproduce(recipe, tmp_path / "run", device="cpu")


def test_overwriting_starts_again(world, done, tmp_path):
    copy_of(done, tmp_path / "run")
    lines: list[str] = []
    found = reproduce(mine(world), tmp_path / "run", scale=0.5, device="cpu", overwrite=True, say=lines.append)
    assert not any("done before" in line for line in lines)
    assert "made 0.5 of the recipe's steps; what they reach says nothing about the paper" in found.text
    scores = pd.read_csv(tmp_path / "run" / "scores.csv")
    assert set(scores["steps"].dropna()) == {1}


# ---- refused, before anything is written ----


def test_a_directory_that_is_not_ours_is_left_alone(world, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(InputError, match=r"holds thesis\.tex and no reproduction"):
            reproduce(mine(world), tmp_path, overwrite=overwrite)
    (tmp_path / "other" / "teacher").mkdir(parents=True)
    with pytest.raises(InputError, match="holds other runs and no reproduction"):
        reproduce(mine(world), tmp_path / "other", overwrite=True)
    with pytest.raises(InputError, match="is a file"):
        reproduce(mine(world), tmp_path / "thesis.tex")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "thesis.tex"]


def test_a_second_process_is_refused(world, tmp_path, monkeypatch):
    def again(*_arguments, **_options):
        with pytest.raises(InputError, match="in use by another reproduction"):
            reproduce(mine(world), tmp_path / "run", device="cpu")
        raise RunError("stop")

    monkeypatch.setattr(stages, "train_teacher", again)
    with pytest.raises(RunError, match="stop"):
        reproduce(mine(world), tmp_path / "run", device="cpu")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": "other"}', '{"format": "anglekit-reproduction-1"}'])
def test_a_damaged_record_is_one_line(world, tmp_path, content):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "reproduce.json").write_text(content)
    said = r"reproduce\.json is (damaged|not readable json|not a json object).*; start again with --overwrite"
    with pytest.raises(InputError, match=said):
        reproduce(mine(world), tmp_path / "run", device="cpu")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": "none.csv"}, r"none\.csv does not exist"),
        ({"validation": ["none.csv"]}, r"none\.csv does not exist"),
        ({"teacher": "./none"}, r"no such directory: \./none"),
    ],
)
def test_a_path_that_is_not_there_leaves_nothing_behind(world, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        reproduce(with_own_sources(mine(world), **changes), tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("scale", "message"), [(0.0, "--scale is 0"), (1.5, "--scale is 1.5"), (float("nan"), "nan")])
def test_a_scale_out_of_range_is_refused(world, tmp_path, scale, message):
    with pytest.raises(InputError, match=message):
        reproduce(mine(world), tmp_path / "run", scale=scale)


def test_a_student_deeper_than_its_teacher_is_refused_before_training(world, tmp_path):
    text = (world / "mine.yaml").read_text().replace("layers:\n  - 2\n", "layers:\n  - 5\n")
    (tmp_path / "deep.yaml").write_text(text)
    with pytest.raises(InputError, match="5 blocks and the teacher's 4"):
        reproduce(load_recipe(tmp_path / "deep.yaml"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


# ---- without the hub ----


WAY_OUT = "--base-model DIR --train FILE --validation matched=FILE --validation mismatched=FILE"


def test_a_hub_that_cannot_be_reached_is_one_line_with_the_way_out(tmp_path):
    (done,) = together(1, "reproduce", "mnli", "--out", tmp_path / "run", folder=tmp_path)
    assert done.code in (1, 2)
    assert done.err.count("\n") == 1
    assert "google-bert/bert-base-uncased" in done.err
    assert WAY_OUT in done.err
    assert not (tmp_path / "run").exists()


def test_data_of_a_hub_that_cannot_be_reached_are_named_with_the_way_out(world, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    given = ["reproduce", "mnli", "--base-model", str(world / "bert"), "--out", str(tmp_path / "run")]
    refused = CliRunner().invoke(app, given).exception
    assert isinstance(refused, AnglekitError)
    assert "\n" not in str(refused)
    assert "hub:nyu-mll/glue/mnli:train" in str(refused)
    assert WAY_OUT in str(refused)
    assert not (tmp_path / "run").exists()


# ---- the command ----


def test_the_command_prints_the_result(world, done):
    ran = CliRunner().invoke(
        app, ["reproduce", str(world / "mine.yaml"), "--out", done[0].directory, "--device", "cpu"]
    )
    assert ran.exit_code == 0, ran.output
    assert "teacher's own" in ran.output
    assert "figure.png" in ran.output
    assert ran.stderr.count("done before") == 5
