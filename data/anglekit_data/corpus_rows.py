"""What the generated corpora share: which split owns which content, and the form whose checksum a card gives."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["SPLITS", "canonical_jsonl", "check_request", "seed_of", "sha256", "split_of"]

SPLITS = ("train", "validation", "test")

# Of ten parts of all keys, one is kept for validation and one for test.
_PARTS = 10
_PART_OF = {0: "validation", 1: "test"}


def split_of(key: str) -> str:
    """The split that owns a piece of content, from a checksum of the words that name it."""
    return _PART_OF.get(zlib.crc32(key.encode()) % _PARTS, "train")


def seed_of(corpus: str, split: str, seed: int) -> int:
    """The start of a corpus's own random stream."""
    return zlib.crc32(f"{corpus}|{split}|{seed}".encode())


def check_request(split: str, size: int, multiple: int = 1) -> None:
    """Refuse what a generator cannot draw.

    Raises:
        ValueError: the split is unknown, or the size is no positive multiple.
    """
    if split not in SPLITS:
        raise ValueError(f"split {split!r}: allowed are {', '.join(SPLITS)}")
    if size < 1 or size % multiple:
        raise ValueError(f"size {size}: give a positive multiple of {multiple}")


def canonical_jsonl(rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows as JSON lines with sorted keys and ASCII text: the form whose sha256 the data cards give."""
    return "".join(json.dumps(dict(row), sort_keys=True) + "\n" for row in rows)


def sha256(rows: Iterable[Mapping[str, Any]]) -> str:
    """The sha256 of `canonical_jsonl`, in hexadecimal."""
    return hashlib.sha256(canonical_jsonl(rows).encode()).hexdigest()
