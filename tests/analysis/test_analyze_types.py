"""The whole analysis of types that pad, turn or look at padding, against one pass an example."""

from dataclasses import replace

import pytest
from msgspec import structs

from anglekit.analysis import preparation
from anglekit.analysis.analyze import analyze
from anglekit.analysis.settings import AnalysisSettings
from anglekit.models.check import facts_of
from anglekit.models.checkpoints import Checkpoint, load_checkpoint, weights_hash
from anglekit.results.overview import analysis_notes
from tests.analysis.naive_analysis import assert_close, assert_matches_naive
from tests.tiny_types import build

#: The types, and the note that the analysis makes on them.
TYPES = {
    "xlnet": "",
    "longformer": "",
    "fnet": "the states of teacher, student depend on padding: batches were of texts of one length",
}


@pytest.fixture(scope="module")
def pair_of(tiny_tokenizer):
    """`pair_of(kind)`: a teacher and a student of one type, with other weights."""

    def make(kind):
        checkpoints = []
        for seed, name in enumerate(("teacher", "student")):
            model = build(kind, seed=seed)
            streams = tuple(facts_of(model).streams)
            checkpoints.append(
                Checkpoint(name, name, model, tiny_tokenizer(), streams, None, sha256=weights_hash(model))
            )
        return checkpoints

    return make


@pytest.mark.parametrize("kind", ["xlnet", "longformer", "fnet"])
def test_any_type_equals_the_naive_analysis(kind, pair_of, probe):
    teacher, student = pair_of(kind)
    geometry = analyze(teacher, [student], probe, AnalysisSettings(final_norm="included", nulls="none"))
    assert_matches_naive(geometry, teacher, student, probe)
    notes = [note for note in geometry.notes() if "padding" in note]
    assert notes == ([TYPES[kind]] if TYPES[kind] else [])
    recorded = {record.batching for record in (geometry.document.provenance.teacher,)}
    assert recorded == {"equal lengths" if TYPES[kind] else None}


def test_padded_batches_of_a_type_that_looks_at_padding_are_wrong(pair_of, probe, monkeypatch):
    """The negative control of the above."""
    teacher, student = pair_of("fnet")
    monkeypatch.setattr(preparation, "BATCHINGS", ("padded",))
    monkeypatch.setattr(preparation, "facts_of", lambda model: replace(facts_of(model), batching="padded"))
    geometry = analyze(teacher, [student], probe, AnalysisSettings(final_norm="included", nulls="none"))
    with pytest.raises(AssertionError):
        assert_matches_naive(geometry, teacher, student, probe)


@pytest.mark.parametrize("kind", ["fsmt", "big_bird"])
def test_batches_do_not_matter_to_any_type(kind, pair_of, probe):
    """BigBird changes its attention for good at the first short text: each text must find it as it was."""
    teacher, student = pair_of(kind)
    settings = AnalysisSettings(nulls="none")
    whole = analyze(teacher, [student], probe, settings)
    assert_close(analyze(teacher, [student], probe, replace(settings, token_budget=1)), whole)


def test_a_loaded_model_has_the_streams_that_it_was_seen_to_have(tmp_path, save_tiny):
    directory = save_tiny(tmp_path / "xlnet", build("xlnet"))
    loaded = load_checkpoint(str(directory))
    assert loaded.streams == ("encoder",)
    assert "batching" not in loaded.provenance()
    fnet = load_checkpoint(str(save_tiny(tmp_path / "fnet", build("fnet"))))
    assert fnet.provenance()["batching"] == "equal lengths"


def test_what_was_not_checked_is_said(pair_of, probe):
    teacher, student = pair_of("longformer")
    document = analyze(teacher, [student], probe, AnalysisSettings(nulls="none")).document
    origin = document.provenance
    unread = structs.replace(origin.teacher, unchecked="weights are offloaded")
    told = structs.replace(document, provenance=structs.replace(origin, teacher=unread))
    assert "what the blocks of teacher hand over was not checked: weights are offloaded" in analysis_notes(told)
    assert not any("checked" in note for note in analysis_notes(document))
