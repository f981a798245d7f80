"""The rule that stops hopeless strategies: its test keeps its level, and it stops no sooner than it may."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anglekit.distillation.sweep.stopping import LEVEL, MARGIN, judge, kept_so_far, level_of_a_test, surely_above

EXAMPLES = 2000


def answers(*accuracies: float, examples: int = EXAMPLES) -> np.ndarray:
    """Which of equally spaced examples are right at each look, for nested sets: (looks, examples)."""
    place = (np.arange(examples) + 0.5) / examples
    return np.array([(place < accuracy).astype(np.float64) for accuracy in accuracies])


@pytest.mark.parametrize("shares", [(0.06, 0.05), (0.4, 0.39), (0.011, 0.001), (0.2, 0.2)])
def test_a_mean_at_the_threshold_is_surely_above_it_at_most_as_often_as_the_level_says(shares):
    """Differences of 1, -1 and 0 with these shares, whose mean is the threshold."""
    up, down = shares
    draws = np.random.default_rng(0).choice([1.0, -1.0, 0.0], p=[up, down, 1 - up - down], size=(4000, 200))
    rate = surely_above(draws, up - down, level=0.05).mean()
    assert rate <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 4000)
    # The control: where the mean is above, it is found.
    assert surely_above(draws, up - down - 0.3, level=0.05).mean() > 0.9


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.5, 1.0]), min_size=1, max_size=60), st.floats(-0.9, 0.9))
def test_what_is_surely_above_a_threshold_is_above_every_lower_one_and_at_every_higher_level(values, threshold):
    draws = np.array(values)
    if surely_above(draws, threshold, level=0.01):
        assert draws.mean() > threshold
        assert surely_above(draws, threshold - 0.05, level=0.01)
        assert surely_above(draws, threshold, level=0.05)
    # Order does not matter, and another scale of values and threshold neither.
    assert surely_above(draws, threshold, level=0.05) == surely_above(draws[::-1], threshold, level=0.05)
    assert surely_above(draws, threshold, level=0.05) == surely_above(2 * draws, 2 * threshold, level=0.05, reach=2.0)


def test_the_tests_share_the_level():
    assert level_of_a_test(20, 4 * 3) == LEVEL / 240


def hopeless(training, end=1.0, **curves):
    found = judge(
        {name.replace("_", "-"): answers(*one) for name, one in curves.items()},
        np.array(training),
        end,
        level=level_of_a_test(10, 6),
    )
    return found.hopeless


def test_what_made_up_nothing_for_long_is_stopped_when_as_much_has_been_seen():
    forward, reverse = (0.3, 0.75, 0.8, 0.8, 0.8), (0.3, 0.5, 0.5, 0.5, 0.5)
    # With two fifths of the training left, the first two fifths brought 0.3: reverse may have that before it.
    assert hopeless([0, 0.2, 0.4, 0.6], forward=forward[:4], reverse=reverse[:4]) == ()
    # With a tenth left, half of what was gained in the first fifth is too little.
    assert hopeless([0, 0.2, 0.4, 0.6, 0.9], forward=forward, reverse=reverse) == ("reverse",)
    # The best is never stopped, and nothing is before anything was trained.
    assert hopeless([0], forward=(0.9,), reverse=(0.1,)) == ()


def test_a_gain_of_any_strategy_speaks_for_all_others():
    """Between looks 1 and 2 all-to-one made up 0.4 on forward, so reverse may do so too."""
    training = [0, 0.2, 0.4, 0.6, 0.8]
    flat = {"forward": (0.7,) * 5, "reverse": (0.5,) * 5}
    assert hopeless(training, **flat) == ("reverse",)
    assert hopeless(training, **flat, all_to_one=(0.3, 0.3, 0.7, 0.7, 0.7)) == ()
    # Also when it was stopped since; and as all-to-one fell from it, others may fall.
    assert hopeless(training, **flat, all_to_one=(0.3, 0.3, 0.7, 0.7)) == ()
    assert hopeless(training, **flat, all_to_one=(0.7, 0.7, 0.3, 0.3)) == ()


def test_a_point_below_is_not_hopeless_however_many_examples():
    training, more = np.linspace(0, 0.9, 4), 200_000
    for below, expected in ((MARGIN, ()), (MARGIN + 0.01, ("reverse",))):
        curves = {"forward": answers(*[0.8] * 4, examples=more), "reverse": answers(*[0.8 - below] * 4, examples=more)}
        assert judge(curves, training, 1.0, level=0.001).hopeless == expected


def test_equal_strategies_are_not_stopped_and_one_alone_is_not_judged():
    same = (0.3, 0.5, 0.7)
    assert hopeless([0, 0.5, 0.9], forward=same, reverse=same) == ()
    assert hopeless([0, 0.5, 0.9], forward=same) == ()


def test_training_that_lies_ahead_is_taken_in_proportion_where_less_was_seen():
    """The gain of 0.34 in the first tenth is nine times as much in the nine tenths ahead."""
    curves = {"forward": (0.3, 0.64), "reverse": (0.3, 0.3), "random": (0.3, 0.34)}
    assert hopeless([0, 0.1], **curves) == ()
    found = judge(
        {name: answers(*one) for name, one in curves.items()}, np.array([0, 0.1]), 1.0, level=level_of_a_test(10, 6)
    )
    assert found.gain == pytest.approx(9 * 0.34)
    assert (found.best, found.means["forward"]) == ("forward", pytest.approx(0.64))


def test_the_checkpoint_that_is_kept_is_the_first_best_so_far():
    looks = [np.array(one) for one in ([1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 1.0, 1.0], [0.0, 0.0, 0.0])]
    kept = kept_so_far(looks)
    assert [one.tolist() for one in kept] == [looks[0].tolist(), *[looks[1].tolist()] * 3]
