"""Which students, streams and vertices a figure draws, checked before anything is drawn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from anglekit.errors import InputError, suggest
from anglekit.results.geometry import Geometry

__all__ = ["check_labels", "choose_few_vertices", "choose_streams", "choose_students", "choose_vertices"]

_STREAM_ORDER = ("encoder", "decoder")
_MOST_VERTICES = 12  # panels of one student, unless asked for


def check_labels(geometries: Sequence[Geometry], labels: Sequence[str] | None) -> list[str | None]:
    """Return a label per geometry (None where none was given).

    Raises:
        InputError: there is no geometry, or the labels are not one per geometry.
    """
    if not geometries:
        raise InputError("no geometry to draw", "give at least one directory of `anglekit analyze --out`")
    if labels is None:
        return [None] * len(geometries)
    if len(labels) != len(geometries):
        raise InputError(f"{len(labels)} task labels for {len(geometries)} geometries", "give one each, in order")
    return list(labels)


def choose_students(geometries: Sequence[Geometry], students: str | Sequence[str] | None) -> list[str]:
    """Return the students to draw, each once, in the order of the analyses; all of them by default.

    Raises:
        InputError: a student is in none of the geometries.
    """
    known = list(dict.fromkeys(name for geometry in geometries for name in geometry.students))
    if students is None:
        return known
    wanted = [students] if isinstance(students, str) else students
    for name in wanted:
        if name not in known:
            raise InputError(f"no student {name!r}", allowed=suggest(name, known))
    return [name for name in known if name in wanted]


def choose_streams(geometries: Sequence[Geometry], stream: str | None) -> list[str]:
    """Return the streams to draw, encoder first; all of them by default.

    Raises:
        InputError: the stream is in none of the geometries.
    """
    known = _ordered(name for geometry in geometries for name in geometry.angles["stream"].unique())
    if stream is None:
        return known
    if stream not in known:
        raise InputError(f"no stream {stream!r}", allowed=suggest(stream, known))
    return [stream]


def choose_vertices(geometries: Sequence[Geometry], vertices: Sequence[int] | None) -> list[int]:
    """Return the student layers to draw, in order; all of them by default.

    Raises:
        InputError: a layer is a vertex of none of the geometries.
    """
    known = sorted({int(vertex) for geometry in geometries for vertex in geometry.angles["vertex"].unique()})
    if vertices is None:
        return known
    for vertex in vertices:
        if vertex not in known:
            raise InputError(f"no vertex {vertex}", f"the student layers analysed are {', '.join(map(str, known))}")
    return [vertex for vertex in known if vertex in vertices]


def choose_few_vertices(geometries: Sequence[Geometry], vertices: Sequence[int] | None) -> list[int]:
    """Return the student layers to draw a panel of: those that were asked for, else all, or 12 spread over the depth.

    Raises:
        InputError: a layer is a vertex of none of the geometries.
    """
    known = choose_vertices(geometries, vertices)
    if vertices is not None or len(known) <= _MOST_VERTICES:
        return known
    step = (len(known) - 1) / (_MOST_VERTICES - 1)
    return [known[round(number * step)] for number in range(_MOST_VERTICES)]


def _ordered(streams: Iterable[str]) -> list[str]:
    names = set(streams)
    return [name for name in _STREAM_ORDER if name in names] + sorted(names - set(_STREAM_ORDER))
