"""What a state packs under a name is what it holds under that name, and comes back to it."""

from __future__ import annotations

from functools import reduce

import pytest
import torch

from anglekit.geometry.cka import CrossSums
from anglekit.geometry.named_tensors import added, numbered, prefixed, within
from anglekit.geometry.sums import GeometrySums
from anglekit.geometry.token_sample import TokenSampler


def sampled():
    sampler = TokenSampler(0, 4)
    sides = [torch.randn(layers, 6, width) for layers, width in ((3, 5), (2, 4))]
    sampler.update(sides, torch.tensor([0, 0, 1, 1, 1, 2]), torch.arange(3), None)
    return sampler.state()


STATES = {
    "sums": lambda: GeometrySums.zeros(3, 2, 5),
    "projected sums": lambda: GeometrySums.zeros(3, 2, 5, 4),
    "cross": lambda: CrossSums.zeros([5, 4], [(0, 0), (0, 1)]),
    "sample": sampled,
}


def held(state, name):
    """The tensor that lies at `a.b.0`."""
    return reduce(lambda part, key: part[int(key)] if key.isdigit() else getattr(part, key), name.split("."), state)


@pytest.mark.parametrize("kind", STATES)
def test_names_are_the_places_of_the_tensors(kind):
    state = STATES[kind]()
    tensors = state.tensors()
    assert len({id(tensor) for tensor in tensors.values()}) == len(tensors)
    assert all(held(state, name) is tensor for name, tensor in tensors.items())
    fresh = {name: torch.full_like(tensor, number) for number, (name, tensor) in enumerate(tensors.items())}
    again = state.with_tensors(fresh)
    assert type(again) is type(state)
    assert again.tensors().keys() == fresh.keys()
    assert all(held(again, name) is tensor for name, tensor in fresh.items())
    if kind == "sums":  # without a projection the vertices are the student's own layers
        assert again.vertex is again.student


@pytest.mark.parametrize("kind", STATES)
def test_a_state_moves_as_a_whole(kind):
    state = STATES[kind]()
    moved = state.to("meta").tensors()
    # What belongs to examples is asked for on the host.
    on_host = {name for name in moved if name.startswith("examples.")} if kind.endswith("sums") else set()
    if kind == "sample":
        on_host = {name for name in moved if not name.startswith("states.")}
    assert {name for name, tensor in moved.items() if tensor.device.type != "meta"} == on_host
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in moved.items()} == {
        name: (tensor.shape, tensor.dtype) for name, tensor in state.tensors().items()
    }


@pytest.mark.parametrize("width", [None, 4])
def test_a_place_for_sums_needs_no_memory(width):
    place = GeometrySums.zeros(3, 2, 5, width, "meta").tensors()
    here = GeometrySums.zeros(3, 2, 5, width).tensors()
    assert place.keys() == here.keys()
    assert {name for name, tensor in place.items() if tensor.device.type != "meta"} == {
        name for name in place if name.startswith("examples.")
    }
    assert all(place[name].shape == tensor.shape and not tensor.any() for name, tensor in here.items())
    counts = {name for name, tensor in here.items() if not tensor.is_floating_point()}
    assert {tensor.dtype for name, tensor in here.items() if name not in counts} == {torch.float64}
    # The one that is large.
    assert [name for name in counts if here[name].dtype != torch.int64] == ["angles.histogram"]
    last = {name.rpartition(".")[2] for name in counts}
    assert last == {
        *("n_tokens", "n_complete", "n_finite", "n_nonfinite", "n_zero", "n_cosine", "n_distance", "n_cosines"),
        *("count", "acute", "tangential_count", "null_count", "histogram", "example_count", "zero_direction"),
        "example",
    }


def test_sums_of_products_are_of_double_precision_where_they_are_wanted():
    place = CrossSums.zeros([5, 4], device="meta").tensors()
    assert {tensor.device.type for tensor in place.values()} == {"meta"}
    assert {name for name, tensor in place.items() if tensor.dtype != torch.float64} == {"n"}


def test_names_are_put_on_and_taken_off():
    tensors = [torch.zeros(1), torch.ones(2)]
    packed = {**numbered("a", tensors), **prefixed("b", {"x": tensors[1]})}
    assert list(packed) == ["a.0", "a.1", "b.x"]
    assert within("a", packed) == {"0": tensors[0], "1": tensors[1]}
    assert within("b", packed) == {"x": tensors[1]}
    assert within("c", packed) == {}
    assert within("a", {"ab.x": tensors[0]}) == {}


def test_only_states_of_one_kind_add():
    one = {"a": torch.tensor([1.0]), "b": torch.tensor([2])}
    assert {name: tensor.tolist() for name, tensor in added(one, one).items()} == {"a": [2.0], "b": [4]}
    with pytest.raises(TypeError, match="only sums of one kind"):
        added(one, {"a": one["a"]})
