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

from anglekit.comparison.wording import whose_words
from anglekit.errors import InputError
from anglekit.results.geometry import Geometry
from anglekit.vocabulary import NONE, RANDOM_TEACHER, STRATEGIES, WITHOUT_TEACHER, matches_layers

Part = Literal["angle", "score"]
Seed = int | None
Array = NDArray[np.float64]

#: In degrees; nothing nearer than this is told apart.
_ANGLE_RESOLUTION = 1e-6

#: What a value is of: strategy, initialisation, seed, evaluation table and score.
ScoreKey = tuple[str, str, int, str, str]


@dataclass(frozen=True, eq=False)
class Cell:
    """One measure of all strategies under one initialisation.

    Attributes:
        part: "angle" or "score".
        init: how the students were initialised.
        place: what the cell is about: `stream` and `vertex`, or `data` and `score`.
        students: by strategy and seed, each example's angle in degrees or part of the score, whose mean is the score;
            one value where a score is known only as a whole; (examples,).
        weights: by strategy and seed, the tokens of each example, 0 where a student of this cell has no angle; 1 for a
            score; (examples,).
        resolution: the smallest change that the cell's mean can show, in its unit.
        n_examples: how many examples the values are of, also where only their mean is known; None where nobody knows.
        clusters: (examples,), a number for each; equal texts have one number. None where every example is its own.
    """

    part: Part
    init: str
    place: Mapping[str, Any]
    students: Mapping[tuple[str, Seed], Array]
    weights: Mapping[tuple[str, Seed], Array]
    resolution: float = 0.0
    n_examples: int | None = None
    clusters: NDArray[np.int64] | None = None

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

    @property
    def examples_of(self) -> tuple[str, str]:
        """What the examples are of, a stream or a table: cells in which it is the same read the same ones."""
        return self.part, str(self.place["stream" if self.part == "angle" else "data"])

    def stack(self, strategies: Sequence[str], seeds: Sequence[Seed]) -> tuple[Array, Array]:
        """Return values and weights of shape (strategies, seeds, examples)."""
        values, weights = (
            np.array([[table[strategy, seed] for seed in seeds] for strategy in strategies])
            for table in (self.students, self.weights)
        )
        return values, weights


def in_order(strategies: Iterable[str]) -> list[str]:
    """Return each strategy once: `none` between the controls, the paper's others, then others in the order given."""
    # From the least to the most that a student is told: nothing, predictions, states that know nothing, layers.
    order = (WITHOUT_TEACHER, NONE, RANDOM_TEACHER, *(name for name in STRATEGIES if name != NONE))
    found = dict.fromkeys(strategies)
    return [name for name in order if name in found] + [name for name in found if name not in order]


def score_cells(
    scores: pd.DataFrame,
    examples: Mapping[ScoreKey, Array] | None = None,
    n_examples: Mapping[str, int] | None = None,
) -> tuple[list[Cell], list[str]]:
    """Return a cell for each initialisation, evaluation table and score, and notes about what is not known by example.

    Args:
        scores: with the columns `SCORE_COLUMNS`.
        examples: the examples' parts of each score, whose mean is the score.
        n_examples: of each evaluation table.
    """
    examples, n_examples = examples or {}, n_examples or {}
    cells: list[Cell] = []
    notes: list[str] = []
    for (init, data, score), rows in scores.groupby(["init", "data", "score"], sort=False):
        arms = [
            ((str(strategy), int(seed)), float(value))
            for strategy, seed, value in zip(rows["strategy"], rows["seed"], rows["value"], strict=True)
        ]
        keys = {arm: (arm[0], str(init), arm[1], str(data), str(score)) for arm, _ in arms}
        by_example = {arm: examples[key] for arm, key in keys.items() if key in examples}
        lengths = {len(one) for one in by_example.values()}
        students: dict[tuple[str, Seed], Array] = {arm: np.array([value]) for arm, value in arms}
        if len(by_example) == len(arms) and len(lengths) == 1:
            students = {arm: by_example[arm] for arm, _ in arms}
        else:
            lacking = [arm for arm, _ in arms if arm not in by_example]
            seeds: dict[str, list[str]] = {}
            for strategy, seed in lacking:
                seeds.setdefault(strategy, []).append(str(seed))
            of_each = ", ".join(f"{strategy} seed {' and '.join(each)}" for strategy, each in seeds.items())
            named = f" ({of_each})" if 0 < len(lacking) < len(arms) else ""
            notes.append(
                f"{whose_words(str(init))}, {data}: {len(lacking) or 'some'} of {len(arms)} students came without "
                f"predictions by example{named}, so intervals are over seeds alone and hold on this validation table "
                "(train them again)"
            )
        count = n_examples.get(str(data), *lengths) if len(lengths) == 1 else n_examples.get(str(data))
        unit = score_unit(value for _, value in arms)
        cells.append(
            Cell(
                "score",
                str(init),
                {"data": str(data), "score": str(score)},
                students,
                {arm: np.ones(len(one)) for arm, one in students.items()},
                resolution=unit / count if count else 0.0,
                n_examples=count,
            )
        )
    return cells, list(dict.fromkeys(notes))


def score_unit(values: Iterable[float]) -> float:
    """Return 1 for scores between 0 and 1, 100 for scores that run to 100."""
    return 1.0 if max((abs(value) for value in values), default=0.0) <= 1.0 else 100.0


def angle_cells(geometries: Sequence[tuple[str, Geometry]]) -> tuple[list[Cell], list[str]]:
    """Return a cell for each initialisation, stream and student layer, and notes about what was left out.

    An example's angle is the mean over its tokens and the pairs of teacher layers; for Geometries that do not hold it,
    the angle of the mean cosine, and a note says so.

    Raises:
        InputError: no example is in all Geometries.
    """
    if not geometries:
        return [], []
    table = rows_by_arm(geometries, "examples")
    older = any(own.isna().all() for _, own in table.groupby("geometry", sort=False)["mean_angle_degrees"])
    if older:
        # One kind of angle for all of them.
        cosines = table["mean_cosine"].clip(-1.0, 1.0)
        table = table.assign(mean_angle_degrees=np.degrees(np.arccos(cosines)))
    cells: list[Cell] = []
    notes: list[str] = []
    for stream, of_stream in table.groupby("stream", sort=False):
        examples = _common_examples(of_stream, str(stream), notes)
        if older:
            notes.append(f"{stream}: these Geometries hold no mean angles by example; angles are those of mean cosines")
        for (init, vertex), rows in of_stream.groupby(["init", "vertex"], sort=True):
            cell = _angle_cell(rows, examples, str(init), {"stream": str(stream), "vertex": int(str(vertex))}, notes)
            cells += [] if cell is None else [cell]
    return cells, notes


#: The columns that identify a layer among those of all students.
ARM_KEY = ("strategy", "init", "seed", "stream", "vertex")


def rows_by_arm(geometries: Sequence[tuple[str, Geometry]], table: str) -> pd.DataFrame:
    """Return a table of all students with the columns `geometry, strategy, init, seed`; -1: an unrecorded seed.

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
            own = own.assign(geometry=name, strategy=strategy, init=init, seed=-1 if seed is None else seed)
            frames.append(own)
    table_of_all: pd.DataFrame = pd.concat(frames, ignore_index=True)
    return table_of_all


def _common_examples(rows: pd.DataFrame, stream: str, notes: list[str]) -> NDArray[np.int64]:
    sets = [set(own) for _, own in rows.groupby(["geometry", "strategy", "init", "seed"])["example"]]
    common, sizes = set.intersection(*sets), sorted({len(one) for one in sets})
    if not common:
        raise InputError("no example is in all Geometries", "analyse all students with the same --sample and --seed")
    if len(common) < len(set.union(*sets)):
        held = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
        notes.append(f"{stream}: the Geometries hold {held} examples and share {len(common)}, which are compared")
    return np.array(sorted(common), dtype=np.int64)


def _angle_cell(
    rows: pd.DataFrame, examples: NDArray[np.int64], init: str, place: Mapping[str, Any], notes: list[str]
) -> Cell | None:
    angles: dict[tuple[str, Seed], Array] = {}
    tokens: dict[tuple[str, Seed], Array] = {}
    rows = rows.drop_duplicates(["strategy", "seed", "example"])
    for (strategy, seed), own in rows.groupby(["strategy", "seed"], sort=False):
        aligned = own.set_index("example").reindex(examples)
        key = (str(strategy), None if int(str(seed)) < 0 else int(str(seed)))
        angles[key] = aligned["mean_angle_degrees"].to_numpy(np.float64)
        tokens[key] = aligned["n_tokens"].to_numpy(np.float64)
    clusters = aligned["cluster"] if "cluster" in aligned else pd.Series(dtype="float64")
    defined = np.all([np.isfinite(angle) & (tokens[key] > 0) for key, angle in angles.items()], axis=0)
    where = f"{whose_words(init)}, {place['stream']} layer {place['vertex']}"
    if not defined.any():
        notes.append(f"{where}: no example has an angle for every student; this layer is left out")
        return None
    if not defined.all():
        notes.append(f"{where}: {int((~defined).sum())} of {len(examples)} examples lack an angle and are left out")
    return Cell(
        "angle",
        init,
        place,
        angles,
        {key: np.where(defined, own, 0.0) for key, own in tokens.items()},
        resolution=_ANGLE_RESOLUTION,
        # Every Geometry is of the same texts, so any student's will do.
        clusters=clusters.to_numpy(np.int64) if clusters.notna().all() and clusters.duplicated().any() else None,
        n_examples=int(defined.sum()),
    )
