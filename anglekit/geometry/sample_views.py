"""From a sample of tokens to rows of a Geometry: anisotropy, and the angles in other views of the states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anglekit.geometry.anisotropy import Anisotropy, anisotropy, dominant_dimensions, transformed
from anglekit.geometry.nulls import mean_and_error, sample_angles, sample_products
from anglekit.geometry.sample_rows import SampledTokens
from anglekit.geometry.settings import Effort
from anglekit.geometry.table_rows import Rows
from anglekit.geometry.vocabulary import VIEWS, View

__all__ = ["ViewRows", "token_views", "view_rows"]


def token_views(kind: str, effort: Effort) -> tuple[View, ...]:
    """Return in which views the tokens of a kind are looked at."""
    return VIEWS if kind == "all" or effort == "all" else ("raw",)


@dataclass(frozen=True)
class ViewRows:
    """What one kind of tokens adds to the tables `anisotropy`, `dimensions` (raw only) and `angle_views`."""

    anisotropy: list[Rows]
    dimensions: list[Rows]
    angle_views: list[Rows]


@dataclass(frozen=True)
class _Side:
    """One side of a space: its name, the numbers of its layers, and where in the space's states they lie."""

    name: str
    numbers: Sequence[int]
    layers: slice


@dataclass(frozen=True)
class _Space:
    """States of one width, in which differences can be taken and which lose the same dominant dimensions.

    Attributes:
        states: of all sides, one behind the other, shape (layers, tokens, width).
        sides: looked at together, which costs half the calls.
    """

    states: Tensor
    sides: Sequence[_Side]

    @cached_property
    def raw(self) -> Anisotropy:
        """The anisotropy of the states as they are."""
        return anisotropy(self.states)

    @cached_property
    def dropped(self) -> Tensor:
        """The dominant dimensions."""
        return dominant_dimensions(self.raw)

    def seen(self, view: View) -> Tensor:
        """Return the states in a view."""
        return transformed(self.states, view, self.dropped if view == "dropped" else None)


def view_rows(tokens: SampledTokens, kind: str, views: Sequence[View]) -> ViewRows:
    """Return anisotropy and angles of one kind of tokens in several views.

    Args:
        tokens: of that kind.
        kind: `all`, `content` or `special`.
        views: how to look at their states.
    """
    n = len(tokens.teacher)
    if tokens.projections is None:
        both = _Side("teacher", tokens.teacher_layers, slice(n)), _Side("student", tokens.vertices, slice(n, None))
        angle_space = _Space(torch.cat([tokens.teacher, tokens.own]), both)
        spaces = [angle_space]
    else:
        spaces = [
            _Space(tokens.teacher, [_Side("teacher", tokens.teacher_layers, slice(None))]),
            _Space(tokens.own, [_Side("student", tokens.vertices, slice(None))]),
        ]
        angle_space = _Space(torch.cat([tokens.teacher.double(), tokens.projected()]), [])
    names = {"student": tokens.student, "stream": tokens.stream}
    rows, angles, shares = list[Rows](), list[Rows](), list[Rows]()
    for view in views:
        labels = {"tokens": kind, "view": view}
        for space in spaces:
            seen = space.seen(view)
            found = space.raw if view == "raw" else anisotropy(seen)
            dropped = space.dropped if view == "dropped" else None
            for side in space.sides:
                columns = _anisotropy_columns(found.of(side.layers), dropped)
                place = {"side": side.name, "layer": np.asarray(side.numbers, dtype=np.int64)}
                rows.append({**names, **place, **labels, **columns, "n_tokens": tokens.n_tokens})
        if space is not angle_space:
            seen = angle_space.seen(view)
        angles.append(tokens.labelled({**labels, **_angle_columns(seen[:n], seen[n:], tokens.epsilon)}))
    for space in spaces:
        shares += [{**names, "side": side.name, **_share_columns(space.raw, side)} for side in space.sides]
    return ViewRows(rows, shares, angles)


def _anisotropy_columns(found: Anisotropy, dropped: Tensor | None) -> dict[str, Any]:
    """Return a row for each layer; dimensions keep the numbers that they had before some were dropped."""
    top = found.share.nan_to_num(0.0).abs().max(1).indices
    number = np.arange(found.share.shape[1])
    if dropped is not None:
        number = np.delete(np.arange(len(number) + len(dropped)), dropped.cpu().numpy())
    return {
        "mean_cosine": found.mean_cosine,
        "se": found.se,
        "top_dimension": number[top.cpu().numpy()],
        "top_share": found.share.gather(1, top.unsqueeze(1)),
    }


def _share_columns(found: Anisotropy, side: _Side) -> dict[str, Any]:
    """Return a row for each layer and dimension of a side."""
    width = found.share.shape[1]
    return {
        "layer": np.repeat(np.asarray(side.numbers, dtype=np.int64), width),
        "dimension": np.tile(np.arange(width), len(side.numbers)),
        "share": found.share[side.layers],
    }


def _angle_columns(teacher: Tensor, vertices: Tensor, epsilon: float) -> dict[str, Any]:
    angles = sample_angles(sample_products(teacher, vertices), epsilon)
    mean, se, n, _ = mean_and_error(angles.cosine, angles.valid)
    tangential, _, _, _ = mean_and_error(angles.tangential, angles.tangential_valid)
    return {"mean_cosine": mean, "se": se, "mean_tangential_cosine": tangential, "n_tokens": n}
