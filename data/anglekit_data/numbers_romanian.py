"""Romanian numerals as they stand before nouns, thousands, months and minutes, on top of the words of `num2words`.

`num2words` 0.5.14 is right in Romanian for 0 to 999 without a noun; only these are taken from it. It writes
"douăzeci și unu de mii" for "douăzeci și una de mii", "o sută doi de mii" for "o sută două mii" and "douăzeci milioane"
for "douăzeci de milioane", and knows no gender. The rules for these are here.
"""

from __future__ import annotations

from functools import cache

from anglekit.errors import InputError

MONTHS = (
    *("ianuarie", "februarie", "martie", "aprilie", "mai", "iunie", "iulie", "august", "septembrie", "octombrie"),
    *("noiembrie", "decembrie"),
)
WEEKDAYS = ("luni", "marți", "miercuri", "joi", "vineri", "sâmbătă", "duminică")

_FEMININE = {"unu": "una", "doi": "două", "doisprezece": "douăsprezece"}


@cache
def _words(number: int, language: str, to: str = "cardinal") -> str:
    try:
        from num2words import num2words  # type: ignore[import-untyped]
    except ImportError as error:
        raise InputError(
            "the built-in corpus 'numbers' takes its words from the package num2words",
            "install it: pip install num2words",
        ) from error
    return str(num2words(number, lang=language, to=to))


def english(number: int, *, ordinal: bool = False) -> str:
    """A number in English words, without the comma between thousands and hundreds."""
    return _words(number, "en", "ordinal" if ordinal else "cardinal").replace(",", "")


def year_in_english(year: int) -> str:
    """A year as it is read: "nineteen eighty-seven"."""
    return _words(year, "en", "year")


def feminine(words: str) -> str:
    """A numeral in its feminine form: its last word changes, if that word has such a form."""
    head, space, last = words.rpartition(" ")
    return f"{head}{space}{_FEMININE.get(last, last)}"


def needs_de(number: int) -> bool:
    """Whether "de" stands between the number and its noun: its last two digits are 00 or at least 20."""
    return number >= 20 and not 1 <= number % 100 <= 19


def cardinal(number: int) -> str:
    """A number in Romanian words, as one counts: 22022 is "douăzeci și două de mii douăzeci și doi".

    Raises:
        ValueError: the number is below 0 or above 999999.
    """
    if not 0 <= number <= 999_999:
        raise ValueError(f"number {number}: allowed are 0 to 999999")
    thousands, rest = divmod(number, 1000)
    said = [] if thousands == 0 else ["o mie" if thousands == 1 else counted(thousands, "f", "mie", "mii")]
    if rest or not said:
        said.append(_words(rest, "ro"))
    return " ".join(said)


def counted(number: int, gender: str, one: str, several: str) -> str:
    """A number of things in Romanian: "un tren", "două trenuri", "douăzeci și două de trenuri".

    Args:
        number: 1 to 999999.
        gender: "m", "f", or "n"; a neuter noun agrees as a masculine one where the numeral ends in 1, else as a
            feminine one.
        one: the noun after 1.
        several: the noun after every other number.

    Raises:
        ValueError: the number or the gender is not allowed.
    """
    if number < 1 or gender not in ("m", "f", "n"):
        raise ValueError(f"{number} things of gender {gender!r}: give at least 1, and m, f or n")
    if number == 1:
        return f"{'o' if gender == 'f' else 'un'} {one}"
    words = cardinal(number)
    ends_in_one = number % 10 == 1 and number % 100 != 11
    if gender == "f" or (gender == "n" and not ends_in_one):
        words = feminine(words)
    return f"{words}{' de' if needs_de(number) else ''} {several}"
