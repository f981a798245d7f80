"""The figures by name: which can be drawn from what there is, drawn, and as numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from anglekit.errors import InputError, suggest
from anglekit.plots.figure1.curves import figure1_data, figure1_facts
from anglekit.plots.figure1.figure1 import figure1
from anglekit.plots.figures.acute_fraction import acute_fraction, acute_fraction_data, acute_fraction_facts
from anglekit.plots.figures.angle_spread import angle_spread, angle_spread_data, angle_spread_facts, lacks_spread
from anglekit.plots.figures.angles_heatmap import angles_heatmap, angles_heatmap_data, angles_heatmap_facts
from anglekit.plots.figures.anisotropy import (
    anisotropy_data,
    anisotropy_facts,
    anisotropy_figure,
    dominant_dimensions,
    dominant_dimensions_data,
    dominant_dimensions_facts,
    lacks_anisotropy,
    lacks_dimensions,
)
from anglekit.plots.figures.layer_heatmaps import lacks_layers, layer_heatmap, layer_heatmap_data, layer_heatmap_facts
from anglekit.plots.figures.layer_norms import lacks_norms, layer_norms, layer_norms_data, layer_norms_facts
from anglekit.plots.figures.layer_trajectories import (
    lacks_trajectories,
    layer_trajectories,
    layer_trajectories_data,
    layer_trajectories_facts,
)
from anglekit.plots.figures.null_heatmap import null_heatmap, null_heatmap_data, null_heatmap_facts
from anglekit.plots.figures.scores_by_strategy import (
    lacks_strategies,
    scores_by_strategy,
    scores_by_strategy_data,
    scores_by_strategy_facts,
)
from anglekit.plots.figures.training_angles import (
    lacks_training,
    training_angles,
    training_angles_data,
    training_angles_facts,
)
from anglekit.plots.figures.vertex_sweep import lacks_sweep, vertex_sweep, vertex_sweep_data, vertex_sweep_facts
from anglekit.plots.spec import FigureSpec
from anglekit.results.geometry import Geometry

__all__ = ["FAMILIES", "FIGURES", "draw_figure", "drawable", "figure_data", "why_not"]


_STUDENTS = frozenset({"students", "stream"})
_VERTICES = _STUDENTS | {"vertices"}


def _layers(measure: str, title: str, summary: str, reading: str) -> FigureSpec:
    return FigureSpec(
        title=title,
        summary=summary,
        reading=reading,
        draw=partial(layer_heatmap, measure=measure),
        data=partial(layer_heatmap_data, measure=measure),
        facts=layer_heatmap_facts,
        options=_STUDENTS | {"value"},
        lacks=partial(lacks_layers, measure=measure),
    )


#: Every figure family by name, in the order of reading.
FAMILIES: Mapping[str, FigureSpec] = MappingProxyType(
    {
        "figure1": FigureSpec(
            title="The angle between two teacher layers, seen from the student",
            summary="the paper's Figure 1: the angle to scale, and its cosine's distribution per task and stream",
            reading=(
                "Right of 0 the angle is acute: a pull toward one teacher layer is also a pull toward the other. "
                "Dashed lines mark the cosine that unrelated vectors of the same lengths would show; a curve around "
                "its line says nothing."
            ),
            draw=figure1,
            data=figure1_data,
            facts=figure1_facts,
            options=_VERTICES | {"labels"},
            many=True,
        ),
        "angles-heatmap": FigureSpec(
            title="Angles between all pairs of teacher layers",
            summary="teacher layer by teacher layer, a panel per student layer",
            reading=(
                "A cell is the cosine of the angle between the directions from the student's layer to two teacher "
                "layers, mean over tokens. Red is acute (above 0), blue obtuse, white a right angle. Neighbouring "
                "layers are near each other, so cells by the diagonal are acute for that reason alone."
            ),
            draw=angles_heatmap,
            data=angles_heatmap_data,
            facts=angles_heatmap_facts,
            options=_VERTICES | {"value"},
        ),
        "null-heatmap": FigureSpec(
            title="Angles beyond chance",
            summary="observed minus null cosine, teacher layer by teacher layer, a panel per student layer",
            reading=(
                "The twin of the angle heat map. Red pairs are more acute than the null, blue ones less. Blue "
                "against another example's student state means that the student stands close to the teacher's layers, "
                "which widens the angle."
            ),
            draw=null_heatmap,
            data=null_heatmap_data,
            facts=null_heatmap_facts,
            options=_VERTICES | {"null"},
        ),
        "acute-fraction": FigureSpec(
            title="Share of acute angles by student layer",
            summary="the share of acute angles at each student layer, a line per student",
            reading=(
                "100% means that at this layer a pull toward any teacher layer is a pull toward every other. Chance "
                "alone gives far more than half where the student's states are as long as the teacher's."
            ),
            draw=acute_fraction,
            data=acute_fraction_data,
            facts=acute_fraction_facts,
            options=_VERTICES,
        ),
        "layer-distance": _layers(
            "distance",
            "Distances between layers",
            "distances of teacher layers with each other and with each student's layers",
            "Dark is near. The angle between two teacher layers is acute where they are nearer to each other than to "
            "the student.",
        ),
        "layer-cosine": _layers(
            "cosine",
            "Cosines between layers",
            "cosines of teacher layers with each other and with each student's layers",
            "Red layers point the same way, seen from the origin; white ones are at right angles.",
        ),
        "layer-cka": _layers(
            "cka",
            "Similarity between layers (CKA)",
            "CKA of teacher layers with each other and with each student's layers",
            "Yellow layers arrange the examples alike, whatever their rotation and scale; blue ones do not.",
        ),
        "layer-norms": FigureSpec(
            title="Length of the states by layer",
            summary="the mean norm of teacher and student states, layer by layer",
            reading=(
                "The chance level of the angle follows from these lengths: the longer a student's states beside the "
                "teacher's, the more acute every angle, with nothing shared."
            ),
            draw=layer_norms,
            data=layer_norms_data,
            facts=layer_norms_facts,
            options=_STUDENTS,
            lacks=lacks_norms,
        ),
        "anisotropy": FigureSpec(
            title="How alike unrelated tokens are",
            summary="the cosine between tokens of different examples by layer, teacher and students",
            reading="Near 0 directions are spread evenly; near 1 all tokens point one way, and any cosine is high.",
            draw=anisotropy_figure,
            data=anisotropy_data,
            facts=anisotropy_facts,
            options=_STUDENTS | {"value"},
            lacks=lacks_anisotropy,
        ),
        "dominant-dimensions": FigureSpec(
            title="Dominant dimensions",
            summary="what a few dimensions add to the cosine between unrelated tokens, by layer",
            reading="A dark row is one dimension that makes unrelated tokens look alike through many layers.",
            draw=dominant_dimensions,
            data=dominant_dimensions_data,
            facts=dominant_dimensions_facts,
            options=_STUDENTS,
            lacks=lacks_dimensions,
        ),
        "vertex-sweep": FigureSpec(
            title="The angle as its vertex moves",
            summary="the angle from the teachers' centroid to the student's state and beyond, a line per student layer",
            reading=(
                "From amid the teacher's layers their directions part at obtuse angles; from far away any angle "
                "closes. Where the lines fall with t, acute says that the student is far off."
            ),
            draw=vertex_sweep,
            data=vertex_sweep_data,
            facts=vertex_sweep_facts,
            options=_VERTICES | {"value"},
            lacks=lacks_sweep,
        ),
        "layer-trajectories": FigureSpec(
            title="Teacher and students from layer to layer",
            summary="the layers of the teacher and its students in the plane in which the teacher's layers differ most",
            reading=(
                "A student taught well by a layer passes near its number. The plane is the teacher's: a student far "
                "off it, as the panels beside show, only looks near."
            ),
            draw=layer_trajectories,
            data=layer_trajectories_data,
            facts=layer_trajectories_facts,
            options=_STUDENTS,
            lacks=lacks_trajectories,
        ),
        "training-angles": FigureSpec(
            title="The angle over training",
            summary="the angle against the training step, a line per student layer",
            reading="Falling lines say that training drives the student away from amid the teacher's layers.",
            draw=training_angles,
            data=training_angles_data,
            facts=training_angles_facts,
            options=_VERTICES | {"labels", "value"},
            many=True,
            lacks=lacks_training,
        ),
        "scores-by-strategy": FigureSpec(
            title="Scores by matching strategy",
            summary="a point per seed, the line of no matching, and the band within which strategies are alike",
            reading=(
                "If layer selection did not matter, all matching strategies would lie in the shaded band, whatever "
                "their distance from the line of no matching."
            ),
            draw=scores_by_strategy,
            data=scores_by_strategy_data,
            facts=scores_by_strategy_facts,
            options=frozenset({"labels", "value", "margin"}),
            many=True,
            uses="scores",
            lacks=lacks_strategies,
        ),
        "angle-spread": FigureSpec(
            title="Mean angle against the spread between strategies",
            summary="a point per task and initialisation: its mean angle, and how far strategies' scores spread",
            reading=(
                "If acute angles explain why selection hardly matters, points further left lie lower. A few points "
                "show no law."
            ),
            draw=angle_spread,
            data=angle_spread_data,
            facts=angle_spread_facts,
            options=frozenset({"labels", "value"}),
            many=True,
            uses="both",
            lacks=lacks_spread,
        ),
    }
)


#: Every figure that `anglekit plot --figure` draws, in the order of reading.
FIGURES: Mapping[str, FigureSpec] = MappingProxyType(dict(FAMILIES))

_OPTION_WORDS = {
    "labels": "task labels (--task)",
    "value": "value (--value)",
    "null": "null (--null)",
    "margin": "margin (--margin)",
    "students": "students (--student)",
    "stream": "stream (--stream)",
    "vertices": "vertices (--vertex)",
}


def why_not(name: str, geometries: Sequence[Geometry], scores: Sequence[pd.DataFrame] = ()) -> str | None:
    """Return why a figure cannot be drawn from these inputs, in one line, or None where it can.

    Args:
        name: a key of `FIGURES`.
        geometries: what was analysed.
        scores: tables of scores, one per task.

    Raises:
        InputError: there is no such figure.
    """
    family = _family(name)
    if family.uses != "scores":
        if len(geometries) != 1 and not family.many:
            return f"{name} draws one directory, {len(geometries)} were given; draw them one by one"
        if not geometries:
            return f"no geometry to draw {name} from; give at least one directory of `anglekit analyze --out`"
    if family.uses != "geometries" and not scores:
        return f"{name} is drawn from scores; give directories of `anglekit sweep` or `anglekit distill`"
    return family.lacks(*family.inputs(geometries, scores))


def drawable(geometries: Sequence[Geometry], scores: Sequence[pd.DataFrame] = ()) -> list[str]:
    """Return the names of the figures that can be drawn from these inputs, in the order of reading."""
    return [name for name in FIGURES if why_not(name, geometries, scores) is None]


def draw_figure(
    name: str,
    geometries: Sequence[Geometry],
    *,
    scores: Sequence[pd.DataFrame] = (),
    **options: Any,  # noqa: ANN401  passed through
) -> Figure:
    """Draw a figure by name.

    Args:
        name: a key of `FIGURES`.
        geometries: what to draw; exactly one where the figure takes one.
        scores: tables of scores, one per task, where the figure takes them.
        **options: of the figure's function; those that are None are left to their default.

    Raises:
        InputError: an unknown figure, inputs or an option that it does not take, or what the figure's function raises.
    """
    family, given = _checked(name, geometries, scores, options)
    return family.draw(*family.inputs(geometries, scores), **given)


def figure_data(
    name: str,
    geometries: Sequence[Geometry],
    *,
    scores: Sequence[pd.DataFrame] = (),
    **options: Any,  # noqa: ANN401  passed through
) -> pd.DataFrame:
    """Return the numbers that a figure draws: the same arguments as `draw_figure`; `width` and `dark` are ignored."""
    family, given = _checked(name, geometries, scores, options)
    look = {"width", "dark"}
    return family.data(
        *family.inputs(geometries, scores), **{key: one for key, one in given.items() if key not in look}
    )


def _family(name: str) -> FigureSpec:
    if name not in FIGURES:
        raise InputError(f"no figure {name!r}", allowed=suggest(name, FIGURES))
    return FIGURES[name]


def _checked(
    name: str, geometries: Sequence[Geometry], scores: Sequence[pd.DataFrame], options: Mapping[str, Any]
) -> tuple[FigureSpec, dict[str, Any]]:
    family = _family(name)
    given = {key: option for key, option in options.items() if option is not None}
    for key, words in _OPTION_WORDS.items():
        if key in given and key not in family.options:
            able = ", ".join(other for other, candidate in FIGURES.items() if key in candidate.options)
            raise InputError(f"{name} takes no {words}", f"figures that do: {able}")
    reason = why_not(name, geometries, scores)
    if reason is not None:
        raise InputError(reason)
    return family, given
