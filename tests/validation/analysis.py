"""The analysis that data/validation/protocol.md fixed before the sweeps were run, on plain tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

from anglekit.results.student_t import holm

Floats = NDArray[np.float64]

MATCHED: Final = ("forward", "reverse", "all-to-one", "random")
#: The arms in which one teacher layer teaches every block, by the names under which they are ranked and scored.
SINGLE: Final[Mapping[str, str]] = {"depth-1": "depth-1", "depth-3": "all-to-one", "depth-6": "depth-6"}
DEFAULT: Final[Mapping[str, str]] = {"best strategy": "forward", "best depth": "depth-6"}
BOOTSTRAPS: Final = 2000
PERMUTATIONS: Final = 5000

#: By task its values, one for each sweep.
ByTask = dict[str, Floats]


@dataclass(frozen=True)
class Found:
    """What a predictor tells of a target.

    Attributes:
        value: the mean over left-out tasks.
        low: end of its 95% interval.
        high: its other end.
        p: one-sided.
        of_tasks: by left-out task.
    """

    value: float
    low: float
    high: float
    p: float
    of_tasks: dict[str, float]


def targets(scores: pd.DataFrame) -> pd.DataFrame:
    """Return for each sweep its task, spread, gain and the mean score of each arm, from rows of single students."""
    means = scores.pivot_table(index="condition", columns="strategy", values="score", sort=False)
    matched = means[list(MATCHED)]
    # Scores are shares of rows: rounding must not lift a difference over a bound that it meets.
    found = means.assign(
        spread=(matched.max(axis=1) - matched.min(axis=1)).round(9),
        gain=(matched.mean(axis=1) - means["none"]).round(9),
    ).reset_index()
    found.insert(1, "task", found["condition"].str.split("-").str[0])
    return found


def learnt(found: pd.DataFrame, commonest: Mapping[str, float]) -> pd.Series:
    """Return for each sweep whether a student is more than 0.02 above always giving the commonest answer.

    Args:
        found: what `targets` returns.
        commonest: by task the score of that answer.
    """
    arms = ["none", *MATCHED, "depth-1", "depth-6"]
    return found[arms].max(axis=1) > found["task"].map(dict(commonest)) + 0.02


def noise_spread(scores: pd.DataFrame) -> pd.Series:
    """Return for each sweep the spread that its seeds alone would give: the expected range of as many equal strategies.

    The standard deviation between seeds is pooled over the matched strategies.
    """
    matched = scores[scores["strategy"].isin(MATCHED)]
    cells = matched.groupby(["condition", "strategy"])["score"]
    pooled = np.sqrt(cells.var().groupby("condition").mean())
    seeds = cells.count().groupby("condition").mean()
    # The expected range of four standard normal numbers.
    return 2.0588 * pooled / np.sqrt(seeds)


def correlation(x: Floats, y: Floats) -> float:
    """Return Spearman's correlation; 0 where one of them is constant."""
    return float(_ranks(x) @ _ranks(y))


def _ranks(values: Floats) -> Floats:
    """Return centred ranks of length 1, or zeros where all values are equal."""
    centred: Floats = rankdata(values) - (len(values) + 1) / 2
    length = np.sqrt(centred @ centred)
    return centred / length if length > 0 else centred


def left_out(correlations: Floats) -> Floats:
    """Return each task's correlation, turned by the sign of the mean of the others'."""
    number = len(correlations)
    others = (correlations.sum() - correlations) / (number - 1)
    signs = np.sign(others)
    turned: Floats = correlations * signs
    return turned


def predicts_number(x: ByTask, y: ByTask, rng: np.random.Generator) -> Found:
    """Return how well a number foretells a target: the correlation in a task whose sign the other tasks gave."""
    tasks = list(x)
    own = np.array([correlation(x[task], y[task]) for task in tasks])
    turned = left_out(own)
    value = turned.mean()

    ranks = [(_ranks(x[task]), _ranks(y[task])) for task in tasks]

    def shuffled() -> float:
        return float(left_out(np.array([a @ rng.permutation(b) for a, b in ranks])).mean())

    above = sum(shuffled() >= value - 1e-12 for _ in range(PERMUTATIONS))

    def drawn(chosen: Sequence[str]) -> float:
        places = [rng.integers(len(x[task]), size=len(x[task])) for task in chosen]
        pairs = zip(chosen, places, strict=True)
        return float(left_out(np.array([correlation(x[task][own], y[task][own]) for task, own in pairs])).mean())

    low, high = _interval(tasks, drawn, rng)
    return Found(
        float(value), low, high, (1 + above) / (1 + PERMUTATIONS), dict(zip(tasks, turned.tolist(), strict=True))
    )


def predicts_choice(gains: ByTask, rng: np.random.Generator) -> Found:
    """Return how much less a predictor's choice loses than the default, from each sweep's difference of regrets."""
    tasks = list(gains)
    own = np.array([gains[task].mean() for task in tasks])
    value = own.mean()

    def flipped() -> float:
        return float(np.mean([(gains[task] * rng.choice((-1.0, 1.0), len(gains[task]))).mean() for task in tasks]))

    above = sum(flipped() >= value - 1e-12 for _ in range(PERMUTATIONS))

    def drawn(chosen: Sequence[str]) -> float:
        return float(np.mean([rng.choice(gains[task], len(gains[task])).mean() for task in chosen]))

    low, high = _interval(tasks, drawn, rng)
    return Found(float(value), low, high, (1 + above) / (1 + PERMUTATIONS), dict(zip(tasks, own.tolist(), strict=True)))


def _interval(
    tasks: Sequence[str], drawn: Callable[[Sequence[str]], float], rng: np.random.Generator
) -> tuple[float, float]:
    values = [drawn([tasks[place] for place in rng.integers(len(tasks), size=len(tasks))]) for _ in range(BOOTSTRAPS)]
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def regrets(scored: pd.Series, ranked: pd.Series) -> float:
    """Return the best score less that of the arm that is ranked first; of arms that share the first place, the mean."""
    first = ranked[ranked >= ranked.max() - 1e-12].index
    return float(scored.max() - scored[first].mean())


def choice_regrets(found: pd.DataFrame, choices: pd.DataFrame, target: str) -> pd.DataFrame:
    """Return by sweep the regret of each predictor's choice and of the default."""
    arms = SINGLE if target == "best depth" else {name: name for name in MATCHED}
    rows = []
    for _, sweep in found.iterrows():
        scored = pd.Series({arm: float(sweep[of]) for arm, of in arms.items()})
        own = choices[(choices["condition"] == sweep["condition"]) & (choices["target"] == target)]
        for predictor, ranked in own.groupby("predictor"):
            regret = regrets(scored, ranked.set_index("arm")["value"])
            rows.append(
                {"condition": sweep["condition"], "task": sweep["task"], "predictor": predictor, "regret": regret}
            )
        default = float(scored.max() - scored[DEFAULT[target]])
        rows.append({"condition": sweep["condition"], "task": sweep["task"], "predictor": "default", "regret": default})
    return pd.DataFrame(rows)


def analyse(scores: pd.DataFrame, predictors: pd.DataFrame, choices: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Return a row for each target and predictor: `value, low, high, p, p_adjusted, predicts` and one column a task."""
    found = targets(scores)
    tables: list[pd.DataFrame] = []
    joined = found.merge(predictors, on="condition")
    for target in ("spread", "gain"):
        rows = []
        for place, name in enumerate(column for column in predictors.columns if column != "condition"):
            rng = np.random.default_rng([seed, place])
            of_tasks = joined.groupby("task", sort=False)
            x, y = ({task: own[which].to_numpy(float) for task, own in of_tasks} for which in (name, target))
            rows.append((name, predicts_number(x, y, rng)))
        tables.append(_table(target, rows))
    for target in DEFAULT:
        lost = choice_regrets(found, choices, target).pivot_table(
            index=["task", "condition"], columns="predictor", values="regret", sort=False
        )
        rows = []
        for place, name in enumerate(column for column in lost.columns if column != "default"):
            gain = (lost["default"] - lost[name]).rename("gain").reset_index()
            by_task = {task: own["gain"].to_numpy(float) for task, own in gain.groupby("task", sort=False)}
            rows.append((name, predicts_choice(by_task, np.random.default_rng([seed, 100 + place]))))
        tables.append(_table(target, rows))
    return pd.concat(tables, ignore_index=True)


def _table(target: str, rows: Sequence[tuple[str, Found]]) -> pd.DataFrame:
    adjusted = holm([found.p for _, found in rows])
    return pd.DataFrame(
        [
            {
                "target": target,
                "predictor": name,
                "value": found.value,
                "low": found.low,
                "high": found.high,
                "p": found.p,
                "p_adjusted": float(p),
                "predicts": bool(p < 0.05 and found.low > 0.0),
                **found.of_tasks,
            }
            for (name, found), p in zip(rows, adjusted, strict=True)
        ]
    )
