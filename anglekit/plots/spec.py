"""What a figure family is: how it is drawn, the numbers behind it, and the words that go with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd
from matplotlib.figure import Figure

from anglekit.results.geometry import Geometry

__all__ = ["FigureSpec", "Uses"]

#: What a family is drawn from: Geometries, tables of scores, or both.
Uses = Literal["geometries", "scores", "both"]


def _nothing(*_: Any) -> None:  # noqa: ANN401  of any inputs
    return None


@dataclass(frozen=True)
class FigureSpec:
    """A kind of figure.

    The functions take the inputs first: one Geometry; where `many`, a sequence of Geometries; tables of scores, one per
    task (`anglekit.comparison.sources.SCORE_COLUMNS`); or Geometries and tables of scores.

    Attributes:
        title: a heading, without a full stop.
        summary: what it shows, in a phrase.
        reading: how to read it, in whole sentences.
        draw: inputs and options to a Figure.
        data: inputs and options to the numbers that `draw` draws.
        facts: that table to a sentence with its main numbers.
        options: the options of `draw` beside `width` and `dark`; `data` takes the same.
        many: whether it takes several Geometries.
        uses: what it is drawn from.
        lacks: inputs to the reason why it cannot be drawn, in one line, or None.
    """

    title: str
    summary: str
    reading: str
    draw: Callable[..., Figure]
    data: Callable[..., pd.DataFrame]
    facts: Callable[[pd.DataFrame], str]
    options: frozenset[str]
    many: bool = False
    uses: Uses = "geometries"
    lacks: Callable[..., str | None] = _nothing

    def inputs(self, geometries: Sequence[Geometry], scores: Sequence[pd.DataFrame]) -> tuple[Any, ...]:
        """Return the positional inputs of `draw`, `data` and `lacks`."""
        if self.uses == "both":
            return (geometries, scores)
        if self.uses == "scores":
            return (scores,)
        return (geometries,) if self.many else (geometries[0],)

    def caption(self, data: pd.DataFrame) -> str:
        """Return how to read the figure and what its numbers are."""
        return f"{self.reading} {self.facts(data)}"

    def alt(self, data: pd.DataFrame) -> str:
        """Return what stands for the figure where it cannot be seen."""
        return f"{self.title}: {self.summary}. {self.facts(data)}"
