"""A training step over a large vocabulary: peak memory and time, against the losses as plain autograd computes them.

A Qwen3-shaped pair, 512 tokens, 152,000 entries: `python tests/benchmarks/bench_large_vocabulary.py`. Each arm runs in
a process of its own; its peak is all that a step holds (weights, logits, gradients) without what Python and its
libraries held before. `--with trl` also takes the loss of trl's GKD trainer in the same step, where trl is installed
(its beta is 0.5, so ours is jensen-shannon).
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from transformers import Qwen3Config, Qwen3ForCausalLM

from anglekit.distillation.losses.weights import LossWeights
from anglekit.distillation.training.distillation_loss import DistillationLoss

VOCABULARY, BATCH, LENGTH, WIDTH = 152_000, 4, 128, 128


def model(blocks: int) -> Qwen3ForCausalLM:
    torch.manual_seed(blocks)
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        num_hidden_layers=blocks,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        intermediate_size=3 * WIDTH,
        tie_word_embeddings=True,
    )
    return Qwen3ForCausalLM(config)


def step_of(arm: str) -> Callable[[], float]:
    """Return one training step of an arm, which returns its loss."""
    teacher, student = model(4).eval(), model(2)
    ids = torch.randint(5, VOCABULARY, (BATCH, LENGTH), generator=torch.Generator().manual_seed(0))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
    optimizer = torch.optim.SGD(student.parameters(), lr=1e-5)

    def plain(kind: str) -> torch.Tensor:
        inputs = {"input_ids": ids, "attention_mask": batch["attention_mask"], "use_cache": False}
        with torch.no_grad():
            theirs = teacher(**inputs).logits
        ours = student(**inputs).logits
        if kind == "trl":
            from trl.experimental.gkd import GKDTrainer

            return GKDTrainer.generalized_jsd_loss(ours[:, :-1], theirs[:, :-1], labels=ids[:, 1:], beta=0.5)
        ours, theirs, labels = ours[:, :-1].flatten(0, 1), theirs[:, :-1].flatten(0, 1), ids[:, 1:].flatten()
        kl = F.kl_div(ours.log_softmax(-1), theirs.log_softmax(-1), reduction="batchmean", log_target=True)
        return F.cross_entropy(ours, labels) + kl

    loss: Callable[[], torch.Tensor]
    if arm in ("plain", "trl"):

        def loss() -> torch.Tensor:
            return plain(arm)
    else:
        weights, direction = LossWeights(1.0, 1.0, 0.0), None
        if arm == "ours-jsd":
            weights, direction = LossWeights(0.0, 1.0, 0.0), "jensen-shannon"
        ours = DistillationLoss(teacher, student, "forward", weights=weights, kl_direction=direction)

        def loss() -> torch.Tensor:
            return ours(batch)

    def run() -> float:
        value = loss()
        value.backward()
        optimizer.step()
        optimizer.zero_grad()
        return float(value.detach())

    return run


def measure(arm: str, repeats: int) -> None:
    """Print the peak memory of an arm's steps over what was held before the models, and the median time of a step."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step = step_of(arm)
    value = step()
    step()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    mib = (peak - before) / 1024
    print(json.dumps({"arm": arm, "mib": round(mib), "seconds": statistics.median(seconds), "loss": value}))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--arm")
    parser.add_argument("--with", dest="others", default="")
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    if given.arm:
        measure(given.arm, given.repeats)
        return
    pairs = [("ours", "plain")] + ([("ours-jsd", "trl")] if given.others == "trl" else [])
    for ours, other in pairs:
        found = {}
        for arm in (ours, other):
            command = [sys.executable, __file__, "--arm", arm, "--repeats", str(given.repeats)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[arm] = json.loads(done.stdout.splitlines()[-1])
        one, two = found[ours], found[other]
        goals = (0.35, 1.05) if other == "plain" else (0.5, 1.0)
        for name, goal in zip(("mib", "seconds"), goals, strict=True):
            ratio = round(one[name] / two[name], 3)
            losses = {"losses": [one["loss"], two["loss"]]}
            line = {"name": f"{name} of {ours} over {other}", "ratio": ratio, "goal": goal}
            print(json.dumps({**line, ours: one[name], other: two[name], **losses}), flush=True)


if __name__ == "__main__":
    main()
