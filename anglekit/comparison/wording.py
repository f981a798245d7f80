"""How the numbers of a comparison are put into words: angles, scores, differences, intervals, what would decide."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from anglekit.results.document import UNRECORDED
from anglekit.vocabulary import SCORE_RANGES, given_name

#: Scores that are shares: written in percent, and differences between them in points.
SHARES = frozenset(name for name, ends in SCORE_RANGES.items() if ends == (0.0, 1.0))


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
    """Return an interval of a row's differences in words, such as `-0.3° to 1.2°` or `-0.4 to 2.8 points`."""
    if np.isnan(row[low]):
        return "unknown"
    return f"{_number(float(row[low]), row)} to {gap(float(row[high]), row)}"


def weights_words(init: str) -> str:
    """Return an initialisation in words: `new weights`, `student pruned`; empty where it is not recorded.

    The weights that are drawn at random are not called so: a strategy and a control have that word in their names.
    """
    if (name := given_name(init)) is not None:
        return f"student {name}"
    known = {"teacher": "the teacher's weights", "random": "new weights", UNRECORDED: ""}
    return known.get(init, f"{init} weights")


#: So many times the data that nobody will have it.
_MANY = 100


def needed_words(row: Mapping[str, Any]) -> str:
    """Return in words how much data would decide a row, if its difference stays as it is."""
    options = [
        f"{int(row[f'needed_{unit}']):,} {unit} (now {int(row[f'n_{unit}']):,})"
        for unit in ("seeds", "examples")
        if not pd.isna(row[f"needed_{unit}"])
    ]
    if not pd.isna(row["needed_factor"]):
        times = f"{row['needed_factor']:.1f}" if row["needed_factor"] < _MANY else f"more than {_MANY}"
        options.append(f"{times} times the seeds and examples")
    return " or ".join(options)


def gain_sentence(row: Mapping[str, Any]) -> str:
    """Return, of a row of `Comparison.spreads`, what matching gains over none and how far strategies spread."""
    start = f", from {weights}," if (weights := weights_words(str(row["init"]))) else ""
    error = "" if np.isnan(row["change_low"]) else f" ({interval_words(row, 'change_low', 'change_high')})"
    spread = "" if np.isnan(row["spread"]) else f", and strategies spread over {gap(row['spread'], row)}"
    change = gap(row["change_over_none"], row, signed=True)
    return f"In {row['measure']}{start} matching gains {change} over none{error}{spread}"
