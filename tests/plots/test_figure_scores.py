"""Figures of scores: by strategy with the equivalence band, and the spread against the angle."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from anglekit.errors import InputError
from anglekit.plots.inputs import read_figure_inputs
from anglekit.plots.registry import draw_figure, figure_data
from anglekit.plots.style import LIGHT_THEME
from tests.comparison.compare_corpus import score_rows, write_run, write_sweep
from tests.plots.full_geometry import FIVE, full_geometry, score_table


def by_gid(artists, gid: str):
    return next(one for one in artists if one.get_gid() == gid)


def test_points_are_the_seeds_in_the_strategys_colour_and_marker() -> None:
    table = score_table()
    ax = draw_figure("scores-by-strategy", [], scores=[table]).axes[0]
    for strategy in FIVE:
        line = by_gid(ax.lines, f"strategy-{strategy}")
        own = table[(table["strategy"] == strategy) & (table["init"] == "random")]
        np.testing.assert_allclose(line.get_ydata(), own.sort_values("seed")["value"])
        assert line.get_color() == LIGHT_THEME.strategies[strategy].colour
        assert line.get_marker() == LIGHT_THEME.strategies[strategy].marker
    assert [label.get_text() for label in ax.get_xticklabels()] == list(FIVE)
    assert ax.get_ylabel() == "accuracy (share)"


def test_the_none_line_and_the_band() -> None:
    table = score_table()
    ax = draw_figure("scores-by-strategy", [], scores=[table], margin=0.03).axes[1]
    means = table[table["init"] == "teacher"].groupby("strategy")["value"].mean()
    np.testing.assert_allclose(by_gid(ax.lines, "none").get_ydata(), means["none"])
    band = by_gid(ax.patches, "band")
    matching = means.drop("none")
    assert band.get_height() == pytest.approx(0.03)
    assert band.get_y() + band.get_height() / 2 == pytest.approx((matching.max() + matching.min()) / 2)


def test_controls_are_drawn_beside_none_and_not_counted_as_strategies() -> None:
    plain = score_table()
    controls = [
        (name, init, 0, "validation", "accuracy", value, "")
        for init in ("random", "teacher")
        for name, value in (("alone", 0.1), ("random-teacher", 0.99))
    ]
    table = pd.concat([plain, pd.DataFrame(controls, columns=plain.columns)], ignore_index=True)
    data = figure_data("scores-by-strategy", [], scores=[table])
    assert list(dict.fromkeys(data["strategy"])) == ["alone", "none", "random-teacher", *FIVE[1:]]
    before = figure_data("scores-by-strategy", [], scores=[plain])
    own = data[data["strategy"].isin(FIVE)].reset_index(drop=True)
    pd.testing.assert_frame_equal(own, before.reset_index(drop=True))
    ax = draw_figure("scores-by-strategy", [], scores=[table]).axes[0]
    for name in ("alone", "random-teacher"):
        assert by_gid(ax.lines, f"strategy-{name}").get_color() == LIGHT_THEME.strategies[name].colour
    geometry = full_geometry(FIVE)
    spreads = [figure_data("angle-spread", [geometry], scores=[one])["spread"].tolist() for one in (plain, table)]
    assert spreads[0] == spreads[1]


@pytest.mark.parametrize(("step", "inside"), [(0.0, True), (0.002, True), (0.02, False)])
def test_all_means_lie_in_the_band_just_when_no_two_differ_by_more_than_the_margin(step: float, inside: bool) -> None:
    rows = [(name, "random", 0, "", "accuracy", 0.5 + step * rank, "") for rank, name in enumerate(FIVE)]
    data = figure_data("scores-by-strategy", [], scores=[pd.DataFrame(rows, columns=score_table().columns)])
    own = data[data["strategy"] != "none"]
    lying = ((own["mean"] >= own["band_low"] - 1e-12) & (own["mean"] <= own["band_high"] + 1e-12)).all()
    assert lying == inside
    assert data["low"].isna().all()


def test_intervals_over_seeds_are_students() -> None:
    table = score_table(seeds=4)
    data = figure_data("scores-by-strategy", [], scores=[table])
    values = table.query("strategy == 'forward' and init == 'random'")["value"]
    low, high = stats.t.interval(0.95, 3, values.mean(), stats.sem(values))
    row = data.query("strategy == 'forward' and init == 'random'").iloc[0]
    assert (row["low"], row["high"]) == pytest.approx((low, high))


@pytest.mark.parametrize(("scale", "margin", "unit"), [(1.0, 0.01, "share"), (100.0, 1.0, "points")])
def test_the_default_margin_is_a_point(scale: float, margin: float, unit: str) -> None:
    table = score_table(scale=scale, score="bleu")
    assert set(figure_data("scores-by-strategy", [], scores=[table])["margin"]) == {margin}
    figure = draw_figure("scores-by-strategy", [], scores=[table])
    assert figure.axes[0].get_ylabel() == f"bleu ({unit})"
    assert any(f"equivalence band, {margin:g} high" in text.get_text() for text in figure.texts)


def test_a_panel_per_task_and_initialisation(faults_of) -> None:
    figure = draw_figure(
        "scores-by-strategy", [], scores=[score_table(), score_table(rng_seed=1)], labels=["MNLI", "SST-2"]
    )
    titles = [text.get_text() for text in figure.texts if text.get_gid() == "title"]
    assert titles == [f"{t}, {i} init, validation" for t in ("MNLI", "SST-2") for i in ("random", "teacher")]
    assert faults_of(figure) == []


def test_other_strategies_are_drawn_and_named(faults_of) -> None:
    names = [*FIVE, "last-layers", "learned-attention", "earth-mover"]
    figure = draw_figure("scores-by-strategy", [], scores=[score_table(names)], width="column")
    assert faults_of(figure) == []
    turned = figure.axes[0].get_xticklabels()
    assert [(label.get_text(), label.get_rotation()) for label in turned] == [(name, 90.0) for name in names]
    # The axis names them: the legend does not again.
    assert not set(names) & {text.get_text() for text in figure.texts if text.get_gid() == "legend"}


def test_spread_and_angle_of_each_task() -> None:
    geometry, table = full_geometry(FIVE), score_table()
    data = figure_data(
        "angle-spread", [geometry, geometry], scores=[table, score_table(scale=100.0)], labels=["a", "b"]
    )
    assert len(data) == 4
    means = table[(table["init"] == "random") & (table["strategy"] != "none")].groupby("strategy")["value"].mean()
    row = data.query("task == 'a' and init == 'random'").iloc[0]
    assert row["spread"] == pytest.approx(100 * (means.max() - means.min()))
    assert row["spread_low"] < row["spread"] < row["spread_high"]
    assert data.query("task == 'b' and init == 'random'")["spread"].iloc[0] == pytest.approx(row["spread"])
    matching = [f"{name}-random-seed0" for name in FIVE if name != "none"]
    angles = geometry.angles[geometry.angles["student"].isin(matching)].groupby("student")["mean_angle_degrees"].mean()
    assert row["mean_angle_degrees"] == pytest.approx(angles.mean())
    assert (row["angle_low"], row["angle_high"]) == pytest.approx((angles.min(), angles.max()))


def test_intervals_of_few_seeds_do_not_squeeze_the_points_of_a_share() -> None:
    table = score_table(seeds=2)
    table["value"] = [0.1 if seed else 0.9 for seed in table["seed"]]
    figure = draw_figure("scores-by-strategy", [], scores=[table])
    data = figure_data("scores-by-strategy", [], scores=[table])
    assert data["low"].min() < -1
    assert data["high"].max() > 2
    for ax in figure.axes:
        assert ax.get_ylim() == pytest.approx((-0.02, 1.02))
    assert any("longer bars end at its edge" in " ".join(text.get_text().split()) for text in figure.texts)
    near = draw_figure("scores-by-strategy", [], scores=[table.assign(value=0.5 + 0.1 * table["value"])])
    assert near.axes[0].get_ylim() == pytest.approx((0.51 - 0.15 * 0.08, 0.59 + 0.15 * 0.08))
    whole = draw_figure("scores-by-strategy", [], scores=[table.assign(value=100 * table["value"])])
    assert whole.axes[0].get_ylim() == pytest.approx((10 - 12, 90 + 12))
    calm = draw_figure("scores-by-strategy", [], scores=[score_table(seeds=1)])
    assert not any("bars end" in " ".join(text.get_text().split()) for text in calm.texts)
    spread = draw_figure("angle-spread", [full_geometry(FIVE)], scores=[table])
    assert spread.axes[0].get_ylim()[1] <= 100


def test_spread_points_are_the_data() -> None:
    geometry, table = full_geometry(FIVE), score_table(seeds=1)
    figure = draw_figure("angle-spread", [geometry], scores=[table], labels=["MNLI"])
    data = figure_data("angle-spread", [geometry], scores=[table], labels=["MNLI"])
    # Two points are no cloud: each has a row, the smallest angle first.
    ordered = data.sort_values("mean_angle_degrees")
    for place, row in enumerate(ordered.itertuples()):
        point = by_gid(figure.axes[0].lines, f"point-MNLI-{row.init}")
        np.testing.assert_allclose(point.get_xydata(), [[row.spread, place]])
        assert point.get_color() == LIGHT_THEME.init[row.init]
        label = figure.axes[0].get_yticklabels()[place].get_text()
        assert label.startswith(f"{row.init} init\nangle {row.mean_angle_degrees:.0f}°")
    tasks = ["a", "b", "c"]
    many = draw_figure("angle-spread", [geometry] * 3, scores=[table] * 3, labels=tasks)
    for task, row in itertools.product(tasks, data.itertuples()):
        point = by_gid(many.axes[0].lines, f"point-{task}-{row.init}")
        np.testing.assert_allclose(point.get_xydata(), [[row.mean_angle_degrees, row.spread]])
    assert any("No interval of the spread: 1 seed." in " ".join(text.get_text().split()) for text in figure.texts)
    assert [one.axes[0].get_xlabel() for one in (figure, many)] == [
        "spread of the score (points)",
        "mean angle (degrees)",
    ]


def test_sources_of_every_kind(tmp_path: Path) -> None:
    for name in ("geometry", "geometry-3-layers"):
        full_geometry().save(tmp_path / "run" / name)
    table = score_table(seeds=1)
    wide = table.pivot_table(index=["strategy", "init", "seed", "data"], columns="score", values="value").reset_index()
    file = tmp_path / "scores.csv"
    wide.assign(examples=9, steps=3).to_csv(file, index=False)
    found = read_figure_inputs([tmp_path / "run", file])
    assert (found.names, found.score_names) == (("geometry", "geometry-3-layers"), ("scores",))
    read = found.scores[0].sort_values(["strategy", "init"], ignore_index=True)
    expected = table.sort_values(["strategy", "init"], ignore_index=True)
    np.testing.assert_allclose(read["value"], expected["value"])
    assert list(read["strategy"]) == list(expected["strategy"])  # "none" is a strategy, not a missing value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("strategy,init,seed,accuracy\nnone,random,0,1", "lacks the column 'data'"),
        ("strategy,init,seed,data,accuracy\nnone,random,x,v,1", "a seed that is no whole number"),
        ("strategy,init,seed,data,accuracy\nnone,random,0,v,", "holds no score"),
        ("", "cannot be read"),
    ],
)
def test_damaged_score_tables(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "scores.csv"
    file.write_text(text)
    with pytest.raises(InputError, match=message):
        read_figure_inputs([file])


def test_sweeps_are_a_task_each_and_runs_together_are_one(tmp_path: Path) -> None:
    scores = {"none": 0.6, "forward": 0.7, "reverse": 0.69}
    sweeps = [write_sweep(tmp_path / name, score_rows(scores)) for name in ("mnli", "sst2")]
    runs = [write_run(tmp_path / "runs" / name, name, value) for name, value in scores.items()]
    found = read_figure_inputs([*sweeps, *runs])
    assert found.score_names == ("mnli", "sst2", "runs")
    assert [len(table) for table in found.scores] == [9, 9, 3]
    assert sorted(found.scores[2]["value"]) == sorted(scores.values())
    with pytest.raises(InputError, match="no directory"):
        read_figure_inputs([tmp_path / "absent"])
