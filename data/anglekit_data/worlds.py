"""Small worlds told in a few sentences: where someone is, who holds a thing, where a thing is, how many someone has.

A world is told for a wanted answer. The other three candidates play a role in the story too (an earlier place, a place
that is only thought of, someone who is only shown the thing, the number before a change), so that being
mentioned makes no candidate likelier.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from anglekit_data.generation import Draw
from anglekit_data.inference_lexicon import NAMES

_PLACES = ("attic", "barn", "cellar", "garage", "garden", "kitchen", "library", "office")
_THINGS = ("ball", "book", "coin", "cup", "hat", "key", "lamp", "map")
_FRUITS = ("apples", "figs", "lemons", "nuts", "pears", "plums")
_LEAST = range(7)

# How often a wrong candidate was true once, rather than merely thought of or shown.
_ONCE_TRUE = 0.5


@dataclass(frozen=True)
class Frame:
    """What is asked, and the four candidate answers.

    Attributes:
        family: a name in `FAMILIES`.
        about: the words that the question names.
        answers: four different ones.
        endings: each answer said in a sentence.
        question: asks for it.
    """

    family: str
    about: tuple[str, ...]
    answers: tuple[str, ...]
    endings: tuple[str, ...]
    question: str

    @property
    def content(self) -> str:
        """What is asked about and the answers, whatever their order: content belongs to one split."""
        return " ".join((self.family, *self.about, *sorted(self.answers)))


def draw_frame(draw: Draw) -> Frame:
    """Draw what is asked, and four answers."""
    return FAMILIES[draw.pick(tuple(FAMILIES))][0](draw)


def tell(draw: Draw, frame: Frame, answer: str) -> str:
    """Tell a story from which the answer follows, and none of the frame's other answers.

    Raises:
        ValueError: the answer is none of the frame's.
    """
    if answer not in frame.answers:
        raise ValueError(f"answer {answer!r}: allowed are {', '.join(frame.answers)}")
    others = draw.distinct([one for one in frame.answers if one != answer], 3)
    return " ".join(FAMILIES[frame.family][1](draw, frame, answer, others))


def _split(draw: Draw, others: Sequence[str]) -> tuple[list[str], list[str]]:
    """The candidates that were true once, and those that were not."""
    once: list[str] = []
    never: list[str] = []
    for other in others:
        (once if draw.chance(_ONCE_TRUE) else never).append(other)
    return once, never


def _insert(draw: Draw, sentences: list[str], sentence: str, first: int = 0) -> None:
    """Put a sentence at a random place, not before number `first`."""
    sentences.insert(draw.pick(range(first, len(sentences) + 1)), sentence)


# ---- where a person is ----


def _person_frame(draw: Draw) -> Frame:
    who = draw.pick(NAMES)
    places = tuple(draw.distinct(_PLACES, 4))
    endings = tuple(f"Now {who} is in the {place}." for place in places)
    return Frame("person", (who,), places, endings, f"Where is {who}?")


def _person_story(draw: Draw, frame: Frame, answer: str, others: Sequence[str]) -> list[str]:
    (who,) = frame.about
    visited, thought_of = _split(draw, others)
    sentences = [f"{who} went to the {place}." for place in (*visited, answer)]
    for place in thought_of:
        _insert(draw, sentences, f"{who} thought of the {place}.")
    return sentences


# ---- who holds a thing ----


def _holder_frame(draw: Draw) -> Frame:
    thing = draw.pick(_THINGS)
    people = tuple(draw.distinct(NAMES, 4))
    endings = tuple(f"Now the {thing} is with {who}." for who in people)
    return Frame("holder", (thing,), people, endings, f"Who has the {thing}?")


def _holder_story(draw: Draw, frame: Frame, answer: str, others: Sequence[str]) -> list[str]:
    (thing,) = frame.about
    held, shown = _split(draw, others)
    holders = [*held, answer]
    # Whoever is shown the thing (at the latest by its last holder) does not get it.
    showings: list[list[str]] = [[] for _ in holders]
    for who in shown:
        draw.pick(showings).append(who)
    sentences = [f"{holders[0]} took the {thing}."]
    for place, who in enumerate(holders):
        if place:
            sentences.append(f"{holders[place - 1]} gave the {thing} to {who}.")
        sentences += [f"{who} showed the {thing} to {other}." for other in showings[place]]
    return sentences


# ---- where a thing is ----


def _thing_frame(draw: Draw) -> Frame:
    who, thing = draw.pick(NAMES), draw.pick(_THINGS)
    places = tuple(draw.distinct(_PLACES, 4))
    endings = tuple(f"Now the {thing} is in the {place}." for place in places)
    return Frame("thing", (who, thing), places, endings, f"Where is the {thing}?")


def _thing_story(draw: Draw, frame: Frame, answer: str, others: Sequence[str]) -> list[str]:
    who, thing = frame.about
    stop = draw.pick(range(len(others) + 1))
    path = [*others[:stop], answer, *others[stop:]]
    taken = draw.pick(range(stop + 1))
    left = stop < len(others) or draw.chance(0.5)
    sentences = []
    for place, name in enumerate(path):
        sentences.append(f"{who} went to the {name}.")
        if place == taken:
            sentences.append(f"{who} took the {thing}.")
        if place == stop and left:
            sentences.append(f"{who} left the {thing}.")
    return sentences


# ---- how many someone has ----


def _count_frame(draw: Draw) -> Frame:
    who, fruit = draw.pick(NAMES), draw.pick(_FRUITS)
    # Four numbers in a row, so that no change is larger than three.
    least = draw.pick(_LEAST)
    counts = tuple(str(count) for count in draw.distinct(range(least, least + 4), 4))
    endings = tuple(f"Now {who} has {_counted(int(count), fruit)}." for count in counts)
    return Frame("count", (who, fruit), counts, endings, f"How many {fruit} does {who} have?")


def _counted(count: int, fruit: str) -> str:
    return f"{count} {fruit.removesuffix('s') if count == 1 else fruit}"


def _count_story(draw: Draw, frame: Frame, answer: str, others: Sequence[str]) -> list[str]:
    who, fruit = frame.about
    held, seen = _split(draw, others)
    steps = [int(count) for count in (*held, answer)]
    sentences = [f"{who} has {_counted(steps[0], fruit)}."]
    for before, after in pairwise(steps):
        verb = "finds" if after > before else "loses"
        sentences.append(f"{who} {verb} {_counted(abs(after - before), fruit)}.")
    for count in seen:
        _insert(draw, sentences, f"{who} sees {_counted(int(count), fruit)}.")
    return sentences


FAMILIES: dict[str, tuple[Callable[[Draw], Frame], Callable[[Draw, Frame, str, Sequence[str]], list[str]]]] = {
    "person": (_person_frame, _person_story),
    "holder": (_holder_frame, _holder_story),
    "thing": (_thing_frame, _thing_story),
    "count": (_count_frame, _count_story),
}
"""How a frame of each family is drawn, and how its story is told; all families are equally frequent."""
