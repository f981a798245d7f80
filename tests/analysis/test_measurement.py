"""Parts of an analysis add up to the whole: any split of the batches, any order and grouping of the sums."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal
from safetensors.torch import load_file, save_file

from anglekit.analysis import analyze as measuring
from anglekit.analysis.analyze import analyze, measure
from anglekit.analysis.measurement import Measurement, read_measurement, read_metadata, write_measurement
from anglekit.analysis.preparation import Shard
from anglekit.analysis.settings import AnalysisSettings
from anglekit.analysis.tables import tabulate
from anglekit.errors import InputError
from tests.analysis.same_geometry import assert_same

ALL = AnalysisSettings(nulls="all", similarity="all", token_budget=60)
STREAMED = AnalysisSettings(nulls="none", similarity="none", token_budget=60)


def parts_of(pair, probe, options, of):
    return [measure(pair[0], pair[1:], probe, options, shard=Shard(number, of)) for number in range(1, of + 1)]


@pytest.fixture(scope="module")
def pieces(bert_pair, probe):
    """The whole, its spec, and each batch by itself."""
    spec, whole = measure(bert_pair[0], bert_pair[1:], probe, ALL)
    assert spec.n_batches > 5
    singles = []
    with pytest.MonkeyPatch.context() as patch:
        for number in range(spec.n_batches):
            chosen = (np.array([number]),)
            patch.setattr(
                measuring, "share_batches", lambda costs, _, chosen=chosen: chosen if len(costs) > 1 else [[0]]
            )
            singles.append(measure(bert_pair[0], bert_pair[1:], probe, ALL, shard=Shard())[1])
    return spec, tabulate(spec, whole), singles


def any_tree(draw, parts: list[Measurement]) -> Measurement:
    """Add parts two by two, drawn at random."""
    parts = draw(st.permutations(parts))
    while len(parts) > 1:
        at = draw(st.integers(0, len(parts) - 2))
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts[0]


@given(st.data())
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_order_and_grouping_of_the_batches_gives_the_same(pieces, data):
    spec, expected, singles = pieces
    found = any_tree(data.draw, singles)
    assert found.n_batches == spec.n_batches
    assert_same(tabulate(spec, found), expected)


def test_a_missing_batch_is_noticed(pieces):
    spec, expected, singles = pieces
    found = sum(singles[2:], singles[0])
    with pytest.raises(AssertionError):
        assert_same(tabulate(spec, found), expected)


def test_nothing_is_the_identity_and_twice_the_same_is_refused(pieces):
    spec, _, singles = pieces
    nothing = Measurement.zeros(spec)
    one = tabulate(spec, singles[0])
    assert_same(tabulate(spec, nothing + singles[0]), one, tolerance=0)
    assert_same(tabulate(spec, singles[0] + nothing), one, tolerance=0)
    assert len(tabulate(spec, nothing).examples) == 0
    with pytest.raises(ValueError, match="an example is in both"):
        singles[0] + singles[0]
    with pytest.raises(ValueError, match="same streams and students"):
        nothing + replace(singles[0], fresh={})


# An encoder's shards are merged in `jobs/test_shards.py`, with these options.
@pytest.mark.parametrize("family", ["t5", "qwen3"])
@pytest.mark.parametrize(
    "options", [AnalysisSettings(token_budget=60), ALL, replace(ALL, reading="official", pad_to=24)]
)
def test_shards_add_up_to_the_whole(family, options, checkpoint, probe):
    pair = [checkpoint(family, "teacher", seed=1), *(checkpoint(family, "student", seed=2, depth=n) for n in (2, 1))]
    whole = analyze(pair[0], pair[1:], probe, options)
    found = parts_of(pair, probe, options, of=2 if options.reading == "official" else 3)
    merged = sum((each for _, each in found[1:]), found[0][1])
    assert_same(replace(tabulate(found[0][0], merged), provenance=whole.provenance), whole)


def test_more_shards_than_batches_leave_some_with_nothing(bert_pair, probe):
    whole = analyze(bert_pair[0], bert_pair[1:], probe, AnalysisSettings())
    found = parts_of(bert_pair, probe, AnalysisSettings(), 9)
    assert any(each.n_batches == 0 for _, each in found)
    for spec, each in found:
        assert tabulate(spec, each).counts["examples"] == each.n_examples
    assert_same(tabulate(found[0][0], sum((each for _, each in found[1:]), found[0][1])), whole)


def test_adapters_shard_and_what_must_be_fitted_does_not(checkpoint, bert_pair, probe):
    narrow = checkpoint("bert", "narrow", seed=2, depth=2, width=8)
    fitted = AnalysisSettings(projection="least-squares")
    with pytest.raises(InputError, match=r"--shard 1/2 cannot fit a projection .*accelerate launch"):
        measure(bert_pair[0], [narrow], probe, fitted, shard=Shard(1, 2))
    rng = np.random.default_rng(0)

    adapters = {("encoder", layer): torch.from_numpy(rng.normal(size=(16, 8))).float() for layer in (0, 1, 2)}
    taught = replace(narrow, adapters=adapters)
    whole = analyze(bert_pair[0], [taught], probe, ALL)
    found = parts_of((bert_pair[0], taught), probe, ALL, 3)
    assert_same(tabulate(found[0][0], sum((each for _, each in found[1:]), found[0][1])), whole)
    assert len(whole.projections) == 3


@pytest.mark.parametrize(("number", "of"), [(0, 2), (3, 2), (1, 0), (-1, -1)])
def test_a_shard_that_cannot_be_is_refused(number, of):
    with pytest.raises(InputError, match=f"shard {number}/{of}"):
        Shard(number, of)


def test_sums_of_an_earlier_version_are_read_and_have_no_angles_by_example(pieces, tmp_path):
    spec, _, singles = pieces
    first, rest = singles[0], sum(singles[2:], singles[1])
    write_measurement(tmp_path / "sums", first)
    older = {name: tensor for name, tensor in load_file(tmp_path / "sums").items() if "examples.angle" not in name}
    save_file(older, tmp_path / "older", metadata=read_metadata(tmp_path / "sums"))
    found = tabulate(spec, read_measurement(tmp_path / "older", spec) + rest).examples
    whole = tabulate(spec, first + rest).examples
    known = found["mean_angle_degrees"].notna()
    assert 0 < known.sum() < len(known)
    assert_frame_equal(found[known], whole[known])
    assert_frame_equal(found.drop(columns="mean_angle_degrees"), whole.drop(columns="mean_angle_degrees"))


@pytest.mark.parametrize("dtype", [torch.int16, torch.int32, torch.int64, torch.float32])
def test_counts_of_every_width_are_read_and_no_others(dtype, pieces, tmp_path):
    spec, _, singles = pieces
    first, rest = singles[0], sum(singles[2:], singles[1])
    write_measurement(tmp_path / "sums", first)
    tensors = load_file(tmp_path / "sums")
    saved = {name: each.to(dtype) if name.endswith(".histogram") else each for name, each in tensors.items()}
    save_file(saved, tmp_path / "saved", metadata=read_metadata(tmp_path / "sums"))
    if not dtype.is_floating_point:
        found = tabulate(spec, read_measurement(tmp_path / "saved", spec) + rest).histograms
        assert_frame_equal(found, tabulate(spec, first + rest).histograms)
        return
    with pytest.raises(InputError, match=r"histogram is torch\.float32"):
        read_measurement(tmp_path / "saved", spec)
