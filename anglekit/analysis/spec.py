"""What an analysis looks at: everything that its parts have in common, as data alone, which json can hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Annotated, Any

from msgspec import Meta, Struct, field
from msgspec.structs import replace

from anglekit.analysis.settings import AnalysisSettings
from anglekit.geometry.cka import CrossSums
from anglekit.results.document import Provenance
from anglekit.vocabulary import ProjectionKind, Stream

Key = tuple[Stream, int]
"""A stream and a student's position."""

# More than any model has: a file that says more is damaged.
Layer = Annotated[int, Meta(ge=0, le=10_000)]
Width = Annotated[int, Meta(ge=1, le=1_000_000)]
Examples = Annotated[int, Meta(ge=0, le=100_000)]
Count = Annotated[int, Meta(ge=0, le=2**62)]

# What the paper's code adds to the product of lengths.
_OFFICIAL_EPSILON = 1e-6
# The most bytes that the feature-space sums of an exact CKA may take; beyond it the sample's CKA is given.
_MOST_CROSS_BYTES = 1 << 30


class StreamLayers(Struct, frozen=True):
    """The layers of one stream that take part: the teacher's and each student's, by student position."""

    teacher: tuple[Layer, ...]
    students: tuple[tuple[Layer, ...], ...]


class Aims(Struct, frozen=True, array_like=True):
    """The teacher layers at which the projections of one student and stream aim, a layer for each vertex."""

    stream: Stream
    student: int
    teacher_layers: tuple[Layer, ...]


class ProbeCounts(Struct, frozen=True):
    """The counts of a Geometry that the probe alone decides, whatever part of it is measured."""

    examples_used_for_projection: Count
    skipped_rows: Count
    skipped_examples: Count
    truncated_examples: Count
    truncated_tokens: Count
    max_length: Count | None
    padding_share: float
    distinct_texts: Count | None = None
    unlike_examples: Count = 0


class AnalysisRecord(Struct, frozen=True):
    """What the Geometry says about its analysis, in the form of geometry.json."""

    settings: Mapping[str, Any]
    provenance: Provenance
    counts: ProbeCounts


class AnalysisSpec(Struct, frozen=True, kw_only=True):
    """What an analysis looks at, the same for every part of it; holds no model and no tensor.

    Attributes:
        names: the students' names.
        layers: the layers that take part, by stream.
        teacher_width: the width of the teacher's states.
        student_widths: those of the students.
        settings: of the analysis.
        kinds: how each student is projected; None where the widths agree.
        aims: where the projections aim, for every projected stream and student in the order of `keys`.
        capacity: the most examples of the samples.
        viewed: the sampled tokens that the default anisotropy looks at.
        n_batches: the batches of all parts together.
        plan_sha256: a hash of the examples of every batch and their tokens.
        repeats: the examples of which an earlier one reads the same, each with the first such one; row numbers.
        split_clusters: of the examples that read the same, the first of each group that comes in two batches.
        record: what the Geometry says about it.

    Raises:
        ValueError: the parts do not fit each other; the message names one of them.
    """

    names: tuple[str, ...]
    layers: Mapping[Stream, StreamLayers]
    teacher_width: Width
    student_widths: tuple[Width, ...]
    settings: AnalysisSettings
    kinds: tuple[ProjectionKind | None, ...]
    aims: tuple[Aims, ...]
    capacity: Examples
    viewed: Examples
    n_batches: Count
    plan_sha256: str
    repeats: tuple[tuple[Count, Count], ...] = ()
    split_clusters: tuple[Count, ...] = ()
    record: AnalysisRecord = field(name="described")

    def __post_init__(self) -> None:
        wrong = self._misfit()
        if wrong is not None:
            raise ValueError(f"{wrong!r} is not as expected")

    def _misfit(self) -> str | None:
        """Return which part does not fit the others, or None."""
        n, record = len(self.names), self.record
        # The official histogram's file is called after its student.
        if not 0 < n == len(set(self.names)) or any(set(name) & set("/\\\0") for name in self.names):
            return "names"
        for chosen in self.layers.values():
            if len(chosen.teacher) < 2 or len(chosen.students) != n or not all(chosen.students):
                return "layers"
        if not self.layers or not len(self.student_widths) == len(self.kinds) == n:
            return "layers, student_widths or kinds"
        projected = [key for key in self.keys if self.is_projected(key)]
        if [(each.stream, each.student) for each in self.aims] != projected or any(
            len(each.teacher_layers) != len(self.vertices((each.stream, each.student)))
            or not set(each.teacher_layers) <= set(self.layers[each.stream].teacher)
            for each in self.aims
        ):
            return "aims"
        if {**record.settings, **settings_record(self.settings, self.names, self.layers)} != record.settings:
            return "described.settings"
        if [each.name for each in record.provenance.students] != list(self.names):
            return "described.provenance.students"
        return None

    @property
    def keys(self) -> list[Key]:
        """Every stream of every student, in the order of the tables."""
        return [(stream, position) for position in range(len(self.names)) for stream in self.layers]

    def vertices(self, key: Key) -> tuple[int, ...]:
        """Return the layers of a student that take part in a stream."""
        return self.layers[key[0]].students[key[1]]

    def is_projected(self, key: Key) -> bool:
        """Return whether a student's states are projected to the teacher's width."""
        return self.kinds[key[1]] is not None

    @property
    def epsilon(self) -> float:
        """What is added to the product of lengths."""
        return _OFFICIAL_EPSILON if self.settings.reading == "official" else 0.0

    @property
    def sampled(self) -> bool:
        """Whether anything rests on the samples."""
        return self.settings.nulls != "none" or self.settings.similarity != "none"

    @property
    def n_split_clusters(self) -> int | None:
        """How many groups of examples that read the same come in two batches; None where all examples are distinct."""
        return len(self.split_clusters) if self.repeats else None

    @property
    def cross_streams(self) -> tuple[Stream, ...]:
        """The streams whose CKA is taken over the whole probe: all that the memory allows, or none."""
        if self.settings.similarity != "all":
            return ()
        needed = sum(CrossSums.bytes_needed(*self.cross_layers(stream)) for stream in self.layers)
        return tuple(self.layers) if needed <= _MOST_CROSS_BYTES else ()

    def cross_layers(self, stream: Stream) -> tuple[list[int], list[tuple[int, int]]]:
        """Return the widths of a stream's layers, the teacher's before each student's, and the pairs for the CKA."""
        chosen = self.layers[stream]
        widths = [self.teacher_width] * len(chosen.teacher)
        pairs = [(a, b) for b in range(len(widths)) for a in range(b + 1)]
        for vertices, width in zip(chosen.students, self.student_widths, strict=True):
            first = len(widths)
            widths += [width] * len(vertices)
            side = [*range(len(chosen.teacher)), *range(first, len(widths))]
            pairs += [(a, b) for b in range(first, len(widths)) for a in side if a <= b]
        return widths, pairs


def settings_record(
    settings: AnalysisSettings, names: Sequence[str], layers: Mapping[Stream, StreamLayers]
) -> dict[str, Any]:
    """Return what a Geometry records of the settings: as they were given, the layers as they were found."""
    kept = asdict(settings)
    for name, usual in (("keep_extremes", False), ("source_lang", None), ("target_lang", None)):
        if kept[name] == usual:  # as earlier versions, which did not have it
            del kept[name]
    return {
        **kept,
        "teacher_layers": {stream: list(chosen.teacher) for stream, chosen in layers.items()},
        "vertices": {
            name: {stream: list(chosen.students[position]) for stream, chosen in layers.items()}
            for position, name in enumerate(names)
        },
    }


def first_difference(one: AnalysisSpec, other: AnalysisSpec) -> str | None:
    """Return in a few words what two analyses do not share, or None where their parts add up.

    Devices, paths and minor versions of packages may differ. Projections are not part of it: see `same_projections`.
    """
    mine, theirs = one.record.provenance, other.record.provenance
    for what in ("teacher", "probe"):
        a, b = (getattr(origin, what).sha256 or "" for origin in (mine, theirs))
        if a != b:
            return f"another {what} (hash {b[:12]}, not {a[:12]})"
    students = [[f"{each.name} {(each.sha256 or '')[:12]}" for each in origin.students] for origin in (mine, theirs)]
    for first, second in zip(*students, strict=False):
        if first != second:
            return f"another student ({second}, not {first})"
    if len(students[0]) != len(students[1]):
        return f"{len(students[1])} students, not {len(students[0])}"
    for setting in fields(AnalysisSettings):
        a, b = (getattr(spec.settings, setting.name) for spec in (one, other))
        if a != b:
            return f"other settings ({setting.name.replace('_', '-')} {b}, not {a})"
    for column in ("text", "text_pair", "target"):
        a, b = getattr(mine.probe, column), getattr(theirs.probe, column)
        if a != b:
            return f"another column ({column.replace('_', '-')} {b}, not {a})"
    if mine.dtype != theirs.dtype:
        return f"another precision (--dtype {theirs.dtype}, not {mine.dtype})"
    for package in sorted({*mine.packages, *theirs.packages}):
        a, b = mine.packages.get(package, "none"), theirs.packages.get(package, "none")
        if a.partition(".")[0] != b.partition(".")[0]:
            return f"another major version of {package} ({b}, not {a})"
    if one.plan_sha256 != other.plan_sha256:
        return "other examples or tokens of the probe (--sample, or another tokenizer)"
    alike = replace(one, record=other.record) == other and one.record.counts == other.record.counts
    return None if alike else "other layers, widths or adapters"
