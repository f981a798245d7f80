"""LoRA: what is trained, what is saved merged and unmerged, and that both load as the same model."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from anglekit.distillation.runs.evaluate import evaluate
from anglekit.distillation.runs.train import finetune
from anglekit.distillation.settings import ScoringSettings
from anglekit.distillation.tasks.models import load_trained
from anglekit.distillation.tasks.registry import task_by_name
from anglekit.errors import InputError
from anglekit.models.checkpoints import load_checkpoint
from tests.distillation.causal_corpus import causal_student, make_causal_world
from tests.distillation.run_corpus import kill_at_five, make_world, quick, student
from tests.distillation.swept_students import assert_swept_as_alone
from tests.more_cases import of_families

LORA = {"lora_rank": 2, "lora_alpha": 8.0, "max_new_tokens": 3, "learning_rate": 1e-2}


@pytest.fixture(scope="module", params=["gpt2", "qwen3"])
def world(request, tmp_path_factory, tiny_model, tiny_tokenizer, words):
    return make_causal_world(tmp_path_factory.mktemp(request.param), request.param, tiny_model, tiny_tokenizer(), words)


def corrected(world, out, **options):
    settings = quick(seed=3, **(LORA | options.pop("settings", {})))
    return causal_student(world, out, init="teacher", settings=settings, **options)


@pytest.fixture(scope="module")
def pair(world, tmp_path_factory):
    """The student of one run with its corrections beside it and merged, which nothing may change."""
    place = tmp_path_factory.mktemp("pair")
    return corrected(world, place / "beside"), corrected(world, place / "merged", settings={"lora_merge": True})


def weights(result):
    return load_trained(result.directory, task_by_name("completion")).model.state_dict()


def test_merged_and_unmerged_students_are_one_model(world, pair):
    beside, merged = pair
    assert (Path(beside.checkpoint) / "adapter_model.safetensors").exists()
    assert not (Path(merged.checkpoint) / "adapter_config.json").exists()
    ours, theirs = weights(beside), weights(merged)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert beside.scores.equals(merged.scores)
    again = evaluate(
        [beside.directory, merged.directory],
        task="completion",
        data=[world["dev"]],
        scoring=ScoringSettings(max_new_tokens=3),
    )
    for name in ("exact_match", "perplexity"):
        assert again.scores[name].tolist() == [beside.scores[name][0]] * 2


def test_analysis_and_transformers_see_the_corrections(pair):
    beside, merged = pair
    one, other = (load_checkpoint(result.directory) for result in (beside, merged))
    assert one.sha256 == other.sha256
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        plain = AutoModelForCausalLM.from_pretrained(beside.checkpoint).eval()(ids).logits
        whole = AutoModelForCausalLM.from_pretrained(merged.checkpoint).eval()(ids).logits
    torch.testing.assert_close(plain, whole, rtol=1e-4, atol=1e-5)
    # The frozen weights alone are another model.
    frozen = load_file(Path(beside.checkpoint) / "model.safetensors")
    changed = load_file(Path(merged.checkpoint) / "model.safetensors")
    assert frozen.keys() == changed.keys()
    moved = {name for name in frozen if not torch.equal(frozen[name], changed[name])}
    assert moved
    assert all("attn" in name or "mlp" in name for name in moved)


@of_families("qwen3", others=("gpt2",))
def test_the_frozen_weights_are_the_teachers(world, tmp_path):
    result = corrected(world, tmp_path / "run", copy_blocks=(0, 3))
    ours, theirs = (load_file(Path(one) / "model.safetensors") for one in (result.checkpoint, Path(world["teacher"])))
    first = {name for name in ours if ".0." in name}
    assert first
    assert all(torch.equal(ours[name], theirs[name]) for name in first)


@of_families("qwen3", others=("gpt2",))
def test_a_killed_run_resumes_to_the_same_corrections(world, tmp_path, monkeypatch):
    options = {"settings": {"max_steps": 8, "evaluate_every": 2}}
    whole = corrected(world, tmp_path / "whole", **dict(options))
    with monkeypatch.context() as patch:
        kill_at_five(patch)
        with pytest.raises(KeyboardInterrupt):
            corrected(world, tmp_path / "run", **dict(options))
    resumed = corrected(world, tmp_path / "run", if_exists="resume", **dict(options))
    ours, theirs = weights(whole), weights(resumed)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@of_families("gpt2", others=("qwen3",))
def test_swept_students_equal_their_own_runs(world, tmp_path):
    grid = {"task": "completion", "strategies": ("forward", "reverse"), "init": "teacher"}
    settings = quick(**LORA, max_steps=3)
    assert_swept_as_alone(world, tmp_path, causal_student, settings=settings, weights=weights, **grid)


@of_families("gpt2", others=("qwen3",))
def test_fine_tuning_with_corrections_learns(world, tmp_path):
    result = finetune(
        world["teacher"],
        task="multiple-choice",
        train=world["train"],
        validation=[world["train"].replace("train", "dev")],
        out=tmp_path / "run",
        settings=quick(max_steps=100, **LORA | {"lora_rank": 8}, checkpoint_activations=True),
    )
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < losses[0] - 0.15
    assert result.steps == 100


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lora_rank": 0}, "lora_rank is 0; allowed: at least 1"),
        ({"lora_rank": 2, "lora_alpha": 0.0}, "lora_alpha is 0.0"),
        ({"lora_rank": 2, "lora_dropout": 1.0}, "lora_dropout is 1.0"),
        ({"lora_rank": 2, "lora_targets": "a,"}, "lora_targets is 'a,'"),
    ],
)
def test_settings_are_checked(change, message):
    with pytest.raises(InputError, match=message):
        quick(**change)


def test_lora_without_its_extra_is_refused(pair, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(InputError, match=r"lora_rank needs the `peft` package; .* pip install 'anglekit\[lora\]'"):
        quick(lora_rank=2).check_here()
    with pytest.raises(InputError, match=r"holds LoRA corrections, which need the `peft` package"):
        load_checkpoint(pair[0].checkpoint)


@of_families("qwen3", others=("gpt2",))
def test_what_corrections_cannot_do_is_refused(world, tmp_path, tiny_model, tiny_tokenizer, words):
    settings = quick(seed=3, **LORA)
    with pytest.raises(InputError, match=r"random initialisation, .* --init teacher"):
        causal_student(world, tmp_path / "a", settings=settings)
    with pytest.raises(InputError, match=r"--lora-targets 'nothing' fits no layer; there are .*"):
        causal_student(world, tmp_path / "b", init="teacher", settings=replace(settings, lora_targets="nothing"))
    reviews = make_world(tmp_path, tiny_model, tiny_tokenizer(), words)
    with pytest.raises(InputError, match="task classification, whose new head needs all its weights"):
        student(reviews, tmp_path / "c", init="teacher", settings=settings)
    assert not any((tmp_path / name).exists() for name in "abc")
