"""Tiny tasks for tiny causal models: the last word of a prompt is said again."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from anglekit.distillation.runs.run import RunResult
from anglekit.distillation.runs.train import distill
from tests.distillation.run_corpus import quick

FAMILIES = ("gpt2", "llama", "qwen3")


def write_rows(path: Path, *rows: dict[str, object]) -> str:
    """Write rows of json."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def write_repetitions(path: Path, words: tuple[str, ...], rows: int, *, seed: int = 0) -> str:
    """Write prompts, the word that follows, and three words to choose from."""
    draw = random.Random(seed)
    made: list[dict[str, object]] = []
    for _ in range(rows):
        text = draw.choices(words, k=draw.randint(2, 6))
        choices = [text[-1], *draw.sample([word for word in words if word != text[-1]], 2)]
        draw.shuffle(choices)
        made.append(
            {
                "prompt": " ".join(text),
                "completion": text[-1],
                "text": " ".join([*text, text[-1]]),
                "choices": choices,
                "label": choices.index(text[-1]),
            }
        )
    return write_rows(path, *made)


def causal_tokenizer(tokenizer: PreTrainedTokenizerFast, *, pad: bool = False) -> PreTrainedTokenizerFast:
    """Give a tokenizer the end-of-text token of the tiny models and, as theirs, no pad token."""
    tokenizer.add_special_tokens({"eos_token": "[SEP]", "bos_token": "[CLS]"})
    if not pad:
        tokenizer.pad_token = None
    return tokenizer


def make_causal_world(root: Path, family: str, tiny_model: Callable[..., PreTrainedModel], tokenizer, words):
    """Return a teacher of four blocks that was never trained, a training table and a validation table, by name."""
    config = tiny_model(family, width=32, depth=4, head=True).config
    config.tie_word_embeddings = family != "llama"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(root / "teacher")
    causal_tokenizer(tokenizer).save_pretrained(root / "teacher")
    return {
        "family": family,
        "teacher": str(root / "teacher"),
        "train": write_repetitions(root / "train.jsonl", words, 64),
        "dev": write_repetitions(root / "dev.jsonl", words, 19, seed=1),
    }


def causal_student(world, out, *, task="completion", strategy="forward", settings=None, **options) -> RunResult:
    """Distil a student of two blocks."""
    return distill(
        world["teacher"],
        strategy=strategy,
        task=task,
        train=options.pop("train", world["train"]),
        validation=options.pop("validation", [world["dev"]]),
        out=out,
        layers=options.pop("layers", 2),
        settings=settings or quick(seed=3, max_new_tokens=3),
        **options,
    )
