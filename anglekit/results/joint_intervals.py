"""Which pairs of teacher layers are surely above or below chance: 95% intervals that hold for a whole table at once."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from anglekit.results.student_t import t_quantile
from anglekit.vocabulary import COSINE_RESOLUTION

_LEVEL = 0.95
# How many rows depend on a row of an old table's null, the row itself included, at most.
_TIES = {"permuted-student": 3, "permuted-all": 7}


def with_joint_intervals(nulls: pd.DataFrame) -> pd.DataFrame:
    """Return a Geometry's table of nulls with an interval of the difference in every row that has one.

    `joint_low` and `joint_high` hold for all rows of a null together. Geometries of earlier versions lack them: there
    each row's own interval is widened by Bonferroni's correction, with the degrees of freedom that it was made with.
    """
    if nulls["joint_low"].notna().any() or not len(nulls):
        return nulls
    low, high, n = (nulls[name].to_numpy(np.float64) for name in ("low", "high", "n_tokens"))
    family = nulls["null"].map(nulls[np.isfinite(low)].groupby("null").size()).to_numpy(np.float64)
    ties = nulls["null"].map(_TIES).fillna(1).to_numpy(np.float64)
    freedom = (n - ties) / ties
    wider = _quantile(family, freedom) / _quantile(np.ones_like(family), freedom)
    middle, reach = (low + high) / 2, np.maximum((high - low) / 2 * wider, COSINE_RESOLUTION)
    return nulls.assign(joint_low=middle - reach, joint_high=middle + reach)


def holds_permutation_test(nulls: pd.DataFrame) -> bool:
    """Return whether the permuted student of a table was judged by a permutation test, as since 0.2."""
    return bool(nulls.loc[nulls["null"] == "permuted-student", "p_adjusted"].notna().any())


def closed_form_sides(angles: pd.DataFrame) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which rows of `Geometry.angles` are surely above the closed-form chance level, and which below it.

    By Student's t on the clustered standard error, corrected by Bonferroni for all rows that have an angle.
    """
    known = angles["n_tokens"].to_numpy() > 0
    difference = (angles["mean_cosine"] - angles["null_cosine"]).to_numpy(np.float64)
    family = np.full(len(angles), max(int(known.sum()), 1), dtype=np.float64)
    reach = _quantile(family, cluster_counts(angles) - 1) * angles["se_cosine"].to_numpy(np.float64)
    reach = np.maximum(reach, COSINE_RESOLUTION)
    return known & (difference > reach), known & (difference < -reach)


def cluster_counts(angles: pd.DataFrame) -> NDArray[np.float64]:
    """Return how many independent examples stand behind each row of `Geometry.angles`: repeats of a text count once.

    Geometries of earlier versions did not look for repeats; there it is the number of examples.
    """
    return angles["n_clusters"].fillna(angles["n_examples"]).to_numpy(np.float64)


def _quantile(family: NDArray[np.float64], freedom: NDArray[np.float64]) -> NDArray[np.float64]:
    return t_quantile(1 - (1 - _LEVEL) / (2 * family), freedom)
