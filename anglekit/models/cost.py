"""What a model costs: parameters, FLOPs of a pass, bytes of training; counted on the meta device, without weights.

The formulas, each an estimate:
- forward pass: 2 FLOPs for each parameter that a token is multiplied with (embedding tables are looked up and not
  multiplied; a tied output head is multiplied), plus attention, 4 x width x length for each token and block. Backward:
  twice the forward pass; with LoRA once, because most weights need no gradient.
- training memory: AdamW in float32 takes 16 bytes a parameter (weight, gradient, two moments), Adafactor and SGD 8;
  frozen weights 4.
- activations: 66 bytes for each token, block and unit of width in float32, 34 in 16 bits (Korthikanti et al. 2022,
  arXiv 2205.05198, without the attention probabilities, which fused attention does not keep); 18 more for each token,
  block, head and position where attention has dropout, which on a CPU is not fused; 4 or 2 in all where they are
  recomputed; 12 bytes for each token and entry of the vocabulary where there is a language-model head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from anglekit.errors import InputError, foreign_failures
from anglekit.models.architectures import depth, model_streams, stack, width
from anglekit.models.checkpoint_files import StoredWeights, bounded_construction
from anglekit.models.checkpoints import quiet_transformers

FORMULAS: Final = (
    "FLOPs: forward 2 x parameters (embedding tables left out) x tokens + 4 x width x length x tokens x blocks,",
    "  backward twice that (LoRA: once); a pass of the teacher for each batch, shared by all students side by side.",
    "memory: AdamW in float32 16 bytes a parameter (Adafactor, SGD 8; frozen 4), the teacher's weights, activations:",
    "  66 bytes a token, block and unit of width (34 in 16 bits), 18 a token, block, head and position where attention",
    "  has dropout, 12 a token and vocabulary entry with an LM head; at a batch of the longest examples.",
)
_STATE_BYTES: Final[Mapping[str, int]] = {"adamw": 16, "adafactor": 8, "sgd": 8}


@dataclass(frozen=True)
class Tokens:
    """Mean tokens of an example: of its text, and of the target of an encoder-decoder.

    Attributes:
        text: of the text or source.
        target: of the target; 0 for models of one stream.
    """

    text: float
    target: float = 0.0

    @property
    def total(self) -> float:
        """All tokens that a pass reads."""
        return self.text + self.target


@dataclass(frozen=True)
class ModelCost:
    """The sizes of one model that decide its cost.

    Attributes:
        parameters: all of them.
        multiplied_text: parameters that each token of the text is multiplied with.
        multiplied_target: the same for tokens of the target; 0 for models of one stream.
        width: of the states.
        text_blocks: blocks that read the text.
        target_blocks: blocks that read the target.
        dropping_heads: heads of attention with dropout; 0 where there is none.
        vocabulary: entries of the language-model head; 0 without one.
        adapted: parameters of LoRA for each unit of rank, on all linear layers.
    """

    parameters: int
    multiplied_text: int
    multiplied_target: int
    width: int
    text_blocks: int
    target_blocks: int
    dropping_heads: int
    vocabulary: int
    adapted: int

    def forward_flops(self, tokens: Tokens) -> float:
        """Return the FLOPs of a forward pass of one example."""
        matrices = 2.0 * (self.multiplied_text * tokens.text + self.multiplied_target * tokens.target)
        own = self.text_blocks * tokens.text**2 + self.target_blocks * tokens.target**2
        cross = self.target_blocks * tokens.target * tokens.text
        return matrices + 4.0 * self.width * (own + cross)

    def step_flops(self, tokens: Tokens, *, lora: bool = False) -> float:
        """Return the FLOPs of a forward and a backward pass of one example."""
        return self.forward_flops(tokens) * (2.0 if lora else 3.0)

    def training_bytes(self, optimizer: str, *, lora_rank: int | None = None) -> float:
        """Return the bytes of weights, gradients and optimiser states."""
        state = _STATE_BYTES.get(optimizer, 16)
        if lora_rank is None:
            return float(state * self.parameters)
        return 4.0 * self.parameters + state * lora_rank * self.adapted

    def activation_bytes(self, batch: int, tokens: Tokens, *, half: bool = False, recomputed: bool = False) -> float:
        """Return the bytes that a step over `batch` examples, padded to `tokens`, keeps for its backward pass."""
        each = (34.0 if half else 66.0) if not recomputed else (2.0 if half else 4.0)
        kept = each * self.width * (self.text_blocks * tokens.text + self.target_blocks * tokens.target)
        if not recomputed:
            pairs = self.text_blocks * tokens.text**2 + self.target_blocks * tokens.target * tokens.total
            kept += (9.0 if half else 18.0) * self.dropping_heads * pairs
        # A language-model head answers at every token of the last stream.
        answered = tokens.target or tokens.text
        return batch * (kept + 12.0 * self.vocabulary * answered)


@contextmanager
def without_memory(source: str, stored: StoredWeights | None, refusal: Callable[[str], InputError]) -> Iterator[None]:
    """Make the block's models on the meta device, within bounds: they have shapes but no values.

    Raises:
        InputError: transformers cannot make the model (`refusal` turns the reason into the error), or it is too large.
    """
    with torch.device("meta"), quiet_transformers(), foreign_failures(refusal), bounded_construction(source, stored):
        yield


def model_cost(model: PreTrainedModel, *, classifies: bool = False) -> ModelCost:
    """Return the sizes of a model, which may be on the meta device; one that classifies has no language-model head."""
    config, streams = model.config, model_streams(model.config)
    head = None if classifies else model.get_output_embeddings()  # type: ignore[no-untyped-call]
    head_weight = getattr(head, "weight", None)
    tables = {id(module.weight): module.weight for module in model.modules() if isinstance(module, nn.Embedding)}
    looked_up = sum(weight.numel() for key, weight in tables.items() if key != id(head_weight))
    parameters = sum(weight.numel() for weight in model.parameters())
    multiplied = parameters - looked_up
    of_text = multiplied
    if len(streams) == 2:
        of_text = sum(weight.numel() for weight in stack(model, "encoder").parameters() if id(weight) not in tables)
    adapted = sum(
        module.in_features + module.out_features
        for module in model.modules()
        if isinstance(module, nn.Linear) and module is not head
    )
    dropouts = ("attention_probs_dropout_prob", "attention_dropout", "attn_pdrop", "dropout_rate")
    drops = any(getattr(config, name, None) for name in dropouts)
    return ModelCost(
        parameters=parameters,
        multiplied_text=of_text,
        multiplied_target=multiplied - of_text,
        width=width(config),
        text_blocks=depth(config, streams[0]),
        target_blocks=depth(config, "decoder") if len(streams) == 2 else 0,
        dropping_heads=attention_heads(config) if drops else 0,
        vocabulary=0 if head_weight is None else int(head_weight.shape[0]),
        adapted=adapted,
    )


def attention_heads(config: PretrainedConfig) -> int:
    """Return the number of attention heads of a block; 0 where the configuration names none."""
    heads = (getattr(config, name, None) for name in ("num_attention_heads", "num_heads", "n_head"))
    return next((number for number in heads if isinstance(number, int)), 0)
