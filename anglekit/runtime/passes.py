"""A forward pass that fails inside a library, told in one line: whose pass, of which batch, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from anglekit.errors import AnglekitError, InputError, RunError


@contextmanager
def told_failures(whose: str, model: nn.Module, inputs: Mapping[str, Any]) -> Iterator[None]:
    """Turn what a library raises in a forward pass into one line with the batch and the cause.

    Args:
        whose: pass it is: the teacher, the student, a name.
        model: that runs.
        inputs: its batch.

    Raises:
        InputError: the model cannot take the batch: a token without a row in the embeddings, or whatever the library
            says.
        RunError: the device has no memory left.
    """
    try:
        yield
    except AnglekitError:
        raise
    except torch.OutOfMemoryError as error:
        raise RunError(
            f"no memory was left in a pass of {whose} over {_shape(inputs)}: take smaller batches or shorter texts"
        ) from error
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        if (outside := _token_without_row(model, inputs)) is not None:
            token, rows = outside
            raise no_row(whose, rows, _shape(inputs), token) from error
        kind = type(model).__name__
        raise InputError(
            f"{kind} failed in a pass of {whose} over {_shape(inputs)}: {type(error).__name__}: {reason}",
            "if the model needs a setting before it runs, load it in Python and set it there",
        ) from error


def _shape(inputs: Mapping[str, Any]) -> str:
    """Return a batch in words."""
    for name in ("input_ids", "inputs_embeds"):
        value = inputs.get(name)
        if isinstance(value, Tensor) and value.dim() >= 2:
            return f"a batch of {value.shape[0]} examples, {value.shape[1]} tokens long"
    return "a batch"


def embedding_rows(model: nn.Module) -> int | None:
    """Return how many tokens have a row in a model's embeddings; None where there is no such table."""
    try:
        table = model.get_input_embeddings()  # type: ignore[operator]
    except (AttributeError, NotImplementedError):
        return None
    rows = getattr(table, "num_embeddings", None)
    return rows if isinstance(rows, int) else None


def no_row(whose: str, rows: int, where: str, token: int) -> InputError:
    """Return the error of a token beyond a model's embeddings; `where` says what holds it."""
    return InputError(
        f"{whose} has {rows:,} rows of embeddings, and {where} holds token number {token:,}",
        "resize its embeddings (model.resize_token_embeddings) and save it, or take its own tokenizer",
    )


def _token_without_row(model: nn.Module, inputs: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the highest token of a batch and the rows of the model's embeddings, where the token has none."""
    rows = embedding_rows(model)
    ids = [each for name in ("input_ids", "decoder_input_ids") if isinstance(each := inputs.get(name), Tensor)]
    highest = max((int(each.max()) for each in ids if each.numel() and each.device.type == "cpu"), default=-1)
    return (highest, rows) if rows is not None and highest >= rows else None
