"""What is settled before the first batch: that all fits, which layers and tokens take part, what is recorded."""

from __future__ import annotations

import hashlib
import inspect
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PretrainedConfig
from transformers import PreTrainedTokenizerBase as Tokenizer

from anglekit.analysis.settings import AnalysisSettings
from anglekit.analysis.spec import (
    Aims,
    AnalysisRecord,
    AnalysisSpec,
    Key,
    ProbeCounts,
    StreamLayers,
    settings_record,
)
from anglekit.errors import InputError
from anglekit.geometry.angles import cosine_resolution, state_rounding
from anglekit.geometry.token_sample import sample_capacity
from anglekit.models.architectures import depth, model_streams
from anglekit.models.check import facts_of
from anglekit.models.checkpoints import Checkpoint, student_names
from anglekit.models.lengths import shared_limits
from anglekit.models.load_options import LoadOptions
from anglekit.models.memory.foreign import ForeignModel
from anglekit.models.projections import relative_depth_layer
from anglekit.probes.batches import TokenizedProbe
from anglekit.probes.data import ProbeData
from anglekit.probes.in_memory import Probe, TokenInputs, tokenized_inputs
from anglekit.probes.languages import languages_as_found, set_languages
from anglekit.probes.shared_vocabulary import shared_vocabulary, stored_difference, vocabulary_entries
from anglekit.probes.tokenize import (
    read_alike,
    special_token_ids,
    tokenize_continued_probe,
    tokenize_probe,
    unlike_words,
)
from anglekit.results.document import ModelRecord, ProbeRecord, Provenance
from anglekit.runtime.passes import embedding_rows, no_row
from anglekit.runtime.placement import device_names
from anglekit.states.store import StoredTeacher, StoreReader
from anglekit.vocabulary import BATCHINGS, ProjectionKind, Stream

# Tokens that the default anisotropy looks at, the first of the sample, whose order is random: an eighth of the examples
# within these bounds, so that it costs a small probe little.
_FEWEST_VIEWED, _MOST_VIEWED, _VIEWED_SHARE = 64, 256, 8
# More jobs than anybody starts: what says more is a slip, and each part takes memory in every job.
_MOST_SHARDS = 100_000


@dataclass(frozen=True)
class Shard:
    """A part of the batches that a job of its own takes.

    Attributes:
        number: which, from 1.
        of: how many there are.

    Raises:
        InputError: there is no such part.
    """

    number: int = 1
    of: int = 1

    def __post_init__(self) -> None:
        if self.of > _MOST_SHARDS:
            raise InputError(f"shard {self.number}/{self.of} is of more than {_MOST_SHARDS} parts", "give fewer")
        if not 1 <= self.number <= self.of:
            raise InputError(f"shard {self.number}/{self.of} cannot be", f"give 1/{self.of} to {self.of}/{self.of}")

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


#: All batches.
WHOLE = Shard()


@dataclass(frozen=True, eq=False)
class PreparedAnalysis:
    """A checked analysis: its models and tokens, and what it looks at.

    Attributes:
        teacher: the teacher.
        students: the students.
        measured: the examples that are measured: all but those on which a projection is fitted.
        fit_half: the examples on which projections are fitted; None where none is.
        adapters: the trained projections of each student, by stream and vertex; None where there are none.
        fitted: how the students of another width without adapters are projected, by position.
        spec: what is looked at.
        stored: gives the teacher's states where they are in a store; None where the teacher runs.
    """

    teacher: Checkpoint
    students: Sequence[Checkpoint]
    measured: TokenizedProbe
    fit_half: TokenizedProbe | None
    adapters: Sequence[Mapping[Key, Tensor] | None]
    fitted: Mapping[int, ProjectionKind]
    spec: AnalysisSpec
    stored: StoreReader | None = None


def prepare(
    teacher: Checkpoint,
    students: Sequence[Checkpoint],
    probe: Probe,
    settings: AnalysisSettings,
    shard: Shard | None,
) -> PreparedAnalysis:
    """Check that everything fits, tokenise, and say what is looked at in a shard, or in all batches (None).

    Tokenizers keep the languages that they came with.

    Raises:
        InputError: something does not fit, or a projection would be fitted on a shard.
    """
    with languages_as_found(each.tokenizer for each in (teacher, *students)):
        return _prepared(teacher, students, probe, settings, shard)


def _prepared(
    teacher: Checkpoint,
    students: Sequence[Checkpoint],
    probe: Probe,
    settings: AnalysisSettings,
    shard: Shard | None,
) -> PreparedAnalysis:
    if settings.reading == "official":
        settings = replace(settings, final_norm="included")
    _check_models(teacher, students)
    _check_twins(students, settings)
    given = len(probe.texts)
    probe = in_languages([teacher, *students], probe, settings)
    probe = texts_read_alike(teacher, students, probe, settings)
    tokens = replace(
        tokenized_probe(teacher, students, probe, settings),
        batching=max((facts_of(each.model).batching for each in (teacher, *students)), key=BATCHINGS.index),
    )
    layers = {stream: _chosen_layers(stream, teacher, students, settings) for stream in teacher.streams}
    stored = _store_reader(teacher, tokens, layers, settings)
    kinds = tuple(_projection_kind(teacher, student, settings) for student in students)
    adapters = [
        _checked_adapters(teacher, student) if kind == "adapter" else None
        for student, kind in zip(students, kinds, strict=True)
    ]
    layers = {stream: _with_adapters(stream, chosen, adapters) for stream, chosen in layers.items()}
    fitted = {position: kind for position, kind in enumerate(kinds) if kind is not None and adapters[position] is None}
    if fitted and shard is not None:
        position, kind = next(iter(fitted.items()))
        raise InputError(
            f"--shard {shard} cannot fit a projection ({kind} for {students[position].source}), which needs the "
            "whole probe",
            "analyse it in one job (accelerate launch shares that among processes), or use trained adapters",
        )
    fit_half, measured = tokens.halves(settings.seed) if fitted else (None, tokens)
    states_width = sum(
        len(chosen.teacher) * teacher.width
        + sum(len(vertices) * student.width for vertices, student in zip(chosen.students, students, strict=True))
        for chosen in layers.values()
    )
    names = tuple(student_names(students))
    norms = {stream: bool(facts_of(teacher.model).streams[stream].final_norm) for stream in layers}
    spec = AnalysisSpec(
        names=names,
        layers=layers,
        teacher_width=teacher.width,
        student_widths=tuple(student.width for student in students),
        settings=settings,
        kinds=kinds,
        aims=tuple(
            _aims(stream, position, chosen, teacher, students[position], kind)
            for position, kind in enumerate(kinds)
            if kind is not None
            for stream, chosen in layers.items()
        ),
        capacity=min(sample_capacity(states_width), measured.n_examples - len(measured.repeats)),
        viewed=viewed_tokens(measured.n_examples),
        n_batches=measured.n_batches,
        plan_sha256=_plan_hash(measured),
        repeats=tuple(
            zip(measured.rows[measured.repeats].tolist(), measured.clusters[measured.repeats].tolist(), strict=True)
        ),
        split_clusters=tuple(measured.split_clusters.tolist()),
        record=AnalysisRecord(
            {**settings_record(settings, names, layers), "models_have_final_norm": norms},
            _provenance(teacher, dict(zip(names, students, strict=True)), probe, shard),
            ProbeCounts(
                examples_used_for_projection=tokens.n_examples - measured.n_examples,
                skipped_rows=probe.skipped_rows,
                skipped_examples=tokens.skipped_examples,
                truncated_examples=tokens.truncated_examples,
                truncated_tokens=tokens.truncated_tokens,
                max_length=tokens.max_length,
                padding_share=tokens.padding_share,
                distinct_texts=measured.n_examples - len(measured.repeats),
                unlike_examples=given - len(probe.texts),
            ),
        ),
    )
    return PreparedAnalysis(teacher, students, measured, fit_half, adapters, fitted, spec, stored)


def _store_reader(
    teacher: Checkpoint, tokens: TokenizedProbe, layers: Mapping[Stream, StreamLayers], settings: AnalysisSettings
) -> StoreReader | None:
    """Return what reads the teacher's states where they are stored.

    Raises:
        InputError: the store lacks a text or a layer, or what it holds is read otherwise.
    """
    if not isinstance(teacher, StoredTeacher):
        return None
    if settings.reading == "official":
        raise InputError(f"{teacher.source} is a state store, and the official reading counts padding", "give a model")
    document = teacher.store.document
    behind = [
        stream
        for stream, chosen in layers.items()
        if teacher.depth(stream) in chosen.teacher and document.facts.streams[stream].final_norm
    ]
    if behind and settings.final_norm != document.final_norm:
        raise InputError(
            f"{teacher.source} holds the last layer with the final norm {document.final_norm}, and "
            f"--final-norm {settings.final_norm} came",
            f"give --final-norm {document.final_norm}, or leave the last layer out (--teacher-layers)",
        )
    return teacher.store.reader(tokens, {stream: chosen.teacher for stream, chosen in layers.items()})


def _plan_hash(probe: TokenizedProbe) -> str:
    found = hashlib.sha256()
    for runs in (probe.text, probe.target):
        if runs is not None:
            found.update(runs.ids.tobytes() + runs.starts.tobytes() + runs.lengths.tobytes())
            found.update(b"" if runs.counted is None else runs.counted.tobytes())
    for positions in probe.plan:
        found.update(probe.rows[positions].tobytes() + b"|")
    return found.hexdigest()


def viewed_tokens(n_examples: int) -> int:
    """Return how many sampled tokens the default anisotropy looks at."""
    return min(_MOST_VIEWED, max(_FEWEST_VIEWED, n_examples // _VIEWED_SHARE))


# Reading a package's metadata takes as long as a batch of short texts.
_version = cache(version)


def package_versions() -> dict[str, str]:
    """Return the versions of the packages on which the numbers rest."""
    return {package: _version(package) for package in ("anglekit", "torch", "transformers", "numpy", "pandas")}


def _provenance(
    teacher: Checkpoint, students: Mapping[str, Checkpoint], probe: Probe, shard: Shard | None
) -> Provenance:
    return Provenance(
        teacher=ModelRecord(name=teacher.name, **teacher.provenance()),
        students=[ModelRecord(name=name, **student.provenance()) for name, student in students.items()],
        probe=ProbeRecord(
            source=probe.source,
            sha256=probe.sha256,
            text=probe.text_column,
            text_pair=probe.text_pair_column,
            target=probe.target_column,
        ),
        probe_notes=probe.notes,
        packages=package_versions(),
        python=platform.python_version(),
        device=device_names(
            students[next(iter(students))].model if isinstance(teacher, StoredTeacher) else teacher.model
        ),
        dtype=teacher.dtype_words if isinstance(teacher, StoredTeacher) else _dtype_name(teacher),
        precision="inner products and sums in float64",
        **resolution(teacher.coarsest if isinstance(teacher, StoredTeacher) else teacher.model.dtype, teacher.width),
        shard=None if shard is None else str(shard),
    )


def _dtype_name(checkpoint: Checkpoint) -> str:
    return str(checkpoint.model.dtype).removeprefix("torch.")


def resolution(dtype: torch.dtype, width: int) -> dict[str, Any]:
    """Return how finely half-precision states tell layers and cosines apart; float32 states do for all purposes."""
    if dtype.itemsize >= torch.float32.itemsize:
        return {}
    return {"state_rounding": state_rounding(dtype), "cosine_resolution": cosine_resolution(dtype, width)}


def blocks_to_hold(config: PretrainedConfig, settings: AnalysisSettings, *, teacher: bool) -> dict[Stream, int] | None:
    """Return the blocks of each stream of a whole model that must be held for the layers looked at; None: all of them.

    What comes behind the last such layer changes nothing, except through an encoder, whose end the decoder reads. Of a
    student that is compared with an untrained one all blocks are held, so that both are drawn alike.
    """
    official = settings.reading == "official"
    chosen = settings.teacher_layers if teacher else (1,) if official else settings.vertices
    if not chosen or (settings.nulls == "all" and not teacher):
        return None
    # The stack's own end is taken behind its norm: with one block more the last layer looked at is not that end.
    behind_norm = official or settings.final_norm == "included"
    last = max(1, *chosen) + (1 if behind_norm else 0)
    stream = model_streams(config)[-1]
    return {stream: last} if max(chosen) <= depth(config, stream) and last < depth(config, stream) else None


def _check_models(teacher: Checkpoint, students: Sequence[Checkpoint]) -> None:
    """Check that all models are of one kind and that there are angles to see."""
    if not students:
        raise InputError("there is no student", "give one or more after the teacher")
    for student in students:
        if student.streams != teacher.streams:
            raise InputError(
                f"{student.source} has the streams {' and '.join(student.streams)}, the teacher {teacher.source} "
                f"{' and '.join(teacher.streams)}",
                "give models of one kind",
            )
    for stream in teacher.streams:
        if teacher.depth(stream) < 2:
            raise InputError(
                f"the teacher {teacher.source} has {teacher.depth(stream)} layer in its {stream}",
                "an angle is between two teacher layers: give a teacher with 2 or more",
            )


def _check_twins(students: Sequence[Checkpoint], settings: AnalysisSettings) -> None:
    """Check that an untrained twin of each student can be drawn where one is asked for."""
    foreign = next((each for each in students if isinstance(each.model, ForeignModel)), None)
    if settings.nulls == "all" and foreign is not None:
        raise InputError(
            f"an untrained {foreign.name} cannot be drawn: transformers does not know its class",
            'choose nulls="default"',
        )


def _tokenizer(teacher: Checkpoint) -> Tokenizer:
    if teacher.tokenizer is None:
        raise InputError(
            f"{teacher.source} has no tokenizer",
            "save the tokenizer beside its weights; in Python give tokenizer=...",
        )
    return teacher.tokenizer


def _unlike(teacher: str, student: str, difference: str) -> InputError:
    return InputError(
        f"teacher {teacher} and student {student} do not read the same tokens: {difference}",
        "angles need models with one tokenizer",
    )


def check_tokenizers(teacher: str, students: Sequence[str], load: LoadOptions) -> None:
    """Refuse students of another vocabulary than the teacher's, as far as the files say, before weights are read.

    Raises:
        InputError: as `texts_read_alike`.
    """
    for student in students:
        if difference := stored_difference(teacher, student, load):
            raise _unlike(teacher, student, difference)


def in_languages(models: Sequence[Checkpoint], probe: Probe, settings: AnalysisSettings) -> Probe:
    """Tell the tokenizers of multilingual models the languages that were named; return the probe with notes of others.

    Raises:
        InputError: a language that a tokenizer does not know, or none is named that it needs.
    """
    if isinstance(probe, TokenInputs):
        return probe
    notes = [
        note
        for model in models
        if model.tokenizer is not None
        for note in set_languages(model.tokenizer, settings.source_lang, settings.target_lang)
    ]
    return replace(probe, notes=tuple(dict.fromkeys((*probe.notes, *notes))))


def texts_read_alike(
    teacher: Checkpoint, students: Sequence[Checkpoint], probe: Probe, settings: AnalysisSettings
) -> Probe:
    """Return the examples of which teacher and students read the same tokens: all, if they share a tokenizer.

    Every example is compared, with its pair and target. Token ids are as they were given, and tokenizers are compared
    where they are known.

    Raises:
        InputError: a model's vocabulary is another one, or no example is read alike; with what differs.
    """
    if isinstance(probe, TokenInputs) and teacher.tokenizer is None:
        return probe
    tokenizer = _tokenizer(teacher)
    rows = vocabulary_entries(teacher.model)
    alike = np.ones(len(probe.texts), dtype=np.bool_)
    for student in students:
        unlike = partial(_unlike, teacher.source, student.source)
        if student.tokenizer is None:
            if isinstance(probe, ProbeData) and vocabulary_entries(student.model) != rows:
                raise unlike(
                    f"the student has no tokenizer and {vocabulary_entries(student.model)} vocabulary entries, the "
                    f"teacher {rows}"
                )
            continue
        shared = shared_vocabulary(tokenizer, student.tokenizer, teacher.model, student.model)
        if shared.relation == "different":
            raise unlike(shared.difference)
        if isinstance(probe, TokenInputs) or (shared.one_way and shared.relation != "appended"):
            continue
        same = read_alike(
            probe,
            tokenizer,
            student.tokenizer,
            entries=shared.entries,
            reads_targets=len(teacher.streams) == 2,
            continued=settings.prompts != "alone" and teacher.streams == ("decoder",),
        )
        if not same.any():
            words = unlike_words(probe.texts[0], tokenizer, student.tokenizer, shared.entries)
            raise unlike(f"no text is read alike; {words}")
        alike &= same
    if isinstance(probe, TokenInputs):
        return probe
    if not alike.any():
        raise InputError(f"no text of {probe.source} is read alike by all {len(students)} students and the teacher")
    return probe if alike.all() else probe.select(np.flatnonzero(alike).tolist())


def tokenized_probe(
    teacher: Checkpoint, students: Sequence[Checkpoint], probe: Probe, settings: AnalysisSettings
) -> TokenizedProbe:
    """Return the probe as the models read it, cut to what all of them can take.

    Raises:
        InputError: the teacher lacks a tokenizer or its decoder a start token, the settings do not suit its kind, or a
            model has no row of embeddings for a token.
    """
    tokenized = _tokenized(teacher, students, probe, settings)
    highest = int(tokenized.text.ids.max(initial=-1))
    for model in (teacher, *students):
        rows = embedding_rows(model.model)
        if rows is not None and highest >= rows:
            raise no_row(model.source, rows, "the probe", highest)
    return tokenized


def _tokenized(
    teacher: Checkpoint, students: Sequence[Checkpoint], probe: Probe, settings: AnalysisSettings
) -> TokenizedProbe:
    limits = shared_limits(each.model for each in (teacher, *students))
    if isinstance(probe, TokenInputs):
        _check_inputs([teacher, *students], probe, settings)
        return _tokens_given(teacher, probe, settings, limits)
    tokenizer = _tokenizer(teacher)
    most = limits[teacher.streams[0]]
    official = settings.reading == "official"
    if settings.prompts != "alone" and teacher.streams == ("decoder",):
        if official:
            raise InputError(
                "the official reading has no targets for a causal language model", "leave out --prompt-reading"
            )
        # A causal model reads a prompt and its completion as one sequence.
        return tokenize_continued_probe(
            probe,
            tokenizer,
            prompts_count=settings.prompts == "included",
            max_length=settings.max_length,
            keep_special_tokens=settings.special_tokens,
            token_budget=settings.token_budget,
            model_max_length=most,
        )
    if settings.prompts == "excluded":
        raise InputError(
            f"--prompt-reading excluded is for causal language models and {teacher.source} has "
            f"{' and '.join(teacher.streams)}",
            "leave it out",
        )
    two_streams = len(teacher.streams) == 2
    start = getattr(teacher.model.config, "decoder_start_token_id", None)
    if two_streams and start is None:
        raise InputError(f"{teacher.source} states no decoder_start_token_id", "set it in its config.json")
    return tokenize_probe(
        probe,
        tokenizer,
        needs_target=two_streams,
        max_length=settings.max_length,
        target_max_length=settings.target_max_length,
        keep_special_tokens=settings.special_tokens,
        token_budget=settings.token_budget,
        pad_to=settings.pad_to if official else None,
        decoder_start_token_id=start,
        model_max_length=most,
        model_max_target_length=limits[teacher.streams[-1]],
        text_stream="encoder" if "encoder" in teacher.streams else "decoder",
    )


def _check_inputs(models: Sequence[Checkpoint], probe: TokenInputs, settings: AnalysisSettings) -> None:
    """Check that token ids can be read by all models as they were given.

    Raises:
        InputError: an id that a model does not have, an entry that would be left out, or a setting for texts.
    """
    for name, value in (("max_length", settings.max_length), ("target_max_length", settings.target_max_length)):
        if value is not None:
            raise InputError(f"{name}={value} is for texts and the probe holds tokens", "cut them where they are made")
    if settings.prompts != "alone":
        raise InputError(f"prompts={settings.prompts!r} is for texts and the probe holds tokens", "leave it out")
    for model in models:
        taken = inspect.signature(model.model.forward).parameters
        if (lost := next((name for name in probe.not_read if name in taken), None)) is not None:
            raise InputError(
                f"the {probe.source} gives {lost}, which {model.source} takes and the analysis would leave out",
                "give input_ids with their attention_mask alone",
            )
        size = vocabulary_entries(model.model)
        for runs in (probe.text, probe.decoder_inputs, probe.labels):
            if runs is None or not len(runs.ids) or (runs is not probe.text and len(model.streams) < 2):
                continue
            least, most = int(runs.ids.min()), int(runs.ids.max())
            if least < 0 or (isinstance(size, int) and most >= size):
                raise InputError(
                    f"the {probe.source} holds token {least if least < 0 else most}, and {model.source} has {size}",
                    "give the ids of these models' tokenizer",
                )


def _tokens_given(
    teacher: Checkpoint, probe: TokenInputs, settings: AnalysisSettings, limits: Mapping[Stream, int | None]
) -> TokenizedProbe:
    """Return token ids as the models read them."""
    config, tokenizer = teacher.model.config, teacher.tokenizer
    pads = (getattr(tokenizer, "pad_token_id", None), getattr(config, "pad_token_id", None))
    return tokenized_inputs(
        probe,
        needs_target=len(teacher.streams) == 2,
        text_stream=teacher.streams[0],
        token_budget=settings.token_budget,
        special_ids=None if settings.special_tokens else special_token_ids(_tokenizer(teacher)),
        pad_id=next((pad for pad in pads if isinstance(pad, int) and pad >= 0), 0),
        pad_to=settings.pad_to if settings.reading == "official" else None,
        decoder_start_token_id=getattr(config, "decoder_start_token_id", None),
        most=limits[teacher.streams[0]],
        most_target=limits[teacher.streams[-1]],
    )


def _chosen_layers(
    stream: Stream, teacher: Checkpoint, students: Sequence[Checkpoint], settings: AnalysisSettings
) -> StreamLayers:
    """Return the layers that the settings ask for in one stream; all of them by default."""
    if settings.reading == "official":
        return StreamLayers((1, teacher.depth(stream)), tuple((1,) for _ in students))
    chosen = settings.teacher_layers
    there = (
        teacher.store.document.layers[stream]
        if isinstance(teacher, StoredTeacher)
        else range(teacher.depth(stream) + 1)
    )
    teacher_layers = tuple(there) if chosen is None else tuple(sorted(set(chosen)))
    if len(teacher_layers) < 2:
        raise InputError(f"--teacher-layers names {len(teacher_layers)} layer", "an angle needs 2 or more")
    vertices = settings.vertices
    return StreamLayers(
        teacher_layers,
        tuple(
            tuple(range(student.depth(stream) + 1)) if vertices is None else tuple(sorted(set(vertices)))
            for student in students
        ),
    )


def _projection_kind(teacher: Checkpoint, student: Checkpoint, settings: AnalysisSettings) -> ProjectionKind | None:
    """Return how a student is projected: a trained adapter is found by itself, the other ways are asked for."""
    if student.width == teacher.width:
        return None
    if settings.projection is not None:
        return settings.projection
    if student.adapters is not None:
        return "adapter"
    raise InputError(
        f"{student.source} is {student.width} wide and its teacher {teacher.width}",
        "choose --projection adapter (trained ones without a bias, saved beside the student), least-squares or "
        "procrustes",
    )


def _checked_adapters(teacher: Checkpoint, student: Checkpoint) -> dict[tuple[Stream, int], Tensor]:
    """Return a student's trained adapters after checking that they lead to this teacher's width."""
    if not student.adapters:
        raise InputError(
            f"{student.source} has no trained adapters without bias beside its weights",
            "choose --projection least-squares or procrustes",
        )
    for (stream, layer), weight in student.adapters.items():
        if tuple(weight.shape) != (teacher.width, student.width):
            raise InputError(
                f"the adapter of {stream} layer {layer} of {student.source} has shape {tuple(weight.shape)}",
                allowed=f"expected ({teacher.width}, {student.width}): it belongs to another teacher",
            )
    return dict(student.adapters)


def _with_adapters(
    stream: Stream, layers: StreamLayers, adapters: Sequence[Mapping[tuple[Stream, int], Tensor] | None]
) -> StreamLayers:
    """Leave out vertices for which no adapter was trained: an untrained one would say nothing."""
    students = []
    for vertices, trained in zip(layers.students, adapters, strict=True):
        kept = vertices if trained is None else tuple(layer for layer in vertices if (stream, layer) in trained)
        if not kept:
            raise InputError(
                f"no layer of the student's {stream} has a trained adapter", "choose --projection least-squares"
            )
        students.append(kept)
    return StreamLayers(layers.teacher, tuple(students))


def _aims(
    stream: Stream, position: int, layers: StreamLayers, teacher: Checkpoint, student: Checkpoint, kind: ProjectionKind
) -> Aims:
    """Return the kept teacher layers that are nearest to what the projections of a student's vertices aim at.

    That is the layer that an adapter was trained towards, where the student says so, and else the one of the vertex's
    relative depth.
    """
    nearest = []
    for vertex in layers.students[position]:
        aim = student.matched_layer(stream, vertex) if kind == "adapter" else None
        if aim is None:
            aim = relative_depth_layer(vertex, student.depth(stream), teacher.depth(stream))
        nearest.append(min((abs(layer - aim), layer) for layer in layers.teacher)[1])
    return Aims(stream, position, tuple(nearest))
