"""The limits of length are what positions and tokenizer take, in each stream."""

from __future__ import annotations

import pytest
from transformers import BartConfig, BertConfig, LEDConfig, LlamaConfig, PretrainedConfig, T5Config, XLNetConfig

from anglekit.models.lengths import UNLIMITED, length_limit, position_limit, shared_limits, tokenizer_limit

_SMALL = {
    "d_model": 8, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
}  # fmt: skip


def test_the_streams_of_an_encoder_decoder_have_limits_of_their_own():
    config = LEDConfig(
        **_SMALL, max_encoder_position_embeddings=24, max_decoder_position_embeddings=12, attention_window=4
    )
    assert position_limit(config) == position_limit(config, "encoder") == 24
    assert position_limit(config, "decoder") == 12
    short = BartConfig(**_SMALL, max_position_embeddings=20)
    assert shared_limits([config, short]) == {"encoder": 20, "decoder": 12}
    assert shared_limits([short, T5Config()]) == {"encoder": 20, "decoder": 20}
    assert shared_limits([T5Config(), short]) == {"encoder": 20, "decoder": 20}
    assert shared_limits([T5Config()]) == {"encoder": None, "decoder": None}


def test_without_a_table_the_stated_length_holds():
    assert position_limit(LlamaConfig(hidden_size=8, num_attention_heads=2, max_position_embeddings=96)) == 96
    assert position_limit(T5Config()) is None
    # XLNet states -1, which is no length.
    assert position_limit(XLNetConfig(d_model=8, n_layer=1, n_head=2, d_inner=16)) is None


@pytest.mark.parametrize(("stated", "limit"), [(77, 77), (-1, None), (None, None)])
def test_a_model_that_cannot_be_built_is_limited_by_what_it_states(stated, limit):
    class Unknown(PretrainedConfig):
        model_type = "not-in-transformers"

    config = Unknown()
    if stated is not None:
        config.max_position_embeddings = stated
    assert position_limit(config) == limit


def test_the_smaller_of_tokenizer_and_model_is_taken(tiny_tokenizer):
    tokenizer = tiny_tokenizer()
    assert tokenizer_limit(tokenizer) == 64
    assert length_limit(tokenizer, BertConfig(max_position_embeddings=512)) == 64
    assert length_limit(tokenizer, BertConfig(max_position_embeddings=40)) == 40
    tokenizer.model_max_length = 10**30
    assert tokenizer_limit(tokenizer) is None
    assert length_limit(tokenizer, BertConfig(max_position_embeddings=512)) == 512
    assert length_limit(tokenizer, T5Config()) == UNLIMITED
