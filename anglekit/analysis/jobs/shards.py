"""Geometries of separate jobs: each saved with its sums, all joined to the Geometry that one job would have given."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from anglekit.analysis.fitted_projections import same_projections
from anglekit.analysis.measurement import (
    Measurement,
    measurement_bytes,
    measurement_from_bytes,
    read_measurement,
    write_measurement,
)
from anglekit.analysis.preparation import Shard
from anglekit.analysis.spec import AnalysisSpec, first_difference
from anglekit.analysis.tables import tabulate
from anglekit.errors import InputError
from anglekit.results.geometry import Geometry
from anglekit.runtime.files import convert_document, near_path, read_json_object, write_json
from anglekit.runtime.processes import Processes
from anglekit.vocabulary import GEOMETRY_FILE

#: What lies beside the tables of a shard.
SHARD_FILE, SUMS_FILE = "shard.json", "sums.safetensors"

_FORMAT = "anglekit-shard-1"
_AGAIN = "analyse that shard again"


class ShardDocument(Struct, frozen=True):
    """What shard.json holds; its `sha256`, the hash of the rest, is beside it in the file."""

    format: str
    shard: int
    of: int
    sums_sha256: str
    spec: AnalysisSpec = msgspec.field(name="subject")

    def __post_init__(self) -> None:
        Shard(self.shard, self.of)  # raises where there is no such part


@dataclass(frozen=True, kw_only=True)
class ShardGeometry(Geometry):
    """The Geometry of a part of the probe, which is saved with the sums that it was made of.

    `sums.safetensors` holds, for each student and stream, 8 kB for every vertex and pair of teacher layers (a 12-layer
    teacher and a 3-layer student: 2.5 MB), up to 256 MB of sampled states in all, and with `similarity="all"` up to
    1 GB of products.

    Attributes:
        spec: what was looked at.
        measurement: what was measured in this part.
        shard: which part it is.
    """

    spec: AnalysisSpec
    measurement: Measurement
    shard: Shard

    def _write(self, directory: Path) -> None:
        super()._write(directory)
        sums = directory / SUMS_FILE
        write_measurement(sums, self.measurement)
        sums.chmod((directory / GEOMETRY_FILE).stat().st_mode & 0o777)  # safetensors makes it private
        content = ShardDocument(_FORMAT, self.shard.number, self.shard.of, _file_hash(sums), self.spec)
        document = msgspec.to_builtins(content)
        write_json(directory / SHARD_FILE, {**document, "sha256": _document_hash(document)})


def shard_geometry(spec: AnalysisSpec, measurement: Measurement, shard: Shard) -> ShardGeometry:
    """Return the Geometry of one part, with its sums.

    Raises:
        RunError: it is the only part, and no angle of a student is left.
    """
    geometry = tabulate(spec, measurement)
    held = {field.name: getattr(geometry, field.name) for field in fields(Geometry)}
    return ShardGeometry(**held, spec=spec, measurement=measurement, shard=shard)


def gathered(processes: Processes, spec: AnalysisSpec, measurement: Measurement) -> Measurement | None:
    """Return, in the first process, what all processes of a launch measured, added up in their order; else None."""
    if processes.count == 1:
        return measurement
    if not processes.first:
        processes.send_to_first(measurement_bytes(measurement))
        return None
    whole = measurement.to("cpu")
    for content in processes.receive():
        whole = whole + measurement_from_bytes(spec, content)
    return whole


@dataclass(frozen=True, eq=False)
class _SavedShard:
    """A shard's directory, and what its shard.json says."""

    path: Path
    shard: Shard
    sums_sha256: str
    spec: AnalysisSpec


def merge_shards(paths: Sequence[str | Path]) -> Geometry:
    """Join the Geometries of all shards of a probe to the one that a single job would have given.

    Args:
        paths: the directories that `anglekit analyze --shard` wrote, every shard once, in any order.

    Raises:
        InputError: a shard is missing, there twice, damaged, or of another analysis.
        RunError: no angle of a student is left.
    """
    found = sorted((_read_shard(Path(path)) for path in paths), key=lambda each: each.shard.number)
    _check_complete(found)
    for other in found[1:]:
        difference = first_difference(found[0].spec, other.spec)
        if difference is not None:
            raise _other_analysis(found[0], other, difference)
    whole = _read_sums(found[0])
    for each in found[1:]:
        measurement = _read_sums(each)
        if not same_projections(whole.projections, measurement.projections):
            raise _other_analysis(found[0], each, "other layers, widths or adapters")
        try:
            whole = whole + measurement
        except ValueError as error:
            raise InputError(f"{each.path} cannot be added to the shards before it: {error}") from error
    spec = found[0].spec
    if whole.n_batches != spec.n_batches:
        raise InputError(
            f"the shards hold {whole.n_batches} batches of {spec.n_batches}",
            "one of them is not what it says: analyse again",
        )
    provenance = replace(spec.record.provenance, shard=None)
    return tabulate(replace(spec, record=replace(spec.record, provenance=provenance)), whole)


def _check_complete(found: Sequence[_SavedShard]) -> None:
    if not found:
        raise InputError("there is no shard to merge", "give the directories that anglekit analyze --shard wrote")
    of = found[0].shard.of
    for one, other in itertools.pairwise(found):
        if other.shard.of != of:
            raise InputError(
                f"{found[0].path} is shard {found[0].shard} and {other.path} shard {other.shard}",
                "give shards of one split",
            )
        if one.shard.number == other.shard.number:
            raise InputError(f"{one.path} and {other.path} are both shard {one.shard}", "give every shard once")
    missing = sorted(set(range(1, of + 1)) - {each.shard.number for each in found})
    if missing:
        names = ", ".join(f"{number}/{of}" for number in missing[:10]) + (", ..." if len(missing) > 10 else "")
        kind = "shard" if len(missing) == 1 else "shards"
        raise InputError(f"{kind} {names} missing", f"give all {of}, each made by anglekit analyze --shard")


def _other_analysis(first: _SavedShard, other: _SavedShard, difference: str) -> InputError:
    return InputError(
        f"{other.path} cannot be joined with {first.path}: it was analysed with {difference}",
        "merge shards of one analysis",
    )


def _read_shard(directory: Path) -> _SavedShard:
    file = directory / SHARD_FILE
    if not directory.is_dir():
        raise InputError(
            f"no directory {directory}{near_path(directory)}", "give one that anglekit analyze --shard wrote"
        )
    try:
        document = read_json_object(file, _AGAIN)
    except FileNotFoundError as error:
        raise InputError(
            f"{directory} holds no sums to merge", "give directories that anglekit analyze --shard wrote"
        ) from error
    if document.get("format") != _FORMAT:
        held = str(document.get("format"))[:40]
        raise InputError(f"{file} has format {held!r}", f"this anglekit reads {_FORMAT!r}")
    if document.pop("sha256", None) != _document_hash(document):
        raise InputError(f"{file} is damaged (its contents were changed)", _AGAIN)
    told = convert_document(document, ShardDocument, str(file), _AGAIN)
    return _SavedShard(directory, Shard(told.shard, told.of), told.sums_sha256, told.spec)


def _read_sums(each: _SavedShard) -> Measurement:
    file = each.path / SUMS_FILE
    try:
        changed = _file_hash(file) != each.sums_sha256
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror})", _AGAIN) from error
    if changed:
        raise InputError(f"{file} is not the one that {each.path / SHARD_FILE} describes", _AGAIN)
    return read_measurement(file, each.spec)


def _file_hash(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _document_hash(document: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
