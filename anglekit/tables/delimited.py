"""Text with a delimiter (csv, tsv) -> columns of strings; with quoting or without, which the text itself says."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from typing import IO, Any, Final, Literal

from anglekit.errors import InputError
from anglekit.tables.kept_rows import Rows, check_names

_ROWS_AT_ONCE: Final = 4096
_LONGEST_FIELD: Final = 2**31 - 1
_BOM: Final = b"\xef\xbb\xbf"
_QUOTED: Final = re.compile(rb'"(?:[^"]|"")*"')
#: The columns of CoLA's own files, which have no header (code of the source, label, the author's mark, sentence).
COLA_COLUMNS: Final = ("code", "label", "mark", "sentence")
_NO_HEADER: Final = "if the first line is no header, name the columns: --columns a,b,c"


@dataclass(frozen=True)
class Quoting:
    """How the fields of a file are to be read.

    Attributes:
        quoted: whether quotes around a field are no part of it.
        note: what a person should know of it; "" where the file has no quote.
    """

    quoted: bool
    note: str = ""


def quoting_of(handle: IO[bytes], source: str) -> Quoting:
    """Return how a tab-separated file is written; the handle is where it was.

    Published files (GLUE's) have no quoting: every physical line has the header's tabs, and quotes are part of the
    text. What a csv writer has written has quotes around whole fields only, and there are doubled ones inside them, or
    the header has quotes too.
    """
    start, tabs, with_quotes, well_formed, doubled, header_quoted = handle.tell(), None, 0, True, True, False
    for number, line in enumerate(handle):
        text = (line.removeprefix(_BOM) if number == 0 else line).rstrip(b"\r\n")
        if not text:
            continue
        if (tabs is not None and text.count(b"\t") != tabs) or b"\r" in text:
            handle.seek(start)
            return Quoting(quoted=True)
        if tabs is None:
            tabs = text.count(b"\t")
            header_quoted = all(_QUOTED.fullmatch(field) for field in text.split(b"\t"))
        if b'"' not in text:
            continue
        for field in text.split(b"\t"):
            if b'"' in field:
                with_quotes += 1
                whole = _QUOTED.fullmatch(field) is not None
                well_formed = well_formed and whole
                doubled = doubled and b'"' in field[1:-1]
    handle.seek(start)
    if not with_quotes or not tabs:
        # A column alone may hold line breaks in quotes, which no tab tells apart.
        return Quoting(quoted=True)
    if well_formed and (doubled or header_quoted):
        return Quoting(True, f"{source} was read with quoting: quotes around a field are no part of it")
    each = "the one field with quotes keeps them" if with_quotes == 1 else f"{with_quotes:,} fields keep their quotes"
    return Quoting(False, f"{source} was read without quoting: every line has the header's tabs, and {each}")


def read_delimited(
    handle: IO[bytes],
    source: str,
    limit: int | None,
    *,
    delimiter: str,
    quoting: Quoting,
    names: Sequence[str] | None = None,
) -> Iterator[Rows]:
    """Yield some rows after others; the first are none, so that a file of a header alone has its columns too.

    Args:
        handle: the file, UTF-8 with or without a byte-order mark.
        source: what messages call it.
        limit: the most rows.
        delimiter: between fields.
        quoting: how fields are written.
        names: of the columns of a file without header.

    Raises:
        InputError: a row has more or fewer fields than the header, or quotes do not match.
    """
    text = io.TextIOWrapper(handle, encoding="utf-8-sig", newline="")
    # strict: otherwise an unclosed quote would silently swallow the rows up to the next quote.
    form: Literal[0, 3] = csv.QUOTE_MINIMAL if quoting.quoted else csv.QUOTE_NONE
    reader = csv.reader(text, delimiter=delimiter, strict=True, quoting=form)
    try:
        with _long_fields(), _located(reader, source, delimiter):
            first = next(row for row in reader if row)
        header = _header(first, source, delimiter, names)
        rows = reader if names is None and header is first else chain([first], reader)
        yield Rows.of({name: [] for name in header})
        left = limit
        while left is None or left > 0:
            n_rows = _ROWS_AT_ONCE if left is None else min(left, _ROWS_AT_ONCE)
            with _long_fields(), _located(reader, source, delimiter):
                columns = _columns(rows, reader, source, header, n_rows)
            piece = Rows.of(columns)
            if not piece.n_rows:
                break
            yield piece
            left = None if left is None else left - piece.n_rows
    finally:
        text.detach()


def _header(first: list[str], source: str, delimiter: str, names: Sequence[str] | None) -> Sequence[str]:
    """Return the columns: as named, those of CoLA's own files, or what stands in the first line."""
    if names is not None:
        if [one.casefold() for one in first] == [one.casefold() for one in names]:
            raise InputError(f"{source} begins with a header of these very columns", "leave --columns out")
        if len(first) != len(names):
            raise InputError(
                f"--columns names {len(names)} columns, and the first line of {source} has {len(first)} fields",
                "name every column, in order",
            )
        check_names(names, source)
        return names
    if delimiter == "\t" and len(first) == len(COLA_COLUMNS) and first[1] in ("0", "1") and first[2] in ("", "*"):
        return COLA_COLUMNS
    try:
        check_names(first, source)
    except InputError as error:
        raise InputError(error.arrived, f"{error.remedy}; {_NO_HEADER}") from error
    return first


def _columns(
    rows: Iterable[list[str]],
    reader: Any,  # noqa: ANN401 - of csv
    source: str,
    header: Sequence[str],
    n_rows: int,
) -> dict[str, list[str]]:
    columns: list[list[str]] = [[] for _ in header]
    for row in islice((row for row in rows if row), n_rows):
        if len(row) != len(header):
            raise InputError(
                f"{source}, line {reader.line_num}: {len(row)} fields where the header has {len(header)}",
                "quote a field that holds the delimiter or a line break",
            )
        for column, value in zip(columns, row, strict=True):
            column.append(value)
    return dict(zip(header, columns, strict=True))


@contextmanager
def _located(reader: Any, source: str, delimiter: str) -> Iterator[None]:  # noqa: ANN401 - of csv
    try:
        yield
    except csv.Error as error:
        without = ", or give every line the header's tabs to have it read without quoting" if delimiter == "\t" else ""
        raise InputError(
            f"{source}, line {reader.line_num}: {error}",
            f'put a field that begins with a quote in "..." and double the quotes inside it{without}',
        ) from error


@contextmanager
def _long_fields() -> Iterator[None]:
    """Let a csv field be of any length; csv's own limit of 128 KiB is process-wide, so restore it afterwards."""
    before = csv.field_size_limit(_LONGEST_FIELD)
    try:
        yield
    finally:
        csv.field_size_limit(before)
