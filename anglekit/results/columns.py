"""The tables of a Geometry: their columns, in order, and the type of each."""

from __future__ import annotations

from collections.abc import Mapping

# A column has the same type in all tables: text, a whole number, or any number.
_TEXTS = (
    *("student", "stream", "side", "side_a", "side_b", "states", "null", "tokens", "view"),
    *("extreme", "before", "token", "after"),
)
_WHOLE = (
    *("vertex", "teacher_i", "teacher_k", "layer", "layer_a", "layer_b", "example", "dimension", "top_dimension"),
    *("bin", "count", "n", "n_tokens", "n_examples", "place"),
)


def _columns(*names: str) -> Mapping[str, str]:
    return {name: "str" if name in _TEXTS else "int64" if name in _WHOLE else "float64" for name in names}


_PAIR = ("student", "stream", "vertex", "teacher_i", "teacher_k")
_TWO_LAYERS = ("student", "stream", "side_a", "layer_a", "side_b", "layer_b")

#: What the table `similarity` holds of two layers, with the columns of each: value, its standard error over examples,
#: its mean over permutations of one side's examples, how often a permutation gives as much, and how often one gives as
#: much between any two layers of the same two sides, which stays valid where the most similar layers are looked for.
SIMILARITIES = ("debiased_cka", "linear_cka", "procrustes_distance", "mutual_neighbours")
SIMILARITY_ENDINGS = ("", "_se", "_null", "_p", "_p_adjusted")

#: The tables of every Geometry.
COLUMNS: dict[str, Mapping[str, str]] = {
    "angles": _columns(
        *_PAIR,
        *("mean_cosine", "std_cosine", "mean_angle_degrees", "acute_fraction"),
        *("mean_tangential_cosine", "mean_tangential_angle_degrees"),
        *("null_cosine", "se_cosine", "n_tokens", "n_examples", "n_clusters"),
    ),
    "histograms": _columns(*_PAIR, "bin", "count"),
    "layers": _columns(
        *_TWO_LAYERS,
        *("mean_cosine", "centred_cosine", "mean_distance"),
        *("cka", "cka_se", "cka_null", "cka_p", "cka_p_adjusted", "mean_norm"),
    ),
    "examples": _columns(
        *("student", "stream", "vertex", "example"), *("mean_cosine", "mean_angle_degrees", "n_tokens", "cluster")
    ),
}

#: Columns that Geometries of earlier versions lack; they are then read as NaN.
ADDED_COLUMNS: dict[str, tuple[str, ...]] = {
    "angles": ("mean_tangential_angle_degrees", "n_clusters"),
    "examples": ("mean_angle_degrees", "cluster"),
    "layers": ("cka_se", "cka_null", "cka_p", "cka_p_adjusted"),
    "nulls": ("p_adjusted", "joint_low", "joint_high"),
    "similarity": tuple(f"{name}{ending}" for name in SIMILARITIES for ending in SIMILARITY_ENDINGS[1:]),
}

#: Optional tables, which older Geometries lack; they are then empty.
OPTIONAL_COLUMNS: dict[str, Mapping[str, str]] = {
    "nulls": _columns(
        *_PAIR,
        *("null", "mean_cosine", "se", "n_tokens"),
        *("observed_cosine", "observed_minus_null", "low", "high", "mean_tangential_cosine"),
        *("p_adjusted", "joint_low", "joint_high"),
    ),
    "vertex_sweep": _columns(
        *_PAIR,
        *("t", "mean_cosine", "se", "mean_angle_degrees"),
        *("mean_tangential_cosine", "mean_tangential_angle_degrees", "n_tokens"),
    ),
    "anisotropy": _columns(
        *("student", "stream", "side", "layer", "tokens", "view"),
        *("mean_cosine", "se", "top_dimension", "top_share", "n_tokens"),
    ),
    "dimensions": _columns("student", "stream", "side", "layer", "dimension", "share"),
    "angle_views": _columns(*_PAIR, "tokens", "view", "mean_cosine", "se", "mean_tangential_cosine", "n_tokens"),
    "similarity": _columns(
        *_TWO_LAYERS,
        "states",
        *(f"{name}{ending}" for name in SIMILARITIES for ending in SIMILARITY_ENDINGS),
        "n",
    ),
    "extremes": _columns(*_PAIR, "extreme", "angle_degrees", "example", "place", "before", "token", "after"),
}

#: The values of `extreme`: the token with the smallest angle, and the one with the largest.
EXTREMES = ("smallest", "largest")

#: What names a row of each table, in order: the dimensions of its labelled arrays. The other columns are measured.
KEYS: dict[str, tuple[str, ...]] = {
    "angles": _PAIR,
    "histograms": (*_PAIR, "bin"),
    "layers": _TWO_LAYERS,
    "examples": ("student", "stream", "vertex", "example"),
    "nulls": (*_PAIR, "null"),
    "vertex_sweep": (*_PAIR, "t"),
    "anisotropy": ("student", "stream", "side", "layer", "tokens", "view"),
    "dimensions": ("student", "stream", "side", "layer", "dimension"),
    "angle_views": (*_PAIR, "tokens", "view"),
    "similarity": (*_TWO_LAYERS, "states"),
    "extremes": (*_PAIR, "extreme"),
}
