"""What an analysis has measured so far, kept beside its output so that a run that was killed goes on from there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from anglekit.analysis.measurement import Measurement, read_measurement, read_metadata, write_measurement
from anglekit.analysis.preparation import WHOLE, Shard
from anglekit.analysis.spec import AnalysisSpec, first_difference
from anglekit.errors import InputError, RunError
from anglekit.runtime.locks import DirectoryLock
from anglekit.runtime.processes import ALONE, Processes

_LOCK, _PROCESS, _SCRATCH = "lock", "process-", ".writing-"
_SPEC, _SHARD = "subject", "shard"
_STATES = "teacher-states"


def unfinished_directory(out: Path) -> Path:
    """Return where an analysis keeps what it has measured until `out` is there."""
    return out.with_name(f"{out.name}.unfinished")


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
            if entry.name.startswith(_STATES):
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

    def load(self, spec: AnalysisSpec) -> Measurement | None:
        """Return what this process had measured, or None where it had not written anything.

        Raises:
            InputError: the file is damaged, or of another part of the batches or another analysis; the message names
                the first difference.
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
            kept = msgspec.json.decode(metadata.get(_SPEC, ""), type=AnalysisSpec)
        except (msgspec.MsgspecError, RecursionError, InputError) as error:
            raise InputError(f"{self.file} is damaged ({error})", "remove it to begin anew") from error
        difference = first_difference(kept, spec)
        if difference is not None:
            raise self.other_analysis(difference)
        return read_measurement(self.file, spec)

    def other_analysis(self, difference: str) -> InputError:
        """Return the error that what was kept is of an analysis that differs in this."""
        return InputError(
            f"{self.directory} holds an unfinished analysis, and this is one with {difference}",
            "remove it to begin anew",
        )

    def save(self, spec: AnalysisSpec, measurement: Measurement) -> None:
        """Write this process's file, whole or not at all.

        Raises:
            RunError: it cannot be written; what was written before stays.
        """
        # In a folder of its own, for safetensors writes a file of another name first.
        scratch = self.directory / f"{_SCRATCH}{self.processes.rank + 1}" / self.file.name
        more = {_SPEC: msgspec.json.encode(spec).decode(), _SHARD: str(self.shard)}
        try:
            scratch.parent.mkdir(exist_ok=True)
            write_measurement(scratch, measurement, more)
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

    @property
    def teacher_states(self) -> Path:
        """Where the states of a teacher whose blocks stay in their files lie until the result is there."""
        return self.directory / _STATES

    def remove(self) -> None:
        """Remove what was kept: the result is there."""
        for entry in self.directory.iterdir():
            if entry.name.startswith((_PROCESS, _SCRATCH, _STATES)):
                _remove(entry)


def _remove(entry: Path) -> None:
    """Remove a file, or a directory with all that is in it."""
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry, ignore_errors=True)
    else:
        entry.unlink(missing_ok=True)
