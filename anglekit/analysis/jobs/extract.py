"""Hidden states of one model over one data set, written into a state store that is whole or absent."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.linalg import vector_norm
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase as Tokenizer

from anglekit.analysis.given_models import Model, as_checkpoint
from anglekit.analysis.jobs.unfinished import unfinished_directory
from anglekit.analysis.preparation import PreparedAnalysis, Shard, in_languages, package_versions, tokenized_probe
from anglekit.analysis.recorders import progress_batches
from anglekit.analysis.settings import AnalysisSettings
from anglekit.errors import InputError, RunError, suggest
from anglekit.geometry.angles import angle_degrees
from anglekit.models.architectures import depth
from anglekit.models.check import evaluation_mode, facts_of
from anglekit.models.checkpoint_files import weight_file_stamps
from anglekit.models.checkpoints import Checkpoint, quiet_transformers, weights_hash
from anglekit.models.load_options import LoadOptions
from anglekit.probes.batches import ProbeBatch, TokenizedProbe
from anglekit.probes.in_memory import Probe, probe_in_memory
from anglekit.probes.languages import languages_as_found, set_languages
from anglekit.results.document import ModelRecord, ProbeRecord
from anglekit.runtime.files import check_replaceable, read_document, write_json
from anglekit.runtime.lanes import lane_count, run_in_lanes, slot_count
from anglekit.runtime.locks import DirectoryLock
from anglekit.runtime.placement import check_offload, compute_device
from anglekit.runtime.processes import ALONE, Processes
from anglekit.runtime.workspace import Workspace
from anglekit.states.block_by_block import run_block_by_block
from anglekit.states.recorder import LayerRecorder, TokenStates, run_recorded, token_states
from anglekit.states.store import (
    FORMAT,
    MODEL_DIRECTORY,
    SHARD_SCRATCH,
    STORED_DTYPES,
    NewShard,
    Rounding,
    ShardRecord,
    StateStore,
    StoreDocument,
    StoredTeacher,
    example_digests,
    is_store,
    load_stored_teacher,
    restored,
    rounded,
)
from anglekit.vocabulary import STORE_FILE, Stream

#: About the size of a shard.
SHARD_BYTES: Final = 32 << 20
_PLAN_FILE, _LOCK = "plan.json", "lock"
_ROUNDING: Final = "rounding"
#: The most that texts may hold between two blocks of a model whose blocks stay in their files. What is more goes in a
#: later round, for which every weight is read again: by then a round has computed for much longer than reading takes.
IN_FLIGHT_BYTES: Final = 1 << 30
# States of the width that a batch holds there: its own, one before a sum, masks.
_HELD_STATES = 3
# Tokens of a batch on which the rounding is measured: enough for a mean, and a small part of the pass.
_MEASURED = 64


@dataclass(frozen=True, eq=False)
class PreparedExtraction:
    """What will be extracted, before the first batch runs.

    Attributes:
        probe: the texts as the model reads them; every token of them counts.
        document: the store's, its shards still without sizes.
        shards: for each shard the numbers of its batches.
        own: the numbers of this job's shards.
        bytes: what those will take, but for some kilobytes of names.
    """

    probe: TokenizedProbe
    document: StoreDocument
    shards: tuple[range, ...]
    own: tuple[int, ...]
    bytes: int


def prepare_extraction(
    model: Checkpoint,
    data: Probe,
    settings: AnalysisSettings,
    *,
    layers: Sequence[int] | None = None,
    stored: str = "float32",
    part: Shard | None = None,
    read_beside: Sequence[Checkpoint] = (),
) -> PreparedExtraction:
    """Check that everything fits, tokenise, and say what will be written.

    Args:
        model: whose states.
        data: the texts.
        settings: how they are read (lengths, prompts, tokens of a batch) and where the last layer is taken; its layers
            are not asked.
        layers: the layers of each stream, 0 the embedding; None: all.
        stored: the precision of the store, a name of `STORED_DTYPES`.
        part: the part of the shards that this job writes; None: all.
        read_beside: models that will read the same texts: those are cut to what all can take.

    Raises:
        InputError: a layer or precision that does not exist, or texts that the model cannot read.
    """
    if stored not in STORED_DTYPES:
        raise InputError(f"states cannot be stored as {stored!r}", allowed=suggest(stored, STORED_DTYPES))
    if settings.reading == "official":
        raise InputError("the official reading counts padding, which a store has none of", "leave --reading out")
    chosen: dict[Stream, list[int]] = {}
    for stream in model.streams:
        deepest = model.depth(stream)
        wanted = range(deepest + 1) if layers is None else sorted(set(layers))
        wrong = [layer for layer in wanted if not 0 <= layer <= deepest]
        if wrong or not len(wanted):
            raise InputError(
                f"the {stream} of {model.source} has no layer {wrong[0]}" if wrong else "no layers came",
                f"layers run from 0 (embedding) to {deepest}",
            )
        chosen[stream] = list(wanted)
    facts = facts_of(model.model)
    if model.offloaded is not None and facts.restless:
        raise InputError(
            f"a {model.model.config.model_type} changes itself in a pass, and with --offload blocks all passes are on "
            "their way at once",
            "leave --offload out",
        )
    with languages_as_found(each.tokenizer for each in (model, *read_beside)):
        data = in_languages([model, *read_beside], data, settings)
        probe = replace(tokenized_probe(model, read_beside, data, settings), batching=facts.batching)
    # A later reading may leave tokens out; the store leaves out none.
    probe = replace(
        probe,
        text=replace(probe.text, counted=None),
        target=None if probe.target is None else replace(probe.target, counted=None),
    )
    sizes = _bytes_of_tokens(chosen, model.width, stored)
    of_batch = [
        sum(int(_lengths(probe, stream)[positions].sum()) * size for stream, size in sizes.items())
        for positions in probe.plan
    ]
    document = StoreDocument(
        format=FORMAT,
        model=ModelRecord(name=model.name, **model.provenance()),
        data=ProbeRecord(
            source=data.source,
            sha256=data.sha256,
            text=data.text_column,
            text_pair=data.text_pair_column,
            target=data.target_column,
        ),
        layers=chosen,
        final_norm=settings.final_norm,
        source_lang=settings.source_lang,
        target_lang=settings.target_lang,
        dtype=str(model.model.dtype).removeprefix("torch."),
        stored=stored,
        facts=facts,
        shards=[],
        packages=package_versions(),
        part=None if part is None else (part.number, part.of),
        plan_sha256=None if part is None else _texts_sha256(probe),
    )
    shards = tuple(_shards(of_batch))
    own = tuple(number for number in range(len(shards)) if part is None or number % part.of == part.number - 1)
    if not own:
        raise InputError(
            f"the states make {len(shards)} files of {SHARD_BYTES >> 20} MB, and --shard {part} would get none",
            "share them among fewer jobs",
        )
    return PreparedExtraction(
        probe, document, shards, own, sum(of_batch[batch] for number in own for batch in shards[number])
    )


def extract_states(
    out: str | Path,
    model: Model,
    probe: Any,  # noqa: ANN401 - whatever `probe_in_memory` takes
    settings: AnalysisSettings | None = None,
    *,
    layers: Sequence[int] | None = None,
    stored: str = "float32",
    tokenizer: Tokenizer | None = None,
    part: Shard | None = None,
    read_beside: Sequence[Checkpoint] = (),
    overwrite: bool = False,
    processes: Processes = ALONE,
    progress: bool = False,
) -> StateStore:
    """Run a model over texts and store its hidden states.

    `extract_states("states", "runs/teacher", "train.tsv")`, and then `analyze("states", student, "train.tsv")`.

    Shards are written into `OUT.unfinished`, each whole or not at all; a run that was stopped goes on with those that
    are missing. The directory gets its name when all are there. The same store, if it is there already, is returned.

    A model whose blocks stay in their files (`Placement.offload`) runs all texts through block after block, so that
    each weight is read once, or once for each `IN_FLIGHT_BYTES` of what the texts need between two blocks.

    Args:
        out: the store's directory.
        model: whose states: a `Checkpoint`, a model in memory, a directory or a hub id.
        probe: the texts, as `analyze` takes them.
        settings: see `prepare_extraction`.
        layers: see `prepare_extraction`.
        stored: see `prepare_extraction`.
        tokenizer: that of a model in memory.
        part: the part that this job writes; `merge_stores` joins them. None: all.
        read_beside: see `prepare_extraction`.
        overwrite: replace a store that is there.
        processes: those that share the shards; each calls this function alike.
        progress: show a progress bar on the terminal.

    Raises:
        InputError: something does not fit, `out` exists or is in use, an unfinished store of something else lies
            there, or the disk has too little room.
        RunError: something cannot be written, or another process failed.
    """
    out = Path(out)
    with processes.together():
        model = as_checkpoint(model, "model", tokenizer, LoadOptions())
        data = probe_in_memory(probe)
        prepared = prepare_extraction(
            model,
            data,
            settings or AnalysisSettings(),
            layers=layers,
            stored=stored,
            part=part,
            read_beside=read_beside,
        )
        if model.offloaded is not None:
            check_offload("blocks", shared=processes.count > 1 or part is not None)
        # A run that was stopped after its last step had nothing left to do.
        there = None if overwrite else _same_store(out, model, prepared)
        if there is None:
            check_replaceable(out, STORE_FILE, overwrite=overwrite)
    if processes.all(there is not None) and there is not None:
        if processes.first:
            # Of a run that was killed behind its last step but one.
            (out / _PLAN_FILE).unlink(missing_ok=True)
        return there
    unfinished = unfinished_directory(out)
    with ExitStack() as stack:
        with processes.together():
            if processes.first:
                stack.enter_context(DirectoryLock(unfinished, _LOCK, holder="extraction"))
                _begin(unfinished, model, prepared)
        with processes.together():
            if model.offloaded is None:
                _write_shards(unfinished, model, prepared, processes, progress=progress)
            else:
                prepared = _write_by_blocks(unfinished, model, prepared, progress=progress)
        with processes.together():
            if processes.first:
                _complete(unfinished, model, prepared)
    with processes.together():
        if processes.first:
            put_in_place(unfinished, out)
            # Last of all: until the directory has its name, a run that goes on must know of what the shards are.
            (out / _PLAN_FILE).unlink()
    return StateStore(out)


@contextmanager
def offloaded_states(
    prepared: PreparedAnalysis, probe: Probe, place: Path | None, *, progress: bool
) -> Iterator[StoredTeacher]:
    """Store the states of a teacher whose blocks stay in their files for the length of an analysis.

    Args:
        prepared: the analysis of that teacher.
        probe: its texts.
        place: the directory of the store, in which a run that was stopped goes on; None: a temporary one.
        progress: show a progress bar on the terminal.

    Yields:
        The teacher, read from the store.

    Raises:
        InputError: as `extract_states`.
        RunError: as `extract_states`.
    """
    with ExitStack() as stack:
        if place is None:
            place = Path(stack.enter_context(TemporaryDirectory(prefix="anglekit-states-"))) / "states"
        extract_states(
            place,
            prepared.teacher,
            probe,
            prepared.spec.settings,
            layers=prepared.spec.settings.teacher_layers,
            read_beside=prepared.students,
            progress=progress,
        )
        yield replace(load_stored_teacher(place), source=prepared.teacher.source, passing=True)


def _same_store(out: Path, model: Checkpoint, prepared: PreparedExtraction) -> StateStore | None:
    """Return the store that is there, if it is the one that would be written; None: none is there.

    Raises:
        InputError: it is another, or damaged.
    """
    if not is_store(out):
        return None
    store = StateStore(out)
    plain = msgspec.structs.replace(store.document, shards=[], rounding=Rounding(), packages={})
    wanted = _without_versions(prepared.document)
    if model.offloaded is not None:
        wanted = _of_weights(wanted, weights_hash(model.model, model.offloaded))
    own = np.concatenate([prepared.probe.plan[batch] for number in prepared.own for batch in prepared.shards[number]])
    differing = _differing(plain, wanted)
    if not differing and not store.holds(example_digests(prepared.probe)[own]):
        differing = "texts"
    if differing:
        raise InputError(
            f"{out} exists and holds states of other {differing}",
            "choose another directory, or replace it with --overwrite",
        )
    return store


def _differing(one: StoreDocument, other: StoreDocument) -> str:
    """Return in words in what two stores differ, shards and versions apart; "" where they do not."""
    ours, theirs = (msgspec.to_builtins(each) for each in (one, other))
    words = {
        "weights": one.model.sha256 != other.model.sha256,
        "model": ours["model"] != theirs["model"] and one.model.sha256 == other.model.sha256,
        "texts": ours["data"] != theirs["data"],
        "layers": one.layers != other.layers,
        "precision (--states-dtype)": one.stored != other.stored,
    }
    named = {"model", "data", "layers", "stored", "shards", "packages", "rounding"}
    words["settings"] = any(ours.get(name) != theirs.get(name) for name in {*ours, *theirs} - named)
    return " and ".join(word for word, differs in words.items() if differs)


def _without_versions(document: StoreDocument) -> StoreDocument:
    """Return a document that another minor version of a package would write alike."""
    return msgspec.structs.replace(document, packages={})


def _of_weights(document: StoreDocument, sha256: str) -> StoreDocument:
    """Return a document that says of which weights the states are."""
    return msgspec.structs.replace(document, model=msgspec.structs.replace(document.model, sha256=sha256))


def _bytes_of_tokens(layers: Mapping[Stream, Sequence[int]], width: int, stored: str) -> dict[Stream, int]:
    """Return the bytes that a token of each stream takes."""
    scale = 4 if stored == "int8" else 0
    return {stream: len(held) * (width * STORED_DTYPES[stored].itemsize + scale) for stream, held in layers.items()}


def _lengths(probe: TokenizedProbe, stream: Stream) -> NDArray[np.int64]:
    return probe.text.lengths if stream == probe.text_stream or probe.target is None else probe.target.lengths


def _shards(sizes: Sequence[int]) -> Iterator[range]:
    """Yield ranges of batches of about a shard's size; a larger batch is a shard alone."""
    start, held = 0, 0
    for number, size in enumerate(sizes):
        if number > start and held + size > SHARD_BYTES:
            yield range(start, number)
            start, held = number, 0
        held += size
    if start < len(sizes):
        yield range(start, len(sizes))


def _shard_name(number: int) -> str:
    return f"states-{number:05d}.safetensors"


# ---- writing ----


class _Plan(msgspec.Struct, frozen=True):
    """What an unfinished store will hold, so that a run that goes on is of the same.

    Attributes:
        document: the store's; of a model whose blocks stay in their files without its hash, which is not known yet.
        texts: the hash of what is read.
        files: of such a model, its files with their sizes and times.
    """

    document: StoreDocument
    texts: str
    files: tuple[tuple[str, int, int], ...] = ()

    @classmethod
    def of(cls, model: Checkpoint, prepared: PreparedExtraction) -> _Plan:
        # Of a hub's checkpoint the configuration tells the commit.
        here = model.offloaded is not None and Path(model.source).is_dir()
        files = weight_file_stamps(Path(model.source)) if here else ()
        return cls(_without_versions(prepared.document), _texts_sha256(prepared.probe), files)


def _texts_sha256(probe: TokenizedProbe) -> str:
    """Return the hash of all tokens that are read, and of how they are shared among batches."""
    digest = hashlib.sha256(example_digests(probe).tobytes())
    for batch in probe.plan:
        digest.update(probe.rows[batch].tobytes() + b"|")
    return digest.hexdigest()


def _begin(unfinished: Path, model: Checkpoint, prepared: PreparedExtraction) -> None:
    """Write down what is extracted, or refuse to go on with something else or without room."""
    plan, file = _Plan.of(model, prepared), unfinished / _PLAN_FILE
    for left in unfinished.glob(f"{SHARD_SCRATCH}*"):
        left.unlink()
    if file.exists():
        kept = read_document(file, _Plan, f"remove {unfinished} to begin anew", most_bytes=1 << 28)
        if msgspec.to_builtins(kept) != msgspec.to_builtins(plan):
            what = _differing(kept.document, plan.document) or ("texts" if kept.files == plan.files else "weights")
            raise InputError(
                f"{unfinished} holds an unfinished store of other {what}", "remove it to begin anew, or change --out"
            )
    elif (shard := min(unfinished.glob("states-*.safetensors"), default=None)) is not None:
        raise InputError(
            f"{unfinished} holds {shard.name} and no {_PLAN_FILE}, which says of what the states are",
            "remove the directory to begin anew",
        )
    there = sum(entry.stat().st_size for entry in unfinished.glob("states-*.safetensors"))
    free = shutil.disk_usage(unfinished).free
    if (needed := prepared.bytes - there) > free:
        smaller = "" if prepared.document.stored == "int8" else "--states-dtype bfloat16 or int8, "
        raise InputError(
            f"the states take {needed / 1e6:,.1f} MB more and the disk of {unfinished.parent} has {free / 1e6:,.1f}",
            f"choose fewer layers (--teacher-layers), {smaller}or another disk",
        )
    if not file.exists():
        write_json(file, plan)


def _write_shards(
    unfinished: Path, model: Checkpoint, prepared: PreparedExtraction, processes: Processes, *, progress: bool
) -> None:
    """Write this process's shards that are not there."""
    layers = prepared.document.layers
    missing = _missing(unfinished, prepared, processes)
    digests = example_digests(prepared.probe)
    with evaluation_mode(model.model), LayerRecorder(model.model, layers, prepared.document.final_norm) as recorder:
        restless = bool(recorder.facts.restless)
        lanes = 1 if restless else lane_count([model.model], [compute_device(model.model)])
        workspaces = [Workspace() for _ in range(slot_count(lanes))]
        numbers = [(batch, shard) for shard in missing for batch in prepared.shards[shard]]
        batches = progress_batches(prepared.probe, "extracting", progress, [batch for batch, _ in numbers])
        filled: _ShardFile | None = None
        came = iter(numbers)

        def states(batch: ProbeBatch, slot: int) -> dict[Stream, TokenStates]:
            return token_states(recorder, batch, workspaces[slot])

        def keep(_batch: ProbeBatch, found: dict[Stream, TokenStates]) -> None:
            nonlocal filled
            number, shard = next(came)
            own = prepared.shards[shard]
            if filled is None:
                filled = _ShardFile(unfinished / _shard_name(shard), prepared, own, digests)
            filled.add(number, found)
            if number == own[-1]:
                # What was filled comes to the disk while the next shard is computed.
                saving.append(disk.submit(filled.finish))
                filled = None

        saving: list[Future[None]] = []
        with ThreadPoolExecutor(1) as disk:
            run_in_lanes(batches, states, keep, lanes)
        for each in saving:
            each.result()


def _missing(unfinished: Path, prepared: PreparedExtraction, processes: Processes = ALONE) -> list[int]:
    """Return the numbers of this process's shards that are not there, or were cut since."""
    return [
        number
        for place, number in enumerate(prepared.own)
        if place % processes.count == processes.rank and not _is_whole(unfinished / _shard_name(number))
    ]


def _is_whole(file: Path) -> bool:
    """Whether a shard is there in its whole length. A written one always is; it may have been cut, or its disk."""
    if not file.exists():
        return False
    try:
        with safe_open(file, framework="numpy"):
            return True
    except SafetensorError:
        return False


def _write_by_blocks(
    unfinished: Path, model: Checkpoint, prepared: PreparedExtraction, *, progress: bool
) -> PreparedExtraction:
    """Write the shards that are not there block after block; return the extraction with the hash of the weights."""
    document, probe = prepared.document, prepared.probe
    digests, known = example_digests(probe), dict[str, bytes]()
    with evaluation_mode(model.model), LayerRecorder(model.model, document.layers, document.final_norm) as recorder:
        lanes = lane_count([model.model], [compute_device(model.model)], held=True)
        n_blocks = sum(depth(model.model.config, stream) for stream in model.streams)
        rounds = list(_rounds(_missing(unfinished, prepared), prepared, model.width * model.model.dtype.itemsize))
        with tqdm(desc="extracting", unit="block", total=n_blocks * len(rounds), disable=not progress) as bar:
            for numbers in rounds:
                shards = [
                    _ShardFile(unfinished / _shard_name(number), prepared, prepared.shards[number], digests)
                    for number in numbers
                ]
                passes = [
                    partial(_pass_into, shard, recorder, probe, batch)
                    for number, shard in zip(numbers, shards, strict=True)
                    for batch in prepared.shards[number]
                ]
                known |= run_block_by_block(model.model, model.streams, passes, lanes=lanes, on_block=bar.update)
                del passes
                while shards:
                    shards.pop(0).finish()
    sha256 = weights_hash(model.model, model.offloaded or (), known)
    return replace(prepared, document=_of_weights(document, sha256))


def waiting_bytes(padded_tokens: int, bytes_of_a_state: int) -> int:
    """Return what texts hold while they wait between two blocks, at most: what is more goes in a later round."""
    return min(IN_FLIGHT_BYTES, padded_tokens * bytes_of_a_state * _HELD_STATES)


def _rounds(numbers: Sequence[int], prepared: PreparedExtraction, bytes_of_a_state: int) -> Iterator[list[int]]:
    """Yield the shards whose batches are on their way at once; a shard that holds more than the bound goes alone."""
    held, room = list[int](), IN_FLIGHT_BYTES
    for number in numbers:
        padded = sum(int(prepared.probe.padded_tokens[batch]) for batch in prepared.shards[number])
        needed = padded * bytes_of_a_state * _HELD_STATES
        if held and needed > room:
            yield held
            held, room = [], IN_FLIGHT_BYTES
        held.append(number)
        room -= needed
    if held:
        yield held


def _pass_into(shard: _ShardFile, recorder: LayerRecorder, probe: TokenizedProbe, number: int) -> None:
    """Run a batch and write each state into its shard as it comes."""
    (batch,) = probe.batches(numbers=[number])
    index = {stream: batch.token_index(stream) for stream in recorder.layers}

    def keep(stream: Stream, layer: int, state: Tensor) -> None:
        rows = state.flatten(0, 1).index_select(0, index[stream].to(state.device))
        shard.add_layer(number, stream, layer, rows.cpu())

    run_recorded(recorder, batch, keep)
    shard.end_batch(number)


class _ShardFile:
    """A shard while its batches come, each whole and in turn, or all of them layer by layer."""

    def __init__(self, file: Path, prepared: PreparedExtraction, batches: range, digests: NDArray[np.uint8]) -> None:
        document, probe = prepared.document, prepared.probe
        examples = np.concatenate([probe.plan[number] for number in batches])
        self.stored, self.layers = document.stored, document.layers
        known = {
            "digests": torch.from_numpy(digests[examples]),
            "rows": torch.from_numpy(probe.rows[examples]),
            **{f"{stream}.lengths": torch.from_numpy(_lengths(probe, stream)[examples]) for stream in document.layers},
        }
        shapes: dict[str, tuple[torch.dtype, Sequence[int]]] = {
            _ROUNDING: (torch.float64, (4,)),
            **{name: (tensor.dtype, tensor.shape) for name, tensor in known.items()},
        }
        #: By batch and stream, where its tokens stand.
        self.places: dict[tuple[int, Stream], slice] = {}
        self._exact: dict[tuple[int, Stream], Tensor] = {}
        self._turned: dict[tuple[int, Stream], tuple[Rounding, int]] = {}
        for stream, held in document.layers.items():
            end = 0
            for batch in batches:
                begin, end = end, end + int(_lengths(probe, stream)[probe.plan[batch]].sum())
                self.places[batch, stream] = slice(begin, end)
            shape = (end, len(held), document.model.width or 0)
            shapes[f"{stream}.states"] = (STORED_DTYPES[self.stored], shape)
            if self.stored == "int8":
                shapes[f"{stream}.scales"] = (torch.float32, shape[:2])
        self.new = NewShard(file, shapes)
        for name, tensor in known.items():
            self.new.tensors[name].copy_(tensor)

    def add(self, batch: int, states: Mapping[Stream, TokenStates]) -> None:
        """Take in the states of a batch, each stream's (layers, tokens, width)."""
        for stream, found in states.items():
            by_token = found.states.cpu().transpose(0, 1)
            self._put(batch, stream, slice(None), by_token)
            if self._rounds(by_token):
                self._exact[batch, stream] = by_token[:_MEASURED]
        self.end_batch(batch)

    def add_layer(self, batch: int, stream: Stream, layer: int, states: Tensor) -> None:
        """Take in the states of one layer of a batch, (tokens, width)."""
        column, held = self.layers[stream].index(layer), len(self.layers[stream])
        self._put(batch, stream, slice(column, column + 1), states[:, None])
        if self._rounds(states):
            few = states[:_MEASURED]
            exact = self._exact.setdefault((batch, stream), few.new_empty(len(few), held, few.shape[1]))
            exact[:, column] = few

    def _rounds(self, states: Tensor) -> bool:
        return states.dtype != STORED_DTYPES[self.stored]

    def _put(self, batch: int, stream: Stream, columns: slice, states: Tensor) -> None:
        """Write states, (tokens, layers, width), where they belong."""
        place = self.places[batch, stream]
        target = self.new.tensors[f"{stream}.states"][place, columns]
        if states.dtype == target.dtype:
            target.copy_(states)
            return
        small, scales = rounded(states, self.stored)
        target.copy_(small)
        if scales is not None:
            self.new.tensors[f"{stream}.scales"][place, columns] = scales

    def end_batch(self, batch: int) -> None:
        """Measure how far rounding moved some states of a batch that is whole."""
        for stream in self.layers:
            if (exact := self._exact.pop((batch, stream), None)) is None:
                continue
            begin = self.places[batch, stream].start
            few = slice(begin, begin + len(exact))
            scales = self.new.tensors.get(f"{stream}.scales")
            kept = restored(self.new.tensors[f"{stream}.states"][few], None if scales is None else scales[few])
            self._turned[batch, stream] = _rounding_of(exact, kept)

    def finish(self) -> None:
        """Give the file its name."""
        rounding, measured = _merged(self._turned[key] for key in self.places if key in self._turned)
        told = (rounding.distance, rounding.mean_degrees, rounding.most_degrees, float(measured))
        self.new.tensors[_ROUNDING].copy_(torch.tensor(told, dtype=torch.float64))
        self.new.finish()


def _rounding_of(states: Tensor, kept: Tensor) -> tuple[Rounding, int]:
    """Return how far rounding moved states, both (tokens, layers, width), and on how many vectors that rests."""
    exact, moved = states.double(), kept.double()
    length = vector_norm(exact, dim=-1).clamp(min=torch.finfo(torch.float64).tiny)
    distance = float(torch.nan_to_num(vector_norm(exact - moved, dim=-1) / length).max())
    one, other = (each - each.mean(1, keepdim=True) for each in (exact, moved))
    # A layer in the middle of all has no direction to turn.
    degrees = torch.nan_to_num(angle_degrees(one, other))
    return Rounding(distance, float(degrees.mean()), float(degrees.max())), degrees.numel()


def _merged(several: Iterable[tuple[Rounding, float]]) -> tuple[Rounding, float]:
    """Return several roundings as one, with the number of all vectors."""
    found, measured = Rounding(), 0.0
    for one, count in several:
        total = measured + count
        mean = (found.mean_degrees * measured + one.mean_degrees * count) / total if total else 0.0
        found = Rounding(max(found.distance, one.distance), mean, max(found.most_degrees, one.most_degrees))
        measured = total
    return found, measured


def _complete(unfinished: Path, model: Checkpoint, prepared: PreparedExtraction) -> None:
    """Write what belongs beside the shards, states.json last."""
    records = []
    for number in prepared.own:
        file = unfinished / _shard_name(number)
        examples = np.concatenate([prepared.probe.plan[batch] for batch in prepared.shards[number]])
        tokens = {stream: int(_lengths(prepared.probe, stream)[examples].sum()) for stream in prepared.document.layers}
        records.append(ShardRecord(file.name, len(examples), tokens, file.stat().st_size))
    try:
        with quiet_transformers(), languages_as_found([model.tokenizer]):
            model.model.config.save_pretrained(unfinished / MODEL_DIRECTORY)
            if model.tokenizer is not None:
                set_languages(model.tokenizer, prepared.document.source_lang, prepared.document.target_lang)
                model.tokenizer.save_pretrained(unfinished / MODEL_DIRECTORY)
    except OSError as error:
        raise RunError(f"cannot write {unfinished / MODEL_DIRECTORY}: {error.strerror or error}") from error
    rounding = rounding_of_files(unfinished / record.file for record in records)
    write_json(unfinished / STORE_FILE, msgspec.structs.replace(prepared.document, shards=records, rounding=rounding))


def rounding_of_files(files: Iterable[Path]) -> Rounding:
    """Return what storing changed in the states of several shards."""
    found = []
    for file in files:
        with safe_open(file, framework="numpy") as opened:
            *told, count = opened.get_tensor(_ROUNDING).tolist()
        found.append((Rounding(*told), count))
    return _merged(found)[0]


def put_in_place(unfinished: Path, out: Path) -> None:
    """Give the directory its name; a store that was there goes when the new one is whole."""
    retired = out.with_name(f"{out.name}.replaced")
    try:
        if out.exists():
            out.rename(retired)
        unfinished.rename(out)
    except OSError as error:
        raise RunError(f"cannot write {out}: {error.strerror or error}") from error
    if retired.is_symlink():
        retired.unlink()
    elif retired.exists():
        shutil.rmtree(retired)
