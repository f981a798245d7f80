"""What figures are drawn from: Geometries and tables of scores, read from directories and files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from anglekit.comparison.evidence import read_evidence
from anglekit.errors import InputError
from anglekit.results.files import holds_geometry
from anglekit.results.geometry import Geometry
from anglekit.results.scores import ANGLES_FOLDER, read_score_table, scored_as
from anglekit.results.training_records import TrainingRecords, read_training_records
from anglekit.runtime.files import names_told_apart, near_path


@dataclass(frozen=True, eq=False)
class FigureInputs:
    """What a figure is drawn from: Geometries, and a table of scores per task (`results.scores.SCORE_COLUMNS`).

    `names` are the names of the directories that the Geometries were read from; `score_names` are those of the sweeps
    and files that the scores were read from. Single runs together make one table. `records` hold, for each table of
    scores, what its runs keep beside them; of a file of scores nothing.
    """

    geometries: Sequence[Geometry]
    scores: Sequence[pd.DataFrame] = ()
    names: Sequence[str] = ()
    score_names: Sequence[str] = ()
    records: Sequence[TrainingRecords] = ()

    @property
    def geometry(self) -> Geometry:
        """The only Geometry, for a figure that takes one."""
        return self.geometries[0]


def read_figure_inputs(
    places: Sequence[str | Path], *, over_training: bool = False, beside: Sequence[str | Path] = ()
) -> FigureInputs:
    """Read what figures are drawn from.

    Args:
        places: directories of `anglekit analyze`, `sweep` or `distill`; files of scores (.csv); or directories that
            hold `geometry...` and `sweep...` below them, as `anglekit demo` and `reproduce` write.
        over_training: take of a run the Geometries that `distill --angles-every` kept in it, and not its scores.
            Its student is called after the run's directory, with directories above it where two runs end in one name.
        beside: other places of the same figure, from whose runs those of `places` are told apart.

    Raises:
        InputError: a place does not exist, is damaged, or holds none of these; or a run kept no Geometry.
    """
    geometries: list[tuple[str, Geometry]] = []
    scores: list[tuple[str, pd.DataFrame]] = []
    runs: list[Path] = []
    records: list[TrainingRecords] = []
    opened = _opened(places, over_training=over_training)
    run_names = _run_names([*opened, *map(Path, beside)]) if over_training else {}
    for place in opened:
        name = place.resolve().name
        if place.suffix == ".csv" and place.is_file():
            table, _ = read_score_table(place, "give the scores.csv of `anglekit sweep`")
            if table.empty:
                raise InputError(f"{place} holds no score", "give the scores.csv of `anglekit sweep`")
            scores.append((name.removesuffix(".csv"), table))
            records.append(TrainingRecords())
        elif scored_as(place) == "sweep":
            scores.append((name, read_evidence([place]).scores))
            records.append(read_training_records([place]))
        elif scored_as(place) == "run" and not holds_geometry(place):
            runs.append(place)
        else:
            geometry, run = Geometry.load(place), _run_of(place)
            called_after = run_names.get(run) if run is not None and len(geometry.students) == 1 else None
            geometries.append((name, geometry if called_after is None else geometry.with_student_named(called_after)))
    if runs:
        scores.append((runs[0].resolve().parent.name, read_evidence(runs).scores))
        records.append(read_training_records(runs))
    return FigureInputs(
        geometries=tuple(geometry for _, geometry in geometries),
        names=tuple(name for name, _ in geometries),
        scores=tuple(table for _, table in scores),
        score_names=tuple(name for name, _ in scores),
        records=tuple(records),
    )


def _run_of(place: Path) -> Path | None:
    """Return the run that a place is, or that kept the Geometry there while it trained; None where there is none."""
    resolved = place.resolve()
    if scored_as(resolved) == "run":
        return resolved
    kept = resolved.parent.name == ANGLES_FOLDER and scored_as(resolved.parent.parent) == "run"
    return resolved.parent.parent if kept else None


def _run_names(places: Sequence[Path]) -> dict[Path, str]:
    runs = [run for place in places if (run := _run_of(place)) is not None]
    return dict(zip(runs, names_told_apart(runs), strict=True))


def _opened(places: Sequence[str | Path], *, over_training: bool) -> list[Path]:
    """Return the places, a directory of results replaced by its geometries and sweeps, and a run by its geometries."""
    found = []
    for place in map(Path, places):
        if over_training and scored_as(place) == "run" and not holds_geometry(place):
            kept = [one for one in sorted((place / ANGLES_FOLDER).glob("geometry*")) if one.is_dir()]
            if not kept:
                raise InputError(
                    f"{place} is a run without angles over training",
                    "train it with `anglekit distill --angles-every STEPS --probe TABLE`, which keeps them",
                )
            found += kept
        elif place.is_dir() and not (holds_geometry(place) or scored_as(place)):
            inner = [one for kind in ("geometry*", "sweep*") for one in sorted(place.glob(kind)) if one.is_dir()]
            found += inner or [place]
        elif place.exists():
            found.append(place)
        else:
            raise InputError(
                f"no directory or file {place}{near_path(place)}",
                "give a directory of `anglekit analyze`, `sweep` or `distill`, or a scores.csv",
            )
    return found
