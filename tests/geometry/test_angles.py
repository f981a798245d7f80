"""The angle kernels, token by token, against dense float64 numpy."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anglekit.geometry.angles import (
    angle_degrees,
    angles_from_products,
    chance_factors,
    cosine_resolution,
    layer_pairs,
    state_rounding,
    tangential_cosine,
    vertex_cosine,
)

sizes = {"tokens": st.integers(1, 5), "layers": st.integers(2, 5), "vertices": st.integers(1, 3)}
quick = settings(max_examples=30, deadline=None)


def draw(tokens, layers, vertices, *, width=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    teacher = torch.randn(layers, tokens, width, generator=generator) + 0.3
    student = torch.randn(vertices, tokens, width, generator=generator)
    return teacher, student


def from_states(teacher, student, **options):
    """The kernel under test, fed with the inner products of states (layers, tokens, width)."""
    t, s = teacher.double(), student.double()
    products = torch.einsum("itw,ktw->ikt", t, t)
    return angles_from_products(products, torch.einsum("itw,jtw->ijt", t, s), (s * s).sum(-1), **options)


def dense_cosine(u, v):
    return float(u @ v / (np.linalg.norm(u) * np.linalg.norm(v)))


def dense(teacher, student, kind):
    """Cosines (vertices, pairs, tokens) by three plain loops in float64."""
    t, s = teacher.double().numpy(), student.double().numpy()
    pairs = list(itertools.combinations(range(len(t)), 2))
    result = np.empty((len(s), len(pairs), t.shape[1]))
    for (j, state), (row, (i, k)), token in itertools.product(enumerate(s), enumerate(pairs), range(t.shape[1])):
        a, b, vertex = t[i, token], t[k, token], state[token]
        if kind == "vertex":
            result[j, row, token] = dense_cosine(a - vertex, b - vertex)
        else:
            projector = np.eye(len(vertex)) - np.outer(vertex, vertex) / (vertex @ vertex)
            result[j, row, token] = dense_cosine(projector @ a, projector @ b)
    return result


def rotation(width, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(width, width, generator=generator, dtype=torch.float64))[0]


def hard_case(name):
    generator = torch.Generator().manual_seed(3)
    if name == "near":
        base = torch.randn(12, 256, generator=generator)
        states = [base + 1e-3 * torch.randn(12, 256, generator=generator) for _ in range(5)]
    else:
        states = [torch.randn(12, 256, generator=generator) for _ in range(5)]
        for state in states:
            state[:, 17] *= 1000
    stacked = torch.stack(states)
    assert stacked.dtype == torch.float32
    return stacked[:4], stacked[4:]


def test_pairs_run_by_the_first_then_by_the_second_layer():
    i, k = layer_pairs(5)
    assert list(zip(i.tolist(), k.tolist(), strict=True)) == list(itertools.combinations(range(5), 2))
    assert layer_pairs(1)[0].numel() == 0


@quick
@given(seed=st.integers(0, 10**6), **sizes)
def test_products_give_the_dense_cosines(seed, tokens, layers, vertices):
    teacher, student = draw(tokens, layers, vertices, seed=seed)
    angles = from_states(teacher, student)
    assert bool(angles.valid.all())
    assert bool(angles.tangential_valid.all())
    np.testing.assert_allclose(angles.cosine.numpy(), dense(teacher, student, "vertex"), atol=1e-10)
    np.testing.assert_allclose(angles.tangential.numpy(), dense(teacher, student, "tangential"), atol=1e-10)


@quick
@given(seed=st.integers(0, 10**6), **sizes)
def test_direct_functions_give_the_dense_cosines(seed, tokens, layers, vertices):
    teacher, student = draw(tokens, layers, vertices, seed=seed)
    i, k = layer_pairs(layers)
    for function, kind in ((vertex_cosine, "vertex"), (tangential_cosine, "tangential")):
        found = function(teacher[i].unsqueeze(0), teacher[k].unsqueeze(0), student.unsqueeze(1))
        assert found.dtype == torch.float64
        np.testing.assert_allclose(found.numpy(), dense(teacher, student, kind), atol=1e-12)


@quick
@given(seed=st.integers(0, 10**6), scale=st.floats(1e-4, 1e4), **sizes)
def test_rotation_and_scale_change_nothing(seed, scale, tokens, layers, vertices):
    teacher, student = (side.double() for side in draw(tokens, layers, vertices, seed=seed))
    turn = rotation(teacher.shape[-1], seed)
    before, after = from_states(teacher, student), from_states(scale * teacher @ turn, scale * student @ turn)
    torch.testing.assert_close(after.cosine, before.cosine, rtol=0, atol=1e-9)
    torch.testing.assert_close(after.tangential, before.tangential, rtol=0, atol=1e-9)


def test_a_shift_keeps_the_vertex_cosine_but_not_the_tangential_one():
    teacher, student = (side.double() for side in draw(6, 4, 2))
    before, after = from_states(teacher, student), from_states(teacher + 2, student + 2)
    torch.testing.assert_close(after.cosine, before.cosine, rtol=0, atol=1e-10)
    assert (after.tangential - before.tangential).abs().max() > 0.1


def test_scaling_the_student_alone_changes_the_cosine():
    teacher, student = draw(6, 4, 2)
    assert (from_states(teacher, 2 * student).cosine - from_states(teacher, student).cosine).abs().max() > 0.1


@pytest.mark.parametrize("case", ["near", "dominant"])
@pytest.mark.parametrize("kind", ["vertex", "tangential"])
def test_hard_cases_err_by_at_most_1e_5(case, kind):
    teacher, student = hard_case(case)
    angles = from_states(teacher, student)
    found = angles.cosine if kind == "vertex" else angles.tangential
    assert bool((angles.valid & angles.tangential_valid).all())
    assert np.abs(found.numpy() - dense(teacher, student, kind)).max() <= 1e-5


@pytest.mark.parametrize("case", ["near", "dominant"])
def test_hard_cases_angles_err_by_at_most_1e_5_degrees(case):
    teacher, student = hard_case(case)
    i, k = layer_pairs(len(teacher))
    u, v = (teacher[index].double() - student.double() for index in (i, k))
    expected = np.degrees(np.arccos(np.clip(dense(teacher, student, "vertex")[0], -1, 1)))
    np.testing.assert_allclose(angle_degrees(u, v).numpy(), expected, atol=1e-5)


def test_the_near_case_defeats_float32_products():
    """The negative control of the hard case: the same expansion in float32 misses the bound by far."""
    teacher, student = hard_case("near")
    t_i, t_k, s = teacher[0], teacher[1], student[0]
    squared = [(a * a).sum(-1) + (s * s).sum(-1) - 2 * (a * s).sum(-1) for a in (t_i, t_k)]
    numerator = (t_i * t_k).sum(-1) + (s * s).sum(-1) - (t_i * s).sum(-1) - (t_k * s).sum(-1)
    naive = numerator / (squared[0] * squared[1]).clamp(min=1e-30).sqrt()
    assert np.abs(naive.numpy() - dense(teacher, student, "vertex")[0, 0]).max() > 1e-3


@pytest.mark.parametrize("degrees", [1e-6, 1e-3, 1.0, 60.0, 90.0, 179.0, 180 - 1e-3, 180 - 1e-6])
def test_angles_near_0_and_180_keep_their_digits(degrees):
    radians = np.deg2rad(min(degrees, 180 - degrees))
    sign = 1.0 if degrees <= 90 else -1.0
    u = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    v = torch.tensor([sign * np.cos(radians), np.sin(radians), 0.0], dtype=torch.float64)
    found = float(angle_degrees(3 * u, 0.2 * v))
    assert min(found, 180 - found) == pytest.approx(min(degrees, 180 - degrees), rel=1e-6)
    assert (found < 90) == (degrees < 90) or degrees == 90


def test_the_angle_of_equal_opposite_and_missing_vectors():
    u = torch.tensor([[1.0, 2.0]] * 5, dtype=torch.float64)
    v = torch.tensor([[2.0, 4.0], [-1.0, -2.0], [0.0, 0.0], [np.nan, 1.0], [np.inf, 1.0]], dtype=torch.float64)
    found = angle_degrees(u, v)
    assert found[:2].tolist() == pytest.approx([0.0, 180.0], abs=1e-9)
    assert found[2:].isnan().all()


def test_a_vertex_on_a_teacher_layer_is_left_out_only_there():
    teacher, student = draw(4, 3, 2)
    student[0, 2] = teacher[1, 2]
    angles = from_states(teacher, student)
    expected = torch.zeros(2, 3, 4, dtype=torch.bool)
    expected[0, 1, 2] = True
    assert torch.equal(angles.zero_direction, expected)
    left_out = torch.zeros(2, 3, 4, dtype=torch.bool)
    left_out[0, [0, 2], 2] = True  # the pairs (0, 1) and (1, 2)
    assert torch.equal(~angles.valid, left_out)
    assert bool((angles.cosine[left_out] == 0).all())
    direct = vertex_cosine(teacher[0], teacher[1], student[0])
    assert direct.isnan().tolist() == [False, False, True, False]


def test_zero_states_have_no_tangential_cosine_but_a_vertex_one():
    teacher, student = draw(3, 3, 1)
    student[0, 0] = 0
    teacher[2, 1] = 0
    angles = from_states(teacher, student)
    assert bool(angles.valid.all())
    assert angles.tangential_valid[0].T.tolist() == [[False] * 3, [True, False, False], [True] * 3]
    assert bool(torch.isfinite(angles.tangential).all())
    plain = dense_cosine(teacher[0, 0].double().numpy(), teacher[1, 0].double().numpy())
    assert float(angles.cosine[0, 0, 0]) == pytest.approx(plain, abs=1e-12)
    assert bool(tangential_cosine(teacher[0, 0], teacher[1, 0], student[0, 0]).isnan())


def test_all_states_zero_is_a_direction_without_length():
    angles = from_states(torch.zeros(3, 2, 4), torch.zeros(1, 2, 4))
    assert bool(angles.zero_direction.all())
    assert not bool(angles.valid.any() | angles.tangential_valid.any())
    assert not bool(angles.cosine.any())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("side", ["teacher", "student"])
def test_what_is_not_finite_is_left_out_and_hurts_no_other(value, side):
    teacher, student = draw(3, 4, 2)
    clean = from_states(teacher, student)
    (teacher if side == "teacher" else student)[1, 2, 3] = value
    angles = from_states(teacher, student)
    hit = torch.zeros(2, 6, 3, dtype=torch.bool)
    if side == "teacher":
        hit[:, [0, 3, 4], 2] = True  # the pairs of layer 1
    else:
        hit[1, :, 2] = True
    for found, valid, before in (
        (angles.cosine, angles.valid, clean.cosine),
        (angles.tangential, angles.tangential_valid, clean.tangential),
    ):
        assert torch.equal(valid, ~hit)
        torch.testing.assert_close(found, torch.where(hit, 0.0, before), rtol=0, atol=1e-12)
    assert not bool(angles.zero_direction.any())


def test_epsilon_leaves_nothing_out_and_adds_to_the_lengths():
    teacher, student = draw(4, 3, 2)
    student[0, 2] = teacher[1, 2]
    epsilon = 0.5
    angles = from_states(teacher, student, epsilon=epsilon)
    assert bool(angles.valid.all())
    t, s = teacher.double(), student.double()
    for j, (row, (i, k)) in itertools.product(range(2), enumerate(itertools.combinations(range(3), 2))):
        u, v = t[i] - s[j], t[k] - s[j]
        expected = (u * v).sum(-1) / (u.norm(dim=-1) * v.norm(dim=-1) + epsilon)
        torch.testing.assert_close(angles.cosine[j, row], expected, rtol=0, atol=1e-12)
    assert float(angles.cosine[0, 0, 2]) == 0.0


def test_epsilon_still_leaves_out_what_is_not_finite():
    teacher, student = draw(2, 3, 1)
    teacher[0, 1, 0] = float("nan")
    angles = from_states(teacher, student, epsilon=1e-6)
    assert angles.valid[0].tolist() == [[True, False], [True, False], [True, True]]
    assert bool(torch.isfinite(angles.cosine).all())


@quick
@given(seed=st.integers(0, 10**6), scale=st.floats(0.01, 100), **sizes)
def test_chance_factors_multiply_to_the_closed_formula(seed, scale, tokens, layers, vertices):
    teacher, student = draw(tokens, layers, vertices, seed=seed)
    t2, s2 = teacher.double().square().sum(-1) * scale, student.double().square().sum(-1)
    factors = chance_factors(t2, s2)
    i, k = layer_pairs(layers)
    t2, s2 = t2.numpy(), s2.numpy()[:, None]
    expected = s2 / np.sqrt((s2 + t2[i]) * (s2 + t2[k]))
    np.testing.assert_allclose((factors[:, i] * factors[:, k]).numpy(), expected, rtol=1e-12)


def test_chance_gives_a_half_for_equal_lengths_and_nothing_for_nothing():
    t2 = torch.tensor([[2.0, 0.0, np.nan, np.inf]], dtype=torch.float64)
    s2 = torch.tensor([[2.0, 0.0, 1.0, np.inf]], dtype=torch.float64)
    factors = chance_factors(t2, s2)[0, 0]
    assert float(factors[0]) ** 2 == pytest.approx(0.5)
    assert factors[1:].isnan().all()


def test_chance_is_what_independent_vectors_show():
    generator = torch.Generator().manual_seed(0)
    t_i, t_k, s = (length * torch.randn(64, 2000, generator=generator) for length in (1.0, 2.0, 0.7))
    found = vertex_cosine(t_i, t_k, s).mean()
    factors = chance_factors(torch.stack([t_i, t_k]).double().square().sum(-1), s.double().square().sum(-1)[None])
    assert float(found) == pytest.approx(float((factors[0, 0] * factors[0, 1]).mean()), abs=0.01)
    assert float(tangential_cosine(t_i, t_k, s).mean()) == pytest.approx(0.0, abs=0.01)


def test_no_rounding_leads_beyond_a_cosine_of_one():
    """States on one line, through the student's and through the origin: the arc cosine is defined for all of them."""
    generator = torch.Generator().manual_seed(0)
    teacher = torch.randn(1, 4000, 12, generator=generator, dtype=torch.float64)
    student = torch.randn(1, 4000, 12, generator=generator, dtype=torch.float64)
    scale = torch.randn(4, 4000, 1, generator=generator, dtype=torch.float64)
    through_student = student + scale * (teacher - student)
    along_student = scale * teacher + 3 * scale.flip(0) * student  # on one line once the student's direction is out
    for states, quantity in ((through_student, "cosine"), (along_student, "tangential")):
        gram = torch.einsum("itw,ktw->ikt", states, states)
        cross = torch.einsum("itw,jtw->ijt", states, student)
        found = getattr(angles_from_products(gram, cross, student.square().sum(-1)), quantity)
        assert found.abs().max() == 1.0
        assert torch.acos(found).isfinite().all()
        assert (found.abs() > 0.999).all()
        assert set(found.sign().unique().tolist()) == {-1.0, 1.0}
        dense = {"cosine": vertex_cosine, "tangential": tangential_cosine}[quantity]
        assert dense(states[0], states[1], student[0]).abs().max() == 1.0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_angle_is_taken_in_float64_whatever_comes_in(dtype):
    """Nearly equal vectors, and lengths whose squares overflow or vanish in the narrow type."""
    u, v = draw(4, 1, 1, width=64)
    v = (u + 1e-2 * v).to(dtype)[0]
    u = u.to(dtype)[0]
    big, small = (2.0**12, 1.0) if dtype is torch.float16 else (2.0**100, 2.0**-100)
    pairs = zip(u.double().numpy(), v.double().numpy(), strict=True)
    expected = np.degrees(np.arccos([dense_cosine(a, b) for a, b in pairs]))
    for scale in (big, 1.0, small):
        found = angle_degrees(scale * u, v)
        assert found.dtype == torch.float64
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)
    # The negative control: in the narrow type itself the angle is lost.
    lengths = [(big * u).norm(dim=-1, keepdim=True), v.norm(dim=-1, keepdim=True)]
    narrow = torch.rad2deg(torch.acos((big * u / lengths[0] * (v / lengths[1])).sum(-1).clamp(-1, 1)))
    assert not np.allclose(narrow.double().numpy(), expected, atol=1e-3)


HALVES = (torch.bfloat16, torch.float16)


def rounded_cosines(dtype, width, cosine, tokens=1600, spread=0.0):
    """Return cosines of Gaussian states at a given angle in float64, and of the same states rounded to a type."""
    generator = torch.Generator().manual_seed(width)
    u, w = torch.randn(2, tokens, width, generator=generator, dtype=torch.float64)
    u, w = (each * torch.randn(width, generator=generator, dtype=torch.float64).mul(spread).exp() for each in (u, w))
    w = w - (w * u).sum(-1, keepdim=True) / (u * u).sum(-1, keepdim=True) * u
    w = w * (u.norm(dim=-1, keepdim=True) / w.norm(dim=-1, keepdim=True))
    v = cosine * u + (1 - cosine**2) ** 0.5 * w
    rounded = [each.to(dtype).double() for each in (u, v)]
    return (torch.cosine_similarity(u, v), torch.cosine_similarity(*rounded)), (u - rounded[0]).norm(dim=-1) / u.norm(
        dim=-1
    )


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_rounding_moves_states_as_far_as_stated(dtype, spread):
    (_, _), moved = rounded_cosines(dtype, 256, 0.0, spread=spread)
    assert moved.square().mean().sqrt().item() == pytest.approx(state_rounding(dtype), rel=0.05)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("width", [16, 128, 512])
def test_rounding_moves_cosines_as_far_as_stated(dtype, width):
    """At a right angle by about as much, elsewhere by less; of 8,000 errors none is six times as large."""
    stated = cosine_resolution(dtype, width)
    for cosine in (0.0, 0.9, -0.9, 0.999, 1.0):
        (exact, rounded), _ = rounded_cosines(dtype, width, cosine)
        error = (rounded - exact).square().mean().sqrt().item()
        assert error <= 1.1 * stated
        if cosine == 0.0:
            assert error >= 0.8 * stated
        assert (rounded - exact).abs().max() <= 6 * stated


def test_the_part_that_no_number_of_tokens_averages_out():
    """Of equal states one of which is rounded, the cosine falls below 1 by half the squared rounding, at any width."""
    for dtype in HALVES:
        u = torch.randn(4000, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        fallen = 1 - torch.cosine_similarity(u, u.to(dtype).double())
        assert fallen.mean().item() == pytest.approx(state_rounding(dtype) ** 2 / 2, rel=0.1)


def test_single_precision_is_finer_than_any_difference_that_counts():
    assert cosine_resolution(torch.float32, 16) < 1e-8
