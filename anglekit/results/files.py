"""The files of a saved Geometry, read within bounds and checked: a directory of unknown origin may hold anything.

Files that pass have the form that `save` writes: each table has its columns, with the right types and possible values,
and no two rows share a key; the document has all its parts. A number changed to another possible one goes unnoticed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, get_args

import numpy as np
import pandas as pd

from anglekit.errors import InputError, foreign_failures
from anglekit.results.columns import ADDED_COLUMNS, COLUMNS, OPTIONAL_COLUMNS
from anglekit.results.document import GeometryDocument
from anglekit.runtime.files import convert_document, near_path, read_json_object
from anglekit.vocabulary import GEOMETRY_FILE, N_BINS, Stream

SCHEMA_VERSION = 1

_AGAIN: Final = "run the analysis again"
# More layers than any model has: a file that claims more is wrong.
_MOST_LAYERS: Final = 10_000
_MOST: Final = 2**62
# Float32 states end at 3.4e38; their squares are not in the tables.
_LARGEST: Final = 1e40
# A row's numbers do not compress below a byte, but a small file may be all repetition.
_ROWS_PER_BYTE, _MORE_ROWS = 4, 1_000_000
_ROUNDING: Final = 1e-6
_LONGEST_NAME: Final = 300


def holds_geometry(directory: Path) -> bool:
    """Return whether this directory is a saved Geometry, damaged or not."""
    return (directory / GEOMETRY_FILE).exists()


def read_geometry_json(directory: Path) -> tuple[dict[str, Any], GeometryDocument]:
    """Read geometry.json: return all of it, and the parts that are read as typed values.

    Raises:
        InputError: the directory or file does not exist, is damaged or of another schema version, or a part of it does
            not have the form that `save` gives it.
    """
    file = directory / GEOMETRY_FILE
    if not directory.is_dir():
        raise InputError(
            f"no directory {directory}{near_path(directory)}", "give one that `anglekit analyze --out` wrote"
        )
    try:
        content = read_json_object(file, _AGAIN)
    except FileNotFoundError as error:
        raise InputError(
            f"{directory} holds no geometry.json", "give a directory of `anglekit analyze --out`"
        ) from error
    if content.get("schema_version") != SCHEMA_VERSION:
        version = repr(content.get("schema_version"))[:40]
        raise InputError(f"{file} has schema version {version}", f"this anglekit reads {SCHEMA_VERSION}")
    return content, convert_document(content, GeometryDocument, str(file), _AGAIN)


def read_tables(directory: Path, students: list[str]) -> dict[str, pd.DataFrame]:
    """Read the tables beside geometry.json; missing optional ones are left out.

    Raises:
        InputError: a table is missing or damaged, claims far more than its size, or holds what no analysis writes.
    """
    tables = {}
    for table, columns in (COLUMNS | OPTIONAL_COLUMNS).items():
        file = directory / f"{table}.parquet"
        if table in OPTIONAL_COLUMNS and not file.exists():
            continue
        if not file.is_file():
            raise InputError(f"{directory} lacks {file.name}", _AGAIN)
        frame = _read_table(file, columns, ADDED_COLUMNS.get(table, ()))
        wrong = _impossible(frame, columns, students, pooled=table == "histograms")
        if wrong is not None:
            raise InputError(f"{file} is damaged ({wrong})", _AGAIN)
        tables[table] = frame
    return tables


def _read_table(file: Path, columns: Mapping[str, str], added: tuple[str, ...]) -> pd.DataFrame:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def damaged(reason: str) -> InputError:
        return InputError(f"{file} is damaged ({reason})", _AGAIN)

    texts = [name for name, kind in columns.items() if kind == "str"]
    with foreign_failures(damaged):
        # A repeated text stays one object, however many rows have it.
        opened = pq.ParquetFile(file, read_dictionary=texts)
    with opened:
        schema, n_rows = opened.schema_arrow, opened.metadata.num_rows
        if not 0 <= n_rows <= _ROWS_PER_BYTE * file.stat().st_size + _MORE_ROWS:
            raise damaged(f"it claims {n_rows:,} rows")
        missing = [column for column in columns if column not in schema.names]
        if missing and not set(missing) <= set(added):
            raise InputError(f"{file} lacks the column {missing[0]!r}", allowed=f"expected: {', '.join(columns)}")
        for name, kind in columns.items():
            if name in missing:
                continue
            if schema.names.count(name) > 1 or not _is_of(pa, schema.field(name).type, kind, n_rows):
                held = str(schema.field(name).type)[:40] if schema.names.count(name) == 1 else "there twice"
                raise damaged(f"the column {name!r} is {held}")
        with foreign_failures(damaged):
            held = opened.read(columns=[name for name in columns if name not in missing])
            frame: pd.DataFrame = held.to_pandas(ignore_metadata=True)
    frame = frame.assign(**dict.fromkeys(missing, np.nan))[list(columns)]
    for name, kind in columns.items():
        if kind != "float64" and frame[name].isna().any():
            raise damaged(f"the column {name!r} has cells without a value")
        # Here a text is still one object for all its rows; a text column would hold copies.
        if kind == "str" and max(map(len, frame[name].unique()), default=0) > _LONGEST_NAME:
            raise damaged(f"the column {name!r} has names of more than {_LONGEST_NAME} characters")
    return frame.astype({name: "str" if kind == "str" else kind for name, kind in columns.items()})


def _is_of(pa: Any, held: Any, kind: str, n_rows: int) -> bool:  # noqa: ANN401 - pyarrow has no types
    types = pa.types
    if types.is_null(held):
        return n_rows == 0
    if kind == "str":
        inner = held.value_type if types.is_dictionary(held) else held
        return bool(types.is_string(inner) or types.is_large_string(inner))
    if kind == "int64":
        return bool(types.is_integer(held) and held != pa.uint64())
    return bool(types.is_floating(held) or (types.is_integer(held) and held != pa.uint64()))


def _impossible(frame: pd.DataFrame, columns: Mapping[str, str], students: list[str], *, pooled: bool) -> str | None:
    """Return something in a table that is impossible there, or None."""
    allowed = {"student": students, "stream": get_args(Stream)} | dict.fromkeys(
        ("side", "side_a", "side_b"), ("teacher", "student")
    )
    for name, kind in columns.items():
        values = frame[name]
        if name in allowed:
            other = set(values.unique()) - set(allowed[name])
            if other:
                return f"{name} {min(map(str, other))[:40]!r}"
        elif kind == "int64":
            low, high = _range(name, pooled=pooled)
            if len(values) and not (low <= values.min() and values.max() <= high):
                return f"{name} {values.min() if values.min() < low else values.max()}"
        elif kind == "float64":
            numbers = values.to_numpy()
            most = 1.0 + _ROUNDING if name in ("mean_cosine", "observed_cosine", "acute_fraction") else _LARGEST
            if len(numbers) and (np.abs(numbers) > most).any():
                return f"{name} {numbers[np.nanargmax(np.abs(numbers))]:.6g}"
    key = [name for name in columns if columns[name] == "str" or name in _KEYS]
    if not pooled and frame.duplicated(key).any():
        first = frame[key][frame.duplicated(key)].iloc[0]
        return f"two rows for {', '.join(map(str, first))[:200]}"
    return None


#: The columns that, together with the text columns, identify a row of a table.
_KEYS: Final = frozenset(
    ("vertex", "teacher_i", "teacher_k", "layer", "layer_a", "layer_b", "example", "t", "dimension")
)


def _range(name: str, *, pooled: bool) -> tuple[int, int]:
    if name == "bin":
        return 0, N_BINS - 1
    if name in ("teacher_i", "teacher_k"):
        return -1 if pooled else 0, _MOST_LAYERS
    if name == "vertex" or name.startswith("layer"):
        return 0, _MOST_LAYERS
    return -1 if name.endswith("dimension") else 0, _MOST
