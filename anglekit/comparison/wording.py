"""How the numbers of a comparison are put into words: angles, scores, differences, intervals, what would decide."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd

from anglekit.comparison.crossed import LEAST_SEEDS
from anglekit.results.document import UNRECORDED
from anglekit.vocabulary import SCORE_RANGES, given_name

#: Scores that are shares: written in percent, and differences between them in points.
SHARES = frozenset(name for name, ends in SCORE_RANGES.items() if ends == (0.0, 1.0))

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


def score_words(score: str) -> str:
    """Return a score's name as the field writes it."""
    return _SCORE_WORDS.get(score, score.replace("_", " "))


def level(value: float, row: Mapping[str, Any]) -> str:
    """Return an angle or a score with its unit, and as many digits as its margin calls for: `61.3°`, `92.9%`, `38.2`.

    `row` has the columns `part`, `score` and `margin`.
    """
    text, share = _number(value, row), row["part"] == "score" and row["score"] in SHARES
    return f"{text}%" if share else text


def gap(value: float, row: Mapping[str, Any], *, signed: bool = False) -> str:
    """Return a difference between angles or scores with its unit: `2.3°`, `30.8 points`, `1.4`; `row` as of `level`."""
    text, share = _number(value, row, signed=signed), row["part"] == "score" and row["score"] in SHARES
    return f"{text} points" if share else text


def _number(value: float, row: Mapping[str, Any], *, signed: bool = False) -> str:
    scale = 100.0 if row["part"] == "score" and row["score"] in SHARES else 1.0
    digits = max(1, 1 - int(np.floor(np.log10(scale * row["margin"]))))
    text = f"{scale * value:{'+' if signed else ''}z.{digits}f}"  # z: no minus before a rounded 0
    return f"{text}°" if row["part"] == "angle" else text


def interval_words(row: Mapping[str, Any], low: str, high: str) -> str:
    """Return an interval of a row's differences in words, such as `-0.3° to 1.2°` or `-0.4 to 2.8 points`.

    The intervals are of Student's t, which knows no bounds: what no difference of two shares can be is cut off, and the
    words say so.
    """
    if np.isnan(row[low]):
        return "unknown"
    ends = [float(row[low]), float(row[high])]
    cut = ""
    if row["part"] == "score" and row["score"] in SHARES and (ends[0] < -1.0 or ends[1] > 1.0):
        ends, cut = [max(ends[0], -1.0), min(ends[1], 1.0)], " (cut at 100)"
    return f"{_number(ends[0], row)} to {gap(ends[1], row)}{cut}"


def listed(names: Sequence[str]) -> str:
    """Return names in a list: `a, b and c`."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def weights_words(init: str) -> str:
    """Return an initialisation in words: `new weights`, `student pruned`; empty where it is not recorded.

    The weights that are drawn at random are not called so: a strategy and a control have that word in their names.
    """
    if (name := given_name(init)) is not None:
        return f"student {name}"
    known = {"teacher": "the teacher's weights", "random": "new weights", UNRECORDED: ""}
    return known.get(init, f"{init} weights")


def whose_words(init: str) -> str:
    """Return an initialisation in words, for a note about students: as `weights_words`, but never empty."""
    return weights_words(init) or "weights unrecorded"


#: So many times the data that nobody will have it.
_MANY = 100


def needed_words(row: Mapping[str, Any]) -> str:
    """Return in words how much data would decide a row, if its difference stays as it is; empty where nobody knows.

    Large counts have two digits, as they are no more certain than that. With too few seeds to speak of others than
    these students, the words say that examples decide between these alone.
    """
    options = [
        f"{_two_digits(float(row[f'needed_{unit}'])):,} {unit} (now {int(row[f'n_{unit}']):,})"
        for unit in ("seeds", "examples")
        if not pd.isna(row[f"needed_{unit}"])
    ]
    if not pd.isna(row["needed_factor"]):
        times = f"{row['needed_factor']:.1f}" if row["needed_factor"] < _MANY else f"more than {_MANY}"
        options.append(f"{times} times the seeds and examples")
    words = " or ".join(options)
    return f"{words}, between these students" if words and few_seeds(row) else words


def few_seeds(row: Mapping[str, Any]) -> bool:
    """Whether a row rests on too few seeds to speak of others than these students."""
    return int(row["n_seeds"]) < LEAST_SEEDS


def decides_words(row: Mapping[str, Any], what: str = "") -> str:
    """Return the clause on how much data would decide a row, such as `about 13 seeds (now 3) would decide`.

    Args:
        row: of `Comparison.differences`.
        what: the pair that it would decide, where that is not clear.

    Returns:
        The clause; empty where nobody knows. With too few seeds it says first how many it takes, whatever examples do.
    """
    words = needed_words(row).removesuffix(", between these students")
    about = "" if words.startswith("more") else "about "
    decide = f"{about}{words} would decide{f' {what}' if what else ''}" if words else ""
    if not few_seeds(row):
        return decide
    seeds = f"for others than these students it takes at least {LEAST_SEEDS} seeds (now {int(row['n_seeds'])})"
    return f"{seeds}; between these, {decide}" if decide else ""


def _two_digits(count: float) -> int:
    """Return a count rounded up to two digits, so that it is still enough."""
    whole: int = math.ceil(count)
    step: int = 10 ** max(len(str(whole)) - 2, 0)
    return -(-whole // step) * step


def gain_sentence(row: Mapping[str, Any]) -> str:
    """Return, of a row of `Comparison.spreads`, what matching gains over none and how far strategies spread."""
    start = f", from {weights}," if (weights := weights_words(str(row["init"]))) else ""
    error = "" if np.isnan(row["change_low"]) else f" (95%: {interval_words(row, 'change_low', 'change_high')})"
    spread = "" if np.isnan(row["spread"]) else f", and strategies spread over {gap(row['spread'], row)}"
    change = gap(row["change_over_none"], row, signed=True)
    return f"In {row['measure']}{start} matching gains {change} over none{error}{spread}"
