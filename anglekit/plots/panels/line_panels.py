"""Panels of lines in a grid with one legend: how every figure made of curves and points is laid out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from anglekit.errors import InputError
from anglekit.plots.panels.labels import fit, plain, text_width, wrap
from anglekit.plots.style import SMALL_FONT_SIZE, Theme, new_figure, round_ticks

__all__ = ["Entry", "LinePanel", "draw_line_panels", "integer_ticks", "layer_bar", "shared_limits"]

_LEFT, _RIGHT = 0.56, 0.12  # inches beside an axes
_TITLE, _BELOW = 0.24, 0.42  # inches over and under an axes
_LINE = 0.13  # inches: a line of small text
_ROW = 0.15  # inches: a row of the legend
_HANDLE = 0.34  # inches: an entry's line and the gap to its name
_GAP = 0.14  # inches between entries
_BAR = 0.62  # inches: a colour bar with its labels
_MOST_PANELS = 60


@dataclass(frozen=True)
class LinePanel:
    """A panel: what it is called, in which colour, what draws into its axes, and axis labels of its own."""

    title: str
    draw: Callable[[Axes], None]
    colour: str | None = None
    ylabel: str | None = None
    xlabel: str | None = None


@dataclass(frozen=True)
class Entry:
    """A line of the legend: `handle` is drawn beside `name`, which comes from data or from us."""

    name: str
    handle: Artist

    @staticmethod
    def line(name: str, colour: str, **style: Any) -> Entry:  # noqa: ANN401  of Line2D
        """Return an entry with a line or a marker."""
        return Entry(name, Line2D([], [], **{"color": colour, "linewidth": 1.1, "markersize": 4.0, **style}))

    @staticmethod
    def patch(name: str, colour: str, **style: Any) -> Entry:  # noqa: ANN401  of Patch
        """Return an entry with a filled rectangle."""
        return Entry(name, Patch(facecolor=colour, linewidth=0, **style))


@dataclass(frozen=True)
class _Bar:
    scale: Normalize
    colours: Colormap
    label: str


def layer_bar(layers: Sequence[int], colours: Colormap, label: str) -> _Bar:
    """Return a colour bar over layer numbers."""
    low, high = min(layers), max(layers)
    return _Bar(Normalize(low, high if high > low else low + 1), colours, label)


def integer_ticks(ax: Axes, most: int = 7) -> None:
    """Give the x axis whole numbers only, few enough to stand side by side."""
    ax.xaxis.set_major_locator(round_ticks(most, integer=True))


def shared_limits(axes: Sequence[Axes]) -> None:
    """Give all axes the y limits that hold the data of each."""
    low, high = (
        end(bound) for end, bound in zip((min, max), zip(*(ax.get_ylim() for ax in axes), strict=True), strict=True)
    )
    for ax in axes:
        ax.set_ylim(low, high)


def _grid(count: int, total_width: float, most: int) -> int:
    columns = max(1, min(count, most if total_width > 4 else 1))
    return -(-count // -(-count // columns))


def draw_line_panels(
    panels: Sequence[LinePanel],
    look: Theme,
    total_width: float,
    *,
    xlabel: str,
    ylabel: str,
    legend: Sequence[Entry],
    notes: Sequence[str],
    bar: _Bar | None = None,
    height: float = 1.55,
    most_columns: int = 3,
    shared: bool = True,
) -> Figure:
    """Draw panels in a grid, a legend under them and notes under that.

    Args:
        panels: what to draw.
        look: the theme, whose settings are in force.
        total_width: of the figure, inches.
        xlabel: of every panel's x axis.
        ylabel: of every panel's y axis, unless the panel has its own.
        legend: entries, in order.
        notes: sentences.
        bar: a colour bar beside the first row.
        height: of an axes, inches.
        most_columns: panels side by side on a page.
        shared: all panels show the same range of y.

    Raises:
        InputError: there is no panel, or there are more than a figure holds.
    """
    if not panels:
        raise InputError("no student has this stream and vertex", "choose others, or leave the choice out")
    if len(panels) > _MOST_PANELS:
        raise InputError(
            f"{len(panels)} panels are more than a figure holds ({_MOST_PANELS})", "choose students or a stream"
        )
    figure = new_figure(total_width, 1.0)
    columns = _grid(len(panels), total_width, most_columns)
    rows = -(-len(panels) // columns)
    room = total_width - (_BAR if bar else 0.0)
    cell = room / columns
    lines = [line for note in notes for line in wrap(figure, note, total_width - 0.1)]
    placed = _flow(figure, legend, total_width - 0.1)
    legend_height = _ROW * (max(row for row, *_ in placed) + 1) + 0.06 if placed else 0.0
    below = _LINE * len(lines) + 0.08
    total_height = rows * (_TITLE + height + _BELOW) + legend_height + below + 0.02
    figure.set_size_inches(total_width, total_height)
    axes = []
    for position, panel in enumerate(panels):
        left = (position % columns) * cell + _LEFT
        top = total_height - (position // columns) * (_TITLE + height + _BELOW) - _TITLE
        width = cell - _LEFT - _RIGHT
        ax = figure.add_axes(
            (left / total_width, (top - height) / total_height, width / total_width, height / total_height)
        )
        panel.draw(ax)
        ax.set_xlabel(xlabel if panel.xlabel is None else panel.xlabel)
        ax.set_ylabel(panel.ylabel if panel.ylabel is not None else ylabel if position % columns == 0 else "")
        title = fit(figure, panel.title, cell - 0.1, weight="bold")
        figure.text(
            (left - _LEFT + 0.05) / total_width,
            (top + _TITLE - 0.05) / total_height,
            title,
            ha="left",
            va="top",
            fontweight="bold",
            color=panel.colour or look.ink,
            gid="title",
        )
        axes.append(ax)
    if shared:
        shared_limits(axes)
    if bar is not None:
        first_top = total_height - _TITLE
        place = (columns * cell + 0.02, first_top - height, 0.1, height)
        ax = figure.add_axes(
            (place[0] / total_width, place[1] / total_height, place[2] / total_width, place[3] / total_height)
        )
        ax.set_gid("colour-bar")
        drawn = figure.colorbar(ScalarMappable(norm=bar.scale, cmap=bar.colours), cax=ax)
        drawn.ax.yaxis.set_major_locator(round_ticks(6, integer=True))
        drawn.set_label(bar.label)
        drawn.outline.set_linewidth(0.6)
    _draw_legend(figure, legend, placed, below + legend_height - 0.02)
    figure.text(
        0.05 / total_width,
        below / total_height,
        "\n".join(lines),
        ha="left",
        va="top",
        fontsize=SMALL_FONT_SIZE,
        linespacing=1.25,
        gid="notes",
    )
    return figure


def _flow(figure: Figure, legend: Sequence[Entry], room: float) -> list[tuple[int, float, str]]:
    """Return row, left edge (inches) and final name of each entry, set one after the other like words."""
    placed: list[tuple[int, float, str]] = []
    row, left = 0, 0.0
    for entry in legend:
        name = fit(figure, entry.name, room - _HANDLE, SMALL_FONT_SIZE)
        width = _HANDLE + text_width(figure, plain(name.replace(r"\$", "$")), SMALL_FONT_SIZE)
        if left and left + width > room:
            row, left = row + 1, 0.0
        placed.append((row, left, name))
        left += width + _GAP
    return placed


def _draw_legend(figure: Figure, legend: Sequence[Entry], placed: Sequence[tuple[int, float, str]], top: float) -> None:
    total_width, total_height = figure.get_size_inches()
    for entry, (row, left, name) in zip(legend, placed, strict=True):
        y = (top - _ROW * (row + 0.5)) / total_height
        x = 0.05 + left
        handle = entry.handle
        if isinstance(handle, Line2D):
            middle = handle.get_linestyle() in ("None", "none", "", " ")
            ends = [x + 0.13] if middle else [x, x + 0.13, x + 0.26]
            handle.set_data([end / total_width for end in ends], [y] * len(ends))
            handle.set_markevery([len(ends) // 2])
        elif isinstance(handle, Patch):
            box = Rectangle((x / total_width, y - 0.04 / total_height), 0.26 / total_width, 0.08 / total_height)
            box.update_from(handle)
            handle = box
        handle.set_transform(figure.transFigure)
        figure.add_artist(handle)
        figure.text(
            (x + _HANDLE - 0.03) / total_width,
            y,
            name,
            ha="left",
            va="center",
            fontsize=SMALL_FONT_SIZE,
            gid="legend",
        )
