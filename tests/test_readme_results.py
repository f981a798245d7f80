"""The results in the README are those of the files in data/, and no other number stands there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from anglekit.comparison.compare import compare
from anglekit.comparison.evidence import Evidence
from anglekit.results.geometry import Geometry
from anglekit.results.scores import SCORE_COLUMNS, read_score_table
from tests.simulations.run import RESULTS, known_lines

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SECTION = re.search(r"^## Results, and their limits\n(.+?)^##+ ", README, flags=re.MULTILINE | re.DOTALL)
assert SECTION is not None
TEXT = SECTION.group(1)
PROSE = " ".join(re.sub(r"^\|.*$", "", TEXT, flags=re.MULTILINE).split())
#: What was run, which no file of results holds: layers, steps, examples, seeds and the level of intervals.
RUN = {"6-layer", "3-layer", "600 steps", "1,500 validation examples", "95% interval", "seed 2", "seed 0"}


def accuracies(file):
    table, notes = read_score_table(ROOT / "data" / "gallery" / file, "")
    assert not notes
    return table[table["score"] == "accuracy"]


def compared(scores, examples=1500):
    (table,) = scores["data"].unique()
    return compare(Evidence([], scores, n_examples={table: examples}, primary="accuracy"), score_margin=0.01)


@pytest.fixture(scope="module")
def scores():
    return accuracies("inference-scores.csv")


@pytest.fixture(scope="module")
def comparison(scores):
    return compared(scores)


def family(comparison, init):
    return next(one for one in comparison.families if one.init == init)


def sentences(comparison):
    """Return the README's sentences about numbers, from the data."""
    random, teacher = family(comparison, "random"), family(comparison, "teacher")
    assert (random.verdict, teacher.verdict) == ("different", "undecided")
    row, spread = random.key, comparison.spreads[comparison.spreads["init"] == "teacher"].iloc[0]
    power = {
        (line["init"], line["seeds"]): f"{100 * line['rates']['decided']['rate']:.0f}%"
        for line in known_lines(RESULTS)
        if line["study"] == "power"
    }
    return [
        f"{row['strategy_a']} is {100 * row['difference']:.1f} points above {row['strategy_b']}, "
        f"surely {100 * row['joint_low']:.1f} or more",
        "three seeds leave it undecided within a margin of 1 point: strategies spread over "
        f"{100 * spread['spread']:.1f} points, {100 * spread['spread'] / spread['change_over_none']:.0f}% of the "
        f"{100 * spread['change_over_none']:.1f} that matching gains over none",
        f"{teacher.needed['needed_seeds']:.0f} seeds would decide",
        f"three seeds decide in {power['random', 3]} of the cases from random weights and in "
        f"{power['teacher', 3]} from the teacher's, four in {power['random', 4]} and {power['teacher', 4]}",
    ]


def over_none(found, place):
    values = 100 * found.loc[place, ["difference", "low", "high"]].astype(float)
    return f"{values.iloc[0]:+.1f} ({values.iloc[1]:+.1f} to {values.iloc[2]:+.1f})"


@pytest.mark.parametrize(
    ("heading", "file", "examples"),
    [
        ("All of them beside each other", "strategies-scores.csv", 1500),
        ("The same on real reviews", "strategies-reviews-scores.csv", 1000),
    ],
)
def test_the_page_of_all_strategies_holds_their_scores(heading, file, examples):
    comparison = compared(accuracies(file), examples)
    levels = comparison.levels.set_index(["init", "strategy"])["mean"]
    over = comparison.differences[comparison.differences["kind"] == "over none"].set_index(["init", "strategy_a"])
    page = (ROOT / "docs" / "pages" / "strategies.md").read_text(encoding="utf-8")
    part = page.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\S+)` \| (\S+) \| (\S+) \| (.*?) ?\|$", part, re.MULTILINE)
    assert sorted(name for name, *_ in rows) == sorted(levels["teacher"].index)
    for name, random, teacher, gain in rows:
        assert [random, teacher] == [f"{100 * levels[init, name]:.1f}%" for init in ("random", "teacher")]
        assert gain == ("" if name == "none" else over_none(over, ("teacher", name)))
    family_of_copies = family(comparison, "teacher")
    assert family_of_copies.verdict == "undecided"
    key = family_of_copies.key
    said = f"`{key['strategy_a']}` is {100 * key['difference']:.1f} points above `{key['strategy_b']}`"
    assert said in " ".join(part.split())


def test_sixteen_strategies_are_called_different_and_a_seventeenth_leaves_it_open():
    """The margin of 1 point, and the ends of one interval, for the 120 pairs of sixteen that match and for 105."""
    scores = accuracies("strategies-scores.csv")
    for left_out, pairs, begins, verdict in (([], 120, 1.0, "undecided"), (["angle-aware"], 105, 1.3, "different")):
        found = compared(scores[~scores["strategy"].isin(left_out)])
        rows = found.differences[(found.differences["kind"] == "between") & (found.differences["init"] == "teacher")]
        assert len(rows) == pairs
        row = rows.set_index(["strategy_a", "strategy_b"]).loc["pkd-skip", "in-order-random"]
        assert round(100 * row["joint_low"], 1) == begins
        assert family(found, "teacher").verdict == verdict


def test_the_table_is_that_of_the_scores(comparison):
    levels = comparison.levels.set_index(["init", "strategy"])["mean"]
    over = comparison.differences[comparison.differences["kind"] == "over none"].set_index(["init", "strategy_a"])
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in re.findall(r"^\|.*$", TEXT, re.MULTILINE)]
    assert [row[0] for row in rows[2:]] == ["none", "forward", "reverse", "all-to-one", "random"]
    for strategy, *cells in rows[2:]:
        expected = []
        for init in ("random", "teacher"):
            expected.append(f"{100 * levels[init, strategy]:.1f}%")
            if strategy == "none":
                expected.append("")
            else:
                expected.append(over_none(over, (init, strategy)))
        assert cells == expected


def test_the_sentences_are_those_of_the_results_and_hold_all_numbers(comparison):
    left = PROSE
    for known in [*sentences(comparison), *sorted(RUN)]:
        assert known in PROSE
        left = left.replace(known, "")
    assert re.findall(r"\d[\d.,]*%?", re.sub(r"\]\([^)]*\)", "", left)) == []


def test_the_random_map_of_seed_2_is_the_reverse_one(scores):
    by_arm = scores.set_index(["init", "strategy", "seed"])["value"]
    same = {
        seed: all(by_arm[init, "random", seed] == by_arm[init, "reverse", seed] for init in ("random", "teacher"))
        for seed in range(3)
    }
    assert same[2]
    assert not same[0]


def test_the_student_without_matching_sees_the_sharpest_angles():
    geometry = Geometry.load(ROOT / "data" / "gallery" / "inference")
    angles = geometry.angles.groupby("student")["mean_angle_degrees"].mean()
    for init in ("random", "teacher"):
        own = angles[[name for name in angles.index if name.endswith(f"{init}-seed0")]]
        assert len(own) == 5
        assert own.idxmin() == f"none-{init}-seed0"


# ---- a real teacher ----

REVIEWS = ROOT / "data" / "reviews"
REAL_SECTION = re.search(r"^### A real teacher: movie reviews\n(.+?)^## ", README, flags=re.MULTILINE | re.DOTALL)
assert REAL_SECTION is not None
REAL = REAL_SECTION.group(1)
REAL_PROSE = " ".join(re.sub(r"^\|.*$", "", REAL, flags=re.MULTILINE).split())
REAL_RUN = {"of 6 layers", "1,000 validation reviews", "2-layer students", "2,000 sentences", "layer 2"}


@pytest.fixture(scope="module")
def reviews():
    students = pd.read_csv(REVIEWS / "students.csv", keep_default_na=False)
    reference = json.loads((REVIEWS / "reference.json").read_text(encoding="utf-8"))
    correct = pd.read_parquet(REVIEWS / "correct.parquet")
    place = ("reviews", "accuracy")
    scores = students.assign(data="reviews", score="accuracy", value=students["accuracy"], source="sweep")
    keys = list(students[["strategy", "init", "seed"]].itertuples(index=False, name=None))
    return compare(
        Evidence(
            [],
            scores[list(SCORE_COLUMNS)],
            examples={
                (*key, *place): own["correct"].to_numpy(float)
                for key, own in correct.groupby(["strategy", "init", "seed"], observed=True)
            },
            n_examples={"reviews": 1000},
            primary="accuracy",
            teacher={place: reference["teacher"]},
            untrained={(*key, *place): one for key, one in zip(keys, students["untrained_accuracy"], strict=True)},
            chance={place: reference["chance"]},
        )
    )


def points(row, name="difference", low="low", high="high"):
    return f"{100 * row[name] + 0.0:+.1f} ({100 * row[low]:+.1f} to {100 * row[high]:+.1f})".replace("-0.0 (", "+0.0 (")


def test_the_table_of_reviews_is_that_of_the_data(reviews):
    levels = reviews.levels.set_index(["init", "strategy"])["mean"]
    over = reviews.differences[reviews.differences["strategy_b"] == "none"].set_index(["init", "strategy_a"])
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in re.findall(r"^\|.*$", REAL, re.MULTILINE)]
    names = [row[0].partition(" (")[0] for row in rows[2:]]
    assert names == ["alone", "none", "random-teacher", "forward", "reverse", "all-to-one", "random"]
    for name, (_, *cells) in zip(names, rows[2:], strict=True):
        expected = []
        for init in ("random", "teacher"):
            expected += [f"{100 * levels[init, name]:.1f}%", "" if name == "none" else points(over.loc[(init, name)])]
        assert cells == expected


def test_the_sentences_about_reviews_are_those_of_the_data(reviews):
    random, teacher = family(reviews, "random"), family(reviews, "teacher")
    assert (random.told, teacher.told, teacher.verdict) == (False, True, "undecided")
    correct = pd.read_parquet(REVIEWS / "correct.parquet")
    matched = correct[(correct["init"] == "random") & correct["strategy"].isin(["forward", "reverse", "all-to-one"])]
    assert matched.groupby("example")["correct"].nunique().max() == 1  # one answer, whoever gives it
    spread = reviews.spreads[reviews.spreads["init"] == "teacher"].iloc[0]
    control = reviews.controls.set_index(["init", "control"]).loc[("teacher", "random-teacher")]
    angles = pd.read_csv(REVIEWS / "angle-differences.csv").set_index(["init", "vertex", "strategy_a", "strategy_b"])
    wider = angles.loc[("teacher", 2, "forward", "all-to-one")]
    pairs = reviews.differences.set_index(["init", "strategy_a", "strategy_b"])
    assert (wider["verdict"], pairs.loc[("teacher", "forward", "all-to-one"), "verdict"]) == ("different", "equivalent")
    change = f"{100 * spread['change_over_none']:.1f} points ({100 * spread['change_low']:+.1f} to "
    beyond = f"{100 * control['beyond_control']:.1f} points ({100 * control['beyond_control_low']:+.1f} to "
    known = [
        f"{100 * reviews.teacher['accuracy, reviews']:.1f}% of 1,000 validation reviews",
        f"above chance, {100 * random.reference.value:.1f}%",
        f"within a margin of 1 point: the strategies spread over {100 * spread['spread']:.1f} points and surely over "
        f"no more than {100 * spread['spread_high']:.1f}",
        f"changes accuracy by {change}{100 * spread['change_high']:+.1f}) over none",
        f"worth {beyond}{100 * control['beyond_control_high']:+.1f}) more",
        f"all-to-one is {-wider['difference']:.1f} degrees wider than forward "
        f"({-wider['high']:.1f} to {-wider['low']:.1f})",
    ]
    left = REAL_PROSE
    for one in [*known, *sorted(REAL_RUN)]:
        assert one in REAL_PROSE
        left = left.replace(one, "")
    assert re.findall(r"\d[\d.,]*%?", re.sub(r"\]\([^)]*\)", "", left)) == []
