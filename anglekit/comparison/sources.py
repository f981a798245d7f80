"""What `compare` reads: Geometries, sweeps and runs, as one table of scores and one list of Geometries that fit.

A sweep is a directory with sweep.json and scores.csv; a run one with scores.json, run_config.json and its student's
note. They are read as the plain files that they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from anglekit.errors import InputError
from anglekit.results.geometry import Geometry
from anglekit.runtime.files import read_json_object

__all__ = ["SCORE_COLUMNS", "UNRECORDED", "Sources", "read_sources", "student_arms"]

#: A row for each arm, evaluation table and score.
SCORE_COLUMNS = ("strategy", "init", "seed", "data", "score", "value", "source")

#: Stands where a student's training was not recorded.
UNRECORDED = "unrecorded"

_WRITES = "of `anglekit analyze`, `anglekit sweep` or `anglekit distill`"
_SWEEP_FORMAT, _SCORES_FORMAT = "anglekit-sweep-1", "anglekit-scores-1"
_NOT_SCORES = ("strategy", "init", "seed", "data", "examples", "steps", "selected_step", "seconds")
_SAME_SETTINGS = (
    "reading",
    "final_norm",
    "special_tokens",
    "max_length",
    "target_max_length",
    "projection",
    "teacher_layers",
)


@dataclass(frozen=True, eq=False)
class Sources:
    """What was found.

    Attributes:
        geometries: by the name of their directory.
        scores: of columns `SCORE_COLUMNS`; may be empty.
        notes: what a reader should know about them.
    """

    geometries: list[tuple[str, Geometry]]
    scores: pd.DataFrame
    notes: tuple[str, ...] = ()


@dataclass(eq=False)
class _Scores:
    """Score rows as they are gathered, with the facts that must be the same for all."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    _facts: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    _settings: dict[str, tuple[Any, str]] = field(default_factory=dict)

    def add(self, strategy: str, init: str, seed: int, entry: Mapping[str, Any], source: str) -> None:
        for name, value in entry.items():
            if name in _NOT_SCORES or isinstance(value, bool) or not isinstance(value, int | float | np.number):
                continue
            if not np.isfinite(value):
                self.notes.append(f"{source}: {name} of {strategy}, {init}, seed {seed} is {value} and is left out")
                continue
            row = (strategy, init, int(seed), str(entry.get("data", "")), str(name), float(value), source)
            self.rows.append(dict(zip(SCORE_COLUMNS, row, strict=True)))

    def must_agree(self, name: str, value: object, shown: str, source: str) -> None:
        """Check that what makes scores comparable is the same in all sources."""
        if value is None:
            return
        stored, seen, where = self._facts.setdefault(name, (str(value), shown, source))
        if stored != str(value):
            raise InputError(
                f"{source} and {where} differ in the {name} ({shown} and {seen}), so that their scores cannot be "
                "paired",
                "compare runs of one teacher on one task with the same tables",
            )

    def facts_of(self, facts: Mapping[str, Any], source: str) -> None:
        """Check task, teacher and tables."""
        self.must_agree("task", facts.get("task"), str(facts.get("task")), source)
        origin = facts.get("origin_sha256")
        self.must_agree("teacher", origin, f"sha256 {str(origin)[:12]}", source)
        tables = facts.get("tables")
        for table, found in tables.items() if isinstance(tables, dict) else ():
            sha = found.get("sha256") if isinstance(found, dict) else None
            self.must_agree(f"table {table!r}", sha, f"sha256 {str(sha)[:12]}", source)

    def settings_of(self, settings: object, source: str) -> None:
        """Note once where runs were trained differently."""
        for name, value in settings.items() if isinstance(settings, dict) else ():
            if name == "data_seed":
                continue
            stored, where = self._settings.setdefault(name, (value, source))
            if stored != value:
                self.notes.append(f"{source} and {where} were trained with different {name}: {value} and {stored}")


def read_sources(sources: Sequence[str | Path | Geometry]) -> Sources:
    """Read directories, and check that what is in them can be compared.

    Args:
        sources: Geometry, sweep and run directories in any mixture, or Geometries.

    Raises:
        InputError: a directory is not there, damaged, or holds none of these; Geometries of different probes, teachers
            or settings; scores of different tasks, teachers or tables; two students of one arm.
    """
    geometries: list[tuple[str, Geometry]] = []
    scores = _Scores()
    seen: set[Path] = set()
    for number, source in enumerate(sources):
        if isinstance(source, Geometry):
            geometries.append((f"geometry {number + 1}", source))
            continue
        directory = Path(source)
        if not directory.is_dir():
            what = "is a file" if directory.exists() else "does not exist"
            raise InputError(f"{directory} {what}", f"give a directory {_WRITES}")
        if directory.resolve() in seen:
            continue
        seen.add(directory.resolve())
        found = False
        if (directory / "geometry.json").exists():
            geometries.append((str(directory), Geometry.load(directory)))
            found = True
        if (directory / "sweep.json").exists():
            _read_sweep(directory, scores)
            found = True
        elif (directory / "scores.json").exists() or (directory / "run_config.json").exists():
            _read_run(directory, scores)
            found = True
        if not found:
            raise InputError(
                f"{directory} holds no Geometry and no scores", f"give a directory {_WRITES}{_below(directory)}"
            )
    _check_geometries(geometries)
    table = pd.DataFrame(scores.rows, columns=list(SCORE_COLUMNS))
    return Sources(geometries, _once(table), tuple(dict.fromkeys(scores.notes)))


def student_arms(geometry: Geometry) -> dict[str, tuple[str, str, int | None]]:
    """Return strategy, init and seed of every student; a student without a record is a strategy of its own name."""
    arms: dict[str, tuple[str, str, int | None]] = {}
    for entry in geometry.provenance["students"]:
        strategy, init, seed = entry.get("strategy"), entry.get("init"), entry.get("seed")
        arms[str(entry["name"])] = (
            str(entry["name"] if strategy is None else strategy),
            UNRECORDED if init is None else str(init),
            None if seed is None else int(seed),
        )
    return arms


def _below(directory: Path) -> str:
    """Return a hint where the directories are that were meant."""
    marks = ("geometry.json", "sweep.json", "plan.json")  # a run without a plan is no student
    try:
        inner = sorted(child.name for child in directory.iterdir() if any((child / mark).exists() for mark in marks))
    except OSError:
        return ""
    if not inner:
        return ""
    return f"; below it: {', '.join(inner[:5])}{' and more' if len(inner) > 5 else ''}"


def _read_json(file: Path) -> dict[str, Any]:
    return read_json_object(file, f"run it again, or leave {file.parent} out")


def _check_format(file: Path, content: Mapping[str, Any], expected: str) -> None:
    if content.get("format") != expected:
        raise InputError(f"{file} has format {content.get('format')!r}", f"this anglekit reads {expected!r}")


def _read_sweep(directory: Path, scores: _Scores) -> None:
    content = _read_json(directory / "sweep.json")
    _check_format(directory / "sweep.json", content, _SWEEP_FORMAT)
    file = directory / "scores.csv"
    if not file.exists():
        raise InputError(
            f"{directory} holds a sweep of which no arm is finished", "go on with `anglekit sweep --resume`"
        )
    try:
        # A strategy is called "none", which pandas must not take for a missing value.
        frame = pd.read_csv(file, keep_default_na=False, na_values={}, encoding="utf-8")
    except (OSError, ValueError) as error:  # pandas' own errors derive from ValueError
        raise InputError(f"{file} cannot be read ({error})", "resume the sweep to write it again") from error
    missing = [name for name in ("strategy", "init", "seed", "data") if name not in frame.columns]
    if missing:
        raise InputError(f"{file} lacks the column {missing[0]!r}", "resume the sweep to write it again")
    seeds = pd.to_numeric(frame["seed"], errors="coerce")
    if seeds.isna().any() or (seeds % 1 != 0).any():
        raise InputError(f"{file} has a seed that is no whole number", "resume the sweep to write it again")
    columns = [name for name in frame.columns if name not in _NOT_SCORES]
    numbers = frame[columns].apply(pd.to_numeric, errors="coerce").dropna(axis="columns", how="all")
    names = list(numbers.columns)
    facts = content.get("data")
    scores.facts_of(facts if isinstance(facts, dict) else {}, str(directory))
    for position, (strategy, init, data) in enumerate(
        zip(frame["strategy"], frame["init"], frame["data"], strict=True)
    ):
        entry = {"data": data} | {
            name: numbers[name].iloc[position] for name in names if frame[name].iloc[position] != ""
        }
        scores.add(str(strategy), str(init), int(seeds.iloc[position]), entry, str(directory))
    arms = content.get("arms")
    names_of_arms = [arm.get("name") for arm in arms if isinstance(arm, dict)] if isinstance(arms, list) else []
    finished = len(frame[["strategy", "init", "seed"]].drop_duplicates())
    if len(names_of_arms) > finished:
        scores.notes.append(f"{directory}: {finished} of {len(names_of_arms)} arms are finished")
    warnings = content.get("warnings")
    scores.notes += [f"{directory}: {one}" for one in warnings] if isinstance(warnings, list) else []
    for name in names_of_arms:
        config = directory / str(name) / "run_config.json"
        if config.is_file():
            scores.settings_of(_read_json(config).get("settings"), str(directory))
            break


def _read_run(directory: Path, scores: _Scores) -> None:
    if not (directory / "scores.json").exists():
        raise InputError(f"{directory} holds an unfinished run", "go on with --resume, or leave it out")
    content = _read_json(directory / "scores.json")
    _check_format(directory / "scores.json", content, _SCORES_FORMAT)
    note: dict[str, Any] = {}
    for file in (directory / "checkpoint" / "anglekit_student.json", directory / "provenance.json"):
        if file.exists() and "strategy" not in note:
            note = _read_json(file)
    if not {"strategy", "init", "seed"} <= set(note):
        raise InputError(
            f"{directory} is not the run of a distilled student", "leave it out, or give a run of `distill`"
        )
    if type(note["seed"]) is not int:
        raise InputError(f"{directory} has seed {str(note['seed'])[:40]!r}, which is no whole number", "run it again")
    entries = content.get("scores")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(f"{directory / 'scores.json'} holds no list of scores", "run it again, or leave it out")
    if (directory / "run_config.json").exists():
        config = _read_json(directory / "run_config.json")
        scores.facts_of(config, str(directory))
        scores.settings_of(config.get("settings"), str(directory))
    for entry in entries:
        scores.add(str(note["strategy"]), str(note["init"]), note["seed"], entry, str(directory))


def _once(scores: pd.DataFrame) -> pd.DataFrame:
    """Return each arm's scores once; a run of a sweep may have come by itself too."""
    key = ["strategy", "init", "seed", "data", "score"]
    unique = scores.drop_duplicates([*key, "value"], ignore_index=True)
    clash = unique[unique.duplicated(key, keep=False)]
    if len(clash):
        first, second = clash[clash[key].eq(clash[key].iloc[0]).all(axis=1)].head(2).to_dict(orient="records")
        raise InputError(
            f"{first['strategy']}, {first['init']}, seed {first['seed']} came twice with different "
            f"{first['score']}: in {first['source']} and in {second['source']}",
            "give one of them",
        )
    return unique


def _check_geometries(geometries: Sequence[tuple[str, Geometry]]) -> None:
    if not geometries:
        return
    where, first = geometries[0]
    taken: dict[tuple[str, str, int | None], tuple[str, str, str]] = {}
    for name, geometry in geometries:
        for what, one, other in _facts(geometry, first):
            if one != other:
                raise InputError(
                    f"{name} and {where} differ in the {what} ({_short(one)} and {_short(other)}), so that examples "
                    "cannot be paired",
                    "analyse all students alike",
                )
        for entry, (student, arm) in zip(geometry.provenance["students"], student_arms(geometry).items(), strict=True):
            sha = str(entry.get("sha256", ""))
            if arm not in taken:
                taken[arm] = (name, student, sha)
            elif taken[arm][2] != sha or not sha:
                raise InputError(
                    f"{', '.join(str(part) for part in arm if part is not None)} came twice: "
                    f"student {taken[arm][1]} of {taken[arm][0]} and {student} of {name}",
                    "give one of them",
                )


def _facts(geometry: Geometry, first: Geometry) -> list[tuple[str, Any, Any]]:
    facts: list[tuple[str, Any, Any]] = []
    for what, part, key in (
        ("probe", "probe", "sha256"),
        ("probe's text column", "probe", "text"),
        ("probe's second text column", "probe", "text_pair"),
        ("probe's target column", "probe", "target"),
        ("teacher", "teacher", "sha256"),
    ):
        one, other = ((found.provenance.get(part) or {}).get(key) for found in (geometry, first))
        facts.append((what, one, other))
    facts += [(f"setting {key}", geometry.settings.get(key), first.settings.get(key)) for key in _SAME_SETTINGS]
    return facts


def _short(value: object) -> str:
    """Return a value for a message; a hash by its first digits."""
    text = str(value)
    return f"sha256 {text[:12]}" if len(text) == 64 and " " not in text else text
