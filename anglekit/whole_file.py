"""Files that are whole or absent, whatever happens while they are written."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from anglekit.errors import RunError

__all__ = ["write_whole"]


def write_whole(target: Path, content: str | bytes) -> None:
    """Write a file beside its final name and rename it, its folder made where it is missing.

    Args:
        target: the file; one that is there is replaced.
        content: bytes, or text that is written as UTF-8 with its line ends as they are.

    Raises:
        RunError: the folder or the file cannot be written; what was there before stays.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}-", dir=target.parent)
    except OSError as error:
        raise RunError(f"cannot write beside {target}: {error.strerror}") from error
    scratch = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content.encode("utf-8") if isinstance(content, str) else content)
        # A temporary file is private; the result gets the rights that any new file gets.
        mask = os.umask(0)
        os.umask(mask)
        scratch.chmod(0o666 & ~mask)
        scratch.replace(target)
    except OSError as error:
        raise RunError(f"cannot write {target}: {error.strerror}") from error
    finally:
        scratch.unlink(missing_ok=True)
