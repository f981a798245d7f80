"""What `compare` rests on: Geometries, sweeps and runs that fit together, and one table of their scores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from anglekit.comparison.cells import ScoreKey
from anglekit.errors import InputError
from anglekit.results.document import Arm
from anglekit.results.files import holds_geometry
from anglekit.results.geometry import Geometry
from anglekit.results.scores import SCORE_COLUMNS, StoppedStrategy, StudentScores, read_student_scores, scored_as
from anglekit.runtime.files import near_path
from anglekit.settings_fields import one_or_more
from anglekit.vocabulary import given_name

_K = TypeVar("_K")
_V = TypeVar("_V")

_WRITES: Final = "of `anglekit analyze`, `anglekit sweep` or `anglekit distill`"
_SAME_SETTINGS: Final = (
    "reading",
    "final_norm",
    "special_tokens",
    "max_length",
    "target_max_length",
    "projection",
    "teacher_layers",
)


@dataclass(frozen=True, eq=False)
class Evidence:
    """What was found.

    Attributes:
        geometries: by the name of their directory.
        scores: with the columns `SCORE_COLUMNS`; may be empty.
        notes: what a reader should know about them.
        unfinished: of each sweep that is not finished, how many arms are and how to go on.
        stopped: strategies that sweeps stopped as hopeless, which have no scores.
        examples: the examples' parts of each score, (examples,), whose mean is the score.
        n_examples: by evaluation table.
        primary: the task's own score; of old runs, the first that they name. None without scores.
        teacher: the teacher's scores, by evaluation table and score.
        teacher_examples: its part of each score by example, (examples,).
        untrained: the students' scores before their first step.
        chance: what one answer to every example reaches, by evaluation table and score.
    """

    geometries: list[tuple[str, Geometry]]
    scores: pd.DataFrame
    notes: tuple[str, ...] = ()
    unfinished: tuple[str, ...] = ()
    stopped: tuple[StoppedStrategy, ...] = ()
    examples: Mapping[ScoreKey, NDArray[np.float64]] = field(default_factory=dict)
    n_examples: Mapping[str, int] = field(default_factory=dict)
    primary: str | None = None
    teacher: Mapping[tuple[str, str], float] = field(default_factory=dict)
    teacher_examples: Mapping[tuple[str, str], NDArray[np.float64]] = field(default_factory=dict)
    untrained: Mapping[ScoreKey, float] = field(default_factory=dict)
    chance: Mapping[tuple[str, str], float] = field(default_factory=dict)

    @property
    def strategies(self) -> list[str]:
        """The strategies of all students, in the order read; a strategy may appear several times."""
        arms = (arm for _, geometry in self.geometries for arm in geometry.arms.values())
        return [*(arm.strategy for arm in arms), *self.scores["strategy"]]


def read_evidence(sources: str | Path | Geometry | Sequence[str | Path | Geometry]) -> Evidence:
    """Read Geometry, sweep and run directories in any mixture, and check that their contents can be compared.

    Raises:
        InputError: no directory was given; one is missing, damaged, or holds none of these; Geometries of different
            probes, teachers or settings; scores of different tasks, teachers or tables; two students of one arm.
    """
    given = one_or_more(sources)
    if not given:
        raise InputError("nothing came to compare", "give directories of `anglekit analyze`, `sweep` or `distill`")
    geometries: list[tuple[str, Geometry]] = []
    scores: list[StudentScores] = []
    seen: set[Path] = set()
    for number, source in enumerate(given):
        if isinstance(source, Geometry):
            geometries.append((f"geometry {number + 1}", source))
            continue
        if not isinstance(source, str | Path):
            raise InputError(f"{source!r} came to compare", "give directories or Geometries")
        directory = Path(source)
        if not directory.is_dir():
            what = "is a file" if directory.exists() else f"does not exist{near_path(directory)}"
            raise InputError(f"{directory} {what}", f"give a directory {_WRITES}")
        if directory.resolve() in seen:
            continue
        seen.add(directory.resolve())
        if holds_geometry(directory):
            geometries.append((str(directory), Geometry.load(directory)))
        if scored_as(directory) is not None:
            scores.append(read_student_scores(directory))
        elif not holds_geometry(directory):
            raise InputError(
                f"{directory} holds no Geometry and no scores", f"give a directory {_WRITES}{_below(directory)}"
            )
    _check_geometries(geometries)
    _check_scores(scores)
    _check_given(geometries, scores)
    tables = [each.table for each in scores if len(each.table)] or [pd.DataFrame(columns=list(SCORE_COLUMNS))]
    notes = [*(note for each in scores for note in each.notes), *_setting_notes(scores)]
    unfinished = tuple(each.unfinished for each in scores if each.unfinished is not None)
    table = _once(pd.concat(tables, ignore_index=True))
    return Evidence(
        geometries,
        table,
        tuple(dict.fromkeys(notes)),
        unfinished,
        tuple(one for each in scores for one in each.stopped),
        examples=_together(each.examples for each in scores),
        n_examples=_together(each.n_examples for each in scores),
        primary=next((each.primary for each in scores if each.primary in set(table["score"])), None)
        or next(iter(table["score"]), None),
        teacher=_together(each.teacher for each in scores),
        teacher_examples=_together(each.teacher_examples for each in scores),
        untrained=_together(each.untrained for each in scores),
        chance=_together(each.chance for each in scores),
    )


def _together(parts: Iterable[Mapping[_K, _V]]) -> dict[_K, _V]:
    return {key: value for part in parts for key, value in part.items()}


def _below(directory: Path) -> str:
    """Return a hint: the result directories inside this one, which were probably meant."""
    try:
        inner = sorted(child.name for child in directory.iterdir() if holds_geometry(child) or scored_as(child))
    except OSError:
        return ""
    return f"; below it: {', '.join(inner[:5])}{' and more' if len(inner) > 5 else ''}" if inner else ""


def _check_scores(scores: Sequence[StudentScores]) -> None:
    """Check that task, teacher and tables are the same wherever they were recorded."""
    known: dict[str, tuple[str, str, str]] = {}
    for each in scores:
        training = each.training
        facts = [
            ("task", training.task, training.task, "give runs of one task"),
            (*_hashed("teacher", training.origin_sha256), "give students of one teacher"),
        ]
        for name, table in training.tables.items():
            wanted = "train all on one table (--train)" if name == "train" else "score all on one table (--validation)"
            facts.append((*_hashed(f"table {name!r}", table.sha256), wanted))
        for name, value, shown, remedy in facts:
            if value is None or shown is None:
                continue
            stored, seen, where = known.setdefault(name, (value, shown, each.source))
            if stored != value:
                raise InputError(
                    f"{each.source} and {where} differ in the {name} ({shown} and {seen}), so that their scores cannot "
                    "be paired",
                    f"{remedy}, or compare each by itself",
                )


def _check_given(geometries: Sequence[tuple[str, Geometry]], scores: Sequence[StudentScores]) -> None:
    """Check that students of one name that were there before training are one student: they are never pooled."""
    known: dict[str, tuple[str, str]] = {}
    recorded = [
        (where, student.init, student.given_sha256)
        for where, geometry in geometries
        for student in geometry.document.provenance.students
    ]
    recorded += [(each.source, init, sha256) for each in scores for init, sha256 in each.given.items()]
    for where, init, sha256 in recorded:
        if init is None or sha256 is None or (name := given_name(init)) is None:
            continue
        first, place = known.setdefault(name, (sha256, where))
        if first != sha256:
            raise InputError(
                f"the student called {name!r} started from other weights in {where} than in {place} "
                f"(sha256 {sha256[:12]} and {first[:12]})",
                "train again with a name of its own for each (--student NAME=DIR), or compare each by itself",
            )


def _hashed(name: str, sha256: str | None) -> tuple[str, str | None, str | None]:
    return name, sha256, f"sha256 {str(sha256)[:12]}"


def _setting_notes(scores: Sequence[StudentScores]) -> Iterable[str]:
    """Return a note for each setting in which a run was trained differently from the first that has it."""
    known: dict[str, tuple[Any, str]] = {}
    for each in scores:
        for name, value in each.training.settings.items():
            stored, where = known.setdefault(name, (value, each.source))
            if name != "data_seed" and stored != value:
                yield f"{each.source} and {where} were trained with different {name}: {value} and {stored}"


def _once(scores: pd.DataFrame) -> pd.DataFrame:
    """Return each arm's scores once; a sweep's run may also have been given by itself."""
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
    taken: dict[Arm, tuple[str, str, str | None]] = {}
    for name, geometry in geometries:
        for what, one, other in _facts(geometry, first):
            if one != other:
                raise InputError(
                    f"{name} and {where} differ in the {what} ({_short(one)} and {_short(other)}), so that examples "
                    "cannot be paired",
                    "analyse all students alike",
                )
        for student in geometry.document.provenance.students:
            place, twin, sha256 = taken.setdefault(student.arm, (name, student.name, student.sha256))
            own = (place, twin) == (name, student.name)
            if not own and (sha256 != student.sha256 or not sha256):
                raise InputError(
                    f"{', '.join(str(part) for part in student.arm if part is not None)} came twice: "
                    f"student {twin} of {place} and {student.name} of {name}",
                    "give one of them",
                )


def _facts(geometry: Geometry, first: Geometry) -> list[tuple[str, Any, Any]]:
    """Return the facts that must be the same in two Geometries: each one's name, and its value in both."""
    mine, theirs = geometry.document.provenance, first.document.provenance
    return [
        ("probe", mine.probe.sha256, theirs.probe.sha256),
        ("probe's text column", mine.probe.text, theirs.probe.text),
        ("probe's second text column", mine.probe.text_pair, theirs.probe.text_pair),
        ("probe's target column", mine.probe.target, theirs.probe.target),
        ("teacher", mine.teacher.sha256, theirs.teacher.sha256),
        *((f"setting {key}", geometry.settings.get(key), first.settings.get(key)) for key in _SAME_SETTINGS),
        # Older Geometries do not record what causal models read; it was the text alone.
        ("setting prompts", *(each.settings.get("prompts", "alone") for each in (geometry, first))),
        # The length of the padding matters only where padding counts.
        ("setting pad_to", *(each.settings.get("pad_to") if each.official else None for each in (geometry, first))),
    ]


def _short(value: object) -> str:
    """Return a value for a message; a hash is cut to its first digits."""
    text = str(value)
    return f"sha256 {text[:12]}" if len(text) == 64 and " " not in text else text
