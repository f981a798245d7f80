"""Figure 1: what is drawn is what the Geometry says."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import same_color, to_rgb

from anglekit.errors import InputError
from anglekit.plots.figure1.curves import rebin
from anglekit.plots.figure1.figure1 import figure1
from anglekit.plots.figure1.histograms import percent
from anglekit.plots.ground import pages_of
from anglekit.plots.style import LIGHT_THEME, NIGHT_THEME
from anglekit.results.columns import COLUMNS
from anglekit.vocabulary import N_BINS

STRATEGIES = ["none", "forward", "reverse", "all-to-one", "random"]
TEN = {f"{init}-{strategy}": init for init in ("random", "teacher") for strategy in STRATEGIES}


def artist(figure, gid: str, axes: int = -1):
    return next(item for item in figure.axes[axes].get_children() if item.get_gid() == gid)


def panel_axes(figure):
    return [ax for ax in figure.axes if ax.get_gid() != "sketch"]


def titles(figure) -> list[str]:
    return [text.get_text() for text in figure.texts if (text.get_gid() or "").startswith("title-")]


def texts_of(ax) -> list[str]:
    return [text.get_text() for text in ax.texts]


def legend_names(figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


@pytest.mark.parametrize("bins", [50, 200])
def test_curves_are_the_rebinned_counts_as_densities(geometry, bins: int) -> None:
    figure = figure1([geometry], bins=bins)
    for student in geometry.students:
        counts = geometry.pooled_histogram(student, "encoder").reshape(bins, -1).sum(axis=1)
        values, edges, _ = artist(figure, f"curve-{student}").get_data()
        np.testing.assert_allclose(values, counts / counts.sum() / (2 / bins), rtol=1e-12)
        np.testing.assert_allclose(edges, np.linspace(-1, 1, bins + 1))
        assert np.sum(values * np.diff(edges)) == pytest.approx(1.0)


def test_a_changed_histogram_changes_the_curve(geometry) -> None:
    moved = geometry.histograms.assign(bin=(geometry.histograms["bin"] - 300).clip(lower=0))
    other = dataclasses.replace(geometry, histograms=moved)
    before = artist(figure1([geometry]), "curve-random-forward").get_data()[0]
    after = artist(figure1([other]), "curve-random-forward").get_data()[0]
    assert not np.allclose(before, after)


def test_initialisations_have_their_colours(geometry, make_geometry) -> None:
    figure = figure1([geometry])
    for student in geometry.students:
        colour = artist(figure, f"curve-{student}").get_edgecolor()
        assert same_color(colour[:3], LIGHT_THEME.init[geometry.student_init(student)])
    unknown = make_geometry({"a": None, "b": None, "c": "teacher"}, teacher_layers=4, tokens=40)
    figure = figure1([unknown])
    colours = {name: to_rgb(artist(figure, f"curve-{name}").get_edgecolor()) for name in "abc"}
    assert len(set(colours.values())) == 3
    assert not {to_rgb(colour) for colour in LIGHT_THEME.init.values()} & {colours["a"], colours["b"]}


def test_students_of_one_initialisation_differ_in_more_than_tint(make_geometry) -> None:
    figure = figure1([make_geometry(TEN, teacher_layers=4, tokens=40)])
    looks = [artist(figure, f"curve-{name}") for name in TEN]
    for group in (looks[:5], looks[5:]):
        assert len({str(curve.get_linestyle()) for curve in group}) == 5
        assert len({to_rgb(curve.get_edgecolor()) for curve in group}) == 5
    handles = figure.legends[0].get_lines()[:10]
    assert len({line.get_marker() for line in handles}) == 10


def test_chance_lines_are_the_token_weighted_mean(geometry) -> None:
    figure = figure1([geometry])
    for student in geometry.students:
        rows = geometry.angles[geometry.angles["student"] == student].dropna(subset=["null_cosine"])
        expected = np.average(rows["null_cosine"], weights=rows["n_tokens"])
        assert artist(figure, f"chance-{student}").get_xdata()[0] == pytest.approx(expected)
    assert "chance" in texts_of(figure.axes[-1])


def test_chance_follows_the_vertex_and_unequal_tokens(make_geometry) -> None:
    geometry = make_geometry({"s": "random"}, teacher_layers=3, tokens=40)
    angles = geometry.angles.assign(null_cosine=np.linspace(0.1, 0.9, len(geometry.angles)), n_tokens=40)
    angles.loc[angles.index[0], "n_tokens"] = 4000
    geometry = dataclasses.replace(geometry, angles=angles)
    line = artist(figure1([geometry]), "chance-s").get_xdata()[0]
    assert line == pytest.approx(np.average(angles["null_cosine"], weights=angles["n_tokens"]))
    assert abs(line - angles["null_cosine"].mean()) > 0.1
    one = angles[angles["vertex"] == 2]
    line = artist(figure1([geometry], vertices=[2]), "chance-s").get_xdata()[0]
    assert line == pytest.approx(one["null_cosine"].mean())


def test_acute_shares_are_stated(geometry) -> None:
    rows = geometry.angles.dropna(subset=["acute_fraction"])
    drawn = texts_of(figure1([geometry]).axes[-1])
    for student in geometry.students:
        own = rows[rows["student"] == student]
        share = np.average(own["acute_fraction"], weights=own["n_tokens"])
        assert f"{percent(share)} acute" in drawn


def test_many_students_state_the_range_of_each_initialisation(make_geometry) -> None:
    drawn = texts_of(figure1([make_geometry(TEN, teacher_layers=4, tokens=40)]).axes[-1])
    assert sum(text.endswith(" acute") for text in drawn) == 2


@pytest.mark.parametrize(
    ("share", "words"),
    [
        (1.0, "100%"),
        (0.99996, ">99.9%"),
        (0.997, "99.7%"),
        (0.5, "50%"),
        (0.004, "0.4%"),
        (0.0001, "<0.1%"),
        (0.0, "0%"),
    ],
)
def test_percent(share: float, words: str) -> None:
    assert percent(share) == words


def test_a_panel_per_task_and_stream_with_its_letter(make_geometry) -> None:
    encoder = make_geometry(teacher_layers=4, tokens=40)
    both = make_geometry(teacher_layers=4, tokens=40, streams=("encoder", "decoder"), reading="official")
    figure = figure1([encoder, both], labels=["MNLI", "WMT"])
    assert titles(figure) == [
        "(a) the angle, to scale",
        "(b) MNLI, encoder",
        "(c) WMT, encoder (official reading)",
        "(d) WMT, decoder (official reading)",
    ]
    assert len(panel_axes(figure)) == 3
    notes = next(text.get_text() for text in figure.texts if text.get_gid() == "notes")
    assert "(b) student layers 0 to 3, 6 pairs of teacher layers" in notes
    assert "(c, d) student layer 1, teacher layers 1 and 3" in notes
    assert "Official reading" in notes
    assert "official" not in " ".join(titles(figure1([encoder], labels=["MNLI"])))


@pytest.mark.parametrize("count", range(1, 7))
@pytest.mark.parametrize("width", ["page", "column"])
def test_readable_from_one_to_six_tasks(make_geometry, faults_of, count: int, width: str) -> None:
    tasks = [make_geometry(teacher_layers=4, tokens=40, seed=seed) for seed in range(count)]
    figure = figure1(tasks, labels=[f"a task with a long name, number {n}" for n in range(count)], width=width)
    assert [faults_of(page) for page in pages_of(figure)] == [[]] * len(pages_of(figure))
    assert sum(len(titles(page)) for page in pages_of(figure)) == count + 1


@pytest.mark.parametrize("students", [1, 2, 4, 5, 10, 14])
@pytest.mark.parametrize("width", ["page", "column"])
def test_readable_from_one_to_many_students(make_geometry, faults_of, students: int, width: str) -> None:
    names = {f"a-rather-long-student-name-{'x' * n}-{n}": ["random", "teacher", None][n % 3] for n in range(students)}
    figure = figure1([make_geometry(names, teacher_layers=4, tokens=40)], width=width)
    assert faults_of(figure) == []
    drawn = legend_names(figure)
    assert len(drawn) == (students if students <= 12 else 3) + 2
    if students <= 12:
        assert all(re.search(r"-\d+( \((random|teacher) init\))?$", name) for name in drawn[:students])


@pytest.mark.parametrize("layers", [3, 4, 13, 37])
def test_readable_for_any_depth(make_geometry, faults_of, layers: int) -> None:
    assert faults_of(figure1([make_geometry(teacher_layers=layers, tokens=40)])) == []


def test_the_check_for_faults_can_fail(geometry, faults_of) -> None:
    figure = figure1([geometry])
    figure.text(0.99, 0.5, "beyond the edge")
    figure.axes[-1].set_xticks([0.0, 0.01], ["first", "second"])
    kinds = {fault.split(":")[0] for fault in faults_of(figure)}
    assert kinds == {"outside", "overlap"}


@pytest.mark.parametrize("centre", [20, 250, 500, 750, 980])
def test_shares_stand_clear_of_the_curves(geometry, centre: int) -> None:
    rng = np.random.default_rng(centre)
    bins = np.clip(rng.normal(centre, 60, 4000).round().astype(int), 0, N_BINS - 1)
    rows = geometry.histograms[geometry.histograms["teacher_i"] == -1].head(len(bins))
    table = pd.concat([rows] * (len(bins) // len(rows) + 1)).head(len(bins)).assign(bin=bins, count=1)
    table["student"] = np.where(np.arange(len(bins)) % 2, *geometry.students)
    other = dataclasses.replace(geometry, histograms=table.astype(dict(COLUMNS["histograms"])))
    figure = figure1([other])
    figure.draw_without_rendering()
    ax = figure.axes[-1]
    for text in (text for text in ax.texts if text.get_text().endswith("acute")):
        box = text.get_window_extent().transformed(ax.transData.inverted())
        for student in geometry.students:
            values, edges, _ = artist(figure, f"curve-{student}").get_data()
            under = values[(edges[1:] > box.x0) & (edges[:-1] < box.x1)]
            assert under.max() <= box.y0


def test_bins_follow_the_number_of_cosines(make_geometry) -> None:
    few, many = make_geometry(teacher_layers=4, tokens=40), make_geometry(tokens=300)
    assert len(artist(figure1([few]), "curve-random-forward").get_data()[0]) == 100
    assert len(artist(figure1([many]), "curve-random-forward").get_data()[0]) == 200


def test_rebin_refuses_what_does_not_divide() -> None:
    assert rebin(np.arange(10), 5).tolist() == [1, 5, 9, 13, 17]
    with pytest.raises(InputError, match="7 bins do not divide the 10 of the data"):
        rebin(np.arange(10), 7)


def test_a_student_without_any_angle_is_left_out_and_said(geometry, faults_of) -> None:
    gone = geometry.histograms[geometry.histograms["student"] != "teacher-forward"]
    figure = figure1([dataclasses.replace(geometry, histograms=gone)])
    assert "1 curve left out: no finite cosine." in next(t.get_text() for t in figure.texts if t.get_gid() == "notes")
    assert faults_of(figure) == []
    nothing = dataclasses.replace(geometry, histograms=geometry.histograms.head(0))
    figure = figure1([nothing])
    assert texts_of(figure.axes[-1]) == ["no finite cosine"]
    assert faults_of(figure) == []


def test_names_are_drawn_literally(make_geometry) -> None:
    names = {"$x^2$": "random", "中文": "teacher", "_hidden": None, "<script>": None}
    figure = figure1([make_geometry(names, teacher_layers=4, tokens=40, token="$")], labels=["a $task$"])
    figure.draw_without_rendering()
    assert legend_names(figure)[:4] == [
        r"\$x^2\$ (random init)",
        "\\u4e2d\\u6587 (teacher init)",
        "_hidden",
        "<script>",
    ]
    assert titles(figure)[1] == r"(b) a \$task\$, encoder"


def test_dark(geometry) -> None:
    figure = figure1([geometry], dark=True)
    assert same_color(figure.get_facecolor(), NIGHT_THEME.background)
    assert same_color(artist(figure, "curve-random-forward").get_edgecolor()[:3], NIGHT_THEME.init["random"])


def test_choices(make_geometry) -> None:
    both = make_geometry(teacher_layers=4, tokens=40, streams=("encoder", "decoder"))
    figure = figure1([both], students=["teacher-forward"], stream="decoder")
    assert titles(figure)[1:] == ["(b) decoder"]
    assert legend_names(figure)[0] == "teacher-forward (teacher init)"
    assert legend_names(figure1([both], students="teacher-forward"))[0] == "teacher-forward (teacher init)"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"students": ["random-forwards"]}, "no student 'random-forwards'; did you mean 'random-forward'?"),
        ({"stream": "decoder"}, "no stream 'decoder'"),
        ({"vertices": [9]}, "no vertex 9; the student layers analysed are 0, 1, 2, 3"),
        ({"labels": ["a", "b"]}, "2 task labels for 1 Geometry"),
        ({"width": "poster"}, "no figure width 'poster'"),
        ({"bins": 7}, "7 bins do not divide"),
        ({"bins": 0}, "0 bins do not divide"),
    ],
)
def test_bad_choices(geometry, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        figure1([geometry], **options)


def test_nothing_to_draw(geometry) -> None:
    with pytest.raises(InputError, match="no geometry to draw"):
        figure1([])
    with pytest.raises(InputError, match=r"26 panels are more than a figure holds \(25\); draw fewer tasks"):
        figure1([geometry] * 26)
