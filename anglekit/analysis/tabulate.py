"""From a measurement to a Geometry: pure, without the models."""

from __future__ import annotations

from typing import Any

from anglekit.analysis.fitted_projections import explained_variance
from anglekit.analysis.measurement import Measurement
from anglekit.analysis.spec import Subject
from anglekit.analysis.tables_of_sample import layer_cka, sample_rows
from anglekit.analysis.tables_of_sums import angle_rows, degenerate_counts, example_rows, histogram_rows, layer_rows
from anglekit.errors import RunError
from anglekit.results.geometry import Geometry
from anglekit.results.rows import Rows, data_frame

__all__ = ["tabulate"]


def tabulate(subject: Subject, measurement: Measurement) -> Geometry:
    """Return what a measurement says, of the whole probe or of a part of it.

    Raises:
        RunError: the measurement is of the whole probe and no angle of a student is left.
    """
    if measurement.n_batches == subject.n_batches:
        _check_finite(subject, measurement)
    cka = {stream: layer_cka(subject, measurement, stream) for stream in subject.layers}

    rows: dict[str, list[Rows]] = {"angles": [], "histograms": [], "layers": [], "examples": []}
    for stream, position in subject.keys:
        chosen = subject.layers[stream]
        sums, vertices = measurement.sums[stream, position], chosen.students[position]
        labels = (subject.names[position], stream, vertices)
        rows["angles"].append(angle_rows(sums, *labels, chosen.teacher))
        rows["histograms"].append(histogram_rows(sums, *labels, chosen.teacher))
        rows["layers"] += layer_rows(sums, *labels, chosen.teacher, cka[stream][0][position])
        rows["examples"].append(example_rows(sums, *labels))
    sampled_rows, sampled = sample_rows(subject, measurement)
    return Geometry(
        **{table: data_frame(parts) for table, parts in (rows | sampled_rows).items()},
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
