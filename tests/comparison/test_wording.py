"""The words for angles, scores, differences, and what would decide."""

from __future__ import annotations

import numpy as np
import pytest

from anglekit.comparison.wording import (
    decides_words,
    gain_sentence,
    gap,
    interval_words,
    level,
    needed_words,
    weights_words,
)


def row(**changed):
    """A row between two strategies: two degrees apart, undecided."""
    return {
        "part": "angle", "measure": "angle, encoder layer 1", "score": None, "init": "random", "strategy_a": "forward",
        "strategy_b": "reverse", "difference": 2.0, "margin": 2.0, "low": 0.5, "high": 3.5, "test_low": 1.0,
        "test_high": 3.0, "joint_low": 0.8, "joint_high": 3.2, "verdict": "undecided", "n_seeds": 3, "n_examples": 50,
        "needed_seeds": None, "needed_examples": None, "needed_factor": None,
    } | changed  # fmt: skip


@pytest.mark.parametrize("nothing", [None, float("nan")])
def test_what_would_decide_names_what_is_known(nothing) -> None:
    none = dict.fromkeys(("needed_seeds", "needed_examples", "needed_factor"), nothing)
    assert needed_words(row(**none)) == ""
    assert needed_words(row(**none | {"needed_seeds": 7})) == "7 seeds (now 3)"
    assert needed_words(row(**none | {"needed_examples": 80.0})) == "80 examples (now 50)"
    many = row(**none | {"needed_examples": 92778.0, "n_examples": 1500})
    assert needed_words(many) == "93,000 examples (now 1,500)"
    assert needed_words(row(**none | {"needed_examples": 204.0, "n_examples": 203})) == "210 examples (now 203)"
    assert needed_words(row(**none | {"needed_factor": 2.5})) == "2.5 times the seeds and examples"
    both = row(**none | {"needed_seeds": 7.0, "needed_examples": 80})
    assert needed_words(both) == "7 seeds (now 3) or 80 examples (now 50)"
    assert (
        decides_words(both, "a against b") == "about 7 seeds (now 3) or 80 examples (now 50) would decide a against b"
    )
    assert decides_words(row(**none)) == decides_words(row(**none, n_seeds=1)) == ""
    few = row(**none | {"needed_examples": 80.0, "n_seeds": 2})
    assert needed_words(few) == "80 examples (now 50), between these students"
    assert decides_words(few) == (
        "for others than these students it takes at least 3 seeds (now 2); between these, about 80 examples (now 50) "
        "would decide"
    )


@pytest.mark.parametrize(
    ("value", "part", "score", "margin", "as_level", "as_gap", "signed"),
    [
        (2.345, "angle", None, 2.0, "2.3°", "2.3°", "+2.3°"),
        (2.341, "angle", None, 0.5, "2.34°", "2.34°", "+2.34°"),
        (-0.001, "angle", None, 2.0, "0.0°", "0.0°", "+0.0°"),
        (0.85432, "score", "accuracy", 0.01, "85.4%", "85.4 points", "+85.4 points"),
        (-0.0123, "score", "macro_f1", 0.001, "-1.23%", "-1.23 points", "-1.23 points"),
        (38.25, "score", "bleu", 1.0, "38.2", "38.2", "+38.2"),
        (0.52, "score", "matthews", 0.01, "0.520", "0.520", "+0.520"),
    ],
)
def test_a_number_has_its_unit_and_the_digits_of_its_margin(
    value, part, score, margin, as_level, as_gap, signed
) -> None:
    unit = {"part": part, "score": score, "margin": margin}
    assert (level(value, unit), gap(value, unit), gap(value, unit, signed=True)) == (as_level, as_gap, signed)


def test_an_initialisation_that_is_not_recorded_has_no_words() -> None:
    names = ("random", "teacher", "given", "unrecorded")
    assert [*map(weights_words, names)] == ["new weights", "the teacher's weights", "given weights", ""]


def test_an_interval_is_two_amounts_or_unknown() -> None:
    assert interval_words(row(), "low", "high") == "0.5° to 3.5°"
    assert interval_words(row(low=np.nan), "low", "high") == "unknown"


def test_an_interval_of_shares_is_cut_where_no_difference_can_be_and_says_so() -> None:
    share = row(part="score", score="accuracy", margin=0.01, low=-1.3, high=0.4)
    assert interval_words(share, "low", "high") == "-100.0 to 40.0 points (cut at 100)"
    assert interval_words({**share, "score": "bleu"}, "low", "high") == "-1.300 to 0.400"


def test_what_matching_gains_stands_beside_how_far_strategies_spread() -> None:
    ends = {"spread": 0.004, "change_over_none": 0.05, "change_low": 0.04, "change_high": 0.06}
    gain = {"part": "score", "measure": "accuracy, dev", "score": "accuracy", "init": "warm", "margin": 0.01, **ends}
    assert gain_sentence(gain) == (
        "In accuracy, dev, from warm weights, matching gains +5.0 points over none (95%: 4.0 to 6.0 points), and "
        "strategies spread over 0.4 points"
    )
    unknown = {"init": "unrecorded", "change_over_none": -0.02, "change_low": np.nan, "spread": np.nan}
    assert gain_sentence(gain | unknown) == "In accuracy, dev matching gains -2.0 points over none"
