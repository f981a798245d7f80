"""Damaged Geometries: documents and tables that were changed, through everything that reads them."""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from anglekit.comparison.compare import compare
from anglekit.plots.registry import FIGURES, draw_figure
from anglekit.report.build import build_report
from anglekit.results.columns import COLUMNS
from anglekit.results.geometry import Geometry
from tests.fuzz.damaged_geometries import damage_geometry, documented
from tests.fuzz.harness import Campaign, cases, fresh
from tests.plots.full_geometry import full_geometry


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> list[Path]:
    """Two Geometries with all that a document may hold."""
    place = tmp_path_factory.mktemp("originals")
    return [
        documented(full_geometry()).save(place / "one-stream"),
        documented(full_geometry(("none", "reverse"), ("random",), streams=("encoder", "decoder"))).save(place / "two"),
    ]


def sane(geometry: Geometry) -> None:
    assert len(set(geometry.students)) == len(geometry.students)
    for table, columns in COLUMNS.items():
        frame = getattr(geometry, table)
        assert list(frame.columns) == list(columns)
        assert set(frame["student"]) <= set(geometry.students)
    for student in geometry.students:
        for stream in ("encoder", "decoder"):
            assert (geometry.pooled_histogram(student, stream) >= 0).all()
    cosines = geometry.angles["mean_cosine"].to_numpy()
    assert (np.isnan(cosines) | (np.abs(cosines) <= 1.001)).all()
    geometry.summary_rows()
    geometry.notes()
    assert geometry._repr_html_()


def test_geometries(originals, tmp_path):
    campaign = Campaign(place := tmp_path / "place")
    for case in cases("geometry", few=16):
        directory = fresh(case.rng.choice(originals), place / "geometry")
        damage_geometry(case, directory, place)
        campaign.judge(case, partial(Geometry.load, directory), str(directory), sane)
    campaign.finish()


def test_what_is_made_of_geometries(originals, tmp_path):
    campaign = Campaign(place := tmp_path / "place")
    for case in cases("geometry use", few=6):
        directory = fresh(case.rng.choice(originals), place / "geometry")
        damage_geometry(case, directory, place)
        use = case.rng.choice(("compare", "report", "figure", "figure"))
        case.did.append(use)
        if use == "figure":
            figure = case.rng.choice(sorted(FIGURES))
            case.did.append(figure)
            campaign.judge(case, partial(drawn, figure, directory), "")
        else:
            campaign.judge(case, partial(compared if use == "compare" else reported, directory), "")
    campaign.finish()


def compared(directory: Path) -> None:
    comparison = compare([directory])
    for form in ("terminal", "csv", "markdown", "latex", "json"):
        assert comparison.text(form)


def reported(directory: Path) -> None:
    assert "<html" in build_report([directory], title="x").html


def drawn(name: str, directory: Path) -> None:
    geometry = Geometry.load(directory)
    with warnings.catch_warnings():
        # What numpy and matplotlib say about numbers at the edge of float64.
        warnings.simplefilter("ignore", RuntimeWarning)
        figure = draw_figure(name, [geometry, geometry] if name == "training-angles" else [geometry])
        assert isinstance(figure, Figure)
        figure.canvas.draw()
