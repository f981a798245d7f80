"""The directory of a reproduction: what it was begun with, which stages are done, and who may write it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from anglekit.errors import InputError
from anglekit.runtime.files import half_written, read_json_object, write_json
from anglekit.runtime.locks import DirectoryLock

__all__ = ["ReproductionDirectory"]

_FORMAT: Final = "anglekit-reproduction-1"
_FILE: Final = "reproduce.json"
_LOCK: Final = "reproduce.lock"
_OWN: Final = (
    *(_FILE, _LOCK, "data", "untrained", "untrained.partial", "teacher"),
    *("corpus.md", "scores.csv", "result.csv", "result.json", "figure.png"),
)
_OWN_STARTS: Final = (
    "sweep-",
    "alone-",
    "geometry-",
    ".geometry-",
    ".untrained-",
    ".reproduce.json-",
    ".corpus.md-",
    ".scores.csv-",
    ".result.",
    ".figure.png-",
)


class ReproductionDirectory:
    """A directory that this process holds alone until `close`; what was begun in it goes on.

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
            foreign = sorted(entry.name for entry in self.path.iterdir() if not _is_own(entry.name))
            if foreign or (
                any(self.path.iterdir()) and not any((self.path / name).exists() for name in (_FILE, _LOCK))
            ):
                what = foreign[0] if foreign else "other runs"
                raise InputError(f"{self.path} holds {what} and no reproduction", "name a new or empty directory")
        self._lock = DirectoryLock(self.path, _LOCK, holder="reproduction")
        try:
            self._content = self._read(overwrite)
        except InputError:
            self.close()
            raise

    def begin(self, content: Mapping[str, Any], incidental: Mapping[str, Any]) -> bool:
        """Write what a reproduction is begun with, or check that the one that is there was begun with the same.

        Args:
            content: what decides the result.
            incidental: what does not.

        Returns:
            Whether it goes on.

        Raises:
            InputError: it names the first difference.
        """
        for left in (self.path, self.path / "data"):
            _remove_half_written(left)
        asked = json.loads(json.dumps(content))
        if self._content:
            if found := next(_differences(asked, self._content["begun_with"]), None):
                raise InputError(
                    f"{self.path} holds another reproduction ({found})",
                    "go on with its own recipe and options, name another directory, or use --overwrite",
                )
            self._content["incidental"] = dict(incidental)
        else:
            self._content = {"format": _FORMAT, "begun_with": asked, "incidental": dict(incidental), "stages": {}}
        self._write()
        return bool(self._content["stages"])

    def done(self, stage: str) -> bool:
        """Whether a stage was ended here."""
        return stage in self._content["stages"]

    @property
    def seconds(self) -> dict[str, float]:
        """What each stage took that was ended, in its last session."""
        return {name: float(one["seconds"]) for name, one in self._content["stages"].items()}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Record a stage as done when the block has ended well."""
        start = time.perf_counter()
        yield
        self._content["stages"][name] = {"seconds": round(time.perf_counter() - start, 3)}
        self._write()

    def close(self) -> None:
        """Let other processes have the directory; one that holds nothing is removed."""
        self._lock.release()

    def __enter__(self) -> ReproductionDirectory:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _write(self) -> None:
        write_json(self.path / _FILE, self._content)

    def _read(self, overwrite: bool) -> dict[str, Any]:
        file = self.path / _FILE
        if overwrite:
            # First, so that a kill in the middle leaves nothing that looks like it could go on.
            file.unlink(missing_ok=True)
            for entry in self.path.iterdir():
                if entry.name != _LOCK:
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        if not file.exists():
            return {}
        try:
            content = read_json_object(file, "start again with --overwrite")
            stages = content["stages"] if content["format"] == _FORMAT else {"": {"seconds": -1}}
            usable = isinstance(content["begun_with"], dict) and all(
                float(one["seconds"]) >= 0 for one in stages.values()
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{file} is damaged ({type(error).__name__})", "start again with --overwrite") from error
        if not usable:
            raise InputError(f"{file} is damaged", "start again with --overwrite")
        return dict(content)


def _remove_half_written(directory: Path) -> None:
    """Remove what a killed process was writing: hidden, under names that are given once."""
    for entry in (*directory.glob(".*"), *half_written(directory, "untrained")):
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def _is_own(name: str) -> bool:
    return name in _OWN or name.startswith(_OWN_STARTS)


def _differences(here: Any, there: Any, key: str = "") -> Iterator[str]:  # noqa: ANN401 - json
    """Yield in words what differs between two json values."""
    if isinstance(here, dict) and isinstance(there, dict):
        for name in dict.fromkeys((*here, *there)):
            inner = f"{key}.{name}" if key else name
            yield from _differences(here.get(name, "absent"), there.get(name, "absent"), inner)
    elif here != there:
        yield f"{key}: {str(here)[:80]} here, {str(there)[:80]} there"
