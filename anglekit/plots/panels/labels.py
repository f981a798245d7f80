"""Makes text from data safe to draw: no mathematics, no glyph that the font lacks, no longer than its place."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font

from anglekit.plots.style import FONT_SIZE, SMALL_FONT_SIZE

_ELLIPSIS = "…"


@functools.cache
def _glyphs(families: tuple[str, ...]) -> frozenset[int]:
    """Return the characters that one of these fonts has."""
    files = [findfont(FontProperties(family=[family])) for family in families]
    return frozenset(code for file in files for code in get_font(file).get_charmap())


def _families() -> tuple[str, ...]:
    """Return the fonts that are in force, the first one first."""
    return tuple(mpl.rcParams["font.family"])


def plain(text: str) -> str:
    """Return text that can be drawn: characters without a glyph become code points, dollar signs are literal."""
    drawable, glyphs = [], _glyphs(_families())
    for character in text:
        code = ord(character)
        if character.isprintable() and code in glyphs:
            drawable.append(character)
        else:
            drawable.append(f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")
    return "".join(drawable).replace("$", r"\$")


def shorten_middle(text: str, limit: int) -> str:
    """Return text of at most `limit` characters: both ends kept, the middle replaced by an ellipsis."""
    if len(text) <= limit:
        return text
    kept = max(limit - 1, 0)
    tail = kept // 2
    return text[: kept - tail] + _ELLIPSIS + (text[-tail:] if tail else "")


def text_extent(
    figure: Figure, text: str, size: float, weight: str = "normal", *, math: bool = False
) -> tuple[float, float]:
    """Return the width and height in inches of a drawn line of text.

    The text is `plain` already; with `math` it may hold mathematics of our own between dollar signs. `size` is in
    points.
    """
    canvas = figure.canvas
    renderer = (canvas if isinstance(canvas, FigureCanvasAgg) else FigureCanvasAgg(figure)).get_renderer()  # type: ignore[no-untyped-call]
    font = FontProperties(family=list(_families()), size=size, weight=weight)
    drawn = text if math else text.replace(r"\$", "$")
    width, height, _ = renderer.get_text_width_height_descent(drawn, font, ismath=math)
    return float(width) / figure.dpi, float(height) / figure.dpi


def text_width(figure: Figure, text: str, size: float, weight: str = "normal") -> float:
    """Return the width in inches of a drawn line of text (`plain` already)."""
    return text_extent(figure, text, size, weight)[0]


def fit(
    figure: Figure,
    text: str,
    width: float,
    size: float = FONT_SIZE,
    *,
    weight: str = "normal",
    frame: Callable[[str], str] = str,
) -> str:
    """Return `frame(text)` ready to draw, keeping as much of the text's two ends as fits in `width` inches.

    The text comes from data; its size is in points. What the frame puts around it is never shortened.
    """
    low, high = 1, len(text)
    if text_width(figure, frame(plain(text)), size, weight) <= width:
        return frame(plain(text))
    while low < high:
        middle = (low + high + 1) // 2
        if text_width(figure, frame(plain(shorten_middle(text, middle))), size, weight) <= width:
            low = middle
        else:
            high = middle - 1
    return frame(plain(shorten_middle(text, low)))


def wrap(figure: Figure, text: str, width: float, size: float = SMALL_FONT_SIZE) -> list[str]:
    """Return the lines of a text (`plain` already) broken at spaces so that each fits in `width` inches.

    No line breaks at a no-break space (U+00A0), which is a usual one in what is returned.
    """
    lines: list[str] = []
    for word in filter(None, text.split(" ")):
        candidate = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(figure, candidate, size) <= width:
            lines[-1] = candidate
        else:
            lines.append(word)
    return [line.replace("\u00a0", " ") for line in lines]


def layer_name(layer: int) -> str:
    """Return how a figure names a layer: its number, and what layer 0 is."""
    return "layer 0 (embedding)" if layer == 0 else f"layer {layer}"


def number_ranges(numbers: Sequence[int]) -> str:
    """Return sorted whole numbers in words, three or more in a row as a range: `0 to 3`, `1, 2, 4 to 6`."""
    runs: list[tuple[int, int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    words = []
    for first, last in runs:
        words += [f"{first} to {last}"] if last - first > 1 else [str(number) for number in range(first, last + 1)]
    return ", ".join(words)
