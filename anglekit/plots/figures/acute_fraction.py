"""The share of acute angles at every student layer, with intervals that know that tokens of one example depend."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from anglekit.plots.panels.arm_lines import arm_legend, arm_panels, token_mean
from anglekit.plots.panels.chosen import choose_streams, choose_students, choose_vertices
from anglekit.plots.panels.line_panels import draw_line_panels
from anglekit.plots.panels.sentences import LAYER_NOTE, range_words, students_words
from anglekit.plots.panels.students import with_arms
from anglekit.plots.style import context, figure_width, theme
from anglekit.results.geometry import Geometry

__all__ = ["acute_fraction", "acute_fraction_data", "acute_fraction_facts", "wilson_interval"]

_Z = 1.959964  # of a two-sided 95% interval


def wilson_interval(share: float, n: float) -> tuple[float, float]:
    """Return the 95% Wilson interval of a share of n independent draws; NaN without any.

    Unlike the normal interval it stays inside [0, 1] and has a width at 0 and 1 (Wilson 1927).
    """
    if not n > 0 or not np.isfinite(share):
        return float("nan"), float("nan")
    square = _Z**2 / n
    centre = (share + square / 2) / (1 + square)
    half = _Z / (1 + square) * np.sqrt(share * (1 - share) / n + square / (4 * n))
    # Rounding must not lift an end over the share, or out of [0, 1].
    return min(max(float(centre - half), 0.0), share), max(min(float(centre + half), 1.0), share)


def acute_fraction_data(
    geometry: Geometry,
    *,
    students: str | Sequence[str] | None = None,
    stream: str | None = None,
    vertices: Sequence[int] | None = None,
) -> pd.DataFrame:
    """Return what `acute_fraction` draws: a row per student, stream and vertex.

    Columns beside `student, strategy, init, seed, stream, vertex`: `acute_fraction` (share of tokens and pairs),
    `low, high` (95%), `n_effective, n_tokens, n_pairs`.

    The interval is Wilson's, with as many draws as independent tokens would give the cosine its standard error,
    clustered by example: n = std^2 / se^2, mean over pairs. That takes the design effect of the cosine for the one of
    its sign, and pairs for fully dependent, which errs on the wide side.

    Raises:
        InputError: an argument names what the geometry does not have.
    """
    names = choose_students([geometry], students)
    streams = choose_streams([geometry], stream)
    layers = choose_vertices([geometry], vertices)
    table = geometry.angles
    table = table[table["student"].isin(names) & table["stream"].isin(streams) & table["vertex"].isin(layers)]
    rows = []
    for (student, name, vertex), pairs in table.groupby(["student", "stream", "vertex"], sort=False):
        share = token_mean(pairs, "acute_fraction")
        n_tokens = int(pairs["n_tokens"].max())
        effective = _effective_tokens(pairs)
        low, high = wilson_interval(share, effective)
        rows.append((student, name, vertex, share, low, high, effective, n_tokens, int((pairs["n_tokens"] > 0).sum())))
    columns = ["student", "stream", "vertex", "acute_fraction", "low", "high", "n_effective", "n_tokens", "n_pairs"]
    return with_arms(pd.DataFrame(rows, columns=columns), geometry)


def _effective_tokens(pairs: pd.DataFrame) -> float:
    """Return how many independent tokens would give the cosines their clustered standard errors, mean over pairs."""
    variance, error = pairs["std_cosine"].to_numpy(np.float64) ** 2, pairs["se_cosine"].to_numpy(np.float64) ** 2
    tokens = pairs["n_tokens"].to_numpy(np.float64)
    known = np.isfinite(variance) & np.isfinite(error) & (error > 0) & (tokens > 0)
    if not known.any():
        return float("nan")
    return float(np.minimum(variance[known] / error[known], tokens[known]).mean())


def acute_fraction(
    geometry: Geometry,
    *,
    students: str | Sequence[str] | None = None,
    stream: str | None = None,
    vertices: Sequence[int] | None = None,
    width: str = "page",
    dark: bool = False,
) -> Figure:
    """Draw the share of acute angles by student layer, a panel per stream and initialisation.

    Args:
        geometry: what the analysis found.
        students: the students to draw; all by default.
        stream: `encoder` or `decoder`; both by default.
        vertices: the student layers to draw; all by default.
        width: `page` or `column`.
        dark: draw on a dark ground.

    Raises:
        InputError: nothing is left to draw, or an argument names what the geometry does not have.
    """
    data = acute_fraction_data(geometry, students=students, stream=stream, vertices=vertices)
    total_width = figure_width(width)
    look = theme(dark)

    def behind(ax: Axes, _: str) -> None:
        ax.axhline(50.0, color=look.faint, linewidth=0.7, linestyle=(0, (2, 2)), zorder=1)

    with context(look):
        return draw_line_panels(
            arm_panels(data, look, "acute_fraction", "vertex", before=behind, factor=100.0),
            look,
            total_width,
            xlabel="student layer",
            ylabel="acute angles (%)",
            legend=arm_legend(data, look),
            notes=[
                "Share of tokens and pairs of teacher layers; bars or bands: 95% intervals, clustered by example. "
                f"Dotted: half of them. {LAYER_NOTE}"
            ],
            most_columns=2,
        )


def acute_fraction_facts(data: pd.DataFrame) -> str:
    """Return in a sentence what the figure's numbers are."""
    return f"{students_words(data)}: {range_words(100 * data['acute_fraction'], lambda share: f'{share:.0f}%')} acute."
