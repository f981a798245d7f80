"""Seeded damage to tables: parquet with cells, types and columns that nobody expects, and text files of all kinds."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tests.fuzz.harness import Case
from tests.fuzz.mutations import damaged_bytes, damaged_file, unexpected_value

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


_ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252", "shift_jis", "utf-7")
_TEXTS = (
    *(
        "the film was good",
        "",
        " ",
        "naïve café",
        "映画はよかった",
        "💡" * 5,
        "a\u0301",
        "\u202e txet",
        "\ufeff",
        "\x7f\x1b[31m",
    ),
    *(
        "=1+1",
        "@SUM(A1)",
        "+1",
        "-1",
        '"',
        '""',
        "'",
        "a\tb",
        "a\nb",
        "a\r\nb",
        "a,b",
        "\\N",
        "NaN",
    ),
    *("<b>x</b> & y", "{{ name }}", "$HOME", "NULL", "None", "1e999", "good " * 300),
)


def _table_of(rng: random.Random) -> pd.DataFrame:
    """Return a small table of texts that are unusual but allowed."""
    rows = rng.choice((0, 1, 3, 20))
    names = rng.choice((["sentence"], ["premise", "hypothesis"], ["text", "target", "label"], ["Sentence", "idx"]))
    return pd.DataFrame({name: [rng.choice(_TEXTS) for _ in range(rows)] for name in names}, dtype=object)


def write_table(case: Case, file: Path) -> None:
    """Write a table of the file's kind, then damage it."""
    rng = case.rng
    frame = _table_of(rng)
    if file.suffix == ".parquet":
        if frame.empty:
            frame = pd.DataFrame({"sentence": ["good"]})
        frame.to_parquet(file, index=False)
        damaged_parquet(case, file)
        return
    file.write_bytes(_as_text(case, frame, file.suffix))
    if rng.random() < 0.6:
        file.write_bytes(damaged_bytes(case, file.read_bytes()))


def _as_text(case: Case, frame: pd.DataFrame, suffix: str) -> bytes:
    rng = case.rng
    style = rng.choice(("plain", "plain", "mixed", "encoded", "wide", "long line", "quotes", "keys", "ends"))
    case.did.append(style)
    if suffix == ".jsonl":
        rows = [dict(zip(frame.columns, row, strict=True)) for row in frame.itertuples(index=False)] or [{"text": "x"}]
        if style in ("mixed", "quotes"):
            for row in rows:
                row[rng.choice(sorted(row))] = unexpected_value(rng)
        elif style == "keys":
            rows = [{**row, str(number): number} for number, row in enumerate(rows)]
            rows.append({"text": {"a": "b"}, "text.a": "c"} if rng.random() < 0.5 else {"": 1})
        elif style == "wide":
            rows[0] |= {f"c{number}": 1 for number in range(rng.choice((100, 12_000)))}
        elif style == "long line":
            rows[0]["text"] = "x " * rng.choice((20_000, 1 << 19))
        text = "\n".join(json.dumps(row, ensure_ascii=rng.random() < 0.5) for row in rows)
        if style == "ends":
            text = text.replace("\n", rng.choice(("\r\n", "\r", "\u2028", "\n\n\n"))) + rng.choice(
                ("", "\n", ",", "[1]")
            )
    else:
        mark = "," if suffix == ".csv" else "\t"
        text = frame.to_csv(index=False, sep=mark)
        if style == "wide":
            text = mark.join(f"c{number}" for number in range(rng.choice((100, 12_000)))) + "\n" + text
        elif style == "long line":
            text += "x " * rng.choice((20_000, 1 << 19))
        elif style == "quotes":
            where = rng.randrange(len(text))
            text = text[:where] + '"' + text[where:]
        elif style == "keys":
            text = text.replace(frame.columns[0], rng.choice(("", "a,a", '"a\nb"', "x" * 3000, "text")), 1)
        elif style == "ends":
            text = text.replace("\n", rng.choice(("\r\n", "\r", "\n\n", "\x0b", "\u2028")))
    content = text.encode("utf-8", "surrogatepass")
    if style == "encoded":
        encoding = rng.choice(_ENCODINGS)
        case.did.append(encoding)
        content = text.encode(encoding, "replace" if encoding not in ("utf-8", "utf-8-sig") else "surrogatepass")
    elif style == "mixed":
        where = rng.randrange(len(content) + 1)
        content = (
            content[:where]
            + rng.choice(("é".encode("latin-1"), "é".encode("utf-16"), b"\0", b"\xed\xa0\x80"))
            + content[where:]
        )
    return content
