"""Small configurations of composite types: a text model of four blocks beside towers as small as they may be.

A type is built by `transformers.AutoConfig.for_model(type, **COMPOSITES[type])`, and its model by the class that
`COMPOSITE_CLASSES` names.
"""

from __future__ import annotations

from typing import Any, Final

VOCABULARY: Final = 64

_SPECIAL = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
TEXT: Final[dict[str, Any]] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    **_SPECIAL,
}
CLIP_TOWER: Final[dict[str, Any]] = {
    "model_type": "clip_vision_model",
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
    "projection_dim": 16,
}
_SIGLIP = {**CLIP_TOWER, "model_type": "siglip_vision_model"}
_PIXTRAL = {**CLIP_TOWER, "model_type": "pixtral", "head_dim": 8}
_QWEN_VISION = {
    "depth": 2,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_heads": 2,
    "patch_size": 4,
    "temporal_patch_size": 2,
    "spatial_merge_size": 2,
    "out_hidden_size": 32,
    "num_position_embeddings": 16,
}
_MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
_IMAGE_TOKEN = {"image_token_id": 60}
_QWEN_TOKENS = {**_IMAGE_TOKEN, "video_token_id": 61, "vision_start_token_id": 58, "vision_end_token_id": 59}

COMPOSITES: Final[dict[str, dict[str, Any]]] = {
    "gemma3": {
        "text_config": {**TEXT, "sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"] * 2},
        "vision_config": _SIGLIP,
        "mm_tokens_per_image": 4,
        "image_token_index": 60,
        "boi_token_index": 61,
        "eoi_token_index": 62,
    },
    "gemma4": {
        "text_config": {
            **TEXT,
            "global_head_dim": 8,
            "sliding_window": 4,
            "vocab_size_per_layer_input": VOCABULARY,
            "hidden_size_per_layer_input": 8,
            "num_kv_shared_layers": 0,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
        },
        "vision_config": None,
        "audio_config": None,
        "image_token_id": 60,
        "audio_token_id": 61,
        "video_token_id": 62,
    },
    "qwen2_5_vl": {
        "text_config": {**TEXT, "rope_parameters": _MROPE},
        "vision_config": {**_QWEN_VISION, "fullatt_block_indexes": [0]},
        **_QWEN_TOKENS,
    },
    "qwen3_vl": {
        "text_config": {**TEXT, "rope_parameters": {**_MROPE, "mrope_interleaved": True}},
        "vision_config": {**_QWEN_VISION, "deepstack_visual_indexes": [0]},
        **_QWEN_TOKENS,
    },
    "qwen3_5": {
        "text_config": {
            **TEXT,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
            "layer_types": ["linear_attention", "full_attention"] * 2,
            "rope_parameters": {**_MROPE, "partial_rotary_factor": 1.0},
        },
        "vision_config": _QWEN_VISION,
        **_QWEN_TOKENS,
    },
    "mistral3": {
        "text_config": {**TEXT, "model_type": "mistral"},
        "vision_config": _PIXTRAL,
        "image_token_index": 60,
    },
    "llama4": {
        "text_config": {
            **TEXT,
            "intermediate_size_mlp": 48,
            "num_local_experts": 2,
            "moe_layers": [1, 3],
            "attention_chunk_size": 8,
        },
        "vision_config": {
            **CLIP_TOWER,
            "model_type": "llama4_vision_model",
            "vision_output_dim": 16,
            "projector_input_dim": 16,
            "projector_output_dim": 16,
        },
        "image_token_index": 60,
        "pad_token_id": 0,
    },
    "paligemma": {
        "text_config": {**TEXT, "model_type": "gemma"},
        "vision_config": _SIGLIP,
        "image_token_index": 60,
        "projection_dim": 32,
    },
    "llava": {
        "text_config": {**TEXT, "model_type": "llama"},
        "vision_config": CLIP_TOWER,
        "image_token_index": 60,
    },
    "aya_vision": {
        "text_config": {**TEXT, "model_type": "cohere2", "sliding_window": 4, "logit_scale": 0.25},
        "vision_config": _SIGLIP,
        "image_token_index": 60,
    },
    "clip": {
        "text_config": {**TEXT, "projection_dim": 16},
        "vision_config": CLIP_TOWER,
        "projection_dim": 16,
    },
}

COMPOSITE_CLASSES: Final = {
    "gemma3": "Gemma3ForConditionalGeneration",
    "gemma4": "Gemma4ForConditionalGeneration",
    "qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration",
    "qwen3_vl": "Qwen3VLForConditionalGeneration",
    "qwen3_5": "Qwen3_5ForConditionalGeneration",
    "mistral3": "Mistral3ForConditionalGeneration",
    "llama4": "Llama4ForConditionalGeneration",
    "paligemma": "PaliGemmaForConditionalGeneration",
    "llava": "LlavaForConditionalGeneration",
    "aya_vision": "AyaVisionForConditionalGeneration",
    "clip": "CLIPModel",
}

# Both parts of T5Gemma read text, so it is no composite: each stream has a configuration of its own.
_T5GEMMA_PART = {**TEXT, "sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"] * 2}
T5GEMMA: Final[dict[str, Any]] = {
    "encoder": _T5GEMMA_PART,
    "decoder": {**_T5GEMMA_PART, "num_hidden_layers": 2, "layer_types": ["sliding_attention", "full_attention"]},
    "vocab_size": VOCABULARY,
}
