"""Tensors by dotted names: how sums of any kind are added up, moved and written to files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor


def prefixed(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors with a name and a dot before each of their own."""
    return {f"{name}.{own}": tensor for own, tensor in tensors.items()}


def numbered(name: str, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return tensors as `name.0`, `name.1` and so on."""
    return {f"{name}.{number}": tensor for number, tensor in enumerate(tensors)}


def within(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors that `prefixed` or `numbered` put under a name, by their own names, in their order."""
    start = f"{name}."
    return {each.removeprefix(start): tensor for each, tensor in tensors.items() if each.startswith(start)}


def added(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the sums of the tensors of one name.

    Raises:
        TypeError: they have different names.
    """
    if a.keys() != b.keys():
        raise TypeError("only sums of one kind can be added")
    return {name: tensor + b[name] for name, tensor in a.items()}
