"""Extreme tokens that an analysis keeps when it is asked to: whose they are, what they read; else none is kept."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest

from anglekit.analysis.analyze import analyze, measure
from anglekit.analysis.jobs.shards import merge_shards, shard_geometry
from anglekit.analysis.preparation import Shard
from anglekit.analysis.settings import AnalysisSettings
from anglekit.results.geometry import Geometry
from anglekit.vocabulary import N_BINS

PLAIN = AnalysisSettings(token_budget=60, nulls="none", similarity="none")
KEPT = AnalysisSettings(token_budget=60, nulls="none", similarity="none", keep_extremes=True)
KEY = ["student", "stream", "vertex", "teacher_i", "teacher_k"]


@pytest.fixture(scope="module")
def kept(bert_pair, probe) -> Geometry:
    return analyze(bert_pair[0], bert_pair[1], probe, KEPT)


def test_they_lie_in_the_outermost_bins_of_the_histogram(kept):
    bins = kept.histograms.query("teacher_i >= 0").groupby(KEY)["bin"].agg(smallest="max", largest="min")
    assert len(kept.extremes) == 2 * len(bins)
    for row in kept.extremes.itertuples():
        outermost = bins.loc[(row.student, row.stream, row.vertex, row.teacher_i, row.teacher_k), row.extreme]
        place = (np.cos(np.radians(row.angle_degrees)) + 1) * N_BINS / 2
        # A cosine at an edge may fall on either side after the way back from degrees.
        assert outermost - 1e-6 <= place <= outermost + 1 + 1e-6


def test_the_words_are_those_of_the_token_in_its_example(kept, bert_pair, probe):
    tokenizer, texts = bert_pair[0].tokenizer, list(probe.texts)
    for row in kept.extremes.drop_duplicates(["example", "place"]).itertuples():
        ids = tokenizer(texts[row.example])["input_ids"]
        assert row.token == tokenizer.convert_ids_to_tokens(ids[row.place])
        assert row.before == tokenizer.decode(ids[: row.place])
        assert row.after == tokenizer.decode(ids[row.place + 1 :])


def test_parts_merge_to_the_whole_with_their_words(kept, bert_pair, probe, tmp_path):
    places = []
    for number in (1, 2, 3):
        shard = Shard(number, 3)
        spec, measured = measure(bert_pair[0], [bert_pair[1]], probe, KEPT, shard=shard)
        places.append(shard_geometry(spec, measured, shard).save(tmp_path / str(number)))
    merged = merge_shards(places)
    ours, theirs = (one.extremes.sort_values([*KEY, "extreme"], ignore_index=True) for one in (merged, kept))
    exact = ["example", "place", "before", "token", "after", "extreme"]
    assert ours[exact].equals(theirs[exact])
    loaded = Geometry.load(merged.save(tmp_path / "whole"))
    assert loaded.extremes.equals(merged.extremes)


def test_without_the_wish_nothing_of_the_texts_is_kept_and_nothing_else_changes(kept, bert_pair, probe, tmp_path):
    plain = analyze(bert_pair[0], bert_pair[1], probe, PLAIN)
    assert plain.extremes.empty
    assert plain.angles.equals(kept.angles)
    assert plain.histograms.equals(kept.histograms)
    saved = plain.save(tmp_path / "plain")
    assert not (saved / "extremes.parquet").exists()
    assert "keep_extremes" not in json.loads((saved / "geometry.json").read_text())["settings"]
    assert kept.settings["keep_extremes"] is asdict(KEPT)["keep_extremes"] is True
