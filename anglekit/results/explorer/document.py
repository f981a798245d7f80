"""The explorer as a document of its own, and as a notebook shows it."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass

from anglekit.display.html import Markup, element, joined
from anglekit.results.explorer.cells import ExploredCells
from anglekit.results.explorer.markup import choice, layer_panels, pair_cells, resource, student_words


def head(title: str, style: str, script: str) -> Markup:
    """Return the head of a page that fetches nothing, and in which only this style and this script apply."""
    policy = "; ".join(
        (
            "default-src 'none'",
            "img-src data:",
            f"style-src '{_digest(style)}'",
            f"script-src '{_digest(script)}'",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    return element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="referrer", content="no-referrer"),
        element("link", rel="icon", href="data:,"),
        element("title", title),
        inline("style", style),
    )


def inline(name: str, content: str) -> Markup:
    """Return a style or script of ours, as it is."""
    return Markup(f"<{name}>{content}</{name}>")


def _digest(content: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}"


@dataclass(frozen=True, eq=False)
class Explorer:
    """A Geometry to look into, in a notebook or in a browser.

    Hovering over a cell, or reaching it by the keyboard, tells its angle, interval, chance level and number of tokens;
    a click shows its histogram, and the tokens with its largest and smallest angle where the analysis kept them
    (`keep_extremes`).

    Attributes:
        html: a document that needs no other file and no network, and can be read without its script.
        cells: what it shows.
    """

    html: str
    cells: ExploredCells

    def _repr_html_(self) -> str:
        """Show the document in a frame of its own, which can reach neither the notebook nor the network."""
        return element(
            "iframe",
            srcdoc=self.html,
            sandbox="allow-scripts",
            title="Angles between the teacher's layers",
            loading="lazy",
            width="100%",
            height="760",
            style="border: 0",
        )

    def __repr__(self) -> str:
        """Return in a line how much there is to see."""
        return (
            f"<Explorer of {len(self.cells.cells):,} cells of {len(self.cells.students)} students; show it in a "
            "notebook, or write its html to a file>"
        )


def explorer_of(cells: ExploredCells, title: str, sentence: str) -> Explorer:
    """Return the explorer of some cells, under a title and a sentence."""
    keys = {student.name: f"s{number}" for number, student in enumerate(cells.students)}
    style, script = resource("explorer.css") + _PAGE_STYLE, resource("explorer.js")
    body = element(
        "body",
        element("h1", title),
        element("p", sentence),
        choice({keys[student.name]: student_words(student) for student in cells.students}) if len(keys) > 1 else None,
        layer_panels(cells, keys),
        pair_cells(cells, keys, "cells"),
        inline("script", script),
    )
    return Explorer(f"<!doctype html>\n{element('html', joined(head(title, style, script), body), lang='en')}\n", cells)


_PAGE_STYLE = (
    "body{margin:0;padding:.6rem 1rem 1rem;background:var(--ground);color:var(--ink);"
    'font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}'
    "h1{font-size:1.15rem;margin:.2rem 0 .3rem}p{margin:.3rem 0}"
)
