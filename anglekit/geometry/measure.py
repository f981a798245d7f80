"""The shell of the analysis: checkpoints and probe data in, what was measured out, in one pass over the probe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from anglekit.batch_plan import share_batches
from anglekit.checkpoints import Checkpoint
from anglekit.geometry.measurement import Measurement
from anglekit.geometry.preparation import WHOLE, Prepared, Shard, described_subject, prepare
from anglekit.geometry.projected import aimed_layer
from anglekit.geometry.recorders import BatchStates, Recorders, progress_batches, sum_device
from anglekit.geometry.samples import ProbeSamples, fresh_samples
from anglekit.geometry.settings import AnalysisSettings
from anglekit.geometry.sketch import sketch_token
from anglekit.geometry.streaming import GeometryAccumulator, accumulate_batch
from anglekit.geometry.subject import Key, Subject
from anglekit.geometry.unfinished import UnfinishedAnalysis, projections_sha256
from anglekit.hidden_states import evaluation_mode
from anglekit.lanes import run_in_lanes
from anglekit.probes import ProbeBatch, ProbeData, TokenizedProbe
from anglekit.processes import ALONE, Processes
from anglekit.projections import ProjectionFit, solve_projection
from anglekit.workspace import keep_freed_memory, only_new_garbage

__all__ = ["measure"]


@only_new_garbage()
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
) -> tuple[Subject, Measurement]:
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
    keep_freed_memory()
    with processes.together():
        prepared = prepare(teacher, students, probe, settings or AnalysisSettings(), shard)
        kept = unfinished.load() if unfinished is not None else None
    with ExitStack() as stack:
        for checkpoint in (teacher, *students):
            stack.enter_context(evaluation_mode(checkpoint.model))
        recorders = Recorders(stack, teacher, students, prepared.layers, prepared.settings.final_norm)
        measured, projections = prepared.measured, prepared.adapters
        if prepared.fitted:
            same = processes.alike(None if kept is None else projections_sha256(kept[0]))
            if unfinished is None or kept is None or not same:
                # All processes must measure through one projection: those that kept another begin anew with the rest.
                kept = None
                projections = _fitted(prepared, recorders, processes, progress)
            else:
                with processes.together():
                    projections = unfinished.projections(kept[0], prepared)
        subject = described_subject(prepared, probe, projections, shard)
        with processes.together():
            if unfinished is not None and kept is not None:
                unfinished.check_same(kept[0], subject)
            chosen = shard or WHOLE
            numbers = share_batches(measured.padded_tokens, chosen.of)[chosen.number - 1]
            numbers = numbers[share_batches(measured.padded_tokens[numbers], processes.count)[processes.rank]]
            start = Measurement.zeros(subject) if kept is None else kept[1]
            if unfinished is not None and kept is None:
                unfinished.save(subject, start)
            measurement = _measure(
                subject, prepared, recorders, measured, numbers.tolist(), start, unfinished, progress
            )
    return subject, measurement


def _fitted(
    prepared: Prepared, recorders: Recorders, processes: Processes, progress: bool
) -> list[Mapping[Key, Tensor] | None]:
    """Solve the projections that are not trained, over one half of the probe.

    Each student layer aims at the teacher layer of its relative depth, or the nearest one that is kept.
    """
    teacher, students, probe = prepared.teacher, prepared.students, prepared.fit_half
    fits = {
        position: {
            (stream, vertex): ProjectionFit.empty(students[position].width, teacher.width)
            for stream, chosen in prepared.layers.items()
            for vertex in chosen.students[position]
        }
        for position in prepared.fitted
    }
    with processes.together():
        numbers = share_batches(probe.padded_tokens, processes.count)[processes.rank].tolist()

        def consume(_batch: ProbeBatch, states: BatchStates) -> None:
            teacher_states, student_states = states
            for position, kind in prepared.fitted.items():
                for stream, chosen in prepared.layers.items():
                    for vertex, state in zip(chosen.students[position], student_states[position][stream], strict=True):
                        aim = aimed_layer(stream, vertex, chosen, teacher, students[position], kind)
                        fits[position][stream, vertex].update(state, teacher_states[stream][chosen.teacher.index(aim)])

        run_in_lanes(
            progress_batches(probe, "fitting the projection", progress, numbers),
            partial(recorders.states, sum_device(teacher)),
            consume,
            recorders.lanes,
        )
    projections = list(prepared.adapters)
    for position, kind in prepared.fitted.items():
        solved = {}
        for key, fit in fits[position].items():
            n_tokens = torch.tensor(fit.n_tokens)
            for tensor in (fit.student, fit.cross, n_tokens):
                processes.add_up(tensor)
            solved[key] = solve_projection(replace(fit, n_tokens=int(n_tokens)), kind).contiguous()
            # Other processors may round otherwise, and all must measure through one matrix.
            processes.share_first(solved[key])
        projections[position] = solved
    return projections


def _measure(
    subject: Subject,
    prepared: Prepared,
    recorders: Recorders,
    probe: TokenizedProbe,
    numbers: Sequence[int],
    start: Measurement,
    unfinished: UnfinishedAnalysis | None,
    progress: bool,
) -> Measurement:
    """Run the batches of these numbers that are not in `start` yet, and feed the sums and the samples."""
    device = sum_device(prepared.teacher)
    start = start.to(device)
    accumulators = {
        key: GeometryAccumulator(
            len(subject.layers[key[0]].teacher),
            len(subject.layers[key[0]].students[key[1]]),
            subject.teacher_width,
            subject.student_widths[key[1]],
            projections=subject.projections[key],
            epsilon=subject.epsilon,
            device=device,
            sums=sums,
        )
        for key, sums in start.sums.items()
    }
    samples = ProbeSamples(subject, prepared.teacher, probe.rows, start)
    sketches, n_examples = dict(start.sketches), start.n_examples
    # Samples of untrained students are taken at the end: what they hold follows from the others.
    fresh = start.fresh

    def so_far(n_batches: int) -> Measurement:
        sums = {key: accumulator.state() for key, accumulator in accumulators.items()}
        return Measurement(n_batches, n_examples, sums, samples.state(), fresh, samples.cross, sketches)

    left = numbers[start.n_batches :]
    done = start.n_batches

    def consume(batch: ProbeBatch, states: BatchStates) -> None:
        nonlocal done, n_examples, sketches
        teacher_states, student_states = states
        samples.update(batch, teacher_states, student_states)
        n_examples += len(batch.examples)
        for stream in subject.layers:
            accumulate_batch(
                [accumulators[stream, position] for position in range(len(subject.names))],
                teacher_states[stream],
                [each[stream] for each in student_states],
                batch.token_example(stream),
                batch.examples,
            )
            for position in range(len(subject.names)) if numbers[done] == 0 else ():
                seen = (teacher_states[stream], student_states[position][stream])
                sketch = sketch_token(subject, stream, position, seen, batch, prepared.teacher)
                sketches |= {(stream, position): sketch} if sketch else {}
        done += 1
        if unfinished is not None and (done % unfinished.every == 0 or done == len(numbers)):
            unfinished.save(subject, so_far(done))

    run_in_lanes(
        progress_batches(probe, "analysing", progress, left),
        partial(recorders.states, device),
        consume,
        recorders.lanes,
    )
    taken = samples.state()
    fresh = fresh_samples(subject, prepared.teacher, prepared.students, probe, numbers, taken)
    return so_far(len(numbers))
