"""Heat maps over two layers: distance, cosine and CKA of the teacher's layers with each other and with a student's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from anglekit.plots.inputs import FigureInputs
from anglekit.plots.panels.chosen import choose, choose_value, require, stream_order
from anglekit.plots.panels.labels import plain
from anglekit.plots.panels.matrix_panels import (
    MatrixBlock,
    MatrixPanel,
    ShownValue,
    draw_matrix_blocks,
    missing_note,
    untold_note,
)
from anglekit.plots.panels.sentences import LAYER_NOTE, range_words, students_words
from anglekit.plots.panels.tables import symmetric_matrix, teacher_once
from anglekit.plots.spec import STUDENTS, FigureOptions, FigureSpec
from anglekit.plots.style import Theme
from anglekit.results.geometry import Geometry

_KEY = ["student", "stream", "side_a", "layer_a", "side_b", "layer_b"]
# A value is told from chance where fewer permutations than this find as much anywhere between the same two sides.
_LEVEL = 0.05
_TEST = "permuted examples; 5% for all pairs of layers of the same two sides together"


@dataclass(frozen=True)
class _LayerValue:
    """A number of two layers.

    Attributes:
        shown: how it is drawn.
        meaning: what it is, for the notes.
        states: which states of the table `similarity`: example means or tokens; None means the table `layers`.
        tested: columns with its mean over permutations and its adjusted p-value lie beside it.
    """

    shown: ShownValue
    meaning: str
    states: str | None = None
    tested: bool = False

    def table(self, geometry: Geometry) -> pd.DataFrame:
        """Return the rows that hold it."""
        if self.states is None:
            return geometry.layers
        return geometry.similarity[geometry.similarity["states"] == self.states]


_DISTANCES = {
    "mean_distance": _LayerValue(
        ShownValue("mean distance (units of the states)", limits=(0.0, None), decimals=1),
        "Euclidean distance of two layers' states of one token, mean over tokens",
    ),
    "procrustes_distance": _LayerValue(
        ShownValue("Procrustes distance", limits=(0.0, None), least=0.25),
        "distance of example means after the best rotation and scaling",
        "example-mean",
        tested=True,
    ),
}
_COSINES = {
    "mean_cosine": _LayerValue(
        ShownValue("mean cosine", centre=0.0, least=0.25),
        "cosine of two layers' states of one token, mean over tokens",
    ),
    "centred_cosine": _LayerValue(
        ShownValue("centred cosine", centre=0.0, least=0.25),
        "cosine after each layer's mean state is taken out",
    ),
}
_SIMILARITIES = {
    "cka": _LayerValue(
        ShownValue("debiased CKA", limits=(0.0, 1.0)),
        "debiased linear CKA of example means: 1 the same up to rotation and scale, 0 unrelated",
        tested=True,
    ),
    "debiased_cka": _LayerValue(
        ShownValue("debiased CKA of tokens", limits=(0.0, 1.0)),
        "debiased linear CKA, one token of each example: 1 the same up to rotation and scale, 0 unrelated",
        "token",
        tested=True,
    ),
    "linear_cka": _LayerValue(
        ShownValue("linear CKA", limits=(0.0, 1.0)),
        "linear CKA of example means, not debiased: above 0 for unrelated states too",
        "example-mean",
        tested=True,
    ),
    "mutual_neighbours": _LayerValue(
        ShownValue("shared neighbours (share)", limits=(0.0, 1.0)),
        "share of nearest neighbours that two layers have in common, of example means",
        "example-mean",
        tested=True,
    ),
}


def _layer_heatmap(title: str, summary: str, reading: str, values: Mapping[str, _LayerValue]) -> FigureSpec:
    """Return a figure of the values of two layers, the first of them by default."""

    def check(inputs: FigureInputs) -> None:
        _check(inputs.geometry, next(iter(values)), values)

    def data(inputs: FigureInputs, options: FigureOptions) -> pd.DataFrame:
        """Return a row per student, stream and two layers (`side_a, layer_a, side_b, layer_b`).

        The teacher with itself comes once per stream, with an empty student, and each pair once (layer_a <= layer_b).
        Where the Geometry has them, the columns `VALUE_null` and `VALUE_p_adjusted` follow.
        """
        value = choose_value(options.value, values)
        chosen = choose(inputs.geometries, options)
        _check(inputs.geometry, value, values)
        rows = chosen.rows(values[value].table(inputs.geometry))
        rows = rows[rows["side_a"] == "teacher"]
        beside = (f"{value}_null", f"{value}_p_adjusted") if values[value].tested else ()
        known = [column for column in beside if column in rows and rows[column].notna().any()]
        return teacher_once(rows, ["stream", "layer_a", "layer_b"], side="side_b")[[*_KEY, value, *known]]

    def draw(inputs: FigureInputs, options: FigureOptions, look: Theme, width: float) -> Figure:
        table, kind = data(inputs, options), values[choose_value(options.value, values)]
        value = _value_of(table)
        blocks = _blocks(table, value, inputs.geometry)
        notes = [f"{kind.meaning[0].upper()}{kind.meaning[1:]}.", LAYER_NOTE, *missing_note(blocks, "no value")]
        if f"{value}_null" in table:
            notes.append(f"By chance, with examples permuted: {range_words(table[f'{value}_null'], '.2f')}.")
        notes += untold_note(blocks, _TEST)
        if inputs.geometry.projections:
            notes.append("Students of another width are shown after their projection to the teacher's.")
        return draw_matrix_blocks(blocks, kind.shown, look, width, notes)

    def facts(table: pd.DataFrame) -> str:
        value = _value_of(table)
        shown = values[value].shown
        across = table[table["side_b"] == "student"]
        parts = [
            f"{who}: {shown.label} {range_words(rows[value], f'.{shown.decimals}f')}{_untold_words(rows, value)}"
            for who, rows in (
                ("the teacher with itself", table[table["side_b"] == "teacher"]),
                (f"the teacher with {students_words(across)}", across),
            )
            if len(rows)
        ]
        return f"{'; '.join(parts)}."

    return FigureSpec(
        title=title,
        summary=f"{summary} of teacher layers with each other and with each student's layers",
        reading=reading,
        options=STUDENTS | {"value"},
        data=data,
        facts=facts,
        draw=draw,
        check=check,
    )


def _value_of(table: pd.DataFrame) -> str:
    """Return the value that a figure's table holds, the first column behind its key."""
    return str(table.columns[len(_KEY)])


def _untold(rows: pd.DataFrame, value: str) -> pd.Series:
    """Return which values cannot be told from chance; none where that was not tested."""
    column = f"{value}_p_adjusted"
    return rows[column] >= _LEVEL if column in rows else pd.Series(data=False, index=rows.index)


def _untold_words(rows: pd.DataFrame, value: str) -> str:
    untold = int(_untold(rows, value).sum())
    return f" ({untold} of {len(rows)} not told from chance)" if untold else ""


def _check(geometry: Geometry, value: str, values: Mapping[str, _LayerValue]) -> None:
    if value == "cka":
        require(geometry.layers, value, "CKA", "--similarity default")
    elif values[value].states is not None:
        require(geometry.similarity, value, value, "--similarity all")
    else:
        require(geometry.layers, value, f"{value} between layers")


def _blocks(data: pd.DataFrame, value: str, geometry: Geometry) -> list[MatrixBlock]:
    blocks = []
    data = data.assign(untold=_untold(data, value).astype("float64"))
    for stream in stream_order(data["stream"]):
        rows = data[data["stream"] == stream]
        own = rows[rows["side_b"] == "teacher"]
        panels = []
        if len(own):
            whole, untold = (symmetric_matrix(own, each, "layer_a", "layer_b") for each in (value, "untold"))
            panels.append(MatrixPanel("teacher with itself", whole, "teacher layer", "own layer", untold=untold > 0))
        for student in geometry.students:
            across = rows[(rows["student"] == student) & (rows["side_b"] == "student")]
            if len(across):
                matrix, untold = (
                    across.pivot_table(index="layer_b", columns="layer_a", values=each, dropna=False)
                    for each in (value, "untold")
                )
                panels.append(MatrixPanel(student, matrix, "teacher layer", "own layer", untold=untold > 0))
        if panels:
            blocks.append(MatrixBlock("Teacher and students", f", {plain(stream)}", tuple(panels)))
    return blocks


LAYER_DISTANCE = _layer_heatmap(
    "Distances between layers",
    "distances",
    "Dark is near. The angle between two teacher layers is acute where they are nearer to each other than to the "
    "student.",
    _DISTANCES,
)
LAYER_COSINE = _layer_heatmap(
    "Cosines between layers",
    "cosines",
    "Red layers point the same way, seen from the origin; white ones are at right angles.",
    _COSINES,
)
LAYER_CKA = _layer_heatmap(
    "Similarity between layers (CKA)",
    "CKA",
    "Yellow layers arrange the examples alike, whatever their rotation and scale; blue ones do not.",
    _SIMILARITIES,
)
