"""States of a batch: the teacher's and every student's, recorded while the batch passes through the models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from anglekit.analysis.spec import StreamLayers
from anglekit.models.check import facts_of
from anglekit.models.checkpoints import Checkpoint
from anglekit.probes.batches import ProbeBatch, TokenizedProbe
from anglekit.runtime.lanes import lane_count, slot_count
from anglekit.runtime.placement import compute_device
from anglekit.runtime.workspace import Workspace
from anglekit.states.recorder import LayerRecorder, token_states
from anglekit.states.store import StoredTeacher, StoreReader
from anglekit.vocabulary import FinalNorm, Stream

#: The teacher's and every student's states of a batch, by stream.
BatchStates = tuple[dict[Stream, Tensor], list[dict[Stream, Tensor]]]


def sum_device(teacher: Checkpoint, students: Sequence[Checkpoint]) -> torch.device:
    """Return where the sums live: beside the teacher, or the first student where the teacher is a store.

    A device without float64 (MPS) gives them to the processor.
    """
    device = compute_device(students[0].model if isinstance(teacher, StoredTeacher) else teacher.model)
    return torch.device("cpu") if device.type == "mps" else device


class Recorders:
    """The recorders of one teacher and its students, entered for the length of an analysis.

    A teacher whose states are `stored` is read instead of run.
    """

    def __init__(
        self,
        stack: ExitStack,
        teacher: Checkpoint,
        students: Sequence[Checkpoint],
        layers: Mapping[Stream, StreamLayers],
        final_norm: FinalNorm,
        stored: StoreReader | None = None,
    ) -> None:
        self.layers = layers
        wanted = {stream: chosen.teacher for stream, chosen in layers.items()}
        self.teacher = stored or stack.enter_context(LayerRecorder(teacher.model, wanted, final_norm))
        self.students = [
            stack.enter_context(
                LayerRecorder(
                    student.model,
                    {stream: chosen.students[position] for stream, chosen in layers.items()},
                    final_norm,
                )
            )
            for position, student in enumerate(students)
        ]
        models = [checkpoint.model for checkpoint in (*(() if stored else (teacher,)), *students)]
        restless = any(facts_of(model).restless for model in models)
        #: How many batches may be on their way at once.
        self.lanes = 1 if restless else lane_count(models, [compute_device(model) for model in models])
        self._workspaces = [[Workspace() for _ in (teacher, *students)] for _ in range(slot_count(self.lanes))]

    def states(self, device: torch.device, batch: ProbeBatch, slot: int = 0) -> BatchStates:
        """Return the teacher's and every student's states by stream, shape (layers, tokens, width), on `device`.

        The next call for the same slot overwrites them.
        """

        def states(source: LayerRecorder | StoreReader, workspace: Workspace) -> dict[Stream, Tensor]:
            read = (
                source.token_states(batch, workspace)
                if isinstance(source, StoreReader)
                else token_states(source, batch, workspace)
            )
            return {stream: found.states.to(device) for stream, found in read.items()}

        teacher, *students = map(states, (self.teacher, *self.students), self._workspaces[slot])
        return teacher, students


def progress_batches(probe: TokenizedProbe, title: str, progress: bool, numbers: Sequence[int]) -> Iterator[ProbeBatch]:
    """Yield batches by number, behind a progress bar that counts tokens, so that its estimate of the rest is fair."""
    with tqdm(desc=title, unit="token", unit_scale=True, disable=not progress) as bar:
        if progress and len(numbers):
            part = probe.subset(np.concatenate([probe.plan[number] for number in numbers]))
            bar.reset(total=sum(part.n_tokens(stream) for stream in probe.streams))
        for batch in probe.batches(numbers=numbers):
            yield batch
            bar.update(sum(len(batch.token_index(stream)) for stream in batch.streams))


def token_ids(batch: ProbeBatch, stream: Stream) -> Tensor:
    """Return the ids of the tokens of a stream that count, int64 (tokens,)."""
    ids = batch.input_ids if stream != "decoder" or batch.decoder_input_ids is None else batch.decoder_input_ids
    return ids.flatten()[batch.token_index(stream)]
