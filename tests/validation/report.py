"""From the raw results of the validation to its tables, its page, its figure and what `anglekit advise` may say.

    python tests/validation/report.py

Reads scores.csv, predictors.csv and choices.csv in data/validation; writes results.csv, sweeps.csv and README.md there,
figures/validation.png, and anglekit/advice/evidence.json.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT)]

from anglekit.advice.evidence import MATTERS, fitted_rule  # noqa: E402
from anglekit.runtime.files import write_whole  # noqa: E402
from tests.validation.analysis import DEFAULT, analyse, choice_regrets, learnt, noise_spread, targets  # noqa: E402
from tests.validation.sweeps import COMMONEST, conditions  # noqa: E402

DATA: Final = ROOT / "data" / "validation"
EVIDENCE: Final = ROOT / "anglekit" / "advice" / "evidence.json"
FIGURE: Final = ROOT / "figures" / "validation.png"
TITLES: Final[Mapping[str, str]] = {
    "spread": "the spread between strategies",
    "gain": "the gain over no matching",
    "best strategy": "the best strategy",
    "best depth": "the best single teacher layer",
}


def tables() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Return the raw results, of the sweeps of the protocol alone."""
    known = {each.name for each in conditions()}
    frames = [pd.read_csv(DATA / f"{name}.csv") for name in ("scores", "predictors", "choices")]
    return tuple(frame[frame["condition"].isin(known)].reset_index(drop=True) for frame in frames)  # type: ignore[return-value]


def sweeps_table(scores: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each sweep: its settings, targets, and the spread that its seeds alone would give."""
    found = targets(scores)
    found["noise_spread"] = found["condition"].map(noise_spread(scores))
    settings = pd.DataFrame([{"condition": each.name, **vars(each)} for each in conditions()]).drop(columns="task")
    return found.merge(settings, on="condition")


def held_out(found: pd.DataFrame, predictors: pd.DataFrame, results: pd.DataFrame) -> dict[str, Any]:
    """Return the rule for the spread, if a predictor has one, and how right it was about tasks that it had not seen."""
    own = results[(results["target"] == "spread") & results["predicts"]]
    large = found.set_index("condition")["spread"] > MATTERS
    tasks = found.set_index("condition")["task"]
    base = {
        "sweeps": len(large),
        "large": int(large.sum()),
        "by_task": {task: [int(each.sum()), len(each)] for task, each in large.groupby(tasks, sort=False)},
    }
    if own.empty:
        return {**base, "rule": None}
    name = str(own.sort_values("value", ascending=False).iloc[0]["predictor"])
    values = predictors.set_index("condition")[name].reindex(large.index)
    said = pd.Series(index=large.index, dtype=bool)
    for task in tasks.unique():
        seen = tasks != task
        rule = fitted_rule(name, values[seen].to_numpy(float), large[seen].to_numpy(bool))
        said[~seen] = [rule.says(float(value)) for value in values[~seen]]
    rule = fitted_rule(name, values.to_numpy(float), large.to_numpy(bool))
    return {**base, "rule": {**rule.to_json(), **_counts(said, large)}}


def _counts(said: pd.Series, large: pd.Series) -> dict[str, Any]:
    """Return of the sweeps that a rule called large, and of the others, how many were: `[large, all]`."""
    return {
        "held_out_likely": [int((large & said).sum()), int(said.sum())],
        "held_out_unlikely": [int((large & ~said).sum()), int((~said).sum())],
    }


def evidence(
    found: pd.DataFrame, predictors: pd.DataFrame, results: pd.DataFrame, lost: pd.DataFrame
) -> dict[str, Any]:
    """Return what the advice rests on."""
    beats = results[results["target"].isin(list(DEFAULT)) & results["predicts"]]
    default = lost[lost["predictor"] == "default"]["regret"]
    return {
        "format": "anglekit-evidence-1",
        "matters": MATTERS,
        "tasks": sorted(found["task"].unique()),
        "layers": sorted(int(each) for each in found["layers"].unique()),
        "spread": held_out(found, predictors, results),
        "spreads": {str(q): round(float(found["spread"].quantile(q)), 4) for q in (0.1, 0.25, 0.5, 0.75, 0.9)},
        "gains": {str(q): round(float(found["gain"].quantile(q)), 4) for q in (0.1, 0.25, 0.5, 0.75, 0.9)},
        "gain_above_0": [int((found["gain"] > 0.0).sum()), len(found)],
        "forward": {
            "best": [int((default < 1e-9).sum()), len(default)],
            "mean_regret": round(float(default.mean()), 4),
        },
        "choices": {
            target: str(own.sort_values("value", ascending=False).iloc[0]["predictor"])
            for target, own in beats.groupby("target")
        },
        "ranges": {
            name: [float(f"{end:.4g}") for end in (predictors[name].min(), predictors[name].max())]
            for name in predictors.columns
            if name != "condition"
        },
    }


def markdown(results: pd.DataFrame, target: str) -> str:
    """Return the table of a target's predictors."""
    own = results[results["target"] == target].sort_values("value", ascending=False)
    points = target in DEFAULT
    tasks = [name for name in own.columns if name in ("inference", "endings", "questions", "triples", "reviews")]
    head = ["predictor", "points gained" if points else "correlation", "95% interval", "p", "corrected p", *tasks]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for _, row in own.iterrows():
        scale, digits = (100.0, 1) if points else (1.0, 2)

        def shown(value: float, scale: float = scale, digits: int = digits) -> str:
            return f"{value * scale:.{digits}f}"

        name = f"**{row['predictor']}**" if row["predicts"] else str(row["predictor"])
        cells = [
            name,
            shown(row["value"]),
            f"{shown(row['low'])} to {shown(row['high'])}",
            f"{row['p']:.3f}",
            f"{row['p_adjusted']:.3f}",
            *(shown(row[task]) for task in tasks),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def calibration(spread: Mapping[str, Any]) -> str:
    """Return the table of what the other tasks' share of large spreads says of each task, and what was seen there."""
    large, number = spread["large"], spread["sweeps"]
    lines = ["| left-out task | said from the others | seen |", "|---|---|---|"]
    for task, (own, count) in spread["by_task"].items():
        lines.append(f"| {task} | {100 * (large - own) / (number - count):.0f}% | {own} of {count} |")
    return "\n".join(lines)


def draw(results: pd.DataFrame) -> None:
    """Draw each predictor's value and interval, a panel for each target."""
    mpl.use("Agg")
    with mpl.rc_context({"font.size": 8, "axes.spines.top": False, "axes.spines.right": False}):
        figure, axes = plt.subplots(2, 2, figsize=(9.0, 4.8), layout="constrained")
        for axis, target in zip(axes.flat, TITLES, strict=True):
            own = results[results["target"] == target].sort_values("value")
            scale = 100.0 if target in DEFAULT else 1.0
            colours = ["#1f6f8b" if each else "#8a8a8a" for each in own["predicts"]]
            places = np.arange(len(own))
            axis.axvline(0.0, color="0.6", linewidth=0.8)
            axis.hlines(places, own["low"] * scale, own["high"] * scale, color=colours, linewidth=1.4)
            axis.scatter(own["value"] * scale, places, color=colours, s=16, zorder=3)
            axis.set_yticks(places, own["predictor"])
            axis.set_xlabel(
                "points gained over the default" if target in DEFAULT else "correlation in the task that was left out"
            )
            axis.set_title(TITLES[target].capitalize(), fontsize=9)
            if target not in DEFAULT:
                axis.set_xlim(-1.0, 1.0)
        figure.savefig(FIGURE, dpi=150)
        plt.close(figure)


def main() -> int:
    """Write everything that follows from the raw results."""
    scores, predictors, choices = tables()
    found = sweeps_table(scores)
    missing = [each.name for each in conditions() if each.name not in set(found["condition"])]
    results = analyse(scores, predictors, choices)
    known_conditions = found.loc[learnt(targets(scores), COMMONEST), "condition"]
    only = [frame[frame["condition"].isin(known_conditions)] for frame in (scores, predictors, choices)]
    write_whole(DATA / "results-learnt.csv", analyse(*only).to_csv(index=False, float_format="%.6g"))
    lost = choice_regrets(targets(scores), choices, "best strategy")
    write_whole(DATA / "results.csv", results.to_csv(index=False, float_format="%.6g"))
    write_whole(DATA / "sweeps.csv", found.to_csv(index=False, float_format="%.6g"))
    known = evidence(found, predictors, results, lost)
    write_whole(EVIDENCE, json.dumps(known, indent=1) + "\n")
    parts = [
        (HERE / "introduction.md").read_text(encoding="utf-8").rstrip(),
        *(f"## Who foretells {TITLES[target]}\n\n{markdown(results, target)}" for target in TITLES),
        f"## How often the strategies are more than {100 * MATTERS:g} points apart\n\n"
        "What `anglekit advise` says where nothing foretells it: "
        f"{known['spread']['large']} of {known['spread']['sweeps']} sweeps. "
        f"How that holds in a task that was left out:\n\n{calibration(known['spread'])}",
    ]
    write_whole(DATA / "README.md", "\n\n".join(parts) + "\n")
    draw(results)
    print(f"{len(found)} sweeps, {len(missing)} missing: {', '.join(missing)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
