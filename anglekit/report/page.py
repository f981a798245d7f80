"""The page: verdict, how to read it, figures, tables, settings and provenance, warnings."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files
from typing import Final

import anglekit
from anglekit.comparison.family import overall_verdict
from anglekit.comparison.result import Comparison
from anglekit.display.counts import counted
from anglekit.display.html import Markup, element, facts_table, joined, page_table
from anglekit.report.figures import Drawing, ReportFigure
from anglekit.report.gather import Findings, ReportedGeometry
from anglekit.report.provenance import analysis_facts, students_table
from anglekit.report.svg import StyleSheet
from anglekit.results.chance import Standing
from anglekit.results.overview import layer_table

HOW_TO_READ: Final = (
    "Stand at a student's hidden state and look at two of the teacher's layers: below 90° (acute, a cosine above 0) a "
    "pull toward one layer is also a pull toward the other, so it matters less which of them teaches. Acute alone says "
    "little, because both directions start from the same state: unrelated vectors of one length already show 60° (a "
    "cosine of 0.5), so read every angle beside its chance level."
)

SCORES_HOW_TO_READ: Final = (
    "Each student was taught by another matching of its layers to the teacher's: if it does not matter which layer "
    "teaches, strategies differ by less than the margin, however far they all are from a student without matching "
    "(none). With one seed each, nothing is known of how much a score varies by itself, so no verdict is given."
)

_STANDINGS: Final[dict[Standing, str]] = {
    "narrower": "narrower than by chance",
    "wider": "wider than by chance",
    "mixed": "in places narrower than by chance, in places wider",
    "unresolved": "like chance",
    "unknown": "not measured",
}


def page(
    findings: Findings,
    figures: Sequence[ReportFigure],
    not_drawn: Sequence[str],
    warnings: Sequence[str],
    styles: StyleSheet,
    title: str,
) -> str:
    """Return the document; `not_drawn` holds a sentence for each figure that could not be drawn."""
    parts = [
        ("verdict", "Verdict", _verdicts(findings)),
        ("figures", "Figures", _figures(figures, not_drawn)),
        ("tables", "Tables", _tables(findings)),
        ("settings", "Settings and provenance", _settings(findings)),
        ("warnings", f"Warnings ({len(warnings)})", _warnings(warnings)),
    ]
    shown = [(key, name, content) for key, name, content in parts if content]
    reading = HOW_TO_READ if findings.geometries else SCORES_HOW_TO_READ
    links = (element("li", element("a", name, href=f"#{key}")) for key, name, _ in shown)
    sections = [
        element(
            "section",
            # The verdicts are headings themselves; this part's own heading is only for screen readers.
            element("h2", name, id=f"{key}-heading", class_="unseen" if key == "verdict" else None),
            content,
            element("div", element("h2", "How to read it"), element("p", reading), class_="reading")
            if key == "verdict"
            else None,
            id=key,
            aria_labelledby=f"{key}-heading",
        )
        for key, name, content in shown
    ]
    body = element(
        "body",
        element(
            "header",
            element("h1", title),
            element("p", findings.headline.line, class_="headline"),
            element("p", _lede(findings), class_="lede"),
            class_="top",
        ),
        element("main", element("nav", element("ul", *links), aria_label="Contents"), *sections),
        element("footer", f"Made by anglekit {anglekit.__version__}.", class_="foot"),
        _inline("script", _resource("page.js")),
    )
    style = _resource("page.css") + styles.css()
    return f"<!doctype html>\n{element('html', _head(title, style), body, lang='en')}\n"


def _head(title: str, style: str) -> Markup:
    # The page fetches nothing, and only its own scripts and styles apply.
    policy = "; ".join(
        (
            "default-src 'none'",
            "img-src data:",
            f"style-src '{_digest(style)}'",
            f"script-src '{_digest(_resource('page.js'))}'",
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
        _inline("style", style),
    )


def _inline(name: str, content: str) -> Markup:
    return Markup(f"<{name}>{content}</{name}>")


def _digest(content: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}"


def _resource(name: str) -> str:
    return files("anglekit.report").joinpath(name).read_text(encoding="utf-8")


def _lede(findings: Findings) -> str:
    parts = []
    for reported in findings.geometries:
        document = reported.geometry.document
        teacher, students = document.provenance.teacher.name or "a teacher", len(document.provenance.students)
        text = f"{teacher} seen from {counted(students, 'student')}"
        if document.counts.examples is not None:
            text += f" on {counted(document.counts.examples, 'example')}"
        source = document.provenance.probe.source
        parts.append(text + (f" of {source}" if source else ""))
    if findings.scores:
        number = sum(len(table[["strategy", "init", "seed"]].drop_duplicates()) for table in findings.scores)
        parts.append(f"scores of {counted(number, 'student')}")
    return "; ".join(parts) + "."


def _verdicts(findings: Findings) -> Markup:
    # What stands above all is not repeated in its box.
    reason = "" if findings.not_compared == findings.headline.line else findings.not_compared
    named, first = len(findings.geometries) > 1, findings.headline.line
    alone = [_chance_box(reported, first, named=named) for reported in findings.geometries]
    if findings.comparison is None:
        refused = _box("Does it matter which layer?", [("not compared", "undecided")], "undecided", reason, (), ())
        return joined(*alone, refused)
    return joined(_comparison_box(findings.comparison), *alone)


def _comparison_box(comparison: Comparison) -> Markup:
    parts = {family.part for family in comparison.families}
    answers = [
        (f"{part}s: {(own := overall_verdict([one for one in comparison.families if one.part == part]))}", own)
        for part in ("score", "angle")
        if part in parts
    ]
    return _box(
        "Does it matter which layer?",
        answers or [(comparison.verdict, comparison.verdict)],
        comparison.verdict,
        "",  # the line stands above all
        comparison.headline.beneath,
        comparison.method_lines(),
    )


def _chance_box(reported: ReportedGeometry, first: str, *, named: bool) -> Markup:
    verdict = reported.verdict
    question = "How do the angles compare with chance?" + (f" {reported.label}" if named else "")
    answers = [(_STANDINGS[verdict.standing], "plain")]
    sentence = "" if verdict.sentence == first else verdict.sentence
    return _box(question, answers, "plain", sentence, verdict.reasons, ())


def _box(
    question: str,
    answers: Sequence[tuple[str, str]],
    tone: str,
    sentence: str,
    reasons: Sequence[str],
    method: Sequence[str],
) -> Markup:
    return element(
        "div",
        element("h3", question, class_="question"),
        element("p", *(element("span", one, class_=f"answer {_tone(own)}") for one, own in answers), class_="answers"),
        element("p", sentence, class_="sentence") if sentence else None,
        element("ul", *(element("li", _capital(one)) for one in reasons)) if reasons else None,
        element("details", element("summary", "How this was decided"), *(element("p", line) for line in method))
        if method
        else None,
        class_=f"verdict {_tone(tone)}",
    )


def _tone(verdict: str) -> str:
    """Return the class of a verdict in the page's style."""
    return verdict.replace(" ", "-")


def _capital(sentence: str) -> str:
    return f"{sentence[:1].upper()}{sentence[1:]}"


def _figures(figures: Sequence[ReportFigure], not_drawn: Sequence[str]) -> Markup:
    own = [figure for figure in figures if figure.by_student]
    students = list(
        dict.fromkeys(one.task.student for figure in own for one in figure.drawings if one.task.student is not None)
    )
    keys = {student: f"s{number}" for number, student in enumerate(students)}
    missing = f"{len(not_drawn)} figure{'s' if len(not_drawn) > 1 else ''} that this could not fill"
    return joined(
        *(_figure(figure, keys) for figure in figures if not figure.by_student),
        element("h3", "Student by student", class_="part") if own else None,
        _picker(keys) if len(keys) > 1 else None,
        *(_figure(figure, keys) for figure in own),
        element("details", element("summary", missing), element("ul", *(element("li", one) for one in not_drawn)))
        if not_drawn
        else None,
    )


def _picker(keys: dict[str, str]) -> Markup:
    return element(
        "div",
        element("label", "Student", for_="student"),
        element("select", *(element("option", name, value=key) for name, key in keys.items()), id="student"),
        element("button", "‹", type="button", data_step="-1", aria_label="Previous student"),  # noqa: RUF001
        element("button", "›", type="button", data_step="1", aria_label="Next student"),  # noqa: RUF001
        class_="picker",
        hidden=True,
    )


def _figure(figure: ReportFigure, keys: dict[str, str]) -> Markup:
    single = len(figure.drawings) == 1
    student = " --student NAME" if figure.by_student else ""
    command = f"anglekit plot DIR --figure {figure.name}{student} --out {figure.name}.pdf"
    return element(
        "figure",
        element("figcaption", element("h3", figure.title), element("p", figure.reading)),
        *(_drawing(drawing, keys, single=single) for drawing in figure.drawings),
        element("p", "Draw it for print: ", element("code", command), class_="command"),
        id=f"figure-{figure.name}",
    )


def _drawing(drawing: Drawing, keys: dict[str, str], *, single: bool) -> Markup:
    student = drawing.task.student
    name = ", ".join(part for part in (drawing.task.label, student) if part)
    facts = element("p", drawing.facts, class_="note")
    # A student's name is in the drawing; its heading is only for screen readers.
    unseen = "unseen" if student is not None else None
    heading = element("h4", name, class_=unseen) if name and not (single and student is None) else None
    if drawing.slim:
        box = element("div", drawing.svg, class_="slim")
    elif drawing.narrow is None:
        box = element("div", drawing.svg, class_="pan", role="region", aria_label=f"Figure of {name}", tabindex="0")
    else:
        box = joined(element("div", drawing.svg, class_="wide"), element("div", drawing.narrow, class_="narrow"))
    if student is None:
        return element("div", heading, facts, box, class_="drawn")
    return element("div", heading, facts, box, class_="drawn student", data_student=keys[student])


def _tables(findings: Findings) -> Markup:
    tables = [] if findings.comparison is None else findings.comparison.tables()
    for reported in findings.geometries:
        title = "Angles by student and layer" + (f", {reported.label}" if len(findings.geometries) > 1 else "")
        tables.append(layer_table(reported.verdict.rows, title))
    return joined(*map(page_table, tables))


def _settings(findings: Findings) -> Markup:
    named = len(findings.geometries) > 1
    parts = []
    for reported in findings.geometries:
        own = f", {reported.label}" if named else ""
        parts.append(facts_table(f"Analysis{own}", analysis_facts(reported)))
        parts.append(page_table(students_table(reported.geometry, f"Teacher and students{own}")))
    sources = list(dict.fromkeys(str(source) for table in findings.scores for source in table["source"]))
    if sources:
        parts.append(facts_table("Scores", [("read from", ", ".join(sources))]))
    return joined(*parts)


def _warnings(warnings: Sequence[str]) -> Markup:
    if not warnings:
        return element("p", "None.")
    return element("ul", *(element("li", one) for one in warnings), class_="warnings")
