"""The sentence families of the `inference` corpus: one hypothesis, and a premise for each label."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from anglekit_data.inference_lexicon import (
    ACTIVITIES,
    ADJECTIVES,
    CONTAINERS,
    NAMES,
    NOUNS,
    PEOPLE_ORDERS,
    PLACE_OF,
    PLACES,
    THING_ORDERS,
    THINGS,
    TREASURES,
)
from anglekit_data.inference_quantifiers import QUANTIFIERS, RELATIONS, judge

__all__ = ["FAMILIES", "LABELS", "Draw", "Triple"]

LABELS = ("entailment", "neutral", "contradiction")

_T = TypeVar("_T")


class Draw:
    """Random choices built on `random.Random.random` alone, the one method whose sequence Python promises to keep.

    See https://docs.python.org/3/library/random.html#notes-on-reproducibility.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed).random

    def chance(self, probability: float) -> bool:
        """Return True with this probability."""
        return self._random() < probability

    def pick(self, items: Sequence[_T]) -> _T:
        """Return one of the items, each as likely as the others."""
        return items[int(self._random() * len(items))]

    def distinct(self, items: Sequence[_T], count: int) -> list[_T]:
        """Return `count` different items in random order."""
        left = list(items)
        return [left.pop(int(self._random() * len(left))) for _ in range(count)]


@dataclass(frozen=True)
class Triple:
    """A hypothesis with one premise for each label, in the order of `LABELS`.

    `key` names the combination of content words that the hypothesis is about, whatever their order or polarity: a
    key belongs to one split.
    """

    key: str
    hypothesis: str
    premises: tuple[str, str, str]


def _join(draw: Draw, first: str, second: str) -> str:
    """Two sentences in random order."""
    return f"{first} and {second}" if draw.chance(0.5) else f"{second} and {first}"


def _fact(draw: Draw, order: tuple[str, str], more: str, less: str) -> str:
    """`more` stands before `less` in the order, said with the relation or with its converse."""
    return order[0].format(more, less) if draw.chance(0.5) else order[1].format(less, more)


def _negated(sentence: str) -> str:
    return sentence.replace(" is ", " is not ", 1)


def _order_direct(draw: Draw, orders: tuple[tuple[str, str], ...], terms: Sequence[str]) -> Triple:
    """The premise states the two terms' order, beside a fact on a third term."""
    order, other = draw.distinct(orders, 2)
    a, b, c = draw.distinct(terms, 3)
    hypothesis = _fact(draw, order, a, b)

    def beside(fact: str) -> str:
        near = draw.pick((a, b))
        return _join(
            draw, fact, _fact(draw, order, near, c) if draw.chance(0.5) else _fact(draw, order, c, near)
        )

    aside = _fact(draw, other, *draw.distinct((a, b), 2))
    premises = (beside(_fact(draw, order, a, b)), beside(aside), beside(_fact(draw, order, b, a)))
    return Triple(f"{order[0]}|{min(a, b)}|{max(a, b)}", hypothesis, premises)


def _order_chain(draw: Draw, orders: tuple[tuple[str, str], ...], terms: Sequence[str]) -> Triple:
    """The two terms are compared through a third; neutral where it is above, or below, both."""
    order = draw.pick(orders)
    a, b, c = draw.distinct(terms, 3)
    hypothesis = _fact(draw, order, a, b)

    def through(a_above: bool, above_b: bool) -> str:
        first = _fact(draw, order, a, c) if a_above else _fact(draw, order, c, a)
        second = _fact(draw, order, c, b) if above_b else _fact(draw, order, b, c)
        return _join(draw, first, second)

    above = draw.chance(0.5)
    premises = (through(True, True), through(above, not above), through(False, False))
    return Triple(f"{order[0]}|{min(a, b)}|{max(a, b)}", hypothesis, premises)


def people_direct(draw: Draw) -> Triple:
    """Comparatives and times of two people, one step."""
    return _order_direct(draw, PEOPLE_ORDERS, NAMES)


def people_chain(draw: Draw) -> Triple:
    """Comparatives and times of two people, through a third."""
    return _order_chain(draw, PEOPLE_ORDERS, NAMES)


def things_direct(draw: Draw) -> Triple:
    """Positions of two things, one step."""
    return _order_direct(draw, THING_ORDERS, THINGS)


def things_chain(draw: Draw) -> Triple:
    """Positions of two things, through a third."""
    return _order_chain(draw, THING_ORDERS, THINGS)


def _related(tree: dict[str, tuple[str, ...]]) -> dict[str, dict[str, list[str]]]:
    """For each word, the words that stand in each relation to it."""
    words = list(dict.fromkeys([*tree, *(leaf for leaves in tree.values() for leaf in leaves)]))

    def under(word: str) -> list[str]:
        return [word, *(deeper for leaf in tree.get(word, ()) for deeper in under(leaf))]

    table: dict[str, dict[str, list[str]]] = {}
    for word in words:
        narrower = under(word)[1:]
        wider = [other for other in words if word in under(other)[1:]]
        disjoint = [
            other for other in words if other != word and other not in narrower and other not in wider
        ]
        table[word] = {"same": [word], "narrower": narrower, "wider": wider, "disjoint": disjoint}
    return table


_NOUN_RELATED = _related(NOUNS)
_ADJECTIVE_RELATED = _related(ADJECTIVES)


def quantified(draw: Draw) -> Triple:
    """All, some, no and not all, over wider, narrower and disjoint nouns and adjectives."""
    noun = draw.pick(list(_NOUN_RELATED))
    adjective = draw.pick(list(_ADJECTIVE_RELATED))
    quantifier = draw.pick(QUANTIFIERS)
    premises = []
    for label in LABELS:
        while True:
            q, n, a = draw.pick(QUANTIFIERS), draw.pick(RELATIONS[:4]), draw.pick(RELATIONS[:4])
            nouns, adjectives = _NOUN_RELATED[noun][n], _ADJECTIVE_RELATED[adjective][a]
            if nouns and adjectives and judge(q, quantifier, n, a) == label:
                break
        premises.append(f"{q} {draw.pick(nouns)} are {draw.pick(adjectives)}")
    return Triple(
        f"{noun}|{adjective}",
        f"{quantifier} {noun} are {adjective}",
        (premises[0], premises[1], premises[2]),
    )


def located(draw: Draw) -> Triple:
    """Two people, each in a room or building of their own: who is where."""
    who, other = draw.distinct(NAMES, 2)
    building, elsewhere = draw.distinct(list(PLACES), 2)
    room = draw.pick(PLACES[building])
    place = room if draw.chance(0.6) else building
    inside = room if place == room else draw.pick((*PLACES[building], building))
    outside = draw.pick((*PLACES[elsewhere], elsewhere))

    def both(mine: str, theirs: str) -> str:
        return _join(draw, f"{who} is in the {mine}", f"{other} is in the {theirs}")

    positive, negative = both(inside, outside), both(outside, inside)
    if draw.chance(0.5):
        # Not being somewhere else says nothing; the other's whereabouts say nothing either.
        unknown = _join(draw, f"{who} is not in the {outside}", f"{other} is in the {inside}")
    else:
        third = draw.pick([name for name in NAMES if name not in (who, other)])
        unknown = _join(draw, f"{third} is in the {inside}", f"{other} is in the {outside}")
    hypothesis = f"{who} is in the {place}"
    if draw.chance(0.5):
        hypothesis, positive, negative = _negated(hypothesis), negative, positive
    return Triple(f"{who}|{place}", hypothesis, (positive, unknown, negative))


def contained(draw: Draw) -> Triple:
    """A thing in a container, the container in a room: where the thing is."""
    treasure, decoy = draw.distinct(TREASURES, 2)
    container, other = draw.distinct(CONTAINERS, 2)
    building, elsewhere = draw.distinct(list(PLACES), 2)
    room = draw.pick(PLACES[building])
    place = room if draw.chance(0.6) else building
    outside = draw.pick(PLACES[elsewhere])

    def chain(what: str, holder: str, held: str, where: str) -> str:
        return _join(draw, f"the {what} is in the {holder}", f"the {held} is in the {where}")

    positive = chain(treasure, container, container, room)
    negative = chain(treasure, container, container, outside)
    where = draw.pick((room, outside))
    unknown = (
        chain(treasure, container, other, where)
        if draw.chance(0.5)
        else chain(decoy, container, container, where)
    )
    hypothesis = f"the {treasure} is in the {place}"
    if draw.chance(0.3):
        hypothesis, positive, negative = _negated(hypothesis), negative, positive
    return Triple(f"{treasure}|{place}", hypothesis, (positive, unknown, negative))


def conditional(draw: Draw) -> Triple:
    """A fact and a conditional: modus ponens and tollens, and the two fallacies that look like them."""
    who, other = draw.distinct(NAMES, 2)
    did, done = draw.pick(ACTIVITIES), draw.pick(ACTIVITIES)

    def literal(name: str, activity: str, holds: bool) -> str:
        return f"{name} is {activity}" if holds else f"{name} is not {activity}"

    hypothesis_holds = draw.chance(0.5)

    def said(holds: bool) -> str:
        return literal(who, did, holds)

    def proof(holds: bool) -> str:
        side = draw.chance(0.5)
        fact = literal(other, done, side)
        if draw.chance(0.5):
            return f"{fact} and if {fact} then {said(holds)}"
        return f"{fact} and if {said(not holds)} then {literal(other, done, not side)}"

    side, either = draw.chance(0.5), draw.chance(0.5)
    fact = literal(other, done, side)
    if draw.chance(0.5):
        fallacy = f"{fact} and if {said(either)} then {fact}"
    else:
        fallacy = f"{fact} and if {literal(other, done, not side)} then {said(either)}"
    premises = (proof(hypothesis_holds), fallacy, proof(not hypothesis_holds))
    return Triple(f"{who}|{did}", said(hypothesis_holds), premises)


# How often each family is drawn, in parts of the corpus's triples.
FAMILIES: dict[str, tuple[Callable[[Draw], Triple], int]] = {
    "people_direct": (people_direct, 15),
    "people_chain": (people_chain, 20),
    "things_direct": (things_direct, 5),
    "things_chain": (things_chain, 10),
    "quantified": (quantified, 15),
    "located": (located, 15),
    "contained": (contained, 12),
    "conditional": (conditional, 8),
}
