"""Whether two analyses are one, but for the order in which sums were added up."""

from __future__ import annotations

import numpy as np
import pytest
from pandas.testing import assert_frame_equal

from anglekit.results.columns import COLUMNS, OPTIONAL_COLUMNS
from anglekit.results.geometry import Geometry


def assert_same(a: Geometry, b: Geometry, tolerance: float = 1e-9) -> None:
    """Every count alike, every number up to rounding of float64 sums."""
    for table in (*COLUMNS, *OPTIONAL_COLUMNS):
        one, other = getattr(a, table), getattr(b, table)
        counts = [column for column in one.columns if one[column].dtype.kind != "f"]
        assert_frame_equal(one[counts], other[counts])
        assert_frame_equal(one, other, rtol=tolerance, atol=tolerance)
    assert a.counts == b.counts
    assert len(a.sketch_tokens) == len(b.sketch_tokens)
    for mine, theirs in zip(a.sketch_tokens, b.sketch_tokens, strict=True):
        for key, value in theirs.items():
            exact = isinstance(value, str | int)
            assert np.array_equal(mine[key], value) if exact else np.allclose(mine[key], value, tolerance, tolerance)
    for mine, theirs in zip(a.projections, b.projections, strict=True):
        assert mine == {**theirs, "r_squared": pytest.approx(theirs["r_squared"], rel=1e-6)}
