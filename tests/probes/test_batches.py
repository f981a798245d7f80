from __future__ import annotations

import itertools
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anglekit.errors import InputError
from anglekit.probes.batch_plan import equal_length_batches, plan_batches, share_batches
from anglekit.probes.batches import TokenizedProbe, TokenRuns

PAD = 999


def runs(sequences, counted=None, type_ids=None) -> TokenRuns:
    lengths = np.array([len(sequence) for sequence in sequences], dtype=np.int64)

    def flat(lists, dtype):
        return None if lists is None else np.array([value for one in lists for value in one], dtype=dtype)

    return TokenRuns(
        flat(sequences, np.int32), np.cumsum(lengths) - lengths, lengths, flat(counted, bool), flat(type_ids, np.int8)
    )


def probe(
    sequences, targets=None, *, counted=None, type_ids=None, rows=None, clusters=None, budget=64, pad_to=None
) -> TokenizedProbe:
    n = len(sequences)
    rows = list(range(n)) if rows is None else rows
    return TokenizedProbe(
        text=runs(sequences, counted, type_ids),
        target=None if targets is None else runs(targets),
        rows=np.array(rows, dtype=np.int64),
        clusters=np.array(rows if clusters is None else clusters, dtype=np.int64),
        lost_tokens=np.arange(n, dtype=np.int64) % 3,
        text_stream="encoder",
        token_budget=budget,
        pad_to=pad_to,
        pad_id=PAD,
        pad_type_id=0,
        max_length=None,
        target_max_length=None,
        skipped_examples=0,
    )


def of_lengths(lengths, start=0):
    """Sequences in which every token is a different number, so that a lost or doubled one shows."""
    ends = np.cumsum(lengths) + start
    return [list(range(end - length, end)) for end, length in zip(ends.tolist(), lengths, strict=True)]


def read_back(batches, stream="encoder"):
    """Return {row: tokens that count} by the indices alone."""
    found = {}
    for batch in batches:
        ids = (batch.input_ids if stream == "encoder" else batch.decoder_input_ids).flatten()
        index, example = batch.token_index(stream), batch.token_example(stream)
        assert torch.equal(index, index.sort().values)
        for place in range(len(batch.examples)):
            row = int(batch.examples[place])
            assert row not in found
            found[row] = ids[index[example == place]].tolist()
    return found


LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=60)


@given(LENGTHS, st.integers(1, 200))
def test_every_token_appears_exactly_once_within_the_budget(lengths, budget):
    sequences = of_lengths(lengths)
    tokenized = probe(sequences, budget=budget)
    batches = list(tokenized.batches())
    assert read_back(batches) == dict(enumerate(sequences))
    assert len(batches) == tokenized.n_batches
    assert tokenized.n_tokens("encoder") == sum(lengths) == sum(len(batch.token_index("encoder")) for batch in batches)
    for batch in batches:
        assert batch.input_ids.numel() <= budget or len(batch.examples) == 1
        assert not (batch.input_ids.flatten()[batch.token_index("encoder")] == PAD).any()
        assert (batch.attention_mask is None) == (not (batch.input_ids == PAD).any())
        if batch.attention_mask is not None:
            assert torch.equal(batch.attention_mask, (batch.input_ids != PAD).long())
            assert torch.equal(batch.attention_mask.flatten().nonzero().flatten(), batch.token_index("encoder"))


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=60), st.integers(1, 300))
def test_both_streams_share_examples_and_budget(pairs, budget):
    texts = of_lengths([pair[0] for pair in pairs])
    targets = of_lengths([pair[1] for pair in pairs], start=2000)
    tokenized = probe(texts, targets, budget=budget)
    batches = list(tokenized.batches())
    assert read_back(batches) == dict(enumerate(texts))
    assert read_back(batches, "decoder") == dict(enumerate(targets))
    for batch in batches:
        assert batch.streams == ("encoder", "decoder")
        assert batch.input_ids.numel() + batch.decoder_input_ids.numel() <= budget or len(batch.examples) == 1
    real = sum(map(sum, pairs))
    positions = sum(batch.input_ids.numel() + batch.decoder_input_ids.numel() for batch in batches)
    assert tokenized.padding_share == pytest.approx(1 - real / positions)


@given(LENGTHS, st.randoms(use_true_random=False))
def test_the_order_of_the_examples_does_not_matter(lengths, random):
    shuffled = lengths.copy()
    random.shuffle(shuffled)

    def shapes(values):
        return Counter(tuple(batch.input_ids.shape) for batch in probe(of_lengths(values)).batches())

    assert shapes(lengths) == shapes(shuffled)


@given(LENGTHS)
def test_batches_come_again_the_same_and_the_largest_first(lengths):
    tokenized = probe(of_lengths(lengths))
    first, second = list(tokenized.batches()), list(tokenized.batches())
    assert all(torch.equal(a.input_ids, b.input_ids) for a, b in zip(first, second, strict=True))
    sizes = [batch.input_ids.numel() for batch in first]
    assert sizes == sorted(sizes, reverse=True)


@given(LENGTHS.filter(lambda lengths: len(lengths) > 1), st.integers(0, 5))
def test_halves_are_disjoint_complete_and_in_file_order(lengths, seed):
    sequences = of_lengths(lengths)
    rows = [3 * row + 1 for row in range(len(lengths))]
    tokenized = probe(sequences, rows=rows)
    parts = tokenized.halves(seed)
    assert 0 <= parts[1].n_examples - parts[0].n_examples <= 1
    assert sorted([*parts[0].rows, *parts[1].rows]) == rows
    assert all(list(part.rows) == sorted(part.rows) for part in parts)
    assert {**read_back(parts[0].batches()), **read_back(parts[1].batches())} == dict(zip(rows, sequences, strict=True))
    assert sum(part.truncated_tokens for part in parts) == tokenized.truncated_tokens
    assert list(tokenized.halves(seed)[0].rows) == list(parts[0].rows)


def test_halves_depend_on_the_seed_and_need_two_examples():
    tokenized = probe(of_lengths([3] * 20))
    assert list(tokenized.halves(0)[0].rows) != list(tokenized.halves(1)[0].rows)
    with pytest.raises(InputError, match="cannot be split in halves"):
        probe(of_lengths([3])).halves(0)


@pytest.mark.parametrize("positions", [[0, 0], [3], [-1]])
def test_a_subset_takes_each_example_once(positions):
    tokenized = probe(of_lengths([3, 4, 5]))
    assert read_back(tokenized.subset([2, 0]).batches()) == {0: [0, 1, 2], 2: [7, 8, 9, 10, 11]}
    with pytest.raises(ValueError, match="distinct and from 0 to 2"):
        tokenized.subset(positions)


def test_tokens_that_do_not_count_still_enter_the_forward_pass():
    counted = [[False, True, False], [False, True, True, False]]
    tokenized = probe([[7, 1, 8], [7, 2, 3, 8]], counted=counted, type_ids=[[0, 1, 1], [0, 0, 1, 1]])
    batches = list(tokenized.batches())
    assert read_back(batches) == {0: [1], 1: [2, 3]}
    assert tokenized.n_tokens("encoder") == 3
    whole = Counter(token for batch in batches for token in batch.input_ids.flatten().tolist() if token != PAD)
    assert whole == Counter([7, 1, 8, 7, 2, 3, 8])
    types = {
        int(batch.examples[place]): batch.token_type_ids[place][batch.input_ids[place] != PAD].tolist()
        for batch in batches
        for place in range(len(batch.examples))
    }
    assert types == {0: [0, 1, 1], 1: [0, 0, 1, 1]}


def test_the_official_padding_counts_every_position_in_file_order():
    tokenized = probe(of_lengths([5, 2, 6, 1, 4]), of_lengths([1, 2, 3, 2, 1], 50), pad_to=6, budget=24)
    batches = list(tokenized.batches())
    assert [batch.examples.tolist() for batch in batches] == [[0, 1], [2, 3], [4]]
    for batch in batches:
        size = len(batch.examples)
        for stream, ids in (("encoder", batch.input_ids), ("decoder", batch.decoder_input_ids)):
            assert ids.shape == (size, 6)
            assert batch.token_index(stream).tolist() == list(range(6 * size))
            assert batch.token_example(stream).tolist() == [place for place in range(size) for _ in range(6)]
        assert torch.equal(batch.attention_mask, (batch.input_ids != PAD).long())
        assert torch.equal(batch.decoder_attention_mask, (batch.decoder_input_ids != PAD).long())
    assert tokenized.n_tokens("encoder") == tokenized.n_tokens("decoder") == 30
    assert tokenized.padding_share == pytest.approx(1 - 27 / 60)
    # The control: without pad_to nothing but real tokens counts.
    assert probe(of_lengths([5, 2, 6, 1, 4])).n_tokens("encoder") == 18


def test_a_mask_can_be_asked_for_and_absent_streams_are_refused():
    tokenized = probe(of_lengths([4, 4]))
    (bare,), (masked,) = tokenized.batches(), tokenized.batches(always_mask=True)
    assert bare.attention_mask is None
    assert torch.equal(masked.attention_mask, torch.ones(2, 4, dtype=torch.long))
    assert bare.token_type_ids is bare.decoder_input_ids is bare.decoder_attention_mask is None
    with pytest.raises(KeyError):
        tokenized.n_tokens("decoder")


def test_a_batch_moves_with_all_its_tensors():
    (batch,) = probe([[1, 2]], [[3]], type_ids=[[0, 1]]).batches(always_mask=True)
    moved = batch.to("meta")
    tensors = [value for value in vars(moved).values() if isinstance(value, torch.Tensor)]
    tensors += [tensor for value in vars(moved).values() if isinstance(value, dict) for tensor in value.values()]
    assert len(tensors) == 11
    assert all(tensor.device.type == "meta" for tensor in tensors)
    assert batch.input_ids.device.type == "cpu"


# --- the plan ----------------------------------------------------------------------------------------------------


def padding(plan, *lengths):
    positions = sum(len(batch) * sum(int(each[batch].max()) for each in lengths) for batch in plan)
    return 1 - sum(int(each.sum()) for each in lengths) / positions


def review_lengths(n, seed=0):
    return np.clip(np.random.default_rng(seed).normal(27, 11, n).astype(np.int64), 4, 70)


def test_one_stream_is_hardly_padded_and_the_batches_are_few():
    lengths = review_lengths(1000)
    plan = plan_batches(lengths, None, 4096)
    assert padding(plan, lengths) < 0.02
    assert len(plan) < 40
    # The control: filling batches in file order wastes more than a third.
    in_order = np.array_split(np.arange(1000), len(plan))
    assert padding(in_order, lengths) > 0.3
    assert padding(plan_batches(np.tile(lengths, 10), None, 4096), np.tile(lengths, 10)) < 0.015


def test_two_streams_are_padded_little():
    rng = np.random.default_rng(1)
    source = review_lengths(10_000)
    target = np.maximum(1, (source * rng.lognormal(0, 0.25, len(source))).astype(np.int64))
    plan = plan_batches(source, target, 4096)
    assert padding(plan, source, target) < 0.03
    assert len(plan) < 400
    # The control: sorting by the sum alone is what one would do first.
    by_sum = np.array_split(np.argsort(-(source + target), kind="stable"), len(plan))
    assert padding(by_sum, source, target) > 3 * padding(plan, source, target)


def test_equal_lengths_fill_the_budget():
    plan = plan_batches(np.full(1000, 32), None, 4096)
    assert sorted(map(len, plan)) == [1000 % 128, *[128] * 7]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 600), min_size=1, max_size=12), st.integers(1, 2000))
def test_the_plan_is_a_partition(lengths, budget):
    plan = plan_batches(np.array(lengths), np.array(lengths[::-1]), budget)
    assert sorted(np.concatenate(plan).tolist()) == list(range(len(lengths)))


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 6), st.integers(1, 3)), min_size=1, max_size=30),
    st.booleans(),
    st.integers(1, 40),
    st.sampled_from([None, 1, 2]),
)
def test_batches_of_one_length_are_a_partition_without_padding(pairs, two_streams, budget, most):
    lengths, second = (np.array(each) for each in zip(*pairs, strict=True))
    other = second if two_streams else None
    plan = equal_length_batches(lengths, other, budget, most)
    assert sorted(np.concatenate(plan).tolist()) == list(range(len(lengths)))
    sizes = [int((lengths + (second if two_streams else 0))[batch].sum()) for batch in plan]
    assert sizes == sorted(sizes, reverse=True), "memory peaks at once"
    for batch, size in zip(plan, sizes, strict=True):
        assert len(set(lengths[batch])) == 1
        assert not two_streams or len(set(second[batch])) == 1
        assert len(batch) == 1 or size <= budget
        assert most is None or len(batch) <= most
        assert batch.tolist() == sorted(batch.tolist())


def test_a_probe_reads_texts_of_one_length_together_or_each_alone():
    lengths = [3, 5, 3, 4, 5, 3]
    padded = probe(of_lengths(lengths))
    assert any(batch.attention_mask is not None for batch in padded.batches())
    equal = replace(padded, batching="equal lengths")
    assert sorted(batch.input_ids.shape for batch in equal.batches()) == [(1, 4), (2, 5), (3, 3)]
    alone = replace(padded, batching="alone")
    assert sorted(batch.input_ids.shape[0] for batch in alone.batches()) == [1] * 6
    for each in (equal, alone, equal.subset([0, 2, 3])):
        assert all(batch.attention_mask is None for batch in each.batches())
    assert read_back(equal.batches()) == read_back(alone.batches()) == read_back(padded.batches())


def test_no_examples_make_no_batches():
    assert plan_batches(np.array([], dtype=np.int64), None, 10) == ()
    assert equal_length_batches(np.array([], dtype=np.int64), None, 10) == ()


def test_building_batches_costs_little():
    tokenized = probe(of_lengths(review_lengths(2000).tolist()), budget=4096)
    tokenized.n_batches  # noqa: B018 - the plan is made once, here
    start = time.process_time()
    n_tokens = sum(len(batch.token_index("encoder")) for batch in tokenized.batches())
    seconds = time.process_time() - start
    # A 12-layer 768-wide forward pass takes some 50 microseconds a token on two cores; 1% of it is 0.5.
    assert seconds / n_tokens < 0.5e-6


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 7))
@settings(deadline=None)
def test_shares_of_batches_are_even_and_hold_each_once(costs, parts):
    given_costs = np.array(sorted(costs, reverse=True), dtype=np.int64)
    shares = share_batches(given_costs, parts)
    assert len(shares) == parts
    assert sorted(number for share in shares for number in share.tolist()) == list(range(len(costs)))
    assert all((np.diff(share) > 0).all() for share in shares)
    loads = [int(given_costs[share].sum()) for share in shares]
    # No part is further behind than the last batch that another one took.
    assert all(max(loads) - load <= max(costs, default=0) for load in loads)
    assert not costs or shares[0][0] == 0


def test_chosen_batches_are_those_of_the_whole():
    tokenized = probe(of_lengths([1, 5, 9, 9, 3, 2, 7]), budget=10)
    whole = list(tokenized.batches())
    assert tokenized.padded_tokens.tolist() == [each.input_ids.numel() for each in whole]
    assert len(whole) > 3
    chosen = list(tokenized.batches(numbers=[3, 0]))
    assert [each.examples.tolist() for each in chosen] == [whole[n].examples.tolist() for n in (3, 0)]
    assert list(tokenized.batches(numbers=[])) == []


@given(cluster=st.lists(st.integers(0, 6), min_size=1, max_size=40), budget=st.integers(4, 60))
@settings(max_examples=60, deadline=None)
def test_examples_that_read_the_same_follow_each_other(cluster, budget):
    first = [cluster.index(each) for each in cluster]
    data = probe(of_lengths([1 + each % 3 for each in cluster]), clusters=first, budget=budget)
    order = [position for batch in data.plan for position in batch.tolist()]
    assert sorted(order) == list(range(len(cluster)))
    # All of one cluster, once it has begun: no other comes between.
    for batch in data.plan:
        seen = [first[position] for position in batch.tolist()]
        assert [key for key, _ in itertools.groupby(seen)] == list(dict.fromkeys(seen))
    held = [{first[position] for position in batch.tolist()} for batch in data.plan]
    expected = [f for f in sorted(set(first)) if sum(f in batch for batch in held) > 1]
    assert data.split_clusters.tolist() == expected
    assert len(expected) < max(len(data.plan), 1)
    assert data.repeats.tolist() == [position for position, f in enumerate(first) if f != position]
    for batch, positions in zip(data.batches(), data.plan, strict=True):
        assert batch.clusters.tolist() == [first[position] for position in positions]


def test_distinct_examples_are_planned_as_ever():
    lengths = np.random.default_rng(0).integers(1, 9, 50).tolist()
    data = probe(of_lengths(lengths))
    expected = plan_batches(np.array(lengths), None, 64)
    assert all(np.array_equal(a, b) for a, b in zip(data.plan, expected, strict=True))
    assert len(data.repeats) == len(data.split_clusters) == 0
    # The negative control: two that read the same, far apart in the file, are moved together.
    twice = probe(of_lengths([3] * 50), clusters=[*range(49), 0], budget=9)
    assert any(batch.tolist()[:2] == [0, 49] for batch in twice.plan)


@given(cluster=st.lists(st.integers(0, 6), min_size=2, max_size=30), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_halves_share_no_text(cluster, seed):
    """Else a projection that is fitted on one half would have seen what the other measures."""
    first = [cluster.index(each) for each in cluster]
    data = probe(of_lengths([1] * len(cluster)), clusters=first)
    if len(set(first)) < 2:
        with pytest.raises(InputError, match=f"{len(cluster)} examples of one text cannot be split"):
            data.halves(seed)
        return
    one, other = data.halves(seed)
    assert not set(one.clusters.tolist()) & set(other.clusters.tolist())
    assert sorted([*one.rows.tolist(), *other.rows.tolist()]) == list(range(len(cluster)))
    assert len(set(one.clusters.tolist())) == len(set(first)) // 2
    # Distinct examples are split as ever: by a permutation of themselves.
    alone = probe(of_lengths([1] * len(cluster))).halves(seed)[0]
    expected = np.random.default_rng(seed).permutation(len(cluster))[: len(cluster) // 2]
    assert alone.rows.tolist() == sorted(expected.tolist())
