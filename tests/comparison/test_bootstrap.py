"""Intervals on simulated data whose truth is known: what they cover, and what the naive ones do not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from anglekit.comparison.bootstrap import (
    Estimates,
    bootstrap_means,
    draw_counts,
    estimate_contrasts,
    influence,
    simultaneous_factor,
    weighted_means,
)

REPLICATIONS = 1500
TRUTH = 0.3


def clustered_pairs(replications: int, examples: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return token-level differences of two students by example, and the examples' numbers of tokens.

    Tokens of an example share two effects: one common to both students, which cancels, and one in their difference.

    Returns:
        values (2, replications, examples) of example means, tokens (replications, examples).
    """
    tokens = rng.integers(5, 40, (replications, examples)).astype(float)
    common = 3.0 * rng.normal(size=(replications, examples))
    own = 0.7 * rng.normal(size=(2, replications, examples))
    noise = rng.normal(size=(2, replications, examples)) / np.sqrt(tokens)
    values = common + own + noise
    values[0] += TRUTH
    return values, tokens


def covered(low: np.ndarray, high: np.ndarray, truth: float = TRUTH) -> float:
    return float(((low <= truth) & (truth <= high)).mean())


def paired_estimates(values: np.ndarray, weights: np.ndarray, **options: int) -> Estimates:
    """Estimate each replication's difference; replications stand as students of one call."""
    replications = values.shape[1]
    students = values.reshape(2 * replications, 1, -1)
    c = np.hstack([np.eye(replications), -np.eye(replications)])
    w = np.concatenate([weights, weights])[:, None, :]
    return estimate_contrasts(students, w, c, **options)


@pytest.fixture(scope="module")
def simulated() -> tuple[np.ndarray, np.ndarray, Estimates]:
    values, tokens = clustered_pairs(REPLICATIONS, 40, np.random.default_rng(11))
    return values, tokens, paired_estimates(values, tokens, n_draws=2000, seed=1)


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_a_nominal_95_percent_interval_covers_93_to_97(simulated, method: str) -> None:
    assert 0.93 <= covered(*simulated[2].interval(0.95, method)) <= 0.97


def test_the_clustered_standard_error_covers_93_to_97(simulated) -> None:
    values, _, estimates = simulated
    error = np.sqrt(estimates.example_variance)
    half = stats.t.ppf(0.975, values.shape[-1] - 1) * error
    assert 0.93 <= covered(estimates.estimate - half, estimates.estimate + half) <= 0.97
    assert estimates.standard_error.mean() == pytest.approx(error.mean(), rel=0.02)


def test_the_naive_interval_covers_less_than_80(simulated) -> None:
    """The negative control: tokens taken as independent, on the same data."""
    _, tokens, estimates = simulated
    n = tokens.sum(-1)
    between, within = 2 * 0.7**2, 2.0  # of a token's difference, as the data was made
    half = stats.norm.ppf(0.975) * np.sqrt((between + within) / n)
    assert covered(estimates.estimate - half, estimates.estimate + half) < 0.80


def test_an_unpaired_bootstrap_is_far_wider(simulated) -> None:
    """Separate draws for the two students would keep what pairing cancels."""
    values, tokens, estimates = simulated
    first, second = (
        bootstrap_means(side[:50], tokens[:50], n_draws=500, seed=seed) for seed, side in enumerate(values)
    )
    assert (first - second).std(0).mean() > 3 * estimates.standard_error[:50].mean()


def hierarchical(replications: int, seeds: int, examples: int, effect: float = 1.0) -> Estimates:
    """Differences with a seed effect, an example effect and their interaction."""
    rng = np.random.default_rng(5)
    values = effect * rng.normal(size=(replications, seeds, 1)) + rng.normal(size=(replications, 1, examples))
    values += TRUTH + rng.normal(size=(replications, seeds, examples))
    return estimate_contrasts(values, None, np.eye(replications), n_draws=1000, seed=2)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_intervals_over_seeds_and_examples_cover_93_to_97(seeds: int) -> None:
    estimates = hierarchical(1500, seeds, 30)
    assert 0.93 <= covered(*estimates.interval(0.95)) <= 0.97


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_intervals_are_not_too_narrow_where_seeds_hardly_vary(seeds: int) -> None:
    """By luck two seeds look alike; the interval must allow for it, and is then on the wide side."""
    for effect in (0.0, 0.3):
        assert covered(*hierarchical(1500, seeds, 30, effect).interval(0.95)) >= 0.94


def test_intervals_that_pretend_that_seeds_do_not_vary_cover_less_than_80() -> None:
    """The negative control: examples drawn, seeds held."""
    estimates = hierarchical(1000, 3, 30)
    half = stats.t.ppf(0.975, 29) * np.sqrt(estimates.example_variance)
    assert covered(estimates.estimate - half, estimates.estimate + half) < 0.80


def test_percentiles_of_few_seeds_would_be_too_narrow() -> None:
    """Why intervals over seeds are Student's t."""
    estimates = hierarchical(1000, 3, 30)
    low, high = np.quantile(estimates.draws, [0.025, 0.975], axis=0)
    assert covered(low, high) < 0.88


def test_the_variance_splits_into_seeds_and_examples() -> None:
    estimates = hierarchical(1000, 5, 30)
    # The interaction, 1 / (5 x 30), is in both parts.
    assert estimates.seed_variance.mean() == pytest.approx(1 / 5 + 1 / 150, rel=0.1)
    assert estimates.example_variance.mean() == pytest.approx(1 / 30 + 1 / 150, rel=0.1)
    assert (estimates.standard_error**2).mean() == pytest.approx(1 / 5 + 1 / 30 + 1 / 150, rel=0.1)


def test_bca_takes_bias_and_skewness_as_published() -> None:
    """Efron 1987, with the acceleration of the influences: (sum l^3) / (6 (sum l^2)^1.5)."""
    rng = np.random.default_rng(2)
    draws, pull = rng.normal(0.3, 1.0, (2000, 1)), rng.exponential(size=(1, 12)) - 0.7
    one = np.ones(1)
    found = Estimates(np.zeros(1), draws, pull, one * np.nan, one, 1, np.array([12]))
    draws[::20] = 0.0  # a draw that is the estimate lies half on either side of it
    bias = stats.norm.ppf((draws < 0).mean() + 0.025)
    skew = (pull**3).sum() / (6 * (pull**2).sum() ** 1.5)
    assert abs(skew) > 0.02
    levels = []
    for tail in (0.05, 0.95):
        moved = bias + stats.norm.ppf(tail)
        levels.append(stats.norm.cdf(bias + moved / (1 - skew * moved)))
    assert np.array(found.interval(0.9, "bca"))[:, 0] == pytest.approx(np.quantile(draws, levels))


def test_bca_follows_skewness() -> None:
    rng = np.random.default_rng(0)
    estimates = estimate_contrasts(rng.exponential(size=(1, 1, 25)) ** 2, None, [[1.0]], n_draws=4000)
    low, high = estimates.interval(0.95, "bca")
    assert high[0] - estimates.estimate[0] > 1.2 * (estimates.estimate[0] - low[0])


@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_bca_stays_finite_where_no_draw_reaches_the_estimate(side: float) -> None:
    """Then as many draws as not are taken to lie beyond it as one in all of them."""
    draws = np.linspace(0.0, 1.0, 101)[:, None]
    nothing = np.zeros(1)
    found = Estimates(np.array([side * 2.0]), side * draws, np.zeros((1, 9)), nothing, nothing + 0.1, 1, np.array([9]))
    bias = stats.norm.ppf(1 - 1 / 101)
    levels = [stats.norm.cdf(side * 2 * bias + stats.norm.ppf(tail)) for tail in (0.025, 0.975)]
    ends = np.array(found.interval(0.95, "bca"))[:, 0]
    assert ends == pytest.approx(np.quantile(side * draws, levels), abs=1e-9)


def test_intervals_of_few_draws_are_made_of_draws() -> None:
    """Percentiles at the levels of Student's t with one degree of freedom less than examples."""
    rng = np.random.default_rng(1)
    values = rng.normal(size=(1, 1, 6))
    found = estimate_contrasts(values, None, [[1.0]], n_draws=500)
    tail = stats.norm.cdf(np.sqrt(6 / 5) * stats.t.ppf(0.05, 5))
    assert np.array(found.interval(0.9))[:, 0] == pytest.approx(np.quantile(found.draws[:, 0], [tail, 1 - tail]))
    assert found.rows(slice(0, 1)).interval(0.9) == found.interval(0.9)
    assert (found.n_examples.dtype, found.n_examples.tolist()) == (np.int64, [6])


def test_simultaneous_intervals_do_not_depend_on_where_estimates_lie() -> None:
    draws = np.random.default_rng(8).normal(size=(500, 4))
    moved = draws * [1, 5, 0.1, 2] + [0, 100, -3, 7]
    assert simultaneous_factor(moved, 0.9, 20) == pytest.approx(simultaneous_factor(draws, 0.9, 20), rel=1e-9)
    unknown = moved.copy()
    unknown[::50, 1] = np.nan
    assert simultaneous_factor(unknown, 0.9, 20) == pytest.approx(simultaneous_factor(draws, 0.9, 20), rel=0.02)
    alone = simultaneous_factor(np.hstack([draws[:, :1], np.ones((500, 3))]), 0.9, 20)
    assert alone == pytest.approx(stats.t.ppf(0.95, 20))


def test_simultaneous_intervals_hold_at_once() -> None:
    """Ten estimates in 1000 replications: all covered in about 90%; by single intervals in far fewer."""
    rng = np.random.default_rng(8)
    errors = rng.normal(size=(1000, 10))
    factor = simultaneous_factor(rng.normal(size=(4000, 10)), 0.90, 10_000)
    assert (np.abs(errors) < factor).all(1).mean() == pytest.approx(0.90, abs=0.03)
    assert (np.abs(errors) < stats.norm.ppf(0.95)).all(1).mean() < 0.6


def test_estimates_that_go_together_cost_less_than_bonferroni() -> None:
    rng = np.random.default_rng(3)
    shared = rng.normal(size=(4000, 1)) + 0.2 * rng.normal(size=(4000, 8))
    factor = simultaneous_factor(shared, 0.95, 1000)
    assert stats.t.ppf(0.975, 1000) < factor < stats.t.ppf(1 - 0.025 / 8, 1000) - 0.2
    repeated = np.repeat(shared[:, :1], 5, axis=1)
    assert simultaneous_factor(repeated, 0.95, 1000) == pytest.approx(stats.t.ppf(0.975, 1000), rel=0.02)
    assert simultaneous_factor(np.zeros((100, 3)), 0.9, 4) == pytest.approx(stats.t.ppf(0.95, 4))


@given(
    st.integers(2, 12).flatmap(
        lambda n: st.tuples(
            st.lists(st.floats(-5, 5), min_size=n, max_size=n), st.lists(st.integers(0, 6), min_size=n, max_size=n)
        )
    )
)
def test_means_influences_and_errors_agree_with_their_definitions(case) -> None:
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
    alone = estimate_contrasts(values[None, None], weights[None, None], [[1.0]], n_draws=2)
    error = np.sqrt(alone.example_variance[0])
    if len(used) < 2:
        assert np.isnan(error)
    else:
        n = len(used)
        assert error == pytest.approx(np.sqrt(n / (n - 1) * sum(p**2 for p in pulls)), abs=1e-12)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 15), st.integers(0, 2**31))
def test_drawn_means_are_those_of_the_drawn_examples(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values, weights = rng.normal(size=(3, n)), rng.integers(1, 5, (3, n))
    drawn = bootstrap_means(values, weights, n_draws=20, seed=seed)
    counts = draw_counts(n, n, 20, np.random.default_rng([seed, 0]))
    assert (counts.sum(1) == n).all()
    for draw, count in enumerate(counts.astype(int)):
        picked = np.repeat(np.arange(n), count)
        expected = [np.average(y[picked], weights=w[picked]) for y, w in zip(values, weights, strict=True)]
        assert drawn[draw] == pytest.approx(np.array(expected), abs=1e-12)


def test_draws_are_the_same_for_a_seed_and_shared_by_rows() -> None:
    values = np.random.default_rng(0).normal(size=(4, 9))
    first = bootstrap_means(values, n_draws=50, seed=3)
    assert (first == bootstrap_means(values, n_draws=50, seed=3)).all()
    assert np.allclose(first[:, 2], bootstrap_means(values[2], n_draws=50, seed=3), atol=1e-14)
    assert not np.allclose(first, bootstrap_means(values, n_draws=50, seed=4))
    assert (bootstrap_means(values) == bootstrap_means(values, n_draws=2000, seed=0)).all()


def test_a_large_probe_is_drawn_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(size=(2, 30))
    whole = bootstrap_means(values, n_draws=41, seed=1)
    monkeypatch.setattr("anglekit.comparison.bootstrap._HELD", 300)
    parts = bootstrap_means(values, n_draws=41, seed=1)
    assert np.allclose(whole, parts, atol=1e-14)


def test_one_seed_and_one_example_leave_nothing_known() -> None:
    estimates = estimate_contrasts([[[0.7]], [[0.4]]], None, [[1, -1]], n_draws=20)
    assert estimates.estimate == pytest.approx([0.3])
    assert not estimates.known.any()
    assert np.isnan(estimates.standard_error).all()
    assert np.isnan(estimates.interval(0.95)).all()
    assert np.isnan(estimates.interval(0.95, "bca")).all()


def test_students_that_are_the_same_have_an_interval_of_no_width() -> None:
    values = np.random.default_rng(0).normal(size=(1, 3, 20)).repeat(2, axis=0)
    estimates = estimate_contrasts(values, None, [[1, -1]], n_draws=50)
    assert np.abs(np.array(estimates.interval(0.9))).max() < 1e-12


@pytest.mark.parametrize(
    ("values", "weights", "message"),
    [(np.zeros((2, 0)), None, "hold no example"), (np.zeros(3), [1, -1, 1], "a weight is negative")],
)
def test_what_is_no_data_is_refused(values, weights, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bootstrap_means(values, weights)
