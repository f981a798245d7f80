"""The report: one page that stands alone, says the verdict first, and shows what came from data as text."""

from __future__ import annotations

import html
import itertools
import json
import math
import re
import sys
import time
from dataclasses import fields, replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from anglekit.comparison.choice import Choice
from anglekit.comparison.compare import compare
from anglekit.comparison.family import Family
from anglekit.comparison.gaps import Gap
from anglekit.display.tables import TextTable
from anglekit.report import build
from anglekit.report.answers import answer_markup, answer_tables, brief_answers, glossary, size_sentence
from anglekit.report.gather import gather
from anglekit.report.page import _brief, _in_page_words, _part_verdicts, _twins
from anglekit.report.warning_kinds import grouped, warnings_markup
from anglekit.results.geometry import Geometry
from anglekit.results.scores import StoppedStrategy
from anglekit.results.training_records import TrainingRecords
from anglekit_cli.main import main
from tests.comparison.compare_corpus import FIVE, score_rows, write_sweep
from tests.report.report_browser import CHROMIUM, browser

SAVED = Path(__file__).resolve().parents[2] / "data" / "gallery" / "inference"
HOSTILE = "<script>alert(1)</script>"
STUDENTS = {"forward-teacher-seed0": HOSTILE, "none-random-seed0": "none-random-seed0"}
VOID = {"meta", "br", "hr", "img", "input", "link", "col"}


def hostile_geometry() -> Geometry:
    """Return two students of the gallery, one of a name that would run if it were not escaped."""
    geometry = Geometry.load(SAVED)
    changed = {}
    for field in fields(geometry):
        table = getattr(geometry, field.name)
        if isinstance(table, pd.DataFrame):
            table = table[table["student"].isin(list(STUDENTS))]
            changed[field.name] = table.assign(student=table["student"].map(STUDENTS)).reset_index(drop=True)
    students = [
        {**entry, "name": STUDENTS[entry["name"]]}
        for entry in geometry.provenance["students"]
        if entry["name"] in STUDENTS
    ]
    sketches = [
        {**row, "student": STUDENTS[row["student"]], "token": "<b>&amp;"}
        for row in geometry.sketch_tokens
        if row["student"] in STUDENTS
    ]
    return replace(
        geometry, **changed, provenance={**geometry.provenance, "students": students}, sketch_tokens=sketches
    )


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    root = tmp_path_factory.mktemp("report")
    hostile_geometry().save(root / "<script>geometry")
    scores = dict(zip(FIVE, (0.70, 0.90, 0.80, 0.60, 0.85), strict=True))
    write_sweep(root / "sweep", score_rows(scores, inits=("random", "teacher")))
    return [str(root / "<script>geometry"), str(root / "sweep")]


def run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["anglekit", "report", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    captured = capsys.readouterr()
    return stop.value.code, captured.out, captured.err


@pytest.fixture(scope="module")
def written(places, tmp_path_factory):
    """Return the page's file, written as a user writes it, and what was printed as json."""
    target = tmp_path_factory.mktemp("page") / "report.html"
    capture = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["anglekit", "report", *places, "--out", str(target), "--json", "--processes", "1"])
        patch.setattr("typer.echo", lambda text, **_: capture.append(text))
        with pytest.raises(SystemExit) as stop:
            main()
    assert stop.value.code == 0
    return target, json.loads(capture[0])


class Outline(HTMLParser):
    """Collects tags with their attributes, and whether every tag that opens is closed."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags, self.open, self.stray = [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.stray.append(tag)


@pytest.fixture(scope="module")
def outline(written):
    parser = Outline()
    parser.feed(written[0].read_text(encoding="utf-8"))
    parser.close()
    return parser


def test_the_page_is_well_formed_and_holds_no_foreign_script(outline, written):
    assert (outline.open, outline.stray) == ([], [])
    text = written[0].read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    scripts = [given.get("type") for tag, given in outline.tags if tag == "script"]
    assert sorted(scripts, key=str) == [None, "application/json"]
    assert not [name for _, given in outline.tags for name in given if name.startswith("on")]


def test_nothing_is_fetched(outline, written):
    for tag, given in outline.tags:
        for name in ("src", "href", "xlink:href", "action", "srcset", "data"):
            value = given.get(name)
            assert value is None or value.startswith(("#", "data:")), (tag, name, value[:80])
    style = written[0].read_text(encoding="utf-8")
    assert not re.search(r"url\(\s*['\"]?(?!#|data:)", style)
    assert "Content-Security-Policy" in style


def test_ids_are_unique_and_every_reference_has_its_target(outline):
    ids = [given["id"] for _, given in outline.tags if "id" in given]
    assert len(ids) == len(set(ids))
    for _, given in outline.tags:
        for name in ("href", "xlink:href"):
            if (given.get(name) or "").startswith("#"):
                assert given[name][1:] in ids


def test_every_drawing_has_a_name_and_a_description(outline, written):
    drawings = [given for tag, given in outline.tags if tag == "svg"]
    printed = [given for given in drawings if given.get("class") == "drawing"]
    assert len(printed) >= len(written[1]["figures"]) >= 8
    assert all(given["aria-labelledby"] and given["aria-describedby"] for given in printed)
    assert all(given.get("aria-label") for given in drawings if given not in printed)
    assert all(given["role"] == "img" for given in drawings)


def test_the_answer_comes_first_then_why_and_the_rest_is_folded(outline, written):
    target, printed = written
    text = target.read_text(encoding="utf-8")
    assert printed["verdict"] == "different"
    assert printed["bytes"] == target.stat().st_size < 1_500_000
    line = printed["headline"]
    assert line.startswith("On accuracy (")
    assert "different" in line
    marks = ("<h1", 'class="headline"', 'class="answer-table', 'id="glossary"', 'id="angles"', 'id="figures"')
    order = [text.index(one) for one in marks]
    assert order == sorted(order)
    # The verdict's own line is for who copies it: folded with how it was decided.
    assert text.count(html.escape(line)) == 1
    assert text.index('id="figure-scores-by-strategy"') < text.index('id="figure-figure1"')
    folds = {given["id"]: "open" in given for tag, given in outline.tags if tag == "details" and "id" in given}
    assert folds == dict.fromkeys(("glossary", "figures", "tables", "settings", "warnings"), False)
    # The drawings that the cells take the place of are not made a second time.
    assert not {"angles-heatmap", "null-heatmap"} & set(printed["figures"])


def test_the_answer_holds_every_strategy_with_its_interval_and_what_is_not_known_is_said(places):
    findings = gather(places)
    (answers,) = answer_tables(findings)
    assert {row.arm for row in answers.rows} == set(itertools.product(FIVE, ("random", "teacher")))
    levels = findings.comparison.levels.query("part == 'score'").set_index(["strategy", "init"])
    for row in answers.rows:
        assert (row.score, row.low, row.high) == tuple(levels.loc[row.arm][["mean", "low", "high"]])
        assert row.low < row.score < row.high
        assert (row.over_none == "") == (row.name == "none")
        assert math.isnan(row.parameters)
    assert "Sizes and speeds: not recorded" in size_sentence(answers.sizes)
    shown = answer_markup(answers, {("forward", "teacher"): ["s0"]})
    assert "Sizes and speeds: not recorded" in shown
    assert shown.count('data-students="s0"') == 1


def test_rows_are_sorted_and_each_difference_from_the_best_has_the_interval_that_decides(places):
    findings = gather(places)
    (answers,) = answer_tables(findings)
    scores = [row.score for row in answers.rows]
    assert scores == sorted(scores, reverse=True)
    pairs = findings.comparison.differences.query("part == 'score' and kind == 'between'")
    for init in ("random", "teacher"):
        own = [row for row in answers.rows if row.arm[1] == init]
        best = next(row for row in own if row.name != "none")
        assert best.behind == "the highest"
        for row in own:
            if row.name in ("none", best.name):
                continue
            found = pairs[(pairs["init"] == init) & pairs[["strategy_a", "strategy_b"]].isin([best.name]).any(axis=1)]
            found = found[found[["strategy_a", "strategy_b"]].isin([row.name]).any(axis=1)].iloc[0]
            assert row.verdict == found["verdict"]
            words = row.behind.replace("(", "").replace(")", "").split()
            assert float(words[0]) == pytest.approx(100 * (row.score - best.score), abs=0.051)
            ends = sorted(100 * abs(found[name]) for name in ("joint_low", "joint_high"))
            assert sorted(abs(float(words[at])) for at in (1, 3)) == pytest.approx(ends, abs=0.051)


def with_costs(findings):
    """Return the answers of the same scores, whose students have a quarter of the teacher's parameters."""
    table = findings.scored[0].table
    arms = table[["strategy", "init", "seed"]].drop_duplicates()
    rows = []
    for arm in arms.to_dict(orient="records"):
        shared = {"examples": 16, "tokens": 320, "device": "cpu", "milliseconds_low": 1.0, "milliseconds_high": 9.0}
        rows.append({**arm, "model": "teacher", "parameters": 8_000_000, "milliseconds": 8.0, **shared})
        rows.append(
            {**arm, "model": "student", "parameters": 2_000_000, "milliseconds": 4.0 - arm["seed"] % 2, **shared}
        )
    scored = replace(
        findings.scored[0],
        records=TrainingRecords(costs=pd.DataFrame(rows)),
        teacher={("validation", "accuracy"): 0.95},
        n_examples={"validation": 400},
    )
    return answer_tables(replace(findings, scored=(scored,)))[0], scored.records.costs


def test_one_architecture_has_one_size_and_one_speed_whose_ratio_is_that_of_the_times_shown(places):
    answers, costs = with_costs(gather(places))
    teacher, *students = answers.rows
    assert (teacher.arm, teacher.score, len(answers.sizes)) == (None, 0.95, 2)
    # Wilson's interval of 380 right answers of 400.
    assert (teacher.low, teacher.high) == pytest.approx((0.9241, 0.9673), abs=1e-3)
    words = size_sentence(answers.sizes)
    assert words == (
        f"Size and speed: teacher 8 million parameters, 8 ms for a batch; {len(costs) // 2} students 2 million "
        "parameters (4.0 times smaller), 4 ms for a batch (2.0 times as fast; single runs 2.0 to 2.7)."
    )
    shown = answer_markup(answers, {})
    assert words in shown
    far = 100 * (students[0].score - 0.95)
    assert f"{far:+.1f} ({students[0].score / 0.95:.1%})" in shown
    meant = glossary([answers], [costs])
    assert "16 examples (320 tokens) on cpu" in meant
    for line in ("the teacher&#x27;s middle layer", "drawn at random", "no hidden loss", "decide nothing"):
        assert line in meant


def test_the_first_line_says_what_to_use_by_how_much_and_how_surely(places):
    answers, _ = with_costs(gather(places))
    (use, why), (other, other_why) = brief_answers(answers)
    first, second = answers.choices
    assert use.startswith("From ")
    assert first.lead in use
    assert f"{first.best} " in f"{use} {why}"
    assert f"With {first.best}, accuracy is highest: {first.score:.1%} (95%: " in why
    assert f" above {first.runner_up}, the next: " in why
    assert re.search(r"is \d+\.\d points \(95%, this pair alone: \S+ to \S+\) above none\.", why)
    far = 100 * (0.95 - next(row.score for row in answers.rows if row.arm == (first.use, first.init)))
    assert f"The teacher has 95.0%: {first.use} is {far:.1f} points below it." in why
    weights = {"random": "new weights", "teacher": "the teacher's weights"}[second.init]
    assert f"From {weights} the best, {second.best}, has {second.score:.1%}: " in why
    # Both kinds have the same scores: the interval holds 0.
    assert why.endswith(" lower, not surely. The student is 4.0 times smaller than the teacher and 2.0 times as fast.")
    assert second.lead in other
    assert "times as fast" not in other_why
    assert "has 95.0%" in other_why
    # Paired by example, the distance from the teacher has an interval, as far below it.
    gap = Gap(-far / 100, -far / 100 - 0.02, -far / 100 + 0.01)
    paired = replace(answers, teacher_gaps={(first.use, first.init): gap})
    words = f"{far:.1f} points (95%, paired by example: {far - 1:.1f} to {far + 2:.1f}) below it."
    assert words in brief_answers(paired)[0][1]
    assert brief_answers(replace(answers, choices=())) == []


def test_the_geometry_is_said_to_be_more_than_chance_or_not_and_what_was_stopped_is_named(places):
    findings = gather(places)
    tables = answer_tables(findings)
    verdict = findings.geometries[0].verdict
    shown = _brief(tables, findings)
    assert f"Are the angles more than those of {verdict.null}?" in shown
    assert f"of {verdict.pairs} pairs of the teacher&#x27;s layers, each counted at every layer" in shown
    assert f"{verdict.narrower} are surely narrower, {verdict.wider} surely wider" in shown
    assert verdict.wider + verdict.narrower <= verdict.pairs
    wider = replace(findings.geometries[0], verdict=replace(verdict, standing="wider", narrower=0, wider=verdict.pairs))
    told = _brief(tables, replace(findings, geometries=(wider,)))
    assert "neither good nor bad" in told
    assert "a common pull would make them (one direction toward several of the teacher&#x27;s layers at once)" in told
    assert "Left out" not in shown
    text = build.build_report([places[0]], title="angles").html
    first = text[text.index('class="headline"') : text.index("<nav")]
    assert "No scores came, so no strategy can be chosen" in first
    assert "Are the angles more than those of mismatched text?" in first
    assert "<dt>mismatched text</dt>" in text
    stopped = replace(findings.comparison, stopped=(StoppedStrategy("reverse", "random", 4, 8),))
    assert "reverse at step 4 of 8, new weights" in _brief(tables, replace(findings, comparison=stopped))


def test_controls_are_not_called_by_words_for_weights(places):
    (answers,) = answer_tables(gather(places))
    row = replace(answers.rows[0], name="random-teacher")
    shown = answer_markup(replace(answers, rows=(row,)), {})
    assert "untrained teacher <small>control</small>" in shown
    assert "random-teacher</th>" not in shown
    assert "in commands and figures: random-teacher" in glossary(
        [replace(answers, rows=(replace(row, arm=("random-teacher", "random")),))], []
    )


def test_warnings_of_one_kind_are_told_once_with_their_number():
    warnings = [
        "runs/a-1/examples.parquet is missing, so that only seeds can be resampled",
        "random: no example has an angle",
        "runs/b-22/examples.parquet is missing, so that only seeds can be resampled",
        "teacher: no example has an angle",
    ]
    assert list(map(len, grouped(warnings))) == [2, 1, 1]
    shown = warnings_markup(warnings)
    assert f"2 like this: {warnings[0]}" in shown
    assert all(one in shown for one in warnings)
    assert "None." in warnings_markup([])


def test_each_verdict_names_what_is_told_from_what():
    row = {"strategy_a": "reverse", "strategy_b": "random"}

    def said(*verdicts, part="score", about="strategies", **fields):
        families = [
            Family(part, init, one, 3, row, (row, row), about)
            for init, one in zip(("random", "teacher"), verdicts, strict=True)
        ]
        made = [Choice(init, "forward", "forward", 0.9, "random", "", "", **fields) for init in ("random", "teacher")]
        return _part_verdicts(SimpleNamespace(families=families, choices=made), part)

    some = {"worse": ("reverse",), "alike": "forward and random cannot be told apart"}
    assert said("different", "different", **some) == [
        ("scores: reverse is worse; forward and random cannot be told apart", "different")
    ]
    assert [words for words, _ in said("different", "undecided", **some)] == [
        "scores, new weights: reverse is worse; forward and random cannot be told apart",
        "scores, the teacher's weights: forward and random cannot be told apart",
    ]
    assert said("different", "different", worse=("a", "b")) == [("scores: forward is best", "different")]
    many = {"worse": tuple("abcd"), "alike": "x"}
    assert said("different", "different", **many)[0][0] == "scores: 4 strategies are worse; x"
    assert said("different", "different")[0][0] == "scores: reverse and random differ most"
    assert said("different", "different", part="angle", **some)[0][0] == "angles: reverse and random differ most"
    assert said("equivalent", "equivalent")[0][0] == "scores: strategies are alike"
    few = said("different", "different", about="these students", worse=("a", "b"))
    assert few == [("scores of these students: forward is best", "different")]


def test_arms_that_train_one_student_are_said_beside_the_table(places):
    findings = gather(places)
    assert _twins(findings) is None
    warnings = (
        "a/b: the encoder's random order, drawn with seed 2, equals strategy 'reverse'; choose another seed",
        "a/b: the arms reverse, random train the same student: their maps and all else agree",
        "the KL has weight 0, so control 'alone' trains the same student as 'none'",
        "another",
    )
    shown = html.unescape(_twins(replace(findings, warnings=warnings)))
    assert (
        "One student, two names: </strong>the encoder's random order, drawn with seed 2, equals strategy 'reverse'; "
        "the arms reverse, random train the same student; control 'alone' trains the same student as 'none'.</p>"
        in shown
    )


def test_the_words_of_the_planner_are_those_that_the_page_looks_for():
    plans = Path(build.__file__).parents[1] / "distillation" / "matching" / "plan_warnings.py"
    text = plans.read_text(encoding="utf-8")
    for part in ("train the same student: ", "trains the same student as ", "'s random order, drawn with seed "):
        assert part in text


def test_tables_of_the_page_call_students_weights_and_controls_as_the_page_does():
    table = TextTable(
        "T",
        ("init", "strategies", "random-teacher", "student", "verdict"),
        (
            ("random", "alone - none", "1", "random-teacher-seed0", "random"),
            ("teacher", "random - reverse", "2", "x", ""),
        ),
    )
    shown = _in_page_words(table, {"random-teacher-seed0": "random, teacher's weights, seed 0"})
    assert shown.columns == ("weights", "strategies", "untrained teacher", "student", "verdict")
    assert shown.rows == (
        ("new weights", "labels alone - none", "1", "random, teacher's weights, seed 0", "random"),
        ("the teacher's weights", "random - reverse", "2", "x", ""),
    )


@pytest.mark.parametrize(
    ("by_example", "about", "words"),
    [
        (False, "strategies", "over seeds alone, as no predictions by example came: it holds on this table"),
        (True, "these students", "over examples alone, as fewer than 3 seeds tell nothing of other students"),
        (True, "strategies", "over seeds and examples"),
    ],
)
def test_the_glossary_says_over_what_the_intervals_of_this_report_are(places, by_example, about, words):
    findings = gather(places)
    levels = findings.comparison.levels.assign(by_example=by_example, about=about)
    changed = replace(findings, comparison=replace(findings.comparison, levels=levels))
    (answers,) = answer_tables(changed)
    shown = html.unescape(glossary([answers], []))
    assert f"of a student's score {words}; the teacher's is over examples alone." in shown
    assert "mismatched text" not in shown
    assert "<dt>unrelated vectors</dt>" in glossary([answers], [], angles=True)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--out", "page.txt"], "a report's file ends in .html"),
        (["--out", "."], "change --out"),
        (["--out", "page.html", "--task", "a", "--task", "b"], "2 task labels for 1 Geometry"),
        (["--out", "page.html", "--margin", "0"], "--angle-margin is 0"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(places, more, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(monkeypatch, capsys, *places, *more)
    assert code == 2
    assert words in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_page_that_exists_is_kept(places, tmp_path, monkeypatch, capsys):
    target = tmp_path / "page.html"
    target.write_text("mine", encoding="utf-8")
    code, _, err = run(monkeypatch, capsys, *places, "--out", str(target))
    assert (code, target.read_text(encoding="utf-8")) == (2, "mine")
    assert "--overwrite" in err


def test_a_notebook_shows_text_as_text(places):
    shown = hostile_geometry()._repr_html_()
    assert "<script" not in shown
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in shown
    assert "°" in shown
    comparison = compare([places[1]])
    shown = comparison._repr_html_()
    assert html.escape(comparison.headline.line) in shown
    assert shown.count("<table") == shown.count("</table>") > 1


def outside(page):
    """Return what was asked for outside the page's own text."""
    return [address for address in page.requests() if not address.startswith("data:")]


# Of every visible text with a background of its own or its parents': the least contrast by WCAG, and whose it is.
CONTRAST = """(() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (rgb) => rgb.slice(0, 3).map((one) => one / 255)
    .map((one) => one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4)
    .reduce((sum, one, place) => sum + one * [0.2126, 0.7152, 0.0722][place], 0);
  const ground = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.length < 4 || colour[3] > 0.99) return colour;
    }
    return [255, 255, 255];
  };
  let worst = [99, ""];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((one) => one.nodeType === 3 && one.textContent.trim());
    if (!own || !node.checkVisibility() || node.closest(".drawing, .unseen, script, style, option")) continue;
    const svg = node.closest("svg") !== null;
    const ink = parse(svg ? getComputedStyle(node).fill : getComputedStyle(node).color);
    const [a, b] = [light(ink), light(ground(svg ? node.closest("svg").parentElement : node))];
    const found = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (found < worst[0]) worst = [found, node.className + ": " + node.textContent.slice(0, 40)];
  }
  return worst;
})()"""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_in_a_real_browser_nothing_complains_is_fetched_overflows_or_is_faint(written):
    grounds = set()
    with browser() as page:
        for width, dark in itertools.product((1280, 390), (False, True)):
            page.open(written[0], width, height=800, dark=dark)
            # On a telephone the cells are folded, too.
            closed = "[...document.querySelectorAll('.fold, .at-hand')].find((one) => !one.open)"
            assert page.value(f"{closed}.getBoundingClientRect().top + scrollY") <= 3 * 800
            page.value("[...document.querySelectorAll('details')].forEach((one) => { one.open = true; })")
            page.value("document.querySelector('td[data-c]').click()")
            assert page.value("document.documentElement.scrollWidth <= window.innerWidth")
            contrast, where = page.value(CONTRAST)
            assert contrast >= 4.5, where
            assert page.value(f"document.body.innerText.includes({json.dumps(HOSTILE)})")
            assert page.complaints() == []
            assert outside(page) == [written[0].resolve().as_uri()]
            grounds.add(page.value("getComputedStyle(document.body).backgroundColor"))
    assert len(grounds) == 2


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_in_a_real_browser_cells_are_hovered_clicked_and_walked_by_the_keyboard(written):
    detail = "document.querySelector('.detail').innerText"
    with browser() as page:
        page.open(written[0], 1280, height=800)
        first = "document.querySelector('.student-cells[open] td[tabindex=\"0\"]')"
        assert page.value(f"{first}.closest('.student-cells').querySelector('summary').textContent").startswith(
            "forward"
        )
        page.value(f"{first}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
        time.sleep(0.5)  # the event of scrolling, which hides a tip, comes later
        box = page.value(f"(({{x, y}}) => [x, y])({first}.getBoundingClientRect())")
        page.send("Input.dispatchMouseEvent", type="mouseMoved", x=box[0] + 8, y=box[1] + 8)
        tip = page.value("document.querySelector('.tip').hidden ? '' : document.querySelector('.tip').innerText")
        for told in ("teacher layers 0 and 1", "95%", "mismatched text", "tokens of 300 examples"):
            assert told in tip
        page.send("Input.dispatchMouseEvent", type="mouseMoved", x=2, y=2)
        assert page.value("document.querySelector('.tip').hidden")
        page.value(f"{first}.focus()")
        page.press("ArrowRight", 39)
        page.press("ArrowDown", 40)
        page.press("Enter", 13, "\r")
        assert "teacher layers 1 and 2" in page.value(detail)
        assert page.value("document.querySelector('.detail svg rect.bar') !== null")
        assert "--keep-extremes" in page.value(detail)
        assert page.value("document.querySelectorAll('[aria-selected=true]').length") == 1
        assert page.complaints() == []


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_in_a_real_browser_tables_are_sorted_by_the_keyboard(written):
    with browser() as page:
        page.open(written[0], 1280)
        page.value("document.querySelector('#tables').open = true")
        first = "document.querySelector('table.sortable')"
        page.value(f"{first}.querySelectorAll('th button')[1].focus()")
        page.press("Enter", 13, "\r")
        sorted_once = page.value(f"{first}.querySelector('th[aria-sort]').getAttribute('aria-sort')")
        order = page.value(f"[...{first}.tBodies[0].rows].map(row => row.innerText).join('|')")
        page.press("Enter", 13, "\r")
        assert page.value(f"{first}.querySelector('th[aria-sort]').getAttribute('aria-sort')") != sorted_once
        assert page.value(f"[...{first}.tBodies[0].rows].map(row => row.innerText).join('|')") != order
        assert page.complaints() == []


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_in_a_real_browser_the_scores_are_sorted_and_the_teacher_stays_on_top(places, tmp_path):
    answers, _ = with_costs(gather(places))
    file = tmp_path / "table.html"
    script = (Path(build.__file__).parent / "page.js").read_text(encoding="utf-8")
    file.write_text(f"<!doctype html><body>{answer_markup(answers, {})}<script>{script}</script>", encoding="utf-8")
    names = "[...document.querySelectorAll('tbody tr')].map((one) => one.cells[0].innerText)"
    with browser() as page:
        page.open(file, 1280)
        assert page.value(names)[:2] == ["teacher", answers.rows[1].name]
        page.value("document.querySelectorAll('th button')[3].focus()")
        page.press("Enter", 13, "\r")
        assert page.value(names) == ["teacher", *(row.name for row in reversed(answers.rows[1:]))]
        assert page.complaints() == []


PANELS = (
    "[...document.querySelectorAll('figure.layers')].filter((one) => !one.hidden).map((one) => one.dataset.student)"
)
DRAWN = "[...document.querySelectorAll('.drawn[data-student]')].filter((one) => !one.hidden).length"


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_in_a_real_browser_students_are_chosen_once_and_all_stand_without_script(written):
    with browser() as page:
        page.open(written[0], 1280)
        drawn = page.value(DRAWN)
        assert (page.value(PANELS), drawn > 0) == (["s0", "s1"], True)
        page.value("document.querySelector('.choice input').focus()")
        page.press(" ", 32, " ")
        assert (page.value(PANELS), page.value(DRAWN)) == (["s1"], drawn / 2)
        assert page.value("document.querySelector('.student-list select').value") == "s1"
        assert page.value("[...document.querySelectorAll('.student-cells')].map((one) => one.open)") == [False, True]
        page.value("document.querySelector('.choice [data-all=\"1\"]').click()")
        page.value("document.querySelector('figure.layers figcaption button').click()")
        assert page.value("document.querySelector('.student-list select').value") == "s0"
        page.value("location.hash = '#tables'")
        assert page.value("new Promise((done) => setTimeout(() => done(document.querySelector('#tables').open), 50))")
        assert page.complaints() == []
    # A browser that starts without script: the elements are seen through the protocol, as no script can look.
    with browser() as page:
        page.open(written[0], 1280, script=False)
        tree = json.dumps(page.send("DOMSnapshot.captureSnapshot", computedStyles=[])["strings"])
        assert HOSTILE in json.loads(tree)
        assert page.seen("figure.layers") == page.count("figure.layers") == 2
        assert page.seen(".student-cells summary") == 2
        assert page.seen(".student-cells[open] td[data-c]") == page.count(".student-cells[open] td[data-c]") == 84
        assert page.seen(".answer-table tr") == 11
        for scripted in (".choice", ".detail", ".tip", "th button"):
            assert page.seen(scripted) == 0


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_in_a_real_browser_faint_text_is_noticed(tmp_path):
    faint = tmp_path / "faint.html"
    faint.write_text("<!doctype html><body><p>dark</p><p style='color:#999'>faint</p>", encoding="utf-8")
    with browser() as page:
        page.open(faint, 1280)
        contrast, where = page.value(CONTRAST)
        assert 2.5 < contrast < 3
        assert "faint" in where


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_a_page_that_complains_fetches_and_overflows_is_noticed(tmp_path):
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<!doctype html><meta name=viewport content='width=device-width'><div style='width:2000px'>wide</div>"
        "<img src='missing.png'><script>console.error('no')</script>",
        encoding="utf-8",
    )
    with browser() as page:
        page.open(bad, 1280)
        assert any("consoleAPICalled" in one for one in page.complaints())
        assert outside(page) == [bad.resolve().as_uri(), (tmp_path / "missing.png").resolve().as_uri()]
        assert not page.value("document.documentElement.scrollWidth <= window.innerWidth")


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_the_policy_of_the_page_stops_a_script_that_came_in(written, tmp_path):
    tampered = tmp_path / "tampered.html"
    text = written[0].read_text(encoding="utf-8")
    tampered.write_text(text.replace("<footer", "<script>document.title = 'in'</script><footer", 1), encoding="utf-8")
    with browser() as page:
        page.open(tampered, 1280)
        assert page.value("document.title") != "in"
        assert any("Content Security Policy" in one for one in page.complaints())
