"""What an analysis looks at: everything that its parts have in common, as data alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from anglekit.analysis.checks import StreamLayers
from anglekit.analysis.settings import AnalysisSettings
from anglekit.geometry.cka import CrossSums
from anglekit.vocabulary import ProjectionKind, Stream

__all__ = ["Key", "Subject", "cross_plan", "first_difference", "subject_document", "subject_of"]


# More than any model has: a file that says more lies.
_MOST_LAYERS, _MOST_WIDTH, _MOST_EXAMPLES = 10_000, 1_000_000, 100_000


def subject_document(subject: Subject) -> dict[str, Any]:
    """Return a subject as plain json; of the projections only where there are some."""
    return {
        "names": list(subject.names),
        "layers": {
            stream: {"teacher": list(chosen.teacher), "students": [list(each) for each in chosen.students]}
            for stream, chosen in subject.layers.items()
        },
        "teacher_width": subject.teacher_width,
        "student_widths": list(subject.student_widths),
        "settings": asdict(subject.settings),
        "kinds": list(subject.kinds),
        "aims": [[*key, list(aims)] for key, aims in subject.aims.items()],
        "projected": [[*key] for key, matrices in subject.projections.items() if matrices is not None],
        "capacity": subject.capacity,
        "viewed": subject.viewed,
        "n_batches": subject.n_batches,
        "plan_sha256": subject.plan_sha256,
        "described": dict(subject.described),
    }


def subject_of(document: Any) -> Subject:  # noqa: ANN401 - whatever a json file holds
    """Return the subject of a document; its projections are places of the right shape without numbers.

    Raises:
        ValueError: the document is not that of a subject; the message says where.
        InputError: its settings are none.
    """
    whole = _mapping(document, "subject")
    names = tuple(_text(name, "names") for name in _list(whole, "names"))
    layers: dict[Stream, StreamLayers] = {}
    for stream in get_args(Stream):
        held = _mapping(whole.get("layers"), "layers").get(stream)
        if held is not None:
            chosen = _mapping(held, "layers")
            students = tuple(_numbers(each, "layers", _MOST_LAYERS) for each in _list(chosen, "students"))
            layers[stream] = StreamLayers(_numbers(chosen.get("teacher"), "layers", _MOST_LAYERS), students)
    n = len(names)
    _need(bool(names) and bool(layers), "names or layers")
    # The official histogram's file is called after its student.
    _need(len(set(names)) == n and not any(set(name) & set("/\\\0") for name in names), "names")
    _need(all(len(chosen.teacher) >= 2 and len(chosen.students) == n for chosen in layers.values()), "layers")
    _need(all(vertices for chosen in layers.values() for vertices in chosen.students), "layers")
    widths = _numbers(whole.get("student_widths"), "student_widths", _MOST_WIDTH)
    kinds = tuple(_kind(kind) for kind in _list(whole, "kinds"))
    _need(len(widths) == n and min(widths) > 0, "student_widths")
    _need(len(kinds) == n, "kinds")
    teacher_width = _number(whole.get("teacher_width"), "teacher_width", _MOST_WIDTH)
    settings = _settings(whole.get("settings"))
    keys: list[Key] = [(stream, position) for position in range(n) for stream in layers]
    aims = dict[Key, tuple[int, ...]]()
    for entry in _list(whole, "aims"):
        _need(isinstance(entry, list) and len(entry) == 3, "aims")
        key = _key(entry[:2], keys, "aims")
        aims[key] = _numbers(entry[2], "aims", _MOST_LAYERS)
        chosen_layers = layers[key[0]]
        _need(len(aims[key]) == len(chosen_layers.students[key[1]]), "aims")
        _need(set(aims[key]) <= set(chosen_layers.teacher), "aims")
    projected = {_key(entry, keys, "projected") for entry in _list(whole, "projected")}
    return Subject(
        names=names,
        layers=layers,
        teacher_width=teacher_width,
        student_widths=widths,
        settings=settings,
        kinds=kinds,
        aims=aims,
        projections={
            (stream, position): tuple(
                torch.zeros(teacher_width, widths[position], dtype=torch.float64, device="meta")
                for _ in layers[stream].students[position]
            )
            if (stream, position) in projected
            else None
            for stream, position in keys
        },
        capacity=_number(whole.get("capacity"), "capacity", _MOST_EXAMPLES),
        viewed=_number(whole.get("viewed"), "viewed", _MOST_EXAMPLES),
        n_batches=_number(whole.get("n_batches"), "n_batches", 2**62),
        plan_sha256=_text(whole.get("plan_sha256"), "plan_sha256"),
        described=_described(whole.get("described"), names, settings),
    )


def _settings(value: object) -> AnalysisSettings:
    held = _mapping(value, "settings")
    known = {field.name: field for field in fields(AnalysisSettings)}
    _need(held.keys() == known.keys(), "settings")
    given = dict[str, Any]()
    for name, setting in held.items():
        if name in ("teacher_layers", "vertices"):
            given[name] = None if setting is None else _numbers(setting, name, _MOST_LAYERS)
            continue
        default = known[name].default
        kinds = (int, type(None)) if name.endswith("max_length") else (type(default), str) if default is None else ()
        _need(type(setting) in (kinds or (type(default),)), f"settings.{name}")
        given[name] = setting
    return AnalysisSettings(**given)


def _described(value: object, names: tuple[str, ...], settings: AnalysisSettings) -> dict[str, dict[str, Any]]:
    held = _mapping(value, "described")
    parts = {part: dict(_mapping(held.get(part), part)) for part in ("settings", "provenance", "counts")}
    for name, setting in asdict(settings).items():
        _need(name in ("teacher_layers", "vertices") or parts["settings"].get(name) == setting, "described.settings")
    provenance = parts["provenance"]
    students = [_mapping(each, "students") for each in _list(provenance, "students")]
    _need([each.get("name") for each in students] == list(names), "students")
    _text(_mapping(provenance.get("teacher"), "teacher").get("name"), "teacher")
    for part in (provenance["teacher"], _mapping(provenance.get("probe"), "probe"), *students):
        _text(part.get("sha256"), "sha256")
    for package in _mapping(provenance.get("packages"), "packages").values():
        _text(package, "packages")
    _need({"truncated_examples", "truncated_tokens", "max_length"} <= parts["counts"].keys(), "counts")
    _need(all(type(count) in (int, float, type(None)) for count in parts["counts"].values()), "counts")
    return parts


def _need(condition: bool, where: str) -> None:
    if not condition:
        raise ValueError(f"{where!r} is not as expected")


def _mapping(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{where!r} is not as expected")
    return value


def _list(whole: Mapping[str, Any], where: str) -> list[Any]:
    value = whole.get(where)
    if not isinstance(value, list):
        raise ValueError(f"{where!r} is not as expected")
    return value


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{where!r} is not as expected")
    return value


def _number(value: object, where: str, most: int) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f"{where!r} is not as expected")
    return value


def _numbers(value: object, where: str, most: int) -> tuple[int, ...]:
    _need(isinstance(value, list), where)
    return tuple(_number(each, where, most) for each in value)  # type: ignore[attr-defined]


def _key(entry: object, keys: list[Key], where: str) -> Key:
    found = next((key for key in keys if list(key) == entry), None)
    if found is None:
        raise ValueError(f"{where!r} is not as expected")
    return found


def _kind(value: object) -> ProjectionKind | None:
    if value is not None and value not in get_args(ProjectionKind):
        raise ValueError("'kinds' is not as expected")
    return value  # type: ignore[return-value]


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
