"""Tiny teachers, students and trainers that the tests of training share."""

from __future__ import annotations

from typing import Any

import torch
from transformers import BertConfig, BertForSequenceClassification, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from anglekit.distillation.losses.objective import DistillationObjective
from anglekit.distillation.losses.weights import LossWeights
from anglekit.distillation.matching.strategies import layer_matching
from anglekit.distillation.students.adapters import create_adapters
from anglekit.distillation.training.trainer import DistillationTrainer

LABELS = ("negative", "neutral", "positive")
_VOCABULARY = 60


def make_teacher(*, layers: int = 4, width: int = 32, dropout: float = 0.0, seed: int = 0):
    """Return a BERT classifier whose weights are large enough that its layers differ."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = BertConfig(
            vocab_size=_VOCABULARY,
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=2,
            intermediate_size=2 * width,
            max_position_embeddings=64,
            initializer_range=0.1,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
            num_labels=len(LABELS),
            id2label=dict(enumerate(LABELS)),
            label2id={name: number for number, name in enumerate(LABELS)},
        )
        return BertForSequenceClassification(config)


def make_student(*, width: int = 32, dropout: float = 0.0, seed: int = 1):
    """Return a student of two blocks."""
    return make_teacher(layers=2, width=width, dropout=dropout, seed=seed)


def examples(number: int, *, seed: int = 3) -> list[dict[str, Any]]:
    """Return tokenised examples of unequal lengths whose label depends on their first word."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for _ in range(number):
        length = int(torch.randint(2, 12, (), generator=generator))
        words = torch.randint(4, _VOCABULARY, (length,), generator=generator).tolist()
        rows.append({"input_ids": [2, *words, 3], "labels": words[0] % len(LABELS)})
    return rows


def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Pad to the longest row."""
    longest = max(len(row["input_ids"]) for row in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for place, row in enumerate(rows):
        ids[place, : len(row["input_ids"])] = torch.tensor(row["input_ids"])
        mask[place, : len(row["input_ids"])] = 1
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor([row["labels"] for row in rows])}


def objective_for(strategy: str = "forward", **options: Any):
    """Return the objective and the matching of a two-block student of a four-block teacher."""
    matching = layer_matching(strategy, teacher_blocks=4, student_blocks=2, seed=0)
    return DistillationObjective({"encoder": matching.pairs}, **options), [matching]


def arguments(directory, **options: Any) -> TrainingArguments:
    """Return quiet arguments for a few steps on the CPU."""
    defaults = {
        "max_steps": 3,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": True,
        "dataloader_pin_memory": False,
        "data_seed": 0,
    }
    return TrainingArguments(output_dir=str(directory), **(defaults | options))


def make_trainer(directory, *, strategy="forward", width=32, dropout=0.0, args=None, **options: Any):
    """Return a trainer; objective fields may be given among the options."""
    fields = {
        name: options.pop(name) for name in ("weights", "hidden_loss", "reading", "temperature") if name in options
    }
    fields.setdefault("weights", LossWeights())
    objective, matchings = objective_for(strategy, **fields)
    student = options.pop("student", None) or make_student(width=width, dropout=dropout)
    if "teacher_forward" not in options or options["teacher_forward"] is None:
        options["teacher"] = options.get("teacher") or make_teacher()
    adapters = options.pop("adapters", None)
    if adapters is None and width != 32:
        adapters = create_adapters(matchings, student_width=width, teacher_width=32, seed=0)
    trainer = DistillationTrainer(
        student,
        args or arguments(directory),
        objective=objective,
        adapters=adapters,
        train_dataset=options.pop("train_dataset", examples(24)),
        data_collator=collate,
        **options,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer
