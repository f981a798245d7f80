"""The parts of the report: markup, drawings made small, the verdict against chance, and what is gathered."""

from __future__ import annotations

import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from anglekit.display.html import Markup, element, joined, page_table
from anglekit.display.tables import TextTable
from anglekit.errors import InputError
from anglekit.plots.files import figure_bytes
from anglekit.report.gather import gather
from anglekit.report.page import page
from anglekit.report.svg import StyleSheet, inline_svg
from anglekit.runtime.files import write_json
from tests.comparison.compare_corpus import make_geometry, score_rows, write_run, write_sweep


@given(st.text())
@settings(deadline=None)  # a busy machine is no failure
def test_text_comes_back_from_markup_as_it_was_and_is_never_a_tag(text):
    written = element("p", text, title=text)
    assert written.count("<") == 2
    parsed = ElementTree.fromstring(written)
    shown = re.sub(r"[^\n\t]", lambda found: found[0] if found[0].isprintable() else "\N{REPLACEMENT CHARACTER}", text)
    assert (parsed.text or "") == shown
    assert parsed.attrib["title"].split() == shown.split()


def test_markup_is_not_escaped_twice_and_attributes_are_left_out():
    assert joined(element("b", "<"), None, "&") == "<b>&lt;</b>&amp;"
    assert element("td", class_="number", hidden=True, title=None, data_step="1") == (
        '<td class="number" hidden data-step="1"></td>'
    )
    assert joined(Markup("<br>")) == "<br>"


def drawing(*, text: str = "a < b") -> bytes:
    figure = Figure(figsize=(3, 2))
    ax = figure.add_subplot()
    ax.plot(range(3), [0.1, 0.7, 0.25], "o-", color="#1a1a1a")
    ax.text(0.5, 0.3, text)
    ax.set_xlim(0.2, 1.7)
    return figure_bytes(figure, "svg")


def inline(source: bytes, key: str = "f") -> tuple[str, StyleSheet]:
    styles = StyleSheet()
    return inline_svg(source, key=key, title="T <", description="D &", styles=styles), styles


def test_a_drawing_is_smaller_and_its_styles_are_the_pages():
    source = drawing()
    written, styles = inline(source)
    assert written.count("<svg") == 1
    assert len(written) < len(source) / 2
    parsed = ElementTree.fromstring(written)
    assert parsed.find("title").text == "T <"
    assert parsed.find("desc").text == "D &"
    assert "a < b" in [node.text for node in parsed.iter("text")]
    assert " style=" not in written
    assert "#1a1a1a" in styles.css()
    assert "#1a1a1a" not in written


def test_ids_are_the_drawings_own_and_references_hold():
    first, _ = inline(drawing(), "one")
    second, _ = inline(drawing(), "two")
    ids = re.findall(r' id="([^"]+)"', first + second)
    assert len(ids) == len(set(ids))
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', first + second))
    assert len(used) >= 4
    assert used <= set(ids)


NUMBER = r"-?(?:\d+\.?\d*|\.\d+)"


def corners(path: str) -> np.ndarray:
    """Return the places of a path of relative lines, added up."""
    at, places = np.zeros(2), []
    for command, rest in re.findall(r"([mlhvz])([^mlhvz]*)", path):
        numbers = [float(one) for one in re.findall(NUMBER, rest)]
        step = {"h": lambda n: (n[0], 0), "v": lambda n: (0, n[0]), "z": lambda n: (0, 0)}.get(command, tuple)(numbers)
        at = at + np.asarray(step)
        places.append(at)
    return np.asarray(places)


@given(st.lists(st.tuples(st.floats(-999, 999), st.floats(-999, 999)), min_size=2, max_size=30))
def test_a_path_keeps_its_places_to_a_hundredth_however_long_it_is(points):
    path = " ".join(f"{'M' if not number else 'L'} {x:.6f} {y:.6f}" for number, (x, y) in enumerate(points))
    source = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><path d="{path}"/></svg>'.encode()
    written, _ = inline(source)
    kept = ElementTree.fromstring(written).find("path").attrib["d"]
    assert np.abs(corners(kept) - np.asarray(points)).max() < 0.0051


def test_numbers_are_flush_right_and_sorted_by_their_value():
    rows = (("b", "-3.0° to 1.0°", "", "different"), ("a", "12%", "", "x" * 70))
    written = page_table(TextTable("T", ("name", "value", "empty", "word"), rows, frozenset({1})))
    cells = ElementTree.fromstring(written).findall(".//td")
    assert [cell.attrib.get("data-value") for cell in cells] == [None, "-3", None, None, "12", None]
    assert [cell.attrib.get("class") for cell in cells] == [None, "number", None, None, "number", "long"]
    assert "empty" not in written
    assert "\N{MINUS SIGN}3.0°" in written


def test_what_cannot_be_compared_stands_side_by_side_with_the_reason(tmp_path):
    two = {"forward": 70.0, "reverse": 71.0}
    first = make_geometry(two).save(tmp_path / "mnli")
    other = make_geometry(two, probe="9" * 64).save(tmp_path / "sst2")
    found = gather([first, other])
    assert found.comparison is None
    assert [analysis.label for analysis in found.geometries] == ["mnli", "sst2"]
    assert "differ in the probe" in found.not_compared
    with pytest.raises(InputError, match="3 task labels for 2 Geometries"):
        gather([first, other], labels=["a", "b", "c"])


def test_the_confounds_of_a_reproduction_stand_beneath_the_verdict(tmp_path):
    sweep = write_sweep(tmp_path / "run" / "sweep-3-layers", score_rows({"none": 0.7, "forward": 0.9, "reverse": 0.8}))
    result = tmp_path / "run" / "result.json"
    write_json(result, {"recipe": "qnli", "confounds": ["one seed", "rates < differ"]})
    # A folder that happens to have a file of this name is no reproduction.
    assert gather([sweep]).confounds == ()
    write_json(tmp_path / "run" / "reproduce.json", {})
    found = gather([sweep])
    assert found.confounds == ("qnli: one seed", "qnli: rates < differ")
    written = page(found, [], [], [], StyleSheet(), "title")
    assert "not known (2)</summary>" in written
    assert "<li>qnli: rates &lt; differ</li>" in written
    assert "not known (" not in page(replace(found, confounds=()), [], [], [], StyleSheet(), "title")
    write_json(result, {"recipe": "qnli"})  # of an earlier version
    assert gather([sweep]).confounds == ()
    write_json(result, {"recipe": "qnli", "confounds": 3})
    with pytest.raises(InputError, match=r"result\.json is damaged \(confounds: .*; run the reproduction again"):
        gather([sweep])


def test_one_strategy_is_reported_without_a_comparison(tmp_path):
    found = gather(
        [make_geometry({"forward": 70.0}).save(tmp_path / "one"), write_run(tmp_path / "run", "forward", 0.9)]
    )
    assert found.comparison is None
    assert "one strategy" in found.not_compared
    assert len(found.scores) == 1


def test_scores_and_geometry_are_compared(tmp_path):
    sweep = write_sweep(tmp_path / "sweep", score_rows({"none": 0.7, "forward": 0.9, "reverse": 0.8}))
    found = gather([make_geometry({"forward": 70.0, "reverse": 80.0}).save(tmp_path / "one"), sweep])
    assert found.comparison is not None
    assert (found.comparison.verdict, found.not_compared) == ("different", "")
    assert isinstance(found.scores[0], pd.DataFrame)
    with pytest.raises(InputError, match="--angle-margin is -1"):
        gather([sweep], margin=-1)


def test_nothing_and_a_directory_of_another_kind_are_refused(tmp_path):
    with pytest.raises(InputError, match="nothing came to report"):
        gather([])
    with pytest.raises(InputError, match="holds no Geometry and no scores"):
        gather([tmp_path])
