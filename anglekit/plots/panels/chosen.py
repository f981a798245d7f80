"""Which students, streams, layers and values a figure draws, checked before anything is drawn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import pandas as pd

from anglekit.display.counts import counted
from anglekit.errors import InputError, suggest
from anglekit.plots.panels.layout import nothing_to_draw
from anglekit.plots.spec import FigureOptions
from anglekit.results.geometry import Geometry

_MOST_VERTICES = 12  # panels of one student, unless asked for


@dataclass(frozen=True)
class Chosen:
    """What a figure draws: students in the order of analysis, streams (encoder first), student layers in order."""

    students: list[str]
    streams: list[str]
    vertices: list[int]

    def rows(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return the rows of a table that are drawn; a table without vertices covers all layers."""
        kept = table["student"].isin(self.students) & table["stream"].isin(self.streams)
        return table[kept & table["vertex"].isin(self.vertices)] if "vertex" in table.columns else table[kept]


def choose(geometries: Sequence[Geometry], options: FigureOptions, *, few: bool = False) -> Chosen:
    """Return the students, streams and student layers to draw; all of them where none was asked for.

    With `few`, where there are more than 12 student layers and none was asked for, 12 spread over the depth are drawn.

    Raises:
        InputError: there is no Geometry, none of them has a student, stream or layer, or no student has these.
    """
    if not geometries:
        raise InputError("no geometry to draw", "give at least one directory of `anglekit analyze --out`")
    for geometry in geometries:
        require_angles(geometry)
    students = list(dict.fromkeys(name for geometry in geometries for name in geometry.students))
    wanted = _named(options.students, students)
    streams = stream_order(name for geometry in geometries for name in geometry.angles["stream"].unique())
    if options.stream is not None and options.stream not in streams:
        raise InputError(f"no stream {options.stream!r}", allowed=suggest(options.stream, streams))
    vertices = sorted({int(vertex) for geometry in geometries for vertex in geometry.angles["vertex"].unique()})
    for vertex in options.vertices or ():
        if vertex not in vertices:
            raise InputError(f"no vertex {vertex}", f"the student layers analysed are {', '.join(map(str, vertices))}")
    if options.vertices is not None:
        vertices = [vertex for vertex in vertices if vertex in options.vertices]
    elif few and len(vertices) > _MOST_VERTICES:
        step = (len(vertices) - 1) / (_MOST_VERTICES - 1)
        vertices = [vertices[round(number * step)] for number in range(_MOST_VERTICES)]
    students = [name for name in students if wanted is None or name in wanted]
    chosen = Chosen(students, streams if options.stream is None else [options.stream], vertices)
    if not any(len(chosen.rows(geometry.angles)) for geometry in geometries):
        raise nothing_to_draw()
    return chosen


def _named(wanted: str | Sequence[str] | None, students: Sequence[str]) -> list[str] | None:
    """Return the students of the given names and patterns (`forward-*`); None where all are wanted.

    Raises:
        InputError: a name or a pattern meets no student.
    """
    if wanted is None:
        return None
    found = list[str]()
    for name in [wanted] if isinstance(wanted, str) else wanted:
        # A name that holds a bracket is a name before it is a pattern.
        met = [name] if name in students else [each for each in students if fnmatchcase(each, name)]
        if not met:
            what = f"no student meets {name!r}" if set(name) & set("*?[") else f"no student {name!r}"
            others = "others have to be analysed first (anglekit analyze TEACHER STUDENT... --probe FILE --out DIR)"
            raise InputError(what, allowed=f"{suggest(name, students)}; {others}")
        found += met
    return found


def stream_order(streams: Iterable[str]) -> list[str]:
    """Return streams once each, the encoder first."""
    return sorted(set(map(str, streams)), key=lambda name: (name != "encoder", name))


def choose_value(value: str | None, known: Iterable[str], what: str = "value") -> str:
    """Return the value to show: the first one, or the one that is named, which must be known (else InputError)."""
    names = list(dict.fromkeys(map(str, known)))
    if value is None:
        return names[0]
    if value not in names:
        raise InputError(f"no {what} {value!r}", allowed=suggest(value, names))
    return value


def check_labels(
    labels: Sequence[str] | None, count: int, what: str = "Geometry", plural: str = "Geometries"
) -> Sequence[str] | None:
    """Return the labels; raise InputError unless there is one per Geometry or table (`count`). None stays None."""
    if labels is not None and len(labels) != count:
        arrived = f"{counted(len(labels), 'task label')} for {counted(count, what, plural=plural)}"
        raise InputError(arrived, "give one each, in order")
    return labels


def require_angles(geometry: Geometry) -> None:
    """Raise InputError for a Geometry whose table of angles is empty, which no analysis writes."""
    if geometry.angles.empty:
        raise InputError(
            "this Geometry has no angles: angles.parquet lost its rows, or the Geometry was made by hand",
            "run `anglekit analyze` again",
        )


def require(table: pd.DataFrame, column: str, what: str, option: str | None = None) -> None:
    """Raise InputError for a table of a Geometry that is empty or has no value in a column.

    Args:
        table: of a Geometry.
        column: of it.
        what: the column holds, in words.
        option: of `anglekit analyze`, with the value that fills the column; None: every analysis does.
    """
    if len(table) and table[column].notna().any():
        return
    causes = ["its student has another width and no --projection"]
    if option is not None:
        name, _, effort = option.partition(" ")
        causes = [f"it was analysed {f'with {name} none' if effort == 'default' else f'without {option}'}"]
        causes += ["was measured while a run trained"]
    causes += ["comes from an earlier anglekit"]
    again = f"run `anglekit analyze {option}`" if option else "run `anglekit analyze` again"
    raise InputError(
        f"this Geometry has no {what}: {', '.join(causes[:-1])} or {causes[-1]}",
        f"{again}{', of a run its last checkpoint' if option else ', with --projection for another width'}",
    )
