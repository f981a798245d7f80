"""From directories to one self-contained page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from anglekit.comparison.compare import ANGLE_MARGIN
from anglekit.comparison.verdict import Headline
from anglekit.errors import InputError
from anglekit.report.figures import MOST_STUDENTS, draw_all
from anglekit.report.gather import Findings, gather
from anglekit.report.page import page
from anglekit.report.svg import StyleSheet
from anglekit.results.geometry import Geometry


@dataclass(frozen=True, eq=False)
class Report:
    """A report.

    Attributes:
        html: the whole page; it needs no other file and no network.
        findings: what it says.
        figures: the names of the figure families that are drawn.
        not_drawn: a sentence for each family that could not be drawn.
        warnings: a sentence each, as on the page.
    """

    html: str
    findings: Findings
    figures: tuple[str, ...]
    not_drawn: tuple[str, ...]
    warnings: tuple[str, ...]

    def __repr__(self) -> str:
        """Return in a line how much the page shows."""
        return f"<Report of {len(self.html) >> 10:,} KiB: {len(self.figures)} figures; {self.headline.line}>"

    @property
    def headline(self) -> Headline:
        """What comes first on the page."""
        return self.findings.headline


def build_report(
    sources: str | Path | Geometry | Sequence[str | Path | Geometry],
    *,
    labels: Sequence[str] | None = None,
    title: str = "Teacher layers seen from the student",
    margin: float = ANGLE_MARGIN,
    score_margin: float | None = None,
    tick: Callable[[str], None] | None = None,
    workers: int | None = 1,
) -> Report:
    """Read results, compare them, draw every figure that they can fill, and make one page of it all.

    `Path("report.html").write_text(build_report(geometry).html, encoding="utf-8")`.

    Args:
        sources: directories of `anglekit analyze`, `sweep` or `distill`, and Geometries, in any mixture.
        labels: a task's name for each Geometry; by default the last part of its path.
        title: the page's heading.
        margin: the largest difference between angles that does not matter, in degrees.
        score_margin: the same of scores, in their unit; None for one point.
        tick: called with a phrase before each drawing.
        workers: how many processes draw, 1 or more; None: one for each core, if there is work for it. A program that
            uses more than one needs the usual `if __name__ == "__main__":`. The page is the same for any number.

    Raises:
        InputError: a directory is missing, damaged or of another kind, or an option is out of range.
        RunError: a drawing process ended too early.
    """
    if workers is not None and workers < 1:
        raise InputError(f"{workers} processes cannot draw", allowed="allowed: at least 1 (--processes)")
    findings = gather(sources, labels=labels, margin=margin, score_margin=score_margin)
    styles = StyleSheet()
    figures, not_drawn = draw_all(findings, styles, tick or (lambda _: None), workers)
    left_out = (
        f"{reported.label}: figures for print of single students are drawn for the first {MOST_STUDENTS} of "
        f"{len(reported.geometry.students)}; draw others with anglekit plot --only-student"
        for reported in findings.geometries
        if len(reported.geometry.students) > MOST_STUDENTS
    )
    warnings = (*findings.warnings, *left_out)
    html = page(findings, figures, not_drawn, warnings, styles, title)
    return Report(html, findings, tuple(figure.name for figure in figures), tuple(not_drawn), warnings)
