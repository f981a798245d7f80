"""Sentences about what a figure draws: for its notes, its caption and its alternative text."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from anglekit.errors import InputError
from anglekit.plots.panels.labels import number_ranges
from anglekit.results.geometry import Geometry

__all__ = ["LAYER_NOTE", "OFFICIAL_NOTE", "range_words", "refuse", "students_words", "vertex_note"]

LAYER_NOTE = "Layer 0: embeddings; layer b + 1: output of block b."
OFFICIAL_NOTE = "Official reading: the paper's code, padding counted, one pair of layers."


def refuse(reason: str | None) -> None:
    """Raise what keeps a figure from being drawn, if anything does.

    Raises:
        InputError: there is a reason.
    """
    if reason is not None:
        raise InputError(reason)


def range_words(values: pd.Series, form: Callable[[float], str]) -> str:
    """Return the range of a column in words, of its finite values."""
    known = values.to_numpy(np.float64)
    known = known[np.isfinite(known)]
    if not len(known):
        return "without a finite value"
    low, high = form(float(known.min())), form(float(known.max()))
    return low if low == high else f"from {low} to {high}"


def students_words(data: pd.DataFrame) -> str:
    """Return whom a table is about: up to three students by name, more by number."""
    names = [str(name) for name in data["student"].unique()]
    return ", ".join(names) if len(names) <= 3 else f"{len(names)} students"


def vertex_note(geometry: Geometry, data: pd.DataFrame) -> list[str]:
    """Return the sentence that says which student layers are drawn, where some are not."""
    drawn, known = (sorted({int(layer) for layer in table["vertex"]}) for table in (data, geometry.angles))
    if len(drawn) == len(known):
        return []
    return [f"Drawn: student layers {number_ranges(drawn)}, of {len(known)} analysed."]
