"""What a Geometry says by itself: are the angles acute, and more acute than by chance?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from anglekit.results.joint_intervals import closed_form_sides, holds_permutation_test, with_joint_intervals
from anglekit.results.overview import summary_rows

Standing = Literal["narrower", "wider", "mixed", "unresolved", "unknown"]

# The share of pairs that must lie on one side of chance before the verdict puts the whole there.
_NEARLY_ALL: Final = 0.9

#: What the two chance levels are called: the student's state of another example, and the closed form.
MISMATCHED, UNRELATED = "mismatched text", "unrelated vectors"


@dataclass(frozen=True)
class ChanceVerdict:
    """The angles of one Geometry beside their chance level.

    Attributes:
        standing: the side of chance on which nearly all pairs of teacher layers lie, at the students' layers.
        sentence: the answer in plain words.
        reasons: the numbers behind the answer, a sentence each.
        rows: `summary_rows` of the Geometry.
        narrower: how many pairs, at all students' layers, surely make a narrower angle than by chance.
        wider: how many surely make a wider one.
        pairs: how many there are.
        null: what chance is: "mismatched text" or "unrelated vectors".
    """

    standing: Standing
    sentence: str
    reasons: tuple[str, ...]
    rows: tuple[Mapping[str, Any], ...]
    narrower: int = 0
    wider: int = 0
    pairs: int = 0
    null: str = UNRELATED


def chance_acute_fraction(null_cosine: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Return the share of acute angles that unrelated vectors would show: Phi(m sqrt(d) / sqrt(1 - m^2)).

    Of two teacher states and a student state of lengths a, b and s with independent isotropic directions in d
    dimensions, the product (T_i - S)(T_k - S) has mean s^2 and standard deviation sqrt((a^2 b^2 + a^2 s^2 + b^2 s^2) /
    d), nearly normal for large d; both follow from the closed-form cosine m = s^2 / sqrt((a^2 + s^2) (b^2 + s^2)).
    States that vary in a few directions only have fewer dimensions than `width`, and a share nearer to a half.

    Args:
        null_cosine: the closed-form chance level m of each pair, any shape.
        width: d, of the teacher's states.
    """
    m = np.clip(np.asarray(null_cosine, dtype=np.float64), 0.0, 1.0)
    with np.errstate(divide="ignore"):
        z = np.where(m < 1.0, m * np.sqrt(width / np.maximum(1.0 - m * m, 1e-300)), np.inf)
    return np.asarray(
        np.where(np.isnan(m), np.nan, 0.5 * (1.0 + np.vectorize(math.erf, otypes=[float])(z / math.sqrt(2.0))))
    )


def against_chance(angles: pd.DataFrame, nulls: pd.DataFrame) -> ChanceVerdict:
    """Return the verdict from these tables of a Geometry; the 95% intervals hold for all pairs together.

    If the analysis holds that null, chance is the student's state of another example, and the intervals come from a
    permutation test. Else it is the closed form for unrelated vectors of the same lengths, whose own error is not
    counted.
    """
    rows = tuple(summary_rows(angles, nulls))
    known = [row for row in rows if row["mean_cosine"] is not None]
    if not known:
        text = "No angle: every pair of teacher layers is degenerate at every student layer."
        return ChanceVerdict("unknown", text, (), rows)
    above, below, total, permuted = _sides(angles, nulls)
    standing = _standing(above, below, total)
    students = len({row["student"] for row in known})
    sides = _side_words(above, below, total, permuted=permuted)
    sentence = (
        f"Seen from {students} student{'' if students == 1 else 's'}, the teacher's layers lie "
        f"{_weighted(known, 'mean_angle_degrees'):.0f}° apart on average over all of them, their layers and pairs, and "
        f"{_weighted(known, 'acute_fraction'):.0%} of the angles are acute; {sides}."
    )
    tested = holds_permutation_test(nulls)
    reasons = tuple(_reasons(known, standing, permuted=permuted, tested=tested))
    return ChanceVerdict(
        standing, sentence, reasons, rows, above, below, total, null=MISMATCHED if permuted else UNRELATED
    )


#: What is counted as a pair.
_EACH: Final = " (each pair counts at every layer of every student)"


def _side_words(above: int, below: int, total: int, *, permuted: bool) -> str:
    what = f"with {MISMATCHED} (the student's state of another example)" if permuted else f"with {UNRELATED}"
    if not above + below:
        return f"none of {total} pairs of teacher layers{_EACH} can be told from what they would be {what}"
    found = [(number, side) for number, side in ((above, "narrower"), (below, "wider")) if number]
    sides = [f"{number} {'is' if number == 1 else 'are'} surely {side}" for number, side in found]
    return (
        f"of {total} pairs of teacher layers{_EACH}, {' and '.join(sides)} than {what} (95% for all of them together)"
    )


def _standing(above: int, below: int, total: int) -> Standing:
    if above >= _NEARLY_ALL * total:
        return "narrower"
    if below >= _NEARLY_ALL * total:
        return "wider"
    return "unresolved" if above + below <= (1 - _NEARLY_ALL) * total else "mixed"


def _sides(angles: pd.DataFrame, nulls: pd.DataFrame) -> tuple[int, int, int, bool]:
    """Count the pairs surely above chance, surely below it, and in all; and tell if chance is the permuted student."""
    permuted = with_joint_intervals(nulls[(nulls["null"] == "permuted-student") & (nulls["n_tokens"] > 0)])
    if len(permuted):
        return int((permuted["joint_low"] > 0).sum()), int((permuted["joint_high"] < 0).sum()), len(permuted), True
    above, below = closed_form_sides(angles)
    return int(above.sum()), int(below.sum()), int((angles["n_tokens"] > 0).sum()), False


def _reasons(known: Sequence[Mapping[str, Any]], standing: Standing, *, permuted: bool, tested: bool) -> list[str]:
    means = sorted(row["mean_angle_degrees"] for row in known)
    obtuse = sum(row["obtuse_pairs"] for row in known)
    reasons = [
        f"The mean angle of a student's layer runs from {means[0]:.1f}° to {means[-1]:.1f}°; "
        + (f"pairs of layers that are obtuse on average: {obtuse}." if obtuse else "no pair is obtuse on average."),
        f"Unrelated vectors of the same lengths would lie {_degrees(_weighted(known, 'null_cosine')):.0f}° apart.",
    ]
    if permuted:
        shuffled = [row for row in known if row["permuted_cosine"] is not None]
        reasons.append(
            f"With {MISMATCHED}, the student's state of another example, the layers would lie "
            f"{_degrees(_weighted(shuffled, 'permuted_cosine')):.0f}° apart."
        )
        reasons.append(
            "A pair is sure by a permutation test of the largest difference among all students, layers and pairs."
            if tested
            else "A pair is sure by Bonferroni's correction for all students, layers and pairs, because this Geometry "
            "is of a version without the permutation test; analyse again for that, which finds more."
        )
        if standing == "wider":
            reasons.append(
                f"Wider than with {MISMATCHED} means that the student stands close to the teacher's layers, between "
                "which the directions open."
            )
    else:
        reasons.append(
            "Pairs are judged by the interval of their mean cosine against the closed form, with Bonferroni's "
            "correction for all pairs; analyse with --nulls default for differences that are paired by example."
        )
    tangential = [row for row in known if np.isfinite(row["mean_tangential_cosine"])]
    if tangential:
        mean = _weighted(tangential, "mean_tangential_cosine")
        alike = ""
        if mean > 0 and permuted and standing != "narrower":
            alike = (
                " The teacher's own layers are partly alike, which every state sees, also one of mismatched text: by "
                "itself that is no sign that the layers pull this student alike."
            )
        reasons.append(
            f"With the student's own direction taken out of both, the mean cosine is {mean:.2f}; for unrelated vectors "
            f"it is 0.{alike}"
        )
    return reasons


def _weighted(rows: Sequence[Mapping[str, Any]], key: str) -> float:
    """Return the mean over students' layers, each weighted by its number of pairs that have an angle."""
    weights = [row["pairs"] - row["undefined_pairs"] for row in rows]
    return float(np.average([row[key] for row in rows], weights=weights))


def _degrees(cosine: float) -> float:
    return float(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))))
