"""The paper's Figure 1: the angle drawn to scale, and the distribution of its cosine per task and stream."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from anglekit.errors import InputError
from anglekit.geometry.results import Geometry
from anglekit.plots.cosine_curves import Panel, cosine_panels
from anglekit.plots.figure1_legend import Legend, build_legend, draw_legend
from anglekit.plots.figure1_panels import CurveStyle, curve_styles, draw_histograms
from anglekit.plots.labels import fit, wrap
from anglekit.plots.selection import check_labels, choose_streams, choose_students, choose_vertices
from anglekit.plots.sketch import draw_sketch, is_drawable, sketch_caption
from anglekit.plots.style import SMALL_FONT_SIZE, Theme, context, figure_width, new_figure, theme

__all__ = ["figure1"]

_TITLE = 0.36  # inches above an axes: the panel's title and, under it, the chance labels
_BELOW = 0.62  # inches under an axes: tick labels, axis label; under the sketch its caption
_LEFT, _RIGHT = 0.42, 0.12  # inches beside a histogram
_LINE = 0.13  # inches: a line of small text
_MOST_PANELS = len(string.ascii_lowercase) - 1


def figure1(
    geometries: Sequence[Geometry],
    *,
    labels: Sequence[str] | None = None,
    students: Sequence[str] | None = None,
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
    names = check_labels(geometries, labels)
    total_width = figure_width(width)
    panels = cosine_panels(
        geometries,
        names,
        choose_students(geometries, students),
        choose_streams(geometries, stream),
        choose_vertices(geometries, vertices),
        bins,
    )
    if not panels:
        raise InputError("no student has this stream and vertex; choose others, or leave the choice out")
    if len(panels) > _MOST_PANELS:
        raise InputError(f"{len(panels)} panels are more than the {_MOST_PANELS} that have a letter; draw fewer tasks")
    look = theme(dark)
    with context(look):
        return _draw(panels, _sketch_token(geometries, panels), look, total_width)


def _sketch_token(geometries: Sequence[Geometry], panels: Sequence[Panel]) -> Mapping[str, Any] | None:
    """Return the first sketch token of a student and stream that is drawn, or None."""
    drawn = {(curve.student, panel.stream) for panel in panels for curve in panel.curves}
    for geometry in geometries:
        for entry in geometry.sketch_tokens:
            if (entry["student"], entry["stream"]) in drawn and is_drawable(entry):
                return entry
    return None


def _columns(count: int, total_width: float) -> int:
    """Return how many panels stand side by side: as few as keep each readable, without a lone one left over."""
    if total_width < 4:
        return 1
    return 2 if count in (2, 4) else 3


def _draw(panels: Sequence[Panel], token: Mapping[str, Any] | None, look: Theme, total_width: float) -> Figure:
    count = len(panels) + 1
    columns = _columns(count, total_width)
    rows = -(-count // columns)
    cell = total_width / columns
    axes_height = 1.55 if columns == 2 else 1.4
    row_height = _TITLE + axes_height + _BELOW
    figure = new_figure(total_width, 1.0)  # text is measured before the height is known
    styles = curve_styles(panels, look)
    legend = build_legend(figure, panels, styles, look, total_width)
    notes = [line for note in _notes(panels) for line in wrap(figure, note, total_width - 0.1)]
    below = legend.height + _LINE * len(notes) + 0.1
    total_height = rows * row_height + below
    figure.set_size_inches(total_width, total_height)

    def top_of(position: int) -> float:
        return total_height - (position // columns) * row_height - _TITLE

    _draw_sketch_panel(figure, token, styles, look, (0.05, top_of(0)), (cell - 0.15, axes_height))
    for position, panel in enumerate(panels, start=1):
        left = (position % columns) * cell
        inner = cell - _LEFT - _RIGHT
        letter = string.ascii_lowercase[position]
        ax = _axes(figure, left + _LEFT, top_of(position), inner, axes_height)
        draw_histograms(figure, ax, panel, styles, look, (inner, axes_height))
        _title(figure, left + 0.05, top_of(position), letter, panel_title(panel), cell - 0.1)
    _draw_below(figure, legend, notes, below)
    return figure


def panel_title(panel: Panel) -> str:
    """Return what a panel shows: its task and stream, and the reading where it is the official one."""
    name = f"{panel.label}, {panel.stream}" if panel.label else panel.stream
    return f"{name} (official reading)" if panel.official else name


def _axes(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    total_width, total_height = figure.get_size_inches()
    return figure.add_axes(
        (left / total_width, (top - height) / total_height, width / total_width, height / total_height)
    )


def _title(figure: Figure, left: float, top: float, letter: str, title: str, room: float) -> None:
    total_width, total_height = figure.get_size_inches()
    suffix = " (official reading)" if title.endswith(" (official reading)") else ""
    text = fit(
        figure,
        title.removesuffix(suffix),
        room,
        weight="bold",
        frame=lambda part: f"({letter}) {part}{suffix}",
    )
    y = (top + _TITLE - 0.06) / total_height
    figure.text(left / total_width, y, text, ha="left", va="top", fontweight="bold", gid=f"title-{letter}")


def _draw_sketch_panel(
    figure: Figure,
    token: Mapping[str, Any] | None,
    styles: Mapping[tuple[str, str | None], CurveStyle],
    look: Theme,
    corner: tuple[float, float],
    size: tuple[float, float],
) -> None:
    left, top = corner
    total_width, total_height = figure.get_size_inches()
    height = size[1] + _TITLE - 0.2  # the sketch has no chance labels above it
    ax = _axes(figure, left, top + _TITLE - 0.2, size[0], height)
    ax.set_gid("sketch")
    _title(figure, left, top, "a", "the angle, to scale", size[0])
    if token is None:
        ax.set_axis_off()
        lines = wrap(figure, "No sketch: this analysis kept no token's plane (run `anglekit analyze` again).", size[0])
        ax.text(0.5, 0.5, "\n".join(lines), ha="center", va="center", transform=ax.transAxes)
        return
    colour = next((style.colour for key, style in styles.items() if key[0] == token["student"]), look.ink)
    draw_sketch(figure, ax, token, look, colour, (size[0], height))
    caption = "\n".join(sketch_caption(figure, token, size[0]))
    figure.text(
        left / total_width,
        (top - size[1] - 0.04) / total_height,
        caption,
        ha="left",
        va="top",
        fontsize=SMALL_FONT_SIZE,
        linespacing=1.15,
        gid="sketch-caption",
    )


def _notes(panels: Sequence[Panel]) -> list[str]:
    """Return the sentences under the legend: what the curves pool, and which students have nothing to show."""
    by_text: dict[str, list[str]] = {}
    for letter, panel in zip(string.ascii_lowercase[1:], panels, strict=False):
        by_text.setdefault(panel.pooled, []).append(letter)
    if len(by_text) == 1:
        notes = [f"Pooled: {next(iter(by_text))}."]
    else:
        parts = [f"({', '.join(letters)}) {text}" for text, letters in by_text.items()]
        notes = [f"Pooled: {'; '.join(parts)}."]
    lacking = sum(len(panel.empty) for panel in panels)
    if lacking:
        notes.append(f"{lacking} curve{'s' if lacking > 1 else ''} left out: no finite cosine.")
    return notes


def _draw_below(figure: Figure, legend: Legend, notes: Sequence[str], below: float) -> None:
    total_width, total_height = figure.get_size_inches()
    draw_legend(figure, legend, below)
    figure.text(
        0.05 / total_width,
        (below - legend.height) / total_height,
        "\n".join(notes),
        ha="left",
        va="top",
        fontsize=SMALL_FONT_SIZE,
        linespacing=_LINE * 72 / SMALL_FONT_SIZE / 1.3,
        gid="notes",
    )
