"""Targets made of several teacher layers: each against its formula in float64, and by the property that defines it."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anglekit.distillation.losses.objective import LayerGroups
from anglekit.distillation.matching.strategies import layer_matching, ordered_draw
from anglekit.distillation.students.mixtures import (
    LayerMixtures,
    cheaper_shares,
    create_mixtures,
    groups_of,
    restore_mixtures,
    save_mixtures,
    transport_plan,
)
from anglekit.errors import InputError

WIDTH, SEEDS = 5, st.integers(0, 10**6)
MASK = torch.tensor([[1, 1, 1], [1, 0, 0]])

few = settings(max_examples=10, deadline=None)


def made(strategy, teacher=6, student=2, seed=3, *, trained=True):
    matching = layer_matching(strategy, teacher_blocks=teacher, student_blocks=student, seed=seed)
    mixtures = create_mixtures(groups_of([matching]), WIDTH)
    assert mixtures is not None
    if trained:
        generator = torch.Generator().manual_seed(seed)
        for weight in mixtures.parameters():
            weight.data = torch.randn(weight.shape, generator=generator)
    return mixtures


def states(seed, layers):
    generator = torch.Generator().manual_seed(seed)
    return {layer: torch.randn(2, 3, WIDTH, generator=generator) for layer in layers}


def squares(student, teacher):
    return (student - teacher).square().mean()


def formula(strategy, mixtures, student, teacher):
    """Return each target in float64, token by token."""
    groups = mixtures.groups["encoder"]
    found = {}
    for s, group in groups.of:
        target = torch.zeros(2, 3, WIDTH, dtype=torch.float64)
        for b in range(2):
            for x in range(3):
                t = {layer: teacher[layer][b, x].double() for layer in group}
                if strategy == "contiguous-mean":
                    target[b, x] = sum(t.values()) / len(t)
                elif strategy == "layer-attention":
                    products = torch.stack([student[s][b, x].double() @ each for each in t.values()])
                    target[b, x] = sum(a * each for a, each in zip(products.softmax(0), t.values(), strict=True))
                elif strategy == "group-combination":
                    weight = mixtures.get_parameter(f"encoder_{s}_weight").double()
                    target[b, x] = weight @ torch.cat(list(t.values()))
                else:
                    so_far = t[1]
                    for layer in range(2, group[-1] + 1):
                        weight, bias = (
                            mixtures.get_parameter(f"encoder_{layer}_{kind}").double() for kind in ("weight", "bias")
                        )
                        gate = torch.sigmoid(weight @ so_far + bias)
                        so_far = gate * t[layer] + (1 - gate) * so_far
                    target[b, x] = so_far
        found[s] = target
    return found


@pytest.mark.parametrize("strategy", ["contiguous-mean", "layer-attention", "group-combination", "gated"])
def test_targets_are_those_of_the_formula_and_padding_reaches_nothing(strategy):
    mixtures, student, teacher = made(strategy), states(0, (1, 2)), states(1, range(1, 7))
    oracle = formula(strategy, mixtures, student, teacher)
    padding = MASK[..., None] == 0
    dirty = [{layer: each.masked_fill(padding, torch.nan) for layer, each in x.items()} for x in (student, teacher)]
    for state in dirty[0].values():
        state.requires_grad_()
    taught = mixtures.taught("encoder", *dirty, MASK, squares)
    for (state, target, weight), (layer, wanted) in zip(taught, oracle.items(), strict=True):
        assert state is dirty[0][layer]
        assert weight == 1.0
        torch.testing.assert_close(target[MASK != 0].double(), wanted[MASK != 0], rtol=1e-4, atol=1e-5)
    if strategy != "contiguous-mean":
        torch.where(padding, 0.0, sum(target for _, target, _ in taught)).square().sum().backward()
        read = list(dirty[0].values()) if strategy == "layer-attention" else mixtures.parameters()
        assert all(each.grad.isfinite().all() and each.grad.abs().sum() > 0 for each in read)


def test_where_learned_mixtures_begin():
    teacher = states(1, range(1, 7))
    means = made("contiguous-mean").targets("encoder", {}, teacher, None)
    combined = made("group-combination", trained=False).targets("encoder", {}, teacher, None)
    for layer, mean in means.items():
        torch.testing.assert_close(combined[layer], mean)
    half = made("gated", teacher=2, student=1, trained=False).targets("encoder", {}, teacher, None)
    torch.testing.assert_close(half[1], (teacher[1] + teacher[2]) / 2)


def test_attention_over_one_layer_is_that_layer():
    student, teacher = states(0, (1,)), states(1, (1,))
    ((_, target, weight),) = made("layer-attention", 1, 1).taught("encoder", student, teacher, MASK, squares)
    assert weight == 1.0
    assert target[MASK != 0].equal(teacher[1][MASK != 0])


def test_a_draw_teaches_by_the_layers_of_its_epoch():
    mixtures, student, teacher = made("in-order-random"), states(0, (1, 2)), states(1, range(1, 7))
    for epoch in range(4):
        mixtures.epoch = epoch
        drawn = ordered_draw(3, "encoder", epoch, range(1, 7), 2)
        taught = mixtures.taught("encoder", student, teacher, None, squares)
        assert [target is teacher[layer] for (_, target, _), layer in zip(taught, drawn, strict=True)] == [True, True]
    assert not mixtures.holds_state
    with pytest.raises(InputError, match="no mixture"):
        mixtures.targets("encoder", student, teacher, None)


@few
@given(SEEDS, st.integers(1, 4), st.integers(1, 5))
def test_a_plan_carries_one_distribution_to_the_other_at_least_cost(seed, rows, columns):
    source = np.random.default_rng(seed)
    student, teacher = source.dirichlet(np.ones(rows)), source.dirichlet(np.ones(columns))
    costs = source.uniform(0, 5, (rows, columns))
    plan = transport_plan(student, teacher, costs)
    assert (plan >= 0).all()
    np.testing.assert_allclose(plan.sum(1), student, atol=1e-7)
    np.testing.assert_allclose(plan.sum(0), teacher, atol=1e-7)
    assert (plan * costs).sum() <= (np.outer(student, teacher) * costs).sum() + 1e-7
    shares = cheaper_shares(plan, costs)
    assert [float(share.sum()) for share in shares] == pytest.approx([1, 1])


@few
@given(SEEDS, st.integers(1, 5))
def test_a_plan_of_equal_shares_is_the_best_assignment(seed, size):
    costs = np.random.default_rng(seed).uniform(0, 5, (size, size))
    plan = transport_plan(np.full(size, 1 / size), np.full(size, 1 / size), costs)
    best = min(sum(costs[i, j] for i, j in enumerate(order)) for order in permutations(range(size)))
    assert float((plan * costs).sum()) * size == pytest.approx(best, abs=1e-6)


def test_a_transport_counts_each_pair_by_its_share_and_moves_shares_to_the_cheap():
    mixtures, student = made("optimal-transport", 2, 2), states(0, (1, 2))
    teacher = {1: student[2] + 2.0, 2: student[1] + 1.0}
    taught = mixtures.taught("encoder", student, teacher, None, squares)
    assert [(s is student[1], t is teacher[2], w) for s, t, w in taught] == [
        (True, True, pytest.approx(1.0)),
        (False, False, pytest.approx(1.0)),
    ]
    # A unit from layer 1 costs 1 and from layer 2 costs 4: shares in inverse ratio.
    assert mixtures.get_buffer("encoder_student_shares").tolist() == pytest.approx([0.8, 0.2])
    assert mixtures.get_buffer("encoder_teacher_shares").tolist() == pytest.approx([0.2, 0.8])
    before = mixtures.eval().state_dict()["encoder_student_shares"].clone()
    mixtures.taught("encoder", student, {1: student[1] + 1, 2: student[1] - 2}, None, squares)
    assert mixtures.get_buffer("encoder_student_shares").equal(before), "shares move in training alone"


@pytest.mark.parametrize("strategy", ["group-combination", "gated", "optimal-transport"])
def test_what_is_learned_is_saved_and_read_back(strategy, tmp_path):
    mixtures, other = made(strategy), made(strategy, trained=False)
    if strategy == "optimal-transport":
        mixtures.taught("encoder", states(0, (1, 2)), states(1, range(1, 7)), None, squares)
    assert any(not each.equal(other.state_dict()[name]) for name, each in mixtures.state_dict().items())
    save_mixtures(tmp_path, mixtures)
    restore_mixtures(tmp_path, other)
    assert all(each.equal(other.state_dict()[name]) for name, each in mixtures.state_dict().items())
    with pytest.raises(InputError, match="does not hold this run's mixtures"):
        restore_mixtures(tmp_path, made(strategy, teacher=5))
    with pytest.raises(InputError, match="does not hold this run's mixtures"):
        restore_mixtures(tmp_path / "nowhere", other)


def test_a_map_needs_no_mixtures():
    assert create_mixtures(groups_of([layer_matching("forward", teacher_blocks=4, student_blocks=2)]), WIDTH) is None
    assert LayerMixtures({"encoder": LayerGroups("mean", ((1, (1, 2)),))}, WIDTH).holds_state is False
