"""Means over seeds and examples, their contrasts, and how surely they are known: in closed form, pure numpy.

Tokens of one example depend on each other, so the example is the unit. Every student reads every example: seeds and
examples are crossed, not nested. A difference between two strategies, for one seed and one example, is then

    truth + effect of the seed + effect of the example + their interaction,

and its mean over S seeds and n examples has the variance s / S + e / n + i / (S n). Resampling seeds and examples
together (Owen 2007, "The pigeonhole bootstrap") estimates it with noise and counts the interaction more than once. The
three mean squares of a crossed analysis of variance give it exactly: seeds and examples each hold the interaction,
which is taken off once.

Intervals are Student's t. The seeds' part of the variance has S - 1 degrees of freedom, the examples' part n - 1 where
examples weigh the same and fewer where long ones weigh more; residuals are corrected as by Bell and McCaffrey (2002,
"Bias reduction in standard errors for linear regression with multi-stage samples"). With few seeds, Satterthwaite's
degrees of freedom for the sum of both (1946) cover too little, and the parts' quantiles weighted by the parts (Cochran
1964, "Approximate significance levels of the Behrens-Fisher test") too much; halfway between them it is 94 to 97%.
Farther out, where all pairs must hold at once, half of Satterthwaite's is too little as well, and Cochran's stands
alone (tests/simulations).

One or two seeds tell too little about seeds not seen. The estimate is then about these students: their seeds are held,
and only examples vary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anglekit.results.student_t import t_quantile

Array = NDArray[np.float64]

# The highest level at which Satterthwaite's quantile has a share; a level of 1 - 0.05 may be rounded.
_HALFWAY_TO: Final = 0.95 + 1e-9

#: The fewest seeds from which something is said about seeds that were not trained.
LEAST_SEEDS: Final = 3


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


@dataclass(frozen=True, eq=False)
class Estimate:
    """A contrast of strategies, with what its intervals need.

    Attributes:
        value: the mean over seeds of the contrast.
        seed_variance: the part of its variance that more seeds reduce, the interaction included; 0 where the seeds are
            held, NaN where nothing tells it.
        example_variance: the part that only more examples reduce; NaN where nothing tells it.
        n_seeds: the number of seeds.
        n_examples: the number of examples, or of their clusters, of positive weight.
        example_freedom: the degrees of freedom of the examples' part.
        over_seeds: whether the estimate is about seeds that were not trained, not only about these students.
        pull: of each example or cluster on the value, mean over seeds.
    """

    value: float
    seed_variance: float
    example_variance: float
    n_seeds: int
    n_examples: int
    example_freedom: float
    over_seeds: bool
    pull: Array

    @property
    def known(self) -> bool:
        """Whether the variance can be judged: it takes three seeds or two examples."""
        return bool(np.isfinite([self.value, self.seed_variance + self.example_variance]).all())

    @property
    def standard_error(self) -> float:
        """NaN where it is not `known`."""
        return float(np.sqrt(self.seed_variance + self.example_variance)) if self.known else np.nan

    def quantile(self, level: float) -> float:
        """Return how many standard errors a two-sided interval at this level extends to each side."""
        parts = (self.seed_variance, self.n_seeds - 1), (self.example_variance, self.example_freedom)
        return mixed_quantile(level, *parts)

    def interval(self, level: float) -> tuple[float, float]:
        """Return the ends of the two-sided interval at a level such as 0.95; NaN where the variance is not `known`."""
        half = self.quantile(level) * self.standard_error
        return self.value - half, self.value + half


def estimate_contrast(
    values: ArrayLike,
    weights: ArrayLike | None,
    coefficients: ArrayLike,
    *,
    resolution: float = 0.0,
    clusters: NDArray[np.int64] | None = None,
) -> Estimate:
    """Estimate a contrast between strategies, paired by seed and by example.

    Args:
        values: (strategies, seeds, examples); one example stands for a score that is known as a whole only.
        weights: of the same shape, such as tokens; equal by default. Where a weight is 0 the value is not read.
        coefficients: (strategies,), such as (1, -1) for a difference.
        resolution: the smallest change that the values can show, such as one answer of n: the standard error is never
            below it, so that students which happen to answer alike are not taken to be alike for sure.
        clusters: (examples,), a number for each; examples of one cluster count as one, such as equal texts.
    """
    c = np.asarray(coefficients, dtype=np.float64)
    used = c != 0
    y = np.asarray(values, dtype=np.float64)[used]
    w = None if weights is None else np.broadcast_to(np.asarray(weights, dtype=np.float64), np.shape(values))[used]
    c = c[used]
    n_seeds = y.shape[1]
    by_seed = c @ weighted_means(y, w)
    pulls = np.einsum("k,kse->se", c, influence(y, w))
    share = np.ones(y.shape) if w is None else w
    share = _ratio(share, share.sum(-1, keepdims=True)).mean((0, 1))
    if clusters is not None:
        pulls, share = _pooled(pulls, clusters), _pooled(share[None], clusters)[0]
    n_examples = int((share > 0).sum())
    over_seeds = n_seeds >= LEAST_SEEDS
    seed_variance = float(by_seed.var(ddof=1) / n_seeds) if over_seeds else 0.0
    pull = pulls.mean(0)
    example_variance, freedom = 0.0, np.inf
    if n_examples > 1:
        correction, freedom = _few_examples(share)
        example_variance = float(correction @ pull**2)
        if over_seeds:
            interaction = float((correction @ ((pulls - pull) ** 2).sum(0)) / (n_seeds * (n_seeds - 1)))
            example_variance = max(example_variance - interaction, 0.0)
    elif not over_seeds:
        example_variance = np.nan
    lacking = resolution**2 - seed_variance - example_variance
    if lacking > 0:
        example_variance += lacking
    return Estimate(
        float(by_seed.mean()), seed_variance, example_variance, n_seeds, n_examples, freedom, over_seeds, pull
    )


def _few_examples(share: Array) -> tuple[Array, float]:
    """Return what makes squared pulls unbiased under a working model of the examples, and the sum's degrees of freedom.

    An example's variance is partly its own and partly that of the mean over its tokens: v = (1 + median p / p) / 2 for
    shares p of the weight, so that an example of usual length has half of each. (Differences between students of
    `data/gallery` and `data/reviews` fall with the length at least as fast.) With q = sum p^2 v, the residual of
    example e has the variance (1 - 2 p_e) v_e + q, and residuals of two examples have the covariance
    q - p_e v_e - p_f v_f. The degrees of freedom are those of the chi-square with the mean and variance of the
    corrected sum (Bell and McCaffrey). What was tried: all examples alike (v = 1) covers 98% instead of 95% with 10
    sentences; one less than Kish's effective number of examples covers 92%, and 89% for six pairs at once
    (tests/simulations).

    Args:
        share: (examples,), of the weight; they sum to 1.

    Returns:
        correction (examples,), 0 where the share is 0, and the degrees of freedom, at least 1.
    """
    read = share > 0
    v = np.divide(np.median(share[read]), share, out=np.ones_like(share), where=read) / 2 + 0.5
    pv = share * v
    q = float(share @ pv)
    own = v - 2 * pv + q
    correction = np.divide(v, own, out=np.zeros_like(own), where=read & (own > 1e-12))
    d, u = share**2 * correction, q / 2 - pv
    everything = 2 * (d @ u**2) * d.sum() + 2 * (d @ u) ** 2
    spread = float(everything + d**2 @ (own**2 - (q - 2 * pv) ** 2))
    return correction, max(float(d @ own) ** 2 / spread, 1.0) if spread > 0 else 1.0


def _pooled(rows: Array, clusters: NDArray[np.int64]) -> Array:
    """Return (rows, clusters): the sums over the examples of each cluster."""
    _, which = np.unique(clusters, return_inverse=True)
    return np.stack([np.bincount(which, row) for row in rows])


def mixed_quantile(level: float, seeds: tuple[float, float], examples: tuple[float, float]) -> float:
    """Return the quantile of a mean whose variance has two parts.

    Halfway between Cochran's and Satterthwaite's up to a level of 95%, Cochran's beyond it.

    Args:
        level: two-sided, such as 0.95.
        seeds: the variance that seeds add, and its degrees of freedom.
        examples: those of the examples.
    """
    variances = np.nan_to_num([seeds[0], examples[0]])
    if not variances.any():  # without any variance the quantile is not used
        variances = np.array([0.0, 1.0])
    freedoms = np.maximum([seeds[1], examples[1]], 1.0)
    shares = variances / variances.sum()
    inverse = float(shares**2 @ (1 / freedoms))
    *parts, together = t_quantile((1 + level) / 2, [*freedoms, 1 / inverse if inverse > 0 else np.inf])
    cochran = float(shares @ parts)
    return cochran if level > _HALFWAY_TO else (cochran + float(together)) / 2


def simultaneous_quantile(
    correlation: Array, level: float, freedom: float, *, n_samples: int = 20_000, seed: int = 0
) -> float:
    """Return c such that, at this level, all estimates lie within c standard errors of the truth at once.

    The estimates are taken as jointly Student's t (Hothorn, Bretz and Westfall 2008). For correlated estimates this is
    less than Bonferroni's bound. For one estimate it is the quantile of t.

    Args:
        correlation: (estimates, estimates).
        level: two-sided, such as 0.95.
        freedom: the standard errors' degrees of freedom.
        n_samples: the number of samples of the joint distribution.
        seed: of the samples; the same gives the same result.
    """
    single = float(t_quantile((1 + level) / 2, freedom))
    if len(correlation) < 2:
        return single
    rng = np.random.default_rng(seed)
    # Differences of every two have some eigenvalues of 0, and a Cholesky factorisation would fail on them.
    roots, vectors = np.linalg.eigh(correlation)
    factor = vectors * np.sqrt(np.clip(roots, 0, None))
    largest = np.abs(rng.standard_normal((n_samples, len(roots))) @ factor.T).max(1)
    scale = np.sqrt(rng.chisquare(freedom, n_samples) / freedom) if np.isfinite(freedom) else 1.0
    return max(single, float(np.quantile(largest / scale, level)))


def correlation_of(estimates: Sequence[Estimate]) -> Array:
    """Return the correlation of estimates on the same examples, without those that never vary: (kept, kept)."""
    pulls = np.stack([one.pull for one in estimates])
    pulls = pulls[(pulls != 0).any(1)]
    lengths = np.sqrt((pulls**2).sum(1, keepdims=True))
    return np.asarray((pulls / lengths) @ (pulls / lengths).T)


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
