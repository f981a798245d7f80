"""Adapters: which layers get one, how they start, and that they never enter the student."""

import math

import pytest
import torch

from anglekit.distillation.matching.strategies import layer_matching
from anglekit.distillation.students.adapters import create_adapters
from anglekit.errors import InputError
from anglekit.models.projections import load_adapters, save_adapters

MATCHINGS = [
    layer_matching(None, teacher_blocks=6, student_blocks=3, stream=stream, explicit=pairs)
    for stream, pairs in [("encoder", [(0, 0), (3, 6)]), ("decoder", [(2, 4)])]
]


def test_every_matched_layer_has_a_bias_free_adapter():
    adapters = create_adapters(MATCHINGS, student_width=8, teacher_width=12, seed=0)
    assert list(adapters.weights()) == [("encoder", 0), ("encoder", 3), ("decoder", 2)]
    assert sorted(adapters.state_dict()) == ["decoder.2.weight", "encoder.0.weight", "encoder.3.weight"]
    assert all(weight.shape == (12, 8) and weight.requires_grad for weight in adapters.weights().values())
    states = torch.randn(2, 5, 8)
    weight = adapters.weights()["encoder", 3]
    torch.testing.assert_close(adapters.project("encoder", 3, states), states @ weight.T)


def test_equal_widths_need_none_and_change_nothing():
    adapters = create_adapters(MATCHINGS, student_width=8, teacher_width=8, seed=0)
    states = torch.randn(2, 5, 8)
    assert adapters.weights() == {}
    assert adapters.project("encoder", 1, states) is states


def test_an_unmatched_layer_has_no_adapter():
    adapters = create_adapters(MATCHINGS, student_width=8, teacher_width=12, seed=0)
    for stream, layer in [("encoder", 1), ("decoder", 0)]:
        with pytest.raises(InputError, match=f"{stream}'s layer {layer} has no adapter"):
            adapters.project(stream, layer, torch.randn(1, 1, 8))
    with pytest.raises(InputError, match="at least 1"):
        create_adapters(MATCHINGS, student_width=0, teacher_width=12, seed=0)


def test_the_seed_decides_and_the_global_random_state_is_left_alone():
    before = torch.get_rng_state()
    first, again, other = (
        create_adapters(MATCHINGS, student_width=64, teacher_width=96, seed=seed).weights() for seed in (1, 1, 2)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["encoder", 0], other["encoder", 0])
    assert not torch.equal(first["encoder", 0], first["encoder", 3])
    bound = 1 / math.sqrt(64)
    assert first["encoder", 0].abs().max() <= bound
    assert first["encoder", 0].std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)


def test_they_are_saved_beside_the_student_under_their_own_names(tmp_path):
    adapters = create_adapters(MATCHINGS, student_width=8, teacher_width=12, seed=0)
    save_adapters(tmp_path, adapters.weights(), trained=True)
    loaded = load_adapters(tmp_path)
    assert loaded.keys() == adapters.weights().keys()
    assert all(torch.equal(loaded[key], weight) for key, weight in adapters.weights().items())
