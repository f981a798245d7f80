"""The angle while its vertex moves from the centroid of the teacher's layers to the student, and beyond."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from anglekit.errors import InputError, suggest
from anglekit.plots.panels.arm_lines import token_mean
from anglekit.plots.panels.chosen import choose_streams, choose_students, choose_vertices
from anglekit.plots.panels.depth_lines import layer_colours, layer_line_panels
from anglekit.plots.panels.line_panels import Entry, draw_line_panels, layer_bar
from anglekit.plots.panels.sentences import LAYER_NOTE, refuse, students_words
from anglekit.plots.panels.students import with_arms
from anglekit.plots.style import context, figure_width, theme
from anglekit.results.geometry import Geometry

__all__ = ["SWEEP_VALUES", "lacks_sweep", "vertex_sweep", "vertex_sweep_data", "vertex_sweep_facts"]

#: What can be drawn: the axis label, and where unrelated or right-angled vectors stand.
SWEEP_VALUES: Mapping[str, tuple[str, float]] = MappingProxyType(
    {
        "mean_angle_degrees": ("mean angle (degrees)", 90.0),
        "mean_cosine": ("mean cosine (no unit)", 0.0),
        "mean_tangential_angle_degrees": ("tangential angle (degrees)", 90.0),
        "mean_tangential_cosine": ("tangential cosine (no unit)", 0.0),
    }
)


def lacks_sweep(geometry: Geometry) -> str | None:
    """Return why the sweep cannot be drawn, or None where it can."""
    if len(geometry.vertex_sweep):
        return None
    return "this Geometry has no vertex sweep; run `anglekit analyze --nulls default`"


def vertex_sweep_data(
    geometry: Geometry,
    *,
    students: str | Sequence[str] | None = None,
    stream: str | None = None,
    vertices: Sequence[int] | None = None,
    value: str = "mean_angle_degrees",
) -> pd.DataFrame:
    """Return what `vertex_sweep` draws: a row per student, stream, vertex and place t, the mean over pairs.

    Raises:
        InputError: there is no sweep, or an argument names what the geometry does not have.
    """
    if value not in SWEEP_VALUES:
        raise InputError(f"no value {value!r}", allowed=suggest(value, SWEEP_VALUES))
    names = choose_students([geometry], students)
    streams = choose_streams([geometry], stream)
    layers = choose_vertices([geometry], vertices)
    refuse(lacks_sweep(geometry))
    table = geometry.vertex_sweep
    table = table[table["student"].isin(names) & table["stream"].isin(streams) & table["vertex"].isin(layers)]
    key = ["student", "stream", "vertex", "t"]
    rows = [(*place, token_mean(pairs, value), len(pairs)) for place, pairs in table.groupby(key, sort=False)]
    return with_arms(pd.DataFrame(rows, columns=[*key, value, "n_pairs"]), geometry)


def vertex_sweep(
    geometry: Geometry,
    *,
    students: str | Sequence[str] | None = None,
    stream: str | None = None,
    vertices: Sequence[int] | None = None,
    value: str = "mean_angle_degrees",
    width: str = "page",
    dark: bool = False,
) -> Figure:
    """Draw the angle against the place of its vertex, a panel per student, a line per student layer.

    Args:
        geometry: what the analysis found.
        students: the students to draw; all by default.
        stream: `encoder` or `decoder`; both by default.
        vertices: the student layers to draw; all by default.
        value: a name of `SWEEP_VALUES`.
        width: `page` or `column`.
        dark: draw on a dark ground.

    Raises:
        InputError: there is no sweep, too much to draw, or an argument names what the geometry does not have.
    """
    data = vertex_sweep_data(geometry, students=students, stream=stream, vertices=vertices, value=value)
    total_width = figure_width(width)
    look = theme(dark)
    label, middle = SWEEP_VALUES[value]

    def behind(ax: Axes) -> None:
        ax.axhline(middle, color=look.faint, linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
        ax.axvline(1.0, color=look.faint, linewidth=0.8, zorder=1)
        ax.set_xticks([0.0, 0.5, 1.0, 1.5, 2.0], ["0", "0.5", "1", "1.5", "2"])

    with context(look):
        return draw_line_panels(
            layer_line_panels(data, look, "t", value, before=behind),
            look,
            total_width,
            xlabel="place t of the vertex (no unit)",
            ylabel=label,
            legend=[
                Entry.line("right angle", look.faint, linewidth=0.8, linestyle=(0, (2, 2))),
                Entry.line("the student (t = 1)", look.faint, linewidth=0.8),
            ],
            notes=[
                "The vertex at C + t (S - C): t = 0 is the centroid C of the token's teacher states, 1 the student's "
                f"state S. Mean over pairs of teacher layers, of a sample of tokens. {LAYER_NOTE}"
            ],
            bar=layer_bar(list(data["vertex"]), layer_colours(look), "student layer"),
            height=1.3,
        )


def vertex_sweep_facts(data: pd.DataFrame) -> str:
    """Return in a sentence what the figure's numbers are."""
    value = next(column for column in data.columns if column in SWEEP_VALUES)
    means = data.groupby("t")[value].mean()
    ends = [
        f"{means[t]:.0f}" if value.endswith("degrees") else f"{means[t]:.2f}" for t in (means.index[0], means.index[-1])
    ]
    return (
        f"{students_words(data)}: {SWEEP_VALUES[value][0]} {ends[0]} at t = {means.index[0]:g} and {ends[1]} at "
        f"t = {means.index[-1]:g}, mean over students and layers."
    )
