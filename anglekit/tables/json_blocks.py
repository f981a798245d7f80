"""Blocks of json lines -> Arrow arrays, wherever Arrow reads them as Python's own json does."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain, islice
from operator import attrgetter
from typing import Any, Final

import msgspec
import numpy as np

from anglekit.tables.kept_rows import Rows

_THREADS: Final = 2
#: Keys for which msgspec can have an attribute.
_NAMEABLE: Final = re.compile(r'[^\\"\x00-\x1f]*')
_NEWLINE, _RETURN, _OPEN, _CLOSE = b"\n\r{}"


@dataclass(frozen=True)
class _Known:
    """What blocks have shown, by which those that follow are read in one go; it makes none of them different.

    Attributes:
        whole: the keys on the way to cells that hold floats without a fraction.
        dates: a `pyarrow.Schema` of columns of texts that Arrow takes for dates, or None.
    """

    whole: tuple[tuple[str, ...], ...] = ()
    dates: Any = None


def read_blocks(blocks: Iterable[bytes]) -> Iterator[tuple[bytes, Rows | None]]:
    """Yield blocks of whole lines of UTF-8 with their rows, a few of them read at once.

    Arrow reads some json otherwise than Python does. Dates are read once more as the texts that they are; numbers that
    may be whole are taken from msgspec, which tells 1 from 1.0. The rows are None, and another reader's task, where a
    line is not one object, an object is null or lacks what others have (but for a key of the row), or kinds are mixed.
    """
    left = iter(blocks)
    first_blocks = list(islice(left, 2))
    if len(first_blocks) < 2:  # no threads for a small file
        yield from ((block, _read(block, _Known())[0]) for block in first_blocks)
        return
    known = _Known()
    waiting: deque[tuple[bytes, Future[tuple[Rows | None, _Known]]]] = deque()
    with ThreadPoolExecutor(_THREADS) as pool:
        for block in chain(first_blocks, left):
            # What earlier blocks have shown, and no later one: that would be a matter of luck.
            waiting.append((block, pool.submit(_read, block, known)))
            if len(waiting) > _THREADS:
                first, found = waiting.popleft()
                rows, known = found.result()
                yield first, rows
        for first, found in waiting:
            yield first, found.result()[0]


def _read(block: bytes, known: _Known) -> tuple[Rows | None, _Known]:
    places = known.whole
    try:
        # Arrow can end the process: what it gets was read by another reader before.
        objects = _objects(places).decode_lines(block)
    except (msgspec.MsgspecError, RecursionError):
        return None, known
    if not objects or not _one_a_line(block, len(objects)):
        return None, known
    table, dates = _table(block, known.dates)
    known = replace(known, dates=dates)
    if table is None:
        return None, known
    end = block.find(b"\n")
    first_row = msgspec.json.decode(block if end < 0 else block[:end])
    columns: dict[str, Any] = {}
    unsure: dict[str, tuple[str, ...]] = {}
    for name in table.column_names:
        flat = dict(_flat(name, table.column(name).combine_chunks()))
        if (name,) not in flat and len(flat) > len(first_row[name]):
            return None, known  # columns stand in the order in which rows have them, and here these may not
        for place, array in flat.items():
            if (joined := ".".join(place)) in columns or not _same_as_json(array):
                return None, known
            columns[joined] = array
            if _may_be_whole(array):
                unsure[joined] = place
    n_cells = sum(len(array) - array.null_count for array in columns.values())
    if not columns or 2 * n_cells < len(objects) * len(columns):
        return None, known  # how many keys the rows have is not known
    if not all(_NAMEABLE.fullmatch(key) for place in unsure.values() for key in place):
        return None, known
    if not set(unsure.values()) <= set(places):
        known = replace(known, whole=(places := tuple(unsure.values())))
        objects = _objects(places).decode_lines(block)
    for joined, place in unsure.items():
        cells = list(map(attrgetter(_attribute(places, place)), objects))
        if not set(map(type, cells)) <= {float, type(None)}:
            columns[joined] = cells
    return Rows(columns, len(objects), n_cells), known


def _table(block: bytes, known: Any) -> tuple[Any, Any]:  # noqa: ANN401 - pyarrow has no types
    """Return a block as Arrow reads it, None where it does not, and what is known of dates now: they stay texts."""
    import pyarrow as pa
    import pyarrow.json

    def read(schema: Any) -> Any:  # noqa: ANN401 - pyarrow has no types
        return pa.json.read_json(
            pa.BufferReader(block),
            read_options=pa.json.ReadOptions(use_threads=False, block_size=len(block) + 1),
            parse_options=pa.json.ParseOptions(explicit_schema=schema),
        )

    for schema in dict.fromkeys((known, None)):
        try:
            table = read(schema)
            dates = [field for field in table.schema if _is_or_holds(field.type, pa.types.is_timestamp)]
            if dates:
                texts = {field.name: field.type for field in schema or ()}
                texts.update((field.name, _dates_as_texts(field.type)) for field in dates)
                schema = pa.schema(texts.items())
                table = read(schema).select(table.column_names)  # their order is that of the rows
            table.validate(full=True)
            return table, schema
        except (pa.ArrowException, UnicodeDecodeError):
            continue
    return None, known


def _one_a_line(block: bytes, n_rows: int) -> bool:
    """Return whether every line of json holds one object; the last one may lack its end."""
    text = np.frombuffer(block, dtype=np.uint8)
    ends = np.flatnonzero(text == _NEWLINE)
    if len(text) and text[-1] != _NEWLINE:
        ends = np.append(ends, len(text))
    if len(ends) != n_rows or text[0] != _OPEN:
        return False
    before = text[ends - 1]
    if _RETURN in before:
        before = np.where(before == _RETURN, text[ends - 2], before)
    return bool((before == _CLOSE).all() and (text[ends[:-1] + 1] == _OPEN).all())


def _flat(name: str, column: Any) -> Iterator[tuple[tuple[str, ...], Any]]:  # noqa: ANN401 - pyarrow has no types
    """Yield a column with the keys on the way to it, or those of the objects in it where every row has one."""
    import pyarrow as pa

    if pa.types.is_struct(column.type) and column.null_count == 0 and column.type.num_fields:
        for field, inner in zip(column.type, column.flatten(), strict=True):
            yield (name, field.name), inner
    else:
        yield (name,), column


def _same_as_json(array: Any, *, complete: bool = False) -> bool:  # noqa: ANN401 - pyarrow has no types
    """Return whether the values are those of json; `complete`: only if none is null.

    In an object, null may stand for a key that it lacks; in a list, Arrow miscounts (26.0.1).
    """
    import pyarrow as pa

    kind = array.type
    if complete and array.null_count:
        return False
    if pa.types.is_list(kind):
        return _same_as_json(array.flatten(), complete=True)
    if pa.types.is_struct(kind):
        within = array.flatten()
        return not array.null_count and bool(within) and all(_same_as_json(each, complete=True) for each in within)
    plain = (pa.types.is_null, pa.types.is_boolean, pa.types.is_int64, pa.types.is_float64, pa.types.is_string)
    return any(is_one(kind) for is_one in plain)


def _may_be_whole(array: Any) -> bool:  # noqa: ANN401 - pyarrow has no types
    """Return whether an array has, or holds, floats without a fraction: json may have them as whole numbers."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_float64(array.type):
        return bool(pc.any(pc.equal(array, pc.floor(array))).as_py())
    if pa.types.is_list(array.type) or pa.types.is_struct(array.type):
        within = array.flatten()
        return any(map(_may_be_whole, within if isinstance(within, list) else [within]))
    return False


def _is_or_holds(kind: Any, is_one: Callable[[Any], bool]) -> bool:  # noqa: ANN401 - pyarrow has no types
    return is_one(kind) or any(_is_or_holds(kind.field(place).type, is_one) for place in range(kind.num_fields))


def _dates_as_texts(kind: Any) -> Any:  # noqa: ANN401 - pyarrow has no types
    import pyarrow as pa

    if pa.types.is_timestamp(kind):
        return pa.string()
    if pa.types.is_list(kind):
        return pa.list_(_dates_as_texts(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(field.name, _dates_as_texts(field.type)) for field in kind])
    return kind


@lru_cache(maxsize=64)
def _objects(places: tuple[tuple[str, ...], ...]) -> Any:  # noqa: ANN401 - the class of the objects is made here
    """Return a decoder of objects that keep the values at these places, under the names of `_attribute`."""

    def made(name: str, kinds: Mapping[str, Any]) -> Any:  # noqa: ANN401 - a class
        fields = [
            (f"key_{number}", kind, msgspec.field(default=None, name=key))
            for number, (key, kind) in enumerate(kinds.items())
        ]
        return msgspec.defstruct(name, fields)

    inner: dict[str, dict[str, Any]] = {}
    for key, *within in places:
        inner.setdefault(key, {}).update(dict.fromkeys(within, Any))
    kinds = {key: made("Inner", within) if within else Any for key, within in inner.items()}
    return msgspec.json.Decoder(made("Row", kinds))


def _attribute(places: Sequence[tuple[str, ...]], place: tuple[str, ...]) -> str:
    """Return under which attributes of an object lies what a place holds."""
    outer = list(dict.fromkeys(each[0] for each in places)).index(place[0])
    within = [each[1] for each in places if each[0] == place[0] and len(each) > 1]
    return f"key_{outer}" + (f".key_{within.index(place[1])}" if len(place) > 1 else "")
