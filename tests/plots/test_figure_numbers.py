"""What each figure draws is what its tables hold."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.collections import LineCollection, QuadMesh

from anglekit.errors import InputError
from anglekit.plots.figure1.figure1 import figure1
from anglekit.plots.figures.layer_trajectories import fit_plane
from anglekit.plots.figures.training_angles import training_step
from anglekit.plots.registry import FIGURES, draw_figure, figure_data
from anglekit.plots.style import LIGHT_THEME
from anglekit.results.joint_intervals import with_joint_intervals
from anglekit.results.student_t import wilson_interval
from tests.plots.full_geometry import FIVE, full_geometry


@pytest.fixture(scope="module")
def geometry():
    return full_geometry(FIVE)


def lines(ax, gid: str):
    return next(line for line in ax.lines if line.get_gid() == gid)


def titles(figure) -> list[str]:
    return [text.get_text() for text in figure.texts if text.get_gid() == "title"]


def legend(figure) -> list[str]:
    return [text.get_text() for text in figure.texts if text.get_gid() == "legend"]


def notes(figure) -> str:
    return " ".join(next(text.get_text() for text in figure.texts if text.get_gid() == "notes").split())


def cells(figure) -> list[np.ndarray]:
    found = [next((one for one in ax.collections if isinstance(one, QuadMesh)), None) for ax in figure.axes]
    bars = [ax.get_gid() == "colour-bar" for ax in figure.axes]
    return [np.asarray(mesh.get_array()) for mesh, bar in zip(found, bars, strict=True) if mesh is not None and not bar]


def test_null_heatmap_is_observed_minus_null(geometry) -> None:
    figure = draw_figure("null-heatmap", [geometry], students="forward-random-seed0", vertices=[1])
    (drawn,) = cells(figure)
    table = geometry.nulls.query("student == 'forward-random-seed0' and vertex == 1")
    for row in table.itertuples():
        expected = row.observed_cosine - row.mean_cosine
        assert drawn[row.teacher_i, row.teacher_k] == pytest.approx(expected)
        assert drawn[row.teacher_k, row.teacher_i] == pytest.approx(expected)
    assert "another example" in notes(figure)
    above = int((with_joint_intervals(geometry.nulls).loc[table.index, "joint_low"] > 0).sum())
    assert f"Of {len(table)} pairs {above} are above" in notes(figure)
    assert "95% for all of them together" in notes(figure)
    data = figure_data("null-heatmap", [geometry], students="forward-random-seed0", vertices=[1])
    assert (data["joint_low"] < data["low"]).all()
    assert (data["joint_high"] > data["high"]).all()


def test_null_heatmap_falls_back_to_the_closed_form() -> None:
    geometry = full_geometry(("forward",), ("random",), without=["nulls"])
    data = figure_data("null-heatmap", [geometry])
    assert set(data["null"]) == {"formula"}
    np.testing.assert_allclose(data["observed_minus_null"], geometry.angles["mean_cosine"] - 0.4)
    assert data["low"].isna().all()
    assert "closed form" in notes(draw_figure("null-heatmap", [geometry]))
    with pytest.raises(InputError, match=r"no null 'permuted-student'.*; run `anglekit analyze --nulls all`"):
        figure_data("null-heatmap", [geometry], null="permuted-student")


@pytest.mark.parametrize(
    ("measure", "column"), [("distance", "mean_distance"), ("cosine", "mean_cosine"), ("cka", "cka")]
)
def test_layer_heatmaps_are_the_table(geometry, measure: str, column: str) -> None:
    figure = draw_figure(f"layer-{measure}", [geometry], students="reverse-teacher-seed0")
    own, across = cells(figure)
    table = geometry.layers[geometry.layers["student"] == "reverse-teacher-seed0"]
    for row in table[table["side_a"] == "teacher"].itertuples():
        expected = getattr(row, column)
        if row.side_b == "teacher":
            assert own[row.layer_a, row.layer_b] == own[row.layer_b, row.layer_a] == pytest.approx(expected)
        else:
            assert across[row.layer_b, row.layer_a] == pytest.approx(expected)
    assert across.shape == (3, 5)
    assert figure.axes[0].get_ylabel() == "own layer"
    assert figure.axes[1].get_xlabel() == "teacher layer"
    limits = next(one for one in figure.axes[0].collections if isinstance(one, QuadMesh)).get_clim()
    if measure == "cosine":
        assert limits[0] == -limits[1]
    else:
        assert limits[0] == 0.0
    if measure == "cka":
        assert limits == (0.0, 1.0)


def test_what_is_not_told_from_chance_is_blank(geometry) -> None:
    figure = draw_figure("layer-cka", [geometry], students="reverse-teacher-seed0")
    covers = [[one for one in ax.collections if one.get_gid() == "untold"] for ax in figure.axes[:2]]
    # Layers more than two apart: three pairs of the teacher, on both sides of its diagonal, and three across.
    assert [[len(one.get_paths()) for one in cover] for cover in covers] == [[6], [3]]
    assert "Blank or dotted: not told from chance" in notes(figure)
    readable = {text.get_text(): text.get_color() for text in figure.axes[1].texts}
    assert readable[".20"] == readable[".25"] == LIGHT_THEME.ink != readable[".33"]
    data = figure_data("layer-cka", [geometry], students="reverse-teacher-seed0")
    assert list(data.columns[-3:]) == ["cka", "cka_null", "cka_p_adjusted"]
    assert "(3 of 15 not told from chance)" in FIGURES["layer-cka"].facts(data)
    before = dataclasses.replace(geometry, layers=geometry.layers.assign(cka_null=np.nan, cka_p_adjusted=np.nan))
    old = draw_figure("layer-cka", [before], students="reverse-teacher-seed0")
    assert "not told" not in notes(old)
    assert figure_data("layer-cka", [before]).columns[-1] == "cka"
    assert "not told" not in notes(draw_figure("layer-distance", [geometry]))


def test_layer_heatmap_data_holds_the_teacher_once(geometry) -> None:
    data = figure_data("layer-distance", [geometry])
    assert (data["side_b"] == "teacher").sum() == 15
    assert set(data.loc[data["side_b"] == "teacher", "student"]) == {""}
    assert (data["side_b"] == "student").sum() == 10 * 15


def test_acute_fractions_and_their_intervals(geometry) -> None:
    data = figure_data("acute-fraction", [geometry])
    figure = draw_figure("acute-fraction", [geometry])
    assert titles(figure) == ["encoder, random init", "encoder, teacher init"]
    assert legend(figure) == list(FIVE)
    line = lines(figure.axes[0], "student-forward-random-seed0")
    own = data[data["student"] == "forward-random-seed0"]
    np.testing.assert_allclose(line.get_ydata(), 100 * own["acute_fraction"])
    assert line.get_color() == LIGHT_THEME.strategies["forward"].colour
    assert line.get_marker() == LIGHT_THEME.strategies["forward"].marker
    bars = [
        np.array(one.get_segments())[:, :, 1] for one in figure.axes[0].collections if isinstance(one, LineCollection)
    ]
    expected = 100 * own[["low", "high"]].to_numpy()
    assert any(np.allclose(bar, expected) for bar in bars)
    assert ((data["low"] <= data["acute_fraction"]) & (data["acute_fraction"] <= data["high"])).all()
    table = geometry.angles.query("student == 'forward-random-seed0' and vertex == 0")
    assert own["acute_fraction"].iloc[0] == pytest.approx(
        np.average(table["acute_fraction"], weights=table["n_tokens"])
    )
    # four tokens of an example that say one thing count as one
    assert own["n_effective"].iloc[0] == pytest.approx(6.0)


@given(st.floats(0, 1), st.floats(0.5, 1e6))
@settings(max_examples=60, deadline=None)
def test_wilson_interval_holds_its_share_and_narrows(share: float, n: float) -> None:
    low, high = wilson_interval(share, n, 1.96)
    assert 0 <= low <= share <= high <= 1
    wider = wilson_interval(share, n / 2, 1.96)
    assert high - low <= wider[1] - wider[0] + 1e-12


def test_wilson_interval_by_hand() -> None:
    low, high = wilson_interval(0.5, 100, 1.959964)
    assert (low, high) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    assert wilson_interval(1.0, 10, 1.959964)[0] == pytest.approx(0.7225, abs=1e-4)
    assert np.isnan(wilson_interval(0.5, 0, 1.96)).all()


def test_norms_of_teacher_and_students(geometry) -> None:
    figure = draw_figure("layer-norms", [geometry])
    table = geometry.layers[geometry.layers["mean_norm"].notna()]
    for side, gid in (("teacher", "teacher"), ("student", "student-none-teacher-seed0")):
        rows = table[(table["side_a"] == side) & (table["student"] == "none-teacher-seed0")]
        np.testing.assert_allclose(lines(figure.axes[1], gid).get_ydata(), rows["mean_norm"])
    assert legend(figure) == ["teacher", *FIVE]


@pytest.mark.parametrize("scale", [0.01, 1.0, 300.0])
def test_norms_that_hardly_differ_look_as_if_they_hardly_differ(geometry, scale: float) -> None:
    nearly = scale * (1 + 1e-4 * np.sin(np.arange(len(geometry.layers))))
    layers = geometry.layers.assign(mean_norm=geometry.layers["mean_norm"].notna().map({True: 1.0}) * nearly)
    low, high = draw_figure("layer-norms", [dataclasses.replace(geometry, layers=layers)]).axes[0].get_ylim()
    assert low <= 0.96 * scale
    assert high >= 1.04 * scale


def test_a_lone_panel_takes_the_width(geometry) -> None:
    figure = draw_figure("acute-fraction", [geometry], students="forward-random-seed0")
    assert figure.axes[0].get_position().x1 > 0.95


def test_students_stand_beside_the_teacher_or_under_it_with_cells_of_one_size(geometry) -> None:
    for width in ("page", "column"):
        figure = draw_figure("layer-cka", [geometry], students="forward-random-seed0", width=width)
        own, across = figure.axes[:2]
        teacher, student = own.get_position(), across.get_position()
        assert (student.width, student.height / 3) == pytest.approx((teacher.width, teacher.height / 5))
        if width == "page":
            assert (student.y1, student.x0 > teacher.x1) == (pytest.approx(teacher.y1), True)
        else:
            assert (student.x0, student.y1 < teacher.y0) == (pytest.approx(teacher.x0), True)
        assert [own.get_ylabel(), across.get_ylabel()] == ["own layer", "" if width == "page" else "own layer"]


def test_anisotropy_draws_the_view_that_is_asked_for(geometry) -> None:
    for view in ("raw", "centred"):
        rows = geometry.anisotropy.query(f"view == '{view}' and side == 'student' and student == 'random-random-seed0'")
        drawn = lines(
            draw_figure("anisotropy", [geometry], value=view).axes[0], "student-random-random-seed0"
        ).get_ydata()
        np.testing.assert_allclose(drawn, rows["mean_cosine"])


def test_dominant_dimensions_add_up_to_what_they_are_parts_of(geometry) -> None:
    data = figure_data("dominant-dimensions", [geometry])
    assert data["dimension"].nunique() == 8
    np.testing.assert_allclose(data["contribution"], data["share"] * data["mean_cosine"])
    figure = draw_figure("dominant-dimensions", [geometry], students="none-random-seed0")
    teacher, student = cells(figure)
    assert (teacher.shape, student.shape) == ((8, 5), (8, 3))
    chosen = figure_data("dominant-dimensions", [geometry], students="none-random-seed0")
    order = chosen["contribution"].abs().groupby(chosen["dimension"]).sum().sort_values().index
    top = chosen[(chosen["dimension"] == order[-1]) & (chosen["side"] == "student")].sort_values("layer")
    np.testing.assert_allclose(student[-1], top["contribution"])


def test_sweep_means_over_pairs(geometry) -> None:
    figure = draw_figure("vertex-sweep", [geometry], students="forward-teacher-seed0")
    table = geometry.vertex_sweep.query("student == 'forward-teacher-seed0' and vertex == 2")
    expected = table.groupby("t")["mean_angle_degrees"].mean()
    line = lines(figure.axes[0], "vertex-2")
    np.testing.assert_allclose(line.get_xdata(), expected.index)
    np.testing.assert_allclose(line.get_ydata(), expected)
    assert figure.axes[0].get_ylabel() == "mean angle (degrees)"
    assert titles(figure) == ["forward, teacher init"]


def test_a_plane_is_that_of_principal_components() -> None:
    rng = np.random.default_rng(1)
    states = rng.normal(size=(7, 30)) * np.linspace(3, 0.1, 30)
    others = rng.normal(size=(4, 30))
    squared = ((states[:, None] - states[None]) ** 2).sum(2)
    plane = fit_plane(squared)
    centred = states - states.mean(0)
    _, singular, axes = np.linalg.svd(centred, full_matrices=False)
    expected = centred @ axes[:2].T
    signs = np.sign((plane.points * expected).sum(0))
    np.testing.assert_allclose(plane.points, expected * signs, atol=1e-9)
    np.testing.assert_allclose(plane.explained, (singular**2 / (singular**2).sum())[:2])
    placed, off = plane.place(((others[:, None] - states[None]) ** 2).sum(2))
    offset = others - states.mean(0)
    np.testing.assert_allclose(placed, offset @ axes[:2].T * signs, atol=1e-9)
    residual = offset - offset @ axes[:2].T @ axes[:2]
    np.testing.assert_allclose(off, np.linalg.norm(residual, axis=1), atol=1e-9)
    wrong, _ = plane.place(((others[:, None] - states[None]) ** 2).sum(2) ** 1.1)
    assert not np.allclose(wrong, placed, rtol=1e-3)


def test_a_line_of_points_has_no_second_axis() -> None:
    places = np.arange(4.0)[:, None]
    plane = fit_plane((places - places.T) ** 2)
    np.testing.assert_allclose(plane.explained, [1, 0], atol=1e-9)
    np.testing.assert_allclose(plane.points[:, 1], 0)
    np.testing.assert_allclose(fit_plane(np.zeros((3, 3))).points, 0)


def test_trajectories_draw_their_data_and_say_what_the_plane_holds(geometry) -> None:
    data = figure_data("layer-trajectories", [geometry])
    figure = draw_figure("layer-trajectories", [geometry])
    line = lines(figure.axes[0], "student-forward-random-seed0")
    own = data[data["student"] == "forward-random-seed0"]
    np.testing.assert_allclose(line.get_xydata(), own[["x", "y"]])
    share = 100 * (data["explained_x"] + data["explained_y"]).iloc[0]
    assert f"= {share:.0f}%" in notes(figure)
    assert titles(figure)[::2] == ["encoder, random init", "encoder, teacher init"]
    with pytest.raises(InputError, match="at least three teacher layers"):
        draw_figure("layer-trajectories", [full_geometry(("forward",), ("random",), teacher_layers=2, depth=1)])


def at_step(geometry, step: int, shift: float, **settings):
    angles = geometry.angles.assign(mean_angle_degrees=geometry.angles["mean_angle_degrees"] + shift)
    return dataclasses.replace(geometry, angles=angles, provenance={**geometry.provenance, **settings}, settings={})


def test_angles_over_training_in_the_order_of_steps(geometry) -> None:
    given_steps = [(300, 9.0), (0, 0.0), (100, 4.0)]
    figure = draw_figure("training-angles", [at_step(geometry, s, d, training_step=s) for s, d in given_steps])
    panel = titles(figure).index("forward, random init")
    line = lines(figure.axes[panel], "vertex-1")
    start = geometry.angles.query("student == 'forward-random-seed0' and vertex == 1")["mean_angle_degrees"].mean()
    np.testing.assert_allclose(line.get_xdata(), [0, 100, 300])
    np.testing.assert_allclose(line.get_ydata(), start + np.array([0, 4, 9]))
    assert legend(figure) == ["chance (closed form)"]
    assert legend(draw_figure("training-angles", [at_step(geometry, s, s, training_step=s) for s in (0, 60)])) == [
        "right angle",
        "chance (closed form)",
    ]
    data = figure_data("training-angles", [at_step(geometry, s, d, training_step=s) for s, d in given_steps])
    np.testing.assert_allclose(np.cos(np.radians(data["chance_angle_degrees"])), data["chance_cosine"])


def test_the_step_is_read_from_provenance_else_the_name(geometry) -> None:
    assert training_step(geometry, "geometry-step-200") == 200
    assert training_step(at_step(geometry, 7, 0, training_step=7), "geometry-step-200") == 7
    assert training_step(dataclasses.replace(geometry, settings={"training_step": 8}), None) == 8
    assert training_step(geometry, "geometry") is None
    data = figure_data("training-angles", [geometry, geometry], labels=["step-1", "step-20"])
    assert sorted(data["step"].unique()) == [1, 20]
    with pytest.raises(InputError, match="nothing tells the training step of last; name its directory"):
        figure_data("training-angles", [geometry, geometry], labels=["step-1", "last"])
    with pytest.raises(InputError, match=r"step 1 of .* came twice"):
        figure_data("training-angles", [geometry, geometry], labels=["a-1", "b-1"])


def test_checkpoints_of_one_run_are_one_student() -> None:
    both = [full_geometry(("forward",), ("random",), names=[f"checkpoint-{n}"]) for n in (10, 20)]
    data = figure_data("training-angles", both, labels=["geometry-10", "geometry-20"])
    assert set(data["student"]) == {"checkpoint-20"}
    assert data.groupby("vertex")["step"].nunique().eq(2).all()


def test_different_probes_are_refused(geometry) -> None:
    others = [at_step(geometry, s, 0, training_step=s, probe={"sha256": str(s)}) for s in (1, 2)]
    with pytest.raises(InputError, match="different probes"):
        draw_figure("training-angles", others)
    same = [at_step(geometry, 1, 0, training_step=1)] * 2
    with pytest.raises(InputError, match="all Geometries are of training step 1"):
        draw_figure("training-angles", same)


def test_students_without_a_record_are_drawn_by_name() -> None:
    geometry = full_geometry(("forward", "reverse"), ("random",), names=["a", "<b> $x$"])
    bare = dataclasses.replace(geometry, provenance={"students": [{"name": name} for name in ("a", "<b> $x$")]})
    figure = draw_figure("acute-fraction", [bare])
    assert legend(figure) == ["a", r"<b> \$x\$"]
    assert titles(figure) == ["encoder, init not recorded"]
    assert pd.isna(figure_data("acute-fraction", [bare])["seed"]).all()


def test_figure1_is_drawn_from_its_data(make_geometry) -> None:
    geometry = make_geometry(teacher_layers=4, tokens=40)
    data = figure_data("figure1", [geometry], labels=["MNLI"])
    figure = figure1([geometry], labels=["MNLI"])
    for student in geometry.students:
        own = data[data["student"] == student]
        curves = [patch for ax in figure.axes for patch in ax.patches if patch.get_gid() == f"curve-{student}"]
        np.testing.assert_allclose(curves[0].get_data().values, own["density"])
        assert (own["density"] * (own["bin_right"] - own["bin_left"])).sum() == pytest.approx(1.0)
    assert "MNLI, encoder" in FIGURES["figure1"].facts(data)


def test_a_deep_student_is_thinned_and_says_so() -> None:
    deep = full_geometry(("forward",), ("random",), teacher_layers=31, depth=30)
    data = figure_data("null-heatmap", [deep])
    drawn = sorted(data["vertex"].unique())
    assert (len(drawn), drawn[0], drawn[-1]) == (12, 0, 30)
    assert "of 31 analysed" in notes(draw_figure("null-heatmap", [deep]))
    assert sorted(figure_data("null-heatmap", [deep], vertices=range(20))["vertex"].unique()) == list(range(20))


def test_numbers_of_one_decimal_keep_their_zero(geometry) -> None:
    ax = draw_figure("layer-distance", [geometry], students="none-random-seed0").axes[0]
    assert "0.0" in {text.get_text() for text in ax.texts}
