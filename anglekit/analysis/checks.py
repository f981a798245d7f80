"""What is checked and decided before an analysis runs its first batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor
from transformers import PretrainedConfig
from transformers import PreTrainedTokenizerBase as Tokenizer

from anglekit.analysis.settings import AnalysisSettings
from anglekit.errors import InputError
from anglekit.models.architectures import depth, model_streams
from anglekit.models.checkpoints import Checkpoint
from anglekit.probes.batches import TokenizedProbe
from anglekit.probes.data import ProbeData
from anglekit.probes.tokenize import same_tokenization, tokenize_continued_probe, tokenize_probe
from anglekit.vocabulary import ProjectionKind, Stream

__all__ = [
    "StreamLayers",
    "blocks_to_hold",
    "checked_adapters",
    "choose_layers",
    "projection_kind",
    "tokenize_for",
    "with_adapters",
]

# Texts on which the tokenizers of teacher and student must agree, beyond equal vocabularies.
_SAMPLE_TEXTS = 64


@dataclass(frozen=True)
class StreamLayers:
    """The layers of one stream that take part: the teacher's and each student's, by student position."""

    teacher: tuple[int, ...]
    students: tuple[tuple[int, ...], ...]


def blocks_to_hold(config: PretrainedConfig, settings: AnalysisSettings, *, teacher: bool) -> dict[Stream, int] | None:
    """Return the blocks of each stream that must be held for the layers that are looked at; None: all of them.

    What comes behind the last such layer changes nothing, except through an encoder, whose end the decoder reads. Of a
    student that is compared with an untrained one all blocks are held, so that both are drawn alike.

    Args:
        config: of the whole model.
        settings: of the analysis.
        teacher: whether the model is the teacher.
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


def tokenize_for(
    teacher: Checkpoint, students: Sequence[Checkpoint], probe: ProbeData, settings: AnalysisSettings
) -> TokenizedProbe:
    """Check that all models read the same tokens, and tokenise."""
    if not students:
        raise InputError("there is no student", "give one or more after the teacher")
    tokenizer = teacher.tokenizer
    if tokenizer is None:
        raise InputError(f"{teacher.source} has no tokenizer", "save the teacher's tokenizer beside its weights")
    for student in students:
        if student.streams != teacher.streams:
            raise InputError(
                f"{student.source} has the streams {' and '.join(student.streams)}, the teacher {teacher.source} "
                f"{' and '.join(teacher.streams)}",
                "give models of one kind",
            )
        difference = None
        if student.tokenizer is not None:
            difference = same_tokenization(tokenizer, student.tokenizer, probe.texts[:_SAMPLE_TEXTS])
        elif student.model.config.vocab_size != teacher.model.config.vocab_size:
            sizes = (teacher.model.config.vocab_size, student.model.config.vocab_size)
            difference = f"their vocabularies have {sizes[0]} and {sizes[1]} tokens"
        if difference is not None:
            raise InputError(
                f"teacher {teacher.source} and student {student.source} do not read the same tokens: {difference}",
                "angles need models with one tokenizer",
            )
    for stream in teacher.streams:
        if teacher.depth(stream) < 2:
            raise InputError(
                f"the teacher {teacher.source} has {teacher.depth(stream)} layer in its {stream}",
                "an angle is between two teacher layers: give a teacher with 2 or more",
            )
    two_streams = len(teacher.streams) == 2
    if settings.prompts != "alone" and teacher.streams == ("decoder",):
        return _tokenize_continued(teacher, students, probe, tokenizer, settings)
    if settings.prompts == "excluded":
        raise InputError(
            f"--prompts excluded is for causal language models and {teacher.source} has "
            f"{' and '.join(teacher.streams)}",
            "leave it out",
        )
    start = getattr(teacher.model.config, "decoder_start_token_id", None)
    if two_streams and start is None:
        raise InputError(f"{teacher.source} states no decoder_start_token_id", "set it in its config.json")
    official = settings.reading == "official"
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
        model_max_length=_shared_limit(teacher, students),
        text_stream="encoder" if "encoder" in teacher.streams else "decoder",
    )


def _tokenize_continued(
    teacher: Checkpoint,
    students: Sequence[Checkpoint],
    probe: ProbeData,
    tokenizer: Tokenizer,
    settings: AnalysisSettings,
) -> TokenizedProbe:
    """Tokenise each text with its target behind it, as a causal model reads a prompt and its completion."""
    if settings.reading == "official":
        raise InputError("the official reading has no targets for a causal language model", "leave out --prompts")
    return tokenize_continued_probe(
        probe,
        tokenizer,
        prompts_count=settings.prompts == "included",
        max_length=settings.max_length,
        keep_special_tokens=settings.special_tokens,
        token_budget=settings.token_budget,
        model_max_length=_shared_limit(teacher, students),
    )


def _shared_limit(teacher: Checkpoint, students: Sequence[Checkpoint]) -> int | None:
    limits = [limit for limit in (_position_limit(each) for each in (teacher, *students)) if limit is not None]
    return min(limits, default=None)


def _position_limit(checkpoint: Checkpoint) -> int | None:
    """Return how many tokens a model's position table can take; None where positions have no end (T5)."""
    config = checkpoint.model.config
    limit = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    if not isinstance(limit, int) or config.model_type in ("t5", "mt5", "umt5"):
        return None
    # RoBERTa and its kin count positions from the padding id + 1.
    offset = (config.pad_token_id or 0) + 1 if config.model_type in ("roberta", "xlm-roberta", "camembert") else 0
    return limit - offset


def choose_layers(
    stream: Stream, teacher: Checkpoint, students: Sequence[Checkpoint], settings: AnalysisSettings
) -> StreamLayers:
    """Return the layers that the settings ask for in one stream; all of them by default."""
    if settings.reading == "official":
        return StreamLayers((1, teacher.depth(stream)), tuple((1,) for _ in students))
    chosen = settings.teacher_layers
    teacher_layers = tuple(range(teacher.depth(stream) + 1)) if chosen is None else tuple(sorted(set(chosen)))
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


def projection_kind(teacher: Checkpoint, student: Checkpoint, settings: AnalysisSettings) -> ProjectionKind | None:
    """Return how a student is projected: a trained adapter is found by itself, the other ways are asked for."""
    if student.width == teacher.width:
        return None
    if settings.projection is not None:
        return settings.projection
    if student.adapters is not None:
        return "adapter"
    raise InputError(
        f"{student.source} is {student.width} wide and its teacher {teacher.width}",
        "choose --projection adapter (saved by the trainer beside the student), least-squares or procrustes",
    )


def checked_adapters(teacher: Checkpoint, student: Checkpoint) -> dict[tuple[Stream, int], Tensor]:
    """Return a student's trained adapters after checking that they lead to this teacher's width."""
    if not student.adapters:
        raise InputError(
            f"{student.source} has no trained adapters beside its weights",
            "choose --projection least-squares or procrustes",
        )
    for (stream, layer), weight in student.adapters.items():
        if tuple(weight.shape) != (teacher.width, student.width):
            raise InputError(
                f"the adapter of {stream} layer {layer} of {student.source} has shape {tuple(weight.shape)}",
                allowed=f"expected ({teacher.width}, {student.width}): it belongs to another teacher",
            )
    return dict(student.adapters)


def with_adapters(
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
