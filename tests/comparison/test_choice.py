"""Which strategy to use: told apart by the test of the verdict, else the default; by how much and how surely."""

from __future__ import annotations

import numpy as np
import pandas as pd

from anglekit.comparison.choice import Choice, choices
from anglekit.comparison.compare import compare
from anglekit.comparison.family import Family
from tests.comparison.compare_corpus import score_rows, write_sweep

BASE = {"part": "score", "init": "random", "score": "accuracy", "data": "validation", "margin": 0.01, "n_seeds": 3,
        "n_examples": None, "needed_seeds": None, "needed_examples": None, "needed_factor": None}  # fmt: skip


def row(a, b, difference, verdict, half=0.03, kind="between", **changed):
    """A difference whose interval for all pairs at once is `half` to either side, and its own a third of that."""
    ends = {"joint_low": difference - half, "joint_high": difference + half}
    ends |= {"low": difference - half / 3, "high": difference + half / 3}
    ends |= {"test_low": difference - half / 4, "test_high": difference + half / 4}
    return (
        BASE
        | {"kind": kind, "strategy_a": a, "strategy_b": b, "difference": difference, "verdict": verdict}
        | ends
        | changed
    )


def chosen(means, *rows, score="accuracy", **family) -> Choice:
    own = [one | {"score": score} for one in rows]
    levels = pd.DataFrame([BASE | {"score": score, "strategy": name, "mean": mean} for name, mean in means.items()])
    verdict = Family("score", "random", "undecided", 3, own[0], tuple(own), **family)
    (found,) = choices([verdict], levels, pd.DataFrame(own), score, "validation")
    return found


MEANS = {"none": 0.40, "forward": 0.60, "reverse": 0.70, "random": 0.50}


def test_a_strategy_told_from_all_others_is_used() -> None:
    found = chosen(
        MEANS,
        row("forward", "reverse", -0.10, "different"),
        row("reverse", "random", 0.20, "different"),
        row("reverse", "none", 0.30, "different", kind="over none"),
    )
    assert (found.use, found.best, found.runner_up, found.about) == ("reverse", "reverse", "forward", "strategies")
    assert found.sentence("new weights", "so much for that") == (
        "From new weights, use reverse. It scores highest with 70.0%, 10.0 points above the runner-up (forward), "
        "surely more than the margin of 1.0 points (95% for all pairs at once: 7.0 to 13.0); 30.0 points above none "
        "(95%: 29.0 to 31.0); so much for that."
    )
    assert found.sentence("").startswith("Use reverse. It scores highest")


def test_the_default_is_used_where_it_is_not_told_from_the_best() -> None:
    found = chosen(
        MEANS,
        row("forward", "reverse", -0.10, "undecided", half=0.2, needed_seeds=9.0),
        row("reverse", "random", 0.20, "different"),
        row("forward", "none", 0.20, "different", kind="over none", half=0.9),
        row("reverse", "none", 0.30, "different", kind="over none"),
    )
    assert found.use == "forward"
    assert found.lead == "no choice between reverse and forward is supported: use forward, the default"
    assert found.why == (
        "reverse scores highest with 70.0%, 10.0 points above the runner-up (forward), but not surely more than the "
        "margin of 1.0 points (95% for all pairs at once: -10.0 to 30.0; about 9 seeds (now 3) would decide); random "
        "is surely worse; forward is 20.0 points above none (95%: -10.0 to 50.0, so not surely)"
    )
    every = chosen(MEANS, *(row("reverse", name, 0.1, "undecided", half=0.2) for name in ("forward", "random")))
    assert every.lead == "no choice of strategy is supported: use forward, the default"


def test_a_default_that_is_surely_worse_or_was_not_trained_is_not_used() -> None:
    worse = chosen(
        MEANS, row("reverse", "forward", 0.1, "different"), row("reverse", "random", 0.2, "undecided", half=0.3)
    )
    assert worse.lead == "no choice between reverse and random is supported: reverse is as good a choice as any of them"
    assert "; forward is surely worse" in worse.why
    others = {"reverse": 0.7, "random": 0.69}
    absent = chosen(others, row("reverse", "random", 0.01, "equivalent", half=0.004))
    assert (absent.use, absent.best) == ("reverse", "reverse")
    assert absent.lead == "no choice of strategy is supported: reverse is as good a choice as any of them"
    assert "surely less than the margin of 1.0 points, so it does not matter which of the two" in absent.why


def test_what_nobody_can_tell_is_not_told() -> None:
    one = chosen(
        {"forward": 0.6, "reverse": 0.7},
        row("reverse", "forward", 0.1, "undecided", half=np.nan),
        row("forward", "none", -0.1, "undecided", kind="over none", half=np.nan),
        about="these students",
    )
    assert one.about == "these students"
    assert "10.0 points above the runner-up (forward), and nothing tells how surely: train at least 3 seeds" in one.why
    assert one.why.endswith("forward is 10.0 points below none (how surely is not known)")
    learned_nothing = chosen(MEANS, row("reverse", "forward", 0.1, "different"), told=False)
    assert learned_nothing.use is None
    assert learned_nothing.lead.startswith("no strategy can be chosen")
    apart = chosen({"forward": 0.6, "reverse": 0.7}, row("forward", "none", 0.2, "different", kind="over none"))
    assert "shares no seed with the runner-up (forward)" in apart.why


def test_of_a_score_that_falls_the_lowest_is_best() -> None:
    found = chosen(
        {"forward": 4.0, "reverse": 7.0},
        row("forward", "reverse", -3.0, "different", half=0.5, margin=1.0),
        score="perplexity",
    )
    assert found.use == "forward"
    assert (
        "It scores lowest with 4.0, 3.0 below the runner-up (reverse), surely more than the margin of 1.0" in found.why
    )
    assert "(95% for all pairs at once: 2.5 to 3.5)" in found.why


def test_every_kind_of_weights_has_a_choice_and_the_best_scoring_come_first(tmp_path) -> None:
    strategies = ("none", "forward", "reverse")
    rows = score_rows(dict(zip(strategies, (0.6, 0.8, 0.7), strict=True)), inits=("random",))
    rows += score_rows(dict(zip(strategies, (0.7, 0.9, 0.8), strict=True)), inits=("teacher",))
    write_sweep(tmp_path / "sweep", rows)
    found = compare([tmp_path / "sweep"])
    assert [one.init for one in found.choices] == ["teacher", "random"]
    assert [one.use for one in found.choices] == ["forward", "forward"]
    assert len(found.headline.choices) == 2
    assert found.headline.choices[0].startswith("From the teacher's weights, use forward. It scores highest with 9")
    assert found.headline.beneath[1:3] == found.headline.choices


def test_without_scores_there_is_no_choice() -> None:
    empty = pd.DataFrame([BASE]).iloc[:0]
    assert choices([], empty, empty, "accuracy", "validation") == ()
