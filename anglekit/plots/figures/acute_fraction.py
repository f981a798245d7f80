"""The share of acute angles at every student layer; the intervals allow for dependent tokens within an example."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from anglekit.plots.inputs import FigureInputs
from anglekit.plots.panels.arm_lines import draw_arm_lines
from anglekit.plots.panels.chosen import choose
from anglekit.plots.panels.line_panels import Entry
from anglekit.plots.panels.sentences import LAYER_NOTE, range_words, students_words
from anglekit.plots.panels.tables import with_arms
from anglekit.plots.spec import VERTICES, FigureOptions, FigureSpec
from anglekit.plots.style import CHANCE_DASHES, Theme
from anglekit.results.chance import chance_acute_fraction
from anglekit.results.joint_intervals import cluster_counts
from anglekit.results.overview import pair_mean
from anglekit.results.student_t import t_quantile, wilson_interval


def _data(inputs: FigureInputs, options: FigureOptions) -> pd.DataFrame:
    """Return a row per student, stream and vertex.

    Columns beside `student, strategy, init, seed, stream, vertex`: `acute_fraction` (share of tokens and pairs),
    `low, high` (95%), `chance_acute_fraction` (what unrelated vectors of the same lengths would show; NaN where the
    teacher's width is not recorded), `n_effective, n_tokens, n_pairs`.

    The interval is Wilson's. Its number of draws is how many independent tokens would give the cosine its standard
    error, clustered by example: n = std^2 / se^2, mean over pairs. That error is an estimate itself, so the interval
    takes Student's quantile of its degrees of freedom, the examples less one. This assumes that the sign has the
    cosine's design effect and that pairs are fully dependent, so the interval is rather too wide than too narrow.
    """
    table = choose(inputs.geometries, options).rows(inputs.geometry.angles)
    width = inputs.geometry.document.provenance.teacher.width
    nulls = table["null_cosine"].to_numpy(np.float64)
    table = table.assign(chance=np.nan if width is None else chance_acute_fraction(nulls, width))
    rows = []
    for (student, stream, vertex), pairs in table.groupby(["student", "stream", "vertex"], sort=False):
        share = pair_mean(pairs, "acute_fraction")
        n_tokens = int(pairs["n_tokens"].max())
        effective = _effective_tokens(pairs)
        quantile = float(t_quantile(0.975, cluster_counts(pairs).max() - 1))
        low, high = wilson_interval(share, effective, quantile)
        n_pairs = int((pairs["n_tokens"] > 0).sum())
        chance = pair_mean(pairs, "chance")
        rows.append((student, stream, vertex, share, low, high, chance, effective, n_tokens, n_pairs))
    columns = ["student", "stream", "vertex", "acute_fraction", "low", "high"]
    columns += ["chance_acute_fraction", "n_effective", "n_tokens", "n_pairs"]
    return with_arms(pd.DataFrame(rows, columns=columns), inputs.geometry)


def _effective_tokens(pairs: pd.DataFrame) -> float:
    """Return how many independent tokens would give the cosines their clustered standard errors, mean over pairs."""
    variance, error = pairs["std_cosine"].to_numpy(np.float64) ** 2, pairs["se_cosine"].to_numpy(np.float64) ** 2
    tokens = pairs["n_tokens"].to_numpy(np.float64)
    known = np.isfinite(variance) & np.isfinite(error) & (error > 0) & (tokens > 0)
    if not known.any():
        return float("nan")
    return float(np.minimum(variance[known] / error[known], tokens[known]).mean())


def _draw(inputs: FigureInputs, options: FigureOptions, look: Theme, width: float) -> Figure:
    data = _data(inputs, options)
    known = bool(data["chance_acute_fraction"].notna().any())
    chance = (
        "Dashed: chance, the share that unrelated vectors of the same lengths would show, all dimensions alike."
        if known
        else "No chance level: the teacher's width was not recorded."
    )

    def behind(ax: Axes) -> None:
        # From half to all: differences of a percent are not spread over the whole axis.
        ax.update_datalim([(float(data["vertex"].min()), 48.0), (float(data["vertex"].min()), 102.0)])

    return draw_arm_lines(
        data,
        look,
        width,
        value="acute_fraction",
        x="vertex",
        xlabel="student layer",
        ylabel="acute angles (%)",
        notes=[
            "Share of tokens and pairs of teacher layers; bars or bands: 95% intervals, clustered by example. "
            f"{chance} {LAYER_NOTE}"
        ],
        behind=behind,
        factor=100.0,
        dashed="chance_acute_fraction" if known else None,
        legend=[Entry.line("chance", look.ink, linewidth=0.9, linestyle=CHANCE_DASHES)] if known else [],
    )


def _facts(data: pd.DataFrame) -> str:
    chance = range_words(100 * data["chance_acute_fraction"], ".0f", "%")
    known = f", {chance} by chance" if data["chance_acute_fraction"].notna().any() else ""
    return f"{students_words(data)}: {range_words(100 * data['acute_fraction'], '.0f', '%')} acute{known}."


ACUTE_FRACTION = FigureSpec(
    title="Share of acute angles by student layer",
    summary="the share of acute angles at each student layer, a line per student",
    reading=(
        "100% means that at this layer a pull toward any teacher layer is a pull toward every other. Chance alone "
        "gives far more than half where the student's states are as long as the teacher's."
    ),
    options=VERTICES,
    data=_data,
    facts=_facts,
    draw=_draw,
)
