"""Teachers with a text model inside: fine-tuned, distilled and evaluated on text; students are ordinary text models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from anglekit.distillation.runs.evaluate import evaluate
from anglekit.distillation.runs.train import distill, finetune
from anglekit.errors import InputError
from anglekit.models.checkpoints import load_checkpoint
from tests.distillation.causal_corpus import causal_tokenizer, write_repetitions
from tests.distillation.run_corpus import quick, write_reviews
from tests.models.small_composites import COMPOSITE_CLASSES, COMPOSITES


def composite(kind: str, directory: Path, tokenizer: object) -> str:
    """Write a composite model that was never trained."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = transformers.AutoConfig.for_model(kind, **COMPOSITES[kind])
        getattr(transformers, COMPOSITE_CLASSES[kind])(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)  # type: ignore[attr-defined]
    return str(directory)


@pytest.mark.parametrize(("kind", "student_class"), [("qwen3_vl", "Qwen3ForCausalLM"), ("gemma3", "Gemma3ForCausalLM")])
def test_a_causal_student_is_a_text_model_that_any_tool_loads(kind, student_class, tiny_tokenizer, words, tmp_path):
    teacher = composite(kind, tmp_path / "teacher", causal_tokenizer(tiny_tokenizer()))
    train = write_repetitions(tmp_path / "train.jsonl", words, 32)
    run = distill(
        teacher,
        strategy="forward",
        task="language-model",
        train=train,
        validation=[f"dev={train}"],
        out=tmp_path / "run",
        layers=2,
        init="teacher",
        settings=quick(seed=1, max_steps=2, max_length=16),
    )
    model = transformers.AutoModelForCausalLM.from_pretrained(run.checkpoint)
    assert type(model).__name__ == student_class
    assert len(model.model.layers) == 2
    told = json.loads((tmp_path / "run" / "provenance.json").read_text())
    assert told["origin"]["composite"] == kind
    assert told["origin"]["sha256"] == load_checkpoint(teacher).sha256
    assert evaluate([teacher], task="language-model", data=[f"dev={train}"])


def test_a_classifier_is_made_from_the_text_model_and_distilled(tiny_tokenizer, words, tmp_path):
    model = composite("gemma3", tmp_path / "model", tiny_tokenizer())
    train = write_reviews(tmp_path / "train.tsv", words, 32)
    settings = quick(seed=1, max_steps=2)
    teacher = finetune(model, task="classification", train=train, out=tmp_path / "teacher", settings=settings)
    classifier = transformers.AutoModelForSequenceClassification.from_pretrained(teacher.checkpoint)
    assert type(classifier).__name__ == "Gemma3TextForSequenceClassification"
    assert set(classifier.config.id2label.values()) == {"negative", "positive"}
    run = distill(
        str(tmp_path / "teacher"),
        strategy="forward",
        task="classification",
        train=train,
        out=tmp_path / "student",
        layers=2,
        settings=settings,
    )
    assert load_checkpoint(str(run.checkpoint)).depth("decoder") == 2


def test_a_new_head_follows_from_the_seed(tiny_tokenizer, words, tmp_path):
    model = composite("gemma3", tmp_path / "model", tiny_tokenizer())
    train = write_reviews(tmp_path / "train.tsv", words, 8)
    heads = []
    for number, seed in enumerate((1, 1, 2)):
        settings = quick(seed=seed, max_steps=1, learning_rate=1e-12)
        run = finetune(model, task="classification", train=train, out=tmp_path / str(number), settings=settings)
        loaded = transformers.AutoModelForSequenceClassification.from_pretrained(run.checkpoint)
        heads.append(loaded.score.weight.detach())
    assert torch.equal(heads[0], heads[1])
    assert not torch.allclose(heads[0], heads[2])
    assert 0.001 < float(heads[0].std()) < 0.1


def test_a_task_without_a_class_is_refused_and_nothing_is_written(tiny_tokenizer, words, tmp_path):
    if "gemma4" not in CONFIG_MAPPING_NAMES:
        pytest.skip("this version of transformers has no Gemma 4")
    model = composite("gemma4", tmp_path / "model", tiny_tokenizer())
    train = write_reviews(tmp_path / "train.tsv", words, 8)
    with pytest.raises(InputError, match="has no class ForSequenceClassification for model type 'gemma4_text'"):
        finetune(model, task="classification", train=train, out=tmp_path / "teacher", settings=quick(seed=1))
    assert not (tmp_path / "teacher").exists()


def test_a_tokenizer_that_the_text_type_would_read_otherwise_is_refused(tiny_tokenizer, words, tmp_path):
    """Beside a `qwen2`, transformers makes any tokenizer one of Qwen2's; beside a Qwen2.5-VL it is left as it is."""
    model = composite("qwen2_5_vl", tmp_path / "model", causal_tokenizer(tiny_tokenizer(), pad=True))
    train = write_repetitions(tmp_path / "train.jsonl", words, 8)
    beside = transformers.AutoTokenizer.from_pretrained(model)
    if beside("the film").input_ids != tiny_tokenizer()("the film").input_ids:
        pytest.skip("this version of transformers reads it otherwise beside the composite too")
    with pytest.raises(InputError, match="is read as Qwen2Tokenizer beside the text model, of type qwen2"):
        finetune(model, task="language-model", train=train, out=tmp_path / "teacher", settings=quick(seed=1))
