"""Score against size and speed: what a student keeps of its teacher's score, and at which cost."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from anglekit.comparison.cells import in_order
from anglekit.errors import InputError
from anglekit.plots.inputs import FigureInputs
from anglekit.plots.panels.arm_lines import arm_legend
from anglekit.plots.panels.chosen import check_labels, choose_value
from anglekit.plots.panels.line_panels import Entry, LinePanel, draw_line_panels
from anglekit.plots.panels.score_panels import by_score, mean_interval, reach
from anglekit.plots.presentation import shown_name
from anglekit.plots.spec import FigureOptions, FigureSpec
from anglekit.plots.style import (
    SMALL_FONT_SIZE,
    TEACHER_DASHES,
    StrategyStyle,
    Theme,
    behind_text,
    init_order,
    init_words,
    strategy_styles,
)
from anglekit.results.training_records import architecture_costs
from anglekit.vocabulary import LOWER_IS_BETTER

_TEACHER = "teacher"
_REMEDY = "train again with this anglekit, which measures teacher and student at the end of each run"


def _check(inputs: FigureInputs) -> None:
    if all(kept.costs.empty for kept in inputs.records):
        raise InputError(
            "no run here says what its models cost: it is a file of scores, was made by an earlier anglekit, or spread "
            "its models over devices",
            f"give directories of `anglekit sweep` or `anglekit distill`, or {_REMEDY}",
        )


def _data(inputs: FigureInputs, options: FigureOptions) -> pd.DataFrame:
    """Return a row per task, evaluation table and kind of student, the teacher's first (`strategy` "teacher").

    Columns: `task, data, score, strategy, init, n_seeds`; the score's mean over seeds `value` and its 95% interval
    `low, high` (NaN with one seed); `kept_percent` of the teacher's score (NaN where lower is better or the teacher's
    is not known); `parameters, parameters_percent` of the teacher's; `milliseconds` of a forward pass of a batch, the
    median over seeds, with the least and the most of them `milliseconds_low, milliseconds_high`; `speed_up` over the
    teacher, one for all students of one size (`architecture_costs`); `examples, tokens` of the batch, and `device`.
    A run times its student and the teacher in turns: a student's time is its part of the teacher's in its own run
    times the teacher's median over all runs, so that a busy hour is not taken for a slow student.
    """
    labels = check_labels(options.labels, len(inputs.scores), "table of scores", "tables of scores")
    labels = labels or [""] * len(inputs.scores)
    rows = []
    for table, kept, label in zip(inputs.scores, inputs.records, labels, strict=True):
        if kept.costs.empty:
            continue
        chosen = table[table["score"] == choose_value(options.value, table["score"], "score")]
        for (data, score), own in chosen.groupby(["data", "score"], sort=False):
            place = {"task": label, "data": str(data), "score": str(score)}
            level = kept.teacher.get((str(data), str(score)), np.nan)
            teachers = kept.costs[kept.costs["model"] == "teacher"]
            own_costs = kept.costs[kept.costs["model"] == "student"]
            sizes = architecture_costs(kept.costs)
            if len(teachers) and np.isfinite(level):
                rows.append(place | _kind(teachers, teachers, sizes, _TEACHER, "", level, np.array([level])))
            for (strategy, init), students in own.groupby(["strategy", "init"], sort=False):
                costs = own_costs[(own_costs["strategy"] == strategy) & (own_costs["init"] == init)]
                costs = costs[costs["seed"].isin(students["seed"])]
                if costs.empty:
                    continue
                values = students["value"].to_numpy(np.float64)
                rows.append(place | _kind(costs, teachers, sizes, str(strategy), str(init), level, values))
    return pd.DataFrame(rows)


def _kind(
    costs: pd.DataFrame,
    teachers: pd.DataFrame,
    sizes: pd.DataFrame,
    strategy: str,
    init: str,
    level: float,
    values: np.ndarray,
) -> dict[str, object]:
    """Return the row of a strategy's students of one initialisation, or of the teacher."""
    mean, low, high = mean_interval(values)
    paired = costs.merge(teachers, on=["strategy", "init", "seed"], suffixes=("", "_teacher"))
    times = costs["milliseconds"].to_numpy(np.float64)
    if len(paired):
        part = paired["milliseconds"] / paired["milliseconds_teacher"]
        times = part.to_numpy(np.float64) * float(teachers["milliseconds"].median())
    larger = float(teachers["parameters"].median()) if len(teachers) else np.nan
    parameters = float(costs["parameters"].median())
    kind = "teacher" if strategy == _TEACHER else "student"
    alike = (
        (sizes["model"] == kind) & (sizes["parameters"] == parameters) & (sizes["device"] == costs["device"].iloc[0])
    )
    faster = sizes.loc[alike, "faster"]
    return {
        "strategy": strategy,
        "init": init,
        "n_seeds": len(values) if strategy != _TEACHER else len(costs),
        "value": mean,
        "low": low,
        "high": high,
        "kept_percent": 100 * mean / level if level > 0 else np.nan,
        "parameters": parameters,
        "parameters_percent": 100 * parameters / larger,
        "milliseconds": float(np.median(times)),
        "milliseconds_low": float(times.min()),
        "milliseconds_high": float(times.max()),
        "speed_up": float(faster.iloc[0]) if len(faster) else np.nan,
        "examples": int(costs["examples"].iloc[0]),
        "tokens": int(costs["tokens"].iloc[0]),
        "device": str(costs["device"].iloc[0]),
    }


def _known(data: pd.DataFrame) -> pd.DataFrame:
    """Return the table with no share kept of a score that falls as a model learns."""
    falls = data["score"].isin(LOWER_IS_BETTER)
    return data.assign(kept_percent=data["kept_percent"].where(~falls))


def _draw(inputs: FigureInputs, options: FigureOptions, look: Theme, width: float) -> Figure:
    data = _known(_data(inputs, options))
    own = data[data["strategy"] != _TEACHER]
    styles = strategy_styles(list(own["strategy"]), look)
    inits = init_order(list(own["init"]))
    panels = []
    for where, group, score, rows in by_score(data):
        for column, label in (("parameters", "parameters"), ("milliseconds", "time of a batch (ms)")):

            def draw(ax: Axes, rows: pd.DataFrame = rows, column: str = column) -> None:
                _draw_kinds(ax, rows, column, styles, inits, look)

            title = ", ".join(part for part in (where, "size" if column == "parameters" else "speed") if part)
            panels.append(LinePanel(title, draw, None, score, label, group))
    batch = data.iloc[0]
    return draw_line_panels(
        panels,
        look,
        width,
        xlabel="",
        ylabel="",
        legend=[
            Entry.line(shown_name(_TEACHER), look.ink, marker="*", linestyle="none", markersize=6.0),
            *arm_legend(own, look, lines=False),
            *(
                Entry.line(
                    init_words(init), look.ink, marker="o", linestyle="none", **_face(init, inits, look.ink, look)
                )
                for init in inits
                if len(inits) > 1
            ),
        ],
        notes=[
            "A point per strategy and initialisation, mean over seeds; upright: 95% interval over seeds, beside "
            "the speed alone where students share a size; across: "
            f"range over seeds, on {batch['device']}, {batch['examples']} examples ({batch['tokens']} tokens) at once, "
            "teacher and student in turns, which is noise where sizes are one; bars may end at the axis. In percent: "
            "of the teacher's score."
        ],
        height=1.9,
        most_columns=2,
        shared=False,
    )


def _face(init: str, inits: list[str], colour: str, look: Theme) -> dict[str, Any]:
    """Return how a marker is filled: whole for the first initialisation, open for the others."""
    return {"markerfacecolor": colour if inits.index(init) == 0 else look.background, "markeredgecolor": colour}


def _draw_kinds(
    ax: Axes, rows: pd.DataFrame, column: str, styles: dict[str, StrategyStyle], inits: list[str], look: Theme
) -> None:
    # Of students of one size, which stand above each other, the intervals would hide the points.
    upright = column != "parameters" or not rows.loc[rows["strategy"] != _TEACHER, column].duplicated().any()
    order = [_TEACHER, *in_order(rows.loc[rows["strategy"] != _TEACHER, "strategy"])]
    for row in sorted(rows.to_dict("records"), key=lambda each: order.index(str(each["strategy"]))):
        teacher = row["strategy"] == _TEACHER
        colour = look.ink if teacher else styles[str(row["strategy"])].colour
        x, y = float(row[column]), float(row["value"])
        if teacher:
            ax.axhline(y, color=colour, linewidth=0.7, linestyle=TEACHER_DASHES, zorder=1)
        if upright and np.isfinite(row["low"]):
            ax.vlines(x, row["low"], row["high"], color=colour, linewidth=0.9, alpha=0.7, zorder=3)
        if column == "milliseconds":
            ax.hlines(
                y, row["milliseconds_low"], row["milliseconds_high"], color=colour, linewidth=0.9, alpha=0.7, zorder=3
            )
        ax.plot(
            [x],
            [y],
            marker="*" if teacher else styles[str(row["strategy"])].marker,
            markersize=7.0 if teacher else 4.8,
            color=colour,
            zorder=4,
            gid=f"point-{row['strategy']}-{row['init']}",
            **({} if teacher else _face(str(row["init"]), inits, colour, look)),
        )
    ax.set_xscale("log")
    ax.margins(x=0.25, y=0.12)
    ax.set_ylim(*reach(rows["value"].to_numpy(np.float64), share=bool(rows["value"].abs().max() <= 1)))
    low, high = ax.get_xlim()
    if high < 4 * low:  # some percent are no difference: at least two doublings
        middle = np.sqrt(low * high)
        ax.set_xlim(middle / 2, middle * 2)
    wide = ax.get_xlim()[1] > 20 * ax.get_xlim()[0]
    ax.xaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0) if wide else (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda number, _: short_number(number)))
    if column == "parameters":  # beside the spread of times there is no room for them
        _name_ends(ax, rows, column, look)


def _name_ends(ax: Axes, rows: pd.DataFrame, column: str, look: Theme) -> None:
    """Write the share of the teacher's score that the best and the worst student keep."""
    own = rows[(rows["strategy"] != _TEACHER) & rows["kept_percent"].notna()]
    if own.empty:
        return
    ordered = own.sort_values("kept_percent").to_dict("records")
    for end, row in {"least": ordered[0], "most": ordered[-1]}.items():
        ax.annotate(
            f"{row['kept_percent']:.0f}%",
            (float(row[column]), float(row["value"])),
            xytext=(-6.0, 0.0),
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize=SMALL_FONT_SIZE,
            color=look.ink,
            bbox=behind_text(look),
            zorder=6,
            gid=f"kept-{end}",
        )


def short_number(number: float) -> str:
    """Return a number in three digits with its unit of thousands: 66M, 1.2k, 0.5."""
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.3g}"


def _facts(data: pd.DataFrame) -> str:
    own = _known(data)
    own = own[own["strategy"] != _TEACHER]
    falls = str(own["score"].iloc[0]) in LOWER_IS_BETTER
    best = own.sort_values("value", ascending=falls, kind="stable").to_dict("records")[0]
    kept = f", {best['kept_percent']:.0f}% of the teacher's" if np.isfinite(best["kept_percent"]) else ""
    size = f"{best['parameters_percent']:.0f}% of its parameters" if np.isfinite(best["parameters_percent"]) else ""
    speed = f"{best['speed_up']:.1f} times as fast" if np.isfinite(best["speed_up"]) else ""
    cost = " and ".join(part for part in (size, speed) if part)
    return (
        f"Best: {best['strategy']}, {init_words(str(best['init']))}, {str(best['score']).replace('_', ' ')} "
        f"{best['value']:.3g}{kept}{f', with {cost}' if cost else ''}."
    )


SCORE_COST = FigureSpec(
    title="Score against size and speed",
    summary="each kind of student by its score, its parameters and the time of a batch, beside the teacher",
    reading=(
        "Up is better, left is cheaper. Students of one shape cost the same, so that their distance upward is what the "
        "strategy is worth."
    ),
    options=frozenset({"labels", "value"}),
    data=_data,
    facts=_facts,
    draw=_draw,
    many=True,
    uses="records",
    check=_check,
)
