"""What every corpus made by a generator promises: its card, its splits, its random stream, its tokenizer."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest
from transformers import AutoTokenizer

import anglekit_data
from anglekit.errors import InputError
from anglekit.probes.data import read_probe
from anglekit.tables.read import read_table
from anglekit_data import endings, generation, numbers, triples
from anglekit_data.word_tokenizers import SPECIAL_TOKENS, train_word_tokenizer

MAKERS = {
    "triples": (triples.rows, "bart"),
    "numbers": (numbers.rows, "t5"),
    "endings": (endings.rows, "causal"),
    "questions": (endings.question_rows, "causal"),
}
SPLITS = ("train", "validation", "test")
COLUMNS = {
    "triples": ["source", "target", "references"],
    "numbers": ["source", "target"],
    "endings": ["prompt", "choices", "label", "completion"],
    "questions": ["prompt", "completion"],
}


def texts_of(name, split):
    """Every text of a split."""
    cells = [cell for column in COLUMNS[name] if column != "label" for cell in anglekit_data.load(name, split)[column]]
    return [text for cell in cells for text in (cell if isinstance(cell, list) else [cell])]


def inputs_of(name, split):
    """What a model reads, row by row."""
    return list(anglekit_data.load(name, split)[COLUMNS[name][0]])


@pytest.mark.parametrize("name", MAKERS)
def test_card_states_the_checksums_counts_and_licence(name):
    make, sizes = MAKERS[name][0], anglekit_data.split_sizes(name)
    card = anglekit_data.data_card(name)
    assert "MIT" in card
    assert f"builtin:{name}" in card
    for split in SPLITS:
        row = next(line for line in card.splitlines() if line.startswith(f"| {split} |"))
        made = make(split, sizes[split])
        assert generation.sha256(made) in row
        assert f" {sizes[split]} " in row
        assert generation.sha256(made[:-4]) not in card


@pytest.mark.parametrize("name", MAKERS)
def test_splits_share_no_input_and_held_out_inputs_are_unique(name):
    inputs = {split: inputs_of(name, split) for split in SPLITS}
    assert not set(inputs["train"]) & set(inputs["validation"] + inputs["test"])
    assert not set(inputs["validation"]) & set(inputs["test"])
    for split in ("validation", "test"):
        assert len(set(inputs[split])) == len(inputs[split])


@pytest.mark.parametrize("name", MAKERS)
def test_rows_do_not_depend_on_hash_seed_or_global_random_state(name):
    make = MAKERS[name][0]
    expected = generation.sha256(make("test", 200))
    code = (
        "from anglekit_data import generation, endings, numbers, triples\n"
        f"print(generation.sha256({make.__module__.split('.')[-1]}.{make.__name__}('test', 200)))"
    )
    environment = {"PYTHONHASHSEED": "7", "PYTHONPATH": ":".join(sys.path)}
    command = [sys.executable, "-c", code]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert answer.stdout == expected + "\n"
    random.seed(1)
    before = random.getstate()
    assert generation.sha256(make("test", 200)) == expected
    assert random.getstate() == before
    assert generation.sha256(make("test", 200, seed=1)) != expected


@pytest.mark.parametrize("name", MAKERS)
def test_builtin_names_are_read_as_tables_and_probes(name):
    table = read_table(f"builtin:{name}")
    assert list(table.frame.columns) == COLUMNS[name]
    assert len(table.frame) == anglekit_data.split_sizes(name)["validation"]
    probe = read_probe(f"builtin:{name}:test", limit=20)
    assert (probe.text_column, probe.target_column) == (
        COLUMNS[name][0],
        "completion" if "completion" in COLUMNS[name] else "target",
    )
    assert all(probe.texts)
    assert all(probe.targets)


def test_load_gives_lists_of_its_own():
    frame = anglekit_data.load("triples")
    frame["references"][0][0] = "spoiled"
    assert anglekit_data.load("triples")["references"][0][0] != "spoiled"


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize(("split", "size"), [("dev", 4), ("test", 0)])
def test_generators_refuse_what_they_cannot_draw(name, split, size):
    with pytest.raises(ValueError, match=r"allowed are|multiple of"):
        MAKERS[name][0](split, size)


def test_stories_come_in_fours():
    with pytest.raises(ValueError, match="multiple of 4"):
        endings.rows("test", 6)


@pytest.mark.parametrize("name", MAKERS)
def test_tokenizer_gives_every_text_back_and_survives_saving(name, tmp_path):
    form = MAKERS[name][1]
    made = train_word_tokenizer(texts_of(name, "train"), 400, form, 64)
    made.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    special = loaded.convert_tokens_to_ids(list(SPECIAL_TOKENS[form]))
    assert special == list(range(len(special)))
    for split in SPLITS:
        texts = list(texts_of(name, split)[:: 10 if split == "train" else 1])
        read = loaded(texts)["input_ids"]
        assert all(loaded.unk_token_id not in ids and len(ids) <= 64 for ids in read)
        assert loaded.batch_decode(read, skip_special_tokens=True) == texts


def test_tokenizer_forms_put_their_own_special_tokens_around_a_text():
    for form, expected in {"bart": ["<s>", "▁Hi", "</s>"], "t5": ["▁Hi", "</s>"], "causal": ["▁Hi"]}.items():
        tokenizer = train_word_tokenizer(["Hi there."], 20, form)
        assert tokenizer.convert_ids_to_tokens(tokenizer("Hi")["input_ids"]) == expected
        assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (
            "<s>" if form == "bart" else None,
            "</s>",
            "<pad>",
        )


def test_tokenizer_loses_what_it_does_not_know():
    tokenizer = train_word_tokenizer(["Ben sang."], 20, "causal")
    assert tokenizer.decode(tokenizer("Ben left.")["input_ids"], skip_special_tokens=True) != "Ben left."


def test_tokenizer_keeps_the_most_frequent_words_and_breaks_ties_by_name():
    tokenizer = train_word_tokenizer(["b b c a"], 5, "causal")
    assert set(tokenizer.get_vocab()) == {*SPECIAL_TOKENS["causal"], "▁b", "▁a"}


@pytest.mark.parametrize(
    ("texts", "size", "form", "said"),
    [
        (["a"], 3, "t5", "no room for words"),
        ([" "], 9, "t5", "hold no word"),
        (["a"], 9, "bert", "kind 'bert' does not exist; did you mean 'bart'"),
    ],
)
def test_tokenizer_refuses_what_makes_no_vocabulary(texts, size, form, said):
    with pytest.raises(InputError, match=said):
        train_word_tokenizer(texts, size, form)
