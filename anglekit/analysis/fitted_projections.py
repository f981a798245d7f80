"""Projections inside an analysis: fitted where none was trained, and how much of the teacher they explain."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from anglekit.analysis.preparation import PreparedAnalysis
from anglekit.analysis.recorders import BatchStates, Recorders, progress_batches, sum_device
from anglekit.analysis.spec import AnalysisSpec, Key
from anglekit.geometry.sums import GeometrySums
from anglekit.models.projections import ProjectionFit, solve_projection
from anglekit.probes.batch_plan import share_batches
from anglekit.probes.batches import ProbeBatch
from anglekit.results.document import Projection
from anglekit.runtime.lanes import run_in_lanes
from anglekit.runtime.processes import Processes
from anglekit.vocabulary import ProjectionKind

Projections = Mapping[Key, tuple[Tensor, ...]]
"""For every projected stream and student the vertices' projections, float64 (teacher width, student width)."""


def trained_projections(prepared: PreparedAnalysis) -> dict[Key, tuple[Tensor, ...]]:
    """Return the projections of the students that have trained adapters."""
    return {
        (stream, position): tuple(trained[stream, vertex].double().cpu() for vertex in chosen.students[position])
        for position, trained in enumerate(prepared.adapters)
        if trained is not None
        for stream, chosen in prepared.spec.layers.items()
    }


def fit_projections(
    prepared: PreparedAnalysis, recorders: Recorders, processes: Processes, *, progress: bool
) -> dict[Key, tuple[Tensor, ...]]:
    """Return the projections that are not trained, solved over one half of the probe, the same in every process.

    Each student layer aims at the teacher layer of its relative depth, or the nearest one that is kept.
    """
    teacher, students, spec, probe = prepared.teacher, prepared.students, prepared.spec, prepared.fit_half
    if probe is None:
        return {}
    # For each vertex its fit and the place of the teacher layer at which it aims.
    fits: dict[Key, list[tuple[ProjectionFit, int]]] = {
        (each.stream, each.student): [
            (
                ProjectionFit.empty(students[each.student].width, teacher.width),
                spec.layers[each.stream].teacher.index(aim),
            )
            for aim in each.teacher_layers
        ]
        for each in spec.aims
        if each.student in prepared.fitted
    }
    with processes.together():
        numbers = share_batches(probe.padded_tokens, processes.count)[processes.rank].tolist()

        def consume(_batch: ProbeBatch, states: BatchStates) -> None:
            teacher_states, student_states = states
            for (stream, position), vertices in fits.items():
                for (fit, place), state in zip(vertices, student_states[position][stream], strict=True):
                    fit.update(state, teacher_states[stream][place])

        run_in_lanes(
            progress_batches(probe, "fitting the projection", progress, numbers),
            partial(recorders.states, sum_device(teacher, students)),
            consume,
            recorders.lanes,
        )
    return {
        key: tuple(_solved(fit, prepared.fitted[key[1]], processes) for fit, _ in vertices)
        for key, vertices in fits.items()
    }


def _solved(fit: ProjectionFit, kind: ProjectionKind, processes: Processes) -> Tensor:
    """Return the projection that the batches of all processes give."""
    n_tokens = torch.tensor(fit.n_tokens)
    for tensor in (fit.student, fit.cross, n_tokens):
        processes.add_up(tensor)
    solved = solve_projection(replace(fit, n_tokens=int(n_tokens)), kind).contiguous()
    # Other processors may round otherwise, and all must measure through one matrix.
    processes.share_first(solved)
    return solved.double().cpu()


def projections_sha256(projections: Projections) -> str:
    """Return a hash of projections."""
    found = hashlib.sha256()
    for key, matrices in sorted(projections.items()):
        for matrix in matrices:
            found.update(f"{key} {tuple(matrix.shape)};".encode() + matrix.contiguous().numpy().tobytes())
    return found.hexdigest()


def same_projections(one: Projections, other: Projections) -> bool:
    """Return whether two analyses are measured through equal matrices."""
    return projections_sha256(one) == projections_sha256(other)


def explained_variance(spec: AnalysisSpec, states: Mapping[Key, GeometrySums]) -> list[Projection]:
    """Return R^2 of each projected vertex on the measured examples: 1 - sum |T - W S|^2 / sum |T - mean T|^2.

    T is the teacher layer that the projection was fitted or, for an adapter, trained towards.
    """
    rows = []
    for aims in spec.aims:
        key = (aims.stream, aims.student)
        chosen, sums = spec.layers[aims.stream], states[key]
        for row, (vertex, aim) in enumerate(zip(spec.vertices(key), aims.teacher_layers, strict=True)):
            column = chosen.teacher.index(aim)
            target = sums.teacher.squared[column]
            residual = target + sums.vertex.squared[row] - 2 * sums.teacher_student.product[column, row]
            centre = sums.teacher.state[column]
            total = target - centre @ centre / sums.n_complete
            kind, r_squared = str(spec.kinds[aims.student]), float(1 - residual / total)
            rows.append(Projection(spec.names[aims.student], aims.stream, vertex, kind, aim, r_squared))
    return rows
