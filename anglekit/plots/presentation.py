"""How a figure is dressed for the page it goes to: a style sheet, a font, headings, notes, and the names it shows."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.style
from matplotlib.font_manager import FontProperties, findfont, get_font_names

from anglekit.display.counts import counted
from anglekit.errors import InputError, suggest
from anglekit.results.document import UNRECORDED, Arm
from anglekit.runtime.files import near_path
from anglekit.vocabulary import given_name

#: The names of fonts that stand for a list of fonts in matplotlib's settings.
_GENERIC_FONTS = ("serif", "sans-serif", "cursive", "fantasy", "monospace")

#: Styles to name where one does not exist: for print, for grey, for a dark ground, for readers who see few colours.
_SOME_STYLES = ("bmh", "ggplot", "grayscale", "dark_background", "tableau-colorblind10")

# What of a style sheet applies. Sizes of text and figure are left out, since figures are laid out in inches at print
# size, and so are the settings of files, since fonts are always embedded, and TeX, which measures text by itself.
_STYLED = re.compile(
    r"axes\.|grid\.|lines\.|patch\.|hatch\.|legend\.|scatter\.|mathtext\.|image\.cmap$|text\.color$"
    r"|[xy]tick\.|font\.(family|style|weight|stretch|variant|serif|sans-serif|cursive|fantasy|monospace)$|figure\.facecolor$"
)
_SIZES = re.compile(r"(size|pad|margin)$|\.(titlesize|labelsize)$|^axes\.(formatter|autolimit|axisbelow)")


@dataclass(frozen=True, kw_only=True)
class Presentation:
    """What can be chosen about the look of any figure.

    Attributes:
        style: a style sheet of matplotlib (`ggplot`), a `.mplstyle` file, or several, the later above the earlier. Its
            colours of ground and text, lines, grids and fonts apply; strategies and initialisations keep their colours,
            text and figure their sizes.
        font: a font that is installed; a glyph that it lacks is taken from DejaVu Sans.
        titles: write headings; what tells panels apart stays without them too.
        notes: write the sentences under a figure.
        names: what a student, a strategy or the `teacher` is called in the figure, by its name.
    """

    style: str | PathLike[str] | Sequence[str | PathLike[str]] | None = None
    font: str | None = None
    titles: bool = True
    notes: bool = True
    names: Mapping[str, str] = field(default_factory=dict)

    def settings(self) -> dict[str, Any]:
        """Return the matplotlib settings of style and font.

        Raises:
            InputError: there is no such style, it cannot be read, or the font is not installed.
        """
        styles = [self.style] if isinstance(self.style, str | PathLike) else self.style or ()
        found = {name: value for each in styles for name, value in _style_settings(fspath(each)).items()}
        return found if self.font is None else found | _font_settings(self.font)


_PLAIN = Presentation()
_PRESENTATION: ContextVar[Presentation] = ContextVar("presentation", default=_PLAIN)


def presentation() -> Presentation:
    """Return what is in force where a figure is drawn."""
    return _PRESENTATION.get()


@contextmanager
def presented(as_chosen: Presentation) -> Iterator[None]:
    """Draw the figures of the block as chosen."""
    before = _PRESENTATION.set(as_chosen)
    try:
        yield
    finally:
        _PRESENTATION.reset(before)


def shown_name(name: str) -> str:
    """Return what a student, a strategy or the teacher is called in the figure that is drawn."""
    return presentation().names.get(name, name)


def display_names(arms: Mapping[str, Arm], strategies: Iterable[str], chosen: Mapping[str, str]) -> dict[str, str]:
    """Return what students are called: a name that repeats how the student was trained becomes words.

    `forward-random-seed0` is shown as "forward, random init", with its seed where there are several.

    Args:
        arms: of the students, by name.
        strategies: others that the figure shows.
        chosen: names of the caller's, which come first.

    Raises:
        InputError: a name is chosen for what is neither a student, nor a strategy, nor the teacher.
    """
    known = dict.fromkeys(["teacher", *arms, *(arm.strategy for arm in arms.values()), *strategies])
    for name in chosen:
        if name not in known:
            raise InputError(
                f"no student or strategy {name!r} to call {chosen[name]!r} (--rename)", allowed=suggest(name, known)
            )
    seeds = {arm.seed for arm in arms.values()}
    names = {}
    for student, (strategy, init, seed) in arms.items():
        source = given_name(init) or init
        if init == UNRECORDED or student != f"{strategy}-{source}-seed{seed}":
            continue
        where = f"student {source}" if given_name(init) is not None else f"{init} init"
        names[student] = f"{chosen.get(strategy, strategy)}, {where}{f', seed {seed}' if len(seeds) > 1 else ''}"
    # Two students may differ in what their names say and their records do not.
    unlike = {text for text in names.values() if list(names.values()).count(text) == 1}
    return {student: text for student, text in names.items() if text in unlike} | dict(chosen)


def _style_settings(style: str) -> dict[str, Any]:
    """Return what of a style sheet applies."""
    if style in mpl.style.library:
        found: dict[Any, Any] = dict(mpl.style.library[style])
    elif Path(style).is_file():
        try:
            found = dict(mpl.rc_params_from_file(style, use_default_template=False))
        except (OSError, ValueError) as error:  # a text in another encoding is a ValueError
            raise InputError(f"{style} cannot be read as a style sheet ({error})", "give a .mplstyle file") from error
        if not found:
            raise InputError(f"{style} holds no setting of matplotlib", "give a .mplstyle file (--style)")
    else:
        found = _package_style(style)
    return {name: value for name, value in found.items() if _STYLED.match(name) and not _SIZES.search(name)}


def _package_style(style: str) -> dict[str, Any]:
    """Return what a style of a package (`package.name`) changes of matplotlib's defaults."""
    with mpl.rc_context():
        mpl.rcdefaults()
        before = dict(mpl.rcParams)
        try:
            mpl.style.use(style)
        except (OSError, ValueError) as error:
            raise _no_style(style) from error
        return {name: value for name, value in mpl.rcParams.items() if before[name] != value}


def _no_style(style: str) -> InputError:
    """Return the error of a style sheet that was not found: as a file, in a package, or by name."""
    path = Path(style)
    if path.suffix == ".mplstyle" or path.name != style:
        return InputError(f"no style sheet {style}{near_path(path)}", "give the path of a .mplstyle file (--style)")
    package, dot, _ = style.rpartition(".")
    if dot:
        return InputError(
            f"no matplotlib style {style!r}: {package} is not installed, or holds no such style",
            f"`python -m pip install {package}`, or give a .mplstyle file (--style)",
        )
    names = [name for name in mpl.style.library if not name.startswith("_")]
    near = difflib.get_close_matches(style, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return InputError(
        f"no matplotlib style {style!r}",
        f"{hint}matplotlib has {len(names)}, such as {', '.join(_SOME_STYLES)} (matplotlib.style.available names all); "
        "or give a .mplstyle file (--style)",
    )


def _font_settings(font: str) -> dict[str, Any]:
    """Return the settings that make a font the first of all."""
    if font not in _GENERIC_FONTS:
        try:
            findfont(FontProperties(family=[font]), fallback_to_default=False)
        except ValueError as error:
            installed = get_font_names()
            raise InputError(
                f"the font {font!r} is not installed here ({counted(len(installed), 'font')} known to matplotlib)",
                "install it and remove matplotlib's font cache, or leave --font out",
                allowed=suggest(font, installed) if len(installed) <= 30 else _near(font, installed),
            ) from error
    serif = font == "serif" or font in mpl.rcParamsDefault["font.serif"]
    return {"font.family": [font], "mathtext.fontset": "stix" if serif else "dejavusans"}


def _near(font: str, installed: Sequence[str]) -> str:
    """Return a hint where many fonts are installed: those whose names begin alike."""
    start = font.lower()[:4]
    alike = sorted({name for name in installed if name.lower().startswith(start)})[:5]
    return f"did you mean {', '.join(map(repr, alike))}?" if alike else ""
