"""Fitted projections inside an analysis: what a vertex aims at, and how much of it the projection explains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from anglekit.analysis.checks import StreamLayers
from anglekit.analysis.spec import Key, Subject
from anglekit.geometry.sums import GeometrySums
from anglekit.models.checkpoints import Checkpoint
from anglekit.models.projections import relative_depth_layer
from anglekit.vocabulary import ProjectionKind, Stream

__all__ = ["aimed_layer", "explained_variance"]


def aimed_layer(
    stream: Stream, vertex: int, layers: StreamLayers, teacher: Checkpoint, student: Checkpoint, kind: ProjectionKind
) -> int:
    """Return the kept teacher layer that is nearest to what a vertex's projection aims at.

    That is the layer that an adapter was trained towards, where the student says so, and else the one of the vertex's
    relative depth.
    """
    taught_by = student.matched_layer(stream, vertex) if kind == "adapter" else None
    if taught_by is None:
        taught_by = relative_depth_layer(vertex, student.depth(stream), teacher.depth(stream))
    return min(layers.teacher, key=lambda layer: (abs(layer - taught_by), layer))


def explained_variance(subject: Subject, states: Mapping[Key, GeometrySums]) -> list[dict[str, Any]]:
    """Return R^2 of each projected vertex on the measured examples: 1 - sum |T - W S|^2 / sum |T - mean T|^2.

    T is the teacher layer that the projection was fitted or, for an adapter, trained towards.
    """
    rows = []
    for stream, position in subject.keys:
        if (stream, position) not in subject.aims:
            continue
        chosen, sums = subject.layers[stream], states[stream, position]
        vertices = chosen.students[position]
        for row, (vertex, aim) in enumerate(zip(vertices, subject.aims[stream, position], strict=True)):
            column = chosen.teacher.index(aim)
            target = sums.teacher.squared[column]
            residual = target + sums.vertex.squared[row] - 2 * sums.teacher_student.product[column, row]
            centre = sums.teacher.state[column]
            total = target - centre @ centre / sums.n_complete
            rows.append(
                {
                    "student": subject.names[position],
                    "stream": stream,
                    "vertex": vertex,
                    "kind": subject.kinds[position],
                    "teacher_layer": aim,
                    "r_squared": float(1 - residual / total),
                }
            )
    return rows
