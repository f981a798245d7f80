"""A tiny task for tiny encoder-decoders: write the source backwards."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast

from anglekit.distillation.runs.run import RunResult
from anglekit.distillation.runs.train import distill
from tests.distillation.run_corpus import quick

FAMILIES = ("t5", "bart", "marian")


def write_reversals(path: Path, words: tuple[str, ...], rows: int, *, seed: int = 0) -> str:
    """Write texts and the same words backwards."""
    draw = random.Random(seed)
    with path.open("w", encoding="utf-8") as file:
        for _ in range(rows):
            text = draw.choices(words, k=draw.randint(2, 5))
            file.write(json.dumps({"source": " ".join(text), "target": " ".join(text[::-1])}) + "\n")
    return str(path)


def write_seq2seq_teacher(
    directory: Path, family: str, tiny_model: Callable[..., PreTrainedModel], tokenizer: PreTrainedTokenizerFast
) -> str:
    """Write an encoder-decoder of four and four blocks, 32 wide, with dropout, that was never trained."""
    tokenizer.add_special_tokens({"eos_token": "[SEP]", "bos_token": "[CLS]"})
    source = "bart" if family == "marian" else family
    config = tiny_model(source, width=32, depth=4, head=True).config
    values = config.to_dict() | {"eos_token_id": 3}
    if family == "marian":
        from transformers import MarianConfig

        values.pop("model_type")
        values.pop("architectures", None)
        config = MarianConfig(**values | {"decoder_start_token_id": 0, "static_position_embeddings": True})
    else:
        config = type(config).from_dict(values | {"dropout": 0.1, "dropout_rate": 0.1})
    from transformers import AutoModelForSeq2SeqLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForSeq2SeqLM.from_config(config)
    model.generation_config = GenerationConfig.from_model_config(config)
    # Habits that a score must not depend on.
    model.generation_config.update(no_repeat_ngram_size=3, min_length=9)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return str(directory)


def make_seq2seq_world(root: Path, family: str, tiny_model, tokenizer, words) -> dict[str, str]:
    """Return a teacher, a training table and a validation table, by name."""
    return {
        "teacher": write_seq2seq_teacher(root / "teacher", family, tiny_model, tokenizer),
        "train": write_reversals(root / "train.jsonl", words, 48),
        "dev": write_reversals(root / "dev.jsonl", words, 13, seed=1),
    }


def seq2seq_student(world, out, *, strategy="forward", settings=None, **options) -> RunResult:
    """Distil a student of two and two blocks."""
    return distill(
        world["teacher"],
        strategy=strategy,
        task="seq2seq",
        train=options.pop("train", world["train"]),
        validation=options.pop("validation", [world["dev"]]),
        out=out,
        layers=options.pop("layers", 2),
        settings=settings or quick(seed=3, beams=2, max_new_tokens=8),
        **options,
    )
