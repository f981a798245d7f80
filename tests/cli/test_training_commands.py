"""`anglekit finetune`, `distill` and `evaluate` as a person runs them: one bar, one table, one line for a mistake."""

from __future__ import annotations

import dataclasses
import json
import re

import pandas as pd
import pytest
import torch
import typer
from safetensors.torch import load_file
from typer.testing import CliRunner

import anglekit
from anglekit.distillation.students import given
from anglekit.distillation.tasks import models as tasks_models
from anglekit.distillation.training.angle_callback import step_directory
from anglekit.errors import InputError
from anglekit.models import checkpoints
from anglekit.results.scores import ANGLES_FOLDER
from anglekit_cli.commands.analyze import analyze
from anglekit_cli.commands.distill import distill
from anglekit_cli.commands.evaluate import evaluate
from anglekit_cli.commands.finetune import finetune
from anglekit_cli.commands.plot import plot
from anglekit_cli.commands.sweep import sweep
from tests.distillation.run_corpus import make_world
from tests.distillation.seq2seq_corpus import make_seq2seq_world
from tests.plots.full_geometry import full_geometry

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
for command in (analyze, finetune, distill, sweep, evaluate, plot):
    app.command()(command)


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny_model, tiny_tokenizer, words):
    return make_world(tmp_path_factory.mktemp("world"), tiny_model, tiny_tokenizer(), words)


def run(*arguments):
    """Run the command; what it raises comes out as it would reach `main`."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.stderr
    return result


def distilled(world, out, *more):
    return run(
        *("distill", world["teacher"], "--task", "classification", "--train", world["train"], "--out", out),
        *("--max-steps", 4, "--batch-size", 8, "--log-every", 2, "--device", "cpu", *more),
    )


def test_a_run_prints_its_bars_and_one_table(world, tmp_path):
    result = distilled(world, tmp_path / "run", "--strategy", "forward", "--layers", 2, "--validation", world["dev"])
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["data", "examples", "accuracy", "macro_f1"]
    assert lines[1].split()[:2] == ["dev", "21"]
    assert re.fullmatch(rf"4 steps in \d+ s: {re.escape(str(tmp_path / 'run' / 'checkpoint'))}", lines[2])
    assert len(lines) == 3
    bars = result.stderr.replace("\r", "\n").splitlines()
    assert all(
        line.startswith(("distill forward from random", "scoring ", "columns read: ")) for line in bars if line.strip()
    )
    assert "4/4" in result.stderr


def test_quiet_prints_nothing_and_json_only_json(world, tmp_path):
    quiet = distilled(world, tmp_path / "a", "--strategy", "none", "--layers", 2, "--quiet")
    assert (quiet.stdout, quiet.stderr) == ("", "")
    options = ("--strategy", "none", "--layers", 2, "--validation", f"mine={world['dev']}", "--json")
    printed = distilled(world, tmp_path / "b", *options)
    assert printed.stderr == ""
    content = json.loads(printed.stdout)
    assert content["scores"][0]["data"] == "mine"
    assert content["steps"] == 4


def test_angles_over_training_are_measured_and_drawn_and_change_nothing(world, tmp_path):
    options = ("--strategy", "forward", "--layers", 2, "-q")
    distilled(world, tmp_path / "alone", *options)
    distilled(world, tmp_path / "watched", *options, "--angles-every", 2, "--probe", world["dev"])
    weights = [(tmp_path / name / "checkpoint" / "model.safetensors").read_bytes() for name in ("alone", "watched")]
    assert weights[0] == weights[1]
    angles = tmp_path / "watched" / "angles"
    assert sorted(path.name for path in angles.iterdir()) == [f"geometry-step-{step}" for step in (0, 2, 4)]
    run("plot", angles.parent, "--figure", "training-angles", "--numbers", tmp_path / "steps.csv")
    assert pd.read_csv(tmp_path / "steps.csv")["step"].unique().tolist() == [0, 2, 4]
    assert pd.read_csv(tmp_path / "steps.csv")["student"].unique().tolist() == ["watched"]
    with pytest.raises(InputError, match=r"alone is a run without angles over training; train it .*--angles-every"):
        anglekit.draw("training-angles", tmp_path / "alone")
    with pytest.raises(InputError, match="--probe came without --angles-every"):
        distilled(world, tmp_path / "half", *options, "--probe", world["dev"])


def test_the_runs_of_one_figure_are_told_apart_by_the_directories_above(tmp_path):
    step = full_geometry(("forward",), ("random",), names=["run"])
    for place, shift in (("a/run", 0.0), ("b/run", 5.0), ("b/moved", 9.0)):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "run_config.json").write_text("{}")
        for number in (0, 4):
            angles = step.angles.assign(mean_angle_degrees=step.angles["mean_angle_degrees"] + shift)
            provenance = {**step.provenance, "training_step": number}
            dataclasses.replace(step, angles=angles, provenance=provenance).save(
                step_directory(tmp_path / place / ANGLES_FOLDER, number)
            )
    runs = [tmp_path / place for place in ("a/run", "b/run", "b/moved")]
    run("plot", *runs, "--figure", "training-angles", "--numbers", tmp_path / "f.csv")
    means = pd.read_csv(tmp_path / "f.csv").groupby("student")["mean_angle_degrees"].mean()
    assert sorted(means.index) == ["a/run", "b/run", "moved"]
    assert means["b/run"] - means["a/run"] == pytest.approx(5)
    assert means["moved"] - means["a/run"] == pytest.approx(9)
    drawn = {text.get_text() for text in anglekit.draw("training-angles", runs).texts}
    assert all(any(name in text for text in drawn) for name in means.index)
    one_run = tmp_path / "one.csv"
    run("plot", *sorted((runs[0] / ANGLES_FOLDER).iterdir()), "--figure", "training-angles", "--numbers", one_run)
    assert pd.read_csv(one_run)["student"].unique().tolist() == ["run"]
    with pytest.raises(InputError, match="step 0 of run came twice"):
        run("plot", runs[0], runs[0], "--figure", "training-angles", "--numbers", tmp_path / "twice.csv")


def test_another_tokenizer_is_refused_before_any_weights_are_read(
    world, tmp_path, monkeypatch, tiny_model, tiny_tokenizer, save_tiny
):
    class WeightsReadError(Exception):
        pass

    def read(*_: object, **__: object) -> None:
        raise WeightsReadError

    for module in (checkpoints, tasks_models, given):
        monkeypatch.setattr(module, "load_weights", read)
    network = tiny_model("bert", width=32, depth=2)
    alike = save_tiny(tmp_path / "alike", network)
    other = save_tiny(tmp_path / "other", network, tokenizer=tiny_tokenizer(("bad", "good", "x")))
    table = ("--task", "classification", "--train", world["train"], "--out", tmp_path / "out", "--device", "cpu")

    def ways(student):
        return (
            lambda: run(
                *("analyze", world["teacher"], student, "--probe", world["dev"], "--text", "text"),
                *("--out", tmp_path / "out"),
            ),
            lambda: anglekit.analyze(world["teacher"], str(student), ["a film"]),
            lambda: run("distill", world["teacher"], "--strategy", "forward", "--student", student, *table),
            lambda: run("sweep", world["teacher"], "--strategies", "forward,none", "--student", student, *table),
        )

    for way in ways(other):
        with pytest.raises(InputError, match=r"has another vocabulary than its teacher|do not read the same tokens"):
            way()
        assert not (tmp_path / "out").exists()
    # With the teacher's tokenizer each of them does go on to the weights.
    for way in ways(alike):
        with pytest.raises(WeightsReadError):
            way()


def test_each_stream_of_a_student_has_a_depth_of_its_own(tmp_path, tiny_model, tiny_tokenizer, words):
    seq2seq = make_seq2seq_world(tmp_path, "t5", tiny_model, tiny_tokenizer(), words)
    shared = ("--task", "seq2seq", "--train", seq2seq["train"], "--max-steps", 2, "--batch-size", 8, "--device", "cpu")
    shared += ("--encoder-layers", 3, "--decoder-layers", 1, "-q")
    run("distill", seq2seq["teacher"], "--strategy", "forward", "--out", tmp_path / "run", *shared)
    arms = ("--strategies", "forward", "--inits", "random", "--seeds", 0)
    run("sweep", seq2seq["teacher"], *arms, "--out", tmp_path / "sweep", *shared)
    (swept,) = (tmp_path / "sweep").rglob("model.safetensors")
    alone = tmp_path / "run" / "checkpoint" / "model.safetensors"
    config = json.loads((alone.parent / "config.json").read_text())
    assert (config["num_layers"], config["num_decoder_layers"]) == (3, 1)
    assert swept.read_bytes() == alone.read_bytes()
    streams = json.loads((tmp_path / "run" / "plan.json").read_text())["streams"]
    assert sorted(max(layer for layer, _ in one["matching"]["pairs"]) for one in streams) == [1, 3]


def test_finetune_then_distil_then_evaluate(world, tmp_path):
    run(
        *("finetune", world["teacher"], "--task", "classification", "--train", world["train"]),
        *("--out", tmp_path / "teacher", "--max-steps", 120, "--lr", 3e-3, "--batch-size", 8, "--device", "cpu", "-q"),
    )
    distilled(
        {**world, "teacher": tmp_path / "teacher"},
        tmp_path / "student",
        *("--map", "1:2,2:4", "--init", "teacher", "--layers", 2, "--copy", "0,3", "--alpha-kl", 0, "--hidden-loss"),
        *("cosine", "--max-length", 20, "-q"),
    )
    plan = json.loads((tmp_path / "student" / "plan.json").read_text())
    assert plan["strategy"] == "explicit"
    assert plan["streams"][0]["matching"]["pairs"] == [[1, 2], [2, 4]]
    assert plan["streams"][0]["blocks"] == [0, 3]
    assert plan["weights"] == {"ce": 1.0, "kl": 0.0, "hidden": 3.0}
    shown = run(
        *("evaluate", tmp_path / "teacher", tmp_path / "student", "--task", "classification"),
        *("--data", world["dev"], "--data", f"again={world['train']}"),
    )
    read = "columns read: text, label (dev, again)\n"
    assert shown.stderr == f"{read}{tmp_path / 'student'}: scored with its run's settings: max length 20\n"
    rows = [line.split() for line in shown.stdout.splitlines()]
    assert rows[0] == ["checkpoint", "data", "examples", "accuracy", "macro_f1"]
    assert [row[1] for row in rows[1:]] == ["dev", "again", "dev", "again"]
    assert rows[1][3] == "1.0000"
    table = json.loads(
        run("evaluate", tmp_path / "teacher", "--task", "classification", "--data", world["dev"], "--json").stdout
    )
    assert table[0]["accuracy"] == 1.0
    for name, read in (("examples.parquet", pd.read_parquet), ("examples.csv", pd.read_csv)):
        run(
            *("evaluate", tmp_path / "teacher", tmp_path / "student", "--task", "classification"),
            *("--data", world["dev"], "--examples", tmp_path / name),
        )
        examples = read(tmp_path / name)
        assert list(examples) == ["checkpoint", "data", "example", "prediction", "target", "accuracy", "loss"]
        assert examples["example"].tolist() == [*range(21), *range(21)]
        first = examples[examples["checkpoint"] == str(tmp_path / "teacher")]
        assert first["accuracy"].mean() == 1.0
        assert (first["prediction"] == first["target"]).all()
    with pytest.raises(InputError, match=r"a file of examples ends in \.parquet, \.csv; change --examples"):
        run(
            "evaluate",
            tmp_path / "teacher",
            "--task",
            "classification",
            "--data",
            world["dev"],
            "--examples",
            tmp_path / "x.txt",
        )
    assert not (tmp_path / "x.txt").exists()
    again = ("evaluate", tmp_path / "teacher", "--task", "classification", "--data", world["dev"])
    with pytest.raises(InputError, match=r"examples.csv exists; choose another file or allow overwriting"):
        run(*again, "--examples", tmp_path / "examples.csv")


ON_DISK = json.dumps({"bert.embeddings": "cpu", "bert.encoder": "disk", "bert.pooler": "cpu", "classifier": "cpu"})


@pytest.mark.parametrize("init", ["random", "teacher"])
@pytest.mark.parametrize("where", [("--teacher-device", "cpu"), ("--teacher-device-map", ON_DISK)])
def test_a_teacher_elsewhere_teaches_the_same_student(world, tmp_path, init, where):
    given = ("--strategy", "forward", "--layers", 2, "--init", init, "-q")
    distilled(world, tmp_path / "beside", *given)
    distilled(world, tmp_path / "apart", *given, *where)
    ours, theirs = (load_file(tmp_path / run / "checkpoint" / "model.safetensors") for run in ("beside", "apart"))
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    # Where the teacher was is no part of what the run is: it goes on under another.
    assert "finished" in run_again(world, tmp_path / "apart", *given)


def run_again(world, out, *given):
    distilled(world, out, *given, "--resume")
    with pytest.raises(InputError) as refused:
        distilled(world, out, *given)
    return str(refused.value)


def test_resume_and_overwrite(world, tmp_path):
    options = ("--strategy", "forward", "--layers", 2, "--quiet")
    distilled(world, tmp_path / "run", *options)
    before = (tmp_path / "run" / "provenance.json").read_bytes()
    with pytest.raises(InputError, match="use --overwrite"):
        distilled(world, tmp_path / "run", *options)
    distilled(world, tmp_path / "run", *options, "--resume")
    assert (tmp_path / "run" / "provenance.json").read_bytes() == before
    distilled(world, tmp_path / "run", *options, "--overwrite", "--seed", 5)
    assert json.loads((tmp_path / "run" / "plan.json").read_text())["seed"] == 5


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--strategy", "foward", "--layers", 2), "did you mean 'forward'"),
        (("--strategy", "forward", "--layers", 7), "7 blocks and the teacher's 4"),
        (("--strategy", "forward"), "a student needs a depth or a width"),
        (("--layers", 2), "--strategy and --map: neither came"),
        (("--strategy", "none", "--map", "1:1", "--layers", 2), "--strategy and --map: both came"),
        (("--map", "1:9", "--layers", 2), "teacher layer 9; allowed: 0"),
        (("--map", "1;2", "--layers", 2), "cannot read the map '1;2'"),
        (("--strategy", "none", "--layers", 2, "--resume", "--overwrite"), "came together"),
        (
            ("--strategy", "none", "--layers", 2, "--label", "labl"),
            "no column 'labl' for --label; did you mean 'label'",
        ),
        (("--strategy", "none", "--layers", 2, "--select", "bst"), "did you mean 'best'"),
        (("--strategy", "none", "--layers", 2, "--reading", "offical"), "did you mean 'official'"),
        (("--strategy", "none", "--layers", 2, "--alpha-ce", -1), "--alpha-ce is -1"),
        (("--strategy", "none", "--layers", 2, "--alpha-ce", 0, "--alpha-kl", 0), "nothing would be trained"),
        (("--strategy", "none", "--layers", 2, "--temperature", 0), "--temperature is 0.0"),
        (("--strategy", "none", "--layers", 2, "--task", "mlni"), "did you mean 'mnli'"),
        (("--strategy", "none", "--layers", 2, "--teacher-device", "toaster"), "is not a device; allowed: cpu"),
        (
            ("--strategy", "none", "--layers", 2, "--teacher-device-map", "atuo"),
            "--teacher-device-map 'atuo' is not known",
        ),
        (
            ("--strategy", "none", "--layers", 2, "--teacher-device", "cpu", "--teacher-device-map", "auto"),
            "--teacher-device 'cpu' and --teacher-device-map 'auto' came; give one of the two",
        ),
    ],
)
def test_every_mistake_is_one_line_with_exit_2_and_no_trace(world, tmp_path, more, message):
    with pytest.raises(InputError) as caught:
        distilled(world, tmp_path / "run", *more)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    assert not (tmp_path / "run").exists()


def test_finetune_trains_a_teacher_as_the_papers_script_does(tmp_path, tiny_model, tiny_tokenizer, words):
    made = make_seq2seq_world(tmp_path, "bart", tiny_model, tiny_tokenizer(), words)
    common = ("--task", "seq2seq", "--train", made["train"], "--max-steps", 1)
    run("finetune", made["teacher"], *common, "--reading", "official", "--out", tmp_path / "run", "-q")
    assert json.loads((tmp_path / "run" / "run_config.json").read_text())["settings"]["max_grad_norm"] == 0.0
    (tmp_path / "rows.tsv").write_text("text\tlabel\nthe film\tgood\na plot\tbad\n", encoding="utf-8")
    classes = ("--task", "classification", "--train", tmp_path / "rows.tsv", "--out", tmp_path / "x")
    with pytest.raises(InputError, match="task classification and a teacher of the family bart"):
        run("finetune", made["teacher"], *classes, "--reading", "official")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("name", ["finetune", "distill", "evaluate"])
def test_every_option_explains_itself(name):
    command = typer.main.get_command(app).commands[name]
    assert len(command.params) > 10
    assert [parameter.name for parameter in command.params if not getattr(parameter, "help", None)] == []


def test_evaluating_another_label_set_is_refused(world, tmp_path):
    table = tmp_path / "other.tsv"
    table.write_text("text\tlabel\nthe film\tmeh\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"has label 'meh' in row 0 .*; allowed: negative, positive"):
        run("evaluate", world["teacher"], "--task", "classification", "--data", table)
