"""Which checkpoint is meant and in which role; how it is loaded: where to, how precisely, and what is allowed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from anglekit.errors import InputError
from anglekit.runtime.files import read_document
from anglekit.runtime.placement import AUTO, AUTO_HELP, Placement, check_device, chosen_device
from anglekit.settings_fields import HARDWARE, LOADING, check_settings, documented, setting
from anglekit.vocabulary import PRECISIONS, STUDENT_FILE, Stream


@documented
@dataclass(frozen=True)
class LoadOptions:
    """How checkpoints are loaded.

    `placement` says how a model too large for one device is spread, offloaded or quantised. `blocks` says how many of
    the first blocks of each stream are held (None: all); `load_checkpoint` reads it.

    Raises:
        InputError: an unknown dtype or a device that is not there.
    """

    device: str = setting(AUTO, f"Where to compute: {AUTO_HELP}; or cpu, cuda, cuda:1, mps.", group=HARDWARE)
    dtype: str = setting(
        "float32", "Type of the models' weights: float32, bfloat16 or float16.", names=PRECISIONS, group=HARDWARE
    )
    revision: str | None = setting(None, "Branch, tag or commit of hub checkpoints.", group=LOADING)
    allow_pickle: bool = setting(False, "Accept pickled weights, which can run code when read.", group=LOADING)
    trust_remote_code: bool = setting(False, "Accept checkpoints that bring their own code.", group=LOADING)
    placement: Placement = field(default_factory=Placement)
    blocks: Mapping[Stream, int] | None = None

    def __post_init__(self) -> None:
        check_settings(self)
        if self.device != AUTO:
            check_device(self.device, "device")

    @property
    def place(self) -> str:
        """The device on which a model is put that is not spread."""
        return chosen_device(self.device)


def loaded_for_training(load: LoadOptions | None) -> LoadOptions:
    """Return how a run loads its models where nothing says where to: it moves them itself to where it trains."""
    load = load or LoadOptions()
    return replace(load, device="cpu") if load.device == AUTO else load


def checkpoint_of(source: str) -> str:
    """Return the checkpoint inside a run directory, or the source itself."""
    inner = Path(source) / "checkpoint"
    return str(inner) if not (Path(source) / "config.json").exists() and (inner / "config.json").is_file() else source


def checkpoint_name(source: str) -> str:
    """Return the last part of a path or hub id, or for a run's checkpoint the run's name, which tells runs apart."""
    directory = Path(source)
    if not directory.is_dir():
        return source.rstrip("/").split("/")[-1]
    place = directory.resolve()
    in_a_run = place.name == "checkpoint" and (place.parent / "run_config.json").is_file()
    return place.parent.name if in_a_run else place.name


class _TaughtBy(msgspec.Struct, frozen=True):
    """The part of a student's record (`STUDENT_FILE`) that says whose student it is."""

    teacher: str | None = None


def recorded_teacher(source: str) -> str | None:
    """Return the teacher of a checkpoint as its run named it; None where it has no record.

    Raises:
        InputError: the record is damaged.
    """
    note = Path(checkpoint_of(source)) / STUDENT_FILE
    return read_document(note, _TaughtBy, "remove it or save the student again").teacher if note.is_file() else None


def same_checkpoint(one: str, other: str) -> bool:
    """Return whether two sources are one directory or one hub id; a run directory is its checkpoint."""
    first, second = checkpoint_of(one), checkpoint_of(other)
    if Path(first).is_dir() and Path(second).is_dir():
        return Path(first).resolve() == Path(second).resolve()
    return first == second


def check_roles(teacher: str, student: str) -> None:
    """Refuse what cannot be a teacher and its student, as far as their names and a run's record tell; reads no model.

    Raises:
        InputError: both are one checkpoint, or the teacher was taught by the student.
    """
    if same_checkpoint(teacher, student):
        raise InputError(f"teacher and student are one checkpoint, {student}", "give two different ones")
    taught_by = recorded_teacher(teacher)
    if taught_by is not None and same_checkpoint(taught_by, student):
        raise InputError(
            f"{teacher} came as the teacher and {student} as its student, and {teacher} was taught by {student}",
            f"give them the other way round: {student} is the teacher",
        )
