"""The tokens of the smallest and largest angles: those of a plain search, in whatever order tokens come."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from anglekit.geometry.sums import LARGEST, SMALLEST, AngleExtremes, token_numbers, token_place

LAYERS = 3
PAIRS = 3
VERTICES = 2


def searched(cosine, valid, numbers):
    """Return the token with the largest and the smallest cosine of each vertex and pair, the first of equals."""
    found = np.full((2, VERTICES, PAIRS), 2**62)
    for vertex, pair in np.ndindex(VERTICES, PAIRS):
        rows = [
            (float(cosine[vertex, pair, token]), int(numbers[token]))
            for token in range(len(numbers))
            if valid[vertex, pair, token]
        ]
        if rows:
            found[SMALLEST, vertex, pair] = min(rows, key=lambda row: (-row[0], row[1]))[1]
            found[LARGEST, vertex, pair] = min(rows)[1]
    return found


def drawn(seed, tokens):
    """Return cosines of few values, so that many are equal, which of them are defined, and the tokens' numbers."""
    rng = np.random.default_rng(seed)
    cosine = torch.from_numpy(rng.integers(-3, 4, (VERTICES, PAIRS, tokens)) / 4.0)
    valid = torch.from_numpy(rng.random((VERTICES, PAIRS, tokens)) < 0.6)
    numbers = token_numbers(torch.from_numpy(rng.permutation(tokens)), torch.from_numpy(rng.integers(0, 9, tokens)))
    return cosine, valid, numbers


@given(st.integers(0, 2**31), st.integers(1, 12), st.integers(0, 12))
def test_the_extremes_are_those_of_a_plain_search_however_the_tokens_are_divided(seed, tokens, cut):
    cosine, valid, numbers = drawn(seed, tokens)
    expected = searched(cosine, valid, numbers)
    order = torch.from_numpy(np.random.default_rng(seed + 1).permutation(tokens))
    parts = [AngleExtremes.zeros(VERTICES, LAYERS) for _ in range(2)]
    for part, own in zip(parts, (order[:cut], order[cut:]), strict=True):
        if len(own):
            part.update(cosine[..., own], valid[..., own], numbers[own])
    for merged in (
        parts[0] + parts[1],
        parts[1] + parts[0],
        AngleExtremes.zeros(VERTICES, LAYERS) + parts[0] + parts[1],
    ):
        assert np.array_equal(merged.token.numpy(), expected)
    degrees = merged.degrees().numpy()
    assert np.array_equal(np.isnan(degrees), expected == 2**62)
    known = expected[SMALLEST] < 2**62
    assert (degrees[SMALLEST][known] <= degrees[LARGEST][known]).all()


def test_an_undefined_angle_counts_nowhere_and_all_may_be_defined():
    """A negative control: without the mask the undefined token would win."""
    cosine = torch.tensor([[[0.9, 0.1, 0.5]]], dtype=torch.float64)
    numbers = token_numbers(torch.tensor([4, 5, 6]), torch.tensor([1, 2, 3]))
    masked, whole = AngleExtremes.zeros(1, 2), AngleExtremes.zeros(1, 2)
    masked.update(cosine, torch.tensor([[[False, True, True]]]), numbers)
    whole.update(cosine, None, numbers)
    assert [token_place(int(one)) for one in masked.token.flatten()] == [(6, 3), (5, 2)]
    assert [token_place(int(one)) for one in whole.token.flatten()] == [(4, 1), (5, 2)]
    assert masked.degrees().flatten().tolist() == pytest.approx([60.0, np.degrees(np.arccos(0.1))])
    assert token_place(2**62) == (-1, -1)
