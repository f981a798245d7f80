"""What a figure is drawn on: a Figure of its own, a part of the caller's, or the caller's axes.

Every layout begins with `new_figure` and places its panels in inches; only where that figure comes from differs. It is
kept in a context variable, since a dozen drawing functions lie between the caller and the layout.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, cast

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure

from anglekit.display.counts import counted
from anglekit.errors import InputError

#: What makes the fonts in a file readable by others: TrueType in pdf, since submission systems refuse type 3, and text
#: that stays text in svg.
EMBEDDED: Mapping[Any, Any] = MappingProxyType({"pdf.fonttype": 42, "ps.fonttype": 42, "svg.fonttype": "none"})
# A part of a figure that is a little too low only moves rows of text together.
_LEAST_HEIGHT = 0.9


class StyledFigure(Figure):
    """A Figure whose files have their fonts embedded, whatever matplotlib's settings say when it is saved.

    Attributes:
        following: the pages behind this one, of a figure that one page does not hold.
    """

    following: tuple[Figure, ...] = ()

    def savefig(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - as of matplotlib
        """Write the figure; arguments as of `Figure.savefig`."""
        with mpl.rc_context(dict(EMBEDDED)):
            super().savefig(*args, **kwargs)


class _Part:
    """A part of the caller's figure in the place of one of our own: it keeps its size, and text is measured apart."""

    def __init__(self, part: Figure | SubFigure, name: str) -> None:
        self._part, self._name = part, name
        self._size = np.array(_inches(part))
        self.canvas = FigureCanvasAgg(Figure())
        self.dpi = self.canvas.figure.dpi

    def get_size_inches(self) -> Any:  # noqa: ANN401 - an array, as of matplotlib
        return self._size

    def set_size_inches(self, width: float, height: float) -> None:
        """Take the layout's size as the scale in which it places things; the part's own height must do for it."""
        there = _inches(self._part)[1]
        if there < _LEAST_HEIGHT * height:
            raise InputError(
                f"{self._name} is {height:.1f} inches high at this width and was given {there:.1f}",
                "give a higher or a wider part, or choose fewer students or a stream",
            )
        self._size = np.array([width, height])

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - the part's own
        return getattr(self._part, name)


@dataclass(frozen=True)
class _Ground:
    """What the caller gave: a part of a figure, or axes."""

    name: str
    part: Figure | SubFigure | None
    axes: tuple[Axes, ...]


_GROUND: ContextVar[_Ground | None] = ContextVar("ground", default=None)


def _inches(part: Figure | SubFigure) -> tuple[float, float]:
    return float(part.bbox.width / part.dpi), float(part.bbox.height / part.dpi)


@contextmanager
def drawn_on(name: str, given: Any) -> Iterator[float | None]:  # noqa: ANN401 - whatever the caller gave
    """Draw the figure `name` on what was given inside the block; yield the part's width in inches, None for axes.

    Raises:
        InputError: it is neither a Figure, a SubFigure, axes nor several of them.
    """
    if isinstance(given, Figure | SubFigure):
        ground = _Ground(name, given, ())
    else:
        flat = (given,) if isinstance(given, Axes) else tuple(np.ravel(np.array(given, dtype=object)))
        if not flat or not all(isinstance(each, Axes) for each in flat):
            raise InputError(
                f"{name} cannot be drawn on a {type(given).__name__}", "give axes, a sequence of axes or a SubFigure"
            )
        ground = _Ground(name, None, flat)
    before = _GROUND.set(ground)
    try:
        yield None if ground.part is None else _inches(ground.part)[0]
    finally:
        _GROUND.reset(before)


def given_axes(count: int | None, what: str = "panel") -> Sequence[Axes]:
    """Return the axes that the caller gave, one for each of `count` panels; none if it gave none.

    Args:
        count: the figure's panels; None: it cannot be drawn on axes.
        what: what they are called.

    Raises:
        InputError: another number of axes was given, or the figure cannot be drawn on axes.
    """
    ground = _GROUND.get()
    if ground is None or not ground.axes:
        return ()
    if count is None:
        raise InputError(
            f"{ground.name} has panels of unlike kinds and cannot be drawn on axes", "give a SubFigure or no ax"
        )
    if len(ground.axes) != count:
        raise InputError(
            f"{ground.name} has {counted(count, what)} here and was given {len(ground.axes)} axes",
            f"give {'a sequence of ' if count > 1 else ''}{count} axes or a SubFigure, or choose students or a stream",
        )
    return ground.axes


def figure_of(axes: Sequence[Axes]) -> Figure:
    """Return the figure of the caller's axes."""
    return cast("Figure", axes[0].get_figure(root=True))


def is_paged() -> bool:
    """Whether a figure may go on on further pages: not on a part of the caller's figure, nor on its axes."""
    return _GROUND.get() is None


def pages_of(figure: Figure) -> tuple[Figure, ...]:
    """Return all pages of a figure, itself first."""
    return (figure, *getattr(figure, "following", ()))


def bound(pages: Sequence[Figure]) -> Figure:
    """Return the first of these pages, which holds the others in `following`."""
    first, *others = pages
    if others and isinstance(first, StyledFigure):
        first.following = tuple(others)
    return first


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure (inches) on the Agg canvas, without pyplot; or the part of one that the caller gave."""
    ground = _GROUND.get()
    if ground is not None and ground.part is not None:
        return cast("Figure", _Part(ground.part, ground.name))
    figure = StyledFigure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure
