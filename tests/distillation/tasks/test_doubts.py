"""A teacher is doubted where its answers cannot be chance, and only there."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anglekit.distillation.tasks.labelled.doubts import (
    doubts_about_classes,
    doubts_about_labels,
    doubts_about_numbers,
)

NAMES = ("negative", "so, so", "positive", "mixed")


def answers(seed, classes, accuracy, number=128, weights=None):
    """Return labels, and answers of which this share is right and the rest drawn."""
    draw = np.random.default_rng(seed)
    true = draw.choice(classes, number, p=weights)
    return np.where(draw.random(number) < accuracy, true, draw.integers(0, classes, number)), true


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(2, 4), st.floats(0.6, 1.0))
def test_labels_in_another_order_are_found_with_the_map(seed, classes, accuracy):
    predicted, true = answers(seed, classes, accuracy)
    assert doubts_about_classes(predicted, true, NAMES[:classes]) == []
    turned = (np.arange(classes) + 1) % classes
    (doubt,) = doubts_about_classes(turned[predicted], true, NAMES[:classes])
    entries = [
        f'"{turned[own]}={NAMES[own]}"' if "," in NAMES[own] else f"{turned[own]}={NAMES[own]}"
        for own in range(classes)
    ]
    assert doubt.endswith("--label-map " + ",".join(sorted(entries, key=lambda entry: entry.strip('"')[0])))


def test_many_classes_do_not_fit_an_order_by_chance():
    names = tuple(map(str, range(77)))
    predicted, true = answers(0, 77, 0.0)
    assert not any("another order" in doubt for doubt in doubts_about_classes(predicted, true, names))
    found, true = answers(0, 77, 0.9, number=400)
    assert "another order" in doubts_about_classes((found + 5) % 77, true, names)[0]


def test_who_knows_nothing_is_seldom_doubted():
    """Of two classes that are equally common; where one is commoner, whoever guesses is below it, and is told so."""
    balanced = sum(bool(doubts_about_classes(*answers(seed, 2, 0.0), NAMES[:2])) for seed in range(300))
    assert balanced <= 20
    _, true = answers(0, 2, 0.0)
    assert not any(doubts_about_classes(np.full(128, each), true, NAMES[:2]) for each in (0, 1))
    rare = np.arange(128) % 10 == 0
    (doubt,) = doubts_about_classes(np.ones(128, dtype=int), rare.astype(int), NAMES[:2])
    assert "answers 10% of 128 training examples" in doubt
    assert "one answer to all of them 90%" in doubt
    assert doubts_about_classes(np.array([1, 0]), np.array([0, 1]), NAMES[:2]) == [], "two examples tell nothing"


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1))
def test_several_labels_in_another_order(seed):
    draw = np.random.default_rng(seed)
    true = (draw.random((128, 4)) < (0.5, 0.2, 0.3, 0.1)).astype(float)
    logits = 2.0 * true - 1.0 + draw.normal(size=(128, 4))
    assert doubts_about_labels(logits, true, NAMES) == []
    (doubt,) = doubts_about_labels(logits[:, [1, 2, 3, 0]], true, NAMES)
    assert doubt.endswith('--label-map "0=so, so",1=positive,2=mixed,3=negative')
    (doubt,) = doubts_about_labels(-logits, true, NAMES)
    assert "labels where they are not" in doubt
    assert doubts_about_labels(np.zeros((128, 4)), true, NAMES) == []


def test_several_labels_of_who_knows_nothing_are_seldom_doubted():
    draw = np.random.default_rng(0)
    found = 0
    for _ in range(200):
        true = (draw.random((128, 6)) < 0.3).astype(float)
        found += bool(doubts_about_labels(draw.normal(size=(128, 6)), true, tuple("abcdef")))
    assert found <= 4


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda true, noise: true + noise, None),
        (lambda true, noise: true / 5 + 0.1 * noise, "on another scale: its numbers run from"),
        (lambda true, noise: 5 - true + noise, "fall as the labels rise"),
        (lambda true, noise: 9.0 + noise, "one number for all is nearer"),
        (lambda true, noise: 2.5 + 0.0 * noise, None),
    ],
)
def test_numbers(make, words):
    draw = np.random.default_rng(0)
    true = draw.uniform(0, 5, 128)
    found = doubts_about_numbers(make(true, draw.normal(scale=0.5, size=128)), true)
    assert (words is None and found == []) or words in found[0]
    assert doubts_about_numbers(true[:4] * 9, true[:4]) == []
