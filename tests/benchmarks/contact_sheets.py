"""Every family as it will be seen, on sheets to look at: widths, grounds, numbers of students and layers, and eyes.

    python tests/benchmarks/contact_sheets.py OUT [FAMILY...]

writes OUT/FAMILY.png: for 1, 3 and 10 students of 4 layers and one of 80, at column and page width, light and dark; and
OUT/FAMILY-eyes.png: three students at page width in grey and as seen with protanopia, deuteranopia and tritanopia.
Results are invented (those of the tests), so that a sheet takes seconds.
"""

from __future__ import annotations

import dataclasses
import io
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from anglekit.plots.files import figure_bytes  # noqa: E402
from anglekit.plots.ground import pages_of  # noqa: E402
from anglekit.plots.registry import FIGURES, draw_figure  # noqa: E402
from anglekit.results.geometry import Geometry  # noqa: E402
from tests.plots.full_geometry import FIVE, SEVEN, full_geometry, score_table, training_records  # noqa: E402
from tests.plots.vision import VISION, seen_as  # noqa: E402

DPI = 70
STUDENTS: Mapping[str, tuple[Sequence[str], Sequence[str]]] = {
    "1 student": (("forward",), ("random",)),
    "3 students": (("none", "forward", "reverse"), ("teacher",)),
    "10 students": (FIVE, ("random", "teacher")),
}


def geometries() -> dict[str, Geometry]:
    """Return one Geometry for each number of students, and one of a deep teacher."""
    found = {words: full_geometry(*arms, teacher_layers=5, depth=3) for words, arms in STUDENTS.items()}
    return found | {"80 layers": full_geometry(("forward",), ("random",), teacher_layers=81, depth=6)}


def drawn(name: str, geometry: Geometry, **look: Any) -> list[Image.Image]:
    """Return the pages of a family as images."""
    spec = FIGURES[name]
    given: list[Geometry] = [] if spec.uses in ("scores", "records") else [geometry]
    if spec.over_training:
        given = [
            dataclasses.replace(geometry, provenance={**geometry.provenance, "training_step": step})
            for step in (0, 100, 200)
        ]
    options: dict[str, Any] = {}
    if spec.uses != "geometries":
        options = {"scores": [score_table(SEVEN)], "records": [training_records(SEVEN)]}
    figure = draw_figure(name, given, **options, **look)
    return [Image.open(io.BytesIO(figure_bytes(page, "png", dpi=DPI))).convert("RGB") for page in pages_of(figure)]


def joined(rows: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """Return images side by side, row under row."""
    width = max(sum(image.width + 8 for image in row) for row in rows)
    sheet = Image.new("RGB", (width, sum(max(image.height for image in row) + 8 for row in rows)), "#7f7f7f")
    top = 0
    for row in rows:
        left = 0
        for image in row:
            sheet.paste(image, (left, top))
            left += image.width + 8
        top += max(image.height for image in row) + 8
    return sheet


def main(out: Path, names: Sequence[str]) -> None:
    """Write the sheets."""
    out.mkdir(parents=True, exist_ok=True)
    found = geometries()
    for name in names:
        alone = FIGURES[name].uses in ("scores", "records")
        some = (
            ["10 students"]
            if alone
            else [words for words in found if (FIGURES[name].uses, words) != ("both", "80 layers")]
        )
        if FIGURES[name].uses == "both":
            some = ["10 students"]
        rows = []
        for words in some:
            looks = ({"width": width, "dark": dark} for dark in (False, True) for width in ("page", "column"))
            rows.append([page for look in looks for page in drawn(name, found[words], **look)])
        joined(rows).save(out / f"{name}.png")
        seen = drawn(name, found["3 students" if "3 students" in some else some[0]])[0]
        pixels = np.asarray(seen) / 255.0
        eyes = [seen.convert("L").convert("RGB")]
        eyes += [
            Image.fromarray((255 * seen_as(pixels, kind)).round().astype(np.uint8))
            for kind in VISION
            if kind != "normal"
        ]
        joined([eyes[:2], eyes[2:]]).save(out / f"{name}-eyes.png")
        print(out / f"{name}.png", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] or list(FIGURES))
