"""The shell of the analysis: checkpoints and probe data in, what was measured out, in one pass over the probe."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from anglekit.architectures import Stream, final_norm_module
from anglekit.batch_plan import share_batches
from anglekit.checkpoints import Checkpoint, unique_names
from anglekit.errors import InputError
from anglekit.geometry.measurement import Measurement
from anglekit.geometry.null_sums import sample_capacity
from anglekit.geometry.preflight import (
    StreamLayers,
    checked_adapters,
    choose_layers,
    projection_kind,
    tokenize_for,
    with_adapters,
)
from anglekit.geometry.projected import aimed_layer
from anglekit.geometry.recorders import Recorders, progress_batches, sum_device
from anglekit.geometry.samples import ProbeSamples, fresh_samples
from anglekit.geometry.settings import AnalysisSettings
from anglekit.geometry.sketch import sketch_token
from anglekit.geometry.streaming import GeometryAccumulator, accumulate_batch
from anglekit.geometry.subject import Key, Subject
from anglekit.hidden_states import evaluation_mode
from anglekit.probes import ProbeData, TokenizedProbe
from anglekit.processes import ALONE, Processes
from anglekit.projections import ProjectionFit, ProjectionKind, solve_projection
from anglekit.workspace import keep_freed_memory

__all__ = ["WHOLE", "Shard", "measure"]

# Tokens that the default anisotropy looks at, the first of the sample, whose order is random: an eighth of the examples
# within these bounds, so that it costs a small probe little.
_FEWEST_VIEWED, _MOST_VIEWED, _VIEWED_SHARE = 64, 256, 8


@dataclass(frozen=True)
class Shard:
    """A part of the batches that a job of its own takes.

    Attributes:
        number: which, from 1.
        of: how many there are.

    Raises:
        InputError: there is no such part.
    """

    number: int = 1
    of: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.of:
            raise InputError(f"shard {self.number}/{self.of} cannot be; give 1/{self.of} to {self.of}/{self.of}")

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


#: All batches.
WHOLE = Shard()


@dataclass(frozen=True, eq=False)
class _Prepared:
    """What is known before the first batch."""

    teacher: Checkpoint
    students: Sequence[Checkpoint]
    settings: AnalysisSettings
    names: tuple[str, ...]
    tokens: TokenizedProbe
    layers: Mapping[Stream, StreamLayers]
    kinds: tuple[ProjectionKind | None, ...]
    adapters: Sequence[Mapping[Key, Tensor] | None]

    @property
    def fitted(self) -> dict[int, ProjectionKind]:
        """How the students of another width without adapters are projected, by position."""
        return {
            position: kind
            for position, kind in enumerate(self.kinds)
            if kind is not None and self.adapters[position] is None
        }


def measure(
    teacher: Checkpoint,
    students: Sequence[Checkpoint],
    probe: ProbeData,
    settings: AnalysisSettings | None = None,
    *,
    shard: Shard | None = None,
    processes: Processes = ALONE,
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
        progress: show a progress bar on the terminal.

    Returns:
        What was looked at, and what this process measured of it.

    Raises:
        InputError: the checkpoints do not fit each other or the probe, or a projection would be fitted on a shard.
        RunError: another process failed.
    """
    settings = settings or AnalysisSettings()
    if settings.reading == "official":
        settings = replace(settings, final_norm="included")
    keep_freed_memory()
    with processes.together():
        prepared = _prepare(teacher, students, probe, settings, shard)
    with ExitStack() as stack:
        for checkpoint in (teacher, *students):
            stack.enter_context(evaluation_mode(checkpoint.model))
        recorders = Recorders(stack, teacher, students, prepared.layers, settings.final_norm)
        measured, projections = prepared.tokens, prepared.adapters
        if prepared.fitted:
            fit_half, measured = prepared.tokens.halves(settings.seed)
            projections = _fitted(prepared, recorders, fit_half, processes, progress)
        subject = _subject(prepared, probe, measured, projections, shard)
        with processes.together():
            chosen = shard or WHOLE
            numbers = share_batches(measured.padded_tokens, chosen.of)[chosen.number - 1]
            numbers = numbers[share_batches(measured.padded_tokens[numbers], processes.count)[processes.rank]]
            measurement = _measure(subject, prepared, recorders, measured, numbers.tolist(), progress)
    return subject, measurement


def _prepare(
    teacher: Checkpoint,
    students: Sequence[Checkpoint],
    probe: ProbeData,
    settings: AnalysisSettings,
    shard: Shard | None,
) -> _Prepared:
    tokens = tokenize_for(teacher, students, probe, settings)
    layers = {stream: choose_layers(stream, teacher, students, settings) for stream in teacher.streams}
    kinds = tuple(projection_kind(teacher, student, settings) for student in students)
    adapters = [
        checked_adapters(teacher, student) if kind == "adapter" else None
        for student, kind in zip(students, kinds, strict=True)
    ]
    layers = {stream: with_adapters(stream, chosen, adapters) for stream, chosen in layers.items()}
    names = tuple(unique_names([student.name for student in students]))
    prepared = _Prepared(teacher, students, settings, names, tokens, layers, kinds, adapters)
    if prepared.fitted and shard is not None:
        position, kind = next(iter(prepared.fitted.items()))
        raise InputError(
            f"--shard {shard} cannot fit a projection ({kind} for {students[position].source}), which needs the whole "
            "probe; analyse it in one job (accelerate launch shares that among processes), or use trained adapters"
        )
    return prepared


def _fitted(
    prepared: _Prepared, recorders: Recorders, probe: TokenizedProbe, processes: Processes, progress: bool
) -> list[Mapping[Key, Tensor] | None]:
    """Solve the projections that are not trained, over one half of the probe.

    Each student layer aims at the teacher layer of its relative depth, or the nearest one that is kept.
    """
    teacher, students = prepared.teacher, prepared.students
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
        for batch in progress_batches(probe, "fitting the projection", progress, numbers):
            teacher_states, student_states = recorders.states(batch, sum_device(teacher))
            for position, kind in prepared.fitted.items():
                for stream, chosen in prepared.layers.items():
                    for vertex, state in zip(chosen.students[position], student_states[position][stream], strict=True):
                        aim = aimed_layer(stream, vertex, chosen, teacher, students[position], kind)
                        fits[position][stream, vertex].update(state, teacher_states[stream][chosen.teacher.index(aim)])
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


def _subject(
    prepared: _Prepared,
    probe: ProbeData,
    measured: TokenizedProbe,
    projections: Sequence[Mapping[Key, Tensor] | None],
    shard: Shard | None,
) -> Subject:
    teacher, students, layers = prepared.teacher, prepared.students, prepared.layers
    matrices, aims = dict[Key, tuple[Tensor, ...] | None](), dict[Key, tuple[int, ...]]()
    for position, (student, kind) in enumerate(zip(students, prepared.kinds, strict=True)):
        given = projections[position]
        for stream, chosen in layers.items():
            vertices = chosen.students[position]
            matrices[stream, position] = (
                None if given is None else tuple(given[stream, vertex].double().cpu() for vertex in vertices)
            )
            if kind is not None:
                aims[stream, position] = tuple(
                    aimed_layer(stream, vertex, chosen, teacher, student, kind) for vertex in vertices
                )
    numbers = sum(
        len(chosen.teacher) * teacher.width
        + sum(len(vertices) * student.width for vertices, student in zip(chosen.students, students, strict=True))
        for chosen in layers.values()
    )
    return Subject(
        names=prepared.names,
        layers=layers,
        teacher_width=teacher.width,
        student_widths=tuple(student.width for student in students),
        settings=prepared.settings,
        kinds=prepared.kinds,
        aims=aims,
        projections=matrices,
        capacity=min(sample_capacity(numbers), measured.n_examples),
        viewed=min(_MOST_VIEWED, max(_FEWEST_VIEWED, measured.n_examples // _VIEWED_SHARE)),
        n_batches=measured.n_batches,
        plan_sha256=_plan_hash(measured),
        described=_described(prepared, probe, measured, shard),
    )


def _plan_hash(probe: TokenizedProbe) -> str:
    found = hashlib.sha256()
    for runs in (probe.text, probe.target):
        if runs is not None:
            found.update(runs.ids.tobytes() + runs.starts.tobytes() + runs.lengths.tobytes())
            found.update(b"" if runs.counted is None else runs.counted.tobytes())
    for positions in probe.plan:
        found.update(probe.rows[positions].tobytes() + b"|")
    return found.hexdigest()


def _described(
    prepared: _Prepared, probe: ProbeData, measured: TokenizedProbe, shard: Shard | None
) -> dict[str, dict[str, Any]]:
    """Return what the Geometry says about the settings, where everything came from, and the probe."""
    teacher, students, layers, tokens = prepared.teacher, prepared.students, prepared.layers, prepared.tokens
    return {
        "settings": {
            **asdict(prepared.settings),
            "teacher_layers": {stream: list(chosen.teacher) for stream, chosen in layers.items()},
            "vertices": {
                name: {stream: list(chosen.students[position]) for stream, chosen in layers.items()}
                for position, name in enumerate(prepared.names)
            },
            "models_have_final_norm": {
                stream: final_norm_module(teacher.model, stream) is not None for stream in layers
            },
        },
        "provenance": {
            "teacher": {"name": teacher.name, **teacher.provenance()},
            "students": [
                {"name": name, **student.provenance()} for name, student in zip(prepared.names, students, strict=True)
            ],
            "probe": {
                "source": probe.source,
                "sha256": probe.sha256,
                "text": probe.text_column,
                "text_pair": probe.text_pair_column,
                "target": probe.target_column,
            },
            "packages": {
                package: version(package) for package in ("anglekit", "torch", "transformers", "numpy", "pandas")
            },
            "python": platform.python_version(),
            "device": str(teacher.model.device),
            "dtype": str(teacher.model.dtype).removeprefix("torch."),
            "precision": "inner products and sums in float64",
            **({} if shard is None else {"shard": str(shard)}),
        },
        "counts": {
            "examples_used_for_projection": tokens.n_examples - measured.n_examples,
            "skipped_rows": probe.skipped_rows,
            "skipped_examples": tokens.skipped_examples,
            "truncated_examples": tokens.truncated_examples,
            "truncated_tokens": tokens.truncated_tokens,
            "max_length": tokens.max_length,
            "padding_share": tokens.padding_share,
        },
    }


def _measure(
    subject: Subject,
    prepared: _Prepared,
    recorders: Recorders,
    probe: TokenizedProbe,
    numbers: Sequence[int],
    progress: bool,
) -> Measurement:
    """Run these batches and feed the sums and the samples."""
    device = sum_device(prepared.teacher)
    start = Measurement.zeros(subject, device)
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
    samples = ProbeSamples(subject, prepared.teacher, probe.rows, start.cross)
    sketches, n_examples = dict[Key, dict[str, Any]](), 0
    for number, batch in zip(numbers, progress_batches(probe, "analysing", progress, numbers), strict=True):
        teacher_states, student_states = recorders.states(batch, device)
        samples.update(batch, teacher_states, student_states)
        n_examples += len(batch.examples)
        for stream in subject.layers:
            accumulate_batch(
                [accumulators[stream, position] for position in range(len(subject.names))],
                teacher_states[stream],
                [states[stream] for states in student_states],
                batch.token_example(stream),
                batch.examples,
            )
            if number == 0:
                for position in range(len(subject.names)):
                    states = (teacher_states[stream], student_states[position][stream])
                    sketch = sketch_token(subject, stream, position, states, batch, prepared.teacher)
                    sketches |= {(stream, position): sketch} if sketch else {}
    taken = samples.state()
    return Measurement(
        n_batches=len(numbers),
        n_examples=n_examples,
        sums={key: accumulator.state() for key, accumulator in accumulators.items()},
        samples=taken,
        fresh=fresh_samples(subject, prepared.teacher, prepared.students, probe, numbers, taken),
        cross=samples.cross,
        sketches=sketches,
    )
