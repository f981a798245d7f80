"""A teacher from scratch: its tokenizer from the training texts, its first weights from a configuration."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    BertForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
    set_seed,
)

from anglekit.errors import InputError
from anglekit.models.architectures import model_streams
from anglekit.models.checkpoints import quiet_transformers
from anglekit.recipes.plans import architecture, classifies
from anglekit.recipes.recipe import Recipe
from anglekit.runtime.files import whole_directory
from anglekit.tables.columns import find_text_columns
from anglekit.tables.read import read_table
from anglekit.tables.table import Table
from anglekit_data.matching_initialization import initialize_matching_attention
from anglekit_data.word_tokenizers import train_word_tokenizer


def model_with_head(config: PretrainedConfig, *, classifies: bool) -> PreTrainedModel:
    """Return a model with fresh weights from the global random state, and a classification or language-model head."""
    kinds: dict[tuple[str, ...], Any] = {
        ("encoder", "decoder"): AutoModelForSeq2SeqLM,
        ("decoder",): AutoModelForCausalLM,
    }
    kind = AutoModelForSequenceClassification if classifies else kinds.get(tuple(model_streams(config)))
    if kind is None:
        raise InputError(
            f"a {config.model_type} has an encoder alone and generates nothing", "choose a classification task"
        )
    model: PreTrainedModel = kind.from_config(config)
    return model


def make_untrained(recipe: Recipe, directory: Path) -> None:
    """Write a checkpoint with a tokenizer and untrained weights; it appears whole or not at all.

    Raises:
        InputError: the recipe's configuration, tokenizer and initialisation do not go together.
    """
    wanted = recipe.teacher.tokenizer
    if wanted is None:
        raise InputError(f"recipe {recipe.name}: a teacher from scratch needs teacher.tokenizer", "add it")
    table = read_table(recipe.data.train, limit=recipe.data.columns.limit)
    tokenizer = train_word_tokenizer(_texts(table, recipe), wanted.vocab_size, wanted.kind, wanted.max_length)
    special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos")}
    known = {name: number for name, number in special.items() if number is not None}
    sized = {**recipe.teacher.config, **known, "vocab_size": len(tokenizer)}
    config = architecture(replace(recipe, teacher=replace(recipe.teacher, config=sized)))
    set_seed(recipe.teacher.seed)
    model = model_with_head(config, classifies=classifies(recipe))
    if recipe.teacher.initialization == "matching-attention":
        if not isinstance(model, BertForSequenceClassification):
            raise InputError(
                f"recipe {recipe.name}: the initialization matching-attention is for BERT classifiers, and this is a "
                f"{type(model).__name__}",
                "use default",
            )
        initialize_matching_attention(model, recipe.teacher.seed)
    with whole_directory(directory, "config.json", overwrite=True) as scratch, quiet_transformers():
        tokenizer.save_pretrained(scratch)
        model.save_pretrained(scratch)


def _texts(table: Table, recipe: Recipe) -> Iterator[str]:
    """Yield the texts of a training table, of every column that the recipe names or that has a usual name."""
    columns = recipe.data.columns
    named = [
        name for name in (columns.source, columns.target, columns.prompt, columns.choices, columns.completion) if name
    ]
    if not named:
        text, pair = find_text_columns(table, columns.text, columns.text_pair)
        named = [text] if pair is None else [text, pair]
    if columns.prefix:
        yield columns.prefix
    for name in named:
        if not table.has(name):
            raise InputError(f"{table.source} has no column {name!r}", f"correct data.columns of recipe {recipe.name}")
        for cell in table.column(name):
            yield from (text for text in (cell if isinstance(cell, list) else [cell]) if isinstance(text, str))
