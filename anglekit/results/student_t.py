"""Student's t, vectorised, and Wilson's interval: where quantiles and tails of intervals and tests come from."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri, stdtr, stdtrit


def t_quantile(probability: ArrayLike, freedom: ArrayLike) -> NDArray[np.float64]:
    """Return the quantiles of Student's t; arguments are broadcast against each other.

    Args:
        probability: of the lower tail, from 0 to 1.
        freedom: degrees of freedom, whole or not; infinite ones give the normal distribution.

    Returns:
        The quantiles; NaN where the degrees of freedom are NaN or not positive.
    """
    # Thousands of rows have few degrees of freedom between them, and a quantile is found by iteration.
    some, place = np.unique(np.asarray(freedom, np.float64), return_inverse=True)
    if np.ndim(probability) == 0 and 2 * len(some) < place.size:
        return t_quantile(probability, some)[place.reshape(np.shape(freedom))]
    wanted, degrees = np.broadcast_arrays(np.asarray(probability, np.float64), np.asarray(freedom, np.float64))
    known = degrees > 0
    finite = np.where(known & np.isfinite(degrees), degrees, 1.0)
    found = np.where(np.isposinf(degrees), ndtri(wanted), stdtrit(finite, wanted))
    return np.asarray(np.where(known, found, np.nan))


def two_sided_p(statistic: ArrayLike, freedom: ArrayLike) -> NDArray[np.float64]:
    """Return the probability that |t| is at least as large as observed; NaN where `t_quantile` is."""
    size, degrees = np.broadcast_arrays(np.abs(np.asarray(statistic, np.float64)), np.asarray(freedom, np.float64))
    known = degrees > 0
    finite = np.where(known & np.isfinite(degrees), degrees, 1.0)
    tail = np.where(np.isposinf(degrees), ndtr(-size), stdtr(finite, -size))
    return np.asarray(np.where(known, 2 * tail, np.nan))


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Return p-values adjusted for a family by Holm's step-down method (1979); NaN ones are no part of the family.

    Args:
        p_values: shape (tests,).
    """
    given = np.asarray(p_values, np.float64)
    adjusted = np.full(given.shape, np.nan)
    known = np.flatnonzero(~np.isnan(given))
    order = known[np.argsort(given[known], kind="stable")]
    left = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(left * given[order]), 1.0)
    return adjusted


def wilson_interval(share: float, n: float, quantile: float) -> tuple[float, float]:
    """Return the Wilson interval of a share of n independent draws; NaN without any.

    Unlike the normal interval it stays inside [0, 1] and has a width at 0 and 1 (Wilson 1927).

    Args:
        share: from 0 to 1.
        n: how many draws, whole or not.
        quantile: standard errors on each side, 1.96 for 95% where n is known for certain.
    """
    if not n > 0 or not np.isfinite(share) or not np.isfinite(quantile):
        return float("nan"), float("nan")
    square = quantile**2 / n
    centre = (share + square / 2) / (1 + square)
    half = quantile / (1 + square) * np.sqrt(share * (1 - share) / n + square / (4 * n))
    # Rounding must not lift an end over the share, or out of [0, 1].
    return min(max(float(centre - half), 0.0), share), max(min(float(centre + half), 1.0), share)
