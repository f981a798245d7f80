"""What a part of an analysis measured: sums and samples that add up to those of the whole."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save, save_file
from torch import Tensor

from anglekit.analysis.spec import Key, Subject, cross_plan
from anglekit.errors import InputError, foreign_failures
from anglekit.geometry.cka import CrossSums
from anglekit.geometry.sums import GeometrySums
from anglekit.geometry.token_sample import TokenSample
from anglekit.runtime.files import MOST_JSON_BYTES
from anglekit.vocabulary import Stream

__all__ = [
    "Measurement",
    "measurement_bytes",
    "measurement_from_bytes",
    "read_measurement",
    "read_metadata",
    "write_measurement",
]


_FACTS = "anglekit"
_PROJECTIONS = "projections"


class _Unfit(Exception):  # noqa: N818 - never leaves this file
    """A tensor or a fact is not what the subject says it is."""


def measurement_bytes(subject: Subject, measurement: Measurement) -> bytes:
    """Return a measurement as the bytes of a safetensors file."""
    return save(dict(_tensors(subject, measurement)), metadata={_FACTS: _facts(measurement)})


def write_measurement(
    path: Path, subject: Subject, measurement: Measurement, more: Mapping[str, str] | None = None
) -> None:
    """Write a measurement, with the projections through which it was made, as a safetensors file.

    Args:
        path: the file.
        subject: of the measurement.
        measurement: what to write.
        more: texts to write beside it, which `read_metadata` gives back.

    Raises:
        OSError: it cannot be written.
    """
    try:
        save_file(dict(_tensors(subject, measurement)), path, metadata={**(more or {}), _FACTS: _facts(measurement)})
    except SafetensorError as error:  # its own kind of a full disk
        raise OSError(str(error)) from error


def measurement_from_bytes(subject: Subject, content: bytes) -> Measurement:
    """Return what `measurement_bytes` gave, of the same subject."""
    size = int.from_bytes(content[:8], "little")
    facts = json.loads(content[8 : 8 + size])["__metadata__"][_FACTS]
    return _restored(subject, load(content), facts)[1]


def read_metadata(path: Path) -> dict[str, str]:
    """Return the texts of a file that `write_measurement` wrote.

    Raises:
        InputError: it is damaged.
    """
    with foreign_failures(lambda reason: _damaged(path, reason)), safe_open(path, framework="pt") as file:
        metadata = dict(file.metadata() or {})
    if any(len(text) > MOST_JSON_BYTES for text in metadata.values()):
        raise InputError(_damaged(path, f"its description is larger than {MOST_JSON_BYTES >> 20} MiB"))
    return metadata


def read_measurement(path: Path, subject: Subject) -> tuple[Subject, Measurement]:
    """Read what `write_measurement` wrote.

    Args:
        path: the file.
        subject: of the measurement; its projections are read from the file.

    Returns:
        The subject with its projections, and the measurement.

    Raises:
        InputError: the file is missing or damaged, or holds something else than the subject says.
    """
    facts = read_metadata(path).get(_FACTS, "")
    with foreign_failures(lambda reason: _damaged(path, reason)), safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    try:
        return _restored(subject, tensors, facts)
    except (ValueError, RuntimeError, RecursionError, _Unfit) as error:
        raise InputError(_damaged(path, str(error))) from error


def _damaged(path: Path, reason: str) -> str:
    return f"{path} is damaged ({reason}); make it again"


def _facts(measurement: Measurement) -> str:
    sketches = [[stream, position, sketch] for (stream, position), sketch in measurement.sketches.items()]
    return json.dumps(
        {"n_batches": measurement.n_batches, "n_examples": measurement.n_examples, "sketches": sketches},
        ensure_ascii=False,
    )


def _name(part: str, key: Key | str) -> str:
    return f"{part}.{key}" if isinstance(key, str) else f"{part}.{key[0]}.{key[1]}"


def _tensors(subject: Subject, measurement: Measurement) -> Iterator[tuple[str, Tensor]]:
    for key, sums in measurement.sums.items():
        # Without a projection the vertices are the student's own layers: one set of sums.
        left_out = "vertex" if subject.projections[key] is None else ""
        yield from _flat(_name("sums", key), sums, left_out)
        for vertex, matrix in enumerate(subject.projections[key] or ()):
            yield f"{_name(_PROJECTIONS, key)}.{vertex}", matrix.contiguous()
    parts: tuple[tuple[str, Mapping[Any, Any]], ...] = (
        ("samples", measurement.samples),
        ("fresh", measurement.fresh),
        ("cross", measurement.cross),
    )
    for part, states in parts:
        for key, state in states.items():
            yield from _flat(_name(part, key), state)


def _flat(name: str, value: Any, left_out: str = "") -> Iterator[tuple[str, Tensor]]:  # noqa: ANN401
    """Yield the tensors of a dataclass, of those in it and of its tuples, by dotted names."""
    if isinstance(value, Tensor):
        yield name, value.detach().cpu().contiguous()
    elif isinstance(value, tuple):
        for number, each in enumerate(value):
            yield from _flat(f"{name}.{number}", each)
    elif is_dataclass(value):
        for field in fields(value):
            if field.name != left_out:
                yield from _flat(f"{name}.{field.name}", getattr(value, field.name))


def _restored(subject: Subject, tensors: dict[str, Tensor], facts: str) -> tuple[Subject, Measurement]:
    projections = {
        key: None
        if known is None
        else tuple(
            _taken(tensors, f"{_name(_PROJECTIONS, key)}.{vertex}", matrix) for vertex, matrix in enumerate(known)
        )
        for key, known in subject.projections.items()
    }
    empty = Measurement.zeros(subject, "meta")
    sums = {}
    for key, zeros in empty.sums.items():
        name = _name("sums", key)
        n = _rows(tensors, f"{name}.examples.example")
        one, many = ((n,), (zeros.examples.cosine.shape[0], n))
        examples = replace(
            zeros.examples,
            example=_like(one, torch.int64),
            cosine=_like(many, torch.float64),
            n_cosines=_like(many, torch.int64),
            n_tokens=_like(many, torch.int64),
        )
        alone = projections[key] is None
        found = _filled(name, replace(zeros, examples=examples), tensors, "vertex" if alone else "")
        sums[key] = replace(found, vertex=found.student) if alone else found
    samples = {
        stream: _sample(_name("samples", stream), subject, _sides(subject, stream), tensors) for stream in empty.samples
    }
    fresh = {key: _sample(_name("fresh", key), subject, _fresh_side(subject, key), tensors) for key in empty.fresh}
    cross = {stream: _filled(_name("cross", stream), zeros, tensors) for stream, zeros in empty.cross.items()}
    if tensors:
        raise _Unfit(f"it holds {min(tensors)!r}, which does not belong there")
    n_batches, n_examples, sketches = _read_facts(facts, subject)
    found_subject = replace(subject, projections=projections)
    return found_subject, Measurement(n_batches, n_examples, sums, samples, fresh, cross, sketches)


def _sides(subject: Subject, stream: Any) -> list[tuple[int, int]]:  # noqa: ANN401 - a Stream
    """Return layers and width of every side of a stream's sample."""
    chosen = subject.layers[stream]
    students = zip(chosen.students, subject.student_widths, strict=True)
    return [(len(chosen.teacher), subject.teacher_width), *((len(vertices), width) for vertices, width in students)]


def _fresh_side(subject: Subject, key: Key) -> list[tuple[int, int]]:
    return [(len(subject.layers[key[0]].students[key[1]]), subject.student_widths[key[1]])]


def _sample(name: str, subject: Subject, sides: list[tuple[int, int]], tensors: dict[str, Tensor]) -> TokenSample:
    n = _rows(tensors, f"{name}.example")
    if n > subject.capacity:
        raise _Unfit(f"{name} holds {n} examples, more than {subject.capacity}")
    number = _like((n,), torch.int64)
    states = []
    for side, (layers, width) in enumerate(sides if n else ()):
        held = tensors.get(f"{name}.states.{side}")
        dtype = torch.float64 if held is not None and held.dtype == torch.float64 else torch.float32
        states.append(_like((3, layers, n, width), dtype))
    drawn = _like((n,), torch.bool)
    template = TokenSample(subject.capacity, number, number, number, number, drawn, tuple(states))
    return _filled(name, template, tensors)  # type: ignore[no-any-return]


def _like(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return torch.zeros(shape, dtype=dtype, device="meta")


def _rows(tensors: Mapping[str, Tensor], name: str) -> int:
    held = tensors.get(name)
    if held is None or held.ndim != 1:
        raise _Unfit(f"it lacks a proper {name!r}")
    return len(held)


def _filled(name: str, template: Any, tensors: dict[str, Tensor], left_out: str = "") -> Any:  # noqa: ANN401
    """Return a state like the template whose tensors are those of its dotted names, which are taken out."""
    if isinstance(template, Tensor):
        return _taken(tensors, name, template)
    if isinstance(template, tuple) and template and not isinstance(template[0], Tensor):
        return template  # the pairs of `CrossSums`
    if isinstance(template, tuple):
        return tuple(_filled(f"{name}.{number}", each, tensors) for number, each in enumerate(template))
    if not is_dataclass(template):
        return template
    values: Any = replace
    return values(
        template,
        **{
            field.name: _filled(f"{name}.{field.name}", getattr(template, field.name), tensors)
            for field in fields(template)
            if field.name != left_out
        },
    )


def _taken(tensors: dict[str, Tensor], name: str, template: Tensor) -> Tensor:
    held = tensors.pop(name, None)
    if held is None:
        raise _Unfit(f"it lacks {name!r}")
    if held.shape != template.shape or held.dtype != template.dtype:
        raise _Unfit(f"{name} is {held.dtype} {tuple(held.shape)}; expected {template.dtype} {tuple(template.shape)}")
    # A file's tensors lie where they lie; matrix products may round otherwise where memory is not aligned.
    return held.clone()


def _read_facts(text: str, subject: Subject) -> tuple[int, int, dict[Key, dict[str, Any]]]:
    found = json.loads(text)
    if not isinstance(found, dict) or not isinstance(found.get("sketches"), list):
        raise _Unfit("it does not say what it holds")
    n_batches, n_examples = (_whole_number(found.get(name)) for name in ("n_batches", "n_examples"))
    if n_batches > subject.n_batches:
        raise _Unfit(f"it counts {n_batches} batches of {subject.n_batches}")
    sketches: dict[Key, dict[str, Any]] = {}
    for entry in found["sketches"]:
        if not isinstance(entry, list) or len(entry) != 3 or not isinstance(entry[2], dict):
            raise _Unfit("a sketch in it is not one")
        key = next((each for each in subject.keys if list(each) == entry[:2]), None)
        if key is None:
            raise _Unfit(f"it holds a sketch of {entry[:2]}")
        sketches[key] = entry[2]
    return n_batches, n_examples, sketches


def _whole_number(value: object) -> int:
    if type(value) is not int or not 0 <= value < 2**62:
        raise _Unfit(f"a count in it is {str(value)[:40]!r}")
    return value


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
