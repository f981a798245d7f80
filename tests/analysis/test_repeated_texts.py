"""Texts that a probe holds more than once: they weigh as often in the means, and count once where errors are made."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from anglekit.analysis.analyze import analyze, measure
from anglekit.analysis.preparation import Shard
from anglekit.analysis.settings import AnalysisSettings
from anglekit.analysis.tables import tabulate
from anglekit.probes.data import ProbeData
from anglekit.results.columns import OPTIONAL_COLUMNS
from anglekit.results.geometry import Geometry
from tests.analysis.same_geometry import assert_same

SETTINGS = AnalysisSettings(token_budget=30)


@pytest.fixture(scope="module")
def distinct(probe) -> ProbeData:
    """The probe without the texts that it holds twice itself."""
    texts = tuple(dict.fromkeys(probe.texts))
    return replace(probe, texts=texts, targets=None, target_column=None, rows=tuple(range(len(texts))))


@pytest.fixture(scope="module")
def twice(distinct) -> ProbeData:
    n = len(distinct.texts)
    return replace(distinct, texts=distinct.texts * 2, rows=tuple(range(2 * n)))


@pytest.fixture(scope="module")
def once_geometry(bert_pair, distinct) -> Geometry:
    return analyze(bert_pair[0], bert_pair[1:], distinct, SETTINGS)


@pytest.fixture(scope="module")
def twice_geometry(bert_pair, twice) -> Geometry:
    return analyze(bert_pair[0], bert_pair[1:], twice, SETTINGS)


def test_each_text_twice_changes_no_mean_and_no_error(distinct, once_geometry, twice_geometry):
    n = len(distinct.texts)
    once, both = once_geometry.angles, twice_geometry.angles
    for column in ("mean_cosine", "std_cosine", "mean_angle_degrees", "se_cosine", "null_cosine"):
        np.testing.assert_allclose(both[column], once[column], atol=1e-5)
    assert (both["n_tokens"] == 2 * once["n_tokens"]).all()
    assert set(both["n_examples"]) == {2 * n}
    assert set(both["n_clusters"]) == set(once["n_clusters"]) == {float(n)}
    examples = twice_geometry.examples
    assert (examples["cluster"] == examples["example"] % n).all()
    assert (once_geometry.examples["cluster"] == once_geometry.examples["example"]).all()
    # The negative control: as examples of their own the repeats would make the error smaller.
    assert once["se_cosine"].min() > 0.005


def test_the_sample_holds_each_text_once(distinct, once_geometry, twice_geometry):
    for table in OPTIONAL_COLUMNS:
        one, other = getattr(once_geometry, table), getattr(twice_geometry, table)
        assert len(one) == len(other)
        for column in one.columns:
            if one[column].dtype.kind == "f" and column not in ("share", "top_share"):
                np.testing.assert_allclose(other[column], one[column], atol=2e-3, err_msg=f"{table} {column}")
    assert twice_geometry.nulls["n_tokens"].max() == len(distinct.texts)


def test_it_is_recorded_and_said(distinct, once_geometry, twice_geometry, tmp_path):
    n = len(distinct.texts)
    assert once_geometry.counts["distinct_texts"] == twice_geometry.counts["distinct_texts"] == n
    said = [note for note in twice_geometry.notes() if "repeat the text" in note]
    assert said == [
        f"{n} of {2 * n} examples repeat the text of another: standard errors count each text once, and the samples "
        "hold it once"
    ]
    assert not [note for note in once_geometry.notes() if "repeat the text" in note]
    assert Geometry.load(twice_geometry.save(tmp_path / "g")).notes() == twice_geometry.notes()


def test_the_cka_of_the_whole_probe_is_of_each_text_once(bert_pair, distinct, twice):
    settings = replace(SETTINGS, nulls="none", similarity="all")
    once, both = (analyze(bert_pair[0], bert_pair[1:], data, settings) for data in (distinct, twice))
    assert once.counts["cka_examples"] == both.counts["cka_examples"] == {"encoder": len(distinct.texts)}
    np.testing.assert_allclose(both.layers["cka"], once.layers["cka"], atol=1e-5)


def test_parts_add_up_wherever_the_repeats_are(bert_pair, twice, twice_geometry):
    """A tiny budget cuts many a text from its repeat, and the two parts get one each."""
    settings = replace(SETTINGS, token_budget=8)
    whole = analyze(bert_pair[0], bert_pair[1:], twice, settings)
    specs, parts = zip(
        *(measure(bert_pair[0], bert_pair[1:], twice, settings, shard=Shard(number, 2)) for number in (1, 2)),
        strict=True,
    )
    assert len(specs[0].split_clusters) > 2
    merged = tabulate(specs[0], parts[0] + parts[1])
    assert_same(replace(merged, provenance=whole.provenance), whole)
    np.testing.assert_allclose(merged.angles["se_cosine"], twice_geometry.angles["se_cosine"], atol=1e-6)
    assert set(merged.angles["n_clusters"]) == set(twice_geometry.angles["n_clusters"])


@pytest.mark.parametrize("n_distinct", [1, 2])
def test_a_probe_of_one_or_two_texts_has_angles_and_claims_nothing(bert_pair, distinct, n_distinct):
    """Twenty examples, and only as many independent ones as there are texts: no error, or a wide one, and no number
    that is neither right nor NaN."""
    texts = distinct.texts[:n_distinct] * (20 // n_distinct)
    probe = replace(distinct, texts=texts, rows=tuple(range(len(texts))))
    found = analyze(bert_pair[0], bert_pair[1:], probe, SETTINGS)
    alone = replace(distinct, texts=distinct.texts[:n_distinct], rows=tuple(range(n_distinct)))
    once = analyze(bert_pair[0], bert_pair[1:], alone, SETTINGS)
    np.testing.assert_allclose(found.angles["mean_cosine"], once.angles["mean_cosine"], atol=1e-5)
    np.testing.assert_allclose(found.angles["se_cosine"], once.angles["se_cosine"], atol=1e-5)
    assert found.angles["se_cosine"].isna().all() == (n_distinct == 1)
    assert len(found.nulls) == 0 or (found.nulls["n_tokens"] <= n_distinct).all()
    assert (
        sum((row["pairs_above_permuted"] or 0) + (row["pairs_below_permuted"] or 0) for row in found.summary_rows())
        == 0
    )
    assert found.against_chance().standing == "unresolved"
