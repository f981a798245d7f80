"""The `numbers` corpus: Romanian read back by a reader of its own, and forms checked against a list made by hand."""

from __future__ import annotations

import re
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anglekit.errors import InputError
from anglekit_data import numbers, numbers_romanian
from anglekit_data.generation import SPLITS
from anglekit_data.numbers_romanian import MONTHS, cardinal, counted, english, feminine, needs_de

UNITS = {
    "zero": 0,
    "unu": 1,
    "una": 1,
    "un": 1,
    "o": 1,
    "doi": 2,
    "două": 2,
    "trei": 3,
    "patru": 4,
    "cinci": 5,
    "șase": 6,
    "șapte": 7,
    "opt": 8,
    "nouă": 9,
    "zece": 10,
    "unsprezece": 11,
    "doisprezece": 12,
    "douăsprezece": 12,
    "treisprezece": 13,
    "paisprezece": 14,
    "cincisprezece": 15,
    "șaisprezece": 16,
    "șaptesprezece": 17,
    "optsprezece": 18,
    "nouăsprezece": 19,
    "douăzeci": 20,
    "treizeci": 30,
    "patruzeci": 40,
    "cincizeci": 50,
    "șaizeci": 60,
    "șaptezeci": 70,
    "optzeci": 80,
    "nouăzeci": 90,
}


def read(words):
    """The value of a Romanian numeral: an oracle that shares nothing with the generator."""
    total = group = last = 0
    for word in words.split():
        if word in ("sută", "sute"):
            group, last = group - last + 100 * last, 0
        elif word in ("mie", "mii"):
            total, group, last = total + 1000 * group, 0, 0
        elif word not in ("și", "de"):
            last = UNITS[word]
            group += last
    return total + group


@given(st.integers(0, 999_999))
def test_cardinals_are_read_back(number):
    assert read(cardinal(number)) == number


@given(st.integers(2, 999_999), st.sampled_from("mfn"))
def test_counted_things_are_read_back_with_de_where_it_belongs(number, gender):
    said = counted(number, gender, "X", "Y")
    assert said.endswith(" Y")
    assert read(said.removesuffix(" Y")) == number
    assert (" de Y" in said) == (number % 100 == 0 or number % 100 > 19)


def test_the_reader_notices_a_wrong_numeral():
    assert read("o sută doi de mii") == 102_000
    assert read("o sută douăzeci și unu") != 122
    with pytest.raises(KeyError):
        read("twenty")


@pytest.mark.parametrize(
    ("number", "gender", "one", "several", "expected"),
    [
        (1, "m", "copac", "copaci", "un copac"),
        (1, "f", "carte", "cărți", "o carte"),
        (1, "n", "tren", "trenuri", "un tren"),
        (2, "m", "copac", "copaci", "doi copaci"),
        (2, "f", "carte", "cărți", "două cărți"),
        (2, "n", "tren", "trenuri", "două trenuri"),
        (12, "m", "copac", "copaci", "doisprezece copaci"),
        (12, "n", "tren", "trenuri", "douăsprezece trenuri"),
        (19, "f", "carte", "cărți", "nouăsprezece cărți"),
        (20, "f", "carte", "cărți", "douăzeci de cărți"),
        (21, "m", "copac", "copaci", "douăzeci și unu de copaci"),
        (21, "f", "carte", "cărți", "douăzeci și una de cărți"),
        (21, "n", "tren", "trenuri", "douăzeci și unu de trenuri"),
        (22, "m", "copac", "copaci", "douăzeci și doi de copaci"),
        (22, "n", "tren", "trenuri", "douăzeci și două de trenuri"),
        (100, "f", "carte", "cărți", "o sută de cărți"),
        (102, "m", "leu", "lei", "o sută doi lei"),
        (102, "f", "carte", "cărți", "o sută două cărți"),
        (119, "m", "leu", "lei", "o sută nouăsprezece lei"),
        (120, "m", "leu", "lei", "o sută douăzeci de lei"),
    ],
)
def test_gender_and_de(number, gender, one, several, expected):
    assert counted(number, gender, one, several) == expected


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (0, "zero"),
        (12_000, "douăsprezece mii"),
        (20_000, "douăzeci de mii"),
        (21_000, "douăzeci și una de mii"),
        (22_022, "douăzeci și două de mii douăzeci și doi"),
        (100_000, "o sută de mii"),
        (102_000, "o sută două mii"),
        (112_000, "o sută douăsprezece mii"),
        (119_001, "o sută nouăsprezece mii unu"),
        (999_999, "nouă sute nouăzeci și nouă de mii nouă sute nouăzeci și nouă"),
    ],
)
def test_thousands_where_num2words_errs(number, expected):
    assert cardinal(number) == expected


@pytest.mark.parametrize("number", [-1, 1_000_000])
def test_a_number_out_of_range_is_refused(number):
    with pytest.raises(ValueError, match="allowed are 0 to 999999"):
        cardinal(number)


@pytest.mark.parametrize(("number", "gender"), [(0, "m"), (3, "x")])
def test_a_count_that_cannot_be_said_is_refused(number, gender):
    with pytest.raises(ValueError, match="at least 1"):
        counted(number, gender, "tren", "trenuri")


def test_a_missing_num2words_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "num2words", None)
    numbers_romanian._words.cache_clear()
    with pytest.raises(InputError, match="pip install num2words"):
        cardinal(3)
    monkeypatch.undo()
    assert cardinal(3) == "trei"


@pytest.fixture(scope="module")
def made():
    return {split: numbers.generate(split, 500 if split != "train" else 24_000) for split in SPLITS}


def test_content_belongs_to_one_split(made):
    keys = {split: {row.key for row in made[split]} for split in made}
    assert not keys["train"] & (keys["validation"] | keys["test"])
    assert not keys["validation"] & keys["test"]


def test_all_families_occur_and_held_out_words_occur_in_training(made):
    assert set(Counter(row.family for row in made["validation"])) == set(numbers.FAMILIES)
    words = {
        split: {word for row in made[split] for word in re.findall(r"\w+", f"{row.source} {row.target}")}
        for split in made
    }
    assert words["validation"] | words["test"] <= words["train"]


def test_bare_numbers_and_dates_say_the_same_on_both_sides(made):
    for row in made["train"][:4000]:
        if row.family == "number":
            assert row.source == english(int(row.key.split()[1]))
            assert read(row.target) == int(row.key.split()[1])
        if row.family == "date" and row.key.count(" ") == 2 and row.target.split()[-1] not in MONTHS:
            day, month, year = map(int, row.key.split())
            said = re.fullmatch(rf"(.+) {MONTHS[month]} (.+)", row.target)
            assert said is not None
            assert (said[1], read(said[2])) == ("întâi" if day == 1 else cardinal(day), year)


def test_times_say_the_minutes_that_they_should(made):
    seen = Counter()
    for row in made["train"]:
        if row.family != "time":
            continue
        hour, minute = map(int, row.key.split(":"))
        said = re.fullmatch(r"la (?:ora )?(.+?)(?: (și|fără) (.+))? (?:dimineața|după-amiaza|seara)", row.target)
        assert said is not None
        if said[3] is None:
            assert minute == 0
            value = 0
        else:
            words = re.sub(r"( de)? minut(e)?$", "", said[3])
            value = {"un sfert": 15, "jumătate": 30}.get(words) or read(words)
        back = said[2] == "fără"
        assert value == (60 - minute if back else minute)
        assert read(said[1]) == (hour % 12 + 1 if back else hour)
        assert "doi" not in said[1].split()
        seen["fără" if back else "și"] += 1
    assert min(seen.values()) > 100


def test_hours_are_feminine():
    assert feminine("doisprezece") == "douăsprezece"
    assert feminine("trei") == "trei"
    assert not needs_de(119)
    assert needs_de(120)
