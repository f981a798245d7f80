"""What the report is about: Geometries and scores, read from directories and compared where possible."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from anglekit.comparison.compare import ANGLE_MARGIN, compare
from anglekit.comparison.equivalence import check_margin
from anglekit.comparison.evidence import Evidence, read_evidence
from anglekit.comparison.result import Comparison
from anglekit.comparison.verdict import Headline
from anglekit.display.counts import counted
from anglekit.errors import InputError
from anglekit.plots.inputs import FigureInputs
from anglekit.recipes.reproduction_directory import confounds_beside
from anglekit.results.chance import ChanceVerdict
from anglekit.results.geometry import Geometry
from anglekit.results.training_records import TrainingRecords, read_training_records
from anglekit.settings_fields import one_or_more

_OFFICIAL = (
    "official reading, as the paper's code computes it: padding is counted, and one pair of layers stands for all"
)


@dataclass(frozen=True, eq=False)
class ReportedGeometry:
    """A Geometry in the report.

    Attributes:
        label: its task's name.
        source: where it was read.
        geometry: what was found.
        verdict: on this Geometry alone.
    """

    label: str
    source: str
    geometry: Geometry
    verdict: ChanceVerdict


@dataclass(frozen=True, eq=False)
class ReportedScores:
    """Scores in the report: those that can be put together.

    Attributes:
        table: with the columns `results.scores.SCORE_COLUMNS`.
        primary: the score that the answer is about.
        teacher: the teacher's scores, by evaluation table and score.
        chance: what one answer to every example reaches, by evaluation table and score.
        records: what its runs keep beside their scores: logs, sizes and speeds.
        n_examples: how many examples each evaluation table holds.
    """

    table: pd.DataFrame
    primary: str
    teacher: Mapping[tuple[str, str], float]
    chance: Mapping[tuple[str, str], float]
    records: TrainingRecords
    n_examples: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Findings:
    """Everything that a report shows, except its figures.

    Attributes:
        geometries: the Geometries.
        scored: scores, one for each task.
        comparison: of strategies, or None.
        not_compared: why there is none, in a sentence; empty where there is one.
        warnings: what a reader should know, a sentence each.
        score_margin: the largest difference between scores that does not matter; None for one point.
        confounds: what else than the strategy differs in the reproductions that the directories are of.
    """

    geometries: tuple[ReportedGeometry, ...]
    scored: tuple[ReportedScores, ...]
    comparison: Comparison | None
    not_compared: str
    warnings: tuple[str, ...]
    score_margin: float | None = None
    confounds: tuple[str, ...] = ()

    @property
    def scores(self) -> tuple[pd.DataFrame, ...]:
        """The tables of scores, one for each task."""
        return tuple(one.table for one in self.scored)

    @property
    def figure_inputs(self) -> FigureInputs:
        """What the figures are drawn from."""
        geometries = [reported.geometry for reported in self.geometries]
        return FigureInputs(geometries, self.scores, records=[one.records for one in self.scored])

    @property
    def headline(self) -> Headline:
        """What comes first: the comparison's, or what a Geometry says by itself, or why there is none."""
        if self.comparison is not None:
            return self.comparison.headline
        if self.geometries:
            return Headline(self.geometries[0].verdict.sentence, (self.not_compared,))
        return Headline(self.not_compared)


def gather(
    sources: str | Path | Geometry | Sequence[str | Path | Geometry],
    *,
    labels: Sequence[str] | None = None,
    margin: float = ANGLE_MARGIN,
    score_margin: float | None = None,
) -> Findings:
    """Read directories of Geometries, sweeps and runs; a Geometry may be in memory.

    Results that cannot be compared (different probes, teachers or tasks, or only one strategy) stand side by side, and
    the reason is kept. The arguments are those of `build_report`.

    Raises:
        InputError: a directory is missing, damaged or of another kind, or there is not one label for each Geometry.
    """
    given = list(one_or_more(sources))
    if not given:
        raise InputError("nothing came to report", "give directories of `anglekit analyze`, `sweep` or `distill`")
    check_margin(margin, "--angle-margin")
    if score_margin is not None:
        check_margin(score_margin, "--score-margin")
    try:
        found, apart, origins = [read_evidence(given)], "", [given]
    except InputError as error:  # each directory by itself
        origins = [[source] for source in dict.fromkeys(given)]
        found = [read_evidence(source) for source in origins]
        apart = _not_compared(error)
    named = [pair for evidence in found for pair in evidence.geometries]
    if labels is not None and len(labels) != len(named):
        raise InputError(
            f"{counted(len(labels), 'task label')} for {counted(len(named), 'Geometry', plural='Geometries')}",
            "give one each, in order (--task-name)",
        )
    own = [Path(source).resolve().name for source, _ in named] if labels is None else list(labels)
    geometries = tuple(
        ReportedGeometry(label, source, geometry, geometry.against_chance())
        for label, (source, geometry) in zip(own, named, strict=True)
    )
    comparison, not_compared = None, apart
    if len({strategy for evidence in found for strategy in evidence.strategies}) < 2:
        not_compared = "All students are of one strategy: add another to compare (anglekit sweep)."
    elif not apart:
        try:
            comparison = compare(found[0], margin=margin, score_margin=score_margin)
        except InputError as error:
            not_compared = _not_compared(error)
    warnings = [
        *(f"{reported.label}: {_OFFICIAL}" for reported in geometries if reported.geometry.official),
        *(comparison.notes if comparison is not None else [note for evidence in found for note in evidence.notes]),
        *(f"{reported.label}: {note}" for reported in geometries for note in reported.geometry.notes()),
    ]
    scored = tuple(
        _scored(evidence, origin) for evidence, origin in zip(found, origins, strict=True) if not evidence.scores.empty
    )
    confounds = [one for source in given if not isinstance(source, Geometry) for one in confounds_beside(source)]
    return Findings(
        geometries,
        scored,
        comparison,
        not_compared,
        tuple(dict.fromkeys(warnings)),
        score_margin,
        tuple(dict.fromkeys(confounds)),
    )


def _scored(evidence: Evidence, sources: Sequence[str | Path | Geometry]) -> ReportedScores:
    primary = evidence.primary or str(evidence.scores["score"].iloc[0])
    directories = [Path(source) for source in sources if not isinstance(source, Geometry)]
    records = read_training_records(directories)
    return ReportedScores(evidence.scores, primary, evidence.teacher, evidence.chance, records, evidence.n_examples)


def _not_compared(error: InputError) -> str:
    return f"The strategies are not compared: {error}."
