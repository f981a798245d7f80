"""What is compared with what: cells of angles and scores, the order of their strategies and seeds."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from anglekit.comparison.cells import Cell, angle_cells, in_order, score_cells
from anglekit.comparison.statistics import level_rows
from anglekit.errors import InputError
from anglekit.results.geometry import Geometry
from tests.comparison.compare_corpus import make_geometry


def cell_of(*arms):
    students = {arm: np.array([float(number)]) for number, arm in enumerate(arms)}
    return Cell("score", "random", {"data": "dev", "score": "accuracy"}, students, dict.fromkeys(arms, np.ones(1)))


def test_seeds_are_those_that_all_have_in_the_order_of_their_numbers() -> None:
    seeds = (900, 16, 3, 1000, 8)
    cell = cell_of(*(("forward", seed) for seed in seeds), *(("reverse", seed) for seed in (1000, 3, 900, 5)))
    assert cell.seeds(["forward"]) == sorted(seeds)
    assert cell.seeds(["forward", "reverse"]) == [3, 900, 1000]
    assert cell.seeds([]) == []
    values, weights = cell.stack(["reverse", "forward"], [3, 900])  # noqa: PD013 - not a frame's
    assert values.tolist() == [[[6.0], [7.0]], [[2.0], [0.0]]]
    assert weights.shape == values.shape
    assert cell_of(("forward", None), ("forward", 7)).seeds(["forward"]) == [None, 7]


def test_controls_stand_beside_none_and_match_nothing() -> None:
    assert in_order(["forward", "mine", "random-teacher", "none", "alone"]) == [
        *("alone", "none", "random-teacher"),
        *("forward", "mine"),
    ]
    cell = cell_of(("forward", 0), ("random-teacher", 0), ("none", 0), ("alone", 0), ("mine", 0))
    assert cell.matching == ["forward", "mine"]


def test_strategies_stand_in_the_papers_order_and_others_behind() -> None:
    assert in_order(["mine", "random", "none", "yours", "forward", "random"]) == [
        *("none", "forward", "random"),
        *("mine", "yours"),
    ]
    cell = cell_of(("random", 0), ("none", 0), ("forward", 0))
    assert (cell.strategies, cell.matching) == (["none", "forward", "random"], ["forward", "random"])


def test_a_cell_is_called_by_what_it_measures() -> None:
    assert cell_of(("none", 0)).measure == "accuracy, dev"
    alone = Cell("score", "random", {"data": "", "score": "bleu"}, {}, {})
    assert alone.measure == "bleu"
    assert Cell("angle", "random", {"stream": "decoder", "vertex": 2}, {}, {}).measure == "angle, decoder layer 2"


def test_students_without_a_record_have_no_seed() -> None:
    cells, notes = angle_cells([("g", make_geometry({"mine": 60.0, "yours": 62.0}, inits=(None,), seeds=(None,)))])
    assert notes == []
    assert [(cell.init, cell.place) for cell in cells] == [
        ("unrecorded", {"stream": "encoder", "vertex": vertex}) for vertex in (1, 2)
    ]
    assert set(cells[0].students) == {("mine", None), ("yours", None)}


def older(geometry: Geometry) -> Geometry:
    """Return a Geometry as written before examples had angles of their own."""
    return dataclasses.replace(geometry, examples=geometry.examples.assign(mean_angle_degrees=np.nan))


def test_angles_are_the_examples_own_where_all_hold_them() -> None:
    geometry = make_geometry({"forward": 60.0, "reverse": 62.0}, examples=30)
    angle = np.linspace(20.0, 80.0, len(geometry.examples))
    with_angles = dataclasses.replace(geometry, examples=geometry.examples.assign(mean_angle_degrees=angle))
    cells, notes = angle_cells([("g", with_angles)])
    assert notes == []
    own = with_angles.examples.query("student == 'reverse-random-0' and vertex == 2")
    np.testing.assert_array_equal(cells[1].students["reverse", 0], own["mean_angle_degrees"])
    # One that holds none takes the others' away: two kinds of angle are not compared with each other.
    mixed, notes = angle_cells([("g", with_angles), ("h", older(make_geometry({"random": 61.0}, examples=30)))])
    assert notes == ["encoder: these Geometries hold no mean angles by example; angles are those of mean cosines"]
    np.testing.assert_allclose(np.cos(np.radians(mixed[1].students["reverse", 0])), own["mean_cosine"])


def test_equal_texts_are_one_cluster() -> None:
    geometry = make_geometry({"forward": 60.0, "reverse": 62.0}, examples=6)
    cells, _ = angle_cells([("g", geometry)])
    assert cells[0].clusters is None
    clusters = geometry.examples["example"] // 2
    twice = dataclasses.replace(geometry, examples=geometry.examples.assign(cluster=clusters))
    cells, _ = angle_cells([("g", twice)])
    assert cells[0].clusters.tolist() == [0, 0, 1, 1, 2, 2]
    assert level_rows(cells[0])[0]["n_examples"] == 3


def test_angles_of_older_geometries_are_those_of_the_examples_mean_cosines() -> None:
    geometry = older(make_geometry({"forward": 60.0, "reverse": 62.0}, examples=30, undefined=(3, 4)))
    cells, notes = angle_cells([("g", geometry)])
    assert notes[1:] == [
        f"new weights, encoder layer {vertex}: 2 of 30 examples lack an angle and are left out" for vertex in (1, 2)
    ]
    for cell in cells:
        for (strategy, seed), degrees in cell.students.items():
            own = geometry.examples.query("student == @strategy + '-random-0' and vertex == @cell.place['vertex']")
            assert seed == 0
            defined = cell.weights[strategy, seed] > 0
            np.testing.assert_allclose(np.cos(np.radians(degrees))[defined], own["mean_cosine"].to_numpy()[defined])
            np.testing.assert_array_equal(cell.weights[strategy, seed], own["n_tokens"])
            assert np.flatnonzero(~defined).tolist() == [3, 4]


def test_a_cosine_that_rounding_made_more_than_one_is_one() -> None:
    geometry = make_geometry({"forward": 60.0, "reverse": 62.0}, examples=4)
    for example, cosine in ((0, 1 + 1e-15), (1, -1 - 1e-15)):
        geometry.examples.loc[geometry.examples["example"] == example, "mean_cosine"] = cosine
    cells, notes = angle_cells([("g", older(geometry))])
    assert len(notes) == 1
    assert [degrees[:2].tolist() for degrees in cells[0].students.values()] == [[0.0, 180.0]] * 2


def test_an_example_of_one_token_counts_and_one_of_none_does_not() -> None:
    geometry = make_geometry({"forward": 60.0, "reverse": 62.0}, examples=5)
    for example, tokens in ((1, 1), (2, 0)):
        geometry.examples.loc[geometry.examples["example"] == example, "n_tokens"] = tokens
    cells, _ = angle_cells([("g", geometry)])
    assert [weight[1:3].tolist() for weight in cells[0].weights.values()] == [[1.0, 0.0]] * 2
    levels = level_rows(cells[0])
    assert [row["n_examples"] for row in levels] == [4, 4]


def test_only_common_examples_are_compared() -> None:
    parts = [("a", make_geometry({"forward": 60.0}, examples=30)), ("b", make_geometry({"reverse": 60.0}, examples=20))]
    cells, notes = angle_cells(parts)
    assert notes[0] == "encoder: the Geometries hold 20 to 30 examples and share 20, which are compared"
    assert {len(values) for cell in cells for values in cell.students.values()} == {20}
    apart = [parts[0], ("c", make_geometry({"reverse": 60.0}, examples=5, first_example=50))]
    with pytest.raises(InputError, match="no example is in all Geometries"):
        angle_cells(apart)
    assert angle_cells([]) == ([], [])


def test_a_layer_without_an_angle_is_left_out_and_named() -> None:
    geometry = make_geometry({"forward": 60.0, "reverse": 60.0}, examples=4)
    second = (geometry.examples["vertex"] == 2) & (geometry.examples["student"] == "reverse-random-0")
    geometry.examples.loc[second, "mean_angle_degrees"] = np.nan
    cells, notes = angle_cells([("g", geometry)])
    assert [cell.place["vertex"] for cell in cells] == [1]
    assert notes == ["new weights, encoder layer 2: no example has an angle for every student; this layer is left out"]


def test_scores_make_a_cell_for_each_initialisation_table_and_score() -> None:
    rows = [
        (strategy, init, seed, data, score, value)
        for value, (init, data, score) in enumerate(
            [("random", "dev", "accuracy"), ("random", "dev", "f1"), ("random", "test", "f1"), ("teacher", "dev", "f1")]
        )
        for strategy in ("forward", "none")
        for seed in (0, 1)
    ]
    table = pd.DataFrame(rows, columns=["strategy", "init", "seed", "data", "score", "value"])
    cells, notes = score_cells(table)
    assert [(cell.init, cell.place["data"], cell.place["score"]) for cell in cells] == [
        *(("random", "dev", "accuracy"), ("random", "dev", "f1")),
        *(("random", "test", "f1"), ("teacher", "dev", "f1")),
    ]
    for number, cell in enumerate(cells):
        assert cell.part == "score"
        assert set(cell.students) == {(name, seed) for name in ("forward", "none") for seed in (0, 1)}
        assert {float(value[0]) for value in cell.students.values()} == {float(number)}
        assert {float(weight[0]) for weight in cell.weights.values()} == {1.0}
        assert (cell.resolution, cell.n_examples) == (0.0, None)
    assert notes[0].startswith("new weights, dev: 4 of 4 students came without predictions by example")
    assert len(notes) == 3


def test_scores_are_taken_by_example_where_every_student_has_them() -> None:
    rows = [(name, "random", seed, "dev", "bleu", 50.0) for name in ("forward", "reverse") for seed in (0, 1)]
    table = pd.DataFrame(rows, columns=["strategy", "init", "seed", "data", "score", "value"])
    examples = {row[:5]: np.full(8, 50.0) + number for number, row in enumerate(rows)}
    (cell,), notes = score_cells(table, examples, {"dev": 8})
    assert notes == []
    assert cell.students["reverse", 1].tolist() == [53.0] * 8
    assert (cell.resolution, cell.n_examples) == (100 / 8, 8)
    assert cell.examples_of == ("score", "dev")
    del examples["reverse", "random", 1, "dev", "bleu"]
    (cell,), notes = score_cells(table, examples, {"dev": 8})
    assert cell.students["forward", 0].tolist() == [50.0]
    assert (cell.resolution, cell.n_examples) == (100 / 8, 8)
    assert notes[0].startswith("new weights, dev: 1 of 4 students came without predictions by example")


def test_examples_that_two_geometries_of_one_student_share_are_compared() -> None:
    """Forty examples in both of them together, thirty and twenty-one in each, eleven in both."""
    parts = [
        (str(start), make_geometry({"forward": 60.0, "reverse": 61.0}, examples=count, first_example=start))
        for start, count in ((0, 30), (19, 21))
    ]
    cells, notes = angle_cells(parts)
    assert notes[0] == "encoder: the Geometries hold 21 to 30 examples and share 11, which are compared"
    assert {cell.n_examples for cell in cells} == {11}
