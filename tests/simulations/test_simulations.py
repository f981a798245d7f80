"""The simulations draw what they say, ask what `compare` asks, count rightly, and notice a rate that is wrong."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from anglekit.comparison.compare import compare
from anglekit.comparison.evidence import Evidence
from anglekit.results.scores import SCORE_COLUMNS
from tests.simulations import angles, chance, corpus, run, scores
from tests.simulations.harness import AT_MOST_5, Case, failures, label, measured, read_lines, table
from tests.simulations.product import STRATEGIES, about, angle_cell, answer, outcomes, score_cell


def drawn(share: float, bound: tuple[float, float] = AT_MOST_5) -> Case:
    """A case whose outcome is right so often."""
    return Case(
        study="coin",
        parameters={"share": share},
        outcomes=lambda runs, rng: {"heads": rng.random(runs) < share, "never": np.full(runs, np.nan)},
        bounds={"heads": bound},
    )


def test_a_rate_has_its_binomial_error_and_the_runs_that_it_is_of():
    line = measured(drawn(0.2, (0.0, 1.0)), 4000)
    rate = line["rates"]["heads"]
    assert abs(rate["rate"] - 0.2) < 0.03
    assert_allclose(rate["error"], math.sqrt(0.16 / 4000), rtol=0.1)
    assert (rate["of"], line["rates"]["never"]) == (4000, {"rate": None, "error": None, "of": 0})
    assert measured(drawn(0.0), 1000)["rates"]["heads"]["error"] > 0


def test_the_error_of_shares_is_that_of_their_mean():
    shares = np.tile([0.0, 0.5, 1.0, 0.5], 100)
    case = Case(study="share", parameters={}, outcomes=lambda runs, rng: {"share": shares[:runs]})
    assert_allclose(measured(case, 400)["rates"]["share"]["error"], shares.std(ddof=1) / 20, atol=1e-4)


def test_the_same_seed_gives_the_same_rates_and_another_others():
    first, again, other = (measured(drawn(0.3), 200, seed)["rates"] for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_a_rate_outside_its_bounds_is_a_failure_and_one_within_is_not():
    wrong, right = measured(drawn(0.2), 1000), measured(drawn(0.04), 1000)
    assert failures([right]) == []
    (failure,) = failures([wrong, right])
    assert failure.startswith("coin share=0.2: heads")
    assert failure.endswith("allowed 0% to 5%")
    # Coverage may be too high as well as too low.
    assert failures([measured(drawn(1.0, (0.93, 0.97)), 1000)])


def test_bounds_of_an_outcome_that_does_not_come_are_an_error():
    case = Case(
        study="coin", parameters={}, outcomes=lambda runs, rng: {"heads": np.ones(runs)}, bounds={"tails": (0, 1)}
    )
    with pytest.raises(ValueError, match="tails"):
        measured(case, 3)


def test_a_table_has_the_range_of_each_rate_and_marks_what_is_outside():
    lines = [measured(drawn(0.2), 1000), measured(drawn(0.3, (0.0, 1.0)), 1000)]
    for line in lines:
        line["kind"] = "a"
    rates = sorted(100 * line["rates"]["heads"]["rate"] for line in lines)
    assert table(lines, ["kind"]).splitlines()[2] == f"| a | 2 | 1,000 | **{rates[0]:.1f} to {rates[1]:.1f}** |  |"
    assert table(lines[1:], ["kind"]).splitlines()[2] == f"| a | 1 | 1,000 | {rates[1]:.1f} |  |"


def test_of_a_case_measured_twice_the_later_line_counts():
    lines = [json.dumps({"study": "a", "seeds": 2, "runs": runs, "seconds": 1.0, "rates": {}}) for runs in (10, 1000)]
    assert [line["runs"] for line in read_lines("\n".join(lines))] == [1000]


@pytest.mark.parametrize("seed_sd", [0.0005, 0.05])
def test_accuracies_over_the_population_are_those_asked_for(seed_sd):
    population = scores.Population(accuracies=(0.8, 0.85, 0.9), seeds=2000, examples=400, seed_sd=seed_sd)
    right, on_table, _ = population.draw(np.random.default_rng(0))
    means = right.mean((1, 2))
    # On the same examples only the 2,000 seeds err, by 0.0011 at most, and answers by 0.0006.
    assert np.abs(means - on_table).max() < 0.006
    # 400 examples and 2,000 seeds: an error of 0.02 and less.
    assert np.abs(means - population.accuracies).max() < 0.05
    assert np.abs(np.diff(means) - 0.05).max() < 0.03
    by_seed = right.mean(2)
    assert by_seed[1].std() == pytest.approx(math.hypot(seed_sd, population.shared_sd), abs=0.012)


def test_accuracies_of_these_students_are_those_asked_for():
    population = scores.Population(
        accuracies=(0.8, 0.85, 0.9), seeds=2, examples=40_000, seed_sd=0.05, about="these students"
    )
    means = population.draw(np.random.default_rng(2))[0].mean((1, 2))
    assert np.abs(means - population.accuracies).max() < 0.01


def test_bleu_over_the_population_is_that_asked_for():
    students = corpus.BleuStudents(targets=(35.0, 40.0, 43.0), seeds=4, examples=20_000, seed_sd=0.02)
    values, _ = students.draw(np.random.default_rng(6))
    # An error of 0.2 from the examples, and of 0.3 from the seeds.
    assert np.abs(values.mean((1, 2)) - students.targets).max() < 1.0
    assert np.abs(np.diff(values.mean((1, 2))) - [5.0, 3.0]).max() < 1.0


def test_bleu_of_these_students_is_their_own():
    students = corpus.BleuStudents(targets=(35.0, 40.0, 40.0), seeds=1, examples=40_000, seed_sd=0.2)
    values, own = students.draw(np.random.default_rng(7))
    assert np.abs(values.mean((1, 2)) - list(own.values())).max() < 0.5
    assert np.abs(np.array([*own.values()]) - students.targets).max() > 0.5


def test_macro_f1_over_the_population_is_that_stated():
    accuracies = scores.Population(accuracies=(0.7, 0.85, 0.9), seeds=40, examples=10_000, seed_sd=0.02)
    students = corpus.ClassStudents(accuracies=accuracies)
    truth = np.array([*students.truth().values()])
    assert np.abs(students.draw(np.random.default_rng(8)).mean((1, 2)) - truth).max() < 0.02
    assert np.abs(truth - accuracies.accuracies).min() > 0.03


@pytest.mark.parametrize("noise", list(angles.NOISE))
@pytest.mark.parametrize("about", ["strategies", "these students"])
def test_angles_over_the_tokens_of_the_population_are_those_stated(about, noise):
    seeds = 3 if about == "these students" else 100
    population = angles.Population(
        degrees=(55.0, 60.0, 62.0), seeds=seeds, examples=5000, seed_sd=1.0, noise=noise, about=about
    )
    values, tokens = population.draw(np.random.default_rng(3))
    # An error of 0.05 degrees from the examples, of 0.1 from 100 seeds.
    assert np.abs((values @ tokens / tokens.sum()).mean(1) - population.degrees).max() < (0.15 if seeds == 3 else 0.5)
    plain = values.mean((1, 2)) - population.degrees
    assert np.ptp(plain) > 0.4  # the plain mean is another quantity


@pytest.mark.parametrize(("truth", "largest", "at"), [("equal", 0.0, 6), ("margin", 0.02, 1), ("groups", 0.02, 4)])
def test_the_largest_difference_is_where_the_case_says(truth, largest, at):
    matching = scores.accuracies(truth, 4, 0.02)
    differences = [abs(a - b) for a, b in itertools.combinations(matching, 2)]
    assert max(differences) == pytest.approx(largest)
    assert sum(difference == pytest.approx(largest) for difference in differences) == at


@pytest.mark.parametrize("per_example", [True, False])
def test_the_answer_is_the_one_that_compare_gives(per_example):
    drawn_students = scores.Population(accuracies=(0.8, 0.85, 0.9), seeds=3, examples=50, seed_sd=0.02)
    values, *_ = drawn_students.draw(np.random.default_rng(4))
    found = answer(score_cell(values, per_example=per_example), 0.01, needed=True)
    keys = {
        (k, s): (STRATEGIES[3][k], "random", s, "validation", "accuracy")
        for k, s in itertools.product(range(3), range(3))
    }
    table_of_all = pd.DataFrame(
        [(*key, values[place].mean(), "sweep") for place, key in keys.items()], columns=list(SCORE_COLUMNS)
    )
    examples = {key: values[place] for place, key in keys.items()} if per_example else {}
    said = compare(
        Evidence([], table_of_all, examples=examples, n_examples={"validation": 50}, primary="accuracy"),
        score_margin=0.01,
    )
    assert said.families[0].verdict == found.family.verdict
    assert said.families[0].about == about(3) == "strategies"
    columns = [
        "difference", "low", "high", "test_low", "test_high", "joint_low", "joint_high", "needed_seeds"
    ]  # fmt: skip
    rows = pd.DataFrame([*found.between, *found.over_none])
    assert len(rows) == 4
    assert_allclose(rows[columns].astype(float), said.differences[columns].astype(float), rtol=1e-12)
    means = said.levels[["mean", "low", "high"]]
    assert_allclose(pd.DataFrame(found.means)[["mean", "low", "high"]].astype(float), means.astype(float), rtol=1e-12)


def test_a_wrong_truth_is_noticed():
    values = scores.Population(
        accuracies=(0.7, 0.85, 0.85), seeds=5, examples=2000, seed_sd=0.001, interaction_sd=0.0
    ).draw(np.random.default_rng(5))[0]
    found = answer(score_cell(values), 0.05)
    right = outcomes(found, {"none": 0.7, "forward": 0.85, "reverse": 0.85}, 0.05)
    wrong = outcomes(found, {"none": 0.7, "forward": 0.95, "reverse": 0.85}, 0.05)
    assert right["coverage"] == right["spread covered"] == 1.0
    assert wrong["coverage"] == wrong["all pairs at once"] == 0.0
    assert wrong["false equivalent"] == right["decided"] == 1.0
    assert right["false different"] == 0.0
    assert math.isnan(wrong["false different"])
    apart = answer(score_cell(np.stack([values[0], values[1], 1 - values[2]])), 0.05)
    assert outcomes(apart, {"none": 0.7, "forward": 0.85, "reverse": 0.85}, 0.05)["false different"] == 1.0


def test_an_angle_cell_weighs_examples_by_their_tokens():
    degrees, tokens = np.array([[[50.0, 50.0]], [[60.0, 80.0]], [[60.0, 60.0]]]), np.array([3.0, 1.0])
    (row,) = answer(angle_cell(degrees, tokens), 2.0).between
    assert row["difference"] == pytest.approx(5.0)


def test_a_tie_is_found_and_its_absence_is_what_is_drawn_without_one():
    rng = np.random.default_rng(6)
    none = chance.simulated("gauss", 0.0, 10, 60, rng)
    assert none["false_sure"].mean() <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 60)
    assert none["one_by_one"].mean() > 0.5
    tied = chance.simulated("gauss", 3.0, 40, 5, rng)
    assert tied["sure_pairs"].mean() > none["sure_pairs"].mean() + 0.1


@pytest.mark.parametrize("study", list(run.STUDIES))
def test_every_study_runs_and_its_cases_have_names_of_their_own(study, tmp_path, capsys):
    cases = [case for case in run.all_cases() if case.study == study]
    assert len({case.name for case in cases}) == len(cases) > 0
    for case in (cases[0], cases[-1]):
        line = measured(case, 2)
        assert label(json.loads(json.dumps(line))) == case.name
        assert set(case.bounds) <= set(line["rates"])
        assert all(key in line for key in run.STUDIES[study][0])


def test_a_run_writes_its_lines_and_does_not_repeat_them(tmp_path, capsys):
    out = tmp_path / "lines.jsonl"
    name = "scores seeds=3 examples=100 strategies=2 seed_sd=0.05"
    run.main([name, "--runs", "3", "--out", str(out)])
    text = out.read_text()
    assert len(read_lines(text)) == 1
    assert "| 3 | 100 | 2 | 1 | 3 |" in capsys.readouterr().out
    run.main([name, "--runs", "2", "--out", str(out)])
    assert out.read_text() == text
    run.main([name, "--runs", "4", "--out", str(out)])
    assert [line["runs"] for line in read_lines(out.read_text())] == [4]


def test_the_page_shows_the_results_that_are_kept_and_they_are_of_the_cells_of_today():
    lines = run.known_lines(run.RESULTS)
    assert (run.HERE / "README.md").read_text(encoding="utf-8") == run.page(lines, run.known_lines(run.BEFORE))
    names = [case.name for case in run.all_cases()]
    assert [label(line) for line in lines] == [name for name in names if name in {label(line) for line in lines}]


def test_another_rate_makes_another_page():
    line = {"study": "power", "init": "random", "seeds": 3, **measured(drawn(0.2), 10)} | {"study": "power"}
    changed = {**line, "rates": {"heads": {"rate": 0.123, "error": 0.01, "of": 9}}}
    assert "| random | 3 | 1 | 10 | 12.3 |" in run.page([changed], [])
    assert run.page([changed], []) != run.page([line], [])
    assert run.INTRODUCTION in run.page([], [])
