"""The scores of finished students, as a run and a sweep write them: their files, typed, written and read here.

A run is a directory with scores.json, examples.parquet, run_config.json and its student's note. A sweep is a directory
with sweep.json, scores.csv and a run for each arm.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import numpy as np
import pandas as pd
from msgspec import Meta, Struct
from msgspec.structs import replace
from numpy.typing import NDArray

from anglekit.errors import InputError
from anglekit.results.document import Whole
from anglekit.results.example_scores import (
    EXAMPLES_FILE,
    STUDENT,
    TEACHER,
    UNTRAINED,
    ScoredModel,
    check_example_scores,
    read_example_scores,
)
from anglekit.runtime.files import near_path, read_document, read_json_object
from anglekit.vocabulary import STUDENT_FILE, given_init, given_name

#: A row for each arm, evaluation table and score.
SCORE_COLUMNS: Final = ("strategy", "init", "seed", "data", "score", "value", "source")

RUN_SCORES_FILE, RUN_CONFIG_FILE = "scores.json", "run_config.json"
#: In a run's directory: a Geometry for each step that was measured.
ANGLES_FOLDER = "angles"
SWEEP_FILE, SWEEP_SCORES_FILE = "sweep.json", "scores.csv"
RUN_SCORES_FORMAT, SWEEP_FORMAT = "anglekit-scores-1", "anglekit-sweep-1"

# The columns that identify a row of scores.csv, and the other columns that are not scores.
_KEY: Final = ("strategy", "init", "seed", "data")
_NOT_SCORES: Final = frozenset((*_KEY, "examples", "steps", "selected_step", "seconds"))
_AGAIN_OR_LEAVE: Final = "run it again, or leave it out"
_RESUME: Final = "resume the sweep to write it again"
# Text keeps all digits of a number, or nearly all.
_ROUNDING: Final = 1e-9

Number = Annotated[float, Meta(ge=0, lt=2**62)]

#: An evaluation table, its number of examples and its scores, by column.
ScoreRow = dict[str, str | int | float | bool | None]

#: Strategy, initialisation, seed, evaluation table and score.
ArmScore = tuple[str, str, int, str, str]

_Arm = tuple[str, str, int]


class ModelCosts(Struct, kw_only=True, frozen=True):
    """What a model costs to run: measured beside the other models of its run, over the same batch, in turns.

    Attributes:
        parameters: all of them, the head's too.
        milliseconds: of a forward pass, the median of several.
        milliseconds_low: the fastest of them.
        milliseconds_high: the slowest of them.
        examples: of the batch.
        tokens: of the batch, padding included; of an encoder-decoder those of the source.
        device: "cpu", "cuda" or another kind.
        dtype: of the weights.
    """

    parameters: Whole
    milliseconds: Number
    milliseconds_low: Number
    milliseconds_high: Number
    examples: Whole
    tokens: Whole
    device: str
    dtype: str


class RunScores(Struct, kw_only=True, frozen=True):
    """scores.json: written last, so a run that has it is finished.

    Attributes:
        format: of the file.
        scores: a row for each evaluation table: `data`, `examples` and the task's scores.
        scoring: what the scores mean, by evaluation table, such as sacreBLEU's signatures.
        primary: the task's own score, which a verdict is about; None in runs of earlier versions.
        teacher: rows like `scores`, of the teacher on the same tables.
        untrained: rows like `scores`, of this student before its first step.
        chance: by evaluation table and score, the best that one and the same answer to every example reaches (the
            share of the commonest label, for accuracy); nothing where no such level is known.
        steps: optimiser steps.
        selected_step: the step whose weights were kept.
        train_seconds: the time of training alone, in the run's last session.
        costs: of `teacher` and `student`; nothing in runs of earlier versions and where models are spread over devices.
    """

    format: str = RUN_SCORES_FORMAT
    scores: list[ScoreRow]
    scoring: dict[str, dict[str, Any]] = {}
    primary: str | None = None
    teacher: list[ScoreRow] = []
    untrained: list[ScoreRow] = []
    chance: dict[str, dict[str, float]] = {}
    steps: Whole = 0
    selected_step: Whole = 0
    train_seconds: Number = 0.0
    costs: dict[str, ModelCosts] = {}

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
        given_sha256: of a run, the hash of the student that was there before; None where it was made.
        tables: of training and validation, by name.
        settings: of training, by name.
    """

    task: str | None = None
    origin_sha256: str | None = None
    given_sha256: str | None = None
    tables: dict[str, TableRecord] = {}
    settings: dict[str, Any] = {}


class _ScoredArm(Struct, frozen=True):
    """An arm of a sweep; its run is in the directory of the same name."""

    name: str
    strategy: str = ""
    init: str = ""
    seed: Whole = 0

    def __post_init__(self) -> None:
        if Path(self.name).name != self.name:
            raise InputError(f"no arm is called {self.name[:80]!r}")


class _ScoredStudent(Struct, frozen=True):
    """A student that was there before, as sweep.json lists it."""

    sha256_with_head: str | None = None


class _Stopping(Struct, frozen=True):
    """How long a run of a sweep is that stopped some of them."""

    steps: Whole = 0


class _ScoredSweep(Struct, kw_only=True, frozen=True):
    """The part of sweep.json that is read along with the scores."""

    arms: list[_ScoredArm] = []
    stopped: dict[str, Whole] = {}
    stopping: _Stopping = _Stopping()
    students: dict[str, _ScoredStudent] = {}
    data: TrainingRecord = TrainingRecord()
    warnings: list[str] = []
    format: str

    def __post_init__(self) -> None:
        _check_format(self.format, SWEEP_FORMAT)


def check_no_run(directory: Path) -> None:
    """Refuse a directory that holds a run, finished or not.

    Raises:
        InputError: it does; with what can be done.
    """
    if (directory / RUN_SCORES_FILE).exists():
        raise InputError(f"{directory} holds a finished run", "name another directory, or use --overwrite")
    if (directory / RUN_CONFIG_FILE).exists():
        raise InputError(f"{directory} holds an unfinished run", "use --resume to go on, or --overwrite")


def check_finished_run(directory: Path) -> None:
    """Refuse what is not the directory of one finished run.

    Raises:
        InputError: it is not there, or holds a sweep, an unfinished run or none.
    """
    remedy = "give the directory of a run of `finetune` or `distill`"
    if not directory.is_dir():
        what = "is a file" if directory.exists() else f"does not exist{near_path(directory)}"
        raise InputError(f"{directory} {what}", remedy)
    if (directory / SWEEP_FILE).exists():
        first = min(directory.glob(f"*/{RUN_SCORES_FILE}"), default=None)
        raise InputError(
            f"{directory} holds a sweep, which is many runs",
            "give the directory of one of them" + ("" if first is None else f", such as {first.parent}"),
        )
    if not (directory / RUN_SCORES_FILE).is_file():
        if (directory / RUN_CONFIG_FILE).exists():
            raise InputError(f"{directory} holds an unfinished run", "finish it with --resume")
        raise InputError(f"{directory} holds no finished run", remedy)


def check_no_sweep(directory: Path, finished: bool | None = None) -> None:
    """Refuse a directory that holds a sweep.

    Args:
        directory: of the sweep.
        finished: whether it has ended; None: as its record says.

    Raises:
        InputError: it does; with what can be done.
    """
    file = directory / SWEEP_FILE
    if not file.exists():
        return
    ended = finished if finished is not None else read_json_object(file, "use --overwrite").get("finished")
    raise InputError(
        f"{directory} holds {'a finished' if ended else 'an unfinished'} sweep",
        "use --resume to go on, --overwrite, or another directory",
    )


def _check_format(found: str, read: str) -> None:
    if found != read:
        raise InputError(f"format {found[:40]!r}", f"this anglekit reads {read!r}")


class _StudentNote(Struct, frozen=True):
    """How a student was made, as recorded in its checkpoint and its run."""

    strategy: str | None = None
    init: str | None = None
    seed: Whole | None = None


@dataclass(frozen=True)
class StoppedStrategy:
    """A strategy that a sweep stopped as hopeless, with all its seeds.

    Attributes:
        strategy: its name.
        init: how its students were initialised.
        step: at which it was stopped.
        steps: of a run that was not.
    """

    strategy: str
    init: str
    step: int
    steps: int

    @property
    def words(self) -> str:
        """The strategy and when it was stopped."""
        return f"{self.strategy} at step {self.step:,} of {self.steps:,}"


@dataclass(frozen=True, eq=False)
class StudentScores:
    """The scores of one run or one sweep.

    Attributes:
        source: its directory.
        table: with the columns `SCORE_COLUMNS`; may be empty.
        training: what decides the result; the same for all its students, except `settings["data_seed"]`.
        notes: what a reader should know, a sentence each.
        unfinished: in words, how many arms of a sweep are finished and how to go on; None where all are, or were
            stopped.
        stopped: strategies of a sweep that were stopped as hopeless, which have no scores.
        examples: a value for each example, (examples,), whose plain mean is the score
            (`example_scores.ExampleScores.values`).
        n_examples: the number of examples, by evaluation table.
        primary: the task's own score, which a verdict is about.
        teacher: the teacher's scores, by evaluation table and score.
        teacher_examples: its value for each example, (examples,), as of `examples`.
        untrained: the scores of each student before its first step.
        chance: what one and the same answer to every example reaches, by evaluation table and score.
        given: by initialisation (`given:NAME`), the hash of what students that were there before started from.

    Runs of earlier versions kept no examples and did not score teacher and untrained student: these mappings are then
    empty, but for `n_examples`, and `primary` is None.
    """

    source: str
    table: pd.DataFrame
    training: TrainingRecord
    notes: tuple[str, ...]
    unfinished: str | None = None
    stopped: tuple[StoppedStrategy, ...] = ()
    examples: Mapping[ArmScore, NDArray[np.float64]] = field(default_factory=dict)
    n_examples: Mapping[str, int] = field(default_factory=dict)
    primary: str | None = None
    teacher: Mapping[tuple[str, str], float] = field(default_factory=dict)
    teacher_examples: Mapping[tuple[str, str], NDArray[np.float64]] = field(default_factory=dict)
    untrained: Mapping[ArmScore, float] = field(default_factory=dict)
    chance: Mapping[tuple[str, str], float] = field(default_factory=dict)
    given: Mapping[str, str | None] = field(default_factory=dict)


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
        out. Rows without a strategy (a teacher's) are left out, and so are columns that hold no number at all.

    Raises:
        InputError: the file cannot be read, lacks a column, has a seed that is not a whole number, or a score that is
            no number.
    """
    frame, notes = _read_frame(file, remedy), list[str]()
    texts = [name for name in frame.columns if name not in _NOT_SCORES and not _numbers(frame[name]).notna().any()]
    return _long_table(frame.drop(columns=texts), str(file), notes, file, remedy), notes


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


def _numbers(column: pd.Series) -> pd.Series:
    """Return a column as numbers: NaN where a cell is none, and where it says so itself."""
    return pd.to_numeric(column, errors="coerce")


def _long_table(frame: pd.DataFrame, source: str, notes: list[str], file: Path, remedy: str) -> pd.DataFrame:
    columns = [name for name in frame.columns if name not in _NOT_SCORES]
    numbers = {name: _numbers(frame[name]) for name in columns}
    for name, values in numbers.items():
        texts = frame[name].astype(str).str.strip()
        wrong = values.isna() & (texts != "") & (texts.str.lower() != "nan")
        if wrong.any():
            row = texts.index[int(wrong.to_numpy().argmax())]
            cell = str(texts[row])[:40]
            raise InputError(
                f"{file}, row {row} (counted from 0), column {name[:80]!r}, holds {cell!r}, which is no number", remedy
            )
    rows: list[dict[str, Any]] = []
    for position, (strategy, init, seed, data) in enumerate(frame[list(_KEY)].itertuples(index=False)):
        entry = {name: values.iloc[position] for name, values in numbers.items() if frame[name].iloc[position] != ""}
        rows += _score_rows((str(strategy), str(init), int(seed)), {"data": data, **entry}, source, notes)
    return pd.DataFrame(rows, columns=list(SCORE_COLUMNS))


def _score_rows(arm: _Arm, entry: Mapping[str, Any], source: str, notes: list[str]) -> Iterable[dict[str, Any]]:
    strategy, init, seed = arm
    for name, value in entry.items():
        if name in _NOT_SCORES or isinstance(value, bool) or not isinstance(value, int | float | np.number):
            continue
        if np.isfinite(value):
            row = (strategy, init, seed, str(entry.get("data", "")), name, float(value), source)
            yield dict(zip(SCORE_COLUMNS, row, strict=True))
        else:
            notes.append(f"{source}: {name} of {strategy}, {init}, seed {seed} is {value} and is left out")


# ---- what a run keeps beside its scores ----


class _Kept:
    """What finished runs keep beside their scores, gathered arm by arm: the fields of `StudentScores`."""

    def __init__(self) -> None:
        self.examples: dict[ArmScore, NDArray[np.float64]] = {}
        self.n_examples: dict[str, int] = {}
        self.primary: str | None = None
        self.teacher: dict[tuple[str, str], float] = {}
        self.teacher_examples: dict[tuple[str, str], NDArray[np.float64]] = {}
        self.untrained: dict[ArmScore, float] = {}
        self.chance: dict[tuple[str, str], float] = {}

    def fields(self) -> dict[str, Any]:
        """Return what was gathered."""
        return dict(vars(self))

    def add(self, directory: Path, arm: _Arm, scores: RunScores, remedy: str) -> str | None:
        """Take in a finished run; return a note where its examples are missing.

        Raises:
            InputError: its examples are damaged, or not those of its scores.
        """
        for row in scores.scores:
            if isinstance(number := row.get("examples"), int):
                self.n_examples.setdefault(str(row.get("data", "")), number)
        self.primary = self.primary or scores.primary
        for table, levels in scores.chance.items():
            self.chance |= {(table, name): value for name, value in levels.items() if np.isfinite(value)}
        for data, name, value in _values(scores.teacher):
            self.teacher.setdefault((data, name), value)
        self.untrained |= {(*arm, data, name): value for data, name, value in _values(scores.untrained)}
        file = directory / EXAMPLES_FILE
        if not file.exists():
            # A version that knows a primary score writes the file for every table.
            lost = scores.primary is not None and bool(scores.scores)
            return f"{file} is missing, so that only seeds can be resampled" if lost else None
        found = read_example_scores(file, remedy)
        kept: tuple[tuple[ScoredModel, list[ScoreRow]], ...] = (
            (STUDENT, scores.scores),
            (TEACHER, scores.teacher),
            (UNTRAINED, scores.untrained),
        )
        for model, rows in kept:
            check_example_scores(found, rows, model, file, remedy)
        for data, name, _ in _values(scores.scores):
            self.examples[(*arm, data, name)] = found.values(STUDENT, data, name)
        for data, name, _ in _values(scores.teacher):
            if (data, name) not in self.teacher_examples:
                self.teacher_examples[data, name] = found.values(TEACHER, data, name)
        return None


def _values(rows: Iterable[ScoreRow]) -> Iterable[tuple[str, str, float]]:
    """Yield table, score and value of every finite score of rows of scores.json."""
    for row in rows:
        for one in _score_rows(("", "", 0), row, "", []):
            yield one["data"], one["score"], one["value"]


def _read_sweep(directory: Path) -> StudentScores:
    sweep = read_document(directory / SWEEP_FILE, _ScoredSweep, _AGAIN_OR_LEAVE)
    file = directory / SWEEP_SCORES_FILE
    if not file.exists():
        raise InputError(
            f"{directory} holds a sweep of which no arm is finished", "go on with `anglekit sweep --resume`"
        )
    frame, notes = _read_frame(file, _RESUME), list[str]()
    table = _long_table(frame, str(directory), notes, file, _RESUME)
    finished, unfinished = len(frame[["strategy", "init", "seed"]].drop_duplicates()), None
    stopped = [arm for arm in sweep.arms if arm.name in sweep.stopped]
    if len(sweep.arms) > finished + len(stopped):
        also = f" and {len(stopped)} were stopped as hopeless" if stopped else ""
        how_many = f"{finished} of {len(sweep.arms)} arms are finished{also}"
        unfinished = f"{directory}: {how_many}; go on with `anglekit sweep --resume`"
        notes.append(unfinished)
    latest = {(arm.strategy, arm.init): 0 for arm in stopped}
    for arm in stopped:
        # Of seeds that were added later no step was taken.
        latest[arm.strategy, arm.init] = max(latest[arm.strategy, arm.init], sweep.stopped[arm.name])
    left_out = tuple(StoppedStrategy(*key, step, sweep.stopping.steps) for key, step in latest.items())
    if left_out:
        named = ", ".join(f"{one.init}: {one.words}" for one in left_out)
        notes.append(
            f"{directory}: stopped as hopeless, so without scores and in no verdict: {named}; `anglekit sweep "
            "--resume` without --stop-hopeless trains them to the end"
        )
    notes += [f"{directory}: {warning}" for warning in sweep.warnings]
    known = {(arm.strategy, arm.init, arm.seed) for arm in sweep.arms if arm.strategy}
    for strategy, init, seed in zip(frame["strategy"], frame["init"], frame["seed"], strict=True):
        if known and (str(strategy), str(init), int(seed)) not in known:
            raise InputError(
                f"{file} has a row of {strategy}, {init}, seed {seed}, which is no arm of {SWEEP_FILE}", _RESUME
            )
    kept = _Kept()
    for arm in sweep.arms:
        run = directory / arm.name
        if not (run / RUN_SCORES_FILE).is_file() or not (own := _rows_of(table, arm)):
            continue
        scores = read_document(run / RUN_SCORES_FILE, RunScores, _AGAIN_OR_LEAVE)
        _check_same_scores(own, scores, file, run)
        if (note := kept.add(run, (arm.strategy, arm.init, arm.seed), scores, _AGAIN_OR_LEAVE)) is not None:
            notes.append(note)
    if "examples" in frame:
        for data, number in zip(frame["data"], _numbers(frame["examples"]), strict=True):
            if number >= 0 and number % 1 == 0:
                kept.n_examples.setdefault(str(data), int(number))
    configs = [directory / arm.name / RUN_CONFIG_FILE for arm in sweep.arms]
    first = next((file for file in configs if file.is_file()), None)
    settings = {} if first is None else read_document(first, TrainingRecord, _AGAIN_OR_LEAVE).settings
    training = replace(sweep.data, settings=settings)
    given = {given_init(name): student.sha256_with_head for name, student in sweep.students.items()}
    return StudentScores(
        str(directory), table, training, tuple(notes), unfinished, left_out, **kept.fields(), given=given
    )


def scored_runs(directory: Path) -> list[tuple[Path, tuple[str, str, int]]]:
    """Return the finished runs of a sweep, or the finished run that this is: directory, strategy, init and seed.

    Raises:
        InputError: a record is damaged, or the run is not a student's.
    """
    kind = scored_as(directory)
    if kind == "sweep":
        arms = read_document(directory / SWEEP_FILE, _ScoredSweep, _AGAIN_OR_LEAVE).arms
        runs = [(directory / arm.name, (arm.strategy, arm.init, arm.seed)) for arm in arms]
        return [(run, arm) for run, arm in runs if (run / RUN_SCORES_FILE).is_file()]
    if kind == "run" and (directory / RUN_SCORES_FILE).is_file():
        return [(directory, _student_arm(directory))]
    return []


def _rows_of(table: pd.DataFrame, arm: _ScoredArm) -> dict[tuple[str, str], float]:
    """Return an arm's scores by table and name."""
    own = table[(table["strategy"] == arm.strategy) & (table["init"] == arm.init) & (table["seed"] == arm.seed)]
    return {(str(data), str(name)): float(value) for data, name, value in own[["data", "score", "value"]].to_numpy()}


def _check_same_scores(table: Mapping[tuple[str, str], float], scores: RunScores, file: Path, run: Path) -> None:
    """Check that the sweep's table says of an arm what its run says."""
    for data, name, value in _values(scores.scores):
        found = table.get((data, name))
        if found != value and np.isfinite(value):
            said = f"no {name}" if found is None else f"{name} {found:.6g}"
            raise InputError(
                f"{file} has {said} for {run.name} on {data!r}, and {run / RUN_SCORES_FILE} {value:.6g}", _RESUME
            )


def _read_run(directory: Path) -> StudentScores:
    if not (directory / RUN_SCORES_FILE).exists():
        raise InputError(f"{directory} holds an unfinished run", "go on with --resume, or leave it out")
    scores = read_document(directory / RUN_SCORES_FILE, RunScores, _AGAIN_OR_LEAVE)
    arm = _student_arm(directory)
    config = directory / RUN_CONFIG_FILE
    training = read_document(config, TrainingRecord, _AGAIN_OR_LEAVE) if config.exists() else TrainingRecord()
    notes: list[str] = []
    rows = [row for entry in scores.scores for row in _score_rows(arm, entry, str(directory), notes)]
    kept = _Kept()
    if (missing := kept.add(directory, arm, scores, _AGAIN_OR_LEAVE)) is not None:
        notes.append(missing)
    table = pd.DataFrame(rows, columns=list(SCORE_COLUMNS))
    given = {} if given_name(arm[1]) is None else {arm[1]: training.given_sha256}
    return StudentScores(str(directory), table, training, tuple(notes), **kept.fields(), given=given)


def _student_arm(directory: Path) -> _Arm:
    """Return strategy, initialisation and seed of a student's run."""
    note = _StudentNote()
    for file in (directory / "checkpoint" / STUDENT_FILE, directory / "provenance.json"):
        if file.exists() and note.strategy is None:
            note = read_document(file, _StudentNote, _AGAIN_OR_LEAVE)
    if note.strategy is None or note.init is None or note.seed is None:
        raise InputError(
            f"{directory} is not the run of a distilled student", "leave it out, or give a run of `distill`"
        )
    return note.strategy, note.init, note.seed
