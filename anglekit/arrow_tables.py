"""Parquet files and Arrow tables -> columns of plain Python values, within bounds: a small file may claim anything."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from anglekit.errors import InputError, foreign_failures
from anglekit.parquet_footer import claimed_values

__all__ = ["check_count", "check_names", "columns_from_arrow", "read_parquet_columns"]

# A table of texts has a few columns; what has very many is something else.
_MOST_COLUMNS: Final = 10_000
# Values that repeat take no room in a parquet file, so that one of some kilobytes may hold a thousand million of them.
_VALUES_PER_BYTE, _MORE_VALUES = 50, 10_000_000
_CHARACTERS_PER_BYTE, _MORE_CHARACTERS = 200, 1 << 28


def check_names(names: Sequence[str], source: str) -> None:
    """Raise the InputError for columns that share a name, or are too many."""
    check_count(len(names), source)
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InputError(f"{source} has two columns named {name[:80]!r}; rename or remove one")
        seen.add(name)


def check_count(columns: int, source: str) -> None:
    """Raise the InputError for more columns than are read."""
    if columns > _MOST_COLUMNS:
        raise InputError(f"{source} has {columns:,} columns; at most {_MOST_COLUMNS:,} are read: give a table of texts")


def read_parquet_columns(path: Path, source: str, limit: int | None) -> dict[str, list[Any]]:
    """Return a parquet file's columns; a struct column becomes columns `outer.inner`.

    Args:
        path: the file.
        source: what to call it in an error.
        limit: read only that many rows.

    Raises:
        InputError: it is damaged, two columns have one name, or it holds far more than its size.
    """
    import pyarrow.parquet as pq

    def damaged(reason: str) -> str:
        return f"{source} is not a readable parquet file: {reason}; write it again"

    with foreign_failures(damaged):
        # Not pq.read_table, which adds columns that it reads off directory names like a=b.
        file = pq.ParquetFile(path)
    with file:
        schema, metadata = file.schema_arrow, file.metadata
        check_names(schema.names, source)
        check_count(metadata.num_columns, source)
        size = path.stat().st_size
        try:
            values = claimed_values(path)
        except ValueError as error:
            raise InputError(damaged(str(error))) from error
        claimed = max(metadata.num_rows, sum(values))
        if claimed > _VALUES_PER_BYTE * size + _MORE_VALUES or min([metadata.num_rows, *values]) < 0:
            raise InputError(damaged(f"it claims {claimed:,} values in {size:,} bytes"))
        with foreign_failures(damaged):
            # As dictionaries, texts that repeat are one object, however many rows have them.
            texts = [field.name for field in schema if _is_text(field.type)]
            file = pq.ParquetFile(path, read_dictionary=texts)
        with file, foreign_failures(damaged):
            batches = file.iter_batches(batch_size=8192)
            return columns_from_arrow(batches, source, file.schema_arrow, limit, size)


def _is_text(kind: Any) -> bool:  # noqa: ANN401 - pyarrow has no types
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def columns_from_arrow(
    tables: Iterable[Any],
    source: str,
    schema: Any,  # noqa: ANN401 - pyarrow has no types
    limit: int | None = None,
    size: int | None = None,
) -> dict[str, list[Any]]:
    """Return the columns of Arrow tables as plain Python values; a struct column becomes columns `outer.inner`.

    Args:
        tables: `pyarrow.Table` or `RecordBatch` pieces of one table.
        source: what to call the table in an error.
        schema: the pieces' `pyarrow.Schema`.
        limit: keep only that many rows.
        size: of the file, which bounds the texts; None does not.

    Raises:
        InputError: two columns have one name, or the texts are far longer than the file.
    """
    import pyarrow as pa

    names = schema.empty_table().flatten().column_names
    check_names(names, source)
    columns: dict[str, list[Any]] = {name: [] for name in names}
    left, characters = limit, 0
    for table in tables:
        if left is not None and left <= 0:
            break
        whole = pa.Table.from_batches([table]) if isinstance(table, pa.RecordBatch) else table
        piece = whole.flatten() if left is None else whole.slice(0, left).flatten()
        for name in names:
            for chunk in piece.column(name).chunks:
                cells = _cells(pa, chunk)
                columns[name].extend(cells)
                characters += sum(len(cell) for cell in cells if isinstance(cell, str | bytes | list))
        if size is not None and characters > _CHARACTERS_PER_BYTE * size + _MORE_CHARACTERS:
            raise InputError(f"{source} holds far more text than its {size:,} bytes; write it without repetitions")
        left = None if left is None else left - piece.num_rows
    return columns


def _cells(pa: Any, chunk: Any) -> list[Any]:  # noqa: ANN401 - pyarrow has no types
    if not pa.types.is_dictionary(chunk.type):
        return list(chunk.to_pylist())
    values = chunk.dictionary.to_pylist()
    return [None if place is None else values[place] for place in chunk.indices.to_pylist()]
