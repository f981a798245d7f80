"""The sketch of the angle: a real token's plane, to scale."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from matplotlib.text import Annotation

from anglekit.plots.figure1.figure1 import figure1


def sketch_of(figure):
    return next(ax for ax in figure.axes if ax.get_gid() == "sketch")


def line(ax, gid: str) -> np.ndarray:
    return np.column_stack(next(item for item in ax.lines if item.get_gid() == gid).get_data())


def caption(figure) -> str:
    text = next(text for text in figure.texts if text.get_gid() == "sketch-caption")
    return text.get_text().replace("\n", " ")


def arrow_ends(ax) -> np.ndarray:
    return np.array([item.xy for item in ax.get_children() if isinstance(item, Annotation)])


def test_states_stand_where_they_are(geometry) -> None:
    token = geometry.sketch_tokens[0]
    ax = sketch_of(figure1([geometry]))
    points = np.array(token["points"])
    np.testing.assert_allclose(line(ax, "path"), points[:, 1:])
    others = [point[1:] for point in token["points"] if point[0] not in (token["teacher_i"], token["teacher_k"])]
    np.testing.assert_allclose(line(ax, "layers"), others)
    np.testing.assert_allclose(line(ax, "student"), [[0, 0]])
    expected = points[[token["teacher_i"], token["teacher_k"]], 1:]
    np.testing.assert_allclose(arrow_ends(ax), expected, atol=1e-9)


def test_arrow_lengths_and_angle_are_the_tokens(geometry) -> None:
    token = geometry.sketch_tokens[0]
    ax = sketch_of(figure1([geometry]))
    ends = arrow_ends(ax)
    np.testing.assert_allclose(np.linalg.norm(ends, axis=1), [token["distance_i"], token["distance_k"]])
    degrees = math.degrees(math.acos(token["cosine"]))
    assert f"{degrees:.0f}°" in [text.get_text() for text in ax.texts]
    first, *_, last = line(ax, "arc")
    assert math.degrees(math.atan2(*last[::-1]) - math.atan2(*first[::-1])) == pytest.approx(degrees)


def test_scales_are_equal_and_hold_everything(geometry) -> None:
    figure = figure1([geometry])
    figure.draw_without_rendering()
    ax = sketch_of(figure)
    corner, right, up = ax.transData.transform([(0, 0), (1, 0), (0, 1)])
    assert right[0] - corner[0] == pytest.approx(up[1] - corner[1], rel=1e-6)
    box = ax.get_window_extent()
    pixels = ax.transData.transform(np.vstack([line(ax, "path"), [[0, 0]]]))
    assert (pixels >= [box.x0, box.y0]).all()
    assert (pixels <= [box.x1, box.y1]).all()


def test_caption_names_the_token_the_vertex_and_the_pair(make_geometry) -> None:
    geometry = make_geometry(teacher_layers=4, tokens=40, token="a$b$中")
    token = geometry.sketch_tokens[0]
    words = caption(figure1([geometry]))
    assert words.startswith(r"“a\$b\$\u4e2d” (example 12, encoder): teacher layers 1 and 3 from layer 1 of")
    assert f"random-forward, cosine {token['cosine']:.2f}" in words


def test_layer_numbers_are_near_their_dots_and_none_is_wrong(make_geometry) -> None:
    geometry = make_geometry(teacher_layers=37, tokens=40)
    figure = figure1([geometry])
    figure.draw_without_rendering()
    ax = sketch_of(figure)
    places = {int(layer): ax.transData.transform((x, y)) for layer, x, y in geometry.sketch_tokens[0]["points"]}
    numbers = [text for text in ax.texts if text.get_text().isdigit()]
    assert len(numbers) >= 4
    for text in numbers:
        box = text.get_window_extent()
        centre = np.array([(box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2])
        assert np.linalg.norm(centre - places[int(text.get_text())]) / figure.dpi < 0.2


@pytest.mark.parametrize("cosine", [1.0, 0.9999, 0.0, -0.7, -1.0])
@pytest.mark.parametrize("ratio", [0.05, 1.0, 20.0])
def test_any_angle_can_be_drawn(geometry, faults_of, cosine: float, ratio: float) -> None:
    sine = math.sqrt(max(1 - cosine**2, 0))
    token = geometry.sketch_tokens[0] | {
        "distance_i": 3.0,
        "distance_k": 3.0 * ratio,
        "cosine": cosine,
        "points": [[1, 3.0, 0.0], [12, 3.0 * ratio * cosine, 3.0 * ratio * sine]],
    }
    figure = figure1([dataclasses.replace(geometry, sketch_tokens=[token])])
    assert [fault for fault in faults_of(figure) if not fault.startswith("overlap: '$")] == []
    assert f"{math.degrees(math.acos(cosine)):.0f}°" in [text.get_text() for text in sketch_of(figure).texts]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda token: None,
        lambda token: {key: value for key, value in token.items() if key != "points"},
        lambda token: token | {"distance_k": 0.0},
        lambda token: token | {"cosine": float("nan")},
        lambda token: token | {"student": "another"},
    ],
)
def test_without_a_plane_the_panel_says_so(geometry, faults_of, spoil) -> None:
    spoilt = spoil(geometry.sketch_tokens[0])
    figure = figure1([dataclasses.replace(geometry, sketch_tokens=[] if spoilt is None else [spoilt])])
    words = " ".join(text.get_text().replace("\n", " ") for text in sketch_of(figure).texts)
    assert "No sketch" in words
    assert faults_of(figure) == []


def test_the_sketch_follows_the_chosen_student(geometry) -> None:
    assert "of teacher-forward" in caption(figure1([geometry], students=["teacher-forward"]))
    assert "of random-forward" in caption(figure1([geometry]))


def test_of_very_many_layers_a_few_are_named(make_geometry, faults_of) -> None:
    figure = figure1([make_geometry(teacher_layers=49)])
    named = [text.get_text() for text in sketch_of(figure).texts if text.get_text().isdecimal()]
    assert 0 < len(named) <= 6
    # The others are corners of the line.
    assert len(line(sketch_of(figure), "layers")) in range(len(named), 7)
    assert len(line(sketch_of(figure), "path")) == 49
    assert faults_of(figure) == []
