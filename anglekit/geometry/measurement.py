"""What a part of an analysis measured: sums and samples that add up to those of the whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from anglekit.geometry.accumulators import GeometrySums
from anglekit.geometry.cka import CrossSums
from anglekit.geometry.null_sums import TokenSample
from anglekit.geometry.subject import Key, Subject, cross_plan
from anglekit.streams import Stream

__all__ = ["Measurement"]

_State = TypeVar("_State")


@dataclass(frozen=True, eq=False)
class Measurement:
    """What was measured in some of the batches; merges by `+`, associative, with `zeros` as the identity.

    Attributes:
        n_batches: batches that were read.
        n_examples: examples in them.
        sums: for every stream and student.
        samples: for every stream, of the teacher and all students.
        fresh: for every stream and student, an untrained student's states at the sampled tokens; empty unless wanted.
        cross: for every stream, where the CKA of the whole probe is wanted.
        sketches: for every stream and student the token of the sketch; in the part that read the first batch.
    """

    n_batches: int
    n_examples: int
    sums: Mapping[Key, GeometrySums]
    samples: Mapping[Stream, TokenSample]
    fresh: Mapping[Key, TokenSample]
    cross: Mapping[Stream, CrossSums]
    sketches: Mapping[Key, dict[str, Any]]

    @classmethod
    def zeros(cls, subject: Subject, device: torch.device | str = "cpu") -> Measurement:
        """Return the measurement of no batches: the identity of `+`."""
        return cls(
            n_batches=0,
            n_examples=0,
            sums={
                (stream, position): GeometrySums.zeros(
                    len(subject.layers[stream].teacher),
                    len(subject.layers[stream].students[position]),
                    subject.teacher_width,
                    subject.student_widths[position],
                    device,
                )
                for stream, position in subject.keys
            },
            samples={stream: _no_tokens(subject.capacity) for stream in subject.layers},
            fresh={key: _no_tokens(subject.capacity) for key in subject.keys}
            if subject.settings.nulls == "all"
            else {},
            cross={stream: CrossSums.zeros(*cross_plan(subject, stream), device) for stream in subject.cross_streams},
            sketches={},
        )

    def __add__(self, other: Measurement) -> Measurement:
        """Return the measurement of both sets of batches, which must be disjoint.

        Raises:
            ValueError: an example is in both, or they are of different subjects.
        """
        for mine, theirs in (
            (self.sums, other.sums),
            (self.samples, other.samples),
            (self.fresh, other.fresh),
            (self.cross, other.cross),
        ):
            if mine.keys() != theirs.keys():
                raise ValueError("measurements merge only with measurements of the same streams and students")
        return Measurement(
            self.n_batches + other.n_batches,
            self.n_examples + other.n_examples,
            {key: sums + other.sums[key] for key, sums in self.sums.items()},
            {stream: sample + other.samples[stream] for stream, sample in self.samples.items()},
            {key: sample + other.fresh[key] for key, sample in self.fresh.items()},
            {stream: sums + other.cross[stream] for stream, sums in self.cross.items()},
            {**self.sketches, **other.sketches},
        )

    def to(self, device: torch.device | str) -> Measurement:
        """Return the measurement with its tensors on a device; what lies in main memory by its nature stays there."""
        return replace(
            self,
            sums={key: replace(_moved(sums, device), examples=sums.examples) for key, sums in self.sums.items()},
            samples={stream: _moved_states(sample, device) for stream, sample in self.samples.items()},
            fresh={key: _moved_states(sample, device) for key, sample in self.fresh.items()},
            cross={stream: _moved(sums, device) for stream, sums in self.cross.items()},
        )


def _no_tokens(capacity: int) -> TokenSample:
    none = torch.zeros(0, dtype=torch.int64)
    return TokenSample(capacity, none, none, none, none, none.bool(), ())


def _moved_states(sample: TokenSample, device: torch.device | str) -> TokenSample:
    return replace(sample, states=tuple(side.to(device) for side in sample.states))


def _moved(state: _State, device: torch.device | str) -> _State:
    """Return a dataclass of tensors, of tuples of them and of further ones with all of them on a device."""
    held: Any = state
    moved: _State = replace(held, **{field.name: _sent(getattr(held, field.name), device) for field in fields(held)})
    return moved


def _sent(value: Any, device: torch.device | str) -> Any:  # noqa: ANN401 - whatever a state holds
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, tuple):
        return tuple(_sent(each, device) for each in value)
    return _moved(value, device) if is_dataclass(value) else value
