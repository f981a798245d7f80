"""An analysis whose angles are taken in compiled loops is the one by tensor operations."""

from __future__ import annotations

import pytest

from anglekit.analysis import tables
from anglekit.analysis.analyze import analyze
from anglekit.analysis.settings import AnalysisSettings
from anglekit.geometry.compiled import choice
from tests.analysis.same_geometry import assert_same

loops = pytest.importorskip("anglekit.geometry.compiled.loops", exc_type=ImportError)


@pytest.mark.parametrize("nulls", ["default", "all"])
def test_every_table_is_the_same(nulls, bert_pair, probe, monkeypatch):
    settings = AnalysisSettings(nulls=nulls)
    expected = analyze(bert_pair[0], bert_pair[1:], probe, settings)
    monkeypatch.setattr(choice, "COMPILED_ANGLES", 1)
    called = set()
    for name in ("add_angles", "mean_angles", "beside_null", "exchange"):
        loop = getattr(loops, name)

        def counted(*given, loop=loop, name=name):
            called.add(name)
            loop(*given)

        monkeypatch.setattr(loops, name, counted)
    found = analyze(bert_pair[0], bert_pair[1:], probe, settings)
    assert_same(found, expected, 1e-7)
    assert called == {"add_angles", "mean_angles", "beside_null", "exchange"}


def test_the_sweep_of_the_vertex_does_not_bring_the_loops_for_few_angles(bert_pair, probe, monkeypatch):
    """Eight places of every vertex have eight times the angles, but not for eight times the tokens."""
    angles_a_token = analyze(bert_pair[0], bert_pair[1:], probe).angles.shape[0]
    monkeypatch.setattr(choice, "COMPILED_ANGLES", angles_a_token + 1)
    called = []
    for name in ("add_angles", "mean_angles", "beside_null", "exchange"):
        monkeypatch.setattr(loops, name, lambda *given, name=name: called.append(name))
    analyze(bert_pair[0], bert_pair[1:], probe)
    assert not called
    monkeypatch.setattr(choice, "COMPILED_ANGLES", angles_a_token)
    analyze(bert_pair[0], bert_pair[1:], probe)
    assert "mean_angles" in called


def test_a_student_with_the_teachers_embeddings(bert_pair, probe, checkpoint, monkeypatch):
    """At its first vertex no direction to the teacher's first layer has a length: that vertex is left to tensors."""
    teacher = bert_pair[0]
    student = checkpoint("bert", "student", seed=2, depth=2)
    student.model.embeddings.load_state_dict(teacher.model.embeddings.state_dict())
    expected = analyze(teacher, [student], probe)
    monkeypatch.setattr(choice, "COMPILED_ANGLES", 1)
    assert_same(analyze(teacher, [student], probe), expected, 1e-7)
    assert expected.angles.query("vertex == 0 and teacher_i == 0")["n_tokens"].eq(0).all()


def test_memory_is_given_back_between_large_tables_alone(bert_pair, probe, monkeypatch):
    given_back = []
    monkeypatch.setattr(tables, "give_back_memory", lambda: given_back.append(1))
    expected = analyze(bert_pair[0], bert_pair[1:], probe)
    assert not given_back
    monkeypatch.setattr(tables, "_LARGE_HISTOGRAMS", 0)
    assert_same(analyze(bert_pair[0], bert_pair[1:], probe), expected)
    assert len(given_back) > 2
