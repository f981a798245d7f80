"""Throughput of the analysis in two processes of one thread each against one process of one thread.

Both are taken in turns in one launch: while the first process works alone the second one waits. What counts is a whole
analysis from texts to tables with the sums gathered; starting the interpreter and reading the models is outside, as it
does not grow with the probe. Run it alone on a quiet machine of two cores or more: `make bench`.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

import torch
from bench_analysis import pair
from measuring import _clock as clock
from measuring import launch, probe_of, report

from anglekit.analysis.analyze import analyze, measure
from anglekit.analysis.jobs.shards import gathered
from anglekit.analysis.settings import AnalysisSettings
from anglekit.analysis.tables import tabulate
from anglekit.models.checkpoints import Checkpoint
from anglekit.probes.data import ProbeData
from anglekit.results.geometry import Geometry
from anglekit.runtime.processes import Processes, launched_processes

GOAL, ROUNDS = 1.7, 7
SETTINGS = AnalysisSettings()


def shared_analysis(
    processes: Processes, teacher: Checkpoint, student: Checkpoint, probe: ProbeData
) -> Geometry | None:
    """Analyse in all processes; the first one gets the result."""
    spec, measured = measure(teacher, [student], probe, SETTINGS, processes=processes)
    whole = gathered(processes, spec, measured)
    return None if whole is None else tabulate(spec, whole)


def seconds(processes: Processes, run: object) -> float:
    """Return how long a function takes, from when all processes are there, in the process that takes longest."""
    with processes.together():
        pass
    taken = torch.zeros(processes.count, dtype=torch.float64)
    start = clock()
    if callable(run):
        run()
    taken[processes.rank] = clock() - start
    processes.add_up(taken)
    return float(taken.max())


def child() -> None:
    """Take turns between one process and both, and let the first process report."""
    torch.set_num_threads(1)
    with launched_processes() as (processes, _):
        for kind, name in (("real", "real pair (6 x 384, 2 x 384)"), ("wide", "12 x 768 teacher, 3 x 768 student")):
            found = pair(kind)
            if found is None:
                continue
            teacher, student, texts = found
            probe = probe_of(texts if kind == "real" else texts[:300])

            def both(teacher: Checkpoint = teacher, student: Checkpoint = student, probe: ProbeData = probe) -> None:
                shared_analysis(processes, teacher, student, probe)

            def alone(teacher: Checkpoint = teacher, student: Checkpoint = student, probe: ProbeData = probe) -> None:
                analyze(teacher, [student], probe, SETTINGS)

            rounds = []
            for number in range(-1, ROUNDS):
                order = [("both", both), ("alone", alone if processes.first else None)]
                taken = {key: seconds(processes, run) for key, run in (order if number % 2 else order[::-1])}
                rounds += [taken] if number >= 0 else []
            if processes.first:
                report(
                    f"analysis, throughput of two processes over one, {name}",
                    statistics.median(each["alone"] / each["both"] for each in rounds),
                    GOAL,
                    alone_s=round(statistics.median(each["alone"] for each in rounds), 2),
                    both_s=round(statistics.median(each["both"] for each in rounds), 2),
                    examples=len(probe.texts),
                )


def main() -> None:
    """Launch both processes."""
    launch(2, [Path(__file__), "--child"])


if __name__ == "__main__":
    if sys.argv[1:] == ["--child"]:
        child()
    else:
        main()
