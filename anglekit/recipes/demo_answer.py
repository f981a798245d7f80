"""The paper's question, "does it matter which layer?", answered in one sentence from a score table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from anglekit.errors import InputError

__all__ = ["Answer", "InitComparison", "answer_sentence", "compare_matchings", "unfinished_learning"]

Answer = Literal["hardly", "yes", "unclear"]

_BASELINE: Final = "none"
_Z_95: Final = 1.96
# 95% points of the studentized range for k means with known variance (Tukey; `scipy.stats.studentized_range`).
_RANGE_95: Final[Mapping[int, float]] = {2: 2.772, 3: 3.314, 4: 3.633, 5: 3.858, 6: 4.030}

# Under the teacher by more than this, a student has not learnt what there is to learn.
_FAR_BELOW: Final = 0.1

_STARTS: Final[Mapping[str, str]] = {"random": "random weights", "teacher": "the teacher's weights"}
_LEADS: Final[Mapping[Answer, str]] = {
    "hardly": "hardly",
    "yes": "yes",
    "unclear": "this run cannot tell",
}


@dataclass(frozen=True)
class InitComparison:
    """The strategies that started from the same kind of weights, compared by accuracy on the same examples.

    The limits of chance treat the accuracies as independent samples. The students answer the same examples, whose
    difficulty cancels, so that the limits are on the cautious side. They know nothing of what another seed would give.

    Attributes:
        init: "random" or "teacher".
        baseline: accuracy of strategy "none", in [0, 1].
        matched: accuracy of each matching strategy.
        examples: how many examples every accuracy is a share of.

    Raises:
        InputError: fewer than two or more than six matchings, no example, or an accuracy outside [0, 1].
    """

    init: str
    baseline: float
    matched: Mapping[str, float]
    examples: int

    def __post_init__(self) -> None:
        if len(self.matched) not in _RANGE_95:
            raise InputError(f"{len(self.matched)} matchings are compared", allowed=f"allowed: 2 to {max(_RANGE_95)}")
        if self.examples < 1:
            raise InputError(f"accuracies over {self.examples} examples", "need at least 1")
        for value in (self.baseline, *self.matched.values()):
            if not 0.0 <= value <= 1.0:
                raise InputError(f"an accuracy is {value}", allowed="allowed: 0 to 1")

    @property
    def spread(self) -> float:
        """The best matching's accuracy minus the worst one's."""
        return max(self.matched.values()) - min(self.matched.values())

    @property
    def gain(self) -> float:
        """The matchings' mean accuracy minus the baseline's."""
        return sum(self.matched.values()) / len(self.matched) - self.baseline

    @property
    def spread_by_chance(self) -> float:
        """The spread that equally good students exceed in one case of twenty, by the choice of examples alone."""
        return _RANGE_95[len(self.matched)] * self._standard_error

    @property
    def gain_by_chance(self) -> float:
        """The size of a gain that equally good students exceed in one case of twenty."""
        return _Z_95 * math.sqrt(1 + 1 / len(self.matched)) * self._standard_error

    @property
    def answer(self) -> Answer:
        """Whether the layer matters.

        "hardly": matching makes a difference beyond chance, and its kinds differ by at most half of it. "yes": its
        kinds differ beyond chance, by more than that. "unclear": neither can be told from chance.
        """
        if abs(self.gain) > self.gain_by_chance and self.spread <= abs(self.gain) / 2:
            return "hardly"
        return "yes" if self.spread > self.spread_by_chance else "unclear"

    @property
    def _standard_error(self) -> float:
        """Of one accuracy, at the mean of all."""
        values = (self.baseline, *self.matched.values())
        mean = sum(values) / len(values)
        return math.sqrt(mean * (1 - mean) / self.examples)


def compare_matchings(accuracies: Mapping[tuple[str, str], float], examples: int) -> tuple[InitComparison, ...]:
    """Compare the strategies of a score table, for each initialisation on its own.

    Args:
        accuracies: by (strategy, init), "none" among the strategies of every init.
        examples: how many examples every accuracy is a share of.

    Raises:
        InputError: an init without "none", or what `InitComparison` refuses.
    """
    comparisons = []
    for init in dict.fromkeys(init for _, init in accuracies):
        own = {strategy: value for (strategy, start), value in accuracies.items() if start == init}
        if _BASELINE not in own:
            raise InputError(f"no student from {init} was trained without matching", f"add strategy {_BASELINE!r}")
        comparisons.append(InitComparison(init, own.pop(_BASELINE), own, examples))
    return tuple(comparisons)


def answer_sentence(comparisons: Sequence[InitComparison], *, seed: int, steps: int) -> str:
    """Return the answer as one plain sentence with the numbers that it rests on.

    Args:
        comparisons: one for each initialisation, all over the same examples.
        seed: of the one run that was made.
        steps: how long every student was trained.

    Raises:
        InputError: there is nothing to compare.
    """
    if not comparisons:
        raise InputError("no students to compare", "train at least one initialisation")
    answers = {one.answer for one in comparisons}
    lead = _LEADS[comparisons[0].answer] if len(answers) == 1 else "it depends on where the student starts"
    clauses = [_clause(one, own_answer=len(answers) > 1) for one in comparisons]
    examples = comparisons[0].examples
    return (
        f"Does it matter which layer? In this one run (seed {seed}, {steps} steps a student, {examples} validation "
        f"examples) {lead}: {'; '.join(clauses)}."
    )


def unfinished_learning(comparisons: Sequence[InitComparison], *, teacher: float, steps: int) -> tuple[str, ...]:
    """Return a warning for each initialisation whose best student is far below the teacher.

    Args:
        comparisons: of the students.
        teacher: its accuracy on the same examples.
        steps: how long every student was trained.
    """
    return tuple(
        f"from {_STARTS.get(one.init, one.init)} the best student is {_points(teacher - best)} below the teacher "
        f"({teacher:.1%}): {steps} steps show how fast these students learn, not where they would end"
        for one in comparisons
        if teacher - (best := max(one.baseline, *one.matched.values())) > _FAR_BELOW
    )


def _clause(one: InitComparison, *, own_answer: bool) -> str:
    worst, best = (pick(one.matched, key=one.matched.__getitem__) for pick in (min, max))
    spread = f"{_points(one.spread)} apart ({worst} {one.matched[worst]:.1%}, {best} {one.matched[best]:.1%})"
    if one.spread <= one.spread_by_chance:
        spread += ", which chance alone could give,"
    verb = "gains" if one.gain >= 0 else "costs"
    gain = f"matching {verb} {_points(abs(one.gain))} over none ({one.baseline:.1%}) on average"
    if abs(one.gain) <= one.gain_by_chance:
        gain += ", also within chance" if one.spread <= one.spread_by_chance else ", which chance alone could give"
    told = f" {_LEADS[one.answer]}," if own_answer else ""
    start = _STARTS.get(one.init, one.init)
    return f"from {start}{told} the {len(one.matched)} matchings end {spread} while {gain}"


def _points(share: float) -> str:
    return f"{100 * share:.1f} points"
