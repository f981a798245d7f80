"""geometry.json as typed values: what an analysis writes into it, and everything that is read from it."""

from __future__ import annotations

from typing import Annotated, NamedTuple

from msgspec import Meta, Struct, field

from anglekit.errors import InputError

#: Stands for a student's training that was not recorded.
UNRECORDED = "unrecorded"

#: A whole number in the json; a larger one cannot be a count, layer or seed.
Whole = Annotated[int, Meta(ge=-(2**62), le=2**62)]


class Arm(NamedTuple):
    """How a student was trained.

    Attributes:
        strategy: the matching strategy; the student's own name where it was not recorded.
        init: "random", "teacher" or "given:NAME"; `UNRECORDED` where it was not recorded.
        seed: None where it was not recorded.
    """

    strategy: str
    init: str
    seed: int | None


# Keys with a default are optional: Geometries of earlier versions or made by hand lack some.


class ModelRecord(Struct, frozen=True, omit_defaults=True):
    """A teacher or a student: its checkpoint, its shape, and its training where that was recorded.

    `batching` is given where texts of unequal length may not share a batch (`vocabulary.Batching`), `unchecked` (a
    reason in words) where the model could not be run beforehand to see what its blocks hand over. `states` says
    how states were stored that were read instead of running the model. `adapter` says what
    corrected its weights before they were read, and whose they were, `quantization` how they were stored or read, and
    `left_out` which stored weights are no part of the model. `code_set_aside` says that it brings code of its own that
    was not run. `given_sha256` is the hash of what a student started from that was there before its training.
    `taught_by` says by stream, for each student layer (a number as text), which teacher layer taught it; nothing where
    no layer was taught or it was not recorded.
    """

    name: str = ""
    source: str | None = None
    model_type: str | None = None
    composite: str | None = None
    architecture: str | None = None
    width: Whole | None = None
    depth: dict[str, Whole] = {}
    sha256: str | None = None
    blocks_held: dict[str, Whole] | None = None
    adapter: str | None = None
    quantization: str | None = None
    left_out: str | None = None
    code_set_aside: str | None = None
    batching: str | None = None
    unchecked: str | None = None
    states: str | None = None
    init: str | None = None
    strategy: str | None = None
    seed: Whole | None = None
    given_sha256: str | None = None
    taught_by: dict[str, dict[str, Whole]] = {}

    @property
    def arm(self) -> Arm:
        """How a student was trained; without a record, its name serves as its strategy."""
        strategy = self.name if self.strategy is None else self.strategy
        return Arm(strategy, UNRECORDED if self.init is None else self.init, self.seed)


class ProbeRecord(Struct, frozen=True):
    """The texts: their source, their hash, and the columns that were read."""

    source: str | None = None
    sha256: str | None = None
    text: str | None = None
    text_pair: str | None = None
    target: str | None = None


class Provenance(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was analysed, on what, and with which versions; `shard` names a part of the probe, such as "2/3".

    `probe_notes` say how the probe's table was read, where that is not plain. Where states have half precision,
    `state_rounding` is how far rounding moves one, as a share of its length, and `cosine_resolution` how far it moves
    the cosine of two.
    """

    teacher: ModelRecord = field(default_factory=ModelRecord)
    students: list[ModelRecord]
    probe: ProbeRecord = field(default_factory=ProbeRecord)
    probe_notes: tuple[str, ...] = ()
    packages: dict[str, str] = {}
    python: str | None = None
    device: str | None = None
    dtype: str | None = None
    precision: str | None = None
    state_rounding: float | None = None
    cosine_resolution: float | None = None
    shard: str | None = None
    training_step: Whole | None = None


class UsedSettings(Struct, frozen=True):
    """The settings that are read by name; `Geometry.settings` holds all settings.

    Attributes:
        reading: "corrected", or "official" as the paper's code computes.
        final_norm: "excluded" or "included".
        seed: of the samples and projections.
        teacher_layers: by stream.
        vertices: the student's layers, by student and stream.
        training_step: the step of checkpoints that were saved during training.
    """

    reading: str = "corrected"
    final_norm: str | None = None
    seed: Whole | None = None
    teacher_layers: dict[str, list[Whole]] | None = None
    vertices: dict[str, dict[str, list[Whole]]] | None = None
    training_step: Whole | None = None


class ZeroDirection(Struct, frozen=True):
    """A teacher layer that coincides with a student's layer for some tokens (such as a copied embedding)."""

    vertex: Whole
    teacher_layer: Whole
    tokens: Whole = 0


class StreamCounts(Struct, frozen=True, kw_only=True):
    """What was counted and left out in one stream of one student.

    States are listed by side ("teacher", "student") and layer; layers with none are not listed.
    """

    tokens: Whole = 0
    tokens_finite_everywhere: Whole = 0
    nonfinite_states: dict[str, dict[str, Whole]]
    zero_states: dict[str, dict[str, Whole]]
    zero_direction: list[ZeroDirection]


class Counts(Struct, frozen=True):
    """Examples and tokens; what was truncated or left out; `by_student` is keyed by student and stream.

    `distinct_texts` is of the whole probe, also in a shard; examples of which a model reads the same are one.
    `unlike_examples` were left out because a student's tokenizer reads other tokens than the teacher's.
    """

    examples: Whole | None = None
    distinct_texts: Whole | None = None
    unlike_examples: Whole | None = None
    examples_used_for_projection: Whole | None = None
    skipped_rows: Whole | None = None
    skipped_examples: Whole | None = None
    truncated_examples: Whole | None = None
    truncated_tokens: Whole | None = None
    max_length: Whole | None = None
    by_student: dict[str, dict[str, StreamCounts]] = {}


class Projection(Struct, frozen=True):
    """How a student's layer of another width was projected to the teacher's width, and how well."""

    student: str
    stream: str
    vertex: Whole
    kind: str
    teacher_layer: Whole
    r_squared: float


class PlanePoint(Struct, frozen=True, array_like=True):
    """A teacher layer's position in the plane of a sketch, in the states' own units."""

    layer: Whole
    x: float
    y: float


class SketchToken(Struct, frozen=True):
    """A real token with a typical angle, and its states in the plane of that angle (see `Geometry`)."""

    student: str | None = None
    stream: str | None = None
    vertex: Whole | None = None
    teacher_i: Whole | None = None
    teacher_k: Whole | None = None
    example: Whole | None = None
    token: str | None = None
    distance_i: float | None = None
    distance_k: float | None = None
    cosine: float | None = None
    points: list[PlanePoint] = []


class GeometryDocument(Struct, frozen=True):
    """The whole of geometry.json.

    Raises:
        InputError: a student's name is not allowed.
    """

    settings: UsedSettings
    provenance: Provenance
    counts: Counts
    projections: list[Projection]
    sketch_tokens: list[SketchToken]

    def __post_init__(self) -> None:
        names = [student.name for student in self.provenance.students]
        # The official histogram's file is named after its student, and the name must not lead out of the directory.
        forbidden = set("/\\\0") if self.settings.reading == "official" else set()
        if len(set(names)) < len(names) or not all(name and not set(name) & forbidden for name in names):
            raise InputError("the students lack proper names of their own")
