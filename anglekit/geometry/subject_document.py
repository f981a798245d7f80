"""Subjects as json, checked when read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, get_args

import torch

from anglekit.geometry.preflight import StreamLayers
from anglekit.geometry.settings import AnalysisSettings
from anglekit.geometry.subject import Key, Subject
from anglekit.projections import ProjectionKind
from anglekit.streams import Stream

__all__ = ["subject_document", "subject_of"]

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
