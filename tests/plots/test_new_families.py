"""Numbers of the families about training, cost, controls and chance, against the same by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anglekit.errors import InputError
from anglekit.plots.panels.arm_lines import broken_range
from anglekit.plots.panels.tables import with_places
from anglekit.plots.presentation import display_names
from anglekit.plots.registry import FIGURES, figure_data
from anglekit.results.chance import chance_acute_fraction
from anglekit.results.document import Arm
from anglekit.results.scores import SCORE_COLUMNS
from anglekit.results.training_records import TrainingRecords
from tests.plots.full_geometry import FIVE, full_geometry, score_table, training_records


@pytest.mark.parametrize("lengths", [(1.0, 1.0, 1.0), (2.0, 1.5, 0.4), (1.0, 3.0, 0.2)])
def test_the_chance_of_an_acute_angle_is_that_of_random_directions(lengths) -> None:
    rng, width, draws = np.random.default_rng(0), 48, 20_000
    vectors = rng.normal(size=(3, draws, width))
    units = vectors / np.linalg.norm(vectors, axis=2, keepdims=True)
    a, b, s = units * np.array(lengths)[:, None, None]
    share = (((a - s) * (b - s)).sum(1) > 0).mean()
    one, other, own = (size**2 for size in lengths)
    expected = float(chance_acute_fraction(np.array(own / np.sqrt((one + own) * (other + own))), width))
    assert abs(share - expected) < 4 * np.sqrt(max(share * (1 - share), 1e-4) / draws) + 0.004
    # Of another cosine it is not.
    other = 0.0 if expected > 0.9 else 0.5
    assert abs(share - float(chance_acute_fraction(np.array(other), width))) > 0.05


@given(st.lists(st.floats(0, 1), min_size=1, max_size=5), st.integers(1, 2000))
@settings(max_examples=25)
def test_a_chance_is_a_share_that_rises_with_the_cosine(cosines: list[float], width: int) -> None:
    found = chance_acute_fraction(np.sort(np.array(cosines)), width)
    assert ((found >= 0.5) & (found <= 1.0)).all()
    assert (np.diff(found) >= 0).all()
    assert np.isnan(chance_acute_fraction(np.array([np.nan]), width)).all()


@given(st.lists(st.floats(0, 1), min_size=10, max_size=40))
@settings(max_examples=25)
def test_outliers_are_few_and_far(values: list[float]) -> None:
    known = np.array(values)
    ends = broken_range(known)
    if ends is None:
        return
    low, high = ends
    assert high - low < (known.max() - known.min()) / 3
    assert 0 < ((known < low) | (known > high)).sum() <= min(len(known) // 8, 3) * 2


def test_an_outlier_is_found_and_an_even_spread_has_none() -> None:
    even = np.linspace(0.0, 1.0, 20)
    assert broken_range(even) is None
    assert broken_range(np.append(even, 9.0)) == (0.0, 1.0)
    assert broken_range(np.array([0.0, 9.0])) is None


def taught(geometry, maps):
    """The same geometry, of which it is recorded which teacher layer taught each student layer."""
    students = [{**one, "taught_by": {"encoder": maps}} for one in geometry.provenance["students"]]
    provenance = {**geometry.provenance, "students": students, "teacher": {"depth": {"encoder": 4}}}
    return dataclasses.replace(geometry, provenance=provenance)


def test_layers_stand_beside_the_layer_that_teaches_them_else_by_depth() -> None:
    geometry = full_geometry(("reverse",), ("random",), teacher_layers=5, depth=2)
    rows = pd.DataFrame({"side": "student", "student": geometry.students[0], "stream": "encoder", "layer": [0, 1, 2]})
    teacher = rows.assign(side="teacher", student="", layer=[0, 2, 4])
    table = pd.concat([teacher, rows], ignore_index=True)
    assert with_places(table, geometry)["place"].tolist() == [0, 2, 4, 0, 2, 4]
    assert with_places(table, taught(geometry, {"1": 4, "2": 1}))["place"].tolist() == [0, 2, 4, 0, 4, 1]


def test_the_matched_distance_is_that_of_the_layer_that_teaches() -> None:
    geometry = taught(full_geometry(("forward",), ("random",), teacher_layers=5, depth=2), {"1": 3, "2": 4})
    some = [
        dataclasses.replace(geometry, provenance={**geometry.provenance, "training_step": step}) for step in (0, 50)
    ]
    data = figure_data("matching-distance", some)
    layers = geometry.layers[(geometry.layers["side_a"] == "teacher") & (geometry.layers["side_b"] == "student")]
    by_pair = layers.set_index(["layer_a", "layer_b"])["mean_distance"]
    for row in data.itertuples():
        beside = {0: 0, 1: 3, 2: 4}[row.vertex]
        assert (row.teacher_layer, row.taught) == (beside, row.vertex > 0)
        assert row.mean_distance == by_pair[beside, row.vertex]
    assert set(data["step"]) == {0, 50}


def test_a_gain_is_taken_apart_seed_by_seed() -> None:
    values = {"alone": (0.50, 0.52), "none": (0.60, 0.60), "random-teacher": (0.63, 0.61), "forward": (0.70, 0.72)}
    rows = [
        (strategy, "random", seed, "dev", "accuracy", value, "made")
        for strategy, own in values.items()
        for seed, value in enumerate(own)
    ]
    table = pd.DataFrame(rows, columns=list(SCORE_COLUMNS))
    data = figure_data("control-gain", [], scores=[table]).set_index("part")
    np.testing.assert_allclose(data["difference"], [0.09, 0.02, 0.09])
    np.testing.assert_allclose(data["share_percent"], [45.0, 10.0, 45.0])
    np.testing.assert_allclose(data["share_percent"].sum(), 100.0)
    # Two paired differences, d and d': half an interval is t(0.975, 1 df) |d - d'| / 2.
    half = 12.7062047 * np.array([0.02, 0.02, 0.04]) / 2
    np.testing.assert_allclose(data["high"] - data["difference"], half, rtol=1e-6)
    perplexity = table.assign(score="perplexity", value=10.0 - table["value"])
    falling = figure_data("control-gain", [], scores=[perplexity])
    np.testing.assert_allclose(falling["difference"], data["difference"])


def test_a_score_is_put_beside_its_cost() -> None:
    data = figure_data("score-cost", [], scores=[score_table()], records=[training_records()])
    teacher, own = data[data["strategy"] == "teacher"], data[data["strategy"] != "teacher"]
    assert (teacher["value"].tolist(), teacher["parameters_percent"].tolist()) == ([0.9], [100.0])
    assert len(own) == 2 * len(FIVE)
    assert set(own["parameters_percent"]) == {25.0}
    np.testing.assert_allclose(own["speed_up"], 4.0)
    np.testing.assert_allclose(own["kept_percent"], 100 * own["value"] / 0.9)
    assert (own["low"] < own["value"]).all()
    # Students of one size have one speed, however busy the machine was in a run.
    kept = training_records()
    busy = kept.costs["strategy"].eq("forward") & kept.costs["model"].eq("student")
    slow = kept.costs.assign(milliseconds=kept.costs["milliseconds"].where(~busy, 3 * kept.costs["milliseconds"]))
    noisy = figure_data("score-cost", [], scores=[score_table()], records=[dataclasses.replace(kept, costs=slow)])
    assert noisy.loc[noisy["strategy"] != "teacher", "speed_up"].unique().tolist() == [4.0]
    facts = FIGURES["score-cost"].facts(data)
    assert "25% of its parameters and 4.0 times as fast" in facts
    with pytest.raises(InputError, match=r"earlier anglekit.*train again"):
        figure_data("score-cost", [], scores=[score_table()], records=[TrainingRecords()])


def test_learning_curves_hold_each_seed_and_the_teacher_s_score() -> None:
    data = figure_data("learning-curves", [], scores=[score_table()], records=[training_records()])
    assert list(dict.fromkeys(data["kind"])) == ["validation", "loss"]
    assert data[data["kind"] == "validation"]["teacher"].unique().tolist() == [0.9]
    assert data[data["kind"] == "loss"]["teacher"].isna().all()
    assert not data.duplicated(["name", "init", "strategy", "seed", "step"]).any()
    only = figure_data("learning-curves", [], scores=[score_table()], records=[training_records()], value="hidden")
    assert set(only["name"]) == {"hidden"}


def test_a_score_that_still_improves_is_told_where_it_has_several_steps() -> None:
    data = figure_data("learning-curves", [], scores=[score_table()], records=[training_records()])
    facts = FIGURES["learning-curves"].facts
    scores = data[data["kind"] == "validation"]
    students = scores.groupby(["init", "strategy", "seed"]).ngroups
    last = scores["step"].max()
    rising = data.assign(value=data["value"].where(data["kind"] != "validation", data["step"].astype(float)))
    who = f"{students} of {students} students"
    assert f"still improving for {who}: longer training may change what is told apart." in facts(rising)
    flat = data.assign(value=data["value"].where(data["kind"] != "validation", 0.5))
    assert facts(flat).endswith(f"At its last step accuracy was still improving for 0 of {students} students.")
    single = data[(data["kind"] != "validation") | (data["step"] == last)]
    assert "improving" not in facts(single)


def test_the_chance_of_a_similarity_stands_beside_it() -> None:
    geometry = full_geometry(("forward",), ("random",), teacher_layers=5, depth=2)
    data = figure_data("similarity-chance", [geometry])
    assert data["teacher_layer"].tolist() == [0, 2, 4]
    assert (data["chance"] == 0.0).all()
    np.testing.assert_allclose(data["cka"], [1.0, 1 / 2, 1 / 3])
    assert (data["low"] < data["cka"]).all()


def test_names_say_once_how_a_student_was_trained() -> None:
    arms = {"forward-random-seed0": Arm("forward", "random", 0), "mine": Arm("forward", "teacher", 0)}
    assert display_names(arms, [], {}) == {"forward-random-seed0": "forward, random init"}
    more = arms | {"forward-random-seed1": Arm("forward", "random", 1)}
    assert display_names(more, [], {"forward": "in order", "mine": "ours"}) == {
        "forward-random-seed0": "in order, random init, seed 0",
        "forward-random-seed1": "in order, random init, seed 1",
        "forward": "in order",
        "mine": "ours",
    }
    with pytest.raises(InputError, match=r"no student or strategy 'forwrd'.*did you mean 'forward'"):
        display_names(arms, [], {"forwrd": "x"})
