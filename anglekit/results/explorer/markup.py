"""The explorer as HTML that can be read without a script, and the numbers that its script shows on hover and click."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from anglekit.display.html import Markup, element, joined, plain
from anglekit.results.chance import MISMATCHED, UNRELATED
from anglekit.results.document import ModelRecord
from anglekit.results.explorer.cells import PLACE_KEY, ExploredCells
from anglekit.vocabulary import CONTROL_LABELS

#: Steps of |observed minus chance cosine| between the tints of a cell.
_STEPS: Final = (0.05, 0.1, 0.2)
_DIGITS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_NULL_WORDS: Final[Mapping[str, tuple[str, str]]] = {
    "permuted-student": (MISMATCHED, "the student's state of another example"),
    "formula": (UNRELATED, "of the same lengths"),
}
# Of the small drawings: width, height and margins, in pixels.
_WIDE, _HIGH, _LEFT, _RIGHT, _TOP, _BOTTOM = 190, 104, 30, 8, 8, 20
_LEAST_RANGE: Final = 30.0


def resource(name: str) -> str:
    """Return the explorer's style sheet or script."""
    return files("anglekit.results.explorer").joinpath(name).read_text(encoding="utf-8")


def student_words(student: ModelRecord) -> str:
    """Return what a student is called where there is room: its strategy, weights and seed, else its name."""
    if student.strategy is None:
        return student.name
    weights = {"random": "new weights", "teacher": "teacher's weights"}.get(student.init or "", student.init)
    seed = None if student.seed is None else f"seed {student.seed}"
    strategy = CONTROL_LABELS.get(student.strategy, student.strategy)
    return ", ".join(part for part in (strategy, weights, seed) if part)


def choice(students: Mapping[str, str]) -> Markup:
    """Return the boxes by which students are chosen for all figures of a page; the script shows them.

    Args:
        students: what each is called, by its key.
    """
    boxes = (
        element("label", element("input", type="checkbox", value=key, checked=True), element("span", words))
        for key, words in students.items()
    )
    return element(
        "fieldset",
        element("legend", "Students in all figures"),
        element("button", "all", type="button", data_all="1"),
        element("button", "clear", type="button", data_all="0"),
        *boxes,
        class_="choice",
        hidden=True,
    )


def layer_panels(explored: ExploredCells, keys: Mapping[str, str]) -> Markup:
    """Return a small drawing for each student: its angle at each of its layers, beside the chance level.

    Args:
        explored: what is shown.
        keys: of the students, by name.
    """
    known = explored.layers
    if known.empty:
        return element("p", "No angle is defined at any layer.")
    values = known[["angle", "low", "high", "chance"]].to_numpy(np.float64)
    low, high = _padded(float(np.nanmin(values)), float(np.nanmax(values)))
    null, meaning = _NULL_WORDS[explored.null]
    panels = []
    for student in explored.students:
        own = known[known["student"] == student.name]
        if own.empty:
            continue
        words = student_words(student)
        told = "; ".join(f"{row['stream']} layer {row['vertex']}: {row['angle']:.0f}°" for row in records(own))
        drawn = element(
            "svg",
            *_axis(low, high),
            *(_stream_marks(rows, low, high, null) for _, rows in own.groupby("stream", sort=False)),
            viewBox=f"0 0 {_WIDE} {_HIGH}",
            role="img",
            aria_label=f"{words}. Angle, {told}",
        )
        panels.append(
            element(
                "figure",
                element("figcaption", words),
                drawn,
                class_=f"layers {_init_class(student)}",
                data_student=keys[student.name],
            )
        )
    legend = element(
        "p",
        element("span", "", class_="key angle-key"),
        "angle at each student layer, with its 95% interval over examples where that is larger than the dot; ",
        element("span", "", class_="key chance-key"),
        f"the angle with {null} ({meaning}). Layer 0 is the embedding output.",
        class_="note",
    )
    return joined(legend, element("div", *panels, class_="panels"))


def _padded(low: float, high: float) -> tuple[float, float]:
    """Return a range of degrees around the values, of at least 30 degrees, on multiples of ten."""
    more = max(0.0, _LEAST_RANGE - (high - low)) / 2
    return max(0.0, math.floor((low - more) / 10) * 10), min(180.0, math.ceil((high + more) / 10) * 10)


def _axis(low: float, high: float) -> Iterable[Markup]:
    for degrees in (low, (low + high) / 2, high):
        y = _height(degrees, low, high)
        yield element("line", x1=_LEFT, x2=_WIDE - _RIGHT, y1=y, y2=y, class_="guide")
        yield element("text", f"{degrees:.0f}°", x=_LEFT - 4, y=y + 3.5, text_anchor="end")


def _height(degrees: float, low: float, high: float) -> float:
    return round(_TOP + (_HIGH - _TOP - _BOTTOM) * (high - degrees) / (high - low), 1)


def _stream_marks(rows: pd.DataFrame, low: float, high: float, null: str) -> Markup:
    vertices = rows["vertex"].tolist()
    room = _WIDE - _LEFT - _RIGHT - 16
    across = [_LEFT + 8 + (room * n / (len(vertices) - 1) if len(vertices) > 1 else room / 2) for n in range(len(rows))]
    angles = [_height(value, low, high) for value in rows["angle"]]
    chances = [_height(value, low, high) for value in rows["chance"]]
    marks = [
        element("polyline", points=_points(across, chances), class_="chance-line"),
        element("polyline", points=_points(across, angles), class_="angle-line"),
    ]
    every = max(1, math.ceil(len(vertices) / 8))
    for number, (x, y, row) in enumerate(zip(across, angles, records(rows), strict=True)):
        interval = ""
        if math.isfinite(row["low"]):
            ends = {"y1": _height(row["low"], low, high), "y2": _height(row["high"], low, high)}
            marks.append(element("line", x1=round(x, 1), x2=round(x, 1), **ends, class_="reach"))
            interval = f" (95%: {row['low']:.1f}° to {row['high']:.1f}°)"
        told = (
            f"{row['stream']} layer {row['vertex']}: {row['angle']:.1f}°{interval}; with {null} {row['chance']:.1f}°; "
            f"of {row['pairs']} pairs {row['narrower']} surely narrower, {row['wider']} surely wider; "
            f"{row['tokens']:,} tokens of {row['examples']:,} examples"
        )
        marks.append(element("circle", element("title", told), cx=round(x, 1), cy=y, r=3.5))
        if number % every == 0:
            marks.append(element("text", row["vertex"], x=round(x, 1), y=_HIGH - 6, text_anchor="middle"))
    return joined(*marks)


def _points(across: Sequence[float], heights: Sequence[float]) -> str:
    return " ".join(f"{x:.1f},{y}" for x, y in zip(across, heights, strict=True))


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a frame by column."""
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict(orient="records")]


def _init_class(student: ModelRecord) -> str:
    return f"from-{student.init}" if student.init in ("random", "teacher") else "from-other"


def pair_cells(explored: ExploredCells, keys: Mapping[str, str], name: str, *, first: str | None = None) -> Markup:
    """Return the cells of every student: a table for each of its layers, and the place of a chosen cell's details.

    Args:
        explored: what is shown.
        keys: of the students, by name.
        name: of this explorer in its page.
        first: the name of the student that stands open; the first of all where it is None or has no cells.
    """
    shown = first if first in [student.name for student in explored.students] else None
    blocks: list[Markup] = []
    for student in explored.students:
        own = explored.cells[explored.cells["student"] == student.name]
        tables = [_cell_table(str(stream), int(str(vertex)), rows) for (stream, vertex), rows in _places(own)]
        words = student_words(student)
        strip = element("div", *tables, class_="strip", role="region", aria_label=f"Cells of {words}", tabindex="0")
        blocks.append(
            element(
                "details",
                element("summary", words),
                strip,
                class_="student-cells",
                name=f"{name}-students",
                data_student=keys[student.name],
                open=not blocks if shown is None else student.name == shown,
            )
        )
    return element(
        "div",
        _cells_legend(explored),
        *blocks,
        element(
            "div",
            element("p", "Choose a cell for its numbers, its histogram and its extreme tokens.", class_="note"),
            class_="detail",
            aria_live="polite",
            hidden=True,
        ),
        element("script", Markup(_json(_numbers(explored))), type="application/json"),
        class_="explorer",
        id=name,
    )


def _places(cells: pd.DataFrame) -> Iterable[tuple[tuple[Any, ...], pd.DataFrame]]:
    for key, rows in cells.groupby(list(PLACE_KEY[1:]), sort=False):
        yield (key if isinstance(key, tuple) else (key,)), rows


def _cells_legend(explored: ExploredCells) -> Markup:
    shades = joined(
        "wider ", *(element("span", "", class_=f"key w{step}") for step in (4, 3, 2, 1)),
        element("span", "", class_="key u"),
        *(element("span", "", class_=f"key n{step}") for step in (1, 2, 3, 4)), " narrower",
    )  # fmt: skip
    left_out = f" {'; '.join(explored.left_out).capitalize()}." if explored.left_out else ""
    return element(
        "p",
        "Mean angle in degrees between two of the teacher's layers, row and column, seen from a student's layer. "
        f"Coloured: surely narrower or wider than with {_NULL_WORDS[explored.null][0]} (95% for all pairs together); "
        f"not coloured: not told from it. Steps of the cosine: {', '.join(map(str, _STEPS))}. ",
        element("span", shades, class_="shades"),
        left_out,
        class_="note",
    )


def _cell_table(stream: str, vertex: int, rows: pd.DataFrame) -> Markup:
    layers = sorted({*rows["teacher_i"], *rows["teacher_k"]})
    by_pair = {
        (row["teacher_i"], row["teacher_k"]): _cell(number, row["angle"], row["beyond"], row["side"])
        for number, row in zip(rows.index.tolist(), records(rows), strict=True)
    }
    head = element("tr", element("td", ""), *(element("th", layer, scope="col") for layer in layers[1:]))
    body = [
        element(
            "tr",
            element("th", i, scope="row"),
            *(by_pair.get((i, k), Markup("<td></td>")) for k in layers[1:]),
        )
        for i in layers[:-1]
    ]
    return element(
        "table",
        element("caption", f"{stream} layer {vertex}"),
        element("thead", head),
        element("tbody", *body),
        class_="cells",
    )


def _cell(number: int, angle: float, beyond: float, side: int) -> Markup:
    if not math.isfinite(angle):
        return Markup(f'<td class="x" data-c="{number}">\N{EN DASH}</td>')
    size = abs(beyond) if math.isfinite(beyond) else 0.0
    step = 1 + sum(size >= one for one in _STEPS)
    kind = "u" if side == 0 else f"{'n' if side > 0 else 'w'}{step}"
    return Markup(f'<td class="{kind}" data-c="{number}">{angle:.0f}</td>')


def _numbers(explored: ExploredCells) -> dict[str, Any]:
    cells = explored.cells
    words = {student.name: student_words(student) for student in explored.students}
    return {
        "null": _NULL_WORDS[explored.null][0],
        "students": [words[name] for name in dict.fromkeys(cells["student"])],
        "student": pd.factorize(cells["student"])[0].tolist(),
        "streams": list(dict.fromkeys(cells["stream"])),
        "stream": pd.factorize(cells["stream"])[0].tolist(),
        **{name: cells[name].tolist() for name in ("vertex", "teacher_i", "teacher_k", "side", "tokens", "examples")},
        "angle": _scaled(cells["angle"], 10),
        **{
            name: _scaled(cells[name], 10_000)
            for name in ("cosine", "low", "high", "chance", "beyond", "joint_low", "joint_high", "acute")
        },
        **_histogram_text(explored.histograms),
        "ends": explored.extremes,
        "no_ends": ""
        if explored.extremes
        else "Its extreme tokens are not in this Geometry: anglekit analyze --keep-extremes keeps them.",
    }


def _scaled(values: pd.Series, by: int) -> list[int | None]:
    """Return numbers as whole multiples of 1 / `by`: half of the characters."""
    return [round(value * by) if math.isfinite(value) else None for value in values]


def _histogram_text(counts: NDArray[np.int64]) -> dict[str, Any]:
    """Return all bins as two digits of base 64 each, in 4095ths of the cell's highest bin, and that bin's share."""
    total, peak = counts.sum(1, keepdims=True), counts.max(1, keepdims=True)
    levels = np.rint(4095 * counts / np.maximum(peak, 1)).astype(int).reshape(-1)
    text = "".join(_DIGITS[level >> 6] + _DIGITS[level & 63] for level in levels)
    return {
        "bins": counts.shape[1],
        "histograms": text,
        "peak": np.rint(10_000 * peak / np.maximum(total, 1)).astype(int).reshape(-1).tolist(),
    }


def _json(content: Mapping[str, Any]) -> str:
    """Return json that may stand in a script element: no text of the data can end it."""
    text = plain(json.dumps(content, separators=(",", ":"), ensure_ascii=False, allow_nan=False))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
