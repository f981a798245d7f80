"""Json lines read in blocks by Arrow: the rows, or the refusal, are those of Python's own json, line by line."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.json as pa_json
import pytest

from anglekit.errors import InputError
from anglekit.tables import json_rows
from anglekit.tables.json_blocks import read_blocks
from anglekit.tables.kept_rows import KeptRows

SEEDS = 300
Columns = dict[str, list[Any]]


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a key twice")
    return dict(pairs)


def by_hand(text: bytes) -> Columns | int:
    """Return the cells by column, or the number of the first line that is refused."""
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(text.split(b"\n"), start=1):
        if not line.strip(b" \t\r"):
            continue
        try:
            row = json.loads(line, object_pairs_hook=unique)
            if not isinstance(row, dict):
                return number
            flat = [
                pair
                for name, cell in row.items()
                for pair in (
                    [(f"{name}.{key}", inner) for key, inner in cell.items()]
                    if isinstance(cell, dict)
                    else [(name, cell)]
                )
            ]
            rows.append(unique(flat))
        except (ValueError, RecursionError):
            return number
    return {name: [row.get(name) for row in rows] for name in dict.fromkeys(name for row in rows for name in row)}


def read(text: bytes, size: int = 1 << 20) -> Columns | int:
    kept = KeptRows("rows.jsonl")
    before, json_rows._BYTES_AT_ONCE = json_rows._BYTES_AT_ONCE, size
    try:
        for rows in json_rows.read_json_lines(io.BytesIO(text), "rows.jsonl", None):
            kept.add(rows)
    except InputError as error:
        return int(str(error).removeprefix("rows.jsonl, line ").split(" ")[0])
    finally:
        json_rows._BYTES_AT_ONCE = before
    return {name: kept.column(name) for name in kept.names}


def exactly(value: Any) -> Any:
    """Return what tells 1, 1.0 and True apart, -0.0 from 0.0, and equals itself for NaN; the order of keys is none."""
    if isinstance(value, dict):
        return {key: exactly(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [exactly(inner) for inner in value]
    return type(value), repr(value)


def same(one: Columns | int, other: Columns | int) -> bool:
    return exactly(one) == exactly(other) and (isinstance(one, int) or list(one) == list(other))  # columns in order


TEXTS = (
    *(
        "",
        "a",
        "caf\u00e9",
        "\u2028",
        "\U0001f600",
        "a\nb",
        "\0",
        "\x7f",
        '"',
        "\\",
        "{",
        "}",
        '":',
        "null",
        "1",
        "NaN",
    ),
    *("2024-02-29", "2024-02-29 12:30:00", "2024-02-29T12:30:00Z", "12:30"),
)
WHOLE = (0, 1, -1, 7, 2**53 + 1, 2**63 - 1, -(2**63))
BROKEN = (0.1, 2.5, -1e-9, 5e-324, 1.5e300, 1 / 3)
NUMBERS = (*WHOLE, *BROKEN, 0.0, -0.0, 1.0, 1e16, 1e22, 2**63, -(2**63) - 1, 2**64, 10**30)
KEYS = ("a", "b", "text", "a.b", "", "\u00e9", "label")
Draw = random.Random
Cells = Callable[[Draw], Any]


def one_kind(draw: Draw, depth: int = 0) -> Cells:
    """Return what draws the cells of a column: of one kind, as tables have them."""
    values = draw.choice([TEXTS, TEXTS[:1], TEXTS[-4:-2], WHOLE, BROKEN, (0.0, 1.0, 2.5), NUMBERS, (True, False)])
    kind = draw.choice("vvvvnlod" if depth < 3 else "v")
    if kind == "v":
        return lambda draw: draw.choice(values)
    if kind == "n":
        return lambda draw: draw.choice((*values, None))
    inner = [one_kind(draw, depth + 1) for _ in range(2)]
    if kind == "l":
        return lambda draw: [inner[0](draw) for _ in range(draw.randrange(4))]
    keys = draw.sample(KEYS, 2)
    if kind == "o":
        return lambda draw: {key: each(draw) for key, each in zip(keys, inner, strict=True)}
    return lambda draw: draw.choice(({}, {keys[0]: inner[0](draw)}, None))


def lines(draw: Draw) -> bytes:
    """Return rows as files have them, most of one kind by column, some with others; written in many ways."""
    columns = {key: one_kind(draw) for key in draw.sample(KEYS, draw.randrange(4))}
    rows: list[Any] = [{key: cell(draw) for key, cell in columns.items()} for _ in range(draw.randint(1, 12))]
    for _ in range(draw.choice((0, 0, 0, 0, 0, 1, 3))):
        odd = {key: one_kind(draw)(draw) for key in draw.sample(KEYS, draw.randrange(4))}
        rows[draw.randrange(len(rows))] = draw.choice((odd, odd, odd, one_kind(draw)(draw)))
    written = ""
    blanks = draw.choice(((", ", ": "), (",", ":"), (" ,", " :")))
    for row in rows:
        if isinstance(row, dict) and draw.random() < 0.2:
            row = dict(draw.sample(list(row.items()), len(row)))
        line = json.dumps(row, ensure_ascii=draw.random() < 0.5, separators=blanks)
        written += line + draw.choice(["\n"] * 200 + ["\r\n", "\n\n", " \n", " ", ""])
    return written.encode()


def damaged(text: bytes, draw: Draw) -> bytes:
    """Return a text with a few bytes changed."""
    found = bytearray(text)
    for _ in range(draw.randint(1, 3)):
        place = draw.randrange(len(found) + 1)
        piece = draw.choice([b"", b"\n", b" ", b"{", b"}", b"[", b'"', b",", b":", b"1", b"\\", b"-", b"e"])
        found[place : place + draw.randrange(3)] = piece
    return bytes(found)


def test_rows_and_refusals_are_those_of_pythons_json():
    by_arrow, refused = 0, 0
    for seed in range(SEEDS):
        draw = Draw(seed)
        text = lines(draw)
        for each in (text, damaged(text, draw)):
            if not valid(each):
                continue  # refused before, by whoever reads the file
            expected = by_hand(each)
            refused += isinstance(expected, int)
            by_arrow += all(rows is not None for _, rows in read_blocks([each]))
            for size in (1 << 20, draw.randint(1, 200))[: 1 + (seed % 4 == 0)]:
                assert same(read(each, size), expected), (seed, size, each)
    # The control: not everything is left to the other reader, and not everything is read.
    assert by_arrow > SEEDS / 3
    assert refused > SEEDS / 3


def valid(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


HAZARDS = {
    "dates": b'{"a": "2024-02-29"}\n{"a": "2024-03-01"}\n',
    "dates in lists of objects": b'{"a": [{"b": "2024-02-29"}]}\n',
    "whole numbers beside others": b'{"a": 1}\n{"a": 2.5}\n{"a": 3.0}\n',
    "whole numbers in lists": b'{"a": [1, 2.0]}\n{"a": [0.5]}\n',
    "more than 64 bits": b'{"a": 18446744073709551616}\n',
    "objects of other keys": b'{"a": [{"b": 1}, {"c": 2}]}\n',
    "two objects on a line": b'{"a": 1} {"a": 2}\n',
    "an object on two lines": b'{"a":\n1}\n',
    "NaN": b'{"a": 1}\n{"a": NaN}\n',
}


def arrows_own(text: bytes) -> Columns | None:
    try:
        table = pa_json.read_json(pa.BufferReader(text))
        return {name: table.column(name).to_pylist() for name in table.column_names}
    except (pa.ArrowException, IndexError):
        return None


@pytest.mark.parametrize("text", HAZARDS.values(), ids=HAZARDS)
def test_arrow_alone_would_have_read_otherwise(text):
    """The control: what is the same by this reader is not the same by Arrow's."""
    assert same(read(text), by_hand(text))
    assert exactly(arrows_own(text)) != exactly(by_hand(text))


def test_a_null_among_objects_is_left_to_another_reader():
    """Of this Arrow (26.0.1) makes an array that it calls invalid itself."""
    text = b'{"a": [null, {"b": 1}]}\n'
    assert same(read(text), by_hand(text))
    assert [found for _, found in read_blocks([text])] == [None]
    with pytest.raises(pa.ArrowInvalid):
        pa_json.read_json(pa.BufferReader(text)).validate(full=True)


def test_what_another_reader_refuses_never_reaches_arrow(monkeypatch):
    def reached(*_, **__):
        raise AssertionError("Arrow was asked")

    monkeypatch.setattr(pa_json, "read_json", reached)
    assert read(b'{"a": 1}\n[2]\n') == 2
    # The control: else it is asked.
    with pytest.raises(AssertionError, match="asked"):
        read(b'{"a": 1}\n')


def test_plain_tables_are_read_by_arrow():
    rows = [
        {"id": number, "text": f"caf\u00e9 {number}", "score": number / 2, "meta": {"lang": "en", "on": "2024-02-29"}}
        for number in range(9)
    ]
    text = "".join(f"{json.dumps(row)}\r\n" for row in rows).encode()
    ((_, found),) = read_blocks([text])
    assert found is not None
    assert found.n_rows == 9
    assert list(found.columns) == ["id", "text", "score", "meta.lang", "meta.on"]
    assert all(isinstance(cells, pa.Array) for cells in found.columns.values())
    assert same(read(text, 100), by_hand(text))
