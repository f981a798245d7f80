"""Kills analyses, sweeps and reproductions of tiny models with SIGKILL at random moments and starts them again.

    python tests/benchmarks/kill_resume.py [KILLS] [SEED] [WHAT ...]

Each run is killed several times, at moments spread evenly over what an uninterrupted one takes, and then let through.
What it leaves must be what the uninterrupted run leaves: the same files and folders, hidden ones included, with the
same bytes; in json, csv and log files the fields that hold a time or count one session are left out. WHAT is some of
the names in `JOBS`; all by default, with at least KILLS (20) kills each.
"""

from __future__ import annotations

import csv
import importlib
import json
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KILLS_A_RUN = 5
# Fields that hold a time, or count what one session did.
OF_A_SESSION = {
    *("begun", "finished", "seconds", "train_seconds", "costs", "last_session", "train_loss", "total_flos"),
    *(f"{name}_{what}" for name in ("train", "eval") for what in ("runtime", "samples_per_second", "steps_per_second")),
}
WORDS = (
    *("the", "a", "film", "was", "good", "bad", "dull", "bright", "cast", "plot", "score", "ending", "very", "not"),
    *("and", "but", "it", "we", "saw", "liked"),
)


@dataclass(frozen=True)
class Job:
    """A command that is killed and started again.

    Attributes:
        arguments: of the command, as it is started each time.
        processes: how many are launched together.
        again: what is added when it is started again.
    """

    arguments: tuple[str, ...]
    processes: int = 1
    again: tuple[str, ...] = ()


_ANALYZE = (
    *("analyze", "teacher", "student", "narrow", "--probe", "probe.tsv", "--projection", "least-squares"),
    *("--batch-tokens", "60", "--quiet", "--resume", "--save-every", "1", "--out", "out"),
)
_SWEEP = (
    *("sweep", "classifier", "--task", "classification", "--train", "train.tsv", "--validation", "dev.tsv"),
    *("--strategies", "none,forward,reverse", "--seeds", "0", "--layers", "2", "--max-steps", "5"),
    *("--batch-size", "8", "--log-every", "1", "--evaluate-every", "1", "--select", "best", "--device", "cpu"),
    *("--side-by-side", "3", "--quiet", "--out", "out"),
)
_DISTILL = (
    *("distill", "classifier", "--task", "classification", "--train", "train.tsv", "--validation", "dev.tsv"),
    *("--strategy", "forward", "--layers", "2", "--max-steps", "20", "--batch-size", "8", "--log-every", "1"),
    *("--evaluate-every", "4", "--device", "cpu", "--seed", "0", "--teacher-cache", "cache", "--quiet", "--out", "out"),
)
JOBS = {
    "analyze": Job(_ANALYZE),
    "extract": Job(("extract", "teacher", "--data", "probe.tsv", "--batch-tokens", "60", "--quiet", "--out", "out")),
    "distill with a kept teacher": Job(_DISTILL, again=("--resume",)),
    "analyze in 2 processes": Job(_ANALYZE, processes=2),
    "sweep": Job(_SWEEP, again=("--resume",)),
    "sweep in 2 processes": Job(_SWEEP, processes=2, again=("--resume",)),
    "reproduce": Job(("reproduce", "recipe.yaml", "--device", "cpu", "--quiet", "--out", "out")),
}
RECIPE = """
format: anglekit-recipe-1
name: tiny
title: A tiny teacher from scratch
source: none
task: classification
teacher:
  model: null
  config: {model_type: bert, hidden_size: 16, num_hidden_layers: 3, num_attention_heads: 2, intermediate_size: 32}
  tokenizer: {kind: words, vocab_size: 40, max_length: 32}
  seed: 0
  training: {max_steps: 4, batch_size: 8, learning_rate: 1e-3, evaluate_every: 1, log_every: 1, max_length: 32}
data:
  train: train.tsv
  validation: {dev: dev.tsv}
  columns: {text: sentence, label: label}
students:
  layers: [2]
  strategies: [none, forward]
  inits: [random, teacher]
  seeds: [0]
  side_by_side: 2
  training: {max_steps: 4, batch_size: 8, learning_rate: 1e-3, evaluate_every: 1, log_every: 1, max_length: 32}
losses: {ce: 1, kl: 1, hidden: 3, reading: corrected}
analysis: {probe: dev.tsv, reading: corrected, seed: 0}
figure: {name: figure1, label: tiny}
scores: [accuracy]
"""


def make_world(place: Path) -> None:
    """Write tiny checkpoints, tables and a recipe."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    vocabulary = {word: number for number, word in enumerate([*special, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    frame = {"single": "[CLS] $A [SEP]", "pair": "[CLS] $A [SEP] $B:1 [SEP]:1"}
    tokenizer.post_processor = processors.TemplateProcessing(**frame, special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token"), special, strict=True))
    whole = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **names)
    for seed, (name, width, depth) in enumerate(
        (("teacher", 16, 3), ("student", 16, 2), ("narrow", 8, 2), ("classifier", 16, 4))
    ):
        torch.manual_seed(seed)
        sizes = {"hidden_size": width, "num_hidden_layers": depth, "intermediate_size": 2 * width}
        config = BertConfig(vocab_size=len(vocabulary), num_attention_heads=2, max_position_embeddings=64, **sizes)
        BertForSequenceClassification(config).save_pretrained(place / name)
        whole.save_pretrained(place / name)
    draw = random.Random(0)
    texts = [" ".join(draw.choices(WORDS, k=draw.randint(1, 20))) for _ in range(100)]
    (place / "probe.tsv").write_text("sentence\n" + "".join(f"{text}\n" for text in texts))
    for name, rows in (("train", 64), ("dev", 24)):
        lines = [f"{' '.join(draw.choices(WORDS, k=5))} {('bad', 'good')[row % 2]}\t{row % 2}" for row in range(rows)]
        (place / f"{name}.tsv").write_text("sentence\tlabel\n" + "".join(f"{line}\n" for line in lines))
    (place / "recipe.yaml").write_text(RECIPE)


def contents(place: Path) -> dict[str, Any]:
    """Return what lies below a directory, without what tells one session from another."""
    # What a teacher's cache holds has names that are drawn; whether it is right is seen from the student.
    found = (path for path in sorted(place.rglob("*")) if path.relative_to(place).parts[0] != "cache")
    return {str(path.relative_to(place)): _content(path) for path in found}


def _content(path: Path) -> Any:
    if path.is_dir():
        return None
    if path.suffix == ".json":
        return _without(json.loads(path.read_text()))
    if path.suffix == ".jsonl" and path.name == "metrics.jsonl":
        return [_without(json.loads(line)) for line in path.read_text().splitlines()]
    if path.suffix == ".csv":
        return [_without(row) for row in csv.DictReader(path.read_text().splitlines())]
    if path.name == "README.md":  # a model card
        return [line for line in path.read_text().splitlines() if "seconds of training" not in line]
    return path.read_bytes()


def _without(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without(each) for key, each in value.items() if key not in OF_A_SESSION}
    return [_without(each) for each in value] if isinstance(value, list) else value


def import_everything() -> None:
    """Import what the commands would, so that forked processes need not."""
    import pyarrow.parquet  # noqa: F401 - what a fork would import again
    import transformers.models.bert.modeling_bert  # noqa: F401

    import anglekit.analysis.jobs.job
    import anglekit.plots.registry
    import anglekit.recipes.reproduction_stages  # noqa: F401
    from anglekit.analysis.jobs import extract
    from anglekit.distillation.training import teacher_cache

    # Several files each of what is little.
    extract.SHARD_BYTES, teacher_cache._SHARD_BYTES = 30_000, 10_000


def start(
    job: Job,
    place: Path,
    *,
    again: bool,
    streams: Path | None = None,
    second: Path | None = None,
    program: str = "anglekit_cli.main:main",
    environment: Mapping[str, str] | None = None,
) -> list[int]:
    """Fork the processes of a job from this interpreter, which has everything imported; return their numbers.

    Args:
        job: what to run.
        place: where.
        again: whether it was started before.
        streams: a folder for what each process prints, in `RANK.out` and `RANK.err`; None: where this one prints.
        second: where the second process runs, if not in the same place.
        program: the function that runs, as `module:name`.
        environment: what the processes' environment has beside this one's.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    children = []
    for rank in range(job.processes):
        child = os.fork()
        if child == 0:
            os.chdir(second if second is not None and rank == 1 else place)
            for number, name in ((1, "out"), (2, "err")) if streams is not None else ():
                os.dup2(os.open(streams / f"{rank}.{name}", os.O_WRONLY | os.O_CREAT), number)
            os.environ |= environment or {}
            # A shell's background jobs ignore Ctrl-C, and so does what they start.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            if job.processes > 1:
                os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(job.processes)}
                os.environ |= {"LOCAL_WORLD_SIZE": str(job.processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            sys.argv = ["anglekit", *job.arguments, *(job.again if again else ())]
            code = 1
            try:
                module, _, name = program.partition(":")
                getattr(importlib.import_module(module), name)()
                code = 0
            except SystemExit as ended:
                code = int(ended.code or 0)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        children.append(child)
    return children


def watch(children: Sequence[int], patience: float | None) -> bool:
    """Wait for all processes to end, or kill those that are left after so many seconds; whether it came to that."""
    end = None if patience is None else time.monotonic() + patience
    codes: dict[int, int] = {}
    while len(codes) < len(children) and (end is None or time.monotonic() < end):
        for child in children:
            pid, status = (0, 0) if child in codes else os.waitpid(child, os.WNOHANG)
            if pid:
                codes[child] = os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    killed = [child for child in children if child not in codes]
    for child in killed:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    # One process that ends because another was killed a moment before is no failure.
    if any(codes.values()) and not killed:
        raise SystemExit(f"a run that was not killed ended with {sorted(codes.values())}")
    return bool(killed)


def survive(name: str, world: Path, wanted: int, draw: random.Random, say: Callable[[str], None]) -> tuple[int, int]:
    """Kill and start a job again until it was killed often enough.

    Returns:
        The kills in runs that ended with the uninterrupted result, and all kills.
    """
    job = JOBS[name]
    whole = world / "whole"
    seconds = _whole_run(job, world, whole)
    expected = contents(whole)
    tried = survived = runs = 0
    while tried < wanted:
        place = world / f"run-{runs}"
        _furnish(world, place)
        kills, killed = 0, True
        while killed:
            patience = draw.uniform(0, seconds) if kills < KILLS_A_RUN and tried + kills < wanted else None
            killed = watch(start(job, place, again=kills > 0), patience)
            kills += killed
        found = contents(place)
        different = sorted(each for each in {*found, *expected} if found.get(each, 0) != expected.get(each, 0))
        for each in different[:10]:
            say(f"  {name}, run {runs}: {each} is {str(found.get(each, 'missing'))[:600]}")
            say(f"    and should be {str(expected.get(each, 'absent'))[:600]}")
        tried += kills
        survived += 0 if different else kills
        runs += 1
        if not different:
            shutil.rmtree(place)
    shutil.rmtree(whole)
    say(f"{name}: survived {survived} of {tried} kills in {runs} runs of {seconds:.1f} s")
    return survived, tried


def _furnish(world: Path, place: Path) -> None:
    place.mkdir()
    for source in (*(world / name for name in ("teacher", "student", "narrow", "classifier")), *world.glob("*.*")):
        (place / source.name).symlink_to(source)


def _whole_run(job: Job, world: Path, place: Path) -> float:
    _furnish(world, place)
    begun = time.monotonic()
    watch(start(job, place, again=False), None)
    return time.monotonic() - begun


def main(arguments: Sequence[str]) -> int:
    """Run the jobs that are named and print what they survived; 1 where one did not."""
    wanted, seed = int(arguments[0]) if arguments else 20, int(arguments[1]) if len(arguments) > 1 else 0
    import_everything()
    lost = 0
    with tempfile.TemporaryDirectory() as folder:
        world = Path(folder)
        make_world(world)
        for name in arguments[2:] or JOBS:
            survived, tried = survive(name, world, wanted, random.Random(f"{seed} {name}"), print)
            sys.stdout.flush()
            lost += tried - survived
    return int(lost > 0)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
