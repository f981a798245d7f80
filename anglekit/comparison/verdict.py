"""What every output says first: the task's own score under each initialisation with its verdict, then the angles.

`compare`, the demo, `reproduce`, `report`, notebooks and json all print this object.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from anglekit.comparison.cells import in_order
from anglekit.comparison.crossed import LEAST_SEEDS
from anglekit.comparison.family import Family, Reference
from anglekit.comparison.wording import gain_sentence, gap, interval_words, level, needed_words, weights_words
from anglekit.display.counts import counted
from anglekit.display.tables import printable
from anglekit.results.scores import StoppedStrategy
from anglekit.vocabulary import given_name, matches_layers

_SCORE_WORDS: Final[Mapping[str, str]] = {
    "f1": "F1",
    "macro_f1": "macro F1",
    "micro_f1": "micro F1",
    "subset_accuracy": "subset accuracy",
    "bleu": "BLEU",
    "chrf": "chrF",
    "matthews": "Matthews' correlation",
    "pearson": "Pearson's correlation",
    "spearman": "Spearman's correlation",
}
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
        line: the first line: the task's own score of the teacher and of every strategy, and the verdicts on it. Where
            no score came it is about the angles, and where nothing could be compared it says why.
        beneath: sentences that explain it: the angles, what matching gains and the controls explain, for whom it holds.
    """

    line: str
    beneath: tuple[str, ...] = ()

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
    line = _score_line(shown, score, by_init, (teacher or {}).get(measure), stopped)
    beneath = [_angle_line(of_angles, "The angles, which may explain it")] if of_angles else []
    for _, rows in spreads[spreads["measure"] == measure].iterrows():
        beneath += _gain({str(key): value for key, value in rows.to_dict().items()}, controls)
    if "by_example" in shown and not shown["by_example"].all():
        why = "Without predictions by example"
        beneath.append(f"{why}, intervals are over seeds alone and hold on this validation table.")
    return Headline(printable(line), tuple(map(printable, [*beneath, *_for_whom(families)])))


def score_words(score: str) -> str:
    """Return a score's name as the field writes it."""
    return _SCORE_WORDS.get(score, score.replace("_", " "))


def _score_line(
    shown: pd.DataFrame,
    score: str,
    families: Mapping[str, Family],
    teacher: float | None,
    stopped: Sequence[StoppedStrategy] = (),
) -> str:
    """Return the line on one score on one table, from its levels, and the families by initialisation."""
    table = str(shown["data"].iloc[0])
    margins = [float(row["margin"]) for one in families.values() for row in one.rows if row["score"] == score]
    unit = {"part": "score", "score": score, "margin": next(iter(margins), 0.01)}
    parts = [] if teacher is None else [f"teacher {level(teacher, unit)}"]
    for init, rows in shown.groupby("init", sort=False):
        means = dict(zip(rows["strategy"], rows["mean"], strict=True))
        named = ", ".join(f"{name} {level(float(means[name]), unit)}" for name in in_order(means))
        family = families.get(str(init))
        verdict = _uncompared(list(means)) if family is None else _verdict_words(family, score=score, table=table)
        # Without them, "equivalent" would read as if selection did not matter.
        without = ", ".join(one.words for one in stopped if one.init == init)
        left_out = f" (without what was stopped as hopeless: {without})" if without else ""
        parts.append(f"{_before(str(init))}{named}: {verdict}{left_out}")
    return f"On {score_words(score)} ({_basis(shown, table)}): {'; '.join(parts)}."


def _uncompared(strategies: Sequence[str]) -> str:
    matching = [name for name in strategies if matches_layers(name)]
    if len(matching) > 1:
        return "no two matching strategies share a seed, so none is compared"
    came = f"only {matching[0]}" if matching else "no strategy"
    return f"{came} matches layers, so nothing is compared"


def _basis(rows: pd.DataFrame, table: str) -> str:
    """Return in words on what a score rests: `validation: 2,000 examples, 3 seeds`."""
    counts = {int(one) for one in rows["n_examples"].dropna()}
    named = f"{table}: " if table else ""
    examples = f"{named}{counted(min(counts), 'example')}" if counts else table
    seeds = sorted({int(one) for one in rows["n_seeds"]})
    few = f"{seeds[0]} to " if len(seeds) > 1 else ""
    whom = f", about these students, as it takes {LEAST_SEEDS} for others" if seeds[-1] < LEAST_SEEDS else ""
    return ", ".join(part for part in (examples, f"{few}{counted(seeds[-1], 'seed')}") if part) + whom


def _before(init: str) -> str:
    return f"{weights}: " if (weights := weights_words(init)) else ""


def _angle_line(families: Sequence[Family], subject: str, strategies: Sequence[str] = ()) -> str:
    if not families:
        return f"{subject}: {_uncompared(strategies)}."
    counts = [int(row["n_examples"]) for family in families for row in family.rows]
    seeds = min(family.n_seeds for family in families)
    parts = [f"{_before(family.init)}{_verdict_words(family)}" for family in families]
    return f"{subject} ({counted(min(counts), 'example')}, {counted(seeds, 'seed')}): {'; '.join(parts)}."


def _verdict_words(family: Family, *, score: str | None = None, table: str | None = None) -> str:
    """Return a family's verdict in words; what its deciding row is about is named where it is not score and table."""
    row = family.key
    if family.told is False and family.part == "angle":
        if family.reference is not None and family.reference.reached is not None:
            return "no verdict, as nothing shows that the matched students have learned anything"
        return "no verdict, as the matched students have learned nothing"
    if family.told is False and family.reference is not None:
        known = _reference_words(family.reference, row, family.init)
        return f"no verdict, as no matched student is surely better than {known}; {_ADVICE[family.reference.reached]}"
    if family.verdict == "equivalent":
        within = dict.fromkeys(gap(float(one["margin"]), one) for one in family.rows)
        return f"equivalent within {' and '.join(within)}"
    named = [f"at {row['stream']} layer {int(row['vertex'])}"] if family.part == "angle" else []
    if family.part == "score":
        named += [f"in {score_words(row['score'])}"] if row["score"] != score else []
        named += [f"on {row['data']}"] if row["data"] != table else []
    a, b = row["strategy_a"], row["strategy_b"]
    high, low = (b, a) if row["difference"] < 0 else (a, b)
    pair = " ".join([f"{high} is {gap(abs(float(row['difference'])), row)} above {low}", *named])
    if family.verdict == "different":
        surely = max(float(row["joint_low"]), -float(row["joint_high"]))
        return f"different ({pair}, surely {gap(surely, row)} or more)"
    return f"undecided ({pair}, {_open(family)})"


def _reference_words(reference: Reference, row: Mapping[str, Any], init: str) -> str:
    """Return the bars that no matched student is surely better than, in words."""
    # A student that was there before may have learned long ago.
    before = "the untrained students" if given_name(init) is None else "the student before its training"
    bars = (
        ("chance", reference.chance, reference.above_chance),
        (before, reference.untrained, reference.above_untrained),
    )
    return " and ".join(
        f"{name} ({level(value, row)})" for name, value, above in bars if value is not None and not above
    )


def _open(family: Family) -> str:
    """Return why a family is undecided, and what would decide it."""
    row = family.key
    if np.isnan(row["test_low"]):
        if family.part == "score":
            return f"and nothing tells its error; train at least {LEAST_SEEDS} seeds: anglekit sweep --seeds 0-2"
        return "and nothing tells its error; use more examples"
    ends = {"low": row["test_low"], "high": row["test_high"]}
    if row["difference"] < 0:  # said of the higher minus the lower
        ends = {"low": -row["test_high"], "high": -row["test_low"]}
    needed = family.needed
    words = "" if needed is None else needed_words(needed)
    about = "" if words.startswith("more") else "about "
    takes = f"{about}{words} would decide" if words else "too near the margin to be decided"
    if needed is not None and words and needed is not row:
        takes += f" {needed['strategy_a']} against {needed['strategy_b']}"
    interval = interval_words({**row, **ends}, "low", "high")
    return f"its 90% interval {interval}, the margin {gap(row['margin'], row)}; {takes}"


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
