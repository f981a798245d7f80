"""Warnings by kind: those that say one thing of several runs or layers are told once, with how many there are."""

from __future__ import annotations

import re
from collections.abc import Sequence

from anglekit.display.html import Markup, element

#: What differs between warnings of one kind: paths, names in quotes, and numbers.
_OWN = re.compile(r"'[^']*'|\S*[/\\]\S*|\b(?=\w*\d)[\w.,-]*\w")

#: What warnings say of arms that train one student under two names (`distillation.matching.plan_warnings`).
_ONE_STUDENT = re.compile(
    r"the arms .+? train the same student|the \w+'s random order, drawn with seed \d+, equals strategy '[^']+'"
    r"|control '[^']+' trains the same student as '[^']+'"
)


def one_student_words(warnings: Sequence[str]) -> str:
    """Return of all warnings which arms train one student under two names, in clauses; empty where none do."""
    return "; ".join(dict.fromkeys(found[0] for one in warnings if (found := _ONE_STUDENT.search(one))))


def grouped(warnings: Sequence[str]) -> list[tuple[str, ...]]:
    """Return warnings that differ in paths, quoted names and numbers alone together, each kind where it came first."""
    kinds: dict[str, list[str]] = {}
    for one in warnings:
        kinds.setdefault(_OWN.sub("…", one), []).append(one)
    return [tuple(own) for own in kinds.values()]


def warnings_markup(warnings: Sequence[str]) -> Markup:
    """Return a line for each kind of warning; where there are several of a kind, the list of them is folded."""
    if not warnings:
        return element("p", "None.")
    return element("ul", *(element("li", _kind(own)) for own in grouped(warnings)), class_="warnings")


def _kind(own: Sequence[str]) -> Markup | str:
    if len(own) == 1:
        return own[0]
    return element(
        "details",
        element("summary", f"{len(own)} like this: {own[0]}"),
        element("ul", *(element("li", one) for one in own)),
    )
