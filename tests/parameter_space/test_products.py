"""Cosines of mean gradients against plain algebra, their intervals against the truth, and projections."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anglekit.parameter_space.products import (
    GradientProducts,
    combinations,
    grace_score,
    gradient_cosines,
    gradient_products,
)
from anglekit.parameter_space.projection import Projection


def drawn(seed: int, groups: int, losses: int, width: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(losses, width, generator=generator, dtype=torch.float64) for _ in range(groups)]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(3, 6), st.integers(2, 4), st.integers(2, 300))
def test_products_are_those_of_the_gradients(seed, groups, losses, width):
    made = drawn(seed, groups, losses, width)
    found = gradient_products(made)
    summed = sum(made).numpy()
    np.testing.assert_allclose(found.total, summed @ summed.T, atol=1e-9)
    for place, each in enumerate(made):
        np.testing.assert_allclose(found.crossed[place], summed @ each.numpy().T, atol=1e-9)
        np.testing.assert_allclose(found.own[place], each.numpy() @ each.numpy().T, atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(4, 7))
def test_the_jackknife_is_that_of_groups_left_out(seed, groups):
    made = drawn(seed, groups, 2, 40)
    mean = torch.randn(2, 40, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64) * 2
    made = [each + mean for each in made]
    found = gradient_cosines(gradient_products(made))

    def expected(kept: list[torch.Tensor]) -> float:
        number = len(kept)
        pairs = [(a, b) for a in range(number) for b in range(number) if a != b]
        over = {
            (v, w): np.mean([float(kept[a][v] @ kept[b][w]) for a, b in pairs]) for v, w in ((0, 0), (0, 1), (1, 1))
        }
        return over[0, 1] / np.sqrt(over[0, 0] * over[1, 1])

    assert found.expected[0, 1] == pytest.approx(expected(made), abs=1e-9)
    left_out = [expected(made[:place] + made[place + 1 :]) for place in range(groups)]
    error = np.sqrt((groups - 1) / groups * ((np.array(left_out) - np.mean(left_out)) ** 2).sum())
    assert found.standard_error[0, 1] == pytest.approx(error, abs=1e-9)


def test_intervals_hold_the_truth_where_the_plain_cosine_does_not():
    """Two losses whose noise is shared: their expected gradients are at right angles, those of few examples are not."""
    rng = np.random.default_rng(0)
    groups, width, runs = 16, 60, 400
    truth = np.zeros((2, width))
    truth[0, 0] = truth[1, 1] = 1.0
    held, plain = 0, []
    for _ in range(runs):
        noise = rng.normal(size=(groups, 1, width)) * 0.5 + rng.normal(size=(groups, 2, width)) * 0.25
        found = gradient_cosines(gradient_products(list(torch.from_numpy(truth + noise))))
        held += found.lower[0, 1] <= 0.0 <= found.upper[0, 1]
        plain.append(found.cosine[0, 1])
    assert 0.92 <= held / runs <= 0.985
    # The noise that both share draws the plain cosine from 0 to 0.4.
    assert np.mean(plain) > 0.3


def test_a_gradient_below_the_noise_has_no_cosine():
    rng = np.random.default_rng(3)
    noise = torch.from_numpy(rng.normal(size=(4, 2, 200)))
    noise = noise - noise.mean(0)  # whose mean is 0: products of different groups are below it
    found = gradient_cosines(gradient_products(list(noise)))
    assert np.isnan(found.expected[0, 1])
    assert (found.lower[0, 1], found.upper[0, 1]) == (-1.0, 1.0)


def test_sums_of_losses_have_the_products_of_summed_gradients():
    made = drawn(5, 4, 3, 30)
    names, weights = combinations(["ce", "kl", "hidden"], {"task": {"ce": 1.0, "kl": 2.0}})
    assert names == ["task", "ce", "kl", "hidden"]
    found = gradient_products(made).combined(weights)
    by_hand = [torch.cat([(each[0] + 2 * each[1])[None], each]) for each in made]
    expected = gradient_products(by_hand)
    for name in ("total", "crossed", "own"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=1e-9)


def test_products_of_parts_add_up():
    made = drawn(6, 3, 2, 50)
    whole = gradient_products(made)
    parts = [gradient_products([each[:, own] for each in made]) for own in (slice(0, 20), slice(20, 50))]
    np.testing.assert_allclose((parts[0] + parts[1]).crossed, whole.crossed, atol=1e-9)


class TestProjection:
    @staticmethod
    def inner(x: torch.Tensor, y: torch.Tensor, dimensions: int, seed: int) -> float:
        projection = Projection(dimensions, seed)
        made = [projection([(0, vector[:70].float()), (1, vector[70:].float())]) for vector in (x, y)]
        return float(made[0] @ made[1])

    def test_inner_products_are_unbiased_and_within_their_bound(self):
        x, y = drawn(7, 1, 2, 500)[0]
        y = y + x
        x[3], y[3] = 12.0, -9.0  # one weight that dominates
        dimensions, runs = 32, 600
        found = np.array([self.inner(x, y, dimensions, seed) for seed in range(runs)])
        truth = float(x @ y)
        variance = float((x @ x) * (y @ y) + truth**2) / dimensions
        assert abs(found.mean() - truth) < 4 * np.sqrt(variance / runs)
        assert found.var() < 1.25 * variance
        # Without signs, what meets in one place adds up: the control is biased.
        folded = [torch.nn.functional.pad(each.abs(), (0, 12)).view(-1, dimensions).sum(0) for each in (x, y)]
        assert abs(float(folded[0] @ folded[1]) - truth) > 20 * np.sqrt(variance / runs)

    def test_weights_that_stand_in_step_with_the_pieces_keep_to_the_bound(self):
        """Weights that all stand first in their piece meet no oftener than others."""
        dimensions, runs = 8, 400
        x, y = torch.zeros(2, 20 * 16 * dimensions, dtype=torch.float64)
        x[:: 16 * dimensions], y[:: 16 * dimensions] = drawn(10, 1, 2, 20)[0]
        found = np.array([self.inner(x, y, dimensions, seed) for seed in range(runs)])
        variance = float((x @ x) * (y @ y) + (x @ y) ** 2) / dimensions
        assert abs(found.mean() - float(x @ y)) < 4 * np.sqrt(variance / runs)
        assert found.var() < 1.25 * variance

    def test_cosines_keep_to_their_stated_error(self):
        x, y = drawn(8, 1, 2, 3000)[0]
        y = 0.6 * x + 0.8 * y
        truth = float(x @ y / (x.norm() * y.norm()))
        found = [
            self.inner(x, y, 100, seed) / np.sqrt(self.inner(x, x, 100, seed) * self.inner(y, y, 100, seed))
            for seed in range(300)
        ]
        stated = (1 - truth**2) / np.sqrt(100)
        assert 0.8 * stated < np.std(found) < 1.2 * stated

    @settings(max_examples=30, deadline=None)
    @given(st.integers(1, 40), st.integers(1, 90), st.integers(0, 99))
    def test_each_weight_goes_to_one_place(self, dimensions, length, seed):
        projection = Projection(dimensions, seed)
        for weight in range(length):
            vector = torch.zeros(length)
            vector[weight] = 3.0
            into = projection([(4, vector)])
            assert sorted(into.abs().tolist()) == [*[0.0] * (dimensions - 1), 3.0]


def test_grace_is_low_where_examples_agree():
    rng = np.random.default_rng(1)
    alike = rng.normal(size=(1, 12)) + 0.001 * rng.normal(size=(60, 12))
    apart = rng.normal(size=(60, 12))
    lengths = np.linalg.norm(apart, axis=1, keepdims=True)
    scored = [grace_score(each) for each in (alike / np.linalg.norm(alike, axis=1, keepdims=True), apart / lengths)]
    assert scored[0] < 0.5 * scored[1]
    # Twice the length is four times the second moment of the tenth that is left out, and nothing of the others.
    assert grace_score(2 * apart) == pytest.approx(4 * grace_score(apart))


def test_grace_is_the_trace_that_it_says():
    rows = np.random.default_rng(2).normal(size=(20, 3))
    expected = []
    for split in range(4):
        order = np.random.default_rng(split).permutation(20)
        tested, others = rows[order[:2]], rows[order[2:]]
        scaled = others / np.linalg.norm(others, axis=1, keepdims=True)
        moment = scaled.T @ scaled / 18
        smoothed = 0.999 * moment + 0.001 * np.trace(moment) / 3 * np.eye(3)
        expected.append(np.trace(np.linalg.inv(smoothed) @ (tested.T @ tested / 2)))
    assert grace_score(rows, splits=4) == pytest.approx(np.mean(expected))


def test_two_groups_give_no_interval():
    found = gradient_cosines(gradient_products(drawn(9, 2, 2, 5)))
    assert np.isnan(found.lower).all()
    assert np.isfinite(found.cosine).all()
    assert isinstance(gradient_products(drawn(9, 2, 2, 5)), GradientProducts)
