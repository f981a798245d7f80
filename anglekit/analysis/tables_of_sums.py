"""From sums to tables: the statistics of a `GeometrySums` as rows of a Geometry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from anglekit.geometry.angles import layer_pairs
from anglekit.geometry.similarity import centred_cosines
from anglekit.geometry.sums import AngleSums, BlockSums, GeometrySums, SideSums
from anglekit.results.rows import Rows

__all__ = [
    "angle_rows",
    "clustered_standard_error",
    "degenerate_counts",
    "example_rows",
    "histogram_rows",
    "layer_rows",
    "pair_labels",
]

Array = NDArray[Any]


def _array(tensor: Tensor) -> Array:
    return np.asarray(tensor.cpu().numpy())


def _mean(total: Array, count: Array) -> Array:
    return np.asarray(np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0))


def clustered_standard_error(angles: AngleSums) -> Array:
    """Return the standard error of each mean cosine, clustered by example: float64 (vertices, pairs).

    Tokens of one example depend on each other, so examples are the units: for example sums y_e over n_e tokens and the
    mean m = sum y / sum n, the variance is E / (E - 1) sum (y_e - m n_e)^2 / (sum n)^2 (linearised ratio estimator).
    NaN with fewer than two examples.
    """
    n, examples = _array(angles.count).astype(float), _array(angles.example_count)
    mean = _mean(_array(angles.cosine), n)
    residual = (
        _array(angles.example_square)
        - 2 * mean * _array(angles.example_product)
        + mean**2 * _array(angles.example_count_square)
    )
    enough = examples > 1
    correction = np.divide(examples, examples - 1, out=np.full(n.shape, np.nan), where=enough)
    return np.asarray(np.sqrt(correction * np.clip(residual, 0, None)) / np.where(enough, n, np.nan))


def angle_rows(
    sums: GeometrySums, student: str, stream: str, vertices: Sequence[int], teacher_layers: Sequence[int]
) -> Rows:
    """Return the rows of `angles.parquet` for one student and stream; statistics without a token are NaN."""
    angles = sums.angles
    count = _array(angles.count)
    mean = _mean(_array(angles.cosine), count)
    square = _mean(_array(angles.cosine_squared), count)
    vertex, i, k = pair_labels(vertices, teacher_layers)
    return {
        "student": student,
        "stream": stream,
        "vertex": vertex,
        "teacher_i": i,
        "teacher_k": k,
        "mean_cosine": mean,
        "std_cosine": np.sqrt(np.clip(square - mean**2, 0, None)),
        "mean_angle_degrees": _mean(_array(angles.angle), count),
        "acute_fraction": _mean(_array(angles.acute).astype(float), count),
        "mean_tangential_cosine": _mean(_array(angles.tangential), _array(angles.tangential_count)),
        "mean_tangential_angle_degrees": _mean(_array(angles.tangential_angle), _array(angles.tangential_count)),
        "null_cosine": _mean(_array(angles.null), _array(angles.null_count)),
        "se_cosine": clustered_standard_error(angles),
        "n_tokens": count,
        "n_examples": _array(angles.example_count),
    }


def histogram_rows(
    sums: GeometrySums, student: str, stream: str, vertices: Sequence[int], teacher_layers: Sequence[int]
) -> Rows:
    """Return the rows of `histograms.parquet`: every pair, and each vertex pooled; empty bins left out."""
    histogram = _array(sums.angles.histogram)
    pooled = histogram.sum(1, keepdims=True)
    vertex, i, k = pair_labels(vertices, teacher_layers)
    n_vertices = len(vertices)
    marker = np.full((n_vertices, 1), -1)
    labels = [
        np.concatenate([vertex, np.asarray(vertices).reshape(-1, 1)], axis=1).reshape(-1),
        np.concatenate([i, marker], axis=1).reshape(-1),
        np.concatenate([k, marker], axis=1).reshape(-1),
    ]
    counts = np.concatenate([histogram, pooled], axis=1).reshape(-1, histogram.shape[-1])
    row, bins = np.nonzero(counts)
    return {
        "student": student,
        "stream": stream,
        "vertex": labels[0][row],
        "teacher_i": labels[1][row],
        "teacher_k": labels[2][row],
        "bin": bins,
        "count": counts[row, bins],
    }


def layer_rows(
    sums: GeometrySums,
    student: str,
    stream: str,
    vertices: Sequence[int],
    teacher_layers: Sequence[int],
    cka: Tensor | None = None,
) -> list[Rows]:
    """Return the rows of `layers.parquet`: teacher with teacher, teacher with student, student with student.

    Within a side each pair of layers is one row (a <= b). Rows of the student with itself are in its own width; rows
    across are after the projection, but for `cka`, which compares layers of any widths as they are.

    Args:
        sums: of the student and stream.
        student: its name.
        stream: `encoder` or `decoder`.
        vertices: the student's layer numbers.
        teacher_layers: the teacher's layer numbers.
        cka: between the teacher's layers and the student's, in this order, (all layers, all layers); None: NaN.
    """
    n, every = len(teacher_layers), len(teacher_layers) + len(vertices)
    values = np.full((every, every), np.nan) if cka is None else _array(cka)
    teacher = ("teacher", teacher_layers, sums.teacher)
    own = ("student", vertices, sums.student)
    projected = ("student", vertices, sums.vertex)
    return [
        _block_rows(sums, sums.teacher_teacher, teacher, teacher, student, stream, values[:n, :n], same_side=True),
        _block_rows(sums, sums.teacher_student, teacher, projected, student, stream, values[:n, n:], same_side=False),
        _block_rows(sums, sums.student_student, own, own, student, stream, values[n:, n:], same_side=True),
    ]


def _block_rows(
    sums: GeometrySums,
    block: BlockSums,
    side_a: tuple[str, Sequence[int], SideSums],
    side_b: tuple[str, Sequence[int], SideSums],
    student: str,
    stream: str,
    cka: Array,
    *,
    same_side: bool,
) -> Rows:
    name_a, layers_a, sums_a = side_a
    name_b, layers_b, sums_b = side_b
    centred = centred_cosines(
        block.product, sums_a.state, sums_b.state, sums_a.squared, sums_b.squared, sums.n_complete
    )
    a, b = np.triu_indices(len(layers_a)) if same_side else np.indices((len(layers_a), len(layers_b))).reshape(2, -1)
    norm = _mean(_array(sums_a.norm), _array(sums_a.n_finite))
    return {
        "student": student,
        "stream": stream,
        "side_a": name_a,
        "layer_a": np.asarray(layers_a)[a],
        "side_b": name_b,
        "layer_b": np.asarray(layers_b)[b],
        "mean_cosine": _mean(_array(block.cosine), _array(block.n_cosine))[a, b],
        "centred_cosine": _array(centred)[a, b],
        "mean_distance": _mean(_array(block.distance), _array(block.n_distance))[a, b],
        "cka": cka[a, b],
        "mean_norm": np.where(a == b, norm[a], np.nan) if same_side else np.nan,
    }


def example_rows(sums: GeometrySums, student: str, stream: str, vertices: Sequence[int]) -> Rows:
    """Return the rows of `examples.parquet`: each example's mean over its tokens and pairs, vertex by vertex."""
    examples = sums.examples
    number = len(examples.example)
    mean = _mean(_array(examples.cosine), _array(examples.n_cosines))
    return {
        "student": student,
        "stream": stream,
        "vertex": np.repeat(np.asarray(vertices, dtype=np.int64), number),
        "example": np.tile(_array(examples.example), len(vertices)),
        "mean_cosine": mean,
        "n_tokens": _array(examples.n_tokens),
    }


def degenerate_counts(sums: GeometrySums, vertices: Sequence[int], teacher_layers: Sequence[int]) -> dict[str, Any]:
    """Return what was left out of the means and why, by layer; layers without any are not listed.

    `zero_direction` counts tokens for which a teacher layer coincides with the vertex (an embedding that was copied).
    """
    zero = _array(sums.angles.zero_direction)
    return {
        "tokens": int(sums.n_tokens),
        "tokens_finite_everywhere": int(sums.n_complete),
        "nonfinite_states": {
            "teacher": _by_layer(teacher_layers, sums.teacher.n_nonfinite),
            "student": _by_layer(vertices, sums.student.n_nonfinite),
        },
        "zero_states": {
            "teacher": _by_layer(teacher_layers, sums.teacher.n_zero),
            "student": _by_layer(vertices, sums.student.n_zero),
        },
        "zero_direction": [
            {"vertex": int(vertices[v]), "teacher_layer": int(teacher_layers[t]), "tokens": int(zero[v, t])}
            for v, t in zip(*np.nonzero(zero), strict=True)
        ],
    }


def _by_layer(layers: Sequence[int], counts: Tensor) -> dict[str, int]:
    return {str(layer): int(count) for layer, count in zip(layers, counts, strict=True) if int(count)}


def pair_labels(vertices: Sequence[int], teacher_layers: Sequence[int]) -> tuple[Array, Array, Array]:
    """Return vertex, teacher_i, teacher_k for every row, each of shape (vertices, pairs)."""
    i, k = (_array(index) for index in layer_pairs(len(teacher_layers)))
    layers = np.asarray(teacher_layers, dtype=np.int64)
    shape = (len(vertices), len(i))
    vertex = np.broadcast_to(np.asarray(vertices, dtype=np.int64).reshape(-1, 1), shape)
    return vertex, np.broadcast_to(layers[i], shape), np.broadcast_to(layers[k], shape)
