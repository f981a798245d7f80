"""The answer of a comparison in plain words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from anglekit.comparison.crossed import LEAST_SEEDS
from anglekit.comparison.equivalence import Verdict
from anglekit.comparison.family import Family, cost, overall_verdict
from anglekit.results.document import UNRECORDED


def sentence(verdict: Verdict, families: Sequence[Family]) -> str:
    """Return the answer in one sentence: the verdict over all families, and what decides or prevents it."""
    if not families:
        return (
            "Undecided whether layer selection matters here: under no initialisation did two matching strategies come "
            "that share a seed; add another strategy (anglekit sweep)."
        )
    leading = _of(families, "score") or list(families)
    telling = [family for family in leading if family.verdict == verdict]
    where = _subject(leading)
    rest = "".join(
        f"; for the {part}s it is {overall_verdict(own)}"
        for part in _PARTS
        if (own := _of(families, part)) and own[0] not in leading
    )
    if verdict == "equivalent":
        margins = " and ".join(_margins(leading))
        return (
            f"Layer selection does not matter here{where}: any two matching strategies are equivalent, {margins}{rest}."
        )
    first = max(telling, key=_weight)
    if verdict == "different":
        return f"Layer selection matters here{where}: {_different(first, init_words(first.init))}{rest}."
    return f"Undecided whether layer selection matters here{where}: {_undecided(first, init_words(first.init))}{rest}."


_PARTS = ("angle", "score")


def _of(families: Sequence[Family], part: str) -> list[Family]:
    return [family for family in families if family.part == part]


def _subject(families: Sequence[Family]) -> str:
    """Return what a verdict is about: one kind of measure; strategies, or only these students."""
    return f" for the {families[0].part}s" + (" of these students" if _single(families) else "")


def _single(families: Sequence[Family]) -> bool:
    return any(family.about != "strategies" for family in families)


def reasons(families: Sequence[Family], spreads: pd.DataFrame) -> tuple[str, ...]:
    """Return sentences: one for each family, how far scores spread beside their change over none, for whom it holds."""
    lines = []
    for family in families:
        name = f"{family.part}s{init_words(family.init)}"
        if family.verdict == "equivalent":
            text = f"any two are equivalent, {' and '.join(_margins([family], inits=False))}"
        else:
            text = _different(family, "") if family.verdict == "different" else _undecided(family, "")
        lines.append(f"{name}: {family.verdict}; {text}.")
    lines += _gains(spreads)
    if _single(families):
        lines.append(f"With fewer than {LEAST_SEEDS} seeds this speaks of these students, not of others trained alike.")
    return tuple(lines)


def _weight(family: Family) -> float:
    """Return a family's weight in the answer: how far it is beyond its margin, or how much data it lacks."""
    row = family.key
    if family.verdict == "different":
        return float(max(row["joint_low"], -row["joint_high"]) / row["margin"])
    return np.inf if family.needed is None else cost(family.needed)


def amount(value: float, part: str, margin: float, *, signed: bool = False) -> str:
    """Return a difference or a score with as many digits as its margin calls for."""
    digits = max(1, 1 - int(np.floor(np.log10(margin))))
    text = f"{value:{'+' if signed else ''}z.{digits}f}"  # z: no minus before a rounded 0
    return f"{text}°" if part == "angle" else text


def interval_words(row: Mapping[str, Any], low: str, high: str) -> str:
    """Return an interval of a row in words, such as `-0.3° to 1.2°`."""
    if np.isnan(row[low]):
        return "unknown"
    return " to ".join(amount(float(row[end]), row["part"], row["margin"]) for end in (low, high))


def init_words(init: str) -> str:
    """Return an initialisation in the words that follow a measure."""
    return "" if init == UNRECORDED else f" ({init} initialisation)"


def needed_words(row: Mapping[str, Any]) -> str:
    """Return in words how much data would decide a row, if its difference stays as it is."""
    options = [
        f"{int(row[f'needed_{unit}'])} {unit} (now {int(row[f'n_{unit}'])})"
        for unit in ("seeds", "examples")
        if not pd.isna(row[f"needed_{unit}"])
    ]
    if not pd.isna(row["needed_factor"]):
        options.append(f"{row['needed_factor']:.1f} times the seeds and examples")
    return " or ".join(options)


def _margins(families: Sequence[Family], *, inits: bool = True) -> list[str]:
    found: dict[str, list[str]] = {}
    for family in families:
        for row in family.rows:
            name = "in angle" if family.part == "angle" else f"in {row['score']}"
            within = f"within {amount(row['margin'], row['part'], row['margin'])} {name}"
            known = found.setdefault(within, [])
            if inits and family.init not in (*known, UNRECORDED):
                known.append(family.init)
    return [f"{within} ({' and '.join(known)} initialisation)" if known else within for within, known in found.items()]


def _pair(row: Mapping[str, Any], init: str) -> str:
    size = amount(row["difference"], row["part"], row["margin"])
    return f"{row['strategy_a']} minus {row['strategy_b']} is {size} in {row['measure']}{init}"


def _different(family: Family, init: str) -> str:
    row = family.key
    surely = amount(max(row["joint_low"], -row["joint_high"]), row["part"], row["margin"])
    margin = amount(row["margin"], row["part"], row["margin"])
    return f"{_pair(row, init)}, surely {surely} or more away from 0, beyond the margin of {margin}"


def _undecided(family: Family, init: str) -> str:
    row = family.key
    if family.told is False and family.reference is not None:
        return (
            "the students cannot be told from chance or from the untrained model "
            f"({amount(family.reference.value, family.part, row['margin'])}); train them longer"
        )
    if np.isnan(row["test_low"]):
        remedy = (
            "use more examples"
            if family.part == "angle"
            else (f"train at least {LEAST_SEEDS} seeds (anglekit sweep --seeds 0-2)")
        )
        return f"{_pair(row, init)}, and nothing tells its error; {remedy}"
    margin = amount(row["margin"], row["part"], row["margin"])
    words = "" if family.needed is None else needed_words(family.needed)
    takes = f"if differences stay, about {words} would decide" if words else "it is too near the margin to be decided"
    interval = interval_words(row, "test_low", "test_high")
    return f"{_pair(row, init)}, its interval of {interval} reaches over the margin of {margin}; {takes}"


def _gains(spreads: pd.DataFrame) -> list[str]:
    """Return sentences that set the spread of scores between matching strategies beside their change over none."""
    sentences = []
    known = spreads[(spreads["part"] == "score") & spreads["spread"].notna() & spreads["change_over_none"].notna()]
    for init, rows in known.groupby("init", sort=False):
        row = {str(key): value for key, value in rows.iloc[0].to_dict().items()}
        spread = amount(row["spread"], "score", row["margin"])
        change = amount(row["change_over_none"], "score", row["margin"], signed=True)
        error = "" if np.isnan(row["change_low"]) else f" ({interval_words(row, 'change_low', 'change_high')})"
        sentences.append(
            f"In {row['measure']}{init_words(str(init))} matching strategies spread over {spread}, and matching "
            f"changes it by {change}{error} over none."
        )
    return sentences
