"""HTML from python values: everything that comes from data is escaped, once, here."""

from __future__ import annotations

import html

__all__ = ["Markup", "element", "joined", "plain"]

_VOID = frozenset({"br", "col", "hr", "link", "meta"})


class Markup(str):
    """Text that is HTML already; any other string is text, and is escaped where it meets markup."""

    __slots__ = ()


def plain(text: object) -> str:
    """Return a text without the characters that no document may hold; a stray one shows as U+FFFD."""
    return "".join(
        character if character.isprintable() or character in "\n\t" else "\N{REPLACEMENT CHARACTER}"
        for character in str(text)
    )


def joined(*children: object) -> Markup:
    """Return children one after the other: markup as it is, anything else escaped, None left out."""
    return Markup(
        "".join(
            child if isinstance(child, Markup) else html.escape(plain(child)) for child in children if child is not None
        )
    )


def element(name: str, /, *children: object, **attributes: object) -> Markup:
    """Return an element.

    Args:
        name: of the tag.
        *children: markup, or text that is escaped.
        **attributes: their values are escaped; True stands for an attribute without a value, None and False leave it
            out; `class_` is class, and an underscore a hyphen.
    """
    parts = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        written = key.rstrip("_").replace("_", "-")
        parts.append(written if value is True else f'{written}="{html.escape(plain(value))}"')
    start = f"<{' '.join(parts)}>"
    return Markup(start if name in _VOID else f"{start}{joined(*children)}</{name}>")
