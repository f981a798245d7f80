"""Weights that stay in their files: which parts of a model do, how a block's are brought in and let go, stand-ins."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from anglekit.models.architectures import blocks, model_streams
from anglekit.vocabulary import Stream

#: What a map of devices calls a part that stays in its file.
DISK: Final = "disk"
# The spread of stand-in weights, that of most models' first weights.
_SPREAD: Final = 0.02
# Stand-ins of one shape begin at different places of one row of random numbers, so that no two matrices are equal.
_SHIFT, _SHIFTS = 997, 61


def blocks_on_disk(holder: nn.Module, model: PreTrainedModel, device: str) -> dict[str, str]:
    """Return a map of devices that leaves a model's blocks in their files and puts all else on one device.

    Args:
        holder: the model, or a composite one that holds it; it may have no memory.
        model: the one whose blocks stay.
        device: for everything else.
    """
    wanted = {id(block) for stream in model_streams(model.config) for block in blocks(model, stream)}

    def walk(name: str, module: nn.Module) -> Iterator[tuple[str, str]]:
        if id(module) in wanted:
            yield name, DISK
        elif not any(id(inner) in wanted for inner in module.modules()):
            yield name, device
        else:
            prefix = f"{name}." if name else ""
            own = (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
            yield from ((f"{prefix}{leaf}", device) for leaf, _ in own)
            for child, inner in module.named_children():
                yield from walk(f"{prefix}{child}", inner)

    return dict(walk("", holder))


def tensor_digest(name: str, tensor: Tensor) -> bytes:
    """Return what a weight adds to the hash of its model: the sha256 of its name, shape, type and bytes."""
    digest = hashlib.sha256(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
    digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.digest()


@dataclass(eq=False)
class OffloadedBlock:
    """A block whose weights lie in files, through the hooks that accelerate gave its modules.

    Attributes:
        block: the module.
        name: its name in the model.
    """

    block: nn.Module
    name: str
    _held: list[tuple[nn.Module, str, nn.Parameter]] = field(default_factory=list)
    _closed: list[Any] = field(default_factory=list)

    def read(self) -> dict[str, tuple[Tensor, bytes]]:
        """Return the weights by their names in the model, read from their files, with the digest of each.

        They are copies: of a mapped file, what was read is dropped again where memory is short, before the block has
        computed, and is then read once more.
        """
        found = {}
        for inside, module, leaf, hook in _offloaded(self.block):
            name, empty = f"{self.name}.{inside}", module._parameters[leaf]
            assert empty is not None
            tensor = hook.weights_map[leaf].detach().to(empty.dtype, copy=True)
            found[name] = tensor, tensor_digest(name, tensor)
        return found

    def bring_in(self, weights: Mapping[str, Tensor]) -> None:
        """Put weights by their names in the model, as of `read`, where the block's hooks would bring them to."""
        for inside, module, leaf, hook in list(_offloaded(self.block)):
            self._hold(module, leaf, hook, weights[f"{self.name}.{inside}"].to(torch.device(hook.execution_device)))

    def _hold(self, module: nn.Module, leaf: str, hook: Any, tensor: Tensor) -> None:  # noqa: ANN401 - accelerate's
        empty = module._parameters[leaf]
        assert empty is not None
        self._held.append((module, leaf, empty))
        module._parameters[leaf] = nn.Parameter(tensor, requires_grad=False)
        # Its hook would read the weights again in every pass, and drop them behind it.
        hook.offload = False
        self._closed.append(hook)

    def let_go(self) -> None:
        """Take the weights away again."""
        for module, leaf, empty in self._held:
            module._parameters[leaf] = empty
        for hook in self._closed:
            hook.offload = True
        self._held, self._closed = [], []


def offloaded_blocks(model: PreTrainedModel, streams: Collection[Stream]) -> list[OffloadedBlock]:
    """Return the blocks of a model in the order in which a pass comes to them, those whose weights lie in files."""
    names = {id(module): name for name, module in model.named_modules()}
    found = [OffloadedBlock(block, names[id(block)]) for stream in streams for block in blocks(model, stream)]
    return [each for each in found if any(True for _ in _offloaded(each.block))]


def can_stand_in(model: PreTrainedModel) -> bool:
    """Return whether every weight without memory is one that a hook would bring in."""
    theirs = {id(module._parameters[leaf]) for _, module, leaf, _ in _offloaded(model)}
    return all(id(weight) in theirs for weight in model.parameters() if weight.is_meta)


@contextmanager
def stand_ins(model: PreTrainedModel) -> Iterator[None]:
    """Let random numbers stand for the weights in files inside the block: nothing is read, and all shapes are right.

    They take the memory of the largest one. The weight of a norm, which has one dimension, is all ones.
    """
    whole = OffloadedBlock(model, "")
    pools: dict[tuple[torch.dtype, torch.device], Tensor] = {}
    try:
        for number, (_, module, leaf, hook) in enumerate(list(_offloaded(model))):
            empty, place = module._parameters[leaf], torch.device(hook.execution_device)
            assert empty is not None
            if empty.ndim == 1 and leaf == "weight":
                tensor = torch.ones(empty.shape, dtype=empty.dtype, device=place)
            else:
                pool = pools.get((empty.dtype, place))
                if pool is None:
                    pool = pools[empty.dtype, place] = _pool(model, empty.dtype, place)
                begin = _SHIFT * (number % _SHIFTS)
                tensor = pool[begin : begin + empty.numel()].view(empty.shape)
            whole._hold(module, leaf, hook, tensor)
        yield
    finally:
        whole.let_go()


def _pool(model: PreTrainedModel, dtype: torch.dtype, place: torch.device) -> Tensor:
    """Return random numbers for the largest weight of a type that has no memory, always the same."""
    largest = max(weight.numel() for weight in model.parameters() if weight.is_meta and weight.dtype == dtype)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.empty(largest + _SHIFT * _SHIFTS).normal_(0.0, _SPREAD, generator=generator)
    return drawn.to(dtype).to(place)


def _offloaded(model: nn.Module) -> Iterator[tuple[str, nn.Module, str, Any]]:
    """Yield the weights that lie in files: the name in the model, the module, the name in it, and the module's hook."""
    for name, module in model.named_modules():
        hook = getattr(module, "_hf_hook", None)
        for each in getattr(hook, "hooks", (hook,)):
            if each is not None and getattr(each, "offload", False) and each.weights_map is not None:
                for leaf, weight in module._parameters.items():
                    if weight is not None and weight.is_meta:
                        yield f"{name}.{leaf}" if name else leaf, module, leaf, each
