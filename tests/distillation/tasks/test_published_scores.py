"""Scores as the paper's evaluations have them, against their rules by hand and definitions of others, spelled out."""

import json
import math
import re
import string
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anglekit.distillation.settings import EncodingSettings
from anglekit.distillation.tasks.registry import task_by_name
from anglekit.distillation.tasks.scores import corpus_scores, last_turn_matches
from anglekit.readings import decisions
from anglekit.results.corpus_scores import CORPUS_SCORES
from tests.distillation.causal_corpus import causal_tokenizer, write_rows


def moses(texts, references):
    """Return multi-bleu.perl's number by its rules, of texts in lower case split at non-word characters."""

    def split(text):
        return re.findall(r"\w+|[^\w\s]", text.lower())

    right, total = Counter(), Counter()
    written = referred = 0
    for text, own in zip(texts, references, strict=True):
        said, others = split(text), [split(one) for one in own]
        written += len(said)
        referred += min((abs(len(one) - len(said)), len(one)) for one in others)[1]
        for n in range(1, 5):
            grams = Counter(tuple(said[i : i + n]) for i in range(len(said) - n + 1))
            total[n] += sum(grams.values())
            most = Counter()
            for one in others:
                most |= Counter(tuple(one[i : i + n]) for i in range(len(one) - n + 1))
            right[n] += sum((grams & most).values())
    if not all(right[n] for n in range(1, 5)):
        return 0.0
    mean = sum(math.log(right[n] / total[n]) for n in range(1, 5)) / 4
    return 100 * math.exp(mean + (0.0 if written > referred else 1 - referred / written))


CORPUS = (
    ["The Mill, near Eagle-Pub, serves food.", "Alan Bean was born in Wheeler Texas"],
    [
        ["The mill near Eagle-Pub serves good food .", "Near eagle - pub, the Mill serves food", "A mill."],
        ["alan bean was born in Wheeler, Texas, in 1932.", "Wheeler is where Alan Bean was born."],
    ],
)


def test_multi_bleu_follows_its_rules():
    found = corpus_scores(("bleu", "multi_bleu"), *CORPUS).values
    assert found["multi_bleu"] == pytest.approx(moses(*CORPUS), abs=1e-9)
    assert abs(found["multi_bleu"] - found["bleu"]) > 1.0, "a negative control: sacreBLEU is another measure"
    # Two references are as close in length: the shorter one counts.
    tie = (["a b c d e"], [["a b c d", "a b c d e f"]])
    assert corpus_scores(("multi_bleu",), *tie).values["multi_bleu"] == pytest.approx(moses(*tie), abs=1e-9)


WORD = st.sampled_from(["the", "The", "cat", "sat", ",", "on", "a-b", "mat."])
TEXT = st.lists(WORD, min_size=1, max_size=9).map(" ".join)


@given(st.lists(st.tuples(TEXT, st.lists(TEXT, min_size=1, max_size=3)), min_size=1, max_size=4))
def test_multi_bleu_equals_its_rules_of_any_texts(rows):
    texts, references = zip(*rows, strict=True)
    report = corpus_scores(("multi_bleu",), texts, references)
    assert report.values["multi_bleu"] == pytest.approx(moses(texts, references), abs=1e-9)
    score = CORPUS_SCORES["multi_bleu"]
    sums = np.array([report.examples[name].sum() for name in score.columns("multi_bleu")], dtype=np.float64)
    assert score.of_sums(sums)[0] == pytest.approx(report.values["multi_bleu"], abs=1e-9)


def test_romanian_letters_of_both_spellings_are_one_after_normalisation():
    cedilla, comma = "\u015fi \u0163ara este frumoas\u0103 azi", "\u0219i \u021bara este frumoas\u0103 azi"
    found = corpus_scores(("bleu", "bleu_romanian"), [cedilla], [[comma]]).values
    assert found["bleu_romanian"] == pytest.approx(100.0)
    assert found["bleu"] < 60.0
    same = corpus_scores(("bleu", "bleu_romanian"), [comma], [[comma]]).values
    assert same["bleu"] == pytest.approx(same["bleu_romanian"])


def harness(answers, text):
    """Return `em` as the evaluation harness of CoQA defines it, with SQuAD's normalisation."""

    def normal(one):
        bare = "".join(letter for letter in one.lower() if letter not in set(string.punctuation))
        return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())

    said = normal(text.strip().split("\n")[0])
    if len(answers) == 1:
        return float(normal(answers[0]) == said)
    kept = [answers[:place] + answers[place + 1 :] for place in range(len(answers))]
    return sum(max(float(normal(one) == said) for one in others) for others in kept) / len(answers)


ANSWER = st.sampled_from(["the cat", "Cat.", "cat", "a dog", "dog", "no", "in 1932"])


@given(st.lists(st.tuples(st.lists(ANSWER, min_size=1, max_size=4), ANSWER), min_size=1, max_size=5))
def test_several_answers_count_with_each_left_out_in_turn(rows):
    answers, texts = zip(*rows, strict=True)
    found = last_turn_matches([f"{text}\nQ: and then?" for text in texts], answers)
    assert found.tolist() == pytest.approx([harness(own, text) for own, text in rows])


def test_one_of_several_answers_met_is_not_the_whole():
    assert last_turn_matches(["cat"], [["the cat", "dog", "bird"]]).tolist() == pytest.approx([2 / 3])
    assert last_turn_matches(["cat"], [["the cat", "Cat", "bird"]]).tolist() == [1.0]


# ---- what is trained on, in both readings ----


def completions(task, table, tokenizer, config, *, training=True):
    examples = task.tokenize(table, tokenizer, EncodingSettings(64, cut="prompt"), config, training=training)
    rows = (examples[number] for number in range(len(examples)))
    return [tokenizer.decode(one["input_ids"][one["unlabelled"] :], skip_special_tokens=True) for one in rows]


@pytest.fixture
def config(tiny_model):
    return tiny_model("qwen3", width=16, depth=2, head=True).config


def test_hellaswags_endings_follow_with_or_without_a_blank(tmp_path, tiny_tokenizer, config, monkeypatch):
    row = {"activity_label": "film", "ctx_a": "we saw it", "ctx_b": "", "endings": ["good", "bad"], "label": "1"}
    task, tokenizer = task_by_name("hellaswag"), causal_tokenizer(tiny_tokenizer())
    table = task.read(write_rows(tmp_path / "rows.jsonl", row))
    seen = []
    plain = type(tokenizer).__call__

    def told(self, text, *args, **kwargs):
        seen.extend([text] if isinstance(text, str) else list(text))
        return plain(self, text, *args, **kwargs)

    monkeypatch.setattr(type(tokenizer), "__call__", told)
    for reading, joint in (("official", "itbad"), ("corrected", "it bad")):
        seen.clear()
        completions(task.read_as(decisions(reading, "causal")), table, tokenizer, config)
        assert any(text.endswith(joint) for text in seen), seen


def test_coqa_is_trained_alone_or_behind_its_history_and_scored_at_the_last_turn(tmp_path, tiny_tokenizer, config):
    row = {"story": "we saw a film", "questions": ["was it good", "and dull"]}
    row |= {"answers": {"input_text": ["very good", "not dull"]}}
    row |= {"additional_answers": {"0": {"input_text": ["good", "bright"]}}}
    task, tokenizer = task_by_name("coqa"), causal_tokenizer(tiny_tokenizer())
    table = task.read(write_rows(tmp_path / "rows.jsonl", row))
    assert table.last_turn == (False, True)
    assert table.completions == (("very good", "good"), ("not dull", "bright"))
    careful = task.tokenize(table, tokenizer, EncodingSettings(64), config, training=True)
    official = task.read_as(decisions("official", "causal"))
    alone = official.tokenize(table, tokenizer, EncodingSettings(64), config, training=True)
    # Every answer of every turn, and one each.
    assert (len(careful), len(alone)) == (4, 2)
    assert len(alone[1]["input_ids"]) < len(careful[2]["input_ids"])
    assert json.dumps(table.alone) == json.dumps(
        [
            ["we saw a film\n\nQ: was it good\n\n", "A: very good"],
            ["we saw a film\n\nQ: and dull\n\n", "A:"],
        ]
    )


def test_a_long_text_loses_its_prompts_beginning_or_its_own_end(tmp_path, tiny_tokenizer, config):
    row = {"prompt": "a film was good and bad", "completion": "but dull"}
    task, tokenizer = task_by_name("completion"), causal_tokenizer(tiny_tokenizer())
    table = task.read(write_rows(tmp_path / "rows.jsonl", row))
    kept = {}
    for cut in ("prompt", "end"):
        examples = task.tokenize(table, tokenizer, EncodingSettings(6, cut=cut), config, training=True)
        kept[cut] = (tokenizer.decode(examples[0]["input_ids"], skip_special_tokens=True), examples[0]["unlabelled"])
    assert kept == {"prompt": ("and bad but dull", 3), "end": ("a film was good and", 6)}
