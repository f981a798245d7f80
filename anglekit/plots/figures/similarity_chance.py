"""Similarity with chance: how alike each student layer and the layer that teaches it are, beside permuted examples."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from anglekit.plots.inputs import FigureInputs
from anglekit.plots.panels.arm_lines import draw_arm_lines
from anglekit.plots.panels.chosen import choose, choose_value, require
from anglekit.plots.panels.line_panels import Entry
from anglekit.plots.panels.sentences import LAYER_NOTE, PLACE_NOTE, range_words, students_words
from anglekit.plots.panels.tables import with_arms, with_places
from anglekit.plots.spec import STUDENTS, FigureOptions, FigureSpec
from anglekit.plots.style import CHANCE_DASHES, Theme
from anglekit.results.geometry import Geometry
from anglekit.results.student_t import t_quantile

#: What can be drawn: the axis label, and which states of the table `similarity` (None: the table `layers`).
_VALUES: Mapping[str, tuple[str, str | None]] = MappingProxyType(
    {
        "cka": ("debiased CKA", None),
        "debiased_cka": ("debiased CKA of tokens", "token"),
        "linear_cka": ("linear CKA", "example-mean"),
        "procrustes_distance": ("Procrustes distance", "example-mean"),
        "mutual_neighbours": ("shared neighbours (share)", "example-mean"),
    }
)


_PLACES = ("student", "stream", "side", "layer", "place", "teacher_layer")


def _check(inputs: FigureInputs) -> None:
    require(inputs.geometry.layers, "cka", "CKA", "--similarity default")


def _table(geometry: Geometry, value: str) -> pd.DataFrame:
    states = _VALUES[value][1]
    if states is None:
        return geometry.layers
    require(geometry.similarity, value, value, "--similarity all")
    return geometry.similarity[geometry.similarity["states"] == states]


def _data(inputs: FigureInputs, options: FigureOptions) -> pd.DataFrame:
    """Return a row per student, stream and student layer.

    Columns beside `student, strategy, init, seed, stream, side, layer`: `place`, the teacher layer beside which it
    stands (`with_places`), and `teacher_layer`, that one rounded; the value between the two with its 95% interval `low,
    high` (NaN without a standard error), `chance`, its mean with one side's examples permuted, and `p_adjusted`.
    """
    value = choose_value(options.value, _VALUES)
    chosen = choose(inputs.geometries, options)
    rows = chosen.rows(_table(inputs.geometry, value))
    rows = rows[(rows["side_a"] == "teacher") & (rows["side_b"] == "student")]
    rows = rows.rename(columns={"layer_b": "layer"}).assign(side="student")
    rows = with_places(rows, inputs.geometry)
    rows = rows.assign(teacher_layer=np.floor(rows["place"] + 0.5).astype(int))
    rows = rows[rows["layer_a"] == rows["teacher_layer"]]
    examples = len(inputs.geometry.examples["example"].unique())
    half = float(t_quantile(0.975, max(examples - 1, 1))) * rows[f"{value}_se"].to_numpy(np.float64)
    data = pd.DataFrame(
        {
            **{
                name: rows[name].to_numpy() for name in ("student", "stream", "side", "layer", "place", "teacher_layer")
            },
            value: rows[value].to_numpy(np.float64),
            "low": rows[value].to_numpy(np.float64) - half,
            "high": rows[value].to_numpy(np.float64) + half,
            "chance": rows[f"{value}_null"].to_numpy(np.float64),
            "p_adjusted": rows[f"{value}_p_adjusted"].to_numpy(np.float64),
        }
    )
    return with_arms(data, inputs.geometry)


def _draw(inputs: FigureInputs, options: FigureOptions, look: Theme, width: float) -> Figure:
    data, value = _data(inputs, options), choose_value(options.value, _VALUES)
    known = bool(data["chance"].notna().any())

    def behind(ax: Axes) -> None:
        # A similarity is a share of what is possible: some hundredths do not fill the axis.
        ax.update_datalim([(0.0, -0.02), (0.0, 1.02)])

    return draw_arm_lines(
        data,
        look,
        width,
        value=value,
        x="place",
        xlabel="teacher layer",
        ylabel=_VALUES[value][0],
        notes=[
            "Each student layer with the teacher layer beside which it stands; bars or bands: 95% intervals over "
            "examples. "
            + ("Dashed: chance, the mean with one side's examples permuted. " if known else "Chance is not recorded. ")
            + f"{PLACE_NOTE} {LAYER_NOTE}"
        ],
        behind=behind,
        dashed="chance" if known else None,
        legend=[Entry.line("chance", look.ink, linewidth=0.9, linestyle=CHANCE_DASHES)] if known else [],
    )


def _facts(data: pd.DataFrame) -> str:
    value = next(column for column in data.columns if column in _VALUES)
    words = f"{students_words(data)}: {_VALUES[value][0]} {range_words(data[value], '.2f')}"
    known = data["p_adjusted"].dropna()
    chance = f", by chance {range_words(data['chance'], '.2f')}" if data["chance"].notna().any() else ""
    untold = f"; {int((known >= 0.05).sum())} of {len(known)} not told from chance" if len(known) else ""
    return f"{words}{chance}{untold}."


SIMILARITY_CHANCE = FigureSpec(
    title="Similarity with chance",
    summary="how alike each student layer and the layer that teaches it are, and what permuted examples would show",
    reading=(
        "A line well above its dashes says that student and teacher arrange the examples alike. Width and few examples "
        "lift the dashes: a similarity says nothing without them."
    ),
    options=STUDENTS | {"value"},
    data=_data,
    facts=_facts,
    draw=_draw,
    check=_check,
)
