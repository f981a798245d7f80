"""What is compared, cell by cell: one measure of every strategy's students under one initialisation.

A cell of angles is about one student layer of a stream. A cell of scores is about one score on one evaluation table.
Its students are paired by seed, and by example where there are examples.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from anglekit.errors import InputError
from anglekit.results.geometry import Geometry
from anglekit.vocabulary import RANDOM_TEACHER, STRATEGIES, WITHOUT_TEACHER, matches_layers

Part = Literal["angle", "score"]
Seed = int | None
Array = NDArray[np.float64]

#: The strategy without matching.
NONE = "none"


@dataclass(frozen=True, eq=False)
class Cell:
    """One measure of all strategies under one initialisation.

    Attributes:
        part: "angle" or "score".
        init: how the students were initialised.
        place: what the cell is about: `stream` and `vertex`, or `data` and `score`.
        students: by strategy and seed, the angle of each example in degrees, or the one score; (examples,).
        weights: by strategy and seed, the tokens of each example, 0 where a student of this cell has no angle; 1 for a
            score; (examples,).
        cosines: the angles as cosines; None for scores.
    """

    part: Part
    init: str
    place: Mapping[str, Any]
    students: Mapping[tuple[str, Seed], Array]
    weights: Mapping[tuple[str, Seed], Array]
    cosines: Mapping[tuple[str, Seed], Array] | None = None

    @property
    def strategies(self) -> list[str]:
        """All strategies and controls; see `in_order`."""
        return in_order(strategy for strategy, _ in self.students)

    @property
    def matching(self) -> list[str]:
        """The strategies that match layers, without controls."""
        return [strategy for strategy in self.strategies if matches_layers(strategy)]

    @property
    def measure(self) -> str:
        """The cell in words, as in the column `measure`."""
        if self.part == "angle":
            return f"angle, {self.place['stream']} layer {self.place['vertex']}"
        return f"{self.place['score']}, {self.place['data']}" if self.place["data"] else str(self.place["score"])

    def seeds(self, strategies: Iterable[str]) -> list[Seed]:
        """Return the seeds that all of these strategies have; only those can be paired."""
        owned = [{seed for own, seed in self.students if own == strategy} for strategy in strategies]
        common = set.intersection(*owned) if owned else set()
        return sorted(common, key=lambda seed: -1 if seed is None else seed)

    def stack(self, strategies: Sequence[str], seeds: Sequence[Seed], *, cosine: bool = False) -> tuple[Array, Array]:
        """Return values and weights of shape (strategies, seeds, examples)."""
        source = self.cosines if cosine and self.cosines is not None else self.students
        values, weights = (
            np.array([[table[strategy, seed] for seed in seeds] for strategy in strategies])
            for table in (source, self.weights)
        )
        return values, weights


def in_order(strategies: Iterable[str]) -> list[str]:
    """Return each strategy once: `none` between the controls, the paper's others, then others in the order given."""
    # From the least to the most that a student is told: nothing, predictions, states that know nothing, layers.
    order = (WITHOUT_TEACHER, NONE, RANDOM_TEACHER, *(name for name in STRATEGIES if name != NONE))
    found = dict.fromkeys(strategies)
    return [name for name in order if name in found] + [name for name in found if name not in order]


def score_cells(scores: pd.DataFrame) -> list[Cell]:
    """Return a cell for each initialisation, evaluation table and score; `scores` has the columns `SCORE_COLUMNS`."""
    cells = []
    for (init, data, score), rows in scores.groupby(["init", "data", "score"], sort=False):
        arms = zip(rows["strategy"], rows["seed"], rows["value"], strict=True)
        students: dict[tuple[str, Seed], Array] = {
            (str(strategy), int(seed)): np.array([float(value)]) for strategy, seed, value in arms
        }
        weights: dict[tuple[str, Seed], Array] = {key: np.ones(1) for key in students}
        cells.append(Cell("score", str(init), {"data": str(data), "score": str(score)}, students, weights))
    return cells


def angle_cells(geometries: Sequence[tuple[str, Geometry]]) -> tuple[list[Cell], list[str]]:
    """Return a cell for each initialisation, stream and student layer, and notes about what was left out.

    An example's angle is the angle of its mean cosine over tokens and pairs.

    Raises:
        InputError: no example is in all Geometries.
    """
    if not geometries:
        return [], []
    table = rows_by_arm(geometries, "examples").drop_duplicates([*ARM_KEY, "example"])
    cells: list[Cell] = []
    notes: list[str] = []
    for stream, of_stream in table.groupby("stream", sort=False):
        examples = _common_examples(of_stream, str(stream), notes)
        for (init, vertex), rows in of_stream.groupby(["init", "vertex"], sort=True):
            cell = _angle_cell(rows, examples, str(init), {"stream": str(stream), "vertex": int(str(vertex))}, notes)
            cells += [] if cell is None else [cell]
    return cells, notes


#: The columns that identify a layer among those of all students.
ARM_KEY = ("strategy", "init", "seed", "stream", "vertex")


def rows_by_arm(geometries: Sequence[tuple[str, Geometry]], table: str) -> pd.DataFrame:
    """Return a table of all students with the columns `strategy, init, seed`; -1 stands for an unrecorded seed.

    Raises:
        InputError: a student has no row.
    """
    frames: list[pd.DataFrame] = []
    for name, geometry in geometries:
        rows: pd.DataFrame = getattr(geometry, table)
        for student, (strategy, init, seed) in geometry.arms.items():
            own = rows[rows["student"] == student]
            if own.empty:
                raise InputError(f"{name} has no {table} of student {student!r}", "analyse it again")
            # Only whole numbers, so that the column keeps an integer type.
            frames.append(own.assign(strategy=strategy, init=init, seed=-1 if seed is None else seed))
    table_of_all: pd.DataFrame = pd.concat(frames, ignore_index=True)
    return table_of_all


def _common_examples(rows: pd.DataFrame, stream: str, notes: list[str]) -> NDArray[np.int64]:
    sets = [set(own) for _, own in rows.groupby(["strategy", "init", "seed"])["example"]]
    common, largest = set.intersection(*sets), max(len(one) for one in sets)
    if not common:
        raise InputError("no example is in all Geometries", "analyse all students with the same --limit and --seed")
    if len(common) < max(largest, len(set.union(*sets))):
        notes.append(f"{stream}: {len(common)} examples are in all Geometries and are compared, of up to {largest}")
    return np.array(sorted(common), dtype=np.int64)


def _angle_cell(
    rows: pd.DataFrame, examples: NDArray[np.int64], init: str, place: Mapping[str, Any], notes: list[str]
) -> Cell | None:
    cosines: dict[tuple[str, Seed], Array] = {}
    tokens: dict[tuple[str, Seed], Array] = {}
    for (strategy, seed), own in rows.groupby(["strategy", "seed"], sort=False):
        aligned = own.set_index("example").reindex(examples)
        key = (str(strategy), None if int(str(seed)) < 0 else int(str(seed)))
        cosines[key] = aligned["mean_cosine"].to_numpy(np.float64)
        tokens[key] = aligned["n_tokens"].to_numpy(np.float64)
    defined = np.all([np.isfinite(cosine) & (tokens[key] > 0) for key, cosine in cosines.items()], axis=0)
    where = f"{init}, {place['stream']} layer {place['vertex']}"
    if not defined.any():
        notes.append(f"{where}: no example has an angle for every student; this layer is left out")
        return None
    if not defined.all():
        notes.append(f"{where}: {int((~defined).sum())} of {len(examples)} examples lack an angle and are left out")
    return Cell(
        "angle",
        init,
        place,
        {key: np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))) for key, cosine in cosines.items()},
        {key: np.where(defined, own, 0.0) for key, own in tokens.items()},
        cosines,
    )
