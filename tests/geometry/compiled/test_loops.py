"""The loops that numba compiles say what the tensor operations say, which are held against float64 oracles."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anglekit.geometry.accumulator import SumsAccumulator
from anglekit.geometry.compiled import choice
from anglekit.geometry.compiled.choice import in_loops, in_threads
from anglekit.geometry.nulls import sample_products
from anglekit.geometry.student_exchange import draw_exchanges, exchange_test, meeting_products

pytest.importorskip("numba")
from anglekit.geometry.compiled import loops

CPU = torch.device("cpu")


@pytest.fixture
def taken(monkeypatch):
    """Return what has everything taken in loops, or by tensor operations."""

    def choose(wanted):
        monkeypatch.setattr(choice, "COMPILED_ANGLES", 1 if wanted else 1 << 40)

    return choose


def states(layers, vertices, tokens, width=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shared = torch.randn(1, tokens, width, generator=generator)
    teacher = torch.randn(layers, tokens, width, generator=generator) + shared
    return teacher, torch.randn(vertices, tokens, width, generator=generator) + shared


def summed(teacher, student, lengths, **options):
    accumulator = SumsAccumulator(len(teacher), len(student), teacher.shape[-1], **options)
    first = 0
    # Two batches, each of several examples.
    for part in (lengths[: len(lengths) // 2], lengths[len(lengths) // 2 :]):
        start = sum(lengths[:first])
        here = slice(start, start + sum(part))
        example = torch.repeat_interleave(torch.arange(len(part)), torch.tensor(part, dtype=torch.int64))
        rows = torch.arange(first, first + len(part))
        accumulator.update(teacher[:, here], student[:, here], example, rows)
        first += len(part)
    return accumulator.state().tensors()


def assert_same_sums(found, expected):
    assert found.keys() == expected.keys()
    for name, value in found.items():
        close = 1e-9 if value.is_floating_point() else 0.0
        torch.testing.assert_close(
            value, expected[name], rtol=close, atol=close, msg=lambda text, n=name: f"{n}: {text}"
        )


def test_the_arc_sine_is_numpys_to_the_last_digits():
    edges = [-1.0, -0.5, -1e-300, 0.0, 1e-300, 1e-8, 0.5, np.nextafter(0.5, 1), np.nextafter(1.0, 0), 1.0]
    x = np.concatenate([edges, np.random.default_rng(0).uniform(-1, 1, 20_000)])
    found = np.array([loops.arc_sine(value) for value in x])
    assert np.abs(found - np.arcsin(x)).max() < 4e-16
    # What the same polynomial gives where it does not hold.
    z = 0.81
    assert abs(0.9 + 0.9 * z * (0.1666666666666665 + z * 0.07500000000020764) - np.arcsin(0.9)) > 1e-2


@settings(max_examples=25, deadline=None)
@given(
    layers=st.integers(2, 5),
    vertices=st.integers(1, 3),
    lengths=st.lists(st.integers(1, 9), min_size=2, max_size=8),
    seed=st.integers(0, 99),
)
def test_sums_in_loops_are_those_of_tensor_operations(layers, vertices, lengths, seed):
    teacher, student = states(layers, vertices, sum(lengths), seed=seed)
    with pytest.MonkeyPatch.context() as patch:
        found = []
        for least in (1, 1 << 40):
            patch.setattr(choice, "COMPILED_ANGLES", least)
            found.append(summed(teacher, student, lengths))
    assert_same_sums(*found)
    assert float(found[0]["angles.tangential"].abs().max()) > 0


def test_sums_of_runs_that_cut_examples_and_of_several_threads(taken):
    lengths = [130, 1, 90, 300, 2]
    teacher, student = states(6, 4, sum(lengths))
    taken(wanted=True)
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(summed(teacher, student, lengths))
    finally:
        torch.set_num_threads(before)
    taken(wanted=False)
    assert_same_sums(found[0], summed(teacher, student, lengths))
    for name, value in found[0].items():
        assert torch.equal(value, found[1][name]), name


def test_a_vertex_that_loses_an_angle_is_left_to_tensor_operations(taken, monkeypatch):
    teacher, student = states(5, 3, 40)
    student[1, 7] = teacher[2, 7]  # no direction
    at, own = [], loops.add_angles

    def add_angles(*given):
        at.append(given[2])
        own(*given)

    monkeypatch.setattr(loops, "add_angles", add_angles)
    taken(wanted=True)
    found = summed(teacher, student, [10, 10, 20])
    assert {tuple(vertices) for vertices in at} == {(0, 2), (0, 1, 2)}  # the second batch has lost nothing
    taken(wanted=False)
    expected = summed(teacher, student, [10, 10, 20])
    assert_same_sums(found, expected)
    assert int(expected["angles.zero_direction"].sum()) == 1


def test_not_finite_states_are_left_to_tensor_operations(taken):
    teacher, student = states(4, 2, 30)
    teacher[1, 3] = torch.nan
    taken(wanted=True)
    found = summed(teacher, student, [10, 5, 15])
    taken(wanted=False)
    assert_same_sums(found, summed(teacher, student, [10, 5, 15]))


@pytest.mark.parametrize("n", [2, 3, 7, 36, 40, 47])
def test_the_exchange_test_in_loops(n, taken):
    """Blocks of one size and of two, numbers of examples with any rest of six, more pairs than one table holds."""
    teacher, student = states(14, 3, n)
    student[2] = teacher[:3].mean(0) + 0.1 * student[2]
    exchanges = draw_exchanges(n, np.random.default_rng(0), 60)
    products = meeting_products(teacher, student, sample_products(teacher, student), exchanges)
    taken(wanted=True)
    found = exchange_test(products, exchanges)
    taken(wanted=False)
    expected = exchange_test(products, exchanges)
    torch.testing.assert_close(found.summary.observed, expected.summary.observed, rtol=0, atol=1e-12)
    for part in ("null", "difference"):
        for name in ("mean", "se", "n_tokens", "freedom"):
            of = [getattr(getattr(each.summary, part), name) for each in (found, expected)]
            torch.testing.assert_close(*of, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.tangential, expected.tangential, rtol=0, atol=1e-12)
    # Sums of float32: a large |t| has a small variance, the difference of two sums.
    torch.testing.assert_close(found.statistic, expected.statistic, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(found.largest, expected.largest, rtol=1e-3, atol=1e-6)
    assert len(found.largest) == 60


def test_the_exchange_test_of_a_lost_direction(taken):
    teacher, student = states(5, 3, 20)
    student[1, 4] = teacher[2, 4]
    exchanges = draw_exchanges(20, np.random.default_rng(0), 40)
    products = meeting_products(teacher, student, sample_products(teacher, student), exchanges)
    taken(wanted=True)
    found = exchange_test(products, exchanges)
    taken(wanted=False)
    expected = exchange_test(products, exchanges)
    assert (found.summary.difference.n_tokens[1] == 19).any()
    torch.testing.assert_close(found.summary.difference.mean, expected.summary.difference.mean, rtol=0, atol=1e-9)
    torch.testing.assert_close(found.largest, expected.largest, rtol=1e-4, atol=1e-6)


def test_loops_are_chosen_for_many_angles_on_a_processor(monkeypatch):
    assert in_loops(21, 80, CPU, 0.0)
    assert not in_loops(3, 13, CPU, 0.0)
    assert not in_loops(21, 80, torch.device("cuda"), 0.0)
    assert not in_loops(21, 80, CPU, 1e-6)  # the official reading divides otherwise
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert not in_loops(21, 80, CPU, 0.0)


def test_what_a_thread_raises_is_raised():
    def fail(numbers):
        raise ValueError(f"of {numbers[-1]}")

    with pytest.raises(ValueError, match="of "):
        in_threads(fail, np.arange(5))
