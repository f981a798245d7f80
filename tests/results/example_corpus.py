"""Runs that kept their examples, as `distill` and `sweep` write them, without training anything."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anglekit.results.example_scores import EXAMPLES_FILE, ExampleScores, write_example_scores


def answers(accuracy: float, number: int, seed: int) -> dict[str, NDArray[Any]]:
    """Return the columns of a classifier of two classes that is right about that often, on a table of that size."""
    target = np.arange(number) % 2
    right = np.random.default_rng(seed).random(number) < accuracy
    return {"prediction": np.where(right, target, 1 - target), "target": target, "accuracy": right.astype(np.int64)}


def keep_examples(run: Path, accuracies: Mapping[str, float], *, number: int = 50, seed: int = 0) -> ExampleScores:
    """Give the run in a directory examples, and scores of them, by model; its own accuracy changes to theirs."""
    content = json.loads((run / "scores.json").read_text()) if (run / "scores.json").exists() else {}
    found = ExampleScores(
        {
            (model, "validation"): answers(accuracy, number, seed + place)
            for place, (model, accuracy) in enumerate(accuracies.items())
        }
    )
    rows = {
        model: [
            {"data": "validation", "examples": number}
            | {name: found.score(model, "validation", name) for name in ("accuracy", "macro_f1")}
        ]
        for model in accuracies
    }
    content |= {"format": "anglekit-scores-1", "scores": rows.pop("student"), **rows}
    content |= {"primary": "accuracy", "chance": {"validation": {"accuracy": 0.5}}}
    run.mkdir(parents=True, exist_ok=True)
    (run / "scores.json").write_text(json.dumps(content))
    write_example_scores(run / EXAMPLES_FILE, found)
    return found
