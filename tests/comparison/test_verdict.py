"""The first line of every output: scores of the teacher and of each strategy with their verdict, the angles beneath."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from anglekit.comparison.compare import compare
from anglekit.comparison.family import Family, Reference
from anglekit.comparison.verdict import Headline, headline
from tests.comparison.compare_corpus import FIVE, make_geometry, score_rows, write_sweep

GAIN = {"part": "score", "measure": "accuracy, validation", "init": "random", "score": "accuracy", "margin": 0.01,
        "spread": 0.308, "change_over_none": 0.11, "change_low": 0.09, "change_high": 0.13}  # fmt: skip
CONTROLS = [
    {"measure": "accuracy, validation", "init": "random", "control": control, "from_control": change, "share": share}
    for control, change, share in (("alone", -0.037, np.nan), ("random-teacher", 0.0132, 0.12))
]


def said(families, own, *, spreads=(), controls=(), **more) -> Headline:
    gains, explained = pd.DataFrame(spreads, columns=list(GAIN)), pd.DataFrame(controls, columns=list(CONTROLS[0]))
    return headline(families, own, gains, explained, **more)


def row(**changed):
    """A row between two strategies: accuracy 30 points apart, surely 27."""
    return {
        "part": "score", "measure": "accuracy, validation", "data": "validation", "score": "accuracy", "stream": None,
        "vertex": np.nan, "init": "random", "strategy_a": "forward", "strategy_b": "reverse", "difference": 0.30,
        "margin": 0.01, "low": 0.26, "high": 0.34, "test_low": 0.28, "test_high": 0.32, "joint_low": 0.27,
        "joint_high": 0.33, "verdict": "undecided", "n_seeds": 3, "n_examples": None, "needed_seeds": None,
        "needed_examples": None, "needed_factor": None,
    } | changed  # fmt: skip


def family(verdict, *rows, n_seeds=3, init="random", **more):
    members = tuple(row(init=init, **one) for one in rows or ({},))
    return Family(members[0]["part"], init, verdict, n_seeds, members[0], members, **more)


ANGLE = {"part": "angle", "measure": "angle, encoder layer 2", "data": None, "score": None, "stream": "encoder",
         "vertex": 2, "difference": -12.1, "margin": 2.0, "test_low": -14.0, "test_high": -10.4, "joint_low": -14.2,
         "joint_high": -10.0, "n_examples": 60}  # fmt: skip


def levels(inits=("random",), score="accuracy", data="validation", n_examples=2000, **means):
    means = means or {"forward": 0.649, "none": 0.387, "reverse": 0.341}
    return pd.DataFrame(
        {"part": "score", "measure": f"{score}, {data}", "init": init, "data": data, "score": score,
         "strategy": strategy, "mean": mean, "n_seeds": 3, "n_examples": n_examples}
        for init in inits for strategy, mean in means.items()
    )  # fmt: skip


def test_the_score_comes_first_with_teacher_and_every_strategy_and_the_angles_beneath() -> None:
    found = said(
        [family("different", ANGLE), family("different"), family("equivalent", init="teacher")],
        levels(inits=("random", "teacher")),
        teacher={"accuracy, validation": 0.929},
    )
    assert found.line == (
        "On accuracy (teacher 92.9%, 3 seeds): new weights: different (forward is highest with 64.9%, 30.0 points "
        "above reverse, surely 27.0 points or more); the teacher's weights: equivalent within 1.0 points (34.1% to "
        "64.9%)."
    )
    assert found.numbers == (
        "Scores on validation (2,000 examples, 3 seeds): teacher 92.9%; new weights: none 38.7%, forward 64.9%, "
        "reverse 34.1%; the teacher's weights: none 38.7%, forward 64.9%, reverse 34.1%."
    )
    assert found.reasons == (
        "The angles, which may explain it (60 examples, 3 seeds): new weights: different (reverse is 12.1° above "
        "forward at encoder layer 2, surely 10.0° or more).",
    )
    assert found.beneath == (found.numbers, *found.reasons)
    assert found.text == f"{found.line}\n  {found.numbers}\n  {found.reasons[0]}"


def test_the_first_line_has_few_numbers_however_many_strategies_there_are() -> None:
    """Of each kind of weights the highest, how far apart, how surely; the others stand in the second line."""
    means = {f"strategy-{number}": 0.5 + number / 100 for number in range(10)}
    parts = [family("different", init=init) for init in ("random", "teacher")]
    found = said(parts, levels(inits=("random", "teacher"), **means), teacher={"accuracy, validation": 0.929})
    assert found.line.count("%") == 3
    assert len(re.findall(r"\d+\.\d", found.line)) == 7
    assert found.numbers.count("%") == 1 + 2 * 10


def test_what_differs_need_not_be_the_strategy_that_stands_first() -> None:
    pair = family("different", {"strategy_a": "reverse", "strategy_b": "random"})
    line = said([pair], levels(forward=0.7, reverse=0.6, random=0.3)).line
    assert "(forward is highest with 70.0%; reverse is 30.0 points above random, surely 27.0 points or more)" in line
    rows = {"score": "perplexity", "difference": 3.0, "margin": 1.0, "joint_low": 2.5, "joint_high": 3.5}
    falling = said([family("different", rows)], levels(score="perplexity", forward=7.0, reverse=4.0)).line
    assert "(reverse is lowest with 4.0; forward is 3.0 above reverse, surely 2.5 or more)" in falling


def test_undecided_says_what_it_would_take() -> None:
    near = {"difference": -0.012, "test_low": -0.028, "test_high": 0.004, "needed_seeds": 6}
    line = said([family("undecided", near)], levels()).line
    assert (
        "undecided (forward is highest with 64.9%; reverse is 1.2 points above forward; about 6 seeds (now 3) would "
        "decide)" in line
    )
    numbers = said([family("undecided", near)], levels()).numbers
    assert numbers.endswith(
        "(reverse over forward: 90% interval for equivalence -0.4 to 2.8 points, the margin 1.0 points)."
    )
    both = family("undecided", {**near, "needed_seeds": 6}, {**near, "strategy_b": "random", "needed_seeds": 9})
    assert "about 6 seeds (now 3) would decide)" in said([both], levels()).line
    first = replace(both, key=both.rows[1])
    assert "about 6 seeds (now 3) would decide forward against reverse)" in said([first], levels()).line
    far = said([family("undecided", {**near, "needed_seeds": None, "needed_factor": 1702.5})], levels()).line
    assert "; more than 100 times the seeds and examples would decide" in far
    never = said([family("undecided", {"difference": 0.01})], levels()).line
    assert "too near the margin to be decided" in never
    one = said([family("undecided", {"test_low": np.nan}, n_seeds=1, about="these students")], levels())
    assert "; nothing tells its error; train at least 3 seeds: anglekit sweep --seeds 0-2" in one.line
    assert "interval" not in one.numbers
    assert one.reasons == (
        "With fewer than 3 seeds the scores tell about these students, not about others trained alike.",
    )
    example = {**ANGLE, "test_low": np.nan, "n_examples": 1}
    alone = said([family("undecided", example)], levels().iloc[:0])
    assert alone.line.startswith("On the angles alone, as no score came (1 example, 3 seeds): ")
    assert "and nothing tells its error; use more examples" in alone.line


def test_the_tasks_own_score_leads_and_a_row_of_another_score_or_table_is_named() -> None:
    both = pd.concat([levels(score="macro_f1", forward=0.2, reverse=0.3), levels()])
    assert said([family("different")], both, primary="accuracy").line.startswith("On accuracy (")
    assert said([family("different")], both).line.startswith("On macro F1 (")
    elsewhere = family("different", {"data": "mismatched", "score": "macro_f1"})
    assert "above reverse in macro F1 on mismatched, surely" in said([elsewhere], levels()).line


def test_scores_that_are_no_shares_keep_their_unit() -> None:
    bleu = levels(score="bleu", forward=38.24, reverse=37.0)
    rows = {"score": "bleu", "difference": 1.24, "margin": 1.0, "joint_low": 1.1, "joint_high": 1.4}
    line = said([family("different", rows)], bleu, teacher={"bleu, validation": 40.0}).line
    assert "(teacher 40.0, 3 seeds): new weights: different (forward is highest with 38.2, 1.2 above reverse" in line


def test_what_cannot_be_compared_is_said_with_its_scores() -> None:
    seeds = said([], levels())
    assert seeds.line.endswith("new weights: no two matching strategies share a seed, so none is compared.")
    assert seeds.beneath == (seeds.numbers,)
    assert seeds.numbers.endswith("reverse 34.1%.")
    alone = said([], levels(forward=0.649, none=0.387, alone=0.3)).line
    assert alone.endswith(": only forward matches layers, so nothing is compared.")
    assert said([], levels(none=0.387)).line.endswith(": no strategy matches layers, so nothing is compared.")
    unnamed = levels(inits=("unrecorded",), data="", n_examples=None, mine=0.5, yours=0.6)
    assert said([], unnamed).line.startswith("On accuracy (3 seeds): no two")
    assert said([], unnamed).numbers == "Scores (3 seeds): mine 50.0%, yours 60.0%."
    uneven = levels()
    uneven.loc[0, "n_seeds"] = 1
    assert "on validation (2,000 examples, 1 to 3 seeds)" in said([], uneven).numbers
    few = said([], levels().assign(n_seeds=2)).line
    assert "(2 seeds, about these students, as it takes 3 for others)" in few
    angles = levels(none=60.0, forward=61.0).assign(part="angle")
    nothing = said([], angles)
    assert nothing.line == "On the angles alone, as no score came: only forward matches layers, so nothing is compared."


def test_students_at_chance_get_no_verdict_but_the_numbers() -> None:
    for chance, untrained, words in (
        (0.338, 0.34, "guessing (33.8%) and the untrained students (34.0%)"),
        (0.338, None, "guessing (33.8%)"),
        (None, 0.34, "the untrained students (34.0%)"),
    ):
        reference = Reference(max(one for one in (chance, untrained) if one is not None), chance, untrained)
        lost = family("undecided", told=False, reference=reference)
        line = said([lost, family("equivalent", init="teacher")], levels(inits=("random", "teacher"))).line
        assert (
            f"new weights: no verdict, as no matched student is surely better than {words}; train them longer; "
            "the teacher's" in line
        )
        assert "different" not in line
        assert "above reverse" in said([family("different", told=True, reference=reference)], levels()).line


def test_what_matching_gains_and_the_controls_explain_stands_beneath() -> None:
    found = said([family("different")], levels(), spreads=[GAIN], controls=CONTROLS)
    assert found.reasons == (
        "In accuracy, validation, from new weights, matching gains +11.0 points over none (95%: 9.0 to 13.0 points), "
        "and strategies spread over 30.8 points; the labels alone: -3.7 points; matching an untrained teacher: "
        "+1.3 points, 12% of that.",
    )
    unsure = said(
        [family("different")], levels(), spreads=[GAIN], controls=[one | {"share": np.nan} for one in CONTROLS]
    )
    assert "the labels alone: -3.7 points; matching an untrained teacher: +1.3 points." in unsure.reasons[0]
    unknown = said([], levels(), spreads=[GAIN | {"change_over_none": np.nan}], controls=CONTROLS)
    assert unknown.reasons == ()


def test_no_line_holds_a_control_character() -> None:
    found = said([family("different", {"strategy_a": "a\x1b[31m\nb"})], levels(**{"a\x1b[31m\nb": 0.5}))
    assert found.line.isprintable()


@pytest.mark.parametrize(("scores", "verdict"), [(0.85, "equivalent"), (0.70, "different")])
def test_scores_decide_whatever_the_angles_say(tmp_path, scores, verdict) -> None:
    rows = score_rows(dict.fromkeys(FIVE, 0.85) | {"none": 0.8, "reverse": scores}, seeds=range(5), noise=0.0005)
    geometry = make_geometry({"none": 70.0, "forward": 60.0, "reverse": 80.0}, noise=1.0)
    found = compare([geometry, write_sweep(tmp_path / "sweep", rows)])
    assert found.verdict == verdict
    assert found.headline.line.startswith("On accuracy (")
    assert verdict in found.headline.line
    assert "new weights: different (reverse is 20" in found.headline.reasons[0]
    assert "over none" in found.headline.reasons[1]


def test_a_headline_is_equal_to_itself_said_again() -> None:
    assert Headline("a", ("b",)) == Headline("a", ("b",))


def test_angles_of_students_that_have_learned_nothing_get_no_verdict() -> None:
    """And no score is written in degrees."""
    lost = {"told": False, "reference": Reference(0.524, 0.524, 0.505)}
    found = said([family("undecided", **lost), family("undecided", ANGLE, **lost)], levels())
    assert "better than guessing (52.4%) and the untrained students (50.5%)" in found.line
    assert found.reasons[0].endswith(": no verdict, as the matched students have learned nothing.")
    lost["reference"] = Reference(1.0, 0.524, 1.0, above_chance=True, above_untrained=False, reached="best")
    found = said([family("undecided", **lost), family("undecided", ANGLE, **lost)], levels())
    assert found.reasons[0].endswith(": no verdict, as nothing shows that the matched students have learned anything.")
