"""What an analysis takes of memory, estimated from shapes alone: models on the meta device, a tokenised probe.

The parts, in bytes, each of the device that holds it:

- *program*: what this process takes when all libraries are imported and the probe is tokenised. Read, not estimated.
- *weights*: values x bytes of a value, of the blocks that are held; what a map leaves on the disk is read module by
  module, so that the largest one counts, twice: as it is read and as it computes.
- *reading*: while a file whose weights change their precision or device is read, it is mapped beside them.
- *pass*: the largest batch's padded tokens x (2 x the widest inner layer, or 3 where it is gated, and 4 x the width);
  one block is alive at a time, on a CPU in float32. Attention that is not fused keeps its scores, thrice in float32.
  Where batches run in lanes (`anglekit.lanes`), as many of the largest as there are lanes.
- *states*: layers that are looked at x tokens of the largest batch x width, of the teacher and of each student; in
  lanes, of as many of the largest as there are slots.
- *sums*: every accumulator's own tensors, counted on the meta device.
- *sample*: states of up to 256 examples, and a copy where they are handed over.
- *work*: buffers of a fixed size in which products and angles are computed.
- *tables*: the frames that are made of the sums, and what writing them takes.

The C library keeps what it is given back (`workspace.keep_freed_memory`), so that parts which are not alive together
still add up, but for those that fit into what another one has left.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from anglekit.architectures import blocks, model_streams, stack, width
from anglekit.geometry.measurement import Measurement
from anglekit.geometry.preparation import Prepared
from anglekit.geometry.subject import Subject
from anglekit.lanes import lane_count, slot_count
from anglekit.probes import ProbeBatch, TokenizedProbe
from anglekit.streams import Stream

__all__ = ["HeldWeights", "analysis_parts", "inner_widths", "memory_now", "peak_memory"]

# Buffers of `streaming` and `products`: a run's values for every vertex, pair and token, and a block of states.
_RUN_BUFFERS = 12
_RUN_BYTES, _THREAD_BLOCK_BYTES = 2 << 20, 2 << 20
_ACCELERATOR_RUN_BYTES, _ACCELERATOR_BLOCK_BYTES = 64 << 20, 256 << 20
# Measured on several pairs: threads' arenas, code that is first run then, parquet's writers.
_FIRST_USE_BYTES = 32 << 20
# A row of the histogram table while it is made: its values in five columns and what concatenation copies.
_HISTOGRAM_ROW_BYTES = 96
_BINS = 1000


@dataclass(frozen=True)
class HeldWeights:
    """The weights of one model.

    Attributes:
        model: without memory, on the meta device.
        device: where it computes.
        by_device: bytes that each device holds; `disk` among them.
        largest_module: bytes of the largest module with weights of its own.
        stored: bytes of these weights in their files.
        mapped: whether the file itself is the memory that holds them, as on a CPU in the stored precision.
        itemsize: bytes of a value of its states.
    """

    model: PreTrainedModel
    device: torch.device
    by_device: Mapping[str, int]
    largest_module: int
    stored: int
    mapped: bool
    itemsize: int


def memory_now() -> int:
    """Return the bytes of main memory that this process takes."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:  # no Linux: the most that it has taken so far
        return peak_memory()
    return pages * os.sysconf("SC_PAGE_SIZE")


def peak_memory() -> int:
    """Return the most bytes of main memory that this process has taken."""
    taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return taken if sys.platform == "darwin" else taken * 1024


def analysis_parts(
    prepared: Prepared, subject: Subject, teacher: HeldWeights, students: Sequence[HeldWeights], program: int
) -> dict[str, dict[str, int]]:
    """Return for each device the parts that are alive at its peak, in bytes; they add up to it.

    Args:
        prepared: the analysis, of checkpoints without memory.
        subject: the same, as data.
        teacher: its weights.
        students: theirs.
        program: bytes of main memory that the process takes with everything imported and the probe tokenised.
    """
    held = (teacher, *students)
    sums_at = "cpu" if teacher.device.type == "mps" else str(teacher.device)
    parts: dict[str, dict[str, int]] = {"cpu": {"program": program + _FIRST_USE_BYTES}}

    def add(device: str, name: str, number: float) -> None:
        place = parts.setdefault(device, {})
        place[name] = place.get(name, 0) + int(number)

    for each in held:
        for device, number in each.by_device.items():
            if device != "disk":
                add(device, "weights", number)
            else:
                add(str(each.device), "weights from disk", 2 * each.largest_module)
    layers = [
        {stream: len(chosen.teacher) for stream, chosen in subject.layers.items()},
        *(
            {stream: len(chosen.students[position]) for stream, chosen in subject.layers.items()}
            for position in range(len(students))
        ),
    ]
    widths = (subject.teacher_width, *subject.student_widths)
    probes = [prepared.measured, *([prepared.fit_half] if prepared.fitted else [])]
    lanes = lane_count([each.model for each in held], [each.device for each in held])
    tokens = {
        stream: max(_largest_tokens(probe, stream, slot_count(lanes)) for probe in probes) for stream in subject.layers
    }
    padded = max(int(np.sort(probe.padded_tokens)[-lanes:].sum()) for probe in probes)
    longest = max(int(batch.input_ids.shape[1]) for probe in probes for batch in _largest_batches(probe, 1))
    passes: dict[str, list[int]] = {}
    for each, counted, states_width in zip(held, layers, widths, strict=True):
        passes.setdefault(str(each.device), []).append(_pass_bytes(each, padded, longest))
        states = sum(counted[stream] * tokens[stream] * states_width * each.itemsize for stream in subject.layers)
        add(str(each.device), "states", states)
        if str(each.device) != sums_at:
            add(sums_at, "states", states)
    for device, several in passes.items():
        add(device, "pass", max(several))
    add(sums_at, "sums", 2 * _tensor_bytes(Measurement.zeros(subject, "meta")))
    if subject.sampled:
        numbers = sum(
            number * side_width
            for counted, side_width in zip(layers, widths, strict=True)
            for number in counted.values()
        )
        add(sums_at, "sample", 2 * 3 * 4 * numbers * subject.capacity)
    most = max(len(subject.layers[s].students[p]) * _pairs(len(subject.layers[s].teacher)) for s, p in subject.keys)
    kind = torch.device(sums_at).type
    run = max(_RUN_BYTES if kind == "cpu" else _ACCELERATOR_RUN_BYTES, 16 * 8 * most)
    block = _THREAD_BLOCK_BYTES * torch.get_num_threads() if kind == "cpu" else _ACCELERATOR_BLOCK_BYTES
    add(sums_at, "work", _RUN_BUFFERS * run + block)
    rows = _BINS * sum(
        len(subject.layers[s].students[p]) * (_pairs(len(subject.layers[s].teacher)) + 1) for s, p in subject.keys
    )
    # What the passes have left is used again for the tables.
    left = sum(parts["cpu"].get(name, 0) for name in ("pass", "states"))
    add("cpu", "tables", max(0, rows * _HISTOGRAM_ROW_BYTES - left))
    _add_reading(parts["cpu"], held)
    return parts


def _add_reading(host: dict[str, int], held: Sequence[HeldWeights]) -> None:
    """Add what loading takes of main memory beyond all that the analysis itself takes later, if it does."""
    sitting, peak = 0, 0
    for each in held:
        own = each.by_device.get("cpu", 0)
        peak = max(peak, sitting + own + (0 if each.mapped else each.stored))
        sitting += own
    later = sum(number for name, number in host.items() if name not in ("program", "weights"))
    host["reading"] = max(0, peak - sitting - later)


def _largest_batches(probe: TokenizedProbe, several: int) -> list[ProbeBatch]:
    """Return the batches with the most padded tokens and the one with the longest example."""
    numbers = {0, *np.argsort(probe.padded_tokens)[-several:].tolist()}
    return list(probe.batches(numbers=sorted(numbers)))


def _largest_tokens(probe: TokenizedProbe, stream: Stream, several: int) -> int:
    """Return how many tokens as many batches hold at most."""
    counts = [len(batch.token_index(stream)) for batch in _largest_batches(probe, several)]
    return sum(sorted(counts)[-several:])


def _pass_bytes(held: HeldWeights, padded: int, longest: int) -> int:
    inner, copies, width = inner_widths(held.model)
    # A CPU makes products of 16-bit values in float32.
    itemsize = 4 if held.device.type == "cpu" else held.itemsize
    kept = padded * itemsize * (copies * inner + 4 * width)
    if getattr(held.model.config, "_attn_implementation", "sdpa") == "eager":
        heads = next(
            filter(None, (getattr(held.model.config, name, 0) for name in ("num_attention_heads", "num_heads"))), 1
        )
        kept += 3 * 4 * int(heads) * padded * longest
    return kept


def inner_widths(model: PreTrainedModel) -> tuple[int, int, int]:
    """Return the widest layer inside a block, how many of its size are alive at once, and the width of the states."""
    wide: list[int] = []
    for stream in model_streams(model.config):
        block = blocks(model, stream)[0]
        for module in block.modules():
            weight = getattr(module, "weight", None)
            if isinstance(weight, Tensor) and weight.ndim == 2 and not isinstance(module, nn.Embedding):
                # Conv1D of GPT-2 holds its matrix the other way round.
                wide.append(max(weight.shape))
    states = width(model.config)
    inner = max(wide, default=states)
    gated = any(
        "gate" in name or "wi_1" in name for name, _ in stack(model, model_streams(model.config)[-1]).named_modules()
    )
    return inner, 3 if gated else 2, states


def _pairs(layers: int) -> int:
    return layers * (layers - 1) // 2


def _tensor_bytes(value: Any) -> int:  # noqa: ANN401 - whatever a state holds
    """Return the bytes of all tensors of a state, each counted once."""
    found: dict[int, int] = {}

    def visit(part: Any) -> None:  # noqa: ANN401
        if isinstance(part, Tensor):
            found[id(part)] = part.numel() * part.element_size()
        elif isinstance(part, Mapping):
            for each in part.values():
                visit(each)
        elif isinstance(part, tuple | list):
            for each in part:
                visit(each)
        elif is_dataclass(part):
            for each in fields(part):
                visit(getattr(part, each.name))

    visit(value)
    return sum(found.values())
