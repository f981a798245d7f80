"""Parquet files and Arrow tables -> rows, within bounds: a small file may claim anything."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from anglekit.errors import InputError, foreign_failures
from anglekit.tables.kept_rows import Rows, check_count, check_names

# A parquet file stores repeated values once; these bounds allow far more repetition than tables of texts have.
_VALUES_PER_BYTE, _MORE_VALUES = 50, 10_000_000
_CHARACTERS_PER_BYTE, _MORE_CHARACTERS = 200, 1 << 28
_ROWS_OF_A_BATCH: Final = 4096


def read_parquet(path: Path, source: str, limit: int | None) -> Iterator[Rows]:
    """Yield some rows of a parquet file after others; a struct column becomes columns `outer.inner`.

    The footer, as pyarrow reads it, says how many rows and columns there are; what lists and texts hold is counted
    batch by batch, before they become Python objects. How pyarrow itself treats a damaged file is not checked.

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
            # Read as dictionaries, so that a repeated text is counted before it is there many times.
            texts = [field.name for field in schema if _is_text(field.type)]
            file = pq.ParquetFile(path, read_dictionary=texts)
        with file:
            batches = file.iter_batches(batch_size=_ROWS_OF_A_BATCH)
            yield from rows_from_arrow(_read(batches, damaged), source, file.schema_arrow, limit, size)


def _read(batches: Iterator[Any], damaged: Callable[[str], InputError]) -> Iterator[Any]:
    while True:
        with foreign_failures(damaged):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


def parquet_class_names(path: Path) -> dict[str, tuple[str, ...]]:
    """Return the classes of columns of class numbers by column, as `datasets` writes them into a parquet file."""
    import pyarrow.parquet as pq

    try:
        written = (pq.read_schema(path).metadata or {}).get(b"huggingface", b"{}")
        features = json.loads(written)["info"]["features"]
        names = {str(name): _class_names(feature) for name, feature in features.items()}
        return {name: found for name, found in names.items() if found}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}  # what another tool wrote there says nothing of classes


def _class_names(feature: Any) -> tuple[str, ...]:  # noqa: ANN401 - a feature of `datasets`, as json
    """Return the classes of a feature, or of the lists that it holds; () where it has none."""
    if isinstance(feature, list) and len(feature) == 1:
        return _class_names(feature[0])
    if not isinstance(feature, dict):
        return ()
    if feature.get("_type") == "ClassLabel":
        return tuple(map(str, feature.get("names") or ()))
    return _class_names(feature.get("feature")) if feature.get("_type") in ("List", "LargeList", "Sequence") else ()


def _is_text(kind: Any) -> bool:  # noqa: ANN401 - pyarrow has no types
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def rows_from_arrow(
    tables: Iterable[Any],
    source: str,
    schema: Any,  # noqa: ANN401 - pyarrow has no types
    limit: int | None = None,
    size: int | None = None,
) -> Iterator[Rows]:
    """Yield the rows of a table in pieces (`pyarrow.Table` or `RecordBatch`).

    A struct column becomes columns `outer.inner`. The file's `size` bounds what it may hold; None: no bound. The first
    rows are none, so that a table without rows has its columns too.

    Raises:
        InputError: two columns have one name, or the table holds far more than the file's size.
    """
    import pyarrow as pa

    names = schema.empty_table().flatten().column_names
    check_names(names, source)
    yield Rows.of({name: [] for name in names})
    left, counted = limit, _Counted(source, size)
    for table in tables:
        if left is not None and left <= 0:
            break
        whole = pa.Table.from_batches([table]) if isinstance(table, pa.RecordBatch) else table
        piece = whole.flatten() if left is None else whole.slice(0, left).flatten()
        if piece.num_rows:
            columns = {name: _joined(counted.plain(chunk) for chunk in piece.column(name).chunks) for name in names}
            yield Rows(columns, piece.num_rows, piece.num_rows * len(names))
        left = None if left is None else left - piece.num_rows


def _joined(chunks: Iterable[Any]) -> Any:  # noqa: ANN401 - pyarrow has no types
    import pyarrow as pa

    arrays = list(chunks)
    return arrays[0] if len(arrays) == 1 else pa.concat_arrays(arrays)


class _Counted:
    """What was read so far of a file, so that it holds no more than its size allows; grows in place."""

    def __init__(self, source: str, size: int | None) -> None:
        self._source, self._size = source, size
        self._values = self._characters = 0

    def plain(self, chunk: Any) -> Any:  # noqa: ANN401 - pyarrow has no types
        """Return an array without dictionary, whose texts are counted before each is there as often as it stands.

        Raises:
            InputError: the file holds far more than its size.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        if not pa.types.is_dictionary(chunk.type):
            self._count(_n_values(pa, chunk), 0 if pa.types.is_primitive(chunk.type) else chunk.nbytes)
            return chunk
        sizes = pc.take(pc.binary_length(chunk.dictionary), chunk.indices)
        self._count(len(chunk), pc.sum(pc.cast(sizes, pa.int64())).as_py() or 0)
        return pc.cast(chunk, pa.large_string())

    def _count(self, values: int, characters: int) -> None:
        self._values += values
        self._characters += characters
        if self._size is None:
            return
        most = _VALUES_PER_BYTE * self._size + _MORE_VALUES, _CHARACTERS_PER_BYTE * self._size + _MORE_CHARACTERS
        if self._values > most[0] or self._characters > most[1]:
            raise InputError(
                f"{self._source} holds far more than its {self._size:,} bytes: {self._values:,} values, "
                f"{self._characters:,} characters",
                "write it without repetitions",
            )


def _n_values(pa: Any, array: Any) -> int:  # noqa: ANN401 - pyarrow has no types
    """Return how many Python objects an array becomes, with everything inside its lists and objects."""
    kind = array.type
    held: list[Any] = []
    if pa.types.is_struct(kind) or pa.types.is_map(kind):
        held = [array.keys, array.items] if pa.types.is_map(kind) else array.flatten()
    elif kind.num_fields:
        held = [array.flatten()]
    return len(array) + sum(_n_values(pa, each) for each in held)
