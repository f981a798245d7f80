"""A sample of all model types of transformers: each has a plan, or is refused in one line. `make types` takes all."""

from __future__ import annotations

import pytest
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from tests.models.every_type import planned

# One in forty by the alphabet, so that new types come into it, and those that once ended in a traceback.
SAMPLE = sorted(
    {
        *sorted(CONFIG_MAPPING)[::40],
        "gemma4",
        "nougat",
        "voxtral_realtime_text",
        "vit",
        "encoder-decoder",
        "funnel",
        "embedding_gemma2",
        "pocket_tts",
    }
)


@pytest.mark.parametrize("kind", SAMPLE)
def test_a_default_configuration_is_planned_or_refused(kind, tmp_path):
    answer = planned(kind, tmp_path / "model")
    assert answer.outcome in ("planned", "text inside", "refused"), answer.words
    assert answer.words


def test_an_error_of_the_code_is_told_from_a_refusal(tmp_path, monkeypatch):
    def broken(_config):
        raise KeyError("depth")

    monkeypatch.setattr("tests.models.every_type.model_streams", broken)
    assert planned("bert", tmp_path / "model").outcome == "failed"
