"""A model of which the first blocks are held computes in them what the whole one computes, or is held whole."""

import pytest
import torch
import transformers as hf

from anglekit.models.architectures import blocks, depth, model_streams
from anglekit.models.block_sequence import difference, random_inputs, states_in_sequence
from anglekit.models.checkpoints import load_checkpoint
from anglekit.models.chosen_blocks import with_blocks
from anglekit.models.held_blocks import same_first_blocks
from anglekit.models.load_options import LoadOptions

SIZES = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 24}
LATENT = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_nope_head_dim": 4, "qk_rope_head_dim": 4, "v_head_dim": 4}
CONFIGS = {
    "bert": hf.BertConfig(**SIZES),
    "t5": hf.T5Config(vocab_size=40, d_model=16, d_kv=4, d_ff=24, num_layers=4, num_heads=4, decoder_start_token_id=0),
    "esm": hf.EsmConfig(**SIZES, pad_token_id=0, mask_token_id=4, position_embedding_type="rotary"),
    "minicpm3": hf.MiniCPM3Config(**SIZES, **LATENT, num_key_value_heads=4),
    "rwkv": hf.RwkvConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=4, attention_hidden_size=16, rescale_every=2
    ),
    "diffllama": hf.DiffLlamaConfig(**SIZES, num_key_value_heads=4),
}


def saved(config, directory):
    torch.manual_seed(1)
    model = hf.AutoModel.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.3)
    model.save_pretrained(directory)
    return model


def states(model, stream):
    everything = {each: range(len(blocks(model, each))) for each in model_streams(model.config)}
    return states_in_sequence(model, everything, random_inputs(model))[stream]


@pytest.mark.parametrize("name", CONFIGS)
def test_the_held_blocks_are_those_of_the_whole_model(name, tmp_path):
    saved(CONFIGS[name], tmp_path)
    stream = model_streams(CONFIGS[name])[-1]
    held = load_checkpoint(str(tmp_path), LoadOptions(blocks={stream: 2}))
    whole = load_checkpoint(str(tmp_path))
    assert len(blocks(held.model, stream)) == 2
    assert held.depth(stream) == whole.depth(stream) == 4
    pairs = zip(states(held.model, stream)[:3], states(whole.model, stream)[:3], strict=True)
    assert max(difference(ours, theirs) for ours, theirs in pairs) < 1e-5
    assert held.sha256 == load_checkpoint(str(tmp_path), LoadOptions(blocks={stream: 2})).sha256


def test_a_model_that_needs_all_its_blocks_is_held_whole(tmp_path):
    """ESM C divides by the square root of its depth, and its configuration has no word for it."""
    config = hf.EsmcConfig(**SIZES, num_key_value_heads=4)
    model = saved(config, tmp_path)
    held = load_checkpoint(str(tmp_path), LoadOptions(blocks={"encoder": 2}))
    assert len(blocks(held.model, "encoder")) == 4
    assert not held.whole_depth
    assert max(map(difference, states(held.model, "encoder"), states(model, "encoder"))) < 1e-5


def test_a_model_in_another_shape_is_told_apart(tmp_path):
    config = CONFIGS["minicpm3"]
    fewer = with_blocks(config, {"decoder": (0, 1)})
    held = hf.AutoModel.from_config(fewer).eval()
    with torch.no_grad():
        for parameter in held.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.3)
    assert depth(held.config, "decoder") == 2
    assert same_first_blocks(held, config)
    for layer in held.layers:
        layer.residual_scale *= 1.5
    assert not same_first_blocks(held, config)
    without_memory = held.to("meta")
    assert same_first_blocks(without_memory, config), "compared as they are built"
    fewer.scale_depth *= 1.5
    assert not same_first_blocks(without_memory, config)
