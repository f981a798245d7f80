"""The limits of length are what the models' position tables take, found by running them."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModel, BertConfig, T5Config

from anglekit.models.lengths import UNLIMITED, length_limit, position_limit, tokenizer_limit

SMALL = {
    "vocab_size": 24,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 16,
}


@pytest.mark.parametrize(
    ("kind", "takes"),
    [
        ("bert", 16),
        ("gpt2", 16),
        ("nystromformer", 16),
        *((kind, 14) for kind in ("camembert", "data2vec-text", "ibert", "mpnet", "roberta", "roberta-prelayernorm")),
        *((kind, 14) for kind in ("xlm-roberta", "xlm-roberta-xl", "xmod")),
    ],
)
def test_the_positions_take_that_many_tokens_and_no_more(kind, takes):
    padding = {"pad_token_id": 1} if takes == 14 else {}
    more = {"languages": ("en_XX",), "default_language": "en_XX"} if kind == "xmod" else {}
    config = AutoConfig.for_model(kind, **SMALL, **padding, **more)
    assert position_limit(config) == takes
    torch.manual_seed(0)
    model = AutoModel.from_config(config).eval()
    with torch.no_grad():
        model(input_ids=torch.full((1, takes), 5))
        with pytest.raises((IndexError, RuntimeError)):
            model(input_ids=torch.full((1, takes + 1), 5))


def test_relative_positions_have_no_end():
    assert position_limit(T5Config()) is None


def test_the_smaller_of_tokenizer_and_model_is_taken(tiny_tokenizer):
    tokenizer = tiny_tokenizer()
    assert tokenizer_limit(tokenizer) == 64
    assert length_limit(tokenizer, BertConfig(max_position_embeddings=512)) == 64
    assert length_limit(tokenizer, BertConfig(max_position_embeddings=40)) == 40
    tokenizer.model_max_length = 10**30
    assert tokenizer_limit(tokenizer) is None
    assert length_limit(tokenizer, BertConfig(max_position_embeddings=512)) == 512
    assert length_limit(tokenizer, T5Config()) == UNLIMITED
