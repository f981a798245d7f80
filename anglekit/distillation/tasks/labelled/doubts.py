"""What speaks against a teacher's answers to labelled examples: worse than chance, another order, another scale.

All tests are one-sided and leave chance a small place: a teacher that knows nothing is not doubted for answers that one
that knows nothing gives by luck.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from anglekit.results.correlations import pearson

Numbers = NDArray[np.float64]

#: Fewer examples tell nothing.
_LEAST: Final = 8
#: So many standard errors are no chance: of one comparison, and of the best of many orders or answers.
_SURE, _SURE_OF_BEST = 2.0, 3.0


def doubts_about_classes(predicted: NDArray[np.int64], true: NDArray[np.int64], names: Sequence[str]) -> list[str]:
    """Return what speaks against predicted classes, (examples,), where `names` are the classes.

    Another order of the labels is found on one half of the examples and tried on the other, so that it cannot fit by
    chance, however many classes there are.
    """
    number = len(true)
    if number < _LEAST:
        return []
    right = predicted == true
    chance = np.bincount(true).max() / number

    def renamed(rows: NDArray[np.bool_]) -> NDArray[np.intp]:
        counts = np.zeros((len(names), len(names)))
        np.add.at(counts, (predicted[rows], true[rows]), 1.0)
        return linear_sum_assignment(counts, maximize=True)[1]

    even = np.arange(number) % 2 == 0
    right_renamed = np.where(even, renamed(~even)[predicted], renamed(even)[predicted]) == true
    gain = right_renamed.astype(np.float64) - right
    if _surely_above(gain, 0.0, _SURE_OF_BEST) and _surely_above(right_renamed.astype(np.float64), chance, _SURE):
        order = renamed(np.ones(number, dtype=np.bool_))
        return [
            f"the teacher answers {right.mean():.0%} of {number} training examples as they are labelled, and "
            f"{right_renamed.mean():.0%} if its labels are called otherwise: they are probably in another order than "
            f"the data's; if so, give --label-map {_map(order, names)}"
        ]
    if right.mean() + _SURE_OF_BEST * np.sqrt(chance * (1.0 - chance) / number) < chance:
        return [
            f"the teacher answers {right.mean():.0%} of {number} training examples as they are labelled, and one "
            f"answer to all of them {chance:.0%}: it may be a teacher of another task, or its labels mean "
            "something else (--label-map)"
        ]
    return []


def doubts_about_labels(logits: Numbers, true: Numbers, names: Sequence[str]) -> list[str]:
    """Return what speaks against the logits of several labels, (examples, labels), where `names` are the labels."""
    number, labels = true.shape
    if number < 2 * _LEAST:
        return []
    even = np.arange(number) % 2 == 0
    halves = [_correlations(logits[rows], true[rows]) for rows in (even, ~even)]
    own = float(np.mean([np.diag(half).mean() for half in halves]))
    orders = [linear_sum_assignment(half, maximize=True)[1] for half in reversed(halves)]
    renamed = float(
        np.mean([half[np.arange(labels), order].mean() for half, order in zip(halves, orders, strict=True)])
    )
    unit = 1.0 / np.sqrt(number * labels)
    if own < -_SURE_OF_BEST * unit and -own > renamed:
        return [
            f"over {number} training examples the teacher's outputs correlate with their labels by {own:.2f}: it gives "
            "labels where they are not"
        ]
    if renamed - own > 2.0 * _SURE_OF_BEST * unit and renamed > _SURE_OF_BEST * unit:
        order = linear_sum_assignment(_correlations(logits, true), maximize=True)[1]
        return [
            f"over {number} training examples the teacher's outputs correlate with their labels by {own:.2f}, and by "
            f"{renamed:.2f} if they are called otherwise: they are probably in another order than the data's; if so, "
            f"give --label-map {_map(order, names)}"
        ]
    return []


def doubts_about_numbers(predicted: Numbers, true: Numbers) -> list[str]:
    """Return what speaks against predicted numbers, (examples,)."""
    number = len(true)
    if number < _LEAST:
        return []
    correlation = pearson(predicted, true, np.ones(number))[0]
    ranges = (
        f"its numbers run from {predicted.min():.3g} to {predicted.max():.3g} and the labels from {true.min():.3g} to "
        f"{true.max():.3g}"
    )
    if correlation < -_SURE / np.sqrt(number):
        return [
            f"over {number} training examples the teacher's numbers fall as the labels rise (Pearson's correlation "
            f"{correlation:.2f}): turn the labels round, or give a teacher of this task"
        ]
    worse = (predicted - true) ** 2 - (true.mean() - true) ** 2
    if not _surely_above(worse, 0.0, _SURE):
        return []
    if correlation > _SURE_OF_BEST / np.sqrt(number):
        return [
            f"the teacher's numbers are on another scale: {ranges}, at a correlation of {correlation:.2f}; labels and "
            "teacher pull the student to different numbers: bring the labels to the teacher's scale, or fine-tune one"
        ]
    return [
        f"over {number} training examples one number for all is nearer to the labels than the teacher's, at a "
        f"correlation of {correlation:.2f} ({ranges}): it may be a teacher of another task"
    ]


def _surely_above(values: NDArray[Any], level: float, errors: float) -> bool:
    """Return whether the mean of values is so many standard errors above a level."""
    error = values.std(ddof=1) / np.sqrt(len(values))
    return bool(values.mean() - level > errors * error and values.mean() > level)


def _correlations(logits: Numbers, true: Numbers) -> Numbers:
    """Return the correlation of each output with each label, (labels, labels); 0 where one is constant."""
    sides = [side - side.mean(axis=0) for side in (logits, true)]
    lengths = [np.sqrt((side**2).sum(axis=0)) for side in sides]
    units = [side / np.where(length > 0.0, length, np.inf) for side, length in zip(sides, lengths, strict=True)]
    found: Numbers = units[0].T @ units[1]
    return found


def _map(order: Sequence[int] | NDArray[np.intp], names: Sequence[str]) -> str:
    """Return what --label-map says of an order: what each output, by its number, is called in the data."""
    called = [names[place] for place in order]
    quoted = [f'"{number}={name}"' if "," in name else f"{number}={name}" for number, name in enumerate(called)]
    return ",".join(quoted)
