"""The state store: hidden states of one model over one data set, on disk, to be read instead of running the model.

A store is a directory: `states.json` says of which model and texts, `model/` holds the configuration and the tokenizer,
and shards of safetensors hold the states. Each shard holds for every stream `STREAM.states`, (tokens, layers, width),
the tokens of an example behind each other, so that an example is one piece of the file; with int8 also `STREAM.scales`,
float32 (tokens, layers), by which the whole numbers are multiplied. `digests`, uint8 (examples, 16), names each example
by the tokens that were read, `rows`, int64 (examples,), by its row in the data; `STREAM.lengths`, int64 (examples,),
says how many tokens it has; `rounding`, float64 (4,), the numbers of `Rounding` and on how many vectors they rest.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedModel

from anglekit.errors import InputError, RunError, foreign_failures
from anglekit.models.architectures import depth
from anglekit.models.check import ModelFacts, know_facts
from anglekit.models.checkpoint_files import bounded_construction
from anglekit.models.checkpoints import Checkpoint, load_tokenizer, quiet_transformers
from anglekit.models.load_options import LoadOptions
from anglekit.models.text_stack import model_class
from anglekit.probes.batches import ProbeBatch, TokenizedProbe, TokenRuns
from anglekit.results.document import ModelRecord, ProbeRecord
from anglekit.runtime.files import read_document
from anglekit.runtime.workspace import Workspace
from anglekit.states.recorder import TokenStates
from anglekit.vocabulary import STORE_FILE, STORED_NAMES, FinalNorm, Stream

MODEL_DIRECTORY: Final = "model"
FORMAT: Final = 1
#: How states may be stored: by name the type of what is stored.
STORED_DTYPES: Final[Mapping[str, torch.dtype]] = {name: getattr(torch, name) for name in STORED_NAMES}
#: What the name of a half-written shard begins with.
SHARD_SCRATCH: Final = ".writing-"
_DIGEST: Final = 16
_LARGEST_INT8: Final = 127
_AGAIN: Final = "extract the states again, with --overwrite"
_NAMES: Final[Mapping[torch.dtype, str]] = {
    torch.float64: "F64",
    torch.int64: "I64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int8: "I8",
    torch.uint8: "U8",
}
_NUMPY: Final[Mapping[torch.dtype, Any]] = {
    torch.float32: np.float32,
    torch.float16: np.float16,
    torch.bfloat16: np.int16,  # numpy has none; torch reads the same bits
    torch.int8: np.int8,
}


class ShardRecord(msgspec.Struct, frozen=True):
    """One file of a store: its name, its examples, its tokens by stream, and its size in bytes."""

    file: str
    examples: int
    tokens: dict[Stream, int]
    bytes: int


class Rounding(msgspec.Struct, frozen=True):
    """What storing in fewer bits did to the states, measured on their way into the store.

    Attributes:
        distance: the greatest distance between a state and what was stored of it, as a share of its length.
        mean_degrees: by how much the direction from the layers' mean to a layer turned, the mean over tokens and
            layers.
        most_degrees: the most.
    """

    distance: float = 0.0
    mean_degrees: float = 0.0
    most_degrees: float = 0.0


class StoreDocument(msgspec.Struct, frozen=True, kw_only=True):
    """What `states.json` says.

    Attributes:
        format: of the store.
        model: whose states these are.
        data: of which texts.
        layers: those that are held, by stream, ascending.
        final_norm: whether the last one is taken before a final norm or behind it.
        dtype: the precision in which the model ran.
        stored: that of the store, a name of `STORED_DTYPES`.
        facts: what running the model has shown, on which its batches depend.
        shards: the files.
        rounding: what storing changed.
        packages: the versions.
        part: which part of a store that several jobs write this is, and of how many; None: the whole.
        plan_sha256: of a part, the hash of all texts in their batches.
        source_lang: the language in which a multilingual tokenizer read the texts; None: nobody named one.
        target_lang: that of the targets.
    """

    format: int
    model: ModelRecord
    data: ProbeRecord
    layers: dict[Stream, list[int]]
    final_norm: FinalNorm
    dtype: str
    stored: str
    facts: ModelFacts
    shards: list[ShardRecord]
    rounding: Rounding = Rounding()
    packages: dict[str, str] = {}
    part: tuple[int, int] | None = None
    plan_sha256: str | None = None
    source_lang: str | None = None
    target_lang: str | None = None

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise InputError(f"the store has format {self.format}", f"this anglekit reads {FORMAT}")
        if self.stored not in STORED_DTYPES or not self.layers or not all(map(len, self.layers.values())):
            raise InputError("the store names no layers or an unknown precision", _AGAIN)


def is_store(source: str | Path) -> bool:
    """Return whether a path is a state store, damaged or not."""
    return (Path(source) / STORE_FILE).is_file()


def example_digests(probe: TokenizedProbe) -> NDArray[np.uint8]:
    """Return what names each example by the tokens that a model reads of it, uint8 (examples, 16)."""
    found = np.empty((probe.n_examples, _DIGEST), dtype=np.uint8)
    for example in range(probe.n_examples):
        digest = hashlib.blake2b(digest_size=_DIGEST)
        for runs in (probe.text, probe.target):
            if runs is not None:
                digest.update(_bytes_of(runs, example))
        found[example] = np.frombuffer(digest.digest(), dtype=np.uint8)
    return found


def _bytes_of(runs: TokenRuns, example: int) -> bytes:
    start, length = int(runs.starts[example]), int(runs.lengths[example])
    ids = runs.ids[start : start + length]
    types = b"" if runs.type_ids is None else runs.type_ids[start : start + length].tobytes()
    return length.to_bytes(8, "little") + ids.astype("<i4").tobytes() + types


def rounded(states: Tensor, stored: str) -> tuple[Tensor, Tensor | None]:
    """Return states as they are stored, with the scales of int8: float32 (tokens, layers), each to its own token.

    Args:
        states: (tokens, layers, width).
        stored: a name of `STORED_DTYPES`.
    """
    if stored != "int8":
        return states.to(STORED_DTYPES[stored]), None
    scales = states.abs().amax(-1).float() / _LARGEST_INT8
    safe = torch.where(scales > 0, scales, 1.0)
    return (states / safe[..., None]).round_().to(torch.int8), scales


def restored(stored: Tensor, scales: Tensor | None) -> Tensor:
    """Return stored states as numbers to compute with; int8 becomes float32."""
    return stored if scales is None else stored.float() * scales[..., None]


@dataclass(eq=False)
class _Shard:
    """An open shard, mapped into memory."""

    states: Mapping[Stream, Tensor]
    scales: Mapping[Stream, Tensor]
    digests: NDArray[np.uint8]
    starts: Mapping[Stream, NDArray[np.int64]]


class StateStore:
    """A store that is open for reading; its states are mapped, not read into memory.

    Args:
        directory: the store's.

    Raises:
        InputError: there is no store, or it is damaged; the message names the file.
    """

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        if not is_store(self.directory):
            raise InputError(f"{directory} is no state store", "give a directory that `anglekit extract` wrote")
        self.document = read_document(self.directory / STORE_FILE, StoreDocument, _AGAIN, most_bytes=1 << 28)
        self._shards = [self._open(record) for record in self.document.shards]
        self._place: dict[bytes, tuple[int, int]] = {}
        for number, shard in enumerate(self._shards):
            for example, digest in enumerate(shard.digests):
                self._place.setdefault(digest.tobytes(), (number, example))

    def __repr__(self) -> str:
        document = self.document
        layers = "; ".join(f"{stream} {len(held)} layers" for stream, held in document.layers.items())
        return f"StateStore({document.model.name}: {len(self._place)} texts, {layers}, {document.stored})"

    @property
    def n_examples(self) -> int:
        """How many different texts the store holds."""
        return len(self._place)

    @property
    def rounding_words(self) -> str:
        """How states are stored, and what that did to the directions between layers."""
        document = self.document
        if document.stored == document.dtype:
            return f"stored as {document.stored}"
        rounding = document.rounding
        return (
            f"stored as {document.stored}: directions between layers turned by {rounding.mean_degrees:.2g} degrees on "
            f"average, at most {rounding.most_degrees:.2g}"
        )

    def _open(self, record: ShardRecord) -> _Shard:
        file = self.directory / record.file
        document = self.document

        def damaged(reason: str) -> InputError:
            return InputError(f"shard {file} is damaged: {reason}", _AGAIN)

        try:
            size = file.stat().st_size
            if size != record.bytes:
                raise damaged(f"{size} bytes, not {record.bytes}")
            with safe_open(file, framework="numpy") as opened:
                digests = opened.get_tensor("digests")
                lengths = {stream: opened.get_tensor(f"{stream}.lengths") for stream in document.layers}
        except FileNotFoundError as error:
            raise InputError(f"shard {file} is missing", _AGAIN) from error
        except (OSError, SafetensorError) as error:
            raise damaged(str(error)) from error
        mapped = dict(mapped_tensors(file))
        states, scales = {}, {}
        for stream, held in document.layers.items():
            tokens, width = record.tokens.get(stream, -1), document.model.width
            found = mapped.get(f"{stream}.states")
            if found is None or tuple(found.shape) != (tokens, len(held), width):
                raise damaged(f"{stream}.states is not {(tokens, len(held), width)}")
            if found.dtype != STORED_DTYPES[document.stored]:
                raise damaged(f"{stream}.states is {found.dtype}, not {document.stored}")
            if len(digests) != record.examples or len(lengths[stream]) != record.examples:
                raise damaged(f"it holds {len(digests)} texts, not {record.examples}")
            if int(lengths[stream].sum()) != tokens or (len(lengths[stream]) and int(lengths[stream].min()) < 0):
                raise damaged(f"its texts do not have {tokens} tokens")
            states[stream] = found
            if document.stored == "int8":
                own = mapped.get(f"{stream}.scales")
                if own is None or tuple(own.shape) != (tokens, len(held)):
                    raise damaged(f"{stream}.scales is not {(tokens, len(held))}")
                scales[stream] = own
        starts = {stream: np.cumsum(each) - each for stream, each in lengths.items()}
        return _Shard(states, scales, digests, starts)

    def holds(self, digests: NDArray[np.uint8]) -> bool:
        """Return whether the store has these examples and no others; digests as of `example_digests`."""
        return {digest.tobytes() for digest in digests} == self._place.keys()

    def reader(self, probe: TokenizedProbe, layers: Mapping[Stream, Sequence[int]]) -> StoreReader:
        """Return what gives the states of a probe's batches.

        Args:
            probe: its examples must all be in the store.
            layers: by stream the layers to read, ascending; all must be in the store.

        Raises:
            InputError: a text or a layer is not there.
        """
        for stream, wanted in layers.items():
            held = self.document.layers.get(stream, [])
            absent = sorted(set(wanted) - set(held))
            if absent:
                raise InputError(
                    f"{self.directory} holds no layer {', '.join(map(str, absent))} of the {stream}",
                    allowed=f"it holds: {', '.join(map(str, held)) or 'none'}",
                )
        digests = [digest.tobytes() for digest in example_digests(probe)]
        missing = [place for place, digest in enumerate(digests) if digest not in self._place]
        if missing:
            row = int(probe.rows[missing[0]])
            named = {"source": self.document.source_lang, "target": self.document.target_lang}
            languages = " and ".join(f"--{side}-lang {code}" for side, code in named.items() if code)
            raise InputError(
                f"{self.directory} holds no states of {len(missing)} of {probe.n_examples} texts (the first is row "
                f"{row}): other texts, another tokenizer, or cut at another length"
                + (f"; or in other languages than the store's, {languages}" if languages else ""),
                "analyse texts that were extracted, or extract these: anglekit extract",
            )
        places = {int(row): self._place[digest] for row, digest in zip(probe.rows, digests, strict=True)}
        columns = {
            stream: [self.document.layers[stream].index(layer) for layer in wanted] for stream, wanted in layers.items()
        }
        return StoreReader(self._shards, places, {s: tuple(w) for s, w in layers.items()}, columns)


@dataclass(frozen=True, eq=False)
class StoreReader:
    """Gives the states of batches, as `states.recorder.token_states` gives them of a model that runs.

    Attributes:
        layers: the layers that are read, by stream.
    """

    _shards: Sequence[_Shard]
    _places: Mapping[int, tuple[int, int]]
    layers: Mapping[Stream, tuple[int, ...]]
    _columns: Mapping[Stream, list[int]] = field(default_factory=dict)

    def token_states(self, batch: ProbeBatch, workspace: Workspace | None = None) -> dict[Stream, TokenStates]:
        """Return the states of the tokens of a batch that count, each (layers, tokens, width), in main memory.

        Args:
            batch: of the probe that the reader was made for.
            workspace: used by this reader alone; the next call with it overwrites the states. None: the caller owns
                them.
        """
        workspace = workspace or Workspace()
        return {
            stream: TokenStates(layers, self._of_stream(stream, batch, workspace))
            for stream, layers in self.layers.items()
        }

    def _of_stream(self, stream: Stream, batch: ProbeBatch, workspace: Workspace) -> Tensor:
        columns = self._columns[stream]
        index, example = (each.numpy() for each in (batch.token_index(stream), batch.token_example(stream)))
        ids = batch.input_ids if stream != "decoder" or batch.decoder_input_ids is None else batch.decoder_input_ids
        position = index - example * ids.shape[1]
        rows = batch.examples.tolist()
        first = self._shards[0].states[stream]
        dtype = torch.float32 if first.dtype == torch.int8 else first.dtype
        out = workspace.take(f"stored {stream}", (len(columns), len(index), first.shape[2]), dtype, torch.device("cpu"))
        whole = columns == list(range(first.shape[1]))
        for begin, end, number in _runs(example):
            shard_number, place = self._places[rows[number]]
            shard = self._shards[shard_number]
            start = int(shard.starts[stream][place])
            wanted = position[begin:end]
            contiguous = len(wanted) == int(wanted[-1]) - int(wanted[0]) + 1
            tokens: Any = (
                slice(start + int(wanted[0]), start + int(wanted[-1]) + 1)
                if contiguous
                else torch.from_numpy(start + wanted)
            )
            held = shard.states[stream][tokens]
            held = held if whole else held[:, columns]
            scales = shard.scales.get(stream)
            if scales is not None:
                own = scales[tokens] if whole else scales[tokens][:, columns]
                held = restored(held, own)
            out[:, begin:end].copy_(held.transpose(0, 1))
        return out


def _runs(numbers: NDArray[np.int64]) -> Iterator[tuple[int, int, int]]:
    """Yield the runs of equal numbers: where each begins and ends, and the number."""
    edges = np.flatnonzero(np.diff(numbers)) + 1
    begins = [0, *edges.tolist()]
    for begin, end in zip(begins, [*edges.tolist(), len(numbers)], strict=True):
        if end > begin:
            yield begin, end, int(numbers[begin])


class NewShard:
    """A file of tensors that is filled in place, mapped into memory, and gets its name when it is whole.

    The format is that of safetensors. To fill a mapped file costs a quarter of writing what was gathered in memory.

    Args:
        file: its name; nothing of it is there until `finish`.
        shapes: of each tensor the type and the shape.

    Attributes:
        tensors: to be filled; they are not read after `finish`.

    Raises:
        RunError: the disk is full, or cannot be written.
    """

    def __init__(self, file: Path, shapes: Mapping[str, tuple[torch.dtype, Sequence[int]]]) -> None:
        self.file = file
        self._scratch = file.parent / f"{SHARD_SCRATCH}{file.name}"
        header: dict[str, Any] = {}
        end = 0
        # By falling size of the numbers, so that all are aligned.
        for name, (dtype, shape) in sorted(shapes.items(), key=lambda each: (-each[1][0].itemsize, each[0])):
            begin, end = end, end + math.prod(shape) * dtype.itemsize
            header[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        size = 8 + len(text) + end
        try:
            with self._scratch.open("wb") as stream:
                # Room on the disk is taken now: a mapped file that finds none later would end the process.
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(stream.fileno(), 0, size)
                else:
                    stream.truncate(size)
                stream.write(len(text).to_bytes(8, "little") + text)
        except OSError as error:
            self._scratch.unlink(missing_ok=True)
            raise RunError(f"cannot write {file}: {error.strerror or error}") from error
        self._mapped = np.memmap(self._scratch, dtype=np.uint8, mode="r+")
        begin = 8 + len(text)
        self.tensors: dict[str, Tensor] = {
            name: torch.from_numpy(self._mapped[begin + told["data_offsets"][0] : begin + told["data_offsets"][1]])
            .view(shapes[name][0])
            .view(*told["shape"])
            for name, told in header.items()
        }

    def finish(self) -> None:
        """Bring what was filled to the disk and give the file its name.

        Raises:
            RunError: that failed; the file is not there.
        """
        self.tensors = {}
        try:
            self._mapped.flush()
            with self._scratch.open("rb") as written:
                os.fsync(written.fileno())
            self._scratch.replace(self.file)
        except OSError as error:
            self._scratch.unlink(missing_ok=True)
            raise RunError(f"cannot write {self.file}: {error.strerror or error}") from error


def save_shard(tensors: Mapping[str, Tensor], file: Path) -> None:
    """Write a file of tensors, whole or not at all.

    Raises:
        RunError: it cannot be written.
    """
    new = NewShard(file, {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()})
    for name, tensor in tensors.items():
        new.tensors[name].copy_(tensor)
    new.finish()


def mapped_tensors(file: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield the floating-point and 8-bit tensors of a safetensors file whose form was checked, mapped into memory."""
    with file.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(size))
    types = {name: dtype for dtype, name in _NAMES.items() if dtype in _NUMPY}
    for name, told in header.items():
        if told.get("dtype") not in types:
            continue
        dtype, shape = types[told["dtype"]], tuple(told["shape"])
        if math.prod(shape) == 0:
            yield name, torch.empty(shape, dtype=dtype)
            continue
        mapped = np.memmap(file, dtype=_NUMPY[dtype], mode="c", offset=8 + size + told["data_offsets"][0], shape=shape)
        tensor = torch.from_numpy(mapped)
        yield name, tensor.view(torch.bfloat16) if dtype == torch.bfloat16 else tensor


@dataclass(frozen=True, kw_only=True)
class StoredTeacher(Checkpoint):
    """A teacher whose states lie in a store; its model has a configuration and no weights, and cannot be run.

    Attributes:
        store: the states.
        passing: the store is made for this analysis alone, and no result speaks of it.
    """

    store: StateStore
    passing: bool = False

    @property
    def dtype_words(self) -> str:
        """The precision of the states, in words."""
        document = self.store.document
        return document.dtype if document.stored == document.dtype else f"{document.dtype}, stored as {document.stored}"

    @property
    def coarsest(self) -> torch.dtype:
        """The precision that decides how finely states tell layers apart; int8 is about as coarse as bfloat16."""
        document = self.store.document
        stored = torch.bfloat16 if document.stored == "int8" else STORED_DTYPES[document.stored]
        return max((stored, STORED_DTYPES[document.dtype]), key=lambda dtype: torch.finfo(dtype).eps)

    def provenance(self) -> dict[str, Any]:
        """Return what a result records: the checkpoint whose states these are."""
        told = msgspec.to_builtins(self.store.document.model)
        states = {} if self.passing else {"states": self.store.rounding_words}
        return {**{name: value for name, value in told.items() if name != "name"}, **states}


def load_stored_teacher(directory: str | Path) -> StoredTeacher:
    """Return a store as the teacher of an analysis, with its tokenizer and without weights.

    Raises:
        InputError: it is no store, or damaged.
    """
    store = StateStore(directory)
    document, kept = store.document, store.directory / MODEL_DIRECTORY
    with (
        quiet_transformers(),
        torch.device("meta"),
        foreign_failures(lambda reason: InputError(f"{kept} is damaged: {reason}", _AGAIN)),
        bounded_construction(str(kept), None),
    ):
        config = AutoConfig.from_pretrained(kept, local_files_only=True)
        kind = model_class(AutoModel, config) or AutoModel
        build: Any = AutoModel.from_config if kind is AutoModel else kind
        model: PreTrainedModel = build(config)
    nn.Module.to(model, dtype=STORED_DTYPES[document.dtype])
    nn.Module.eval(model)
    know_facts(model, document.facts)
    record = document.model
    return StoredTeacher(
        source=str(directory),
        name=record.name,
        model=model,
        tokenizer=load_tokenizer(str(kept), LoadOptions()),
        streams=tuple(document.facts.streams),
        adapters=None,
        sha256=record.sha256 or "",
        whole_depth={s: d for s, d in record.depth.items() if d != depth(config, s)},  # type: ignore[misc,arg-type]
        store=store,
    )
