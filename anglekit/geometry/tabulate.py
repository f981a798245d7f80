"""From a measurement to a Geometry: pure, without the models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd

from anglekit.errors import RunError
from anglekit.geometry.measurement import Measurement
from anglekit.geometry.projected import explained_variance
from anglekit.geometry.results import Geometry
from anglekit.geometry.sample_summary import layer_cka, sample_tables
from anglekit.geometry.subject import Subject
from anglekit.geometry.summary import (
    angle_table,
    degenerate_counts,
    example_table,
    histogram_table,
    layer_table,
)

__all__ = ["tabulate"]


def tabulate(subject: Subject, measurement: Measurement) -> Geometry:
    """Return what a measurement says, of the whole probe or of a part of it.

    Raises:
        RunError: the measurement is of the whole probe and no angle of a student is left.
    """
    if measurement.n_batches == subject.n_batches:
        _check_finite(subject, measurement)
    cka = {stream: layer_cka(subject, measurement, stream) for stream in subject.layers}

    def table(make: Callable[..., pd.DataFrame], *, with_teacher: bool = True) -> pd.DataFrame:
        frames = []
        for stream, position in subject.keys:
            chosen = subject.layers[stream]
            labels = [chosen.students[position], *([chosen.teacher] if with_teacher else [])]
            more = [cka[stream][0][position]] if make is layer_table else []
            frames.append(make(measurement.sums[stream, position], subject.names[position], stream, *labels, *more))
        return pd.concat(frames, ignore_index=True)

    tables, sampled = sample_tables(subject, measurement)
    return Geometry(
        angles=table(angle_table),
        histograms=table(histogram_table),
        layers=table(layer_table),
        examples=table(example_table, with_teacher=False),
        settings=subject.described["settings"],
        provenance=subject.described["provenance"],
        counts={
            "examples": measurement.n_examples,
            **subject.described["counts"],
            "cka_examples": {stream: n for stream, (_, n) in cka.items()},
            "by_student": _degenerate(subject, measurement),
            "sample": sampled,
        },
        projections=explained_variance(subject, measurement.sums),
        sketch_tokens=[
            {"student": name, "stream": stream, **measurement.sketches[stream, position]}
            for stream in subject.layers
            for position, name in enumerate(subject.names)
            if (stream, position) in measurement.sketches
        ],
        **tables,
    )


def _degenerate(subject: Subject, measurement: Measurement) -> dict[str, dict[str, Any]]:
    return {
        name: {
            stream: degenerate_counts(measurement.sums[stream, position], chosen.students[position], chosen.teacher)
            for stream, chosen in subject.layers.items()
        }
        for position, name in enumerate(subject.names)
    }


def _check_finite(subject: Subject, measurement: Measurement) -> None:
    for stream, position in subject.keys:
        sums = measurement.sums[stream, position]
        if int(sums.angles.count.sum()) == 0:
            raise RunError(
                f"no angle is left for student {subject.names[position]} in the {stream}: of {int(sums.n_tokens)} "
                f"tokens {int(sums.n_complete)} have finite states at every layer; look at the weights and the "
                "precision (--dtype float32)"
            )
