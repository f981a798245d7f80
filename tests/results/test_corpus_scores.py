"""Corpus scores from sums: sacreBLEU's own numbers, textbook formulas, and gradients against finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sacrebleu.metrics.bleu import BLEU

from anglekit.results.corpus_scores import CLASS_SCORES, CORPUS_SCORES, bleu, chrf, f1, macro_f1, matthews, perplexity

COUNTS = st.integers(0, 40)


@st.composite
def bleu_sums(draw):
    """Sums that texts can have: no more matches than n-grams, and fewer n-grams the longer they are."""
    totals = sorted((draw(COUNTS) for _ in range(4)), reverse=True)
    matches = [draw(st.integers(0, total)) for total in totals]
    return np.array([draw(COUNTS), draw(COUNTS), *matches, *totals], dtype=np.float64)


@given(bleu_sums())
def test_bleu_is_sacrebleus_of_the_same_sums(sums):
    counts = [int(one) for one in sums]
    oracle = BLEU.compute_bleu(counts[2:6], counts[6:], counts[0], counts[1], smooth_method="exp").score
    assert bleu(sums)[0] == pytest.approx(oracle, abs=1e-12)


CASES = {
    "bleu": [20, 23, 15, 9, 4, 2, 20, 17, 14, 11],
    "bleu, longer than its reference": [30, 23, 15, 9, 4, 2, 30, 27, 24, 21],
    "bleu, smoothed": [20, 23, 15, 9, 0, 0, 20, 17, 14, 11],
    "chrf": [9, 8, 5, 8, 7, 3, 7, 6, 2, 6, 5, 1, 5, 4, 1, 4, 0, 0],
    "f1": [3, 5, 4],
    "perplexity": [12.5, 7],
}


@pytest.mark.parametrize(("name", "sums"), CASES.items(), ids=list(CASES))
def test_the_gradient_is_what_small_changes_of_the_sums_do(name, sums):
    of_sums = CORPUS_SCORES[name.partition(",")[0]].of_sums
    sums = np.array(sums, dtype=np.float64)
    _, gradient = of_sums(sums)
    step = 1e-6
    for place, slope in enumerate(gradient):
        if sums[place] == 0.0:
            continue  # the score jumps there
        change = np.zeros_like(sums)
        change[place] = step
        measured = (of_sums(sums + change)[0] - of_sums(sums - change)[0]) / (2 * step)
        assert slope == pytest.approx(measured, rel=1e-5, abs=1e-7)
    assert gradient.any()


@pytest.mark.parametrize("name", CLASS_SCORES)
def test_the_gradient_of_class_scores_keeps_the_number_of_examples(name):
    """One example's class changes by a little: the number of examples, which Matthews divides by, stays."""
    of_counts = CLASS_SCORES[name]
    counts = np.array([[4.0, 3.0, 2.0], [6.0, 5.0, 4.0], [5.0, 4.0, 6.0]])
    _, gradient = of_counts(counts)
    step = 1e-6
    for side, gained, lost in ((1, 0, 1), (1, 2, 0), (2, 0, 2), (2, 1, 0)):
        change = np.zeros_like(counts)
        change[side, gained], change[side, lost] = step, -step
        measured = (of_counts(counts + change)[0] - of_counts(counts - change)[0]) / (2 * step)
        assert gradient[side, gained] - gradient[side, lost] == pytest.approx(measured, rel=1e-5)
    change = np.zeros_like(counts)
    change[0, 1] = step
    measured = (of_counts(counts + change)[0] - of_counts(counts - change)[0]) / (2 * step)
    assert gradient[0, 1] == pytest.approx(measured, rel=1e-5)


PAIRS = st.integers(2, 4).flatmap(
    lambda classes: arrays(np.int64, st.tuples(st.just(2), st.integers(1, 30)), elements=st.integers(0, classes - 1))
)


@given(PAIRS)
def test_class_scores_are_those_of_their_definitions(pairs):
    predicted, target = pairs
    classes = range(4)
    counts = np.array(
        [
            [np.sum((predicted == one) & (target == one)) for one in classes],
            [np.sum(predicted == one) for one in classes],
            [np.sum(target == one) for one in classes],
        ],
        dtype=np.float64,
    )
    own = []
    for one in classes:
        hits, wrong, missed = counts[0, one], counts[1, one] - counts[0, one], counts[2, one] - counts[0, one]
        if hits + wrong + missed:
            own.append(2 * hits / (2 * hits + wrong + missed))
            assert f1(counts[:, one])[0] == pytest.approx(own[-1], abs=1e-15)
    assert macro_f1(counts)[0] == pytest.approx(np.mean(own), abs=1e-15)
    sides = [np.concatenate([(side == one) - np.mean(side == one) for one in classes]) for side in pairs]
    lengths = [float(np.sqrt(side @ side)) for side in sides]
    oracle = float(sides[0] @ sides[1]) / math.prod(lengths) if all(length > 1e-9 for length in lengths) else 0.0
    assert matthews(counts)[0] == pytest.approx(oracle, abs=1e-12)


def test_what_has_nothing_to_score_is_zero_and_no_example_moves_it():
    for name, score in CORPUS_SCORES.items():
        value, gradient = score.of_sums(np.zeros(len(score.parts)))
        assert (value, gradient.any()) == (1.0 if name == "perplexity" else 0.0, np.False_)
    assert f1(np.array([0.0, 0.0, 0.0]))[0] == 0.0
    assert chrf(np.array([5.0, 4.0, 0.0] * 6))[0] == 0.0


def test_a_perplexity_that_no_number_holds_is_infinite():
    assert perplexity(np.array([800.0, 1.0]))[0] == math.inf
    assert math.isnan(perplexity(np.array([math.nan, 1.0]))[0])
    assert perplexity(np.array([2.0, 4.0]))[0] == pytest.approx(math.exp(0.5))
