"""A run of ten epochs with the teacher's answers kept, against one that runs the teacher in each: time over its limit.

The limit is what cannot be avoided: the teacher once and the student ten times, both measured in the same run. Run it
alone on a quiet machine: `make bench`.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from bench_sweep import ARMS, ORIGIN, plan, settings, world
from measuring import report, review_texts, word_tokenizer
from transformers import BertConfig, BertForSequenceClassification, TrainingArguments

from anglekit.distillation.losses.objective import DistillationObjective
from anglekit.distillation.matching.strategies import layer_matching
from anglekit.distillation.runs.directory import RunDirectory
from anglekit.distillation.runs.run import begin_distillation, objective_of_plan
from anglekit.distillation.students.create import create_student
from anglekit.distillation.sweep.arms import train_side_by_side
from anglekit.distillation.sweep.shared_teacher import SharedTeacher
from anglekit.distillation.training.teacher import TeacherForward
from anglekit.distillation.training.teacher_cache import CachedTeacher
from anglekit.distillation.training.trainer import DistillationTrainer

EPOCHS, BATCH = 10, 16


def main() -> None:
    """Measure a 12 x 768 teacher and a 3-layer student, then ten of them side by side."""
    quick = "--quick" in sys.argv
    if "--sweep" in sys.argv:
        measure_sweep()
        return
    measure_run(quick)
    measure_sweep()


def measure_sweep() -> None:
    """Train ten students side by side for ten epochs of one batch, with the teacher kept and without."""
    teacher, data = world(1)
    seconds: dict[str, float] = {}
    teaching = 0.0
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)

        def train(which: str, kept: Any) -> SharedTeacher:
            plans = [plan(teacher, strategy, init) for strategy, init in ARMS]
            steps = settings(EPOCHS)
            shared = SharedTeacher(teacher.model, [objective_of_plan(made, steps, data) for made in plans], kept=kept)
            arms = [
                begin_distillation(
                    teacher,
                    data,
                    made,
                    RunDirectory(root / which / f"{made.strategy}-{made.init}"),
                    steps,
                    origin=ORIGIN,
                    teacher_forward=shared,
                )
                for made in plans
            ]
            start = time.perf_counter()
            train_side_by_side(arms, (shared,), lambda _arm: None)
            seconds[which] = time.perf_counter() - start
            return shared

        timed: list[Timed] = []

        def live(*given: Any, **more: Any) -> Timed:
            timed.append(Timed(TeacherForward(*given, **more)))
            return timed[-1]

        def cached(*given: Any, **more: Any) -> CachedTeacher:
            return CachedTeacher(given[0], root / "cache", *given[1:], **more, sha256="0" * 64, precision="float32")

        train("live", live)
        teaching = timed[0].seconds
        train("kept", cached)
    rest = seconds["live"] - teaching
    limit = (teaching / EPOCHS + rest) / seconds["live"]
    report(
        "ten students, ten epochs, the teacher kept, over their limit (T + 100 S) / (10 T + 100 S)",
        seconds["kept"] / seconds["live"] / limit,
        1.03,
        share=round(seconds["kept"] / seconds["live"], 3),
        limit=round(limit, 3),
        kept_s=round(seconds["kept"], 2),
        live_s=round(seconds["live"], 2),
    )


def measure_run(quick: bool) -> None:
    """Measure one student's run."""
    texts = review_texts(64 if quick else 160)
    tokenizer = word_tokenizer(texts)
    torch.manual_seed(0)
    teacher = BertForSequenceClassification(BertConfig(vocab_size=len(tokenizer), num_labels=2)).eval()
    rows = [{**tokenizer(text), "labels": number % 2} for number, text in enumerate(texts)]
    matching = layer_matching("forward", teacher_blocks=12, student_blocks=3)
    objective = DistillationObjective({"encoder": matching.pairs}, causal=False)

    def collate(batch: list[dict[str, object]]) -> dict[str, torch.Tensor]:
        labels = torch.tensor([row["labels"] for row in batch])
        ids = [{"input_ids": row["input_ids"], "attention_mask": row["attention_mask"]} for row in batch]
        return {**tokenizer.pad(ids, return_tensors="pt"), "labels": labels}

    def train(folder: Path, provider: object) -> float:
        student = create_student(teacher, layers=3, init="teacher")
        arguments = TrainingArguments(
            str(folder / "run"),
            num_train_epochs=EPOCHS,
            per_device_train_batch_size=BATCH,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            use_cpu=True,
            dataloader_pin_memory=False,
        )
        trainer = DistillationTrainer(
            student, arguments, objective=objective, teacher_forward=provider, train_dataset=rows, data_collator=collate
        )
        start = time.perf_counter()
        trainer.train()
        return time.perf_counter() - start

    layers = objective.teacher_layers
    kept, run, ratios = [], [], []
    for number in range(1 if quick else 3):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            cached = CachedTeacher(teacher, folder / "cache", layers, sha256="0" * 64, precision="float32")
            forward = Timed(TeacherForward(teacher, layers))
            order = [(kept, cached), (run, forward)]
            for seconds, provider in order if number % 2 else order[::-1]:
                seconds.append(train(folder, provider))
            cached.cache.flush()
        teaching = forward.seconds / EPOCHS
        learning = (run[-1] - forward.seconds) / EPOCHS
        limit = (teaching + EPOCHS * learning) / (EPOCHS * (teaching + learning))
        ratios.append((kept[-1] / run[-1] / limit, kept[-1] / run[-1], limit))
    over, share, limit = (statistics.median(each) for each in zip(*ratios, strict=True))
    report(
        "ten epochs with the teacher kept over their limit (T + 10 S) / (10 T + 10 S)",
        over,
        1.03,
        share=round(share, 3),
        limit=round(limit, 3),
        kept_s=round(statistics.median(kept), 2),
        run_s=round(statistics.median(run), 2),
    )


class Timed:
    """A teacher whose time is counted."""

    def __init__(self, forward: TeacherForward) -> None:
        self.forward, self.seconds = forward, 0.0

    def to(self, device: torch.device) -> Timed:
        """Move the teacher to a device and return self."""
        self.forward.to(device)
        return self

    def __call__(self, inputs: dict[str, torch.Tensor]) -> object:
        """Return what the teacher says."""
        start = time.perf_counter()
        said = self.forward(inputs)
        self.seconds += time.perf_counter() - start
        return said


if __name__ == "__main__":
    main()
