"""What is measured of a teacher and an untrained student, in the hope that it foretells what training gives.

The definitions are those of data/validation/protocol.md, which was written before the sweeps on which they were tried.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from anglekit.analysis.arrays.accumulator import GeometryAccumulator
from anglekit.analysis.settings import AnalysisSettings
from anglekit.distillation.matching.plan import DistillationPlan
from anglekit.models.architectures import width
from anglekit.parameter_space.measure import KeptGradients, OpenMeasurement, StudentMeasurement
from anglekit.parameter_space.products import Floats, grace_score, gradient_cosines, summed_products
from anglekit.parameter_space.projection import Projection
from anglekit.results.geometry import Geometry
from anglekit.vocabulary import NONE, Stream

#: Of a whole sweep: what is compared with the spread between strategies and with the gain over none.
NUMBERS: Final = (
    "angle over chance",
    "tangential cosine",
    "gradient agreement of strategies",
    "gradient agreement with the task",
    "CKA",
    "block influence",
    "angular distance",
    "GRACE",
)
#: Of each strategy, or of each single teacher layer: the highest is chosen.
CHOICES: Final = (
    "angle over chance",
    "tangential cosine",
    "gradient agreement with the task",
    "CKA",
    "GRACE",
    "block influence",
    "angular distance",
)

#: By stream and student block, the teacher layer that teaches it.
Targets = Mapping[Stream, Mapping[int, int]]

_GRACE_DIMENSIONS: Final = 256


@dataclass(frozen=True)
class Predictors:
    """What was measured of one student.

    Attributes:
        numbers: by name (`NUMBERS`).
        strategies: a row for each strategy, a column for each name in `CHOICES`.
        depths: the same for each map in which a single teacher layer teaches every block.
    """

    numbers: dict[str, float]
    strategies: pd.DataFrame
    depths: pd.DataFrame


def measure_predictors(opened: OpenMeasurement, number: int = 0, depths: Sequence[str] = ()) -> Predictors:
    """Measure a student on the probe of a measurement of gradients.

    Args:
        opened: with the strategies that are compared.
        number: of the student.
        depths: the names of its maps in which one teacher layer teaches every block; they are ranked by themselves.
    """
    student = opened.student(number)
    gradients = student.gradients(opened.batches, opened.answers)
    states = _seen_states(opened, student)
    pulls = _Pulls(student, gradients)
    ranked = {
        name: _ranks(states, _targets(plan), pulls, pulls.of(name))
        for name, plan in opened.plans[number].items()
        if name != NONE
    }
    strategies = [name for name in ranked if name not in depths]
    return Predictors(
        _numbers(states, pulls, strategies),
        *(
            pd.DataFrame.from_dict({name: ranked[name] for name in own}, orient="index", columns=list(CHOICES))
            for own in (strategies, depths)
        ),
    )


def _targets(plan: DistillationPlan) -> Targets:
    """Return the teacher layer of each student block; blocks that several layers teach, or none, are left out."""
    return {each.stream: {s: t for s, t in each.pairs if s > 0} for each in plan.matchings}


def _numbers(states: _States, pulls: _Pulls, strategies: Sequence[str]) -> dict[str, float]:
    over, tangential, alike = [], [], []
    for stream, geometry in states.geometries.items():
        angles = geometry.angles
        angles = angles[(angles["vertex"] > 0) & (angles["teacher_i"] > 0)]
        by_vertex = angles.groupby("vertex")
        over.append((by_vertex["null_cosine"].mean() - by_vertex["mean_cosine"].mean()).mean())
        tangential.append(by_vertex["mean_tangential_cosine"].mean().mean())
        both = [
            states.cka(stream, student, teacher)
            for student in states.students[stream]
            for teacher in range(1, states.depth(stream) + 1)
        ]
        alike.append(np.mean(both))
    task = [pulls.cosine(pulls.task, pulls.of(name)) for name in strategies]
    between = [
        pulls.cosine(pulls.of(one), pulls.of(other))
        for place, one in enumerate(strategies)
        for other in strategies[:place]
    ]
    return {
        "angle over chance": float(np.mean(over)),
        "tangential cosine": float(np.mean(tangential)),
        "gradient agreement of strategies": float(np.mean(between)),
        "gradient agreement with the task": float(np.mean(task)),
        "CKA": float(np.mean(alike)),
        "block influence": _mean_over_streams(
            states, lambda stream: np.mean([states.influence(stream, n) for n in range(1, states.depth(stream) + 1)])
        ),
        "angular distance": _mean_over_streams(states, states.angular_distance_of_cuts),
        "GRACE": pulls.grace(pulls.task),
    }


def _ranks(states: _States, targets: Targets, pulls: _Pulls, pull: Floats) -> dict[str, float]:
    """Return what each predictor says of a map; more is better."""
    found: dict[str, list[float]] = {name: [] for name in ("angle", "tangential", "cka", "influence", "distance")}
    for stream, own in targets.items():
        before = 0
        rows: dict[str, list[float]] = {name: [] for name in found}
        for student, teacher in sorted(own.items()):
            others = [layer for layer in range(1, states.depth(stream) + 1) if layer != teacher]
            pairs = [states.angle(stream, student, teacher, other) for other in others]
            rows["angle"].append(-_mean([degrees for degrees, _ in pairs]))
            rows["tangential"].append(_mean([cosine for _, cosine in pairs]))
            rows["cka"].append(states.cka(stream, student, teacher))
            rows["influence"].append(states.influence(stream, teacher))
            rows["distance"].append(states.distance(stream, before, teacher))
            before = teacher
        for name, values in rows.items():
            found[name].append(_mean(values))
    means = {name: _mean(values) for name, values in found.items()}
    return {
        "angle over chance": means["angle"],
        "tangential cosine": means["tangential"],
        "gradient agreement with the task": pulls.cosine(pulls.task, pull),
        "CKA": means["cka"],
        "GRACE": -pulls.grace(pull),
        "block influence": means["influence"],
        "angular distance": means["distance"],
    }


def _mean(values: Sequence[float]) -> float:
    """Return the mean of the values that are defined, 0 where none is.

    A student block that is a copy of the teacher's first one has its state, from which that layer has no direction.
    """
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else 0.0


def _mean_over_streams(states: _States, of: Callable[[Stream], Any]) -> float:
    return float(np.mean([of(stream) for stream in states.geometries]))


@dataclass
class _States:
    """The geometry of teacher and student over the probe, by stream.

    Attributes:
        geometries: by stream.
        students: by stream, the student's blocks.
        last: by stream and teacher layer, the state of each example's last token, (examples, width).
    """

    geometries: dict[Stream, Geometry]
    students: dict[Stream, tuple[int, ...]]
    last: dict[Stream, dict[int, list[Tensor]]]
    _angles: dict[Stream, dict[tuple[int, int, int], tuple[float, float]]] = field(default_factory=dict)
    _layers: dict[Stream, dict[tuple[str, int, str, int], tuple[float, float]]] = field(default_factory=dict)

    def depth(self, stream: Stream) -> int:
        return max(self.last[stream])

    def angle(self, stream: Stream, student: int, one: int, other: int) -> tuple[float, float]:
        """Return the mean angle in degrees and the mean tangential cosine between two teacher layers at a vertex."""
        if stream not in self._angles:
            frame = self.geometries[stream].angles
            keys = zip(frame["vertex"], frame["teacher_i"], frame["teacher_k"], strict=True)
            values = zip(frame["mean_angle_degrees"], frame["mean_tangential_cosine"], strict=True)
            self._angles[stream] = dict(zip(keys, values, strict=True))
        return self._angles[stream][student, min(one, other), max(one, other)]

    def _between(self, stream: Stream, side_a: str, layer_a: int, side_b: str, layer_b: int) -> tuple[float, float]:
        if stream not in self._layers:
            frame = self.geometries[stream].layers
            keys = zip(frame["side_a"], frame["layer_a"], frame["side_b"], frame["layer_b"], strict=True)
            values = list(zip(frame["mean_cosine"], frame["cka"], strict=True))
            found = dict(zip(keys, values, strict=True))
            self._layers[stream] = found | {(b, j, a, i): value for (a, i, b, j), value in found.items()}
        return self._layers[stream][side_a, layer_a, side_b, layer_b]

    def cka(self, stream: Stream, student: int, teacher: int) -> float:
        """Return the debiased CKA of a student layer and a teacher layer."""
        return float(self._between(stream, "teacher", teacher, "student", student)[1])

    def influence(self, stream: Stream, layer: int) -> float:
        """Return 1 less the mean cosine between what enters and what leaves the block of a teacher layer."""
        return 1.0 - float(self._between(stream, "teacher", layer - 1, "teacher", layer)[0])

    def distance(self, stream: Stream, one: int, other: int) -> float:
        """Return the mean angle between an example's last token in two teacher layers, divided by pi."""
        a, b = (torch.cat(self.last[stream][layer]).double() for layer in (one, other))
        cosine = torch.nn.functional.cosine_similarity(a, b, dim=-1).clamp(-1.0, 1.0)
        return float((torch.arccos(cosine) / math.pi).mean())

    def angular_distance_of_cuts(self, stream: Stream) -> float:
        """Return the mean angular distance over the blocks that a student leaves out, wherever they stand."""
        depth = self.depth(stream)
        apart = max(depth // max(len(self.students[stream]), 1), 1)
        return float(np.mean([self.distance(stream, first, first + apart) for first in range(depth - apart + 1)]))


def _seen_states(opened: OpenMeasurement, student: StudentMeasurement) -> _States:
    """Return what the states of teacher and student say, in evaluation mode and without gradients."""
    students, teachers = student.every_layer
    blocks = {stream: tuple(layer for layer in layers if layer) for stream, layers in students.items()}
    accumulators = {
        stream: GeometryAccumulator(
            teachers[stream],
            students[stream],
            width(opened.teacher.model.config),
            stream=stream,
            settings=AnalysisSettings(nulls="none", similarity="default"),
        )
        for stream in blocks
    }
    last: dict[Stream, dict[int, list[Tensor]]] = {
        stream: {layer: [] for layer in layers} for stream, layers in teachers.items()
    }
    for mask_of, theirs, ours in student.states(opened.batches, opened.answers):
        for stream in blocks:
            mask = mask_of(stream)
            accumulators[stream].update(
                [theirs[stream][layer] for layer in teachers[stream]],
                [ours[stream][layer] for layer in students[stream]],
                mask=mask,
            )
            ends = _last_places(mask)
            for layer, state in theirs[stream].items():
                last[stream][layer].append(state[torch.arange(len(ends)), ends].cpu())
    return _States({stream: each.compute() for stream, each in accumulators.items()}, blocks, last)


def _last_places(mask: Tensor) -> Tensor:
    """Return the place of each row's last token that counts."""
    places = torch.arange(mask.shape[1], device=mask.device)
    return (places * (mask != 0)).amax(1)


class _Pulls:
    """The gradients of a student as weighted sums of those that were measured.

    Args:
        student: what was measured.
        gradients: of it.
    """

    def __init__(self, student: StudentMeasurement, gradients: KeptGradients) -> None:
        self._names = {name: place for place, name in enumerate(student.names)}
        self._student, self._gradients = student, gradients
        self._products = summed_products(gradients.products().values())
        self._projected: list[Floats] | None = None

    @property
    def task(self) -> Floats:
        """The weights of cross-entropy and KL."""
        return self._weights(self._student.task_weights)

    def of(self, name: str) -> Floats:
        """Return the weights of the gradient of a strategy or map."""
        return self._weights({name: 1.0})

    def _weights(self, of: Mapping[str, float]) -> Floats:
        found = np.zeros(len(self._names))
        for name, weight in of.items():
            found[self._names[name]] = weight
        return found

    def cosine(self, one: Floats, other: Floats) -> float:
        """Return the cosine of the gradients over the probe of two sums; 0 where one has none."""
        found = gradient_cosines(self._products.combined(np.stack([one, other]))).cosine[0, 1]
        return 0.0 if math.isnan(found) else float(found)

    def grace(self, of: Floats) -> float:
        """Return the logarithm of GRACE of a sum's gradients on the groups of examples, projected."""
        rows = np.stack([of @ group for group in self._groups()])
        return math.log(max(grace_score(rows), np.finfo(np.float64).tiny))

    def _groups(self) -> Iterator[Floats]:
        """Yield for each group the gradients of all losses, (losses, dimensions)."""
        if self._projected is None:
            projection = Projection(_GRACE_DIMENSIONS)
            self._projected = []
            pieces = [piece for part in self._student.parts for piece in self._gradients.pieces(part)]
            for group in range(len(pieces[0])):
                found = [
                    projection((place, piece[group][loss]) for place, piece in enumerate(pieces))
                    for loss in range(len(self._names))
                ]
                self._projected.append(torch.stack(found).double().numpy())
        yield from self._projected
