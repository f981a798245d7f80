"""Geometries with every table, computed in numpy from states drawn at random, and tables of scores."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd

from anglekit.results.columns import COLUMNS, OPTIONAL_COLUMNS
from anglekit.results.geometry import Geometry
from anglekit.results.scores import SCORE_COLUMNS
from anglekit.results.training_records import COST_COLUMNS, LOG_COLUMNS, TrainingRecords
from anglekit.vocabulary import N_BINS

WIDTH = 12
TOKENS = 24
FIVE = ("none", "forward", "reverse", "all-to-one", "random")
SEVEN = ("alone", "none", "random-teacher", "forward", "reverse", "all-to-one", "random")
PLACES = (0.0, 0.5, 1.0, 2.0)


def full_geometry(
    strategies: Sequence[str] = ("none", "forward"),
    inits: Sequence[str] = ("random", "teacher"),
    *,
    teacher_layers: int = 5,
    depth: int = 2,
    streams: Sequence[str] = ("encoder",),
    names: Sequence[str] | None = None,
    without: Sequence[str] = (),
    provenance: dict | None = None,
    seed: int = 0,
) -> Geometry:
    """Return a Geometry of one student per strategy and initialisation; the tables `without` are left empty."""
    rng = np.random.default_rng(seed)
    arms = list(itertools.product(inits, strategies))
    students = list(names) if names is not None else [f"{strategy}-{init}-seed0" for init, strategy in arms]
    tables: dict[str, list[pd.DataFrame]] = {name: [] for name in COLUMNS | OPTIONAL_COLUMNS}
    for stream in streams:
        teacher = np.cumsum(rng.normal(size=(teacher_layers, TOKENS, WIDTH)), axis=0)
        for student in students:
            own = rng.normal(size=(depth + 1, TOKENS, WIDTH)) * 2 + teacher[: depth + 1] * 0.5
            for name, frame in student_tables(teacher, own).items():
                tables[name].append(frame.assign(student=student, stream=stream))
    frames = {}
    for name, columns in (COLUMNS | OPTIONAL_COLUMNS).items():
        if name in without or not tables[name]:
            frames[name] = pd.DataFrame(
                {column: pd.Series(dtype="object" if kind == "str" else kind) for column, kind in columns.items()}
            )
        else:
            frames[name] = pd.concat(tables[name], ignore_index=True).reindex(columns=list(columns))
    entries = [
        {"name": name, "init": init, "strategy": strategy, "seed": 0}
        for name, (init, strategy) in zip(students, arms, strict=True)
    ]
    return Geometry(
        **frames,
        settings={"reading": "corrected"},
        provenance={"students": entries, **(provenance or {})},
        counts={},
    )


def student_tables(teacher: np.ndarray, own: np.ndarray) -> dict[str, pd.DataFrame]:
    """Return the tables of one student: states of shape (layers, tokens, width)."""
    i, k = np.triu_indices(len(teacher), 1)
    angles, nulls, sweep, histograms = [], [], [], []
    for vertex, state in enumerate(own):
        cosine = _cosines(teacher, state)[i, k]
        shuffled = _cosines(teacher, np.roll(state, 1, axis=0))[i, k]
        key = {"vertex": vertex, "teacher_i": i, "teacher_k": k}
        degrees = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
        error = cosine.std(1) / np.sqrt(TOKENS / 4)
        bins, counts = np.unique(((cosine + 1) / 2 * N_BINS).astype(int).clip(0, N_BINS - 1), return_counts=True)
        pooled = {"vertex": vertex, "teacher_i": -1, "teacher_k": -1}
        histograms.append(pd.DataFrame({**pooled, "bin": bins, "count": counts}))
        angles.append(
            pd.DataFrame(
                {
                    **key,
                    "mean_cosine": cosine.mean(1),
                    "std_cosine": cosine.std(1),
                    "mean_angle_degrees": degrees.mean(1),
                    "acute_fraction": (cosine > 0).mean(1),
                    "mean_tangential_cosine": cosine.mean(1) - 0.3,
                    "mean_tangential_angle_degrees": degrees.mean(1) + 20,
                    "null_cosine": 0.4,
                    "se_cosine": error,
                    "n_tokens": TOKENS,
                    "n_examples": TOKENS // 4,
                }
            )
        )
        difference = (cosine - shuffled).mean(1)
        nulls.append(
            pd.DataFrame(
                {
                    **key,
                    "null": "permuted-student",
                    "mean_cosine": shuffled.mean(1),
                    "se": error,
                    "n_tokens": TOKENS,
                    "observed_cosine": cosine.mean(1),
                    "observed_minus_null": difference,
                    "low": difference - 2 * error,
                    "high": difference + 2 * error,
                    "mean_tangential_cosine": 0.0,
                }
            )
        )
        for t in PLACES:
            centre = teacher.mean(0)
            moved = _cosines(teacher, centre + t * (state - centre))[i, k]
            turned = np.degrees(np.arccos(np.clip(moved, -1, 1))).mean(1)
            sweep.append(
                pd.DataFrame(
                    {
                        **key,
                        "t": t,
                        "mean_cosine": moved.mean(1),
                        "se": error,
                        "mean_angle_degrees": turned,
                        "mean_tangential_cosine": moved.mean(1) - 0.3,
                        "mean_tangential_angle_degrees": turned + 20,
                        "n_tokens": TOKENS,
                    }
                )
            )
    tables = {"angles": angles, "histograms": histograms, "nulls": nulls, "vertex_sweep": sweep}
    found = {name: pd.concat(parts) for name, parts in tables.items()}
    return found | _layer_tables(teacher, own)


def _cosines(teacher: np.ndarray, state: np.ndarray) -> np.ndarray:
    """Return cosines at a vertex for all pairs: (layers, layers, tokens)."""
    seen = teacher - state
    seen = seen / np.linalg.norm(seen, axis=2, keepdims=True)
    return np.einsum("itd,ktd->ikt", seen, seen)


def _layer_tables(teacher: np.ndarray, own: np.ndarray) -> dict[str, pd.DataFrame]:
    sides = {"teacher": teacher, "student": own}
    layers, anisotropy, dimensions = [], [], []
    for a, b in (("teacher", "teacher"), ("teacher", "student"), ("student", "student")):
        for m, n in itertools.product(range(len(sides[a])), range(len(sides[b]))):
            if a == b and m > n:
                continue
            x, y = sides[a][m], sides[b][n]
            lengths = np.linalg.norm(x, axis=1), np.linalg.norm(y, axis=1)
            layers.append(
                {
                    "side_a": a,
                    "layer_a": m,
                    "side_b": b,
                    "layer_b": n,
                    "mean_cosine": ((x * y).sum(1) / lengths[0] / lengths[1]).mean(),
                    "centred_cosine": 0.5,
                    "mean_distance": np.sqrt(((x - y) ** 2).sum(1).mean()),
                    "cka": 1.0 if a == b and m == n else 1 / (1 + abs(m - n)),
                    "cka_se": 0.02,
                    "cka_null": np.nan if a == b and m == n else 0.0,
                    "cka_p": np.nan if a == b and m == n else 0.005,
                    "cka_p_adjusted": np.nan if a == b and m == n else 0.3 if abs(m - n) > 2 else 0.005,
                    "mean_norm": lengths[0].mean() if a == b and m == n else np.nan,
                }
            )
    for side, states in sides.items():
        for layer, x in enumerate(states):
            unit = x / np.linalg.norm(x, axis=1, keepdims=True)
            added = (unit.sum(0) ** 2 - (unit**2).sum(0)) / (TOKENS * (TOKENS - 1))
            place = {"side": side, "layer": layer}
            anisotropy += [
                {
                    **place,
                    "tokens": "all",
                    "view": view,
                    "mean_cosine": cosine,
                    "se": 0.05,
                    "top_dimension": int(np.abs(added).argmax()),
                    "top_share": 0.2,
                    "n_tokens": TOKENS,
                }
                for view, cosine in (("raw", added.sum()), ("centred", 0.0))
            ]
            dimensions += [{**place, "dimension": d, "share": added[d] / added.sum()} for d in range(WIDTH)]
    return {
        "layers": pd.DataFrame(layers),
        "anisotropy": pd.DataFrame(anisotropy),
        "dimensions": pd.DataFrame(dimensions),
    }


def score_table(
    strategies: Sequence[str] = FIVE,
    inits: Sequence[str] = ("random", "teacher"),
    *,
    seeds: int = 3,
    scale: float = 1.0,
    score: str = "accuracy",
    rng_seed: int = 0,
) -> pd.DataFrame:
    """Return scores of every arm: strategies 0.02 apart, seeds about 0.005."""
    rng = np.random.default_rng(rng_seed)
    rows = [
        (
            strategy,
            init,
            seed,
            "validation",
            score,
            scale * (0.6 + 0.02 * rank + 0.1 * (init == "teacher") + rng.normal(0, 0.005)),
            "made",
        )
        for (rank, strategy), init, seed in itertools.product(enumerate(strategies), inits, range(seeds))
    ]
    return pd.DataFrame(rows, columns=list(SCORE_COLUMNS))


def training_records(strategies: Sequence[str] = FIVE, inits: Sequence[str] = ("random", "teacher")) -> TrainingRecords:
    """Return logs and costs of every arm of `score_table`, and the teacher's score: losses fall, scores rise."""
    log, costs = [], []
    for (rank, strategy), init, seed in itertools.product(enumerate(strategies), inits, range(3)):
        arm = (strategy, init, seed)
        for step in (10, 20, 30):
            terms = {"weighted sum": 3.0, "ce": 1.0, "hidden": 2.0 + rank}
            log += [(*arm, step, "loss", name, size / step + 0.01 * seed) for name, size in terms.items()]
            log.append((*arm, step, "validation", "accuracy", 0.5 + step / 100 + 0.01 * rank + 0.001 * seed))
        for model, parameters, time in (("teacher", 4_000_000, 8.0), ("student", 1_000_000, 2.0)):
            costs.append((*arm, model, parameters, time, 0.9 * time, 1.5 * time, 16, 320, "cpu"))
    level = {("validation", "accuracy"): 0.9}
    frames = (pd.DataFrame(log, columns=list(LOG_COLUMNS)), pd.DataFrame(costs, columns=list(COST_COLUMNS)))
    return TrainingRecords(*frames, teacher=level, chance={("validation", "accuracy"): 0.5})
