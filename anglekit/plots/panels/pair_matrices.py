"""Heat maps over pairs of teacher layers, a panel per student layer (the vertex of the angle)."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from anglekit.plots.panels.chosen import stream_order
from anglekit.plots.panels.labels import number_ranges, plain
from anglekit.plots.panels.matrix_panels import (
    MatrixBlock,
    MatrixPanel,
    ShownValue,
    draw_matrix_blocks,
    missing_note,
    untold_note,
)
from anglekit.plots.panels.sentences import LAYER_NOTE
from anglekit.plots.panels.tables import symmetric_matrix
from anglekit.plots.style import Theme
from anglekit.results.geometry import Geometry

#: The columns that identify a row of a table over pairs.
PAIR_KEY = ["student", "stream", "vertex", "teacher_i", "teacher_k"]


def draw_pair_matrices(
    data: pd.DataFrame,
    geometry: Geometry,
    look: Theme,
    width: float,
    *,
    value: str,
    shown: ShownValue,
    first_note: str = "",
) -> Figure:
    """Draw a column over pairs of teacher layers: a block per student and stream, a panel per vertex.

    All panels share one colour scale. The diagonal, where a pair would be one layer twice, is blank; cells without a
    value (every token was degenerate, as where the student's embedding is the teacher's) are grey. `data` has the
    columns `PAIR_KEY` and the value, and perhaps `untold`, which marks the pairs that cannot be told from chance;
    `first_note` is a sentence before the others.

    Raises:
        InputError: there is no panel, or there are too many.
    """
    blocks = []
    for student in geometry.students:
        own = data[data["student"] == student]
        for stream in stream_order(own["stream"]):
            rows = own[own["stream"] == stream]
            rows = rows.assign(untold=rows["untold"].astype("float64")) if "untold" in rows else rows
            layers = sorted({int(layer) for column in ("teacher_i", "teacher_k") for layer in rows[column].unique()})
            panels = []
            for vertex in sorted(int(vertex) for vertex in rows["vertex"].unique()):
                here = rows[rows["vertex"] == vertex]
                matrix = symmetric_matrix(here, value, "teacher_i", "teacher_k", layers) * shown.factor
                untold = None
                if "untold" in here:
                    untold = symmetric_matrix(here, "untold", "teacher_i", "teacher_k", layers) > 0
                panels.append(
                    MatrixPanel(
                        f"student layer {vertex}",
                        matrix,
                        "teacher layer",
                        "teacher layer",
                        open_diagonal=True,
                        untold=untold,
                        short_title=f"layer {vertex}",
                    )
                )
            blocks.append(MatrixBlock(student, f", {plain(stream)}", tuple(panels)))
    notes = ["Official reading: the paper's code, padding counted, one pair of layers."] if geometry.official else []
    notes += [first_note] if first_note else []
    drawn, known = ({int(layer) for layer in table["vertex"]} for table in (data, geometry.angles))
    if len(drawn) < len(known):
        notes.append(f"Drawn: student layers {number_ranges(sorted(drawn))}, of {len(known)} analysed.")
    notes += [LAYER_NOTE, *missing_note(blocks, "no token has an angle there (a teacher state equals the student's)")]
    notes += untold_note(blocks, "95% for all pairs together")
    return draw_matrix_blocks(blocks, shown, look, width, notes, advice="choose a student or a stream")
