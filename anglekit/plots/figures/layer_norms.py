"""The length of states, layer by layer: teacher and students."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from anglekit.plots.inputs import FigureInputs
from anglekit.plots.panels.arm_lines import draw_arm_lines
from anglekit.plots.panels.chosen import choose, require
from anglekit.plots.panels.line_panels import begin_at_zero
from anglekit.plots.panels.sentences import LAYER_NOTE, PLACE_NOTE, teacher_and_students_facts
from anglekit.plots.panels.tables import teacher_once, with_arms, with_places
from anglekit.plots.spec import STUDENTS, FigureOptions, FigureSpec
from anglekit.plots.style import Theme


def _check(inputs: FigureInputs) -> None:
    require(inputs.geometry.layers, "mean_norm", "norms of layers")


def _data(inputs: FigureInputs, options: FigureOptions) -> pd.DataFrame:
    """Return a row per side and layer: `student, strategy, init, seed, stream, side, layer, mean_norm, place`.

    The teacher's rows come once per stream, with an empty student. A student's norm is in its own width; `place` is the
    teacher layer beside which it is drawn (`with_places`).
    """
    chosen = choose(inputs.geometries, options)
    table = chosen.rows(inputs.geometry.layers).rename(columns={"side_a": "side", "layer_a": "layer"})
    table = table.loc[table["mean_norm"].notna(), ["student", "stream", "side", "layer", "mean_norm"]]
    return with_places(with_arms(teacher_once(table, ["stream", "layer"]), inputs.geometry), inputs.geometry)


def _draw(inputs: FigureInputs, options: FigureOptions, look: Theme, width: float) -> Figure:
    data = _data(inputs, options)
    first = float(data["layer"].min())

    def behind(ax: Axes) -> None:
        # A length is compared as a share: an axis that begins above 0 would make a difference of a part look like all.
        begin_at_zero(ax, first)

    return draw_arm_lines(
        data,
        look,
        width,
        value="mean_norm",
        x="place",
        xlabel="teacher layer",
        ylabel="mean norm (state units)",
        notes=[f"Mean over tokens of the Euclidean norm, each model in its own width. {PLACE_NOTE} {LAYER_NOTE}"],
        behind=behind,
        outliers="broken out",
        floor=0.0,
    )


LAYER_NORMS = FigureSpec(
    title="Length of the states by layer",
    summary="the mean norm of teacher and student states, layer by layer",
    reading=(
        "The chance level of the angle follows from these lengths: the longer a student's states beside the "
        "teacher's, the more acute every angle, with nothing shared."
    ),
    options=STUDENTS,
    data=_data,
    facts=lambda data: teacher_and_students_facts(data, "mean_norm", ".3g", "norms "),
    draw=_draw,
    check=_check,
)
