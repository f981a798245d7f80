"""Tables as HTML: numbers flush right, every header ready to be sorted by."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Final

from anglekit.comparison.sources import UNRECORDED, student_arms
from anglekit.comparison.text import Table
from anglekit.report.gather import Analysis
from anglekit.report.layers import LAYER_NOTE, layers_of

__all__ = ["Markup", "element", "facts_table", "html_table", "joined", "layer_table", "plain", "students_table"]


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


_FEW_ROWS: Final = 16
_LONG: Final = 32


def html_table(table: Table, *, note: str = "") -> Markup:
    """Return a table in a box of its own, in which a wide one scrolls.

    Columns in which no row says anything are left out.

    Args:
        table: texts.
        note: a sentence under its title.
    """
    kept = [column for column in range(len(table.header)) if any(row[column] for row in table.rows)]
    head = element(
        "tr",
        *(
            element("th", table.header[column], scope="col", class_="number" if column in table.numeric else None)
            for column in kept
        ),
    )
    body = [element("tr", *(_cell(row[column], table, column) for column in kept)) for row in table.rows]
    grid = element(
        "table",
        element("thead", head),
        element("tbody", *body),
        class_="sortable" if len(table.rows) > 1 else None,
    )
    tall = " tall" if len(table.rows) > _FEW_ROWS else ""
    return element(
        "section",
        element("h3", table.title),
        element("p", note, class_="note") if note else None,
        element("div", grid, class_=f"scroll{tall}", role="region", aria_label=table.title, tabindex="0"),
        class_="table",
    )


def _cell(text: str, table: Table, column: int) -> Markup:
    if column in table.numeric:
        number = _leading_number(text)
        return element("td", _typeset(text), class_="number", data_value=None if number is None else f"{number:.12g}")
    if text in ("equivalent", "different", "undecided"):
        return element("td", element("span", text, class_=f"mark {text}"))
    return element("td", text, class_="long" if len(text) > _LONG else None)


def _leading_number(text: str) -> float | None:
    """Return the number that a cell starts with, which it is sorted by."""
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
    """Return a number with a minus sign for the hyphen."""
    return " ".join(f"−{word[1:]}" if word[:1] == "-" and len(word) > 1 else word for word in text.split(" "))  # noqa: RUF001


def layer_table(analysis: Analysis, *, named: bool) -> Markup:
    """Return the table of every student's layers.

    Args:
        analysis: a Geometry.
        named: whether its label stands in the title.
    """
    title = "Angles by student and layer" + (f", {analysis.label}" if named else "")
    return html_table(layers_of(analysis.verdict.rows, title), note=LAYER_NOTE)


def students_table(analysis: Analysis, *, named: bool) -> Markup:
    """Return the table of teacher and students: how each was made, and the hash of its weights."""
    provenance = analysis.geometry.provenance
    arms = student_arms(analysis.geometry)
    rows = []
    teacher = provenance.get("teacher") or {}
    for role, entry in (("teacher", teacher), *(("student", entry) for entry in provenance["students"])):
        strategy, init, seed = arms[str(entry["name"])] if role == "student" else ("", "", None)
        depth = entry.get("depth") or {}
        rows.append(
            (
                role,
                str(entry.get("name", "")),
                strategy if entry.get("strategy") is not None else "",
                "" if init == UNRECORDED else init,
                "" if seed is None else str(seed),
                str(entry.get("architecture") or ""),
                " + ".join(str(blocks) for blocks in depth.values()),
                str(entry.get("width") or ""),
                str(entry.get("source") or ""),
                str(entry.get("sha256") or ""),
            )
        )
    header = ("role", "name", "strategy", "init", "seed", "architecture", "blocks", "width", "source", "sha256")
    title = "Teacher and students" + (f", {analysis.label}" if named else "")
    return html_table(Table(title, header, tuple(rows), frozenset({4, 6, 7})))


def facts_table(title: str, facts: Sequence[tuple[str, str]]) -> Markup:
    """Return names and values, one pair under the other."""
    rows = (joined(element("dt", name), element("dd", value)) for name, value in facts)
    return element("section", element("h3", title), element("dl", *rows), class_="facts")
