"""From a measurement to a Geometry: pure, without the models; the rows that rest on the sums are made here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from anglekit.analysis.fitted_projections import explained_variance
from anglekit.analysis.measurement import Measurement
from anglekit.analysis.sample_tables import LayerCka, layer_cka, sample_rows
from anglekit.analysis.spec import AnalysisSpec
from anglekit.analysis.token_texts import TokenText
from anglekit.errors import RunError
from anglekit.geometry.angles import layer_pairs, pair_labels
from anglekit.geometry.similarity import centred_cosines
from anglekit.geometry.sums import BlockSums, GeometrySums, SideSums, cosine_standard_error, token_place
from anglekit.results.columns import EXTREMES
from anglekit.results.document import StreamCounts, ZeroDirection
from anglekit.results.geometry import Geometry
from anglekit.results.rows import Rows, data_frame
from anglekit.runtime.workspace import give_back_memory
from anglekit.vocabulary import N_BINS

Array = NDArray[Any]

# Bytes of all histograms from which memory is given back between the steps.
_LARGE_HISTOGRAMS = 64 << 20


def tabulate(spec: AnalysisSpec, measurement: Measurement) -> Geometry:
    """Return what a measurement says, of the whole probe or of a part of it.

    Raises:
        RunError: the measurement is of the whole probe and no angle of a student is left.
    """
    if measurement.n_batches == spec.n_batches:
        _check_finite(spec, measurement)
    # Of many layers the tables take as much as what the passes have left; else it is not worth fetching pages anew.
    counts = sum(sums.angles.histogram.nbytes for sums in measurement.sums.values())
    give_back = give_back_memory if counts >= _LARGE_HISTOGRAMS else _keep_memory
    give_back()
    cka = {stream: layer_cka(spec, measurement, stream) for stream in spec.layers}
    rows: dict[str, list[Rows]] = {"angles": [], "histograms": [], "layers": [], "examples": []}
    degenerate: dict[str, dict[str, StreamCounts]] = {}
    for stream, position in spec.keys:
        name, chosen, sums = spec.names[position], spec.layers[stream], measurement.sums[stream, position]
        vertices, labels = chosen.students[position], {"student": name, "stream": stream}
        rows["angles"].append(angle_rows(sums, labels, vertices, chosen.teacher))
        rows["histograms"].append(_histogram_rows(sums, labels, vertices, chosen.teacher))
        rows["layers"] += _layer_rows(sums, labels, vertices, chosen.teacher, cka[stream][0][position])
        rows["examples"].append(_example_rows(sums, labels, vertices, dict(spec.repeats)))
        degenerate.setdefault(name, {})[stream] = _stream_counts(sums, vertices, chosen.teacher)
    sampled_rows, sampled = sample_rows(spec, measurement, {stream: found for stream, (found, _) in cka.items()})
    rows |= sampled_rows
    del sampled_rows  # `_data_frames` drops them one by one
    record = spec.record
    return Geometry(
        **_data_frames(rows, give_back),
        **({"extremes": _extremes(spec, measurement)} if measurement.extremes else {}),
        settings=record.settings,
        provenance=msgspec.to_builtins(record.provenance),
        counts={
            "examples": measurement.n_examples,
            **msgspec.to_builtins(record.counts),
            "cka_examples": {stream: n for stream, (_, n) in cka.items()},
            "by_student": msgspec.to_builtins(degenerate),
            "sample": sampled,
        },
        projections=msgspec.to_builtins(explained_variance(spec, measurement.sums)),
        sketch_tokens=[
            # A part that was saved by an earlier version does not repeat whose token it is.
            {**msgspec.to_builtins(found), "student": name, "stream": stream}
            for stream in spec.layers
            for position, name in enumerate(spec.names)
            if (found := measurement.sketches.get((stream, position))) is not None
        ],
    )


def _keep_memory() -> None:
    """Leave freed memory to the C library."""


def _data_frames(rows: dict[str, list[Rows]], give_back: Callable[[], None]) -> dict[str, pd.DataFrame]:
    """Return each table's data frame; the rows are dropped table by table, which of many layers are large.

    The histograms come last: their rows become the frame's columns, those of the others are copied.
    """
    frames = dict[str, pd.DataFrame]()
    for table in sorted(rows, key="histograms".__eq__):
        give_back()
        frames[table] = data_frame(rows.pop(table))
    return frames


def _check_finite(spec: AnalysisSpec, measurement: Measurement) -> None:
    for (stream, position), sums in measurement.sums.items():
        if int(sums.angles.count.sum()) == 0:
            raise RunError(
                f"no angle is left for student {spec.names[position]} in the {stream}: of {int(sums.n_tokens)} "
                f"tokens {int(sums.n_complete)} have finite states at every layer; look at the weights and the "
                "precision (--dtype float32)"
            )


def _array(tensor: Tensor) -> Array:
    return np.asarray(tensor.cpu().numpy())


def _mean(total: Tensor, count: Tensor) -> Array:
    """Return means, NaN where nothing was counted."""
    totals, counts = _array(total), _array(count)
    return np.asarray(np.divide(totals, counts, out=np.full(totals.shape, np.nan), where=counts > 0))


def angle_rows(sums: GeometrySums, labels: Rows, vertices: Sequence[int], teacher_layers: Sequence[int]) -> Rows:
    """Return the rows of `angles.parquet` for one student and stream; statistics without a token are NaN."""
    angles, count = sums.angles, sums.angles.count
    mean = _mean(angles.cosine, count)
    square = _mean(angles.cosine_squared, count)
    vertex, i, k = pair_labels(vertices, teacher_layers)
    return {
        **labels,
        "vertex": vertex,
        "teacher_i": i,
        "teacher_k": k,
        "mean_cosine": mean,
        "std_cosine": np.sqrt(np.clip(square - mean**2, 0, None)),
        "mean_angle_degrees": _mean(angles.angle, count),
        "acute_fraction": _mean(angles.acute.double(), count),
        "mean_tangential_cosine": _mean(angles.tangential, angles.tangential_count),
        "mean_tangential_angle_degrees": _mean(angles.tangential_angle, angles.tangential_count),
        "null_cosine": _mean(angles.null, angles.null_count),
        "se_cosine": cosine_standard_error(angles),
        "n_tokens": count,
        "n_examples": angles.example_count,
        "n_clusters": angles.n_clusters().double(),
    }


def _histogram_rows(sums: GeometrySums, labels: Rows, vertices: Sequence[int], teacher_layers: Sequence[int]) -> Rows:
    """Return the rows of `histograms.parquet`: every pair, and each vertex pooled; empty bins left out."""
    i, k = (np.asarray(teacher_layers, dtype=np.int64)[index.numpy()] for index in layer_pairs(len(teacher_layers)))
    # Behind a vertex's pairs it is pooled. One vertex at a time: of 80 layers and 20 vertices the counts take 265 MB.
    i, k = np.append(i, -1), np.append(k, -1)
    columns: dict[str, list[Array]] = {name: [] for name in ("vertex", "teacher_i", "teacher_k", "bin", "count")}
    for vertex, histogram in zip(vertices, sums.angles.histogram, strict=True):
        counts = _array(histogram)
        # Of truth values numpy finds them in half the time.
        places = np.flatnonzero(counts != 0)
        row, bins = np.divmod(places, N_BINS)
        found = counts.reshape(-1)[places]
        # Sums of counts are whole numbers in float64 too, up to 2^53.
        pooled = np.bincount(bins, found, N_BINS).astype(np.int64)
        pooled_places = np.flatnonzero(pooled)
        row = np.concatenate([row, np.full(len(pooled_places), len(counts))])
        columns["vertex"].append(np.full(len(row), vertex))
        columns["teacher_i"].append(i[row])
        columns["teacher_k"].append(k[row])
        columns["bin"].append(np.concatenate([bins, pooled_places]))
        columns["count"].append(np.concatenate([found, pooled[pooled_places]]))
    return {**labels, **{name: np.concatenate(parts) for name, parts in columns.items()}}


def _layer_rows(
    sums: GeometrySums, labels: Rows, vertices: Sequence[int], teacher_layers: Sequence[int], cka: LayerCka | None
) -> list[Rows]:
    """Return the rows of `layers.parquet`: teacher with teacher, teacher with student, student with student.

    Within a side each pair of layers is one row (a <= b). Rows of the student with itself are in its own width; rows
    across are after the projection, but for `cka`, which compares layers of any widths as they are.
    """
    n, every = len(teacher_layers), len(teacher_layers) + len(vertices)
    unknown = np.full((every, every), np.nan)
    values = {
        "cka": unknown if cka is None else _array(cka.cka),
        "cka_se": unknown if cka is None else _array(cka.se),
        "cka_null": unknown if cka is None else _array(cka.null),
        "cka_p": unknown if cka is None else _array(cka.p),
        "cka_p_adjusted": unknown if cka is None else _array(cka.p_adjusted),
    }
    teacher = ("teacher", teacher_layers, sums.teacher)
    own = ("student", vertices, sums.student)
    projected = ("student", vertices, sums.vertex)
    blocks = (
        (sums.teacher_teacher, teacher, teacher, np.s_[:n, :n]),
        (sums.teacher_student, teacher, projected, np.s_[:n, n:]),
        (sums.student_student, own, own, np.s_[n:, n:]),
    )
    return [
        {**labels, **_block_columns(block, a, b, {name: each[place] for name, each in values.items()}, sums.n_complete)}
        for block, a, b, place in blocks
    ]


def _block_columns(
    block: BlockSums,
    side_a: tuple[str, Sequence[int], SideSums],
    side_b: tuple[str, Sequence[int], SideSums],
    cka: Rows,
    n_complete: Tensor,
) -> Rows:
    (name_a, layers_a, sums_a), (name_b, layers_b, sums_b) = side_a, side_b
    same_side = side_a is side_b
    centred = centred_cosines(block.product, sums_a.state, sums_b.state, sums_a.squared, sums_b.squared, n_complete)
    a, b = np.triu_indices(len(layers_a)) if same_side else np.indices((len(layers_a), len(layers_b))).reshape(2, -1)
    norm = _mean(sums_a.norm, sums_a.n_finite)
    return {
        "side_a": name_a,
        "layer_a": np.asarray(layers_a)[a],
        "side_b": name_b,
        "layer_b": np.asarray(layers_b)[b],
        "mean_cosine": _mean(block.cosine, block.n_cosine)[a, b],
        "centred_cosine": _array(centred)[a, b],
        "mean_distance": _mean(block.distance, block.n_distance)[a, b],
        **{name: values[a, b] for name, values in cka.items()},
        "mean_norm": np.where(a == b, norm[a], np.nan) if same_side else np.nan,
    }


def _example_rows(sums: GeometrySums, labels: Rows, vertices: Sequence[int], repeats: Mapping[int, int]) -> Rows:
    """Return the rows of `examples.parquet`: each example's mean over its tokens and pairs, vertex by vertex.

    `repeats` gives the first of the examples that read the same as one that is not the first.
    """
    examples = sums.examples
    cluster = _array(examples.example).astype(np.float64)
    if repeats:
        cluster = np.array([repeats.get(int(example), int(example)) for example in cluster], dtype=np.float64)
    return {
        **labels,
        "vertex": np.repeat(np.asarray(vertices, dtype=np.int64), len(examples.example)),
        "example": np.tile(_array(examples.example), len(vertices)),
        "mean_cosine": _mean(examples.cosine, examples.n_cosines),
        "mean_angle_degrees": _example_angles(sums),
        "n_tokens": examples.n_tokens,
        "cluster": np.tile(cluster, len(vertices)),
    }


def _example_angles(sums: GeometrySums) -> Array:
    """Return each example's mean angle in degrees, (vertices, examples); by tokens they average to the vertex's angle.

    The vertex's angle is the mean over pairs of a pair's mean over tokens. An example's is the mean over its tokens of
    that over pairs, the same average taken in another order, unless a pair is undefined for some tokens only. Then all
    examples of the vertex are moved by the one amount that makes their mean the vertex's angle.
    """
    angles, examples = sums.angles, sums.examples
    own, tokens = _mean(examples.angle, examples.n_tokens), _array(examples.n_tokens)
    counts, pairs = _array(angles.count), _mean(angles.angle, angles.count)
    uneven = ((counts > 0) & (counts < tokens.sum(1, keepdims=True))).any(1)
    for vertex in np.flatnonzero(uneven):
        known = tokens[vertex] > 0
        whole = np.nanmean(pairs[vertex])
        own[vertex] += whole - np.average(own[vertex, known], weights=tokens[vertex, known])
    return own


def _extremes(spec: AnalysisSpec, measurement: Measurement) -> pd.DataFrame:
    """Return `extremes.parquet`; a pair without any angle has no row."""
    parts: list[Rows] = []
    for (stream, position), found in measurement.extremes.items():
        chosen = spec.layers[stream]
        vertex, i, k = pair_labels(chosen.students[position], chosen.teacher)
        for end, name in enumerate(EXTREMES):
            there = np.isfinite(_array(found.cosine)[end])
            numbers = _array(found.token)[end][there]
            places = np.array([token_place(int(number)) for number in numbers], dtype=np.int64).reshape(-1, 2)
            texts = [measurement.texts.get((stream, int(number)), TokenText("", "", "")) for number in numbers]
            parts.append(
                {
                    "student": spec.names[position],
                    "stream": stream,
                    "vertex": vertex[there],
                    "teacher_i": i[there],
                    "teacher_k": k[there],
                    "extreme": name,
                    "angle_degrees": _array(found.degrees())[end][there],
                    "example": places[:, 0],
                    "place": places[:, 1],
                    **{
                        part: np.array([getattr(text, part) for text in texts], dtype=object)
                        for part in ("before", "token", "after")
                    },
                }
            )
    return data_frame(parts).astype(dict.fromkeys(("before", "token", "after"), "str"))


def _stream_counts(sums: GeometrySums, vertices: Sequence[int], teacher_layers: Sequence[int]) -> StreamCounts:
    """Return how much was seen, and what was left out of the means and why."""
    zero = _array(sums.angles.zero_direction)
    return StreamCounts(
        tokens=int(sums.n_tokens),
        tokens_finite_everywhere=int(sums.n_complete),
        nonfinite_states={
            "teacher": _by_layer(teacher_layers, sums.teacher.n_nonfinite),
            "student": _by_layer(vertices, sums.student.n_nonfinite),
        },
        zero_states={
            "teacher": _by_layer(teacher_layers, sums.teacher.n_zero),
            "student": _by_layer(vertices, sums.student.n_zero),
        },
        zero_direction=[
            ZeroDirection(int(vertices[v]), int(teacher_layers[t]), int(zero[v, t]))
            for v, t in zip(*np.nonzero(zero), strict=True)
        ],
    )


def _by_layer(layers: Sequence[int], counts: Tensor) -> dict[str, int]:
    return {str(layer): int(count) for layer, count in zip(layers, counts, strict=True) if int(count)}
