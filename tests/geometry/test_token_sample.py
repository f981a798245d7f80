"""The sample of tokens: what it holds, that nothing but the seed decides it, and that it is uniform."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anglekit.geometry.token_sample import (
    TokenSample,
    TokenSampler,
    _below,
    example_draws,
    example_means,
    sample_capacity,
)

LAYERS, WIDTHS = (3, 2), (4, 3)


def probe(n_examples=40, seed=0, special=True):
    """Examples of 1 to 7 tokens; about a third of the tokens special."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 8, n_examples)
    return [
        (
            row,
            [
                torch.from_numpy(rng.standard_normal((layers, length, width))).float()
                for layers, width in zip(LAYERS, WIDTHS, strict=True)
            ],
            rng.random(length) < 0.3 if special else None,
        )
        for row, length in enumerate(lengths)
    ]


def feed(sampler, examples):
    rows, states, special = zip(*examples, strict=True)
    lengths = [each[0].shape[1] for each in states]
    sampler.update(
        [torch.cat([each[side] for each in states], dim=1) for side in range(len(LAYERS))],
        torch.repeat_interleave(torch.arange(len(rows)), torch.tensor(lengths)),
        torch.tensor(rows),
        None if special[0] is None else np.concatenate(special),
    )


def sampled(examples, batches=1, capacity=16, seed=5, order=None, rows=None):
    sampler = TokenSampler(seed, capacity, rows)
    order = np.arange(len(examples)) if order is None else order
    for part in np.array_split(order, batches):
        if len(part):
            feed(sampler, [examples[position] for position in part])
    return sampler.state()


def assert_same(a, b):
    for name in ("priority", "example", "n_content", "n_special", "special_drawn"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name
    assert a.capacity == b.capacity
    for left, right in zip(a.states, b.states, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-6, atol=1e-6)


@given(batches=st.integers(1, 45), shuffle=st.integers(0, 5), special=st.booleans())
@settings(max_examples=30, deadline=None)
def test_batches_and_their_order_do_not_matter(batches, shuffle, special):
    examples = probe(special=special)
    order = np.random.default_rng(shuffle).permutation(len(examples))
    assert_same(sampled(examples, batches, order=order), sampled(examples))


def test_examples_that_may_not_be_kept_pass_by():
    """The sample is that of the others alone, whatever passes between them; without a list all may be kept."""
    examples = probe()
    wanted = np.arange(0, len(examples), 3)
    alone = sampled([examples[row] for row in wanted], rows=wanted)
    assert_same(sampled(examples, batches=4, rows=wanted), alone)
    assert set(alone.example.tolist()) <= set(wanted.tolist())
    assert not set(sampled(examples).example.tolist()) <= set(wanted.tolist())


@given(cut=st.integers(0, 40), second=st.integers(0, 40))
@settings(max_examples=20, deadline=None)
def test_shards_merge_to_the_whole(cut, second):
    examples = probe()
    edges = [0, *sorted((cut, second)), 40]
    shards = [sampled(examples[start:stop]) for start, stop in itertools.pairwise(edges)]
    assert_same((shards[0] + shards[1]) + shards[2], sampled(examples))
    assert_same(shards[0] + (shards[1] + shards[2]), sampled(examples))


@pytest.mark.parametrize("capacity", [1, 16, 40, 100])
def test_knowing_the_rows_beforehand_changes_nothing(capacity):
    examples = probe()
    known = sampled(examples, batches=5, capacity=capacity, rows=np.arange(40))
    assert_same(known, sampled(examples, capacity=capacity))


def test_half_of_the_probe_is_another_sample():
    examples = probe()
    with pytest.raises(AssertionError):
        assert_same(sampled(examples[:20]), sampled(examples))


def test_seeds_reproduce_and_differ():
    examples = probe()
    assert_same(sampled(examples, seed=7), sampled(examples, seed=7))
    assert not torch.equal(sampled(examples, seed=7).example, sampled(examples, seed=8).example)
    assert torch.equal(sampled(examples, seed=-1).example, sampled(examples, seed=-1).example)


@pytest.mark.parametrize("capacity", [1, 16, 100])
def test_the_sample_holds_real_tokens_and_means(capacity):
    examples = probe()
    sample = sampled(examples, batches=6, capacity=capacity)
    assert len(sample) == min(capacity, 40)
    priorities = example_draws(5, np.arange(40), 0)
    assert sample.example.tolist() == np.argsort(priorities)[: len(sample)].tolist()
    for kind in ("all", "content", "special", "mean"):
        places, sides = sample.tokens(kind)
        for token, place in enumerate(places.tolist()):
            _, states, special = examples[int(sample.example[place])]
            assert int(sample.n_special[place]) == special.sum()
            assert int(sample.n_content[place]) == (~special).sum()
            here = [side[:, token] for side in sides]
            if kind == "mean":
                for found, whole in zip(here, states, strict=True):
                    torch.testing.assert_close(found, whole.mean(1))
                continue
            where = [n for n in range(len(special)) if torch.equal(states[0][:, n], here[0])]
            assert len(where) == 1
            assert torch.equal(states[1][:, where[0]], here[1])  # the same token of every side
            if kind != "all":
                assert special[where[0]] == (kind == "special")
        expected = {"content": sample.n_content > 0, "special": sample.n_special > 0}.get(kind)
        assert len(places) == (len(sample) if expected is None else int(expected.sum()))
    with pytest.raises(KeyError):
        sample.tokens("some")


def test_the_draw_is_uniform_over_examples_and_over_an_examples_tokens():
    rows = np.arange(20_000)
    draws = example_draws(3, rows, 0) / 2.0**62
    assert draws.min() >= 0
    assert draws.max() < 1
    assert np.abs(np.histogram(draws, 20, (0, 1))[0] / 1000 - 1).max() < 0.12
    assert abs(np.corrcoef(draws[:-1], draws[1:])[0, 1]) < 0.03
    assert abs(np.corrcoef(draws, example_draws(3, rows, 1) / 2.0**62)[0, 1]) < 0.03
    assert abs(np.corrcoef(draws, example_draws(4, rows, 0) / 2.0**62)[0, 1]) < 0.03
    # Examples of five tokens numbered 0 to 4, of which 0 and 4 are special.
    n = 5000
    sampler = TokenSampler(0, n)
    states = torch.arange(5.0).repeat(n).view(1, -1, 1)
    special = np.tile([True, False, False, False, True], n)
    sampler.update([states], torch.repeat_interleave(torch.arange(n), 5), torch.arange(n), special)
    sample = sampler.state()
    for kind, members in (("all", range(5)), ("content", (1, 2, 3)), ("special", (0, 4))):
        counts = np.bincount(sample.tokens(kind)[1][0].flatten().long().numpy(), minlength=5)
        for token in range(5):
            expected = n / len(members) if token in members else 0
            assert abs(counts[token] - expected) < 5 * max(expected, 1) ** 0.5 * bool(expected) + 1e-9


def test_an_example_that_comes_twice_is_refused():
    examples = probe()
    with pytest.raises(ValueError, match="came twice"):
        sampled([*examples[:3], examples[1]])
    with pytest.raises(ValueError, match="in both"):
        sampled(examples[:3]) + sampled(examples[2:5])
    with pytest.raises(ValueError, match="same capacity"):
        sampled(examples[:3]) + sampled(examples[3:5], capacity=3)


def test_nothing_is_the_identity():
    nothing, some = TokenSampler(5, 16).state(), sampled(probe())
    assert len(nothing) == 0
    assert TokenSample.empty(16).tensors().keys() == nothing.tensors().keys()
    assert len(TokenSample.empty(16)) == 0
    assert TokenSample.empty(16).states == nothing.states == ()
    assert_same(nothing + some, some)
    assert_same(some + nothing, some)
    assert isinstance(nothing + nothing, TokenSample)


def test_a_place_that_changes_hands_keeps_nothing_of_its_last_example():
    """An example without special tokens follows one with them: its place must read zero, not the other's token."""
    with_special, without = probe(30, seed=1), probe(30, seed=2)
    without = [(row + 30, states, np.zeros(states[0].shape[1], dtype=bool)) for row, states, _ in without]
    sample = sampled([*with_special, *without], batches=10, capacity=4)
    lacking = sample.n_special == 0
    assert lacking.any()
    assert (sample.states[0][1][:, lacking] == 0).all()


def test_the_capacity_follows_the_memory():
    assert sample_capacity(17 * 768) == 256
    qwen = sample_capacity(47 * 4096)
    assert 64 < qwen < 256
    assert 3 * 4 * 47 * 4096 * qwen <= 256 << 20
    assert sample_capacity(10**9) == 64


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_states_are_kept_in_float32_or_better(dtype):
    sampler = TokenSampler(0, 4)
    states = torch.full((1, 300, 2), 1.0, dtype=dtype)
    states[:, 0] = 0.0
    sampler.update([states], torch.zeros(300, dtype=torch.int64), torch.tensor([0]), None)
    (side,) = sampler.state().states
    assert side.dtype == (torch.float32 if dtype is torch.bfloat16 else torch.float64)
    assert side[2].flatten().tolist() == pytest.approx([299 / 300] * 2, rel=1e-6)


def test_example_means_are_the_means():
    lengths = [3, 3, 1, 5, 5, 2]
    side = torch.from_numpy(np.random.default_rng(0).standard_normal((2, sum(lengths), 4)))
    token_example = torch.repeat_interleave(torch.arange(6), torch.tensor(lengths))
    found = example_means(side, token_example, 6)
    expected = torch.stack([part.mean(1) for part in side.split(lengths, dim=1)], dim=1)
    torch.testing.assert_close(found, expected)


def test_the_largest_draw_stays_below_its_limit():
    """A draw of 62 bits is rounded up to 1 as a fraction; what it is multiplied with must still not be reached."""
    limits = np.array([1, 5, 10**6, 0])
    assert _below(np.full(4, 2**62 - 1), limits).tolist() == [0, 4, 10**6 - 1, 0]
    assert _below(np.zeros(4, dtype=np.int64), limits).tolist() == [0, 0, 0, 0]
    assert _below(np.array([2**61]), np.array([10])).tolist() == [5]


def test_means_that_are_known_are_taken_as_they_are():
    examples = probe(12)
    rows, states, special = zip(*examples, strict=True)
    lengths = [each[0].shape[1] for each in states]
    token_example = torch.repeat_interleave(torch.arange(12), torch.tensor(lengths))
    sides = [torch.cat([each[side] for each in states], dim=1) for side in range(len(LAYERS))]
    known = [example_means(side, token_example, 12) for side in sides]
    found = []
    for means in (None, known, [mean + 1 for mean in known]):
        sampler = TokenSampler(5, 7)
        sampler.update(sides, token_example, torch.tensor(rows), np.concatenate(special), means)
        found.append(sampler.state())
    assert_same(found[0], found[1])
    for one, other in zip(found[0].tokens("mean")[1], found[2].tokens("mean")[1], strict=True):
        torch.testing.assert_close(one + 1, other)
    for one, other in zip(found[0].tokens("all")[1], found[2].tokens("all")[1], strict=True):
        assert torch.equal(one, other)


def splitmix64(state):
    """One output of the published generator (Steele, Lea and Flood 2014), in whole numbers without overflow."""
    z = (state + 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)


def test_draws_are_those_of_splitmix64():
    """The same on every machine and for ever: what was sampled once must be sampled again."""
    assert splitmix64(0) == 0xE220A8397B1DCDAF  # its published first output
    rows = [0, 1, 7, 10**6]
    for seed, salt in ((0, 0), (5, 3), (2**62 + 11, 1)):
        start = splitmix64((4 * seed + salt) % 2**64)
        wanted = [splitmix64((start + row * 0x9E3779B97F4A7C15) % 2**64) >> 2 for row in rows]
        assert example_draws(seed, np.array(rows), salt).tolist() == wanted
