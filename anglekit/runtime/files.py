"""Files that are whole or absent, whatever happens while they are written."""

from __future__ import annotations

import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any, Final

from anglekit.errors import InputError, RunError

__all__ = ["MOST_JSON_BYTES", "read_json_object", "write_whole"]


#: The largest file that is read by default. Parsed, json takes up to about twenty times its size.
MOST_JSON_BYTES: Final = 8 << 20

_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")


def read_json_object(file: Path, remedy: str, *, most_bytes: int = MOST_JSON_BYTES) -> dict[str, Any]:
    """Read a file that holds one json object.

    Args:
        file: which.
        remedy: what to do where it is damaged, as the end of the message.
        most_bytes: a larger one is refused unread.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: it is no regular file, too large, not UTF-8, not json, nested too deeply, or another value; or a
            text in it is none (half of a surrogate pair).
    """
    try:
        if file.exists() and not file.is_file():
            raise ValueError("it is not a regular file")
        with file.open("rb") as stream:
            content = stream.read(most_bytes + 1)
        if len(content) > most_bytes:
            raise ValueError(f"it is larger than {most_bytes >> 20} MiB")
        text = content.decode("utf-8")
        found = json.loads(text)
        if _SURROGATE.search(text):
            json.dumps(found, ensure_ascii=False).encode("utf-8")
    except FileNotFoundError:
        raise
    except UnicodeEncodeError as error:
        raise InputError(f"{file} holds half of a surrogate pair, which is no text", remedy) from error
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file} is not readable json ({error})", remedy) from error
    if not isinstance(found, dict):
        raise InputError(f"{file} is not a json object", remedy)
    return found


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
