"""The built-in corpora: what they promise, and labels checked against a reading of the sentences of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import permutations

import pytest
import torch
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

import anglekit_data
from anglekit.errors import InputError
from anglekit.recipes.recipe_files import load_recipe
from anglekit_data import inference
from anglekit_data.generation import Draw, sha256
from anglekit_data.inference_families import FAMILIES, LABELS
from anglekit_data.inference_lexicon import MOTIONS, PEOPLE_ORDERS, PLACES, THING_ORDERS, related
from anglekit_data.inference_quantifiers import judge
from anglekit_data.matching_initialization import initialize_matching_attention
from anglekit_data.word_tokenizers import SPECIAL_TOKENS, train_word_tokenizer

SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def pairs():
    return {split: inference.generate(split, anglekit_data.split_sizes("inference")[split]) for split in SPLITS}


def order_facts(sentence):
    """Read comparisons as (respect, greater, smaller)."""
    facts = []
    for clause in sentence.split(" and "):
        for respect, patterns in enumerate((*PEOPLE_ORDERS, *THING_ORDERS)):
            for pattern, turned in zip(patterns, (False, True), strict=True):
                found = re.fullmatch(re.escape(pattern).replace(r"\{\}", "(.+)"), clause)
                if found:
                    first, second = found.groups()
                    facts.append((respect, second, first) if turned else (respect, first, second))
    return facts


def label_by_orderings(premise, hypothesis):
    """Label by every strict order of the terms: an oracle that shares nothing with the generator but its words."""
    facts, ((respect, more, less),) = order_facts(premise), order_facts(hypothesis)
    terms = sorted({term for _, *two in facts for term in two} | {more, less})
    outcomes = set()
    for order in permutations(terms):
        if all(order.index(a) < order.index(b) for r, a, b in facts if r == respect):
            outcomes.add(order.index(more) < order.index(less))
    return {frozenset({True}): "entailment", frozenset({False}): "contradiction"}.get(frozenset(outcomes), "neutral")


def label_by_places(premise, hypothesis):
    """Label `located` and `contained` by following who or what is inside what."""
    step = re.compile(r"(?:the )?(\w+) is in the (\w+)")
    inside = dict(step.fullmatch(clause).groups() for clause in premise.split(" and "))
    subject, place = step.fullmatch(hypothesis).groups()
    where = subject
    while where in inside:
        where = inside[where]
    tree = related(PLACES)
    if where in tree[place]["same"] + tree[place]["narrower"]:
        return "entailment"
    return "contradiction" if where in tree[place]["disjoint"] else "neutral"


def label_by_slots(premise, hypothesis):
    """Label `situated` slot by slot."""
    form = re.compile(r"(\w+) is (not )?(\w+) in the (\w+)")
    who, _, motion, place = form.fullmatch(premise).groups()
    subject, negated, other_motion, other_place = form.fullmatch(hypothesis).groups()
    slots = ((related(MOTIONS)[other_motion], motion), (related(PLACES)[other_place], place))
    label = "neutral"
    if who == subject:
        if any(word in table["disjoint"] for table, word in slots):
            label = "contradiction"
        elif all(word in table["same"] + table["narrower"] for table, word in slots):
            label = "entailment"
    turned = {"entailment": "contradiction", "contradiction": "entailment", "neutral": "neutral"}
    return turned[label] if negated else label


ORACLES = {
    "people_direct": label_by_orderings,
    "people_chain": label_by_orderings,
    "people_long_chain": label_by_orderings,
    "things_direct": label_by_orderings,
    "things_chain": label_by_orderings,
    "located": label_by_places,
    "contained": label_by_places,
    "situated": label_by_slots,
}


@pytest.mark.parametrize("family", ORACLES)
def test_labels_agree_with_an_oracle_that_reads_the_sentences(family):
    draw = Draw(7)
    for _ in range(150):
        triple = FAMILIES[family][0](draw)
        for label, premise in zip(LABELS, triple.premises, strict=True):
            assert ORACLES[family](premise, triple.hypothesis) == label, (premise, triple.hypothesis)


def test_oracle_rejects_swapped_labels():
    draw = Draw(7)
    triples = [FAMILIES["people_chain"][0](draw) for _ in range(50)]
    assert not any(label_by_orderings(t.premises[0], t.hypothesis) == "contradiction" for t in triples)
    assert all(label_by_orderings(t.premises[0], t.hypothesis) != "neutral" for t in triples)


@pytest.mark.parametrize(
    ("premise", "hypothesis", "noun", "adjective", "label"),
    [
        ("all", "some", "same", "same", "entailment"),
        ("all", "all", "wider", "narrower", "entailment"),
        ("some", "some", "narrower", "narrower", "entailment"),
        ("some", "some", "wider", "same", "neutral"),
        ("no", "no", "wider", "wider", "entailment"),
        ("no", "some", "same", "same", "contradiction"),
        ("all", "some", "same", "disjoint", "contradiction"),
        ("some", "not all", "same", "disjoint", "entailment"),
        ("not all", "all", "narrower", "same", "contradiction"),
        ("not all", "all", "wider", "same", "neutral"),
        ("not all", "all", "same", "same", "contradiction"),
    ],
)
def test_quantifiers_judged_as_logic_has_it(premise, hypothesis, noun, adjective, label):
    assert judge(premise, hypothesis, noun, adjective) == label


def test_every_hypothesis_has_each_label_equally_often(pairs):
    for split in SPLITS:
        counts: dict[str, list[int]] = {}
        for pair in pairs[split]:
            counts.setdefault(pair.hypothesis, [0, 0, 0])[LABELS.index(pair.label)] += 1
        assert all(len(set(three)) == 1 for three in counts.values())


def test_splits_share_no_hypothesis_and_held_out_pairs_are_unique(pairs):
    hypotheses = {split: {pair.hypothesis for pair in pairs[split]} for split in SPLITS}
    assert not hypotheses["train"] & hypotheses["validation"]
    assert not hypotheses["train"] & hypotheses["test"]
    assert not hypotheses["validation"] & hypotheses["test"]
    for split in ("validation", "test"):
        assert len({(p.premise, p.hypothesis) for p in pairs[split]}) == len(pairs[split])


def test_held_out_words_all_occur_in_training(pairs):
    words = {split: {w for p in pairs[split] for w in f"{p.premise} {p.hypothesis}".split()} for split in SPLITS}
    assert words["validation"] | words["test"] <= words["train"]


def test_card_states_the_checksums_counts_and_licence(pairs):
    card = anglekit_data.data_card("inference")
    assert "MIT" in card
    for split in SPLITS:
        row = next(line for line in card.splitlines() if line.startswith(f"| {split} |"))
        rows = inference.rows(split, len(pairs[split]))
        assert sha256(rows) in row
        assert f" {len(rows)} " in row
    assert sha256(rows[:-1]) not in card


def test_generation_does_not_depend_on_the_hash_seed():
    code = "from anglekit_data import generation, inference; print(generation.sha256(inference.rows('test', 300)))"
    answers = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert answers == {sha256(inference.rows("test", 300)) + "\n"}
    assert sha256(inference.rows("test", 300, seed=1)) + "\n" not in answers


def test_load_gives_a_frame_of_its_own():
    frame = anglekit_data.load("inference")
    assert list(frame.columns) == ["premise", "hypothesis", "label"]
    assert set(frame["label"]) == set(LABELS)
    frame.loc[0, "label"] = "spoiled"
    assert "spoiled" not in set(anglekit_data.load("inference")["label"])
    assert anglekit_data.names() == ("inference", "triples", "numbers", "endings", "questions")
    assert anglekit_data.splits("inference") == SPLITS


@pytest.mark.parametrize("call", [anglekit_data.load, anglekit_data.splits, anglekit_data.data_card])
def test_unknown_corpus_is_refused_with_the_nearest_name(call):
    with pytest.raises(InputError, match=r"'inferense' does not exist: did you mean 'inference'\?"):
        call("inferense")


def test_unknown_split_is_refused_with_the_nearest_name():
    with pytest.raises(InputError, match=r"no split 'valid': did you mean 'validation'\?"):
        anglekit_data.load("inference", "valid")


@pytest.mark.parametrize(("split", "size"), [("dev", 3), ("test", 4), ("test", 0)])
def test_generator_refuses_what_it_cannot_draw(split, size):
    with pytest.raises(ValueError, match=r"allowed are|multiple of 3"):
        inference.generate(split, size)


def test_tokenizer_writes_pairs_in_berts_manner_and_survives_saving(tmp_path):
    tokenizer = train_word_tokenizer(["Ben left", "ben sang, left"], 100, "words")
    assert tokenizer.convert_ids_to_tokens(range(len(tokenizer))) == [
        *SPECIAL_TOKENS["words"],
        "ben",
        "left",
        ",",
        "sang",
    ]
    tokenizer.save_pretrained(tmp_path)
    for made in (tokenizer, AutoTokenizer.from_pretrained(tmp_path)):
        encoded = made("Ben left", "BEN flew")
        tokens = made.convert_ids_to_tokens(encoded["input_ids"])
        assert tokens == ["[CLS]", "ben", "left", "[SEP]", "ben", "[UNK]", "[SEP]"]
        assert encoded["token_type_ids"] == [0, 0, 0, 0, 1, 1, 1]
        assert made.pad_token_id == 0


def test_tokenizer_keeps_the_most_frequent_words():
    assert set(train_word_tokenizer(["a a b b c"], 7, "words").get_vocab()) == {*SPECIAL_TOKENS["words"], "a", "b"}


@pytest.mark.parametrize(("texts", "size", "said"), [(["a"], 5, "no room for words"), (["  "], 9, "hold no word")])
def test_tokenizer_refuses_what_makes_no_vocabulary(texts, size, said):
    with pytest.raises(InputError, match=said):
        train_word_tokenizer(texts, size, "words")


def test_demo_sentences_fit_the_demo_length(pairs):
    longest = max(len(f"{p.premise} {p.hypothesis}".split()) + 3 for split in SPLITS for p in pairs[split])
    assert longest <= load_recipe("builtin-inference").students.training.max_length


def test_matching_attention_prefers_like_tokens_and_leaves_the_global_seed_alone():
    config = BertConfig(
        vocab_size=20, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, num_labels=3
    )
    model = BertForSequenceClassification(config)
    states = torch.nn.functional.layer_norm(torch.randn(12, 64, generator=torch.Generator().manual_seed(0)), (64,))
    own = model.bert.encoder.layer[0].attention.self

    def share_on_itself():
        scores = (states @ own.query.weight.T) @ (states @ own.key.weight.T).T
        return scores.softmax(-1).diagonal().mean().item()

    assert share_on_itself() < 0.5
    before = torch.random.get_rng_state()
    initialize_matching_attention(model, seed=3)
    assert torch.equal(before, torch.random.get_rng_state())
    assert share_on_itself() > 0.9
    first = own.query.weight.clone()
    initialize_matching_attention(model, seed=3)
    assert torch.equal(first, own.query.weight)
    initialize_matching_attention(model, seed=4)
    assert not torch.equal(first, own.query.weight)
