"""The tables of a Geometry: their columns and types."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["ADDED_COLUMNS", "COLUMNS", "OPTIONAL_COLUMNS"]

_INTEGER = "int64"
_FLOAT = "float64"

#: The tables of a Geometry, their columns and types.
COLUMNS: dict[str, Mapping[str, str]] = {
    "angles": {
        "student": "str",
        "stream": "str",
        "vertex": _INTEGER,
        "teacher_i": _INTEGER,
        "teacher_k": _INTEGER,
        "mean_cosine": _FLOAT,
        "std_cosine": _FLOAT,
        "mean_angle_degrees": _FLOAT,
        "acute_fraction": _FLOAT,
        "mean_tangential_cosine": _FLOAT,
        "mean_tangential_angle_degrees": _FLOAT,
        "null_cosine": _FLOAT,
        "se_cosine": _FLOAT,
        "n_tokens": _INTEGER,
        "n_examples": _INTEGER,
    },
    "histograms": {
        "student": "str",
        "stream": "str",
        "vertex": _INTEGER,
        "teacher_i": _INTEGER,
        "teacher_k": _INTEGER,
        "bin": _INTEGER,
        "count": _INTEGER,
    },
    "layers": {
        "student": "str",
        "stream": "str",
        "side_a": "str",
        "layer_a": _INTEGER,
        "side_b": "str",
        "layer_b": _INTEGER,
        "mean_cosine": _FLOAT,
        "centred_cosine": _FLOAT,
        "mean_distance": _FLOAT,
        "cka": _FLOAT,
        "mean_norm": _FLOAT,
    },
    "examples": {
        "student": "str",
        "stream": "str",
        "vertex": _INTEGER,
        "example": _INTEGER,
        "mean_cosine": _FLOAT,
        "n_tokens": _INTEGER,
    },
}

#: Columns that Geometries of earlier versions lack: they are read as NaN.
ADDED_COLUMNS: dict[str, tuple[str, ...]] = {"angles": ("mean_tangential_angle_degrees",)}

_NAMES = {"student": "str", "stream": "str"}
_PAIR = {**_NAMES, "vertex": _INTEGER, "teacher_i": _INTEGER, "teacher_k": _INTEGER}
_TWO_LAYERS = {**_NAMES, "side_a": "str", "layer_a": _INTEGER, "side_b": "str", "layer_b": _INTEGER}

#: Tables that an analysis may leave out, and that older Geometries lack: they are then empty.
OPTIONAL_COLUMNS: dict[str, Mapping[str, str]] = {
    "nulls": {
        **_PAIR,
        "null": "str",
        "mean_cosine": _FLOAT,
        "se": _FLOAT,
        "n_tokens": _INTEGER,
        "observed_cosine": _FLOAT,
        "observed_minus_null": _FLOAT,
        "low": _FLOAT,
        "high": _FLOAT,
        "mean_tangential_cosine": _FLOAT,
    },
    "vertex_sweep": {
        **_PAIR,
        "t": _FLOAT,
        "mean_cosine": _FLOAT,
        "se": _FLOAT,
        "mean_angle_degrees": _FLOAT,
        "mean_tangential_cosine": _FLOAT,
        "mean_tangential_angle_degrees": _FLOAT,
        "n_tokens": _INTEGER,
    },
    "anisotropy": {
        **_NAMES,
        "side": "str",
        "layer": _INTEGER,
        "tokens": "str",
        "view": "str",
        "mean_cosine": _FLOAT,
        "se": _FLOAT,
        "top_dimension": _INTEGER,
        "top_share": _FLOAT,
        "n_tokens": _INTEGER,
    },
    "dimensions": {**_NAMES, "side": "str", "layer": _INTEGER, "dimension": _INTEGER, "share": _FLOAT},
    "angle_views": {
        **_PAIR,
        "tokens": "str",
        "view": "str",
        "mean_cosine": _FLOAT,
        "se": _FLOAT,
        "mean_tangential_cosine": _FLOAT,
        "n_tokens": _INTEGER,
    },
    "similarity": {
        **_TWO_LAYERS,
        "states": "str",
        "debiased_cka": _FLOAT,
        "minibatch_cka": _FLOAT,
        "linear_cka": _FLOAT,
        "procrustes_distance": _FLOAT,
        "mutual_neighbours": _FLOAT,
        "n": _INTEGER,
    },
}
