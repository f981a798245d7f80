"""Does the angle foretell how much layer selection matters? Mean angle against the spread of scores, over tasks."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from anglekit.comparison.cells import score_cells
from anglekit.comparison.statistics import LEVEL, difference_rows, estimate_cell, joint_of, spread_row
from anglekit.display.counts import counted
from anglekit.errors import InputError
from anglekit.plots.inputs import FigureInputs
from anglekit.plots.panels.chosen import check_labels, choose_value
from anglekit.plots.panels.labels import plain, shorten_middle
from anglekit.plots.panels.line_panels import Entry, LinePanel, draw_line_panels
from anglekit.plots.spec import FigureOptions, FigureSpec
from anglekit.plots.style import GUIDE_DASHES, MARKERS, Theme, init_kind, init_order, init_words, round_ticks
from anglekit.results.geometry import Geometry
from anglekit.results.overview import pair_mean
from anglekit.vocabulary import matches_layers

_LEAST_DEGREES = 30.0  # that the axis of angles spans
_FEWEST_POINTS = 5  # fewer show nothing as a cloud: each has a row, with its angle in words
_LETTER = 0.055  # inches: the mean width of a letter of small text


def _check(inputs: FigureInputs) -> None:
    if len(inputs.geometries) != len(inputs.scores):
        raise InputError(
            f"{counted(len(inputs.geometries), 'Geometry', plural='Geometries')} and "
            f"{counted(len(inputs.scores), 'table')} of scores",
            "give a Geometry and a sweep for each task, in one order",
        )
    for number, (geometry, table) in enumerate(zip(inputs.geometries, inputs.scores, strict=True), start=1):
        arms = {(strategy, init) for strategy, init, _ in geometry.arms.values() if matches_layers(strategy)}
        inits = [init for _, init in arms & set(zip(table["strategy"], table["init"], strict=True))]
        if len(inits) == len(set(inits)):
            raise InputError(
                f"task {number}: its Geometry and its scores share no two matching strategies of one initialisation",
                "analyse the students of its sweep",
            )


def _data(inputs: FigureInputs, options: FigureOptions) -> pd.DataFrame:
    """Return a row per task, evaluation table and initialisation.

    Columns: `task, data, score, init`; `mean_angle_degrees` over the matching students' layers, tokens and pairs, with
    the range over strategies `angle_low, angle_high`; `spread`, the largest minus the smallest mean of the matching
    strategies in points (hundredths of a score between 0 and 1); `spread_low, spread_high`, its interval over seeds,
    which holds for all pairs at once (NaN with fewer than three); `n_strategies, n_seeds`.
    """
    names = check_labels(options.labels, len(inputs.geometries))
    names = names or [f"task {number + 1}" for number in range(len(inputs.geometries))]
    rows = []
    for geometry, table, name in zip(inputs.geometries, inputs.scores, names, strict=True):
        angles = _angles(geometry)
        chosen = table[table["score"] == choose_value(options.value, table["score"], "score")]
        for cell in score_cells(chosen)[0]:
            own = angles[(angles["init"] == cell.init) & angles["strategy"].isin(cell.matching)]
            estimates = estimate_cell(cell, 1.0)
            spread = spread_row(estimates, difference_rows(estimates, joint_of([estimates], LEVEL)))
            if own.empty or spread is None or not np.isfinite(spread["spread"]):
                continue
            factor = 100.0 if max(float(np.abs(one).max()) for one in cell.students.values()) <= 1 else 1.0
            by_strategy = own.groupby("strategy")["mean_angle_degrees"].mean()
            rows.append(
                {
                    "task": name,
                    "data": cell.place["data"],
                    "score": cell.place["score"],
                    "init": cell.init,
                    "mean_angle_degrees": float(by_strategy.mean()),
                    "angle_low": float(by_strategy.min()),
                    "angle_high": float(by_strategy.max()),
                    "spread": spread["spread"] * factor,
                    "spread_low": spread["spread_low"] * factor,
                    "spread_high": spread["spread_high"] * factor,
                    "n_strategies": spread["n_strategies"],
                    "n_seeds": int(spread["n_seeds"]),
                }
            )
    return pd.DataFrame(rows)


def _angles(geometry: Geometry) -> pd.DataFrame:
    """Return each student's mean angle over layers, tokens and pairs."""
    arms = geometry.arms
    rows = [
        (*arms[str(student)][:2], pair_mean(own, "mean_angle_degrees"))
        for student, own in geometry.angles.groupby("student", sort=False)
    ]
    return pd.DataFrame(rows, columns=["strategy", "init", "mean_angle_degrees"])


def _draw(inputs: FigureInputs, options: FigureOptions, look: Theme, width: float) -> Figure:
    data = _data(inputs, options)
    tasks = list(dict.fromkeys(data["task"]))
    inits = init_order(list(data["init"]))
    seeds = int(data["n_seeds"].min())
    points = len(data)
    known = data["spread_low"].notna().any()
    shares = all(float(table["value"].abs().max()) <= 1 for table in inputs.scores)
    most = 100.0 if shares else np.inf
    upright = "95% interval over seeds for all pairs at once."
    none_known = f"No interval of the spread: {seeds} seed{'s' if seeds > 1 else ''}."
    several = len(set(data["task"])) > 1
    if points < _FEWEST_POINTS:
        data = data.sort_values("mean_angle_degrees", kind="stable")
        names = _row_names(data, narrow=width < 4)
        longest = max(len(line) for name in names for line in name.split("\n"))
        return draw_line_panels(
            [LinePanel("", lambda ax: _draw_rows(ax, data, names, tasks, look, most=most), None)],
            look,
            width,
            xlabel="spread of the score (points)",
            ylabel="",
            legend=[],
            notes=[
                "A row per task and initialisation, with the mean angle and its range over strategies, the smallest "
                f"first. {_SPREAD_WORDS} {f'Bars: {upright}' if known else none_known}"
            ],
            height=0.2 + (0.42 if several and width < 4 else 0.34) * points,
            most_columns=1,
            widest=None if width < 4 else 4.6,
            left=0.2 + _LETTER * longest,
        )
    return draw_line_panels(
        [LinePanel("", lambda ax: _draw_points(ax, data, tasks, look, most=most), None)],
        look,
        width,
        xlabel="mean angle (degrees)",
        ylabel="spread of the score (points)",
        legend=[
            *(Entry.line(init_words(init), look.init.get(init_kind(init), look.ink), linestyle="-") for init in inits),
            *(
                Entry.line(task, look.ink, marker=MARKERS[rank % len(MARKERS)], linestyle="none")
                for rank, task in enumerate(tasks)
                if len(tasks) > 1
            ),
        ],
        notes=[
            f"A dot per task and initialisation: {points}. {_SPREAD_WORDS} Across: range of the angle over strategies. "
            + (f"Upright: {upright}" if known else none_known)
        ],
        height=1.8,
        most_columns=1,
        widest=3.4,
    )


_SPREAD_WORDS = (
    "Spread: largest minus smallest mean of the matching strategies; a point is 0.01 of a score between 0 and 1."
)


def _row_names(data: pd.DataFrame, *, narrow: bool) -> list[str]:
    """Return what each row is called: its task where there are several, its initialisation, and its angle."""
    several = len(set(data["task"])) > 1
    names = []
    for row in data.to_dict("records"):
        words = [*([str(row["task"])] if several else []), init_words(str(row["init"]))]
        who = ("\n" if narrow else ", ").join(plain(shorten_middle(one, 20 if narrow else 30)) for one in words)
        angle, low, high = (f"{row[each]:.0f}" for each in ("mean_angle_degrees", "angle_low", "angle_high"))
        names.append(f"{who}\nangle {angle}°{'' if low == high else f' ({low} to {high}°)'}")
    return names


def _draw_rows(
    ax: Axes, data: pd.DataFrame, names: Sequence[str], tasks: Sequence[str], look: Theme, *, most: float
) -> None:
    """Draw each spread with its interval in a row of its own."""
    for place, row in enumerate(data.to_dict("records")):
        colour = look.init.get(init_kind(str(row["init"])), look.ink)
        if np.isfinite(row["spread_low"]):
            ax.hlines(place, row["spread_low"], row["spread_high"], color=colour, linewidth=1.0, zorder=3)
        _mark(ax, row, float(row["spread"]), float(place), colour, tasks, look)
    ax.set_xlim(0.0, _top(data, most))
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_yticks(range(len(names)), names)
    ax.xaxis.set_major_locator(round_ticks(6))


def _mark(
    ax: Axes, row: Mapping[Hashable, Any], x: float, y: float, colour: str, tasks: Sequence[str], look: Theme
) -> None:
    ax.plot(
        [x],
        [y],
        marker=MARKERS[tasks.index(row["task"]) % len(MARKERS)],
        color=colour,
        markersize=5.0,
        markeredgecolor=look.background,
        markeredgewidth=0.4,
        zorder=4,
        gid=f"point-{row['task']}-{row['init']}",
    )


def _top(data: pd.DataFrame, most: float) -> float:
    """Return where the axis of spreads ends: with few seeds the interval reaches beyond any possible spread."""
    highest = max(float(data["spread"].max()), float(data["spread_high"].fillna(0.0).clip(upper=most).max()))
    return min(1.1 * highest, max(most, highest)) or 1.0


def _draw_points(ax: Axes, data: pd.DataFrame, tasks: Sequence[str], look: Theme, *, most: float) -> None:
    for row in data.to_dict("records"):
        colour = look.init.get(init_kind(str(row["init"])), look.ink)
        ax.hlines(row["spread"], row["angle_low"], row["angle_high"], color=colour, linewidth=0.9, alpha=0.7, zorder=2)
        if np.isfinite(row["spread_low"]):
            ax.vlines(
                row["mean_angle_degrees"], row["spread_low"], row["spread_high"], color=colour, linewidth=0.9, alpha=0.7
            )
        _mark(ax, row, float(row["mean_angle_degrees"]), float(row["spread"]), colour, tasks, look)
    ax.set_ylim(bottom=0.0, top=_top(data, most))
    ax.margins(x=0.12)
    low, high = ax.get_xlim()
    # Some degrees are no difference between tasks: the axis is never so narrow that they fill it.
    spare = max(_LEAST_DEGREES - (high - low), 0.0) / 2
    low, high = max(low - spare, 0.0), min(high + spare, 180.0)
    ax.set_xlim(low, high)
    if low <= 90.0 <= high:
        ax.axvline(90.0, color=look.faint, linewidth=0.8, linestyle=GUIDE_DASHES, zorder=1)
    ax.xaxis.set_major_locator(round_ticks(6))


def _facts(data: pd.DataFrame) -> str:
    parts = [
        f"{row['task']}, {init_words(str(row['init']))}: {row['mean_angle_degrees']:.0f} degrees, spread "
        f"{row['spread']:.1f} points"
        for row in data.to_dict("records")
    ]
    shown = parts if len(parts) <= 6 else [*parts[:6], f"and {len(parts) - 6} more"]
    return f"{'; '.join(shown)}."


ANGLE_SPREAD = FigureSpec(
    title="Mean angle against the spread between strategies",
    summary="a point per task and initialisation: its mean angle, and how far strategies' scores spread",
    reading=(
        "If acute angles explain why selection hardly matters, strategies spread less where the mean angle is smaller. "
        "A few points show no law. The mean angle is that of the students with matched layers alone, from one kind of "
        "weights, over their layers, tokens and pairs."
    ),
    options=frozenset({"labels", "value"}),
    data=_data,
    facts=_facts,
    draw=_draw,
    many=True,
    uses="both",
    check=_check,
)
