"""What a student layer is taught by where several teacher layers teach it: the second half of a matching's strategy.

A hard pair's target is one teacher state. Here the target is made of a group of them: their mean, an attention over
them, a learned linear combination, what learned gates pass on, or the layer drawn for this epoch; or each pair counts
by its share of a transport plan. What is learned lives outside the student, as adapters do, is trained by the
student's optimiser and saved beside the student.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save_file
from scipy.optimize import linprog
from torch import Tensor, nn

from anglekit.distillation.losses.objective import Cost, LayerGroups, Taught
from anglekit.distillation.matching.strategies import LayerMatching, ordered_draw
from anglekit.errors import InputError, foreign_failures
from anglekit.vocabulary import Stream

#: What is learned of mixtures, beside a student's weights.
MIXTURES_FILE: Final = "anglekit_mixtures.safetensors"
_FORMAT: Final = "anglekit-mixtures-1"


class LayerMixtures(nn.Module):
    """The targets of a student's groups of teacher layers, and what is learned for them.

    Linear combinations begin as the group's mean, gates half open (weights 0). So no random number is drawn, and two
    runs of one seed differ in nothing but what they learn.

    Args:
        groups: by stream; streams without are left out.
        width: of the states that are combined, the teacher's.

    Attributes:
        epoch: the epoch from 0, which a draw depends on; whoever trains sets it.
    """

    def __init__(self, groups: Mapping[Stream, LayerGroups], width: int) -> None:
        super().__init__()
        self.groups = dict(groups)
        self.epoch = 0
        for stream, one in self.groups.items():
            if one.combines == "linear":
                for student, teachers in one.of:
                    weight = torch.eye(width).repeat(1, len(teachers)) / len(teachers)
                    self.register_parameter(f"{stream}_{student}_weight", nn.Parameter(weight))
            elif one.combines == "gate":
                for layer in one.teacher_layers[1:]:
                    self.register_parameter(f"{stream}_{layer}_weight", nn.Parameter(torch.zeros(width, width)))
                    self.register_parameter(f"{stream}_{layer}_bias", nn.Parameter(torch.zeros(width)))
            elif one.combines == "transport":
                for side, layers in (("student", one.student_layers), ("teacher", one.teacher_layers)):
                    share = torch.full((len(layers),), 1.0 / len(layers), dtype=torch.float64)
                    self.register_buffer(f"{stream}_{side}_shares", share)

    @property
    def holds_state(self) -> bool:
        """Whether there is anything to save: learned weights, or the shares of a transport."""
        return bool(self.state_dict())

    def taught(
        self,
        stream: Stream,
        student: Mapping[int, Any],
        teacher: Mapping[int, Any],
        mask: Tensor | None,
        cost: Cost,
    ) -> list[Taught]:
        """Return the pairs that a stream's hidden loss is the weighted sum over.

        Args:
            stream: which.
            student: states by layer, (batch, time, width), after their adapters; of a draw and a transport, which make
                no mixture, whatever `cost` compares.
            teacher: the same of the teacher.
            mask: (batch, time), nonzero at tokens that count; None counts all.
            cost: of a pair, for a transport.
        """
        groups = self.groups[stream]
        kept = {layer: teacher[layer] for layer in groups.teacher_layers}
        if groups.combines == "transport":
            return self._transported(stream, groups, student, kept, cost)
        if groups.combines == "draw":
            layers = groups.teacher_layers
            drawn = ordered_draw(groups.seed or 0, stream, self.epoch, layers, len(groups.of))
            return [(student[s], kept[t], 1.0) for s, t in zip(groups.student_layers, drawn, strict=True)]
        targets = self.targets(stream, student, kept, mask)
        return [(student[layer], target, 1.0) for layer, target in targets.items()]

    def targets(
        self, stream: Stream, student: Mapping[int, Tensor], teacher: Mapping[int, Tensor], mask: Tensor | None
    ) -> dict[int, Tensor]:
        """Return the mixture that teaches each student layer of a stream, (batch, time, width).

        Raises:
            InputError: the stream's strategy makes no mixture (a draw or a transport).
        """
        groups = self.groups[stream]
        if groups.combines in ("draw", "transport"):
            raise InputError(
                f"the {stream}'s layers are taught by a {groups.combines}, which makes no mixture of teacher layers",
                "take a strategy that does, such as layer-attention",
            )
        if groups.combines == "mean":
            return {s: torch.stack([_wide(teacher[t]) for t in group]).mean(0) for s, group in groups.of}
        # Learned weights read what the mask leaves out, where it may be NaN; 0 there leaves no trace in a gradient.
        read = {layer: _zero_at_padding(teacher[layer], mask) for layer in groups.teacher_layers}
        if groups.combines == "linear":
            return {
                s: nn.functional.linear(torch.cat([read[t] for t in group], dim=-1), self._of(stream, s, "weight"))
                for s, group in groups.of
            }
        if groups.combines == "gate":
            return self._gated(stream, groups, read)
        return _attended({s: _zero_at_padding(student[s], mask) for s in groups.student_layers}, read)

    def _of(self, stream: Stream, layer: int, kind: str) -> Tensor:
        return self.get_parameter(f"{stream}_{layer}_{kind}")

    def _gated(self, stream: Stream, groups: LayerGroups, teacher: Mapping[int, Tensor]) -> dict[int, Tensor]:
        first, *others = groups.teacher_layers
        passed = {first: teacher[first]}
        so_far = teacher[first]
        for layer in others:
            gate = torch.sigmoid(
                nn.functional.linear(so_far, self._of(stream, layer, "weight"), self._of(stream, layer, "bias"))
            )
            so_far = passed[layer] = torch.lerp(so_far, teacher[layer], gate)
        return {student: passed[group[-1]] for student, group in groups.of}

    def _transported(
        self,
        stream: Stream,
        groups: LayerGroups,
        student: Mapping[int, Any],
        teacher: Mapping[int, Any],
        cost: Cost,
    ) -> list[Taught]:
        """Return the pairs of a plan of least cost, and move the layers' shares to where transport is cheap."""
        with torch.no_grad():
            costs = torch.stack(
                [torch.stack([cost(student[s], teacher[t]) for t in teacher]) for s in groups.student_layers]
            )
        shares = [self.get_buffer(f"{stream}_{side}_shares") for side in ("student", "teacher")]
        known = costs.double().cpu().numpy()
        if not np.isfinite(known).all():  # the loss will say so itself
            return [(student[s], teacher[t], 1.0) for s, t in zip(groups.student_layers, teacher, strict=False)]
        plan = transport_plan(shares[0].cpu().numpy(), shares[1].cpu().numpy(), known)
        if self.training:
            for share, new in zip(shares, cheaper_shares(plan, known), strict=True):
                share.copy_(torch.from_numpy(new))
        # The plan's shares add up to 1; times the layers, so that the loss has the size of a map's.
        whole = len(groups.of)
        return [
            (student[s], teacher[t], whole * float(plan[i, j]))
            for i, s in enumerate(groups.student_layers)
            for j, t in enumerate(teacher)
            if plan[i, j] > 0.0
        ]


def transport_plan(
    student: NDArray[np.float64], teacher: NDArray[np.float64], costs: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the plan of least cost that carries one distribution to another, (student layers, teacher layers).

    Args:
        student: the row sums, which add up to 1.
        teacher: the column sums, which add up to 1.
        costs: of a unit, (student layers, teacher layers), finite.
    """
    rows, columns = costs.shape
    equations = np.vstack([np.kron(np.eye(rows), np.ones(columns)), np.kron(np.ones(rows), np.eye(columns))])
    # One equation follows from the others, and rounding must not make it contradict them.
    found = linprog(
        costs.ravel() / max(float(costs.max()), np.finfo(float).tiny),
        A_eq=equations[:-1],
        b_eq=np.concatenate([student, teacher])[:-1],
        bounds=(0, None),
        method="highs",
    )
    return np.maximum(np.asarray(found.x, dtype=np.float64), 0.0).reshape(rows, columns)


def cheaper_shares(
    plan: NDArray[np.float64], costs: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the shares of student and teacher layers after a plan: each in inverse ratio to its cost of a unit.

    BERT-EMD's cost attention. A layer whose transport is free keeps its share.
    """

    def moved(spent: NDArray[np.float64], share: NDArray[np.float64]) -> NDArray[np.float64]:
        if (spent <= 0.0).any() or (share <= 0.0).any():
            return share
        inverse = share / spent
        return cast("NDArray[np.float64]", inverse / inverse.sum())

    carried = plan * costs
    return moved(carried.sum(1), plan.sum(1)), moved(carried.sum(0), plan.sum(0))


def _attended(student: Mapping[int, Tensor], teacher: Mapping[int, Tensor]) -> dict[int, Tensor]:
    """Return for each student layer the teacher layers' sum, weighted by a softmax of their products with its state."""
    keys = torch.stack([_wide(state) for state in teacher.values()], dim=-2)
    queries = torch.stack([_wide(state) for state in student.values()], dim=-2)
    attention = torch.softmax(queries @ keys.transpose(-1, -2), dim=-1)
    mixed = attention @ keys
    return {layer: mixed[..., place, :] for place, layer in enumerate(student)}


def _zero_at_padding(state: Tensor, mask: Tensor | None) -> Tensor:
    return _wide(state) if mask is None else torch.where((mask != 0).to(state.device)[..., None], _wide(state), 0.0)


def _wide(state: Tensor) -> Tensor:
    return state if state.dtype == torch.float64 else state.float()


def groups_of(matchings: Sequence[LayerMatching]) -> dict[Stream, LayerGroups]:
    """Return the groups of matchings by stream, those that have any."""
    return {one.stream: LayerGroups(one.combines, one.groups, one.seed) for one in matchings if one.groups}


def create_mixtures(groups: Mapping[Stream, LayerGroups], width: int) -> LayerMixtures | None:
    """Return what makes the targets of groups, or None where every student layer has one teacher layer.

    Args:
        groups: by stream, as an objective holds them.
        width: the teacher's.
    """
    return LayerMixtures(groups, width) if groups else None


def save_mixtures(directory: Path, mixtures: LayerMixtures) -> Path:
    """Write what is learned of mixtures beside a student's weights, and return the file."""
    path = directory / MIXTURES_FILE
    tensors = {name: each.detach().cpu().contiguous() for name, each in mixtures.state_dict().items()}
    save_file(tensors, path, metadata={"format": _FORMAT})
    return path


def restore_mixtures(directory: Path, mixtures: LayerMixtures) -> None:
    """Read back what `save_mixtures` wrote.

    Raises:
        InputError: the file is missing, damaged, or of other layers.
    """
    path = directory / MIXTURES_FILE

    def refused(reason: str) -> InputError:
        return InputError(f"{path} does not hold this run's mixtures ({reason})", "resume its own checkpoint")

    with foreign_failures(refused), safe_open(path, framework="pt") as file:
        stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    own = mixtures.state_dict()
    if {name: each.shape for name, each in stored.items()} != {name: each.shape for name, each in own.items()}:
        raise refused("its layers or widths are others")
    with torch.no_grad():
        for name, each in own.items():
            each.copy_(stored[name])
