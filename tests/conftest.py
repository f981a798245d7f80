"""Tiny real checkpoints, built from configurations: no network, no trained weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import Phase, settings
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from anglekit.analysis.analyze import analyze
from anglekit.models.checkpoints import Checkpoint, weights_hash
from anglekit.probes.data import ProbeData
from anglekit.results.geometry import Geometry

# For `make mutants`: what fails need not be made small, and must fail each time.
settings.register_profile("mutants", phases=[Phase.explicit, Phase.generate], database=None, derandomize=True)

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


def _model(family: str, *, width: int = 16, depth: int = 3, seed: int = 0, head: bool = False) -> PreTrainedModel:
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


def _tokenizer(words: tuple[str, ...] = WORDS) -> PreTrainedTokenizerFast:
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


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Two threads for torch, as on a machine with two cores; the suite runs with one."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def words() -> tuple[str, ...]:
    """The tokenizer's words, from which probe texts are made."""
    return WORDS


@pytest.fixture(scope="session")
def tiny_model() -> Callable[..., PreTrainedModel]:
    """`tiny_model(family, width=16, depth=3, seed=0, head=False)`."""
    return _model


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Callable[..., PreTrainedTokenizerFast]:
    """`tiny_tokenizer(words)`."""
    return _tokenizer


@pytest.fixture(scope="session")
def save_tiny() -> Callable[..., Path]:
    """`save_tiny(directory, family_or_model, tokenizer=..., **model options)` writes a checkpoint directory."""

    def save(
        directory: Path,
        family: str | PreTrainedModel,
        *,
        tokenizer: PreTrainedTokenizerFast | None = None,
        save_options: dict[str, Any] | None = None,
        **options: Any,
    ) -> Path:
        model = _model(family, **options) if isinstance(family, str) else family
        model.save_pretrained(directory, **(save_options or {}))
        (tokenizer or _tokenizer()).save_pretrained(directory)
        return directory

    return save


@pytest.fixture(scope="session")
def probe(words) -> ProbeData:
    """Twenty-four examples of 1 to 20 words, with targets of 1 to 7."""
    rng = np.random.default_rng(3)
    texts = tuple(" ".join(rng.choice(words, size)) for size in rng.integers(1, 21, 24))
    targets = tuple(" ".join(rng.choice(words, size)) for size in rng.integers(1, 8, 24))
    return ProbeData("memory", "0" * 64, texts, None, targets, tuple(range(24)), 0, "text", None, "target")


@pytest.fixture(scope="session")
def checkpoint(tiny_model, tiny_tokenizer) -> Callable[..., Checkpoint]:
    """`checkpoint(family, name, **model options)`: what `load_checkpoint` would return."""

    def make(family: str, name: str, **options: int) -> Checkpoint:
        model = tiny_model(family, **options)
        streams = {"bert": ("encoder",), "t5": ("encoder", "decoder"), "bart": ("encoder", "decoder")}
        known = streams.get(family, ("decoder",))
        return Checkpoint(name, name, model, tiny_tokenizer(), known, None, sha256=weights_hash(model))

    return make


@pytest.fixture(scope="session")
def bert_pair(checkpoint) -> tuple[Checkpoint, Checkpoint]:
    return checkpoint("bert", "teacher", seed=1), checkpoint("bert", "student", seed=2, depth=2)


@pytest.fixture(scope="session")
def bert_geometry(bert_pair, probe) -> Geometry:
    return analyze(bert_pair[0], bert_pair[1:], probe)
