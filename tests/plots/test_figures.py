"""What holds for every figure: readable, numbers and words, and one line where it cannot be drawn."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from anglekit.errors import InputError
from anglekit.plots.ground import pages_of
from anglekit.plots.registry import FIGURES, draw_figure, figure_data, why_not
from anglekit.plots.spec import FigureSpec
from anglekit.plots.style import PAGE_HEIGHT
from tests.more_cases import MORE
from tests.plots.full_geometry import FIVE, SEVEN, full_geometry, score_table, training_records

TABLES = {  # the table without which a figure cannot be drawn, and what makes it
    "layer-distance": ("layers", "run `anglekit analyze` again"),
    "layer-cosine": ("layers", "run `anglekit analyze` again"),
    "layer-cka": ("layers", "--similarity default"),
    "layer-norms": ("layers", "run `anglekit analyze` again"),
    "anisotropy": ("anisotropy", "--nulls default"),
    "dominant-dimensions": ("dimensions", "--nulls default"),
    "vertex-sweep": ("vertex_sweep", "--nulls default"),
    "layer-trajectories": ("layers", "run `anglekit analyze` again"),
    "similarity-chance": ("layers", "--similarity default"),
}


def steps(geometry, numbers=(0, 100, 300)):
    """The same geometry at several training steps."""
    return [
        dataclasses.replace(geometry, provenance={**geometry.provenance, "training_step": step}) for step in numbers
    ]


def drawable(geometries, scores=(), records=()):
    """The names of the figures that can be drawn from these."""
    return [name for name in FIGURES if why_not(name, geometries, scores, records) is None]


def inputs(name: str, geometry):
    """Geometries, scores and what runs keep beside them, from which a figure can be drawn."""
    spec = FIGURES[name]
    geometries = [] if spec.uses in ("scores", "records") else steps(geometry) if spec.over_training else [geometry]
    strategies = SEVEN if name == "control-gain" else FIVE
    scores = [] if spec.uses == "geometries" else [score_table(strategies)]
    return geometries, {"scores": scores, "records": [training_records(strategies)] if scores else []}


@pytest.fixture(scope="module")
def one():
    return full_geometry(("forward",), ("teacher",))


@pytest.fixture(scope="module")
def ten():
    return full_geometry(FIVE, teacher_layers=4, depth=1)


@pytest.fixture(scope="module")
def deep():
    return full_geometry(("forward",), ("random",), teacher_layers=81, depth=6)


@pytest.mark.parametrize("name", [name for name in FIGURES if name != "figure1"])
@pytest.mark.parametrize("look", [{}, {"width": "column", "dark": True}], ids=["page", "column-dark"])
def test_readable_with_one_student_and_with_ten_and_at_depth(name: str, look, one, ten, deep, faults_of) -> None:
    alone = FIGURES[name].uses in ("scores", "records")
    for geometry in (one, ten, deep)[1 if alone or FIGURES[name].uses == "both" else 0 : 2 if alone else 3]:
        if FIGURES[name].uses == "both" and geometry is deep:
            continue
        # What is deep is narrowest in a column, and a single student's page is the emptiest.
        if geometry is (one if look else deep) and not MORE:
            continue
        geometries, given = inputs(name, geometry)
        figure = draw_figure(name, geometries, **given, **look)
        assert isinstance(figure, Figure)
        for page in pages_of(figure):
            assert faults_of(page) == []
            assert page.get_size_inches()[0] == pytest.approx(3.03 if look else 6.30)
            assert page.get_size_inches()[1] <= PAGE_HEIGHT


def test_the_check_of_readability_can_fail(one, faults_of) -> None:
    figure = draw_figure("layer-norms", [one])
    figure.text(0.98, 0.5, "far too long to fit")
    figure.text(0.5, 0.5, "one")
    figure.text(0.5, 0.5, "two")
    faults = faults_of(figure)
    assert any(fault.startswith("outside") for fault in faults)
    assert any(fault.startswith("overlap") for fault in faults)


@pytest.mark.parametrize("name", FIGURES)
def test_numbers_and_words(name: str, ten) -> None:
    geometries, given = inputs(name, ten)
    spec = FIGURES[name]
    data = figure_data(name, geometries, **given, width="column", dark=True)
    assert isinstance(data, pd.DataFrame)
    assert len(data)
    pd.testing.assert_frame_equal(data, figure_data(name, geometries, **given))
    assert spec.title
    assert not spec.title.endswith(".")
    for words in (spec.caption(data), spec.alt(data)):
        assert words.endswith(".")
        assert "nan" not in words.lower().split()
        assert "\n" not in words


@pytest.mark.parametrize(("name", "table", "remedy"), [(name, *entry) for name, entry in TABLES.items()])
def test_a_missing_table_is_one_line_that_names_the_option(name: str, table: str, remedy: str) -> None:
    geometry = full_geometry(("forward",), ("random",), without=[table])
    reason = why_not(name, [geometry])
    assert reason is not None
    assert remedy in reason
    assert "\n" not in reason
    assert name not in drawable([geometry])
    for call in (draw_figure, figure_data):
        with pytest.raises(InputError) as caught:
            call(name, [geometry])
        assert str(caught.value) == reason
    assert why_not(name, [full_geometry(("forward",), ("random",))]) is None


@pytest.mark.parametrize("name", [name for name in FIGURES if FIGURES[name].uses == "geometries"])
def test_without_an_angle_there_is_nothing_to_draw(name: str) -> None:
    geometries, _ = inputs(name, full_geometry(("forward",), ("random",), without=["angles"]))
    for call in (draw_figure, figure_data):
        with pytest.raises(
            InputError, match=r"has no angles: angles.parquet lost its rows, .*; run `anglekit analyze` again"
        ):
            call(name, geometries)


def test_drawable_by_inputs(ten) -> None:
    some = drawable([ten])
    trained, kept = {"training-angles", "matching-distance"}, {"learning-curves", "score-cost"}
    assert set(FIGURES) - set(some) == trained | kept | {"scores-by-strategy", "angle-spread", "control-gain"}
    assert set(drawable([ten], [score_table()])) - set(some) == {"scores-by-strategy", "angle-spread"}
    assert drawable([], [score_table()]) == ["scores-by-strategy"]
    assert drawable([], [score_table(SEVEN)]) == ["scores-by-strategy", "control-gain"]
    assert set(drawable([], [score_table()], [training_records()])) == kept | {"scores-by-strategy"}
    assert trained <= set(drawable(steps(ten)))
    assert drawable([], []) == []


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("scores-by-strategy", {"students": ["a"]}, r"takes no students \(--only-student\)"),
        ("layer-cka", {"vertices": [1]}, r"takes no vertices \(--vertices\)"),
        ("layer-cka", {"value": "mean_distance"}, "no value 'mean_distance'; .*allowed: cka"),
        ("layer-cka", {"value": "linear_cka"}, "no linear_cka: .*; run `anglekit analyze --similarity all`"),
        ("null-heatmap", {"null": "origin"}, "no null 'origin'.*; run `anglekit analyze --nulls all`"),
        ("null-heatmap", {"null": "permuted"}, "did you mean 'permuted-student'"),
        ("anisotropy", {"value": "row"}, "did you mean 'raw'"),
        ("vertex-sweep", {"value": "mean"}, "no value 'mean'"),
        ("training-angles", {"value": "angle"}, "no value 'angle'"),
        ("acute-fraction", {"stream": "x"}, "no stream 'x'; allowed: encoder"),
        ("acute-fraction", {"vertices": [9]}, "no vertex 9"),
        ("layer-norms", {"students": "forwrd-random-seed0"}, "did you mean 'forward-random-seed0'"),
        ("layer-trajectories", {"width": "wide"}, "no figure width 'wide'"),
        ("scores-by-strategy", {"margin": -1.0}, "--score-margin is -1; give a number above 0"),
        ("scores-by-strategy", {"value": "bleu"}, "no score 'bleu'; allowed: accuracy"),
        ("scores-by-strategy", {"labels": ["a", "b"]}, "2 task labels for 1 table of scores"),
        ("angle-spread", {"labels": ["a", "b"]}, "2 task labels for 1 Geometry"),
    ],
)
def test_wrong_options(name: str, options: dict, message: str, ten) -> None:
    geometries, given = inputs(name, ten)
    with pytest.raises(InputError, match=message) as caught:
        draw_figure(name, geometries, **given, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "count", "tables", "message"),
    [
        ("learning-curves", 0, [score_table()], "what runs keep beside their scores; give directories"),
        ("control-gain", 0, [score_table()], "anglekit sweep --controls alone,random-teacher`; where the sweep was st"),
        (
            "control-gain",
            0,
            [score_table(("alone", "forward"))],
            r"alone, forward alone; train none \(--strategies none",
        ),
        ("control-gain", 0, [score_table(("alone",)), score_table(("none", "forward"))], "in different tables; train "),
        ("control-gain", 0, [score_table().iloc[:0]], "there is no score; train the sweep with --validation, or go on"),
        ("matching-distance", 1, [], "at least two steps"),
        ("scores-by-strategy", 1, [], "drawn from scores; give directories of `anglekit sweep`"),
        ("scores-by-strategy", 0, [score_table(("forward",))], r"all scores are of one strategy \(forward\); give"),
        (
            "scores-by-strategy",
            0,
            [score_table((one,)) for one in ("forward", "none")],
            r"each table .* join their rows",
        ),
        ("scores-by-strategy", 0, [score_table().iloc[:0]], "table 1 holds no score; .*without --val.*--resume"),
        ("angle-spread", 1, [], "drawn from scores"),
        ("angle-spread", 2, [score_table()], "2 Geometries and 1 table of scores"),
        ("angle-spread", 1, [score_table(("none", "forward"))], "share no two matching strategies"),
        ("training-angles", 1, [], "at least two steps"),
        ("vertex-sweep", 2, [], "draws one directory, 2 were given"),
    ],
)
def test_wrong_inputs(name: str, count: int, tables, message: str, ten) -> None:
    with pytest.raises(InputError, match=message):
        draw_figure(name, [ten] * count, scores=tables)


@pytest.mark.parametrize(("name", "table"), [("figure1", "histograms"), ("acute-fraction", "angles")])
def test_a_table_that_lost_its_rows_is_told_with_its_causes_and_the_command(name: str, table: str) -> None:
    words = f"this Geometry has no .*{table}.parquet lost its rows.*`?anglekit analyze"
    with pytest.raises(InputError, match=words):
        draw_figure(name, [full_geometry(without=[table])])


def test_a_figure_says_what_it_takes() -> None:
    spec = FIGURES["layer-cka"]
    assert isinstance(spec, FigureSpec)
    assert (spec.many, spec.uses) == (False, "geometries")
    assert FIGURES["angle-spread"].uses == "both"
    for name, one in FIGURES.items():
        assert one.options <= {"students", "stream", "vertices", "labels", "value", "null", "margin", "bins"}, name
        assert np.all([len(text) > 10 for text in (one.title, one.summary, one.reading)])
