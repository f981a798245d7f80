"""An analysis in short: a row for each student layer beside its chance levels, and what a reader must know."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

import numpy as np
import pandas as pd

from anglekit.display.counts import counted
from anglekit.display.tables import TextTable
from anglekit.results.document import GeometryDocument
from anglekit.results.joint_intervals import with_joint_intervals


def pair_mean(rows: pd.DataFrame, column: str) -> float:
    """Return the mean of a column over the pairs of teacher layers that have a value, each weighing the same; or NaN.

    Of `mean_angle_degrees` at one layer of one student this is the angle there: the mean over tokens and pairs.
    """
    values = rows[column].to_numpy(np.float64)
    known = np.isfinite(values) & (rows["n_tokens"].to_numpy(np.float64) > 0)
    return float(values[known].mean()) if known.any() else float("nan")


_MEANS: Final = (
    *("mean_cosine", "null_cosine", "mean_angle_degrees", "acute_fraction"),
    *("mean_tangential_cosine", "mean_tangential_angle_degrees"),
)


def layer_means(pairs: pd.DataFrame) -> dict[str, Any]:
    """Summarise the pairs of teacher layers, rows of `Geometry.angles`, at one layer of a student.

    Returns:
        The means of the columns, each pair weighing the same, or None without any token; the number of `pairs`, of
        `obtuse_pairs` (a mean cosine below 0) and of `undefined_pairs` (without a token).
    """
    counted = pairs[pairs["n_tokens"] > 0]
    means = {column: pair_mean(counted, column) if len(counted) else None for column in _MEANS}
    obtuse = int((counted["mean_cosine"] < 0).sum())
    return {**means, "pairs": len(pairs), "obtuse_pairs": obtuse, "undefined_pairs": len(pairs) - len(counted)}


def summary_rows(angles: pd.DataFrame, nulls: pd.DataFrame) -> list[dict[str, Any]]:
    """Return `layer_means` for each student, stream and vertex, beside the means of the permuted student."""
    rows, nulls = [], with_joint_intervals(nulls[nulls["null"] == "permuted-student"])
    for (student, stream, vertex), group in angles.groupby(["student", "stream", "vertex"], sort=False):
        place = {"student": str(student), "stream": str(stream), "vertex": int(str(vertex))}
        rows.append({**place, **layer_means(group), **_against_permuted(nulls, place)})
    return rows


def _against_permuted(nulls: pd.DataFrame, place: dict[str, Any]) -> dict[str, Any]:
    """Return the mean cosine with the student's states of other examples, and the pairs surely above and below it.

    `nulls` are the rows of the permuted student, with joint intervals.
    """
    mine = nulls[
        (nulls["student"] == place["student"])
        & (nulls["stream"] == place["stream"])
        & (nulls["vertex"] == place["vertex"])
        & (nulls["n_tokens"] > 0)
    ]
    known = len(mine) > 0
    return {
        "permuted_cosine": float(mine["mean_cosine"].mean()) if known else None,
        "pairs_above_permuted": int((mine["joint_low"] > 0).sum()) if known else None,
        "pairs_below_permuted": int((mine["joint_high"] < 0).sum()) if known else None,
    }


# Name on a page, name in a terminal, key in `summary_rows`, and the format of a value.
_COLUMNS: Final[tuple[tuple[str, str, str, Callable[[Any], str]], ...]] = (
    ("layer", "layer", "vertex", str),
    ("angle", "angle", "mean_angle_degrees", "{:.1f}°".format),
    ("cosine", "cosine", "mean_cosine", "{:z.3f}".format),
    ("chance cosine", "chance", "null_cosine", "{:z.3f}".format),
    ("acute", "acute", "acute_fraction", "{:.1%}".format),
    ("tangential cosine", "tangential", "mean_tangential_cosine", "{:z.3f}".format),
    ("permuted cosine", "permuted", "permuted_cosine", "{:z.3f}".format),
    ("pairs above", "above", "pairs_above_permuted", str),
    ("pairs below", "below", "pairs_below_permuted", str),
    ("obtuse pairs", "obtuse", "obtuse_pairs", str),
)
_NOTE: Final = (
    "Means over tokens and pairs of teacher layers. Chance: unrelated vectors of the same lengths. Tangential: the "
    "student's own direction taken out; 0 for unrelated vectors. Permuted: the student's state of another example; "
    "above and below count pairs surely on either side of it (95% for all pairs, layers and students together). "
    "Layer 0 is the embedding output, layer b + 1 the output of block b."
)


def layer_table(
    rows: Sequence[Mapping[str, Any]], title: str = "Angles by student and layer", *, short: bool = False
) -> TextTable:
    """Return rows of `summary_rows` as texts; unknown values are blank, and `short` names fit a terminal's width."""

    def shown(value: Any, form: Callable[[Any], str]) -> str:  # noqa: ANN401 - a cell of any column
        return "" if value is None or (isinstance(value, float) and not math.isfinite(value)) else form(value)

    names = ("student", "stream", *(brief if short else name for name, brief, _, _ in _COLUMNS))
    texts = tuple(
        (row["student"], row["stream"], *(shown(row[key], form) for _, _, key, form in _COLUMNS)) for row in rows
    )
    return TextTable(title, names, texts, frozenset(range(2, len(names))), _NOTE)


def analysis_notes(document: GeometryDocument) -> list[str]:
    """Return in sentences what was left out, truncated or projected."""
    counts = document.counts
    notes = [
        f"{counted(number, thing)} {'was' if number == 1 else 'were'} {sentence}"
        for number, thing, sentence in (
            (counts.skipped_rows, "row", "left out because a text is missing"),
            (counts.unlike_examples, "example", "left out because teacher and students read other tokens there"),
            (counts.skipped_examples, "example", "left out because no token of theirs counts"),
            (counts.examples_used_for_projection, "other example", "used to fit the projection"),
        )
        if number
    ]
    repeats = (counts.examples or 0) - (counts.distinct_texts or counts.examples or 0)
    if repeats > 0 and document.provenance.shard is None:
        notes.append(
            f"{repeats} of {counts.examples} examples repeat the text of another: standard errors count each text "
            "once, and the samples hold it once"
        )
    if counts.truncated_examples:
        notes.append(
            f"{counted(counts.truncated_examples, 'example')} truncated to {counted(counts.max_length or 0, 'token')}; "
            f"{counted(counts.truncated_tokens or 0, 'token')} lost"
        )
    models = (document.provenance.teacher, *document.provenance.students)
    notes += [
        f"{student.name} has {blocks} blocks in its {stream} and its teacher {of}: if it is the teacher, name it first"
        for student in document.provenance.students
        for stream, blocks in student.depth.items()
        if blocks > (of := document.provenance.teacher.depth.get(stream, blocks))
    ]
    padding = [model.name for model in models if model.batching == "equal lengths"]
    if padding:
        notes.append(f"the states of {', '.join(padding)} depend on padding: batches were of texts of one length")
    company = [model.name for model in models if model.batching == "alone"]
    if company:
        notes.append(f"the states of {', '.join(company)} depend on the batch's other texts: each text was read alone")
    notes += [f"{model.name} was read as {model.adapter}" for model in models if model.adapter]
    notes += [
        f"the weights of {model.name} were quantised: {model.quantization}" for model in models if model.quantization
    ]
    notes += [f"{model.name} stores more than its model: {model.left_out}" for model in models if model.left_out]
    for reason in sorted({model.unchecked for model in models if model.unchecked}):
        names = ", ".join(model.name for model in models if model.unchecked == reason)
        notes.append(f"what the blocks of {names} hand over was not checked: {reason}")
    for student, streams in counts.by_student.items():
        for stream, found in streams.items():
            same = [f"{one.vertex}={one.teacher_layer}" for one in found.zero_direction]
            if same:
                notes.append(
                    f"{student} {stream}: the student's layer coincides with the teacher's ({', '.join(same)}) for "
                    "some tokens; these have no angle and are left out"
                )
            for states, kind in ((found.nonfinite_states, "NaN or infinite"), (found.zero_states, "zero")):
                for side, layers in states.items():
                    if layers:
                        listed = ", ".join(f"layer {layer}: {number}" for layer, number in layers.items())
                        notes.append(f"{student} {stream}: {kind} {side} states were left out ({listed})")
    notes += [
        f"{one.student} {one.stream} layer {one.vertex}: projected by {one.kind} "
        f"(R² {one.r_squared:.3f} on teacher layer {one.teacher_layer})"
        for one in document.projections
    ]
    return notes


# Of the squared distance of two layers, the share that rounding makes up before they are called as near as rounding.
_ROUNDED_SHARE: Final = 0.25


def resolution_notes(document: GeometryDocument, layers: pd.DataFrame) -> list[str]:
    """Return in sentences how finely states of half precision are known, and which layers are too near for that.

    Args:
        document: of the Geometry.
        layers: its table of that name.
    """
    told = document.provenance
    if told.state_rounding is None or told.cosine_resolution is None:
        return []
    notes = [
        f"states were computed in {told.dtype}: rounding alone moves the cosine of two states by "
        f"{told.cosine_resolution:.1g}, and that of directions as much more as they are shorter than the states"
    ]
    teacher = layers[(layers["side_a"] == "teacher") & (layers["side_b"] == "teacher")]
    for stream, rows in teacher.drop_duplicates(["stream", "layer_a", "layer_b"]).groupby("stream", sort=False):
        same = rows["layer_a"] == rows["layer_b"]
        norms = rows[same].set_index("layer_a")["mean_norm"]
        distances = rows[~same].set_index(["layer_a", "layer_b"])["mean_distance"]
        near = [
            f"{below} and {above}"
            for below, above in pairwise(sorted(norms.index))
            if (below, above) in distances.index
            and _ROUNDED_SHARE * distances[below, above] ** 2
            < told.state_rounding**2 * (norms[below] ** 2 + norms[above] ** 2)
        ]
        if near:
            notes.append(
                f"{stream}: the teacher's layers {', '.join(near)} are as near to each other as {told.dtype} rounds "
                "their states: read them in float32"
            )
    return notes
