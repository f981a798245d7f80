"""Every figure by name, alone and on the caller's own axes, which stay the caller's."""

from __future__ import annotations

import dataclasses

import matplotlib as mpl
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import anglekit
from anglekit.errors import InputError
from anglekit.plots.registry import FIGURES
from tests.plots.full_geometry import FIVE, SEVEN, full_geometry, score_table, training_records


@pytest.fixture(scope="module")
def one():
    return full_geometry(("forward", "reverse"), ("teacher",), teacher_layers=3, depth=1)


def sources(name, geometry):
    """What a figure is drawn from."""
    steps = [
        dataclasses.replace(geometry, provenance={**geometry.provenance, "training_step": step}) for step in (0, 100)
    ]
    spec = FIGURES[name]
    given = {"scores": None, "records": None, "both": geometry, "geometries": steps if spec.over_training else geometry}
    strategies = SEVEN if name == "control-gain" else FIVE
    scores = {} if spec.uses == "geometries" else {"scores": [score_table(strategies)]}
    return given[spec.uses], scores | ({"records": [training_records(strategies)]} if spec.uses == "records" else {})


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_drawn_on_a_part_of_a_figure_and_on_axes(one, name):
    given, scores = sources(name, one)
    figure = Figure(figsize=(14, 8), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    left, right = figure.subfigures(1, 2)
    own = left.add_subplot()
    settings = dict(mpl.rcParams)

    assert anglekit.draw(name, given, **scores, ax=right) is right
    panels = [ax for ax in right.axes if ax.get_gid() != "colour-bar"]

    assert (left.axes, figure.canvas, dict(mpl.rcParams)) == ([own], canvas, settings)
    assert panels
    assert all(right.bbox.x0 <= ax.get_window_extent().x0 for ax in panels)
    assert all(text.get_transform().transform(text.get_position())[0] >= right.bbox.x0 for text in right.texts)
    assert all(each.get_window_extent().x0 >= right.bbox.x0 for each in right.artists + right.patches + right.lines)
    axes = Figure(figsize=(3 * len(panels), 3)).subplots(1, len(panels))
    if name == "figure1":
        with pytest.raises(InputError, match="give a SubFigure"):
            anglekit.draw(name, given, ax=axes)
        return
    assert anglekit.draw(name, given, **scores, ax=axes) is axes
    drawn = [axes] if len(panels) == 1 else list(axes)
    # The rows of these have names, not a scale, on that side.
    rows = name in ("control-gain", "angle-spread")
    assert all(ax.has_data() and (ax.get_ylabel() or rows) for ax in drawn)


def test_files_have_their_fonts_embedded_whatever_the_caller_s_settings(one, tmp_path):
    with mpl.rc_context({"pdf.fonttype": 3, "svg.fonttype": "path"}):
        figure = anglekit.draw("layer-norms", one)
        for kind in ("pdf", "svg"):
            figure.savefig(tmp_path / f"own.{kind}")
        assert (mpl.rcParams["pdf.fonttype"], mpl.rcParams["svg.fonttype"]) == (3, "path")
        plain = Figure()
        plain.text(0.5, 0.5, "a text")
        plain.savefig(tmp_path / "plain.pdf")
    embedded, other = ((tmp_path / f"{name}.pdf").read_bytes() for name in ("own", "plain"))
    assert b"/FontFile2" in embedded
    assert b"/Type3" not in embedded
    assert b"/Type3" in other
    assert "mean norm (state units)" in (tmp_path / "own.svg").read_text(encoding="utf-8")


def test_directories_are_drawn_under_their_names(one, tmp_path):
    places = [str(one.save(tmp_path / f"geometry-step-{step}")) for step in (5, 50)]
    figure = anglekit.draw("training-angles", places)
    assert {float(x) for ax in figure.axes for line in ax.lines for x in line.get_xdata()} >= {5.0, 50.0}
    assert anglekit.draw("layer-norms", places[0], width="column").get_size_inches()[0] == pytest.approx(3.03)


def test_what_cannot_be_drawn_is_refused_in_a_line(one):
    axes = Figure().subplots(1, 2)
    low = Figure(figsize=(6, 1))
    cases = [
        (("layer-norm", one), {}, "did you mean 'layer-norms'"),
        (("layer-norms", None), {}, "one directory, 0 were given"),
        (("layer-norms", 3), {}, "int"),
        (("layer-norms", [3]), {}, "a int cannot be drawn"),
        (("layer-norms", one), {"ax": 3}, "cannot be drawn on a int"),
        (("layer-norms", one), {"ax": axes}, "1 panel here and was given 2 axes; give 1 axes"),
        (("layer-norms", one), {"ax": low}, "inches high at this width and was given 1.0"),
        (("layer-norms", one), {"student": "forward"}, "no option 'student'"),
        (("layer-norms", one), {"vertices": [1]}, "takes no vertices"),
        (("scores-by-strategy", one), {}, "drawn from scores"),
    ]
    for given, options, expected in cases:
        with pytest.raises(InputError, match=expected) as caught:
            anglekit.draw(*given, **options)
        assert "\n" not in str(caught.value)
