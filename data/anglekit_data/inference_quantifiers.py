"""What one quantified sentence says about another, found by looking through all small worlds."""

from __future__ import annotations

from functools import cache
from itertools import combinations, product

QUANTIFIERS = ("all", "some", "no", "not all")

# The largest world needed: each of the two sentences, and each of the two non-empty nouns, asks for at most one
# individual, so that a world in which both hold (or one fails) can be thinned to four.
_LARGEST_WORLD = 4

_EXCLUDED = {
    "same": {(True, False), (False, True)},
    "narrower": {(True, False)},
    "wider": {(False, True)},
    "disjoint": {(True, True)},
    "unrelated": set(),
}


def _holds(quantifier: str, world: tuple[tuple[bool, bool], ...]) -> bool:
    """Whether the sentence is true; the world lists (is of the noun, has the adjective) for each individual."""
    having = [adjective for noun, adjective in world if noun]
    if quantifier == "all":
        return all(having)
    if quantifier == "some":
        return any(having)
    if quantifier == "no":
        return not any(having)
    return not all(having)


@cache
def judge(premise: str, hypothesis: str, noun: str, adjective: str) -> str:
    """Return the label of a pair of quantified sentences.

    `noun` and `adjective`, keys of `_EXCLUDED`, say how the premise's word relates to the hypothesis's (`narrower`:
    poodles to dogs). The label is `entailment` when the hypothesis holds in every world in which the premise does,
    `contradiction` when in none, `neutral` otherwise. Both nouns have at least one individual in every world.
    """
    nouns = [pair for pair in product((True, False), repeat=2) if pair not in _EXCLUDED[noun]]
    adjectives = [pair for pair in product((True, False), repeat=2) if pair not in _EXCLUDED[adjective]]
    kinds = [(n1, a1, n2, a2) for (n1, n2), (a1, a2) in product(nouns, adjectives)]
    outcomes = set()
    for size in range(1, _LARGEST_WORLD + 1):
        for world in combinations(kinds, size):
            if not (any(kind[0] for kind in world) and any(kind[2] for kind in world)):
                continue
            if _holds(premise, tuple(kind[:2] for kind in world)):
                outcomes.add(_holds(hypothesis, tuple(kind[2:] for kind in world)))
        if len(outcomes) == 2:
            return "neutral"
    return "entailment" if outcomes == {True} else "contradiction"
