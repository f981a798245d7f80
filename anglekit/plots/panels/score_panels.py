"""What panels of scores share: intervals over seeds, whose scores a panel shows, and the range of their axis."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from anglekit.results.student_t import t_quantile

_EDGE = 0.02  # beyond the range of a share, so that points at its ends are drawn whole
_MORE = 0.15  # of the range of the points: how far an axis reaches beyond them


def mean_interval(values: np.ndarray) -> tuple[float, float, float]:
    """Return the mean of values over seeds and its 95% interval; NaN where there is one seed."""
    n, mean = len(values), float(values.mean())
    half = float(t_quantile(0.975, n - 1)) * float(values.std(ddof=1)) / np.sqrt(n) if n > 1 else np.nan
    return mean, mean - half, mean + half


def by_score(data: pd.DataFrame) -> Iterator[tuple[str, str, str, pd.DataFrame]]:
    """Yield the rows of each task, evaluation table and score: where they come from, a group, the score, the rows.

    Where they come from is empty unless there are several; a group is what panels of one scale share.
    """
    several = len(data.drop_duplicates(["task", "data"])) > 1
    for (task, table, score), rows in data.groupby(["task", "data", "score"], sort=False):
        where = ", ".join(part for part in (str(task), str(table)) if part) if several else ""
        yield where, f"{task}/{table}/{score}", str(score).replace("_", " "), rows


def reach(values: np.ndarray, *, share: bool) -> tuple[float, float]:
    """Return the range that an axis of scores shows: all points and levels and little more, of a share no more.

    With few seeds an interval reaches far beyond its points and would squeeze them.

    Args:
        values: points and levels; those that are not finite are not shown.
        share: they lie from 0 (or -1) to 1, and so does the axis.
    """
    known = values[np.isfinite(values)]
    low, high = float(known.min()), float(known.max())
    more = _MORE * ((high - low) or abs(high) or 1.0)
    if not share:
        return low - more, high + more
    return max(low - more, (-1.0 if low < 0 else 0.0) - _EDGE), min(high + more, 1 + _EDGE)
