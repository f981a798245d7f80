"""The explorer: its numbers are the tables' own, its texts are texts, and a large Geometry is thinned out."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import anglekit
from anglekit.errors import InputError
from anglekit.results.columns import COLUMNS
from anglekit.results.explorer.cells import HISTOGRAM_BINS, PAIR_KEY, explored_cells
from anglekit.results.explorer.markup import pair_cells
from anglekit.results.geometry import Geometry
from tests.comparison.compare_corpus import make_geometry

SAVED = Path(__file__).resolve().parents[2] / "data" / "gallery" / "inference"
DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
HOSTILE = "</script><script>alert(1)</script>"


@pytest.fixture(scope="module")
def geometry() -> Geometry:
    found = Geometry.load(SAVED)
    first = found.angles.iloc[0]
    row = {name: first[name] for name in PAIR_KEY}
    words = {"example": 7, "place": 2, "before": "it was", "token": HOSTILE, "after": "& so"}
    return replace(found, extremes=pd.DataFrame([{**row, "extreme": "largest", "angle_degrees": 91.26, **words}]))


def numbers_of(html: str) -> dict:
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', html, re.DOTALL)[1])


@pytest.fixture(scope="module")
def numbers(geometry) -> dict:
    return numbers_of(geometry.explorer().html)


def test_a_cells_numbers_are_those_of_the_tables(geometry, numbers):
    angles = geometry.angles
    nulls = geometry.nulls[geometry.nulls["null"] == "permuted-student"].set_index(list(PAIR_KEY))
    assert len(numbers["angle"]) == len(angles)
    assert np.abs(np.array(numbers["angle"]) / 10 - angles["mean_angle_degrees"]).max() <= 0.05 + 1e-9
    assert np.abs(np.array(numbers["cosine"]) / 1e4 - angles["mean_cosine"]).max() <= 0.00005 + 1e-9
    assert numbers["tokens"] == angles["n_tokens"].tolist()
    for cell in (0, 100, len(angles) - 1):
        null = nulls.loc[tuple(angles.iloc[cell][list(PAIR_KEY)])]
        assert numbers["chance"][cell] / 1e4 == pytest.approx(null["mean_cosine"], abs=1e-4)
        assert numbers["beyond"][cell] / 1e4 == pytest.approx(null["observed_minus_null"], abs=1e-4)
    verdict = geometry.against_chance().sentence
    narrower, wider = (sum(side == sign for side in numbers["side"]) for sign in (1, -1))
    assert f"{narrower} " in verdict
    assert f"{wider} are surely wider" in verdict


def test_a_cells_histogram_is_the_tables_in_wider_bins(geometry, numbers):
    cell = 123
    key = tuple(geometry.angles.iloc[cell][list(PAIR_KEY)])
    own = geometry.histograms.set_index(list(PAIR_KEY)).sort_index().loc[key]
    expected = np.zeros(HISTOGRAM_BINS)
    np.add.at(expected, own["bin"].to_numpy() // 25, own["count"].to_numpy())
    text = numbers["histograms"][2 * HISTOGRAM_BINS * cell :][: 2 * HISTOGRAM_BINS]
    levels = [64 * DIGITS.index(a) + DIGITS.index(b) for a, b in zip(text[::2], text[1::2], strict=True)]
    assert np.allclose(np.array(levels) / 4095, expected / expected.max(), atol=1 / 4095)
    assert numbers["peak"][cell] / 1e4 == pytest.approx(expected.max() / expected.sum(), abs=1e-4)


def test_texts_of_the_probe_are_texts_and_nothing_is_asked_for(geometry, numbers):
    html = geometry.explorer().html
    assert HOSTILE not in html
    assert numbers["ends"]["0"] == [
        {"which": "largest", "angle": 91.3, "example": 7, "before": "it was", "token": HOSTILE, "after": "& so"}
    ]
    assert html.count("<script") == html.count("</script>") == 2
    assert " style=" not in html
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", html)
    assert html.count("<td class=") == len(geometry.angles)


def test_a_notebook_shows_it_in_a_frame_that_reaches_nothing(geometry, tmp_path):
    shown = geometry._repr_html_()
    assert 'sandbox="allow-scripts"' in shown
    assert "<script" not in shown
    assert "&lt;table class=&quot;cells&quot;&gt;" in shown
    explorer = anglekit.explore(geometry)
    assert explorer._repr_html_() in shown
    assert repr(explorer).startswith("<Explorer of 840 cells of 10 students")
    assert anglekit.explore(geometry.save(tmp_path / "saved")).html == explorer.html
    with pytest.raises(InputError, match="nowhere"):
        anglekit.explore(tmp_path / "nowhere")


def test_without_nulls_chance_is_the_closed_form_and_an_angle_has_its_interval():
    geometry = make_geometry({"forward": 70.0, "none": 80.0})
    cells = geometry.explored_cells()
    assert cells.null == "formula"
    assert (cells.cells["chance"] == geometry.angles["null_cosine"]).all()
    assert "unrelated vectors (of the same lengths)" in geometry.explorer().html
    row = cells.layers.iloc[0]
    # The error of a mean over tokens clustered by example, here with an example each.
    own = geometry.examples.query("student == @row.student and vertex == @row.vertex")
    weights, values = own["n_tokens"].to_numpy(float), own["mean_angle_degrees"].to_numpy(float)
    mean = np.average(values, weights=weights)
    n = len(own)
    error = np.sqrt(n / (n - 1) * ((weights * (values - mean)) ** 2).sum()) / weights.sum()
    assert (row["high"] - row["low"]) / 2 == pytest.approx(1.972 * error, rel=1e-3)


def many_layers(layers: int, vertices: int) -> Geometry:
    """Return a Geometry of one student, every angle alike."""
    small = make_geometry({"forward": 70.0}, examples=3)
    one = small.angles.iloc[0].to_dict()
    rows = [
        {**one, "vertex": vertex, "teacher_i": i, "teacher_k": k}
        for vertex in range(vertices)
        for i, k in itertools.combinations(range(layers), 2)
    ]
    return replace(small, angles=pd.DataFrame(rows).astype(dict(COLUMNS["angles"])))


@pytest.mark.parametrize(("layers", "vertices"), [(81, 13), (5, 2)])
def test_a_large_geometry_is_thinned_out_and_says_so(layers, vertices):
    geometry = many_layers(layers, vertices)
    tables = (geometry.angles, geometry.nulls, geometry.histograms, geometry.examples, geometry.extremes)
    cells = explored_cells(*tables, geometry.document.provenance.students, most_cells=1000)
    assert len(cells.cells) <= 1000
    assert {0, layers - 1} <= {*cells.cells["teacher_i"], *cells.cells["teacher_k"]}
    assert cells.cells["vertex"].max() == vertices - 1
    assert len(cells.layers) == vertices
    said = "; ".join(cells.left_out)
    assert ("14 of 81 teacher layers" in said) == (layers == 81)
    assert (f"of {vertices} student layers" in said) == (vertices == 13)
    assert len(pair_cells(cells, {"forward-random-0": "s0"}, "c")) < 400_000


@pytest.mark.parametrize(
    ("first", "shown"), [("forward-teacher-seed0", 3), (None, 0), ("nobody", 0)], ids=["named", "none", "unknown"]
)
def test_the_student_that_is_asked_for_stands_open(geometry, first, shown):
    cells = geometry.explored_cells()
    keys = {student.name: f"s{place}" for place, student in enumerate(cells.students)}
    opened = re.findall(
        r'class="student-cells"[^>]*data-student="(s\d+)" open', pair_cells(cells, keys, "c", first=first)
    )
    assert opened == [f"s{shown}"]
    assert cells.students[3].name == "forward-teacher-seed0"
