"""The tables that figures draw, made from a Geometry's tables."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from anglekit.results.geometry import Geometry
from anglekit.results.overview import pair_mean


def with_arms(table: pd.DataFrame, geometry: Geometry) -> pd.DataFrame:
    """Return a table with the columns `strategy`, `init` and `seed` after its student.

    The teacher's rows, whose student is empty, have an empty strategy and init; a seed may be missing.
    """
    arms = {"": ("", "", None), **geometry.arms}
    place = list(table.columns).index("student") + 1
    added = table.copy()
    for offset, name in enumerate(("strategy", "init", "seed")):
        column = [arms[student][offset] for student in table["student"]]
        added.insert(place + offset, name, pd.Series(column, index=table.index, dtype="object"))
    return added


def teacher_once(table: pd.DataFrame, key: Sequence[str], side: str = "side") -> pd.DataFrame:
    """Return a table by side with the teacher's rows first, each once, with an empty student.

    The table has columns `student`, `side` (`teacher` or `student`, perhaps by another name) and the key, which tells
    the teacher's rows apart.
    """
    teacher = table[table[side] == "teacher"].drop_duplicates(list(key)).assign(student="")
    return pd.concat([teacher, table[table[side] == "student"]], ignore_index=True)


def with_places(table: pd.DataFrame, geometry: Geometry) -> pd.DataFrame:
    """Return a table by side and layer with the column `place`: the teacher layer beside which a layer is drawn.

    A student's layer stands beside the layer that taught it. One that no layer taught, or of which that is not
    recorded, stands where its share of the student's depth lies in the teacher.
    """
    told = geometry.document.provenance
    students = {student.name: student for student in told.students}
    deepest = table.groupby(["student", "stream"])["layer"].max()
    analysed = geometry.angles.groupby("stream")["teacher_k"].max()

    def place(side: str, student: str, stream: str, layer: int) -> float:
        if side == "teacher":
            return float(layer)
        taught = students[student].taught_by.get(stream, {}).get(str(layer))
        if taught is not None:
            return float(taught)
        teacher = told.teacher.depth.get(stream) or analysed.get(stream, layer)
        own = students[student].depth.get(stream) or deepest.get((student, stream), layer)
        return float(layer) * float(teacher) / max(float(own), 1.0)

    keys = table[["side", "student", "stream", "layer"]].itertuples(index=False, name=None)
    return table.assign(
        place=[place(str(side), str(who), str(stream), int(layer)) for side, who, stream, layer in keys]
    )


def pair_means(table: pd.DataFrame, key: Sequence[str], value: str, **others: str) -> pd.DataFrame:
    """Return means over pairs of teacher layers: the key, the value, and `others` under new names."""
    columns = {value: value, **others}
    rows = [
        (*place, *(pair_mean(pairs, column) for column in columns.values()))
        for place, pairs in table.groupby(list(key), sort=False)
    ]
    return pd.DataFrame(rows, columns=[*key, *columns])


def symmetric_matrix(
    rows: pd.DataFrame, value: str, row: str, column: str, layers: Sequence[int] | None = None
) -> pd.DataFrame:
    """Return a column over pairs of layers, each of which comes once, as a symmetric matrix; NaN where it has no value.

    `row` and `column` are the columns with the two layers. For a pair that comes more than once, the mean is taken. The
    matrix has the given layers in their order, or all layers of the table.
    """
    names = sorted({*rows[row], *rows[column]}) if layers is None else list(layers)
    places = pd.Index(names)
    i, j = places.get_indexer(pd.Index(rows[row])), places.get_indexer(pd.Index(rows[column]))
    values = rows[value].to_numpy(np.float64)
    known = (i >= 0) & (j >= 0) & ~np.isnan(values)
    total, count = np.zeros((len(names), len(names))), np.zeros((len(names), len(names)))
    np.add.at(total, (i[known], j[known]), values[known])
    np.add.at(count, (i[known], j[known]), 1.0)
    upper = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
    return pd.DataFrame(np.where(np.isnan(upper), upper.T, upper), index=names, columns=names)
