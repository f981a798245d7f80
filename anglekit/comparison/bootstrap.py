"""Means and their differences over examples and seeds, with intervals that know what depends on what: pure numpy.

Tokens of one example depend on each other, so whole examples are drawn. Students that read the same examples share
every draw, so what they have in common cancels in their differences (paired cluster bootstrap). With several seeds,
seeds are drawn first and examples second. Examples are crossed with seeds, not nested in them, so one draw of examples
serves all seeds (Owen 2007, "The pigeonhole bootstrap").

Of S seeds, S - 1 are drawn each time, which makes the variance over draws unbiased (Rao and Wu 1988). Percentiles of so
few distinct draws are still too narrow, so intervals over seeds use Student's t: with the seeds' degrees of freedom for
the seeds' part of the variance, and the examples' for the rest (Cochran 1964, "Approximate significance levels of the
Behrens-Fisher test"). With two or three seeds, Satterthwaite's degrees of freedom cover too little.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

IntervalMethod = Literal["percentile", "bca"]
Array = NDArray[np.float64]

#: The most counts of drawn examples that are held at once: 64 MiB of float64.
_HELD = 2**23


def draw_counts(units: int, drawn: int, n_draws: int, rng: np.random.Generator) -> Array:
    """Return how often each unit is drawn when `drawn` are taken with replacement: float64 (n_draws, units)."""
    picks = rng.integers(units, size=(n_draws, drawn)) + units * np.arange(n_draws)[:, None]
    return np.bincount(picks.reshape(-1), minlength=n_draws * units).reshape(n_draws, units).astype(np.float64)


def weighted_means(values: ArrayLike, weights: ArrayLike | None = None) -> Array:
    """Return the weighted mean over the last axis: NaN where all weights are 0.

    Args:
        values: (..., examples); read only where the weight is not 0.
        weights: of the same shape or broadcast to it, such as each example's number of tokens; equal by default.
    """
    products, w = _weighted(values, weights)
    return _ratio(products.sum(-1), w.sum(-1))


def influence(values: ArrayLike, weights: ArrayLike | None = None) -> Array:
    """Return how far each example pulls the weighted mean: w_e (y_e - m) / sum w, in the shape of `values`.

    They sum to 0; the variance of a ratio estimator is n / (n - 1) times the sum of their squares.
    """
    products, w = _weighted(values, weights)
    total = w.sum(-1, keepdims=True)
    mean = _ratio(products.sum(-1, keepdims=True), total)
    return np.where(w > 0, _ratio(products - np.where(w > 0, w * mean, 0.0), total), 0.0)


def bootstrap_means(
    values: ArrayLike, weights: ArrayLike | None = None, *, n_draws: int = 2000, seed: int = 0
) -> Array:
    """Return the weighted means of drawn examples: one draw of examples, shared by all rows.

    Values and weights are as in `weighted_means`. The same seed and number of examples give the same draws for any
    rows. The means have the shape (n_draws, ...), and are NaN where a draw holds no example of positive weight.
    """
    products, w = _weighted(values, weights)
    lead, n = products.shape[:-1], products.shape[-1]
    columns, totals = products.reshape(-1, n).T, w.reshape(-1, n).T
    rng = np.random.default_rng([seed, 0])
    means = np.empty((n_draws, columns.shape[1]))
    step = max(1, _HELD // n)
    for start in range(0, n_draws, step):
        counts = draw_counts(n, n, min(step, n_draws - start), rng)
        means[start : start + step] = _ratio(counts @ columns, counts @ totals)
    return means.reshape(n_draws, *lead)


@dataclass(frozen=True, eq=False)
class Estimates:
    """Contrasts of means with what is needed for their intervals.

    Attributes:
        estimate: (contrasts,).
        draws: (n_draws, contrasts).
        influence: of each example, mean over seeds, (contrasts, examples).
        seed_variance: the part of the estimates' variance that more seeds reduce, (contrasts,); NaN with one seed.
        example_variance: the part that more examples reduce, (contrasts,); NaN with one example.
        n_seeds: the number of seeds.
        n_examples: the number of examples of positive weight, the mean over a contrast's students and seeds,
            (contrasts,).
    """

    estimate: Array
    draws: Array
    influence: Array
    seed_variance: Array
    example_variance: Array
    n_seeds: int
    n_examples: NDArray[np.int64]

    def rows(self, chosen: slice) -> Estimates:
        """Return some of the contrasts."""
        return Estimates(
            self.estimate[chosen],
            self.draws[:, chosen],
            self.influence[chosen],
            self.seed_variance[chosen],
            self.example_variance[chosen],
            self.n_seeds,
            self.n_examples[chosen],
        )

    @property
    def known(self) -> NDArray[np.bool_]:
        """Whether an estimate's variance can be judged: it takes two seeds or two examples, (contrasts,)."""
        return np.isfinite(self.estimate) & (np.isfinite(self.seed_variance) | np.isfinite(self.example_variance))

    @property
    def standard_error(self) -> Array:
        """The standard deviation of the draws, corrected for the number of examples; NaN where it is not `known`."""
        spread = np.nanstd(np.where(self.known, self.draws, 0.0), axis=0, ddof=1)
        # All examples are drawn each time; with few of them the variance over draws is (n - 1) / n of the true one.
        correction = np.sqrt(self.n_examples / np.maximum(self.n_examples - 1, 1)) if self.n_seeds == 1 else 1.0
        return np.where(self.known, spread * correction, np.nan)

    def quantile(self, level: float) -> Array:
        """Return how many standard errors a two-sided interval over seeds and examples extends to each side."""
        return t_quantile(level, self.seed_variance, self.n_seeds, self.example_variance, self.n_examples)

    def interval(self, level: float, method: IntervalMethod = "percentile") -> tuple[Array, Array]:
        """Return the lower and upper ends of two-sided intervals, each (contrasts,); NaN where they are not `known`.

        Args:
            level: such as 0.95.
            method: for intervals over examples alone; those over seeds use Student's t. `percentile` adjusts the levels
                to the number of examples (Hesterberg 2015, "What teachers should know about the bootstrap"); `bca`
                corrects bias and skewness (Efron 1987).
        """
        tail = (1 - level) / 2
        if self.n_seeds > 1:
            half = self.quantile(level) * self.standard_error
            return self.estimate - half, self.estimate + half
        low, high = self._tails(tail) if method == "percentile" else self._bca_tails(tail)
        ends = np.full((2, len(self.estimate)), np.nan)
        for row in np.flatnonzero(self.known):
            ends[:, row] = np.nanquantile(self.draws[:, row], [low[row], high[row]])
        return ends[0], ends[1]

    def _tails(self, tail: float) -> tuple[Array, Array]:
        n = np.maximum(self.n_examples, 2)
        low = stats.norm.cdf(np.sqrt(n / (n - 1)) * stats.t.ppf(tail, n - 1))
        return low, 1 - low

    def _bca_tails(self, tail: float) -> tuple[Array, Array]:
        below = (self.draws < self.estimate).mean(0) + 0.5 * (self.draws == self.estimate).mean(0)
        bias = stats.norm.ppf(np.clip(below, 1 / len(self.draws), 1 - 1 / len(self.draws)))
        cubes, squares = (self.influence**3).sum(-1), (self.influence**2).sum(-1)
        skew = np.divide(cubes, 6 * squares**1.5, out=np.zeros_like(cubes), where=squares > 0)
        ends = []
        for z in (stats.norm.ppf(tail), stats.norm.ppf(1 - tail)):
            moved = bias + (bias + z) / np.maximum(1 - skew * (bias + z), 1e-3)
            ends.append(np.asarray(stats.norm.cdf(moved)))
        return ends[0], ends[1]


def estimate_contrasts(
    values: ArrayLike, weights: ArrayLike | None, contrasts: ArrayLike, *, n_draws: int = 2000, seed: int = 0
) -> Estimates:
    """Estimate contrasts between students, paired by seed and by example.

    Args:
        values: (students, seeds, examples); a student here stands for all students of one strategy.
        weights: of the same shape, such as tokens; equal by default. Where a weight is 0 the value is not read.
        contrasts: (contrasts, students), such as (1, -1) for a difference.
        n_draws: the number of draws.
        seed: the same seed gives the same draws.
    """
    products, w = _weighted(values, weights)
    c = np.asarray(contrasts, dtype=np.float64)
    n_seeds = products.shape[1]
    by_seed = weighted_means(values, weights)  # (students, seeds)
    contrast_by_seed = c @ by_seed
    drawn = bootstrap_means(values, weights, n_draws=n_draws, seed=seed)  # (n_draws, students, seeds)
    if n_seeds > 1:
        counts = draw_counts(n_seeds, n_seeds - 1, n_draws, np.random.default_rng([seed, 1])) / (n_seeds - 1)
        drawn = np.einsum("bks,bs->bk", drawn, counts)
        seed_variance = contrast_by_seed.var(axis=1, ddof=1) / n_seeds
    else:
        drawn = drawn[..., 0]
        seed_variance = np.full(len(c), np.nan)
    pull = c @ influence(values, weights).mean(1)  # (contrasts, examples)
    used = (c != 0) @ (w > 0).sum((1, 2)) / np.maximum((c != 0).sum(1) * n_seeds, 1)
    n_examples = np.floor(used).astype(np.int64)
    correction = np.divide(n_examples, n_examples - 1, out=np.full(len(c), np.nan), where=n_examples > 1)
    return Estimates(
        contrast_by_seed.mean(1),
        drawn @ c.T,
        pull,
        seed_variance,
        correction * (pull**2).sum(-1),
        n_seeds,
        n_examples,
    )


def t_quantile(
    level: float, seed_variance: ArrayLike, n_seeds: ArrayLike, example_variance: ArrayLike, n_examples: ArrayLike
) -> Array:
    """Return the quantile of a mean whose variance has two parts: each part's Student's t, weighted by the parts.

    Args:
        level: two-sided, such as 0.95.
        seed_variance: the part with n_seeds - 1 degrees of freedom; NaN counts as 0.
        n_seeds: the number of seeds.
        example_variance: the part with n_examples - 1 degrees of freedom; NaN counts as 0.
        n_examples: the number of examples.
    """
    parts = [np.nan_to_num(np.asarray(part, dtype=np.float64)) for part in (seed_variance, example_variance)]
    by_seed, by_example = (
        np.asarray(stats.t.ppf((1 + level) / 2, np.maximum(np.asarray(units, dtype=np.float64) - 1, 1)))
        for units in (n_seeds, n_examples)
    )
    total = parts[0] + parts[1]
    weighted = parts[0] * by_seed + parts[1] * by_example
    # Without any variance the quantile is not used; the smaller of the two is as good as any.
    unused = np.full(np.shape(total), np.minimum(by_seed, by_example))
    return np.asarray(np.divide(weighted, total, out=unused, where=total > 0))


def simultaneous_factor(
    draws: ArrayLike, level: float, degrees_of_freedom: float, *, n_samples: int = 20_000, seed: int = 0
) -> float:
    """Return c such that, at this level, all estimates lie within c standard errors of the truth at once.

    The estimates are taken as jointly Student's t with the correlations of the shared draws (Hothorn, Bretz and
    Westfall 2008). For correlated estimates this is less than Bonferroni's bound. For one estimate it is the quantile
    of t.

    Args:
        draws: (n_draws, estimates), shared; estimates that never vary are left out.
        level: two-sided, such as 0.9.
        degrees_of_freedom: of the standard errors.
        n_samples: the number of samples of the joint distribution.
        seed: of the samples.
    """
    sample = np.asarray(draws, dtype=np.float64)
    sample = np.nan_to_num(sample - np.nanmean(sample, axis=0))
    spread = sample.std(axis=0, ddof=1)
    sample = sample[:, spread > 0] / spread[spread > 0]
    single = float(stats.t.ppf((1 + level) / 2, degrees_of_freedom))
    if sample.shape[1] < 2:
        return single
    rng = np.random.default_rng([seed, 2])
    correlation = sample.T @ sample / (len(sample) - 1)
    # Pairwise differences have some eigenvalues of 0, and a Cholesky factorisation would fail on them.
    roots, vectors = np.linalg.eigh(correlation)
    factor = vectors * np.sqrt(np.clip(roots, 0, None))
    largest = np.abs(rng.standard_normal((n_samples, len(roots))) @ factor.T).max(1)
    scale = np.sqrt(rng.chisquare(degrees_of_freedom, n_samples) / degrees_of_freedom)
    return max(single, float(np.quantile(largest / scale, level)))


def _weighted(values: ArrayLike, weights: ArrayLike | None) -> tuple[Array, Array]:
    """Return weight times value (0 where the weight is 0) and the weights, both in the values' shape."""
    y = np.asarray(values, dtype=np.float64)
    w = np.ones(y.shape) if weights is None else np.broadcast_to(np.asarray(weights, dtype=np.float64), y.shape)
    if y.ndim == 0 or y.shape[-1] == 0:
        raise ValueError(f"values of shape {y.shape} hold no example; give at least one on the last axis")
    if (w < 0).any():
        raise ValueError("a weight is negative; weights count tokens")
    return np.where(w > 0, y, 0.0) * w, w


def _ratio(top: Any, bottom: Any) -> Array:  # noqa: ANN401 - arrays or numpy scalars
    top, bottom = np.broadcast_arrays(np.asarray(top, dtype=np.float64), np.asarray(bottom, dtype=np.float64))
    return np.asarray(np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom > 0))
