"""A sweep of ten 3-layer students of a 12 x 768 BERT against ten separate runs, and the peak memory of both.

The sweep and a separate run are paused after every step and take turns, so that both meet the same machine: each round
of the sweep (ten steps and one teacher pass) is followed by two steps of the separate run (times five), two bare
teacher passes T and two bare student steps S, whose optimiser is the one that the runs use. Start-up and saving are
outside: a sweep loads the teacher and the data once, separate runs ten times. Run it alone on a quiet machine:
`make bench`.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import greenlet
import numpy as np
import torch
import torch.nn.functional as F
from measuring import _clock as clock
from measuring import peak_memory, report, word_tokenizer
from transformers import BertConfig, BertForSequenceClassification, TrainerCallback

from anglekit.distillation.matching.plan import DistillationPlan, plan_distillation
from anglekit.distillation.runs.directory import RunDirectory
from anglekit.distillation.runs.run import Run, begin_distillation, objective_of_plan
from anglekit.distillation.settings import OPTIMIZERS, EncodingSettings, TrainSettings
from anglekit.distillation.sweep.arms import train_side_by_side
from anglekit.distillation.sweep.shared_teacher import SharedTeacher
from anglekit.distillation.tasks.data import TokenizedExamples
from anglekit.distillation.tasks.labelled.classification import ClassificationTask
from anglekit.distillation.tasks.labelled.label_sets import LabelSet
from anglekit.distillation.tasks.models import ModelProvenance, TaskModel
from anglekit.distillation.tasks.prepared_data import PreparedData
from anglekit.distillation.tasks.registry import task_by_name
from anglekit.vocabulary import INITS, PAPER_STRATEGIES

BATCH, LENGTH, LAYERS = 16, 32, 3
ARMS = [(strategy, init) for strategy in PAPER_STRATEGIES for init in INITS]
ORIGIN = ModelProvenance("benchmark", "BertForSequenceClassification", "0" * 64, "0" * 64)


class Paused:
    """A training loop that runs from one call of `pause` inside it to the next."""

    def __init__(self) -> None:
        self._outside: Any = None
        self._inside: Any = None

    def start(self, run: Callable[[], object]) -> None:
        self._inside = greenlet.greenlet(run)
        self.advance()

    def advance(self) -> float:
        """Run on and return the seconds."""
        self._outside = greenlet.getcurrent()
        start = clock()
        self._inside.switch()
        return clock() - start

    def pause(self) -> None:
        self._inside = greenlet.getcurrent()
        self._outside.switch()


class PausedTeacher(SharedTeacher):
    """Pauses when all students have left a batch."""

    loop: Paused

    def forget(self) -> None:
        super().forget()
        self.loop.pause()


class PausedSteps(TrainerCallback):
    def __init__(self, loop: Paused) -> None:
        self.loop = loop

    def on_step_end(self, *_arguments: Any, **_: Any) -> None:
        self.loop.pause()


class StopAtSecond(TrainerCallback):
    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 2:
            raise KeyboardInterrupt


def world(steps: int) -> tuple[TaskModel, PreparedData]:
    torch.manual_seed(0)
    config = BertConfig(num_hidden_layers=12)
    tokenizer = word_tokenizer(["a b"])
    model = BertForSequenceClassification(config).eval()
    generator = np.random.default_rng(0)
    ids = generator.integers(5, config.vocab_size, (steps * BATCH, LENGTH)).tolist()
    examples = TokenizedExamples({"input_ids": ids}, {"labels": np.arange(len(ids)) % 2})
    task = replace(
        cast("ClassificationTask", task_by_name("classification")), classes=LabelSet(("negative", "positive"))
    )
    sources = {"train": {"sha256": "0" * 64, "columns": []}}
    return TaskModel("benchmark", model, tokenizer), PreparedData(
        task, tokenizer, EncodingSettings(LENGTH), examples, {}, sources
    )


def settings(steps: int) -> TrainSettings:
    return TrainSettings(
        max_steps=steps, batch_size=BATCH, learning_rate=1e-5, log_every=10**6, resumable=False, seed=0, device="cpu"
    )


def plan(teacher: TaskModel, strategy: str, init: str) -> DistillationPlan:
    return plan_distillation(
        teacher.model.config, teacher="benchmark", strategy=strategy, init=init, layers=LAYERS, seed=0
    )


def begun(root: Path, teacher: TaskModel, data: PreparedData, made: DistillationPlan, steps: int, **more: Any) -> Run:
    directory = RunDirectory(root / f"{made.strategy}-{made.init}-{len(more)}")
    return begin_distillation(teacher, data, made, directory, settings(steps), origin=ORIGIN, **more)


def ten_arms(root: Path, teacher: TaskModel, data: PreparedData, steps: int, kind: type[SharedTeacher]) -> Any:
    plans = [plan(teacher, strategy, init) for strategy, init in ARMS]
    shared = kind(teacher.model, [objective_of_plan(made, settings(steps), data) for made in plans])
    return shared, [begun(root, teacher, data, made, steps, teacher_forward=shared) for made in plans]


def bare(teacher: TaskModel, data: PreparedData) -> tuple[Callable[[], float], Callable[[], float]]:
    """Return a teacher pass and a student step as they would be written by hand, each timing itself."""
    ids = torch.tensor([data.train[row]["input_ids"] for row in range(BATCH)])
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    labels = torch.arange(BATCH) % 2
    student = BertForSequenceClassification(
        BertConfig.from_dict({**teacher.model.config.to_dict(), "num_hidden_layers": LAYERS})
    ).train()
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-5, fused=OPTIMIZERS["adamw"].endswith("fused"))
    pairs = plan(teacher, "forward", "random").matchings[0].pairs
    teacher.model.eval()
    with torch.no_grad():
        t = teacher.model(**batch, output_hidden_states=True)

    def teach() -> float:
        start = clock()
        with torch.no_grad():
            teacher.model(**batch, output_hidden_states=True)
        return clock() - start

    def step() -> float:
        start = clock()
        s = student(**batch, output_hidden_states=True)
        loss = F.cross_entropy(s.logits, labels)
        loss = loss + F.kl_div(
            s.logits.log_softmax(-1), t.logits.log_softmax(-1), reduction="batchmean", log_target=True
        )
        for ours, theirs in pairs:
            loss = loss + 3.0 * F.mse_loss(s.hidden_states[ours], t.hidden_states[theirs])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return clock() - start

    return teach, step


def measure_time(rounds: int) -> None:
    # One round warms up; the loops are left before their last step, so that nothing of their end is measured.
    steps = 2 * rounds + 4
    teacher, data = world(steps)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        separate, sweep = Paused(), Paused()
        one = begun(root, teacher, data, plan(teacher, "forward", "teacher"), steps)
        one.trainer.add_callback(PausedSteps(separate))
        shared, arms = ten_arms(root, teacher, data, steps, PausedTeacher)
        shared.loop = sweep
        separate.start(one.train)
        sweep.start(lambda: train_side_by_side(arms, (shared,), lambda _arm: None))
        teach, step = bare(teacher, data)
        # The first state of the optimisers is made here: it is no part of a steady step.
        for warm_up in (separate.advance, sweep.advance, sweep.advance, teach, step):
            warm_up()
        rows = []
        for _ in range(rounds):
            swept = sweep.advance()
            rows.append((swept, separate.advance() + separate.advance(), teach() + teach(), step() + step()))
    # Round by round, for the four times of a round meet the same machine.
    ratios = [swept / (5.0 * separate_two) for swept, separate_two, _, _ in rows]
    # T and S are there twice each, which the fraction does not see.
    limits = [(t + 10.0 * s) / (10.0 * t + 10.0 * s) for _, _, t, s in rows]
    middle = [statistics.median(column) for column in zip(*rows, strict=True)]
    report(
        "sweep of ten 3-layer students over ten separate runs, relative to the limit (T + 10 S) / (10 T + 10 S)",
        statistics.median(ratio / limit for ratio, limit in zip(ratios, limits, strict=True)),
        1.05,
        sweep_over_separate=round(statistics.median(ratios), 4),
        limit=round(statistics.median(limits), 4),
        sweep_round_s=round(middle[0], 3),
        ten_separate_steps_s=round(5.0 * middle[1], 3),
        teacher_s=round(middle[2] / 2.0, 4),
        student_step_s=round(middle[3] / 2.0, 4),
        rounds=rounds,
        teacher_passes_a_round=shared.passes / (shared.answers / len(ARMS)),
    )


def measure_memory(which: str) -> None:
    """Train two steps in this process alone and print its peak in GB."""
    teacher, data = world(2)
    with tempfile.TemporaryDirectory() as name:
        if which == "sweep":
            shared, arms = ten_arms(Path(name), teacher, data, 2, SharedTeacher)
            # All optimisers have their moments when the first arm computes gradients once more.
            arms[0].trainer.add_callback(StopAtSecond())
            with suppress(KeyboardInterrupt):
                train_side_by_side(arms, (shared,), lambda _arm: None)
        else:
            begun(Path(name), teacher, data, plan(teacher, "forward", "teacher"), 2).train()
    print(peak_memory() / 1024**3)


def peak(which: str) -> float:
    command = [sys.executable, __file__, "--memory", which]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def main() -> None:
    if "--memory" in sys.argv:
        measure_memory(sys.argv[-1])
        return
    peaks = {which: peak(which) for which in ("separate", "sweep")}
    report(
        "peak memory of a sweep of ten students over one separate run",
        peaks["sweep"] / peaks["separate"],
        None,
        **{f"{which}_gb": round(value, 2) for which, value in peaks.items()},
    )
    measure_time(3 if "--quick" in sys.argv else 5)


if __name__ == "__main__":
    main()
