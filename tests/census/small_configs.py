"""Small valid configurations of any text type of the installed transformers: sizes by the names of fields, and a short
table of what single types need beside.

A model of such a configuration has four blocks of width 32 and a vocabulary of 99; where blocks are of two kinds, they
alternate A B B A, so that blocks of one kind have different neighbours.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any, Final

from transformers import AutoModel, PretrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING, CONFIG_MAPPING_NAMES
from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

WIDTH: Final = 32
HEADS: Final = 4
DEPTH: Final = 4
VOCABULARY: Final = 99
POSITIONS: Final = 64

# Size -> the fields that are set to it, where a configuration has them with a whole number.
_SIZES: Final[tuple[tuple[int, str], ...]] = (
    (
        WIDTH,
        "hidden_size d_model n_embd dim embedding_size emb_dim embed_dim word_embed_proj_dim input_size projection_dim "
        "text_embed_dim model_dim decoder_hidden_size encoder_hidden_size text_hidden_size n_embed pooler_hidden_size "
        "d_embed embedding_dim embedding_hidden_size true_hidden_size adapter_hidden_size output_hidden_size lru_width "
        "attention_hidden_size out_hidden_size vision_output_dim",
    ),
    (
        2 * WIDTH,
        "intermediate_size d_ff ffn_dim encoder_ffn_dim decoder_ffn_dim ffn_hidden_size n_inner d_inner mlp_dim dim_ff "
        "inner_dim feed_forward_size encoder_intermediate_size decoder_intermediate_size ffn_intermediate_size "
        "dense_intermediate_size hidden_dim mlp_hidden_size intermediate_size_mlp ff_dim feed_forward_dim "
        "shared_intermediate_size intermediate_dim mamba_d_ssm block_ff_dim",
    ),
    (
        32,
        "moe_intermediate_size shared_expert_intermediate_size moe_shared_expert_intermediate_size "
        "expert_intermediate_size expert_ffn_hidden_size moe_ffn_hidden_size moe_latent_size "
        "moe_shared_intermediate_size shared_expert_size expert_dim",
    ),
    (
        HEADS,
        "num_attention_heads n_head heads num_heads n_heads encoder_attention_heads decoder_attention_heads "
        "encoder_num_attention_heads decoder_num_attention_heads attention_heads num_query_heads num_q_heads nhead "
        "linear_num_key_heads linear_num_value_heads linear_num_heads index_n_heads",
    ),
    (
        HEADS // 2,
        "num_key_value_heads encoder_num_key_value_heads decoder_num_key_value_heads multi_query_group_num "
        "num_kv_heads kv_n_heads swa_num_key_value_heads num_global_key_value_heads n_kv_heads num_attention_groups",
    ),
    (
        WIDTH // HEADS,
        "head_dim d_head d_kv v_head_dim qk_nope_head_dim global_head_dim attention_head_dim kv_channels "
        "attention_head_size swa_head_dim index_head_dim head_size linear_key_head_dim "
        "linear_value_head_dim linear_head_dim",
    ),
    (4, "qk_rope_head_dim rotary_dim rope_dim"),
    (12, "qk_head_dim"),
    (16, "q_lora_rank kv_lora_rank o_lora_rank"),
    (
        DEPTH,
        "num_hidden_layers num_layers n_layer n_layers encoder_layers decoder_layers num_encoder_layers "
        "num_decoder_layers encoder_num_hidden_layers decoder_num_hidden_layers num_blocks depth n_blocks "
        "num_transformer_layers encoder_num_layers decoder_num_layers text_num_layers",
    ),
    (0, "num_nextn_predict_layers num_mtp_modules"),
    (4, "num_experts num_local_experts n_routed_experts moe_num_experts num_routed_experts expert_num"),
    (
        2,
        "num_experts_per_tok num_experts_per_token top_k moe_topk moe_top_k moe_k num_selected_experts top_k_experts",
    ),
    (
        1,
        "n_group topk_group n_shared_experts num_shared_experts moe_num_shared_experts first_k_dense_replace "
        "num_expert_group n_groups mamba_n_groups mamba_ngroups",
    ),
    (
        VOCABULARY,
        "vocab_size src_vocab_size tgt_vocab_size text_vocab_size decoder_vocab_size vocab_size_or_config_json_file "
        "vocab_size_per_layer_input encoder_vocab_size lang_vocab_size bigram_vocab_size",
    ),
    (
        POSITIONS,
        "max_position_embeddings n_positions max_position n_ctx max_seq_len max_sequence_length max_seq_length "
        "max_source_positions max_target_positions context_length original_max_position_embeddings seq_length "
        "max_encoder_position_embeddings max_decoder_position_embeddings",
    ),
    (2, "type_vocab_size mamba_expand expand"),
    (
        4,
        "sliding_window attention_window_size local_attention sliding_window_size local_window_size window_size_left "
        "attention_chunk_size local_attention_window_size mamba_d_conv conv_kernel linear_conv_kernel_dim "
        "conv_kernel_size d_conv short_conv_kernel_size time_step_rank mamba_dt_rank",
    ),
    (
        8,
        "state_size mamba_d_state ssm_state_size d_state mamba_n_heads n_mamba_heads mamba_num_heads mamba_heads "
        "mamba_d_head mamba_head_dim mamba_headdim chunk_size mamba_chunk_size hidden_size_per_layer_input",
    ),
    # What a composite type has beside its text model.
    (16, "image_size num_mel_bins"),
    (8, "patch_size"),
    (3, "num_channels in_channels"),
)
_SIZE_OF: Final[Mapping[str, int]] = {name: size for size, names in _SIZES for name in names.split()}

# Where None stands for "as wide as usual" or "none of it", None stays.
_NONE_STAYS: Final = frozenset(
    (
        *("sliding_window", "head_dim", "rotary_dim", "q_lora_rank", "embedding_size", "chunk_size", "top_k"),
        *("original_max_position_embeddings", "attention_window_size", "global_head_dim"),
        "num_global_key_value_heads",
    )
)
_DEPTH_NAMES: Final = ("num_hidden_layers", "num_layers", "n_layer", "n_layers", "encoder_layers", "num_blocks")
_HEAD_NAMES: Final = ("num_attention_heads", "n_head", "num_heads")
_PAD, _BEGIN, _END = 0, 2, 3

_ROPE: Final = {"rope_type": "default", "rope_theta": 10000.0}
_MROPE: Final = {"rope_parameters": {**_ROPE, "mrope_section": [1, 1, 2]}}
_MROPE_HALF: Final = {"rope_parameters": {**_ROPE, "mrope_section": [1, 1, 0], "partial_rotary_factor": 0.5}}
# As Gemma 4 E2B and E4B have it: the last blocks read the keys of others.
_SHARED_KEYS: Final = {"num_kv_shared_layers": 1, "layer_types": ["sliding_attention", "full_attention"] * 2}
# What a type needs beside its sizes, for settings that must fit each other.
_NEEDS: Final[Mapping[str, Mapping[str, Any]]] = {
    **dict.fromkeys(
        (
            "cosmos3_edge_text",
            "paddleocr_vl_text",
            "qwen2_5_omni_text",
            "glm4v_text",
            "glm_ocr_text",
            "glm_image_text",
            "qwen2_5_vl_text",
            "qwen2_vl_text",
        ),
        _MROPE,
    ),
    "glm4v_moe_text": _MROPE_HALF,
    "qwen2_5_vl": {"text_config": _MROPE},
    "qwen2_vl": {"text_config": _MROPE},
    **{kind: {"head_dim": 8} for kind in ("hunyuan_v1_dense", "hunyuan_v1_moe", "ministral")},
    "bamba": {"attn_layer_indices": [0, 3]},
    "big_bird": {"attention_type": "original_full", "block_size": 4},
    "bigbird_pegasus": {"attention_type": "original_full", "block_size": 4},
    "chameleon": {"vocabulary_map": {"<image>": VOCABULARY - 9}},
    "cohere_compass_text": {"rope_parameters": {"full_attention": {**_ROPE, "mrope_section": [1, 1, 2]}}},
    "canine": {"num_hash_buckets": 64, "local_transformer_stride": 4},
    "convbert": {"conv_kernel_size": 3, "head_ratio": 2, "embedding_size": WIDTH},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8},
        "ffn_config": {"ffn_hidden_size": 32, "moe_num_experts": 4, "moe_top_k": 2, "hidden_size": WIDTH},
    },
    "deberta": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "max_relative_positions": 16},
    "deberta-v2": {"relative_attention": True, "position_buckets": 8, "pos_att_type": ["p2c", "c2p"]},
    "deepseek_v2": {"topk_method": "greedy", "topk_group": None, "n_group": None, "num_experts_per_tok": 2},
    "dory": {"n_input_layers": 1, "n_recurrent_layers": 2, "n_output_layers": 1},
    "dots1": {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1, "first_k_dense_replace": 1},
    "diffusion_gemma_text": {"num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 32},
    "emu3": {"vocabulary_map": {"<image>": VOCABULARY - 9}},
    "esm": {"position_embedding_type": "rotary", "vocab_size": VOCABULARY, "mask_token_id": 4, "pad_token_id": _PAD},
    "funnel": {"block_sizes": [2, 2], "block_repeats": [1, 1], "num_decoder_layers": 1},
    "gemma3n_text": {
        "num_kv_shared_layers": 1,
        "laurel_rank": 8,
        "activation_sparsity_pattern": [0.5, 0.0, 0.5, 0.0],
        "intermediate_size": 64,
    },
    **dict.fromkeys(("gemma4_text", "gemma4_unified_text"), _SHARED_KEYS),
    "gpt_neo": {"attention_types": [[["global"], 1], [["local"], 2], [["global"], 1]], "window_size": 4},
    "hy_v4_vl_text": {"rope_parameters": {**_ROPE, "mrope_section": [1, 1, 0]}},
    "hunyuan_vl_text": {"head_dim": 8, "rope_parameters": {**_ROPE, "mrope_section": [1, 1, 1, 1]}},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1},
    "layoutlmv3": {
        "coordinate_size": 5,
        "shape_size": 6,
        "has_relative_attention_bias": False,
        "has_spatial_attention_bias": False,
        "visual_embed": False,
    },
    "led": {"attention_window": [4, 8, 8, 4]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention", "full_attention", "conv"], "num_dense_layers": 1},
    "lilt": {"hidden_size": 48},
    "longcat_flash": {"head_dim": 4},
    "longformer": {"attention_window": [4, 8, 8, 4]},
    "mamba2": {"num_heads": 8, "head_dim": 8},
    "mobilebert": {"true_hidden_size": WIDTH, "intra_bottleneck_size": WIDTH, "embedding_size": WIDTH},
    "nemotron": {"num_key_value_heads": 2, "head_dim": 8},
    "nystromformer": {"conv_kernel_size": 5, "num_landmarks": 8, "segment_means_seq_len": 8},
    "neomme": {
        "rope_parameters": {
            kind: {**_ROPE, "partial_rotary_factor": 0.5} for kind in ("full_attention", "sliding_attention")
        }
    },
    "qwen4_exp_text": {
        "indexer_n_heads": 4,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": 8,
        "indexer_compress_ratio": 2,
    },
    "reformer": {
        "attn_layers": ["local", "lsh", "lsh", "local"],
        "axial_pos_embds": False,
        "local_attn_chunk_length": 4,
        "lsh_attn_chunk_length": 4,
        "num_buckets": 2,
        "num_hashes": 1,
    },
    "rwkv": {"attention_hidden_size": WIDTH, "rescale_every": 2},
    "step3p5": {"sliding_window": 4},
    "xmod": {"languages": ["en_XX"], "default_language": "en_XX"},
    "zamba": {"layers_block_type": ["linear_attention", "hybrid", "linear_attention", "hybrid"]},
    "zamba2": {
        "layers_block_type": ["linear_attention", "hybrid", "linear_attention", "hybrid"],
        "num_mem_blocks": 1,
        "adapter_rank": 4,
        "attention_head_dim": 16,
    },
    "zaya": {"num_experts_per_tok": 1},
}
_NEEDS_INSIDE: Final[Mapping[str, Mapping[str, Any]]] = {
    "apertus1p5": {
        "audio_config": {"codebook_dim": WIDTH, "decoder_attention_num_groups": 4, "codebook_size": 4},
        "vision_config": {"codebook_size": 4, "base_channels": 32, "latent_channels": WIDTH, "num_res_blocks": 1},
        "image_token_offset": VOCABULARY - 8,
        "audio_token_offset": VOCABULARY - 4,
    },
    "gemma3n": {"text_config": _NEEDS["gemma3n_text"]},
}


def text_types() -> list[str]:
    """Return the types of the installed transformers whose `AutoModel` takes `input_ids`, in alphabetical order."""
    return [name for name in sorted(CONFIG_MAPPING_NAMES) if name in MODEL_MAPPING_NAMES and takes_text(name)]


def takes_text(name: str) -> bool:
    """Whether the model that `AutoModel` makes of a type takes `input_ids`."""
    try:
        model_class = AutoModel._model_mapping[CONFIG_MAPPING[name]]
        classes = model_class if isinstance(model_class, tuple) else (model_class,)
        return any("input_ids" in inspect.signature(each.forward).parameters for each in classes)
    except (ImportError, KeyError, AttributeError, ValueError):  # a class that needs another library
        return False


def small_config(name: str) -> PretrainedConfig:
    """Return a small configuration of a model type.

    Raises:
        Exception: whatever the configuration's own class raises where no small one is known.
    """
    config_class = CONFIG_MAPPING[name]
    values = _small_values(config_class)
    for key, value in {**_NEEDS.get(name, {}), **_NEEDS_INSIDE.get(name, {})}.items():
        whole = isinstance(value, Mapping) and isinstance(values.get(key), dict)
        values[key] = {**values[key], **value} if whole else value
    config = config_class(**values)
    if getattr(config, "is_encoder_decoder", False) and getattr(config, "decoder_start_token_id", None) is None:
        config.decoder_start_token_id = _BEGIN
    classes = AutoModel._model_mapping[config_class]
    if isinstance(classes, tuple):  # AutoModel chooses by a name that is written in real configurations
        config.architectures = [classes[0].__name__]
    return config


def _small_values(config_class: type[PretrainedConfig], outer: tuple[type, ...] = ()) -> dict[str, Any]:
    defaults: Mapping[str, Any] = config_class.default_config_fields()
    inner: Mapping[str, Any] = getattr(config_class, "sub_configs_defaults", None) or {}
    values = dict(_sizes(defaults, frozenset(inner)))
    heads = next((defaults[key] for key in _HEAD_NAMES if defaults.get(key)), None)
    for key in ("num_key_value_heads", "num_kv_heads"):  # as many as heads, where the default says so
        if key in values and defaults.get(key) in (None, heads):
            values[key] = HEADS
    values.update(_lists_by_layer(config_class, defaults, frozenset(inner)))
    for key, spec in inner.items():
        known = isinstance(spec.config_class, type) and issubclass(spec.config_class, PretrainedConfig)
        kind = spec.config_class if known else type(spec.default_config)
        absent = spec.optional and defaults.get(key) is None and not spec.init_kwargs
        if absent or kind in outer or not issubclass(kind, PretrainedConfig):
            continue
        needs = _NEEDS.get(str(kind.model_type), {})
        small = {**_small_values(kind, (*outer, config_class)), **needs}
        values[key] = {**(spec.init_kwargs or {}), **small, "model_type": kind.model_type}
    return values


def _sizes(defaults: Mapping[str, Any], inner: frozenset[str]) -> Iterator[tuple[str, Any]]:
    for key, value in defaults.items():
        if key in inner:
            continue
        if key.endswith(("_token_id", "_token_index")):
            yield key, _token(key, value)
        elif key in _SIZE_OF:
            unset = value is None and key in _NONE_STAYS
            if not unset and not isinstance(value, (list, tuple, bool, str, float)) and value not in (0, -1):
                yield key, _SIZE_OF[key]


def _token(key: str, value: Any) -> Any:
    if key == "pad_token_id":
        return _PAD
    if key in ("bos_token_id", "cls_token_id", "decoder_start_token_id", "boi_token_id"):
        return _BEGIN
    if key in ("eos_token_id", "sep_token_id", "forced_eos_token_id"):
        return _END
    # Marks of images and sounds lie above the words of the tokenizer, each in a place of its own.
    far = isinstance(value, int) and not isinstance(value, bool) and value >= VOCABULARY
    return VOCABULARY - 9 + sum(map(ord, key)) % 8 if far else value


def _lists_by_layer(
    config_class: type[PretrainedConfig], defaults: Mapping[str, Any], inner: frozenset[str]
) -> dict[str, list[Any]]:
    """Return the settings that the default configuration lists layer by layer: A B B A of its first two kinds."""
    try:
        full = config_class()
    except Exception:  # any class may refuse to have defaults
        return {}
    own = vars(full)  # not getattr, by which a setting that differs from layer to layer raises
    depth = next((own[key] for key in _DEPTH_NAMES if isinstance(own.get(key), int)), 0)
    lists: dict[str, list[Any]] = {}
    for key in defaults:
        value = None if key in inner else own.get(key)
        if depth > DEPTH and isinstance(value, (list, tuple)) and len(value) == depth:
            kinds = list({repr(each): each for each in value}.values())[:2]
            lists[key] = [kinds[0], kinds[-1], kinds[-1], kinds[0]]
    return lists
