"""Small models of types that behave in ways of their own, each from a configuration."""

import copy
import warnings

import torch
from torch import nn
from transformers import AutoConfig, AutoModel

TOKENS = {"vocab_size": 40, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
PLAIN = {**TOKENS, **SIZES, "max_position_embeddings": 64}
BART = {
    **TOKENS,
    "d_model": 32,
    "encoder_layers": 3,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 64,
    "decoder_start_token_id": 2,
}
#: Small configurations, by a name of ours: the type and its settings.
KINDS = {
    "bert": ("bert", PLAIN),
    "bert decoder": ("bert", {**PLAIN, "is_decoder": True}),
    "bert-generation": ("bert-generation", PLAIN),
    "roberta-prelayernorm": ("roberta-prelayernorm", {**PLAIN, "pad_token_id": 1}),
    "megatron-bert": ("megatron-bert", PLAIN),
    "esm": ("esm", {**PLAIN, "position_embedding_type": "rotary", "mask_token_id": 4}),
    "deberta with a convolution": (
        "deberta-v2",
        {**PLAIN, "conv_kernel_size": 3, "conv_act": "gelu", "relative_attention": True, "pos_att_type": ["p2c"]},
    ),
    "big_bird in full": ("big_bird", {**PLAIN, "attention_type": "original_full", "block_size": 2}),
    "big_bird": (
        "big_bird",
        {**PLAIN, "attention_type": "block_sparse", "block_size": 2, "num_random_blocks": 1, "pad_token_id": 0},
    ),
    "longformer": ("longformer", {**PLAIN, "attention_window": [4, 4, 4], "max_position_embeddings": 70}),
    "longformer, whole windows": (
        "longformer",
        {**PLAIN, "num_hidden_layers": 4, "attention_window": [128] * 4, "max_position_embeddings": 70},
    ),
    "fnet": ("fnet", {**PLAIN, "use_tpu_fourier_optimizations": False}),
    "convbert": ("convbert", {**PLAIN, "embedding_size": 32, "head_ratio": 2, "conv_kernel_size": 3}),
    "squeezebert": ("squeezebert", {**PLAIN, "embedding_size": 32}),
    "canine": (
        "canine",
        {**SIZES, "max_position_embeddings": 64, "num_hash_buckets": 16, "downsampling_rate": 4, "type_vocab_size": 2},
    ),
    "albert, blocks in a group": ("albert", {**PLAIN, "embedding_size": 16, "inner_group_num": 3}),
    "xlm": ("xlm", {"vocab_size": 40, "emb_dim": 32, "n_layers": 3, "n_heads": 4, "pad_index": 0, "n_words": 40}),
    "xlnet": ("xlnet", {"vocab_size": 40, "d_model": 32, "n_layer": 3, "n_head": 4, "d_inner": 48, "pad_token_id": 0}),
    "reformer": (
        "reformer",
        {
            "vocab_size": 40,
            "hidden_size": 32,
            "num_attention_heads": 4,
            "attention_head_size": 8,
            "feed_forward_size": 48,
            "attn_layers": ["local", "local", "local"],
            "axial_pos_embds": False,
            "local_attn_chunk_length": 4,
            "max_position_embeddings": 64,
            "pad_token_id": 0,
            "is_decoder": False,
        },
    ),
    "gpt2": ("gpt2", {**TOKENS, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64}),
    "ctrl": ("ctrl", {"vocab_size": 40, "n_embd": 32, "n_layer": 3, "n_head": 4, "dff": 48, "n_positions": 64}),
    "llama": ("llama", {**PLAIN, "num_key_value_heads": 2}),
    "mamba": ("mamba", {**TOKENS, "hidden_size": 32, "num_hidden_layers": 3, "state_size": 4, "time_step_rank": 4}),
    "rwkv": (
        "rwkv",
        {**TOKENS, "hidden_size": 32, "attention_hidden_size": 32, "num_hidden_layers": 4, "rescale_every": 2},
    ),
    "opt of two widths": (
        "opt",
        {
            **TOKENS,
            "hidden_size": 32,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "ffn_dim": 48,
            "max_position_embeddings": 64,
            "word_embed_proj_dim": 16,
            "do_layer_norm_before": False,
        },
    ),
    "bart": ("bart", BART),
    "led": ("led", {**BART, "attention_window": [4, 4, 4], "max_encoder_position_embeddings": 64}),
    "led, whole windows": ("led", {**BART, "attention_window": [128] * 3, "max_encoder_position_embeddings": 200}),
    "fsmt": (
        "fsmt",
        {**BART, "src_vocab_size": 40, "tgt_vocab_size": 44, "langs": ["en", "de"], "tie_word_embeddings": False},
    ),
    "prophetnet": (
        "prophetnet",
        {
            **TOKENS,
            "hidden_size": 32,
            "num_encoder_layers": 3,
            "num_decoder_layers": 3,
            "ngram": 2,
            "num_encoder_attention_heads": 4,
            "num_decoder_attention_heads": 4,
            "encoder_ffn_dim": 48,
            "decoder_ffn_dim": 48,
            "max_position_embeddings": 64,
            "num_buckets": 4,
            "relative_max_distance": 8,
        },
    ),
}


def build(kind, dtype=torch.float32, seed=0):
    """A small model of random weights, large enough that its layers and tokens differ."""
    model_type, settings = KINDS[kind]
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries, on settings that do not matter here
        torch.manual_seed(seed)
        model = AutoModel.from_config(AutoConfig.for_model(model_type, **copy.deepcopy(settings)))
        for name, weight in model.named_parameters():
            if weight.ndim >= 2 and "embed" not in name:
                nn.init.normal_(weight, std=0.15)
            elif weight.ndim == 1 and "norm" in name.lower() and "weight" in name:
                nn.init.uniform_(weight, 0.5, 2.0)
    return model.to(dtype).eval()
