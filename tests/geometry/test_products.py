"""Inner products token by token against a dense oracle, whatever the numbers of layers that decide how they are cut."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anglekit.geometry.products import take_products
from anglekit.runtime.workspace import Workspace


def states(layers, tokens, width, seed):
    return torch.randn(layers, tokens, width, generator=torch.Generator().manual_seed(seed))


def dense(a, b):
    return torch.einsum("itd,ktd->ikt", a.double(), b.double())


def assert_equal(got, expected):
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 9),
    st.lists(st.integers(1, 9), min_size=1, max_size=2),
    st.sampled_from([1, 7, 384, 800, 1100, 2100]),
    st.integers(1, 40),
    st.integers(0, 2**31),
)
def test_products_and_sums_equal_the_dense_ones(layers, vertices, width, n_tokens, seed):
    teacher = states(layers, n_tokens + 3, width, seed)
    students = [states(n, n_tokens + 3, width, seed + n) for n in vertices]
    run = slice(2, n_tokens + 2)
    workspace = Workspace()
    for _ in range(2):  # the second time in memory that holds the first
        found = take_products(teacher, students, [None] * len(students), run, workspace)
    for products, student in zip(found, students, strict=True):
        t, s = teacher[:, run], student[:, run]
        assert_equal(products.teacher, dense(t, t))
        assert_equal(products.cross, dense(t, s))
        assert_equal(products.vertex, dense(s, s))
        assert products.student is products.vertex
        assert_equal(products.rows, torch.cat([dense(t, s), dense(s, s)]))
        assert_equal(products.teacher_sum, t.double().sum(1))
        assert_equal(products.student_sum, s.double().sum(1))


@pytest.mark.parametrize("vertices", [1, 3, 4, 6, 7])
def test_projected_students_have_products_in_both_widths(vertices):
    teacher, student = states(5, 30, 16, 0), states(vertices, 30, 6, 1)
    matrices = [torch.randn(16, 6, dtype=torch.float64) for _ in range(vertices)]
    (products,) = take_products(teacher, [student], [matrices], slice(0, 30), Workspace())
    projected = torch.stack([state.double() @ matrix.T for state, matrix in zip(student, matrices, strict=True)])
    assert_equal(products.cross, dense(teacher, projected))
    assert_equal(products.vertex, dense(projected, projected))
    assert_equal(products.student, dense(student, student))
    assert_equal(products.student_sum, student.double().sum(1))


def test_another_student_has_other_products():
    teacher, student = states(5, 30, 16, 0), states(3, 30, 16, 1)
    (right,) = take_products(teacher, [student], [None], slice(0, 30), Workspace())
    (wrong,) = take_products(teacher, [student.flip(0)], [None], slice(0, 30), Workspace())
    assert (right.cross - wrong.cross).abs().max() > 1
