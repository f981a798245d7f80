"""The settings of training and scoring, each declared once; command line, recipes and Python read them here.

Values alone: torch and transformers are imported where a run asks for them.
"""

from __future__ import annotations

import csv
import importlib.util
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from anglekit.errors import InputError, suggest
from anglekit.models.load_options import checkpoint_name, checkpoint_of
from anglekit.readings import decisions
from anglekit.runtime.placement import AUTO, AUTO_HELP, check_device
from anglekit.settings_fields import (
    DATA,
    HARDWARE,
    LENGTHS,
    LORA,
    LOSSES,
    OPTIMISER,
    OUTPUT,
    SettingError,
    check_settings,
    documented,
    like,
    one_or_more,
    setting,
)
from anglekit.vocabulary import (
    ATTENTION_LOSSES,
    CLASSED,
    COMPLETION,
    GIVEN,
    INITS,
    KL_DIRECTIONS,
    LABELLED,
    LANGUAGE_MODEL,
    MULTIPLE_CHOICE,
    PRECISIONS,
    RELATION_HEADS_OF,
    SEQ2SEQ,
    SEVERAL_LABELS,
    Reading,
)

if TYPE_CHECKING:
    from transformers import TrainingArguments

#: The settings of `DataSettings` that name columns.
COLUMNS: Final = ("text", "text_pair", "label", "source", "target", "prompt", "completion", "choices")
SELECTIONS: Final = ("best", "last")
CUTS: Final = ("prompt", "end")
# One kernel for all of a step's arithmetic: on a CPU the plain AdamW takes a fifth of a small student's step.
OPTIMIZERS: Final[Mapping[str, str]] = {"adamw": "adamw_torch_fused", "adafactor": "adafactor", "sgd": "sgd"}
DEVICES: Final = (AUTO, "cpu")
#: Those of all versions of transformers; which of them the installed one has is asked before a run.
SCHEDULES: Final = (
    *("linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup", "inverse_sqrt"),
    *("reduce_lr_on_plateau", "cosine_with_min_lr", "cosine_warmup_with_min_lr", "warmup_stable_decay", "greedy"),
)
#: The trackers of transformers that take a run's name and hold one run after another: what is imported, and installed.
TRACKERS: Final[Mapping[str, tuple[tuple[str, ...], str]]] = {
    "tensorboard": (("tensorboard", "tensorboardX"), "tensorboard"),
    "wandb": (("wandb",), "wandb"),
    "mlflow": (("mlflow",), "mlflow"),
    "trackio": (("trackio",), "trackio"),
    "comet_ml": (("comet_ml",), "comet-ml"),
    "swanlab": (("swanlab",), "swanlab"),
}
NO_TRACKER: Final = "none"
# Of the Hub's own rule: an owner, and a name that neither begins nor ends with a dot or a dash.
_REPOSITORY: Final = re.compile(r"\b[\w.-]{1,96}\b/\b[\w.-]{1,96}\b(?<!\.git)", re.ASCII)
_USUAL_LOG_EVERY: Final = 50
ALL_LINEAR: Final = "all-linear"
_LARGEST_SEED: Final = 2**32 - 1
_STUDENT_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_NAME_LETTERS: Final = "letters, digits, points, hyphens and underscores, a letter or digit first"
_USUAL_NAMES: Final = "by its usual names"
_THE_TASKS: Final = "the task's"
_THE_RUNS: Final = "the run's, or the task's"
_MOST_CLASSES: Final = 100_000
BALANCED: Final = "balanced"


@documented
@dataclass(frozen=True)
class DataSettings:
    """Which columns of a table are read; None finds them by the task or by their usual names.

    What lies in a column of dictionaries has a dot in its name: `translation.en`.

    Raises:
        InputError: a value that is not allowed.

    Example:
        >>> DataSettings(text="review", label="stars", limit=1000)
    """

    text: str | None = setting(
        None, "Column of the text.", shown=_USUAL_NAMES, group=DATA, tasks=(*LABELLED, LANGUAGE_MODEL)
    )
    text_pair: str | None = setting(
        None, "Column of the second text; '-' for none.", shown=_USUAL_NAMES, group=DATA, tasks=LABELLED
    )
    label: str | None = setting(
        None, "Column of the label.", shown=_USUAL_NAMES, group=DATA, tasks=(*LABELLED, MULTIPLE_CHOICE)
    )
    source: str | None = setting(
        None, "seq2seq: column of the source.", shown=_USUAL_NAMES, group=DATA, tasks=(SEQ2SEQ,)
    )
    target: str | None = setting(
        None, "seq2seq: column of the target, or of lists of them.", shown=_USUAL_NAMES, group=DATA, tasks=(SEQ2SEQ,)
    )
    prefix: str | None = setting(
        None, "seq2seq: put before every source.", shown=_THE_TASKS, group=DATA, tasks=(SEQ2SEQ,)
    )
    prompt: str | None = setting(
        None,
        "completion, multiple-choice: column of the prompt.",
        shown=_USUAL_NAMES,
        group=DATA,
        tasks=(COMPLETION, MULTIPLE_CHOICE),
    )
    completion: str | None = setting(
        None,
        "completion: column of what follows, or of lists of it.",
        shown=_USUAL_NAMES,
        group=DATA,
        tasks=(COMPLETION,),
    )
    choices: str | None = setting(
        None,
        "multiple-choice: column of lists, or columns with commas between.",
        shown=_USUAL_NAMES,
        group=DATA,
        tasks=(MULTIPLE_CHOICE,),
    )
    limit: int | None = setting(None, "Use only the first rows of each table.", at_least=1, group=DATA)
    columns: str | None = setting(
        None,
        "Names of all columns of csv and tsv files without a header, with commas between.",
        metavar="NAMES",
        shown="the first line",
        group=DATA,
    )
    classes: str | None = setting(
        None,
        "The classes, with commas, in the order of their numbers; one number N is N classes that are numbers from 0.",
        metavar="NAMES",
        shown="the task's, the teacher's or the data's",
        group=DATA,
        tasks=CLASSED,
    )
    no_label: str | None = setting(
        None,
        "Labels that mean that there is none, with commas (-, -1): rows with them, or without any, are left out and "
        "counted.",
        metavar="LABELS",
        shown="every row needs one",
        group=DATA,
        tasks=LABELLED,
    )
    drop_labels: str | None = setting(
        None,
        "Classes whose rows are left out and counted, with commas.",
        metavar="LABELS",
        shown="none",
        group=DATA,
        tasks=LABELLED,
    )
    label_map: str | None = setting(
        None,
        "What a trained model's labels, by name or number, are called in the data: LABEL_0=negative,LABEL_1=positive.",
        metavar="MODEL=DATA,...",
        shown="by its own names",
        group=DATA,
        tasks=CLASSED,
    )
    label_separator: str = setting(
        ",", "multi-label: what stands between the labels in a text.", group=DATA, tasks=(SEVERAL_LABELS,)
    )

    def __post_init__(self) -> None:
        check_settings(self)
        if self.columns is not None and not all(self.names or ()):
            raise SettingError("columns", f"is {self.columns!r}", allowed="allowed: names with commas between")
        for name in ("classes", "no_label", "drop_labels", "label_map"):
            if (text := getattr(self, name)) is not None and not all(names_listed(text)):
                raise SettingError(name, f"is {text!r}, nothing in one place", "give names with commas between")
        if self.classes is not None and len(self.class_names) < 2:
            raise SettingError("classes", f"is {self.classes!r}", allowed="allowed: two or more, or their number")
        if len(set(self.class_names)) < len(self.class_names):
            raise SettingError("classes", f"is {self.classes!r}", "give each class its own name")
        if not self.label_separator:
            raise SettingError("label_separator", "is empty", "give what stands between the labels, such as a comma")
        for entry in () if self.label_map is None else names_listed(self.label_map):
            if not all(part.strip() for part in entry.partition("=")):
                raise SettingError(
                    "label_map", f"has the entry {entry!r}", allowed="allowed: MODEL=DATA, such as LABEL_0=negative"
                )
        sources = [model for model, _ in self.labels_mapped]
        if len(set(sources)) < len(sources):
            raise SettingError("label_map", f"is {self.label_map!r}", "give each label of the model once")

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes of `classes`, in order; () where none were given."""
        names = () if self.classes is None else names_listed(self.classes)
        if len(names) == 1 and names[0].isdecimal() and int(names[0]) <= _MOST_CLASSES:
            return tuple(map(str, range(int(names[0]))))
        return names

    @property
    def labels_left_out(self) -> tuple[frozenset[str], frozenset[str]]:
        """The labels of `no_label` and of `drop_labels`."""
        none, dropped = (frozenset(names_listed(text or "")) for text in (self.no_label, self.drop_labels))
        return none, dropped

    @property
    def labels_mapped(self) -> tuple[tuple[str, str], ...]:
        """The entries of `label_map`: a model's label, by name or number, and the data's name for it."""
        entries = () if self.label_map is None else names_listed(self.label_map)
        return tuple((model.strip(), data.strip()) for model, _, data in (entry.partition("=") for entry in entries))

    def label_options(self) -> dict[str, str]:
        """Return by option's name what was given about labels beside their column."""
        names = ("classes", "no_label", "drop_labels", "label_map")
        return {f"--{name.replace('_', '-')}": value for name in names if (value := getattr(self, name)) is not None}

    @property
    def names(self) -> tuple[str, ...] | None:
        """The columns of files without a header."""
        return None if self.columns is None else tuple(name.strip() for name in self.columns.split(","))


@documented
@dataclass(frozen=True)
class EncodingSettings:
    """How many tokens examples may have, and which of them are learnt; None leaves the choice to the task.

    Where a task has no length for targets either, nothing is cut, and a target that the model cannot read is refused.

    Raises:
        SettingError: a value that is not allowed.
    """

    max_length: int | None = setting(None, "Most tokens of an example.", shown="128", group=LENGTHS)
    target_max_length: int | None = setting(
        None,
        "seq2seq: tokens to which targets are cut.",
        at_least=2,
        shown="the task's; else too long is refused",
        group=LENGTHS,
        tasks=(SEQ2SEQ,),
    )
    source_lang: str | None = setting(
        None,
        "Language of the sources, by its code in the tokenizer (mBART, NLLB, M2M-100): en_XX, eng_Latn, en.",
        metavar="CODE",
        shown="the tokenizer's",
        group=DATA,
        tasks=(SEQ2SEQ,),
    )
    target_lang: str | None = setting(
        None,
        "Language of the targets, by its code in the tokenizer; texts are written in it.",
        metavar="CODE",
        shown="the tokenizer's",
        group=DATA,
        tasks=(SEQ2SEQ,),
    )
    loss_on_prompt: bool = setting(
        False,
        "Train on the prompt's tokens too, not on the completion alone.",
        group=LOSSES,
        tasks=(COMPLETION, MULTIPLE_CHOICE),
    )
    cut: str | None = setting(
        None,
        "Where a training example that is too long is cut: prompt loses the prompt's beginning, end the text's end.",
        names=CUTS,
        shown="prompt; the reading's",
        group=LENGTHS,
        tasks=(COMPLETION, MULTIPLE_CHOICE),
    )

    def __post_init__(self) -> None:
        check_settings(self)


@documented
@dataclass(frozen=True)
class GenerationSettings:
    """How texts are generated; None leaves the choice to the task.

    Raises:
        SettingError: a value that is not allowed.
    """

    beams: int | None = setting(
        None,
        "Of generated texts; 1 is greedy.",
        at_least=1,
        shown=_THE_TASKS,
        group=LENGTHS,
        tasks=(SEQ2SEQ, COMPLETION),
    )
    max_new_tokens: int | None = setting(
        None,
        "Where a generated text ends at the latest.",
        at_least=1,
        shown=_THE_TASKS,
        group=LENGTHS,
        tasks=(SEQ2SEQ, COMPLETION),
    )
    length_penalty: float = setting(
        1.0,
        "Above 0 prefers longer texts among beams.",
        at_least=-100.0,
        at_most=100.0,
        group=LENGTHS,
        tasks=(SEQ2SEQ, COMPLETION),
    )

    def __post_init__(self) -> None:
        check_settings(self)

    def completed(self, beams: int, max_new_tokens: int) -> GenerationSettings:
        """Return the settings with these where none were given."""
        return replace(
            self,
            beams=beams if self.beams is None else self.beams,
            max_new_tokens=max_new_tokens if self.max_new_tokens is None else self.max_new_tokens,
        )


@documented
@dataclass(frozen=True)
class ScoringSettings:
    """Lengths and generation, on which scores depend; None leaves the choice to a model's run, then to the task.

    Raises:
        SettingError: a value that is not allowed.
    """

    max_length: int | None = like(EncodingSettings, "max_length", shown=_THE_RUNS)
    target_max_length: int | None = like(EncodingSettings, "target_max_length", shown=_THE_RUNS)
    beams: int | None = like(GenerationSettings, "beams", shown=_THE_RUNS)
    max_new_tokens: int | None = like(GenerationSettings, "max_new_tokens", shown=_THE_RUNS)
    length_penalty: float | None = like(GenerationSettings, "length_penalty", default=None, shown="the run's, or 1")
    source_lang: str | None = like(EncodingSettings, "source_lang")
    target_lang: str | None = like(EncodingSettings, "target_lang")

    def __post_init__(self) -> None:
        check_settings(self)

    def or_else(self, others: ScoringSettings) -> ScoringSettings:
        """Return these settings, with the others where none is given."""
        return replace(self, **{name: value for name, value in vars(others).items() if getattr(self, name) is None})

    def given(self) -> dict[str, Any]:
        """Return those that leave no choice."""
        return {name: value for name, value in vars(self).items() if value is not None}

    @property
    def encoding(self) -> EncodingSettings:
        """The lengths."""
        return EncodingSettings(
            self.max_length, self.target_max_length, source_lang=self.source_lang, target_lang=self.target_lang
        )

    @property
    def generation(self) -> GenerationSettings:
        """How texts are generated."""
        plain = GenerationSettings(self.beams, self.max_new_tokens)
        return plain if self.length_penalty is None else replace(plain, length_penalty=self.length_penalty)


@documented
@dataclass(frozen=True)
class HubSettings:
    """Where a finished model goes.

    Raises:
        SettingError: a repository that the Hub does not allow.
    """

    push_to_hub: str | None = setting(
        None,
        "Upload the finished model to this repository of the Hugging Face Hub.",
        metavar="OWNER/NAME",
        group=OUTPUT,
    )
    hub_private: bool = setting(False, "Make a new repository private.", group=OUTPUT, needs="push_to_hub")

    def __post_init__(self) -> None:
        check_settings(self)
        name = self.push_to_hub
        if name is not None and (_REPOSITORY.fullmatch(name) is None or "--" in name or ".." in name):
            raise SettingError(
                "push_to_hub",
                f"is {name!r}",
                allowed="allowed: owner/name, of letters, digits, '-', '_' and '.', such as me/my-student",
            )

    def check_here(self) -> None:
        """Refuse to push without a token, or where the Hub may not be asked; reads the machine's settings alone.

        Raises:
            SettingError: no token is at hand, or HF_HUB_OFFLINE is set.
        """
        if self.push_to_hub is None:
            return
        if (hindrance := hub_hindrance()) is not None:
            problem, remedy = hindrance
            raise SettingError("push_to_hub", f"came and {problem}", f"{remedy}, or leave the option out")


def check_pushable(run: str | Path, repository: str) -> None:
    """Refuse to push what is no finished run, to an impossible name, or from a machine that cannot ask the Hub.

    Raises:
        InputError: the first of these that holds.
        SettingError: the name is not possible.
    """
    from anglekit.results.scores import check_finished_run

    check_finished_run(Path(run))
    HubSettings(repository)
    if (hindrance := hub_hindrance()) is not None:
        problem, remedy = hindrance
        raise InputError(f"{run} cannot be pushed: {problem}", remedy)


def check_watched(angles_every: int | None, probe: str | None) -> None:
    """Refuse one of the two without the other.

    Raises:
        InputError: a probe came without steps, steps came without a probe, or steps are below 1.
    """
    if (angles_every is None) != (probe is None):
        given, other = ("--probe", "--angles-every") if angles_every is None else ("--angles-every", "--probe")
        raise InputError(f"{given} came without {other}, which it belongs to", "give both, or neither")
    if angles_every is not None and angles_every < 1:
        raise InputError(f"--angles-every is {angles_every}", allowed="allowed: at least 1")


def check_cacheable(teacher_cache: str | None, *, reading: str, hidden_loss: str, weight: float) -> None:
    """Raise the InputError for a teacher's cache that does not hold what the losses read.

    Args:
        teacher_cache: its directory; None: there is none.
        reading: of the losses.
        hidden_loss: its name.
        weight: its weight.
    """
    reason = ""
    if reading == "official":
        reason = "--reading official, whose losses read padding, which no cache holds"
    elif hidden_loss in ATTENTION_LOSSES and weight > 0.0:
        reason = f"--hidden-loss {hidden_loss}, which reads attention, and a cache holds states"
    if teacher_cache is not None and reason:
        raise InputError(f"--teacher-cache came with {reason}", "leave one of the two out")


def hub_hindrance() -> tuple[str, str] | None:
    """Return what on this machine keeps a model from the Hub, and what to do; None where nothing is known to.

    A token is only looked for: whether the Hub takes it shows when something is uploaded.
    """
    from huggingface_hub import constants, get_token

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set", "unset it"
    if get_token() is None:
        return "no token of the Hub is at hand", "log in with `hf auth login`, or set HF_TOKEN"
    return None


@documented
@dataclass(frozen=True)
class TrainSettings:
    """Settings of one training run; None leaves the choice to the task.

    The weights stay float32 in every precision. `temperature`, `kl_direction` and `kl_on_prompt` are the model
    family's own in the official reading, where they are None. The defaults of LoRA are the paper's for Qwen3.

    Raises:
        InputError: a value that is not allowed, or epochs and steps together. What the machine or its packages do not
            allow is said by `check_here`.

    Example:
        >>> TrainSettings(epochs=3, batch_size=16, learning_rate=1e-4, temperature=2.0, seed=1)
    """

    epochs: float | None = setting(
        None, "Passes over the training table.", above=0.0, shown=_THE_TASKS, group=OPTIMISER
    )
    max_steps: int | None = setting(None, "Optimiser steps, instead of epochs.", at_least=1, group=OPTIMISER)
    batch_size: int = setting(32, "Examples of a forward pass.", at_least=1, group=OPTIMISER)
    accumulation: int = setting(1, "Forward passes of an optimiser step.", at_least=1, group=OPTIMISER)
    learning_rate: float | None = setting(
        None, "The highest.", above=0.0, shown=_THE_TASKS, flags=("--learning-rate", "--lr"), group=OPTIMISER
    )
    schedule: str = setting(
        "linear", "Of the learning rate: linear, cosine, constant, ...", names=SCHEDULES, group=OPTIMISER
    )
    warmup: float = setting(0.0, "Steps, or below 1 the fraction of all steps.", at_least=0.0, group=OPTIMISER)
    optimizer: str = setting("adamw", "adamw, adafactor or sgd.", names=tuple(OPTIMIZERS), group=OPTIMISER)
    weight_decay: float = setting(0.0, "Of all weights but biases and norms.", at_least=0.0, group=OPTIMISER)
    max_grad_norm: float | None = setting(
        None,
        "Length to which gradients are clipped; 0 clips none.",
        at_least=0.0,
        shown="1; the reading's",
        group=OPTIMISER,
    )
    adapter_learning_rate: float | None = setting(
        None,
        "The highest of width adapters.",
        above=0.0,
        shown="the student's; the reading's",
        group=OPTIMISER,
    )
    label_smoothing: float = setting(0.0, "Of the cross-entropy.", at_least=0.0, below=1.0, group=LOSSES)
    class_weights: str | None = setting(
        None,
        f"What examples of a class count in the loss on labels: {BALANCED} (each class as much as the others), or "
        "NAME=NUMBER with commas.",
        metavar="WEIGHTS",
        shown="1",
        group=LOSSES,
        tasks=CLASSED,
    )
    temperature: float | None = setting(None, "Of the KL.", above=0.0, shown="1", group=LOSSES)
    kl_direction: str | None = setting(
        None,
        "forward: KL(teacher || student); reverse; jensen-shannon; skew: against 0.1 teacher + 0.9 student; top-k: "
        "over the teacher's 100 likeliest classes.",
        names=KL_DIRECTIONS,
        shown="forward",
        group=LOSSES,
    )
    relation_heads: int | None = setting(
        None,
        f"Of --hidden-loss {RELATION_HEADS_OF}; must divide the widths of queries, keys and values of both models.",
        at_least=1,
        shown="the most that does and divides the teacher's heads",
        group=LOSSES,
    )
    precision: str = setting(
        "float32",
        "Of forward passes: float32, bfloat16 or float16; weights stay float32.",
        names=PRECISIONS,
        group=HARDWARE,
    )
    max_length: int | None = like(EncodingSettings, "max_length")
    target_max_length: int | None = like(EncodingSettings, "target_max_length")
    source_lang: str | None = like(EncodingSettings, "source_lang")
    target_lang: str | None = like(EncodingSettings, "target_lang")
    loss_on_prompt: bool = like(EncodingSettings, "loss_on_prompt")
    cut: str | None = like(EncodingSettings, "cut")
    kl_on_prompt: bool | None = setting(
        None, "KL on the prompt's tokens too.", shown="no", group=LOSSES, tasks=(COMPLETION, MULTIPLE_CHOICE)
    )
    beams: int | None = like(GenerationSettings, "beams")
    max_new_tokens: int | None = like(GenerationSettings, "max_new_tokens")
    length_penalty: float = like(GenerationSettings, "length_penalty")
    lora_rank: int | None = setting(
        None, "Train low-rank corrections of this rank (needs peft).", at_least=1, shown="all weights", group=LORA
    )
    lora_alpha: float = setting(
        32.0, "Corrections are multiplied by alpha / rank.", above=0.0, group=LORA, needs="lora_rank"
    )
    lora_dropout: float = setting(
        0.1, "Of the corrections' input.", at_least=0.0, below=1.0, group=LORA, needs="lora_rank"
    )
    lora_targets: str = setting(
        ALL_LINEAR, "all-linear, or names of layers with commas.", group=LORA, needs="lora_rank"
    )
    lora_merge: bool = setting(
        False, "Save one model with the corrections added, not both beside each other.", group=LORA, needs="lora_rank"
    )
    stream: bool = setting(
        False,
        "Hold the training table on disk, not in memory: for tables larger than memory. The training is the same.",
        group=HARDWARE,
    )
    shuffle_buffer: int | None = setting(
        None,
        "Shuffle within so many examples that follow each other, so that a table on disk is read in order.",
        at_least=1,
        shown="the whole table is shuffled",
        group=OPTIMISER,
    )
    group_by_length: bool = setting(
        False, "Put examples of similar length into a batch; saves padding.", group=OPTIMISER
    )
    checkpoint_activations: bool = setting(False, "Recompute activations: less memory, more time.", group=HARDWARE)
    seed: int | None = setting(
        None,
        "Of initialisation, dropout and random draws.",
        at_least=0,
        at_most=_LARGEST_SEED,
        shown="0; drawn for strategy random",
        group=OPTIMISER,
    )
    data_seed: int = setting(0, "Of the order of the data.", at_least=0, at_most=_LARGEST_SEED, group=OPTIMISER)
    evaluate_every: float | None = setting(
        None,
        "Steps between validations, or below 1 the part of an epoch.",
        above=0.0,
        shown="one epoch; the reading's",
        group=OPTIMISER,
    )
    log_every: int | None = setting(
        None,
        "Steps between entries of metrics.jsonl.",
        at_least=1,
        shown="50, or a tenth of a shorter run",
        group=OUTPUT,
    )
    select: str | None = setting(
        None,
        "Keep the weights of the best validation (best) or of the end (last).",
        names=SELECTIONS,
        shown="last; the reading's",
        group=OPTIMISER,
    )
    select_by: str | None = setting(
        None,
        "The score of the task that says which is the best.",
        metavar="SCORE",
        shown="the task's first; the reading's",
        group=OPTIMISER,
        needs="select=best",
    )
    resumable: bool = setting(
        True, "Write checkpoints at every validation, so that a killed run can go on.", group=OPTIMISER
    )
    eval_batch_size: int = setting(64, "Examples of a forward pass in validation.", at_least=1, group=OPTIMISER)
    device: str = setting(
        AUTO, f"Where to train and score: {AUTO_HELP}; cpu takes none.", names=DEVICES, group=HARDWARE
    )
    teacher_device: str | None = setting(
        None, "The teacher's own: cpu, cuda:1.", shown="that of the student", group=HARDWARE
    )
    teacher_cache: str | None = setting(
        None,
        "Directory for what the teacher says of each example, which then runs for it once: in the first epoch, not in "
        "later ones, other arms or later runs.",
        shown="nothing is kept",
        group=HARDWARE,
    )
    workers: int = setting(0, "Processes that prepare batches; 0: none but this one.", at_least=0, group=HARDWARE)
    report_to: str = setting(
        NO_TRACKER,
        f"Where metrics go beside metrics.jsonl, with commas: {', '.join(TRACKERS)}.",
        metavar="NAMES",
        group=OUTPUT,
    )

    def __post_init__(self) -> None:
        if self.epochs is not None and self.max_steps is not None:
            raise InputError(
                f"both epochs ({self.epochs}) and max steps ({self.max_steps}) came", "give one of the two"
            )
        check_settings(self)
        if self.shuffle_buffer is not None and self.group_by_length:
            raise SettingError(
                "shuffle_buffer", "came with group_by_length, which has an order of its own", "leave one of the two out"
            )
        if not all(name.strip() for name in self.lora_targets.split(",")):
            raise SettingError(
                "lora_targets",
                f"is {self.lora_targets!r}",
                allowed=f"allowed: {ALL_LINEAR}, or names with commas between",
            )
        if self.warmup and self.schedule == "constant":
            raise SettingError(
                "warmup",
                "came, and a constant schedule has none",
                "take --schedule constant_with_warmup, or leave it out",
            )
        if self.class_weights is not None and self.class_weights != BALANCED:
            self._check_class_weights(names_listed(self.class_weights))
        for name in self.report_to.split(","):
            if name.strip() not in TRACKERS and self.report_to != NO_TRACKER:
                raise SettingError(
                    "report_to", f"is {self.report_to!r}", allowed=suggest(name.strip(), (*TRACKERS, NO_TRACKER))
                )

    def _check_class_weights(self, entries: Sequence[str]) -> None:
        allowed = f"allowed: {BALANCED}, or NAME=NUMBER with commas, such as positive=2.5"
        for entry in entries or ("",):
            name, _, number = entry.rpartition("=")
            try:
                fits = bool(name.strip()) and 0.0 <= float(number) < float("inf")
            except ValueError:
                fits = False
            if not fits:
                raise SettingError("class_weights", f"has the entry {entry!r}", allowed=allowed)

    @property
    def weight_of_class(self) -> dict[str, float]:
        """The weights of `class_weights` by the class's name; empty where they are balanced, or all 1."""
        if self.class_weights in (None, BALANCED):
            return {}
        entries = (entry.rpartition("=") for entry in names_listed(self.class_weights or ""))
        return {name.strip(): float(number) for name, _, number in entries}

    @property
    def trackers(self) -> tuple[str, ...]:
        """The trackers of `report_to`, each once."""
        names = () if self.report_to == NO_TRACKER else self.report_to.split(",")
        return tuple(dict.fromkeys(name.strip() for name in names))

    def log_steps(self, steps: int) -> int:
        """Return the steps between entries of the log of a run of that many steps."""
        return self.log_every or min(_USUAL_LOG_EVERY, max(1, steps // 10))

    @property
    def encoding(self) -> EncodingSettings:
        """How many tokens examples may have."""
        return EncodingSettings(
            self.max_length,
            self.target_max_length,
            source_lang=self.source_lang,
            target_lang=self.target_lang,
            loss_on_prompt=self.loss_on_prompt,
            cut=self.cut,
        )

    @property
    def generation(self) -> GenerationSettings:
        """How texts are generated that are scored."""
        return GenerationSettings(self.beams, self.max_new_tokens, self.length_penalty)

    def check_packages(self) -> None:
        """Refuse what needs a package that is not installed; imports none of them, so that it takes no time.

        Raises:
            SettingError: LoRA or a tracker that cannot be had here.
        """
        if self.lora_rank is not None and importlib.util.find_spec("peft") is None:
            raise SettingError("lora_rank", "needs the `peft` package", "install it: pip install 'anglekit[lora]'")
        for name in self.trackers:
            modules, package = TRACKERS[name]
            if not any(map(_is_installed, modules)):
                raise SettingError(
                    "report_to", f"names {name}, which is not installed", f"install it: pip install {package}"
                )

    def check_here(self) -> None:
        """Refuse what this machine or its packages do not allow, before a run begins.

        Raises:
            SettingError: a precision, a device, a schedule, LoRA or a tracker that cannot be had here.
        """
        self.check_packages()
        import torch
        from transformers.trainer_utils import SchedulerType

        if self.precision == "float16" and (self.device == "cpu" or not torch.cuda.is_available()):
            raise SettingError("precision", "is float16, which needs a GPU, and none is used", "choose bfloat16")
        if self.teacher_device is not None:
            check_device(self.teacher_device, "teacher_device")
        installed = [str(kind.value) for kind in SchedulerType]
        if self.schedule not in installed:
            raise SettingError(
                "schedule", f"is {self.schedule!r}", allowed=f"allowed by this transformers: {', '.join(installed)}"
            )

    def completed(self, *, epochs: float, learning_rate: float) -> TrainSettings:
        """Return the settings with the task's epochs and learning rate where none were given.

        Raises:
            SettingError: one of them cannot be had here; see `check_here`.
        """
        self.check_here()
        return replace(
            self,
            epochs=epochs if self.epochs is None and self.max_steps is None else self.epochs,
            learning_rate=learning_rate if self.learning_rate is None else self.learning_rate,
        )

    def under(
        self,
        reading: Reading,
        family: str,
        *,
        validates: bool,
        scores: Sequence[str] = (),
        of_teacher: bool = False,
    ) -> TrainSettings:
        """Return the settings with what a reading decides where none was given.

        Args:
            reading: "official" or "corrected".
            family: one of `readings.OFFICIAL_FAMILIES`.
            validates: whether there is a validation table; without one nothing is selected.
            scores: those that the task can compute.
            of_teacher: whether a teacher is fine-tuned, which the paper's scripts validate at other intervals.
        """
        decided = decisions(reading, family)
        often = decided.teacher_evaluations_per_epoch if of_teacher else decided.evaluations_per_epoch
        chosen = self.select or (decided.select if validates else "last")
        by = decided.selection_score if chosen == "best" and decided.selection_score in scores else None
        return replace(
            self,
            max_grad_norm=decided.max_grad_norm if self.max_grad_norm is None else self.max_grad_norm,
            adapter_learning_rate=self.adapter_learning_rate or decided.adapter_learning_rate,
            cut=self.cut or decided.cut,
            select=chosen,
            select_by=self.select_by or by,
            evaluate_every=self.evaluate_every or (1.0 / often if often and validates else None),
        )

    def evaluation_steps(self, examples: int) -> int | None:
        """Return the optimiser steps between validations; None: an epoch's."""
        every = self.evaluate_every
        if every is None or every >= 1.0:
            return None if every is None else math.ceil(every)
        batches = -(-examples // self.batch_size)
        return max(1, round(every * max(1, -(-batches // self.accumulation))))

    def steps(self, examples: int) -> int:
        """Return the optimiser steps of one process over a table of that many examples, as `Trainer` counts them."""
        if self.max_steps is not None:
            return self.max_steps
        batches = -(-examples // self.batch_size)
        return math.ceil((self.epochs or 1.0) * max(1, -(-batches // self.accumulation)))

    def decisive(self) -> dict[str, str | int | float | bool | None]:
        """Return what changes the trained model, by which runs are compared: not the seed, which a plan records."""
        incidental = {"log_every", "eval_batch_size", "workers", "report_to", "resumable", "seed"}
        incidental |= {"device", "teacher_device", "teacher_cache", "stream"}
        later = ("shuffle_buffer", "relation_heads", "adapter_learning_rate", "select_by")
        incidental |= {name for name in later if getattr(self, name) is None}
        incidental |= {"cut"} if self.cut in (None, CUTS[0]) else set()
        return {name: value for name, value in asdict(self).items() if name not in incidental}

    def arguments(
        self,
        output: Path,
        *,
        seed: int,
        validates: bool,
        score: str,
        examples: int,
        larger_is_better: bool = True,
        run_name: str | None = None,
        group: str | None = None,
    ) -> TrainingArguments:
        """Return what `Trainer` is told, which selects by `score` (reported as "eval_" and this name).

        `examples` is how many the training table has. `run_name` and `group` are for trackers: of the run, and of the
        sweep that it belongs to.
        """
        import torch
        from transformers import TrainingArguments

        every = self.evaluation_steps(examples)
        cadence = "epoch" if every is None else "steps"
        best = validates and self.select == "best"
        recomputation: dict[str, Any] = {recomputation_argument(): self.checkpoint_activations}
        return TrainingArguments(
            output_dir=str(output),
            num_train_epochs=self.epochs or 1.0,
            max_steps=self.max_steps or -1,
            per_device_train_batch_size=self.batch_size,
            per_device_eval_batch_size=self.eval_batch_size,
            gradient_accumulation_steps=self.accumulation,
            learning_rate=self.learning_rate or 0.0,
            lr_scheduler_type=self.schedule,
            warmup_steps=self.warmup,
            optim=OPTIMIZERS[self.optimizer],
            weight_decay=self.weight_decay,
            max_grad_norm=1.0 if self.max_grad_norm is None else self.max_grad_norm,
            bf16=self.precision == "bfloat16",
            fp16=self.precision == "float16",
            train_sampling_strategy="group_by_length" if self.group_by_length else "random",
            **recomputation,
            seed=seed,
            data_seed=self.data_seed,
            eval_strategy=cadence if validates else "no",
            eval_steps=every,
            save_strategy=cadence if self.resumable or best else "no",
            save_steps=every or 500,
            save_total_limit=1,
            load_best_model_at_end=best,
            metric_for_best_model=score if best else None,
            greater_is_better=larger_is_better if best else None,
            # Where the user leaves it open, `MetricsFile` knows it when the number of steps is known.
            logging_steps=self.log_every or _USUAL_LOG_EVERY,
            # Off: it would wait for the device at every step, and hide what `DistillationTrainer` stops for.
            logging_nan_inf_filter=False,
            # `training.trackers` tells them.
            report_to=[],
            run_name=run_name,
            project=group or "huggingface",  # transformers' own default
            disable_tqdm=True,
            dataloader_num_workers=self.workers,
            dataloader_pin_memory=torch.cuda.is_available() and self.device != "cpu",
            use_cpu=self.device == "cpu",
            remove_unused_columns=False,
        )


def names_listed(text: str) -> tuple[str, ...]:
    """Return the names in a list with commas; a name with a comma stands in double quotes. () of an empty text."""
    return tuple(name.strip() for row in csv.reader([text], skipinitialspace=True) for name in row)


def _is_installed(module: str) -> bool:
    """Return whether a module can be imported; a mere folder of its name, as W&B leaves where it ran, is none."""
    found = importlib.util.find_spec(module)
    return found is not None and found.origin is not None


def recomputation_argument() -> str:
    """Return what `TrainingArguments` calls the recomputation of activations; it changed in transformers 5.23."""
    from transformers import TrainingArguments

    names = ("activation_checkpointing", "gradient_checkpointing")
    return next(name for name in names if name in TrainingArguments.__dataclass_fields__)


def split_name(entry: str) -> tuple[str, str]:
    """Return the name and the source of `NAME=SOURCE`; the name is "" where the entry is a source alone."""
    name, equals, source = entry.partition("=")
    return (name, source) if equals and name.replace("-", "_").isidentifier() else ("", entry)


def evaluation_sources(given: str | Sequence[str]) -> dict[str, str]:
    """Return evaluation tables, one or several, by name: `NAME=SOURCE` as it says, others by the split or the file.

    Raises:
        InputError: two of the same name.
    """
    named: dict[str, str] = {}
    for entry in one_or_more(given):
        name, source = split_name(entry)
        if not name:
            name = entry.rpartition(":")[2] if entry.startswith(("hub:", "builtin:")) else Path(entry).stem
            if entry.startswith("builtin:") and entry.count(":") == 1:
                name = "validation"
        name = "".join(letter if letter.isalnum() or letter in "_-" else "_" for letter in name)
        if name in named:
            raise InputError(
                f"two evaluation tables are called {name!r}", f"name them: first={named[name]} second={source}"
            )
        named[name] = source
    return named


def student_sources(given: Sequence[str] | Mapping[str, str]) -> dict[str, str]:
    """Return students that are there already by name: `NAME=SOURCE` as it says, others by the end of their path or id.

    Raises:
        InputError: two of one name, or a name that cannot be a part of a directory's.
    """
    named: Iterable[tuple[str | None, str]]
    named = given.items() if isinstance(given, Mapping) else map(_split_student, map(str, one_or_more(given)))
    found: dict[str, str] = {}
    for said, source in named:
        name = said
        if name is None:
            name = re.sub(r"[^A-Za-z0-9._-]+", "-", checkpoint_name(checkpoint_of(source))).lstrip("-._")
            name = f"student-{name}" if name in (*INITS, GIVEN) else name
        if not _STUDENT_NAME.fullmatch(name) or name in (*INITS, GIVEN):
            raise InputError(
                f"a student is called {name!r}",
                f"name it: NAME={source}",
                allowed=f"allowed: {_NAME_LETTERS}; not {', '.join((*INITS, GIVEN))}",
            )
        if name in found:
            raise InputError(f"two students are called {name!r}", f"name them: first={found[name]} second={source}")
        found[name] = source
    return found


def _split_student(entry: str) -> tuple[str | None, str]:
    """Return the name and the source of `NAME=SOURCE`; the name is None where the entry is a source alone."""
    name, equals, source = entry.partition("=")
    if not equals or Path(entry).exists():
        return None, entry
    if "/" in name:
        raise InputError(
            f"a student is {entry!r}, which is not there as a directory, and {name!r} cannot be a name",
            allowed=f"allowed in a name: {_NAME_LETTERS}",
        )
    return name, source
