"""What an analysis would compute, and the memory that it would take, said before it runs; no weight is read."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel

from anglekit.analysis.jobs.extract import waiting_bytes
from anglekit.analysis.measurement import Measurement
from anglekit.analysis.preparation import PreparedAnalysis, Shard, prepare
from anglekit.analysis.settings import AnalysisSettings
from anglekit.analysis.spec import AnalysisSpec
from anglekit.display.counts import counted
from anglekit.errors import InputError
from anglekit.geometry.compiled.choice import in_loops, worth_loops
from anglekit.models.architectures import blocks, depth, model_streams, stack, width
from anglekit.models.checkpoint_files import stored_weights
from anglekit.models.checkpoints import (
    DTYPES,
    Checkpoint,
    checkpoint_name,
    checkpoint_of,
    held_config,
    load_config,
    load_tokenizer,
    weights_source,
)
from anglekit.models.cost import attention_heads, model_cost, without_memory
from anglekit.models.load_options import LoadOptions
from anglekit.models.projections import load_adapters
from anglekit.models.stored.offloaded import blocks_on_disk
from anglekit.probes.batches import ProbeBatch, TokenizedProbe
from anglekit.probes.data import ProbeData
from anglekit.runtime.lanes import lane_count, slot_count
from anglekit.vocabulary import N_BINS, Stream

# Buffers of `accumulator` and `products`: a piece's values for every vertex, pair and token, a block of states, and the
# products and directions of the tokens of a run, of which there are at least so many.
_PIECE_BUFFERS = 12
_PIECE_BYTES, _THREAD_BLOCK_BYTES = 2 << 20, 2 << 20
_ACCELERATOR_PIECE_BYTES, _ACCELERATOR_BLOCK_BYTES = 64 << 20, 256 << 20
_FEWEST_TOKENS = 128
# Measured on several pairs: threads' arenas, code that is first run then, parquet's writers.
_FIRST_USE_BYTES = 32 << 20
# Numba and the code of its loops.
_LOOPS_BYTES = 64 << 20
# A row of the histogram table while it is made: its values in five columns and what concatenation copies.
_HISTOGRAM_ROW_BYTES = 96


@dataclass(frozen=True)
class ModelForecast:
    """One model of an analysis, as it would be loaded.

    Attributes:
        checkpoint: its tokenizer and adapters, and the model without memory, on the meta device.
        device: where it computes.
        bytes: of its weights, by the device that holds them; `disk` among them.
        largest_module: bytes of the largest module with weights of its own; where the blocks stay in their files, of
            the largest block.
        by_blocks: whether they do (`Placement.offload`).
        stored: bytes of these weights in their files.
        mapped: whether the file itself is the memory that holds them, as on a CPU in the stored precision.
        itemsize: bytes of a value of its states.
    """

    checkpoint: Checkpoint
    device: torch.device
    bytes: Mapping[str, int]
    largest_module: int
    by_blocks: bool
    stored: int
    mapped: bool
    itemsize: int

    @property
    def model(self) -> PreTrainedModel:
        """The model, which has no memory."""
        return self.checkpoint.model

    @property
    def parameters(self) -> int:
        """The number of parameters of the blocks that are held."""
        return sum(weight.numel() for weight in self.model.parameters())

    @property
    def blocks(self) -> str:
        """In words, the blocks that are held."""
        words = []
        for stream in self.checkpoint.streams:
            held, whole = depth(self.model.config, stream), self.checkpoint.depth(stream)
            words.append(f"{held} blocks" if held == whole else f"the first {held} of {whole} blocks")
        return " and ".join(words)


def memory_now() -> int:
    """Return the bytes of main memory that this process takes."""
    return int(psutil.Process().memory_info().rss)


def peak_memory() -> int:
    """Return the most bytes of main memory that this process has taken; without such a record, what it takes."""
    taken = psutil.Process().memory_info()
    try:  # psutil has it on Windows alone
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return int(getattr(taken, "peak_wset", taken.rss))
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def _parts(prepared: PreparedAnalysis, models: Sequence[ModelForecast], program: int) -> dict[str, dict[str, int]]:
    """Return for each device the parts that are alive at its peak, in bytes; they add up to it.

    The checkpoints (the teacher's first) have no memory; `program` is what the process takes of main memory with
    everything imported and the probe tokenised.
    """
    spec, main = prepared.spec, models[0].device
    sums_at = "cpu" if main.type == "mps" else str(main)
    kind = torch.device(sums_at).type
    parts: dict[str, dict[str, int]] = {"cpu": {"program": program + _FIRST_USE_BYTES}}

    def add(device: str, name: str, number: float) -> None:
        place = parts.setdefault(device, {})
        place[name] = place.get(name, 0) + int(number)

    for each in models:
        for device, number in each.bytes.items():
            if device != "disk":
                add(device, "weights", number)
            else:
                add(str(each.device), "weights from disk", 2 * each.largest_module)
    if models[0].by_blocks:
        padded = int(prepared.measured.padded_tokens.sum())
        add(str(main), "texts between blocks", waiting_bytes(padded, spec.teacher_width * models[0].itemsize))
    layers = [{stream: len(chosen.teacher) for stream, chosen in spec.layers.items()}]
    layers += [
        {stream: len(chosen.students[position]) for stream, chosen in spec.layers.items()}
        for position in range(len(models) - 1)
    ]
    widths = (spec.teacher_width, *spec.student_widths)
    probes = [prepared.measured, *([] if prepared.fit_half is None else [prepared.fit_half])]
    lanes = lane_count([each.model for each in models], [each.device for each in models])
    tokens = {
        stream: max(_largest_tokens(probe, stream, slot_count(lanes)) for probe in probes) for stream in spec.layers
    }
    padded = max(int(np.sort(probe.padded_tokens)[-lanes:].sum()) for probe in probes)
    longest = max(int(batch.input_ids.shape[1]) for probe in probes for batch in _largest_batches(probe, 1))
    passes: dict[str, list[int]] = {}
    for each, n_layers, states_width in zip(models, layers, widths, strict=True):
        passes.setdefault(str(each.device), []).append(_pass_bytes(each, padded, longest))
        states = sum(n_layers[stream] * tokens[stream] * states_width * each.itemsize for stream in spec.layers)
        add(str(each.device), "states", states)
        if str(each.device) != sums_at:
            add(sums_at, "states", states)
    for device, several in passes.items():
        add(device, "pass", max(several))
    empty, seen = Measurement.zeros(spec, device="meta"), int(prepared.measured.padded_tokens.sum())
    for sums in empty.sums.values():
        # An accelerator has no counts of two bytes.
        sums.angles.make_room(seen if kind == "cpu" else max(seen, 1 << 15))
    add(sums_at, "sums", 2 * sum(tensor.nbytes for tensor in empty.tensors().values()))
    if spec.sampled:
        numbers = sum(
            number * side_width
            for counted, side_width in zip(layers, widths, strict=True)
            for number in counted.values()
        )
        add(sums_at, "sample", 2 * 3 * 4 * numbers * spec.capacity)
    shapes = [(len(spec.layers[s].teacher), len(spec.layers[s].students[p])) for s, p in spec.keys]
    most = max(shapes)
    if any(in_loops(n, layers_of, torch.device(sums_at), spec.epsilon) for layers_of, n in shapes):
        add("cpu", "program", _LOOPS_BYTES)
    piece = _PIECE_BYTES if kind == "cpu" else _ACCELERATOR_PIECE_BYTES
    block = _THREAD_BLOCK_BYTES * torch.get_num_threads() if kind == "cpu" else _ACCELERATOR_BLOCK_BYTES
    add(sums_at, "work", _PIECE_BUFFERS * piece + block + _run_bytes(*most))
    rows = N_BINS * sum(
        len(spec.layers[s].students[p]) * (_pairs(len(spec.layers[s].teacher)) + 1) for s, p in spec.keys
    )
    # What the passes have left is used again for the tables.
    left = sum(parts["cpu"].get(name, 0) for name in ("pass", "states"))
    add("cpu", "tables", max(0, rows * _HISTOGRAM_ROW_BYTES - left))
    _add_reading(parts["cpu"], models)
    return parts


def _run_bytes(n_layers: int, n_vertices: int) -> int:
    """Return what products and directions of the fewest tokens take: of few layers next to nothing."""
    products = n_layers**2 + 2 * (n_layers + n_vertices) * n_vertices
    directions = 5 * n_layers * n_vertices
    return 8 * _FEWEST_TOKENS * (products + directions)


def _add_reading(host: dict[str, int], models: Sequence[ModelForecast]) -> None:
    """Add what loading takes of main memory beyond all that the analysis itself takes later, if it does."""
    sitting, peak = 0, 0
    for each in models:
        own = each.bytes.get("cpu", 0)
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


def _pass_bytes(held: ModelForecast, padded: int, longest: int) -> int:
    inner, copies, width = _inner_widths(held.model)
    # A CPU makes products of 16-bit values in float32.
    itemsize = 4 if held.device.type == "cpu" else held.itemsize
    kept = padded * itemsize * (copies * inner + 4 * width)
    if getattr(held.model.config, "_attn_implementation", "sdpa") == "eager":
        kept += 3 * 4 * (attention_heads(held.model.config) or 1) * padded * longest
    return kept


def _inner_widths(model: PreTrainedModel) -> tuple[int, int, int]:
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


# Bytes of a value.
_PACKED_BYTES = {"8bit": 1.0, "4bit": 0.5}
_STORED_NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
_STORED_BYTES = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2, "I8": 1, "U8": 1, "F8_E4M3": 1, "F8_E5M2": 1}


@dataclass(frozen=True)
class AnalysisForecast:
    """What an analysis would do and take.

    Attributes:
        models: the teacher, then the students.
        examples: that are measured.
        tokens: of them, of all streams.
        padded_tokens: of the largest batch.
        batches: their number.
        flops: of all forward passes: 2 x the parameters that a token meets x padded tokens.
        parts: for each device what it holds at its peak, in bytes.
        layers: in words, what is looked at.
        states_on_disk: bytes of the teacher's states that lie on the disk while it runs; 0 where its blocks do not.
        hint: how it would be faster, in words, or nothing.
    """

    models: tuple[ModelForecast, ...]
    examples: int
    tokens: int
    padded_tokens: int
    batches: int
    flops: float
    parts: Mapping[str, Mapping[str, int]]
    layers: str
    states_on_disk: int
    hint: str

    def peak(self, device: str = "cpu") -> int:
        """Return the bytes that a device holds at its peak; `cpu` is main memory, the program included."""
        return sum(self.parts.get(device, {}).values())

    @property
    def _by_role(self) -> list[tuple[str, ModelForecast]]:
        return [("teacher", self.models[0]), *(("student", each) for each in self.models[1:])]

    def summary(self) -> dict[str, Any]:
        """Return the forecast as json takes it."""
        return {
            "models": [
                {
                    "role": role,
                    "source": each.checkpoint.source,
                    "blocks": each.blocks,
                    "parameters": each.parameters,
                    "bytes": dict(each.bytes),
                    "stored_bytes": each.stored,
                }
                for role, each in self._by_role
            ],
            "examples": self.examples,
            "tokens": self.tokens,
            "largest_batch_padded_tokens": self.padded_tokens,
            "batches": self.batches,
            "flops": self.flops,
            "states_on_disk_bytes": self.states_on_disk,
            "memory_bytes": {device: {**parts, "peak": self.peak(device)} for device, parts in self.parts.items()},
        }

    def text(self) -> str:
        """Return the forecast as text for a terminal."""
        lines = [
            f"{role:<8} {each.checkpoint.source}: {each.parameters / 1e6:,.1f} M parameters in {each.blocks}, "
            + ", ".join(f"{_size(number)} on {device}" for device, number in each.bytes.items())
            for role, each in self._by_role
        ]
        lines += [
            "",
            f"{counted(self.examples, 'example')}, {counted(self.tokens, 'token')} in "
            f"{counted(self.batches, 'batch', plural='batches')} of at most "
            f"{self.padded_tokens:,} padded tokens; {self.flops:.1e} FLOPs of forward passes",
            self.layers,
            "",
        ]
        for device, parts in self.parts.items():
            shown = ", ".join(f"{name} {_size(number)}" for name, number in parts.items() if number)
            lines.append(f"memory of {device}: about {_size(self.peak(device))} at the peak ({shown})")
        if self.states_on_disk:
            lines.append(f"on the disk while it runs: {_size(self.states_on_disk)} of the teacher's states")
        if self.hint:
            lines.append(self.hint)
        lines.append("Nothing was computed and no weight was read.")
        return "\n".join(lines)


def forecast_analysis(
    teacher: str,
    students: Sequence[str],
    probe: ProbeData,
    settings: AnalysisSettings,
    options: Sequence[LoadOptions],
    *,
    shard: Shard | None = None,
) -> AnalysisForecast:
    """Check an analysis as it would be checked, and estimate what it takes, from configurations and file headers.

    Args:
        teacher: a directory, run or hub id.
        students: one or more.
        probe: the texts.
        settings: how.
        options: how each model would be loaded, the teacher's first; their `blocks` say what is held.
        shard: the part of the batches; None: all.

    Raises:
        InputError: what the analysis itself would refuse before its first batch.
    """
    models = [_unloaded(source, each) for source, each in zip((teacher, *students), options, strict=True)]
    prepared = prepare(models[0].checkpoint, [each.checkpoint for each in models[1:]], probe, settings, shard)
    measured = prepared.measured
    padded = np.asarray(measured.padded_tokens)
    costs = [model_cost(each.model) for each in models]
    return AnalysisForecast(
        models=tuple(models),
        examples=measured.n_examples,
        tokens=sum(measured.n_tokens(stream) for stream in measured.streams),
        padded_tokens=int(padded.max()),
        batches=measured.n_batches,
        flops=2.0 * sum(cost.multiplied_text + cost.multiplied_target for cost in costs) * float(padded.sum()),
        parts=_parts(prepared, models, memory_now()),
        layers="; ".join(
            f"{stream}: {len(chosen.teacher)} teacher layers seen from {sum(map(len, chosen.students))} student layers"
            for stream, chosen in prepared.spec.layers.items()
        ),
        states_on_disk=sum(
            measured.n_tokens(stream) * len(chosen.teacher) * models[0].checkpoint.width * models[0].itemsize
            for stream, chosen in prepared.spec.layers.items()
        )
        if models[0].by_blocks
        else 0,
        hint=_hint(prepared.spec, models[0].device),
    )


def _hint(spec: AnalysisSpec, device: torch.device) -> str:
    """Return how the angles would be faster, if numba would make them so and is not installed."""
    shapes = [(len(spec.vertices(key)), len(spec.layers[key[0]].teacher), device, spec.epsilon) for key in spec.keys]
    slow = [shape for shape in shapes if worth_loops(*shape) and not in_loops(*shape)]
    if not slow:
        return ""
    angles = max(n_vertices * _pairs(n_layers) for n_vertices, n_layers, *_ in slow)
    return f"{angles:,} angles a token are taken three times as fast with numba: pip install 'anglekit[compiled]'"


def _unloaded(source: str, options: LoadOptions) -> ModelForecast:
    """Return a checkpoint as it would be loaded, its model without memory."""
    source = checkpoint_of(source)
    config, whole_depth = held_config(source, load_config(source, options), options.blocks)
    directory, dtype = Path(weights_source(source)), DTYPES[options.dtype]

    def refusal(reason: str) -> InputError:
        return InputError(f"{source} describes no model that can be built: {reason}", "correct config.json")

    with without_memory(source, stored_weights(directory) if directory.is_dir() else None, refusal):
        model: Any = AutoModel.from_config(copy.deepcopy(config), dtype=dtype)  # type: ignore[no-untyped-call]
    checkpoint = Checkpoint(
        source=source,
        name=checkpoint_name(source),
        model=model.eval(),
        tokenizer=load_tokenizer(source, options),
        streams=model_streams(model.config),
        adapters=load_adapters(Path(source)) if Path(source).is_dir() else None,
        whole_depth=whole_depth,
    )
    stored, same = _stored(source, model, dtype)
    by_device, largest = _by_device(model, options)
    return ModelForecast(
        checkpoint=checkpoint,
        # The inputs go to the first device that holds weights; to the main one if the disk holds them all.
        device=torch.device(next((device for device in by_device if device != "disk"), options.place)),
        bytes=by_device,
        largest_module=largest,
        by_blocks=options.placement.offload is not None,
        stored=stored,
        mapped=same and set(by_device) == {"cpu"} and options.placement.quantization is None,
        itemsize=dtype.itemsize,
    )


def _stored(source: str, model: PreTrainedModel, dtype: torch.dtype) -> tuple[int, bool]:
    """Return the bytes of a model's weights in its files, and whether all have this precision; by the headers alone.

    Of a checkpoint that is not on this machine yet, or is pickled, those of the precision that is asked for.
    """
    own = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    files = sorted(Path(source).glob("*.safetensors")) if Path(source).is_dir() else []
    if not files:
        return own, True
    ends = {name.removeprefix(f"{model.base_model_prefix}.") for name in model.state_dict()}
    total, precisions = 0, set()
    for file in files:
        try:
            with safe_open(file, framework="pt") as weights:
                for name in weights.keys():  # noqa: SIM118 - no mapping
                    part = weights.get_slice(name)
                    if name.removeprefix(f"{model.base_model_prefix}.") in ends:
                        precisions.add(str(part.get_dtype()))
                        total += int(np.prod(part.get_shape())) * _STORED_BYTES.get(str(part.get_dtype()), 4)
        except (SafetensorError, OSError) as error:
            raise InputError(f"cannot read {file}: {error}", "save the checkpoint again") from error
    # Names that are changed while they are loaded are not found again: then the size is that of the model.
    return total or own, precisions <= {_STORED_NAMES[dtype]}


def _by_device(model: PreTrainedModel, options: LoadOptions) -> tuple[dict[str, int], int]:
    """Return the bytes that each device would hold, and those of the largest module with weights of its own."""
    tensors = dict([*model.named_parameters(), *model.named_buffers()])
    places = _places(model, options)
    found: dict[str, int] = {}
    modules: dict[str, int] = {}
    for name, tensor in tensors.items():
        device, owner = _device_of(name, places), name.rpartition(".")[0]
        each: float = tensor.element_size()
        if options.placement.quantization and tensor.ndim == 2 and isinstance(model.get_submodule(owner), nn.Linear):
            # The matrices of linear layers alone are packed.
            each = _PACKED_BYTES[options.placement.quantization]
        size = int(tensor.numel() * each)
        found[device] = found.get(device, 0) + size
        if options.placement.offload is not None:  # a block is brought in as a whole
            owner = next((place for place in places if name.startswith(f"{place}.")), owner) if device == "disk" else ""
        modules[owner] = modules.get(owner, 0) + size
    return found, max((size for owner, size in modules.items() if owner), default=0)


def _places(model: PreTrainedModel, options: LoadOptions) -> dict[str, str]:
    """Return the device of every part, as accelerate would choose it where a map is to be made."""
    placement = options.placement
    if placement.offload is not None:
        return blocks_on_disk(model, model, options.place)
    if placement.device_map is None:
        return {"": options.place}
    parts: Mapping[str, Any] | None = placement.parts
    if parts is None:
        from accelerate import infer_auto_device_map
        from accelerate.utils import get_balanced_memory, get_max_memory

        split = list(getattr(model, "_no_split_modules", None) or [])
        if placement.device_map == "sequential":
            memory = get_max_memory(placement.sizes)
        else:
            memory = get_balanced_memory(
                model, placement.sizes, split, low_zero=placement.device_map == "balanced_low_0"
            )
        parts = infer_auto_device_map(model, max_memory=memory, no_split_module_classes=split)
    return {part: f"cuda:{device}" if isinstance(device, int) else str(device) for part, device in parts.items()}


def _device_of(name: str, places: Mapping[str, str]) -> str:
    fitting = [part for part in places if part == "" or name == part or name.startswith(f"{part}.")]
    if not fitting:
        raise InputError(f"--device-map names no device for {name}", "add it, or the module that holds it")
    return places[max(fitting, key=len)]


def _size(number: float) -> str:
    return f"{number / 2**30:.2f} GiB" if number >= 2**30 else f"{number / 2**20:.0f} MiB"
