"""Multiple choice by a causal model: the choice whose text is the most probable after the prompt."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self, cast

import numpy as np
from numpy.typing import NDArray

from anglekit.distillation.settings import DataSettings
from anglekit.distillation.tasks.causal import CausalTask, log_likelihoods, token_report
from anglekit.distillation.tasks.completion import Prompts, completion_examples
from anglekit.distillation.tasks.data import TokenizedExamples, origin
from anglekit.distillation.tasks.labelled.label_cells import label_text
from anglekit.distillation.tasks.task import BoundedTokenizer, ScoredModel, ScoreReport
from anglekit.distillation.tasks.text_columns import find_text_column, text_lists, texts_of
from anglekit.errors import InputError
from anglekit.probes.encode import joined
from anglekit.readings import Decisions
from anglekit.tables.shapes import as_known_shape
from anglekit.tables.table import Table

_USUAL_PROMPTS = ("prompt", "context", "ctx", "question", "query", "text")
_USUAL_CHOICES = ("choices", "endings", "options", "answers")
_USUAL_LABELS = ("label", "answer", "gold", "correct", "answerKey", "target")
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True, eq=False, kw_only=True)
class PromptsAndChoices(Prompts):
    """A table's prompts, the choices for each, and which one is right.

    Attributes:
        choices: two or more for each prompt.
        right: the number of the right choice, from 0.
    """

    choices: tuple[tuple[str, ...], ...]
    right: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class MultipleChoiceTask(CausalTask):
    """Multiple choice: trained on the prompt followed by its right choice, scored by every choice's probability.

    `accuracy` and `accuracy_normalized` are `acc` and `acc_norm` of lm-evaluation-harness
    (`ConfigurableTask.process_results`). They pick the choice with the largest log-probability, and with the largest
    log-probability divided by the choice's length in characters, not counting the blank before it.

    Attributes:
        prompt, choices, label: the task's own names of these columns.
    """

    prompt: str | None = None
    choices: str | None = None
    label: str | None = None
    scores: tuple[str, ...] = ("accuracy_normalized", "accuracy")

    allowed_scores: ClassVar[Sequence[str]] = ("accuracy", "accuracy_normalized", "token_accuracy")

    def texts(self, table: Table, columns: DataSettings, name: str) -> PromptsAndChoices:
        """Return a table's prompts, choices and labels; see `Task.read`."""
        table = as_known_shape(table, (columns.prompt, columns.choices, columns.label))
        first, prompts = self.read_prompts(table, columns)
        names, choices = self.read_choices(table, columns)
        label = find_text_column(table, "label", columns.label, (self.label,), _USUAL_LABELS)
        cells = table.column(label)
        right = [
            _right(cell, own, "{}, row {}".format(*table.file_row(row)))
            for row, (cell, own) in enumerate(zip(cells, choices, strict=True))
        ]
        return PromptsAndChoices(
            **origin(table, name),
            columns=(*first, *names, label),
            prompts=prompts,
            choices=choices,
            right=tuple(right),
        )

    def read_prompts(self, table: Table, columns: DataSettings) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the columns that the prompts come from, and the prompts."""
        column = find_text_column(table, "prompt", columns.prompt, (self.prompt,), _USUAL_PROMPTS)
        return (column,), texts_of(table, column, "prompt")

    def read_choices(self, table: Table, columns: DataSettings) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
        """Return the columns that the choices come from, and the choices."""
        if columns.choices is not None and "," in columns.choices:
            names = tuple(name.strip() for name in columns.choices.split(","))
            sides = [texts_of(table, find_text_column(table, "choices", name), "choices") for name in names]
            return names, tuple(zip(*sides, strict=True))
        column = find_text_column(table, "choices", columns.choices, (self.choices,), _USUAL_CHOICES)
        return (column,), text_lists(table, column, "choices", least=2)

    # ---- tokens ----

    def follow_scored(self, prompt: str, choice: str) -> str:
        """Return what is written behind a prompt where a choice is scored."""
        return joined(prompt, choice)

    def follow_trained(self, prompt: str, choice: str) -> str:
        """Return what is written behind a prompt where the right choice is trained on."""
        return self.follow_scored(prompt, choice)

    def examples(self, table: PromptsAndChoices, bounded: BoundedTokenizer, *, training: bool) -> TokenizedExamples:
        """Return prompts with their right choices, and with every choice for scoring; see `Task.tokenize`."""
        scored = None
        if not training:
            every = [(row, text) for row, own in enumerate(table.choices) for text in own]
            scored = TokenizedExamples(
                **completion_examples(
                    bounded, table, every, ends=False, loss_on_prompt=False, follow=self.follow_scored
                )
            )
        right = [(row, own[table.right[row]]) for row, own in enumerate(table.choices)]
        made = completion_examples(
            bounded,
            table,
            right,
            ends=True,
            loss_on_prompt=bounded.lengths.loss_on_prompt,
            follow=self.follow_trained,
        )
        return TokenizedExamples(**made, table=table, scored=scored)

    # ---- scores ----

    def chance(self, examples: TokenizedExamples) -> dict[str, float]:
        """Return the share of the place at which the right choice stands most often; see `Task.chance`."""
        right = cast("PromptsAndChoices", examples.table).right
        return (
            dict.fromkeys(("accuracy", "accuracy_normalized"), max(Counter(right).values()) / len(right))
            if right
            else {}
        )

    def score_values(self, examples: TokenizedExamples, scored: ScoredModel) -> ScoreReport:
        """Return the accuracies."""
        table = cast("PromptsAndChoices", examples.table)
        collate, choices = self.collator(scored.tokenizer), examples.scored or examples
        found, _, _ = log_likelihoods(scored.model, choices, collate, scored.batch_size, scored.advance)
        right = right_choices(found, table.choices, table.right)
        columns = {name: values.astype(np.int64) for name, values in right.items() if name in self.scores}
        means = {name: float(values.mean()) for name, values in right.items()}
        if "token_accuracy" not in self.scores:
            return ScoreReport(means, examples=columns)
        tokens = token_report(examples, scored, collate, ("token_accuracy",))
        return ScoreReport(means | dict(tokens.scores), examples={**columns, **tokens.examples})

    def scoring_passes(self, examples: TokenizedExamples) -> int:
        """Return how many examples go through a model: every choice, and the right ones for the score of tokens."""
        return super().scoring_passes(examples) + (len(examples) if "token_accuracy" in self.scores else 0)


def right_choices(
    likelihoods: NDArray[np.float64], choices: Sequence[Sequence[str]], right: Sequence[int]
) -> dict[str, NDArray[np.bool_]]:
    """Return by score which examples are answered rightly, from the likelihoods of every choice, example after example.

    Each is (examples,); their means are `accuracy` and `accuracy_normalized`.
    """
    raw, normalized = np.zeros(len(choices), dtype=np.bool_), np.zeros(len(choices), dtype=np.bool_)
    start = 0
    for row, (own, gold) in enumerate(zip(choices, right, strict=True)):
        scores = likelihoods[start : start + len(own)]
        raw[row] = np.argmax(scores) == gold
        normalized[row] = np.argmax(scores / np.array([float(len(text)) for text in own])) == gold
        start += len(own)
    return {"accuracy": raw, "accuracy_normalized": normalized}


def _right(cell: object, choices: Sequence[str], where: str) -> int:
    """Return the number of the right choice, given by its number, its letter or its text."""
    text = label_text(cell)
    if isinstance(cell, int) and not isinstance(cell, bool) and 0 <= cell < len(choices):
        return cell  # the number of a choice, also where the texts of choices are numbers
    if text is not None and text in choices:
        return choices.index(text)
    if text is not None and text.isdecimal() and int(text) < len(choices):
        return int(text)
    if text is not None and len(text) == 1 and text in _LETTERS[: len(choices)]:
        return _LETTERS.index(text)
    raise InputError(
        f"{where} (counted from 0) has label {text!r} and {len(choices)} choices",
        allowed=f"allowed: 0 to {len(choices) - 1}, A to {_LETTERS[len(choices) - 1]}, or a choice's text",
    )


@dataclass(frozen=True, kw_only=True)
class HellaSwagTask(MultipleChoiceTask):
    """HellaSwag, its texts cleaned as lm-evaluation-harness cleans them (`hellaswag/utils.py`).

    Attributes:
        choice_text: of training texts, as `readings.Decisions` has it. Where endings are scored there is always a blank
            before them, as in the harness; WikiHow's that begin with a mark have two.
    """

    choice_text: str = "blank"

    def read_as(self, decided: Decisions) -> Self:
        """Return the task with the texts that a reading trains on."""
        return replace(self, choice_text=decided.choice_text)

    def follow_scored(self, prompt: str, choice: str) -> str:
        """Return what is written behind a prompt where an ending is scored."""
        return f" {choice}"

    def follow_trained(self, prompt: str, choice: str) -> str:
        """Return what is written behind a prompt where the right ending is trained on."""
        return self.follow_scored(prompt, choice) if self.choice_text == "blank" else choice

    def read_prompts(self, table: Table, columns: DataSettings) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the prompts: the activity, then both parts of the context."""
        needed = ("activity_label", "ctx_a", "ctx_b")
        if columns.prompt is not None or not set(needed) <= set(table.names):
            return super().read_prompts(table, columns)
        # WikiHow's rows have no second part, so that a table of them alone has none in any row.
        sides = [
            texts_of(table, name, "prompt", may_be_missing=name == "ctx_b", throughout=name == "ctx_b")
            for name in needed
        ]
        texts = [f"{activity}: {first} {second.capitalize()}" for activity, first, second in zip(*sides, strict=True)]
        return needed, tuple(map(_cleaned, texts))

    def read_choices(self, table: Table, columns: DataSettings) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
        """Return the endings."""
        names, choices = super().read_choices(table, columns)
        return names, tuple(tuple(map(_cleaned, own)) for own in choices)


def _cleaned(text: str) -> str:
    """Return WikiHow's text without its marks."""
    plain = re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". "))
    return plain.replace("  ", " ")
