"""A training table held on disk gives the training of one in memory, bit for bit, also when it is resumed."""

from __future__ import annotations

import json
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from anglekit.distillation.settings import DataSettings, EncodingSettings, TrainSettings
from anglekit.distillation.tasks.data import StreamedTexts, known_of
from anglekit.distillation.tasks.registry import TASKS
from anglekit.distillation.training.batch_order import BufferedOrder
from anglekit.errors import InputError
from anglekit.tables import json_rows
from tests.distillation.run_corpus import kill_at_five, make_world, quick, student


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny_model, tiny_tokenizer, words):
    root = tmp_path_factory.mktemp("world")
    made = make_world(root, tiny_model, tiny_tokenizer(), words)
    # In a form that is read in many pieces.
    rows = [line.split("\t") for line in (root / "train.tsv").read_text().splitlines()[1:]]
    (root / "train.jsonl").write_text(
        "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows)
    )
    return made | {"train": str(root / "train.jsonl")}


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch):
    monkeypatch.setattr(json_rows, "_BYTES_AT_ONCE", 200)


def weights(run):
    return load_file(f"{run.checkpoint}/model.safetensors")


def same(one, other):
    return one.keys() == other.keys() and all(bool((one[name] == other[name]).all()) for name in one)


def test_a_streamed_training_is_the_same_and_goes_on_where_it_was_killed(world, tmp_path, monkeypatch):
    options = {"seed": 3, "shuffle_buffer": 8, "max_steps": 8, "evaluate_every": 2}
    plain = student(world, tmp_path / "plain", settings=quick(**options))
    streamed = student(world, tmp_path / "streamed", settings=quick(**options, stream=True))
    assert same(weights(plain), weights(streamed))
    assert plain.columns == streamed.columns
    with monkeypatch.context() as patch:
        kill_at_five(patch)
        with pytest.raises(KeyboardInterrupt):
            student(world, tmp_path / "killed", settings=quick(**options, stream=True))
    resumed = student(world, tmp_path / "killed", settings=quick(**options, stream=True), if_exists="resume")
    assert same(weights(plain), weights(resumed))
    # The control: another order gives another student.
    other = student(world, tmp_path / "other", settings=quick(**options | {"shuffle_buffer": None}, stream=True))
    assert not same(weights(plain), weights(other))


ROWS = {
    "classification": lambda n: {"text": f"w{n} w1", "label": n % 3},
    "seq2seq": lambda n: {"source": f"w{n}", "target": [f"w{n} w2", "w3"][: 1 + n % 2]},
    "language-model": lambda n: {"text": " ".join(f"w{k}" for k in range(1 + 7 * (n % 4)))},
    "completion": lambda n: {"prompt": f"w{n}", "completion": "w1 w2"},
    "multiple-choice": lambda n: {"prompt": f"w{n}", "choices": ["w1", "w2 w3"], "label": n % 2},
    # WikiHow's rows, which have no second part, before those of videos.
    "hellaswag": lambda n: {
        "activity_label": "w1",
        "ctx_a": f"w{n}",
        "ctx_b": "" if n < 9 else "w2",
        "endings": ["w1", "w2 w3"],
        "label": n % 2,
    },
}


@pytest.mark.parametrize("name", ROWS)
def test_the_tokens_of_every_kind_are_the_same(tmp_path, name, tiny_model, tiny_tokenizer):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(ROWS[name](n)) + "\n" for n in range(13)))
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = tokenizer.eos_token or tokenizer.sep_token
    config = tiny_model("t5" if name == "seq2seq" else "bert").config
    whole, streamed = TASKS[name].read(str(path)), TASKS[name].stream(str(path))
    assert isinstance(streamed, StreamedTexts)
    assert len(streamed) == len(whole)
    assert streamed.provenance().items() <= whole.provenance().items()
    assert tuple(text for piece in streamed.texts_in_pieces() for text in piece)
    task = TASKS[name].for_fine_tuning(known_of(streamed), config)
    assert task == TASKS[name].for_fine_tuning(whole, config)
    lengths = task.encoding(EncodingSettings(max_length=8), tokenizer, config)
    one, other = (task.tokenize(each, tokenizer, lengths, config, training=True) for each in (whole, streamed))
    assert len(one) == len(other) > 0
    assert [one[n] for n in range(len(one))] == [other[n] for n in range(len(other))]
    assert one.lengths == other.lengths
    assert (one.longest("input_ids"), one.highest("input_ids")) == (
        other.longest("input_ids"),
        other.highest("input_ids"),
    )
    assert (one.rows is None) == (other.rows is None)
    assert one.rows is None or np.array_equal(one.rows, other.rows)
    assert any(isinstance(flat, np.memmap) for flat in other._flat.values())


@pytest.mark.parametrize("name", ["classification", "language-model"])
def test_a_blank_piece_is_as_good_as_blank_rows_and_a_blank_table_is_refused(tmp_path, name):
    path = tmp_path / "rows.jsonl"
    rows = [{"text": "w1 w2" if 20 <= n < 30 else " " * (n % 2), "label": n % 2} for n in range(40)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    whole, streamed = TASKS[name].read(str(path)), TASKS[name].stream(str(path))
    pieces = list(streamed.texts_in_pieces())
    assert not any(text.strip() for text in pieces[0])  # the control: there is a blank piece
    assert tuple(text for piece in pieces for text in piece) == whole.texts_read()
    path.write_text("".join(json.dumps(row | {"text": " "}) + "\n" for row in rows))
    for read in (TASKS[name].read, TASKS[name].stream):
        with pytest.raises(InputError, match=r"column 'text' of .* holds no text"):
            read(str(path), DataSettings(text="text"))


@pytest.mark.parametrize("blank", ["text", "text_pair"])
def test_each_of_two_columns_must_hold_a_text_somewhere_streamed_or_not(tmp_path, blank):
    path = tmp_path / "rows.jsonl"
    columns = DataSettings(text="text", text_pair="text_pair")
    rows = [{"text": "w1 w2", "text_pair": "w3", "label": n % 2} for n in range(40)]
    some = [row if n == 30 else row | {blank: ""} for n, row in enumerate(rows)]
    path.write_text("".join(json.dumps(row) + "\n" for row in some))
    assert len(TASKS["classification"].read(str(path), columns)) == 40
    assert len(list(TASKS["classification"].stream(str(path), columns).texts_in_pieces())) > 1
    path.write_text("".join(json.dumps(row | {blank: ""}) + "\n" for row in rows))
    for read in (TASKS["classification"].read, TASKS["classification"].stream):
        with pytest.raises(InputError, match=f"column '{blank}' of .* holds no text; name another with --text or"):
            read(str(path), columns)


@given(st.integers(0, 40), st.integers(1, 12), st.integers(0, 3), st.integers(0, 3))
def test_an_order_within_a_buffer(n_examples, buffer, seed, epoch):
    order = BufferedOrder(n_examples, buffer, seed)
    order.set_epoch(epoch)
    drawn = list(order)
    assert sorted(drawn) == list(range(n_examples))
    assert all(example - place < buffer for place, example in enumerate(drawn))
    assert drawn == list(order)
    assert buffer > 1 or drawn == list(range(n_examples))


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = set()
    for seed, epoch in ((0, 0), (0, 1), (1, 0)):
        order = BufferedOrder(50, 10, seed)
        order.set_epoch(epoch)
        orders.add(tuple(order))
    assert len(orders) == 3


def test_what_cannot_be_streamed_is_refused(world):
    with pytest.raises(InputError, match="--stream came with --drop-labels"):
        TASKS["classification"].stream(world["train"], DataSettings(drop_labels="positive"))
    with pytest.raises(InputError, match="shuffle_buffer came with group_by_length"):
        TrainSettings(shuffle_buffer=8, group_by_length=True)
    assert "stream" not in TrainSettings(stream=True).decisive()
    assert {one.name for one in fields(TrainSettings)} >= {"stream", "shuffle_buffer"}
