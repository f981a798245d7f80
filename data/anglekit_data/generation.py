"""What all generators share: random draws, which split owns which content, and the checksum that a card gives."""

from __future__ import annotations

import hashlib
import json
import random
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

SPLITS = ("train", "validation", "test")

# All keys fall into ten parts: one is kept for validation and one for test.
_PARTS = 10
_PART_OF = {0: "validation", 1: "test"}
_T = TypeVar("_T")


class Draw:
    """Random choices built on `random.Random.random` alone, the one method whose sequence Python promises to keep.

    See https://docs.python.org/3/library/random.html#notes-on-reproducibility.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed).random

    def chance(self, probability: float) -> bool:
        """Return True with this probability."""
        return self._random() < probability

    def pick(self, items: Sequence[_T]) -> _T:
        """Return one of the items, each as likely as the others."""
        return items[int(self._random() * len(items))]

    def distinct(self, items: Sequence[_T], count: int) -> list[_T]:
        """Return `count` different items in random order."""
        left = list(items)
        return [left.pop(int(self._random() * len(left))) for _ in range(count)]


def split_of(key: str) -> str:
    """The split that owns a piece of content, from a checksum of the words that name it."""
    return _PART_OF.get(zlib.crc32(key.encode()) % _PARTS, "train")


def seed_of(corpus: str, split: str, seed: int) -> int:
    """The start of a corpus's own random stream."""
    return zlib.crc32(f"{corpus}|{split}|{seed}".encode())


def check_request(split: str, size: int, multiple: int = 1) -> None:
    """Refuse, by a ValueError, an unknown split and a size that is not a positive multiple."""
    if split not in SPLITS:
        raise ValueError(f"split {split!r}: allowed are {', '.join(SPLITS)}")
    if size < 1 or size % multiple:
        raise ValueError(f"size {size}: give a positive multiple of {multiple}")


def sha256(rows: Iterable[Mapping[str, Any]]) -> str:
    """The sha256, in hexadecimal, of rows as canonical JSON lines: with sorted keys and ASCII text."""
    lines = "".join(json.dumps(dict(row), sort_keys=True) + "\n" for row in rows)
    return hashlib.sha256(lines.encode()).hexdigest()
