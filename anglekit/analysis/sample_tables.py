"""The tables that rest on the samples of tokens: nulls, the sweep of the vertex, anisotropy and similarity."""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache, cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anglekit.analysis.measurement import Measurement
from anglekit.analysis.spec import AnalysisSpec, Key
from anglekit.geometry.angles import (
    Directions,
    VertexAngles,
    chance_factors,
    layer_pairs,
    pair_labels,
    piece_places,
    whole_of,
)
from anglekit.geometry.anisotropy import Anisotropy, anisotropy, dominant_dimensions, transformed
from anglekit.geometry.cka import LayerGrams
from anglekit.geometry.compiled.choice import in_loops, in_threads
from anglekit.geometry.neighbours import Neighbourhoods
from anglekit.geometry.nulls import (
    SWEEP,
    MeanEstimate,
    NullSummary,
    SampleProducts,
    centroid_products,
    difference_lags,
    gaussian_like,
    gaussian_products,
    mean_estimate,
    origin_products,
    permuted_offsets,
    random_rotation,
    rescaled,
    sample_angles,
    sample_pieces,
    sample_products,
    summarize,
    sweep_products,
)
from anglekit.geometry.permutation_tests import permutation_test, row_orders
from anglekit.geometry.procrustes import permuted_procrustes, procrustes_with_error, rotation_coordinates
from anglekit.geometry.student_exchange import (
    Exchanges,
    ExchangeTest,
    adjusted_p,
    draw_exchanges,
    exchange_test,
    joint_error,
    joint_quantile,
    meeting_products,
)
from anglekit.results.columns import SIMILARITY_ENDINGS
from anglekit.results.rows import Rows
from anglekit.results.student_t import t_quantile, two_sided_p
from anglekit.vocabulary import COSINE_RESOLUTION, DEFAULT_NULLS, NULLS, VIEWS, Stream, View

# Permutations behind the p-values of a similarity, by the setting `similarity`; a Procrustes distance costs a
# decomposition for each, and has fewer.
_PERMUTATIONS = {"default": 99, "all": 499}
_PROCRUSTES_PERMUTATIONS = 39
# Bytes of one value for every vertex, pair and token of what is worked on at once.
_PIECE_BYTES = 1 << 20


def sample_rows(
    spec: AnalysisSpec, measurement: Measurement, cka: Mapping[Stream, Sequence[LayerCka | None]]
) -> tuple[dict[str, list[Rows]], dict[str, Any]]:
    """Return the rows that rest on the samples by table, and how many examples those hold and lack.

    A table that would be empty is left out. The counts are by student and stream. `cka` is what `layer_cka` gave, by
    student.
    """
    tables: dict[str, list[Rows]] = {}
    counts: dict[str, Any] = {}
    null_tests = list[_NullTest]()

    @cache
    def exchanges(n_examples: int) -> Exchanges:
        # The same for every student and stream, so that the largest statistic is one of all of them together.
        rng = np.random.default_rng([spec.settings.seed % 2**63, zlib.crc32(b"permuted-student")])
        return draw_exchanges(n_examples, rng)

    for stream, position in spec.keys:
        sample, left_out = measurement.samples[stream], 0
        if len(sample):
            found, tests, left_out = _student_rows(
                spec, measurement, (stream, position), cka[stream][position], exchanges
            )
            null_tests += tests
            for table, rows in found:
                if rows:
                    tables.setdefault(table, []).extend(rows)
        counts.setdefault(spec.names[position], {})[stream] = {"examples": len(sample), "nonfinite": left_out}
    if null_tests:
        tables["nulls"] = _joint_rows(null_tests)
    return tables, counts


def _student_rows(
    spec: AnalysisSpec,
    measurement: Measurement,
    key: Key,
    cka: LayerCka | None,
    exchanges: Callable[[int], Exchanges],
) -> tuple[list[tuple[str, list[Rows]]], list[_NullTest], int]:
    """Return the rows of one student and stream, its nulls, and the nulls' examples that are not finite everywhere."""
    found, tests, left_out = list[tuple[str, list[Rows]]](), list[_NullTest](), 0
    effort, seed = spec.settings.nulls, spec.settings.seed
    if effort != "none":
        tokens = _tokens(spec, measurement, key, "all")
        left_out = len(measurement.samples[key[0]]) - tokens.n_tokens
        if key in measurement.fresh:
            # The untrained student must be finite too, for its own null only.
            with_fresh = _tokens(spec, measurement, key, "all", fresh=measurement.fresh[key].tokens("all")[1][0])
            tests += _null_tests(with_fresh, ["fresh-student"], seed, exchanges)
        tests += _null_tests(tokens, tuple(NULLS) if effort == "all" else DEFAULT_NULLS, seed, exchanges)
        found.append(("vertex_sweep", _sweep_rows(tokens)))
        for kind in ("all", "content", "special"):
            some = _tokens(spec, measurement, key, kind, most=None if effort == "all" else spec.viewed)
            if some.n_tokens >= 2:  # else there is no token of another example to compare with
                found += _view_rows(some, kind, VIEWS if kind == "all" or effort == "all" else ("raw",))
    if spec.settings.similarity == "all":
        for states, kind in (("example-mean", "mean"), ("token", "all")):
            tokens = _tokens(spec, measurement, key, kind)
            if tokens.n_tokens:
                orders = _orders(spec, key[0], tokens.n_tokens)
                found.append(("similarity", [_similarity_rows(tokens, states, orders, cka)]))
    return found, tests, left_out


@dataclass(frozen=True)
class LayerCka:
    """Debiased CKA of example means between the layers of a teacher, which come first, and one student.

    All are float64 (layers, layers).

    Attributes:
        cka: over the whole probe where it was summed, else over the sample.
        se: its standard error over examples.
        null: its mean over permutations of the sample's examples.
        p: how often a permutation gives as much.
        p_adjusted: how often some pair of layers of the same two sides gives as much.
    """

    cka: Tensor
    se: Tensor
    null: Tensor
    p: Tensor
    p_adjusted: Tensor


def layer_cka(spec: AnalysisSpec, measurement: Measurement, stream: Stream) -> tuple[list[LayerCka | None], int]:
    """Return the debiased CKA of example means by student, over teacher and student layers, and the examples.

    It is the only one between two layers. Over the whole probe it has the smaller error, and needs products of all
    features, so that the default takes the sample's. The sample's error is that of so many examples more or fewer:
    squared, it falls as one over their number. The test is the sample's.
    """
    sample, chosen = measurement.samples[stream], spec.layers[stream]
    n = len(chosen.teacher)
    starts = np.cumsum([n, *(len(vertices) for vertices in chosen.students)])
    parts = [
        [*range(n), *range(start, start + len(vertices))]
        for start, vertices in zip(starts, chosen.students, strict=False)
    ]
    if spec.settings.similarity == "none" or not len(sample):
        return [None] * len(parts), 0
    _, sides = sample.tokens("mean")
    finite = _finite_tokens(sides)
    n_examples = int(finite.sum())
    if bool(finite.all()):
        whole = LayerGrams.of([layer for side in sides for layer in side])
        grams = [whole.chosen(part) for part in parts]
    else:
        # An example that one student cannot give must not be missing from the others' numbers.
        alone = (_tokens(spec, measurement, (stream, position), "mean") for position in range(len(parts)))
        grams = [LayerGrams.of([*tokens.teacher, *tokens.own]) for tokens in alone]
    values = [each.debiased_cka() for each in grams]
    share = 1.0
    cross = measurement.cross.get(stream)
    if cross is not None and int(cross.n):
        matrix = cross.cka()
        values, share = [matrix[part][:, part] for part in parts], n_examples / int(cross.n)
        n_examples = int(cross.n)
    found = list[LayerCka | None]()
    for value, each in zip(values, grams, strict=True):
        null, p, p_adjusted = _tested(each.permuted(_orders(spec, stream, each.n))[0], n)
        found.append(LayerCka(value, math.sqrt(share) * each.debiased_cka_error(), null, p, p_adjusted))
    return found, n_examples


def _orders(spec: AnalysisSpec, stream: Stream, n: int) -> Tensor:
    """Return the permutations of a sample's rows, the same for every student."""
    rng = np.random.default_rng([spec.settings.seed % 2**63, zlib.crc32(f"{stream}/similarity".encode())])
    return row_orders(n, _PERMUTATIONS[spec.settings.similarity], rng)


def _tested(values: Tensor, teacher_layers: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return null means, p-values and adjusted p-values, float64 (layers, layers); NaN of a layer with itself.

    Args:
        values: as observed and permuted, shape (1 + permutations, layers, layers); larger ones are more alike.
        teacher_layers: how many of the layers, the first ones, are the teacher's.
    """
    layers = values.shape[1]
    teacher, student = np.arange(teacher_layers), np.arange(teacher_layers, layers)
    within = [side[np.stack(np.triu_indices(len(side), 1))] for side in (teacher, student)]
    across = np.stack(np.meshgrid(teacher, student, indexing="ij")).reshape(2, -1)
    found = torch.full((3, layers, layers), torch.nan, dtype=torch.float64, device=values.device)
    # A family is what one looks through for the most similar layers: the two sides, or one of them.
    for a, b in (*within, across):
        test = permutation_test(values[:, a, b])
        found[:, a, b] = found[:, b, a] = torch.stack([test.null, test.p, test.p_adjusted])
    return found[0], found[1], found[2]


@dataclass(frozen=True)
class _SampledTokens:
    """Tokens of one student and stream with what labels their rows; broken layers hold NaN, the others are finite.

    Attributes:
        student: the student's name.
        stream: `encoder` or `decoder`.
        teacher_layers: the layers' numbers.
        vertices: the student's layers' numbers.
        teacher: states, shape (teacher layers, tokens, width).
        own: the student's states in its own width, shape (vertices, tokens, student width).
        fresh: an untrained student's states of the same tokens, of that shape, where they are wanted.
        projections: for each vertex a float64 matrix (width, student width), or None where the widths agree.
        epsilon: what the official reading adds to the product of lengths.
    """

    student: str
    stream: str
    teacher_layers: Sequence[int]
    vertices: Sequence[int]
    teacher: Tensor
    own: Tensor
    fresh: Tensor | None
    projections: Sequence[Tensor] | None
    epsilon: float

    @property
    def n_tokens(self) -> int:
        return self.teacher.shape[1]

    @property
    def in_loops(self) -> bool:
        """Whether the angles of this student are taken in compiled loops: those of its nulls are then as well."""
        return in_loops(len(self.own), len(self.teacher), self.teacher.device, self.epsilon)

    def projected(self, own: Tensor) -> Tensor:
        """Return the student's states, or others in its own width, in the teacher's width."""
        if self.projections is None:
            return own
        return torch.stack([state.double() @ matrix.T for state, matrix in zip(own, self.projections, strict=True)])

    @cached_property
    def products(self) -> SampleProducts:
        """Inner products of the states, token by token."""
        return sample_products(self.teacher, self.projected(self.own))

    def labelled(self, columns: Mapping[str, Any]) -> Rows:
        """Return rows for every vertex and pair, of columns that are one value or a tensor (vertices, pairs)."""
        vertex, i, k = pair_labels(self.vertices, self.teacher_layers)
        names = {"student": self.student, "stream": self.stream}
        return {**names, "vertex": vertex, "teacher_i": i, "teacher_k": k, **columns}


def _tokens(
    spec: AnalysisSpec,
    measurement: Measurement,
    key: Key,
    kind: str,
    *,
    most: int | None = None,
    fresh: Tensor | None = None,
) -> _SampledTokens:
    """Return the first `most` tokens of a kind (see `TokenSample.tokens`), those that are finite at every layer."""
    (stream, position), projections = key, measurement.projections.get(key)
    _, sides = measurement.samples[stream].tokens(kind)
    states = [side[:, :most] for side in (sides[0], sides[position + 1], *(() if fresh is None else (fresh,)))]
    finite = _finite_tokens(states)
    if not bool(finite.all()):
        states = [side[:, finite] for side in states]
    return _SampledTokens(
        spec.names[position],
        stream,
        spec.layers[stream].teacher,
        spec.vertices(key),
        states[0],
        states[1],
        None if fresh is None else states[2],
        None if projections is None else [matrix.to(states[1].device) for matrix in projections],
        spec.epsilon,
    )


def _finite_tokens(sides: Sequence[Tensor]) -> Tensor:
    """Return which tokens are finite at every layer of every side, bool (tokens,).

    A layer that is broken at more than half of the tokens takes no part: the other layers' numbers stand without it.
    """
    # The largest entry, not the length: the square of a float32 state of 1e20 is infinite.
    finite = torch.cat([torch.linalg.vector_norm(side, ord=math.inf, dim=-1) for side in sides]).isfinite()
    if bool(finite.all()):
        return finite[0]
    whole = 2 * finite.sum(1) >= finite.shape[1]
    return finite[whole].all(0)


@dataclass(frozen=True)
class _NullTest:
    """One null beside what was observed, for one student and stream.

    Attributes:
        name: of the null.
        rows: of `nulls.parquet`, but for the columns that depend on all students together.
        difference: observed minus null.
        test: the permutation test, for the null that has one.
    """

    name: str
    rows: Rows
    difference: MeanEstimate
    test: ExchangeTest | None


def _null_tests(
    tokens: _SampledTokens, names: Sequence[str], seed: int, exchanges: Callable[[int], Exchanges]
) -> list[_NullTest]:
    """Return the nulls of one student and stream beside what was observed.

    A null that needs more tokens than there are is left out: a permutation of all needs more than there are teacher
    layers, the others two. The draws are the same for every student.
    """
    found = list[_NullTest]()
    for name in (name for name in NULLS if name in names):
        if tokens.n_tokens < 2 or (name == "permuted-all" and tokens.n_tokens <= len(tokens.teacher)):
            continue
        if name == "fresh-student" and tokens.fresh is None:
            continue
        test = None
        if name == "permuted-student":
            ways = exchanges(tokens.n_tokens).to(tokens.teacher.device)
            states = tokens.teacher, tokens.projected(tokens.own)
            test = exchange_test(meeting_products(*states, tokens.products, ways), ways, tokens.epsilon)
            summary, tangential = test.summary, test.tangential
        else:
            rng = np.random.default_rng([seed % 2**63, zlib.crc32(f"{tokens.stream}/{name}".encode())])
            summary, tangential = _beside_null(name, tokens, rng)
        difference = summary.difference
        # Student's t, two-sided 95%; nothing is surer than the states' own precision.
        quantile = _like(t_quantile(0.975, difference.freedom.cpu().numpy()), difference.se)
        reach = (quantile * difference.se).clamp(min=COSINE_RESOLUTION)
        columns = {
            "null": name,
            "mean_cosine": summary.null.mean,
            "se": summary.null.se,
            "n_tokens": difference.n_tokens,
            "observed_cosine": summary.observed,
            "observed_minus_null": difference.mean,
            "low": difference.mean - reach,
            "high": difference.mean + reach,
            "mean_tangential_cosine": tangential.expand_as(difference.mean),
        }
        found.append(_NullTest(name, tokens.labelled(columns), difference, test))
    return found


def _beside_null(name: str, tokens: _SampledTokens, rng: np.random.Generator) -> tuple[NullSummary, Tensor]:
    """Return a null's cosine beside the observed one, and its mean tangential cosine, (vertices, pairs)."""
    products, lags = tokens.products, list[Tensor]()
    n_layers, n_vertices = len(tokens.teacher), len(tokens.own)
    if name == "permuted-all":
        lags = difference_lags(permuted_offsets(n_layers, n_vertices))
    null = None if name == "formula" else _null_products(name, tokens, rng)
    if not lags and tokens.in_loops:
        found = _beside_null_in_loops(products, null)
        if found is not None:
            return found
    nulls = _formula_pieces(products) if null is None else _null_pieces(null, tokens)

    def pieces() -> Iterator[tuple[tuple[slice, slice], Sequence[Tensor]]]:
        observed = sample_pieces(products, tokens.epsilon, _PIECE_BYTES)
        for (place, angles), null in zip(observed, nulls, strict=True):
            valid, _ = _validity(angles)
            summary = summarize(angles.cosine, valid, null.cosine, null.valid, [lag[place] for lag in lags])
            estimates = (summary.null, summary.difference)
            parts = [getattr(estimate, each.name) for estimate in estimates for each in fields(MeanEstimate)]
            yield place, [*parts, summary.observed, null.tangential.expand_as(summary.observed)]

    *values, observed, tangential = whole_of(pieces(), n_vertices, n_layers)
    half = len(values) // 2
    return NullSummary(MeanEstimate(*values[:half]), observed, MeanEstimate(*values[half:])), tangential


def _beside_null_in_loops(products: SampleProducts, null: SampleProducts | None) -> tuple[NullSummary, Tensor] | None:
    """Return what `_beside_null` does, of the formula if `null` is None; None if a cosine is lost at some vertex."""
    from anglekit.geometry.compiled import loops  # numba takes half a second to load

    directions = Directions.of(products.teacher_squared, products.cross, products.vertex)
    vertices, (n_layers, n_vertices, n_tokens) = directions.whole_vertices(), products.cross.shape
    if len(vertices) < n_vertices:
        return None
    no_tangent = False
    if null is None:
        # (1 + 0 + 0) r_i r_k, and nothing across the state.
        factors = chance_factors(products.teacher_squared, products.vertex)
        nothing, null_teacher = torch.zeros_like(factors), torch.ones_like(products.teacher)
        null_arrays = tuple(each.numpy() for each in (nothing, factors, nothing, nothing))
    else:
        null_directions = Directions.of(null.teacher_squared, null.cross, null.vertex)
        no_tangent = not bool(null_directions.tangent_usable.any())  # from the origin
        if no_tangent:
            along, inverse_across = (torch.zeros_like(null_directions.half) for _ in range(2))
            tangent_usable = torch.ones_like(null_directions.directed)
            null_directions = replace(
                null_directions, along=along, inverse_across=inverse_across, tangent_usable=tangent_usable
            )
        if len(null_directions.whole_vertices()) < len(null.vertex):
            return None
        null_arrays, null_teacher = null_directions.loop_arrays(), null.teacher.contiguous()
    arrays, own = directions.loop_arrays(), products.teacher.contiguous().numpy()
    found = np.empty((6, n_vertices, math.comb(n_layers, 2)))

    def compare(some: NDArray[np.int64]) -> None:
        loops.beside_null(own, arrays, null_teacher.numpy(), null_arrays, some, tuple(found))

    in_threads(compare, vertices)
    observed, null_mean, null_error, difference, error, tangential = torch.from_numpy(found)
    if no_tangent:
        tangential = torch.full_like(tangential, torch.nan)
    n = torch.full(observed.shape, n_tokens)
    freedom = torch.full_like(observed, n_tokens - 1)
    estimates = MeanEstimate(null_mean, null_error, n, freedom), MeanEstimate(difference, error, n, freedom)
    return NullSummary(estimates[0], observed, estimates[1]), tangential


@dataclass(frozen=True)
class _NullPiece:
    """A null's cosines at some vertices, or at one that serves all, for some pairs.

    Attributes:
        cosine: float64 (vertices, pairs, tokens), 0 where not valid.
        valid: bool of that shape; None: all are.
        tangential: the mean tangential cosine, (vertices, pairs).
    """

    cosine: Tensor
    valid: Tensor | None
    tangential: Tensor


def _formula_pieces(products: SampleProducts) -> Iterator[_NullPiece]:
    """Yield what chance gives by its formula, for which the tangential cosine is 0."""
    factors = chance_factors(products.teacher_squared, products.vertex)
    i, k = (index.to(factors.device) for index in layer_pairs(factors.shape[1]))
    n_vertices, n_layers, n_tokens = factors.shape
    for vertices, pairs in piece_places(n_vertices, n_layers, n_tokens, _PIECE_BYTES):
        some = factors[vertices]
        cosine = some.index_select(1, i[pairs]).mul_(some.index_select(1, k[pairs]))
        valid = cosine.isfinite()
        yield _NullPiece(torch.where(valid, cosine, 0.0), valid, torch.zeros_like(cosine[..., 0]))


def _null_pieces(null: SampleProducts, tokens: _SampledTokens) -> Iterator[_NullPiece]:
    """Yield a null that has states of its own, in the pieces of the observed angles."""
    n_vertices = len(tokens.own)
    if len(null.vertex) == n_vertices:
        for _, angles in sample_pieces(null, tokens.epsilon, _PIECE_BYTES):
            yield _null_piece(angles)
        return
    whole = _null_piece(sample_angles(null, tokens.epsilon))
    for _, pairs in piece_places(n_vertices, len(tokens.teacher), tokens.n_tokens, _PIECE_BYTES):
        valid = None if whole.valid is None else whole.valid[:, pairs]
        yield _NullPiece(whole.cosine[:, pairs], valid, whole.tangential[:, pairs])


def _null_piece(angles: VertexAngles) -> _NullPiece:
    valid, tangential_valid = _validity(angles)
    return _NullPiece(angles.cosine, valid, mean_estimate(angles.tangential, tangential_valid).mean)


def _validity(angles: VertexAngles) -> tuple[Tensor | None, Tensor | None]:
    """Return where cosines and tangential cosines are defined; None: everywhere, which it nearly always is."""
    return (
        None if angles.all_usable else angles.valid,
        None if angles.all_tangent_usable else angles.tangential_valid,
    )


def _like(values: np.ndarray, tensor: Tensor) -> Tensor:
    return torch.from_numpy(values).to(tensor.device)


def _joint_rows(tests: Sequence[_NullTest]) -> list[Rows]:
    """Return the rows of `nulls.parquet`, with p-values and intervals that hold for all students' rows of a null.

    The permuted student has its permutation test. The other nulls, which no exchange of states leaves as they are, are
    judged by Student's t and Bonferroni's correction.
    """
    largest: dict[str, Tensor] = {}
    n_tested: dict[str, int] = {}
    for each in tests:
        n_tested[each.name] = n_tested.get(each.name, 0) + int(each.difference.freedom.isfinite().sum())
        if each.test is not None:
            other = largest.get(each.name, each.test.largest)
            largest[each.name] = torch.maximum(other, each.test.largest.to(other.device))
    rows = list[Rows]()
    for each in tests:
        difference, error = each.difference, joint_error(each.difference.se)
        if each.test is not None:
            p = adjusted_p(each.test.statistic, largest[each.name].to(error.device))
            reach = joint_quantile(largest[each.name]) * error
        else:
            family, freedom = max(n_tested[each.name], 1), difference.freedom.cpu().numpy()
            statistic = (difference.mean.abs() / error).cpu().numpy()
            p = _like(np.minimum(family * two_sided_p(statistic, freedom), 1.0), error)
            reach = _like(t_quantile(1 - 0.025 / family, freedom), error) * error
        joint = {"p_adjusted": p, "joint_low": difference.mean - reach, "joint_high": difference.mean + reach}
        rows.append({**each.rows, **joint})
    return rows


def _null_products(name: str, tokens: _SampledTokens, rng: np.random.Generator) -> SampleProducts:
    teacher, products, vertices = tokens.teacher, tokens.products, tokens.projected(tokens.own)
    match name:
        case "permuted-all":
            return sample_products(teacher, vertices, permuted_offsets(len(teacher), len(vertices)))
        case "gaussian-norm":
            return gaussian_products(products.teacher_squared, products.vertex, teacher.shape[-1], rng)
        case "gaussian-covariance":
            sides = [torch.stack([gaussian_like(layer, rng) for layer in side]) for side in (teacher, vertices)]
            return sample_products(sides[0], sides[1])
        case "rotated-student":
            rotation = random_rotation(vertices.shape[-1], rng).to(vertices.device)
            return sample_products(teacher, vertices.double() @ rotation.T)
        case "fresh-student" if tokens.fresh is not None:
            return sample_products(teacher, rescaled(tokens.projected(tokens.fresh), products.vertex))
        case "origin":
            return origin_products(products)
        case "centroid":
            return centroid_products(products)
    raise KeyError(name)


def _sweep_rows(tokens: _SampledTokens) -> list[Rows]:
    """Return the rows of `vertex_sweep.parquet`."""
    # The vertices of the first t come before those of the second.
    columns = _angle_means(sweep_products(tokens.products, SWEEP), tokens)
    by_t = zip(*(values.chunk(len(SWEEP)) for values in columns.values()), strict=True)
    return [
        tokens.labelled({"t": t, **dict(zip(columns, each, strict=True))}) for t, each in zip(SWEEP, by_t, strict=True)
    ]


def _angle_means(products: SampleProducts, tokens: _SampledTokens, *, angles_too: bool = True) -> dict[str, Tensor]:
    """Return what the cosines of products of a sample come to, (vertices, pairs) each.

    Args:
        products: of the sample's states, or of states made of them.
        tokens: the sample.
        angles_too: the mean angles are wanted as well.
    """
    names = ["mean_cosine", "se", "mean_angle_degrees", "mean_tangential_cosine", "mean_tangential_angle_degrees"]
    names = [name for name in names if angles_too or "angle" not in name]

    n_layers, n_vertices, n_tokens = products.cross.shape
    shape = n_vertices, math.comb(n_layers, 2)
    found = {name: products.cross.new_empty(shape) for name in names}
    n = torch.full(shape, n_tokens, device=products.cross.device)
    rest = [slice(0, n_vertices)]
    if n_tokens > 1 and tokens.in_loops:
        rest = [slice(vertex, vertex + 1) for vertex in _measure_in_loops(products, found)]
    for some in rest:
        part = SampleProducts(products.teacher, products.cross[:, some], products.vertex[some])
        for (here, pairs), angles in sample_pieces(part, tokens.epsilon, _PIECE_BYTES):
            place = slice(some.start + here.start, some.start + here.stop), pairs
            valid, tangential_valid = _validity(angles)
            cosine = mean_estimate(angles.cosine, valid)
            found["mean_cosine"][place], found["se"][place] = cosine.mean, cosine.se
            found["mean_tangential_cosine"][place] = mean_estimate(angles.tangential, tangential_valid).mean
            if angles_too:
                found["mean_angle_degrees"][place] = _mean_angle(angles.cosine, valid)
                found["mean_tangential_angle_degrees"][place] = _mean_angle(angles.tangential, tangential_valid)
            n[place] = cosine.n_tokens
    return {**found, "n_tokens": n}


def _measure_in_loops(products: SampleProducts, found: Mapping[str, Tensor]) -> list[int]:
    """Write the means of every vertex at which no cosine is lost into `found`; return the other vertices."""
    from anglekit.geometry.compiled import loops  # numba takes half a second to load

    directions = Directions.of(products.teacher_squared, products.cross, products.vertex)
    vertices, arrays = directions.whole_vertices(), directions.loop_arrays()
    teacher, nothing = products.teacher.contiguous().numpy(), np.empty((0, 0))
    angles_too = "mean_angle_degrees" in found
    written = [found["mean_cosine"], found["se"], found.get("mean_angle_degrees")]
    written += [found["mean_tangential_cosine"], found.get("mean_tangential_angle_degrees")]
    places = tuple(nothing if each is None else each.numpy() for each in written)

    def measure(some: NDArray[np.int64]) -> None:
        loops.mean_angles(teacher, arrays, some, angles_too, places)

    in_threads(measure, vertices)
    return sorted(set(range(len(directions.half))) - set(vertices.tolist()))


def _mean_angle(cosine: Tensor, valid: Tensor | None) -> Tensor:
    """Return the mean angle in degrees over tokens, the valid ones; NaN without any."""
    angle = torch.acos(cosine)
    if valid is None:
        return torch.rad2deg(angle.mean(-1))
    n = valid.sum(-1)
    return torch.rad2deg(torch.where(valid, angle, 0.0).sum(-1) / torch.where(n > 0, n, torch.nan))


@dataclass(frozen=True)
class _Space:
    """States of one width, in which differences can be taken and which lose the same dominant dimensions.

    Attributes:
        states: of all sides, one behind the other, shape (layers, tokens, width).
        sides: of each side its name, the numbers of its layers and where they lie; looked at together, which costs half
            the calls.
    """

    states: Tensor
    sides: Sequence[tuple[str, Sequence[int], slice]]

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


def _view_rows(tokens: _SampledTokens, kind: str, views: Sequence[View]) -> list[tuple[str, list[Rows]]]:
    """Return the rows of `anisotropy`, `angle_views` and, for all tokens, `dimensions`, in several views."""
    n, every = len(tokens.teacher), slice(None)
    if tokens.projections is None:
        sides = [("teacher", tokens.teacher_layers, slice(n)), ("student", tokens.vertices, slice(n, None))]
        angle_space = _Space(torch.cat([tokens.teacher, tokens.own]), sides)
        spaces = [angle_space]
    else:
        spaces = [
            _Space(tokens.teacher, [("teacher", tokens.teacher_layers, every)]),
            _Space(tokens.own, [("student", tokens.vertices, every)]),
        ]
        angle_space = _Space(torch.cat([tokens.teacher.double(), tokens.projected(tokens.own)]), [])
    names = {"student": tokens.student, "stream": tokens.stream}
    rows, angles, shares = list[Rows](), list[Rows](), list[Rows]()
    for view in views:
        labels = {"tokens": kind, "view": view}
        for space in spaces:
            seen = space.seen(view)
            found = space.raw if view == "raw" else anisotropy(seen)
            dropped = space.dropped if view == "dropped" else None
            for side, numbers, layers in space.sides:
                place = {"side": side, "layer": np.asarray(numbers, dtype=np.int64)}
                columns = _anisotropy_columns(found.of(layers), dropped)
                rows.append({**names, **place, **labels, **columns, "n_tokens": tokens.n_tokens})
        if space is not angle_space:
            seen = angle_space.seen(view)
        means = _angle_means(sample_products(seen[:n], seen[n:]), tokens, angles_too=False)
        angles.append(tokens.labelled({**labels, **means}))
    for space in spaces if kind == "all" else ():
        width = space.states.shape[-1]
        shares += [
            {
                **names,
                "side": side,
                "layer": np.repeat(np.asarray(numbers, dtype=np.int64), width),
                "dimension": np.tile(np.arange(width), len(numbers)),
                "share": space.raw.share[layers],
            }
            for side, numbers, layers in space.sides
        ]
    return [("anisotropy", rows), ("angle_views", angles), ("dimensions", shares)]


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


def _similarity_rows(tokens: _SampledTokens, states: str, orders: Tensor, cka: LayerCka | None) -> Rows:
    """Return the rows of `similarity.parquet` for every two layers of teacher and student.

    The debiased CKA of example means is `cka`: two layers have one.
    """
    layers = [*tokens.teacher, *tokens.own]
    names = [("teacher", layer) for layer in tokens.teacher_layers] + [("student", layer) for layer in tokens.vertices]
    pairs = list(itertools.combinations_with_replacement(range(len(layers)), 2))
    n_teacher = len(tokens.teacher)
    grams, near = LayerGrams.of(layers), Neighbourhoods.of(layers)
    debiased, linear = grams.permuted(orders)
    distance, distance_error, minus_permuted = _procrustes(layers, orders[: 1 + _PROCRUSTES_PERMUTATIONS])
    null, p, p_adjusted = _tested(minus_permuted, n_teacher)
    measures = {
        "debiased_cka": (grams.debiased_cka(), grams.debiased_cka_error(), *_tested(debiased, n_teacher)),
        "linear_cka": (grams.linear_cka(), grams.linear_cka_error(), *_tested(linear, n_teacher)),
        "procrustes_distance": (distance, distance_error, -null, p, p_adjusted),
        "mutual_neighbours": (near.shared(), near.shared_error(), *_tested(near.permuted(orders), n_teacher)),
    }
    if cka is not None and states == "example-mean":
        measures["debiased_cka"] = (cka.cka, cka.se, cka.null, cka.p, cka.p_adjusted)
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
        **{
            f"{name}{ending}": matrix.cpu().numpy()[a, b]
            for name, matrices in measures.items()
            for ending, matrix in zip(SIMILARITY_ENDINGS, matrices, strict=True)
        },
        "n": tokens.n_tokens,
    }


def _procrustes(layers: Sequence[Tensor], orders: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the distances of every two layers, their standard errors, and the negative distances when permuted.

    They are float64 (layers, layers) and (orders, layers, layers), NaN for a layer with itself in the last.
    """
    coordinates = [rotation_coordinates(layer) for layer in layers]
    n = len(coordinates)
    distance, error = torch.full((2, n, n), torch.nan, dtype=torch.float64)
    permuted = torch.full((len(orders), n, n), torch.nan, dtype=torch.float64)
    for a, b in itertools.combinations_with_replacement(range(n), 2):
        found, se = procrustes_with_error(coordinates[a], coordinates[b])
        distance[a, b], error[a, b] = found, se
        if a != b:
            permuted[:, a, b] = -permuted_procrustes(coordinates[a], coordinates[b], orders)
    return distance, error, permuted
