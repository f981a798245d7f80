"""The generator of the built-in `numbers` corpus: numbers, amounts, dates and times in English words, and in Romanian.

Five families: bare numbers, counted things (gender, "de"), dates, times of day, and appointments that hold a date and a
time. The same split, size and seed give the same rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from anglekit_data.generation import Draw, check_request, seed_of, split_of
from anglekit_data.numbers_romanian import MONTHS, WEEKDAYS, cardinal, counted, english, feminine, year_in_english

_ENGLISH_MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July", "August", "September", "October"),
    *("November", "December"),
)
_ENGLISH_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTH_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_PARTS_OF_DAY = (("in the morning", "dimineața"), ("in the afternoon", "după-amiaza"), ("in the evening", "seara"))

NOUNS: tuple[tuple[str, str, str, str, str], ...] = (
    ("tree", "trees", "m", "copac", "copaci"),
    ("horse", "horses", "m", "cal", "cai"),
    ("student", "students", "m", "student", "studenți"),
    ("leu", "lei", "m", "leu", "lei"),
    ("dog", "dogs", "m", "câine", "câini"),
    ("book", "books", "f", "carte", "cărți"),
    ("house", "houses", "f", "casă", "case"),
    ("apple", "apples", "n", "măr", "mere"),
    ("letter", "letters", "f", "scrisoare", "scrisori"),
    ("car", "cars", "f", "mașină", "mașini"),
    ("train", "trains", "n", "tren", "trenuri"),
    ("egg", "eggs", "n", "ou", "ouă"),
    ("chair", "chairs", "n", "scaun", "scaune"),
    ("kilogram", "kilograms", "n", "kilogram", "kilograme"),
    ("desk", "desks", "n", "birou", "birouri"),
)
"""English singular and plural, Romanian gender, singular and plural."""

_COUNT_FRAMES = (
    ("I have {}.", "Am {}."),
    ("we see {}.", "Vedem {}."),
    ("they buy {}.", "Cumpără {}."),
    ("she needs {}.", "Ea are nevoie de {}."),
    ("he brings {}.", "El aduce {}."),
)
_EVENTS = (
    ("the meeting", "Întâlnirea"),
    ("the concert", "Concertul"),
    ("the exam", "Examenul"),
    ("the lesson", "Lecția"),
    ("the game", "Meciul"),
)


@dataclass(frozen=True)
class Translation:
    """One row: `key` names its content and belongs to one split; `family` is a name in `FAMILIES`."""

    key: str
    source: str
    target: str
    family: str = ""


def _below(draw: Draw, limit: int) -> int:
    return draw.pick(range(limit))


def _number(draw: Draw) -> Translation:
    """A number up to 999999, its length in digits drawn first; 101 and the like are never put before thousands."""
    number = _below(draw, 10 ** draw.pick((3, 4, 5, 6, 6)))
    while _uncertain(number // 1000):
        number = _below(draw, 10**6)
    # The numbers of up to two digits are the atoms that every other number is made of: all are for training.
    return Translation(f"number {number}", english(number), cardinal(number))


def _uncertain(count: int) -> bool:
    """Whether writers differ on "de" before the noun: hundreds and one."""
    return count > 100 and count % 100 == 1


def _amount(draw: Draw) -> tuple[str, str, str]:
    one, several, gender, romanian_one, romanian_several = draw.pick(NOUNS)
    number = 1 + _below(draw, draw.pick((9, 99, 99, 999)))
    while _uncertain(number):
        number = 1 + _below(draw, 999)
    said = f"{'one' if number == 1 else english(number)} {one if number == 1 else several}"
    # Every "one of a thing" is for training, where its singular is learnt.
    return f"{'one' if number == 1 else number} {one}", said, counted(number, gender, romanian_one, romanian_several)


def _count(draw: Draw) -> Translation:
    key, said, romanian = _amount(draw)
    source, target = draw.pick(_COUNT_FRAMES)
    return Translation(key, _capital(source.format(said)), target.format(romanian))


def _day(draw: Draw) -> tuple[str, str, str]:
    month = _below(draw, 12)
    day = 1 + _below(draw, _MONTH_DAYS[month])
    ordinal, name = english(day, ordinal=True), _ENGLISH_MONTHS[month]
    said = f"the {ordinal} of {name}" if draw.chance(0.5) else f"{name} {ordinal}"
    return f"{day} {month}", said, f"{'întâi' if day == 1 else cardinal(day)} {MONTHS[month]}"


def _date(draw: Draw) -> Translation:
    key, said, romanian = _day(draw)
    if draw.chance(0.7):
        year = 1900 + _below(draw, 130)
        return Translation(f"{key} {year}", f"{said}, {year_in_english(year)}", f"{romanian} {cardinal(year)}")
    weekday = _below(draw, 7)
    return Translation(f"{key} {weekday}", f"{_ENGLISH_WEEKDAYS[weekday]}, {said}", f"{WEEKDAYS[weekday]}, {romanian}")


def _clock(draw: Draw) -> tuple[str, str, str]:
    """A time on the twelve-hour clock; hours are feminine but "ora unu", minutes neuter."""
    hour, minute = 1 + _below(draw, 12), draw.pick((0, 15, 30, 45, *range(1, 60)))
    key, following = f"{hour}:{minute}", hour % 12 + 1
    here, there = _hour(hour), _hour(following)
    if minute == 0:
        return key, f"{english(hour)} o'clock", f"ora {here}"
    if minute in (15, 30):
        part, romanian = ("quarter", "un sfert") if minute == 15 else ("half", "jumătate")
        return key, f"{part} past {english(hour)}", f"{here} și {romanian}"
    if minute == 45:
        return key, f"quarter to {english(following)}", f"{there} fără un sfert"
    if minute > 30 and draw.chance(0.7):
        left = 60 - minute
        return key, f"{_minutes(left)} to {english(following)}", f"{there} fără {_minute_words(left)}"
    return key, f"{_minutes(minute)} past {english(hour)}", f"{here} și {_minute_words(minute)}"


def _hour(hour: int) -> str:
    return "unu" if hour == 1 else feminine(cardinal(hour))


def _minutes(count: int) -> str:
    return english(count) if count % 5 == 0 else f"{english(count)} minute{'s' if count > 1 else ''}"


def _minute_words(count: int) -> str:
    return cardinal(count) if count % 5 == 0 else counted(count, "n", "minut", "minute")


def _time(draw: Draw) -> Translation:
    key, said, romanian = _clock(draw)
    english_part, romanian_part = draw.pick(_PARTS_OF_DAY)
    return Translation(key, f"at {said} {english_part}", f"la {romanian} {romanian_part}")


def _appointment(draw: Draw) -> Translation:
    day_key, day, romanian_day = _day(draw)
    clock_key, clock, romanian_clock = _clock(draw)
    event, romanian_event = draw.pick(_EVENTS)
    source = f"{_capital(event)} is on {day} at {clock}."
    return Translation(
        f"{day_key} {clock_key}", source, f"{romanian_event} este pe {romanian_day} la {romanian_clock}."
    )


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


FAMILIES: dict[str, tuple[Callable[[Draw], Translation], int]] = {
    "number": (_number, 6),
    "count": (_count, 5),
    "date": (_date, 4),
    "time": (_time, 2),
    "appointment": (_appointment, 3),
}
"""How a row of each family is drawn, and its parts in 20."""


def generate(split: str, size: int, seed: int = 0) -> list[Translation]:
    """Draw `size` rows whose content belongs to one split; the sources of held-out rows are all different.

    Another seed gives another sample of the same split.

    Raises:
        ValueError: the split is unknown, or the size is below one.
        InputError: the package num2words is missing.
    """
    check_request(split, size)
    draw = Draw(seed_of("numbers", split, seed))
    urn = [name for name, (_, parts) in FAMILIES.items() for _ in range(parts)]
    found: list[Translation] = []
    seen: set[str] = set()
    while len(found) < size:
        family = draw.pick(urn)
        row = FAMILIES[family][0](draw)
        while owner(row.key) != split:
            row = FAMILIES[family][0](draw)
        if split != "train" and row.source in seen:
            continue
        seen.add(row.source)
        found.append(Translation(row.key, row.source, row.target, family))
    return found


def owner(key: str) -> str:
    """The split that a row's content belongs to; bare numbers below 100, and one of a thing, always go to training."""
    name, _, number = key.rpartition(" ")
    return "train" if name == "one" or (name == "number" and int(number) < 100) else split_of(key)


def rows(split: str, size: int, seed: int = 0) -> list[dict[str, Any]]:
    """The rows as `source` and `target`."""
    return [{"source": row.source, "target": row.target} for row in generate(split, size, seed)]
