"""The angle while its vertex moves from the centroid of the teacher's layers to the student, and beyond."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from anglekit.plots.inputs import FigureInputs
from anglekit.plots.panels.chosen import choose, choose_value, require
from anglekit.plots.panels.depth_lines import draw_depth_lines
from anglekit.plots.panels.line_panels import Entry
from anglekit.plots.panels.sentences import LAYER_NOTE, students_words
from anglekit.plots.panels.tables import pair_means, symmetric_matrix, with_arms
from anglekit.plots.spec import VERTICES, FigureOptions, FigureSpec
from anglekit.plots.style import CHANCE_DASHES, GUIDE_DASHES, Theme
from anglekit.results.geometry import Geometry

#: What can be drawn: the axis label, and the value of unrelated or right-angled vectors.
_VALUES: Mapping[str, tuple[str, float]] = MappingProxyType(
    {
        "mean_angle_degrees": ("mean angle (degrees)", 90.0),
        "mean_cosine": ("mean cosine", 0.0),
        "mean_tangential_angle_degrees": ("tangential angle (degrees)", 90.0),
        "mean_tangential_cosine": ("tangential cosine", 0.0),
    }
)


def _check(inputs: FigureInputs) -> None:
    require(inputs.geometry.vertex_sweep, "t", "vertex sweep", "--nulls default")


def _data(inputs: FigureInputs, options: FigureOptions) -> pd.DataFrame:
    """Return a row per student, stream, vertex and place t: the value's mean over pairs, `n_pairs` and `chance`.

    `chance` is the value if the student's state lay as far from the centroid in a direction that has nothing to do with
    the teacher's layers (`_chance_cosines`); NaN where the distances between layers are not known.
    """
    value = choose_value(options.value, _VALUES)
    chosen = choose(inputs.geometries, options)
    table = chosen.rows(inputs.geometry.vertex_sweep)
    key = ["student", "stream", "vertex", "t"]
    means = pair_means(table, key, value)
    means["n_pairs"] = table.groupby(key, sort=False).size().to_numpy()
    means["chance"] = np.nan
    for (student, stream, vertex), rows in means.groupby(["student", "stream", "vertex"], sort=False):
        cosines = _chance_cosines(inputs.geometry, str(student), str(stream), int(str(vertex)), rows["t"].to_numpy())
        if cosines is None:
            continue
        if "tangential" in value:
            cosines = np.zeros_like(cosines)
        shown = np.degrees(np.arccos(np.clip(cosines, -1.0, 1.0))) if value.endswith("degrees") else cosines
        means.loc[rows.index, "chance"] = shown.mean(axis=1)
    return with_arms(means, inputs.geometry)


def _chance_cosines(
    geometry: Geometry, student: str, stream: str, vertex: int, places: np.ndarray
) -> np.ndarray | None:
    """Return the cosine of each pair of teacher layers, (places, pairs), at an unrelated vertex.

    With T' = T - C and a vertex at C + t D, where D is as long as S - C and at right angles to all T', the cosine is
    (T'_i T'_k + t^2 |D|^2) / sqrt((|T'_i|^2 + t^2 |D|^2) (|T'_k|^2 + t^2 |D|^2)). Products and lengths follow from the
    mean distances between layers, whose squares stand for mean squares.
    """
    rows = geometry.layers[(geometry.layers["student"] == student) & (geometry.layers["stream"] == stream)]
    rows = rows[rows["side_a"] == "teacher"]
    teacher = symmetric_matrix(rows[rows["side_b"] == "teacher"], "mean_distance", "layer_a", "layer_b")
    across = rows[(rows["side_b"] == "student") & (rows["layer_b"] == vertex)].set_index("layer_a")["mean_distance"]
    squared = np.square(teacher.to_numpy(np.float64))
    np.fill_diagonal(squared, 0.0)
    own = np.square(across.reindex(teacher.index).to_numpy(np.float64))
    if len(squared) < 2 or not (np.isfinite(squared).all() and np.isfinite(own).all()):
        return None
    n = len(squared)
    centring = np.eye(n) - 1 / n
    products = -0.5 * centring @ squared @ centring
    apart = max(float(own.mean() - squared.mean() / 2), 0.0)
    i, k = np.triu_indices(n, 1)
    lengths, moved = np.clip(np.diag(products), 0.0, None), np.square(places)[:, None] * apart
    below = np.sqrt((lengths[i] + moved) * (lengths[k] + moved))
    found: np.ndarray = np.divide(products[i, k] + moved, below, out=np.zeros_like(below), where=below > 0)
    return found


def _draw(inputs: FigureInputs, options: FigureOptions, look: Theme, width: float) -> Figure:
    value = choose_value(options.value, _VALUES)
    label, middle = _VALUES[value]
    data = _data(inputs, options)
    known = bool(data["chance"].notna().any())

    def behind(ax: Axes) -> None:
        ax.axhline(middle, color=look.faint, linewidth=0.8, linestyle=GUIDE_DASHES, zorder=1)
        ax.axvline(1.0, color=look.faint, linewidth=0.8, zorder=1)
        ax.set_xticks([0.0, 0.5, 1.0, 1.5, 2.0], ["0", "0.5", "1", "1.5", "2"])

    return draw_depth_lines(
        data,
        look,
        width,
        value=value,
        x="t",
        xlabel="place t of the vertex",
        ylabel=label,
        legend=[
            Entry.line("right angle", look.faint, linewidth=0.8, linestyle=GUIDE_DASHES),
            Entry.line("the student (t = 1)", look.faint, linewidth=0.8),
            *([Entry.line("chance", look.ink, linewidth=0.8, linestyle=CHANCE_DASHES)] if known else []),
        ],
        note=(
            "The vertex at C + t (S − C): t = 0 is the centroid C of the token's teacher states, 1 the student's "  # noqa: RUF001
            "state S. Mean over pairs of teacher layers, of a sample of tokens. "
            + ("Chance: a state as far from C in an unrelated direction. " if known else "")
            + LAYER_NOTE
        ),
        behind=behind,
        height=1.3,
        dashed="chance" if known else None,
    )


def _facts(data: pd.DataFrame) -> str:
    value = next(column for column in data.columns if column in _VALUES)
    means = data.groupby("t")[value].mean()
    first, last = (f"{means.iloc[end]:{'.0f' if value.endswith('degrees') else '.2f'}}" for end in (0, -1))
    return (
        f"{students_words(data)}: {_VALUES[value][0]} {first} at t = {means.index[0]:g} and {last} at "
        f"t = {means.index[-1]:g}, mean over students and layers."
    )


VERTEX_SWEEP = FigureSpec(
    title="The angle as its vertex moves",
    summary="the angle from the teachers' centroid to the student's state and beyond, a line per student layer",
    reading=(
        "From amid the teacher's layers their directions part at obtuse angles; from far away any angle closes. Where "
        "the lines fall with t, acute says that the student is far off."
    ),
    options=VERTICES | {"value"},
    data=_data,
    facts=_facts,
    draw=_draw,
    check=_check,
)
