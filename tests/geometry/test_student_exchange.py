"""The permutation test of the student's states: against plain loops, exact by exchanging, honest over a family."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from anglekit.geometry import student_exchange
from anglekit.geometry.angles import layer_pairs, vertex_cosine
from anglekit.geometry.nulls import sample_angles, sample_products
from anglekit.geometry.student_exchange import (
    Exchanges,
    adjusted_p,
    draw_exchanges,
    exchange_test,
    joint_quantile,
    meeting_products,
)
from anglekit.vocabulary import COSINE_RESOLUTION


def normal(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def outcome(teacher, student, exchanges):
    products = sample_products(teacher, student)
    return exchange_test(meeting_products(teacher, student, products, exchanges), exchanges)


EXCHANGES_OF_TWO = draw_exchanges(2, np.random.default_rng(0))


def every_way(n):
    """All n! ways of one block of n, the observed one first."""
    whole = draw_exchanges(n, np.random.default_rng(0), 1)
    orders = itertools.permutations(range(n))
    ways = torch.tensor([[e * n + other for e, other in enumerate(order)] for order in orders])
    return Exchanges(whole.sizes, whole.teacher, whole.student, ways)


def plain(teacher, student, order):
    """The statistic of one way in one block by loops: difference, error and |t|, each (vertices, pairs)."""
    n, (i, k) = teacher.shape[1], layer_pairs(len(teacher))
    found = np.zeros((3, len(student), len(i)))
    for v, pair in itertools.product(range(len(student)), range(len(i))):
        a, b, s = teacher[i[pair]], teacher[k[pair]], student[v]
        table = np.array([[float(vertex_cosine(a[e], b[e], s[order[f]])) for f in range(n)] for e in range(n)])
        own, known = np.eye(n, dtype=bool), ~np.isnan(table)
        means = [np.nanmean(table, axis=1, keepdims=True), np.nanmean(table, axis=0, keepdims=True), np.nanmean(table)]
        excess = ((table - means[0] - means[1] + means[2]) * n / (n - 1))[own & known]
        error = excess.std(ddof=1) / np.sqrt(len(excess)) * (n + 1) / n
        found[:, v, pair] = excess.mean(), error, abs(excess.mean()) / np.hypot(error, COSINE_RESOLUTION)
        if known.all():
            assert excess.mean() == pytest.approx(table[own].mean() - table[~own].mean(), abs=1e-9)
    return found


@pytest.mark.parametrize("copied", [False, True])
def test_every_way_of_a_small_sample_equals_plain_loops(copied):
    teacher, student = normal(3, 4, 6, seed=1), normal(2, 4, 6, seed=2)
    if copied:  # one meeting without a direction: teacher layer 1 of example 0 with vertex 1 of example 2
        student[1, 2] = teacher[1, 0]
    exchanges = every_way(4)
    found = outcome(teacher, student, exchanges)
    orders = list(itertools.permutations(range(4)))
    expected = np.stack([plain(teacher, student, order) for order in orders])
    difference = found.summary.difference
    np.testing.assert_allclose(difference.mean, expected[0, 0], atol=1e-9)
    np.testing.assert_allclose(difference.se, expected[0, 1], atol=1e-9)
    np.testing.assert_allclose(found.statistic, expected[0, 2], rtol=1e-6)
    # Sums of float32: a large |t| has a small variance, the difference of two sums.
    np.testing.assert_allclose(found.largest, expected[1:, 2].max((1, 2)), rtol=1e-4)
    assert (difference.n_tokens == 4).all()
    pairs = list(itertools.combinations(teacher, 2))
    own = np.stack([[vertex_cosine(a, b, state).mean() for a, b in pairs] for state in student])
    np.testing.assert_allclose(found.summary.observed, own, atol=1e-9)
    np.testing.assert_allclose(found.summary.null.mean, own - expected[0, 0], atol=1e-9)


def test_whose_state_is_whose_does_not_change_the_set_of_statistics():
    """What makes the test exact: handed out otherwise, the states give the same statistics in another order."""
    teacher, student, exchanges = normal(3, 4, 6, seed=1), normal(2, 4, 6, seed=2), every_way(4)
    both = [student, student[:, [2, 0, 3, 1]]]
    found = [outcome(teacher, states, exchanges) for states in both]
    sets = [torch.cat([each.statistic.max()[None], each.largest]).sort().values for each in found]
    torch.testing.assert_close(*sets, rtol=1e-5, atol=1e-6)  # sums are float32
    assert abs(float(found[0].statistic.max() - found[1].statistic.max())) > 0.01


@pytest.mark.parametrize("n", [2, 31, 32, 33, 100, 256])
def test_states_change_places_within_blocks_of_about_sixteen(n):
    exchanges = draw_exchanges(n, np.random.default_rng(0), 20)
    sizes = exchanges.sizes.tolist()
    assert sum(sizes) == exchanges.n_examples == n
    assert sizes == [n] if n <= 32 else all(14 <= size <= 18 for size in sizes)
    for row, way in enumerate(exchanges.ways):
        teacher, student = exchanges.teacher[way], exchanges.student[way]
        assert teacher.tolist() == list(range(n))
        assert sorted(student.tolist()) == list(range(n))
        assert (student.tolist() == list(range(n))) or row > 0
    assert int(exchanges.own.sum()) == n


def test_products_of_meetings_are_those_of_the_states_that_meet():
    teacher, student = normal(3, 40, 8, seed=1).float(), normal(2, 40, 8, seed=2).float()
    exchanges = draw_exchanges(40, np.random.default_rng(0), 1)
    products = meeting_products(teacher, student, sample_products(teacher, student), exchanges)
    dense = sample_products(teacher[:, exchanges.teacher], student[:, exchanges.student])
    for name in ("cross", "vertex"):
        torch.testing.assert_close(getattr(products, name), getattr(dense, name), rtol=0, atol=1e-12)
    torch.testing.assert_close(products.teacher[..., exchanges.teacher], dense.teacher, rtol=0, atol=1e-12)
    angles = sample_angles(dense)
    found = exchange_test(products, exchanges)
    torch.testing.assert_close(found.tangential, angles.tangential[..., ~exchanges.own].mean(-1))
    away = angles.cosine[..., ~exchanges.own].mean(-1)
    assert (found.summary.null.mean - away).abs().max() < 0.02  # blocks of 20 weigh alike
    torch.testing.assert_close(found.summary.null.mean + found.summary.difference.mean, found.summary.observed)


def test_many_pairs_are_worked_on_piece_by_piece(monkeypatch):
    teacher, student = normal(4, 20, 8, seed=1), normal(5, 20, 8, seed=2)
    exchanges = draw_exchanges(20, np.random.default_rng(0), 50)
    whole = outcome(teacher, student, exchanges)
    two_pairs = 8 * 2 * 400
    monkeypatch.setattr(student_exchange, "_THREAD_PIECE_BYTES", two_pairs // torch.get_num_threads())
    parts = outcome(teacher, student, exchanges)
    torch.testing.assert_close(parts.largest, whole.largest)
    torch.testing.assert_close(parts.statistic, whole.statistic)
    torch.testing.assert_close(parts.summary.difference.se, whole.summary.difference.se)
    torch.testing.assert_close(parts.tangential, whole.tangential)


def families(runs, tie):
    """The smallest adjusted p of each of many samples, and whether any row's own interval leaves 0 out."""
    smallest, own = [], []
    rng = np.random.default_rng(5)
    for _ in range(runs):
        teacher = torch.from_numpy(rng.standard_normal((4, 40, 6)) * rng.lognormal(0, 0.5, (1, 40, 1)))
        student = torch.from_numpy(rng.standard_normal((2, 40, 6)) * rng.lognormal(0, 0.5, (1, 40, 1)))
        if tie:
            student = student + tie * teacher[:2]
        found = outcome(teacher, student, draw_exchanges(40, rng, 99))
        smallest.append(float(adjusted_p(found.statistic, found.largest).min()))
        difference = found.summary.difference
        reach = torch.from_numpy(stats.t.ppf(0.975, difference.freedom.numpy())) * difference.se
        own.append(bool((difference.mean.abs() > reach).any()))
    return np.array(smallest), np.array(own)


def test_students_that_do_not_know_whose_state_they_hold_are_rarely_called_sure():
    smallest, own = families(200, 0.0)
    assert (smallest <= 0.05).mean() <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 200)
    # The negative control: rows judged one by one, as before, are wrong in far more samples.
    assert own.mean() > 0.15
    related, _ = families(10, 4.0)
    assert (related <= 0.02).all()


def test_intervals_of_a_difference_cover_as_often_as_they_say():
    """A student that depends on the teacher, examples of different strength: the difference is not 0."""
    rng = np.random.default_rng(11)

    def drawn(n):
        length = torch.from_numpy(rng.lognormal(0, 0.6, (4, n, 1)))
        shared = torch.from_numpy(rng.standard_normal((1, n, 16)))
        states = length * (shared + torch.from_numpy(rng.standard_normal((4, n, 16))))
        return outcome(states[:3], states[3:], draw_exchanges(n, rng, 1)).summary.difference

    truth = drawn(6_000).mean
    assert truth.abs().min() > 0.01
    found = [drawn(64) for _ in range(300)]
    covered = [
        (each.mean - truth).abs() <= torch.from_numpy(stats.t.ppf(0.975, each.freedom.numpy())) * each.se
        for each in found
    ]
    assert torch.stack(covered).double().mean().item() == pytest.approx(0.95, abs=0.025)


def test_what_has_no_angle_of_its_own_is_no_part_of_the_family():
    teacher, student = normal(3, 12, 6, seed=1), normal(2, 12, 6, seed=2)
    student[0] = teacher[0]  # a copied embedding
    found = outcome(teacher, student, draw_exchanges(12, np.random.default_rng(0), 50))
    assert found.statistic[0].isnan().tolist() == [True, True, False]
    assert adjusted_p(found.statistic, found.largest)[0].isnan().tolist() == [True, True, False]
    assert found.summary.difference.n_tokens[0].tolist() == [0, 0, 12]
    assert found.largest.isfinite().all()
    alone = outcome(teacher[1:], student[:1], draw_exchanges(12, np.random.default_rng(0), 50))
    torch.testing.assert_close(alone.statistic[0, 0], found.statistic[0, 2])


def test_nothing_below_the_states_precision_is_sure():
    """Every example's own cosine is larger by 1e-9, without exception: the difference is rounding all the same."""
    teacher = normal(3, 1, 8, seed=1).expand(3, 30, 8) + 1e-10 * normal(3, 30, 8, seed=2)
    student = normal(1, 1, 8, seed=3).expand(1, 30, 8) + 1e-9 * teacher.mean(0) + 1e-10 * normal(1, 30, 8, seed=4)
    for states in (student, student[:, :1].expand(1, 30, 8)):
        found = outcome(teacher, states, draw_exchanges(30, np.random.default_rng(0), 99))
        assert (adjusted_p(found.statistic, found.largest) > 0.05).all()
        assert found.statistic.max() < 0.01
    # The negative control: the same relation at a size that states can hold is found.
    teacher = normal(3, 1, 8, seed=1).expand(3, 30, 8) + 0.1 * normal(3, 30, 8, seed=2)
    student = normal(1, 1, 8, seed=3).expand(1, 30, 8) + teacher.mean(0)
    found = outcome(teacher, student, draw_exchanges(30, np.random.default_rng(0), 99))
    assert adjusted_p(found.statistic, found.largest).min() == 0.01


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**31), width=st.sampled_from([3, 16, 300]))
def test_two_examples_say_nothing(seed, width):
    """There are two ways to hand out two states, so that half of those that are drawn are the observed one."""
    found = outcome(normal(4, 2, width, seed=seed), normal(3, 2, width, seed=seed + 1), EXCHANGES_OF_TWO)
    assert bool((adjusted_p(found.statistic, found.largest) > 0.4).all())
    assert bool((found.statistic < joint_quantile(found.largest)).all())


def test_examples_whose_students_know_their_teacher_do_say_something():
    teacher = normal(4, 24, 16, seed=3)
    student = teacher[:3] + 0.1 * normal(3, 24, 16, seed=4)
    found = outcome(teacher, student, draw_exchanges(24, np.random.default_rng(0)))
    assert bool((adjusted_p(found.statistic, found.largest) < 0.01).any())
    assert bool((found.statistic > joint_quantile(found.largest)).any())


@given(
    largest=st.lists(st.floats(0, 5), min_size=1, max_size=60),
    statistic=st.floats(0, 6),
    level=st.sampled_from([0.05, 0.1, 0.5]),
)
@settings(max_examples=100, deadline=None)
def test_a_p_value_counts_the_ways_and_agrees_with_the_quantile(largest, statistic, level):
    drawn = torch.tensor(largest, dtype=torch.float64)
    p = float(adjusted_p(torch.tensor(statistic, dtype=torch.float64), drawn))
    at_least = sum(each >= statistic * (1 - 1e-5) for each in largest)
    assert p == pytest.approx((1 + at_least) / (1 + len(largest)))
    quantile = joint_quantile(drawn, level)
    if abs(statistic - quantile) > 1e-4:
        assert (p <= level + 1e-12) == (statistic > quantile)


@pytest.mark.parametrize("power", [100, -100])
def test_lengths_of_1e30_and_1e_minus_30_change_nothing(power):
    teacher, student = normal(3, 20, 8, seed=1).float(), normal(2, 20, 8, seed=2).float()
    exchanges = draw_exchanges(20, np.random.default_rng(0), 20)
    one, other = (outcome(scale * teacher, scale * student, exchanges) for scale in (1.0, 2.0**power))
    assert torch.equal(one.statistic, other.statistic)
    assert torch.equal(one.largest, other.largest)
