"""A number of things in words."""

from __future__ import annotations


def counted(number: int, thing: str, kind: str = "", *, plural: str = "") -> str:
    """Return a number of things with the plural that it calls for, such as `2,000 validation examples`.

    Args:
        number: of them.
        thing: the word for one of them.
        kind: which kind of them; may be empty.
        plural: the word for several; "" adds an s.
    """
    name = thing if number == 1 else plural or f"{thing}s"
    return f"{number:,} {f'{kind} ' if kind else ''}{name}"
