"""Curves of students: a panel per stream and initialisation, a line per student in the style of its strategy."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from anglekit.comparison.cells import in_order
from anglekit.plots.panels.line_panels import Entry, LinePanel, integer_ticks
from anglekit.plots.panels.students import init_colour, init_order, init_words, strategy_styles
from anglekit.plots.style import Theme

__all__ = ["arm_legend", "arm_panels", "stream_order", "token_mean"]

_DODGED_LAYERS = 13  # up to so many layers, points of several students stand side by side with bars; then bands
_SPREAD = 0.5  # of the distance between two layers, that all students of a panel together take


def stream_order(streams: Sequence[str]) -> list[str]:
    """Return streams once each, the encoder first."""
    return sorted(dict.fromkeys(map(str, streams)), key=lambda name: (name != "encoder", name))


def arm_panels(
    data: pd.DataFrame,
    look: Theme,
    value: str,
    x: str,
    *,
    before: Callable[[Axes, str], None] | None = None,
    factor: float = 1.0,
) -> list[LinePanel]:
    """Return a panel per stream and initialisation.

    Args:
        data: columns `student, strategy, init, stream`, x and value, and `low, high` where there are intervals.
        look: the theme.
        value: the column of y.
        x: the column of x, layer numbers.
        before: draws what stands behind the students of a stream.
        factor: from the column's unit to the figure's.
    """
    styles = strategy_styles(list(data["strategy"]), look)
    panels = []
    for stream in stream_order(list(data["stream"])):
        of_stream = data[data["stream"] == stream]
        for init in init_order(list(of_stream["init"])):
            rows = of_stream[of_stream["init"] == init]

            def draw(ax: Axes, rows: pd.DataFrame = rows, stream: str = stream) -> None:
                if before is not None:
                    before(ax, stream)
                order = in_order(rows["strategy"])
                students = sorted(rows["student"].unique(), key=lambda s: order.index(_strategy(rows, s)))
                few = rows[x].nunique() <= _DODGED_LAYERS
                bars = "low" in rows.columns
                for rank, student in enumerate(students):
                    own = rows[rows["student"] == student].sort_values(x)
                    style = styles[_strategy(rows, student)]
                    shift = (rank - (len(students) - 1) / 2) * min(_SPREAD / len(students), 0.12) if few and bars else 0
                    places, heights = own[x].to_numpy(float) + shift, own[value].to_numpy(float) * factor
                    if bars:
                        low, high = (own[end].to_numpy(float) * factor for end in ("low", "high"))
                        if few:
                            # over the markers: a narrow interval would hide behind its own point
                            ax.vlines(places, low, high, color=style.colour, linewidth=1.0, zorder=5)
                        else:
                            ax.fill_between(places, low, high, color=style.colour, alpha=0.2, linewidth=0, zorder=2)
                    ax.plot(
                        places,
                        heights,
                        color=style.colour,
                        marker=style.marker,
                        markersize=3.8 if few else 2.6,
                        markeredgecolor=look.background,
                        markeredgewidth=0.4,
                        markevery=1 if few else max(len(places) // 8, 1),
                        linewidth=1.0,
                        zorder=4,
                        gid=f"student-{student}",
                    )
                integer_ticks(ax)

            panels.append(LinePanel(f"{stream}, {init_words(init)}", draw, init_colour(init, look)))
    return panels


def _strategy(rows: pd.DataFrame, student: str) -> str:
    return str(rows.loc[rows["student"] == student, "strategy"].iloc[0])


def arm_legend(data: pd.DataFrame, look: Theme, *, lines: bool = True) -> list[Entry]:
    """Return an entry per strategy."""
    return [
        Entry.line(name, style.colour, marker=style.marker, linestyle="-" if lines else "none")
        for name, style in strategy_styles(list(data["strategy"]), look).items()
    ]


def token_mean(rows: pd.DataFrame, column: str) -> float:
    """Return the mean of a column weighted by tokens, over the rows that have a value; NaN where none has."""
    values, weights = rows[column].to_numpy(np.float64), rows["n_tokens"].to_numpy(np.float64)
    known = np.isfinite(values) & (weights > 0)
    return float(np.average(values[known], weights=weights[known])) if known.any() else float("nan")
