"""Students that were there before: cut by hand, of other shapes and types, in runs, sweeps and comparisons."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from anglekit.analysis.analyze import analyze
from anglekit.analysis.settings import AnalysisSettings
from anglekit.comparison.compare import compare
from anglekit.distillation.matching.plan import DistillationPlan
from anglekit.distillation.matching.plan_text import plan_text
from anglekit.distillation.sweep.directory import Arm, ArmRecord, SweepDirectory, SweepGrid, SweepRecord
from anglekit.distillation.sweep.sweep import sweep
from anglekit.errors import InputError
from anglekit.models.checkpoints import load_checkpoint
from anglekit.probes.data import read_probe
from tests.distillation.causal_corpus import causal_student, make_causal_world
from tests.distillation.given_students import another_shape, cut_by_hand
from tests.distillation.run_corpus import make_world, quick, student
from tests.distillation.seq2seq_corpus import make_seq2seq_world, seq2seq_student

FEW = quick(seed=3, max_steps=2)


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny_model, tiny_tokenizer, words):
    return make_world(tmp_path_factory.mktemp("world"), tiny_model, tiny_tokenizer(), words)


@pytest.fixture(scope="module")
def cut(world, tmp_path_factory):
    """The teacher's blocks that `--init teacher` would copy, saved without a head."""
    return cut_by_hand(world["teacher"], tmp_path_factory.mktemp("cut") / "pruned", (1, 3), head=False)


def weights(result):
    return load_file(Path(result.checkpoint) / "model.safetensors")


def record(result, name):
    return json.loads((Path(result.directory) / name).read_text())


def test_a_teacher_cut_by_hand_trains_as_the_copied_student_does(world, cut, tmp_path):
    said = []
    made = student(world, tmp_path / "made", init="teacher")
    given = student(world, tmp_path / "given", student=cut, layers=None, note=said.append)
    ours, theirs = weights(given), weights(made)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert given.scores.equals(made.scores)
    assert [one.split(": ")[-1] for one in said] == ["its head is made anew from the seed"]
    # What it started from is recorded; a head of its own makes another student, and the run says that it was kept.
    found = record(given, "provenance.json")
    assert (found["init"], found["student"]["name"], found["student"]["head"]) == ("given:pruned", "pruned", "new")
    assert found["student"]["sha256_with_head"] == record(given, "run_config.json")["given_sha256"]
    kept = cut_by_hand(world["teacher"], tmp_path / "kept", (1, 3), head=True)
    told = student(world, tmp_path / "told", student=f"other={kept}", layers=None, settings=FEW, validation=[])
    plan = DistillationPlan.from_json(record(told, "plan.json"))
    assert (plan.init, plan.student.head) == ("given:other", "kept")
    assert "given, other (bert" in plan_text(plan)
    card = (Path(told.checkpoint) / "README.md").read_text()
    assert "from student other, distilled" in card
    assert "its head from the checkpoint" in card
    assert "from the checkpoint of BertForSequence" in plan_text(plan)
    assert record(told, "provenance.json")["student"]["sha256"] == found["student"]["sha256"]


def test_a_resumed_run_and_a_comparison_take_no_other_student_of_the_name(world, cut, tmp_path):
    mine = shutil.copytree(cut, tmp_path / "pruned")
    options = {"student": str(mine), "layers": None, "settings": FEW}
    student(world, tmp_path / "run", **options)
    again = student(world, tmp_path / "run", if_exists="resume", **options)
    cut_by_hand(world["teacher"], mine, (0, 2), head=False)
    with pytest.raises(InputError, match=r"holds another run \(given_sha256"):
        student(world, tmp_path / "run", if_exists="resume", **options)
    other = student(world, tmp_path / "other", control="random-teacher", **options)
    with pytest.raises(InputError, match="the student called 'pruned' started from other weights"):
        compare([again.directory, other.directory])


KINDS = {
    "wider": ("bert", {"hidden_size": 48, "num_attention_heads": 6, "num_hidden_layers": 2}),
    "distilbert": ("distilbert", {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 20}),
    "t5": ("t5", {"d_model": 24, "d_kv": 6, "d_ff": 40, "num_heads": 3, "num_layers": 3, "num_decoder_layers": 2}),
    "qwen3": ("qwen3", {"hidden_size": 16, "head_dim": 6, "num_hidden_layers": 3, "intermediate_size": 20}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_student_of_another_shape_learns_is_saved_and_is_analysed(
    kind, world, tmp_path, tiny_model, tiny_tokenizer, words
):
    family, settings = KINDS[kind]
    run, auto = student, AutoModelForSequenceClassification
    if family == "t5":
        world, run, auto = (
            make_seq2seq_world(tmp_path, "t5", tiny_model, tiny_tokenizer(), words),
            seq2seq_student,
            None,
        )
        auto = AutoModelForSeq2SeqLM
    elif family == "qwen3":
        world, run, auto = (
            make_causal_world(tmp_path, "qwen3", tiny_model, tiny_tokenizer(), words),
            causal_student,
            None,
        )
        auto = AutoModelForCausalLM
    own = {"model_type": "distilbert", "max_position_embeddings": 64} if family == "distilbert" else {}
    place = another_shape(world["teacher"], tmp_path / "mine", auto, **own, **settings)
    trained = run(world, tmp_path / "run", student=place, layers=None, settings=FEW, validation=[])
    found = load_checkpoint(trained.checkpoint)
    assert found.model.config.model_type == family
    assert found.training.init == "given:mine"
    before = AutoModel.from_pretrained(place).state_dict()
    after = found.model.state_dict()
    assert any(not torch.equal(value, after[name]) for name, value in before.items())
    assert (found.adapters is None) == (found.width == 32)
    # Matched by relative depth: the last block by the teacher's last.
    stream = found.streams[-1]
    depth = found.depth(stream)
    assert found.matched_layer(stream, depth) == 4
    assert found.matched_layer(stream, 1) == -(-4 // depth)
    if family == "distilbert":  # reads no token types, which the teacher's tokenizer gives
        words = AutoTokenizer.from_pretrained(trained.checkpoint)("good film", return_tensors="pt")
        assert auto.from_pretrained(trained.checkpoint)(**words).logits.shape == (1, 2)
    role = {"text": "prompt"} if family == "qwen3" else {}
    probe = read_probe(world["dev"], **role)
    settings = AnalysisSettings(projection="adapter") if found.adapters is not None else AnalysisSettings()
    geometry = analyze(load_checkpoint(world["teacher"]), [found], probe, settings)
    assert geometry.angles["mean_angle_degrees"].notna().all()
    assert len(geometry.angles)


def test_given_students_of_a_sweep_are_their_own_runs_and_stay_apart(world, cut, tmp_path):
    small = another_shape(
        world["teacher"], tmp_path / "small", AutoModel, hidden_size=16, num_hidden_layers=2, intermediate_size=20
    )
    swept = sweep(
        world["teacher"],
        strategies=("forward", "reverse"),
        students={"pruned": cut, "small": small},
        seeds=(3,),
        out=tmp_path / "sweep",
        settings=replace(FEW, seed=None),
        task="classification",
        train=world["train"],
        validation=[world["dev"]],
    )
    assert list(swept.arms)[:3] == ["forward-pruned-seed3", "reverse-pruned-seed3", "forward-small-seed3"]
    assert not [warning for warning in swept.warnings if "differ in more" in warning]
    assert swept.teacher_passes * len(swept.arms) == swept.teacher_answers
    alone = student(world, tmp_path / "alone", student=f"small={small}", layers=None, settings=FEW)
    arm = swept.arms["forward-small-seed3"]
    assert all(torch.equal(value, weights(arm)[name]) for name, value in weights(alone).items())
    assert arm.scores.equals(alone.scores)
    found = compare([swept.directory])
    assert set(found.levels["init"]) == {"given:pruned", "given:small"}
    assert "student pruned: " in found.headline.line
    assert "student small: " in found.headline.line


def refused(world, cut, place, **options):
    student(world, place / "run", **{"student": cut, "layers": None, "settings": FEW} | options)


def test_what_cannot_be_this_teachers_student_is_refused_in_a_line(world, cut, tmp_path, tiny_model, tiny_tokenizer):
    def shaped(name, auto=AutoModel, **settings):
        return another_shape(world["teacher"], tmp_path / name, auto, **settings)

    def saved(name, model, tokenizer=None):
        model.save_pretrained(tmp_path / name)
        (tokenizer or tiny_tokenizer()).save_pretrained(tmp_path / name)
        return str(tmp_path / name)

    three = {"id2label": {0: "a", 1: "b", 2: "c"}, "label2id": {"a": 0, "b": 1, "c": 2}}
    swapped = {"id2label": {0: "positive", 1: "negative"}, "label2id": {"positive": 0, "negative": 1}}
    classifier = AutoModelForSequenceClassification
    lacking = Path(shutil.copytree(cut, tmp_path / "lacking"))
    config = json.loads((lacking / "config.json").read_text())
    (lacking / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    cases = (
        (
            {"student": saved("t5", tiny_model("t5", width=32))},
            "is a t5 model with encoder and decoder, and its teacher",
        ),
        (
            {"student": shaped("deep", num_hidden_layers=5)},
            "has 5 encoder blocks and its teacher 4; give them the other",
        ),
        ({"student": world["teacher"]}, "are one checkpoint"),
        ({"student": shaped("three", classifier, **three)}, "a head of other labels .a, b, c. than its teacher"),
        ({"student": shaped("swapped", classifier, **swapped)}, "a head of other labels .positive, negative."),
        ({"student": shaped("rows", vocab_size=20)}, "table train holds the token .* has no entry in the student"),
        (
            {"student": saved("words", tiny_model("bert", width=32), tiny_tokenizer(("bad", "good", "x")))},
            "has another vocabulary than its teacher: token",
        ),
        ({"student": shaped("short", max_position_embeddings=6)}, "reads at most 6 tokens, and an example has 11"),
        ({"student": str(lacking)}, "lacks 16 weights, among them bert.encoder.layer.2"),
        ({"layers": 2}, "--layers came with a student that is there already"),
        ({"student": f"teacher={cut}"}, "a student is called 'teacher'; allowed: letters"),
        ({"student": f"={cut}"}, "a student is called ''; allowed: letters, digits, points, hyphens and underscores"),
        ({"student": f"a/b={cut}"}, "'a/b' cannot be a name; allowed in a name: letters, digits, points, hyphens and"),
    )
    for options, message in cases:
        with pytest.raises(InputError, match=message):
            refused(world, cut, tmp_path, **options)
        assert not (tmp_path / "run").exists(), message
    with pytest.raises(InputError, match="two students are called 'pruned'; name them: first="):
        sweep(
            world["teacher"],
            strategies=("none",),
            students=[cut, cut],
            task="classification",
            train=world["train"],
            out=tmp_path / "run",
        )
    # A map by hand says that a deeper student is meant.
    deep = student(
        world,
        tmp_path / "mapped",
        student=str(tmp_path / "deep"),
        layers=None,
        strategy=None,
        layer_map={"encoder": [(2, 1), (5, 4)]},
        settings=FEW,
        validation=[],
    )
    assert load_checkpoint(deep.checkpoint).training.taught_by == {"encoder": {"2": 1, "5": 4}}


def test_students_that_are_made_may_join_a_sweep_of_given_ones(tmp_path):
    def record(arms, **student):
        return SweepRecord(arms=[ArmRecord(arm.name, **asdict(arm)) for arm in arms], student=student, data={})

    given, made = Arm("forward", "given:mine", 0), Arm("forward", "teacher", 0)
    SweepDirectory(tmp_path, "refuse").write(record([given], teacher="t"))
    begun = SweepDirectory(tmp_path, "resume")
    begun.check_same(record([given, made], teacher="t", **{"student width": 32}))
    with pytest.raises(InputError, match="teacher: other here, t there"):
        begun.check_same(record([given, made], teacher="other"))
    with pytest.raises(InputError, match="two students would be called 'random-teacher-a-seed0'"):
        SweepGrid(("random", "forward"), ("given:teacher-a", "given:a"), (0,), ("random-teacher",))
