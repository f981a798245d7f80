"""The plan of one student: what is matched, copied, projected and trained, before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from transformers import PretrainedConfig

from anglekit.distillation.losses.objective import check_defined
from anglekit.distillation.losses.weights import LossWeights
from anglekit.distillation.matching.angle_aware import angle_aware_map, seen_angles
from anglekit.distillation.matching.strategies import (
    EXPLICIT,
    MODEL_FAMILIES,
    LayerMatching,
    draw_seed,
    layer_matching,
)
from anglekit.distillation.students.create import CopyBlocks, heads_in_words, model_family, student_shape
from anglekit.distillation.students.given import GivenStudent, Head, given_shape
from anglekit.errors import InputError, suggest
from anglekit.models import architectures
from anglekit.readings import decisions
from anglekit.results.geometry import Geometry
from anglekit.runtime.files import convert_document
from anglekit.vocabulary import (
    ANGLE_AWARE,
    CONTROLS,
    DRAWN,
    HIDDEN_LOSS_NAMES,
    INITS,
    NONE,
    RANDOM_TEACHER,
    READINGS,
    STRATEGIES,
    WIDTH_FREE_LOSSES,
    WITHOUT_TEACHER,
    Reading,
    Stream,
    given_name,
    is_init,
)

#: A plain value, as documents hold them.
Setting = str | int | float | bool | None

_FORMAT = "anglekit-plan-1"


class StreamPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One stream of the student.

    Attributes:
        matching: which teacher layer teaches which student layer.
        blocks: the teacher block that each student block is copied from; with a random initialisation, stands for; of a
            given student, the one at its relative depth.
    """

    matching: LayerMatching
    blocks: tuple[int, ...]

    @property
    def stream(self) -> Stream:
        """The stream's name, "encoder" or "decoder"."""
        return self.matching.stream


class PlannedStudent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The checkpoint that a given student starts from.

    Attributes:
        name: by which it is told from other students.
        source: directory or hub id, as given.
        model_type: of its configuration.
        saved_as: the class of the model that was saved; "" where its configuration does not say.
        head: "kept" or "new"; None before its weights were read for a task.
        entries: of the teacher's vocabulary and the student's, where they have other numbers of them; else None.
    """

    name: str
    source: str
    model_type: str
    saved_as: str = ""
    head: Head | None = None
    entries: tuple[int, int] | None = None


class DistillationPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that decides what a distillation run makes of its teacher; with its format, what plan.json holds.

    Attributes:
        teacher: directory or hub id, as given.
        model_type: of the teacher's configuration.
        family: a name in `strategies.MODEL_FAMILIES`.
        teacher_width: width of the teacher's states.
        student_width: where it differs from the teacher's, matched layers need adapters; wider only if given.
        streams: one entry for each stream of the teacher.
        init: "random", "teacher", or "given:NAME" of a given student.
        seed: of the initialisation (of a given student: of a head that it lacks), of dropout and of the "random" order.
        weights: of the loss terms.
        hidden_loss: a name in `vocabulary.HIDDEN_LOSS_NAMES`.
        reading: "corrected" or "official".
        train_adapters: False repeats the paper's BERT runs, whose adapters never reached the optimiser.
        freeze_embeddings: True repeats the paper's BART and T5 runs (`freeze_embeds`).
        adapter_bias: True repeats the paper's language models.
        training: other settings (learning rate, epochs, ...) by name, to compare runs by.
        control: a name in `vocabulary.CONTROLS` where the student is a control of its strategy; else None.
        student: a given student's checkpoint; None where the student is made.
        heads: of a narrower student and its teacher, in words; "" where the widths agree.

    Raises:
        InputError: values that do not go together.
    """

    teacher: str
    model_type: str
    family: str
    teacher_width: int
    student_width: int
    streams: tuple[StreamPlan, ...]
    init: str
    seed: int
    weights: LossWeights = msgspec.field(default_factory=LossWeights)
    hidden_loss: str = "mse"
    reading: Reading = "corrected"
    train_adapters: bool = True
    freeze_embeddings: bool = False
    training: dict[str, Setting] = {}
    control: str | None = None
    student: PlannedStudent | None = None
    adapter_bias: bool = False
    heads: str = ""

    def __post_init__(self) -> None:
        for what, value, allowed in (
            ("model family", self.family, MODEL_FAMILIES),
            ("hidden loss", self.hidden_loss, HIDDEN_LOSS_NAMES),
            ("reading", self.reading, READINGS),
        ):
            if value not in allowed:
                raise InputError(f"no {what} {value!r}", allowed=suggest(value, allowed))
        if not is_init(self.init):
            raise InputError(f"no initialisation {self.init!r}", allowed=suggest(self.init, INITS))
        if given_name(self.init) != (None if self.student is None else self.student.name):
            raise InputError(f"the plan's initialisation {self.init!r} is not that of its student")
        if not self.streams or len({part.stream for part in self.streams}) != len(self.streams):
            raise InputError("a plan needs each stream once", f"got {[part.stream for part in self.streams]}")
        if not 0 <= self.seed < 2**32:
            raise InputError(f"the seed is {self.seed}", allowed=f"allowed: 0 to {2**32 - 1}")
        if self.student_width < 1 or (self.student is None and self.student_width > self.teacher_width):
            raise InputError(
                f"the student's width is {self.student_width}", allowed=f"allowed: 1 to {self.teacher_width}"
            )
        if self.init == "teacher" and self.student_width != self.teacher_width:
            raise InputError(
                f"a student of width {self.student_width} cannot be copied from a teacher of width "
                f"{self.teacher_width}",
                "use --init random",
            )
        if self.weights.hidden > 0.0:
            self._check_hidden_loss()
        self._check_control()

    def _check_hidden_loss(self) -> None:
        for one in self.matchings:
            if one.student_layers:
                check_defined(self.hidden_loss, self.reading, one.stream, len(one.student_layers), one.combines)
            if one.combines == "attention" and self.student_width != self.teacher_width and not self.compares_states:
                raise InputError(
                    f"strategy {one.strategy!r} multiplies states {self.student_width} and {self.teacher_width} wide, "
                    f"and hidden loss {self.hidden_loss!r} has no adapters",
                    "take mse, or another strategy",
                )

    def _check_control(self) -> None:
        if self.control is None:
            return
        if self.control not in CONTROLS:
            raise InputError(f"no control {self.control!r}", allowed=suggest(self.control, CONTROLS))
        matched = self.matched_as != NONE
        if self.control == RANDOM_TEACHER and not matched:
            raise InputError(
                f"control {RANDOM_TEACHER} came and no layer is matched, so there is nothing to replace",
                "give a strategy that matches layers, such as forward",
            )
        if self.control == WITHOUT_TEACHER and (matched or self.weights.kl > 0.0):
            what = "matched layers" if matched else "a KL"
            raise InputError(
                f"control {WITHOUT_TEACHER} came with {what}, and learns from labels only", "leave the strategy out"
            )

    @property
    def strategy(self) -> str:
        """The name under which the student is compared: its control's, or else that of how it is matched."""
        return self.control or self.matched_as

    @property
    def matched_as(self) -> str:
        """The strategy of its layers; "explicit" also where the user mapped one of two streams.

        Of a control it is the strategy of which something is taken away.
        """
        return max((part.matching.strategy for part in self.streams), key=lambda name: name != NONE)

    @property
    def reads_untrained_teacher(self) -> bool:
        """Whether the hidden loss reads an untrained teacher's states."""
        return self.control == RANDOM_TEACHER and self.weights.hidden > 0.0

    @property
    def matchings(self) -> tuple[LayerMatching, ...]:
        """The matching of each stream."""
        return tuple(part.matching for part in self.streams)

    @property
    def needs_adapters(self) -> bool:
        """Whether the widths differ and the hidden loss compares states."""
        return self.student_width != self.teacher_width and self.compares_states

    @property
    def compares_states(self) -> bool:
        """Whether the hidden loss compares states themselves, and not relations inside each side."""
        return self.reading == "official" or self.hidden_loss not in WIDTH_FREE_LOSSES

    def student_options(self) -> dict[str, Any]:
        """Return the keyword arguments with which `students.create_student` makes this plan's student."""
        options: dict[str, Any] = {f"{part.stream}_layers": part.matching.student_blocks for part in self.streams}
        own_width = self.student_width if self.student_width != self.teacher_width else None
        options |= {"init": self.init, "seed": self.seed, "width": own_width}
        if self.init == "teacher":
            options["copy_blocks"] = {part.stream: part.blocks for part in self.streams}
        return options

    def facts(self) -> dict[str, Any]:
        """Return what the plan decides, under the names that messages use."""
        facts: dict[str, Any] = {
            "teacher": self.teacher,
            "model type": self.model_type,
            "teacher width": self.teacher_width,
            "student width": self.student_width,
            "strategy": self.strategy,
            "init": self.init,
            "seed": self.seed,
            "weights (ce, kl, hidden)": (self.weights.ce, self.weights.kl, self.weights.hidden),
            "hidden loss": self.hidden_loss,
            "reading": self.reading,
            "trained adapters": self.train_adapters,
            "frozen embeddings": self.freeze_embeddings,
        }
        for part in self.streams:
            facts[f"teacher {part.stream} blocks"] = part.matching.teacher_blocks
            facts[f"student {part.stream} blocks"] = part.matching.student_blocks
            facts[f"{part.stream} map"] = ",".join(f"{s}:{t}" for s, t in part.matching.taught_by().items()) or "none"
            if self.init == "teacher":
                facts[f"{part.stream} blocks copied"] = ",".join(map(str, part.blocks))
        if self.adapter_bias:
            facts["adapter bias"] = True
        if self.student is not None and self.student.model_type != self.model_type:
            facts["student model type"] = self.student.model_type
        if self.control is not None:
            facts["control of"] = self.matched_as
        return facts | self.training

    def to_json(self) -> dict[str, Any]:
        """Return the plan as values that `json` can write."""
        return {**msgspec.to_builtins(self), "format": _FORMAT, "strategy": self.strategy}

    @classmethod
    def from_json(cls, values: Mapping[str, Any], source: str = "the plan") -> DistillationPlan:
        """Read what `to_json` wrote.

        Args:
            values: of the json object.
            source: named in messages.

        Raises:
            InputError: another format, a key missing or unknown, or values that do not go together.
        """
        if values.get("format") != _FORMAT:
            raise InputError(f"{source} has format {str(values.get('format'))[:40]!r}", allowed=f"expected {_FORMAT!r}")
        fields = {name: value for name, value in values.items() if name not in ("format", "strategy")}
        return convert_document(fields, cls, source, "begin the run again")


def named_differences(here: Mapping[str, Any], there: Mapping[str, Any]) -> list[str]:
    """Return in words in which entries two mappings differ: "seed: 1 here, 2 there"."""
    return [
        f"{name}: {here.get(name, 'absent')} here, {there.get(name, 'absent')} there"
        for name in dict.fromkeys((*here, *there))
        if here.get(name) != there.get(name)
    ]


def plan_distillation(
    config: PretrainedConfig,
    *,
    teacher: str,
    strategy: str | None = None,
    layers: int | None = None,
    encoder_layers: int | None = None,
    decoder_layers: int | None = None,
    width: int | None = None,
    init: str | None = None,
    seed: int | None = None,
    layer_map: Mapping[Stream, Sequence[tuple[int, int]]] | None = None,
    copy_blocks: CopyBlocks | None = None,
    match_streams: Sequence[str] | None = None,
    training: Mapping[str, Setting] | None = None,
    control: str | None = None,
    given: GivenStudent | None = None,
    geometry: Geometry | str | Path | None = None,
    **options: Any,  # noqa: ANN401 - fields of DistillationPlan, checked there
) -> DistillationPlan:
    """Plan one student from its teacher's configuration; reads no weights.

    A control is the same plan with something taken away. `alone` matches nothing and has no KL, whatever the weights
    say, and a cross-entropy of weight 1 where they give it none. `random-teacher` only changes whose hidden states are
    read.

    Args:
        config: the teacher's.
        teacher: its directory or hub id, recorded.
        strategy: a name in `vocabulary.STRATEGIES`; None with a `layer_map`.
        layers: the student's depth, in both streams of an encoder-decoder.
        encoder_layers: the depth of its encoder alone.
        decoder_layers: the depth of its decoder alone.
        width: the student's width; None keeps the teacher's.
        init: "random" or "teacher"; None: random, or the given student's own.
        seed: None draws one for "random" and takes 0 for the other strategies; the plan records it.
        layer_map: the user's own map by stream; a stream that it leaves out is not matched.
        copy_blocks: the user's own copy map, as for `students.create_student`.
        match_streams: the streams that the strategy matches; None: all. The others have no hidden loss.
        training: other settings to record and to compare arms by.
        control: a name in `vocabulary.CONTROLS`; `alone` takes neither a strategy (but "none") nor a map.
        given: a student that was there before, which has its own shape and weights.
        geometry: from which "angle-aware" chooses, or the directory of one; other strategies do not read it.
        options: `weights`, `hidden_loss`, `reading`, `train_adapters`, `freeze_embeddings`, `adapter_bias` of the plan;
            the last three are the reading's where they are left out, or None.

    Raises:
        InputError: a name that is not known, a shape or map that is not possible, or a given student beside what makes
            another one.
    """
    if control == WITHOUT_TEACHER:
        if layer_map is not None or strategy not in (None, NONE):
            what = f"strategy {strategy!r}" if layer_map is None else "a map"
            raise InputError(
                f"control {WITHOUT_TEACHER} came with {what}, and matches no layer", "leave one of the two out"
            )
        strategy = NONE
        weights = options.get("weights") or LossWeights()
        options["weights"] = LossWeights(weights.ce or 1.0, 0.0, 0.0)
    if layer_map is None and strategy not in STRATEGIES:
        raise InputError(f"no strategy {strategy or ''!r}", allowed=suggest(strategy or "", STRATEGIES))
    if layer_map is not None and strategy not in (None, EXPLICIT):
        raise InputError(f"strategy {strategy!r} came together with an explicit map", "give one of the two")
    shape: dict[str, Any] = {
        "layers": layers,
        "encoder_layers": encoder_layers,
        "decoder_layers": decoder_layers,
        "width": width,
    }
    heads = ""
    if given is None:
        init = init or "random"
        blocks, narrower = student_shape(config, **shape, init=init, copy_blocks=copy_blocks)
        student_width = width or architectures.width(config)
        if student_width != architectures.width(config):
            heads = f"{heads_in_words(narrower)}; the teacher {heads_in_words(config)}"
    else:
        came = [name for name, value in (shape | {"init": init, "copy": copy_blocks}).items() if value is not None]
        if came:
            name = came[0].replace("_", "-")
            raise InputError(
                f"--{name} came with a student that is there already ({given.source})",
                "leave it out: the student keeps its shape and its weights",
            )
        init, student_width = given.init, architectures.width(given.config)
        blocks = given_shape(config, given, mapped=layer_map is not None)
    for stream in layer_map or {}:
        if stream not in blocks:
            raise InputError(f"the map names stream {stream!r}", allowed=suggest(stream, blocks))
    for name in match_streams or ():
        if name not in blocks:
            raise InputError(f"--match-streams names {name!r}", allowed=suggest(name, blocks))
    if match_streams is not None and (layer_map is not None or not match_streams):
        raise InputError(
            "--match-streams chooses what a strategy matches", "give it with a strategy, and name a stream"
        )
    family = model_family(config)
    reading: Reading = options.get("reading") or "corrected"
    decided = decisions(reading, MODEL_FAMILIES[family].official_losses)
    for name in ("train_adapters", "freeze_embeddings", "adapter_bias"):
        if options.get(name) is None:
            options[name] = getattr(decided, name)
    drawn = seed if seed is not None else draw_seed() if strategy in DRAWN else 0
    if copy_blocks is not None and layer_map is None and strategy is not None and STRATEGIES[strategy].combines:
        raise InputError(
            f"a copy map came with strategy {strategy!r}, whose student layers have no teacher block of their own",
            "leave --copy out: blocks are then copied as for forward",
        )
    seen = seen_angles(geometry) if strategy == ANGLE_AWARE else None
    parts = []
    for stream, copied in blocks.items():
        explicit = None if layer_map is None else layer_map.get(stream)
        if seen is not None and stream in (match_streams or blocks):
            explicit = angle_aware_map(
                seen, stream, architectures.depth(config, stream), len(copied), MODEL_FAMILIES[family].matches_embedding
            )
        unmatched = explicit is None if layer_map is not None else stream not in (match_streams or blocks)
        parts.append(
            StreamPlan(
                layer_matching(
                    "none" if unmatched else strategy,
                    teacher_blocks=architectures.depth(config, stream),
                    student_blocks=len(copied),
                    stream=stream,
                    family=family,
                    seed=drawn,
                    explicit=explicit,
                    reading=reading,
                ),
                copied,
            )
        )
    return DistillationPlan(
        teacher=teacher,
        model_type=str(config.model_type),
        family=family,
        teacher_width=architectures.width(config),
        student_width=student_width,
        streams=tuple(parts),
        init=init,
        seed=drawn,
        training=dict(sorted((training or {}).items())),
        control=control,
        heads=heads,
        student=None
        if given is None
        else PlannedStudent(
            given.name,
            given.source,
            str(given.config.model_type),
            given.saved_as,
            entries=_unequal_entries(config, given.config),
        ),
        **options,
    )


def _unequal_entries(teacher: PretrainedConfig, student: PretrainedConfig) -> tuple[int, int] | None:
    """Return how many entries two vocabularies have, where both say so and differ."""
    one, other = (getattr(each, "vocab_size", None) for each in (teacher, student))
    return (one, other) if isinstance(one, int) and isinstance(other, int) and one != other else None
