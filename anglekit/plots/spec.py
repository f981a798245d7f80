"""What a figure is: how it is drawn, its numbers, and the words that go with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal

import pandas as pd
from matplotlib.figure import Figure

from anglekit.plots.ground import drawn_on
from anglekit.plots.inputs import FigureInputs
from anglekit.plots.presentation import Presentation, display_names, presented
from anglekit.plots.style import Theme, context, figure_width, theme

#: What a figure is drawn from: Geometries, tables of scores, both, or scores with what runs keep beside them.
Uses = Literal["geometries", "scores", "both", "records"]

#: The options of a figure, as messages name them.
OPTION_WORDS: Mapping[str, str] = MappingProxyType(
    {
        "labels": "task labels (--task-name)",
        "value": "value (--value)",
        "null": "null (--null)",
        "margin": "margin (--score-margin)",
        "students": "students (--only-student)",
        "stream": "stream (--streams)",
        "vertices": "vertices (--vertices)",
        "bins": "bins",
    }
)
#: The options of a figure of students, and of one of their layers.
STUDENTS = frozenset({"students", "stream"})
VERTICES = STUDENTS | {"vertices"}


@dataclass(frozen=True, kw_only=True)
class FigureOptions:
    """What can be chosen about a figure; None leaves it to the figure.

    Attributes:
        labels: the tasks' names, one per Geometry or table of scores; of `training-angles` the directories' names.
        students: the students to draw, by name or pattern (`forward-*`); all by default.
        stream: `encoder` or `decoder`; both by default.
        vertices: the student layers to draw; by default all, or of more than 12 in a heat map, 12 over the depth.
        value: what is shown: a column of the figure's table, or a score.
        null: a name of `anglekit.vocabulary.NULLS`.
        margin: the largest difference of scores that does not matter, in the score's unit; a point by default.
        bins: bins of figure 1's curves on [-1, 1], a divisor of 1000; by default 200, or 100 where a curve has few
            cosines.
    """

    labels: Sequence[str] | None = None
    students: str | Sequence[str] | None = None
    stream: str | None = None
    vertices: Sequence[int] | None = None
    value: str | None = None
    null: str | None = None
    margin: float | None = None
    bins: int | None = None


def _nothing(_: FigureInputs) -> None: ...


@dataclass(frozen=True, kw_only=True)
class FigureSpec:
    """A kind of figure.

    Attributes:
        title: a heading, without a full stop.
        summary: what it shows, in a phrase.
        reading: how to read it, in whole sentences.
        options: the fields of `FigureOptions` that it takes.
        data: makes the numbers that are drawn, from inputs and options.
        facts: makes a sentence with the main ones of these numbers.
        draw: makes a Figure from inputs, options, theme and width in inches; the theme's settings are in force.
        many: whether it takes several Geometries.
        uses: which kind of inputs it is drawn from.
        over_training: whether it is drawn from the Geometries that a run kept while it trained.
        check: raises InputError where the inputs lack what the figure needs.
    """

    title: str
    summary: str
    reading: str
    options: frozenset[str]
    data: Callable[[FigureInputs, FigureOptions], pd.DataFrame]
    facts: Callable[[pd.DataFrame], str]
    draw: Callable[[FigureInputs, FigureOptions, Theme, float], Figure]
    many: bool = False
    uses: Uses = "geometries"
    over_training: bool = False
    check: Callable[[FigureInputs], None] = _nothing

    def figure(
        self,
        inputs: FigureInputs,
        options: FigureOptions,
        *,
        width: str = "page",
        dark: bool = False,
        ax: Any = None,  # noqa: ANN401 - what `drawn_on` takes
        name: str = "the figure",
        presentation: Presentation | None = None,
    ) -> Figure:
        """Draw the figure; what does not fit on its page is on the pages in `ground.pages_of` of what is returned.

        Args:
            inputs: what it is drawn from.
            options: the options of this figure.
            width: `page` or `column`.
            dark: draw on a dark ground.
            ax: the caller's axes, or the part of a figure, to draw on; None: a new figure.
            name: what the figure is called where it does not fit there.
            presentation: style, font, titles, notes and names; None: as usual.

        Raises:
            InputError: nothing is left to draw, too much is, an option names what the inputs do not have, `ax` is too
                small, of another number of axes, or nothing to draw on, or there is no such style or font.
        """
        inches, chosen = figure_width(width), presentation or Presentation()
        arms = {student: arm for geometry in inputs.geometries for student, arm in geometry.arms.items()}
        strategies = [str(name) for table in inputs.scores for name in table["strategy"].unique()]
        with presented(replace(chosen, names=display_names(arms, strategies, chosen.names))):
            look = theme(dark)
            if ax is None:
                with context(look):
                    return self.draw(inputs, options, look, inches)
            with drawn_on(name, ax) as room:
                if room is None:  # on axes the caller's own style is in force
                    return self.draw(inputs, options, look, inches)
                with context(look):
                    return self.draw(inputs, options, look, room)

    def caption(self, data: pd.DataFrame) -> str:
        """Return how to read the figure and what its numbers are."""
        return f"{self.reading} {self.facts(data)}"

    def alt(self, data: pd.DataFrame) -> str:
        """Return the alternative text, for readers who cannot see the figure."""
        return f"{self.title}: {self.summary}. {self.facts(data)}"
