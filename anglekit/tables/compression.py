"""Compressed text files -> what they hold, in a file that can be read more than once."""

from __future__ import annotations

import lzma
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

from anglekit.errors import InputError

#: By suffix, in any case: the kind of compression.
COMPRESSIONS: Final = {".gz": "gzip", ".bz2": "bz2", ".xz": "xz", ".zst": "zstd"}
_CHUNK_BYTES: Final = 1 << 20
#: Bytes that stay in memory; what is more goes to the system's temporary directory.
_IN_MEMORY: Final = 4 << 20
# A small file may claim anything; texts seldom shrink to a tenth.
_BYTES_PER_BYTE, _MORE_BYTES = 200, 1 << 28


def without_compression(name: str) -> str:
    """Return a file's name without the suffix of its compression."""
    path = Path(name)
    return path.stem if path.suffix.lower() in COMPRESSIONS else path.name


@contextmanager
def opened(path: Path, source: str, first_bytes: int | None = None) -> Iterator[IO[bytes]]:
    """Open a file for reading, what it holds where it is compressed; of that the whole lines of the first bytes.

    Raises:
        InputError: it is no archive of its kind, ends early, or holds far more than its size.
    """
    kind = COMPRESSIONS.get(path.suffix.lower())
    if kind is None:
        with path.open("rb") as handle:
            yield handle
        return
    with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY) as plain:
        _unpack(path, source, kind, plain, first_bytes)
        plain.seek(0)
        yield plain


def _unpack(path: Path, source: str, kind: str, plain: Any, first_bytes: int | None) -> None:  # noqa: ANN401 - a file of bytes
    most = _BYTES_PER_BYTE * path.stat().st_size + _MORE_BYTES
    written = 0
    try:
        with _stream(path, kind) as packed:
            while chunk := packed.read(_CHUNK_BYTES):
                written += len(chunk)
                if written > most:
                    raise InputError(
                        f"{source} holds more than {most:,} bytes in {path.stat().st_size:,}",
                        "unpack it, and look at it",
                    )
                if first_bytes is not None and written > first_bytes:
                    plain.write(chunk[: chunk.rfind(b"\n") + 1])
                    return
                plain.write(chunk)
    except (EOFError, lzma.LZMAError, OSError) as error:
        reason = " ".join(str(error).split())
        if isinstance(error, EOFError) or "truncated" in reason.lower():
            raise InputError(
                f"{source} ends early: the {kind} stream is cut off after {written:,} bytes of text",
                "copy or download it again",
            ) from error
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise InputError(
            f"{source} is not a readable {kind} file: {reason}",
            f"pack it again, or name it without {path.suffix} if it is plain text",
        ) from error


def _stream(path: Path, kind: str) -> Any:  # noqa: ANN401 - pyarrow has no types
    if kind == "xz":
        return lzma.open(path, "rb")
    import pyarrow as pa

    return pa.CompressedInputStream(pa.OSFile(str(path)), kind)
