"""Seeded damage: to bytes, to json, to safetensors."""

from __future__ import annotations

import copy
import json
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.fuzz.harness import Case

# Deeper than Python's own parser goes.
MOST_DEEP = 3_000


def unexpected_value(rng: random.Random) -> Any:
    """Return a json value that whoever reads it did not expect."""
    return rng.choice(
        [
            None,
            True,
            False,
            -1,
            0,
            1,
            2,
            7,
            10**6,
            10**9,
            2**31,
            2**63,
            10**18,
            10**30,
            -(10**9),
            0.5,
            1e308,
            float("inf"),
            float("-inf"),
            float("nan"),
            "",
            "x",
            "x" * 5000,
            "none",
            "line\nbreak \x1b[2J \x00 \u202e",
            "\ud800",
            "../outside",
            "/nowhere/outside",
            "=1+1",
            [],
            {},
            [[]],
            [None],
            [1, "x"],
            ["x"],
            [0, 1, 2],
            {"": ""},
            {"x": 1},
            {"name": ["x"]},
            [{}],
        ]
    )


def damaged_bytes(case: Case, content: bytes) -> bytes:
    """Return content with one to three kinds of damage."""
    rng = case.rng
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        content = _DAMAGES[name := rng.choice(sorted(_DAMAGES))](rng, content)
        case.did.append(name)
    return content


def _truncated(rng: random.Random, content: bytes) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def _flipped(rng: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8, 64)) if content else 0):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _flipped_early(rng: random.Random, content: bytes) -> bytes:
    head = min(len(content), 256)
    return _flipped(rng, content[:head]) + content[head:]


def _flipped_late(rng: random.Random, content: bytes) -> bytes:
    head = max(len(content) - 256, 0)
    return content[:head] + _flipped(rng, content[head:])


def _inserted(rng: random.Random, content: bytes) -> bytes:
    where = rng.randrange(len(content) + 1)
    extra = rng.choice((rng.randbytes(rng.randrange(1, 64)), b"\0" * 16, b"\xff\xfe", b"\r\n\r\n", b'"', b"[" * 50))
    return content[:where] + extra + content[where:]


def _cut(rng: random.Random, content: bytes) -> bytes:
    start = rng.randrange(len(content) + 1)
    return content[:start] + content[start + rng.randrange(1, 200) :]


def _doubled(rng: random.Random, content: bytes) -> bytes:
    start = rng.randrange(len(content) + 1)
    piece = content[start : start + rng.randrange(1, 400)]
    return content[:start] + piece * rng.choice((2, 50)) + content[start + len(piece) :]


def _overwritten(rng: random.Random, content: bytes) -> bytes:
    start = rng.randrange(len(content) + 1)
    length = min(rng.choice((1, 4, 8, 64)), len(content) - start)
    filling = rng.choice((b"\0" * length, b"\xff" * length, rng.randbytes(length)))
    return content[:start] + filling + content[start + length :]


def _replaced(rng: random.Random, _content: bytes) -> bytes:
    return rng.choice((b"", b"\n", b"\0", b"{}", b"[]", b"true", b"{", b"PK\x03\x04", rng.randbytes(200), b"[" * 3_000))


_DAMAGES: dict[str, Callable[[random.Random, bytes], bytes]] = {
    "truncated": _truncated,
    "bits flipped": _flipped,
    "bits flipped at its start": _flipped_early,
    "bits flipped at its end": _flipped_late,
    "bytes inserted": _inserted,
    "a piece cut out": _cut,
    "a piece repeated": _doubled,
    "overwritten": _overwritten,
    "replaced": _replaced,
}


def damaged_file(case: Case, file: Path) -> None:
    """Damage a file's bytes in place."""
    case.did.append(file.name)
    file.write_bytes(damaged_bytes(case, file.read_bytes()))


def damaged_json(case: Case, value: Any, more: dict[str, Any] | None = None) -> Any:
    """Return a json value with one to four entries replaced, removed, added or renamed.

    Args:
        case: whose generator draws.
        value: changed in place where it can be.
        more: entries that may be added to an object.
    """
    rng = case.rng
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        places = list(_places(value))
        if not places:
            case.did.append("all replaced")
            return unexpected_value(rng)
        # Objects near the root as often as the many leaves.
        depth = rng.choice(sorted({len(path) for path, _, _ in places}))
        path, holder, key = rng.choice([place for place in places if len(place[0]) == depth])
        action = rng.choice(("replace", "replace", "replace", "remove", "add", "rename", "nest"))
        new = unexpected_value(rng)
        if action == "add" and isinstance(holder, dict):
            key = rng.choice(sorted(more or {"x": 0}))
            new = (more or {"x": 0})[key]
        new = copy.deepcopy(new)
        if action == "remove":
            del holder[key]
        elif action == "rename" and isinstance(holder, dict):
            holder[f"{key}_"] = holder.pop(key)
        elif action == "nest":
            holder[key] = _nested(rng, holder[key])
        else:
            holder[key] = new
        case.did.append(f"{action} {'.'.join(map(str, path))[:80]} {str(new)[:60]!r}")
    return value


def _nested(rng: random.Random, value: Any) -> Any:
    for _ in range(rng.choice((1, 3, 50))):
        value = [value] if rng.random() < 0.5 else {"x": value}
    return value


def _places(value: Any, path: tuple[Any, ...] = ()) -> Any:
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, held in entries:
        yield (*path, key), value, key
        if len(path) < 8:
            yield from _places(held, (*path, key))


def damaged_json_file(case: Case, file: Path, more: dict[str, Any] | None = None) -> None:
    """Damage a json file in place: its values, or its text."""
    rng = case.rng
    case.did.append(file.name)
    style = rng.random()
    if style < 0.2:
        damaged_file(case, file)
        return
    if style < 0.23:
        case.did.append("nested deeply")
        file.write_text('{"a":' * MOST_DEEP + "1" + "}" * MOST_DEEP)
        return
    try:
        value = damaged_json(case, json.loads(file.read_text(encoding="utf-8")), more)
    except (ValueError, RecursionError):  # damaged before
        damaged_file(case, file)
        return
    file.write_text(json.dumps(value, ensure_ascii=True), encoding="utf-8")
    if rng.random() < 0.05:
        case.did.append("a number of 5000 digits")
        text = file.read_text()
        file.write_text(text.replace("1", "1" * 5000, 1))


def damaged_safetensors(case: Case, file: Path) -> None:
    """Damage a safetensors file in place: its header's claims, its length, or its bytes."""
    rng = case.rng
    case.did.append(file.name)
    content = file.read_bytes()
    try:
        size = struct.unpack("<Q", content[:8])[0]
        header, data = json.loads(content[8 : 8 + size]), content[8 + size :]
        names = [name for name in header if name != "__metadata__"]
        assert names
    except (ValueError, RecursionError, AssertionError, struct.error):  # damaged before
        damaged_file(case, file)
        return
    action = rng.choice(("bytes", "bytes", "header", "header", "claim", "claim", "length", "shuffle", "values"))
    if action == "bytes":
        file.write_bytes(damaged_bytes(case, content))
        return
    if action == "length":
        claimed = rng.choice((0, 1, 2**63, 2**64 - 1, len(content), size + 1, size - 1, 10**8))
        case.did.append(f"header of {claimed}")
        file.write_bytes(struct.pack("<Q", claimed) + content[8:])
        return
    if action == "header":
        header = damaged_json(case, header)
    elif action == "claim":
        _claim(case, header, rng.choice(names))
    elif action == "shuffle":
        one, other = rng.choice(names), rng.choice(names)
        header[one], header[other] = header[other], header[one]
        case.did.append(f"{one} and {other} exchanged")
    else:
        case.did.append("values overwritten")
        pattern = rng.choice((b"\x00\x00\xc0\x7f", b"\x00\x00\x80\x7f", b"\xff\xff\x7f\x7f", b"\0\0\0\0"))
        data = (pattern * (len(data) // 4 + 1))[: len(data)]
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + data)


def _claim(case: Case, header: dict[str, Any], name: str) -> None:
    rng = case.rng
    entry = header[name]
    what = rng.choice(("huge", "other shape", "dtype", "offsets", "gone", "renamed"))
    case.did.append(f"{name}: {what}")
    if what == "huge":
        entry["shape"] = rng.choice(([10**9], [2**32, 2**32], [10**9, 10**9, 10**9], [0, 10**18], [2**63]))
        if rng.random() < 0.5:
            entry["data_offsets"] = [entry["data_offsets"][0], entry["data_offsets"][0] + 4 * 10**9]
    elif what == "other shape":
        entry["shape"] = rng.choice((entry["shape"][::-1], [*entry["shape"], 1], [1, *entry["shape"]], []))
    elif what == "dtype":
        entry["dtype"] = rng.choice(("F16", "F64", "I64", "BOOL", "BF16", "U8", "I32", "F8_E4M3", "X", "C64"))
    elif what == "offsets":
        begin, end = entry["data_offsets"]
        entry["data_offsets"] = rng.choice(([end, begin], [begin, end + 4], [begin - 4, end], [0, 0], [begin, 2**63]))
    elif what == "gone":
        del header[name]
    else:
        header[f"{name}.x"] = header.pop(name)
