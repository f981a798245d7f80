"""What is settled before an analysis runs its first batch: that all fits, which part is taken, what the result says."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property
from importlib.metadata import version
from typing import Any

from torch import Tensor

from anglekit.analysis.checks import (
    StreamLayers,
    checked_adapters,
    choose_layers,
    projection_kind,
    tokenize_for,
    with_adapters,
)
from anglekit.analysis.fitted_projections import aimed_layer
from anglekit.analysis.settings import AnalysisSettings
from anglekit.analysis.spec import Key, Subject
from anglekit.errors import InputError
from anglekit.geometry.token_sample import sample_capacity
from anglekit.models.architectures import final_norm_module
from anglekit.models.checkpoints import Checkpoint, unique_names
from anglekit.probes.batches import TokenizedProbe
from anglekit.probes.data import ProbeData
from anglekit.runtime.placement import device_names
from anglekit.vocabulary import ProjectionKind, Stream

__all__ = ["WHOLE", "Prepared", "Shard", "described", "described_subject", "prepare"]

# Tokens that the default anisotropy looks at, the first of the sample, whose order is random: an eighth of the examples
# within these bounds, so that it costs a small probe little.
_FEWEST_VIEWED, _MOST_VIEWED, _VIEWED_SHARE = 64, 256, 8
# More jobs than anybody starts: what says more is a slip, and each part takes memory in every job.
_MOST_SHARDS = 100_000


@dataclass(frozen=True)
class Shard:
    """A part of the batches that a job of its own takes.

    Attributes:
        number: which, from 1.
        of: how many there are.

    Raises:
        InputError: there is no such part.
    """

    number: int = 1
    of: int = 1

    def __post_init__(self) -> None:
        if self.of > _MOST_SHARDS:
            raise InputError(f"shard {self.number}/{self.of} is of more than {_MOST_SHARDS} parts", "give fewer")
        if not 1 <= self.number <= self.of:
            raise InputError(f"shard {self.number}/{self.of} cannot be", f"give 1/{self.of} to {self.of}/{self.of}")

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


#: All batches.
WHOLE = Shard()


@dataclass(frozen=True, eq=False)
class Prepared:
    """What is known before the first batch.

    Attributes:
        teacher: the teacher.
        students: the students.
        settings: of the analysis.
        names: the students' names, each its own.
        tokens: the probe, tokenised.
        layers: the layers that take part, by stream.
        kinds: how each student is projected; None where the widths agree.
        adapters: the trained projections of each student, or None.
    """

    teacher: Checkpoint
    students: Sequence[Checkpoint]
    settings: AnalysisSettings
    names: tuple[str, ...]
    tokens: TokenizedProbe
    layers: Mapping[Stream, StreamLayers]
    kinds: tuple[ProjectionKind | None, ...]
    adapters: Sequence[Mapping[Key, Tensor] | None]

    @cached_property
    def fit_half(self) -> TokenizedProbe:
        """The examples on which projections are fitted."""
        return self.tokens.halves(self.settings.seed)[0]

    @cached_property
    def measured(self) -> TokenizedProbe:
        """The examples that are measured: not those on which a projection is fitted."""
        return self.tokens.halves(self.settings.seed)[1] if self.fitted else self.tokens

    @property
    def fitted(self) -> dict[int, ProjectionKind]:
        """How the students of another width without adapters are projected, by position."""
        return {
            position: kind
            for position, kind in enumerate(self.kinds)
            if kind is not None and self.adapters[position] is None
        }


def prepare(
    teacher: Checkpoint,
    students: Sequence[Checkpoint],
    probe: ProbeData,
    settings: AnalysisSettings,
    shard: Shard | None,
) -> Prepared:
    """Check that everything fits, and tokenise.

    Raises:
        InputError: it does not, or a projection would be fitted on a shard.
    """
    if settings.reading == "official":
        settings = replace(settings, final_norm="included")
    tokens = tokenize_for(teacher, students, probe, settings)
    layers = {stream: choose_layers(stream, teacher, students, settings) for stream in teacher.streams}
    kinds = tuple(projection_kind(teacher, student, settings) for student in students)
    adapters = [
        checked_adapters(teacher, student) if kind == "adapter" else None
        for student, kind in zip(students, kinds, strict=True)
    ]
    layers = {stream: with_adapters(stream, chosen, adapters) for stream, chosen in layers.items()}
    names = tuple(unique_names([student.name for student in students]))
    prepared = Prepared(teacher, students, settings, names, tokens, layers, kinds, adapters)
    if prepared.fitted and shard is not None:
        position, kind = next(iter(prepared.fitted.items()))
        raise InputError(
            f"--shard {shard} cannot fit a projection ({kind} for {students[position].source}), which needs the "
            "whole probe",
            "analyse it in one job (accelerate launch shares that among processes), or use trained adapters",
        )
    return prepared


def described_subject(
    prepared: Prepared,
    probe: ProbeData,
    projections: Sequence[Mapping[Key, Tensor] | None],
    shard: Shard | None,
) -> Subject:
    """Return what is looked at, as data.

    Args:
        prepared: what is known.
        probe: the texts.
        projections: of every student of another width, by stream and vertex; None for the others.
        shard: the part that this job takes; None: all.
    """
    teacher, students, layers, measured = prepared.teacher, prepared.students, prepared.layers, prepared.measured
    matrices, aims = dict[Key, tuple[Tensor, ...] | None](), dict[Key, tuple[int, ...]]()
    for position, (student, kind) in enumerate(zip(students, prepared.kinds, strict=True)):
        given = projections[position]
        for stream, chosen in layers.items():
            vertices = chosen.students[position]
            matrices[stream, position] = (
                None if given is None else tuple(given[stream, vertex].double().cpu() for vertex in vertices)
            )
            if kind is not None:
                aims[stream, position] = tuple(
                    aimed_layer(stream, vertex, chosen, teacher, student, kind) for vertex in vertices
                )
    numbers = sum(
        len(chosen.teacher) * teacher.width
        + sum(len(vertices) * student.width for vertices, student in zip(chosen.students, students, strict=True))
        for chosen in layers.values()
    )
    return Subject(
        names=prepared.names,
        layers=layers,
        teacher_width=teacher.width,
        student_widths=tuple(student.width for student in students),
        settings=prepared.settings,
        kinds=prepared.kinds,
        aims=aims,
        projections=matrices,
        capacity=min(sample_capacity(numbers), measured.n_examples),
        viewed=min(_MOST_VIEWED, max(_FEWEST_VIEWED, measured.n_examples // _VIEWED_SHARE)),
        n_batches=measured.n_batches,
        plan_sha256=_plan_hash(measured),
        described=described(prepared, probe, shard),
    )


def _plan_hash(probe: TokenizedProbe) -> str:
    found = hashlib.sha256()
    for runs in (probe.text, probe.target):
        if runs is not None:
            found.update(runs.ids.tobytes() + runs.starts.tobytes() + runs.lengths.tobytes())
            found.update(b"" if runs.counted is None else runs.counted.tobytes())
    for positions in probe.plan:
        found.update(probe.rows[positions].tobytes() + b"|")
    return found.hexdigest()


# Reading a package's metadata takes as long as a batch of short texts.
_version = cache(version)


def described(prepared: Prepared, probe: ProbeData, shard: Shard | None) -> dict[str, dict[str, Any]]:
    """Return what the Geometry says about the settings, where everything came from, and the probe."""
    teacher, students, layers = prepared.teacher, prepared.students, prepared.layers
    tokens, measured = prepared.tokens, prepared.measured
    return {
        "settings": {
            **asdict(prepared.settings),
            "teacher_layers": {stream: list(chosen.teacher) for stream, chosen in layers.items()},
            "vertices": {
                name: {stream: list(chosen.students[position]) for stream, chosen in layers.items()}
                for position, name in enumerate(prepared.names)
            },
            "models_have_final_norm": {
                stream: final_norm_module(teacher.model, stream) is not None for stream in layers
            },
        },
        "provenance": {
            "teacher": {"name": teacher.name, **teacher.provenance()},
            "students": [
                {"name": name, **student.provenance()} for name, student in zip(prepared.names, students, strict=True)
            ],
            "probe": {
                "source": probe.source,
                "sha256": probe.sha256,
                "text": probe.text_column,
                "text_pair": probe.text_pair_column,
                "target": probe.target_column,
            },
            "packages": {
                package: _version(package) for package in ("anglekit", "torch", "transformers", "numpy", "pandas")
            },
            "python": platform.python_version(),
            "device": device_names(teacher.model),
            "dtype": str(teacher.model.dtype).removeprefix("torch."),
            "precision": "inner products and sums in float64",
            **({} if shard is None else {"shard": str(shard)}),
        },
        "counts": {
            "examples_used_for_projection": tokens.n_examples - measured.n_examples,
            "skipped_rows": probe.skipped_rows,
            "skipped_examples": tokens.skipped_examples,
            "truncated_examples": tokens.truncated_examples,
            "truncated_tokens": tokens.truncated_tokens,
            "max_length": tokens.max_length,
            "padding_share": tokens.padding_share,
        },
    }
