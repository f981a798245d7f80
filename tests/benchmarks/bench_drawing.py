"""What drawing costs: every figure family at its default for six students, behind the imports, in CPU seconds.

A JSON line for each family, with the goal of 2 s. The results are those of the gallery.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from anglekit.plots.files import page_files  # noqa: E402
from anglekit.plots.ground import pages_of  # noqa: E402
from anglekit.plots.inputs import read_figure_inputs  # noqa: E402
from anglekit.plots.registry import FIGURES, draw_figure  # noqa: E402
from anglekit.results.geometry import Geometry  # noqa: E402

GOAL = 2.0
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


if __name__ == "__main__":
    main()
