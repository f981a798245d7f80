"""An analysis as a job: shared among processes, stopped and resumed, its result saved whole."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import msgspec

from anglekit.analysis.analyze import measure
from anglekit.analysis.jobs.shards import gathered, shard_geometry
from anglekit.analysis.jobs.unfinished import UnfinishedAnalysis, unfinished_directory
from anglekit.analysis.preparation import WHOLE, Shard, prepare
from anglekit.analysis.settings import AnalysisSettings
from anglekit.analysis.tables import tabulate
from anglekit.errors import InputError
from anglekit.models.checkpoints import Checkpoint, weights_hash
from anglekit.probes.in_memory import Probe
from anglekit.results.geometry import Geometry
from anglekit.runtime.processes import ALONE, Processes


def save_analysis(
    out: Path,
    teacher: Checkpoint,
    students: Sequence[Checkpoint],
    probe: Probe,
    settings: AnalysisSettings,
    *,
    shard: Shard | None = None,
    processes: Processes = ALONE,
    save_every: int | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> Geometry | None:
    """Analyse and save the result; in the first process return it, in the others None.

    Args:
        out: the directory of the result; it appears whole or not at all.
        teacher: the teacher.
        students: the students.
        probe: the texts.
        settings: how.
        shard: the part of the batches that this job takes, whose sums are saved too; None: all.
        processes: those that share the job.
        save_every: keep what is measured after so many batches beside `out`, and go on from what a run that was
            stopped has kept; a result of this very analysis that is there already is returned. None: do not.
        overwrite: replace a result that exists.
        progress: show a progress bar on the terminal.

    Raises:
        InputError: the checkpoints do not fit each other or the probe, `out` exists, or what was kept is of another
            analysis or in use.
        RunError: the result cannot be written, no angle is left, or another process failed.
    """
    unfinished = None
    with ExitStack() as stack:
        if save_every is not None:
            unfinished = UnfinishedAnalysis(unfinished_directory(out), save_every, shard or WHOLE, processes)
            stack.enter_context(unfinished.held())
            there = processes.first and out.exists() and not overwrite
            if not processes.all(not there):
                with processes.together():
                    geometry = _finished(out, teacher, students, probe, settings, shard) if there else None
                    if there:
                        unfinished.remove()
                return geometry
        spec, measured = measure(
            teacher,
            students,
            probe,
            settings,
            shard=shard,
            processes=processes,
            unfinished=unfinished,
            progress=progress,
        )
        whole = gathered(processes, spec, measured)
        geometry = None
        with processes.together():
            if whole is not None:
                geometry = tabulate(spec, whole) if shard is None else shard_geometry(spec, whole, shard)
                geometry.save(
                    out, overwrite=overwrite, scratch=None if unfinished is None else unfinished.result_scratch
                )
                if unfinished is not None:
                    unfinished.remove()
        return geometry


def _finished(
    out: Path,
    teacher: Checkpoint,
    students: Sequence[Checkpoint],
    probe: Probe,
    settings: AnalysisSettings,
    shard: Shard | None,
) -> Geometry:
    """Return the result that a run which is started again finds finished, if it is that of this analysis."""
    geometry = Geometry.load(out)
    if teacher.offloaded is not None:
        teacher = replace(teacher, sha256=weights_hash(teacher.model, teacher.offloaded))
    wanted = prepare(teacher, students, probe, settings, shard).spec.record
    of_run = ("packages", "python", "device")
    for what, there, here in (
        ("settings", geometry.settings, wanted.settings),
        ("origin", geometry.provenance, msgspec.to_builtins(wanted.provenance)),
    ):
        for key in sorted({*there, *here}.difference(of_run)):
            if json.dumps(there.get(key), default=str) != json.dumps(here.get(key), default=str):
                raise InputError(
                    f"{out} holds another analysis ({what}: {key} differs)",
                    "name another output, or replace it with --overwrite and without --resume",
                )
    return geometry
