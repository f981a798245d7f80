"""What a model's tables of positions take, found without weights, is what the model takes when it is run."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModel, BartConfig, BertConfig, BertModel, LEDConfig, RobertaConfig, T5Config

from anglekit.models import lengths
from anglekit.models.architectures import model_streams
from anglekit.models.lengths import position_tables
from tests.census.small_configs import small_config

_COMMON = {"vocab_size": 24, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
_ENCODER = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
_BOTH = {
    "d_model": 8, "encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "decoder_start_token_id": 2,
}  # fmt: skip
_GPT = {"n_embd": 8, "n_layer": 2, "n_head": 2}
_AT_MOST = {"max_position_embeddings": 16}

# type: its sizes beside the common ones, and the limits of its streams, known from its source
_TYPES = {
    "bert": (_ENCODER | _AT_MOST, {"encoder": 16}),
    "nystromformer": (_ENCODER | _AT_MOST | {"num_landmarks": 2, "segment_means_seq_len": 2}, {"encoder": 16}),
    **{
        kind: (_ENCODER | _AT_MOST, {"encoder": 14})
        for kind in ("camembert", "data2vec-text", "ibert", "markuplm", "mpnet", "roberta", "roberta-prelayernorm")
    },
    "xlm-roberta-xl": (_ENCODER | _AT_MOST, {"encoder": 14}),
    # It pads to its window, so that short texts of any length read the same positions.
    "longformer": (_ENCODER | _AT_MOST | {"attention_window": [4, 4]}, {"encoder": 14}),
    "gpt2": (_GPT | {"n_positions": 16}, {"decoder": 16}),
    "gptj": (_GPT | {"n_positions": 16, "rotary_dim": 2}, {"decoder": 16}),  # a table inside every block
    "opt": (_ENCODER | _AT_MOST | {"ffn_dim": 16, "word_embed_proj_dim": 8}, {"decoder": 16}),
    "mpt": ({"d_model": 8, "n_layers": 2, "n_heads": 2, "max_seq_len": 16}, {"decoder": 16}),  # a slice of biases
    "bart": (_BOTH | _AT_MOST, {"encoder": 16, "decoder": 16}),
    "marian": (_BOTH | _AT_MOST, {"encoder": 16, "decoder": 16}),
    "led": (
        _BOTH | {"max_encoder_position_embeddings": 24, "max_decoder_position_embeddings": 12, "attention_window": [4]},
        {"encoder": 24, "decoder": 12},
    ),
    # Its encoder reads every later position as the last one.
    "prophetnet": (
        {
            "hidden_size": 8, "num_encoder_layers": 1, "num_decoder_layers": 1, "num_encoder_attention_heads": 2,
            "num_decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "decoder_start_token_id": 2,
        } | _AT_MOST,
        {"encoder": None, "decoder": 13},
    ),
    # No table, or one that grows: nothing ends.
    "m2m_100": (_BOTH | _AT_MOST, {"encoder": None, "decoder": None}),
    "t5": ({"d_model": 8, "d_kv": 4, "d_ff": 16, "num_layers": 1, "num_heads": 2}, {"encoder": None, "decoder": None}),
    "llama": (_ENCODER | _AT_MOST, {"decoder": None}),
    "bloom": ({"hidden_size": 8, "n_layer": 1, "n_head": 2}, {"decoder": None}),
    "xlnet": ({"d_model": 8, "n_layer": 1, "n_head": 2, "d_inner": 16}, None),
}  # fmt: skip


def _takes(model, stream: str, length: int) -> bool:
    both = len(model_streams(model.config)) == 2
    inputs = {"input_ids": torch.full((1, 4 if both and stream == "decoder" else length), 5)}
    if both:
        inputs["decoder_input_ids"] = torch.full((1, length if stream == "decoder" else 4), 5)
    try:
        with torch.no_grad():
            model(**inputs)
    except (IndexError, RuntimeError):
        return False
    return True


@pytest.mark.parametrize("kind", _TYPES)
def test_a_model_takes_as_many_tokens_as_its_tables_and_no_more(kind):
    sizes, known = _TYPES[kind]
    config = AutoConfig.for_model(kind, **_COMMON, **sizes)
    found = position_tables(config)
    assert set(found) == set(model_streams(config))
    if known is not None:
        assert found == known
    torch.manual_seed(0)
    model = AutoModel.from_config(config).eval()
    for stream, limit in found.items():
        assert _takes(model, stream, limit or 60)
        assert limit is None or not _takes(model, stream, limit + 1)


def test_nothing_is_changed_by_asking():
    config = BertConfig(**_COMMON, **_ENCODER, **_AT_MOST)
    torch.manual_seed(3)
    model = BertModel(config)
    before, state = config.to_dict(), torch.get_rng_state()
    assert position_tables(model) == {"encoder": 16}
    assert config.to_dict() == before
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(weight.is_meta for weight in model.parameters())


@settings(max_examples=5, deadline=None)
@given(size=st.integers(14, 5000), padding=st.integers(0, 5))
def test_the_offset_is_the_modules_own(size, padding):
    """RoBERTa's positions begin behind its padding's entry, wherever that is; BERT's padding moves nothing.

    Limits below the 8 tokens of the longer text that is tried are not found.
    """
    told = {**_COMMON, **_ENCODER, "max_position_embeddings": size, "pad_token_id": padding}
    assert position_tables(RobertaConfig(**told)) == {"encoder": size - padding - 1}
    assert position_tables(BertConfig(**told)) == {"encoder": size}


def test_full_size_models_are_asked_without_their_memory():
    assert position_tables(LEDConfig()) == {"encoder": 16384, "decoder": 1024}
    assert position_tables(BartConfig()) == {"encoder": 1024, "decoder": 1024}
    # Relative positions are entries of a table too, but the last one stands for all that are further away.
    assert position_tables(T5Config()) == {"encoder": None, "decoder": None}


def test_look_ups_of_a_loop_over_chunks_are_not_tried_one_by_one(monkeypatch):
    """Kimi's linear attention looks hundreds of times into what is no table; each trial is a long pass."""
    pytest.importorskip("transformers.models.kimi_linear")
    tried = []
    read = lengths._read

    def counted(*given, **options):
        tried.append(given[3])
        return read(*given, **options)

    monkeypatch.setattr(lengths, "_read", counted)
    monkeypatch.setattr(lengths, "_KNOWN", {})
    assert lengths.position_tables(small_config("kimi_linear")) == {"decoder": None}
    assert 2 < len(tried) < 20
