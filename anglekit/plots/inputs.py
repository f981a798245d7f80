"""What figures are drawn from: Geometries and tables of scores, read from directories and files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from anglekit.comparison.sources import SCORE_COLUMNS, read_sources
from anglekit.errors import InputError
from anglekit.results.geometry import Geometry

__all__ = ["FigureInputs", "read_figure_inputs", "read_score_table"]

_KEY = ("strategy", "init", "seed", "data")
_NOT_SCORES = ("examples", "steps", "selected_step", "seconds")


@dataclass(frozen=True, eq=False)
class FigureInputs:
    """What a figure is drawn from.

    Attributes:
        geometries: what was analysed.
        scores: a table per task, of columns `anglekit.comparison.sources.SCORE_COLUMNS`.
        names: of the directories of the Geometries, where they were read.
        score_names: of the sweeps and files of the scores, likewise; single runs are one table together.
    """

    geometries: Sequence[Geometry]
    scores: Sequence[pd.DataFrame] = ()
    names: Sequence[str] = ()
    score_names: Sequence[str] = ()

    @property
    def geometry(self) -> Geometry:
        """The one Geometry of a figure that takes one."""
        return self.geometries[0]


def read_figure_inputs(places: Sequence[str | Path]) -> FigureInputs:
    """Read what figures are drawn from.

    Args:
        places: directories of `anglekit analyze`, `sweep` or `distill`; files of scores (.csv); or directories that
            hold `geometry...` and `sweep...` below them, as `anglekit demo` and `reproduce` write.

    Raises:
        InputError: a place is not there, damaged, or holds nothing of these.
    """
    geometries: list[tuple[str, Geometry]] = []
    scores: list[tuple[str, pd.DataFrame]] = []
    runs: list[Path] = []
    for place in _opened(places):
        name = place.resolve().name
        if place.suffix == ".csv" and place.is_file():
            scores.append((name.removesuffix(".csv"), read_score_table(place)))
        elif (place / "sweep.json").exists():
            scores.append((name, read_sources([place]).scores))
        elif (place / "scores.json").exists() and not (place / "geometry.json").exists():
            runs.append(place)
        else:
            geometries.append((name, Geometry.load(place)))
    if runs:
        scores.append((runs[0].resolve().parent.name, read_sources(runs).scores))
    return FigureInputs(
        geometries=tuple(geometry for _, geometry in geometries),
        names=tuple(name for name, _ in geometries),
        scores=tuple(table for _, table in scores),
        score_names=tuple(name for name, _ in scores),
    )


def _opened(places: Sequence[str | Path]) -> list[Path]:
    """Return the places, a directory of results replaced by its geometries and sweeps."""
    found = []
    for place in map(Path, places):
        marks = ("geometry.json", "sweep.json", "scores.json")
        if place.is_dir() and not any((place / mark).exists() for mark in marks):
            inner = [one for kind in ("geometry*", "sweep*") for one in sorted(place.glob(kind)) if one.is_dir()]
            found += inner or [place]
        else:
            found.append(place)
    return found


def read_score_table(file: str | Path) -> pd.DataFrame:
    """Read a csv with the columns `strategy, init, seed, data` and a column for each score: a row per arm and table.

    Returns:
        A row for each arm, table and score, of columns `SCORE_COLUMNS`; rows without a strategy (a teacher) are left
        out.

    Raises:
        InputError: the file cannot be read, lacks a column, holds no score or a seed that is no whole number.
    """
    try:
        # A strategy is called "none", which pandas must not take for a missing value.
        frame = pd.read_csv(file, keep_default_na=False, na_values={}, encoding="utf-8")
    except (OSError, ValueError) as error:  # pandas' own errors derive from ValueError
        raise InputError(f"{file} cannot be read ({error})", "give the scores.csv of `anglekit sweep`") from error
    missing = [name for name in _KEY if name not in frame.columns]
    if missing:
        raise InputError(f"{file} lacks the column {missing[0]!r}", "give the scores.csv of `anglekit sweep`")
    frame = frame[frame["strategy"].astype(str) != ""]
    seeds = pd.to_numeric(frame["seed"], errors="coerce")
    if seeds.isna().any() or (seeds % 1 != 0).any():
        raise InputError(f"{file} has a seed that is no whole number", "give the scores.csv of `anglekit sweep`")
    frame = frame.assign(seed=seeds.astype("int64"))
    rest = [name for name in frame.columns if name not in (*_KEY, *_NOT_SCORES)]
    names = [name for name in rest if pd.to_numeric(frame[name], errors="coerce").notna().any()]
    table = frame.melt(id_vars=list(_KEY), value_vars=names, var_name="score", value_name="value")
    table["value"] = pd.to_numeric(table["value"], errors="coerce")
    table = table[table["value"].notna()].assign(source=str(file))
    if table.empty:
        raise InputError(f"{file} holds no score", "give the scores.csv of `anglekit sweep`")
    return table[list(SCORE_COLUMNS)].reset_index(drop=True)
