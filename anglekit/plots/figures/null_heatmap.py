"""The twin of the angle heat map: the observed cosine minus what a null gives, for every pair of teacher layers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from anglekit.errors import InputError, suggest
from anglekit.plots.figures.angles_heatmap import pair_blocks
from anglekit.plots.panels.chosen import choose_few_vertices, choose_streams, choose_students
from anglekit.plots.panels.matrix_panels import ShownValue, check_panel_count, draw_matrix_blocks, missing_note
from anglekit.plots.panels.sentences import LAYER_NOTE, OFFICIAL_NOTE, range_words, students_words, vertex_note
from anglekit.plots.style import context, figure_width, theme
from anglekit.results.geometry import Geometry
from anglekit.vocabulary import NULLS

__all__ = ["CLOSED_FORM", "DEFAULT_NULL", "null_heatmap", "null_heatmap_data", "null_heatmap_facts"]

#: The null that stands for "another example's student state": it keeps what layers share by being layers.
DEFAULT_NULL = "permuted-student"
#: The null that every Geometry has, as the column `null_cosine` of its angles.
CLOSED_FORM = "formula"

_KEY = ["student", "stream", "vertex", "teacher_i", "teacher_k"]
_VALUE = "observed_minus_null"
_SHOWN = ShownValue("observed minus null cosine (no unit)", centre=0.0)


def null_heatmap_data(
    geometry: Geometry,
    *,
    students: str | Sequence[str] | None = None,
    stream: str | None = None,
    vertices: Sequence[int] | None = None,
    null: str | None = None,
) -> pd.DataFrame:
    """Return what `null_heatmap` draws: a row per student, stream, vertex and pair.

    Columns beside the key: `null, observed_cosine, null_cosine, observed_minus_null, low, high, n_tokens`; the 95%
    interval is NaN where only the closed form is there.

    Raises:
        InputError: an argument names what the geometry does not have.
    """
    names = choose_students([geometry], students)
    streams = choose_streams([geometry], stream)
    layers = choose_few_vertices([geometry], vertices)
    table = _against(geometry, _choose_null(geometry, null))
    rows = table[table["student"].isin(names) & table["stream"].isin(streams) & table["vertex"].isin(layers)]
    return rows.reset_index(drop=True)


def _choose_null(geometry: Geometry, null: str | None) -> str:
    known = [name for name in NULLS if name in set(geometry.nulls["null"])]
    if null is None:
        return DEFAULT_NULL if DEFAULT_NULL in known else CLOSED_FORM
    able = list(dict.fromkeys([CLOSED_FORM, *known]))
    if null in able:
        return null
    if null in NULLS:
        raise InputError(
            f"this Geometry has no null {null!r}", f"run `anglekit analyze --nulls all`, or draw {able[0]}"
        )
    raise InputError(f"no null {null!r}", allowed=suggest(null, able))


def _against(geometry: Geometry, null: str) -> pd.DataFrame:
    if null in set(geometry.nulls["null"]):
        rows = geometry.nulls[geometry.nulls["null"] == null]
        rows = rows.rename(columns={"mean_cosine": "null_cosine"})
    else:
        rows = geometry.angles.assign(
            null=null,
            observed_cosine=geometry.angles["mean_cosine"],
            observed_minus_null=geometry.angles["mean_cosine"] - geometry.angles["null_cosine"],
            low=np.nan,
            high=np.nan,
        )
    return rows[[*_KEY, "null", "observed_cosine", "null_cosine", _VALUE, "low", "high", "n_tokens"]]


def null_heatmap(
    geometry: Geometry,
    *,
    students: str | Sequence[str] | None = None,
    stream: str | None = None,
    vertices: Sequence[int] | None = None,
    null: str | None = None,
    width: str = "page",
    dark: bool = False,
) -> Figure:
    """Draw the observed cosine minus a null's over all pairs of teacher layers, a panel per student layer.

    Args:
        geometry: what the analysis found.
        students: the students to draw; all by default.
        stream: `encoder` or `decoder`; both by default.
        vertices: the student layers to draw; by default all, or 12 spread over the depth where there are more.
        null: a name of `anglekit.vocabulary.NULLS`; by default the student's states of another example, or the
            closed form where the Geometry has no table of nulls.
        width: `page` or `column`.
        dark: draw on a dark ground.

    Raises:
        InputError: nothing is left to draw, too much is, or an argument names what the geometry does not have.
    """
    data = null_heatmap_data(geometry, students=students, stream=stream, vertices=vertices, null=null)
    total_width = figure_width(width)
    blocks = pair_blocks(data, _VALUE, 1.0, geometry.students)
    check_panel_count(blocks, "choose a student or a stream")
    notes = [
        _null_words(data),
        *vertex_note(geometry, data),
        LAYER_NOTE,
        *missing_note(blocks, "no token has an angle there (a teacher state equals the student's)"),
    ]
    if geometry.settings.get("reading") == "official":
        notes = [OFFICIAL_NOTE, *notes]
    look = theme(dark)
    with context(look):
        return draw_matrix_blocks(blocks, _SHOWN, look, total_width, notes)


def _null_words(data: pd.DataFrame) -> str:
    null = str(data["null"].iloc[0])
    text = f"Null {null}: {NULLS[null]}."
    low, high = data["low"].to_numpy(np.float64), data["high"].to_numpy(np.float64)
    known = np.isfinite(low) & np.isfinite(high)
    if not known.any():
        return f"{text} Without intervals: this null is a mean over the whole probe."
    above, below = int((low > 0).sum()), int((high < 0).sum())
    return (
        f"{text} Of {int(known.sum())} pairs {above} are above it, {below} below, and "
        f"{int(known.sum()) - above - below} not told from it (95% intervals, clustered by example)."
    )


def null_heatmap_facts(data: pd.DataFrame) -> str:
    """Return in a sentence what the figure's numbers are."""
    words = range_words(data[_VALUE], lambda number: f"{number:+.2f}")
    return f"{students_words(data)}: observed minus null {words}. {_null_words(data)}"
