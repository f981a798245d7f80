"""Blocks of heat-map panels on one colour scale: how every figure made of matrices is laid out and drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PatchCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from anglekit.plots.ground import figure_of, given_axes, new_figure
from anglekit.plots.panels.labels import fit, plain, wrap
from anglekit.plots.panels.layout import LINE, axes_at, check_panel_count, colour_bar_at, text_at
from anglekit.plots.style import SMALL_FONT_SIZE, Theme

_ANNOTATED_COLUMNS = 8  # with more, cells carry no numbers
_CELL = 0.26  # inches: a cell that holds a number of two decimals at 7 points
_LEFT, _RIGHT = 0.40, 0.80  # inches: axis label and ticks; the colour bar with its own
_GAP = 0.30  # inches between panels of a row: tick labels
_NAMED_GAP = 0.48  # the same, where panels of a row have their own row labels
_TITLE, _BELOW = 0.18, 0.36  # inches over and under a panel
_NAME = 0.18  # inches over the first row of a block
_TICK = 0.16  # inches that a tick label needs
_ROW = 0.16  # inches: the lowest row that can carry its own number
_BESIDE = 0.12  # inches between the last panel of a row and the colour bar
_FLAT = 0.22  # inches: the largest height of a row where rows and columns differ
_BAR = 2.4  # inches: a colour bar as long as its label
_ANNOTATED_PANELS = 16  # with more, panels are drawn small, without numbers
_MOST_PANELS = 80
_FAINT = 0.7  # how far a faint cell is from its colour


@dataclass(frozen=True)
class ShownValue:
    """A number as a heat map shows it.

    Attributes:
        label: the colour bar's, with the unit.
        factor: converts the table's unit to the label's.
        centre: the meaningful middle of a diverging scale (in the label's unit), or None for a sequential one.
        limits: the range that a sequential scale covers at least, or None to span the data.
        decimals: of the numbers in the cells.
        flipped: give small values the colour of large cosines (for angles: acute is small).
    """

    label: str
    factor: float = 1.0
    centre: float | None = None
    limits: tuple[float | None, float | None] = (None, None)
    decimals: int = 2
    flipped: bool = False


@dataclass(frozen=True)
class MatrixPanel:
    """A matrix in the colour bar's unit; index and columns are the tick labels. Rows go up, columns to the right.

    An open diagonal has no values: it stays blank, and a line marks it. `untold` marks, cell by cell, values that
    cannot be told from chance: they are drawn faint.
    """

    title: str
    matrix: pd.DataFrame
    xlabel: str
    ylabel: str
    open_diagonal: bool = False
    untold: pd.DataFrame | None = None

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
        reach = float(np.abs(values - shown.centre).max()) if values.size else 1.0
        return Normalize(shown.centre - (reach or 1.0), shown.centre + (reach or 1.0))
    ends = np.array([*values, *(end for end in shown.limits if end is not None)])
    if not ends.size:
        return Normalize(0.0, 1.0)
    low, high = float(ends.min()), float(ends.max())
    return Normalize(low, high if high > low else low + 1.0)


def _colour_map(shown: ShownValue, look: Theme) -> str:
    if shown.centre is None:
        return look.sequential
    if not shown.flipped:
        return look.diverging
    return look.diverging.removesuffix("_r") if look.diverging.endswith("_r") else f"{look.diverging}_r"


@dataclass(frozen=True)
class _Layout:
    """How panels are placed, in inches: `columns` side by side, the widest `width` wide, all cells of one size."""

    columns: int
    width: float
    gap: float
    cell: float
    row: float
    annotated: bool

    def size(self, panel: MatrixPanel) -> tuple[float, float]:
        rows, columns = panel.matrix.shape
        return columns * self.cell, rows * self.row


def _lay_out(blocks: Sequence[MatrixBlock], room: float, most_annotated: int) -> _Layout:
    """Return a layout with all cells of one size, in which annotated cells are large enough to read."""
    panels = [panel for block in blocks for panel in block.panels]
    widest = max(panel.matrix.shape[1] for panel in panels)
    tallest = max(panel.matrix.shape[0] for panel in panels)
    most = max(len(block.panels) for block in blocks)
    annotated = _are_annotated(blocks, most_annotated)
    gap = _NAMED_GAP if any(len({panel.ylabel for panel in block.panels}) > 1 for block in blocks) else _GAP
    smallest = max(_CELL * widest, 0.9) if annotated else 1.0
    columns = max(1, min(most, 4, int((room + gap) // (smallest + gap))))
    columns = -(-most // -(-most // columns))  # rows of nearly equal length
    largest = max(0.4 * widest, 1.0) if annotated else 2.4
    width = min((room - (columns - 1) * gap) / columns, largest)
    cell = width / widest
    square = all(panel.matrix.shape[0] == panel.matrix.shape[1] for panel in panels)
    row = cell if square else max(min(cell, _FLAT), min(_ROW, 1.6 / tallest))
    return _Layout(columns, width, gap, cell, row, annotated and row >= LINE)


def _are_annotated(blocks: Sequence[MatrixBlock], most: int = _ANNOTATED_PANELS) -> bool:
    """Return whether cells carry their numbers: only where there are few cells, in few panels."""
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
    layout = _lay_out(blocks, total_width - _LEFT - _RIGHT, most_annotated)
    figure = new_figure(total_width, 1.0)
    lines = wrap(figure, " ".join(notes), total_width - 0.1)
    below = LINE * len(lines) + 0.08
    rows = [
        [block.panels[start : start + layout.columns] for start in range(0, len(block.panels), layout.columns)]
        for block in blocks
    ]
    heights = [[max(layout.size(panel)[1] for panel in row) for row in own] for own in rows]
    panel_heights = sum(_TITLE + height + _BELOW for own in heights for height in own)
    total_height = panel_heights + len(blocks) * _NAME + below + 0.04
    figure.set_size_inches(total_width, total_height)
    scale = _colour_scale(blocks, shown)
    top = total_height - 0.04
    for block, own_rows, own_heights in zip(blocks, rows, heights, strict=True):
        name = fit(figure, block.name, total_width - 0.1, weight="bold", frame=lambda text, b=block: text + b.suffix)  # type: ignore[misc]
        figure.text(0.05 / total_width, top / total_height, name, fontweight="bold", ha="left", va="top")
        top -= _NAME
        for number, (row, height) in enumerate(zip(own_rows, own_heights, strict=True)):
            below_it = own_rows[number + 1] if number + 1 < len(own_rows) else ()
            for position, panel in enumerate(row):
                left = _LEFT + position * (layout.width + layout.gap)
                ax = axes_at(figure, left, top - _TITLE, *layout.size(panel))
                _draw_matrix(ax, panel, shown, scale, look, layout)
                beside = layout.gap if position + 1 < layout.columns else _BESIDE
                ax.set_title(fit(figure, panel.title, layout.width + beside - 0.06), pad=3, loc="left")
                ax.set_xlabel(panel.xlabel if len(below_it) <= position else "")
                ax.set_ylabel(panel.ylabel if position == 0 or panel.ylabel != row[position - 1].ylabel else "")
            top -= _TITLE + height + _BELOW
    used = _LEFT + layout.columns * layout.width + (layout.columns - 1) * layout.gap
    bar = max(heights[0][0], min(_BAR, panel_heights - _TITLE - _BELOW))  # its label needs room
    colour_bar_at(
        figure,
        used + _BESIDE + 0.02,
        total_height - _NAME - _TITLE - 0.04,
        bar,
        scale=scale,
        colours=_colour_map(shown, look),
        label=shown.label,
    )
    text_at(figure, lines, 0.05, below)
    return figure


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
        heading = f"{plain(block.name)}{block.suffix}\n" if len(blocks) > 1 else ""
        ax.set_title(f"{heading}{plain(panel.title)}")
        ax.set_xlabel(panel.xlabel)
        ax.set_ylabel(panel.ylabel)
    figure.colorbar(ScalarMappable(norm=scale, cmap=_colour_map(shown, look)), ax=list(axes), label=shown.label)
    return figure


@contextmanager
def _nothing_drawn(ax: Axes) -> Iterator[None]:
    """Keep seaborn from drawing the whole figure for every panel to look for labels that overlap: it finds none.

    With many panels that takes most of the time, because each new panel draws all earlier ones again.
    """
    figure = cast("Figure", ax.get_figure(root=True))
    canvas = figure.canvas
    FigureCanvasBase(figure)  # draws nothing
    try:
        yield
    finally:
        figure.set_canvas(canvas)


def _draw_matrix(
    ax: Axes, panel: MatrixPanel, shown: ShownValue, scale: Normalize, look: Theme, layout: _Layout
) -> None:
    annotated, size = layout.annotated, layout.size(panel)
    labels = panel.matrix.map(lambda number: _cell_text(number, shown)) if annotated else False
    with _nothing_drawn(ax):
        sns.heatmap(
            panel.matrix,
            ax=ax,
            cmap=_colour_map(shown, look),
            vmin=scale.vmin,
            vmax=scale.vmax,
            cbar=False,
            annot=labels,
            fmt="",
            annot_kws={"fontsize": SMALL_FONT_SIZE},
            xticklabels=False,
            yticklabels=False,
            rasterized=not annotated,
        )
    ax.invert_yaxis()
    if panel.missing.any():
        hatch = "/////" if annotated else None  # on many small cells a hatch is noise: plain grey
        _cover(ax, panel.missing, "missing", facecolor=look.blank, edgecolor=look.faint, linewidth=0, hatch=hatch)
    if panel.untold is not None and (untold := panel.untold.to_numpy(bool) & ~panel.missing).any():
        _cover(ax, untold, "untold", facecolor=look.blank, linewidth=0, alpha=_FAINT)
        for text in ax.texts:
            column, row = text.get_position()
            if untold[int(row), int(column)]:
                text.set_color(look.ink)
    if panel.open_diagonal:  # a blank cell looks like the middle of a diverging scale
        count = len(panel.matrix)
        ax.plot([0, count], [0, count], color=look.faint, linewidth=0.6, scalex=False, scaley=False, gid="diagonal")
    for names, axis, length in ((panel.matrix.columns, "x", size[0]), (panel.matrix.index, "y", size[1])):
        step = _tick_step(len(names), length)
        set_ticks = ax.set_xticks if axis == "x" else ax.set_yticks
        set_ticks(np.arange(0, len(names), step) + 0.5, [plain(str(name)) for name in names[::step]], rotation=0)
    for spine in ax.spines.values():
        spine.set_visible(True)


def _cover(ax: Axes, which: np.ndarray, name: str, **drawn: Any) -> None:  # noqa: ANN401 - matplotlib's own
    """Lay patches over some cells: bool (rows, columns)."""
    cells = [Rectangle((float(column), float(row)), 1, 1) for row, column in np.argwhere(which)]
    collection = PatchCollection(cells, **drawn)
    collection.set_gid(name)
    ax.add_collection(collection)


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
    return next(step for step in (1, 2, 3, 4, 5, 6, 10, 20, 25, 50, 100, count) if count / step <= most)


def missing_note(blocks: Sequence[MatrixBlock], reason: str) -> list[str]:
    """Return the sentence that explains cells without a value, if there are any."""
    panels = [panel for block in blocks for panel in block.panels]
    if not any(panel.missing.any() for panel in panels):
        return []
    return [f"{'Hatched' if _are_annotated(blocks) else 'Grey'}: {reason}."]


def untold_note(blocks: Sequence[MatrixBlock]) -> list[str]:
    """Return the sentence that explains faint cells, if there are any."""
    panels = [panel for block in blocks for panel in block.panels if panel.untold is not None]
    if not any((panel.untold.to_numpy(bool) & ~panel.missing).any() for panel in panels if panel.untold is not None):
        return []
    return [
        "Faint: not told from chance (permuted examples; 5% for all pairs of layers of the same two sides together)."
    ]
