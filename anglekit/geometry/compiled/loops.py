"""Loops over single angles, compiled by numba: for pairs of so many layers that tensor operations are too slow.

An operation on tensors reads its operands from memory and writes its result there. Of 80 layers and 20 vertices a token
has 66,360 angles, and of each a dozen numbers are asked for; a compiled loop has them in registers and takes a third of
the time. Everything here says what the callers say in tensor operations too, for vertices at which no direction is
lost; those are the reference, and what is used where numba is not installed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np
from numpy.typing import NDArray

from anglekit.vocabulary import N_BINS

_Function = TypeVar("_Function", bound=Callable[..., Any])

# Pairs whose permuted sums are taken together: the table of their cosines should fit a core's second cache.
_TILE = 96


def _compiled(function: _Function) -> _Function:
    """Compile a function at its first call, and keep the machine code for later processes.

    All numbers are finite, and sums may be taken in any order.
    """
    free = {"contract", "reassoc", "nsz", "arcp", "nnan", "ninf"}
    compile_later: Any = numba.njit(nogil=True, cache=True, error_model="numpy", fastmath=free)
    compiled: _Function = compile_later(function)
    return compiled


@_compiled
def arc_sine(x: float) -> float:
    """Return the arc sine of a number between -1 and 1, to 3e-16.

    asin x = x + x³ P(x²) up to 1/2, and beyond asin x = pi/2 - 2 asin sqrt((1 - x) / 2). P is the polynomial of degree
    11 that is nearest on [0, 1/4] (Chebyshev), 3e-16 from its function.
    """
    size = abs(x)
    far = size > 0.5
    z = 0.5 * (1.0 - size) if far else x * x
    p = 0.028169218060881414
    p = p * z - 0.010749050339697808
    p = p * z + 0.01603551434914882
    p = p * z + 0.0078029494773533175
    p = p * z + 0.011875494382636922
    p = p * z + 0.013929652902326633
    p = p * z + 0.017355259955786323
    p = p * z + 0.02237204763174451
    p = p * z + 0.03038194736709848
    p = p * z + 0.044642857103423646
    p = p * z + 0.07500000000020764
    p = p * z + 0.1666666666666665
    near = math.sqrt(z) if far else size
    near = near + near * z * p
    return math.copysign(math.pi / 2 - 2.0 * near if far else near, x)


@_compiled
def _clamped(cosine: float) -> float:
    return min(max(cosine, -1.0), 1.0)


@_compiled
def _cosine(half_i: float, half_k: float, between: float, scaling_i: float, scaling_k: float) -> float:
    """Return the cosine of the directions to two layers; the names are those of `Directions`."""
    return _clamped((half_i + half_k + between) * (scaling_i * scaling_k))


@_compiled
def _tangential(along_i: float, along_k: float, between: float, inverse_i: float, inverse_k: float) -> float:
    """Return the cosine of their tangential parts."""
    return _clamped((between - along_i * along_k) * (inverse_i * inverse_k))


@_compiled
def add_angles(
    teacher: NDArray[np.float64],
    directions: tuple[NDArray[np.float64], ...],
    vertices: NDArray[np.int64],
    ends: NDArray[np.int64],
    first: int,
    sums: tuple[NDArray[Any], ...],
    histogram: NDArray[Any],
    by_example: NDArray[np.float64],
    by_token: NDArray[np.float64],
) -> None:
    """Add the angles of a run of tokens at some vertices to what is summed of them.

    Args:
        teacher: <T_i, T_k>, (teacher layers, teacher layers, tokens).
        directions: half, scaling, along and inverse_across as in `Directions`, each (vertices, teacher layers, tokens).
        vertices: which vertices.
        ends: behind which token each of the run's examples ends.
        first: the place of the first one in `by_example`.
        sums: cosine, cosine_squared, acute, angle, tangential and tangential_angle as in `AngleSums`.
        histogram: as there.
        by_example: sums of the cosine, (vertices, pairs, examples).
        by_token: sums of the angle over pairs in degrees, (vertices, tokens).
    """
    half, scaling, along, inverse_across = directions
    cosine_sum, square_sum, acute, angle_sum, tangential_sum, tangential_angle_sum = sums
    n_layers, n_tokens = teacher.shape[0], teacher.shape[2]
    cosines, tangents, beyond = np.empty(n_tokens), np.empty(n_tokens), np.empty(n_tokens)
    bins = np.empty(n_tokens, np.int32)
    for v in vertices:
        beyond[:] = 0.0
        pair = 0
        for i in range(n_layers - 1):
            half_i, scaling_i, along_i, inverse_i = half[v, i], scaling[v, i], along[v, i], inverse_across[v, i]
            for k in range(i + 1, n_layers):
                half_k, scaling_k, along_k, inverse_k = half[v, k], scaling[v, k], along[v, k], inverse_across[v, k]
                between = teacher[i, k]
                square, above, arc, tangential, tangential_arc = 0.0, 0.0, 0.0, 0.0, 0.0
                for t in range(n_tokens):
                    cosine = _cosine(half_i[t], half_k[t], between[t], scaling_i[t], scaling_k[t])
                    cosines[t] = cosine
                    place = np.int32((cosine + 1.0) * (N_BINS / 2))
                    bins[t] = place if place < N_BINS else N_BINS - 1
                    square += cosine * cosine
                    above += 1.0 if cosine > 0.0 else 0.0
                    across = _tangential(along_i[t], along_k[t], between[t], inverse_i[t], inverse_k[t])
                    tangents[t] = across
                    tangential += across
                # Apart, because all of it together is more than a processor has registers for.
                for t in range(n_tokens):
                    own_arc = arc_sine(cosines[t])
                    arc += own_arc
                    beyond[t] += own_arc
                for t in range(n_tokens):
                    tangential_arc += arc_sine(tangents[t])
                square_sum[v, pair] += square
                acute[v, pair] += int(above)
                angle_sum[v, pair] += 90.0 * n_tokens - math.degrees(arc)
                tangential_sum[v, pair] += tangential
                tangential_angle_sum[v, pair] += 90.0 * n_tokens - math.degrees(tangential_arc)
                counts = histogram[v, pair]
                for t in range(n_tokens):
                    counts[bins[t]] += 1
                start = 0
                for example in range(len(ends)):
                    total = 0.0
                    for t in range(start, ends[example]):
                        total += cosines[t]
                    by_example[v, pair, first + example] += total
                    cosine_sum[v, pair] += total
                    start = ends[example]
                pair += 1
        for t in range(n_tokens):
            by_token[v, t] += 90.0 * pair - math.degrees(beyond[t])


@_compiled
def mean_angles(
    teacher: NDArray[np.float64],
    directions: tuple[NDArray[np.float64], ...],
    vertices: NDArray[np.int64],
    angles_too: bool,
    found: tuple[NDArray[np.float64], ...],
) -> None:
    """Write the means over tokens of the angles at some vertices.

    Args:
        teacher: as in `add_angles`.
        directions: as there.
        vertices: as there.
        angles_too: the mean angles are wanted.
        found: the mean cosine, its standard error, the mean angle in degrees, the mean tangential cosine and its mean
            angle; each (vertices, pairs).
    """
    half, scaling, along, inverse_across = directions
    mean_cosine, error, mean_angle, mean_tangential, mean_tangential_angle = found
    n_layers, n_tokens = teacher.shape[0], teacher.shape[2]
    cosines, tangents = np.empty(n_tokens), np.empty(n_tokens)
    for v in vertices:
        pair = 0
        for i in range(n_layers - 1):
            half_i, scaling_i, along_i, inverse_i = half[v, i], scaling[v, i], along[v, i], inverse_across[v, i]
            for k in range(i + 1, n_layers):
                half_k, scaling_k, along_k, inverse_k = half[v, k], scaling[v, k], along[v, k], inverse_across[v, k]
                between = teacher[i, k]
                total, tangential = 0.0, 0.0
                for t in range(n_tokens):
                    cosine = _cosine(half_i[t], half_k[t], between[t], scaling_i[t], scaling_k[t])
                    cosines[t] = cosine
                    total += cosine
                    across = _tangential(along_i[t], along_k[t], between[t], inverse_i[t], inverse_k[t])
                    tangents[t] = across
                    tangential += across
                mean, scatter = total / n_tokens, 0.0
                for t in range(n_tokens):
                    scatter += (cosines[t] - mean) ** 2
                mean_cosine[v, pair] = mean
                error[v, pair] = math.sqrt(scatter / ((n_tokens - 1) * n_tokens))
                mean_tangential[v, pair] = tangential / n_tokens
                if angles_too:
                    arc, tangential_arc = 0.0, 0.0
                    for t in range(n_tokens):
                        arc += arc_sine(cosines[t])
                        tangential_arc += arc_sine(tangents[t])
                    mean_angle[v, pair] = 90.0 - math.degrees(arc / n_tokens)
                    mean_tangential_angle[v, pair] = 90.0 - math.degrees(tangential_arc / n_tokens)
                pair += 1


@_compiled
def beside_null(
    teacher: NDArray[np.float64],
    directions: tuple[NDArray[np.float64], ...],
    null_teacher: NDArray[np.float64],
    null_directions: tuple[NDArray[np.float64], ...],
    vertices: NDArray[np.int64],
    found: tuple[NDArray[np.float64], ...],
) -> None:
    """Write the means over tokens of the cosines at some vertices beside those of a null.

    Args:
        teacher: as in `add_angles`.
        directions: as there.
        null_teacher: the null's, of the same shape.
        null_directions: the null's, of the same vertices or of one that serves all.
        vertices: which vertices.
        found: the observed mean, the null's mean and its standard error, the mean of observed minus null and its
            standard error, the null's mean tangential cosine; each (vertices, pairs).
    """
    half, scaling, _, _ = directions
    null_half, null_scaling, null_along, null_inverse = null_directions
    observed_mean, null_mean, null_error, difference_mean, difference_error, tangential_mean = found
    n_layers, n_tokens = teacher.shape[0], teacher.shape[2]
    nulls, differences = np.empty(n_tokens), np.empty(n_tokens)
    for v in vertices:
        own = min(v, len(null_half) - 1)
        pair = 0
        for i in range(n_layers - 1):
            half_i, scaling_i = half[v, i], scaling[v, i]
            null_half_i, null_scaling_i = null_half[own, i], null_scaling[own, i]
            along_i, inverse_i = null_along[own, i], null_inverse[own, i]
            for k in range(i + 1, n_layers):
                half_k, scaling_k = half[v, k], scaling[v, k]
                null_half_k, null_scaling_k = null_half[own, k], null_scaling[own, k]
                along_k, inverse_k = null_along[own, k], null_inverse[own, k]
                between, null_between = teacher[i, k], null_teacher[i, k]
                observed, null, tangential = 0.0, 0.0, 0.0
                for t in range(n_tokens):
                    cosine = _cosine(half_i[t], half_k[t], between[t], scaling_i[t], scaling_k[t])
                    null_cosine = _cosine(
                        null_half_i[t], null_half_k[t], null_between[t], null_scaling_i[t], null_scaling_k[t]
                    )
                    nulls[t], differences[t] = null_cosine, cosine - null_cosine
                    observed += cosine
                    null += null_cosine
                    tangential += _tangential(along_i[t], along_k[t], null_between[t], inverse_i[t], inverse_k[t])
                observed, null = observed / n_tokens, null / n_tokens
                null_scatter, scatter = 0.0, 0.0
                for t in range(n_tokens):
                    null_scatter += (nulls[t] - null) ** 2
                    scatter += (differences[t] - (observed - null)) ** 2
                observed_mean[v, pair], null_mean[v, pair] = observed, null
                null_error[v, pair] = math.sqrt(null_scatter / ((n_tokens - 1) * n_tokens))
                difference_mean[v, pair] = observed - null
                difference_error[v, pair] = math.sqrt(scatter / ((n_tokens - 1) * n_tokens))
                tangential_mean[v, pair] = tangential / n_tokens
                pair += 1


@_compiled
def exchange(
    teacher: NDArray[np.float64],
    directions: tuple[NDArray[np.float64], ...],
    sizes: NDArray[np.int64],
    ways: NDArray[np.uint32],
    limits: tuple[float, float, float],
    found: tuple[NDArray[np.float64], ...],
    largest: NDArray[np.float32],
) -> None:
    """Test the pairs of one vertex as `exchange_test` does, and raise `largest` to each way's largest t².

    Args:
        teacher: as in `add_angles`, with examples in the place of tokens.
        directions: as there of one vertex, with meetings in the place of tokens.
        sizes: examples of each block.
        ways: which meetings each way is made of, (ways, examples); the first is the observed one.
        limits: of which share of the mean square a variance is rounding, of sums in float32 and of exact ones; the
            smallest error that a difference is divided by.
        found: the mean cosine, the difference and its standard error, that of the mean with other examples' states, the
            mean tangential cosine with these, and the observed |t|; each (1, pairs).
        largest: of each way, (ways,).
    """
    half, scaling, along, inverse_across = directions
    observed, difference, error, null_error, tangential_mean, statistic = found
    no_variance, no_exact_variance, least_variance = np.float32(limits[0]), limits[1], np.float32(limits[2] ** 2)
    n_layers, n_examples = teacher.shape[0], teacher.shape[2]
    n_meetings, n_ways = half.shape[2], ways.shape[0]
    block = n_examples / len(sizes)
    widened, n = (block + 1) / block, np.float32(n_examples)
    nothing = np.float32(0.0)
    spare = np.float32(widened**2 / ((n_examples - 1) * n_examples))
    products, cosines, acrosses = np.empty(n_meetings), np.empty(n_meetings), np.empty(n_meetings)
    with_others = np.empty(n_examples)
    rows, columns = np.empty(n_examples), np.empty(n_examples)
    table = np.zeros((n_meetings, _TILE), np.float32)
    total, square, ratios = np.empty(_TILE, np.float32), np.empty(_TILE, np.float32), np.empty(_TILE, np.float32)
    filled, pair, i, k = 0, 0, 0, 1
    while i < n_layers - 1:
        # The cosines of all meetings.
        half_i, scaling_i, along_i, inverse_i = half[0, i], scaling[0, i], along[0, i], inverse_across[0, i]
        half_k, scaling_k, along_k, inverse_k = half[0, k], scaling[0, k], along[0, k], inverse_across[0, k]
        meeting, first = 0, 0
        for size in sizes:
            for a in range(size):
                products[meeting : meeting + size] = teacher[i, k, first + a]
                meeting += size
            first += size
        tangential = 0.0
        for m in range(n_meetings):
            cosines[m] = _cosine(half_i[m], half_k[m], products[m], scaling_i[m], scaling_k[m])
            across = _tangential(along_i[m], along_k[m], products[m], inverse_i[m], inverse_k[m])
            acrosses[m] = across
            tangential += across
        own_cosine, own_tangential = 0.0, 0.0
        for own in ways[0]:
            own_cosine += cosines[own]
            own_tangential += acrosses[own]
        observed[0, pair] = own_cosine / n_examples
        tangential_mean[0, pair] = (tangential - own_tangential) / (n_meetings - n_examples)
        # The excess of each cosine, as `_excess` defines it.
        own_total, own_square, others_total = 0.0, 0.0, 0.0
        meeting, first = 0, 0
        for size in sizes:
            columns[:size] = 0.0
            whole = 0.0
            for a in range(size):
                row = 0.0
                for s in range(size):
                    row += cosines[meeting + a * size + s]
                    columns[s] += cosines[meeting + a * size + s]
                rows[a] = row
                whole += row
            whole /= size * size
            for s in range(size):
                columns[s] /= size
            widen = size / (size - 1)
            for a in range(size):
                start = meeting + a * size
                own_cosine, row = cosines[start + a], rows[a] / size
                other = ((row + columns[a]) * size - 2.0 * own_cosine) / (size - 1)
                with_others[first + a] = other
                others_total += other
                # The own one apart: a question in the loop would keep it from being taken several at a time.
                for s in range(size):
                    table[start + s, filled] = (cosines[start + s] - (row - whole) - columns[s]) * widen
                excess = (own_cosine - (row - whole) - columns[a]) * widen
                own_total += excess
                own_square += excess * excess
            meeting += size * size
            first += size
        mean = own_total / n_examples
        scatter = own_square - own_total * mean
        if scatter <= no_exact_variance * own_square:
            scatter = 0.0
        difference[0, pair] = mean
        error[0, pair] = math.sqrt(scatter / ((n_examples - 1) * n_examples)) * widened
        others_mean, scatter = others_total / n_examples, 0.0
        for e in range(n_examples):
            scatter += (with_others[e] - others_mean) ** 2
        null_error[0, pair] = math.sqrt(scatter / ((n_examples - 1) * n_examples))
        filled, pair, k = filled + 1, pair + 1, k + 1
        if k == n_layers:
            i, k = i + 1, i + 2
        if filled < _TILE and i < n_layers - 1:
            continue
        # Every way's sums of some pairs, side by side.
        for way in range(n_ways):
            total[:], square[:] = 0.0, 0.0
            for e in range(0, n_examples - 5, 6):  # six at once: the sums are fetched and stored a sixth as often
                a_row, b_row, c_row = table[ways[way, e]], table[ways[way, e + 1]], table[ways[way, e + 2]]
                d_row, e_row, f_row = table[ways[way, e + 3]], table[ways[way, e + 4]], table[ways[way, e + 5]]
                for r in range(_TILE):
                    a_x, b_x, c_x, d_x, e_x, f_x = a_row[r], b_row[r], c_row[r], d_row[r], e_row[r], f_row[r]
                    total[r] += (a_x + b_x) + (c_x + d_x) + (e_x + f_x)
                    square[r] += (a_x * a_x + b_x * b_x) + (c_x * c_x + d_x * d_x) + (e_x * e_x + f_x * f_x)
            for e in range(n_examples - n_examples % 6, n_examples):
                a_row = table[ways[way, e]]
                for r in range(_TILE):
                    total[r] += a_row[r]
                    square[r] += a_row[r] * a_row[r]
            most = largest[way]
            for r in range(_TILE):
                mean_32 = total[r] / n
                scatter_32 = square[r] - total[r] * mean_32
                known = scatter_32 if scatter_32 > no_variance * square[r] else nothing
                ratios[r] = mean_32 * mean_32 / (known * spare + least_variance)
            for r in range(filled):
                most = max(most, ratios[r])
            largest[way] = most
            if way == 0:
                for r in range(filled):
                    statistic[0, pair - filled + r] = math.sqrt(ratios[r])
        filled = 0
