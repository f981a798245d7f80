"""Lists and rules that say which kind of block stands where follow the chosen blocks."""

import math

import pytest
import torch
import transformers as hf
from hypothesis import given, settings
from hypothesis import strategies as st

from anglekit.errors import InputError
from anglekit.models.architectures import blocks
from anglekit.models.chosen_blocks import fitting_blocks, with_blocks

_SIZES = {"vocab_size": 40, "hidden_size": 16, "num_attention_heads": 4, "intermediate_size": 24}
_EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 8, "num_key_value_heads": 4}
_QWEN = {**_SIZES, **_EXPERTS, "num_experts": 4, "head_dim": 4}
_LLAMA4 = {**_SIZES, "num_key_value_heads": 4, "head_dim": 4, "intermediate_size_mlp": 24, "num_local_experts": 2}
_DOTS = {**_SIZES, **_EXPERTS, "n_routed_experts": 4, "n_shared_experts": 1, "n_group": 1, "topk_group": 1}
_JAMBA = {**_SIZES, "num_key_value_heads": 4, "num_experts": 4, "mamba_d_state": 4, "use_mamba_kernels": False}
_NLLB = {"vocab_size": 40, "d_model": 16, "encoder_attention_heads": 4, "decoder_attention_heads": 4}
_NLLB |= {"encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "num_experts": 2}
_SWITCH = {"vocab_size": 40, "d_model": 16, "d_kv": 4, "d_ff": 24, "num_heads": 4, "num_experts": 2}


def kinds(model, stream):
    """The names and shapes of each block's weights: what kind of block it is."""
    return [{name: tuple(w.shape) for name, w in block.state_dict().items()} for block in blocks(model, stream)]


def on_meta(config):
    with torch.device("meta"):
        return hf.AutoModel.from_config(config)


def assert_kinds_follow(config, chosen):
    """The blocks of the shorter model have the kinds of the chosen ones, built by transformers itself."""
    fewer = on_meta(with_blocks(config, chosen))
    again = on_meta(type(config).from_dict(with_blocks(config, chosen).to_dict()))
    for stream, numbers in chosen.items():
        whole = kinds(on_meta(config), stream)
        assert kinds(fewer, stream) == [whole[number] for number in numbers]
        assert kinds(again, stream) == kinds(fewer, stream), "the configuration that is read back makes another model"


@pytest.mark.parametrize(
    ("config", "chosen"),
    [
        (hf.Qwen3MoeConfig(**_QWEN, num_hidden_layers=6, mlp_only_layers=[0, 3]), (0, 2, 3)),
        (hf.Qwen3MoeConfig(**_QWEN, num_hidden_layers=6, mlp_only_layers=[0, 1]), (1, 4)),
        (hf.Qwen3MoeConfig(**_QWEN, num_hidden_layers=6, decoder_sparse_step=2), (0, 1, 5)),
        (hf.Dots1Config(**_DOTS, num_hidden_layers=6, first_k_dense_replace=3), (0, 2, 5)),
        (hf.Dots1Config(**_DOTS, num_hidden_layers=6, first_k_dense_replace=3), (3, 4)),
        (hf.Llama4TextConfig(**_LLAMA4, num_hidden_layers=6, interleave_moe_layer_step=2), (0, 1, 3)),
        (hf.Llama4TextConfig(**_LLAMA4, num_hidden_layers=6, interleave_moe_layer_step=2), (0, 2)),
        (hf.JambaConfig(**_JAMBA, num_hidden_layers=6, attn_layer_period=3, attn_layer_offset=1), (0, 1, 2, 3)),
    ],
)
def test_the_kinds_of_blocks_follow(config, chosen):
    assert_kinds_follow(config, {"decoder": chosen})


@pytest.mark.parametrize("config", [
    hf.NllbMoeConfig(**_NLLB, encoder_layers=6, decoder_layers=4, encoder_sparse_step=3, decoder_sparse_step=2),
    hf.SwitchTransformersConfig(**_SWITCH, num_layers=6, num_decoder_layers=4, num_sparse_encoder_layers=2,
                                num_sparse_decoder_layers=2),
])  # fmt: skip
def test_each_stream_has_its_own_rule(config):
    sparse = [stream for stream in ("encoder", "decoder") if len({str(k) for k in kinds(on_meta(config), stream)}) > 1]
    assert sparse == ["encoder", "decoder"], "negative control: both kinds stand in both streams"
    first = {"nllb-moe": (0, 2), "switch_transformers": (0, 1)}[config.model_type]
    assert_kinds_follow(config, {"encoder": first, "decoder": (0, 1, 2, 3)})


@given(
    dense=st.sets(st.integers(0, 7)),
    step=st.integers(1, 3),
    chosen=st.lists(st.integers(0, 7), min_size=1, max_size=8, unique=True),
)
@settings(max_examples=200, deadline=None)
def test_sparse_blocks_are_those_that_were(dense, step, chosen):
    config = hf.Qwen3MoeConfig(**_QWEN, num_hidden_layers=8, mlp_only_layers=sorted(dense), decoder_sparse_step=step)

    def is_sparse(settings, block):
        return block not in settings.mlp_only_layers and (block + 1) % settings.decoder_sparse_step == 0

    fewer = with_blocks(config, {"decoder": chosen})
    assert fewer.num_hidden_layers == len(chosen)
    assert [is_sparse(fewer, new) for new in range(len(chosen))] == [is_sparse(config, block) for block in chosen]
    assert config.mlp_only_layers == sorted(dense), "the teacher's configuration was changed"


@given(
    period=st.integers(1, 5),
    offset=st.integers(0, 4),
    expert=st.integers(1, 4),
    chosen=st.sets(st.integers(0, 11), min_size=1, max_size=6).map(sorted),
)
@settings(max_examples=150, deadline=None)
def test_periods_fit_or_the_nearest_blocks_that_do_are_said(period, offset, expert, chosen):
    config = hf.JambaConfig(
        **_JAMBA,
        num_hidden_layers=12,
        attn_layer_period=period,
        attn_layer_offset=offset % period,
        expert_layer_period=expert,
        expert_layer_offset=0,
    )
    near = fitting_blocks(config, "decoder", chosen)
    assert len(near) == len(chosen)
    assert list(near) == sorted(set(near))
    fewer = with_blocks(config, {"decoder": near})
    for kind in ("layers_block_type", "layers_num_experts"):
        assert getattr(fewer, kind) == [getattr(config, kind)[block] for block in near]
    if near != tuple(chosen):
        with pytest.raises(InputError, match=f"copy blocks {','.join(map(str, near))}$"):
            with_blocks(config, {"decoder": chosen})


def test_a_list_by_block_stays_with_its_blocks():
    gpt = hf.GPTNeoConfig(
        vocab_size=40, hidden_size=16, num_layers=4, num_heads=4, attention_types=[[["global", "local"], 2]]
    )
    fewer = type(gpt).from_dict(with_blocks(gpt, {"decoder": (1, 3)}).to_dict())
    assert fewer.attention_layers == ["local", "local"]
    window = hf.LongformerConfig(**_SIZES, num_hidden_layers=4, attention_window=[2, 4, 6, 8])
    assert with_blocks(window, {"encoder": (0, 3)}).attention_window == [2, 8]
    one = hf.LongformerConfig(**_SIZES, num_hidden_layers=4, attention_window=4)
    assert with_blocks(one, {"encoder": (0, 3)}).attention_window == 4
    smol = hf.SmolLM3Config(**_SIZES, num_hidden_layers=4, num_key_value_heads=4, no_rope_layers=[1, 0, 0, 1])
    assert with_blocks(smol, {"decoder": (0, 1)}).no_rope_layers == [1, 0]
    llama = hf.LlamaConfig(**_SIZES, num_hidden_layers=3, eos_token_id=[1, 2, 3])
    assert with_blocks(llama, {"decoder": (0,)}).eos_token_id == [1, 2, 3], "no list by block"


def test_a_scale_by_depth_stays():
    config = hf.MiniCPM3Config(**_SIZES, num_hidden_layers=8, scale_depth=1.4)
    fewer = with_blocks(config, {"decoder": (1, 5)})
    assert fewer.scale_depth / math.sqrt(2) == pytest.approx(config.scale_depth / math.sqrt(8), abs=1e-12)


def test_a_depth_that_cannot_be_set_is_said():
    with pytest.raises(InputError, match="blocks of a funnel cannot be set"):
        with_blocks(hf.FunnelConfig(block_sizes=[2, 2]), {"encoder": (0, 1)})
    xlstm = with_blocks(hf.xLSTMConfig(num_hidden_layers=4), {"decoder": (0, 1)})
    assert (xlstm.num_hidden_layers, xlstm.num_blocks) == (2, 2)
    prophet = hf.ProphetNetConfig(num_encoder_layers=3, num_decoder_layers=4)
    fewer = with_blocks(prophet, {"encoder": (0, 1), "decoder": (3,)})
    assert (fewer.num_encoder_layers, fewer.num_decoder_layers) == (2, 1)


def test_blocks_that_alternate_without_a_setting_are_chosen_so():
    """PEGASUS-X shifts the windows of odd blocks: an even block cannot take an odd place."""
    config = hf.PegasusXConfig(encoder_layers=6, decoder_layers=6)
    assert fitting_blocks(config, "encoder", (1, 3)) == (0, 3)
    assert fitting_blocks(config, "decoder", (1, 3)) == (1, 3)
    with pytest.raises(InputError, match=r"no stagger_local_blocks gives blocks 1,3 .*copy blocks 0,3$"):
        with_blocks(config, {"encoder": (1, 3), "decoder": (1, 3)})
    config.stagger_local_blocks = False
    assert fitting_blocks(config, "encoder", (1, 3)) == (1, 3)


def gemma(depth, shared, every=5):
    kinds = ["full_attention" if block % every == every - 1 else "sliding_attention" for block in range(depth)]
    sizes = {"hidden_size_per_layer_input": 4, "vocab_size_per_layer_input": 40, "head_dim": 8, "global_head_dim": 8}
    return hf.Gemma4TextConfig(
        **_SIZES | sizes, num_hidden_layers=depth, layer_types=kinds, num_kv_shared_layers=shared, pad_token_id=0
    )


@given(shared=st.integers(1, 5), chosen=st.sets(st.integers(0, 9), min_size=1, max_size=9).map(sorted))
@settings(max_examples=150, deadline=None)
def test_blocks_whose_keys_others_read_are_chosen_with_them(shared, chosen):
    """Gemma 4's last blocks read the keys of the last block of their kind that has keys."""
    config = gemma(10, shared)
    own, kinds = 10 - shared, config.layer_types
    near = fitting_blocks(config, "decoder", chosen)
    assert len(near) == len(chosen)
    assert list(near) == sorted(set(near))
    reads = {block: max((b for b in range(own) if kinds[b] == kinds[block]), default=block) for block in range(own, 10)}
    assert all(reads[block] in near for block in near if block >= own)
    fewer = with_blocks(config, {"decoder": near})
    assert fewer.num_kv_shared_layers == sum(block >= own for block in near)
    assert fewer.layer_types == [kinds[block] for block in near]
    if near != tuple(chosen):
        with pytest.raises(InputError, match=r"reads the keys of block \d, which is not chosen; choose block \d too"):
            with_blocks(config, {"decoder": chosen})


def test_a_depth_that_no_model_has_is_answered_at_once():
    config = hf.JambaConfig(**_JAMBA, num_hidden_layers=4, attn_layer_period=3, attn_layer_offset=1)
    config.num_hidden_layers, config.attn_layer_period = 90_000, 0
    everything = range(0, 90_000, 2)
    assert fitting_blocks(config, "decoder", everything) == ()
    with pytest.raises(InputError, match=r"choose other blocks$"):
        with_blocks(config, {"decoder": everything})
