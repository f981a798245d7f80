"""`compare` on Geometries, sweeps and runs whose differences are known."""

from __future__ import annotations

import dataclasses
import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from anglekit.comparison.cells import Cell, angle_cells
from anglekit.comparison.compare import compare, default_score_margin
from anglekit.comparison.equivalence import ALPHA, Joint, equivalence_verdict
from anglekit.comparison.evidence import Evidence
from anglekit.comparison.family import Reference
from anglekit.comparison.pairs import averaging_views, largest_pair_differences, obtuse_pairs
from anglekit.comparison.result import Comparison
from anglekit.comparison.statistics import difference_rows, estimate_cell, family_of, joint_of
from anglekit.errors import InputError
from anglekit.results.scores import SCORE_COLUMNS
from tests.comparison.compare_corpus import FIVE, make_geometry, score_rows, write_run, write_sweep

ALIKE = dict.fromkeys(FIVE, 60.0) | {"none": 70.0}
SCORES = dict.fromkeys(FIVE, 0.85) | {"none": 0.80}


def between(comparison: Comparison, **wanted: object):
    rows = comparison.differences[comparison.differences["kind"] == "between"]
    for name, value in wanted.items():
        rows = rows[rows[name] == value]
    return rows


def test_differences_are_those_of_paired_examples_weighted_by_tokens() -> None:
    geometry = make_geometry({"forward": 60.0, "reverse": 63.0}, examples=50)
    row = between(compare([geometry]), vertex=1).iloc[0]
    sides = {}
    for strategy in ("forward", "reverse"):
        own = geometry.examples[
            (geometry.examples["student"] == f"{strategy}-random-0") & (geometry.examples.vertex == 1)
        ]
        degrees = np.degrees(np.arccos(own["mean_cosine"].to_numpy()))
        sides[strategy] = np.average(degrees, weights=own["n_tokens"].to_numpy(float))
    assert row["difference"] == pytest.approx(sides["forward"] - sides["reverse"], abs=1e-10)
    assert row["low"] < row["test_low"] < row["difference"] < row["test_high"] < row["high"]
    assert (row["n_seeds"], row["n_examples"]) == (1, 50)


def test_pairing_cancels_what_examples_have_in_common() -> None:
    """The examples' own effect has a deviation of 10 degrees; unpaired, 50 of them leave an error of 2 degrees."""
    row = between(compare([make_geometry(ALIKE, examples=50, noise=1.0)])).iloc[0]
    assert row["standard_error"] < 0.5
    # The negative control: the same students on examples that are not paired.
    shuffled = make_geometry(ALIKE, examples=50, noise=1.0)
    mine = shuffled.examples["student"] == "forward-random-0"
    shuffled.examples.loc[mine, "mean_angle_degrees"] = (
        shuffled.examples.loc[mine, "mean_angle_degrees"].sample(frac=1.0, random_state=0).to_numpy()
    )
    assert between(compare([shuffled])).iloc[0]["standard_error"] > 1.2


@pytest.mark.parametrize(
    ("reverse", "noise", "verdict"), [(60.0, 1.0, "equivalent"), (75.0, 1.0, "different"), (60.0, 40.0, "undecided")]
)
def test_three_geometries_reach_the_three_verdicts(reverse: float, noise: float, verdict: str) -> None:
    comparison = compare([make_geometry({"none": 70.0, "forward": 60.0, "reverse": reverse}, noise=noise)])
    assert comparison.verdict == verdict
    line = comparison.headline.line
    assert line.startswith(f"On the angles alone, as no score came (200 examples, 1 seed): new weights: {verdict} ")
    if verdict == "undecided":
        assert "examples (now 200) would decide" in line
    assert comparison.headline.beneath == (
        "With fewer than 3 seeds the angles tell about these students, not about others trained alike.",
    )


@pytest.mark.parametrize(
    ("random", "noise", "verdict"), [(0.85, 0.001, "equivalent"), (0.80, 0.001, "different"), (0.85, 0.03, "undecided")]
)
def test_three_sweeps_reach_the_three_verdicts(tmp_path: Path, random: float, noise: float, verdict: str) -> None:
    rows = score_rows(SCORES | {"random": random}, seeds=range(5), noise=noise)
    written = write_sweep(tmp_path / "sweep", rows)
    comparison = compare(str(written))
    assert comparison.verdict == compare([written]).verdict == verdict
    assert f"random {'80' if random == 0.8 else '85'}." in comparison.headline.numbers
    assert comparison.headline.line.startswith(f"On accuracy (5 seeds): new weights: {verdict} ")
    if verdict == "undecided":
        assert "seeds (now 5) would decide" in comparison.headline.line
    assert comparison.notes == (
        "new weights, validation: 25 of 25 students came without predictions by example, so intervals are over seeds "
        "alone and hold on this validation table (train them again)",
        "no Geometry came: whether the angles agree is not answered (anglekit analyze)",
    )
    assert comparison.settings["margin_degrees"] is None
    assert comparison.headline.beneath[-1].endswith("intervals are over seeds alone and hold on this validation table.")
    assert len(comparison.method_lines()) == 2


def test_the_strategy_none_is_not_a_missing_value(tmp_path: Path) -> None:
    comparison = compare([write_sweep(tmp_path / "sweep", score_rows(SCORES))])
    row = comparison.spreads.iloc[0]
    assert row["change_over_none"] == pytest.approx(0.05, abs=0.003)
    assert row["change_low"] < row["change_over_none"] < row["change_high"]
    assert row["spread"] < 0.1 * row["change_over_none"]
    assert list(comparison.levels["strategy"]) == list(FIVE)


def test_scores_are_paired_by_seed(tmp_path: Path) -> None:
    """What a seed does to all strategies (0.01) is not in their differences (0.0001)."""
    comparison = compare([write_sweep(tmp_path / "sweep", score_rows(SCORES, noise=0.0001))])
    # One answer of the thousand is the least that the table can show.
    assert between(comparison)["standard_error"].to_numpy() == pytest.approx(0.001)
    assert comparison.verdict == "equivalent"


def test_one_seed_of_scores_pretends_nothing(tmp_path: Path) -> None:
    comparison = compare([write_sweep(tmp_path / "sweep", score_rows(SCORES, seeds=[4]))])
    assert comparison.verdict == "undecided"
    assert "nothing tells its error; train at least 3 seeds" in comparison.headline.line
    assert comparison.differences[["low", "high", "test_low", "standard_error"]].isna().all(axis=None)
    assert any("fewer than 3 seeds, so the answer is about these students" in note for note in comparison.notes)
    assert "unknown" in comparison.text("full")


def test_seeds_of_geometries_are_taken_into_account() -> None:
    one = compare([make_geometry(ALIKE, seed_noise=3.0)])
    three = compare([make_geometry(ALIKE, seeds=(0, 1, 2), seed_noise=3.0)])
    assert set(three.differences["n_seeds"]) == {3}
    assert between(three)["standard_error"].mean() > 2 * between(one)["standard_error"].mean()
    assert three.verdict == "undecided"
    assert three.headline.line.startswith(
        "On the angles alone, as no score came (200 examples, 3 seeds): new weights: "
    )
    assert "undecided" in three.headline.line
    assert three.headline.beneath == ()
    assert [family.about for family in (*one.families, *three.families)] == ["these students", "strategies"]


def test_geometries_and_scores_are_answered_together(tmp_path: Path) -> None:
    inits = ("random", "teacher")
    sweep = write_sweep(tmp_path / "sweep", score_rows(SCORES, inits=inits, seeds=range(4), noise=0.001))
    saved = make_geometry(ALIKE, inits=inits, noise=1.0).save(tmp_path / "geometry")
    comparison = compare([saved, sweep])
    assert comparison.verdict == "equivalent"
    assert comparison.headline.line.startswith("On accuracy (4 seeds): new weights: equivalent within 1.0 points (")
    assert comparison.headline.numbers.startswith(
        "Scores on validation (1,000 examples, 4 seeds): new weights: none 80."
    )
    assert comparison.headline.line.count("equivalent within 1.0 points") == 2
    assert [(family.part, family.init) for family in comparison.families] == [
        ("score", "random"), ("score", "teacher"), ("angle", "random"), ("angle", "teacher"),
    ]  # fmt: skip
    assert comparison.headline.reasons[0].startswith("The angles, which may explain it (200 examples, 1 seed): ")
    assert ["over none" in line for line in comparison.headline.reasons] == [False, True, True, False, False]
    one_seed = write_sweep(tmp_path / "one", score_rows(SCORES, inits=inits, seeds=[0]))
    split = compare([saved, one_seed])
    assert split.verdict == "undecided"
    assert split.headline.line.count("undecided") == 2
    assert split.headline.reasons[0].count("equivalent within 2.0°") == 2
    # Scores lead: what the angles say changes their own verdict alone.
    stricter = compare([saved, sweep], margin=0.05)
    assert stricter.verdict == "equivalent"
    assert "equivalent" not in stricter.headline.reasons[0]


def test_an_arm_of_a_sweep_that_comes_again_as_a_run_counts_once(tmp_path: Path) -> None:
    rows = [row for row in score_rows(SCORES, seeds=[0, 1]) if row["strategy"] in ("forward", "reverse")]
    sweep = write_sweep(tmp_path / "sweep", rows)
    run = write_run(tmp_path / "again", "forward", rows[0]["accuracy"])
    assert compare([sweep, run, sweep]).differences.equals(compare([sweep]).differences)
    more = compare([sweep, *(write_run(tmp_path / f"r{seed}", "random", 0.85, seed=seed) for seed in (0, 1))])
    assert set(between(more)["strategy_b"]) == {"reverse", "random"}
    # What comes twice is read once, and what comes behind it is read.
    late = compare([sweep, sweep, write_run(tmp_path / "late", "random", 0.85)])
    assert set(between(late)["strategy_b"]) == {"reverse", "random"}
    clash = write_run(tmp_path / "clash", "forward", 0.123)
    for others in ([clash], [clash, write_run(tmp_path / "third", "forward", 0.124)]):
        with pytest.raises(InputError, match="forward, random, seed 0 came twice with different accuracy"):
            compare([sweep, *others])


def test_students_without_a_record_are_compared_by_name() -> None:
    comparison = compare([make_geometry({"a": 60.0, "b": 60.0}, inits=(None,), seeds=(None,), noise=1.0)])
    assert list(comparison.differences[["strategy_a", "strategy_b"]].iloc[0]) == ["a", "b"]
    assert comparison.verdict == "equivalent"
    assert "weights" not in comparison.headline.line
    assert any("no student without matching (none)" in note for note in comparison.notes)


def test_without_none_or_a_second_matching_strategy_the_part_that_is_missing_is_named() -> None:
    without = compare([make_geometry({"forward": 60.0, "reverse": 60.0}, noise=1.0)])
    assert without.verdict == "equivalent"
    assert set(without.differences["kind"]) == {"between"}
    assert "angles, new weights: no student without matching (none), so no change over none is given" in without.notes
    alone = compare([make_geometry({"none": 70.0, "forward": 60.0})])
    assert alone.verdict == "undecided"
    assert alone.families == ()
    assert alone.headline.line.endswith("only forward matches layers, so nothing is compared.")
    assert alone.spreads.iloc[0]["change_over_none"] == pytest.approx(-10, abs=2)
    assert any("fewer than two matching strategies" in note for note in alone.notes)


def test_two_strategies_are_paired_on_the_seeds_that_both_have(tmp_path: Path) -> None:
    gone = [("reverse", 2), ("reverse", 3), ("none", 0)]
    rows = [row for row in score_rows(SCORES, seeds=range(5)) if (row["strategy"], row["seed"]) not in gone]
    comparison = compare([write_sweep(tmp_path / "sweep", rows)])
    pairs = between(comparison).set_index(["strategy_a", "strategy_b"])["n_seeds"]
    assert {seeds for pair, seeds in pairs.items() if "reverse" in pair} == {3}
    assert {seeds for pair, seeds in pairs.items() if "reverse" not in pair} == {5}
    over = comparison.differences[comparison.differences["kind"] == "over none"].set_index("strategy_a")["n_seeds"]
    assert (over["forward"], over["reverse"], over["matching (mean)"]) == (4, 2, 2)
    assert [note for note in comparison.notes if "paired" in note] == [
        "scores, new weights: not every matching strategy has seed 2, 3; every two are paired on the seeds that both "
        "have"
    ]
    first, second = (
        make_geometry({name: 60.0}, examples=80, first_example=start)
        for name, start in (("forward", 0), ("reverse", 30))
    )
    apart = compare([first, second])
    assert set(between(apart)["n_examples"]) == {50}
    assert "encoder: the Geometries hold 80 examples and share 50, which are compared" in apart.notes


def test_examples_without_an_angle_are_left_out() -> None:
    comparison = compare([make_geometry(ALIKE, undefined=range(5))])
    assert set(between(comparison)["n_examples"]) == {195}
    assert np.isfinite(between(comparison)["difference"]).all()
    assert "new weights, encoder layer 1: 5 of 200 examples lack an angle and are left out" in comparison.notes
    with pytest.raises(InputError, match="no example is in all Geometries"):
        compare([make_geometry({"forward": 1.0}, examples=5), make_geometry({"reverse": 1.0}, first_example=9)])


def test_a_pair_of_layers_that_the_mean_hides_is_named() -> None:
    geometry = make_geometry(ALIKE, obtuse=("reverse",), noise=1.0)
    found = obtuse_pairs([("g", geometry)])
    assert set(found["strategy"]) == {"reverse"}
    assert set(zip(found["teacher_i"], found["teacher_k"], strict=True)) == {(0, 3)}
    assert found["surely"].all()
    # The error at which one of two pairs alone would be surely obtuse is not enough among all that were looked at.
    few = {"n_clusters": 8.0, "se_cosine": 0.2 / 2.5}
    wide = replace(geometry, angles=geometry.angles.assign(**few))
    assert not obtuse_pairs([("g", wide)])["surely"].any()
    alone = make_geometry({"reverse": 60.0}, obtuse=("reverse",), vertices=(1,))
    rows = alone.angles[alone.angles["mean_cosine"] < 0].assign(**few)
    single = obtuse_pairs([("g", replace(alone, angles=rows))])
    assert single["surely"].tolist() == [True]
    assert (single["high"] < 0).all()
    rounding = replace(geometry, angles=geometry.angles.assign(mean_cosine=-1e-9, se_cosine=1e-12))
    assert not obtuse_pairs([("g", rounding)])["surely"].any()
    view = averaging_views([("g", geometry)]).set_index(["strategy", "vertex"]).loc[("reverse", 1)]
    assert view["mean_angle_degrees"] < 65
    assert view["largest_angle_degrees"] == pytest.approx(np.degrees(np.arccos(-0.2)))
    assert (view["obtuse_pairs"], view["pairs"]) == (1, 6)
    late_first = averaging_views([("g", make_geometry({"reverse": 60.0, "forward": 61.0}, examples=20))])
    assert list(late_first["strategy"]) == ["reverse", "reverse", "forward", "forward"]
    largest = largest_pair_differences([("g", geometry)])
    chosen = largest[(largest["strategy_a"] == "forward") & (largest["strategy_b"] == "reverse")].iloc[0]
    assert (chosen["pair_i"], chosen["pair_k"], chosen["sides_differ"]) == (0, 3, 1)
    comparison = compare([geometry])
    assert comparison.verdict == "equivalent"  # by the mean over pairs, which is why the pair is named
    assert "(0, 3) 101.5°" in comparison.text("full")


def test_the_pair_that_differs_most_is_found_over_the_seeds_that_both_have() -> None:
    geometry = make_geometry({"forward": 60.0, "reverse": 60.0}, seeds=(0, 1), vertices=(1,), examples=20)
    angles = geometry.angles.set_index(["student", "teacher_i", "teacher_k"])
    angles["mean_angle_degrees"] = 60.0
    angles["mean_cosine"] = 0.5
    for seed, degrees in ((0, 70.0), (1, 74.0)):
        angles.loc[(f"forward-random-{seed}", 1, 2), "mean_angle_degrees"] = degrees
        angles.loc[(f"reverse-random-{seed}", 1, 2), "mean_angle_degrees"] = 80.0
        angles.loc[(f"forward-random-{seed}", 0, 3), "mean_angle_degrees"] = 66.0
    # A cosine of 0 is on the acute side, like any above it; a negative one is not.
    for pair, first, second in (((0, 1), 0.0, 0.3), ((0, 2), 0.0, -0.1), ((1, 3), -0.2, -0.1), ((2, 3), 0.3, 0.0)):
        for seed in (0, 1):
            angles.loc[(f"forward-random-{seed}", *pair), "mean_cosine"] = first
            angles.loc[(f"reverse-random-{seed}", *pair), "mean_cosine"] = second
    object.__setattr__(geometry, "angles", angles.reset_index()[list(geometry.angles)])
    found = largest_pair_differences([("g", geometry)]).set_index(["strategy_a", "strategy_b"])
    assert len(found) == 2
    for (a, b), sign in ((("forward", "reverse"), -1), (("reverse", "forward"), 1)):
        row = found.loc[(a, b)]
        assert (row["pair_i"], row["pair_k"], row["sides_differ"]) == (1, 2, 1)
        assert row["pair_difference"] == pytest.approx(sign * 8.0)
    assert set(obtuse_pairs([("g", geometry)])["teacher_i"]) == {0, 1}


def test_margins_follow_the_unit_of_the_scores() -> None:
    assert default_score_margin([0.83, 1.0]) == 0.01
    assert default_score_margin([38.2]) == 1.0
    assert default_score_margin([-0.4, 0.2, -1.1]) == 1.0
    assert default_score_margin([]) == 0.01


@pytest.mark.parametrize("seeds", [3, 5])
def test_strategies_at_the_margin_are_called_different_at_most_at_the_nominal_rate(seeds: int) -> None:
    """Four strategies, two of them a margin above the others: every call of "different" is wrong."""
    wrong, uncorrected = 0, 0
    rng = np.random.default_rng(seeds)
    for _ in range(200):
        students = {
            (name, seed): np.array([0.8 + above + 0.01 * rng.normal()])
            for name, above in (("forward", 0.0), ("reverse", 0.02), ("all-to-one", 0.0), ("random", 0.02))
            for seed in range(seeds)
        }
        weights = dict.fromkeys(students, np.ones(1))
        cell = Cell("score", "random", {"data": "dev", "score": "accuracy"}, students, weights)
        measured = estimate_cell(cell, 0.02)
        joint = joint_of([measured], 1 - ALPHA)
        wrong += family_of(difference_rows(measured, joint))[0] == "different"
        uncorrected += family_of(difference_rows(measured, Joint(1 - 2 * ALPHA, 1, None)))[0] == "different"
    assert wrong / 200 <= ALPHA
    assert uncorrected / 200 > 2 * ALPHA  # the negative control: pairs judged one by one, each tail at 5%


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"margin": 0.0}, "--angle-margin is 0; allowed: a number above 0"),
        ({"margin": float("nan")}, "--angle-margin is nan"),
        ({"score_margin": -0.1}, "--score-margin is -0.1"),
    ],
)
def test_options_out_of_range_are_refused_before_anything_is_read(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        compare(["nowhere"], **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"probe": "f" * 64},
            "differ in the probe .sha256 ffffffffffff and sha256 aaaaaaaaaaaa., so that examples cannot",
        ),
        ({"teacher": "f" * 64}, "differ in the teacher"),
        ({"settings": {"reading": "official"}}, "differ in the setting reading .official and corrected."),
        ({"settings": {"final_norm": "included"}}, "differ in the setting final_norm .included and excluded."),
        ({"settings": {"special_tokens": False}}, "differ in the setting special_tokens .False and True."),
        ({"settings": {"max_length": 64}}, "differ in the setting max_length .64 and None."),
        ({"settings": {"target_max_length": 64}}, "differ in the setting target_max_length .64 and None."),
        ({"settings": {"projection": "procrustes"}}, "differ in the setting projection .procrustes and None."),
        ({"settings": {"prompts": "included"}}, "differ in the setting prompts .included and alone."),
        ({"settings": {"teacher_layers": {"encoder": [0, 3]}}}, "differ in the setting teacher_layers "),
    ],
)
def test_geometries_that_cannot_be_paired_are_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message) as refused:
        compare([make_geometry({"forward": 60.0}), make_geometry({"reverse": 60.0}, **options)])
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("column", "name"), [("text", "text"), ("text_pair", "second text"), ("target", "target")])
def test_geometries_of_other_columns_are_refused(column: str, name: str) -> None:
    other = make_geometry({"reverse": 60.0})
    other.provenance["probe"][column] = "elsewhere"
    with pytest.raises(InputError, match=f"differ in the probe's {name} column .elsewhere and "):
        compare([make_geometry({"forward": 60.0}), other])


def test_what_is_needed_is_corrected_for_several_pairs_only_where_one_would_do() -> None:
    """Beyond the margin a pair must stand out among all; within it all must be within, and none is corrected."""
    levels = {"forward": (0.8, 0.8, 0.8), "reverse": (0.808, 0.819, 0.827), "random": (0.795, 0.801, 0.808)}
    students = {(name, seed): np.array([own[seed]]) for name, own in levels.items() for seed in range(3)}
    cell = Cell("score", "random", {"data": "dev", "score": "f1"}, students, dict.fromkeys(students, np.ones(1)))
    estimates = estimate_cell(cell, 0.01)
    needed = [
        {(row["strategy_a"], row["strategy_b"]): row["needed_seeds"] for row in rows if row["verdict"] == "undecided"}
        for rows in (difference_rows(estimates, Joint(0.95, count, None)) for count in (1, 9))
    ]
    sizes = {(one.a, one.b): abs(one.estimate.value) for one in estimates.contrasts}
    assert {size > 0.01 for pair, size in sizes.items() if pair in needed[0]} == {True, False}
    for pair, seeds in needed[0].items():
        assert seeds is not None
        assert ((needed[1][pair] or np.inf) > seeds) == (sizes[pair] > 0.01)


def test_padding_must_be_alike_where_it_counts() -> None:
    one, other = ({"pad_to": length, "prompts": "alone"} for length in (64, 128))
    first, second = {"forward": 60.0}, {"reverse": 60.0}
    assert compare([make_geometry(first, settings=one), make_geometry(second, settings=other)]).verdict
    official = {"reading": "official"}
    with pytest.raises(InputError, match=r"differ in the setting pad_to .128 and 64."):
        compare([make_geometry(first, settings=one | official), make_geometry(second, settings=other | official)])


def test_a_student_that_comes_twice_is_viewed_once() -> None:
    """The same student over two parts of the probe, of which the first one speaks."""
    parts = [("g", make_geometry({"forward": 60.0, "reverse": 62.0}, examples=n)) for n in (60, 40)]
    for view in (averaging_views, largest_pair_differences, obtuse_pairs):
        pd.testing.assert_frame_equal(view(parts), view(parts[:1]))


def test_the_row_that_decides_is_the_one_that_stands_out() -> None:
    """Differences in units of their margins: the clearest different one, the nearest to the margin, or the largest."""

    def row(name: str, difference: float, reach: float, margin: float = 1.0) -> dict:
        low, high = ((difference + side * reach) * margin for side in (-1, 1))
        ends = {"test_low": low, "test_high": high, "joint_low": low, "joint_high": high}
        ends["verdict"] = equivalence_verdict((low, high), (low, high), margin)
        return {"strategy_a": name, "difference": difference * margin, "margin": margin, **ends}

    cases = [
        ("different", "far", [row("near", 1.6, 0.5), row("far", -3.0, 0.5), row("none", 0.0, 0.1)]),
        ("different", "far", [row("near", 1.6, 0.5, margin=100.0), row("far", 2.0, 0.5, margin=0.01)]),
        ("equivalent", "edge", [row("edge", -0.5, 0.3), row("well", 0.5, 0.1), row("none", 0.0, 0.1)]),
        ("undecided", "wide", [row("wide", 0.2, 2.0), row("sure", 0.5, 0.1)]),
        ("undecided", "below", [row("below", -0.9, 0.9), row("sure", 0.9, 0.3)]),
        ("undecided", "large", [row("small", 0.1, np.nan), row("large", -0.4, np.nan)]),
    ]
    for verdict, decides, rows in cases:
        for order in (rows, rows[::-1]):
            found, key = family_of(order)
            assert (found, key["strategy_a"]) == (verdict, decides)


def test_more_pairs_of_examples_cost_wider_joint_intervals() -> None:
    """Of students with one seed: by how much, the examples say, of all cells' pairs together."""
    geometry = make_geometry({"forward": 60.0, "reverse": 61.0, "random": 60.0}, examples=60, vertices=(1, 2, 3))
    cells, _ = angle_cells([("g", geometry)])
    estimates = [estimate_cell(cell, 2.0) for cell in cells]
    one, three = joint_of(estimates[:1], 0.9), joint_of(estimates, 0.9)
    assert (one.differences, three.differences) == (3, 9)
    assert 1.05 < one.widening < three.widening - 0.05
    freedom = estimates[0].between[0].example_freedom
    bonferroni = stats.t.ppf(1 - 0.05 / 9, freedom) / stats.t.ppf(0.95, freedom)
    assert three.widening < bonferroni * 1.02


def test_a_hint_names_five_directories_and_says_whether_there_are_more(tmp_path: Path) -> None:
    for number in range(5):
        write_sweep(tmp_path / f"sweep{number}", score_rows(SCORES, seeds=[0]))
    (tmp_path / "other").mkdir()
    with pytest.raises(InputError, match=r"; below it: sweep0, sweep1, sweep2, sweep3, sweep4$"):
        compare([tmp_path])
    write_sweep(tmp_path / "sweep5", score_rows(SCORES, seeds=[0]))
    with pytest.raises(InputError, match=r"; below it: sweep0, sweep1, sweep2, sweep3, sweep4 and more$"):
        compare([tmp_path])


@pytest.mark.parametrize("level", [0.9, 0.975])
def test_intervals_over_seeds_hold_at_once_by_bonferroni(level: float) -> None:
    rng = np.random.default_rng(0)
    cells = []
    for score in ("accuracy", "f1"):
        students = {(name, seed): rng.normal(size=1) for name in ("forward", "reverse", "random") for seed in range(4)}
        weights = dict.fromkeys(students, np.ones(1))
        cell = Cell("score", "random", {"data": "dev", "score": score}, students, weights)
        cells.append(estimate_cell(cell, 1.0))
    joint = joint_of(cells, level)
    assert joint == Joint(level, 6, None)
    one = cells[0].between[0]
    half = stats.t.ppf(1 - (1 - level) / 2 / 6, 3) * one.standard_error
    assert joint.interval(one) == pytest.approx((one.value - half, one.value + half))
    assert joint_of([], level) == Joint(level, 0, None)


def test_a_long_name_is_no_hash() -> None:
    """Sixty-four characters with a space among them are a column's name, of which nothing is cut."""
    long = make_geometry({"reverse": 60.0})
    name = f"the text {'x' * 55}"
    long.provenance["probe"]["text"] = name
    with pytest.raises(InputError, match=f"differ in the probe's text column .{name} and text."):
        compare([make_geometry({"forward": 60.0}), long])


def test_two_students_of_one_arm_are_refused_and_the_same_one_is_not() -> None:
    geometry, again = make_geometry(ALIKE), make_geometry({"forward": 60.0})
    assert compare([geometry, again]).differences.equals(compare([geometry]).differences)
    again.provenance["students"][0]["sha256"] = "9" * 64
    with pytest.raises(InputError, match="forward, random, 0 came twice: student forward-random-0 of geometry 1"):
        compare([geometry, again])


def test_sources_without_anything_to_compare_are_refused(tmp_path: Path) -> None:
    def refused(message: str, *sources: object) -> None:
        with pytest.raises(InputError, match=message) as error:
            compare([*sources])  # type: ignore[arg-type]
        assert "\n" not in str(error.value)

    refused("nothing came to compare")
    refused("3 came to compare; give directories", 3)
    refused("does not exist; give a directory", tmp_path / "nowhere")
    (tmp_path / "file").touch()
    refused("is a file; give a directory", tmp_path / "file")
    (tmp_path / "demo").mkdir()
    refused("holds no Geometry and no scores; give a directory of .*distill`$", tmp_path / "demo")
    sweep = write_sweep(tmp_path / "demo" / "sweep", score_rows(SCORES))
    refused("; below it: sweep", tmp_path / "demo")
    refused(
        "all students are of one strategy, forward; train another beside it, as `anglekit sweep TEACHER",
        write_run(tmp_path / "run", "forward", 0.8),
    )
    other = write_sweep(
        tmp_path / "other", score_rows({"forward": 0.8}, inits=["teacher"]), tables={"validation": "9" * 64}
    )
    refused("differ in the table 'validation' .*; score all on one table .--validation., or compare each", sweep, other)
    trained = write_run(tmp_path / "trained", "forward", 0.8, tables={"train": {"sha256": "9" * 64}})
    refused(
        "differ in the table 'train' .*; train all on one table .--train., or compare each by itself", sweep, trained
    )
    taught = write_run(tmp_path / "taught", "forward", 0.8, seed=8, origin_sha256="d" * 64)
    refused("differ in the teacher .sha256 d{12} and sha256 c{12}.*; give students of one teacher", sweep, taught)
    elsewhere = write_run(tmp_path / "task", "forward", 0.8, seed=7, task="mnli")
    refused("differ in the task .mnli and sst2.*; give runs of one task, or compare each by itself", sweep, elsewhere)
    (sweep / "scores.csv").write_text("strategy,init\nnone,random\n")
    refused("lacks the column 'seed'", sweep)
    (sweep / "scores.csv").unlink()
    refused("a sweep of which no arm is finished", sweep)
    (sweep / "sweep.json").write_text("{")
    refused("sweep.json is not readable json", sweep)
    (sweep / "sweep.json").write_text(json.dumps({"format": "x"}))
    refused("sweep.json: format 'x'; this anglekit reads 'anglekit-sweep-1'", sweep)


def test_runs_that_are_no_finished_students_are_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "forward", 0.8)
    (run / "checkpoint" / "anglekit_student.json").unlink()
    with pytest.raises(InputError, match="is not the run of a distilled student"):
        compare([run])
    (run / "scores.json").unlink()
    with pytest.raises(InputError, match="holds an unfinished run; go on with --resume"):
        compare([run])


def test_what_spoils_a_comparison_is_said(tmp_path: Path) -> None:
    rows = score_rows(SCORES)
    arms = [{"name": str(number)} for number in range(20)]
    sweep = write_sweep(tmp_path / "sweep", rows, arms=arms, warnings=["random equals forward"])
    settings = {"epochs": 3, "learning_rate": 1e-5, "data_seed": 3}
    runs = [
        write_run(tmp_path / "first", "forward", 0.8, seed=9, settings=settings),
        write_run(tmp_path / "second", "reverse", 0.8, seed=9, settings=settings | {"learning_rate": 2e-5}),
        write_run(tmp_path / "third", "random", 0.8, seed=9, settings=settings | {"data_seed": 4}),
    ]
    notes = compare([sweep, *runs]).notes
    assert any("15 of 20 arms are finished" in note for note in notes)
    assert any("random equals forward" in note for note in notes)
    assert [note for note in notes if "trained" in note] == [
        f"{runs[1]} and {runs[0]} were trained with different learning_rate: 2e-05 and 1e-05"
    ]


@pytest.mark.parametrize(
    ("accuracies", "told"),
    [
        ({"none": 0.7, "forward": 0.5, "reverse": 0.5}, False),  # that none has learned says nothing of the strategies
        ({"none": 0.5, "forward": 0.7, "reverse": 0.5}, True),
        ({"alone": 0.7, "forward": 0.5, "reverse": 0.45}, False),
    ],
)
def test_students_that_have_learned_nothing_get_no_verdict(accuracies: dict[str, float], told: bool) -> None:
    """Beside chance and the untrained students, of which the higher counts."""
    evidence = scored(accuracies, untrained=0.3, chance=0.5)
    comparison = compare(evidence, score_margin=0.2)
    (family,) = comparison.families
    assert family.told is told
    assert family.reference == Reference(0.5, 0.5, pytest.approx(0.3), above_chance=told, above_untrained=True)
    if not told:
        assert "is surely better than guessing (50.0%); train them longer" in comparison.headline.line
        # By the numbers alone the strategies would be equivalent.
        assert between(comparison)["test_high"].abs().max() < 0.2
        assert {family.verdict, comparison.verdict, *between(comparison)["verdict"]} == {"no verdict"}
        assert set(comparison.spreads["verdict"]) == {"no verdict"}
    assert compare(dataclasses.replace(evidence, chance={}, untrained={})).families[0].told is None


@pytest.mark.parametrize(
    ("accuracy", "untrained", "teacher", "bars", "advice"),
    [
        (0.7, 0.7, 0.9, "the untrained students (70.0%)", "train them longer"),
        (0.5, 0.5, 0.9, "guessing (50.0%) and the untrained students (50.0%)", "train them longer"),
        (1.0, 1.0, 1.0, "the untrained students (100.0%)", "this table is too easy to tell them apart"),
        (0.99, 0.99, None, "the untrained students (99.0%)", "this table is too easy to tell them apart"),
        (0.98, 0.98, None, "the untrained students (98.0%)", "train them longer"),
        (0.7, 0.7, 0.7, "the untrained students (70.0%)", "the teacher is no better than the students before training"),
        (0.5, 0.3, 0.3, "guessing (50.0%)", "train them longer"),
    ],
)
def test_only_the_bars_that_no_student_passed_are_named_and_the_advice_fits(
    accuracy: float, untrained: float, teacher: float | None, bars: str, advice: str
) -> None:
    """Longer training is no advice where the untrained students are within a margin of the best or of the teacher."""
    evidence = scored(dict.fromkeys(("none", "forward", "reverse"), accuracy), untrained, 0.5, teacher=teacher)
    comparison = compare(evidence)
    said = f"no verdict, as no matched student is surely better than {bars}; {advice}"
    assert said in comparison.headline.line
    assert comparison.verdict == "no verdict"
    written = json.loads(comparison.text("json"))
    assert said in written["headline"]
    assert written["families"][0]["reference"]["above_chance"] is (accuracy > 0.5)
    assert ("longer" in advice) == (written["families"][0]["reference"]["reached"] is None)
    assert said in comparison.text("terminal")


def scored(accuracies: dict[str, float], untrained: float, chance: float, *, teacher: float | None = None) -> Evidence:
    """Return three seeds of each strategy with these accuracies on 1,000 examples."""
    examples, rows = {}, []
    for (name, accuracy), seed in itertools.product(accuracies.items(), range(3)):
        right = (np.arange(1000) < 1000 * accuracy).astype(float)
        examples[name, "random", seed, "dev", "accuracy"] = np.random.default_rng(seed).permutation(right)
        rows.append((name, "random", seed, "dev", "accuracy", accuracy, "sweep"))
    return Evidence(
        [],
        pd.DataFrame(rows, columns=list(SCORE_COLUMNS)),
        examples=examples,
        n_examples={"dev": 1000},
        primary="accuracy",
        untrained={("forward", "random", seed, "dev", "accuracy"): untrained for seed in range(3)},
        teacher={} if teacher is None else {("dev", "accuracy"): teacher},
        chance={("dev", "accuracy"): chance},
    )


def test_a_margin_of_the_whole_scale_is_refused(tmp_path: Path) -> None:
    """One point of a score between 0 and 1 is 0.01."""
    sweep = write_sweep(tmp_path / "sweep", score_rows(SCORES))
    with pytest.raises(InputError, match=r"--score-margin is 1 and the score accuracy is at most 1; one point is 0.01"):
        compare([sweep], score_margin=1.0)
    assert compare([sweep], score_margin=0.5).verdict == "equivalent"


def test_controls_alone_claim_nothing_about_seeds(tmp_path: Path) -> None:
    rows = score_rows({"alone": 0.7, "none": 0.8, "random-teacher": 0.75})
    notes = compare([write_sweep(tmp_path / "sweep", rows)]).notes
    assert not any("shares no seed" in note for note in notes)


@pytest.mark.parametrize(("trained", "told"), [(20.0, True), (400.0, False)])
def test_perplexity_falls_as_a_student_learns(trained: float, told: bool) -> None:
    rng, keys = np.random.default_rng(0), [(name, seed) for name in ("forward", "reverse") for seed in range(3)]
    examples = {(name, "random", seed, "dev", "perplexity"): trained + rng.normal(size=500) for name, seed in keys}
    rows = [(*key, float(one.mean()), "run") for key, one in examples.items()]
    evidence = Evidence(
        [],
        pd.DataFrame(rows, columns=list(SCORE_COLUMNS)),
        examples=examples,
        n_examples={"dev": 500},
        primary="perplexity",
        untrained=dict.fromkeys(examples, 300.0),
    )
    assert compare(evidence, score_margin=150.0).families[0].told is told
