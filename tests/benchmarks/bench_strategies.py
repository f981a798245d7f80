"""A training step under every strategy and hidden loss, against forward with the mean squared error.

BERT shapes, 12 blocks and 3: `python tests/benchmarks/bench_strategies.py [--width 768]`. Run it alone on a quiet
machine, or with ANGLEKIT_BENCH_CLOCK=cpu and one thread.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from measuring import paired_ratio
from transformers import BertConfig, BertForSequenceClassification

from anglekit.distillation.matching.strategies import layer_matching
from anglekit.distillation.training.distillation_loss import DistillationLoss
from anglekit.vocabulary import ANGLE_AWARE, ATTENTION_MAPS, HIDDEN_LOSS_NAMES, NONE, STRATEGIES

LENGTH, VOCABULARY = 48, 2000


def model(blocks: int, width: int) -> BertForSequenceClassification:
    torch.manual_seed(blocks)
    shape = {"hidden_size": width, "intermediate_size": 4 * width, "num_attention_heads": width // 64}
    config = BertConfig(vocab_size=VOCABULARY, num_hidden_layers=blocks, **shape)
    return BertForSequenceClassification(config)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--only", help="strategies and losses to measure, with commas")
    given = parser.parse_args()
    teacher, student = model(12, given.width), model(3, given.width)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, VOCABULARY, (given.batch, LENGTH), generator=generator)
    lengths = torch.randint(LENGTH // 2, LENGTH + 1, (given.batch, 1), generator=generator)
    mask = (torch.arange(LENGTH) < lengths).long()
    batch = {"input_ids": ids * mask, "attention_mask": mask, "labels": torch.randint(0, 2, (given.batch,))}

    def step(strategy: str, kind: str) -> Callable[[], None]:
        for each in (teacher, student) if kind == ATTENTION_MAPS else ():
            each.set_attn_implementation("eager")
        matching = layer_matching(strategy, teacher_blocks=12, student_blocks=3, seed=0)
        loss = DistillationLoss(teacher, student, matching, hidden_loss=kind)
        optimizer = torch.optim.AdamW(loss.parameters(), lr=1e-5, fused=True)

        def run() -> None:
            optimizer.zero_grad()
            loss(batch).backward()
            optimizer.step()

        return run

    forward = step("forward", "mse")
    arms = [(name, "mse") for name in STRATEGIES if name not in (NONE, ANGLE_AWARE, "forward")]
    # Maps come last, for they leave both models with another attention.
    others = [kind for kind in HIDDEN_LOSS_NAMES if kind not in ("mse", ATTENTION_MAPS)]
    arms += [("forward", kind) for kind in (*others, ATTENTION_MAPS)]
    size = f"{given.batch} x {LENGTH} tokens, {torch.get_num_threads()} threads"
    print(f"BERT 12 to 3 blocks, width {given.width}, {size}; against forward with mse")
    for strategy, kind in arms:
        if given.only and not {strategy, kind} & set(given.only.split(",")):
            continue
        ratio, own, bare = paired_ratio(step(strategy, kind), forward, given.rounds)
        print(f"{strategy:18} {kind:18} {ratio:.2f} x ({own:.3f} s against {bare:.3f} s)", flush=True)


if __name__ == "__main__":
    main()
