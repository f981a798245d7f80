"""The controls' share of the gain: how much of what matching gains comes without the teacher's trained layers."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from anglekit.comparison.cells import in_order
from anglekit.errors import InputError
from anglekit.plots.inputs import FigureInputs
from anglekit.plots.panels.chosen import check_labels, choose_value
from anglekit.plots.panels.labels import plain
from anglekit.plots.panels.line_panels import Entry, LinePanel, draw_line_panels
from anglekit.plots.panels.score_panels import by_score, mean_interval
from anglekit.plots.presentation import shown_name
from anglekit.plots.spec import FigureOptions, FigureSpec
from anglekit.plots.style import (
    SMALL_FONT_SIZE,
    Theme,
    behind_text,
    init_colour,
    init_order,
    init_words,
    strategy_styles,
)
from anglekit.vocabulary import LOWER_IS_BETTER, NONE, RANDOM_TEACHER, WITHOUT_TEACHER, matches_layers

_NARROW = 4.0  # inches: on a narrower page a name takes two lines
_LETTER = 0.055  # inches: the mean width of a letter of small text
_KEY = ["task", "data", "score", "init"]


def _check(inputs: FigureInputs) -> None:
    tables = [set(map(str, table["strategy"])) for table in inputs.scores]
    if all(map(_lacks, tables)):
        together = sorted(set().union(*tables))
        lacks = _lacks(together)
        if not together:
            raise InputError(
                "there is no score", "train the sweep with --validation, or go on with --resume where it was stopped"
            )
        raise InputError(
            f"no table here holds a control, none and a matching strategy: there are {', '.join(together)} alone"
            f"{'' if lacks else ', in different tables'}",
            f"{' and '.join(lacks.values()) or 'train them in one sweep, or join the rows of tables (.csv)'}; where "
            "the sweep was stopped, go on with --resume",
        )


def _lacks(strategies: Collection[str]) -> dict[str, str]:
    """Return what a table lacks for this figure, each with what brings it."""
    there = {
        "a control": bool({WITHOUT_TEACHER, RANDOM_TEACHER} & set(strategies)),
        "none": NONE in strategies,
        "a matching strategy": any(map(matches_layers, strategies)),
    }
    brings = {
        "a control": f"train controls: `anglekit sweep --controls {WITHOUT_TEACHER},{RANDOM_TEACHER}`",
        "none": f"train {NONE} (--strategies {NONE},...)",
        "a matching strategy": "train one that matches layers (--strategies forward,...)",
    }
    return {name: brings[name] for name, found in there.items() if not found}


def _data(inputs: FigureInputs, options: FigureOptions) -> pd.DataFrame:
    """Return a row per task, evaluation table, score, initialisation, matching strategy and part of its gain.

    The gain of a strategy is taken apart where the arms are there: `predictions` (none minus alone: the teacher's
    predictions), `any layers` (random-teacher minus none: layers of an untrained teacher) and `trained layers` (the
    strategy minus random-teacher). Without random-teacher the last two are one, `layers`; without alone the gain begins
    at none. Columns: `task, data, score, init, strategy, part, base, arm`; `difference`, mean over the seeds that both
    arms have, in the direction of better, with its 95% interval `low, high` (NaN with one seed), and the
    `share_percent` of the whole gain (NaN where that or one of its parts is not above 0); `n_seeds`.
    """
    labels = check_labels(options.labels, len(inputs.scores), "table of scores", "tables of scores")
    labels = labels or [""] * len(inputs.scores)
    rows = []
    for table, label in zip(inputs.scores, labels, strict=True):
        chosen = table[table["score"] == choose_value(options.value, table["score"], "score")]
        for (data, score, init), panel in chosen.groupby(["data", "score", "init"], sort=False):
            values = panel.pivot_table(index="seed", columns="strategy", values="value")
            sign = -1.0 if str(score) in LOWER_IS_BETTER else 1.0
            place = {"task": label, "data": str(data), "score": str(score), "init": str(init)}
            for strategy in filter(matches_layers, in_order(map(str, values.columns))):
                rows += [place | row for row in _parts(values, strategy, sign)]
    if not rows:
        raise InputError(
            "the tables hold a control, none and a matching strategy, but nowhere of one initialisation, scored on one "
            "table by one score",
            "train what is lacking with the same --inits and --validation, go on with --resume where the sweep was "
            "stopped, or name another score (--value)",
        )
    return pd.DataFrame(rows)


def _parts(values: pd.DataFrame, strategy: str, sign: float) -> list[dict[str, Any]]:
    """Return the parts of one strategy's gain; nothing where no control or no `none` is there."""
    steps = [name for name in (WITHOUT_TEACHER, NONE, RANDOM_TEACHER) if name in values.columns]
    if NONE not in steps or len(steps) < 2:
        return []
    words = {NONE: "predictions", RANDOM_TEACHER: "any layers"}
    words[strategy] = "trained layers" if RANDOM_TEACHER in steps else "layers"
    arms = [*steps, strategy]
    whole = sign * _paired(values, arms[0], strategy)
    rows: list[dict[str, Any]] = []
    for base, arm in itertools.pairwise(arms):
        difference = sign * _paired(values, base, arm)
        n = len(difference)
        if not n:
            continue
        mean, low, high = mean_interval(difference)
        gain = float(whole.mean()) if len(whole) else np.nan
        rows.append(
            {
                "strategy": strategy,
                "part": words[arm],
                "base": base,
                "arm": arm,
                "difference": mean,
                "low": low,
                "high": high,
                "share_percent": 100 * mean / gain if gain > 0 else np.nan,
                "n_seeds": n,
            }
        )
    if any(row["difference"] < 0 for row in rows):  # parts of which one is a loss are no shares
        rows = [row | {"share_percent": np.nan} for row in rows]
    return rows


def _paired(values: pd.DataFrame, base: str, arm: str) -> np.ndarray:
    """Return arm minus base for the seeds that both have."""
    both = values[[base, arm]].dropna()
    return (both[arm] - both[base]).to_numpy(np.float64)


def _draw(inputs: FigureInputs, options: FigureOptions, look: Theme, width: float) -> Figure:
    data = _data(inputs, options)
    styles = strategy_styles(list(data["strategy"]), look)
    panels, most, longest, narrow = [], 1, 0, width < _NARROW
    for where, _, score, rows in by_score(data):
        for init in init_order([str(each) for each in rows["init"]]):
            lines = _lines(rows[rows["init"] == init])
            ends = _ends(rows)
            named = _names(lines, narrow=narrow)
            most = max(most, len(lines))
            longest = max(longest, *(len(part) for name in named for part in name.split("\n")))

            def draw(
                ax: Axes, lines: pd.DataFrame = lines, named: list[str] = named, ends: tuple[float, float] = ends
            ) -> None:
                ax.set_xlim(*ends)
                _draw_parts(ax, lines, named, {name: style.colour for name, style in styles.items()}, look)

            title = ", ".join(part for part in (where, init_words(init)) if part)
            panels.append(LinePanel(title, draw, init_colour(init, look), "", f"gain in {score}"))
    seeds = sorted({int(each) for each in data["n_seeds"]})
    return draw_line_panels(
        panels,
        look,
        width,
        xlabel="",
        ylabel="",
        legend=[Entry.line("shared by all strategies", look.ink, marker="o", linestyle="none")],
        notes=[
            " ".join(
                [
                    *_part_notes(data),
                    f"Bars: 95% intervals over {' or '.join(map(str, seeds))} seeds, paired.",
                    *(["In percent: of the strategy's whole gain."] if data["share_percent"].notna().any() else []),
                ]
            )
        ],
        height=0.35 + (0.3 if narrow else 0.24) * most,
        most_columns=1,
        shared=False,
        left=0.25 + _LETTER * longest,
    )


def _part_notes(data: pd.DataFrame) -> list[str]:
    """Return what each part that is drawn is, in a sentence."""
    parts = set(data["part"])
    known = [
        (f"{shown_name(NONE)} − {shown_name(WITHOUT_TEACHER)}", "predictions", "the teacher's predictions"),  # noqa: RUF001
        (f"{shown_name(RANDOM_TEACHER)} − {shown_name(NONE)}", "any layers", "layers of an untrained teacher"),  # noqa: RUF001
        (f"Strategy − {shown_name(RANDOM_TEACHER)}", "trained layers", "what the trained layers know"),  # noqa: RUF001
        (f"Strategy − {shown_name(NONE)}", "layers", "layers, trained or not"),  # noqa: RUF001
    ]
    return [f"{words}: {meaning}." for words, part, meaning in known if part in parts]


def _names(lines: pd.DataFrame, *, narrow: bool) -> list[str]:
    """Return what each line is called: one arm minus another, on two lines where room is narrow."""
    arms = zip(lines["arm"], lines["base"], strict=True)
    between = "\n" if narrow else " "
    return [f"{plain(shown_name(str(arm)))} −{between}{plain(shown_name(str(base)))}" for arm, base in arms]  # noqa: RUF001


def _lines(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the parts to draw: those that all strategies share once, then each strategy's own."""
    matching = rows["arm"] == rows["strategy"]
    shared = rows[~matching].drop_duplicates(["base", "arm"])
    return pd.concat([shared, rows[matching]], ignore_index=True)


def _ends(rows: pd.DataFrame) -> tuple[float, float]:
    """Return the range that all panels of one score show: 0, the parts and their intervals."""
    values = np.concatenate([[0.0], rows[["difference", "low", "high"]].to_numpy(np.float64).ravel()])
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    margin = 0.08 * ((high - low) or 1.0)
    return low - margin, high + margin


def _draw_parts(ax: Axes, lines: pd.DataFrame, names: Sequence[str], colours: dict[str, str], look: Theme) -> None:
    ax.axvline(0.0, color=look.faint, linewidth=0.8, zorder=1)
    for place, row in enumerate(lines.to_dict("records")):
        own = row["arm"] == row["strategy"]
        colour = colours[str(row["strategy"])] if own else look.ink
        if np.isfinite(row["low"]):
            ax.hlines(place, row["low"], row["high"], color=colour, linewidth=1.0, zorder=3)
        ax.plot(
            [row["difference"]],
            [place],
            "o",
            color=colour,
            markersize=4.4,
            zorder=4,
            gid=f"part-{row['part']}-{row['arm']}",
        )
        if own and np.isfinite(row["share_percent"]):
            ax.annotate(
                f"{row['share_percent']:.0f}%",
                (row["difference"], place),
                xytext=(0.0, 4.0),
                textcoords="offset points",
                ha="center",
                va="bottom",
                fontsize=SMALL_FONT_SIZE,
                color=look.ink,
                bbox=behind_text(look),
                zorder=5,
            )
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.75)


def _facts(data: pd.DataFrame) -> str:
    parts = []
    for (_, _, _, init), rows in data.groupby(_KEY, sort=False):
        own = rows[rows["arm"] == rows["strategy"]]
        known: Sequence[float] = own["share_percent"].dropna().tolist()
        share = f"{min(known):.0f} to {max(known):.0f}% of the gain" if known else "no shares: a part is a loss"
        low, high = float(own["difference"].min()), float(own["difference"].max())
        parts.append(f"{init_words(str(init))}: {own['part'].iloc[0]} add {low:+.3g} to {high:+.3g} ({share})")
    return f"{'; '.join(parts)}."


CONTROL_GAIN = FigureSpec(
    title="The controls' share of the gain",
    summary="what predictions, an untrained teacher's layers and the trained layers each add to the score",
    reading=(
        "A gain that the layers of an untrained teacher give too is not about what the teacher's layers know. Only "
        "what lies right of 0 in a strategy's own line is."
    ),
    options=frozenset({"labels", "value"}),
    data=_data,
    facts=_facts,
    draw=_draw,
    many=True,
    uses="scores",
    check=_check,
)
