"""Sentences about what a figure draws: for its notes, its caption and its alternative text."""

from __future__ import annotations

import numpy as np
import pandas as pd

# No-break spaces keep "b + 1" on one line.
LAYER_NOTE = "Layer 0: embeddings; layer\u00a0b\u00a0+\u00a01: output of block\u00a0b."

#: How the layers of students are put beside the teacher's.
PLACE_NOTE = "A student's layer stands at the teacher layer that taught it; one that none taught, by its depth."


def range_words(values: pd.Series, form: str, unit: str = "") -> str:
    """Return the range of a column's finite values in words; `form` is a number format such as `.2f`."""
    known = values.to_numpy(np.float64)
    known = known[np.isfinite(known)]
    if not len(known):
        return "without a finite value"
    # Without a sign at zero: nobody means "from -0.00".
    form = f"+z{form[1:]}" if form.startswith("+") else f"z{form}"
    low, high = (f"{float(end):{form}}{unit}" for end in (known.min(), known.max()))
    words = low if low == high else f"from {low} to {high}"
    return words.replace("-", "−")  # noqa: RUF001  the minus of the axes


def students_words(data: pd.DataFrame) -> str:
    """Return whom a table is about: up to three students by name, more of them as a count."""
    names = [str(name) for name in data["student"].unique()]
    return ", ".join(names) if len(names) <= 3 else f"{len(names)} students"


def teacher_and_students_facts(data: pd.DataFrame, value: str, form: str, what: str = "") -> str:
    """Return the ranges of a column: the teacher's (rows without a student) and the students'."""
    teacher, own = data[data["student"] == ""], data[data["student"] != ""]
    return (
        f"Teacher: {what}{range_words(teacher[value], form)}; {students_words(own)}: {range_words(own[value], form)}."
    )
