"""The sentence families of the `inference` corpus: one hypothesis, and a premise for each label."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

from anglekit_data.generation import Draw
from anglekit_data.inference_lexicon import (
    ADJECTIVES,
    CONTAINERS,
    MOTIONS,
    NAMES,
    NOUNS,
    PEOPLE_ORDERS,
    PLACES,
    THING_ORDERS,
    THINGS,
    TREASURES,
    related,
)
from anglekit_data.inference_quantifiers import QUANTIFIERS, judge

LABELS = ("entailment", "neutral", "contradiction")

# How often a comparison is reversed and said with the converse word.
_CONVERSE = 0.2


@dataclass(frozen=True)
class Triple:
    """A hypothesis with one premise for each label, in the order of `LABELS`.

    `key` names the combination of content words that the hypothesis is about, whatever their order or polarity: a
    key belongs to one split.
    """

    key: str
    hypothesis: str
    premises: tuple[str, str, str]


_Orders = tuple[tuple[str, str], ...]


def _fact(draw: Draw, order: tuple[str, str], more: str, less: str) -> str:
    """`more` stands before `less` in the order, said with the relation or with its converse."""
    return order[1].format(less, more) if draw.chance(_CONVERSE) else order[0].format(more, less)


def _order_direct(draw: Draw, orders: _Orders, terms: Sequence[str]) -> Triple:
    """The premise states the two terms' order, or says something about another pair or in another respect."""
    order, other = draw.distinct(orders, 2)
    a, b, c = draw.distinct(terms, 3)
    unknown = draw.pick(((other, a, b), (other, b, a), (order, a, c), (order, c, a), (order, c, b), (order, b, c)))
    premises = (_fact(draw, order, a, b), _fact(draw, *unknown), _fact(draw, order, b, a))
    return Triple(f"{order[0]}|{min(a, b)}|{max(a, b)}", _fact(draw, order, a, b), premises)


def _order_chain(draw: Draw, orders: _Orders, terms: Sequence[str]) -> Triple:
    """The two terms are compared through a third; neutral where it is above, or below, both."""
    order = draw.pick(orders)
    a, b, c = draw.distinct(terms, 3)

    def through(first: tuple[str, str], second: tuple[str, str]) -> str:
        return " and ".join(draw.distinct((_fact(draw, order, *first), _fact(draw, order, *second)), 2))

    unknown = ((a, c), (b, c)) if draw.chance(0.5) else ((c, a), (c, b))
    premises = (through((a, c), (c, b)), through(*unknown), through((b, c), (c, a)))
    return Triple(f"{order[0]}|{min(a, b)}|{max(a, b)}", _fact(draw, order, a, b), premises)


# Which of a chain's three links point down; unless all or none do, its two ends stay uncompared.
_BROKEN = tuple(links for links in product((True, False), repeat=3) if len(set(links)) == 2)


def people_direct(draw: Draw) -> Triple:
    """Comparatives and times of two people, one step."""
    return _order_direct(draw, PEOPLE_ORDERS, NAMES)


def people_chain(draw: Draw) -> Triple:
    """Comparatives and times of two people, through a third."""
    return _order_chain(draw, PEOPLE_ORDERS, NAMES)


def people_long_chain(draw: Draw) -> Triple:
    """Comparatives and times of two people, through two others, in any order."""
    order = draw.pick(PEOPLE_ORDERS)
    a, c, d, b = draw.distinct(NAMES, 4)
    word = order[1] if draw.chance(_CONVERSE) else order[0]

    def through(links: tuple[bool, ...]) -> str:
        steps = zip(((a, c), (c, d), (d, b)), links, strict=True)
        return " and ".join(
            draw.distinct([word.format(x, y) if down else word.format(y, x) for (x, y), down in steps], 3)
        )

    premises = (through((True,) * 3), through(draw.pick(_BROKEN)), through((False,) * 3))
    return Triple(f"{order[0]}|{min(a, b)}|{max(a, b)}", word.format(a, b), premises)


def things_direct(draw: Draw) -> Triple:
    """Positions of two things, one step."""
    return _order_direct(draw, THING_ORDERS, THINGS)


def things_chain(draw: Draw) -> Triple:
    """Positions of two things, through a third."""
    return _order_chain(draw, THING_ORDERS, THINGS)


_NOUNS, _ADJECTIVES, _MOTIONS, _PLACES = (related(tree) for tree in (NOUNS, ADJECTIVES, MOTIONS, PLACES))


def quantified(draw: Draw) -> Triple:
    """All, some, no and not all, over wider, narrower and disjoint nouns and adjectives."""
    noun, adjective, quantifier = draw.pick(list(_NOUNS)), draw.pick(list(_ADJECTIVES)), draw.pick(QUANTIFIERS)
    premises = []
    for label in LABELS:
        while True:
            q, n = draw.pick(QUANTIFIERS), draw.pick(("same", "narrower", "wider"))
            a = draw.pick(("same", "narrower", "wider", "disjoint"))
            nouns, adjectives = _NOUNS[noun][n], _ADJECTIVES[adjective][a]
            if nouns and adjectives and judge(q, quantifier, n, a) == label:
                break
        premises.append(f"{q} {draw.pick(nouns)} are {draw.pick(adjectives)}")
    return Triple(
        f"{noun}|{adjective}", f"{quantifier} {noun} are {adjective}", (premises[0], premises[1], premises[2])
    )


def situated(draw: Draw) -> Triple:
    """One person's motion and place, each said more narrowly, more widely, or with a word that excludes it."""
    who, someone = draw.distinct(NAMES, 2)
    motion, place = draw.pick(list(_MOTIONS)), draw.pick(list(_PLACES))

    def said(name: str, motion_relation: str, place_relation: str) -> str:
        moving, where = draw.pick(_MOTIONS[motion][motion_relation]), draw.pick(_PLACES[place][place_relation])
        return f"{name} is {moving} in the {where}"

    def at_least(table: dict[str, tuple[str, ...]]) -> str:
        return draw.pick([relation for relation in ("same", "narrower") if table[relation]])

    motion_in, place_in = at_least(_MOTIONS[motion]), at_least(_PLACES[place])
    positive = said(who, motion_in, place_in)
    # Two words that exclude each other make a contradiction, whatever the other slot says.
    negative = draw.pick((said(who, "disjoint", place_in), said(who, motion_in, "disjoint")))
    doubts = [said(someone, motion_in, place_in)]
    if _MOTIONS[motion]["wider"]:
        doubts.append(said(who, "wider", place_in))
    if _PLACES[place]["wider"]:
        doubts.append(said(who, motion_in, "wider"))
    hypothesis, unknown = f"{who} is {motion} in the {place}", draw.pick(doubts)
    if draw.chance(0.3):
        hypothesis, positive, negative = hypothesis.replace(" is ", " is not "), negative, positive
    return Triple(f"{motion}|{place}", hypothesis, (positive, unknown, negative))


def located(draw: Draw) -> Triple:
    """Two people, each in a room or building of their own: who is where."""
    who, other, third = draw.distinct(NAMES, 3)
    place = draw.pick(list(_PLACES))
    inside = draw.pick((*_PLACES[place]["same"], *_PLACES[place]["narrower"]))
    outside = draw.pick(_PLACES[place]["disjoint"])

    def both(one: str, two: str) -> str:
        said = (f"{one} is in the {inside}", f"{two} is in the {outside}")
        return " and ".join(said if draw.chance(0.5) else said[::-1])

    premises = (both(who, other), both(third, other), both(other, who))
    return Triple(f"{who}|{place}", f"{who} is in the {place}", premises)


def contained(draw: Draw) -> Triple:
    """A thing in a container, the container in a room: where the thing is."""
    (treasure,) = draw.distinct(TREASURES, 1)
    container, other = draw.distinct(CONTAINERS, 2)
    place = draw.pick(list(_PLACES))
    inside = draw.pick((*_PLACES[place]["same"], *_PLACES[place]["narrower"]))
    outside = draw.pick(_PLACES[place]["disjoint"])

    def chain(holder: str, held: str, where: str) -> str:
        return " and ".join(draw.distinct((f"the {treasure} is in the {holder}", f"the {held} is in the {where}"), 2))

    premises = (
        chain(container, container, inside),
        chain(container, other, draw.pick((inside, outside))),
        chain(container, container, outside),
    )
    return Triple(f"{treasure}|{place}", f"the {treasure} is in the {place}", premises)


# How often each family is drawn, in parts of the corpus's triples.
FAMILIES: dict[str, tuple[Callable[[Draw], Triple], int]] = {
    "people_direct": (people_direct, 14),
    "people_chain": (people_chain, 16),
    "people_long_chain": (people_long_chain, 12),
    "things_direct": (things_direct, 8),
    "things_chain": (things_chain, 4),
    "quantified": (quantified, 14),
    "situated": (situated, 14),
    "located": (located, 8),
    "contained": (contained, 10),
}
