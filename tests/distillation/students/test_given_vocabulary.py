"""Given students whose vocabulary has other rows, or tokens of its own behind the teacher's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from anglekit.distillation.losses.weights import LossWeights
from anglekit.distillation.matching.plan import DistillationPlan
from anglekit.distillation.matching.plan_text import plan_text
from anglekit.errors import InputError
from tests.distillation.causal_corpus import causal_student, make_causal_world, write_rows
from tests.distillation.run_corpus import quick

FEW = quick(seed=3, max_steps=2)


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny_model, tiny_tokenizer, words):
    return make_causal_world(tmp_path_factory.mktemp("world"), "qwen3", tiny_model, tiny_tokenizer(), words)


def resized(world, place: Path, rows: int, *tokens: str) -> str:
    """Save the teacher as a student of two blocks with so many rows, and with tokens of its own."""
    model = AutoModelForCausalLM.from_pretrained(world["teacher"])
    model.model.layers = model.model.layers[:2]
    model.config.num_hidden_layers = 2
    model.config.layer_types = model.config.layer_types[:2]
    before = model.config.vocab_size
    model.resize_token_embeddings(rows, mean_resizing=False)
    with torch.no_grad():  # rows that would matter if they were read
        model.get_output_embeddings().weight[before:] = 0.5
    model.save_pretrained(place)
    tokenizer = AutoTokenizer.from_pretrained(world["teacher"])
    tokenizer.add_tokens([*tokens])
    tokenizer.save_pretrained(place)
    return str(place)


def test_a_student_of_more_rows_learns_as_one_that_was_cut(world, tmp_path):
    notes: list[str] = []
    options = {"layers": None, "settings": FEW, "weights": LossWeights(0, 1, 3), "validation": [], "note": notes.append}
    rows = AutoModelForCausalLM.from_pretrained(world["teacher"]).config.vocab_size
    plain = causal_student(world, tmp_path / "plain", student=resized(world, tmp_path / "cut", rows), **options)
    padded = resized(world, tmp_path / "padded", rows + 16)
    wide = causal_student(world, tmp_path / "wide", student=padded, **options)
    kept, after = (load_file(Path(each.checkpoint) / "model.safetensors") for each in (plain, wide))
    start = load_file(Path(padded) / "model.safetensors")
    assert all(torch.allclose(after[name][: len(weight)], weight, atol=1e-6) for name, weight in kept.items())
    assert any(not torch.allclose(after[name], weight, atol=1e-4) for name, weight in start.items())
    assert "shared" not in notes[0]
    plans = [
        plan_text(DistillationPlan.from_json(json.loads((Path(each.directory) / "plan.json").read_text())))
        for each in (plain, wide)
    ]
    assert f"entries   {rows} of the teacher's vocabulary, {rows + 16} of the student's: a KL" in plans[1]
    assert "entries" not in plans[0]
    assert notes[1].endswith(
        f"of the teacher's {rows} and the student's {rows + 16} vocabulary entries the first {rows} are shared: the KL "
        "is over these, each side renormalised over them"
    )
    written = ["".join(file.read_text() for file in Path(each.directory).glob("*.json")) for each in (plain, wide)]
    assert ["shared_entries" in text for text in written] == [False, True]
    assert f'"shared_entries": {rows}' in written[1]


def test_a_student_keeps_its_own_tokens_and_reads_the_tables_as_its_teacher(world, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(world["teacher"])
    n = len(tokenizer)
    place = resized(world, tmp_path / "mine", n + 3, "<think>")
    trained = causal_student(world, tmp_path / "run", student=place, layers=None, settings=FEW)
    saved = AutoTokenizer.from_pretrained(trained.checkpoint)
    assert saved.convert_tokens_to_ids("<think>") == n
    assert AutoModelForCausalLM.from_pretrained(trained.checkpoint).config.vocab_size == n + 3
    rows = [json.loads(line) for line in Path(world["train"]).read_text().splitlines()]
    rows[5]["prompt"] += " <think>"
    train = write_rows(tmp_path / "thinking.jsonl", *rows)
    with pytest.raises(InputError, match=r"reads 1 of 128 texts of table train otherwise .* leave such texts out"):
        causal_student(world, tmp_path / "other", student=place, layers=None, settings=FEW, train=train)
    assert not (tmp_path / "other").exists()


def test_a_token_that_the_student_has_no_row_for_is_refused_where_it_is_read(world, tmp_path, words):
    n = len(AutoTokenizer.from_pretrained(world["teacher"]))
    place = resized(world, tmp_path / "short", n - 1)
    last = words[-1]
    with pytest.raises(InputError, match=f"table train holds the token '{last}' .number {n - 1}., and the student"):
        causal_student(world, tmp_path / "run", student=place, layers=None, settings=FEW)
    rows = [json.loads(line) for line in Path(world["train"]).read_text().splitlines()]
    train = write_rows(tmp_path / "few.jsonl", *(row for row in rows if last not in json.dumps(row)))
    causal_student(world, tmp_path / "run", student=place, layers=None, settings=FEW, train=train, validation=[])
