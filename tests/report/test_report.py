"""The report: one page that stands alone, says the verdict first, and shows what came from data as text."""

from __future__ import annotations

import html
import json
import re
import sys
from dataclasses import fields, replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from anglekit.comparison.compare import compare
from anglekit.results.geometry import Geometry
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
    assert sum(tag == "script" for tag, _ in outline.tags) <= 1
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
    assert len(drawings) >= len(written[1]["figures"]) >= 8
    assert sum(tag == "title" for tag, _ in outline.tags) > 8


def test_the_verdict_comes_before_the_figures(written):
    target, printed = written
    text = target.read_text(encoding="utf-8")
    assert printed["verdict"] == "different"
    assert printed["bytes"] == target.stat().st_size < 4_000_000
    line = printed["headline"]
    assert line.startswith("On accuracy (")
    assert "different" in line
    assert 0 < text.index("<h1") < text.index(html.escape(line)) < text.index("<svg")
    assert text.count(html.escape(line)) == 1
    assert text.index('id="figure-scores-by-strategy"') < text.index('id="figure-figure1"')


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


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("dark", [False, True])
def test_in_a_real_browser_nothing_complains_is_fetched_or_overflows(written, width, dark):
    with browser() as page:
        page.open(written[0], width, dark=dark)
        assert page.complaints() == []
        assert outside(page) == [written[0].resolve().as_uri()]
        assert page.value("document.documentElement.scrollWidth <= window.innerWidth")
        slim = "[...document.querySelectorAll('.student:not([hidden]) .slim .drawing')]"
        assert page.value(f"{slim}.length") == 3  # families, of the student who is shown
        assert page.value(f"{slim}.every(one => one.getBoundingClientRect().right <= window.innerWidth)")
        assert page.value(f"document.body.innerText.includes({json.dumps(HOSTILE)})")
        light = page.value("getComputedStyle(document.body).backgroundColor")
        assert light.startswith("rgb")
        page.open(written[0], width, dark=not dark)
        assert page.value("getComputedStyle(document.body).backgroundColor") != light


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_in_a_real_browser_tables_are_sorted_by_the_keyboard(written):
    with browser() as page:
        page.open(written[0], 1280)
        first = "document.querySelector('table.sortable')"
        page.value(f"{first}.querySelectorAll('th button')[1].focus()")
        page.press("Enter", 13, "\r")
        sorted_once = page.value(f"{first}.querySelector('th[aria-sort]').getAttribute('aria-sort')")
        order = page.value(f"[...{first}.tBodies[0].rows].map(row => row.innerText).join('|')")
        page.press("Enter", 13, "\r")
        assert page.value(f"{first}.querySelector('th[aria-sort]').getAttribute('aria-sort')") != sorted_once
        assert page.value(f"[...{first}.tBodies[0].rows].map(row => row.innerText).join('|')") != order
        assert page.complaints() == []


SHOWN = "[...document.querySelectorAll('.student')].filter(one => one.offsetParent).map(one => one.dataset.student)"


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_in_a_real_browser_the_student_is_switched_by_the_keyboard_and_all_stand_without_script(written):
    with browser() as page:
        page.open(written[0], 1280)
        assert set(page.value(SHOWN)) == {"s0"}
        page.value("document.querySelector('#student').focus()")
        page.press("ArrowDown", 40)
        assert set(page.value(SHOWN)) == {"s1"}
        page.value("document.querySelector('[data-step=\"1\"]').focus()")
        page.press(" ", 32, " ")
        assert set(page.value(SHOWN)) == {"s0"}
        assert page.value("document.querySelector('#student').value") == "s0"
        assert page.complaints() == []
    # A browser that starts without script: the elements are seen through the protocol, as no script can look.
    with browser() as page:
        page.open(written[0], 1280, script=False)
        tree = json.dumps(page.send("DOMSnapshot.captureSnapshot", computedStyles=[])["strings"])
        assert HOSTILE in json.loads(tree)
        assert page.seen(".student") == page.count(".student") > 2
        assert page.seen(".picker") == 0
        assert page.count("th button") == 0


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
