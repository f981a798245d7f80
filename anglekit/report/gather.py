"""What the report is about: Geometries and scores read from directories, and compared where they can be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from anglekit.comparison.compare import ANGLE_MARGIN, compare
from anglekit.comparison.result import Comparison
from anglekit.comparison.sources import Sources, read_sources, student_arms
from anglekit.errors import InputError
from anglekit.results.chance import ChanceVerdict
from anglekit.results.geometry import Geometry

__all__ = ["Analysis", "Findings", "gather"]


@dataclass(frozen=True, eq=False)
class Analysis:
    """A Geometry in the report.

    Attributes:
        label: its task's name.
        source: where it was read.
        geometry: what was found.
        verdict: of the Geometry alone.
    """

    label: str
    source: str
    geometry: Geometry
    verdict: ChanceVerdict


@dataclass(frozen=True, eq=False)
class Findings:
    """Everything that a report shows but for its figures.

    Attributes:
        analyses: the Geometries.
        scores: tables of scores, one for each task.
        comparison: of strategies, or None.
        not_compared: why there is none, in a sentence; empty where there is one.
        warnings: what a reader should know, a sentence each.
        score_margin: the largest difference between scores that does not matter; None for one point.
    """

    analyses: tuple[Analysis, ...]
    scores: tuple[pd.DataFrame, ...]
    comparison: Comparison | None
    not_compared: str
    warnings: tuple[str, ...]
    score_margin: float | None = None


def gather(
    directories: Sequence[str | Path],
    *,
    labels: Sequence[str] | None = None,
    margin: float = ANGLE_MARGIN,
    score_margin: float | None = None,
) -> Findings:
    """Read directories of Geometries, sweeps and runs.

    Results that cannot be compared (of other probes, teachers or tasks, or of one strategy) stand side by side, and
    the reason is kept.

    Args:
        directories: of `anglekit analyze`, `sweep` or `distill`.
        labels: a task's name for each Geometry; by default the last part of its path.
        margin: the largest difference between angles that does not matter, in degrees.
        score_margin: the same of scores, in their unit; None for one point.

    Raises:
        InputError: a directory is missing, damaged or of another kind, or the labels are not one for each Geometry.
    """
    if not directories:
        raise InputError("nothing came to report", "give directories of `anglekit analyze`, `sweep` or `distill`")
    found = _read(directories)
    named = [pair for sources in found for pair in sources.geometries]
    if labels is not None and len(labels) != len(named):
        raise InputError(f"{len(labels)} task labels for {len(named)} Geometries", "give one each, in order (--task)")
    own = [Path(source).resolve().name for source, _ in named] if labels is None else list(labels)
    analyses = tuple(
        Analysis(label, source, geometry, geometry.against_chance())
        for label, (source, geometry) in zip(own, named, strict=True)
    )
    comparison, not_compared = _compared(directories, found, margin, score_margin)
    warnings = [
        *_reading_warnings(analyses),
        *(comparison.notes if comparison is not None else [note for sources in found for note in sources.notes]),
        *(f"{analysis.label}: {note}" for analysis in analyses for note in analysis.geometry.notes()),
    ]
    scores = tuple(sources.scores for sources in found if not sources.scores.empty)
    return Findings(analyses, scores, comparison, not_compared, tuple(dict.fromkeys(warnings)), score_margin)


def _read(directories: Sequence[str | Path]) -> list[Sources]:
    """Return everything as one where it fits together, else each directory by itself."""
    singly = [read_sources([directory]) for directory in dict.fromkeys(directories)]
    try:
        return [read_sources(directories)]
    except InputError:
        return singly  # `compare` will say why


def _compared(
    directories: Sequence[str | Path], found: Sequence[Sources], margin: float, score_margin: float | None
) -> tuple[Comparison | None, str]:
    strategies = {
        strategy
        for sources in found
        for strategy in (
            *sources.scores["strategy"],
            *(arm[0] for _, geometry in sources.geometries for arm in student_arms(geometry).values()),
        )
    }
    if len(strategies) < 2:
        return None, "All students are of one strategy: add another to compare (anglekit sweep)."
    try:
        return compare(directories, margin=margin, score_margin=score_margin), ""
    except InputError as error:
        if len(found) == 1:  # they fit together: an option is wrong
            raise
        return None, f"The strategies are not compared: {error}."


def _reading_warnings(analyses: Sequence[Analysis]) -> list[str]:
    return [
        f"{analysis.label}: official reading, as the paper's code computes it: padding is counted, and one pair of "
        "layers stands for all"
        for analysis in analyses
        if analysis.geometry.settings.get("reading") == "official"
    ]
