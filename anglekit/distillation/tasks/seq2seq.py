"""Sequence to sequence: a source that an encoder reads and a target that a decoder writes (BART, T5, Marian)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, cast

from transformers import AutoModelForSeq2SeqLM, PretrainedConfig
from transformers import PreTrainedTokenizerBase as Tokenizer

from anglekit.distillation.losses.functional import IGNORE_INDEX
from anglekit.distillation.settings import DataSettings, EncodingSettings, GenerationSettings
from anglekit.distillation.tasks.causal import doubts_about_tokens
from anglekit.distillation.tasks.data import TextTable, TokenizedExamples, length_sorted_batches, origin
from anglekit.distillation.tasks.generation import generate_texts, scoring_mode
from anglekit.distillation.tasks.scores import corpus_scores
from anglekit.distillation.tasks.task import BoundedTokenizer, ScoredModel, ScoreReport, Task
from anglekit.distillation.tasks.text_columns import find_text_column, text_lists, texts_of
from anglekit.errors import InputError
from anglekit.models.lengths import length_limit, position_limit
from anglekit.probes.encode import encode_texts
from anglekit.probes.languages import set_languages
from anglekit.runtime.placement import compute_device
from anglekit.tables.shapes import as_known_shape
from anglekit.tables.table import Table

_USUAL_SOURCES = ("source", "src", "input", "document", "article", "text")
_NEW_TOKENS = 128


@dataclass(frozen=True, eq=False, kw_only=True)
class SourcesAndTargets(TextTable):
    """A table's sources and the references for each.

    Attributes:
        sources: with the prefix in front.
        targets: one or more for each source.
        prefix: what was put before every source.
    """

    sources: tuple[str, ...]
    targets: tuple[tuple[str, ...], ...]
    prefix: str

    def __len__(self) -> int:
        return len(self.sources)

    def provenance(self) -> dict[str, Any]:
        """Return what a run records about the data."""
        return super().provenance() | {"prefix": self.prefix, "references": sum(map(len, self.targets))}


@dataclass(frozen=True, kw_only=True)
class Seq2SeqTask(Task):
    """A task that writes a text for a text.

    Losses are teacher-forced: the decoder reads the target shifted right, as the model itself shifts it. All decoder
    losses are at the positions whose label is a token of the target. A source with several references is trained on
    each of them and scored against all.

    Attributes:
        source_column, target_column: the task's own names of these columns.
        prefix: put before every source unless the settings say otherwise.
        target_max_length: tokens to which targets are cut; with None nothing is cut, and a target longer than the model
            allows is refused.
        beams: beams of the generation that is scored.
    """

    source_column: str | None = None
    target_column: str | None = None
    prefix: str = ""
    scores: tuple[str, ...] = ("bleu", "chrf")
    target_max_length: int | None = None
    beams: int = 4
    teacher_learning_rate: float = 3e-5
    student_learning_rate: float = 1e-4

    allowed_scores: ClassVar[Sequence[str]] = ("bleu", "chrf", "multi_bleu", "bleu_romanian")
    model_class: ClassVar[Any] = AutoModelForSeq2SeqLM
    model_kind: ClassVar[str] = "an encoder-decoder"
    streams: ClassVar[tuple[str, ...] | None] = ("encoder", "decoder")

    def texts(self, table: Table, columns: DataSettings, name: str) -> SourcesAndTargets:
        """Return a table's sources and targets; see `Task.read`."""
        own = [name for name in (self.source_column, self.target_column) if name is not None and table.has(name)]
        table = as_known_shape(table, (columns.source, columns.target, *own))
        first = find_text_column(table, "source", columns.source, (self.source_column,), _USUAL_SOURCES)
        second = find_text_column(table, "target", columns.target, (self.target_column,))
        if first == second:
            raise InputError(f"--source and --target both name column {first!r} of {table.source}", "name two")
        prefix = self.prefix if columns.prefix is None else columns.prefix
        return SourcesAndTargets(
            **origin(table, name),
            columns=(first, second),
            sources=tuple(prefix + text for text in texts_of(table, first, "source")),
            targets=text_lists(table, second, "target"),
            prefix=prefix,
        )

    # ---- tokens ----

    def encoding(self, wanted: EncodingSettings, tokenizer: Tokenizer, config: PretrainedConfig) -> EncodingSettings:
        """Return the lengths that sources and targets may have; see `Task.encoding`."""
        limit, length = length_limit(tokenizer, config, "decoder"), wanted.target_max_length
        if length is not None and length > limit:
            raise InputError(f"--target-max-length is {length}", allowed=f"allowed for this model: 2 to {limit}")
        if length is None and self.target_max_length is not None:
            length = min(self.target_max_length, limit)
        return replace(super().encoding(wanted, tokenizer, config), target_max_length=length)

    def tell_languages(self, wanted: EncodingSettings, tokenizer: Tokenizer) -> tuple[str, ...]:
        """Tell a multilingual tokenizer its languages; see `Task.tell_languages`."""
        return set_languages(tokenizer, wanted.source_lang, wanted.target_lang)

    def examples(self, table: SourcesAndTargets, bounded: BoundedTokenizer, *, training: bool) -> TokenizedExamples:
        """Return sources, cut off at the maximal length, and targets; see `Task.tokenize`.

        Training has one example per reference; examples for scoring have their first reference as label.
        """
        tokenizer, lengths = bounded.tokenizer, bounded.lengths
        places = [(row, text) for row, own in enumerate(table.targets) for text in (own if training else own[:1])]
        labels = encode_texts(
            tokenizer, [text for _, text in places], max_length=lengths.target_max_length, as_target=True
        )["input_ids"]
        for (row, _), label in zip(places, labels, strict=True):
            if len(label) > bounded.target_limit:
                raise InputError(
                    f"{table.source} has a target of {len(label)} tokens in row {row} (counted from 0), column "
                    f"{table.columns[1]!r}",
                    f"the model allows {bounded.target_limit}: shorten it, or cut targets by --target-max-length",
                )
        sources = encode_texts(tokenizer, table.sources, max_length=lengths.max_length)["input_ids"]
        return TokenizedExamples({"input_ids": [sources[row] for row, _ in places], "labels": labels}, table=table)

    def objective_options(self, tokenizer: Tokenizer) -> dict[str, Any]:
        """Return the pad token, which the official reading uses to find the decoder's positions."""
        return {"pad_token_id": self.padding_id(tokenizer)}

    # ---- scores ----

    def doubts(self, examples: TokenizedExamples, scored: ScoredModel) -> tuple[str, ...]:
        """Return what speaks against the model's probabilities of the targets; see `Task.doubts`."""
        model, collate, device = scored.model, self.collator(scored.tokenizer), compute_device(scored.model)
        total = tokens = 0.0
        with scoring_mode(model):
            for batch in length_sorted_batches(examples, scored.batch_size):
                inputs = {name: value.to(device) for name, value in collate([examples[i] for i in batch]).items()}
                number = float((inputs["labels"] != IGNORE_INDEX).sum())
                total += float(model(**inputs, use_cache=False).loss) * number
                tokens += number
        return doubts_about_tokens(total / max(tokens, 1.0), model, len(examples))

    def generation(
        self, wanted: GenerationSettings, tokenizer: Tokenizer, config: PretrainedConfig
    ) -> GenerationSettings:
        """Return complete settings; by default a text may fill the decoder's positions. See `Task.generation`."""
        positions = position_limit(config, "decoder")
        usual = self.target_max_length or _NEW_TOKENS
        chosen = wanted.completed(self.beams, min(usual, positions or usual))
        if positions and (chosen.max_new_tokens or 0) > positions:
            raise InputError(f"--max-new-tokens is {chosen.max_new_tokens}", f"this model writes 1 to {positions}")
        return chosen

    def score_values(self, examples: TokenizedExamples, scored: ScoredModel) -> ScoreReport:
        """Return BLEU and chrF of what the model generates, with sacreBLEU's signatures."""
        model, tokenizer = scored.model, scored.tokenizer
        chosen = self.generation(scored.generation, tokenizer, model.config)
        pad_id = self.padding_id(tokenizer)
        texts = generate_texts(model, tokenizer, examples, scored.batch_size, chosen, pad_id, advance=scored.advance)
        found = corpus_scores(self.scores, texts, cast("SourcesAndTargets", examples.table).targets)
        notes = {"signatures": dict(found.signatures), "generation": asdict(chosen)}
        return ScoreReport(found.values, notes, found.examples)
