"""Memory: the peak that an analysis takes, over what its dry run says; each of the two in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from measuring import bert, report, review_texts, word_tokenizer
from transformers import GPT2Config, GPT2Model, PreTrainedModel, PreTrainedTokenizerFast, Qwen3Config, Qwen3Model
from transformers.utils import logging as transformers_logging

GOAL = 1.15
VOCABULARY = 30522
# Everything but the embeddings and the first two blocks stays in its file.
ON_DISK = {
    "embeddings": "cpu",
    "pooler": "cpu",
    **{f"encoder.layer.{block}": "cpu" if block < 2 else "disk" for block in range(12)},
}


# A process that is small itself: the peak of one that is started by a large process is at least that process's.
_LAUNCHER = """
import os, subprocess, sys
process = subprocess.Popen(sys.argv[1:])
_, status, usage = os.wait4(process.pid, 0)
print(f"\\n{usage.ru_maxrss}")
sys.exit(os.waitstatus_to_exitcode(status))
"""


def run(*arguments: str) -> tuple[str, int]:
    """Run the command line and return what it printed, and the most bytes of memory that it took."""
    done = subprocess.run(
        [sys.executable, "-c", _LAUNCHER, sys.executable, "-m", "anglekit_cli", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "MPLBACKEND": "Agg"},
    )
    if done.returncode:
        raise SystemExit(f"anglekit {' '.join(arguments)} ended with {done.returncode}")
    printed, _, peak = done.stdout.rstrip("\n").rpartition("\n")
    return printed, int(peak) * (1 if sys.platform == "darwin" else 1024)


def measure(name: str, place: Path, teacher: str, student: str, *options: str) -> None:
    """Report what one analysis took over what was said before; 1 is exact, and above the goal is too little said."""
    command = ["analyze", str(place / teacher), str(place / student), "--probe", str(place / "probe.jsonl"), *options]
    out = place / f"out-{len(list(place.iterdir()))}"
    plan, _ = run(*command, "--out", str(out), "--dry-run", "--json")
    parts = json.loads(plan)["memory_bytes"]["cpu"]
    _, taken = run(*command, "--out", str(out), "--quiet")
    report(
        f"peak memory over its estimate, {name}",
        taken / parts["peak"],
        GOAL,
        lowest=round(1 / GOAL, 2),
        taken_mib=taken >> 20,
        estimated_mib={part: number >> 20 for part, number in parts.items() if number},
    )


def saved(place: Path, tokenizer: PreTrainedTokenizerFast, models: dict[str, PreTrainedModel]) -> None:
    """Write checkpoints."""
    for name, model in models.items():
        model.save_pretrained(place / name)
        tokenizer.save_pretrained(place / name)


def qwen3(layers: int) -> PreTrainedModel:
    """Return a Qwen3 of 1024 with random weights, in bfloat16."""
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=1024,
        num_hidden_layers=layers,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=64,
        intermediate_size=3072,
    )
    return Qwen3Model(config).to(torch.bfloat16)


def gpt2(layers: int) -> PreTrainedModel:
    """Return a GPT-2 with random weights."""
    return GPT2Model(GPT2Config(vocab_size=VOCABULARY, n_layer=layers))


def main(cases: Sequence[str]) -> None:
    """Measure all cases, or those named."""
    transformers_logging.disable_progress_bar()
    texts = review_texts()
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        tokenizer = word_tokenizer(texts)
        lines = [json.dumps({"text": text}) for text in texts]
        (place / "probe.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        saved(place, tokenizer, {"bert-12": bert(12, 768, VOCABULARY), "bert-3": bert(3, 768, VOCABULARY)})
        bfloat16, disk = ("--dtype", "bfloat16"), ("--device-map", json.dumps(ON_DISK), "--student-device", "cpu")
        if not cases or "bert" in cases:
            measure("BERT of 12 and 3 blocks of 768", place, "bert-12", "bert-3")
        if not cases or "disk" in cases:
            measure("the same, 10 of the teacher's blocks on the disk", place, "bert-12", "bert-3", *disk)
        if not cases or "first" in cases:
            layers = ("--teacher-layers", "0,1,2", "--vertices", "1", "--nulls", "none", "--similarity", "none")
            measure("the same, the teacher's layers 0 to 2", place, "bert-12", "bert-3", *layers)
        if not cases or "all" in cases:
            thorough = ("--nulls", "all", "--similarity", "all", "--sample", "300")
            measure("the same, --nulls all --similarity all", place, "bert-12", "bert-3", *thorough)
        if not cases or "gpt2" in cases:
            saved(place, tokenizer, {"gpt2-12": gpt2(12), "gpt2-3": gpt2(3)})
            measure("GPT-2 of 12 and 3 blocks of 768, read as bfloat16", place, "gpt2-12", "gpt2-3", *bfloat16)
        if not cases or "qwen3" in cases:
            saved(place, tokenizer, {"qwen3-12": qwen3(12), "qwen3-3": qwen3(3)})
            measure("Qwen3 of 12 and 3 blocks of 1024, bfloat16", place, "qwen3-12", "qwen3-3", *bfloat16)


if __name__ == "__main__":
    main(sys.argv[1:])
