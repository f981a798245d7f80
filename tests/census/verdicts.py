"""What anglekit makes of a model type, used as people use it, against what the model itself does.

Each verdict is "right", "refused: " and the line that a person reads, "WRONG: " and how far off the numbers are, or
"TRACEBACK: " and where. What rests on something that was refused is not tried and has no verdict.
"""

from __future__ import annotations

import inspect
import re
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import torch
import transformers
from tokenizers import Tokenizer as FastTokenizer
from tokenizers import models, pre_tokenizers, processors
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity
from transformers import AutoConfig, AutoModel, PreTrainedModel, PreTrainedTokenizerFast

from anglekit.analysis.analyze import analyze
from anglekit.analysis.jobs.extract import extract_states
from anglekit.analysis.settings import AnalysisSettings
from anglekit.distillation.students.create import create_student, student_shape
from anglekit.errors import AnglekitError
from anglekit.models.architectures import blocks
from anglekit.models.checkpoints import Checkpoint, load_checkpoint
from anglekit.models.load_options import LoadOptions
from anglekit.probes.data import ProbeData
from anglekit.results.geometry import Geometry
from anglekit.runtime.placement import Placement
from anglekit.states.recorder import LayerRecorder
from anglekit.states.store import mapped_tensors
from anglekit.vocabulary import Stream
from tests.census.small_models import HIGHEST_WORD, LOWEST_WORD, inputs_for, small_model, some_ids
from tests.census.truth import (
    DECODER_LENGTH,
    LENGTH,
    ROWS,
    StackTruth,
    Step,
    block_path,
    distance,
    layers_of,
    measure,
    run,
    states_among,
    texts,
)

#: What is asked of every type, in this order.
QUESTIONS: Final = (
    *("states", "final_norm", "shortened", "offloaded"),
    *("copied", "copied_otherwise", "random", "reloaded"),
    *("analysis", "batches", "long_texts"),
)
# States of random models are of size 1, and their float32 sums come in another order.
_NEAR: Final = 1e-3
_COSINE_NEAR: Final = 2e-4
_NO_DIRECTION: Final = 1e-4
_OTHER_BLOCKS: Final = (1, 2)
_STUDENT_DEPTH: Final = 2
_WORDS: Final = tuple(f"w{number}" for number in range(LOWEST_WORD, HIGHEST_WORD))
_TEXT_LENGTHS: Final = (3, 9, 5, 9, 1)
_TARGET_LENGTHS: Final = (4, 2, 6, 3, 5)
_LONG: Final = 150


T = TypeVar("T")


class WrongError(Exception):
    """Numbers that are not the model's, given without a word."""


def judge(name: str, folder: Path) -> dict[str, Any]:
    """Return what was found of one type, as JSON takes it: how it was built, the truth, and a verdict by question.

    Args:
        name: the model type.
        folder: an empty directory, for checkpoints.
    """
    row: dict[str, Any] = {"type": name, "model": "", "problem": "", "truth": {}, "verdicts": {}}
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        try:
            model, unused = small_model(name), small_model(name)
        except Exception as error:  # nobody documents what a model's classes raise
            row["problem"] = f"not built: {_line(error)}"
            return row
        row["model"] = type(model).__name__
        reads, row["problem"] = _what_reads(model)
        found: dict[str, StackTruth] = {}
        if reads is not None:
            try:
                found = measure(reads)
            except Exception as error:  # a fault of the census, which must not end it
                memory = isinstance(error, MemoryError) or "allocate memory" in str(error)
                row["problem"] = (
                    "a pass on text alone takes more memory than the census has"
                    if memory
                    else f"TRACEBACK: of the census itself: {_line(error)}"
                )
        row["truth"] = {stream: asdict(truth) for stream, truth in found.items()}
        row["verdicts"] = _Verdicts(reads or model, unused, found, folder).given()
    return row


def _what_reads(model: PreTrainedModel) -> tuple[PreTrainedModel | None, str]:
    """Return what reads texts alone, the model or else a text model inside it, and what keeps the model from it."""
    problem = ""
    for each in (model, *_text_models(model)):
        try:
            run(each, texts(each))
        except Exception as error:  # nobody documents what a model's classes raise
            problem = problem or f"does not run on text alone: {_line(error)}"
        else:
            return each, f"{problem}, but its {type(each).__name__} does" if problem else ""
    return None, problem


def _text_models(model: PreTrainedModel) -> Iterator[PreTrainedModel]:
    """Yield the modules that are whole models of the text configuration inside a model's own."""
    inner = model.config.get_text_config()
    for module in model.modules():
        own = module is not model and isinstance(module, PreTrainedModel) and type(module.config) is type(inner)
        if own and inner is not model.config and "input_ids" in inspect.signature(module.forward).parameters:
            yield module


class _Verdicts:
    """The questions about one model, in turn; grows as they are answered."""

    def __init__(
        self, model: PreTrainedModel, unused: PreTrainedModel, found: Mapping[str, StackTruth], folder: Path
    ) -> None:
        self.model, self.found, self.folder = model, found, folder
        # What is saved has never run: a pass of RWKV changes its weights.
        self.unused = unused
        self.said: dict[str, str] = {}
        self.two = bool(getattr(model.config, "is_encoder_decoder", False))
        self.ids = some_ids(ROWS, LENGTH, seed=5)
        self.decoder_ids = some_ids(ROWS, DECODER_LENGTH, seed=6) if self.two else None

    def given(self) -> dict[str, str]:
        """Return the verdicts by question."""
        teacher = self._ask("states", self._states)
        if teacher is None:
            return self.said
        self._ask("final_norm", lambda: self._final_norm(teacher))
        self._ask("shortened", self._shortened)
        self._ask("offloaded", lambda: self._offloaded(teacher))
        copied = self._ask("copied", lambda: self._copied(teacher, None))
        self._ask("copied_otherwise", lambda: self._copied(teacher, _OTHER_BLOCKS))
        made = self._ask("random", lambda: self._random(teacher))
        students = [student for student in (made, copied) if student is not None]
        if students:
            saved = self._ask("reloaded", lambda: [self._reloaded(student) for student in students])
            if saved:
                self._ask("analysis", lambda: self._analysis(teacher, saved[0], 4096))
                self._ask("batches", lambda: self._analysis(teacher, saved[0], 1))
                self._ask("long_texts", lambda: self._long_texts(teacher, saved[0]))
        return self.said

    def _ask(self, question: str, answer: Callable[[], T]) -> T | None:
        try:
            result = answer()
        except AnglekitError as error:
            self.said[question] = f"refused: {error}"
        except WrongError as error:
            self.said[question] = f"WRONG: {error}"
        except Exception as error:  # that none comes is what is asked
            place = traceback.extract_tb(error.__traceback__)[-1]
            self.said[question] = f"TRACEBACK: {_line(error)} ({Path(place.filename).name}:{place.lineno})"
        else:
            self.said[question] = "right"
            return result
        return None

    # ---- states ----

    def _states(self) -> Checkpoint:
        directory = self.folder / "teacher"
        self.unused.save_pretrained(directory)
        _tokenizer().save_pretrained(directory)
        checkpoint = load_checkpoint(str(directory))
        if not self.found:
            raise WrongError(
                "accepted, though the model does not run on text alone or has no blocks that could be found"
            )
        if set(checkpoint.streams) != set(self.found):
            raise WrongError(f"streams {', '.join(checkpoint.streams)} instead of {', '.join(self.found)}")
        _, steps = run(self.model, self._inputs(self.model))
        recorded = self._recorded(checkpoint)
        for stream, truth in self.found.items():
            own = self._layers(steps, truth.blocks, stream)
            if own is None:
                raise WrongError(f"accepted, though the blocks of the {stream} hand over another shape")
            _compare(f"{stream} states", [recorded[stream][layer] for layer in sorted(recorded[stream])], own)
        return checkpoint

    def _recorded(self, checkpoint: Checkpoint, final_norm: str = "excluded") -> dict[str, dict[int, Tensor]]:
        """Return what anglekit records of one pass, by stream and layer."""
        layers = {stream: range(checkpoint.depth(stream) + 1) for stream in checkpoint.streams}
        with torch.no_grad(), LayerRecorder(checkpoint.model, layers, final_norm) as recorder:
            torch.manual_seed(0)
            checkpoint.model(**self._inputs(checkpoint.model))
        return cast("dict[str, dict[int, Tensor]]", recorder.states)

    def _final_norm(self, teacher: Checkpoint) -> None:
        recorded = self._recorded(teacher, "included")
        output, _ = run(self.model, self._inputs(self.model))
        for stream in self.found:
            name = "encoder_last_hidden_state" if self.two and stream == "encoder" else "last_hidden_state"
            last = getattr(output, name, None)
            if isinstance(last, Tensor) and teacher.model.base_model is teacher.model:
                _compare(f"{stream} last state", [recorded[stream][max(recorded[stream])]], [last])

    def _shortened(self) -> None:
        kept = {cast("Stream", stream): truth.depth - 1 for stream, truth in self.found.items()}
        checkpoint = load_checkpoint(str(self.folder / "teacher"), LoadOptions(blocks=kept))
        _, steps = run(self.model, self._inputs(self.model))
        layers = {stream: range(number + 1) for stream, number in kept.items()}
        with torch.no_grad(), LayerRecorder(checkpoint.model, layers) as recorder:
            checkpoint.model(**self._inputs(checkpoint.model))
        for stream, truth in self.found.items():
            own = self._layers(steps, truth.blocks, stream)
            # The encoder of a shortened encoder-decoder feeds its decoder otherwise.
            if own is not None and not (self.two and stream == "decoder"):
                ours = recorder.states[cast("Stream", stream)]
                _compare(f"{stream} states", [ours[layer] for layer in sorted(ours)], own[:-1])

    def _offloaded(self, teacher: Checkpoint) -> None:
        """Compare stored states of the model run whole with those of one whose blocks stay in their files."""
        options = LoadOptions(device="cpu", placement=Placement(offload="blocks"))
        spread = load_checkpoint(str(self.folder / "teacher"), options)
        settings = AnalysisSettings(token_budget=16)  # several batches on their way
        whole = extract_states(self.folder / "whole", teacher, _probe(), settings)
        read = extract_states(self.folder / "by-blocks", spread, _probe(), settings)
        if read.document.model.sha256 != teacher.sha256:
            raise WrongError("another hash of the weights")
        if read.document.facts != whole.document.facts:
            raise WrongError(f"{read.document.facts} instead of {whole.document.facts}")
        for shard in whole.document.shards:
            ours, theirs = (dict(mapped_tensors(store.directory / shard.file)) for store in (read, whole))
            for name, states in theirs.items():
                _compare(name, [ours[name]], [states])

    # ---- students ----

    def _copied(self, teacher: Checkpoint, chosen: tuple[int, ...] | None) -> PreTrainedModel:
        wanted = None if chosen is None else {cast("Stream", stream): chosen for stream in self.found}
        options: dict[str, Any] = {"layers": _STUDENT_DEPTH, "init": "teacher", "copy_blocks": wanted}
        student = create_student(teacher.model, **options).eval()
        kept, _ = student_shape(teacher.model.config, **options)
        own = _lists_of(student, kept)
        output, steps = run(student, self._inputs(student))
        with _others_bypassed(self.model, self.found, kept):
            expected, teacher_steps = run(self.model, self._inputs(self.model))
        for stream, truth in self.found.items():
            ours = self._layers(steps, own[stream], stream)
            theirs = self._layers(teacher_steps, truth.blocks, stream)
            if ours is None or theirs is None:
                raise WrongError(f"made, though the blocks of the {stream} hand over another shape")
            _compare(
                f"{stream} states of blocks {kept[stream]}", ours[1:], [theirs[block + 1] for block in kept[stream]]
            )
        last, wanted = _last_of(output), _last_of(expected)
        # A composite type's own output need not be its text model's, and a head's need not be copied.
        if len(last) == len(wanted) and type(student) is type(self.model) and student.base_model is student:
            _compare("last hidden state", last, wanted)
        return student

    def _random(self, teacher: Checkpoint) -> PreTrainedModel:
        student = create_student(teacher.model, layers=_STUDENT_DEPTH, init="random").eval()
        kept, _ = student_shape(teacher.model.config, layers=_STUDENT_DEPTH, init="random")
        for stream, chosen in kept.items():
            theirs = blocks(teacher.model, stream)
            for ours, block in zip(blocks(student, stream), chosen, strict=True):
                unlike = _architecture(ours) ^ _architecture(theirs[block])
                if unlike:
                    raise WrongError(f"{stream} block {block} has another architecture: {sorted(unlike)[0]}")
        return student

    def _reloaded(self, student: PreTrainedModel) -> Checkpoint:
        directory = self.folder / f"student-{len(list(self.folder.iterdir()))}"
        before, _ = run(student, self._inputs(student))
        student.save_pretrained(directory)
        _tokenizer().save_pretrained(directory)
        checkpoint = load_checkpoint(str(directory))
        after, _ = run(checkpoint.model, self._inputs(checkpoint.model))
        _compare("last hidden state as saved", _last_of(after), _last_of(before))
        plain = _by_transformers(directory)
        alone, _ = run(plain, self._inputs(plain))
        _compare("last hidden state without anglekit", _last_of(alone), _last_of(before))
        return checkpoint

    # ---- analysis ----

    def _analysis(self, teacher: Checkpoint, student: Checkpoint, token_budget: int) -> None:
        """Compare every angle with its value by hand, each text alone."""
        settings = AnalysisSettings(nulls="none", similarity="none", token_budget=token_budget)
        geometry = analyze(teacher, [student], _probe(), settings)
        for stream, truth in self.found.items():
            own = _lists_of(student.model, teacher.streams)[stream]
            states = [self._of_texts(self.model, truth.blocks, stream), self._of_texts(student.model, own, stream)]
            _compare_angles(geometry, stream, *states)

    def _of_texts(self, model: PreTrainedModel, path: str, stream: str) -> list[Tensor]:
        """Return the states of all tokens of the probe, one text at a time: for each layer (tokens, width)."""
        found: list[list[Tensor]] = []
        tokenizer, start = _tokenizer(), getattr(model.config, "decoder_start_token_id", None)
        probe = _probe()
        for text, target in zip(probe.texts, cast("Sequence[str]", probe.targets), strict=True):
            ids = torch.tensor([tokenizer(text)["input_ids"]])
            own = torch.tensor([[start, *tokenizer(target)["input_ids"][:-1]]]) if self.two else None
            length = ids.shape[1] if own is None or stream == "encoder" else own.shape[1]
            _, steps = run(model, inputs_for(model, ids, decoder_ids=own))
            layers = self._layers(steps, path, stream, 1, length)
            if layers is None:
                raise WrongError(f"analysed, though the blocks of the {stream} hand over another shape")
            found.append([layer[0] for layer in layers])
        return [torch.cat(layer) for layer in zip(*found, strict=True)]

    def _long_texts(self, teacher: Checkpoint, student: Checkpoint) -> None:
        tokenizer = _tokenizer(limit=int(1e30))
        settings = AnalysisSettings(nulls="none", similarity="none")
        pair = [replace(checkpoint, tokenizer=tokenizer) for checkpoint in (teacher, student)]
        geometry = analyze(pair[0], pair[1:], _probe(lengths=(_LONG, 5)), settings)
        inner = geometry.angles[geometry.angles["vertex"] > 0]
        if inner.empty or not inner["mean_cosine"].notna().all():
            raise WrongError("angles are not numbers")

    # ---- inputs ----

    def _layers(
        self, steps: Sequence[Step], path: str, stream: str, rows: int = ROWS, length: int | None = None
    ) -> list[Tensor] | None:
        own = DECODER_LENGTH if self.two and stream == "decoder" else LENGTH
        return layers_of(steps, replace(self.found[stream], blocks=path), rows, length or own)

    def _inputs(self, model: PreTrainedModel) -> dict[str, Any]:
        return inputs_for(model, self.ids, decoder_ids=self.decoder_ids)


def _by_transformers(directory: Path) -> PreTrainedModel:
    """Load a checkpoint as people do without anglekit: by AutoModel, or by the class that its configuration names."""
    config = AutoConfig.from_pretrained(directory)
    known = type(config) in AutoModel._model_mapping
    loader: Any = AutoModel if known else getattr(transformers, cast("list[str]", config.architectures)[0])
    return cast("PreTrainedModel", loader.from_pretrained(directory).eval())


def _last_of(output: Any) -> list[Tensor]:
    """Return the last hidden state of an output that has one, in a list."""
    last = getattr(output, "last_hidden_state", None)
    return [last] if isinstance(last, Tensor) else []


def _lists_of(model: PreTrainedModel, streams: Any) -> dict[str, str]:
    return {stream: block_path(model, blocks(model, stream)) for stream in streams}


def _compare(what: str, ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> None:
    """Raise WrongError unless two lists of states are the same but for rounding."""
    if len(ours) != len(theirs):
        raise WrongError(f"{what}: {len(ours)} layers instead of {len(theirs)}")
    for layer, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        if one.shape != other.shape:
            raise WrongError(f"{what}: layer {layer} of shape {tuple(one.shape)} instead of {tuple(other.shape)}")
        if not (far := distance(one, other)) <= _NEAR:
            raise WrongError(f"{what}: layer {layer} differs by {far:.2g} of its size")


def _compare_angles(geometry: Geometry, stream: str, teacher: Sequence[Tensor], student: Sequence[Tensor]) -> None:
    """Raise WrongError unless every mean cosine at a vertex is that of the states."""
    theirs, ours = ([layer.double() for layer in layers] for layers in (teacher, student))
    rows = geometry.angles[geometry.angles["stream"] == stream]
    if rows.empty:
        raise WrongError(f"no angles in the {stream}")
    for row in rows.itertuples():
        first, second = (theirs[layer] - ours[row.vertex] for layer in (row.teacher_i, row.teacher_k))
        # A copied student's first layer is its teacher's: there is no angle.
        if min(float(each.norm(dim=-1).min()) for each in (first, second)) < _NO_DIRECTION:
            continue
        expected = float(cosine_similarity(first, second, dim=-1).mean())
        if not abs(expected - row.mean_cosine) <= _COSINE_NEAR:
            at = f"vertex {row.vertex}, layers {row.teacher_i} and {row.teacher_k}"
            raise WrongError(f"{stream}: a mean cosine of {row.mean_cosine:.4f} instead of {expected:.4f} at {at}")


_NO_ARCHITECTURE = frozenset({"training", "store_full_length_kv"})


def _architecture(block: nn.Module) -> set[str]:
    """Return what two blocks of one architecture have in common: weights' shapes, modules' classes, words and marks.

    Members of lists inside a block are alike: Zamba2's shared block has an adapter for each block that shares it. That
    a block of Gemma 4 keeps its keys and values for later blocks is no part of it: it computes the same.
    """
    found = {f"{_unnumbered(name)}: {tuple(weight.shape)}" for name, weight in block.named_parameters()}
    for name, module in block.named_modules():
        path = _unnumbered(name)
        found.add(f"{path}: {type(module).__name__}")
        for key, value in vars(module).items():
            if not key.startswith("_") and key not in _NO_ARCHITECTURE and isinstance(value, (bool, str)):
                found.add(f"{path}.{key} = {value}")
    return found


def _unnumbered(name: str) -> str:
    return re.sub(r"(?<=\.)\d+(?=\.|$)", "#", name)


@contextmanager
def _others_bypassed(
    model: PreTrainedModel, found: Mapping[str, StackTruth], kept: Mapping[Any, Sequence[int]]
) -> Iterator[None]:
    """Let only some blocks of each stream change the hidden states inside the block: the others hand on what they got.

    A bypassed block still runs, for what others may read of it (T5's bias by position).
    """
    replaced = []
    for stream, truth in found.items():
        for number, block in enumerate(model.get_submodule(truth.blocks).children()):
            if number not in kept[stream]:
                replaced.append((block, block.__dict__.get("forward")))
                block.forward = _handing_on(block.forward)
    try:
        yield
    finally:
        for block, own in replaced:
            if own is None:
                del block.forward
            else:
                block.forward = own


def _handing_on(original: Callable[..., Any]) -> Callable[..., Any]:
    def forward(*args: Any, **kwargs: Any) -> Any:
        before = states_among(args, kwargs)
        given = None if before is None else before.clone()
        # LiLT's blocks hand on states of the layout beside those of the text.
        beside = {place: value.clone() for place, value in enumerate(args) if _is_state(value) and place > 0}
        output = original(*args, **kwargs)
        if isinstance(output, Tensor):
            return given
        if isinstance(output, tuple | list) and output and isinstance(output[0], Tensor):
            rest = [
                beside[place] if place in beside and _is_state(value) and beside[place].shape == value.shape else value
                for place, value in enumerate(output[1:], 1)
            ]
            return (given, *rest)
        raise NotImplementedError("a block returns neither a tensor nor a tuple that begins with one")

    return forward


def _is_state(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.ndim == 3


def _tokenizer(limit: int = 64) -> PreTrainedTokenizerFast:
    """Return a tokenizer of words that are their own ids, with a begin and an end."""
    special = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3}
    words = {**special, **{word: number for number, word in enumerate(_WORDS, LOWEST_WORD)}}
    tokenizer = FastTokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=limit,
    )


def _probe(lengths: Sequence[int] = _TEXT_LENGTHS) -> ProbeData:
    def text(length: int, seed: int) -> str:
        return " ".join(_WORDS[(7 * seed + 11 * place + place * place) % len(_WORDS)] for place in range(length))

    texts = tuple(text(length, number) for number, length in enumerate(lengths))
    targets = tuple(text(_TARGET_LENGTHS[number], number + 50) for number in range(len(lengths)))
    return ProbeData("memory", "0" * 64, texts, None, targets, tuple(range(len(texts))), 0, "text", None, "target")


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
