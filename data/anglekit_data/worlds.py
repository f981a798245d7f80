"""Small worlds told in a few sentences: who is where, who holds what, where a thing is, how many someone has.

A world is told for a wanted answer. The other three candidates stand in the story too, in roles that the question rules
out (an earlier place, another person's place, another thing's holder), so that no answer is likelier for being named.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from anglekit_data.inference_families import Draw

__all__ = ["FAMILIES", "Frame", "draw_frame", "tell"]

PEOPLE = ("Anna", "Ben", "Carl", "Dora", "Emil", "Fay", "Gus", "Hana")
PLACES = ("attic", "barn", "cellar", "garage", "garden", "kitchen", "library", "office")
THINGS = ("ball", "book", "coin", "cup", "hat", "key", "lamp", "map")
FRUITS = ("apples", "lemons", "nuts", "pears", "plums", "figs")
_COUNTS = tuple(range(10))

# How often the other candidates lie on one other thread, so that the question alone says which thread counts.
_BUSY = 0.5


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
    def key(self) -> str:
        """The frame's four answers, whatever their order: a key belongs to one split.

        Whom or what the question names is no part of it, as one story may be asked about two people.
        """
        return " ".join((self.family, *sorted(self.answers)))


def draw_frame(draw: Draw) -> Frame:
    """Draw what is asked, and four answers."""
    return FAMILIES[draw.pick(_URN)][0](draw)


def tell(draw: Draw, frame: Frame, answer: str) -> str:
    """Tell a story from which the answer follows, and none of the frame's other answers.

    Raises:
        ValueError: the answer is none of the frame's.
    """
    if answer not in frame.answers:
        raise ValueError(f"answer {answer!r}: allowed are {', '.join(frame.answers)}")
    others = draw.distinct([one for one in frame.answers if one != answer], 3)
    return " ".join(FAMILIES[frame.family][1](draw, frame, answer, others))


def _woven(draw: Draw, *threads: Sequence[str]) -> list[str]:
    """The sentences of all threads in one random order that keeps the order within each."""
    urn = draw.distinct([place for place, thread in enumerate(threads) for _ in thread], sum(map(len, threads)))
    left = [list(thread) for thread in threads]
    return [left[place].pop(0) for place in urn]


def _went(who: str, place: str) -> str:
    return f"{who} went to the {place}."


def _took(who: str, thing: str) -> str:
    return f"{who} took the {thing}."


def _gave(who: str, thing: str, whom: str) -> str:
    return f"{who} gave the {thing} to {whom}."


def _counted(count: int, fruit: str) -> str:
    return f"{count} {fruit.removesuffix('s') if count == 1 else fruit}"


def _has(who: str, count: int, fruit: str) -> str:
    return f"{who} has {_counted(count, fruit)}."


def _others(said: Callable[[str, str], str], second: str, third: str, others: Sequence[str]) -> list[list[str]]:
    """The last two of the other answers, told of one person one after the other, or of two."""
    if second == third:
        return [[said(second, others[1]), said(second, others[2])]]
    return [[said(second, others[1])], [said(third, others[2])]]


# ---- where a person is ----


def _person_frame(draw: Draw) -> Frame:
    who = draw.pick(PEOPLE)
    places = tuple(draw.distinct(PLACES, 4))
    endings = tuple(f"Now {who} is in the {place}." for place in places)
    return Frame("person", (who,), places, endings, f"Where is {who}?")


def _person_story(draw: Draw, frame: Frame, answer: str, others: Sequence[str]) -> list[str]:
    (who,) = frame.about
    second, third = draw.distinct([one for one in PEOPLE if one != who], 2)
    last = second if draw.chance(_BUSY) else third
    return _woven(draw, [_went(who, others[0]), _went(who, answer)], *_others(_went, second, last, others))


# ---- who holds a thing ----


def _holder_frame(draw: Draw) -> Frame:
    thing = draw.pick(THINGS)
    people = tuple(draw.distinct(PEOPLE, 4))
    endings = tuple(f"Now the {thing} is with {who}." for who in people)
    return Frame("holder", (thing,), people, endings, f"Who has the {thing}?")


def _holder_story(draw: Draw, frame: Frame, answer: str, others: Sequence[str]) -> list[str]:
    (thing,) = frame.about
    second, third = draw.distinct([one for one in THINGS if one != thing], 2)
    threads = [[_took(others[1], second)], [_took(others[2], third)]]
    if draw.chance(_BUSY):
        threads = [[_took(others[1], second), _gave(others[1], second, others[2])]]
    return _woven(draw, [_took(others[0], thing), _gave(others[0], thing, answer)], *threads)


# ---- where a thing is ----


def _thing_frame(draw: Draw) -> Frame:
    thing = draw.pick(THINGS)
    places = tuple(draw.distinct(PLACES, 4))
    endings = tuple(f"Now the {thing} is in the {place}." for place in places)
    return Frame("thing", (thing,), places, endings, f"Where is the {thing}?")


def _thing_story(draw: Draw, frame: Frame, answer: str, others: Sequence[str]) -> list[str]:
    (thing,) = frame.about
    who, second, third = draw.distinct(PEOPLE, 3)
    other_thing = draw.pick([one for one in THINGS if one != thing])
    threads = _others(_went, second, second if draw.chance(_BUSY) else third, others)
    threads[0].insert(draw.pick(range(len(threads[0]))), _took(second, other_thing))
    return _woven(draw, [_went(who, others[0]), _took(who, thing), _went(who, answer)], *threads)


# ---- how many someone has ----


def _count_frame(draw: Draw) -> Frame:
    who, fruit = draw.pick(PEOPLE), draw.pick(FRUITS)
    counts = tuple(str(one) for one in draw.distinct(_COUNTS, 4))
    endings = tuple(f"Now {_has(who, int(count), fruit)}" for count in counts)
    return Frame("count", (who, fruit), counts, endings, f"How many {fruit} does {who} have?")


def _count_story(draw: Draw, frame: Frame, answer: str, others: Sequence[str]) -> list[str]:
    who, fruit = frame.about
    second, third, fourth = draw.distinct([one for one in PEOPLE if one != who], 3)
    # The start is one of the other candidates, so that it can be no answer; the change makes the answer of it. That
    # someone else has the answer's number keeps it from being the one candidate that the story does not name.
    start, change = int(others[0]), int(answer) - int(others[0])
    changes = f"{who} {'finds' if change > 0 else 'loses'} {_counted(abs(change), fruit)}."
    return _woven(
        draw,
        [_has(who, start, fruit), changes],
        [_has(second, int(others[1]), fruit)],
        [_has(third, int(others[2]), fruit)],
        [_has(fourth, int(answer), fruit)],
    )


FAMILIES: dict[str, tuple[Callable[[Draw], Frame], Callable[[Draw, Frame, str, Sequence[str]], list[str]], int]] = {
    "person": (_person_frame, _person_story, 1),
    "holder": (_holder_frame, _holder_story, 1),
    "thing": (_thing_frame, _thing_story, 1),
    "count": (_count_frame, _count_story, 1),
}
"""How a frame of each family is drawn, how its story is told, and its share."""

_URN = tuple(name for name, (_, _, parts) in FAMILIES.items() for _ in range(parts))
