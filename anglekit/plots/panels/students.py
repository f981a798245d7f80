"""How a student is drawn, everywhere: its strategy gives colour and marker, its initialisation the panel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from anglekit.comparison.cells import in_order
from anglekit.comparison.sources import UNRECORDED, student_arms
from anglekit.plots.style import Theme
from anglekit.results.geometry import Geometry

__all__ = ["StudentStyle", "init_colour", "init_order", "init_words", "strategy_styles", "with_arms"]

_OTHER_MARKERS = ("o", "v", "P", "<", ">", "h", "s", "d", "*", "p")


@dataclass(frozen=True)
class StudentStyle:
    """Colour and marker of a strategy, or of a student whose strategy was not recorded."""

    colour: str
    marker: str


def strategy_styles(strategies: Sequence[str], look: Theme) -> dict[str, StudentStyle]:
    """Return a style per strategy, in the order of reading: the paper's fixed ones, others by rank."""
    styles, rank = {}, 0
    for name in in_order(strategies):
        if name in look.strategies:
            fixed = look.strategies[name]
            styles[name] = StudentStyle(fixed.colour, fixed.marker)
        else:
            styles[name] = StudentStyle(
                look.neutral[rank % len(look.neutral)], _OTHER_MARKERS[rank % len(_OTHER_MARKERS)]
            )
            rank += 1
    return styles


def with_arms(table: pd.DataFrame, geometry: Geometry) -> pd.DataFrame:
    """Return a table with the columns `strategy`, `init` and `seed` behind its student; the seed may be missing."""
    arms = student_arms(geometry)
    place = list(table.columns).index("student") + 1
    added = table.copy()
    for offset, name in enumerate(("strategy", "init", "seed")):
        column = [arms[student][offset] for student in table["student"]]
        added.insert(place + offset, name, pd.Series(column, index=table.index, dtype="object"))
    return added


def init_order(inits: Sequence[str]) -> list[str]:
    """Return initialisations once each: random, teacher, others."""
    found = dict.fromkeys(inits)
    first = [name for name in ("random", "teacher") if name in found]
    return first + [name for name in found if name not in first]


def init_words(init: str) -> str:
    """Return an initialisation for a panel's title."""
    return {
        "random": "random init",
        "teacher": "teacher init",
        UNRECORDED: "init not recorded",
    }.get(init, f"{init} init")


def init_colour(init: str, look: Theme) -> str:
    """Return the colour of an initialisation as text."""
    return look.init_text.get(init, look.ink)
