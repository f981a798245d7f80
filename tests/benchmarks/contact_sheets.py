"""Every family as it will be seen, on sheets to look at: widths, grounds, numbers of students and layers, and eyes.

    python tests/benchmarks/contact_sheets.py OUT [FAMILY...]

writes OUT/sheet-1.png and following, each small enough to be looked at whole: of each family its first page at page and
column width, for 1, 3 and 10 students of the gallery, for teachers of 4 and of 80 layers, and for two streams; then on
a dark ground, and in grey and as seen with protanopia and deuteranopia. OUT/sheets.txt says what stands where. Models
of other depths than the gallery's are random, of a few thousand parameters, and really analysed.
"""

from __future__ import annotations

import dataclasses
import io
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import anglekit  # noqa: E402
from anglekit.plots.files import figure_bytes  # noqa: E402
from anglekit.plots.ground import pages_of  # noqa: E402
from anglekit.plots.inputs import FigureInputs, read_figure_inputs  # noqa: E402
from anglekit.plots.registry import FIGURES, draw_figure  # noqa: E402
from anglekit.results.geometry import Geometry  # noqa: E402
from tests.plots.vision import seen_as  # noqa: E402
from tests.tiny_models import WORDS, tiny_checkpoint  # noqa: E402

GALLERY = ROOT / "data" / "gallery"
DPI = 100
#: Pixels: a sheet, and the space between its pictures.
WIDEST, HIGHEST, SPACE = 1040, 1140, 6
#: What a family is drawn from, with the options that choose students.
World = tuple[FigureInputs, dict[str, Any]]


def worlds() -> dict[str, World]:
    """Return Geometries by how many students and layers they hold."""
    gallery = Geometry.load(GALLERY / "inference")
    students = {
        "1 student": ["forward-teacher-seed0"],
        "3 students": ["none-teacher-seed0", "forward-teacher-seed0", "forward-random-seed0"],
        "10 students": gallery.students,
    }
    found: dict[str, World] = {words: (FigureInputs([gallery]), {"students": some}) for words, some in students.items()}
    for words, family, teacher, student in (
        ("4 layers", "bert", 3, 1),
        ("80 layers", "bert", 79, 20),
        ("two streams", "bart", 6, 3),
    ):
        found[words] = (FigureInputs([analysed(family, teacher, student)]), {})
    return found


def analysed(family: str, teacher_depth: int, student_depth: int) -> Geometry:
    """Return what an analysis of a random teacher and two random students finds."""
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, size=8)) for _ in range(24)]
    arms = [("none", "random"), ("forward", "random")]
    students = {
        f"{strategy}-{init}-seed0": tiny_checkpoint(family, "student", depth=student_depth, seed=number + 1)
        for number, (strategy, init) in enumerate(arms)
    }
    targets = texts if family == "bart" else None
    geometry = anglekit.analyze(
        tiny_checkpoint(family, "teacher", depth=teacher_depth), students, texts, targets=targets
    )
    entries = [
        {**entry, "strategy": strategy, "init": init, "seed": 0}
        for entry, (strategy, init) in zip(geometry.provenance["students"], arms, strict=True)
    ]
    return dataclasses.replace(geometry, provenance={**geometry.provenance, "students": entries})


def score_worlds() -> dict[str, World]:
    """Return scores with what runs keep beside them: all arms, few of them, and two tasks."""
    whole = read_figure_inputs([GALLERY / "inference-sweep"])
    table = whole.scores[0]
    records = whole.records[0]
    few = dataclasses.replace(
        whole,
        scores=[_few_arms(table)],
        records=[dataclasses.replace(records, log=_few_arms(records.log), costs=_few_arms(records.costs))],
    )
    geometry = Geometry.load(GALLERY / "inference")
    two = FigureInputs([geometry] * 2, [*whole.scores] * 2, records=[*whole.records] * 2)
    labels = {"labels": ["built-in inference", "the same a second time"]}
    one = dataclasses.replace(whole, geometries=[geometry])
    return {
        "all arms": (one, {}),
        "few arms": (dataclasses.replace(few, geometries=[geometry]), {}),
        "two tasks": (two, labels),
    }


def _few_arms(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["strategy"].isin(["alone", "none", "forward", "reverse"]) & (table["init"] == "teacher")]


def training_worlds() -> dict[str, World]:
    """Return the Geometries of two runs over training, and of one."""
    steps = range(0, 601, 100)
    runs = {
        name: [Geometry.load(GALLERY / "training" / name / f"geometry-step-{step}") for step in steps]
        for name in ("none", "forward")
    }
    names = [f"geometry-step-{step}" for step in steps]
    both = [*runs["none"], *runs["forward"]]
    return {
        "1 run": (FigureInputs(runs["forward"]), {"labels": names}),
        "2 runs": (FigureInputs(both), {"labels": names * 2}),
    }


def pictures(name: str, world: World, **look: Any) -> list[Image.Image]:
    """Return the pages of a family as images."""
    spec, (inputs, options) = FIGURES[name], world
    geometries = () if spec.uses in ("scores", "records") else inputs.geometries
    scores = () if spec.uses == "geometries" else inputs.scores
    chosen = {option: value for option, value in options.items() if option in spec.options}
    figure = draw_figure(name, geometries, scores=scores, records=inputs.records if scores else (), **chosen, **look)
    return [Image.open(io.BytesIO(figure_bytes(page, "png", dpi=DPI))).convert("RGB") for page in pages_of(figure)]


def shown(name: str, found: dict[str, World]) -> Iterator[tuple[str, Image.Image]]:
    """Yield the pictures of a family, each with what it is."""
    for words, world in found.items():
        for width in ("page", "column"):
            pages = pictures(name, world, width=width)
            more = f", page 1 of {len(pages)}" if len(pages) > 1 else ""
            yield f"{name}, {words}, {width}{more}", pages[0]
    words = list(found)[-4] if len(found) > 3 else next(iter(found))
    yield f"{name}, {words}, dark", pictures(name, found[words], width="column", dark=True)[0]
    picture = pictures(name, found[words], width="column")[0]
    yield f"{name}, {words}, grey", picture.convert("L").convert("RGB")
    pixels = np.asarray(picture) / 255.0
    for kind in ("protan", "deutan"):
        seen = (255 * seen_as(pixels, kind)).round().astype(np.uint8)
        yield f"{name}, {words}, {kind}", Image.fromarray(seen)


class Sheets:
    """Sheets that grow: pictures side by side, row under row."""

    def __init__(self, out: Path) -> None:
        self.out, self.number = out, 0
        self.legend: list[str] = []
        self._begin()

    def _begin(self) -> None:
        self.sheet = Image.new("RGB", (WIDEST, HIGHEST), "#7f7f7f")
        self.left = self.top = self.row = 0
        self.words: list[str] = []

    def add(self, words: str, picture: Image.Image) -> None:
        """Put a picture where there is room, on a new sheet where there is none."""
        if self.left and self.left + picture.width > WIDEST:
            self.left, self.top, self.row = 0, self.top + self.row + SPACE, 0
        if self.top and self.top + picture.height > HIGHEST:
            self.close()
        self.sheet.paste(picture, (self.left, self.top))
        self.words.append(words)
        self.left += picture.width + SPACE
        self.row = max(self.row, picture.height)

    def close(self) -> None:
        """Write the sheet."""
        if not self.words:
            return
        self.number += 1
        self.sheet.crop((0, 0, WIDEST, self.top + self.row)).save(self.out / f"sheet-{self.number}.png")
        self.legend.append(f"sheet-{self.number}: {'; '.join(self.words)}")
        print(self.legend[-1], flush=True)
        self._begin()


def main(out: Path, names: Sequence[str]) -> None:
    """Write the sheets."""
    out.mkdir(parents=True, exist_ok=True)
    made = {"training": cache(training_worlds), "geometries": cache(worlds), "scores": cache(score_worlds)}
    sheets = Sheets(out)
    for name in names:
        spec = FIGURES[name]
        kind = "training" if spec.over_training else "geometries" if spec.uses == "geometries" else "scores"
        for words, picture in shown(name, made[kind]()):
            sheets.add(words, picture)
    sheets.close()
    (out / "sheets.txt").write_text("\n".join(sheets.legend) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] or list(FIGURES))
