"""What every layout shares: places in inches from the figure's lower left corner, and how many panels it holds."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure

from anglekit.errors import InputError
from anglekit.plots.panels.labels import plain, text_width
from anglekit.plots.style import SMALL_FONT_SIZE, round_ticks

#: Inches: a line of small text.
LINE = 0.13


def nothing_to_draw() -> InputError:
    """Return the error of a choice that leaves nothing to draw."""
    return InputError("no student has this stream and vertex", "choose others, or leave the choice out")


def check_panel_count(count: int, most: int, advice: str) -> None:
    """Raise InputError for a figure with no panel or more than `most`."""
    if not count:
        raise nothing_to_draw()
    if count > most:
        raise InputError(f"{count} panels are more than a figure holds ({most})", advice)


def axes_at(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Return new axes with their upper left corner at (`left`, `top`)."""
    total_width, total_height = figure.get_size_inches()
    return figure.add_axes(
        (left / total_width, (top - height) / total_height, width / total_width, height / total_height)
    )


def text_at(
    figure: Figure, lines: Sequence[str], left: float, top: float, *, gid: str = "notes", spacing: float = 1.25
) -> None:
    """Write lines of small text, the upper left corner at (`left`, `top`)."""
    total_width, total_height = figure.get_size_inches()
    figure.text(
        left / total_width,
        top / total_height,
        "\n".join(lines),
        ha="left",
        va="top",
        fontsize=SMALL_FONT_SIZE,
        linespacing=spacing,
        gid=gid,
    )


def colour_bar_at(
    figure: Figure,
    left: float,
    top: float,
    height: float,
    *,
    scale: Normalize,
    colours: str | Colormap,
    label: str,
    integer: bool = False,
) -> None:
    """Draw a colour bar with its upper left corner at (`left`, `top`), ticks at whole numbers only if `integer`."""
    ax = axes_at(figure, left, top, 0.1, height)
    ax.set_gid("colour-bar")
    bar = figure.colorbar(ScalarMappable(norm=scale, cmap=colours), cax=ax)
    if integer:
        bar.ax.yaxis.set_major_locator(round_ticks(6, integer=True))
    # Beside a short bar the unit stands on a line of its own.
    long = text_width(figure, plain(label), SMALL_FONT_SIZE) > height
    bar.set_label(label.replace(" (", "\n(", 1) if long else label)
    bar.outline.set_linewidth(0.6)
