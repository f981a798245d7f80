"""The report's figures: every family that the results can fill, once for all students or a drawing for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from anglekit.display.html import Markup
from anglekit.errors import InputError
from anglekit.plots.registry import FIGURES, figure_data, why_not
from anglekit.report.drawers import Inputs, Sheet, drawers, usable_cores
from anglekit.report.gather import Findings
from anglekit.report.svg import StyleSheet, inline_svg

__all__ = ["BY_STUDENT", "MOST_STUDENTS", "Drawing", "ReportFigure", "draw_all"]

#: Families of which each student has a drawing of its own: the panels of ten students are too many for one.
BY_STUDENT: Final = frozenset({"angles-heatmap", "null-heatmap", "layer-distance", "layer-cosine", "layer-cka"})

#: Those of them that a column holds, the teacher over the student: one drawing serves a page and a telephone.
_SLIM: Final = frozenset({"layer-distance", "layer-cosine", "layer-cka"})

#: Such drawings are made for so many students of each Geometry: each adds to the page.
MOST_STUDENTS: Final = 24

# A process that draws takes a second or two to start; a drawing, in light and dark, takes about half of one.
_DRAWINGS_A_WORKER: Final = 10


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
class _Plan:
    """A drawing that is to be made.

    Attributes:
        key: what its ids start with.
        place: of the Geometry that it shows; None shows everything.
        options: of the family's function.
        label: as in `Drawing`.
        student: as in `Drawing`.
    """

    key: str
    place: int | None
    options: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""
    student: str | None = None


#: Gives the svg file of one width on a light ground, or on a dark one.
_Files = Callable[[str, bool], bytes]


def draw_all(
    findings: Findings, styles: StyleSheet, tick: Callable[[str], None], workers: int | None = 1
) -> tuple[list[ReportFigure], list[str]]:
    """Draw every family.

    Args:
        findings: what there is.
        styles: of the page; the drawings' styles are added to it.
        tick: called with a phrase before each drawing.
        workers: how many processes draw; None: one for each core, where there is work for it.

    Returns:
        The figures, and a sentence for each that cannot be drawn.

    Raises:
        RunError: a process that draws ended too early.
    """
    figures, refused = [], []
    inputs = Inputs([reported.geometry for reported in findings.geometries], findings.scores)
    plans = {name: _plans(name, findings) for name in FIGURES}
    reasons = {name: _why_not(name, own, inputs) for name, own in plans.items()}
    able = {name: own for name, own in plans.items() if reasons[name] is None}
    if workers is None:
        workers = max(1, min(usable_cores(), sum(map(len, able.values())) // _DRAWINGS_A_WORKER))
    with drawers(inputs, workers) as begin:
        begun = {name: [_begin(name, plan, begin) for plan in own] for name, own in able.items()}
        for name, family in FIGURES.items():
            if reasons[name] is not None:
                refused.append(f"{family.title}: {reasons[name]}")
                continue
            try:
                drawings = tuple(
                    _finish(name, plan, files, inputs, styles, tick)
                    for plan, files in zip(able[name], begun[name], strict=True)
                )
            except InputError as error:
                refused.append(f"{family.title}: {error}")
                continue
            if drawings:
                figures.append(ReportFigure(name, family.title, family.reading, drawings))
    return figures, refused


def _plans(name: str, findings: Findings) -> list[_Plan]:
    """Return the drawings of a family."""
    family, geometries = FIGURES[name], findings.geometries
    if family.many or family.uses != "geometries":
        options: dict[str, Any] = {"margin": findings.score_margin} if "margin" in family.options else {}
        # Scores carry no name of a task: they are named after the Geometries where there is one for each.
        if "labels" in family.options and (family.uses == "geometries" or len(geometries) == len(findings.scores)):
            options["labels"] = [reported.label for reported in geometries]
        return [_Plan(name, None, options)]
    plans = []
    for place, reported in enumerate(geometries):
        label = reported.label if len(geometries) > 1 else ""
        if name not in BY_STUDENT:
            plans.append(_Plan(f"{name}-{place}", place, label=label))
            continue
        for number, student in enumerate(reported.geometry.students[:MOST_STUDENTS]):
            plans.append(_Plan(f"{name}-{place}-{number}", place, {"students": student}, label, student))
    return plans


def _why_not(name: str, plans: Sequence[_Plan], inputs: Inputs) -> str | None:
    """Return why a family cannot be drawn, in one line, or None where it can."""
    for place in dict.fromkeys(plan.place for plan in plans):
        chosen = inputs.of(place)
        reason = why_not(name, chosen.geometries, chosen.scores)
        if reason is not None:
            return reason
    return None


def _begin(name: str, plan: _Plan, begin: Callable[[Sheet], Callable[[], bytes]]) -> _Files:
    """Take a drawing's files in hand."""
    waiting = {
        (width, dark): begin(Sheet(name, plan.place, width, dark, plan.options))
        for width in _widths(name, plan)
        for dark in (False, True)
    }
    return lambda width, dark: waiting[width, dark]()


def _widths(name: str, plan: _Plan) -> tuple[str, ...]:
    """Return the widths in which a drawing is made, the main one last."""
    main = "column" if name in _SLIM else "page"
    return (main,) if plan.student is not None else tuple(dict.fromkeys(("column", main)))


def _finish(
    name: str, plan: _Plan, files: _Files, inputs: Inputs, styles: StyleSheet, tick: Callable[[str], None]
) -> Drawing:
    tick(name if plan.student is None else f"{name}, {plan.student}")
    family, chosen = FIGURES[name], inputs.of(plan.place)
    data = figure_data(name, chosen.geometries, scores=chosen.scores, **plan.options)
    alt = family.alt(data)

    def svg(width: str, key: str) -> Markup:
        light, dark = files(width, False), files(width, True)
        return inline_svg(light, dark, key=key, title=family.title, description=alt, styles=styles)

    *narrower, main = _widths(name, plan)
    narrow = svg(narrower[0], f"{plan.key}-narrow") if narrower else None
    return Drawing(svg(main, plan.key), narrow, family.facts(data), plan.label, plan.student, name in _SLIM)
