"""The figures by name: which can be drawn from what there is, drawn, and as numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from anglekit.errors import InputError, suggest
from anglekit.geometry.results import Geometry
from anglekit.plots.families import FAMILIES
from anglekit.plots.family import FigureFamily

__all__ = ["FIGURES", "FigureFamily", "draw_figure", "drawable", "figure_data", "why_not"]

#: Every figure that `anglekit plot --figure` draws, in the order of reading.
FIGURES: Mapping[str, FigureFamily] = MappingProxyType(dict(FAMILIES))

_OPTION_WORDS = {
    "labels": "task labels (--task)",
    "value": "value (--value)",
    "null": "null (--null)",
    "margin": "margin (--margin)",
    "students": "students (--student)",
    "stream": "stream (--stream)",
    "vertices": "vertices (--vertex)",
}


def why_not(name: str, geometries: Sequence[Geometry], scores: Sequence[pd.DataFrame] = ()) -> str | None:
    """Return why a figure cannot be drawn from these inputs, in one line, or None where it can.

    Args:
        name: a key of `FIGURES`.
        geometries: what was analysed.
        scores: tables of scores, one per task.

    Raises:
        InputError: there is no such figure.
    """
    family = _family(name)
    if family.uses != "scores":
        if len(geometries) != 1 and not family.many:
            return f"{name} draws one directory, {len(geometries)} were given; draw them one by one"
        if not geometries:
            return f"no geometry to draw {name} from; give at least one directory of `anglekit analyze --out`"
    if family.uses != "geometries" and not scores:
        return f"{name} is drawn from scores; give directories of `anglekit sweep` or `anglekit distill`"
    return family.lacks(*family.inputs(geometries, scores))


def drawable(geometries: Sequence[Geometry], scores: Sequence[pd.DataFrame] = ()) -> list[str]:
    """Return the names of the figures that can be drawn from these inputs, in the order of reading."""
    return [name for name in FIGURES if why_not(name, geometries, scores) is None]


def draw_figure(
    name: str,
    geometries: Sequence[Geometry],
    *,
    scores: Sequence[pd.DataFrame] = (),
    **options: Any,  # noqa: ANN401  passed through
) -> Figure:
    """Draw a figure by name.

    Args:
        name: a key of `FIGURES`.
        geometries: what to draw; exactly one where the figure takes one.
        scores: tables of scores, one per task, where the figure takes them.
        **options: of the figure's function; those that are None are left to their default.

    Raises:
        InputError: an unknown figure, inputs or an option that it does not take, or what the figure's function raises.
    """
    family, given = _checked(name, geometries, scores, options)
    return family.draw(*family.inputs(geometries, scores), **given)


def figure_data(
    name: str,
    geometries: Sequence[Geometry],
    *,
    scores: Sequence[pd.DataFrame] = (),
    **options: Any,  # noqa: ANN401  passed through
) -> pd.DataFrame:
    """Return the numbers that a figure draws: the same arguments as `draw_figure`; `width` and `dark` are ignored."""
    family, given = _checked(name, geometries, scores, options)
    look = {"width", "dark"}
    return family.data(
        *family.inputs(geometries, scores), **{key: one for key, one in given.items() if key not in look}
    )


def _family(name: str) -> FigureFamily:
    if name not in FIGURES:
        raise InputError(f"no figure {name!r}; {suggest(name, FIGURES)}")
    return FIGURES[name]


def _checked(
    name: str, geometries: Sequence[Geometry], scores: Sequence[pd.DataFrame], options: Mapping[str, Any]
) -> tuple[FigureFamily, dict[str, Any]]:
    family = _family(name)
    given = {key: option for key, option in options.items() if option is not None}
    for key, words in _OPTION_WORDS.items():
        if key in given and key not in family.options:
            able = ", ".join(other for other, candidate in FIGURES.items() if key in candidate.options)
            raise InputError(f"{name} takes no {words}; figures that do: {able}")
    reason = why_not(name, geometries, scores)
    if reason is not None:
        raise InputError(reason)
    return family, given
