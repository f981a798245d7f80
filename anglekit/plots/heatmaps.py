"""Heat maps over pairs of teacher layers, a panel per student layer at which the angle stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PatchCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from anglekit.errors import InputError, suggest
from anglekit.geometry.results import Geometry
from anglekit.plots.labels import fit, plain, wrap
from anglekit.plots.selection import choose_streams, choose_students, choose_vertices
from anglekit.plots.style import SMALL_FONT_SIZE, Theme, context, figure_width, new_figure, theme

__all__ = ["ANGLE_VALUES", "AngleValue", "angles_heatmap", "pair_matrix"]


@dataclass(frozen=True)
class AngleValue:
    """A column of `Geometry.angles` as a heat map shows it.

    Attributes:
        label: the colour bar's, with the unit.
        factor: from the column's unit to the label's.
        centre: the meaningful middle of a diverging scale (in the label's unit), or None for a sequential one.
        limits: fixed ends of the scale, or None to span the data.
        decimals: of the numbers in the cells.
        flipped: small values take the colour that large cosines have (angles: acute is small).
    """

    label: str
    factor: float = 1.0
    centre: float | None = None
    limits: tuple[float, float] | None = None
    decimals: int = 2
    flipped: bool = False


#: What a heat map can show.
ANGLE_VALUES: Mapping[str, AngleValue] = MappingProxyType(
    {
        "mean_cosine": AngleValue("mean cosine (no unit)", centre=0.0),
        "mean_angle_degrees": AngleValue("mean angle (degrees)", centre=90.0, decimals=0, flipped=True),
        "acute_fraction": AngleValue("acute tokens (%)", factor=100.0, limits=(0.0, 100.0), decimals=0),
        "mean_tangential_cosine": AngleValue("tangential cosine (no unit)", centre=0.0),
        "mean_tangential_angle_degrees": AngleValue(
            "tangential angle (degrees)", centre=90.0, decimals=0, flipped=True
        ),
        "null_cosine": AngleValue("chance cosine (no unit)", centre=0.0),
        "std_cosine": AngleValue("standard deviation (no unit)"),
        "se_cosine": AngleValue("standard error (no unit)", decimals=3),
    }
)

_ANNOTATED_LAYERS = 8  # up to so many layers, cells carry their numbers
_CELL = 0.26  # inches: a cell that holds a number of two decimals at 7 points
_LEFT, _RIGHT = 0.40, 0.80  # inches: axis label and ticks; the colour bar with its own
_GAP = 0.30  # inches between panels of a row: tick labels
_TITLE, _BELOW = 0.18, 0.36  # inches over and under a panel
_NAME = 0.18  # inches over the first row of a student
_LINE = 0.13
_TICK = 0.16  # inches that a tick label needs
_MOST_PANELS = 80


@dataclass(frozen=True)
class _Block:
    """The panels of one student and stream: a symmetric matrix per vertex."""

    student: str
    stream: str
    matrices: dict[int, pd.DataFrame]


def angles_heatmap(
    geometry: Geometry,
    *,
    students: str | Sequence[str] | None = None,
    stream: str | None = None,
    vertices: Sequence[int] | None = None,
    value: str = "mean_cosine",
    width: str = "page",
    dark: bool = False,
) -> Figure:
    """Draw a statistic of the angle over all pairs of teacher layers, a panel per student layer.

    All panels share one colour scale. The diagonal, where a pair would be one layer twice, is blank; cells without
    a value (every token was degenerate, as where the student's embedding is the teacher's) are hatched.

    Args:
        geometry: what the analysis found.
        students: the students to draw; all by default.
        stream: `encoder` or `decoder`; both by default.
        vertices: the student layers to draw; all by default.
        value: a column of `Geometry.angles` (see `ANGLE_VALUES`).
        width: `page` or `column`.
        dark: draw on a dark ground.

    Raises:
        InputError: nothing is left to draw, too much is, or an argument names what the geometry does not have.
    """
    if value not in ANGLE_VALUES:
        raise InputError(f"no value {value!r}; {suggest(value, ANGLE_VALUES)}")
    total_width = figure_width(width)
    names = choose_students([geometry], students)
    streams = choose_streams([geometry], stream)
    layers = choose_vertices([geometry], vertices)
    blocks = _blocks(geometry, names, streams, layers, value)
    count = sum(len(block.matrices) for block in blocks)
    if not count:
        raise InputError("no student has this stream and vertex; choose others, or leave the choice out")
    if count > _MOST_PANELS:
        raise InputError(f"{count} panels are more than a figure holds ({_MOST_PANELS}); choose a student or a stream")
    look = theme(dark)
    with context(look):
        return _draw(blocks, ANGLE_VALUES[value], look, total_width, official=_is_official(geometry))


def _is_official(geometry: Geometry) -> bool:
    return bool(geometry.settings.get("reading") == "official")


def pair_matrix(rows: pd.DataFrame, value: str, layers: Sequence[int]) -> pd.DataFrame:
    """Return a statistic as a symmetric matrix over teacher layers, NaN on the diagonal and where there is none.

    Args:
        rows: the rows of `Geometry.angles` of one student, stream and vertex.
        value: the column.
        layers: the teacher layers, in order.
    """
    upper = rows.pivot_table(index="teacher_i", columns="teacher_k", values=value, dropna=False)
    upper = upper.reindex(index=list(layers), columns=list(layers)).astype("float64")
    matrix = np.where(np.isnan(upper.to_numpy()), upper.to_numpy().T, upper.to_numpy())
    np.fill_diagonal(matrix, np.nan)
    return pd.DataFrame(matrix, index=list(layers), columns=list(layers))


def _blocks(
    geometry: Geometry, students: Sequence[str], streams: Sequence[str], vertices: Sequence[int], value: str
) -> list[_Block]:
    factor = ANGLE_VALUES[value].factor
    blocks = []
    for student in students:
        for stream in streams:
            angles = geometry.angles
            rows = angles[(angles["student"] == student) & (angles["stream"] == stream)]
            layers = sorted({int(layer) for column in ("teacher_i", "teacher_k") for layer in rows[column].unique()})
            own = [vertex for vertex in vertices if vertex in set(rows["vertex"])]
            matrices = {vertex: pair_matrix(rows[rows["vertex"] == vertex], value, layers) * factor for vertex in own}
            if matrices:
                blocks.append(_Block(student, stream, matrices))
    return blocks


def _scale(blocks: Sequence[_Block], shown: AngleValue) -> Normalize:
    """Return the colour scale that all panels share."""
    values = np.concatenate([matrix.to_numpy().ravel() for block in blocks for matrix in block.matrices.values()])
    values = values[np.isfinite(values)]
    if shown.limits is not None:
        return Normalize(*shown.limits)
    if not values.size:
        return Normalize(0.0, 1.0)
    if shown.centre is not None:
        reach = float(np.abs(values - shown.centre).max()) or 1.0
        return Normalize(shown.centre - reach, shown.centre + reach)
    low, high = float(values.min()), float(values.max())
    return Normalize(low, high if high > low else low + 1.0)


def _colour_map(shown: AngleValue, look: Theme) -> str:
    if shown.centre is None:
        return look.sequential
    if not shown.flipped:
        return look.diverging
    return look.diverging.removesuffix("_r") if look.diverging.endswith("_r") else f"{look.diverging}_r"


def _columns(widest: int, most_layers: int, room: float) -> int:
    """Return how many panels stand side by side, so that annotated cells stay large enough to be read."""
    smallest = max(_CELL * most_layers, 0.9) if most_layers <= _ANNOTATED_LAYERS else 1.0
    most = max(1, min(widest, 4, int((room + _GAP) // (smallest + _GAP))))
    return -(-widest // -(-widest // most))  # rows of nearly equal length


def _draw(blocks: Sequence[_Block], shown: AngleValue, look: Theme, total_width: float, *, official: bool) -> Figure:
    room = total_width - _LEFT - _RIGHT
    most_layers = max(len(matrix) for block in blocks for matrix in block.matrices.values())
    widest = max(len(block.matrices) for block in blocks)
    columns = _columns(widest, most_layers, room)
    largest = max(0.4 * most_layers, 1.0) if most_layers <= _ANNOTATED_LAYERS else 2.4
    side = min((room - (columns - 1) * _GAP) / columns, largest)
    lines_of = [-(-len(block.matrices) // columns) for block in blocks]
    row_height = _TITLE + side + _BELOW
    figure = new_figure(total_width, 1.0)
    notes = wrap(figure, _note(blocks, official=official), total_width - 0.1)
    below = _LINE * len(notes) + 0.08
    total_height = sum(lines_of) * row_height + len(blocks) * _NAME + below + 0.04
    figure.set_size_inches(total_width, total_height)
    scale = _scale(blocks, shown)
    top = total_height - 0.04
    for block, lines in zip(blocks, lines_of, strict=True):
        name = _block_name(figure, block, total_width - 0.1)
        figure.text(0.05 / total_width, top / total_height, name, fontweight="bold", ha="left", va="top")
        top -= _NAME
        for position, (vertex, matrix) in enumerate(block.matrices.items()):
            left = _LEFT + (position % columns) * (side + _GAP)
            upper = top - (position // columns) * row_height - _TITLE
            ax = figure.add_axes(
                (left / total_width, (upper - side) / total_height, side / total_width, side / total_height)
            )
            last_of_column = position + columns >= len(block.matrices)
            _draw_matrix(ax, matrix, shown, scale, look, side)
            ax.set_title(f"student layer {vertex}", pad=3, loc="left")
            ax.set_xlabel("teacher layer" if last_of_column else "")
            ax.set_ylabel("teacher layer" if position % columns == 0 else "")
        top -= lines * row_height
    used = _LEFT + columns * side + (columns - 1) * _GAP
    _draw_colour_bar(figure, shown, scale, look, (used + 0.14, total_height - _NAME - _TITLE - 0.04, side))
    figure.text(
        0.05 / total_width,
        below / total_height,
        "\n".join(notes),
        ha="left",
        va="top",
        fontsize=SMALL_FONT_SIZE,
        linespacing=1.25,
        gid="notes",
    )
    return figure


def _block_name(figure: Figure, block: _Block, room: float) -> str:
    stream = plain(block.stream)
    return fit(figure, block.student, room, weight="bold", frame=lambda text: f"{text}, {stream}")


def _draw_matrix(ax: Axes, matrix: pd.DataFrame, shown: AngleValue, scale: Normalize, look: Theme, side: float) -> None:
    count = len(matrix)
    annotated = count <= _ANNOTATED_LAYERS
    labels = matrix.map(lambda number: _cell_text(number, shown)) if annotated else False
    sns.heatmap(
        matrix,
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
    off_diagonal = ~np.eye(count, dtype=bool)
    missing = np.argwhere(np.isnan(matrix.to_numpy()) & off_diagonal)
    if len(missing):
        cells = [Rectangle((float(column), float(row)), 1, 1) for row, column in missing]
        hatch = "/////" if annotated else None  # on many small cells a hatch is noise: plain grey
        collection = PatchCollection(cells, facecolor=look.blank, edgecolor=look.faint, linewidth=0, hatch=hatch)
        collection.set_gid("missing")
        ax.add_collection(collection)
    step = _tick_step(count, side)
    names = [str(layer) for layer in matrix.index[::step]]
    positions = np.arange(0, count, step) + 0.5
    ax.set_xticks(positions, names, rotation=0)
    ax.set_yticks(positions, names, rotation=0)
    for spine in ax.spines.values():
        spine.set_visible(True)


def _cell_text(number: float, shown: AngleValue) -> str:
    if not np.isfinite(number):
        return ""
    decimals = shown.decimals
    text = f"{number:.{decimals}f}"
    if shown.limits is not None and number not in shown.limits:  # nearly all is not all, and hardly any is not none
        low, high = shown.limits
        if float(text) == high:
            return f">{high - 1:.0f}"
        if float(text) == low:
            return f"<{low + 1:.0f}"
    if float(text) == 0:
        text = text.removeprefix("-")
    if decimals and abs(float(text)) < 1:  # the zero before the point is left out: the cell is small
        text = text.replace("0.", ".", 1)
    return text.replace("-", "−")  # noqa: RUF001


def _tick_step(count: int, side: float) -> int:
    """Return the spacing of tick labels, in layers, that gives each label its room."""
    most = max(int(side / _TICK), 1)
    return next(step for step in (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 50, 100, count) if count / step <= most)


def _draw_colour_bar(
    figure: Figure, shown: AngleValue, scale: Normalize, look: Theme, place: tuple[float, float, float]
) -> None:
    left, top, height = place
    total_width, total_height = figure.get_size_inches()
    ax = figure.add_axes((left / total_width, (top - height) / total_height, 0.1 / total_width, height / total_height))
    ax.set_gid("colour-bar")
    bar = figure.colorbar(ScalarMappable(norm=scale, cmap=_colour_map(shown, look)), cax=ax)
    bar.set_label(shown.label)
    bar.outline.set_linewidth(0.6)


def _note(blocks: Sequence[_Block], *, official: bool) -> str:
    text = "Layer 0 is the embedding output, layer b + 1 the output of block b."
    if official:
        text = f"Official reading: the paper's code, padding counted, one pair of layers. {text}"
    matrices = [matrix.to_numpy() for block in blocks for matrix in block.matrices.values()]
    if any((np.isnan(matrix) & ~np.eye(len(matrix), dtype=bool)).any() for matrix in matrices):
        few = all(len(matrix) <= _ANNOTATED_LAYERS for matrix in matrices)
        text += f" {'Hatched' if few else 'Grey'}: no token has an angle there (a teacher state equals the student's)."
    return text
