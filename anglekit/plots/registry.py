"""The figures by name, and what each takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from matplotlib.figure import Figure

from anglekit.errors import InputError, suggest
from anglekit.geometry.results import Geometry
from anglekit.plots.figure1 import figure1
from anglekit.plots.heatmaps import angles_heatmap

__all__ = ["FIGURES", "FigureFamily", "draw_figure"]


@dataclass(frozen=True)
class FigureFamily:
    """A kind of figure.

    Attributes:
        summary: what it shows, in a phrase.
        many: whether it takes several geometries (then `draw` takes a sequence of them) or one.
        options: the options that it takes beside `students`, `stream`, `vertices`, `width` and `dark`.
        draw: the function that draws it.
    """

    summary: str
    many: bool
    options: frozenset[str]
    draw: Callable[..., Figure]


#: Every figure that `anglekit plot --figure` draws.
FIGURES: Mapping[str, FigureFamily] = MappingProxyType(
    {
        "figure1": FigureFamily(
            summary="the paper's Figure 1: the angle to scale, and its cosine's distribution per task and stream",
            many=True,
            options=frozenset({"labels"}),
            draw=figure1,
        ),
        "angles-heatmap": FigureFamily(
            summary="teacher layer by teacher layer, a panel per student layer",
            many=False,
            options=frozenset({"value"}),
            draw=angles_heatmap,
        ),
    }
)

_SPECIAL_OPTIONS = {"labels": "task labels (--task)", "value": "value (--value)"}


def draw_figure(name: str, geometries: Sequence[Geometry], **options: Any) -> Figure:  # noqa: ANN401  passed through
    """Draw a figure by name.

    Args:
        name: a key of `FIGURES`.
        geometries: what to draw; exactly one where the figure takes one.
        **options: of the figure's function; those that are None are left to their default.

    Raises:
        InputError: an unknown figure, a number of geometries or an option that it does not take, or what the figure's
            function raises.
    """
    if name not in FIGURES:
        raise InputError(f"no figure {name!r}; {suggest(name, FIGURES)}")
    family = FIGURES[name]
    given = {key: option for key, option in options.items() if option is not None}
    for key, words in _SPECIAL_OPTIONS.items():
        if key in given and key not in family.options:
            able = ", ".join(other for other, candidate in FIGURES.items() if key in candidate.options)
            raise InputError(f"{name} takes no {words}; figures that do: {able}")
    if family.many:
        return family.draw(geometries, **given)
    if len(geometries) != 1:
        raise InputError(f"{name} draws one directory, {len(geometries)} were given; draw them one by one")
    return family.draw(geometries[0], **given)
