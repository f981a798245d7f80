"""Files and directories that are whole or absent, and documents that are read within bounds."""

from __future__ import annotations

import difflib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from anglekit.errors import InputError, RunError

Document = TypeVar("Document")

#: The largest file that is read by default. Once parsed, json takes up to about twenty times its size.
MOST_JSON_BYTES: Final = 8 << 20

_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")
# What `tempfile` puts behind a prefix, with `-old` for a directory while it is being replaced.
_SCRATCH_END: Final = r"-[a-z0-9_]{8}(-old)?"


def read_json_object(file: Path, remedy: str, *, most_bytes: int = MOST_JSON_BYTES) -> dict[str, Any]:
    """Read a file that holds one json object; if it is damaged, the message ends with `remedy`.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: it is not a regular file, too large, not UTF-8, not json, nested too deeply, or no object; or a text
            in it holds half of a surrogate pair.
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


def near_path(path: Path) -> str:
    """Return in words, for a message, what lies nearest to a path that is not there; "" where nothing is near."""
    missing = path
    while not missing.parent.is_dir():
        missing = missing.parent
    try:
        names = [entry.name for entry in missing.parent.iterdir()]
    except OSError:
        return ""
    near = difflib.get_close_matches(missing.name, names, n=1)
    return f" (did you mean {str(missing.with_name(near[0]))!r}?)" if near else ""


def names_told_apart(places: Sequence[Path]) -> list[str]:
    """Return what directories are called: their last names, with as many of those above as tell them apart.

    Args:
        places: absolute paths. `a/run` and `b/run` are called so, `c/other` beside them is `other`; one place that is
            there twice has one name.
    """

    def ends(place: Path, length: int) -> tuple[str, ...]:
        return place.parts[-length:]

    names = []
    for place in places:
        length = 1
        while any(other != place and ends(other, length) == ends(place, length) for other in places):
            length += 1
        names.append(str(Path(*ends(place, length))))
    return names


def read_document(file: Path, kind: type[Document], remedy: str, *, most_bytes: int = MOST_JSON_BYTES) -> Document:
    """Read a json object as a typed document, as `read_json_object` and `convert_document` do."""
    return convert_document(read_json_object(file, remedy, most_bytes=most_bytes), kind, str(file), remedy)


def convert_document(content: object, kind: type[Document], source: str, remedy: str) -> Document:
    """Convert what a json or yaml parser gave to a msgspec Struct, a dataclass or a TypedDict.

    Keys that the type does not name are ignored, unless it is a Struct that forbids them.

    Raises:
        InputError: a value is missing or of another type; the message begins with `source`, names the value's place
            (`arms[0].seed`) and ends with `remedy`.
    """
    try:
        return msgspec.convert(content, kind)
    except InputError as error:  # from the document's own __post_init__
        raise InputError(
            f"{source}: {error.arrived}", error.remedy or remedy, allowed=error.allowed, setting=error.setting
        ) from error
    except msgspec.ValidationError as error:
        # msgspec tells the place only in its message: "Expected `int`, got `str` - at `$.arms[0].seed`".
        reason, _, place = str(error).replace("`", "").partition(" - at $")
        reason = reason.removeprefix("Object ")
        where = f"{place.lstrip('.')}: " if place else ""
        raise InputError(f"{source} is damaged ({where}{reason[:1].lower()}{reason[1:]})", remedy) from error


def write_json(target: Path, content: object) -> None:
    """Write a json file as `write_whole` does, indented by two; Structs and dataclasses become objects."""
    text = json.dumps(content, indent=2, ensure_ascii=False, default=msgspec.to_builtins)
    write_whole(target, f"{text}\n")


def write_whole(target: Path, content: str | bytes) -> None:
    """Write a file beside its final name and rename it; make its folder if it is missing.

    An existing file is replaced; text becomes UTF-8, and line ends stay as they are.

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
        scratch.chmod(0o666 & ~_umask())
        scratch.replace(target)
    except OSError as error:
        raise RunError(f"cannot write {target}: {error.strerror}") from error
    finally:
        scratch.unlink(missing_ok=True)


def check_replaceable(target: Path, mark: str, *, overwrite: bool) -> None:
    """Check that a directory may be written: it is not there or empty, or it may be replaced and holds the file `mark`.

    Raises:
        InputError: it may not be written, so that a mistyped path removes nobody's files.
    """
    if not target.exists():
        if target.is_symlink():
            raise InputError(f"{target} is a link to what does not exist", "choose another directory")
        return
    if not target.is_dir():
        raise InputError(f"{target} is a file", "choose another directory")
    if not overwrite:
        raise InputError(f"{target} exists", "choose another directory, or replace it with --overwrite")
    if not (target / mark).exists() and (held := min((entry.name for entry in target.iterdir()), default=None)):
        raise InputError(f"{target} holds {held!r} and no {mark}, and is not replaced", "choose another directory")


@contextmanager
def whole_directory(target: Path, mark: str, *, overwrite: bool = False, scratch: Path | None = None) -> Iterator[Path]:
    """Yield an empty directory; it gets its final name at the end of the block, or is removed if the block fails.

    With `overwrite`, a target that holds the file `mark` is replaced when the new directory is whole. Until then the
    directory has the name `scratch`, where the caller finds what a killed process leaves: an unused name on the same
    file system, or (None) a hidden one beside the target.

    Raises:
        InputError: `target` is there and may not be replaced, as `check_replaceable` says.
        RunError: something cannot be written; what was there before stays.
    """
    check_replaceable(target, mark, overwrite=overwrite)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if scratch is None:
            scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        else:
            scratch.mkdir()
    except OSError as error:
        raise RunError(f"cannot write beside {target}: {error.strerror}") from error
    try:
        yield scratch
        scratch.chmod(0o777 & ~_umask())
        if target.exists():
            retired = scratch.with_name(f"{scratch.name}-old")
            target.rename(retired)
            scratch.rename(target)
            shutil.rmtree(retired) if retired.is_dir() else retired.unlink()
        else:
            scratch.rename(target)
    except OSError as error:
        raise RunError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        if scratch.exists():
            shutil.rmtree(scratch)


def half_written(directory: Path, *names: str) -> list[Path]:
    """Return the unfinished files and directories of these names that a killed process left in a directory."""
    every = "|".join(map(re.escape, names))
    # Earlier versions wrote NAME.partial.
    left = re.compile(rf"\.({every}){_SCRATCH_END}|({every})\.partial")
    return sorted(path for path in directory.iterdir() if left.fullmatch(path.name)) if directory.is_dir() else []


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
