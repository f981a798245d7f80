"""Students of which no two can be paired: one line that says why, and what to run."""

from __future__ import annotations

import numpy as np
import pytest

from anglekit.comparison.cells import Cell
from anglekit.comparison.pairable import check_pairable
from anglekit.errors import InputError


def cell(init="random", place=("validation", "accuracy"), part="score", **seeds):
    students = {(name.replace("_", "-"), seed): np.ones(1) for name, own in seeds.items() for seed in own}
    names = ("data", "score") if part == "score" else ("stream", "vertex")
    return Cell(part, init, dict(zip(names, place, strict=True)), students, dict.fromkeys(students, np.ones(1)))


@pytest.mark.parametrize(
    "cells",
    [
        [cell(forward=[0], reverse=[0])],
        [cell(forward=[0, 1], none=[1, 2])],
        [cell(forward=[0], reverse=[1]), cell("teacher", forward=[1], reverse=[1])],
        [cell(forward=[None], reverse=[None])],
        [cell(forward=[0]), cell(part="angle", place=("encoder", 1), forward=[0], reverse=[0])],
    ],
)
def test_one_pair_is_enough(cells) -> None:
    check_pairable(cells)


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (
            [cell(reverse=[2, 3], forward=[0, 1])],
            "no two strategies share a seed (forward: 0, 1; reverse: 2, 3); train them on the same seeds, as `anglekit "
            "sweep TEACHER --strategies forward,reverse --seeds 0-2` does",
        ),
        (
            [cell(forward=[0]), cell("teacher", reverse=[0])],
            "no two strategies share an initialisation (forward: random; reverse: teacher); start them from the same "
            "weights, as `anglekit sweep TEACHER --strategies forward,reverse --inits random` does",
        ),
        (
            [cell(place=("dev", "accuracy"), forward=[0]), cell(place=("test", "accuracy"), reverse=[0])],
            "no two strategies were measured alike (forward: accuracy, dev; reverse: accuracy, test); score them on "
            "one table (--validation), or analyse them together (anglekit analyze TEACHER STUDENT...)",
        ),
        (
            [cell(forward=[0]), cell(part="angle", place=("encoder", 1), reverse=[0])],
            "no two strategies were measured alike (forward: accuracy, validation; reverse: angle, encoder layer 1)",
        ),
        (
            # What two have in common under different initialisations is no pair.
            [cell(forward=[0], reverse=[1]), cell("teacher", forward=[1], reverse=[0])],
            "no two strategies share a seed (forward: random 0, teacher 1; reverse: random 1, teacher 0)",
        ),
        ([cell(forward=[0], reverse=[None])], "no two strategies share a seed (forward: 0; reverse: none)"),
        ([cell("unrecorded", a=[0]), cell("random", b=[0])], "(a: not recorded; b: random)"),
        (
            [cell(**{f"s{number}": range(10 * number, 10 * number + 7) for number in range(7)})],
            "(s0: 0, 1, 2, 3, 4 and more; s1: 10, 11, 12, 13, 14 and more; s2: ",
        ),
    ],
)
def test_no_pair_is_one_line(cells, message) -> None:
    with pytest.raises(InputError) as refused:
        check_pairable(cells)
    assert message in str(refused.value)
    assert len(str(refused.value)) < 600
