"""Synthetic geometries: real states drawn at random and measured in float64, in the frames of an analysis."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from anglekit.results.columns import COLUMNS
from anglekit.results.geometry import Geometry
from anglekit.vocabulary import N_BINS

WIDTH = 24


def _teacher(layers: int, tokens: int, rng: np.random.Generator) -> np.ndarray:
    """States that drift from layer to layer, as a residual stream does: (layers, tokens, width)."""
    start = rng.normal(size=(1, tokens, WIDTH))
    steps = rng.normal(size=(layers - 1, tokens, WIDTH)) * (1.6 / np.sqrt(layers))
    return np.concatenate([start, start + np.cumsum(steps, axis=0)])


def _student(init: str | None, teacher: np.ndarray, depth: int, rng: np.random.Generator) -> np.ndarray:
    tokens = teacher.shape[1]
    if init == "teacher":
        picks = np.linspace(0, len(teacher) - 1, depth + 1).round().astype(int)
        states = teacher[picks] + 0.9 * rng.normal(size=(depth + 1, tokens, WIDTH))
        states[0] = teacher[0]  # copied embeddings: the pair (0, k) has no angle at vertex 0
        return states
    scale = 1.4 if init == "random" else 0.7
    return scale * rng.normal(size=(depth + 1, tokens, WIDTH))


def _sketch(student: str, stream: str, vertex: int, pair: tuple[int, int], states, seen, token: str) -> dict:
    a, b = states[pair[0], 0] - seen[0], states[pair[1], 0] - seen[0]
    first = a / np.linalg.norm(a)
    rest = b - (b @ first) * first
    second = rest / np.linalg.norm(rest)
    points = [
        [layer, float((t[0] - seen[0]) @ first), float((t[0] - seen[0]) @ second)] for layer, t in enumerate(states)
    ]
    return {
        "student": student,
        "stream": stream,
        "vertex": vertex,
        "teacher_i": pair[0],
        "teacher_k": pair[1],
        "example": 12,
        "token": token,
        "distance_i": float(np.linalg.norm(a)),
        "distance_k": float(np.linalg.norm(b)),
        "cosine": float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)),
        "points": points,
    }


def build_geometry(
    students: Mapping[str, str | None] | None = None,
    *,
    teacher_layers: int = 13,
    student_depth: int = 3,
    streams: Sequence[str] = ("encoder",),
    tokens: int = 300,
    token: str = "great",
    reading: str = "corrected",
    sketch: bool = True,
    seed: int = 0,
) -> Geometry:
    """Return a Geometry of students (name -> initialisation) with valid frames."""
    students = {"random-forward": "random", "teacher-forward": "teacher"} if students is None else students
    rng = np.random.default_rng(seed)
    angles, histograms, sketches = [], [], []
    for stream in streams:
        teacher = _teacher(teacher_layers, tokens, rng)
        pairs = list(itertools.combinations(range(teacher_layers), 2))
        vertices = range(student_depth + 1)
        if reading == "official":
            pairs, vertices = [(1, teacher_layers - 1)], [1]
        for name, init in students.items():
            states = _student(init, teacher, student_depth, rng)
            if sketch:
                pair = (min(1, teacher_layers - 2), teacher_layers - 1)
                sketches.append(_sketch(name, stream, 1, pair, teacher, states[1], token))
            for vertex in vertices:
                seen = teacher - states[vertex]
                lengths = np.linalg.norm(seen, axis=2)
                pooled = np.zeros(N_BINS, dtype=np.int64)
                for i, k in pairs:
                    finite = (lengths[i] > 0) & (lengths[k] > 0)
                    cosine = np.clip((seen[i] * seen[k]).sum(1)[finite] / (lengths[i] * lengths[k])[finite], -1, 1)
                    bins = np.minimum(((cosine + 1) / 2 * N_BINS).astype(int), N_BINS - 1)
                    counts = np.bincount(bins, minlength=N_BINS)
                    pooled += counts
                    key = {"student": name, "stream": stream, "vertex": vertex, "teacher_i": i, "teacher_k": k}
                    angles.append({**key, **_statistics(cosine, states[vertex], teacher[[i, k]])})
                    histograms += [{**key, "bin": b, "count": int(counts[b])} for b in np.flatnonzero(counts)]
                key = {"student": name, "stream": stream, "vertex": vertex, "teacher_i": -1, "teacher_k": -1}
                histograms += [{**key, "bin": b, "count": int(pooled[b])} for b in np.flatnonzero(pooled)]
    frames = {
        "angles": angles,
        "histograms": histograms,
        "layers": [],
        "examples": [],
    }
    return Geometry(
        **{
            name: pd.DataFrame(rows, columns=list(COLUMNS[name])).astype(dict(COLUMNS[name]))
            for name, rows in frames.items()
        },
        settings={"reading": reading},
        provenance={"students": [{"name": name, "init": init} for name, init in students.items()]},
        counts={"tokens": tokens},
        sketch_tokens=sketches,
    )


def _statistics(cosine: np.ndarray, student: np.ndarray, pair: np.ndarray) -> dict[str, float]:
    if not len(cosine):
        nothing = dict.fromkeys([c for c, kind in COLUMNS["angles"].items() if kind == "float64"], float("nan"))
        return {**nothing, "n_tokens": 0, "n_examples": 0}
    own, theirs = (student**2).sum(1).mean(), (pair**2).sum(2).mean()
    return {
        "mean_cosine": cosine.mean(),
        "std_cosine": cosine.std(),
        "mean_angle_degrees": np.degrees(np.arccos(cosine)).mean(),
        "acute_fraction": (cosine > 0).mean(),
        "mean_tangential_cosine": cosine.mean() - 0.6,
        "mean_tangential_angle_degrees": np.degrees(np.arccos(np.clip(cosine - 0.6, -1, 1))).mean(),
        "null_cosine": own / (own + theirs),
        "se_cosine": cosine.std() / np.sqrt(len(cosine)),
        "n_tokens": len(cosine),
        "n_examples": max(len(cosine) // 10, 1),
    }


@pytest.fixture(scope="session")
def make_geometry():
    return build_geometry


@pytest.fixture(scope="session")
def geometry() -> Geometry:
    return build_geometry()


def _drawn_texts(figure: Figure) -> list[Text]:
    figure.draw_without_rendering()
    beyond = set()  # matplotlib keeps ticks outside the limits without drawing them
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = axis.get_major_ticks()
            hidden = [tick for tick in ticks if not low - 1e-9 <= tick.get_loc() <= high + 1e-9]
            beyond |= {label for tick in hidden for label in (tick.label1, tick.label2)}
    texts = figure.findobj(Text)
    return [text for text in texts if text.get_visible() and text.get_text().strip() and text not in beyond]


def check_readable(figure: Figure) -> list[str]:
    """Return what a reader would trip over: text outside the figure, text on text, text under 7 points."""
    edges = figure.bbox
    boxes = [(text.get_text(), text.get_window_extent()) for text in _drawn_texts(figure)]
    faults = [f"small: {t.get_text()!r}" for t in _drawn_texts(figure) if t.get_fontsize() < 7]
    for text, box in boxes:
        if box.x0 < edges.x0 or box.y0 < edges.y0 or box.x1 > edges.x1 or box.y1 > edges.y1:
            faults.append(f"outside: {text!r}")
    for (text, box), (other, other_box) in itertools.combinations(boxes, 2):
        across = min(box.x1, other_box.x1) - max(box.x0, other_box.x0)
        along = min(box.y1, other_box.y1) - max(box.y0, other_box.y0)
        if across > 0.5 and along > 0.5:
            faults.append(f"overlap: {text!r} and {other!r}")
    return faults


@pytest.fixture(scope="session")
def faults_of():
    return check_readable
