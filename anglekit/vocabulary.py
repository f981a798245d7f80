"""The names that results are labelled with; free of torch, so that reading and drawing results starts at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

__all__ = ["DEFAULT_NULLS", "NULLS", "VIEWS", "Stream", "View"]


Stream = Literal["encoder", "decoder"]


#: The ladder: every null and what it keeps.
NULLS: Mapping[str, str] = {
    "formula": "closed form for independent vectors of the same lengths",
    "gaussian-norm": "independent isotropic Gaussian directions, every token's lengths kept",
    "gaussian-covariance": "independent Gaussians with each layer's mean and covariance",
    "permuted-student": "the student's states of another example, the teacher's pairing kept",
    "permuted-all": "every teacher layer and the student from examples of their own",
    "rotated-student": "the student's states rotated by one random orthogonal matrix",
    "fresh-student": "an untrained student of the same shape, brought to the student's lengths",
    "origin": "vertex at the origin: the teacher's plain cosine",
    "centroid": "vertex at the mean of the token's teacher states",
}

#: The nulls that cost next to nothing.
DEFAULT_NULLS = ("formula", "gaussian-norm", "permuted-student", "permuted-all", "origin", "centroid")

View = Literal["raw", "centred", "standardised", "dropped"]

#: The ways to look at states; `dropped` is raw without the dominant dimensions.
VIEWS: tuple[View, ...] = get_args(View)
