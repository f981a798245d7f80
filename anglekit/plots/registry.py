"""The figures by name: which of them can be drawn from given inputs, their drawing, and their numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from types import MappingProxyType
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from anglekit.errors import InputError, suggest
from anglekit.plots.figure1.figure1 import FIGURE1
from anglekit.plots.figures.acute_fraction import ACUTE_FRACTION
from anglekit.plots.figures.angles_heatmap import ANGLES_HEATMAP
from anglekit.plots.figures.anisotropy import ANISOTROPY, DOMINANT_DIMENSIONS
from anglekit.plots.figures.layer_heatmaps import LAYER_CKA, LAYER_COSINE, LAYER_DISTANCE
from anglekit.plots.figures.layer_norms import LAYER_NORMS
from anglekit.plots.figures.layer_trajectories import LAYER_TRAJECTORIES
from anglekit.plots.figures.matching_distance import MATCHING_DISTANCE
from anglekit.plots.figures.null_heatmap import NULL_HEATMAP
from anglekit.plots.figures.scores.angle_spread import ANGLE_SPREAD
from anglekit.plots.figures.scores.control_gain import CONTROL_GAIN
from anglekit.plots.figures.scores.learning_curves import LEARNING_CURVES
from anglekit.plots.figures.scores.score_cost import SCORE_COST
from anglekit.plots.figures.scores.scores_by_strategy import SCORES_BY_STRATEGY
from anglekit.plots.figures.similarity_chance import SIMILARITY_CHANCE
from anglekit.plots.figures.training_angles import TRAINING_ANGLES
from anglekit.plots.figures.vertex_sweep import VERTEX_SWEEP
from anglekit.plots.inputs import FigureInputs
from anglekit.plots.presentation import Presentation
from anglekit.plots.spec import OPTION_WORDS, FigureOptions, FigureSpec
from anglekit.results.geometry import Geometry
from anglekit.results.training_records import TrainingRecords

#: Every figure that `anglekit plot --figure` draws, in the order of reading.
FIGURES: Mapping[str, FigureSpec] = MappingProxyType(
    {
        "figure1": FIGURE1,
        "angles-heatmap": ANGLES_HEATMAP,
        "null-heatmap": NULL_HEATMAP,
        "acute-fraction": ACUTE_FRACTION,
        "layer-distance": LAYER_DISTANCE,
        "layer-cosine": LAYER_COSINE,
        "layer-cka": LAYER_CKA,
        "similarity-chance": SIMILARITY_CHANCE,
        "layer-norms": LAYER_NORMS,
        "anisotropy": ANISOTROPY,
        "dominant-dimensions": DOMINANT_DIMENSIONS,
        "vertex-sweep": VERTEX_SWEEP,
        "layer-trajectories": LAYER_TRAJECTORIES,
        "training-angles": TRAINING_ANGLES,
        "matching-distance": MATCHING_DISTANCE,
        "learning-curves": LEARNING_CURVES,
        "scores-by-strategy": SCORES_BY_STRATEGY,
        "score-cost": SCORE_COST,
        "control-gain": CONTROL_GAIN,
        "angle-spread": ANGLE_SPREAD,
    }
)


def why_not(
    name: str,
    geometries: Sequence[Geometry],
    scores: Sequence[pd.DataFrame] = (),
    records: Sequence[TrainingRecords] = (),
) -> str | None:
    """Return why a figure cannot be drawn from these inputs, in one line, or None where it can.

    Args:
        name: a key of `FIGURES`.
        geometries: what was analysed.
        scores: tables of scores, one per task.
        records: what the runs of each of these tables keep beside their scores.

    Raises:
        InputError: there is no such figure.
    """
    spec = FIGURES[checked_name(name)]
    try:
        _check_inputs(name, spec, FigureInputs(geometries, scores, records=records))
    except InputError as error:
        return str(error)
    return None


def draw_figure(
    name: str,
    geometries: Sequence[Geometry],
    *,
    scores: Sequence[pd.DataFrame] = (),
    records: Sequence[TrainingRecords] = (),
    width: str = "page",
    dark: bool | None = None,
    ax: Any = None,  # noqa: ANN401 - axes, or a part of a figure
    presentation: Presentation | None = None,
    **options: Any,  # noqa: ANN401  the fields of FigureOptions
) -> Figure:
    """Draw a figure by name; `ground.pages_of` gives all pages of one that a page does not hold.

    Args:
        name: a key of `FIGURES`.
        geometries: what to draw; exactly one where the figure takes one.
        scores: tables of scores, one per task, where the figure takes them.
        records: what the runs of each of these tables keep beside their scores.
        width: `page` or `column`.
        dark: draw on a dark ground.
        ax: as of `anglekit.draw`.
        presentation: style, font, titles, notes and names; None: as usual.
        **options: fields of `FigureOptions`; the figure chooses those that are None.

    Raises:
        InputError: an unknown figure, inputs or an option that it does not take, or as `FigureSpec.figure`.
    """
    spec, inputs, chosen = _checked(name, FigureInputs(geometries, scores, records=records), options)
    return spec.figure(inputs, chosen, width=width, dark=bool(dark), ax=ax, name=name, presentation=presentation)


def figure_data(
    name: str,
    geometries: Sequence[Geometry],
    *,
    scores: Sequence[pd.DataFrame] = (),
    records: Sequence[TrainingRecords] = (),
    **options: Any,  # noqa: ANN401  the fields of FigureOptions
) -> pd.DataFrame:
    """Return the numbers that a figure draws. Takes the arguments of `draw_figure`; ignores how it looks."""
    options = {key: option for key, option in options.items() if key not in ("width", "dark", "presentation")}
    spec, inputs, chosen = _checked(name, FigureInputs(geometries, scores, records=records), options)
    return spec.data(inputs, chosen)


def checked_name(name: str) -> str:
    """Return the name of a figure.

    Raises:
        InputError: there is no such figure.
    """
    if name not in FIGURES:
        raise InputError(f"no figure {name!r}", allowed=suggest(str(name), FIGURES))
    return name


def _checked(
    name: str, inputs: FigureInputs, options: Mapping[str, Any]
) -> tuple[FigureSpec, FigureInputs, FigureOptions]:
    spec, chosen = FIGURES[checked_name(name)], _options(options)
    for option in (one.name for one in fields(chosen)):
        if option not in spec.options and getattr(chosen, option) is not None:
            able = ", ".join(other for other, candidate in FIGURES.items() if option in candidate.options)
            raise InputError(f"{name} takes no {OPTION_WORDS[option]}", f"figures that do: {able}")
    _check_inputs(name, spec, inputs)
    return spec, inputs, chosen


def _options(given: Mapping[str, Any]) -> FigureOptions:
    known = [one.name for one in fields(FigureOptions)]
    if unknown := next((option for option in given if option not in known), None):
        raise InputError(f"figures have no option {unknown!r}", allowed=suggest(unknown, known))
    return FigureOptions(**given)


def _check_inputs(name: str, spec: FigureSpec, inputs: FigureInputs) -> None:
    count = len(inputs.geometries)
    if spec.uses in ("geometries", "both"):
        if count != 1 and not spec.many:
            raise InputError(f"{name} draws one directory, {count} were given", "draw them one by one")
        if not count:
            raise InputError(
                f"no geometry to draw {name} from", "give at least one directory of `anglekit analyze --out`"
            )
    if spec.uses != "geometries" and not inputs.scores:
        raise InputError(f"{name} is drawn from scores", "give directories of `anglekit sweep` or `anglekit distill`")
    if spec.uses == "records" and len(inputs.records) != len(inputs.scores):
        raise InputError(
            f"{name} is drawn from what runs keep beside their scores",
            "give directories of `anglekit sweep` or `anglekit distill`",
        )
    spec.check(inputs)
