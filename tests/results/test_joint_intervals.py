"""Intervals for a whole table: those of old tables are widened, a table's own are kept, and both keep their promise."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from anglekit.results.joint_intervals import (
    closed_form_sides,
    cluster_counts,
    holds_permutation_test,
    with_joint_intervals,
)


def old_table(rows=63, n=100, null="permuted-student", freedom=None):
    """A table of a null as earlier versions wrote it: each row with its own 95% interval."""
    rng = np.random.default_rng(0)
    freedom = n - 1 if freedom is None else freedom
    error = rng.uniform(0.01, 0.02, rows)
    difference = error * stats.t.rvs(freedom, size=rows, random_state=rng)
    reach = stats.t.ppf(0.975, freedom) * error
    return pd.DataFrame(
        {"null": null, "n_tokens": n, "observed_minus_null": difference, "low": difference - reach,
         "high": difference + reach, "p_adjusted": np.nan, "joint_low": np.nan, "joint_high": np.nan, "error": error}
    )  # fmt: skip


@pytest.mark.parametrize(
    ("null", "freedom"), [("permuted-student", 97 / 3), ("permuted-all", 93 / 7), ("gaussian-norm", 99)]
)
def test_rows_of_an_old_table_get_bonferronis_interval(null, freedom):
    table = old_table(null=null, freedom=freedom)
    found = with_joint_intervals(table)
    reach = stats.t.ppf(1 - 0.025 / 63, freedom) * table["error"]
    np.testing.assert_allclose(found["joint_low"], table["observed_minus_null"] - reach, atol=1e-9)
    np.testing.assert_allclose(found["joint_high"], table["observed_minus_null"] + reach, atol=1e-9)
    assert not holds_permutation_test(table)
    assert table["joint_low"].isna().all()  # what was given is left as it was


def test_of_63_rows_without_a_difference_one_is_sure_in_few_tables_and_was_in_most():
    wrong, before = 0, 0
    rng = np.random.default_rng(1)
    for _ in range(200):
        table = old_table()
        drawn = table["error"] * stats.t.rvs(97 / 3, size=63, random_state=rng)
        reach = stats.t.ppf(0.975, 97 / 3) * table["error"]
        table = table.assign(low=drawn - reach, high=drawn + reach)
        found = with_joint_intervals(table)
        wrong += bool(((found["joint_low"] > 0) | (found["joint_high"] < 0)).any())
        before += bool(((table["low"] > 0) | (table["high"] < 0)).any())
    assert wrong <= 0.05 * 200 + 3 * np.sqrt(0.05 * 0.95 * 200)
    assert before > 0.9 * 200


def test_families_are_of_one_null_and_of_the_rows_that_have_an_interval():
    table = pd.concat([old_table(3), old_table(1, null="origin"), old_table(2).assign(low=np.nan, high=np.nan)])
    found = with_joint_intervals(table.reset_index(drop=True))
    wider = (found["joint_high"] - found["joint_low"]) / (found["high"] - found["low"])
    assert wider[3] == pytest.approx(1.0)
    expected = stats.t.ppf(1 - 0.025 / 3, 97 / 3) / stats.t.ppf(0.975, 97 / 3)
    np.testing.assert_allclose(wider[:3], expected)
    assert wider[4:].isna().all()


def test_a_table_that_has_them_keeps_its_own():
    table = old_table().assign(joint_low=-0.3, joint_high=0.4, p_adjusted=0.7)
    assert with_joint_intervals(table) is table
    assert holds_permutation_test(table)
    assert len(with_joint_intervals(old_table(0))) == 0


def test_nothing_below_the_states_precision_is_sure():
    """Fresh and own student alike but for rounding: each row's own interval leaves 0 out, and that is not enough."""
    table = old_table(4).assign(low=1e-17, high=3e-17)
    found = with_joint_intervals(table)
    assert (found["joint_low"] < 0).all()
    assert (found["joint_high"] > 0).all()


def angles(**columns):
    defaults = {"mean_cosine": 0.5, "null_cosine": 0.4, "se_cosine": 0.03, "n_tokens": 100, "n_examples": 30}
    return pd.DataFrame({**defaults, "n_clusters": np.nan, **columns}, index=range(10))


def test_the_closed_form_is_compared_by_t_for_all_rows_together():
    """0.1 is 3.3 errors: enough for one row, and for ten with thirty examples, not for ten with twelve."""
    reach = [stats.t.ppf(1 - 0.025 / 10, n - 1) * 0.03 for n in (30, 12)]
    assert reach[0] < 0.1 < reach[1]
    above, below = closed_form_sides(angles())
    assert above.all()
    assert not below.any()
    assert not closed_form_sides(angles(n_clusters=12.0))[0].any()
    assert closed_form_sides(angles(mean_cosine=0.3))[1].all()
    assert not closed_form_sides(angles(n_tokens=0))[0].any()
    assert not closed_form_sides(angles(mean_cosine=0.4 + 1e-9, se_cosine=0.0))[0].any()


def test_clusters_of_old_tables_are_their_examples():
    assert cluster_counts(angles()).tolist() == [30.0] * 10
    assert cluster_counts(angles(n_clusters=[5.0, np.nan] * 5)).tolist() == [5.0, 30.0] * 5
