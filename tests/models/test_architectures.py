"""Where models keep their blocks, found by structure: every family, with and without a head."""

import pytest
import torch
import transformers
from torch import nn

from anglekit.errors import InputError
from anglekit.models.architectures import blocks, depth, model_streams, stack, width
from anglekit.models.check import final_norm_module

SMALL = {"vocab_size": 24, "pad_token_id": 0}
BERT = {
    **SMALL,
    "hidden_size": 8,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 32,
}
STREAMS = {
    "bert": ("encoder",),
    "bart": ("encoder", "decoder"),
    "t5": ("encoder", "decoder"),
    "gpt2": ("decoder",),
    "llama": ("decoder",),
    "qwen3": ("decoder",),
}
FINAL_NORMS = {"t5": "T5LayerNorm", "gpt2": "LayerNorm", "llama": "LlamaRMSNorm", "qwen3": "Qwen3RMSNorm"}
BLOCKS = {
    "bert": "BertLayer",
    "t5": "T5Block",
    "gpt2": "GPT2Block",
    "llama": "LlamaDecoderLayer",
    "qwen3": "Qwen3DecoderLayer",
}


@pytest.mark.parametrize("family", list(STREAMS))
@pytest.mark.parametrize("head", [False, True])
def test_every_familys_blocks_are_found(tiny_model, family, head):
    model = tiny_model(family, width=8, depth=3, head=head)
    assert model_streams(model.config) == STREAMS[family]
    assert width(model.config) == 8
    for stream in STREAMS[family]:
        found = blocks(model, stream)
        assert depth(model.config, stream) == len(found) == 3
        assert {type(block).__name__ for block in found} == {BLOCKS.get(family, f"Bart{stream.title()}Layer")}
        home = set(stack(model, stream).modules())
        assert all(block in home for block in found)
        norm = final_norm_module(model, stream)
        assert (None if norm is None else type(norm).__name__) == FINAL_NORMS.get(family)
        assert norm is None or norm in home


@pytest.mark.parametrize("family", ["bart", "t5"])
def test_the_two_streams_share_no_block_and_no_norm(tiny_model, family):
    model = tiny_model(family, width=8, depth=2, head=True)
    encoder, decoder = (set(blocks(model, stream)) for stream in ("encoder", "decoder"))
    assert len(encoder | decoder) == 4
    norms = [final_norm_module(model, stream) for stream in ("encoder", "decoder")]
    assert norms[0] is None or norms[0] is not norms[1]
    assert stack(model, "encoder") is not stack(model, "decoder")


def test_streams_of_different_depth_are_told_apart():
    sizes = {"encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    bart = transformers.BartConfig(**SMALL, **sizes, d_model=8, encoder_layers=4, decoder_layers=2)
    t5 = transformers.T5Config(**SMALL, d_model=8, d_kv=4, d_ff=16, num_heads=2, num_layers=4, num_decoder_layers=2)
    for model in (transformers.BartModel(bart), transformers.T5Model(t5)):
        assert [len(blocks(model, stream)) for stream in ("encoder", "decoder")] == [4, 2]


@pytest.mark.parametrize(
    ("config", "model", "sizes", "norm"),
    [
        ("RobertaConfig", "RobertaForMaskedLM", BERT, False),
        (
            "DistilBertConfig",
            "DistilBertForSequenceClassification",
            {**SMALL, "dim": 8, "n_layers": 3, "n_heads": 2, "hidden_dim": 16},
            False,
        ),
        ("ModernBertConfig", "ModernBertForMaskedLM", {**BERT, "bos_token_id": 2, "eos_token_id": 3}, True),
        ("ElectraConfig", "ElectraModel", {**BERT, "embedding_size": 4}, False),
    ],
)
def test_other_encoders_are_found_too(config, model, sizes, norm):
    built = getattr(transformers, model)(getattr(transformers, config)(**sizes))
    assert model_streams(built.config) == ("encoder",)
    assert (width(built.config), depth(built.config, "encoder")) == (8, 3)
    assert len(blocks(built, "encoder")) == 3
    assert (final_norm_module(built, "encoder") is not None) == norm


def test_an_encoder_configured_as_a_decoder_is_one():
    assert model_streams(transformers.BertConfig(**BERT, is_decoder=True)) == ("decoder",)
    assert model_streams(transformers.BertConfig(**BERT)) == ("encoder",)


def test_shared_blocks_cannot_be_numbered():
    config = transformers.AlbertConfig(**BERT, embedding_size=4)
    with pytest.raises(InputError, match=r"AlbertModel has no list of 3 blocks in its encoder; .*one module per layer"):
        blocks(transformers.AlbertModel(config), "encoder")


def test_a_configuration_without_depth_or_width_is_refused():
    config = transformers.PretrainedConfig()
    with pytest.raises(InputError, match=r"states no number of layers; one of encoder_layers, .* is needed"):
        depth(config, "encoder")
    with pytest.raises(InputError, match="states no hidden size"):
        width(config)


def test_a_list_inside_a_block_is_not_taken_for_the_blocks(tiny_model):
    """As many parts in a block as there are blocks: T5's decoder blocks hold lists of three modules."""
    model = tiny_model("t5", width=8, depth=3)
    inner = model.decoder.block[0].layer
    assert isinstance(inner, nn.ModuleList)
    assert len(inner) == 3
    assert blocks(model, "decoder") is model.decoder.block


def test_blocks_come_in_the_order_in_which_they_run(tiny_model):
    model = tiny_model("bert", width=8, depth=4)
    order = []
    handles = [
        block.register_forward_hook(lambda *_args, number=number: order.append(number))
        for number, block in enumerate(blocks(model, "encoder"))
    ]
    model(torch.tensor([[2, 5, 3]]))
    for handle in handles:
        handle.remove()
    assert order == [0, 1, 2, 3]
