"""A teacher whose answers are kept on disk: it runs for an example once, in whatever run, epoch or batch.

A teacher in evaluation mode says the same of an example each time, so what the losses read of it is stored by the
tokens that the teacher reads: the hidden states of the matched layers, and the logits of its classes, or in place of
the logits of a whole vocabulary the state that enters the head, from which the teacher's own head makes them again.

What is stored is read back at once, so that a student that fills a cache and one that reads it are trained alike. At
padding, which no loss reads, there are zeros.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor, nn
from transformers import PreTrainedModel

from anglekit.distillation.losses.head_logits import made
from anglekit.distillation.losses.objective import TeacherOutputs
from anglekit.distillation.training.head_apart import HeadApart
from anglekit.distillation.training.teacher import TeacherForward, accepted_inputs
from anglekit.errors import InputError, foreign_failures
from anglekit.models.architectures import model_streams
from anglekit.models.check import facts_of
from anglekit.runtime.files import read_json_object, write_json
from anglekit.runtime.placement import compute_device
from anglekit.states.store import SHARD_SCRATCH, is_store, mapped_tensors, save_shard
from anglekit.vocabulary import FinalNorm, Stream

#: What a cache says of itself, beside its shards.
CACHE_FILE: Final = "teacher.json"
# Kept in memory until this much has come; a run that is killed loses no more than that.
_SHARD_BYTES: Final = 64 << 20
# How far logits that are made again may be from the model's own, as a share of the largest: rounding.
_HEAD_ERROR: Final = 1e-4
# Seconds after which nobody is still writing a file.
_ABANDONED: Final = 3600.0
_HEAD: Final = "head"
_LOGITS: Final = "logits"


@dataclass(frozen=True, eq=False)
class _Example:
    """What is kept of one example: by stream (tokens, layers, width); `head` (tokens, 1, width) or `logits`."""

    tensors: Mapping[str, Tensor]


class TeacherCache:
    """The kept answers of one teacher to one set of questions, in a folder of their own.

    Several processes may fill one cache; what two of them add twice is there twice.

    Args:
        directory: of all caches.
        asked: what decides the answers: the teacher's hash, layers, precision. Others get another folder.

    Raises:
        InputError: a file is damaged, or the directory cannot be written or is a state store.
    """

    def __init__(self, directory: str | Path, asked: Mapping[str, Any]) -> None:
        if is_store(directory):
            raise InputError(
                f"{directory} is a state store, which keeps no answers for training", "choose another directory"
            )
        text = json.dumps(asked, sort_keys=True)
        self.directory = Path(directory) / f"teacher-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
        file = self.directory / CACHE_FILE
        try:
            if not file.is_file():
                self.directory.mkdir(parents=True, exist_ok=True)
                write_json(file, json.loads(text))
        except OSError as error:
            raise InputError(f"cannot write {self.directory}: {error.strerror}", "choose another directory") from error
        if json.dumps(read_json_object(file, f"remove {self.directory}"), sort_keys=True) != text:
            raise InputError(f"{file} is of another teacher", f"remove {self.directory}")
        self._shards: list[Mapping[str, Tensor]] = []
        self._starts: list[Mapping[str, NDArray[np.int64]]] = []
        self._place: dict[bytes, tuple[int, int]] = {}
        self._pending: dict[bytes, _Example] = {}
        self._bytes = 0
        for left in self.directory.glob(f"{SHARD_SCRATCH}*"):
            # Of a run that was killed; another may be writing one now.
            if time.time() - left.stat().st_mtime > _ABANDONED:
                left.unlink(missing_ok=True)
        for shard in sorted(self.directory.glob("answers-*.safetensors")):
            self._open(shard)

    def __len__(self) -> int:
        return len(self._place) + len(self._pending)

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._place or digest in self._pending

    def _open(self, file: Path) -> None:
        def damaged(reason: str) -> InputError:
            return InputError(f"{file} is damaged: {reason}", "remove it: what it held is computed again")

        with foreign_failures(damaged):
            with safe_open(file, framework="numpy") as opened:
                digests = opened.get_tensor("digests")
                lengths = {
                    name.removesuffix(".lengths"): opened.get_tensor(name)
                    for name in opened.keys()  # noqa: SIM118 - no mapping
                    if name.endswith(".lengths")
                }
            tensors = dict(mapped_tensors(file))
        for name, each in lengths.items():
            if name not in tensors or int(each.sum()) != len(tensors[name]) or len(each) != len(digests):
                raise damaged(f"{name} does not have the length that it states")
        number = len(self._shards)
        self._shards.append(tensors)
        self._starts.append({name: np.concatenate([[0], np.cumsum(each)]) for name, each in lengths.items()})
        for example, digest in enumerate(digests):
            self._place.setdefault(digest.tobytes(), (number, example))

    def add(self, digest: bytes, tensors: Mapping[str, Tensor]) -> None:
        """Keep what a teacher said of an example, whose tensors this cache then owns."""
        self._pending[digest] = _Example(tensors)
        self._bytes += sum(each.numel() * each.element_size() for each in tensors.values())
        if self._bytes >= _SHARD_BYTES:
            self.flush()

    def get(self, digest: bytes) -> Mapping[str, Tensor]:
        """Return what was kept of an example.

        Raises:
            KeyError: nothing was.
        """
        if digest in self._pending:
            return self._pending[digest].tensors
        number, example = self._place[digest]
        shard, starts = self._shards[number], self._starts[number]
        found = {name: shard[name][begin[example] : begin[example + 1]] for name, begin in starts.items()}
        return {name: each[0] if name == _LOGITS and each.ndim == 2 else each for name, each in found.items()}

    def flush(self) -> None:
        """Write what is in memory.

        Raises:
            RunError: the disk is full, or cannot be written.
        """
        if not self._pending:
            return
        digests = np.frombuffer(b"".join(self._pending), dtype=np.uint8).reshape(len(self._pending), -1)
        tensors: dict[str, Tensor] = {"digests": torch.from_numpy(digests.copy())}
        for name in next(iter(self._pending.values())).tensors:
            parts = [
                one.tensors[name][None] if name == _LOGITS and one.tensors[name].ndim == 1 else one.tensors[name]
                for one in self._pending.values()
            ]
            tensors[name] = torch.cat(parts)
            tensors[f"{name}.lengths"] = torch.tensor([len(part) for part in parts])
        file = self.directory / f"answers-{uuid.uuid4().hex}.safetensors"
        save_shard(tensors, file)
        self._pending, self._bytes = {}, 0
        self._open(file)


class CachedTeacher:
    """A `TeacherProvider` that asks a teacher only for what its cache does not hold.

    A cache that holds more layers than are asked for will do, and is filled with all of them.

    Args:
        teacher: with its head where logits are read. It is put into evaluation mode.
        directory: of all caches.
        layers: for each stream, the teacher layers that losses read.
        logits: whether a loss reads the logits.
        final_norm: whether the last layer's state is taken before or after the final norm.
        device: where the teacher runs; None: on the student's device.
        sha256: of the teacher's weights.
        precision: in which it runs.
        head_apart: as of `TeacherForward`, of what is read from the cache.

    Attributes:
        passes: how many batches were given to the teacher.

    Raises:
        InputError: the teacher's states depend on the padding around a text, so that an example has no state of its
            own; a file of the cache is damaged.
    """

    def __init__(
        self,
        teacher: PreTrainedModel,
        directory: str | Path,
        layers: Mapping[Stream, Sequence[int]],
        *,
        sha256: str,
        precision: str,
        logits: bool = True,
        final_norm: FinalNorm = "excluded",
        device: torch.device | str | None = None,
        head_apart: bool = False,
    ) -> None:
        facts = facts_of(teacher)
        if not facts.batchable:
            raise InputError(
                f"what {type(teacher).__name__} says of a text depends on the texts around it ({facts.batching})",
                "leave the teacher's cache out",
            )
        self.layers = {stream: tuple(sorted(wanted)) for stream, wanted in layers.items() if wanted}
        self.logits = logits
        asked: dict[str, Any] = {
            "teacher": sha256,
            "final_norm": final_norm,
            "precision": precision,
            "dtype": str(teacher.dtype).removeprefix("torch."),
            "layers": {stream: list(self.layers[stream]) for stream in sorted(self.layers)},
            "logits": logits,
        }
        asked = next(_wider(Path(directory), asked), asked)
        self.cache = TeacherCache(directory, asked)
        self.forward = TeacherForward(
            teacher, asked["layers"], logits=asked["logits"], final_norm=final_norm, device=device
        )
        self.passes = 0
        self._streams = model_streams(teacher.config)
        head = teacher.get_output_embeddings() if asked["logits"] else None  # type: ignore[no-untyped-call]
        self._head: nn.Module | None = head if isinstance(head, nn.Module) else None
        self._checked = False
        self._apart = HeadApart(teacher) if head_apart else None

    def to(self, device: torch.device) -> CachedTeacher:
        """Move the teacher to the student's device, unless it has one of its own, and return self."""
        self.forward.to(device)
        return self

    def __call__(self, inputs: Mapping[str, Any]) -> TeacherOutputs:
        """Return what the losses read for one batch, on the device of its inputs."""
        if not (self.logits or self.layers):
            return TeacherOutputs()
        read = accepted_inputs(self.forward.teacher.base_model, inputs)
        real = self._real(read)
        digests = list(_digests(read, real))
        if any(digest not in self.cache for digest in digests):
            self._fill(inputs, real, digests)
        return self._answer(read, real, [self.cache.get(digest) for digest in digests])

    def _real(self, inputs: Mapping[str, Any]) -> dict[Stream, NDArray[np.bool_]]:
        """Return by stream which positions hold tokens, bool (batch, length)."""
        found: dict[Stream, NDArray[np.bool_]] = {}
        for stream in self._streams:
            prefix = "decoder_" if len(self._streams) == 2 and stream == "decoder" else ""
            ids, mask = inputs[f"{prefix}input_ids"], inputs.get(f"{prefix}attention_mask")
            if mask is not None:
                found[stream] = mask.cpu().numpy() != 0
                continue
            # Padding at the end changes nothing before it in a decoder; without a mask an encoder reads it.
            pad = getattr(self.forward.teacher.config, "pad_token_id", None)
            real = np.ones(tuple(ids.shape), dtype=np.bool_)
            if prefix and isinstance(pad, int):
                told = ids.cpu().numpy() != pad
                last = np.where(told.any(1), told.shape[1] - np.argmax(told[:, ::-1], axis=1), 1)
                real = np.arange(told.shape[1]) < np.maximum(last, 1)[:, None]
            found[stream] = real
        return found

    def _fill(
        self, inputs: Mapping[str, Any], real: Mapping[Stream, NDArray[np.bool_]], digests: Sequence[bytes]
    ) -> None:
        """Run the teacher on a batch and keep what it says of the examples that are missing."""
        entered: list[Tensor] = []
        hook = None
        if self._head is not None:
            hook = self._head.register_forward_pre_hook(lambda _module, args: entered.append(args[0].detach()))
        try:
            said = self.forward(inputs)
        finally:
            if hook is not None:
                hook.remove()
        self.passes += 1
        states = {
            stream: torch.stack([_widest(kept)[layer] for layer in sorted(kept)], dim=2).cpu()
            for stream, kept in said.hidden.items()
        }
        logits = None if said.logits is None else made(said.logits)
        output = self._streams[-1]
        by_token = logits is not None and logits.ndim == 3 and tuple(logits.shape[:2]) == real[output].shape
        if logits is not None and not by_token and len(logits) != len(digests):
            raise InputError(
                f"the teacher gives logits of shape {tuple(logits.shape)} for {len(digests)} examples",
                "leave the teacher's cache out",
            )
        head = self._entering_head(entered, logits) if by_token else None
        for example, digest in enumerate(digests):
            if digest in self.cache:
                continue
            kept: dict[str, Tensor] = {
                stream: each[example][torch.from_numpy(real[stream][example])] for stream, each in states.items()
            }
            if logits is not None:
                if by_token:
                    rows = torch.from_numpy(real[output][example])
                    name, values = (_LOGITS, logits) if head is None else (_HEAD, head)
                    kept[name] = values[example].cpu()[rows][:, None].clone()
                else:
                    kept[_LOGITS] = logits[example].cpu().clone()
            self.cache.add(digest, kept)

    def _entering_head(self, entered: Sequence[Tensor], logits: Tensor | None) -> Tensor | None:
        """Return what entered the head, if the logits follow from it alone; None where they must be kept themselves."""
        if self._head is None or logits is None or len(entered) != 1 or entered[0].shape[:2] != logits.shape[:2]:
            self._head = None
            return None
        if not self._checked:
            again = self._logits_of(entered[0]).to(logits.device)
            if (again - logits).abs().max() > _HEAD_ERROR * logits.abs().max():
                self._head = None
                return None
            self._checked = True
        return entered[0]

    def _logits_of(self, entering: Tensor) -> Tensor:
        """Return the logits that the teacher's head makes, as the model makes them behind it (BART's bias)."""
        assert self._head is not None
        teacher = self.forward.teacher
        with torch.no_grad():
            made: Tensor = self._head(entering.to(compute_device(teacher)))
        bias = getattr(teacher, "final_logits_bias", None)
        return made if bias is None else made + bias.to(made.device)

    def _answer(
        self,
        inputs: Mapping[str, Any],
        real: Mapping[Stream, NDArray[np.bool_]],
        kept: Sequence[Mapping[str, Tensor]],
    ) -> TeacherOutputs:
        """Return what was kept of the examples of a batch, as a pass of that batch would give it."""
        back = next(value.device for value in inputs.values() if isinstance(value, Tensor))
        hidden: dict[Stream, dict[int, Tensor]] = {}
        for stream, layers in self.layers.items():
            held = sorted(self.forward.layers[stream])
            places = [held.index(layer) for layer in layers]
            laid = _laid_out(
                [each[stream] if layers == tuple(held) else each[stream][:, places] for each in kept], real[stream]
            )
            hidden[stream] = {layer: laid[place].to(back) for place, layer in enumerate(layers)}
        if not self.logits:
            return TeacherOutputs(None, hidden)
        output = self._streams[-1]
        if _HEAD in kept[0]:
            entering = _laid_out([each[_HEAD] for each in kept], real[output])[0].to(back)
            unmade = None if self._apart is None else self._apart.of_states(entering)
            if unmade is not None:
                return TeacherOutputs(unmade, hidden)
            logits = self._logits_of(entering)
        elif kept[0][_LOGITS].ndim == 1:
            logits = torch.stack([each[_LOGITS] for each in kept])
        else:
            logits = _laid_out([each[_LOGITS] for each in kept], real[output])[0]
        return TeacherOutputs(logits.to(back), hidden)


def _wider(directory: Path, asked: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield what the caches of a directory answer that hold all that is asked, those with the most answers first."""
    found: list[tuple[int, dict[str, Any]]] = []
    for file in directory.glob(f"teacher-*/{CACHE_FILE}"):
        told = read_json_object(file, f"remove {file.parent}")
        layers, others = told.get("layers"), ("teacher", "final_norm", "precision", "dtype")
        if (
            isinstance(layers, dict)
            and all(told.get(name) == asked[name] for name in others)
            and all(set(wanted) <= set(layers.get(stream, [])) for stream, wanted in asked["layers"].items())
            and told.get("logits") in (True, asked["logits"])
        ):
            held = sum(shard.stat().st_size for shard in file.parent.glob("answers-*.safetensors"))
            found.append((held, told))
    yield from (told for held, told in sorted(found, key=lambda each: -each[0]) if held)


def _widest(kept: Mapping[int, Tensor]) -> dict[int, Tensor]:
    """Return states of one precision, that of the finest: mixed precision leaves some layers in float32."""
    dtypes = list(itertools.accumulate((each.dtype for each in kept.values()), torch.promote_types))
    return {layer: each.to(dtypes[-1]) for layer, each in kept.items()}


def _laid_out(examples: Sequence[Tensor], real: NDArray[np.bool_]) -> Tensor:
    """Return the tokens of examples, each (tokens, layers, width), as (layers, batch, length, width), 0 at padding."""
    layers, width = examples[0].shape[1:]
    laid = torch.zeros((layers, *real.shape, width), dtype=examples[0].dtype)
    for row, (tokens, there) in enumerate(zip(examples, real, strict=True)):
        places = np.flatnonzero(there)
        if len(places) and places[-1] - places[0] + 1 == len(places):
            laid[:, row, places[0] : places[-1] + 1].copy_(tokens.transpose(0, 1))
        elif len(places):
            laid[:, row, torch.from_numpy(places)] = tokens.transpose(0, 1)
    return laid


def _digests(inputs: Mapping[str, Any], real: Mapping[Stream, NDArray[np.bool_]]) -> Iterator[bytes]:
    """Yield for each example of a batch a hash of the tokens that the teacher reads of it, and what comes with them."""
    parts: list[tuple[NDArray[Any], NDArray[np.bool_]]] = []
    first = next(iter(real.values()))
    for name in sorted(inputs):
        value = inputs[name]
        if not isinstance(value, Tensor) or name.endswith("attention_mask"):
            continue
        array = value.detach().cpu().numpy()
        there = real["decoder"] if name.startswith("decoder_") and "decoder" in real else first
        parts.append((array, there if array.shape[:2] == there.shape else np.ones(array.shape, dtype=np.bool_)))
    for example in range(len(first)):
        digest = hashlib.blake2b(digest_size=16)
        for array, there in parts:
            own = array[example][there[example]]
            digest.update(f"{own.dtype} {own.shape};".encode() + np.ascontiguousarray(own).tobytes())
        yield digest.digest()
