"""Panels of lines in a grid with one legend: how every figure made of curves and points is laid out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from anglekit.plots.ground import bound, figure_of, given_axes, is_paged, new_figure
from anglekit.plots.panels.labels import fit, plain, text_width, wrap
from anglekit.plots.panels.layout import LINE, axes_at, check_panel_count, colour_bar_at, text_at
from anglekit.plots.presentation import presentation
from anglekit.plots.style import PAGE_HEIGHT, SMALL_FONT_SIZE, Theme, round_ticks

_LEFT, _RIGHT = 0.56, 0.12  # inches beside an axes
_TITLE, _BELOW = 0.24, 0.42  # inches over and under an axes
_UNTITLED = 0.08  # inches over an axes that has no title
_ROW = 0.15  # inches: a row of the legend
_HANDLE = 0.34  # inches: an entry's line and the gap to its name
_GAP = 0.14  # inches between entries
_BAR = 0.62  # inches: a colour bar with its labels
_MOST_PANELS = 60


@dataclass(frozen=True)
class LinePanel:
    """A panel: its title and the title's colour, what draws into its axes, and axis labels of its own.

    Panels of one `group` show the same range of y; one without a group has its own.
    """

    title: str
    draw: Callable[[Axes], None]
    colour: str | None = None
    ylabel: str | None = None
    xlabel: str | None = None
    group: str | None = None


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
class LayerBar:
    """A colour bar over layer numbers."""

    layers: Sequence[int]
    colours: Colormap
    label: str

    @property
    def scale(self) -> Normalize:
        """From the first layer to the last; a single one stands at the lower end."""
        low, high = min(self.layers), max(self.layers)
        return Normalize(low, high if high > low else low + 1)


def integer_ticks(ax: Axes, most: int = 7) -> None:
    """Give the x axis whole numbers only, few enough to stand side by side."""
    ax.xaxis.set_major_locator(round_ticks(most, integer=True))


def begin_at_zero(ax: Axes, x: float) -> None:
    """Let the y axis begin at 0, whatever is drawn into it; `x` is a place that it covers."""
    (line,) = ax.plot([x], [0.0], linestyle="none")
    line.sticky_edges.y.append(0.0)


def draw_line_panels(
    panels: Sequence[LinePanel],
    look: Theme,
    total_width: float,
    *,
    xlabel: str,
    ylabel: str,
    legend: Sequence[Entry],
    notes: Sequence[str],
    bar: LayerBar | None = None,
    height: float = 1.55,
    most_columns: int = 3,
    shared: bool = True,
    widest: float | None = None,
    below_axes: float = _BELOW,
    left: float = _LEFT,
) -> Figure:
    """Draw panels in a grid, a legend under them and notes (sentences) under that; sizes are inches.

    `xlabel` and `ylabel` are for panels without their own; a page has at most `most_columns` side by side, each at most
    `widest` wide, with `below_axes` under its axes and `left` beside them. The bar is beside the first row; panels of
    one `LinePanel.group` show the same range of y, or with `shared` all panels do. What a page does not hold is on the
    following ones. The theme's settings are in force.

    Raises:
        InputError: there is no panel, or there are more than a figure holds.
    """
    check_panel_count(len(panels), _MOST_PANELS, "choose students or a stream")
    if shared:
        panels = [replace(panel, group="all") for panel in panels]
    if own := given_axes(len(panels)):
        return _drawn_on(own, panels, xlabel, ylabel, legend, bar)
    figure = new_figure(total_width, 1.0)
    columns = min(len(panels), most_columns if total_width > 4 else 1)
    rows = -(-len(panels) // columns)
    columns = -(-len(panels) // rows)  # rows of nearly equal length
    room = total_width - (_BAR if bar else 0.0)
    cell = room / columns if widest is None else min(room / columns, widest)
    sentences = notes if presentation().notes else ()
    lines = [line for note in sentences for line in wrap(figure, note, total_width - 0.1)]
    placed = _flow(figure, legend, total_width - 0.1)
    legend_height = _ROW * (max(row for row, *_ in placed) + 1) + 0.06 if placed else 0.0
    below = LINE * len(lines) + 0.08
    alone = len(panels) == 1 and not presentation().titles
    above = _UNTITLED if alone else _TITLE
    step = above + height + below_axes
    most_rows = max(int((PAGE_HEIGHT - legend_height - below - 0.02) // step), 1) if is_paged() else rows
    per_page = most_rows * columns
    pages, axes = list[Figure](), list[Axes]()
    for first in range(0, len(panels), per_page):
        some = panels[first : first + per_page]
        page = figure if not pages else new_figure(total_width, 1.0)
        own_rows = -(-len(some) // columns)
        total_height = own_rows * step + legend_height + below + 0.02
        page.set_size_inches(total_width, total_height)
        for position, panel in enumerate(some):
            start = (position % columns) * cell
            top = total_height - (position // columns) * step - above
            ax = axes_at(page, start + left, top, cell - left - _RIGHT, height)
            panel.draw(ax)
            ax.set_xlabel(xlabel if panel.xlabel is None else panel.xlabel)
            ax.set_ylabel(panel.ylabel if panel.ylabel is not None else ylabel if position % columns == 0 else "")
            if not alone:
                _write_title(page, panel, start + 0.05, top + above - 0.05, cell - 0.1, look)
            axes.append(ax)
        if bar is not None:
            colour_bar_at(
                page,
                columns * cell + 0.02,
                total_height - above,
                height,
                scale=bar.scale,
                colours=bar.colours,
                label=bar.label,
                integer=True,
            )
        _draw_legend(page, legend, placed, below + legend_height - 0.02)
        text_at(page, lines, 0.05, below)
        pages.append(page)
    _share_ranges(axes, panels)
    return bound(pages)


def _write_title(figure: Figure, panel: LinePanel, left: float, top: float, room: float, look: Theme) -> None:
    total_width, total_height = figure.get_size_inches()
    figure.text(
        left / total_width,
        top / total_height,
        fit(figure, panel.title, room, weight="bold"),
        ha="left",
        va="top",
        fontweight="bold",
        color=panel.colour or look.ink,
        gid="title",
    )


def _share_ranges(axes: Sequence[Axes], panels: Sequence[LinePanel]) -> None:
    """Give the panels of one group the same range of y."""
    groups: dict[str, list[Axes]] = {}
    for ax, panel in zip(axes, panels, strict=True):
        if panel.group is not None:
            groups.setdefault(panel.group, []).append(ax)
    for members in groups.values():
        lows, highs = zip(*(ax.get_ylim() for ax in members), strict=True)
        for ax in members:
            ax.set_ylim(min(lows), max(highs))


def _drawn_on(
    axes: Sequence[Axes],
    panels: Sequence[LinePanel],
    xlabel: str,
    ylabel: str,
    legend: Sequence[Entry],
    bar: LayerBar | None,
) -> Figure:
    """Draw the panels on the caller's axes, in the caller's style, with the legend in the last one and no notes."""
    for ax, panel in zip(axes, panels, strict=True):
        panel.draw(ax)
        ax.set_xlabel(xlabel if panel.xlabel is None else panel.xlabel)
        ax.set_ylabel(ylabel if panel.ylabel is None else panel.ylabel)
        ax.set_title(plain(panel.title))
    _share_ranges(axes, panels)
    figure = figure_of(axes)
    if legend:
        axes[-1].legend([entry.handle for entry in legend], [plain(entry.name) for entry in legend])
    if bar is not None:
        scale = ScalarMappable(norm=bar.scale, cmap=bar.colours)
        figure.colorbar(scale, ax=list(axes), label=bar.label, ticks=round_ticks(6, integer=True))
    return figure


def _flow(figure: Figure, legend: Sequence[Entry], room: float) -> list[tuple[int, float, str]]:
    """Return each entry's row, left edge (inches) and final name; entries follow one another like words."""
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
        handle = copy(entry.handle)  # an artist belongs to one page
        if isinstance(handle, Line2D):
            middle = handle.get_linestyle() in ("None", "none", "", " ")
            ends = [x + 0.13] if middle else [x, x + 0.13, x + 0.26]
            handle.set_data([end / total_width for end in ends], [y] * len(ends))
            handle.set_markevery([len(ends) // 2])
        elif isinstance(handle, Patch):
            box = Rectangle((x / total_width, y - 0.04 / total_height), 0.26 / total_width, 0.08 / total_height)
            box.update_from(handle)
            handle = box
        handle.set_transform(figure.transSubfigure)
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
