"""Angles over training: what is measured, when, and that the training does not notice."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import Trainer
from transformers.trainer_callback import PrinterCallback

from anglekit.analysis.analyze import analyze
from anglekit.analysis.jobs.extract import extract_states
from anglekit.analysis.settings import AnalysisSettings
from anglekit.distillation.training.angle_callback import AngleCallback, step_directory
from anglekit.errors import InputError
from anglekit.models.checkpoints import Checkpoint
from anglekit.probes.data import ProbeData
from anglekit.results.geometry import Geometry
from tests.distillation.tiny_trainers import arguments, collate, examples, make_student, make_teacher, make_trainer
from tests.more_cases import more

STREAMED = AnalysisSettings(nulls="none", similarity="none")


@pytest.fixture
def probe(words):
    generator = np.random.default_rng(0)
    texts = [" ".join(generator.choice(words, size)) for size in (3, 7, 1, 5, 4, 6)]
    return ProbeData("test", "0" * 64, tuple(texts), None, None, tuple(range(6)), 0, "text", None, None)


@pytest.fixture
def teacher(tiny_tokenizer, words):
    model = make_teacher().bert.eval()
    return Checkpoint("teacher", "teacher", model, tiny_tokenizer(), ("encoder",), None)


def weights(trainer):
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def losses(trainer):
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


@pytest.mark.parametrize(
    ("threads", "width"), [(1, 32), (2, 16), pytest.param(1, 16, marks=more), pytest.param(2, 32, marks=more)]
)
def test_the_training_is_the_same_bit_for_bit(tmp_path, teacher, probe, width, threads, two_threads):
    """With dropout, whose draws a measurement must not move; with adapters where the student is narrow.

    With two threads a measurement runs in lanes of one thread each, and the training must get both back.
    """
    torch.set_num_threads(threads)
    alone = make_trainer(tmp_path / "alone", dropout=0.1, width=width)
    alone.train()
    watched = make_trainer(tmp_path / "watched", dropout=0.1, width=width)
    callback = AngleCallback(teacher, probe, every=1).attach(watched)
    watched.train()
    assert [row["step"] for row in callback.history] == [0, 1, 2, 3]
    assert losses(alone) == losses(watched)
    after = weights(watched)
    assert all(torch.equal(value, after[name]) for name, value in weights(alone).items())
    assert watched.model.training == alone.model.training


def test_a_callback_that_draws_moves_the_training(tmp_path, teacher, probe, monkeypatch):
    """The control: were the random states not put back, the weights would differ."""
    alone = make_trainer(tmp_path / "alone", dropout=0.1)
    alone.train()
    watched = make_trainer(tmp_path / "watched", dropout=0.1)
    callback = AngleCallback(teacher, probe, every=1).attach(watched)
    monkeypatch.setattr(callback, "_measure", lambda *_: torch.rand(1))
    watched.train()
    assert losses(alone) != losses(watched)


def test_what_is_logged_and_saved_is_the_analysis_of_the_student_at_that_step(tmp_path, teacher, probe, monkeypatch):
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "events"))
    trainer = make_trainer(tmp_path / "run", args=arguments(tmp_path / "run", max_steps=5, report_to=["tensorboard"]))
    callback = AngleCallback(teacher, probe, every=2, out=tmp_path / "angles").attach(trainer)
    trainer.train()
    # One file: the last measurement comes before the tracker's run ends.
    assert len(list((tmp_path / "events").iterdir())) == 1
    events = EventAccumulator(str(tmp_path / "events")).Reload()
    assert [one.step for one in events.Scalars("train/encoder_angle_degrees")] == [0, 2, 4, 5]
    assert [one.step for one in events.Images("angles of student")] == [5]
    assert [row["step"] for row in callback.history] == [0, 2, 4, 5]
    student = Checkpoint("student", "student", trainer.model.bert, None, ("encoder",), None)
    expected = analyze(teacher, [student], probe, STREAMED).angles
    last = Geometry.load(step_directory(tmp_path / "angles", 5))
    np.testing.assert_allclose(last.angles["mean_cosine"], expected["mean_cosine"], atol=1e-12)
    assert last.provenance["training_step"] == 5
    logged = [row for row in trainer.state.log_history if "encoder_angle_degrees" in row]
    assert [row["step"] for row in logged] == [0, 2, 4, 5]
    columns = {
        "angle_degrees": "mean_angle_degrees",
        "cosine": "mean_cosine",
        "chance_cosine": "null_cosine",
        "acute_fraction": "acute_fraction",
    }
    means = {f"encoder_{name}": expected[column].mean() for name, column in columns.items()}
    assert len({round(mean, 6) for mean in means.values()}) == len(means)  # one cannot stand for another
    for name, mean in means.items():
        assert logged[-1][name] == callback.history[-1][name] == pytest.approx(mean), name
    assert logged[-1]["angle_seconds"] > 0
    first = Geometry.load(step_directory(tmp_path / "angles", 0)).angles
    assert np.abs(first["mean_cosine"] - expected["mean_cosine"]).max() > 1e-6


def test_a_teacher_in_a_store_gives_the_same_numbers(tmp_path, teacher, probe):
    extract_states(tmp_path / "states", teacher, probe)
    trainer = make_trainer(tmp_path / "run")
    read, live = (AngleCallback(each, probe, every=1).attach(trainer) for each in (tmp_path / "states", teacher))
    trainer.train()
    for one, other in zip(read.history, live.history, strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}


def test_a_plain_trainer_takes_it_too(tmp_path, teacher, probe):
    trainer = Trainer(
        make_student(), arguments(tmp_path, max_steps=2), train_dataset=examples(8), data_collator=collate
    )
    trainer.remove_callback(PrinterCallback)
    callback = AngleCallback(teacher, probe, every=2, name="mine")
    trainer.add_callback(callback)
    trainer.train()
    assert [row["step"] for row in callback.history] == [0, 2]
    assert callback.geometry is not None
    assert callback.geometry.students == ["mine"]
    assert [row["step"] for row in trainer.state.log_history if "encoder_cosine" in row] == [0, 2]


def test_what_cannot_be_measured_is_refused(tmp_path, teacher, probe):
    with pytest.raises(InputError, match="angles were asked for every 0 steps; allowed: at least 1"):
        AngleCallback(teacher, probe, every=0)
    trainer = make_trainer(tmp_path)
    trainer.is_fsdp_enabled = True
    with pytest.raises(InputError, match="FSDP or DeepSpeed"):
        AngleCallback(teacher, probe, every=1).attach(trainer)
