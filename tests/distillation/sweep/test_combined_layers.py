"""Strategies that combine or draw teacher layers in one sweep, over one teacher whose answers are kept."""

from __future__ import annotations

from anglekit.distillation.runs.train import distill
from anglekit.distillation.students.mixtures import MIXTURES_FILE
from anglekit.distillation.sweep.sweep import sweep
from tests.distillation.run_corpus import quick, write_reviews, write_teacher

STRATEGIES = ("forward", "in-order-random", "layer-attention", "gated", "optimal-transport")


def test_a_swept_student_is_the_one_of_its_own_run(tmp_path, tiny_model, tiny_tokenizer, words):
    teacher = write_teacher(tmp_path / "teacher", tiny_model, tiny_tokenizer())
    train = write_reviews(tmp_path / "train.tsv", words, 24)
    shared = {"task": "classification", "train": train, "layers": 2}
    found = sweep(
        teacher,
        strategies=STRATEGIES,
        inits=["random", "teacher"],
        seeds=[3],
        out=tmp_path / "sweep",
        settings=quick(teacher_cache=str(tmp_path / "kept")),
        **shared,
    )
    assert len(found.arms) == 10
    alone = distill(teacher, strategy="gated", init="random", out=tmp_path / "own", settings=quick(seed=3), **shared)
    swept = tmp_path / "sweep" / "gated-random-seed3" / "checkpoint"
    for name in ("model.safetensors", MIXTURES_FILE):
        assert (swept / name).read_bytes() == (tmp_path / "own" / "checkpoint" / name).read_bytes()
    assert alone.steps == 6
