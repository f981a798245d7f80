"""The directory of one training run: who may write it, what lies in it, and when it is finished.

run_config.json   the settings of the run
plan.json         the plan of a distilled student
metrics.jsonl     a line for every log and validation
provenance.json   versions, data and teacher hashes
checkpoint/       the student: an ordinary checkpoint, with its tokenizer and adapters
scores.json       written last: a run that has it is finished
training/         what is needed to resume; gone when the run is finished
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from anglekit.errors import InputError, RunError, suggest
from anglekit.runtime.files import half_written, read_json_object, write_json
from anglekit.runtime.locks import DirectoryLock

__all__ = ["IfExists", "RunDirectory", "check_same_run", "read_json"]

IfExists = Literal["refuse", "resume", "overwrite"]

_CONFIG, _PLAN, _SCORES, _PROVENANCE = "run_config.json", "plan.json", "scores.json", "provenance.json"
_LOCK = "run.lock"
_BEGIN_AGAIN = "use --overwrite to start the run again"
_METRICS = "metrics.jsonl"
_FILES = (_CONFIG, _PLAN, _SCORES, _PROVENANCE, _METRICS)
_OWN = {*_FILES, _LOCK, "checkpoint", "checkpoint.partial", "training"}


def read_json(path: Path) -> dict[str, Any]:
    """Read a json object.

    Raises:
        InputError: the file is absent or damaged.
    """
    try:
        return read_json_object(path, _BEGIN_AGAIN)
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing", _BEGIN_AGAIN) from error


class RunDirectory:
    """A run directory that this process holds alone until `close`.

    Args:
        path: the directory; made if absent.
        if_exists: what to do with a run that is already there: "refuse" it, "resume" it, or "overwrite" it.
        writes: whether this process writes; one that does not, because another one does, holds nothing and reads alone.
            None: of several processes that `accelerate launch` starts, the first one.

    Attributes:
        resumes: whether a run that is there goes on.
        writes: whether this process writes; the others of a distributed run do not.

    Raises:
        InputError: another process holds it, it holds a run and may not, or it holds something else. Nothing is
            changed: what is overwritten goes when the new run begins.
    """

    def __init__(self, path: str | Path, if_exists: str = "refuse", *, writes: bool | None = None) -> None:
        if if_exists not in get_args(IfExists):
            raise InputError(f"no way {if_exists!r} to treat a run", allowed=suggest(if_exists, get_args(IfExists)))
        self.path = Path(path)
        self.resumes = if_exists == "resume"
        self.writes = os.environ.get("RANK", "0") == "0" if writes is None else writes
        self._lock: DirectoryLock | None = None
        if not self.writes:
            return
        self._check_foreign()
        self._lock = DirectoryLock(self.path, _LOCK)
        try:
            self._check_run(if_exists)
        except InputError:
            self.close()
            raise
        if self.resumes:
            self._remove_left_over()

    @property
    def checkpoint(self) -> Path:
        """Where the finished student lies."""
        return self.path / "checkpoint"

    @property
    def training(self) -> Path:
        """Where `Trainer` keeps what it needs to resume."""
        return self.path / "training"

    @property
    def metrics(self) -> Path:
        """The file of logs and validations."""
        return self.path / _METRICS

    @property
    def started(self) -> bool:
        """Whether a run was begun here."""
        return (self.path / _CONFIG).exists()

    @property
    def finished(self) -> bool:
        """Whether a run ended here."""
        return (self.path / _SCORES).exists()

    def config(self) -> dict[str, Any]:
        """Return the settings that the run was begun with."""
        return read_json(self.path / _CONFIG)

    def plan(self) -> dict[str, Any]:
        """Return the plan that the run was begun with."""
        return read_json(self.path / _PLAN)

    def scores(self) -> dict[str, Any]:
        """Return the final scores.

        Raises:
            InputError: the file is damaged, or holds something else.
        """
        content = read_json(self.path / _SCORES)
        rows = content.get("scores")
        numbers: list[Any] = [content.get(name) for name in ("steps", "selected_step", "train_seconds")]
        if (
            not isinstance(rows, list)
            or not all(isinstance(row, dict) and all(map(_is_plain, row.values())) for row in rows)
            or not all(type(number) in (int, float) and 0 <= number < 2**62 for number in numbers)
        ):
            raise InputError(f"{self.path / _SCORES} does not hold the scores of a run", _BEGIN_AGAIN)
        return content

    def begin(self, config: Mapping[str, Any], plan: Mapping[str, Any] | None, provenance: Mapping[str, Any]) -> None:
        """Remove a run that is to be overwritten and write what the new one starts from.

        The settings are removed first and written last, for they mark a run as begun.
        """
        if not self.writes:
            return
        self.clear()
        if plan is not None:
            write_json(self.path / _PLAN, plan)
        write_json(self.path / _PROVENANCE, provenance)
        write_json(self.path / _CONFIG, config)

    def clear(self) -> None:
        """Remove a run, its settings first; what else lies in the directory stays."""
        (self.path / _CONFIG).unlink(missing_ok=True)
        own = [self.path / name for name in _OWN - {_LOCK}] + half_written(self.path, *_FILES)
        for entry in own:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink(missing_ok=True)

    def finish(self, scores: Mapping[str, Any], provenance: Mapping[str, Any]) -> None:
        """Put the complete checkpoint in its place, write the scores and remove what only resuming needs."""
        if not self.writes:
            return
        if self.checkpoint.exists():
            shutil.rmtree(self.checkpoint)
        self.partial_checkpoint.rename(self.checkpoint)
        write_json(self.path / _PROVENANCE, provenance)
        write_json(self.path / _SCORES, scores)
        if self.training.exists():
            shutil.rmtree(self.training)

    @property
    def partial_checkpoint(self) -> Path:
        """Where a checkpoint is written before it is complete."""
        return self.path / "checkpoint.partial"

    def close(self) -> None:
        """Let other processes have the directory; one that holds nothing is removed."""
        if self._lock is None:
            return
        if self.training.is_dir() and not any(self.training.iterdir()):
            self.training.rmdir()
        self._lock.release()
        self._lock = None

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _check_foreign(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path} is a file", "name a directory for the run")
        if not self.path.is_dir():
            return
        own = {*(self.path / name for name in _OWN), *half_written(self.path, *_FILES)}
        foreign = sorted(entry.name for entry in self.path.iterdir() if entry not in own)
        if foreign and not self.started:
            raise InputError(
                f"{self.path} holds {foreign[0]!r} and no run of anglekit", "name a new or empty directory"
            )

    def _remove_left_over(self) -> None:
        """Remove what a killed run was writing, and what one that had just ended did not come to remove."""
        for entry in half_written(self.path, *_FILES):
            entry.unlink()
        for directory in (self.training, self.partial_checkpoint) if self.finished else ():
            if directory.exists():
                shutil.rmtree(directory)

    def _check_run(self, if_exists: str) -> None:
        if if_exists == "refuse" and self.finished:
            raise InputError(f"{self.path} holds a finished run", "name another directory, or use --overwrite")
        if if_exists == "refuse" and self.started:
            raise InputError(f"{self.path} holds an unfinished run", "use --resume to go on, or --overwrite")


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, str | int | float)


def check_same_run(directory: RunDirectory, config: Mapping[str, Any], differences: tuple[str, ...]) -> None:
    """Check that a run may go on under this configuration.

    Args:
        directory: of the run that was begun.
        config: of the run that is asked for.
        differences: between the two plans, in words.

    Raises:
        InputError: it names the first difference.
        RunError: the run was begun by something that wrote another format.
    """
    stored = directory.config()
    if stored.get("format") != config.get("format"):
        raise RunError(
            f"{directory.path} was written in format {stored.get('format')!r}; expected {config['format']!r}"
        )
    compared = {key for key in (*stored, *config) if key not in ("format", "incidental")}
    changed = [
        f"{key}: {config.get(key, 'absent')} here, {stored.get(key, 'absent')} there"
        for key in sorted(compared)
        if config.get(key) != stored.get(key)
    ]
    found = [*differences, *changed]
    if found:
        raise InputError(
            f"{directory.path} holds another run ({found[0]})",
            "resume it with its own settings, name another directory, or use --overwrite",
        )
