"""What a machine with a GPU is asked, in five minutes: `make device`, or python tests/benchmarks/device.py [--quick].

First that the numbers are those of the CPU: angles of a small pair, a distilled student, a store. Then, one JSON line
each: the analysis in bfloat16 of a BERT-base and of a Qwen3 of 36 layers (random weights) against bare passes, a
distillation step against a bare one, and a store's writing and reading. Without a GPU it checks itself on the CPU, with
small models. Exit code 1 where a number is wrong.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from measuring import checkpoint, paired_ratio, probe_of, report, review_texts, word_tokenizer
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    PreTrainedModel,
    Qwen3Config,
    Qwen3Model,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback

from anglekit.analysis.analyze import analyze
from anglekit.analysis.jobs.extract import extract_states
from anglekit.analysis.preparation import tokenized_probe
from anglekit.analysis.settings import AnalysisSettings
from anglekit.distillation.students.create import create_student
from anglekit.distillation.training.trainer import DistillationTrainer
from anglekit.models.checkpoints import Checkpoint
from anglekit.states.recorder import forward_inputs
from anglekit.states.store import load_stored_teacher

GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")
QUICK = "--quick" in sys.argv or not GPU
# Sums of float32 states on another device differ by the order of additions alone.
MOST_APART = 2e-4


def waited(run: Callable[[], object]) -> Callable[[], None]:
    """Return a function that is done when the device is."""

    def done() -> None:
        run()
        if GPU:
            torch.cuda.synchronize()

    return done


def bert(layers: int, width: int, vocabulary: int, seed: int) -> PreTrainedModel:
    torch.manual_seed(seed)
    heads = max(1, width // 64)
    sizes = {"num_hidden_layers": layers, "hidden_size": width, "num_attention_heads": heads}
    return BertModel(BertConfig(vocab_size=vocabulary, intermediate_size=4 * width, **sizes), add_pooling_layer=False)


def qwen3(layers: int, width: int, vocabulary: int, seed: int) -> PreTrainedModel:
    torch.manual_seed(seed)
    sizes = {"num_hidden_layers": layers, "hidden_size": width, "intermediate_size": 3 * width}
    heads = {"num_attention_heads": max(1, width // 64), "num_key_value_heads": max(1, width // 128), "head_dim": 64}
    return Qwen3Model(Qwen3Config(vocab_size=vocabulary, **sizes, **heads))


def pair(
    build: Callable[..., PreTrainedModel], sizes: tuple[int, int, int], texts: list[str], dtype: torch.dtype
) -> list[Checkpoint]:
    """Return a teacher and a student of these depths and width, in a precision, where they compute."""
    teacher, student, width = sizes
    tokenizer = word_tokenizer(texts)
    made = [build(depth, width, len(tokenizer), seed) for seed, depth in enumerate((teacher, student))]
    names = ("teacher", "student")
    return [checkpoint(name, model.to(DEVICE, dtype), tokenizer) for name, model in zip(names, made, strict=True)]


def the_same_as_on_the_cpu(texts: list[str]) -> list[str]:
    """Return in words which numbers differ from those of the CPU."""
    wrong = []
    for name, build in (("BERT", bert), ("Qwen3", qwen3)):
        there = pair(build, (4, 2, 64), texts, torch.float32)
        found = analyze(*there, probe_of(texts)).angles["mean_cosine"].to_numpy()
        here = [checkpoint(each.name, each.model.cpu(), each.tokenizer) for each in there]
        expected = analyze(*here, probe_of(texts)).angles["mean_cosine"].to_numpy()
        apart = float(np.nanmax(np.abs(found - expected)))
        report(f"cosines on {DEVICE.type} and the CPU, {name}", apart, MOST_APART)
        if not apart < MOST_APART:
            wrong.append(f"cosines of {name} differ by {apart:.2g}")
    return wrong


def measure_analysis(name: str, teacher: Checkpoint, student: Checkpoint, texts: list[str], repeats: int) -> None:
    """The whole analysis, everything on, against bare passes over the same batches."""
    batches = list(tokenized_probe(teacher, [student], probe_of(texts), AnalysisSettings()).batches())

    def bare() -> None:
        with torch.inference_mode():
            for batch in batches:
                for model in (teacher.model, student.model):
                    model(**forward_inputs(model, batch))

    ratio, run, plain = paired_ratio(waited(lambda: analyze(teacher, student, probe_of(texts))), waited(bare), repeats)
    report(f"analysis over bare passes, {name}", ratio, None, analysis_s=round(run, 3), bare_s=round(plain, 3))


def measure_store(name: str, teacher: Checkpoint, student: Checkpoint, texts: list[str], folder: Path) -> list[str]:
    """Writing against a bare pass, and the analysis from the store; whether it is the analysis of the model."""
    stored = "bfloat16" if teacher.model.dtype == torch.bfloat16 else "float32"
    start = time.perf_counter()
    store = extract_states(folder / "states", teacher, probe_of(texts), stored=stored)
    wrote = time.perf_counter() - start
    held = sum(shard.bytes for shard in store.document.shards)
    start = time.perf_counter()
    read = analyze(load_stored_teacher(folder / "states"), student, probe_of(texts))
    took = time.perf_counter() - start
    start = time.perf_counter()
    live = analyze(teacher, student, probe_of(texts))
    lived = time.perf_counter() - start
    report(f"analysis from a store over running the teacher, {name}", took / lived, None, read_s=round(took, 2))
    report(f"MB a second into a store, {name}", held / wrote / 1e6, None, bytes=held)
    apart = float(np.nanmax(np.abs(read.angles["mean_cosine"] - live.angles["mean_cosine"])))
    return [] if apart < MOST_APART else [f"the store's cosines of {name} differ by {apart:.2g}"]


def measure_step(layers: int, width: int, steps: int, folder: Path) -> list[str]:
    """A distillation step against a bare one of the same passes, and whether its loss falls."""
    torch.manual_seed(0)
    sizes = {"num_hidden_layers": layers, "hidden_size": width, "num_attention_heads": max(1, width // 64)}
    config = BertConfig(intermediate_size=4 * width, num_labels=2, **sizes)
    teacher = BertForSequenceClassification(config).to(DEVICE).eval()
    ids = torch.randint(5, config.vocab_size, (32, 64), generator=torch.Generator().manual_seed(0))
    rows = [{"input_ids": row, "labels": torch.tensor(number % 2)} for number, row in enumerate(ids)]
    student = create_student(teacher, layers=max(1, layers // 4), init="teacher").to(DEVICE)
    options = {"report_to": [], "disable_tqdm": True, "save_strategy": "no", "use_cpu": not GPU, "logging_steps": 1}
    arguments = TrainingArguments(
        str(folder / "run"), max_steps=steps, per_device_train_batch_size=32, bf16=GPU, learning_rate=1e-4, **options
    )
    trainer = DistillationTrainer(student, arguments, objective="forward", teacher=teacher, train_dataset=rows)
    trainer.remove_callback(PrinterCallback)
    start = time.perf_counter()
    trainer.train()
    if GPU:
        torch.cuda.synchronize()
    run = (time.perf_counter() - start) / steps
    batch = {"input_ids": ids.to(DEVICE), "labels": torch.arange(32, device=DEVICE) % 2}
    bare_student = create_student(teacher, layers=max(1, layers // 4), init="teacher").to(DEVICE)
    optimizer = torch.optim.AdamW(bare_student.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=GPU):
            with torch.no_grad():
                taught = teacher(input_ids=batch["input_ids"], output_hidden_states=True)
            own = bare_student(**batch, output_hidden_states=True)
            hidden = sum(
                F.mse_loss(mine.float(), theirs.float())
                for mine, theirs in zip(own.hidden_states[1:], taught.hidden_states[1:], strict=False)
            )
            kl = F.kl_div(own.logits.log_softmax(-1), taught.logits.softmax(-1), reduction="batchmean")
        (own.loss + kl + hidden).backward()
        torch.nn.utils.clip_grad_norm_(bare_student.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    step()
    start = time.perf_counter()
    for _ in range(steps):
        step()
    if GPU:
        torch.cuda.synchronize()
    bare = (time.perf_counter() - start) / steps
    report("distillation step over a bare one, set-up included", run / bare, None, step_s=run, bare_s=bare)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return [] if losses[-1] < losses[0] else [f"the loss rose from {losses[0]:.3g} to {losses[-1]:.3g}"]


def main() -> int:
    """Ask all; 1 where a number is wrong."""
    texts = review_texts(60 if QUICK else 1000)
    wrong = the_same_as_on_the_cpu(texts[:60])
    cases = (
        [("BERT 4 x 64", bert, (4, 2, 64)), ("Qwen3 6 x 64", qwen3, (6, 2, 64))]
        if QUICK
        else [("BERT-base", bert, (12, 3, 768)), ("Qwen3 of 36 layers x 2,560", qwen3, (36, 9, 2560))]
    )
    for name, build, sizes in cases:
        precisions = [torch.float32] if QUICK else [torch.bfloat16]
        for dtype in precisions:
            teacher, student = pair(build, sizes, texts, dtype)
            measure_analysis(name, teacher, student, texts, 2 if QUICK else 3)
            with tempfile.TemporaryDirectory() as folder:
                wrong += measure_store(name, teacher, student, texts, Path(folder))
            del teacher, student
            if GPU:
                torch.cuda.empty_cache()
    with tempfile.TemporaryDirectory() as folder:
        wrong += measure_step(*((4, 64, 5) if QUICK else (12, 768, 40)), Path(folder))
    for each in wrong:
        print(f"wrong: {each}")
    return int(bool(wrong))


if __name__ == "__main__":
    raise SystemExit(main())
