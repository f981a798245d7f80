"""The stages of the demo, each a call of what the commands of the same names call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pandas as pd
import torch
from transformers import BertConfig, BertForSequenceClassification, set_seed

import anglekit_data
from anglekit.analysis.analyze import analyze
from anglekit.analysis.settings import AnalysisSettings
from anglekit.distillation.runs.arm import RunResult
from anglekit.distillation.runs.run import finetune
from anglekit.distillation.settings import DataSettings, TrainSettings
from anglekit.distillation.sweep.directory import ArmKey
from anglekit.distillation.sweep.sweep import SweepResult, sweep
from anglekit.models.checkpoints import load_checkpoint, quiet_transformers
from anglekit.models.load_options import LoadOptions
from anglekit.plots.figure1.figure1 import figure1
from anglekit.plots.files import figure_bytes
from anglekit.probes.data import read_probe
from anglekit.results.geometry import Geometry
from anglekit.tables.read import read_table
from anglekit.vocabulary import INITS, STRATEGIES
from anglekit_data.demo_settings import DemoSettings
from anglekit_data.inference_families import LABELS
from anglekit_data.matching_initialization import initialize_matching_attention
from anglekit_data.tokenizer import train_tokenizer

__all__ = [
    "arm_names",
    "corpus_facts",
    "draw",
    "make_untrained_teacher",
    "measure_geometry",
    "one_thread",
    "score_frame",
    "train_students",
    "train_teacher",
]

_CORPUS: Final = "inference"
_TRAIN, _VALIDATION, _PROBE = (f"builtin:{_CORPUS}:{split}" for split in ("train", "validation", "test"))
_COLUMNS: Final = ("model", "strategy", "init", "seed", "data", "examples", "accuracy", "steps")


def corpus_facts() -> dict[str, Any]:
    """Return which tables the demo read, and the hash of each."""
    return {
        split: {"source": source, "rows": len(table.frame), "sha256": table.sha256}
        for split, source in (("train", _TRAIN), ("validation", _VALIDATION), ("probe", _PROBE))
        for table in [read_table(source)]
    }


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread while the block runs, and on as many as before after it.

    The demo's products are so small that a second thread gains little on an idle machine and, waiting for a core that
    another program holds, costs many times as much. It also makes the numbers the same whatever the number of cores.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def make_untrained_teacher(directory: Path, settings: DemoSettings, seed: int) -> Path:
    """Make the tokenizer from the training sentences, and a BERT with fresh weights; return the BERT's directory."""
    (directory / "corpus.md").write_text(anglekit_data.data_card(_CORPUS), encoding="utf-8")
    frame = anglekit_data.load(_CORPUS, "train").head(settings.train_rows)
    tokenizer = train_tokenizer(
        [*frame["premise"], *frame["hypothesis"]], settings.vocab_size, settings.max_position_embeddings
    )
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.width,
        num_hidden_layers=settings.teacher_layers,
        num_attention_heads=settings.heads,
        intermediate_size=settings.intermediate,
        max_position_embeddings=settings.max_position_embeddings,
        hidden_dropout_prob=settings.dropout,
        attention_probs_dropout_prob=settings.dropout,
        initializer_range=settings.initializer_range,
        pad_token_id=tokenizer.pad_token_id,
        id2label=dict(enumerate(LABELS)),
        label2id={label: index for index, label in enumerate(LABELS)},
    )
    set_seed(seed)
    model = BertForSequenceClassification(config)
    initialize_matching_attention(model, seed)
    untrained = directory / "untrained"
    with quiet_transformers():
        for place in (directory / "tokenizer", untrained):
            tokenizer.save_pretrained(place)
        model.save_pretrained(untrained)
    return untrained


def train_teacher(untrained: Path, directory: Path, settings: DemoSettings, seed: int) -> RunResult:
    """Train the teacher and score it on the validation split."""
    return finetune(
        str(untrained),
        task="classification",
        train=_TRAIN,
        out=directory / "teacher",
        validation=[_VALIDATION],
        data=DataSettings(limit=settings.train_rows),
        settings=_training(
            settings,
            settings.teacher_steps,
            settings.teacher_batch_size,
            settings.teacher_learning_rate,
            seed,
            own_seed=seed,
        ),
    )


def arm_names(seed: int) -> list[str]:
    """Return the names of the students' directories in the sweep's."""
    return [ArmKey(strategy, init, seed).name for strategy in STRATEGIES for init in INITS]


def train_students(directory: Path, settings: DemoSettings, seed: int) -> SweepResult:
    """Train the paper's five strategies from random and from copied weights, all over the same batches."""
    return sweep(
        str(directory / "teacher"),
        strategies=tuple(STRATEGIES),
        inits=INITS,
        seeds=[seed],
        task="classification",
        train=_TRAIN,
        out=directory / "sweep",
        layers=settings.student_layers,
        validation=[_VALIDATION],
        data=DataSettings(limit=settings.train_rows),
        settings=_training(
            settings, settings.student_steps, settings.student_batch_size, settings.student_learning_rate, seed
        ),
    )


def measure_geometry(directory: Path, swept: SweepResult, settings: DemoSettings, seed: int) -> Geometry:
    """Look at the teacher from inside all students on a part of the test split, and save what is seen."""
    probe = read_probe(_PROBE, limit=settings.probe_rows, seed=seed)
    options = LoadOptions(device="cpu")
    with quiet_transformers():
        teacher = load_checkpoint(str(directory / "teacher"), options)
        students = [load_checkpoint(run.directory, options) for run in swept.arms.values()]
    geometry = analyze(teacher, students, probe, AnalysisSettings(seed=seed))
    geometry.save(directory / "geometry")
    return geometry


def draw(directory: Path, geometry: Geometry) -> None:
    """Draw the paper's Figure 1."""
    figure = figure1([geometry], labels=["built-in inference"])
    (directory / "figure1.png").write_bytes(figure_bytes(figure, "png"))


def score_frame(teacher: RunResult, swept: SweepResult, seed: int) -> pd.DataFrame:
    """Return the validation scores of the teacher and of every student."""
    own = teacher.scores.assign(model="teacher", strategy="", init="", seed=seed, steps=teacher.steps)
    students = swept.scores.assign(model="student")
    return pd.concat([own, students], ignore_index=True)[list(_COLUMNS)]


def _training(
    settings: DemoSettings,
    steps: int,
    batch_size: int,
    learning_rate: float,
    data_seed: int,
    own_seed: int | None = None,
) -> TrainSettings:
    return TrainSettings(
        max_steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        warmup=settings.warmup_fraction,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        max_length=settings.max_length,
        group_by_length=True,
        seed=own_seed,
        data_seed=data_seed,
        # Scored once, at the end: a validation in between takes as long as dozens of steps.
        evaluate_every=steps + 1,
        log_every=max(1, min(10, steps // 5)),
        eval_batch_size=250,
        resumable=False,
        device="cpu",
    )
