"""A figure's bytes: the same every time, fonts embedded, text as text."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import matplotlib as mpl
import pytest

from anglekit.errors import InputError
from anglekit.plots.figure1.figure1 import figure1
from anglekit.plots.figures.angles_heatmap import angles_heatmap
from anglekit.plots.files import FORMATS, figure_bytes
from anglekit.plots.registry import FIGURES, draw_figure
from anglekit.results.geometry import Geometry

START = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("draw", [lambda g: figure1([g]), angles_heatmap], ids=["figure1", "angles-heatmap"])
def test_bytes_are_the_same_whatever_the_callers_settings(geometry, draw, file_format: str) -> None:
    first = figure_bytes(draw(geometry), file_format, dpi=80)
    with mpl.rc_context({"font.size": 20, "svg.hashsalt": None, "svg.fonttype": "path", "pdf.fonttype": 3}):
        second = figure_bytes(draw(geometry), file_format, dpi=80)
    assert first.startswith(START[file_format])
    assert first == second


@pytest.mark.parametrize("file_format", FORMATS)
def test_another_figure_gives_other_bytes(geometry, file_format: str) -> None:
    one = figure_bytes(figure1([geometry], students="random-forward"), file_format, dpi=80)
    assert one != figure_bytes(figure1([geometry], students="teacher-forward"), file_format, dpi=80)


def test_bytes_are_the_same_in_another_process(geometry, tmp_path: Path) -> None:
    geometry.save(tmp_path / "g")
    code = (
        "import sys, hashlib\n"
        "from anglekit.results.geometry import Geometry\n"
        "from anglekit.plots.registry import draw_figure\n"
        "from anglekit.plots.files import figure_bytes\n"
        "figure = draw_figure('figure1', [Geometry.load(sys.argv[1])])\n"
        "for kind in ('svg', 'pdf', 'png'):\n"
        "    print(hashlib.sha256(figure_bytes(figure, kind, dpi=80)).hexdigest())\n"
    )
    other = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "g")],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "1", "MPLCONFIGDIR": mpl.get_configdir(), "PATH": "/usr/bin:/bin"},
    ).stdout
    figure = draw_figure("figure1", [Geometry.load(tmp_path / "g")])
    assert other.split() == [
        hashlib.sha256(figure_bytes(figure, kind, dpi=80)).hexdigest() for kind in ("svg", "pdf", "png")
    ]


def test_pdf_embeds_truetype(geometry) -> None:
    content = figure_bytes(figure1([geometry]), "pdf")
    assert b"/FontFile2" in content
    assert b"/Type3" not in content


def test_svg_text_is_text_and_markup_is_escaped(make_geometry) -> None:
    geometry = make_geometry({"<script>alert(1)</script>": "random"}, teacher_layers=4, tokens=40)
    content = figure_bytes(figure1([geometry], labels=["a & b"]), "svg").decode()
    root = ElementTree.fromstring(content)
    texts = ["".join(node.itertext()) for node in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "(b) a & b, encoder" in texts
    assert "<script>alert(1)</script> (random init)" in texts
    assert "<script>" not in content
    assert "<dc:date>" not in content


def test_resolution_and_format_are_checked(geometry) -> None:
    figure = figure1([geometry])
    with pytest.raises(InputError, match="no figure format 'gif'; allowed: png, pdf, svg"):
        figure_bytes(figure, "gif")
    for dpi in (0, -1, 1e6, float("nan")):
        with pytest.raises(InputError, match="dots per inch; give one from 10 to 2400"):
            figure_bytes(figure, "png", dpi=dpi)


def test_draw_figure_by_name(geometry) -> None:
    assert list(FIGURES)[:3] == ["figure1", "angles-heatmap", "null-heatmap"]
    assert len(draw_figure("figure1", [geometry, geometry], labels=["a", "b"]).axes) == 3
    assert len(draw_figure("angles-heatmap", [geometry], students=["random-forward"], stream=None).axes) == 5


@pytest.mark.parametrize(
    ("name", "count", "options", "message"),
    [
        ("figure2", 1, {}, r"no figure 'figure2'; did you mean 'figure1'\? allowed: figure1, angles-heatmap, "),
        ("angles-heatmap", 2, {}, "angles-heatmap draws one directory, 2 were given"),
        ("angles-heatmap", 0, {}, "angles-heatmap draws one directory, 0 were given"),
        ("angles-heatmap", 1, {"labels": ["a"]}, r"takes no task labels \(--task-name\); figures that do: figure1, "),
        ("figure1", 0, {}, "no geometry to draw figure1 from"),
        ("figure1", 1, {"value": "mean_cosine"}, r"takes no value \(--value\); figures that do: angles-heatmap"),
    ],
)
def test_draw_figure_refuses(geometry, name: str, count: int, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        draw_figure(name, [geometry] * count, **options)
