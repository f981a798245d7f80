"""The figures for print that the page folds away: each that the results can fill, drawn once, or once for a student."""

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

#: What the page shows itself, cell by cell: these are not drawn a second time.
SHOWN_AS_CELLS: Final = frozenset({"angles-heatmap", "null-heatmap"})

#: Figures with one drawing for each student, of a column's width: the panels of ten are too many for one drawing.
BY_STUDENT: Final = frozenset({"layer-distance", "layer-cosine", "layer-cka"})

#: The most students of each Geometry that get such a drawing: each one makes the page larger and later.
MOST_STUDENTS: Final = 8

# A drawing process takes a few seconds to start; a drawing takes about half a second.
_DRAWINGS_A_WORKER: Final = 12


@dataclass(frozen=True)
class Drawing:
    """One drawing of a figure.

    Attributes:
        task: what it shows.
        pages: of a page's or of a column's width; more than one where one does not hold the figure.
        facts: its main numbers, in a sentence.
    """

    task: DrawingTask
    pages: tuple[Markup, ...]
    facts: str


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
    inputs = findings.figure_inputs
    # The scores are the answer, and the angles explain it.
    names = sorted((name for name in FIGURES if name not in SHOWN_AS_CELLS), key=_after_scores)
    tasks = {name: _tasks(name, findings) for name in names}
    reasons = {name: _why_not(own, inputs) for name, own in tasks.items()}
    able = {name: own for name, own in tasks.items() if reasons[name] is None}
    if workers is None:
        workers = max(1, min(usable_cores(), sum(map(len, able.values())) // _DRAWINGS_A_WORKER))
    with drawers(inputs, workers) as begin:
        begun = {name: [begin(task, _width(task)) for task in own] for name, own in able.items()}
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


def _after_scores(name: str) -> bool:
    return FIGURES[name].uses == "geometries"


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
        reason = why_not(one.name, chosen.geometries, chosen.scores, chosen.records)
        if reason is not None:
            return reason
    return None


def _width(task: DrawingTask) -> str:
    return "page" if task.student is None else "column"


def _drawing(
    task: DrawingTask,
    files: Callable[[], list[bytes]],
    inputs: FigureInputs,
    styles: StyleSheet,
    tick: Callable[[str], None],
) -> Drawing:
    tick(task.name if task.student is None else f"{task.name}, {task.student}")
    figure, chosen = FIGURES[task.name], task.chosen(inputs)
    data = figure_data(task.name, chosen.geometries, scores=chosen.scores, records=chosen.records, **task.options)
    files_of_pages = files()
    pages = []
    for number, file in enumerate(files_of_pages):
        title = figure.title + (f", page {number + 1} of {len(files_of_pages)}" if len(files_of_pages) > 1 else "")
        key = task.key if number == 0 else f"{task.key}-page{number + 1}"
        pages.append(inline_svg(file, key=key, title=title, description=figure.alt(data), styles=styles))
    return Drawing(task, tuple(pages), figure.facts(data))
