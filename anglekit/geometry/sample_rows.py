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
from torch import Tensor

from anglekit.geometry.angles import angle_degrees_of_cosine, chance_factors, layer_pairs
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
from anglekit.geometry.summary import pair_labels
from anglekit.geometry.table_rows import Rows
from anglekit.geometry.vocabulary import NULLS

__all__ = [
    "SampledTokens",
    "null_rows",
    "similarity_rows",
    "sweep_rows",
]

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
        parts.append(
            {
                "null": name,
                "mean_cosine": summary.mean,
                "se": summary.se,
                "n_tokens": summary.n_tokens,
                "observed_cosine": summary.observed,
                "observed_minus_null": summary.difference,
                "low": summary.low,
                "high": summary.high,
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
