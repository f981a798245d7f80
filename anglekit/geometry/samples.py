"""The shell around the sample: batches of an analysis in, the tables that rest on the sample out."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from anglekit.architectures import Stream
from anglekit.checkpoints import Checkpoint
from anglekit.geometry.cka import CrossSums, debiased_cka
from anglekit.geometry.null_sums import TokenSample, TokenSampler, example_means, sample_capacity
from anglekit.geometry.nulls import DEFAULT_NULLS, NULLS
from anglekit.geometry.preflight import StreamLayers
from anglekit.geometry.sample_tables import (
    SampledTokens,
    null_table,
    similarity_table,
    sweep_table,
    token_views,
    view_tables,
)
from anglekit.geometry.settings import AnalysisSettings
from anglekit.hidden_states import LayerRecorder, token_states
from anglekit.probe_tokens import special_token_ids
from anglekit.probes import ProbeBatch, TokenizedProbe

__all__ = ["ProbeSamples"]

# The most bytes that the feature-space sums of an exact CKA may take; beyond it the sample's CKA is given.
_MOST_CROSS_BYTES = 1 << 30

# Tokens that the default anisotropy looks at, the first of the sample, whose order is random: an eighth of the examples
# within these bounds, so that it costs a small probe little.
_FEWEST_VIEWED, _MOST_VIEWED, _VIEWED_SHARE = 64, 256, 8


class ProbeSamples:
    """The samples of one analysis, a stream each; the same examples in every stream and for every student.

    Args:
        teacher: the teacher.
        students: the students.
        layers: the layers that take part, by stream.
        settings: of the analysis.
        rows: the row numbers of the examples that will come, int64 (examples,).
    """

    def __init__(
        self,
        teacher: Checkpoint,
        students: Sequence[Checkpoint],
        layers: Mapping[Stream, StreamLayers],
        settings: AnalysisSettings,
        rows: NDArray[np.int64],
    ) -> None:
        self.students = students
        self.layers = layers
        self.settings = settings
        self.wanted = settings.nulls != "none" or settings.similarity != "none"
        numbers = sum(
            len(chosen.teacher) * teacher.width
            + sum(len(vertices) * student.width for vertices, student in zip(chosen.students, students, strict=True))
            for chosen in layers.values()
        )
        self.capacity = min(sample_capacity(numbers), len(rows))
        self._samplers = {stream: TokenSampler(settings.seed, self.capacity, rows) for stream in layers}
        self._special = (
            np.zeros(0, dtype=np.int32) if teacher.tokenizer is None else special_token_ids(teacher.tokenizer)
        )
        self._cross: dict[Stream, CrossSums] = {}
        if settings.similarity == "all":
            self._cross = self._cross_sums(teacher)
        self._samples: dict[Stream, TokenSample] = {}
        self._viewed = min(_MOST_VIEWED, max(_FEWEST_VIEWED, len(rows) // _VIEWED_SHARE))

    def _cross_sums(self, teacher: Checkpoint) -> dict[Stream, CrossSums]:
        """Return sums of no rows for every stream, or nothing where they would take too much memory."""
        plans: dict[Stream, tuple[list[int], list[tuple[int, int]]]] = {}
        for stream, chosen in self.layers.items():
            widths = [teacher.width] * len(chosen.teacher)
            pairs = [(a, b) for b in range(len(widths)) for a in range(b + 1)]
            for vertices, student in zip(chosen.students, self.students, strict=True):
                first = len(widths)
                widths += [student.width] * len(vertices)
                side = [*range(len(chosen.teacher)), *range(first, len(widths))]
                pairs += [(a, b) for b in range(first, len(widths)) for a in side if a <= b]
            plans[stream] = widths, pairs
        if sum(CrossSums.bytes_needed(widths, pairs) for widths, pairs in plans.values()) > _MOST_CROSS_BYTES:
            return {}
        device = "cpu" if teacher.model.device.type == "mps" else teacher.model.device
        return {stream: CrossSums.zeros(widths, pairs, device) for stream, (widths, pairs) in plans.items()}

    def update(
        self, batch: ProbeBatch, teacher: Mapping[Stream, Tensor], students: Sequence[Mapping[Stream, Tensor]]
    ) -> None:
        """Look at a batch: for every stream the states of the teacher and of every student, (layers, tokens, width)."""
        if not self.wanted:
            return
        for stream, sampler in self._samplers.items():
            sides = [teacher[stream], *(states[stream] for states in students)]
            token_example = batch.token_example(stream)
            sampler.update(sides, token_example, batch.examples, _special_tokens(batch, stream, self._special))
            if stream in self._cross:
                means = [example_means(side, token_example, len(batch.examples)) for side in sides]
                self._cross[stream].update([layer for side in means for layer in side])

    def sample(self, stream: Stream) -> TokenSample:
        """Return a stream's sample; call it when the probe is through."""
        if stream not in self._samples:
            self._samples[stream] = self._samplers[stream].state()
        return self._samples[stream]

    def tokens(
        self,
        stream: Stream,
        position: int,
        kind: str,
        name: str,
        projections: Sequence[Tensor] | None = None,
        epsilon: float = 0.0,
        most: int | None = None,
        fresh: Tensor | None = None,
    ) -> tuple[SampledTokens, Tensor | None, int]:
        """Return a student's tokens of a kind, finite at every layer, and how many were left out.

        Args:
            stream: which.
            position: which student.
            kind: as in `TokenSample.tokens`.
            name: the student's name.
            projections: of the student's layers, or None.
            epsilon: of the official reading.
            most: take no more than the first so many.
            fresh: states that follow the same choice, of all tokens of that kind, shape (vertices, tokens, width).
        """
        _, sides = self.sample(stream).tokens(kind)
        states = [sides[0], sides[position + 1], *([] if fresh is None else [fresh])]
        if most is not None:
            states = [side[:, :most] for side in states]
        finite = _finite_tokens(states)
        left_out = int(len(finite) - finite.sum())
        if left_out:
            states = [side[:, finite] for side in states]
        chosen = self.layers[stream]
        tokens = SampledTokens(
            name, stream, chosen.teacher, chosen.students[position], states[0], states[1], projections, epsilon
        )
        return tokens, states[2] if fresh is not None else None, left_out

    def cka(self, stream: Stream) -> tuple[list[Tensor | None], int]:
        """Return the debiased CKA of example means by student, over teacher and student layers, and the examples."""
        if self.settings.similarity == "none":
            return [None] * len(self.students), 0
        chosen = self.layers[stream]
        n = len(chosen.teacher)
        starts = np.cumsum([n, *(len(vertices) for vertices in chosen.students)])
        parts = [
            [*range(n), *range(start, start + len(vertices))]
            for start, vertices in zip(starts, chosen.students, strict=False)
        ]
        if stream in self._cross and int(self._cross[stream].n):
            whole = self._cross[stream].cka()
            return [whole[part][:, part] for part in parts], int(self._cross[stream].n)
        _, sides = self.sample(stream).tokens("mean")
        finite = _finite_tokens(sides)
        if bool(finite.all()):
            whole = debiased_cka([layer for side in sides for layer in side])
            return [whole[part][:, part] for part in parts], len(finite)
        # An example that one student cannot give must not be missing from the others' numbers.
        results: list[Tensor | None] = []
        for position in range(len(self.students)):
            tokens, _, _ = self.tokens(stream, position, "mean", "")
            results.append(debiased_cka([*tokens.teacher, *tokens.own]))
        return results, int(finite.sum())

    def tables(
        self,
        names: Sequence[str],
        projections: Mapping[tuple[Stream, int], Sequence[Tensor] | None],
        epsilon: float,
        probe: TokenizedProbe,
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the tables that rest on the sample, and what is to be counted.

        Args:
            names: the students' names.
            projections: for every stream and student the projections of its layers, or None.
            epsilon: of the official reading.
            probe: what was measured; an untrained student reads the sampled examples once more.
        """
        parts: dict[str, list[pd.DataFrame]] = {}
        counts: dict[str, Any] = {}
        for position, name in enumerate(names):
            fresh = self._fresh_states(position, probe) if self.settings.nulls == "all" else {}
            for stream in self.layers:
                options = (name, projections[stream, position], epsilon)
                found, left_out = self._stream_tables(stream, position, options, fresh.get(stream))
                for table, frame in found:
                    if len(frame):
                        parts.setdefault(table, []).append(frame)
                counts.setdefault(name, {})[stream] = {"examples": len(self.sample(stream)), "nonfinite": left_out}
        return {table: pd.concat(frames, ignore_index=True) for table, frames in parts.items()}, counts

    def _stream_tables(
        self,
        stream: Stream,
        position: int,
        options: tuple[str, Sequence[Tensor] | None, float],
        fresh: Tensor | None,
    ) -> tuple[list[tuple[str, pd.DataFrame]], int]:
        effort, found, left_out = self.settings.nulls, list[tuple[str, pd.DataFrame]](), 0
        if effort != "none":
            tokens, _, left_out = self.tokens(stream, position, "all", *options)
            if fresh is not None:
                # The untrained student must be finite too, for its own null only.
                both, finite_fresh, _ = self.tokens(stream, position, "all", *options, fresh=fresh)
                found.append(("nulls", null_table(both, ["fresh-student"], self.settings.seed, finite_fresh)))
            names = tuple(NULLS) if effort == "all" else DEFAULT_NULLS
            found.append(("nulls", null_table(tokens, names, self.settings.seed)))
            found.append(("vertex_sweep", sweep_table(tokens)))
            for kind in ("all", "content", "special"):
                most = None if effort == "all" else self._viewed
                some, _, _ = self.tokens(stream, position, kind, *options, most=most)
                if some.n_tokens < 2:  # no token of another example to compare with
                    continue
                tables = view_tables(some, kind, token_views(kind, effort))
                found += [("anisotropy", tables.anisotropy), ("angle_views", tables.angle_views)]
                if kind == "all":
                    found.append(("dimensions", tables.dimensions))
        if self.settings.similarity == "all":
            for states, kind in (("example-mean", "mean"), ("token", "all")):
                tokens, _, _ = self.tokens(stream, position, kind, *options)
                if tokens.n_tokens:
                    found.append(("similarity", similarity_table(tokens, states)))
        return found, left_out

    def _fresh_states(self, position: int, probe: TokenizedProbe) -> dict[Stream, Tensor]:
        """Return an untrained student's states at the sampled tokens, by stream, (vertices, tokens, width)."""
        real = self.students[position].model
        devices = [real.device] if real.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(self.settings.seed)
            model: Any = type(real)(copy.deepcopy(real.config))
        model = model.eval().to(device=real.device, dtype=real.dtype)
        wanted = {stream: chosen.students[position] for stream, chosen in self.layers.items()}
        samplers = {stream: TokenSampler(self.settings.seed, self.capacity) for stream in self.layers}
        sampled = next(iter(self.layers))
        chosen = np.flatnonzero(np.isin(probe.rows, self.sample(sampled).example.numpy()))
        with LayerRecorder(model, wanted, self.settings.final_norm) as recorder:
            for batch in probe.subset(chosen).batches():
                for stream, found in token_states(recorder, batch).items():
                    special = _special_tokens(batch, stream, self._special)
                    side = self.sample(stream).states[0]
                    samplers[stream].update(
                        [found.states.to(side.device)], batch.token_example(stream), batch.examples, special
                    )
        return {stream: sampler.state().tokens("all")[1][0] for stream, sampler in samplers.items()}


def _finite_tokens(sides: Sequence[Tensor]) -> Tensor:
    """Return which tokens are finite at every layer of every side, bool (tokens,).

    A layer that is broken at more than half of the tokens takes no part: the other layers' numbers stand without it.
    """
    finite = torch.cat([torch.linalg.vector_norm(side, dim=-1) for side in sides]).isfinite()
    if bool(finite.all()):
        return finite[0]
    whole = 2 * finite.sum(1) >= finite.shape[1]
    return finite[whole].all(0)


def _special_tokens(batch: ProbeBatch, stream: Stream, special_ids: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Return which tokens of a batch are special ones, bool (tokens,)."""
    ids = batch.input_ids if stream != "decoder" or batch.decoder_input_ids is None else batch.decoder_input_ids
    return np.isin(ids.flatten()[batch.token_index(stream)].cpu().numpy(), special_ids)
