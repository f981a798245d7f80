"""The angle while its vertex moves from the centroid of the teacher's layers to the student, and beyond."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from anglekit.plots.inputs import FigureInputs
from anglekit.plots.panels.chosen import choose, choose_value, require
from anglekit.plots.panels.depth_lines import draw_depth_lines
from anglekit.plots.panels.line_panels import Entry
from anglekit.plots.panels.sentences import LAYER_NOTE, students_words
from anglekit.plots.panels.tables import pair_means, with_arms
from anglekit.plots.spec import VERTICES, FigureOptions, FigureSpec
from anglekit.plots.style import GUIDE_DASHES, Theme

#: What can be drawn: the axis label, and the value of unrelated or right-angled vectors.
_VALUES: Mapping[str, tuple[str, float]] = MappingProxyType(
    {
        "mean_angle_degrees": ("mean angle (degrees)", 90.0),
        "mean_cosine": ("mean cosine (no unit)", 0.0),
        "mean_tangential_angle_degrees": ("tangential angle (degrees)", 90.0),
        "mean_tangential_cosine": ("tangential cosine (no unit)", 0.0),
    }
)


def _check(inputs: FigureInputs) -> None:
    require(inputs.geometry.vertex_sweep, "t", "vertex sweep", "run `anglekit analyze --nulls default`")


def _data(inputs: FigureInputs, options: FigureOptions) -> pd.DataFrame:
    """Return a row per student, stream, vertex and place t: the value's mean over pairs, and `n_pairs`."""
    value = choose_value(options.value, _VALUES)
    chosen = choose(inputs.geometries, options)
    table = chosen.rows(inputs.geometry.vertex_sweep)
    key = ["student", "stream", "vertex", "t"]
    means = pair_means(table, key, value)
    means["n_pairs"] = table.groupby(key, sort=False).size().to_numpy()
    return with_arms(means, inputs.geometry)


def _draw(inputs: FigureInputs, options: FigureOptions, look: Theme, width: float) -> Figure:
    value = choose_value(options.value, _VALUES)
    label, middle = _VALUES[value]

    def behind(ax: Axes) -> None:
        ax.axhline(middle, color=look.faint, linewidth=0.8, linestyle=GUIDE_DASHES, zorder=1)
        ax.axvline(1.0, color=look.faint, linewidth=0.8, zorder=1)
        ax.set_xticks([0.0, 0.5, 1.0, 1.5, 2.0], ["0", "0.5", "1", "1.5", "2"])

    return draw_depth_lines(
        _data(inputs, options),
        look,
        width,
        value=value,
        x="t",
        xlabel="place t of the vertex (no unit)",
        ylabel=label,
        legend=[
            Entry.line("right angle", look.faint, linewidth=0.8, linestyle=GUIDE_DASHES),
            Entry.line("the student (t = 1)", look.faint, linewidth=0.8),
        ],
        note=(
            "The vertex at C + t (S - C): t = 0 is the centroid C of the token's teacher states, 1 the student's "
            f"state S. Mean over pairs of teacher layers, of a sample of tokens. {LAYER_NOTE}"
        ),
        behind=behind,
        height=1.3,
    )


def _facts(data: pd.DataFrame) -> str:
    value = next(column for column in data.columns if column in _VALUES)
    means = data.groupby("t")[value].mean()
    first, last = (f"{means.iloc[end]:{'.0f' if value.endswith('degrees') else '.2f'}}" for end in (0, -1))
    return (
        f"{students_words(data)}: {_VALUES[value][0]} {first} at t = {means.index[0]:g} and {last} at "
        f"t = {means.index[-1]:g}, mean over students and layers."
    )


VERTEX_SWEEP = FigureSpec(
    title="The angle as its vertex moves",
    summary="the angle from the teachers' centroid to the student's state and beyond, a line per student layer",
    reading=(
        "From amid the teacher's layers their directions part at obtuse angles; from far away any angle closes. Where "
        "the lines fall with t, acute says that the student is far off."
    ),
    options=VERTICES | {"value"},
    data=_data,
    facts=_facts,
    draw=_draw,
    check=_check,
)
