"""Learning curves: each term of the loss and the validation score over training, a line per strategy with its seeds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from anglekit.comparison.cells import in_order
from anglekit.display.counts import counted
from anglekit.errors import InputError
from anglekit.plots.inputs import FigureInputs
from anglekit.plots.panels.arm_lines import arm_legend
from anglekit.plots.panels.chosen import check_labels, choose_value
from anglekit.plots.panels.line_panels import Entry, LinePanel, draw_line_panels
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
    round_ticks,
    strategy_styles,
)
from anglekit.vocabulary import LOWER_IS_BETTER

_KEY = ["task", "kind", "name", "init", "strategy"]


def _check(inputs: FigureInputs) -> None:
    if all(kept.log.empty for kept in inputs.records):
        raise InputError(
            "no run here has a log of its training: these are files of scores, or runs without their metrics.jsonl",
            "give directories of `anglekit sweep` or `anglekit distill`, whole",
        )


def _data(inputs: FigureInputs, options: FigureOptions) -> pd.DataFrame:
    """Return a row per task, logged number, arm and step.

    Columns: `task, kind` ("validation" or "loss"), `name` (a score, a term of the loss, or "weighted sum"), `init,
    strategy, seed, step, value`, and `teacher` and `chance`, the teacher's score and that of one answer to every
    example, where it is a score (else NaN). Of several scores on the validation table only the task's own is drawn,
    unless another is asked for.
    """
    labels = check_labels(options.labels, len(inputs.records), "table of scores", "tables of scores")
    labels = labels or [""] * len(inputs.records)
    frames = []
    for table, kept, label in zip(inputs.scores, inputs.records, labels, strict=True):
        rows = kept.log[kept.log["kind"].isin(["validation", "loss"])]
        scores = [str(name) for name in rows.loc[rows["kind"] == "validation", "name"].unique()]
        own = next((name for name in [*table["score"], *scores] if name in scores and name != "loss"), "loss")
        if options.value is None:
            rows = rows[(rows["kind"] != "validation") | (rows["name"] == own)]
        validated = rows["kind"] == "validation"
        levels = {}
        for which, found in (("teacher", kept.teacher), ("chance", kept.chance)):
            of_score = {score: value for (_, score), value in reversed(list(found.items()))}
            levels[which] = rows["name"].map(of_score).where(validated).astype("float64")
        frames.append(rows.assign(task=label, **levels))
    data = pd.concat(frames, ignore_index=True)
    if options.value is not None:
        data = data[data["name"] == choose_value(options.value, data["name"].unique())]
    # The score, which is the aim, before the terms of the loss, and the sum of other terms for each arm last.
    order = 2 * (data["kind"] == "loss") + (data["name"] == "weighted sum")
    data = data.iloc[np.argsort(order.to_numpy(), kind="stable")]
    return data[[*_KEY, "seed", "step", "value", "teacher", "chance"]].reset_index(drop=True)


def _draw(inputs: FigureInputs, options: FigureOptions, look: Theme, width: float) -> Figure:
    data = _data(inputs, options)
    styles = strategy_styles(list(data["strategy"]), look)
    several = len(set(data["task"])) > 1
    panels = []
    for (task, kind, name), rows in data.groupby(["task", "kind", "name"], sort=False):
        label = f"{str(name).replace('_', ' ')}" if kind == "validation" else f"loss, {name}"
        for init in init_order([str(each) for each in rows["init"]]):
            own = rows[rows["init"] == init]

            def draw(ax: Axes, own: pd.DataFrame = own) -> None:
                _draw_arms(ax, own, styles, look)

            title = f"{task}, {init_words(init)}" if several and task else init_words(init)
            panels.append(LinePanel(title, draw, init_colour(init, look), label, None, f"{task}/{kind}/{name}"))
    seeds = int(data.groupby(_KEY)["seed"].nunique().max())
    levels = [
        Entry.line(words, look.ink, linestyle=dashes, linewidth=1.0)
        for name, words, dashes in (
            ("teacher", shown_name("teacher"), TEACHER_DASHES),
            ("chance", "chance", SCORE_CHANCE_DASHES),
        )
        if data[name].notna().any()
    ]
    return draw_line_panels(
        panels,
        look,
        width,
        xlabel="training step",
        ylabel="",
        legend=[
            *arm_legend(data, look),
            *levels,
        ],
        notes=[
            (f"Thick: mean over {counted(seeds, 'seed')}; thin: each of them. " if seeds > 1 else "One seed each. ")
            + "Losses are means over the steps since the last log, terms without their weights; panels of one quantity "
            "share their scale."
        ],
        height=1.08,
        most_columns=2,
        shared=False,
    )


def _draw_arms(ax: Axes, rows: pd.DataFrame, styles: dict[str, StrategyStyle], look: Theme) -> None:
    for name, dashes in (("teacher", TEACHER_DASHES), ("chance", SCORE_CHANCE_DASHES)):
        level = rows[name].dropna()
        if len(level):
            ax.axhline(float(level.iloc[0]), color=look.ink, linewidth=1.0, linestyle=dashes, zorder=1, gid=name)
    for strategy in in_order(rows["strategy"]):
        own, style = rows[rows["strategy"] == strategy], styles[strategy]
        by_seed = own.pivot_table(index="step", columns="seed", values="value", dropna=False)
        if by_seed.shape[1] > 1:
            ax.plot(by_seed.index, by_seed.to_numpy(), color=style.colour, linewidth=0.5, alpha=0.45, zorder=3)
        # A step that a seed did not log has no mean.
        mean = by_seed.dropna().mean(axis=1)
        _draw_mean(ax, mean.index.to_list(), mean.to_numpy(), style, look, strategy)
    ax.set_xlim(left=0)  # all panels begin where training does
    ax.xaxis.set_major_locator(round_ticks(4, integer=True))


def _draw_mean(
    ax: Axes, steps: Sequence[int], values: np.ndarray, style: StrategyStyle, look: Theme, strategy: str
) -> None:
    ax.plot(
        steps,
        values,
        color=style.colour,
        linewidth=1.2,
        marker=style.marker,
        markersize=3.4,
        markeredgecolor=look.background,
        markeredgewidth=0.3,
        markevery=max(len(steps) // 6, 1),
        zorder=4,
        gid=f"strategy-{strategy}",
    )


def _facts(data: pd.DataFrame) -> str:
    parts = []
    for (kind, name), rows in data.groupby(["kind", "name"], sort=False):
        last = rows[rows["step"] == rows["step"].max()]
        ends = (float(last["value"].min()), float(last["value"].max()))
        what = str(name).replace("_", " ") if kind == "validation" else f"loss ({name})"
        parts.append(f"{what} {ends[0]:.3g} to {ends[1]:.3g} at step {int(last['step'].iloc[0])}")
    return " ".join([f"{'; '.join(parts)}.", *_unsettled(data)])


def _unsettled(data: pd.DataFrame) -> list[str]:
    """Return for each score that is known at several steps for how many students it was still improving at its last."""
    sentences = []
    for name, rows in data[data["kind"] == "validation"].groupby("name", sort=False):
        sign = -1.0 if name in LOWER_IS_BETTER else 1.0
        students = [own.sort_values("step")["value"] for _, own in rows.groupby([*_KEY, "seed"], sort=False)]
        gains = [sign * float(own.iloc[-1] - own.iloc[-2]) for own in students if len(own) > 1]
        if gains:
            better = sum(gain > 0 for gain in gains)
            longer = ": longer training may change what is told apart" if better else ""
            score = str(name).replace("_", " ")
            who = f"{better} of {counted(len(gains), 'student')}"
            sentences.append(f"At its last step {score} was still improving for {who}{longer}.")
    return sentences


LEARNING_CURVES = FigureSpec(
    title="Learning curves",
    summary="terms of the loss and the validation score over training, a line per strategy, thin ones for its seeds",
    reading=(
        "Where strategies part in the hidden term and not in the score, what the layers are taught does not matter for "
        "the task."
    ),
    options=frozenset({"labels", "value"}),
    data=_data,
    facts=_facts,
    draw=_draw,
    many=True,
    uses="records",
    check=_check,
)
