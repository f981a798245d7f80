"""Which strategy to use: told apart by the test of the verdict, else the default; by how much and how surely."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

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


def chosen(means, *rows, score="accuracy", n_seeds=3, **family) -> Choice:
    own = [one | {"score": score} for one in rows]
    levels = pd.DataFrame([BASE | {"score": score, "strategy": name, "mean": mean} for name, mean in means.items()])
    verdict = Family("score", "random", "undecided", n_seeds, own[0], tuple(own), **family)
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
    assert found.sentence("new weights", "So much for that.") == (
        "From new weights, use reverse. With reverse, accuracy is highest: 70.0%. That is 10.0 points (95%, all pairs "
        "at once: 7.0 to 13.0) above forward, the next: surely more than the margin of 1.0 points. That is 30.0 points "
        "(95%, this pair alone: 29.0 to 31.0) above none. So much for that."
    )
    assert found.sentence("").startswith("Use reverse. With reverse, accuracy")
    assert (found.as_good, found.worse) == (("reverse",), ("forward", "random"))


def test_the_default_is_used_where_it_is_not_told_from_the_best() -> None:
    found = chosen(
        MEANS,
        row("forward", "reverse", -0.10, "undecided", half=0.2, needed_seeds=9.0),
        row("reverse", "random", 0.20, "different"),
        row("forward", "none", 0.20, "different", kind="over none", half=0.9),
        row("reverse", "none", 0.30, "different", kind="over none"),
    )
    assert found.use == "forward"
    assert found.lead == "reverse and forward cannot be told apart: forward, the default, will do"
    assert found.why == (
        "With reverse, accuracy is highest: 70.0%. That is 10.0 points (95%, all pairs at once: -10.0 to 30.0) above "
        "forward, the next: not surely more than the margin of 1.0 points. With forward it is 20.0 points (95%, this "
        "pair alone: -10.0 to 50.0) above none. Surely worse: random. About 9 seeds (now 3) would decide."
    )
    every = chosen(MEANS, *(row("reverse", name, 0.1, "undecided", half=0.2) for name in ("forward", "random")))
    assert every.lead == "reverse, forward and random cannot be told apart: forward, the default, will do"


def test_that_none_is_told_from_another_does_not_sound_as_if_none_helps() -> None:
    found = chosen(
        MEANS,
        row("reverse", "forward", 0.10, "undecided", half=0.2),
        row("reverse", "random", 0.20, "undecided", half=0.3),
        row("forward", "none", 0.20, "different", kind="over none"),
    )
    assert found.lead == (
        "matching layers helps, but reverse, forward and random cannot be told apart: forward, the default, will do"
    )


def test_what_is_told_from_another_is_not_said_to_be_like_it() -> None:
    rows = [row("reverse", name, 0.1, "undecided", half=0.2) for name in ("forward", "random")]
    found = chosen(MEANS, *rows, row("random", "forward", 0.05, "different"))
    assert found.use == "reverse"
    assert found.lead == "reverse cannot be told from forward and random: reverse, the highest, will do"


def test_with_few_seeds_a_choice_says_that_it_is_about_these_students_and_examples_alone_promise_nothing() -> None:
    few = {"n_seeds": 1, "n_examples": 1500, "needed_examples": 92778.0}
    found = chosen(
        MEANS, row("reverse", "forward", 0.1, "undecided", half=0.2, **few), about="these students", n_seeds=1
    )
    assert found.lead.endswith("forward, the default, will do (1 seed: this is about these students only)")
    assert found.why.endswith(
        "For others than these students it takes at least 3 seeds (now 1); between these, about 93,000 examples (now "
        "1,500) would decide."
    )
    sure = chosen(MEANS, row("reverse", "forward", 0.1, "different"), about="these students", n_seeds=2)
    assert sure.first("new weights").endswith("(2 seeds: this is about these students only).")


def test_a_default_that_is_surely_worse_or_was_not_trained_is_not_used() -> None:
    worse = chosen(
        MEANS, row("reverse", "forward", 0.1, "different"), row("reverse", "random", 0.2, "undecided", half=0.3)
    )
    assert worse.lead == "reverse and random cannot be told apart: reverse, the highest, will do"
    assert " Surely worse: forward." in worse.why
    others = {"reverse": 0.7, "random": 0.69}
    absent = chosen(others, row("reverse", "random", 0.01, "equivalent", half=0.004))
    assert (absent.use, absent.best) == ("reverse", "reverse")
    assert absent.lead == "reverse and random score alike: reverse, the highest, will do"
    assert (
        "1.0 points (90%, for equivalence: 0.9 to 1.1) above random, the next: surely less than the margin of 1.0 "
        "points, so it does not matter which of the two." in absent.why
    )


def test_what_nobody_can_tell_is_not_told() -> None:
    one = chosen(
        {"forward": 0.6, "reverse": 0.7},
        row("reverse", "forward", 0.1, "undecided", half=np.nan),
        row("forward", "none", -0.1, "undecided", kind="over none", half=np.nan),
        about="these students",
    )
    assert one.about == "these students"
    assert "10.0 points above forward, the next; nothing tells how surely: train at least 3 seeds." in one.why
    assert one.why.endswith("With forward it is 10.0 points (how surely is not known) below none.")
    learned_nothing = chosen(MEANS, row("reverse", "forward", 0.1, "different"), told=False)
    assert learned_nothing.use is None
    assert learned_nothing.lead.startswith("no strategy can be chosen")
    apart = chosen({"forward": 0.6, "reverse": 0.7}, row("forward", "none", 0.2, "different", kind="over none"))
    assert "It shares no seed with forward, the next." in apart.why


def test_of_a_score_that_falls_the_lowest_is_best() -> None:
    found = chosen(
        {"forward": 4.0, "reverse": 7.0},
        row("forward", "reverse", -3.0, "different", half=0.5, margin=1.0),
        score="perplexity",
    )
    assert found.use == "forward"
    assert found.why == (
        "With forward, perplexity is lowest: 4.0. That is 3.0 (95%, all pairs at once: 2.5 to 3.5) below reverse, the "
        "next: surely more than the margin of 1.0."
    )


def test_every_kind_of_weights_has_a_choice_and_the_best_scoring_come_first(tmp_path) -> None:
    strategies = ("none", "forward", "reverse")
    rows = score_rows(dict(zip(strategies, (0.6, 0.8, 0.7), strict=True)), inits=("random",))
    rows += score_rows(dict(zip(strategies, (0.7, 0.9, 0.8), strict=True)), inits=("teacher",))
    write_sweep(tmp_path / "sweep", rows)
    found = compare([tmp_path / "sweep"])
    assert [one.init for one in found.choices] == ["teacher", "random"]
    assert [one.use for one in found.choices] == ["forward", "forward"]
    assert len(found.headline.choices) == 2
    first, second = found.headline.choices
    assert first.startswith("From the teacher's weights, use forward. With forward, accuracy is highest: 90.5% (95%: ")
    gap = found.weights_gaps["random"]
    assert gap.difference == pytest.approx(found.choices[0].score - found.choices[1].score)
    ends = f"{100 * gap.low:.1f} to {100 * gap.high:.1f}"
    far = f"{100 * gap.difference:.1f} points (95%, this pair alone: {ends}) lower."
    assert first.endswith(f"From new weights the best, forward, has 80.5%: {far}")
    assert "From new weights the best" not in second
    assert found.headline.beneath[1:3] == found.headline.choices


def test_without_scores_there_is_no_choice() -> None:
    empty = pd.DataFrame([BASE]).iloc[:0]
    assert choices([], empty, empty, "accuracy", "validation") == ()
