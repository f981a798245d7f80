"""Cases that differ from those of `make test` in degree alone: `make cases`."""

from __future__ import annotations

import os

import pytest

#: Whether this is `make cases`.
MORE = "ANGLEKIT_CASES" in os.environ

#: Marks a case that walks the same code as one that is always tested.
more = pytest.mark.skipif(not MORE, reason="more cases have a target of their own: make cases")


def of_families(*always: str, others: tuple[str, ...] = ()) -> pytest.MarkDecorator:
    """Have a test run in the worlds of some families always, and in those of others with `make cases`."""
    worlds = [*always, *(pytest.param(name, marks=more) for name in others)]
    return pytest.mark.parametrize("world", worlds, indirect=True, scope="module")
