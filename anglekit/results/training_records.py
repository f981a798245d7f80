"""What runs keep beside their scores: the log of training, and what teacher and student cost; its files and its tables.

The log is a file of lines, one for each log and validation; the costs lie in scores.json.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from anglekit.results.scores import RUN_SCORES_FILE, ModelCosts, RunScores, scored_runs
from anglekit.runtime.files import read_document

#: In a run's directory: a line of json for every log and validation of its training.
TRAINING_LOG_FILE: Final = "metrics.jsonl"

#: A row for each logged number of an arm. `kind` is "loss" (a term, or the weighted sum), "validation" (a score on the
#: validation table) or "angle" (of `distill --angles-every`); `name` says which.
LOG_COLUMNS: Final = ("strategy", "init", "seed", "step", "kind", "name", "value")
#: A row for each arm and model ("teacher" or "student"): parameters, and the time of a forward pass of a batch.
COST_COLUMNS: Final = (
    *("strategy", "init", "seed", "model"),
    *("parameters", "milliseconds", "milliseconds_low", "milliseconds_high", "examples", "tokens", "device"),
)
#: A row for each number of parameters and device.
ARCHITECTURE_COLUMNS: Final = (
    *("model", "parameters", "device", "runs", "milliseconds", "smaller", "faster", "faster_low", "faster_high"),
)

_LOSS, _VALIDATION, _ANGLE = "loss", "validation", "angle"
_AGAIN: Final = "run it again, or leave it out"


@dataclass(frozen=True, eq=False)
class TrainingRecords:
    """What the runs of one sweep, or single runs together, keep beside their scores.

    Attributes:
        log: with the columns `LOG_COLUMNS`; empty where no run kept a log.
        costs: with the columns `COST_COLUMNS`; empty in runs of earlier versions.
        teacher: the teacher's scores, by evaluation table and score.
        chance: what one and the same answer to every example reaches, by evaluation table and score.
    """

    log: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(LOG_COLUMNS)))
    costs: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(COST_COLUMNS)))
    teacher: Mapping[tuple[str, str], float] = field(default_factory=dict)
    chance: Mapping[tuple[str, str], float] = field(default_factory=dict)


def log_of_line(line: str) -> dict[str, Any] | None:
    """Return a line of the log; None for the last line of a session, half a line of a killed run, and anything else."""
    try:
        log = json.loads(line)
    except (ValueError, RecursionError):
        return None
    usable = isinstance(log, dict) and type(log.get("step")) is int and "train_runtime" not in log
    return log if usable else None


def read_training_records(directories: Sequence[Path]) -> TrainingRecords:
    """Read what the finished runs of sweeps, and single runs of distilled students, keep beside their scores.

    Args:
        directories: of sweeps or of runs; others have nothing to read.

    Raises:
        InputError: a file is damaged, or a run is not a student's.
    """
    logs: list[dict[str, Any]] = []
    costs: list[dict[str, Any]] = []
    teacher: dict[tuple[str, str], float] = {}
    chance: dict[tuple[str, str], float] = {}
    runs = {run.resolve(): (run, arm) for directory in directories for run, arm in scored_runs(directory)}
    for run, arm in runs.values():
        place = dict(zip(("strategy", "init", "seed"), arm, strict=True))
        scores = read_document(run / RUN_SCORES_FILE, RunScores, _AGAIN)
        for row in scores.teacher:
            numbers = {name: value for name, value in row.items() if isinstance(value, float)}
            teacher |= {(str(row["data"]), name): value for name, value in numbers.items() if math.isfinite(value)}
        chance |= {(data, name): value for data, own in scores.chance.items() for name, value in own.items()}
        costs += [place | {"model": model} | _numbers(cost) for model, cost in scores.costs.items()]
        logs += [place | row for row in _log_rows(run / TRAINING_LOG_FILE)]
    return TrainingRecords(
        pd.DataFrame(logs, columns=list(LOG_COLUMNS)),
        pd.DataFrame(costs, columns=list(COST_COLUMNS)),
        teacher,
        chance,
    )


def _numbers(cost: ModelCosts) -> dict[str, Any]:
    return {name: getattr(cost, name) for name in COST_COLUMNS[4:]}


def _log_rows(file: Path) -> Iterable[dict[str, Any]]:
    """Yield the numbers of a run's log, each step's once, the last log of it standing."""
    if not file.is_file():
        return
    found: dict[tuple[int, str, str], float] = {}
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        log = log_of_line(line)
        for name, value in (log or {}).items():
            kind = _kind(name)
            if log is None or kind is None or isinstance(value, bool) or not isinstance(value, int | float):
                continue
            found[(log["step"], *kind)] = float(value)
    for (step, kind_name, name), value in sorted(found.items()):
        yield {"step": step, "kind": kind_name, "name": name, "value": value}


def _kind(name: str) -> tuple[str, str] | None:
    """Return the kind of a logged number and its name within it; None for speeds and rates."""
    if name == "loss":
        return _LOSS, "weighted sum"
    if name.startswith("loss_"):
        return _LOSS, name.removeprefix("loss_")
    if name.startswith("eval_") and not name.endswith(("_runtime", "_per_second", "_time")):
        return _VALIDATION, name.removeprefix("eval_")
    return (_ANGLE, name) if "angle_degrees" in name else None


def architecture_costs(costs: pd.DataFrame) -> pd.DataFrame:
    """Return one size and one speed for each architecture, the teacher's first, then students from small to large.

    Students of as many parameters on one kind of device count as one architecture: what their times differ by is
    noise. A run times teacher and student in turns, so a student's time is taken as its part of the teacher's in its
    own run, the median over all runs of the architecture, times the teacher's median: a busy hour is slow for both.

    Args:
        costs: with the columns `COST_COLUMNS`.

    Returns:
        A table with the columns `ARCHITECTURE_COLUMNS`: `model` ("teacher" or "student"), `runs` that timed it,
        `milliseconds` of a forward pass of their batch; `smaller`, how many times fewer parameters than the teacher;
        `faster`, the teacher's `milliseconds` by the student's, and the least and the most of single runs. NaN where no
        run timed the teacher on that device.
    """
    arm = ["strategy", "init", "seed", "device"]
    teachers = costs[costs["model"] == "teacher"]
    students = costs[costs["model"] == "student"]
    beside = teachers[[*arm, "parameters", "milliseconds"]]
    paired = students.merge(beside, on=arm, how="left", suffixes=("", "_teacher"))
    medians = teachers.groupby("device", sort=False)["milliseconds"].median()
    rows = [
        ("teacher", own["parameters"].iloc[0], device, len(own), medians[device], 1.0, 1.0, 1.0, 1.0)
        for device, own in teachers.groupby("device", sort=False)
    ]
    for _, own in paired.groupby(["parameters", "device"], sort=True):
        parameters, device = float(own["parameters"].iloc[0]), own["device"].iloc[0]
        ratios = (own["milliseconds_teacher"] / own["milliseconds"]).dropna()
        if len(ratios):
            faster = float(ratios.median())
            speeds = (medians[device] / faster, faster, float(ratios.min()), float(ratios.max()))
        else:
            speeds = (float(own["milliseconds"].median()), np.nan, np.nan, np.nan)
        larger = teachers["parameters"].iloc[0] if len(teachers) else np.nan
        rows.append(("student", parameters, device, len(own), speeds[0], larger / parameters, *speeds[1:]))
    return pd.DataFrame(rows, columns=list(ARCHITECTURE_COLUMNS))
