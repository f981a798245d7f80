"""From the student's width to the teacher's: the identity, a trained adapter, least squares or orthogonal Procrustes.

A projection of an analysis is a bias-free linear map `W` of shape (teacher width, student width), one for each student
layer, as in the paper's loss d(W S_j, T_m(j)).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from anglekit.errors import InputError, foreign_failures
from anglekit.vocabulary import ProjectionKind, Stream

ADAPTER_FILE = "anglekit_adapters.safetensors"
_FORMAT = "anglekit-adapters-1"
# A direction with less than this share of the largest second moment holds only rounding of float32 states (a layer norm
# leaves one such direction), which must not be fitted.
_UNUSED_DIRECTION = 1e-10


@dataclass(frozen=True)
class StoredAdapters:
    """The adapters of a file, by stream and student layer.

    Attributes:
        weights: each (teacher width, student width).
        biases: each (teacher width,); empty where they have none.
        trained: whether training changed them: an untrained adapter says nothing about the student.
    """

    weights: Mapping[tuple[Stream, int], Tensor]
    biases: Mapping[tuple[Stream, int], Tensor]
    trained: bool


def save_adapters(
    directory: Path,
    adapters: Mapping[tuple[Stream, int], Tensor],
    biases: Mapping[tuple[Stream, int], Tensor] | None = None,
    *,
    trained: bool,
) -> Path:
    """Write adapters and their biases, if they have any, beside a student's weights, and return the file."""
    path = directory / ADAPTER_FILE
    tensors = {
        f"{stream}.{layer}.{kind}": value.detach().to("cpu", torch.float32).contiguous()
        for kind, values in (("weight", adapters), ("bias", biases or {}))
        for (stream, layer), value in values.items()
    }
    save_file(tensors, path, metadata={"format": _FORMAT, "trained": str(trained).lower()})
    return path


def load_adapters(directory: Path) -> dict[tuple[Stream, int], Tensor] | None:
    """Read the adapters beside a student, each (teacher width, student width), that an analysis can project with.

    None where there are none, where they were never trained, and where they have a bias: these say less of the student
    than a fitted projection does, or are no linear map.

    Raises:
        InputError: the file is damaged or of another format.
    """
    stored = stored_adapters(directory)
    return dict(stored.weights) if stored is not None and stored.trained and not stored.biases else None


def stored_adapters(directory: Path) -> StoredAdapters | None:
    """Read all that a student's file of adapters holds; None where there is no file.

    Raises:
        InputError: the file is damaged or of another format.
    """
    path = directory / ADAPTER_FILE
    if not path.is_file():
        return None
    parts: dict[str, dict[tuple[Stream, int], Tensor]] = {"weight": {}, "bias": {}}
    with (
        foreign_failures(
            lambda reason: InputError(f"{path} is not a readable safetensors file ({reason})", "save the student again")
        ),
        safe_open(path, framework="pt") as file,
    ):
        metadata = file.metadata() or {}
        for key in file.keys():  # noqa: SIM118 - safe_open is not a mapping
            # A copy: older safetensors return a view of the mapped file, which may be overwritten later.
            place, kind = _parse_key(key, path)
            parts[kind][place] = file.get_tensor(key).clone()
    if metadata.get("format") != _FORMAT:
        raise InputError(f"{path} has format {str(metadata.get('format'))[:40]!r}", allowed=f"expected {_FORMAT!r}")
    wrong = [key for key, weight in parts["weight"].items() if weight.ndim != 2 or not weight.is_floating_point()]
    wrong += [key for key, bias in parts["bias"].items() if bias.ndim != 1 or key not in parts["weight"]]
    if wrong:
        raise InputError(f"{path}: the adapter of {wrong[0]} is not a matrix of numbers", "save the student again")
    return StoredAdapters(parts["weight"], parts["bias"], metadata.get("trained") == "true")


def _parse_key(key: str, path: Path) -> tuple[tuple[Stream, int], str]:
    stream, _, rest = key.partition(".")
    number, _, kind = rest.partition(".")
    if stream not in get_args(Stream) or not number.isdecimal() or len(number) > 6 or kind not in ("weight", "bias"):
        raise InputError(f"{path} holds {key[:80]!r}", allowed="expected names such as 'encoder.3.weight'")
    return ("encoder" if stream == "encoder" else "decoder", int(number)), kind


def relative_depth_layer(student_layer: int, student_depth: int, teacher_depth: int) -> int:
    """Return the teacher layer at a student layer's relative depth: the target of that layer's fitted projection.

    Layer 0 aims at layer 0 and the last at the last: with 12 teacher and 3 student blocks, at 0, 4, 8, 12.
    """
    return round(student_layer * teacher_depth / student_depth)


@dataclass
class ProjectionFit:
    """Streaming second moments from which a projection of one student layer is solved.

    Kept in float64; two fits over disjoint tokens add up to the fit over all of them.

    Attributes:
        student: sum of s s^T, shape (student width, student width).
        cross: sum of t s^T, shape (teacher width, student width).
        n_tokens: how many tokens were summed; tokens with a non-finite state on either side are left out.
    """

    student: Tensor
    cross: Tensor
    n_tokens: int = 0

    @classmethod
    def empty(cls, student_width: int, teacher_width: int) -> ProjectionFit:
        """Return the fit over no tokens."""
        return cls(
            torch.zeros(student_width, student_width, dtype=torch.float64),
            torch.zeros(teacher_width, student_width, dtype=torch.float64),
        )

    def update(self, student: Tensor, teacher: Tensor) -> None:
        """Add tokens: `student` of shape (tokens, student width), `teacher` of shape (tokens, teacher width)."""
        s, t = student.double(), teacher.double().to(student.device)
        finite = torch.isfinite(s).all(dim=1) & torch.isfinite(t).all(dim=1)
        s, t = s[finite], t[finite]
        self.student += (s.T @ s).cpu()
        self.cross += (t.T @ s).cpu()
        self.n_tokens += len(s)

    def __add__(self, other: ProjectionFit) -> ProjectionFit:
        """Return the fit over both sets of tokens."""
        return ProjectionFit(self.student + other.student, self.cross + other.cross, self.n_tokens + other.n_tokens)


def solve_projection(fit: ProjectionFit, kind: ProjectionKind) -> Tensor:
    """Return the best `W` of shape (teacher width, student width) in float64.

    `least-squares` minimises the summed |t - W s|^2; directions that the student's states do not use get weight zero
    (pseudo-inverse). `procrustes` minimises the same over matrices with orthonormal columns (or rows, if the student is
    the wider one): W = U V^T for the singular vectors of the sum of t s^T (Schoenemann 1966); lengths and angles inside
    the student's space stay as they are.

    Raises:
        InputError: there are fewer tokens than student dimensions, so that the fit would be arbitrary.
    """
    needed = fit.student.shape[0]
    if fit.n_tokens < needed:
        raise InputError(
            f"the projection is fitted on {fit.n_tokens} tokens, at least {needed} (the student's width) are needed",
            "give more probe examples",
        )
    if kind == "procrustes":
        u, _, vh = torch.linalg.svd(fit.cross, full_matrices=False)
        return torch.matmul(u, vh)
    return torch.matmul(fit.cross, torch.linalg.pinv(fit.student, rtol=_UNUSED_DIRECTION, hermitian=True))
