"""Causal language models (Qwen3, Llama, GPT-2): what their tasks share, and the task of plain text."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from anglekit.distillation.losses.functional import IGNORE_INDEX, next_token_targets
from anglekit.distillation.settings import DataSettings
from anglekit.distillation.tasks.data import PaddedBatches, TextTable, TokenizedExamples, length_sorted_batches, origin
from anglekit.distillation.tasks.generation import scoring_mode
from anglekit.distillation.tasks.task import BoundedTokenizer, Collator, ScoredModel, ScoreReport, Task
from anglekit.distillation.tasks.text_columns import find_text_column, texts_of
from anglekit.errors import InputError
from anglekit.probes.encode import beginning, encode_texts, ending
from anglekit.results.corpus_scores import CORPUS_SCORES
from anglekit.runtime.passes import told_failures
from anglekit.runtime.placement import compute_device
from anglekit.tables.shapes import as_known_shape
from anglekit.tables.table import Table

#: The scores of labelled tokens.
TOKEN_SCORES: Final = ("perplexity", "token_accuracy")


@dataclass(frozen=True)
class CausalBatches:
    """A collator that labels every token but the first `unlabelled` ones and pads on the right.

    Padding is found by length, never by its token: a model whose end-of-text token also pads learns to end its texts.

    Attributes:
        pad_id: pads the inputs.
    """

    pad_id: int

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Return the batch with mask and labels."""
        rows = [
            {
                "input_ids": (ids := one["input_ids"]),
                "labels": [IGNORE_INDEX] * (hidden := one.get("unlabelled", 0)) + ids[hidden:],
            }
            for one in examples
        ]
        return PaddedBatches(self.pad_id)(rows)


@dataclass(frozen=True, kw_only=True)
class CausalTask(Task):
    """A task of a causal language model."""

    max_length: int = 512
    teacher_learning_rate: float = 2e-5
    student_learning_rate: float = 1e-4

    model_class: ClassVar[Any] = AutoModelForCausalLM
    model_kind: ClassVar[str] = "a causal language model"
    streams: ClassVar[tuple[str, ...] | None] = ("decoder",)
    pads_with_end: ClassVar[bool] = True

    def collator(self, tokenizer: Tokenizer) -> Collator:
        """Return what pads and labels a batch."""
        return CausalBatches(self.padding_id(tokenizer))

    def doubts(self, examples: TokenizedExamples, scored: ScoredModel) -> tuple[str, ...]:
        """Return what speaks against the model's probabilities of tokens; see `Task.doubts`."""
        sums, counts, _ = log_likelihoods(scored.model, examples, self.collator(scored.tokenizer), scored.batch_size)
        return doubts_about_tokens(-sums.sum() / max(int(counts.sum()), 1), scored.model, len(examples))

    def objective_options(self, tokenizer: Tokenizer) -> dict[str, Any]:
        """Say that each position predicts the next token."""
        return {"causal": True}


@dataclass(frozen=True, eq=False, kw_only=True)
class Texts(TextTable):
    """A table's texts."""

    texts: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True, kw_only=True)
class LanguageModelTask(CausalTask):
    """Plain text: every token but a text's first is predicted once.

    A text longer than the maximal length is read in windows; each begins with the last token of the one before.
    """

    scores: tuple[str, ...] = ("perplexity",)

    allowed_scores: ClassVar[Sequence[str]] = TOKEN_SCORES

    def texts(self, table: Table, columns: DataSettings, name: str) -> Texts:
        """Return a table's texts; see `Task.read`."""
        known = as_known_shape(table, (columns.text,))
        if known.shape and known.origins is not None and not table.has("text"):
            raise InputError(
                f"{table.source} is of a known shape ({known.shape}), of prompts and what follows them",
                "take --task completion, or name a column with --text",
            )
        column = find_text_column(table if known.origins is not None else known, "text", columns.text)
        texts = tuple(text for text in texts_of(table, column, "text", may_be_missing=True) if text.strip())
        return Texts(**origin(table, name), columns=(column,), texts=texts)

    def examples(self, table: Texts, bounded: BoundedTokenizer, *, training: bool) -> TokenizedExamples:
        """Return windows of the texts, each text followed by the end-of-text token; see `Task.tokenize`."""
        tokenizer, length = bounded.tokenizer, bounded.lengths.max_length or self.max_length
        front, behind = beginning(tokenizer), ending(tokenizer)
        windows: list[list[int]] = []
        rows: list[int] = []
        for row, ids in enumerate(encode_texts(tokenizer, table.texts, special_tokens=False)["input_ids"]):
            whole = [*front, *ids, *behind]
            starts = range(0, max(len(whole) - 1, 1), length - 1)
            windows += [whole[start : start + length] for start in starts]
            rows += [row] * len(starts)
        if not any(len(window) > 1 for window in windows):
            kept = f"{type(tokenizer).__name__} of {len(tokenizer)} tokens"
            raise InputError(
                f"{table.source} holds no text of two tokens, as {kept} reads it",
                "a language model needs one to predict: give longer texts, or where they have words enough put the "
                "tokenizer that the model was trained with beside it",
            )
        return TokenizedExamples({"input_ids": windows}, table=table, rows=np.array(rows, dtype=np.int64))

    def score_values(self, examples: TokenizedExamples, scored: ScoredModel) -> ScoreReport:
        """Return the scores of the texts' tokens; an example is a text, not a window."""
        return token_report(examples, scored, self.collator(scored.tokenizer), self.scores)


# ---- scores ----


def log_likelihoods(
    model: PreTrainedModel,
    examples: TokenizedExamples,
    collate: Collator,
    batch_size: int,
    advance: Callable[[int], None] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Return what a model says of each example's labelled tokens.

    Returns:
        Their log-probability, in nats, how many there are, and how many of them are the likeliest token in their place,
        all (examples,).
    """
    sums = np.zeros(len(examples))
    counts, right = (np.zeros(len(examples), dtype=np.int64) for _ in range(2))
    device = compute_device(model)
    with scoring_mode(model):
        for batch in length_sorted_batches(examples, batch_size):
            inputs = {key: value.to(device) for key, value in collate([examples[i] for i in batch]).items()}
            labels = inputs.pop("labels")
            with told_failures("the model that is scored", model, inputs):
                logits = model(**inputs, use_cache=False).logits
            logits, targets = next_token_targets(logits, labels)
            row, place = (targets != IGNORE_INDEX).nonzero(as_tuple=True)
            predicted, wanted = logits[row, place].float(), targets[row, place]
            losses = F.cross_entropy(predicted, wanted, reduction="none").double()
            total = torch.zeros(len(batch), dtype=torch.float64, device=losses.device).index_add_(0, row, losses)
            sums[batch] = -total.cpu().numpy()
            counts[batch] = torch.bincount(row, minlength=len(batch)).cpu().numpy()
            found = row[predicted.argmax(-1) == wanted]
            right[batch] = torch.bincount(found, minlength=len(batch)).cpu().numpy()
            if advance is not None:
                advance(len(batch))
    return sums, counts, right


def doubts_about_tokens(loss: float, model: PreTrainedModel, examples: int) -> tuple[str, ...]:
    """Return what speaks against a model whose mean loss of a token, in nats, is this: no better than any guess."""
    entries = int(getattr(model.config, "vocab_size", 0) or 0)
    if entries < 2 or not loss > math.log(entries):
        return ()
    return (
        f"the teacher's loss over the targets of {examples} training examples is {loss:.2f} nats a token, and to guess "
        f"any of its {entries:,} tokens costs {math.log(entries):.2f}: it may be untrained, or have another tokenizer",
    )


def token_report(
    examples: TokenizedExamples, scored: ScoredModel, collate: Collator, names: Sequence[str]
) -> ScoreReport:
    """Return those of `TOKEN_SCORES` that are named, over all labelled tokens, each token counting the same.

    `perplexity` is exp of the mean negative log-probability, `token_accuracy` the share of tokens that are the
    likeliest in their place. An example's parts are the loss of its own tokens, in nats, those right, and their number.
    """
    sums, counts, right = log_likelihoods(scored.model, examples, collate, scored.batch_size, scored.advance)
    number = max(int(counts.sum()), 1)
    mean = -sums.sum() / number
    values = {
        "perplexity": math.exp(mean) if mean < 700.0 else math.inf,
        "token_accuracy": float(right.sum() / number),
    }
    parts: dict[str, NDArray[Any]] = {"loss": -sums, "tokens": counts, "right": right}
    if examples.rows is not None:
        parts = {name: np.bincount(examples.rows, values, examples.n_rows) for name, values in parts.items()}
    parts |= {name: parts[name].astype(np.int64) for name in ("tokens", "right")}
    wanted = [name for name in TOKEN_SCORES if name in names]
    columns = {f"{name}:{part}": parts[part] for name in wanted for part in CORPUS_SCORES[name].parts}
    return ScoreReport({name: values[name] for name in wanted}, examples=columns)
