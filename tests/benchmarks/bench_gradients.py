"""Gradients of strategies against training steps on the same batches, the teacher's answers from a store for both.

The student has 3 layers of a 12 x 768 BERT. Goal: at most 1.3 steps for each batch and strategy, cross-entropy, KL, the
projection to 2,700 dimensions and the table of cosines included. Run it alone on a quiet machine: `make bench`.
"""

from __future__ import annotations

import csv
import statistics
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
from measuring import _clock as clock
from measuring import report, review_texts, word_tokenizer
from transformers import BertConfig, BertForSequenceClassification

from anglekit.distillation.losses.functional import weighted_total
from anglekit.distillation.runs.run import objective_of_plan
from anglekit.distillation.training.distillation_loss import StudentStep
from anglekit.parameter_space.measure import OpenMeasurement, StudentMeasurement, open_measurement
from anglekit.parameter_space.settings import GradientSettings

EXAMPLES, GROUP, ROUNDS = 48, 16, 3


def step_seconds(opened: OpenMeasurement, student: StudentMeasurement, teacher: Any) -> float:
    """Train the student for a step on each batch, and return the seconds."""
    plan = opened.plans[0]["forward"]
    objective = objective_of_plan(plan, opened.training, opened.data)
    step = StudentStep(objective, student.model, None, teacher)
    optimizer = torch.optim.AdamW(student.weights, lr=1e-6, fused=True)
    start = clock()
    for batch in opened.batches:
        terms, _ = step(student.model, batch)
        weighted_total({name: term.mean() for name, term in terms.items()}, objective.weights).backward()
        torch.nn.utils.clip_grad_norm_(student.weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return clock() - start


def main() -> None:
    """Measure with projected and with exact gradients."""
    texts = review_texts(EXAMPLES)
    tokenizer = word_tokenizer(texts)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        BertForSequenceClassification(BertConfig(vocab_size=len(tokenizer), num_labels=2)).save_pretrained(root / "t")
        tokenizer.save_pretrained(root / "t")
        with (root / "probe.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerows([("text", "label"), *((text, number % 2) for number, text in enumerate(texts))])
        for how, settings in {
            "projected": GradientSettings(EXAMPLES, GROUP, pairs=False, dimensions=2700),
            "exact": GradientSettings(EXAMPLES, GROUP, pairs=False),
        }.items():
            opened = open_measurement(
                str(root / "t"),
                probe=str(root / "probe.csv"),
                task="classification",
                layers=3,
                init="teacher",
                settings=settings,
                teacher_cache=str(root / "cache"),
                device="cpu",
            )
            student = opened.student(0)
            strategies = len(opened.plans[0]) - 1
            student.gradients(opened.batches, opened.answers)
            opened.answers.close()  # the store is filled
            answer = opened.answers.of(student.teacher_layers, logits=True, final_norm="excluded")
            measured, steps = [], []
            for _ in range(ROUNDS):
                start = clock()
                student.tables(student.gradients(opened.batches, opened.answers))
                measured.append((clock() - start) / strategies)
                steps.append(step_seconds(opened, student, partial(answer, 0)))
            ratio = statistics.median(one / other for one, other in zip(measured, steps, strict=True))
            report(
                f"gradient of a strategy on a batch, {how}, over a training step",
                ratio,
                1.3,
                strategies=strategies,
                weights=sum(each.numel() for each in student.weights),
                gradient_ms=round(1000 * statistics.median(measured) / len(opened.batches), 1),
                step_ms=round(1000 * statistics.median(steps) / len(opened.batches), 1),
            )


if __name__ == "__main__":
    main()
