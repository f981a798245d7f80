"""What a notebook shows of a Geometry and of a comparison."""

from __future__ import annotations

from anglekit.geometry.chance import against_chance
from anglekit.geometry.compare import Comparison
from anglekit.geometry.compare_text import comparison_tables
from anglekit.geometry.results import Geometry
from anglekit.report.gather import Analysis
from anglekit.report.markup import Markup, element, joined
from anglekit.report.tables import html_table, layer_table

__all__ = ["comparison_html", "geometry_html"]


def geometry_html(geometry: Geometry) -> Markup:
    """Return the verdict against chance and a row for each student layer, all text escaped."""
    verdict = against_chance(geometry)
    teacher = str(geometry.provenance["teacher"]["name"])
    analysis = Analysis(teacher, teacher, geometry, verdict)
    return joined(element("p", element("strong", verdict.sentence)), layer_table(analysis, named=False))


def comparison_html(comparison: Comparison) -> Markup:
    """Return the answer, its reasons and the tables of a comparison, all text escaped."""
    reasons = element("ul", *(element("li", reason) for reason in comparison.reasons))
    tables = [html_table(table) for table in comparison_tables(comparison)]
    return joined(element("p", element("strong", comparison.sentence)), reasons, *tables)
