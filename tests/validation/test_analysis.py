"""The analysis of the validation on tables whose truth is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from anglekit.advice.evidence import MATTERS, evidence
from tests.validation import analysis, report
from tests.validation.analysis import (
    correlation,
    learnt,
    left_out,
    noise_spread,
    predicts_choice,
    predicts_number,
    regrets,
    targets,
)
from tests.validation.sweeps import COMMONEST, TASKS, conditions


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    monkeypatch.setattr(analysis, "BOOTSTRAPS", 200)
    monkeypatch.setattr(analysis, "PERMUTATIONS", 400)


def test_the_protocol_has_its_48_sweeps():
    made = conditions()
    assert len(made) == len({each.name for each in made}) == 48
    assert {each.task for each in made} == set(TASKS)


def test_targets_are_those_of_the_protocol():
    scores = pd.DataFrame(
        [
            ("a-1", strategy, seed, score + seed * 0.1)
            for strategy, score in (
                ("none", 0.1),
                ("forward", 0.5),
                ("reverse", 0.3),
                ("all-to-one", 0.4),
                ("random", 0.2),
                ("depth-1", 0.9),
            )
            for seed in (0, 1)
        ],
        columns=["condition", "strategy", "seed", "score"],
    )
    found = targets(scores).iloc[0]
    assert found["task"] == "a"
    assert found["spread"] == pytest.approx(0.3)
    assert found["gain"] == pytest.approx(0.25)
    # Two seeds 0.1 apart have a standard deviation of 0.0707, their mean one of 0.05.
    assert noise_spread(scores)["a-1"] == pytest.approx(2.0588 * 0.05)


def test_correlations_are_spearmans():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=9), rng.integers(0, 4, 9).astype(float)
    assert correlation(x, y) == pytest.approx(spearmanr(x, y).statistic)
    assert correlation(x, np.zeros(9)) == 0.0


def test_the_sign_comes_from_the_other_tasks():
    np.testing.assert_allclose(left_out(np.array([-0.9, -0.8, -0.7])), [0.9, 0.8, 0.7])
    # A task that goes the other way counts against the predictor, and turns none of its own.
    np.testing.assert_allclose(left_out(np.array([0.9, 0.8, -0.6])), [0.9, 0.8, -0.6])


def test_a_number_that_foretells_is_found_and_one_that_does_not_is_not():
    rng = np.random.default_rng(1)
    y = {task: rng.normal(size=10) for task in "abcde"}
    good = {task: -values + rng.normal(size=10) * 0.3 for task, values in y.items()}
    bad = {task: rng.normal(size=10) for task in y}
    found, other = (predicts_number(x, y, np.random.default_rng(2)) for x in (good, bad))
    assert found.value > 0.7
    assert found.low > 0.3
    assert found.p < 0.01
    assert other.low < 0.0 < other.high
    assert other.p > 0.05


def test_chance_alone_is_called_a_predictor_in_one_of_twenty():
    rng = np.random.default_rng(3)
    p = [predicts_number(*({task: rng.normal(size=6) for task in "abc"} for _ in range(2)), rng).p for _ in range(60)]
    assert np.mean(np.array(p) < 0.05) <= 0.15
    assert np.mean(p) == pytest.approx(0.5, abs=0.13)


def test_choices_are_judged_by_what_they_lose():
    scored = pd.Series({"forward": 0.7, "reverse": 0.9, "random": 0.6})
    assert regrets(scored, pd.Series({"forward": 1.0, "reverse": 3.0, "random": 2.0})) == 0.0
    # Of two in the first place, the mean.
    assert regrets(scored, pd.Series({"forward": 3.0, "reverse": 3.0, "random": 2.0})) == pytest.approx(0.1)
    rng = np.random.default_rng(4)
    better = predicts_choice({task: 0.02 + rng.normal(size=10) * 0.01 for task in "abcd"}, rng)
    assert better.value == pytest.approx(0.02, abs=0.006)
    assert better.low > 0.0
    assert better.p < 0.01
    worse = predicts_choice({task: -0.02 + rng.normal(size=10) * 0.01 for task in "abcd"}, rng)
    assert worse.high < 0.0
    assert worse.p > 0.9


@pytest.fixture(scope="module")
def saved():
    return {name: pd.read_csv(report.DATA / f"{name}.csv") for name in ("scores", "sweeps", "results", "choices")}


class TestTheSavedResults:
    """What is in the repository follows from the raw scores."""

    def test_every_sweep_is_there_with_all_its_students(self, saved):
        assert set(saved["sweeps"]["condition"]) == {each.name for each in conditions()}
        assert (saved["scores"].groupby("condition").size() == 14).all()
        own = report.sweeps_table(saved["scores"])
        pd.testing.assert_frame_equal(own, saved["sweeps"], rtol=1e-4, check_like=True, check_dtype=False)

    def test_sweeps_that_learnt_nothing_are_told(self, saved):
        found = targets(saved["scores"])
        without = found.loc[~learnt(found, COMMONEST), "condition"]
        assert without.tolist() == ["inference-3-random-4096-mse"]
        assert not pd.read_csv(report.DATA / "results-learnt.csv")["predicts"].any()

    def test_regrets_follow(self, saved):
        lost = analysis.choice_regrets(targets(saved["scores"]), saved["choices"], "best strategy")
        by_task = lost.pivot_table(index=["task", "condition"], columns="predictor", values="regret")
        gain = (by_task["default"] - by_task["CKA"]).groupby("task").mean().mean()
        row = saved["results"].query("target == 'best strategy' and predictor == 'CKA'").iloc[0]
        assert row["value"] == pytest.approx(gain, abs=1e-4)

    def test_the_advice_rests_on_them(self, saved):
        sweeps = saved["sweeps"]
        known = evidence()
        assert known.spread.large == int((sweeps["spread"] > MATTERS).sum())
        assert known.gain_above_0 == (int((sweeps["gain"] > 0).sum()), 48)
        predicted = saved["results"][saved["results"]["predicts"]]
        assert (known.spread.rule is None) == (not (predicted["target"] == "spread").any())
        assert set(known.choices) == set(predicted["target"]) & set(analysis.DEFAULT)

    def test_the_page_shows_them(self, saved):
        page = (report.DATA / "README.md").read_text(encoding="utf-8")
        for target in report.TITLES:
            assert report.markdown(saved["results"], target) in page
        sweeps = saved["sweeps"]
        assert f"in {int((sweeps['spread'] > MATTERS).sum())} of 48 sweeps" in page
        assert f"helped in {int((sweeps['gain'] > 0).sum())} of 48 sweeps" in page
        assert f"in {int((sweeps['spread'] > sweeps['noise_spread']).sum())} of 48 the spread is above" in page
        assert not saved["results"]["predicts"].any()
        assert "nothing foretold anything" in page
