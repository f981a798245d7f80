"""Memory of a whole campaign."""

from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest

# Bytes that a module's cases may add to the process; what a single bomb takes is measured in `test_bombs`.
_MOST_GROWTH = 700 << 20


@pytest.fixture(scope="module", autouse=True)
def _bounded_memory() -> Iterator[None]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    assert grown < _MOST_GROWTH, f"the process grew by {grown >> 20} MiB"
