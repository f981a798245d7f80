"""Teacher and students layer by layer in the plane in which the teacher's layers differ most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from anglekit.errors import InputError
from anglekit.plots.inputs import FigureInputs
from anglekit.plots.panels.arm_lines import arm_legend, students_in_order, teacher_entry
from anglekit.plots.panels.chosen import choose, require, stream_order
from anglekit.plots.panels.line_panels import LinePanel, draw_line_panels, integer_ticks
from anglekit.plots.panels.sentences import LAYER_NOTE, PLACE_NOTE, students_words
from anglekit.plots.panels.tables import symmetric_matrix, with_arms, with_places
from anglekit.plots.spec import STUDENTS, FigureOptions, FigureSpec
from anglekit.plots.style import (
    SMALL_FONT_SIZE,
    TEACHER_DASHES,
    StrategyStyle,
    Theme,
    behind_text,
    init_colour,
    init_order,
    init_words,
    round_ticks,
    strategy_styles,
)

Array = NDArray[np.float64]

_CLEAR = 7.5  # points between a number's middle and other layers
_NAMED_LAYERS = 13  # with more teacher layers, only the first, the middle and the last carry their number


@dataclass(frozen=True, eq=False)
class Plane:
    """The two principal axes of points that are known by their distances.

    Attributes:
        points: coordinates of the points, (points, 2).
        explained: each axis's share of the squared distances from the centroid, (2,).
        centroid: the squared distance of every point from the centroid, (points,).
        squared: the squared distances between the points, (points, points).
        eigenvalues: of the two axes, (2,); 0 where the points have no such direction.
    """

    points: Array
    explained: Array
    centroid: Array
    squared: Array
    eigenvalues: Array

    def place(self, squared: Array) -> tuple[Array, Array]:
        """Return where other points fall in the plane, (others, 2), and their distances from it, (others,).

        `squared` holds their squared distances to the points of the plane, (others, points). Gower's formula: the
        orthogonal projection, exact for Euclidean distances (Gower 1968).
        """
        scale = np.divide(1.0, self.eigenvalues, out=np.zeros(2), where=self.eigenvalues > 0)
        placed = 0.5 * (self.centroid - squared) @ self.points * scale
        from_centroid = squared.mean(1) - self.squared.mean() / 2
        return placed, np.sqrt(np.clip(from_centroid - (placed**2).sum(1), 0.0, None))


def fit_plane(squared: Array) -> Plane:
    """Return the principal plane of points by classical scaling (Torgerson 1952).

    `squared` holds their squared distances, (points, points), symmetric with a zero diagonal.
    """
    n = len(squared)
    centring = np.eye(n) - 1 / n
    gram = -0.5 * centring @ squared @ centring
    values, vectors = np.linalg.eigh(gram)
    order = np.argsort(values)[::-1][:2]
    top = np.zeros(2)
    top[: len(order)] = np.clip(values[order], 0.0, None)
    top[top < 1e-12 * max(float(np.abs(values).max()), 1e-300)] = 0.0
    axes = np.zeros((n, 2))
    axes[:, : len(order)] = vectors[:, order]
    # A direction has no sign: put the last point to the upper right, so that every run draws the same.
    axes *= np.where(axes[-1] < 0, -1.0, 1.0)
    points = axes * np.sqrt(top)
    total = float(np.trace(gram))
    explained = top / total if total > 0 else np.zeros(2)
    return Plane(points, explained, np.asarray(np.diag(gram)), squared, top)


def _check(inputs: FigureInputs) -> None:
    table = inputs.geometry.layers
    require(table, "mean_distance", "distances between layers")
    if table.loc[table["side_a"] == "teacher", "layer_a"].nunique() < 3:
        raise InputError(
            "a plane needs at least three teacher layers", "run `anglekit analyze` with more --teacher-layers"
        )


def _data(inputs: FigureInputs, options: FigureOptions) -> pd.DataFrame:
    """Return a row per model and layer.

    Columns beside `student, strategy, init, seed, stream, side, layer`: `x, y` in the plane and the distance
    `off_plane`, all in the states' own units, the plane's `explained_x, explained_y`, and `place`, the teacher layer
    beside which the distance is drawn (`with_places`). The teacher's rows come once per stream, with an empty student.
    """
    chosen = choose(inputs.geometries, options)
    table = chosen.rows(inputs.geometry.layers)
    table = table[(table["side_a"] == "teacher") & table["mean_distance"].notna()]
    frames = []
    for stream in chosen.streams:
        rows = table[table["stream"] == stream]
        # The mean over students, whose tokens may differ.
        teacher = symmetric_matrix(rows[rows["side_b"] == "teacher"], "mean_distance", "layer_a", "layer_b")
        layers = list(teacher.index)
        distances = teacher.to_numpy(np.float64).copy(order="F")  # fixes the order of sums, and so their last digit
        np.fill_diagonal(distances, 0.0)
        squared = distances**2
        plane = fit_plane(squared)
        frames.append(_frame("", stream, layers, squared, plane))
        for student in (one for one in chosen.students if one in set(rows["student"])):
            across = rows[(rows["student"] == student) & (rows["side_b"] == "student")]
            matrix = across.pivot_table(index="layer_b", columns="layer_a", values="mean_distance")
            matrix = matrix.reindex(columns=layers).dropna()
            frames.append(_frame(student, stream, list(matrix.index), matrix.to_numpy(np.float64) ** 2, plane))
    data = pd.concat(frames, ignore_index=True)
    data = data.sort_values("side", key=lambda side: side != "teacher", kind="stable", ignore_index=True)
    return with_places(with_arms(data, inputs.geometry), inputs.geometry)


def _frame(student: str, stream: str, layers: Sequence[int], squared: Array, plane: Plane) -> pd.DataFrame:
    points, off = plane.place(squared)
    return pd.DataFrame(
        {
            "student": student,
            "stream": stream,
            "side": "student" if student else "teacher",
            "layer": layers,
            "x": points[:, 0],
            "y": points[:, 1],
            "off_plane": off,
            "explained_x": plane.explained[0],
            "explained_y": plane.explained[1],
        }
    )


def _draw(inputs: FigureInputs, options: FigureOptions, look: Theme, width: float) -> Figure:
    """Draw, per stream, the plane of the teacher layers' two principal axes, computed from their distances.

    Students are projected onto it. A panel beside each plane shows the distance from it: a plane alone misleads.
    """
    data = _data(inputs, options)
    return draw_line_panels(
        [panel for stream in stream_order(data["stream"]) for panel in _panels(data, stream, look)],
        look,
        width,
        xlabel="",
        ylabel="",
        legend=[teacher_entry(look), *arm_legend(data[data["side"] == "student"], look)],
        notes=[_explained_words(data), _METHOD, f"{PLACE_NOTE} {LAYER_NOTE}"],
        height=2.1,
        most_columns=2,
        shared=False,
    )


_METHOD = (
    "From mean distances between layers over tokens: principal axes of the teacher's layers, students projected onto "
    "them; squared means stand for mean squares. A ring marks layer\u00a00."
)


def _panels(data: pd.DataFrame, stream: str, look: Theme) -> list[LinePanel]:
    rows = data[data["stream"] == stream]
    own = rows[rows["side"] == "student"]
    styles = strategy_styles(list(data.loc[data["side"] == "student", "strategy"]), look)
    panels = []
    for init in init_order(list(own["init"])):
        some = own[own["init"] == init]
        title, colour = f"{stream}, {init_words(init)}", init_colour(init, look)

        def plane(ax: Axes, some: pd.DataFrame = some) -> None:
            _draw_plane(ax, rows, some, styles, look)

        def off(ax: Axes, some: pd.DataFrame = some) -> None:
            _draw_off_plane(ax, rows, some, styles, look)

        panels.append(LinePanel(title, plane, colour, "axis 2 (state units)", "axis 1 (state units)"))
        panels.append(
            LinePanel("distance from that plane", off, colour, "distance (state units)", "teacher layer", stream)
        )
    return panels


def _draw_plane(ax: Axes, rows: pd.DataFrame, own: pd.DataFrame, styles: dict[str, StrategyStyle], look: Theme) -> None:
    teacher = rows[rows["side"] == "teacher"].sort_values("layer")
    few = len(teacher) <= _NAMED_LAYERS
    # A line back and forth through many layers would hide the students: it stands behind them.
    dress: dict[str, Any] = {"color": look.ink, "linewidth": 1.2, "linestyle": TEACHER_DASHES}
    ax.plot(
        teacher["x"],
        teacher["y"],
        **(dress if few else dress | {"linewidth": 0.6, "alpha": 0.45}),
        zorder=3 if few else 2,
        gid="teacher",
    )
    if few:
        ax.plot(teacher["x"], teacher["y"], ".", color=look.ink, markersize=4, zorder=3)
    _draw_ring(ax, teacher, look.ink)
    ax.update_datalim(rows[["x", "y"]].to_numpy(float))  # all planes of a stream show the same part of it
    for student, style in students_in_order(own, styles):
        line = own[own["student"] == student].sort_values("layer")
        size = 3.4 if len(line) <= _NAMED_LAYERS else 1.8
        _draw_student(ax, line["x"], line["y"], style, look, size, gid=f"student-{student}")
        _draw_ring(ax, line, style.colour)
    # One unit must be as long on both axes, or angles and lengths would be wrong.
    ax.set_aspect("equal", adjustable="datalim")
    ax.margins(0.18)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(round_ticks(5))
    last = len(teacher) - 1
    numbered = teacher if few else teacher.iloc[sorted({0, last // 2, last})]
    _number_layers(ax, numbered, rows if few else numbered, look, boxed=not few)


def _number_layers(ax: Axes, numbered: pd.DataFrame, points: pd.DataFrame, look: Theme, *, boxed: bool) -> None:
    """Write layers' numbers beside their points, each where it is farthest from other points and numbers."""
    ax.apply_aspect()
    size = 72 / ax.get_figure(root=True).dpi  # type: ignore[union-attr]
    places, taken = (ax.transData.transform(table[["x", "y"]].to_numpy(float)) * size for table in (numbered, points))
    middle = places.mean(axis=0)
    points_at = numbered[["x", "y"]].to_numpy(float)
    for layer, point, place in zip(numbered["layer"], points_at, places, strict=True):
        outward = float(np.arctan2(*(place - middle)[::-1]))
        around = outward + np.linspace(0, 2 * np.pi, 16, endpoint=False)
        offsets = 8.0 * np.column_stack([np.cos(around), np.sin(around)])
        room = np.linalg.norm(place + offsets[:, None] - taken, axis=2).min(axis=1)
        # Outward is the first choice: what is clear enough needs no better place.
        offset = offsets[int(np.argmax(np.minimum(room, _CLEAR)))]
        taken = np.vstack([taken, place + offset])
        ax.annotate(
            str(int(layer)),
            (float(point[0]), float(point[1])),
            xytext=(float(offset[0]), float(offset[1])),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=SMALL_FONT_SIZE,
            zorder=6,
            bbox=behind_text(look) if boxed else None,
        )


def _draw_off_plane(
    ax: Axes, rows: pd.DataFrame, own: pd.DataFrame, styles: dict[str, StrategyStyle], look: Theme
) -> None:
    teacher = rows[rows["side"] == "teacher"].sort_values("layer")
    ax.plot(teacher["layer"], teacher["off_plane"], color=look.ink, linewidth=1.2, linestyle=TEACHER_DASHES, zorder=3)
    for student, style in students_in_order(own, styles):
        line = own[own["student"] == student].sort_values("layer")
        size = 3.4 if len(line) <= _NAMED_LAYERS else 0.0
        _draw_student(ax, line["place"], line["off_plane"], style, look, size)
    ax.set_ylim(bottom=0.0)
    integer_ticks(ax)


def _draw_student(
    ax: Axes, x: pd.Series, y: pd.Series, style: StrategyStyle, look: Theme, size: float, gid: str | None = None
) -> None:
    ax.plot(
        x,
        y,
        color=style.colour,
        marker=style.marker if size else "",
        markersize=size,
        markeredgecolor=look.background,
        markeredgewidth=0.3,
        linewidth=0.9,
        zorder=4,
        gid=gid,
    )


def _draw_ring(ax: Axes, line: pd.DataFrame, colour: str) -> None:
    """Mark where a line begins."""
    ax.plot(line["x"].iloc[:1], line["y"].iloc[:1], "o", mfc="none", mec=colour, mew=0.8, markersize=6.5, zorder=5)


def _explained_words(data: pd.DataFrame) -> str:
    parts = []
    for stream in stream_order(data["stream"]):
        first = data[data["stream"] == stream].iloc[0]
        x, y = (100 * float(first[name]) for name in ("explained_x", "explained_y"))
        parts.append(f"{stream} {x:.0f}% + {y:.0f}% = {x + y:.0f}%")
    return f"The plane holds of the teacher's variance between layers: {', '.join(parts)}."


def _facts(data: pd.DataFrame) -> str:
    own = data[data["side"] == "student"]
    low, high = float(own["off_plane"].min()), float(own["off_plane"].max())
    return f"{_explained_words(data)} {students_words(own)}: {low:.3g} to {high:.3g} state units off it."


LAYER_TRAJECTORIES = FigureSpec(
    title="Teacher and students from layer to layer",
    summary="the layers of the teacher and its students in the plane in which the teacher's layers differ most",
    reading=(
        "A student taught well by a layer passes near its number. The plane is the teacher's: a student far off it, as "
        "the panels beside show, only looks near."
    ),
    options=STUDENTS,
    data=_data,
    facts=_facts,
    draw=_draw,
    check=_check,
)
