"""From a sample of tokens to rows of a Geometry: nulls, the sweep of the vertex and similarity."""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy.special import stdtrit
from torch import Tensor

from anglekit.analysis.measurement import Measurement
from anglekit.analysis.settings import Effort
from anglekit.analysis.spec import AnalysisSpec
from anglekit.geometry.angles import angle_degrees_of_cosine, chance_factors, layer_pairs, pair_labels
from anglekit.geometry.anisotropy import Anisotropy, anisotropy, dominant_dimensions, transformed
from anglekit.geometry.cka import (
    MinibatchSums,
    debiased_cka,
    linear_cka,
    mutual_neighbours,
    procrustes_distance,
)
from anglekit.geometry.nulls import (
    SWEEP,
    SampleProducts,
    centroid_products,
    difference_lags,
    gaussian_like,
    gaussian_products,
    mean_and_error,
    origin_products,
    random_rotation,
    rescaled,
    sample_angles,
    sample_products,
    shift_offsets,
    summarize,
    sweep_products,
)
from anglekit.results.rows import Rows
from anglekit.vocabulary import DEFAULT_NULLS, NULLS, VIEWS, Stream, View

__all__ = [
    "SampledTokens",
    "ViewRows",
    "layer_cka",
    "null_rows",
    "sample_rows",
    "similarity_rows",
    "sweep_rows",
    "token_views",
    "view_rows",
]


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


def sample_rows(spec: AnalysisSpec, measurement: Measurement) -> tuple[dict[str, list[Rows]], dict[str, Any]]:
    """Return the rows that rest on the sample by table, and how many examples it holds and lacks by student and stream.

    A table that would be empty is left out.
    """
    tables: dict[str, list[Rows]] = {}
    counts: dict[str, Any] = {}
    for position, name in enumerate(spec.names):
        for stream in spec.layers:
            found, left_out = _stream_rows(spec, measurement, stream, position)
            for table, rows in found:
                if rows:
                    tables.setdefault(table, []).extend(rows)
            sample = measurement.samples[stream]
            counts.setdefault(name, {})[stream] = {"examples": len(sample), "nonfinite": left_out}
    return tables, counts


def layer_cka(spec: AnalysisSpec, measurement: Measurement, stream: Stream) -> tuple[list[Tensor | None], int]:
    """Return the debiased CKA of example means by student, over teacher and student layers, and the examples."""
    n_students, sample = len(spec.names), measurement.samples[stream]
    chosen = spec.layers[stream]
    n = len(chosen.teacher)
    starts = np.cumsum([n, *(len(vertices) for vertices in chosen.students)])
    parts = [
        [*range(n), *range(start, start + len(vertices))]
        for start, vertices in zip(starts, chosen.students, strict=False)
    ]
    cross = measurement.cross.get(stream)
    if cross is not None and int(cross.n):
        whole = cross.cka()
        return [whole[part][:, part] for part in parts], int(cross.n)
    if spec.settings.similarity == "none" or not len(sample):
        return [None] * n_students, 0
    _, sides = sample.tokens("mean")
    finite = _finite_tokens(sides)
    if bool(finite.all()):
        whole = debiased_cka([layer for side in sides for layer in side])
        return [whole[part][:, part] for part in parts], len(finite)
    # An example that one student cannot give must not be missing from the others' numbers.
    results: list[Tensor | None] = []
    for position in range(n_students):
        tokens, _, _ = _tokens(spec, measurement, stream, position, "mean")
        results.append(debiased_cka([*tokens.teacher, *tokens.own]))
    return results, int(finite.sum())


def _tokens(
    spec: AnalysisSpec,
    measurement: Measurement,
    stream: Stream,
    position: int,
    kind: str,
    most: int | None = None,
    fresh: Tensor | None = None,
) -> tuple[SampledTokens, Tensor | None, int]:
    """Return a student's tokens of a kind, finite at every layer, and how many were left out.

    Args:
        spec: what was looked at.
        measurement: its samples are not empty.
        stream: which.
        position: which student.
        kind: as in `TokenSample.tokens`.
        most: take no more than the first so many.
        fresh: states that follow the same choice, of all tokens of that kind, shape (vertices, tokens, width).
    """
    _, sides = measurement.samples[stream].tokens(kind)
    states = [sides[0], sides[position + 1], *([] if fresh is None else [fresh])]
    if most is not None:
        states = [side[:, :most] for side in states]
    finite = _finite_tokens(states)
    left_out = int(len(finite) - finite.sum())
    if left_out:
        states = [side[:, finite] for side in states]
    chosen, projections = spec.layers[stream], measurement.projections.get((stream, position))
    tokens = SampledTokens(
        spec.names[position],
        stream,
        chosen.teacher,
        chosen.students[position],
        states[0],
        states[1],
        None if projections is None else [matrix.to(states[1].device) for matrix in projections],
        spec.epsilon,
    )
    return tokens, states[2] if fresh is not None else None, left_out


def _stream_rows(
    spec: AnalysisSpec, measurement: Measurement, stream: Stream, position: int
) -> tuple[list[tuple[str, list[Rows]]], int]:
    found, left_out = list[tuple[str, list[Rows]]](), 0
    if not len(measurement.samples[stream]):
        return found, left_out
    which = (spec, measurement, stream, position)
    effort, seed = spec.settings.nulls, spec.settings.seed
    if effort != "none":
        tokens, _, left_out = _tokens(*which, "all")
        if (stream, position) in measurement.fresh:
            # The untrained student must be finite too, for its own null only.
            fresh = measurement.fresh[stream, position].tokens("all")[1][0]
            both, finite_fresh, _ = _tokens(*which, "all", fresh=fresh)
            found.append(("nulls", null_rows(both, ["fresh-student"], seed, finite_fresh)))
        names = tuple(NULLS) if effort == "all" else DEFAULT_NULLS
        found.append(("nulls", null_rows(tokens, names, seed)))
        found.append(("vertex_sweep", sweep_rows(tokens)))
        for kind in ("all", "content", "special"):
            most = None if effort == "all" else spec.viewed
            some, _, _ = _tokens(*which, kind, most=most)
            if some.n_tokens < 2:  # no token of another example to compare with
                continue
            rows = view_rows(some, kind, token_views(kind, effort))
            found += [("anisotropy", rows.anisotropy), ("angle_views", rows.angle_views)]
            if kind == "all":
                found.append(("dimensions", rows.dimensions))
    if spec.settings.similarity == "all":
        for states, kind in (("example-mean", "mean"), ("token", "all")):
            tokens, _, _ = _tokens(*which, kind)
            if tokens.n_tokens:
                found.append(("similarity", [similarity_rows(tokens, states)]))
    return found, left_out


def _finite_tokens(sides: Sequence[Tensor]) -> Tensor:
    """Return which tokens are finite at every layer of every side, bool (tokens,).

    A layer that is broken at more than half of the tokens takes no part: the other layers' numbers stand without it.
    """
    finite = torch.cat([torch.linalg.vector_norm(side, dim=-1) for side in sides]).isfinite()
    if bool(finite.all()):
        return finite[0]
    whole = 2 * finite.sum(1) >= finite.shape[1]
    return finite[whole].all(0)


#: Rows of a minibatch of the minibatch estimate of CKA.
MINIBATCH = 64

# Bytes of one value for every vertex, pair and token of the places of the vertex that are worked on at once.
_GROUP_BYTES = 2 << 20


@dataclass(frozen=True)
class SampledTokens:
    """Tokens of one student and stream with what labels their rows; broken layers hold NaN, the others are finite.

    Attributes:
        student: the student's name.
        stream: `encoder` or `decoder`.
        teacher_layers: the layers' numbers.
        vertices: the student's layers' numbers.
        teacher: states, shape (teacher layers, tokens, width).
        own: the student's states in its own width, shape (vertices, tokens, student width).
        projections: for each vertex a float64 matrix (width, student width), or None where the widths agree.
        epsilon: what the official reading adds to the product of lengths.
    """

    student: str
    stream: str
    teacher_layers: Sequence[int]
    vertices: Sequence[int]
    teacher: Tensor
    own: Tensor
    projections: Sequence[Tensor] | None = None
    epsilon: float = 0.0

    @property
    def n_tokens(self) -> int:
        """The number of tokens."""
        return self.teacher.shape[1]

    def projected(self, own: Tensor | None = None) -> Tensor:
        """Return the student's states, or others in its own width, in the teacher's width."""
        own = self.own if own is None else own
        if self.projections is None:
            return own
        return torch.stack([state.double() @ matrix.T for state, matrix in zip(own, self.projections, strict=True)])

    @cached_property
    def products(self) -> SampleProducts:
        """Inner products of the states, token by token."""
        return sample_products(self.teacher, self.projected())

    def labelled(self, columns: Mapping[str, Any]) -> Rows:
        """Return rows for every vertex and pair, of columns that are one value or a tensor (vertices, pairs)."""
        vertex, i, k = pair_labels(self.vertices, self.teacher_layers)
        names = {"student": self.student, "stream": self.stream}
        return {**names, "vertex": vertex, "teacher_i": i, "teacher_k": k, **columns}


def _mean(values: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean, standard error and number of the valid tokens; each token is an example of its own."""
    mean, se, n_tokens, _ = mean_and_error(values, valid)
    return mean, se, n_tokens


def null_rows(tokens: SampledTokens, names: Sequence[str], seed: int, fresh: Tensor | None = None) -> list[Rows]:
    """Return the rows of `nulls.parquet` for one student and stream.

    A null that needs more tokens than there are is left out: a permutation of all needs more than there are teacher
    layers, the others two.

    Args:
        tokens: the sample.
        names: which nulls, of `NULLS`; `fresh-student` only with `fresh`.
        seed: of the draws, which are the same for every student.
        fresh: an untrained student's states of the same tokens, in the student's own width.
    """
    vertices, products = tokens.projected(), tokens.products
    observed = sample_angles(products, tokens.epsilon)
    parts = []
    for name in (name for name in NULLS if name in names):
        if tokens.n_tokens < 2 or (name == "permuted-all" and tokens.n_tokens <= len(tokens.teacher)):
            continue
        rng = np.random.default_rng([seed % 2**63, zlib.crc32(f"{tokens.stream}/{name}".encode())])
        lags: list[Tensor] = []
        if name == "formula":
            factors = chance_factors(products.teacher_squared, products.vertex)
            i, k = layer_pairs(len(tokens.teacher))
            null = factors[:, i] * factors[:, k]
            valid = null.isfinite()
            null, tangential = torch.where(valid, null, 0.0), torch.zeros_like(null[..., 0])
        else:
            if name.startswith("permuted"):
                offsets = shift_offsets(name, len(tokens.teacher), len(vertices))
                drawn, lags = sample_products(tokens.teacher, vertices, offsets), difference_lags(offsets)
            elif name == "fresh-student" and fresh is None:
                continue
            else:
                drawn = _drawn_products(name, tokens, products, vertices, fresh, rng)
            angles = sample_angles(drawn, tokens.epsilon)
            null, valid = angles.cosine, angles.valid
            tangential, _, _ = _mean(angles.tangential, angles.tangential_valid)
        summary = summarize(observed.cosine, observed.valid, null, valid, lags)
        # Student's t, two-sided 95%.
        quantile = torch.from_numpy(stdtrit(summary.freedom.cpu().numpy(), 0.975)).to(null.device)
        reach = quantile * summary.difference_se
        parts.append(
            {
                "null": name,
                "mean_cosine": summary.mean,
                "se": summary.se,
                "n_tokens": summary.n_tokens,
                "observed_cosine": summary.observed,
                "observed_minus_null": summary.difference,
                "low": summary.difference - reach,
                "high": summary.difference + reach,
                "mean_tangential_cosine": tangential.expand_as(summary.mean),
            }
        )
    return [tokens.labelled(part) for part in parts]


def _drawn_products(
    name: str,
    tokens: SampledTokens,
    products: SampleProducts,
    vertices: Tensor,
    fresh: Tensor | None,
    rng: np.random.Generator,
) -> SampleProducts:
    if name == "gaussian-norm":
        return gaussian_products(products.teacher_squared, products.vertex, tokens.teacher.shape[-1], rng)
    if name == "gaussian-covariance":
        sides = [torch.stack([gaussian_like(layer, rng) for layer in side]) for side in (tokens.teacher, vertices)]
        return sample_products(sides[0], sides[1])
    if name == "rotated-student":
        rotation = random_rotation(vertices.shape[-1], rng).to(vertices.device)
        return sample_products(tokens.teacher, vertices.double() @ rotation.T)
    if name == "fresh-student":
        return sample_products(tokens.teacher, rescaled(tokens.projected(fresh), products.vertex))
    simple: dict[str, Callable[[SampleProducts], SampleProducts]] = {
        "origin": origin_products,
        "centroid": centroid_products,
    }
    return simple[name](products)


def sweep_rows(tokens: SampledTokens) -> list[Rows]:
    """Return the rows of `vertex_sweep.parquet` for one student and stream."""
    products, parts = tokens.products, list[dict[str, Any]]()
    numbers = len(products.vertex) * math.comb(len(tokens.teacher), 2) * tokens.n_tokens
    step = max(1, _GROUP_BYTES // (8 * max(1, numbers)))
    for first in range(0, len(SWEEP), step):
        ts = SWEEP[first : first + step]
        angles = sample_angles(sweep_products(products, ts), tokens.epsilon)
        mean, se, n = _mean(angles.cosine, angles.valid)
        tangential, _, _ = _mean(angles.tangential, angles.tangential_valid)
        columns = {
            "mean_cosine": mean,
            "se": se,
            "mean_angle_degrees": _mean_angle(angles.cosine, angles.valid),
            "mean_tangential_cosine": tangential,
            "mean_tangential_angle_degrees": _mean_angle(angles.tangential, angles.tangential_valid),
            "n_tokens": n,
        }
        several = zip(*(values.chunk(len(ts)) for values in columns.values()), strict=True)
        parts += [{"t": t, **dict(zip(columns, each, strict=True))} for t, each in zip(ts, several, strict=True)]
    return [tokens.labelled(part) for part in parts]


def _mean_angle(cosine: Tensor, valid: Tensor) -> Tensor:
    n = valid.sum(-1)
    angle = torch.where(valid, angle_degrees_of_cosine(cosine), 0.0)
    return angle.sum(-1) / torch.where(n > 0, n, torch.nan)


def similarity_rows(tokens: SampledTokens, states: str) -> Rows:
    """Return the rows of `similarity.parquet` for one kind of states: every two layers of teacher and student.

    Args:
        tokens: the sample, in random order, which makes its minibatches random ones.
        states: what the states are: `example-mean` or `token`.
    """
    layers = [*tokens.teacher, *tokens.own]
    names = [("teacher", layer) for layer in tokens.teacher_layers] + [("student", layer) for layer in tokens.vertices]
    minibatch = MinibatchSums.zeros(len(layers))
    for start in range(0, tokens.n_tokens, MINIBATCH):
        minibatch = minibatch.with_batch([layer[start : start + MINIBATCH] for layer in layers])
    matrices = {
        "debiased_cka": debiased_cka(layers),
        "minibatch_cka": minibatch.cka(),
        "linear_cka": linear_cka(layers),
    }
    pairs = list(itertools.combinations_with_replacement(range(len(layers)), 2))
    a, b = np.array(pairs).T
    side, number = (np.array([name[part] for name in names], dtype=dtype) for part, dtype in ((0, object), (1, int)))
    return {
        "student": tokens.student,
        "stream": tokens.stream,
        "side_a": side[a],
        "layer_a": number[a],
        "side_b": side[b],
        "layer_b": number[b],
        "states": states,
        **{name: matrix.cpu().numpy()[a, b] for name, matrix in matrices.items()},
        "procrustes_distance": np.array([float(procrustes_distance(layers[x], layers[y])) for x, y in pairs]),
        "mutual_neighbours": np.array([float(mutual_neighbours(layers[x], layers[y])) for x, y in pairs]),
        "n": tokens.n_tokens,
    }
