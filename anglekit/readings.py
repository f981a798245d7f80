"""The two readings of a whole run, item by item: what the paper's code does, and what a careful run does instead.

`READING_ITEMS` is the one table that decides. Losses, settings, plans, tasks, recipes, the documentation and the report
read it; what a user says himself goes before it. Source: the public code of Yu, Wen and Mou, arXiv 2502.04499.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from anglekit.errors import InputError, suggest
from anglekit.vocabulary import (
    CLASSIFICATION,
    COMPLETION,
    LANGUAGE_MODEL,
    MULTIPLE_CHOICE,
    READINGS,
    SEQ2SEQ,
    TASK_KINDS,
    Reading,
)

#: The four programs of the paper's code: one for encoders, two for encoder-decoders, one for language models.
OFFICIAL_FAMILIES: Final = ("bert", "bart", "t5", "causal")
#: What each program trains: kinds of tasks.
OFFICIAL_TASKS: Final[Mapping[str, tuple[str, ...]]] = {
    "bert": (CLASSIFICATION,),
    "bart": (SEQ2SEQ,),
    "t5": (SEQ2SEQ,),
    "causal": (COMPLETION, MULTIPLE_CHOICE, LANGUAGE_MODEL),
}
#: The model types that each program was run with; others are read as their kind.
OFFICIAL_TYPES: Final[Mapping[str, tuple[str, ...]]] = {
    "bert": ("bert",),
    "bart": ("bart",),
    "t5": ("t5",),
    "causal": ("qwen3", "llama"),
}
#: The order of `random` that the paper's language models always have: torch's permutation from this seed.
OFFICIAL_ORDER_SEED: Final = 42


@dataclass(frozen=True)
class ReadingItem:
    """One thing in which a careful run does otherwise than the paper's code.

    Attributes:
        title: what it is, in a phrase.
        official: by family in `OFFICIAL_FAMILIES`; a family that is not named does as the corrected reading.
        corrected: of all families, or by family.
        source: where the official value is read off; "inferred" where the code does not say it by itself.
    """

    title: str
    official: Mapping[str, Any]
    corrected: Any
    source: str

    def value(self, reading: Reading, family: str) -> Any:  # noqa: ANN401 - of the item's own type
        """Return what a reading decides for a family."""
        if reading == "official" and family in self.official:
            return self.official[family]
        return self.corrected[family] if isinstance(self.corrected, Mapping) else self.corrected


@dataclass(frozen=True)
class Decisions:
    """What a reading decides for one family; the attributes are the items of `READING_ITEMS`.

    Attributes:
        hidden_normalization: of the hidden loss, in words; `distillation.losses.official` computes it.
        decoder_positions: of hidden losses: "labels", or "decoder-inputs", which are not padding.
        final_norm: whether the last layer is taken before the final norm ("excluded") or after it ("included").
        kl_direction: a name in `vocabulary.KL_DIRECTIONS`.
        temperature: of the KL, which carries the factor T^2.
        kl_positions: "labels", "decoder-inputs", or "all", padding included and times the share of valid positions.
        accumulation: "pooled" over the items of a step; "averaged" over its batches; "summed": cross-entropy pooled, KL
            and hidden losses added up over the batches.
        teacher_dropout: whether the teacher runs in training mode.
        max_grad_norm: length to which gradients are clipped; 0 clips none.
        train_adapters: whether width adapters are trained.
        adapter_bias: whether they have a bias.
        adapter_learning_rate: their own; None: the student's.
        freeze_embeddings: whether the tables of tokens and positions stay as they start.
        random_order: of strategy random: "drawn" from the run's seed, for each stream, or "fixed".
        select: "last", or "best" where there is a validation table. (Where that is not the table that is scored, a
            careful run may take the best too: it says so itself.)
        selection_score: by which the best is chosen; None: the task's first score.
        evaluations_per_epoch: validations of students while they train; None: one.
        teacher_evaluations_per_epoch: the same of the teacher that is fine-tuned.
        equal_rates: whether all strategies are trained at one learning rate.
        source_prefix: before WMT's English sources: "task", the words of T5's pre-training; or "t", before a training
            source and in the place of a scored source's first character.
        choice_text: of HellaSwag's training texts: "blank" between prompt and ending, or "joined" without one.
        conversation_text: of CoQA's training texts: "history", every turn behind the earlier ones; or "alone", every
            turn behind its story alone, the last one with an empty answer.
        cut: where a prompt and its completion are too long: "prompt" loses its beginning, or the text its "end".
    """

    hidden_normalization: str
    decoder_positions: str
    final_norm: str
    kl_direction: str
    temperature: float
    kl_positions: str
    accumulation: str
    teacher_dropout: bool
    max_grad_norm: float
    train_adapters: bool
    adapter_bias: bool
    adapter_learning_rate: float | None
    freeze_embeddings: bool
    random_order: str
    select: str
    selection_score: str | None
    evaluations_per_epoch: float | None
    teacher_evaluations_per_epoch: float | None
    equal_rates: bool
    source_prefix: str
    choice_text: str
    conversation_text: str
    cut: str


_BERT = "the paper's BERT trainer"
_LIGHTNING = "the paper's BART and T5 Lightning modules"
_LLM = "the paper's language-model trainer"

READING_ITEMS: Final[Mapping[str, ReadingItem]] = {
    "hidden_normalization": ReadingItem(
        "hidden loss",
        {
            "bert": "|S - T|^2 summed over the width, mean over tokens and layers, divided by the batch size once more",
            "bart": "squared error, mean over tokens and width, summed over layers, for each batch",
            "t5": "as bart, of states normalised jointly over batch x time x width, padding included",
            "causal": "states of length 1; |S - T|^2 summed over the width, mean over layers and all positions, "
            "padding included, times the share of valid positions",
        },
        "squared error (or --hidden-loss), mean over the tokens of the whole step and the width, summed over layers",
        f"{_BERT}; {_LIGHTNING}; {_LLM}",
    ),
    "decoder_positions": ReadingItem(
        "decoder positions of the hidden loss",
        dict.fromkeys(("bart", "t5"), "decoder-inputs"),
        "labels",
        f"{_LIGHTNING}: decoder_input_ids that are not pad, so that T5 loses its first target token and a shorter row "
        "gains a position behind its end",
    ),
    "final_norm": ReadingItem(
        "last layer of models with a final norm",
        dict.fromkeys(OFFICIAL_FAMILIES, "included"),
        "excluded",
        "hidden_states of Hugging Face, whose last entry is taken after it",
    ),
    "kl_direction": ReadingItem(
        "direction of the KL",
        dict.fromkeys(OFFICIAL_FAMILIES, "forward"),
        "forward",
        f"{_LLM} as released; an earlier public repository of the authors had reverse by default",
    ),
    "temperature": ReadingItem("temperature of the KL", {"t5": 2.0}, 1.0, _LIGHTNING),
    "kl_positions": ReadingItem(
        "positions of the KL",
        {**dict.fromkeys(("bart", "t5"), "decoder-inputs"), "causal": "all"},
        "labels",
        f"{_LIGHTNING}; {_LLM}: all positions, prompt included, times the share of valid ones",
    ),
    "accumulation": ReadingItem(
        "losses of an accumulated step",
        {**dict.fromkeys(("bert", "bart", "t5"), "averaged"), "causal": "summed"},
        "pooled",
        f"{_LLM}: cross-entropy is divided by the tokens of the step, KL and hidden loss are not: over two batches "
        "1 : 2 : 6 instead of 1 : 1 : 3 (inferred); of the others nothing is known, their recipes accumulate nothing",
    ),
    "teacher_dropout": ReadingItem(
        "dropout of the teacher",
        dict.fromkeys(("bart", "t5"), True),
        False,
        f"{_LIGHTNING}: the teacher is a submodule of a module that is put into training mode",
    ),
    "max_grad_norm": ReadingItem(
        "length to which gradients are clipped; 0: not at all",
        {"bert": 1.0, "bart": 0.0, "t5": 0.0, "causal": 1.0},
        1.0,
        f"{_LIGHTNING}: Lightning's own option is registered before the script's; {_BERT}; {_LLM}",
    ),
    "train_adapters": ReadingItem(
        "width adapters are trained",
        {"bert": False},
        True,
        f"{_BERT}: a plain list of modules, which never reaches the optimiser",
    ),
    "adapter_bias": ReadingItem("width adapters have a bias", {"causal": True}, False, _LLM),
    "adapter_learning_rate": ReadingItem(
        "learning rate of width adapters; None: the student's", {"causal": 2e-5}, None, _LLM
    ),
    "freeze_embeddings": ReadingItem(
        "embeddings stay as they start, the tied head with them",
        dict.fromkeys(("bart", "t5"), True),
        False,
        "freeze_embeds of the BART and T5 scripts, also from a random start",
    ),
    "random_order": ReadingItem(
        "order of strategy random",
        {"causal": "fixed"},
        "drawn",
        f"{_LLM}: always 6, 4, 0, 7, 5, 8, 3, 2, 1 over nine layers, torch's permutation from seed 42 (inferred)",
    ),
    "select": ReadingItem(
        "which weights are kept",
        {"bert": "last", "bart": "best", "t5": "best", "causal": "best"},
        "last",
        f"{_BERT}: its scripts never evaluate; {_LLM}: on the first tenth of validation, inside the scored split",
    ),
    "selection_score": ReadingItem("score that chooses them", {"causal": "token_accuracy"}, None, _LLM),
    "evaluations_per_epoch": ReadingItem(
        "validations in an epoch of students",
        dict.fromkeys(("bart", "t5"), 1 / 0.3),
        None,
        f"{_LIGHTNING}: val_check_interval 0.3",
    ),
    "teacher_evaluations_per_epoch": ReadingItem(
        "validations in an epoch of the teacher",
        dict.fromkeys(("bart", "t5"), 2.0),
        None,
        f"{_LIGHTNING}: val_check_interval 0.5",
    ),
    "equal_rates": ReadingItem(
        "one learning rate for all strategies",
        {"bert": False},
        True,
        "the BERT scripts: outside MNLI forward, reverse and none at 2e-5, all-to-one and random at 1e-5",
    ),
    "source_prefix": ReadingItem(
        "prefix of WMT's sources",
        {"t5": "t"},
        "task",
        "the WMT scripts: training prepends t, the evaluation replaces a source's first character by t",
    ),
    "choice_text": ReadingItem(
        "HellaSwag's training texts",
        {"causal": "joined"},
        "blank",
        f"{_LLM}: prompt and ending joined without a blank, scored with one",
    ),
    "conversation_text": ReadingItem(
        "CoQA's training texts",
        {"causal": "alone"},
        "history",
        f"{_LLM}: every turn behind its story without earlier turns, a story's last turn with an empty answer",
    ),
    "cut": ReadingItem(
        "where long inputs of language models are cut",
        {"causal": "end"},
        "prompt",
        f"{_LLM}: at the end, where the answer is, at 1024 tokens (inferred)",
    ),
}


def decisions(reading: Reading, family: str) -> Decisions:
    """Return what a reading decides for a family.

    Raises:
        InputError: an unknown reading, or a family that the paper's code does not have.
    """
    if reading not in READINGS:
        raise InputError(f"no reading {reading!r}", allowed=suggest(reading, READINGS))
    if family not in OFFICIAL_FAMILIES:
        raise InputError(f"no official losses for {family!r}", allowed=suggest(family, OFFICIAL_FAMILIES))
    return Decisions(**{one.name: READING_ITEMS[one.name].value(reading, family) for one in fields(Decisions)})


def check_reading(reading: str, task: str | None, family: str | None = None) -> None:
    """Refuse the official reading of what the paper's code does not train.

    Args:
        reading: "official" or "corrected".
        task: its name; None: there is none.
        family: one of `OFFICIAL_FAMILIES`; None: not known yet.

    Raises:
        InputError: no program of the paper's trains such a task, or not that of this family.
    """
    kind = None if task is None else TASK_KINDS.get(task)
    if reading != "official" or kind is None:
        return
    if not any(kind in kinds for kinds in OFFICIAL_TASKS.values()):
        raise InputError(
            f"--reading official came with task {task}, and the paper's code compares classes and texts alone",
            "take --reading corrected",
        )
    if family is not None and kind not in OFFICIAL_TASKS[family]:
        raise InputError(
            f"--reading official came with task {task} and a teacher of the family {family}, which the paper's code "
            f"trains on other tasks ({', '.join(OFFICIAL_TASKS[family])})",
            "take --reading corrected",
        )


def reading_rows(family: str | None = None) -> list[tuple[str, str, str, str]]:
    """Return a row for each item: its title, what official does, what corrected does, and the source.

    Args:
        family: one of `OFFICIAL_FAMILIES`, with the items in which its readings differ; None: all, by family.
    """
    rows: list[tuple[str, str, str, str]] = []
    both: tuple[Reading, Reading] = ("official", "corrected")
    for item in READING_ITEMS.values():
        if family is not None:
            official, corrected = (_shown(item.value(reading, family)) for reading in both)
            if official != corrected:
                rows.append((item.title, official, corrected, item.source))
            continue
        rows.append((item.title, _by_family(item, "official"), _by_family(item, "corrected"), item.source))
    return rows


def _by_family(item: ReadingItem, reading: Reading) -> str:
    """Return an item's values with the families that have each; a value that all have stands alone."""
    values: dict[str, list[str]] = {}
    for family in OFFICIAL_FAMILIES:
        values.setdefault(_shown(item.value(reading, family)), []).append(family)
    if len(values) == 1:
        return next(iter(values))
    return "; ".join(f"{', '.join(having)}: {value}" for value, having in values.items())


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
