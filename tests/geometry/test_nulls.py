"""Each null against its analytic value, and its interval against what repetition gives."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from anglekit.geometry.angles import layer_pairs, vertex_cosine
from anglekit.geometry.nulls import (
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
    sample_products,
    summarize,
    sweep_products,
)
from anglekit.vocabulary import DEFAULT_NULLS, NULLS

TOKENS, LAYERS, VERTICES, WIDTH = 400, 4, 2, 64


def normal(*shape, seed=0, scale=1.0):
    return scale * torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def dense_cosines(teacher, vertices):
    i, k = layer_pairs(len(teacher))
    return torch.stack(
        [torch.stack([vertex_cosine(teacher[a], teacher[b], v) for a, b in zip(i, k, strict=True)]) for v in vertices]
    )


@pytest.mark.parametrize("offsets", [None, ([0, 0, 0, 0], [1, 1]), ([1, 2, 3, 4], [0, 0])])
def test_products_equal_dense_states_that_were_moved(offsets):
    teacher, vertices = normal(LAYERS, 50, WIDTH, seed=1).float(), normal(VERTICES, 50, WIDTH, seed=2).float()
    found = sample_angles(sample_products(teacher, vertices, offsets)).cosine
    shifts = offsets or ([0] * LAYERS, [0] * VERTICES)
    moved = [
        torch.stack([layer.roll(-shift, dims=0) for layer, shift in zip(side, shift_of_side, strict=True)])
        for side, shift_of_side in zip((teacher, vertices), shifts, strict=True)
    ]
    torch.testing.assert_close(found, dense_cosines(*moved), rtol=0, atol=1e-9)
    if offsets is not None:
        assert (found - dense_cosines(teacher, vertices)).abs().max() > 0.1


@pytest.mark.parametrize("width", [3, 7, 768])
def test_gaussian_directions_have_their_lengths_and_the_closed_form(width):
    """E cos is s^2 / sqrt((s^2 + t_i^2) (s^2 + t_k^2)) up to 1 / width; and the spread is that of drawn vectors."""
    teacher_squared = torch.tensor([1.0, 4.0, 9.0, 1.0]).unsqueeze(1).expand(4, 4000).double()
    vertex_squared = torch.tensor([4.0, 0.25]).unsqueeze(1).expand(2, 4000).double()
    products = gaussian_products(teacher_squared, vertex_squared, width, np.random.default_rng(0))
    torch.testing.assert_close(products.teacher_squared, teacher_squared)
    cosine = sample_angles(products).cosine
    drawn = [
        rescaled(normal(len(squared), 4000, width, seed=seed), squared)
        for seed, squared in ((1, teacher_squared), (2, vertex_squared))
    ]
    expected = dense_cosines(*drawn)
    error = (cosine.var(-1) + expected.var(-1)).div(4000).sqrt()
    assert ((cosine.mean(-1) - expected.mean(-1)).abs() < 5 * error).all()
    assert (cosine.std(-1) / expected.std(-1) - 1).abs().max() < 0.1
    if width == 768:
        i, k = layer_pairs(4)
        t, s = teacher_squared[:, 0], vertex_squared[:, :1]
        torch.testing.assert_close(cosine.mean(-1), s / ((s + t[i]) * (s + t[k])).sqrt(), rtol=0, atol=0.004)


def test_gaussians_of_equal_lengths_give_sixty_degrees_and_no_tangential_cosine():
    squared = torch.full((3, 2000), 5.0, dtype=torch.float64)
    angles = sample_angles(gaussian_products(squared, squared[:1], 768, np.random.default_rng(3)))
    assert angles.cosine.mean().item() == pytest.approx(0.5, abs=0.003)
    assert angles.tangential.mean().item() == pytest.approx(0.0, abs=0.003)


def test_gaussian_like_has_the_mean_and_covariance_of_the_sample():
    states = normal(4000, 6, seed=1) @ normal(6, 6, seed=2) + torch.arange(6.0)
    drawn = gaussian_like(states.float(), np.random.default_rng(4))
    torch.testing.assert_close(drawn.mean(0), states.mean(0), rtol=0, atol=0.2)
    scale = states.T.cov().diagonal().max()
    assert ((drawn.T.cov() - states.T.cov()).abs().max() / scale).item() < 0.12
    assert (drawn - states).abs().max() > 1
    few = gaussian_like(normal(3, 50), np.random.default_rng(0))
    assert torch.linalg.matrix_rank(few - few.mean(0)) <= 2


def test_a_random_rotation_is_orthogonal_and_uniform():
    rng = np.random.default_rng(5)
    rotations = torch.stack([random_rotation(4, rng) for _ in range(3000)])
    torch.testing.assert_close(rotations[0] @ rotations[0].T, torch.eye(4, dtype=torch.float64))
    # Of a uniform rotation every entry has mean 0 and variance 1 / width; half of the determinants are negative.
    assert rotations.mean(0).abs().max() < 0.05
    assert (rotations.var(0) - 0.25).abs().max() < 0.03
    assert abs(torch.linalg.det(rotations).mean().item()) < 0.1


def test_the_rotated_student_is_as_unrelated_as_a_gaussian_one():
    """A student equal to a teacher layer but for noise: 90 degrees from it, as by chance once it is rotated."""
    teacher = normal(3, TOKENS, 256, seed=1)
    student = teacher[:1] + 0.1 * normal(1, TOKENS, 256, seed=2)
    rotated = student @ random_rotation(256, np.random.default_rng(0)).T
    observed = sample_angles(sample_products(teacher, student)).cosine.mean(-1)
    null = sample_angles(sample_products(teacher, rotated)).cosine.mean(-1)
    assert (null - 0.5).abs().max() < 0.02
    assert (observed - null).abs().max() > 0.3


def test_permutations_take_away_what_they_say():
    """Teacher layers share a direction, the student shares another with them, example by example."""
    shared = normal(1, 3000, WIDTH, seed=1)
    teacher = shared + normal(3, 3000, WIDTH, seed=2)
    student = shared + normal(1, 3000, WIDTH, seed=3)
    mean = {None: sample_angles(sample_products(teacher, student)).cosine.mean().item()}
    for name, offsets in (("permuted-student", ([0] * 3, [1])), ("permuted-all", permuted_offsets(3, 1))):
        products = sample_products(teacher, student, offsets)
        mean[name] = sample_angles(products).cosine.mean().item()
    # |T|^2 = |S|^2 = 2 w, <T_i, T_k> = <T, S> = w where paired: (w - w - w + 2 w) / 2 w, (w + 2 w) / 4 w, 2 w / 4 w.
    assert mean[None] == pytest.approx(1 / 2, abs=0.01)
    assert mean["permuted-student"] == pytest.approx(3 / 4, abs=0.01)
    assert mean["permuted-all"] == pytest.approx(1 / 2, abs=0.01)


def test_the_origin_is_the_plain_cosine_and_the_centroid_of_a_simplex_is_minus_one_over_its_corners_but_one():
    teacher, student = normal(LAYERS, TOKENS, 4096, seed=1), normal(1, TOKENS, 4096, seed=2)
    products = sample_products(teacher, student)
    plain = sample_angles(origin_products(products)).cosine
    torch.testing.assert_close(plain, dense_cosines(teacher, torch.zeros_like(student)), rtol=0, atol=1e-9)
    centre = sample_angles(centroid_products(products)).cosine
    torch.testing.assert_close(centre, dense_cosines(teacher, teacher.mean(0, keepdim=True)), rtol=0, atol=1e-9)
    assert centre.mean().item() == pytest.approx(-1 / (LAYERS - 1), abs=0.005)


@given(t=st.floats(-2, 3))
@settings(max_examples=25, deadline=None)
def test_the_sweep_is_the_vertex_on_the_line_from_the_centroid(t):
    teacher, student = normal(LAYERS, 20, 8, seed=1), normal(VERTICES, 20, 8, seed=2)
    centre = teacher.mean(0, keepdim=True)
    found = sample_angles(sweep_products(sample_products(teacher, student), [t])).cosine
    torch.testing.assert_close(found, dense_cosines(teacher, centre + t * (student - centre)), rtol=0, atol=1e-7)


def test_the_sweep_ends_at_the_centroid_and_at_the_student():
    products = sample_products(normal(LAYERS, 20, 8, seed=1), normal(VERTICES, 20, 8, seed=2))
    ends = [sample_angles(sweep_products(products, [t])).cosine for t in (0.0, 1.0)]
    torch.testing.assert_close(ends[0], sample_angles(centroid_products(products)).cosine.expand_as(ends[0]))
    torch.testing.assert_close(ends[1], sample_angles(products).cosine)


@pytest.mark.parametrize("rho", [0.0, 0.4, 0.9])
def test_the_tangential_cosine_recovers_a_planted_correlation_where_the_raw_cosine_does_not(rho):
    """T_i and T_k correlate by rho beside a shared part along S, which makes the raw cosine acute whatever rho is."""
    n, width = 3000, 512
    student = normal(1, n, width, seed=1, scale=2.0)
    unit = student / student.norm(dim=-1, keepdim=True)
    common, first, second = (normal(n, width, seed=seed) for seed in (2, 3, 4))
    noise = [rho**0.5 * common + (1 - rho) ** 0.5 * own for own in (first, second)]
    along = 30 * unit[0]
    teacher = torch.stack([along + noise[0], along + noise[1]])
    angles = sample_angles(sample_products(teacher, student))
    assert angles.tangential.mean().item() == pytest.approx(rho, abs=0.01)
    assert angles.cosine.mean().item() - rho > 0.02
    independent = sample_angles(sample_products(torch.stack(noise), student)).cosine.mean().item()
    assert independent == pytest.approx((rho + 4) / 5, abs=0.01)  # 4 |noise|^2 is |S|^2: acute even at rho = 0


def test_lags_are_the_distances_between_rows_that_share_an_example():
    one = difference_lags(([0] * 4, [1] * 2))
    assert len(one) == 1
    assert one[0].all()
    every = difference_lags(permuted_offsets(3, 1))
    pairs = [tuple(pair) for pair in zip(*(p.tolist() for p in layer_pairs(3)), strict=True)]
    for row, (i, k) in enumerate(pairs):
        expected = {i + 1, k + 1, k - i}
        assert {lag for lag, tied in enumerate(every, start=1) if tied[0, row]} == expected


def interval(summary):
    """Return the ends of the 95% interval of a difference, by Student's t."""
    difference = summary.difference
    reach = torch.from_numpy(stats.t.ppf(0.975, difference.freedom.numpy())) * difference.se
    return difference.mean - reach, difference.mean + reach


def _repeated(offsets, repeats, n=150):
    """Return difference and interval of a null over many independent samples, examples differing in strength."""
    layers, differences, covered, naive = 3, [], 0, 0
    lags = difference_lags(offsets)
    rng = np.random.default_rng(11)
    truth = None
    for number in range(-1, repeats):
        size = 60_000 if number < 0 else n
        length = torch.from_numpy(rng.lognormal(0, 0.6, (layers + 1, size, 1)))
        shared = torch.from_numpy(rng.standard_normal((1, size, 16)))
        states = length * (shared + torch.from_numpy(rng.standard_normal((layers + 1, size, 16))))
        observed = sample_angles(sample_products(states[:3], states[3:]))
        null = sample_angles(sample_products(states[:3], states[3:], offsets))
        parts = observed.cosine, observed.valid, null.cosine, null.valid
        summary = summarize(*parts, lags)
        if truth is None:
            truth = summary.difference.mean
            continue
        differences.append(summary.difference.mean)
        (low, high), (plain_low, plain_high) = interval(summary), interval(summarize(*parts))
        covered += (low <= truth) & (truth <= high)
        naive += (plain_low <= truth) & (truth <= plain_high)
    return torch.stack(differences), covered.double() / repeats, naive.double() / repeats


@pytest.mark.parametrize("offsets", [([0] * 3, [1]), permuted_offsets(3, 1)])
def test_intervals_of_a_difference_cover_as_often_as_they_say(offsets):
    differences, covered, naive = _repeated(offsets, 600)
    assert covered.mean().item() == pytest.approx(0.95, abs=0.015)
    # Control: rows taken for independent, which they are not, give intervals of another width.
    assert (covered - naive).abs().max() > 0.004
    assert differences.std(0).min() > 0


def test_degenerate_tokens_count_nowhere():
    observed = torch.tensor([[[0.5, 0.7, torch.nan, 0.2]]], dtype=torch.float64)
    null = torch.tensor([[[0.1, torch.nan, 0.3, 0.4]]], dtype=torch.float64)
    valid = [torch.isfinite(each) for each in (observed, null)]
    found = summarize(torch.nan_to_num(observed), valid[0], torch.nan_to_num(null), valid[1])
    assert found.difference.n_tokens.item() == 2
    assert found.difference.mean.item() == pytest.approx((0.4 - 0.2) / 2)
    assert found.observed.item() == pytest.approx(0.35)
    assert found.null.mean.item() == pytest.approx(0.8 / 3)
    half = 12.7062 * np.std([0.4, -0.2], ddof=1) / 2**0.5
    assert interval(found)[1].item() == pytest.approx(0.1 + half, rel=1e-4)
    none = summarize(observed, valid[0] & False, null, valid[1])
    assert none.difference.n_tokens.item() == 0
    assert none.difference.mean.isnan().all()
    assert none.observed.isnan().all()
    one = summarize(observed, valid[0] & torch.tensor([True, False, False, False]), null, valid[1])
    assert one.difference.mean.item() == pytest.approx(0.4)
    assert interval(one)[0].isnan().all()


def test_a_sample_whose_rows_are_all_tied_has_no_interval():
    lags = difference_lags(permuted_offsets(3, 1))
    for n, known in ((4, False), (8, True)):
        values, valid = normal(1, 3, n, seed=1), torch.ones(1, 3, n, dtype=torch.bool)
        found = summarize(values, valid, torch.zeros_like(values), valid, lags)
        assert found.difference.mean.isfinite().all()
        assert bool(interval(found)[0].isfinite().all()) is known


def test_the_default_is_a_part_of_the_ladder():
    assert set(DEFAULT_NULLS) < set(NULLS)


def test_each_row_has_its_own_error():
    """Ties are counted round the tokens of one row, never from one row into the next."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(2, 3, 40, generator=generator, dtype=torch.float64).cumsum(-1)
    valid = torch.rand(2, 3, 40, generator=generator) < 0.9
    lags = [torch.rand(2, 3, generator=generator) < 0.7 for _ in range(3)]
    whole = mean_estimate(values, valid, lags)
    for row in range(2):
        for column in range(3):
            here = slice(row, row + 1), slice(column, column + 1)
            alone = mean_estimate(values[here], valid[here], [lag[here] for lag in lags])
            for field in fields(whole):
                torch.testing.assert_close(getattr(whole, field.name)[here], getattr(alone, field.name))


@pytest.mark.parametrize("n", [5, 6])
def test_two_places_half_round_the_ring_are_tied_once(n):
    """Every two tied places written out; round a ring of six a lag of three leads to one place, of five to two."""
    values = torch.randn(1, 1, n, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    lags = [torch.zeros(1, 1, dtype=torch.bool)] * 2 + [torch.ones(1, 1, dtype=torch.bool)]
    tied = [[t == u or (t - u) % n == 3 or (u - t) % n == 3 for u in range(n)] for t in range(n)]
    residual = (values - values.mean()).flatten()
    total = sum(residual[t] * residual[u] for t in range(n) for u in range(n) if tied[t][u])
    total = max(total, (residual**2).sum() / n)
    ties = sum(tied[0])
    assert ties == (2 if n == 6 else 3)
    found = mean_estimate(values, torch.ones(1, 1, n, dtype=torch.bool), lags)
    assert found.se.item() == pytest.approx(float(total / ((n - ties) * n)) ** 0.5)
    assert found.freedom.item() == pytest.approx((n - ties) / ties)
