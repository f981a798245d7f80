"""The legend of figure 1: every student by name where there is room, by initialisation where there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from anglekit.plots.figure1.curves import Panel
from anglekit.plots.figure1.histograms import CurveStyle, by_strategy
from anglekit.plots.panels.labels import fit, plain, text_width
from anglekit.plots.presentation import shown_name
from anglekit.plots.style import CHANCE_DASHES, SMALL_FONT_SIZE, Theme, init_kind, init_order, init_words

# More students than this are listed by initialisation.
_MOST_NAMES = 12
_ROW = 0.132  # inches
_HANDLE = 0.36  # inches: an entry's line and the gap to its name
_GAP = 0.10  # inches between columns


@dataclass(frozen=True)
class Legend:
    """Entries with their final names, in columns; `height` is in inches; `whole` means that no name was shortened."""

    handles: tuple[Artist, ...]
    names: tuple[str, ...]
    columns: int
    height: float
    whole: bool


def build_legend(
    figure: Figure,
    panels: Sequence[Panel],
    styles: Mapping[tuple[str, str | None], CurveStyle],
    look: Theme,
    room: float,
) -> Legend:
    """Return the legend that fits `room` inches side by side, long names shortened in the middle."""
    marked = any(len(panel.curves) > 1 for panel in panels)
    handles: list[Artist] = []
    parts: list[tuple[str, str]] = []
    arms: dict[tuple[str, str | None], list[str]] = {}
    for curve in (curve for panel in panels for curve in panel.curves):
        students = arms.setdefault((curve.strategy, curve.init), [])
        if curve.student not in students:
            students.append(curve.student)
    if by_strategy(panels, look):
        for name in init_order([init or "" for _, init in arms]):
            style = next(style for (_, other), style in styles.items() if other == name)
            handles.append(_line(style, style.dashes, style.marker if marked else ""))
            parts.append((init_words(name), ""))
    elif len(arms) <= _MOST_NAMES:
        for (strategy, init), students in arms.items():
            style = styles[students[0], init]
            handles.append(_line(style, style.dashes, style.marker if marked else ""))
            if len(students) > 1:
                parts.append((shown_name(strategy), f", {len(students)} students{_init_words(init, look)}"))
            else:
                name = shown_name(students[0])
                parts.append((name, _init_words(init, look) if name == students[0] else ""))
    else:
        groups: dict[str | None, list[CurveStyle]] = {}
        for (_, init), style in styles.items():
            groups.setdefault(init, []).append(style)
        for init, members in groups.items():
            handles.append(_line(members[0], "-", ""))
            parts.append((f"{len(members)} students", _init_words(init, look) or " (initialisation not recorded)"))
    handles.append(Line2D([], [], color=look.ink, linestyle=CHANCE_DASHES, linewidth=0.9))
    parts.append(("chance level, per student", ""))
    handles.append(Patch(facecolor=look.shade, edgecolor=look.faint, linewidth=0.5))
    parts.append(("acute: cosine above 0", ""))
    widest = max(text_width(figure, plain(name) + suffix, SMALL_FONT_SIZE) for name, suffix in parts)
    columns = max(1, min(3, int((room + _GAP) // (widest + _HANDLE + _GAP)), len(parts)))
    if columns == 1 and room > 4:
        columns = 2
    columns = -(-len(parts) // -(-len(parts) // columns))  # columns of nearly equal length
    column = (room + _GAP) / columns - _GAP - _HANDLE
    names = tuple(_name(figure, name, suffix, column) for name, suffix in parts)
    rows = -(-len(parts) // columns)
    return Legend(tuple(handles), names, columns, rows * _ROW, widest + _HANDLE <= (room + _GAP) / columns - _GAP)


def _name(figure: Figure, name: str, suffix: str, room: float) -> str:
    return fit(figure, name, room, SMALL_FONT_SIZE, frame=lambda text: text + suffix)


def _init_words(init: str | None, look: Theme) -> str:
    return f" ({init_words(init)})" if init is not None and init_kind(init) in look.init else ""


def _line(style: CurveStyle, dashes: object, marker: str) -> Line2D:
    return Line2D(
        [],
        [],
        color=style.colour,
        linestyle=dashes,  # type: ignore[arg-type]
        linewidth=1.1,
        marker=marker,
        markersize=3.6,
    )


def draw_legend(figure: Figure, legend: Legend, left: float, top: float) -> None:
    """Draw the legend with its upper left corner at (`left`, `top`) inches from the figure's lower left one."""
    total_width, total_height = figure.get_size_inches()
    em = SMALL_FONT_SIZE / 72
    figure.legend(
        list(legend.handles),
        list(legend.names),
        loc="upper left",
        bbox_to_anchor=(left / total_width, top / total_height),
        ncols=legend.columns,
        borderpad=0.0,
        borderaxespad=0.0,
        handlelength=0.28 / em,
        handletextpad=0.06 / em,
        columnspacing=_GAP / em,
        labelspacing=0.35,
    )
