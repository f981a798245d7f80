"""What can be looked into: the cells of a Geometry, a pair of teacher layers at a student's layer each, and its layers.

The numbers are the tables' own. Of a large Geometry some layers are left out, evenly over the depth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from anglekit.results.columns import KEYS
from anglekit.results.document import ModelRecord
from anglekit.results.joint_intervals import closed_form_sides, cluster_counts, with_joint_intervals
from anglekit.results.student_t import t_quantile
from anglekit.vocabulary import N_BINS

#: Bins of a cell's histogram, of equal width in the cosine.
HISTOGRAM_BINS: Final = 40
#: The most of each that are kept: more would be neither read nor sent by mail.
MOST_STUDENTS, MOST_CELLS, MOST_TEACHER_LAYERS = 24, 6000, 14
PAIR_KEY: Final = KEYS["angles"]
PLACE_KEY: Final = PAIR_KEY[:3]
_PERMUTED: Final = "permuted-student"
_LEVEL: Final = 0.95


@dataclass(frozen=True, eq=False)
class ExploredCells:
    """The cells of one Geometry.

    Attributes:
        students: those that are shown, in the order of the analysis.
        layers: a row for each `student, stream, vertex`: `angle` in degrees (each pair and token weighing the same),
            its 95% interval `low, high` clustered by example (NaN where examples keep no angle), `chance` in degrees
            (that of the mean chance cosine), the number of `pairs`, and how many are surely `narrower` and `wider`
            than by chance; `tokens, examples`.
        cells: a row for each pair at each of these layers: `angle, cosine, low, high` (of the cosine), `chance` (a
            cosine), `beyond` (observed minus chance), `joint_low, joint_high` (of that, for all pairs together; NaN
            for the closed form), `side` (1 surely narrower than by chance, -1 surely wider, 0 not told from it),
            `acute` (a share), `tokens, examples`. The row's number is the cell's.
        histograms: counts of each cell's cosine, int64 (cells, 40).
        null: what `chance` is: `permuted-student`, else `formula`.
        extremes: for a cell's number its tokens with the smallest and the largest angle: `which, angle, example,
            before, token, after`; empty where the Geometry does not keep them.
        left_out: what is not shown, a sentence each.
    """

    students: tuple[ModelRecord, ...]
    layers: pd.DataFrame
    cells: pd.DataFrame
    histograms: NDArray[np.int64]
    null: str
    extremes: Mapping[int, Sequence[Mapping[str, Any]]]
    left_out: tuple[str, ...]


def explored_cells(
    angles: pd.DataFrame,
    nulls: pd.DataFrame,
    histograms: pd.DataFrame,
    examples: pd.DataFrame,
    extremes: pd.DataFrame,
    students: Sequence[ModelRecord],
    *,
    most_cells: int = MOST_CELLS,
) -> ExploredCells:
    """Return the cells of these tables of a Geometry, thinned out where there are more than `most_cells`."""
    left_out = []
    shown = tuple(students[:MOST_STUDENTS])
    if len(shown) < len(students):
        left_out.append(f"the first {len(shown)} of {len(students)} students are shown")
    angles = angles[angles["student"].isin([one.name for one in shown])]
    layers = _layers(angles, nulls, examples)
    kept = _thinned(angles, most_cells)
    for what, column in (("teacher", "teacher_k"), ("student", "vertex")):
        number, of = kept[column].nunique(), angles[column].nunique()
        if number < of:
            added = 1 if what == "teacher" else 0
            left_out.append(
                f"cells are shown for {number + added} of {of + added} {what} layers, evenly over the depth"
            )
    cells, null = _cells(kept, nulls, angles)
    return ExploredCells(
        shown, layers, cells, _binned(histograms, cells), null, _extremes(extremes, cells), tuple(left_out)
    )


def _thinned(angles: pd.DataFrame, most_cells: int) -> pd.DataFrame:
    """Return the rows of some layers: at most 14 of each stream's teacher, and as many student layers as fit."""
    parts, streams = [], angles["stream"].nunique()
    for _, own in angles.groupby("stream", sort=False):
        teacher = sorted({*own["teacher_i"], *own["teacher_k"]})
        chosen = _spread(teacher, MOST_TEACHER_LAYERS)
        own = own[own["teacher_i"].isin(chosen) & own["teacher_k"].isin(chosen)]
        vertices = sorted(set(own["vertex"]))
        per_vertex = max(1, len(own) // max(1, len(vertices)))
        fitting = max(1, most_cells // streams // per_vertex)
        parts.append(own[own["vertex"].isin(_spread(vertices, fitting))])
    return pd.concat(parts).sort_index() if parts else angles


def _spread(values: Sequence[int], most: int) -> list[int]:
    """Return at most so many of some values, evenly over them, the last among them."""
    if len(values) <= most:
        return list(values)
    places = np.linspace(0, len(values) - 1, most) if most > 1 else np.array([len(values) - 1])
    return [values[place] for place in np.unique(places.round().astype(int))]


def _cells(kept: pd.DataFrame, nulls: pd.DataFrame, angles: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Return the columns of `ExploredCells.cells`, and the null that they are beside."""
    reach = t_quantile(np.full(len(kept), (1 + _LEVEL) / 2), cluster_counts(kept) - 1) * kept["se_cosine"].to_numpy()
    cosine = kept["mean_cosine"].to_numpy(np.float64)
    above, below = closed_form_sides(angles)
    closed = pd.Series(above.astype(int) - below.astype(int), index=angles.index).loc[kept.index].to_numpy()
    permuted = with_joint_intervals(nulls[(nulls["null"] == _PERMUTED) & (nulls["n_tokens"] > 0)])
    cells = pd.DataFrame(
        {
            **{name: kept[name] for name in PAIR_KEY},
            "angle": kept["mean_angle_degrees"],
            "cosine": cosine,
            "low": cosine - reach,
            "high": cosine + reach,
            "chance": kept["null_cosine"],
            "beyond": cosine - kept["null_cosine"],
            "joint_low": np.nan,
            "joint_high": np.nan,
            "side": closed,
            "acute": kept["acute_fraction"],
            "tokens": kept["n_tokens"],
            "examples": kept["n_examples"],
        }
    ).reset_index(drop=True)
    if permuted.empty:
        return cells, "formula"
    found = cells[list(PAIR_KEY)].merge(permuted, on=list(PAIR_KEY), how="left")
    side = (found["joint_low"] > 0).astype(int) - (found["joint_high"] < 0).astype(int)
    cells = cells.assign(
        chance=found["mean_cosine"],
        beyond=found["observed_minus_null"],
        joint_low=found["joint_low"],
        joint_high=found["joint_high"],
        side=side,
    )
    return cells, _PERMUTED


def _layers(angles: pd.DataFrame, nulls: pd.DataFrame, examples: pd.DataFrame) -> pd.DataFrame:
    cells, _ = _cells(angles, nulls, angles)
    intervals = _angle_intervals(examples)
    rows = []
    for key, own in cells[cells["tokens"] > 0].groupby(list(PLACE_KEY), sort=False):
        angle, chance = float(own["angle"].mean()), float(own["chance"].mean())
        student, stream, vertex = key if isinstance(key, tuple) else (key, "", 0)
        reach = intervals.get((str(student), str(stream), int(str(vertex))), float("nan"))
        rows.append(
            {
                **dict(zip(PLACE_KEY, key, strict=True)),
                "angle": angle,
                "low": angle - reach,
                "high": angle + reach,
                "chance": float(np.degrees(np.arccos(np.clip(chance, -1, 1)))),
                "pairs": len(own),
                "narrower": int((own["side"] > 0).sum()),
                "wider": int((own["side"] < 0).sum()),
                "tokens": int(own["tokens"].max()),
                "examples": int(own["examples"].max()),
            }
        )
    columns = ("angle", "low", "high", "chance", "pairs", "narrower", "wider", "tokens", "examples")
    return pd.DataFrame(rows, columns=[*PLACE_KEY, *columns])


def _angle_intervals(examples: pd.DataFrame) -> Mapping[tuple[str, str, int], float]:
    """Return half the 95% interval of the angle at each layer, in degrees: of a mean over tokens, clustered by text."""
    known = examples[(examples["n_tokens"] > 0) & examples["mean_angle_degrees"].notna()]
    if known.empty:
        return {}
    key = list(PLACE_KEY)
    cluster = known["cluster"].fillna(known["example"])
    weighted = known.assign(cluster=cluster, total=known["mean_angle_degrees"] * known["n_tokens"])
    sums = weighted.groupby([*key, "cluster"], sort=False)[["total", "n_tokens"]].sum()
    whole = sums.groupby(level=key, sort=False).transform("sum")
    residual = sums["total"] - sums["n_tokens"] * whole["total"] / whole["n_tokens"]
    squares = (residual**2).groupby(level=key, sort=False).sum()
    clusters = residual.groupby(level=key, sort=False).size()
    tokens = whole["n_tokens"].groupby(level=key, sort=False).first()
    many = clusters > 1
    squares, clusters, tokens = squares[many], clusters[many], tokens[many]
    error = np.sqrt(squares * clusters / (clusters - 1)) / tokens
    level = np.full(len(error), (1 + _LEVEL) / 2)
    reach = error.to_numpy() * t_quantile(level, clusters.to_numpy(np.float64) - 1)
    return dict(zip(error.index, map(float, reach), strict=True))


def _extremes(extremes: pd.DataFrame, cells: pd.DataFrame) -> dict[int, list[dict[str, Any]]]:
    numbers = cells[list(PAIR_KEY)].assign(cell=np.arange(len(cells)))
    found: dict[int, list[dict[str, Any]]] = {}
    for row in extremes.merge(numbers, on=list(PAIR_KEY), how="inner").to_dict(orient="records"):
        shown = {name: row[name] for name in ("example", "before", "token", "after")}
        end = {"which": row["extreme"], "angle": round(float(row["angle_degrees"]), 1), **shown}
        found.setdefault(int(row["cell"]), []).append(end)
    return found


def _binned(histograms: pd.DataFrame, cells: pd.DataFrame) -> NDArray[np.int64]:
    """Return counts of 40 bins for each cell."""
    numbers = cells[list(PAIR_KEY)].assign(cell=np.arange(len(cells)))
    found = histograms.merge(numbers, on=list(PAIR_KEY), how="inner")
    counts = np.zeros((len(cells), HISTOGRAM_BINS), dtype=np.int64)
    bins = found["bin"].to_numpy() // (N_BINS // HISTOGRAM_BINS)
    np.add.at(counts, (found["cell"].to_numpy(), bins), found["count"].to_numpy())
    return counts
