"""A verdict on one kind of measure under one initialisation, over all pairs of matching strategies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from anglekit.comparison.equivalence import Verdict, family_verdict


@dataclass(frozen=True)
class Reference:
    """What a student's score must be better than for its training to have taught it anything.

    Attributes:
        value: the better of the two below.
        chance: the score of always giving the commonest answer; None where nobody knows.
        untrained: the mean score of the students before their first step; None where it was not recorded.
        above_chance: whether any matching student is surely better than `chance`; None: unknown.
        above_untrained: the same of `untrained`.
        reached: what a bar that no student passed is already as good as, within the score's margin, so that longer
            training cannot help: "best", the best value that the score has, or "teacher", whom the untrained students
            equal; None where there is room.
    """

    value: float
    chance: float | None
    untrained: float | None
    above_chance: bool | None = None
    above_untrained: bool | None = None
    reached: Literal["best", "teacher"] | None = None


@dataclass(frozen=True)
class Family:
    """The verdict on one kind of measure under one initialisation, over all pairs of matching strategies.

    Attributes:
        part: "angle" or "score"; scores are the task's own score on every evaluation table.
        init: how the students were initialised.
        verdict: over all pairs and cells; "no verdict" where `told` is False.
        n_seeds: the fewest seeds that two strategies share.
        about: "strategies", or "these students" where there are too few seeds to speak of others.
        key: the row of `Comparison.differences` that decides, or that prevents a decision.
        rows: all rows of the family.
        told: whether the score of any matching strategy is surely better than `reference`; None: unknown.
        reference: chance and the untrained students; None where neither is known.
    """

    part: str
    init: str
    verdict: Verdict
    n_seeds: int
    key: Mapping[str, Any]
    rows: tuple[Mapping[str, Any], ...]
    about: str = "strategies"
    told: bool | None = None
    reference: Reference | None = None

    @property
    def needed(self) -> Mapping[str, Any] | None:
        """The row that says how much data would decide; None where that is not known.

        If pairs already differ by more than the margin, it is the one of them that is closest to being sure. Else it is
        the pair that is farthest from being sure, as all must be.
        """
        beyond = [row for row in self.rows if abs(row["difference"]) > row["margin"]]
        rows = [row for row in (beyond or self.rows) if cost(row) > 0]
        if not rows or any(np.isnan(row["test_low"]) for row in self.rows):
            return None
        return min(rows, key=cost) if beyond else max(rows, key=cost)


def cost(row: Mapping[str, Any]) -> float:
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
    """Return the verdict over families: different if one is, equivalent only if all are."""
    return family_verdict([family.verdict for family in families])
