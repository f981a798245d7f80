"""The shell of the analysis: checkpoints and probe data in, a Geometry out, in one pass over the probe."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from importlib.metadata import version
from typing import Any

import pandas as pd
from torch import Tensor

from anglekit.architectures import Stream, final_norm_module
from anglekit.checkpoints import Checkpoint, unique_names
from anglekit.errors import RunError
from anglekit.geometry.accumulators import GeometrySums
from anglekit.geometry.preflight import (
    StreamLayers,
    checked_adapters,
    choose_layers,
    projection_kind,
    tokenize_for,
    with_adapters,
)
from anglekit.geometry.projected import aimed_layer, explained_variance, vertex_matrices
from anglekit.geometry.recorders import Recorders, progress_batches, sum_device
from anglekit.geometry.results import Geometry
from anglekit.geometry.samples import ProbeSamples
from anglekit.geometry.settings import AnalysisSettings
from anglekit.geometry.sketch import token_plane, typical_token
from anglekit.geometry.streaming import GeometryAccumulator, accumulate_batch
from anglekit.geometry.summary import (
    angle_table,
    degenerate_counts,
    example_table,
    histogram_table,
    layer_table,
)
from anglekit.hidden_states import evaluation_mode
from anglekit.probes import ProbeBatch, ProbeData, TokenizedProbe
from anglekit.projections import ProjectionFit, solve_projection
from anglekit.workspace import keep_freed_memory

__all__ = ["analyze"]

#: What the paper's code adds to the product of lengths.
_OFFICIAL_EPSILON = 1e-6


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
    are left as they were found.

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
    settings = settings or AnalysisSettings()
    if settings.reading == "official":
        settings = replace(settings, final_norm="included")
    keep_freed_memory()
    names = unique_names([student.name for student in students])
    tokens = tokenize_for(teacher, students, probe, settings)
    layers = {stream: choose_layers(stream, teacher, students, settings) for stream in teacher.streams}
    kinds = [projection_kind(teacher, student, settings) for student in students]
    adapters = [
        checked_adapters(teacher, student) if kind == "adapter" else None
        for student, kind in zip(students, kinds, strict=True)
    ]
    layers = {stream: with_adapters(stream, chosen, adapters) for stream, chosen in layers.items()}
    with ExitStack() as stack:
        for checkpoint in (teacher, *students):
            stack.enter_context(evaluation_mode(checkpoint.model))
        recorders = Recorders(stack, teacher, students, layers, settings.final_norm)
        fitted = [
            position
            for position, (student, kind) in enumerate(zip(students, kinds, strict=True))
            if kind is not None and adapters[position] is None and student.width != teacher.width
        ]
        measured, projections = tokens, adapters
        r_squared: list[dict[str, Any]] = []
        if fitted:
            fit_half, measured = tokens.halves(settings.seed)
            projections = list(adapters)
            fits = _fit(recorders, fit_half, teacher, students, fitted, progress)
            for position in fitted:
                kind = kinds[position]
                if kind is not None:
                    projections[position] = {key: solve_projection(fit, kind) for key, fit in fits[position].items()}
        accumulators = {
            (stream, position): GeometryAccumulator(
                len(chosen.teacher),
                len(chosen.students[position]),
                teacher.width,
                student.width,
                projections=vertex_matrices(projections[position], stream, chosen.students[position]),
                epsilon=_OFFICIAL_EPSILON if settings.reading == "official" else 0.0,
                device=sum_device(teacher),
            )
            for stream, chosen in layers.items()
            for position, student in enumerate(students)
        }
        samples = ProbeSamples(teacher, students, layers, settings, measured.rows)
        sketches = _measure(recorders, measured, accumulators, samples, names, teacher, progress)
    states = {key: accumulator.state() for key, accumulator in accumulators.items()}
    _check_finite(states, names)
    for position, kind in enumerate(kinds):
        if kind is not None and students[position].width != teacher.width:
            r_squared += explained_variance(states, layers, names, position, kind, teacher, students[position])
    epsilon = next(iter(accumulators.values())).epsilon
    matrices = {key: accumulator.projections for key, accumulator in accumulators.items()}
    geometry = _geometry(
        states, layers, names, teacher, students, probe, tokens, measured, settings, samples, r_squared, sketches
    )
    tables, sampled = samples.tables(names, matrices, epsilon, measured)
    return replace(geometry, **tables, counts={**geometry.counts, "sample": sampled})


def _fit(
    recorders: Recorders,
    probe: TokenizedProbe,
    teacher: Checkpoint,
    students: Sequence[Checkpoint],
    fitted: Sequence[int],
    progress: bool,
) -> dict[int, dict[tuple[Stream, int], ProjectionFit]]:
    """Sum what the projections of some students need over one half of the probe.

    Each student layer aims at the teacher layer of its relative depth, or the nearest one that is kept.
    """
    fits = {
        position: {
            (stream, vertex): ProjectionFit.empty(students[position].width, teacher.width)
            for stream, chosen in recorders.layers.items()
            for vertex in chosen.students[position]
        }
        for position in fitted
    }
    for batch in progress_batches(probe, "fitting the projection", progress):
        teacher_states, student_states = recorders.states(batch, sum_device(teacher))
        for position in fitted:
            for stream, chosen in recorders.layers.items():
                for vertex, state in zip(chosen.students[position], student_states[position][stream], strict=True):
                    aim = aimed_layer(stream, vertex, chosen, teacher, students[position])
                    fits[position][stream, vertex].update(state, teacher_states[stream][chosen.teacher.index(aim)])
    return fits


def _measure(
    recorders: Recorders,
    probe: TokenizedProbe,
    accumulators: Mapping[tuple[Stream, int], GeometryAccumulator],
    samples: ProbeSamples,
    names: Sequence[str],
    teacher: Checkpoint,
    progress: bool,
) -> list[dict[str, Any]]:
    """Run the probe once and feed the sums and the samples; return the tokens for the sketch, from the first batch."""
    sketches: list[dict[str, Any]] = []
    for number, batch in enumerate(progress_batches(probe, "analysing", progress)):
        teacher_states, student_states = recorders.states(batch, sum_device(teacher))
        samples.update(batch, teacher_states, student_states)
        for stream, chosen in recorders.layers.items():
            accumulate_batch(
                [accumulators[stream, position] for position in range(len(names))],
                teacher_states[stream],
                [states[stream] for states in student_states],
                batch.token_example(stream),
                batch.examples,
            )
            if number == 0:
                for position, name in enumerate(names):
                    vertices = chosen.students[position]
                    states = student_states[position][stream]
                    projections = accumulators[stream, position].projections
                    sketch = _sketch(
                        teacher_states[stream], states, projections, chosen.teacher, vertices, batch, stream, teacher
                    )
                    sketches += [{"student": name, "stream": stream, **sketch}] if sketch else []
    return sketches


def _sketch(
    teacher_states: Tensor,
    student_states: Tensor,
    projections: Sequence[Tensor] | None,
    teacher_layers: Sequence[int],
    vertices: Sequence[int],
    batch: ProbeBatch,
    stream: Stream,
    teacher: Checkpoint,
) -> dict[str, Any] | None:
    """Choose the paper's vertex and pair, layer 1 with the first and the last block, or the nearest that are kept."""
    vertex = vertices.index(1) if 1 in vertices else len(vertices) - 1
    i = next((position for position, layer in enumerate(teacher_layers) if layer >= 1), 0)
    k = len(teacher_layers) - 1
    if i == k:
        i = 0
    student = student_states[vertex].double()
    if projections is not None:
        student = student @ projections[vertex].T
    token = typical_token(teacher_states[i], teacher_states[k], student)
    if token is None:
        return None
    ids = batch.input_ids if stream != "decoder" or batch.decoder_input_ids is None else batch.decoder_input_ids
    token_id = int(ids.flatten()[batch.token_index(stream)[token]])
    piece = teacher.tokenizer.convert_ids_to_tokens(token_id) if teacher.tokenizer is not None else None
    return {
        "vertex": int(vertices[vertex]),
        "teacher_i": int(teacher_layers[i]),
        "teacher_k": int(teacher_layers[k]),
        "example": int(batch.examples[batch.token_example(stream)[token]]),
        "token": str(piece),
        **token_plane(list(teacher_states[:, token]), student[token], i, k, teacher_layers),
    }


def _check_finite(states: Mapping[tuple[Stream, int], GeometrySums], names: Sequence[str]) -> None:
    for (stream, position), sums in states.items():
        if int(sums.angles.count.sum()) == 0:
            raise RunError(
                f"no angle is left for student {names[position]} in the {stream}: of {int(sums.n_tokens)} tokens "
                f"{int(sums.n_complete)} have finite states at every layer; look at the weights and the precision "
                "(--dtype float32)"
            )


def _geometry(
    states: Mapping[tuple[Stream, int], GeometrySums],
    layers: Mapping[Stream, StreamLayers],
    names: Sequence[str],
    teacher: Checkpoint,
    students: Sequence[Checkpoint],
    probe: ProbeData,
    tokens: TokenizedProbe,
    measured: TokenizedProbe,
    settings: AnalysisSettings,
    samples: ProbeSamples,
    projections: list[dict[str, Any]],
    sketches: list[dict[str, Any]],
) -> Geometry:
    cka = {stream: samples.cka(stream) for stream in layers}
    order = [(stream, position) for position in range(len(names)) for stream in layers]

    def table(make: Callable[..., pd.DataFrame], *, with_teacher: bool = True) -> pd.DataFrame:
        frames = []
        for stream, position in order:
            chosen = layers[stream]
            labels = [chosen.students[position], *([chosen.teacher] if with_teacher else [])]
            more = [cka[stream][0][position]] if make is layer_table else []
            frames.append(make(states[stream, position], names[position], stream, *labels, *more))
        return pd.concat(frames, ignore_index=True)

    return Geometry(
        angles=table(angle_table),
        histograms=table(histogram_table),
        layers=table(layer_table),
        examples=table(example_table, with_teacher=False),
        settings={
            **asdict(settings),
            "teacher_layers": {stream: list(chosen.teacher) for stream, chosen in layers.items()},
            "vertices": {
                name: {stream: list(chosen.students[position]) for stream, chosen in layers.items()}
                for position, name in enumerate(names)
            },
            "models_have_final_norm": {
                stream: final_norm_module(teacher.model, stream) is not None for stream in layers
            },
        },
        provenance={
            "teacher": {"name": teacher.name, **teacher.provenance()},
            "students": [{"name": name, **student.provenance()} for name, student in zip(names, students, strict=True)],
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
        },
        counts={
            "examples": measured.n_examples,
            "examples_used_for_projection": tokens.n_examples - measured.n_examples,
            "skipped_rows": probe.skipped_rows,
            "skipped_examples": tokens.skipped_examples,
            "truncated_examples": tokens.truncated_examples,
            "truncated_tokens": tokens.truncated_tokens,
            "max_length": tokens.max_length,
            "padding_share": tokens.padding_share,
            "cka_examples": {stream: n for stream, (_, n) in cka.items()},
            "by_student": {
                name: {
                    stream: degenerate_counts(
                        states[stream, position], layers[stream].students[position], layers[stream].teacher
                    )
                    for stream in layers
                }
                for position, name in enumerate(names)
            },
        },
        projections=projections,
        sketch_tokens=sketches,
    )
