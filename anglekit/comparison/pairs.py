"""What a mean over pairs of teacher layers hides: obtuse pairs, and the pairs that differ most."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from anglekit.comparison.cells import ARM_KEY, rows_by_arm
from anglekit.results.geometry import Geometry
from anglekit.results.joint_intervals import cluster_counts
from anglekit.results.overview import layer_means
from anglekit.results.student_t import holm, t_quantile, two_sided_p
from anglekit.vocabulary import COSINE_RESOLUTION

_LEVEL = 0.05

OBTUSE_COLUMNS = (*ARM_KEY, "teacher_i", "teacher_k", "mean_cosine", "high", "mean_angle_degrees", "surely")
AVERAGING_COLUMNS = (
    *ARM_KEY, "mean_cosine", "mean_angle_degrees", "least_angle_degrees", "largest_angle_degrees", "teacher_i",
    "teacher_k", "acute_fraction", "pairs", "obtuse_pairs", "undefined_pairs",
)  # fmt: skip


def _angles_by_arm(geometries: Sequence[tuple[str, Geometry]]) -> pd.DataFrame:
    """Return the angles of all students with strategy, init and seed, each arm once."""
    if not geometries:
        return pd.DataFrame(columns=[*ARM_KEY, "teacher_i", "teacher_k", "mean_cosine", "mean_angle_degrees"])
    return rows_by_arm(geometries, "angles").drop_duplicates([*ARM_KEY, "teacher_i", "teacher_k"], ignore_index=True)


def obtuse_pairs(geometries: Sequence[tuple[str, Geometry]]) -> pd.DataFrame:
    """Return a row for each pair of teacher layers whose mean cosine is below 0; a mean over pairs hides them.

    Returns:
        Columns `OBTUSE_COLUMNS`, the widest angle first; `high` is the upper end of the mean cosine's own 95% interval,
        clustered by example. `surely` holds at 95% for all pairs of all students together, the acute ones among them:
        Holm's method on Student's t against 90 degrees. -1 stands for an unrecorded seed.
    """
    table = _angles_by_arm(geometries)
    if table.empty:
        return pd.DataFrame(columns=list(OBTUSE_COLUMNS))
    freedom, mean, error = cluster_counts(table) - 1, table["mean_cosine"], table["se_cosine"].to_numpy()
    statistic = mean.to_numpy() / np.hypot(error, COSINE_RESOLUTION)
    surely = (holm(two_sided_p(statistic, freedom)) <= _LEVEL) & (mean < 0)
    high = mean + t_quantile(1 - _LEVEL / 2, freedom) * error
    obtuse = table.assign(high=high, surely=surely)[mean < 0]
    return obtuse.sort_values("mean_cosine", kind="stable", ignore_index=True)[list(OBTUSE_COLUMNS)]


def averaging_views(geometries: Sequence[tuple[str, Geometry]]) -> pd.DataFrame:
    """Return for each student layer the mean over tokens and pairs, and the range of the pairs' own means.

    Returns:
        Columns `AVERAGING_COLUMNS`; each pair weighs the same; `teacher_i, teacher_k` is the widest pair.
    """
    rows = []
    for key, group in _angles_by_arm(geometries).groupby(list(ARM_KEY), sort=False):
        row = {**dict(zip(ARM_KEY, key, strict=True)), **layer_means(group)}
        counted = group[group["n_tokens"] > 0]
        if len(counted):
            widest = counted.iloc[int(counted["mean_angle_degrees"].to_numpy().argmax())]
            row["least_angle_degrees"] = float(counted["mean_angle_degrees"].min())
            row["largest_angle_degrees"] = float(widest["mean_angle_degrees"])
            row |= {"teacher_i": int(widest["teacher_i"]), "teacher_k": int(widest["teacher_k"])}
        rows.append(row)
    return pd.DataFrame(rows, columns=list(AVERAGING_COLUMNS))


def largest_pair_differences(geometries: Sequence[tuple[str, Geometry]]) -> pd.DataFrame:
    """Return for every two strategies the pair of teacher layers whose angle differs most between them.

    Angles are means over the seeds that both strategies have. There is no interval: pairs are not stored by example.

    Returns:
        Columns `init, stream, vertex, strategy_a, strategy_b, pair_difference` (a - b, degrees), `teacher_i,
        teacher_k`, and `sides_differ`: how many pairs are acute under one and obtuse under the other. Every two
        strategies appear in both orders.
    """
    columns = ["init", "stream", "vertex", "strategy_a", "strategy_b"]
    found = [*columns, "pair_difference", "pair_i", "pair_k", "sides_differ"]
    table = _angles_by_arm(geometries)
    if table.empty:
        return pd.DataFrame(columns=found)
    keys = ["init", "seed", "stream", "vertex", "teacher_i", "teacher_k"]
    kept = table[[*keys, "strategy", "mean_angle_degrees", "mean_cosine"]]
    both = kept.merge(kept, on=keys, suffixes=("_a", "_b"))
    both = both[both["strategy_a"] != both["strategy_b"]]
    means = both.groupby([*columns, "teacher_i", "teacher_k"], as_index=False)[
        ["mean_angle_degrees_a", "mean_angle_degrees_b", "mean_cosine_a", "mean_cosine_b"]
    ].mean()
    means["pair_difference"] = means["mean_angle_degrees_a"] - means["mean_angle_degrees_b"]
    means["sides_differ"] = (means["mean_cosine_a"] < 0) != (means["mean_cosine_b"] < 0)
    means = means.dropna(subset=["pair_difference"])
    largest = means.loc[means["pair_difference"].abs().groupby([means[name] for name in columns]).idxmax()]
    sides = means.groupby(columns, as_index=False)["sides_differ"].sum()
    largest = largest.drop(columns="sides_differ").merge(sides, on=columns)
    return largest.rename(columns={"teacher_i": "pair_i", "teacher_k": "pair_k"})[found].reset_index(drop=True)
