"""A model that transformers does not know, in the form of one that it does: its blocks are named, the rest is asked.

The model is wrapped, not copied or changed. What its blocks hand over, what they attend to and how texts share a batch
is found by running it, as for every other model (`anglekit.models.check`).
"""

from __future__ import annotations

import inspect
import itertools
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from anglekit.display.counts import counted
from anglekit.errors import InputError, foreign_failures, suggest
from anglekit.models.check import entered, evaluation_mode, handed_over

# Two short texts of small ids, which every vocabulary has.
_TRIAL: Final = ((1, 2, 3, 4, 5), (2, 3, 4, 5, 6))
_NUMBERS: Final = itertools.count()
_REMEDY: Final = 'name them: Checkpoint.of(model, blocks="encoder.layers")'


class ForeignConfig(PretrainedConfig):  # type: ignore[no-untyped-call]
    """What is known of a foreign model; `instance` tells two models of one class apart."""

    model_type = "foreign"

    def __init__(
        self,
        kind: str = "foreign",
        hidden_size: int = 1,
        num_hidden_layers: int = 1,
        vocab_size: int | None = None,
        instance: int | None = None,
        **kwargs: Any,  # noqa: ANN401 - of transformers
    ) -> None:
        super().__init__(**kwargs)
        vars(self)["model_type"] = kind  # its own, not the class's
        self.hidden_size, self.num_hidden_layers = hidden_size, num_hidden_layers
        self.vocab_size, self.instance = vocab_size, instance


class ForeignModel(PreTrainedModel):  # type: ignore[no-untyped-call]
    """A foreign model, called as transformers' are; it gives its own output's states, or else the last block's.

    Args:
        config: what is known of it.
        module: the model.
        blocks: its blocks, in order.
    """

    config_class = ForeignConfig

    def __init__(self, config: ForeignConfig, module: nn.Module, blocks: Sequence[nn.Module]) -> None:
        super().__init__(config)
        self.blocks = nn.ModuleList(blocks)
        self.module = module
        self._embeddings = _embeddings(module, config.vocab_size)

    def get_input_embeddings(self) -> nn.Module:
        """Return the table of tokens.

        Raises:
            NotImplementedError: none was seen.
        """
        if self._embeddings is None:
            raise NotImplementedError
        return self._embeddings

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        **_options: Any,  # noqa: ANN401 - what a model of transformers is asked beside
    ) -> tuple[Tensor]:
        """Run the model on what of the inputs it takes: ids int64 (batch, length), a mask of the same shape or None."""
        last: list[Tensor] = []
        thread = threading.get_ident()

        def keep(_module: nn.Module, _args: Any, output: Any) -> None:  # noqa: ANN401 - blocks return anything
            if threading.get_ident() == thread:
                last[:] = [handed_over(output)]

        handle = self.blocks[-1].register_forward_hook(keep)
        try:
            with _whole_states():
                output = _run(self.module, input_ids, attention_mask, token_type_ids)
        finally:
            handle.remove()
        own = _states_of(output)
        fits = own is not None and own.ndim == 3 and own.shape[:2] == input_ids.shape
        return (own if own is not None and fits else last[0],)


def with_named_blocks(module: nn.Module, blocks: str | Sequence[str | nn.Module] | nn.Module | None) -> ForeignModel:
    """Return any torch model in the form of one of transformers'.

    Its `forward` takes token ids, int64 (batch, length): as `input_ids`, or as its first argument. `attention_mask`
    and `token_type_ids` are given where it takes arguments of these names. Each block takes and gives states of shape
    (batch, length, width), alone or first.

    Args:
        module: the model.
        blocks: its blocks in order: a list, or the name of one, as in `named_modules`; or their names or themselves.

    Raises:
        InputError: no blocks are named, there are none of that name, or the model does not run or bypasses them.
    """
    found = _named(module, blocks)
    kind = type(module).__name__
    width, vocabulary = _asked(module, found)
    config = ForeignConfig(
        kind=kind, hidden_size=width, num_hidden_layers=len(found), vocab_size=vocabulary, instance=next(_NUMBERS)
    )
    mode = {each: each.training for each in module.modules()}
    named: type[ForeignModel] = type(kind, (ForeignModel,), {})  # messages call a model by its class
    model = named(config, module, found)
    for each, training in mode.items():  # a model of transformers begins in evaluation mode
        each.training = training
    return model


class _Passes:
    """How many passes of foreign models run now, in all threads, and torch's setting before the first of them."""

    lock = threading.Lock()
    running = 0
    fast = True


@contextmanager
def _whole_states() -> Iterator[None]:
    """Have torch's own encoder hand on states with their padding inside the block; the setting is the process's.

    Beside padding, `nn.TransformerEncoder` otherwise packs the texts of an evaluation into one nested tensor, which has
    no positions.
    """
    with _Passes.lock:
        if _Passes.running == 0:
            _Passes.fast = torch.backends.mha.get_fastpath_enabled()
            torch.backends.mha.set_fastpath_enabled(False)
        _Passes.running += 1
    try:
        yield
    finally:
        with _Passes.lock:
            _Passes.running -= 1
            if _Passes.running == 0:
                torch.backends.mha.set_fastpath_enabled(_Passes.fast)


def block_lists(module: nn.Module) -> dict[str, int]:
    """Return by name the lists of modules in a model and their lengths."""
    return {
        name: len(each)
        for name, each in module.named_modules()
        if name and isinstance(each, nn.ModuleList | nn.Sequential) and len(each)
    }


def _named(module: nn.Module, blocks: str | Sequence[str | nn.Module] | nn.Module | None) -> list[nn.Module]:
    kind, lists = type(module).__name__, block_lists(module)
    if blocks is None:
        shown = ", ".join(f"{name} ({length})" for name, length in list(lists.items())[:8])
        raise InputError(
            f"{kind} is no model of transformers, and nothing says which its blocks are",
            _REMEDY,
            allowed=f"its lists of modules: {shown}" if shown else "",
        )
    inside = dict(module.named_modules())

    def by_name(name: str) -> nn.Module:
        if name not in inside or not name:
            raise InputError(f"{kind} has no part {name!r}", allowed=suggest(name, lists or inside))
        part: nn.Module = inside[name]
        return part

    if isinstance(blocks, str | nn.Module):
        one = by_name(blocks) if isinstance(blocks, str) else blocks
        found = list(one.children()) if isinstance(one, nn.ModuleList | nn.Sequential) else [one]
    else:
        found = [by_name(each) if isinstance(each, str) else each for each in blocks]
    for number, each in enumerate(found):
        if not isinstance(each, nn.Module) or not any(each is other for other in inside.values()):
            raise InputError(f"block {number} of {kind}, a {type(each).__name__}, is no part of it", _REMEDY)
    if not found or len(set(map(id, found))) < len(found):
        raise InputError(f"{counted(len(found), 'block')} of {kind} were named, not all of them different", _REMEDY)
    return found


def _asked(module: nn.Module, blocks: Sequence[nn.Module]) -> tuple[int, int | None]:
    """Return the width of a model's states and the size of its vocabulary, where a table of it was seen."""
    weight = next(module.parameters(), None)
    ids = torch.tensor(_TRIAL, device="cpu" if weight is None else weight.device)
    states: list[Tensor] = []
    tables: list[int] = []

    def first_block(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        states.append(entered(args, kwargs))

    def table(each: nn.Module, args: tuple[Any, ...]) -> None:
        if args and isinstance(args[0], Tensor) and args[0].shape == ids.shape and torch.equal(args[0], ids):
            tables.append(int(each.num_embeddings))  # type: ignore[arg-type]

    handles = [blocks[0].register_forward_pre_hook(first_block, with_kwargs=True)]
    handles += [each.register_forward_pre_hook(table) for each in module.modules() if isinstance(each, nn.Embedding)]
    try:
        with evaluation_mode(module), torch.no_grad():
            _run(module, ids, None, None)
    finally:
        for handle in handles:
            handle.remove()
    if not states:
        raise InputError(f"the first block of {type(module).__name__} did not run", _REMEDY)
    return int(states[0].shape[-1]), tables[0] if tables else None


def _embeddings(module: nn.Module, vocabulary: int | None) -> nn.Module | None:
    tables = (each for each in module.modules() if isinstance(each, nn.Embedding))
    return next((each for each in tables if each.num_embeddings == vocabulary), None)


def _run(module: nn.Module, ids: Tensor, mask: Tensor | None, types: Tensor | None) -> Any:  # noqa: ANN401
    """Run a model on what of the inputs its `forward` takes."""
    taken = inspect.signature(module.forward).parameters
    every = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in taken.values())
    beside = {"attention_mask": mask, "token_type_ids": types}
    given = {name: each for name, each in beside.items() if each is not None and (name in taken or every)}
    with foreign_failures(
        lambda reason: InputError(
            f"{type(module).__name__} does not run on token ids: {reason}",
            "its forward must take them, (batch, length)",
        )
    ):
        return module(input_ids=ids, **given) if "input_ids" in taken or every else module(ids, **given)


def _states_of(output: Any) -> Tensor | None:  # noqa: ANN401 - models return anything
    """Return what may be the states that a model itself ends in: its last hidden state, or its first output."""
    told = getattr(output, "last_hidden_state", None)
    if isinstance(told, Tensor):
        return told
    try:
        return handed_over(output)
    except InputError:
        return None
