"""The angle drawn to scale: one real token's plane through the student's state and two of the teacher's."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Wedge

from anglekit.plots.panels.labels import fit, layer_name, plain, text_extent, text_width, wrap
from anglekit.plots.presentation import shown_name
from anglekit.plots.style import FONT_SIZE, SMALL_FONT_SIZE, Theme, behind_text
from anglekit.results.document import SketchToken

_STATE_SIZE = SMALL_FONT_SIZE / 0.7  # mathematics sets a subscript at 0.7 of its base
_MARGIN = 0.24  # inches between the outermost point and the panel's edge: room for its label
_CROWD = 16  # with more dots than this, only a few are named, and the others are corners of the line
_NAMED = 4  # in a crowd, about this many layers are named
_CLEAR, _APART = 0.022, 0.02  # inches between a label and a point, and between two labels
_SCALE_STRIP = 0.26  # inches under the drawing for the scale bar


@dataclass
class _Placer:
    """Finds a free place for each label of a drawing; all in inches from the panel's lower left corner."""

    width: float
    height: float
    points: list[tuple[float, float]] = field(default_factory=list)
    faint_points: list[tuple[float, float]] = field(default_factory=list)
    boxes: list[tuple[float, float, float, float]] = field(default_factory=list)

    def _is_free(self, box: tuple[float, float, float, float], *, strict: bool) -> bool:
        left, bottom, right, top = box
        for x, y in [*self.points, *(self.faint_points if strict else ())]:
            if left - _CLEAR < x < right + _CLEAR and bottom - _CLEAR < y < top + _CLEAR:
                return False
        return all(
            right + _APART <= b[0] or left - _APART >= b[2] or top + _APART <= b[1] or bottom - _APART >= b[3]
            for b in self.boxes
        )

    def place(
        self,
        anchor: tuple[float, float],
        size: tuple[float, float],
        radii: Sequence[float],
        directions: Sequence[float],
        *,
        required: bool,
    ) -> tuple[float, float] | None:
        """Return the centre of a label of `size` near `anchor`; None if no place is free and it is not required.

        At each distance it first looks for a place clear of everything, then for one that the thin line through the
        layers may cross. A required label falls back on the first place inside the panel.
        """
        fallback = None
        for radius in radii:
            for strict in (True, False):
                for direction in directions:
                    x = anchor[0] + (radius + size[0] / 2) * math.cos(direction)
                    y = anchor[1] + (radius + size[1] / 2) * math.sin(direction)
                    box = (x - size[0] / 2, y - size[1] / 2, x + size[0] / 2, y + size[1] / 2)
                    if box[0] < 0 or box[1] < 0 or box[2] > self.width or box[3] > self.height:
                        continue
                    if fallback is None:
                        fallback = (x, y), box
                    if self._is_free(box, strict=strict):
                        self.boxes.append(box)
                        return x, y
        if not required or fallback is None:
            return None
        self.boxes.append(fallback[1])
        return fallback[0]


def _dense(start: tuple[float, float], end: tuple[float, float]) -> list[tuple[float, float]]:
    """Return points along a line, close enough together (inches) that no label slips between them."""
    count = max(int(math.dist(start, end) / 0.03), 1)
    return [
        (start[0] + (end[0] - start[0]) * step / count, start[1] + (end[1] - start[1]) * step / count)
        for step in range(count + 1)
    ]


def _compass(first: float, count: int = 16) -> list[float]:
    """Return directions around the circle (radians), the nearest to `first` first."""
    steps = [0, *(sign * step for step in range(1, count // 2) for sign in (1, -1)), count // 2]
    return [first + step * 2 * math.pi / count for step in steps]


def _round_length(length: float) -> float:
    """Return the largest 1, 2 or 5 times a power of ten that is at most `length`."""
    power = 10.0 ** math.floor(math.log10(length))
    return next(factor * power for factor in (5.0, 2.0, 1.0) if factor * power <= length * (1 + 1e-9))


def is_drawable(entry: Mapping[str, Any]) -> bool:
    """Return whether a sketch token is whole and has a plane: two finite, non-zero distances and finite points."""
    if not entry.keys() >= set(SketchToken.__struct_fields__):
        return False
    numbers = [entry["distance_i"], entry["distance_k"], entry["cosine"], *np.ravel(entry["points"])]
    return bool(np.all(np.isfinite(numbers))) and entry["distance_i"] > 0 and entry["distance_k"] > 0


@dataclass(frozen=True)
class _Plane:
    """A sketch token in drawing coordinates: S at the origin, T_i on the positive x axis, the states' own units."""

    vertex: int
    pair: tuple[int, int]
    end_i: tuple[float, float]
    end_k: tuple[float, float]
    angle: float
    path: list[tuple[int, float, float]]

    @property
    def others(self) -> list[tuple[int, float, float]]:
        return [point for point in self.path if point[0] not in self.pair]

    @property
    def crowded(self) -> bool:
        """Whether there are more layers than could all be named."""
        return len(self.others) > _CROWD

    @property
    def reach(self) -> float:
        """The radius of the arc."""
        return 0.45 * min(math.hypot(*self.end_i), math.hypot(*self.end_k))


def _plane(entry: Mapping[str, Any]) -> _Plane:
    cosine = min(max(float(entry["cosine"]), -1.0), 1.0)
    angle = math.acos(cosine)  # for drawing only: a sketch needs no more digits than a pen
    length = float(entry["distance_k"])
    return _Plane(
        vertex=int(entry["vertex"]),
        pair=(int(entry["teacher_i"]), int(entry["teacher_k"])),
        end_i=(float(entry["distance_i"]), 0.0),
        end_k=(length * cosine, length * math.sin(angle)),
        angle=angle,
        path=sorted((int(layer), float(x), float(y)) for layer, x, y in entry["points"]),
    )


@dataclass(frozen=True)
class _Frame:
    """Where the plane lies in its panel: inches per unit, and the data coordinates of the lower left corner."""

    scale: float
    left: float
    bottom: float

    def inches(self, x: float, y: float) -> tuple[float, float]:
        return (x - self.left) * self.scale, (y - self.bottom) * self.scale


def draw_sketch(
    figure: Figure, ax: Axes, entry: Mapping[str, Any], look: Theme, colours: tuple[str, str], size: tuple[float, float]
) -> None:
    """Draw the plane of a sketch token, to scale, into an empty axes; the token must be `is_drawable`.

    `colours` are the student's, for marks and for text; `size` is the width and height of the axes in inches.
    """
    colour, text_colour = colours
    plane = _plane(entry)
    frame = _fit_axes(ax, plane, size)
    placer = _Placer(*size)
    origin = frame.inches(0, 0)
    arc = [(plane.reach * math.cos(t), plane.reach * math.sin(t)) for t in np.linspace(0, plane.angle, 60)]
    sector = Wedge((0, 0), plane.reach, 0, math.degrees(plane.angle), facecolor=colour, alpha=0.22, linewidth=0)
    ax.add_patch(sector)
    ax.plot([x for x, _ in arc], [y for _, y in arc], color=colour, linewidth=1.0, zorder=2, gid="arc")
    path_x, path_y = [x for _, x, _ in plane.path], [y for _, _, y in plane.path]
    ax.plot(path_x, path_y, color=look.faint, linewidth=0.3 if plane.crowded else 0.5, zorder=2, gid="path")
    for end in (plane.end_i, plane.end_k):
        arrow = {"arrowstyle": "-|>", "color": look.ink, "linewidth": 1.0, "shrinkA": 0, "shrinkB": 0}
        ax.annotate("", xy=end, xytext=(0, 0), zorder=3, arrowprops=arrow)
        placer.points += _dense(origin, frame.inches(*end))
    others = [plane.others[rank] for rank in _named_ranks(plane)] if plane.crowded else plane.others
    dots = [x for _, x, _ in others], [y for _, _, y in others]
    ax.plot(*dots, "o", color=look.faint, markersize=2.6, zorder=4, gid="layers")
    ax.plot([0], [0], "o", color=colour, markersize=5, markeredgecolor=look.background, zorder=5, gid="student")
    placer.points += [frame.inches(x, y) for x, y in arc]
    placer.points += [frame.inches(x, y) for _, x, y in others]
    # A label keeps clear of the whole of a dot, not only of its centre.
    reach = 0.02
    centres = [
        origin,
        frame.inches(*plane.end_i),
        frame.inches(*plane.end_k),
        *(frame.inches(x, y) for _, x, y in others),
    ]
    for centre_x, centre_y in centres:
        placer.points += [
            (centre_x + dx * reach, centre_y + dy * reach) for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1))
        ]
    corners = [frame.inches(x, y) for _, x, y in plane.path]
    placer.faint_points += [point for start, end in pairwise(corners) for point in _dense(start, end)]
    _draw_scale(figure, ax, look, frame, placer)
    for text, anchor, direction, radius, required in _wanted_labels(plane):
        font = _STATE_SIZE if "$" in text else FONT_SIZE + 0.5 if required else SMALL_FONT_SIZE
        extent = text_extent(figure, text, font, math="$" in text)
        # A number far off misleads.
        far = (0.07, 0.16, 0.24)
        radii = (radius, *(radius + more for more in far)) if required else (radius, radius + 0.03)
        place = placer.place(frame.inches(*anchor), extent, radii, _compass(direction), required=required)
        if place is not None:
            ax.text(
                place[0] / placer.width,
                place[1] / placer.height,
                text,
                transform=ax.transAxes,
                ha="center",
                va="center",
                fontsize=font,
                # The number of the angle is its arc's, and no layer's.
                color=text_colour if text.endswith("°") else look.ink,
                zorder=6,
                bbox=behind_text(look) if plane.crowded else None,
            )


def _fit_axes(ax: Axes, plane: _Plane, size: tuple[float, float]) -> _Frame:
    """Set equal scales that fill the axes, with room for labels around and the scale bar below."""
    drawn = np.array([(0.0, 0.0), plane.end_i, plane.end_k, *((x, y) for _, x, y in plane.path)])
    low, high = drawn.min(axis=0), drawn.max(axis=0)
    span = np.maximum(high - low, 1e-9 * np.abs(drawn).max())
    scale = min((size[0] - 2 * _MARGIN) / span[0], (size[1] - 2 * _MARGIN - _SCALE_STRIP) / span[1])
    centre = (low + high) / 2
    left = centre[0] - size[0] / scale / 2
    bottom = centre[1] - (size[1] + _SCALE_STRIP) / scale / 2
    ax.set_xlim(left, left + size[0] / scale)
    ax.set_ylim(bottom, bottom + size[1] / scale)
    ax.set_aspect("equal")
    ax.set_axis_off()
    return _Frame(float(scale), float(left), float(bottom))


def _draw_scale(figure: Figure, ax: Axes, look: Theme, frame: _Frame, placer: _Placer) -> None:
    length = _round_length(0.4 * placer.width / frame.scale)
    x, y = frame.left + 0.04 / frame.scale, frame.bottom + 0.17 / frame.scale
    ax.plot([x, x + length], [y, y], color=look.ink, linewidth=1.0, solid_capstyle="butt", gid="scale")
    text = f"distance {length:g}"
    ax.text(x, frame.bottom + 0.02 / frame.scale, text, fontsize=SMALL_FONT_SIZE, va="bottom", ha="left")
    width = max(text_width(figure, text, SMALL_FONT_SIZE), length * frame.scale)
    placer.boxes.append((0.0, 0.0, 0.04 + width, 0.2))


def _wanted_labels(plane: _Plane) -> Iterator[tuple[str, tuple[float, float], float, float, bool]]:
    """Yield text, anchor (data), preferred direction (radians), distance (inches) and whether it must be drawn."""
    half = plane.angle / 2
    yield rf"$T_{{{plane.pair[0]}}}$", plane.end_i, -0.35 * math.pi, 0.06, True
    yield rf"$T_{{{plane.pair[1]}}}$", plane.end_k, plane.angle + 0.35 * math.pi, 0.06, True
    yield rf"$S_{{{plane.vertex}}}$", (0.0, 0.0), math.pi + half, 0.05, True
    tip = (plane.reach * math.cos(half), plane.reach * math.sin(half))
    yield f"{math.degrees(plane.angle):.0f}°", tip, half, 0.02, True
    others = plane.others
    if not others:
        return
    middle = (float(np.mean([x for _, x, _ in others])), float(np.mean([y for _, _, y in others])))
    for rank in _named_ranks(plane):
        layer, x, y = others[rank]
        yield str(layer), (x, y), math.atan2(y - middle[1], x - middle[0]), 0.03, False


def _named_ranks(plane: _Plane) -> list[int]:
    """Return which of the other layers carry their number, the first and the last before those between."""
    count = len(plane.others)
    ends = (0, count - 1)
    step = -(-count // _NAMED) if plane.crowded else 1
    return sorted({*range(0, count, step), *ends}, key=lambda index: index not in ends)


def sketch_caption(figure: Figure, entry: Mapping[str, Any], width: float) -> list[str]:
    """Return the lines that name the token, the vertex and the pair of a sketch, each at most `width` inches wide."""
    token = fit(figure, str(entry["token"]), width * 0.6, SMALL_FONT_SIZE, frame=lambda text: f"“{text}”")
    student = fit(figure, shown_name(str(entry["student"])), width * 0.9, SMALL_FONT_SIZE)
    pair = f"{int(entry['teacher_i'])} and {int(entry['teacher_k'])}"
    cosine = f"{float(entry['cosine']):.2f}".replace("-", "−")  # noqa: RUF001  as the axes write it
    what = "line" if _plane(entry).crowded else "dots"
    sentence = (
        f"{token} (example {int(entry['example'])}, {plain(str(entry['stream']))}): teacher layers {pair} from "
        f"{layer_name(int(entry['vertex']))} of {student}, cosine {cosine}; "
        f"{what}: other teacher layers, projected"
    )
    return wrap(figure, sentence, width)
