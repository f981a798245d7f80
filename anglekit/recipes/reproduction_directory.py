"""The directory of a reproduction: what it was begun with, which stages are done, and who may write it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec

from anglekit.errors import InputError
from anglekit.runtime.files import half_written, read_document, write_json
from anglekit.runtime.locks import DirectoryLock

_FORMAT: Final = "anglekit-reproduction-1"
_FILE: Final = "reproduce.json"
_LOCK: Final = "reproduce.lock"
_RESULT: Final = "result.json"
_OWN: Final = (
    *(_FILE, _LOCK, "data", "untrained", "untrained.partial", "teacher"),
    *("corpus.md", "scores.csv", "result.csv", _RESULT, "figure.png"),
)
_OWN_STARTS: Final = (
    *("sweep-", "alone-", "geometry-", ".geometry-", ".untrained-", ".reproduce.json-", ".corpus.md-"),
    *(".scores.csv-", ".result.", ".figure.png-"),
)


class _Stage(msgspec.Struct):
    """A stage that is done."""

    seconds: Annotated[float, msgspec.Meta(ge=0)]


class _Record(msgspec.Struct):
    """What a reproduction's file holds: what affects the result, what does not, and the stages that are done."""

    format: Literal["anglekit-reproduction-1"]
    begun_with: dict[str, Any]
    incidental: dict[str, Any]
    stages: dict[str, _Stage]


class _Result(msgspec.Struct):
    """What is read of a reproduction's result; earlier versions wrote no confounds."""

    recipe: str
    confounds: list[str] = []


def confounds_beside(directory: str | Path) -> tuple[str, ...]:
    """Return the confounds of the reproduction whose sweep or Geometry a directory is, each behind its recipe's name.

    There are none where it is of no reproduction, or of one that has not ended.

    Raises:
        InputError: the reproduction's result is damaged.
    """
    place = Path(directory).resolve().parent
    file = place / _RESULT
    if not ((place / _FILE).is_file() and file.is_file()):
        return ()
    result = read_document(file, _Result, "run the reproduction again: what is done is kept")
    return tuple(f"{result.recipe}: {one}" for one in result.confounds)


class ReproductionDirectory:
    """A directory that this process holds alone until `close`; a reproduction begun in it is resumed.

    Args:
        path: made where it is missing.
        overwrite: whether what is there is removed first.

    Raises:
        InputError: another process holds it, or it holds something else.
    """

    def __init__(self, path: str | Path, *, overwrite: bool = False) -> None:
        self.path = Path(path)
        if any(parent.exists() and not parent.is_dir() for parent in (self.path, *self.path.parents)):
            raise InputError(f"{self.path} is a file or lies below one", "name a directory with --out")
        if self.path.is_dir():
            names = sorted(entry.name for entry in self.path.iterdir())
            foreign = [name for name in names if name not in _OWN and not name.startswith(_OWN_STARTS)]
            if foreign or (names and _FILE not in names and _LOCK not in names):
                what = foreign[0] if foreign else "other runs"
                raise InputError(f"{self.path} holds {what} and no reproduction", "name a new or empty directory")
        self._begun_here = False
        self._lock = DirectoryLock(self.path, _LOCK, holder="reproduction")
        try:
            self._record = self._read(overwrite)
        except InputError:
            self.close()
            raise

    def begin(
        self, content: Mapping[str, Any], incidental: Mapping[str, Any], defaults: Mapping[str, Any] | None = None
    ) -> bool:
        """Write what a reproduction is begun with, or check that the one that is there was begun with the same.

        `content` affects the result, `incidental` does not. A value that is absent on one side is taken from `defaults`
        by its place, such as "recipe.students.training.data_seed". Returns whether a reproduction is resumed.

        Raises:
            InputError: it names the first difference.
        """
        for place in (self.path, self.path / "data"):
            # What a killed process left half written.
            for left in (*place.glob(".*"), *half_written(place, "untrained")):
                shutil.rmtree(left) if left.is_dir() else left.unlink()
        asked = json.loads(json.dumps(content))
        if self._record is None:
            self._record = _Record(_FORMAT, asked, {}, {})
            self._begun_here = True
        if found := next(_differences(asked, self._record.begun_with, defaults or {}), None):
            raise InputError(
                f"{self.path} holds another reproduction ({found})",
                "go on with its own recipe and options, name another directory, or use --overwrite",
            )
        self._record.incidental = dict(incidental)
        self._write()
        return bool(self._record.stages)

    def done(self, stage: str) -> bool:
        """Whether a stage is done here."""
        return stage in self._stages

    @property
    def seconds(self) -> dict[str, float]:
        """What each stage that is done took in its last session."""
        return {name: one.seconds for name, one in self._stages.items()}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Record a stage as done when the block has ended well."""
        start = time.perf_counter()
        yield
        self._stages[name] = _Stage(round(time.perf_counter() - start, 3))
        self._write()

    @property
    def _stages(self) -> dict[str, _Stage]:
        return {} if self._record is None else self._record.stages

    def close(self) -> None:
        """Release the directory to other processes; remove it if it is empty."""
        self._lock.release()

    def __enter__(self) -> ReproductionDirectory:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, InputError) and self._begun_here and not self._stages:
            # What was given was refused before anything was done: nothing may stand in the way of other tables.
            self._clear()
        self.close()

    def _write(self) -> None:
        write_json(self.path / _FILE, self._record)

    def _clear(self) -> None:
        """Remove all that is there; the lock is released by its holder."""
        # First, so that a kill in the middle leaves nothing that looks as if it could be resumed.
        (self.path / _FILE).unlink(missing_ok=True)
        for entry in self.path.iterdir():
            if entry.name != _LOCK:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()

    def _read(self, overwrite: bool) -> _Record | None:
        file = self.path / _FILE
        if overwrite:
            self._clear()
        if not file.exists():
            return None
        return read_document(file, _Record, "start again with --overwrite")


def _differences(here: Any, there: Any, defaults: Mapping[str, Any], key: str = "") -> Iterator[str]:  # noqa: ANN401
    """Yield in words what differs between two json values."""
    if isinstance(here, dict) and isinstance(there, dict):
        for name in dict.fromkeys((*here, *there)):
            inner = f"{key}.{name}" if key else name
            missing = defaults.get(inner, "absent")
            yield from _differences(here.get(name, missing), there.get(name, missing), defaults, inner)
    elif here != there:
        yield f"{key}: {str(here)[:80]} here, {str(there)[:80]} there"
