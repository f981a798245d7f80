"""The model card: its numbers are the run's, its metadata is the Hub's, its program runs, and no name breaks it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from huggingface_hub import ModelCard
from matplotlib.image import imread

from anglekit.comparison.compare import compare
from anglekit.distillation.runs.card import finished_facts, model_card, scores_figure
from anglekit.distillation.runs.directory import CARD_FILE, SCORES_FIGURE, RunDirectory
from anglekit.distillation.runs.train import finetune
from anglekit.distillation.tasks.registry import task_by_name
from anglekit.results.example_scores import ExampleScores
from anglekit.vocabulary import SCORE_RANGES, TASK_NAMES
from tests.distillation.run_corpus import make_world, quick, student


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny_model, tiny_tokenizer, words):
    return make_world(tmp_path_factory.mktemp("world"), tiny_model, tiny_tokenizer(), words)


@pytest.fixture(scope="module")
def kept(world, tmp_path_factory):
    """A finished run that nothing may change."""
    tables = [world["dev"], f"again={world['train']}"]
    return Path(student(world, tmp_path_factory.mktemp("kept") / "run", validation=tables).directory)


@pytest.fixture(scope="module")
def facts(kept):
    return finished_facts(RunDirectory(kept, "resume", writes=False))


def program(card):
    return card.partition("```python\n")[2].partition("```")[0]


def test_the_card_has_the_numbers_of_the_run_and_runs(kept, facts, world, tmp_path, monkeypatch, capsys):
    text = (kept / "checkpoint" / CARD_FILE).read_text(encoding="utf-8")
    assert text == model_card(facts)
    card = ModelCard(text)
    assert {(one.dataset_name, one.metric_type): one.metric_value for one in card.data.eval_results} == {
        (row["data"], score): row[score] for row in facts.scores.scores for score in ("accuracy", "macro_f1")
    }
    assert (card.data.pipeline_tag, card.data.base_model, card.data.license) == ("text-classification", None, None)
    assert "| encoder | 2 | 4 |" in text
    assert facts.provenance.origin.sha256_with_head in text
    assert facts.provenance.data["dev"]["sha256"] in text
    # What a directory is called on this machine concerns nobody.
    assert str(Path(world["dev"]).parent) not in text
    assert imread(kept / "checkpoint" / SCORES_FIGURE).shape[2] == 4
    monkeypatch.chdir(kept / "checkpoint")
    exec(program(text), {})  # as a reader does
    assert capsys.readouterr().out.strip() in ("negative", "positive")


def test_the_intervals_are_those_of_compare(kept, facts, world, tmp_path):
    other = student(world, tmp_path / "none", strategy="none", validation=[world["dev"], f"again={world['train']}"])
    levels = compare([kept, other.directory]).levels
    own = facts.levels().set_index(["data", "score", "model"])
    for row in levels[levels["strategy"] == "forward"].to_dict("records"):
        here = own.loc[row["data"], row["score"], "student"]
        ends = np.clip([row["low"], row["high"]], 0.0, 1.0)
        assert (here["value"], here["low"], here["high"]) == pytest.approx((row["mean"], *ends))
        assert here["low"] < here["value"] < here["high"]
    assert set(own.index.get_level_values("model")) == {"student", "teacher", "untrained"}


def drawn(facts):
    """Return the ends of the drawn intervals, and what stands below."""
    (axes,) = scores_figure(facts).axes
    return [end for line in axes.lines for end in line.get_xdata()], axes.get_xlabel()


def test_no_interval_leaves_the_range_of_its_score(facts):
    rows = [{"data": "dev", "examples": 40, "accuracy": 39 / 40}]
    values = np.array([1.0] * 39 + [0.0])
    examples = ExampleScores({("student", "dev"): {"accuracy": values}})
    chance = {"dev": {"accuracy": 0.5}}
    scores = msgspec.structs.replace(
        facts.scores, scores=rows, teacher=[], untrained=[], primary="accuracy", chance=chance
    )
    high = replace(facts, scores=scores, examples=examples)
    (row,) = high.levels().to_dict("records")
    assert 0.9 < row["low"] < row["value"] < row["high"] == 1.0
    assert row["text"].endswith(" to 100.0%)")
    ends, below = drawn(high)
    assert max(ends) == 1.0
    assert below.endswith("dashed: one answer to all")
    assert "one answer to all" in model_card(high)
    # No constant answer is known of a text that is written.
    rows = [{"data": "dev", "examples": 40, "exact_match": 1 / 40}]
    low = replace(
        facts,
        scores=msgspec.structs.replace(scores, scores=rows, primary="exact_match", chance={}),
        examples=ExampleScores({("student", "dev"): {"exact_match": 1.0 - values}}),
    )
    assert "| 2.5% (0.0% to " in model_card(low)
    ends, below = drawn(low)
    assert min(end for end in ends if np.isfinite(end)) == 0.0
    assert below.endswith("over examples")
    assert "one answer to all" not in model_card(low)


def test_every_score_of_a_task_has_its_range():
    assert {score for name in TASK_NAMES for score in task_by_name(name).scores} <= SCORE_RANGES.keys()


def test_a_control_says_what_taught_it(facts):
    def card_of(**changes):
        plan = msgspec.structs.replace(facts.plan, **changes)
        text = model_card(replace(facts, plan=plan))
        return text, ModelCard(text).data.tags

    (stream,) = facts.plan.streams
    matching = msgspec.structs.replace(stream.matching, strategy="none", pairs=(), seed=None)
    unmatched = msgspec.structs.replace(stream, matching=matching)
    without_kl = replace(facts.plan.weights, kl=0.0)
    text, tags = card_of(control="alone", streams=(unmatched,), weights=without_kl)
    assert "trained on the labels of the task classification alone by" in text
    assert "It is the control *alone* of" in text
    assert tags == ["anglekit"]
    assert "distilled" not in text
    assert "x KL" not in text
    text, tags = card_of(control="random-teacher")
    assert "under the layer matching *forward*" in text
    assert "untrained teacher of the same shape, while the KL is to the trained teacher's predictions" in text
    assert tags == ["anglekit", "distillation", "layer-matching"]
    text, tags = card_of(streams=(unmatched,))
    assert "distilled on the task classification without layer matching by" in text
    assert tags == ["anglekit", "distillation"]


def test_no_name_breaks_the_card(facts):
    evil = "x: [y\n---\nlicense: mit\n| a | b |\n# <b>*\x00\ud7ff'\""
    odd = replace(
        facts,
        name=evil,
        config=msgspec.structs.replace(facts.config, labels=[evil, "b"]),
        provenance=msgspec.structs.replace(
            facts.provenance,
            data={evil: {"source": f"/home/me/{evil}", "sha256": "0", "examples": 1, "columns": [evil]}},
            origin=msgspec.structs.replace(facts.provenance.origin, source="owner/name", directory=""),
        ),
        scores=msgspec.structs.replace(
            facts.scores, scores=[{**row, "data": evil} for row in facts.scores.scores[:1]], teacher=[], untrained=[]
        ),
    )
    text = model_card(odd)
    card = ModelCard(text)
    assert (card.data.license, card.data.base_model) == (None, "owner/name")
    assert card.data.eval_results[0].dataset_name == evil
    assert text.count("\n---\n") == 1
    assert sum(line.startswith("# ") for line in card.text.splitlines()) == 1
    assert "<b>" not in card.text.replace(r"\<b\>", "")


def test_a_card_may_be_edited_and_a_fine_tuned_model_has_one(kept, world, tmp_path):
    result = finetune(
        world["teacher"], task="classification", train=world["train"], out=tmp_path / "run", settings=quick(max_steps=1)
    )
    card = Path(result.checkpoint) / CARD_FILE
    text = card.read_text(encoding="utf-8")
    assert "fine-tuned on the task classification" in text
    assert ModelCard(text).data.tags == ["anglekit"]
    assert not (Path(result.checkpoint) / SCORES_FIGURE).exists()
    card.write_text("my own words", encoding="utf-8")
    RunDirectory(tmp_path / "run", "resume").close()  # which checks that the checkpoint is whole


@pytest.mark.parametrize("name", TASK_NAMES)
def test_every_task_has_a_program(facts, name):
    config = msgspec.structs.replace(facts.config, task=name)
    auto = task_by_name(name).model_class.__name__
    assert f"model = {auto}.from_pretrained(checkpoint)" in program(model_card(replace(facts, config=config)))
