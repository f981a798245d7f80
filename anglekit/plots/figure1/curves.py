"""What figure 1 draws, before it is drawn: density, acute share and chance level per task, stream and student."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from anglekit.comparison.cells import in_order
from anglekit.errors import InputError
from anglekit.plots.inputs import FigureInputs
from anglekit.plots.panels.chosen import check_labels, choose
from anglekit.plots.panels.labels import number_ranges
from anglekit.plots.spec import FigureOptions
from anglekit.plots.style import init_words
from anglekit.results.geometry import Geometry

_FINE_BINS, _COARSE_BINS = 200, 100
_ENOUGH_FOR_FINE = 20_000  # cosines: with fewer, 200 bins show sampling noise rather than the shape


@dataclass(frozen=True)
class Curve:
    """A student's distribution of the cosine in one panel.

    Attributes:
        student: its name.
        strategy: of matching; the student's own name where it is not recorded.
        init: `random`, `teacher` or None where it is not recorded.
        counts: cosines per bin, int64, shape (bins,), equal bins on [-1, 1].
        acute_fraction: the share of cosines above zero, weighted by tokens over the drawn rows.
        chance: the token-weighted mean of the chance level over the same rows; NaN where it is not known.
    """

    student: str
    strategy: str
    init: str | None
    counts: np.ndarray
    acute_fraction: float
    chance: float

    @property
    def density(self) -> np.ndarray:
        """Return the probability density: shape (bins,), its integral over [-1, 1] is 1."""
        return np.asarray(self.counts / (self.counts.sum() * (2.0 / len(self.counts))), dtype=np.float64)


@dataclass(frozen=True)
class Panel:
    """One task and stream.

    Attributes:
        label: the task's name, or None.
        stream: `encoder` or `decoder`.
        official: whether the numbers follow the paper's code.
        curves: a curve per student that has any finite cosine here.
        empty: the students that have none.
        pooled: in words, which vertices and pairs the curves pool.
        strategy: the only one in the panel, where a panel of many curves was taken apart; else None.
    """

    label: str | None
    stream: str
    official: bool
    curves: tuple[Curve, ...]
    empty: tuple[str, ...]
    pooled: str
    strategy: str | None = None


def small_multiples(panels: Sequence[Panel], most_curves: int, most_panels: int) -> list[Panel]:
    """Return the panels, those of more curves than can be told apart as one panel for each strategy.

    Args:
        panels: one per geometry and stream.
        most_curves: that a panel may hold.
        most_panels: that there may be; where there would be more, the panels stay as they are.
    """
    found = []
    for panel in panels:
        strategies = in_order(curve.strategy for curve in panel.curves)
        recorded = any(curve.strategy != curve.student for curve in panel.curves)
        if len(panel.curves) <= most_curves or len(strategies) < 2 or not recorded:
            found.append(panel)
            continue
        for number, strategy in enumerate(strategies):
            curves = tuple(curve for curve in panel.curves if curve.strategy == strategy)
            empty = panel.empty if number == 0 else ()
            found.append(replace(panel, curves=curves, empty=empty, strategy=strategy))
    return found if len(found) <= most_panels else list(panels)


def rebin(counts: np.ndarray, bins: int) -> np.ndarray:
    """Return counts summed into fewer equal bins: shape (bins,).

    Raises:
        InputError: the number of bins does not divide the number of counts.
    """
    if bins < 1 or len(counts) % bins:
        raise InputError(
            f"{bins} bins do not divide the {len(counts)} of the data", f"try {_FINE_BINS} or {_COARSE_BINS}"
        )
    return np.asarray(counts.reshape(bins, -1).sum(axis=1))


def cosine_panels(geometries: Sequence[Geometry], options: FigureOptions) -> list[Panel]:
    """Return a panel per geometry and stream that has any of the chosen students, their chosen layers pooled.

    Raises:
        InputError: an option names what the geometries do not have, or the labels are not one per geometry.
    """
    labels: Sequence[str | None] = check_labels(options.labels, len(geometries)) or [None] * len(geometries)
    chosen = choose(geometries, options)
    found = []
    for geometry, label in zip(geometries, labels, strict=True):
        rows = chosen.rows(geometry.angles)
        streams = [name for name in chosen.streams if name in set(rows["stream"])]
        found += [(geometry, label, stream, rows[rows["stream"] == stream]) for stream in streams]
    sizes = [rows.groupby("student")["n_tokens"].sum() for _, _, _, rows in found]
    fewest = min((int(total) for size in sizes for total in size if total > 0), default=0)
    usual = _FINE_BINS if fewest >= _ENOUGH_FOR_FINE else _COARSE_BINS
    bins = usual if options.bins is None else options.bins
    return [_panel(geometry, label, stream, rows, bins) for geometry, label, stream, rows in found]


def _panel(geometry: Geometry, label: str | None, stream: str, rows: pd.DataFrame, bins: int) -> Panel:
    curves, empty = [], []
    present = set(rows["student"])
    for student in (name for name in geometry.students if name in present):
        own = rows[rows["student"] == student]
        counts = rebin(geometry.pooled_histogram(student, stream, sorted(set(own["vertex"]))), bins)
        if not counts.sum():
            empty.append(student)
            continue
        curves.append(
            Curve(
                student=student,
                strategy=geometry.arms[student].strategy,
                init=geometry.student_init(student),
                counts=counts,
                acute_fraction=_pooled(own, "acute_fraction"),
                chance=_pooled(own, "null_cosine"),
            )
        )
    return Panel(
        label=label,
        stream=stream,
        official=geometry.official,
        curves=tuple(curves),
        empty=tuple(empty),
        pooled=_pooled_words(rows),
    )


def _pooled(rows: pd.DataFrame, column: str) -> float:
    """Return the mean of a column over all cosines that the histogram holds: a pair counts by its tokens."""
    values, tokens = rows[column].to_numpy(np.float64), rows["n_tokens"].to_numpy(np.float64)
    known = np.isfinite(values) & (tokens > 0)
    return float(np.average(values[known], weights=tokens[known])) if known.any() else float("nan")


def _pooled_words(rows: pd.DataFrame) -> str:
    vertices = sorted({int(vertex) for vertex in rows["vertex"]})
    pairs = sorted({(int(i), int(k)) for i, k in zip(rows["teacher_i"], rows["teacher_k"], strict=True)})
    layers = f"student layer{'s' if len(vertices) > 1 else ''} {number_ranges(vertices)}"
    if len(pairs) == 1:
        return f"{layers}, teacher layers {pairs[0][0]} and {pairs[0][1]}"
    return f"{layers}, {len(pairs):,} pairs of teacher layers"


_COLUMNS = ["task", "stream", "student", "init", "bin_left", "bin_right", "count", "density"]
_COLUMNS += ["acute_fraction", "chance_cosine"]


def figure1_data(inputs: FigureInputs, options: FigureOptions) -> pd.DataFrame:
    """Return a row per task, stream, student and bin of the cosine.

    Columns: `task, stream, student, init, bin_left, bin_right, count, density` (per unit cosine), and the curve's
    `acute_fraction` and `chance_cosine`, the same in all of its rows.
    """
    frames = []
    for panel in cosine_panels(inputs.geometries, options):
        for curve in panel.curves:
            edges = np.linspace(-1.0, 1.0, len(curve.counts) + 1)
            columns = {
                "task": panel.label or "",
                "stream": panel.stream,
                "student": curve.student,
                "init": curve.init or "",
                "bin_left": edges[:-1],
                "bin_right": edges[1:],
                "count": curve.counts,
                "density": curve.density,
                "acute_fraction": curve.acute_fraction,
                "chance_cosine": curve.chance,
            }
            frames.append(pd.DataFrame(columns, columns=_COLUMNS))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=_COLUMNS)


def figure1_facts(data: pd.DataFrame) -> str:
    """Return a sentence that says what the figure's numbers are."""
    curves = data.drop_duplicates(["task", "stream", "student"])
    parts = []
    for (task, stream, init), rows in curves.groupby(["task", "stream", "init"], sort=False):
        low, high = (100 * float(end) for end in (rows["acute_fraction"].min(), rows["acute_fraction"].max()))
        share = f"{low:.0f}%" if f"{low:.0f}" == f"{high:.0f}" else f"{low:.0f} to {high:.0f}%"
        where = f"{task}, {stream}" if task else str(stream)
        who = f"{len(rows)} student{'s' if len(rows) > 1 else ''}{f' ({init_words(str(init))})' if init else ''}"
        parts.append(f"{where}: {share} of the cosines of {who} are acute")
    return f"{'; '.join(parts)}." if parts else "No student has a finite cosine."
