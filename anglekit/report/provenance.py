"""How an analysis was run and on what, as names and values for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from anglekit.comparison.sources import UNRECORDED, student_arms
from anglekit.display.tables import TextTable
from anglekit.report.gather import Analysis
from anglekit.results.geometry import Geometry

__all__ = ["analysis_facts", "students_table"]

_YES_NO = {True: "yes", False: "no"}


def analysis_facts(analysis: Analysis) -> list[tuple[str, str]]:
    """Return settings, probe, counts, versions and machine of a Geometry; what was not recorded is left out."""
    geometry = analysis.geometry
    provenance = geometry.provenance
    facts = [("Geometry", analysis.source)]
    facts += [
        (name, _words(geometry.settings[key]))
        for key, name in (
            ("reading", "reading"),
            ("final_norm", "final norm"),
            ("special_tokens", "special tokens counted"),
            ("projection", "projection"),
            ("max_length", "longest text, asked for"),
            ("target_max_length", "longest target, asked for"),
            ("nulls", "nulls"),
            ("similarity", "similarity"),
            ("seed", "seed"),
        )
        if geometry.settings.get(key) is not None
    ]
    facts += _layer_facts(geometry.settings)
    probe = provenance.get("probe") or {}
    facts += [
        (f"probe {name}", _words(probe[key]))
        for key, name in (
            ("source", "data"),
            ("text", "text column"),
            ("text_pair", "second text column"),
            ("target", "target column"),
            ("sha256", "sha256"),
        )
        if probe.get(key) is not None
    ]
    facts += [
        (name, f"{geometry.counts[key]:,}")
        for key, name in (
            ("examples", "examples"),
            ("skipped_rows", "rows left out"),
            ("skipped_examples", "examples left out"),
            ("truncated_examples", "examples truncated"),
            ("max_length", "longest text, tokens"),
        )
        if isinstance(geometry.counts.get(key), int)
    ]
    facts += _token_facts(geometry.counts)
    facts += [
        (name, _words(provenance[key]))
        for key, name in (("device", "device"), ("dtype", "dtype"), ("precision", "precision"), ("python", "Python"))
        if provenance.get(key) is not None
    ]
    packages = provenance.get("packages") or {}
    if packages:
        facts.append(("packages", ", ".join(f"{name} {version}" for name, version in packages.items())))
    return facts


def students_table(geometry: Geometry, title: str) -> TextTable:
    """Return the table of teacher and students: how each was made, and the hash of its weights."""
    provenance, arms = geometry.provenance, student_arms(geometry)
    rows = []
    teacher = provenance.get("teacher") or {}
    for role, entry in (("teacher", teacher), *(("student", entry) for entry in provenance["students"])):
        strategy, init, seed = arms[str(entry["name"])] if role == "student" else ("", "", None)
        depth = entry.get("depth") or {}
        rows.append(
            (
                role,
                str(entry.get("name", "")),
                strategy if entry.get("strategy") is not None else "",
                "" if init == UNRECORDED else init,
                "" if seed is None else str(seed),
                str(entry.get("architecture") or ""),
                " + ".join(str(blocks) for blocks in depth.values()),
                str(entry.get("width") or ""),
                str(entry.get("source") or ""),
                str(entry.get("sha256") or ""),
            )
        )
    columns = ("role", "name", "strategy", "init", "seed", "architecture", "blocks", "width", "source", "sha256")
    return TextTable(title, columns, tuple(rows), frozenset({4, 6, 7}))


def _words(value: object) -> str:
    if isinstance(value, bool):
        return _YES_NO[value]
    if isinstance(value, list | tuple):
        return ", ".join(str(part) for part in value)
    return str(value)


def _layer_facts(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts = []
    layers = settings.get("teacher_layers")
    if isinstance(layers, Mapping):
        facts += [(f"teacher layers, {stream}", _words(own)) for stream, own in layers.items()]
    vertices = settings.get("vertices")
    if isinstance(vertices, Mapping):
        # Students of one depth are said once.
        by_layers: dict[tuple[str, str], int] = {}
        for streams in vertices.values():
            for stream, own in streams.items() if isinstance(streams, Mapping) else ():
                key = (str(stream), _words(own))
                by_layers[key] = by_layers.get(key, 0) + 1
        facts += [
            (f"student layers, {stream}", own + (f" ({count} students)" if len(vertices) > 1 else ""))
            for (stream, own), count in by_layers.items()
        ]
    return facts


def _token_facts(counts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the tokens of each stream; they are the same for all students."""
    tokens: dict[str, int] = {}
    for streams in (counts.get("by_student") or {}).values():
        for stream, found in streams.items():
            tokens.setdefault(str(stream), int(found.get("tokens", 0)))
    return [(f"tokens, {stream}", f"{number:,}") for stream, number in tokens.items()]
