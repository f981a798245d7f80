"""Arrays of states in, a Geometry out: for a loop of one's own, in numpy, torch or JAX."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from anglekit.analysis.measurement import Measurement
from anglekit.analysis.preparation import package_versions, resolution, viewed_tokens
from anglekit.analysis.settings import AnalysisSettings
from anglekit.analysis.sketch_token import sketch_token
from anglekit.analysis.spec import (
    Aims,
    AnalysisRecord,
    AnalysisSpec,
    Key,
    ProbeCounts,
    StreamLayers,
    settings_record,
)
from anglekit.analysis.tables import tabulate
from anglekit.errors import InputError, RunError, foreign_failures
from anglekit.geometry.accumulator import SumsAccumulator
from anglekit.geometry.token_sample import TokenSampler, example_means, sample_capacity
from anglekit.models.projections import relative_depth_layer
from anglekit.results.document import ModelRecord, ProbeRecord, Provenance, SketchToken
from anglekit.results.geometry import Geometry
from anglekit.vocabulary import STREAMS, Stream

# Settings that say how models and texts are read; there are none here.
_OF_MODELS = ("reading", "final_norm", "projection", "special_tokens", "max_length", "target_max_length", "prompts")


class GeometryAccumulator:
    """The geometry of a teacher seen from a student, added up from arrays of their hidden states.

    `acc = GeometryAccumulator(13, 4, 768)`, then for each batch `acc.update(t, s, example)`, at last
    `geometry = acc.compute()`: the Geometry that `analyze` gives for the same states, with all its tables. Memory does
    not grow with the tokens. Arrays are of numpy, torch, JAX or anything with `__dlpack__` or `__array__`.

    Args:
        teacher_layers: how many teacher layers there are, the embedding's output counted as one (layer 0), or their
            numbers.
        student_layers: the same of the student.
        width: the width of the teacher's states.
        student_width: that of the student's; another one needs `projections`.
        projections: for each student layer a matrix (width, student width) that brings its states to the teacher's.
        settings: of `analyze`: `seed`, `nulls` and `similarity`; the others are for models.
        stream: `encoder` or `decoder`, as the result labels it.
        student: the student's name.
        teacher: the teacher's name.
        device: where sums are kept and states are brought to.

    Raises:
        InputError: fewer than 2 teacher layers, an unknown stream, or projections that are missing or of another shape.
    """

    def __init__(
        self,
        teacher_layers: int | Sequence[int],
        student_layers: int | Sequence[int],
        width: int,
        *,
        student_width: int | None = None,
        projections: Sequence[Any] | None = None,
        settings: AnalysisSettings | None = None,
        stream: Stream = "encoder",
        student: str = "student",
        teacher: str = "teacher",
        device: torch.device | str = "cpu",
    ) -> None:
        self._settings = settings or AnalysisSettings()
        _check_settings(self._settings)
        self._layers = StreamLayers(_numbers(teacher_layers, "teacher"), (_numbers(student_layers, "student"),))
        if len(self._layers.teacher) < 2:
            raise InputError("there is 1 teacher layer", "an angle is between two: give 2 or more")
        if stream not in STREAMS:
            raise InputError(f"stream {stream!r} is not known", allowed=f"allowed: {', '.join(STREAMS)}")
        if not student or set(student) & set("/\\\0"):
            raise InputError(f"{student!r} is no name of a student", "give a word, which may stand in a file's name")
        self._widths = (int(width), int(student_width or width))
        if min(self._widths) < 1:
            raise InputError(f"states {min(self._widths)} wide are none", "give a width of 1 or more")
        self._key: Key = (stream, 0)
        self._names = (teacher, student)
        self._device = torch.device(device)
        self._projections = self._checked(projections)
        self._sums = SumsAccumulator(
            len(self._layers.teacher),
            len(self._vertices),
            *self._widths,
            projections=self._projections,
            device=self._device,
        )
        self._capacity = sample_capacity(
            len(self._layers.teacher) * self._widths[0] + len(self._vertices) * self._widths[1]
        )
        self._sampler = TokenSampler(self._settings.seed, self._capacity)
        self._seen: set[int] = set()
        self._n_updates = 0
        self._dtype = "float32"
        self._sketch: SketchToken | None = None
        self._cross = Measurement.zeros(self._spec(), self._projected, self._device).cross.get(stream)

    def __repr__(self) -> str:
        """Return in a line what was added up."""
        layers = f"{len(self._layers.teacher)} teacher and {len(self._vertices)} student layers"
        return f"<GeometryAccumulator of {layers}, {self._widths[0]} wide: {len(self._seen)} examples>"

    def update(
        self,
        teacher: Any,  # noqa: ANN401 - arrays of any library
        student: Any,  # noqa: ANN401
        example: Any = None,  # noqa: ANN401
        *,
        mask: Any = None,  # noqa: ANN401
        special: Any = None,  # noqa: ANN401
    ) -> None:
        """Add a batch of whole examples.

        Args:
            teacher: an array (layers, tokens, width), or for each layer one of (tokens, width). Also as models give
                them, `output.hidden_states`: for each layer (batch, length, width).
            student: the same of the student.
            example: for each token the number of its example, whole numbers (tokens,), 0 or more; examples may stand
                amid each other, each with its tokens in their order. In the form of models a number for each text,
                (batch,); by default numbers that go on.
            mask: in the form of models, which positions hold a token, (batch, length); by default all do.
            special: which tokens are special ones, bool of the shape of the tokens; by default none is known. The
                sample tells them apart (`anisotropy`).

        Raises:
            InputError: shapes that do not fit, or an example that came in an earlier update. Nothing was added then.
        """
        teacher_states, batch = self._stacked(teacher, "teacher")
        student_states, other = self._stacked(student, "student")
        if batch != other or teacher_states.shape[1] != student_states.shape[1]:
            shapes = [
                each if each else (states.shape[1],)
                for each, states in ((batch, teacher_states), (other, student_states))
            ]
            raise InputError(
                f"the teacher's states are of {shapes[0]} tokens, the student's of {shapes[1]}", "give the same tokens"
            )
        numbers, kept, kinds = self._labels(teacher_states.shape[1], batch, example, mask, special)
        order = np.flatnonzero(kept)
        order = order[np.argsort(numbers[order], kind="stable")]
        if not len(order):
            return
        examples, place = np.unique(numbers[order], return_inverse=True)
        again = self._seen.intersection(examples.tolist())
        if again:
            raise InputError(f"example {min(again)} came in an earlier update", "give whole examples, each once")
        self._dtype = str(teacher_states.dtype).removeprefix("torch.")
        if not np.array_equal(order, np.arange(len(numbers))):
            index = torch.from_numpy(order).to(self._device)
            teacher_states, student_states = (each.index_select(1, index) for each in (teacher_states, student_states))
        token_example, rows = torch.from_numpy(place.astype(np.int64)), torch.from_numpy(examples)
        self._seen.update(examples.tolist())
        if self._spec().sampled:
            self._sample(teacher_states, student_states, token_example, rows, kinds[order])
        self._sums.update(teacher_states, student_states, token_example, rows)
        if self._sketch is None:
            seen = (teacher_states, student_states)
            self._sketch = sketch_token(self._spec(), self._key, self._projections, seen, rows[token_example], str)
        self._n_updates += 1

    def compute(self) -> Geometry:
        """Return the geometry of all examples so far; more may be added afterwards.

        Raises:
            RunError: no state, or none that is finite, was given.
        """
        if not self._seen:
            raise RunError("no states came; call update first")
        spec = self._spec()
        measured = Measurement(
            self._n_updates,
            len(self._seen),
            self._projected,
            {self._key: self._sums.state()},
            {self._key[0]: self._sampler.state()},
            {},
            {} if self._cross is None else {self._key[0]: self._cross},
            {} if self._sketch is None else {self._key: self._sketch},
        )
        return tabulate(spec, measured)

    @property
    def _vertices(self) -> tuple[int, ...]:
        return self._layers.students[0]

    @property
    def _projected(self) -> dict[Key, tuple[Tensor, ...]]:
        return {} if self._projections is None else {self._key: tuple(self._projections)}

    def _checked(self, projections: Sequence[Any] | None) -> list[Tensor] | None:
        if projections is None:
            if self._widths[0] != self._widths[1]:
                raise InputError(
                    f"the student's states are {self._widths[1]} wide and the teacher's {self._widths[0]}",
                    "give projections, for each student layer a matrix (width, student width)",
                )
            return None
        found = [_tensor(each, "a projection").to(self._device, torch.float64) for each in projections]
        expected = [self._widths] * len(self._vertices)
        if [tuple(each.shape) for each in found] != expected:
            shapes = ", ".join(str(tuple(each.shape)) for each in found)
            raise InputError(
                f"projections of the shapes {shapes}", allowed=f"expected {len(expected)} of the shape {self._widths}"
            )
        return found

    def _stacked(self, states: Any, side: str) -> tuple[Tensor, tuple[int, ...]]:  # noqa: ANN401
        """Return states as (layers, tokens, width), and (batch, length) where they came in the form of models."""
        layers = len(self._layers.teacher if side == "teacher" else self._vertices)
        width = self._widths[0 if side == "teacher" else 1]
        what = f"the {side}'s states"
        if isinstance(states, list | tuple):
            parts = [_tensor(each, what) for each in states]
            if len({each.shape for each in parts}) > 1:
                shapes = sorted({tuple(each.shape) for each in parts})
                raise InputError(f"{what} have the shapes {shapes[0]} and {shapes[1]}", "give layers of one shape")
            found = torch.stack(parts) if parts else torch.zeros(0)
        else:
            found = _tensor(states, what)
        if found.ndim not in (3, 4) or found.shape[0] != layers or found.shape[-1] != width:
            turned = found.ndim == 3 and found.shape[1] == layers and found.shape[2] == width
            raise InputError(
                f"{what} have the shape {tuple(found.shape)}",
                "turn them: states.swapaxes(0, 1)" if turned else "",
                allowed=f"expected ({layers} layers, tokens, {width}) or ({layers} layers, batch, length, {width})",
            )
        if not found.is_floating_point():
            raise InputError(f"{what} are {found.dtype}", "give floating-point numbers")
        batch = tuple(found.shape[1:3]) if found.ndim == 4 else ()
        return found.detach().to(self._device).flatten(1, -2), batch

    def _labels(
        self,
        n_tokens: int,
        batch: tuple[int, ...],
        example: Any,  # noqa: ANN401
        mask: Any,  # noqa: ANN401
        special: Any,  # noqa: ANN401
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_]]:
        """Return for each token the number of its example, whether it counts, and whether it is a special one."""
        shape = batch or (n_tokens,)
        kept, kinds = np.ones(n_tokens, dtype=np.bool_), np.zeros(n_tokens, dtype=np.bool_)
        for name, given, target in (("mask", mask, kept), ("special", special, kinds)):
            if given is not None:
                values = _numbers_of(given, name)
                if values.shape != shape:
                    raise InputError(f"{name} has the shape {values.shape}", allowed=f"expected {shape}")
                target[:] = values.reshape(-1).astype(np.bool_)
        if example is None and not batch:
            raise InputError("nothing says which example each token is of", f"give example, numbers of shape {shape}")
        if example is None:
            start = max(self._seen, default=-1) + 1
            numbers = np.arange(start, start + batch[0], dtype=np.int64)
        else:
            given = _numbers_of(example, "example")
            if given.dtype.kind not in "iu" or given.shape != shape[:1] or (given.size and given.min() < 0):
                raise InputError(
                    f"example is {given.dtype} of shape {given.shape}",
                    allowed=f"expected whole numbers from 0 of shape {shape[:1]}",
                )
            numbers = given.astype(np.int64)
            if batch and len(np.unique(numbers)) < len(numbers):
                raise InputError("two texts of a batch have one number", "give each a number of its own")
        return (np.repeat(numbers, batch[1]) if batch else numbers), kept, kinds

    def _sample(
        self, teacher: Tensor, student: Tensor, token_example: Tensor, rows: Tensor, special: NDArray[np.bool_]
    ) -> None:
        sides, means = [teacher, student], None
        if self._cross is not None:
            means = [example_means(side, token_example, len(rows)) for side in sides]
            self._cross.update([layer for side in means for layer in side])
        self._sampler.update(sides, token_example, rows, special, means)

    def _spec(self) -> AnalysisSpec:
        """Return what is looked at, as of what came so far."""
        stream, (teacher, student), n = self._key[0], self._names, len(self._seen)
        layers = {stream: self._layers}
        depths = max(self._layers.teacher), max(1, *self._vertices, 1)
        nearest = [
            min(
                (abs(layer - relative_depth_layer(vertex, depths[1], depths[0])), layer)
                for layer in self._layers.teacher
            )
            for vertex in self._vertices
        ]
        projected = self._projections is not None
        return AnalysisSpec(
            names=(student,),
            layers=layers,
            teacher_width=self._widths[0],
            student_widths=(self._widths[1],),
            settings=self._settings,
            kinds=("adapter" if projected else None,),
            aims=(Aims(stream, 0, tuple(layer for _, layer in nearest)),) if projected else (),
            capacity=self._capacity,
            viewed=viewed_tokens(n),
            n_batches=self._n_updates,
            plan_sha256="",
            record=AnalysisRecord(
                settings_record(self._settings, (student,), layers),
                Provenance(
                    teacher=ModelRecord(name=teacher, source="arrays in memory", width=self._widths[0]),
                    students=[ModelRecord(name=student, source="arrays in memory", width=self._widths[1])],
                    probe=ProbeRecord(source="arrays in memory"),
                    packages=package_versions(),
                    python=platform.python_version(),
                    device=str(self._device),
                    dtype=self._dtype,
                    precision="inner products and sums in float64",
                    **resolution(getattr(torch, self._dtype), self._widths[0]),
                ),
                ProbeCounts(0, 0, 0, 0, 0, None, 0.0, n),
            ),
        )


def _check_settings(settings: AnalysisSettings) -> None:
    usual = AnalysisSettings()
    for name in _OF_MODELS:
        if getattr(settings, name) != getattr(usual, name):
            raise InputError(
                f"{name}={getattr(settings, name)!r} is for models and texts", "leave it out: states are given"
            )


def _numbers(layers: int | Sequence[int], side: str) -> tuple[int, ...]:
    """Return layer numbers, ascending; of a number of layers those from 0."""
    found = range(layers) if isinstance(layers, int) else tuple(int(layer) for layer in layers)
    if not found or list(found) != sorted(set(found)) or min(found) < 0:
        raise InputError(f"the {side}'s layers are {layers}", "give how many, or their numbers, ascending from 0")
    return tuple(found)


def _numbers_of(values: Any, what: str) -> NDArray[Any]:  # noqa: ANN401 - arrays of any library
    if isinstance(values, Tensor):
        values = values.detach().cpu()
    with foreign_failures(lambda reason: InputError(f"{what} cannot be read: {reason}", "give an array")):
        return np.asarray(values)


def _tensor(array: Any, what: str) -> Tensor:  # noqa: ANN401 - arrays of any library
    """Return an array of any library as a tensor, without a copy where that can be."""
    if isinstance(array, Tensor):
        return array
    if hasattr(array, "__dlpack__") and not isinstance(array, np.ndarray):
        # What is read-only, or on a device that torch does not have, goes through main memory.
        with suppress(RuntimeError, TypeError, BufferError, ValueError):
            shared: Tensor = from_dlpack(array)
            return shared
    with foreign_failures(lambda reason: InputError(f"{what} cannot be read as an array: {reason}", "give an array")):
        found = np.asarray(array)
        return torch.from_numpy(found if found.flags.writeable else found.copy())
