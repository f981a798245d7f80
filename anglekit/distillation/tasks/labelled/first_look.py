"""A first look at labelled tables, without torch: labels and texts that a run would refuse, before it begins."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from anglekit.distillation.settings import DataSettings
from anglekit.distillation.tasks.labelled.label_cells import class_labels, label_text, number_column, number_labels
from anglekit.distillation.tasks.labelled.label_sets import LabelSet, check_labels_in_data, labels_in_data, listed
from anglekit.errors import InputError
from anglekit.runtime.files import read_json_object
from anglekit.tables.columns import find_column, find_text_columns
from anglekit.tables.read import read_table
from anglekit.tables.shapes import as_known_shape
from anglekit.tables.table import Table, check_text, is_missing
from anglekit.vocabulary import CLASSIFICATION, NUMBERS, TASK_KINDS, TASK_LABELS

#: Rows of a table that are looked at; what is true of all rows only is not asked of longer tables.
_ROWS: Final = 20_000


def look_at_labels(
    tables: Sequence[str], task: str, columns: DataSettings, *, trained: Sequence[str] = (), trains: bool
) -> None:
    """Refuse what a run would refuse of the labels and texts of its tables' first rows, and options that do nothing.

    Tables of the hub, built-in ones and directories of `datasets` are left to the run, and so are several labels.

    Args:
        tables: as `read_table` takes them; the first one is trained on, if any is.
        task: its name.
        columns: which columns are read, and how.
        trained: directories of models whose labels the tables must have.
        trains: whether the labels of the first table become the classes where nobody names them.

    Raises:
        InputError: a text is none, a label is outside the set, missing, no number or probably no class, kinds are
            mixed, or no row has a label that is to be left out; the message names the file and the row.
    """
    kind = TASK_KINDS[task]
    if kind not in (CLASSIFICATION, NUMBERS):
        return
    labels = columns.class_names or TASK_LABELS.get(task, ())
    sets = [LabelSet(names) for names in (*map(_names_of, trained), () if trained else labels) if len(names) > 1]
    known = [one for one in sets if not one.generic and not columns.label_map]
    if trained:
        _check_named(columns, known)
    found: set[str] = set()
    all_rows = True
    for number, source in enumerate(tables):
        if source.startswith(("hub:", "builtin:")) or Path(source).is_dir():
            all_rows = False
            continue
        rows = min(_ROWS, columns.limit or _ROWS)
        table = read_table(source, limit=rows, column_names=columns.names)
        complete = len(table) < rows or rows == columns.limit
        if not complete and not table.has_header:
            return  # a row of json may have a column that the rows before it lack
        table = as_known_shape(table, (columns.text, columns.text_pair, columns.label))
        if task in (CLASSIFICATION, NUMBERS):
            _check_texts(table, columns)
        column = number_column(table, columns.label) if kind == NUMBERS else find_column(table, "label", columns.label)
        found |= {text for cell in table.column(column) if (text := label_text(cell)) is not None}
        all_rows = all_rows and complete
        if kind == NUMBERS:
            number_labels(table, column, columns)
        elif not table.class_names.get(column):
            new = trains and not number and not labels and complete
            known += _check_classes(table, column, columns, labels, known, new=new)
    if all_rows:
        _check_left_out(columns, found | set(labels), tables)


def _check_texts(table: Table, columns: DataSettings) -> None:
    for column in find_text_columns(table, columns.text, columns.text_pair):
        for row, cell in enumerate(table.column(column) if column is not None else ()):
            if column is not None and not is_missing(cell):
                check_text(cell, table, column, row)


def _check_classes(
    table: Table, column: str, columns: DataSettings, labels: Sequence[str], known: Sequence[LabelSet], *, new: bool
) -> list[LabelSet]:
    """Check a table's labels against all sets; return the set that they make themselves, where it is `new`."""
    kept = class_labels(table, column, columns, lambda text: text)

    def place(number: int) -> tuple[str, str]:
        file, row = table.file_row(kept.rows[number])
        return file, f"row {row} (counted from 0)"

    texts = kept.labels
    if all(text is None or (text.isdecimal() and int(text) < len(labels)) for text in texts):
        texts = tuple(text if text is None or text in labels else labels[int(text)] for text in texts)
    for one in known:
        one.classes(texts, place)
    if not new:
        return []
    check_labels_in_data(texts, place, table.source, column)
    made = labels_in_data(texts)
    made.classes(texts, place)
    return [made]


def _check_left_out(columns: DataSettings, found: set[str], tables: Sequence[str]) -> None:
    """Refuse labels to leave out that no row has."""
    for option, names in zip(("--no-label", "--drop-labels"), columns.labels_left_out, strict=True):
        for name in sorted(names - found):
            raise InputError(
                f"{option} names {name!r}, which no row of {', '.join(tables)} has",
                "correct it, or leave it out",
                allowed=f"labels there: {listed(sorted(found))}",
            )


def _check_named(columns: DataSettings, known: Sequence[LabelSet]) -> None:
    """Refuse names for classes that a trained model, which names its own, does not have."""
    for one in known:
        lacking = [name for name in columns.class_names if one.index(name) is None]
        if lacking and not all(name.isdecimal() for name in columns.class_names):
            raise InputError(
                f"--classes names {lacking[0]!r}, which the model lacks",
                "leave it out, or say what its labels are called in the data: --label-map",
                allowed=f"the model's are {listed(one.names)}",
            )


def _names_of(directory: str) -> tuple[str, ...]:
    """Return the labels that config.json in a directory names, in order; () where it names none."""
    file = Path(directory) / "config.json"
    named = read_json_object(file, "save the checkpoint again").get("id2label") if file.is_file() else None
    if not isinstance(named, dict) or not all(str(number).isdecimal() for number in named):
        return ()
    return tuple(str(named[number]) for number in sorted(named, key=int))
