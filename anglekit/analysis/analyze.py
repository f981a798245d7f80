"""The whole analysis in one call: checkpoints and probe data in, a Geometry out, in one pass over the probe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from os import PathLike, fspath
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase as Tokenizer

from anglekit.analysis.fitted_projections import (
    fit_projections,
    projections_sha256,
    same_projections,
    trained_projections,
)
from anglekit.analysis.given_models import Model, as_checkpoint, check_given, device_of, named_students, pad_id_of
from anglekit.analysis.jobs.extract import offloaded_states
from anglekit.analysis.jobs.unfinished import UnfinishedAnalysis
from anglekit.analysis.measurement import Measurement
from anglekit.analysis.preparation import WHOLE, PreparedAnalysis, Shard, check_tokenizers, prepare
from anglekit.analysis.recorders import BatchStates, Recorders, progress_batches, sum_device
from anglekit.analysis.running_measurement import RunningMeasurement, fresh_samples
from anglekit.analysis.settings import AnalysisSettings
from anglekit.analysis.spec import AnalysisSpec, Key
from anglekit.analysis.tables import tabulate
from anglekit.errors import InputError
from anglekit.models.check import evaluation_mode
from anglekit.models.checkpoints import Checkpoint
from anglekit.models.load_options import LoadOptions, check_roles
from anglekit.models.sources import check_source
from anglekit.probes.batch_plan import share_batches
from anglekit.probes.batches import ProbeBatch
from anglekit.probes.data import ProbeData
from anglekit.probes.in_memory import Probe, probe_in_memory
from anglekit.results.geometry import Geometry
from anglekit.runtime.lanes import run_in_lanes
from anglekit.runtime.placement import Placement, check_offload
from anglekit.runtime.processes import ALONE, Processes
from anglekit.states.store import is_store


def analyze(
    teacher: Model,
    students: Model | Sequence[Model] | Mapping[str, Model],
    probe: Any,  # noqa: ANN401 - see `probe_in_memory`
    settings: AnalysisSettings | None = None,
    *,
    tokenizer: Tokenizer | None = None,
    targets: Sequence[str] | None = None,
    options: LoadOptions | None = None,
    progress: bool = False,
) -> Geometry:
    """Look at a teacher's layers from inside its students.

    `analyze(teacher, student, ["a text", "another"], tokenizer=tokenizer)` takes models in memory, and
    `analyze("runs/teacher", {"mine": "runs/student"}, "probe.csv")` directories. The teacher's forward pass is shared
    by all students. Everything is checked before the first batch runs; models in memory are left as they were found.
    The work is this process's alone; `measure` shares it among processes and jobs.

    Args:
        teacher: the teacher: a `Checkpoint`, a model in memory, a directory, a hub id, or the directory of a state
            store. A model that transformers does not know is given as `Checkpoint.of(model, blocks=...)`.
        students: one or more students with the teacher's tokenizer and streams, each given as the teacher may be; or a
            dictionary of them by name.
        probe: texts, pairs of texts, a column or a data frame; a `ProbeData`, a path or another source of `read_probe`;
            or token ids, as a DataLoader or Dataset of dictionaries with `input_ids` and `attention_mask`
            (`probe_in_memory`).
        settings: how; the corrected reading by default.
        tokenizer: that of the models in memory, where texts are read.
        targets: for each text in a list what an encoder-decoder's decoder reads.
        options: how directories and hub ids are loaded; by default onto the device of a model in memory.
        progress: show a progress bar on the terminal.

    Raises:
        InputError: the models do not fit each other or the probe, or two of them share modules.
        RunError: no finite state was left.
    """
    named = named_students(students)
    check_given(teacher, named)
    pad_id = None if tokenizer is None else tokenizer.pad_token_id
    if pad_id is None:
        pad_id = next((pad for each in (teacher, *named.values()) if isinstance(pad := pad_id_of(each), int)), None)
    texts = probe_in_memory(probe, targets, pad_id)
    if tokenizer is None and isinstance(texts, ProbeData) and isinstance(teacher, nn.Module):
        raise InputError(
            f"the teacher, a {type(teacher).__name__} in memory, came without a tokenizer, and the probe holds texts",
            "give tokenizer=..., or token ids",
        )
    beside = device_of(teacher, *named.values())
    load = options or (LoadOptions() if beside is None else LoadOptions(device=beside))
    for each in (teacher, *named.values()):
        if isinstance(each, str | PathLike):
            check_source(str(fspath(each)), revision=load.revision, or_store=each is teacher)
            if each is not teacher and isinstance(teacher, str | PathLike):
                check_roles(str(fspath(teacher)), str(fspath(each)))
    if isinstance(teacher, str | PathLike) and not is_store(fspath(teacher)):
        on_disk = [str(fspath(each)) for each in named.values() if isinstance(each, str | PathLike)]
        check_tokenizers(str(fspath(teacher)), on_disk, load)
    found = as_checkpoint(teacher, "teacher", tokenizer, load)
    # A model that is larger than the memory is a teacher.
    beside_it = load if load.placement.offload is None else replace(load, placement=Placement())
    checkpoints = []
    for name, student in named.items():
        one = as_checkpoint(student, "student", tokenizer, beside_it)
        # A student made of the teacher's configuration bears the teacher's name.
        if isinstance(student, nn.Module) and one.name == found.name:
            one = replace(one, name="student")
        checkpoints.append(one if isinstance(name, int) else replace(one, name=name))
    return tabulate(*measure(found, checkpoints, texts, settings, progress=progress))


def measure(
    teacher: Checkpoint,
    students: Sequence[Checkpoint],
    probe: Probe,
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
    with ExitStack() as stack:
        with processes.together():
            prepared = prepare(teacher, students, probe, settings or AnalysisSettings(), shard)
            if teacher.offloaded is not None:
                shared, official = (
                    shard is not None or processes.count > 1,
                    prepared.spec.settings.reading == "official",
                )
                check_offload("blocks", shared=shared, official=official)
                place = None if unfinished is None else unfinished.teacher_states
                teacher = stack.enter_context(offloaded_states(prepared, probe, place, progress=progress))
                prepared = prepare(teacher, students, probe, settings or AnalysisSettings(), shard)
            kept = None if unfinished is None else unfinished.load(prepared.spec)
        for checkpoint in (teacher, *students):
            stack.enter_context(evaluation_mode(checkpoint.model))
        spec = prepared.spec
        recorders = Recorders(stack, teacher, students, spec.layers, spec.settings.final_norm, prepared.stored)
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
    spec, probe, device = prepared.spec, prepared.measured, sum_device(prepared.teacher, prepared.students)
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
