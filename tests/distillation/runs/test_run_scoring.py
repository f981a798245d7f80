"""What a run directory brings to its own evaluation, and what of it is refused."""

import json
import re

import pytest

from anglekit.distillation.runs.evaluate import run_scoring
from anglekit.distillation.settings import ScoringSettings
from anglekit.errors import InputError

RECORDED = {"max_length": 32, "target_max_length": None, "beams": 4, "max_new_tokens": 12, "length_penalty": 0.5}


@pytest.fixture
def run(tmp_path):
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "config.json").write_text("{}")

    def write(**changed):
        content = {"format": "anglekit-run-1", "kind": "finetune", "task": "seq2seq", "max_length": 32, "seed": 0}
        content |= {"settings": RECORDED | {"epochs": 3.0}, "tables": {}, "origin_sha256": "0" * 64, **changed}
        (tmp_path / "run_config.json").write_text(json.dumps(content))
        return str(tmp_path)

    return write


def test_a_run_brings_its_lengths_and_its_generation(run):
    assert run_scoring(run(), "seq2seq") == ScoringSettings(32, None, 4, 12, 0.5)


def test_a_penalty_of_one_is_no_choice(run):
    assert run_scoring(run(settings=RECORDED | {"length_penalty": 1.0}), "seq2seq").length_penalty is None


def test_another_task_a_bare_checkpoint_and_another_directory_bring_nothing(run, tmp_path):
    nothing = ScoringSettings()
    assert run_scoring(run(), "wmt16-en-ro") == nothing
    assert run_scoring(f"{run()}/checkpoint", "seq2seq") == nothing
    assert run_scoring(str(tmp_path / "absent"), "seq2seq") == nothing
    assert run_scoring("org/name", "seq2seq") == nothing
    (tmp_path / "run_config.json").unlink()
    assert run_scoring(str(tmp_path), "seq2seq") == nothing


def test_what_is_asked_for_counts_more_than_the_run(run):
    asked = ScoringSettings(beams=1, length_penalty=0.0)
    both = asked.or_else(run_scoring(run(), "seq2seq"))
    assert both == ScoringSettings(32, None, 1, 12, 0.0)
    assert both.generation.length_penalty == 0.0
    assert ScoringSettings().generation.length_penalty == 1.0
    assert asked.given() == {"beams": 1, "length_penalty": 0.0}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"settings": None}, "settings: expected object, got null"),
        ({"settings": RECORDED | {"beams": "4"}}, "beams: expected int | null, got str"),
        ({"settings": RECORDED | {"beams": True}}, "beams: expected int | null, got bool"),
        ({"settings": RECORDED | {"beams": 0}}, "json: beams is 0; allowed: at least 1"),
        ({"settings": RECORDED | {"length_penalty": 1e9}}, "length_penalty is 1000000000.0"),
        ({"settings": RECORDED | {"target_max_length": 1}}, "target_max_length is 1; allowed: at least 2"),
    ],
)
def test_damaged_settings_are_refused_with_a_way_out(run, changed, message):
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        run_scoring(run(**changed), "seq2seq")
    assert "checkpoint itself to score it under the task's settings" in str(caught.value)


def test_a_file_that_is_no_json_is_refused(run, tmp_path):
    run()
    (tmp_path / "run_config.json").write_text("{")
    with pytest.raises(InputError, match="is not readable json"):
        run_scoring(str(tmp_path), "seq2seq")
