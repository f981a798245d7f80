"""The scores of finished students, as a run and a sweep write them: their files, typed, written and read here.

A run is a directory with scores.json, run_config.json and its student's note. A sweep is a directory with sweep.json,
scores.csv and a run for each arm.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import numpy as np
import pandas as pd
from msgspec import Meta, Struct
from msgspec.structs import replace

from anglekit.errors import InputError
from anglekit.results.document import Whole
from anglekit.runtime.files import read_document
from anglekit.vocabulary import STUDENT_FILE

#: A row for each arm, evaluation table and score.
SCORE_COLUMNS: Final = ("strategy", "init", "seed", "data", "score", "value", "source")

RUN_SCORES_FILE, RUN_CONFIG_FILE = "scores.json", "run_config.json"
SWEEP_FILE, SWEEP_SCORES_FILE = "sweep.json", "scores.csv"
RUN_SCORES_FORMAT, SWEEP_FORMAT = "anglekit-scores-1", "anglekit-sweep-1"

# The columns that identify a row of scores.csv, and the other columns that are not scores.
_KEY: Final = ("strategy", "init", "seed", "data")
_NOT_SCORES: Final = frozenset((*_KEY, "examples", "steps", "selected_step", "seconds"))
_AGAIN_OR_LEAVE: Final = "run it again, or leave it out"
_RESUME: Final = "resume the sweep to write it again"

Number = Annotated[float, Meta(ge=0, lt=2**62)]


class RunScores(Struct, kw_only=True, frozen=True):
    """scores.json: written last, so a run that has it is finished.

    Attributes:
        format: of the file.
        scores: a row for each evaluation table: `data`, `examples` and the task's scores.
        scoring: what the scores mean, by evaluation table, such as sacreBLEU's signatures.
        steps: optimiser steps.
        selected_step: the step whose weights were kept.
        train_seconds: the time of training alone, in the run's last session.
    """

    format: str = RUN_SCORES_FORMAT
    scores: list[dict[str, str | int | float | bool | None]]
    scoring: dict[str, dict[str, Any]] = {}
    steps: Whole = 0
    selected_step: Whole = 0
    train_seconds: Number = 0.0

    def __post_init__(self) -> None:
        _check_format(self.format, RUN_SCORES_FORMAT)


class TableRecord(Struct, frozen=True):
    """A table of examples that a run read."""

    sha256: str | None = None


class TrainingRecord(Struct, kw_only=True, frozen=True):
    """What decides a run's result: the part of run_config.json and sweep.json that matters when scores are compared.

    Attributes:
        task: its name.
        origin_sha256: the hash of the teacher's weights, head included.
        tables: of training and validation, by name.
        settings: of training, by name.
    """

    task: str | None = None
    origin_sha256: str | None = None
    tables: dict[str, TableRecord] = {}
    settings: dict[str, Any] = {}


class _ScoredArm(Struct, frozen=True):
    """An arm of a sweep; its run is in the directory of the same name."""

    name: str


class _ScoredSweep(Struct, kw_only=True, frozen=True):
    """The part of sweep.json that is read along with the scores."""

    arms: list[_ScoredArm] = []
    data: TrainingRecord = TrainingRecord()
    warnings: list[str] = []
    format: str

    def __post_init__(self) -> None:
        _check_format(self.format, SWEEP_FORMAT)


def _check_format(found: str, read: str) -> None:
    if found != read:
        raise InputError(f"format {found[:40]!r}", f"this anglekit reads {read!r}")


class _StudentNote(Struct, frozen=True):
    """How a student was made, as recorded in its checkpoint and its run."""

    strategy: str | None = None
    init: str | None = None
    seed: Whole | None = None


@dataclass(frozen=True, eq=False)
class StudentScores:
    """The scores of one run or one sweep.

    Attributes:
        source: its directory.
        table: with the columns `SCORE_COLUMNS`; may be empty.
        training: what decides the result; the same for all its students, except `settings["data_seed"]`.
        notes: what a reader should know, a sentence each.
    """

    source: str
    table: pd.DataFrame
    training: TrainingRecord
    notes: tuple[str, ...]


def scored_as(directory: Path) -> Literal["sweep", "run"] | None:
    """Return the kind of a directory whose students were or will be scored; None where it is neither kind."""
    if (directory / SWEEP_FILE).exists():
        return "sweep"
    return "run" if any((directory / name).exists() for name in (RUN_SCORES_FILE, RUN_CONFIG_FILE)) else None


def read_student_scores(directory: Path) -> StudentScores:
    """Read the scores of a sweep, or of the run of a distilled student.

    Raises:
        InputError: it is damaged, unfinished, or not a student's run.
    """
    return _read_sweep(directory) if scored_as(directory) == "sweep" else _read_run(directory)


def read_score_table(file: Path, remedy: str) -> tuple[pd.DataFrame, list[str]]:
    """Read a csv with the columns `strategy, init, seed, data` and a column for each score: a row per arm and table.

    Returns:
        A row for each arm, table and score, with the columns `SCORE_COLUMNS`, and notes about numbers that are left
        out. Rows without a strategy (a teacher's) are left out.

    Raises:
        InputError: the file cannot be read, lacks a column, or has a seed that is not a whole number.
    """
    notes: list[str] = []
    return _long_table(_read_frame(file, remedy), str(file), notes), notes


def _read_frame(file: Path, remedy: str) -> pd.DataFrame:
    try:
        # One strategy is called "none"; pandas must not read it as a missing value.
        frame = pd.read_csv(file, keep_default_na=False, na_values={}, encoding="utf-8")
    except (OSError, ValueError) as error:  # pandas' own errors derive from ValueError
        raise InputError(f"{file} cannot be read ({error})", remedy) from error
    missing = [name for name in _KEY if name not in frame.columns]
    if missing:
        raise InputError(f"{file} lacks the column {missing[0]!r}", remedy)
    frame = frame[frame["strategy"].astype(str) != ""]
    seeds = pd.to_numeric(frame["seed"], errors="coerce")
    if seeds.isna().any() or (seeds % 1 != 0).any():
        raise InputError(f"{file} has a seed that is no whole number", remedy)
    return frame.assign(seed=seeds.astype("int64"))


def _long_table(frame: pd.DataFrame, source: str, notes: list[str]) -> pd.DataFrame:
    columns = [name for name in frame.columns if name not in _NOT_SCORES]
    numbers = frame[columns].apply(pd.to_numeric, errors="coerce").dropna(axis="columns", how="all")
    rows: list[dict[str, Any]] = []
    for position, (strategy, init, seed, data) in enumerate(frame[list(_KEY)].itertuples(index=False)):
        entry = {name: numbers[name].iloc[position] for name in numbers if frame[name].iloc[position] != ""}
        rows += _score_rows((str(strategy), str(init), int(seed)), {"data": data, **entry}, source, notes)
    return pd.DataFrame(rows, columns=list(SCORE_COLUMNS))


def _score_rows(
    arm: tuple[str, str, int], entry: Mapping[str, Any], source: str, notes: list[str]
) -> Iterable[dict[str, Any]]:
    strategy, init, seed = arm
    for name, value in entry.items():
        if name in _NOT_SCORES or isinstance(value, bool) or not isinstance(value, int | float | np.number):
            continue
        if np.isfinite(value):
            row = (strategy, init, seed, str(entry.get("data", "")), name, float(value), source)
            yield dict(zip(SCORE_COLUMNS, row, strict=True))
        else:
            notes.append(f"{source}: {name} of {strategy}, {init}, seed {seed} is {value} and is left out")


def _read_sweep(directory: Path) -> StudentScores:
    sweep = read_document(directory / SWEEP_FILE, _ScoredSweep, _AGAIN_OR_LEAVE)
    if not (directory / SWEEP_SCORES_FILE).exists():
        raise InputError(
            f"{directory} holds a sweep of which no arm is finished", "go on with `anglekit sweep --resume`"
        )
    frame, notes = _read_frame(directory / SWEEP_SCORES_FILE, _RESUME), list[str]()
    table = _long_table(frame, str(directory), notes)
    finished = len(frame[["strategy", "init", "seed"]].drop_duplicates())
    if len(sweep.arms) > finished:
        notes.append(f"{directory}: {finished} of {len(sweep.arms)} arms are finished")
    notes += [f"{directory}: {warning}" for warning in sweep.warnings]
    configs = [directory / arm.name / RUN_CONFIG_FILE for arm in sweep.arms]
    first = next((file for file in configs if file.is_file()), None)
    settings = {} if first is None else read_document(first, TrainingRecord, _AGAIN_OR_LEAVE).settings
    return StudentScores(str(directory), table, replace(sweep.data, settings=settings), tuple(notes))


def _read_run(directory: Path) -> StudentScores:
    if not (directory / RUN_SCORES_FILE).exists():
        raise InputError(f"{directory} holds an unfinished run", "go on with --resume, or leave it out")
    scores = read_document(directory / RUN_SCORES_FILE, RunScores, _AGAIN_OR_LEAVE)
    note = _StudentNote()
    for file in (directory / "checkpoint" / STUDENT_FILE, directory / "provenance.json"):
        if file.exists() and note.strategy is None:
            note = read_document(file, _StudentNote, _AGAIN_OR_LEAVE)
    if note.strategy is None or note.init is None or note.seed is None:
        raise InputError(
            f"{directory} is not the run of a distilled student", "leave it out, or give a run of `distill`"
        )
    config = directory / RUN_CONFIG_FILE
    training = read_document(config, TrainingRecord, _AGAIN_OR_LEAVE) if config.exists() else TrainingRecord()
    notes: list[str] = []
    arm = (note.strategy, note.init, note.seed)
    rows = [row for entry in scores.scores for row in _score_rows(arm, entry, str(directory), notes)]
    return StudentScores(str(directory), pd.DataFrame(rows, columns=list(SCORE_COLUMNS)), training, tuple(notes))
