"""What decides a family of pairs, and how much data would decide it."""

from __future__ import annotations

import numpy as np

from anglekit.comparison.family import Family, overall_verdict


def row(**changed):
    """A row between two strategies: two degrees apart, undecided."""
    return {
        "part": "angle", "measure": "angle, encoder layer 1", "score": None, "init": "random", "strategy_a": "forward",
        "strategy_b": "reverse", "difference": 2.0, "margin": 2.0, "low": 0.5, "high": 3.5, "test_low": 1.0,
        "test_high": 3.0, "joint_low": 0.8, "joint_high": 3.2, "verdict": "undecided", "n_seeds": 3, "n_examples": 50,
        "needed_seeds": None, "needed_examples": None, "needed_factor": None,
    } | changed  # fmt: skip


def family(verdict, *rows, part="angle", init="random", n_seeds=3, **options):
    own = [{"verdict": verdict} | one for one in rows or ({},)]
    members = tuple(row(part=part, init=init, **one) for one in own)
    about = "strategies" if n_seeds >= 3 else "these students"
    return Family(part, init, verdict, n_seeds, members[0], members, about=about, **options)


def test_one_different_family_is_enough_and_all_must_be_equivalent() -> None:
    same, other, open_ = (family(verdict) for verdict in ("equivalent", "different", "undecided"))
    assert overall_verdict([same, other, open_]) == "different"
    assert overall_verdict([same, same]) == "equivalent"
    assert overall_verdict([same, open_]) == "undecided"
    assert overall_verdict([]) == "undecided"


def test_what_is_needed_is_the_nearest_pair_beyond_the_margin_or_the_farthest_within() -> None:
    beyond = family("undecided", {"difference": 2.5, "needed_seeds": 20}, {"difference": 3.0, "needed_examples": 60})
    assert beyond.needed["needed_examples"] == 60
    within = family("undecided", {"difference": 1.0, "needed_seeds": 20}, {"difference": 1.5, "needed_examples": 60})
    assert within.needed["needed_seeds"] == 20
    edge = family("undecided", {"difference": 2.0, "needed_seeds": 4}, {"difference": 0.1, "needed_factor": 3.0})
    assert edge.needed["needed_factor"] == 3.0
    either = family(
        "undecided",
        {"difference": 1.0, "needed_seeds": 30, "needed_examples": 55},
        {"difference": 1.0, "needed_examples": 100},
    )
    assert either.needed["needed_examples"] == 100  # the first needs but a tenth more examples
    assert family("equivalent").needed is None
    assert family("undecided", {"needed_seeds": 4}, {"test_low": np.nan}).needed is None
    decided = family("undecided", {"verdict": "equivalent", "difference": 0.1}, {"difference": 1.0, "needed_seeds": 9})
    assert decided.needed["needed_seeds"] == 9
