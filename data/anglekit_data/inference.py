"""The generator of the built-in `inference` corpus: premise, hypothesis and one of three labels.

A hypothesis is drawn first, then a premise for each label, so that a hypothesis alone says nothing about its label.
Labels follow from the sentences' meaning. The same split, size and seed give the same pairs on every platform.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from anglekit_data.generation import Draw, check_request, seed_of, split_of
from anglekit_data.inference_families import FAMILIES, LABELS


@dataclass(frozen=True)
class Pair:
    """One row of the corpus; `family` names the sentence family and is not a column of the data frame."""

    premise: str
    hypothesis: str
    label: str
    family: str


def generate(split: str, size: int, seed: int = 0) -> list[Pair]:
    """Draw `size` pairs whose hypotheses belong to one split, in random order, a third of them of each label.

    Another seed gives another sample of the same split. Held-out pairs are all different.

    Raises:
        ValueError: the split is unknown, or the size is not a positive multiple of three.
    """
    check_request(split, size, multiple=len(LABELS))
    draw = Draw(seed_of("inference", split, seed))
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


def rows(split: str, size: int, seed: int = 0) -> list[dict[str, Any]]:
    """The pairs as `premise`, `hypothesis` and `label`."""
    return [
        {"premise": pair.premise, "hypothesis": pair.hypothesis, "label": pair.label}
        for pair in generate(split, size, seed)
    ]
