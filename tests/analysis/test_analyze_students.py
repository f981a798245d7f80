"""Several students, projections, broken weights, and what is refused."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from pandas.testing import assert_frame_equal
from tokenizers.normalizers import Prepend

from anglekit.analysis.analyze import analyze, measure
from anglekit.analysis.settings import AnalysisSettings
from anglekit.errors import InputError, RunError
from anglekit.models.check import facts_of
from anglekit.models.checkpoints import Checkpoint, StudentNote, weights_hash
from anglekit.results.geometry import Geometry
from anglekit.runtime.processes import Processes
from tests.analysis.naive_analysis import (
    TABLES,
    all_states,
    naive_rows,
)


def broken(checkpoint: Checkpoint, block: int) -> Checkpoint:
    model = copy.deepcopy(checkpoint.model)
    with torch.no_grad():
        model.encoder.layer[block].output.dense.bias[0] = torch.nan
    return replace(checkpoint, model=model)


def test_students_share_a_pass_and_keep_to_themselves(bert_pair, checkpoint, probe):
    teacher, student = bert_pair
    other = checkpoint("bert", "student", seed=4, depth=3)
    calls = []
    facts_of(teacher.model)
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


def test_texts_that_a_student_reads_otherwise_are_left_out_and_counted(bert_pair, tiny_tokenizer, probe, words):
    teacher, student = bert_pair
    more = tiny_tokenizer()
    more.add_tokens([f"{words[0]}{words[1]}", "other"])
    padded = copy.deepcopy(student.model)
    padded.resize_token_embeddings(len(more) + 6, mean_resizing=False)
    other = replace(student, model=padded, tokenizer=more)
    unlike = [3, len(probe.texts) - 1]
    texts = [f"{text} {words[0]}{words[1]}" if place in unlike else text for place, text in enumerate(probe.texts)]
    whole = analyze(teacher, [other, student], replace(probe, texts=tuple(texts)))
    kept = [place for place in range(len(texts)) if place not in unlike]
    apart = analyze(teacher, [student, student], probe.select(kept))
    for table in TABLES:
        assert_frame_equal(getattr(whole, table), getattr(apart, table), rtol=1e-9)
    assert whole.counts["unlike_examples"] == 2
    assert "2 examples were left out because teacher and students read other tokens there" in whole.notes()
    # Rows alone leave nothing out.
    assert analyze(teacher, [replace(other, tokenizer=tiny_tokenizer())], probe).counts["unlike_examples"] == 0


def test_models_are_left_as_found(bert_pair, probe):
    teacher, student = bert_pair

    def hooks() -> list[int]:
        return [len(m._forward_hooks) + len(m._forward_pre_hooks) for c in bert_pair for m in c.model.modules()]

    before = hooks()
    hashes = [weights_hash(each.model) for each in bert_pair]
    student.model.train()
    student.model.encoder.layer[0].eval()
    modes = [module.training for module in student.model.modules()]
    try:
        analyze(teacher, [student], probe)
        assert [module.training for module in student.model.modules()] == modes
    finally:
        student.model.eval()
    assert hooks() == before
    assert [weights_hash(each.model) for each in bert_pair] == hashes
    for each in bert_pair:
        assert all(weight.requires_grad and weight.grad is None for weight in each.model.parameters())


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


def test_the_examples_angles_average_to_the_vertex_angle_also_where_pairs_lack_tokens(bert_pair, checkpoint, probe):
    teacher = bert_pair[0]
    student = checkpoint("bert", "half copied", seed=2, depth=2)
    student.model.embeddings.load_state_dict(teacher.model.embeddings.state_dict())
    with torch.no_grad():
        student.model.embeddings.word_embeddings.weight[::2] += 0.1
    geometry = analyze(teacher, [student, *bert_pair[1:]], probe)
    assert geometry.angles.query("student == 'half copied' and vertex == 0")["n_tokens"].nunique() == 2
    moved = []
    for (name, vertex), own in geometry.examples.groupby(["student", "vertex"]):
        pairs = geometry.angles[(geometry.angles["student"] == name) & (geometry.angles["vertex"] == vertex)]
        angle = pairs["mean_angle_degrees"].mean()
        assert np.average(own["mean_angle_degrees"], weights=own["n_tokens"]) == pytest.approx(angle, abs=1e-9)
        moved.append(abs(np.degrees(np.arccos(pairs["mean_cosine"].mean())) - angle))
    assert max(moved) > 0.01  # the angle of the mean cosine is another number


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


@pytest.mark.parametrize(
    "kind",
    [
        "least-squares",
        "procrustes",
    ],
)
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
            # Fresh LayerNorm states sum to zero but for float32 rounding: a direction that must not be fitted.
            weight = np.linalg.lstsq(s, t, rcond=1e-6)[0].T
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


class SecondOfTwo(Processes):
    """The second of two processes, of which the first one had no batch and rounds otherwise, here by a half."""

    def gather(self, value):
        return [value, value]

    def add_up(self, tensor):
        pass

    def share_first(self, tensor):
        tensor.mul_(1.5)


def test_all_processes_measure_through_the_first_ones_projection(bert_pair, checkpoint, probe, monkeypatch):
    narrow = checkpoint("bert", "narrow", seed=2, depth=2, width=8)
    settings = AnalysisSettings(projection="least-squares", nulls="none", similarity="none", token_budget=100)
    _, shared = measure(bert_pair[0], [narrow], probe, settings, processes=SecondOfTwo(1, 2))
    monkeypatch.setattr(SecondOfTwo, "share_first", lambda *_: None)
    _, own = measure(bert_pair[0], [narrow], probe, settings, processes=SecondOfTwo(1, 2))
    key = ("encoder", 0)
    assert len(own.projections[key]) == 3
    for matrix, other in zip(shared.projections[key], own.projections[key], strict=True):
        torch.testing.assert_close(matrix, 1.5 * other)
    torch.testing.assert_close(shared.sums[key].vertex.norm, 1.5 * own.sums[key].vertex.norm)
    torch.testing.assert_close(shared.sums[key].student.norm, own.sums[key].student.norm)


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


@pytest.mark.parametrize(("taught_by", "expected"), [({"encoder": {"2": 1}}, 1), ({"encoder": {"2": 99}}, 3), ({}, 3)])
def test_an_adapter_explains_the_layer_that_taught_it(taught_by, expected, bert_pair, checkpoint, probe):
    teacher = bert_pair[0]
    narrow = checkpoint("bert", "narrow", seed=2, depth=2, width=8)
    weight = torch.randn(16, 8, generator=torch.Generator().manual_seed(0))
    narrow = replace(narrow, adapters={("encoder", 2): weight}, training=StudentNote(taught_by=taught_by))
    (row,) = analyze(teacher, [narrow], probe).projections
    assert (row["vertex"], row["teacher_layer"]) == (2, expected)
    projected = np.concatenate([s[2:] @ weight.double().numpy().T for s in all_states(narrow, probe, "encoder")], 1)[0]
    target = np.concatenate(all_states(teacher, probe, "encoder"), 1)[expected]
    residual = ((target - projected) ** 2).sum() / ((target - target.mean(0)) ** 2).sum()
    assert row["r_squared"] == pytest.approx(1 - residual, abs=1e-4)


def test_what_does_not_fit_is_refused_before_a_batch_runs(bert_pair, checkpoint, tiny_tokenizer, words, probe):
    teacher, student = bert_pair
    narrow = checkpoint("bert", "narrow", width=8)
    t5, other_t5 = checkpoint("t5", "t5"), checkpoint("t5", "other", seed=1)
    prefixed = tiny_tokenizer()
    prefixed.backend_tokenizer.normalizer = Prepend("x")
    cases = [
        (teacher, [], {}, "no student"),
        (teacher, [narrow], {}, "adapter .*least-squares or procrustes"),
        (teacher, [narrow], {"projection": "adapter"}, "no trained adapters"),
        (teacher, [replace(narrow, adapters={("encoder", 1): torch.ones(9, 8)})], {}, "belongs to another teacher"),
        (teacher, [checkpoint("gpt2", "gpt2")], {}, "one kind"),
        (
            teacher,
            [replace(student, tokenizer=tiny_tokenizer(words[1:]))],
            {},
            "token 'a' is number 5 in",
        ),
        (teacher, [replace(student, tokenizer=tiny_tokenizer(words[::-1]))], {}, "do not read the same tokens"),
        (teacher, [replace(student, tokenizer=prefixed)], {}, "no text is read alike; token 2 of '"),
        (replace(teacher, tokenizer=None), [student], {}, "no tokenizer"),
        (checkpoint("bert", "flat", depth=1), [student], {}, "2 or more"),
        (teacher, [student], {"teacher_layers": (1,)}, "2 or more"),
        (teacher, [student], {"teacher_layers": (1, 4)}, r"layer 4 does not exist.*0 \(embedding\) to 3"),
        (teacher, [student], {"vertices": (3,)}, "layer 3 does not exist"),
    ]
    given = [t5.model, other_t5.model, *(each.model for first, students, *_ in cases for each in (first, *students))]
    for model in given:
        facts_of(model)  # which `load_checkpoint` asks for
    passes = []  # of these models; their limits of length are found with others
    handle = torch.nn.modules.module.register_module_forward_pre_hook(
        lambda module, _: passes.append(module) if any(module is model for model in given) else None
    )
    try:
        for first, students, options, expected in cases:
            with pytest.raises(InputError, match=expected):
                analyze(first, students, probe, AnalysisSettings(**options))
        with pytest.raises(InputError, match="target"):
            analyze(t5, [other_t5], replace(probe, targets=None, target_column=None))
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
