"""Throughput of a sweep of ten students in two processes of one thread each against one process of one thread.

Whole commands of two lengths are timed in turns; their difference is what the additional steps took, without start-up
and saving, which do not grow with the training. Two processes compute the teacher's states once each: with a teacher
pass T and a student step S the most that two can give is (T + 10 S) / (T + 5 S). Run it alone on a quiet machine of
two cores or more: `make bench`.
"""

from __future__ import annotations

import csv
import statistics
import sys
import tempfile
from pathlib import Path

import torch
from measuring import _clock as clock
from measuring import launch, report, review_texts, word_tokenizer
from transformers import BertConfig, BertForSequenceClassification

GOAL = 1.7
SHORT, LONG, BATCH = 4, 36, 16


def write_world(place: Path) -> None:
    """Write a 6 x 384 teacher and reviews, labelled in turns."""
    texts = review_texts(LONG * BATCH)
    tokenizer = word_tokenizer(texts)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        num_hidden_layers=6,
        hidden_size=384,
        num_attention_heads=12,
        intermediate_size=1536,
        max_position_embeddings=128,
    )
    BertForSequenceClassification(config).save_pretrained(place / "teacher")
    tokenizer.save_pretrained(place / "teacher")
    with (place / "train.tsv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, delimiter="\t", lineterminator="\n")
        rows.writerows([("sentence", "label"), *((text, row % 2) for row, text in enumerate(texts))])


def seconds(place: Path, processes: int, steps: int) -> float:
    """Return how long a sweep takes as a whole command."""
    given = ["-m", "anglekit_cli", "sweep", place / "teacher", "--task", "classification", "--layers", "2"]
    given += ["--train", place / "train.tsv", "--max-steps", str(steps), "--batch-size", str(BATCH), "--seeds", "0"]
    start = clock()
    launch(processes, [*given, "--device", "cpu", "--quiet", "--overwrite", "--out", place / "sweep"])
    return clock() - start


def main() -> None:
    """Take turns between one process and two."""
    rounds = []
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        write_world(place)
        for number in range(1 if "--quick" in sys.argv else 3):
            taken = {}
            for processes in ((1, 2), (2, 1))[number % 2]:
                taken[processes] = seconds(place, processes, LONG) - seconds(place, processes, SHORT)
            rounds.append(taken)
    report(
        "sweep of ten 2-layer students of a 6 x 384 teacher, throughput of two processes over one",
        statistics.median(each[1] / each[2] for each in rounds),
        GOAL,
        alone_s=round(statistics.median(each[1] for each in rounds), 2),
        both_s=round(statistics.median(each[2] for each in rounds), 2),
        steps=LONG - SHORT,
    )


if __name__ == "__main__":
    main()
