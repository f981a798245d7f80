"""What one Geometry says about its angles and chance."""

from __future__ import annotations

import numpy as np
import pytest

from tests.comparison.compare_corpus import make_geometry


def with_nulls(low: float, high: float):
    geometry = make_geometry({"forward": 70.0})
    pairs = geometry.angles[["student", "stream", "vertex", "teacher_i", "teacher_k", "n_tokens"]]
    nulls = pairs.assign(
        null="permuted-student", mean_cosine=0.5, se=0.01, observed_cosine=0.34, observed_minus_null=(low + high) / 2,
        low=low, high=high, mean_tangential_cosine=0.0, p_adjusted=0.5, joint_low=low, joint_high=high,
    )  # fmt: skip
    object.__setattr__(geometry, "nulls", nulls)
    return geometry


@pytest.mark.parametrize(
    ("low", "high", "standing"), [(0.1, 0.2, "narrower"), (-0.2, -0.1, "wider"), (-0.1, 0.1, "unresolved")]
)
def test_the_side_of_chance_is_that_of_nearly_all_pairs(low, high, standing):
    verdict = with_nulls(low, high).against_chance()
    assert verdict.standing == standing
    assert "12 pairs" in verdict.sentence


def test_pairs_on_both_sides_are_mixed_and_without_nulls_the_closed_form_is_chance():
    geometry = with_nulls(0.1, 0.2)
    half = len(geometry.nulls) // 2
    geometry.nulls.loc[: half - 1, ["joint_low", "joint_high"]] = (-0.2, -0.1)
    assert geometry.against_chance().standing == "mixed"
    bare = make_geometry({"forward": 70.0})
    verdict = bare.against_chance()
    assert verdict.standing == "wider"
    assert "unrelated vectors" in verdict.sentence


def test_a_geometry_without_an_angle_says_so():
    geometry = make_geometry({"forward": 70.0})
    geometry.angles[["mean_cosine", "mean_angle_degrees"]] = np.nan
    geometry.angles["n_tokens"] = 0
    assert geometry.against_chance().standing == "unknown"


@pytest.mark.parametrize(
    ("surely", "standing"),
    [
        (0, "unresolved"),
        (1, "unresolved"),
        (2, "mixed"),
        (8, "mixed"),
        (10, "mixed"),
        (11, "narrower"),
        (12, "narrower"),
    ],
)
def test_nearly_all_is_nine_of_ten(surely, standing):
    """Of twelve pairs some are surely narrower than by chance, and the rest cannot be told from it."""
    geometry = with_nulls(-0.1, 0.1)
    geometry.nulls.loc[: surely - 1, "joint_low"] = 0.05
    assert geometry.against_chance().standing == standing
    # Seen from the other side the same shares make the angles wider.
    geometry.nulls[["joint_low", "joint_high"]] = -geometry.nulls[["joint_high", "joint_low"]]
    assert geometry.against_chance().standing == standing.replace("narrower", "wider")


def test_the_sentence_says_that_it_holds_for_all_pairs_and_the_reasons_how():
    geometry = with_nulls(0.1, 0.2)
    verdict = geometry.against_chance()
    assert "12 are surely narrower than with mismatched text (the student's state of another example) (95% for all" in (
        verdict.sentence
    )
    assert (
        "of 12 pairs of teacher layers (each pair counts at every layer of every student), 12 are" in verdict.sentence
    )
    assert verdict.null == "mismatched text"
    assert any("permutation test" in reason for reason in verdict.reasons)
    # A Geometry of an earlier version: the same rows, each with its own interval alone.
    geometry.nulls[["p_adjusted", "joint_low", "joint_high"]] = np.nan
    old = geometry.against_chance()
    assert old.standing == "narrower"
    assert any("Bonferroni" in reason for reason in old.reasons)
    geometry.nulls["low"] = 0.01
    geometry.nulls["high"] = 0.2
    assert geometry.against_chance().standing == "unresolved"


def test_pairs_are_counted_for_the_whole_table_and_shown_by_layer():
    geometry = with_nulls(0.1, 0.2)
    geometry.nulls.loc[0, ["joint_low", "joint_high"]] = (-0.2, -0.1)
    rows = geometry.summary_rows()
    assert [row["pairs_above_permuted"] for row in rows] == [5, 6]
    assert [row["pairs_below_permuted"] for row in rows] == [1, 0]
