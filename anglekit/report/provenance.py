"""How an analysis was run and on what, as readable names and values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from msgspec.structs import asdict

from anglekit.display.tables import TextTable
from anglekit.report.gather import ReportedGeometry
from anglekit.results.document import UsedSettings
from anglekit.results.geometry import Geometry


def analysis_facts(reported: ReportedGeometry) -> list[tuple[str, str]]:
    """Return settings, probe, counts, versions and machine of a Geometry; unrecorded facts are left out."""
    geometry, document = reported.geometry, reported.geometry.document
    provenance = document.provenance
    facts = [("Geometry", reported.source)]
    facts += _listed(
        geometry.settings,
        reading="reading",
        final_norm="final norm",
        special_tokens="special tokens counted",
        projection="projection",
        max_length="longest text, asked for",
        target_max_length="longest target, asked for",
        nulls="nulls",
        similarity="similarity",
        seed="seed",
    )
    facts += _layer_facts(document.settings)
    facts += _listed(
        asdict(provenance.probe),
        source="probe data",
        text="probe text column",
        text_pair="probe second text column",
        target="probe target column",
        sha256="probe sha256",
    )
    facts += [
        (name, f"{number:,}")
        for name, number in (
            ("examples", document.counts.examples),
            ("rows left out", document.counts.skipped_rows),
            ("examples left out", document.counts.skipped_examples),
            ("examples not read alike", document.counts.unlike_examples or None),
            ("examples truncated", document.counts.truncated_examples),
            ("longest text, tokens", document.counts.max_length),
        )
        if number is not None
    ]
    # The tokens of a stream are the same for all students.
    tokens = {stream: found.tokens for own in document.counts.by_student.values() for stream, found in own.items()}
    facts += [(f"tokens, {stream}", f"{number:,}") for stream, number in tokens.items()]
    facts += _listed(asdict(provenance), device="device", dtype="dtype", precision="precision", python="Python")
    if provenance.packages:
        facts.append(("packages", ", ".join(f"{name} {version}" for name, version in provenance.packages.items())))
    return facts


def _listed(values: Mapping[str, Any], **names: str) -> list[tuple[str, str]]:
    """Return the known values, under readable names."""
    return [(name, _words(values[key])) for key, name in names.items() if values.get(key) is not None]


def _words(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _layer_facts(settings: UsedSettings) -> Iterable[tuple[str, str]]:
    for stream, layers in (settings.teacher_layers or {}).items():
        yield f"teacher layers, {stream}", _words(layers)
    vertices = settings.vertices or {}
    # Students of the same depth are listed once.
    several = Counter((stream, _words(own)) for streams in vertices.values() for stream, own in streams.items())
    for (stream, shown), number in several.items():
        yield f"student layers, {stream}", shown + (f" ({number} students)" if len(vertices) > 1 else "")


def students_table(geometry: Geometry, title: str) -> TextTable:
    """Return the table of teacher and students: how each was made, and the hash of its weights."""
    provenance = geometry.document.provenance
    rows = []
    for role, model in (("teacher", provenance.teacher), *(("student", one) for one in provenance.students)):
        training = (model.strategy, model.init, model.seed) if role == "student" else (None, None, None)
        rows.append(
            (
                role,
                model.name,
                *("" if part is None else str(part) for part in training),
                model.architecture or "",
                " + ".join(map(str, model.depth.values())),
                str(model.width or ""),
                model.source or "",
                model.sha256 or "",
            )
        )
    columns = ("role", "name", "strategy", "init", "seed", "architecture", "blocks", "width", "source", "sha256")
    return TextTable(title, columns, tuple(rows), frozenset({4, 6, 7}))
