"""Anisotropy: how alike unrelated tokens are, layer by layer, and which few dimensions make them so."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from anglekit.plots.inputs import FigureInputs
from anglekit.plots.panels.arm_lines import draw_arm_lines
from anglekit.plots.panels.chosen import choose, choose_value, require, stream_order
from anglekit.plots.panels.labels import plain
from anglekit.plots.panels.matrix_panels import MatrixBlock, MatrixPanel, ShownValue, draw_matrix_blocks
from anglekit.plots.panels.sentences import LAYER_NOTE, PLACE_NOTE, teacher_and_students_facts
from anglekit.plots.panels.tables import teacher_once, with_arms, with_places
from anglekit.plots.presentation import shown_name
from anglekit.plots.spec import STUDENTS, FigureOptions, FigureSpec
from anglekit.plots.style import GUIDE_DASHES, Theme
from anglekit.results.student_t import t_quantile
from anglekit.vocabulary import VIEWS

_MOST_DIMENSIONS = 8
_SHOWN = ShownValue("part of the cosine", centre=0.0, least=0.05)
# Panels whose largest part is below this share of the largest of all are left out: they would be blank.
_LEAST_SHARE = 0.2
_OPTION = "--nulls default"


def _check(inputs: FigureInputs) -> None:
    require(inputs.geometry.anisotropy, "mean_cosine", "table of anisotropy", _OPTION)


def _check_dimensions(inputs: FigureInputs) -> None:
    require(inputs.geometry.dimensions, "dimension", "table of dimensions", _OPTION)
    _check(inputs)


def _data(inputs: FigureInputs, options: FigureOptions) -> pd.DataFrame:
    """Return a row per side and layer, the teacher's once, with an empty student.

    Columns beside `student, strategy, init, seed, stream, side, layer, view`: `mean_cosine` of tokens of different
    examples, its 95% interval `low, high`, the dimension that adds most and its share, `n_tokens`, and `place`, the
    teacher layer beside which it is drawn (`with_places`).
    """
    view = choose_value(options.value, VIEWS)
    chosen = choose(inputs.geometries, options)
    table = chosen.rows(inputs.geometry.anisotropy)
    table = table[(table["tokens"] == "all") & (table["view"] == view)]
    half = t_quantile(0.975, table["n_tokens"] - 1) * table["se"]
    table = table.assign(low=table["mean_cosine"] - half, high=table["mean_cosine"] + half)
    columns = ["student", "stream", "side", "layer", "view", "mean_cosine", "low", "high"]
    table = table[[*columns, "top_dimension", "top_share", "n_tokens"]]
    return with_places(with_arms(teacher_once(table, ["stream", "layer"]), inputs.geometry), inputs.geometry)


def _draw(inputs: FigureInputs, options: FigureOptions, look: Theme, width: float) -> Figure:
    data = _data(inputs, options)
    return draw_arm_lines(
        data,
        look,
        width,
        value="mean_cosine",
        x="place",
        xlabel="teacher layer",
        ylabel="mean cosine",
        notes=[
            f"Cosine between tokens of different examples, states {choose_value(options.value, VIEWS)}; bars and "
            f"bands: 95% intervals, of a sample of up to {int(data['n_tokens'].max())} tokens. "
            f"{PLACE_NOTE} {LAYER_NOTE}"
        ],
        behind=lambda ax: ax.axhline(0.0, color=look.faint, linewidth=0.7, linestyle=GUIDE_DASHES, zorder=1),
        outliers="broken out",
    )


ANISOTROPY = FigureSpec(
    title="How alike unrelated tokens are",
    summary="the cosine between tokens of different examples by layer, teacher and students",
    reading="Near 0 directions are spread evenly; near 1 all tokens point one way, and any cosine is high.",
    options=STUDENTS | {"value"},
    data=_data,
    facts=lambda data: teacher_and_students_facts(data, "mean_cosine", ".2f"),
    draw=_draw,
    check=_check,
)


def _dimensions_data(inputs: FigureInputs, options: FigureOptions) -> pd.DataFrame:
    """Return a row per side, layer and dominant dimension.

    Columns beside `student, strategy, init, seed, stream, side, layer, dimension`: `share` of the layer's mean cosine
    between tokens of different examples, that `mean_cosine`, and their product `contribution`. The dimensions are the
    eight that add most over all layers and sides of a stream.
    """
    chosen = choose(inputs.geometries, options)
    key = ["student", "stream", "side", "layer"]
    cosines = inputs.geometry.anisotropy
    cosines = cosines[(cosines["tokens"] == "all") & (cosines["view"] == "raw")][[*key, "mean_cosine"]]
    table = chosen.rows(inputs.geometry.dimensions).merge(cosines, on=key, how="left")
    table = table.assign(contribution=table["share"] * table["mean_cosine"])
    kept = []
    for _, rows in table.groupby("stream", sort=False):
        kept.append(rows[rows["dimension"].isin(_sizes(rows).nlargest(_MOST_DIMENSIONS).index)])
    columns = [*key, "dimension", "share", "mean_cosine", "contribution"]
    return with_arms(teacher_once(pd.concat(kept)[columns], ["stream", "layer", "dimension"]), inputs.geometry)


def _sizes(rows: pd.DataFrame) -> pd.Series:
    """Return how much each dimension adds over all layers."""
    return rows["contribution"].abs().groupby(rows["dimension"]).sum()


def _draw_dimensions(inputs: FigureInputs, options: FigureOptions, look: Theme, width: float) -> Figure:
    data = _dimensions_data(inputs, options)
    blocks, blank = [], list[str]()
    least = _LEAST_SHARE * max(float(data["contribution"].abs().max()), _SHOWN.least)
    for stream in stream_order(data["stream"]):
        rows = data[data["stream"] == stream]
        order = _sizes(rows).sort_values().index
        panels = []
        for student in ["", *(one for one in inputs.geometry.students if one in set(rows["student"]))]:
            own = rows[rows["student"] == student].pivot_table(
                index="dimension", columns="layer", values="contribution", dropna=False
            )
            if student and len(own) and not own.abs().max().max() >= least:
                blank.append(plain(shown_name(student)))
            elif len(own):
                own = own.reindex(index=order)
                panels.append(MatrixPanel(student or "teacher", own, "own layer", "dimension"))
        blocks.append(MatrixBlock("Dominant dimensions", f", {stream}", tuple(panels)))
    notes = [
        "What each dimension adds to the mean cosine between tokens of different examples; the eight that add most "
        "over all panels, the largest on top.",
        LAYER_NOTE,
    ]
    if blank:
        notes.append(f"Left out, since no dimension adds {least:.2g} there: {'; '.join(dict.fromkeys(blank))}.")
    if inputs.geometry.projections:
        notes.append("Students of another width have dimensions of their own: their numbers are not the teacher's.")
    return draw_matrix_blocks(blocks, _SHOWN, look, width, notes, most_annotated=0)


def _dimensions_facts(data: pd.DataFrame) -> str:
    largest = data.to_dict("records")[int(data["contribution"].abs().to_numpy().argmax())]
    return (
        f"The largest part is {largest['contribution']:.2f} of a cosine of {largest['mean_cosine']:.2f}: dimension "
        f"{int(largest['dimension'])} of layer {int(largest['layer'])} of {largest['student'] or 'the teacher'}."
    )


DOMINANT_DIMENSIONS = FigureSpec(
    title="Dominant dimensions",
    summary="what a few dimensions add to the cosine between unrelated tokens, by layer",
    reading="A dark row is one dimension that makes unrelated tokens look alike through many layers.",
    options=STUDENTS,
    data=_dimensions_data,
    facts=_dimensions_facts,
    draw=_draw_dimensions,
    check=_check_dimensions,
)
