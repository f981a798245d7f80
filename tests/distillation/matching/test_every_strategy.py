"""The literature's strategies: their published maps, what they combine, and the rule of angle-aware."""

from __future__ import annotations

import json
from itertools import combinations, pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anglekit.distillation.matching.angle_aware import angle_aware_map, ascending_of_least_cost
from anglekit.distillation.matching.strategies import LayerMatching, layer_matching, ordered_draw
from anglekit.errors import InputError
from anglekit.vocabulary import ANGLE_AWARE, DRAWN, PAPER_STRATEGIES, STRATEGIES

DEPTHS = st.integers(2, 40).flatmap(lambda n: st.tuples(st.just(n), st.integers(2, n)))
COMBINING = [name for name, one in STRATEGIES.items() if one.combines]
OTHERS = [name for name in STRATEGIES if name not in (*PAPER_STRATEGIES, ANGLE_AWARE)]
PUBLISHED = {
    ("pkd-skip", 6): [(1, 2), (2, 4), (3, 6), (4, 8), (5, 10)],
    ("pkd-last", 6): [(1, 7), (2, 8), (3, 9), (4, 10), (5, 11)],
    ("uniform", 4): [(0, 0), (1, 3), (2, 6), (3, 9), (4, 12)],
    ("last", 6): [(6, 12)],
    ("one-to-one", 3): [(2, 6)],
}

few = settings(max_examples=10, deadline=None)


def match(strategy, teacher=12, student=3, **options):
    return layer_matching(strategy, teacher_blocks=teacher, student_blocks=student, **options)


def test_every_entry_says_its_formula_and_its_source():
    assert all(one.formula and one.source and one.description for one in STRATEGIES.values())
    assert set(PAPER_STRATEGIES) | set(DRAWN) | {ANGLE_AWARE} <= set(STRATEGIES)


@pytest.mark.parametrize(("key", "pairs"), PUBLISHED.items())
@pytest.mark.parametrize("family", ["bert", "causal"])
def test_maps_are_the_published_ones_in_every_family(key, pairs, family):
    assert list(match(key[0], student=key[1], family=family).pairs) == pairs


def test_groups_are_the_published_ones():
    assert match("group-combination").groups == ((1, (1, 2, 3, 4)), (2, (5, 6, 7, 8)), (3, (9, 10, 11, 12)))
    assert match("gated").groups[1] == (2, tuple(range(1, 9)))
    assert match("layer-attention").groups == tuple((s, tuple(range(1, 13))) for s in (1, 2, 3))
    assert match("layer-attention").pairs == ((0, 0),)
    assert match("layer-attention", family="causal").pairs == ()
    assert "layer 2 by mean(5-8)" in match("contiguous-mean").in_words()
    assert match("contiguous-mean").table()[2]["teacher"] == "mean(5-8)"


@few
@given(DEPTHS, st.sampled_from(OTHERS), st.sampled_from(["bert", "causal"]), st.integers(0, 99))
def test_every_matching_survives_json_and_names_each_layer_once(depths, strategy, family, seed):
    matching = match(strategy, *depths, family=family, seed=seed)
    assert LayerMatching.from_json(json.loads(json.dumps(matching.to_json()))) == matching
    assert len(set(matching.student_layers)) == len(matching.pairs) + len(matching.groups)
    assert set(matching.taught_by()) == set(matching.student_layers)
    assert all(0 <= layer <= depths[0] for layer in matching.teacher_layers)
    assert (matching.seed is not None) == (strategy in DRAWN)
    if strategy in ("contiguous-mean", "group-combination"):
        parts = [layer for _, group in matching.groups for layer in group]
        assert parts == list(range(1, depths[0] + 1)), "the parts are contiguous and hold each layer once"


@few
@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 10**6))
def test_a_draw_stays_in_order_and_changes_with_the_epoch(layers, number, seed):
    number = min(number, layers)
    draws = [ordered_draw(seed, "encoder", epoch, range(1, layers + 1), number) for epoch in range(6)]
    assert all(a < b for drawn in draws for a, b in pairwise(drawn))
    assert all(len(drawn) == number and set(drawn) <= set(range(1, layers + 1)) for drawn in draws)
    assert draws == [ordered_draw(seed, "encoder", epoch, range(1, layers + 1), number) for epoch in range(6)]


def test_a_draw_reaches_every_choice_and_streams_differ():
    seen = {ordered_draw(0, "encoder", epoch, range(1, 6), 2) for epoch in range(200)}
    assert seen == set(combinations(range(1, 6), 2))
    both = [[ordered_draw(0, s, epoch, range(1, 13), 3) for epoch in range(5)] for s in ("encoder", "decoder")]
    assert both[0] != both[1]


@few
@given(st.integers(1, 4), st.integers(0, 4), st.integers(0, 10**6))
def test_angle_aware_chooses_the_best_of_all_ascending_maps(rows, more, seed):
    costs = np.random.default_rng(seed).integers(0, 4, size=(rows, rows + more)).astype(float)
    chosen = list(ascending_of_least_cost(costs))
    every = {
        columns: sum(costs[r, c] for r, c in enumerate(columns)) for columns in combinations(range(rows + more), rows)
    }
    least = min(every.values())
    assert every[tuple(chosen)] == least
    equal = [columns for columns, cost in every.items() if cost == least]
    assert tuple(chosen) == min(equal, key=lambda columns: columns[::-1]), "of equal maps not the lowest"


def angles(degrees, students=("a",)):
    """Return a table of angles: by vertex the angle between two teacher layers (i, k)."""
    return pd.DataFrame(
        [
            {"student": s, "stream": "encoder", "vertex": j, "teacher_i": i, "teacher_k": k, "mean_angle_degrees": d}
            for s in students
            for (j, i, k), d in degrees.items()
        ]
    )


def test_angle_aware_by_hand():
    """Layer 2 is nearest to the others at vertex 1, layer 3 at vertex 2."""
    seen = {(1, 1, 2): 10, (1, 2, 3): 10, (1, 1, 3): 80, (2, 1, 2): 80, (2, 2, 3): 20, (2, 1, 3): 20}
    seen |= {(v, 0, k): 1 for v in (1, 2) for k in (1, 2, 3)}  # the embedding is no candidate
    table = angles(seen, ("a", "b"))
    assert angle_aware_map(table, "encoder", 3, 2, embedding=False) == ((1, 2), (2, 3))
    assert angle_aware_map(table, "encoder", 3, 2, embedding=True)[0] == (0, 0)
    for teacher, student, said in ((4, 2, "teacher is 3 and here it is 4"), (3, 1, "student is 2 and here it is 1")):
        with pytest.raises(InputError, match=said):
            angle_aware_map(table, "encoder", teacher, student, embedding=False)
    with pytest.raises(InputError, match="no angles of the decoder"):
        angle_aware_map(table, "decoder", 3, 2, embedding=False)
    lacking = angles({place: d for place, d in seen.items() if place != (2, 1, 2)})
    with pytest.raises(InputError, match="lacks angles between teacher layers at encoder layer 2"):
        angle_aware_map(lacking, "encoder", 3, 2, embedding=False)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: match("pkd-skip", student=1), "one block"),
        (lambda: match(ANGLE_AWARE), "none came; give the directory"),
        (lambda: match("gated", explicit=[(1, 1)]), "one of the two"),
        (lambda: match("gated", student=13), "allowed: 1 to 12"),
        (lambda: LayerMatching("encoder", "gated", 12, 3, ((1, 4),)), "with 0 groups"),
        (lambda: LayerMatching("encoder", "forward", 12, 3, (), None, ((1, (1, 2)),)), "with 1 groups"),
        (lambda: LayerMatching("encoder", "gated", 12, 3, (), None, ((1, (2, 1)),)), "ascending order"),
        (lambda: LayerMatching("encoder", "gated", 12, 3, ((1, 1),), None, ((1, (1, 2)),)), "at most once"),
        (lambda: LayerMatching("encoder", "gated", 12, 3, (), None, ((1, (1, 13)),)), "teacher layer 13"),
    ],
)
def test_what_is_refused(call, said):
    with pytest.raises(InputError, match=said):
        call()
