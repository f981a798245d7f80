"""What an analysis has measured so far, kept beside its output so that a run that was killed goes on from there."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from anglekit.analysis.measurement import Measurement, read_measurement, read_metadata, write_measurement
from anglekit.analysis.preparation import WHOLE, Prepared, Shard
from anglekit.analysis.spec import Key, Subject, first_difference, subject_document, subject_of
from anglekit.errors import InputError, RunError
from anglekit.runtime.locks import DirectoryLock
from anglekit.runtime.processes import ALONE, Processes

__all__ = ["UnfinishedAnalysis", "projections_sha256", "unfinished_directory"]

_NO_MATRIX = torch.zeros(0)
_LOCK, _PROCESS, _SCRATCH = "lock", "process-", ".writing-"
_SUBJECT, _SHARD = "subject", "shard"


def unfinished_directory(out: Path) -> Path:
    """Return where an analysis keeps what it has measured until `out` is there."""
    return out.with_name(f"{out.name}.unfinished")


def projections_sha256(subject: Subject) -> str:
    """Return a hash of the matrices through which a subject is measured."""
    found = hashlib.sha256()
    for key in subject.keys:
        for matrix in subject.projections[key] or ():
            found.update(f"{key} {tuple(matrix.shape)};".encode() + matrix.contiguous().numpy().tobytes())
    return found.hexdigest()


@dataclass(frozen=True)
class UnfinishedAnalysis:
    """The kept measurements of an analysis, one file for each of its processes, each whole or as it was before.

    Attributes:
        directory: where they lie.
        every: batches after which a process writes its file again.
        shard: the part of the batches that the job takes.
        processes: of the job.
    """

    directory: Path
    every: int = 100
    shard: Shard = WHOLE
    processes: Processes = ALONE

    def __post_init__(self) -> None:
        if self.every < 1:
            raise InputError(f"--save-every {self.every} batches cannot be", "give 1 or more")

    @property
    def file(self) -> Path:
        """This process's file."""
        return self.directory / f"{_PROCESS}{self.processes.rank + 1}-of-{self.processes.count}.safetensors"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other runs out of the directory for the length of a block.

        Raises:
            InputError: it is in use, cannot be written, or holds something else or what another number of processes
                left.
        """
        with ExitStack() as stack:
            with self.processes.together():
                if self.processes.first:
                    if self.directory.exists() and not self.directory.is_dir():
                        raise InputError(
                            f"{self.directory} is a file", "--resume needs that name for what is measured: move it away"
                        )
                    stack.enter_context(DirectoryLock(self.directory, _LOCK))
                    self._check()
                    # What a failed run was writing goes before the directory is given up.
                    stack.callback(self._remove_scratch)
            yield

    def _check(self) -> None:
        """Check that nothing else lies in the directory, and remove what a killed run was writing."""
        self._remove_scratch()
        ending = f"-of-{self.processes.count}.safetensors"
        for entry in sorted(self.directory.iterdir()):
            if entry.name == _LOCK:
                continue
            if not entry.name.startswith(_PROCESS):
                raise InputError(f"{self.directory} holds {entry.name!r}, which is not of an analysis", "move it away")
            if not entry.name.endswith(ending):
                raise InputError(
                    f"{entry} was left by another number of processes than {self.processes.count}",
                    "start as many, or remove it to begin anew",
                )

    def _remove_scratch(self) -> None:
        for entry in self.directory.glob(f"{_SCRATCH}*"):
            _remove(entry)

    def load(self) -> tuple[Subject, Measurement] | None:
        """Return what this process had measured, or None where it had not written anything.

        Raises:
            InputError: the file is damaged, or of another part of the batches.
        """
        if not self.file.exists():
            return None
        metadata = read_metadata(self.file)
        if metadata.get(_SHARD) != str(self.shard):
            raise InputError(
                f"{self.file} was left by --shard {metadata.get(_SHARD)}, not {self.shard}",
                f"remove {self.directory} to begin anew",
            )
        try:
            subject = subject_of(json.loads(metadata.get(_SUBJECT, "")))
        except (ValueError, RecursionError, InputError) as error:
            raise InputError(f"{self.file} is damaged ({error})", "remove it to begin anew") from error
        return read_measurement(self.file, subject)

    def check_same(self, kept: Subject, subject: Subject) -> None:
        """Check that what was kept is of this analysis.

        Raises:
            InputError: it is not; the message names the first difference.
        """
        difference = first_difference(kept, subject)
        if difference is not None:
            raise self._other(difference)

    def projections(self, kept: Subject, prepared: Prepared) -> list[Mapping[Key, Tensor] | None]:
        """Return the projections of the run that was stopped, so that they need not be fitted again.

        Raises:
            InputError: they are not of these layers and widths.
        """
        projections = list(prepared.adapters)
        shapes = {position: (prepared.teacher.width, prepared.students[position].width) for position in prepared.fitted}
        if kept.layers != prepared.layers or any(
            matrix.shape != shapes[position]
            for position in prepared.fitted
            for stream in prepared.layers
            for matrix in kept.projections.get((stream, position)) or (_NO_MATRIX,)
        ):
            raise self._other("other layers, widths or adapters")
        for position in prepared.fitted:
            projections[position] = {
                (stream, vertex): matrix
                for stream, chosen in prepared.layers.items()
                for vertex, matrix in zip(
                    chosen.students[position], kept.projections[stream, position] or (), strict=True
                )
            }
        return projections

    def _other(self, difference: str) -> InputError:
        return InputError(
            f"{self.directory} holds an unfinished analysis, and this is one with {difference}",
            "remove it to begin anew",
        )

    def save(self, subject: Subject, measurement: Measurement) -> None:
        """Write this process's file, whole or not at all.

        Raises:
            RunError: it cannot be written; what was written before stays.
        """
        # In a folder of its own, for safetensors writes a file of another name first.
        scratch = self.directory / f"{_SCRATCH}{self.processes.rank + 1}" / self.file.name
        more = {_SUBJECT: json.dumps(subject_document(subject), ensure_ascii=False), _SHARD: str(self.shard)}
        try:
            scratch.parent.mkdir(exist_ok=True)
            write_measurement(scratch, subject, measurement, more)
            with scratch.open("rb") as written:
                os.fsync(written.fileno())
            scratch.replace(self.file)
            scratch.parent.rmdir()
        except OSError as error:
            _remove(scratch.parent)
            raise RunError(f"cannot write {self.file}: {error.strerror or error}") from error

    @property
    def result_scratch(self) -> Path:
        """Where the result is written before it is put in its place: what a kill leaves goes with the directory."""
        return self.directory / f"{_SCRATCH}result"

    def remove(self) -> None:
        """Remove what was kept: the result is there."""
        for entry in self.directory.iterdir():
            if entry.name.startswith((_PROCESS, _SCRATCH)):
                _remove(entry)


def _remove(entry: Path) -> None:
    """Remove a file, or a directory with all that is in it."""
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry, ignore_errors=True)
    else:
        entry.unlink(missing_ok=True)
