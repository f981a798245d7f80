"""Lines of student layers, each coloured by its depth, a panel per student: the angle as something else changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, ListedColormap
from matplotlib.figure import Figure

from anglekit.plots.panels.chosen import stream_order
from anglekit.plots.panels.line_panels import Entry, LayerBar, LinePanel, draw_line_panels
from anglekit.plots.presentation import shown_name
from anglekit.plots.style import CHANCE_DASHES, Theme, init_colour

_MARKED_LINES = 8  # with more lines, points are not marked


def draw_depth_lines(
    data: pd.DataFrame,
    look: Theme,
    width: float,
    *,
    value: str,
    x: str,
    xlabel: str,
    ylabel: str,
    legend: Sequence[Entry],
    note: str,
    behind: Callable[[Axes], object],
    height: float,
    dashed: str | None = None,
) -> Figure:
    """Draw a column, a panel per student and stream, a line per vertex in the colour of its depth.

    `data` has columns `student, init, stream, vertex`, x and value, and perhaps one that is drawn `dashed` in the same
    colour, such as a chance level. `behind` draws what stands behind the lines, which `legend` explains; `width` of the
    figure and `height` of an axes are inches.

    Raises:
        InputError: there is no student, or there are too many panels.
    """
    vertices = sorted({int(vertex) for vertex in data["vertex"]})
    span = max(vertices[-1] - vertices[0], 1) if vertices else 1
    colours = _depth_colours(look)
    streams = stream_order(data["stream"])
    panels = []
    for student in dict.fromkeys(data["student"]):
        of_student = data[data["student"] == student]
        for stream in (name for name in streams if name in set(of_student["stream"])):
            rows = of_student[of_student["stream"] == stream]

            def draw(ax: Axes, rows: pd.DataFrame = rows) -> None:
                behind(ax)
                few = rows["vertex"].nunique() <= _MARKED_LINES
                for vertex, own in rows.groupby("vertex"):
                    line = own.sort_values(x)
                    colour = colours((int(str(vertex)) - vertices[0]) / span)
                    ax.plot(
                        line[x],
                        line[value],
                        color=colour,
                        marker="o" if few else "",
                        markersize=2.6,
                        linewidth=1.1 if few else 0.8,
                        zorder=3,
                        gid=f"vertex-{vertex}",
                    )
                    if dashed is not None:
                        ax.plot(line[x], line[dashed], color=colour, linewidth=0.8, linestyle=CHANCE_DASHES, zorder=2)

            shown = shown_name(str(student))
            title = f"{shown}, {stream}" if len(streams) > 1 else shown
            panels.append(LinePanel(title, draw, init_colour(str(rows["init"].iloc[0]), look)))
    return draw_line_panels(
        panels,
        look,
        width,
        xlabel=xlabel,
        ylabel=ylabel,
        legend=legend,
        notes=[note],
        bar=LayerBar(vertices, colours, "student layer"),
        height=height,
    )


def _depth_colours(look: Theme) -> Colormap:
    """Return the part of the sequential map that stands out from the ground."""
    low, high = (0.3, 1.0) if look.dark else (0.0, 0.88)
    return ListedColormap(mpl.colormaps[look.sequential](np.linspace(low, high, 256)), name="layers")
