"""Layer similarities against dense float64 numpy."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anglekit.geometry.similarity import centred_cosines, pair_cosines, pair_distances

sizes = {"tokens": st.integers(2, 6), "layers_a": st.integers(1, 3), "layers_b": st.integers(1, 3)}
quick = settings(max_examples=30, deadline=None)


def draw(tokens, layers_a, layers_b, *, width=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(layers_a, tokens, width, generator=generator) + 1
    b = torch.randn(layers_b, tokens, width, generator=generator) - 0.5
    return a, b


def products(a, b):
    a, b = a.double(), b.double()
    return torch.einsum("itw,jtw->ijt", a, b), a.square().sum(-1), b.square().sum(-1)


def centred(a, b):
    a, b = a.double(), b.double()
    n = torch.tensor(a.shape[1])
    summed, squared_a, squared_b = (part.sum(-1) for part in products(a, b))
    return centred_cosines(summed, a.sum(1), b.sum(1), squared_a, squared_b, n)


def dense_centred(x, y):
    x, y = x.double().numpy(), y.double().numpy()
    x, y = x - x.mean(0), y - y.mean(0)
    return (x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum())


@quick
@given(seed=st.integers(0, 10**6), **sizes)
def test_cosines_and_distances_equal_the_dense_ones(seed, tokens, layers_a, layers_b):
    a, b = draw(tokens, layers_a, layers_b, seed=seed)
    cosine, defined = pair_cosines(*products(a, b))
    distance, known = pair_distances(*products(a, b))
    assert defined is None
    assert known is None
    assert torch.equal(cosine, pair_cosines(*products(a, b), finite=True)[0])
    assert torch.equal(distance, pair_distances(*products(a, b), finite=True)[0])
    for i, j, token in itertools.product(range(layers_a), range(layers_b), range(tokens)):
        x, y = a[i, token].double().numpy(), b[j, token].double().numpy()
        assert float(cosine[i, j, token]) == pytest.approx(x @ y / np.linalg.norm(x) / np.linalg.norm(y), abs=1e-12)
        assert float(distance[i, j, token]) == pytest.approx(np.linalg.norm(x - y), rel=1e-9)


@quick
@given(seed=st.integers(0, 10**6), **sizes)
def test_centred_cosines_equal_numpy_on_all_tokens(seed, tokens, layers_a, layers_b):
    a, b = draw(tokens, layers_a, layers_b, seed=seed)
    found = centred(a, b)
    for i, j in itertools.product(range(layers_a), range(layers_b)):
        assert float(found[i, j]) == pytest.approx(dense_centred(a[i], b[j]), abs=1e-9)


@quick
@given(seed=st.integers(0, 10**6), scale=st.floats(1e-3, 1e3), shift=st.floats(-5, 5))
def test_centred_cosines_know_neither_rotation_nor_scale_nor_shift(seed, scale, shift):
    a, b = (side.double() for side in draw(8, 2, 2, seed=seed))
    generator = torch.Generator().manual_seed(seed)
    turn = torch.linalg.qr(torch.randn(5, 5, generator=generator, dtype=torch.float64))[0]
    torch.testing.assert_close(
        centred(scale * (a + shift) @ turn, (b - shift) @ turn), centred(a, b), rtol=0, atol=1e-7
    )


def test_rotating_one_side_only_is_seen():
    a, b = draw(8, 2, 2)
    assert (centred(a.flip(-1), b) - centred(a, b)).abs().max() > 0.05
    assert (pair_cosines(*products(a.flip(-1), b))[0] - pair_cosines(*products(a, b))[0]).abs().max() > 0.05


def test_near_layers_keep_their_distance():
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(1, 20, 256, generator=generator)
    other = base + 1e-3 * torch.randn(1, 20, 256, generator=generator)
    distance, _ = pair_distances(*products(base, other))
    expected = (base.double() - other.double()).norm(dim=-1)[0]
    torch.testing.assert_close(distance[0, 0], expected, rtol=1e-6, atol=0)


def test_one_large_dimension_costs_no_digits():
    a, b = draw(30, 2, 2, width=64)
    a[..., 3] *= 1000
    b[..., 3] *= 1000
    found, cosine = centred(a, b), pair_cosines(*products(a, b))[0]
    for i, j in itertools.product(range(2), range(2)):
        assert float(found[i, j]) == pytest.approx(dense_centred(a[i], b[j]), abs=1e-9)
        expected = torch.nn.functional.cosine_similarity(a[i].double(), b[j].double(), dim=-1)
        torch.testing.assert_close(cosine[i, j], expected, rtol=0, atol=1e-12)


def test_the_same_layer_is_at_distance_0_and_cosine_1():
    a, _ = draw(6, 3, 1)
    cosine, _ = pair_cosines(*products(a, a))
    distance, _ = pair_distances(*products(a, a))
    for layer in range(3):
        torch.testing.assert_close(cosine[layer, layer], torch.ones(6, dtype=torch.float64), rtol=0, atol=1e-12)
        assert float(distance[layer, layer].max()) < 1e-6
        assert float(centred(a, a)[layer, layer]) == pytest.approx(1.0, abs=1e-12)


def test_zero_states_have_a_distance_but_no_cosine():
    a, b = draw(3, 2, 2)
    a[0, 1] = 0
    cosine, defined = pair_cosines(*products(a, b))
    assert (~defined).nonzero().tolist() == [[0, 0, 1], [0, 1, 1]]
    assert cosine[0, :, 1].tolist() == [0.0, 0.0]
    distance, known = pair_distances(*products(a, b))
    assert known is None
    assert torch.equal((~pair_cosines(*products(a, b), finite=True)[1]).nonzero(), (~defined).nonzero())
    torch.testing.assert_close(distance[0, 0, 1], b[0, 1].double().norm())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_has_neither(value):
    a, b = draw(3, 2, 2)
    b[1, 2, 0] = value
    for function in (pair_cosines, pair_distances):
        found, defined = function(*products(a, b))
        assert (~defined).nonzero().tolist() == [[0, 1, 2], [1, 1, 2]]
        assert bool(torch.isfinite(found).all())
        assert found[:, 1, 2].tolist() == [0.0, 0.0]


def test_no_tokens_give_empty_or_unknown_values():
    a, b = torch.zeros(2, 0, 5), torch.zeros(3, 0, 5)
    assert pair_cosines(*products(a, b))[0].shape == (2, 3, 0)
    assert pair_distances(*products(a, b))[0].shape == (2, 3, 0)
    assert centred(a, b).isnan().all()


def test_a_layer_that_does_not_vary_has_no_centred_cosine():
    a, b = draw(6, 2, 1)
    a[1] = a[1, :1]
    found = centred(a, b)
    assert found.isnan().tolist() == [[False], [True]]
    one_token = centred(*draw(1, 2, 1))
    assert one_token.isnan().all()


def test_no_rounding_leads_beyond_a_cosine_of_one():
    """Layers that are multiples of each other, of which every other quotient would round to more than 1."""
    worst = 0.0
    for seed in range(200):
        a, _ = draw(3, 1, 1, seed=seed)
        multiples = torch.cat([a * factor for factor in (1.0, -0.3, 7.0)])
        found = centred(multiples, multiples)
        assert found.abs().max() <= 1.0
        worst = max(worst, (found.abs() - 1).abs().max().item())
        cosine, _ = pair_cosines(*products(multiples, multiples))
        assert cosine.abs().max() <= 1.0
    assert worst < 1e-9
