"""A histogram panel of figure 1: curves, chance lines, the acute half and its share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

from anglekit.plots.figure1.curves import Curve, Panel
from anglekit.plots.panels.labels import text_width
from anglekit.plots.panels.layout import LINE
from anglekit.plots.style import (
    CHANCE_DASHES,
    FONT_SIZE,
    MARKERS,
    SMALL_FONT_SIZE,
    STRATEGY_DASHES,
    Theme,
    init_kind,
    init_words,
    round_ticks,
)

#: A panel with more students than this states the range of each initialisation instead of each share.
MOST_SHARES = 4
# Of strategies without a style of their own, and of students whose strategy was not recorded.
_OTHER_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.2)), (0, (1.2, 1)), (0, (5, 1, 1, 1)), (0, (5, 1, 1, 1, 1, 1)))
# Toward black (negative) or white; the hue has a meaning and stays.
_TINTS: Mapping[str, float] = MappingProxyType(
    {
        "none": 0.15,
        "forward": 0.0,
        "reverse": -0.3,
        "all-to-one": 0.3,
        "random": -0.5,
        "alone": 0.4,
        "random-teacher": -0.2,
    }
)
_OTHER_TINTS = (0.0, -0.3, 0.3, -0.5, 0.15)


@dataclass(frozen=True)
class CurveStyle:
    """How one student is drawn in every panel."""

    colour: str
    text_colour: str
    dashes: Any
    marker: str


def curve_styles(panels: Sequence[Panel], look: Theme) -> dict[tuple[str, str | None], CurveStyle]:
    """Return a style per student and initialisation.

    The hue says how a student was initialised, tint, dashes and marker its strategy, whatever others are drawn.
    Students whose strategy is none that anglekit knows get theirs in the order of the panels. Where each panel is one
    strategy's, its title says so, and hue and marker say the initialisation.
    """
    if by_strategy(panels, look):
        return {
            (curve.student, curve.init): CurveStyle(
                look.init[init_kind(curve.init)], look.init_text[init_kind(curve.init)], "-", _init_marker(curve.init)
            )
            for panel in panels
            for curve in panel.curves
        }
    keys = {(curve.student, curve.init): curve.strategy for panel in panels for curve in panel.curves}
    # Of each initialisation, the strategies without a style of their own, in the order of the panels.
    unknown: dict[str, list[str]] = {}
    for (_, init), strategy in keys.items():
        members = unknown.setdefault(init_kind(init), [])
        if strategy not in STRATEGY_DASHES and strategy not in members:
            members.append(strategy)
    others = [strategy for members in unknown.values() for strategy in members]
    neutral = [student for student, init in keys if init_kind(init) not in look.init]
    styles = {}
    for (student, init), strategy in keys.items():
        kind, known = init_kind(init), look.strategies.get(strategy)
        rank = unknown[kind].index(strategy) if strategy in unknown[kind] else 0
        if kind in look.init:
            amount = _TINTS.get(strategy, _OTHER_TINTS[rank % len(_OTHER_TINTS)])
            # On a dark ground a dark tint would be lost.
            colour = _tint(look.init[kind], amount / 2 if look.dark and amount < 0 else amount)
            text_colour = look.init_text[kind]
        else:
            colour = text_colour = look.neutral[neutral.index(student) % len(look.neutral)]
        styles[student, init] = CurveStyle(
            colour=colour,
            text_colour=text_colour,
            dashes=STRATEGY_DASHES.get(strategy, _OTHER_DASHES[rank % len(_OTHER_DASHES)]),
            marker=known.marker if known is not None else MARKERS[others.index(strategy) % len(MARKERS)],
        )
    return styles


def by_strategy(panels: Sequence[Panel], look: Theme) -> bool:
    """Return whether each panel shows one strategy, from initialisations that have a colour."""
    return all(panel.strategy is not None for panel in panels) and all(
        init_kind(curve.init) in look.init for panel in panels for curve in panel.curves
    )


def _init_marker(init: str | None) -> str:
    return {"random": "o", "teacher": "s"}.get(init_kind(init), "D")


def _tint(colour: str, amount: float) -> str:
    target = 1.0 if amount > 0 else 0.0
    red, green, blue = (channel + (target - channel) * abs(amount) for channel in to_rgb(colour))
    return to_hex((red, green, blue))


def percent(share: float) -> str:
    """Return a share in percent: whole, with a decimal near 0 and 1, never rounded up to 100% or down to 0%."""
    if share in (0.0, 1.0):
        return f"{100 * share:.0f}%"
    if share > 0.999:
        return ">99.9%"
    if share < 0.001:
        return "<0.1%"
    return f"{100 * share:.1f}%" if share < 0.01 or share > 0.99 else f"{100 * share:.0f}%"


@dataclass(frozen=True)
class Histogram:
    """Draws one task and stream into an empty axes of `size` inches; `styles` has every student's style."""

    ax: Axes
    panel: Panel
    styles: Mapping[tuple[str, str | None], CurveStyle]
    look: Theme
    size: tuple[float, float]

    def draw(self) -> None:
        """Draw curves, shares and chance levels."""
        ax, panel = self.ax, self.panel
        ax.axvspan(0.0, 1.0, color=self.look.shade, linewidth=0, zorder=0, gid="acute")
        ax.set_xlim(-1.0, 1.0)
        ax.set_xticks([-1, -0.5, 0, 0.5, 1], ["−1\n180°", "−0.5\n120°", "0\n90°", "0.5\n60°", "1\n0°"])  # noqa: RUF001
        ax.set_xlabel("cosine (below: angle in degrees)")
        ax.set_ylabel("density (per unit cosine)")
        ax.yaxis.set_major_locator(round_ticks(4))
        if not panel.curves:
            ax.text(0.5, 0.5, "no finite cosine", ha="center", va="center", transform=ax.transAxes)
            ax.set_yticks([])
            return
        for curve in panel.curves:
            self._draw_curve(curve)
        self._draw_chance(self._draw_shares())

    def _style(self, curve: Curve) -> CurveStyle:
        return self.styles[curve.student, curve.init]

    def _text_width(self, text: str, size: float) -> float:
        return text_width(cast("Figure", self.ax.get_figure(root=True)), text, size)

    def _draw_curve(self, curve: Curve) -> None:
        style, count = self._style(curve), len(self.panel.curves)
        edges = np.linspace(-1.0, 1.0, len(curve.counts) + 1)
        fill = 0.28 if count <= 2 else 0.12 if count <= MOST_SHARES else 0.04
        self.ax.stairs(curve.density, edges, fill=True, color=style.colour, alpha=fill, linewidth=0, zorder=2)
        self.ax.stairs(
            curve.density,
            edges,
            color=style.colour,
            linestyle=style.dashes,
            linewidth=1.0,
            alpha=0.95,
            zorder=3,
            gid=f"curve-{curve.student}",
        )
        if count > 1:
            peak = int(np.argmax(curve.density))
            self.ax.plot(
                [(edges[peak] + edges[peak + 1]) / 2],
                [curve.density[peak]],
                style.marker,
                color=style.colour,
                markersize=3.4,
                markeredgecolor=self.look.background,
                markeredgewidth=0.4,
                zorder=5,
                clip_on=False,
            )

    def _share_lines(self) -> list[tuple[str, CurveStyle, bool]]:
        """Return the lines that state the acute shares: text, style, and whether it has a marker."""
        curves = self.panel.curves
        if len(curves) <= MOST_SHARES:
            shared = [f"{percent(curve.acute_fraction)} acute" for curve in curves]
            if self.panel.strategy is not None and len({curve.init for curve in curves}) > 1:
                inits = [init_words(curve.init or "").removesuffix(" init") for curve in curves]
                shared = [f"{init}: {text}" for init, text in zip(inits, shared, strict=True)]
            return [(text, self._style(curve), len(curves) > 1) for text, curve in zip(shared, curves, strict=True)]
        groups: dict[str | None, list[Curve]] = {}
        for curve in curves:
            groups.setdefault(curve.init, []).append(curve)
        lines = []
        for members in groups.values():
            ends = [percent(extreme(c.acute_fraction for c in members)) for extreme in (min, max)]
            text = ends[0] if ends[0] == ends[1] else f"{ends[0].removesuffix('%')}–{ends[1]}"  # noqa: RUF001
            lines.append((f"{text} acute", self._style(members[0]), False))
        return lines

    def _draw_shares(self) -> float:
        """Write the acute shares in the emptier upper corner; raise the density axis to keep curves out of it.

        Returns:
            The height (axes fraction) up to which a chance line may rise.
        """
        ax, size, curves = self.ax, self.size, self.panel.curves
        lines = self._share_lines()
        indent = 0.12 if lines[0][2] else 0.0
        width = max(self._text_width(text, FONT_SIZE) for text, *_ in lines) + indent + 0.12
        height = LINE * len(lines) + 0.06
        reach = int(np.ceil(len(curves[0].counts) * min(width / size[0], 1.0)))
        highest = np.max([curve.density for curve in curves], axis=0)
        under_left, under_right = highest[:reach].max(), highest[-reach:].max()
        on_left = bool(under_left <= under_right)
        top = max(highest.max() * 1.08, min(under_left, under_right) * 1.05 / (1 - height / size[1]))
        ax.set_ylim(0.0, top)
        for rank, (text, style, marked) in enumerate(lines):
            y = 1 - (0.03 + LINE * (rank + 0.5)) / size[1]
            x = (0.05 + indent) / size[0] if on_left else 1 - 0.05 / size[0]
            side = "left" if on_left else "right"
            ax.text(x, y, text, color=style.text_colour, ha=side, va="center", transform=ax.transAxes, zorder=6)
            if marked:
                beside = 0.1 / size[0] if on_left else x - (self._text_width(text, FONT_SIZE) + 0.08) / size[0]
                ax.plot(
                    [beside], [y], style.marker, color=style.colour, markersize=3.6, transform=ax.transAxes, zorder=6
                )
        edge = width / size[0] * 2.0
        crossed = any((curve.chance < -1 + edge) if on_left else (curve.chance > 1 - edge) for curve in curves)
        return 1 - height / size[1] if crossed else 1.0

    def _draw_chance(self, top: float) -> None:
        """Mark each student's chance level by a dashed line; lines that stand together are named once."""
        known = [curve for curve in self.panel.curves if np.isfinite(curve.chance)]
        for curve in known:
            self.ax.axvline(
                curve.chance,
                ymax=top,
                color=self._style(curve).colour,
                linestyle=CHANCE_DASHES,
                linewidth=0.9,
                zorder=4,
                gid=f"chance-{curve.student}",
            )
        word = self._text_width("chance", SMALL_FONT_SIZE) / self.size[0] * 2.0 + 0.06
        for members in _together(known, word):
            colours = {self._style(curve).text_colour for curve in members}
            x = float(np.mean([curve.chance for curve in members]))
            self.ax.text(
                min(max(x, -1 + word / 2), 1 - word / 2),
                1 + 0.02 / self.size[1],
                "chance",
                transform=self.ax.get_xaxis_transform(),
                ha="center",
                va="bottom",
                fontsize=SMALL_FONT_SIZE,
                color=colours.pop() if len(colours) == 1 else self.look.ink,
            )


def _together(curves: Sequence[Curve], distance: float) -> list[list[Curve]]:
    """Return the curves in groups whose mean chance levels are at least `distance` apart."""
    groups = [[curve] for curve in sorted(curves, key=lambda curve: curve.chance)]
    while True:
        means = [np.mean([curve.chance for curve in group]) for group in groups]
        near = [index for index in range(len(groups) - 1) if means[index + 1] - means[index] < distance]
        if not near:
            return groups
        index = near[0]
        groups[index : index + 2] = [groups[index] + groups[index + 1]]
