"""Estimates over crossed seeds and examples: against dense oracles, and what their intervals cover."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from anglekit.comparison.crossed import (
    LEAST_SEEDS,
    Estimate,
    _few_examples,
    correlation_of,
    estimate_contrast,
    influence,
    mixed_quantile,
    simultaneous_quantile,
    weighted_means,
)

TRUTH = 0.3
REPLICATIONS = 800
#: Two standard errors of a rate near 0.97 in so many runs.
NOISE = 2 * (0.97 * 0.03 / REPLICATIONS) ** 0.5


def draw(
    rng: np.random.Generator, seeds: int, examples: int, effect: float = 1.0, interaction: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Return values of two strategies (2, seeds, examples), and the true difference of these students.

    Seeds and examples have effects in common to both, which cancel, and effects on the difference.
    """
    common = 3 * rng.normal(size=(1, seeds, 1)) + 3 * rng.normal(size=(1, 1, examples))
    of_seeds = effect * rng.normal(size=(seeds, 1))
    difference = TRUTH + of_seeds + rng.normal(size=(1, examples)) + interaction * rng.normal(size=(seeds, examples))
    return np.concatenate([common + difference, common + np.zeros((1, seeds, examples))]), TRUTH + of_seeds.mean()


@functools.cache
def coverage(seeds: int, examples: int = 30, effect: float = 1.0, interaction: float = 1.0) -> dict[str, float]:
    """Return the share of intervals that hold the truth: as they are, and with seeds taken as given."""
    rng = np.random.default_rng(5)
    hits = {"over seeds": 0, "these students": 0, "seeds held": 0}
    for _ in range(REPLICATIONS):
        values, own = draw(rng, seeds, examples, effect, interaction)
        found = estimate_contrast(values, None, [1, -1])
        low, high = found.interval(0.95)
        hits["over seeds"] += low <= TRUTH <= high
        hits["these students"] += low <= own <= high
        half = stats.t.ppf(0.975, examples - 1) * np.sqrt(found.example_variance)
        hits["seeds held"] += abs(found.value - TRUTH) <= half
    return {name: count / REPLICATIONS for name, count in hits.items()}


# ---- intervals ----


@pytest.mark.parametrize(("seeds", "effect"), [(3, 1.0), (5, 1.0), (3, 0.0), (5, 0.3)])
def test_intervals_over_seeds_cover_93_to_97(seeds: int, effect: float) -> None:
    """Cochran's weighting is widest where both parts matter: 97.1% with three seeds, in many more runs than here."""
    assert 0.93 <= coverage(seeds, effect=effect)["over seeds"] <= 0.97 + NOISE


def test_the_interaction_counts_once() -> None:
    """With interaction alone, counting it in both parts would cover 99.5%."""
    assert 0.93 <= coverage(5, effect=0.0, interaction=8.0)["over seeds"] <= 0.97 + NOISE


def test_with_seeds_held_far_too_little_is_covered() -> None:
    """The negative control."""
    assert coverage(3)["seeds held"] < 0.5


@pytest.mark.parametrize("seeds", [1, 2])
def test_one_and_two_seeds_speak_of_these_students_alone(seeds: int) -> None:
    found = coverage(seeds)
    assert 0.93 <= found["these students"] <= 0.97
    assert found["over seeds"] < 0.8
    assert seeds < LEAST_SEEDS


@pytest.mark.parametrize("examples", [10, 20])
def test_few_examples_of_unequal_length_are_covered(examples: int) -> None:
    rng = np.random.default_rng(7)
    hits, naive = 0, 0
    for _ in range(REPLICATIONS):
        tokens = np.ceil(np.exp(rng.normal(2.5, 0.7, examples)))
        values = TRUTH + rng.normal(size=(1, 1, examples))
        found = estimate_contrast(values, tokens, [1.0])
        low, high = found.interval(0.95)
        hits += low <= TRUTH <= high
        error = np.sqrt((influence(values, tokens) ** 2).sum())
        naive += abs(found.value - TRUTH) <= stats.norm.ppf(0.975) * error
    assert 0.93 <= hits / REPLICATIONS <= 0.98 + NOISE  # a little wide where lengths differ much
    # The negative control: the plain sandwich and the normal quantile.
    assert naive / REPLICATIONS < 0.91


def test_the_quantile_lies_between_those_of_its_parts() -> None:
    both = stats.t.ppf(0.975, [2, 50])
    assert mixed_quantile(0.95, (1.0, 2), (0.0, 50)) == pytest.approx(both[0])
    assert mixed_quantile(0.95, (0.0, 2), (1.0, 50)) == pytest.approx(both[1])
    cochran, satterthwaite = 0.25 * both[0] + 0.75 * both[1], stats.t.ppf(0.975, 4**2 / (1 / 2 + 9 / 50))
    assert mixed_quantile(0.95, (1.0, 2), (3.0, 50)) == pytest.approx((cochran + satterthwaite) / 2)
    far = stats.t.ppf(0.995, [2, 50])
    assert mixed_quantile(0.99, (1.0, 2), (3.0, 50)) == pytest.approx(0.25 * far[0] + 0.75 * far[1])
    assert mixed_quantile(0.95, (1.0, np.inf), (3.0, np.inf)) == pytest.approx(stats.norm.ppf(0.975))
    assert mixed_quantile(0.95, (0.0, 2), (0.0, 50)) == pytest.approx(both[1])


# ---- variances ----


def mean_squares(d: np.ndarray) -> tuple[float, float]:
    """Return the parts of the variance of the mean of (seeds, examples), by the analysis of variance of a textbook."""
    s, n = d.shape
    of_seeds = n * ((d.mean(1) - d.mean()) ** 2).sum() / (s - 1)
    of_examples = s * ((d.mean(0) - d.mean()) ** 2).sum() / (n - 1)
    rest = ((d - d.mean(1, keepdims=True) - d.mean(0) + d.mean()) ** 2).sum() / ((s - 1) * (n - 1))
    return of_seeds / (s * n), max(of_examples - rest, 0.0) / (s * n)


@settings(max_examples=60, deadline=None)
@given(st.integers(3, 6), st.integers(2, 12), st.integers(0, 2**31))
def test_the_parts_are_those_of_the_analysis_of_variance(seeds: int, examples: int, seed: int) -> None:
    values, _ = draw(np.random.default_rng(seed), seeds, examples)
    found = estimate_contrast(values, None, [1, -1])
    d = values[0] - values[1]
    assert found.value == pytest.approx(d.mean(), abs=1e-12)
    expected = mean_squares(d)
    assert found.seed_variance == pytest.approx(expected[0], rel=1e-9)
    assert found.example_variance == pytest.approx(expected[1], rel=1e-7, abs=1e-14)
    assert found.example_freedom == pytest.approx(examples - 1)
    assert found.standard_error == pytest.approx(np.sqrt(sum(expected)), rel=1e-7)
    assert (found.n_seeds, found.n_examples, found.over_seeds) == (seeds, examples, True)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=2, max_size=12).filter(lambda own: sum(one > 0 for one in own) > 1))
def test_corrections_and_degrees_of_freedom_agree_with_dense_matrices(tokens: list[int]) -> None:
    """Half of a usual example's variance is its tokens': residuals are unbiased, with Satterthwaite's moments."""
    share = np.array(tokens) / sum(tokens)
    correction, freedom = _few_examples(share)
    n, usual = len(share), np.median(share[share > 0])
    sd = np.array([np.sqrt((1 + usual / one) / 2) if one else 1.0 for one in share])
    residual = (np.eye(n) - np.outer(np.ones(n), share)) * sd
    form = residual.T @ np.diag(share**2 * correction) @ residual
    assert np.trace(form) == pytest.approx(share**2 @ sd**2, rel=1e-9)
    assert freedom == pytest.approx(max(np.trace(form) ** 2 / np.trace(form @ form), 1.0), rel=1e-6)
    assert 1.0 <= freedom <= np.count_nonzero(share) - 1 + 1e-9


@given(
    st.integers(2, 12).flatmap(
        lambda n: st.tuples(
            st.lists(st.floats(-5, 5), min_size=n, max_size=n), st.lists(st.integers(0, 6), min_size=n, max_size=n)
        )
    )
)
def test_means_and_influences_agree_with_their_definitions(case) -> None:
    values, weights = (np.array(side, dtype=float) for side in case)
    used = [(y, w) for y, w in zip(values, weights, strict=True) if w > 0]
    values[weights == 0] = np.nan  # what has no weight is not read
    if not used:
        assert np.isnan(weighted_means(values, weights))
        return
    total = sum(w for _, w in used)
    mean = sum(y * w for y, w in used) / total
    assert weighted_means(values, weights) == pytest.approx(mean, abs=1e-12)
    pulls = [w * (y - mean) / total for y, w in used]
    assert influence(values, weights)[weights > 0] == pytest.approx(np.array(pulls), abs=1e-12)
    alone = estimate_contrast(values[None, None], weights[None, None], [1.0])
    assert alone.n_examples == len(used)
    assert alone.known == (len(used) > 1)


def test_pairing_cancels_what_examples_and_seeds_have_in_common() -> None:
    values, _ = draw(np.random.default_rng(0), 5, 40)
    paired = estimate_contrast(values, None, [1, -1])
    apart = estimate_contrast(np.stack([values[0], np.roll(values[1], (1, 7), (0, 1))]), None, [1, -1])
    assert apart.standard_error > 2 * paired.standard_error


def test_strategies_that_take_no_part_are_not_read() -> None:
    values, _ = draw(np.random.default_rng(0), 4, 9)
    three = np.stack([values[0], np.full((4, 9), np.nan), values[1]])
    alone, among = estimate_contrast(values, None, [1, -1]), estimate_contrast(three, None, [1, 0, -1])
    assert (alone.value, alone.standard_error) == (among.value, among.standard_error)


def test_examples_of_one_cluster_count_as_one() -> None:
    """Each text twice tells as much as each text once."""
    rng = np.random.default_rng(1)
    once, tokens = rng.normal(size=(2, 4, 25)), rng.integers(1, 30, 25)
    single = estimate_contrast(once, tokens, [1, -1])
    names = np.arange(25).repeat(2) * 3 - 5
    double = estimate_contrast(once.repeat(2, axis=2), tokens.repeat(2), [1, -1], clusters=names)
    assert double.n_examples == 25
    for name in ("value", "seed_variance", "example_variance", "example_freedom"):
        assert getattr(double, name) == pytest.approx(getattr(single, name), rel=1e-9)
    # The negative control: taken as independent, they seem to tell twice as much.
    taken = estimate_contrast(once[:, :1].repeat(2, axis=2), tokens.repeat(2), [1, -1])
    own = estimate_contrast(once[:, :1], tokens, [1, -1])
    assert taken.example_variance < 0.6 * own.example_variance


def test_nothing_is_surer_than_one_answer_of_all() -> None:
    right = np.ones((2, 3, 200))
    blind = estimate_contrast(right, None, [1, -1])
    assert blind.interval(0.95) == (0.0, 0.0)
    seeing = estimate_contrast(right, None, [1, -1], resolution=1 / 200)
    assert seeing.standard_error == pytest.approx(1 / 200)
    assert seeing.interval(0.95)[1] == pytest.approx(stats.t.ppf(0.975, 199) / 200)
    # Where more is known to vary, the floor adds nothing.
    values, _ = draw(np.random.default_rng(0), 5, 40)
    assert (
        estimate_contrast(values, None, [1, -1], resolution=1e-3).standard_error
        == estimate_contrast(values, None, [1, -1]).standard_error
    )
    # Scores that are known as a whole, of seeds that happen to differ alike.
    alike = estimate_contrast([[[0.82], [0.81], [0.83]], [[0.80], [0.79], [0.81]]], None, [1, -1], resolution=0.01)
    assert alike.standard_error == pytest.approx(0.01)


def test_too_few_seeds_of_one_number_each_leave_nothing_known() -> None:
    for seeds in (1, 2):
        found = estimate_contrast(np.random.default_rng(0).normal(size=(2, seeds, 1)), None, [1, -1], resolution=0.01)
        assert not found.known
        assert np.isnan([found.standard_error, *found.interval(0.95)]).all()
    three = estimate_contrast([[[0.7], [0.8], [0.9]], [[0.4], [0.4], [0.4]]], None, [1, -1])
    assert three.value == pytest.approx(0.4)
    assert three.standard_error == pytest.approx(0.1 / np.sqrt(3))
    assert three.quantile(0.95) == pytest.approx(stats.t.ppf(0.975, 2))


@pytest.mark.parametrize(
    ("values", "weights", "message"),
    [(np.zeros((2, 0)), None, "hold no example"), (np.zeros(3), [1, -1, 1], "a weight is negative")],
)
def test_what_is_no_data_is_refused(values, weights, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        weighted_means(values, weights)


# ---- several at once ----


def pulling(pull: np.ndarray) -> Estimate:
    return Estimate(0.0, 0.0, 1.0, 1, len(pull), len(pull) - 1.0, False, pull)


def test_simultaneous_intervals_hold_at_once() -> None:
    """Ten estimates in 1000 replications: all covered in about 90%; by single intervals in far fewer."""
    errors = np.random.default_rng(8).normal(size=(1000, 10))
    quantile = simultaneous_quantile(np.eye(10), 0.90, np.inf)
    assert (np.abs(errors) < quantile).all(1).mean() == pytest.approx(0.90, abs=0.03)
    assert (np.abs(errors) < stats.norm.ppf(0.95)).all(1).mean() < 0.6
    assert simultaneous_quantile(np.eye(10), 0.90, 5) > quantile + 0.5


def test_estimates_that_go_together_cost_less_than_bonferroni() -> None:
    rng = np.random.default_rng(3)
    shared = rng.normal(size=200)
    near = [pulling(scale * (shared + 0.2 * rng.normal(size=200))) for scale in (1, 5, 0.1, 2, 1, 1, 1, 1)]
    quantile = simultaneous_quantile(correlation_of(near), 0.95, 1000)
    assert stats.t.ppf(0.975, 1000) < quantile < stats.t.ppf(1 - 0.025 / 8, 1000) - 0.2
    same = simultaneous_quantile(correlation_of([pulling(shared)] * 5), 0.95, 1000)
    assert same == pytest.approx(stats.t.ppf(0.975, 1000), rel=0.02)
    still = correlation_of([pulling(shared), pulling(np.zeros(200))])
    assert still.shape == (1, 1)
    assert simultaneous_quantile(still, 0.95, 4) == pytest.approx(stats.t.ppf(0.975, 4))
