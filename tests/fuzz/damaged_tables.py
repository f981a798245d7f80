"""Seeded damage to the parquet tables of a Geometry: cells, types, columns and rows that no analysis writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tests.fuzz.harness import Case
from tests.fuzz.mutations import damaged_file

_CELLS: tuple[Any, ...] = (
    *(0, 1, -1, 999, 1000, 10**6, 10**9, 2**62, -(2**63), 0.5, 1.0, -1.0, 57.0, 1e308, 1e-308),
    *(float("nan"), float("inf"), float("-inf"), None, "", "x", "encoder", "teacher", "../x", "\x1b[2J\n", True),
)


def damaged_parquet(case: Case, file: Path) -> None:
    """Damage a table in place: its bytes, or what stands in it."""
    rng = case.rng
    case.did.append(file.name)
    if rng.random() < 0.35:
        damaged_file(case, file)
        return
    try:
        frame = pd.read_parquet(file)
    except (OSError, ValueError):  # damaged before
        damaged_file(case, file)
        return
    columns = list(frame.columns)
    actions = (
        "cell",
        "cell",
        "cell",
        "column",
        "column",
        "type",
        "without",
        "more",
        "rows",
        "twice",
        "shuffled",
        "codec",
    )
    action, column = rng.choice(actions), rng.choice(columns)
    value = rng.choice(_CELLS)
    case.did.append(f"{action} {column} {value!r}")
    compression = "snappy"
    if action == "cell" and len(frame):
        cells = frame[column].astype(object)
        for _ in range(rng.choice((1, 1, 5))):
            cells.iloc[rng.randrange(len(frame))] = value
        frame[column] = cells
    elif action == "column":
        frame[column] = [value] * len(frame)
    elif action == "type":
        kind = rng.choice(
            ("str", "float32", "float16", "int8", "uint64", "bool", "category", "datetime64[ns]", "bytes")
        )
        case.did.append(kind)
        cells = frame[column]
        frame[column] = [str(each).encode() for each in cells] if kind == "bytes" else _cast(cells, kind)
    elif action == "without":
        frame = frame.drop(columns=column)
    elif action == "more":
        frame["more"] = [[1, {"x": 2}]] * len(frame)
        frame[f"{column}.inner"] = 1
    elif action == "rows":
        frame = frame.iloc[: rng.choice((0, 1, 2))]
    elif action == "twice":
        frame = pd.concat([frame, frame.iloc[: rng.choice((1, 2, len(frame)))]])
    elif action == "shuffled":
        frame = frame.sample(frac=1.0, random_state=rng.randrange(2**31))
    else:
        compression = rng.choice(("zstd", "gzip", "brotli", "lz4", "none"))
    _write(frame, file, compression)


def _cast(cells: pd.Series, kind: str) -> pd.Series:
    with np.errstate(all="ignore"):
        try:
            return cells.astype(kind)
        except (ValueError, TypeError, OverflowError, pd.errors.OutOfBoundsDatetime):
            return cells.astype(str)


def _write(frame: pd.DataFrame, file: Path, compression: str) -> None:
    try:
        frame.to_parquet(file, index=False, compression=compression)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):  # a column of two kinds: as text then
        pq.write_table(pa.table({name: [str(each) for each in frame[name]] for name in frame.columns}), file)
