"""Memory of a whole campaign, and limits that are low enough for claims beyond them to be harmless."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from anglekit.analysis.forecast import peak_memory
from anglekit.models import checkpoint_files

# Bytes that a module's cases may add to the process.
_MOST_GROWTH = 700 << 20


@pytest.fixture(scope="module", autouse=True)
def _bounded_memory() -> Iterator[None]:
    before = peak_memory()
    yield
    grown = peak_memory() - before
    assert grown < _MOST_GROWTH, f"the process grew by {grown >> 20} MiB"


@pytest.fixture(autouse=True)
def _low_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model of 200 layers is too deep here: whoever built one would be done in a moment."""
    monkeypatch.setattr(checkpoint_files, "_MOST_COUNTED", 100)
    monkeypatch.setattr(checkpoint_files, "_MORE_TENSORS", 100)
    monkeypatch.setattr(checkpoint_files, "_MORE_ELEMENTS", 1 << 20)
