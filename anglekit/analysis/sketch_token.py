"""One real token for the sketch of the angle: its states projected on the plane of the angle."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from anglekit.analysis.spec import AnalysisSpec, Key
from anglekit.geometry.angles import DEGENERATE_TOLERANCE, vertex_cosine
from anglekit.results.document import PlanePoint, SketchToken


def typical_token(teacher_i: Tensor, teacher_k: Tensor, student: Tensor) -> int | None:
    """Return the token whose cosine is nearest to the mean cosine of all; None where no token has an angle.

    All three are states of one shape, (tokens, width).
    """
    cosine = vertex_cosine(teacher_i, teacher_k, student)
    defined = torch.isfinite(cosine)
    # A token whose student and teacher states coincide but for rounding has no angle.
    scale = teacher_i.double().norm(dim=-1) + student.double().norm(dim=-1)
    for teacher in (teacher_i, teacher_k):
        defined &= (teacher.double() - student.double()).norm(dim=-1) > DEGENERATE_TOLERANCE * scale
    if not bool(defined.any()):
        return None
    distance = torch.where(defined, (cosine - cosine[defined].mean()).abs(), torch.inf)
    return int(distance.argmin())


def plane_points(teacher: Sequence[Tensor], student: Tensor, i: int, k: int, layers: Sequence[int]) -> list[PlanePoint]:
    """Project a token's finite teacher states on the plane of T_i - S and T_k - S, with S at the origin.

    A state has the shape (width,), and there is one of each teacher layer. The layer at position i lies on the positive
    x axis, the one at k in the upper half plane; `layers` are the layers' numbers.
    """
    directions = [state.double() - student.double() for state in teacher]
    u, v = directions[i], directions[k]
    x_axis = u / u.norm()
    upward = v - (v @ x_axis) * x_axis
    length = upward.norm()
    y_axis = upward / length if float(length) > 0 else torch.zeros_like(upward)
    return [
        PlanePoint(int(layer), float(direction @ x_axis), float(direction @ y_axis))
        for layer, direction in zip(layers, directions, strict=True)
        if bool(torch.isfinite(direction).all())
    ]


def sketch_token(
    spec: AnalysisSpec,
    key: Key,
    projections: Sequence[Tensor] | None,
    states: tuple[Tensor, Tensor],
    examples: Tensor,
    piece: Callable[[int], str],
) -> SketchToken | None:
    """Return the token that a sketch of a student shows, or None where no token has an angle.

    Its vertex and pair are the paper's, layer 1 with the first and the last block, or the nearest that are kept. The
    projections are of the student's vertices, None where the widths agree; the states are the teacher's and the
    student's in a batch, of shape (layers, tokens, width), `examples` the row number of each token's example, int64
    (tokens,), and `piece` names a token by its place.
    """
    stream, layers, vertices = key[0], spec.layers[key[0]].teacher, spec.vertices(key)
    vertex = vertices.index(1) if 1 in vertices else len(vertices) - 1
    k = len(layers) - 1
    i = next((row for row, layer in enumerate(layers[:k]) if layer >= 1), 0)
    teacher_states, student = states[0], states[1][vertex].double()
    if projections is not None:
        student = student @ projections[vertex].T.to(student.device)
    token = typical_token(teacher_states[i], teacher_states[k], student)
    if token is None:
        return None
    there, own = teacher_states[:, token], student[token]
    return SketchToken(
        student=spec.names[key[1]],
        stream=stream,
        vertex=int(vertices[vertex]),
        teacher_i=int(layers[i]),
        teacher_k=int(layers[k]),
        example=int(examples[token]),
        token=piece(token),
        distance_i=float((there[i].double() - own.double()).norm()),
        distance_k=float((there[k].double() - own.double()).norm()),
        cosine=float(vertex_cosine(there[i], there[k], own)),
        points=plane_points(list(there), own, i, k, layers),
    )
