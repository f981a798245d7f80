"""Scores of one run's models side by side, each with its interval: the figure of a model card."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from anglekit.plots.ground import new_figure
from anglekit.plots.panels.labels import plain, shorten_middle
from anglekit.plots.style import GUIDE_DASHES, LIGHT_THEME, context

_MARKERS = {"teacher": "D", "student": "o", "model": "o", "untrained": "X"}
_LONGEST_NAME = 30


def draw_model_scores(rows: pd.DataFrame, score: str) -> Figure:
    """Draw a score of several models on several tables: a point each, with its 95% interval over examples.

    Args:
        rows: a row for each table and model: `data, model, value, low, high` (NaN where no interval is known), and
            `chance`, what one and the same answer to every example reaches (NaN where that is not known).
        score: its name.
    """
    below, above, row_height = 0.48, 0.1, 0.19
    height = below + row_height * len(rows) + above
    with context(LIGHT_THEME):
        figure = new_figure(4.2, height)
        axes = figure.add_axes((0.36, below / height, 0.6, row_height * len(rows) / height))
        names = []
        for place, row in enumerate(rows.to_dict(orient="records")):
            model = str(row["model"])
            value, low, high, chance = (float(row[name]) for name in ("value", "low", "high", "chance"))
            colour = LIGHT_THEME.faint if model == "untrained" else LIGHT_THEME.init["teacher"]
            colour = LIGHT_THEME.ink if model == "teacher" else colour
            axes.plot([low, high], [place, place], color=colour)
            axes.plot([value], [place], _MARKERS.get(model, "o"), color=colour, markersize=4)
            ends = [place - 0.5, place + 0.5]
            axes.plot([chance, chance], ends, color=LIGHT_THEME.faint, linestyle=GUIDE_DASHES)
            names.append(plain(f"{shorten_middle(str(row['data']), _LONGEST_NAME)}: {model}"))
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        dashed = "; dashed: one answer to all" if rows["chance"].notna().any() else ""
        axes.set_xlabel(f"{plain(score)}\n95% intervals over examples{dashed}")
    return figure
