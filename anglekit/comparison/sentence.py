"""The answer of a comparison in plain words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from anglekit.comparison.equivalence import Verdict
from anglekit.results.document import UNRECORDED


@dataclass(frozen=True)
class Family:
    """The verdict on one kind of measure under one initialisation, over all pairs of matching strategies.

    Attributes:
        part: "angle" or "score".
        init: how the students were initialised.
        verdict: over all pairs and cells.
        n_seeds: the fewest seeds that were paired; with 1, angles speak only of these students.
        key: the row of `Comparison.differences` that decides, or that prevents a decision.
        rows: all rows of the family.
    """

    part: str
    init: str
    verdict: Verdict
    n_seeds: int
    key: Mapping[str, Any]
    rows: tuple[Mapping[str, Any], ...]

    @property
    def needed(self) -> Mapping[str, Any] | None:
        """The row that says how much data would decide; None where that is not known.

        If pairs already differ by more than the margin, it is the one of them that is closest to being sure. Else it is
        the pair that is farthest from being sure, as all must be.
        """
        beyond = [row for row in self.rows if abs(row["difference"]) > row["margin"]]
        rows = [row for row in (beyond or self.rows) if _cost(row) > 0]
        if not rows or any(np.isnan(row["test_low"]) for row in self.rows):
            return None
        return min(rows, key=_cost) if beyond else max(rows, key=_cost)


def _cost(row: Mapping[str, Any]) -> float:
    """Return how many times more data a row needs; infinite where no amount is enough, 0 where it is decided."""
    if row["verdict"] != "undecided":
        return 0.0
    ratios = [
        row[needed] / row[now]
        for needed, now in (("needed_seeds", "n_seeds"), ("needed_examples", "n_examples"))
        if row[needed] is not None and row[now]
    ]
    ratios += [] if row["needed_factor"] is None else [row["needed_factor"]]
    return float(min(ratios, default=np.inf))


def overall_verdict(families: Sequence[Family]) -> Verdict:
    """Return the verdict over all families: different if one is, equivalent only if all are."""
    verdicts = {family.verdict for family in families}
    if "different" in verdicts:
        return "different"
    return "equivalent" if verdicts == {"equivalent"} else "undecided"


def sentence(verdict: Verdict, families: Sequence[Family]) -> str:
    """Return the answer in one sentence: the verdict over all families, and what decides or prevents it."""
    if not families:
        return (
            "Undecided whether layer selection matters here: under no initialisation did two matching strategies come "
            "that share a seed; add another strategy (anglekit sweep)."
        )
    telling = [family for family in families if family.verdict == verdict]
    where = _subject(telling)
    if verdict == "equivalent":
        margins = " and ".join(_margins(families))
        return f"Layer selection does not matter here{where}: any two matching strategies are equivalent, {margins}."
    first = max(telling, key=_weight)
    left = [part for part in _PARTS if _of(families, part) and not _of(telling, part)]
    rest = "".join(f"; for the {part}s it is {overall_verdict(_of(families, part))}" for part in left)
    if verdict == "different":
        return f"Layer selection matters here{where}: {_different(first, init_words(first.init))}{rest}."
    return f"Undecided whether layer selection matters here{where}: {_undecided(first, init_words(first.init))}{rest}."


_PARTS = ("angle", "score")


def _of(families: Sequence[Family], part: str) -> list[Family]:
    return [family for family in families if family.part == part]


def _subject(families: Sequence[Family]) -> str:
    """Return what verdicts are about: one kind of measure or both; strategies, or only students of one seed."""
    parts = [part for part in _PARTS if _of(families, part)]
    if len(parts) == len(_PARTS):
        return " (angles: of these students, one seed each)" if _single(families) else ""
    return f" for the {parts[0]}s" + (" of these students (one seed each)" if _single(families) else "")


def _single(families: Sequence[Family]) -> bool:
    return any(family.part == "angle" and family.n_seeds == 1 for family in families)


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
        lines.append("The angles are of one seed each: they speak of these students, not of others trained alike.")
    return tuple(lines)


def _weight(family: Family) -> float:
    """Return a family's weight in the answer: how far it is beyond its margin, or how much data it lacks."""
    row = family.key
    if family.verdict == "different":
        return float(max(row["joint_low"], -row["joint_high"]) / row["margin"])
    return np.inf if family.needed is None else _cost(family.needed)


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
    if np.isnan(row["test_low"]):
        one, remedy = "example", "use more examples"
        if family.part == "score":
            one, remedy = "seed", "train at least 3 seeds (anglekit sweep --seeds 0-2)"
        return f"{_pair(row, init)}, from one {one}, which tells nothing of its error; {remedy}"
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
