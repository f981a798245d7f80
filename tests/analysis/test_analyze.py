"""The whole analysis against a naive one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from pandas.testing import assert_frame_equal

from anglekit.analysis.analyze import analyze
from anglekit.analysis.settings import AnalysisSettings
from anglekit.models.checkpoints import Checkpoint
from anglekit.results.geometry import Geometry, official_histogram_name
from tests.analysis.naive_analysis import (
    TABLES,
    all_states,
    assert_close,
    assert_matches_naive,
    naive_padded_states,
    naive_rows,
    naive_states,
    unit,
)


def test_bert_equals_the_naive_analysis(bert_geometry, bert_pair, probe):
    assert_matches_naive(bert_geometry, *bert_pair, probe)


def test_the_comparison_notices_another_student(bert_geometry, bert_pair, checkpoint, probe):
    other = replace(checkpoint("bert", "student", seed=9, depth=2), name="student")
    with pytest.raises(AssertionError):
        assert_matches_naive(bert_geometry, bert_pair[0], other, probe)


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_both_streams_equal_the_naive_analysis(family, checkpoint, probe):
    teacher, student = checkpoint(family, "teacher", seed=1), checkpoint(family, "student", seed=2, depth=2)
    geometry = analyze(teacher, [student], probe, AnalysisSettings(final_norm="included"))
    assert_matches_naive(geometry, teacher, student, probe)


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3"])
def test_decoders_equal_the_naive_analysis(family, checkpoint, probe):
    teacher, student = checkpoint(family, "teacher", seed=1), checkpoint(family, "student", seed=2, depth=2)
    geometry = analyze(teacher, [student], probe, AnalysisSettings(final_norm="included"))
    assert_matches_naive(geometry, teacher, student, probe)


@pytest.mark.parametrize("budget", [1, 50, 100_000])
def test_batches_do_not_matter(budget, bert_geometry, bert_pair, probe):
    assert_close(analyze(bert_pair[0], bert_pair[1:], probe, AnalysisSettings(token_budget=budget)), bert_geometry)


@pytest.mark.parametrize("budget", [1, 100_000])
def test_batches_do_not_matter_to_an_encoder_decoder(budget, checkpoint, probe):
    pair = checkpoint("t5", "teacher", seed=1), checkpoint("t5", "student", seed=2, depth=2)
    settings = AnalysisSettings(token_budget=budget)
    assert_close(analyze(pair[0], pair[1:], probe, settings), analyze(pair[0], pair[1:], probe))


def test_special_tokens_can_be_dropped(bert_pair, probe):
    geometry = analyze(bert_pair[0], bert_pair[1:], probe, AnalysisSettings(special_tokens=False))
    states = [[s[:, 1:-1] for s in all_states(each, probe, "encoder")] for each in bert_pair]
    expected = naive_rows(*states)
    for row in geometry.angles.itertuples():
        want = expected[row.vertex, row.teacher_i, row.teacher_k]
        assert row.n_tokens == want["n_tokens"]
        assert row.mean_cosine == pytest.approx(want["mean_cosine"], abs=3e-6)


@pytest.mark.parametrize("family", ["bert", "t5"])
def test_the_official_reading_is_the_papers(family, checkpoint, probe, tmp_path):
    """Padded to 24, every position counted, layers 1 and last, vertex 1, 1e-6 in the denominator."""
    length = 24
    pair = checkpoint(family, "teacher", seed=1), checkpoint(family, "student", seed=2, depth=2)
    settings = AnalysisSettings(reading="official", pad_to=length, token_budget=300)
    geometry = analyze(pair[0], pair[1:], probe, settings)
    pooled = []
    for stream in pair[0].streams:
        chosen = [naive_padded_states(each, probe, length, stream) for each in pair]
        first, last, vertex = chosen[0][1], chosen[0][-1], chosen[1][1]
        u, v = first - vertex, last - vertex
        cosine = (u * v).sum(-1) / (np.linalg.norm(u, axis=-1) * np.linalg.norm(v, axis=-1) + 1e-6)
        pooled.append(cosine)
        row = geometry.angles.query("stream == @stream")
        assert len(row) == 1
        assert row[["vertex", "teacher_i", "teacher_k"]].to_numpy().tolist() == [[1, 1, 3]]
        assert row["n_tokens"].item() == len(probe.texts) * length
        assert row["mean_cosine"].item() == pytest.approx(cosine.mean(), abs=3e-6)
        assert row["std_cosine"].item() == pytest.approx(cosine.std(), abs=3e-6)
    directory = geometry.save(tmp_path / "official")
    lines = (directory / official_histogram_name("student")).read_text().splitlines()
    assert len(lines) == 1000
    left, counts = zip(*(line.split(",") for line in lines), strict=True)
    np.testing.assert_allclose(np.array(left, dtype=float), np.linspace(-1, 1, 1001)[:-1], atol=5e-4)
    expected = np.histogram(np.concatenate(pooled), bins=1000, range=(-1, 1))[0]
    found = np.array(counts, dtype=int)
    assert found.sum() == expected.sum()
    # Rounding may carry a token on a bin's edge into the next bin, never further.
    assert np.abs(np.cumsum(found) - np.cumsum(expected)).max() <= 2


def test_the_readings_differ(bert_pair, bert_geometry, probe):
    official = analyze(bert_pair[0], bert_pair[1:], probe, AnalysisSettings(reading="official", pad_to=40))
    corrected = bert_geometry.angles.query("vertex == 1 and teacher_i == 1 and teacher_k == 3")
    assert abs(official.angles["mean_cosine"].item() - corrected["mean_cosine"].item()) > 1e-3


def test_chosen_layers_are_rows_of_the_full_run(bert_geometry, bert_pair, probe):
    settings = AnalysisSettings(teacher_layers=(3, 0, 2), vertices=(1,))
    geometry = analyze(bert_pair[0], bert_pair[1:], probe, settings)
    rows = "vertex == 1 and teacher_i != 1 and teacher_k != 1"
    expected = bert_geometry.angles.query(rows).reset_index(drop=True)
    assert len(expected) == 3
    assert_frame_equal(geometry.angles, expected, rtol=1e-9)
    index = ["side_a", "layer_a", "side_b", "layer_b"]
    full = bert_geometry.layers.set_index(index)
    for row in geometry.layers.set_index(index).itertuples():
        assert row.mean_cosine == pytest.approx(full.loc[row.Index, "mean_cosine"], rel=1e-9)
        assert row.mean_distance == pytest.approx(full.loc[row.Index, "mean_distance"], rel=1e-9)


@pytest.mark.parametrize("family", ["t5", "qwen3"])
def test_the_final_norm_changes_the_last_layer_only(family, checkpoint, probe):
    pair = checkpoint(family, "teacher", seed=1), checkpoint(family, "student", seed=2, depth=2)
    results = [analyze(pair[0], pair[1:], probe, AnalysisSettings(final_norm=n)) for n in ("excluded", "included")]
    touched = "vertex == 2 or teacher_k == 3"
    untouched = f"not ({touched})"
    assert_frame_equal(*(each.angles.query(untouched) for each in results), rtol=1e-9)
    difference = np.subtract(*(each.angles.query(touched)["mean_cosine"].to_numpy() for each in results))
    assert np.abs(difference).min() > 1e-6
    assert np.abs(difference).max() > 0.05
    assert all(results[0].settings["models_have_final_norm"].values())


def test_layer_similarities_equal_the_naive_ones(bert_geometry, bert_pair, probe):
    states = {
        side: np.concatenate(all_states(each, probe, "encoder"), axis=1)
        for side, each in zip(("teacher", "student"), bert_pair, strict=True)
    }
    assert len(bert_geometry.layers) == 10 + 12 + 6
    for row in bert_geometry.layers.itertuples():
        a, b = states[row.side_a][row.layer_a], states[row.side_b][row.layer_b]
        assert row.mean_cosine == pytest.approx((unit(a) * unit(b)).sum(-1).mean(), abs=3e-6)
        assert row.mean_distance == pytest.approx(np.linalg.norm(a - b, axis=-1).mean(), abs=2e-5)
        a, b = a - a.mean(0), b - b.mean(0)
        centred = (a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum())
        assert row.centred_cosine == pytest.approx(centred, abs=3e-6)
        if (row.side_a, row.layer_a) == (row.side_b, row.layer_b):
            norm = np.linalg.norm(states[row.side_a][row.layer_a], axis=-1).mean()
            assert row.mean_norm == pytest.approx(norm, rel=1e-6)


def test_the_sketch_is_a_real_token(bert_geometry, bert_pair, probe):
    (sketch,) = bert_geometry.sketch_tokens
    assert (sketch["vertex"], sketch["teacher_i"], sketch["teacher_k"]) == (1, 1, 3)
    points = {layer: np.array([x, y]) for layer, x, y in sketch["points"]}
    assert set(points) == {0, 1, 2, 3}
    u, v = points[1], points[3]
    assert u[1] == pytest.approx(0, abs=1e-9)
    assert np.linalg.norm(u) == pytest.approx(sketch["distance_i"])
    assert np.linalg.norm(v) == pytest.approx(sketch["distance_k"])
    assert unit(u) @ unit(v) == pytest.approx(sketch["cosine"])
    ids = bert_pair[0].tokenizer(probe.texts[sketch["example"]])["input_ids"]
    pieces = bert_pair[0].tokenizer.convert_ids_to_tokens(ids)
    teacher, student = (naive_states(each, probe, sketch["example"])["encoder"] for each in bert_pair)
    cosines = (unit(teacher[1] - student[1]) * unit(teacher[3] - student[1])).sum(-1)
    same = [c for piece, c in zip(pieces, cosines, strict=True) if piece == sketch["token"]]
    assert min(abs(c - sketch["cosine"]) for c in same) < 1e-5


def test_what_was_done_is_written_down(bert_geometry, bert_pair, probe, tmp_path):
    provenance = bert_geometry.provenance
    assert provenance["teacher"]["sha256"] == bert_pair[0].sha256
    assert provenance["students"][0]["sha256"] == bert_pair[1].sha256
    assert provenance["probe"]["sha256"] == probe.sha256
    assert provenance["dtype"] == "float32"
    assert bert_geometry.settings["teacher_layers"] == {"encoder": [0, 1, 2, 3]}
    assert bert_geometry.settings["vertices"] == {"student": {"encoder": [0, 1, 2]}}
    loaded = Geometry.load(bert_geometry.save(tmp_path / "out"))
    assert loaded.provenance == provenance
    for table in TABLES:
        assert_frame_equal(getattr(loaded, table), getattr(bert_geometry, table), check_dtype=False)


@pytest.mark.parametrize(("family", "takes"), [("Roberta", 14), ("Bert", 16)])
def test_texts_are_cut_to_what_the_positions_take(family, takes, tiny_tokenizer, words, probe):
    """RoBERTa counts its positions from behind the padding's: of a table of 16, 14 are left for tokens."""
    made = []
    for seed, name in enumerate(("teacher", "student")):
        torch.manual_seed(seed)
        config = getattr(transformers, f"{family}Config")(
            vocab_size=24, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16,
            max_position_embeddings=16, pad_token_id=1 if family == "Roberta" else 0,
        )  # fmt: skip
        model = getattr(transformers, f"{family}Model")(config).eval()
        made.append(Checkpoint(name, name, model, tiny_tokenizer(), ("encoder",), None))
    with pytest.raises((IndexError, RuntimeError)):
        made[0].model(torch.full((1, takes + 1), 5))
    long = replace(probe, texts=tuple(" ".join(words) for _ in probe.texts))
    found = analyze(made[0], made[1:], long)
    assert set(found.examples["n_tokens"]) == {takes}
    assert found.counts["truncated_examples"] == len(long.texts)
