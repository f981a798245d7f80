"""Geometries, sweeps and runs with known differences between their strategies, as `compare` reads them."""

from __future__ import annotations

import itertools
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from anglekit.results.columns import COLUMNS
from anglekit.results.geometry import Geometry

FIVE = ("none", "forward", "reverse", "all-to-one", "random")
TEACHER_LAYERS = 4


def make_geometry(
    degrees: Mapping[str, float],
    *,
    inits: Sequence[str | None] = ("random",),
    seeds: Sequence[int | None] = (0,),
    examples: int = 200,
    first_example: int = 0,
    noise: float = 4.0,
    seed_noise: float = 0.0,
    vertices: Sequence[int] = (1, 2),
    streams: Sequence[str] = ("encoder",),
    probe: str = "a" * 64,
    teacher: str = "b" * 64,
    settings: Mapping[str, Any] | None = None,
    obtuse: Sequence[str] = (),
    undefined: Sequence[int] = (),
) -> Geometry:
    """Return a Geometry whose students' angles are `degrees` by strategy.

    Every example has an effect of its own that all students share (10 degrees), and `noise` of each student's own;
    `seed_noise` is one shift for each student. Students in `obtuse` have the pair (0, 3) at a cosine of -0.2, with the
    others raised to keep the mean. `undefined` examples have no angle.
    """
    angles, rows, students = [], [], []
    common = 10.0 * np.random.default_rng(1).normal(size=10_000)
    lengths = np.random.default_rng(2).integers(5, 40, 10_000)
    for strategy, init, seed in itertools.product(degrees, inits, seeds):
        name = "-".join(str(part) for part in (strategy, init, seed) if part is not None)
        rng = np.random.default_rng([zlib.crc32(name.encode()), 7])
        shift = degrees[strategy] + seed_noise * rng.normal()
        record = {"strategy": strategy, "init": init, "seed": seed}
        known = {key: value for key, value in record.items() if init is not None and value is not None}
        students.append({"name": name, "sha256": f"{zlib.crc32(name.encode()):064x}", **known})
        for stream, vertex in itertools.product(streams, vertices):
            key = {"student": name, "stream": stream, "vertex": vertex}
            numbers = np.arange(first_example, first_example + examples)
            cosine = np.cos(np.radians(np.clip(shift + common[numbers] + noise * rng.normal(size=examples), 1, 179)))
            tokens = lengths[numbers]
            cosine[np.isin(numbers, undefined)] = np.nan
            tokens[np.isin(numbers, undefined)] = 0
            rows += [
                {**key, "example": int(e), "mean_cosine": float(c), "mean_angle_degrees": float(d), "n_tokens": int(n)}
                for e, c, d, n in zip(numbers, cosine, np.degrees(np.arccos(cosine)), tokens, strict=True)
            ]
            mean = float(np.nanmean(cosine))
            for i, k in itertools.combinations(range(TEACHER_LAYERS), 2):
                pair = mean
                if strategy in obtuse:
                    pair = -0.2 if (i, k) == (0, TEACHER_LAYERS - 1) else mean + (mean + 0.2) / 5
                angles.append(
                    {**key, "teacher_i": i, "teacher_k": k, **_pair_statistics(pair, int(tokens.sum()), examples)}
                )
    frames = {"angles": angles, "histograms": [], "layers": [], "examples": rows}
    return Geometry(
        **{
            name: pd.DataFrame(table, columns=list(COLUMNS[name])).astype(dict(COLUMNS[name]))
            for name, table in frames.items()
        },
        settings={"reading": "corrected", "final_norm": "excluded", "special_tokens": True, **(settings or {})},
        provenance={
            "teacher": {"name": "teacher", "sha256": teacher},
            "students": students,
            "probe": {"source": "probe.tsv", "sha256": probe, "text": "text", "text_pair": None, "target": None},
        },
        counts={"examples": examples},
    )


def _pair_statistics(cosine: float, tokens: int, examples: int) -> dict[str, float]:
    return {
        "mean_cosine": cosine,
        "std_cosine": 0.1,
        "mean_angle_degrees": float(np.degrees(np.arccos(cosine))),
        "acute_fraction": 0.9 if cosine > 0 else 0.1,
        "mean_tangential_cosine": 0.1,
        "mean_tangential_angle_degrees": 84.3,
        "null_cosine": 0.5,
        "se_cosine": 0.01,
        "n_tokens": tokens,
        "n_examples": examples,
    }


def score_rows(
    scores: Mapping[str, float],
    *,
    inits: Sequence[str] = ("random",),
    seeds: Sequence[int] = (0, 1, 2),
    noise: float = 0.002,
    data: Sequence[str] = ("validation",),
) -> list[dict[str, Any]]:
    """Return the rows of scores.csv: accuracies by strategy, seeds with a common effect and noise of their own."""
    rows = []
    for seed, init, strategy, name in itertools.product(seeds, inits, scores, data):
        own = np.random.default_rng([zlib.crc32(f"{strategy}{init}{seed}{name}".encode()), 3]).normal()
        shared = np.random.default_rng([seed, 5]).normal()
        accuracy = round(scores[strategy] + 0.01 * shared + noise * own, 6)
        row = {"strategy": strategy, "init": init, "seed": seed, "data": name, "examples": 1000, "accuracy": accuracy}
        rows.append({**row, "steps": 100, "selected_step": 100, "seconds": 1.5})
    return rows


def write_sweep(
    directory: Path, rows: Sequence[Mapping[str, Any]], *, tables: Mapping[str, str] | None = None, **content: Any
) -> Path:
    """Write a sweep's directory: sweep.json and scores.csv."""
    directory.mkdir(parents=True, exist_ok=True)
    arms = list(dict.fromkeys((row["strategy"], row["init"], row["seed"]) for row in rows))
    named = [{"name": f"{a}-{b}-seed{c}", "strategy": a, "init": b, "seed": c, "data_seed": 0} for a, b, c in arms]
    hashes = {"train": "1" * 64, "validation": "2" * 64} | dict(tables or {})
    facts = {
        "task": "sst2",
        "tables": {name: {"sha256": sha} for name, sha in hashes.items()},
        "origin_sha256": "c" * 64,
    }
    document = {"format": "anglekit-sweep-1", "arms": named, "data": facts, "warnings": [], **content}
    (directory / "sweep.json").write_text(json.dumps(document))
    pd.DataFrame(rows).to_csv(directory / "scores.csv", index=False)
    return directory


def write_run(directory: Path, strategy: str, accuracy: float, *, seed: int = 0, **config: Any) -> Path:
    """Write the directory of a finished run, as far as `compare` reads it."""
    (directory / "checkpoint").mkdir(parents=True)
    note = {"init": "random", "strategy": strategy, "seed": seed, "teacher": "teacher"}
    scores = [{"data": "validation", "examples": 1000, "accuracy": accuracy}]
    facts = {
        "task": "sst2",
        "settings": {"learning_rate": 1e-5, "data_seed": seed},
        "tables": {"train": {"sha256": "1" * 64}, "validation": {"sha256": "2" * 64}},
        "origin_sha256": "c" * 64,
    }
    (directory / "checkpoint" / "anglekit_student.json").write_text(json.dumps(note))
    (directory / "scores.json").write_text(json.dumps({"format": "anglekit-scores-1", "scores": scores}))
    (directory / "run_config.json").write_text(json.dumps(facts | config))
    return directory
