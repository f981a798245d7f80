"""What every output says first: the verdict on the task's own score, then every score, then the angles.

`compare`, the demo, `reproduce`, `report`, notebooks and json all print this object.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from anglekit.comparison.cells import in_order
from anglekit.comparison.choice import Choice
from anglekit.comparison.crossed import LEAST_SEEDS
from anglekit.comparison.family import Family, Reference
from anglekit.comparison.wording import (
    decides_words,
    gain_sentence,
    gap,
    interval_words,
    level,
    score_words,
    weights_words,
)
from anglekit.display.counts import counted
from anglekit.display.tables import printable
from anglekit.results.scores import StoppedStrategy
from anglekit.vocabulary import CONTROL_LABELS, LOWER_IS_BETTER, given_name, matches_layers

#: What helps students that are not surely better than they were, by what leaves them no room (`Reference.reached`).
_ADVICE: Final[Mapping[str | None, str]] = {
    None: "train them longer",
    "best": "this table is too easy to tell them apart: give a harder one",
    "teacher": "the teacher is no better than the students before training, so this table cannot tell them apart: give "
    "another one",
}
_CONTROL_WORDS: Final[Mapping[str, str]] = {
    "alone": "the labels alone",
    "random-teacher": "matching an untrained teacher",
}


@dataclass(frozen=True)
class Headline:
    """The answer in words.

    Attributes:
        line: the first line: the verdicts on the task's own score, for each kind of weights the strategy that stands
            first, by how much, and how surely. Where no score came it is about the angles, and where nothing could be
            compared it says why.
        reasons: sentences that explain it: the angles, what matching gains and the controls explain, for whom it holds.
        numbers: the second line: the score of the teacher and of every strategy, and on what it rests; empty without
            scores.
        choices: then a sentence for each kind of weights: which strategy to use, how far it is above the next one and
            above none, and how surely; none without scores.
    """

    line: str
    reasons: tuple[str, ...] = ()
    numbers: str = ""
    choices: tuple[str, ...] = ()

    @property
    def beneath(self) -> tuple[str, ...]:
        """What stands under the first line: the numbers, what to use, and the sentences that explain it."""
        return (*([self.numbers] if self.numbers else []), *self.choices, *self.reasons)

    @property
    def text(self) -> str:
        """All of it: the first line, and the others beneath it, each on its own line."""
        return "\n  ".join((self.line, *self.beneath))


def headline(
    families: Sequence[Family],
    levels: pd.DataFrame,
    spreads: pd.DataFrame,
    controls: pd.DataFrame,
    *,
    primary: str | None = None,
    teacher: Mapping[str, float] | None = None,
    stopped: Sequence[StoppedStrategy] = (),
    choices: Sequence[Choice] = (),
    weights: str = "",
) -> Headline:
    """Return what comes first, from the attributes of a `Comparison` with these names.

    Args:
        families: a verdict for each kind of measure and initialisation.
        levels: the mean of each strategy in each cell.
        spreads: a row for each cell.
        controls: a row for each cell and control arm.
        primary: the task's own score; None: the first one.
        teacher: its scores, by measure.
        stopped: strategies that a sweep stopped as hopeless.
        choices: which strategy to use, by kind of weights.
        weights: how far the best of other weights is below the best of all, sentences that follow the first choice.
    """
    scores = levels[levels["part"] == "score"]
    of_angles = [family for family in families if family.part == "angle"]
    if scores.empty:
        line = _angle_line(of_angles, "On the angles alone, as no score came", list(dict.fromkeys(levels["strategy"])))
        return Headline(printable(line), _for_whom(of_angles))
    score = primary if primary is not None and primary in set(scores["score"]) else str(scores["score"].iloc[0])
    own = scores[scores["score"] == score]
    shown = own[own["data"] == own["data"].iloc[0]]
    measure = str(shown["measure"].iloc[0])
    by_init = {family.init: family for family in families if family.part == "score"}
    margin = next((float(row["margin"]) for one in by_init.values() for row in one.rows if row["score"] == score), 0.01)
    unit = {"part": "score", "score": score, "margin": margin}
    taught = (teacher or {}).get(measure)
    line = _score_line(shown, unit, by_init, taught, stopped)
    numbers = _numbers(shown, unit, by_init, taught)
    reasons = [_angle_line(of_angles, "The angles, which may explain it")] if of_angles else []
    for _, rows in spreads[spreads["measure"] == measure].iterrows():
        reasons += _gain({str(key): value for key, value in rows.to_dict().items()}, controls)
    if "by_example" in shown and not shown["by_example"].all():
        why = "Without predictions by example"
        reasons.append(f"{why}, intervals are over seeds alone and hold on this validation table.")
    used = tuple(
        printable(one.sentence(weights_words(one.init), *([weights] if weights and number == 0 else [])))
        for number, one in enumerate(choices)
    )
    return Headline(printable(line), tuple(map(printable, [*reasons, *_for_whom(families)])), printable(numbers), used)


def _score_line(
    shown: pd.DataFrame,
    unit: Mapping[str, Any],
    families: Mapping[str, Family],
    teacher: float | None,
    stopped: Sequence[StoppedStrategy] = (),
) -> str:
    """Return the verdicts on one score on one table, from its levels, and the families by initialisation."""
    parts = []
    for init, rows in shown.groupby("init", sort=False):
        means = {name: float(mean) for name, mean in zip(rows["strategy"], rows["mean"], strict=True)}
        family = families.get(str(init))
        verdict = _uncompared(list(means)) if family is None else _score_verdict(family, unit, means, shown)
        # Without them, "equivalent" would read as if selection did not matter.
        without = ", ".join(one.words for one in stopped if one.init == init)
        left_out = f" (without what was stopped as hopeless: {without})" if without else ""
        parts.append(f"{_before(str(init))}{verdict}{left_out}")
    known = [] if teacher is None else [f"teacher {level(teacher, unit)}"]
    return f"On {score_words(unit['score'])} ({', '.join([*known, _seeds(shown)])}): {'; '.join(parts)}."


def _numbers(
    shown: pd.DataFrame, unit: Mapping[str, Any], families: Mapping[str, Family], teacher: float | None
) -> str:
    """Return every score behind the line, and the interval of each difference that is undecided."""
    table = str(shown["data"].iloc[0])
    parts = [] if teacher is None else [f"teacher {level(teacher, unit)}"]
    for init, rows in shown.groupby("init", sort=False):
        means = dict(zip(rows["strategy"], rows["mean"], strict=True))
        named = ", ".join(
            f"{CONTROL_LABELS.get(name, name)} {level(float(means[name]), unit)}" for name in in_order(means)
        )
        family = families.get(str(init))
        interval = "" if family is None or family.verdict != "undecided" else _interval(family)
        parts.append(f"{_before(str(init))}{named}{interval}")
    counts = {int(one) for one in shown["n_examples"].dropna()}
    basis = ", ".join([*([counted(min(counts), "example")] if counts else []), _seeds(shown, whom=False)])
    where = f" on {table}" if table else ""
    return f"Scores{where} ({basis}): {'; '.join(parts)}."


def _interval(family: Family) -> str:
    """Return the interval of the deciding difference beside its margin; empty where no interval is known."""
    row = family.key
    if family.told is False or np.isnan(row["test_low"]):
        return ""
    high, low, ends = _ordered(row)
    interval = interval_words({**row, **ends}, "low", "high")
    return f" ({high} over {low}: 90% interval for equivalence {interval}, the margin {gap(row['margin'], row)})"


def _uncompared(strategies: Sequence[str]) -> str:
    matching = [name for name in strategies if matches_layers(name)]
    if len(matching) > 1:
        return "no two matching strategies share a seed, so none is compared"
    came = f"only {matching[0]}" if matching else "no strategy"
    return f"{came} matches layers, so nothing is compared"


def _seeds(rows: pd.DataFrame, *, whom: bool = True) -> str:
    """Return on how many seeds a score rests: `3 seeds`; with `whom` also that fewer speak of these students alone."""
    seeds = sorted({int(one) for one in rows["n_seeds"]})
    few = f"{seeds[0]} to " if len(seeds) > 1 else ""
    alone = f", about these students, as it takes {LEAST_SEEDS} for others" if seeds[-1] < LEAST_SEEDS and whom else ""
    return f"{few}{counted(seeds[-1], 'seed')}{alone}"


def _before(init: str) -> str:
    return f"{weights}: " if (weights := weights_words(init)) else ""


def _angle_line(families: Sequence[Family], subject: str, strategies: Sequence[str] = ()) -> str:
    if not families:
        return f"{subject}: {_uncompared(strategies)}."
    counts = [int(row["n_examples"]) for family in families for row in family.rows]
    seeds = min(family.n_seeds for family in families)
    parts = [f"{_before(family.init)}{_angle_verdict(family)}" for family in families]
    return f"{subject} ({counted(min(counts), 'example')}, {counted(seeds, 'seed')}): {'; '.join(parts)}."


def _score_verdict(family: Family, unit: Mapping[str, Any], means: Mapping[str, float], shown: pd.DataFrame) -> str:
    """Return a verdict on scores: which strategy stands first, how far above which other, how surely.

    What the deciding row is about is named where it is not the score and table that are shown.
    """
    row, matching = family.key, [name for name in means if matches_layers(name)]
    if family.told is False and family.reference is not None:
        known = _reference_words(family.reference, row, family.init)
        return f"no verdict, as no matched student is surely better than {known}; {_ADVICE[family.reference.reached]}"
    falls = unit["score"] in LOWER_IS_BETTER
    ranked = sorted(matching, key=lambda name: means[name], reverse=not falls)
    if family.verdict == "equivalent":
        ends = f" ({level(means[ranked[-1]], unit)} to {level(means[ranked[0]], unit)})" if ranked else ""
        return f"equivalent within {_margins(family)}{ends}"
    high, low, _ = _ordered(row)
    elsewhere = [] if row["score"] == unit["score"] else [f"in {score_words(row['score'])}"]
    elsewhere += [] if row["data"] == shown["data"].iloc[0] else [f"on {row['data']}"]
    apart = f"{gap(abs(float(row['difference'])), row)} above {low}"
    first = f"{ranked[0]} is {'lowest' if falls else 'highest'} with {level(means[ranked[0]], unit)}" if ranked else ""
    if ranked and high == ranked[0] and not elsewhere:
        pair = f"{first}, {apart}"
    else:
        pair = "; ".join([*([first] if first else []), " ".join([f"{high} is {apart}", *elsewhere])])
    if family.verdict == "different":
        return f"different ({pair}, {_surely(row)})"
    return f"undecided ({pair}; {_open(family)})"


def _angle_verdict(family: Family) -> str:
    """Return a verdict on angles: which two strategies are farthest apart, at which layer, how surely."""
    row = family.key
    if family.told is False:
        if family.reference is not None and family.reference.reached is not None:
            return "no verdict, as nothing shows that the matched students have learned anything"
        return "no verdict, as the matched students have learned nothing"
    if family.verdict == "equivalent":
        return f"equivalent within {_margins(family)}"
    high, low, ends = _ordered(row)
    apart = gap(abs(float(row["difference"])), row)
    pair = f"{high} is {apart} above {low} at {row['stream']} layer {int(row['vertex'])}"
    if family.verdict == "different":
        return f"different ({pair}, {_surely(row)})"
    if np.isnan(row["test_low"]):
        return f"undecided ({pair}, {_open(family)})"
    interval = interval_words({**row, **ends}, "low", "high")
    margin = gap(row["margin"], row)
    return f"undecided ({pair}, its 90% interval for equivalence {interval}, the margin {margin}; {_open(family)})"


def _margins(family: Family) -> str:
    return " and ".join(dict.fromkeys(gap(float(one["margin"]), one) for one in family.rows))


def _surely(row: Mapping[str, Any]) -> str:
    """Return how far apart a row's two strategies surely are."""
    return f"surely {gap(max(float(row['joint_low']), -float(row['joint_high'])), row)} or more"


def _ordered(row: Mapping[str, Any]) -> tuple[str, str, dict[str, float]]:
    """Return the higher strategy of a row, the lower one, and the 90% interval of the first minus the second."""
    if row["difference"] < 0:
        return row["strategy_b"], row["strategy_a"], {"low": -row["test_high"], "high": -row["test_low"]}
    return row["strategy_a"], row["strategy_b"], {"low": row["test_low"], "high": row["test_high"]}


def _reference_words(reference: Reference, row: Mapping[str, Any], init: str) -> str:
    """Return the bars that no matched student is surely better than, in words."""
    # A student that was there before may have learned long ago.
    before = "the untrained students" if given_name(init) is None else "the student before its training"
    bars = (
        ("guessing", reference.chance, reference.above_chance),
        (before, reference.untrained, reference.above_untrained),
    )
    return " and ".join(
        f"{name} ({level(value, row)})" for name, value, above in bars if value is not None and not above
    )


def _open(family: Family) -> str:
    """Return what would decide an undecided family."""
    row = family.key
    if np.isnan(row["test_low"]):
        if family.part == "score":
            return f"nothing tells its error; train at least {LEAST_SEEDS} seeds: anglekit sweep --seeds 0-2"
        return "and nothing tells its error; use more examples"
    needed = family.needed
    if needed is None:
        return "too near the margin to be decided"
    pair = "" if needed is row else f"{needed['strategy_a']} against {needed['strategy_b']}"
    return decides_words(needed, pair) or "too near the margin to be decided"


def _gain(row: Mapping[str, Any], controls: pd.DataFrame) -> list[str]:
    """Return a sentence on what matching gains in a score, from its row of spreads, and what controls explain of it."""
    if np.isnan(row["change_over_none"]):
        return []
    own = controls[(controls["measure"] == row["measure"]) & (controls["init"] == row["init"])]
    parts = []
    for name, change, share in zip(own["control"], own["from_control"], own["share"], strict=True):
        if not np.isnan(change):
            of_that = "" if np.isnan(share) else f", {float(share):.0%} of that"
            parts.append(f"; {_CONTROL_WORDS.get(name, name)}: {gap(float(change), row, signed=True)}{of_that}")
    return [gain_sentence(row) + "".join(parts) + "."]


def _for_whom(families: Sequence[Family]) -> tuple[str, ...]:
    few = list(dict.fromkeys(f"{family.part}s" for family in families if family.about != "strategies"))
    if not few:
        return ()
    return (
        f"With fewer than {LEAST_SEEDS} seeds the {' and '.join(few)} tell about these students, not about others "
        "trained alike.",
    )
