"""What an analysis looks at: everything that its parts have in common, as data alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anglekit.geometry.cka import CrossSums
from anglekit.geometry.preflight import StreamLayers
from anglekit.geometry.settings import AnalysisSettings
from anglekit.projections import ProjectionKind
from anglekit.streams import Stream

__all__ = ["Key", "Subject", "cross_plan", "first_difference"]

Key = tuple[Stream, int]
"""A stream and a student's position."""

# What the paper's code adds to the product of lengths.
_OFFICIAL_EPSILON = 1e-6
# The most bytes that the feature-space sums of an exact CKA may take; beyond it the sample's CKA is given.
_MOST_CROSS_BYTES = 1 << 30


@dataclass(frozen=True, eq=False)
class Subject:
    """What an analysis looks at, the same for every part of it; holds no model.

    Attributes:
        names: the students' names.
        layers: the layers that take part, by stream.
        teacher_width: the width of the teacher's states.
        student_widths: those of the students.
        settings: of the analysis.
        kinds: how each student is projected; None where the widths agree.
        aims: for every projected stream and student, the teacher layer at which each vertex aims.
        projections: for every stream and student the vertices' projections, float64 (teacher width, student width), or
            None where the widths agree.
        capacity: the most examples of the samples.
        viewed: the sampled tokens that the default anisotropy looks at.
        n_batches: the batches of all parts together.
        plan_sha256: a hash of the examples of every batch and their tokens.
        described: what the Geometry says about it: `settings`, `provenance` and the `counts` that the probe alone
            decides.
    """

    names: tuple[str, ...]
    layers: Mapping[Stream, StreamLayers]
    teacher_width: int
    student_widths: tuple[int, ...]
    settings: AnalysisSettings
    kinds: tuple[ProjectionKind | None, ...]
    aims: Mapping[Key, tuple[int, ...]]
    projections: Mapping[Key, tuple[Tensor, ...] | None]
    capacity: int
    viewed: int
    n_batches: int
    plan_sha256: str
    described: Mapping[str, Any]

    @property
    def keys(self) -> list[Key]:
        """Every stream of every student, in the order of the tables."""
        return [(stream, position) for position in range(len(self.names)) for stream in self.layers]

    @property
    def epsilon(self) -> float:
        """What is added to the product of lengths."""
        return _OFFICIAL_EPSILON if self.settings.reading == "official" else 0.0

    @property
    def sampled(self) -> bool:
        """Whether anything rests on the samples."""
        return self.settings.nulls != "none" or self.settings.similarity != "none"

    @property
    def cross_streams(self) -> tuple[Stream, ...]:
        """The streams whose CKA is taken over the whole probe: all that the memory allows, or none."""
        if self.settings.similarity != "all":
            return ()
        plans = [cross_plan(self, stream) for stream in self.layers]
        return tuple(self.layers) if sum(CrossSums.bytes_needed(*plan) for plan in plans) <= _MOST_CROSS_BYTES else ()


def cross_plan(subject: Subject, stream: Stream) -> tuple[list[int], list[tuple[int, int]]]:
    """Return the widths of a stream's layers, the teacher's then each student's, and the pairs whose CKA is wanted."""
    chosen = subject.layers[stream]
    widths = [subject.teacher_width] * len(chosen.teacher)
    pairs = [(a, b) for b in range(len(widths)) for a in range(b + 1)]
    for vertices, width in zip(chosen.students, subject.student_widths, strict=True):
        first = len(widths)
        widths += [width] * len(vertices)
        side = [*range(len(chosen.teacher)), *range(first, len(widths))]
        pairs += [(a, b) for b in range(first, len(widths)) for a in side if a <= b]
    return widths, pairs


def first_difference(one: Subject, other: Subject) -> str | None:
    """Return in a few words what two subjects do not share, or None where their parts add up.

    Devices, paths and minor versions may differ; they are not looked at.
    """
    found = [subject.described["provenance"] for subject in (one, other)]
    for what, key in (("teacher", "sha256"), ("probe", "sha256")):
        a, b = (str(each[what].get(key, "")) for each in found)
        if a != b:
            return f"another {what} (hash {b[:12]}, not {a[:12]})"
    mine, theirs = ([f"{entry['name']} {entry.get('sha256', '')[:12]}" for entry in each["students"]] for each in found)
    for first, second in zip(mine, theirs, strict=False):
        if first != second:
            return f"another student ({second}, not {first})"
    if len(mine) != len(theirs):
        return f"{len(theirs)} students, not {len(mine)}"
    for field in fields(AnalysisSettings):
        a, b = (getattr(subject.settings, field.name) for subject in (one, other))
        if a != b:
            return f"other settings ({field.name.replace('_', '-')} {b}, not {a})"
    for column in ("text", "text_pair", "target"):
        a, b = (each["probe"].get(column) for each in found)
        if a != b:
            return f"another column ({column.replace('_', '-')} {b}, not {a})"
    if found[0].get("dtype") != found[1].get("dtype"):
        return f"another precision (--dtype {found[1].get('dtype')}, not {found[0].get('dtype')})"
    for package in sorted({*found[0]["packages"], *found[1]["packages"]}):
        a, b = (str(each["packages"].get(package, "none")) for each in found)
        if a.partition(".")[0] != b.partition(".")[0]:
            return f"another major version of {package} ({b}, not {a})"
    if one.plan_sha256 != other.plan_sha256:
        return "other examples or tokens of the probe (--limit, or another tokenizer)"
    return None if _same_rest(one, other) else "other layers, widths or adapters"


def _same_rest(one: Subject, other: Subject) -> bool:
    for field in fields(Subject):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if field.name not in ("described", "settings", "projections") and a != b:
            return False
    if one.projections.keys() != other.projections.keys():
        return False
    for key, matrices in one.projections.items():
        theirs = other.projections[key]
        if matrices is None or theirs is None:
            if matrices is not theirs:
                return False
        elif len(matrices) != len(theirs) or not all(map(_same_matrix, matrices, theirs)):
            return False
    counts = [subject.described["counts"] for subject in (one, other)]
    return all(_equal(counts[0].get(key), counts[1].get(key)) for key in {*counts[0], *counts[1]})


def _same_matrix(a: Tensor, b: Tensor) -> bool:
    """Return whether two matrices are equal, as far as they have been read: of those that were not, the shapes."""
    return a.shape == b.shape and ("meta" in (a.device.type, b.device.type) or torch.equal(a, b))


def _equal(a: object, b: object) -> bool:
    return a == b or (isinstance(a, float) and isinstance(b, float) and bool(np.isclose(a, b)))
