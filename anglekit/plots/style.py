"""The one look of every figure: colours, markers, sizes and the settings that make a file readable and reproducible.

Importing this changes none of matplotlib's settings: `context` applies them while a figure is drawn and restores the
earlier ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import cycle
from types import MappingProxyType
from typing import Any

import matplotlib as mpl
import matplotlib.style
from matplotlib.colors import to_hex, to_rgb
from matplotlib.ticker import MaxNLocator

from anglekit.comparison.cells import in_order
from anglekit.errors import InputError, suggest
from anglekit.plots.ground import EMBEDDED
from anglekit.plots.presentation import presentation
from anglekit.results.document import UNRECORDED
from anglekit.vocabulary import GIVEN, given_name

#: The font that matplotlib ships: it has the same glyphs on every machine, so we know which are missing.
FONT_FAMILY = "DejaVu Sans"
#: Points at print size; no text is smaller than SMALL_FONT_SIZE.
FONT_SIZE = 7.5
SMALL_FONT_SIZE = 7.0

#: Inches: a column and the text block of a two-column proceedings page.
WIDTHS: Mapping[str, float] = MappingProxyType({"column": 3.03, "page": 6.30})
#: Inches: the height of that text block; a higher figure cannot be printed at its size.
PAGE_HEIGHT = 9.7

#: For guides behind the data, and for the teacher.
GUIDE_DASHES = (0, (2, 2))
TEACHER_DASHES = (0, (4, 1.2))
#: For the level that chance alone would give: of angles and similarities, and of scores.
CHANCE_DASHES = (0, (3.5, 2.0))
SCORE_CHANCE_DASHES = (0, (1, 1.6))
#: These tell tasks, or the students of one panel, apart.
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "h")


@dataclass(frozen=True)
class StrategyStyle:
    """How a strategy, or a student whose strategy was not recorded, is drawn everywhere."""

    colour: str
    marker: str


@dataclass(frozen=True)
class Theme:
    """The colours of a figure on a light or a dark ground.

    Attributes:
        background: the ground of figure and axes.
        ink: text, spines and ticks.
        faint: what stands behind the data: guides, trajectories.
        shade: the tint of a marked region of an axes.
        blank: cells that have no value.
        init: colour by initialisation (`random` is the paper's orange, `teacher` its blue, `given` dark red, on dark
            pale yellow).
        init_text: the same hues where they are text: at least 4.5 : 1 against the background.
        strategies: colour and marker by strategy and control.
        neutral: colours for students whose initialisation is not recorded; none is an orange or a blue.
        diverging: the colour map of values with a meaningful middle.
        sequential: the colour map of the others.
        dark: the ground is dark.
    """

    background: str
    ink: str
    faint: str
    shade: str
    blank: str
    init: Mapping[str, str]
    init_text: Mapping[str, str]
    strategies: Mapping[str, StrategyStyle]
    neutral: tuple[str, ...]
    diverging: str = "RdBu_r"
    sequential: str = "cividis"
    dark: bool = False

    def settings(self) -> dict[str, Any]:
        """Return the matplotlib settings of this theme."""
        return {
            "figure.facecolor": self.background,
            "figure.edgecolor": self.background,
            "savefig.facecolor": "auto",
            "axes.facecolor": self.background,
            "axes.edgecolor": self.ink,
            "axes.labelcolor": self.ink,
            "text.color": self.ink,
            "xtick.color": self.ink,
            "ytick.color": self.ink,
            "hatch.color": self.faint,
            **_SHARED_SETTINGS,
        }


_SHARED_SETTINGS: Mapping[str, Any] = MappingProxyType(
    {
        "font.family": [FONT_FAMILY, "sans-serif"],  # the second is for viewers of an svg that lack the first
        "font.sans-serif": [FONT_FAMILY],
        "mathtext.fontset": "dejavusans",
        "text.hinting": "none",  # a text has its measured width at any resolution
        "font.size": FONT_SIZE,
        "axes.titlesize": FONT_SIZE,
        "axes.labelsize": SMALL_FONT_SIZE,
        "xtick.labelsize": SMALL_FONT_SIZE,
        "ytick.labelsize": SMALL_FONT_SIZE,
        "legend.fontsize": SMALL_FONT_SIZE,
        "axes.labelpad": 2.0,
        "axes.linewidth": 0.6,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
        "xtick.major.size": 2.5,
        "ytick.major.size": 2.5,
        "xtick.major.pad": 2.0,
        "ytick.major.pad": 2.0,
        "lines.linewidth": 1.1,
        "hatch.linewidth": 0.5,
        "legend.frameon": False,
        **EMBEDDED,
        "svg.hashsalt": "anglekit",  # element ids are the same in every run
        "figure.dpi": 100.0,
        "savefig.dpi": 300.0,
    }
)

_MARKERS: Mapping[str, str] = MappingProxyType(
    {
        "none": "X",
        "forward": "o",
        "reverse": "s",
        "all-to-one": "^",
        "random": "D",
        "alone": "P",
        "random-teacher": "v",
    }
)

#: Line styles where the colour says the initialisation.
STRATEGY_DASHES: Mapping[str, Any] = MappingProxyType(
    {
        "none": (0, (1.2, 1)),
        "forward": "-",
        "reverse": (0, (5, 1.2)),
        "all-to-one": (0, (5, 1, 1, 1)),
        "random": (0, (3, 1, 1, 1, 1, 1)),
        "alone": (0, (1, 2)),
        "random-teacher": (0, (8, 1.5)),
    }
)
_OTHER_MARKERS = ("o", "v", "P", "<", ">", "h", "s", "d", "*", "p")


def _strategies(colours: Mapping[str, str]) -> Mapping[str, StrategyStyle]:
    return MappingProxyType({name: StrategyStyle(colour, _MARKERS[name]) for name, colour in colours.items()})


# A search chose the strategies' colours: it maximised the smallest difference (CIELAB) between any two of them under
# normal, protan, deutan and tritan vision. They keep away from the orange and blue that mean an initialisation, and on
# a white ground from black: no lightness is below 34.
LIGHT_THEME = Theme(
    background="#FFFFFF",
    ink="#1A1A1A",
    faint="#8C8C8C",
    shade="#F3F3F0",
    blank="#C2C2C2",
    init=MappingProxyType({"random": "#E07B00", "teacher": "#0072B2", GIVEN: "#4B001E"}),
    init_text=MappingProxyType({"random": "#A85800", "teacher": "#005F96", GIVEN: "#4B001E"}),
    strategies=_strategies(
        {
            "none": "#8C8C8C",
            "forward": "#05AC5E",
            "reverse": "#E35DE2",
            "all-to-one": "#08586A",
            "random": "#A11515",
            "alone": "#E83303",
            "random-teacher": "#A223F5",
        }
    ),
    neutral=("#3D3D3D", "#1E8A4C", "#B02BA4", "#6E6300", "#777777"),
)
NIGHT_THEME = Theme(
    background="#15181C",
    ink="#E6E6E6",
    faint="#7C828A",
    shade="#20252B",
    blank="#4A525C",
    init=MappingProxyType({"random": "#F59B2E", "teacher": "#56B4E9", GIVEN: "#FFFFD2"}),
    init_text=MappingProxyType({"random": "#F59B2E", "teacher": "#56B4E9", GIVEN: "#FFFFD2"}),
    strategies=_strategies(
        {
            "none": "#BEBEBE",
            "forward": "#2FE850",
            "reverse": "#B83FB0",
            "all-to-one": "#1B7F71",
            "random": "#8B7935",
            "alone": "#CCAB7A",
            "random-teacher": "#A64AFB",
        }
    ),
    neutral=("#D0D0D0", "#41C46E", "#D76BCF", "#B9A443", "#9A9A9A"),
    dark=True,
)


def theme(dark: bool) -> Theme:
    """Return the dark or the light theme, on the ground and with the ink of the style sheet that is in force."""
    styled = presentation().settings()
    ground = styled.get("axes.facecolor", styled.get("figure.facecolor"))
    if ground is None or ground == "none":
        base, ground = NIGHT_THEME if dark else LIGHT_THEME, None
    else:
        base = NIGHT_THEME if sum(to_rgb(ground)) < 1.5 else LIGHT_THEME
    ink, colours = styled.get("text.color"), styled.get("image.cmap")
    return replace(
        base,
        background=base.background if ground is None else to_hex(ground),
        ink=base.ink if ink is None else to_hex(ink),
        sequential=base.sequential if colours is None else str(colours),
    )


def strategy_styles(strategies: Sequence[str], look: Theme) -> dict[str, StrategyStyle]:
    """Return a style per strategy, in reading order: known names have fixed styles, others go by rank."""
    others = map(StrategyStyle, cycle(look.neutral), cycle(_OTHER_MARKERS))
    return {name: look.strategies.get(name) or next(others) for name in in_order(strategies)}


def init_order(inits: Sequence[str]) -> list[str]:
    """Return initialisations once each: random, teacher, others."""
    found = dict.fromkeys(inits)
    first = [name for name in ("random", "teacher") if name in found]
    return first + [name for name in found if name not in first]


def init_words(init: str) -> str:
    """Return an initialisation for a panel's title or a legend."""
    if (name := given_name(init)) is not None:
        return f"student {name}"
    return "init not recorded" if init == UNRECORDED else f"{init} init"


def init_colour(init: str, look: Theme) -> str:
    """Return the colour of an initialisation as text."""
    return look.init_text.get(init_kind(init), look.ink)


def init_kind(init: str | None) -> str:
    """Return what the colour of an initialisation says: all students that were there before share one; "" for None."""
    return GIVEN if given_name(init or "") is not None else init or ""


def behind_text(look: Theme) -> dict[str, Any]:
    """Return the box (for a text's `bbox`) that keeps it readable over lines."""
    return {"facecolor": look.background, "alpha": 0.8, "linewidth": 0, "boxstyle": "square,pad=0.08"}


@contextmanager
def context(look: Theme) -> Iterator[None]:
    """Apply a theme on top of matplotlib's own defaults, so that the caller's settings cannot change a figure.

    The style sheet and the font of the presentation in force come on top. The caller's settings and backend are as
    before when the block ends.
    """
    settings = look.settings() | presentation().settings()
    family = settings["font.family"]
    # A glyph that another font lacks is drawn in ours.
    settings["font.family"] = list(dict.fromkeys([*([family] if isinstance(family, str) else family), FONT_FAMILY]))
    with mpl.style.context(settings | dict(EMBEDDED), after_reset=True):
        yield


def figure_width(width: str) -> float:
    """Return a named width in inches.

    Raises:
        InputError: it is neither `column` nor `page`.
    """
    if width not in WIDTHS:
        raise InputError(f"no figure width {width!r}", allowed=suggest(width, WIDTHS))
    return WIDTHS[width]


def round_ticks(most: int, *, integer: bool = False) -> MaxNLocator:
    """Return a locator of at most `most` intervals, with ticks at numbers that are easy to read: no 2.4, no 15.

    With `integer`, ticks are at whole numbers only (for layers and steps), and there may be a single one.
    """
    steps = [1, 2, 4 if integer else 2.5, 5, 10]
    return MaxNLocator(nbins=most, steps=steps, integer=integer, min_n_ticks=1 if integer else 2)
