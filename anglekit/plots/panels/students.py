"""How a student is drawn, everywhere: its strategy gives colour and marker, its initialisation the panel."""

from __future__ import annotations

from collections.abc import Sequence

from anglekit.comparison.cells import in_order
from anglekit.plots.style import StrategyStyle, Theme
from anglekit.results.document import UNRECORDED

_OTHER_MARKERS = ("o", "v", "P", "<", ">", "h", "s", "d", "*", "p")


def strategy_styles(strategies: Sequence[str], look: Theme) -> dict[str, StrategyStyle]:
    """Return a style per strategy, in the order of reading: the paper's fixed ones, others by rank."""
    names = in_order(strategies)
    others = {name: rank for rank, name in enumerate(name for name in names if name not in look.strategies)}
    return {
        name: look.strategies[name]
        if name in look.strategies
        else StrategyStyle(
            look.neutral[others[name] % len(look.neutral)], _OTHER_MARKERS[others[name] % len(_OTHER_MARKERS)]
        )
        for name in names
    }


def init_order(inits: Sequence[str]) -> list[str]:
    """Return initialisations once each: random, teacher, others."""
    found = dict.fromkeys(inits)
    first = [name for name in ("random", "teacher") if name in found]
    return first + [name for name in found if name not in first]


def init_words(init: str) -> str:
    """Return an initialisation for a panel's title."""
    return "init not recorded" if init == UNRECORDED else f"{init} init"


def init_colour(init: str, look: Theme) -> str:
    """Return the colour of an initialisation as text."""
    return look.init_text.get(init, look.ink)
