from __future__ import annotations

import random

import numpy as np
import pytest
from tokenizers import normalizers
from transformers import BertConfig, BertForMaskedLM, BertModel, CanineConfig, CanineModel, PreTrainedTokenizerFast

from anglekit.probes.data import ProbeData
from anglekit.probes.shared_vocabulary import follow_one_way, shared_vocabulary, vocabulary_entries
from anglekit.probes.tokenize import read_alike, unlike_words

ROWS = 40


def relation(one, other, rows=(ROWS, ROWS)):
    return shared_vocabulary(one, other, *rows)


@pytest.fixture
def one(tiny_tokenizer) -> PreTrainedTokenizerFast:
    return tiny_tokenizer()


def test_rows_and_tokens_at_the_end_are_told_from_other_vocabularies(one, tiny_tokenizer, words):
    """The tokens are 0 to 23 here: four special ones and twenty words."""
    n = len(one)
    same = relation(one, tiny_tokenizer())
    assert (same.relation, same.entries, same.reduces, same.in_words()) == ("same", ROWS, False, "")
    padded = relation(one, tiny_tokenizer(), (ROWS, ROWS + 8))
    assert (padded.relation, padded.entries, padded.difference) == ("padded", ROWS, "")
    assert padded.in_words().startswith(f"of the teacher's {ROWS} and the student's {ROWS + 8} vocabulary entries the ")
    added = tiny_tokenizer()
    added.add_tokens(["<think>", "</think>"])
    for pair, role in (((added, one), "teacher"), ((one, added), "student")):
        found = relation(*pair)
        assert (found.relation, found.entries, found.reduces) == ("appended", n, True)
        assert found.difference == (
            f"2 tokens at the end are known to the {role} alone, such as '<think>' (number {n})"
        )
    other = tiny_tokenizer()
    other.add_tokens(["<end>"])
    both = relation(added, other)
    assert (both.relation, both.entries) == ("appended", n)
    assert "known to the teacher alone" in both.difference
    assert both.difference.endswith(f"1 token at the end is known to the student alone, such as '<end>' (number {n})")
    # A token that a model has no row for.
    short = relation(one, tiny_tokenizer(), (n - 2, ROWS))
    assert (short.relation, short.entries) == ("appended", n - 2)
    assert short.difference == f"token {words[-2]!r} (number {n - 2}) has no entry in the teacher"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda words: words[1:], "token 'a' is number 5 in the teacher's and 4 in the student's"),
        (lambda words: ("x0", *words[1:]), "token 'the' is number 4 in the teacher's and absent from the student's"),
        (lambda words: words[:3], "token 'was' is number 7 in the teacher's and absent from the student's"),
        (lambda words: words + tuple(f"x{n}" for n in range(99)), "token 'x0' is number"),
        (lambda words: tuple(f"x{n}" for n in range(len(words))), "token 'the' is number 4"),
    ],
)
def test_other_vocabularies_share_nothing_and_an_example_says_why(one, tiny_tokenizer, words, change, expected):
    found = relation(one, tiny_tokenizer(change(words)), (200, 200))
    assert (found.relation, found.entries) == ("different", 0)
    assert found.difference.startswith(expected)
    assert found.in_words().startswith("teacher and student have different vocabularies: token ")


def test_how_a_tokenizer_was_last_asked_to_pad_and_cut_is_no_rule(one, tiny_tokenizer):
    other = tiny_tokenizer()
    other(["w0", "w0 w1"], padding=True, truncation=True, max_length=5)
    assert one.backend_tokenizer.to_str() != other.backend_tokenizer.to_str()
    assert follow_one_way(one, other)
    other.backend_tokenizer.normalizer = normalizers.Lowercase()
    assert not follow_one_way(one, other)
    # Equal vocabularies, other rules: the texts decide.
    assert relation(one, other).relation == "same"
    assert not relation(one, other).one_way


def test_every_text_is_compared_and_not_the_first_ones(one, tiny_tokenizer, words):
    added = tiny_tokenizer()
    added.add_tokens(["newword"])
    texts = [" ".join(random.Random(n).choices(words, k=4)) for n in range(1500)]
    unlike = [700, 1499]
    for place in unlike:
        texts[place] = "the newword"

    def probe(**columns) -> ProbeData:
        given = {"texts": tuple(texts), "text_pairs": None, "targets": None, **columns}
        return ProbeData("p", "", rows=tuple(range(1500)), skipped_rows=0, text_column="t", text_pair_column=None,
                         target_column=None, **given)  # fmt: skip

    entries = relation(one, added).entries
    assert np.flatnonzero(~read_alike(probe(), one, added, entries=entries)).tolist() == unlike
    assert read_alike(probe(), one, tiny_tokenizer(), entries=entries).all()
    # A row that the model lacks makes a text unlike, though both tokenizers give the same ids.
    last = [place for place, text in enumerate(texts) if words[-1] in text.split() or place in unlike]
    assert np.flatnonzero(~read_alike(probe(), one, added, entries=len(one) - 1)).tolist() == last
    plain = ("the",) * 1500
    for columns, options in (
        ({"text_pairs": tuple(texts)}, {}),
        ({"targets": tuple(texts)}, {"reads_targets": True}),
        ({"targets": tuple(texts)}, {"continued": True}),
    ):
        given = probe(texts=plain, **columns)
        assert np.flatnonzero(~read_alike(given, one, added, entries=entries, **options)).tolist() == unlike
    # A tokenizer that gives no token types reads the same.
    typed = tiny_tokenizer()
    typed.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    assert [("token_type_ids" in each("the", "the")) for each in (typed, one)] == [True, False]
    assert read_alike(probe(texts=plain, text_pairs=plain), typed, one, entries=entries).all()
    assert read_alike(probe(texts=plain, targets=tuple(texts)), one, added, entries=entries).all()
    assert unlike_words("the newword", one, added) == f"token 3 of 'the newword' is number 1 and {len(one)}"
    words = unlike_words("the newword", added, added, len(one))
    assert words.startswith(f"token 3 of 'the newword' is 'newword', number {len(one)} in both, and the models share")


def test_the_rows_of_a_model_are_counted():
    config = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    for kind in (BertModel, BertForMaskedLM):
        model = kind(BertConfig(vocab_size=31, **config))
        assert vocabulary_entries(model) == 31
        model.resize_token_embeddings(35)
        assert vocabulary_entries(model) == 35
    assert vocabulary_entries(CanineModel(CanineConfig(**config))) is None
