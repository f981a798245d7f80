"""What the matching moved: how far each student layer is from the teacher layer that teaches it, over training."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from anglekit.errors import InputError
from anglekit.plots.figures.training_angles import check_steps, steps_of
from anglekit.plots.inputs import FigureInputs
from anglekit.plots.panels.chosen import choose, choose_value
from anglekit.plots.panels.depth_lines import draw_depth_lines
from anglekit.plots.panels.line_panels import begin_at_zero
from anglekit.plots.panels.sentences import LAYER_NOTE, students_words
from anglekit.plots.panels.tables import with_arms
from anglekit.plots.spec import VERTICES, FigureOptions, FigureSpec
from anglekit.plots.style import Theme, round_ticks
from anglekit.results.geometry import Geometry

#: What can be drawn: the axis label, and whether the axis begins at 0.
_VALUES: Mapping[str, tuple[str, bool]] = MappingProxyType(
    {
        "mean_distance": ("distance (state units)", True),
        "mean_cosine": ("cosine", False),
        "centred_cosine": ("centred cosine", False),
    }
)


def _check(inputs: FigureInputs) -> None:
    check_steps(inputs)
    if all(geometry.layers["mean_distance"].isna().all() for geometry in inputs.geometries):
        raise InputError(
            "these Geometries hold no distance between layers of teacher and student: the student has another width "
            "and no --projection or they come from an earlier anglekit",
            "run `anglekit analyze` again on each step's checkpoint, with --projection for another width",
        )


def _data(inputs: FigureInputs, options: FigureOptions) -> pd.DataFrame:
    """Return a row per step, student, stream and student layer.

    Columns beside `step, student, strategy, init, seed, stream, vertex`: `teacher_layer`, the layer that teaches it, or
    where none does (`taught` is False) the one at its share of the depth, rounded; and the value between the two.
    """
    value = choose_value(options.value, _VALUES)
    chosen = choose(inputs.geometries, options)
    frames = []
    for step, geometry in steps_of(inputs.geometries, options):
        rows = chosen.rows(geometry.layers)
        rows = rows[(rows["side_a"] == "teacher") & (rows["side_b"] == "student")]
        rows = rows[rows["layer_b"].isin(chosen.vertices)]
        layers = _taught(rows, geometry)
        own = rows.merge(layers, on=["student", "stream", "layer_b"])
        own = own[own["layer_a"] == own["teacher_layer"]].rename(columns={"layer_b": "vertex"})
        own = own[["student", "stream", "vertex", "teacher_layer", "taught", value]]
        frames.append(with_arms(own.assign(step=step), geometry))
    data = pd.concat(frames, ignore_index=True)
    return data.sort_values(["student", "stream", "vertex", "step"], kind="stable", ignore_index=True)


def _taught(rows: pd.DataFrame, geometry: Geometry) -> pd.DataFrame:
    """Return which teacher layer each student layer is compared with, a row per student, stream and layer."""
    told = {student.name: student for student in geometry.document.provenance.students}
    found = []
    for (student, stream), own in rows.groupby(["student", "stream"], sort=False):
        record = told[str(student)]
        taught = record.taught_by.get(str(stream), {})
        teacher, depth = int(own["layer_a"].max()), max(int(own["layer_b"].max()), 1)
        for layer in sorted({int(each) for each in own["layer_b"]}):
            beside = taught.get(str(layer))
            by_depth = int(np.floor(layer * teacher / depth + 0.5))
            found.append((student, stream, layer, by_depth if beside is None else beside, beside is not None))
    return pd.DataFrame(found, columns=["student", "stream", "layer_b", "teacher_layer", "taught"])


def _draw(inputs: FigureInputs, options: FigureOptions, look: Theme, width: float) -> Figure:
    data, value = _data(inputs, options), choose_value(options.value, _VALUES)
    label, from_zero = _VALUES[value]

    def behind(ax: Axes) -> None:
        ax.xaxis.set_major_locator(round_ticks(4, integer=True))
        if from_zero:
            begin_at_zero(ax, float(data["step"].min()))

    return draw_depth_lines(
        data,
        look,
        width,
        value=value,
        x="step",
        xlabel="training step",
        ylabel=label,
        legend=[],
        note=(
            "Each student layer and the teacher layer that teaches it; a layer that none teaches, or of which that is "
            f"not recorded, with the one at its share of the depth. Mean over tokens of one probe. {LAYER_NOTE}"
        ),
        behind=behind,
        height=1.4,
    )


def _facts(data: pd.DataFrame) -> str:
    value = next(column for column in data.columns if column in _VALUES)
    means = data.groupby("step")[value].mean()
    return (
        f"{students_words(data)}: {_VALUES[value][0]} {means.iloc[0]:.2f} at step {means.index[0]}, "
        f"{means.iloc[-1]:.2f} at step {means.index[-1]}, mean over layers."
    )


MATCHING_DISTANCE = FigureSpec(
    title="What the matching moved",
    summary="the distance of each student layer from the layer that teaches it over training, a line per student layer",
    reading=(
        "A line that falls says that the matching drew the layer to its teacher. Where it falls without matching too, "
        "the task alone does it."
    ),
    options=VERTICES | {"labels", "value"},
    data=_data,
    facts=_facts,
    draw=_draw,
    many=True,
    over_training=True,
    check=_check,
)
