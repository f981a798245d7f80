"""A tiny task that a tiny BERT learns at once, for the tests of whole runs."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    TrainerCallback,
)

from anglekit.distillation.runs.run import Run, RunResult
from anglekit.distillation.runs.train import distill
from anglekit.distillation.settings import TrainSettings

LABEL_OF = {"good": "positive", "bad": "negative"}


def write_reviews(path: Path, words: tuple[str, ...], rows: int, *, seed: int = 0) -> str:
    """Write reviews whose label is told by one word."""
    draw = random.Random(seed)
    neutral = [word for word in words if word not in LABEL_OF]
    lines = ["text\tlabel"]
    for row in range(rows):
        telling = ("good", "bad")[row % 2]
        text = draw.choices(neutral, k=draw.randint(2, 8))
        text.insert(draw.randint(0, len(text)), telling)
        lines.append(f"{' '.join(text)}\t{LABEL_OF[telling]}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def write_teacher(
    directory: Path,
    tiny_model: Callable[..., PreTrainedModel],
    tokenizer: PreTrainedTokenizerFast,
    *,
    labels: tuple[str, ...] = ("negative", "positive"),
) -> str:
    """Write a classifier of four blocks, 32 wide, that was never trained, with dropout."""
    shape = tiny_model("bert", width=32, depth=4).config.to_dict()
    names = dict(enumerate(labels))
    shape |= {"id2label": names, "label2id": {name: number for number, name in names.items()}}
    config = BertConfig(**shape | {"hidden_dropout_prob": 0.2})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BertForSequenceClassification(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return str(directory)


def quick(**options: object) -> TrainSettings:
    """Return settings of a few steps on the CPU."""
    defaults = {"max_steps": 6, "batch_size": 8, "learning_rate": 1e-3, "log_every": 2, "device": "cpu"}
    return TrainSettings(**(defaults | options))  # type: ignore[arg-type]


def make_world(
    root: Path, tiny_model: Callable[..., PreTrainedModel], tokenizer: PreTrainedTokenizerFast, words: tuple[str, ...]
) -> dict[str, str]:
    """Return a teacher, a training table and a validation table, by name."""
    return {
        "teacher": write_teacher(root / "teacher", tiny_model, tokenizer),
        "train": write_reviews(root / "train.tsv", words, 48),
        "dev": write_reviews(root / "dev.tsv", words, 21, seed=1),
    }


def student(world, out, *, strategy="forward", settings=None, **options) -> RunResult:
    """Distil a two-block student of a world's teacher."""
    return distill(
        world["teacher"],
        strategy=strategy,
        task="classification",
        train=world["train"],
        validation=options.pop("validation", [world["dev"]]),
        out=out,
        layers=options.pop("layers", 2),
        settings=settings or quick(seed=3),
        **options,
    )


class Kill(TrainerCallback):
    """Ctrl-C behind the fifth step."""

    def on_step_end(self, args, state, control, **kwargs):
        """Interrupt."""
        if state.global_step == 5:
            raise KeyboardInterrupt


def kill_at_five(monkeypatch):
    """Let every run's training end in the middle, as by Ctrl-C."""
    train = Run.train

    def interrupted(run):
        run.trainer.add_callback(Kill())
        train(run)

    monkeypatch.setattr(Run, "train", interrupted)
