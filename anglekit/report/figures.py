"""The report's figures: each that the results can fill, drawn once for all students or once for each student."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from anglekit.display.html import Markup
from anglekit.errors import InputError
from anglekit.plots.inputs import FigureInputs
from anglekit.plots.registry import FIGURES, figure_data, why_not
from anglekit.report.drawers import DrawingTask, drawers, usable_cores
from anglekit.report.gather import Findings
from anglekit.report.svg import StyleSheet, inline_svg

#: Figures with one drawing for each student: the panels of ten students are too many for one drawing.
BY_STUDENT: Final = frozenset({"angles-heatmap", "null-heatmap", "layer-distance", "layer-cosine", "layer-cka"})

#: Those that fit in a column, the teacher above the student: one drawing serves a page and a telephone.
_SLIM: Final = frozenset({"layer-distance", "layer-cosine", "layer-cka"})

#: The most students of each Geometry that get such a drawing: each one makes the page larger.
MOST_STUDENTS: Final = 24

# A drawing process takes a second or two to start; a drawing, in light and dark, takes about half a second.
_DRAWINGS_A_WORKER: Final = 10


@dataclass(frozen=True)
class Drawing:
    """One drawing of a figure.

    Attributes:
        task: what it shows.
        svg: for a page's width.
        narrow: the same figure for a telephone's width; None where the wide one serves there too.
        facts: its main numbers, in a sentence.
    """

    task: DrawingTask
    svg: Markup
    narrow: Markup | None
    facts: str

    @property
    def slim(self) -> bool:
        """Whether `svg` is narrow enough for a telephone too."""
        return self.task.name in _SLIM


@dataclass(frozen=True)
class ReportFigure:
    """A figure as the report shows it.

    Attributes:
        name: of the figure.
        title: what it shows, in a few words.
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
        return any(drawing.task.student is not None for drawing in self.drawings)


def draw_all(
    findings: Findings, styles: StyleSheet, tick: Callable[[str], None], workers: int | None = 1
) -> tuple[list[ReportFigure], list[str]]:
    """Return the figures, and a sentence for each that cannot be drawn; add the figures' styles to the page's.

    Raises:
        RunError: a drawing process ended too early.
    """
    figures, refused = [], []
    inputs = FigureInputs([reported.geometry for reported in findings.geometries], findings.scores)
    # The scores are the answer, and the angles explain it.
    names = sorted(FIGURES, key=lambda name: FIGURES[name].uses == "geometries")
    tasks = {name: _tasks(name, findings) for name in names}
    reasons = {name: _why_not(own, inputs) for name, own in tasks.items()}
    able = {name: own for name, own in tasks.items() if reasons[name] is None}
    if workers is None:
        workers = max(1, min(usable_cores(), sum(map(len, able.values())) // _DRAWINGS_A_WORKER))
    with drawers(inputs, workers) as begin:
        begun = {
            name: [
                {(width, dark): begin(task, width, dark) for width in _widths(task) for dark in (False, True)}
                for task in own
            ]
            for name, own in able.items()
        }
        for name in names:
            figure = FIGURES[name]
            try:
                if reasons[name] is not None:
                    raise InputError(str(reasons[name]))
                drawings = tuple(
                    _drawing(task, files, inputs, styles, tick)
                    for task, files in zip(able[name], begun[name], strict=True)
                )
            except InputError as error:
                refused.append(f"{figure.title}: {error}")
                continue
            if drawings:
                figures.append(ReportFigure(name, figure.title, figure.reading, drawings))
    return figures, refused


def _tasks(name: str, findings: Findings) -> list[DrawingTask]:
    """Return the drawings of a figure."""
    figure, geometries = FIGURES[name], findings.geometries
    if figure.many or figure.uses != "geometries":
        options: dict[str, Any] = {"margin": findings.score_margin} if "margin" in figure.options else {}
        # Scores do not name their task: they take the Geometries' names where there is one for each.
        if "labels" in figure.options and (figure.uses == "geometries" or len(geometries) == len(findings.scores)):
            options["labels"] = [reported.label for reported in geometries]
        return [DrawingTask(name, name, None, options)]
    tasks = []
    for place, reported in enumerate(geometries):
        label = reported.label if len(geometries) > 1 else ""
        if name not in BY_STUDENT:
            tasks.append(DrawingTask(name, f"{name}-{place}", place, label=label))
            continue
        for number, student in enumerate(reported.geometry.students[:MOST_STUDENTS]):
            tasks.append(DrawingTask(name, f"{name}-{place}-{number}", place, {"students": student}, label, student))
    return tasks


def _why_not(tasks: Sequence[DrawingTask], inputs: FigureInputs) -> str | None:
    """Return why a figure cannot be drawn, in one line, or None where it can."""
    for one in {task.place: task for task in tasks}.values():
        chosen = one.chosen(inputs)
        reason = why_not(one.name, chosen.geometries, chosen.scores)
        if reason is not None:
            return reason
    return None


def _widths(task: DrawingTask) -> tuple[str, ...]:
    """Return the widths at which to make a drawing, the main one last."""
    main = "column" if task.name in _SLIM else "page"
    return (main,) if task.student is not None else tuple(dict.fromkeys(("column", main)))


def _drawing(
    task: DrawingTask,
    files: dict[tuple[str, bool], Callable[[], bytes]],
    inputs: FigureInputs,
    styles: StyleSheet,
    tick: Callable[[str], None],
) -> Drawing:
    tick(task.name if task.student is None else f"{task.name}, {task.student}")
    figure, chosen = FIGURES[task.name], task.chosen(inputs)
    data = figure_data(task.name, chosen.geometries, scores=chosen.scores, **task.options)
    alt = figure.alt(data)

    def svg(width: str, key: str) -> Markup:
        light, dark = files[width, False](), files[width, True]()
        return inline_svg(light, dark, key=key, title=figure.title, description=alt, styles=styles)

    *narrower, main = _widths(task)
    narrow = svg(narrower[0], f"{task.key}-narrow") if narrower else None
    return Drawing(task, svg(main, task.key), narrow, figure.facts(data))
