"""Prompt and completion: a causal model continues a prompt; only the completion is learnt unless told otherwise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Self, cast

import numpy as np
from numpy.typing import NDArray
from transformers import PretrainedConfig, PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from anglekit.distillation.settings import DataSettings, GenerationSettings
from anglekit.distillation.tasks.causal import TOKEN_SCORES, CausalTask, token_report
from anglekit.distillation.tasks.data import TextTable, TokenizedExamples, origin
from anglekit.distillation.tasks.generation import generate_texts
from anglekit.distillation.tasks.scores import exact_matches, last_turn_matches, normalized_exact_matches
from anglekit.distillation.tasks.task import BoundedTokenizer, ScoredModel, ScoreReport
from anglekit.distillation.tasks.text_columns import find_text_column, text_lists, texts_of
from anglekit.errors import InputError
from anglekit.models.lengths import length_limit
from anglekit.probes.conversations import Messages, plain_conversation, templated
from anglekit.probes.encode import encode_completions, joined
from anglekit.readings import Decisions
from anglekit.tables.shapes import Turn, as_known_shape, conversations_of, story_columns, story_of, turns_of
from anglekit.tables.table import Table

_USUAL_PROMPTS = ("prompt", "question", "context", "instruction", "input", "text", "source")
_USUAL_COMPLETIONS = ("completion", "answer", "response", "output", "target", "answers")
# The scores of a generated text that is right or wrong.
_MATCHES = {
    "exact_match": exact_matches,
    "normalized_exact_match": normalized_exact_matches,
    "last_turn_exact_match": last_turn_matches,
}


@dataclass(frozen=True, eq=False, kw_only=True)
class Prompts(TextTable):
    """A table's prompts."""

    prompts: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.prompts)

    def by_template(self, tokenizer: Tokenizer) -> Self:
        """Return the prompts as the tokenizer's chat template has them, where they are conversations."""
        return self


@dataclass(frozen=True, eq=False, kw_only=True)
class PromptsAndCompletions(Prompts):
    """A table's prompts and one or more completions of each; validation uses the first.

    Attributes:
        completions: what follows each prompt.
        conversations: the messages that each prompt stands for; None where prompts are texts.
        alone: of turns about a story, each turn behind its story alone, as the paper's code trains on it.
        last_turn: which turns are a story's last; None: every row is one.
    """

    completions: tuple[tuple[str, ...], ...]
    conversations: tuple[Messages, ...] | None = None
    alone: tuple[tuple[str, str], ...] | None = None
    last_turn: tuple[bool, ...] | None = None

    def by_template(self, tokenizer: Tokenizer) -> Self:
        """Return prompts and completions as the tokenizer's chat template has them, where they are conversations."""
        if self.conversations is None:
            return self
        both = [
            templated(tokenizer, messages, own[0])
            for messages, own in zip(self.conversations, self.completions, strict=True)
        ]
        prompts, completions = zip(*both, strict=True)
        return replace(self, prompts=prompts, completions=tuple((text,) for text in completions), conversations=None)


def completion_examples(
    bounded: BoundedTokenizer,
    table: Prompts,
    places: Sequence[tuple[int, str]],
    *,
    ends: bool,
    loss_on_prompt: bool,
    follow: Callable[[str, str], str] = joined,
) -> dict[str, Any]:
    """Return the `tokens` and `numbers` of examples: `input_ids`, and how many of them are `unlabelled`.

    If prompt and completion do not both fit, the prompt loses its beginning; a completion is never cut. (With cut "end"
    in the lengths the text loses its end instead, as in the paper's code, the completion with it.) `places` holds the
    row of a prompt and its completion, for each example; `follow` takes both texts and returns what is written behind
    the prompt. With `ends`, the end-of-text token follows.

    Raises:
        InputError: a completion leaves no room for a token of its prompt.
    """
    tokenizer, length = bounded.tokenizer, bounded.lengths.max_length or bounded.limit
    prompts = [table.prompts[row] for row, _ in places]
    follows = [follow(prompt, text) for prompt, (_, text) in zip(prompts, places, strict=True)]
    ids, known = encode_completions(tokenizer, prompts, follows, ends=ends)
    kept: list[list[int]] = []
    unlabelled = []
    for tokens, prompt, (row, _) in zip(ids, known, places, strict=True):
        own = len(tokens) - prompt
        if bounded.lengths.cut == "end":
            kept.append(tokens[:length])
            unlabelled.append(0 if loss_on_prompt else min(prompt, length))
            continue
        if own >= length:
            raise InputError(
                f"{table.source}, row {row} (counted from 0), has a completion of {own} tokens",
                f"the maximal length is {length} with at least one token of the prompt and the model allows "
                f"{bounded.limit}: shorten it, or raise --max-length",
            )
        begin = tokens[: 1 if prompt and tokens[0] == tokenizer.bos_token_id else 0]
        cut = max(len(tokens) - length, 0)
        kept.append([*begin, *tokens[cut + len(begin) :]] if cut else tokens)
        unlabelled.append(0 if loss_on_prompt else prompt - cut)
    return {"tokens": {"input_ids": kept}, "numbers": {"unlabelled": np.array(unlabelled, dtype=np.int64)}}


@dataclass(frozen=True, kw_only=True)
class CompletionTask(CausalTask):
    """Prompts with completions, scored by what the model generates.

    Attributes:
        prompt, completion: the task's own names of these columns.
        beams: beams of the generation that is scored; 1 is greedy.
        max_new_tokens: the most tokens of a generated text.
    """

    prompt: str | None = None
    completion: str | None = None
    scores: tuple[str, ...] = ("exact_match", "perplexity")
    beams: int = 1
    max_new_tokens: int = 32

    allowed_scores: ClassVar[Sequence[str]] = (*_MATCHES, *TOKEN_SCORES)

    def texts(self, table: Table, columns: DataSettings, name: str) -> PromptsAndCompletions:
        """Return a table's prompts and completions; see `Task.read`."""
        table = as_known_shape(table, (columns.prompt, columns.completion))
        first = find_text_column(table, "prompt", columns.prompt, (self.prompt,), _USUAL_PROMPTS)
        second = find_text_column(table, "completion", columns.completion, (self.completion,), _USUAL_COMPLETIONS)
        if first == second:
            raise InputError(f"--prompt and --completion both name column {first!r} of {table.source}", "name two")
        conversations = conversations_of(table, first)
        if conversations is None:
            prompts = texts_of(table, first, "prompt")
        else:
            prompts = tuple(map(plain_conversation, conversations))
        return PromptsAndCompletions(
            **origin(table, name),
            columns=(first, second),
            prompts=prompts,
            completions=text_lists(table, second, "completion"),
            conversations=conversations,
        )

    def examples(self, table: PromptsAndCompletions, bounded: BoundedTokenizer, *, training: bool) -> TokenizedExamples:
        """Return prompts with their completions, and prompts alone for scoring; see `Task.tokenize`."""
        table = table.by_template(bounded.tokenizer)
        places = [(row, text) for row, own in enumerate(table.completions) for text in (own if training else own[:1])]
        made = completion_examples(bounded, table, places, ends=True, loss_on_prompt=bounded.lengths.loss_on_prompt)
        scored = None
        if not training:
            prompts, _ = encode_completions(
                bounded.tokenizer, [one.rstrip() for one in table.prompts], [""] * len(table), ends=False
            )
            scored = TokenizedExamples({"input_ids": prompts})
        return TokenizedExamples(**made, table=table, scored=scored)

    def generation(
        self, wanted: GenerationSettings, tokenizer: Tokenizer, config: PretrainedConfig
    ) -> GenerationSettings:
        """Return complete settings that leave room for the prompt; see `Task.generation`."""
        chosen = wanted.completed(self.beams, self.max_new_tokens)
        if self._generates:
            _room_for_prompts(tokenizer, config, chosen)
        return chosen

    @property
    def _reads_tokens(self) -> bool:
        return bool(set(TOKEN_SCORES) & set(self.scores))

    @property
    def _generates(self) -> bool:
        return bool(_MATCHES.keys() & set(self.scores))

    def score_values(self, examples: TokenizedExamples, scored: ScoredModel) -> ScoreReport:
        """Return the exact match of generated texts and the perplexity of the completions."""
        model, tokenizer = scored.model, scored.tokenizer
        values: dict[str, float] = {}
        notes: dict[str, Any] = {}
        columns: dict[str, NDArray[Any]] = {}
        if self._reads_tokens:
            found = token_report(examples, scored, self.collator(tokenizer), self.scores)
            values |= found.scores
            columns |= found.examples
        if self._generates:
            chosen = self.generation(scored.generation, tokenizer, model.config)
            prompts = examples.scored or examples
            texts = self.continuations(model, tokenizer, prompts, scored.batch_size, chosen, advance=scored.advance)
            table = cast("PromptsAndCompletions", examples.table)
            for name, matches in _MATCHES.items():
                if name not in self.scores:
                    continue
                met: NDArray[Any] = matches(texts, table.completions)
                if name != "last_turn_exact_match":
                    columns[name] = met.astype(np.int64)
                    values[name] = float(columns[name].mean())
                    continue
                last = np.array(table.last_turn or (True,) * len(table), dtype=np.int64)
                columns |= {f"{name}:right": met * last, f"{name}:turns": last}
                values[name] = float((met * last).sum() / max(int(last.sum()), 1))
            notes["generation"] = asdict(chosen)
        return ScoreReport(values, notes, columns)

    def scoring_passes(self, examples: TokenizedExamples) -> int:
        """Return how many examples go through a model: once for scores of tokens, once more to generate."""
        generated = len(examples.scored or examples) if self._generates else 0
        return generated + (len(examples) if self._reads_tokens else 0)

    def continuations(
        self,
        model: PreTrainedModel,
        tokenizer: Tokenizer,
        prompts: TokenizedExamples,
        batch_size: int,
        generation: GenerationSettings,
        *,
        advance: Callable[[int], None] | None = None,
    ) -> list[str]:
        """Return how a model continues each prompt; a prompt that leaves no room loses its beginning.

        Raises:
            InputError: the model has no room for that many new tokens.
        """
        room = _room_for_prompts(tokenizer, model.config, generation)
        pad_id = self.padding_id(tokenizer)
        return generate_texts(model, tokenizer, prompts, batch_size, generation, pad_id, longest=room, advance=advance)


def _room_for_prompts(tokenizer: Tokenizer, config: PretrainedConfig, generation: GenerationSettings) -> int:
    limit, new = length_limit(tokenizer, config), generation.max_new_tokens or 0
    if new >= limit:
        raise InputError(f"--max-new-tokens is {new} and the model reads {limit} in all", "leave room for the prompt")
    return limit - new


@dataclass(frozen=True, kw_only=True)
class ConversationTask(CompletionTask):
    """Questions about a story, as in CoQA: every turn is an example, with the earlier turns in its prompt.

    `last_turn_exact_match` is `em` of lm-evaluation-harness (`coqa/utils.py`): of each story's last turn alone.

    Attributes:
        conversation_text: of training texts, as `readings.Decisions` has it.
    """

    conversation_text: str = "history"

    def read_as(self, decided: Decisions) -> Self:
        """Return the task with the texts that a reading trains on."""
        return replace(self, conversation_text=decided.conversation_text)

    def examples(self, table: PromptsAndCompletions, bounded: BoundedTokenizer, *, training: bool) -> TokenizedExamples:
        """Return the examples of a completion task, of the texts that the reading trains on; see `Task.tokenize`."""
        if training and self.conversation_text == "alone" and table.alone is not None:
            prompts, completions = zip(*table.alone, strict=True)
            table = replace(table, prompts=prompts, completions=tuple((text,) for text in completions))
        return super().examples(table, bounded, training=training)

    def texts(self, table: Table, columns: DataSettings, name: str) -> PromptsAndCompletions:
        """Return conversations, or prompts and completions where there are none; see `Task.read`."""
        found = story_columns(table.names)
        if columns.prompt or columns.completion or found is None:
            return super().texts(table, columns, name)
        turns = _turns(table)
        return PromptsAndCompletions(
            **origin(table, name),
            columns=found,
            prompts=tuple(turn.prompt for turn in turns),
            completions=tuple(turn.answers for turn in turns),
            alone=tuple(turn.alone for turn in turns),
            last_turn=tuple(turn.last for turn in turns),
        )


def _turns(table: Table) -> list[Turn]:
    turns: list[Turn] = []
    for number, row in enumerate(table.each_row()):
        try:
            read = story_of(row)
            if not all(text.strip() for text in (*read.questions, *read.answers)):
                raise InputError("a question or an answer is blank", "give it a text, or leave both out")
            turns += turns_of(read)
        except InputError as error:
            file, place = table.file_row(number)
            raise InputError(
                f"{file}, row {place} (counted from 0): {error.arrived}", error.remedy, allowed=error.allowed
            ) from error
    return turns
