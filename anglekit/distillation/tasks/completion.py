"""Prompt and completion: a causal model goes on from a prompt; it is trained on the completion alone unless told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np
from transformers import PretrainedConfig, PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from anglekit.distillation.settings import DataSettings, EncodingSettings, GenerationSettings
from anglekit.distillation.tasks.causal import CausalTask, perplexity
from anglekit.distillation.tasks.data import (
    PaddedBatches,
    TextTable,
    TokenizedExamples,
    length_sorted_batches,
    model_limit,
)
from anglekit.distillation.tasks.generation import generate_texts, padding_id, scoring_mode
from anglekit.distillation.tasks.scores import exact_match, normalized_exact_match
from anglekit.distillation.tasks.text_columns import find_text_column, text_lists, texts_of
from anglekit.errors import InputError
from anglekit.probes.prompts import encode_completions, joined
from anglekit.tables.read import Table, read_table

__all__ = ["CompletionTask", "ConversationTask", "PromptsAndCompletions", "completion_examples"]

_USUAL_PROMPTS = ("prompt", "question", "context", "instruction", "input", "text", "source")
_USUAL_COMPLETIONS = ("completion", "answer", "response", "output", "target", "answers")


@dataclass(frozen=True, eq=False, kw_only=True)
class PromptsAndCompletions(TextTable):
    """A table's prompts and what may follow each.

    Attributes:
        prompts: the prompts.
        completions: one or more for each prompt; the first one is validated on.
    """

    prompts: tuple[str, ...]
    completions: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.prompts)


def completion_examples(
    tokenizer: Tokenizer,
    encoding: EncodingSettings,
    limit: int,
    prompts: Sequence[str],
    completions: Sequence[str],
    places: Sequence[str],
    *,
    ends: bool,
) -> dict[str, Any]:
    """Return `input_ids` and `unlabelled` of prompts with their completions.

    A prompt that is too long loses its beginning; a completion is never cut.

    Args:
        tokenizer: the model's.
        encoding: with the maximal length of both together.
        limit: the model's own length, for messages.
        prompts: the prompts.
        completions: as texts.
        places: where each comes from, for messages.
        ends: whether the end-of-text token comes behind.

    Raises:
        InputError: a completion leaves no room for a token of its prompt.
    """
    length = encoding.max_length or limit
    follows = [joined(prompt, completion) for prompt, completion in zip(prompts, completions, strict=True)]
    ids, known = encode_completions(tokenizer, prompts, follows, ends=ends)
    kept: list[list[int]] = []
    unlabelled = []
    for tokens, prompt, place in zip(ids, known, places, strict=True):
        own = len(tokens) - prompt
        if own >= length:
            raise InputError(
                f"{place} has a completion of {own} tokens",
                f"the maximal length is {length} with at least one token of the prompt and the model allows {limit}: "
                "shorten it, or raise --max-length",
            )
        begin = tokens[: 1 if prompt and tokens[0] == tokenizer.bos_token_id else 0]
        cut = max(len(tokens) - length, 0)
        kept.append([*begin, *tokens[cut + len(begin) :]] if cut else tokens)
        unlabelled.append(0 if encoding.loss_on_prompt else prompt - cut)
    return {"tokens": {"input_ids": kept}, "numbers": {"unlabelled": np.array(unlabelled, dtype=np.int64)}}


@dataclass(frozen=True, kw_only=True)
class CompletionTask(CausalTask):
    """Prompts with completions, scored by what the model generates.

    Attributes:
        prompt: the task's own name of the prompt's column.
        completion: likewise.
        beams: of the generation that is scored; 1 is greedy.
        max_new_tokens: where a generated text ends at the latest.
    """

    prompt: str | None = None
    completion: str | None = None
    scores: tuple[str, ...] = ("exact_match", "perplexity")
    beams: int = 1
    max_new_tokens: int = 32

    allowed_scores: ClassVar[Sequence[str]] = ("exact_match", "normalized_exact_match", "perplexity")

    def read(self, source: str, columns: DataSettings | None = None, *, name: str = "train") -> PromptsAndCompletions:
        """Read a table's prompts and completions; see `Task.read`."""
        columns = columns or DataSettings()
        table = read_table(source, limit=columns.limit)
        first = find_text_column(table, "prompt", columns.prompt, (self.prompt,), _USUAL_PROMPTS)
        second = find_text_column(table, "completion", columns.completion, (self.completion,), _USUAL_COMPLETIONS)
        if first == second:
            raise InputError(f"--prompt and --completion both name column {first!r} of {source}", "name two")
        return PromptsAndCompletions(
            name=name,
            source=source,
            sha256=table.sha256,
            columns=(first, second),
            prompts=texts_of(table, first, "prompt"),
            completions=text_lists(table, second, "completion"),
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
        """Tokenise prompts with their completions, and to be scored prompts alone; see `Task.tokenize`."""
        data = cast("PromptsAndCompletions", table)
        padding_id(tokenizer, end_of_text=True)
        places = [(row, text) for row, own in enumerate(data.completions) for text in (own if training else own[:1])]
        made = completion_examples(
            tokenizer,
            encoding,
            model_limit(tokenizer, config),
            [data.prompts[row] for row, _ in places],
            [text for _, text in places],
            [f"{data.source}, row {row} (counted from 0)," for row, _ in places],
            ends=True,
        )
        scored = None
        if not training:
            prompts, _ = encode_completions(
                tokenizer, [one.rstrip() for one in data.prompts], [""] * len(data), ends=False
            )
            scored = TokenizedExamples({"input_ids": prompts})
        return TokenizedExamples(**made, table=table, scored=scored)

    def generation(
        self, wanted: GenerationSettings, tokenizer: Tokenizer, config: PretrainedConfig
    ) -> GenerationSettings:
        """Return complete settings, which leave the prompt room; see `Task.generation`."""
        chosen = wanted.completed(self.beams, self.max_new_tokens)
        if self._generates:
            _room_for_prompts(tokenizer, config, chosen)
        return chosen

    @property
    def _generates(self) -> bool:
        return bool({"exact_match", "normalized_exact_match"} & set(self.scores))

    def score_values(
        self,
        model: PreTrainedModel,
        examples: TokenizedExamples,
        tokenizer: Tokenizer,
        batch_size: int,
        generation: GenerationSettings,
    ) -> tuple[dict[str, float], dict[str, Any]]:
        """Return the exact match of generated texts and the perplexity of the completions."""
        values: dict[str, float] = {}
        notes: dict[str, Any] = {}
        if "perplexity" in self.scores:
            values["perplexity"] = perplexity(model, examples, self.collator(tokenizer), batch_size)
        if self._generates:
            chosen = self.generation(generation, tokenizer, model.config)
            texts = generated_completions(model, examples.scored or examples, tokenizer, batch_size, chosen)
            references = cast("PromptsAndCompletions", examples.table).completions
            values["exact_match"] = exact_match(texts, references)
            values["normalized_exact_match"] = normalized_exact_match(texts, references)
            notes["generation"] = chosen.notes()
        return values, notes


def generated_completions(
    model: PreTrainedModel,
    prompts: TokenizedExamples,
    tokenizer: Tokenizer,
    batch_size: int,
    generation: GenerationSettings,
) -> list[str]:
    """Return how a causal model goes on from each prompt; a prompt that leaves no room loses its beginning.

    Args:
        model: a causal model, left as it was.
        prompts: whose `input_ids` it reads.
        tokenizer: its own.
        batch_size: prompts that are continued together.
        generation: complete settings.

    Raises:
        InputError: the model has no room for so many new tokens.
    """
    room = _room_for_prompts(tokenizer, model.config, generation)
    pad_id = padding_id(tokenizer, end_of_text=True)
    collate = PaddedBatches(pad_id, left=True)
    texts = np.empty(len(prompts), dtype=object)
    with scoring_mode(model):
        for batch in length_sorted_batches(prompts, batch_size):
            inputs = collate([{"input_ids": prompts[index]["input_ids"][-room:]} for index in batch])
            texts[batch] = generate_texts(model, tokenizer, inputs, generation, pad_id)
    return list(texts)


def _room_for_prompts(tokenizer: Tokenizer, config: PretrainedConfig, generation: GenerationSettings) -> int:
    limit, new = model_limit(tokenizer, config), generation.max_new_tokens or 0
    if new >= limit:
        raise InputError(f"--max-new-tokens is {new} and the model reads {limit} in all", "leave room for the prompt")
    return limit - new


@dataclass(frozen=True, kw_only=True)
class ConversationTask(CompletionTask):
    """Questions about a story, as CoQA has them: every turn is an example, the turns before it are in its prompt."""

    def read(self, source: str, columns: DataSettings | None = None, *, name: str = "train") -> PromptsAndCompletions:
        """Read conversations, or prompts and completions where there are none; see `Task.read`."""
        columns = columns or DataSettings()
        table = read_table(source, limit=columns.limit)
        answers = next((name for name in ("answers.input_text", "answers") if name in table.frame.columns), None)
        found = answers is not None and {"story", "questions"} <= set(map(str, table.frame.columns))
        if columns.prompt or columns.completion or not found or answers is None:
            return super().read(source, columns, name=name)
        prompts, completions = _turns(table, answers)
        return PromptsAndCompletions(
            name=name,
            source=source,
            sha256=table.sha256,
            columns=("story", "questions", answers),
            prompts=tuple(prompts),
            completions=tuple((text,) for text in completions),
        )


def _turns(table: Table, column: str) -> tuple[list[str], list[str]]:
    stories, questions = texts_of(table, "story", "story"), text_lists(table, "questions", "questions")
    answers = text_lists(table, column, "answers")
    prompts: list[str] = []
    completions: list[str] = []
    for row, (story, asked, answered) in enumerate(zip(stories, questions, answers, strict=True)):
        if len(asked) != len(answered):
            raise InputError(
                f"{table.source} has {len(asked)} questions and {len(answered)} answers in row {row} (counted from 0)",
                "give one answer for each question",
            )
        before = [f"Q: {q}\n\nA: {a}\n\n" for q, a in zip(asked, answered, strict=True)]
        so_far = [story + "\n\n" + "".join(before[:turn]) for turn in range(len(asked))]
        prompts += [f"{history}Q: {question}\n\nA:" for history, question in zip(so_far, asked, strict=True)]
        completions += answered
    return prompts, completions
