"""Heat maps over pairs of teacher layers, a panel per student layer at which the angle stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from anglekit.errors import InputError, suggest
from anglekit.plots.panels.chosen import choose_few_vertices, choose_streams, choose_students
from anglekit.plots.panels.labels import number_ranges, plain
from anglekit.plots.panels.matrix_panels import (
    MatrixBlock,
    MatrixPanel,
    ShownValue,
    check_panel_count,
    draw_matrix_blocks,
    missing_note,
)
from anglekit.plots.panels.sentences import LAYER_NOTE, OFFICIAL_NOTE, range_words, students_words, vertex_note
from anglekit.plots.style import context, figure_width, theme
from anglekit.results.geometry import Geometry

__all__ = [
    "ANGLE_VALUES",
    "angles_heatmap",
    "angles_heatmap_data",
    "angles_heatmap_facts",
    "pair_blocks",
    "pair_matrix",
]

#: What a heat map can show.
ANGLE_VALUES: Mapping[str, ShownValue] = MappingProxyType(
    {
        "mean_cosine": ShownValue("mean cosine (no unit)", centre=0.0),
        "mean_angle_degrees": ShownValue("mean angle (degrees)", centre=90.0, decimals=0, flipped=True),
        "acute_fraction": ShownValue("acute tokens (%)", factor=100.0, limits=(0.0, 100.0), decimals=0),
        "mean_tangential_cosine": ShownValue("tangential cosine (no unit)", centre=0.0),
        "mean_tangential_angle_degrees": ShownValue(
            "tangential angle (degrees)", centre=90.0, decimals=0, flipped=True
        ),
        "null_cosine": ShownValue("chance cosine (no unit)", centre=0.0),
        "std_cosine": ShownValue("standard deviation (no unit)"),
        "se_cosine": ShownValue("standard error (no unit)", decimals=3),
    }
)

_KEY = ["student", "stream", "vertex", "teacher_i", "teacher_k"]


def angles_heatmap_data(
    geometry: Geometry,
    *,
    students: str | Sequence[str] | None = None,
    stream: str | None = None,
    vertices: Sequence[int] | None = None,
    value: str = "mean_cosine",
) -> pd.DataFrame:
    """Return what `angles_heatmap` draws: a row per student, stream, vertex and pair, with the chosen column.

    Raises:
        InputError: an argument names what the geometry does not have.
    """
    if value not in ANGLE_VALUES:
        raise InputError(f"no value {value!r}", allowed=suggest(value, ANGLE_VALUES))
    names = choose_students([geometry], students)
    streams = choose_streams([geometry], stream)
    layers = choose_few_vertices([geometry], vertices)
    table = geometry.angles
    rows = table[table["student"].isin(names) & table["stream"].isin(streams) & table["vertex"].isin(layers)]
    return rows[[*_KEY, value, "n_tokens"]].reset_index(drop=True)


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
        vertices: the student layers to draw; by default all, or 12 spread over the depth where there are more.
        value: a column of `Geometry.angles` (see `ANGLE_VALUES`).
        width: `page` or `column`.
        dark: draw on a dark ground.

    Raises:
        InputError: nothing is left to draw, too much is, or an argument names what the geometry does not have.
    """
    data = angles_heatmap_data(geometry, students=students, stream=stream, vertices=vertices, value=value)
    total_width = figure_width(width)
    blocks = pair_blocks(data, value, ANGLE_VALUES[value].factor, geometry.students)
    check_panel_count(blocks, "choose a student or a stream")
    notes = [
        *vertex_note(geometry, data),
        LAYER_NOTE,
        *missing_note(blocks, "no token has an angle there (a teacher state equals the student's)"),
    ]
    if geometry.settings.get("reading") == "official":
        notes = [OFFICIAL_NOTE, *notes]
    look = theme(dark)
    with context(look):
        return draw_matrix_blocks(blocks, ANGLE_VALUES[value], look, total_width, notes)


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


def pair_blocks(data: pd.DataFrame, value: str, factor: float, order: Sequence[str]) -> list[MatrixBlock]:
    """Return a block per student and stream, a panel per vertex: symmetric matrices over pairs of teacher layers.

    Args:
        data: columns `student, stream, vertex, teacher_i, teacher_k` and the value.
        value: the column that is drawn.
        factor: from the column's unit to the figure's.
        order: the students in the order of the analysis.
    """
    blocks = []
    for student in order:
        own = data[data["student"] == student]
        for stream in sorted(own["stream"].unique(), key=lambda name: name != "encoder"):
            rows = own[own["stream"] == stream]
            layers = sorted({int(layer) for column in ("teacher_i", "teacher_k") for layer in rows[column].unique()})
            panels = tuple(
                MatrixPanel(
                    f"student layer {vertex}",
                    pair_matrix(rows[rows["vertex"] == vertex], value, layers) * factor,
                    "teacher layer",
                    "teacher layer",
                    open_diagonal=True,
                )
                for vertex in sorted(int(vertex) for vertex in rows["vertex"].unique())
            )
            blocks.append(MatrixBlock(student, f", {plain(str(stream))}", panels))
    return blocks


def angles_heatmap_facts(data: pd.DataFrame) -> str:
    """Return in a sentence what the figure's numbers are."""
    value = next(column for column in data.columns if column in ANGLE_VALUES)
    shown = ANGLE_VALUES[value]
    words = range_words(data[value] * shown.factor, lambda number: f"{number:.{shown.decimals}f}")
    vertices = number_ranges([int(vertex) for vertex in data["vertex"].unique()])
    return f"{students_words(data)}, student layers {vertices}: {shown.label} {words}."
