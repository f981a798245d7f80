"""The streamed sums against a dense float64 oracle, and the properties that a stream must have."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anglekit.analysis.tables import angle_rows
from anglekit.geometry.accumulator import SumsAccumulator
from anglekit.geometry.angles import angle_degrees, tangential_cosine, vertex_cosine
from anglekit.geometry.sums import GeometrySums, cosine_standard_error
from anglekit.results.rows import data_frame

LAYERS, VERTICES, WIDTH = 4, 2, 6


def states(lengths, seed=0, layers=LAYERS, width=WIDTH):
    generator = torch.Generator().manual_seed(seed)
    n = sum(lengths)
    teacher = [torch.randn(n, width, generator=generator) + 0.5 for _ in range(layers)]
    student = [torch.randn(n, width, generator=generator) for _ in range(VERTICES)]
    example = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    return teacher, student, example


def summed(teacher, student, example, first=0, **options):
    accumulator = SumsAccumulator(len(teacher), len(student), teacher[0].shape[1], **options)
    if len(example):
        accumulator.update(teacher, student, example, torch.arange(int(example.max()) + 1) + first)
    return accumulator.state()


def part(teacher, student, example, examples):
    keep = torch.isin(example, torch.tensor(examples))
    renumbered = example[keep] - min(examples)
    return [t[keep] for t in teacher], [s[keep] for s in student], renumbered


def assert_same(a, b, rtol=1e-9):
    for name in ("count", "acute", "histogram", "example_count", "zero_direction"):
        assert torch.equal(getattr(a.angles, name), getattr(b.angles, name)), name
    for name in (
        "cosine",
        "cosine_squared",
        "angle",
        "tangential",
        "tangential_angle",
        "null",
        "example_square",
        "example_product",
    ):
        torch.testing.assert_close(getattr(a.angles, name), getattr(b.angles, name), rtol=rtol, atol=1e-9)
    torch.testing.assert_close(a.teacher_student.product, b.teacher_student.product, rtol=rtol, atol=1e-9)
    torch.testing.assert_close(a.teacher.state, b.teacher.state, rtol=rtol, atol=1e-9)
    assert torch.equal(a.examples.example, b.examples.example)
    torch.testing.assert_close(a.examples.cosine, b.examples.cosine, rtol=rtol, atol=1e-9)


def test_every_statistic_equals_the_dense_oracle():
    teacher, student, example = states([3, 1, 5, 2])
    table = data_frame([angle_rows(summed(teacher, student, example), {"student": "s"}, [0, 1], [0, 1, 2, 3])])
    for _, row in table.iterrows():
        t_i, t_k, s = teacher[row.teacher_i], teacher[row.teacher_k], student[row.vertex]
        u, v = (t_i.double() - s.double()).numpy(), (t_k.double() - s.double()).numpy()
        cosine = (u * v).sum(1) / np.linalg.norm(u, axis=1) / np.linalg.norm(v, axis=1)
        squares = [x.double().square().sum(1).numpy() for x in (s, t_i, t_k)]
        chance = squares[0] / np.sqrt((squares[0] + squares[1]) * (squares[0] + squares[2]))
        assert row.mean_cosine == pytest.approx(cosine.mean(), abs=1e-12)
        assert row.std_cosine == pytest.approx(cosine.std(), abs=1e-9)
        assert row.mean_angle_degrees == pytest.approx(np.degrees(np.arccos(cosine)).mean(), abs=1e-9)
        assert row.acute_fraction == pytest.approx((cosine > 0).mean())
        assert row.null_cosine == pytest.approx(chance.mean(), abs=1e-12)
        assert row.mean_tangential_cosine == pytest.approx(float(tangential_cosine(t_i, t_k, s).mean()), abs=1e-12)
        tangential = tangential_cosine(t_i, t_k, s).numpy()
        assert row.mean_tangential_angle_degrees == pytest.approx(np.degrees(np.arccos(tangential)).mean(), abs=1e-9)
        y = np.array([cosine[example.numpy() == e].sum() for e in range(4)])
        n = np.array([3, 1, 5, 2])
        residual = y - cosine.mean() * n
        assert row.se_cosine == pytest.approx(np.sqrt(4 / 3 * (residual**2).sum()) / n.sum(), abs=1e-12)
        assert (row.n_tokens, row.n_examples) == (11, 4)


def test_histogram_equals_numpy():
    teacher, student, example = states([40, 30])
    sums = summed(teacher, student, example)
    cosine = vertex_cosine(teacher[0], teacher[2], student[1]).numpy()
    expected = np.histogram(cosine, bins=1000, range=(-1, 1))[0]
    assert np.array_equal(sums.angles.histogram[1, 1].numpy(), expected)
    assert int(sums.angles.histogram.sum()) == int(sums.angles.count.sum())


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=2, max_size=6), st.data())
def test_any_split_and_any_merge_order_gives_the_whole(lengths, data):
    teacher, student, example = states(lengths, seed=sum(lengths))
    whole = summed(teacher, student, example)
    cut = data.draw(st.integers(1, len(lengths) - 1))
    left = summed(*part(teacher, student, example, list(range(cut))))
    right = summed(*part(teacher, student, example, list(range(cut, len(lengths)))), first=cut)
    empty = GeometrySums.zeros(LAYERS, VERTICES, WIDTH)
    assert_same(whole, left + right)
    assert_same(whole, right + (empty + left))
    assert_same(whole, (right + left) + empty)


def test_half_the_stream_is_not_the_whole():
    teacher, student, example = states([3, 4])
    half = summed(*part(teacher, student, example, [0]))
    with pytest.raises(AssertionError):
        assert_same(summed(teacher, student, example), half)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.floats(1e-3, 1e3))
def test_rotation_and_scale_change_no_angle(seed, scale):
    teacher, student, example = states([4, 3], seed=seed)
    generator = torch.Generator().manual_seed(seed)
    rotation = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=generator, dtype=torch.float64))[0]
    turned = [[scale * x.double() @ rotation for x in side] for side in (teacher, student)]
    a, b = summed(teacher, student, example).angles, summed(*turned, example).angles
    for name in ("cosine", "tangential", "tangential_angle", "null", "angle"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=1e-8, atol=1e-8)


def test_moving_only_the_student_changes_the_angles():
    teacher, student, example = states([4, 3])
    moved = [s + 1 for s in student]
    a, b = summed(teacher, student, example), summed(teacher, moved, example)
    assert (a.angles.cosine - b.angles.cosine).abs().max() > 0.1


def test_a_vertex_on_a_teacher_layer_is_left_out_and_counted():
    teacher, student, example = states([5, 5])
    student[0] = teacher[0].clone()
    sums = summed(teacher, student, example)
    assert sums.angles.count[0].tolist() == [0, 0, 0, 10, 10, 10]
    assert sums.angles.zero_direction[0].tolist() == [10, 0, 0, 0]
    assert int(sums.angles.zero_direction[1].sum()) == 0
    official = summed(teacher, student, example, epsilon=1e-6)
    assert official.angles.count[0].tolist() == [10] * 6
    assert official.angles.cosine[0, :3].tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_state_that_is_not_finite_is_counted_and_hurts_no_other(value):
    teacher, student, example = states([4, 4])
    clean = summed(teacher, student, example)
    teacher[2][3, 1] = value
    sums = summed(teacher, student, example)
    assert sums.teacher.n_nonfinite.tolist() == [0, 0, 1, 0]
    assert int(sums.n_complete) == 7
    untouched, touched = [0, 2, 4], [1, 3, 5]  # pairs (0,1) (0,3) (1,3) and those of layer 2
    assert torch.equal(sums.angles.count[0, untouched], torch.tensor([8, 8, 8]))
    assert torch.equal(sums.angles.count[0, touched], torch.tensor([7, 7, 7]))
    assert torch.equal(sums.angles.cosine[:, untouched], clean.angles.cosine[:, untouched])
    assert bool(torch.isfinite(sums.angles.cosine).all())
    assert bool(torch.isfinite(sums.teacher_student.product).all())


def test_zero_states_are_counted():
    teacher, student, example = states([3])
    student[1][0] = 0
    sums = summed(teacher, student, example)
    assert sums.student.n_zero.tolist() == [0, 1]
    assert sums.teacher_student.n_cosine[0].tolist() == [3, 2]
    assert bool(torch.isfinite(sums.angles.tangential).all())


@pytest.mark.parametrize("case", ["near", "dominant"])
def test_hard_cases_keep_five_digits_in_float32(case):
    generator = torch.Generator().manual_seed(1)
    base = torch.randn(32, 768, generator=generator)
    if case == "near":
        teacher = [base + 1e-3 * torch.randn(32, 768, generator=generator) for _ in range(5)]
        student = [base + 1e-3 * torch.randn(32, 768, generator=generator)]
    else:
        teacher = [torch.randn(32, 768, generator=generator) for _ in range(5)]
        student = [torch.randn(32, 768, generator=generator)]
        for state in (*teacher, *student):
            state[:, 5] *= 1000
    for token in range(0, 32, 7):
        one = [t[token : token + 1] for t in teacher], [s[token : token + 1] for s in student]
        sums = summed(*one, torch.zeros(1, dtype=torch.int64)).angles
        for row, (i, k) in enumerate([(0, 1), (0, 2), (0, 3), (0, 4), (1, 2)]):
            triple = one[0][i], one[0][k], one[1][0]
            u, v = (x.double() - triple[2].double() for x in triple[:2])
            assert float(sums.cosine[0, row]) == pytest.approx(float(vertex_cosine(*triple)), abs=1e-5)
            assert float(sums.tangential[0, row]) == pytest.approx(float(tangential_cosine(*triple)), abs=1e-5)
            assert float(sums.angle[0, row]) == pytest.approx(float(angle_degrees(u, v)), abs=1e-3)


def test_small_angles_keep_their_digits():
    u = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    v = torch.tensor([[1.0, 1e-9]], dtype=torch.float64)
    assert float(angle_degrees(u, v)) == pytest.approx(np.degrees(1e-9), rel=1e-9)
    assert float(angle_degrees(u, -v)) == pytest.approx(180, abs=1e-6)
    assert bool(angle_degrees(u, 0 * v).isnan())


def test_an_example_in_two_states_is_refused():
    teacher, student, example = states([3])
    a = summed(teacher, student, example)
    with pytest.raises(ValueError, match="both states"):
        a + summed(teacher, student, example)


def test_nothing_and_one_example_have_no_standard_error():
    empty = GeometrySums.zeros(LAYERS, VERTICES, WIDTH)
    assert np.isnan(cosine_standard_error(empty.angles)).all()
    assert np.isnan(cosine_standard_error(summed(*states([4])).angles)).all()
    assert np.isnan(angle_rows(empty, {"student": "s"}, [0, 1], [0, 1, 2, 3])["mean_cosine"]).all()


def test_projections_equal_projecting_beforehand():
    teacher, _, example = states([4, 2])
    generator = torch.Generator().manual_seed(3)
    narrow = [torch.randn(6, 3, generator=generator) for _ in range(VERTICES)]
    maps = [torch.randn(WIDTH, 3, generator=generator, dtype=torch.float64) for _ in range(VERTICES)]
    inside = summed(teacher, narrow, example, student_width=3, projections=maps)
    before = summed(teacher, [s.double() @ m.T for s, m in zip(narrow, maps, strict=True)], example)
    torch.testing.assert_close(inside.angles.cosine, before.angles.cosine)
    assert inside.student.state.shape == (VERTICES, 3)


@pytest.mark.parametrize("power", [100, -100])
def test_lengths_of_1e30_and_1e_minus_30_change_no_angle(power):
    """A power of two scales float32 states exactly; their squares would overflow float32, or vanish in it."""
    teacher, student, example = states([3, 1, 5, 2])
    student[1] = teacher[2].clone()  # no direction from vertex 1 to layer 2, whatever the scale
    scale = 2.0**power
    plain = summed(teacher, student, example)
    scaled = summed([scale * state for state in teacher], [scale * state for state in student], example)
    for name, tensor in plain.angles.tensors().items():
        assert torch.equal(tensor, scaled.angles.tensors()[name]), name
    assert int(plain.angles.zero_direction.sum()) == 11
    assert scaled.teacher.n_zero.sum() == scaled.teacher.n_nonfinite.sum() == 0
    assert float((scale * teacher[0]).square().sum()) in (0.0, float("inf"))


def test_layers_that_are_constant_over_tokens_have_the_angle_of_their_one_state():
    teacher, student, example = states([3, 2], layers=3)
    teacher, student = ([side[:1].expand(5, -1).clone() for side in both] for both in (teacher, student))
    sums = summed(teacher, student, example)
    table = data_frame([angle_rows(sums, {"student": "s"}, [0, 1], [0, 1, 2])])
    for _, row in table.iterrows():
        t_i, t_k, s = teacher[row.teacher_i][0], teacher[row.teacher_k][0], student[row.vertex][0]
        assert row.mean_cosine == pytest.approx(float(vertex_cosine(t_i, t_k, s)), abs=1e-12)
        assert row.mean_angle_degrees == pytest.approx(float(angle_degrees(t_i - s, t_k - s)), abs=1e-5)
    assert table["std_cosine"].max() < 1e-7
    assert table["se_cosine"].max() < 1e-7
