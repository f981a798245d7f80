"""A recipe: all that an experiment is, from the teacher to the figure, as one frozen value read from a YAML file."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from typing import Any, Final

from anglekit.analysis.settings import AnalysisSettings
from anglekit.distillation.losses.weights import LossWeights
from anglekit.distillation.settings import DataSettings, TrainSettings
from anglekit.errors import InputError, suggest
from anglekit.recipes.training import Training
from anglekit.recipes.transforms import TRANSFORMS
from anglekit.settings_fields import (
    SettingError,
    all_optional,
    check_settings,
    declarations,
    documented,
    like,
    setting,
)
from anglekit.vocabulary import (
    CONTROLS,
    HIDDEN_LOSS_NAMES,
    INITS,
    PAPER_STRATEGIES,
    RANDOM_TEACHER,
    READINGS,
    STRATEGIES,
    TASK_NAMES,
    WITHOUT_TEACHER,
    Reading,
    matches_layers,
)

_FORMAT: Final = "anglekit-recipe-1"
_INITIALIZATIONS: Final = ("default", "matching-attention")
_TOKENIZERS: Final = ("words", "bart", "t5", "causal")


@documented
@dataclass(frozen=True)
class Tokenizer:
    """The tokenizer of a teacher that is trained from scratch, made from the training texts."""

    kind: str = setting(
        "words",
        "words: the most frequent lower-cased words, as BERT reads them. bart, t5 or causal: words that become the "
        "same text again, with the special tokens of that family, for models that write.",
        names=_TOKENIZERS,
    )
    vocab_size: int = setting(1000, "Entries at most.", at_least=1)
    max_length: int = setting(512, "Tokens to which a text is cut when asked.", at_least=1)

    def __post_init__(self) -> None:
        check_settings(self)


@documented
@dataclass(frozen=True)
class Teacher:
    """Where the teacher comes from: a checkpoint, or from scratch, which needs a tokenizer and training."""

    config: Mapping[str, Any] = setting(
        MISSING,
        "The architecture as its config.json has it, `model_type` among it: what a teacher from scratch is made from, "
        "and what a dry run counts without a download.",
    )
    model: str | None = setting(None, "Directory or hub id of the weights; None: from scratch.")
    training: Training | None = setting(None, "How it is trained; None takes the model as it is.")
    tokenizer: Tokenizer | None = setting(None, "Of a teacher from scratch.")
    initialization: str = setting(
        "default",
        "Of a teacher from scratch; matching-attention: BERT, attention to equal words.",
        names=_INITIALIZATIONS,
    )
    seed: int = like(TrainSettings, "seed", default=0, help="Of a teacher from scratch, and of its training.")

    def __post_init__(self) -> None:
        if not isinstance(self.config.get("model_type"), str):
            raise InputError("config names no model_type", "add the model_type of the checkpoint's config.json")
        check_settings(self)
        scratch = self.model is None
        if scratch and (self.tokenizer is None or self.training is None):
            missing = "tokenizer" if self.tokenizer is None else "training"
            raise InputError("no model is named, so the teacher is made from scratch", f"that needs {missing}")
        if not scratch and (self.tokenizer is not None or self.initialization != "default"):
            raise InputError("a model is named, which brings its own tokenizer and weights", "leave those two keys out")


@documented
@dataclass(frozen=True)
class Data:
    """What is trained and scored on; tables are named as for every command: a file, `hub:...` or `builtin:...`."""

    train: str = setting(MISSING, "The training table.")
    validation: Mapping[str, str] = setting(
        MISSING, "Tables by the name that scores carry; the first one validates during training."
    )
    columns: DataSettings = field(default_factory=DataSettings)
    transform: str | None = setting(
        None, "What turns the tables' rows into those columns first; see `transforms`.", names=tuple(TRANSFORMS)
    )
    train_examples: int | None = setting(None, "The training table's rows, for a dry run where it cannot be read.")
    validation_examples: int | None = setting(None, "The same for all validation tables together.")
    tokens: float | None = setting(None, "Mean tokens of an example, for a dry run; None: the longest allowed.")
    target_tokens: float | None = setting(None, "The same for the targets of an encoder-decoder.")

    def __post_init__(self) -> None:
        if not self.validation:
            raise InputError("validation names no table", "give at least one, as {validation: FILE}")
        for name in self.validation:
            if not name.replace("-", "_").isidentifier() or name == "train":
                raise InputError(f"the validation table {name!r} has no name of letters, digits and - _", "rename it")
        check_settings(self)


@documented
@dataclass(frozen=True)
class Students:
    """The grid of students: for each depth and width, a sweep over strategies, initialisations and seeds."""

    layers: tuple[int, ...] = setting(MISSING, "Depths, in both streams of an encoder-decoder.")
    training: Training = setting(MISSING, "How all of them are trained.")
    widths: tuple[int, ...] = setting((), "Student widths below the teacher's; none: the teacher's.")
    strategies: tuple[str, ...] = setting(PAPER_STRATEGIES, "How layers are matched.")
    inits: tuple[str, ...] = setting(INITS, "Where weights come from; a smaller width takes random alone.")
    seeds: tuple[int, ...] = setting((0,), "Of initialisation, dropout and random draws.")
    copy_blocks: Mapping[str, tuple[int, ...]] | None = setting(
        None, "By stream, the teacher block that each student block is copied from; None: the paper's."
    )
    match_streams: tuple[str, ...] | None = setting(None, "The streams that have a hidden loss; None: all.")
    freeze_embeddings: bool | None = setting(None, "Leave embeddings as they start; None: as the reading says.")
    train_adapters: bool | None = setting(None, "Train width adapters; None: as the reading says.")
    order_per_seed: bool = setting(False, "Give each seed its own order of the data.")
    learning_rates: Mapping[str, float] | None = setting(
        None,
        "By strategy its own learning rate, where the paper's scripts differ; read in the official reading unless all "
        "are to be equal.",
    )
    side_by_side: int = setting(10, "Students in memory at the same time, in training and analysis.", at_least=1)
    controls: tuple[str, ...] = setting(
        (),
        "Control arms, each for every initialisation and seed: alone learns from labels only; random-teacher is as "
        "forward (or else the first strategy that matches layers) with the hidden states of an untrained teacher.",
    )
    alone: bool = setting(False, "Earlier recipes: the same as alone among the controls.")

    def __post_init__(self) -> None:
        if self.alone:
            # One way to say it, so that an earlier recipe and its newer form are the same value.
            object.__setattr__(self, "alone", False)
            if WITHOUT_TEACHER not in self.controls:
                object.__setattr__(self, "controls", (WITHOUT_TEACHER, *self.controls))
        for name, allowed in (
            ("layers", None),
            ("strategies", STRATEGIES),
            ("inits", INITS),
            ("seeds", None),
            ("controls", CONTROLS),
        ):
            values: tuple[Any, ...] = getattr(self, name)
            if not (values or name == "controls") or len(set(values)) != len(values):
                raise SettingError(name, f"is {list(values)}", "name at least one, and each once")
            for value in values if allowed else ():
                _check(name, value, allowed or ())
        for name in self.learning_rates or ():
            _check("learning_rates", name, STRATEGIES)
        check_settings(self)
        _check_at_least(1, layers=min(self.layers), widths=min(self.widths, default=1))
        if self.widths and "teacher" in self.inits:
            raise InputError("a student of another width cannot be copied from its teacher", "give inits: [random]")
        if RANDOM_TEACHER in self.controls and not any(map(matches_layers, self.strategies)):
            raise SettingError(
                "controls",
                f"holds {RANDOM_TEACHER}, and no strategy matches layers ({', '.join(self.strategies)})",
                "add one that does, such as forward",
            )
        if self.training.settings().lora_rank is not None and "random" in self.inits:
            raise InputError(
                "training.lora_rank came with students from random weights, which would stay random but for it",
                "give inits: [teacher]",
            )


@documented
@dataclass(frozen=True)
class Losses:
    """The training loss, as `distill` takes it."""

    ce: float = like(LossWeights, "ce")
    kl: float = like(LossWeights, "kl")
    hidden: float = like(LossWeights, "hidden")
    hidden_loss: str = setting("mse", "The hidden loss; the official reading has its own.", names=HIDDEN_LOSS_NAMES)
    reading: Reading = setting("corrected", "Of the whole run; official: as the paper's code has it.", names=READINGS)
    temperature: float | None = like(TrainSettings, "temperature")
    kl_direction: str | None = like(TrainSettings, "kl_direction")
    relation_heads: int | None = like(TrainSettings, "relation_heads")

    def __post_init__(self) -> None:
        check_settings(self)
        _ = self.weights  # refuses three zeros

    @property
    def weights(self) -> LossWeights:
        """How much each term counts."""
        return LossWeights(self.ce, self.kl, self.hidden)


# All layers are measured, because students are compared by them.
_NOT_IN_RECIPES: Final = ("pad_to", "teacher_layers", "vertices", "seed", "source_lang", "target_lang")


@all_optional(AnalysisSettings, without=_NOT_IN_RECIPES)
class Analysis:
    """How the geometry is measured: the probe, and settings of `AnalysisSettings`; None leaves the choice to it.

    Attributes:
        probe: a table.
        text, text_pair, target: its columns; None: those of the data, or the usual names.
        limit: examples, drawn at random; None: all.
        dtype: of the models; None: float32.
        seed: of that draw and of the analysis.

    Raises:
        InputError: a value is not allowed.
    """

    probe: str
    text: str | None = None
    text_pair: str | None = None
    target: str | None = None
    limit: int | None = None
    dtype: str | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        _ = self.settings  # refuses what is not allowed

    @property
    def settings(self) -> AnalysisSettings:
        """The settings of the analysis."""
        given = {name: vars(self).get(name) for name in declarations(AnalysisSettings)}
        return AnalysisSettings(**{name: value for name, value in given.items() if value is not None})

    def changed(self, **changes: Any) -> Analysis:  # noqa: ANN401 - its fields
        """Return the same with other values."""
        return Analysis(**vars(self) | changes)


@dataclass(frozen=True)
class Figure:
    """What is drawn: a figure that takes several geometries, and the task's name in it."""

    name: str = "figure1"
    label: str | None = None


@documented
@dataclass(frozen=True)
class Published:
    """Which of the paper's numbers stand beside the result."""

    tasks: Mapping[str, str] = setting(MISSING, "By validation table, the paper's name of the task.")
    scores: Mapping[str, str] = setting(MISSING, "By score of ours, the paper's name of the metric.")
    layers: int = setting(MISSING, "The depth that the paper's numbers are of; other variants have none.")
    note: str = setting("", "What a reader should know before comparing.")
    unlike: str = setting(
        "", "Why the numbers cannot be compared with ours; they stand beside each other all the same."
    )


@dataclass(frozen=True)
class Variant:
    """One sweep of a recipe: a depth and perhaps a width."""

    layers: int
    width: int | None

    @property
    def name(self) -> str:
        """The name in directories and labels: "3-layers", "3-layers-384-wide"."""
        return f"{self.layers}-layers" + ("" if self.width is None else f"-{self.width}-wide")


@dataclass(frozen=True)
class Recipe:
    """An experiment.

    Attributes:
        format: says that the file is a recipe.
        name: as `anglekit reproduce NAME` takes it.
        title: what is shown, in a phrase.
        source: where the experiment comes from.
        task: a name in `TASK_NAMES`.
        teacher, data, students, losses, analysis, figure: its parts.
        scores: the scores that the result table shows, the first one first.
        confounds: what else than the strategy differs, or is not known, in the paper's own runs of this experiment.
        published: the paper's numbers; None: the paper has none that are carried here.
        threads: CPU threads; None: torch's choice. Their number changes results by rounding. For very small models one
            is the fastest: a second one gains little on an idle machine and waits on a busy one.
    """

    format: str
    name: str
    title: str
    source: str
    task: str
    teacher: Teacher
    data: Data
    students: Students
    analysis: Analysis
    scores: tuple[str, ...]
    losses: Losses = Losses()
    figure: Figure = Figure()
    published: Published | None = None
    confounds: tuple[str, ...] = ()
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.format != _FORMAT:
            raise InputError(f"format is {self.format!r}", allowed=f"expected {_FORMAT!r}")
        _check("task", self.task, TASK_NAMES)
        if not self.scores:
            raise InputError("scores names none", "name at least one score of the task")
        if self.published is not None:
            for name in self.published.tasks:
                _check("published.tasks", name, self.data.validation)
            for name in self.published.scores:
                _check("published.scores", name, self.scores)
        _check_at_least(1, threads=1 if self.threads is None else self.threads)

    @property
    def learning_rates(self) -> Mapping[str, float]:
        """The learning rates by strategy that the students are trained at; empty: one for all."""
        own = self.students.learning_rates or {}
        return own if self.losses.reading == "official" else {}

    @property
    def variants(self) -> tuple[Variant, ...]:
        """One for each depth and width."""
        widths = self.students.widths or (None,)
        return tuple(Variant(layers, width) for layers in self.students.layers for width in widths)


def to_plain(value: Any) -> Any:  # noqa: ANN401 - dataclasses and what they hold
    """Return dataclasses, tuples and mappings as dicts and lists, ready for json; None values are left out."""
    if is_dataclass(value):
        pairs = ((field.name, getattr(value, field.name)) for field in fields(value))
        return {name: to_plain(held) for name, held in pairs if held is not None}
    if isinstance(value, Mapping):
        return {str(name): to_plain(held) for name, held in value.items()}
    return [to_plain(one) for one in value] if isinstance(value, tuple | list) else value


def _check(key: str, value: str, allowed: Collection[str]) -> None:
    if value not in allowed:
        raise SettingError(key, f"is {value!r}", allowed=suggest(value, allowed))


def _check_at_least(least: int, **values: int) -> None:
    for name, value in values.items():
        if value < least:
            raise SettingError(name, f"is {value}", allowed=f"allowed: at least {least}")
