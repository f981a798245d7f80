"""What each example adds to BLEU, chrF, F1 and the other scores: sums of it are the scores of any part of a table."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from anglekit.distillation.settings import EncodingSettings
from anglekit.distillation.tasks.models import load_trained
from anglekit.distillation.tasks.registry import TASKS, task_by_name
from anglekit.distillation.tasks.scores import SCORES, class_columns, class_scores, corpus_scores
from anglekit.results.example_scores import ExampleScores
from tests.distillation.run_corpus import make_world
from tests.distillation.scored_examples import assert_examples_give_scores, scored_with_care

WORDS = ("the", "a", "cat", "dog", "sat", "lay", "on", "under", "mat", ",", ".", "red", "very", "House", "houses")


def sentences(draw, number):
    return [" ".join(draw.choice(WORDS, draw.integers(0, 12))) for _ in range(number)]


@pytest.mark.parametrize("references", [1, 3])
def test_sums_over_any_examples_are_sacrebleus_number(references):
    """Exactly, for resamples with repetition, texts without a word, and several references."""
    draw = np.random.default_rng(references)
    number = 30
    truths = [sentences(draw, number) for _ in range(references)]
    texts = [
        truth if draw.random() < 0.3 else other for truth, other in zip(truths[0], sentences(draw, number), strict=True)
    ]
    own = [tuple(stream[row] for stream in truths) for row in range(number)]
    whole = corpus_scores(("bleu", "chrf"), texts, own)
    found = ExampleScores({("student", "dev"): whole.examples})
    assert whole.values["bleu"] == BLEU().corpus_score(texts, truths).score
    assert whole.values["chrf"] == CHRF().corpus_score(texts, truths).score
    seen = set()
    for size in (1, 2, 3, 10, number, 50):
        rows = draw.integers(0, number, size)
        counts = np.bincount(rows, minlength=number)
        chosen, streams = [texts[row] for row in rows], [[stream[row] for row in rows] for stream in truths]
        for name, metric in (("bleu", BLEU()), ("chrf", CHRF())):
            value = found.score("student", "dev", name, counts)
            assert value == pytest.approx(metric.corpus_score(chosen, streams).score, abs=1e-12)
            seen.add(round(value, 6))
    assert len(seen) > 6


@pytest.mark.parametrize("positive", [0, 1])
def test_class_scores_of_any_examples_follow_from_their_columns(positive):
    draw = np.random.default_rng(positive)
    target = draw.integers(0, 3, 40)
    predicted = np.where(draw.random(40) < 0.5, target, draw.integers(0, 3, 40))
    found = ExampleScores({("student", "dev"): class_columns(tuple(SCORES), predicted, target, positive=positive)})
    for size in (40, 7, 1):
        rows = np.arange(40) if size == 40 else draw.integers(0, 40, size)
        oracle = class_scores(tuple(SCORES), predicted[rows], target[rows], positive=positive)
        counts = np.bincount(rows, minlength=40)
        for name, value in oracle.items():
            assert found.score("student", "dev", name, counts) == pytest.approx(value, abs=1e-12)
    assert "f1:found" not in class_columns(("accuracy",), predicted, target)


def test_a_classifiers_examples_are_its_answers_and_their_loss(tmp_path, tiny_model, tiny_tokenizer, words):
    world = make_world(tmp_path, tiny_model, tiny_tokenizer(), words)
    task = task_by_name("classification")
    loaded = load_trained(world["teacher"], task)
    report = scored_with_care(task, loaded, world["dev"])
    assert_examples_give_scores(report, ("accuracy", "macro_f1"))
    data = task.for_trained(loaded.model.config).read(world["dev"])
    columns = report.examples
    for row, (text, label) in enumerate(zip(data.texts, data.labels, strict=True)):
        with torch.no_grad():
            logits = loaded.model(**loaded.tokenizer(text, return_tensors="pt")).logits
        target = loaded.model.config.label2id[label]
        assert (columns["prediction"][row], columns["target"][row]) == (int(logits.argmax()), target)
        assert columns["loss"][row] == pytest.approx(F.cross_entropy(logits, torch.tensor([target])).item(), abs=1e-5)


def test_chance_is_the_best_of_one_answer_for_all(tmp_path, tiny_model, tiny_tokenizer, words):
    world = make_world(tmp_path, tiny_model, tiny_tokenizer(), words)
    task = task_by_name("classification")
    loaded = load_trained(world["teacher"], task)
    settled = task.for_trained(loaded.model.config)
    examples = settled.tokenize(
        settled.read(world["dev"]), loaded.tokenizer, EncodingSettings(32), loaded.model.config, training=False
    )
    labels = examples.numbers["labels"]
    constant = [class_scores(task.scores, np.full(21, each), labels) for each in (0, 1)]
    assert settled.chance(examples) == {name: max(one[name] for one in constant) for name in task.scores}
    assert settled.chance(examples)["accuracy"] == 11 / 21


def test_no_tasks_own_score_is_macro_f1():
    """The first score is what a verdict is about."""
    assert all(task.selection_score != "macro_f1" for task in TASKS.values())
    assert TASKS["classification"].selection_score == "accuracy"
