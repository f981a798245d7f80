"""Table files by suffix: csv, tsv, jsonl, parquet -> a data frame of plain Python values, every defect in one line."""

from __future__ import annotations

import codecs
import csv
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anglekit.errors import InputError, suggest
from anglekit.runtime.files import near_path
from anglekit.tables.arrow import check_count, check_names, read_parquet_columns

if TYPE_CHECKING:
    import pandas as pd

_CHUNK_BYTES = 1 << 20
# Rows of json may differ in their keys, and in the frame each row has a place for every key.
_PLACES_PER_CELL, _MORE_PLACES = 20, 10_000_000


def read_table_file(source: str, limit: int | None = None) -> tuple[pd.DataFrame, str]:
    """Read a table file; the suffix, in any case, says which kind it is.

    Text files are checked whole (UTF-8, with or without a byte-order mark) before a row is parsed. Values stay as the
    file has them: csv and tsv give strings only, so `NA` and `007` are text and an empty field is the empty string.

    Returns:
        The first `limit` rows (what follows is not parsed), every column of dtype object, and the file's SHA-256.

    Raises:
        InputError: no such file, not a regular file, unreadable, of an unknown kind, empty, binary, not UTF-8, or
            malformed; the message names the line or byte.
    """
    path, reader = table_file(source)
    try:
        if reader is _read_parquet:
            with path.open("rb") as handle:
                sha256 = hashlib.file_digest(handle, "sha256").hexdigest()
        else:
            sha256 = _checked_text(path, source)
        return reader(path, source, limit), sha256
    except OSError as error:
        raise InputError(f"{source} cannot be read: {error.strerror or error}") from error


def table_file(source: str) -> tuple[Path, Callable[[Path, str, int | None], pd.DataFrame]]:
    """Return the file of a table, and the function that reads its kind.

    Raises:
        InputError: no such file, not a regular file, or of an unknown kind.
    """
    path = Path(source).expanduser()
    reader = SUFFIXES.get(path.suffix.lower())
    if reader is None:
        near = suggest(path.suffix.lower() or path.name, SUFFIXES)
        raise InputError(
            f"{source} is not a kind of table that can be read", allowed=f"{near}, hub:NAME:SPLIT, builtin:NAME"
        )
    if not path.exists():
        nor = "" if path.parent.is_dir() else f" (nor does the directory {path.parent})"
        raise InputError(f"{source} does not exist{near_path(path) or nor}", f"give the path of a {path.suffix} file")
    if not path.is_file():
        what = "a directory" if path.is_dir() else "not a regular file"
        raise InputError(f"{source} is {what}", f"give the path of one {', '.join(SUFFIXES)} file")
    return path, reader


def _checked_text(path: Path, source: str) -> str:
    """Read the file once in chunks: refuse what is not UTF-8 text, return the SHA-256 of its bytes."""
    digest = hashlib.sha256()
    decoder = codecs.getincrementaldecoder("utf-8")()
    seen = 0
    line = 1
    blank = True
    with path.open("rb") as handle:
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
                line += error.object.count(b"\n", 0, error.start)
                raise InputError(
                    f"{source} is not UTF-8: byte 0x{error.object[error.start]:02x} "
                    f"at offset {seen - held + error.start} (line {line})",
                    "save the file as UTF-8",
                ) from error
            if not chunk:
                break
            digest.update(chunk)
            seen += len(chunk)
            line += text.count("\n")
            blank = blank and not text.strip("\ufeff \t\r\n")
    if blank:
        raise InputError(f"{source} is empty", "a table needs at least one row")
    return digest.hexdigest()


@contextmanager
def _field_size_limit(size: int) -> Iterator[None]:
    """Let a csv field be as long as the file; csv's own limit of 128 KiB is process-wide, so restore it afterwards."""
    before = csv.field_size_limit(size)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _read_delimited(path: Path, source: str, limit: int | None, delimiter: str) -> pd.DataFrame:
    with _field_size_limit(path.stat().st_size + 1), path.open(encoding="utf-8-sig", newline="") as handle:
        # strict: otherwise an unclosed quote would silently swallow the rows up to the next quote.
        reader = csv.reader(handle, delimiter=delimiter, strict=True)
        try:
            rows = (row for row in reader if row)
            header = next(rows)
            check_names(header, source)
            columns: list[list[Any]] = [[] for _ in header]
            for row in islice(rows, limit):
                if len(row) != len(header):
                    raise InputError(
                        f"{source}, line {reader.line_num}: {len(row)} fields where the header has {len(header)}",
                        "quote a field that holds the delimiter or a line break",
                    )
                for column, value in zip(columns, row, strict=True):
                    column.append(value)
        except csv.Error as error:
            raise InputError(
                f"{source}, line {reader.line_num}: {error}",
                'put a field that begins with a quote in "..." and double the quotes inside it',
            ) from error
    return object_frame(dict(zip(header, columns, strict=True)))


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a JSON object's dict, or refuse it: json itself silently keeps the last of two equal keys."""
    result: dict[str, Any] = {}
    for name, value in pairs:
        if name in result:
            raise ValueError(f"the key {name[:80]!r} appears twice")
        result[name] = value
    return result


def _json_row(line: str, where: str) -> dict[str, Any]:
    """Parse one line; an object inside the row becomes columns named `outer.inner`."""
    try:
        row = json.loads(line, object_pairs_hook=_unique_keys)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{where} is not JSON: {error.msg} at column {error.colno}", "write one object a line"
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} cannot be read as JSON: {error}") from error
    if not isinstance(row, dict):
        raise InputError(f"{where} holds a {_JSON_NAMES[type(row)]}, not an object", "write one object a line")
    if not any(isinstance(value, dict) for value in row.values()):
        return row
    flat: list[tuple[str, Any]] = []
    for name, value in row.items():
        flat.extend(
            ((f"{name}.{inner}", cell) for inner, cell in value.items()) if isinstance(value, dict) else [(name, value)]
        )
    try:
        return _unique_keys(flat)
    except ValueError as error:
        raise InputError(f"{where} cannot be read: {error}") from error


_JSON_NAMES = {list: "list", str: "string", int: "number", float: "number", bool: "boolean", type(None): "null"}


def _read_jsonl(path: Path, source: str, limit: int | None) -> pd.DataFrame:
    columns: dict[str, list[Any]] = {}
    n_rows = n_cells = 0
    with path.open(encoding="utf-8-sig") as handle:
        for number, line in enumerate(handle, start=1):
            if limit is not None and n_rows >= limit:
                break
            if not line.strip():
                continue
            row = _json_row(line, f"{source}, line {number}")
            n_cells += len(row)
            for name, value in row.items():
                columns.setdefault(name, [None] * n_rows).append(value)
            n_rows += 1
            check_count(len(columns), source)
            if n_rows * len(columns) > _PLACES_PER_CELL * n_cells + _MORE_PLACES:
                raise InputError(
                    f"{source}, line {number}: {n_rows} rows have {len(columns)} keys, and nearly every row others",
                    "give rows of the same keys",
                )
            for column in columns.values():
                if len(column) < n_rows:
                    column.append(None)
    return object_frame(columns)


def object_frame(columns: dict[str, list[Any]]) -> pd.DataFrame:
    """Return columns of plain Python values as a frame that leaves them as they are."""
    import pandas as pd

    # dtype object: pandas would otherwise turn integers beside a missing value into floats.
    return pd.DataFrame(columns, dtype=object)


def _read_parquet(path: Path, source: str, limit: int | None) -> pd.DataFrame:
    return object_frame(read_parquet_columns(path, source, limit))


SUFFIXES: dict[str, Callable[[Path, str, int | None], pd.DataFrame]] = {
    ".jsonl": _read_jsonl,
    ".csv": partial(_read_delimited, delimiter=","),
    ".tsv": partial(_read_delimited, delimiter="\t"),
    ".parquet": _read_parquet,
}
