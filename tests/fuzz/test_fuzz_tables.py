"""Hostile tables: damaged text files of every kind and encoding, tampered parquet, cells that other programs run."""

from __future__ import annotations

import json
import random
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from anglekit.errors import InputError
from anglekit.probes.data import ProbeData, read_probe
from anglekit.probes.tokenize import tokenize_probe
from tests.fuzz.damaged_tables import damaged_parquet
from tests.fuzz.harness import Campaign, Case, cases
from tests.fuzz.mutations import damaged_bytes, hostile_values

SUFFIXES = (".jsonl", ".csv", ".tsv", ".parquet")
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
        "=cmd|' /C calc'!A0",
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
    *("<script>alert(1)</script>", "{{7*7}}", "$(touch x)", "`touch x`", "NULL", "None", "1e999", "good " * 300),
)


def table_of(rng: random.Random) -> pd.DataFrame:
    """Return a small table of texts that are unusual but allowed."""
    rows = rng.choice((0, 1, 3, 20))
    names = rng.choice((["sentence"], ["premise", "hypothesis"], ["text", "target", "label"], ["Sentence", "idx"]))
    return pd.DataFrame({name: [rng.choice(_TEXTS) for _ in range(rows)] for name in names}, dtype=object)


def write(case: Case, file: Path) -> None:
    """Write a table of the file's kind, then damage it."""
    rng = case.rng
    frame = table_of(rng)
    if file.suffix == ".parquet":
        if frame.empty:
            frame = pd.DataFrame({"sentence": ["good"]})
        frame.to_parquet(file, index=False)
        damaged_parquet(case, file)
        return
    file.write_bytes(as_text(case, frame, file.suffix))
    if rng.random() < 0.6:
        file.write_bytes(damaged_bytes(case, file.read_bytes()))


def as_text(case: Case, frame: pd.DataFrame, suffix: str) -> bytes:
    rng = case.rng
    style = rng.choice(("plain", "plain", "mixed", "encoded", "wide", "long line", "quotes", "keys", "ends"))
    case.did.append(style)
    if suffix == ".jsonl":
        rows = [dict(zip(frame.columns, row, strict=True)) for row in frame.itertuples(index=False)] or [{"text": "x"}]
        if style in ("mixed", "quotes"):
            for row in rows:
                row[rng.choice(sorted(row))] = hostile_values(rng)
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


def sane(probe: ProbeData, tokenizer) -> None:
    assert probe.texts
    assert all(isinstance(text, str) and text.strip() for text in probe.texts)
    assert len(probe.rows) == len(probe.texts) == len(set(probe.rows))
    assert probe.targets is None or len(probe.targets) == len(probe.texts)
    for text in probe.texts:
        text.encode()
    try:
        tokens = tokenize_probe(probe, tokenizer, needs_target=False, max_length=None, model_max_length=64)
    except InputError as error:
        assert probe.source in str(error)  # noqa: PT017 - texts of special tokens alone
        return
    assert np.all(tokens.lost_tokens >= 0)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_tables(suffix, tiny_tokenizer, tmp_path):
    campaign = Campaign(place := tmp_path / "place")
    tokenizer = tiny_tokenizer()
    file = place / f"probe{suffix}"
    for case in cases(f"table {suffix}", few=100):
        write(case, file)
        options = {"limit": case.rng.choice((None, None, 1, 2)), "seed": 3}
        campaign.judge(case, partial(read_probe, str(file), **options), str(file), partial(sane, tokenizer=tokenizer))
    campaign.finish()
