"""The whole analysis in one call: checkpoints and probe data in, a Geometry out, in one pass over the probe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial

from torch import Tensor

from anglekit.analysis.fitted_projections import (
    fit_projections,
    projections_sha256,
    same_projections,
    trained_projections,
)
from anglekit.analysis.measurement import Measurement
from anglekit.analysis.preparation import WHOLE, PreparedAnalysis, Shard, prepare
from anglekit.analysis.recorders import BatchStates, Recorders, progress_batches, sum_device
from anglekit.analysis.running_measurement import RunningMeasurement, fresh_samples
from anglekit.analysis.settings import AnalysisSettings
from anglekit.analysis.spec import AnalysisSpec, Key
from anglekit.analysis.tables import tabulate
from anglekit.analysis.unfinished import UnfinishedAnalysis
from anglekit.models.check import evaluation_mode
from anglekit.models.checkpoints import Checkpoint
from anglekit.probes.batch_plan import share_batches
from anglekit.probes.batches import ProbeBatch
from anglekit.probes.data import ProbeData
from anglekit.results.geometry import Geometry
from anglekit.runtime.lanes import run_in_lanes
from anglekit.runtime.processes import ALONE, Processes


def analyze(
    teacher: Checkpoint,
    students: Sequence[Checkpoint],
    probe: ProbeData,
    settings: AnalysisSettings | None = None,
    *,
    progress: bool = False,
) -> Geometry:
    """Look at a teacher's layers from inside its students.

    The teacher's forward pass is shared by all students. Everything is checked before the first batch runs; the models
    are left as they were found. The work is this process's alone; `measure` shares it among processes and jobs.

    Args:
        teacher: the teacher.
        students: one or more students with the teacher's tokenizer and streams.
        probe: the texts.
        settings: how; the corrected reading by default.
        progress: show a progress bar on the terminal.

    Raises:
        InputError: the checkpoints do not fit each other or the probe.
        RunError: no finite state was left.
    """
    return tabulate(*measure(teacher, students, probe, settings, progress=progress))


def measure(
    teacher: Checkpoint,
    students: Sequence[Checkpoint],
    probe: ProbeData,
    settings: AnalysisSettings | None = None,
    *,
    shard: Shard | None = None,
    processes: Processes = ALONE,
    unfinished: UnfinishedAnalysis | None = None,
    progress: bool = False,
) -> tuple[AnalysisSpec, Measurement]:
    """Measure a teacher's layers from inside its students, in all batches or in this process's share of them.

    The teacher's forward pass is shared by all students. Everything is checked before the first batch runs; the models
    are left as they were found. Batches are composed as in the whole, whatever is taken of them.

    Args:
        teacher: the teacher.
        students: one or more students with the teacher's tokenizer and streams.
        probe: the texts.
        settings: how; the corrected reading by default.
        shard: the part that this job takes, whose sums another program adds up; None: all.
        processes: those that share the batches of this job; each calls this function alike.
        unfinished: where what was measured is kept from time to time, held by the caller, and where to go on from.
        progress: show a progress bar on the terminal.

    Returns:
        What was looked at, and what this process measured of it.

    Raises:
        InputError: the checkpoints do not fit each other or the probe, or a projection would be fitted on a shard.
        RunError: another process failed.
    """
    with processes.together():
        prepared = prepare(teacher, students, probe, settings or AnalysisSettings(), shard)
        kept = None if unfinished is None else unfinished.load(prepared.spec)
    with ExitStack() as stack:
        for checkpoint in (teacher, *students):
            stack.enter_context(evaluation_mode(checkpoint.model))
        spec = prepared.spec
        recorders = Recorders(stack, teacher, students, spec.layers, spec.settings.final_norm)
        projections = trained_projections(prepared)
        if prepared.fitted:
            # All processes must measure through one projection: those that kept another begin anew with the rest.
            same = processes.alike(None if kept is None else projections_sha256(kept.projections))
            if kept is not None and same:
                projections |= {key: kept.projections[key] for key in spec.keys if key[1] in prepared.fitted}
            else:
                kept = None
                projections |= fit_projections(prepared, recorders, processes, progress=progress)
        with processes.together():
            if unfinished is not None and kept is not None and not same_projections(kept.projections, projections):
                raise unfinished.other_analysis("other layers, widths or adapters")
            measurement = _measured(
                prepared, projections, recorders, shard or WHOLE, processes, kept, unfinished, progress=progress
            )
    return spec, measurement


def _measured(
    prepared: PreparedAnalysis,
    projections: Mapping[Key, tuple[Tensor, ...]],
    recorders: Recorders,
    shard: Shard,
    processes: Processes,
    kept: Measurement | None,
    unfinished: UnfinishedAnalysis | None,
    *,
    progress: bool,
) -> Measurement:
    """Run this process's share of the batches, but for those that were measured before."""
    spec, probe, device = prepared.spec, prepared.measured, sum_device(prepared.teacher)
    numbers = share_batches(probe.padded_tokens, shard.of)[shard.number - 1]
    numbers = numbers[share_batches(probe.padded_tokens[numbers], processes.count)[processes.rank]].tolist()
    start = Measurement.zeros(spec, projections) if kept is None else kept
    if unfinished is not None and kept is None:
        unfinished.save(spec, start)
    running = RunningMeasurement(prepared, start.to(device))

    def consume(batch: ProbeBatch, states: BatchStates) -> None:
        running.add(batch, states, sketched=numbers[running.n_batches] == 0)
        done = running.n_batches
        if unfinished is not None and (done % unfinished.every == 0 or done == len(numbers)):
            unfinished.save(spec, running.state())

    run_in_lanes(
        progress_batches(probe, "analysing", progress, numbers[start.n_batches :]),
        partial(recorders.states, device),
        consume,
        recorders.lanes,
    )
    # What untrained students say follows from the samples: they read those examples alone, at the end.
    fresh = fresh_samples(prepared, numbers, running.samples())
    return running.state(fresh)
