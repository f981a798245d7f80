#!/usr/bin/env bash
# pyarrow 26.0.1: json lines whose first list begins with null.
#
# Expected: {"a": [null, 1]} is a list of a null and a number, as {"a": [1, null]} is, wherever in the file it stands.
# Seen: a null before the first value of a column's lists is lost, and their offsets still count it: an array that its
# own validation refuses, returned without an error. What is read of it or written from it is made up, and every later
# list of the block is shifted. Behind a value a null is right, in whichever row the value stands.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --disable-pip-version-check pyarrow==26.0.1
"$place/venv/bin/python" - <<'PYTHON'
import json

import pyarrow as pa
from pyarrow import json as pa_json


def verdict(rows):
    text = "".join(json.dumps({"a": row}) + "\n" for row in rows).encode()
    table = pa_json.read_json(pa.BufferReader(text))  # never an error
    try:
        table.validate(full=True)
    except pa.ArrowInvalid as error:
        return f"invalid: {error}"
    return "right" if table.column("a").to_pylist() == rows else "other values"


for rows, expected in (
    ([[1, None]], "right"),
    ([[1], [None, 2]], "right"),
    ([[None], [None]], "right"),
    ([[None, 1]], "invalid"),
    ([[None, 1], [2]], "invalid"),
    ([[None, "a text"]], "invalid"),
    ([[None, {"b": 1}]], "invalid"),
):
    found = verdict(rows)
    print(f"{json.dumps(rows)}: {found}")
    assert found.startswith(expected)
print("unchanged: a null before a column's first value in lists is lost")
PYTHON
