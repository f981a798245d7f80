"""Students that were there before, as users bring them: cut by hand, narrower, wider, of another type."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer


def cut_by_hand(teacher: str, place: Path, blocks: tuple[int, ...], *, head: bool) -> str:
    """Drop a BERT classifier's other blocks with plain torch, and save it with its head or without."""
    model = AutoModelForSequenceClassification.from_pretrained(teacher)
    kept = model.bert.encoder.layer
    model.bert.encoder.layer = nn.ModuleList([kept[block] for block in blocks])
    model.config.num_hidden_layers = len(blocks)
    (model if head else model.bert).save_pretrained(place)
    AutoTokenizer.from_pretrained(teacher).save_pretrained(place)
    return str(place)


def another_shape(teacher: str, place: Path, auto_class, *, model_type: str | None = None, seed: int = 0, **settings):
    """Save a model of random weights of another shape, or type, with the teacher's tokenizer."""
    told = AutoConfig.from_pretrained(teacher).to_dict()
    for own in ("architectures", "layer_types"):  # one follows from the class, one from the depth
        told.pop(own, None)
    kind = model_type or told.pop("model_type")
    config = AutoConfig.for_model(kind, **({"vocab_size": told["vocab_size"]} if model_type else told) | settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        auto_class.from_config(config).save_pretrained(place)
    names = {"model_input_names": ["input_ids", "attention_mask"]} if model_type == "distilbert" else {}
    AutoTokenizer.from_pretrained(teacher, **names).save_pretrained(place)
    return str(place)
