"""A statistic of the angle for every pair of teacher layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import pandas as pd
from matplotlib.figure import Figure

from anglekit.plots.inputs import FigureInputs
from anglekit.plots.panels.chosen import choose, choose_value
from anglekit.plots.panels.labels import number_ranges
from anglekit.plots.panels.matrix_panels import ShownValue
from anglekit.plots.panels.pair_matrices import PAIR_KEY, draw_pair_matrices
from anglekit.plots.panels.sentences import range_words, students_words
from anglekit.plots.spec import VERTICES, FigureOptions, FigureSpec
from anglekit.plots.style import Theme
from anglekit.results.geometry import Geometry

#: What the heat map can show; the first is the default.
ANGLE_VALUES: Mapping[str, ShownValue] = MappingProxyType(
    {
        "mean_cosine": ShownValue("mean cosine", centre=0.0, least=0.25),
        "mean_angle_degrees": ShownValue("mean angle (degrees)", centre=90.0, decimals=0, flipped=True, least=15.0),
        "acute_fraction": ShownValue("acute tokens (%)", factor=100.0, limits=(0.0, 100.0), decimals=0),
        "mean_tangential_cosine": ShownValue("tangential cosine", centre=0.0, least=0.25),
        "mean_tangential_angle_degrees": ShownValue(
            "tangential angle (degrees)", centre=90.0, decimals=0, flipped=True, least=15.0
        ),
        "null_cosine": ShownValue("chance cosine", centre=0.0, least=0.25),
        "std_cosine": ShownValue("standard deviation", limits=(0.0, None), least=0.25),
        "se_cosine": ShownValue("standard error", limits=(0.0, None), decimals=3, least=0.02),
    }
)


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
    a value (every token was degenerate, as where the student's embedding is the teacher's) are grey.

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
    options = FigureOptions(students=students, stream=stream, vertices=vertices, value=value)
    return ANGLES_HEATMAP.figure(FigureInputs([geometry]), options, width=width, dark=dark)


def _data(inputs: FigureInputs, options: FigureOptions) -> pd.DataFrame:
    """Return a row per student, stream, vertex and pair, with the chosen column and `n_tokens`."""
    value = choose_value(options.value, ANGLE_VALUES)
    rows = choose(inputs.geometries, options, few=True).rows(inputs.geometry.angles)
    return rows[[*PAIR_KEY, value, "n_tokens"]].reset_index(drop=True)


def _draw(inputs: FigureInputs, options: FigureOptions, look: Theme, width: float) -> Figure:
    data, value = _data(inputs, options), choose_value(options.value, ANGLE_VALUES)
    return draw_pair_matrices(data, inputs.geometry, look, width, value=value, shown=ANGLE_VALUES[value])


def _facts(data: pd.DataFrame) -> str:
    value = next(column for column in data.columns if column in ANGLE_VALUES)
    shown = ANGLE_VALUES[value]
    words = range_words(data[value] * shown.factor, f".{shown.decimals}f")
    vertices = number_ranges([int(vertex) for vertex in data["vertex"].unique()])
    return f"{students_words(data)}, student layers {vertices}: {shown.label} {words}."


ANGLES_HEATMAP = FigureSpec(
    title="Angles between all pairs of teacher layers",
    summary="teacher layer by teacher layer, a panel per student layer",
    reading=(
        "A cell is the cosine of the angle between the directions from the student's layer to two teacher layers, mean "
        "over tokens. Red is acute (above 0), blue obtuse, white a right angle. Neighbouring layers are near each "
        "other, so cells by the diagonal are acute for that reason alone."
    ),
    options=VERTICES | {"value"},
    data=_data,
    facts=_facts,
    draw=_draw,
)
