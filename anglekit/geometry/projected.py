"""Fitted projections inside an analysis: what a vertex aims at, and how much of it the projection explains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from anglekit.architectures import Stream
from anglekit.checkpoints import Checkpoint
from anglekit.geometry.accumulators import GeometrySums
from anglekit.geometry.preflight import StreamLayers
from anglekit.projections import ProjectionKind, relative_depth_layer

__all__ = ["aimed_layer", "explained_variance", "vertex_matrices"]


def vertex_matrices(
    projections: Mapping[tuple[Stream, int], Tensor] | None, stream: Stream, vertices: Sequence[int]
) -> list[Tensor] | None:
    """Return the projection of each vertex in order, or None where the widths agree."""
    return None if projections is None else [projections[stream, vertex] for vertex in vertices]


def aimed_layer(stream: Stream, vertex: int, layers: StreamLayers, teacher: Checkpoint, student: Checkpoint) -> int:
    """Return the kept teacher layer that is nearest to a vertex's relative depth."""
    return _nearest(layers, relative_depth_layer(vertex, student.depth(stream), teacher.depth(stream)))


def _nearest(layers: StreamLayers, wanted: int) -> int:
    return min(layers.teacher, key=lambda layer: (abs(layer - wanted), layer))


def _taught_by(stream: Stream, vertex: int, layers: StreamLayers, student: Checkpoint) -> int | None:
    """Return the teacher layer that an adapter was trained towards, or the nearest kept, where the student says so."""
    layer = student.matched_layer(stream, vertex)
    return None if layer is None else _nearest(layers, layer)


def explained_variance(
    states: Mapping[tuple[Stream, int], GeometrySums],
    layers: Mapping[Stream, StreamLayers],
    names: Sequence[str],
    position: int,
    kind: ProjectionKind,
    teacher: Checkpoint,
    student: Checkpoint,
) -> list[dict[str, Any]]:
    """Return R^2 of each projected vertex on the measured examples: 1 - sum |T - W S|^2 / sum |T - mean T|^2.

    T is the teacher layer that the projection was fitted or, for an adapter, trained towards.
    """
    rows = []
    for stream, chosen in layers.items():
        sums = states[stream, position]
        for row, vertex in enumerate(chosen.students[position]):
            aim = _taught_by(stream, vertex, chosen, student) if kind == "adapter" else None
            if aim is None:
                aim = aimed_layer(stream, vertex, chosen, teacher, student)
            column = chosen.teacher.index(aim)
            target = sums.teacher.squared[column]
            residual = target + sums.vertex.squared[row] - 2 * sums.teacher_student.product[column, row]
            centre = sums.teacher.state[column]
            total = target - centre @ centre / sums.n_complete
            rows.append(
                {
                    "student": names[position],
                    "stream": stream,
                    "vertex": vertex,
                    "kind": kind,
                    "teacher_layer": aim,
                    "r_squared": float(1 - residual / total),
                }
            )
    return rows
