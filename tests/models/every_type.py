"""Every model type of the installed transformers, planned from its default configuration alone: an answer or one line.

    python tests/models/every_type.py [TYPE...]

Prints a line for each type: what `anglekit plan` would see, or why it refuses. It fails if a type ends in anything
else, or takes more than three seconds.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from anglekit.distillation.matching.plan import plan_distillation
from anglekit.distillation.matching.plan_text import plan_text
from anglekit.errors import InputError
from anglekit.models.architectures import depth, model_streams, width
from anglekit.models.checkpoints import load_config, quiet_transformers, whole_config

LONGEST_SECONDS = 3.0


@dataclass(frozen=True)
class Answer:
    """What became of one type.

    Attributes:
        kind: the type.
        outcome: "planned", "text inside" (planned for a part of it), "refused", or "failed".
        words: the streams, blocks and width, the refusal, or the error that should not be.
        seconds: of everything, imports of the model's code among them.
    """

    kind: str
    outcome: str
    words: str
    seconds: float


def default_directory(kind: str, directory: Path) -> Path:
    """Write a checkpoint's directory with the default configuration of a type, and weights that are never read."""
    directory.mkdir()
    try:
        with quiet_transformers():
            CONFIG_MAPPING[kind]().save_pretrained(directory)
        told = json.loads((directory / "config.json").read_text())
    except Exception:  # some types have no default: then the name alone is written
        told = {}
    (directory / "config.json").write_text(json.dumps({**told, "model_type": kind}))
    save_file({"nothing": torch.zeros(1)}, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


def planned(kind: str, directory: Path) -> Answer:
    """Plan students of half the depth, and of half the width too, of a type's default configuration."""
    source = str(default_directory(kind, directory))
    begun = time.perf_counter()
    try:
        config = load_config(source)
        streams = model_streams(config)
        blocks = {stream: depth(config, stream) for stream in streams}
        fewer = max(min(blocks.values()) // 2, 1)
        plan_text(plan_distillation(config, teacher=source, strategy="forward", layers=fewer))
        words = f"{config.model_type}: {blocks}, width {width(config)}"
        try:
            half = width(config) // 2
            plan_text(plan_distillation(config, teacher=source, strategy="forward", layers=fewer, width=half))
        except InputError as error:
            words += f"; no narrower student: {error}"
        outcome = "planned" if config.model_type == whole_config(source).model_type else "text inside"
    except InputError as error:
        outcome, words = ("refused", str(error)) if "\n" not in str(error) else ("failed", "a refusal of two lines")
    except Exception as error:
        outcome, words = "failed", f"{type(error).__name__}: {error}"
    seconds = time.perf_counter() - begun
    if seconds > LONGEST_SECONDS and outcome != "failed":
        return Answer(kind, "failed", f"takes {seconds:.1f} s", seconds)
    return Answer(kind, outcome, " ".join(words.split()), seconds)


def main(kinds: list[str]) -> int:
    """Print what becomes of the types; return 1 if one ends in anything but an answer or a refusal."""
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as scratch:
        for number, kind in enumerate(kinds or sorted(CONFIG_MAPPING)):
            answer = planned(kind, Path(scratch) / str(number))
            outcomes[answer.outcome] += 1
            print(f"{answer.outcome:11}  {kind:32}  {answer.words}", flush=True)
    print(dict(outcomes))
    return 1 if outcomes["failed"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
