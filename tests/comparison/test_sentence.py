"""The words of a comparison's answer."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from anglekit.comparison.family import Family, Reference, overall_verdict
from anglekit.comparison.sentence import amount, interval_words, needed_words, reasons, sentence

NOTHING = pd.DataFrame(
    columns=["part", "measure", "init", "margin", "spread", "change_over_none", "change_low", "change_high"]
)


def row(**changed):
    """A row between two strategies: two degrees apart, undecided."""
    return {
        "part": "angle", "measure": "angle, encoder layer 1", "score": None, "init": "random", "strategy_a": "forward",
        "strategy_b": "reverse", "difference": 2.0, "margin": 2.0, "low": 0.5, "high": 3.5, "test_low": 1.0,
        "test_high": 3.0, "joint_low": 0.8, "joint_high": 3.2, "verdict": "undecided", "n_seeds": 3, "n_examples": 50,
        "needed_seeds": None, "needed_examples": None, "needed_factor": None,
    } | changed  # fmt: skip


def family(verdict, *rows, part="angle", init="random", n_seeds=3, **options):
    own = [{"verdict": verdict} | one for one in rows or ({},)]
    members = tuple(row(part=part, init=init, **one) for one in own)
    about = "strategies" if n_seeds >= 3 else "these students"
    return Family(part, init, verdict, n_seeds, members[0], members, about=about, **options)


SCORE = {"measure": "accuracy, dev", "score": "accuracy", "margin": 0.01, "difference": 0.02, "test_low": 0.005,
         "test_high": 0.035, "joint_low": 0.012, "joint_high": 0.028, "n_examples": None}  # fmt: skip


@pytest.mark.parametrize("nothing", [None, float("nan")])
def test_what_would_decide_names_what_is_known(nothing) -> None:
    none = dict.fromkeys(("needed_seeds", "needed_examples", "needed_factor"), nothing)
    assert needed_words(row(**none)) == ""
    assert needed_words(row(**none | {"needed_seeds": 7})) == "7 seeds (now 3)"
    assert needed_words(row(**none | {"needed_examples": 80.0})) == "80 examples (now 50)"
    assert needed_words(row(**none | {"needed_factor": 2.5})) == "2.5 times the seeds and examples"
    both = row(**none | {"needed_seeds": 7.0, "needed_examples": 80})
    assert needed_words(both) == "7 seeds (now 3) or 80 examples (now 50)"


@pytest.mark.parametrize(
    ("value", "part", "margin", "signed", "text"),
    [
        (2.345, "angle", 2.0, False, "2.3°"),
        (2.341, "angle", 0.5, True, "+2.34°"),
        (-0.001, "angle", 2.0, True, "+0.0°"),
        (0.85432, "score", 0.01, False, "0.854"),
        (38.25, "score", 1.0, False, "38.2"),
        (-0.0123, "score", 0.001, True, "-0.0123"),
    ],
)
def test_an_amount_has_the_digits_of_its_margin(value, part, margin, signed, text) -> None:
    assert amount(value, part, margin, signed=signed) == text


def test_an_interval_is_two_amounts_or_unknown() -> None:
    assert interval_words(row(), "low", "high") == "0.5° to 3.5°"
    assert interval_words(row(low=np.nan), "low", "high") == "unknown"


def test_one_different_family_is_enough_and_all_must_be_equivalent() -> None:
    same, other, open_ = (family(verdict) for verdict in ("equivalent", "different", "undecided"))
    assert overall_verdict([same, other, open_]) == "different"
    assert overall_verdict([same, same]) == "equivalent"
    assert overall_verdict([same, open_]) == "undecided"
    assert overall_verdict([]) == "undecided"


def test_the_answer_names_what_decides() -> None:
    angles, scores = family("equivalent"), family("equivalent", SCORE, part="score")
    assert sentence("equivalent", [angles, scores]) == (
        "Layer selection does not matter here for the scores: any two matching strategies are equivalent, within 0.010 "
        "in accuracy (random initialisation); for the angles it is equivalent."
    )
    assert sentence("equivalent", [family("equivalent", init="unrecorded", n_seeds=1)]) == (
        "Layer selection does not matter here for the angles of these students: any two matching strategies "
        "are equivalent, within 2.0° in angle."
    )
    apart = family("different", SCORE, part="score")
    assert sentence("different", [angles, apart]) == (
        "Layer selection matters here for the scores: forward minus reverse is 0.020 in accuracy, dev (random "
        "initialisation), surely 0.012 or more away from 0, beyond the margin of 0.010; for the angles it is "
        "equivalent."
    )
    negative = family("different", {"difference": -5.0, "joint_low": -6.0, "joint_high": -4.0})
    assert "reverse is -5.0° in angle, encoder layer 1 (random initialisation), surely 4.0° or more" in sentence(
        "different", [negative]
    )
    assert sentence("undecided", []).startswith("Undecided whether layer selection matters here: under no init")


def test_of_several_families_the_clearest_speaks() -> None:
    near = family("different", {"joint_low": 2.1, "joint_high": 3.0})
    far = family("different", {"joint_low": -9.0, "joint_high": -5.0, "difference": -7.0}, init="teacher")
    for order in ([near, far], [far, near]):
        assert "(teacher initialisation)" in sentence("different", order)
    cheap = family("undecided", {"needed_seeds": 4})
    costly = family("undecided", {"needed_seeds": 30}, init="teacher")
    hopeless = family("undecided", init="both")
    assert "about 30 seeds (now 3) would decide" in sentence("undecided", [cheap, costly])
    assert "too near the margin to be decided" in sentence("undecided", [cheap, hopeless, costly])


def test_what_is_needed_is_the_nearest_pair_beyond_the_margin_or_the_farthest_within() -> None:
    beyond = family("undecided", {"difference": 2.5, "needed_seeds": 20}, {"difference": 3.0, "needed_examples": 60})
    assert beyond.needed["needed_examples"] == 60
    within = family("undecided", {"difference": 1.0, "needed_seeds": 20}, {"difference": 1.5, "needed_examples": 60})
    assert within.needed["needed_seeds"] == 20
    edge = family("undecided", {"difference": 2.0, "needed_seeds": 4}, {"difference": 0.1, "needed_factor": 3.0})
    assert edge.needed["needed_factor"] == 3.0
    either = family(
        "undecided",
        {"difference": 1.0, "needed_seeds": 30, "needed_examples": 55},
        {"difference": 1.0, "needed_examples": 100},
    )
    assert either.needed["needed_examples"] == 100  # the first needs but a tenth more examples
    assert family("equivalent").needed is None
    assert family("undecided", {"needed_seeds": 4}, {"test_low": np.nan}).needed is None
    decided = family("undecided", {"verdict": "equivalent", "difference": 0.1}, {"difference": 1.0, "needed_seeds": 9})
    assert decided.needed["needed_seeds"] == 9


def test_undecided_says_why() -> None:
    near = family("undecided", {"verdict": "different", "difference": 1.0})
    assert near.needed is None
    assert sentence("undecided", [near]).endswith("; it is too near the margin to be decided.")
    single = family("undecided", SCORE | {"test_low": np.nan}, part="score", n_seeds=1)
    assert "and nothing tells its error; train at least 3 seeds" in sentence("undecided", [single])
    example = family("undecided", {"test_low": np.nan}, n_seeds=1)
    assert "and nothing tells its error; use more examples" in sentence("undecided", [example])
    untaught = family("undecided", SCORE, part="score", told=False, reference=Reference(0.345, 0.34, 0.345))
    assert "cannot be told from chance or from the untrained model (0.345)" in sentence("undecided", [untaught])
    open_ = family("undecided", {"needed_examples": 120})
    assert sentence("undecided", [open_]) == (
        "Undecided whether layer selection matters here for the angles: forward minus reverse is 2.0° in angle, "
        "encoder layer 1 (random initialisation), its interval of 1.0° to 3.0° reaches over the margin of 2.0°; if "
        "differences stay, about 120 examples (now 50) would decide."
    )


def test_the_reasons_are_a_sentence_for_each_family_and_for_how_far_scores_spread() -> None:
    spreads = pd.DataFrame(
        [
            {"part": "score", "measure": "accuracy, dev", "init": "warm", "margin": 0.01, "spread": 0.004,
             "change_over_none": 0.05, "change_low": 0.04, "change_high": 0.06},
            {"part": "score", "measure": "f1, dev", "init": "warm", "margin": 0.01, "spread": 0.9,
             "change_over_none": 0.9, "change_low": 0.9, "change_high": 0.9},
            {"part": "score", "measure": "accuracy, dev", "init": "unrecorded", "margin": 0.01, "spread": 0.003,
             "change_over_none": -0.02, "change_low": np.nan, "change_high": np.nan},
            {"part": "score", "measure": "accuracy, dev", "init": "teacher", "margin": 0.01, "spread": np.nan,
             "change_over_none": -0.02, "change_low": np.nan, "change_high": np.nan},
            {"part": "angle", "measure": "angle", "init": "teacher", "margin": 2.0, "spread": 1.0,
             "change_over_none": 1.0, "change_low": 1.0, "change_high": 1.0},
        ]
    )  # fmt: skip
    several = [family("equivalent", n_seeds=1), family("different", SCORE, part="score", init="unrecorded")]
    assert reasons(several, spreads) == (
        "angles (random initialisation): equivalent; any two are equivalent, within 2.0° in angle.",
        "scores: different; forward minus reverse is 0.020 in accuracy, dev, surely 0.012 or more away from 0, beyond "
        "the margin of 0.010.",
        "In accuracy, dev (warm initialisation) matching strategies spread over 0.004, and matching changes it by "
        "+0.050 (0.040 to 0.060) over none.",
        "In accuracy, dev matching strategies spread over 0.003, and matching changes it by -0.020 over none.",
        "With fewer than 3 seeds this speaks of these students, not of others trained alike.",
    )
    undecided = reasons([family("undecided", {"needed_seeds": 5})], NOTHING)
    assert len(undecided) == 1
    assert undecided[0].endswith("about 5 seeds (now 3) would decide.")
    assert len(reasons([family("equivalent", SCORE, part="score", n_seeds=1)], NOTHING)) == 2
