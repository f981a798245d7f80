"""What a run writes down about itself: what decides its result, and where everything came from."""

from __future__ import annotations

import importlib.metadata
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from anglekit.distillation.settings import TrainSettings
from anglekit.distillation.tasks.prepared_data import PreparedData

__all__ = ["SCORES_FORMAT", "now", "run_config", "run_provenance"]

_CONFIG_FORMAT = "anglekit-run-1"
SCORES_FORMAT = "anglekit-scores-1"


def run_config(
    kind: str, data: PreparedData, settings: TrainSettings, seed: int, origin: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what decides the run's result; the part named "incidental" does not."""
    return {
        "format": _CONFIG_FORMAT,
        "kind": kind,
        "task": data.task.name,
        **data.task.facts(),
        "max_length": data.max_length,
        "seed": seed,
        "settings": settings.decisive(),
        "tables": {
            name: {what: value for what, value in one.items() if what not in ("source", "examples")}
            for name, one in data.sources.items()
        },
        "origin_sha256": origin["sha256_with_head"],
        "incidental": {name: value for name, value in asdict(settings).items() if name not in settings.decisive()},
    }


def run_provenance(
    data: PreparedData,
    settings: TrainSettings,
    seed: int,
    origin: Mapping[str, Any],
    note: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Return versions, data and model hashes, seeds, and when the run began."""
    names = ("anglekit", "torch", "transformers", "accelerate", "tokenizers", "numpy")
    return {
        "versions": {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in names},
        "platform": platform.platform(),
        "precision": settings.precision,
        "data": {name: dict(one) for name, one in data.sources.items()},
        "examples_at_the_length_limit": data.train.at_limit(data.max_length),
        "origin": dict(origin),
        "seed": seed,
        "data_seed": settings.data_seed,
        **{key: note[key] for key in ("init", "strategy") if note is not None},
        "begun": now(),
    }


def now() -> str:
    """Return the time in UTC, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
