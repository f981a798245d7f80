"""How far students are from their teacher and from students of other weights, by the same examples."""

from __future__ import annotations

import numpy as np
import pytest

from anglekit.comparison.cells import Cell
from anglekit.comparison.gaps import teacher_gaps, weights_gaps

RANDOM = np.random.default_rng(3)
TEACHER = (RANDOM.random(400) < 0.9).astype(float)


def cell(init, students):
    weights = {arm: np.ones(len(own)) for arm, own in students.items()}
    return Cell("score", init, {"data": "dev", "score": "accuracy"}, students, weights, resolution=1 / 400)


def worse(answers, number):
    """Return answers of which as many right ones have become wrong."""
    lost = RANDOM.permutation(np.flatnonzero(answers))[:number]
    return np.where(np.isin(np.arange(len(answers)), lost), 0.0, answers)


def test_the_gap_to_the_teacher_is_paired_by_example() -> None:
    near = worse(TEACHER, 20)
    gap = teacher_gaps([cell("random", {("forward", 0): near})], TEACHER)["forward", "random"]
    assert gap.difference == pytest.approx(-20 / 400)
    # McNemar's error of 20 answers that one alone has right; unpaired it would be twice that.
    half = 1.97 * np.sqrt((20 / 400 - (20 / 400) ** 2) / 400)
    assert (gap.low, gap.high) == pytest.approx((gap.difference - half, gap.difference + half), abs=1e-3)


@pytest.mark.parametrize("teacher", [None, TEACHER[:-1], np.array([0.9])])
def test_without_the_teachers_answers_there_is_no_gap(teacher) -> None:
    assert teacher_gaps([cell("random", {("forward", 0): TEACHER})], teacher) == {}
    whole = cell("random", {("forward", seed): np.array([0.8]) for seed in range(3)})
    assert teacher_gaps([whole], teacher) == {}


def test_weights_are_paired_by_seed_and_example() -> None:
    copied = cell("teacher", {("forward", seed): worse(TEACHER, 20 + seed) for seed in range(3)})
    new = cell("random", {("reverse", seed): worse(TEACHER, 80 + 3 * seed) for seed in (0, 1, 2, 7)})
    gap = weights_gaps([copied, new], {"teacher": "forward", "random": "reverse"})["random"]
    assert gap.difference == pytest.approx(62 / 400)  # of the seeds that both have
    assert 0 < gap.low < gap.difference < gap.high


def test_weights_without_a_common_seed_or_with_whole_scores_alone() -> None:
    best = {"teacher": "forward", "random": "forward"}
    copied = cell("teacher", {("forward", seed): worse(TEACHER, 20) for seed in range(3)})
    assert weights_gaps([copied, cell("random", {("forward", 9): TEACHER})], best) == {}
    whole = cell("random", {("forward", seed): np.array([0.5 + seed / 100]) for seed in range(3)})
    gap = weights_gaps([copied, whole], best)["random"]
    assert gap.difference == pytest.approx(float(TEACHER.mean()) - 0.05 - 0.51)
    assert gap.low < gap.difference < gap.high
    one = cell("random", {("forward", 0): np.array([0.5])})
    assert np.isnan(weights_gaps([copied, one], best)["random"].low)
