"""From a measurement's samples to the tables that rest on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anglekit.geometry.cka import debiased_cka
from anglekit.geometry.measurement import Measurement
from anglekit.geometry.sample_rows import SampledTokens, null_rows, similarity_rows, sweep_rows
from anglekit.geometry.sample_views import token_views, view_rows
from anglekit.geometry.subject import Subject
from anglekit.geometry.table_rows import Rows
from anglekit.geometry.vocabulary import DEFAULT_NULLS, NULLS
from anglekit.streams import Stream

__all__ = ["layer_cka", "sample_rows"]


def sample_rows(subject: Subject, measurement: Measurement) -> tuple[dict[str, list[Rows]], dict[str, Any]]:
    """Return the rows that rest on the sample by table, and how many examples it holds and lacks by student and stream.

    A table that would be empty is left out.
    """
    tables: dict[str, list[Rows]] = {}
    counts: dict[str, Any] = {}
    for position, name in enumerate(subject.names):
        for stream in subject.layers:
            found, left_out = _stream_rows(subject, measurement, stream, position)
            for table, rows in found:
                if rows:
                    tables.setdefault(table, []).extend(rows)
            sample = measurement.samples[stream]
            counts.setdefault(name, {})[stream] = {"examples": len(sample), "nonfinite": left_out}
    return tables, counts


def layer_cka(subject: Subject, measurement: Measurement, stream: Stream) -> tuple[list[Tensor | None], int]:
    """Return the debiased CKA of example means by student, over teacher and student layers, and the examples."""
    n_students, sample = len(subject.names), measurement.samples[stream]
    chosen = subject.layers[stream]
    n = len(chosen.teacher)
    starts = np.cumsum([n, *(len(vertices) for vertices in chosen.students)])
    parts = [
        [*range(n), *range(start, start + len(vertices))]
        for start, vertices in zip(starts, chosen.students, strict=False)
    ]
    cross = measurement.cross.get(stream)
    if cross is not None and int(cross.n):
        whole = cross.cka()
        return [whole[part][:, part] for part in parts], int(cross.n)
    if subject.settings.similarity == "none" or not len(sample):
        return [None] * n_students, 0
    _, sides = sample.tokens("mean")
    finite = _finite_tokens(sides)
    if bool(finite.all()):
        whole = debiased_cka([layer for side in sides for layer in side])
        return [whole[part][:, part] for part in parts], len(finite)
    # An example that one student cannot give must not be missing from the others' numbers.
    results: list[Tensor | None] = []
    for position in range(n_students):
        tokens, _, _ = _tokens(subject, measurement, stream, position, "mean")
        results.append(debiased_cka([*tokens.teacher, *tokens.own]))
    return results, int(finite.sum())


def _tokens(
    subject: Subject,
    measurement: Measurement,
    stream: Stream,
    position: int,
    kind: str,
    most: int | None = None,
    fresh: Tensor | None = None,
) -> tuple[SampledTokens, Tensor | None, int]:
    """Return a student's tokens of a kind, finite at every layer, and how many were left out.

    Args:
        subject: what was looked at.
        measurement: its samples are not empty.
        stream: which.
        position: which student.
        kind: as in `TokenSample.tokens`.
        most: take no more than the first so many.
        fresh: states that follow the same choice, of all tokens of that kind, shape (vertices, tokens, width).
    """
    _, sides = measurement.samples[stream].tokens(kind)
    states = [sides[0], sides[position + 1], *([] if fresh is None else [fresh])]
    if most is not None:
        states = [side[:, :most] for side in states]
    finite = _finite_tokens(states)
    left_out = int(len(finite) - finite.sum())
    if left_out:
        states = [side[:, finite] for side in states]
    chosen, projections = subject.layers[stream], subject.projections[stream, position]
    tokens = SampledTokens(
        subject.names[position],
        stream,
        chosen.teacher,
        chosen.students[position],
        states[0],
        states[1],
        None if projections is None else [matrix.to(states[1].device) for matrix in projections],
        subject.epsilon,
    )
    return tokens, states[2] if fresh is not None else None, left_out


def _stream_rows(
    subject: Subject, measurement: Measurement, stream: Stream, position: int
) -> tuple[list[tuple[str, list[Rows]]], int]:
    found, left_out = list[tuple[str, list[Rows]]](), 0
    if not len(measurement.samples[stream]):
        return found, left_out
    which = (subject, measurement, stream, position)
    effort, seed = subject.settings.nulls, subject.settings.seed
    if effort != "none":
        tokens, _, left_out = _tokens(*which, "all")
        if (stream, position) in measurement.fresh:
            # The untrained student must be finite too, for its own null only.
            fresh = measurement.fresh[stream, position].tokens("all")[1][0]
            both, finite_fresh, _ = _tokens(*which, "all", fresh=fresh)
            found.append(("nulls", null_rows(both, ["fresh-student"], seed, finite_fresh)))
        names = tuple(NULLS) if effort == "all" else DEFAULT_NULLS
        found.append(("nulls", null_rows(tokens, names, seed)))
        found.append(("vertex_sweep", sweep_rows(tokens)))
        for kind in ("all", "content", "special"):
            most = None if effort == "all" else subject.viewed
            some, _, _ = _tokens(*which, kind, most=most)
            if some.n_tokens < 2:  # no token of another example to compare with
                continue
            rows = view_rows(some, kind, token_views(kind, effort))
            found += [("anisotropy", rows.anisotropy), ("angle_views", rows.angle_views)]
            if kind == "all":
                found.append(("dimensions", rows.dimensions))
    if subject.settings.similarity == "all":
        for states, kind in (("example-mean", "mean"), ("token", "all")):
            tokens, _, _ = _tokens(*which, kind)
            if tokens.n_tokens:
                found.append(("similarity", [similarity_rows(tokens, states)]))
    return found, left_out


def _finite_tokens(sides: Sequence[Tensor]) -> Tensor:
    """Return which tokens are finite at every layer of every side, bool (tokens,).

    A layer that is broken at more than half of the tokens takes no part: the other layers' numbers stand without it.
    """
    finite = torch.cat([torch.linalg.vector_norm(side, dim=-1) for side in sides]).isfinite()
    if bool(finite.all()):
        return finite[0]
    whole = 2 * finite.sum(1) >= finite.shape[1]
    return finite[whole].all(0)
