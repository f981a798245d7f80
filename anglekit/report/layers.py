"""The rows of a Geometry's layers as texts, for the report and for notebooks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from anglekit.comparison.text import Table

__all__ = ["LAYER_NOTE", "layers_of"]


@dataclass(frozen=True)
class _Column:
    name: str
    key: str
    form: Callable[[Any], str]


def _degrees(value: float) -> str:
    return f"{value:.1f}°"


def _cosine(value: float) -> str:
    return f"{value:z.3f}"


_LAYER_COLUMNS: Final = (
    _Column("layer", "vertex", str),
    _Column("angle", "mean_angle_degrees", _degrees),
    _Column("cosine", "mean_cosine", _cosine),
    _Column("chance cosine", "null_cosine", _cosine),
    _Column("acute", "acute_fraction", "{:.1%}".format),
    _Column("tangential cosine", "mean_tangential_cosine", _cosine),
    _Column("permuted cosine", "permuted_cosine", _cosine),
    _Column("pairs above", "pairs_above_permuted", str),
    _Column("pairs below", "pairs_below_permuted", str),
    _Column("obtuse pairs", "obtuse_pairs", str),
)

LAYER_NOTE: Final = (
    "Means over tokens and pairs of teacher layers. Chance: unrelated vectors of the same lengths. Tangential: the "
    "student's own direction taken out; 0 for unrelated vectors. Permuted: the student's state of another example; "
    "above and below count pairs surely on either side of it (95% interval). Layer 0 is the embedding output, layer "
    "b + 1 the output of block b."
)


def layers_of(rows: Sequence[Mapping[str, Any]], title: str) -> Table:
    """Return rows of `summary_rows` as a table of texts; what is unknown is blank."""
    texts = tuple((row["student"], row["stream"], *(_shown(row, column) for column in _LAYER_COLUMNS)) for row in rows)
    header = ("student", "stream", *(column.name for column in _LAYER_COLUMNS))
    return Table(title, header, texts, frozenset(range(2, len(header))))


def _shown(row: Mapping[str, Any], column: _Column) -> str:
    value = row[column.key]
    return "" if value is None or (isinstance(value, float) and not math.isfinite(value)) else column.form(value)
