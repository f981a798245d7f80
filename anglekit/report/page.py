"""The page: the verdict, the scores and sizes, the angles beside chance; everything else is folded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from typing import Final

import msgspec

import anglekit
from anglekit.comparison.choice import Choice
from anglekit.comparison.family import Family, overall_verdict
from anglekit.comparison.result import Comparison
from anglekit.comparison.wording import listed, weights_words, whose_words
from anglekit.display.counts import counted
from anglekit.display.html import Markup, element, facts_table, joined, page_table
from anglekit.display.tables import TextTable
from anglekit.report.answers import AnswerTable, answer_markup, answer_tables, brief_answers, glossary
from anglekit.report.figures import SHOWN_AS_CELLS, Drawing, ReportFigure
from anglekit.report.gather import Findings, ReportedGeometry
from anglekit.report.provenance import analysis_facts, students_table
from anglekit.report.svg import StyleSheet
from anglekit.report.warning_kinds import grouped, one_student_words, warnings_markup
from anglekit.results.chance import Standing
from anglekit.results.explorer.document import head, inline
from anglekit.results.explorer.markup import choice, layer_panels, pair_cells, resource, student_words
from anglekit.results.overview import layer_table
from anglekit.vocabulary import CONTROL_LABELS

HOW_TO_READ: Final = (
    "Stand at a student's hidden state and look at two of the teacher's layers: below 90° (acute, a cosine above 0) a "
    "pull toward one layer is also a pull toward the other, so it matters less which of them teaches. Acute alone says "
    "little, because both directions start from the same state: unrelated vectors of one length already show 60° (a "
    "cosine of 0.5), so read every angle beside what mismatched text gives."
)

SCORES_HOW_TO_READ: Final = (
    "Each student was taught by another matching of its layers to the teacher's: if it does not matter which layer "
    "teaches, strategies differ by less than the margin, however far they all are from a student without matching "
    "(none). With fewer than three seeds nothing tells how other students trained alike would score, so a verdict is "
    "about these students only."
)

#: Where nearly all pairs lie beside the null, whose name stands for `{}`.
_STANDINGS: Final[dict[Standing, str]] = {
    "narrower": "narrower than with {}",
    "wider": "wider than with {}: neither good nor bad",
    "mixed": "in places narrower than with {}, in places wider",
    "unresolved": "as with {}: no evidence either way",
    "unknown": "not measured",
}
_MORE_THAN_CHANCE: Final[dict[Standing, str]] = {
    "narrower": "They are: seen from the students, the teacher's layers lie nearer together than with {}",
    "wider": (
        "They differ, but not as a common pull would make them (one direction toward several of the teacher's layers "
        "at once)"
    ),
    "mixed": "In places",
    "unresolved": "They are not: nearly all are as with {}",
    "unknown": "Not measured",
}
_NO_SCORES: Final = "No scores came, so no strategy can be chosen: give the directory of the sweep, too."
_FIGURE_WORDS: Final = (
    "Figures use the commands' names: random init is new weights, teacher init the teacher's weights, random-teacher "
    "the untrained teacher, alone the labels alone. Their chance is, of angles, mismatched text or unrelated vectors, "
    "as each says; of scores it is guessing."
)
_ALL_STUDENTS: Final = "Shows all students, whatever is chosen above."
_MEANINGS: Final[dict[Standing, str]] = {
    "narrower": (
        "This speaks for the claim that it matters little which layer teaches: from the student the layers look nearer "
        "to one direction than its mere distance from them explains."
    ),
    "wider": (
        "This is neither good nor bad for the students, and favours no strategy: a student that stands nearer to the "
        "teacher's layers than mismatched text does sees them further apart. That angles are acute is here no sign "
        "that layers pull alike."
    ),
    "mixed": "Which it is depends on layer and pair, so by itself it favours no strategy: see the cells.",
    "unresolved": "Any state as far from the layers would see the same: these angles say nothing about the student.",
    "unknown": "With nothing to compare it with an angle says little.",
}
#: More strategies that are worse than the best are counted, not named.
_MOST_WORSE: Final = 3
#: Of each verdict, what it says of the strategies.
_VERDICTS: Final[dict[str, str]] = {
    "different": "strategies differ",
    "equivalent": "strategies are alike",
    "undecided": "undecided",
    "no verdict": "no verdict",
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
    keys, tables = _student_keys(findings), answer_tables(findings)
    kinds = len(grouped(warnings))
    of_kinds = f" of {counted(kinds, 'kind')}" if kinds < len(warnings) else ""
    number = f"{counted(len(warnings), 'warning')}{of_kinds}" if warnings else "No warnings"
    open_parts = [
        (
            "verdict",
            "Scores",
            joined(
                _verdict(findings),
                _confounds(findings),
                _twins(findings),
                _answers(tables, findings, keys),
                _choice(findings, keys),
            ),
        ),
        ("angles", "Angles" if findings.geometries else "How to read the scores", _angles(tables, findings, keys)),
    ]
    folded = [
        ("figures", f"Figures for print ({len(figures)})", _figures(figures, not_drawn, keys)),
        ("tables", "All tables", _tables(findings)),
        ("settings", "Settings and provenance", _settings(findings)),
        ("warnings", number, warnings_markup(warnings)),
    ]
    shown = [(key, name, content) for key, name, content in open_parts if content]
    folds = [(key, name, content) for key, name, content in folded if content]
    links = (element("li", element("a", name, href=f"#{key}")) for key, name, _ in (*shown, *folds))
    sections = [
        element(
            "section",
            # The verdict is a heading itself; this part's own heading is only for screen readers.
            element("h2", name, id=f"{key}-heading", class_="unseen" if key == "verdict" else None),
            content,
            id=key,
            aria_labelledby=f"{key}-heading",
        )
        for key, name, content in shown
    ]
    sections += [
        element("details", element("summary", element("h2", name)), element("div", content), id=key, class_="fold")
        for key, name, content in folds
    ]
    script = resource("explorer.js") + _resource("page.js")
    body = element(
        "body",
        element(
            "header",
            element("h1", title),
            _first(tables, findings),
            _brief(tables, findings),
            class_="top",
        ),
        element("main", element("nav", element("ul", *links), aria_label="Contents"), *sections),
        element("footer", f"Made by anglekit {anglekit.__version__}: {_lede(findings)}", class_="foot"),
        inline("script", script),
    )
    style = resource("explorer.css") + _resource("page.css") + styles.css()
    return f"<!doctype html>\n{element('html', joined(head(title, style, script), body), lang='en')}\n"


def _resource(name: str) -> str:
    return files("anglekit.report").joinpath(name).read_text(encoding="utf-8")


def _student_keys(findings: Findings) -> dict[str, str]:
    """Return a key in the page for each student, by name; scores without a Geometry count by strategy and weights."""
    names = [
        student.name for reported in findings.geometries for student in reported.geometry.document.provenance.students
    ]
    return {name: f"s{number}" for number, name in enumerate(dict.fromkeys(names))}


def _arm_keys(findings: Findings, keys: Mapping[str, str]) -> dict[tuple[str, str], list[str]]:
    """Return the keys of the students of each strategy and initialisation."""
    arms: dict[tuple[str, str], list[str]] = {}
    for reported in findings.geometries:
        for name, arm in reported.geometry.arms.items():
            arms.setdefault((arm.strategy, arm.init), []).append(keys[name])
    return arms


def _choice(findings: Findings, keys: Mapping[str, str]) -> Markup | None:
    students = [
        student for reported in findings.geometries for student in reported.geometry.document.provenance.students
    ]
    # A seed that all share tells none apart.
    several = len({student.seed for student in students}) > 1
    words = {
        keys[student.name]: student_words(student if several else msgspec.structs.replace(student, seed=None))
        for student in students
    }
    return choice(words) if len(words) > 1 else None


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


def _first(tables: Sequence[AnswerTable], findings: Findings) -> Markup:
    """Return what stands above all: what to use, and why; where nothing is compared, why not."""
    answers = [one for table in tables for one in brief_answers(table)][:1]
    if not answers:
        lacking = None if tables else element("strong", _NO_SCORES)
        return element("p", lacking, " " if lacking else None, findings.headline.line, class_="headline")
    (use, why) = answers[0]
    words = element("a", "What these words mean", href="#glossary")
    return element("p", element("strong", use), f" {why} ", words, ".", class_="headline")


def _brief(tables: Sequence[AnswerTable], findings: Findings) -> Markup | None:
    """Return the answers for the other weights, and whether the geometry is more than chance."""
    answers = [one for table in tables for one in brief_answers(table)][1:]
    parts = [element("li", element("strong", use), f" {why}") for use, why in answers]
    stopped = findings.comparison.stopped if findings.comparison is not None else ()
    if stopped:
        words = "; ".join(f"{one.words}, {weights_words(one.init)}" for one in stopped)
        parts.append(element("li", element("strong", "Left out:"), f" stopped as hopeless in training: {words}."))
    parts += [element("li", *_geometry_answer(one, findings)) for one in findings.geometries]
    return element("ul", *parts, class_="brief") if parts else None


def _geometry_answer(reported: ReportedGeometry, findings: Findings) -> Sequence[object]:
    verdict = reported.verdict
    label = f" ({reported.label})" if len(findings.geometries) > 1 else ""
    counts = (
        f": of {verdict.pairs} pairs of the teacher's layers, each counted at every layer of every student, "
        f"{verdict.narrower} are surely narrower, {verdict.wider} surely wider. "
        if verdict.pairs
        else ". "
    )
    standing = _MORE_THAN_CHANCE[verdict.standing].format(verdict.null)
    return (
        element("strong", f"Are the angles more than those of {verdict.null}?{label}"),
        f" {standing}{counts}{_MEANINGS[verdict.standing].partition(':')[0].rstrip('.')} (",
        element("a", "the angles", href="#angles"),
        ").",
    )


def _verdict(findings: Findings) -> Markup:
    if findings.comparison is not None:
        return _comparison_box(findings.comparison)
    # What stands above all is not repeated in its box.
    reason = "" if findings.not_compared == findings.headline.line else findings.not_compared
    return _box("Does it matter which layer?", [("not compared", "undecided")], "undecided", reason, ())


def _comparison_box(comparison: Comparison) -> Markup:
    answers = [answer for part in ("score", "angle") for answer in _part_verdicts(comparison, part)]
    headline = comparison.headline
    return _box(
        "Does it matter which layers are matched?",
        answers or [(_VERDICTS[comparison.verdict], comparison.verdict)],
        comparison.verdict,
        "",
        # What to use stands above all, and every score in the table below; the lines are for who copies them.
        [headline.line, headline.numbers, *headline.reasons, *comparison.method_lines()],
    )


def _part_verdicts(comparison: Comparison, part: str) -> list[tuple[str, str]]:
    """Return the verdicts on scores or on angles, in words and themselves, one for each kind of weights.

    Where all of them say the same, it is said once.
    """
    own = [family for family in comparison.families if family.part == part]
    chosen = {choice.init: choice for choice in comparison.choices} if part == "score" else {}
    said = [(family, _family_words(family, chosen.get(family.init))) for family in own]
    # A badge stands by itself: with few seeds it says whom it is about.
    what = f"{part}s of these students" if any(family.about == "these students" for family in own) else f"{part}s"
    if len({words for _, words in said}) > 1:
        return [(f"{what}, {whose_words(family.init)}: {words}", family.verdict) for family, words in said]
    return [(f"{what}: {said[0][1]}", overall_verdict(own))] if said else []


def _family_words(family: Family, choice: Choice | None) -> str:
    """Return what is told from what; of angles, which two strategies are farthest apart."""
    if family.verdict == "undecided" and choice is not None and choice.alike:
        return choice.alike
    if family.verdict != "different":
        return _VERDICTS[family.verdict]
    if choice is None or not choice.worse:
        first, second = family.key["strategy_a"], family.key["strategy_b"]
        return f"{first} and {second} differ{' most' if len(family.rows) > 1 else ''}"
    if not choice.alike:
        return f"{choice.best} is best"
    worse = choice.worse if len(choice.worse) <= _MOST_WORSE else (f"{len(choice.worse)} strategies",)
    return f"{listed(worse)} {'is' if len(choice.worse) == 1 else 'are'} worse; {choice.alike}"


def _confounds(findings: Findings) -> Markup | None:
    """Return beneath the verdict what else than the strategy may have made it, folded; None without a reproduction."""
    if not findings.confounds:
        return None
    title = f"What else than the strategy differs, or is not known ({len(findings.confounds)})"
    told = element("ul", *(element("li", one) for one in findings.confounds), class_="warnings")
    return element("details", element("summary", title), told)


def _twins(findings: Findings) -> Markup | None:
    """Return beside the table which of its rows are one student under two names; None where none are."""
    found = one_student_words(findings.warnings)
    if not found:
        return None
    return element("p", element("strong", "One student, two names: "), f"{found}.", class_="note care")


def _answers(tables: Sequence[AnswerTable], findings: Findings, keys: Mapping[str, str]) -> Markup:
    arms = _arm_keys(findings, keys)
    costs = [scored.records.costs for scored in findings.scored]
    words = glossary(tables, costs, angles=bool(findings.geometries))
    return joined(*(answer_markup(answers, arms) for answers in tables), words)


def _best_student(reported: ReportedGeometry, tables: Sequence[AnswerTable]) -> str | None:
    """Return the name of the student whose strategy and weights score highest; None where none of it has scores."""
    arms = [row.arm for answers in tables for row in answers.rows if row.arm is not None]
    names = {(arm.strategy, arm.init): name for name, arm in reversed(reported.geometry.arms.items())}
    return next((names[arm] for arm in arms if arm in names), None)


def _angles(tables: Sequence[AnswerTable], findings: Findings, keys: Mapping[str, str]) -> Markup:
    """Return for each Geometry its angles beside its null; the first stands open, the others are folded."""
    if not findings.geometries:
        return element("p", SCORES_HOW_TO_READ, class_="reading")
    named, first = len(findings.geometries) > 1, findings.headline.line
    parts = []
    for place, reported in enumerate(findings.geometries):
        cells = reported.geometry.explored_cells()
        part = joined(
            _chance_box(reported, first, named=named),
            layer_panels(cells, keys),
            element(
                "details",
                element("summary", element("h3", "Every pair of the teacher's layers")),
                pair_cells(cells, keys, f"cells-{place}", first=_best_student(reported, tables)),
                class_="at-hand",
                open=True,
            ),
        )
        folded = element("details", element("summary", element("h3", reported.label)), part, class_="fold")
        parts.append(part if place == 0 else folded)
    how = element("details", element("summary", "How to read angles"), element("p", HOW_TO_READ, class_="reading"))
    return joined(*parts, how)


def _chance_box(reported: ReportedGeometry, first: str, *, named: bool) -> Markup:
    verdict = reported.verdict
    question = f"How do the angles compare with {verdict.null}?" + (f" {reported.label}" if named else "")
    answers = [(_STANDINGS[verdict.standing].format(verdict.null), "plain")]
    # The counts of pairs stand above all.
    sentence = "" if verdict.sentence == first else f"{verdict.sentence.partition(';')[0].removesuffix('.')}."
    more = [verdict.sentence] if sentence else []
    return _box(question, answers, "plain", sentence, [*more, _MEANINGS[verdict.standing], *verdict.reasons])


def _box(
    question: str,
    answers: Sequence[tuple[str, str]],
    tone: str,
    sentence: str,
    more: Sequence[str],
) -> Markup:
    """Return a question with its answers and a sentence; how it was decided is folded."""
    return element(
        "div",
        element("h3", question, class_="question"),
        element(
            "p", *(element("span", one, class_=f"answer-mark {_tone(own)}") for one, own in answers), class_="answers"
        ),
        element("p", sentence, class_="sentence") if sentence else None,
        element("details", element("summary", "More, and how this was decided"), *(element("p", line) for line in more))
        if more
        else None,
        class_=f"verdict {_tone(tone)}",
    )


def _tone(verdict: str) -> str:
    """Return the class of a verdict in the page's style."""
    return verdict.replace(" ", "-")


def _figures(figures: Sequence[ReportFigure], not_drawn: Sequence[str], keys: Mapping[str, str]) -> Markup:
    missing = f"{len(not_drawn)} figure{'s' if len(not_drawn) > 1 else ''} that this could not fill"
    cells = ", ".join(sorted(SHOWN_AS_CELLS))
    return joined(
        element(
            "p", f"The cells above are drawn for print by anglekit plot DIR --figure NAME: {cells}.", class_="note"
        ),
        element("p", _FIGURE_WORDS, class_="note"),
        *(_figure(figure, keys) for figure in figures),
        element("details", element("summary", missing), element("ul", *(element("li", one) for one in not_drawn)))
        if not_drawn
        else None,
    )


def _figure(figure: ReportFigure, keys: Mapping[str, str]) -> Markup:
    single = len(figure.drawings) == 1
    student = " --only-student NAME" if figure.by_student else ""
    command = f"anglekit plot DIR --figure {figure.name}{student} --out {figure.name}.pdf"
    return element(
        "figure",
        element(
            "figcaption",
            element("h3", figure.title),
            element("p", figure.reading),
            # The script hides what is drawn for one student; of a drawing of all it can leave none out.
            None if figure.by_student or len(keys) < 2 else element("p", _ALL_STUDENTS, class_="note"),
        ),
        *(_drawing(drawing, keys, single=single) for drawing in figure.drawings),
        element("p", "Draw it for print: ", element("code", command), class_="command"),
        id=f"figure-{figure.name}",
        class_="print",
    )


def _drawing(drawing: Drawing, keys: Mapping[str, str], *, single: bool) -> Markup:
    student = drawing.task.student
    name = ", ".join(part for part in (drawing.task.label, student) if part)
    # A student's name is in the drawing; its heading is only for screen readers.
    heading = element("h4", name, class_="unseen" if student is not None else None)
    label = f"Figure of {name}" if name else "Figure"
    return element(
        "div",
        heading if name and not (single and student is None) else None,
        element("p", drawing.facts, class_="note"),
        *(
            element("div", page, class_="paper slim")
            if student is not None
            else element("div", page, class_="paper wide", role="region", aria_label=label, tabindex="0")
            for page in drawing.pages
        ),
        class_="drawn",
        data_student=None if student is None else keys[student],
    )


def _tables(findings: Findings) -> Markup:
    tables = [] if findings.comparison is None else findings.comparison.tables()
    for reported in findings.geometries:
        title = "Angles by student and layer" + (f", {reported.label}" if len(findings.geometries) > 1 else "")
        tables.append(layer_table(reported.verdict.rows, title))
    students = {
        student.name: student_words(student)
        for reported in findings.geometries
        for student in reported.geometry.document.provenance.students
    }
    return joined(*(page_table(_in_page_words(table, students)) for table in tables))


def _in_page_words(table: TextTable, students: Mapping[str, str]) -> TextTable:
    """Return a table in which students, weights and controls have the names that the rest of the page gives them."""

    def strategies(text: str) -> str:
        return " - ".join(CONTROL_LABELS.get(one, one) for one in text.split(" - "))

    words: dict[str, Callable[[str], str]] = {
        "init": lambda text: weights_words(text) or text,
        "student": lambda text: students.get(text, text),
        **dict.fromkeys(("strategy", "strategies", "control"), strategies),
    }
    rows = tuple(
        tuple(words.get(name, str)(text) for name, text in zip(table.columns, row, strict=True)) for row in table.rows
    )
    columns = tuple("weights" if name == "init" else strategies(name) for name in table.columns)
    return replace(table, columns=columns, rows=rows)


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
