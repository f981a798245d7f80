"""Directories that one process at a time may write."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from anglekit.errors import InputError


class DirectoryLock:
    """A directory that this process holds alone until `release`, by a locked file in it.

    The system unlocks the file when the process ends, however it ends; the lock file's presence alone says nothing.

    Args:
        directory: made where it is missing.
        name: of the lock file.
        holder: what may hold the directory, as the message calls it.

    Raises:
        InputError: another process, or another part of this one, holds it, or it cannot be written.
    """

    def __init__(self, directory: Path, name: str, *, holder: str = "run") -> None:
        self.directory = directory
        self.file = directory / name
        # Any thread may release it. A file that its holder removed before we locked it counts as held.
        self._lock = FileLock(self.file, timeout=0, thread_local=False)
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except Timeout as error:
            raise InputError(
                f"{directory} is in use by another {holder}", "wait for it or name another directory"
            ) from error
        except OSError as error:
            raise InputError(
                f"cannot write to {directory}: {error.strerror}", "name a directory you may write"
            ) from error

    def release(self) -> None:
        """Remove the lock file and let others have the directory; remove it if it is empty. Works once."""
        if not self._lock.is_locked:
            return
        # Removed while locked, so that no other process's file is removed; on Windows an open file cannot be: it stays.
        with suppress(OSError):
            self.file.unlink(missing_ok=True)
        self._lock.release()
        with suppress(OSError):
            self.directory.rmdir()

    def __enter__(self) -> DirectoryLock:
        return self

    def __exit__(self, *_error: object) -> None:
        self.release()
