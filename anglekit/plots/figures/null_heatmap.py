"""Like the angle heat map, but the observed cosine minus the cosine under a null, for every pair of teacher layers."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from anglekit.errors import InputError, suggest
from anglekit.plots.inputs import FigureInputs
from anglekit.plots.panels.chosen import choose
from anglekit.plots.panels.matrix_panels import ShownValue
from anglekit.plots.panels.pair_matrices import PAIR_KEY, draw_pair_matrices
from anglekit.plots.panels.sentences import range_words, students_words
from anglekit.plots.spec import VERTICES, FigureOptions, FigureSpec
from anglekit.plots.style import Theme
from anglekit.results.geometry import Geometry
from anglekit.results.joint_intervals import with_joint_intervals
from anglekit.vocabulary import NULLS

#: The null that means "another example's student state": it keeps what any two layers have in common.
_DEFAULT_NULL = "permuted-student"
#: The null that every Geometry has, as the column `null_cosine` of its angles.
_CLOSED_FORM = "formula"

_VALUE = "observed_minus_null"
_SHOWN = ShownValue("observed minus null cosine", centre=0.0, least=0.1)


def _data(inputs: FigureInputs, options: FigureOptions) -> pd.DataFrame:
    """Return a row per student, stream, vertex and pair.

    Columns beside the key: `null, observed_cosine, null_cosine, observed_minus_null, low, high, joint_low, joint_high,
    n_tokens`; the 95% intervals, of the row and of all rows together, are NaN where only the closed form exists.
    """
    chosen = choose(inputs.geometries, options, few=True)
    table = _against(inputs.geometry, _choose_null(inputs.geometry, options.null))
    return chosen.rows(table).reset_index(drop=True)


def _choose_null(geometry: Geometry, null: str | None) -> str:
    known = [name for name in NULLS if name in set(geometry.nulls["null"])]
    if null is None:
        return _DEFAULT_NULL if _DEFAULT_NULL in known else _CLOSED_FORM
    able = list(dict.fromkeys([_CLOSED_FORM, *known]))
    if null in able:
        return null
    if null in NULLS:
        raise InputError(
            f"this Geometry has no null {null!r}: it was analysed with fewer --nulls, was measured while a run "
            "trained or comes from an earlier anglekit",
            f"run `anglekit analyze --nulls all`, of a run its last checkpoint, or draw --null {able[-1]}",
        )
    raise InputError(f"no null {null!r}", allowed=suggest(null, able))


def _against(geometry: Geometry, null: str) -> pd.DataFrame:
    if null in set(geometry.nulls["null"]):
        rows = with_joint_intervals(geometry.nulls[geometry.nulls["null"] == null])
        rows = rows.rename(columns={"mean_cosine": "null_cosine"})
    else:
        rows = geometry.angles.assign(
            null=null,
            observed_cosine=geometry.angles["mean_cosine"],
            observed_minus_null=geometry.angles["mean_cosine"] - geometry.angles["null_cosine"],
            low=np.nan,
            high=np.nan,
            joint_low=np.nan,
            joint_high=np.nan,
        )
    ends = ("low", "high", "joint_low", "joint_high")
    return rows[[*PAIR_KEY, "null", "observed_cosine", "null_cosine", _VALUE, *ends, "n_tokens"]]


def _draw(inputs: FigureInputs, options: FigureOptions, look: Theme, width: float) -> Figure:
    data = _data(inputs, options)
    return draw_pair_matrices(
        data.assign(untold=_untold(data)),
        inputs.geometry,
        look,
        width,
        value=_VALUE,
        shown=_SHOWN,
        first_note=_null_words(data),
    )


def _untold(data: pd.DataFrame) -> pd.Series:
    """Return which pairs cannot be told from the null; none where it has no intervals."""
    return (data["joint_low"] <= 0) & (data["joint_high"] >= 0)


def _null_words(data: pd.DataFrame) -> str:
    null = str(data["null"].iloc[0])
    text = f"Null {null}: {NULLS[null]}."
    low, high = data["joint_low"].to_numpy(np.float64), data["joint_high"].to_numpy(np.float64)
    known = np.isfinite(low) & np.isfinite(high)
    if not known.any():
        return f"{text} Without intervals: this null is a mean over the whole probe."
    above, below = int((low > 0).sum()), int((high < 0).sum())
    return (
        f"{text} Of {int(known.sum()):,} pairs {above:,} are above it, {below:,} below, and "
        f"{int(known.sum()) - above - below:,} not told from it (95% for all of them together)."
    )


def _facts(data: pd.DataFrame) -> str:
    return f"{students_words(data)}: observed minus null {range_words(data[_VALUE], '+.2f')}. {_null_words(data)}"


NULL_HEATMAP = FigureSpec(
    title="Angles beyond chance",
    summary="observed minus null cosine, teacher layer by teacher layer, a panel per student layer",
    reading=(
        "The twin of the angle heat map. Red pairs are more acute than the null, blue ones less. Blue against another "
        "example's student state means that the student stands close to the teacher's layers, which widens the angle."
    ),
    options=VERTICES | {"null"},
    data=_data,
    facts=_facts,
    draw=_draw,
)
