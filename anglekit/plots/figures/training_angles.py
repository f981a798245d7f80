"""The angle over training: several Geometries, one per training step."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from anglekit.errors import InputError, suggest
from anglekit.plots.panels.arm_lines import token_mean
from anglekit.plots.panels.chosen import check_labels, choose_streams, choose_students, choose_vertices
from anglekit.plots.panels.depth_lines import layer_colours, layer_line_panels
from anglekit.plots.panels.line_panels import Entry, draw_line_panels, layer_bar
from anglekit.plots.panels.sentences import LAYER_NOTE, refuse, students_words
from anglekit.plots.panels.students import with_arms
from anglekit.plots.style import Theme, context, figure_width, round_ticks, theme
from anglekit.results.geometry import Geometry

__all__ = [
    "TRAINING_VALUES",
    "lacks_training",
    "training_angles",
    "training_angles_data",
    "training_angles_facts",
    "training_step",
]

#: What can be drawn: the axis label, the middle or None, and the column of chance or None.
TRAINING_VALUES: Mapping[str, tuple[str, float | None, str | None]] = MappingProxyType(
    {
        "mean_angle_degrees": ("mean angle (degrees)", 90.0, None),
        "mean_cosine": ("mean cosine (no unit)", 0.0, "null_cosine"),
        "acute_fraction": ("acute angles (share)", 0.5, None),
        "mean_tangential_cosine": ("tangential cosine (no unit)", 0.0, None),
    }
)
_STEP = "training_step"


def training_step(geometry: Geometry, label: str | None = None) -> int | None:
    """Return the training step of a Geometry, or None where nothing tells it.

    Read from `training_step` of its provenance or settings, else from the whole number that its directory's name ends
    in, as in `geometry-step-200`.
    """
    for part in (geometry.provenance, geometry.settings):
        if isinstance(part.get(_STEP), int):
            return int(part[_STEP])
    found = re.search(r"(\d+)$", label or "")
    return int(found.group(1)) if found else None


def lacks_training(geometries: Sequence[Geometry]) -> str | None:
    """Return why the angle over training cannot be drawn, or None where it can.

    Steps that only a directory's name tells are not known here: such Geometries are taken to have one.
    """
    if len(geometries) < 2:
        return "the angle over training needs Geometries of at least two steps; give a directory of each"
    steps = [training_step(geometry) for geometry in geometries]
    known = [step for step in steps if step is not None]
    if len(known) == len(steps) and len(set(known)) < 2:
        return f"all Geometries are of training step {known[0]}; give directories of several steps"
    hashes = {(geometry.provenance.get("probe") or {}).get("sha256") for geometry in geometries}
    if len(hashes) > 1:
        return "the Geometries are of different probes, so that steps cannot be compared; analyse all on one probe"
    return None


def training_angles_data(
    geometries: Sequence[Geometry],
    *,
    labels: Sequence[str] | None = None,
    students: str | Sequence[str] | None = None,
    stream: str | None = None,
    vertices: Sequence[int] | None = None,
    value: str = "mean_angle_degrees",
) -> pd.DataFrame:
    """Return what `training_angles` draws: a row per step, student, stream and vertex, the mean over tokens and pairs.

    Raises:
        InputError: a step is unknown or comes twice, or an argument names what the geometries do not have.
    """
    if value not in TRAINING_VALUES:
        raise InputError(f"no value {value!r}", allowed=suggest(value, TRAINING_VALUES))
    names = check_labels(geometries, labels)
    refuse(lacks_training(geometries))
    alone = all(len(geometry.students) == 1 for geometry in geometries)
    chosen = choose_students(geometries, students)
    streams, layers = choose_streams(geometries, stream), choose_vertices(geometries, vertices)
    frames = []
    for geometry, label in zip(geometries, names, strict=True):
        step = training_step(geometry, label)
        if step is None:
            raise InputError(
                f"nothing tells the training step of {label or 'a Geometry'}",
                "name its directory like geometry-step-200",
            )
        table = geometry.angles
        table = table[table["student"].isin(chosen) & table["stream"].isin(streams) & table["vertex"].isin(layers)]
        rows = [
            (step, *place, token_mean(pairs, value), token_mean(pairs, "null_cosine"))
            for place, pairs in table.groupby(["student", "stream", "vertex"], sort=False)
        ]
        frame = pd.DataFrame(rows, columns=["step", "student", "stream", "vertex", value, "chance_cosine"])
        frames.append(with_arms(frame, geometry))
    data = pd.concat(frames, ignore_index=True)
    # One run's checkpoints are one student, whatever their directories are called; of two runs steps come twice.
    if alone and not data.duplicated(["step", "stream", "vertex"]).any():
        data["student"] = str(data["student"].iloc[-1])
    twice = data[data.duplicated(["step", "student", "stream", "vertex"])]
    if len(twice):
        first = twice.iloc[0]
        raise InputError(f"step {first['step']} of {first['student']} came twice", "give one directory of each step")
    return data.sort_values(["student", "stream", "vertex", "step"], kind="stable", ignore_index=True)


def training_angles(
    geometries: Sequence[Geometry],
    *,
    labels: Sequence[str] | None = None,
    students: str | Sequence[str] | None = None,
    stream: str | None = None,
    vertices: Sequence[int] | None = None,
    value: str = "mean_angle_degrees",
    width: str = "page",
    dark: bool = False,
) -> Figure:
    """Draw the angle against the training step, a panel per student, a line per student layer.

    Where every Geometry holds one student and no step comes twice, these are taken for checkpoints of one run.

    Args:
        geometries: one per step; see `training_step` for how the step is read.
        labels: the names of their directories.
        students: the students to draw; all by default.
        stream: `encoder` or `decoder`; both by default.
        vertices: the student layers to draw; all by default.
        value: a name of `TRAINING_VALUES`.
        width: `page` or `column`.
        dark: draw on a dark ground.

    Raises:
        InputError: a step is unknown or comes twice, or an argument names what the geometries do not have.
    """
    data = training_angles_data(
        geometries, labels=labels, students=students, stream=stream, vertices=vertices, value=value
    )
    total_width = figure_width(width)
    look = theme(dark)
    label, middle, chance = TRAINING_VALUES[value]

    def behind(ax: Axes) -> None:
        if middle is not None and _near(data[value], middle):
            ax.axhline(middle, color=look.faint, linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
        ax.xaxis.set_major_locator(round_ticks(4, integer=True))

    dashed = "chance_cosine" if chance is not None else None
    with context(look):
        return draw_line_panels(
            layer_line_panels(data, look, "step", value, before=behind, dashed=dashed),
            look,
            total_width,
            xlabel="training step",
            ylabel=label,
            legend=_legend(middle if middle is not None and _near(data[value], middle) else None, dashed, look),
            notes=[f"Mean over tokens and pairs of teacher layers, on one probe. {LAYER_NOTE}"],
            bar=layer_bar(list(data["vertex"]), layer_colours(look), "student layer"),
            height=1.4,
        )


def _legend(middle: float | None, dashed: str | None, look: Theme) -> list[Entry]:
    """Return the entries of the guides that are drawn."""
    guides = []
    if middle is not None:
        words = "half" if middle == 0.5 else "right angle"
        guides.append(Entry.line(words, look.faint, linestyle=(0, (2, 2)), linewidth=0.8))
    if dashed is not None:
        guides.append(Entry.line("chance (closed form)", look.ink, linestyle=(0, (3, 2)), linewidth=0.8))
    return guides


def _near(values: pd.Series, middle: float) -> bool:
    """Say whether a line at `middle` lies among the values, or near enough not to squeeze them."""
    low, high = float(values.min()), float(values.max())
    reach = max(high - low, 1e-12)
    return low - reach <= middle <= high + reach


def training_angles_facts(data: pd.DataFrame) -> str:
    """Return in a sentence what the figure's numbers are."""
    value = next(column for column in data.columns if column in TRAINING_VALUES)
    form = "{:.0f}" if value.endswith("degrees") else "{:.2f}"
    means = data.groupby("step")[value].mean()
    first, last = form.format(means.iloc[0]), form.format(means.iloc[-1])
    return (
        f"{students_words(data)}: {TRAINING_VALUES[value][0]} {first} at step {means.index[0]}, {last} at step "
        f"{means.index[-1]}, mean over layers."
    )
