"""Heat maps over two layers: distance, cosine and CKA of the teacher's layers with each other and with a student's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import pandas as pd
from matplotlib.figure import Figure

from anglekit.errors import InputError, suggest
from anglekit.plots.panels.chosen import choose_streams, choose_students
from anglekit.plots.panels.labels import plain
from anglekit.plots.panels.matrix_panels import (
    MatrixBlock,
    MatrixPanel,
    ShownValue,
    check_panel_count,
    draw_matrix_blocks,
    missing_note,
)
from anglekit.plots.panels.sentences import LAYER_NOTE, range_words, refuse, students_words
from anglekit.plots.style import context, figure_width, theme
from anglekit.results.geometry import Geometry

__all__ = ["LAYER_VALUES", "LayerValue", "default_value", "lacks_layers", "layer_heatmap", "layer_heatmap_data"]


@dataclass(frozen=True)
class LayerValue:
    """A number of two layers.

    Attributes:
        measure: `distance`, `cosine` or `cka`: the family that draws it.
        table: `layers`, or `similarity` with the kind of states.
        states: of `similarity`: of example means or tokens.
        shown: how it is drawn.
        meaning: what it is, for the notes.
    """

    measure: str
    table: str
    shown: ShownValue
    meaning: str
    states: str | None = None


def _unit(label: str) -> ShownValue:
    return ShownValue(label, limits=(0.0, 1.0))


#: What a layer heat map can show, the first of each measure by default.
LAYER_VALUES: Mapping[str, LayerValue] = MappingProxyType(
    {
        "mean_distance": LayerValue(
            "distance",
            "layers",
            ShownValue("mean distance (units of the states)", limits=(0.0, None), decimals=1),
            "Euclidean distance of two layers' states of one token, mean over tokens",
        ),
        "procrustes_distance": LayerValue(
            "distance",
            "similarity",
            ShownValue("Procrustes distance (no unit)", limits=(0.0, None)),
            "distance of example means after the best rotation and scaling",
            "example-mean",
        ),
        "mean_cosine": LayerValue(
            "cosine",
            "layers",
            ShownValue("mean cosine (no unit)", centre=0.0),
            "cosine of two layers' states of one token, mean over tokens",
        ),
        "centred_cosine": LayerValue(
            "cosine",
            "layers",
            ShownValue("centred cosine (no unit)", centre=0.0),
            "cosine after each layer's mean state is taken out",
        ),
        "cka": LayerValue(
            "cka",
            "layers",
            _unit("debiased CKA (no unit)"),
            "debiased linear CKA of example means: 1 the same up to rotation and scale, 0 unrelated",
        ),
        "debiased_cka": LayerValue(
            "cka",
            "similarity",
            _unit("debiased CKA of tokens (no unit)"),
            "debiased linear CKA, one token of each example: 1 the same up to rotation and scale, 0 unrelated",
            "token",
        ),
        "linear_cka": LayerValue(
            "cka",
            "similarity",
            _unit("linear CKA (no unit)"),
            "linear CKA of example means, not debiased: above 0 for unrelated states too",
            "example-mean",
        ),
        "mutual_neighbours": LayerValue(
            "cka",
            "similarity",
            _unit("shared neighbours (share)"),
            "share of nearest neighbours that two layers have in common, of example means",
            "example-mean",
        ),
    }
)

_KEY = ["student", "stream", "side_a", "layer_a", "side_b", "layer_b"]


def default_value(measure: str) -> str:
    """Return the value that a measure's heat map shows unless told otherwise."""
    return next(name for name, value in LAYER_VALUES.items() if value.measure == measure)


def _missing(geometry: Geometry, value: str) -> str | None:
    """Return why a value cannot be drawn, or None."""
    chosen = LAYER_VALUES[value]
    table = getattr(geometry, chosen.table)
    if len(table) and table[value].notna().any():
        return None
    if value == "cka":
        return "this Geometry has no CKA; run `anglekit analyze --similarity default`"
    if chosen.table == "similarity":
        return f"this Geometry has no {value}; run `anglekit analyze --similarity all`"
    return f"this Geometry has no {value} between layers; run `anglekit analyze` again"


def lacks_layers(geometry: Geometry, measure: str) -> str | None:
    """Return why a measure cannot be drawn from a Geometry, or None where it can."""
    return _missing(geometry, default_value(measure))


def layer_heatmap_data(
    geometry: Geometry,
    measure: str,
    *,
    students: str | Sequence[str] | None = None,
    stream: str | None = None,
    value: str | None = None,
) -> pd.DataFrame:
    """Return what `layer_heatmap` draws: a row per student, stream and two layers (`side_a, layer_a, side_b, layer_b`).

    The teacher with itself comes once per stream, with an empty student, and once for each pair (layer_a <= layer_b).

    Raises:
        InputError: an argument names what the geometry does not have.
    """
    able = [name for name, one in LAYER_VALUES.items() if one.measure == measure]
    chosen = able[0] if value is None else value
    if chosen not in able:
        raise InputError(f"no value {chosen!r}", allowed=suggest(chosen, able))
    names, streams = choose_students([geometry], students), choose_streams([geometry], stream)
    refuse(_missing(geometry, chosen))
    kind = LAYER_VALUES[chosen]
    table = getattr(geometry, kind.table)
    if kind.states is not None:
        table = table[table["states"] == kind.states]
    rows = table[table["student"].isin(names) & table["stream"].isin(streams) & (table["side_a"] == "teacher")]
    own = rows[rows["side_b"] == "teacher"].drop_duplicates(["stream", "layer_a", "layer_b"]).assign(student="")
    across = rows[rows["side_b"] == "student"]
    both = pd.concat([own, across], ignore_index=True)
    return pd.DataFrame(both[[*_KEY, chosen]])


def layer_heatmap(
    geometry: Geometry,
    measure: str,
    *,
    students: str | Sequence[str] | None = None,
    stream: str | None = None,
    value: str | None = None,
    width: str = "page",
    dark: bool = False,
) -> Figure:
    """Draw how near two layers are: the teacher's layers with each other, and with each student's.

    Args:
        geometry: what the analysis found.
        measure: `distance`, `cosine` or `cka`.
        students: the students to draw; all by default.
        stream: `encoder` or `decoder`; both by default.
        value: a name of `LAYER_VALUES` of this measure.
        width: `page` or `column`.
        dark: draw on a dark ground.

    Raises:
        InputError: nothing is left to draw, too much is, or an argument names what the geometry does not have.
    """
    data = layer_heatmap_data(geometry, measure, students=students, stream=stream, value=value)
    chosen = str(data.columns[-1])
    total_width = figure_width(width)
    blocks = _blocks(data, chosen, [name for name in geometry.students if name in set(data["student"])])
    check_panel_count(blocks, "choose students or a stream")
    kind = LAYER_VALUES[chosen]
    notes = [f"{kind.meaning[0].upper()}{kind.meaning[1:]}.", LAYER_NOTE, *missing_note(blocks, "no value")]
    if geometry.projections:
        notes.append("Students of another width are shown after their projection to the teacher's.")
    look = theme(dark)
    with context(look):
        return draw_matrix_blocks(blocks, kind.shown, look, total_width, notes)


def _blocks(data: pd.DataFrame, value: str, students: Sequence[str]) -> list[MatrixBlock]:
    blocks = []
    for stream in sorted(data["stream"].unique(), key=lambda name: name != "encoder"):
        rows = data[data["stream"] == stream]
        own = rows[rows["side_b"] == "teacher"].pivot_table(
            index="layer_b", columns="layer_a", values=value, dropna=False
        )
        layers = sorted({*own.index, *own.columns})
        own = own.reindex(index=layers, columns=layers)
        whole = own.where(own.notna(), own.T)
        panels = []
        if len(own):
            panels.append(MatrixPanel("teacher with itself", whole, "teacher layer", "teacher layer"))
        for student in students:
            across = rows[(rows["student"] == student) & (rows["side_b"] == "student")]
            if len(across):
                matrix = across.pivot_table(index="layer_b", columns="layer_a", values=value, dropna=False)
                panels.append(MatrixPanel(student, matrix, "teacher layer", "student layer"))
        if panels:
            blocks.append(
                MatrixBlock("Teacher with itself and with students", f", {plain(str(stream))}", tuple(panels))
            )
    return blocks


def layer_heatmap_facts(data: pd.DataFrame) -> str:
    """Return in a sentence what the figure's numbers are."""
    value = str(data.columns[-1])
    shown = LAYER_VALUES[value].shown
    across = data[data["side_b"] == "student"]
    parts = [
        f"{who}: {shown.label} {range_words(rows[value], lambda number: f'{number:.{shown.decimals}f}')}"
        for who, rows in (
            ("the teacher with itself", data[data["side_b"] == "teacher"]),
            (f"the teacher with {students_words(across)}", across),
        )
        if len(rows)
    ]
    return f"{'; '.join(parts)}."
