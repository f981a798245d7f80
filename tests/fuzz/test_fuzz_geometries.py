"""Hostile Geometries: documents and tables that were tampered with, through everything that reads them."""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from anglekit.comparison.compare import compare
from anglekit.plots.registry import FIGURES, draw_figure
from anglekit.report.build import build_report
from anglekit.results.columns import COLUMNS
from anglekit.results.geometry import Geometry
from tests.fuzz.damaged_tables import damaged_parquet
from tests.fuzz.harness import Campaign, Case, canary_command, cases, fresh
from tests.fuzz.mutations import damaged_json_file
from tests.plots.full_geometry import full_geometry


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> list[Path]:
    """Two Geometries with all that a document may hold."""
    place = tmp_path_factory.mktemp("originals")
    return [
        documented(full_geometry()).save(place / "one-stream"),
        documented(full_geometry(("none", "reverse"), ("random",), streams=("encoder", "decoder"))).save(place / "two"),
    ]


def documented(geometry: Geometry) -> Geometry:
    """Return a Geometry whose document says all that `analyze` writes."""
    model = {"source": "runs/x", "model_type": "bert", "architecture": "BertModel", "width": 12, "sha256": "c" * 64}
    depth = dict.fromkeys(geometry.angles["stream"].unique(), 2)
    students = [{**entry, **model, "depth": depth} for entry in geometry.provenance["students"]]
    state = {"teacher": {"1": 3}, "student": {}}
    by_stream = {"tokens": 24, "zero_direction": [{"vertex": 0, "teacher_layer": 0}]}
    by_stream |= {"nonfinite_states": state, "zero_states": state}
    first = {"student": students[0]["name"], "stream": next(iter(depth)), "vertex": 1}
    sketch = {"teacher_i": 0, "teacher_k": 2, "example": 4, "token": "good", "distance_i": 1.0, "distance_k": 1.5}
    tables = {name: getattr(geometry, name) for name in geometry.__dataclass_fields__}
    return Geometry(
        **{
            **tables,
            "settings": {
                "reading": "corrected",
                "final_norm": "excluded",
                "special_tokens": True,
                "seed": 0,
                "max_length": None,
                "teacher_layers": {stream: [0, 1, 2] for stream in depth},
                "vertices": {entry["name"]: {stream: [0, 1, 2] for stream in depth} for entry in students},
            },
            "provenance": {
                "students": students,
                "teacher": {"name": "teacher", **model, "depth": depth},
                "probe": {"source": "dev.tsv", "sha256": "a" * 64, "text": "sentence", "text_pair": None},
                "packages": {"torch": "2.6"},
                "device": "cpu",
                "dtype": "float32",
            },
            "counts": {
                "examples": 4,
                "skipped_rows": 1,
                "truncated_examples": 1,
                "truncated_tokens": 3,
                "max_length": 64,
                "by_student": {entry["name"]: dict.fromkeys(depth, by_stream) for entry in students},
            },
            "projections": [{**first, "kind": "adapter", "r_squared": 0.5, "teacher_layer": 1}],
            "sketch_tokens": [{**first, **sketch, "cosine": 0.6, "points": [[0, 1.0, 0.0], [2, 0.9, 1.2]]}],
        }
    )


def damage(case: Case, directory: Path, place: Path) -> None:
    rng = case.rng
    for _ in range(rng.choice((1, 1, 2))):
        action = rng.choice(("document", "document", "document", "table", "table", "table", "links"))
        if action == "document":
            more: dict[str, Any] = {
                "name": f"$({canary_command(place)})",
                "training_step": 10**30,
                "official_histogram": str(place / "x"),
                "shard": "1/2",
            }
            damaged_json_file(case, directory / "geometry.json", more)
        elif action == "table":
            damaged_parquet(case, rng.choice(sorted(directory.glob("*.parquet"))))
        else:
            file = rng.choice(sorted(directory.iterdir()))
            target = rng.choice(("/dev/null", "nowhere", file.name, "."))
            file.unlink()
            file.symlink_to(target)
            case.did.append(f"{file.name} links to {target}")
            return


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
    for case in cases("geometry", few=30):
        directory = fresh(case.rng.choice(originals), place / "geometry")
        damage(case, directory, place)
        campaign.judge(case, partial(Geometry.load, directory), str(directory), sane)
    campaign.finish()


def test_what_is_made_of_geometries(originals, tmp_path):
    campaign = Campaign(place := tmp_path / "place")
    for case in cases("geometry use", few=12):
        directory = fresh(case.rng.choice(originals), place / "geometry")
        damage(case, directory, place)
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
    comparison = compare([directory], draws=50)
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
