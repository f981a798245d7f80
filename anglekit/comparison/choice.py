"""Which strategy to use, as far as the scores tell: the highest, how far above the next and above none, how surely."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from anglekit.comparison.crossed import LEAST_SEEDS
from anglekit.comparison.statistics import BETWEEN, OVER_NONE
from anglekit.comparison.wording import decides_words, gap, interval_words, level, listed, score_words, weights_words
from anglekit.display.counts import counted
from anglekit.vocabulary import LOWER_IS_BETTER, NONE, matches_layers

if TYPE_CHECKING:
    import pandas as pd

    from anglekit.comparison.family import Family
    from anglekit.comparison.gaps import Gap

#: What is used where the scores tell no strategy from it: nothing measured beforehand chose better (`anglekit advise`).
DEFAULT_STRATEGY: Final = "forward"

#: More strategies that are not told apart are counted, not named.
_MOST_NAMED: Final = 5


@dataclass(frozen=True)
class Choice:
    """The strategy to use from one kind of weights, by one score on one evaluation table.

    Attributes:
        init: what the students started from.
        use: the strategy; None where no student has learned anything that could be compared.
        best: the one with the best mean score.
        score: that mean, in the score's unit.
        runner_up: the one with the next.
        lead: what to use, a clause; with too few seeds to speak of others than these students it says so.
        why: the score, how far it is above the next and above none, and how surely: short sentences, each interval
            behind its number.
        about: "strategies", or "these students" where there are too few seeds to speak of others.
        as_good: the best one and those that are not surely worse, the best first.
        worse: those that are surely worse than the best.
        alike: that those of `as_good` are not told apart, a clause; empty where the best is told from all others.
    """

    init: str
    use: str | None
    best: str
    score: float
    runner_up: str
    lead: str
    why: str
    about: str = "strategies"
    as_good: tuple[str, ...] = ()
    worse: tuple[str, ...] = ()
    alike: str = ""

    def sentence(self, weights: str, *more: str) -> str:
        """Return the answer: what to use, and why.

        Args:
            weights: what the students started from, such as `the teacher's weights`; empty where it is not recorded.
            *more: sentences that follow.
        """
        return f"{self.first(weights)} {self.rest(*more)}"

    def first(self, weights: str) -> str:
        """Return what to use as a sentence."""
        return f"From {weights}, {self.lead}." if weights else f"{self.lead[:1].upper()}{self.lead[1:]}."

    def rest(self, *more: str) -> str:
        """Return why, and sentences that follow."""
        return " ".join([self.why, *more])


def choices(
    families: Sequence[Family], levels: pd.DataFrame, differences: pd.DataFrame, score: str, data: str
) -> tuple[Choice, ...]:
    """Return a choice for each kind of weights with two matching strategies or more, the best-scoring first.

    A strategy is preferred to another where the interval of their paired difference that holds for all pairs at once
    lies beyond the margin: the test of the verdict "different". Where the default is not told from the best one, nor
    those that are not from each other, it is the default that is used.

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
        own = {
            str(row["strategy"]): row
            for row in _rows(levels, family.init, score, data)
            if matches_layers(str(row["strategy"]))
        }
        if len(own) > 1 and rows:
            found.append(_choice(family, own, rows))
    return tuple(sorted(found, key=lambda one: one.score, reverse=score not in LOWER_IS_BETTER))


def weights_words_apart(choices: Sequence[Choice], gaps: Mapping[str, Gap], unit: Mapping[str, Any]) -> str:
    """Return which weights reach the best score, and how far above the best of the others: a sentence for each.

    Args:
        choices: the best-scoring first.
        gaps: how far its best is above that of the others (`gaps.weights_gaps`), by their initialisation.
        unit: by which a number of the score is written (`wording.level`).
    """
    parts = []
    for other in choices[1:]:
        weights, first = weights_words(other.init), weights_words(choices[0].init)
        far = gaps.get(other.init)
        if not weights or not first or far is None:
            continue
        side = "lower" if far.difference > 0 else "higher"
        row = {**unit, "low": far.low, "high": far.high}
        if far.difference < 0:
            row |= {"low": -far.high, "high": -far.low}
        sure = "" if np.isnan(far.low) else f" (95%, this pair alone: {_ends(row, 'low', 'high')})"
        parts.append(
            f"From {weights} the best, {other.best}, has {level(other.score, unit)}: {gap(abs(far.difference), unit)}"
            f"{sure} {side}{', not surely' if row['low'] <= 0 else ''}."
        )
    return " ".join(parts)


def _rows(table: pd.DataFrame, init: str, score: str, data: str) -> list[dict[str, Any]]:
    own = table[(table["init"] == init) & (table["score"] == score) & (table["data"] == data)]
    return [{str(key): value for key, value in row.items()} for row in own.to_dict(orient="records")]


def _choice(family: Family, levels: Mapping[str, Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]) -> Choice:
    unit = rows[0]
    falls = unit["score"] in LOWER_IS_BETTER
    means = {name: float(row["mean"]) for name, row in levels.items()}
    ranked = sorted(means, key=lambda name: means[name], reverse=not falls)
    best, runner_up = ranked[:2]
    pairs = {name: row for name in ranked[1:] if (row := _ahead(rows, BETWEEN, best, name)) is not None}
    worse = [name for name, row in pairs.items() if row["verdict"] == "different"]
    as_good = [name for name in ranked if name not in worse]
    among = [
        row
        for row in rows
        if row["kind"] == BETWEEN
        and row["verdict"] == "different"
        and {row["strategy_a"], row["strategy_b"]} <= {*as_good}
    ]
    use: str | None = DEFAULT_STRATEGY if DEFAULT_STRATEGY in as_good and not among else best
    told = family.told is not False
    over = _ahead(rows, OVER_NONE, use or best, NONE)
    lead, alike = f"use {best}", ""
    if not told:
        use, lead = None, "no strategy can be chosen: no matched student is surely better than one that learned nothing"
    elif len(as_good) > 1:
        helps = over is not None and (over["high"] < 0 if falls else over["low"] > 0)
        last = "the default" if use == DEFAULT_STRATEGY else f"the {'lowest' if falls else 'highest'}"
        alike = _alike_words(as_good, [pairs.get(name) for name in as_good[1:]], apart=bool(among))
        lead = f"{'matching layers helps, but ' if helps else ''}{alike}: {use}, {last}, will do"
    if told and family.about == "these students":
        lead += f" ({counted(family.n_seeds, 'seed')}: this is about these students only)"
    sentences = [_level_sentence(best, levels[best], unit, falls=falls)]
    sentences.append(_apart_sentence(pairs.get(runner_up), runner_up))
    if told and use not in (best, runner_up) and use in pairs:
        sentences.append(f"With {use} it is {_far(_turned(pairs[use]), 'joint_low', 'joint_high')} that.")
    if over is not None:
        subject = "That" if (use or best) == best and len(sentences) == 2 else f"With {use or best} it"
        sentences.append(f"{subject} is {_far(over, 'low', 'high')} none.")
    if worse and len(as_good) > 1:
        sentences.append(f"Surely worse: {listed(worse)}.")
    decide = decides_words(pairs[runner_up]) if runner_up in pairs else ""
    sentences += [f"{decide[:1].upper()}{decide[1:]}."] if decide else []
    return Choice(
        family.init,
        use,
        best,
        means[best],
        runner_up,
        lead,
        " ".join(sentences),
        family.about,
        tuple(as_good),
        tuple(worse),
        alike,
    )


def names_words(names: Sequence[str]) -> str:
    """Return strategies, the best first, in a list; of many only how many."""
    return listed(names) if len(names) <= _MOST_NAMED else f"the best {len(names)}"


def _alike_words(names: Sequence[str], rows: Sequence[Mapping[str, Any] | None], *, apart: bool) -> str:
    """Return that the best strategy and others are not told apart; `apart`: the others are told from each other."""
    if apart:
        return f"{names[0]} cannot be told from {names_words(names[1:])}"
    alike = all(row is not None and row["verdict"] == "equivalent" for row in rows)
    return f"{names_words(names)} {'score alike' if alike else 'cannot be told apart'}"


def _level_sentence(name: str, row: Mapping[str, Any], unit: Mapping[str, Any], *, falls: bool) -> str:
    """Return a strategy's score with the interval of that score alone."""
    ends = [float(row.get(end, np.nan)) for end in ("low", "high")]
    sure = "" if np.isnan(ends).any() else f" (95%: {level(ends[0], unit).rstrip('%')} to {level(ends[1], unit)})"
    extreme = "lowest" if falls else "highest"
    return f"With {name}, {score_words(str(unit['score']))} is {extreme}: {level(float(row['mean']), unit)}{sure}."


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


#: Of each kind of interval, what stands before its ends.
_KINDS: Final[Mapping[str, str]] = {
    "low": "95%, this pair alone",
    "joint_low": "95%, all pairs at once",
    "test_low": "90%, for equivalence",
}


def _far(row: Mapping[str, Any], low: str, high: str) -> str:
    """Return how far the first strategy of a row is above the second, or below, with its interval.

    Such as `9.8 points (95%, this pair alone: 4.0 to 15.6) above`.
    """
    own = _turned(row) if row["difference"] < 0 else row
    sure = "how surely is not known" if np.isnan(own[low]) else f"{_KINDS[low]}: {_ends(own, low, high)}"
    return f"{gap(own['difference'], row)} ({sure}) {'below' if row['difference'] < 0 else 'above'}"


def _ends(row: Mapping[str, Any], low: str, high: str) -> str:
    # The unit stands beside the difference.
    return interval_words(row, low, high).replace(" points", "").replace(" (cut at 100)", ", cut at 100")


def _apart_sentence(row: Mapping[str, Any] | None, name: str) -> str:
    """Return how far the best strategy is from the next, and how surely."""
    if row is None:
        return f"It shares no seed with {name}, the next."
    if np.isnan(row["joint_low"]):
        train = f"nothing tells how surely: train at least {LEAST_SEEDS} seeds"
        side = "below" if row["difference"] < 0 else "above"
        return f"That is {gap(abs(row['difference']), row)} {side} {name}, the next; {train}."
    margin = f"the margin of {gap(row['margin'], row)}"
    if row["verdict"] == "equivalent":
        far = _far(row, "test_low", "test_high")
        return f"That is {far} {name}, the next: surely less than {margin}, so it does not matter which of the two."
    more = "surely more" if row["verdict"] == "different" else "not surely more"
    return f"That is {_far(row, 'joint_low', 'joint_high')} {name}, the next: {more} than {margin}."
