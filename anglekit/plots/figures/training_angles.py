"""The angle over training: several Geometries, one per training step."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from anglekit.errors import InputError
from anglekit.plots.inputs import FigureInputs
from anglekit.plots.panels.chosen import check_labels, choose, choose_value
from anglekit.plots.panels.depth_lines import draw_depth_lines
from anglekit.plots.panels.line_panels import Entry
from anglekit.plots.panels.sentences import LAYER_NOTE, students_words
from anglekit.plots.panels.tables import pair_means, with_arms
from anglekit.plots.spec import VERTICES, FigureOptions, FigureSpec
from anglekit.plots.style import CHANCE_DASHES, GUIDE_DASHES, Theme, round_ticks
from anglekit.results.geometry import Geometry

#: What can be drawn: the axis label, the middle, and the column with the chance level, or None.
_VALUES: Mapping[str, tuple[str, float, str | None]] = MappingProxyType(
    {
        "mean_angle_degrees": ("mean angle (degrees)", 90.0, "chance_angle_degrees"),
        "mean_cosine": ("mean cosine", 0.0, "chance_cosine"),
        "acute_fraction": ("acute angles (share)", 0.5, None),
        "mean_tangential_cosine": ("tangential cosine", 0.0, None),
    }
)


def training_step(geometry: Geometry, label: str | None = None) -> int | None:
    """Return the training step of a Geometry, or None where it is not recorded.

    It is read from `training_step` in its provenance or settings, else from the whole number at the end of its
    directory's name, as in `geometry-step-200`.
    """
    document = geometry.document
    for step in (document.provenance.training_step, document.settings.training_step):
        if step is not None:
            return step
    found = re.search(r"(\d+)$", label or "")
    return int(found.group(1)) if found else None


def check_steps(inputs: FigureInputs) -> None:
    """Check that there are several steps on one probe.

    Steps that stand only in a directory's name are not known here: such Geometries are assumed to have one.
    """
    if len(inputs.geometries) < 2:
        raise InputError(
            "what changes over training needs Geometries of at least two steps",
            "give the directory of a run of `anglekit distill --angles-every STEPS --probe TABLE`, or one of each step",
        )
    steps = {training_step(geometry) for geometry in inputs.geometries}
    if None not in steps and len(steps) < 2:
        raise InputError(f"all Geometries are of training step {steps.pop()}", "give directories of several steps")
    if len({geometry.document.provenance.probe.sha256 for geometry in inputs.geometries}) > 1:
        raise InputError(
            "the Geometries are of different probes, so that steps cannot be compared", "analyse all on one probe"
        )


def steps_of(geometries: Sequence[Geometry], options: FigureOptions) -> list[tuple[int, Geometry]]:
    """Return the Geometries with their training steps; `options.labels` are the names of their directories.

    Raises:
        InputError: nothing tells the step of one, or the labels are not one each.
    """
    labels: Sequence[str | None] = check_labels(options.labels, len(geometries)) or [None] * len(geometries)
    found = []
    for geometry, label in zip(geometries, labels, strict=True):
        step = training_step(geometry, label)
        if step is None:
            raise InputError(
                f"nothing tells the training step of {label or 'a Geometry'}",
                "name its directory like geometry-step-200",
            )
        found.append((step, geometry))
    return found


def _data(inputs: FigureInputs, options: FigureOptions) -> pd.DataFrame:
    """Return a row per step, student, stream and vertex: the value, `chance_cosine` and `chance_angle_degrees`.

    All are means over tokens and pairs; the chance angle is that of the mean chance cosine.
    Where every Geometry holds one student and no step comes twice, the Geometries count as checkpoints of one run.
    """
    value = choose_value(options.value, _VALUES)
    chosen = choose(inputs.geometries, options)
    frames = []
    for step, geometry in steps_of(inputs.geometries, options):
        key = ["student", "stream", "vertex"]
        means = pair_means(chosen.rows(geometry.angles), key, value, chance_cosine="null_cosine")
        means["chance_angle_degrees"] = np.degrees(np.arccos(np.clip(means["chance_cosine"], -1.0, 1.0)))
        means.insert(0, "step", step)
        frames.append(with_arms(means, geometry))
    data = pd.concat(frames, ignore_index=True)
    # One run's checkpoints are one student, whatever their directories are called; with two runs, steps come twice.
    alone = all(len(geometry.students) == 1 for geometry in inputs.geometries)
    if alone and not data.duplicated(["step", "stream", "vertex"]).any():
        data["student"] = str(data["student"].iloc[-1])
    twice = data[data.duplicated(["step", "student", "stream", "vertex"])]
    if len(twice):
        first = twice.iloc[0]
        raise InputError(f"step {first['step']} of {first['student']} came twice", "give one directory of each step")
    return data.sort_values(["student", "stream", "vertex", "step"], kind="stable", ignore_index=True)


def _draw(inputs: FigureInputs, options: FigureOptions, look: Theme, width: float) -> Figure:
    data, value = _data(inputs, options), choose_value(options.value, _VALUES)
    label, middle, chance = _VALUES[value]
    guided = _near(data[value], middle)
    legend = []
    if guided:
        words = "half" if middle == 0.5 else "right angle"
        legend.append(Entry.line(words, look.faint, linestyle=GUIDE_DASHES, linewidth=0.8))
    if chance is not None:
        legend.append(Entry.line("chance (closed form)", look.ink, linestyle=CHANCE_DASHES, linewidth=0.8))

    def behind(ax: Axes) -> None:
        if guided:
            ax.axhline(middle, color=look.faint, linewidth=0.8, linestyle=GUIDE_DASHES, zorder=1)
        ax.xaxis.set_major_locator(round_ticks(4, integer=True))

    return draw_depth_lines(
        data,
        look,
        width,
        value=value,
        x="step",
        xlabel="training step",
        ylabel=label,
        legend=legend,
        note=f"Mean over tokens and pairs of teacher layers, on one probe. {LAYER_NOTE}",
        behind=behind,
        height=1.4,
        dashed=chance,
    )


def _near(values: pd.Series, middle: float) -> bool:
    """Say whether a line at `middle` lies among the values, or near enough not to squeeze them."""
    low, high = float(values.min()), float(values.max())
    reach = max(high - low, 1e-12)
    return low - reach <= middle <= high + reach


def _facts(data: pd.DataFrame) -> str:
    value = next(column for column in data.columns if column in _VALUES)
    means = data.groupby("step")[value].mean()
    first, last = (f"{means.iloc[end]:{'.0f' if value.endswith('degrees') else '.2f'}}" for end in (0, -1))
    return (
        f"{students_words(data)}: {_VALUES[value][0]} {first} at step {means.index[0]}, {last} at step "
        f"{means.index[-1]}, mean over layers."
    )


TRAINING_ANGLES = FigureSpec(
    title="The angle over training",
    summary="the angle against the training step, a line per student layer",
    reading="Falling lines say that training drives the student away from amid the teacher's layers.",
    options=VERTICES | {"labels", "value"},
    data=_data,
    facts=_facts,
    draw=_draw,
    many=True,
    over_training=True,
    check=check_steps,
)
