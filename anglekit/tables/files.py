"""Table files -> rows of plain Python values, every defect in one line."""

from __future__ import annotations

import codecs
import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from anglekit.errors import InputError
from anglekit.tables.arrow import parquet_class_names, read_parquet
from anglekit.tables.compression import COMPRESSIONS, opened
from anglekit.tables.delimited import Quoting, quoting_of, read_delimited
from anglekit.tables.json_rows import read_json, read_json_lines
from anglekit.tables.kept_rows import KeptRows, Rows
from anglekit.tables.sources import TableFiles
from anglekit.tables.table import Table

_CHUNK_BYTES: Final = 1 << 20
#: Of a compressed file, as many bytes hold its first rows.
_FIRST_BYTES: Final = 1 << 24
# Objects of json may lack keys; rows of these kinds have all columns.
_WITH_HEADER: Final = (".csv", ".tsv", ".parquet")


def read_table_files(
    files: TableFiles, limit: int | None = None, names: Sequence[str] | None = None, *, checked: bool = True
) -> Table:
    """Read files of one kind, one after another.

    Text files are checked whole (UTF-8, with or without a byte-order mark), while rows are parsed; what is no text is
    refused as such, whatever else is wrong with it. Values stay as the file has them: csv and tsv give strings only,
    so `NA` and `007` are text and an empty field is the empty string.

    Args:
        files: what to read.
        limit: the most rows; what follows is not parsed.
        names: the columns of csv and tsv files without a header.
        checked: whether files are checked whole and hashed; without it the hash is "".

    Raises:
        InputError: a file is unreadable, empty, binary, not UTF-8, malformed or cut off, or two files differ in their
            columns; the message names the file and the line, row or byte.
    """
    store, found = KeptRows(files.source), _Found()
    left = limit
    for path in files.paths:
        name, before = files.named(path), store.n_rows
        try:
            with _hashed(path, name, files.kind) if checked else nullcontext([""]) as hashes:
                for rows in _pieces(path, name, files.kind, left, names, found.notes, whole=checked):
                    if before and (other := set(rows.columns) ^ set(store.names)) and files.kind in _WITH_HEADER:
                        raise InputError(
                            f"{name} and {files.paths[0]} differ in their columns: {', '.join(sorted(other)[:8])}",
                            "give files of the same columns",
                        )
                    store.add(rows)
            found.hashes += hashes
        except OSError as error:
            raise InputError(f"{name} cannot be read: {error.strerror or error}") from error
        found.parts.append((name, store.n_rows - before))
        left = None if left is None else left - (store.n_rows - before)
    one = len(files.paths) == 1
    return Table(
        files.source,
        store,
        found.hashes[0] if one else hashlib.sha256("".join(found.hashes).encode()).hexdigest(),
        notes=tuple(found.notes),
        class_names=parquet_class_names(files.paths[0]) if files.kind == ".parquet" else {},
        parts=() if one else tuple(found.parts),
        has_header=files.kind in (".csv", ".tsv") and names is None,
    )


@dataclass
class _Found:
    """What is known of the files so far; grows in place."""

    hashes: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    parts: list[tuple[str, int]] = field(default_factory=list)


def _pieces(
    path: Path, name: str, kind: str, limit: int | None, names: Sequence[str] | None, notes: list[str], *, whole: bool
) -> Iterator[Rows]:
    if kind == ".parquet":
        yield from read_parquet(path, name, limit)
        return
    with opened(path, name, None if whole or kind == ".json" else _FIRST_BYTES) as handle:
        if kind == ".jsonl":
            yield from read_json_lines(handle, name, limit)
        elif kind == ".json":
            yield from read_json(handle, name, limit)
        else:
            quoting = quoting_of(handle, name) if kind == ".tsv" else Quoting(quoted=True)
            notes += [quoting.note] if quoting.note else []
            delimiter = "\t" if kind == ".tsv" else ","
            yield from read_delimited(handle, name, limit, delimiter=delimiter, quoting=quoting, names=names)


@contextmanager
def _hashed(path: Path, name: str, kind: str) -> Iterator[list[str]]:
    """Hash and check a file beside what is done within; the hash is in the list when that is over.

    Raises:
        InputError: the file is no text, also if what is done within failed.
    """
    hashes: list[str] = []
    with ThreadPoolExecutor(1) as beside:
        told = beside.submit(_sha256, path, name, kind)
        try:
            yield hashes
        finally:
            hashes.append(told.result())


def _sha256(path: Path, name: str, kind: str) -> str:
    """Return the hash of a file's bytes; a text file is checked on the way."""
    if kind != ".parquet":
        with opened(path, name) as handle:
            sha256 = _checked_text(handle, name)
        if path.suffix.lower() not in COMPRESSIONS:
            return sha256
    with path.open("rb") as raw:
        return hashlib.file_digest(raw, "sha256").hexdigest()


def _checked_text(handle: IO[bytes], source: str) -> str:
    """Read a text once in chunks: refuse what is not UTF-8, return the SHA-256 of its bytes."""
    digest = hashlib.sha256()
    decoder = codecs.getincrementaldecoder("utf-8")()
    seen = 0
    blank = True
    while True:
        chunk = handle.read(_CHUNK_BYTES)
        if seen == 0 and chunk.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise InputError(f"{source} is UTF-16", "save it as UTF-8")
        if (nul := chunk.find(b"\0")) >= 0:
            raise InputError(f"{source} is binary, not text (a NUL byte at offset {seen + nul})", "give UTF-8 text")
        held = len(decoder.getstate()[0])
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            offset = seen - held + error.start
            handle.seek(0)
            line = 1 + sum(handle.read(size).count(b"\n") for size in _sizes(offset))
            raise InputError(
                f"{source} is not UTF-8: byte 0x{error.object[error.start]:02x} at offset {offset} (line {line})",
                "save the file as UTF-8",
            ) from error
        if not chunk:
            break
        digest.update(chunk)
        seen += len(chunk)
        blank = blank and not text.strip("\ufeff \t\r\n")
    if blank:
        raise InputError(f"{source} is empty", "a table needs at least one row")
    return digest.hexdigest()


def _sizes(n_bytes: int) -> Iterator[int]:
    """Yield the sizes of the chunks in which so many bytes are read."""
    for start in range(0, n_bytes, _CHUNK_BYTES):
        yield min(_CHUNK_BYTES, n_bytes - start)
