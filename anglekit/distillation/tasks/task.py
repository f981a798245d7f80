"""What a task is: columns, model class, tokenisation, collator, scores. One file for each kind implements it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, ClassVar, Self

from transformers import EvalPrediction, PretrainedConfig, PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from anglekit.distillation.settings import DataSettings, EncodingSettings, GenerationSettings, TrainSettings
from anglekit.distillation.tasks.data import PaddedBatches, StreamedTexts, TextTable, TokenizedExamples, origin
from anglekit.errors import InputError, suggest
from anglekit.models.architectures import model_streams
from anglekit.models.lengths import length_limit
from anglekit.models.text_stack import check_head
from anglekit.readings import Decisions
from anglekit.results.example_scores import ExampleColumns
from anglekit.tables.read import read_table
from anglekit.tables.table import Table
from anglekit.vocabulary import ProblemType

Collator = Callable[[list[dict[str, Any]]], Mapping[str, Any]]
"""What makes a batch of tensors out of examples."""

Advance = Callable[[int], None]
"""Told how many more examples went through a model, to show it."""


def _not_followed(_examples: int) -> None:
    """Show nothing."""


@dataclass(frozen=True)
class ScoreReport:
    """The scores of one model on one table.

    Attributes:
        scores: by name, including `examples` (their number).
        notes: how they were computed, so that it can be repeated: sacreBLEU's signatures, beams, ...
        examples: what each example adds to the scores, by column, as `results.example_scores` describes them.
    """

    scores: Mapping[str, float]
    notes: Mapping[str, Any] = field(default_factory=dict)
    examples: ExampleColumns = field(default_factory=dict)


@dataclass(frozen=True)
class BoundedTokenizer:
    """A tokenizer, and how long examples may be.

    Attributes:
        tokenizer: the model's tokenizer.
        lengths: what `Task.encoding` returned.
        limit: the most tokens that tokenizer and model allow.
        target_limit: the same of the decoder of an encoder-decoder.
    """

    tokenizer: Tokenizer
    lengths: EncodingSettings
    limit: int
    target_limit: int


@dataclass(frozen=True)
class ScoredModel:
    """A model that is scored, with its tokenizer, the size of its batches, and how it generates texts.

    `advance` is called after each batch with the number of its examples.
    """

    model: PreTrainedModel
    tokenizer: Tokenizer
    batch_size: int
    generation: GenerationSettings
    advance: Advance = _not_followed


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """A task; what it does not specify is taken from the data.

    Learning rates and epochs are those of Yu, Wen and Mou, arXiv 2502.04499, for the paper's tasks, and the paper's
    usual ones for others.

    Attributes:
        name: as given on the command line.
        description: in words.
        source: where it comes from.
        scores: some of `allowed_scores`; the first one selects the best student.
        evaluation_splits: the data set's own names of its evaluation splits.
        teacher_learning_rate, teacher_epochs: for fine-tuning.
        student_learning_rate, student_epochs: for distillation.
        max_length: the most tokens of an example; the rest is cut off.

    Raises:
        InputError: this kind of task does not have one of the scores.
    """

    name: str
    description: str
    source: str
    scores: tuple[str, ...] = ()
    evaluation_splits: tuple[str, ...] = ("validation",)
    teacher_learning_rate: float = 2e-5
    teacher_epochs: float = 3.0
    student_learning_rate: float = 2e-5
    student_epochs: float = 10.0
    max_length: int = 128

    #: The names of scores that this kind of task can compute.
    allowed_scores: ClassVar[Sequence[str]]
    #: One of transformers' auto classes, which loads the model with its head.
    model_class: ClassVar[Any]
    #: The streams of the models that can do this task; None: any.
    streams: ClassVar[tuple[str, ...] | None] = None
    #: What to call a model that can do this task, and its head.
    model_kind: ClassVar[str]
    head: ClassVar[str] = "language-model"
    #: What the labels of a head with outputs for labels are; None where the head writes texts.
    problem_type: ClassVar[ProblemType | None] = None
    #: What the losses on labels and on the teacher's answers are.
    loss_names: ClassVar[tuple[str, str]] = ("cross-entropy", "KL")
    #: Whether fine-tuning may begin with a new head.
    new_head: ClassVar[bool] = False
    #: Whether the end-of-text token may pad where a tokenizer has no pad token (GPT-2's, Llama's); the mask hides it.
    pads_with_end: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for score in self.scores:
            if score not in self.allowed_scores:
                raise InputError(
                    f"task {self.name!r} asks for score {score!r}", allowed=suggest(score, self.allowed_scores)
                )

    @property
    def selection_score(self) -> str:
        """The score by which the best student is chosen."""
        return self.scores[0]

    def read_as(self, decided: Decisions) -> Self:
        """Return the task with the texts that a reading trains on."""
        return self

    def scoring(self, score: str | None) -> Self:
        """Return the task with one score more, which may choose the best student; None: the task itself.

        Raises:
            InputError: this kind of task does not have it.
        """
        return self if score is None or score in self.scores else replace(self, scores=(*self.scores, score))

    def check_config(self, config: PretrainedConfig, source: str) -> None:
        """Check that a model of this configuration can do the task.

        Raises:
            InputError: it is of another kind.
        """
        found = model_streams(config)
        if self.streams is not None and found != self.streams:
            raise InputError(
                f"task {self.name} needs {self.model_kind} and {source} is a {config.model_type} model with "
                f"{' and '.join(found)}",
                "choose another task or model",
            )
        check_head(self.model_class, config)

    # ---- columns ----

    def configured(self, columns: DataSettings | None) -> Self:
        """Return the task with what a user said of its labels.

        Raises:
            InputError: something was said that this kind of task does not have.
        """
        for option, value in ({} if columns is None else columns.label_options()).items():
            raise InputError(f"{option} {value} came with task {self.name}, which has no classes", "leave it out")
        return self

    def read(self, source: str, columns: DataSettings | None = None, *, name: str = "train") -> Any:  # noqa: ANN401
        """Return a table's texts, of the kind's own `TextTable`.

        Args:
            source: as `tables.read_table` takes it.
            columns: the names of the columns.
            name: the table's name in scores.

        Raises:
            InputError: the table cannot be read, lacks a column, or a cell holds something else.
        """
        columns = columns or DataSettings()
        return self.texts(read_table(source, limit=columns.limit, column_names=columns.names), columns, name)

    def stream(self, source: str, columns: DataSettings | None = None, *, name: str = "train") -> StreamedTexts:
        """Return a table's texts as `read` does, without ever holding all of them in memory.

        Every row is checked here once.

        Raises:
            InputError: as of `read`.
        """
        columns = columns or DataSettings()
        left_out = next((one for one in ("no_label", "drop_labels") if getattr(columns, one) is not None), None)
        if left_out is not None:
            option = f"--{left_out.replace('_', '-')}"
            raise InputError(f"--stream came with {option}", "leave such rows out of the table, or --stream")
        table = read_table(source, limit=columns.limit, column_names=columns.names)

        def pieces() -> Iterator[TextTable]:
            return (self.texts(piece, columns, name) for piece in table.in_pieces())

        has_text = False

        def read_once() -> Iterator[TextTable]:
            nonlocal has_text
            for piece in pieces():
                has_text = has_text or any(text.strip() for text in piece.texts_read())
                yield piece

        read = read_once()
        first = next(read)
        known, n_rows = self.without_texts(chain([first], read), table)
        if not has_text:
            raise InputError(f"column {first.columns[0]!r} of {source} holds no text", "name another")
        own = origin(table, name) | {"notes": first.notes, "columns": first.columns}
        return StreamedTexts(**own, pieces=pieces, n_rows=n_rows, known=known)

    def without_texts(self, pieces: Iterator[TextTable], table: Table) -> tuple[TextTable | None, int]:
        """Return what `for_fine_tuning` and `for_teacher` read of a table beside its texts, and how many rows it has.

        None: they read nothing of it. The pieces are those of the table, in order.
        """
        return None, sum(map(len, pieces))

    @abstractmethod
    def texts(self, table: Table, columns: DataSettings, name: str) -> TextTable:
        """Return the texts of a table's rows; see `read`."""

    # ---- what data and model determine ----

    def for_fine_tuning(self, train: TextTable, config: PretrainedConfig) -> Self:
        """Return the task with what training data and the model to fine-tune determine, such as its classes."""
        return self

    def for_teacher(self, train: TextTable, config: PretrainedConfig) -> Self:
        """Return the task as a trained teacher knows it.

        Raises:
            InputError: data and teacher do not match.
        """
        return self

    def for_trained(self, config: PretrainedConfig) -> Self:
        """Return the task as a model that is only scored knows it."""
        return self

    def check_student(self, config: PretrainedConfig, source: str) -> None:  # noqa: B027 - most heads have no labels
        """Check that the head of a student that was there before, if it has one, is one of the settled task.

        Raises:
            InputError: it has other labels.
        """

    def write_to(self, config: PretrainedConfig) -> None:  # noqa: B027 - most heads have no settings
        """Write the settings of the head into a model's configuration, by the names that any tool reads."""

    def facts(self) -> dict[str, Any]:
        """Return what affects a run's result besides the task's name."""
        return {}

    # ---- tokens ----

    def encoding(self, wanted: EncodingSettings, tokenizer: Tokenizer, config: PretrainedConfig) -> EncodingSettings:
        """Return the lengths that examples may have: as wanted, else the task's but at most what the model can read.

        Raises:
            InputError: `wanted` is more than the model can read.
        """
        limit, length = length_limit(tokenizer, config), wanted.max_length
        if length is not None and not 4 <= length <= limit:
            raise InputError(f"--max-length is {length}", allowed=f"allowed for this model: 4 to {limit}")
        length = min(self.max_length, limit) if length is None else length
        return replace(wanted, max_length=length)

    def tell_languages(self, wanted: EncodingSettings, tokenizer: Tokenizer) -> tuple[str, ...]:
        """Tell a tokenizer which languages it reads; return a sentence for each that nobody named.

        Only models that read a text and write another one have two languages.
        """
        return ()

    def padding_id(self, tokenizer: Tokenizer) -> int:
        """Return the token with which batches are padded.

        Raises:
            InputError: there is none.
        """
        if tokenizer.pad_token_id is not None:
            return int(tokenizer.pad_token_id)
        if self.pads_with_end and tokenizer.eos_token_id is not None:
            return int(tokenizer.eos_token_id)
        also = " and no end-of-text token that could stand in" if self.pads_with_end else ""
        place = f" of {tokenizer.name_or_path}" if tokenizer.name_or_path else ""
        raise InputError(
            f"the tokenizer{place} has no pad token{also}",
            "set one (for example the end-of-text token: tokenizer.pad_token = tokenizer.eos_token) and save it again",
        )

    def tokenize(
        self,
        table: TextTable,
        tokenizer: Tokenizer,
        encoding: EncodingSettings,
        config: PretrainedConfig,
        *,
        training: bool,
    ) -> TokenizedExamples:
        """Tokenise a table that `read` returned, at the lengths that `encoding` returned.

        Examples for training may differ from those for scoring.

        Raises:
            InputError: something does not fit, or the tokenizer cannot pad.
        """
        if isinstance(table, StreamedTexts):
            made = (
                self.tokenize(piece, tokenizer, encoding, config, training=training)
                for piece in table.pieces()
                if len(piece)
            )
            return TokenizedExamples.joined(made, table)
        self.padding_id(tokenizer)
        limits = [length_limit(tokenizer, config, stream) for stream in model_streams(config)]
        return self.examples(table, BoundedTokenizer(tokenizer, encoding, limits[0], limits[-1]), training=training)

    @abstractmethod
    def examples(self, table: Any, bounded: BoundedTokenizer, *, training: bool) -> TokenizedExamples:  # noqa: ANN401
        """Return the examples of a table of the kind's own `TextTable`; see `tokenize`."""

    def collator(self, tokenizer: Tokenizer) -> Collator:
        """Return what pads a batch to its longest example."""
        return PaddedBatches(self.padding_id(tokenizer))

    def objective_options(self, tokenizer: Tokenizer) -> dict[str, Any]:
        """Return the fields of `DistillationObjective` that follow from the kind of task."""
        return {"causal": False}

    def label_losses(self, settings: TrainSettings, train: TokenizedExamples) -> dict[str, Any]:
        """Return the fields of `DistillationObjective` that say how labels and the teacher's answers are compared.

        Raises:
            InputError: a setting of losses that this kind of task does not have.
        """
        if settings.class_weights is not None:
            raise InputError(
                f"--class-weights {settings.class_weights} came with task {self.name}, which has no classes",
                "leave it out",
            )
        return {}

    # ---- scores ----

    def doubts(self, examples: TokenizedExamples, scored: ScoredModel) -> tuple[str, ...]:
        """Return, a sentence each, what speaks against a trained model's answers to some training examples.

        Nothing speaks against them where it could be chance.
        """
        return ()

    def compute_metrics(self) -> Callable[[EvalPrediction], dict[str, float]] | None:
        """Return a function that scores the logits of a validation, or None where scores need more than logits."""
        return None

    def columns_of(self, prediction: EvalPrediction) -> ExampleColumns:
        """Return what each example of a validation adds to scores that `compute_metrics` gives and are means over them.

        As `ScoreReport.examples`; nothing where `compute_metrics` gives none.
        """
        return {}

    def generation(
        self, wanted: GenerationSettings, tokenizer: Tokenizer, config: PretrainedConfig
    ) -> GenerationSettings:
        """Return how texts are generated: as wanted, completed by the task. Tasks that generate no texts ignore it.

        Raises:
            InputError: the model cannot write that many tokens.
        """
        return wanted

    def score(
        self,
        model: PreTrainedModel,
        examples: TokenizedExamples,
        tokenizer: Tokenizer,
        *,
        batch_size: int,
        generation: GenerationSettings | None = None,
        advance: Advance = _not_followed,
    ) -> ScoreReport:
        """Return `examples` (their number) and the task's scores of a model, with what each example adds to them.

        The model's mode and all random states stay unchanged. The examples must have been tokenised with
        `training=False`. `advance` is called after each batch; its numbers add up to `scoring_passes`.
        """
        scored = ScoredModel(model, tokenizer, batch_size, generation or GenerationSettings(), advance)
        found = self.score_values(examples, scored)
        scores = {"examples": examples.n_rows, **{name: found.scores[name] for name in self.scores}}
        return ScoreReport(scores, found.notes, found.examples)

    def scoring_passes(self, examples: TokenizedExamples) -> int:
        """Return how many examples go through a model when these are scored."""
        return len(examples.scored or examples)

    def chance(self, examples: TokenizedExamples) -> dict[str, float]:
        """Return what the best model that gives one and the same answer to every example reaches, by score.

        Scores for which that is not known are left out.
        """
        return {}

    @abstractmethod
    def score_values(self, examples: TokenizedExamples, scored: ScoredModel) -> ScoreReport:
        """Return at least the task's scores, what each example adds to them, and how they were computed."""
