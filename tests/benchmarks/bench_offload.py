"""Teachers larger than memory: block after block beside the same analysis in memory, and beside accelerate's disk map.

Run it alone on a quiet machine: `make bench`. With `--limited` the weights find no room in the page cache either (a
control group's memory limit, which needs root on Linux). With `--large` a teacher of 8 GB is made and its states are
extracted under a limit of 2 GB, then compared with those of the model run whole, which takes 10 GB of memory and 20 GB
of disk.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import torch
from measuring import bert, checkpoint, paired_ratio, probe_of, report, review_texts, word_tokenizer
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3Model

from anglekit.analysis.analyze import analyze
from anglekit.analysis.jobs.extract import extract_states
from anglekit.analysis.settings import AnalysisSettings
from anglekit.models.checkpoints import load_checkpoint
from anglekit.models.load_options import LoadOptions
from anglekit.runtime.placement import Placement
from anglekit.states.store import StateStore

SETTINGS = AnalysisSettings()
BY_BLOCKS = LoadOptions(device="cpu", placement=Placement(offload="blocks"))
# The pooler, which the file lacks, cannot be on the disk.
PARTS = {"embeddings": "disk", "encoder": "disk", "pooler": "cpu"}
ON_DISK = LoadOptions(device="cpu", placement=Placement(device_map=json.dumps(PARTS)))
WHOLE = LoadOptions(device="cpu")
WAYS = {"blocks": BY_BLOCKS, "map": ON_DISK}
LARGE_TEXTS = 40
#: About what the control group leaves the process, beside the page cache that it may take back.
LIMIT = 2_000_000_000
#: What an analysis of the smaller teacher may take once it is imported: not enough to keep the weights as well.
SMALL_LIMIT = 700_000_000
#: Bytes a second; the last limit is none.
DISKS = {"200 MB/s": 200_000_000, "500 MB/s": 500_000_000, "this disk": 1 << 40}


def saved_teacher(folder: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    """Save a 12 x 768 teacher with its tokenizer; return its directory."""
    directory = folder / "teacher"
    bert(12, 768, len(tokenizer)).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def measure_small(quick: bool) -> None:
    """Measure a 12 x 768 teacher and its 3-layer student; weights lie in the page cache."""
    texts = review_texts(100 if quick else 300)
    repeats = 3 if quick else 5
    tokenizer = word_tokenizer(texts)
    student = checkpoint("student", bert(3, 768, len(tokenizer), seed=1), tokenizer)
    with tempfile.TemporaryDirectory() as folder:
        directory = str(saved_teacher(Path(folder), tokenizer))

        def run(options: LoadOptions) -> None:
            analyze(load_checkpoint(directory, options), student, probe_of(texts), SETTINGS)

        ratio, by_blocks, whole = paired_ratio(lambda: run(BY_BLOCKS), lambda: run(WHOLE), repeats)
        report("analysis block after block over that in memory", ratio, 1.3, by_blocks_s=by_blocks, whole_s=whole)
        ratio, by_blocks, disk = paired_ratio(lambda: run(BY_BLOCKS), lambda: run(ON_DISK), max(1, repeats - 2))
        report("the same over accelerate's map to the disk", ratio, 0.333, by_blocks_s=by_blocks, disk_s=disk)


def measure_limited(repeats: int) -> None:
    """Measure the same where the page cache has no room for the weights, from disks of several speeds."""
    texts = review_texts(300)
    with tempfile.TemporaryDirectory() as folder:
        directory = saved_teacher(Path(folder), word_tokenizer(texts))
        for disk, rate in DISKS.items():
            found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
            for _ in range(repeats):
                for way, runs in found.items():
                    arguments = [sys.executable, __file__, "--in-small-limit", way, str(rate), str(directory)]
                    done = subprocess.run(arguments, check=True, capture_output=True, text=True)
                    runs.append(json.loads(done.stdout.splitlines()[-1]))
            report(
                f"the same, no room for the weights, {disk}",
                statistics.median(
                    ours["seconds"] / theirs["seconds"]
                    for ours, theirs in zip(found["blocks"], found["map"], strict=True)
                ),
                0.333,
                **{
                    f"{way}_{what}": statistics.median(each[what] for each in runs)
                    for way, runs in found.items()
                    for what in ("seconds", "read_gb")
                },
            )


def analyze_in_limit(way: str, rate: int, directory: Path) -> None:
    """Analyse the saved teacher from a cold cache, under a memory limit and with a slow disk; print what it took."""
    texts = review_texts(300)
    _forget_cached(directory)
    _join_group(SMALL_LIMIT)
    _slow_disk(directory, rate)
    before, start = _read_bytes(), time.perf_counter()
    teacher = load_checkpoint(str(directory), WAYS[way])
    tokenizer = teacher.tokenizer
    student = checkpoint("student", bert(3, 768, len(tokenizer), seed=1), tokenizer)
    analyze(teacher, student, probe_of(texts), SETTINGS)
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "read_gb": (_read_bytes() - before) / 1e9}))


def large_config(vocabulary: int) -> Qwen3Config:
    """Return the configuration of a model of 8 GB in float32."""
    return Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=32,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        tie_word_embeddings=True,
    )


def measure_large(place: Path) -> None:
    """Extract the states of a model of 8 GB under a limit, and compare them with those of the model run whole."""
    texts = review_texts(LARGE_TEXTS)
    tokenizer = word_tokenizer(texts)
    directory = place / "large"
    if not (directory / "model.safetensors.index.json").exists():
        torch.manual_seed(0)
        with torch.device("cpu"):
            model = Qwen3Model(large_config(len(tokenizer)))
        model.save_pretrained(directory, max_shard_size="1GB")
        tokenizer.save_pretrained(directory)
        del model
    stored = sum(file.stat().st_size for file in directory.glob("*.safetensors"))
    told = subprocess.run(
        [sys.executable, __file__, "--in-limit", str(place)], check=True, capture_output=True, text=True
    ).stdout.splitlines()[-1]
    found = json.loads(told)
    report(
        "bytes read over the file, 8 GB under 2 GB",
        found["read"] / stored,
        1.1,
        stored_gb=stored / 1e9,
        limit_gb=LIMIT / 1e9,
        peak_anonymous_gb=found["anonymous"] / 1e9,
        peak_with_cache_gb=found["group"] / 1e9,
        seconds=found["seconds"],
    )
    start = time.perf_counter()
    whole = extract_states(place / "whole", load_checkpoint(str(directory), WHOLE), probe_of(texts), SETTINGS)
    seconds = time.perf_counter() - start
    apart = _apart(StateStore(place / "by-blocks"), whole)
    report("states block after block against the whole, of their norm", apart, 1e-6, whole_s=seconds)


def _apart(one: StateStore, other: StateStore) -> float:
    """Return the greatest distance of two stores' states, of the second's norm."""
    worst = 0.0
    for ours, theirs in zip(one._shards, other._shards, strict=True):
        for stream, states in theirs.states.items():
            for begin in range(0, len(states), 64):
                piece = states[begin : begin + 64].double()
                away = (ours.states[stream][begin : begin + 64].double() - piece).norm(dim=-1) / piece.norm(dim=-1)
                worst = max(worst, float(away.max()))
    return worst


def extract_in_limit(place: Path) -> None:
    """Extract inside a control group with a memory limit, from a cold cache; print what was read and taken."""
    directory = place / "large"
    _forget_cached(directory)
    group = _join_group(LIMIT)
    before = _read_bytes()
    start = time.perf_counter()
    texts = review_texts(LARGE_TEXTS)
    teacher = load_checkpoint(str(directory), BY_BLOCKS)
    extract_states(place / "by-blocks", teacher, probe_of(texts), SETTINGS, overwrite=(place / "by-blocks").exists())
    seconds = time.perf_counter() - start
    status = Path("/proc/self/status").read_text()
    print(
        json.dumps(
            {
                "read": _read_bytes() - before,
                "seconds": seconds,
                "anonymous": int(status.partition("RssAnon:")[2].split()[0]) * 1024,
                "group": int((group / "memory.max_usage_in_bytes").read_text()),
            }
        )
    )


def _forget_cached(directory: Path) -> None:
    """Drop a checkpoint's weights from the page cache."""
    for file in directory.glob("*.safetensors"):
        with file.open("rb") as opened:
            # What is not on the disk yet cannot be dropped.
            os.fsync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _slow_disk(directory: Path, rate: int) -> None:
    """Have this process read no more bytes a second from the disk of a directory."""
    group = Path("/sys/fs/cgroup/blkio/anglekit-bench")
    group.mkdir(exist_ok=True)
    device = directory.stat().st_dev
    (group / "blkio.throttle.read_bps_device").write_text(f"{os.major(device)}:{os.minor(device)} {rate}")
    (group / "cgroup.procs").write_text(str(os.getpid()))


def _join_group(limit: int) -> Path:
    """Put this process under a memory limit, page cache included; return the control group."""
    group = Path("/sys/fs/cgroup/memory/anglekit-bench")
    group.mkdir(exist_ok=True)
    (group / "memory.limit_in_bytes").write_text(str(limit))
    (group / "memory.max_usage_in_bytes").write_text("0")
    (group / "cgroup.procs").write_text(str(os.getpid()))
    return group


def _read_bytes() -> int:
    """Return the bytes that this process had fetched from the disk."""
    return int(Path("/proc/self/io").read_text().partition("read_bytes:")[2].split()[0])


def main() -> None:
    """Measure."""
    if "--in-limit" in sys.argv:
        extract_in_limit(Path(sys.argv[-1]))
    elif "--in-small-limit" in sys.argv:
        way, rate, directory = sys.argv[-3:]
        analyze_in_limit(way, int(rate), Path(directory))
    elif "--limited" in sys.argv:
        measure_limited(3)
    elif "--large" in sys.argv:
        with suppress(IndexError):
            measure_large(Path(sys.argv[sys.argv.index("--large") + 1]))
            return
        with tempfile.TemporaryDirectory() as folder:
            measure_large(Path(folder))
    else:
        measure_small("--quick" in sys.argv)


if __name__ == "__main__":
    main()
