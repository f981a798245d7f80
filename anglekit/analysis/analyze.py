"""The whole analysis in one call: checkpoints and probe data in, a Geometry out, in one pass over the probe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from anglekit.analysis.checks import StreamLayers
from anglekit.analysis.fitted_projections import aimed_layer
from anglekit.analysis.measurement import Measurement
from anglekit.analysis.preparation import WHOLE, Prepared, Shard, described_subject, prepare
from anglekit.analysis.sampling import ProbeSamples, fresh_samples
from anglekit.analysis.settings import AnalysisSettings
from anglekit.analysis.sketch_token import sketch_token
from anglekit.analysis.spec import Key, Subject
from anglekit.analysis.tabulate import tabulate
from anglekit.analysis.unfinished import UnfinishedAnalysis, projections_sha256
from anglekit.geometry.accumulator import GeometryAccumulator, accumulate_batch
from anglekit.models.checkpoints import Checkpoint
from anglekit.models.projections import ProjectionFit, solve_projection
from anglekit.probes.batches import ProbeBatch, TokenizedProbe
from anglekit.probes.batching import share_batches
from anglekit.probes.data import ProbeData
from anglekit.results.geometry import Geometry
from anglekit.runtime.lanes import lane_count, run_in_lanes, slot_count
from anglekit.runtime.placement import compute_device
from anglekit.runtime.processes import ALONE, Processes
from anglekit.runtime.workspace import Workspace, keep_freed_memory, only_new_garbage
from anglekit.states.recorder import LayerRecorder, evaluation_mode, token_states
from anglekit.vocabulary import FinalNorm, Stream

__all__ = ["BatchStates", "Recorders", "analyze", "measure", "progress_batches", "sum_device"]


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


#: The teacher's and every student's states of a batch, by stream.
BatchStates = tuple[dict[Stream, Tensor], list[dict[Stream, Tensor]]]


def sum_device(teacher: Checkpoint) -> torch.device:
    """Return where the sums live: beside the teacher, unless its device has no float64 (MPS)."""
    device = compute_device(teacher.model)
    return torch.device("cpu") if device.type == "mps" else device


class Recorders:
    """The recorders of one teacher and its students, entered for the length of an analysis."""

    def __init__(
        self,
        stack: ExitStack,
        teacher: Checkpoint,
        students: Sequence[Checkpoint],
        layers: Mapping[Stream, StreamLayers],
        final_norm: FinalNorm,
    ) -> None:
        self.layers = layers
        wanted = {stream: chosen.teacher for stream, chosen in layers.items()}
        self.teacher = stack.enter_context(LayerRecorder(teacher.model, wanted, final_norm))
        self.students = [
            stack.enter_context(
                LayerRecorder(
                    student.model,
                    {stream: chosen.students[position] for stream, chosen in layers.items()},
                    final_norm,
                )
            )
            for position, student in enumerate(students)
        ]
        models = [checkpoint.model for checkpoint in (teacher, *students)]
        #: How many batches may be on their way at once.
        self.lanes = lane_count(models, [compute_device(model) for model in models])
        self._workspaces = [[Workspace() for _ in models] for _ in range(slot_count(self.lanes))]

    def states(self, device: torch.device, batch: ProbeBatch, slot: int = 0) -> BatchStates:
        """Return the teacher's and every student's states by stream, shape (layers, tokens, width), on `device`.

        The next call for the same slot overwrites them.
        """
        teacher, *students = (
            {stream: found.states.to(device) for stream, found in token_states(recorder, batch, workspace).items()}
            for recorder, workspace in zip((self.teacher, *self.students), self._workspaces[slot], strict=True)
        )
        return teacher, students


def progress_batches(probe: TokenizedProbe, title: str, progress: bool, numbers: Sequence[int]) -> Iterator[ProbeBatch]:
    """Yield batches by number, behind a progress bar that counts tokens, so that its estimate of the rest is fair."""
    with tqdm(desc=title, unit="token", unit_scale=True, disable=not progress) as bar:
        if progress and len(numbers):
            part = probe.subset(np.concatenate([probe.plan[number] for number in numbers]))
            bar.reset(total=sum(part.n_tokens(stream) for stream in probe.streams))
        for batch in probe.batches(numbers=numbers):
            yield batch
            bar.update(sum(len(batch.token_index(stream)) for stream in batch.streams))


@only_new_garbage()
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
