"""What a teacher said of an example is kept, and read as the teacher would say it again."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file

from anglekit.distillation.losses.objective import TeacherOutputs
from anglekit.distillation.runs.run import RunResult
from anglekit.distillation.runs.train import distill
from anglekit.distillation.sweep.sweep import sweep
from anglekit.distillation.training import teacher_cache
from anglekit.distillation.training.teacher import TeacherForward
from anglekit.distillation.training.teacher_cache import CachedTeacher
from anglekit.errors import InputError
from tests.distillation.run_corpus import quick, write_reviews, write_teacher
from tests.tiny_types import build

LAYERS = {"bert": {"encoder": (1, 3)}, "t5": {"encoder": (0, 2), "decoder": (3,)}, "qwen3": {"decoder": (2, 3)}}


def texts(family, *, first=0, left=False):
    """Four texts of unequal lengths as a batch, padded on one side."""
    lengths = [5, 2, 7, 3]
    ids, mask = torch.zeros(4, 7, dtype=torch.long), torch.zeros(4, 7, dtype=torch.long)
    for row, length in enumerate(lengths):
        there = slice(7 - length, 7) if left else slice(0, length)
        ids[row, there] = torch.arange(length) + 5 + first + row
        mask[row, there] = 1
    batch = {"input_ids": ids, "attention_mask": mask, "labels": torch.zeros(4, dtype=torch.long)}
    if family == "t5":
        decoded = torch.zeros(4, 4, dtype=torch.long)
        decoded[:, 1:] = torch.tensor([[7, 8, 9], [7, 0, 0], [9, 9, 0], [6, 5, 4]])
        batch["decoder_input_ids"] = decoded
    return batch


def real_of(family, batch, stream):
    if stream == "encoder" or family != "t5":
        return batch["attention_mask"] != 0
    return torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]], dtype=torch.bool)


def cached(teacher, directory, family, **options):
    given = {"sha256": "1" * 64, "precision": "float32"} | options
    return CachedTeacher(teacher, directory, given.pop("layers", LAYERS[family]), **given)


def assert_same(found: TeacherOutputs, expected: TeacherOutputs, family, batch, **tolerance):
    tolerance = tolerance or {"rtol": 1e-5, "atol": 1e-5}
    for stream, layers in expected.hidden.items():
        real = real_of(family, batch, stream)
        assert set(found.hidden[stream]) == set(layers)
        for layer, state in layers.items():
            torch.testing.assert_close(found.hidden[stream][layer][real], state[real], **tolerance)
            assert not found.hidden[stream][layer][~real].any()
    if expected.logits is not None:
        rows = slice(None) if expected.logits.ndim == 2 else real_of(family, batch, list(expected.hidden)[-1])
        torch.testing.assert_close(found.logits[rows], expected.logits[rows], **tolerance)


@pytest.mark.parametrize("family", LAYERS)
def test_answers_are_the_teachers_own(family, tiny_model, tmp_path):
    teacher = tiny_model(family, head=True)
    runs = TeacherForward(teacher, LAYERS[family])
    one, other = texts(family), texts(family, first=8)
    first = cached(teacher, tmp_path, family)
    for batch in (one, other):
        assert_same(first(batch), runs(batch), family, batch)
    assert first.passes == 2
    first.cache.flush()
    # Another run, other batches of the same examples, among them one that is padded further.
    again = cached(teacher, tmp_path, family)
    mixed = {name: torch.cat([one[name][1:3], other[name][[0, 3]]]) for name in one}
    expected, found = runs(mixed), again(mixed)
    for stream, layers in expected.hidden.items():
        real = real_of(family, one, stream)
        kept = torch.cat([real[1:3], real[[0, 3]]])
        for layer, state in layers.items():
            torch.testing.assert_close(found.hidden[stream][layer][kept], state[kept], rtol=1e-5, atol=1e-5)
    assert again.passes == 0
    assert len(again.cache) == 8


@pytest.mark.parametrize("family", LAYERS)
def test_one_that_fills_and_one_that_reads_say_the_same_to_the_bit(family, tiny_model, tmp_path):
    teacher = tiny_model(family, head=True)
    fills, batch = cached(teacher, tmp_path, family), texts(family)
    first = fills(batch)
    fills.cache.flush()
    second = cached(teacher, tmp_path, family)(batch)
    assert torch.equal(first.logits, second.logits)
    for stream, layers in first.hidden.items():
        assert all(torch.equal(state, second.hidden[stream][layer]) for layer, state in layers.items())


def test_padding_on_the_left_is_laid_out_where_it_was(tiny_model, tmp_path):
    teacher = tiny_model("bert", head=True)
    batch = texts("bert", left=True)
    keeps = cached(teacher, tmp_path, "bert", logits=False)
    keeps(batch)
    assert_same(keeps(batch), TeacherForward(teacher, LAYERS["bert"], logits=False)(batch), "bert", batch)


def test_a_vocabularys_logits_are_kept_as_what_enters_the_head(tiny_model, tmp_path):
    for family in ("t5", "qwen3"):
        keeps = cached(tiny_model(family, head=True), tmp_path / family, family)
        keeps(texts(family))
        keeps.cache.flush()
        (file,) = keeps.cache.directory.glob("*.safetensors")
        held = load_file(file)
        assert held["head"].shape[1:] == (1, 16)
        assert "logits" not in held


def test_logits_that_do_not_follow_from_the_head_alone_are_kept_themselves(tmp_path):
    config = transformers.Gemma2Config(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        head_dim=8,
        num_key_value_heads=2,
        intermediate_size=16,
        final_logit_softcapping=0.05,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    teacher = transformers.Gemma2ForCausalLM(config).eval()
    batch = texts("qwen3")
    keeps = cached(teacher, tmp_path, "qwen3", layers={"decoder": (1,)})
    expected = TeacherForward(teacher, {"decoder": (1,)})(batch)
    keeps(batch)
    assert_same(keeps(batch), expected, "qwen3", batch)
    keeps.cache.flush()
    (file,) = keeps.cache.directory.glob("*.safetensors")
    assert load_file(file)["logits"].shape[1:] == (1, 40)


def test_a_cache_with_more_layers_will_do_and_another_teachers_will_not(tiny_model, tmp_path):
    teacher, batch = tiny_model("bert", head=True), texts("bert")
    wide = cached(teacher, tmp_path, "bert", layers={"encoder": (1, 2, 3)})
    wide(batch)
    wide.cache.flush()
    narrow = cached(teacher, tmp_path, "bert", layers={"encoder": (2,)}, logits=False)
    found = narrow(batch)
    assert narrow.passes == 0
    assert (set(found.hidden["encoder"]), found.logits) == ({2}, None)
    assert_same(found, TeacherForward(teacher, {"encoder": (2,)}, logits=False)(batch), "bert", batch)
    for change in ({"sha256": "2" * 64}, {"precision": "bfloat16"}, {"final_norm": "included"}):
        other = cached(teacher, tmp_path, "bert", layers={"encoder": (2,)}, **change)
        assert len(other.cache) == 0


def test_a_damaged_shard_is_named_and_a_teacher_that_sees_padding_refused(tiny_model, tmp_path):
    teacher, batch = tiny_model("bert", head=True), texts("bert")
    keeps = cached(teacher, tmp_path, "bert")
    keeps(batch)
    keeps.cache.flush()
    (file,) = keeps.cache.directory.glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(InputError, match=rf"{file.name} is damaged: .*; remove it: what it held is computed again"):
        cached(teacher, tmp_path, "bert")
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "states.json").write_text("{}")
    with pytest.raises(InputError, match=r"store is a state store, which keeps no answers for training; choose"):
        cached(teacher, tmp_path / "store", "bert")
    with pytest.raises(
        InputError, match=r"depends on the texts around it \(equal lengths\); leave the teacher's cache"
    ):
        cached(build("fnet"), tmp_path, "bert")


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny_model, tiny_tokenizer, words):
    place = tmp_path_factory.mktemp("world")
    return {
        "teacher": write_teacher(place / "teacher", tiny_model, tiny_tokenizer()),
        "train": write_reviews(place / "train.tsv", words, 24),
        "dev": write_reviews(place / "dev.tsv", words, 10, seed=1),
    }


def student(world, out: Path, strategy: str, **settings) -> RunResult:
    return distill(
        world["teacher"],
        strategy=strategy,
        task="classification",
        train=world["train"],
        validation=[world["dev"]],
        out=out,
        layers=2,
        settings=quick(seed=3, max_steps=9, **settings),
    )


def weights(run):
    return load_file(Path(run.checkpoint) / "model.safetensors")


def test_students_of_one_cache_are_one_and_a_sweep_gives_them_too(world, tmp_path, monkeypatch):
    passes = []
    fill = CachedTeacher._fill
    monkeypatch.setattr(CachedTeacher, "_fill", lambda *args: (passes.append(1), fill(*args))[1])
    plain = student(world, tmp_path / "plain", "forward")
    filled = student(world, tmp_path / "filled", "forward", teacher_cache=str(tmp_path / "cache"))
    assert len(passes) == 3, "nine steps are three epochs of three batches"
    read = student(world, tmp_path / "read", "forward", teacher_cache=str(tmp_path / "cache"))
    assert len(passes) == 3
    first, second, without = map(weights, (filled, read, plain))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    for name, value in without.items():
        torch.testing.assert_close(first[name], value, rtol=1e-3, atol=1e-4)
    swept = sweep(
        world["teacher"],
        strategies=("forward", "reverse"),
        inits=("random",),
        seeds=(3,),
        task="classification",
        train=world["train"],
        validation=[world["dev"]],
        out=tmp_path / "sweep",
        layers=2,
        settings=quick(max_steps=9, teacher_cache=str(tmp_path / "cache")),
    )
    assert len(passes) == 3
    assert (swept.teacher_passes, swept.teacher_answers) == (0, 18)
    arm = weights(swept.arms["forward-random-seed3"])
    assert all(torch.equal(value, arm[name]) for name, value in first.items())


def test_the_official_reading_reads_padding_and_keeps_nothing(world, tmp_path):
    with pytest.raises(InputError, match=re.escape("--teacher-cache came with --reading official")):
        distill(
            world["teacher"],
            strategy="forward",
            task="classification",
            train=world["train"],
            out=tmp_path / "official",
            layers=2,
            reading="official",
            settings=quick(seed=3, teacher_cache=str(tmp_path / "cache")),
        )
    assert not (tmp_path / "cache").exists()


def test_what_is_kept_is_written_in_pieces(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(teacher_cache, "_SHARD_BYTES", 500)
    teacher = tiny_model("bert", head=True)
    keeps = cached(teacher, tmp_path, "bert")
    first = keeps(texts("bert"))
    assert len(list(keeps.cache.directory.glob("*.safetensors"))) > 1
    assert torch.equal(keeps(texts("bert")).logits, first.logits)
    assert len(cached(teacher, tmp_path, "bert").cache) >= 3
