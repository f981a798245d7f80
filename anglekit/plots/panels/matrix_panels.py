"""Blocks of heat-map panels on one colour scale: how every figure made of matrices is laid out and drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PatchCollection
from matplotlib.colors import Colormap, LinearSegmentedColormap, ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from anglekit.plots.ground import bound, figure_of, given_axes, is_paged, new_figure
from anglekit.plots.panels.labels import fit, plain, text_width, wrap
from anglekit.plots.panels.layout import LINE, axes_at, check_panel_count, colour_bar_at, text_at
from anglekit.plots.presentation import presentation, shown_name
from anglekit.plots.style import FONT_SIZE, PAGE_HEIGHT, SMALL_FONT_SIZE, Theme

_ANNOTATED_COLUMNS = 8  # with more, cells carry no numbers
_CELL = 0.26  # inches: a cell that holds a number of two decimals at 7 points
_LEFT, _RIGHT = 0.40, 0.80  # inches: axis label and ticks; the colour bar with its own
_GAP = 0.30  # inches between panels of a row: tick labels
_NAMED_GAP = 0.48  # the same, where panels of a row have their own row labels
_TITLE, _BELOW = 0.18, 0.36  # inches over and under a panel
_TITLE_LINE = 0.125  # inches: a second line of a title
_NAME = 0.18  # inches over the first row of a block
_TICK = 0.16  # inches that a tick label needs
_ROW = 0.16  # inches: the lowest row that can carry its own number
_BESIDE = 0.12  # inches between the last panel of a row and the colour bar
_FLAT = 0.22  # inches: the largest height of a row where rows and columns differ
_BAR = 2.4  # inches: a colour bar as long as its label
_ANNOTATED_PANELS = 16  # with more, panels are drawn small, without numbers
_SMALLEST, _DENSE = 1.0, 0.75  # inches: the smallest width of a panel, and where a page does not hold them all
_MARKED = 0.085  # inches: the smallest cell that holds a mark of its sign
_LINED = 0.06  # inches: the smallest cell whose open diagonal is marked by a line
_MOST_PANELS = 80
# Blue to red as the map of a light ground, with a dark middle.
_DARK_DIVERGING = LinearSegmentedColormap.from_list(
    "dark-diverging", ["#a6d3f0", "#4393c3", "#205b8a", "#22272e", "#8f3325", "#d6604d", "#f7b799"]
)


@dataclass(frozen=True)
class ShownValue:
    """A number as a heat map shows it.

    Attributes:
        label: the colour bar's, with the unit.
        factor: converts the table's unit to the label's.
        centre: the meaningful middle of a diverging scale (in the label's unit), or None for a sequential one.
        limits: the range that a sequential scale covers at least, or None to span the data.
        least: how far a diverging scale reaches from its middle at least, and a sequential one from end to end, so
            that differences of no account stay pale.
        decimals: of the numbers in the cells.
        flipped: give small values the colour of large cosines (for angles: acute is small).
    """

    label: str
    factor: float = 1.0
    centre: float | None = None
    limits: tuple[float | None, float | None] = (None, None)
    decimals: int = 2
    flipped: bool = False
    least: float = 0.0


@dataclass(frozen=True)
class MatrixPanel:
    """A matrix in the colour bar's unit; index and columns are the tick labels. Rows go up, columns to the right.

    An open diagonal has no values: it stays blank, and a line marks it. `untold` marks, cell by cell, values that
    cannot be told from chance: they have no colour, and dots where cells carry numbers. The short title is for a panel
    too narrow for the other.
    """

    title: str
    matrix: pd.DataFrame
    xlabel: str
    ylabel: str
    open_diagonal: bool = False
    untold: pd.DataFrame | None = None
    short_title: str = ""

    @property
    def missing(self) -> np.ndarray:
        """Which cells should have a value but have none: bool (rows, columns)."""
        absent = np.isnan(self.matrix.to_numpy(np.float64))
        if self.open_diagonal:
            np.fill_diagonal(absent, val=False)
        return np.asarray(absent)


@dataclass(frozen=True)
class MatrixBlock:
    """Panels under one heading: `name` comes from the data and may be shortened; `suffix` never is."""

    name: str
    suffix: str
    panels: tuple[MatrixPanel, ...]


def _colour_scale(blocks: Sequence[MatrixBlock], shown: ShownValue) -> Normalize:
    """Return the colour scale that all panels share."""
    values = np.concatenate(
        [panel.matrix.to_numpy(np.float64).ravel() for block in blocks for panel in block.panels] or [np.zeros(0)]
    )
    values = values[np.isfinite(values)]
    if shown.centre is not None:
        reach = max(float(np.abs(values - shown.centre).max()) if values.size else 1.0, shown.least)
        return Normalize(shown.centre - (reach or 1.0), shown.centre + (reach or 1.0))
    ends = np.array([*values, *(end for end in shown.limits if end is not None)])
    if not ends.size:
        return Normalize(0.0, 1.0)
    low, high = float(ends.min()), max(float(ends.max()), float(ends.min()) + shown.least)
    return Normalize(low, high if high > low else low + 1.0)


def _colour_map(shown: ShownValue, look: Theme) -> Colormap:
    if shown.centre is None:
        return mpl.colormaps[look.sequential]
    # On a dark ground what is near the middle must not shine brightest.
    colours = _DARK_DIVERGING if look.dark else mpl.colormaps[look.diverging]
    return colours.reversed() if shown.flipped else colours


@dataclass(frozen=True)
class _Layout:
    """How panels are placed, in inches: `columns` side by side, the widest `width` wide, all cells of one size."""

    columns: int
    width: float
    gap: float
    cell: float
    row: float
    annotated: bool
    title: float = _TITLE

    def size(self, panel: MatrixPanel) -> tuple[float, float]:
        rows, columns = panel.matrix.shape
        return columns * self.cell, rows * self.row

    def rows_of(self, block: MatrixBlock) -> list[tuple[MatrixPanel, ...]]:
        """Return a block's panels row by row."""
        starts = range(0, len(block.panels), self.columns)
        return [block.panels[start : start + self.columns] for start in starts]

    def height(self, row: Sequence[MatrixPanel]) -> float:
        """Return the height of a row of panels, with titles and labels."""
        return self.title + max(self.size(panel)[1] for panel in row) + _BELOW


def _lay_out(blocks: Sequence[MatrixBlock], room: float, most_annotated: int, height: float) -> _Layout:
    """Return a layout with all cells of one size.

    Annotated cells are large enough to read. Panels that would not fit in `height` inches are drawn small, without
    numbers.
    """
    annotated = _are_annotated(blocks, most_annotated)
    roomy = _layout(blocks, room, annotated=annotated, largest=2.4)
    if _height(blocks, roomy) <= height:
        return roomy
    return _layout(blocks, room, annotated=False, largest=1.5, least=_DENSE)


def _height(blocks: Sequence[MatrixBlock], layout: _Layout) -> float:
    return sum(_NAME + sum(map(layout.height, layout.rows_of(block))) for block in blocks)


def _layout(
    blocks: Sequence[MatrixBlock], room: float, *, annotated: bool, largest: float, least: float = _SMALLEST
) -> _Layout:
    panels = [panel for block in blocks for panel in block.panels]
    widest = max(panel.matrix.shape[1] for panel in panels)
    tallest = max(panel.matrix.shape[0] for panel in panels)
    most = max(len(block.panels) for block in blocks)
    gap = _NAMED_GAP if any(len({panel.ylabel for panel in block.panels}) > 1 for block in blocks) else _GAP
    smallest = max(_CELL * widest, 0.9) if annotated else least
    columns = max(1, min(most, 4, int((room + gap) // (smallest + gap))))
    columns = -(-most // -(-most // columns))  # rows of nearly equal length
    width = min((room - (columns - 1) * gap) / columns, max(0.4 * widest, 1.0) if annotated else largest)
    cell = width / widest
    square = all(panel.matrix.shape[0] == panel.matrix.shape[1] for panel in panels)
    row = cell if square else max(min(cell, _FLAT), min(_ROW, 1.6 / tallest))
    return _Layout(columns, width, gap, cell, row, annotated and row >= LINE)


def _are_annotated(blocks: Sequence[MatrixBlock], most: int = _ANNOTATED_PANELS) -> bool:
    """Return whether cells could carry their numbers: only where there are few cells, in few panels."""
    panels = [panel for block in blocks for panel in block.panels]
    return len(panels) <= most and all(panel.matrix.shape[1] <= _ANNOTATED_COLUMNS for panel in panels)


def draw_matrix_blocks(
    blocks: Sequence[MatrixBlock],
    shown: ShownValue,
    look: Theme,
    total_width: float,
    notes: Sequence[str],
    *,
    advice: str = "choose students or a stream",
    most_annotated: int = _ANNOTATED_PANELS,
) -> Figure:
    """Draw blocks of panels one under the other, a colour bar beside them and notes (sentences) below.

    The theme's settings are in force and the width is in inches. With more than `most_annotated` panels cells carry no
    numbers; `advice` says what to do where there are too many panels.

    Raises:
        InputError: there is no panel, or there are too many.
    """
    check_panel_count(sum(len(block.panels) for block in blocks), _MOST_PANELS, advice)
    if own := given_axes(sum(len(block.panels) for block in blocks)):
        return _drawn_on(own, blocks, shown, look, most_annotated)
    figure = new_figure(total_width, 1.0)
    for sentences in (notes, [*notes, f"−: below {shown.centre:g}." if shown.centre else "−: below 0."]):  # noqa: RUF001
        lines = wrap(figure, " ".join(sentences), total_width - 0.1) if presentation().notes else []
        below = LINE * len(lines) + 0.08
        room = PAGE_HEIGHT - below - 0.04 if is_paged() else np.inf
        layout = _lay_out(blocks, total_width - _LEFT - _RIGHT, most_annotated, room)
        if not _has_marks(blocks, shown, layout):
            break
    titles = _titles(figure, blocks, layout)
    layout = replace(layout, title=_TITLE + _TITLE_LINE * max(title.count("\n") for title in titles.values()))
    scale = _colour_scale(blocks, shown)
    pages: list[Figure] = []
    for shelves in _paged(blocks, layout, room):
        page = figure if not pages else new_figure(total_width, 1.0)
        _draw_page(page, shelves, layout, titles, scale, shown, look, below)
        text_at(page, lines, 0.05, below)
        pages.append(page)
    return bound(pages)


def _below_centre(panel: MatrixPanel, shown: ShownValue) -> np.ndarray:
    """Return which cells lie below the middle of a diverging scale, told from chance: bool (rows, columns)."""
    if shown.centre is None:
        return np.zeros(panel.matrix.shape, dtype=bool)
    values = panel.matrix.to_numpy(np.float64)
    # What would be written as the middle itself has no side.
    distance = (shown.centre - values) * 10.0**shown.decimals >= 0.5
    return distance if panel.untold is None else distance & ~panel.untold.to_numpy(bool)


def _has_marks(blocks: Sequence[MatrixBlock], shown: ShownValue, layout: _Layout) -> bool:
    """Return whether cells without numbers carry a mark of their sign, which print in grey would lose."""
    if layout.annotated or min(layout.cell, layout.row) < _MARKED:
        return False
    return any(_below_centre(panel, shown).any() for block in blocks for panel in block.panels)


@dataclass(frozen=True)
class _Shelf:
    """A row of panels on a page: under its block's heading where it has one, above the row that follows it."""

    block: MatrixBlock
    panels: tuple[MatrixPanel, ...]
    headed: bool
    following: int

    def height(self, layout: _Layout) -> float:
        return layout.height(self.panels) + _NAME * self.headed


def _paged(blocks: Sequence[MatrixBlock], layout: _Layout, room: float) -> list[list[_Shelf]]:
    """Return the rows of panels page by page; each page has at least one, and a block's heading comes on each page."""
    # A heading tells blocks apart, or says what a single one is about.
    titled = presentation().titles or len(blocks) > 1
    pages: list[list[_Shelf]] = [[]]
    for block in blocks:
        rows = layout.rows_of(block)
        for number, row in enumerate(rows):
            following = len(rows[number + 1]) if number + 1 < len(rows) else 0
            shelf = _Shelf(block, row, titled and (number == 0 or not pages[-1]), following)
            used = sum(each.height(layout) for each in pages[-1])
            if pages[-1] and used + shelf.height(layout) > room:
                pages.append([])
                shelf = replace(shelf, headed=titled)
            pages[-1].append(shelf)
    return pages


def _titles(figure: Figure, blocks: Sequence[MatrixBlock], layout: _Layout) -> dict[int, str]:
    """Return the title of each panel, ready to draw, by the panel's `id`.

    Where one is too long for its place, all panels that have short titles take these; another breaks at its comma.
    """
    space = layout.width + layout.gap - 0.06

    def is_wide(text: str) -> bool:
        return text_width(figure, plain(text), FONT_SIZE) > space

    panels = [panel for block in blocks for panel in block.panels]
    short = any(panel.short_title and is_wide(shown_name(panel.title)) for panel in panels)
    titles = {}
    for panel in panels:
        title = panel.short_title if short and panel.short_title else shown_name(panel.title)
        first, comma, rest = title.partition(", ")
        lines = [f"{first},", rest] if comma and is_wide(title) else [title]
        titles[id(panel)] = "\n".join(fit(figure, line, space) for line in lines)
    return titles


def _draw_page(
    figure: Figure,
    shelves: Sequence[_Shelf],
    layout: _Layout,
    titles: Mapping[int, str],
    scale: Normalize,
    shown: ShownValue,
    look: Theme,
    below: float,
) -> None:
    """Draw rows of panels and the colour bar beside them."""
    total_width = figure.get_size_inches()[0]
    panel_heights = sum(shelf.height(layout) for shelf in shelves)
    total_height = panel_heights + below + 0.04
    figure.set_size_inches(total_width, total_height)
    top = total_height - 0.04
    for number, shelf in enumerate(shelves):
        block, row = shelf.block, shelf.panels
        if shelf.headed:
            name = fit(
                figure,
                shown_name(block.name),
                total_width - 0.1,
                weight="bold",
                frame=lambda text, b=block: text + b.suffix,  # type: ignore[misc]
            )
            figure.text(0.05 / total_width, top / total_height, name, fontweight="bold", ha="left", va="top")
            top -= _NAME
        last = number + 1 == len(shelves)
        for position, panel in enumerate(row):
            left = _LEFT + position * (layout.width + layout.gap)
            ax = axes_at(figure, left, top - layout.title, *layout.size(panel))
            _draw_matrix(ax, panel, shown, scale, look, layout)
            ax.set_title(titles[id(panel)], pad=3, loc="left")
            ax.set_xlabel(panel.xlabel if last or shelf.following <= position else "")
            ax.set_ylabel(panel.ylabel if position == 0 or panel.ylabel != row[position - 1].ylabel else "")
        top -= layout.height(row)
    used = _LEFT + layout.columns * layout.width + (layout.columns - 1) * layout.gap
    first = layout.height(shelves[0].panels) - layout.title - _BELOW
    bar = max(first, min(_BAR, panel_heights - layout.title - _BELOW))  # its label needs room
    colour_bar_at(
        figure,
        used + _BESIDE + 0.02,
        total_height - _NAME * shelves[0].headed - layout.title - 0.04,
        bar,
        scale=scale,
        colours=_colour_map(shown, look),
        label=shown.label,
    )


def _drawn_on(
    axes: Sequence[Axes], blocks: Sequence[MatrixBlock], shown: ShownValue, look: Theme, most_annotated: int
) -> Figure:
    """Draw the panels on the caller's axes, with one colour bar beside them and no notes."""
    scale, figure = _colour_scale(blocks, shown), figure_of(axes)
    panels = [(block, panel) for block in blocks for panel in block.panels]
    for ax, (block, panel) in zip(axes, panels, strict=True):
        box = ax.get_window_extent()
        rows, columns = panel.matrix.shape
        cell, row = box.width / figure.dpi / columns, box.height / figure.dpi / rows
        roomy = _are_annotated(blocks, most_annotated) and cell >= _CELL and row >= LINE
        _draw_matrix(ax, panel, shown, scale, look, _Layout(1, cell * columns, _GAP, cell, row, roomy))
        heading = f"{plain(shown_name(block.name))}{block.suffix}\n" if len(blocks) > 1 else ""
        ax.set_title(f"{heading}{plain(shown_name(panel.title))}")
        ax.set_xlabel(panel.xlabel)
        ax.set_ylabel(panel.ylabel)
    figure.colorbar(ScalarMappable(norm=scale, cmap=_colour_map(shown, look)), ax=list(axes), label=shown.label)
    return figure


def _draw_matrix(
    ax: Axes, panel: MatrixPanel, shown: ShownValue, scale: Normalize, look: Theme, layout: _Layout
) -> None:
    annotated, size = layout.annotated, layout.size(panel)
    values = panel.matrix.to_numpy(np.float64)
    rows, columns = values.shape
    colours = _colour_map(shown, look)
    ax.grid(visible=False)
    ax.pcolormesh(
        np.arange(columns + 1),
        np.arange(rows + 1),
        np.ma.masked_invalid(values),
        cmap=colours,
        norm=scale,
        rasterized=not annotated,
    )
    ax.set_xlim(0, columns)
    ax.set_ylim(0, rows)
    # On many small cells a hatch is noise.
    if panel.missing.any():
        _cover(ax, panel.missing, "missing", look.blank, look, "/////" if annotated else None)
    untold = np.zeros(values.shape, dtype=bool)
    if panel.untold is not None and (untold := panel.untold.to_numpy(bool) & ~panel.missing).any():
        _cover(ax, untold, "untold", look.background, look, "...." if annotated else None)
    if annotated:
        for (row, column), number in np.ndenumerate(values):
            if not np.isfinite(number):
                continue
            ax.text(
                column + 0.5,
                row + 0.5,
                _cell_text(number, shown),
                color=look.ink if untold[row, column] else _ink_on(colours(scale(number))),
                fontsize=SMALL_FONT_SIZE,
                ha="center",
                va="center",
                bbox=_uncovered(look) if untold[row, column] else None,
            )
    if not annotated and min(layout.cell, layout.row) >= _MARKED:
        _mark_signs(ax, values, _below_centre(panel, shown), colours, scale)
    if not annotated and untold.any() and not (~untold & ~panel.missing & np.isfinite(values)).any():
        text = "not told\nfrom chance"
        ax.text(
            0.5,
            0.5,
            text,
            transform=ax.transAxes,
            fontsize=SMALL_FONT_SIZE,
            ha="center",
            va="center",
            bbox=_uncovered(look),
            zorder=5,
        )
    if (
        panel.open_diagonal and min(layout.cell, layout.row) >= _LINED
    ):  # a blank cell looks like the middle of a diverging scale
        count = len(panel.matrix)
        ax.plot([0, count], [0, count], color=look.faint, linewidth=0.6, scalex=False, scaley=False, gid="diagonal")
    for names, axis, length in ((panel.matrix.columns, "x", size[0]), (panel.matrix.index, "y", size[1])):
        step = _tick_step(len(names), length)
        set_ticks = ax.set_xticks if axis == "x" else ax.set_yticks
        set_ticks(np.arange(0, len(names), step) + 0.5, [plain(str(name)) for name in names[::step]], rotation=0)
    for spine in ax.spines.values():
        spine.set_visible(True)


def _mark_signs(ax: Axes, values: np.ndarray, below: np.ndarray, colours: Colormap, scale: Normalize) -> None:
    """Put a minus into the cells below the middle."""
    rows, columns = np.nonzero(below)
    inks = np.array([_ink_on(colour) for colour in colours(scale(values[rows, columns]))])
    for ink in dict.fromkeys(inks.tolist()):
        own = inks == ink
        places = columns[own] + 0.5, rows[own] + 0.5
        ax.plot(*places, "_", color=ink, markersize=2.6, markeredgewidth=0.6, gid="below")


def _ink_on(colour: Sequence[float]) -> str:
    """Return what can be read on a cell: dark on a light one, by relative luminance, else white."""
    return "0.15" if np.dot(_linear(colour[:3]), (0.2126, 0.7152, 0.0722)) > 0.408 else "w"


def _linear(colour: Sequence[float]) -> np.ndarray:
    """Return linear light of an sRGB colour."""
    channels = np.asarray(colour, dtype=np.float64)
    return np.where(channels <= 0.03928, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def _uncovered(look: Theme) -> dict[str, Any]:
    """Return the box that keeps a number readable over the dots of its cell."""
    return {"facecolor": look.background, "linewidth": 0, "boxstyle": "square,pad=0.05"}


def _cover(ax: Axes, which: np.ndarray, name: str, ground: str, look: Theme, hatch: str | None) -> None:
    """Lay a ground over some cells: bool (rows, columns); hatched patches, or where there is no hatch one mesh."""
    if hatch is None:
        rows, columns = which.shape
        covered = np.ma.masked_array(np.zeros(which.shape), ~which)
        edges = np.arange(columns + 1), np.arange(rows + 1)
        ax.pcolormesh(*edges, covered, cmap=ListedColormap([ground]), rasterized=True, gid=name)
        return
    cells = [Rectangle((float(column), float(row)), 1, 1) for row, column in np.argwhere(which)]
    edge = look.blank if ground == look.background else look.faint
    ax.add_collection(PatchCollection(cells, facecolor=ground, edgecolor=edge, linewidth=0, hatch=hatch, gid=name))


def _cell_text(number: float, shown: ShownValue) -> str:
    if not np.isfinite(number):
        return ""
    decimals = shown.decimals
    text = f"{number:.{decimals}f}"
    low, high = shown.limits
    step = 10.0**-decimals
    if high is not None and float(text) == high and number < high:  # nearly all must not read as all
        text = f">{high - step:.{decimals}f}"
    elif low is not None and high is not None and float(text) == low and number > low:  # nor few as none
        text = f"<{low + step:.{decimals}f}"
    elif float(text) == 0:
        text = text.removeprefix("-")
    if decimals > 1 and abs(number) < 1 and not text.endswith(f"1.{'0' * decimals}"):
        text = text.replace("0.", ".", 1)  # drop the zero before the point: the cell is small
    return text.replace("-", "−")  # noqa: RUF001


def _tick_step(count: int, length: float) -> int:
    """Return the spacing of tick labels, in cells, that gives each label its room."""
    most = max(int(length / _TICK), 1)
    return next(step for step in (1, 2, 5, 10, 20, 25, 50, 100, count) if count / step <= most)


def missing_note(blocks: Sequence[MatrixBlock], reason: str) -> list[str]:
    """Return the sentence that explains cells without a value, if there are any."""
    panels = [panel for block in blocks for panel in block.panels]
    if not any(panel.missing.any() for panel in panels):
        return []
    return [f"Grey: {reason}."]


def untold_note(blocks: Sequence[MatrixBlock], test: str) -> list[str]:
    """Return the sentence that explains blank cells, if there are any; `test` says how they were tested."""
    panels = [panel for block in blocks for panel in block.panels if panel.untold is not None]
    if not any((panel.untold.to_numpy(bool) & ~panel.missing).any() for panel in panels if panel.untold is not None):
        return []
    return [f"Blank or dotted: not told from chance ({test})."]
