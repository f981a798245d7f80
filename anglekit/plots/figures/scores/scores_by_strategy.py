"""Scores by matching strategy: a point per seed, a line for no matching, and the margin within which all are alike."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from anglekit.comparison.cells import in_order
from anglekit.comparison.compare import default_score_margin
from anglekit.errors import InputError
from anglekit.plots.inputs import FigureInputs
from anglekit.plots.panels.chosen import check_labels, choose_value
from anglekit.plots.panels.labels import plain, shorten_middle
from anglekit.plots.panels.line_panels import Entry, LinePanel, draw_line_panels
from anglekit.plots.panels.score_panels import reach
from anglekit.plots.presentation import shown_name
from anglekit.plots.spec import FigureOptions, FigureSpec
from anglekit.plots.style import (
    SCORE_CHANCE_DASHES,
    TEACHER_DASHES,
    StrategyStyle,
    Theme,
    init_colour,
    init_order,
    init_words,
    strategy_styles,
)
from anglekit.results.student_t import t_quantile
from anglekit.results.training_records import TrainingRecords
from anglekit.vocabulary import CONTROLS, NONE, matches_layers

_LETTER = 0.057  # inches: the mean width of a letter of small text
_UNDER = 0.26  # inches under an axes whose names stand side by side
_LONGEST_NAME = 20
_NONE_DASHES = (0, (4, 2))
_KEY = ["task", "data", "score", "init"]


def _check(inputs: FigureInputs) -> None:
    names = inputs.score_names or [f"table {number}" for number in range(1, len(inputs.scores) + 1)]
    empty = [name for name, table in zip(names, inputs.scores, strict=True) if table.empty]
    if empty:
        raise InputError(
            f"{empty[0]} holds no score",
            "one trained without --validation keeps none: train it again with a table; one that was stopped early has "
            "none yet: go on with --resume; or leave it out",
        )
    if all(table["strategy"].nunique() < 2 for table in inputs.scores):
        found = sorted({str(name) for table in inputs.scores for name in table["strategy"]})
        one = "all scores are of one strategy" if len(found) == 1 else "each table holds the scores of one strategy"
        raise InputError(
            f"{one} ({', '.join(found)})",
            "give a sweep of at least two, or runs of several strategies together; where a sweep was stopped, go on "
            "with --resume; where these are tables (.csv), join their rows into one",
        )


def _data(inputs: FigureInputs, options: FigureOptions) -> pd.DataFrame:
    """Return a row per arm, with its strategy's mean and the band of its panel.

    Columns: `task, data, score, init, strategy, seed, value`; of the strategy `mean` and its 95% interval over seeds
    `low, high` (NaN with one seed); of the panel `none_mean`, `margin, band_low, band_high`, and `teacher` and `chance`
    (what one answer to every example reaches), NaN where they are not recorded. The band is as high as the margin and
    centred on the matching strategies: if all their means lie inside, no two differ by more than it.
    """
    margin = options.margin
    if margin is not None and not (np.isfinite(margin) and margin > 0):
        raise InputError(f"--score-margin is {margin:g}", "give a number above 0, in the score's unit")
    labels = check_labels(options.labels, len(inputs.scores), "table of scores", "tables of scores") or [""] * len(
        inputs.scores
    )
    frames = []
    records = inputs.records or [TrainingRecords()] * len(inputs.scores)
    for table, label, kept in zip(inputs.scores, labels, records, strict=True):
        rows = table[table["score"] == choose_value(options.value, table["score"], "score")]
        for (data, score, init), panel in rows.groupby(["data", "score", "init"], sort=False):
            beside = {name: own.get((str(data), str(score)), np.nan) for name, own in _levels(kept).items()}
            place = {"task": label, "data": str(data), "score": str(score), "init": str(init)}
            frames.append(_panel_rows(panel, margin).assign(**place, **beside))
    columns = [*_KEY, "strategy", "seed", "value", "mean", "low", "high", "none_mean", "teacher", "chance"]
    return pd.concat(frames, ignore_index=True)[[*columns, "margin", "band_low", "band_high"]]


def _levels(kept: TrainingRecords) -> Mapping[str, Mapping[tuple[str, str], float]]:
    return {"teacher": kept.teacher, "chance": kept.chance}


def _panel_rows(panel: pd.DataFrame, margin: float | None) -> pd.DataFrame:
    rows = panel[["strategy", "seed", "value"]].astype({"value": "float64"})
    means = rows.groupby("strategy")["value"].agg(["mean", "std", "count"])
    half = t_quantile(0.975, means["count"] - 1) * means["std"] / np.sqrt(means["count"])
    means = means.assign(low=means["mean"] - half, high=means["mean"] + half)[["mean", "low", "high"]]
    matching = means.loc[_matching(means), "mean"]
    width = default_score_margin(rows["value"]) if margin is None else margin
    middle = (matching.max() + matching.min()) / 2 if len(matching) else np.nan
    order = {name: rank for rank, name in enumerate(in_order(rows["strategy"]))}
    rows = rows.merge(means, left_on="strategy", right_index=True)
    rows = rows.assign(
        none_mean=means["mean"].get(NONE, np.nan),
        margin=width,
        band_low=middle - width / 2,
        band_high=middle + width / 2,
    )
    return rows.sort_values(["strategy", "seed"], key=lambda c: c.map(order) if c.name == "strategy" else c)


def _matching(means: pd.DataFrame | pd.Series) -> list[bool]:
    """Return by strategy whether the band is about it: `none` and the controls stand beside it."""
    return [matches_layers(str(strategy)) for strategy in means.index]


def _draw(inputs: FigureInputs, options: FigureOptions, look: Theme, width: float) -> Figure:
    data = _data(inputs, options)
    styles = strategy_styles(list(data["strategy"]), look)
    panels = [_panel(rows, styles, look, several=len(set(data["task"])) > 1) for rows in _ordered_panels(data)]
    margins = sorted({float(one) for one in data["margin"]})
    seeds = data.groupby([*_KEY, "strategy"])["seed"].nunique()
    interval = (
        "bars: mean and 95% interval over seeds"
        if seeds.max() > 1
        else "one seed each, so how much seeds differ is unknown"
    )
    cut = any(_is_cut(rows) for _, rows in data.groupby(["task", "data", "score"]))
    beyond = "; longer bars end at its edge" if cut else ""
    levels = [
        Entry.line(words, colour, linestyle=dashes, linewidth=1.0)
        for name, words, colour, dashes in (
            ("teacher", shown_name("teacher"), look.ink, TEACHER_DASHES),
            ("chance", "chance", look.ink, SCORE_CHANCE_DASHES),
        )
        if data[name].notna().any()
    ]
    names = [_short(name) for name in styles]
    turned = not _fit(names, width / (2 if len(panels) > 1 and width > 4 else 1) - 0.68)
    return draw_line_panels(
        panels,
        look,
        width,
        xlabel="",
        ylabel="",
        legend=[
            *levels,
            Entry.line(f"mean of {shown_name(NONE)}", look.faint, linestyle=_NONE_DASHES, linewidth=1.0),
            Entry.patch(f"equivalence band, {' or '.join(f'{one:g}' for one in margins)} high", look.blank, alpha=0.5),
        ],
        notes=[
            f"A point per seed; {interval}. If the means of all matching strategies lie in the band, no two differ "
            f"by more than the margin. Panels of one score share their scale{beyond}."
        ],
        height=1.7,
        most_columns=2,
        shared=False,
        below_axes=0.12 + _LETTER * max(map(len, names)) if turned else _UNDER,
    )


def _ordered_panels(data: pd.DataFrame) -> list[pd.DataFrame]:
    panels = []
    for _, rows in data.groupby(["task", "data", "score"], sort=False):
        panels += [rows[rows["init"] == init] for init in init_order(list(rows["init"]))]
    return panels


def _panel(rows: pd.DataFrame, styles: dict[str, StrategyStyle], look: Theme, *, several: bool) -> LinePanel:
    first = rows.iloc[0]
    init = str(first["init"])
    strategies = list(dict.fromkeys(rows["strategy"]))

    def draw(ax: Axes) -> None:
        if np.isfinite(first["band_low"]):
            ax.axhspan(first["band_low"], first["band_high"], color=look.blank, alpha=0.5, linewidth=0, gid="band")
        for name, colour, dashes in (("teacher", look.ink, TEACHER_DASHES), ("chance", look.ink, SCORE_CHANCE_DASHES)):
            if np.isfinite(first[name]):
                ax.axhline(first[name], color=colour, linewidth=1.0, linestyle=dashes, gid=name, zorder=2)
        if np.isfinite(first["none_mean"]):
            ax.axhline(
                first["none_mean"], color=look.faint, linewidth=1.0, linestyle=_NONE_DASHES, gid="none", zorder=2
            )
        for place, strategy in enumerate(strategies):
            own = rows[rows["strategy"] == strategy]
            style = styles[strategy]
            shift = np.linspace(-0.16, 0.16, len(own)) if len(own) > 1 else np.zeros(1)
            ax.plot(
                place + shift,
                own["value"],
                linestyle="none",
                marker=style.marker,
                color=style.colour,
                markersize=4.6,
                markeredgecolor=look.background,
                markeredgewidth=0.4,
                zorder=4,
                gid=f"strategy-{strategy}",
            )
            mean = own.iloc[0]
            if len(own) > 1:
                ax.hlines(mean["mean"], place - 0.3, place + 0.3, color=style.colour, linewidth=1.4, zorder=3)
                ax.vlines(place, mean["low"], mean["high"], color=style.colour, linewidth=0.9, zorder=3)
        ax.set_xlim(-0.6, len(strategies) - 0.4)
        names = [plain(_short(name)) for name in strategies]
        if _fit(names, _inches(ax)):
            ax.set_xticks(range(len(strategies)), names)
        else:
            ax.set_xticks(range(len(strategies)), names, rotation=90)
        ax.margins(y=0.12)
        ax.set_ylim(*_reach(rows))

    shares = float(rows["value"].abs().max()) <= 1
    task = f"{first['task']}, " if several and first["task"] else ""
    label = f"{str(first['score']).replace('_', ' ')} ({'share' if shares else 'points'})"
    where = f", {first['data']}" if first["data"] else ""
    group = f"{first['task']}/{first['data']}/{first['score']}"
    return LinePanel(f"{task}{init_words(init)}{where}", draw, init_colour(init, look), label, "", group)


def _reach(rows: pd.DataFrame) -> tuple[float, float]:
    return reach(rows[["value", "teacher", "chance"]].to_numpy(np.float64), share=float(rows["value"].abs().max()) <= 1)


def _is_cut(rows: pd.DataFrame) -> bool:
    """Return whether an interval reaches beyond the axis."""
    low, high = _reach(rows)
    return bool((rows["low"] < low).any() or (rows["high"] > high).any())


def _short(strategy: str) -> str:
    """Return what a strategy is called under an axes."""
    return shorten_middle(shown_name(strategy), _LONGEST_NAME)


def _fit(names: Sequence[str], room: float) -> bool:
    """Return whether names stand side by side in `room` inches."""
    step = room / (len(names) + 0.2)
    return all((len(one) + len(other)) / 2 * _LETTER + 0.05 <= step for one, other in itertools.pairwise(names))


def _inches(ax: Axes) -> float:
    figure = ax.get_figure(root=True)
    return 0.0 if figure is None else float(ax.get_window_extent().width / figure.dpi)


def _facts(data: pd.DataFrame) -> str:
    parts = []
    for (task, table, score, init), rows in data.groupby(_KEY, sort=False):
        means = rows.drop_duplicates("strategy").set_index("strategy")["mean"]
        matching = means[_matching(means)]
        if not len(matching):
            continue
        where = ", ".join(str(part) for part in (task, init_words(str(init)), score, table) if part)
        others = "".join(f", {name} {means[name]:.3g}" for name in (NONE, *CONTROLS) if name in means.index)
        spread = matching.max() - matching.min()
        parts.append(
            f"{where}: matching strategies {matching.min():.3g} to {matching.max():.3g} (spread {spread:.3g}{others})"
        )
    return f"{'; '.join(parts)}." if parts else "No matching strategy has a score."


SCORES_BY_STRATEGY = FigureSpec(
    title="Scores by matching strategy",
    summary="a point per seed, the line of no matching, and the band within which strategies are alike",
    reading=(
        "If layer selection did not matter, all matching strategies would lie in the shaded band, whatever their "
        "distance from the line of no matching."
    ),
    options=frozenset({"labels", "value", "margin"}),
    data=_data,
    facts=_facts,
    draw=_draw,
    many=True,
    uses="scores",
    check=_check,
)
