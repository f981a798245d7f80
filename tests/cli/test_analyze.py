"""`anglekit analyze` from start to figure: what it prints and writes, and mistakes beyond the models themselves."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
import typer.main
from safetensors.torch import load_file

from anglekit.results.geometry import Geometry, official_histogram_name
from anglekit_cli.main import app, main
from tests.cli.launching import Ended, needs_launcher, together


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture(scope="module")
def shelf(tmp_path_factory, save_tiny, words) -> Path:
    """Checkpoints and probe files."""
    root = tmp_path_factory.mktemp("shelf")
    save_tiny(root / "teacher", "bert", seed=1, head=True)
    save_tiny(root / "student", "bert", seed=2, depth=2)
    save_tiny(root / "t5-teacher", "t5", seed=1, depth=2)
    save_tiny(root / "t5-student", "t5", seed=2, depth=1)
    shutil.copytree(root / "student", root / "pickled")
    torch.save(load_file(root / "pickled" / "model.safetensors"), root / "pickled" / "pytorch_model.bin")
    (root / "pickled" / "model.safetensors").unlink()
    shutil.copytree(root / "student", root / "damaged-config")
    (root / "damaged-config" / "config.json").write_text('{"model_type": "bert"')
    shutil.copytree(root / "student", root / "no-tokenizer")
    for file in (root / "no-tokenizer").glob("tokenizer*"):
        file.unlink()
    rng = np.random.default_rng(0)
    rows = [[" ".join(rng.choice(words, size)) for size in (3 + row, 5)] for row in range(12)]
    (root / "probe.tsv").write_text("sentence\tsummary\n" + "".join("\t".join(row) + "\n" for row in rows))
    (root / "holes.jsonl").write_text(
        "".join(json.dumps({"text": row[0] if n else None}) + "\n" for n, row in enumerate(rows))
    )
    (root / "blank-targets.csv").write_text("text,target\n" + "".join(f"{row[0]},\n" for row in rows))
    (root / "header.csv").write_text("sentence\n")
    (root / "numbers.jsonl").write_text('{"text": "a film", "label": 1}\n')
    (root / "broken.jsonl").write_text('{"text": "a film"}\n{"text": \n')
    (root / "words.txt").write_text("a film\n")
    return root


@pytest.fixture
def run(shelf, monkeypatch, capsys) -> Callable[..., Outcome]:
    """Run the command inside this process; words that name something on the shelf become its path."""

    def call(*arguments: object) -> Outcome:
        given = [str(shelf / str(word)) if (shelf / str(word)).exists() else str(word) for word in arguments]
        monkeypatch.setattr(sys, "argv", ["anglekit", *given])
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        return Outcome(code, *capsys.readouterr())

    return call


PAIR = ("analyze", "teacher", "student", "--probe", "probe.tsv")

MISTAKES = {
    "damaged config": (("analyze", "teacher", "damaged-config", "--probe", "probe.tsv"), "config.json"),
    "teacher without tokenizer": (("analyze", "no-tokenizer", "student", "--probe", "probe.tsv"), "no tokenizer"),
    "config as checkpoint": (("analyze", "teacher/config.json", "student", "--probe", "probe.tsv"), "is a file"),
    "no probe file": (("analyze", "teacher", "student", "--probe", "prob.tsv"), "does not exist"),
    "probe is a directory": (("analyze", "teacher", "student", "--probe", "teacher"), "holds more than one table"),
    "unknown kind of probe": (("analyze", "teacher", "student", "--probe", "words.txt"), ".jsonl"),
    "header alone": (("analyze", "teacher", "student", "--probe", "header.csv"), "no rows"),
    "broken json": (("analyze", "teacher", "student", "--probe", "broken.jsonl"), "broken.jsonl"),
    "column of numbers": (("analyze", "teacher", "student", "--probe", "numbers.jsonl", "--text", "label"), "label"),
    "blank targets": (("analyze", "t5-teacher", "t5-student", "--probe", "blank-targets.csv"), "target"),
    "same column twice": ((*PAIR, "--text", "sentence", "--text-pair", "sentence"), "--text-pair"),
    "limit": ((*PAIR, "--sample", "0"), "--sample"),
    "seed": ((*PAIR, "--seed", "-1"), "seed"),
    "batch": ((*PAIR, "--batch-tokens", "0"), "1 or more"),
    "max length": ((*PAIR, "--max-length", "1000"), "--max-length"),
    "no room for text": ((*PAIR, "--max-length", "2"), "no room"),
    "pad to": ((*PAIR, "--reading", "official", "--pad-to", "1000"), "--pad-to"),
    "layers": ((*PAIR, "--teacher-layers", "0,last"), "--teacher-layers"),
    "one teacher layer": ((*PAIR, "--teacher-layers", "1"), "2 or more"),
    "vertices": ((*PAIR, "--vertices", "-1"), "--vertices"),
    "student layer": ((*PAIR, "--vertices", "3"), "layer 3 does not exist"),
    "final norm": ((*PAIR, "--final-norm", "maybe"), "excluded"),
    "official with vertices": ((*PAIR, "--reading", "official", "--vertices", "1"), "--vertices"),
    "student is the teacher": (("analyze", "teacher", "student", "teacher", "--probe", "probe.tsv"), "one checkpoint"),
    "second student": (("analyze", "teacher", "student", "./gone", "--probe", "probe.tsv"), "no such directory"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_nothing_is_written(run, mistake, tmp_path):
    arguments, expected = MISTAKES[mistake]
    code, out, err = run(*arguments, "--out", tmp_path / "deep" / "out")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert err.startswith("anglekit: ")
    assert expected in err
    assert list(tmp_path.iterdir()) == []


def test_an_output_under_a_file_is_refused(run, tmp_path):
    (tmp_path / "file").write_text("mine")
    code, _, err = run(*PAIR, "--out", tmp_path / "file" / "out")
    assert (code, err.count("\n")) == (2, 1)
    assert (tmp_path / "file").read_text() == "mine"


def test_an_output_that_exists_is_refused_before_anything_else(run, tmp_path):
    (tmp_path / "keep.txt").write_text("mine")
    code, _, err = run("analyze", "./gone", "./gone", "--probe", "gone.tsv", "--out", tmp_path)
    assert (code, err.count("\n")) == (2, 1)
    assert "--overwrite" in err
    assert (tmp_path / "keep.txt").read_text() == "mine"


def test_a_failure_does_not_cost_the_old_result(run, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "keep.txt").write_text("mine")
    assert run(*PAIR, "--out", tmp_path / "out", "--overwrite", "--vertices", "9").code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "keep.txt").read_text() == "mine"


def fresh(folder: Path, *arguments: object) -> Ended:
    """Run the module's entry, as a shell does."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "100"}
    command = [sys.executable, "-m", "anglekit_cli", *map(str, arguments)]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, env=environment, timeout=600
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def forked(folder: Path, *arguments: object) -> Ended:
    """Run the command where everything is imported already."""
    return together(1, *arguments, folder=folder)[0]


@pytest.mark.parametrize("start", [forked, pytest.param(fresh, marks=needs_launcher)])
def test_an_analysis_in_a_process_of_its_own_and_a_figure_of_it(start, run, shelf, tmp_path):
    """No warning and no report of the libraries on the terminal."""
    out, figure = tmp_path / "geometry", tmp_path / "figure1.png"
    paths = (shelf / "teacher", shelf / "student", "--probe", shelf / "probe.tsv", "--out", out)
    done = start(tmp_path, "analyze", *paths)
    assert done.code == 0, done.err
    assert "chance" in done.out
    assert "12 examples" in done.out
    assert str(out) in done.out
    assert "Traceback" not in done.err
    assert "Warning" not in done.err
    assert "100%" in done.err
    assert len(Geometry.load(out).angles) == 3 * 6
    drawn = run("plot", out, "--figure", "figure1", "--out", figure)
    assert drawn.code == 0, drawn.err
    assert figure.read_bytes().startswith(b"\x89PNG")
    again = run("analyze", *paths)
    assert (again.code, again.out, again.err.count("\n")) == (2, "", 1)


def test_the_summary_says_what_the_tables_say(run, tmp_path):
    code, out, _ = run(*PAIR, "--out", tmp_path / "out")
    assert code == 0
    geometry = Geometry.load(tmp_path / "out")
    lines = [line.split() for line in out.splitlines() if line.startswith("student ") and "layer" not in line]
    assert [int(line[2]) for line in lines] == [0, 1, 2]
    for line in lines:
        rows = geometry.angles[geometry.angles["vertex"] == int(line[2])]
        assert float(line[3].rstrip("°")) == pytest.approx(rows["mean_angle_degrees"].mean(), abs=0.06)
        assert float(line[4]) == pytest.approx(rows["mean_cosine"].mean(), abs=6e-4)
        assert float(line[5]) == pytest.approx(rows["null_cosine"].mean(), abs=6e-4)
        assert float(line[6].rstrip("%")) == pytest.approx(100 * rows["acute_fraction"].mean(), abs=0.06)
        assert float(line[7]) == pytest.approx(rows["mean_tangential_cosine"].mean(), abs=6e-4)


def test_json_is_all_that_is_printed(run, tmp_path):
    code, out, err = run(
        "analyze", "t5-teacher", "t5-student", "--probe", "probe.tsv", "--out", tmp_path / "o", "--json"
    )
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert document["out"] == str(tmp_path / "o")
    assert [(row["stream"], row["vertex"]) for row in document["rows"]] == [
        ("encoder", 0),
        ("encoder", 1),
        ("decoder", 0),
        ("decoder", 1),
    ]
    assert all(0 < row["null_cosine"] < 1 for row in document["rows"])


def test_quiet_prints_nothing(run, tmp_path):
    assert run(*PAIR, "--out", tmp_path / "out", "--quiet") == (0, "", "")


def test_what_was_left_out_is_noted(run, tmp_path):
    code, out, _ = run(
        "analyze", "teacher", "student", "--probe", "holes.jsonl", "--max-length", "8", "--out", tmp_path / "out"
    )
    assert code == 0
    assert "1 row was left out because a text is missing" in out
    counts = Geometry.load(tmp_path / "out").counts
    # Texts of 4 to 14 words (the row of 3 is blank) with 6 places beside [CLS] and [SEP].
    assert (counts["truncated_examples"], counts["truncated_tokens"]) == (8, sum(range(1, 9)))
    assert "8 examples truncated to 8 tokens; 36 tokens lost" in out


def test_a_copy_of_the_teacher_is_noted_as_coinciding(run, shelf, tmp_path):
    shutil.copytree(shelf / "teacher", tmp_path / "copy")
    code, out, _ = run("analyze", "teacher", tmp_path / "copy", "--probe", "probe.tsv", "--out", tmp_path / "out")
    assert code == 0
    assert "coincides with the teacher's (0=0, 1=1, 2=2, 3=3)" in out


def test_pickled_weights_with_permission_give_the_same_angles(run, tmp_path):
    arguments = ("--probe", "probe.tsv", "-q", "--allow-pickle", "--out")
    assert run("analyze", "teacher", "pickled", *arguments, tmp_path / "a").code == 0
    assert run("analyze", "teacher", "student", *arguments, tmp_path / "b").code == 0
    first, second = (Geometry.load(tmp_path / name).angles["mean_cosine"] for name in "ab")
    np.testing.assert_array_equal(first, second)


def test_limit_and_seed_choose_the_examples(run, tmp_path):
    drawn = []
    for number, seed in enumerate((1, 1, 2)):
        out = tmp_path / str(number)
        assert run(*PAIR, "--sample", "4", "--seed", seed, "-q", "--out", out).code == 0
        drawn.append(sorted(set(Geometry.load(out).examples["example"])))
    assert len(drawn[0]) == 4
    assert drawn[0] == drawn[1] != drawn[2]


def test_the_official_reading_writes_the_papers_histogram(run, tmp_path):
    code, out, _ = run(*PAIR, "--reading", "official", "--pad-to", "16", "--out", tmp_path / "out")
    assert code == 0
    assert "official reading" in out
    lines = (tmp_path / "out" / official_histogram_name("student")).read_text().splitlines()
    assert len(lines) == 1000
    assert sum(int(line.split(",")[1]) for line in lines) == 12 * 16


def test_every_option_has_help():
    command = typer.main.get_command(app).commands["analyze"]
    assert command.help
    silent = [parameter.name for parameter in command.params if not getattr(parameter, "help", None)]
    assert silent == []


def test_help_names_every_option(run):
    code, out, _ = run("analyze", "--help")
    assert code == 0
    command = typer.main.get_command(app).commands["analyze"]
    assert all(option in out for parameter in command.params for option in parameter.opts if option.startswith("--"))
    assert "Example: anglekit analyze" in out
