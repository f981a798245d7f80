"""Which strategy to use, as far as the scores tell: the highest, how far above the next and above none, how surely."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from anglekit.comparison.crossed import LEAST_SEEDS
from anglekit.comparison.statistics import BETWEEN, OVER_NONE
from anglekit.comparison.wording import gap, interval_words, level, needed_words
from anglekit.vocabulary import LOWER_IS_BETTER, NONE, matches_layers

if TYPE_CHECKING:
    import pandas as pd

    from anglekit.comparison.family import Family

#: What is used where the scores tell no strategy from it: nothing measured beforehand chose better (`anglekit advise`).
DEFAULT_STRATEGY: Final = "forward"


@dataclass(frozen=True)
class Choice:
    """The strategy to use from one kind of weights, by one score on one evaluation table.

    Attributes:
        init: what the students started from.
        use: the strategy; None where no student has learned anything that could be compared.
        best: the one with the best mean score.
        score: that mean, in the score's unit.
        runner_up: the one with the next.
        lead: what to use, a clause.
        why: the score, how far it is above the next and above none, and how surely: a sentence without its full stop.
        about: "strategies", or "these students" where there are too few seeds to speak of others.
    """

    init: str
    use: str | None
    best: str
    score: float
    runner_up: str
    lead: str
    why: str
    about: str = "strategies"

    def sentence(self, weights: str, *more: str) -> str:
        """Return the answer in two sentences.

        Args:
            weights: what the students started from, such as `the teacher's weights`; empty where it is not recorded.
            *more: clauses that follow.
        """
        return f"{self.first(weights)} {self.rest(*more)}"

    def first(self, weights: str) -> str:
        """Return what to use as a sentence."""
        return f"From {weights}, {self.lead}." if weights else f"{self.lead[:1].upper()}{self.lead[1:]}."

    def rest(self, *more: str) -> str:
        """Return why as a sentence, with clauses that follow."""
        return f"{'; '.join([self.why, *more])}."


def choices(
    families: Sequence[Family], levels: pd.DataFrame, differences: pd.DataFrame, score: str, data: str
) -> tuple[Choice, ...]:
    """Return a choice for each kind of weights with two matching strategies or more, the best-scoring first.

    A strategy is preferred to another where the interval of their paired difference that holds for all pairs at once
    lies beyond the margin: the test of the verdict "different". Where the default is not told from the best one, it is
    the default that is used.

    Args:
        families: the verdicts of a comparison.
        levels: the mean of each strategy in each cell of it.
        differences: its paired differences.
        score: by which to choose.
        data: the evaluation table.
    """
    found = []
    for family in families:
        if family.part != "score":
            continue
        rows = _rows(differences, family.init, score, data)
        means = {
            str(row["strategy"]): float(row["mean"])
            for row in _rows(levels, family.init, score, data)
            if matches_layers(str(row["strategy"]))
        }
        if len(means) > 1 and rows:
            found.append(_choice(family, means, rows))
    return tuple(sorted(found, key=lambda one: one.score, reverse=score not in LOWER_IS_BETTER))


def _rows(table: pd.DataFrame, init: str, score: str, data: str) -> list[dict[str, Any]]:
    own = table[(table["init"] == init) & (table["score"] == score) & (table["data"] == data)]
    return [{str(key): value for key, value in row.items()} for row in own.to_dict(orient="records")]


def _choice(family: Family, means: Mapping[str, float], rows: Sequence[Mapping[str, Any]]) -> Choice:
    unit = rows[0]
    falls = unit["score"] in LOWER_IS_BETTER
    ranked = sorted(means, key=lambda name: means[name], reverse=not falls)
    best, runner_up = ranked[:2]
    pairs = {name: row for name in ranked[1:] if (row := _ahead(rows, BETWEEN, best, name)) is not None}
    worse = [name for name, row in pairs.items() if row["verdict"] == "different"]
    as_good = [name for name in ranked if name not in worse]
    use: str | None = DEFAULT_STRATEGY if DEFAULT_STRATEGY in as_good else best
    first = f"scores {'lowest' if falls else 'highest'} with {level(means[best], unit)}"
    subject = "It" if use == best and family.told is not False else best
    clauses = [f"{subject} {first}{_apart_words(pairs.get(runner_up), f'the runner-up ({runner_up})')}"]
    if family.told is False:
        use, lead = None, "no strategy can be chosen: no matched student is surely better than one that learned nothing"
    elif as_good == [best]:
        lead = f"use {best}"
    else:
        of_what = "of strategy" if not worse else f"between {_listed(as_good)}"
        what = f"use {use}, the default" if use == DEFAULT_STRATEGY else f"{use} is as good a choice as any of them"
        lead = f"no choice {of_what} is supported: {what}"
        if use not in (best, runner_up) and use in pairs:
            clauses.append(f"{use} is {_far(_turned(pairs[use]))} {best}")
        if worse:
            clauses.append(f"{_listed(worse)} {'is' if len(worse) == 1 else 'are'} surely worse")
    taken = use or best
    over = _ahead(rows, OVER_NONE, taken, NONE)
    if over is not None:
        own = "" if taken == best else f"{taken} is "
        clauses.append(f"{own}{_over_words(over, NONE)}")
    return Choice(family.init, use, best, means[best], runner_up, lead, "; ".join(clauses), family.about)


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _ahead(rows: Sequence[Mapping[str, Any]], kind: str, a: str, b: str) -> dict[str, Any] | None:
    """Return the row of two strategies with the first minus the second; None where they share no seed."""
    for row in rows:
        if row["kind"] != kind or {row["strategy_a"], row["strategy_b"]} != {a, b}:
            continue
        return dict(row) if row["strategy_a"] == a else _turned(row)
    return None


def _turned(row: Mapping[str, Any]) -> dict[str, Any]:
    turned = {"difference": -row["difference"], "strategy_a": row["strategy_b"], "strategy_b": row["strategy_a"]}
    for low, high in (("low", "high"), ("joint_low", "joint_high"), ("test_low", "test_high")):
        turned |= {low: -row[high], high: -row[low]}
    return {**row, **turned}


def _far(row: Mapping[str, Any]) -> str:
    """Return how far the first strategy of a row is above the second, or below: `9.8 points above`."""
    return f"{gap(abs(row['difference']), row)} {'below' if row['difference'] < 0 else 'above'}"


def _sureness(row: Mapping[str, Any], ends: tuple[str, str]) -> str:
    """Return the ends of a difference's interval, in the direction in which the difference is told."""
    own = _turned(row) if row["difference"] < 0 else row
    # The unit stands beside the difference.
    return interval_words(own, *ends).replace(" points", "")


def _over_words(row: Mapping[str, Any], what: str) -> str:
    """Return how far a strategy is from `none`, and how surely."""
    if np.isnan(row["low"]):
        return f"{_far(row)} {what} (how surely is not known)"
    unsure = ", so not surely" if row["low"] <= 0 <= row["high"] else ""
    return f"{_far(row)} {what} (95%: {_sureness(row, ('low', 'high'))}{unsure})"


def _apart_words(row: Mapping[str, Any] | None, what: str) -> str:
    """Return how far the best strategy is from the next, how surely, and what would decide."""
    if row is None:
        return f", and shares no seed with {what}"
    far = f", {_far(row)} {what}"
    if np.isnan(row["joint_low"]):
        return f"{far}, and nothing tells how surely: train at least {LEAST_SEEDS} seeds"
    interval = f"95% for all pairs at once: {_sureness(row, ('joint_low', 'joint_high'))}"
    margin = f"the margin of {gap(row['margin'], row)}"
    if row["verdict"] == "different":
        return f"{far}, surely more than {margin} ({interval})"
    if row["verdict"] == "equivalent":
        return f"{far}, surely less than {margin}, so it does not matter which of the two"
    needed = needed_words(row)
    decide = f"; {'' if needed.startswith('more') else 'about '}{needed} would decide" if needed else ""
    return f"{far}, but not surely more than {margin} ({interval}{decide})"
