"""Anisotropy against all pairs written out, and each view against what was planted."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from anglekit.geometry.anisotropy import anisotropy, dominant_dimensions, transformed
from anglekit.geometry.nulls import sample_angles, sample_products
from anglekit.vocabulary import VIEWS

WIDTH = 24


def states(n=60, layers=2, seed=0, common=0.0, rogue=0.0):
    """Isotropic states with a common mean and one dimension (7) of a large mean."""
    x = np.random.default_rng(seed).standard_normal((layers, n, WIDTH)) + common
    x[..., 7] += rogue
    return torch.from_numpy(x)


def test_anisotropy_equals_all_pairs_written_out():
    x = states(common=0.3)
    found = anisotropy(x.float())
    for layer, mean, share in zip(x.float().double().numpy(), found.mean_cosine, found.share, strict=True):
        unit = layer / np.linalg.norm(layer, axis=1, keepdims=True)
        products = np.array([unit[a] * unit[b] for a, b in itertools.combinations(range(60), 2)])
        assert mean.item() == pytest.approx(products.sum(1).mean())
        np.testing.assert_allclose(share, products.mean(0) / products.sum(1).mean())
        assert share.sum().item() == pytest.approx(1.0)
    assert found.mean_cosine[0] != found.mean_cosine[1]


def test_the_error_is_that_of_repetition():
    repeated = [anisotropy(states(80, 1, seed, common=0.5)) for seed in range(300)]
    spread = torch.cat([each.mean_cosine for each in repeated]).std()
    assert torch.cat([each.se for each in repeated]).mean() == pytest.approx(spread.item(), rel=0.15)


def test_isotropic_states_have_none_and_a_common_direction_shows():
    assert anisotropy(states(400)).mean_cosine.abs().max() < 0.01
    # |mean|^2 / (|mean|^2 + width): 24 / 48 up to the spread of the lengths.
    assert anisotropy(states(400, common=1.0)).mean_cosine.mean().item() == pytest.approx(0.5, abs=0.03)


def test_a_rogue_dimension_has_the_share_and_is_found():
    x = states(400, rogue=20.0)
    found = anisotropy(x)
    assert found.mean_cosine.min() > 0.9
    assert found.share[:, 7].min() > 0.99
    assert dominant_dimensions(anisotropy(torch.cat([x, states(400, 3, 1)])), 1).tolist() == [7]
    assert len(dominant_dimensions(found, 100)) == WIDTH - 1
    without = transformed(x, "dropped", dominant_dimensions(found, 1))
    assert without.shape == (2, 400, WIDTH - 1)
    assert anisotropy(without).mean_cosine.abs().max() < 0.01


def test_views_do_what_they_say():
    x = states(400, common=1.0) * torch.linspace(0.1, 9, WIDTH)
    x[..., 3] = 2.0
    torch.testing.assert_close(transformed(x.float(), "raw"), x.float().double())
    centred, standard = transformed(x, "centred"), transformed(x, "standardised")
    torch.testing.assert_close(centred, x - x.mean(1, keepdim=True))
    expected = (x - x.mean(1, keepdim=True)) / x.std(1, correction=0, keepdim=True)
    expected[..., 3] = 0.0
    torch.testing.assert_close(standard, expected)
    assert anisotropy(x).mean_cosine.min() > 0.3
    for view in ("centred", "standardised"):
        assert anisotropy(transformed(x, view)).mean_cosine.abs().max() < 0.01
    with pytest.raises(KeyError):
        transformed(x, "whitened")
    assert set(VIEWS) == {"raw", "centred", "standardised", "dropped"}


def test_an_angle_that_is_only_a_rogue_dimension_vanishes_in_the_other_views():
    """Teacher layers that share nothing but a large mean in one dimension look acute until it is taken out."""
    teacher, student = states(600, 3, seed=1, rogue=30.0), states(600, 1, seed=2)

    def mean_tangential(view):
        dropped = dominant_dimensions(anisotropy(torch.cat([teacher, student])), 1)
        sides = [transformed(side, view, dropped) for side in (teacher, student)]
        return sample_angles(sample_products(*sides)).tangential.mean().item()

    assert mean_tangential("raw") > 0.9
    for view in ("centred", "standardised", "dropped"):
        assert abs(mean_tangential(view)) < 0.02


def test_few_tokens_and_zero_states():
    one = anisotropy(states(1))
    assert one.mean_cosine.isnan().all()
    assert one.share.isnan().all()
    x = states(4)
    x[0, 0] = 0.0
    found = anisotropy(x)
    assert found.mean_cosine[0].item() == pytest.approx(anisotropy(x[:, 1:]).mean_cosine[0].item() * 6 / 12)
    assert found.mean_cosine.isfinite().all()


def test_two_tokens_have_one_cosine_and_one_has_none():
    x = states(2, layers=3).float()
    found = anisotropy(x)
    u, v = x.double().unbind(1)
    torch.testing.assert_close(found.mean_cosine, torch.nn.functional.cosine_similarity(u, v, dim=-1))
    assert found.se.abs().max() < 1e-12
    for each in (found, anisotropy(x[:, :1])):
        assert {values.dtype for values in (each.mean_cosine, each.se, each.share)} == {torch.float64}
    assert anisotropy(x[:, :1]).mean_cosine.isnan().all()


def test_a_part_of_the_layers_keeps_all_of_them():
    found = anisotropy(states(layers=4, common=0.3))
    part = found.of(slice(1, 3))
    assert torch.equal(part.mean_cosine, found.mean_cosine[1:3])
    assert torch.equal(part.se, found.se[1:3])
    assert torch.equal(part.share, found.share[1:3])


def test_a_dimension_that_does_not_vary_is_nothing_once_standardised():
    """Its mean may be rounded: what is left of it then is neither kept nor blown up."""
    x = states()
    x[..., 3] = 0.1
    x[..., 5] = 7 / 3
    found = transformed(x, "standardised")
    assert (found[..., [3, 5]] == 0).all()
    assert (found[..., 4].std(1, correction=0) - 1).abs().max() < 1e-9
