"""One teacher for many students: each batch is computed once, for all that are at that batch."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from anglekit.distillation.losses.objective import DistillationObjective, TeacherOutputs
from anglekit.distillation.training.teacher import TeacherForward
from anglekit.distillation.training.teacher_cache import CachedTeacher
from anglekit.errors import InputError
from anglekit.vocabulary import Stream

_MARK = "anglekit_batch_mark"


class SharedTeacher:
    """A `TeacherProvider` that runs the teacher once for all students that see the same batch.

    Batches with the same contents count as the same batch. A hash of every tensor tells batches apart, so that students
    whose data come in different orders never read each other's answers. An answer holds all that any student's
    objective reads. Answers are held until `forget` is called, which `lockstep.take_turns` does when the last student
    has left a batch: at any time there are as many answers as different orders of the data.

    Args:
        teacher: put into evaluation mode.
        objectives: of all students that will ask for hidden states, and for logits too unless `logits_for` says whose.
        device: the teacher's own, or None for that of the students.
        kept: makes what answers for the teacher of its layers, logits, final norm and device; None runs it.
        logits_for: the objectives of the students that will ask for logits.
        dropout: as of `TeacherForward`.

    Attributes:
        passes: forward passes that were run, those for whole batches that a cache held not among them.
        answers: answers that were given.
        most_held: the most answers that were held at a time.
        seconds: the time of the forward passes.

    Raises:
        InputError: the objectives mix both readings, which use different states of the last layer, or a layer does not
            exist.
    """

    def __init__(
        self,
        teacher: PreTrainedModel,
        objectives: Sequence[DistillationObjective],
        device: str | None = None,
        *,
        kept: Callable[..., CachedTeacher] | None = None,
        logits_for: Sequence[DistillationObjective] | None = None,
        dropout: bool = False,
    ) -> None:
        logits_for = objectives if logits_for is None else logits_for
        norms = sorted({objective.final_norm for objective in (*objectives, *logits_for)})
        if len(norms) > 1:
            raise InputError("students of the corrected and the official reading cannot share a teacher", "sweep each")
        self._forward: TeacherForward | CachedTeacher = (kept or TeacherForward)(
            teacher,
            layers=_union(objectives),
            logits=any(objective.reads_teacher_logits for objective in logits_for),
            final_norm=norms[0] if norms else "excluded",
            device=device,
            head_apart=all(objective.reads_chunks for objective in logits_for),
            **({"attention": True, "maps": _any_maps(objectives)} if _any_attention(objectives) else {}),
            **({"dropout": True} if dropout else {}),
        )
        self._held: dict[bytes, TeacherOutputs] = {}
        self.passes = 0
        self.answers = 0
        self.most_held = 0
        self.seconds = 0.0

    def to(self, device: torch.device) -> SharedTeacher:
        """Move the teacher to a device and return self."""
        self._forward.to(device)
        return self

    def __call__(self, inputs: Mapping[str, Any]) -> TeacherOutputs:
        """Return the teacher's answer to a batch (`inputs`, labels included), computed unless it is held."""
        mark = inputs.get(_MARK) or batch_mark(inputs)
        self.answers += 1
        answer = self._held.get(mark)
        if answer is None:
            start = time.perf_counter()
            answer = replace(self._forward(inputs), disposable=False)
            self.seconds += time.perf_counter() - start
            self.passes = self._forward.passes if isinstance(self._forward, CachedTeacher) else self.passes + 1
            self._held[mark] = answer
            self.most_held = max(self.most_held, len(self._held))
        return answer

    def flush(self) -> None:
        """Write what a cache still has in memory."""
        if isinstance(self._forward, CachedTeacher):
            self._forward.cache.flush()

    def forget(self) -> None:
        """Free all answers: no student will ask for them again."""
        self._held.clear()


def _any_attention(objectives: Sequence[DistillationObjective]) -> bool:
    """Return whether the objectives read attention.

    Raises:
        InputError: some do and some read states.
    """
    read = {objective.reads_attention for objective in objectives if objective.hidden_streams}
    if len(read) > 1:
        raise InputError("students of losses of attention and of states cannot share a teacher", "sweep each")
    return True in read


def _any_maps(objectives: Sequence[DistillationObjective]) -> bool:
    return any(objective.reads_maps for objective in objectives)


def _union(objectives: Sequence[DistillationObjective]) -> dict[Stream, tuple[int, ...]]:
    layers: dict[Stream, set[int]] = {}
    for objective in objectives:
        for stream, wanted in objective.teacher_layers.items():
            layers.setdefault(stream, set()).update(wanted)
    return {stream: tuple(sorted(wanted)) for stream, wanted in layers.items()}


def batch_mark(batch: Mapping[str, Any]) -> bytes:
    """Return a hash of the names, types, shapes and contents of a batch's tensors."""
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(key for key, value in batch.items() if isinstance(value, Tensor)):
        tensor = batch[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().data)
    return digest.digest()


class MarkedBatches:
    """A collator whose batches carry the mark by which `SharedTeacher` recognises them.

    Without it the mark is computed where the batch is used; on an accelerator the process then waits for the batch.

    Args:
        collate: makes a batch of examples.
    """

    def __init__(self, collate: Callable[[Any], Mapping[str, Any]]) -> None:
        self.collate = collate

    def __call__(self, examples: Any) -> dict[str, Any]:  # noqa: ANN401 - what the wrapped collator takes
        """Return the batch with its mark."""
        batch = dict(self.collate(examples))
        batch[_MARK] = batch_mark(batch)
        return batch
