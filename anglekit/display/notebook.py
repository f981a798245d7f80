"""How a notebook shows a Geometry and a comparison: the verdict, then a table; no script, no style sheet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from anglekit.comparison.compare import Comparison
from anglekit.comparison.text import Table, closing_lines, comparison_tables
from anglekit.display.html import Markup, element, joined
from anglekit.report.layers import LAYER_NOTE, layers_of
from anglekit.results.chance import against_chance
from anglekit.results.geometry import Geometry

__all__ = ["comparison_html", "geometry_html"]

_MOST_ROWS: Final = 40


def geometry_html(geometry: Geometry) -> str:
    """Return a Geometry as HTML: whom it is about, its verdict against chance, and a row for each student's layer."""
    verdict = against_chance(geometry)
    teacher = (geometry.provenance.get("teacher") or {}).get("name", "teacher")
    students = geometry.students
    named = ", ".join(students) if len(students) <= 5 else f"{len(students)} students"
    return element(
        "div",
        element("p", element("strong", f"Geometry of {teacher} seen from {named}")),
        element("p", verdict.sentence),
        _table(layers_of(verdict.rows, "Angles by student and layer")),
        element("p", element("small", LAYER_NOTE)),
    )


def comparison_html(comparison: Comparison) -> str:
    """Return a comparison as HTML: the answer, its reasons, and the tables, all but the first folded."""
    tables = comparison_tables(comparison)
    return element(
        "div",
        element("p", element("strong", comparison.sentence)),
        element("ul", *(element("li", reason) for reason in comparison.reasons)),
        *(joined(element("p", table.title), _table(table)) for table in tables[:1]),
        *(element("details", element("summary", table.title), _table(table)) for table in tables[1:]),
        _list(comparison.notes),
        element("p", element("small", " ".join(closing_lines(comparison)))),
    )


def _list(notes: Sequence[str]) -> Markup | None:
    return element("ul", *(element("li", f"note: {note}") for note in notes)) if notes else None


def _table(table: Table) -> Markup:
    """Return a table as pandas writes one, so that notebooks style it alike; columns that say nothing are left out."""
    kept = [column for column in range(len(table.header)) if any(row[column] for row in table.rows)]

    def cells(name: str, row: Sequence[str]) -> Markup:
        sides = {column: "right" if column in table.numeric else "left" for column in kept}
        return element("tr", *(element(name, row[column], style=f"text-align: {sides[column]}") for column in kept))

    more = len(table.rows) - _MOST_ROWS
    return joined(
        element(
            "div",
            element(
                "table",
                element("thead", cells("th", table.header)),
                element("tbody", *(cells("td", row) for row in table.rows[:_MOST_ROWS])),
                class_="dataframe",
            ),
            style="overflow-x: auto",
        ),
        element("p", element("small", f"and {more} more rows")) if more > 0 else None,
    )
