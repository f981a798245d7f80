"""The length of states, layer by layer: teacher and students."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from anglekit.plots.panels.arm_lines import arm_legend, arm_panels
from anglekit.plots.panels.chosen import choose_streams, choose_students
from anglekit.plots.panels.line_panels import Entry, draw_line_panels
from anglekit.plots.panels.sentences import LAYER_NOTE, range_words, refuse, students_words
from anglekit.plots.panels.students import with_arms
from anglekit.plots.style import Theme, context, figure_width, theme
from anglekit.results.geometry import Geometry

__all__ = ["draw_teacher", "lacks_norms", "layer_norms", "layer_norms_data", "layer_norms_facts", "teacher_entry"]

_LEAST_REACH = 0.05  # of the middle: the axis shows at least so much to both sides


def lacks_norms(geometry: Geometry) -> str | None:
    """Return why norms cannot be drawn, or None where they can."""
    known = len(geometry.layers) > 0 and geometry.layers["mean_norm"].notna().any()
    return None if known else "this Geometry has no norms of layers; run `anglekit analyze` again"


def layer_norms_data(
    geometry: Geometry, *, students: str | Sequence[str] | None = None, stream: str | None = None
) -> pd.DataFrame:
    """Return what `layer_norms` draws: `student, strategy, init, seed, stream, side, layer, mean_norm`.

    The teacher's rows come once per stream, with an empty student. A student's norm is in its own width.

    Raises:
        InputError: there are no norms, or an argument names what the geometry does not have.
    """
    names, streams = choose_students([geometry], students), choose_streams([geometry], stream)
    refuse(lacks_norms(geometry))
    table = geometry.layers
    table = table[table["student"].isin(names) & table["stream"].isin(streams) & table["mean_norm"].notna()]
    table = table.rename(columns={"side_a": "side", "layer_a": "layer"})
    table = table[["student", "stream", "side", "layer", "mean_norm"]]
    own = with_arms(table[table["side"] == "student"], geometry)
    teacher = table[table["side"] == "teacher"].drop_duplicates(["stream", "layer"]).assign(student="")
    return pd.concat([teacher, own], ignore_index=True)[list(own.columns)].fillna(
        {"strategy": "", "init": "", "seed": ""}
    )


def draw_teacher(data: pd.DataFrame, value: str, look: Theme, ax: Axes, stream: str) -> None:
    """Draw the teacher's line of a stream: the rows without a student."""
    rows = data[(data["side"] == "teacher") & (data["stream"] == stream)].sort_values("layer")
    ax.plot(
        rows["layer"],
        rows[value],
        color=look.ink,
        linewidth=1.4,
        linestyle=(0, (4, 1.2)),
        marker="." if len(rows) <= 13 else "",
        markersize=4.0,
        zorder=3,
        gid="teacher",
    )
    if {"low", "high"} <= set(rows.columns):
        ax.fill_between(rows["layer"], rows["low"], rows["high"], color=look.ink, alpha=0.12, linewidth=0, zorder=1)


def teacher_entry(look: Theme) -> Entry:
    """Return the legend's entry of the teacher."""
    return Entry.line("teacher", look.ink, linewidth=1.4, linestyle=(0, (4, 1.2)))


def layer_norms(
    geometry: Geometry,
    *,
    students: str | Sequence[str] | None = None,
    stream: str | None = None,
    width: str = "page",
    dark: bool = False,
) -> Figure:
    """Draw the mean norm of the states by layer, a panel per stream and initialisation.

    Args:
        geometry: what the analysis found.
        students: the students to draw; all by default.
        stream: `encoder` or `decoder`; both by default.
        width: `page` or `column`.
        dark: draw on a dark ground.

    Raises:
        InputError: there are no norms, or an argument names what the geometry does not have.
    """
    data = layer_norms_data(geometry, students=students, stream=stream)
    total_width = figure_width(width)
    look = theme(dark)
    own = data[data["side"] == "student"]

    middle = float(data["mean_norm"].max() + data["mean_norm"].min()) / 2

    def behind(ax: Axes, name: str) -> None:
        draw_teacher(data, "mean_norm", look, ax, name)
        # Behind a layer norm all lengths are nearly one: an axis of hundredths of a percent would tell of a difference.
        first = float(data["layer"].min())
        ax.update_datalim([(first, (1 - _LEAST_REACH) * middle), (first, (1 + _LEAST_REACH) * middle)])

    with context(look):
        return draw_line_panels(
            arm_panels(own, look, "mean_norm", "layer", before=behind),
            look,
            total_width,
            xlabel="layer (own numbering)",
            ylabel="mean norm (state units)",
            legend=[teacher_entry(look), *arm_legend(own, look)],
            notes=[f"Mean over tokens of the Euclidean norm, each model in its own width. {LAYER_NOTE}"],
            most_columns=2,
        )


def layer_norms_facts(data: pd.DataFrame) -> str:
    """Return in a sentence what the figure's numbers are."""
    own, teacher = data[data["side"] == "student"], data[data["side"] == "teacher"]
    return (
        f"Teacher: norms {range_words(teacher['mean_norm'], lambda norm: f'{norm:.3g}')}; {students_words(own)}: "
        f"{range_words(own['mean_norm'], lambda norm: f'{norm:.3g}')}."
    )
