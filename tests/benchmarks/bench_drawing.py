"""What drawing costs: every figure family at its default for six students, and the report of them, behind the imports.

A JSON line for each family, in CPU seconds with the goal of 2 s; then one for the page of six students and a sweep's
scores, in seconds on the clock with as many processes as `anglekit report` takes (goal 20 s) and in MB (goal 3). The
results are those of the gallery.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from anglekit.plots.files import page_files  # noqa: E402
from anglekit.plots.ground import pages_of  # noqa: E402
from anglekit.plots.inputs import read_figure_inputs  # noqa: E402
from anglekit.plots.registry import FIGURES, draw_figure  # noqa: E402
from anglekit.report.build import build_report  # noqa: E402
from anglekit.results.geometry import Geometry  # noqa: E402

GOAL = 2.0
REPORT_GOAL, PAGE_GOAL = 20.0, 3.0
GALLERY = ROOT / "data" / "gallery"


def given(name: str) -> tuple[list[Geometry], dict[str, object]]:
    """Return what a family is drawn from: six students, or the 14 arms of a sweep with controls and three seeds."""
    spec = FIGURES[name]
    if spec.over_training:
        places = sorted((GALLERY / "training" / "forward").glob("geometry-step-*"))
        steps = [int(place.name.rpartition("-")[2]) for place in places]
        return [Geometry.load(place) for place in places], {"labels": [f"geometry-step-{step}" for step in steps]}
    geometry = Geometry.load(GALLERY / "inference")
    geometries = [] if spec.uses in ("scores", "records") else [geometry]
    options: dict[str, object] = {}
    if "students" in spec.options:
        options["students"] = geometry.students[:6]
    if spec.uses != "geometries":
        whole = read_figure_inputs([GALLERY / "inference-sweep"])
        options |= {"scores": whole.scores, "records": whole.records}
    return geometries, options


def main() -> None:
    """Draw each family once for the caches, then measure: the figure, and its file."""
    for name in FIGURES:
        geometries, options = given(name)
        pages = pages_of(draw_figure(name, geometries, **options))
        start = time.process_time()
        figure = draw_figure(name, geometries, **options)
        drawn = time.process_time()
        page_files(figure, "png", dpi=150)
        written = time.process_time()
        seconds = {"drawn_s": round(drawn - start, 3), "written_s": round(written - drawn, 3)}
        line = {"name": f"drawing {name}", **seconds, "goal_s": GOAL, "pages": len(pages)}
        print(json.dumps(line | {"met": drawn - start <= GOAL}), flush=True)
    measure_report()


def six_students() -> Geometry:
    """Return the gallery's Geometry of its first six students."""
    geometry = Geometry.load(GALLERY / "inference")
    kept = geometry.students[:6]
    tables = {}
    for field in dataclasses.fields(geometry):
        table = getattr(geometry, field.name)
        if isinstance(table, pd.DataFrame):
            tables[field.name] = table[table["student"].isin(kept)].reset_index(drop=True)
    students = [entry for entry in geometry.provenance["students"] if entry["name"] in kept]
    tokens = [row for row in geometry.sketch_tokens if row["student"] in kept]
    provenance = {**geometry.provenance, "students": students}
    return dataclasses.replace(geometry, **tables, provenance=provenance, sketch_tokens=tokens)


def measure_report() -> None:
    """Make the page and print its line."""
    start = time.perf_counter()
    report = build_report([six_students(), GALLERY / "inference-sweep"], workers=None)
    seconds, megabytes = time.perf_counter() - start, len(report.html.encode()) / 1e6
    line = {"name": "report, six students", "seconds": round(seconds, 2), "goal_s": REPORT_GOAL}
    line |= {"mb": round(megabytes, 2), "goal_mb": PAGE_GOAL, "figures": len(report.figures)}
    print(json.dumps(line | {"met": seconds <= REPORT_GOAL and megabytes <= PAGE_GOAL}), flush=True)


if __name__ == "__main__":
    main()
