"""HTML: elements whose text is escaped, and tables for a page of our own and for a notebook."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Final

from anglekit.display.tables import TextTable, printable

_VOID = frozenset({"br", "col", "hr", "input", "link", "meta"})


class Markup(str):
    """Text that is HTML already; any other string is plain text, and is escaped when it is joined to markup."""

    __slots__ = ()


def plain(text: object) -> str:
    """Return a text with U+FFFD in place of each character that no document may hold."""
    return printable(str(text), keep="\n\t", stray="\N{REPLACEMENT CHARACTER}")


def joined(*children: object) -> Markup:
    """Return the children joined: markup as it is, anything else escaped, None left out."""
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
        **attributes: their values are escaped. True gives an attribute without a value; None and False leave it out.
            `class_` becomes class, and any other underscore a hyphen.
    """
    parts = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        written = key.rstrip("_").replace("_", "-")
        parts.append(written if value is True else f'{written}="{html.escape(plain(value))}"')
    start = f"<{' '.join(parts)}>"
    return Markup(start if name in _VOID else f"{start}{joined(*children)}</{name}>")


# A table of more rows scrolls in its own box; a text of more characters may break over lines.
_FEW_ROWS: Final = 16
_LONG: Final = 32


def page_table(table: TextTable) -> Markup:
    """Return a table of a report's page: title, note, and a box in which a wide or long table scrolls.

    Numbers are flush right, and a script can sort by every column. Empty columns are left out.
    """
    filled = table.filled
    head = element(
        "tr",
        *(
            element("th", table.columns[column], scope="col", class_="number" if column in table.numeric else None)
            for column in filled
        ),
    )
    body = [element("tr", *(_page_cell(row[column], table, column) for column in filled)) for row in table.rows]
    grid = element(
        "table", element("thead", head), element("tbody", *body), class_="sortable" if len(table.rows) > 1 else None
    )
    tall = " tall" if len(table.rows) > _FEW_ROWS else ""
    return element(
        "section",
        element("h3", table.title),
        element("p", table.note, class_="note") if table.note else None,
        element("div", grid, class_=f"scroll{tall}", role="region", aria_label=table.title, tabindex="0"),
        class_="table",
    )


def _page_cell(text: str, table: TextTable, column: int) -> Markup:
    if column in table.numeric:
        number = _leading_number(text)
        return element("td", _typeset(text), class_="number", data_value=None if number is None else f"{number:.12g}")
    if text in ("equivalent", "different", "undecided", "no verdict"):
        return element("td", element("span", text, class_=f"mark {text.replace(' ', '-')}"))
    return element("td", text, class_="long" if len(text) > _LONG else None)


def _leading_number(text: str) -> float | None:
    """Return the number that a cell starts with; the cell is sorted by it."""
    digits = ""
    for character in text.replace("%", " "):
        if character not in "+-.0123456789":
            break
        digits += character
    try:
        number = float(digits)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _typeset(text: str) -> str:
    """Return a number with its hyphen replaced by a minus sign."""
    return " ".join(f"−{word[1:]}" if word[:1] == "-" and len(word) > 1 else word for word in text.split(" "))  # noqa: RUF001


def facts_table(title: str, facts: Sequence[tuple[str, str]]) -> Markup:
    """Return a table of names and values, one pair per row."""
    rows = (joined(element("dt", name), element("dd", value)) for name, value in facts)
    return element("section", element("h3", title), element("dl", *rows), class_="facts")


_MOST_NOTEBOOK_ROWS: Final = 40


def notebook_table(table: TextTable) -> Markup:
    """Return a table as pandas writes one, so that notebooks style both alike: no title, no script, no style sheet.

    Empty columns are left out, and so are the rows beyond the first 40.
    """
    sides = {column: "right" if column in table.numeric else "left" for column in table.filled}

    def cells(name: str, row: Sequence[str]) -> Markup:
        return element("tr", *(element(name, row[column], style=f"text-align: {sides[column]}") for column in sides))

    more = len(table.rows) - _MOST_NOTEBOOK_ROWS
    return joined(
        element(
            "div",
            element(
                "table",
                element("thead", cells("th", table.columns)),
                element("tbody", *(cells("td", row) for row in table.rows[:_MOST_NOTEBOOK_ROWS])),
                class_="dataframe",
            ),
            style="overflow-x: auto",
        ),
        element("p", element("small", f"and {more} more rows")) if more > 0 else None,
        element("p", element("small", table.note)) if table.note else None,
    )
