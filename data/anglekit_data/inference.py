"""The generator of the built-in `inference` corpus: premise, hypothesis and one of three labels.

A hypothesis is drawn first, then a premise for each label, so that a hypothesis alone says nothing about its label.
Labels follow from the sentences' meaning. The same split, size and seed give the same pairs on every platform.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

from anglekit_data.inference_families import FAMILIES, LABELS, Draw

__all__ = ["SPLIT_SIZES", "Pair", "canonical_jsonl", "generate", "sha256"]

SPLIT_SIZES: dict[str, int] = {"train": 48_000, "validation": 1_500, "test": 1_500}

# Of ten parts of all hypothesis keys, one is kept for validation and one for test.
_PARTS = 10
_PART_OF = {0: "validation", 1: "test"}


@dataclass(frozen=True)
class Pair:
    """One row of the corpus; `family` names the sentence family and is not a column of the data frame."""

    premise: str
    hypothesis: str
    label: str
    family: str


def split_of(key: str) -> str:
    """The split that a hypothesis belongs to, from the words it combines."""
    return _PART_OF.get(zlib.crc32(key.encode()) % _PARTS, "train")


def generate(split: str, size: int, seed: int = 0) -> list[Pair]:
    """Draw different pairs of one split.

    Args:
        split: a name from `SPLIT_SIZES`.
        size: how many pairs; a multiple of three, as every hypothesis comes with each label.
        seed: another seed gives another sample of the same split.

    Returns:
        `size` pairs, no two alike, a third of them of each label.

    Raises:
        ValueError: the split is unknown, or the size is no positive multiple of three.
    """
    if split not in SPLIT_SIZES:
        raise ValueError(f"split {split!r}: allowed are {', '.join(SPLIT_SIZES)}")
    if size < 1 or size % len(LABELS):
        raise ValueError(f"size {size}: give a positive multiple of {len(LABELS)}")
    draw = Draw(zlib.crc32(f"inference|{split}|{seed}".encode()))
    urn = [name for name, (_, parts) in FAMILIES.items() for _ in range(parts)]
    pairs: list[Pair] = []
    seen: set[tuple[str, str]] = set()
    while len(pairs) < size:
        family = draw.pick(urn)
        triple = FAMILIES[family][0](draw)
        while split_of(triple.key) != split:
            triple = FAMILIES[family][0](draw)
        new = [(premise, triple.hypothesis) for premise in triple.premises]
        if split != "train" and any(pair in seen for pair in new):
            continue
        seen.update(new)
        pairs += [Pair(p, h, label, family) for (p, h), label in zip(new, LABELS, strict=True)]
    return draw.distinct(pairs, len(pairs))


def canonical_jsonl(pairs: Iterable[Pair]) -> str:
    """The pairs as JSON lines with sorted keys and ASCII text: the form whose sha256 the data card gives."""
    rows = ({"premise": p.premise, "hypothesis": p.hypothesis, "label": p.label} for p in pairs)
    return "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows)


def sha256(pairs: Iterable[Pair]) -> str:
    """The sha256 of `canonical_jsonl`, in hexadecimal."""
    return hashlib.sha256(canonical_jsonl(pairs).encode()).hexdigest()
