"""Heat maps over pairs of teacher layers."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PatchCollection, QuadMesh

from anglekit.errors import InputError
from anglekit.plots.figures.angles_heatmap import ANGLE_VALUES, angles_heatmap
from anglekit.plots.panels.tables import symmetric_matrix
from tests.more_cases import more


def panels(figure):
    return [ax for ax in figure.axes if ax.get_gid() != "colour-bar"]


def mesh(ax) -> QuadMesh:
    return next(item for item in ax.collections if isinstance(item, QuadMesh))


def missing(ax) -> list[tuple[int, int]]:
    """Cells marked as having no value: (row, column)."""
    found = []
    for item in (each for each in ax.collections if each.get_gid() == "missing"):
        if isinstance(item, PatchCollection):
            found += [(int(path.vertices[0][1]), int(path.vertices[0][0])) for path in item.get_paths()]
        else:
            found += [(int(row), int(column)) for row, column in np.argwhere(~np.ma.getmaskarray(item.get_array()))]
    return found


def test_a_matrix_of_pairs_is_symmetric_without_a_diagonal() -> None:
    rows = pd.DataFrame({"teacher_i": [0, 0, 2], "teacher_k": [2, 5, 5], "value": [0.1, np.nan, 0.3]})
    matrix = symmetric_matrix(rows, "value", "teacher_i", "teacher_k", [0, 2, 5])
    np.testing.assert_array_equal(matrix.to_numpy(), matrix.to_numpy().T)
    assert np.isnan(np.diag(matrix)).all()
    assert matrix.loc[2, 0] == 0.1
    assert matrix.loc[5, 2] == 0.3
    assert np.isnan(matrix.loc[0, 5])


def test_the_diagonal_is_told_from_a_right_angle(geometry) -> None:
    for ax in panels(angles_heatmap(geometry)):
        (line,) = ax.lines
        assert line.get_gid() == "diagonal"
        np.testing.assert_allclose(line.get_xydata(), [[0, 0], [13, 13]])
        assert ax.get_xlim() == ax.get_ylim() == (0, 13)


@pytest.mark.parametrize("value", list(ANGLE_VALUES))
def test_cells_are_the_column(geometry, value: str) -> None:
    figure = angles_heatmap(geometry, students="random-forward", vertices=[2], value=value)
    (ax,) = panels(figure)
    drawn = mesh(ax).get_array().reshape(13, 13)
    rows = geometry.angles[(geometry.angles["student"] == "random-forward") & (geometry.angles["vertex"] == 2)]
    for row in rows.itertuples():
        expected = getattr(row, value) * ANGLE_VALUES[value].factor
        assert drawn[row.teacher_i, row.teacher_k] == pytest.approx(expected)
        assert drawn[row.teacher_k, row.teacher_i] == pytest.approx(expected)
    assert np.ma.getmaskarray(drawn).sum() == 13


def test_a_panel_per_student_stream_and_vertex_on_one_scale(make_geometry) -> None:
    geometry = make_geometry(teacher_layers=4, tokens=40, streams=("encoder", "decoder"))
    figure = angles_heatmap(geometry)
    assert len(panels(figure)) == 2 * 2 * 4
    limits = {mesh(ax).get_clim() for ax in panels(figure)}
    assert len(limits) == 1
    names = [text.get_text() for text in figure.texts if text.get_gid() is None]
    assert names == [f"{s}, {t}" for s in geometry.students for t in ("encoder", "decoder")]
    assert [ax.get_title(loc="left") for ax in panels(figure)[:4]] == [f"student layer {n}" for n in range(4)]


@pytest.mark.parametrize(("value", "centre"), [("mean_cosine", 0.0), ("mean_angle_degrees", 90.0)])
def test_diverging_scales_are_centred(geometry, value: str, centre: float) -> None:
    low, high = mesh(panels(angles_heatmap(geometry, value=value))[0]).get_clim()
    assert (low + high) / 2 == pytest.approx(centre)
    values = geometry.angles[value].dropna()
    assert low <= values.min() + 1e-9
    assert values.max() <= high + 1e-9
    assert min(abs(values.min() - low), abs(values.max() - high)) < 1e-9


def test_acute_angles_look_like_positive_cosines(geometry) -> None:
    colours = []
    for value, number in (("mean_cosine", 0.9), ("mean_angle_degrees", 30.0)):
        drawn = mesh(panels(angles_heatmap(geometry, value=value))[0])
        colours.append(np.array(drawn.cmap(drawn.norm(number))[:3]))
    for red, _, blue in colours:
        assert red > blue + 0.2


@pytest.mark.parametrize(("layers", "annotated"), [(4, True), (8, True), (9, False), (13, False)])
def test_cells_are_annotated_when_few(make_geometry, layers: int, annotated: bool) -> None:
    geometry = make_geometry({"s": "random"}, teacher_layers=layers, tokens=40)
    ax = panels(angles_heatmap(geometry, vertices=[1]))[0]
    numbers = [text.get_text() for text in ax.texts if text.get_text()]
    assert len(numbers) == (layers * (layers - 1) if annotated else 0)
    if annotated:
        row = geometry.angles[(geometry.angles["vertex"] == 1)].iloc[0]
        assert f"{row['mean_cosine']:.2f}".replace("0.", ".") in numbers


def test_signs_and_ends_of_annotations(make_geometry) -> None:
    geometry = make_geometry({"s": "random"}, teacher_layers=3, tokens=40)
    angles = geometry.angles.query("vertex == 1").assign(
        mean_cosine=[-0.256, 0.001, -0.001], acute_fraction=[1.0, 0.9999, 0.0001]
    )
    numbers = {}
    for value in ("mean_cosine", "acute_fraction"):
        ax = panels(angles_heatmap(_with(geometry, angles), value=value))[0]
        numbers[value] = sorted({text.get_text() for text in ax.texts if text.get_text()})
    assert numbers["mean_cosine"] == sorted(["−.26", ".00"])  # noqa: RUF001
    assert numbers["acute_fraction"] == sorted(["100", ">99", "<1"])


def _with(geometry, angles):
    return dataclasses.replace(geometry, angles=angles)


@pytest.mark.parametrize(("layers", "words"), [(4, "Grey: no token"), (13, "Grey: no token")])
def test_cells_without_tokens_are_marked_and_explained(make_geometry, layers: int, words: str) -> None:
    geometry = make_geometry(teacher_layers=layers, tokens=40)
    figure = angles_heatmap(geometry)
    marked = [missing(ax) for ax in panels(figure)]
    copied = [*((0, k) for k in range(1, layers)), *((k, 0) for k in range(1, layers))]
    assert sorted(marked[4]) == sorted(copied)  # the teacher-initialised student's embedding is the teacher's
    assert [len(cells) for cells in marked] == [0, 0, 0, 0, len(copied), 0, 0, 0]
    assert words in next(text.get_text() for text in figure.texts if text.get_gid() == "notes")
    whole = angles_heatmap(geometry, students="random-forward")
    assert "no token" not in next(text.get_text() for text in whole.texts if text.get_gid() == "notes")


@pytest.mark.parametrize("layers", [2, 9, 13, 80, *(pytest.param(depth, marks=more) for depth in (4, 8, 37))])
@pytest.mark.parametrize("width", ["page", "column"])
def test_readable_at_any_depth(make_geometry, faults_of, layers: int, width: str) -> None:
    geometry = make_geometry({"a-very-long-name" * 6: "teacher"}, teacher_layers=layers, student_depth=2, tokens=8)
    figure = angles_heatmap(geometry, width=width)
    assert faults_of(figure) == []
    ticks = [int(label.get_text()) for label in panels(figure)[0].get_xticklabels()]
    assert ticks[0] == 0
    assert len(ticks) <= 15
    assert len(set(np.diff(ticks))) <= 1


@pytest.mark.parametrize("value", list(ANGLE_VALUES))
def test_readable_for_any_value(make_geometry, faults_of, value: str) -> None:
    figure = angles_heatmap(make_geometry(teacher_layers=4, tokens=40), value=value, dark=True)
    assert faults_of(figure) == []
    bar = next(ax for ax in figure.axes if ax.get_gid() == "colour-bar")
    assert bar.get_ylabel() == ANGLE_VALUES[value].label


def test_official_reading_is_one_pair_and_says_so(make_geometry) -> None:
    figure = angles_heatmap(make_geometry(reading="official"))
    assert [len(mesh(ax).get_array().ravel()) for ax in panels(figure)] == [4, 4]
    assert "Official reading" in next(text.get_text() for text in figure.texts if text.get_gid() == "notes")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"value": "mean_cosin"}, "no value 'mean_cosin'; did you mean 'mean_cosine'?"),
        ({"students": ["x"]}, "no student 'x'; allowed: random-forward, teacher-forward"),
        ({"stream": "decoder"}, "no stream 'decoder'; did you mean 'encoder'? allowed: encoder"),
        ({"vertices": [7]}, "no vertex 7"),
        ({"width": "wide"}, "no figure width 'wide'"),
    ],
)
def test_bad_choices(geometry, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        angles_heatmap(geometry, **options)


def test_too_many_panels(make_geometry) -> None:
    geometry = make_geometry({f"s{n}": None for n in range(21)}, teacher_layers=2, tokens=4)
    with pytest.raises(InputError, match="84 panels are more than a figure holds"):
        angles_heatmap(geometry)
