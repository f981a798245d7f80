"""Which strategies of a sweep surely end below the best of them, looked at again and again while they train.

The students of one initialisation are looked at together, at every validation before the last step. A strategy is its
students of all seeds: their scores of each example are averaged. If seeds were stopped one by one, the seeds left of a
strategy would be its lucky ones.

**The rule.** Let d be, example by example, the score of the best strategy at this look minus that of strategy a. For a
stretch of training that lies behind, and two strategies i and k, let g be what i gained on k in it: the change of i's
score minus that of k's. Strategy a is stopped if, for every earlier stretch with as much training as still lies ahead
and for every i and k, the mean of d - g over all examples like these is surely above the margin; and so is that of d.

**What it assumes.** That in the training ahead no strategy makes up more on another than some strategy made up on
another in as much training before. Being below now says nothing about the end without such an assumption, and this one
is wrong where a student suddenly learns what none had learned before. Training is measured by the sum of the learning
rates, which is what bounds how far AdamW can move a weight: late steps of a falling schedule change little. A gain is
taken in proportion where more training lies ahead than behind, so that little is stopped early, and where two looks are
farther apart than the end, as nobody saw how fast it was between them.

**Why it is valid under repeated looking.** Each test is valid for any number of examples (`surely_above`). Its level is
`LEVEL` divided by the number of looks, of ordered pairs of strategies, and of initialisations, so that the probability
of stopping any strategy that ends within the margin of the best, at any look, is at most `LEVEL` if the assumption
holds. Confidence sequences (Howard et al. 2021, arXiv 1810.08240) are about one parameter and ever more data; here the
looks are at the same examples and the models change, so that nothing is a martingale over looks. The number of looks is
known, and a union over them holds whatever their dependence. The true largest g is one of those tested, and all must
pass, so that the search for it costs no level (Berger 1982, intersection-union tests).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from anglekit.errors import InputError

Array = NDArray[np.float64]

#: What asks for it.
OPTION: Final = "--stop-hopeless"
#: The probability of stopping any strategy of a sweep wrongly.
LEVEL: Final = 0.05
#: A strategy that ends less than this below the best, in the score's unit, is no worse than it: one point.
MARGIN: Final = 0.01
# Shares of the largest bet that cannot lose everything; small ones win on small differences between many examples.
_BETS: Final = np.geomspace(1 / 40, 0.98, 8)
_MOST_AT_ONCE: Final = 64


@dataclass(frozen=True)
class Judgement:
    """What one look says of the strategies that still train.

    Attributes:
        best: the strategy with the highest mean score at this look.
        means: the mean score of each, over seeds and examples.
        gain: the most that any strategy gained on another in a stretch with as much training as lies ahead, in these
            examples.
        hopeless: those that surely end more than the margin below the best, in the order of the strategies.
    """

    best: str
    means: Mapping[str, float]
    gain: float
    hopeless: tuple[str, ...]


def surely_above(values: Array, threshold: float, *, level: float, reach: float = 1.0) -> NDArray[np.bool_]:
    """Return whether the mean of a population is surely above a threshold, from independent draws of it.

    If it is not, the answer is True with probability `level` at most, for any number of draws: the capital of bets on
    each draw being above the threshold, each a share of what is left, grows to 1 / `level` with that probability at
    most (Waudby-Smith and Ramdas 2024, arXiv 2010.09686). Bets of several sizes are made at once, each with its own
    part of the capital.

    Args:
        values: between -`reach` and `reach`, (..., examples); each row is a test of its own.
        threshold: above -`reach`.
        level: of each test.
        reach: the largest size of a value.
    """
    excess = (np.asarray(values) - threshold) / (threshold + reach)
    capital = np.stack([np.log1p(bet * excess).sum(axis=-1) for bet in _BETS])
    return np.asarray(np.logaddexp.reduce(capital, axis=0) - np.log(len(_BETS)) >= -np.log(level))


def level_of_a_test(looks: int, pairs: int) -> float:
    """Return the level of one test: `LEVEL` shared by all looks and all ordered pairs of strategies that may meet."""
    return LEVEL / max(1, looks * pairs)


def judge(curves: Mapping[str, Array], training: Array, end: float, *, level: float) -> Judgement:
    """Return what the latest look says.

    Args:
        curves: by strategy, each example's score at each look so far, between 0 and 1, (looks, examples). A strategy
            that was stopped has fewer looks than the others; it is judged no more, and what it gained still counts.
        training: how much training lies behind each look, (looks,), rising.
        end: how much there is in all.
        level: of each test, as `level_of_a_test` gives it.
    """
    now = len(training) - 1
    present = [name for name, curve in curves.items() if len(curve) == len(training)]
    means = {name: float(curves[name][now].mean()) for name in present}
    best = max(present, key=lambda name: means[name])
    gains = _gains(curves, training, end - float(training[now]))
    largest = max((gain.mean for gain in gains), default=0.0)
    hopeless: list[str] = []
    for name in present:
        behind = curves[best][now] - curves[name][now]
        if not gains or behind.mean() - largest <= MARGIN or not surely_above(behind, MARGIN, level=level):
            continue
        if all(_surely_beyond(behind, one, curves, level) for one in _parts(gains)):
            hopeless.append(name)
    return Judgement(best, means, max(largest, 0.0), tuple(hopeless))


def _parts(gains: Sequence[_Gain]) -> Iterator[Sequence[_Gain]]:
    """Yield more and more gains at a time: the first ones are the first to fail, the others are quicker together."""
    first, size = 0, 1
    while first < len(gains):
        yield gains[first : first + size]
        first, size = first + size, min(2 * size, _MOST_AT_ONCE)


def _surely_beyond(behind: Array, gains: Sequence[_Gain], curves: Mapping[str, Array], level: float) -> bool:
    """Return whether a strategy is surely more behind, (examples,), than each of these gains makes up."""
    left = np.stack([behind - gain.of_examples(curves) for gain in gains])
    reach = 1.0 + 2.0 * max(gain.times for gain in gains)
    return bool(surely_above(left, MARGIN, reach=reach, level=level).all())


@dataclass(frozen=True)
class _Gain:
    """What one strategy gained on another between two looks, and how often that counts."""

    strategy: str
    other: str
    first: int
    last: int
    times: float
    mean: float

    def of_examples(self, curves: Mapping[str, Array]) -> Array:
        """Return it for each example, (examples,)."""
        one, other = curves[self.strategy], curves[self.other]
        return np.asarray(self.times * (one[self.last] - one[self.first] - (other[self.last] - other[self.first])))


def _gains(curves: Mapping[str, Array], training: Array, ahead: float) -> list[_Gain]:
    """Return all gains that the training ahead may repeat, the largest first: it is the first to speak against a stop.

    A gain is of two strategies that both trained throughout a stretch.
    """
    means = {name: curve.mean(axis=1) for name, curve in curves.items()}
    found = []
    for first, last, times in _stretches(training, ahead):
        changes = {name: mean[last] - mean[first] for name, mean in means.items() if len(mean) > last}
        found += [
            _Gain(one, other, first, last, times, float(times * (changes[one] - changes[other])))
            for one, other in itertools.permutations(changes, 2)
        ]
    return sorted(found, key=lambda gain: -gain.mean)


def _stretches(training: Array, ahead: float) -> list[tuple[int, int, float]]:
    """Return the stretches behind with as much training as lies ahead: first and last look, and how often it counts.

    From each look the longest that is no longer than what lies ahead. One between two neighbouring looks that is longer
    counts in part, and where all that lies behind is less, it is the only one and counts as often as it fits. Nothing
    where nothing was trained yet.
    """
    if (behind := float(training[-1] - training[0])) <= 0.0:
        return []
    if behind < ahead:
        return [(0, len(training) - 1, ahead / behind)]
    found = []
    for first in range(len(training) - 1):
        # Sums of the same learning rates differ in their last digits.
        within = np.flatnonzero(training <= training[first] + ahead * (1 + 1e-9))
        last = max(int(within[-1]), first + 1)
        found.append((first, last, min(1.0, ahead / max(float(training[last] - training[first]), ahead, 1e-300))))
    return found


def kept_so_far(scores: Sequence[Array]) -> list[Array]:
    """Return, at each look, the examples of the checkpoint that would be kept if the best is: the first best so far.

    Args:
        scores: each example's score at each look, (examples,) each.
    """
    kept: list[Array] = []
    for one in scores:
        kept.append(one if not kept or one.mean() > kept[-1].mean() else kept[-1])
    return kept


def check_looks(every: int, steps: int, *, by_epoch: bool) -> None:
    """Refuse validations of which none comes before the last step.

    Raises:
        InputError: that is so.
    """
    if every >= steps:
        when = f"every epoch of {every} steps" if by_epoch else f"every {every} steps"
        raise InputError(
            f"{OPTION} came with a validation {when}, and a run has {steps}",
            f"validate more often: --evaluate-every {max(1, steps // 20)}",
        )
