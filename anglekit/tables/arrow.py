"""Parquet files and Arrow tables -> columns of plain Python values, within bounds: a small file may claim anything."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from anglekit.errors import InputError, foreign_failures

# A table of texts has a few columns; what has very many is something else.
_MOST_COLUMNS: Final = 10_000
# A parquet file stores repeated values once; these bounds allow far more repetition than tables of texts have.
_VALUES_PER_BYTE, _MORE_VALUES = 50, 10_000_000
_CHARACTERS_PER_BYTE, _MORE_CHARACTERS = 200, 1 << 28
_ROWS_OF_A_BATCH: Final = 4096


def check_names(names: Sequence[str], source: str) -> None:
    """Raise an InputError if columns share a name or are too many."""
    check_count(len(names), source)
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InputError(f"{source} has two columns named {name[:80]!r}", "rename or remove one")
        seen.add(name)


def check_count(columns: int, source: str) -> None:
    """Raise an InputError if there are too many columns."""
    if columns > _MOST_COLUMNS:
        raise InputError(
            f"{source} has {columns:,} columns", f"at most {_MOST_COLUMNS:,} are read: give a table of texts"
        )


def read_parquet_columns(path: Path, source: str, limit: int | None) -> dict[str, list[Any]]:
    """Return a parquet file's columns; a struct column becomes columns `outer.inner`.

    The footer, as pyarrow reads it, says how many rows and columns there are; what lists and texts hold is counted
    batch by batch, before lists become Python objects. How pyarrow itself treats a damaged file is not checked.

    Raises:
        InputError: it is damaged, two columns have one name, or it holds far more than its size.
    """
    import pyarrow.parquet as pq

    def damaged(reason: str) -> InputError:
        return InputError(f"{source} is not a readable parquet file: {reason}", "write it again")

    with foreign_failures(damaged):
        # Not pq.read_table, which adds columns that it reads off directory names like a=b.
        file = pq.ParquetFile(path)
    with file:
        schema, metadata = file.schema_arrow, file.metadata
        check_names(schema.names, source)
        check_count(metadata.num_columns, source)
        size = path.stat().st_size
        claimed = metadata.num_rows * metadata.num_columns
        if not 0 <= claimed <= _VALUES_PER_BYTE * size + _MORE_VALUES:
            raise damaged(f"it claims {claimed:,} values in {size:,} bytes")
        with foreign_failures(damaged):
            # Read as dictionaries, so that a repeated text is one object, however many rows have it.
            texts = [field.name for field in schema if _is_text(field.type)]
            file = pq.ParquetFile(path, read_dictionary=texts)
        with file, foreign_failures(damaged):
            batches = file.iter_batches(batch_size=_ROWS_OF_A_BATCH)
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
    """Return the columns of a table in pieces (`pyarrow.Table` or `RecordBatch`) as plain Python values.

    A struct column becomes columns `outer.inner`. The file's `size` bounds what it may hold; None: no bound.

    Raises:
        InputError: two columns have one name, or the table holds far more than the file's size.
    """
    import pyarrow as pa

    names = schema.empty_table().flatten().column_names
    check_names(names, source)
    columns: dict[str, list[Any]] = {name: [] for name in names}
    left, values, characters = limit, 0, 0
    for table in tables:
        if left is not None and left <= 0:
            break
        whole = pa.Table.from_batches([table]) if isinstance(table, pa.RecordBatch) else table
        piece = whole.flatten() if left is None else whole.slice(0, left).flatten()
        for name in names:
            for chunk in piece.column(name).chunks:
                if not pa.types.is_dictionary(chunk.type):
                    values += _n_values(pa, chunk)
                    characters += 0 if pa.types.is_primitive(chunk.type) else chunk.nbytes
                    _check_size(source, size, values, characters)
                    columns[name].extend(chunk.to_pylist())
                    continue
                texts = chunk.dictionary.to_pylist()
                cells = [None if place is None else texts[place] for place in chunk.indices.to_pylist()]
                columns[name].extend(cells)
                values += len(cells)
                characters += sum(len(cell) for cell in cells if isinstance(cell, str | bytes))
                _check_size(source, size, values, characters)
        left = None if left is None else left - piece.num_rows
    return columns


def _n_values(pa: Any, array: Any) -> int:  # noqa: ANN401 - pyarrow has no types
    """Return how many Python objects an array becomes, with everything inside its lists and objects."""
    kind = array.type
    held: list[Any] = []
    if pa.types.is_struct(kind) or pa.types.is_map(kind):
        held = [array.keys, array.items] if pa.types.is_map(kind) else array.flatten()
    elif kind.num_fields:
        held = [array.flatten()]
    return len(array) + sum(_n_values(pa, each) for each in held)


def _check_size(source: str, size: int | None, values: int, characters: int) -> None:
    if size is None:
        return
    if values > _VALUES_PER_BYTE * size + _MORE_VALUES or characters > _CHARACTERS_PER_BYTE * size + _MORE_CHARACTERS:
        raise InputError(
            f"{source} holds far more than its {size:,} bytes: {values:,} values, {characters:,} characters",
            "write it without repetitions",
        )
