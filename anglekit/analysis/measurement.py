"""What a part of an analysis measured: sums and samples that add up to those of the whole, and their file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import torch
from msgspec import Struct
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save, save_file
from torch import Tensor

from anglekit.analysis.spec import AnalysisSpec, Count, Key
from anglekit.analysis.token_texts import TokenText
from anglekit.errors import InputError, foreign_failures
from anglekit.geometry.cka import CrossSums
from anglekit.geometry.named_tensors import numbered, prefixed, within
from anglekit.geometry.sums import HISTOGRAM_TYPES, AngleExtremes, ExampleMeans, GeometrySums
from anglekit.geometry.token_sample import TokenSample
from anglekit.results.document import SketchToken
from anglekit.runtime.files import MOST_JSON_BYTES
from anglekit.vocabulary import Stream

_FACTS = "anglekit"
# What earlier versions did not sum: NaN in what they left, so that it can be gone on with and merged.
_ADDED = ".examples.angle"


@dataclass(frozen=True, eq=False)
class Measurement:
    """What was measured in some of the batches; merges by `+`, associative, with `zeros` as the identity.

    Attributes:
        n_batches: batches that were read.
        n_examples: examples in them.
        projections: for every projected stream and student the vertices' projections through which it was measured,
            float64 (teacher width, student width).
        sums: for every stream and student.
        samples: for every stream, of the teacher and all students.
        fresh: for every stream and student, an untrained student's states at the sampled tokens; empty unless wanted.
        cross: for every stream, where the CKA of the whole probe is wanted.
        sketches: for every stream and student the token of the sketch; in the part that read the first batch.
        extremes: for every stream and student the tokens of the extreme angles; empty unless wanted.
        texts: what these tokens read, by stream and token; in the part that read them.
    """

    n_batches: int
    n_examples: int
    projections: Mapping[Key, tuple[Tensor, ...]]
    sums: Mapping[Key, GeometrySums]
    samples: Mapping[Stream, TokenSample]
    fresh: Mapping[Key, TokenSample]
    cross: Mapping[Stream, CrossSums]
    sketches: Mapping[Key, SketchToken]
    extremes: Mapping[Key, AngleExtremes] = field(default_factory=dict)
    texts: Mapping[tuple[Stream, int], TokenText] = field(default_factory=dict)

    @classmethod
    def zeros(
        cls,
        spec: AnalysisSpec,
        projections: Mapping[Key, tuple[Tensor, ...]] | None = None,
        device: torch.device | str = "cpu",
    ) -> Measurement:
        """Return the measurement of no batches through these projections: the identity of `+`."""
        return cls(
            n_batches=0,
            n_examples=0,
            projections=projections or {},
            sums={
                key: GeometrySums.zeros(
                    len(spec.layers[key[0]].teacher),
                    len(spec.vertices(key)),
                    spec.teacher_width,
                    spec.student_widths[key[1]] if spec.is_projected(key) else None,
                    device,
                    spec.n_split_clusters,
                )
                for key in spec.keys
            },
            samples={stream: TokenSample.empty(spec.capacity) for stream in spec.layers},
            fresh={key: TokenSample.empty(spec.capacity) for key in spec.keys if spec.settings.nulls == "all"},
            cross={stream: CrossSums.zeros(*spec.cross_layers(stream), device) for stream in spec.cross_streams},
            sketches={},
            extremes={
                key: AngleExtremes.zeros(len(spec.vertices(key)), len(spec.layers[key[0]].teacher), device)
                for key in spec.keys
                if spec.settings.keep_extremes
            },
        )

    def __add__(self, other: Measurement) -> Measurement:
        """Return the measurement of both sets of batches, which must be disjoint and measured through one projection.

        Raises:
            ValueError: an example is in both, or they are of different streams and students.
        """
        return Measurement(
            self.n_batches + other.n_batches,
            self.n_examples + other.n_examples,
            self.projections,
            _merged(self.sums, other.sums),
            _merged(self.samples, other.samples),
            _merged(self.fresh, other.fresh),
            _merged(self.cross, other.cross),
            {**self.sketches, **other.sketches},
            _merged(self.extremes, other.extremes),
            {**self.texts, **other.texts},
        )

    def to(self, device: torch.device | str) -> Measurement:
        """Return the measurement with its tensors on a device; what lies in main memory by its nature stays there."""
        return replace(
            self,
            sums={key: sums.to(device) for key, sums in self.sums.items()},
            samples={stream: sample.to(device) for stream, sample in self.samples.items()},
            fresh={key: sample.to(device) for key, sample in self.fresh.items()},
            cross={stream: sums.to(device) for stream, sums in self.cross.items()},
            extremes={key: found.to(device) for key, found in self.extremes.items()},
        )

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors, by the names that they have in a file."""
        projections = [numbered(_name("projections", key), matrices) for key, matrices in self.projections.items()]
        parts: tuple[tuple[str, Mapping[Any, Any]], ...] = (
            *(("sums", self.sums), ("samples", self.samples), ("fresh", self.fresh), ("cross", self.cross)),
            ("extremes", self.extremes),
        )
        named = [prefixed(_name(part, key), state.tensors()) for part, states in parts for key, state in states.items()]
        return {name: tensor for each in (*named, *projections) for name, tensor in each.items()}

    def with_tensors(self, tensors: Mapping[str, Tensor]) -> Measurement:
        """Return a measurement of the same streams and students that has these tensors, by the names of `tensors`."""
        return replace(
            self,
            projections={key: tuple(within(_name("projections", key), tensors).values()) for key in self.projections},
            sums=_refilled("sums", self.sums, tensors),
            samples=_refilled("samples", self.samples, tensors),
            fresh=_refilled("fresh", self.fresh, tensors),
            cross=_refilled("cross", self.cross, tensors),
            extremes=_refilled("extremes", self.extremes, tensors),
        )


_Place = TypeVar("_Place", Key, Stream)
_State = TypeVar("_State", GeometrySums, TokenSample, CrossSums, AngleExtremes)


def _merged(mine: Mapping[_Place, _State], theirs: Mapping[_Place, _State]) -> dict[_Place, _State]:
    if mine.keys() != theirs.keys():
        raise ValueError("measurements merge only with measurements of the same streams and students")
    return {place: state + theirs[place] for place, state in mine.items()}


def _refilled(part: str, states: Mapping[_Place, _State], tensors: Mapping[str, Tensor]) -> dict[_Place, _State]:
    return {place: state.with_tensors(within(_name(part, place), tensors)) for place, state in states.items()}


def _name(part: str, place: Key | Stream) -> str:
    return f"{part}.{place}" if isinstance(place, str) else f"{part}.{place[0]}.{place[1]}"


class _Sketch(Struct, array_like=True):
    stream: Stream
    student: int
    token: SketchToken


class _Text(Struct, array_like=True):
    stream: Stream
    token: int
    text: TokenText


class _Facts(Struct):
    """What a file says of a measurement beside its tensors."""

    n_batches: Count
    n_examples: Count
    sketches: list[_Sketch]
    texts: list[_Text] = []


def measurement_bytes(measurement: Measurement) -> bytes:
    """Return a measurement as the bytes of a safetensors file."""
    return save(_plain(measurement.tensors()), metadata={_FACTS: _facts(measurement)})


def write_measurement(path: Path, measurement: Measurement, more: Mapping[str, str] | None = None) -> None:
    """Write a measurement, with the projections through which it was made, as a safetensors file.

    `more` are texts to write beside it, which `read_metadata` gives back.

    Raises:
        OSError: it cannot be written.
    """
    try:
        save_file(_plain(measurement.tensors()), path, metadata={**(more or {}), _FACTS: _facts(measurement)})
    except SafetensorError as error:  # its own kind of a full disk
        raise OSError(str(error)) from error


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _facts(measurement: Measurement) -> str:
    sketches = [_Sketch(stream, position, token) for (stream, position), token in measurement.sketches.items()]
    texts = [_Text(stream, token, text) for (stream, token), text in measurement.texts.items()]
    return msgspec.json.encode(_Facts(measurement.n_batches, measurement.n_examples, sketches, texts)).decode()


def measurement_from_bytes(spec: AnalysisSpec, content: bytes) -> Measurement:
    """Return what `measurement_bytes` gave, of the same analysis."""
    size = int.from_bytes(content[:8], "little")
    facts = msgspec.json.decode(content[8 : 8 + size])["__metadata__"][_FACTS]
    return _restored(spec, load(content), facts)


def read_metadata(path: Path) -> dict[str, str]:
    """Return the texts of a file that `write_measurement` wrote.

    Raises:
        InputError: it is damaged.
    """
    with foreign_failures(partial(_damaged, path)), safe_open(path, framework="pt") as file:
        metadata = dict(file.metadata() or {})
    if any(len(text) > MOST_JSON_BYTES for text in metadata.values()):
        raise _damaged(path, f"its description is larger than {MOST_JSON_BYTES >> 20} MiB")
    return metadata


def read_measurement(path: Path, spec: AnalysisSpec) -> Measurement:
    """Read what `write_measurement` wrote of an analysis with this spec.

    Raises:
        InputError: the file is missing or damaged, or holds something else than the spec says.
    """
    facts = read_metadata(path).get(_FACTS, "")
    with foreign_failures(partial(_damaged, path)), safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    try:
        return _restored(spec, tensors, facts)
    except _EarlierSumsError as error:
        raise InputError(f"{path} is of an earlier version: {error}", "make it again") from error
    except (ValueError, RuntimeError, RecursionError) as error:
        raise _damaged(path, str(error)) from error


class _EarlierSumsError(ValueError):
    """Sums for the CKA were taken around 0."""


def _damaged(path: Path, reason: str) -> InputError:
    return InputError(f"{path} is damaged ({reason})", "make it again")


def _restored(spec: AnalysisSpec, tensors: dict[str, Tensor], facts: str) -> Measurement:
    """Return the measurement of some tensors, which must be those of the spec and no others."""
    expected = _expected(spec, tensors)
    measurement = expected.with_tensors(
        {name: _taken(tensors, name, like) for name, like in expected.tensors().items()}
    )
    if tensors:
        raise ValueError(f"it holds {min(tensors)!r}, which does not belong there")
    try:
        told = msgspec.json.decode(facts, type=_Facts)
    except msgspec.MsgspecError as error:
        raise ValueError(f"it does not say what it holds: {error}") from error
    sketches = {(each.stream, each.student): each.token for each in told.sketches}
    if told.n_batches > spec.n_batches:
        raise ValueError(f"it counts {told.n_batches} batches of {spec.n_batches}")
    if not sketches.keys() <= set(spec.keys):
        raise ValueError(f"it holds a sketch of {min(sketches.keys() - set(spec.keys))}")
    texts = {(each.stream, each.token): each.text for each in told.texts}
    return replace(measurement, n_batches=told.n_batches, n_examples=told.n_examples, sketches=sketches, texts=texts)


def _expected(spec: AnalysisSpec, tensors: Mapping[str, Tensor]) -> Measurement:
    """Return a measurement without memory, of the shapes that a file with so many examples must have."""
    empty = Measurement.zeros(spec, device="meta")
    for key, sums in empty.sums.items():
        n = _rows(tensors, f"{_name('sums', key)}.examples.example")
        sums.examples = ExampleMeans.zeros(len(spec.vertices(key)), n, "meta")

    def side(key: Key) -> tuple[int, int]:
        return len(spec.vertices(key)), spec.student_widths[key[1]]

    return replace(
        empty,
        projections={
            key: (torch.zeros(spec.teacher_width, spec.student_widths[key[1]], dtype=torch.float64, device="meta"),)
            * len(spec.vertices(key))
            for key in spec.keys
            if spec.is_projected(key)
        },
        samples={
            stream: _expected_sample(
                _name("samples", stream),
                spec,
                [
                    (len(chosen.teacher), spec.teacher_width),
                    *(side((stream, position)) for position in range(len(spec.names))),
                ],
                tensors,
            )
            for stream, chosen in spec.layers.items()
        },
        fresh={key: _expected_sample(_name("fresh", key), spec, [side(key)], tensors) for key in empty.fresh},
    )


def _expected_sample(
    name: str, spec: AnalysisSpec, sides: Sequence[tuple[int, int]], tensors: Mapping[str, Tensor]
) -> TokenSample:
    n = _rows(tensors, f"{name}.example")
    if n > spec.capacity:
        raise ValueError(f"{name} holds {n} examples, more than {spec.capacity}")
    number = torch.zeros(n, dtype=torch.int64, device="meta")
    states = []
    for place, (layers, width) in enumerate(sides if n else ()):
        held = tensors.get(f"{name}.states.{place}")
        dtype = torch.float64 if held is not None and held.dtype == torch.float64 else torch.float32
        states.append(torch.zeros((3, layers, n, width), dtype=dtype, device="meta"))
    return TokenSample(spec.capacity, number, number, number, number, number.bool(), tuple(states))


def _rows(tensors: Mapping[str, Tensor], name: str) -> int:
    held = tensors.get(name)
    if held is None or held.ndim != 1:
        raise ValueError(f"it lacks a proper {name!r}")
    return len(held)


def _taken(tensors: dict[str, Tensor], name: str, like: Tensor) -> Tensor:
    held = tensors.pop(name, None)
    if held is None and name.endswith(_ADDED):
        return torch.full(like.shape, torch.nan, dtype=like.dtype)
    if held is None and name.startswith("cross.") and ".reference." in name:
        raise _EarlierSumsError("its sums for CKA were taken around 0, which costs them their digits")
    if held is None:
        raise ValueError(f"it lacks {name!r}")
    # Counts are as wide as their number of tokens needs, and of earlier versions always int32.
    dtypes = HISTOGRAM_TYPES if name.endswith(".angles.histogram") else (like.dtype,)
    if held.shape != like.shape or held.dtype not in dtypes:
        raise ValueError(f"{name} is {held.dtype} {tuple(held.shape)}; expected {like.dtype} {tuple(like.shape)}")
    # A file's tensors lie where they lie; matrix products may round otherwise where memory is not aligned.
    return held.clone()
