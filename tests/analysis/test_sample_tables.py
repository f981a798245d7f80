"""What an analysis says from its sample: against the states written out, unmoved by batches and by other students."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from anglekit.analysis import preparation, sample_tables
from anglekit.analysis.analyze import analyze
from anglekit.analysis.running_measurement import untrained_seed
from anglekit.analysis.settings import AnalysisSettings
from anglekit.errors import InputError
from anglekit.geometry.cka import debiased_cka
from anglekit.geometry.nulls import SWEEP
from anglekit.probes.tokenize import special_token_ids
from anglekit.results.columns import OPTIONAL_COLUMNS, SIMILARITIES
from anglekit.results.document import ModelRecord
from anglekit.results.geometry import Geometry
from anglekit.vocabulary import DEFAULT_NULLS, NULLS
from tests.analysis.naive_analysis import all_states, unit

KEYS = ["student", "stream", "vertex", "teacher_i", "teacher_k"]
LAYER_KEYS = ["student", "stream", "side_a", "layer_a", "side_b", "layer_b"]
ALL = AnalysisSettings(nulls="all", similarity="all")


@pytest.fixture(scope="module")
def everything(bert_pair, probe):
    return analyze(bert_pair[0], bert_pair[1:], probe, ALL)


def assert_tables_close(a, b, tables=OPTIONAL_COLUMNS, tolerance=2e-5, permutations=0.0):
    """`permutations`: by how much the p-values may differ."""
    for table in tables:
        one, other = getattr(a, table), getattr(b, table)
        p = [column for column in one.columns if column.endswith(("_p", "_p_adjusted"))]
        np.testing.assert_allclose(one[p], other[p], rtol=0, atol=permutations)
        one, other = one.drop(columns=p), other.drop(columns=p)
        assert_frame_equal(one, other, rtol=tolerance, atol=tolerance, obj=table)


def test_every_table_has_its_columns_and_rows(everything, bert_geometry):
    rows = 3 * 6
    assert len(everything.nulls) == rows * len(NULLS)
    assert len(bert_geometry.nulls) == rows * len(DEFAULT_NULLS)
    assert set(everything.nulls["null"]) == set(NULLS)
    for geometry in (everything, bert_geometry):
        assert len(geometry.vertex_sweep) == rows * len(SWEEP)
        assert len(geometry.dimensions) == 7 * 16
        assert set(geometry.anisotropy["tokens"]) == {"all", "content", "special"}
        for table, columns in OPTIONAL_COLUMNS.items():
            assert list(getattr(geometry, table).columns) == list(columns), table
    assert len(bert_geometry.similarity) == 0
    assert len(everything.similarity) == 2 * 28
    assert len(everything.anisotropy) == 7 * 4 * 3


@pytest.mark.parametrize("family", ["bert", "t5"])
@pytest.mark.parametrize("budget", [1, 100_000])
def test_batches_do_not_matter(family, budget, checkpoint, probe):
    pair = checkpoint(family, "teacher", seed=1), checkpoint(family, "student", seed=2, depth=2)
    one, other = (analyze(pair[0], pair[1:], probe, replace(ALL, token_budget=tokens)) for tokens in (budget, 200))
    stable = [table for table in OPTIONAL_COLUMNS if table not in ("dimensions", "anisotropy")]
    # Rounding may carry one of 500 permutations past the observed value, or one of 40.
    assert_tables_close(one, other, stable, permutations=0.026)
    # Which of two equal dimensions is on top may turn on rounding, and shares of a cosine near 0 are ill-conditioned.
    columns = ["mean_cosine", "se", "n_tokens"]
    assert_frame_equal(one.anisotropy[columns], other.anisotropy[columns], rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(one.layers["cka"], other.layers["cka"], atol=1e-4)


def test_seeds_reproduce_and_other_students_change_nothing(bert_pair, checkpoint, probe, bert_geometry):
    assert_tables_close(analyze(bert_pair[0], bert_pair[1:], probe), bert_geometry, tolerance=1e-12)
    other = checkpoint("bert", "other", seed=9, depth=1)
    both = analyze(bert_pair[0], [other, bert_pair[1]], probe)
    for table in ("nulls", "vertex_sweep", "anisotropy", "angle_views"):
        mine = getattr(both, table).query("student == 'student'").reset_index(drop=True)
        alone = getattr(bert_geometry, table)
        if table == "nulls":  # these columns hold for all students of the analysis together
            joint = ["p_adjusted", "joint_low", "joint_high"]
            assert (mine["p_adjusted"] >= alone["p_adjusted"] - 1e-9).all()
            assert (mine["joint_high"] >= alone["joint_high"] - 1e-9).all()
            assert (mine["joint_low"] < alone["joint_low"] - 1e-3).any()
            mine, alone = mine.drop(columns=joint), alone.drop(columns=joint)
        assert_frame_equal(mine, alone, rtol=1e-9, atol=1e-9)
    mine = both.layers.query("student == 'student'")["cka"].to_numpy()
    np.testing.assert_allclose(mine, bert_geometry.layers["cka"], atol=1e-9)
    seeded = analyze(bert_pair[0], bert_pair[1:], probe, AnalysisSettings(seed=1))
    assert_frame_equal(seeded.angles, bert_geometry.angles, rtol=1e-9)
    assert np.abs(seeded.nulls["mean_cosine"] - bert_geometry.nulls["mean_cosine"]).max() > 1e-3


def test_the_sampled_tokens_are_tokens_of_the_probe(bert_geometry, bert_pair, probe):
    """With one token of each example the observed mean lies between the means of the smallest and largest cosines."""
    teacher, student = (all_states(each, probe, "encoder") for each in bert_pair)
    observed = bert_geometry.nulls.query("null == 'origin'").set_index(["vertex", "teacher_i", "teacher_k"])
    for (vertex, i, k), row in observed.iterrows():
        cosines = [
            (unit(t[i] - s[vertex]) * unit(t[k] - s[vertex])).sum(-1) for t, s in zip(teacher, student, strict=True)
        ]
        assert row.n_tokens == 24
        assert np.mean([c.min() for c in cosines]) - 1e-6 <= row.observed_cosine
        assert row.observed_cosine <= np.mean([c.max() for c in cosines]) + 1e-6
        assert row.observed_minus_null == pytest.approx(row.observed_cosine - row.mean_cosine)
        assert row.low < row.observed_minus_null < row.high


def test_the_sweep_passes_through_centroid_and_student(everything):
    index = ["vertex", "teacher_i", "teacher_k"]
    nulls, sweep = everything.nulls.set_index(index), everything.vertex_sweep.set_index(index)
    at = {t: sweep[sweep["t"] == t] for t in (0.0, 1.0)}
    np.testing.assert_allclose(at[0.0]["mean_cosine"], nulls[nulls["null"] == "centroid"]["mean_cosine"], atol=1e-9)
    np.testing.assert_allclose(at[1.0]["mean_cosine"], nulls[nulls["null"] == "origin"]["observed_cosine"], atol=1e-9)
    for quantity in ("angle_degrees", "tangential_angle_degrees"):
        assert at[1.0][f"mean_{quantity}"].between(0, 180).all()
    views = everything.angle_views.query("tokens == 'all' and view == 'raw'").set_index(index)
    np.testing.assert_allclose(views["mean_cosine"], at[1.0]["mean_cosine"], atol=1e-9)
    np.testing.assert_allclose(views["mean_tangential_cosine"], at[1.0]["mean_tangential_cosine"], atol=1e-9)


@pytest.mark.parametrize("family", ["bert", "t5"])
def test_the_fresh_student_is_one_of_its_own_seed_at_the_same_tokens(family, checkpoint, probe):
    """A student that was just built with that seed is its own null; one built with the analysis' seed is not."""
    teacher, student = checkpoint(family, "teacher", seed=1), checkpoint(family, "student", seed=2, depth=2)
    own = untrained_seed(ModelRecord(name=student.name, **student.provenance()), 5)
    worst = {}
    for seed in (own, 5):
        torch.manual_seed(seed)
        untrained = replace(student, model=type(student.model)(student.model.config).eval())
        found = analyze(teacher, [untrained], probe, AnalysisSettings(nulls="all", seed=5))
        rows = found.nulls.query("null == 'fresh-student'")
        assert len(rows) == len(found.angles)
        assert (rows["n_tokens"] == 24).all()
        worst[seed] = rows["observed_minus_null"].abs().max()
    assert worst[own] < 1e-5
    assert worst[5] > 1e-3


@given(seed=st.integers(0, 2**32), trained=st.none() | st.integers(0, 2**40), sha=st.none() | st.text(max_size=4))
@settings(max_examples=25, deadline=None)
def test_the_fresh_student_is_never_of_the_students_seed(seed, trained, sha):
    found = untrained_seed(ModelRecord(name="s", sha256=sha, seed=trained), seed)
    assert found == untrained_seed(ModelRecord(name="another name", sha256=sha, seed=trained), seed)
    assert 2**31 <= found < 2**32
    assert found not in {each % 2**32 for each in (seed, trained) if each is not None}


def test_students_of_other_weights_have_other_fresh_ones():
    one, other = (untrained_seed(ModelRecord(name="s", sha256=sha), 0) for sha in ("aa", "bb"))
    assert one != other
    # The seed that its hash gives is taken by the student itself: another one is drawn.
    assert untrained_seed(ModelRecord(name="s", sha256="aa"), one) != one


def test_cka_is_that_of_the_example_means(bert_geometry, everything, bert_pair, probe):
    means = [np.stack([s.mean(1) for s in all_states(each, probe, "encoder")], axis=1) for each in bert_pair]
    expected = debiased_cka([torch.from_numpy(layer) for side in means for layer in side])
    place = {("teacher", layer): layer for layer in range(4)} | {("student", layer): 4 + layer for layer in range(3)}
    for geometry in (bert_geometry, everything):
        for row in geometry.layers.itertuples():
            want = expected[place[row.side_a, row.layer_a], place[row.side_b, row.layer_b]].item()
            assert row.cka == pytest.approx(want, abs=1e-4)
        assert geometry.counts["cka_examples"] == {"encoder": 24}
    assert bert_geometry.layers["cka"].between(-0.5, 1 + 1e-9).all()
    table = everything.similarity.query("states == 'example-mean'")
    for row in table.itertuples():
        want = expected[place[row.side_a, row.layer_a], place[row.side_b, row.layer_b]].item()
        assert row.debiased_cka == pytest.approx(want, abs=1e-4)
        if (row.side_a, row.layer_a) == (row.side_b, row.layer_b):
            assert row.procrustes_distance == pytest.approx(0, abs=1e-5)
            assert row.mutual_neighbours == 1.0
            assert row.linear_cka == pytest.approx(1.0)
            assert np.isnan([row.debiased_cka_p, row.linear_cka_p_adjusted, row.mutual_neighbours_null]).all()
        else:
            assert row.linear_cka < 0.9999


def test_two_layers_have_one_debiased_cka_with_its_error_and_chance(everything, bert_geometry):
    means = everything.similarity.query("states == 'example-mean'").merge(everything.layers, on=LAYER_KEYS)
    assert len(means) == len(everything.layers)
    for ending in ("", "_se", "_null", "_p", "_p_adjusted"):
        np.testing.assert_array_equal(means[f"debiased_cka{ending}"], means[f"cka{ending}"])
    # As many examples in the sample as in the probe: summed or from Gram matrices, it is one number.
    np.testing.assert_allclose(everything.layers["cka"], bert_geometry.layers["cka"], atol=1e-6)
    np.testing.assert_allclose(everything.layers["cka_se"], bert_geometry.layers["cka_se"], atol=1e-6)
    table = everything.similarity
    other = (table["side_a"] != table["side_b"]) | (table["layer_a"] != table["layer_b"])
    for name in SIMILARITIES:
        rows = table[other]
        p, adjusted = rows[f"{name}_p"], rows[f"{name}_p_adjusted"]
        least = 1 / (40 if name == "procrustes_distance" else 500)
        assert ((least - 1e-12 <= p) & (p <= adjusted + 1e-12) & (adjusted <= 1)).all()
        assert rows[f"{name}_se"].between(1e-6, 0.5).all()
        assert table[~other][[f"{name}{ending}" for ending in ("_null", "_p", "_p_adjusted")]].isna().all(axis=None)
    # Neighbouring layers of one model are alike beyond chance; by chance two layers share k of n - 1 neighbours.
    near = table.query("side_a == side_b and layer_b == layer_a + 1 and states == 'example-mean'")
    assert (near["debiased_cka_p_adjusted"] < 0.01).all()
    np.testing.assert_allclose(table[other]["mutual_neighbours_null"], 10 / 23, atol=0.02)
    assert (table[other]["linear_cka_null"] > 0.1).all()
    assert table[other]["debiased_cka_null"].abs().max() < 0.03


def test_more_examples_than_the_sample_holds_make_the_error_smaller(bert_pair, probe, monkeypatch):
    settings = AnalysisSettings(nulls="none", similarity="all")
    monkeypatch.setattr(preparation, "sample_capacity", lambda numbers: 12)
    found = analyze(bert_pair[0], bert_pair[1:], probe, settings)
    assert found.counts["cka_examples"] == {"encoder": 24}
    rows = found.similarity.query("states == 'example-mean'").merge(found.layers, on=LAYER_KEYS)
    assert set(rows["n"]) == {12}
    np.testing.assert_array_equal(rows["debiased_cka"], rows["cka"])
    few = analyze(bert_pair[0], bert_pair[1:], probe, replace(settings, similarity="default"))
    np.testing.assert_allclose(found.layers["cka_se"], few.layers["cka_se"] / np.sqrt(2), rtol=1e-9)
    assert np.abs(found.layers["cka"] - few.layers["cka"]).max() > 0.01


def test_the_similarity_of_tokens_is_not_that_of_means(everything, bert_pair, probe):
    """Between the extremes of two hundred draws of a token of each example, where the means lie far outside."""
    states = [all_states(each, probe, "encoder") for each in bert_pair]
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(200):
        tokens = [rng.integers(example.shape[1]) for example in states[0]]
        layers = [
            torch.from_numpy(np.stack([example[layer, token] for example, token in zip(side, tokens, strict=True)]))
            for side in states
            for layer in range(len(side[0]))
        ]
        draws.append(debiased_cka(layers).numpy())
    low, high = np.min(draws, axis=0), np.max(draws, axis=0)
    found = {}
    for kind in ("token", "example-mean"):
        rows = everything.similarity.query("states == @kind")
        place = [4 * (side == "student").to_numpy() + rows[layer].to_numpy()
                 for side, layer in ((rows["side_a"], "layer_a"), (rows["side_b"], "layer_b"))]  # fmt: skip
        found[kind] = rows["debiased_cka"].to_numpy(), low[*place], high[*place]
    token, low, high = found["token"]
    assert ((low - 1e-6 <= token) & (token <= high + 1e-6)).all()
    mean, low, high = found["example-mean"]
    assert ((mean < low - 0.05) | (mean > high + 0.05)).any()


def test_special_tokens_are_looked_at_apart(everything, bert_pair, probe):
    rows = everything.anisotropy.query("view == 'raw'").set_index(["side", "layer", "tokens"])
    states = all_states(bert_pair[0], probe, "encoder")
    # [CLS] and [SEP] are the same words everywhere: their embeddings differ by position alone.
    special = rows.loc[("teacher", 0, "special"), "mean_cosine"]
    assert special > rows.loc[("teacher", 0, "content"), "mean_cosine"]
    marks = np.stack([s[0][[0, -1]] for s in states]).reshape(-1, 16)
    assert rows.loc[("teacher", 0, "special"), "n_tokens"] == 24
    assert special == pytest.approx((unit(marks) @ unit(marks).T).mean(), abs=0.15)
    without = analyze(bert_pair[0], bert_pair[1:], probe, AnalysisSettings(special_tokens=False))
    assert set(without.anisotropy["tokens"]) == {"all", "content"}
    shares = everything.dimensions.groupby(["side", "layer"])["share"].sum()
    np.testing.assert_allclose(shares, 1.0, atol=1e-9)


def test_the_unknown_token_is_a_word(tiny_tokenizer):
    tokenizer = tiny_tokenizer()
    names = tokenizer.convert_ids_to_tokens(special_token_ids(tokenizer).tolist())
    assert set(names) == {"[PAD]", "[CLS]", "[SEP]"}


def test_a_broken_layer_leaves_the_others_their_numbers(bert_pair, probe):
    broken = replace(bert_pair[1], name="student", model=type(bert_pair[1].model)(bert_pair[1].model.config).eval())
    broken.model.load_state_dict(bert_pair[1].model.state_dict())
    with torch.no_grad():
        broken.model.encoder.layer[1].output.dense.weight.fill_(torch.nan)
    found = analyze(bert_pair[0], [broken, replace(bert_pair[1], name="whole")], probe)
    whole = found.nulls.query("student == 'whole'").set_index(KEYS[1:])
    mine = found.nulls.query("student == 'student'").set_index(KEYS[1:])
    sound = mine.index.get_level_values("vertex") < 2
    assert (mine[~sound & (mine["null"] != "origin").to_numpy()]["n_tokens"] == 0).all()
    np.testing.assert_allclose(mine[sound]["mean_cosine"], whole[sound]["mean_cosine"], atol=1e-9)
    cka = found.layers.query("student == 'student'").set_index(["side_a", "layer_a", "side_b", "layer_b"])["cka"]
    assert np.isnan(cka.loc[("teacher", 0, "student", 2)])
    assert np.isfinite(cka.loc[("teacher", 0, "student", 1)])
    assert found.counts["sample"]["student"]["encoder"] == {"examples": 24, "nonfinite": 0}


@pytest.mark.parametrize("scale", [1e30, 1e-30])
def test_states_of_extreme_lengths_are_finite(scale):
    """The square of 1e30 overflows float32, and a sampled token of that size is no broken one."""
    states = scale * torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
    assert sample_tables._finite_tokens([states, states[:1]]).all()
    assert not torch.linalg.vector_norm(1e30 * states / scale, dim=-1).isfinite().any()
    states[1, 3, 0] = torch.nan
    states[0, 1, 7] = -torch.inf
    assert sample_tables._finite_tokens([states]).tolist() == [True, False, True, False, True]


def test_a_projected_student_and_the_official_reading_have_nulls(checkpoint, bert_pair, probe):
    narrow = checkpoint("bert", "narrow", seed=2, depth=2, width=8)
    found = analyze(bert_pair[0], [narrow], probe, replace(ALL, projection="least-squares"))
    assert set(found.nulls["null"]) == set(NULLS)
    assert found.counts["sample"]["narrow"]["encoder"]["examples"] == 12
    assert set(found.dimensions.query("side == 'student'")["dimension"]) == set(range(8))
    official = analyze(bert_pair[0], bert_pair[1:], probe, replace(ALL, reading="official", pad_to=24))
    assert set(zip(official.nulls["teacher_i"], official.nulls["teacher_k"], strict=True)) == {(1, 3)}


def test_none_is_none_and_a_misspelt_effort_is_named(bert_pair, probe, bert_geometry, tmp_path):
    settings = AnalysisSettings(nulls="none", similarity="none")
    without = analyze(bert_pair[0], bert_pair[1:], probe, settings)
    assert all(len(getattr(without, table)) == 0 for table in OPTIONAL_COLUMNS)
    assert without.layers["cka"].isna().all()
    assert_frame_equal(without.angles, bert_geometry.angles)
    loaded = Geometry.load(without.save(tmp_path / "without"))
    assert not list((tmp_path / "without").glob("nulls*"))
    for table, columns in OPTIONAL_COLUMNS.items():
        assert list(getattr(loaded, table).columns) == list(columns)
    for option in ("nulls", "similarity"):
        with pytest.raises(InputError, match=f"{option} is 'al'; .*all"):
            AnalysisSettings(**{option: "al"})


def test_the_tables_come_back_and_damage_is_named(everything, tmp_path):
    directory = everything.save(tmp_path / "run")
    loaded = Geometry.load(directory)
    for table in OPTIONAL_COLUMNS:
        assert_frame_equal(getattr(loaded, table), getattr(everything, table), check_dtype=False)
    pd.read_parquet(directory / "nulls.parquet").drop(columns="low").to_parquet(directory / "nulls.parquet")
    with pytest.raises(InputError, match="lacks the column 'low'"):
        Geometry.load(directory)


def test_one_example_has_angles_and_no_nulls(bert_pair, probe):
    one = replace(probe, texts=probe.texts[:1], targets=probe.targets[:1], rows=probe.rows[:1])
    found = analyze(bert_pair[0], bert_pair[1:], one, ALL)
    assert len(found.angles) == 18
    assert len(found.nulls) == 0
    assert found.layers["cka"].isna().all()
    assert len(found.vertex_sweep) == 18 * len(SWEEP)
    assert found.vertex_sweep["se"].isna().all()
