"""Json: a list of objects, or one object a line -> columns of plain values; every defect names its line or row."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import IO, Any, Final

import msgspec

from anglekit.errors import InputError
from anglekit.tables.json_blocks import read_blocks
from anglekit.tables.kept_rows import Rows, check_count

_ROWS_AT_ONCE: Final = 4096
_BYTES_AT_ONCE: Final = 1 << 20
_JSON_NAMES: Final = {
    list: "list",
    str: "string",
    int: "number",
    float: "number",
    bool: "boolean",
    type(None): "null",
    dict: "object",
}
_BLANK: Final = b" \t\r\n"
_BOM: Final = b"\xef\xbb\xbf"
# As often as there are keys, or more often where a text holds the same.
_KEY: Final = re.compile(rb'"\s*:')
_BLANKS_BEFORE: Final = (b" :", b"\t:", b"\r:")
#: The key under which published files of one object hold their rows (CoQA, SQuAD).
_ROWS_KEY: Final = "data"


def read_json_lines(handle: IO[bytes], source: str, limit: int | None) -> Iterator[Rows]:
    """Yield some lines after others: in blocks as Arrow reads them, or row by row where Python's json reads otherwise.

    Raises:
        InputError: a line is no object of json, or has a key twice.
    """
    number, left = 1, limit
    for block, rows in read_blocks(_blocks(handle)):
        taken = 0
        if rows is not None and (left is None or rows.n_rows <= left):
            yield rows
            taken = rows.n_rows
        else:
            told = ((row, f"{source}, line {place}") for place, row in _values(block.split(b"\n"), number, source))
            for piece in _in_pieces(islice(told, left), source):
                yield piece
                taken += piece.n_rows
        number += block.count(b"\n")
        left = None if left is None else left - taken
        if left == 0:
            return


def _blocks(handle: IO[bytes]) -> Iterator[bytes]:
    """Yield what a file holds in whole lines."""
    prefix = _BOM
    while block := handle.read(_BYTES_AT_ONCE):
        yield (block + handle.readline()).removeprefix(prefix)
        prefix = b""


def read_json(handle: IO[bytes], source: str, limit: int | None) -> Iterator[Rows]:
    """Yield the rows of a list of objects, of the list under the key `data` of one object, or of one object a line.

    A list is read whole before its first row is given.

    Raises:
        InputError: it is none of these, or an object has a key twice.
    """
    first = _first_line(handle)
    if first[:1] == b"{" and _is_json(first) and _ROWS_KEY not in msgspec.json.decode(first):
        yield from read_json_lines(handle, source, limit)
        return
    text = handle.read().decode("utf-8-sig")
    remedy = "write a list of objects, or one object a line"
    try:
        held = json.loads(text, object_pairs_hook=_unique_keys)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{source}, line {error.lineno} is not JSON: {error.msg} at column {error.colno}", remedy
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{source} cannot be read as JSON: {error}") from error
    del text
    if isinstance(held, dict) and isinstance(held.get(_ROWS_KEY), list):
        held = held[_ROWS_KEY]
    if not isinstance(held, list):
        keys = f" with the keys {', '.join(map(str, list(held)[:8]))}" if isinstance(held, dict) else ""
        raise InputError(f"{source} holds one {_JSON_NAMES[type(held)]}{keys}", remedy)
    rows = ((row, f"{source}, row {number} (counted from 0)") for number, row in enumerate(islice(held, limit)))
    yield from _in_pieces(rows, source)


def _first_line(handle: IO[bytes]) -> bytes:
    """Return the first line that is not blank, without a byte-order mark; the handle is where it was."""
    start = handle.tell()
    line = b""
    for read in handle:
        if line := read.removeprefix(_BOM).strip(_BLANK):
            break
    handle.seek(start)
    return line


def _is_json(text: bytes) -> bool:
    try:
        msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError):
        return False
    return True


def _values(lines: Iterable[bytes], number: int, source: str) -> Iterator[tuple[int, Any]]:
    """Yield the number and the value of each line that is not blank; `number` is the first line's."""
    for place, line in enumerate(lines, start=number):
        if line.strip(_BLANK):
            yield place, _value(line, f"{source}, line {place}")


def _value(line: bytes, where: str) -> Any:  # noqa: ANN401 - what json holds
    """Return what a line holds.

    It is read by the fast reader where that surely gives what Python's own does, which says what is wrong with others.
    """
    try:
        value = msgspec.json.decode(line)
        if isinstance(value, dict) and _most_keys(line) == _n_keys(value):
            return value
    except (msgspec.MsgspecError, RecursionError):
        pass  # numbers such as NaN and half surrogates are fine by Python, and whatever is wrong it says
    try:
        return json.loads(line, object_pairs_hook=_unique_keys)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{where} is not JSON: {error.msg} at column {error.colno}", "write one object a line"
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} cannot be read as JSON: {error}") from error


def _most_keys(line: bytes) -> int:
    """Return a number that is no smaller than that of the keys in a line."""
    if any(blank in line for blank in _BLANKS_BEFORE):
        return len(_KEY.findall(line))
    return line.count(b'":')  # where no colon follows a blank, each follows a key's quote


def _n_keys(value: Any) -> int:  # noqa: ANN401 - what json holds
    if isinstance(value, dict):
        return len(value) + sum(_n_keys(each) for each in value.values() if isinstance(each, dict | list))
    return sum(_n_keys(each) for each in value if isinstance(each, dict | list))


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a JSON object's dict, or refuse it: json itself silently keeps the last of two equal keys."""
    result: dict[str, Any] = {}
    for name, value in pairs:
        if name in result:
            raise ValueError(f"the key {name[:80]!r} appears twice")
        result[name] = value
    return result


def _in_pieces(rows: Iterable[tuple[Any, str]], source: str) -> Iterator[Rows]:
    """Yield some rows after others, each given with where it stands."""
    columns: dict[str, list[Any]] = {}
    n_rows = n_cells = 0
    for value, where in rows:
        row = _flat_row(value, where)
        for name, cell in row.items():
            column = columns.get(name)
            if column is None:
                column = columns[name] = [None] * n_rows
                check_count(len(columns), source)
            column.append(cell)
        n_rows += 1
        n_cells += len(row)
        if len(row) < len(columns):
            for column in columns.values():
                if len(column) < n_rows:
                    column.append(None)
        if n_rows == _ROWS_AT_ONCE:
            yield Rows(columns, n_rows, n_cells)
            columns, n_rows, n_cells = {}, 0, 0
    if n_rows:
        yield Rows(columns, n_rows, n_cells)


def _flat_row(row: Any, where: str) -> dict[str, Any]:  # noqa: ANN401 - what json holds
    """Return a row whose objects became columns named `outer.inner`."""
    if not isinstance(row, dict):
        raise InputError(f"{where} holds a {_JSON_NAMES[type(row)]}, not an object", "write one object a line")
    if dict not in map(type, row.values()):
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
