"""An analysis in short: a row for each student's layer against its chance levels, and what a reader must know."""

from __future__ import annotations

from typing import Any

from anglekit.results.geometry import Geometry

__all__ = ["analysis_notes", "summary_rows"]


def summary_rows(geometry: Geometry) -> list[dict[str, Any]]:
    """Return one row for each student, stream and vertex: pairs pooled, each weighted by its tokens."""
    rows: list[dict[str, Any]] = []
    for (student, stream, vertex), group in geometry.angles.groupby(["student", "stream", "vertex"], sort=False):
        counted = group[group["n_tokens"] > 0]
        weight = counted["n_tokens"] / max(int(counted["n_tokens"].sum()), 1)
        row: dict[str, Any] = {"student": str(student), "stream": str(stream), "vertex": int(str(vertex))}
        for column in (
            "mean_cosine",
            "null_cosine",
            "mean_angle_degrees",
            "acute_fraction",
            "mean_tangential_cosine",
            "mean_tangential_angle_degrees",
        ):
            row[column] = float((counted[column] * weight).sum()) if len(counted) else None
        row.update(_against_permuted(geometry, row))
        obtuse = counted[counted["mean_cosine"] < 0]
        row["pairs"], row["obtuse_pairs"], row["undefined_pairs"] = len(group), len(obtuse), len(group) - len(counted)
        rows.append(row)
    return rows


def _against_permuted(geometry: Geometry, row: dict[str, Any]) -> dict[str, Any]:
    """Return the mean cosine with the student's states of other examples, and the pairs surely above and below it."""
    table = geometry.nulls
    mine = table[
        (table["student"] == row["student"])
        & (table["stream"] == row["stream"])
        & (table["vertex"] == row["vertex"])
        & (table["null"] == "permuted-student")
        & (table["n_tokens"] > 0)
    ]
    known = len(mine) > 0
    return {
        "permuted_cosine": float(mine["mean_cosine"].mean()) if known else None,
        "pairs_above_permuted": int((mine["low"] > 0).sum()) if known else None,
        "pairs_below_permuted": int((mine["high"] < 0).sum()) if known else None,
    }


def analysis_notes(geometry: Geometry) -> list[str]:
    """Return in sentences what was left out, truncated or projected."""
    counts = geometry.counts
    notes = []
    for key, sentence in (
        ("skipped_rows", "rows were left out because a text is missing"),
        ("skipped_examples", "examples were left out because no token of theirs counts"),
        ("examples_used_for_projection", "other examples were used to fit the projection"),
    ):
        if counts.get(key):
            notes.append(f"{counts[key]} {sentence}")
    if counts.get("truncated_examples"):
        notes.append(
            f"{counts['truncated_examples']} examples were truncated to {counts['max_length']} tokens; "
            f"{counts['truncated_tokens']} tokens were lost"
        )
    for student, streams in counts.get("by_student", {}).items():
        for stream, found in streams.items():
            same = [f"{entry['vertex']}={entry['teacher_layer']}" for entry in found["zero_direction"]]
            if same:
                notes.append(
                    f"{student} {stream}: the student's layer coincides with the teacher's ({', '.join(same)}) for "
                    "some tokens; these have no angle and are left out"
                )
            for kind, sentence in (("nonfinite_states", "NaN or infinite"), ("zero_states", "zero")):
                for side, layers in found[kind].items():
                    if layers:
                        listed = ", ".join(f"layer {layer}: {number}" for layer, number in layers.items())
                        notes.append(f"{student} {stream}: {sentence} {side} states were left out ({listed})")
    notes += [
        f"{row['student']} {row['stream']} layer {row['vertex']}: projected by {row['kind']} "
        f"(R² {row['r_squared']:.3f} on teacher layer {row['teacher_layer']})"
        for row in geometry.projections
    ]
    return notes
