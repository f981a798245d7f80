"""Anisotropy: how alike unrelated tokens are, layer by layer, and which few dimensions make them so."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from anglekit.errors import InputError, suggest
from anglekit.plots.figures.layer_norms import draw_teacher, teacher_entry
from anglekit.plots.panels.arm_lines import arm_legend, arm_panels, stream_order
from anglekit.plots.panels.chosen import choose_streams, choose_students
from anglekit.plots.panels.line_panels import draw_line_panels
from anglekit.plots.panels.matrix_panels import (
    MatrixBlock,
    MatrixPanel,
    ShownValue,
    check_panel_count,
    draw_matrix_blocks,
)
from anglekit.plots.panels.sentences import LAYER_NOTE, range_words, refuse, students_words
from anglekit.plots.panels.students import with_arms
from anglekit.plots.style import context, figure_width, theme
from anglekit.results.geometry import Geometry
from anglekit.vocabulary import VIEWS

__all__ = [
    "anisotropy_data",
    "anisotropy_facts",
    "anisotropy_figure",
    "dominant_dimensions",
    "dominant_dimensions_data",
    "dominant_dimensions_facts",
    "lacks_anisotropy",
    "lacks_dimensions",
]

_Z = 1.959964
_MOST_DIMENSIONS = 8
_SHOWN = ShownValue("part of the cosine (no unit)", centre=0.0)


def lacks_anisotropy(geometry: Geometry) -> str | None:
    """Return why anisotropy cannot be drawn, or None where it can."""
    rows = geometry.anisotropy
    known = len(rows) > 0 and rows["mean_cosine"].notna().any()
    return None if known else "this Geometry has no table of anisotropy; run `anglekit analyze --nulls default`"


def lacks_dimensions(geometry: Geometry) -> str | None:
    """Return why dominant dimensions cannot be drawn, or None where they can."""
    if len(geometry.dimensions):
        return lacks_anisotropy(geometry)
    return "this Geometry has no table of dimensions; run `anglekit analyze --nulls default`"


def _teacher_once(table: pd.DataFrame, geometry: Geometry, key: list[str]) -> pd.DataFrame:
    """Return a table by side with the arms of students, the teacher's rows once and first."""
    own = with_arms(table[table["side"] == "student"], geometry)
    teacher = table[table["side"] == "teacher"].drop_duplicates(key).assign(student="")
    both = pd.concat([teacher, own], ignore_index=True)[list(own.columns)]
    return both.fillna({"strategy": "", "init": "", "seed": ""})


def anisotropy_data(
    geometry: Geometry,
    *,
    students: str | Sequence[str] | None = None,
    stream: str | None = None,
    value: str = "raw",
) -> pd.DataFrame:
    """Return what `anisotropy_figure` draws: a row per side and layer, the teacher's once, with an empty student.

    Columns beside `student, strategy, init, seed, stream, side, layer, view`: `mean_cosine` of tokens of different
    examples, its 95% interval `low, high`, the dimension that adds most and its share, `n_tokens`.

    Raises:
        InputError: there is no such table, or an argument names what the geometry does not have.
    """
    if value not in VIEWS:
        raise InputError(f"no value {value!r}", allowed=suggest(value, VIEWS))
    names, streams = choose_students([geometry], students), choose_streams([geometry], stream)
    refuse(lacks_anisotropy(geometry))
    table = geometry.anisotropy
    table = table[table["student"].isin(names) & table["stream"].isin(streams)]
    table = table[(table["tokens"] == "all") & (table["view"] == value)]
    table = table.assign(
        low=table["mean_cosine"] - _Z * table["se"],
        high=table["mean_cosine"] + _Z * table["se"],
    )
    columns = ["student", "stream", "side", "layer", "view", "mean_cosine", "low", "high"]
    return _teacher_once(
        table[[*columns, "top_dimension", "top_share", "n_tokens"]], geometry, ["stream", "layer", "view"]
    )


def anisotropy_figure(
    geometry: Geometry,
    *,
    students: str | Sequence[str] | None = None,
    stream: str | None = None,
    value: str = "raw",
    width: str = "page",
    dark: bool = False,
) -> Figure:
    """Draw the mean cosine between tokens of different examples by layer, a panel per stream and initialisation.

    Args:
        geometry: what the analysis found.
        students: the students to draw; all by default.
        stream: `encoder` or `decoder`; both by default.
        value: how the states are looked at, of `anglekit.vocabulary.VIEWS`.
        width: `page` or `column`.
        dark: draw on a dark ground.

    Raises:
        InputError: there is no such table, or an argument names what the geometry does not have.
    """
    data = anisotropy_data(geometry, students=students, stream=stream, value=value)
    total_width = figure_width(width)
    look = theme(dark)
    own = data[data["side"] == "student"]

    def behind(ax: Axes, name: str) -> None:
        ax.axhline(0.0, color=look.faint, linewidth=0.7, linestyle=(0, (2, 2)), zorder=1)
        draw_teacher(data, "mean_cosine", look, ax, name)

    with context(look):
        return draw_line_panels(
            arm_panels(own, look, "mean_cosine", "layer", before=behind),
            look,
            total_width,
            xlabel="layer (own numbering)",
            ylabel="mean cosine (no unit)",
            legend=[teacher_entry(look), *arm_legend(own, look)],
            notes=[
                f"Cosine between tokens of different examples, states {value}; bars and bands: 95% intervals, of a "
                f"sample of up to {int(data['n_tokens'].max())} tokens. {LAYER_NOTE}"
            ],
            most_columns=2,
        )


def anisotropy_facts(data: pd.DataFrame) -> str:
    """Return in a sentence what the figure's numbers are."""
    own, teacher = data[data["side"] == "student"], data[data["side"] == "teacher"]
    return (
        f"Teacher: {range_words(teacher['mean_cosine'], lambda one: f'{one:.2f}')}; {students_words(own)}: "
        f"{range_words(own['mean_cosine'], lambda one: f'{one:.2f}')}."
    )


def dominant_dimensions_data(
    geometry: Geometry, *, students: str | Sequence[str] | None = None, stream: str | None = None
) -> pd.DataFrame:
    """Return what `dominant_dimensions` draws: a row per side, layer and dominant dimension.

    Columns beside `student, strategy, init, seed, stream, side, layer, dimension`: `share` of the layer's mean cosine
    between tokens of different examples, that `mean_cosine`, and their product `contribution`. The dimensions are the
    eight that add most over all layers and sides of a stream.

    Raises:
        InputError: there is no such table, or an argument names what the geometry does not have.
    """
    names, streams = choose_students([geometry], students), choose_streams([geometry], stream)
    refuse(lacks_dimensions(geometry))
    key = ["student", "stream", "side", "layer"]
    cosines = geometry.anisotropy
    cosines = cosines[(cosines["tokens"] == "all") & (cosines["view"] == "raw")][[*key, "mean_cosine"]]
    table = geometry.dimensions
    table = table[table["student"].isin(names) & table["stream"].isin(streams)].merge(cosines, on=key, how="left")
    table = table.assign(contribution=table["share"] * table["mean_cosine"])
    kept = []
    for _, rows in table.groupby("stream", sort=False):
        size = rows["contribution"].abs().groupby(rows["dimension"]).sum()
        kept.append(rows[rows["dimension"].isin(size.nlargest(_MOST_DIMENSIONS).index)])
    columns = [*key, "dimension", "share", "mean_cosine", "contribution"]
    return _teacher_once(pd.concat(kept)[columns], geometry, ["stream", "layer", "dimension"])


def dominant_dimensions(
    geometry: Geometry,
    *,
    students: str | Sequence[str] | None = None,
    stream: str | None = None,
    width: str = "page",
    dark: bool = False,
) -> Figure:
    """Draw what the dominant dimensions add to the cosine of unrelated tokens, a panel per model.

    Args:
        geometry: what the analysis found.
        students: the students to draw; all by default.
        stream: `encoder` or `decoder`; both by default.
        width: `page` or `column`.
        dark: draw on a dark ground.

    Raises:
        InputError: there is no such table, too much to draw, or an argument names what the geometry does not have.
    """
    data = dominant_dimensions_data(geometry, students=students, stream=stream)
    total_width = figure_width(width)
    blocks = []
    for name in stream_order(list(data["stream"])):
        rows = data[data["stream"] == name]
        size = rows["contribution"].abs().groupby(rows["dimension"]).sum().sort_values()
        panels = []
        for student in ["", *(one for one in geometry.students if one in set(rows["student"]))]:
            own = rows[rows["student"] == student].pivot_table(
                index="dimension", columns="layer", values="contribution", dropna=False
            )
            if len(own):
                own = own.reindex(index=size.index)
                panels.append(MatrixPanel(student or "teacher", own, "layer (own numbering)", "dimension"))
        blocks.append(MatrixBlock("Dominant dimensions", f", {name}", tuple(panels)))
    check_panel_count(blocks, "choose students or a stream")
    notes = [
        "What each dimension adds to the mean cosine between tokens of different examples; the eight that add most "
        "over all panels, the largest on top.",
        LAYER_NOTE,
    ]
    if geometry.projections:
        notes.append("Students of another width have dimensions of their own: their numbers are not the teacher's.")
    look = theme(dark)
    with context(look):
        return draw_matrix_blocks(blocks, _SHOWN, look, total_width, notes, most_annotated=0)


def dominant_dimensions_facts(data: pd.DataFrame) -> str:
    """Return in a sentence what the figure's numbers are."""
    largest = data.to_dict("records")[int(data["contribution"].abs().to_numpy().argmax())]
    who = "the teacher" if largest["side"] == "teacher" else largest["student"]
    return (
        f"The largest part is {largest['contribution']:.2f} of a cosine of {largest['mean_cosine']:.2f}: dimension "
        f"{int(largest['dimension'])} of layer {int(largest['layer'])} of {who}."
    )
