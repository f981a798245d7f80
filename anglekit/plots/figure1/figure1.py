"""The paper's Figure 1: the angle drawn to scale, and the distribution of its cosine per task and stream."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from anglekit.errors import InputError
from anglekit.plots.figure1.angle_sketch import draw_sketch, is_drawable, sketch_caption
from anglekit.plots.figure1.curves import Panel, cosine_panels, figure1_data, figure1_facts, small_multiples
from anglekit.plots.figure1.histograms import MOST_SHARES, CurveStyle, Histogram, curve_styles
from anglekit.plots.figure1.legend import build_legend, draw_legend
from anglekit.plots.ground import bound, given_axes, is_paged, new_figure
from anglekit.plots.inputs import FigureInputs
from anglekit.plots.panels.chosen import require_angles
from anglekit.plots.panels.labels import fit, wrap
from anglekit.plots.panels.layout import LINE, axes_at, check_panel_count, text_at
from anglekit.plots.presentation import presentation, shown_name
from anglekit.plots.spec import VERTICES, FigureOptions, FigureSpec
from anglekit.plots.style import PAGE_HEIGHT, SMALL_FONT_SIZE, Theme
from anglekit.results.geometry import Geometry
from anglekit.vocabulary import matches_layers

_TITLE = 0.36  # inches above an axes: the panel's title and, under it, the chance labels
_BELOW = 0.50  # inches under an axes: tick labels, axis label; under the sketch its caption
_LEFT, _RIGHT = 0.42, 0.12  # inches beside a histogram
_MOST_PANELS = len(string.ascii_lowercase) - 1


def figure1(
    geometries: Sequence[Geometry],
    *,
    labels: Sequence[str] | None = None,
    students: str | Sequence[str] | None = None,
    stream: str | None = None,
    vertices: Sequence[int] | None = None,
    bins: int | None = None,
    width: str = "page",
    dark: bool = False,
) -> Figure:
    """Draw the paper's Figure 1.

    Panel (a) is the plane of one real token: the student's state, the two teacher states of a pair, and the angle
    between them, to scale. Then comes a panel per geometry and stream: the distribution of the cosine over tokens,
    orange for students initialised at random, blue for those initialised from the teacher's weights, with the level
    that chance alone would give (a vertical dashed line per student).

    Args:
        geometries: one per task.
        labels: the tasks' names, one per geometry.
        students: the students to draw; all by default.
        stream: `encoder` or `decoder`; both by default.
        vertices: the student layers to pool; all by default.
        bins: bins of the curves on [-1, 1], a divisor of 1000; by default 200, or 100 where a curve has few cosines.
        width: `page` or `column`.
        dark: draw on a dark ground.

    Raises:
        InputError: nothing is left to draw, or an argument names what the geometries do not have.

    Source: arXiv 2502.04499, Figure 1.
    """
    options = FigureOptions(labels=labels, students=students, stream=stream, vertices=vertices, bins=bins)
    return FIGURE1.figure(FigureInputs(geometries), options, width=width, dark=dark)


def _check(inputs: FigureInputs) -> None:
    for geometry in inputs.geometries:
        require_angles(geometry)
        if not geometry.histograms["count"].sum():
            raise InputError(
                "this Geometry has no histogram of cosines: at every token the student's state was not finite or "
                "the same as a teacher layer's, or histograms.parquet lost its rows",
                "see what `anglekit analyze` counted (geometry.json: counts), and run it again",
            )


def _sketch_token(geometries: Sequence[Geometry], panels: Sequence[Panel]) -> Mapping[str, Any] | None:
    """Return the first sketch token of a student and stream that is drawn, a matched student's if there is one."""
    drawn = {(curve.student, panel.stream) for panel in panels for curve in panel.curves}
    found = [
        (not matches_layers(geometry.arms[entry["student"]].strategy), entry)
        for geometry in geometries
        for entry in geometry.sketch_tokens
        if is_drawable(entry) and (entry["student"], entry["stream"]) in drawn
    ]
    return min(found, key=lambda each: each[0])[1] if found else None


def _draw(inputs: FigureInputs, options: FigureOptions, look: Theme, total_width: float) -> Figure:
    panels = cosine_panels(inputs.geometries, options)
    check_panel_count(len(panels), _MOST_PANELS, "draw fewer tasks")
    panels = small_multiples(panels, MOST_SHARES, _MOST_PANELS)
    token = _sketch_token(inputs.geometries, panels)
    styles = curve_styles(panels, look)
    given_axes(None)
    figure = new_figure(total_width, 1.0)  # text is measured before the height is known

    count = len(panels) + 1
    columns = 1 if total_width < 4 else 2 if count in (2, 4) else 3
    rows = -(-count // columns)
    free = rows * columns - count
    cell = total_width / columns
    axes_height = 1.55 if columns == 2 else 1.4
    noted = presentation().notes
    notes = [line for note in _notes(panels) for line in wrap(figure, note, total_width - 0.1)] if noted else []
    caption = sketch_caption(figure, token, cell - 0.2) if token is not None and noted else []
    under_first = max(_BELOW, 0.08 + LINE * len(caption))
    heights = [_TITLE + axes_height + (under_first if row == 0 else _BELOW) for row in range(rows)]

    # The legend stands beside the last panel where it fits there whole, else under everything.
    legend = build_legend(figure, panels, styles, look, max(free, 1) * cell - 0.15)
    beside = free > 0 and rows > 1 and legend.whole and legend.height <= _TITLE + axes_height
    if not beside:
        legend = build_legend(figure, panels, styles, look, total_width - 0.1)
    below = 0.08 + LINE * len(notes) + (0.0 if beside else legend.height + 0.06)
    pages: list[Figure] = []
    for own_rows in _paged(heights, PAGE_HEIGHT - below if is_paged() else np.inf):
        page = figure if not pages else new_figure(total_width, 1.0)
        total_height = sum(heights[row] for row in own_rows) + below
        starts = dict(zip(own_rows, total_height - np.cumsum([0.0, *(heights[row] for row in own_rows)]), strict=False))
        page.set_size_inches(total_width, total_height)
        if 0 in starts:
            _draw_sketch_panel(page, starts[0] - _TITLE, (cell, axes_height), token, caption, styles, look)
        for position, panel in enumerate(panels, start=1):
            if position // columns not in starts:
                continue
            left, top = (position % columns) * cell, starts[position // columns] - _TITLE
            size = (cell - _LEFT - _RIGHT, axes_height)
            Histogram(axes_at(page, left + _LEFT, top, *size), panel, styles, look, size).draw()
            _title(page, left + 0.05, top, string.ascii_lowercase[position], panel, cell - 0.1)
        if not beside or rows - 1 in starts:
            corner = ((columns - free) * cell + 0.05, starts[own_rows[-1]] - _TITLE) if beside else (0.05, below - 0.02)
            draw_legend(page, legend, *corner)
        text_at(page, notes, 0.05, 0.04 + LINE * len(notes), spacing=1.15)
        pages.append(page)
    return bound(pages)


def _paged(heights: Sequence[float], room: float) -> list[list[int]]:
    """Return which rows stand on each page; each page has at least one."""
    pages: list[list[int]] = [[]]
    for row, height in enumerate(heights):
        if pages[-1] and sum(heights[each] for each in pages[-1]) + height > room:
            pages.append([])
        pages[-1].append(row)
    return pages


def _title(figure: Figure, left: float, top: float, letter: str, panel: Panel | None, room: float) -> None:
    """Write a panel's title, shortening the task's name where room is short. No panel means the sketch."""
    total_width, total_height = figure.get_size_inches()
    if panel is None:
        text = f"({letter}) the angle, to scale"
    else:
        reading = " (official reading)" if panel.official else ""
        strategy = None if panel.strategy is None else shown_name(panel.strategy)
        name = ", ".join(part for part in (panel.label, panel.stream, strategy) if part)
        text = fit(figure, name, room, weight="bold", frame=lambda part: f"({letter}) {part}{reading}")
    y = (top + _TITLE - 0.06) / total_height
    figure.text(left / total_width, y, text, ha="left", va="top", fontweight="bold", gid=f"title-{letter}")


def _draw_sketch_panel(
    figure: Figure,
    top: float,
    room: tuple[float, float],
    token: Mapping[str, Any] | None,
    caption: Sequence[str],
    styles: Mapping[tuple[str, str | None], CurveStyle],
    look: Theme,
) -> None:
    """Draw the sketch and its caption in the place of a histogram of `room` (inches) that begins at `top`."""
    lifted = _TITLE - 0.2  # the sketch has no chance labels above it, so it uses their room
    size = (room[0] - 0.15, room[1] + lifted)
    ax = axes_at(figure, 0.05, top + lifted, *size)
    ax.set_gid("sketch")
    _title(figure, 0.05, top, "a", None, size[0])
    if token is None:
        ax.set_axis_off()
        lines = wrap(
            figure, "No sketch: this analysis kept no token's plane. Run `anglekit analyze` again.", size[0] - 0.2
        )
        text = "\n".join(lines)
        ax.text(0.5, 0.5, text, fontsize=SMALL_FONT_SIZE, ha="center", va="center", transform=ax.transAxes)
        return
    own = next((style for (name, _), style in styles.items() if name == token["student"]), None)
    colours = (look.ink, look.ink) if own is None else (own.colour, own.text_colour)
    draw_sketch(figure, ax, token, look, colours, size)
    text_at(figure, caption, 0.05, top - room[1] - 0.04, gid="sketch-caption", spacing=1.15)


def _notes(panels: Sequence[Panel]) -> list[str]:
    """Return the sentences under the panels: what the curves pool, the reading, and which students have no curve."""
    by_text: dict[str, list[str]] = {}
    for letter, panel in zip(string.ascii_lowercase[1:], panels, strict=False):
        by_text.setdefault(panel.pooled, []).append(letter)
    if len(by_text) == 1:
        notes = [f"Pooled: {next(iter(by_text))}."]
    else:
        parts = [f"({', '.join(letters)}) {text}" for text, letters in by_text.items()]
        notes = [f"Pooled: {'; '.join(parts)}."]
    if any(panel.official for panel in panels):
        notes.append("Official reading: as the paper's code computes it, padding counted.")
    lacking = sum(len(panel.empty) for panel in panels)
    if lacking:
        notes.append(f"{lacking} curve{'s' if lacking > 1 else ''} left out: no finite cosine.")
    return notes


FIGURE1 = FigureSpec(
    title="The angle between two teacher layers, seen from the student",
    summary="the paper's Figure 1: the angle to scale, and its cosine's distribution per task and stream",
    reading=(
        "Right of 0 the angle is acute: a pull toward one teacher layer is also a pull toward the other. Dashed lines "
        "mark the cosine that unrelated vectors of the same lengths would show; a curve around its line says nothing."
    ),
    options=VERTICES | {"labels", "bins"},
    data=figure1_data,
    facts=figure1_facts,
    draw=_draw,
    many=True,
    check=_check,
)
