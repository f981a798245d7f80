"""The whole analysis against a naive one: one forward pass an example, NumPy in float64."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from pandas.testing import assert_frame_equal

from anglekit.checkpoints import Checkpoint, weights_hash
from anglekit.errors import InputError, RunError
from anglekit.geometry.analyze import analyze
from anglekit.geometry.results import Geometry, official_histogram_name
from anglekit.geometry.settings import AnalysisSettings
from anglekit.probes import ProbeData

States = dict[str, NDArray[np.float64]]
KEYS = ["student", "stream", "vertex", "teacher_i", "teacher_k"]
TABLES = ("angles", "histograms", "layers", "examples")


@pytest.fixture(scope="module")
def probe(words) -> ProbeData:
    """Twenty-four examples of 1 to 20 words, with targets of 1 to 7."""
    rng = np.random.default_rng(3)
    texts = tuple(" ".join(rng.choice(words, size)) for size in rng.integers(1, 21, 24))
    targets = tuple(" ".join(rng.choice(words, size)) for size in rng.integers(1, 8, 24))
    return ProbeData("memory", "0" * 64, texts, None, targets, tuple(range(24)), 0, "text", None, "target")


@pytest.fixture(scope="module")
def checkpoint(tiny_model, tiny_tokenizer) -> Callable[..., Checkpoint]:
    """`checkpoint(family, name, **model options)`: what `load_checkpoint` would return."""

    def make(family: str, name: str, **options: int) -> Checkpoint:
        model = tiny_model(family, **options)
        streams = {"bert": ("encoder",), "t5": ("encoder", "decoder"), "bart": ("encoder", "decoder")}
        return Checkpoint(
            name, name, model, tiny_tokenizer(), streams.get(family, ("decoder",)), None, {}, weights_hash(model)
        )

    return make


@pytest.fixture(scope="module")
def bert_pair(checkpoint) -> tuple[Checkpoint, Checkpoint]:
    return checkpoint("bert", "teacher", seed=1), checkpoint("bert", "student", seed=2, depth=2)


@pytest.fixture(scope="module")
def bert_geometry(bert_pair, probe) -> Geometry:
    return analyze(bert_pair[0], bert_pair[1:], probe)


def naive_states(checkpoint: Checkpoint, probe: ProbeData, row: int) -> States:
    """One example alone, unpadded: float64 (layers, tokens, width) of each stream, as Hugging Face reports them."""
    tokenizer, model = checkpoint.tokenizer, checkpoint.model
    inputs = {"input_ids": torch.tensor([tokenizer(probe.texts[row])["input_ids"]])}
    if len(checkpoint.streams) == 2:
        labels = tokenizer(text_target=probe.targets[row])["input_ids"]
        inputs["decoder_input_ids"] = torch.tensor([[model.config.decoder_start_token_id, *labels[:-1]]])
    with torch.no_grad():
        output = model(**inputs, output_hidden_states=True)
    if len(checkpoint.streams) == 2:
        found = {"encoder": output.encoder_hidden_states, "decoder": output.decoder_hidden_states}
    else:
        found = {checkpoint.streams[0]: output.hidden_states}
    return {stream: torch.cat(tuple(states)).double().numpy() for stream, states in found.items()}


def _unit(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def naive_rows(
    teacher: Sequence[NDArray[np.float64]], student: Sequence[NDArray[np.float64]]
) -> dict[tuple[int, int, int], dict[str, object]]:
    """Every vertex and pair over all examples, written down as the definitions read."""
    rows = {}
    pairs = itertools.combinations(range(len(teacher[0])), 2)
    for vertex, (i, k) in itertools.product(range(len(student[0])), pairs):
        cosines, angles, tangential, null = [], [], [], []
        for t, s in zip(teacher, student, strict=True):
            a, b, origin = t[i], t[k], s[vertex]
            cosines.append((_unit(a - origin) * _unit(b - origin)).sum(-1))
            angles.append(np.degrees(np.arccos(cosines[-1])))
            axis = _unit(origin)
            flat = [x - (x * axis).sum(-1, keepdims=True) * axis for x in (a, b)]
            tangential.append((_unit(flat[0]) * _unit(flat[1])).sum(-1))
            squares = [(x**2).sum(-1) for x in (a, b, origin)]
            null.append(squares[2] / np.sqrt((squares[2] + squares[0]) * (squares[2] + squares[1])))
        every = np.concatenate(cosines)
        n, examples = len(every), len(cosines)
        residual = np.array([c.sum() - every.mean() * len(c) for c in cosines])
        rows[vertex, i, k] = {
            "mean_cosine": every.mean(),
            "std_cosine": every.std(),
            "mean_angle_degrees": np.concatenate(angles).mean(),
            "acute_fraction": (every > 0).mean(),
            "mean_tangential_cosine": np.concatenate(tangential).mean(),
            "null_cosine": np.concatenate(null).mean(),
            "se_cosine": np.sqrt(examples / (examples - 1) * (residual**2).sum()) / n,
            "n_tokens": n,
            "n_examples": examples,
            "cosines": cosines,
        }
    return rows


def all_states(checkpoint: Checkpoint, probe: ProbeData, stream: str) -> list[NDArray[np.float64]]:
    return [naive_states(checkpoint, probe, row)[stream] for row in range(len(probe.texts))]


def assert_matches_naive(geometry: Geometry, teacher: Checkpoint, student: Checkpoint, probe: ProbeData) -> None:
    for stream in teacher.streams:
        teacher_states, student_states = (all_states(each, probe, stream) for each in (teacher, student))
        expected = naive_rows(teacher_states, student_states)
        found = geometry.angles.query("student == @student.name and stream == @stream")
        assert len(found) == len(expected)
        for row in found.itertuples():
            want = expected[row.vertex, row.teacher_i, row.teacher_k]
            for name in set(want) - {"cosines"}:
                assert getattr(row, name) == pytest.approx(want[name], abs=2e-4 if "degrees" in name else 3e-6), name
        bins = geometry.histograms.query("student == @student.name and stream == @stream and teacher_i >= 0")
        for (vertex, i, k), group in bins.groupby(["vertex", "teacher_i", "teacher_k"]):
            cosines = np.concatenate(expected[vertex, i, k]["cosines"])
            left = np.repeat(group["bin"].to_numpy(), group["count"].to_numpy()) / 500 - 1
            # A token on a bin's edge may fall on either side; sorted, each lies within its bin.
            assert len(left) == len(cosines)
            assert np.abs(np.sort(cosines) - (left + 0.001)).max() < 0.001 + 1e-5
        examples = geometry.examples.query("student == @student.name and stream == @stream")
        for row in examples.itertuples():
            cosines = [want["cosines"][row.example] for key, want in expected.items() if key[0] == row.vertex]
            assert row.mean_cosine == pytest.approx(np.mean(cosines), abs=3e-6)
            assert row.n_tokens == len(cosines[0])


def assert_close(a: Geometry, b: Geometry, tolerance: float = 1e-6) -> None:
    """Compare every table but the bins; a token on an edge may change its bin, so of those only the sums."""
    for table in ("angles", "layers", "examples"):
        assert_frame_equal(getattr(a, table), getattr(b, table), rtol=tolerance, atol=tolerance)
    sums = [each.histograms.groupby(KEYS)["count"].sum() for each in (a, b)]
    pd.testing.assert_series_equal(*sums)


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


def test_students_share_a_pass_and_keep_to_themselves(bert_pair, checkpoint, probe):
    teacher, student = bert_pair
    other = checkpoint("bert", "student", seed=4, depth=3)
    calls = []
    handle = teacher.model.register_forward_pre_hook(lambda *_: calls.append(1))
    together = analyze(teacher, [student, other], probe, AnalysisSettings(token_budget=100))
    shared = len(calls)
    apart = [analyze(teacher, [each], probe, AnalysisSettings(token_budget=100)) for each in (student, other)]
    handle.remove()
    assert len(calls) == 3 * shared
    assert together.students == ["student", "student-2"]
    for name, alone in zip(together.students, apart, strict=True):
        for table in TABLES:
            mine = getattr(together, table).query("student == @name").reset_index(drop=True)
            assert_frame_equal(mine, getattr(alone, table).assign(student=name), rtol=1e-9)


def test_models_are_left_as_found(bert_pair, probe):
    teacher, student = bert_pair
    hashes = [weights_hash(each.model) for each in bert_pair]
    student.model.train()
    student.model.encoder.layer[0].eval()
    modes = [module.training for module in student.model.modules()]
    try:
        analyze(teacher, [student], probe)
        assert [module.training for module in student.model.modules()] == modes
    finally:
        student.model.eval()
    assert [weights_hash(each.model) for each in bert_pair] == hashes
    for each in bert_pair:
        assert all(weight.requires_grad and weight.grad is None for weight in each.model.parameters())
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in each.model.modules())


def test_a_copied_embedding_has_no_angle_with_its_own_layer(bert_pair, checkpoint, probe, tmp_path):
    teacher = bert_pair[0]
    student = checkpoint("bert", "copied", seed=2, depth=2)
    student.model.embeddings.load_state_dict(teacher.model.embeddings.state_dict())
    geometry = analyze(teacher, [student], probe)
    counts = geometry.counts["by_student"]["copied"]["encoder"]
    tokens = counts["tokens"]
    assert counts["zero_direction"] == [{"vertex": 0, "teacher_layer": 0, "tokens": tokens}]
    undefined = geometry.angles.query("vertex == 0 and teacher_i == 0")
    assert set(undefined["n_tokens"]) == {0}
    assert undefined["mean_cosine"].isna().all()
    rest = geometry.angles.query("vertex != 0 or teacher_i != 0")
    assert set(rest["n_tokens"]) == {tokens}
    assert rest["mean_cosine"].notna().all()
    assert geometry.histograms.query("vertex == 0 and teacher_i == 0").empty
    geometry.save(tmp_path / "out")
    assert Geometry.load(tmp_path / "out").angles["mean_cosine"].isna().sum() == len(undefined)


def broken(checkpoint: Checkpoint, block: int) -> Checkpoint:
    model = copy.deepcopy(checkpoint.model)
    with torch.no_grad():
        model.encoder.layer[block].output.dense.bias[0] = torch.nan
    return replace(checkpoint, model=model)


def test_a_broken_last_block_is_counted_and_the_other_layers_stand(bert_geometry, bert_pair, probe):
    geometry = analyze(broken(bert_pair[0], 2), bert_pair[1:], probe)
    counts = geometry.counts["by_student"]["student"]["encoder"]
    assert counts["nonfinite_states"] == {"teacher": {"3": counts["tokens"]}, "student": {}}
    assert counts["tokens_finite_everywhere"] == 0
    assert set(geometry.angles.query("teacher_k == 3")["n_tokens"]) == {0}
    sound = "teacher_k != 3"
    assert_frame_equal(geometry.angles.query(sound), bert_geometry.angles.query(sound), rtol=1e-9)
    assert int(geometry.histograms.query("teacher_k == 3")["count"].sum()) == 0


def test_a_broken_student_block_spoils_its_own_vertex_only(bert_geometry, bert_pair, probe):
    geometry = analyze(bert_pair[0], [broken(bert_pair[1], 1)], probe)
    assert geometry.counts["by_student"]["student"]["encoder"]["nonfinite_states"]["student"].keys() == {"2"}
    assert_frame_equal(geometry.angles.query("vertex < 2"), bert_geometry.angles.query("vertex < 2"), rtol=1e-9)


def test_nothing_finite_fails(bert_pair, probe):
    model = copy.deepcopy(bert_pair[1].model)
    with torch.no_grad():
        model.embeddings.LayerNorm.bias.fill_(torch.nan)
    with pytest.raises(RunError, match="no angle is left for student student in the encoder"):
        analyze(bert_pair[0], [replace(bert_pair[1], model=model)], probe)


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


def naive_padded_states(checkpoint: Checkpoint, probe: ProbeData, length: int, stream: str) -> NDArray[np.float64]:
    """All examples in one batch of one padded length: float64 (layers, examples * length, width)."""
    tokenizer, model = checkpoint.tokenizer, checkpoint.model
    options = {"padding": "max_length", "max_length": length, "return_tensors": "pt"}
    inputs = tokenizer(list(probe.texts), **options)
    inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    if len(checkpoint.streams) == 2:
        labels = tokenizer(text_target=list(probe.targets), **options)
        start = torch.full((len(probe.texts), 1), model.config.decoder_start_token_id)
        shifted = torch.cat([start, labels["input_ids"][:, :-1]], dim=1)
        # The start token takes the place of the closing one: as many inputs as labels.
        ends = labels["attention_mask"].sum(1, keepdim=True) == torch.arange(length)
        inputs["decoder_input_ids"] = shifted.masked_fill(ends, 0)
        inputs["decoder_attention_mask"] = labels["attention_mask"]
    with torch.no_grad():
        output = model(**inputs, output_hidden_states=True)
    states = getattr(output, f"{stream}_hidden_states", None) or output.hidden_states
    return torch.stack(tuple(states)).flatten(1, 2).double().numpy()


def test_the_readings_differ(bert_pair, bert_geometry, probe):
    official = analyze(bert_pair[0], bert_pair[1:], probe, AnalysisSettings(reading="official", pad_to=40))
    corrected = bert_geometry.angles.query("vertex == 1 and teacher_i == 1 and teacher_k == 3")
    assert abs(official.angles["mean_cosine"].item() - corrected["mean_cosine"].item()) > 1e-3


@pytest.mark.parametrize("kind", ["least-squares", "procrustes"])
def test_a_fitted_projection_is_the_best_on_the_other_half(kind, bert_pair, checkpoint, probe):
    teacher = bert_pair[0]
    narrow = checkpoint("bert", "narrow", seed=2, depth=2, width=8)
    geometry = analyze(teacher, [narrow], probe, AnalysisSettings(projection=kind, seed=5))
    examples = set(geometry.examples["example"])
    assert geometry.counts["examples"] == len(examples) == 12
    assert geometry.counts["examples_used_for_projection"] == 12
    fit = sorted(set(range(24)) - examples)
    measured = sorted(examples)
    teacher_states, student_states = (all_states(each, probe, "encoder") for each in (teacher, narrow))
    assert [row["vertex"] for row in geometry.projections] == [0, 1, 2]
    for row, aim in zip(geometry.projections, (0, 2, 3), strict=True):
        assert (row["kind"], row["teacher_layer"], row["stream"]) == (kind, aim, "encoder")
        s, t = (
            np.concatenate([x[e][layer] for e in fit])
            for x, layer in ((student_states, row["vertex"]), (teacher_states, aim))
        )
        if kind == "least-squares":
            weight = np.linalg.lstsq(s, t, rcond=None)[0].T
        else:
            left, _, right = np.linalg.svd(t.T @ s, full_matrices=False)
            weight = left @ right
        s, t = (
            np.concatenate([x[e][layer] for e in measured])
            for x, layer in ((student_states, row["vertex"]), (teacher_states, aim))
        )
        r_squared = 1 - ((t - s @ weight.T) ** 2).sum() / ((t - t.mean(0)) ** 2).sum()
        assert row["r_squared"] == pytest.approx(r_squared, abs=1e-4)
        projected = [x[row["vertex"]][None] @ weight.T for x in (student_states[e] for e in measured)]
        expected = naive_rows([teacher_states[e] for e in measured], projected)
        for found in geometry.angles[geometry.angles["vertex"] == row["vertex"]].itertuples():
            want = expected[0, found.teacher_i, found.teacher_k]
            assert found.mean_cosine == pytest.approx(want["mean_cosine"], abs=1e-4)


def test_a_trained_adapter_is_used_by_itself_and_only_where_there_is_one(bert_pair, checkpoint, probe):
    teacher = bert_pair[0]
    narrow = checkpoint("bert", "narrow", seed=2, depth=2, width=8)
    weight = torch.randn(16, 8, generator=torch.Generator().manual_seed(0))
    narrow = replace(narrow, adapters={("encoder", 2): weight})
    geometry = analyze(teacher, [narrow], probe)
    assert set(geometry.angles["vertex"]) == {2}
    assert geometry.counts["examples"] == 24
    assert [row["kind"] for row in geometry.projections] == ["adapter"]
    states = [s[2:] @ weight.double().numpy().T for s in all_states(narrow, probe, "encoder")]
    expected = naive_rows(all_states(teacher, probe, "encoder"), states)
    for row in geometry.angles.itertuples():
        want = expected[0, row.teacher_i, row.teacher_k]
        assert row.mean_cosine == pytest.approx(want["mean_cosine"], abs=3e-6)


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
        assert row.mean_cosine == pytest.approx((_unit(a) * _unit(b)).sum(-1).mean(), abs=3e-6)
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
    assert _unit(u) @ _unit(v) == pytest.approx(sketch["cosine"])
    ids = bert_pair[0].tokenizer(probe.texts[sketch["example"]])["input_ids"]
    pieces = bert_pair[0].tokenizer.convert_ids_to_tokens(ids)
    teacher, student = (naive_states(each, probe, sketch["example"])["encoder"] for each in bert_pair)
    cosines = (_unit(teacher[1] - student[1]) * _unit(teacher[3] - student[1])).sum(-1)
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


def test_what_does_not_fit_is_refused_before_a_batch_runs(bert_pair, checkpoint, tiny_tokenizer, words, probe):
    teacher, student = bert_pair
    narrow = checkpoint("bert", "narrow", width=8)
    t5 = checkpoint("t5", "t5")
    cases = [
        (teacher, [], {}, "no student"),
        (teacher, [narrow], {}, "adapter .*least-squares or procrustes"),
        (teacher, [narrow], {"projection": "adapter"}, "no trained adapters"),
        (teacher, [replace(narrow, adapters={("encoder", 1): torch.ones(9, 8)})], {}, "belongs to another teacher"),
        (teacher, [checkpoint("gpt2", "gpt2")], {}, "one kind"),
        (teacher, [replace(student, tokenizer=tiny_tokenizer(words[:-1]))], {}, "do not read the same tokens"),
        (teacher, [replace(student, tokenizer=tiny_tokenizer(words[::-1]))], {}, "do not read the same tokens"),
        (replace(teacher, tokenizer=None), [student], {}, "no tokenizer"),
        (checkpoint("bert", "flat", depth=1), [student], {}, "2 or more"),
        (teacher, [student], {"teacher_layers": (1,)}, "2 or more"),
        (teacher, [student], {"teacher_layers": (1, 4)}, r"layer 4 does not exist.*0 \(embedding\) to 3"),
        (teacher, [student], {"vertices": (3,)}, "layer 3 does not exist"),
    ]
    passes = []
    handle = torch.nn.modules.module.register_module_forward_pre_hook(lambda *_: passes.append(1))
    try:
        for first, students, options, expected in cases:
            with pytest.raises(InputError, match=expected):
                analyze(first, students, probe, AnalysisSettings(**options))
        with pytest.raises(InputError, match="target"):
            analyze(t5, [t5], replace(probe, targets=None, target_column=None))
    finally:
        handle.remove()
    assert passes == []


def test_settings_out_of_range_are_refused():
    cases = [
        ({"reading": "officail"}, "official"),
        ({"final_norm": "maybe"}, "excluded"),
        ({"projection": "linear"}, "least-squares"),
        ({"reading": "official", "vertices": (1,)}, "--vertices"),
        ({"reading": "official", "special_tokens": False}, "--no-special-tokens"),
    ]
    for options, expected in cases:
        with pytest.raises(InputError, match=expected):
            AnalysisSettings(**options)
