"""Cells of a label column: which rows have no label or one that is left out, and what the others say."""

from __future__ import annotations

import ast
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np

from anglekit.display.counts import counted
from anglekit.distillation.settings import DataSettings
from anglekit.errors import InputError
from anglekit.tables.columns import find_column
from anglekit.tables.table import Table, is_missing

_USUAL_NUMBERS = ("label", "labels", "score", "similarity_score", "relatedness_score", "similarity", "rating", "stars")
Label = TypeVar("Label")


@dataclass(frozen=True)
class KeptLabels(Generic[Label]):
    """The labels of the rows that stay.

    Attributes:
        labels: one for each row; None where a row has none.
        rows: their numbers in the table, counted from 0.
        left_out: rows that do not stay, by the label that they have; "" for rows without one.
    """

    labels: tuple[Label | None, ...]
    rows: tuple[int, ...]
    left_out: dict[str, int] = field(default_factory=dict)


def kept_labels(
    cells: Sequence[Any],
    columns: DataSettings,
    read: Callable[[int, Any], Label | None],
    where: str,
    name: Callable[[str], str] = lambda text: text,
) -> KeptLabels[Label]:
    """Return the labels of the rows that a user wants, and what is left out.

    Args:
        cells: of a label column.
        columns: which labels are left out.
        read: the label of a row's cell; None where it has none.
        where: the table, for messages.
        name: what a label is called, by its text.

    Raises:
        InputError: no row is left.
    """
    none, dropped = columns.labels_left_out
    labels: list[Label | None] = []
    rows: list[int] = []
    left_out: Counter[str] = Counter()
    for row, cell in enumerate(cells):
        single = not isinstance(cell, list | tuple | dict)
        text = label_text(cell) if single else None
        if single and text is None and columns.no_label is not None:
            left_out[""] += 1
        elif text is not None and (text in none or {text, name(text)} & dropped):
            left_out[text] += 1
        else:
            labels.append(read(row, cell))
            rows.append(row)
    if cells and not rows:
        raise InputError(f"no row of {where} is left: {left_out_words(left_out)}", "leave fewer labels out")
    return KeptLabels(tuple(labels), tuple(rows), dict(left_out))


def class_labels(table: Table, column: str, columns: DataSettings, name: Callable[[str], str]) -> KeptLabels[str]:
    """Return the labels of a column of classes, one a row, as text.

    Raises:
        InputError: a cell holds several values, or numbers that are not whole stand among words.
    """
    cells = plain_cells(table, column)

    def read(row: int, cell: object) -> str | None:
        if isinstance(cell, list | tuple | dict):
            raise InputError(
                f"{table.cell_place(column, row)} holds {str(cell)[:40]!r}, which is no single label",
                "take --task multi-label, or name another column with --label",
            )
        return label_text(cell)

    no_class = {"-"}.union(*columns.labels_left_out)
    texts = (cell for cell in cells if isinstance(cell, str) and not _is_number(cell))
    words = next((text for text in texts if text.strip() not in no_class), None)
    if words is not None and columns.classes is None:
        for row, cell in enumerate(cells):
            if isinstance(cell, int | float) and not is_missing(cell):
                raise InputError(
                    f"{table.cell_place(column, row)} holds the number {cell}, where other rows hold words such as "
                    f"{words[:40]!r}",
                    "give every row a label of one kind, or say that all are classes: --classes, with commas",
                )
    return kept_labels(cells, columns, read, table.source, name)


def number_column(table: Table, given: str | None) -> str:
    """Return the column of the numbers.

    Raises:
        InputError: there is none of this name or of a usual one, or several of these.
    """
    present = [name for name in table.names if name.lower() in _USUAL_NUMBERS]
    if given is None and len(present) > 1:
        raise InputError(
            f"{table.source} has the columns {', '.join(present)}, any of which may be the number",
            f"name it: --label {present[-1]}",
        )
    return find_column(table, "label", given, _USUAL_NUMBERS)


def number_labels(table: Table, column: str, columns: DataSettings) -> KeptLabels[float]:
    """Return the labels of a column of numbers.

    Raises:
        InputError: a cell holds no finite number.
    """

    def read(row: int, cell: object) -> float | None:
        return label_number(cell, table.cell_place(column, row))

    return kept_labels(plain_cells(table, column), columns, read, table.source)


def plain_cells(table: Table, column: str) -> list[Any]:
    """Return the cells of a label column.

    Raises:
        InputError: some hold an object where others hold a value: what is in it is a column of its own, and the cell
            itself would look empty.
    """
    cells = table.column(column)
    inside = [name for name in table.names if name.startswith(f"{column}.")]
    for name in inside if any(not is_missing(cell) for cell in cells) else ():
        for row, (cell, inner) in enumerate(zip(cells, table.column(name), strict=True)):
            if is_missing(cell) and not is_missing(inner):
                raise InputError(
                    f"{table.cell_place(column, row)} holds an object with {name.removeprefix(f'{column}.')!r}, where "
                    "other rows hold a label",
                    f"give every row a label of one kind, or name another column: --label {name}",
                )
    return cells


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return not text.strip()
    return True


def left_out_words(left_out: Mapping[str, int]) -> str:
    """Return in words how many rows were left out: `785 rows labelled '-', 2 rows without a label`."""
    return ", ".join(
        f"{counted(number, 'row')} " + (f"labelled {text!r}" if text else "without a label")
        for text, number in left_out.items()
    )


def label_text(value: object) -> str | None:
    """Return a label as text: 1, 1.0 and " 1" are all "1"; None for a missing label."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return None
    if isinstance(value, bool | np.bool_):
        return str(int(value))
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip() or None


def label_number(value: object, where: str) -> float | None:
    """Return a label as a number; None for a missing one.

    Raises:
        InputError: it is no number, or not a finite one; `where` names its place.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        # A boolean is a number to Python, and a class to people.
        number = float("nan") if isinstance(value, bool) or not isinstance(value, int | float | str) else float(value)
    except (ValueError, OverflowError):
        number = float("nan")
    if isinstance(value, float) and np.isnan(value):
        return None
    if not np.isfinite(number):
        raise InputError(
            f"{where} holds the label {str(value)[:40]!r}, which is no finite number",
            "name a column of numbers with --label; for classes take --task classification",
        )
    return number


def label_list(value: object, separator: str) -> list[Any] | None:
    """Return the labels of a cell that may have several; None for a missing one.

    A list stays one, also one that is written as text, in json or as Python writes it; any other text is split.
    """
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return None
    if isinstance(value, list | tuple | np.ndarray):
        return list(value)
    if not isinstance(value, str):
        return [value]
    text = value.strip()
    if text.startswith("[") and text.endswith("]"):
        for reads in (json.loads, ast.literal_eval):
            try:
                found = reads(text)
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
            if isinstance(found, list):
                return found
    return [part.strip() for part in text.split(separator) if part.strip()]
