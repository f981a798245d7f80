"""The measurement that grows while batches pass: sums over all tokens, samples of some, products of examples' means."""

from __future__ import annotations

import copy
import hashlib
import itertools
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anglekit.analysis.measurement import Measurement
from anglekit.analysis.preparation import PreparedAnalysis
from anglekit.analysis.recorders import BatchStates, sum_device, token_ids
from anglekit.analysis.sketch_token import sketch_token
from anglekit.analysis.spec import Key
from anglekit.analysis.token_texts import TokenText, TokenTexts
from anglekit.geometry.accumulator import SumsAccumulator, accumulate_batch
from anglekit.geometry.token_sample import TokenSample, TokenSampler, example_means
from anglekit.models.check import adopt_facts
from anglekit.models.checkpoints import Checkpoint
from anglekit.probes.batches import ProbeBatch
from anglekit.probes.tokenize import special_token_ids
from anglekit.results.document import ModelRecord
from anglekit.runtime.placement import compute_device
from anglekit.states.recorder import LayerRecorder, token_states
from anglekit.vocabulary import Stream


class RunningMeasurement:
    """A measurement that grows batch by batch; the same examples are sampled in every stream and for every student.

    Args:
        prepared: the analysis.
        start: what was measured before; its sums grow in place.

    Attributes:
        n_batches: batches so far.
    """

    def __init__(self, prepared: PreparedAnalysis, start: Measurement) -> None:
        self._teacher, self._spec, self._start = prepared.teacher, prepared.spec, start
        self.n_batches, self._n_examples = start.n_batches, start.n_examples
        self._sketches = dict(start.sketches)
        spec = prepared.spec
        self._accumulators = {
            key: SumsAccumulator(
                len(spec.layers[key[0]].teacher),
                len(spec.vertices(key)),
                spec.teacher_width,
                spec.student_widths[key[1]],
                projections=start.projections.get(key),
                epsilon=spec.epsilon,
                device=sum_device(prepared.teacher, prepared.students),
                split_clusters=spec.split_clusters if spec.repeats else None,
                sums=sums,
                extremes=start.extremes.get(key),
            )
            for key, sums in start.sums.items()
        }
        self._texts = TokenTexts(prepared.teacher.tokenizer, dict(start.texts))
        self._special_ids = _special_ids(prepared.teacher)
        rows = np.delete(prepared.measured.rows, prepared.measured.repeats)
        self._samplers = {stream: TokenSampler(spec.settings.seed, spec.capacity, rows) for stream in spec.layers}

    def add(self, batch: ProbeBatch, states: BatchStates, *, sketched: bool) -> None:
        """Add a batch of whole examples and all models' states; if `sketched`, the sketches' tokens are of it."""
        teacher, students = states
        if self._spec.sampled:
            self._sample(batch, states)
        self.n_batches += 1
        self._n_examples += len(batch.examples)
        for stream in self._spec.layers:
            accumulate_batch(
                [self._accumulators[stream, position] for position in range(len(students))],
                teacher[stream],
                [each[stream] for each in students],
                batch.token_example(stream),
                batch.examples,
                batch.clusters,
                self._places(batch, stream),
            )
            self._keep_texts(batch, stream)
        for stream, position in self._spec.keys if sketched else ():
            seen = (teacher[stream], students[position][stream])
            projections = self._start.projections.get((stream, position))
            examples = batch.examples[batch.token_example(stream)]
            piece = partial(_piece, self._teacher, token_ids(batch, stream))
            found = sketch_token(self._spec, (stream, position), projections, seen, examples, piece)
            if found is not None:
                self._sketches[stream, position] = found

    def _places(self, batch: ProbeBatch, stream: Stream) -> Tensor | None:
        """Return each token's place in its sequence, int64 (tokens,), where the extremes are wanted."""
        if not self._start.extremes:
            return None
        ids = batch.input_ids if stream != "decoder" or batch.decoder_input_ids is None else batch.decoder_input_ids
        return batch.token_index(stream) % ids.shape[1]

    def _keep_texts(self, batch: ProbeBatch, stream: Stream) -> None:
        """Take the texts of the tokens of this batch that are extreme so far."""
        own = [found for key, found in self._start.extremes.items() if key[0] == stream]
        if not own:
            return
        numbers = {number for found in own for number in found.token.flatten().tolist()}
        self._texts.add(batch, stream, numbers)

    def _sample(self, batch: ProbeBatch, states: BatchStates) -> None:
        for stream, sampler in self._samplers.items():
            sides = [states[0][stream], *(student[stream] for student in states[1])]
            token_example, cross = batch.token_example(stream), self._start.cross.get(stream)
            means = None
            if cross is not None:
                means = [example_means(side, token_example, len(batch.examples)) for side in sides]
                # Each text once, as in the sample: repeats would make any two layers look alike.
                first = torch.nonzero(batch.clusters == batch.examples).flatten()
                cross.update([layer[first.to(layer.device)] for side in means for layer in side])
            sampler.update(sides, token_example, batch.examples, _are_special(batch, stream, self._special_ids), means)

    def samples(self) -> dict[Stream, TokenSample]:
        """Return the samples so far."""
        return {stream: self._start.samples[stream] + sampler.state() for stream, sampler in self._samplers.items()}

    def state(self, fresh: Mapping[Key, TokenSample] | None = None) -> Measurement:
        """Return the measurement so far, whose sums grow on; `fresh` are untrained students' samples, once known."""
        return Measurement(
            self.n_batches,
            self._n_examples,
            self._start.projections,
            {key: accumulator.state() for key, accumulator in self._accumulators.items()},
            self.samples(),
            self._start.fresh if fresh is None else fresh,
            self._start.cross,
            dict(self._sketches),
            self._start.extremes,
            self._wanted_texts(),
        )

    def _wanted_texts(self) -> dict[tuple[Stream, int], TokenText]:
        wanted = {
            (key[0], number) for key, found in self._start.extremes.items() for number in found.token.flatten().tolist()
        }
        return {place: text for place, text in self._texts.found.items() if place in wanted}


def fresh_samples(
    prepared: PreparedAnalysis, numbers: Sequence[int], samples: Mapping[Stream, TokenSample]
) -> dict[Key, TokenSample]:
    """Return untrained students' states at the sampled tokens of the numbered batches; none where they are not wanted.

    Each student gives its configuration, and the seed is its own (`untrained_seed`). Sampled examples of one batch are
    read together, so that every part reads them as the whole would.
    """
    spec, probe = prepared.spec, prepared.measured
    if spec.settings.nulls != "all":
        return {}
    special_ids = _special_ids(prepared.teacher)
    among = np.isin(probe.rows, samples[next(iter(samples))].example.numpy())
    groups = [positions[among[positions]] for positions in (probe.plan[number] for number in numbers)]
    found = dict[Key, TokenSample]()
    for position, student in enumerate(prepared.students):
        samplers = {stream: TokenSampler(spec.settings.seed, spec.capacity) for stream in spec.layers}
        wanted = {stream: chosen.students[position] for stream, chosen in spec.layers.items()}
        seed = untrained_seed(spec.record.provenance.students[position], spec.settings.seed)
        with LayerRecorder(_untrained(student, seed), wanted, spec.settings.final_norm) as recorder:
            for group in groups:
                for batch in probe.subset(group).batches() if len(group) else ():
                    for stream, states in token_states(recorder, batch).items():
                        special = _are_special(batch, stream, special_ids)
                        side = states.states.to(samples[stream].states[0].device)
                        samplers[stream].update([side], batch.token_example(stream), batch.examples, special)
        found |= {(stream, position): sampler.state() for stream, sampler in samplers.items()}
    return found


def untrained_seed(student: ModelRecord, seed: int) -> int:
    """Return the seed from which an untrained twin of a student is drawn, in [2^31, 2^32).

    It follows from the student's weights and training and from the analysis' seed. Students are drawn from seeds of
    their own, often small and often the analysis' own: a twin of that seed would be the very student where that is
    untrained itself. Only 32 bits of a seed reach torch's generator.
    """
    taken = {each % 2**32 for each in (seed, student.seed) if each is not None}
    for attempt in itertools.count():
        told = (student.sha256, student.strategy, student.init, student.seed, seed, attempt)
        digest = hashlib.sha256("/".join(map(str, ("fresh-student", *told))).encode()).digest()
        drawn = 2**31 + int.from_bytes(digest[:4], "big") % 2**31
        if drawn not in taken:
            break
    return drawn


def _untrained(student: Checkpoint, seed: int) -> Any:  # noqa: ANN401 - of the student's own class
    real = student.model
    device = compute_device(real)
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        model: Any = type(real)(copy.deepcopy(real.config))
    model = model.eval().to(device=device, dtype=real.dtype)
    adopt_facts(model, real)
    return model


def _piece(teacher: Checkpoint, ids: Tensor, token: int) -> str:
    """Return a token as its tokenizer writes it, or its number where there is none."""
    number = int(ids[token])
    return str(number if teacher.tokenizer is None else teacher.tokenizer.convert_ids_to_tokens(number))


def _special_ids(teacher: Checkpoint) -> NDArray[np.int32]:
    return np.zeros(0, dtype=np.int32) if teacher.tokenizer is None else special_token_ids(teacher.tokenizer)


def _are_special(batch: ProbeBatch, stream: Stream, special_ids: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Return which tokens of a batch are special ones, bool (tokens,)."""
    chosen = token_ids(batch, stream).cpu()
    # For a handful of ids torch compares with each, where numpy prepares a table first.
    return torch.isin(chosen, torch.from_numpy(special_ids).to(chosen.dtype)).numpy()
