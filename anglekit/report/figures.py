"""The report's figures: every family that the results can fill, once for all students or a drawing for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd

from anglekit.errors import InputError
from anglekit.geometry.results import Geometry
from anglekit.plots.registry import FIGURES, draw_figure, figure_data, why_not
from anglekit.plots.render import render
from anglekit.report.gather import Findings
from anglekit.report.markup import Markup
from anglekit.report.svg import StyleSheet, inline_svg

__all__ = ["BY_STUDENT", "MOST_STUDENTS", "Drawing", "ReportFigure", "draw_all"]

#: Families of which each student has a drawing of its own: the panels of ten students are too many for one.
BY_STUDENT: Final = frozenset({"angles-heatmap", "null-heatmap", "layer-distance", "layer-cosine", "layer-cka"})

#: Those of them that a column holds, the teacher over the student: one drawing serves a page and a telephone.
_SLIM: Final = frozenset({"layer-distance", "layer-cosine", "layer-cka"})

#: Such drawings are made for so many students of each Geometry: each adds to the page.
MOST_STUDENTS: Final = 24


@dataclass(frozen=True)
class Drawing:
    """One drawing of a figure.

    Attributes:
        svg: for a page's width.
        narrow: the same figure for a telephone's width; None where the wide one has to do.
        facts: its main numbers, in a sentence.
        label: the Geometry that it shows; empty where it shows all.
        student: the student that it shows; None where it shows all.
        slim: `svg` is narrow enough for a telephone too.
    """

    svg: Markup
    narrow: Markup | None
    facts: str
    label: str = ""
    student: str | None = None
    slim: bool = False


@dataclass(frozen=True)
class ReportFigure:
    """A figure family as the report shows it.

    Attributes:
        name: of the family.
        title: in a few words.
        reading: how to read it.
        drawings: one, or one for each Geometry or student.
    """

    name: str
    title: str
    reading: str
    drawings: tuple[Drawing, ...]

    @property
    def by_student(self) -> bool:
        """Whether there is a drawing for each student."""
        return any(drawing.student is not None for drawing in self.drawings)


@dataclass(frozen=True)
class _Inputs:
    geometries: Sequence[Geometry]
    scores: Sequence[pd.DataFrame]


def draw_all(
    findings: Findings, styles: StyleSheet, tick: Callable[[str], None]
) -> tuple[list[ReportFigure], list[str]]:
    """Draw every family.

    Args:
        findings: what there is.
        styles: of the page; the drawings' styles are added to it.
        tick: called with a phrase before each drawing.

    Returns:
        The figures, and a sentence for each that cannot be drawn.
    """
    figures, refused = [], []
    for name, family in FIGURES.items():
        try:
            drawings = tuple(_drawings(name, findings, styles, tick))
        except InputError as error:
            refused.append(f"{family.title}: {error}")
            continue
        if drawings:
            figures.append(ReportFigure(name, family.title, family.reading, drawings))
    return figures, refused


def _drawings(name: str, findings: Findings, styles: StyleSheet, tick: Callable[[str], None]) -> list[Drawing]:
    family = FIGURES[name]
    analyses = findings.analyses
    if family.many or family.uses != "geometries":
        inputs = _Inputs([analysis.geometry for analysis in analyses], findings.scores)
        options: dict[str, Any] = {"margin": findings.score_margin} if "margin" in family.options else {}
        # Scores carry no name of a task: they are named after the Geometries where there is one for each.
        if "labels" in family.options and (family.uses == "geometries" or len(analyses) == len(findings.scores)):
            options["labels"] = [analysis.label for analysis in analyses]
        return [_draw(name, inputs, name, styles, tick, options)]
    drawings = []
    for place, analysis in enumerate(analyses):
        inputs = _Inputs([analysis.geometry], ())
        label = analysis.label if len(analyses) > 1 else ""
        if name not in BY_STUDENT:
            drawings.append(_draw(name, inputs, f"{name}-{place}", styles, tick, {}, label=label))
            continue
        for number, student in enumerate(analysis.geometry.students[:MOST_STUDENTS]):
            key = f"{name}-{place}-{number}"
            drawings.append(_draw(name, inputs, key, styles, tick, {"students": student}, label=label, student=student))
    return drawings


def _draw(
    name: str,
    inputs: _Inputs,
    key: str,
    styles: StyleSheet,
    tick: Callable[[str], None],
    options: dict[str, Any],
    *,
    label: str = "",
    student: str | None = None,
) -> Drawing:
    reason = why_not(name, inputs.geometries, inputs.scores)
    if reason is not None:
        raise InputError(reason)
    tick(name if student is None else f"{name}, {student}")
    family = FIGURES[name]
    data = figure_data(name, inputs.geometries, scores=inputs.scores, **options)
    alt = family.alt(data)

    def svg(width: str, own_key: str) -> Markup:
        light, dark = (
            render(
                draw_figure(name, inputs.geometries, scores=inputs.scores, width=width, dark=night, **options), "svg"
            )
            for night in (False, True)
        )
        return inline_svg(light, dark, key=own_key, title=family.title, description=alt, styles=styles)

    narrow = svg("column", f"{key}-narrow") if student is None else None
    slim = name in _SLIM
    return Drawing(svg("column" if slim else "page", key), narrow, family.facts(data), label, student, slim)
