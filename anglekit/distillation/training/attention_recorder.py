"""What the self-attention of chosen blocks makes of its states, read with hooks on its projections."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from anglekit.distillation.losses.attention_relations import AttentionStates
from anglekit.distillation.losses.objective import DistillationObjective
from anglekit.distillation.matching.plain_plan import check_relation_heads, check_same_heads
from anglekit.errors import InputError
from anglekit.models.architectures import blocks, depth, stream_config
from anglekit.models.check import facts_of
from anglekit.vocabulary import Stream

#: Names of the projections to queries, keys and values, as transformers' models have them.
_SEPARATE: Final = (
    ("query", "key", "value"),  # BERT, RoBERTa, ELECTRA
    ("q", "k", "v"),  # T5, MPNet
    ("q_proj", "k_proj", "v_proj"),  # Llama, Qwen, BART
    ("q_lin", "k_lin", "v_lin"),  # DistilBERT
    ("query_proj", "key_proj", "value_proj"),  # DeBERTa
)
#: GPT-2's one projection, whose output is cut into three equal parts. Other fused ones interleave heads or group them.
_FUSED: Final = "c_attn"
#: What the path of an attention to the other stream holds.
_CROSS: Final = ("cross", "encdec", "encoder_attn", "encoder_decoder")


@dataclass(frozen=True)
class _Attention:
    """The self-attention module of a block, and the names of its projections: three, or one that is fused."""

    module: nn.Module
    projections: tuple[str, ...]

    def widths(self) -> Iterator[int]:
        """Yield the widths of queries, keys and values, where their modules say so."""
        for name in self.projections:
            projection = self.module.get_submodule(name)
            if isinstance(projection, Conv1D):
                yield int(projection.nf) // 3
            elif isinstance(found := getattr(projection, "out_features", None), int):
                yield found


@dataclass(frozen=True)
class _Shape:
    """Of a stream's attention: its heads, those of keys and values, and the widths of all three."""

    heads: int
    value_heads: int
    widths: frozenset[int]


class AttentionRecorder:
    """Records queries, keys and values of chosen layers in every forward pass inside the `with` block.

    They are the outputs of the projections: before a norm of each head (Qwen3) and before rotary positions. Layer
    `b + 1` is block `b`; the embedding has no attention. Gradients flow through what is recorded.

    With `maps` the attention distributions are recorded too, which a model gives with the implementation "eager" alone.
    While a recorded module runs, dropout of its map is off: what dropout leaves is no distribution.

    Args:
        model: a transformers model, with or without a head.
        layers: for each stream, the layers to keep, from 1.
        maps: whether attention distributions are recorded.
        role: how messages name the model.

    Attributes:
        states: after a forward pass, by stream and layer.

    Raises:
        InputError: a layer whose attention has no projections that can be read, or a model that gives no maps.
    """

    def __init__(
        self, model: PreTrainedModel, layers: Mapping[Stream, Sequence[int]], *, maps: bool = False, role: str = "model"
    ) -> None:
        self.states: dict[Stream, dict[int, AttentionStates]] = {stream: {} for stream in layers}
        self._model, self._maps, self._role = model, maps, role
        self._found: dict[Stream, dict[int, _Attention]] = {}
        self._heads: dict[Stream, tuple[int, int]] = {}
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self._parts: dict[tuple[Stream, int], dict[str, Tensor]] = {}
        self._proven: set[tuple[Stream, int]] = set()
        if not any(len(wanted) for wanted in layers.values()):
            return
        facts_of(model)  # which refuses what has no blocks to number
        for stream, wanted in layers.items():
            modules, deepest = blocks(model, stream), depth(model.config, stream)
            for layer in wanted:
                if not 1 <= layer <= deepest:
                    raise InputError(
                        f"layer {layer} of the {role}'s {stream} has no attention", f"layers run from 1 to {deepest}"
                    )
            self._found[stream] = {
                layer: _self_attention(modules[layer - 1], f"block {layer - 1} of the {role} {type(model).__name__}")
                for layer in wanted
            }
            self._heads[stream] = _heads_of(model, stream)
        used = getattr(model.config, "_attn_implementation", None)
        if maps and used != "eager":
            raise InputError(
                f"the {role} {type(model).__name__} runs attention {used!r}, which gives no maps",
                "load it with attn_implementation='eager' (or model.set_attn_implementation('eager')), or take "
                "minilm-v2, which needs none",
            )

    def __enter__(self) -> AttentionRecorder:
        """Install the hooks."""
        model = self._model
        again = any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
        if self._maps and self._found and model.training and again:
            raise InputError(
                f"gradient checkpointing runs the {self._role}'s blocks again, with dropout that the maps did not have",
                "leave it out, or take minilm-v2",
            )
        for stream, found in self._found.items():
            for layer, attention in found.items():
                for name in attention.projections:
                    keep = self._keeper(stream, layer, name)
                    self._handles.append(attention.module.get_submodule(name).register_forward_hook(keep))
                if self._maps:
                    self._watch_map(attention.module, stream, layer)
        return self

    def __exit__(self, *_error: object) -> None:
        """Remove the hooks, and put together what came."""
        while self._handles:
            self._handles.pop().remove()
        parts, self._parts = self._parts, {}
        if _error[0] is not None:
            return
        for stream, found in self._found.items():
            for layer, attention in found.items():
                self.states[stream][layer] = self._joined(stream, layer, attention, parts.get((stream, layer), {}))

    def shapes(self) -> dict[Stream, _Shape]:
        """Return what is known of each stream's attention before a pass."""
        return {
            stream: _Shape(
                *self._heads[stream],
                frozenset(width for attention in found.values() for width in attention.widths()),
            )
            for stream, found in self._found.items()
        }

    def clear(self) -> None:
        """Forget what was recorded, so that the memory can be used again."""
        for kept in self.states.values():
            kept.clear()

    def _keeper(self, stream: Stream, layer: int, name: str) -> Callable[..., None]:
        def keep(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:  # noqa: ANN401
            self._parts.setdefault((stream, layer), {})[name] = output

        return keep

    def _watch_map(self, module: nn.Module, stream: Stream, layer: int) -> None:
        training: list[bool] = []

        def begin(module: nn.Module, _args: tuple[Any, ...]) -> None:
            # The mode of the module itself decides over the dropout of its map; its children keep their own.
            training.append(module.training)
            module.training = False

        def end(module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:  # noqa: ANN401
            if training:
                module.training = training.pop()
            maps = [each for each in output if isinstance(each, Tensor)] if isinstance(output, tuple) else []
            if maps and maps[-1].ndim == 4:
                self._parts.setdefault((stream, layer), {})["map"] = maps[-1]

        self._handles.append(module.register_forward_pre_hook(begin))
        self._handles.append(module.register_forward_hook(end, always_call=True))

    def _joined(self, stream: Stream, layer: int, attention: _Attention, parts: dict[str, Tensor]) -> AttentionStates:
        name = f"layer {layer} of the {self._role}'s {stream} ({type(self._model).__name__})"
        if attention.projections == (_FUSED,):
            came = parts[_FUSED].chunk(3, dim=-1) if _FUSED in parts else ()
        else:
            came = tuple(parts[part] for part in attention.projections if part in parts)
        if len(came) != 3 or any(each.ndim != 3 for each in came):
            raise InputError(
                f"the queries, keys and values of {name} did not come as (batch, time, width)",
                "take another hidden loss",
            )
        attended = parts.get("map")
        # Looked at once: to look is to wait for an accelerator.
        if self._maps and (attended is None or (stream, layer) not in self._proven):
            sums = None if attended is None else attended.detach().float().sum(-1)
            if sums is None or not bool(((sums - 1.0).abs() < _ROUNDING).logical_or(sums == 0.0).all()):
                raise InputError(
                    f"the attention of {name} gave no map of distributions", "take minilm-v2, which needs none"
                )
            self._proven.add((stream, layer))
        heads, value_heads = self._heads[stream]
        return AttentionStates(*came, heads, value_heads, attended)


#: How far a half-precision distribution's sum may be from 1.
_ROUNDING: Final = 0.02


def _self_attention(block: nn.Module, where: str) -> _Attention:
    """Return the self-attention of a block.

    Raises:
        InputError: there is not exactly one whose queries, keys and values can be read.
    """
    found, others = [], set()
    for path, module in block.named_modules():
        if any(word in path.lower() for word in _CROSS):
            continue
        names = {name for name, _ in module.named_children()}
        fused = getattr(module, _FUSED, None)
        if isinstance(fused, Conv1D) and fused.nf == 3 * fused.nx:
            found.append(_Attention(module, (_FUSED,)))
        found += [_Attention(module, three) for three in _SEPARATE if set(three) <= names]
        others |= {name for name in names if "qkv" in name.lower() or "query_key_value" in name or name == "Wqkv"}
    if len(found) == 1:
        return found[0]
    reason = f"its {min(others)} is fused" if others else f"{len(found)} modules have all three"
    raise InputError(
        f"the queries, keys and values of {where} cannot be read one by one ({reason})",
        "take a hidden loss of states, such as mse or gram",
    )


def show_maps(objective: DistillationObjective, *models: PreTrainedModel) -> None:
    """Have models that a run owns give attention maps, if its objective reads them."""
    for model in models if objective.reads_maps else ():
        model.set_attn_implementation("eager")


def check_attention(objective: DistillationObjective, student: PreTrainedModel, teacher: PreTrainedModel) -> None:
    """Refuse two models whose attention the objective cannot compare, before either runs.

    Raises:
        InputError: projections that cannot be read, no maps where they are needed, other numbers of heads where they
            must agree, or relation heads that do not divide a width.
    """
    if not objective.reads_attention:
        return
    sides: list[dict[Stream, _Shape]] = []
    for role, model, layers in (
        ("student", student, objective.student_layers),
        ("teacher", teacher, objective.teacher_layers),
    ):
        recorder = AttentionRecorder(model, layers, maps=objective.reads_maps, role=role)
        sides.append(recorder.shapes())
    for stream, ours in sides[0].items():
        theirs = sides[1][stream]
        if objective.reads_maps:
            check_same_heads((ours.heads, ours.value_heads), (theirs.heads, theirs.value_heads))
        if objective.relation_heads is not None:
            check_relation_heads(objective.relation_heads, ours.widths | theirs.widths, theirs.heads)


def _heads_of(model: PreTrainedModel, stream: Stream) -> tuple[int, int]:
    """Return the heads of the queries and of the keys and values of a stream, as the configuration says; 1 if not."""
    config = stream_config(model.config, stream)
    names = (f"{stream}_attention_heads", "num_attention_heads", "n_head", "num_heads")
    heads = next((value for name in names if isinstance(value := getattr(config, name, None), int)), 1)
    grouped = getattr(config, "num_key_value_heads", None)
    return heads, grouped if isinstance(grouped, int) else heads
