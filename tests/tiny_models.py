"""Tiny real checkpoints, built from configurations: no network, no trained weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from anglekit.models.checkpoints import Checkpoint, weights_hash

# fmt: off
WORDS = (
    "the", "a", "film", "was", "good", "bad", "dull", "bright", "cast", "plot", "score", "ending", "very", "not",
    "and", "but", "it", "we", "saw", "liked",
)
# fmt: on
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
_VOCABULARY = len(_SPECIAL) + len(WORDS)

# family: (configuration, headless class, class with a head, sizes for `width` and `depth`)
_FAMILIES: dict[str, tuple[str, str, str, Callable[[int, int], dict[str, Any]]]] = {
    "bert": (
        "BertConfig",
        "BertModel",
        "BertForSequenceClassification",
        lambda width, depth: {
            "hidden_size": width,
            "num_hidden_layers": depth,
            "num_attention_heads": 2,
            "intermediate_size": 2 * width,
            "max_position_embeddings": 64,
        },
    ),
    "t5": (
        "T5Config",
        "T5Model",
        "T5ForConditionalGeneration",
        lambda width, depth: {
            "d_model": width,
            "d_kv": width // 2,
            "d_ff": 2 * width,
            "num_layers": depth,
            "num_decoder_layers": depth,
            "num_heads": 2,
            "decoder_start_token_id": 0,
        },
    ),
    "bart": (
        "BartConfig",
        "BartModel",
        "BartForConditionalGeneration",
        lambda width, depth: {
            "d_model": width,
            "encoder_layers": depth,
            "decoder_layers": depth,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 2 * width,
            "decoder_ffn_dim": 2 * width,
            "max_position_embeddings": 64,
            "decoder_start_token_id": 3,
            "bos_token_id": 2,
            "eos_token_id": 3,
            "forced_eos_token_id": 3,
        },
    ),
    "gpt2": (
        "GPT2Config",
        "GPT2Model",
        "GPT2LMHeadModel",
        lambda width, depth: {
            "n_embd": width,
            "n_layer": depth,
            "n_head": 2,
            "n_positions": 64,
            "bos_token_id": 2,
            "eos_token_id": 3,
        },
    ),
    "llama": (
        "LlamaConfig",
        "LlamaModel",
        "LlamaForCausalLM",
        lambda width, depth: {
            "hidden_size": width,
            "num_hidden_layers": depth,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "intermediate_size": 2 * width,
            "max_position_embeddings": 64,
            "bos_token_id": 2,
            "eos_token_id": 3,
        },
    ),
    "qwen3": (
        "Qwen3Config",
        "Qwen3Model",
        "Qwen3ForCausalLM",
        lambda width, depth: {
            "hidden_size": width,
            "num_hidden_layers": depth,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": width // 2,
            "intermediate_size": 2 * width,
            "max_position_embeddings": 64,
            "bos_token_id": 2,
            "eos_token_id": 3,
        },
    ),
}


def tiny_model(family: str, *, width: int = 16, depth: int = 3, seed: int = 0, head: bool = False) -> PreTrainedModel:
    """Build a model with weights large enough that its layers differ."""
    config_class, plain, headed, sizes = _FAMILIES[family]
    config = getattr(transformers, config_class)(vocab_size=_VOCABULARY, pad_token_id=0, **sizes(width, depth))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = getattr(transformers, headed if head else plain)(config)
        for name, weight in model.named_parameters():
            if weight.ndim == 2 and "embed" not in name and "shared" not in name and "wte" not in name:
                torch.nn.init.normal_(weight, std=0.3)
    return model.eval()


def tiny_tokenizer(words: tuple[str, ...] = WORDS) -> PreTrainedTokenizerFast:
    """Build a word-level tokenizer that puts [CLS] before a text and [SEP] behind it."""
    vocabulary = {word: number for number, word in enumerate((*_SPECIAL, *words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=64,
    )


def save_tiny(
    directory: Path,
    family: str | PreTrainedModel,
    *,
    tokenizer: PreTrainedTokenizerFast | None = None,
    save_options: dict[str, Any] | None = None,
    **options: Any,
) -> Path:
    """Write a checkpoint directory of a model, or of a family's tiny one, and return it."""
    model = tiny_model(family, **options) if isinstance(family, str) else family
    model.save_pretrained(directory, **(save_options or {}))
    (tokenizer or tiny_tokenizer()).save_pretrained(directory)
    return directory


def tiny_checkpoint(family: str, name: str, **options: int) -> Checkpoint:
    """Return what `load_checkpoint` would return of a family's tiny model."""
    model = tiny_model(family, **options)
    streams = {"bert": ("encoder",), "t5": ("encoder", "decoder"), "bart": ("encoder", "decoder")}
    known = streams.get(family, ("decoder",))
    return Checkpoint(name, name, model, tiny_tokenizer(), known, None, sha256=weights_hash(model))
