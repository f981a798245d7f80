"""The shell around the sample: batches of an analysis in, tokens of a few hundred examples and sums of means out."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anglekit.analysis.measurement import Measurement
from anglekit.analysis.recorders import token_ids
from anglekit.analysis.spec import AnalysisSpec, Key
from anglekit.geometry.token_sample import TokenSample, TokenSampler, example_means
from anglekit.models.checkpoints import Checkpoint
from anglekit.probes.batches import ProbeBatch, TokenizedProbe
from anglekit.probes.tokenize import special_token_ids
from anglekit.runtime.placement import compute_device
from anglekit.states.recorder import LayerRecorder, token_states
from anglekit.vocabulary import Stream


class ProbeSampler:
    """Keeps the samples of an analysis, one for each stream: the same examples in every stream and for every student.

    Args:
        spec: what is looked at.
        teacher: the teacher.
        rows: the row numbers of the examples of all parts, int64 (examples,).
        start: what to go on from; its feature-space sums grow in place.

    Attributes:
        cross: the feature-space sums so far, by stream.
    """

    def __init__(self, spec: AnalysisSpec, teacher: Checkpoint, rows: NDArray[np.int64], start: Measurement) -> None:
        self.wanted = spec.sampled
        self.cross = start.cross
        self._before = start.samples
        self._special = _special_ids(teacher)
        self._samplers = {stream: TokenSampler(spec.settings.seed, spec.capacity, rows) for stream in spec.layers}

    def update(
        self, batch: ProbeBatch, teacher: Mapping[Stream, Tensor], students: Sequence[Mapping[Stream, Tensor]]
    ) -> None:
        """Look at a batch: for every stream the states of the teacher and of every student, (layers, tokens, width)."""
        if not self.wanted:
            return
        for stream, sampler in self._samplers.items():
            sides = [teacher[stream], *(states[stream] for states in students)]
            token_example = batch.token_example(stream)
            means = None
            if stream in self.cross:
                means = [example_means(side, token_example, len(batch.examples)) for side in sides]
                self.cross[stream].update([layer for side in means for layer in side])
            special = _special_tokens(batch, stream, self._special)
            sampler.update(sides, token_example, batch.examples, special, means)

    def state(self) -> dict[Stream, TokenSample]:
        """Return the samples of the batches so far."""
        return {stream: self._before[stream] + sampler.state() for stream, sampler in self._samplers.items()}


def fresh_samples(
    spec: AnalysisSpec,
    teacher: Checkpoint,
    students: Sequence[Checkpoint],
    probe: TokenizedProbe,
    numbers: Sequence[int],
    samples: Mapping[Stream, TokenSample],
) -> dict[Key, TokenSample]:
    """Return untrained students' states at the sampled tokens of some batches.

    Sampled examples of one batch are read together, so that every part reads them as the whole would.

    Args:
        spec: what is looked at.
        teacher: the teacher.
        students: the students; each gives its configuration.
        probe: what is measured.
        numbers: of the batches.
        samples: the samples of these batches.
    """
    if spec.settings.nulls != "all":
        return {}
    special_ids = _special_ids(teacher)
    sampled = samples[next(iter(samples))].example.numpy()
    among = np.isin(probe.rows, sampled)
    groups = [positions[among[positions]] for positions in (probe.plan[number] for number in numbers)]
    found = dict[Key, TokenSample]()
    for position, student in enumerate(students):
        samplers = {stream: TokenSampler(spec.settings.seed, spec.capacity) for stream in spec.layers}
        wanted = {stream: chosen.students[position] for stream, chosen in spec.layers.items()}
        with LayerRecorder(_untrained(student, spec.settings.seed), wanted, spec.settings.final_norm) as recorder:
            for group in groups:
                for batch in probe.subset(group).batches() if len(group) else ():
                    for stream, states in token_states(recorder, batch).items():
                        special = _special_tokens(batch, stream, special_ids)
                        side = states.states.to(samples[stream].states[0].device)
                        samplers[stream].update([side], batch.token_example(stream), batch.examples, special)
        found |= {(stream, position): sampler.state() for stream, sampler in samplers.items()}
    return found


def _untrained(student: Checkpoint, seed: int) -> Any:  # noqa: ANN401 - of the student's own class
    real = student.model
    device = compute_device(real)
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        model: Any = type(real)(copy.deepcopy(real.config))
    return model.eval().to(device=device, dtype=real.dtype)


def _special_ids(teacher: Checkpoint) -> NDArray[np.int32]:
    return np.zeros(0, dtype=np.int32) if teacher.tokenizer is None else special_token_ids(teacher.tokenizer)


def _special_tokens(batch: ProbeBatch, stream: Stream, special_ids: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Return which tokens of a batch are special ones, bool (tokens,)."""
    chosen = token_ids(batch, stream).cpu()
    # For a handful of ids torch compares with each, where numpy prepares a table first.
    return torch.isin(chosen, torch.from_numpy(special_ids).to(chosen.dtype)).numpy()
