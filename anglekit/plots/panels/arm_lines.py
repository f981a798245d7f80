"""Lines of students by layer: a panel per stream and initialisation, a line per student in its strategy's style."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import Normal, Stroke

from anglekit.comparison.cells import in_order
from anglekit.plots.panels.chosen import stream_order
from anglekit.plots.panels.line_panels import Entry, LinePanel, draw_line_panels, integer_ticks
from anglekit.plots.presentation import shown_name
from anglekit.plots.style import (
    CHANCE_DASHES,
    SMALL_FONT_SIZE,
    TEACHER_DASHES,
    StrategyStyle,
    Theme,
    behind_text,
    init_colour,
    init_order,
    init_words,
    strategy_styles,
)

_FEW_LAYERS = 13  # with more, points are not marked, and intervals are bands instead of bars side by side
_ALIKE = 0.02  # of the range of a panel: chance levels nearer to each other are drawn as one
_NUMBERS = "Numbers: a student's own layers, where the matching changes their order."
_SPREAD = 0.5  # the part of the distance between two layers that all students of a panel share


def draw_arm_lines(
    data: pd.DataFrame,
    look: Theme,
    width: float,
    *,
    value: str,
    x: str,
    xlabel: str,
    ylabel: str,
    notes: Sequence[str],
    behind: Callable[[Axes], object],
    factor: float = 1.0,
    dashed: str | None = None,
    legend: Sequence[Entry] = (),
    outliers: Literal["shown", "broken out"] = "shown",
    floor: float | None = None,
) -> Figure:
    """Draw a column by layer, a panel per stream and initialisation.

    `data` has columns `student, strategy, init, stream`, x (numbers of layers) and value, `low, high` where there are
    intervals, and `layer` where x is not the layer's own number. Rows with an empty student are the teacher's; its line
    is in all panels of the stream. `dashed` is a column that is drawn so in the student's colour, such as a chance
    level, and `legend` explains it. `behind` draws what stands behind the lines; `factor` converts the column's unit to
    the figure's. With `outliers` broken out, the axis ends before a few values that lie far off all others, and these
    are written there; `floor` is where an axis begins that shows all of a quantity.

    Raises:
        InputError: there is no student, or there are too many panels.
    """
    teacher, own = data[data["student"] == ""], data[data["student"] != ""]
    styles = strategy_styles(list(own["strategy"]), look)
    ends = broken_range(data[value].to_numpy(float) * factor, floor) if outliers == "broken out" else None
    panels = []
    for stream in stream_order(own["stream"]):
        of_stream = own[own["stream"] == stream]
        for init in init_order(list(of_stream["init"])):

            def draw(ax: Axes, rows: pd.DataFrame = of_stream[of_stream["init"] == init], stream: str = stream) -> None:
                behind(ax)
                if len(teacher):
                    _draw_teacher(ax, teacher[teacher["stream"] == stream].sort_values(x), x, value, look)
                _draw_students(ax, rows, x, value, styles, look, factor, dashed)
                integer_ticks(ax)
                if ends is not None:
                    _break_out(ax, rows, x, value, styles, look, factor, ends, floor)

            panels.append(LinePanel(f"{stream}, {init_words(init)}", draw, init_colour(init, look)))
    arms = own.sort_values("layer").groupby(["student", "stream"]) if "layer" in own else ()
    notes = [*notes, *([_NUMBERS] if any(not rows[x].is_monotonic_increasing for _, rows in arms) else [])]
    if ends is not None:
        notes.append("At the edge with their numbers: values beyond the axis.")
    return draw_line_panels(
        panels,
        look,
        width,
        xlabel=xlabel,
        ylabel=ylabel,
        legend=[*([teacher_entry(look)] if len(teacher) else []), *arm_legend(own, look), *legend],
        notes=notes,
        most_columns=2,
    )


def _draw_students(
    ax: Axes,
    rows: pd.DataFrame,
    x: str,
    value: str,
    styles: dict[str, StrategyStyle],
    look: Theme,
    factor: float,
    dashed: str | None,
) -> None:
    students = students_in_order(rows, styles)
    few = rows[x].nunique() <= _FEW_LAYERS
    alike = dashed is not None and len(students) > 1 and _are_alike(rows, x, value, dashed)
    bars = "low" in rows.columns
    numbered = 0
    for rank, (student, style) in enumerate(students):
        own = rows[rows["student"] == student].sort_values("layer" if "layer" in rows else x)
        shift = (rank - (len(students) - 1) / 2) * min(_SPREAD / len(students), 0.12) if few and bars else 0
        places = own[x].to_numpy(float) + shift
        if bars:
            low, high = (own[end].to_numpy(float) * factor for end in ("low", "high"))
            if few:
                # over the markers: a narrow interval would hide behind its own point
                ax.vlines(places, low, high, color=style.colour, linewidth=1.0, zorder=5)
            else:
                ax.fill_between(places, low, high, color=style.colour, alpha=0.2, linewidth=0, zorder=2)
        ax.plot(
            places,
            own[value].to_numpy(float) * factor,
            color=style.colour,
            marker=style.marker,
            markersize=3.8 if few else 2.6,
            markeredgecolor=look.background,
            markeredgewidth=0.4,
            markevery=1 if few else max(len(places) // 8, 1),
            linewidth=1.0,
            zorder=4,
            gid=f"student-{student}",
        )
        if dashed is not None and not alike and own[dashed].notna().any():
            # In order of place: a chance level has no way through the layers.
            level = own.sort_values(x)
            _draw_chance(ax, level[x], level[dashed] * factor, style.colour, look, student)
        if "layer" in own and not own[x].is_monotonic_increasing:
            _number_layers(ax, own, places, value, style, look, factor, below=numbered % 2 == 1)
            numbered += 1
    if alike and dashed is not None:
        mean = rows.groupby(x)[dashed].mean().dropna()
        _draw_chance(ax, mean.index.to_series(), mean * factor, look.ink, look, "all")


def _are_alike(rows: pd.DataFrame, x: str, value: str, dashed: str) -> bool:
    """Return whether the chance levels of all students of a panel would lie upon each other."""
    levels = rows.groupby(x)[dashed]
    known = rows[[value, dashed]].to_numpy(float)
    known = known[np.isfinite(known)]
    return bool(len(known)) and float((levels.max() - levels.min()).max()) <= _ALIKE * float(np.ptp(known))


def _draw_chance(ax: Axes, x: pd.Series, y: pd.Series, colour: str, look: Theme, whose: str) -> None:
    ax.plot(
        x,
        y,
        color=colour,
        linewidth=0.9,
        linestyle=CHANCE_DASHES,
        # On a pale seam over all lines: a student that is like chance does not hide its chance level.
        path_effects=[Stroke(linewidth=2.1, foreground=look.background), Normal()],
        zorder=4.5,
        gid=f"chance-{whose}",
    )


def _number_layers(
    ax: Axes,
    own: pd.DataFrame,
    places: np.ndarray,
    value: str,
    style: StrategyStyle,
    look: Theme,
    factor: float,
    *,
    below: bool,
) -> None:
    """Write a student's own layer numbers beside its points, where they do not rise from left to right.

    Layer 0 stands at 0 in all of them and needs none. `below`: under the points, for every other student.
    """
    for place, number, layer in zip(places, own[value].to_numpy(float) * factor, own["layer"], strict=True):
        if np.isfinite(number) and layer:
            ax.annotate(
                str(int(layer)),
                (place, number),
                xytext=(-3.5, -3.0) if below else (3.5, 3.0),
                textcoords="offset points",
                ha="right" if below else "left",
                va="top" if below else "bottom",
                fontsize=SMALL_FONT_SIZE,
                color=style.colour,
                # An outline, as a box would cover the points beside it.
                path_effects=[Stroke(linewidth=1.6, foreground=look.background), Normal()],
                zorder=6,
                annotation_clip=True,
            )


def broken_range(values: np.ndarray, floor: float | None = None) -> tuple[float, float] | None:
    """Return the range of all values but a few that lie far off the others; None where none does.

    At most an eighth of the values, and three at each end, are left out, and only where that leaves less than a third
    of the range. All ranges reach down to the floor, where there is one.
    """
    known = np.sort(values[np.isfinite(values)])
    most = min(len(known) // 8, 3)
    lowest = np.minimum(known, np.inf if floor is None else floor)
    spans = [
        (low + high, known[len(known) - 1 - high] - lowest[low], low, high)
        for low in range(most + 1)
        for high in range(most + 1)
    ]
    if len(spans) < 2:
        return None
    whole = spans[0][1]
    _, span, low, high = min((each for each in spans if each[1] < whole / 3), default=spans[0])
    if low + high == 0 or not span > 0:
        return None
    return float(lowest[low]), float(known[len(known) - 1 - high])


def _break_out(
    ax: Axes,
    rows: pd.DataFrame,
    x: str,
    value: str,
    styles: dict[str, StrategyStyle],
    look: Theme,
    factor: float,
    ends: tuple[float, float],
    floor: float | None,
) -> None:
    """End the axis at a range; values beyond it stand at its edge with their numbers."""
    margin = 0.12 * (ends[1] - ends[0])
    low, high = ends[0] - (margin if floor is None else 0.0), ends[1] + 2 * margin
    ax.set_ylim(low, high)
    for row in rows.to_dict("records"):
        number = float(row[value]) * factor
        if not np.isfinite(number) or low <= number <= high:
            continue
        above = number > high
        style = styles[str(row["strategy"])]
        # Half of the student's marker, at the edge, says whose value it is.
        ax.plot(
            [float(row[x])],
            [high if above else low],
            marker=style.marker,
            color=style.colour,
            markersize=4.4,
            linestyle="none",
            clip_on=False,
            zorder=8,
        )
        ax.annotate(
            f"{number:.3g}",
            (float(row[x]), high if above else low),
            xytext=(-4.0, -1.5 if above else 1.5),
            textcoords="offset points",
            ha="right",
            va="top" if above else "bottom",
            fontsize=SMALL_FONT_SIZE,
            color=look.ink,
            bbox=behind_text(look),
            zorder=7,
            gid=f"beyond-{row['student']}",
        )


def _draw_teacher(ax: Axes, rows: pd.DataFrame, x: str, value: str, look: Theme) -> None:
    ax.plot(
        rows[x],
        rows[value],
        color=look.ink,
        linewidth=1.4,
        linestyle=TEACHER_DASHES,
        marker="." if len(rows) <= _FEW_LAYERS else "",
        markersize=4.0,
        zorder=3,
        gid="teacher",
    )
    if "low" in rows.columns:
        ax.fill_between(rows[x], rows["low"], rows["high"], color=look.ink, alpha=0.12, linewidth=0, zorder=1)


def students_in_order(rows: pd.DataFrame, styles: dict[str, StrategyStyle]) -> list[tuple[str, StrategyStyle]]:
    """Return the students of a table with their styles, in the order of their strategies."""
    arms = rows.drop_duplicates("student")[["student", "strategy"]].to_records(index=False).tolist()
    order = in_order(str(strategy) for _, strategy in arms)
    return [(str(student), styles[str(s)]) for student, s in sorted(arms, key=lambda arm: order.index(str(arm[1])))]


def teacher_entry(look: Theme) -> Entry:
    """Return the legend's entry of the teacher."""
    return Entry.line(shown_name("teacher"), look.ink, linewidth=1.4, linestyle=TEACHER_DASHES)


def arm_legend(data: pd.DataFrame, look: Theme, *, lines: bool = True) -> list[Entry]:
    """Return an entry per strategy."""
    return [
        Entry.line(shown_name(name), style.colour, marker=style.marker, linestyle="-" if lines else "none")
        for name, style in strategy_styles(list(data["strategy"]), look).items()
    ]
