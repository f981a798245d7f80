"""One of a thing is not plural."""

from __future__ import annotations

import pytest

from anglekit.display.counts import counted


@pytest.mark.parametrize(
    ("number", "named", "words"),
    [
        (0, ("example", "dev"), "0 dev examples"),
        (1, ("example", "dev"), "1 dev example"),
        (2000, ("example", "dev"), "2,000 dev examples"),
        (1, ("seed",), "1 seed"),
        (3, ("seed",), "3 seeds"),
    ],
)
def test_a_number_of_things_has_the_plural_that_it_calls_for(number, named, words) -> None:
    assert counted(number, *named) == words


def test_a_plural_of_its_own_stands_for_several_only() -> None:
    assert [counted(number, "Geometry", plural="Geometries") for number in (1, 2)] == ["1 Geometry", "2 Geometries"]
