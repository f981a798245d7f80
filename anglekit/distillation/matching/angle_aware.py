"""The strategy "angle-aware": a map that is read from the angles of a Geometry.

The rule. Seen from student layer j, every teacher layer lies in some direction. Layer t costs the mean of the angles
that its direction makes with those of all other teacher layers: the smaller, the more a step towards t is one towards
all of them. Student layers 1 to k get the ascending teacher layers m(1) < ... < m(k), from 1 to n, whose costs have the
least sum; of several such maps the one whose layers are lower, the last one first. The angles are the mean over the
students of the Geometry, which must all have k blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from anglekit.distillation.matching.strategies import needs_geometry
from anglekit.errors import InputError
from anglekit.results.geometry import Geometry
from anglekit.vocabulary import Stream

_REMEDY = "analyse a student of this depth over all layers of this teacher (anglekit analyze)"


def seen_angles(geometry: Geometry | str | Path | None) -> pd.DataFrame:
    """Return the table of angles of a Geometry, or of the directory that holds one.

    Raises:
        InputError: none came, or the directory holds none.
    """
    if geometry is None:
        raise needs_geometry()
    return (geometry if isinstance(geometry, Geometry) else Geometry.load(geometry)).angles


def angle_aware_map(
    angles: pd.DataFrame, stream: Stream, teacher_blocks: int, student_blocks: int, embedding: bool
) -> tuple[tuple[int, int], ...]:
    """Return the pairs (student layer, teacher layer) that the rule chooses for a stream.

    Args:
        angles: a Geometry's table; read are `student, stream, vertex, teacher_i, teacher_k, mean_angle_degrees`.
        stream: which.
        teacher_blocks: the teacher's depth; all its layers from 1 must be in the table.
        student_blocks: the student's depth; all its layers from 1 must be in the table.
        embedding: whether the embeddings are matched too.

    Raises:
        InputError: the Geometry is of another teacher or student depth, or lacks a layer.
    """
    rows = angles[angles["stream"] == stream]
    if rows.empty:
        raise InputError(f"the Geometry has no angles of the {stream}", _REMEDY)
    deepest = int(rows["teacher_k"].max()), int(rows["vertex"].max())
    for role, found, wanted in (("teacher", deepest[0], teacher_blocks), ("student", deepest[1], student_blocks)):
        if found != wanted:
            raise InputError(
                f"the Geometry's last {stream} layer of the {role} is {found} and here it is {wanted}", _REMEDY
            )
    costs = np.stack([_costs(rows, stream, vertex, teacher_blocks) for vertex in range(1, student_blocks + 1)])
    chosen = tuple((place + 1, layer + 1) for place, layer in enumerate(ascending_of_least_cost(costs)))
    return (((0, 0),) if embedding else ()) + chosen


def _costs(rows: pd.DataFrame, stream: Stream, vertex: int, teacher_blocks: int) -> NDArray[np.float64]:
    """Return for each teacher layer from 1 the mean angle, in degrees, of its direction to those of all others."""
    own = rows[(rows["vertex"] == vertex) & (rows["teacher_i"] > 0)]
    mean = own.groupby(["teacher_i", "teacher_k"], as_index=False)["mean_angle_degrees"].mean()
    table = np.full((teacher_blocks, teacher_blocks), np.nan)
    i, k = (mean[name].to_numpy() - 1 for name in ("teacher_i", "teacher_k"))
    table[i, k] = table[k, i] = mean["mean_angle_degrees"]
    np.fill_diagonal(table, 0.0)
    if np.isnan(table).any():
        raise InputError(f"the Geometry lacks angles between teacher layers at {stream} layer {vertex}", _REMEDY)
    found: NDArray[np.float64] = table.sum(1) / max(teacher_blocks - 1, 1)
    return found


def ascending_of_least_cost(costs: NDArray[np.float64]) -> Sequence[int]:
    """Return the strictly ascending columns, one for each row, whose costs have the least sum.

    Dynamic programming over (row, column). Of equal sums the lower columns are taken, the last row's first.

    Args:
        costs: (rows, columns), at least as many columns as rows.
    """
    rows, columns = costs.shape
    best = np.full((rows, columns), np.inf)
    best[0] = costs[0]
    for row in range(1, rows):
        best[row, 1:] = costs[row, 1:] + np.minimum.accumulate(best[row - 1])[:-1]
    chosen = [int(np.argmin(best[-1]))]
    for row in range(rows - 2, -1, -1):
        chosen.append(int(np.argmin(best[row, : chosen[-1]])))
    return chosen[::-1]
